//! Records and events: one JSON object with the buckets `raw` (the API's answer, verbatim), `ext` (cloud-specific,
//! derived) and `com` (common to all clouds), in this order.
//!
//! They are written straight into the frame that carries them and read by borrowing from it; `raw` stays unparsed
//! bytes throughout.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::identity::Id;
use crate::subject::{Key, Role, Version};

/// The fields of `com` that every cloud plugin may set.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Common<'a> {
    /// `azure`, `gcp`, `mock`, ...
    pub cloud_type: &'a str,
    /// The type in the common vocabulary (`compute`, `firewall_rule`, ...), or null where there is none.
    pub record_type: Option<&'a str>,
    /// The cloud's own id of the resource, wherever it gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<&'a str>,
}

/// Who made a record or event: the fields that stand in every `com`, prepared once for many records.
#[derive(Debug, Clone)]
pub struct Origin {
    suffix: Vec<u8>,
}

impl Origin {
    /// The fields `audit_key`, `audit_version`, `origin_key`, `origin_class`, `origin_worker`, `origin_type`.
    #[must_use]
    pub fn new(audit: &Key, version: &Version, plugin: &Key, class: &str, role: Role) -> Self {
        Self { suffix: worker_fields(audit, version, "origin", plugin, class, role) }
    }

    /// The same for records of permanent lifetime, which are the same in every version, like the events of an
    /// activity log: `com.lifetime` is [`PERMANENT`]. Stores that remove old versions know them by it; their ids are
    /// made by [`IdMaker::of_permanent_records`](crate::identity::IdMaker::of_permanent_records).
    #[must_use]
    pub fn permanent(mut self) -> Self {
        write_field(&mut self.suffix, "lifetime", PERMANENT);
        self
    }
}

/// What `com.lifetime` says of records of permanent lifetime. Others, which are of their version, have no such field.
pub const PERMANENT: &str = "permanent";

/// The store or alert that a document is written for: the `target_*` fields of `com`, prepared once.
#[derive(Debug, Clone)]
pub struct Target {
    suffix: Vec<u8>,
}

impl Target {
    /// The fields `target_key`, `target_class`, `target_worker`, `target_type`.
    #[must_use]
    pub fn new(audit: &Key, plugin: &Key, class: &str, role: Role) -> Self {
        Self { suffix: plugin_fields(audit, "target", plugin, class, role) }
    }
}

fn worker_fields(audit: &Key, version: &Version, side: &str, plugin: &Key, class: &str, role: Role) -> Vec<u8> {
    let mut fields = Vec::with_capacity(256);
    write_field(&mut fields, "audit_key", audit.as_str());
    write_field(&mut fields, "audit_version", version.as_str());
    fields.extend(plugin_fields(audit, side, plugin, class, role));
    fields
}

fn plugin_fields(audit: &Key, side: &str, plugin: &Key, class: &str, role: Role) -> Vec<u8> {
    let short_class = class.rsplit('.').next().unwrap_or(class);
    let mut fields = Vec::with_capacity(192);
    write_field(&mut fields, &format!("{side}_key"), plugin.as_str());
    write_field(&mut fields, &format!("{side}_class"), short_class);
    write_field(&mut fields, &format!("{side}_worker"), &format!("{audit}_{plugin}"));
    write_field(&mut fields, &format!("{side}_type"), role.as_str());
    fields
}

/// Appends `,"name":"value"`.
fn write_field(buffer: &mut Vec<u8>, name: &str, value: &str) {
    buffer.extend_from_slice(b",\"");
    buffer.extend_from_slice(name.as_bytes());
    buffer.extend_from_slice(b"\":");
    write_string(buffer, value);
}

fn write_string(buffer: &mut Vec<u8>, value: &str) {
    // Writing a string as JSON into memory cannot fail.
    let _ = serde_json::to_writer(&mut *buffer, value);
}

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A bucket could not be made into JSON.
    #[error("cannot write the record as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// `com` is not an object.
    #[error("the bucket `com` of a record must be an object")]
    NotAnObject,
}

