//! What an expression comes to, and why it comes to nothing.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::json::{Json, Object};

/// A value. What stands in the record or in the rule is borrowed.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// A list of the record or the rule.
    List(&'a [Json<'a>]),
    /// A list that was made.
    Made(Rc<Vec<Value<'a>>>),
    /// An object of the record or the rule.
    Object(&'a Object<'a>),
    /// An object that was made.
    MadeObject(Rc<Vec<(Cow<'a, str>, Value<'a>)>>),
    /// A point in time.
    Time(Timestamp),
    /// A length of time.
    Duration(SignedDuration),
    /// What `.?` found, if it found something.
    Optional(Option<Rc<Value<'a>>>),
}

impl<'a> From<&'a Json<'a>> for Value<'a> {
    fn from(json: &'a Json<'a>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Bool(*flag),
            Json::Int(number) => Self::Int(*number),
            Json::Large(number) => Self::Float(*number as f64),
            Json::Float(number) => Self::Float(*number),
            Json::Text(text) => Self::Text(Cow::Borrowed(text)),
            Json::List(items) => Self::List(items),
            Json::Object(object) => Self::Object(object),
        }
    }
}

impl<'a> Value<'a> {
    /// A list of texts.
    pub fn texts(texts: impl IntoIterator<Item = Cow<'a, str>>) -> Self {
        Self::Made(Rc::new(texts.into_iter().map(Value::Text).collect()))
    }

    /// What kind of value it is, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) | Self::Made(_) => "a list",
            Self::Object(_) | Self::MadeObject(_) => "an object",
            Self::Time(_) => "a time",
            Self::Duration(_) => "a duration",
            Self::Optional(_) => "an optional value",
        }
    }

    /// The items, if it is a list.
    #[must_use]
    pub fn items(&self) -> Option<Items<'a>> {
        match self {
            Self::List(items) => Some(Items::Borrowed(items.iter())),
            Self::Made(items) => Some(Items::Made(Rc::clone(items), 0)),
            _ => None,
        }
    }

    /// The value of a field, if it is an object that has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Object(object) => object.get(name).map(Value::from),
            Self::MadeObject(fields) => {
                fields.iter().rev().find(|(field, _)| field == name).map(|(_, value)| value.clone())
            }
            _ => None,
        }
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        matches!(self, Self::Object(_) | Self::MadeObject(_))
    }

    /// Whether two values are equal; `None` when they are of kinds that cannot be compared, or one of them is null.
    #[must_use]
    pub fn equals(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::Bool(one), Self::Bool(other)) => Some(one == other),
            (Self::Text(one), Self::Text(other)) => Some(one == other),
            (Self::Time(one), Self::Time(other)) => Some(one == other),
            (Self::Duration(one), Self::Duration(other)) => Some(one == other),
            (Self::Int(_) | Self::Float(_), Self::Int(_) | Self::Float(_)) => {
                Some(self.compare(other) == Some(Ordering::Equal))
            }
            (Self::List(_) | Self::Made(_), Self::List(_) | Self::Made(_)) => Some(self.is_same(other)),
            (one, other) if one.is_object() && other.is_object() => Some(self.is_same(other)),
            _ => None,
        }
    }

    /// Equality inside of lists and objects, where null is a value like any other.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::List(_) | Self::Made(_), Self::List(_) | Self::Made(_)) => match (self.items(), other.items()) {
                (Some(one), Some(other)) => {
                    one.len() == other.len() && one.zip(other).all(|(one, other)| one.is_same(&other))
                }
                _ => false,
            },
            (one, other) if one.is_object() && other.is_object() => {
                let (one, other) = (one.fields(), other.fields());
                one.len() == other.len()
                    && one.iter().all(|(name, value)| {
                        other.iter().any(|(other_name, other)| name == other_name && value.is_same(other))
                    })
            }
            _ => self.equals(other).unwrap_or(false),
        }
    }

    /// The fields of an object; none of anything else.
    #[must_use]
    pub fn fields(&self) -> Vec<(Cow<'a, str>, Value<'a>)> {
        match self {
            Self::Object(object) => {
                object.iter().map(|(name, value)| (Cow::Borrowed(name), Value::from(value))).collect()
            }
            Self::MadeObject(fields) => fields.to_vec(),
            _ => Vec::new(),
        }
    }

    /// The order of two values of the same kind.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => Some(one.cmp(other)),
            (Self::Int(one), Self::Float(other)) => (*one as f64).partial_cmp(other),
            (Self::Float(one), Self::Int(other)) => one.partial_cmp(&(*other as f64)),
            (Self::Float(one), Self::Float(other)) => one.partial_cmp(other),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Time(one), Self::Time(other)) => Some(one.cmp(other)),
            (Self::Duration(one), Self::Duration(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }

    /// The value as JSON. An optional value that is none, and a number that JSON has not, are null.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Plain;
        match self {
            Self::Null | Self::Optional(None) => Plain::Null,
            Self::Bool(flag) => Plain::Bool(*flag),
            Self::Int(number) => (*number).into(),
            Self::Float(number) => (*number).into(),
            Self::Text(text) => Plain::String(text.clone().into_owned()),
            Self::List(items) => serde_json::to_value(items).unwrap_or_default(),
            Self::Made(items) => Plain::Array(items.iter().map(Value::to_json).collect()),
            Self::Object(object) => {
                let fields = object.iter().map(|(name, value)| (name.to_owned(), Value::from(value).to_json()));
                Plain::Object(fields.collect())
            }
            Self::MadeObject(fields) => {
                Plain::Object(fields.iter().map(|(name, value)| (name.to_string(), value.to_json())).collect())
            }
            Self::Time(time) => Plain::String(time.to_string()),
            Self::Duration(duration) => Plain::String(duration_text(*duration)),
            Self::Optional(Some(value)) => value.to_json(),
        }
    }
}

