//! What an operation asks or answers, as one JSON document.
//!
//! A structure is an object of its members, named as CloudTrail names them: with a small first letter. Anything else is
//! what the model says of its shape. What is no member and not of the shape begins with `$`: what is said of a value in
//! its place (`$required`, `$locationName`, `$documentation`), and `$cycle` where a shape contains itself.

use std::io::Write;

use super::SchemaError;
use super::json::Object;
use super::service::{Operation, Reference, Service, Shape};

/// How deep shapes may stand in one another; the deepest there is has some thirty levels.
const DEEPEST: usize = 100;

/// What is said of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What it is asked with: `requestParameters`.
    Input,
    /// What it answers: `responseElements`.
    Output,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Input, Self::Output];

    /// Its name in a model.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }

    /// Its name in an event.
    #[must_use]
    pub fn in_event(self) -> &'static str {
        match self {
            Self::Input => "requestParameters",
            Self::Output => "responseElements",
        }
    }

    pub(super) fn of<'o, 'a>(self, operation: &'o Operation<'a>) -> Option<&'o Reference<'a>> {
        match self {
            Self::Input => operation.input.as_ref(),
            Self::Output => operation.output.as_ref(),
        }
    }
}

/// Writes the shape of a side of an operation as JSON, from a depth of indentation on. False when it has none.
///
/// # Errors
/// When the model is not as it should be, or nothing can be written.
pub fn write_shape(
    service: &Service<'_>,
    operation: &Operation<'_>,
    side: Side,
    out: &mut impl Write,
    depth: usize,
) -> Result<bool, SchemaError> {
    let Some(reference) = side.of(operation) else { return Ok(false) };
    // What is said of the shape as a whole (a result's wrapper, a name in XML) is of the protocol, not of the event.
    let whole = Reference { shape: reference.shape.clone(), traits: Vec::new() };
    Expansion { service, within: Vec::new() }.write(&whole, false, out, depth)?;
    Ok(true)
}

struct Expansion<'s, 'a> {
    service: &'s Service<'a>,
    /// The structures, lists and maps around the one that is being written.
    within: Vec<String>,
}

impl Expansion<'_, '_> {
    fn write<W: Write>(
        &mut self,
        reference: &Reference<'_>,
        is_required: bool,
        out: &mut W,
        depth: usize,
    ) -> Result<(), SchemaError> {
        let shape = self.service.shape(&reference.shape)?;
        let mut object = Object::begin(out, depth)?;
        let is_cycle = self.within.iter().any(|name| *name == reference.shape);
        if is_cycle || self.within.len() >= DEEPEST {
            let mark = if is_cycle { "$cycle" } else { "$cut" };
            object.text("type", &shape.kind)?;
            of_place(&mut object, reference, is_required)?;
            object.text(mark, &reference.shape)?;
            return Ok(object.end()?);
        }
        self.within.push(reference.shape.to_string());
        match &shape.members {
            Some(members) => {
                of_structure(&mut object, &shape, reference)?;
                of_place(&mut object, reference, is_required)?;
                for (name, member) in &members.0 {
                    let is_required = shape.required.iter().any(|required| required == name);
                    let key = key(name);
                    // Two that differ in their first letter alone: the other one has this key.
                    let is_taken = key != **name && members.0.iter().any(|(other, _)| **other == key);
                    let (out, depth) = object.member(if is_taken { name } else { &key })?;
                    self.write(member, is_required, out, depth)?;
                }
            }
            None => {
                for (name, value) in &shape.traits {
                    object.raw(name, value.get())?;
                }
                of_place(&mut object, reference, is_required)?;
                for (name, part) in &shape.parts {
                    let (out, depth) = object.member(name)?;
                    self.write(part, false, out, depth)?;
                }
            }
        }
        self.within.pop();
        Ok(object.end()?)
    }
}

/// What a shape says of a structure; what is said where it stands says it better.
fn of_structure<W: Write>(
    object: &mut Object<'_, W>,
    shape: &Shape<'_>,
    reference: &Reference<'_>,
) -> Result<(), SchemaError> {
    for (name, value) in &shape.traits {
        if name != "type" && !reference.traits.iter().any(|(known, _)| known == name) {
            object.raw(&format!("${name}"), value.get())?;
        }
    }
    Ok(())
}

/// What is said of a value where it stands.
fn of_place<W: Write>(
    object: &mut Object<'_, W>,
    reference: &Reference<'_>,
    is_required: bool,
) -> Result<(), SchemaError> {
    if is_required {
        object.raw("$required", "true")?;
    }
    for (name, value) in &reference.traits {
        object.raw(&format!("${name}"), value.get())?;
    }
    Ok(())
}

