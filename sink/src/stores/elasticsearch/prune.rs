//! What goes when versions go.

use jiff::{SignedDuration, Timestamp};
use proto::subject::Version;
use serde_json::{Value, json};

use crate::store::Pruning;

/// The fields that say what a document is: each has to be one keyword, or a part of an audit's name would be taken
/// for the whole.
pub(super) const FIELDS: [&str; 2] = ["com.audit_key", "com.audit_version"];

/// The documents that go by their version. Those of permanent lifetime never do.
pub(super) fn of_versions(pruning: &Pruning) -> Value {
    json!({"query": {"bool": {
        "filter": [
            {"term": {"com.audit_key": pruning.audit.as_str()}},
            {"range": {"com.audit_version": {"lt": pruning.before.as_str()}}},
        ],
        "must_not": [
            {"terms": {"com.audit_version": pruning.keep.iter().map(Version::as_str).collect::<Vec<_>>()}},
            permanent(),
        ],
    }}})
}

/// The documents of permanent lifetime that go by their age: of the last version that saw them.
pub(super) fn of_age(pruning: &Pruning, now: Timestamp) -> Option<Value> {
    let days = pruning.permanent_days?;
    let oldest = now.checked_sub(SignedDuration::from_hours(24 * i64::from(days))).ok()?;
    Some(json!({"query": {"bool": {"filter": [
        {"term": {"com.audit_key": pruning.audit.as_str()}},
        {"range": {"com.audit_version": {"lt": Version::at(oldest).as_str()}}},
        permanent(),
    ]}}}))
}

fn permanent() -> Value {
    json!({"term": {"com.lifetime": "permanent"}})
}

/// The field that is not a keyword everywhere, if there is one, of the server's word on [`FIELDS`].
pub(super) fn not_a_keyword(capabilities: &Value) -> Option<&'static str> {
    FIELDS.into_iter().find(|field| {
        let kinds = capabilities.pointer("/fields").and_then(|fields| fields.get(*field)).and_then(Value::as_object);
        kinds.is_some_and(|kinds| kinds.keys().any(|kind| !matches!(kind.as_str(), "keyword" | "unmapped")))
    })
}

#[cfg(test)]
mod tests {
    use proto::subject::Key;

    use super::*;

    #[test]
    fn what_is_older_than_its_days_goes_by_age() {
        let mut pruning = Pruning {
            audit: Key::new("a").unwrap(),
            before: Version::new("20260131_000000").unwrap(),
            keep: vec![Version::new("20260130_000000").unwrap()],
            permanent_days: None,
        };
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        assert_eq!(of_age(&pruning, now), None);
        pruning.permanent_days = Some(30);
        let query = of_age(&pruning, now).unwrap();
        assert_eq!(query["query"]["bool"]["filter"][1]["range"]["com.audit_version"]["lt"], "20260101_120000");
        pruning.permanent_days = Some(u32::MAX);
        assert_eq!(of_age(&pruning, now), None);
    }

    #[test]
    fn a_field_of_words_is_not_pruned_by() {
        let kinds = |kind: &str| json!({"fields": {"com.audit_key": {kind: {}}, "com.audit_version": {"keyword": {}}}});
        assert_eq!(not_a_keyword(&kinds("keyword")), None);
        assert_eq!(not_a_keyword(&kinds("text")), Some("com.audit_key"));
        assert_eq!(not_a_keyword(&json!({"fields": {}})), None);
    }
}
