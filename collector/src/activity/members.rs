//! Finds the values of some members of a JSON document in one pass, without keeping the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Unexpected};
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Members that are looked for, by their paths: `userIdentity.arn`.
#[derive(Debug, Default)]
pub(super) struct Members {
    root: Node,
    count: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// The member with this path.
    wanted: Option<usize>,
    below: Vec<(String, Node)>,
}

/// What was found of each member, by its number.
pub(super) type Found<'a> = Vec<Vec<Cow<'a, str>>>;

impl Members {
    /// Looks for one more member; its number. One that is looked for already has the same.
    pub(super) fn add(&mut self, path: &str) -> usize {
        self.add_path(path.split('.'))
    }

    /// The same of a path by its names: one may have dots in it.
    pub(super) fn add_path<'p>(&mut self, path: impl IntoIterator<Item = &'p str>) -> usize {
        let mut node = &mut self.root;
        for name in path {
            let at = match node.below.iter().position(|(known, _)| known == name) {
                Some(at) => at,
                None => {
                    node.below.push((name.to_owned(), Node::default()));
                    node.below.len() - 1
                }
            };
            // It is there: it was found or pushed just now.
            node = &mut node.below[at].1;
        }
        *node.wanted.get_or_insert_with(|| {
            self.count += 1;
            self.count - 1
        })
    }

    /// The values of all members in a document. Numbers and Booleans are as they are written; a list has the values of
    /// its items; an object has that of its own member `value`, if there is one.
    pub(super) fn values<'a>(&self, text: &'a str) -> serde_json::Result<Found<'a>> {
        let mut found = vec![Vec::new(); self.count];
        let mut reader = serde_json::Deserializer::from_str(text);
        Look { node: Some(&self.root), wanted: None, found: &mut found }.deserialize(&mut reader)?;
        reader.end()?;
        Ok(found)
    }
}

/// Looks at one value.
struct Look<'n, 'f, 'a> {
    /// What is looked for below.
    node: Option<&'n Node>,
    /// What the value itself is.
    wanted: Option<usize>,
    found: &'f mut Found<'a>,
}

impl<'a> Look<'_, '_, 'a> {
    fn put(self, value: Cow<'a, str>) {
        if let Some(values) = self.wanted.and_then(|at| self.found.get_mut(at)) {
            values.push(value);
        }
    }
}

impl<'a> DeserializeSeed<'a> for Look<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Look<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.put(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.put(Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(Cow::Borrowed(if value { "true" } else { "false" }));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(Cow::Owned(value.to_string()));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(Cow::Owned(value.to_string()));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(Cow::Owned(value.to_string()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<(), E> {
        Err(E::invalid_type(Unexpected::Bytes(bytes), &self))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        loop {
            let item = Look { node: self.node, wanted: self.wanted, found: &mut *self.found };
            if list.next_element_seed(item)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'a, str>>()? {
            let below = self.node.and_then(|node| node.below.iter().find(|(known, _)| *known == name));
            let own = below.and_then(|(_, node)| node.wanted);
            // `{"value": ..., "localizedValue": ...}` stands for its value.
            let stands_for = self.wanted.filter(|_| name == "value");
            match (below, stands_for) {
                (None, None) => drop(map.next_value::<IgnoredAny>()?),
                (below, stands_for) => {
                    let node = below.map(|(_, node)| node);
                    map.next_value_seed(Look { node, wanted: own.or(stands_for), found: &mut *self.found })?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_finds_all() {
        let mut members = Members::default();
        let paths = ["a.b", "a", "list.x", "name", "a.b", "missing"];
        let numbers: Vec<usize> = paths.iter().map(|path| members.add(path)).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 0, 4]);
        let text = r#"{"z":[{"a":1}],"a":{"b":"x\n","c":2,"value":7},"list":[{"x":1.5},{"x":[true,null]}],
            "name":{"value":"v","localizedValue":"l"}}"#;
        let found = members.values(text).unwrap();
        assert_eq!(found, [vec!["x\n"], vec!["7"], vec!["1.5", "true"], vec!["v"], vec![]]);
        assert!(members.values("{} x").is_err());
        assert!(members.values("").is_err());
    }
}
