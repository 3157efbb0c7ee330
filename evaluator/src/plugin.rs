//! What an event plugin is: it looks at one record and says pass, fail or unknown.

use std::borrow::Cow;

use proto::record::{ComHead, RecordView};
use serde_json::Value;

/// A record as event plugins see it: its buckets, unparsed, and the fields of `com` that choose what is done with it.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The buckets.
    pub view: RecordView<'a>,
    /// The chosen fields of `com`; empty when there is no `com`.
    pub head: ComHead<'a>,
    /// Why the chosen fields cannot be read, if they cannot: then nothing can be said of the record.
    pub trouble: Option<String>,
}

impl<'a> Record<'a> {
    /// Splits the text of a record.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn parse(text: &'a [u8]) -> serde_json::Result<Self> {
        let view = RecordView::parse(text)?;
        let (head, trouble) = match view.com.map(|_| view.head()) {
            None => (ComHead::default(), None),
            Some(Ok(head)) => (head, None),
            Some(Err(error)) => (ComHead::default(), Some(format!("com cannot be read: {error}"))),
        };
        Ok(Self { view, head, trouble })
    }
}

/// What an event plugin says of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The record is not one that the plugin looks at.
    NotApplicable,
    /// Nothing is wrong.
    Pass,
    /// Something is wrong: the events say what.
    Fail,
    /// It cannot be said, for this reason. Missing data is never a pass.
    Unknown(String),
}

/// An event as an event plugin makes it. The worker adds the identity and the source's `ext`.
#[derive(Debug, Clone, PartialEq)]
pub struct EventDraft {
    /// `firewall_rule_event`, ...: the record type of the event in `ext` and `com`.
    pub event_type: &'static str,
    /// What tells events of one record and type apart (a disk's name); empty where there is one only.
    pub sub_key: String,
    /// Fields added to the source's `ext`.
    pub ext: Vec<(&'static str, Value)>,
    /// Fields added to `com`, behind `record_type`.
    pub com: Vec<(&'static str, Value)>,
    /// Whether `com` repeats the source's `cloud_type` and `reference`.
    pub with_source: bool,
    /// What is wrong, in one sentence that names the cloud, the resource and the fact.
    pub description: String,
    /// What to do, in one sentence.
    pub recommendation: String,
}

/// An event plugin, built of its parameters. It is shared by all records of a version.
pub trait EventPlugin: Send + Sync {
    /// Looks at a record, adds its events if something is wrong, and says so. Must not panic on any record.
    fn evaluate(&self, record: &Record<'_>, events: &mut Vec<EventDraft>) -> Outcome;
}

/// A cloud's name for people.
#[must_use]
pub fn friendly_cloud<'a>(cloud_type: Option<&'a str>) -> Cow<'a, str> {
    match cloud_type {
        Some("azure") => "Azure".into(),
        Some("gcp") => "Google Cloud Platform (GCP)".into(),
        Some("aws") => "Amazon Web Services (AWS)".into(),
        Some(other) => other.into(),
        None => "unknown cloud".into(),
    }
}
