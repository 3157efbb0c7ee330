//! Makes documents of messages.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use proto::bus::{Message, header};
use proto::frame;
use proto::plan::{Plan, PluginSpec};
use proto::record::{self, RecordView, Target};
use proto::subject::{self, Key, Version};
use serde::Deserialize;

use crate::store::Document;

/// What a document takes beside its body, in bytes: its fields, where it comes from, its id among those of its batch, and
/// what a store makes of it.
pub(super) const PER_DOCUMENT: usize = 640;

/// How much the documents of a message take, as its headers have it: each gets the fields of its target.
pub(super) fn expected(message: &Message) -> usize {
    let number = |name| message.header(name).and_then(|text| text.parse::<usize>().ok()).unwrap_or_default();
    let body = number(header::RAW_BYTES).clamp(message.payload.len(), frame::MAX_RAW_BYTES.max(message.payload.len()));
    body + body / 8 + number(header::COUNT).clamp(1, frame::MAX_RECORDS as usize) * PER_DOCUMENT
}

/// Makes the documents of one store of an audit's version.
#[derive(Debug)]
pub(super) struct Maker {
    audit: Key,
    version: Version,
    target: Target,
}

/// What is in a message.
pub(super) struct Opened {
    /// Its documents.
    pub(super) documents: Vec<Document>,
    /// What their bodies take together.
    pub(super) bytes: usize,
    /// The lines that are none: each with the reason.
    pub(super) odd: Vec<(String, Bytes)>,
}

impl Maker {
    pub(super) fn new(plan: &Plan, spec: &PluginSpec) -> Self {
        let target = Target::new(&plan.audit, &spec.key, &spec.class, spec.role);
        Self { audit: plan.audit.clone(), version: plan.version.clone(), target }
    }

    /// The documents of a frame or an event. The error says why the message cannot be read at all.
    pub(super) fn open(&self, message: &Message) -> Result<Opened, String> {
        let body = frame::open(message).map_err(|error| error.to_string())?;
        let origin = subject::parse(&message.subject).map(|(_, _, origin)| origin);
        // Each has memory of its own. Large pieces, one for a message, are freed on other threads than they were taken on,
        // and the allocator kept several times as much as there was in use.
        let mut text = Vec::new();
        let (mut documents, mut bytes, mut odd) = (Vec::new(), 0, Vec::new());
        for line in frame::lines(&body) {
            text.clear();
            match self.write(&mut text, line) {
                Ok((id, record_type)) => {
                    bytes += text.len();
                    documents.push(Document {
                        id,
                        record_type,
                        audit: self.audit.clone(),
                        version: self.version.clone(),
                        body: Bytes::copy_from_slice(&text),
                    });
                }
                Err(reason) => {
                    let of = origin.as_ref().map_or(String::new(), |origin| format!("of {origin}: "));
                    odd.push((format!("{of}{reason}"), body.slice_ref(line)));
                }
            }
        }
        Ok(Opened { documents, bytes, odd })
    }

    fn write(&self, text: &mut Vec<u8>, line: &[u8]) -> Result<(String, String), String> {
        let (record, id) = RecordView::parse(line)
            .and_then(|record| Ok((record, record.id()?)))
            .map_err(|error| format!("not a document: {error}"))?;
        record::write_document(text, &record, &self.target).map_err(|error| error.to_string())?;
        Ok((id.to_string(), record_type(&record)))
    }
}

/// A document as it was written before: one that was a dead letter.
pub(super) fn written_before(audit: &Key, version: &Version, text: Bytes) -> Result<Document, String> {
    let record = RecordView::parse(&text).map_err(|error| format!("not a document: {error}"))?;
    let id = record.id().map_err(|error| format!("not a document: {error}"))?.to_string();
    let record_type = record_type(&record);
    Ok(Document { id, record_type, audit: audit.clone(), version: version.clone(), body: text })
}

/// `ext.record_type`, or that of `com`; empty when there is neither.
fn record_type(record: &RecordView<'_>) -> String {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, default)]
        record_type: Option<Cow<'a, str>>,
    }
    let of = |bucket: Option<&serde_json::value::RawValue>| -> Option<String> {
        let typed: Typed<'_> = serde_json::from_str(bucket?.get()).ok()?;
        typed.record_type.map(Cow::into_owned)
    };
    of(record.ext).or_else(|| of(record.com)).unwrap_or_default()
}

/// Where a document comes from: what its dead letter tells, and whose acknowledgement waits for it.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The message's place among those in hand.
    pub(super) slot: u64,
    /// Its subject.
    pub(super) subject: Arc<str>,
    /// Its sequence.
    pub(super) seq: u64,
    /// How often it was delivered.
    pub(super) deliveries: u64,
}
