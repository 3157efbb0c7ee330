//! Reads a plugin's parameters into the plugin's own struct, and says in plain words what is wrong with them.
//!
//! ```
//! use proto::config::params;
//! use serde_json::json;
//!
//! #[derive(Debug, serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Params {
//!     tenant: String,
//!     #[serde(default)]
//!     record_count: u64,
//! }
//!
//! const ABOUT: &[(&str, &str)] = &[("tenant", "the directory (tenant) id")];
//! let errors = params::read_with::<Params>(&json!({"tenant": null, "recrod_count": 5}), ABOUT).unwrap_err();
//! let said: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
//! assert_eq!(said, [
//!     "unknown parameter `recrod_count`; did you mean `record_count`? (allowed: tenant, record_count)",
//!     "set `tenant`: the directory (tenant) id",
//! ]);
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use serde_path_to_error::Segment;

use super::place::{Place, Step};
use super::suggest;
use crate::catalogue::ParamError;

/// What a secret expects: its value is kept out of messages.
pub(super) const SECRET_TEXT: &str = "a secret text";
const UNKNOWN: &str = "unknown parameter ";
/// A bound on the work that one struct can make.
const MAX_ROUNDS: usize = 1000;

/// Reads parameters. `T` has `#[serde(deny_unknown_fields)]`, and `#[serde(default)]` where a default exists.
///
/// Null is the same as not set, unless the parameter's type takes null. `yes`, `no`, `on` and `off` are booleans
/// where a boolean is expected.
///
/// # Errors
/// All that is wrong, as far as one can know: every unknown parameter, every missing one, every wrong type.
pub fn read<T: DeserializeOwned>(params: &Value) -> Result<T, Vec<ParamError>> {
    read_with(params, &[])
}

/// As [`read`], with what the required parameters are, to be told when one is missing.
///
/// # Errors
/// As [`read`].
pub fn read_with<T: DeserializeOwned>(params: &Value, about: &[(&str, &str)]) -> Result<T, Vec<ParamError>> {
    let params = match params {
        Value::Null => Value::Object(Map::new()),
        Value::Object(_) => params.clone(),
        other => {
            let found = describe(other);
            let message = format!("found {found}; a mapping of parameters is expected (`name: value`)");
            return Err(vec![ParamError { path: String::new(), message }]);
        }
    };
    let mut reading = Reading { params, about, errors: Vec::new(), stand_ins: BTreeMap::new() };
    for _ in 0..MAX_ROUNDS {
        match serde_path_to_error::deserialize(&reading.params) {
            Ok(read) if reading.errors.is_empty() => return Ok(read),
            Ok(_) => break,
            Err(error) => {
                if !reading.note(&place_of(error.path()), &error.inner().to_string()) {
                    break;
                }
            }
        }
    }
    let mut errors = reading.errors;
    errors.sort_by(|one, other| one.path.cmp(&other.path));
    Err(errors)
}

/// The error for a required parameter that is missing, or null.
///
/// ```
/// let error = proto::config::params::required("tenant", "the directory (tenant) id");
/// assert_eq!(error.message, "set `tenant`: the directory (tenant) id");
/// ```
#[must_use]
pub fn required(name: &str, what: &str) -> ParamError {
    let message =
        if what.is_empty() { format!("set `{name}`: it is required") } else { format!("set `{name}`: {what}") };
    ParamError { path: name.to_owned(), message }
}

/// `; did you mean ...?` for a word that looks like one of those that are known, or nothing. For the checks that a
/// plugin makes itself.
///
/// ```
/// use proto::config::params::did_you_mean;
/// assert_eq!(did_you_mean("chian", ["public", "china"]), "; did you mean `china`?");
/// assert_eq!(did_you_mean("moon", ["public", "china"]), "");
/// ```
#[must_use]
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    suggest::did_you_mean(word, known)
}

