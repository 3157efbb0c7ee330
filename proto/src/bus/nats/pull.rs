//! Pulling from consumers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Message as NatsMessage, StatusCode, Subscriber};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::api::{Failure, QUERY};
use super::backoff::Backoff;
use super::connection::{Connection, reconnected};
use super::settle::{Acknowledger, Reaper};
use crate::bus::{BusError, ConsumerId, Delivery, Headers, Message, PullLimits, Puller};

/// How long the broker keeps one request for messages.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the broker says that it still keeps a request.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What the broker counts of a message beside its body and headers: its subject and its reply subject.
const MESSAGE_OVERHEAD: usize = 4096;

/// How long it is asked whether a consumer is still there, before it is pulled from all the same.
const EXISTENCE: Duration = Duration::from_secs(1);

/// How many requests in a row may end before they bring anything without this being a trouble.
const MAX_FRUITLESS: u32 = 3;

/// How often a consumer must be looked for in vain before it counts as gone: a cluster that starts has seen nothing
/// yet.
const MISSING: u32 = 3;

/// What a session yields.
#[derive(Debug)]
pub(super) enum Pulled {
    /// A message.
    Message(Box<NatsMessage>),
    /// The broker has said that it has nothing more at the moment.
    Idle,
}

/// Why a session cannot go on.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection was lost and made again: the broker has forgotten the request.
    Reconnected,
    /// The broker has gone silent.
    Silent,
    /// The broker has refused or ended the request.
    Status(String),
    /// It cannot be sent.
    Unsent(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reconnected => f.write_str("the connection was made again"),
            Self::Silent => f.write_str("the broker has gone silent"),
            Self::Status(status) => write!(f, "the broker says: {status}"),
            Self::Unsent(error) => f.write_str(error),
        }
    }
}

/// Requests messages of one consumer, one request at a time: so it is known exactly how much may be on its way, and
/// request and buffer together stay within the limits.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    request_subject: String,
    inbox: String,
    limits: PullLimits,
    heartbeat: Duration,
    reaper: Reaper,
    /// `None` only while it is being dropped.
    subscriber: Option<Subscriber>,
    epoch: watch::Receiver<u64>,
    buffer: VecDeque<NatsMessage>,
    buffered_bytes: usize,
    /// The number of the last request. Each has a reply subject of its own, as the end of one may be told when the
    /// next is already under way.
    request: u64,
    /// Messages that the request under way may still bring; 0 when there is none.
    outstanding: usize,
    /// How many requests in a row the broker has ended before they brought anything.
    fruitless: u32,
    idle: bool,
    heard: Instant,
    trouble: Option<Trouble>,
}

impl Session {
    pub(super) async fn open(
        link: &ConsumeLink,
        stream: &str,
        consumer: &str,
        limits: PullLimits,
        heartbeat: Duration,
    ) -> Result<Self, Trouble> {
        let ConsumeLink { connection, reaper, .. } = link;
        let epoch = connection.watch_epoch();
        let inbox = connection.client.new_inbox();
        let subscriber = connection.client.subscribe(format!("{inbox}.*")).await;
        let subscriber = subscriber.map_err(|error| Trouble::Unsent(error.to_string()))?;
        Ok(Self {
            connection: connection.clone(),
            request_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            inbox,
            limits,
            heartbeat,
            reaper: reaper.clone(),
            subscriber: Some(subscriber),
            epoch,
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            request: 0,
            outstanding: 0,
            fruitless: 0,
            idle: false,
            heard: Instant::now(),
            trouble: None,
        })
    }

    /// The next message. Safe to cancel. After trouble the session is of no more use.
    pub(super) async fn next(&mut self) -> Result<Pulled, Trouble> {
        loop {
            self.take_arrived();
            if self.trouble.is_none() {
                self.request().await?;
            }
            if let Some(message) = self.buffer.pop_front() {
                self.buffered_bytes = self.buffered_bytes.saturating_sub(message.length);
                return Ok(Pulled::Message(Box::new(message)));
            }
            if let Some(trouble) = self.trouble.take() {
                return Err(trouble);
            }
            if std::mem::take(&mut self.idle) {
                return Ok(Pulled::Idle);
            }
            let lost_at = self.heard + self.silence();
            let Some(subscriber) = &mut self.subscriber else { return Err(Trouble::Silent) };
            tokio::select! {
                arrived = subscriber.next() => self.take(arrived),
                () = reconnected(&mut self.epoch) => self.trouble = Some(Trouble::Reconnected),
                () = sleep_until(lost_at) => self.trouble = Some(Trouble::Silent),
            }
        }
    }

