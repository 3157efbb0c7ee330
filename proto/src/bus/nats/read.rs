//! Reading all that matches from the first message, in order.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{ErrorCode, consumer};
use async_trait::async_trait;

use super::backoff::Backoff;
use super::pull::{ConsumeLink, Pulled, Received, Session, Trouble};
use crate::bus::{BusError, Message, PullLimits, Reader, ReaderSpec};

/// After how long without use the broker removes a reader's consumer. A reader that is away for longer makes itself
/// another one.
const INACTIVE: Duration = Duration::from_secs(300);

/// What a reader has in its buffer at most.
const LIMITS: PullLimits = PullLimits { messages: 256, bytes: 8 * 1024 * 1024 };

/// How often the broker says that there is nothing more.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How often a stream must be looked for in vain before it counts as gone.
const MISSING: u32 = 3;

/// An ephemeral consumer that delivers everything once and in order, or reports trouble. Acknowledgements are not
/// needed: what is missed shows as a gap in the consumer's own sequence.
#[derive(Debug)]
pub(super) struct Ordered {
    link: Arc<ConsumeLink>,
    session: Session,
    stream: String,
    consumer: String,
    delivered: u64,
    /// What it had to deliver when it was created.
    pub(super) pending: u64,
}

/// What an ordered consumer yields.
pub(super) enum Event {
    Message(Box<Received>),
    Idle,
}

impl Ordered {
    pub(super) async fn open(
        link: &Arc<ConsumeLink>,
        stream: &str,
        filter: &str,
        name: &str,
        start: consumer::DeliverPolicy,
    ) -> Result<Self, super::api::Failure> {
        let inbox = link.connection.client.new_inbox();
        let unique = inbox.rsplit('.').next().unwrap_or_default();
        let consumer = format!("{name}-{unique}");
        let config = consumer::Config {
            name: Some(consumer.clone()),
            deliver_policy: start,
            ack_policy: consumer::AckPolicy::None,
            filter_subject: filter.to_owned(),
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..consumer::Config::default()
        };
        let info = link.api.write_consumer(stream, &consumer, &config, "create").await?;
        let session = Session::open(link, stream, &consumer, LIMITS, HEARTBEAT).await;
        let session = session.map_err(|trouble| super::api::Failure::Other(trouble.to_string()))?;
        Ok(Self {
            link: link.clone(),
            session,
            stream: stream.to_owned(),
            consumer,
            delivered: 0,
            pending: info.num_pending,
        })
    }

    /// The next message. Safe to cancel. After trouble it is of no more use.
    pub(super) async fn next(&mut self) -> Result<Event, Trouble> {
        let message = match self.session.next().await? {
            Pulled::Message(message) => *message,
            Pulled::Idle => return Ok(Event::Idle),
        };
        let received = Received::read(&self.link.context, message).map_err(Trouble::Status)?;
        self.delivered += 1;
        if received.consumer_seq != self.delivered {
            let (expected, found) = (self.delivered, received.consumer_seq);
            return Err(Trouble::Status(format!("the delivery {expected} is missing, {found} came instead")));
        }
        Ok(Event::Message(Box::new(received)))
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        let (stream, consumer) = (std::mem::take(&mut self.stream), std::mem::take(&mut self.consumer));
        self.link.reaper.delete_consumer(stream, consumer);
    }
}

/// A reader that goes on after the last message that it has read, whatever happens to its consumer.
pub(super) struct NatsReader {
    link: Arc<ConsumeLink>,
    spec: ReaderSpec,
    ordered: Option<Ordered>,
    last_seq: u64,
    backoff: Backoff,
    missing: u32,
}

impl NatsReader {
    pub(super) async fn open(link: &Arc<ConsumeLink>, spec: &ReaderSpec) -> Result<Self, BusError> {
        let mut reader = Self {
            link: link.clone(),
            spec: spec.clone(),
            ordered: None,
            last_seq: 0,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            missing: 0,
        };
        let opened = reader.reopen().await;
        opened.map_err(|failure| failure.into_error(format_args!("cannot read {}", spec.filter)))?;
        Ok(reader)
    }

    async fn reopen(&mut self) -> Result<(), super::api::Failure> {
        let start = match self.last_seq {
            0 => consumer::DeliverPolicy::All,
            last => consumer::DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
        };
        let ReaderSpec { stream, filter, name } = &self.spec;
        self.ordered = Some(Ordered::open(&self.link, stream.name(), filter, name, start).await?);
        Ok(())
    }

    /// A new consumer, or the error that will not pass.
    async fn recover(&mut self) -> Result<(), BusError> {
        let Err(failure) = self.reopen().await else {
            self.missing = 0;
            return Ok(());
        };
        tracing::debug!(reader = self.spec.name, %failure, "cannot go on reading; trying again");
        self.missing = if failure.is(ErrorCode::STREAM_NOT_FOUND) { self.missing + 1 } else { 0 };
        if self.missing >= MISSING {
            return Err(failure.into_error(format_args!("cannot read {}", self.spec.filter)));
        }
        let delay = self.backoff.next();
        tokio::time::sleep(delay).await;
        Ok(())
    }

    async fn after(&mut self, trouble: &Trouble) {
        tracing::debug!(reader = self.spec.name, last_seq = self.last_seq, "reading anew: {trouble}");
        self.ordered = None;
        if !matches!(trouble, Trouble::Reconnected) {
            let delay = self.backoff.next();
            tokio::time::sleep(delay).await;
        }
    }
}

#[async_trait]
impl Reader for NatsReader {
    async fn next(&mut self) -> Result<Message, BusError> {
        loop {
            let Some(ordered) = &mut self.ordered else {
                self.recover().await?;
                continue;
            };
            match ordered.next().await {
                Ok(Event::Message(received)) => {
                    self.backoff.reset();
                    self.last_seq = received.message.seq;
                    return Ok(received.message);
                }
                Ok(Event::Idle) => self.backoff.reset(),
                Err(trouble) => self.after(&trouble).await,
            }
        }
    }
}
