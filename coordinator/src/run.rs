//! Leads a run: reserves its version, has its audits led from phase to phase, and keeps its state at the broker.

mod audit;
mod parts;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proto::bus::lease::Lease;
use proto::bus::{Bucket, BusError, BusErrorKind, SharedBus};
use proto::plan::{Plan, Stage};
use proto::run::{AuditState, Phase, RunState};
use proto::service::worker_name;
use proto::subject::{Key, Version};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::progress::Progress;
use crate::summary::AuditReport;
use audit::AuditRun;

/// How a run is led.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long a part may have no worker that can serve it.
    pub wait_workers: Duration,
    /// After how long a frame or unit of a lost worker comes again.
    pub ack_wait: Duration,
    /// How often the broker is asked.
    pub poll: Duration,
    /// All stages are in this process: no other worker will come.
    pub embedded: bool,
}

/// Why a run cannot be led.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The bus.
    #[error("{0}")]
    Bus(#[from] BusError),
    /// Another coordinator leads the run now.
    #[error("the run {version} is led by another coordinator now ({leader}); this one stops")]
    TakenOver {
        /// The run.
        version: Version,
        /// Who leads it, as far as it is known.
        leader: String,
    },
    /// There is no such run.
    #[error("there is no run {0} at this broker; `cm_runs` keeps runs for 90 days")]
    NoSuchRun(Version),
    /// The run's plan is gone.
    #[error("the plan of the run {0} is gone: it cannot be resumed; start another run")]
    NoPlan(Version),
    /// What is said about the run cannot be heard any more.
    #[error("what is said about the run {0} cannot be heard any more: was a stream of the broker removed?")]
    Deaf(Version),
    /// Its leader asked to stop following it.
    #[error("detached from the run {0}: it goes on collecting, and ends when it is resumed")]
    Detached(Version),
}

/// How many seconds ahead a version may be that is not taken.
const MAX_SECONDS_AHEAD: i64 = 3600;
/// How long the lease of a leader that died may hold a new one up.
const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(15);

/// Leads one run.
#[derive(Debug)]
pub struct Leader {
    bus: SharedBus,
    options: Options,
    version: Version,
    state: Mutex<Held>,
    lease: Mutex<Option<Lease>>,
    progress: Arc<Progress>,
    plans: Vec<Plan>,
}

#[derive(Debug)]
struct Held {
    run: RunState,
    revision: u64,
}

impl Leader {
    /// Reserves a version for the audits and takes its lease. `plan` makes an audit's plan for the version.
    ///
    /// # Errors
    /// When the broker cannot be asked, or has streams of another configuration.
    pub async fn begin(
        bus: SharedBus,
        options: Options,
        audits: &[Key],
        plan: impl Fn(&Key, &Version) -> Plan,
        progress: Arc<Progress>,
    ) -> Result<Self, RunError> {
        bus.ensure_streams().await?;
        let now = Timestamp::now();
        for ahead in 0..MAX_SECONDS_AHEAD {
            let version = Version::at(now + jiff::SignedDuration::from_secs(ahead));
            let run = RunState::new(version.clone(), now.to_string(), leader_name(), audits);
            let Some(lease) = Lease::try_acquire(&bus, &lease_key(&version), &leader_name()).await? else { continue };
            let value = serde_json::to_vec(&run).map_err(BusError::json)?;
            match bus.kv_create(Bucket::Runs, version.as_str(), value.into(), None).await {
                Ok(revision) => {
                    let plans = audits.iter().map(|audit| plan(audit, &version)).collect();
                    return Ok(Self::new(bus, options, Held { run, revision }, lease, progress, plans));
                }
                // The version is taken: the next second's may not be.
                Err(error) if error.kind() == BusErrorKind::Conflict => lease.release().await,
                Err(error) => return Err(error.into()),
            }
        }
        let text = format!("all versions of the next {MAX_SECONDS_AHEAD} s are taken");
        Err(BusError::new(BusErrorKind::Conflict, text).into())
    }

