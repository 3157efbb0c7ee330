//! The section `nats`: the broker, and what the coordinator asks of it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::params;
use super::secret::Secret;
use crate::catalogue::ParamError;

/// The broker, and what the coordinator asks of it. What is not set is the connection's default.
///
/// Texts may hold references such as `${CM_NATS_PASSWORD}`, which are expanded where the connection is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// The servers, such as `nats://nats-1:4222`: one text (with commas, for several) or a list; empty when not set.
    #[serde(deserialize_with = "urls")]
    pub url: Vec<String>,
    /// A file with a user's JWT and seed, as `nsc` writes it.
    pub credentials_file: Option<PathBuf>,
    /// A user's name; needs [`password`](Self::password).
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A token, instead of a user.
    pub token: Option<Secret>,
    /// The certificates (PEM) that the servers' must lead up to; turns TLS on.
    pub ca_file: Option<PathBuf>,
    /// The certificate (PEM) that the client shows; needs [`key_file`](Self::key_file).
    pub cert_file: Option<PathBuf>,
    /// The key of the client's certificate (PEM).
    pub key_file: Option<PathBuf>,
    /// After how long a message that was neither settled nor reported on is delivered again: `30s`.
    #[serde(deserialize_with = "params::duration")]
    pub ack_wait: Option<Duration>,
    /// On how many servers each stream is kept: 1 to 5.
    pub replicas: Option<u8>,
    /// The room for units, in bytes or as `1GiB`.
    #[serde(deserialize_with = "params::size")]
    pub units_max_bytes: Option<u64>,
    /// The room for records.
    #[serde(deserialize_with = "params::size")]
    pub records_max_bytes: Option<u64>,
    /// The room for events.
    #[serde(deserialize_with = "params::size")]
    pub events_max_bytes: Option<u64>,
    /// The room for what the stages say of runs.
    #[serde(deserialize_with = "params::size")]
    pub status_max_bytes: Option<u64>,
    /// The room for dead letters.
    #[serde(deserialize_with = "params::size")]
    pub dead_max_bytes: Option<u64>,
}

/// Reads the section; errors have paths below `nats`.
pub(super) fn read(section: &Value) -> Result<NatsConfig, Vec<ParamError>> {
    let nats: NatsConfig = params::read(section).map_err(|mut errors| {
        for error in &mut errors {
            error.message = error.message.replacen("unknown parameter ", "unknown key ", 1);
        }
        errors
    })?;
    let wrong = [
        (nats.replicas.is_some_and(|count| !(1..=5).contains(&count)), "replicas", "a number from 1 to 5 is expected"),
        (nats.ack_wait.is_some_and(|wait| wait < Duration::from_secs(1)), "ack_wait", "at least `1s` is expected"),
        (nats.user.is_some() && nats.password.is_none(), "user", "set `password`, too"),
        (nats.password.is_some() && nats.user.is_none(), "password", "set `user`, too"),
        (nats.user.is_some() && nats.token.is_some(), "token", "set either `token`, or `user` and `password`"),
        (nats.cert_file.is_some() && nats.key_file.is_none(), "cert_file", "set `key_file`, too"),
        (nats.key_file.is_some() && nats.cert_file.is_none(), "key_file", "set `cert_file`, too"),
    ];
    let errors: Vec<ParamError> = wrong
        .into_iter()
        .filter(|(wrong, ..)| *wrong)
        .map(|(_, path, message)| ParamError { path: path.to_owned(), message: message.to_owned() })
        .collect();
    if errors.is_empty() { Ok(nats) } else { Err(errors) }
}

fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = match Value::deserialize(deserializer)? {
        Value::String(text) => vec![Value::String(text)],
        Value::Array(items) if !items.is_empty() => items,
        _ => vec![Value::Null],
    };
    let mut urls = Vec::new();
    for text in texts {
        let text = text.as_str().filter(|text| !text.trim().is_empty());
        let text = text.ok_or_else(|| params::expected("a URL such as `nats://localhost:4222`, or a list of them,"))?;
        urls.extend(text.split(',').map(|url| url.trim().to_owned()));
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(section: &Value) -> Vec<String> {
        read(section).unwrap_err().into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn all_keys_are_read() {
        let nats = read(&json!({
            "url": ["nats://a:4222", "nats://b:4222, nats://c:4222"], "user": "u", "password": "${CM_PASSWORD}",
            "ca_file": "/etc/ca.pem", "ack_wait": "1m 30s", "records_max_bytes": "8GiB", "events_max_bytes": 500,
            "replicas": 3, "token": null,
        }))
        .unwrap();
        assert_eq!(nats.url, ["nats://a:4222", "nats://b:4222", "nats://c:4222"]);
        assert_eq!(nats.ack_wait, Some(Duration::from_secs(90)));
        assert_eq!(
            (nats.records_max_bytes, nats.events_max_bytes, nats.dead_max_bytes),
            (Some(8 << 30), Some(500), None)
        );
        assert_eq!(nats.password.unwrap().expose(), "${CM_PASSWORD}");
        assert_eq!(read(&json!({})).unwrap(), NatsConfig::default());
    }

    #[test]
    fn everything_wrong_is_told() {
        assert_eq!(
            messages(&json!({"urls": "x", "url": 5, "ack_wait": "soon", "records_max_bytes": "8G", "replicas": -1})),
            [
                "ack_wait: found the text \"soon\"; a duration such as `30s`, `5m` or `1h 30m` is expected",
                "records_max_bytes: found the text \"8G\"; a number of bytes, or a size such as `8GiB` or `500MB`, is expected",
                "replicas: found the number -1; a whole number from 0 to 255 is expected",
                "url: found the number 5; a URL such as `nats://localhost:4222`, or a list of them, is expected",
                "urls: unknown key `urls`; did you mean `url`? (allowed: url, credentials_file, user, password, token, \
                 ca_file, cert_file, key_file, ack_wait, replicas, units_max_bytes, records_max_bytes, \
                 events_max_bytes, status_max_bytes, dead_max_bytes)",
            ]
        );
        assert_eq!(
            messages(&json!({"user": "u", "replicas": 9, "ack_wait": "5ms"})),
            [
                "replicas: a number from 1 to 5 is expected",
                "ack_wait: at least `1s` is expected",
                "user: set `password`, too"
            ]
        );
    }
}
