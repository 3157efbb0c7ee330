//! Which index a document goes to: one for all, or one for each record type or month.

use std::borrow::Cow;
use std::fmt;

use proto::config::params::did_you_mean;
use proto::record::{PERMANENT, RecordView, Text};
use proto::subject::Version;
use serde::Deserialize;

use crate::store::Document;

/// What the servers take as an index name, in bytes.
const LONGEST: usize = 255;
/// How much of a record type gets into a name, in bytes.
const LONGEST_TYPE: usize = 100;
/// Stands for the type of documents that have none.
const NO_TYPE: &str = "other";

/// An index, or several by a pattern such as `cloudmarker-{record_type}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexPattern {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    RecordType,
    /// Of the version, not of the clock: a redelivered document goes to where it went before. What belongs to no version,
    /// and may be read again by a run of the next month, goes by its own time.
    Month,
}

/// The names between braces.
const PLACEHOLDERS: [&str; 2] = ["record_type", "month"];

impl IndexPattern {
    /// Reads a pattern. Index names have small letters only, so it is taken as if written so.
    ///
    /// # Errors
    /// What is wrong with it and what to do, for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.to_lowercase();
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err(format!("`{{` without `}}` in {text:?}; {}", allowed()));
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(match name {
                "record_type" => Piece::RecordType,
                "month" => Piece::Month,
                _ => return Err(format!("unknown `{{{name}}}`{}; {}", did_you_mean(name, PLACEHOLDERS), allowed())),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        check_name(&text, &pieces)?;
        Ok(Self { pieces })
    }

    /// The index of all documents, if there is one for all.
    pub(super) fn fixed(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Text(name)] => Some(name),
            _ => None,
        }
    }

    /// The index of a document.
    pub(super) fn name_of(&self, document: &Document) -> Cow<'_, str> {
        if let Some(name) = self.fixed() {
            return Cow::Borrowed(name);
        }
        let mut name = String::with_capacity(64);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::RecordType => push_type(&mut name, &document.record_type),
                Piece::Month => match own_version(document) {
                    Some(version) => push_month(&mut name, &version),
                    None => push_month(&mut name, &document.version),
                },
            }
        }
        Cow::Owned(name)
    }

    /// All its indexes, as the servers' own patterns say it.
    pub(super) fn wildcard(&self) -> String {
        self.joined("*")
    }

    /// The name of the template for its indexes.
    pub(super) fn template_name(&self) -> String {
        format!("cloudmarker.{}", self.joined("_any_"))
    }

    /// Templates whose patterns overlap must differ in it: the more of the name is told, the higher.
    pub(super) fn priority(&self) -> usize {
        // Well above those that come with the servers, which have 100 to 250.
        500 + self.joined("").len()
    }

    fn joined(&self, placeholder: &str) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::RecordType | Piece::Month => placeholder.to_owned(),
        };
        self.pieces.iter().map(text).collect()
    }
}

impl fmt::Display for IndexPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::RecordType => f.write_str("{record_type}"),
            Piece::Month => f.write_str("{month}"),
        })
    }
}

fn allowed() -> String {
    "write an index name such as `cloudmarker`, `cloudmarker-{record_type}` or `cloudmarker-{month}`".to_owned()
}

fn check_name(text: &str, pieces: &[Piece]) -> Result<(), String> {
    let Some(Piece::Text(first)) = pieces.first() else {
        return Err(format!("{text:?} does not begin with a name, so it would stand for every index; {}", allowed()));
    };
    if first.starts_with(['-', '_', '+', '.']) {
        return Err(format!("{text:?} begins with `-`, `_`, `+` or `.`, which index names must not; {}", allowed()));
    }
    let is_forbidden = |c: &char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '\\' | '/' | '*' | '?' | '"' | '<' | '>' | '|' | ',' | '#' | ':')
    };
    for piece in pieces {
        let Piece::Text(literal) = piece else { continue };
        if let Some(found) = literal.chars().find(is_forbidden) {
            return Err(format!("{text:?} has {found:?}, which index names must not have; {}", allowed()));
        }
    }
    let room = |piece: &Piece| match piece {
        Piece::Text(text) => text.len(),
        Piece::RecordType => LONGEST_TYPE,
        Piece::Month => "2026.01".len(),
    };
    let longest: usize = pieces.iter().map(room).sum();
    if longest > LONGEST {
        return Err(format!("names of up to {longest} bytes would come of it; index names have at most {LONGEST}"));
    }
    Ok(())
}

