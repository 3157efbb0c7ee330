//! Publishing: until it is stored, refused, or patience ends, and under one message id, so that trying again never
//! stores twice.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{self, HeaderMap, HeaderName, HeaderValue};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::RawMessage;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::api::{Failure, QUERY, ask};
use super::backoff::Backoff;
use super::connection::{Connection, reconnected};
use crate::bus::{BusError, BusErrorKind, Outgoing};

/// How long a message is tried: a broker's restart or election fits into it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long one acknowledgement is waited for, as a part of patience: a broker that syncs each message to a busy disk
/// is slow, not gone.
const ACKNOWLEDGEMENT: u32 = 5;

/// What may be under way to the broker at once, in units of [`PERMIT_BYTES`]: 64 MiB, or 4096 messages.
const PERMITS: usize = 4096;
const PERMIT_BYTES: usize = 16 * 1024;

/// After how many attempts that nobody answered it is looked whether there is a stream at all.
const UNANSWERED: u32 = 4;

/// A message on its way to be stored.
#[derive(Debug, Clone)]
pub(super) struct Publication {
    pub(super) subject: String,
    /// The stream that holds the subject.
    pub(super) stream: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
    /// What makes a repeat a duplicate.
    id: String,
    size: usize,
}

impl Publication {
    pub(super) fn new(
        subject: String,
        stream: String,
        headers: &[(&str, std::borrow::Cow<'static, str>)],
        id: String,
        payload: Bytes,
    ) -> Result<Self, BusError> {
        let mut publication =
            Self { subject, stream, headers: HeaderMap::new(), payload, id: id.clone(), size: WIRE_HEAD };
        publication.size += publication.payload.len();
        for (name, value) in headers {
            publication.set_header(name, value)?;
        }
        publication.set_header(header::NATS_MESSAGE_ID.as_ref(), &id)?;
        Ok(publication)
    }

    pub(super) fn of(message: Outgoing, stream: String, spare_id: String) -> Result<Self, BusError> {
        let id = message.id.unwrap_or(spare_id);
        Self::new(message.subject, stream, &message.headers, id, message.payload)
    }

    /// Only if the last message of its subject has this sequence.
    pub(super) fn expecting(mut self, last_seq: u64) -> Result<Self, BusError> {
        self.set_header(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE.as_ref(), &last_seq.to_string())?;
        Ok(self)
    }

    pub(super) fn set_header(&mut self, name: &str, value: &str) -> Result<(), BusError> {
        let invalid = |error: &dyn fmt::Display| {
            let message = format!("the header {name} of a message to {} cannot be {value:?}: {error}", self.subject);
            BusError::new(BusErrorKind::Unsupported, message)
        };
        let header_name: HeaderName = name.parse().map_err(|error| invalid(&error))?;
        let header_value: HeaderValue = value.parse().map_err(|error| invalid(&error))?;
        self.headers.insert(header_name, header_value);
        self.size += name.len() + value.len() + WIRE_HEADER;
        Ok(())
    }
}

/// Bytes on the wire of the headers' frame (`NATS/1.0`, an empty line) and of what stands around each header.
const WIRE_HEAD: usize = 12;
const WIRE_HEADER: usize = 4;

/// Publishes over one connection.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    connection: Connection,
    permits: Arc<Semaphore>,
}

/// How long a message waits for room in its stream. Its caller waits longer, without holding anything.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

impl Publisher {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, permits: Arc::new(Semaphore::new(PERMITS)) }
    }

    /// Stores a message.
    pub(super) async fn store(&self, publication: &Publication, patience: Duration) -> Result<PublishAck, BusError> {
        self.check_size(publication)?;
        let began = Instant::now();
        let deadline = began + patience;
        let _permit = self.permit(publication, deadline).await?;
        let mut attempts = Attempts::new();
        loop {
            let failure = match self.attempt(publication, deadline, patience / ACKNOWLEDGEMENT).await {
                Ok(ack) => return Ok(ack),
                Err(failure) => failure,
            };
            match failure.kind() {
                BusErrorKind::Conflict if attempts.maybe_stored => {
                    if let Some(ack) = self.own_earlier(publication).await? {
                        return Ok(ack);
                    }
                    return Err(self.error(failure, publication));
                }
                BusErrorKind::Unavailable => {}
                // A coordinator may be making room.
                BusErrorKind::Full if began.elapsed() < ROOM_PATIENCE => {}
                _ => return Err(self.error(failure, publication)),
            }
            attempts.count(&failure);
            if attempts.unanswered == UNANSWERED && self.is_missing(&publication.stream).await {
                return Err(self.missing(publication));
            }
            let delay = attempts.backoff.next();
            if Instant::now() + delay >= deadline {
                return Err(self.error(failure, publication));
            }
            tracing::debug!(subject = publication.subject, %failure, "publishing again");
            tokio::time::sleep(delay).await;
        }
    }

    fn check_size(&self, publication: &Publication) -> Result<(), BusError> {
        let (size, max) = (publication.size, self.connection.client.max_payload());
        if size <= max {
            return Ok(());
        }
        let subject = &publication.subject;
        let message = format!(
            "a message to {subject} is {size} bytes with its headers, and the broker takes {max}: raise max_payload in \
             the NATS server's configuration, or make it smaller"
        );
        Err(BusError::new(BusErrorKind::TooLarge, message))
    }

    /// Waits until there is room among what is under way.
    async fn permit(&self, publication: &Publication, deadline: Instant) -> Result<SemaphorePermit<'_>, BusError> {
        let permits = publication.size.div_ceil(PERMIT_BYTES).clamp(1, PERMITS);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        match timeout_at(deadline, self.permits.acquire_many(permits)).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(self.error(Failure::TimedOut, publication)),
        }
    }

    async fn attempt(
        &self,
        publication: &Publication,
        deadline: Instant,
        patience: Duration,
    ) -> Result<PublishAck, Failure> {
        if !self.connection.wait_connected(deadline).await {
            return Err(Failure::Other("the connection to the broker is lost".into()));
        }
        let mut epoch = self.connection.watch_epoch();
        let patience = deadline.saturating_duration_since(Instant::now()).min(patience);
        let Publication { subject, headers, payload, .. } = publication;
        let store = ask(&self.connection.client, subject.clone(), Some(headers.clone()), payload.clone(), patience);
        tokio::select! {
            answer = store => answer,
            // The answer went to the lost connection.
            () = reconnected(&mut epoch) => Err(Failure::TimedOut),
        }
    }

    /// The last message of the subject, if it is this publication: then an earlier attempt was stored although its
    /// acknowledgement was lost.
    async fn own_earlier(&self, publication: &Publication) -> Result<Option<PublishAck>, BusError> {
        let Publication { subject, stream, id, .. } = publication;
        let last = self.connection.last_message(stream, subject).await;
        let last = last.map_err(|failure| failure.into_error(format_args!("cannot look at the last of {subject}")))?;
        Ok(last.filter(|message| message.header(header::NATS_MESSAGE_ID.as_ref()) == Some(id)).map(|message| {
            PublishAck { stream: stream.clone(), sequence: message.seq, duplicate: false, ..PublishAck::default() }
        }))
    }

    async fn is_missing(&self, stream: &str) -> bool {
        match self.connection.stream_info(stream, QUERY).await {
            Ok(_) => false,
            Err(failure) => failure.is(ErrorCode::STREAM_NOT_FOUND),
        }
    }

    fn missing(&self, publication: &Publication) -> BusError {
        let Publication { subject, stream, .. } = publication;
        let message = format!(
            "cannot publish to {subject}: there is no stream {stream}; the coordinator creates it: is it running?"
        );
        BusError::new(BusErrorKind::NotFound, message)
    }

    fn error(&self, failure: Failure, publication: &Publication) -> BusError {
        let complaint = match failure.kind() {
            BusErrorKind::Unavailable => self.connection.recent_complaint(),
            _ => String::new(),
        };
        let Publication { subject, stream, .. } = publication;
        let error = failure.into_error(format_args!("cannot publish to {subject} ({stream})"));
        BusError::new(error.kind(), format!("{error}{complaint}"))
    }
}

