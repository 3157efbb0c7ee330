//! Follows a run at a broker: folds what is said of it, and asks the broker for the rest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::bus::{Bucket, BusError, BusErrorKind, ConsumerId, ReaderSpec, SharedBus};
use proto::coverage::State;
use proto::plan::{Plan, Stage};
use proto::run::{AuditState, Phase, RunState};
use proto::service::presence;
use proto::status::DeadLetter;
use proto::subject::{self, Key, Role, Stream, Version};
use proto::unit::Throttle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{
    AuditStatus, Basis, Estimate, Left, MOST_LEFT, RunStatus, StageStatus, ThrottleStatus, WorkerStatus, outcome_of,
};
use crate::history::{History, HistoryError, Outcome, Wanted, seconds};
use crate::summary::{CloudReport, not_whole};
use crate::tally::Tally;

/// How long what was said may take to be heard.
const HEARING: Duration = Duration::from_secs(30);
/// Over how long a rate is measured.
const LATELY: Duration = Duration::from_secs(10);
/// From how large a share of the last run on it says nothing of what is left.
const NEARLY_ALL: f64 = 0.98;

/// Why it is not known where a run stands.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The broker.
    #[error("{0}")]
    Bus(#[from] BusError),
    /// The history.
    #[error("{0}")]
    History(#[from] HistoryError),
    /// There is no such run.
    #[error("there is no run {0}; `coordinator runs` lists those that are known")]
    NoSuchRun(Version),
    /// There is no run at all.
    #[error("there are no runs yet; `coordinator run --now` begins one")]
    NoRuns,
}

/// Follows one run.
#[derive(Debug)]
pub struct Follower {
    bus: SharedBus,
    history: History,
    broker: String,
    version: Version,
    audits: BTreeMap<Key, Followed>,
}

/// The result of each stage, by role and plugin.
type Results = BTreeMap<(Role, Option<Key>), u64>;

/// What is heard of an audit that runs.
#[derive(Debug)]
struct Followed {
    plan: Option<Plan>,
    tally: Arc<Mutex<Tally>>,
    /// Records of the last complete run.
    before: Option<u64>,
    listening: JoinHandle<()>,
    seen: VecDeque<(Instant, Results)>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Followed {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// Follows a run; without a version the newest that runs, or the newest.
    ///
    /// # Errors
    /// When there is none, or the broker cannot be asked.
    pub async fn begin(
        bus: &SharedBus,
        history: &History,
        version: Option<&Version>,
        audit: Option<&Key>,
    ) -> Result<Self, StatusError> {
        let at_broker = history.synchronise(bus).await?;
        let is_wanted = |run: &&RunState| audit.is_none_or(|audit| run.audits.contains_key(audit));
        let mut runs = at_broker.runs.iter().filter(is_wanted);
        let version = match version {
            Some(version) => version.clone(),
            None => {
                let newest = runs.next().ok_or(StatusError::NoRuns)?;
                let live = std::iter::once(newest).chain(runs).find(|run| !run.is_ended());
                live.unwrap_or(newest).version.clone()
            }
        };
        let known = at_broker.runs.iter().any(|run| run.version == version)
            || !history.entries(&Wanted { version: Some(&version), ..Wanted::default() })?.is_empty();
        if !known {
            return Err(StatusError::NoSuchRun(version));
        }
        let (bus, history) = (Arc::clone(bus), history.clone());
        Ok(Self { bus, history, broker: at_broker.id, version, audits: BTreeMap::new() })
    }

    /// The run.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Where the run stands now.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub async fn look(&mut self) -> Result<RunStatus, StatusError> {
        let entry = self.bus.kv_get(Bucket::Runs, self.version.as_str()).await?;
        let Some(run) = entry.and_then(|entry| serde_json::from_slice::<RunState>(&entry.value).ok()) else {
            // The broker has forgotten it; this host has not.
            return past(&self.history, &self.version);
        };
        let is_ended = |audit: &Key| run.audits.get(audit).is_none_or(|state| state.phase == Phase::Ended);
        if run.order.iter().any(|audit| is_ended(audit) && self.is_unreported(audit)) {
            self.history.synchronise(&self.bus).await?;
        }
        let mut audits = Vec::new();
        for audit in &run.order {
            let state = run.audits.get(audit).cloned().unwrap_or_default();
            audits.push(if is_ended(audit) {
                self.audits.remove(audit);
                match self.history.report(audit, &self.version)? {
                    Some(report) => AuditStatus::of_report(report),
                    None => AuditStatus::bare(audit.clone(), Outcome::of_state(&run, audit)),
                }
            } else {
                self.look_at(&run, audit, &state).await?
            });
        }
        let outcome = outcome_of(audits.iter().map(|audit| audit.outcome));
        let ended = if run.is_ended() { audits.iter().filter_map(|audit| audit.ended.clone()).max() } else { None };
        let (workers, throttled) = if run.is_ended() {
            (Vec::new(), Vec::new())
        } else {
            (self.workers().await?, self.throttled(&run).await?)
        };
        Ok(RunStatus {
            seconds: seconds(Some(&run.started), ended.as_deref(), outcome),
            version: run.version,
            outcome,
            started: Some(run.started),
            ended,
            leader: Some(run.leader),
            stopping: run.stopping,
            audits,
            workers,
            throttled,
        })
    }

    fn is_unreported(&self, audit: &Key) -> bool {
        matches!(self.history.report(audit, &self.version), Ok(None))
    }

    async fn look_at(&mut self, run: &RunState, audit: &Key, state: &AuditState) -> Result<AuditStatus, StatusError> {
        if !self.audits.contains_key(audit) {
            let followed = self.follow(audit).await?;
            self.audits.insert(audit.clone(), followed);
        }
        let bus = Arc::clone(&self.bus);
        let version = self.version.clone();
        let Some(followed) = self.audits.get_mut(audit) else {
            return Ok(AuditStatus::bare(audit.clone(), Outcome::Running));
        };
        if followed.plan.is_none() {
            followed.plan = Plan::fetch(&*bus, audit, &version, Stage::Coordinator).await?;
        }
        let Some(plan) = followed.plan.clone() else {
            let phase = Some(state.phase);
            return Ok(AuditStatus { phase, ..AuditStatus::bare(audit.clone(), Outcome::Running) });
        };
        let mut stages = stages(&followed.tally(), &plan, state);
        for stage in &mut stages {
            ask_lag(&bus, &plan, stage).await;
        }
        let since = seconds(Some(&run.started), None, Outcome::Running).unwrap_or(0);
        followed.measure(&mut stages, since);
        let estimate = estimate(&followed.tally(), state, &stages, since, followed.before);
        let tally = followed.tally();
        let mut left: Vec<Left> = Vec::new();
        let mut coverage: BTreeMap<State, u64> = BTreeMap::new();
        let mut problems: Vec<String> =
            state.failed.iter().map(|part| format!("{} {}: {}", part.role, part.plugin, part.reason)).collect();
        for spec in plan.of_role(Role::Cloud) {
            left.extend(tally.left_of(&spec.key).into_iter().map(|(reading, units)| Left {
                plugin: spec.key.clone(),
                scope: reading.scope,
                resource_type: reading.resource_type,
                units,
            }));
            let cloud = CloudReport {
                plugin: spec.key.clone(),
                records: 0,
                coverage: tally.coverage_of(&spec.key),
                coverage_parts: 0,
                failed: None,
            };
            for entry in &cloud.coverage {
                *coverage.entry(entry.state).or_default() += 1;
            }
            problems.extend(not_whole(&cloud));
        }
        for ((role, plugin), dead) in tally.dead() {
            let (count, reason) = (dead.count, &dead.reason);
            problems.push(format!("{role} {plugin}: {count} messages could not be processed, the first: {reason}"));
        }
        left.sort_by_key(|left| Reverse(left.units));
        left.truncate(MOST_LEFT);
        Ok(AuditStatus {
            audit: audit.clone(),
            outcome: Outcome::Running,
            phase: Some(state.phase),
            ended: None,
            estimate,
            stages,
            left,
            coverage,
            problems,
            report: None,
        })
    }

    /// Begins to hear what is said about an audit, and returns when all that was said until now is heard.
    async fn follow(&self, audit: &Key) -> Result<Followed, StatusError> {
        let tally: Arc<Mutex<Tally>> = Arc::default();
        let filter = subject::status_of(audit, &self.version);
        let last = self.bus.last_seq(Stream::Status, &filter).await?;
        let mut readers = [ReaderSpec::status(audit, &self.version), ReaderSpec::dead(audit, &self.version)];
        for reader in &mut readers {
            reader.name = format!("{}-view-{}", reader.name, std::process::id());
        }
        let mut status = self.bus.read(&readers[0]).await?;
        let mut dead = self.bus.read(&readers[1]).await?;
        let told = Arc::clone(&tally);
        let listening = tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = status.next() => message,
                    message = dead.next() => message,
                };
                let Ok(message) = message else { return };
                let mut tally = told.lock().unwrap_or_else(PoisonError::into_inner);
                tally.heard(Stream::of(&message.subject), message.seq);
                if let Some((role, plugin)) = subject::parse_dead(&message.subject) {
                    if let Ok(letter) = DeadLetter::read(&message) {
                        tally.bury(role, plugin, letter);
                    }
                } else if let Ok(status) = serde_json::from_slice(&message.payload) {
                    tally.add(status);
                }
            }
        });
        let complete =
            self.history.entries(&Wanted { broker: Some(&self.broker), audit: Some(audit), ..Wanted::default() })?;
        let before = complete.into_iter().find(|entry| entry.outcome == Outcome::Complete);
        let followed = Followed {
            plan: None,
            tally,
            before: before.and_then(|entry| entry.records),
            listening,
            seen: VecDeque::new(),
        };
        let deadline = Instant::now() + HEARING;
        while followed.tally().last_heard(Stream::Status) < last {
            if Instant::now() > deadline || followed.listening.is_finished() {
                let text = "what is said about the run does not come from the broker; try again";
                return Err(BusError::new(BusErrorKind::Unavailable, text).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(followed)
    }

    async fn workers(&self) -> Result<Vec<WorkerStatus>, StatusError> {
        let mut workers: Vec<WorkerStatus> = presence::announced(&self.bus)
            .await?
            .into_iter()
            .map(|announced| {
                let (info, load) = (announced.info, announced.load);
                let cannot = info.cannot.iter().filter(|cannot| cannot.version == self.version);
                WorkerStatus {
                    cannot: cannot
                        .map(|cannot| format!("{} {}: {}", cannot.role, cannot.plugin, cannot.reason))
                        .collect(),
                    name: info.name,
                    stage: info.stage,
                    host: info.host,
                    version: info.program,
                    pools: info.pools,
                    in_work: load.in_work,
                    done: load.done,
                }
            })
            .collect();
        workers.sort_by(|one, other| (one.stage, &one.name).cmp(&(other.stage, &other.name)));
        Ok(workers)
    }

    /// What waits of the run's clouds. Pauses are of a plugin, whatever the run.
    async fn throttled(&self, run: &RunState) -> Result<Vec<ThrottleStatus>, StatusError> {
        let plans = run.order.iter().filter_map(|audit| self.audits.get(audit)?.plan.as_ref());
        let clouds: Vec<&Key> = plans.flat_map(|plan| &plan.clouds).collect();
        let entries = self.bus.kv_entries(Bucket::Throttle, "").await?;
        let pauses = entries.iter().filter_map(|entry| serde_json::from_slice::<Throttle>(&entry.value).ok());
        let now = jiff::Timestamp::now();
        let mut throttled: Vec<ThrottleStatus> = pauses
            .filter(|pause| clouds.contains(&&pause.plugin))
            .map(|pause| {
                let until: Option<jiff::Timestamp> = pause.until.parse().ok();
                let seconds = until.map_or(0, |until| until.duration_since(now).as_secs().max(0).unsigned_abs());
                ThrottleStatus {
                    plugin: pause.plugin,
                    scope: pause.scope,
                    list: pause.list,
                    until: pause.until,
                    seconds,
                }
            })
            .collect();
        throttled.sort_by(|one, other| one.until.cmp(&other.until).then_with(|| one.scope.cmp(&other.scope)));
        Ok(throttled)
    }
}

impl Followed {
    /// Notes how many there are, and says how many a second came lately.
    fn measure(&mut self, stages: &mut [StageStatus], since: u64) {
        let now = Instant::now();
        let counts = stages.iter().map(|stage| ((stage.role, stage.plugin.clone()), stage.result)).collect();
        while self.seen.len() > 1 && self.seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= LATELY) {
            self.seen.pop_front();
        }
        let before = self.seen.front().cloned();
        self.seen.push_back((now, counts));
        for stage in stages {
            let known = before.as_ref().and_then(|(at, counts)| {
                let count = counts.get(&(stage.role, stage.plugin.clone()))?;
                let time = now.duration_since(*at).as_secs_f64();
                // At the first look there is nothing to compare with.
                (time >= 0.5).then(|| stage.result.saturating_sub(*count) as f64 / time)
            });
            let lately = known.or_else(|| (since > 0).then(|| stage.result as f64 / since as f64));
            stage.per_second = lately.map(|rate| (rate * 10.0).round() / 10.0);
        }
    }
}

