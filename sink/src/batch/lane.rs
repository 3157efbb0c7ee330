//! Pulls messages, fills batches, has them written, and settles the messages.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use proto::bus::{BusError, ConsumerId, Delivery, Message, PullLimits, SharedBus};
use proto::plan::{Plan, PluginSpec};
use proto::service::metrics;
use proto::service::trace::{Kind, Span, SpanContext};
use proto::status::{self, Counts, DeadLetter, Settled, Status};
use proto::subject::{Key, Role, Version};
use tokio::time::Instant;

use super::budget::{Room, Share};
use super::documents::{Maker, PER_DOCUMENT, Source, expected};
use super::health::Health;
use super::write::{self, HOLD, Unsettled};
use super::{Ended, Job};
use crate::settings::Settings;
use crate::store::{BatchLimits, Document, Store};

/// How often deliveries in hand say that they are being worked on.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How long documents wait for more when the store has nothing to do.
const QUIET: Duration = Duration::from_millis(20);
/// How many deliveries may end with their worker. Those that were given back while the store was down come to it.
const MAX_LOST_DELIVERIES: u64 = 20;
/// What a puller has in its buffer, in bytes of compressed frames: some thousand documents.
const PULLED: usize = 1024 * 1024;
/// The parts of what it may hold that a lane makes batches of: one is being filled while others are written.
const BATCHES: usize = 3;

/// One worker's part in filling a store.
pub(super) struct Lane<'a> {
    job: &'a Job,
    store: &'a Arc<dyn Store>,
    health: &'a Health,
    share: &'a Share,
    limits: BatchLimits,
    patience: Duration,
    maker: Maker,
    graves: Graves,
    /// Messages that are not settled.
    in_hand: HashMap<u64, InHand>,
    next_slot: u64,
    bytes_in_hand: usize,
    /// A message for which there is no room.
    waiting: Option<Delivery>,
    filling: Batch,
    full: VecDeque<Batch>,
    writing: FuturesUnordered<BoxFuture<'a, Result<Written, Ended>>>,
    settling: FuturesUnordered<BoxFuture<'a, Result<(), BusError>>>,
    stopping: bool,
}

/// A message that is not settled.
struct InHand {
    delivery: Delivery,
    room: Room,
    bytes: usize,
    /// Documents that are neither stored nor buried.
    left: usize,
    stored: u64,
    /// Its way into the store.
    span: Span,
}

/// Documents on their way.
#[derive(Default)]
struct Batch {
    documents: Vec<Document>,
    sources: Vec<Source>,
    /// A document that comes again meanwhile goes into the next batch: within one, stores need not know an order.
    ids: HashSet<String>,
    bytes: usize,
    since: Option<Instant>,
    last: Option<Instant>,
    /// The spans of the messages.
    spans: Vec<SpanContext>,
}

impl Batch {
    fn note_span(&mut self, span: Option<SpanContext>) {
        if let Some(span) = span.filter(|span| self.spans.last() != Some(span)) {
            self.spans.push(span);
        }
    }

    fn is_full_before(&self, document: &Document, limits: &BatchLimits, most: usize) -> bool {
        let bytes = self.bytes + document.body.len();
        !self.documents.is_empty()
            && (self.documents.len() >= limits.documents
                || bytes > limits.bytes
                || bytes + self.documents.len() * PER_DOCUMENT > most
                || self.ids.contains(&document.id))
    }

    fn push(&mut self, document: Document, source: Source) {
        let now = Instant::now();
        self.since.get_or_insert(now);
        self.last = Some(now);
        self.bytes += document.body.len();
        self.ids.insert(document.id.clone());
        self.documents.push(document);
        self.sources.push(source);
    }
}

/// A batch that is settled: per message how many of its documents were stored, and how many buried.
struct Written {
    stored: HashMap<u64, usize>,
    buried: HashMap<u64, usize>,
}

