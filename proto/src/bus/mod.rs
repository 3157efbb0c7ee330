//! The bus: how what is said between stages travels. One contract with two implementations, NATS JetStream
//! ([`nats`]) and in-process ([`memory`]), under one conformance suite ([`conformance`]).
//!
//! The contract, in short:
//! - A stream's sequences grow; a message that is published again under its id within the stream's window is dropped
//!   and its receipt says `duplicate`.
//! - A durable consumer delivers each message that matches its filter to one of its pullers, in order but for
//!   redeliveries, until it is acknowledged. A delivery that is dropped is given back; one whose holder is lost comes
//!   again after the ack wait. Any number of deliveries is possible, for ever.
//! - A consumer's **ack floor** is a sequence below and at which every matching message is settled. It is the only
//!   figure that never runs ahead: `pending == 0` does not mean that all is done.
//! - A reader sees all that matches its filter from the first message, in order, alone.
//! - What is published is durable (as far as the implementation is) when the receipt is there, not before.

pub mod conformance;
pub mod lease;
pub mod memory;
pub mod nats;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

use crate::subject::{Key, Role, Stream, Version};

/// Names of headers.
pub mod header {
    /// The media type of the body.
    pub const CONTENT_TYPE: &str = "Content-Type";
    /// `identity` or `lz4`.
    pub const ENCODING: &str = "Cm-Encoding";
    /// Records in the body.
    pub const COUNT: &str = "Cm-Count";
    /// The body's size before compression, in bytes.
    pub const RAW_BYTES: &str = "Cm-Raw-Bytes";
    /// The version of the form of the body.
    pub const SCHEMA: &str = "Cm-Schema";
    /// What makes a repeat of the message a duplicate.
    pub const MESSAGE_ID: &str = "Nats-Msg-Id";
    /// The span that published the message, as the W3C has it.
    pub const TRACE_PARENT: &str = "traceparent";
    /// What goes with the trace: how many units it may still take.
    pub const TRACE_STATE: &str = "tracestate";
}

/// How the bodies of frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// LZ4, block format, with the size before it.
    Lz4,
}

impl Encoding {
    /// The word in the header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Lz4 => "lz4",
        }
    }
}

/// A message to be published.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub subject: String,
    /// Headers, without the message id.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// What makes a repeat a duplicate.
    pub id: Option<String>,
    /// The body.
    pub payload: Bytes,
}

impl Outgoing {
    /// A message without headers.
    #[must_use]
    pub fn new(subject: String, payload: Bytes) -> Self {
        Self { subject, headers: Vec::new(), id: None, payload }
    }

    /// A message of one JSON document, with the headers that say so.
    ///
    /// # Errors
    /// When the body cannot be written as JSON.
    pub fn json<T: Serialize>(subject: String, body: &T) -> serde_json::Result<Self> {
        Ok(Self::json_text(subject, serde_json::to_vec(body)?.into()))
    }

    /// A message of one JSON document that is already written.
    #[must_use]
    pub fn json_text(subject: String, payload: Bytes) -> Self {
        let mut message = Self::new(subject, payload);
        let bytes = message.payload.len().to_string();
        message.headers = vec![
            (header::CONTENT_TYPE, "application/json".into()),
            (header::ENCODING, Encoding::Identity.as_str().into()),
            (header::COUNT, "1".into()),
            (header::RAW_BYTES, bytes.into()),
            (header::SCHEMA, crate::frame::SCHEMA.into()),
        ];
        message
    }

    /// The same with a message id.
    #[must_use]
    pub fn with_id(mut self, id: String) -> Self {
        self.id = Some(id);
        self
    }

    /// The message as its receiver would see it.
    #[must_use]
    pub fn into_message(self) -> Message {
        let id = self.id.map(|id| (header::MESSAGE_ID, id.into()));
        let headers = self.headers.into_iter().chain(id).map(|(name, value)| (name.into(), value));
        Message { subject: self.subject.into(), seq: 0, headers: headers.collect(), payload: self.payload }
    }
}

/// The headers of a received message: shared, as one message may have many readers.
pub type Headers = Arc<[(Cow<'static, str>, Cow<'static, str>)]>;

/// A message as it is received. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where it was published.
    pub subject: Arc<str>,
    /// Its sequence in its stream.
    pub seq: u64,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
}

