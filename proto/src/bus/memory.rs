//! The bus inside of one process: the same contract without a server.
//!
//! A message is kept until every consumer and reader that existed when it was published has settled it; what nobody
//! reads is not kept at all. Each stream is bounded by bytes: a publisher waits until there is room. Nothing survives
//! the process, so a reader cannot begin again; but the durable buckets do, where the bus is given a folder for them.

mod files;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::{
    Bucket, Bus, BusError, BusErrorKind, ConsumerId, ConsumerSpec, ConsumerState, Delivery, Encoding, KvChange,
    KvEntry, Message, Outgoing, PullLimits, Puller, Reader, ReaderSpec, Receipt, Settle, StreamUsage, Watcher,
};
use crate::identity::Id;
use crate::subject::{self, Stream};
use files::Files;

/// How much the bus holds.
#[derive(Debug, Clone, Copy)]
pub struct MemoryOptions {
    /// Bytes of unsettled messages in a stream, beyond which publishers wait.
    pub stream_bytes: usize,
    /// Bytes of unsettled units, beyond which publishing one fails.
    pub unit_bytes: usize,
    /// The largest message, in bytes.
    pub max_message: usize,
    /// How long a publisher waits for room.
    pub patience: Duration,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            stream_bytes: 2 * 1024 * 1024,
            unit_bytes: 256 * 1024 * 1024,
            max_message: 64 * 1024 * 1024,
            patience: Duration::from_secs(600),
        }
    }
}

/// How many message ids a stream remembers.
const REMEMBERED_IDS: usize = 16 * 1024;

/// The in-process bus.
pub struct MemoryBus {
    options: MemoryOptions,
    streams: BTreeMap<Stream, Arc<StreamCell>>,
    buckets: Arc<BTreeMap<Bucket, Mutex<BucketState>>>,
    /// The buckets that outlive the process.
    kept: BTreeMap<Bucket, Arc<Files>>,
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBus").field("options", &self.options).finish_non_exhaustive()
    }
}

impl MemoryBus {
    /// A bus whose durable buckets are kept in files below a folder of the host's state; all else is empty.
    ///
    /// # Errors
    /// When the folder cannot be made or used.
    pub fn open(options: MemoryOptions, state_dir: &Path) -> Result<Self, BusError> {
        let durable = Bucket::ALL.into_iter().filter(|bucket| bucket.is_durable());
        let files = durable.map(|bucket| Ok((bucket, Arc::new(Files::open(state_dir, bucket)?))));
        Ok(Self { kept: files.collect::<Result<_, BusError>>()?, ..Self::new(options) })
    }

    /// An empty bus that keeps nothing.
    #[must_use]
    pub fn new(options: MemoryOptions) -> Self {
        let streams = Stream::ALL.map(|stream| (stream, Arc::new(StreamCell::default())));
        let buckets = Bucket::ALL.map(|bucket| (bucket, Mutex::default()));
        Self { options, streams: streams.into(), buckets: Arc::new(buckets.into()), kept: BTreeMap::new() }
    }

    fn stream(&self, stream: Stream) -> Result<&Arc<StreamCell>, BusError> {
        self.streams
            .get(&stream)
            .ok_or_else(|| BusError::new(BusErrorKind::NotFound, format!("there is no stream {}", stream.name())))
    }