impl<'a> Lane<'a> {
    pub(super) fn new(
        job: &'a Job,
        store: &'a Arc<dyn Store>,
        settings: &Settings,
        health: &'a Health,
        share: &'a Share,
    ) -> Self {
        let limits = store.limits();
        let limits = BatchLimits {
            documents: limits.documents.max(1),
            bytes: limits.bytes.max(1),
            in_flight: limits.in_flight.max(1),
            ..limits
        };
        Self {
            job,
            store,
            health,
            share,
            limits,
            patience: settings.patience(),
            maker: Maker::new(&job.open.plan, &job.spec),
            graves: Graves::new(&job.worker.bus, &job.open.plan, &job.spec),
            in_hand: HashMap::new(),
            next_slot: 0,
            bytes_in_hand: 0,
            waiting: None,
            filling: Batch::default(),
            full: VecDeque::new(),
            writing: FuturesUnordered::new(),
            settling: FuturesUnordered::new(),
            stopping: false,
        }
    }

    /// Works until the version has ended, or something is in the way. What is in hand then is given back.
    pub(super) async fn work(mut self) -> Ended {
        let id: ConsumerId = self.job.consumer();
        let limits = PullLimits { bytes: PULLED, ..PullLimits::default() };
        let mut puller = match self.job.worker.bus.pull(&id, limits).await {
            Ok(puller) => puller,
            Err(error) => return Ended::Bus(error),
        };
        let unwanted = self.job.unwanted();
        tokio::pin!(unwanted);
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        let mut freed = self.share.freed();
        loop {
            freed.mark_unchanged();
            if let Some(delivery) = self.waiting.take()
                && let Err(error) = self.take_if_there_is_room(delivery).await
            {
                return Ended::Bus(error);
            }
            self.begin_writing();
            if self.stopping && self.in_hand.is_empty() && self.settling.is_empty() {
                return Ended::Stopped;
            }
            let due = self.due();
            tokio::select! {
                Some(written) = self.writing.next() => match written {
                    Ok(written) => self.note(written),
                    Err(ended) => return ended,
                },
                Some(settled) = self.settling.next() => if let Err(error) = settled {
                    return Ended::Bus(error);
                },
                delivery = puller.next(), if self.takes_more() => match delivery {
                    Ok(delivery) => if let Err(error) = self.take_if_there_is_room(delivery).await {
                        return Ended::Bus(error);
                    },
                    Err(error) => return Ended::Bus(error),
                },
                // It is looked again, above. The budget outlives its lanes.
                Ok(()) = freed.changed(), if self.waiting.is_some() => {}
                () = until(due), if due.is_some() => {
                    let batch = std::mem::take(&mut self.filling);
                    self.full.push_back(batch);
                }
                _ = ticks.tick() => {
                    self.say_progress().await;
                    // While the store is slow nobody asks for what the puller has.
                    if let Err(error) = puller.hold().await {
                        tracing::debug!(%error, "cannot report progress");
                    }
                }
                () = self.job.worker.shutdown.cancelled(), if !self.stopping => self.stopping = true,
                () = &mut unwanted => return Ended::NotWanted,
            }
        }
    }

    /// When the batch that is being filled is to be written although it is not full.
    fn due(&self) -> Option<Instant> {
        let (since, last) = (self.filling.since?, self.filling.last?);
        if !self.full.is_empty() || self.writing.len() >= self.limits.in_flight {
            return None;
        }
        // Nothing more comes before this is written.
        if self.stopping || (self.waiting.is_some() && self.writing.is_empty()) {
            return Some(since);
        }
        let lingered = since + self.limits.linger;
        // A store that has nothing to do gains nothing from waiting.
        Some(if self.writing.is_empty() { lingered.min(last + QUIET) } else { lingered })
    }

    fn takes_more(&self) -> bool {
        let most = self.limits.bytes.saturating_mul(self.limits.in_flight + 1);
        !self.stopping && self.waiting.is_none() && self.full.is_empty() && self.bytes_in_hand < most
    }

    fn begin_writing(&mut self) {
        while self.writing.len() < self.limits.in_flight
            && let Some(batch) = self.full.pop_front()
        {
            let store = Arc::clone(self.store);
            let (health, patience, graves) = (self.health, self.patience, self.graves.clone());
            let in_work = self.job.worker.presence.begin_work();
            self.writing.push(Box::pin(async move {
                let _in_work = in_work;
                settle_batch(store, batch, health, patience, graves).await
            }));
        }
    }

