//! `SplunkHECStore`: one event for each document, sent to Splunk's HTTP Event Collector.
//!
//! Splunk has no way to replace an event, nor to remove one: a document that comes again (after a failure in the
//! middle of a request, or when a version is run again) is there twice, and old versions go as the index's own
//! retention says. A document's id is in the event; `| dedup com.id` shows each once. An event that a server finds bad
//! is set aside alone; those that stood before it in the request may then be there twice, too.
//!
//! `time` is what `com.time` says, else when the run began. Splunk cuts events at 10,000 bytes unless the sourcetype
//! has `TRUNCATE = 0` in its `props.conf`.

mod answer;
mod client;
mod event;
mod params;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use proto::catalogue::{ParamError, PluginClass, in_one_line};
use proto::config::params as parameters;
use proto::plan::Stage;
use proto::subject::Role;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::registry::Context;
use crate::store::{BatchLimits, Document, Pruning, Store, StoreError, Written};
use answer::Meaning;
use client::Client;
use event::{Events, Metadata};
use params::{Ack, Collector, Params};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.stores.splunkhecstore.SplunkHECStore",
    roles: &[Role::Store, Role::Alert],
    stage: Stage::Sink,
    exclusive: false,
    pool: None,
    check: Some(&check),
};

/// What Splunk advises a request to have at most, in bytes before compression.
const REQUEST_BYTES: usize = 1024 * 1024;
/// How long is waited before the indexers are asked again: longer each time.
const FIRST_POLL: Duration = Duration::from_millis(100);
const LAST_POLL: Duration = Duration::from_secs(5);

fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    params::check(value)
}

/// Builds the store of its parameters. It connects when it is first used.
///
/// # Errors
/// Every parameter that is not as it should be, for people.
pub fn build(context: Context<'_>) -> Result<Arc<dyn Store>, String> {
    Ok(Arc::new(SplunkHecStore::new(context.params)?))
}

/// The store.
#[derive(Debug)]
pub struct SplunkHecStore {
    client: Client,
    /// Where it is, for error texts.
    place: String,
    metadata: Metadata,
    buffer_size: usize,
    ack: Ack,
    ack_timeout: Duration,
    told_of_pruning: AtomicBool,
}

impl SplunkHecStore {
    /// The store of these parameters. It connects when it is first used.
    ///
    /// # Errors
    /// Every parameter that is not as it should be, for people.
    pub fn new(value: &Value) -> Result<Self, String> {
        params::check(value).map_err(|errors| in_one_line(&errors))?;
        let read: Params = parameters::read(value).map_err(|errors| in_one_line(&errors))?;
        let collector = Collector::parse(&read.uri)?;
        let client = Client::new(&read, collector)?;
        let place = format!("Splunk at {}", client.collector());
        if client.collector().is_open() {
            tracing::warn!(place, "`uri` is plain http: whoever is in between can read the token");
        }
        let host = read.host.clone().or_else(|| {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            (!name.is_empty()).then_some(name)
        });
        let metadata = Metadata {
            host,
            source: read.source.clone(),
            sourcetype: read.sourcetype.clone(),
            index: read.index.clone(),
        };
        Ok(Self {
            client,
            place,
            metadata,
            buffer_size: read.buffer_size,
            ack: read.ack,
            ack_timeout: read.ack_timeout(),
            told_of_pruning: AtomicBool::new(false),
        })
    }

    fn index(&self) -> Option<&str> {
        self.metadata.index.as_deref()
    }

    /// A channel does no harm with a token that has no use for it, so that it need not be known which kind it is.
    fn with_channel(&self) -> bool {
        self.ack != Ack::Never
    }

    fn no_channel(&self, reason: &str) -> StoreError {
        let todo = match self.ack {
            Ack::Never => "the token is made with indexer acknowledgement: leave out `ack: false`",
            _ => "the channel did not arrive: does a proxy remove the header `X-Splunk-Request-Channel`?",
        };
        StoreError::Permanent(format!("{}: {reason}; {todo}", self.place))
    }

    /// Sends events, and waits until they are as safe as the token promises.
    async fn send(&self, lines: Vec<u8>) -> Result<Option<Refused>, StoreError> {
        let answer = self.client.send(lines, self.with_channel()).await?;
        match answer.meaning(&self.place, self.index()) {
            Meaning::Taken(Some(number)) if self.with_channel() => self.wait_until_indexed(number).await.map(|()| None),
            Meaning::Taken(None) if self.ack == Ack::Always => Err(StoreError::Permanent(format!(
                "{}: the token is made without indexer acknowledgement: enable it there, or leave out `ack: true`",
                self.place
            ))),
            Meaning::Taken(_) => Ok(None),
            Meaning::BadEvent { number, reason } => Ok(Some(Refused { number, reason })),
            Meaning::NoChannel(reason) => Err(self.no_channel(&reason)),
            Meaning::Failed(error) => Err(error),
        }
    }

