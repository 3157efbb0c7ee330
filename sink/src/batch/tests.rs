//! The layer with a store that does what a test says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the whole file is tests; the lint knows test functions only"
)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::bus::{ConsumerSpec, ConsumerState, Encoding, PullLimits, Reader, ReaderSpec, SharedBus};
use proto::config::Environment;
use proto::config::secret::Expander;
use proto::frame::FrameBuilder;
use proto::identity::IdMaker;
use proto::plan::{Plan, Stage};
use proto::service::presence::{Presence, WorkerInfo};
use proto::service::versions::AuditView;
use proto::status::DeadLetter;
use proto::subject::{self, Key, Role, Version};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::{BatchLimits, Document, Pruning, Written};

type Answer = Option<Result<Written, StoreError>>;
/// What a store says to a try (by its number) at these documents.
type Tell = Box<dyn Fn(usize, &[Document]) -> Answer + Send + Sync>;

/// A store that answers as it is told, and otherwise takes what comes.
struct Told {
    answer: Tell,
    limits: BatchLimits,
    taking: Duration,
    tries: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    stored: Mutex<BTreeMap<String, Bytes>>,
    sizes: Mutex<Vec<usize>>,
}

impl Told {
    fn new(answer: impl Fn(usize, &[Document]) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            answer: Box::new(answer),
            limits: BatchLimits { documents: 100, linger: Duration::from_millis(50), ..BatchLimits::default() },
            taking: Duration::ZERO,
            tries: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            stored: Mutex::default(),
            sizes: Mutex::default(),
        }
    }

    fn stored(&self) -> usize {
        self.stored.lock().unwrap().len()
    }
}

#[async_trait]
impl Store for Told {
    fn limits(&self) -> BatchLimits {
        self.limits
    }

