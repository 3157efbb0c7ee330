//! Leads one audit's version from phase to phase. Every step can be done again: after each crash, a coordinator goes
//! on from the state at the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use proto::bus::{Bucket, BusError, BusErrorKind, ConsumerId, ConsumerSpec, ConsumerState, ReaderSpec};
use proto::checkpoint::Checkpoints;
use proto::coverage::State;
use proto::findings;
use proto::plan::{Plan, PluginSpec, Stage};
use proto::run::{AuditState, FailedPart, MAX_RUN, Phase, RunState};
use proto::service::metrics::{self, RunOutcome};
use proto::service::presence;
use proto::service::trace::{self, Span, SpanContext};
use proto::status::{DeadLetter, Status};
use proto::subject::{self, Key, Role, Stream, Version};
use proto::unit::Unit;
use sink::settings::Settings;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::parts::{self, Part};
use super::{Leader, RunError};
use crate::checkpoint;
use crate::progress::Snapshot;
use crate::summary::AuditReport;
use crate::tally::Tally;

/// How often workers are looked for and the record stream's room is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The share of the record stream, in per cent, from which a version's settled records make room.
const SHORT_OF_ROOM: u64 = 80;
/// The share from which publishers cannot go on.
const FULL: u64 = 97;
/// How long a full record stream may stand still.
const FULL_PATIENCE: Duration = Duration::from_secs(60);
/// How long what was said may take to be heard.
const HEARING: Duration = Duration::from_secs(30);
/// How many complete versions are told: more than anybody keeps.
const MOST_COMPLETE_VERSIONS: usize = 1_000;

pub(super) struct AuditRun {
    leader: Arc<Leader>,
    plan: Plan,
    tally: Arc<Mutex<Tally>>,
    changed: Arc<Notify>,
    looked: Option<Instant>,
    /// Parts that nobody can serve, since when.
    unserved: BTreeMap<Part, Instant>,
    /// The record stream is full and nothing moves, since when, at how many status messages.
    full: Option<(Instant, u64)>,
    /// The floors of parts that stand still with nothing pending, since when.
    still: BTreeMap<Part, (Instant, u64)>,
    /// Shared stores and alerts that have stored everything.
    drained: BTreeSet<(Role, Key)>,
    has_begun_roots: bool,
    /// How far it is written down that logs were read.
    written: checkpoint::Written,
}

impl AuditRun {
    pub(super) fn new(leader: Arc<Leader>, plan: Plan) -> Self {
        Self {
            leader,
            plan,
            tally: Arc::default(),
            changed: Arc::default(),
            looked: None,
            unserved: BTreeMap::new(),
            full: None,
            still: BTreeMap::new(),
            drained: BTreeSet::new(),
            has_begun_roots: false,
            written: checkpoint::Written::default(),
        }
    }

