//! The bus as a service has it: what goes over it is counted, and nothing more is pulled than memory allows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use prometheus::core::{AtomicU64, GenericCounter};
use prometheus::{Histogram, IntCounter, IntGauge};

use super::memory::Gate;
use super::metrics::{Metrics, metrics};
use crate::bus::{
    Bucket, Bus, BusError, ConsumerId, ConsumerSpec, ConsumerState, Delivery, Encoding, KvEntry, Message, Outgoing,
    PullLimits, Puller, Reader, ReaderSpec, Receipt, Settle, SharedBus, StreamUsage, Watcher, header,
};
use crate::subject::{self, Key, Role, Stream};

/// How many subjects are remembered with their counters. Versions are in them, so they grow with time.
const MOST_SUBJECTS: usize = 4096;
/// How long the lag of a consumer may take to be told.
const LAG_PATIENCE: Duration = Duration::from_secs(2);

/// A bus whose traffic is counted.
#[derive(Debug)]
pub(super) struct Metered {
    inner: SharedBus,
    gate: Option<Gate>,
    counters: Arc<Counters>,
}

impl Metered {
    pub(super) fn new(inner: SharedBus, gate: Option<Gate>) -> Self {
        Self { inner, gate, counters: Arc::default() }
    }

    /// Takes note of a message that is to be published.
    fn begin_publish(&self, message: &Outgoing) -> Option<Publishing> {
        let traffic = self.counters.of(metrics()?, &message.subject);
        let amount = if traffic.kind == "record" { count_of(&message.headers) } else { 1 };
        Some(Publishing { traffic, bytes: message.payload.len() as u64, amount, began: Instant::now() })
    }
}

/// A message that is being published.
struct Publishing {
    traffic: Arc<Traffic>,
    bytes: u64,
    /// Records, events or dead letters.
    amount: u64,
    began: Instant,
}

impl Publishing {
    fn end(self, stored: &Result<Receipt, BusError>) {
        let Self { traffic, bytes, amount, began } = self;
        match stored {
            Ok(receipt) => {
                traffic.publish_seconds.observe(began.elapsed().as_secs_f64());
                if receipt.duplicate {
                    traffic.duplicates.inc();
                    return;
                }
                traffic.published.inc();
                traffic.published_bytes.inc_by(bytes);
                if let Some(of_kind) = &traffic.of_kind {
                    of_kind.inc_by(amount);
                }
            }
            Err(error) => {
                if let Some(metrics) = metrics() {
                    metrics.publish_failures.with_label_values(&[traffic.kind, error.kind().as_str()]).inc();
                }
            }
        }
    }
}

/// The records that a frame's header names.
fn count_of(headers: &[(&'static str, std::borrow::Cow<'static, str>)]) -> u64 {
    let count = headers.iter().find(|(name, _)| *name == header::COUNT);
    count.and_then(|(_, count)| count.parse().ok()).unwrap_or(0)
}

/// The counters of what goes over the bus, by subject, and the consumers that are pulled from.
#[derive(Debug, Default)]
struct Counters {
    of_subjects: RwLock<HashMap<String, Arc<Traffic>>>,
    pulled: Mutex<Vec<Pulled>>,
}

/// A consumer that this process pulls from.
#[derive(Debug)]
struct Pulled {
    id: ConsumerId,
    pullers: usize,
    /// The audit: known from the first message on.
    audit: Option<Key>,
}

/// The counters of one subject.
#[derive(Debug)]
struct Traffic {
    kind: &'static str,
    audit: Option<Key>,
    published: IntCounter,
    published_bytes: IntCounter,
    publish_seconds: Histogram,
    duplicates: IntCounter,
    /// Records, events or dead letters.
    of_kind: Option<GenericCounter<AtomicU64>>,
    received: IntCounter,
    received_bytes: IntCounter,
    redelivered: IntCounter,
    acknowledged: IntCounter,
    given_back: IntCounter,
    in_hand: IntGauge,
    message_seconds: Histogram,
}

