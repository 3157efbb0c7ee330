//! What all clouds need of HTTP: endpoints that may be trusted with a token, bounded answers, timeouts, and the
//! server's wish to wait.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use proto::coverage::State;
use proto::service::metrics;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode, redirect};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use url::{Host, Url};

use crate::cloud::WorkError;

/// The largest body that is taken, decompressed, in bytes.
pub const MAX_BODY: usize = 64 * 1024 * 1024;

/// How often a server may send us on within its own origin.
const MAX_REDIRECTS: usize = 3;

/// Where a service is: scheme, host and port, nothing else. Plain http is for loopback addresses only, where
/// simulators and proxies listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is not a URL.
    #[error("it is not a URL ({0}); write it like `https://host` or `https://host:port`")]
    NotAUrl(#[from] url::ParseError),
    /// Its scheme is another than http and https.
    #[error("its scheme is `{0}`; write it like `https://host` or `https://host:port`")]
    Scheme(String),
    /// It is plain http to another host than this one.
    #[error("plain http to `{0}` would show the token to the network: use https (http is for loopback addresses only)")]
    PlainHttp(String),
    /// There is more to it than scheme, host and port.
    #[error("it has {0}; write scheme, host and port only, like `https://host:port`")]
    TooMuch(&'static str),
}

impl Endpoint {
    /// Reads an endpoint.
    ///
    /// ```
    /// use collector::http::Endpoint;
    ///
    /// assert!(Endpoint::parse("https://management.azure.com").is_ok());
    /// assert!(Endpoint::parse("http://127.0.0.1:8900").is_ok());
    /// assert!(Endpoint::parse("http://management.azure.com").is_err());
    /// ```
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let url = Url::parse(text)?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(EndpointError::Scheme(url.scheme().to_owned()));
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(EndpointError::PlainHttp(url.host_str().unwrap_or_default().to_owned()));
        }
        match () {
            () if has_credentials(&url) => Err(EndpointError::TooMuch("credentials")),
            () if url.path() != "/" => Err(EndpointError::TooMuch("a path")),
            () if url.query().is_some() => Err(EndpointError::TooMuch("a query")),
            () if url.fragment().is_some() => Err(EndpointError::TooMuch("a fragment")),
            () => Ok(Self(url)),
        }
    }

    /// The endpoint that a URL is at.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn of(url: &Url) -> Result<Self, EndpointError> {
        if has_credentials(url) {
            Err(EndpointError::TooMuch("credentials"))
        } else {
            Self::parse(&url.origin().ascii_serialization())
        }
    }

    /// The URL of a path (absolute, already encoded) and a query (already encoded) at this endpoint.
    #[must_use]
    pub fn url(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url.set_query(query);
        url
    }

    /// Whether a URL leads to this endpoint, so that it may be trusted with the endpoint's token.
    #[must_use]
    pub fn is_origin_of(&self, url: &Url) -> bool {
        url.origin() == self.0.origin() && !has_credentials(url)
    }

    /// Whether it is on this host.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// The host's name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The endpoint as if it were reached by https: for libraries that insist.
    #[must_use]
    pub fn as_https(&self) -> String {
        match self.0.port_or_known_default() {
            Some(port) => format!("https://{}:{port}", self.host()),
            None => format!("https://{}", self.host()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// How long is waited for a server.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub read: Duration,
    /// For a whole exchange, however steadily its bytes come.
    pub whole: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), read: Duration::from_secs(60), whole: Duration::from_secs(300) }
    }
}

/// What may be asked of the clouds at once: shared by all plugins of a worker.
///
/// Room for an answer is reserved before the call, by the size that such answers had so far, and given back when the
/// answer is dropped. An answer that turns out larger takes what is free, and is otherwise read alone, one at a time. So
/// memory is bounded by bytes, whatever the pages hold.
///
/// Nobody waits for room who holds some, or whose answer others wait for with theirs: the first call of a unit's item
/// waits, further ones do not ([`Client::free_room`]). And no wait is for ever.
#[derive(Debug)]
pub struct Limits {
    calls: Arc<Semaphore>,
    /// In blocks.
    bytes: Arc<Semaphore>,
    blocks: usize,
    /// Whoever reads a body for which there is no room.
    beyond: Mutex<()>,
}

