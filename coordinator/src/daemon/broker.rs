//! Runs at a broker: those that this coordinator leads, and those that it finds without a leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use proto::bus::{Bucket, BusError, KvChange, SharedBus};
use proto::config::Environment;
use proto::run::RunState;
use proto::subject::{Key, Version};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::say;
use super::scheduler::{Beginning, Runs};
use super::turns::Claim;
use crate::history::History;
use crate::planner::Planner;
use crate::progress::Progress;
use crate::run::{Begun, Leader, Options, RunError, is_led};
use crate::schedule::Schedule;
use crate::summary::AuditReport;

/// How long a run must be without a leader before it is taken up: one that has lost its broker for a while comes back
/// at once.
const LEADERLESS: Duration = Duration::from_millis(1500);
/// How long a run is left alone that could not be led.
const AGAIN: Duration = Duration::from_secs(30);
/// How long it takes until the news of runs are asked for again that could not be had.
const FOLLOW_AGAIN: Duration = Duration::from_secs(1);

/// Runs that have not ended, by version.
type Open = Arc<Mutex<BTreeMap<Version, RunState>>>;

/// What became of a run that was led here.
type Led = (Version, Result<Vec<AuditReport>, RunError>);

/// Runs at a broker.
#[derive(Debug)]
pub(super) struct BrokerRuns {
    bus: SharedBus,
    planner: Arc<Planner>,
    options: Options,
    stop: CancellationToken,
    open: Open,
    led: JoinSet<Led>,
    leading: BTreeSet<Version>,
    /// Runs that nobody led when it was looked, since when; or until when they are left alone.
    leaderless: BTreeMap<Version, Instant>,
}

impl BrokerRuns {
    /// Begins to follow the runs at a broker.
    pub(super) async fn follow(
        bus: SharedBus,
        planner: Arc<Planner>,
        options: Options,
        stop: CancellationToken,
    ) -> Self {
        let open = Open::default();
        let (listed, news) = (Arc::clone(&bus), Arc::clone(&open));
        let mut first = tokio::spawn(follow(listed, news));
        // All that there are now are known before anything is begun.
        tokio::select! {
            () = list(&bus, &open) => {}
            () = stop.cancelled() => {}
            _ = &mut first => {}
        }
        let (led, leading, leaderless) = (JoinSet::new(), BTreeSet::new(), BTreeMap::new());
        Self { bus, planner, options, stop, open, led, leading, leaderless }
    }

    /// Says what has come of runs that were led here; true when there was one.
    pub(super) fn reap(&mut self) -> bool {
        let mut any = false;
        while let Some(led) = self.led.try_join_next() {
            any = true;
            match led {
                Ok((version, led)) => self.conclude(&version, led),
                Err(error) => tracing::error!(%error, "leading a run ended badly"),
            }
        }
        any
    }

    fn conclude(&mut self, version: &Version, led: Result<Vec<AuditReport>, RunError>) {
        self.leading.remove(version);
        match led {
            Ok(reports) => {
                lock(&self.open).remove(version);
                super::conclude(version, &reports);
            }
            Err(RunError::NoPlan(_)) => {
                lock(&self.open).remove(version);
                say(&format!(
                    "run {version}: its coordinator died before it had said what was to be done; it has ended"
                ));
            }
            Err(RunError::Detached(_)) => say(&format!("run {version}: left to another coordinator")),
            Err(error) => {
                say(&format!("run {version}: {error}"));
                if !matches!(error, RunError::TakenOver { .. }) {
                    self.leaderless.insert(version.clone(), Instant::now() + AGAIN);
                }
            }
        }
    }

    /// Takes up the runs that nobody leads.
    pub(super) async fn take_up(&mut self) -> Result<(), BusError> {
        let open: Vec<Version> = lock(&self.open).keys().cloned().collect();
        self.leaderless.retain(|version, _| open.contains(version));
        for version in open {
            if self.leading.contains(&version) {
                continue;
            }
            if is_led(&self.bus, &version).await? {
                self.leaderless.remove(&version);
                continue;
            }
            let since = *self.leaderless.entry(version.clone()).or_insert_with(Instant::now);
            if Instant::now().saturating_duration_since(since) >= LEADERLESS {
                self.leaderless.remove(&version);
                self.resume(version);
            }
        }
        Ok(())
    }

