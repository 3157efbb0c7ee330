//! `coordinator run` without `--now`: waits for the turns of schedules and has audits run at them, until it is stopped.
//!
//! Any number of coordinators may do so at one broker. One of them leads: it holds a lease. That is for order, not for
//! safety, as a leader may sleep past its lease and wake: each turn is claimed by a compare-and-set of what is known of
//! its schedule, and each run is begun by creating its state, so that only one can. The leader also takes up runs that
//! nobody leads any more, whoever began them.

mod broker;
mod own;
mod scheduler;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proto::bus::lease::Lease;
use proto::bus::{Bucket, BusError, SharedBus};
use proto::frame::SCHEMA;
use proto::plan::Stage;
use proto::service::presence::{self, Presence, WorkerInfo};
use proto::service::{host_name, worker_name};
use proto::subject::Version;
use tokio_util::sync::CancellationToken;

use crate::planner::Planner;
use crate::run::{Options, RunError};
use crate::schedule::Schedule;
use crate::summary::AuditReport;
use crate::terminal::Look;
use broker::BrokerRuns;
use own::OwnRuns;
use scheduler::Scheduler;

/// The lease of the coordinator that leads.
const LEASE: &str = "schedule";
/// How often it is looked whether something is to be done.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often one that stands by tries to lead.
const STAND_BY_EVERY: Duration = Duration::from_millis(500);
/// How long it waits after something went wrong.
const PAUSE: Duration = Duration::from_secs(1);
/// How long leaders of runs may take to let go at the end.
const LET_GO: Duration = Duration::from_secs(10);

/// What a coordinator runs by schedule.
#[derive(Debug)]
pub struct Daemon {
    /// Makes the plans.
    pub planner: Arc<Planner>,
    /// When what runs.
    pub schedules: Vec<Schedule>,
    /// How runs are led.
    pub options: Options,
}

/// Says something that stays, on standard error. Nobody may be reading it: that is no reason to stop.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The coordinators that wait for turns at this broker, and take up runs that nobody leads.
///
/// # Errors
/// When the broker cannot be asked.
pub async fn alive(bus: &SharedBus) -> Result<Vec<WorkerInfo>, BusError> {
    let mut workers = presence::alive(bus).await?;
    workers.retain(|worker| worker.stage == Stage::Coordinator);
    Ok(workers)
}

impl Daemon {
    /// Runs by schedule in this process, until it is stopped: then what was read is finished.
    ///
    /// # Errors
    /// When this host cannot keep what is known of turns.
    pub async fn in_this_process(
        self,
        bus: SharedBus,
        units_at_once: usize,
        stop: CancellationToken,
    ) -> Result<(), RunError> {
        let mut scheduler = Scheduler::new(self.schedules, bus, Timestamp::now());
        let mut runs = OwnRuns::new(self.planner, self.options, units_at_once, stop.clone());
        scheduler.announce(Timestamp::now());
        while !stop.is_cancelled() {
            let now = Timestamp::now();
            scheduler.look(now);
            if let Err(error) = scheduler.serve(&mut runs, now).await {
                tracing::error!(%error, "cannot serve the schedule now");
                tokio::time::sleep(PAUSE).await;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause_until(scheduler.next(now), now)) => {}
                () = runs.ended() => scheduler.announce(Timestamp::now()),
            }
        }
        runs.finish().await;
        Ok(())
    }

    /// Runs by schedule at a broker, until it is stopped: then another coordinator leads on what runs.
    ///
    /// # Errors
    /// When the broker has streams of another configuration, or refuses what a coordinator does.
    pub async fn over_nats(self, bus: SharedBus, stop: CancellationToken) -> Result<(), RunError> {
        while let Err(error) = bus.ensure_streams().await {
            if !error.is_transient() {
                return Err(error.into());
            }
            tracing::warn!(%error, "cannot prepare the broker now");
            if stopped_within(&stop, PAUSE).await {
                return Ok(());
            }
        }
        let presence_ends = CancellationToken::new();
        let _presence = announce(&bus, presence_ends.clone());
        let mut scheduler = Scheduler::new(self.schedules, Arc::clone(&bus), Timestamp::now());
        let mut runs = BrokerRuns::follow(Arc::clone(&bus), self.planner, self.options, stop.clone()).await;
        let mut has_said = false;
        while !stop.is_cancelled() {
            scheduler.look(Timestamp::now());
            runs.reap();
            match Lease::try_acquire(&bus, LEASE, &worker_name(Stage::Coordinator)).await {
                Ok(Some(lease)) => {
                    has_said = false;
                    lead(lease, &mut scheduler, &mut runs, &stop).await;
                }
                Ok(None) if !has_said => {
                    has_said = true;
                    say(&format!("standing by: {} leads", leader(&bus).await));
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "cannot ask the broker who leads now"),
            }
            stopped_within(&stop, STAND_BY_EVERY).await;
        }
        presence_ends.cancel();
        if tokio::time::timeout(LET_GO, runs.finish()).await.is_err() {
            tracing::warn!("runs are left that could not be let go of; another coordinator takes them up");
        }
        let gone = until_gone(&bus);
        let _ = tokio::time::timeout(Duration::from_secs(2), gone).await;
        Ok(())
    }
}