    /// After how long without a sign a request is taken for lost.
    fn silence(&self) -> Duration {
        self.heartbeat * 2 + Duration::from_secs(1)
    }

    /// Takes all that has arrived into the buffer, so that it is counted.
    fn take_arrived(&mut self) {
        while self.trouble.is_none() {
            let Some(subscriber) = &mut self.subscriber else { return };
            match subscriber.next().now_or_never() {
                Some(arrived) => self.take(arrived),
                None => return,
            }
        }
    }

    fn take(&mut self, arrived: Option<NatsMessage>) {
        let Some(message) = arrived else {
            self.trouble = Some(Trouble::Unsent("the client is closed".into()));
            return;
        };
        self.heard = Instant::now();
        match message.status {
            None | Some(StatusCode::OK) => {
                self.outstanding = self.outstanding.saturating_sub(1);
                self.fruitless = 0;
                self.idle = false;
                self.buffered_bytes += message.length;
                self.buffer.push_back(message);
            }
            // The end of a request before, which has brought all that it could.
            Some(_) if message.subject.as_str() != self.reply_subject() => {}
            Some(StatusCode::IDLE_HEARTBEAT) => self.idle = true,
            // The request's time is over, or there is nothing.
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                self.outstanding = 0;
                self.idle = true;
            }
            // It is complete, or its bound on bytes is reached. In a cluster that can be told before the messages
            // come. If there is another reason, the next request ends in the same way.
            Some(StatusCode::REQUEST_TERMINATED) if self.fruitless < MAX_FRUITLESS => {
                self.outstanding = 0;
                self.fruitless += 1;
            }
            Some(status) => {
                let description = message.description.unwrap_or_default();
                self.trouble = Some(Trouble::Status(format!("{status} {description}")));
            }
        }
    }

    fn reply_subject(&self) -> String {
        format!("{}.{}", self.inbox, self.request)
    }

    /// Requests more when nothing is under way and half of the buffer is free.
    async fn request(&mut self) -> Result<(), Trouble> {
        let room = self.buffer.len() <= self.limits.messages / 2 && self.buffered_bytes <= self.limits.bytes / 2;
        if self.outstanding > 0 || !room {
            return Ok(());
        }
        let batch = (self.limits.messages - self.buffer.len()).max(1);
        // A request that is smaller than the next message would never bring it.
        let largest = self.connection.client.max_payload() + MESSAGE_OVERHEAD;
        let max_bytes = (self.limits.bytes - self.buffered_bytes).max(largest);
        let body = json!({
            "batch": batch,
            "max_bytes": max_bytes,
            "expires": nanoseconds(EXPIRES),
            "idle_heartbeat": nanoseconds(self.heartbeat),
        });
        self.request += 1;
        let (subject, reply) = (self.request_subject.clone(), self.reply_subject());
        let sent = self.connection.client.publish_with_reply(subject, reply, body.to_string().into()).await;
        sent.map_err(|error| Trouble::Unsent(error.to_string()))?;
        self.outstanding = batch;
        self.heard = Instant::now();
        Ok(())
    }
}

