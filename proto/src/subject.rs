//! Subjects, streams and the names that stand in them. Nobody else builds or parses a subject.
//!
//! An audit key, a version, a plugin key and a pool are each one token of a subject, so that anybody can subscribe
//! to exactly what they want: `cm.event.prod.*.firewallruleevent`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest token, in bytes, after encoding.
pub const MAX_TOKEN: usize = 90;

/// A name that the configuration gives (an audit, a plugin, a pool), together with its form as a token of subjects,
/// durable names, KV keys and file names.
///
/// A token keeps `[A-Za-z0-9_-]` and writes every other byte as `=XX`; the empty name is `=`.
///
/// ```
/// use proto::subject::Key;
/// let key = Key::new("my.audit 1").unwrap();
/// assert_eq!(key.as_str(), "my.audit 1");
/// assert_eq!(key.token(), "my=2Eaudit=201");
/// assert_eq!(Key::from_token("my=2Eaudit=201").unwrap(), key);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    name: Arc<str>,
    token: Arc<str>,
}

/// Why a name cannot be a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The token would be longer than [`MAX_TOKEN`].
    #[error(
        "the name {name:?} is too long: {length} bytes as a part of a subject, at most {MAX_TOKEN} are allowed; choose a shorter one"
    )]
    TooLong {
        /// The name.
        name: String,
        /// The length of its token, in bytes.
        length: usize,
    },
    /// The text is not the token of any name.
    #[error("{0:?} is not a token of a subject")]
    NotAToken(String),
}

impl Key {
    /// The key of a name.
    ///
    /// # Errors
    /// [`KeyError::TooLong`] when its token would be longer than [`MAX_TOKEN`] bytes.
    pub fn new(name: &str) -> Result<Self, KeyError> {
        let token = encode(name);
        if token.len() > MAX_TOKEN {
            return Err(KeyError::TooLong { name: name.to_owned(), length: token.len() });
        }
        Ok(Self { name: name.into(), token: token.into() })
    }

    /// The key that has this token.
    ///
    /// # Errors
    /// [`KeyError::NotAToken`] when no name is written so.
    pub fn from_token(token: &str) -> Result<Self, KeyError> {
        decode(token)
            .and_then(|name| Self::new(&name).ok())
            .filter(|key| key.token() == token)
            .ok_or_else(|| KeyError::NotAToken(token.to_owned()))
    }

    /// The name as the configuration has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name as a token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).map_err(serde::de::Error::custom)
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn encode(name: &str) -> String {
    if name.is_empty() {
        return "=".to_owned();
    }
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        if is_plain(byte) {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02X}"));
        }
    }
    token
}

fn decode(token: &str) -> Option<String> {
    if token == "=" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else if is_plain(byte) {
            bytes.push(byte);
        } else {
            return None;
        }
    }
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}

/// The run that a record belongs to: `YYYYMMDD_HHMMSS`, UTC. It is its own token.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Version(Arc<str>);

/// The text is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an audit version; a version looks like 20260131_235959 (UTC)")]
pub struct VersionError(String);

impl Version {
    /// Reads a version.
    ///
    /// # Errors
    /// [`VersionError`] when the text is not eight digits, an underscore and six digits.
    ///
    /// ```
    /// use proto::subject::Version;
    /// assert!(Version::new("20260131_235959").is_ok());
    /// assert!(Version::new("today").is_err());
    /// ```
    pub fn new(text: &str) -> Result<Self, VersionError> {
        let bytes = text.as_bytes();
        let well_formed = bytes.len() == 15
            && bytes.iter().enumerate().all(|(at, byte)| if at == 8 { *byte == b'_' } else { byte.is_ascii_digit() });
        if well_formed { Ok(Self(text.into())) } else { Err(VersionError(text.to_owned())) }
    }

    /// The version of a moment.
    #[must_use]
    pub fn at(moment: jiff::Timestamp) -> Self {
        Self(moment.strftime("%Y%m%d_%H%M%S").to_string().into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// What a plugin does in an audit. One plugin may have two roles in one audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Makes records.
    Cloud,
    /// Makes events of records.
    Event,
    /// Keeps records.
    Store,
    /// Keeps events, or tells people of them.
    Alert,
}

impl Role {
    /// The word that stands in subjects, records and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Event => "event",
            Self::Store => "store",
            Self::Alert => "alert",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The streams of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Units of collecting: a work queue.
    Units,
    /// Frames of records.
    Records,
    /// Events, one a message.
    Events,
    /// What the stages say about a run.
    Status,
    /// What could not be processed, and what an operator sent back.
    Dead,
}

impl Stream {
    /// All streams.
    pub const ALL: [Self; 5] = [Self::Units, Self::Records, Self::Events, Self::Status, Self::Dead];

    /// The name at the broker.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Units => "CM_UNITS",
            Self::Records => "CM_RECORDS",
            Self::Events => "CM_EVENTS",
            Self::Status => "CM_STATUS",
            Self::Dead => "CM_DEAD",
        }
    }

