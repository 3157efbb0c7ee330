//! Dead letters: what could not be processed, kept whole, so that it can be sent back.
//!
//! A letter is plain JSON as long as it is small enough to be read by people. A larger one is the same JSON, compressed
//! (`Cm-Encoding: zstd`): better than frames are, so that a letter carries whatever a frame has brought.

use std::io::Read;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, BusError, BusErrorKind, Message, Outgoing, header};
use crate::frame;
use crate::identity::Id;
use crate::plan::PluginSpec;
use crate::subject::{self, Key, Role, Version};

/// A message that could not be processed, on `cm.dead…`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The subject of the message.
    pub subject: String,
    /// Its sequence, when it came from a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Why.
    pub reason: String,
    /// How often it was tried.
    pub tries: u64,
    /// The message as text; its beginning, if the broker cannot carry all of it.
    pub message: String,
    /// The length of the whole message, in bytes.
    pub bytes: usize,
}

/// A dead letter that an operator sent back, on `cm.retry…`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Retry {
    /// The letter.
    pub letter: DeadLetter,
    /// The plugin that is to take it, as the plan of its version has it.
    pub plugin: PluginSpec,
}

/// Up to this size a letter is plain JSON, in bytes; and so much is kept of a message that is too large for any letter.
const READABLE: usize = 256 * 1024;
/// Room for the headers and the subject, in bytes.
const HEADROOM: usize = 4 * 1024;
/// The most that a letter may be when it is decompressed: all signs of a frame's text may be escaped.
const MAX_RAW_BYTES: usize = 2 * frame::MAX_RAW_BYTES + READABLE;
const ZSTD: &str = "zstd";
const LEVEL: i32 = 3;

impl DeadLetter {
    /// A dead letter of a message's body.
    #[must_use]
    pub fn new(subject: &str, seq: Option<u64>, reason: String, tries: u64, body: &[u8]) -> Self {
        let kept = if body.len() > frame::MAX_RAW_BYTES { &body[..READABLE] } else { body };
        Self {
            subject: subject.to_owned(),
            seq,
            reason,
            tries,
            message: String::from_utf8_lossy(kept).into_owned(),
            bytes: body.len(),
        }
    }

    /// Whether it has the whole message.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.message.len() == self.bytes
    }

    /// The letter as a message that this bus takes: with the beginning of its message only, if all of it is too large.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn outgoing(&self, bus: &dyn Bus, subject: String) -> Result<Outgoing, BusError> {
        match outgoing(bus, subject.clone(), self) {
            Err(error) if error.kind() == BusErrorKind::TooLarge => {
                let mut end = self.message.len().min(READABLE);
                while !self.message.is_char_boundary(end) {
                    end -= 1;
                }
                let cut = Self { message: self.message[..end].to_owned(), ..self.clone() };
                outgoing(bus, subject, &cut)
            }
            made => made,
        }
    }

    /// Reads a letter.
    ///
    /// # Errors
    /// When the message is none.
    pub fn read(message: &Message) -> Result<Self, BusError> {
        read(message)
    }
}

impl Retry {
    /// The letter that is sent back, as a message that this bus takes.
    ///
    /// # Errors
    /// [`BusErrorKind::TooLarge`] when there is none.
    pub fn outgoing(&self, bus: &dyn Bus, subject: String) -> Result<Outgoing, BusError> {
        outgoing(bus, subject, self)
    }

    /// Reads a letter that was sent back.
    ///
    /// # Errors
    /// When the message is none.
    pub fn read(message: &Message) -> Result<Self, BusError> {
        read(message)
    }
}

fn outgoing<T: Serialize>(bus: &dyn Bus, subject: String, body: &T) -> Result<Outgoing, BusError> {
    let most = bus.max_message().saturating_sub(HEADROOM);
    let text = serde_json::to_vec(body).map_err(BusError::json)?;
    if text.len() <= READABLE.min(most) {
        return Ok(Outgoing::json_text(subject, text.into()));
    }
    let (raw_bytes, packed) = (text.len(), zstd::bulk::compress(&text, LEVEL).map_err(BusError::corrupt)?);
    if packed.len() > most {
        let message = format!(
            "a letter to {subject} is {} bytes when it is compressed, and the bus takes {most}: raise max_payload in \
             the NATS server's configuration",
            packed.len()
        );
        return Err(BusError::new(BusErrorKind::TooLarge, message));
    }
    let mut message = Outgoing::json_text(subject, packed.into());
    for (name, value) in &mut message.headers {
        match *name {
            header::ENCODING => *value = ZSTD.into(),
            header::RAW_BYTES => *value = raw_bytes.to_string().into(),
            _ => {}
        }
    }
    Ok(message)
}

