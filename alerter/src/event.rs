//! An event as an alert reads it: the fields that people are told, whoever made it.

use std::fmt;

use proto::identity::Id;
use proto::record::{RecordView, Text};
use proto::subject::Key;
use serde::{Deserialize, Serialize};

use crate::readable::{line, paragraph};

/// How bad a finding is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It should be mended now.
    Critical,
    /// It should be mended soon.
    High,
    /// It should be mended.
    Medium,
    /// It makes other mistakes worse.
    Low,
    /// Nothing that needs doing.
    Info,
    /// The event does not say. Nobody may leave it out for being harmless.
    #[serde(skip_deserializing)]
    Unrated,
}

impl Severity {
    /// All of them, the worst first.
    pub const ALL: [Self; 6] = [Self::Critical, Self::High, Self::Medium, Self::Low, Self::Info, Self::Unrated];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
            Self::Info => "info",
            Self::Unrated => "unrated",
        }
    }

    fn of(name: &str) -> Self {
        Self::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(name)).unwrap_or(Self::Unrated)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What people are told of an event. Its texts are fit to be read: see [`crate::readable`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The event's id.
    #[serde(serialize_with = "as_text")]
    pub id: Id,
    /// The finding's identity across runs; the event's id where it has none.
    pub finding_id: String,
    /// How bad it is.
    pub severity: Severity,
    /// The rule's id, or the plugin's key.
    pub rule: String,
    /// The event plugin's key.
    pub plugin: String,
    /// What ought to be.
    pub title: String,
    /// The cloud.
    pub cloud: String,
    /// The subscription, project or account; empty when the event does not say.
    pub account: String,
    /// The resource's type.
    pub kind: String,
    /// The resource's name, or else its id.
    pub resource: String,
    /// The cloud's own id of the resource.
    pub resource_id: String,
    /// Where it is.
    pub region: String,
    /// What is wrong.
    pub description: String,
    /// What to do.
    pub recommendation: String,
}

fn as_text<S: serde::Serializer>(id: &Id, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Com<'a> {
    #[serde(borrow)]
    finding_id: Option<Text<'a>>,
    #[serde(borrow)]
    severity: Option<Text<'a>>,
    #[serde(borrow)]
    title: Option<Text<'a>>,
    #[serde(borrow)]
    rule: Option<Text<'a>>,
    #[serde(borrow)]
    description: Option<Text<'a>>,
    #[serde(borrow)]
    recommendation: Option<Text<'a>>,
    #[serde(borrow)]
    cloud_type: Option<Text<'a>>,
    #[serde(borrow)]
    reference: Option<Text<'a>>,
    #[serde(borrow)]
    resource: Option<Resource<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource<'a> {
    #[serde(borrow)]
    cloud: Option<Text<'a>>,
    #[serde(borrow)]
    account: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    region: Option<Text<'a>>,
}

/// The first text that is there and not empty.
fn first<'a>(texts: &[&'a Option<Text<'_>>]) -> &'a str {
    texts.iter().filter_map(|text| text.as_deref()).find(|text| !text.is_empty()).unwrap_or_default()
}

impl Finding {
    /// Reads an event that this plugin made.
    ///
    /// # Errors
    /// When it is not one: no JSON, no id, or a field of another type.
    pub fn read(event: &[u8], plugin: &Key) -> serde_json::Result<Self> {
        let view = RecordView::parse(event)?;
        let id = view.id()?;
        let com: Com<'_> = view.com.map(|com| serde_json::from_str(com.get())).transpose()?.unwrap_or_default();
        let resource = com.resource.unwrap_or_default();
        let rule = first(&[&com.rule]);
        let finding_id = first(&[&com.finding_id]);
        Ok(Self {
            id,
            finding_id: if finding_id.is_empty() { id.to_string() } else { line(finding_id) },
            severity: Severity::of(first(&[&com.severity])),
            rule: line(if rule.is_empty() { plugin.as_str() } else { rule }),
            plugin: plugin.as_str().to_owned(),
            title: line(first(&[&com.title])),
            cloud: line(first(&[&resource.cloud, &com.cloud_type])),
            account: line(first(&[&resource.account])),
            kind: line(first(&[&resource.kind])),
            resource: line(first(&[&resource.name, &resource.id, &com.reference])),
            resource_id: line(first(&[&resource.id, &com.reference])),
            region: line(first(&[&resource.region])),
            description: paragraph(first(&[&com.description])),
            recommendation: paragraph(first(&[&com.recommendation])),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_of_anybody_is_read_as_far_as_it_goes() {
        let plugin = Key::new("openport").unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        let bare = Finding::read(json!({"com": {"id": id}}).to_string().as_bytes(), &plugin).unwrap();
        assert_eq!((bare.severity, bare.rule.as_str(), bare.finding_id.as_str()), (Severity::Unrated, "openport", id));
        let event = json!({"ext": {}, "com": {
            "id": id, "finding_id": "f", "severity": "HIGH", "title": "t", "rule": "azure_x", "reference": "/r",
            "resource": {"cloud": "azure", "account": "s-1", "type": "nsg", "id": null, "name": null, "region": "eu"},
            "description": "a\u{202e}b\u{7}\nc", "recommendation": null,
        }});
        let full = Finding::read(event.to_string().as_bytes(), &plugin).unwrap();
        assert_eq!((full.severity, full.resource.as_str(), full.account.as_str()), (Severity::High, "/r", "s-1"));
        assert_eq!(full.description, "ab\nc");
        for wrong in ["{", "{}", r#"{"com":{}}"#, r#"{"com":{"id":"x"}}"#] {
            assert!(Finding::read(wrong.as_bytes(), &plugin).is_err(), "{wrong}");
        }
    }
}
