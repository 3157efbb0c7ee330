//! A stand-in for Slack's Web API: the methods that an alert needs, with Slack's own forms of answers and refusals.
//! It takes forms and JSON for every method, as Slack does.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The token that the stand-in knows.
pub const TOKEN: &str = "xoxb-test-0123";

/// A call of a method.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method; `upload` for the bytes of a file.
    pub method: String,
    /// Its arguments.
    pub arguments: Value,
}

/// A file in a channel.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The channel.
    pub channel: String,
    /// Its name.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

#[derive(Debug, Default)]
struct Workspace {
    base: String,
    calls: Vec<Call>,
    /// What a method answers instead, the next ones first.
    answers: BTreeMap<String, Vec<(u16, Option<u64>, Value)>>,
    files: BTreeMap<String, (String, usize, Vec<u8>)>,
    shared: Vec<Shared>,
}

/// The stand-in. Dropped, it ends.
#[derive(Debug)]
pub struct Slack {
    state: Arc<Mutex<Workspace>>,
    server: JoinHandle<()>,
}

impl Drop for Slack {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type SharedState = State<Arc<Mutex<Workspace>>>;

fn lock(state: &Mutex<Workspace>) -> MutexGuard<'_, Workspace> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slack {
    /// Starts one with the users `U0000ANNA` (anna@example.com) and `U0000BERT` (bert@example.com) and the channel
    /// `C0000OPS1` (`#ops`).
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let base = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(Workspace { base, ..Workspace::default() }));
        let router = Router::new()
            .route("/api/{method}", post(method))
            .route("/upload/{file}", post(upload))
            .with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { state, server })
    }

    /// The URL of the API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/api/", lock(&self.state).base)
    }

    /// Has a method answer this once instead, after what it has to answer already.
    pub fn answer(&self, method: &str, status: u16, retry_after: Option<u64>, body: Value) {
        lock(&self.state).answers.entry(method.to_owned()).or_default().push((status, retry_after, body));
    }

    /// The calls so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state).calls.clone()
    }

    /// The arguments of the calls of a method.
    #[must_use]
    pub fn calls_of(&self, method: &str) -> Vec<Value> {
        self.calls().into_iter().filter(|call| call.method == method).map(|call| call.arguments).collect()
    }

    /// The files that were put into channels.
    #[must_use]
    pub fn files(&self) -> Vec<Shared> {
        lock(&self.state).shared.clone()
    }
}

fn refusal(error: &str) -> Value {
    json!({"ok": false, "error": error})
}

async fn method(State(state): SharedState, Path(method): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let arguments = if kind.starts_with("application/json") {
        serde_json::from_slice(&body).unwrap_or_default()
    } else {
        let fields = url::form_urlencoded::parse(&body);
        Value::Object(fields.map(|(name, value)| (name.into_owned(), field(&value))).collect())
    };
    let mut state = lock(&state);
    state.calls.push(Call { method: method.clone(), arguments: arguments.clone() });
    if let Some(answers) = state.answers.get_mut(&method).filter(|answers| !answers.is_empty()) {
        let (status, retry_after, body) = answers.remove(0);
        let mut response = (StatusCode::from_u16(status).unwrap_or_default(), body.to_string()).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        return response;
    }
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let answer = match authorization {
        None => refusal("not_authed"),
        Some(value) if value != format!("Bearer {TOKEN}") => refusal("invalid_auth"),
        Some(_) => state.answer(&method, &arguments),
    };
    answer.to_string().into_response()
}

/// A field of a form: lists and objects are JSON in there.
fn field(value: &str) -> Value {
    match serde_json::from_str(value) {
        Ok(json @ (Value::Array(_) | Value::Object(_))) => json,
        _ => value.into(),
    }
}

impl Workspace {
    fn answer(&mut self, method: &str, arguments: &Value) -> Value {
        let text = |name: &str| arguments[name].as_str().unwrap_or_default();
        match method {
            "users.lookupByEmail" => match text("email") {
                "anna@example.com" => json!({"ok": true, "user": {"id": "U0000ANNA"}}),
                "bert@example.com" => json!({"ok": true, "user": {"id": "U0000BERT"}}),
                _ => refusal("users_not_found"),
            },
            "conversations.open" => match text("users") {
                "U0000ANNA" => json!({"ok": true, "channel": {"id": "D0000ANNA"}}),
                "U0000BERT" => json!({"ok": true, "channel": {"id": "D0000BERT"}}),
                _ => refusal("user_not_found"),
            },
            "chat.postMessage" => self.post(text("channel"), arguments),
            "files.getUploadURLExternal" => {
                let length = arguments["length"].as_u64().or_else(|| text("length").parse().ok()).unwrap_or_default();
                let length = usize::try_from(length).unwrap_or_default();
                if text("filename").is_empty() || length == 0 {
                    return refusal("invalid_arguments");
                }
                let id = format!("F{:08}", self.files.len());
                self.files.insert(id.clone(), (text("filename").to_owned(), length, Vec::new()));
                json!({"ok": true, "upload_url": format!("{}/upload/{id}", self.base), "file_id": id})
            }
            "files.completeUploadExternal" => {
                let files = arguments["files"].clone();
                let Some((name, length, content)) = files[0]["id"].as_str().and_then(|id| self.files.get(id)) else {
                    return refusal("file_not_found");
                };
                if *length != content.len() {
                    return refusal("invalid_arguments");
                }
                let channel = text("channel_id").to_owned();
                if !channel.starts_with(['C', 'D', 'G']) {
                    return refusal("invalid_channel");
                }
                self.shared.push(Shared { channel, name: name.clone(), content: content.clone() });
                json!({"ok": true, "files": files})
            }
            _ => refusal("unknown_method"),
        }
    }

    fn post(&self, channel: &str, arguments: &Value) -> Value {
        let blocks = arguments["blocks"].as_array().map_or(0, Vec::len);
        if blocks == 0 || blocks > 50 || arguments["text"].as_str().is_none() {
            return refusal("invalid_blocks");
        }
        match channel {
            "#ops" | "C0000OPS1" => json!({"ok": true, "channel": "C0000OPS1", "ts": "1.0"}),
            "D0000ANNA" | "D0000BERT" => json!({"ok": true, "channel": channel, "ts": "1.0"}),
            _ => refusal("channel_not_found"),
        }
    }
}

/// The content of the first part of a form with files.
fn first_part(body: &[u8], boundary: &str) -> Vec<u8> {
    let find = |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).position(|window| window == needle);
    let Some(begin) = find(body, b"\r\n\r\n").map(|end| end + 4) else { return Vec::new() };
    let rest = body.get(begin..).unwrap_or_default();
    let end = find(rest, format!("\r\n--{boundary}").as_bytes()).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default().to_vec()
}

async fn upload(State(state): SharedState, Path(file): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let mut state = lock(&state);
    let arguments = json!({"file": file, "authorization": headers.contains_key(header::AUTHORIZATION)});
    state.calls.push(Call { method: "upload".to_owned(), arguments });
    match state.files.get_mut(&file) {
        Some((_, _, content)) => {
            let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            *content = match kind.split("boundary=").nth(1).filter(|_| kind.starts_with("multipart/form-data")) {
                Some(boundary) => first_part(&body, boundary.trim_matches('"')),
                None => body.to_vec(),
            };
            "OK".into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
