//! Makes events: the draft of an event plugin, the source's `ext`, and who the event is.

use std::fmt;

use bytes::Bytes;
use proto::bus::Outgoing;
use proto::identity::{Id, IdMaker};
use proto::record::{self, Origin, Text};
use proto::subject::{self, Key, Role, Version};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json::Json;
use crate::record::Record;
use crate::rule::{Controls, EventDraft};

/// Makes the events of one plugin in one version.
#[derive(Debug)]
pub struct Maker {
    subject: String,
    events: IdMaker,
    findings: IdMaker,
    origin: Origin,
}

impl Maker {
    /// A maker for a plugin of an audit's version.
    #[must_use]
    pub fn new(audit: &Key, version: &Version, plugin: &Key, class: &str) -> Self {
        Self {
            subject: subject::event(audit, version, plugin),
            events: IdMaker::of_events(audit, version, plugin),
            findings: IdMaker::of_findings(audit, plugin),
            origin: Origin::new(audit, version, plugin, class, Role::Event),
        }
    }

    /// The event as a message. It is the same message for the same record, plugin and finding.
    ///
    /// # Errors
    /// When the record's `ext` is not an object, or the event cannot be written.
    pub fn message(&self, record: &Record<'_>, draft: &EventDraft) -> Result<Outgoing, record::WriteError> {
        // A record without a key is not one of our collectors': its id tells it apart, too.
        let key = record.com_text("key").or_else(|| record.com_text("id")).unwrap_or_default();
        let fields = [&*draft.event_type, key, draft.sub_key.as_str()];
        let id = self.events.id(&fields);
        let source: Fields<'_> = match record.view.ext {
            Some(ext) => serde_json::from_str(ext.get())?,
            None => Fields(Vec::new()),
        };
        let ext = Ext { source: &source, draft };
        let com = Com { record, draft, id, finding_id: self.findings.id(&fields) };
        let mut body = Vec::with_capacity(1024);
        record::write_event(&mut body, &ext, &com, &self.origin)?;
        let digest = Id::digest(&body);
        Ok(Outgoing::json_text(self.subject.clone(), Bytes::from(body)).with_id(format!("{id}:{digest}")))
    }
}

/// The fields of an object, in their order, their values unparsed.
struct Fields<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// The source's `ext` with the event's record type and fields.
struct Ext<'a> {
    source: &'a Fields<'a>,
    draft: &'a EventDraft,
}

impl Serialize for Ext<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut typed = false;
        for (name, value) in &self.source.0 {
            if &**name == "record_type" {
                map.serialize_entry("record_type", &*self.draft.event_type)?;
                typed = true;
            } else if !self.draft.ext.iter().any(|(added, _)| **added == **name) {
                map.serialize_entry(&**name, value)?;
            }
        }
        if !typed {
            map.serialize_entry("record_type", &*self.draft.event_type)?;
        }
        for (name, value) in &self.draft.ext {
            map.serialize_entry(&**name, value)?;
        }
        map.end()
    }
}

/// The event's `com`, but for its origin: first the fields that the Python tool has, in its order.
struct Com<'a, 'r> {
    record: &'a Record<'r>,
    draft: &'a EventDraft,
    id: Id,
    finding_id: Id,
}

impl Serialize for Com<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (record, draft, facts) = (self.record, self.draft, &*self.draft.facts);
        let mut map = serializer.serialize_map(None)?;
        if draft.names_source {
            map.serialize_entry("cloud_type", &record.com_text("cloud_type"))?;
        }
        map.serialize_entry("record_type", &*draft.event_type)?;
        for (name, value) in &draft.com {
            map.serialize_entry(&**name, value)?;
        }
        if draft.names_source {
            map.serialize_entry("reference", &record.com_text("reference"))?;
        }
        map.serialize_entry("description", &draft.description)?;
        map.serialize_entry("recommendation", &draft.recommendation)?;
        map.serialize_entry("id", &format_args!("{}", self.id))?;
        map.serialize_entry("finding_id", &format_args!("{}", self.finding_id))?;
        map.serialize_entry("severity", &facts.severity)?;
        map.serialize_entry("title", &facts.title)?;
        map.serialize_entry("rule", &facts.rule)?;
        map.serialize_entry("rule_version", &facts.rule_version)?;
        map.serialize_entry("controls", &ControlsOf { cloud: record.com_text("cloud_type"), all: &facts.controls })?;
        map.serialize_entry("resource", &draft.resource)?;
        map.serialize_entry("source", &Source(record))?;
        if !draft.evidence.is_empty() {
            map.serialize_entry("evidence", &Evidence(draft))?;
        }
        map.end()
    }
}