/// The boolean that a word of YAML 1.1 stands for.
///
/// ```
/// use proto::config::params::boolean;
/// assert_eq!((boolean("Yes"), boolean("off"), boolean("y")), (Some(true), Some(false), None));
/// ```
#[must_use]
pub fn boolean(word: &str) -> Option<bool> {
    match word {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => Some(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Reads a duration: a text such as `30s`, `5m` or `1h 30m`, or a number of seconds. For
/// `#[serde(default, deserialize_with = "params::duration")]`.
///
/// # Errors
/// When the value is no duration.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    const EXPECTED: &str = "a duration such as `30s`, `5m` or `1h 30m`";
    let found = match Value::deserialize(deserializer)? {
        Value::String(text) => text.parse().ok().and_then(|parsed: jiff::SignedDuration| parsed.try_into().ok()),
        Value::Number(number) => number.as_u64().map(Duration::from_secs),
        _ => None,
    };
    found.map(Some).ok_or_else(|| expected(EXPECTED))
}

/// Reads a size in bytes: a text such as `8GiB` or `500 MB`, or a number of bytes. For
/// `#[serde(default, deserialize_with = "params::size")]`.
///
/// # Errors
/// When the value is no size.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    const EXPECTED: &str = "a number of bytes, or a size such as `8GiB` or `500MB`,";
    let found = match Value::deserialize(deserializer)? {
        Value::String(text) => bytes_of(&text),
        Value::Number(number) => number.as_u64(),
        _ => None,
    };
    found.map(Some).ok_or_else(|| expected(EXPECTED))
}

pub(crate) fn bytes_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// An error that [`read`] turns into `found ...; ... is expected`.
pub(super) fn expected<E: serde::de::Error>(what: &str) -> E {
    E::custom(format_args!("invalid value, expected {what}"))
}

/// Whether the error says that there is no such parameter.
pub(super) fn is_unknown(error: &ParamError) -> bool {
    error.message.starts_with(UNKNOWN)
}

/// What was found, in plain words: `the text "abc"`.
#[must_use]
pub fn describe(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => format!("`{flag}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => {
            let mut shown: String = text.chars().take(LONGEST).collect();
            if shown.len() < text.len() {
                shown.push_str("...");
            }
            format!("the text {shown:?}")
        }
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// What was found, without the value itself.
fn describe_secret(value: &Value) -> String {
    match value {
        Value::Number(_) => "a number".to_owned(),
        Value::String(_) => "a text".to_owned(),
        other => describe(other),
    }
}

/// Whether the values of parameters of this name are better not shown.
pub(super) fn is_secret(place: &Place) -> bool {
    let secret = |name: &str| {
        let name = name.to_lowercase();
        ["secret", "password", "passwd", "passphrase", "token", "credential"].iter().any(|word| name.contains(word))
            || name.ends_with("key")
    };
    (1..=place.len()).any(|steps| match place.prefix(steps).last() {
        Some(Step::Key(name)) => secret(name),
        _ => false,
    })
}

fn place_of(path: &serde_path_to_error::Path) -> Place {
    path.iter().fold(Place::root(), |place, segment| match segment {
        Segment::Map { key } => place.key(key),
        Segment::Seq { index } => place.index(*index),
        Segment::Enum { .. } | Segment::Unknown => place,
    })
}

/// Parameters on their way into a struct. Serde stops at the first error; so each error is noted, what caused it is
/// replaced by something harmless, and the whole is read again.
struct Reading<'a> {
    params: Value,
    about: &'a [(&'a str, &'a str)],
    errors: Vec<ParamError>,
    /// What was replaced, and how often.
    stand_ins: BTreeMap<Place, usize>,
}

impl Reading<'_> {
    /// Takes note of an error; says whether reading again makes sense.
    fn note(&mut self, place: &Place, message: &str) -> bool {
        if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            return self.missing(&place.key(name));
        }
        if let Some(stand_in) = self.stand_ins.keys().find(|stand_in| place.starts_with(stand_in)).cloned() {
            return self.stand_in(&stand_in);
        }
        if message.starts_with("unknown field `") {
            return self.unknown(place, message);
        }
        let Some(value) = place.find(&self.params).cloned() else {
            self.error(place, message.to_owned());
            return false;
        };
        if place.is_root() {
            // Of the parameters as a whole: with stand-ins among them it says nothing.
            if self.stand_ins.is_empty() {
                self.error(place, message.to_owned());
            }
            return false;
        }
        if value.is_null() && matches!(place.last(), Some(Step::Key(_))) {
            return self.remove(place);
        }
        if let (true, Value::String(word)) = (message.ends_with("expected a boolean"), &value)
            && let Some(flag) = boolean(word)
        {
            return self.replace(place, Value::Bool(flag));
        }
        self.error(place, in_plain_words(place, &value, message));
        self.stand_in(place)
    }

    fn missing(&mut self, place: &Place) -> bool {
        if !self.stand_ins.contains_key(place) {
            // What a stand-in lacks is the stand-in's fault.
            if let Some(stand_in) = self.stand_ins.keys().find(|stand_in| place.starts_with(stand_in)).cloned() {
                return self.stand_in(&stand_in);
            }
            let name = match place.last() {
                Some(Step::Key(name)) => name.clone(),
                _ => place.to_string(),
            };
            let path = place.to_string();
            let what =
                self.about.iter().find(|(known, _)| *known == path || *known == name).map_or("", |(_, what)| what);
            self.error(place, required(&name, what).message);
        }
        self.stand_in(place)
    }

    fn unknown(&mut self, place: &Place, message: &str) -> bool {
        let Some(Step::Key(name)) = place.last() else { return false };
        let allowed: Vec<&str> = match message.rsplit_once(", expected ") {
            Some((_, list)) => list.split('`').skip(1).step_by(2).collect(),
            None => Vec::new(),
        };
        let message = suggest::unknown("parameter", name, &allowed);
        self.error(place, message);
        self.remove(place)
    }

    fn error(&mut self, place: &Place, message: String) {
        self.errors.push(ParamError { path: place.to_string(), message });
    }

    /// Puts the next harmless value where the error was.
    fn stand_in(&mut self, place: &Place) -> bool {
        let tries = self.stand_ins.entry(place.clone()).or_insert(0);
        *tries += 1;
        let value = match tries {
            1 => {
                return match place.last() {
                    // A default, perhaps.
                    Some(Step::Key(_)) if place.find(&self.params).is_some() => self.remove(place),
                    _ => self.stand_in(place),
                };
            }
            2 => json!(""),
            3 => json!(1),
            4 => json!(false),
            5 => json!([]),
            6 => json!({}),
            _ => return false,
        };
        self.replace(place, value)
    }

    fn replace(&mut self, place: &Place, value: Value) -> bool {
        match (place.parent().find_mut(&mut self.params), place.last()) {
            (Some(Value::Object(entries)), Some(Step::Key(key))) => {
                entries.insert(key.clone(), value);
                true
            }
            (Some(Value::Array(items)), Some(Step::Index(index))) => {
                items.get_mut(*index).map(|item| *item = value).is_some()
            }
            _ => false,
        }
    }

    fn remove(&mut self, place: &Place) -> bool {
        match (place.parent().find_mut(&mut self.params), place.last()) {
            (Some(Value::Object(entries)), Some(Step::Key(key))) => entries.remove(key).is_some(),
            _ => false,
        }
    }
}

