//! A strict imitation of Splunk's HTTP Event Collector: a real one is not to be had as a package.
//!
//! It answers as Splunk documents it, and takes only what is documented: requests are refused that a real one might
//! forgive. Splunk's own client for Python works with it (`tests/sdk/splunk_proof.py`).

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use flate2::read::GzDecoder;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::Certificates;

/// How long a client may take for its part of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The largest request that a real one takes by default.
const MAX_CONTENT: usize = 838_860_800;

/// What a token is made for.
#[derive(Debug, Clone)]
pub struct Token {
    /// The indexes that it may write to; the first is its own.
    pub indexes: Vec<String>,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether indexers confirm its events.
    pub acknowledges: bool,
}

impl Token {
    /// An enabled one for these indexes, without confirmations.
    #[must_use]
    pub fn to(indexes: &[&str]) -> Self {
        let indexes = indexes.iter().map(|index| (*index).to_owned()).collect();
        Self { indexes, enabled: true, acknowledges: false }
    }
}

/// An answer that is given in place of the right one.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The HTTP status.
    pub status: u16,
    /// The code, if the answer is a collector's.
    pub code: Option<u16>,
    /// `Retry-After`, in seconds.
    pub wait: Option<u64>,
}

impl Fault {
    /// A collector's answer.
    #[must_use]
    pub fn coded(status: u16, code: u16) -> Self {
        Self { status, code: Some(code), wait: None }
    }
}

/// An event that was taken.
#[derive(Debug, Clone)]
pub struct Event {
    /// Seconds since 1970.
    pub time: Option<f64>,
    /// The host that it names.
    pub host: Option<String>,
    /// Where it says that it comes from.
    pub source: Option<String>,
    /// Its sourcetype.
    pub sourcetype: Option<String>,
    /// The index that it went to.
    pub index: String,
    /// The event, as it came.
    pub event: String,
}

impl Event {
    /// The event as JSON.
    ///
    /// # Panics
    /// Never: it was read once.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.event).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Inside {
    tokens: BTreeMap<String, Token>,
    faults: VecDeque<Fault>,
    events: Vec<Event>,
    /// What was asked of it, in words.
    requests: Vec<String>,
    /// The number that the first event of a request has in a refusal.
    first_number: usize,
    max_content: usize,
    /// Events with this text are bad.
    poison: Option<String>,
    /// How often indexers are asked before they confirm.
    polls: usize,
    /// By channel and number: how often it was asked for.
    unconfirmed: BTreeMap<(String, u64), usize>,
    numbers: BTreeMap<String, u64>,
}

type Shared = Arc<Mutex<Inside>>;

/// The collector, on a port of 127.0.0.1. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    inside: Shared,
    serving: JoinHandle<()>,
    port: u16,
    folder: TempDir,
    scheme: &'static str,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    /// Starts one that speaks http.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Self> {
        Self::launch(None).await
    }

    /// Starts one that speaks https.
    ///
    /// # Errors
    /// When it cannot listen, or has no certificate.
    pub async fn start_tls() -> Result<Self> {
        Self::launch(Some(Certificates::generate()?)).await
    }

    async fn launch(certificates: Option<Certificates>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("cm-hec-").tempdir().context("cannot create a folder")?;
        let inside = Arc::new(Mutex::new(Inside { max_content: MAX_CONTENT, ..Inside::default() }));
        let app = routes(Arc::clone(&inside));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen")?;
        let port = listener.local_addr()?.port();
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let serving = match certificates {
            None => tokio::spawn(async move {
                // It ends with the test.
                let _ = axum::serve(listener, app).await;
            }),
            Some(certificates) => {
                std::fs::write(folder.path().join("ca.pem"), &certificates.authority)?;
                std::fs::write(folder.path().join("other-ca.pem"), &certificates.other)?;
                let listener = Tls { listener, acceptor: acceptor(certificates)? };
                tokio::spawn(async move {
                    let _ = axum::serve(listener, app).await;
                })
            }
        };
        Ok(Self { inside, serving, port, folder, scheme })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        lock(&self.inside)
    }

    /// Its address with this path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The file of the authority that has signed its certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The file of an authority of the same name that has not.
    #[must_use]
    pub fn other_authority(&self) -> PathBuf {
        self.folder.path().join("other-ca.pem")
    }

    /// Knows this token from now on.
    pub fn add_token(&self, name: &str, token: Token) {
        self.inside().tokens.insert(name.to_owned(), token);
    }

    /// Gives this answer to the next request with events that has a good token.
    pub fn fail(&self, fault: Fault) {
        self.inside().faults.push_back(fault);
    }

    /// How the events of a request are counted when one is refused: from 0 or from 1.
    pub fn count_from(&self, first: usize) {
        self.inside().first_number = first;
    }

    /// Finds events with this text bad.
    pub fn refuse(&self, text: &str) {
        self.inside().poison = Some(text.to_owned());
    }

    /// The largest request that it takes, in bytes, unpacked.
    pub fn set_max_content(&self, bytes: usize) {
        self.inside().max_content = bytes;
    }

    /// How often its indexers are asked before they confirm.
    pub fn set_polls(&self, polls: usize) {
        self.inside().polls = polls;
    }

    /// All events that it has taken.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.inside().events.clone()
    }

    /// How many events it has taken.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inside().events.len()
    }

    /// Forgets the events that it has taken.
    pub fn clear(&self) {
        self.inside().events.clear();
    }

    /// What was asked of it, and what it answered: `POST /services/collector/event 200 0`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.inside().requests.clone()
    }
}

