//! All stages in this process, on the in-process bus: nothing to install.

use std::sync::Arc;
use std::time::Duration;

use proto::bus::SharedBus;
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::config::Environment;
use proto::config::secret::Expander;
use proto::frame::SCHEMA;
use proto::plan::{Plan, Stage};
use proto::service::presence::{Presence, WorkerInfo};
use proto::service::{Worker, host_name, worker_name};
use proto::subject::{Key, Role};
use sink::settings::Settings;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the stages may take to stop at the end.
const STOP: Duration = Duration::from_secs(5);
/// The same where a store removes old versions then.
const STOP_AFTER_PRUNING: Duration = Duration::from_secs(60);

/// The stages that run in this process.
#[derive(Debug)]
pub struct Embedded {
    /// Their bus.
    pub bus: SharedBus,
    stages: JoinSet<()>,
    /// How long they may take to stop.
    patience: Duration,
    shutdown: CancellationToken,
}

impl Embedded {
    /// Starts all stages, to serve these plans.
    #[must_use]
    pub fn start(plans: &[Plan], units_at_once: usize) -> Self {
        let bus = proto::service::counted(Arc::new(bus(&Environment::of_process())));
        let shutdown = CancellationToken::new();
        let mut stages = JoinSet::new();
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let worker = |stage, concurrency| worker(&bus, stage, concurrency, plans, &shutdown);
        let pools = pools(plans);
        stages.spawn(collector::worker::run(worker(Stage::Collector, units_at_once), pools));
        stages.spawn(evaluator::worker::run(worker(Stage::Evaluator, cores)));
        stages.spawn(sink::worker::run(worker(Stage::Sink, cores)));
        stages.spawn(alerter::worker::run(worker(Stage::Alerter, cores)));
        let prunes = plans.iter().flat_map(|plan| &plan.plugins).any(|spec| {
            spec.stage == Stage::Sink && Settings::read(&spec.params).is_ok_and(|settings| settings.prunes())
        });
        Self { bus, stages, patience: if prunes { STOP_AFTER_PRUNING } else { STOP }, shutdown }
    }

    /// Stops all stages.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let stopped = async { while self.stages.join_next().await.is_some() {} };
        if tokio::time::timeout(self.patience, stopped).await.is_err() {
            tracing::debug!("a stage did not stop in time");
        }
    }
}

/// The bus, with what this host keeps from run to run. A host that can keep nothing can run all the same.
fn bus(environment: &Environment) -> MemoryBus {
    MemoryBus::open(MemoryOptions::default(), &environment.state_dir()).unwrap_or_else(|error| {
        tracing::warn!(%error, "this run knows nothing of those before it, and leaves nothing for those after it");
        MemoryBus::new(MemoryOptions::default())
    })
}

fn pools(plans: &[Plan]) -> Vec<Key> {
    let specs = plans.iter().flat_map(|plan| plan.of_role(Role::Cloud));
    let mut pools: Vec<Key> = specs.filter_map(|spec| spec.pool.clone()).collect();
    pools.sort();
    pools.dedup();
    pools
}

fn worker(bus: &SharedBus, stage: Stage, concurrency: usize, plans: &[Plan], shutdown: &CancellationToken) -> Worker {
    let classes: Vec<String> = match stage {
        Stage::Collector => collector::registry::served().map(|class| class.short_name().to_owned()).collect(),
        Stage::Evaluator => evaluator::registry::served().map(|class| class.short_name().to_owned()).collect(),
        Stage::Sink => sink::registry::served().map(|class| class.short_name().to_owned()).collect(),
        Stage::Alerter | Stage::Coordinator => {
            alerter::registry::served().map(|class| class.short_name().to_owned()).collect()
        }
    };
    let name = worker_name(stage);
    let info = WorkerInfo {
        name: name.clone(),
        stage,
        host: host_name(),
        pid: std::process::id(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        schema: SCHEMA.to_owned(),
        pools: pools(plans),
        classes,
        cannot: Vec::new(),
    };
    let presence = Presence::start(Arc::clone(bus), info, shutdown.clone());
    Worker {
        bus: Arc::clone(bus),
        stage,
        name,
        shutdown: shutdown.clone(),
        presence,
        expander: Expander::of_everything(Environment::of_process()),
        concurrency,
    }
}