/// Serde's message as `found ...; ... is expected`. What a plugin's own code says stays as it is.
fn in_plain_words(place: &Place, value: &Value, message: &str) -> String {
    let ours = ["invalid type", "invalid value", "invalid length", "unknown variant"];
    let Some((_, wanted)) = message.rsplit_once(", expected ").filter(|_| ours.iter().any(|o| message.starts_with(o)))
    else {
        if message.starts_with("data did not match any variant") {
            return format!("found {}, which is not one of the forms that it can have", describe_secret(value));
        }
        return message.to_owned();
    };
    let hidden = is_secret(place) || wanted == SECRET_TEXT;
    let found = if hidden { describe_secret(value) } else { describe(value) };
    if message.starts_with("unknown variant") {
        let allowed: Vec<&str> = wanted.split('`').skip(1).step_by(2).collect();
        let hint = value.as_str().map(|word| suggest::did_you_mean(word, allowed.iter().copied())).unwrap_or_default();
        return format!("found {found}{hint} (allowed: {})", allowed.join(", "));
    }
    let wanted = expectation(wanted, value);
    let quotes = match value {
        Value::Number(_) | Value::Bool(_) if wanted == "a text" => "; write it in quotes",
        _ => "",
    };
    format!("found {found}; {wanted} is expected{quotes}")
}