    /// The span of a message's way into the store.
    fn span(&self, message: &Message) -> Span {
        let mut span = Span::begin("store", Kind::Consumer, SpanContext::of_message(message));
        let (plan, spec) = (&self.job.open.plan, &self.job.spec);
        span.set("cloudmarker.audit", &plan.audit);
        span.set("cloudmarker.version", &plan.version);
        span.set("cloudmarker.role", spec.role.as_str());
        span.set("cloudmarker.plugin", &spec.key);
        span
    }

    /// Takes a message in hand, or keeps it until others are settled. One that is not wanted any more is given back.
    async fn take_if_there_is_room(&mut self, delivery: Delivery) -> Result<(), BusError> {
        if self.stopping {
            return Ok(());
        }
        match self.share.take(expected(&delivery.message)) {
            Some(room) => self.take(delivery, room).await,
            None => {
                self.waiting = Some(delivery);
                Ok(())
            }
        }
    }

    /// Takes a message in hand.
    async fn take(&mut self, delivery: Delivery, mut room: Room) -> Result<(), BusError> {
        let message = &delivery.message;
        let slot = self.next_slot;
        self.next_slot += 1;
        let source =
            Source { slot, subject: Arc::clone(&message.subject), seq: message.seq, deliveries: delivery.deliveries };
        let lost = MAX_LOST_DELIVERIES + 2 * (self.patience.as_secs() / HOLD.as_secs().max(1));
        let worn_out = (delivery.deliveries > lost)
            .then(|| format!("it came {} times in a message that was never settled", delivery.deliveries));
        let opened = self.maker.open(message);
        let span = self.span(message);
        let from = span.context();
        if let Ok(opened) = &opened {
            room.correct(opened.bytes + opened.documents.len() * PER_DOCUMENT);
        }
        let mut in_hand = InHand { room, bytes: 0, left: 0, stored: 0, span, delivery };
        match opened {
            Ok(opened) => {
                for (reason, line) in opened.odd {
                    self.graves.bury(&source, reason, &line).await?;
                }
                if let Some(reason) = worn_out {
                    // One by one, as documents: so they can be sent back.
                    for document in opened.documents {
                        self.graves.bury(&source, reason.clone(), &document.body).await?;
                    }
                    self.settle(vec![in_hand]);
                    return Ok(());
                }
                // The documents are there.
                in_hand.delivery.message.payload = Bytes::new();
                in_hand.left = opened.documents.len();
                in_hand.bytes = opened.documents.iter().map(|document| document.body.len()).sum();
                let most = self.share.guaranteed() / BATCHES;
                for document in opened.documents {
                    if self.filling.is_full_before(&document, &self.limits, most) {
                        let batch = std::mem::take(&mut self.filling);
                        self.full.push_back(batch);
                    }
                    self.filling.push(document, source.clone());
                    self.filling.note_span(from);
                }
            }
            Err(reason) => {
                let payload = in_hand.delivery.message.payload.clone();
                self.graves.bury(&source, reason, &payload).await?;
            }
        }
        self.bytes_in_hand += in_hand.bytes;
        if in_hand.left == 0 {
            self.settle(vec![in_hand]);
        } else {
            self.in_hand.insert(slot, in_hand);
        }
        Ok(())
    }

    /// Takes note of a batch that is settled, and settles the messages that are done with it.
    fn note(&mut self, written: Written) {
        let mut done = Vec::new();
        let counts = written.stored.into_iter().map(|(slot, count)| (slot, count, count as u64));
        for (slot, count, stored) in counts.chain(written.buried.into_iter().map(|(slot, count)| (slot, count, 0))) {
            let Some(in_hand) = self.in_hand.get_mut(&slot) else { continue };
            in_hand.left = in_hand.left.saturating_sub(count);
            in_hand.stored += stored;
            if in_hand.left == 0 {
                done.extend(self.in_hand.remove(&slot));
            }
        }
        if !done.is_empty() {
            self.settle(done);
        }
    }

