//! YAML into a JSON value: repeated keys are refused, merge keys (`<<`) applied, and the size of it all is bounded.
//!
//! All that knows the YAML library stands here.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::place::{Place, Step};

/// The most values in a file, after aliases.
const MAX_VALUES: usize = 1_000_000;
/// The most text in a file, after aliases, in bytes.
const MAX_TEXT: usize = 64 * 1024 * 1024;
/// The most repeated keys that are told.
const MAX_REPEATS: usize = 100;

/// What a file holds.
#[derive(Debug)]
pub(super) struct Document {
    /// The value; null for an empty file.
    pub(super) value: Value,
    /// The keys that occur twice in one mapping.
    pub(super) repeats: Vec<Repeat>,
}

/// A key that its mapping has already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) place: Place,
    /// ` (line 3, column 5)`, or nothing.
    pub(super) position: String,
}

/// Reads a YAML text.
///
/// # Errors
/// What is not YAML about it, with line and column.
pub(super) fn parse(text: &str) -> Result<Document, String> {
    let reading = Reading::default();
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let value = match documents.next() {
        None => Value::Null,
        Some(first) => Node(&reading).deserialize(first).map_err(|error| explain(&error, text))?,
    };
    if let Some(second) = documents.next() {
        second.deserialize_ignored_any(IgnoredAny).map_err(|error| explain(&error, text))?;
        return Err("found more than one document (a line `---` begins another); write one file for each".to_owned());
    }
    Ok(Document { value, repeats: reading.repeats.into_inner() })
}

fn explain(error: &serde_yaml::Error, text: &str) -> String {
    let tab = error
        .location()
        .and_then(|location| text.lines().nth(location.line().saturating_sub(1)))
        .is_some_and(|line| line.trim_start_matches(' ').starts_with('\t'));
    let hint = if tab { " (the line begins with a tab; indent with spaces)" } else { "" };
    format!("not valid YAML: {error}{hint}")
}

/// What one run over a text keeps.
#[derive(Default)]
struct Reading {
    place: RefCell<Place>,
    values: Cell<usize>,
    text: Cell<usize>,
    repeats: RefCell<Vec<Repeat>>,
}

impl Reading {
    fn count<E: de::Error>(&self, text: usize) -> Result<(), E> {
        self.values.set(self.values.get() + 1);
        self.text.set(self.text.get().saturating_add(text));
        if self.values.get() > MAX_VALUES || self.text.get() > MAX_TEXT {
            return Err(E::custom(format_args!(
                "too large: more than {MAX_VALUES} values or {MAX_TEXT} bytes of text, counting what aliases (`*name`) repeat"
            )));
        }
        Ok(())
    }

    fn within<T>(&self, step: Step, read: impl FnOnce() -> T) -> T {
        self.place.borrow_mut().push(step);
        let read = read();
        self.place.borrow_mut().pop();
        read
    }

    fn repeat(&self, key: &str, error: &str) {
        // The library tells where it was in no other way.
        let position = error.rsplit_once(" at line ").and_then(|(_, at)| at.split_once(" column "));
        let position = position.map(|(line, column)| format!(" (line {line}, column {column})")).unwrap_or_default();
        let repeat = Repeat { place: self.place.borrow().key(key), position };
        let mut repeats = self.repeats.borrow_mut();
        if repeats.len() < MAX_REPEATS && !repeats.contains(&repeat) {
            repeats.push(repeat);
        }
    }
}