fn lock(inside: &Shared) -> MutexGuard<'_, Inside> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

fn routes(inside: Shared) -> Router {
    let mut router = Router::new()
        .route("/services/collector/ack", post(ack))
        .route("/services/collector/health", get(|| async { Answer::new(200, 17, "HEC is healthy") }));
    for path in ["/services/collector", "/services/collector/event", "/services/collector/event/1.0"] {
        router = router.route(path, post(collect));
    }
    router.layer(DefaultBodyLimit::disable()).with_state(inside)
}

/// An answer of a collector.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
    wait: Option<u64>,
}

impl Answer {
    fn new(status: u16, code: u16, text: &str) -> Self {
        Self { status, body: json!({"text": text, "code": code}), wait: None }
    }

    fn at(mut self, number: usize) -> Self {
        self.body["invalid-event-number"] = number.into();
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = if self.body.is_null() { "<html>somebody else</html>".to_owned() } else { self.body.to_string() };
        let mut response = (status, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body).into_response();
        if let Some(wait) = self.wait {
            response.headers_mut().insert(header::RETRY_AFTER, wait.into());
        }
        response
    }
}

async fn collect(State(inside): State<Shared>, headers: HeaderMap, body: Bytes) -> Answer {
    let mut inside = lock(&inside);
    let answer = inside.collect(&headers, &body).unwrap_or_else(|refusal| refusal);
    let zipped = if headers.contains_key(header::CONTENT_ENCODING) { " gzip" } else { "" };
    inside.requests.push(format!("event {} {}{zipped}", answer.status, answer.body["code"]));
    answer
}

async fn ack(State(inside): State<Shared>, headers: HeaderMap, body: Bytes) -> Answer {
    let mut inside = lock(&inside);
    let answer = inside.confirm(&headers, &body).unwrap_or_else(|refusal| refusal);
    inside.requests.push(format!("ack {}", answer.status));
    answer
}

