//! The parameters of a webhook.

use std::collections::BTreeMap;

use proto::catalogue::ParamError;
use proto::config::params;
use proto::config::secret::{Secret, has_reference};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::body::Bodies;
use crate::http::check_literal;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Per {
    /// One finding.
    Event,
    /// All of an audit's version.
    Version,
}

/// Receivers whose form is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Preset {
    /// Microsoft Teams: a card, by a workflow's webhook.
    Teams,
    /// PagerDuty: Events API v2.
    Pagerduty,
    /// Opsgenie: Alert API.
    Opsgenie,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    /// It may hold a secret, so none of it but its host is shown.
    #[serde(default)]
    url: Secret,
    #[serde(default)]
    preset: Option<Preset>,
    #[serde(default)]
    per: Option<Per>,
    #[serde(default)]
    template: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    /// What messages are signed with.
    #[serde(default)]
    secret: Secret,
    /// PagerDuty's.
    #[serde(default)]
    routing_key: Secret,
    /// Opsgenie's.
    #[serde(default)]
    api_key: Secret,
    /// Hosts that may be within.
    #[serde(default)]
    allow: Vec<String>,
}

/// Where messages go, and in which form.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) per: Per,
    pub(super) headers: HeaderMap,
    pub(super) secret: Option<Secret>,
    /// The host is allowed by name, wherever it is.
    pub(super) is_allowed: bool,
    preset: Option<Preset>,
    template: Option<String>,
    is_json: bool,
    routing_key: Secret,
}

/// Headers that are not the configuration's.
const OURS: [&str; 7] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "idempotency-key",
    "x-cloudmarker-timestamp",
    "x-cloudmarker-signature",
];

/// Checks the parameters, unexpanded.
pub(super) fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    let read: Params = params::read(value)?;
    let target = read.target(true)?;
    match target.map(|target| target.bodies().and_then(|bodies| bodies.try_out())) {
        Some(Err(message)) => Err(vec![ParamError { path: "template".into(), message }]),
        Some(Ok(())) | None => Ok(()),
    }
}

/// Reads the parameters, expanded.
pub(super) fn read(value: &Value) -> Result<Target, Vec<ParamError>> {
    let read: Params = params::read(value)?;
    read.target(false)?.ok_or_else(Vec::new)
}

impl Preset {
    fn url(self) -> Option<&'static str> {
        match self {
            Self::Teams => None,
            Self::Pagerduty => Some("https://events.pagerduty.com/v2/enqueue"),
            Self::Opsgenie => Some("https://api.opsgenie.com/v2/alerts"),
        }
    }

    fn per(self) -> Per {
        match self {
            Self::Teams => Per::Version,
            Self::Pagerduty | Self::Opsgenie => Per::Event,
        }
    }
}

impl Params {
    /// `None` when the URL is not known before references are expanded.
    fn target(self, unexpanded: bool) -> Result<Option<Target>, Vec<ParamError>> {
        let mut errors = Vec::new();
        let mut note =
            |path: &str, message: &str| errors.push(ParamError { path: path.to_owned(), message: message.to_owned() });
        let own = self.preset.and_then(Preset::url);
        let text = if self.url.is_empty() { own.unwrap_or_default() } else { self.url.expose() };
        let is_open = unexpanded && has_reference(text);
        let mut is_allowed = false;
        let url = match Url::parse(text) {
            _ if is_open => None,
            _ if text.is_empty() => {
                note("url", "set `url`: where messages go (`https://...`)");
                None
            }
            Err(_) => {
                note("url", "it is not a URL; write it like `https://host/path`");
                None
            }
            Ok(url) => {
                let host = url.host_str().unwrap_or_default();
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                is_allowed = self.allow.iter().any(|name| name.eq_ignore_ascii_case(host) || name == bare);
                match url.scheme() {
                    "https" => {}
                    "http" if is_allowed => {}
                    "http" => {
                        note("url", "plain http shows messages to the network: use https, or name the host in `allow`")
                    }
                    _ => note("url", "its scheme is another than https"),
                }
                if !is_allowed && let Err(forbidden) = check_literal(&url) {
                    note("url", &forbidden.to_string());
                }
                if !url.username().is_empty() || url.password().is_some() {
                    note("url", "it has a user name or password; send them in `headers`");
                }
                Some(url)
            }
        };
        if self.preset == Some(Preset::Pagerduty) && self.routing_key.is_empty() {
            note("routing_key", "set `routing_key`: the integration key of the PagerDuty service");
        }
        if self.preset == Some(Preset::Opsgenie) && self.api_key.is_empty() {
            note("api_key", "set `api_key`: the key of the Opsgenie integration");
        }
        if self.preset != Some(Preset::Pagerduty) && !self.routing_key.is_empty() {
            note("routing_key", "is for `preset: pagerduty` alone");
        }
        if self.preset != Some(Preset::Opsgenie) && !self.api_key.is_empty() {
            note("api_key", "is for `preset: opsgenie` alone");
        }
        if self.preset.is_some() && self.template.is_some() {
            note("template", "a preset has its own; leave one of them out");
        }
        let own_per = self.preset.map(Preset::per);
        if self.preset.is_some() && self.per.is_some() && self.per != own_per {
            note("per", "the preset has it otherwise; leave this out");
        }
        let headers = self.headers(unexpanded, &mut note);
        if !errors.is_empty() {
            return Err(errors);
        }
        let media_type = self.content_type.as_deref().unwrap_or("application/json");
        let is_json = media_type.to_ascii_lowercase().contains("json");
        // A template can be tried out wherever it goes.
        let url = match url {
            Some(url) => url,
            None if unexpanded => Url::parse("https://unknown.invalid").map_err(|_| Vec::new())?,
            None => return Ok(None),
        };
        Ok(Some(Target {
            url,
            per: self.per.or(own_per).unwrap_or(Per::Version),
            headers,
            secret: (!self.secret.is_empty()).then_some(self.secret),
            is_allowed,
            preset: self.preset,
            template: self.template,
            is_json,
            routing_key: self.routing_key,
        }))
    }