    fn bucket(&self, bucket: Bucket) -> Result<MutexGuard<'_, BucketState>, BusError> {
        let cell = self
            .buckets
            .get(&bucket)
            .ok_or_else(|| BusError::new(BusErrorKind::NotFound, format!("there is no bucket {}", bucket.name())))?;
        Ok(lock(cell))
    }

    async fn store(&self, message: Outgoing, expected: Option<u64>) -> Result<Receipt, BusError> {
        let stream = Stream::of(&message.subject).ok_or_else(|| {
            BusError::new(BusErrorKind::NotFound, format!("no stream holds the subject {}", message.subject))
        })?;
        let size = size_of(&message);
        if size > self.options.max_message {
            let text = format!(
                "a message of {size} bytes to {} is more than the bus takes ({})",
                message.subject, self.options.max_message
            );
            return Err(BusError::new(BusErrorKind::TooLarge, text));
        }
        let bound = if stream == Stream::Units { self.options.unit_bytes } else { self.options.stream_bytes };
        let id = message.id.as_ref().map(|id| Id::digest(id.as_bytes()));
        let cell = self.stream(stream)?;
        let deadline = Instant::now() + self.options.patience;
        let mut message = Some(message);
        loop {
            let mut room = std::pin::pin!(cell.room.notified());
            room.as_mut().enable();
            if let Some(receipt) = cell.lock().store(&mut message, id, size, bound, stream, expected)? {
                return Ok(receipt);
            }
            if stream == Stream::Units || tokio::time::timeout_at(deadline, room).await.is_err() {
                let text = format!("{} is full: {bound} bytes wait to be read", stream.name());
                return Err(BusError::new(BusErrorKind::Full, text));
            }
        }
    }

    /// Does something with the files of a bucket that is kept; `None` when it is not.
    async fn with_files<T: Send + 'static>(
        &self,
        bucket: Bucket,
        act: impl FnOnce(&Files) -> Result<T, BusError> + Send + 'static,
    ) -> Option<Result<T, BusError>> {
        let files = Arc::clone(self.kept.get(&bucket)?);
        let done = tokio::task::spawn_blocking(move || act(&files)).await;
        Some(done.unwrap_or_else(|error| Err(BusError::new(BusErrorKind::Unsupported, error.to_string()))))
    }

    /// Sets an entry if `check` agrees with what is there.
    async fn kv_set(
        &self,
        bucket: Bucket,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        check: impl Fn(Option<u64>) -> bool + Copy + Send + 'static,
    ) -> Result<u64, BusError> {
        let (name, content) = (key.to_owned(), value.clone());
        if let Some(set) = self.with_files(bucket, move |files| files.set(&name, content, check)).await {
            let entry = set?;
            let revision = entry.revision;
            self.bucket(bucket)?.tell(&KvChange::Put(entry));
            return Ok(revision);
        }
        let mut state = self.bucket(bucket)?;
        if !check(state.entries.get(key).map(|entry| entry.revision)) {
            let text = format!("the key {key} of {} was changed by somebody else", bucket.name());
            return Err(BusError::new(BusErrorKind::Conflict, text));
        }
        state.revision += 1;
        let entry = KvEntry { key: key.to_owned(), value, revision: state.revision };
        state.entries.insert(key.to_owned(), entry.clone());
        state.tell(&KvChange::Put(entry));
        let revision = state.revision;
        drop(state);
        if let Some(ttl) = ttl.or(bucket.max_age()) {
            self.expire_later(bucket, key.to_owned(), revision, ttl);
        }
        Ok(revision)
    }

    fn expire_later(&self, bucket: Bucket, key: String, revision: u64, ttl: Duration) {
        if ttl > Duration::from_secs(24 * 3600) {
            return; // longer than the process is meant to live
        }
        let buckets = Arc::downgrade(&self.buckets);
        tokio::spawn(async move {
            tokio::time::sleep(ttl).await;
            let Some(buckets) = buckets.upgrade() else { return };
            let Some(cell) = buckets.get(&bucket) else { return };
            lock(cell).remove(&key, Some(revision));
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while a lock is held; if it did, the state would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn size_of(message: &Outgoing) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    message.subject.len() + headers + message.payload.len()
}

#[derive(Debug, Default)]
struct BucketState {
    revision: u64,
    entries: BTreeMap<String, KvEntry>,
    watchers: Vec<mpsc::UnboundedSender<KvChange>>,
}

impl BucketState {
    fn tell(&mut self, change: &KvChange) {
        self.watchers.retain(|watcher| watcher.send(change.clone()).is_ok());
    }

    fn remove(&mut self, key: &str, revision: Option<u64>) {
        let Some(entry) = self.entries.get(key) else { return };
        if revision.is_none_or(|revision| revision == entry.revision) {
            self.entries.remove(key);
            self.revision += 1;
            self.tell(&KvChange::Gone { key: key.to_owned() });
        }
    }
}

/// A message and how many consumers and readers have not settled it.
#[derive(Debug)]
struct Stored {
    message: Message,
    size: usize,
    holders: AtomicUsize,
}

#[derive(Debug, Default)]
struct StreamCell {
    state: Mutex<StreamState>,
    room: Notify,
}

#[derive(Debug, Default)]
struct StreamState {
    last_seq: u64,
    bytes: usize,
    messages: u64,
    subjects: HashMap<Arc<str>, SubjectState>,
    ids: HashMap<Id, u64>,
    id_order: VecDeque<Id>,
    consumers: BTreeMap<String, Consumer>,
    readers: BTreeMap<String, ReaderQueue>,
    /// Units that no consumer existed for: a work queue keeps them.
    unclaimed: Vec<Arc<Stored>>,
}

#[derive(Debug, Default)]
struct SubjectState {
    last_seq: u64,
    messages: u64,
}

#[derive(Debug)]
struct Consumer {
    filter: String,
    ack_wait: Duration,
    last_seq: u64,
    entries: BTreeMap<u64, Entry>,
    ready: BTreeSet<u64>,
    /// When a delivery comes again or a delay is over: (when, sequence, turn).
    timers: BinaryHeap<Reverse<(Instant, u64, u64)>>,
    work: Arc<Notify>,
}

#[derive(Debug)]
struct Entry {
    stored: Arc<Stored>,
    deliveries: u64,
    /// Grows with every change of state, so that old timers are known.
    turn: u64,
    in_flight: bool,
}

#[derive(Debug)]
struct ReaderQueue {
    filter: String,
    queue: VecDeque<Arc<Stored>>,
    opened: bool,
    work: Arc<Notify>,
}

impl StreamCell {
    fn lock(&self) -> MutexGuard<'_, StreamState> {
        lock(&self.state)
    }

    /// One consumer or reader is done with messages.
    fn settle(&self, state: &mut StreamState, settled: impl IntoIterator<Item = Arc<Stored>>) {
        let mut freed = false;
        for stored in settled {
            if stored.holders.fetch_sub(1, Ordering::Relaxed) == 1 {
                state.free(&stored);
                freed = true;
            }
        }
        if freed {
            self.room.notify_waiters();
        }
    }
}

impl StreamState {
    /// Stores the message, or leaves it where it is when there is no room.
    fn store(
        &mut self,
        message: &mut Option<Outgoing>,
        id: Option<Id>,
        size: usize,
        bound: usize,
        stream: Stream,
        expected: Option<u64>,
    ) -> Result<Option<Receipt>, BusError> {
        if let Some(&seq) = id.and_then(|id| self.ids.get(&id)) {
            return Ok(Some(Receipt { seq, duplicate: true }));
        }
        if self.bytes > 0 && self.bytes + size > bound {
            return Ok(None);
        }
        let Some(outgoing) = message.take() else { return Ok(None) };
        if let Some(expected) = expected {
            let last = self.subjects.get(&*outgoing.subject).map_or(0, |subject| subject.last_seq);
            if last != expected {
                let text = format!("the last message of {} is {last}, not {expected}", outgoing.subject);
                return Err(BusError::new(BusErrorKind::Conflict, text));
            }
        }
        self.last_seq += 1;
        let seq = self.last_seq;
        if let Some(id) = id {
            self.remember(id, seq);
        }
        let mut message = outgoing.into_message();
        message.seq = seq;
        self.hand_out(message, size, stream);
        Ok(Some(Receipt { seq, duplicate: false }))
    }

    fn hand_out(&mut self, message: Message, size: usize, stream: Stream) {
        let seq = message.seq;
        let subject = Arc::clone(&message.subject);
        let stored = Arc::new(Stored { message, size, holders: AtomicUsize::new(0) });
        let mut holders = 0;
        for consumer in self.consumers.values_mut().filter(|consumer| subject::matches(&consumer.filter, &subject)) {
            consumer.add(Arc::clone(&stored));
            holders += 1;
        }
        for reader in self.readers.values_mut().filter(|reader| subject::matches(&reader.filter, &subject)) {
            reader.queue.push_back(Arc::clone(&stored));
            reader.work.notify_one();
            holders += 1;
        }
        if holders == 0 && stream == Stream::Units {
            self.unclaimed.push(Arc::clone(&stored));
            holders = 1;
        }
        stored.holders.store(holders, Ordering::Relaxed);
        if !self.subjects.contains_key(&subject) {
            self.subjects.insert(Arc::clone(&subject), SubjectState::default());
        }
        if let Some(entry) = self.subjects.get_mut(&subject) {
            entry.last_seq = seq;
            entry.messages += u64::from(holders > 0);
        }
        if holders > 0 {
            self.bytes += size;
            self.messages += 1;
        }
    }

    fn remember(&mut self, id: Id, seq: u64) {
        if self.id_order.len() >= REMEMBERED_IDS
            && let Some(oldest) = self.id_order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.id_order.push_back(id);
        self.ids.insert(id, seq);
    }

    fn free(&mut self, stored: &Stored) {
        self.bytes = self.bytes.saturating_sub(stored.size);
        self.messages = self.messages.saturating_sub(1);
        if let Some(subject) = self.subjects.get_mut(&stored.message.subject) {
            subject.messages = subject.messages.saturating_sub(1);
        }
    }
}

impl Consumer {
    fn add(&mut self, stored: Arc<Stored>) {
        let seq = stored.message.seq;
        self.last_seq = self.last_seq.max(seq);
        self.entries.insert(seq, Entry { stored, deliveries: 0, turn: 0, in_flight: false });
        self.ready.insert(seq);
        self.work.notify_one();
    }

    /// Makes ready what has waited long enough.
    fn wake(&mut self, now: Instant) {
        while let Some(&Reverse((when, seq, turn))) = self.timers.peek() {
            if when > now {
                return;
            }
            self.timers.pop();
            if let Some(entry) = self.entries.get_mut(&seq).filter(|entry| entry.turn == turn) {
                entry.turn += 1;
                entry.in_flight = false;
                self.ready.insert(seq);
            }
        }
    }

    fn take(&mut self, now: Instant) -> Option<(Arc<Stored>, u64)> {
        self.wake(now);
        let seq = self.ready.pop_first()?;
        let ack_wait = self.ack_wait;
        let entry = self.entries.get_mut(&seq)?;
        entry.deliveries += 1;
        entry.turn += 1;
        entry.in_flight = true;
        self.timers.push(Reverse((now + ack_wait, seq, entry.turn)));
        if !self.ready.is_empty() {
            self.work.notify_one(); // for the next puller: one permit may stand for several messages
        }
        Some((Arc::clone(&entry.stored), entry.deliveries))
    }

    fn delay(&mut self, seq: u64, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            self.ready.remove(&seq);
            entry.turn += 1;
            entry.in_flight = false;
            self.timers.push(Reverse((until, seq, entry.turn)));
            self.work.notify_one();
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((when, _, _))| *when)
    }

    fn state(&self) -> ConsumerState {
        let ack_floor = match self.entries.first_key_value() {
            Some((first, _)) => first - 1,
            None => self.last_seq,
        };
        let ack_pending = self.entries.values().filter(|entry| entry.in_flight).count() as u64;
        ConsumerState { ack_floor, ack_pending, pending: self.ready.len() as u64 }
    }
}