/// What kind of message a subject is for: its second token.
fn kind_of(subject: &str) -> &'static str {
    const KINDS: [&str; 6] = ["unit", "record", "event", "status", "dead", "retry"];
    let token = subject.split('.').nth(1).unwrap_or_default();
    KINDS.into_iter().find(|kind| *kind == token).unwrap_or("none")
}

impl Traffic {
    fn new(metrics: &Metrics, subject: &str) -> Self {
        let kind = kind_of(subject);
        let (audit, role, plugin) = match (subject::parse(subject), subject::parse_letter(subject)) {
            (Some((audit, _, plugin)), _) => (Some(audit), None, Some(plugin)),
            (_, Some((audit, _, role, plugin))) => (Some(audit), Some(role), Some(plugin)),
            // A status: of an audit, and of no plugin.
            _ => (subject.split('.').nth(2).and_then(|token| Key::from_token(token).ok()), None, None),
        };
        let name = |key: &Option<Key>| key.as_ref().map(|key| key.as_str().to_owned()).unwrap_or_default();
        let (audit_name, plugin_name) = (name(&audit), name(&plugin));
        let (a, p) = metrics.pair(&audit_name, &plugin_name);
        let of_message = [kind, a, p];
        let of_kind = match (kind, role) {
            ("record", _) => Some(metrics.records.with_label_values(&[a, p])),
            ("event", _) => Some(metrics.events.with_label_values(&[a, p])),
            ("dead", Some(role)) => Some(metrics.dead_letters.with_label_values(&[a, role.as_str(), p])),
            _ => None,
        };
        let settled = |how| metrics.settled.with_label_values(&[kind, a, p, how]);
        Self {
            kind,
            published: metrics.published.with_label_values(&of_message),
            published_bytes: metrics.published_bytes.with_label_values(&of_message),
            publish_seconds: metrics.publish_seconds.with_label_values(&[kind]),
            duplicates: metrics.duplicates.with_label_values(&of_message),
            of_kind,
            received: metrics.received.with_label_values(&of_message),
            received_bytes: metrics.received_bytes.with_label_values(&of_message),
            redelivered: metrics.redelivered.with_label_values(&of_message),
            acknowledged: settled("acknowledged"),
            given_back: settled("given_back"),
            in_hand: metrics.in_hand.with_label_values(&[kind]),
            message_seconds: metrics.message_seconds.with_label_values(&[kind, a]),
            audit,
        }
    }

    fn receive(&self, message: &Message) {
        self.received.inc();
        self.received_bytes.inc_by(message.payload.len() as u64);
    }
}

impl Counters {
    fn of(&self, metrics: &Metrics, subject: &str) -> Arc<Traffic> {
        if let Some(known) = self.of_subjects.read().unwrap_or_else(PoisonError::into_inner).get(subject) {
            return Arc::clone(known);
        }
        let traffic = Arc::new(Traffic::new(metrics, subject));
        let mut known = self.of_subjects.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_SUBJECTS {
            known.clear();
        }
        known.insert(subject.to_owned(), Arc::clone(&traffic));
        traffic
    }

    fn pulled(&self) -> MutexGuard<'_, Vec<Pulled>> {
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_pulling(&self, id: &ConsumerId) {
        let mut pulled = self.pulled();
        match pulled.iter_mut().find(|known| known.id == *id) {
            Some(known) => known.pullers += 1,
            None => pulled.push(Pulled { id: id.clone(), pullers: 1, audit: None }),
        }
    }

    fn end_pulling(&self, id: &ConsumerId) {
        let mut pulled = self.pulled();
        for known in pulled.iter_mut().filter(|known| known.id == *id) {
            known.pullers -= 1;
        }
        pulled.retain(|known| known.pullers > 0);
    }

