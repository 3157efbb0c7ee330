//! Runs in this process: each has all stages to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use proto::config::Environment;
use proto::plan::Plan;
use proto::run::Turn;
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
use crate::run::{Begun, Leader, Options, RunError};
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
    running: BTreeMap<Version, Vec<Key>>,
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
    fn running(&self) -> BTreeSet<Key> {
        self.running.values().flatten().cloned().collect()
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
        super::say_begun(schedule, claim);
        self.running.insert(claim.version.clone(), claim.audits.clone());
        let (version, turn) = (claim.version.clone(), claim.turn_of(schedule));
        let (options, units_at_once, stop) = (self.options, self.units_at_once, self.stop.clone());
        self.led.spawn(async move { (version.clone(), lead(version, turn, plans, options, units_at_once, stop).await) });
        Ok(Beginning::Done)
    }
}

async fn lead(
    version: Version,
    turn: Turn,
    plans: Vec<Plan>,
    options: Options,
    units_at_once: usize,
    stop: CancellationToken,
) -> Result<Vec<AuditReport>, RunError> {
    let embedded = Embedded::start(&plans, units_at_once);
    History::of_host(&Environment::of_process()).tell(&embedded.bus).await;
    let progress = Arc::new(Progress::to_stderr());
    let bus = Arc::clone(&embedded.bus);
    let led = match Leader::begin_turn(bus, options, &version, &turn, plans, progress).await {
        Ok(Begun::Here(leader)) => leader.lead(stop).await,
        Ok(Begun::Elsewhere | Begun::VersionTaken) => {
            Err(RunError::TakenOver { version, leader: "another process of this host".to_owned() })
        }
        Err(error) => Err(error),
    };
    embedded.stop().await;
    led
}
