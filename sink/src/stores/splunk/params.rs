//! The parameters of the class.

use std::fmt;
use std::time::Duration;

use proto::catalogue::ParamError;
use proto::config::params;
use proto::config::secret::{Secret, has_reference};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

/// Most events in a request.
const MAX_BUFFER: usize = 100_000;
/// How long indexers may take to say that they have the events: Splunk's own clients wait as long.
const ACK: Duration = Duration::from_secs(300);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Where the collector is: `https://host:8088`, or with `/services/collector` or `/services/collector/event`.
    pub(super) uri: String,
    pub(super) token: Secret,
    /// The index: the token's own one if there is none here.
    #[serde(default)]
    pub(super) index: Option<String>,
    #[serde(default)]
    pub(super) ca_cert: Option<CaCert>,
    /// How many events are sent at once.
    #[serde(default = "buffer_size")]
    pub(super) buffer_size: usize,
    #[serde(default = "sourcetype")]
    pub(super) sourcetype: String,
    /// What events say they come from; `cloudmarker:` and the audit if there is none here.
    #[serde(default)]
    pub(super) source: Option<String>,
    /// The host that events name; this one if there is none here.
    #[serde(default)]
    pub(super) host: Option<String>,
    /// Whether indexers confirm events: as the token says if there is none here.
    #[serde(default)]
    pub(super) ack: Ack,
    /// How long indexers may take for it.
    #[serde(default, deserialize_with = "params::duration")]
    ack_timeout: Option<Duration>,
}

fn buffer_size() -> usize {
    1_000
}

fn sourcetype() -> String {
    "json".to_owned()
}

/// Whom to trust.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum CaCert {
    /// `false`: whoever answers. `true`: whom this host trusts.
    Check(bool),
    /// The authorities in this file, and nobody else.
    File(String),
}

/// Whether indexers confirm events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Word")]
pub(super) enum Ack {
    /// They must.
    Always,
    /// They are not asked.
    Never,
    /// If the token is made so.
    #[default]
    Auto,
    /// Something else was written.
    Unknown,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Flag(bool),
    Text(String),
}

impl From<Word> for Ack {
    fn from(word: Word) -> Self {
        let flag = match word {
            Word::Flag(flag) => Some(flag),
            Word::Text(text) if text == "auto" => return Self::Auto,
            Word::Text(text) => params::boolean(&text),
        };
        match flag {
            Some(true) => Self::Always,
            Some(false) => Self::Never,
            None => Self::Unknown,
        }
    }
}

impl Params {
    pub(super) fn ack_timeout(&self) -> Duration {
        self.ack_timeout.unwrap_or(ACK)
    }
}

pub(super) fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    let read: Params = params::read(value)?;
    let mut errors = Vec::new();
    let mut wrong = |path: &str, message: String| errors.push(ParamError { path: path.to_owned(), message });
    if !has_reference(&read.uri)
        && let Err(message) = Collector::parse(&read.uri)
    {
        wrong("uri", message);
    }
    if read.token.is_empty() {
        wrong("token", "found an empty text; the token of an HTTP Event Collector input is expected".to_owned());
    }
    if !(1..=MAX_BUFFER).contains(&read.buffer_size) {
        wrong("buffer_size", format!("found {}; a number from 1 to {MAX_BUFFER} is expected", read.buffer_size));
    }
    for (name, text) in [("index", &read.index), ("source", &read.source), ("host", &read.host)] {
        if text.as_deref() == Some("") {
            wrong(name, format!("found an empty text; leave out `{name}`, or name one"));
        }
    }
    if read.sourcetype.is_empty() {
        wrong("sourcetype", "found an empty text; leave out `sourcetype`, or name one".to_owned());
    }
    if read.ack == Ack::Unknown {
        wrong("ack", "found another word; `true`, `false` or `auto` is expected".to_owned());
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Where a collector takes what.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    pub(super) event: Url,
    pub(super) ack: Url,
}

const PATH: &str = "/services/collector";

impl Collector {
    /// Reads a `uri`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const LIKE: &str = "write it like `https://host:8088/services/collector`";
        let url = Url::parse(text).map_err(|error| format!("not a URL ({error}); {LIKE}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(format!("not an address of http or https; {LIKE}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("it holds a user name or a password: the token goes into `token`; {LIKE}"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("there is more to it than a path; {LIKE}"));
        }
        let path = url.path().trim_end_matches('/');
        let base = match path.find(PATH) {
            Some(at) => {
                let (base, rest) = path.split_at(at + PATH.len());
                if !matches!(rest, "" | "/event" | "/event/1.0") {
                    return Err(format!("`{path}` is not where events are taken; {LIKE}"));
                }
                base.to_owned()
            }
            None => format!("{path}{PATH}"),
        };
        let at = |rest: &str| {
            let mut url = url.clone();
            url.set_path(&format!("{base}{rest}"));
            url
        };
        Ok(Self { event: at("/event"), ack: at("/ack") })
    }

    /// Whether whoever is in between reads the token.
    pub(super) fn is_open(&self) -> bool {
        self.event.scheme() == "http" && !self.is_loopback()
    }

    pub(super) fn is_loopback(&self) -> bool {
        match self.event.host() {
            Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.event.origin().ascii_serialization())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_found_from_any_part_of_its_address() {
        for (uri, event) in [
            ("https://h:8088", "https://h:8088/services/collector/event"),
            ("https://h:8088/", "https://h:8088/services/collector/event"),
            ("https://h:8088/services/collector", "https://h:8088/services/collector/event"),
            ("https://h:8088/services/collector/event", "https://h:8088/services/collector/event"),
            ("http://h/services/collector/event/1.0", "http://h/services/collector/event"),
            ("https://h/splunk", "https://h/splunk/services/collector/event"),
        ] {
            let collector = Collector::parse(uri).unwrap();
            assert_eq!(collector.event.as_str(), event);
            assert_eq!(collector.ack.as_str(), event.replace("/event", "/ack"));
        }
        for uri in ["", "h:8088", "ftp://h", "https://u:p@h", "https://h/services/collector/raw", "https://h?x=1"] {
            assert!(Collector::parse(uri).is_err(), "{uri}");
        }
    }
}
