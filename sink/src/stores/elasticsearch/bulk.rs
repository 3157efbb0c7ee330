//! A batch as the servers' bulk call takes it, and what they say of each document.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::StatusCode;
use serde::Deserialize;

use super::client::{Reason, is_passing};
use super::index::IndexPattern;
use crate::store::{Document, Written};

/// What is wanted of the answer: without it each document would come back with some 200 bytes.
const WANTED: &str =
    "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by";

/// Where batches are sent. The index is named in the path where there is one for all: servers may be set to refuse
/// it elsewhere.
pub(super) fn path(index: &IndexPattern) -> String {
    match index.fixed() {
        Some(name) => format!("{name}/_bulk?{WANTED}"),
        None => format!("_bulk?{WANTED}"),
    }
}

/// The request: two lines for each document, what to do and the document.
pub(super) fn body(index: &IndexPattern, documents: &[Document]) -> Bytes {
    let names = if index.fixed().is_some() { 0 } else { 64 };
    let size = documents.iter().map(|document| document.body.len() + document.id.len() + names + 32).sum();
    let mut body = Vec::with_capacity(size);
    for document in documents {
        body.extend_from_slice(b"{\"index\":{");
        if index.fixed().is_none() {
            body.extend_from_slice(b"\"_index\":");
            push_text(&mut body, &index.name_of(document));
            body.push(b',');
        }
        body.extend_from_slice(b"\"_id\":");
        push_text(&mut body, &document.id);
        body.extend_from_slice(b"}}\n");
        push_line(&mut body, &document.body);
    }
    body.into()
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    // Writing a text as JSON into memory cannot fail.
    let _ = serde_json::to_writer(body, text);
}