    fn learn_audit(&self, id: &ConsumerId, audit: &Key) {
        for known in self.pulled().iter_mut().filter(|known| known.id == *id) {
            known.audit.get_or_insert_with(|| audit.clone());
        }
    }
}

/// Whom a consumer serves: audit, role and plugin; a pool's serves all audits.
fn served_by(pulled: &Pulled) -> Option<(String, &'static str, String)> {
    if let Some(pool) = pulled.id.name.strip_prefix("pool-") {
        return Some((String::new(), Role::Cloud.as_str(), Key::from_token(pool).ok()?.as_str().to_owned()));
    }
    let audit = pulled.audit.as_ref()?;
    let name = |plugin: &str| (audit.as_str().to_owned(), plugin.to_owned());
    // <version>-evaluator-<audit>, <version>-<role>-<audit>-<plugin>
    let (_, rest) = pulled.id.name.split_once('-')?;
    if rest.starts_with("evaluator-") {
        let (audit, plugin) = name("");
        return Some((audit, Role::Event.as_str(), plugin));
    }
    [Role::Store, Role::Alert].into_iter().find_map(|role| {
        let plugin = rest.strip_prefix(role.as_str())?.strip_prefix('-')?.strip_prefix(audit.token())?;
        let plugin = Key::from_token(plugin.strip_prefix('-')?).ok()?;
        let (audit, plugin) = name(plugin.as_str());
        Some((audit, role.as_str(), plugin))
    })
}

/// Asks the broker what waits for the consumers that this process pulls from.
pub(super) async fn measure_lag(bus: &Metered) {
    let Some(metrics) = metrics() else { return };
    let parts: Vec<_> =
        bus.counters.pulled().iter().filter_map(|pulled| Some((pulled.id.clone(), served_by(pulled)?))).collect();
    let asked = parts.into_iter().map(|(id, part)| async move {
        let state = tokio::time::timeout(LAG_PATIENCE, bus.inner.consumer_state(&id)).await;
        (part, state.ok().and_then(Result::ok))
    });
    let told = futures::future::join_all(asked).await;
    // What ended since the last look has no lag any more.
    metrics.lag.reset();
    metrics.unsettled.reset();
    for ((audit, role, plugin), state) in told {
        let Some(state) = state else { continue };
        let (audit, plugin) = metrics.pair(&audit, &plugin);
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        // Two versions of an audit may be under way.
        metrics.lag.with_label_values(&[audit, role, plugin]).add(whole(state.pending));
        metrics.unsettled.with_label_values(&[audit, role, plugin]).add(whole(state.ack_pending));
    }
}

/// Pulls as memory allows, and counts what comes.
struct MeteredPuller {
    bus: SharedBus,
    id: ConsumerId,
    limits: PullLimits,
    gate: Option<Gate>,
    counters: Arc<Counters>,
    inner: Option<Box<dyn Puller>>,
}

impl MeteredPuller {
    /// What pulls now. Above the limit, what is buffered is given back, so that other workers take it.
    async fn inner(&mut self) -> Result<&mut Box<dyn Puller>, BusError> {
        let mut limits = self.limits;
        if let Some(gate) = &mut self.gate
            && gate.is_closed()
        {
            self.inner = None;
            if !gate.wait().await {
                limits.messages = 1;
            }
        }
        let inner = match self.inner.take() {
            Some(inner) => inner,
            None => self.bus.pull(&self.id, limits).await?,
        };
        Ok(self.inner.insert(inner))
    }
}

#[async_trait]
impl Puller for MeteredPuller {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        let delivery = self.inner().await?.next().await?;
        let Some(metrics) = metrics() else { return Ok(delivery) };
        let traffic = self.counters.of(metrics, &delivery.message.subject);
        if let Some(audit) = &traffic.audit {
            self.counters.learn_audit(&self.id, audit);
        }
        traffic.receive(&delivery.message);
        if delivery.deliveries > 1 {
            traffic.redelivered.inc();
        }
        Ok(delivery.watched(|inner| Box::new(Watched::new(inner, traffic))))
    }

    async fn hold(&mut self) -> Result<(), BusError> {
        match &mut self.inner {
            Some(inner) => inner.hold().await,
            None => Ok(()),
        }
    }
}