impl Session {
    /// Says of each message in the buffer that it is being worked on.
    async fn hold(&mut self) -> Result<(), BusError> {
        self.take_arrived();
        for reply in self.buffer.iter().filter_map(|message| message.reply.as_ref()) {
            super::settle::progress(&self.connection.client, reply).await?;
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reaper.give_back_all(std::mem::take(&mut self.buffer));
        if let Some(subscriber) = self.subscriber.take() {
            self.reaper.retire(subscriber);
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A message together with where its consumer stands.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) message: Message,
    pub(super) reply: async_nats::Subject,
    /// Which delivery of this message it is.
    pub(super) deliveries: u64,
    /// Which delivery of the consumer it is.
    pub(super) consumer_seq: u64,
    /// What the consumer has left after it.
    pub(super) pending: u64,
}

impl Received {
    pub(super) fn read(context: &jetstream::Context, message: NatsMessage) -> Result<Self, String> {
        let message = jetstream::Message { message, context: context.clone() };
        let info = message.info().map_err(|error| error.to_string())?;
        let (seq, consumer_seq, pending) = (info.stream_sequence, info.consumer_sequence, info.pending);
        let deliveries = u64::try_from(info.delivered).unwrap_or(1).max(1);
        let message = message.message;
        let reply = message.reply.ok_or("a message without reply subject")?;
        let headers = message.headers.map(|headers| flatten(&headers)).unwrap_or_default();
        let subject = message.subject.as_str().into();
        let message = Message { subject, seq, headers, payload: message.payload };
        Ok(Self { message, reply, deliveries, consumer_seq, pending })
    }
}

fn flatten(headers: &async_nats::HeaderMap) -> Headers {
    let values = headers.iter().filter_map(|(name, values)| Some((name, values.last()?)));
    values.map(|(name, value)| (name.to_string().into(), value.as_str().to_owned().into())).collect()
}

/// Pulls from a durable consumer, through restarts of the broker.
pub(super) struct NatsPuller {
    link: Arc<ConsumeLink>,
    id: ConsumerId,
    limits: PullLimits,
    session: Option<Session>,
    backoff: Backoff,
    missing: u32,
}

/// What pullers and readers share.
#[derive(Debug)]
pub(super) struct ConsumeLink {
    /// Messages come over this one.
    pub(super) connection: Connection,
    /// The API is asked over the other one, where no messages are in the way.
    pub(super) api: Connection,
    pub(super) context: jetstream::Context,
    pub(super) reaper: Reaper,
}

impl NatsPuller {
    pub(super) async fn open(link: &Arc<ConsumeLink>, id: &ConsumerId, limits: PullLimits) -> Result<Self, BusError> {
        let info = link.api.consumer_info(id.stream.name(), &id.name, QUERY).await;
        info.map_err(|failure| failure.into_error(format_args!("cannot pull from the consumer {id}")))?;
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        Ok(Self { link: link.clone(), id: id.clone(), limits, session: None, backoff, missing: 0 })
    }

    async fn session(&mut self) -> Result<&mut Session, Trouble> {
        if self.session.is_none() {
            let (stream, name) = (self.id.stream.name(), &self.id.name);
            self.session = Some(Session::open(&self.link, stream, name, self.limits, HEARTBEAT).await?);
        }
        self.session.as_mut().ok_or(Trouble::Silent)
    }

    async fn pull(&mut self) -> Result<Pulled, Trouble> {
        self.session().await?.next().await
    }

    /// Waits until it makes sense to begin again, or finds that it never will.
    async fn recover(&mut self, trouble: &Trouble) -> Result<(), BusError> {
        if matches!(trouble, Trouble::Reconnected) {
            return Ok(());
        }
        let delay = self.backoff.next();
        if self.backoff.attempts() > 3 {
            tracing::warn!(consumer = %self.id, "cannot pull: {trouble}; trying again");
        } else {
            tracing::debug!(consumer = %self.id, "cannot pull: {trouble}; trying again");
        }
        tokio::time::sleep(delay).await;
        match self.link.api.consumer_info(self.id.stream.name(), &self.id.name, EXISTENCE).await {
            Err(failure) if is_gone(&failure) => {
                self.missing += 1;
                if self.missing >= MISSING {
                    return Err(failure.into_error(format_args!("cannot pull from the consumer {}", self.id)));
                }
            }
            _ => self.missing = 0,
        }
        Ok(())
    }
}

fn is_gone(failure: &Failure) -> bool {
    failure.is(ErrorCode::CONSUMER_NOT_FOUND) || failure.is(ErrorCode::STREAM_NOT_FOUND)
}

#[async_trait]
impl Puller for NatsPuller {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            match self.pull().await {
                Ok(Pulled::Message(message)) => {
                    self.backoff.reset();
                    self.missing = 0;
                    if let Some(delivery) = self.deliver(*message) {
                        return Ok(delivery);
                    }
                }
                Ok(Pulled::Idle) => {
                    self.backoff.reset();
                    self.missing = 0;
                }
                Err(trouble) => {
                    self.session = None;
                    self.recover(&trouble).await?;
                }
            }
        }
    }

    async fn hold(&mut self) -> Result<(), BusError> {
        match &mut self.session {
            Some(session) => session.hold().await,
            None => Ok(()),
        }
    }
}

impl NatsPuller {
    fn deliver(&self, message: NatsMessage) -> Option<Delivery> {
        let ConsumeLink { connection, context, reaper, .. } = &*self.link;
        match Received::read(context, message) {
            Ok(Received { message, reply, deliveries, .. }) => {
                let settle = Acknowledger::new(connection.client.clone(), reply, reaper.clone());
                Some(Delivery::new(message, deliveries, Box::new(settle)))
            }
            Err(error) => {
                // Nothing but the broker publishes to the inbox; what is not a delivery concerns nobody.
                tracing::warn!(consumer = %self.id, error, "a message that is no delivery");
                None
            }
        }
    }
}