/// A length of time as people write it: `90d`, `1h 30m`.
#[must_use]
pub fn duration_text(duration: SignedDuration) -> String {
    let mut seconds = duration.as_secs().unsigned_abs();
    let mut parts = Vec::new();
    for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= size {
            parts.push(format!("{}{unit}", seconds / size));
            seconds %= size;
        }
    }
    if parts.is_empty() {
        parts.push("0s".to_owned());
    }
    format!("{}{}", if duration.is_negative() { "-" } else { "" }, parts.join(" "))
}

/// The items of a list.
#[derive(Debug)]
pub enum Items<'a> {
    /// Of a list of the record or the rule.
    Borrowed(std::slice::Iter<'a, Json<'a>>),
    /// Of a list that was made, and the next of them.
    Made(Rc<Vec<Value<'a>>>, usize),
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        match self {
            Self::Borrowed(items) => items.next().map(Value::from),
            Self::Made(items, next) => {
                *next += 1;
                items.get(*next - 1).cloned()
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match self {
            Self::Borrowed(items) => items.len(),
            Self::Made(items, next) => items.len().saturating_sub(*next),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Items<'_> {}

/// Why an expression has no value. What is to blame is the source of a part of it: `ext.tde_enabled`.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// There is no such field.
    Missing(Arc<str>),
    /// It is null, where something else is needed.
    Null(Arc<str>),
    /// It is of another kind than is needed.
    Kind {
        /// What is to blame.
        what: Arc<str>,
        /// What it is.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// Two values that cannot be compared.
    Unlike {
        /// The one that is to blame.
        what: Arc<str>,
        /// What it is.
        found: &'static str,
        /// What the other is.
        other: &'static str,
    },
    /// What it holds cannot be understood.
    Unclear {
        /// What is to blame.
        what: Arc<str>,
        /// What it holds, or the beginning of that.
        found: String,
        /// What is needed.
        wanted: &'static str,
    },
    /// Anything else, said in full.
    Other(String),
    /// It takes too many steps.
    Cost,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::Null(what) => write!(f, "{what} is null"),
            Self::Kind { what, found, wanted } => write!(f, "{what} is {found}; {wanted} is needed"),
            Self::Unlike { what, found, other } => write!(f, "{what} is {found} and is compared with {other}"),
            Self::Unclear { what, found, wanted } => write!(f, "{what} is `{found}`, which is not {wanted}"),
            Self::Other(message) => f.write_str(message),
            Self::Cost => {
                write!(f, "the condition takes more than {} steps on this record", super::MAX_STEPS)
            }
        }
    }
}

/// The beginning of a text that may be of any size.
#[must_use]
pub fn excerpt(text: &str) -> String {
    excerpt_of(text, 60)
}

/// The beginning of a text, of so many characters at most.
#[must_use]
pub fn excerpt_of(text: &str, longest: usize) -> String {
    let mut shown: String = text.chars().take(longest).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}