/// The bodies in flight, in bytes.
pub const MAX_IN_FLIGHT: usize = 64 * 1024 * 1024;
/// What room is counted in, in bytes.
const BLOCK: usize = 4 * 1024;
/// How long a call waits for room before it takes what is free.
const ROOM_PATIENCE: Duration = Duration::from_secs(20);

impl Limits {
    /// So many calls at once, and [`MAX_IN_FLIGHT`] bytes.
    #[must_use]
    pub fn new(calls: usize) -> Arc<Self> {
        Self::of(calls, MAX_IN_FLIGHT)
    }

    /// So many calls at once, and so many bytes.
    #[must_use]
    pub fn of(calls: usize, bytes: usize) -> Arc<Self> {
        let blocks = (bytes / BLOCK).clamp(4, Semaphore::MAX_PERMITS);
        let calls = Arc::new(Semaphore::new(calls.max(1)));
        Arc::new(Self { calls, bytes: Arc::new(Semaphore::new(blocks)), blocks, beyond: Mutex::default() })
    }

    /// Room for so many bytes, at most a fourth of all there is, so that nothing keeps all else waiting.
    fn share(&self, bytes: usize) -> u32 {
        u32::try_from((bytes / BLOCK + 1).min(self.blocks / 4)).unwrap_or(u32::MAX)
    }
}

/// How large the answers to a kind of call are, in bytes: it learns.
#[derive(Debug)]
pub struct Expected(AtomicUsize);

impl Expected {
    /// A first guess.
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Larger at once, smaller by and by.
    pub fn learn(&self, bytes: usize) {
        let old = self.0.load(Ordering::Relaxed);
        self.0.store(bytes.max(old - old / 4 + bytes / 4), Ordering::Relaxed);
    }
}

/// The turn of a call among those in flight.
#[derive(Debug)]
pub struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

/// An answer, whatever its status, with its whole body.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Vec<u8>,
    /// What it takes of [`Limits`] for as long as it is kept.
    pub room: Room,
}

/// Room among the bytes in flight.
#[derive(Debug, Default)]
pub struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    fn blocks(&self) -> usize {
        self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Takes what is free, up to so many bytes in all; whether that is enough.
    fn grow(&mut self, bytes: usize, limits: &Limits) -> bool {
        let wanted = (bytes / BLOCK + 1).saturating_sub(self.blocks()).min(limits.bytes.available_permits());
        let more = u32::try_from(wanted).ok().filter(|wanted| *wanted > 0);
        if let Some(more) = more.and_then(|more| Arc::clone(&limits.bytes).try_acquire_many_owned(more).ok()) {
            match &mut self.0 {
                Some(permit) => permit.merge(more),
                None => self.0 = Some(more),
            }
        }
        self.blocks() * BLOCK >= bytes
    }

    /// Gives back what is more than so many bytes.
    fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0
            && let Some(spare) = permit.num_permits().checked_sub(bytes / BLOCK + 1)
        {
            drop(permit.split(spare));
        }
    }
}

impl Answer {
    /// How long the server asks to wait, if it says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers, SystemTime::now())
    }

    /// What the server's clock showed, if it says so.
    #[must_use]
    pub fn server_time(&self) -> Option<SystemTime> {
        self.headers.get(header::DATE).and_then(|value| value.to_str().ok()).and_then(http_date)
    }
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The network failed, the body was cut off, or it took too long.
    #[error("{call}: {reason}")]
    Transient {
        /// The method and the URL without its query.
        call: String,
        /// What failed.
        reason: String,
    },
    /// The body is too large.
    #[error("{call}: the answer is larger than {} MiB", MAX_BODY / 1024 / 1024)]
    TooLarge {
        /// The method and the URL without its query.
        call: String,
    },
}

impl From<HttpError> for WorkError {
    fn from(error: HttpError) -> Self {
        let reason = error.to_string();
        match error {
            HttpError::Transient { .. } => Self::Transient { reason },
            HttpError::TooLarge { .. } => Self::NotRead { state: State::Failed, reason },
        }
    }
}

