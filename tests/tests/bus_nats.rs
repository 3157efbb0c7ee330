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
    Bucket, Bus, BusErrorKind, ConsumerId, ConsumerSpec, KvChange, Outgoing, PullLimits, Puller, ReaderSpec, SharedBus,
};
use proto::subject::{self, Key, Role, Stream, Version};
use tempfile::TempDir;
use tests::harness::{NatsServer, Program, free_port};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
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
        bounded(max_bytes, &self.bounded).await
    }
}

/// A bus over a server of its own, which lives as long as the others in `servers`.
async fn bounded(max_bytes: usize, servers: &Mutex<Vec<NatsServer>>) -> Checked<SharedBus> {
    let server = NatsServer::start().await.map_err(|error| format!("{error:#}"))?;
    let mut options = options(&server);
    options.limits.records_max_bytes = u64::try_from(max_bytes).map_err(|error| error.to_string())?;
    servers.lock().await.push(server);
    ready(options).await
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
    program: Program,
    folder: TempDir,
    url: String,
}

impl Configured {
    async fn start(settings: &str) -> Result<Self> {
        let server = Self::launch(settings).await?;
        server.program.wait_for_line(READY, PATIENCE).await?;
        Ok(server)
    }

    /// Starts it without waiting: servers of a cluster wait for one another.
    async fn launch(settings: &str) -> Result<Self> {
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let data = folder.path().join("data");
        let common = format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: {data:?}, max_file_store: 20GB }}\n");
        std::fs::write(folder.path().join(CONFIGURATION), common + settings)?;
        let program = Self::program(&folder)?;
        Ok(Self { program, folder, url: format!("nats://127.0.0.1:{port}") })
    }

    fn program(folder: &TempDir) -> Result<Program> {
        let installed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/bin/nats-server");
        let configured = std::env::var_os("CM_NATS_SERVER").filter(|path| !path.is_empty());
        let binary = configured.map_or_else(installed, PathBuf::from);
        Program::at(binary).arg("-c").arg(folder.path().join(CONFIGURATION)).start()
    }

    async fn kill9(&mut self) -> Result<()> {
        self.program.kill9().await
    }

    async fn restart(&mut self) -> Result<()> {
        self.program = Self::program(&self.folder)?;
        self.program.wait_for_line(READY, PATIENCE).await?;
        Ok(())
    }
}

const CONFIGURATION: &str = "nats.conf";
const READY: &str = "Server is ready";

/// Three servers that keep each stream three times.
struct Cluster {
    servers: Vec<Configured>,
    bounded: Mutex<Vec<NatsServer>>,
}

impl Cluster {
    async fn start() -> Result<Self> {
        let ports = [free_port()?, free_port()?, free_port()?];
        let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
        let mut servers = Vec::new();
        for port in ports {
            let cluster = format!("cluster {{ name: test, listen: 127.0.0.1:{port}, routes: [{routes}] }}");
            servers.push(Configured::launch(&format!("server_name: server-{port}\n{cluster}\n")).await?);
        }
        for server in &servers {
            server.program.wait_for_line(READY, PATIENCE).await?;
        }
        Ok(Self { servers, bounded: Mutex::default() })
    }
}

#[async_trait]
impl Factory for Cluster {
    async fn bus(&self) -> Checked<SharedBus> {
        let urls: Vec<&str> = self.servers.iter().map(|server| server.url.as_str()).collect();
        ready(NatsOptions { replicas: 3, ..NatsOptions::new(&urls.join(",")) }).await
    }

