//! What is said of an import.

use std::fmt;

/// What has become of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is written in another way, or means something else now.
    Changed,
    /// It is left out, and nothing is lost by it.
    LeftOut,
    /// It could not be brought over.
    Lost,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "changed",
            Self::LeftOut => "left out",
            Self::Lost => "not imported",
        })
    }
}

/// All that is said, each thing once with the places that it is said of.
#[derive(Debug, Default)]
pub struct Notes(Vec<(Kind, String, Vec<String>)>);

impl Notes {
    pub(super) fn add(&mut self, kind: Kind, message: impl Into<String>, place: impl Into<String>) {
        let (message, place) = (message.into(), place.into());
        match self.0.iter_mut().find(|(known, text, _)| *known == kind && *text == message) {
            Some((_, _, places)) => places.push(place),
            None => self.0.push((kind, message, vec![place])),
        }
    }

    /// Whether something could not be brought over.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.0.iter().any(|(kind, ..)| *kind == Kind::Lost)
    }
}

impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, message, places) in &self.0 {
            writeln!(f, "{kind}: {message}")?;
            for place in places {
                // Control characters would act on the terminal.
                let place: String = place.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                writeln!(f, "    {place}")?;
            }
        }
        Ok(())
    }
}
