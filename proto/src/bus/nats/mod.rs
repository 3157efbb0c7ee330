//! The bus over NATS JetStream: durable, shared by any number of hosts.
//!
//! Two connections: what is published and asked goes over one, what is consumed comes over the other, so that a
//! consumer that the broker cuts off for being slow takes no acknowledgement of a publisher with it.

mod api;
mod backoff;
mod connection;
mod kv;
mod options;
mod publish;
mod pull;
mod read;
mod settle;
mod streams;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;

use self::api::{CHANGE, QUERY};
use self::connection::{Connection, Health};
use self::kv::Buckets;
use self::publish::{PATIENCE, Publication, Publisher};
use self::pull::{ConsumeLink, NatsPuller};
use self::read::NatsReader;
use self::settle::Reaper;
use self::watch::NatsWatcher;
use super::{
    Bucket, Bus, BusError, BusErrorKind, ConsumerId, ConsumerSpec, ConsumerState, Encoding, KvEntry, Outgoing,
    PullLimits, Puller, Reader, ReaderSpec, Receipt, StreamUsage, Watcher,
};
use crate::subject::Stream;

pub use self::connection::ConnectionState;
pub use self::options::{NatsCredentials, NatsOptions, StreamLimits};

/// The bus over NATS JetStream.
#[derive(Debug)]
pub struct NatsBus {
    options: NatsOptions,
    api: Connection,
    publisher: Publisher,
    link: Arc<ConsumeLink>,
    buckets: Buckets,
}

impl NatsBus {
    /// Connects to the broker. While it is away, that is said in the log and tried again: for `patience`, or for ever
    /// without one. To give up earlier, drop the future.
    ///
    /// `on_state` is told when the connection is lost, and when it is back. It must not block.
    ///
    /// # Errors
    /// [`BusErrorKind::Refused`] at once when the broker refuses the credentials, [`BusErrorKind::Mismatch`] at once
    /// when the options or the broker cannot do, [`BusErrorKind::Unavailable`] when patience is over.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), proto::bus::BusError> {
    /// use proto::bus::nats::{NatsBus, NatsOptions};
    /// let bus = NatsBus::connect(NatsOptions::new("nats://localhost:4222"), None, |state| println!("{state:?}")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(
        options: NatsOptions,
        patience: Option<Duration>,
        on_state: impl Fn(ConnectionState) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, BusError> {
        // There may be one already; the client needs any.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let deadline = patience.map(|patience| Instant::now() + patience);
        let health = Arc::new(Health::new(Box::new(on_state)));
        let api = Connection::open(&options, "publish", &health, deadline).await?;
        check_server(&options, &api)?;
        let consume = Connection::open(&options, "consume", &health, deadline).await?;
        health.tell(ConnectionState::Connected);

        let link = Arc::new(ConsumeLink {
            context: jetstream::new(consume.client.clone()),
            reaper: Reaper::start(consume.clone()),
            connection: consume,
            api: api.clone(),
        });
        let publisher = Publisher::new(api.clone());
        let buckets = Buckets::new(publisher.clone(), link.clone());
        Ok(Arc::new(Self { options, api, publisher, link, buckets }))
    }

    async fn store(&self, publication: &Publication) -> Result<Receipt, BusError> {
        let ack = self.publisher.store(publication, PATIENCE).await?;
        Ok(Receipt { seq: ack.sequence, duplicate: ack.duplicate })
    }

    fn publication(&self, message: Outgoing) -> Result<Publication, BusError> {
        let Some(stream) = Stream::of(&message.subject) else {
            let message = format!("no stream holds the subject {}", message.subject);
            return Err(BusError::new(BusErrorKind::NotFound, message));
        };
        Publication::of(message, stream.name().into(), self.api.client.new_inbox())
    }
}

fn check_server(options: &NatsOptions, connection: &Connection) -> Result<(), BusError> {
    if connection.client.server_info().jetstream {
        return Ok(());
    }
    let servers = options.display_servers();
    let message =
        format!("the NATS server at {servers} has no JetStream: enable it (jetstream {{}} in its configuration)");
    Err(BusError::new(BusErrorKind::Mismatch, message))
}

#[async_trait]
impl Bus for NatsBus {
    fn encoding(&self) -> Encoding {
        Encoding::Lz4
    }

    fn max_message(&self) -> usize {
        self.api.client.max_payload()
    }

    fn can_replay(&self) -> bool {
        true
    }

    async fn ensure_streams(&self) -> Result<(), BusError> {
        self.api.ensure_streams(&self.options).await
    }

    async fn is_ready(&self) -> Result<bool, BusError> {
        self.api.has_streams().await
    }

    async fn publish(&self, message: Outgoing) -> Result<Receipt, BusError> {
        let publication = self.publication(message)?;
        self.store(&publication).await
    }