/// What is known of the attempts so far.
struct Attempts {
    backoff: Backoff,
    /// An attempt ended without an answer: it may be stored all the same.
    maybe_stored: bool,
    unanswered: u32,
}

impl Attempts {
    fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        Self { backoff, maybe_stored: false, unanswered: 0 }
    }

    fn count(&mut self, failure: &Failure) {
        match failure {
            Failure::NoResponders => self.unanswered += 1,
            Failure::TimedOut | Failure::Other(_) | Failure::JetStream(_) => self.maybe_stored = true,
            Failure::TooLarge => {}
        }
    }
}

impl Connection {
    /// The last message of a subject, or of all that a filter matches, from the stream's leader.
    pub(super) async fn last_message(&self, stream: &str, filter: &str) -> Result<Option<StoredMessage>, Failure> {
        let operation = format!("STREAM.MSG.GET.{stream}");
        match self.api::<RawAnswer>(&operation, &json!({ "last_by_subj": filter }), QUERY).await {
            Ok(answer) => answer.message.try_into().map(Some),
            Err(failure) if failure.is(ErrorCode::NO_MESSAGE_FOUND) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

#[derive(serde::Deserialize)]
struct RawAnswer {
    message: RawMessage,
}

/// A message as the stream has it.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) seq: u64,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

impl StoredMessage {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        name.parse::<HeaderName>().ok().and_then(|name| self.headers.get(name)).map(HeaderValue::as_str)
    }
}

impl TryFrom<RawMessage> for StoredMessage {
    type Error = Failure;

    fn try_from(raw: RawMessage) -> Result<Self, Failure> {
        let message = async_nats::jetstream::message::StreamMessage::try_from(raw);
        let message =
            message.map_err(|error| Failure::Other(format!("the stored message cannot be understood: {error}")))?;
        Ok(Self { seq: message.sequence, headers: message.headers, payload: message.payload })
    }
}