    fn resume(&mut self, version: Version) {
        say(&format!("run {version}: taken up, as nobody led it"));
        let (bus, options, stop) = (Arc::clone(&self.bus), self.options, self.stop.clone());
        let planner = Arc::clone(&self.planner);
        self.leading.insert(version.clone());
        self.led.spawn(async move {
            // What was to be done at a turn, this coordinator knows as well as the one that died.
            let plan = |audit: &Key, run: &RunState| {
                let knows = run.turn.is_some() && planner.audits().contains(audit);
                knows.then(|| planner.plan(audit, &run.version))
            };
            let progress = Arc::new(Progress::to_stderr());
            let its = Arc::clone(&bus);
            let led = match Leader::resume(its, options, &version, Duration::ZERO, plan, progress).await {
                Ok(leader) => lead(&bus, leader, stop).await,
                Err(error) => Err(error),
            };
            (version, led)
        });
    }

    /// Waits until all runs that are led here have been let go of.
    pub(super) async fn finish(&mut self) {
        while let Some(led) = self.led.join_next().await {
            if let Ok((version, led)) = led {
                self.conclude(&version, led);
            }
        }
    }
}

#[async_trait]
impl Runs for BrokerRuns {
    async fn running(&self) -> Result<BTreeSet<Key>, BusError> {
        Ok(lock(&self.open).values().flat_map(RunState::unended).cloned().collect())
    }

    async fn begin(&mut self, schedule: &Schedule, claim: &Claim) -> Result<Beginning, RunError> {
        let plans: Vec<_> = claim.audits.iter().map(|audit| self.planner.plan(audit, &claim.version)).collect();
        let (bus, turn) = (Arc::clone(&self.bus), claim.turn_of(schedule));
        let progress = Arc::new(Progress::to_stderr());
        let leader = match Leader::begin_turn(bus, self.options, &claim.version, &turn, plans, progress).await? {
            Begun::Here(leader) => *leader,
            Begun::Elsewhere => return Ok(Beginning::Done),
            Begun::VersionTaken => return Ok(Beginning::VersionTaken),
        };
        let version = claim.version.clone();
        super::say_begun(schedule, claim);
        self.leading.insert(version.clone());
        // The news of it comes later than the next look.
        let state = RunState::new(version.clone(), String::new(), String::new(), &claim.audits);
        lock(&self.open).entry(version.clone()).or_insert(state);
        let (bus, stop) = (Arc::clone(&self.bus), self.stop.clone());
        self.led.spawn(async move { (version, lead(&bus, leader, stop).await) });
        Ok(Beginning::Done)
    }
}

/// Leads a run to its end, and keeps what it came to.
async fn lead(bus: &SharedBus, leader: Leader, stop: CancellationToken) -> Result<Vec<AuditReport>, RunError> {
    let led = leader.lead(stop).await;
    if let Ok(reports) = &led {
        History::of_host(&Environment::of_process()).keep(bus, reports).await;
    }
    led
}

fn lock(open: &Open) -> MutexGuard<'_, BTreeMap<Version, RunState>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lists the runs, as often as it takes.
async fn list(bus: &SharedBus, open: &Open) {
    loop {
        match bus.kv_entries(Bucket::Runs, "").await {
            Ok(entries) => return entries.iter().for_each(|entry| note(open, &entry.value)),
            Err(error) => tracing::warn!(%error, "cannot list the runs now"),
        }
        tokio::time::sleep(FOLLOW_AGAIN).await;
    }
}

/// Follows the runs for as long as the process lives.
async fn follow(bus: SharedBus, open: Open) {
    loop {
        if let Err(error) = watch(&bus, &open).await {
            tracing::warn!(%error, "cannot follow the runs now");
        }
        tokio::time::sleep(FOLLOW_AGAIN).await;
    }
}

async fn watch(bus: &SharedBus, open: &Open) -> Result<(), BusError> {
    let mut watcher = bus.kv_watch(Bucket::Runs).await?;
    loop {
        match watcher.next().await? {
            KvChange::Put(entry) => note(open, &entry.value),
            KvChange::Gone { key } => drop(Version::new(&key).map(|version| lock(open).remove(&version))),
        }
    }
}

fn note(open: &Open, value: &[u8]) {
    let Ok(run) = serde_json::from_slice::<RunState>(value) else { return };
    if run.is_ended() {
        lock(open).remove(&run.version);
    } else {
        lock(open).insert(run.version.clone(), run);
    }
}