struct MemoryPuller {
    cell: Arc<StreamCell>,
    id: ConsumerId,
    work: Arc<Notify>,
}

#[async_trait]
impl Puller for MemoryPuller {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            let timer = {
                let mut state = self.cell.lock();
                let consumer = state.consumers.get_mut(&self.id.name).ok_or_else(|| no_consumer(&self.id))?;
                if let Some((stored, deliveries)) = consumer.take(Instant::now()) {
                    let settle = MemorySettle {
                        cell: Arc::clone(&self.cell),
                        consumer: self.id.name.clone(),
                        seq: stored.message.seq,
                    };
                    return Ok(Delivery::new(stored.message.clone(), deliveries, Box::new(settle)));
                }
                consumer.next_timer()
            };
            let work = self.work.notified();
            match timer {
                Some(timer) => {
                    let _ = tokio::time::timeout_at(timer, work).await;
                }
                None => work.await,
            }
        }
    }

    // Nothing is buffered: what nobody has asked for is there for all.
    async fn hold(&mut self) -> Result<(), BusError> {
        Ok(())
    }
}

fn no_consumer(id: &ConsumerId) -> BusError {
    BusError::new(BusErrorKind::NotFound, format!("there is no consumer {id}"))
}

struct MemorySettle {
    cell: Arc<StreamCell>,
    consumer: String,
    seq: u64,
}