    async fn connect(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn write(&self, documents: &[Document]) -> Result<Written, StoreError> {
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        self.sizes.lock().unwrap().push(documents.len());
        tokio::time::sleep(self.taking).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let written = match (self.answer)(self.tries.fetch_add(1, Ordering::SeqCst), documents) {
            Some(answer) => answer?,
            None => Written::default(),
        };
        let not_stored: Vec<usize> = written.refused.iter().chain(&written.again).map(|(place, _)| *place).collect();
        let mut stored = self.stored.lock().unwrap();
        for (place, document) in documents.iter().enumerate() {
            if !not_stored.contains(&place) {
                stored.insert(document.id.clone(), document.body.clone());
            }
        }
        Ok(written)
    }

    async fn prune(&self, _pruning: &Pruning) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn place(&self) -> String {
        "nowhere".to_owned()
    }
}

fn audit() -> Key {
    Key::new("audit").unwrap()
}

fn version() -> Version {
    Version::new("20260131_235959").unwrap()
}

fn cloud() -> Key {
    Key::new("cloud").unwrap()
}

fn spec() -> PluginSpec {
    PluginSpec {
        key: Key::new("told").unwrap(),
        class: "Told".to_owned(),
        params: json!({}),
        role: Role::Store,
        stage: Stage::Sink,
        exclusive: false,
        pool: None,
    }
}

/// Publishes records with these numbers, in frames of so many.
async fn publish(bus: &SharedBus, numbers: std::ops::Range<usize>, in_frame: usize, attempt: &str) {
    let ids = IdMaker::of_records(&audit(), &version(), &cloud());
    let numbers: Vec<usize> = numbers.collect();
    for (at, chunk) in numbers.chunks(in_frame).enumerate() {
        let mut frame = FrameBuilder::default();
        for number in chunk {
            let id = ids.id(&["t", &number.to_string()]).to_string();
            let record = json!({"raw": {"data": number, "filler": "x".repeat(900)}, "ext": {"record_type": "t"},
                "com": {"id": id, "key": number.to_string()}});
            frame.push(record.to_string().as_bytes());
        }
        let subject = subject::record(&audit(), &version(), &cloud());
        let unit = format!("{attempt}/{at}");
        bus.publish(frame.take(subject, &cloud(), &unit, Encoding::Identity).unwrap()).await.unwrap();
    }
}

/// A worker that fills a store from an in-process bus.
struct Filling {
    bus: SharedBus,
    store: Arc<Told>,
    status: Box<dyn Reader>,
    dead: Box<dyn Reader>,
    view: watch::Sender<AuditView>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Filling {
    async fn begin(store: Told, settings: serde_json::Value) -> Self {
        Self::begin_within(Budget::new(1 << 26), store, settings).await
    }

    async fn begin_within(budget: Arc<Budget>, store: Told, settings: serde_json::Value) -> Self {
        Self::begin_after(budget, store, settings, async |_| {}).await
    }

    /// Begins when something has been done at the bus.
    async fn begin_after(
        budget: Arc<Budget>,
        store: Told,
        settings: serde_json::Value,
        before: impl AsyncFnOnce(&SharedBus),
    ) -> Self {
        let store = Arc::new(store);
        let bus: SharedBus =
            Arc::new(MemoryBus::new(MemoryOptions { stream_bytes: 1 << 30, ..MemoryOptions::default() }));
        bus.ensure_streams().await.unwrap();
        bus.create_consumer(&ConsumerSpec {
            id: ConsumerId::plugin(&audit(), &version(), Role::Store, &spec().key),
            filter: subject::records_of(&audit(), &version()),
            ack_wait: Duration::from_secs(2),
            metadata: Vec::new(),
        })
        .await
        .unwrap();
        let mut readers = Vec::new();
        for reader in [ReaderSpec::status(&audit(), &version()), ReaderSpec::dead(&audit(), &version())] {
            bus.announce_reader(&reader).await.unwrap();
            readers.push(bus.read(&reader).await.unwrap());
        }
        let (dead, status) = (readers.pop().unwrap(), readers.pop().unwrap());
        before(&bus).await;
        let shutdown = CancellationToken::new();
        let info = WorkerInfo {
            name: "worker".to_owned(),
            stage: Stage::Sink,
            host: String::new(),
            pid: 1,
            program: String::new(),
            schema: proto::frame::SCHEMA.to_owned(),
            pools: Vec::new(),
            classes: Vec::new(),
            cannot: Vec::new(),
        };
        let worker = Worker {
            bus: Arc::clone(&bus),
            stage: Stage::Sink,
            name: info.name.clone(),
            presence: Presence::start(Arc::clone(&bus), info, shutdown.clone()),
            shutdown: shutdown.clone(),
            expander: Expander::of_everything(Environment::empty()),
            concurrency: 1,
        };
        let plan = Plan {
            audit: audit(),
            version: version(),
            plugins: vec![spec()],
            clouds: vec![cloud()],
            events: Vec::new(),
            rules: Vec::new(),
        };
        let state = AuditState { phase: Phase::Collecting, ..AuditState::default() };
        let (view, receiver) = watch::channel(AuditView { state, stopping: false });
        let open = OpenAudit { plan: Arc::new(plan), view: receiver };
        let job = Job { worker, open, spec: spec(), has_connected: false, budget };
        let settings = Settings::read(&settings).unwrap();
        let task = tokio::spawn(fill(job, Arc::clone(&store) as Arc<dyn Store>, settings));
        Self { bus, store, status, dead, view, shutdown, task }
    }

    /// Publishes records with these numbers, in frames of so many.
    async fn publish(&self, numbers: std::ops::Range<usize>, in_frame: usize, attempt: &str) {
        publish(&self.bus, numbers, in_frame, attempt).await;
    }

    async fn state(&self) -> ConsumerState {
        let id = ConsumerId::plugin(&audit(), &version(), Role::Store, &spec().key);
        self.bus.consumer_state(&id).await.unwrap()
    }

    /// Reads statuses until one is what is looked for; the records said to be stored until then.
    async fn until(&mut self, wanted: impl Fn(&Status, u64) -> bool) -> (Status, u64) {
        let mut records = 0;
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.status.next());
            let status = serde_json::from_slice(&next.await.expect("a status").unwrap().payload).unwrap();
            if let Status::Counts(counts) = &status {
                assert_eq!(counts.plugin, Some(spec().key));
                records += counts.settled.iter().map(|settled| settled.records).sum::<u64>();
            }
            if wanted(&status, records) {
                return (status, records);
            }
        }
    }

    async fn until_stored(&mut self, records: u64) {
        self.until(|status, there| {
            assert!(!matches!(status, Status::Failed(_)), "{status:?}");
            there >= records
        })
        .await;
        // Said first, acknowledged then.
        let acknowledged = async {
            while self.state().await.ack_pending > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), acknowledged).await.expect("acknowledged");
    }

    async fn letter(&mut self) -> DeadLetter {
        let next = tokio::time::timeout(Duration::from_secs(20), self.dead.next());
        DeadLetter::read(&next.await.expect("a dead letter").unwrap()).unwrap()
    }

    async fn end(self) -> Arc<Told> {
        self.view.send_modify(|view| view.state.phase = Phase::Ended);
        tokio::time::timeout(Duration::from_secs(5), self.task).await.expect("an end").unwrap();
        self.store
    }
}