    /// Leads the audit to its end.
    pub(super) async fn lead(mut self) -> Result<AuditReport, RunError> {
        let listening = self.begin_patiently().await?;
        loop {
            let state = self.state().await;
            self.report_progress(&state);
            if listening.0.is_finished() && state.phase != Phase::Ended {
                return Err(RunError::Deaf(self.plan.version.clone()));
            }
            if state.phase == Phase::Ended {
                if let Err(error) = self.clean_up().await {
                    tracing::warn!(audit = %self.plan.audit, %error, "the broker keeps what it could forget");
                }
                let told = self.tally().ended();
                // The counts of an ended version are forgotten; its report is not.
                let started = self.leader.started().await;
                let report = match told {
                    Some(report) => report,
                    None => {
                        let started = started.map(|started| started.to_string());
                        self.report(&state).await.between(started, state.ended)
                    }
                };
                self.tell_operators(&report, started);
                return Ok(report);
            }
            let stepped = match self.step(state).await {
                Ok(stepped) => stepped,
                // An election, a restart: the broker will say later.
                Err(RunError::Bus(error)) if error.is_transient() => {
                    tracing::warn!(audit = %self.plan.audit, %error, "cannot ask the broker now");
                    false
                }
                Err(error) => return Err(error),
            };
            if !stepped {
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep(self.leader.options.poll) => {}
                }
            }
        }
    }

    /// Begins, or goes on where another coordinator stopped, trying again while the broker is away.
    async fn begin_patiently(&self) -> Result<Listening, RunError> {
        let listening = loop {
            match self.listen().await {
                Ok(listening) => break listening,
                Err(error) => self.pause_after(error).await?,
            }
        };
        loop {
            let begun = match self.state().await.phase {
                Phase::Planned if self.leader.cancelled().await.is_none() => self.prepare().await,
                _ => self.catch_up().await,
            };
            match begun {
                Ok(()) => return Ok(listening),
                Err(error) => self.pause_after(error).await?,
            }
        }
    }

    /// Waits a little when the broker may answer later; gives the error back when it is not of that kind.
    async fn pause_after(&self, error: RunError) -> Result<(), RunError> {
        match error {
            RunError::Bus(error) if error.is_transient() => {
                tracing::warn!(audit = %self.plan.audit, %error, "cannot ask the broker now");
                tokio::time::sleep(self.leader.options.poll).await;
                Ok(())
            }
            error => Err(error),
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn state(&self) -> AuditState {
        self.leader.state_of(&self.plan.audit).await
    }

    /// Folds what is said about the audit, from the beginning.
    async fn listen(&self) -> Result<Listening, RunError> {
        let bus = Arc::clone(&self.leader.bus);
        let (audit, version) = (&self.plan.audit, &self.plan.version);
        let mut status = bus.read(&ReaderSpec::status(audit, version)).await?;
        let mut dead = bus.read(&ReaderSpec::dead(audit, version)).await?;
        let (tally, changed) = (Arc::clone(&self.tally), Arc::clone(&self.changed));
        let task = tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = status.next() => message,
                    message = dead.next() => message,
                };
                let message = match message {
                    Ok(message) => message,
                    Err(error) => {
                        tracing::error!(%error, "cannot hear what is said about the run any more");
                        return;
                    }
                };
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.heard(Stream::of(&message.subject), message.seq);
                if let Some((role, plugin)) = subject::parse_dead(&message.subject) {
                    match DeadLetter::read(&message) {
                        Ok(letter) => tally.bury(role, plugin, letter),
                        Err(error) => tracing::warn!(%error, "cannot read a dead letter"),
                    }
                } else {
                    match serde_json::from_slice(&message.payload) {
                        Ok(status) => tally.add(status),
                        Err(error) => tracing::warn!(%error, subject = &*message.subject, "cannot read a status"),
                    }
                }
                changed.notify_one();
            }
        });
        Ok(Listening(task))
    }

    /// Waits until what was said before this coordinator took over has been heard.
    async fn catch_up(&self) -> Result<(), RunError> {
        self.hear_all(Stream::Status, &subject::status_of(&self.plan.audit, &self.plan.version)).await
    }

    /// Waits until all that matches a filter now has been heard.
    async fn hear_all(&self, stream: Stream, filter: &str) -> Result<(), RunError> {
        let last = self.leader.bus.last_seq(stream, filter).await?;
        let deadline = Instant::now() + HEARING;
        while self.tally().last_heard(stream) < last {
            if Instant::now() > deadline {
                let text = format!("what was said about the run on {} does not come", stream.name());
                return Err(BusError::new(BusErrorKind::Unavailable, text).into());
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), self.changed.notified()).await;
        }
        Ok(())
    }

    /// Publishes the plans and creates the consumers, all before the first unit.
    async fn prepare(&self) -> Result<(), RunError> {
        let bus = &self.leader.bus;
        let (audit, version) = (&self.plan.audit, &self.plan.version);
        for stage in [Stage::Collector, Stage::Evaluator, Stage::Sink, Stage::Alerter] {
            self.plan.publish(&**bus, stage).await?;
        }
        for spec in self.plan.of_role(Role::Cloud) {
            if let Some(pool) = &spec.pool {
                let (id, filter) = (ConsumerId::pool(pool), subject::units_of_pool(pool));
                bus.create_consumer(&self.consumer(id, filter, "pool")).await?;
            }
        }
        if self.has_evaluation() {
            let (id, filter) = (ConsumerId::evaluator(audit, version), subject::records_of(audit, version));
            bus.create_consumer(&self.consumer(id, filter, "evaluator")).await?;
        }
        for spec in self.outputs().filter(|spec| spec.exclusive) {
            bus.announce_reader(&self.reader(spec)).await?;
        }
        for spec in self.shared() {
            let filter = match spec.role {
                Role::Alert => subject::events_of(audit, version),
                _ => subject::records_of(audit, version),
            };
            let mut consumer = self.consumer(self.shared_id(spec), filter, "plugin");
            consumer.metadata.push(("role".to_owned(), spec.role.to_string()));
            consumer.metadata.push(("plugin".to_owned(), spec.key.to_string()));
            bus.create_consumer(&consumer).await?;
        }
        let clouds = self.plan.clouds.clone();
        self.say(&Status::RunBegun { at: Timestamp::now().to_string(), clouds }).await?;
        self.advance(Phase::Connecting, |_| {}).await
    }

    fn consumer(&self, id: ConsumerId, filter: String, purpose: &str) -> ConsumerSpec {
        let mut metadata = vec![("purpose".to_owned(), purpose.to_owned())];
        if id.stream != Stream::Units {
            metadata.push(("audit".to_owned(), self.plan.audit.to_string()));
            metadata.push(("version".to_owned(), self.plan.version.to_string()));
        }
        ConsumerSpec { id, filter, ack_wait: self.leader.options.ack_wait, metadata }
    }

    fn reader(&self, spec: &PluginSpec) -> ReaderSpec {
        ReaderSpec::exclusive(&self.plan.audit, &self.plan.version, spec.role, &spec.key)
    }

    fn shared_id(&self, spec: &PluginSpec) -> ConsumerId {
        ConsumerId::plugin(&self.plan.audit, &self.plan.version, spec.role, &spec.key)
    }

    /// Stores and alerts that several workers serve.
    fn shared(&self) -> impl Iterator<Item = &PluginSpec> {
        self.outputs().filter(|spec| !spec.exclusive)
    }

    /// Stores and alerts.
    fn outputs(&self) -> impl Iterator<Item = &PluginSpec> {
        self.plan.plugins.iter().filter(|spec| matches!(spec.role, Role::Store | Role::Alert))
    }

    fn has_evaluation(&self) -> bool {
        self.plan.of_role(Role::Event).next().is_some()
    }

    /// Publishes the root unit of each cloud plugin that has not begun. A root that is published twice within the
    /// broker's window is one; later, it is done twice, which changes nothing.
    async fn begin_roots(&self) -> Result<(), RunError> {
        let state = self.state().await;
        for spec in self.plan.of_role(Role::Cloud).filter(|spec| !has_failed(&state, Role::Cloud, &spec.key)) {
            let Some(pool) = spec.pool.as_ref().filter(|_| !self.tally().has_begun(&spec.key)) else { continue };
            let root = Unit::root(&self.plan.audit, &self.plan.version, &spec.key, pool);
            let checkpoints = Checkpoints::fetch(&*self.leader.bus, &self.plan.audit, &spec.key).await?;
            let root = Unit { task: checkpoints.task(), ..root };
            let mut message = root.message().map_err(BusError::json)?;
            if trace::is_on() {
                let run = SpanContext::of_run(&self.plan.audit, &self.plan.version);
                run.mark_unit(&mut message, self.plan.clouds.len());
            }
            self.leader.bus.publish(message).await?;
        }
        Ok(())
    }

    /// Ends the audit as it is: no unit of it is worked on any more, and nobody waits for anything.
    async fn cancel(&self) -> Result<bool, RunError> {
        let (audit, version) = (&self.plan.audit, &self.plan.version);
        self.leader.bus.purge(Stream::Units, &subject::units_of(audit, version), None).await?;
        self.advance(Phase::Finishing, |state| state.cancelled = true).await?;
        Ok(true)
    }

    /// Does what can be done now; true when something was.
    async fn step(&mut self, state: AuditState) -> Result<bool, RunError> {
        if state.phase < Phase::Finishing && self.leader.cancelled().await.is_some() {
            return self.cancel().await;
        }
        self.heed_failures(&state).await?;
        if self.looked.is_none_or(|looked| looked.elapsed() >= self.look_every()) {
            self.looked = Some(Instant::now());
            self.look_for_workers(&state).await?;
            self.look_at_room(&state).await?;
            self.look_at_age(&state).await?;
            self.look_at_checkpoints(&state).await?;
        }
        let state = self.state().await;
        match state.phase {
            Phase::Planned | Phase::Ended => Ok(false),
            Phase::Connecting => self.end_connecting(&state).await,
            Phase::Collecting => {
                if !self.has_begun_roots {
                    self.begin_roots().await?;
                    self.has_begun_roots = true;
                }
                self.end_collecting(&state).await
            }
            Phase::DrainingStores => self.end_evaluation(&state).await,
            Phase::DrainingAlerts => {
                self.look_at_shared(&state).await?;
                self.end_outputs(&state).await
            }
            Phase::Finishing => self.finish(&state).await,
        }
    }

    fn look_every(&self) -> Duration {
        if self.leader.options.embedded { Duration::from_millis(50) } else { LOOK_EVERY }
    }

    /// Collecting begins when every shared store can be used. One that cannot is left out, if the configuration says
    /// so; otherwise nothing is collected: what is missing is better known before hours of reading than after.
    async fn end_connecting(&self, state: &AuditState) -> Result<bool, RunError> {
        let mut needed = None;
        for spec in self.shared() {
            let failed = state.failed.iter().find(|part| part.role == spec.role && part.plugin == spec.key);
            match failed {
                Some(part) if !part.left_out => needed = Some((spec, part.reason.clone())),
                Some(_) => {}
                None if self.tally().has_connected(spec.role, &spec.key) => {}
                None => return Ok(false),
            }
        }
        if let Some((spec, _)) = needed {
            let reason = format!(
                "nothing was collected, as the {} {} cannot be used; `optional: true` among its parameters lets a run \
                 go on without it",
                spec.role, spec.key
            );
            for part in parts::of(&self.plan) {
                if !self.is_done(state, &part) {
                    self.fail(&part, &reason).await?;
                }
            }
        }
        self.advance(Phase::Collecting, |_| {}).await?;
        Ok(true)
    }

    /// Whether the configuration lets the run go on without a part that cannot be used at the beginning.
    fn is_optional(&self, part: &Part) -> bool {
        let Part::Plugin(role @ (Role::Store | Role::Alert), key) = part else { return false };
        self.shared()
            .filter(|spec| spec.role == *role && spec.key == *key)
            .any(|spec| Settings::read(&spec.params).is_ok_and(|settings| settings.optional))
    }

    /// Collecting has ended when every root and every announced unit has an end and none is left in the queue.
    async fn end_collecting(&self, state: &AuditState) -> Result<bool, RunError> {
        let collected = {
            let tally = self.tally();
            let mut clouds = self.plan.of_role(Role::Cloud);
            clouds.all(|spec| has_failed(state, Role::Cloud, &spec.key) || tally.has_collected(&spec.key))
        };
        let (audit, version) = (&self.plan.audit, &self.plan.version);
        if !collected || self.leader.bus.count(Stream::Units, &subject::units_of(audit, version)).await? > 0 {
            return Ok(false);
        }
        let last = self.leader.bus.last_seq(Stream::Records, &subject::records_of(audit, version)).await?;
        let end = last.max(self.tally().last_seq());
        self.advance(Phase::DrainingStores, |state| state.records_end = Some(end)).await?;
        Ok(true)
    }

    /// When the evaluator has settled every record, the events are complete: each was stored before its record was
    /// acknowledged.
    async fn end_evaluation(&mut self, state: &AuditState) -> Result<bool, RunError> {
        if !self.is_evaluated(state).await? {
            return Ok(false);
        }
        let filter = subject::events_of(&self.plan.audit, &self.plan.version);
        let end = self.leader.bus.last_seq(Stream::Events, &filter).await?;
        // On a bus that keeps what was read, this is what every alert must have read.
        let events = if self.leader.bus.can_replay() {
            Some(self.leader.bus.count(Stream::Events, &filter).await?)
        } else {
            None
        };
        // Alerts say what was not read: dead letters are part of that.
        self.hear_all(Stream::Dead, &subject::dead_of(&self.plan.audit, &self.plan.version)).await?;
        let stopped = self.leader.is_stopping().await;
        let (gaps, unclear) = self.report(state).await.so_far(&self.tally(), stopped);
        self.advance(Phase::DrainingAlerts, |state| {
            (state.events_end, state.events) = (Some(end), events);
            (state.gaps, state.unclear) = (gaps, unclear);
        })
        .await?;
        Ok(true)
    }

    async fn is_evaluated(&mut self, state: &AuditState) -> Result<bool, RunError> {
        let failed = self.plan.of_role(Role::Event).any(|spec| has_failed(state, Role::Event, &spec.key));
        if failed || !self.has_evaluation() {
            return Ok(true);
        }
        let Some(end) = state.records_end else { return Ok(false) };
        if end == 0 {
            return Ok(true);
        }
        let id = ConsumerId::evaluator(&self.plan.audit, &self.plan.version);
        let consumer = self.leader.bus.consumer_state(&id).await?;
        let (settled, announced) = {
            let tally = self.tally();
            (tally.settled(), tally.frames())
        };
        if consumer.ack_floor >= end && settled >= announced {
            return Ok(true);
        }
        self.watch_gap(Part::Evaluation, consumer, settled, announced).await?;
        Ok(false)
    }

    /// A floor that stands still while nothing is pending means that frames are gone: nobody will settle them.
    async fn watch_gap(
        &mut self,
        part: Part,
        consumer: ConsumerState,
        settled: u64,
        announced: u64,
    ) -> Result<(), RunError> {
        if consumer.pending > 0 || consumer.ack_pending > 0 {
            self.still.remove(&part);
            return Ok(());
        }
        let at = settled + consumer.ack_floor;
        match self.still.get(&part) {
            Some((since, then)) if *then == at => {
                if since.elapsed() > self.leader.options.ack_wait * 2 {
                    let (what, done) = match part {
                        Part::Plugin(Role::Alert, _) => ("events", "stored"),
                        Part::Plugin(..) => ("frames", "stored"),
                        Part::Evaluation => ("frames", "evaluated"),
                    };
                    let reason = format!(
                        "{what} are missing: {settled} of {announced} were {done}, and none is left in the stream"
                    );
                    self.fail(&part, &reason).await?;
                }
            }
            _ => {
                self.still.insert(part, (Instant::now(), at));
            }
        }
        Ok(())
    }

    /// Notes which shared stores and alerts have stored everything.
    async fn look_at_shared(&mut self, state: &AuditState) -> Result<(), RunError> {
        let waited: Vec<(ConsumerId, Role, Key)> = self
            .shared()
            .filter(|spec| !has_failed(state, spec.role, &spec.key))
            .filter(|spec| !self.drained.contains(&(spec.role, spec.key.clone())))
            .map(|spec| (self.shared_id(spec), spec.role, spec.key.clone()))
            .collect();
        for (id, role, key) in waited {
            let (end, announced) = match role {
                Role::Alert => (state.events_end, state.events),
                _ => (state.records_end, Some(self.tally().frames())),
            };
            let Some(end) = end else { continue };
            let settled = self.tally().settled_by(role, &key);
            if end > 0 {
                let consumer = self.leader.bus.consumer_state(&id).await?;
                let announced = announced.unwrap_or(0);
                if consumer.ack_floor < end || settled < announced {
                    self.watch_gap(Part::Plugin(role, key), consumer, settled, announced).await?;
                    continue;
                }
            }
            self.drained.insert((role, key));
        }
        Ok(())
    }

    async fn end_outputs(&self, state: &AuditState) -> Result<bool, RunError> {
        let done = {
            let tally = self.tally();
            self.outputs().all(|spec| {
                let end = if spec.role == Role::Alert { state.events_end } else { state.records_end };
                has_failed(state, spec.role, &spec.key)
                    || self.drained.contains(&(spec.role, spec.key.clone()))
                    || tally.delivered(spec.role, &spec.key).is_some_and(|done| Some(done.end) >= end)
            })
        };
        if done {
            self.advance(Phase::Finishing, |_| {}).await?;
        }
        Ok(done)
    }

    /// Writes down how far logs were read, as soon as all stores have what was read: a run that ends before its end
    /// need not begin again. What an exclusive plugin has is known at the end only.
    async fn look_at_checkpoints(&mut self, state: &AuditState) -> Result<(), RunError> {
        let has_failed = state.failed.iter().any(|part| matches!(part.role, Role::Store | Role::Event));
        let is_open = matches!(state.phase, Phase::Collecting | Phase::DrainingStores);
        if has_failed || !is_open || self.plan.of_role(Role::Store).any(|spec| spec.exclusive) {
            return Ok(());
        }
        let (said, last_seq) = {
            let tally = self.tally();
            (tally.said().clone(), tally.last_seq())
        };
        let Some(awaited) = self.written.awaits(&said, last_seq) else { return Ok(()) };
        let stores = self.plan.of_role(Role::Store).map(|spec| self.shared_id(spec));
        let evaluator = ConsumerId::evaluator(&self.plan.audit, &self.plan.version);
        for id in stores.chain(self.has_evaluation().then_some(evaluator)).collect::<Vec<_>>() {
            if self.leader.bus.consumer_state(&id).await?.ack_floor < awaited {
                return Ok(());
            }
        }
        if !self.leader.bus.can_replay() && !self.would_survive().await? {
            return Ok(());
        }
        Ok(self.written.settled(&*self.leader.bus, &self.plan).await?)
    }

    /// Whether nothing of what was read is in this process alone, on a bus that ends with it: no event that an alert
    /// has still to get, and no dead letter. The next run must find them again.
    async fn would_survive(&self) -> Result<bool, RunError> {
        let (audit, version) = (&self.plan.audit, &self.plan.version);
        let bus = &*self.leader.bus;
        self.hear_all(Stream::Dead, &subject::dead_of(audit, version)).await?;
        if checkpoint::has_lost(self.tally().dead()) {
            return Ok(false);
        }
        if self.plan.of_role(Role::Alert).next().is_none() {
            return Ok(true);
        }
        let end = bus.last_seq(Stream::Events, &subject::events_of(audit, version)).await?;
        for spec in self.plan.of_role(Role::Alert).filter(|_| end > 0) {
            if spec.exclusive || bus.consumer_state(&self.shared_id(spec)).await?.ack_floor < end {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says how the run ended.
    async fn finish(&self, state: &AuditState) -> Result<bool, RunError> {
        self.catch_up().await?;
        self.hear_all(Stream::Dead, &subject::dead_of(&self.plan.audit, &self.plan.version)).await?;
        let at = Timestamp::now().to_string();
        let started = self.leader.started().await.map(|started| started.to_string());
        let report = self.report(state).await.between(started, Some(at.clone()));
        for (id, status) in report.statuses(at.clone()).map_err(BusError::json)? {
            let message = status.message(&self.plan.audit, &self.plan.version).map_err(BusError::json)?.with_id(id);
            self.leader.bus.publish(message).await?;
        }
        let complete = report.is_complete();
        let (said, dead) = {
            let tally = self.tally();
            (tally.said().clone(), tally.dead().clone())
        };
        checkpoint::end(&*self.leader.bus, &self.plan, state, &dead, &said).await?;
        let complete_versions = if complete { self.complete_versions().await? } else { Vec::new() };
        if complete
            && let Err(error) = findings::complete(&*self.leader.bus, &self.plan.audit, &self.plan.version).await
        {
            if error.is_transient() {
                return Err(error.into());
            }
            tracing::error!(audit = %self.plan.audit, %error, "what is new in the next version will not be known");
        }
        let end = |state: &mut AuditState| {
            state.complete = Some(complete);
            state.ended = Some(at);
            state.complete_versions = complete_versions;
        };
        self.advance(Phase::Ended, end).await?;
        Ok(true)
    }

    /// The newest versions of the audit that ended complete, this one first: stores that keep a number of versions go
    /// by it. As many as they count: the states of all runs of 90 days are listed again and again, and stay small.
    async fn complete_versions(&self) -> Result<Vec<Version>, RunError> {
        let (audit, version) = (&self.plan.audit, &self.plan.version);
        let most = most_kept(&self.plan);
        if most <= 1 {
            return Ok(vec![version.clone()]);
        }
        let entries = self.leader.bus.kv_entries(Bucket::Runs, "").await?;
        let runs = entries.iter().filter_map(|entry| serde_json::from_slice::<RunState>(&entry.value).ok());
        let is_complete = |run: &RunState| run.audits.get(audit).is_some_and(|state| state.complete == Some(true));
        let mut versions: Vec<Version> = runs.filter(is_complete).map(|run| run.version).collect();
        // A later one that has ended before this one decides what stays: this one tells of itself and older ones.
        versions.retain(|other| other < version);
        versions.push(version.clone());
        versions.sort_unstable_by(|one, other| other.cmp(one));
        versions.truncate(most);
        Ok(versions)
    }

    /// Removes what nobody needs any more.
    async fn clean_up(&self) -> Result<(), RunError> {
        let (bus, audit, version) = (&self.leader.bus, &self.plan.audit, &self.plan.version);
        bus.delete_consumer(&ConsumerId::evaluator(audit, version)).await?;
        for spec in self.outputs().filter(|spec| spec.exclusive) {
            bus.retire_reader(&self.reader(spec)).await?;
        }
        for spec in self.shared() {
            bus.delete_consumer(&self.shared_id(spec)).await?;
        }
        bus.purge(Stream::Records, &subject::records_of(audit, version), None).await?;
        bus.purge(Stream::Units, &subject::units_of(audit, version), None).await?;
        bus.purge(Stream::Status, &subject::status(audit, version, "counts"), None).await?;
        findings::forget(&**bus, audit, version).await?;
        for stage in [Stage::Collector, Stage::Evaluator, Stage::Sink, Stage::Alerter] {
            Plan::remove(&**bus, audit, version, stage).await?;
        }
        Ok(())
    }

    /// Plugins that said that they failed are waited for no longer.
    async fn heed_failures(&self, state: &AuditState) -> Result<(), RunError> {
        let failed: Vec<_> = self.tally().failed().cloned().collect();
        for failed in failed {
            if !has_failed(state, failed.role, &failed.plugin) {
                let part = match failed.role {
                    Role::Event => Part::Evaluation,
                    role => Part::Plugin(role, failed.plugin.clone()),
                };
                self.fail(&part, &failed.reason).await?;
            }
        }
        Ok(())
    }

    /// Shows at once which parts nobody can serve, and fails them when that lasts.
    async fn look_for_workers(&mut self, state: &AuditState) -> Result<(), RunError> {
        let workers = match presence::alive(&self.leader.bus).await {
            Ok(workers) => workers,
            Err(error) => {
                // While the broker is away nobody can say that he is there.
                self.unserved.clear();
                return Err(error.into());
            }
        };
        let mut unserved = parts::unserved(&self.plan, &workers);
        unserved.retain(|part, _| !self.is_done(state, part));
        self.unserved.retain(|part, _| unserved.contains_key(part));
        for (part, why) in unserved {
            let since = *self.unserved.entry(part.clone()).or_insert_with(|| {
                if !self.leader.options.embedded {
                    self.leader.progress.say(&self.plan.audit, &format!("waiting: {}", why.reason));
                }
                Instant::now()
            });
            // All that there are cannot: before anything is collected, that is reason enough to stop.
            let is_store = matches!(part, Part::Plugin(Role::Store | Role::Alert, _));
            let is_first = state.phase == Phase::Connecting && is_store && !self.is_exclusive(&part);
            let hopeless = why.refused && (self.leader.options.embedded || is_first);
            if hopeless || since.elapsed() >= self.leader.options.wait_workers {
                self.fail(&part, &why.reason).await?;
            }
        }
        Ok(())
    }

    fn is_done(&self, state: &AuditState, part: &Part) -> bool {
        let tally = self.tally();
        match part {
            Part::Plugin(Role::Cloud, key) => {
                state.phase > Phase::Collecting || has_failed(state, Role::Cloud, key) || tally.has_collected(key)
            }
            Part::Plugin(role, key) => {
                has_failed(state, *role, key)
                    || tally.delivered(*role, key).is_some()
                    || self.drained.contains(&(*role, key.clone()))
            }
            Part::Evaluation => {
                state.phase > Phase::DrainingStores
                    || self.plan.of_role(Role::Event).any(|spec| has_failed(state, Role::Event, &spec.key))
            }
        }
    }

    /// Makes room in the record stream, or fails the audit by name when there is none to make.
    async fn look_at_room(&mut self, state: &AuditState) -> Result<(), RunError> {
        let usage = self.leader.bus.usage(Stream::Records).await?;
        let Some(max) = usage.max_bytes.filter(|max| *max > 0) else { return Ok(()) };
        let share = usage.bytes.saturating_mul(100) / max;
        if share >= SHORT_OF_ROOM {
            self.make_room(state).await?;
        }
        let moved = self.tally().messages;
        match self.full {
            _ if share < FULL || state.phase != Phase::Collecting => self.full = None,
            Some((since, then)) if then == moved => {
                if since.elapsed() > FULL_PATIENCE {
                    let reason = format!(
                        "the record stream is full: it holds {} of {max} bytes and nothing can be removed; \
                         raise `nats.records_max_bytes` to at least {} and run again",
                        usage.bytes,
                        max.saturating_mul(2)
                    );
                    for spec in self.plan.of_role(Role::Cloud) {
                        self.fail(&Part::Plugin(Role::Cloud, spec.key.clone()), &reason).await?;
                    }
                }
            }
            _ => self.full = Some((Instant::now(), moved)),
        }
        Ok(())
    }

    async fn look_at_age(&self, state: &AuditState) -> Result<(), RunError> {
        let Some(started) = self.leader.started().await else { return Ok(()) };
        let age = Timestamp::now().duration_since(started);
        if age.as_secs() < 0 || age.unsigned_abs() < MAX_RUN || state.phase >= Phase::Finishing {
            return Ok(());
        }
        for part in parts::of(&self.plan) {
            if !self.is_done(state, &part) {
                self.fail(&part, "the run is so old that its records would soon age out; run again").await?;
            }
        }
        Ok(())
    }

    /// Removes what all consumers have settled, if nobody needs to read it again.
    async fn make_room(&self, state: &AuditState) -> Result<(), RunError> {
        let stores = || self.plan.of_role(Role::Store).filter(|spec| !has_failed(state, Role::Store, &spec.key));
        if stores().any(|spec| spec.exclusive) {
            return Ok(());
        }
        let (audit, version) = (&self.plan.audit, &self.plan.version);
        let mut consumers: Vec<ConsumerId> = stores().map(|spec| self.shared_id(spec)).collect();
        if self.has_evaluation()
            && !self.plan.of_role(Role::Event).any(|spec| has_failed(state, Role::Event, &spec.key))
        {
            consumers.push(ConsumerId::evaluator(audit, version));
        }
        let mut floor: Option<u64> = None;
        for id in consumers {
            let there = self.leader.bus.consumer_state(&id).await?.ack_floor;
            floor = Some(floor.map_or(there, |floor| floor.min(there)));
        }
        let Some(floor) = floor else { return Ok(()) };
        let filter = subject::records_of(audit, version);
        Ok(self.leader.bus.purge(Stream::Records, &filter, Some(floor)).await?)
    }

    /// Ends a part as failed: nobody waits for it any more.
    async fn fail(&self, part: &Part, reason: &str) -> Result<(), RunError> {
        let audit = &self.plan.audit;
        let plugins: Vec<(Role, Key)> = match part {
            Part::Plugin(role, key) => vec![(*role, key.clone())],
            Part::Evaluation => self.plan.of_role(Role::Event).map(|spec| (Role::Event, spec.key.clone())).collect(),
        };
        for (role, plugin) in plugins {
            self.leader.progress.say(audit, &format!("{role} {plugin} failed: {reason}"));
            let left_out = self.state().await.phase == Phase::Connecting && self.is_optional(part);
            let failed = FailedPart { role, plugin: plugin.clone(), reason: reason.to_owned(), left_out };
            self.change(|state| {
                if !has_failed(state, role, &plugin) {
                    state.failed.push(failed);
                }
            })
            .await?;
            self.forget(role, &plugin).await?;
        }
        Ok(())
    }

    /// What was kept for a part that ended as failed is kept no longer: it would fill the bus and hold up the others.
    async fn forget(&self, role: Role, plugin: &Key) -> Result<(), RunError> {
        let (bus, audit, version) = (&self.leader.bus, &self.plan.audit, &self.plan.version);
        match role {
            Role::Cloud => {
                let filter = subject::units_of_plugin(audit, version, plugin);
                bus.purge(Stream::Units, &filter, None).await?;
            }
            Role::Event => bus.delete_consumer(&ConsumerId::evaluator(audit, version)).await?,
            Role::Store | Role::Alert if !self.is_exclusive(&Part::Plugin(role, plugin.clone())) => {
                bus.delete_consumer(&ConsumerId::plugin(audit, version, role, plugin)).await?;
            }
            Role::Store | Role::Alert => {
                bus.retire_reader(&ReaderSpec::exclusive(audit, version, role, plugin)).await?;
            }
        }
        Ok(())
    }

    /// Whether a part is one that one worker serves.
    fn is_exclusive(&self, part: &Part) -> bool {
        let Part::Plugin(role, key) = part else { return false };
        self.plan.plugins.iter().any(|spec| spec.role == *role && spec.key == *key && spec.exclusive)
    }

    async fn advance(&self, phase: Phase, change: impl FnOnce(&mut AuditState)) -> Result<(), RunError> {
        self.change(|state| {
            state.phase = phase;
            change(state);
        })
        .await
    }

    async fn change(&self, change: impl FnOnce(&mut AuditState)) -> Result<(), RunError> {
        let audit = self.plan.audit.clone();
        self.leader.update(|run| change(run.audits.entry(audit).or_default())).await
    }

    async fn say(&self, status: &Status) -> Result<(), RunError> {
        let (audit, version) = (&self.plan.audit, &self.plan.version);
        let id = format!("{}:{audit}:{version}", status.kind());
        let message = status.message(audit, version).map_err(BusError::json)?.with_id(id);
        self.leader.bus.publish(message).await?;
        Ok(())
    }

    fn report_progress(&self, state: &AuditState) {
        let tally = self.tally();
        let (ended, awaited) = tally.units();
        if state.phase != Phase::Ended {
            metrics::run_progress(&self.plan.audit, ended, awaited);
        }
        self.leader.progress.update(
            &self.plan.audit,
            Snapshot {
                phase: state.phase,
                units_done: ended,
                units_left: awaited,
                records: tally.records(),
                events: tally.events(),
                documents: self.shared().next().map(|_| tally.documents()),
            },
        );
    }

    /// Tells those who operate this coordinator that the run is over.
    fn tell_operators(&self, report: &AuditReport, started: Option<Timestamp>) {
        let took = started.and_then(|started| Duration::try_from(Timestamp::now() - started).ok());
        let took = took.unwrap_or_default();
        let complete = report.is_complete();
        let coverage = report.clouds.iter().flat_map(|cloud| &cloud.coverage);
        let gaps = coverage.filter(|coverage| coverage.state != State::Complete).count() as u64;
        metrics::run_ended(&self.plan.audit, &RunOutcome { complete, took, gaps });
        let mut span = Span::of_run(&self.plan.audit, &self.plan.version, took);
        span.set("cloudmarker.coverage_gaps", gaps);
        if !complete {
            span.fail("the run is incomplete");
        }
    }

    async fn report(&self, state: &AuditState) -> AuditReport {
        let stopped = self.leader.is_stopping().await;
        let cancelled = self.leader.cancelled().await.filter(|_| state.cancelled);
        AuditReport::new(&self.plan, state, &self.tally(), stopped).cancelled_by(cancelled)
    }
}

/// How many complete versions a store of the plan keeps at most; 1 when none counts them.
fn most_kept(plan: &Plan) -> usize {
    let outputs = plan.plugins.iter().filter(|spec| matches!(spec.role, Role::Store | Role::Alert) && !spec.exclusive);
    let kept = outputs.map(|spec| match Settings::read(&spec.params) {
        Ok(settings) => settings.keep_versions.map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX)),
        // Only its worker can read it.
        Err(_) => MOST_COMPLETE_VERSIONS,
    });
    kept.max().unwrap_or(1).min(MOST_COMPLETE_VERSIONS)
}

fn has_failed(state: &AuditState, role: Role, plugin: &Key) -> bool {
    state.failed.iter().any(|part| part.role == role && part.plugin == *plugin)
}

/// Listens until it is dropped.
struct Listening(tokio::task::JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}
