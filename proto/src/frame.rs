//! Frames: many records in one message, newline-delimited JSON, compressed where they cross a network.
//!
//! A broker moves messages, not bytes: packing multiplies its record rate by five, compressing cuts its work to a
//! quarter. A frame never spans units and is cut by what is in it, never by the clock, so that a unit that is done again
//! makes the same frames.

use bytes::Bytes;

use crate::bus::{Encoding, Message, Outgoing, header};
use crate::identity::Id;
use crate::subject::{Key, Role};

/// The most records in a frame.
pub const MAX_RECORDS: u32 = 128;
/// The size at which a frame is full, in bytes before compression. A larger record travels alone.
pub const FULL_BYTES: usize = 256 * 1024;
/// The most that a frame may hold, in bytes before compression.
pub const MAX_RAW_BYTES: usize = 64 * 1024 * 1024;
/// The version of the form of records and messages.
pub const SCHEMA: &str = "1";

/// Records on their way into a message.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    body: Vec<u8>,
    records: u32,
    /// The size of the frame before: the next one is about as large.
    expected: usize,
}

impl FrameBuilder {
    /// Appends a record: one line without its line break.
    pub fn push(&mut self, line: &[u8]) {
        if self.records == 0 {
            self.body.reserve(self.expected.max(line.len() + 1));
        }
        self.body.extend_from_slice(line);
        self.body.push(b'\n');
        self.records += 1;
    }

    /// Whether the frame should travel before a line of so many bytes is added: a larger record travels alone.
    #[must_use]
    pub fn is_due_before(&self, line: usize) -> bool {
        self.records >= MAX_RECORDS || (self.records > 0 && self.body.len() + line > FULL_BYTES)
    }

    /// The records in the frame.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Takes the frame as a message, and begins a new one. `None` when there is no record in it.
    pub fn take(&mut self, subject: String, plugin: &Key, unit: &str, encoding: Encoding) -> Option<Outgoing> {
        if self.records == 0 {
            return None;
        }
        let records = std::mem::take(&mut self.records);
        let body = std::mem::take(&mut self.body);
        self.expected = body.len();
        let digest = Id::digest(&body);
        let raw_bytes = body.len();
        let payload = encode(body, encoding);
        let role = Role::Cloud;
        let mut message = Outgoing::new(subject, payload).with_id(format!("{role}:{plugin}:{unit}:{digest}"));
        message.headers.push((header::CONTENT_TYPE, "application/x-ndjson".into()));
        message.headers.push((header::ENCODING, encoding.as_str().into()));
        message.headers.push((header::COUNT, records.to_string().into()));
        message.headers.push((header::RAW_BYTES, raw_bytes.to_string().into()));
        message.headers.push((header::SCHEMA, SCHEMA.into()));
        Some(message)
    }
}

/// Whether a record that travels alone fits into a message of so many bytes.
#[must_use]
pub fn fits(line: &[u8], encoding: Encoding, max_bytes: usize) -> bool {
    line.len() <= max_bytes
        || match encoding {
            Encoding::Identity => false,
            Encoding::Lz4 => line.len() <= MAX_RAW_BYTES && lz4_flex::compress_prepend_size(line).len() <= max_bytes,
        }
}

fn encode(body: Vec<u8>, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Identity => body.into(),
        Encoding::Lz4 => lz4_flex::compress_prepend_size(&body).into(),
    }
}

/// Why a frame cannot be read. It goes to the dead letters whole.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The encoding is not one of ours.
    #[error("the frame's encoding {0:?} is unknown; this program reads identity and lz4")]
    UnknownEncoding(String),
    /// The frame was made by a program that writes another form.
    #[error("the frame's schema is {0:?}; this program reads {SCHEMA}: update the older one of the two")]
    OtherSchema(String),
    /// It would be larger than [`MAX_RAW_BYTES`].
    #[error("the frame would be {0} bytes; at most {MAX_RAW_BYTES} are read")]
    TooLarge(usize),
    /// It cannot be decompressed.
    #[error("the frame cannot be decompressed: {0}")]
    Broken(String),
}

