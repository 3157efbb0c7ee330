//! What a coordinator that leads does at each moment: begins the runs of the turns that have come.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use proto::bus::{BusError, SharedBus};
use proto::config::Overlap;
use proto::subject::{Key, Version};

use super::say;
use super::turns::{Claim, Served, TurnBook};
use crate::run::RunError;
use crate::schedule::{Decision, GRACE, Schedule, upcoming};
use crate::terminal::span;

/// Where runs are begun and led.
#[async_trait]
pub(super) trait Runs: Send + Sync {
    /// The audits that run now, wherever they were begun.
    async fn running(&self) -> Result<BTreeSet<Key>, BusError>;

    /// Begins the run of a turn, unless that is done already.
    async fn begin(&mut self, schedule: &Schedule, claim: &Claim) -> Result<Beginning, RunError>;
}

/// What came of beginning a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It has begun: now, or before.
    Done,
    /// Another run has its version.
    VersionTaken,
}

/// Serves schedules.
#[derive(Debug)]
pub(super) struct Scheduler {
    schedules: Vec<Schedule>,
    book: TurnBook,
    /// What is known, by schedule: forgotten when somebody else has changed it.
    known: HashMap<String, (Served, u64)>,
    up_since: Timestamp,
    looked: Timestamp,
    /// Schedules of which it is said that their turns are served into the future.
    told_ahead: BTreeSet<String>,
}

impl Scheduler {
    pub(super) fn new(schedules: Vec<Schedule>, bus: SharedBus, now: Timestamp) -> Self {
        Self {
            schedules,
            book: TurnBook::new(bus),
            known: HashMap::new(),
            up_since: now,
            looked: now,
            told_ahead: BTreeSet::new(),
        }
    }

    /// Others may have led meanwhile.
    pub(super) fn begin_term(&mut self) {
        self.known.clear();
    }

    /// Says what comes next, for each schedule.
    pub(super) fn announce(&self, now: Timestamp) {
        for schedule in &self.schedules {
            let names = schedule.names();
            match schedule.next(now) {
                Some(turn) => say(&format!(
                    "{names}: waiting for {} ({}), in {}",
                    schedule.shown(turn),
                    schedule.timing(),
                    span(u64::try_from(turn.duration_since(now).as_secs()).unwrap_or(0))
                )),
                None => say(&format!("{names}: no turn is left ({})", schedule.timing())),
            }
        }
    }