    /// The filters of the subjects that the stream holds.
    #[must_use]
    pub fn subjects(self) -> &'static [&'static str] {
        match self {
            Self::Units => &["cm.unit.>"],
            Self::Records => &["cm.record.>"],
            Self::Events => &["cm.event.>"],
            Self::Status => &["cm.status.>"],
            Self::Dead => &["cm.dead.>", "cm.retry.>"],
        }
    }

    /// The stream that holds a subject.
    #[must_use]
    pub fn of(subject: &str) -> Option<Self> {
        Some(match subject.strip_prefix("cm.")?.split('.').next()? {
            "unit" => Self::Units,
            "record" => Self::Records,
            "event" => Self::Events,
            "status" => Self::Status,
            "dead" | "retry" => Self::Dead,
            _ => return None,
        })
    }
}

/// `cm.unit.<pool>.<audit>.<version>.<plugin>`: one unit of collecting.
#[must_use]
pub fn unit(pool: &Key, audit: &Key, version: &Version, plugin: &Key) -> String {
    format!("cm.unit.{}.{}.{version}.{}", pool.token(), audit.token(), plugin.token())
}

/// All units of a pool.
#[must_use]
pub fn units_of_pool(pool: &Key) -> String {
    format!("cm.unit.{}.>", pool.token())
}

/// All units of an audit's version, whatever their pool.
#[must_use]
pub fn units_of(audit: &Key, version: &Version) -> String {
    format!("cm.unit.*.{}.{version}.>", audit.token())
}

/// All units of a cloud plugin in an audit's version, whatever their pool.
#[must_use]
pub fn units_of_plugin(audit: &Key, version: &Version, plugin: &Key) -> String {
    format!("cm.unit.*.{}.{version}.{}", audit.token(), plugin.token())
}

/// `cm.record.<audit>.<version>.<plugin>`: a frame of records.
#[must_use]
pub fn record(audit: &Key, version: &Version, plugin: &Key) -> String {
    format!("cm.record.{}.{version}.{}", audit.token(), plugin.token())
}

/// All frames of an audit's version.
#[must_use]
pub fn records_of(audit: &Key, version: &Version) -> String {
    format!("cm.record.{}.{version}.>", audit.token())
}

/// `cm.event.<audit>.<version>.<plugin>`: one event.
#[must_use]
pub fn event(audit: &Key, version: &Version, plugin: &Key) -> String {
    format!("cm.event.{}.{version}.{}", audit.token(), plugin.token())
}

/// All events of an audit's version.
#[must_use]
pub fn events_of(audit: &Key, version: &Version) -> String {
    format!("cm.event.{}.{version}.>", audit.token())
}

/// `cm.status.<audit>.<version>.<kind>`: what a stage says about a run.
#[must_use]
pub fn status(audit: &Key, version: &Version, kind: &str) -> String {
    format!("cm.status.{}.{version}.{kind}", audit.token())
}

/// All that is said about an audit's version.
#[must_use]
pub fn status_of(audit: &Key, version: &Version) -> String {
    format!("cm.status.{}.{version}.>", audit.token())
}

/// `cm.dead.<audit>.<version>.<role>.<plugin>`: what could not be processed.
#[must_use]
pub fn dead(audit: &Key, version: &Version, role: Role, plugin: &Key) -> String {
    format!("cm.dead.{}.{version}.{role}.{}", audit.token(), plugin.token())
}

/// All dead letters of an audit's version.
#[must_use]
pub fn dead_of(audit: &Key, version: &Version) -> String {
    format!("cm.dead.{}.{version}.>", audit.token())
}

/// `cm.retry.<audit>.<version>.<role>.<plugin>`: a dead letter that an operator sent back.
#[must_use]
pub fn retry(audit: &Key, version: &Version, role: Role, plugin: &Key) -> String {
    format!("cm.retry.{}.{version}.{role}.{}", audit.token(), plugin.token())
}

/// The audit, version and plugin of a unit's, record's or event's subject.
///
/// ```
/// use proto::subject::{self, Key, Version};
/// let (audit, version, plugin) = (Key::new("a.b")?, Version::new("20260131_235959")?, Key::new("p")?);
/// let parsed = subject::parse(&subject::record(&audit, &version, &plugin));
/// assert_eq!(parsed, Some((audit, version, plugin)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn parse(subject: &str) -> Option<(Key, Version, Key)> {
    let mut tokens = subject.strip_prefix("cm.")?.split('.');
    match tokens.next()? {
        "unit" => {
            tokens.next()?;
        }
        "record" | "event" => {}
        _ => return None,
    }
    let audit = Key::from_token(tokens.next()?).ok()?;
    let version = Version::new(tokens.next()?).ok()?;
    let plugin = Key::from_token(tokens.next()?).ok()?;
    tokens.next().is_none().then_some((audit, version, plugin))
}

