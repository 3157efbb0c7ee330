//! The index template: how the fields of documents are searched. It must never be a reason to refuse a document.
//!
//! `raw` is kept, and not looked into. `ext` differs from type to type, and the same name may be a truth value in one
//! and a list in the other: Elasticsearch has a kind of field for that (`flattened`: one field, whatever is in it).
//! What OpenSearch has instead (`flat_object`) cannot be counted by, and refuses a document for one long text; so
//! there, each field of `ext` is a keyword, which takes texts, numbers and truth values.

use serde_json::{Value, json};

use super::index::IndexPattern;
use super::server::Kind;

/// Counted up whenever the template changes: an older one of ours is replaced.
pub(super) const VERSION: u64 = 1;
/// The mark by which a template or index is known as made by us.
pub(super) const MARK: &str = "cloudmarker";

/// Longer texts are kept, and not searched. Lucene refuses terms of more than 32766 bytes: with up to four for a
/// character that would be 8191 characters.
const LONGEST_KEYWORD: u32 = 2048;
/// How deep `ext` may be.
const DEPTH: u32 = 50;
/// Fields that an index may have. Where `ext` is one field, this is never reached.
const FIELDS: u32 = 2_000;

/// The template for these indexes, on this kind of server.
pub(super) fn template(index: &IndexPattern, kind: Kind) -> Value {
    json!({
        "index_patterns": [index.wildcard()],
        "priority": index.priority(),
        "version": VERSION,
        "_meta": {MARK: {"template": VERSION}},
        "template": {
            "settings": {"index": {"mapping": {"total_fields": {"limit": FIELDS}}}},
            "mappings": mappings(kind),
        },
    })
}

fn mappings(kind: Kind) -> Value {
    // Keywords by name of what JSON has. Without it whatever comes first would decide: `5` for numbers, say.
    let keywords: Vec<Value> = ["string", "long", "double", "boolean"]
        .iter()
        .map(|found| json!({*found: {"match_mapping_type": found, "mapping": keyword()}}))
        .collect();
    json!({
        "_meta": {MARK: {"template": VERSION}},
        // Of buckets that nobody knows yet.
        "dynamic": false,
        "date_detection": false,
        "numeric_detection": false,
        "dynamic_templates": keywords,
        "properties": {"raw": {"type": "object", "enabled": false}, "ext": anything(kind), "com": common(kind)},
    })
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": LONGEST_KEYWORD})
}

/// An object of which nothing is known.
fn anything(kind: Kind) -> Value {
    match kind {
        Kind::Elasticsearch { complete: true } => {
            json!({"type": "flattened", "ignore_above": LONGEST_KEYWORD, "depth_limit": DEPTH})
        }
        _ => json!({"type": "object", "dynamic": true}),
    }
}

fn common(kind: Kind) -> Value {
    const KEYWORDS: &[&str] = &[
        "access",
        "audit_key",
        "cloud_type",
        "destination_ports",
        "direction",
        "finding_id",
        "id",
        "key",
        "lifetime",
        "origin_class",
        "origin_key",
        "origin_type",
        "origin_worker",
        "protocol",
        "record_type",
        "reference",
        "rule",
        "severity",
        "source_addresses",
        "target_class",
        "target_key",
        "target_type",
        "target_worker",
        "title",
    ];
    let mut fields = json!({
        "audit_version": {
            "type": "keyword",
            "ignore_above": LONGEST_KEYWORD,
            // For whoever searches by time.
            "fields": {"time": {"type": "date", "format": "uuuuMMdd_HHmmss", "ignore_malformed": true}},
        },
        "rule_version": {"type": "long", "ignore_malformed": true},
        "enabled": {"type": "boolean"},
        "tls_enforced": {"type": "boolean"},
        "description": text(),
        "recommendation": text(),
        // As deep and wide as rules and records make them.
        "controls": anything(kind),
        "evidence": anything(kind),
    });
    for name in KEYWORDS {
        fields[*name] = keyword();
    }
    json!({"dynamic": true, "properties": fields})
}

/// A sentence: searched by its words, and as a whole.
fn text() -> Value {
    json!({"type": "text", "fields": {"keyword": keyword()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_is_never_looked_into_and_ext_cannot_explode_where_the_server_has_a_way() {
        let index = IndexPattern::parse("c-{month}").unwrap();
        for kind in [Kind::Elasticsearch { complete: true }, Kind::Elasticsearch { complete: false }, Kind::OpenSearch]
        {
            let template = template(&index, kind);
            assert_eq!(template["index_patterns"], json!(["c-*"]));
            let properties = &template["template"]["mappings"]["properties"];
            assert_eq!(properties["raw"], json!({"type": "object", "enabled": false}));
            let flat = kind == Kind::Elasticsearch { complete: true };
            assert_eq!(properties["ext"]["type"], if flat { "flattened" } else { "object" });
        }
    }
}