/// Appends a record type in the letters that index names have.
fn push_type(name: &mut String, record_type: &str) {
    let start = name.len();
    for c in record_type.chars().flat_map(char::to_lowercase) {
        if name.len() - start == LONGEST_TYPE {
            return;
        }
        let plain = c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        name.push(if plain { c } else { '_' });
    }
    if name.len() == start {
        name.push_str(NO_TYPE);
    }
}

/// The version of the moment when something happened, if the document is of permanent lifetime and says when that was.
fn own_version(document: &Document) -> Option<Version> {
    #[derive(Deserialize)]
    struct Com<'a> {
        #[serde(borrow)]
        lifetime: Text<'a>,
        #[serde(borrow)]
        time: Text<'a>,
    }
    let com = RecordView::parse(&document.body).ok()?.com?.get();
    let Com { lifetime, time } = serde_json::from_str(com).ok()?;
    let time: jiff::Timestamp = time.parse().ok().filter(|_| &*lifetime == PERMANENT)?;
    Some(Version::at(time))
}

/// Appends `2026.01` for the version `20260131_235959`.
fn push_month(name: &mut String, version: &Version) {
    let text = version.as_str();
    name.push_str(text.get(..4).unwrap_or_default());
    name.push('.');
    name.push_str(text.get(4..6).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::subject::Key;

    use super::*;

    fn document(record_type: &str) -> Document {
        Document {
            id: "i".into(),
            record_type: record_type.into(),
            audit: Key::new("audit").unwrap(),
            version: Version::new("20260131_235959").unwrap(),
            body: Bytes::new(),
        }
    }

    fn name(pattern: &str, record_type: &str) -> String {
        IndexPattern::parse(pattern).unwrap().name_of(&document(record_type)).into_owned()
    }

    #[test]
    fn a_document_goes_to_the_index_of_its_type_or_month() {
        assert_eq!(name("cloudmarker", "disk"), "cloudmarker");
        assert_eq!(name("CloudMarker-{record_type}", "disk"), "cloudmarker-disk");
        assert_eq!(name("c-{month}", "disk"), "c-2026.01");
        assert_eq!(name("c-{record_type}-{month}-x", ""), "c-other-2026.01-x");
        assert_eq!(name("c-{record_type}", "A b/*\u{130}é"), "c-a_b__i__");
        assert_eq!(name("c-{record_type}", &"x".repeat(500)).len(), 2 + LONGEST_TYPE);
    }

    #[test]
    fn what_belongs_to_no_version_stays_in_one_index() {
        let index = IndexPattern::parse("c-{month}").unwrap();
        let named = |com: &str| {
            let body = format!("{{\"raw\":{{}},\"com\":{com}}}").into();
            index.name_of(&Document { body, ..document("cloud_activity") }).into_owned()
        };
        assert_eq!(named(r#"{"lifetime":"permanent","time":"2025-12-31T23:59:59Z"}"#), "c-2025.12");
        assert_eq!(named(r#"{"time":"2025-12-31T23:59:59Z"}"#), "c-2026.01");
        assert_eq!(named(r#"{"lifetime":"permanent","time":"soon"}"#), "c-2026.01");
        assert_eq!(named(r#"{"lifetime":"permanent"}"#), "c-2026.01");
    }

    #[test]
    fn patterns_that_overlap_have_templates_of_their_own() {
        let wide = IndexPattern::parse("c-{month}").unwrap();
        let narrow = IndexPattern::parse("c-prod-{record_type}").unwrap();
        assert_eq!((wide.wildcard(), narrow.wildcard()), ("c-*".to_owned(), "c-prod-*".to_owned()));
        assert!(narrow.priority() > wide.priority());
        assert_ne!(narrow.template_name(), wide.template_name());
        // The same indexes for the server: one template.
        assert_eq!(IndexPattern::parse("c-{record_type}").unwrap().template_name(), wide.template_name());
        assert_eq!(wide.to_string(), "c-{month}");
    }

    #[test]
    fn what_cannot_be_an_index_is_refused() {
        for (bad, why) in [
            ("", "does not begin with a name"),
            ("{record_type}", "does not begin with a name"),
            ("{recordtype}", "did you mean `record_type`?"),
            ("c-{month", "without `}`"),
            ("_c", "begins with"),
            (".c", "begins with"),
            ("a b", "' '"),
            ("a,b", "','"),
            ("a*", "'*'"),
            ("c-{month}/x", "'/'"),
        ] {
            let error = IndexPattern::parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(IndexPattern::parse(&"x".repeat(256)).unwrap_err().contains("at most 255"));
        assert!(IndexPattern::parse(&format!("{}-{{record_type}}", "x".repeat(200))).is_err());
    }
}
