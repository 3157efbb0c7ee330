//! How a later configuration changes an earlier one: mappings merge key by key, all else replaces.

use serde_json::Value;
use serde_json::map::Entry;

/// Merges a later value into an earlier one.
///
/// Where both are mappings, the keys of both are kept and the values of common keys merged in the same way.
/// Any other pair: the later value replaces the earlier one, null included.
///
/// ```
/// use proto::config::merge;
/// use serde_json::json;
/// let mut value = json!({"a": {"b": [1, 2], "c": 3}, "d": {"e": 4}});
/// merge(&mut value, json!({"a": {"b": [5]}, "d": null}));
/// assert_eq!(value, json!({"a": {"b": [5], "c": 3}, "d": null}));
/// ```
pub fn merge(earlier: &mut Value, later: Value) {
    match (earlier, later) {
        (Value::Object(entries), Value::Object(later)) => {
            for (key, value) in later {
                match entries.entry(key) {
                    Entry::Occupied(mut entry) => merge(entry.get_mut(), value),
                    Entry::Vacant(entry) => {
                        entry.insert(value);
                    }
                }
            }
        }
        (earlier, later) => *earlier = later,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(one: &Value, two: &Value) -> Value {
        let mut value = one.clone();
        merge(&mut value, two.clone());
        value
    }

    /// Mappings of every small shape.
    fn shapes() -> Vec<Value> {
        let leaves = [json!(null), json!(1), json!([1]), json!([]), json!({}), json!({"x": 1}), json!({"x": {"y": 2}})];
        let mut shapes = vec![json!({})];
        for one in &leaves {
            shapes.push(json!({"a": one}));
            shapes.extend(leaves.iter().map(|two| json!({"a": one, "b": {"c": two}})));
        }
        shapes
    }

    #[test]
    fn nothing_changes_nothing() {
        for shape in shapes() {
            assert_eq!(merged(&json!({}), &shape), shape);
            assert_eq!(merged(&shape, &json!({})), shape);
        }
    }

    #[test]
    fn twice_is_once() {
        for shape in shapes() {
            assert_eq!(merged(&shape, &shape), shape);
            for later in shapes() {
                let once = merged(&shape, &later);
                assert_eq!(merged(&once, &later), once);
            }
        }
    }

    #[test]
    fn it_does_not_matter_where_one_starts() {
        let [one, two, three] = [json!({"a": {"x": 1}}), json!({"a": {"y": [1]}, "b": 2}), json!({"a": {"y": [2]}})];
        assert_eq!(merged(&merged(&one, &two), &three), merged(&one, &merged(&two, &three)));
    }
}