fn numbered(number: usize) -> impl Fn(&Document) -> bool {
    let data = format!("\"data\":{number},");
    move |document| String::from_utf8_lossy(&document.body).contains(&data)
}

fn transient() -> StoreError {
    StoreError::Transient { reason: "it restarts".to_owned(), wait: None }
}

#[tokio::test]
async fn every_document_is_stored_in_batches_at_the_same_time_and_acknowledged() {
    let mut store = Told::new(|_, _| None);
    store.taking = Duration::from_millis(5);
    let mut filling = Filling::begin(store, json!({})).await;
    let (connected, _) = filling.until(|_, _| true).await;
    assert!(matches!(connected, Status::Connected(connected) if connected.place == "nowhere"));
    filling.publish(0..5_000, 30, "first").await;
    filling.until_stored(5_000).await;
    assert_eq!(filling.state().await.ack_floor, 5_000_u64.div_ceil(30));
    // The same again, as after a redelivery or another attempt.
    filling.publish(0..5_000, 41, "second").await;
    filling.until_stored(5_000).await;
    let store = filling.end().await;
    assert_eq!(store.stored(), 5_000);
    assert!(*store.sizes.lock().unwrap().iter().max().unwrap() == 100, "batches are filled, not more");
    assert!((2..=4).contains(&store.most_at_once.load(Ordering::SeqCst)));
    let document = store.stored.lock().unwrap().values().next().unwrap().clone();
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!((&document["com"]["target_key"], &document["com"]["target_type"]), (&"told".into(), &"store".into()));
}

#[tokio::test]
async fn a_refused_document_is_set_aside_and_the_others_are_unharmed() {
    let store = Told::new(|_, documents| {
        let place = documents.iter().position(numbered(77))?;
        Some(Ok(Written { refused: vec![(place, "mapper_parsing: bad".to_owned())], again: Vec::new() }))
    });
    let mut filling = Filling::begin(store, json!({})).await;
    filling.publish(0..500, 50, "first").await;
    let letter = filling.letter().await;
    assert_eq!((letter.reason.as_str(), letter.seq), ("mapper_parsing: bad", Some(2)));
    let document: serde_json::Value = serde_json::from_str(&letter.message).unwrap();
    assert_eq!((&document["raw"]["data"], letter.bytes), (&77.into(), letter.message.len()));
    filling.until_stored(499).await;
    assert_eq!(filling.state().await.ack_floor, 10);
    assert_eq!(filling.end().await.stored(), 499);
}

#[tokio::test]
async fn what_is_too_large_is_halved_and_a_single_document_set_aside() {
    let store = Told::new(|_, documents| {
        let too_large = documents.len() > 7 || documents.iter().any(numbered(30));
        too_large.then(|| Err(StoreError::TooLarge("413".to_owned())))
    });
    let mut filling = Filling::begin(store, json!({})).await;
    filling.publish(0..200, 100, "first").await;
    assert_eq!(filling.letter().await.reason, "413");
    filling.until_stored(199).await;
    assert_eq!(filling.end().await.stored(), 199);
}

#[tokio::test]
async fn a_store_that_is_down_for_a_while_loses_nothing() {
    let store = Told::new(|attempt, documents| match attempt {
        0..3 => Some(Err(transient())),
        // Then it takes all but a few, which come again.
        3..6 => Some(Ok(Written {
            again: (0..documents.len().min(5)).map(|place| (place, "429".to_owned())).collect(),
            refused: Vec::new(),
        })),
        _ => None,
    });
    let mut filling = Filling::begin(store, json!({})).await;
    filling.publish(0..300, 50, "first").await;
    filling.until_stored(300).await;
    assert_eq!(filling.state().await.ack_floor, 6);
    assert_eq!(filling.end().await.stored(), 300);
}

#[tokio::test]
async fn a_store_that_cannot_be_used_fails_at_once_and_leaves_the_messages() {
    let store = Told::new(|_, _| Some(Err(StoreError::Permanent("wrong password".to_owned()))));
    let mut filling = Filling::begin(store, json!({})).await;
    filling.publish(0..300, 50, "first").await;
    let (failed, _) = filling.until(|status, _| matches!(status, Status::Failed(_))).await;
    let Status::Failed(failed) = failed else { panic!("{failed:?}") };
    assert_eq!((failed.reason.as_str(), failed.permanent), ("wrong password", true));
    tokio::time::timeout(Duration::from_secs(5), &mut filling.task).await.expect("an end").unwrap();
    assert_eq!((filling.state().await.ack_floor, filling.store.stored()), (0, 0));
}

