//! What stands before a server in real life: TLS, a password, limits, and answers that get lost.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::serve::Listener;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The user that may in.
pub const USER: &str = "elastic";
/// That user's password.
pub const PASSWORD: &str = "changeme";

/// What is done with a request instead of passing it on.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is answered so.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: String },
    /// It is passed on, and the answer is lost.
    LoseAnswer,
}

#[derive(Default)]
struct Script {
    /// Used up one by one by the requests whose paths have this text.
    once: Vec<(String, Fault)>,
    /// For all requests whose method and path (`PUT /_index_template/x`) begin so.
    always: Vec<(String, Fault)>,
    /// The methods, paths and headers of what came.
    seen: Vec<(String, HeaderMap)>,
}

#[derive(Clone)]
struct Inner {
    upstream: String,
    password: bool,
    limit: usize,
    http: reqwest::Client,
    script: Arc<Mutex<Script>>,
}

/// A reverse proxy on a port of its own.
pub struct Front {
    address: SocketAddr,
    tls: bool,
    ca_pem: String,
    script: Arc<Mutex<Script>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    /// Plain, and open to all.
    pub async fn plain(upstream: &str) -> Result<Self> {
        Self::start(upstream, false, false, usize::MAX, "localhost").await
    }

    /// Takes requests up to so many bytes.
    pub async fn limited(upstream: &str, limit: usize) -> Result<Self> {
        Self::start(upstream, false, false, limit, "localhost").await
    }

    /// With TLS, for [`USER`] only.
    pub async fn secure(upstream: &str) -> Result<Self> {
        Self::start(upstream, true, true, usize::MAX, "localhost").await
    }

    /// With TLS, and a certificate that is of another host.
    pub async fn misnamed(upstream: &str) -> Result<Self> {
        Self::start(upstream, true, false, usize::MAX, "another.example").await
    }

    async fn start(upstream: &str, tls: bool, password: bool, limit: usize, name: &str) -> Result<Self> {
        let (ca_pem, config) = identity(name)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let script = Arc::new(Mutex::new(Script::default()));
        let http = reqwest::Client::builder().no_proxy().build()?;
        let inner = Inner { upstream: upstream.to_owned(), password, limit, http, script: script.clone() };
        let router = Router::new().fallback(serve).with_state(inner);
        let task = tokio::spawn(async move {
            let served = match tls {
                true => axum::serve(TlsListener { listener, acceptor: TlsAcceptor::from(config) }, router).await,
                false => axum::serve(listener, router).await,
            };
            served.unwrap();
        });
        Ok(Self { address, tls, ca_pem, script, task })
    }

    pub fn url(&self) -> String {
        format!("{}://localhost:{}", if self.tls { "https" } else { "http" }, self.address.port())
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The certificate of the authority that vouches for it.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request with this text in its path meets this.
    pub fn once(&self, path: &str, fault: Fault) {
        self.script().once.push((path.to_owned(), fault));
    }

    /// All requests that begin so meet this.
    pub fn always(&self, method_and_path: &str, fault: Fault) {
        self.script().always.push((method_and_path.to_owned(), fault));
    }

    /// What came, with its headers.
    pub fn seen(&self) -> Vec<(String, HeaderMap)> {
        self.script().seen.clone()
    }
}

/// An answer with a body of JSON.
pub fn says(status: u16, body: impl Into<String>) -> Fault {
    let headers = vec![("content-type", "application/json".to_owned())];
    Fault::Answer { status, headers, body: body.into() }
}

async fn serve(State(inner): State<Inner>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let call = format!("{} {path}", parts.method);
    let fault = {
        let mut script = inner.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.seen.push((call.clone(), parts.headers.clone()));
        match script.once.iter().position(|(text, _)| path.contains(text)) {
            Some(place) => Some(script.once.remove(place).1),
            None => script.always.iter().find(|(text, _)| call.starts_with(text)).map(|(_, fault)| fault.clone()),
        }
    };
    let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    if inner.password && parts.headers.get(header::AUTHORIZATION).is_none_or(|given| given != expected.as_str()) {
        let body = r#"{"error":{"type":"security_exception","reason":"unable to authenticate user"},"status":401}"#;
        return answer(401, &[("www-authenticate", "Basic realm=\"security\"".to_owned())], body.into());
    }
    let Ok(body) = to_bytes(body, inner.limit).await else {
        return answer(413, &[], "<html><h1>413 Request Entity Too Large</h1></html>".into());
    };
    if let Some(Fault::Answer { status, headers, body }) = fault {
        return answer(status, &headers, body.into());
    }
    let mut request = inner.http.request(parts.method, format!("{}{path}", inner.upstream)).body(body);
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
        if let Some(value) = parts.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let Ok(answered) = request.send().await else { return answer(502, &[], Bytes::new()) };
    let status = answered.status().as_u16();
    let body = answered.bytes().await.unwrap_or_default();
    if matches!(fault, Some(Fault::LoseAnswer)) {
        let cut = futures::stream::once(async { Err::<Bytes, _>(io::Error::other("lost")) });
        return Response::new(Body::from_stream(cut));
    }
    answer(status, &[("content-type", "application/json".to_owned())], body)
}

fn answer(status: u16, headers: &[(&'static str, String)], body: Bytes) -> Response<Body> {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        answer.headers_mut().insert(*name, value.parse().unwrap());
    }
    answer
}

fn identity(name: &str) -> Result<(String, Arc<ServerConfig>)> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "Search test authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut server = CertificateParams::new(vec![name.to_owned()])?;
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .context("the certificate does not fit its key")?;
    Ok((authority.pem(), Arc::new(config)))
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, peer)) = self.listener.accept().await else { continue };
            // One after another will do: a client that breaks off the handshake is gone at once.
            if let Ok(Ok(stream)) = timeout(Duration::from_secs(5), self.acceptor.accept(stream)).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
