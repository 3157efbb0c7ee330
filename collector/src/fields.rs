//! The members of a bucket that a resource type has beyond those that all records have.
//!
//! A resource type says in data what its records hold, in order; nothing has to be declared twice.

use std::borrow::Cow;

use proto::record::Text;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// Members of a JSON object, in order, each under its name.
///
/// ```
/// use collector::fields::Fields;
///
/// let fields = Fields::new().with("disk_type", "attached").with("encryption_set", None::<&str>);
/// assert_eq!(serde_json::to_string(&fields).unwrap(), r#"{"disk_type":"attached","encryption_set":null}"#);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields<'a>(Vec<(&'static str, Field<'a>)>);

/// A value. `None` becomes [`Field::Null`]: leave a member out by not adding it.
#[derive(Debug, Clone, PartialEq)]
pub enum Field<'a> {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(Cow<'a, str>),
    /// A list of texts.
    Texts(Vec<Cow<'a, str>>),
    /// A list of objects.
    Objects(Vec<Fields<'a>>),
}

impl<'a> Fields<'a> {
    /// No members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a member. A name that is already there is not looked for: names are written by hand, once.
    pub fn set(&mut self, name: &'static str, value: impl Into<Field<'a>>) {
        self.0.push((name, value.into()));
    }

    /// The same with one more member.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Field<'a>>) -> Self {
        self.set(name, value);
        self
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Texts(values) => values.serialize(serializer),
            Self::Objects(values) => values.serialize(serializer),
        }
    }
}

impl From<bool> for Field<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Field<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> From<&'a str> for Field<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Cow::Borrowed(value))
    }
}

impl From<String> for Field<'_> {
    fn from(value: String) -> Self {
        Self::Text(Cow::Owned(value))
    }
}

impl<'a> From<Cow<'a, str>> for Field<'a> {
    fn from(value: Cow<'a, str>) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<Text<'a>> for Field<'a> {
    fn from(Text(value): Text<'a>) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<Vec<Cow<'a, str>>> for Field<'a> {
    fn from(values: Vec<Cow<'a, str>>) -> Self {
        Self::Texts(values)
    }
}

impl<'a> From<Vec<Text<'a>>> for Field<'a> {
    fn from(values: Vec<Text<'a>>) -> Self {
        Self::Texts(values.into_iter().map(|Text(text)| text).collect())
    }
}

impl<'a> From<Vec<Fields<'a>>> for Field<'a> {
    fn from(values: Vec<Fields<'a>>) -> Self {
        Self::Objects(values)
    }
}

impl<'a, T: Into<Field<'a>>> From<Option<T>> for Field<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_their_types() {
        let fields = Fields::new()
            .with("b", true)
            .with("a", None::<i64>)
            .with("names", vec![Cow::Borrowed("x"), Cow::Borrowed("y\"")])
            .with("disks", vec![Fields::new().with("size", 5), Fields::new()]);
        let text = serde_json::to_string(&fields).unwrap();
        assert_eq!(text, r#"{"b":true,"a":null,"names":["x","y\""],"disks":[{"size":5},{}]}"#);
    }
}