impl MemorySettle {
    fn with_consumer(&self, act: impl FnOnce(&mut Consumer)) {
        if let Some(consumer) = self.cell.lock().consumers.get_mut(&self.consumer) {
            act(consumer);
        }
    }
}

#[async_trait]
impl Settle for MemorySettle {
    async fn ack(&self) -> Result<(), BusError> {
        let mut state = self.cell.lock();
        let settled = state.consumers.get_mut(&self.consumer).and_then(|consumer| {
            consumer.ready.remove(&self.seq);
            consumer.entries.remove(&self.seq)
        });
        self.cell.settle(&mut state, settled.map(|entry| entry.stored));
        Ok(())
    }

    async fn give_back(&self, delay: Duration) -> Result<(), BusError> {
        self.with_consumer(|consumer| consumer.delay(self.seq, Instant::now() + delay));
        Ok(())
    }

    async fn progress(&self) -> Result<(), BusError> {
        self.with_consumer(|consumer| {
            let until = Instant::now() + consumer.ack_wait;
            if let Some(entry) = consumer.entries.get_mut(&self.seq).filter(|entry| entry.in_flight) {
                entry.turn += 1;
                consumer.timers.push(Reverse((until, self.seq, entry.turn)));
            }
        });
        Ok(())
    }

    fn dropped(&self) {
        self.with_consumer(|consumer| consumer.delay(self.seq, Instant::now()));
    }
}