impl Message {
    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Sets a header.
    pub fn set_header(&mut self, name: &'static str, value: String) {
        let others = self.headers.iter().filter(|(known, _)| known != name).cloned();
        self.headers = others.chain([(name.into(), value.into())]).collect();
    }
}

/// What a publisher gets when its message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The message's sequence; that of the first one when it is a duplicate.
    pub seq: u64,
    /// A message of this id was stored before.
    pub duplicate: bool,
}

/// A durable consumer's name: legal at the broker, made of its purpose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId {
    /// The stream that it reads.
    pub stream: Stream,
    /// Its durable name.
    pub name: String,
}

impl ConsumerId {
    /// The consumer of a pool's units. It outlives runs.
    #[must_use]
    pub fn pool(pool: &Key) -> Self {
        Self { stream: Stream::Units, name: format!("pool-{}", pool.token()) }
    }

    /// The consumer of all evaluators of an audit's version.
    #[must_use]
    pub fn evaluator(audit: &Key, version: &Version) -> Self {
        Self { stream: Stream::Records, name: format!("{version}-evaluator-{}", audit.token()) }
    }

    /// The consumer of the dead letters that were sent back to the shared stores of a role. It outlives runs.
    #[must_use]
    pub fn retries(role: Role) -> Self {
        Self { stream: Stream::Dead, name: format!("retry-{role}") }
    }

    /// The consumer of a shared store (of records) or alert (of events) of an audit's version.
    #[must_use]
    pub fn plugin(audit: &Key, version: &Version, role: Role, plugin: &Key) -> Self {
        let stream = input_of(role);
        Self { stream, name: format!("{version}-{role}-{}-{}", audit.token(), plugin.token()) }
    }
}

impl fmt::Display for ConsumerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.stream.name())
    }
}

/// The stream that plugins of a role read.
#[must_use]
pub fn input_of(role: Role) -> Stream {
    match role {
        Role::Cloud => Stream::Units,
        Role::Event | Role::Store => Stream::Records,
        Role::Alert => Stream::Events,
    }
}

/// A durable consumer to be created.
#[derive(Debug, Clone)]
pub struct ConsumerSpec {
    /// Its name.
    pub id: ConsumerId,
    /// What it reads.
    pub filter: String,
    /// After how long without acknowledgement or sign of progress a delivery comes again.
    pub ack_wait: Duration,
    /// For people: audit, version, role, plugin.
    pub metadata: Vec<(String, String)>,
}

/// A reader of all of a version in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderSpec {
    /// The stream that it reads.
    pub stream: Stream,
    /// What of it.
    pub filter: String,
    /// Its name, unique for its purpose.
    pub name: String,
}

impl ReaderSpec {
    /// The reader of an exclusive plugin.
    #[must_use]
    pub fn exclusive(audit: &Key, version: &Version, role: Role, plugin: &Key) -> Self {
        let filter = match role {
            Role::Alert => crate::subject::events_of(audit, version),
            _ => crate::subject::records_of(audit, version),
        };
        Self { stream: input_of(role), filter, name: format!("{version}-{role}-{}-{}", audit.token(), plugin.token()) }
    }

    /// The reader of all that is said about an audit's version.
    #[must_use]
    pub fn status(audit: &Key, version: &Version) -> Self {
        let filter = crate::subject::status_of(audit, version);
        Self { stream: Stream::Status, filter, name: format!("{version}-status-{}", audit.token()) }
    }

    /// The reader of an audit version's dead letters.
    #[must_use]
    pub fn dead(audit: &Key, version: &Version) -> Self {
        let filter = crate::subject::dead_of(audit, version);
        Self { stream: Stream::Dead, filter, name: format!("{version}-dead-{}", audit.token()) }
    }
}

/// How much a puller may hold unsettled or in its buffer.
#[derive(Debug, Clone, Copy)]
pub struct PullLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Default for PullLimits {
    /// 256 messages or 8 MiB: the broker cuts off a client with 64 MiB outstanding.
    fn default() -> Self {
        Self { messages: 256, bytes: 8 * 1024 * 1024 }
    }
}

/// Where a consumer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerState {
    /// Every matching message up to here is settled.
    pub ack_floor: u64,
    /// Messages delivered but not settled. For progress bars only.
    pub ack_pending: u64,
    /// Messages not yet delivered. For progress bars only.
    pub pending: u64,
}

/// How full a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamUsage {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes that it may hold; `None` when there is no bound.
    pub max_bytes: Option<u64>,
}