    /// Takes over a run whose leader died.
    ///
    /// # Errors
    /// When there is no such run, its plan is gone, or somebody leads it.
    pub async fn resume(
        bus: SharedBus,
        options: Options,
        version: &Version,
        progress: Arc<Progress>,
    ) -> Result<Self, RunError> {
        if !bus.is_ready().await? || bus.kv_get(Bucket::Runs, version.as_str()).await?.is_none() {
            return Err(RunError::NoSuchRun(version.clone()));
        }
        let began = tokio::time::Instant::now();
        let lease = loop {
            if let Some(lease) = Lease::try_acquire(&bus, &lease_key(version), &leader_name()).await? {
                break lease;
            }
            if began.elapsed() > TAKE_OVER_PATIENCE {
                let holder = bus.kv_get(Bucket::Leases, &lease_key(version)).await?;
                let leader = holder.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
                return Err(RunError::TakenOver {
                    version: version.clone(),
                    leader: leader.unwrap_or_else(|| "unknown".into()),
                });
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        };
        let entry =
            bus.kv_get(Bucket::Runs, version.as_str()).await?.ok_or_else(|| RunError::NoSuchRun(version.clone()))?;
        let run: RunState = serde_json::from_slice(&entry.value).map_err(BusError::json)?;
        let mut plans = Vec::new();
        for audit in &run.order {
            let plan = Plan::fetch(&*bus, audit, version, Stage::Coordinator).await?;
            plans.push(plan.ok_or_else(|| RunError::NoPlan(version.clone()))?);
        }
        let held = Held { run, revision: entry.revision };
        let leader = Self::new(bus, options, held, lease, progress, plans);
        leader.update(|run| run.leader = leader_name()).await?;
        Ok(leader)
    }

    fn new(
        bus: SharedBus,
        options: Options,
        held: Held,
        lease: Lease,
        progress: Arc<Progress>,
        plans: Vec<Plan>,
    ) -> Self {
        let version = held.run.version.clone();
        Self { bus, options, version, state: Mutex::new(held), lease: Mutex::new(Some(lease)), progress, plans }
    }

    /// The run's version.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Leads the run to its end. `stop` ends collecting early in the embedded mode, and detaches otherwise.
    ///
    /// # Errors
    /// When the run is taken over, or the broker fails for good.
    pub async fn lead(self, stop: CancellationToken) -> Result<Vec<AuditReport>, RunError> {
        let leader = Arc::new(self);
        // All plans first: a coordinator that dies after this can be taken over.
        for plan in &leader.plans {
            if leader.state_of(&plan.audit).await.phase == Phase::Planned {
                plan.publish(&*leader.bus, Stage::Coordinator).await?;
            }
        }
        let mut audits = JoinSet::new();
        for (place, plan) in leader.plans.iter().enumerate() {
            let run = AuditRun::new(Arc::clone(&leader), plan.clone());
            audits.spawn(async move { (place, run.lead().await) });
        }
        let led = leader.collect(audits, stop).await;
        if let Some(lease) = leader.lease.lock().await.take() {
            lease.release().await;
        }
        led
    }

    async fn collect(
        &self,
        mut audits: JoinSet<(usize, Result<AuditReport, RunError>)>,
        stop: CancellationToken,
    ) -> Result<Vec<AuditReport>, RunError> {
        let mut reports = Vec::new();
        let mut failed = None;
        let mut stopped = false;
        loop {
            tokio::select! {
                led = audits.join_next() => match led {
                    Some(Ok((place, Ok(report)))) => reports.push((place, report)),
                    // The other audits are led to their ends all the same.
                    Some(Ok((_, Err(error)))) => failed = failed.or(Some(error)),
                    Some(Err(error)) => {
                        let text = format!("leading an audit ended badly: {error}");
                        return Err(BusError::new(BusErrorKind::Corrupt, text).into());
                    }
                    None => break,
                },
                () = stop.cancelled(), if !stopped => {
                    stopped = true;
                    if !self.options.embedded {
                        return Err(RunError::Detached(self.version.clone()));
                    }
                    self.update(|run| run.stopping = true).await?;
                }
                () = self.lost_lease() => {
                    return Err(RunError::TakenOver { version: self.version.clone(), leader: "unknown".into() });
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        reports.sort_by_key(|(place, _)| *place);
        Ok(reports.into_iter().map(|(_, report)| report).collect())
    }

    /// Returns when the lease is lost and somebody else has it. A lease that ran out while the broker was away is
    /// taken again.
    async fn lost_lease(&self) {
        loop {
            let mut held = self.lease.lock().await;
            match &mut *held {
                Some(lease) => lease.lost().await,
                None => return std::future::pending().await,
            }
            let began = tokio::time::Instant::now();
            let again = loop {
                match Lease::try_acquire(&self.bus, &lease_key(&self.version), &leader_name()).await {
                    Ok(Some(lease)) => break Some(lease),
                    Ok(None) if began.elapsed() > TAKE_OVER_PATIENCE => break None,
                    _ => tokio::time::sleep(Duration::from_millis(500)).await,
                }
            };
            match again {
                Some(lease) => *held = Some(lease),
                None => return,
            }
        }
    }

    async fn state_of(&self, audit: &Key) -> AuditState {
        self.state.lock().await.run.audits.get(audit).cloned().unwrap_or_default()
    }

    async fn is_stopping(&self) -> bool {
        self.state.lock().await.run.stopping
    }

    /// When the run began.
    async fn started(&self) -> Option<Timestamp> {
        self.state.lock().await.run.started.parse().ok()
    }

    /// Changes the run's state by compare-and-set. Somebody else's change means that this coordinator leads no more.
    async fn update(&self, change: impl FnOnce(&mut RunState)) -> Result<(), RunError> {
        let mut held = self.state.lock().await;
        let mut next = held.run.clone();
        change(&mut next);
        if next == held.run {
            return Ok(());
        }
        let value = serde_json::to_vec(&next).map_err(BusError::json)?;
        loop {
            let revision = held.revision;
            match self.bus.kv_update(Bucket::Runs, self.version.as_str(), value.clone().into(), revision).await {
                Ok(revision) => {
                    *held = Held { run: next, revision };
                    return Ok(());
                }
                Err(error) if error.kind() == BusErrorKind::Conflict => {
                    let there = self.bus.kv_get(Bucket::Runs, self.version.as_str()).await?;
                    match there {
                        // Our own change, whose answer got lost.
                        Some(entry) if entry.value == value => {
                            *held = Held { run: next, revision: entry.revision };
                            return Ok(());
                        }
                        there => return Err(self.taken_over(there.as_ref().map(|entry| &entry.value[..]))),
                    }
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "cannot write the state of the run now");
                    tokio::time::sleep(self.options.poll).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn taken_over(&self, state: Option<&[u8]>) -> RunError {
        let run = state.and_then(|state| serde_json::from_slice::<RunState>(state).ok());
        let leader = run.map_or_else(|| "unknown".into(), |run| run.leader);
        RunError::TakenOver { version: self.version.clone(), leader }
    }
}

fn lease_key(version: &Version) -> String {
    format!("run.{version}")
}

fn leader_name() -> String {
    worker_name(Stage::Coordinator)
}