/// The lines of a frame: its records, each without its line break.
///
/// # Errors
/// See [`FrameError`].
pub fn open(message: &Message) -> Result<Bytes, FrameError> {
    match message.header(header::SCHEMA) {
        None | Some(SCHEMA) => {}
        Some(other) => return Err(FrameError::OtherSchema(other.to_owned())),
    }
    match message.header(header::ENCODING) {
        None | Some("identity") => Ok(message.payload.clone()),
        Some("lz4") => decompress(&message.payload),
        Some(other) => Err(FrameError::UnknownEncoding(other.to_owned())),
    }
}

fn decompress(payload: &[u8]) -> Result<Bytes, FrameError> {
    let (size, block) = lz4_flex::block::uncompressed_size(payload).map_err(|error| broken(&error))?;
    if size > MAX_RAW_BYTES {
        return Err(FrameError::TooLarge(size));
    }
    Ok(lz4_flex::block::decompress(block, size).map_err(|error| broken(&error))?.into())
}

fn broken(error: &lz4_flex::block::DecompressError) -> FrameError {
    FrameError::Broken(error.to_string())
}

/// The records of an opened frame.
pub fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(encoding: Encoding, records: u32) -> Message {
        let mut builder = FrameBuilder::default();
        for n in 0..records {
            builder.push(n.to_string().as_bytes());
        }
        let message = builder.take("cm.record.a.v.p".into(), &Key::new("p").unwrap(), "u", encoding).unwrap();
        assert_eq!(builder.records(), 0);
        message.into_message()
    }

    #[test]
    fn a_frame_opens_to_what_was_packed() {
        for encoding in [Encoding::Identity, Encoding::Lz4] {
            let message = frame(encoding, 100);
            assert_eq!(message.header(header::COUNT), Some("100"));
            let body = open(&message).unwrap();
            assert_eq!(lines(&body).count(), 100);
            assert_eq!(lines(&body).last(), Some(b"99".as_slice()));
        }
    }

    #[test]
    fn the_same_records_are_the_same_message_whatever_their_encoding() {
        let (plain, packed) = (frame(Encoding::Identity, 3), frame(Encoding::Lz4, 3));
        assert_eq!(plain.header(header::MESSAGE_ID), packed.header(header::MESSAGE_ID));
        assert_ne!(plain.header(header::MESSAGE_ID), frame(Encoding::Identity, 4).header(header::MESSAGE_ID));
    }

    #[test]
    fn a_frame_is_due_when_it_is_full() {
        let mut builder = FrameBuilder::default();
        for n in 0..MAX_RECORDS {
            assert!(!builder.is_due_before(1), "{n}");
            builder.push(b"1");
        }
        assert!(builder.is_due_before(1));
    }

    #[test]
    fn a_large_record_travels_alone() {
        let mut builder = FrameBuilder::default();
        assert!(!builder.is_due_before(FULL_BYTES * 2));
        builder.push(b"1");
        assert!(builder.is_due_before(FULL_BYTES * 2) && !builder.is_due_before(FULL_BYTES / 2));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let mut bomb = frame(Encoding::Lz4, 3);
        bomb.payload = [&u32::MAX.to_le_bytes(), &bomb.payload[4..]].concat().into();
        assert!(matches!(open(&bomb), Err(FrameError::TooLarge(_))));
        let mut broken = frame(Encoding::Lz4, 100);
        broken.payload = broken.payload.slice(..broken.payload.len() / 2);
        assert!(matches!(open(&broken), Err(FrameError::Broken(_))));
        let mut other = frame(Encoding::Identity, 3);
        other.set_header(header::ENCODING, "brotli".into());
        assert!(matches!(open(&other), Err(FrameError::UnknownEncoding(_))));
        other.set_header(header::SCHEMA, "2".into());
        assert!(matches!(open(&other), Err(FrameError::OtherSchema(_))));
    }
}
