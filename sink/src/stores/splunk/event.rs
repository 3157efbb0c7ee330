//! Documents as the collector takes them: one object each, one a line.

use std::ops::Range;

use proto::record::RecordView;
use proto::subject::Version;
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
}

impl Events {
    /// Appends a document. The error says what is wrong with it.
    pub(super) fn push(&mut self, place: usize, document: &Document, metadata: &Metadata) -> Result<(), String> {
        if !document.body.trim_ascii_start().starts_with(b"{") {
            return Err("it is not a JSON object".to_owned());
        }
        // What is not JSON would break those behind it, too.
        let record = RecordView::parse(&document.body).map_err(|error| format!("it is not a JSON object: {error}"))?;
        let start = self.lines.len();
        self.lines.push(b'{');
        if let Some(time) = time(&record, &document.version) {
            self.lines.extend_from_slice(format!("\"time\":{time},").as_bytes());
        }
        let audit = || format!("cloudmarker:{}", document.audit);
        self.field("host", metadata.host.as_deref());
        self.field("source", Some(&metadata.source.clone().unwrap_or_else(audit)));
        self.field("sourcetype", Some(&metadata.sourcetype));
        self.field("index", metadata.index.as_deref());
        self.lines.extend_from_slice(b"\"event\":");
        self.lines.extend_from_slice(&document.body);
        self.lines.extend_from_slice(b"}\n");
        self.events.push((place, start..self.lines.len()));
        Ok(())
    }

    fn field(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.lines.extend_from_slice(format!("\"{name}\":").as_bytes());
        // Writing a text as JSON into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.lines, value);
        self.lines.push(b',');
    }

    /// One of them alone.
    pub(super) fn alone(&self, number: usize) -> Option<(usize, Vec<u8>)> {
        let (place, range) = self.events.get(number)?;
        Some((*place, self.lines.get(range.clone())?.to_vec()))
    }
}

/// When it happened, in seconds since 1970: what `com.time` says, else when its run began. It is the same however often
/// the document comes.
fn time(record: &RecordView<'_>, version: &Version) -> Option<String> {
    #[derive(Deserialize)]
    struct Time<'a> {
        #[serde(borrow, default)]
        time: Option<&'a RawValue>,
    }
    let com = record.com.map(RawValue::get).filter(|com| com.contains("\"time\""));
    let said = com.and_then(|com| serde_json::from_str::<Time<'_>>(com).ok()?.time).map(RawValue::get);
    let said = said.and_then(|time| serde_json::from_str::<String>(time).ok()?.parse::<jiff::Timestamp>().ok());
    let moment = said.or_else(|| {
        let began = jiff::civil::DateTime::strptime("%Y%m%d_%H%M%S", version.as_str()).ok()?;
        Some(began.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    });
    moment.map(|moment| {
        let milliseconds = moment.as_millisecond();
        format!("{}.{:03}", milliseconds.div_euclid(1000), milliseconds.rem_euclid(1000))
    })
}

#[cfg(test)]
mod tests {
    use proto::subject::Key;
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