impl Inside {
    fn token(&self, headers: &HeaderMap) -> Result<Token, Answer> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(Answer::new(401, 2, "Token is required"));
        };
        let Some(name) = value.to_str().ok().and_then(|value| value.strip_prefix("Splunk ")) else {
            return Err(Answer::new(401, 3, "Invalid authorization"));
        };
        match self.tokens.get(name) {
            None => Err(Answer::new(403, 4, "Invalid token")),
            Some(token) if !token.enabled => Err(Answer::new(403, 1, "Token disabled")),
            Some(token) => Ok(token.clone()),
        }
    }

    fn collect(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Answer> {
        let token = self.token(headers)?;
        let channel = channel(headers)?;
        if token.acknowledges && channel.is_none() {
            return Err(Answer::new(400, 10, "Data channel is missing"));
        }
        let body = self.unpacked(headers, body)?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Answer::new(400, 5, "No data"));
        }
        if let Some(fault) = self.faults.pop_front() {
            let body = fault.code.map_or(Value::Null, |code| json!({"text": "As the test says", "code": code}));
            return Err(Answer { status: fault.status, body, wait: fault.wait });
        }
        let (events, refusal) = self.read(&body, &token);
        // Those before a bad one are taken: that is how a real one counts them.
        self.events.extend(events);
        if let Some((number, refusal)) = refusal {
            return Err(refusal.at(number + self.first_number));
        }
        let mut answer = Answer::new(200, 0, "Success");
        if let Some(channel) = channel.filter(|_| token.acknowledges) {
            let number = self.numbers.entry(channel.clone()).or_default();
            answer.body["ackId"] = (*number).into();
            self.unconfirmed.insert((channel, *number), 0);
            *number += 1;
        }
        Ok(answer)
    }

    fn unpacked(&self, headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>, Answer> {
        let mut unpacked = Vec::new();
        match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
            None => unpacked.extend_from_slice(body),
            Some(b"gzip") => {
                let reading = GzDecoder::new(body).read_to_end(&mut unpacked);
                reading.map_err(|_| Answer::new(400, 6, "Invalid data format"))?;
            }
            Some(_) => return Err(Answer { status: 415, body: Value::Null, wait: None }),
        }
        if unpacked.len() > self.max_content {
            return Err(Answer { status: 413, body: Value::Null, wait: None });
        }
        Ok(unpacked)
    }

    fn confirm(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Answer> {
        let token = self.token(headers)?;
        if !token.acknowledges {
            return Err(Answer::new(400, 14, "ACK is disabled"));
        }
        let channel = channel(headers)?.ok_or_else(|| Answer::new(400, 10, "Data channel is missing"))?;
        let asked: Value = serde_json::from_slice(body).map_err(|_| Answer::new(400, 6, "Invalid data format"))?;
        let mut acks = serde_json::Map::new();
        for number in asked["acks"].as_array().into_iter().flatten().filter_map(Value::as_u64) {
            let key = (channel.clone(), number);
            let confirmed = match self.unconfirmed.get_mut(&key) {
                Some(asked) if *asked >= self.polls => {
                    // A confirmation is given once.
                    self.unconfirmed.remove(&key);
                    true
                }
                Some(asked) => {
                    *asked += 1;
                    false
                }
                None => false,
            };
            acks.insert(number.to_string(), confirmed.into());
        }
        Ok(Answer { status: 200, body: json!({"acks": acks}), wait: None })
    }

    /// The events of a request up to the first bad one, its place, and what is said of it.
    fn read(&self, body: &[u8], token: &Token) -> (Vec<Event>, Option<(usize, Answer)>) {
        let mut events = Vec::new();
        for object in serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>() {
            let event = match object {
                Ok(object) if self.poison.as_ref().is_none_or(|poison| !object.get().contains(poison)) => {
                    event(object, token)
                }
                _ => Err(Answer::new(400, 6, "Invalid data format")),
            };
            match event {
                Ok(event) => events.push(event),
                Err(refusal) => {
                    let place = events.len();
                    return (events, Some((place, refusal)));
                }
            }
        }
        (events, None)
    }
}

/// The channel of a request: a UUID.
fn channel(headers: &HeaderMap) -> Result<Option<String>, Answer> {
    let Some(channel) = headers.get("x-splunk-request-channel") else { return Ok(None) };
    let channel = channel.to_str().unwrap_or_default();
    let parts: Vec<&str> = channel.split('-').collect();
    let is_hex = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if is_hex && parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) {
        Ok(Some(channel.to_owned()))
    } else {
        Err(Answer::new(400, 11, "Invalid data channel"))
    }
}

fn event(object: &RawValue, token: &Token) -> Result<Event, Answer> {
    let invalid = || Answer::new(400, 6, "Invalid data format");
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(object.get()).map_err(|_| invalid())?;
    const NAMES: [&str; 7] = ["time", "host", "source", "sourcetype", "index", "event", "fields"];
    if !fields.keys().all(|name| NAMES.contains(&name.as_str())) {
        return Err(invalid());
    }
    let text = |name: &str| -> Result<Option<String>, Answer> {
        fields.get(name).map(|value| serde_json::from_str(value.get()).map_err(|_| invalid())).transpose()
    };
    let time = match fields.get("time").map(|time| time.get().trim_matches('"').parse::<f64>()) {
        None => None,
        Some(Ok(time)) => Some(time),
        Some(Err(_)) => return Err(invalid()),
    };
    let index = text("index")?;
    let index = match index.or_else(|| token.indexes.first().cloned()) {
        Some(index) if token.indexes.contains(&index) => index,
        _ => return Err(Answer::new(400, 7, "Incorrect index")),
    };
    if let Some(fields) = fields.get("fields") {
        let flat = serde_json::from_str::<BTreeMap<String, Value>>(fields.get());
        if !flat.is_ok_and(|fields| fields.values().all(|value| !value.is_object() && !value.is_null())) {
            return Err(Answer::new(400, 15, "Error in handling indexed fields"));
        }
    }
    let event = match fields.get("event").map(|event| event.get()) {
        None | Some("null") => return Err(Answer::new(400, 12, "Event field is required")),
        Some("\"\"") => return Err(Answer::new(400, 13, "Event field cannot be blank")),
        Some(event) => event.to_owned(),
    };
    Ok(Event { time, host: text("host")?, source: text("source")?, sourcetype: text("sourcetype")?, index, event })
}

fn acceptor(certificates: Certificates) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("no version of TLS is to be had")?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificates.certificate)],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificates.key)),
        )
        .context("the certificate does not fit its key")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Hands out connections whose handshake is done, one after the other.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, peer)) = self.listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