/// A value of any kind.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Reading);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Value, E> {
        self.0.count(0)?;
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        self.0.count(0)?;
        Ok(Value::from(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        self.0.count(0)?;
        Ok(Value::from(number))
    }

    // A number that JSON's would round keeps its digits as a text.

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Value, E> {
        self.visit_string(number.to_string())
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Value, E> {
        self.visit_string(number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        match Number::from_f64(number) {
            Some(number) => {
                self.0.count(0)?;
                Ok(Value::Number(number))
            }
            None => self.visit_string(number.to_string()),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.0.count(text.len())?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.0.count(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(de::Error::custom(
            "found a tag (a word that begins with `!`), which means nothing here; write it in quotes",
        ))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        self.0.count(0)?;
        let mut items = Vec::new();
        while let Some(item) = self.0.within(Step::Index(items.len()), || list.next_element_seed(self))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Value, A::Error> {
        self.0.count(0)?;
        let mut own = Map::new();
        let mut merged = Map::new();
        loop {
            let mut repeated = None;
            let key = match mapping.next_key_seed(Key { reading: self.0, known: &own, repeated: &mut repeated }) {
                Ok(Some(key)) => key,
                Ok(None) => break,
                Err(error) => {
                    // Only the key was refused: the mapping can be read on, so that all repeats are found.
                    let Some(key) = repeated else { return Err(error) };
                    self.0.repeat(&key, &error.to_string());
                    mapping.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value = self.0.within(Step::Key(key.clone()), || mapping.next_value_seed(self))?;
            if key == "<<" {
                merge_key(&mut merged, value)?;
            } else {
                own.insert(key, value);
            }
        }
        merged.extend(own);
        Ok(Value::Object(merged))
    }
}

/// Applies `<<: *other` or `<<: [*one, *two]`, where of two the first wins.
fn merge_key<E: de::Error>(merged: &mut Map<String, Value>, value: Value) -> Result<(), E> {
    let others = match value {
        Value::Object(_) => vec![value],
        Value::Array(items) => items,
        _ => vec![Value::Null],
    };
    for other in others.into_iter().rev() {
        let Value::Object(entries) = other else {
            return Err(E::custom("`<<` merges a mapping or a list of mappings into this one; found something else"));
        };
        merged.extend(entries);
    }
    Ok(())
}

/// A key of a mapping: a text, or the text of a number or boolean.
struct Key<'a> {
    reading: &'a Reading,
    known: &'a Map<String, Value>,
    repeated: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text as the key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<String, E> {
        self.reading.count(key.len())?;
        if self.known.contains_key(key) {
            *self.repeated = Some(key.to_owned());
            return Err(E::custom("repeated key"));
        }
        Ok(key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        let document = parse(text).unwrap();
        assert_eq!(document.repeats, []);
        document.value
    }

    #[test]
    fn nothing_is_null() {
        for text in ["", "# only a comment\n", "---\n", "~"] {
            assert_eq!(value(text), Value::Null, "{text:?}");
        }
    }

    #[test]
    fn scalars_keep_their_type() {
        assert_eq!(
            value("{a: 1, b: -1, c: 1.5, d: true, e: yes, f: 10:30, g: '1', h: 007, i: null, j: !!str 5}"),
            json!({"a": 1, "b": -1, "c": 1.5, "d": true, "e": "yes", "f": "10:30", "g": "1", "h": "007", "i": null, "j": "5"})
        );
        assert_eq!(value("123456789012345678901234567890"), json!("123456789012345678901234567890"));
        assert_eq!(value(".inf"), json!("inf"));
    }

    #[test]
    fn keys_are_texts() {
        assert_eq!(value("{1: a, true: b, 1.0: c, no: d}"), json!({"1": "a", "true": "b", "1.0": "c", "no": "d"}));
        assert_eq!(value("{&k x: 1, y: {*k : 2}}"), json!({"x": 1, "y": {"x": 2}}));
        let error = parse("? [a, b]\n: 1\n").unwrap_err();
        assert_eq!(error, "not valid YAML: invalid type: sequence, expected a text as the key at line 1 column 3");
    }

    #[test]
    fn every_repeated_key_is_found_with_its_line() {
        let document = parse("a: 1\nb:\n  c: 1\n  c: [2, 3]\n  d: [{e: 1, e: 2}]\na: {x: 1}\nf: 4\n").unwrap();
        let found: Vec<String> =
            document.repeats.iter().map(|repeat| format!("{}{}", repeat.place, repeat.position)).collect();
        assert_eq!(found, ["b.c (line 4, column 3)", "b.d[0].e (line 5, column 14)", "a (line 6, column 1)"]);
        assert_eq!(document.value, json!({"a": 1, "b": {"c": 1, "d": [{"e": 1}]}, "f": 4}));
    }

    #[test]
    fn merge_keys_are_applied() {
        let text = "
one: &one {a: 1, b: 1}
two: &two {b: 2, c: 2, <<: {d: 9}}
single: {<<: *one, a: 0}
list: {<<: [*one, *two], e: 5}
twice: {<<: *one, <<: *two}
";
        let value = value(text);
        assert_eq!(value["single"], json!({"a": 0, "b": 1}));
        assert_eq!(value["list"], json!({"a": 1, "b": 1, "c": 2, "d": 9, "e": 5}));
        assert_eq!(value["twice"], json!({"a": 1, "b": 2, "c": 2, "d": 9}));
        assert!(parse("<<: 5").unwrap_err().contains("`<<` merges a mapping or a list of mappings"));
        assert!(parse("<<: [{a: 1}, 5]").is_err());
    }

    #[test]
    fn what_is_not_yaml_is_told_with_its_line() {
        assert_eq!(
            parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err(),
            "not valid YAML: did not find expected ',' or ']' at line 3 column 2, while parsing a flow sequence at line 2 column 4"
        );
        assert!(parse("a:\n\tb: 1\n").unwrap_err().ends_with("(the line begins with a tab; indent with spaces)"));
        assert!(parse("[1]\n]").unwrap_err().contains("line 2"));
        assert!(parse("a: 1\n---\nb: 2\n").unwrap_err().starts_with("found more than one document"));
        assert!(parse("a: !secret b").unwrap_err().contains("found a tag"));
        assert!(parse("a: *b").unwrap_err().contains("unknown anchor"));
    }

    #[test]
    fn bombs_are_refused_in_time() {
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..20 {
            let alias = format!("*a{}", level - 1);
            laughs.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", ")));
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 200].join(", "));
        let merges = format!("a: &a {{{}}}\nb: [{}]\n", numbered(3000), ["{<<: *a}"; 3000].join(", "));
        for text in [laughs, long, merges] {
            let start = Instant::now();
            let error = parse(&text).unwrap_err();
            assert!(error.contains("too large") || error.contains("repetition limit"), "{error}");
            assert!(start.elapsed() < Duration::from_secs(20));
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&format!("{}{}", "[".repeat(200), "]".repeat(200))).unwrap_err().contains("recursion limit"));
    }

    fn numbered(keys: usize) -> String {
        (0..keys).map(|key| format!("k{key}: 0")).collect::<Vec<_>>().join(", ")
    }
}