/// The controls of benchmarks of the record's cloud, and of those that are of no cloud.
struct ControlsOf<'a> {
    cloud: Option<&'a str>,
    all: &'a Controls,
}

impl Serialize for ControlsOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const CLOUDS: [&str; 3] = ["aws", "azure", "gcp"];
        let is_of_the_cloud = |benchmark: &str| {
            let named = benchmark.split('_').find(|word| CLOUDS.contains(word));
            named.is_none_or(|named| self.cloud.is_some_and(|cloud| cloud.eq_ignore_ascii_case(named)))
        };
        serializer.collect_map(self.all.iter().filter(|(benchmark, _)| is_of_the_cloud(benchmark)))
    }
}

/// The record that the event is about, and who made it.
struct Source<'a, 'r>(&'a Record<'r>);

impl Serialize for Source<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const FIELDS: [&str; 5] = ["origin_key", "origin_class", "origin_worker", "origin_type", "id"];
        let mut map = serializer.serialize_map(None)?;
        for field in FIELDS {
            if let Some(value) = self.0.com_field(field).filter(|value| **value != Json::Null) {
                map.serialize_entry(field, value)?;
            }
        }
        // The event's own type stands in `ext`; whether a run has read the source is known by the source's.
        if let Some(record_type) = self.0.ext_text("record_type") {
            map.serialize_entry("record_type", record_type)?;
        }
        map.end()
    }
}

/// What the rule has looked at.
struct Evidence<'a>(&'a EventDraft);

impl Serialize for Evidence<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.evidence.iter().map(|(name, value)| (&**name, value)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::condition::Wanted;
    use crate::rule::{Facts, Resource, Severity};

    fn event(version: &str, sub_key: &str) -> Value {
        let record = json!({
            "ext": {"a": 1.50, "record_type": "x", "n": 1},
            "com": {"key": "k", "reference": "r", "origin_key": "azcloud", "origin_type": "cloud"},
        });
        let text = serde_json::to_vec(&record).unwrap();
        let draft = EventDraft {
            event_type: "rule_event".into(),
            sub_key: sub_key.into(),
            ext: vec![("n".into(), 2.into())],
            com: vec![("ports".into(), json!([22]))],
            evidence: vec![("seen".into(), json!(true))],
            names_source: true,
            description: "d".into(),
            recommendation: "r".into(),
            facts: Arc::new(Facts {
                severity: Severity::High,
                title: "t".into(),
                rule: "x".into(),
                rule_version: 1,
                controls: [("cis".to_owned(), vec!["1.1".to_owned()])].into(),
            }),
            resource: Resource { name: Some("n".into()), ..Resource::default() },
        };
        let (audit, plugin) = (Key::new("audit").unwrap(), Key::new("rule").unwrap());
        let maker = Maker::new(&audit, &Version::new(version).unwrap(), &plugin, "cloudmarker.events.x.Rule");
        let message = maker.message(&Record::parse(&text, &Wanted::All).unwrap(), &draft).unwrap();
        assert_eq!(message.subject, format!("cm.event.audit.{version}.rule"));
        serde_json::from_slice(&message.payload).unwrap()
    }

    #[test]
    fn an_event_has_the_sources_ext_and_its_own_com() {
        let event = event("20260131_235959", "");
        assert_eq!(event["ext"], json!({"a": 1.5, "record_type": "rule_event", "n": 2}));
        assert_eq!(event["com"]["cloud_type"], Value::Null);
        assert_eq!(event["com"]["reference"], "r");
        assert_eq!(event["com"]["ports"], json!([22]));
        assert_eq!(event["com"]["origin_class"], "Rule");
        assert_eq!(event["com"]["severity"], "high");
        assert_eq!(event["com"]["controls"], json!({"cis": ["1.1"]}));
        assert_eq!(event["com"]["resource"]["name"], "n");
        assert_eq!(
            event["com"]["source"],
            json!({"origin_key": "azcloud", "origin_type": "cloud", "record_type": "x"})
        );
        assert_eq!(event["com"]["evidence"], json!({"seen": true}));
        assert!(event.get("raw").is_none());
    }

    #[test]
    fn a_finding_keeps_its_id_from_version_to_version_and_an_event_does_not() {
        let (one, two) = (event("20260131_235959", "disk"), event("20260201_235959", "disk"));
        assert_ne!(one["com"]["id"], two["com"]["id"]);
        assert_eq!(one["com"]["finding_id"], two["com"]["finding_id"]);
        assert_ne!(one["com"]["finding_id"], event("20260131_235959", "other")["com"]["finding_id"]);
    }
}