/// A line break in a document would make the rest of it the next document's: one bad document must not harm others.
/// In JSON it stands between tokens only, where a space is as good.
fn push_line(body: &mut Vec<u8>, document: &[u8]) {
    let start = body.len();
    body.extend_from_slice(document);
    for byte in body.iter_mut().skip(start) {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    body.push(b'\n');
}

/// The same, compressed.
pub(super) fn compressed(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

#[derive(Deserialize)]
struct BulkAnswer {
    errors: bool,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    #[serde(default)]
    error: Option<Reason>,
}

/// What an answer says.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Written(Written),
    /// What is wrong is not the document but the index, or our rights on it: every other would fare the same.
    Hopeless {
        forbidden: bool,
        words: String,
    },
    /// It does not say of each document what became of it.
    Unclear(String),
}

/// Reads an answer to so many documents.
pub(super) fn verdict(answer: &[u8], documents: usize) -> Verdict {
    let answer: BulkAnswer = match serde_json::from_slice(answer) {
        Ok(answer) => answer,
        Err(error) => return Verdict::Unclear(format!("what came is not the answer to a bulk request ({error})")),
    };
    if answer.items.len() != documents {
        return Verdict::Unclear(format!("it told of {} documents where {documents} were sent", answer.items.len()));
    }
    let mut written = Written::default();
    if !answer.errors && answer.items.iter().all(|item| item.index.error.is_none()) {
        return Verdict::Written(written);
    }
    for (place, Item { index: Outcome { status, error } }) in answer.items.into_iter().enumerate() {
        let kind = error.as_ref().map_or("", Reason::kind);
        let words = || {
            let words = error.as_ref().map(Reason::words).unwrap_or_default();
            if words.is_empty() { format!("status {status}") } else { words }
        };
        match fate(status, kind, &words) {
            Fate::Stored => {}
            Fate::Refused => written.refused.push((place, words())),
            Fate::Again => written.again.push((place, words())),
            Fate::Hopeless => return Verdict::Hopeless { forbidden: matches!(status, 401 | 403), words: words() },
        }
    }
    Verdict::Written(written)
}

enum Fate {
    Stored,
    Refused,
    Again,
    Hopeless,
}

fn fate(status: u16, kind: &str, words: &dyn Fn() -> String) -> Fate {
    match (status, kind) {
        (200..=299, _) => Fate::Stored,
        // An index that is full or closed for the time being; too many shards: a person, or time, mends it.
        (_, "cluster_block_exception" | "validation_exception" | "index_closed_exception") => Fate::Again,
        // Somebody else wrote the same document: it is not ours that is there.
        (409, _) => Fate::Again,
        (401 | 403 | 404, _) | (_, "invalid_index_name_exception") => Fate::Hopeless,
        (status, _) if StatusCode::from_u16(status).is_ok_and(is_passing) => Fate::Again,
        (400, "illegal_argument_exception") if is_of_the_index(&words()) => Fate::Hopeless,
        _ => Fate::Refused,
    }
}

/// The servers have no kind of their own for these.
fn is_of_the_index(words: &str) -> bool {
    ["no write index is defined for alias", "allowed in data streams", "pipeline with id ["]
        .iter()
        .any(|text| words.contains(text))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proto::subject::{Key, Version};

    use super::*;

    fn document(id: &str, record_type: &str, body: &'static str) -> Document {
        Document {
            id: id.into(),
            record_type: record_type.into(),
            audit: Key::new("audit").unwrap(),
            version: Version::new("20260131_235959").unwrap(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn each_document_stands_on_a_line_behind_its_id() {
        let documents = [document("a\"", "disk", "{\"x\":1}"), document("b", "vm", "{\n\"y\":2}")];
        let index = IndexPattern::parse("c").unwrap();
        let expected = "{\"index\":{\"_id\":\"a\\\"\"}}\n{\"x\":1}\n{\"index\":{\"_id\":\"b\"}}\n{ \"y\":2}\n";
        assert_eq!(body(&index, &documents), expected);
        assert!(path(&index).starts_with("c/_bulk?"));

        let index = IndexPattern::parse("c-{record_type}").unwrap();
        let text = String::from_utf8(body(&index, &documents).to_vec()).unwrap();
        assert!(text.starts_with("{\"index\":{\"_index\":\"c-disk\",\"_id\":\"a\\\"\"}}\n{\"x\":1}\n"), "{text}");
        assert!(path(&index).starts_with("_bulk?"));

        let mut again = Vec::new();
        GzDecoder::new(&*compressed(text.as_bytes()).unwrap()).read_to_end(&mut again).unwrap();
        assert_eq!(again, text.as_bytes());
    }

    #[test]
    fn each_document_is_told_of() {
        let answer = br#"{"errors":true,"items":[
            {"index":{"status":201}},
            {"index":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed","caused_by":{"type":"x","reason":"why"}}}},
            {"index":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"queue"}}},
            {"index":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"newer"}}},
            {"index":{"status":403,"error":{"type":"cluster_block_exception","reason":"disk"}}},
            {"index":{"status":503}},
            {"index":{"status":413}},
            {"index":{"status":200}}]}"#;
        let Verdict::Written(written) = verdict(answer, 8) else { panic!("{:?}", verdict(answer, 8)) };
        assert_eq!(
            written.refused,
            [(1, "mapper_parsing_exception: failed; x: why".to_owned()), (6, "status 413".to_owned())]
        );
        let again: Vec<usize> = written.again.iter().map(|(place, _)| *place).collect();
        assert_eq!(again, [2, 3, 4, 5]);
    }

    #[test]
    fn what_is_wrong_with_the_index_is_not_laid_on_the_documents() {
        for (status, kind, reason, forbidden) in [
            (404, "index_not_found_exception", "no such index [c]", false),
            (403, "security_exception", "action [x] is unauthorized", true),
            (400, "invalid_index_name_exception", "Invalid index name [C]", false),
            (400, "illegal_argument_exception", "no write index is defined for alias [c]", false),
            (
                400,
                "illegal_argument_exception",
                "only write ops with an op_type of create are allowed in data streams",
                false,
            ),
        ] {
            let answer = format!(
                r#"{{"errors":true,"items":[{{"index":{{"status":{status},"error":{{"type":"{kind}","reason":"{reason}"}}}}}}]}}"#
            );
            let words = format!("{kind}: {reason}");
            assert_eq!(verdict(answer.as_bytes(), 1), Verdict::Hopeless { forbidden, words });
        }
        let answer = br#"{"errors":true,"items":[{"index":{"status":400,"error":{"type":"illegal_argument_exception",
            "reason":"Limit of total fields [1000] has been exceeded"}}}]}"#;
        assert!(matches!(verdict(answer, 1), Verdict::Written(written) if written.refused.len() == 1));
    }

    #[test]
    fn an_answer_that_does_not_tell_of_all_is_not_believed() {
        assert!(matches!(verdict(br#"{"errors":false,"items":[{"index":{"status":201}}]}"#, 2), Verdict::Unclear(_)));
        assert!(matches!(verdict(br#"{"errors":false}"#, 1), Verdict::Unclear(_)));
        assert!(matches!(verdict(b"<html>", 1), Verdict::Unclear(_)));
        // Errors that the summary does not mention count.
        let answer = br#"{"errors":false,"items":[{"index":{"status":400,"error":{"type":"t","reason":"r"}}}]}"#;
        assert!(matches!(verdict(answer, 1), Verdict::Written(written) if written.refused.len() == 1));
    }
}
