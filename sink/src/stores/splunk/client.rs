//! The exchange with a collector: bounded in time and size, without a redirect that would carry the token away.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use proto::config::Environment;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, redirect};
use ring::rand::{SecureRandom, SystemRandom};

use super::answer::Answer;
use super::params::{CaCert, Collector, Params};
use crate::store::StoreError;

/// How long is waited for a connection, and for a whole exchange.
const CONNECT: Duration = Duration::from_secs(10);
const EXCHANGE: Duration = Duration::from_secs(60);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
const CHANNEL: HeaderName = HeaderName::from_static("x-splunk-request-channel");

/// A client of one collector.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    collector: Collector,
    /// What confirmations are kept apart by.
    channel: HeaderValue,
}

impl Client {
    pub(super) fn new(params: &Params, collector: Collector) -> Result<Self, String> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // An error means that somebody else was first, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let mut token = HeaderValue::from_str(&format!("Splunk {}", params.token.expose()))
            .map_err(|_| "`token` holds a sign that no token has".to_owned())?;
        token.set_sensitive(true);
        let headers = HeaderMap::from_iter([
            (header::AUTHORIZATION, token),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("cloudmarker/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(EXCHANGE)
            .redirect(redirect::Policy::none())
            .default_headers(headers);
        if collector.is_loopback() {
            builder = builder.no_proxy();
        }
        match &params.ca_cert {
            Some(CaCert::File(path)) => builder = builder.tls_certs_only(authorities(path)?),
            Some(CaCert::Check(false)) => builder = builder.tls_danger_accept_invalid_certs(true),
            Some(CaCert::Check(true)) | None => {}
        }
        let http = builder.build().map_err(|error| format!("cannot set up TLS: {}", causes(&error)))?;
        Ok(Self { http, collector, channel: channel()? })
    }

    pub(super) fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Sends events.
    pub(super) async fn send(&self, lines: Vec<u8>, with_channel: bool) -> Result<Answer, StoreError> {
        let zipped = tokio::task::spawn_blocking(move || gzip(&lines)).await;
        let zipped = zipped.map_err(std::io::Error::other).and_then(|zipped| zipped);
        let zipped = zipped.map_err(|error| transient(format!("cannot compress events: {error}")))?;
        let request = self.http.post(self.collector.event.clone()).header(header::CONTENT_ENCODING, "gzip");
        self.exchange(if with_channel { request.header(CHANNEL, &self.channel) } else { request }.body(zipped)).await
    }

    /// Sends nothing: to see whether the server is there and takes the token.
    pub(super) async fn knock(&self, with_channel: bool) -> Result<Answer, StoreError> {
        let request = self.http.post(self.collector.event.clone());
        self.exchange(if with_channel { request.header(CHANNEL, &self.channel) } else { request }.body("")).await
    }

    /// Asks whether the events that were taken under this number are indexed.
    pub(super) async fn ask(&self, number: u64) -> Result<Answer, StoreError> {
        let request = self.http.post(self.collector.ack.clone()).header(CHANNEL, &self.channel);
        self.exchange(request.body(format!("{{\"acks\":[{number}]}}"))).await
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<Answer, StoreError> {
        let mut response = request.send().await.map_err(|error| self.explain(error))?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let wait = header(header::RETRY_AFTER).and_then(|wait| wait.trim().parse().ok()).map(Duration::from_secs);
        let location = header(header::LOCATION).map(str::to_owned);
        let (status, mut body) = (response.status(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.explain(error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(transient(format!("{}: the answer is larger than {MAX_ANSWER} bytes", self.collector)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body, wait, location })
    }

    fn explain(&self, error: reqwest::Error) -> StoreError {
        let what = match () {
            () if error.is_timeout() => "it took too long",
            () if error.is_connect() => "cannot connect",
            () => "the exchange failed",
        };
        let reason = format!("{}: {what}: {}", self.collector, causes(&error));
        if reason.contains("invalid peer certificate") {
            let todo = "set `ca_cert` to the file of the authority that has signed the certificate, or to `false`";
            return StoreError::Permanent(format!("{reason}; {todo}"));
        }
        if reason.contains("InvalidContentType") || reason.contains("corrupt message") {
            return StoreError::Permanent(format!("{reason}; the server does not speak https: check `uri`"));
        }
        transient(reason)
    }
}

fn transient(reason: String) -> StoreError {
    StoreError::Transient { reason, wait: None }
}

/// What is behind an error, without the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes.dedup();
    if causes.is_empty() { "no reason is known".to_owned() } else { causes.join(": ") }
}

fn authorities(path: &str) -> Result<Vec<Certificate>, String> {
    let path = Environment::of_process().path(path);
    let cannot = |reason: String| format!("`ca_cert`: cannot read {}: {reason}", path.display());
    let pem = std::fs::read(&path).map_err(|error| cannot(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| cannot(causes(&error)))?;
    if found.is_empty() { Err(cannot("it holds no certificate".to_owned())) } else { Ok(found) }
}

/// The fastest level: the documents are alike, so that there is little to gain by more.
fn gzip(lines: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(lines.len() / 8), Compression::fast());
    encoder.write_all(lines)?;
    encoder.finish()
}

/// A random UUID.
fn channel() -> Result<HeaderValue, String> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    let mut number = u128::from_be_bytes(bytes);
    number = (number & !(0xF << 76)) | (4 << 76);
    number = (number & !(0b11 << 62)) | (0b10 << 62);
    let hex = format!("{number:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default());
    HeaderValue::from_str(&parts.join("-")).map_err(|error| error.to_string())
}