/// A client: a pool of connections with timeouts and bounds. It follows redirects within an origin only, so that a
/// token never reaches another.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    limits: Arc<Limits>,
    /// The plugin's own limit of calls in flight.
    calls: Option<Arc<Semaphore>>,
    /// What each call within the limits carries beside its token.
    headers: HeaderMap,
}

impl Client {
    /// A client. A `direct` one takes no proxy from the environment: for loopback endpoints.
    ///
    /// # Errors
    /// When TLS cannot be set up: mostly because this host has no CA certificates.
    pub fn new(timeouts: Timeouts, direct: bool, limits: Arc<Limits>) -> reqwest::Result<Self> {
        ensure_crypto_provider();
        let builder = reqwest::Client::builder()
            .user_agent(concat!("cloudmarker/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeouts.connect)
            .read_timeout(timeouts.read)
            .timeout(timeouts.whole)
            .gzip(true)
            .redirect(redirect::Policy::custom(within_origin));
        let builder = if direct { builder.no_proxy() } else { builder };
        Ok(Self { http: builder.build()?, limits, calls: None, headers: HeaderMap::new() })
    }

    /// The same with a limit of its own, within that of the worker.
    #[must_use]
    pub fn with_concurrency(self, calls: Option<usize>) -> Self {
        Self { calls: calls.map(|calls| Arc::new(Semaphore::new(calls.max(1)))), ..self }
    }

    /// The same with headers for each call within the limits: whom it is charged to, say.
    #[must_use]
    pub fn with_headers(self, headers: HeaderMap) -> Self {
        Self { headers, ..self }
    }

    /// Waits for room for an answer, for a while. Do that first of all for a call: whoever waits for something else
    /// before, a token say, may come behind those whose answers are of no use before its own.
    pub async fn room(&self, expected: &Expected) -> Room {
        let blocks = self.limits.share(expected.bytes());
        let room = Arc::clone(&self.limits.bytes).acquire_many_owned(blocks);
        match tokio::time::timeout(ROOM_PATIENCE, room).await {
            // Nobody closes these: an error cannot be.
            Ok(room) => Room(room.ok()),
            Err(_) => self.free_room(expected),
        }
    }

    /// What room is free, without waiting: for whoever keeps others waiting.
    #[must_use]
    pub fn free_room(&self, expected: &Expected) -> Room {
        let mut room = Room::default();
        room.grow(expected.bytes(), &self.limits);
        room
    }

    /// Waits for the turn of a call, which ends when it is dropped. A token that is taken afterwards does not grow old
    /// in the queue.
    pub async fn turn(&self) -> Turn {
        // Nobody closes these: an error cannot be.
        let own = match &self.calls {
            Some(calls) => Arc::clone(calls).acquire_owned().await.ok(),
            None => None,
        };
        Turn { _own: own, _all: Arc::clone(&self.limits.calls).acquire_owned().await.ok() }
    }

    /// Gets a URL with a bearer token, within the limits. The answer keeps the room.
    ///
    /// # Errors
    /// When there is no whole answer: see [`HttpError`].
    pub async fn get(&self, url: &Url, token: &str, room: Room) -> Result<Answer, HttpError> {
        let turn = self.turn().await;
        self.get_in(&turn, url, token, room).await
    }

    /// The same when it is the call's turn.
    ///
    /// # Errors
    /// When there is no whole answer: see [`HttpError`].
    pub async fn get_in(&self, _: &Turn, url: &Url, token: &str, mut room: Room) -> Result<Answer, HttpError> {
        let request = self.http.get(url.clone()).headers(self.headers.clone()).bearer_auth(token);
        let request = request.header(header::ACCEPT, "application/json");
        let answer = exchange(call("GET", url), request, Some((&mut room, &self.limits))).await?;
        room.shrink(answer.body.len());
        Ok(Answer { room, ..answer })
    }

    /// Gets a URL with these headers: for sign-ins, which no limit holds up.
    ///
    /// # Errors
    /// When there is no whole answer: see [`HttpError`].
    pub async fn get_with(&self, url: &Url, headers: HeaderMap) -> Result<Answer, HttpError> {
        exchange(call("GET", url), self.http.get(url.clone()).headers(headers), None).await
    }

    /// Posts a form: for sign-ins, which no limit holds up.
    ///
    /// # Errors
    /// When there is no whole answer: see [`HttpError`].
    pub async fn post_form(&self, url: &Url, form: impl Into<reqwest::Body>) -> Result<Answer, HttpError> {
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = self.http.post(url.clone()).header(header::CONTENT_TYPE, form_type).body(form);
        exchange(call("POST", url), request, None).await
    }

    /// Posts JSON with a bearer token: for sign-ins that need another one first, which no limit holds up.
    ///
    /// # Errors
    /// When there is no whole answer: see [`HttpError`].
    pub async fn post_json(&self, url: &Url, token: &str, json: String) -> Result<Answer, HttpError> {
        let json_type = HeaderValue::from_static("application/json");
        let request = self.http.post(url.clone()).bearer_auth(token).header(header::CONTENT_TYPE, json_type).body(json);
        exchange(call("POST", url), request, None).await
    }

    /// Sends a request as it is, when it is the call's turn: one that is signed, say. The answer keeps the room.
    ///
    /// # Errors
    /// When there is no whole answer: see [`HttpError`].
    pub async fn send_in(&self, _: &Turn, request: Outgoing, mut room: Room) -> Result<Answer, HttpError> {
        let (call, request) = self.request(request);
        let answer = exchange(call, request, Some((&mut room, &self.limits))).await?;
        room.shrink(answer.body.len());
        Ok(Answer { room, ..answer })
    }

    /// Sends a request as it is: for sign-ins, which no limit holds up.
    ///
    /// # Errors
    /// When there is no whole answer: see [`HttpError`].
    pub async fn send(&self, request: Outgoing) -> Result<Answer, HttpError> {
        let (call, request) = self.request(request);
        exchange(call, request, None).await
    }

    fn request(&self, request: Outgoing) -> (String, RequestBuilder) {
        let Outgoing { method, url, headers, body } = request;
        let call = call(method.as_str(), &url);
        (call, self.http.request(method, url).headers(headers).body(body))
    }
}

/// A request that somebody else has made.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// All headers but those that every request has.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// A call as error texts name it: the query may hold what is nobody's business, and is never shown.
#[must_use]
pub fn call(method: &str, url: &Url) -> String {
    format!("{method} {}{}", url.origin().ascii_serialization(), url.path())
}

/// A server's words in an error: at most so many characters, on one line.
pub(crate) fn bounded(text: &str, most: usize) -> String {
    let mut characters = text.trim().chars();
    let mut bounded: String = characters.by_ref().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if characters.next().is_some() {
        bounded.push('…');
    }
    bounded
}

/// A TLS client without a provider is a panic. The programs install theirs first; tests and embedders may not.
fn ensure_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that somebody else was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn within_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let first = attempt.previous().first().map(Url::origin);
    if first == Some(attempt.url().origin()) && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

async fn exchange(
    call: String,
    request: RequestBuilder,
    mut room: Option<(&mut Room, &Limits)>,
) -> Result<Answer, HttpError> {
    tracing::trace!(call, "asking");
    let transient = |error| HttpError::Transient { call: call.clone(), reason: explain(error) };
    let began = Instant::now();
    let sent = request.send().await;
    metrics::cloud_request(sent.as_ref().ok().map(|response| response.status().as_u16()), began.elapsed());
    let mut response = sent.map_err(transient)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    let mut alone = None;
    while let Some(chunk) = response.chunk().await.map_err(transient)? {
        let length = body.len() + chunk.len();
        if length > MAX_BODY {
            return Err(HttpError::TooLarge { call });
        }
        if let Some((room, limits)) = &mut room
            && alone.is_none()
            && !room.grow(length, limits)
        {
            // A body beyond all bounds is read while no other such one is.
            alone = Some(limits.beyond.lock().await);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, body, room: Room::default() })
}

/// The error with its causes, without the URL and its query.
fn explain(error: reqwest::Error) -> String {
    let what = match () {
        () if error.is_timeout() => "it took too long",
        () if error.is_connect() => "cannot connect",
        () if error.is_body() || error.is_decode() => "the answer was cut off",
        () => "the exchange failed",
    };
    let error = error.without_url();
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes.dedup();
    if causes.is_empty() { what.to_owned() } else { format!("{what}: {}", causes.join(": ")) }
}

/// `Retry-After` in seconds or as a date. A date is compared with the server's own clock, if it shows it.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wanted = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(wanted)?;
    let now = text(header::DATE).and_then(http_date).unwrap_or(now);
    Some(until.duration_since(now).unwrap_or_default())
}

fn http_date(text: &str) -> Option<SystemTime> {
    azure_core::time::parse_rfc7231(text).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_origin_that_may_be_trusted() {
        for good in ["https://login.example", "https://login.example:8443/", "http://localhost:1", "http://[::1]:1"] {
            assert!(Endpoint::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("login.example", "not a URL"),
            ("ftp://login.example", "scheme"),
            ("http://login.example", "plain http"),
            ("http://127.0.0.1.example", "plain http"),
            ("https://user:word@login.example", "credentials"),
            ("https://login.example/tenant", "a path"),
            ("https://login.example?x", "a query"),
            ("https://login.example#x", "a fragment"),
        ] {
            let error = Endpoint::parse(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn only_its_own_origin_is_an_endpoints() {
        let endpoint = Endpoint::parse("https://management.azure.com").unwrap();
        let is_origin_of = |url| endpoint.is_origin_of(&Url::parse(url).unwrap());
        assert!(is_origin_of("https://MANAGEMENT.azure.com:443/subscriptions?x=y"));
        for foreign in [
            "http://management.azure.com/",
            "https://management.azure.com:444/",
            "https://management.azure.com.example/",
            "https://management.azure.com@example/",
            "https://user@management.azure.com/",
        ] {
            assert!(!is_origin_of(foreign), "{foreign}");
        }
        assert_eq!(endpoint.to_string(), "https://management.azure.com");
        assert_eq!(Endpoint::parse("http://127.0.0.1").unwrap().as_https(), "https://127.0.0.1:80");
        assert_eq!(Endpoint::parse("http://[::1]:9").unwrap().as_https(), "https://[::1]:9");
    }

    #[test]
    fn room_is_as_large_as_the_body_and_given_back_with_it() {
        let limits = Limits::of(1, 1000 * BLOCK);
        let reserve = |blocks| Room(Arc::clone(&limits.bytes).try_acquire_many_owned(blocks).ok());
        let (mut small, mut large) = (reserve(100), reserve(1));
        small.shrink(BLOCK);
        assert!(large.grow(100 * BLOCK, &limits));
        assert_eq!(limits.bytes.available_permits(), 1000 - 2 - 101);
        // It takes what there is, and says that it is not enough.
        assert!(!large.grow(5000 * BLOCK, &limits));
        assert_eq!(limits.bytes.available_permits(), 0);
        drop((small, large));
        assert_eq!(limits.bytes.available_permits(), 1000);
    }

    #[test]
    fn what_is_expected_grows_at_once_and_shrinks_by_and_by() {
        let expected = Expected::new(1024 * BLOCK);
        expected.learn(2048 * BLOCK);
        assert_eq!(expected.bytes(), 2048 * BLOCK);
        for _ in 0..50 {
            expected.learn(BLOCK);
        }
        assert!(expected.bytes() < 10 * BLOCK, "{}", expected.bytes());
        let limits = Limits::of(1, 1000 * BLOCK);
        assert_eq!((limits.share(0), limits.share(10 * BLOCK), limits.share(usize::MAX)), (1, 11, 250));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wait = |value: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            if let Some(date) = date {
                headers.insert(header::DATE, date.parse().unwrap());
            }
            retry_after(&headers, SystemTime::UNIX_EPOCH)
        };
        assert_eq!(wait("17", None), Some(Duration::from_secs(17)));
        assert_eq!(wait("Thu, 01 Jan 1970 00:00:30 GMT", None), Some(Duration::from_secs(30)));
        let server = Some("Sun, 06 Nov 1994 08:49:00 GMT");
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", server), Some(Duration::from_secs(37)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT", server), Some(Duration::ZERO));
        assert_eq!(wait("soon", None), None);
        assert_eq!(wait("-1", None), None);
    }
}