    async fn publish_expecting(&self, message: Outgoing, last_seq: u64) -> Result<Receipt, BusError> {
        let publication = self.publication(message)?.expecting(last_seq)?;
        self.store(&publication).await
    }

    async fn create_consumer(&self, spec: &ConsumerSpec) -> Result<(), BusError> {
        self.api.create_consumer(spec).await
    }

    async fn delete_consumer(&self, id: &ConsumerId) -> Result<(), BusError> {
        let deleted = self.api.delete_consumer(id.stream.name(), &id.name).await;
        deleted.map_err(|failure| failure.into_error(format_args!("cannot delete the consumer {id}")))
    }

    async fn pull(&self, id: &ConsumerId, limits: PullLimits) -> Result<Box<dyn Puller>, BusError> {
        Ok(Box::new(NatsPuller::open(&self.link, id, limits).await?))
    }

    async fn consumer_state(&self, id: &ConsumerId) -> Result<ConsumerState, BusError> {
        let info = self.api.consumer_info(id.stream.name(), &id.name, QUERY).await;
        let info = info.map_err(|failure| failure.into_error(format_args!("cannot look at the consumer {id}")))?;
        Ok(ConsumerState {
            ack_floor: info.ack_floor.stream_sequence,
            ack_pending: u64::try_from(info.num_ack_pending).unwrap_or(u64::MAX),
            pending: info.num_pending,
        })
    }

    async fn announce_reader(&self, _spec: &ReaderSpec) -> Result<(), BusError> {
        Ok(())
    }

    async fn read(&self, spec: &ReaderSpec) -> Result<Box<dyn Reader>, BusError> {
        Ok(Box::new(NatsReader::open(&self.link, spec).await?))
    }

    async fn retire_reader(&self, _spec: &ReaderSpec) -> Result<(), BusError> {
        Ok(())
    }

    async fn last_seq(&self, stream: Stream, filter: &str) -> Result<u64, BusError> {
        let last = self.api.last_message(stream.name(), filter).await;
        let last = last.map_err(|failure| failure.into_error(format_args!("cannot look at the last of {filter}")))?;
        Ok(last.map_or(0, |message| message.seq))
    }

    async fn count(&self, stream: Stream, filter: &str) -> Result<u64, BusError> {
        let counted = self.api.count(stream.name(), filter).await;
        counted.map_err(|failure| failure.into_error(format_args!("cannot count {filter}")))
    }

    async fn purge(&self, stream: Stream, filter: &str, through: Option<u64>) -> Result<(), BusError> {
        let body = match through {
            Some(0) => return Ok(()),
            // The broker removes what is below its sequence.
            Some(through) => json!({ "filter": filter, "seq": through.saturating_add(1) }),
            None => json!({ "filter": filter }),
        };
        let operation = format!("STREAM.PURGE.{}", stream.name());
        match self.api.api::<serde_json::Value>(&operation, &body, CHANGE).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.into_error(format_args!("cannot purge {filter}"))),
        }
    }

    async fn delete_message(&self, stream: Stream, seq: u64) -> Result<(), BusError> {
        let operation = format!("STREAM.MSG.DELETE.{}", stream.name());
        let body = json!({ "seq": seq, "no_erase": true });
        match self.api.api::<serde_json::Value>(&operation, &body, CHANGE).await {
            Ok(_) => Ok(()),
            Err(failure) => {
                // It is not there, or was removed before its answer came.
                let is_gone = self.count(stream, ">").await.is_ok() && failure.kind() == BusErrorKind::NotFound;
                if is_gone { Ok(()) } else { Err(failure.into_error(format_args!("cannot remove the message {seq}"))) }
            }
        }
    }

    async fn usage(&self, stream: Stream) -> Result<StreamUsage, BusError> {
        self.api.usage(stream).await
    }

    async fn kv_get(&self, bucket: Bucket, key: &str) -> Result<Option<KvEntry>, BusError> {
        self.buckets.get(bucket, key).await
    }

    async fn kv_entries(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>, BusError> {
        self.buckets.entries(bucket, prefix).await
    }

    async fn kv_create(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, BusError> {
        self.buckets.create(bucket, key, value, ttl).await
    }

    async fn kv_update(&self, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BusError> {
        self.buckets.update(bucket, key, value, revision).await
    }

    async fn kv_put(&self, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BusError> {
        self.buckets.put(bucket, key, value).await
    }

    async fn kv_delete(&self, bucket: Bucket, key: &str) -> Result<(), BusError> {
        self.buckets.delete(bucket, key).await
    }

    async fn kv_watch(&self, bucket: Bucket) -> Result<Box<dyn Watcher>, BusError> {
        Ok(Box::new(NatsWatcher::open(&self.link, bucket).await?))
    }
}