/// What the tally knows of each stage.
fn stages(tally: &Tally, plan: &Plan, state: &AuditState) -> Vec<StageStatus> {
    let failed = |role: Role, plugin: Option<&Key>| {
        let mut parts = state.failed.iter().filter(|part| part.role == role);
        parts.find(|part| plugin.is_none_or(|plugin| part.plugin == *plugin)).map(|part| part.reason.clone())
    };
    let mut stages = Vec::new();
    for spec in plan.of_role(Role::Cloud) {
        let (done, left) = tally.units_of(&spec.key);
        stages.push(StageStatus {
            stage: spec.stage,
            role: Role::Cloud,
            plugin: Some(spec.key.clone()),
            unit: "units",
            done,
            of: done + left,
            waiting: None,
            in_work: None,
            result: tally.records_of(&spec.key),
            result_unit: "records",
            per_second: None,
            is_done: state.phase > Phase::Collecting || tally.has_collected(&spec.key),
            failed: failed(Role::Cloud, Some(&spec.key)),
            place: None,
        });
    }
    if plan.of_role(Role::Event).next().is_some() {
        stages.push(StageStatus {
            stage: Stage::Evaluator,
            role: Role::Event,
            plugin: None,
            unit: "frames",
            done: tally.settled(),
            of: tally.frames().max(tally.settled()),
            waiting: None,
            in_work: None,
            result: tally.events(),
            result_unit: "events",
            per_second: None,
            is_done: state.phase > Phase::DrainingStores,
            failed: failed(Role::Event, None),
            place: None,
        });
    }
    for spec in plan.of_role(Role::Store).chain(plan.of_role(Role::Alert)) {
        let delivered = tally.delivered(spec.role, &spec.key);
        let (unit, all, is_all_there) = match spec.role {
            Role::Alert => ("events", state.events.unwrap_or_else(|| tally.events()), state.events_end.is_some()),
            _ => ("frames", tally.frames(), state.records_end.is_some()),
        };
        let done = match delivered {
            Some(delivered) => delivered.messages,
            None => tally.settled_by(spec.role, &spec.key),
        };
        stages.push(StageStatus {
            stage: spec.stage,
            role: spec.role,
            plugin: Some(spec.key.clone()),
            unit,
            done,
            of: all.max(done),
            waiting: None,
            in_work: None,
            result: delivered.map_or_else(|| tally.documents_of(spec.role, &spec.key), |delivered| delivered.documents),
            result_unit: "documents",
            per_second: None,
            is_done: if spec.exclusive { delivered.is_some() } else { is_all_there && done >= all },
            failed: failed(spec.role, Some(&spec.key)),
            place: delivered
                .map(|delivered| delivered.place.clone())
                .or_else(|| tally.place(spec.role, &spec.key).map(str::to_owned)),
        });
    }
    stages
}