impl Drop for MeteredPuller {
    fn drop(&mut self) {
        self.counters.end_pulling(&self.id);
    }
}

/// Watches how a delivery is settled.
struct Watched {
    inner: Box<dyn Settle>,
    traffic: Arc<Traffic>,
    began: Instant,
}

impl Watched {
    fn new(inner: Box<dyn Settle>, traffic: Arc<Traffic>) -> Self {
        traffic.in_hand.inc();
        Self { inner, traffic, began: Instant::now() }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.traffic.in_hand.dec();
    }
}

#[async_trait]
impl Settle for Watched {
    async fn ack(&self) -> Result<(), BusError> {
        let settled = self.inner.ack().await;
        if settled.is_ok() {
            self.traffic.acknowledged.inc();
            self.traffic.message_seconds.observe(self.began.elapsed().as_secs_f64());
        }
        settled
    }

    async fn give_back(&self, delay: Duration) -> Result<(), BusError> {
        self.traffic.given_back.inc();
        self.inner.give_back(delay).await
    }

    async fn progress(&self) -> Result<(), BusError> {
        self.inner.progress().await
    }

    fn dropped(&self) {
        self.traffic.given_back.inc();
        self.inner.dropped();
    }
}

/// Counts what is read.
struct MeteredReader {
    inner: Box<dyn Reader>,
    counters: Arc<Counters>,
}

#[async_trait]
impl Reader for MeteredReader {
    async fn next(&mut self) -> Result<Message, BusError> {
        let message = self.inner.next().await?;
        if let Some(metrics) = metrics() {
            self.counters.of(metrics, &message.subject).receive(&message);
        }
        Ok(message)
    }
}

#[async_trait]
impl Bus for Metered {
    fn encoding(&self) -> Encoding {
        self.inner.encoding()
    }

    fn max_message(&self) -> usize {
        self.inner.max_message()
    }

    fn pipeline(&self) -> usize {
        self.inner.pipeline()
    }

    fn can_replay(&self) -> bool {
        self.inner.can_replay()
    }

    async fn ensure_streams(&self) -> Result<(), BusError> {
        self.inner.ensure_streams().await
    }

    async fn is_ready(&self) -> Result<bool, BusError> {
        self.inner.is_ready().await
    }

    async fn publish(&self, message: Outgoing) -> Result<Receipt, BusError> {
        let publishing = self.begin_publish(&message);
        let stored = self.inner.publish(message).await;
        if let Some(publishing) = publishing {
            publishing.end(&stored);
        }
        stored
    }

    async fn publish_expecting(&self, message: Outgoing, last_seq: u64) -> Result<Receipt, BusError> {
        let publishing = self.begin_publish(&message);
        let stored = self.inner.publish_expecting(message, last_seq).await;
        if let Some(publishing) = publishing {
            publishing.end(&stored);
        }
        stored
    }

    async fn create_consumer(&self, spec: &ConsumerSpec) -> Result<(), BusError> {
        self.inner.create_consumer(spec).await
    }

    async fn delete_consumer(&self, id: &ConsumerId) -> Result<(), BusError> {
        self.inner.delete_consumer(id).await
    }

    async fn pull(&self, id: &ConsumerId, limits: PullLimits) -> Result<Box<dyn Puller>, BusError> {
        let inner = self.inner.pull(id, limits).await?;
        self.counters.begin_pulling(id);
        Ok(Box::new(MeteredPuller {
            bus: Arc::clone(&self.inner),
            id: id.clone(),
            limits,
            gate: self.gate.clone(),
            counters: Arc::clone(&self.counters),
            inner: Some(inner),
        }))
    }