    fn headers(&self, unexpanded: bool, note: &mut impl FnMut(&str, &str)) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let media_type = self.content_type.as_deref().unwrap_or("application/json");
        match HeaderValue::from_str(media_type) {
            Ok(value) => drop(headers.insert(CONTENT_TYPE, value)),
            Err(_) => note("content_type", "it has characters that a header cannot have"),
        }
        for (name, value) in &self.headers {
            let path = format!("headers.{name}");
            if unexpanded && has_reference(value.expose()) {
                continue;
            }
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !OURS.contains(&name.as_str()));
            match (parsed, HeaderValue::from_str(value.expose())) {
                (None, _) => note(&path, "it is not a name that a header of yours can have"),
                (_, Err(_)) => note(&path, "its value has characters that a header cannot have"),
                (Some(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
            }
        }
        let is_open = unexpanded && has_reference(self.api_key.expose());
        if !self.api_key.is_empty() && !is_open {
            match HeaderValue::from_str(&format!("GenieKey {}", self.api_key.expose())) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    headers.insert("authorization", value);
                }
                Err(_) => note("api_key", "it has characters that no key has"),
            }
        }
        headers
    }
}

impl Target {
    /// For people: paths and queries of webhooks are often secrets.
    pub(super) fn place(&self) -> String {
        format!("webhook at {}", self.url.origin().ascii_serialization())
    }

    /// What is posted.
    pub(super) fn bodies(&self) -> Result<Bodies, String> {
        Bodies::new(self.per, self.preset, self.template.as_deref(), self.is_json, self.routing_key.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(value: &Value) -> Vec<String> {
        let errors = check(value).unwrap_err();
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn what_is_right_is_taken() {
        for right in [
            json!({"url": "https://example.com/x?sig=1"}),
            json!({"url": "${CM_URL}", "headers": {"X-Key": "${CM_KEY}"}, "secret": "${CM_S}"}),
            json!({"preset": "pagerduty", "routing_key": "k"}),
            json!({"preset": "opsgenie", "api_key": "k", "url": "https://api.eu.opsgenie.com/v2/alerts"}),
            json!({"preset": "teams", "url": "https://example.com/workflow"}),
            json!({"url": "http://127.0.0.1:1/x", "allow": ["127.0.0.1"]}),
            json!({"url": "http://[::1]:1/x", "allow": ["::1"]}),
            json!({"url": "https://e.com", "per": "event", "template": "{\"t\": {{ finding.title }}, \"e\": {{ event }}}"}),
            json!({"url": "https://e.com", "content_type": "text/plain", "template": "{{ headline }}"}),
        ] {
            check(&right).unwrap_or_else(|errors| panic!("{right}: {errors:?}"));
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_no_secret() {
        let one = |value: Value| said(&value).remove(0);
        assert_eq!(one(json!({})), "url: set `url`: where messages go (`https://...`)");
        assert!(one(json!({"url": "http://example.com"})).contains("name the host in `allow`"));
        assert!(one(json!({"url": "https://169.254.169.254/latest"})).contains("metadata"));
        assert!(one(json!({"url": "https://[::ffff:127.0.0.1]/"})).contains("loopback"));
        assert!(
            one(json!({"url": "https://e.com", "headers": {"Content-Length": "1"}}))
                .starts_with("headers.Content-Length")
        );
        let hidden = one(json!({"url": "https://e.com", "headers": {"X-Key": "hunter2\n"}}));
        assert!(hidden.starts_with("headers.X-Key") && !hidden.contains("hunter2"), "{hidden}");
        assert!(one(json!({"preset": "pagerduty"})).starts_with("routing_key"));
        assert!(one(json!({"url": "https://e.com", "template": "{{ headline"})).starts_with("template"));
        let no_json = one(json!({"url": "https://e.com", "template": "{\"a\": {{ headline }}"}));
        assert!(no_json.contains("JSON"), "{no_json}");
        let unknown = one(json!({"url": "https://e.com", "template": "{{ hedline }}"}));
        assert!(unknown.contains("hedline"), "{unknown}");
        let target = read(&json!({"url": "https://example.com/hook/hunter2?k=hunter2", "secret": "hunter2"})).unwrap();
        assert_eq!(target.place(), "webhook at https://example.com");
    }
}
