//! Frames: many records in one message, newline-delimited JSON, compressed where they cross a network.
//!
//! A broker moves messages, not bytes: packing multiplies its record rate by five, compressing cuts its work to a
//! quarter. A frame never spans units, so that a unit that is done again makes the same frames.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::bus::{Encoding, Message, Outgoing, header};
use crate::identity::Id;
use crate::subject::{Key, Role};

/// The most records in a frame.
pub const MAX_RECORDS: u32 = 128;
/// The size at which a frame is full, in bytes before compression. A larger record travels alone.
pub const FULL_BYTES: usize = 256 * 1024;
/// How long a frame that is not full waits for more records.
pub const MAX_AGE: Duration = Duration::from_millis(200);
/// The most that a frame may hold, in bytes before compression.
pub const MAX_RAW_BYTES: usize = 64 * 1024 * 1024;
/// The version of the form of records and messages.
pub const SCHEMA: &str = "1";

/// Records on their way into a message.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    body: Vec<u8>,
    records: u32,
    since: Option<Instant>,
}

impl FrameBuilder {
    /// Appends a record, which `write` writes as one line without its line break. After an error the frame is as it
    /// was.
    ///
    /// # Errors
    /// What `write` returns.
    pub fn push<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let start = self.body.len();
        write(&mut self.body).inspect_err(|_| self.body.truncate(start))?;
        self.body.push(b'\n');
        self.records += 1;
        if self.since.is_none() {
            self.since = Some(Instant::now());
        }
        Ok(())
    }

    /// Counts the last record out again, after its line was cut off: it travels another way.
    pub fn unpush(&mut self) {
        self.body.pop();
        self.records = self.records.saturating_sub(1);
    }

    /// Whether the frame should travel now: full of records or bytes, or old.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.records >= MAX_RECORDS
            || self.body.len() >= FULL_BYTES
            || self.since.is_some_and(|since| since.elapsed() >= MAX_AGE)
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
        self.since = None;
        let capacity = self.body.len();
        let body = std::mem::replace(&mut self.body, Vec::with_capacity(capacity));
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
            builder.push(|body| serde_json::to_writer(body, &n)).unwrap();
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
        for n in 1..=MAX_RECORDS {
            assert!(!builder.is_due());
            builder.push(|body| serde_json::to_writer(body, &n)).unwrap();
        }
        assert!(builder.is_due());
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