    /// Says what became of messages, and acknowledges them.
    fn settle(&mut self, mut done: Vec<InHand>) {
        let job = self.job;
        self.bytes_in_hand -= done.iter().map(|in_hand| in_hand.bytes).sum::<usize>();
        done.iter_mut().for_each(|in_hand| in_hand.room.correct(0));
        let settled = done.iter().map(|in_hand| Settled {
            seq: in_hand.delivery.message.seq,
            records: in_hand.stored,
            results: [].into(),
        });
        let counts = Counts { role: job.spec.role, plugin: Some(job.spec.key.clone()), settled: settled.collect() };
        self.settling.push(Box::pin(async move {
            job.say(&Status::Counts(counts)).await?;
            for mut in_hand in done {
                in_hand.span.set("cloudmarker.documents", in_hand.stored);
                in_hand.delivery.ack().await?;
            }
            Ok(())
        }));
    }

    async fn say_progress(&mut self) {
        let in_hand = self.in_hand.values().map(|in_hand| &in_hand.delivery);
        for delivery in in_hand.chain(&self.waiting) {
            if let Err(error) = delivery.progress().await {
                tracing::debug!(%error, "cannot report progress");
                return;
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Writes a batch, and buries what the store refuses.
async fn settle_batch(
    store: Arc<dyn Store>,
    batch: Batch,
    health: &Health,
    patience: Duration,
    graves: Graves,
) -> Result<Written, Ended> {
    let Batch { documents, sources, spans, .. } = batch;
    let mut span = Span::begin("write", Kind::Client, spans.first().copied());
    spans.iter().skip(1).for_each(|other| span.link(Some(*other)));
    span.set("cloudmarker.plugin", &graves.plugin);
    span.set("cloudmarker.documents", documents.len() as u64);
    let began = Instant::now();
    let (count, bodies) = (documents.len(), documents.iter().map(|document| document.body.clone()).collect::<Vec<_>>());
    let written = write::write(&*store, documents, health, patience).await;
    let settled = match written {
        Ok(settled) => settled,
        Err(unsettled) => {
            let (reason, ended) = match unsettled {
                Unsettled::Down => ("the store is down".to_owned(), Ended::Down),
                Unsettled::Hopeless(reason) => (reason.clone(), Ended::Hopeless(reason)),
            };
            span.fail(&reason);
            return Err(ended);
        }
    };
    drop(span);
    graves.count(&settled, count, began.elapsed());
    let mut written = Written { stored: HashMap::new(), buried: HashMap::new() };
    let mut refused = HashSet::new();
    for (place, reason) in settled.refused {
        if !refused.insert(place) {
            continue;
        }
        if let (Some(body), Some(source)) = (bodies.get(place), sources.get(place)) {
            graves.bury(source, reason, body).await.map_err(Ended::Bus)?;
            *written.buried.entry(source.slot).or_default() += 1;
        }
    }
    for (_, source) in sources.iter().enumerate().filter(|(place, _)| !refused.contains(place)) {
        *written.stored.entry(source.slot).or_default() += 1;
    }
    Ok(written)
}

/// Where a store's dead letters go.
#[derive(Debug, Clone)]
pub(super) struct Graves {
    bus: SharedBus,
    audit: Key,
    version: Version,
    role: Role,
    plugin: Key,
}

impl Graves {
    pub(super) fn new(bus: &SharedBus, plan: &Plan, spec: &PluginSpec) -> Self {
        Self {
            bus: Arc::clone(bus),
            audit: plan.audit.clone(),
            version: plan.version.clone(),
            role: spec.role,
            plugin: spec.key.clone(),
        }
    }

    /// Counts a batch that is settled.
    fn count(&self, settled: &write::Settled, documents: usize, took: Duration) {
        let refused = settled.refused.len() as u64;
        let stored = (documents as u64).saturating_sub(refused);
        metrics::batch_written(&self.audit, self.role, &self.plugin, stored, refused, took);
        if settled.retries > 0 {
            metrics::store_retried(&self.audit, self.role, &self.plugin, settled.retries);
        }
    }

    async fn bury(&self, source: &Source, reason: String, body: &[u8]) -> Result<(), BusError> {
        let letter = DeadLetter::new(&source.subject, Some(source.seq), reason, source.deliveries, body);
        status::bury(&*self.bus, &self.audit, &self.version, self.role, &self.plugin, &letter).await
    }
}
