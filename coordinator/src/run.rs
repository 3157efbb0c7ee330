//! Leads a run: reserves its version, has its audits led from phase to phase, and keeps its state at the broker.

mod audit;
mod mails;
mod parts;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proto::bus::lease::Lease;
use proto::bus::{Bucket, BusError, BusErrorKind, SharedBus};
use proto::config::Environment;
use proto::plan::{Plan, Stage};
use proto::run::{AuditState, Cancelled, MailState, Phase, RunState, Turn};
use proto::service::worker_name;
use proto::subject::{Key, Version};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::History;
use crate::mail::Mails;
use crate::progress::Progress;
use crate::summary::AuditReport;
use audit::AuditRun;
use mails::Post;

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
    /// What sends the mails about runs: for the whole life of the process, as the configuration is.
    pub mails: &'static Mails,
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
pub const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(15);
/// How often the state of a run is looked at that others may have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What came of beginning the run of a turn.
#[derive(Debug)]
pub enum Begun {
    /// It is led here.
    Here(Box<Leader>),
    /// Somebody has begun it before.
    Elsewhere,
    /// Another run has the version.
    VersionTaken,
}

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
            let run = RunState::new(version, now.to_string(), leader_name(), audits);
            // A version that is taken: the next second's may not be.
            let Some((held, lease)) = reserve(&bus, run).await? else { continue };
            let plans = audits.iter().map(|audit| plan(audit, &held.run.version)).collect();
            return Ok(Self::new(bus, options, held, lease, progress, plans));
        }
        let text = format!("all versions of the next {MAX_SECONDS_AHEAD} s are taken");
        Err(BusError::new(BusErrorKind::Conflict, text).into())
    }

    /// Begins the run of a turn, under the version that was claimed for it, unless somebody has begun it.
    ///
    /// # Errors
    /// When the broker cannot be asked, or somebody holds the version without beginning the run.
    pub async fn begin_turn(
        bus: SharedBus,
        options: Options,
        version: &Version,
        turn: &Turn,
        plans: Vec<Plan>,
        progress: Arc<Progress>,
    ) -> Result<Begun, RunError> {
        let began = tokio::time::Instant::now();
        let audits: Vec<Key> = plans.iter().map(|plan| plan.audit.clone()).collect();
        loop {
            let mut run = RunState::new(version.clone(), Timestamp::now().to_string(), leader_name(), &audits);
            run.turn = Some(turn.clone());
            if let Some((held, lease)) = reserve(&bus, run).await? {
                return Ok(Begun::Here(Box::new(Self::new(bus, options, held, lease, progress, plans))));
            }
            match state_of_run(&bus, version).await? {
                Some((run, _)) if run.turn.as_ref() == Some(turn) => return Ok(Begun::Elsewhere),
                Some(_) => return Ok(Begun::VersionTaken),
                None if began.elapsed() < TAKE_OVER_PATIENCE => tokio::time::sleep(Duration::from_millis(250)).await,
                None => {
                    let text = format!("somebody holds the version {version} and does not begin its run");
                    return Err(BusError::new(BusErrorKind::Unavailable, text).into());
                }
            }
        }
    }

    /// Takes over a run whose leader died, waiting so long for its lease. `plan` makes a plan anew that its leader
    /// died too early to leave; without one, such a run is ended.
    ///
    /// # Errors
    /// When there is no such run, its plan is gone, or somebody leads it.
    pub async fn resume(
        bus: SharedBus,
        options: Options,
        version: &Version,
        patience: Duration,
        plan: impl Fn(&Key, &RunState) -> Option<Plan>,
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
            if began.elapsed() > patience {
                let holder = bus.kv_get(Bucket::Leases, &lease_key(version)).await?;
                let leader = holder.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
                return Err(RunError::TakenOver {
                    version: version.clone(),
                    leader: leader.unwrap_or_else(|| "unknown".into()),
                });
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        };
        let held = take_over(&bus, version).await?;
        let mut plans = Vec::new();
        let mut is_planned = true;
        for audit in &held.run.order {
            match Plan::fetch(&*bus, audit, version, Stage::Coordinator).await? {
                Some(plan) => plans.push(plan),
                None => match plan(audit, &held.run) {
                    Some(plan) => plans.push(plan),
                    None => is_planned = false,
                },
            }
        }
        let leader = Self::new(bus, options, held, lease, progress, plans);
        if is_planned {
            return Ok(leader);
        }
        // Nobody will ever know what was to be done.
        leader.update(end_unplanned).await?;
        leader.give_up_lease().await;
        Err(RunError::NoPlan(version.clone()))
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

    /// Leaves the run to another coordinator before it has begun: all that one needs is at the broker.
    ///
    /// # Errors
    /// When the broker refuses the plans, or is away for too long.
    pub async fn leave(self) -> Result<Version, RunError> {
        self.publish_plans().await?;
        self.give_up_lease().await;
        Ok(self.version)
    }

    /// All plans first: a coordinator that dies after this can be taken over.
    async fn publish_plans(&self) -> Result<(), RunError> {
        for plan in &self.plans {
            if self.state_of(&plan.audit).await.phase == Phase::Planned {
                plan.publish(&*self.bus, Stage::Coordinator).await?;
            }
        }
        Ok(())
    }

    async fn give_up_lease(&self) {
        if let Some(lease) = self.lease.lock().await.take() {
            lease.release().await;
        }
    }

    /// Leads the run to its end. `stop` ends collecting early in the embedded mode, and detaches otherwise.
    ///
    /// # Errors
    /// When the run is taken over, or the broker fails for good.
    pub async fn lead(self, stop: CancellationToken) -> Result<Vec<AuditReport>, RunError> {
        let leader = Arc::new(self);
        leader.publish_plans().await?;
        let history = History::of_host(&Environment::of_process());
        history.keep(&leader.bus, &[]).await;
        let mut audits = JoinSet::new();
        let post = Arc::new(Post::begin(&leader));
        for (place, plan) in leader.plans.iter().enumerate() {
            post.audit_begins(&plan.audit);
            let (run, post) = (AuditRun::new(Arc::clone(&leader), plan.clone()), Arc::clone(&post));
            audits.spawn(async move {
                let led = run.lead().await;
                if let Ok(report) = &led {
                    post.audit_ended(report).await;
                }
                (place, led)
            });
        }
        let mut led = leader.collect(audits, stop).await;
        if let Ok(reports) = &mut led {
            post.end(reports).await;
        }
        history.keep(&leader.bus, led.as_deref().unwrap_or_default()).await;
        leader.give_up_lease().await;
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
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut lost = std::pin::pin!(self.lost_lease());
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
                _ = looks.tick(), if !self.options.embedded => self.look_at_state().await?,
                () = &mut lost => {
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

    /// What became of a mail about the run.
    async fn mail_state(&self, mail: &str) -> Option<MailState> {
        self.state.lock().await.run.mails.get(mail).copied()
    }

    async fn note_mail(&self, mail: &str, state: MailState) -> Result<(), RunError> {
        self.update(|run| {
            run.mails.insert(mail.to_owned(), state);
        })
        .await
    }

    /// When the run began, as it was written down.
    async fn started_text(&self) -> String {
        self.state.lock().await.run.started.clone()
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
        loop {
            let value = serde_json::to_vec(&next).map_err(BusError::json)?;
            match self.bus.kv_update(Bucket::Runs, self.version.as_str(), value.into(), held.revision).await {
                Ok(revision) => {
                    *held = Held { run: next, revision };
                    return Ok(());
                }
                Err(error) if error.kind() == BusErrorKind::Conflict => {
                    let (there, revision) = match state_of_run(&self.bus, &self.version).await? {
                        Some(there) => there,
                        None => return Err(self.taken_over("nobody: its state is gone")),
                    };
                    held.run.cancelled.clone_from(&there.cancelled);
                    next.cancelled.clone_from(&there.cancelled);
                    held.revision = revision;
                    // Our own change, whose answer got lost.
                    if there == next {
                        held.run = next;
                        return Ok(());
                    }
                    // It may have been cancelled: that is for others to do.
                    if there != held.run {
                        return Err(self.taken_over(&there.leader));
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

    /// Looks whether an operator has cancelled the run, or somebody else leads it.
    async fn look_at_state(&self) -> Result<(), RunError> {
        let mut held = self.state.lock().await;
        let there = match state_of_run(&self.bus, &self.version).await {
            Ok(Some((there, _))) => there,
            Ok(None) => return Err(self.taken_over("nobody: its state is gone")),
            Err(error) if error.is_transient() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if there.term > held.run.term {
            return Err(self.taken_over(&there.leader));
        }
        // The revision stays: the next change finds out by itself that it is another one.
        held.run.cancelled = there.cancelled;
        Ok(())
    }

    /// Who has cancelled the run, if anybody has.
    async fn cancelled(&self) -> Option<Cancelled> {
        self.state.lock().await.run.cancelled.clone()
    }

    fn taken_over(&self, leader: &str) -> RunError {
        RunError::TakenOver { version: self.version.clone(), leader: leader.to_owned() }
    }
}

/// Reserves a version with its state and lease; none when it is taken.
async fn reserve(bus: &SharedBus, run: RunState) -> Result<Option<(Held, Lease)>, RunError> {
    let Some(lease) = Lease::try_acquire(bus, &lease_key(&run.version), &leader_name()).await? else {
        return Ok(None);
    };
    let value = serde_json::to_vec(&run).map_err(BusError::json)?;
    match bus.kv_create(Bucket::Runs, run.version.as_str(), value.into(), None).await {
        Ok(revision) => Ok(Some((Held { run, revision }, lease))),
        Err(error) => {
            lease.release().await;
            if error.kind() == BusErrorKind::Conflict { Ok(None) } else { Err(error.into()) }
        }
    }
}

/// Begins the next term of a run's leadership.
async fn take_over(bus: &SharedBus, version: &Version) -> Result<Held, RunError> {
    loop {
        let found = state_of_run(bus, version).await?;
        let (mut run, revision) = found.ok_or_else(|| RunError::NoSuchRun(version.clone()))?;
        run.leader = leader_name();
        run.term += 1;
        let value = serde_json::to_vec(&run).map_err(BusError::json)?;
        match bus.kv_update(Bucket::Runs, version.as_str(), value.into(), revision).await {
            Ok(revision) => return Ok(Held { run, revision }),
            // The one before changed it meanwhile: what it found out counts.
            Err(error) if error.kind() == BusErrorKind::Conflict => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The state of a run and its revision, if there is such a run.
///
/// # Errors
/// When the broker cannot be asked, or the state cannot be read.
pub async fn state_of_run(bus: &SharedBus, version: &Version) -> Result<Option<(RunState, u64)>, BusError> {
    let Some(entry) = bus.kv_get(Bucket::Runs, version.as_str()).await? else { return Ok(None) };
    Ok(Some((serde_json::from_slice(&entry.value).map_err(BusError::json)?, entry.revision)))
}

/// Ends what has no plan.
fn end_unplanned(run: &mut RunState) {
    let cancelled = run.cancelled.is_some();
    for state in run.audits.values_mut().filter(|state| state.phase != Phase::Ended) {
        state.phase = Phase::Ended;
        state.cancelled = cancelled;
        state.complete = Some(false);
        state.ended = Some(Timestamp::now().to_string());
    }
}

/// Whether somebody leads a run now.
///
/// # Errors
/// When the broker cannot be asked.
pub async fn is_led(bus: &SharedBus, version: &Version) -> Result<bool, BusError> {
    Ok(bus.kv_get(Bucket::Leases, &lease_key(version)).await?.is_some())
}

fn lease_key(version: &Version) -> String {
    format!("run.{version}")
}

/// The name of this process as a leader.
pub(crate) fn leader_name() -> String {
    worker_name(Stage::Coordinator)
}