/// Who a record is, as its collector says.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The record's id.
    pub id: Id,
    /// The cloud's own id of the resource (Azure: lower-cased) plus a discriminator where one resource gives several
    /// records.
    pub key: &'a str,
}

/// Appends one record, without a line break. On an error the buffer is as it was.
///
/// `com` must serialise as an object; `id`, `key` and the fields of the origin are added to it.
///
/// # Errors
/// See [`WriteError`].
pub fn write_record<E: Serialize, C: Serialize>(
    buffer: &mut Vec<u8>,
    identity: Identity<'_>,
    raw: Option<&RawValue>,
    ext: &E,
    com: &C,
    origin: &Origin,
) -> Result<(), WriteError> {
    let start = buffer.len();
    buffer.extend_from_slice(b"{\"raw\":");
    match raw {
        Some(raw) => write_raw(buffer, raw),
        None => buffer.extend_from_slice(b"null"),
    }
    let written = write_ext_and_com(buffer, ext, com)
        .and_then(|()| end_com(buffer, |buffer| write_identity(buffer, identity, origin)));
    written.inspect_err(|_| buffer.truncate(start))
}

/// Appends one event, without a line break: like [`write_record`], but an event has no `raw`. `com` carries the
/// event's own `id`.
///
/// # Errors
/// See [`WriteError`].
pub fn write_event<E: Serialize, C: Serialize>(
    buffer: &mut Vec<u8>,
    ext: &E,
    com: &C,
    origin: &Origin,
) -> Result<(), WriteError> {
    let start = buffer.len();
    let bare = buffer.len();
    write_ext_and_com(buffer, ext, com)
        .and_then(|()| {
            if let Some(first) = buffer.get_mut(bare) {
                *first = b'{'; // in place of the comma behind a `raw`
            }
            end_com(buffer, |buffer| buffer.extend_from_slice(&origin.suffix))
        })
        .inspect_err(|_| buffer.truncate(start))
}

/// Appends a record or event as it is stored: the same with the fields of its target in `com`.
///
/// # Errors
/// [`WriteError::NotAnObject`] when the record's `com` is not an object.
pub fn write_document(buffer: &mut Vec<u8>, record: &RecordView<'_>, target: &Target) -> Result<(), WriteError> {
    let start = buffer.len();
    buffer.push(b'{');
    let buckets = [("raw", record.raw), ("ext", record.ext), ("com", record.com)];
    for (name, bucket) in buckets {
        let Some(bucket) = bucket else { continue };
        if buffer.len() > start + 1 {
            buffer.push(b',');
        }
        buffer.push(b'"');
        buffer.extend_from_slice(name.as_bytes());
        buffer.extend_from_slice(b"\":");
        buffer.extend_from_slice(bucket.get().as_bytes());
    }
    end_com(buffer, |buffer| buffer.extend_from_slice(&target.suffix)).inspect_err(|_| buffer.truncate(start))
}

/// Appends the API's text on one line: white space between tokens may go, every token stays as it is.
fn write_raw(buffer: &mut Vec<u8>, raw: &RawValue) {
    let text = raw.get().as_bytes();
    // A line break can only stand between tokens: inside of strings JSON has it escaped.
    if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        buffer.extend_from_slice(text);
        return;
    }
    let (mut in_string, mut escaped) = (false, false);
    for &byte in text {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        buffer.push(byte);
    }
}

fn write_ext_and_com<E: Serialize, C: Serialize>(buffer: &mut Vec<u8>, ext: &E, com: &C) -> Result<(), WriteError> {
    buffer.extend_from_slice(b",\"ext\":");
    serde_json::to_writer(&mut *buffer, ext)?;
    buffer.extend_from_slice(b",\"com\":");
    serde_json::to_writer(&mut *buffer, com)?;
    Ok(())
}

