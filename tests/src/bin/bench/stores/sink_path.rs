//! The sink as it runs in production, over the in-process bus: from frames to their acknowledgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::bus::{Bucket, ConsumerId, ConsumerSpec, Reader, ReaderSpec, SharedBus};
use proto::config::Environment;
use proto::config::secret::Expander;
use proto::plan::PluginSpec;
use proto::run::{Phase, RunState};
use proto::service::Worker;
use proto::service::presence::{Presence, WorkerInfo};
use proto::status::Status;
use proto::subject::{self, Key, Role};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::corpus::{Corpus, STAGE};
use super::{Took, plain::Clock};

/// How much waits on the bus: enough that the sink never does.
const WAITING: usize = 32 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(300);

/// A store of a class that is served, with these parameters.
pub(super) fn spec(class: &str, params: Value) -> Result<PluginSpec> {
    let served = sink::registry::served().find(|known| known.short_name() == class);
    let class = served.with_context(|| format!("no sink serves {class}"))?;
    Ok(PluginSpec {
        key: Key::new("store")?,
        class: class.name.to_owned(),
        params,
        role: Role::Store,
        stage: STAGE,
        exclusive: class.exclusive,
        pool: None,
    })
}

/// Sends a corpus through a sink into a store.
pub(super) async fn through(corpus: &Corpus, class: &str, params: Value) -> Result<Took> {
    let spec = spec(class, params)?;
    let bus: SharedBus = Arc::new(MemoryBus::new(MemoryOptions { stream_bytes: WAITING, ..MemoryOptions::default() }));
    let mut run = Run::open(corpus, &spec, &bus).await?;
    let shutdown = CancellationToken::new();
    let working = tokio::spawn(sink::worker::run(worker(&bus, &shutdown)));
    if !spec.exclusive {
        run.wait_until_connected().await?;
    }
    let clock = Clock::start()?;
    let publishing = run.publish(corpus).await?;
    run.wait_for_all(corpus.len() as u64).await?;
    let took = clock.stop()?;
    publishing.await??;
    run.end().await?;
    shutdown.cancel();
    working.await?;
    Ok(took)
}

fn worker(bus: &SharedBus, shutdown: &CancellationToken) -> Worker {
    let info = WorkerInfo {
        name: "bench".to_owned(),
        stage: STAGE,
        host: String::new(),
        pid: std::process::id(),
        program: String::new(),
        schema: proto::frame::SCHEMA.to_owned(),
        pools: Vec::new(),
        classes: Vec::new(),
        cannot: Vec::new(),
    };
    Worker {
        bus: Arc::clone(bus),
        stage: STAGE,
        name: info.name.clone(),
        shutdown: shutdown.clone(),
        presence: Presence::start(Arc::clone(bus), info, shutdown.clone()),
        expander: Expander::of_everything(Environment::empty()),
        concurrency: 2,
    }
}

/// A version that is open for a sink, as a coordinator keeps it.
struct Run {
    bus: SharedBus,
    state: RunState,
    status: Box<dyn Reader>,
}

impl Run {
    async fn open(corpus: &Corpus, spec: &PluginSpec, bus: &SharedBus) -> Result<Self> {
        let (audit, version) = (corpus.audit(), corpus.version());
        bus.ensure_streams().await?;
        if spec.exclusive {
            bus.announce_reader(&ReaderSpec::exclusive(audit, version, spec.role, &spec.key)).await?;
        } else {
            bus.create_consumer(&ConsumerSpec {
                id: ConsumerId::plugin(audit, version, spec.role, &spec.key),
                filter: subject::records_of(audit, version),
                ack_wait: Duration::from_secs(30),
                metadata: Vec::new(),
            })
            .await?;
        }
        bus.announce_reader(&ReaderSpec::status(audit, version)).await?;
        let status = bus.read(&ReaderSpec::status(audit, version)).await?;
        corpus.plan(spec).publish(&**bus, STAGE).await?;
        let audits = std::slice::from_ref(audit);
        let state = RunState::new(version.clone(), String::new(), "bench".to_owned(), audits);
        let mut run = Self { bus: Arc::clone(bus), state, status };
        run.tell(Phase::Collecting, None).await?;
        Ok(run)
    }

    async fn tell(&mut self, phase: Phase, end: Option<u64>) -> Result<()> {
        for audit in self.state.audits.values_mut() {
            audit.phase = phase;
            audit.records_end = end.or(audit.records_end);
        }
        let state = serde_json::to_vec(&self.state)?;
        self.bus.kv_put(Bucket::Runs, self.state.version.as_str(), state.into()).await?;
        Ok(())
    }

    async fn next(&mut self) -> Result<Status> {
        let next = tokio::time::timeout(PATIENCE, self.status.next()).await.context("the sink is silent")?;
        match serde_json::from_slice(&next?.payload)? {
            Status::Failed(failed) => bail!("the store failed: {}", failed.reason),
            status => Ok(status),
        }
    }

    async fn wait_until_connected(&mut self) -> Result<()> {
        while !matches!(self.next().await?, Status::Connected(_)) {}
        Ok(())
    }

    /// Begins to publish. The sequence of the last frame is that of their number: the bus is new.
    async fn publish(&mut self, corpus: &Corpus) -> Result<tokio::task::JoinHandle<Result<()>>> {
        let (bus, frames) = (Arc::clone(&self.bus), corpus.frames().to_vec());
        self.tell(Phase::DrainingStores, Some(frames.len() as u64)).await?;
        Ok(tokio::spawn(async move {
            for frame in frames {
                bus.publish(frame).await?;
            }
            Ok(())
        }))
    }

    async fn wait_for_all(&mut self, records: u64) -> Result<()> {
        let began = Instant::now();
        let mut stored = 0;
        while stored < records {
            match self.next().await? {
                Status::Counts(counts) => stored += counts.settled.iter().map(|settled| settled.records).sum::<u64>(),
                Status::Delivered(delivered) => {
                    ensure!(delivered.documents == records, "{} documents instead of {records}", delivered.documents);
                    stored = records;
                }
                _ => {}
            }
            ensure!(began.elapsed() < PATIENCE, "only {stored} of {records} documents are stored");
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        self.tell(Phase::Ended, None).await
    }
}