struct MemoryReader {
    cell: Arc<StreamCell>,
    name: String,
    work: Arc<Notify>,
    current: Option<Arc<Stored>>,
}

#[async_trait]
impl Reader for MemoryReader {
    async fn next(&mut self) -> Result<Message, BusError> {
        if let Some(done) = self.current.take() {
            self.cell.settle(&mut self.cell.lock(), [done]);
        }
        loop {
            {
                let mut state = self.cell.lock();
                let Some(reader) = state.readers.get_mut(&self.name) else {
                    return Err(BusError::new(BusErrorKind::NotFound, format!("the reader {} is retired", self.name)));
                };
                if let Some(stored) = reader.queue.pop_front() {
                    self.current = Some(Arc::clone(&stored));
                    return Ok(stored.message.clone());
                }
            }
            self.work.notified().await;
        }
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        let mut state = self.cell.lock();
        // It stays, closed and empty: another one would not see what this one has taken.
        let mut left: Vec<Arc<Stored>> = self.current.take().into_iter().collect();
        if let Some(reader) = state.readers.get_mut(&self.name) {
            left.extend(std::mem::take(&mut reader.queue));
            reader.filter = NOTHING.to_owned();
        }
        self.cell.settle(&mut state, left);
    }
}

/// A filter that no subject matches.
const NOTHING: &str = "";

struct MemoryWatcher(mpsc::UnboundedReceiver<KvChange>);

#[async_trait]
impl Watcher for MemoryWatcher {
    async fn next(&mut self) -> Result<KvChange, BusError> {
        self.0.recv().await.ok_or_else(|| BusError::new(BusErrorKind::Unsupported, "the bus is closed"))
    }
}

#[async_trait]
impl Bus for MemoryBus {
    fn encoding(&self) -> Encoding {
        Encoding::Identity
    }

    fn max_message(&self) -> usize {
        self.options.max_message
    }

    fn pipeline(&self) -> usize {
        1
    }

    fn can_replay(&self) -> bool {
        false
    }

    async fn ensure_streams(&self) -> Result<(), BusError> {
        Ok(())
    }

    async fn is_ready(&self) -> Result<bool, BusError> {
        Ok(true)
    }

    async fn publish(&self, message: Outgoing) -> Result<Receipt, BusError> {
        self.store(message, None).await
    }