    /// The next turn of all.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        upcoming(&self.schedules, after, 1).first().map(|(turn, _)| *turn)
    }

    /// Notes that this coordinator is up now. One that slept was not: its host was suspended, or it was stopped.
    pub(super) fn look(&mut self, now: Timestamp) {
        if now.duration_since(self.looked).unsigned_abs() > GRACE {
            tracing::warn!(since = %self.looked, "nothing was done for long: was this host suspended?");
            self.up_since = now;
        }
        self.looked = now;
    }

    /// Does what is due.
    pub(super) async fn serve(&mut self, runs: &mut dyn Runs, now: Timestamp) -> Result<(), RunError> {
        for schedule in self.schedules.clone() {
            self.serve_schedule(&schedule, runs, now).await?;
        }
        Ok(())
    }

    async fn serve_schedule(
        &mut self,
        schedule: &Schedule,
        runs: &mut dyn Runs,
        now: Timestamp,
    ) -> Result<(), RunError> {
        if !self.known.contains_key(&schedule.id) {
            let known = self.book.open(schedule, now).await?;
            self.known.insert(schedule.id.clone(), known);
        }
        let Some((mut served, _)) = self.known.get(&schedule.id).cloned() else { return Ok(()) };
        if let Some(claim) = served.claim.take() {
            // Its claimant died, or the broker was away.
            return self.begin(schedule, runs, served, claim).await;
        }
        self.tell_ahead(schedule, served.through, now);
        let running = runs.running().await?;
        let (busy, idle): (Vec<Key>, Vec<Key>) =
            schedule.audits.iter().cloned().partition(|audit| running.contains(audit));
        match schedule.decide(served.through, self.up_since, now) {
            Decision::Nothing => match served.waiting.take_if(|_| busy.is_empty()) {
                Some(turn) => self.claim(schedule, runs, served, turn, idle, now).await,
                None => Ok(()),
            },
            Decision::Missed { turn, missed } => {
                say(&format!(
                    "{}: missed {missed} turn{}, the last at {}; `catch_up: true` makes up for the last",
                    schedule.names(),
                    if missed == 1 { "" } else { "s" },
                    schedule.shown(turn)
                ));
                served.missed += missed;
                served.through = turn;
                self.change(schedule, served).await.map(|_| ())
            }
            Decision::Due { turn, missed } => {
                if missed > 0 {
                    say(&format!("{}: missed {missed} before the turn of {}", schedule.names(), schedule.shown(turn)));
                    served.missed += missed;
                }
                served.through = turn;
                if busy.is_empty() {
                    served.waiting = None;
                    return self.claim(schedule, runs, served, turn, idle, now).await;
                }
                self.overlap(schedule, runs, served, turn, busy, idle, now).await
            }
        }
    }

    /// Says when turns are served that have not come: a clock was wrong, here or where another coordinator led.
    fn tell_ahead(&mut self, schedule: &Schedule, through: Timestamp, now: Timestamp) {
        if through <= now + GRACE {
            self.told_ahead.remove(&schedule.id);
        } else if self.told_ahead.insert(schedule.id.clone()) {
            say(&format!(
                "{}: all turns until {} have been served, which is in the future: was a clock wrong? None begins \
                 before; with all clocks right, `nats kv del cm_checkpoints turns.{}` at the broker begins anew",
                schedule.names(),
                schedule.shown(through),
                schedule.id
            ));
        }
    }

    /// A turn has come, and audits still run.
    #[allow(clippy::too_many_arguments, reason = "all that is known of the turn")]
    async fn overlap(
        &mut self,
        schedule: &Schedule,
        runs: &mut dyn Runs,
        mut served: Served,
        turn: Timestamp,
        busy: Vec<Key>,
        idle: Vec<Key>,
        now: Timestamp,
    ) -> Result<(), RunError> {
        let names: Vec<String> = busy.iter().map(ToString::to_string).collect();
        let running = format!("{}: still running at the turn of {}", names.join(", "), schedule.shown(turn));
        match (schedule.overlap, served.waiting) {
            (Overlap::Queue, None) => {
                say(&format!("{running}: it waits (overlap: queue)"));
                served.waiting = Some(turn);
            }
            (Overlap::Queue, Some(_)) => {
                served.skipped += 1;
                say(&format!("{running}: one waits already, this one is left out ({} so far)", served.skipped));
            }
            (Overlap::Skip, _) => {
                served.skipped += 1;
                say(&format!("{running}: it is left out ({} so far; `overlap: queue` lets it wait)", served.skipped));
                if !idle.is_empty() {
                    return self.claim(schedule, runs, served, turn, idle, now).await;
                }
            }
        }
        self.change(schedule, served).await.map(|_| ())
    }

    /// Takes a turn upon this coordinator, and begins its run.
    async fn claim(
        &mut self,
        schedule: &Schedule,
        runs: &mut dyn Runs,
        mut served: Served,
        turn: Timestamp,
        audits: Vec<Key>,
        now: Timestamp,
    ) -> Result<(), RunError> {
        let claim = Claim { turn, at: now, version: Version::at(now), audits };
        served.claim = Some(claim.clone());
        if !self.change(schedule, served.clone()).await? {
            return Ok(());
        }
        served.claim = None;
        self.begin(schedule, runs, served, claim).await
    }

    /// Begins the run of a claim. `served` is what is known without it.
    async fn begin(
        &mut self,
        schedule: &Schedule,
        runs: &mut dyn Runs,
        mut served: Served,
        mut claim: Claim,
    ) -> Result<(), RunError> {
        // Left by one that died long ago: it is a turn that was missed.
        let is_old = claim.at < self.up_since - GRACE && !schedule.catch_up;
        while !is_old && runs.begin(schedule, &claim).await? == Beginning::VersionTaken {
            claim.version = next_version(&claim.version);
            let bumped = Served { claim: Some(claim.clone()), ..served.clone() };
            if !self.change(schedule, bumped).await? {
                return Ok(());
            }
        }
        served.claim = None;
        self.change(schedule, served).await.map(|_| ())
    }

    /// Writes down what is known; false when somebody else was first: then it is looked at again.
    async fn change(&mut self, schedule: &Schedule, served: Served) -> Result<bool, RunError> {
        let Some((_, revision)) = self.known.get(&schedule.id) else { return Ok(false) };
        match self.book.change(schedule, &served, *revision).await {
            Ok(Some(revision)) => {
                self.known.insert(schedule.id.clone(), (served, revision));
                Ok(true)
            }
            Ok(None) => {
                tracing::info!(schedule = served.schedule, "another coordinator serves the schedule");
                self.known.remove(&schedule.id);
                Ok(false)
            }
            Err(error) => {
                // It may have arrived all the same.
                self.known.remove(&schedule.id);
                Err(error.into())
            }
        }
    }
}