/// The key-value buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// The state of each run.
    Runs,
    /// Plans by `<audit>.<version>.<stage>`.
    Plans,
    /// Ownership. Entries live for 5 s unless renewed.
    Leases,
    /// Scopes that wait. Each entry has its own life time.
    Throttle,
    /// Who is alive and able. Entries live for 15 s unless renewed.
    Workers,
    /// The findings of each audit's last complete version. Entries stay until they are replaced.
    Findings,
    /// How far what grows without end was read, such as an activity log. Entries stay until they are replaced.
    Checkpoints,
}

impl Bucket {
    /// All buckets.
    pub const ALL: [Self; 7] =
        [Self::Runs, Self::Plans, Self::Leases, Self::Throttle, Self::Workers, Self::Findings, Self::Checkpoints];

    /// The name at the broker.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Runs => "cm_runs",
            Self::Plans => "cm_plans",
            Self::Leases => "cm_leases",
            Self::Throttle => "cm_throttle",
            Self::Workers => "cm_workers",
            Self::Findings => "cm_findings",
            Self::Checkpoints => "cm_checkpoints",
        }
    }

    /// How long an entry lives that is not renewed; `None` for ever.
    #[must_use]
    pub fn max_age(self) -> Option<Duration> {
        match self {
            Self::Leases => Some(lease::TTL),
            Self::Workers => Some(Duration::from_secs(15)),
            Self::Runs | Self::Plans => Some(Duration::from_secs(90 * 24 * 3600)),
            Self::Throttle | Self::Findings | Self::Checkpoints => None,
        }
    }

    /// Whether entries outlive everything but their own replacement, on every bus: they belong to no run.
    #[must_use]
    pub fn is_durable(self) -> bool {
        matches!(self, Self::Findings | Self::Checkpoints)
    }
}

/// An entry of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// Its revision: grows with every change in the bucket.
    pub revision: u64,
}

/// What a watcher of a bucket sees: an entry's value, or that it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvChange {
    /// The entry has this value now. A watcher may see the same value again.
    Put(KvEntry),
    /// The entry was deleted or its time is over.
    Gone {
        /// Its key.
        key: String,
    },
}

/// What kind of trouble the bus has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusErrorKind {
    /// The broker is away, elects, or does not answer: later it may go well.
    Unavailable,
    /// The broker refuses these credentials or permissions.
    Refused,
    /// The stream is full: later there may be room.
    Full,
    /// The message is larger than the broker takes.
    TooLarge,
    /// Somebody else was first: a compare-and-set lost, a key exists.
    Conflict,
    /// There is no such stream, consumer or key.
    NotFound,
    /// What is there has another configuration than ours: a matter for a person.
    Mismatch,
    /// The bus is closed, or this implementation cannot do it.
    Unsupported,
    /// What was read is not what it should be.
    Corrupt,
}

impl BusErrorKind {
    /// The kind in a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::TooLarge => "too_large",
            Self::Conflict => "conflict",
            Self::NotFound => "not_found",
            Self::Mismatch => "mismatch",
            Self::Unsupported => "unsupported",
            Self::Corrupt => "corrupt",
        }
    }
}

/// An error of the bus: what kind, and what failed on what.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BusError {
    kind: BusErrorKind,
    message: String,
}

impl BusError {
    /// An error.
    #[must_use]
    pub fn new(kind: BusErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What was read is not JSON of the expected form.
    pub fn json(error: serde_json::Error) -> Self {
        Self::corrupt(error)
    }

    /// What was read is not what it should be.
    pub fn corrupt(error: impl fmt::Display) -> Self {
        Self::new(BusErrorKind::Corrupt, format!("what was read from the bus cannot be understood: {error}"))
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> BusErrorKind {
        self.kind
    }

    /// Whether it may go well later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, BusErrorKind::Unavailable | BusErrorKind::Full)
    }
}

/// One delivery of a message by a durable consumer. It owns its acknowledgement: settle it with [`Delivery::ack`] or
/// [`Delivery::give_back`]; dropped, it is given back at once.
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Which delivery this is, from 1. Given-back ones count.
    pub deliveries: u64,
    settle: Option<Box<dyn Settle>>,
}