fn write_identity(buffer: &mut Vec<u8>, identity: Identity<'_>, origin: &Origin) {
    buffer.extend_from_slice(b",\"id\":\"");
    buffer.extend_from_slice(&identity.id.hex());
    buffer.extend_from_slice(b"\",\"key\":");
    write_string(buffer, identity.key);
    buffer.extend_from_slice(&origin.suffix);
}

/// Adds fields (each with a leading comma) to the object that ends the buffer, and closes the record.
fn end_com(buffer: &mut Vec<u8>, add: impl FnOnce(&mut Vec<u8>)) -> Result<(), WriteError> {
    if buffer.pop() != Some(b'}') {
        return Err(WriteError::NotAnObject);
    }
    let fields = buffer.len();
    let empty = buffer.last() == Some(&b'{');
    add(buffer);
    if empty && buffer.len() > fields {
        buffer.remove(fields);
    }
    buffer.extend_from_slice(b"}}");
    Ok(())
}

/// A record or event as it is read: its buckets, unparsed. A bucket that is absent or null is `None`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct RecordView<'a> {
    /// The API's answer.
    #[serde(borrow, default)]
    pub raw: Option<&'a RawValue>,
    /// Cloud-specific, derived.
    #[serde(borrow, default)]
    pub ext: Option<&'a RawValue>,
    /// Common to all clouds.
    #[serde(borrow, default)]
    pub com: Option<&'a RawValue>,
}

impl<'a> RecordView<'a> {
    /// Splits the text of a record into its buckets.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn parse(text: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// The fields of `com` that every stage needs.
    ///
    /// # Errors
    /// When `com` is missing, or one of these fields is not of its type.
    pub fn head(&self) -> serde_json::Result<ComHead<'a>> {
        match self.com {
            Some(com) => serde_json::from_str(com.get()),
            None => Err(serde::de::Error::missing_field("com")),
        }
    }

    /// The id alone: what a store needs of a record.
    ///
    /// # Errors
    /// When `com.id` is missing or not an id.
    pub fn id(&self) -> serde_json::Result<Id> {
        #[derive(Deserialize)]
        struct JustId<'a> {
            #[serde(borrow)]
            id: Cow<'a, str>,
        }
        let Some(com) = self.com else { return Err(serde::de::Error::missing_field("com")) };
        let com: JustId<'_> = serde_json::from_str(com.get())?;
        Id::parse(&com.id).ok_or_else(|| serde::de::Error::custom("com.id is not an id of 32 hexadecimal digits"))
    }
}

