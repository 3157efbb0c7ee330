//! JSON as conditions see it: a tree that borrows its texts from the record, and that can leave out what nobody reads.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above the largest `i64`.
    Large(u64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Json<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// The null that missing buckets are.
pub const NULL: Json<'static> = Json::Null;

/// An object: its fields in their order, or sorted when there are many of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object<'a> {
    fields: Vec<(Cow<'a, str>, Json<'a>)>,
    sorted: bool,
}

/// Objects with more fields are sorted, so that looking up each of many fields stays cheap.
const MANY: usize = 24;

impl<'a> Object<'a> {
    fn new(mut fields: Vec<(Cow<'a, str>, Json<'a>)>) -> Self {
        let sorted = fields.len() > MANY;
        if sorted {
            // Stable: of a name that comes twice the last one counts, below as above.
            fields.sort_by(|one, other| one.0.cmp(&other.0));
        }
        Self { fields, sorted }
    }

    /// The value of a field. Of a name that comes twice the last counts.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        if self.sorted {
            let end = self.fields.partition_point(|(field, _)| field.as_ref() <= name);
            return self.fields[..end].last().filter(|(field, _)| field == name).map(|(_, value)| value);
        }
        self.fields.iter().rev().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// The fields.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Json<'a>)> {
        self.fields.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl<'a> Json<'a> {
    /// Parses a text.
    ///
    /// # Errors
    /// When it is not JSON, is nested too deeply, or has a number too large.
    pub fn parse(text: &'a str) -> serde_json::Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Tree.deserialize(&mut deserializer)
    }

    /// Parses a text of which only these fields of the object are wanted; all others are passed over.
    ///
    /// # Errors
    /// As [`Json::parse`], for what is wanted.
    pub fn parse_only(text: &'a str, fields: &[String]) -> serde_json::Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Chosen { fields }.deserialize(&mut deserializer)
    }

    /// A field of an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        match self {
            Self::Object(object) => object.get(name),
            _ => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What kind of value it is, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Large(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

impl From<&Value> for Json<'static> {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Self::Int(number),
                (None, Some(number)) => Self::Large(number),
                (None, None) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(Cow::Owned(text.clone())),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(entries) => {
                let fields = entries.iter().map(|(name, value)| (Cow::Owned(name.clone()), Self::from(value)));
                Self::Object(Object::new(fields.collect()))
            }
        }
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Large(number) => serializer.serialize_u64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Object(object) => {
                let mut map = serializer.serialize_map(Some(object.len()))?;
                for (name, value) in object.iter() {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// A text that borrows where it can.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Clone, Copy)]
struct Tree;

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(i64::try_from(number).map_or(Json::Large(number), Json::Int))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json<'de>, E> {
        Ok(Json::Float(number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut fields = Vec::with_capacity(8);
        while let Some(Name(name)) = map.next_key()? {
            fields.push((name, map.next_value_seed(self)?));
        }
        Ok(Json::Object(Object::new(fields)))
    }
}

struct Chosen<'f> {
    fields: &'f [String],
}

impl<'de> DeserializeSeed<'de> for Chosen<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Chosen<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Tree.visit_unit()
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Json<'de>, E> {
        Tree.visit_bool(flag)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json<'de>, E> {
        Tree.visit_i64(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json<'de>, E> {
        Tree.visit_u64(number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json<'de>, E> {
        Tree.visit_f64(number)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        Tree.visit_borrowed_str(text)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json<'de>, E> {
        Tree.visit_str(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Json<'de>, A::Error> {
        Tree.visit_seq(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut fields = Vec::with_capacity(self.fields.len());
        while let Some(Name(name)) = map.next_key()? {
            if self.fields.iter().any(|field| *field == name) {
                fields.push((name, map.next_value_seed(Tree)?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Json::Object(Object::new(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_as_serde_json_has_it() {
        let text = r#"{"a":[1,-2,2.5,18446744073709551615,null,true,"x\n","\u00e9"],"b":{"c":{}},"a":3}"#;
        let tree = Json::parse(text).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(tree.get("a"), Some(&Json::Int(3)), "the last of two counts");
        let written: Value = serde_json::from_str(&serde_json::to_string(&tree).unwrap()).unwrap();
        assert_eq!(written, value);
        assert_eq!(Json::from(&value).get("b"), tree.get("b"));
    }

    #[test]
    fn only_what_is_wanted_is_kept() {
        let fields = ["b".to_owned()];
        let tree = Json::parse_only(r#"{"a":[[1e999]],"b":{"c":1},"d":"x"}"#, &fields);
        assert!(tree.is_err() || tree.as_ref().unwrap().get("a").is_none());
        let tree = Json::parse_only(r#"{"a":[[1]],"b":{"c":1},"d":"x"}"#, &fields).unwrap();
        assert_eq!(serde_json::to_string(&tree).unwrap(), r#"{"b":{"c":1}}"#);
        assert_eq!(Json::parse_only("[1]", &fields).unwrap(), Json::List(vec![Json::Int(1)]));
    }

    #[test]
    fn many_fields_are_found_as_few_are() {
        for count in [3, 24, 25, 500] {
            let fields: Vec<String> = (0..count).map(|n| format!("\"f{n}\":{n}")).collect();
            let text = format!("{{{},\"f1\":-1}}", fields.join(","));
            let tree = Json::parse(&text).unwrap();
            assert_eq!(tree.get("f0"), Some(&Json::Int(0)));
            assert_eq!(tree.get("f1"), Some(&Json::Int(-1)));
            assert_eq!(tree.get("f"), None);
            assert_eq!(tree.get("g"), None);
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Json::parse(&deep).is_err());
    }
}
