//! A receiver of webhooks: it records what is posted, and answers what it is told to.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What was posted.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The path and the query.
    pub uri: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// What was answered.
    pub status: u16,
}

impl Posted {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What is answered: the status and, as it is asked for, a header.
type Answer = (u16, Option<(&'static str, String)>);

#[derive(Debug, Default)]
struct Shared {
    posted: Vec<Posted>,
    answers: Vec<Answer>,
}

/// The receiver. Dropped, it ends.
#[derive(Debug)]
pub struct WebhookReceiver {
    port: u16,
    state: Arc<Mutex<Shared>>,
    server: JoinHandle<()>,
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(state: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WebhookReceiver {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let state: Arc<Mutex<Shared>> = Arc::default();
        let router = Router::new().fallback(receive).with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { port, state, server })
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Answers the next message that has no answer yet with this status, and a header; all others with 202.
    pub fn answer(&self, status: u16, header: Option<(&'static str, &str)>) {
        let header = header.map(|(name, value)| (name, value.to_owned()));
        lock(&self.state).answers.push((status, header));
    }

    /// What was posted.
    #[must_use]
    pub fn posted(&self) -> Vec<Posted> {
        lock(&self.state).posted.clone()
    }
}

async fn receive(State(state): State<Arc<Mutex<Shared>>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let mut state = lock(&state);
    let (status, extra) = if state.answers.is_empty() { (202, None) } else { state.answers.remove(0) };
    state.posted.push(Posted { uri: uri.to_string(), headers, body: body.to_vec(), status });
    let mut response = StatusCode::from_u16(status).unwrap_or_default().into_response();
    if let Some((name, value)) = extra
        && let Ok(value) = header::HeaderValue::from_str(&value)
    {
        response.headers_mut().insert(name, value);
    }
    response
}
