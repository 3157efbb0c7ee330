//! The bus over a real NATS server: the conformance suite, and what only a server can do to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use async_nats::jetstream;
use futures::StreamExt;
use proto::bus::conformance::{self, Checked, Factory, async_trait};
use proto::bus::nats::{ConnectionState, NatsBus, NatsCredentials, NatsOptions};
use proto::bus::{
    Bucket, Bus, BusErrorKind, ConsumerId, ConsumerSpec, KvChange, Outgoing, PullLimits, ReaderSpec, SharedBus,
};
use proto::subject::{self, Key, Role, Stream, Version};
use tempfile::TempDir;
use tests::harness::{NatsServer, Program, free_port};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

struct Servers {
    shared: NatsServer,
    bounded: Mutex<Vec<NatsServer>>,
}

#[async_trait]
impl Factory for Servers {
    async fn bus(&self) -> Checked<SharedBus> {
        ready(options(&self.shared)).await
    }

    async fn bounded(&self, max_bytes: usize) -> Checked<SharedBus> {
        let server = NatsServer::start().await.map_err(|error| format!("{error:#}"))?;
        let mut options = options(&server);
        options.limits.records_max_bytes = u64::try_from(max_bytes).map_err(|error| error.to_string())?;
        self.bounded.lock().await.push(server);
        ready(options).await
    }
}

async fn ready(options: NatsOptions) -> Checked<SharedBus> {
    let bus = NatsBus::connect(options, Some(PATIENCE), |_| {}).await.map_err(|error| error.to_string())?;
    bus.ensure_streams().await.map_err(|error| error.to_string())?;
    Ok(bus)
}

/// Small streams: a test's server has little room.
fn options(server: &NatsServer) -> NatsOptions {
    let mut options = NatsOptions::new(server.url());
    options.limits.records_max_bytes = 1 << 30;
    options.limits.events_max_bytes = 1 << 28;
    options
}

async fn connect(server: &NatsServer) -> Result<SharedBus> {
    ready(options(server)).await.map_err(|error| anyhow!(error))
}

/// A server with a configuration of a test's own.
struct Configured {
    // Dropped, and so killed, before its data are deleted.
    _program: Program,
    folder: TempDir,
    url: String,
}

impl Configured {
    async fn start(settings: &str) -> Result<Self> {
        let installed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/bin/nats-server");
        let binary =
            std::env::var_os("CM_NATS_SERVER").filter(|path| !path.is_empty()).map_or_else(installed, PathBuf::from);
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let configuration = folder.path().join("nats.conf");
        let data = folder.path().join("data");
        let common = format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: {data:?}, max_file_store: 20GB }}\n");
        std::fs::write(&configuration, common + settings)?;
        let program = Program::at(binary).arg("-c").arg(&configuration).start()?;
        program.wait_for_line("Server is ready", PATIENCE).await?;
        Ok(Self { _program: program, folder, url: format!("nats://127.0.0.1:{port}") })
    }
}

struct Names {
    audit: Key,
    version: Version,
    plugin: Key,
}

impl Names {
    fn new() -> Result<Self> {
        Ok(Self { audit: Key::new("audit")?, version: Version::new("20260131_235959")?, plugin: Key::new("plugin")? })
    }

    fn record(&self) -> String {
        subject::record(&self.audit, &self.version, &self.plugin)
    }

    fn evaluator(&self) -> ConsumerSpec {
        ConsumerSpec {
            id: ConsumerId::evaluator(&self.audit, &self.version),
            filter: subject::records_of(&self.audit, &self.version),
            ack_wait: Duration::from_secs(2),
            metadata: Vec::new(),
        }
    }

    fn message(&self, number: u32) -> Outgoing {
        Outgoing::new(self.record(), number.to_string().into()).with_id(format!("test:{number}"))
    }
}