    async fn publish_expecting(&self, message: Outgoing, last_seq: u64) -> Result<Receipt, BusError> {
        self.store(message, Some(last_seq)).await
    }

    async fn create_consumer(&self, spec: &ConsumerSpec) -> Result<(), BusError> {
        let mut state = self.stream(spec.id.stream)?.lock();
        if let Some(known) = state.consumers.get(&spec.id.name) {
            if known.filter == spec.filter {
                return Ok(());
            }
            let text = format!("the consumer {} reads {}, not {}", spec.id, known.filter, spec.filter);
            return Err(BusError::new(BusErrorKind::Mismatch, text));
        }
        let mut consumer = Consumer {
            filter: spec.filter.clone(),
            ack_wait: spec.ack_wait,
            last_seq: 0,
            entries: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: BinaryHeap::new(),
            work: Arc::default(),
        };
        let (claimed, unclaimed) = std::mem::take(&mut state.unclaimed)
            .into_iter()
            .partition(|stored: &Arc<Stored>| subject::matches(&spec.filter, &stored.message.subject));
        state.unclaimed = unclaimed;
        for stored in claimed {
            consumer.add(stored);
        }
        state.consumers.insert(spec.id.name.clone(), consumer);
        Ok(())
    }

    async fn delete_consumer(&self, id: &ConsumerId) -> Result<(), BusError> {
        let cell = self.stream(id.stream)?;
        let mut state = cell.lock();
        if let Some(consumer) = state.consumers.remove(&id.name) {
            consumer.work.notify_waiters();
            cell.settle(&mut state, consumer.entries.into_values().map(|entry| entry.stored));
        }
        Ok(())
    }

    async fn pull(&self, id: &ConsumerId, _limits: PullLimits) -> Result<Box<dyn Puller>, BusError> {
        let cell = self.stream(id.stream)?;
        let work = match cell.lock().consumers.get(&id.name) {
            Some(consumer) => Arc::clone(&consumer.work),
            None => return Err(no_consumer(id)),
        };
        Ok(Box::new(MemoryPuller { cell: Arc::clone(cell), id: id.clone(), work }))
    }

    async fn consumer_state(&self, id: &ConsumerId) -> Result<ConsumerState, BusError> {
        let state = self.stream(id.stream)?.lock();
        state.consumers.get(&id.name).map(Consumer::state).ok_or_else(|| no_consumer(id))
    }

    async fn announce_reader(&self, spec: &ReaderSpec) -> Result<(), BusError> {
        let mut state = self.stream(spec.stream)?.lock();
        state.readers.entry(spec.name.clone()).or_insert_with(|| ReaderQueue {
            filter: spec.filter.clone(),
            queue: VecDeque::new(),
            opened: false,
            work: Arc::default(),
        });
        Ok(())
    }

    async fn read(&self, spec: &ReaderSpec) -> Result<Box<dyn Reader>, BusError> {
        self.announce_reader(spec).await?;
        let cell = self.stream(spec.stream)?;
        let mut state = cell.lock();
        let opened = state
            .readers
            .get_mut(&spec.name)
            .and_then(|reader| (!std::mem::replace(&mut reader.opened, true)).then(|| Arc::clone(&reader.work)));
        let Some(work) = opened else {
            let text = format!("{} was read before, and the in-process bus keeps nothing to read again", spec.name);
            return Err(BusError::new(BusErrorKind::Unsupported, text));
        };
        Ok(Box::new(MemoryReader { cell: Arc::clone(cell), name: spec.name.clone(), work, current: None }))
    }

    async fn retire_reader(&self, spec: &ReaderSpec) -> Result<(), BusError> {
        let cell = self.stream(spec.stream)?;
        let mut state = cell.lock();
        if let Some(reader) = state.readers.remove(&spec.name) {
            reader.work.notify_one();
            cell.settle(&mut state, reader.queue);
        }
        Ok(())
    }

    async fn last_seq(&self, stream: Stream, filter: &str) -> Result<u64, BusError> {
        let state = self.stream(stream)?.lock();
        let matching = state.subjects.iter().filter(|(subject, _)| subject::matches(filter, subject));
        Ok(matching.map(|(_, subject)| subject.last_seq).max().unwrap_or(0))
    }

