//! Where a value stands in a configuration: `plugins.mycloud.params.record_types[1]`.

use std::fmt;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// A path from the top of a value to a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place(Vec<Step>);

impl Place {
    pub(super) fn root() -> Self {
        Self::default()
    }

    /// The place of an entry of the mapping here.
    pub(super) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// The place of an item of the list here.
    pub(super) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = Vec::with_capacity(self.0.len() + 1);
        steps.extend_from_slice(&self.0);
        steps.push(step);
        Self(steps)
    }

    pub(super) fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn last(&self) -> Option<&Step> {
        self.0.last()
    }

    /// The first steps only.
    pub(super) fn prefix(&self, steps: usize) -> Self {
        Self(self.0.iter().take(steps).cloned().collect())
    }

    pub(super) fn parent(&self) -> Self {
        self.prefix(self.len().saturating_sub(1))
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The place that a text like `record_types[1].name` names below this one.
    pub(super) fn below(&self, text: &str) -> Self {
        let mut place = self.clone();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (key, indices) = part.split_once('[').unwrap_or((part, ""));
            if !key.is_empty() {
                place.push(Step::Key(key.to_owned()));
            }
            for index in indices.split('[').filter_map(|index| index.trim_end_matches(']').parse().ok()) {
                place.push(Step::Index(index));
            }
        }
        place
    }

    /// The value that stands here.
    pub(super) fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, |value, step| match step {
            Step::Key(key) => value.as_object()?.get(key),
            Step::Index(index) => value.as_array()?.get(*index),
        })
    }

    /// The value that stands here, to be changed.
    pub(super) fn find_mut<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        self.0.iter().try_fold(value, |value, step| match step {
            Step::Key(key) => value.as_object_mut()?.get_mut(key),
            Step::Index(index) => value.as_array_mut()?.get_mut(*index),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if at > 0 {
                        f.write_str(".")?;
                    }
                    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                    if !key.is_empty() && key.chars().all(plain) {
                        f.write_str(key)?;
                    } else {
                        write!(f, "{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_reads_as_a_path() {
        let place = Place::root().key("plugins").key("my.cloud").key("types").index(1).key("n");
        assert_eq!(place.to_string(), r#"plugins."my.cloud".types[1].n"#);
        assert_eq!(place.parent().to_string(), r#"plugins."my.cloud".types[1]"#);
        assert_eq!(Place::root().key("a").below("b[1][2].c").to_string(), "a.b[1][2].c");
        assert_eq!(Place::root().key("a").below("").to_string(), "a");
    }

    #[test]
    fn a_place_finds_its_value() {
        let mut value = json!({"a": [1, {"b": 2}]});
        let place = Place::root().key("a").index(1).key("b");
        assert_eq!(place.find(&value), Some(&json!(2)));
        *place.find_mut(&mut value).unwrap() = json!(3);
        assert_eq!(value, json!({"a": [1, {"b": 3}]}));
        assert_eq!(Place::root().key("a").key("b").find(&value), None);
    }
}