/// Asks how much waits for a stage. What has no consumer (any more) has no lag that is known.
async fn ask_lag(bus: &SharedBus, plan: &Plan, stage: &mut StageStatus) {
    let (audit, version) = (&plan.audit, &plan.version);
    let (waiting, in_work) = match (stage.role, &stage.plugin) {
        (Role::Cloud, Some(plugin)) => {
            // The queue holds those that are being worked on, too, and a pool's consumer those of other runs.
            let queued = bus.count(Stream::Units, &subject::units_of_plugin(audit, version, plugin)).await.ok();
            (queued, None)
        }
        (Role::Event, _) => lag_of(bus, &ConsumerId::evaluator(audit, version)).await,
        (role, Some(plugin)) => lag_of(bus, &ConsumerId::plugin(audit, version, role, plugin)).await,
        (_, None) => (None, None),
    };
    (stage.waiting, stage.in_work) = (waiting, in_work);
}

async fn lag_of(bus: &SharedBus, id: &ConsumerId) -> (Option<u64>, Option<u64>) {
    match bus.consumer_state(id).await {
        Ok(state) => (Some(state.pending), Some(state.ack_pending)),
        Err(_) => (None, None),
    }
}

/// How much longer it may take: the slowest of what is to be done.
fn estimate(
    tally: &Tally,
    state: &AuditState,
    stages: &[StageStatus],
    since: u64,
    before: Option<u64>,
) -> Option<Estimate> {
    let elapsed = since.max(1) as f64;
    let whole = |seconds: f64| if seconds.is_finite() && seconds >= 0.0 { seconds.ceil() as u64 } else { 0 };
    let collecting = if state.phase <= Phase::Collecting {
        let records = tally.records() as f64;
        let (done, left) = tally.units();
        match before.map(|before| before as f64) {
            Some(before) if records > 0.0 && records < before * NEARLY_ALL => {
                let seconds = whole((before - records) / (records / elapsed));
                Some(Estimate { seconds, basis: Basis::LastRun })
            }
            _ if done > 0 && left > 0 => {
                let seconds = whole(left as f64 / (done as f64 / elapsed));
                Some(Estimate { seconds, basis: Basis::UnitsLeft })
            }
            _ => None,
        }
    } else {
        None
    };
    let lags = stages.iter().filter(|stage| stage.role != Role::Cloud && !stage.is_done && stage.failed.is_none());
    let lags = lags.filter_map(|stage| {
        let left = stage.waiting? + stage.in_work?;
        let rate = stage.done as f64 / elapsed;
        (rate > 0.0 && left > 0).then(|| Estimate { seconds: whole(left as f64 / rate), basis: Basis::Lag })
    });
    collecting.into_iter().chain(lags).max_by_key(|estimate| estimate.seconds)
}