    async fn wait_until_indexed(&self, number: u64) -> Result<(), StoreError> {
        let (asked, mut pause) = (Instant::now(), FIRST_POLL);
        loop {
            let answer = match self.client.ask(number).await {
                Ok(answer) => answer.is_confirmed(number, &self.place),
                Err(error) => Err(error),
            };
            let reason = match answer {
                Ok(true) => return Ok(()),
                Ok(false) => "the indexers have not confirmed them".to_owned(),
                // It was asked for a bad moment, and not the events.
                Err(StoreError::Transient { reason, .. }) => reason,
                Err(error) => return Err(error),
            };
            if asked.elapsed() + pause > self.ack_timeout {
                let seconds = self.ack_timeout.as_secs();
                let reason = format!("{}: events were sent, but after {seconds} s: {reason}", self.place);
                return Err(StoreError::Transient { reason, wait: None });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_POLL);
        }
    }

    /// Finds the event that the server does not take, sets it aside, and gives back the others: it is not known which
    /// of them the server has.
    async fn set_aside(&self, events: &Events, refused: Refused, written: &mut Written) -> Result<(), StoreError> {
        let Refused { number, reason } = refused;
        if let [(place, _)] = events.events.as_slice() {
            written.refused.push((*place, reason));
            return Ok(());
        }
        let mut settled = Vec::new();
        // Some codes count events from 0, some from 1. Alone, each is judged by itself.
        for suspect in number.into_iter().flat_map(|number| [Some(number), number.checked_sub(1)]).flatten() {
            let Some((place, line)) = events.alone(suspect) else { continue };
            settled.push(place);
            if let Some(alone) = self.send(line).await? {
                written.refused.push((place, alone.reason));
                let others = events.events.iter().map(|(place, _)| *place).filter(|place| !settled.contains(place));
                written.again.extend(others.map(|place| (place, format!("beside a bad event: {reason}"))));
                return Ok(());
            }
        }
        // Halves of the batch lead to it, too.
        Err(StoreError::TooLarge(format!("{}: {reason}, and it does not say of which event", self.place)))
    }

    /// Whether the server takes the token: it answers so before it looks for events.
    async fn check_token(&self) -> Result<(), StoreError> {
        let answer = self.client.knock(self.with_channel()).await?;
        match answer.meaning(&self.place, self.index()) {
            Meaning::NoChannel(reason) => Err(self.no_channel(&reason)),
            Meaning::Failed(StoreError::Permanent(_)) if answer.is_no_data() => Ok(()),
            Meaning::Failed(error) => Err(error),
            Meaning::Taken(_) | Meaning::BadEvent { .. } => Ok(()),
        }
    }

    /// Whether the token may write to the index, as far as the server says so of an event that it cannot take.
    async fn check_index(&self) -> Result<(), StoreError> {
        let Some(index) = self.index() else { return Ok(()) };
        let blank = json!({"index": index, "sourcetype": self.metadata.sourcetype, "event": ""});
        let answer = self.client.send(blank.to_string().into_bytes(), self.with_channel()).await?;
        match answer.meaning(&self.place, Some(index)) {
            Meaning::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// An event that the server does not take.
#[derive(Debug)]
struct Refused {
    number: Option<usize>,
    reason: String,
}

#[async_trait]
impl Store for SplunkHecStore {
    fn limits(&self) -> BatchLimits {
        BatchLimits { documents: self.buffer_size, bytes: REQUEST_BYTES, ..BatchLimits::default() }
    }

    async fn connect(&self) -> Result<(), StoreError> {
        self.check_token().await?;
        self.check_index().await
    }

    async fn write(&self, documents: &[Document]) -> Result<Written, StoreError> {
        let (mut written, mut events) = (Written::default(), Events::default());
        for (place, document) in documents.iter().enumerate() {
            if let Err(reason) = events.push(place, document, &self.metadata) {
                written.refused.push((place, reason));
            }
        }
        if !events.events.is_empty()
            && let Some(refused) = self.send(std::mem::take(&mut events.lines)).await?
        {
            // Rare: made once more rather than kept for every batch.
            events.events.clear();
            for (place, document) in documents.iter().enumerate() {
                // Those that cannot be sent have been noted.
                let _ = events.push(place, document, &self.metadata);
            }
            self.set_aside(&events, refused, &mut written).await?;
        }
        written.refused.sort_by_key(|(place, _)| *place);
        Ok(written)
    }

    async fn prune(&self, _pruning: &Pruning) -> Result<u64, StoreError> {
        if !self.told_of_pruning.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                place = self.place,
                "nothing is removed: the collector cannot do it; set how long the index keeps events in Splunk"
            );
        }
        Ok(0)
    }

    fn place(&self) -> String {
        match self.index() {
            Some(index) => format!("{}, index {index}", self.place),
            None => self.place.clone(),
        }
    }
}
