//! Asks the server: bounded, signed in, and with reasons in plain words when there is no answer.

use std::error::Error;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proto::config::Environment;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Certificate, Method, StatusCode, redirect};
use rustls::CertificateError;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::params::{Login, Settings};
use crate::store::StoreError;

/// The largest answer that is taken, in bytes. That to a batch of which every document was refused has some hundred
/// bytes for each.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// How much of the server's words is told.
const LONGEST_WORDS: usize = 500;

const CONNECT: Duration = Duration::from_secs(10);
/// The servers themselves wait up to a minute for a shard.
const READ: Duration = Duration::from_secs(120);
const WHOLE: Duration = Duration::from_secs(600);

/// What is said of a connection that the server, or somebody between, has ended.
const CUT: &str = "the connection was cut";
const PLAIN: &str = "if it is plain http, set `url: http://...`";

/// A client of one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    login: Option<HeaderValue>,
    /// Who we are, in words.
    who: String,
}

/// What the server said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// What is sent.
#[derive(Debug)]
pub(super) enum Payload {
    Nothing,
    Json(Value),
    /// One JSON text a line, compressed or not.
    Lines {
        body: Bytes,
        gzip: bool,
    },
}

impl Client {
    /// A client that connects to nobody yet.
    ///
    /// # Errors
    /// When the certificates cannot be read, or TLS cannot be set up.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        ensure_crypto_provider();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("cloudmarker/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(READ)
            .timeout(WHOLE)
            .gzip(true)
            .redirect(redirect::Policy::none());
        if let Some(path) = &settings.ca_cert {
            builder = builder.tls_certs_only(certificates(path)?);
        }
        if !settings.verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        if is_loopback(&settings.base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| format!("cannot set up TLS: {}", chain(&error)))?;
        let (login, who) = match &settings.login {
            Login::Nobody => (None, "somebody without a name".to_owned()),
            Login::User { name, password } => {
                let pair = STANDARD.encode(format!("{name}:{}", password.expose()));
                (Some(format!("Basic {pair}")), format!("the user `{name}`"))
            }
            Login::ApiKey(key) => (Some(format!("ApiKey {}", key.expose())), "the owner of the API key".to_owned()),
        };
        let login = login.map(HeaderValue::try_from).transpose().map_err(|_| "the API key is none".to_owned())?;
        let login = login.map(|mut login| {
            login.set_sensitive(true);
            login
        });
        Ok(Self { http, base: settings.base.clone(), login, who })
    }

    /// Where the server is, for people.
    pub(super) fn place(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Asks, whatever the status of the answer. The path is relative, and encoded.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub(super) async fn ask(&self, method: Method, path: &str, payload: Payload) -> Result<Answer, StoreError> {
        let url =
            self.base.join(path).map_err(|error| StoreError::Permanent(format!("cannot ask for {path}: {error}")))?;
        let mut request = self.http.request(method, url);
        if let Some(login) = &self.login {
            request = request.header(header::AUTHORIZATION, login);
        }
        request = match payload {
            Payload::Nothing => request,
            Payload::Json(value) => request.json(&value),
            Payload::Lines { body, gzip } => {
                let request = request.header(header::CONTENT_TYPE, "application/x-ndjson").body(body);
                if gzip { request.header(header::CONTENT_ENCODING, "gzip") } else { request }
            }
        };
        let mut response = request.send().await.map_err(|error| self.explain(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.explain(error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                let reason = format!("{}: the answer is larger than {} MiB", self.place(), MAX_ANSWER >> 20);
                return Err(StoreError::Transient { reason, wait: None });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }

    /// Why there is no answer: what is wrong with the server's certificate stays so; a network mends.
    fn explain(&self, error: reqwest::Error) -> StoreError {
        let place = self.place();
        if let Some(refusal) = tls_error(&error) {
            return match tls_words(refusal) {
                Some(words) => StoreError::Permanent(format!("{place}: {words}")),
                None => StoreError::Transient { reason: format!("{place}: TLS failed: {refusal}"), wait: None },
            };
        }
        let what = match () {
            () if error.is_timeout() => "it did not answer in time",
            () if error.is_connect() => "it cannot be reached",
            () if error.is_body() || error.is_decode() => "its answer was cut off",
            () => CUT,
        };
        let why = chain(&error.without_url());
        // Who waits for TLS ends a connection that begins otherwise, and the other way round.
        let hint = match self.base.scheme() {
            "http" if what == CUT => format!("; if it speaks TLS, set `url: {}`", place.replacen("http", "https", 1)),
            "https" if why.contains("handshake eof") => format!("; {PLAIN}"),
            _ => String::new(),
        };
        let reason = format!("{place}: {what}: {why}{hint}");
        StoreError::Transient { reason, wait: None }
    }

    /// What an answer that is no success means to whoever wanted to do something.
    pub(super) fn failure(&self, answer: &Answer, what: &str) -> StoreError {
        let (place, who, words) = (self.place(), &self.who, answer.words());
        let told = |remedy: &str| format!("{place}: cannot {what}: {words}; {remedy}");
        match answer.status {
            StatusCode::UNAUTHORIZED if self.login.is_none() => {
                StoreError::Permanent(told("it wants to know who we are: set `username` and `password`, or `api_key`"))
            }
            StatusCode::UNAUTHORIZED => StoreError::Permanent(format!(
                "{place} does not know {who}, or the password is wrong: {words}; check them"
            )),
            StatusCode::FORBIDDEN => {
                StoreError::Permanent(format!("{place} does not allow {who} to {what}: {words}; give it the right to"))
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                StoreError::TooLarge(format!("{place}: the request is too large: {words}"))
            }
            status if is_passing(status) => {
                StoreError::Transient { reason: format!("{place}: cannot {what}: {words}"), wait: answer.retry_after() }
            }
            status if status.is_redirection() => {
                let to = answer.headers.get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
                StoreError::Permanent(format!("{place} sends us on to {to}; if that is the server, set it as `url`"))
            }
            _ => StoreError::Permanent(format!("{place}: cannot {what}: {words}")),
        }
    }
}

/// Whether a status may be another one later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

impl Answer {
    /// Its JSON; null when it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The server's words: the reason of its error, or how the answer begins.
    pub(super) fn words(&self) -> String {
        #[derive(Deserialize)]
        struct Failed {
            error: Reason,
        }
        let said = match serde_json::from_slice::<Failed>(&self.body) {
            Ok(Failed { error }) => error.words(),
            Err(_) => page_title(&String::from_utf8_lossy(self.body.get(..2 * LONGEST_WORDS).unwrap_or(&self.body))),
        };
        let status = self.status;
        if said.is_empty() { status.to_string() } else { shortened(&format!("{status}: {said}")) }
    }

    /// How long the server asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let wanted = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = wanted.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let until = jiff::fmt::rfc2822::parse(wanted).ok()?.timestamp();
        Some(SystemTime::from(until).duration_since(SystemTime::now()).unwrap_or_default())
    }
}

/// An error as the servers tell it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Reason {
    Said {
        #[serde(default, rename = "type")]
        kind: String,
        #[serde(default)]
        reason: Option<String>,
        #[serde(default)]
        caused_by: Option<Box<Reason>>,
    },
    Text(String),
    Other(serde::de::IgnoredAny),
}

impl Reason {
    /// The kind of error, `mapper_parsing_exception` say.
    pub(super) fn kind(&self) -> &str {
        match self {
            Self::Said { kind, .. } => kind,
            _ => "",
        }
    }

    /// In the server's words, with the causes that say more.
    pub(super) fn words(&self) -> String {
        let (mut words, mut this) = (String::new(), Some(self));
        while let Some(error) = this {
            let (kind, reason, cause) = match error {
                Self::Said { kind, reason, caused_by } => (kind.as_str(), reason.as_deref(), caused_by.as_deref()),
                Self::Text(text) => ("", Some(text.as_str()), None),
                Self::Other(_) => break,
            };
            let said = match (kind, reason.unwrap_or_default()) {
                ("", reason) => reason.to_owned(),
                (kind, "") => kind.to_owned(),
                (kind, reason) => format!("{kind}: {reason}"),
            };
            if !said.is_empty() && !reason.is_some_and(|reason| words.contains(reason)) {
                if !words.is_empty() {
                    words.push_str("; ");
                }
                words.push_str(&said);
            }
            this = cause;
        }
        shortened(&words)
    }
}

/// What a page for people says, as a proxy sends them; or the text, when it is none.
fn page_title(text: &str) -> String {
    let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    title.map_or(text, |(title, _)| title).trim().to_owned()
}

fn shortened(words: &str) -> String {
    let one_line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(LONGEST_WORDS) {
        Some((end, _)) => format!("{}...", one_line.get(..end).unwrap_or_default()),
        None => one_line,
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn certificates(path: &str) -> Result<Vec<Certificate>, String> {
    let path = Environment::of_process().path(path);
    let shown = path.display();
    let pem = std::fs::read(&path).map_err(|error| format!("ca_cert: cannot read {shown}: {error}"))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!(
            "ca_cert: there is no certificate in {shown}; it must be in PEM (`-----BEGIN CERTIFICATE-----`)"
        )),
    }
}

/// A TLS client without a provider is a panic. The programs install theirs first; tests and embedders may not.
fn ensure_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that somebody else was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn chain(error: &dyn Error) -> String {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes.dedup();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

/// What TLS says, wherever it stands among the causes.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What an I/O error wraps is not its source.
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// What is wrong with TLS, and what to do; nothing when it may be of the moment.
fn tls_words(error: &rustls::Error) -> Option<String> {
    let words = match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            // The signature is bad, too, when another authority has the same name: the one before a reinstallation.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is not from an authority that is trusted here; set `ca_cert` to that authority's"
                    .to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; renew it on the server".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is of another host ({wrong}); set `url` to a name that it is of")
            }
            _ => format!("its certificate is refused: {wrong}"),
        },
        rustls::Error::InvalidMessage(_) => format!("it does not speak TLS; {PLAIN}"),
        rustls::Error::PeerIncompatible(_) => format!("it speaks no TLS that is safe today: {error}"),
        rustls::Error::AlertReceived(_) => format!("it refused to speak TLS: {error}"),
        _ => return None,
    };
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn the_servers_words_are_found_in_every_form() {
        let deep = r#"{"error":{"type":"a","reason":"r","caused_by":{"type":"b","reason":"r","caused_by":{"type":"c",
            "reason":"deep"}}},"status":400}"#;
        assert_eq!(answer(400, deep).words(), "400 Bad Request: a: r; c: deep");
        assert_eq!(answer(400, r#"{"error":"no handler"}"#).words(), "400 Bad Request: no handler");
        assert_eq!(answer(502, "<html>\n Bad</html>").words(), "502 Bad Gateway: <html> Bad</html>");
        let page = "<html>\n<head><title>413 Too Large</title></head>\n<body><h1>413</h1></body></html>";
        assert_eq!(answer(413, page).words(), "413 Payload Too Large: 413 Too Large");
        assert_eq!(answer(503, "").words(), "503 Service Unavailable");
        assert!(answer(400, &"é".repeat(5000)).words().len() < 3 * LONGEST_WORDS);
        assert_eq!(answer(403, r#"{"error":{"type":"t","reason":null}}"#).words(), "403 Forbidden: t");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wait = |value: &str| {
            let mut answer = answer(503, "");
            answer.headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            answer.retry_after()
        };
        assert_eq!(wait("17"), Some(Duration::from_secs(17)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(wait("Sat, 06 Nov 2094 08:49:37 GMT").is_some_and(|wait| wait > Duration::from_secs(1_000_000)));
        assert_eq!(wait("soon"), None);
    }
}