/// Where a run stands that only the history knows.
///
/// # Errors
/// When the history cannot be read, or does not know it.
pub fn past(history: &History, version: &Version) -> Result<RunStatus, StatusError> {
    let entries = history.entries(&Wanted { version: Some(version), ..Wanted::default() })?;
    let first = entries.first().cloned().ok_or_else(|| StatusError::NoSuchRun(version.clone()))?;
    let mut audits = Vec::new();
    // A run of the same second may have gone over another broker.
    for entry in entries.into_iter().filter(|entry| entry.broker == first.broker) {
        audits.push(match history.report(&entry.audit, version)? {
            Some(report) => AuditStatus::of_report(report),
            None => AuditStatus { ended: entry.ended, ..AuditStatus::bare(entry.audit, entry.outcome) },
        });
    }
    let outcome = outcome_of(audits.iter().map(|audit| audit.outcome));
    let ended = audits.iter().filter_map(|audit| audit.ended.clone()).max();
    Ok(RunStatus {
        version: version.clone(),
        outcome,
        seconds: seconds(first.started.as_deref(), ended.as_deref(), outcome),
        started: first.started,
        ended,
        leader: first.leader,
        stopping: false,
        audits,
        workers: Vec::new(),
        throttled: Vec::new(),
    })
}

/// The newest run that the history knows.
///
/// # Errors
/// When the history cannot be read, or knows none.
pub fn newest(history: &History, audit: Option<&Key>) -> Result<Version, StatusError> {
    let entries = history.entries(&Wanted { audit, limit: Some(1), ..Wanted::default() })?;
    entries.into_iter().next().map(|entry| entry.version).ok_or(StatusError::NoRuns)
}