/// A text that borrows where it can.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The fields of `com` that choose what is done with a record.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ComHead<'a> {
    /// The record's id.
    #[serde(borrow, default)]
    pub id: Option<Text<'a>>,
    /// The record's key, of which its events' ids are made.
    #[serde(borrow, default)]
    pub key: Option<Text<'a>>,
    /// `azure`, `gcp`, ...
    #[serde(borrow, default)]
    pub cloud_type: Option<Text<'a>>,
    /// The type in the common vocabulary.
    #[serde(borrow, default)]
    pub record_type: Option<Text<'a>>,
    /// The cloud's own id of the resource.
    #[serde(borrow, default)]
    pub reference: Option<Text<'a>>,
    /// The plugin that made it.
    #[serde(borrow, default)]
    pub origin_key: Option<Text<'a>>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::IdMaker;

    fn written(raw: Option<&str>, com: &Value) -> Result<String, WriteError> {
        let (audit, plugin) = (Key::new("audit").unwrap(), Key::new("plugin").unwrap());
        let version = Version::new("20260131_235959").unwrap();
        let id = IdMaker::of_records(&audit, &version, &plugin).id(&["t", "k"]);
        let raw = raw.map(|raw| RawValue::from_string(raw.to_owned()).unwrap());
        let origin = Origin::new(&audit, &version, &plugin, "cloudmarker.clouds.mockcloud.MockCloud", Role::Cloud);
        let mut buffer = b"before".to_vec();
        write_record(&mut buffer, Identity { id, key: "k\"" }, raw.as_deref(), &json!({}), com, &origin)?;
        Ok(String::from_utf8(buffer[6..].to_vec()).unwrap())
    }

    #[test]
    fn a_record_has_its_buckets_in_order_and_its_origin() {
        let text = written(Some("{\"a\":1.0}"), &json!({"x": 1})).unwrap();
        assert!(text.starts_with("{\"raw\":{\"a\":1.0},\"ext\":{},\"com\":{\"x\":1,\"id\":\""), "{text}");
        assert!(
            text.ends_with(
                "\"key\":\"k\\\"\",\"audit_key\":\"audit\",\"audit_version\":\"20260131_235959\",\
                 \"origin_key\":\"plugin\",\"origin_class\":\"MockCloud\",\"origin_worker\":\"audit_plugin\",\
                 \"origin_type\":\"cloud\"}}"
            ),
            "{text}"
        );
    }

    #[test]
    fn an_empty_com_and_no_raw_are_fine() {
        let value: Value = serde_json::from_str(&written(None, &json!({})).unwrap()).unwrap();
        assert_eq!(value["raw"], Value::Null);
        assert_eq!(value["com"]["origin_key"], "plugin");
    }

    #[test]
    fn what_cannot_be_a_record_is_refused() {
        assert!(matches!(written(None, &json!([])), Err(WriteError::NotAnObject)));
    }

    #[test]
    fn a_raw_of_many_lines_stands_on_one() {
        let text = written(Some("{\n \"a b\" : \"c \\\" \\\\\",\r\n\t\"d\": 1.50\n}"), &json!({})).unwrap();
        assert!(text.starts_with("{\"raw\":{\"a b\":\"c \\\" \\\\\",\"d\":1.50},"), "{text}");
    }

    #[test]
    fn a_document_is_the_record_with_its_target() {
        let text = written(Some("[1]"), &json!({})).unwrap();
        let view = RecordView::parse(text.as_bytes()).unwrap();
        assert_eq!(view.head().unwrap().key.as_deref(), Some("k\""));
        assert!(view.id().is_ok());
        let target = Target::new(&Key::new("audit").unwrap(), &Key::new("s").unwrap(), "a.FileStore", Role::Store);
        let mut document = Vec::new();
        write_document(&mut document, &view, &target).unwrap();
        let mut expected: Value = serde_json::from_str(&text).unwrap();
        for (name, value) in [("key", "s"), ("class", "FileStore"), ("worker", "audit_s"), ("type", "store")] {
            expected["com"][format!("target_{name}")] = value.into();
        }
        assert_eq!(serde_json::from_slice::<Value>(&document).unwrap(), expected);
    }

    #[test]
    fn a_permanent_record_says_so() {
        let (audit, plugin) = (Key::new("audit").unwrap(), Key::new("plugin").unwrap());
        let version = Version::new("20260131_235959").unwrap();
        let id = IdMaker::of_permanent_records(&audit).id(&["t", "k"]);
        let origin = Origin::new(&audit, &version, &plugin, "AwsCloudTrail", Role::Cloud).permanent();
        let mut buffer = Vec::new();
        write_record(&mut buffer, Identity { id, key: "k" }, None, &json!({}), &json!({}), &origin).unwrap();
        let record: Value = serde_json::from_slice(&buffer).unwrap();
        assert_eq!(record["com"]["lifetime"], PERMANENT);
        assert_eq!(record["com"]["id"], id.to_string());
    }

    #[test]
    fn an_event_has_no_raw() {
        let (audit, plugin) = (Key::new("audit").unwrap(), Key::new("plugin").unwrap());
        let version = Version::new("20260131_235959").unwrap();
        let origin = Origin::new(&audit, &version, &plugin, "MockEvent", Role::Event);
        let mut buffer = Vec::new();
        write_event(&mut buffer, &json!({"data": 3}), &json!({"id": "i"}), &origin).unwrap();
        let text = String::from_utf8(buffer).unwrap();
        assert!(text.starts_with("{\"ext\":{\"data\":3},\"com\":{\"id\":\"i\",\"audit_key\":\"audit\","), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["com"]["origin_type"], "event");
    }
}