/// What a type of ours is called by people.
fn expectation(wanted: &str, value: &Value) -> String {
    let negative = value.as_f64().is_some_and(|number| number < 0.0);
    let whole = match wanted {
        "u8" => Some("a whole number from 0 to 255"),
        "u16" => Some("a whole number from 0 to 65535"),
        "u32" | "u64" | "u128" | "usize" if negative => Some("a whole number, 0 or more,"),
        "u32" if value.is_u64() => Some("a whole number from 0 to 4294967295"),
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" | "u32" | "u64" | "u128" | "usize" => Some("a whole number"),
        _ if wanted.starts_with("a nonzero ") => Some("a whole number, 1 or more,"),
        _ => None,
    };
    let plain = match wanted {
        _ if whole.is_some() => whole.unwrap_or_default(),
        "f32" | "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a string" | "str" | "string" | SECRET_TEXT => "a text",
        "path string" => "a path",
        "a sequence" => "a list",
        "a map" => "a mapping",
        _ if wanted.starts_with("struct ") => "a mapping",
        other => other,
    };
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::secret::Secret;
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Params {
        name: String,
        #[serde(default)]
        ratio: f64,
        #[serde(default)]
        flags: Vec<bool>,
        #[serde(default)]
        server: Option<Server>,
        #[serde(default, deserialize_with = "duration")]
        wait: Option<Duration>,
        #[serde(default, deserialize_with = "size")]
        room: Option<u64>,
        #[serde(default)]
        count: Option<std::num::NonZeroU32>,
        #[serde(default)]
        verify: Option<Verify>,
        #[serde(default)]
        quiet: Option<Secret>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Server {
        host: String,
        port: u16,
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Verify {
        Flag(bool),
        File(std::path::PathBuf),
    }

    fn errors(value: &Value) -> Vec<String> {
        let errors = read::<Params>(value).unwrap_err();
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn what_is_right_is_read() {
        let params: Params = read(&json!({
            "name": "n", "ratio": 1, "flags": ["yes", false, "OFF"], "server": {"host": "h", "port": 1},
            "wait": "1m 30s", "room": "8 GiB", "count": null, "verify": "/ca.pem", "quiet": "x",
        }))
        .unwrap();
        assert_eq!(params.flags, [true, false, false]);
        assert_eq!(params.wait, Some(Duration::from_secs(90)));
        assert_eq!(params.room, Some(8 << 30));
        assert!(params.count.is_none());
        let params: Params = read(&json!({"name": "n", "wait": 5, "room": 7, "server": null})).unwrap();
        assert_eq!((params.wait, params.room), (Some(Duration::from_secs(5)), Some(7)));
    }

    #[test]
    fn errors_are_found_at_every_depth_and_all_at_once() {
        assert_eq!(
            errors(&json!({
                "ratio": "half", "flags": [true, "maybe", 3], "server": {"host": 5, "prot": 1}, "wait": "soon",
                "room": "8G", "count": 0, "verify": [1], "quiet": 5,
            })),
            [
                "count: found the number 0; a whole number, 1 or more, is expected",
                "flags[1]: found the text \"maybe\"; `true` or `false` is expected",
                "flags[2]: found the number 3; `true` or `false` is expected",
                "name: set `name`: it is required",
                "quiet: found a number; a text is expected; write it in quotes",
                "ratio: found the text \"half\"; a number is expected",
                "room: found the text \"8G\"; a number of bytes, or a size such as `8GiB` or `500MB`, is expected",
                "server.host: found the number 5; a text is expected; write it in quotes",
                "server.port: set `port`: it is required",
                "server.prot: unknown parameter `prot`; did you mean `port`? (allowed: host, port)",
                "verify: found a list, which is not one of the forms that it can have",
                "wait: found the text \"soon\"; a duration such as `30s`, `5m` or `1h 30m` is expected",
            ]
        );
        assert_eq!(errors(&json!([1])), [": found a list; a mapping of parameters is expected (`name: value`)"]);
        assert_eq!(errors(&Value::Null), ["name: set `name`: it is required"]);
    }

    #[test]
    fn what_looks_like_a_secret_is_not_shown() {
        #[derive(Debug, Deserialize)]
        #[allow(dead_code)]
        struct Keys {
            api_key: u8,
            tokens: Vec<u8>,
        }
        let errors = read::<Keys>(&json!({"api_key": "hunter2", "tokens": ["hunter2"]})).unwrap_err();
        let found: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
        assert_eq!(found, ["found a text; a whole number from 0 to 255 is expected"; 2]);
    }

    #[test]
    fn a_check_of_the_whole_is_told_as_it_is() {
        #[derive(Debug, Deserialize)]
        #[serde(try_from = "Raw")]
        struct Whole;
        #[derive(Deserialize)]
        struct Raw {
            low: u8,
            high: u8,
        }
        impl TryFrom<Raw> for Whole {
            type Error = String;
            fn try_from(raw: Raw) -> Result<Self, String> {
                if raw.low <= raw.high { Ok(Self) } else { Err("`low` is above `high`".to_owned()) }
            }
        }
        let said = |value: &Value| read::<Whole>(value).unwrap_err().into_iter().map(|e| e.message).collect::<Vec<_>>();
        assert_eq!(said(&json!({"low": 2, "high": 1})), ["`low` is above `high`"]);
        assert_eq!(
            said(&json!({"low": 2, "high": "x"})),
            ["found the text \"x\"; a whole number from 0 to 255 is expected"]
        );
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("5", 5), ("5B", 5), ("1 KiB", 1024), ("2MB", 2_000_000), ("1TiB", 1 << 40)] {
            assert_eq!(bytes_of(text), Some(bytes), "{text}");
        }
        for text in ["", "GiB", "1G", "-1", "1.5GiB", "1 gib", "99999999999TiB"] {
            assert_eq!(bytes_of(text), None, "{text}");
        }
    }
}