#[tokio::test]
async fn patience_has_an_end() {
    let store = Told::new(|_, _| Some(Err(transient())));
    let mut filling = Filling::begin(store, json!({"patience": "1s"})).await;
    filling.publish(0..300, 50, "first").await;
    let (failed, _) = filling.until(|status, _| matches!(status, Status::Failed(_))).await;
    let Status::Failed(failed) = failed else { panic!("{failed:?}") };
    assert!(failed.reason.starts_with("it restarts; ") && failed.reason.contains("`patience`"), "{}", failed.reason);
    assert_eq!(filling.state().await.ack_floor, 0);
}

#[tokio::test]
async fn a_batch_has_its_time_however_long_the_store_has_been_down() {
    // It can be reached, and takes nothing: what is given back comes again at once.
    let store = Told::new(|attempt, _| (attempt < 3).then(|| Err(transient())));
    let health = Health::default();
    health.bad("it was down before");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let document = Document {
        id: "1".to_owned(),
        record_type: String::new(),
        audit: audit(),
        version: version(),
        body: Bytes::from_static(b"{}"),
    };
    let settled = write::write(&store, vec![document], &health, Duration::from_secs(1)).await;
    assert!(settled.is_ok_and(|settled| settled.refused.is_empty() && settled.retries == 3));
    assert_eq!((store.stored(), store.tries.load(Ordering::SeqCst)), (1, 4));
}

#[tokio::test]
async fn what_is_never_settled_is_set_aside_as_documents_that_can_be_sent_back() {
    let worn_out = async |bus: &SharedBus| {
        publish(bus, 0..2, 2, "first").await;
        let id = ConsumerId::plugin(&audit(), &version(), Role::Store, &spec().key);
        let mut puller = bus.pull(&id, PullLimits::default()).await.unwrap();
        for _ in 0..20 {
            // Given back, as when a worker dies of it.
            drop(puller.next().await.unwrap());
        }
    };
    let store = Told::new(|_, _| None);
    let settings = json!({"patience": "1s"});
    let mut filling = Filling::begin_after(Budget::new(1 << 26), store, settings, worn_out).await;
    for number in 0..2 {
        let letter = filling.letter().await;
        assert!(letter.reason.starts_with("it came 21 times") && letter.is_whole(), "{letter:?}");
        let document = documents::written_before(&audit(), &version(), letter.message.into_bytes().into()).unwrap();
        assert!(numbered(number)(&document));
    }
    filling.publish(2..4, 2, "second").await;
    filling.until_stored(2).await;
    assert_eq!(filling.state().await.ack_floor, 2);
    assert_eq!(filling.end().await.stored(), 2);
}

#[tokio::test]
async fn a_slow_store_is_not_given_more_than_it_can_take() {
    let mut store = Told::new(|_, _| None);
    store.taking = Duration::from_secs(3600);
    store.limits = BatchLimits { bytes: 100_000, in_flight: 2, ..store.limits };
    let filling = Filling::begin(store, json!({})).await;
    filling.publish(0..10_000, 20, "first").await;
    // Longer than the ack wait: what is held says so, and does not come again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let state = filling.state().await;
    // 300 kB and one frame of 20 kB, at about 1 kB each.
    assert!(state.ack_pending * 20 <= 340 && state.ack_pending > 0, "{state:?}");
    assert_eq!(filling.store.tries.load(Ordering::SeqCst) + filling.store.at_once.load(Ordering::SeqCst), 2);
    filling.end().await;
}

#[tokio::test]
async fn what_is_slow_is_not_done_twice() {
    let mut store = Told::new(|_, _| None);
    store.taking = Duration::from_secs(5);
    let mut filling = Filling::begin(store, json!({})).await;
    filling.publish(0..100, 50, "first").await;
    filling.until_stored(100).await;
    let store = filling.end().await;
    assert_eq!(*store.sizes.lock().unwrap(), [100]);
}

#[tokio::test]
async fn what_is_no_frame_and_what_is_no_document_is_set_aside() {
    let mut filling = Filling::begin(Told::new(|_, _| None), json!({})).await;
    let subject = subject::record(&audit(), &version(), &cloud());
    let message = proto::bus::Outgoing::new(subject, "no json\n{\"com\":{\"id\":\"short\"}}\n[]".into());
    filling.bus.publish(message).await.unwrap();
    for _ in 0..3 {
        let letter = filling.letter().await;
        assert!(letter.reason.starts_with("of cloud: not a document: "), "{letter:?}");
    }
    filling.publish(0..10, 5, "first").await;
    filling.until_stored(10).await;
    assert_eq!(filling.state().await.ack_floor, 3);
    filling.end().await;
}