fn read<T: DeserializeOwned>(message: &Message) -> Result<T, BusError> {
    if message.header(header::ENCODING) != Some(ZSTD) {
        return serde_json::from_slice(&message.payload).map_err(BusError::json);
    }
    let decoder = zstd::stream::read::Decoder::new(&*message.payload).map_err(BusError::corrupt)?;
    let mut text = Vec::new();
    let read = decoder.take(MAX_RAW_BYTES as u64 + 1).read_to_end(&mut text).map_err(BusError::corrupt)?;
    if read > MAX_RAW_BYTES {
        return Err(BusError::corrupt(format!("a letter of more than {MAX_RAW_BYTES} bytes")));
    }
    serde_json::from_slice(&text).map_err(BusError::json)
}

/// Puts a message among the dead letters of a plugin. Said twice, it is kept once.
///
/// # Errors
/// When the broker refuses it or is away for too long: then the message must not be acknowledged.
pub async fn bury(
    bus: &dyn Bus,
    audit: &Key,
    version: &Version,
    role: Role,
    plugin: &Key,
    letter: &DeadLetter,
) -> Result<(), BusError> {
    let subject = subject::dead(audit, version, role, plugin);
    let digest = Id::digest(letter.message.as_bytes());
    let id = format!("dead:{}:{role}:{plugin}:{}:{digest}", letter.subject, letter.seq.unwrap_or(0));
    tracing::warn!(%audit, %version, %role, %plugin, reason = letter.reason, "a message could not be processed");
    bus.publish(letter.outgoing(bus, subject)?.with_id(id)).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::memory::{MemoryBus, MemoryOptions};

    fn bus() -> MemoryBus {
        MemoryBus::new(MemoryOptions { max_message: 1024 * 1024, ..MemoryOptions::default() })
    }

    /// Text that hardly gets smaller, as base64 is.
    fn dense(bytes: usize) -> String {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut state = 88_172_645_463_325_252_u64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(digits[(state % 64) as usize])
        };
        (0..bytes).map(next).collect()
    }

    fn letter(body: &str) -> DeadLetter {
        DeadLetter::new("cm.record.a.v.p", Some(7), "no".to_owned(), 1, body.as_bytes())
    }

    fn sent(letter: &DeadLetter) -> Message {
        let message = letter.outgoing(&bus(), "cm.dead.a.v.store.p".to_owned()).unwrap().into_message();
        assert!(message.payload.len() < 1024 * 1024 - 1024, "{}", message.payload.len());
        message
    }

    #[test]
    fn a_small_letter_is_plain_and_a_large_one_whole() {
        let small = sent(&letter("{\"a\":1}"));
        assert_eq!(small.header(header::ENCODING), Some("identity"));
        assert!(String::from_utf8_lossy(&small.payload).contains(r#""message":"{\"a\":1}""#));
        // What just fits into a frame uncompressed, and ten times as much that gets smaller.
        let quoted = format!("{{\"a\":\"{}\"}}", dense(1024 * 1024 - 9 * 1024));
        let repeated = format!("[{}1]", r#"{"name":"value","number":12},"#.repeat(350_000));
        for body in [quoted, repeated] {
            let message = sent(&letter(&body));
            assert_eq!(message.header(header::ENCODING), Some("zstd"));
            let read = DeadLetter::read(&message).unwrap();
            assert!(read.is_whole() && read.message == body && read.seq == Some(7));
        }
    }

    #[test]
    fn what_no_letter_can_carry_is_cut() {
        let body = dense(2 * 1024 * 1024);
        let read = DeadLetter::read(&sent(&letter(&body))).unwrap();
        assert!(!read.is_whole() && read.bytes == body.len() && read.message.len() == READABLE);
        assert!(body.starts_with(&read.message));
        // Between two bytes of a letter of two.
        let body = format!("a{}", "é".repeat(33 * 1024 * 1024));
        let read = DeadLetter::read(&sent(&letter(&body))).unwrap();
        assert!(!read.is_whole() && read.bytes == body.len());
    }

    #[test]
    fn what_is_no_letter_is_an_error() {
        let mut message = sent(&letter(&dense(500_000)));
        message.payload = message.payload.slice(..message.payload.len() / 2);
        DeadLetter::read(&message).unwrap_err();
        let bomb = zstd::bulk::compress(&vec![b' '; MAX_RAW_BYTES + 10], 1).unwrap();
        message.payload = bomb.into();
        assert!(DeadLetter::read(&message).unwrap_err().to_string().contains("more than"));
    }
}