/// A member's name with a small first letter.
pub(super) fn key(name: &str) -> String {
    let mut rest = name.chars();
    rest.next().map(|first| first.to_lowercase().chain(rest).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The shape of the output of the operation `Get` of a service with these shapes.
    fn output(shapes: &Value) -> Result<Value, SchemaError> {
        let model = json!({"metadata": {}, "operations": {"Get": {"output": {"shape": "Out", "resultWrapper": "R"}}}, "shapes": shapes});
        let text = serde_json::to_string_pretty(&model).unwrap();
        let service = Service::parse("odd", &text)?;
        let mut out = Vec::new();
        let operation = service.operation("Get")?;
        assert!(!write_shape(&service, &operation, Side::Input, &mut out, 0)?);
        assert!(write_shape(&service, &operation, Side::Output, &mut out, 0)?);
        Ok(serde_json::from_slice(&out).unwrap())
    }

    #[test]
    fn members_elements_keys_and_values_are_expanded() {
        let shapes = json!({
            "Out": {"type": "structure", "required": ["ARN"], "documentation": "All.", "members": {
                "ARN": {"shape": "Text", "documentation": "Its name.", "locationName": "arn", "location": "uri"},
                "Tags": {"shape": "Tags"}, "_Odd": {"shape": "None"}, "Élan": {"shape": "Bare"}}},
            "Text": {"type": "string", "max": 9, "enum": ["A", "B"], "documentation": "A text."},
            "Tags": {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Texts"}},
            "Texts": {"type": "list", "member": {"shape": "Text", "locationName": "item"}, "flattened": true},
            "None": {"type": "structure", "members": {}},
            "Bare": {"type": "structure", "exception": true},
        });
        let text = json!({"type": "string", "max": 9, "enum": ["A", "B"], "documentation": "A text."});
        let with = |more: Value| {
            let mut all = text.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        assert_eq!(
            output(&shapes).unwrap(),
            json!({
                "$documentation": "All.",
                "aRN": with(json!({"$required": true, "$documentation": "Its name.", "$locationName": "arn", "$location": "uri"})),
                "tags": {"type": "map", "key": text, "value":
                    {"type": "list", "flattened": true, "member": with(json!({"$locationName": "item"}))}},
                "_Odd": {},
                "élan": {"type": "structure", "exception": true},
            })
        );
    }

    #[test]
    fn cycles_are_marked_and_siblings_are_none() {
        let shapes = json!({
            "Out": {"type": "structure", "required": ["Left"], "members":
                {"Left": {"shape": "Tree"}, "Right": {"shape": "Tree"}}},
            "Tree": {"type": "structure", "members": {"Not": {"shape": "Tree", "documentation": "Itself."}, "And": {"shape": "Trees"}}},
            "Trees": {"type": "list", "member": {"shape": "Tree"}},
        });
        let tree = json!({
            "not": {"type": "structure", "$documentation": "Itself.", "$cycle": "Tree"},
            "and": {"type": "list", "member": {"type": "structure", "$cycle": "Tree"}},
        });
        let mut left = tree.clone();
        left["$required"] = json!(true);
        assert_eq!(output(&shapes).unwrap(), json!({"left": left, "right": tree}));
    }

    #[test]
    fn members_that_differ_in_their_first_letter_alone_are_both_there() {
        let shapes = json!({
            "Out": {"type": "structure", "members": {"Name": {"shape": "Text"}, "name": {"shape": "Number"}}},
            "Text": {"type": "string"}, "Number": {"type": "integer"},
        });
        let both = output(&shapes).unwrap();
        assert_eq!(both, json!({"Name": {"type": "string"}, "name": {"type": "integer"}}));
    }

    #[test]
    fn a_model_that_is_not_whole_is_told() {
        let error = output(&json!({"Out": {"type": "list", "member": {"shape": "Nobody"}}})).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the shape `Nobody` in the model of odd: it is not there");
        let error = output(&json!({"Out": {"type": "structure", "members": {"A": {}}}})).unwrap_err();
        assert!(error.to_string().contains("the shape `Out` in the model of odd: missing field `shape`"), "{error}");
    }

    #[test]
    fn shapes_in_shapes_without_end_are_cut() {
        let deep: serde_json::Map<String, Value> = (0..5_000)
            .map(|n| (format!("S{n}"), json!({"type": "list", "member": {"shape": format!("S{}", n + 1)}})))
            .chain([("Out".to_owned(), json!({"type": "list", "member": {"shape": "S0"}}))])
            .collect();
        let mut at = &output(&deep.into()).unwrap();
        while let Some(member) = at.get("member") {
            at = member;
        }
        assert_eq!(at["$cut"], "S99");
    }
}