#[tokio::test]
async fn a_store_that_panics_fails_its_part_alone() {
    let store = Told::new(|_, _| panic!("a defect"));
    let mut filling = Filling::begin(store, json!({})).await;
    filling.publish(0..10, 5, "first").await;
    let (failed, _) = filling.until(|status, _| matches!(status, Status::Failed(_))).await;
    assert!(matches!(failed, Status::Failed(failed) if failed.reason.contains("a defect")));
}

#[tokio::test]
async fn a_stopping_worker_finishes_what_it_holds() {
    let mut store = Told::new(|_, _| None);
    store.taking = Duration::from_millis(200);
    let mut filling = Filling::begin(store, json!({})).await;
    filling.publish(0..2_000, 20, "first").await;
    filling.until(|_, records| records > 0).await;
    filling.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), &mut filling.task).await.expect("an end").unwrap();
    let state = filling.state().await;
    assert_eq!(state.ack_pending, 0);
    assert!(state.ack_floor * 20 <= filling.store.stored() as u64 && filling.store.stored() < 2_000, "{state:?}");
}

#[tokio::test]
async fn a_document_that_the_server_chokes_on_is_found_and_set_aside() {
    // The server fails as a whole on one document, and does not say of which.
    let store = Told::new(|_, documents| documents.iter().any(numbered(30)).then(|| Err(transient())));
    let mut filling = Filling::begin(store, json!({"patience": "3s"})).await;
    filling.publish(0..40, 40, "first").await;
    let letter = filling.letter().await;
    assert!(letter.reason.ends_with("it restarts") && letter.message.contains("\"data\":30,"), "{letter:?}");
    filling.until_stored(39).await;
    assert_eq!(filling.end().await.stored(), 39);
}

/// What the messages that are not settled take, at 100 documents of about 1 kB each.
fn held(state: ConsumerState) -> usize {
    usize::try_from(state.ack_pending).unwrap() * 100 * (1_000 + documents::PER_DOCUMENT)
}

#[tokio::test]
async fn stores_share_what_they_hold_and_one_at_a_stand_holds_up_no_other() {
    let budget = Budget::new(2_000_000);
    let limits = BatchLimits { documents: 1_000, bytes: 1 << 20, linger: Duration::from_millis(50), in_flight: 8 };
    let mut stuck = Told::new(|_, _| None);
    (stuck.taking, stuck.limits) = (Duration::from_secs(3600), limits);
    let mut stuck = Filling::begin_within(Arc::clone(&budget), stuck, json!({})).await;
    stuck.until(|status, _| matches!(status, Status::Connected(_))).await;
    let mut fast = Told::new(|_, _| None);
    (fast.taking, fast.limits) = (Duration::from_millis(5), limits);
    let mut fast = Filling::begin_within(budget, fast, json!({})).await;
    fast.until(|status, _| matches!(status, Status::Connected(_))).await;
    stuck.publish(0..6_000, 100, "first").await;
    let full = async {
        while held(stuck.state().await) < 1_200_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), full).await.expect("it takes what is left");
    fast.publish(0..6_000, 100, "first").await;
    fast.until_stored(6_000).await;
    // One message more is in hand, without its documents.
    let most = 1_500_000 + held(ConsumerState { ack_pending: 1, ..stuck.state().await });
    assert!(held(stuck.state().await) <= most, "{:?} of {most}", stuck.state().await);
    assert_eq!((stuck.store.stored(), fast.end().await.stored()), (0, 6_000));
    stuck.end().await;
}

#[tokio::test]
async fn a_message_that_is_larger_than_all_there_is_passes_alone() {
    let mut store = Told::new(|_, _| None);
    store.limits = BatchLimits { linger: Duration::from_secs(3600), ..store.limits };
    let mut filling = Filling::begin_within(Budget::new(20_000), store, json!({})).await;
    // Each of them, and some that are smaller, between which a batch is not full.
    filling.publish(0..300, 60, "first").await;
    filling.publish(300..400, 1, "second").await;
    filling.publish(400..500, 60, "third").await;
    filling.until_stored(500).await;
    assert_eq!(filling.end().await.stored(), 500);
}
