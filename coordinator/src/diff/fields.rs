//! The fields in which two records differ.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How many fields are named.
const MOST: usize = 20;
/// The longest value that is shown, in characters.
const LONGEST: usize = 120;

/// Fields of `com` that are of the run or the store, not of the resource.
pub(super) const OF_THE_RUN: [&str; 8] = [
    "id",
    "audit_version",
    "target_key",
    "target_class",
    "target_worker",
    "target_type",
    "origin_worker",
    "origin_class",
];

/// A field that is not the same in both runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Its path: `raw.properties.sku.name`.
    pub path: String,
    /// Its value before, as JSON, cut; none where there was no such field.
    pub old: Option<String>,
    /// Its value after.
    pub new: Option<String>,
}

/// The fields in which two documents differ, and how many more there are. `ignored` are beginnings of paths.
pub(super) fn differing(old: &str, new: &str, ignored: &[String]) -> Option<(Vec<FieldChange>, u64)> {
    let (old, new): (Value, Value) = (serde_json::from_str(old).ok()?, serde_json::from_str(new).ok()?);
    let mut found = Found { fields: Vec::new(), more: 0, ignored };
    for bucket in ["raw", "ext", "com"] {
        let (mut one, mut other) = (old.get(bucket).cloned(), new.get(bucket).cloned());
        if bucket == "com" {
            for side in [&mut one, &mut other].into_iter().flatten() {
                if let Value::Object(com) = side {
                    com.retain(|name, _| !OF_THE_RUN.contains(&name.as_str()));
                }
            }
        }
        found.compare(bucket, one.as_ref(), other.as_ref());
    }
    Some((found.fields, found.more))
}

struct Found<'a> {
    fields: Vec<FieldChange>,
    more: u64,
    ignored: &'a [String],
}

impl Found<'_> {
    fn compare(&mut self, path: &str, old: Option<&Value>, new: Option<&Value>) {
        if old == new || self.is_ignored(path) {
            return;
        }
        match (old, new) {
            (Some(Value::Object(old)), Some(Value::Object(new))) => self.compare_objects(path, old, new),
            // Items that come or go shift the others: then the list as a whole differs.
            (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
                for (place, (old, new)) in old.iter().zip(new).enumerate() {
                    self.compare(&format!("{path}[{place}]"), Some(old), Some(new));
                }
            }
            _ if self.fields.len() >= MOST => self.more += 1,
            _ => self.fields.push(FieldChange { path: path.to_owned(), old: old.map(cut), new: new.map(cut) }),
        }
    }

    fn compare_objects(&mut self, path: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
        for (name, value) in old {
            self.compare(&format!("{path}.{name}"), Some(value), new.get(name));
        }
        for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            self.compare(&format!("{path}.{name}"), None, Some(value));
        }
    }

    /// A name stands for all below it.
    fn is_ignored(&self, path: &str) -> bool {
        self.ignored.iter().any(|ignored| {
            path.strip_prefix(ignored.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }
}

fn cut(value: &Value) -> String {
    crate::terminal::cut(&value.to_string(), LONGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(old: &Value, new: &Value, ignored: &[&str]) -> Vec<String> {
        let ignored: Vec<String> = ignored.iter().map(|path| (*path).to_owned()).collect();
        let (fields, _) = differing(&old.to_string(), &new.to_string(), &ignored).unwrap();
        fields.into_iter().map(|field| field.path).collect()
    }

    #[test]
    fn fields_are_named_by_path() {
        let old = json!({"raw": {"a": 1, "b": {"c": [1, 2]}, "gone": null}, "ext": {}, "com": {"id": "x", "r": "s"}});
        let new = json!({"com": {"r": "t", "id": "y"}, "ext": {"more": 1}, "raw": {"b": {"c": [1, 3]}, "a": 1}});
        assert_eq!(paths(&old, &new, &[]), ["raw.b.c[1]", "raw.gone", "ext.more", "com.r"]);
        assert_eq!(paths(&old, &new, &["raw.b", "ext", "com.r", "raw.go"]), ["raw.gone"]);
        assert!(paths(&old, &old, &[]).is_empty());
    }

    #[test]
    fn a_list_of_another_length_differs_as_a_whole() {
        let list = |items: &[u8]| json!({"raw": {"l": items}, "ext": {}, "com": {}});
        assert_eq!(paths(&list(&[1, 2]), &list(&[2]), &[]), ["raw.l"]);
    }

    #[test]
    fn many_fields_are_counted() {
        let all = |value: u8| {
            let fields: Map<String, Value> = (0..30).map(|n| (format!("f{n:02}"), value.into())).collect();
            json!({"raw": fields}).to_string()
        };
        let (fields, more) = differing(&all(1), &all(2), &[]).unwrap();
        assert_eq!((fields.len(), more), (MOST, 10));
        assert_eq!(fields[0], FieldChange { path: "raw.f00".into(), old: Some("1".into()), new: Some("2".into()) });
    }
}
