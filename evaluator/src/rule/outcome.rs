//! What a rule says of a record.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::check::Severity;

/// What a rule says of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The record is not one that the rule looks at.
    NotApplicable,
    /// Nothing is wrong.
    Pass,
    /// Something is wrong: the events say what.
    Fail,
    /// It cannot be said, for this reason. Missing data is never a pass.
    Unknown(String),
}

/// An outcome and its events. A record of which one part fails while of another it cannot be said fails, and what
/// cannot be said is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The outcome.
    pub outcome: Outcome,
    /// What is wrong.
    pub events: Vec<EventDraft>,
    /// What cannot be said of a record that fails.
    pub also_unknown: Option<String>,
}

impl Judgement {
    /// A judgement without events.
    #[must_use]
    pub fn plain(outcome: Outcome) -> Self {
        Self { outcome, events: Vec::new(), also_unknown: None }
    }

    /// Why it cannot be said, of all of the record or of a part.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Unknown(reason) => Some(reason),
            _ => self.also_unknown.as_deref(),
        }
    }
}

/// The controls of benchmarks that a finding is about: `cis_azure_3.0` → `["7.4"]`.
pub type Controls = BTreeMap<String, Vec<String>>;

/// What all events of a finding have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// How bad it is.
    pub severity: Severity,
    /// What ought to be.
    pub title: String,
    /// The rule's id.
    pub rule: String,
    /// The rule's version.
    pub rule_version: u32,
    /// The controls that it is about.
    pub controls: Controls,
}

/// The resource that an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// `azure`, `gcp`, ...
    pub cloud: Option<String>,
    /// The subscription, project or account.
    pub account: Option<String>,
    /// The record's type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The cloud's own id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Where it is.
    pub region: Option<String>,
}

/// An event as a rule makes it. The worker adds the identity and the source's `ext`.
#[derive(Debug, Clone, PartialEq)]
pub struct EventDraft {
    /// `firewall_rule_event`, ...: the record type of the event in `ext` and `com`.
    pub event_type: Arc<str>,
    /// What tells events of one record and type apart (a disk's name); empty where there is one only.
    pub sub_key: String,
    /// Fields added to the source's `ext`.
    pub ext: Vec<(Arc<str>, Value)>,
    /// Fields added to `com`, behind `record_type`.
    pub com: Vec<(Arc<str>, Value)>,
    /// What the rule has looked at, for people.
    pub evidence: Vec<(Arc<str>, Value)>,
    /// Whether `com` repeats the source's `cloud_type` and `reference`.
    pub names_source: bool,
    /// What is wrong, in one sentence that names the cloud, the resource and the fact.
    pub description: String,
    /// What to do, in one sentence.
    pub recommendation: String,
    /// What all events of the finding have in common.
    pub facts: Arc<Facts>,
    /// What it is about.
    pub resource: Resource,
}