    async fn consumer_state(&self, id: &ConsumerId) -> Result<ConsumerState, BusError> {
        self.inner.consumer_state(id).await
    }

    async fn announce_reader(&self, spec: &ReaderSpec) -> Result<(), BusError> {
        self.inner.announce_reader(spec).await
    }

    async fn read(&self, spec: &ReaderSpec) -> Result<Box<dyn Reader>, BusError> {
        let inner = self.inner.read(spec).await?;
        Ok(Box::new(MeteredReader { inner, counters: Arc::clone(&self.counters) }))
    }

    async fn retire_reader(&self, spec: &ReaderSpec) -> Result<(), BusError> {
        self.inner.retire_reader(spec).await
    }

    async fn last_seq(&self, stream: Stream, filter: &str) -> Result<u64, BusError> {
        self.inner.last_seq(stream, filter).await
    }

    async fn count(&self, stream: Stream, filter: &str) -> Result<u64, BusError> {
        self.inner.count(stream, filter).await
    }

    async fn purge(&self, stream: Stream, filter: &str, through: Option<u64>) -> Result<(), BusError> {
        self.inner.purge(stream, filter, through).await
    }

    async fn delete_message(&self, stream: Stream, seq: u64) -> Result<(), BusError> {
        self.inner.delete_message(stream, seq).await
    }

    async fn usage(&self, stream: Stream) -> Result<StreamUsage, BusError> {
        self.inner.usage(stream).await
    }

    async fn kv_get(&self, bucket: Bucket, key: &str) -> Result<Option<KvEntry>, BusError> {
        self.inner.kv_get(bucket, key).await
    }