/// The version of the next second.
fn next_version(version: &Version) -> Version {
    let read = jiff::civil::DateTime::strptime("%Y%m%d_%H%M%S", version.as_str());
    let moment = read.and_then(|moment| moment.to_zoned(jiff::tz::TimeZone::UTC)).map(|moment| moment.timestamp());
    Version::at(moment.unwrap_or_else(|_| Timestamp::now()) + SignedDuration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proto::bus::memory::{MemoryBus, MemoryOptions};
    use proto::bus::{BusErrorKind, SharedBus};
    use proto::config::{ScheduleConfig, Timing};

    use super::*;

    /// Runs that all coordinators see, as at a broker: which turn each version is of.
    type Begun = Arc<Mutex<Vec<(Version, Timestamp)>>>;

    struct Seen {
        begun: Begun,
        running: BTreeSet<Key>,
        /// The coordinator falls asleep, or loses the broker, before it begins a run.
        sleeps: bool,
    }

    #[async_trait]
    impl Runs for Seen {
        async fn running(&self) -> Result<BTreeSet<Key>, BusError> {
            Ok(self.running.clone())
        }

        async fn begin(&mut self, _: &Schedule, claim: &Claim) -> Result<Beginning, RunError> {
            if self.sleeps {
                return Err(BusError::new(BusErrorKind::Unavailable, "asleep").into());
            }
            let mut begun = self.begun.lock().unwrap();
            match begun.iter().find(|(version, _)| *version == claim.version) {
                Some((_, turn)) if *turn == claim.turn => {}
                Some(_) => return Ok(Beginning::VersionTaken),
                None => begun.push((claim.version.clone(), claim.turn)),
            }
            Ok(Beginning::Done)
        }
    }

    struct Coordinator {
        scheduler: Scheduler,
        runs: Seen,
    }

    impl Coordinator {
        async fn serve(&mut self, now: Timestamp) -> bool {
            self.scheduler.look(now);
            self.scheduler.serve(&mut self.runs, now).await.is_ok()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    /// A minute's schedule for two audits, at a bus that coordinators share.
    fn coordinators(overlap: Overlap) -> (Begun, impl Fn(i64) -> Coordinator) {
        let bus: SharedBus = Arc::new(MemoryBus::new(MemoryOptions::default()));
        let begun = Begun::default();
        let timing = Timing::parse("every 1m").unwrap();
        let config = ScheduleConfig { timing, timezone: Some("UTC".into()), overlap, ..ScheduleConfig::default() };
        let schedule = Schedule::new(&config, vec![key("a"), key("b")]).unwrap();
        let shared = Arc::clone(&begun);
        let coordinator = move |since: i64| Coordinator {
            scheduler: Scheduler::new(vec![schedule.clone()], Arc::clone(&bus), at(since)),
            runs: Seen { begun: Arc::clone(&shared), running: BTreeSet::new(), sleeps: false },
        };
        (begun, coordinator)
    }

    fn turns(begun: &Begun) -> Vec<Timestamp> {
        begun.lock().unwrap().iter().map(|(_, turn)| *turn).collect()
    }

    #[tokio::test]
    async fn of_two_that_both_think_they_lead_one_begins_a_turn() {
        let (begun, coordinator) = coordinators(Overlap::Skip);
        let (mut one, mut other) = (coordinator(5), coordinator(5));
        // A second apart, so that they do not agree on a version by chance.
        for second in 5..250 {
            let coordinator = if second % 2 == 0 { &mut one } else { &mut other };
            assert!(coordinator.serve(at(second)).await);
        }
        assert_eq!(turns(&begun), [at(60), at(120), at(180), at(240)]);
    }

    #[tokio::test]
    async fn one_that_sleeps_over_a_claim_finds_it_begun() {
        let (begun, coordinator) = coordinators(Overlap::Skip);
        let (mut one, mut other) = (coordinator(5), coordinator(5));
        assert!(one.serve(at(10)).await && other.serve(at(10)).await);
        one.runs.sleeps = true;
        assert!(!one.serve(at(60)).await);
        assert_eq!(turns(&begun), []);
        // The next leader reads what is known, and begins what was claimed, once.
        other.scheduler.begin_term();
        assert!(other.serve(at(66)).await && other.serve(at(67)).await);
        assert_eq!(turns(&begun), [at(60)]);
        assert_eq!(begun.lock().unwrap()[0].0, Version::at(at(60)));
        one.runs.sleeps = false;
        for second in 70..130 {
            assert!(one.serve(at(second)).await && other.serve(at(second)).await);
        }
        assert_eq!(turns(&begun), [at(60), at(120)]);
    }

    #[tokio::test]
    async fn a_version_that_another_run_has_is_left_to_it() {
        let (begun, coordinator) = coordinators(Overlap::Skip);
        let mut one = coordinator(5);
        assert!(one.serve(at(5)).await);
        begun.lock().unwrap().extend([60, 61].map(|second| (Version::at(at(second)), at(0))));
        assert!(one.serve(at(60)).await);
        assert_eq!(begun.lock().unwrap()[2], (Version::at(at(62)), at(60)));
    }

    #[tokio::test]
    async fn a_turn_waits_once_and_is_not_lost_with_its_coordinator() {
        let (begun, coordinator) = coordinators(Overlap::Queue);
        let mut one = coordinator(5);
        assert!(one.serve(at(5)).await);
        one.runs.running.insert(key("a"));
        for second in [60, 61, 120, 180] {
            assert!(one.serve(at(second)).await);
        }
        assert_eq!(turns(&begun), []);
        let mut next = coordinator(185);
        assert!(next.serve(at(190)).await && next.serve(at(191)).await);
        assert_eq!(turns(&begun), [at(60)]);
        assert!(next.serve(at(240)).await);
        assert_eq!(turns(&begun), [at(60), at(240)]);
    }

    #[tokio::test]
    async fn audits_that_do_not_run_any_more_do_not_wait_for_those_that_do() {
        let (begun, coordinator) = coordinators(Overlap::Skip);
        let mut one = coordinator(5);
        assert!(one.serve(at(5)).await);
        one.runs.running.insert(key("a"));
        assert!(one.serve(at(60)).await);
        assert_eq!(turns(&begun), [at(60)]);
        one.runs.running.insert(key("b"));
        assert!(one.serve(at(120)).await && one.serve(at(121)).await);
        one.runs.running.clear();
        assert!(one.serve(at(122)).await);
        assert_eq!(turns(&begun), [at(60)]);
    }

    #[test]
    fn the_next_version_is_a_second_later() {
        let next = |text: &str| next_version(&Version::new(text).unwrap()).to_string();
        assert_eq!(next("20261231_235959"), "20270101_000000");
        assert_eq!(next("20260131_120000"), "20260131_120001");
    }
}