    async fn bounded(&self, max_bytes: usize) -> Checked<SharedBus> {
        bounded(max_bytes, &self.bounded).await
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms_on_a_cluster() -> Result<()> {
    let cluster = Cluster::start().await?;
    conformance::run(&cluster).await.map_err(|failures| anyhow!("\n{failures}"))
}

/// Publishes with some in flight, consumes and reads at the same time.
struct Traffic {
    bus: SharedBus,
    names: Arc<Names>,
    publishing: JoinHandle<Result<Vec<u64>>>,
    consuming: JoinHandle<Result<Box<dyn Puller>>>,
    reading: JoinHandle<Result<Vec<u64>>>,
}

impl Traffic {
    const MESSAGES: u32 = 4000;

    /// Begins, with eight messages under way, each `pace` after the one before it.
    async fn start(bus: SharedBus, pace: Duration) -> Result<Self> {
        let names = Arc::new(Names::new()?);
        bus.create_consumer(&names.evaluator()).await?;
        let publishing = tokio::spawn(Self::publish(bus.clone(), names.clone(), pace));
        let consuming = tokio::spawn(Self::consume(bus.clone(), names.clone()));
        let reading = tokio::spawn(Self::read(bus.clone(), names.clone()));
        Ok(Self { bus, names, publishing, consuming, reading })
    }

    async fn publish(bus: SharedBus, names: Arc<Names>, pace: Duration) -> Result<Vec<u64>> {
        let receipts: Vec<_> = futures::stream::iter(0..Self::MESSAGES)
            .map(|number| {
                let (bus, message) = (bus.clone(), names.message(number));
                async move {
                    sleep(pace).await;
                    bus.publish(message).await
                }
            })
            .buffer_unordered(8)
            .collect()
            .await;
        receipts.into_iter().map(|receipt| Ok(receipt?.seq)).collect()
    }

    async fn consume(bus: SharedBus, names: Arc<Names>) -> Result<Box<dyn Puller>> {
        let mut puller = bus.pull(&names.evaluator().id, PullLimits { messages: 64, bytes: 1 << 20 }).await?;
        let mut seen = BTreeSet::new();
        while seen.len() < usize::try_from(Self::MESSAGES)? {
            let delivery = puller.next().await?;
            seen.insert(number(&delivery.message.payload)?);
            delivery.ack().await?;
        }
        Ok(puller)
    }

    async fn read(bus: SharedBus, names: Arc<Names>) -> Result<Vec<u64>> {
        let spec = ReaderSpec::exclusive(&names.audit, &names.version, Role::Store, &names.plugin);
        let mut reader = bus.read(&spec).await?;
        let mut sequences = Vec::new();
        let mut seen = BTreeSet::new();
        while seen.len() < usize::try_from(Self::MESSAGES)? {
            let message = reader.next().await?;
            sequences.push(message.seq);
            ensure!(seen.insert(number(&message.payload)?), "{} was read twice", message.seq);
        }
        ensure!(sequences.is_sorted_by(|one, other| one < other), "read out of order");
        Ok(sequences)
    }

    /// A kill after the last message would test nothing.
    fn ensure_under_way(&self) -> Result<()> {
        ensure!(!self.publishing.is_finished(), "the broker is killed too late to matter");
        Ok(())
    }

    /// Waits for the end, and checks that everything was stored, consumed and read once.
    async fn check(self) -> Result<()> {
        let mut stored = timeout(PATIENCE, self.publishing).await.context("publishing")???;
        let read = timeout(PATIENCE, self.reading).await.context("reading")???;
        let mut puller = timeout(PATIENCE, self.consuming).await.context("consuming")???;
        stored.sort_unstable();
        assert_eq!(stored, read, "what was published and what was read differ");
        let ConsumerSpec { id, filter, .. } = self.names.evaluator();
        assert_eq!(self.bus.count(Stream::Records, &filter).await?, u64::from(Self::MESSAGES));

        // Acknowledgements that the killed broker has not heard are asked for again; then the floor is at the end.
        let last = self.bus.last_seq(Stream::Records, &filter).await?;
        let drained = async {
            while self.bus.consumer_state(&id).await?.ack_floor < last {
                if let Ok(again) = timeout(Duration::from_millis(100), puller.next()).await {
                    again?.ack().await?;
                }
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, drained).await.context("the ack floor")?
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered_when_the_broker_is_killed() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let traffic = Traffic::start(connect(&server).await?, Duration::from_millis(8)).await?;
    for _ in 0..3 {
        sleep(Duration::from_millis(700)).await;
        traffic.ensure_under_way()?;
        server.kill9().await?;
        sleep(Duration::from_millis(200)).await;
        server.restart().await?;
    }
    traffic.check().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered_when_servers_of_a_cluster_are_killed() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let bus = cluster.bus().await.map_err(|error| anyhow!(error))?;
    let traffic = Traffic::start(bus, Duration::from_millis(40)).await?;
    // Every server once: so each leader of a stream or consumer, and each that the bus is connected to, is hit.
    for place in 0..3 {
        sleep(Duration::from_secs(1)).await;
        traffic.ensure_under_way()?;
        cluster.servers[place].kill9().await?;
        sleep(Duration::from_secs(1)).await;
        cluster.servers[place].restart().await?;
        sleep(Duration::from_secs(3)).await;
    }
    traffic.check().await
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

#[tokio::test]
async fn what_waits_in_a_buffer_comes_to_nobody_else() -> Result<()> {
    const MESSAGES: u32 = 50;
    let server = NatsServer::start().await?;
    let (bus, names) = (connect(&server).await?, Names::new()?);
    let spec = names.evaluator();
    bus.create_consumer(&spec).await?;
    for number in 0..MESSAGES {
        bus.publish(names.message(number)).await?;
    }
    let mut slow = bus.pull(&spec.id, PullLimits::default()).await?;
    let first = slow.next().await?;
    let mut other = bus.pull(&spec.id, PullLimits::default()).await?;
    let working = async {
        let mut ticks = tokio::time::interval(spec.ack_wait / 4);
        loop {
            ticks.tick().await;
            first.progress().await?;
            slow.hold().await?;
        }
    };
    // For longer than the ack wait it asks for nothing.
    let worked: Result<Result<()>, _> = timeout(spec.ack_wait * 3, async {
        tokio::select! {
            ended = working => ended,
            came = other.next() => Err(anyhow!("{:?} came to another one", came?.message.payload)),
        }
    })
    .await;
    ensure!(worked.is_err(), "{worked:?}");
    first.ack().await?;
    for _ in 1..MESSAGES {
        let delivery = timeout(PATIENCE, slow.next()).await??;
        ensure!(delivery.deliveries == 1, "{delivery:?} came again");
        delivery.ack().await?;
    }
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
