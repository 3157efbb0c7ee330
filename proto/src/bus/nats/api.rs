//! Requests to JetStream's API: bounded in time, with errors by the broker's codes, never by text.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::{self, ErrorCode, response::Response};
use async_nats::{Client, HeaderMap, Request, RequestErrorKind};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::connection::Connection;
use crate::bus::{BusError, BusErrorKind};

/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(4);

/// How long a question is asked again: whoever asks can ask later, too.
pub(super) const QUERY: Duration = Duration::from_secs(5);

/// How long a change is tried: an election of the broker fits into it.
pub(super) const CHANGE: Duration = Duration::from_secs(20);

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// JetStream's own answer.
    JetStream(jetstream::Error),
    /// Nobody listens there: the broker starts or elects, or there is no such stream.
    NoResponders,
    /// There was no answer in time.
    TimedOut,
    /// The message is larger than the broker takes.
    TooLarge,
    /// Anything else on the way there or back.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JetStream(error) => write!(f, "{error}"),
            Self::NoResponders => f.write_str("nobody answers at the broker"),
            Self::TimedOut => f.write_str("the broker did not answer in time"),
            Self::TooLarge => f.write_str("the message is larger than the broker takes"),
            Self::Other(error) => f.write_str(error),
        }
    }
}

impl Failure {
    /// What kind of trouble it is.
    pub(super) fn kind(&self) -> BusErrorKind {
        match self {
            Self::JetStream(error) => kind_of(error),
            Self::NoResponders | Self::TimedOut | Self::Other(_) => BusErrorKind::Unavailable,
            Self::TooLarge => BusErrorKind::TooLarge,
        }
    }

    pub(super) fn is(&self, code: ErrorCode) -> bool {
        matches!(self, Self::JetStream(error) if error.error_code() == code)
    }

    /// The error for the caller: what was tried, and why it failed.
    pub(super) fn into_error(self, what: impl fmt::Display) -> BusError {
        BusError::new(self.kind(), format!("{what}: {self}{}", self.advice()))
    }

    fn advice(&self) -> &'static str {
        let Self::JetStream(error) = self else { return "" };
        match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND => "; the coordinator creates the streams: is it running?",
            ErrorCode::STREAM_STORE_FAILED => "; raise the stream's max_bytes, or purge old versions",
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::NO_LIMITS => {
                "; give JetStream more room (max_file_store of the server, or the account's limit), or lower the \
                 streams' limits"
            }
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                "; start the server with JetStream, and enable it for the account"
            }
            ErrorCode::MESSAGE_TTL_DISABLED => "; the bucket was created by something else: enable message TTLs on it",
            _ => "",
        }
    }
}

fn kind_of(error: &jetstream::Error) -> BusErrorKind {
    match error.error_code() {
        ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::CONSUMER_NOT_FOUND
        | ErrorCode::CONSUMER_DOES_NOT_EXIST
        | ErrorCode::NO_MESSAGE_FOUND => BusErrorKind::NotFound,
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
            BusErrorKind::Conflict
        }
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED => BusErrorKind::Full,
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => BusErrorKind::TooLarge,
        // A cluster whose servers have not all found one another.
        ErrorCode::CLUSTER_NO_PEERS
        // The same message or subject is just being stored by somebody else.
        | ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT
        | ErrorCode::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY
        | ErrorCode::STREAM_TOO_MANY_REQUESTS => BusErrorKind::Unavailable,
        _ if error.code() >= 500 => BusErrorKind::Unavailable,
        _ => BusErrorKind::Mismatch,
    }
}

/// Sends a request and reads its JSON answer, once.
pub(super) async fn ask<T: DeserializeOwned>(
    client: &Client,
    subject: String,
    headers: Option<HeaderMap>,
    payload: Bytes,
    patience: Duration,
) -> Result<T, Failure> {
    // The client's own bound would begin when the request is sent, which it is not while the connection is lost.
    let mut request = Request::new().payload(payload).timeout(None);
    if let Some(headers) = headers {
        request = request.headers(headers);
    }
    let answer = timeout(patience, client.send_request(subject, request)).await;
    let message = answer.map_err(|_| Failure::TimedOut)?.map_err(|error| match error.kind() {
        RequestErrorKind::TimedOut => Failure::TimedOut,
        RequestErrorKind::NoResponders => Failure::NoResponders,
        RequestErrorKind::MaxPayloadExceeded => Failure::TooLarge,
        RequestErrorKind::InvalidSubject | RequestErrorKind::Other => Failure::Other(error.to_string()),
    })?;
    match serde_json::from_slice(&message.payload) {
        Ok(Response::Ok(answer)) => Ok(answer),
        Ok(Response::Err { error }) => Err(Failure::JetStream(error)),
        Err(error) => Err(Failure::Other(format!("the broker's answer cannot be understood: {error}"))),
    }
}

impl Connection {
    /// Asks JetStream's API, again while the trouble may pass and `patience` lasts.
    pub(super) async fn api<T: DeserializeOwned>(
        &self,
        operation: &str,
        body: &(impl Serialize + ?Sized),
        patience: Duration,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + patience;
        let payload = Bytes::from(serde_json::to_vec(body).map_err(|error| Failure::Other(error.to_string()))?);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            if !self.wait_connected(deadline).await {
                return Err(Failure::Other("the connection to the broker is lost".into()));
            }
            let left = deadline.saturating_duration_since(Instant::now()).min(ANSWER);
            let failure = match ask(&self.client, format!("$JS.API.{operation}"), None, payload.clone(), left).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let delay = backoff.next();
            if failure.kind() != BusErrorKind::Unavailable || Instant::now() + delay >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(delay).await;
        }
    }
}
