//! A service model, as botocore has it. What nobody asks for stays unparsed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::SchemaError;

/// The model of a service.
pub struct Service<'a> {
    /// The name of its folder.
    pub name: String,
    metadata: Metadata<'a>,
    operations: Members<'a, &'a RawValue>,
    shapes: HashMap<Cow<'a, str>, &'a RawValue>,
    parsed: RefCell<HashMap<String, Rc<Shape<'a>>>>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    operations: Members<'a, &'a RawValue>,
    #[serde(borrow)]
    shapes: Members<'a, &'a RawValue>,
}

/// What a model says of its service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata<'a> {
    #[serde(borrow)]
    pub(super) endpoint_prefix: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) signing_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) service_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) service_full_name: Option<Cow<'a, str>>,
}

/// An operation of a service.
#[derive(Debug, Clone, Deserialize)]
pub struct Operation<'a> {
    /// What it does, in HTML.
    #[serde(borrow, default)]
    pub documentation: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) input: Option<Reference<'a>>,
    #[serde(borrow, default)]
    pub(super) output: Option<Reference<'a>>,
}

/// Where a shape is used, and what is said of it there.
#[derive(Debug, Clone)]
pub(super) struct Reference<'a> {
    pub(super) shape: Cow<'a, str>,
    /// All else: the name on the wire, the place in the request, what it means here.
    pub(super) traits: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// The shape of a value.
#[derive(Debug, Default)]
pub(super) struct Shape<'a> {
    /// `structure`, `list`, `map`, `string`, ...
    pub(super) kind: Cow<'a, str>,
    /// The members of a structure, if it says any, even none.
    pub(super) members: Option<Members<'a, Reference<'a>>>,
    pub(super) required: Vec<Cow<'a, str>>,
    /// The element of a list, and the key and value of a map.
    pub(super) parts: Vec<(&'static str, Reference<'a>)>,
    /// All else, `type` among it where it stands.
    pub(super) traits: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// What a list or a map is made of.
const PARTS: [&str; 3] = ["member", "key", "value"];

/// The members of an object, in its order.
#[derive(Debug, Clone)]
pub(super) struct Members<'a, T>(pub(super) Vec<(Cow<'a, str>, T)>);

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Members<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<'a, T>(PhantomData<(&'a (), T)>);
        impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for Object<'a, T> {
            type Value = Members<'a, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or_default());
                while let Some(Text(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Reference<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Members(mut traits) = Members::<&RawValue>::deserialize(deserializer)?;
        let at = traits.iter().position(|(name, _)| name == "shape");
        let at = at.ok_or_else(|| serde::de::Error::missing_field("shape"))?;
        let (_, shape) = traits.remove(at);
        Ok(Self { shape: parse::<Text<'_>, D::Error>(shape)?.0, traits })
    }
}

fn parse<'a, T: Deserialize<'a>, E: serde::de::Error>(raw: &'a RawValue) -> Result<T, E> {
    serde_json::from_str(raw.get()).map_err(E::custom)
}

impl<'de: 'a, 'a> Deserialize<'de> for Shape<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Members(fields) = Members::<&RawValue>::deserialize(deserializer)?;
        let mut shape = Self::default();
        for (name, value) in fields {
            match &*name {
                "members" => shape.members = Some(parse(value)?),
                "required" => {
                    shape.required = parse::<Vec<Text<'_>>, _>(value)?.into_iter().map(|text| text.0).collect()
                }
                part if let Some(part) = PARTS.into_iter().find(|known| *known == part) => {
                    shape.parts.push((part, parse(value)?));
                }
                kind => {
                    if kind == "type" {
                        shape.kind = parse::<Text<'_>, _>(value)?.0;
                    }
                    shape.traits.push((name, value));
                }
            }
        }
        Ok(shape)
    }
}

impl<'a> Service<'a> {
    /// Reads a model.
    ///
    /// # Errors
    /// When the text is no model.
    pub fn parse(name: &str, text: &'a str) -> Result<Self, SchemaError> {
        let file: File<'a> = serde_json::from_str(text)
            .map_err(|error| SchemaError::unreadable(format_args!("the model of {name}"), error))?;
        Ok(Self {
            name: name.to_owned(),
            metadata: file.metadata,
            operations: file.operations,
            shapes: file.shapes.0.into_iter().collect(),
            parsed: RefCell::default(),
        })
    }

    /// The names of its operations, sorted.
    #[must_use]
    pub fn operations(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.operations.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names
    }

    /// An operation.
    ///
    /// # Errors
    /// When there is none of this name, or it cannot be read.
    pub fn operation(&self, name: &str) -> Result<Operation<'a>, SchemaError> {
        let found = self.operations.0.iter().find(|(known, _)| known == name);
        let (_, raw) = found.ok_or_else(|| SchemaError::Unknown(format!("{} has no operation `{name}`", self.name)))?;
        serde_json::from_str(raw.get())
            .map_err(|error| SchemaError::unreadable(format_args!("{name} in the model of {}", self.name), error))
    }

    /// What CloudTrail most likely has as `eventSource`: the name that the service's requests are signed for, which
    /// stands in the model only if it is not that of the endpoint.
    #[must_use]
    pub fn event_source(&self) -> String {
        let name = source_of(&self.metadata).unwrap_or(&self.name);
        format!("{name}.amazonaws.com")
    }

    /// What people call it.
    #[must_use]
    pub fn full_name(&self) -> &str {
        self.metadata.service_full_name.as_deref().unwrap_or(&self.name)
    }

    pub(super) fn shape(&self, name: &str) -> Result<Rc<Shape<'a>>, SchemaError> {
        if let Some(shape) = self.parsed.borrow().get(name) {
            return Ok(Rc::clone(shape));
        }
        let wrong = |reason: String| {
            SchemaError::unreadable(format_args!("the shape `{name}` in the model of {}", self.name), reason)
        };
        let raw = self.shapes.get(name).ok_or_else(|| wrong("it is not there".to_owned()))?;
        let shape: Rc<Shape<'a>> = Rc::new(serde_json::from_str(raw.get()).map_err(|error| wrong(error.to_string()))?);
        self.parsed.borrow_mut().insert(name.to_owned(), Rc::clone(&shape));
        Ok(shape)
    }
}

/// The first part of `eventSource`.
pub(super) fn source_of<'m>(metadata: &'m Metadata<'_>) -> Option<&'m str> {
    metadata.signing_name.as_deref().or(metadata.endpoint_prefix.as_deref())
}
