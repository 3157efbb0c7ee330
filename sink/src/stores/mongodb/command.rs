//! The commands that write, built as BSON, and their replies.
//!
//! The driver's own bulk write needs a server 8.0; these commands are the same on all.

use std::ops::Range;

use mongodb::bson::{Bson, Document, RawDocumentBuf};
use mongodb::options::{Acknowledgment, WriteConcern};

use super::encode::Writer;

/// What the server takes in a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of a document, and, with some more for the command around it, of a command, in bytes.
    pub(super) document: usize,
    /// Documents in a command.
    pub(super) documents: usize,
}

impl Limits {
    pub(super) fn of_hello(hello: &Document) -> Self {
        let number = |name, default| {
            let value = hello.get(name).and_then(as_integer).and_then(|value| usize::try_from(value).ok());
            value.filter(|value| *value > 0).unwrap_or(default)
        };
        Self {
            document: number("maxBsonObjectSize", 16 * 1024 * 1024),
            documents: number("maxWriteBatchSize", 100_000),
        }
    }
}

/// Documents as BSON, one after another.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) bson: Writer,
    pub(super) documents: Vec<One>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct One {
    /// Its place in the batch.
    pub(super) place: usize,
    pub(super) range: Range<usize>,
}

impl Encoded {
    pub(super) fn bson(&self, one: &One) -> &[u8] {
        self.bson.bytes().get(one.range.clone()).unwrap_or_default()
    }
}

/// How documents are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The fastest way for those that are new; the others come back as [`Trouble::There`].
    Insert,
    /// Replaces those that are there.
    Replace,
}

impl How {
    /// The room that a document's place in a command takes, beside the document and its id.
    const fn overhead(self) -> usize {
        match self {
            Self::Insert => 16,
            Self::Replace => 64,
        }
    }
}

/// Cuts off as many documents as one command takes: at least one.
pub(super) fn chunk(how: How, documents: &[One], id_bytes: usize, limits: Limits) -> (&[One], &[One]) {
    let mut bytes = 0;
    let fitting = documents.iter().take(limits.documents).take_while(|one| {
        bytes += one.range.len() + id_bytes + how.overhead();
        bytes <= limits.document
    });
    let count = fitting.count().clamp(1.min(documents.len()), documents.len());
    documents.split_at(count)
}

/// The command that writes these documents. `ids` gives the id of a document by its place in the batch.
pub(super) fn write<'a>(
    how: How,
    collection: &str,
    encoded: &Encoded,
    documents: &[One],
    ids: impl Fn(usize) -> &'a str,
    concern: &WriteConcern,
) -> mongodb::bson::error::Result<RawDocumentBuf> {
    let bytes: usize = documents.iter().map(|one| one.range.len() + 160).sum();
    let mut command = Writer::with_capacity(bytes + 512);
    let open = command.open();
    let (name, list) = match how {
        How::Insert => ("insert", "documents"),
        How::Replace => ("update", "updates"),
    };
    command.string(name, collection);
    command.boolean("ordered", false);
    write_concern(&mut command, concern);
    let items = command.open_array(list);
    for (index, one) in documents.iter().enumerate() {
        let key = index.to_string();
        match how {
            How::Insert => command.document(&key, encoded.bson(one)),
            How::Replace => {
                let item = command.open_document(&key);
                let query = command.open_document("q");
                command.string("_id", ids(one.place));
                command.end(query);
                command.document("u", encoded.bson(one));
                command.boolean("upsert", true);
                command.end(item);
            }
        }
    }
    command.end(items);
    command.end(open);
    RawDocumentBuf::from_bytes(command.into_bytes())
}

fn write_concern(command: &mut Writer, concern: &WriteConcern) {
    let open = command.open_document("writeConcern");
    match &concern.w {
        Some(Acknowledgment::Nodes(nodes)) => command.integer("w", i64::from(*nodes)),
        Some(Acknowledgment::Custom(tag)) => command.string("w", tag),
        _ => command.string("w", "majority"),
    }
    if let Some(journal) = concern.journal {
        command.boolean("j", journal);
    }
    if let Some(timeout) = concern.w_timeout {
        command.integer("wtimeout", i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
    }
    command.end(open);
}

/// Why a document was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is one with its id.
    There,
    /// Another reason, by its code.
    Code(i32, String),
}

/// A server's reply to a write.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    /// Documents that were not written, by their place in the command.
    pub(super) troubles: Vec<(usize, Trouble)>,
    /// Documents that replaced none.
    pub(super) new: usize,
    /// Not as durable as was asked for.
    pub(super) concern: Option<(i32, String)>,
}

impl Reply {
    pub(super) fn read(reply: &Document) -> Self {
        let troubles = reply.get_array("writeErrors").map(|errors| errors.iter().filter_map(trouble).collect());
        let concern = reply.get_document("writeConcernError").ok().map(|error| {
            let text = error.get_str("errmsg").unwrap_or("the write concern is not met");
            (code(error), text.to_owned())
        });
        Self { troubles: troubles.unwrap_or_default(), new: reply.get_array("upserted").map_or(0, Vec::len), concern }
    }
}

fn trouble(error: &Bson) -> Option<(usize, Trouble)> {
    let error = error.as_document()?;
    let place = usize::try_from(as_integer(error.get("index")?)?).ok()?;
    let (code, text) = (code(error), error.get_str("errmsg").unwrap_or_default());
    let by_id = match error.get_document("keyPattern") {
        Ok(pattern) => pattern.keys().eq(["_id"]),
        // Servers before 4.4 say it in words only.
        Err(_) => text.contains("index: _id_"),
    };
    Some((place, if code == DUPLICATE && by_id { Trouble::There } else { Trouble::Code(code, text.to_owned()) }))
}

const DUPLICATE: i32 = 11_000;

fn code(error: &Document) -> i32 {
    error.get("code").and_then(as_integer).and_then(|code| i32::try_from(code).ok()).unwrap_or_default()
}

/// Servers write whole numbers in all the forms that there are.
fn as_integer(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(value) => Some(i64::from(*value)),
        Bson::Int64(value) => Some(*value),
        #[allow(clippy::cast_possible_truncation, reason = "whole numbers far below 2^53")]
        Bson::Double(value) => Some(*value as i64),
        _ => None,
    }
}
