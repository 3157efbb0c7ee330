//! What the resource providers have: one file a provider, each a few definitions. A definition is data
//! (paths, permission, how its list ends) and a generator of the JSON that the provider answers.

pub(super) mod compute;
pub(super) mod disk;
pub(super) mod insights;
pub(super) mod key_vault;
pub(super) mod mysql;
pub(super) mod network;
pub(super) mod postgresql;
pub(super) mod resources;
pub(super) mod sql;
pub(super) mod storage;
pub(super) mod web;

use serde_json::{Map, Value};

use super::kind::Kind;
use super::random::Random;

/// How many shapes the things of one kind have. They take turns, so that each shape comes up in a list of
/// this length; a product of small numbers, so that "every second" and "every third" combine.
pub(super) const SHAPES: usize = 120;

/// A kind of thing.
#[derive(Debug)]
pub(super) struct Definition {
    /// The provider's namespace, as its ids spell it.
    pub(super) namespace: &'static str,
    /// The resource type below the namespace, segment by segment.
    pub(super) types: &'static [&'static str],
    pub(super) parent: Option<Kind>,
    pub(super) form: Form,
    /// A [template](super::template) of the resource id. A detail's is its parent's.
    pub(super) id: &'static str,
    pub(super) permission: &'static str,
    /// The JSON, with holes for what differs between things of one shape.
    pub(super) generate: fn(&mut Shape<'_>) -> Value,
}

/// How a kind is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A list in pages.
    Pages {
        /// How the provider spells the parameter in its links.
        token: &'static str,
        end: End,
    },
    /// A list that the published API gives at once, without a `nextLink`.
    OnePage,
    /// One array for each parent, given at once.
    Settings,
    /// One object for each parent, by this name; by none if the type alone is its address.
    Detail(Option<&'static str>),
}

/// How the last page of a list says that it is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has no `nextLink`.
    Absent,
    /// Its `nextLink` is null.
    Null,
    /// As `Absent`, but a full page is always followed by another, if need be an empty one.
    EmptyPage,
    /// As `EmptyPage`, and the `nextLink` is null then.
    NullEmptyPage,
}

impl End {
    pub(super) fn is_null(self) -> bool {
        matches!(self, Self::Null | Self::NullEmptyPage)
    }

    pub(super) fn may_be_empty(self) -> bool {
        matches!(self, Self::EmptyPage | Self::NullEmptyPage)
    }
}

/// One shape of a kind, to be generated.
pub(super) struct Shape<'a> {
    pub(super) random: Random,
    /// Which one of [`SHAPES`]. A detail has its parent's.
    pub(super) variant: usize,
    /// Whether it is for the first thing below its parent.
    pub(super) is_first: bool,
    pub(super) tenant: &'a str,
    /// The server's address.
    pub(super) url: &'a str,
}

impl Shape<'_> {
    /// Whether it is this one's turn: of so many variants, the one with this number.
    pub(super) fn is(&self, number: usize, of: usize) -> bool {
        self.variant % of == number
    }

    /// The next of these, by the variant.
    pub(super) fn turn(&self, choices: &[&'static str]) -> &'static str {
        choices.iter().cycle().nth(self.variant % choices.len().max(1)).copied().unwrap_or_default()
    }

    pub(super) fn pick(&mut self, choices: &[&'static str]) -> &'static str {
        self.random.pick(choices)
    }

    pub(super) fn location(&mut self) -> &'static str {
        self.pick(&["westeurope", "northeurope", "eastus", "southindia"])
    }

    /// The tags of most things; every third has none.
    pub(super) fn tags(&mut self) -> Option<Value> {
        let owner = self.pick(&["platform", "web", "data"]);
        let environment = self.pick(&["production", "staging", "development"]);
        (!self.is(2, 3)).then(|| serde_json::json!({"owner": owner, "environment": environment}))
    }
}

/// Sets what is there; what is not stays absent, as most providers do it.
pub(super) trait SetSome {
    fn set(&mut self, name: &str, value: Option<impl Into<Value>>);
}

impl SetSome for Value {
    fn set(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let (Self::Object(object), Some(value)) = (self, value) {
            object.insert(name.to_owned(), value.into());
        }
    }
}

/// Makes an item about this many bytes long by tags, which Azure allows 50 of, 256 characters each. What
/// has no tags stays as it is.
pub(super) fn pad(item: &mut Value, length: usize) {
    const LONGEST_TAG: usize = 256;
    const MOST_TAGS: usize = 50;
    let (true, Ok(text)) = (item.get("id").is_some(), serde_json::to_string(item)) else {
        return;
    };
    let Value::Object(object) = item else { return };
    let tags = object.entry("tags").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(tags) = tags else { return };
    let mut missing = length.saturating_sub(text.len());
    for number in 0..MOST_TAGS.saturating_sub(tags.len()) {
        let name = format!("note{number:02}");
        // The name, the quotes, the colon and the comma take their part.
        let room = missing.saturating_sub(name.len() + 6).min(LONGEST_TAG);
        if room == 0 {
            break;
        }
        let words = "kept for the audit of the simulated estate ".chars().cycle();
        tags.insert(name, words.take(room).collect::<String>().into());
        missing = missing.saturating_sub(room + 12);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn padding_reaches_the_length_and_no_further() {
        for length in [0, 500, 4096, 9000] {
            let mut item = json!({"id": "/a", "properties": {"b": 1}});
            let bare = item.to_string().len();
            pad(&mut item, length);
            let reached = item.to_string().len();
            // A tag that would be but a few bytes long is left out.
            assert!(reached.abs_diff(length.max(bare)) <= 40, "{length}: {reached}");
        }
    }
}