/// All dead letters that were sent back to the plugins of a role.
#[must_use]
pub fn retries_of(role: Role) -> String {
    format!("cm.retry.*.*.{role}.>")
}

/// The audit, version, role and plugin of a dead letter's subject, also of one that was sent back.
///
/// ```
/// use proto::subject::{self, Key, Role, Version};
/// let (audit, version, plugin) = (Key::new("a.b")?, Version::new("20260131_235959")?, Key::new("p")?);
/// for subject in [
///     subject::dead(&audit, &version, Role::Store, &plugin),
///     subject::retry(&audit, &version, Role::Store, &plugin),
/// ] {
///     let parsed = subject::parse_letter(&subject);
///     assert_eq!(parsed, Some((audit.clone(), version.clone(), Role::Store, plugin.clone())));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn parse_letter(subject: &str) -> Option<(Key, Version, Role, Key)> {
    let rest = subject.strip_prefix("cm.dead.").or_else(|| subject.strip_prefix("cm.retry."))?;
    let mut tokens = rest.split('.');
    let audit = Key::from_token(tokens.next()?).ok()?;
    let version = Version::new(tokens.next()?).ok()?;
    let (role, plugin) = parse_dead(&format!("cm.dead.{rest}"))?;
    Some((audit, version, role, plugin))
}

/// The audit and version of a status message's subject.
///
/// ```
/// use proto::subject::{self, Key, Version};
/// let (audit, version) = (Key::new("a.b")?, Version::new("20260131_235959")?);
/// let parsed = subject::parse_status(&subject::status(&audit, &version, "run_ended"));
/// assert_eq!(parsed, Some((audit, version)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn parse_status(subject: &str) -> Option<(Key, Version)> {
    let mut tokens = subject.strip_prefix("cm.status.")?.split('.');
    let audit = Key::from_token(tokens.next()?).ok()?;
    let version = Version::new(tokens.next()?).ok()?;
    Some((audit, version))
}

/// The role and plugin of a dead letter's subject.
#[must_use]
pub fn parse_dead(subject: &str) -> Option<(Role, Key)> {
    let mut tokens = subject.strip_prefix("cm.dead.")?.split('.').skip(2);
    let role = match tokens.next()? {
        "cloud" => Role::Cloud,
        "event" => Role::Event,
        "store" => Role::Store,
        "alert" => Role::Alert,
        _ => return None,
    };
    let plugin = Key::from_token(tokens.next()?).ok()?;
    tokens.next().is_none().then_some((role, plugin))
}

/// Whether a filter (`*` stands for one token, a last `>` for one or more) matches a subject.
///
/// ```
/// use proto::subject::matches;
/// assert!(matches("cm.record.a.*.>", "cm.record.a.20260131_235959.p"));
/// assert!(!matches("cm.record.a.*", "cm.record.a.20260131_235959.p"));
/// ```
#[must_use]
pub fn matches(filter: &str, subject: &str) -> bool {
    let mut wanted = filter.split('.');
    let mut tokens = subject.split('.');
    loop {
        match (wanted.next(), tokens.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(want), Some(token)) if want == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_its_token() {
        for name in ["", "a", "A_b-9", "my.audit", "a b", "ü%$/", "=", "=2E", "..", "*", ">"] {
            let key = Key::new(name).unwrap();
            assert!(key.token().bytes().all(|byte| is_plain(byte) || byte == b'='), "{name:?}");
            assert_eq!(Key::from_token(key.token()).unwrap(), key, "{name:?}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        assert!(Key::new(&"a".repeat(MAX_TOKEN)).is_ok());
        assert!(Key::new(&"a".repeat(MAX_TOKEN + 1)).is_err());
        assert!(Key::new(&"ü".repeat(16)).is_err());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "a.b", "=2", "=2e", "=41", "a=", "ü"] {
            assert!(Key::from_token(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_subject_finds_its_stream() {
        let (audit, plugin) = (Key::new("a").unwrap(), Key::new("p").unwrap());
        let version = Version::new("20260131_235959").unwrap();
        assert_eq!(Stream::of(&unit(&plugin, &audit, &version, &plugin)), Some(Stream::Units));
        assert_eq!(Stream::of(&dead(&audit, &version, Role::Store, &plugin)), Some(Stream::Dead));
        assert_eq!(Stream::of(&retry(&audit, &version, Role::Store, &plugin)), Some(Stream::Dead));
        assert_eq!(parse_dead(&dead(&audit, &version, Role::Store, &plugin)), Some((Role::Store, plugin)));
        assert_eq!(Stream::of("other.record"), None);
        for stream in Stream::ALL {
            for filter in stream.subjects() {
                assert_eq!(Stream::of(filter), Some(stream));
            }
        }
    }
}