    async fn kv_entries(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>, BusError> {
        self.inner.kv_entries(bucket, prefix).await
    }

    async fn kv_create(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, BusError> {
        self.inner.kv_create(bucket, key, value, ttl).await
    }

    async fn kv_update(&self, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BusError> {
        self.inner.kv_update(bucket, key, value, revision).await
    }

    async fn kv_put(&self, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BusError> {
        self.inner.kv_put(bucket, key, value).await
    }

    async fn kv_delete(&self, bucket: Bucket, key: &str) -> Result<(), BusError> {
        self.inner.kv_delete(bucket, key).await
    }

    async fn kv_watch(&self, bucket: Bucket) -> Result<Box<dyn Watcher>, BusError> {
        self.inner.kv_watch(bucket).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::conformance::{self, Checked, Factory};
    use crate::bus::memory::{MemoryBus, MemoryOptions};
    use crate::plan::Stage;
    use crate::subject::Version;

    struct Watched {
        shared: SharedBus,
    }

    #[async_trait]
    impl Factory for Watched {
        async fn bus(&self) -> Checked<SharedBus> {
            Ok(Arc::clone(&self.shared))
        }

        async fn bounded(&self, max_bytes: usize) -> Checked<SharedBus> {
            let options = MemoryOptions { stream_bytes: max_bytes, ..MemoryOptions::default() };
            Ok(Arc::new(Metered::new(Arc::new(MemoryBus::new(options)), None)))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_counted_keeps_the_contract_of_buses() {
        super::super::metrics::begin(Stage::Sink);
        let options = MemoryOptions { max_message: 1024 * 1024, ..MemoryOptions::default() };
        let factory = Watched { shared: Arc::new(Metered::new(Arc::new(MemoryBus::new(options)), None)) };
        if let Err(failures) = conformance::run(&factory).await {
            panic!("{failures}");
        }
    }

    #[test]
    fn a_consumer_serves_the_part_that_its_name_says() {
        let key = |name: &str| Key::new(name).unwrap();
        let (audit, plugin) = (key("my-audit"), key("a-b.c"));
        let version = Version::new("20260131_235959").unwrap();
        let of = |id, audit: Option<&Key>| served_by(&Pulled { id, pullers: 1, audit: audit.cloned() });
        let part = |audit: &str, role, plugin: &str| Some((audit.to_owned(), role, plugin.to_owned()));
        let store = ConsumerId::plugin(&audit, &version, Role::Store, &plugin);
        assert_eq!(of(store.clone(), Some(&audit)), part("my-audit", "store", "a-b.c"));
        assert_eq!(of(store, None), None, "not known yet");
        let evaluator = ConsumerId::evaluator(&audit, &version);
        assert_eq!(of(evaluator, Some(&audit)), part("my-audit", "event", ""));
        assert_eq!(of(ConsumerId::pool(&plugin), None), part("", "cloud", "a-b.c"));
    }

    #[tokio::test]
    async fn the_lag_is_what_waits_and_what_is_held() {
        super::super::metrics::begin(Stage::Collector);
        let bus: SharedBus = Arc::new(MemoryBus::new(MemoryOptions::default()));
        bus.ensure_streams().await.unwrap();
        let pool = Key::new("pool-of-lag").unwrap();
        let (id, filter) = (ConsumerId::pool(&pool), subject::units_of_pool(&pool));
        let spec = ConsumerSpec { id: id.clone(), filter, ack_wait: Duration::from_secs(60), metadata: Vec::new() };
        bus.create_consumer(&spec).await.unwrap();
        let version = Version::new("20260131_235959").unwrap();
        let metered = Metered::new(bus, None);
        for n in 0..3 {
            let message = Outgoing::new(subject::unit(&pool, &pool, &version, &pool), n.to_string().into());
            metered.publish(message).await.unwrap();
        }
        let mut puller = metered.pull(&id, PullLimits { messages: 1, ..PullLimits::default() }).await.unwrap();
        let held = puller.next().await.unwrap();
        measure_lag(&metered).await;
        let metrics = metrics().unwrap();
        let told = |gauge: &prometheus::IntGaugeVec| gauge.with_label_values(&["", "cloud", "pool-of-lag"]).get();
        assert_eq!((told(&metrics.lag), told(&metrics.unsettled)), (2, 1));
        held.ack().await.unwrap();
        drop(puller);
        measure_lag(&metered).await;
        assert_eq!((told(&metrics.lag), told(&metrics.unsettled)), (0, 0), "nobody pulls any more");
    }

    #[tokio::test]
    async fn a_closed_gate_lets_others_take_what_was_pulled() {
        let bus: SharedBus = Arc::new(MemoryBus::new(MemoryOptions::default()));
        bus.ensure_streams().await.unwrap();
        let pool = Key::new("pool").unwrap();
        let (id, filter) = (ConsumerId::pool(&pool), subject::units_of_pool(&pool));
        let spec = ConsumerSpec { id: id.clone(), filter, ack_wait: Duration::from_secs(60), metadata: Vec::new() };
        bus.create_consumer(&spec).await.unwrap();
        let version = Version::new("20260131_235959").unwrap();
        for n in 0..3 {
            let message = Outgoing::new(subject::unit(&pool, &pool, &version, &pool), n.to_string().into());
            bus.publish(message).await.unwrap();
        }
        let (closing, gate) = Gate::by_hand();
        let metered = Metered::new(Arc::clone(&bus), Some(gate));
        let mut puller = metered.pull(&id, PullLimits::default()).await.unwrap();
        puller.next().await.unwrap().ack().await.unwrap();
        closing.send_replace(true);
        let waiting = tokio::time::timeout(Duration::from_millis(50), puller.next()).await;
        assert!(waiting.is_err(), "the gate is closed");
        let mut other = bus.pull(&id, PullLimits::default()).await.unwrap();
        other.next().await.unwrap().ack().await.unwrap();
        closing.send_replace(false);
        puller.next().await.unwrap().ack().await.unwrap();
    }
}
