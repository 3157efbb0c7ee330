//! Documents as the collector takes them: one object each, one a line.

use std::ops::Range;

use jiff::Timestamp;
use proto::record::RecordView;
use proto::subject::{Key, Version};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::store::Document;

/// What all events of a store say.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    pub(super) host: Option<String>,
    pub(super) source: Option<String>,
    pub(super) sourcetype: String,
    pub(super) index: Option<String>,
}

/// Events that are to be sent.
#[derive(Debug, Default, Clone)]
pub(super) struct Events {
    pub(super) lines: Vec<u8>,
    /// The place of each in the batch, and where it stands.
    pub(super) events: Vec<(usize, Range<usize>)>,
    /// What was said of the last one: most of a batch are of one run.
    last: Option<Shared>,
}

/// What all events of a run say.
#[derive(Debug, Clone)]
struct Shared {
    audit: Key,
    version: Version,
    /// When the run began.
    began: Option<String>,
    /// All between the time and the document.
    metadata: Vec<u8>,
}

impl Shared {
    fn of(document: &Document, metadata: &Metadata) -> Self {
        let mut text = Vec::new();
        let mut field = |name: &str, value: Option<&str>| {
            let Some(value) = value else { return };
            text.extend_from_slice(format!("\"{name}\":").as_bytes());
            // Writing a text as JSON into memory cannot fail.
            let _ = serde_json::to_writer(&mut text, value);
            text.push(b',');
        };
        field("host", metadata.host.as_deref());
        let source = metadata.source.clone().unwrap_or_else(|| format!("cloudmarker:{}", document.audit));
        field("source", Some(&source));
        field("sourcetype", Some(&metadata.sourcetype));
        field("index", metadata.index.as_deref());
        text.extend_from_slice(b"\"event\":");
        Self {
            audit: document.audit.clone(),
            version: document.version.clone(),
            began: began(&document.version).map(seconds),
            metadata: text,
        }
    }

    fn is_of(&self, document: &Document) -> bool {
        self.version == document.version && self.audit == document.audit
    }
}

impl Events {
    /// Appends a document. The error says what is wrong with it.
    pub(super) fn push(&mut self, place: usize, document: &Document, metadata: &Metadata) -> Result<(), String> {
        if !document.body.trim_ascii_start().starts_with(b"{") {
            return Err("it is not a JSON object".to_owned());
        }
        // What is not JSON would break those behind it, too.
        let record = RecordView::parse(&document.body).map_err(|error| format!("it is not a JSON object: {error}"))?;
        let shared = match self.last.take() {
            Some(last) if last.is_of(document) => last,
            _ => Shared::of(document, metadata),
        };
        let start = self.lines.len();
        self.lines.push(b'{');
        let own = own_time(&record).map(seconds);
        if let Some(time) = own.as_ref().or(shared.began.as_ref()) {
            self.lines.extend_from_slice(b"\"time\":");
            self.lines.extend_from_slice(time.as_bytes());
            self.lines.push(b',');
        }
        self.lines.extend_from_slice(&shared.metadata);
        self.lines.extend_from_slice(&document.body);
        self.lines.extend_from_slice(b"}\n");
        self.events.push((place, start..self.lines.len()));
        self.last = Some(shared);
        Ok(())
    }

    /// One of them alone.
    pub(super) fn alone(&self, number: usize) -> Option<(usize, Vec<u8>)> {
        let (place, range) = self.events.get(number)?;
        Some((*place, self.lines.get(range.clone())?.to_vec()))
    }
}

/// When it happened, as `com.time` says. It is the same however often the document comes.
fn own_time(record: &RecordView<'_>) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Time<'a> {
        #[serde(borrow, default)]
        time: Option<&'a RawValue>,
    }
    let com = record.com?.get();
    if !com.contains("\"time\"") {
        return None;
    }
    let time = serde_json::from_str::<Time<'_>>(com).ok()?.time?;
    serde_json::from_str::<String>(time.get()).ok()?.parse().ok()
}

/// When a run began.
fn began(version: &Version) -> Option<Timestamp> {
    let began = jiff::civil::DateTime::strptime("%Y%m%d_%H%M%S", version.as_str()).ok()?;
    Some(began.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// In seconds since 1970.
fn seconds(moment: Timestamp) -> String {
    let milliseconds = moment.as_millisecond();
    format!("{}.{:03}", milliseconds.div_euclid(1000), milliseconds.rem_euclid(1000))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document(body: &str) -> Document {
        Document {
            id: "i".to_owned(),
            record_type: String::new(),
            audit: Key::new("an audit").unwrap(),
            version: Version::new("20260131_235959").unwrap(),
            body: body.to_owned().into(),
        }
    }

    fn metadata() -> Metadata {
        Metadata { host: None, source: None, sourcetype: "json".to_owned(), index: Some("a\"b".to_owned()) }
    }

    #[test]
    fn an_event_is_a_line_that_holds_the_document_as_it_is() {
        let mut events = Events::default();
        let body = "{\"raw\":123456789012345678901234567890,\"com\":{\"time\":\"2026-01-02T03:04:05.6789Z\"}}";
        events.push(3, &document("{\"com\":{\"time\":\"soon\"}}"), &metadata()).unwrap();
        events.push(5, &document(body), &metadata()).unwrap();
        let text = String::from_utf8(events.lines.clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let first: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(
            first,
            json!({
                "time": 1_769_903_999.0, "source": "cloudmarker:an audit", "sourcetype": "json", "index": "a\"b",
                "event": {"com": {"time": "soon"}},
            })
        );
        assert!(lines[1].contains("\"time\":1767323045.678,") && lines[1].ends_with(&format!("\"event\":{body}}}")));
        assert_eq!(events.alone(1).unwrap(), (5, format!("{}\n", lines[1]).into_bytes()));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let mut events = Events::default();
        for body in ["", "{", "{}{}", "{\"raw\":1}}", "5", "{\"raw\":tru}"] {
            assert!(events.push(0, &document(body), &metadata()).is_err(), "{body}");
        }
        assert!(events.lines.is_empty() && events.events.is_empty());
    }
}