/// How an implementation settles a delivery.
#[async_trait]
pub trait Settle: Send + Sync {
    /// The message is done.
    async fn ack(&self) -> Result<(), BusError>;
    /// It comes again, after a delay.
    async fn give_back(&self, delay: Duration) -> Result<(), BusError>;
    /// It is being worked on: the ack wait begins anew.
    async fn progress(&self) -> Result<(), BusError>;
    /// It was dropped: it comes again. Must not block.
    fn dropped(&self);
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("subject", &self.message.subject)
            .field("seq", &self.message.seq)
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// A delivery that an implementation makes.
    #[must_use]
    pub fn new(message: Message, deliveries: u64, settle: Box<dyn Settle>) -> Self {
        Self { message, deliveries, settle: Some(settle) }
    }

    /// The same delivery, with somebody who watches how it is settled.
    #[must_use]
    pub(crate) fn watched(mut self, watch: impl FnOnce(Box<dyn Settle>) -> Box<dyn Settle>) -> Self {
        self.settle = self.settle.take().map(watch);
        self
    }

    /// The message is done: it does not come again.
    ///
    /// # Errors
    /// When the bus cannot be told; then it comes again.
    pub async fn ack(mut self) -> Result<(), BusError> {
        match self.settle.take() {
            Some(settle) => settle.ack().await,
            None => Ok(()),
        }
    }

    /// It comes again, to anybody, after a delay.
    ///
    /// # Errors
    /// When the bus cannot be told; then it comes again after the ack wait.
    pub async fn give_back(mut self, delay: Duration) -> Result<(), BusError> {
        match self.settle.take() {
            Some(settle) => settle.give_back(delay).await,
            None => Ok(()),
        }
    }

    /// Says that it is being worked on: the ack wait begins anew.
    ///
    /// # Errors
    /// When the bus cannot be told.
    pub async fn progress(&self) -> Result<(), BusError> {
        match &self.settle {
            Some(settle) => settle.progress().await,
            None => Ok(()),
        }
    }

    /// Does some work on the delivery, saying every so often that it is being worked on.
    pub async fn while_working<T>(&self, every: Duration, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => {
                    if let Err(error) = self.progress().await {
                        tracing::debug!(%error, seq = self.message.seq, "cannot report progress");
                    }
                }
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle.dropped();
        }
    }
}

/// Pulls deliveries of a durable consumer. Dropped, it asks for no more; what it has buffered is given back.
#[async_trait]
pub trait Puller: Send {
    /// The next delivery; waits until there is one. Safe to cancel. Survives the broker's restarts.
    ///
    /// # Errors
    /// Only such as do not pass: the consumer is gone ([`BusErrorKind::NotFound`]), or access is refused.
    async fn next(&mut self) -> Result<Delivery, BusError>;

    /// Says of what is buffered that it is waited for, as [`Delivery::progress`] does of a delivery. Whoever does not
    /// ask for the next delivery for longer than the ack wait calls it meanwhile: what is buffered would come to
    /// another worker, and be done twice.
    ///
    /// # Errors
    /// When the broker is away: what is buffered may come to another worker.
    async fn hold(&mut self) -> Result<(), BusError>;
}

/// Reads all that matches from the first message.
#[async_trait]
pub trait Reader: Send {
    /// The next message; waits until there is one. Safe to cancel. Survives the broker's restarts. Asking for the
    /// next one settles the one before.
    ///
    /// # Errors
    /// Only such as do not pass.
    async fn next(&mut self) -> Result<Message, BusError>;
}

/// Watches a bucket.
#[async_trait]
pub trait Watcher: Send {
    /// The next change; first the values that are there. Safe to cancel. Survives the broker's restarts.
    ///
    /// # Errors
    /// Only such as do not pass.
    async fn next(&mut self) -> Result<KvChange, BusError>;
}