fn number(payload: &[u8]) -> Result<u32> {
    Ok(std::str::from_utf8(payload)?.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms() -> Result<()> {
    let servers = Servers { shared: NatsServer::start().await?, bounded: Mutex::new(Vec::new()) };
    conformance::run(&servers).await.map_err(|failures| anyhow!("\n{failures}"))
}

/// Publishes with some in flight, consumes and reads, while the broker is killed again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered_when_the_broker_is_killed() -> Result<()> {
    const MESSAGES: u32 = 4000;
    let mut server = NatsServer::start().await?;
    let names = Arc::new(Names::new()?);
    let bus = connect(&server).await?;
    bus.create_consumer(&names.evaluator()).await?;

    let publishing = tokio::spawn({
        let (bus, names) = (bus.clone(), names.clone());
        async move {
            let receipts: Vec<_> = futures::stream::iter(0..MESSAGES)
                .map(|number| {
                    let (bus, message) = (bus.clone(), names.message(number));
                    async move {
                        sleep(Duration::from_millis(8)).await;
                        bus.publish(message).await
                    }
                })
                .buffer_unordered(8)
                .collect()
                .await;
            receipts.into_iter().map(|receipt| Ok(receipt?.seq)).collect::<Result<Vec<u64>>>()
        }
    });
    let consuming = tokio::spawn({
        let (bus, id) = (bus.clone(), names.evaluator().id);
        async move {
            let mut puller = bus.pull(&id, PullLimits { messages: 64, bytes: 1 << 20 }).await?;
            let mut seen = BTreeSet::new();
            while seen.len() < usize::try_from(MESSAGES)? {
                let delivery = puller.next().await?;
                seen.insert(number(&delivery.message.payload)?);
                delivery.ack().await?;
            }
            anyhow::Ok(puller)
        }
    });
    let reading = tokio::spawn({
        let (bus, names) = (bus.clone(), names.clone());
        async move {
            let spec = ReaderSpec::exclusive(&names.audit, &names.version, Role::Store, &names.plugin);
            let mut reader = bus.read(&spec).await?;
            let mut sequences = Vec::new();
            let mut seen = BTreeSet::new();
            while seen.len() < usize::try_from(MESSAGES)? {
                let message = reader.next().await?;
                sequences.push(message.seq);
                ensure!(seen.insert(number(&message.payload)?), "{} was read twice", message.seq);
            }
            ensure!(sequences.is_sorted_by(|one, other| one < other), "read out of order");
            anyhow::Ok(sequences)
        }
    });

    for _ in 0..3 {
        sleep(Duration::from_millis(700)).await;
        server.kill9().await?;
        sleep(Duration::from_millis(200)).await;
        server.restart().await?;
    }
    ensure!(!publishing.is_finished(), "the broker was killed too late to matter");

    let mut stored = timeout(PATIENCE, publishing).await.context("publishing")???;
    let read = timeout(PATIENCE, reading).await.context("reading")???;
    let mut puller = timeout(PATIENCE, consuming).await.context("consuming")???;
    stored.sort_unstable();
    assert_eq!(stored, read, "what was published and what was read differ");
    let filter = names.evaluator().filter;
    assert_eq!(bus.count(Stream::Records, &filter).await?, u64::from(MESSAGES));

    // Acknowledgements that the killed broker has not heard are asked for again; then the floor is at the end.
    let last = bus.last_seq(Stream::Records, &filter).await?;
    let drained = async {
        while bus.consumer_state(&names.evaluator().id).await?.ack_floor < last {
            if let Ok(again) = timeout(Duration::from_millis(100), puller.next()).await {
                again?.ack().await?;
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, drained).await.context("the ack floor")??;
    Ok(())
}

/// A change that was stored although its acknowledgement was lost is the writer's own, not a conflict.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_writer_does_not_conflict_with_itself_when_the_broker_is_killed() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let names = Names::new()?;
    let bus = connect(&server).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (bus, stop) = (bus.clone(), stop.clone());
        let subject = subject::status(&names.audit, &names.version, &format!("writer-{writer}"));
        writers.spawn(async move {
            let key = format!("writer.{writer}");
            let mut revision = bus.kv_create(Bucket::Runs, &key, "0".into(), None).await?;
            let mut last_seq = 0;
            let mut changes = 0;
            while !stop.load(Ordering::Relaxed) {
                changes += 1;
                let value = format!("{changes}");
                last_seq =
                    bus.publish_expecting(Outgoing::new(subject.clone(), value.clone().into()), last_seq).await?.seq;
                revision = bus.kv_update(Bucket::Runs, &key, value.into(), revision).await?;
            }
            let stored = bus.count(Stream::Status, &subject).await?;
            ensure!(stored == changes, "{stored} messages of {changes} changes");
            anyhow::Ok(())
        });
    }
    for _ in 0..4 {
        sleep(Duration::from_millis(400)).await;
        server.restart().await?;
    }
    sleep(Duration::from_millis(400)).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(writer) = timeout(PATIENCE, writers.join_next()).await.context("a writer hangs")? {
        writer??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_goes_on_where_it_was_after_a_restart() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let names = Names::new()?;
    let bus = connect(&server).await?;
    let spec = ReaderSpec::exclusive(&names.audit, &names.version, Role::Store, &names.plugin);
    // More than a reader has in its buffer.
    for number in 0..1000 {
        bus.publish(names.message(number)).await?;
    }
    let mut reader = bus.read(&spec).await?;
    for expected in 0..300 {
        assert_eq!(number(&reader.next().await?.payload)?, expected);
    }
    server.restart().await?;
    for expected in 300..1000 {
        let message = timeout(PATIENCE, reader.next()).await.context("reading on")??;
        assert_eq!(number(&message.payload)?, expected);
    }
    server.restart().await?;
    bus.publish(names.message(1000)).await?;
    let message = timeout(PATIENCE, reader.next()).await.context("reading on")??;
    assert_eq!(number(&message.payload)?, 1000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_misses_nothing_over_a_restart() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let bus = connect(&server).await?;
    bus.kv_put(Bucket::Plans, "stays", "1".into()).await?;
    bus.kv_put(Bucket::Plans, "goes", "1".into()).await?;
    let mut watcher = bus.kv_watch(Bucket::Plans).await?;
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        if let KvChange::Put(entry) = watcher.next().await? {
            seen.insert(entry.key);
        }
    }
    server.restart().await?;
    let other = connect(&server).await?;
    other.kv_put(Bucket::Plans, "stays", "2".into()).await?;
    other.kv_delete(Bucket::Plans, "goes").await?;
    let (mut changed, mut gone) = (false, false);
    let both = async {
        while !(changed && gone) {
            match watcher.next().await? {
                KvChange::Put(entry) => changed |= entry.key == "stays" && entry.value == "2",
                KvChange::Gone { key } => gone |= key == "goes",
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, both).await.with_context(|| format!("changed: {changed}, gone: {gone}"))??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_waits_for_the_broker_and_tells_its_state() -> Result<()> {
    let mut server = NatsServer::start().await?;
    server.kill9().await?;
    let (states, mut told) = tokio::sync::mpsc::unbounded_channel();
    let connecting = tokio::spawn(NatsBus::connect(options(&server), None, move |state| {
        let _ = states.send(state);
    }));
    let hopeless = NatsBus::connect(options(&server), Some(Duration::from_millis(300)), |_| {}).await;
    assert_eq!(hopeless.err().map(|error| error.kind()), Some(BusErrorKind::Unavailable));
    ensure!(!connecting.is_finished());
    server.restart().await?;
    let bus = timeout(PATIENCE, connecting).await???;
    assert!(!bus.is_ready().await?);
    bus.ensure_streams().await?;
    assert!(bus.is_ready().await?);
    server.restart().await?;
    for wanted in [ConnectionState::Connected, ConnectionState::Disconnected, ConnectionState::Connected] {
        assert_eq!(timeout(PATIENCE, told.recv()).await?, Some(wanted));
    }
    assert!(bus.is_ready().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_refused_at_once() -> Result<()> {
    let server = NatsServer::start().await?;
    let guarded = Configured::start("authorization { user: right, password: right }").await?;
    let url = guarded.url.clone();

    let connect = |user: &str, password: &str| {
        let credentials = NatsCredentials::Password { user: user.into(), password: password.into() };
        let options = NatsOptions { credentials, ..NatsOptions::new(&url) };
        timeout(PATIENCE, NatsBus::connect(options, None, |_| {}))
    };
    let refused = connect("right", "wrong").await?.err().context("wrong credentials are accepted")?;
    assert_eq!(refused.kind(), BusErrorKind::Refused, "{refused}");
    ensure!(!refused.to_string().contains("wrong"), "{refused}");
    connect("right", "right").await??;

    let options = NatsOptions {
        credentials: NatsCredentials::File(guarded.folder.path().join("missing.creds")),
        ..NatsOptions::new(server.url())
    };
    let refused = NatsBus::connect(options, None, |_| {}).await.err().context("a missing file is accepted")?;
    assert_eq!(refused.kind(), BusErrorKind::Refused, "{refused}");
    ensure!(refused.to_string().contains("missing.creds"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_another_configuration_is_left_alone_and_named() -> Result<()> {
    let server = NatsServer::start().await?;
    let bus = connect(&server).await?;
    let context = jetstream::new(async_nats::connect(server.url()).await?);

    // Limits are the operator's.
    let mut records = context.get_stream("CM_RECORDS").await?.cached_info().config.clone();
    records.max_bytes = 1 << 20;
    records.max_age = Duration::from_secs(24 * 3600);
    context.update_stream(&records).await?;
    bus.ensure_streams().await?;
    assert_eq!(bus.usage(Stream::Records).await?.max_bytes, Some(1 << 20));

    records.discard = jetstream::stream::DiscardPolicy::Old;
    context.update_stream(&records).await?;
    let error = bus.ensure_streams().await.err().context("another discard policy is accepted")?;
    assert_eq!(error.kind(), BusErrorKind::Mismatch, "{error}");
    let message = error.to_string();
    ensure!(message.contains("CM_RECORDS") && message.contains("discard"), "{message}");
    assert_eq!(context.get_stream("CM_RECORDS").await?.cached_info().config, records);

    context.delete_stream("CM_STATUS").await?;
    assert!(!bus.is_ready().await?);
    let names = Names::new()?;
    let missing = bus.publish(Outgoing::new(subject::status(&names.audit, &names.version, "x"), "".into())).await;
    let missing = missing.err().context("published to a missing stream")?;
    assert_eq!(missing.kind(), BusErrorKind::NotFound, "{missing}");
    ensure!(missing.to_string().contains("CM_STATUS"), "{missing}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_named_with_the_remedy() -> Result<()> {
    let server = NatsServer::start().await?;
    let bus = connect(&server).await?;
    assert_eq!(bus.max_message(), 1024 * 1024);
    let names = Names::new()?;
    let error = bus.publish(Outgoing::new(names.record(), vec![0; 1024 * 1024].into())).await;
    let error = error.err().context("published a message that is too large")?;
    assert_eq!(error.kind(), BusErrorKind::TooLarge, "{error}");
    let message = error.to_string();
    ensure!(message.contains("max_payload") && message.contains(&names.record()), "{message}");
    Ok(())
}

/// Pulls stay bounded in bytes: the broker cuts off a client with 64 MiB outstanding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_frames_do_not_overwhelm_a_slow_consumer() -> Result<()> {
    const MESSAGES: u32 = 160;
    let server = NatsServer::start().await?;
    let names = Names::new()?;
    let bus = connect(&server).await?;
    bus.create_consumer(&names.evaluator()).await?;
    for number in 0..MESSAGES {
        let mut body = format!("{number:09}").into_bytes();
        body.resize(900 * 1024, b' ');
        bus.publish(Outgoing::new(names.record(), body.into())).await?;
    }
    let mut puller = bus.pull(&names.evaluator().id, PullLimits::default()).await?;
    for expected in 0..MESSAGES {
        let delivery = timeout(PATIENCE, puller.next()).await??;
        assert_eq!(delivery.deliveries, 1);
        ensure!(delivery.message.payload.starts_with(format!("{expected:09}").as_bytes()));
        if expected % 40 == 0 {
            sleep(Duration::from_millis(300)).await;
        }
        delivery.ack().await?;
    }
    ensure!(!server.log().contains("Slow Consumer"), "{}", server.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishers_are_pipelined() -> Result<()> {
    const MESSAGES: u32 = 10_000;
    // Without syncing each message to the disk, which takes longer than anything that is measured here.
    let server = Configured::start("").await?;
    let names = Names::new()?;
    let bus = ready(NatsOptions::new(&server.url)).await.map_err(|error| anyhow!(error))?;
    let began = Instant::now();
    let one_by_one = 200;
    for number in 0..one_by_one {
        bus.publish(names.message(number)).await?;
    }
    let each = began.elapsed() / one_by_one;
    let began = Instant::now();
    let published = futures::stream::iter(one_by_one..one_by_one + MESSAGES)
        .map(|number| bus.publish(names.message(number)))
        .buffer_unordered(512)
        .filter(|receipt| std::future::ready(receipt.is_ok()))
        .count();
    assert_eq!(published.await, usize::try_from(MESSAGES)?);
    let pipelined = began.elapsed() / MESSAGES;
    ensure!(pipelined * 2 < each, "{pipelined:?} a message when pipelined, {each:?} one by one");
    Ok(())
}
