//! Runs in this process: each has all stages to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use proto::bus::{BusError, SharedBus};
use proto::config::Environment;
use proto::plan::Plan;
use proto::subject::{Key, Version};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::say;
use super::scheduler::{Beginning, Runs};
use super::turns::Claim;
use crate::embedded::Embedded;
use crate::history::History;
use crate::planner::Planner;
use crate::progress::Progress;
use crate::run::{Begun, Leader, Options, RunError, state_of_run};
use crate::schedule::Schedule;
use crate::summary::AuditReport;

type Led = (Version, Result<Vec<AuditReport>, RunError>);

/// Runs in this process.
#[derive(Debug)]
pub(super) struct OwnRuns {
    planner: Arc<Planner>,
    options: Options,
    units_at_once: usize,
    stop: CancellationToken,
    running: BTreeMap<Version, SharedBus>,
    /// Versions that were given here: each run has a bus of its own, which knows of none that runs beside it.
    given: BTreeSet<Version>,
    led: JoinSet<Led>,
}

impl OwnRuns {
    pub(super) fn new(planner: Arc<Planner>, options: Options, units_at_once: usize, stop: CancellationToken) -> Self {
        let (running, given, led) = (BTreeMap::new(), BTreeSet::new(), JoinSet::new());
        Self { planner, options, units_at_once, stop, running, given, led }
    }

    /// Waits until a run ends, and says what it came to.
    pub(super) async fn ended(&mut self) {
        match self.led.join_next().await {
            Some(Ok((version, led))) => self.conclude(&version, led),
            Some(Err(error)) => tracing::error!(%error, "leading a run ended badly"),
            None => std::future::pending().await,
        }
    }

    /// Waits until all runs have ended.
    pub(super) async fn finish(&mut self) {
        while !self.led.is_empty() {
            self.ended().await;
        }
    }

    fn conclude(&mut self, version: &Version, led: Result<Vec<AuditReport>, RunError>) {
        self.running.remove(version);
        match led {
            Ok(reports) => super::conclude(version, &reports),
            Err(error) => say(&format!("run {version}: {error}")),
        }
    }
}

#[async_trait]
impl Runs for OwnRuns {
    async fn running(&self) -> Result<BTreeSet<Key>, BusError> {
        let mut running = BTreeSet::new();
        for (version, bus) in &self.running {
            let Some((run, _)) = state_of_run(bus, version).await? else { continue };
            running.extend(run.unended().cloned());
        }
        Ok(running)
    }

    async fn begin(&mut self, schedule: &Schedule, claim: &Claim) -> Result<Beginning, RunError> {
        if !self.given.insert(claim.version.clone()) {
            return Ok(Beginning::VersionTaken);
        }
        // Those of long ago are in the history.
        while self.given.len() > 100 {
            self.given.pop_first();
        }
        let plans: Vec<Plan> = claim.audits.iter().map(|audit| self.planner.plan(audit, &claim.version)).collect();
        let embedded = Embedded::start(&plans, self.units_at_once);
        let history = History::of_host(&Environment::of_process());
        history.tell(&embedded.bus).await;
        let (bus, turn) = (Arc::clone(&embedded.bus), claim.turn_of(schedule));
        let progress = Arc::new(Progress::to_stderr());
        let leader = match Leader::begin_turn(bus, self.options, &claim.version, &turn, plans, progress).await {
            Ok(Begun::Here(leader)) => *leader,
            // Another process of this host has begun a run in the same second.
            Ok(Begun::VersionTaken | Begun::Elsewhere) => {
                embedded.stop().await;
                return Ok(Beginning::VersionTaken);
            }
            Err(error) => {
                embedded.stop().await;
                return Err(error);
            }
        };
        super::say_begun(schedule, claim);
        let (version, stop) = (claim.version.clone(), self.stop.clone());
        self.running.insert(version.clone(), Arc::clone(&embedded.bus));
        self.led.spawn(async move {
            let led = leader.lead(stop).await;
            history.keep(&embedded.bus, led.as_deref().unwrap_or_default()).await;
            embedded.stop().await;
            (version, led)
        });
        Ok(Beginning::Done)
    }
}