    async fn count(&self, stream: Stream, filter: &str) -> Result<u64, BusError> {
        let state = self.stream(stream)?.lock();
        let matching = state.subjects.iter().filter(|(subject, _)| subject::matches(filter, subject));
        Ok(matching.map(|(_, subject)| subject.messages).sum())
    }

    async fn purge(&self, stream: Stream, filter: &str, through: Option<u64>) -> Result<(), BusError> {
        let cell = self.stream(stream)?;
        let mut state = cell.lock();
        let goes = |stored: &Stored| {
            through.is_none_or(|through| stored.message.seq <= through)
                && subject::matches(filter, &stored.message.subject)
        };
        let mut gone: Vec<Arc<Stored>> = Vec::new();
        for consumer in state.consumers.values_mut() {
            let seqs: Vec<u64> =
                consumer.entries.iter().filter(|(_, entry)| goes(&entry.stored)).map(|(seq, _)| *seq).collect();
            for seq in seqs {
                consumer.ready.remove(&seq);
                gone.extend(consumer.entries.remove(&seq).map(|entry| entry.stored));
            }
        }
        for reader in state.readers.values_mut() {
            let (going, staying) = std::mem::take(&mut reader.queue).into_iter().partition(|stored| goes(stored));
            reader.queue = staying;
            gone.extend::<VecDeque<_>>(going);
        }
        let (going, staying) = std::mem::take(&mut state.unclaimed).into_iter().partition(|stored| goes(stored));
        state.unclaimed = staying;
        gone.extend::<Vec<_>>(going);
        cell.settle(&mut state, gone);
        Ok(())
    }

    async fn usage(&self, stream: Stream) -> Result<StreamUsage, BusError> {
        let state = self.stream(stream)?.lock();
        Ok(StreamUsage { messages: state.messages, bytes: state.bytes as u64, max_bytes: None })
    }

    async fn kv_get(&self, bucket: Bucket, key: &str) -> Result<Option<KvEntry>, BusError> {
        let name = key.to_owned();
        if let Some(got) = self.with_files(bucket, move |files| files.get(&name)).await {
            return got;
        }
        Ok(self.bucket(bucket)?.entries.get(key).cloned())
    }

    async fn kv_entries(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>, BusError> {
        let begin = prefix.to_owned();
        if let Some(listed) = self.with_files(bucket, move |files| files.entries(&begin)).await {
            return listed;
        }
        let state = self.bucket(bucket)?;
        Ok(state.entries.values().filter(|entry| entry.key.starts_with(prefix)).cloned().collect())
    }

    async fn kv_create(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, BusError> {
        if bucket.is_durable() && ttl.is_some() {
            let text = format!("what {} holds has no life time", bucket.name());
            return Err(BusError::new(BusErrorKind::Unsupported, text));
        }
        self.kv_set(bucket, key, value, ttl, |revision| revision.is_none()).await
    }

    async fn kv_update(&self, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BusError> {
        self.kv_set(bucket, key, value, None, move |known| known == Some(revision)).await
    }

    async fn kv_put(&self, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BusError> {
        self.kv_set(bucket, key, value, None, |_| true).await
    }

    async fn kv_delete(&self, bucket: Bucket, key: &str) -> Result<(), BusError> {
        let name = key.to_owned();
        if let Some(removed) = self.with_files(bucket, move |files| files.remove(&name)).await {
            if removed? {
                self.bucket(bucket)?.tell(&KvChange::Gone { key: key.to_owned() });
            }
            return Ok(());
        }
        self.bucket(bucket)?.remove(key, None);
        Ok(())
    }

    async fn kv_watch(&self, bucket: Bucket) -> Result<Box<dyn Watcher>, BusError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let kept = self.with_files(bucket, |files| files.entries("")).await.transpose()?;
        let mut state = self.bucket(bucket)?;
        for entry in kept.iter().flatten().chain(state.entries.values()) {
            // The receiver is here: it cannot be closed.
            let _ = sender.send(KvChange::Put(entry.clone()));
        }
        state.watchers.push(sender);
        Ok(Box::new(MemoryWatcher(receiver)))
    }
}