/// Leads for as long as the lease is held.
async fn lead(mut lease: Lease, scheduler: &mut Scheduler, runs: &mut BrokerRuns, stop: &CancellationToken) {
    say("leading: this coordinator begins runs at their turns, and takes up those that nobody leads");
    scheduler.begin_term();
    scheduler.announce(Timestamp::now());
    loop {
        let now = Timestamp::now();
        scheduler.look(now);
        let work = async {
            let served = scheduler.serve(runs, now).await;
            served.and(runs.take_up().await.map_err(RunError::from))
        };
        let worked = tokio::select! {
            () = stop.cancelled() => break,
            () = lease.lost() => {
                say("leading no more: the lease was lost");
                return;
            }
            worked = work => worked,
        };
        if let Err(error) = worked {
            tracing::warn!(%error, "cannot serve the schedule now");
            stopped_within(stop, PAUSE).await;
        }
        if runs.reap() {
            scheduler.announce(Timestamp::now());
        }
        stopped_within(stop, pause_until(scheduler.next(now), Timestamp::now())).await;
    }
    lease.release().await;
}

/// Who leads, for people.
async fn leader(bus: &SharedBus) -> String {
    let holder = bus.kv_get(Bucket::Leases, LEASE).await.ok().flatten();
    let holder = holder.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
    // Behind the name stands what tells two of one name apart.
    holder
        .and_then(|holder| holder.split(' ').next().map(str::to_owned))
        .unwrap_or_else(|| "another coordinator".to_owned())
}

/// How long nothing needs to be done: until the next turn, or until it is looked again.
fn pause_until(turn: Option<Timestamp>, now: Timestamp) -> Duration {
    let left = turn.and_then(|turn| Duration::try_from(turn.duration_since(now)).ok());
    left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY))
}

/// Waits; true when it was stopped meanwhile.
async fn stopped_within(stop: &CancellationToken, time: Duration) -> bool {
    tokio::time::timeout(time, stop.cancelled()).await.is_ok()
}

fn announce(bus: &SharedBus, ends: CancellationToken) -> Presence {
    let info = WorkerInfo {
        name: worker_name(Stage::Coordinator),
        stage: Stage::Coordinator,
        host: host_name(),
        pid: std::process::id(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        schema: SCHEMA.to_owned(),
        pools: Vec::new(),
        classes: Vec::new(),
        cannot: Vec::new(),
    };
    Presence::start(Arc::clone(bus), info, ends)
}

/// Waits until nobody sees this coordinator any more.
async fn until_gone(bus: &SharedBus) {
    let name = worker_name(Stage::Coordinator);
    while alive(bus).await.is_ok_and(|alive| alive.iter().any(|worker| worker.name == name)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Says that the run of a turn begins.
fn say_begun(schedule: &Schedule, claim: &turns::Claim) {
    let names: Vec<String> = claim.audits.iter().map(ToString::to_string).collect();
    let turn = schedule.shown(claim.turn);
    say(&format!("run {} of {} begins: the turn of {turn}", claim.version, names.join(", ")));
}

/// Says what a run came to: its report goes to standard output.
fn conclude(version: &Version, reports: &[AuditReport]) {
    use std::io::Write;
    let look = Look::of_stdout();
    let text: Vec<String> = reports.iter().map(|report| report.render(look)).collect();
    let outcome = match reports {
        _ if reports.iter().any(|report| report.cancelled.is_some()) => "cancelled",
        _ if reports.iter().all(AuditReport::is_complete) => "complete",
        _ => "INCOMPLETE",
    };
    let _ = writeln!(std::io::stdout(), "{}", text.join("\n"));
    say(&format!("run {version} has ended: {outcome}"));
}