/// The bus. Every call is bounded in time; transient trouble is tried again within that bound.
#[async_trait]
pub trait Bus: Send + Sync + fmt::Debug + 'static {
    /// How frames are to be written for this bus.
    fn encoding(&self) -> Encoding;

    /// The largest message that it takes, in bytes, headers included.
    fn max_message(&self) -> usize;

    /// How many messages of one worker may be on their way at once: many where each takes a round trip.
    fn pipeline(&self) -> usize {
        16
    }

    /// Whether a reader can begin again from the first message after another has read it.
    fn can_replay(&self) -> bool;

    /// Creates the streams and buckets that are missing. Only the coordinator calls it.
    ///
    /// # Errors
    /// [`BusErrorKind::Mismatch`] when one is there with another configuration.
    async fn ensure_streams(&self) -> Result<(), BusError>;

    /// Whether the streams and buckets are there.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn is_ready(&self) -> Result<bool, BusError>;

    /// Publishes a message; returns when it is stored. Many publishes may be under way at once.
    ///
    /// # Errors
    /// [`BusErrorKind::Full`], [`BusErrorKind::TooLarge`], [`BusErrorKind::Unavailable`], ...
    async fn publish(&self, message: Outgoing) -> Result<Receipt, BusError>;

    /// Publishes a message if the last one of its subject has this sequence (0: if there is none).
    ///
    /// # Errors
    /// [`BusErrorKind::Conflict`] when it has not, and those of [`Bus::publish`].
    async fn publish_expecting(&self, message: Outgoing, last_seq: u64) -> Result<Receipt, BusError>;

    /// Creates a durable consumer, from the stream's first message; there may be one like it already.
    ///
    /// # Errors
    /// [`BusErrorKind::Mismatch`] when there is one of this name with another filter.
    async fn create_consumer(&self, spec: &ConsumerSpec) -> Result<(), BusError>;

    /// Deletes a durable consumer; there may be none.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn delete_consumer(&self, id: &ConsumerId) -> Result<(), BusError>;

    /// Begins to pull from a durable consumer.
    ///
    /// # Errors
    /// [`BusErrorKind::NotFound`] when there is no such consumer.
    async fn pull(&self, id: &ConsumerId, limits: PullLimits) -> Result<Box<dyn Puller>, BusError>;

    /// Where a consumer stands. An error means "not known now", never "done".
    ///
    /// # Errors
    /// When the broker cannot be asked or there is no such consumer.
    async fn consumer_state(&self, id: &ConsumerId) -> Result<ConsumerState, BusError>;

    /// Says that a reader will come: what is published from now on is kept for it. A bus that can replay has nothing
    /// to do.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn announce_reader(&self, spec: &ReaderSpec) -> Result<(), BusError>;

    /// Begins to read. On a bus that cannot replay, an announced reader can be opened once.
    ///
    /// # Errors
    /// [`BusErrorKind::Unsupported`] when it has been opened before and cannot be again.
    async fn read(&self, spec: &ReaderSpec) -> Result<Box<dyn Reader>, BusError>;

    /// Says that nobody will read as this reader any more.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn retire_reader(&self, spec: &ReaderSpec) -> Result<(), BusError>;

    /// The last sequence that matches a filter, from the stream's leader; 0 when nothing was published.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn last_seq(&self, stream: Stream, filter: &str) -> Result<u64, BusError>;

    /// How many messages that match a filter are in the stream.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn count(&self, stream: Stream, filter: &str) -> Result<u64, BusError>;

    /// Removes the messages that match a filter, only those up to a sequence if one is given.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn purge(&self, stream: Stream, filter: &str, through: Option<u64>) -> Result<(), BusError>;

    /// Removes one message; there may be none of this sequence.
    ///
    /// # Errors
    /// [`BusErrorKind::Unsupported`] on a bus that keeps nothing, and when the broker cannot be asked.
    async fn delete_message(&self, stream: Stream, seq: u64) -> Result<(), BusError> {
        let text = format!("this bus removes no single messages: {seq} of {}", stream.name());
        Err(BusError::new(BusErrorKind::Unsupported, text))
    }

    /// How full a stream is.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn usage(&self, stream: Stream) -> Result<StreamUsage, BusError>;

    /// An entry of a bucket.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn kv_get(&self, bucket: Bucket, key: &str) -> Result<Option<KvEntry>, BusError>;

    /// The entries whose keys begin so.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn kv_entries(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>, BusError>;

    /// Creates an entry, with a life time of its own if one is given; returns its revision.
    ///
    /// # Errors
    /// [`BusErrorKind::Conflict`] when there is one.
    async fn kv_create(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, BusError>;

    /// Changes an entry that has this revision; returns the new one.
    ///
    /// # Errors
    /// [`BusErrorKind::Conflict`] when it has another.
    async fn kv_update(&self, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BusError>;

    /// Sets an entry; returns its revision.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn kv_put(&self, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BusError>;

    /// Deletes an entry; there may be none.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn kv_delete(&self, bucket: Bucket, key: &str) -> Result<(), BusError>;

    /// Watches a bucket.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn kv_watch(&self, bucket: Bucket) -> Result<Box<dyn Watcher>, BusError>;
}

/// A bus that is shared by the parts of a program.
pub type SharedBus = Arc<dyn Bus>;
