//! Takes units of its pools, has them worked on, and says what became of them.
//!
//! A unit is acknowledged after its records, the units that follow from it and its end are stored; on any failure
//! before that it is given back, and doing it again changes nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::bus::{Bucket, BusError, BusErrorKind, ConsumerId, Delivery, PullLimits, SharedBus};
use proto::catalogue::in_one_line;
use proto::coverage::{Coverage, State};
use proto::identity::Id;
use proto::run::Phase;
use proto::service::Worker;
use proto::service::metrics;
use proto::service::presence::Cannot;
use proto::service::trace::{self, Span};
use proto::service::versions::{OpenAudit, Versions};
use proto::status::{self, DeadLetter, Status};
use proto::subject::{self, Key, Role, Version};
use proto::unit::{Throttle, Unit, UnitEnd};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cloud::{Cloud, Done, WorkError};
use crate::emit::{Emitted, Emitter};
use crate::http::Limits;
use crate::registry::{self, Context};

/// How often a delivery that is being worked on says so.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How many deliveries may end with their worker.
const MAX_LOST_DELIVERIES: u64 = 20;
/// How often a list is begun again because a page token was refused.
const MAX_RESTARTS: u32 = 3;
/// How long pulling pauses after its first failure, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// A wait is cut into pieces, so that a stopped run does not wait for its end.
const WAIT_SLICE_MS: u64 = 5_000;
/// How long a unit waits at a time because another of its scope was throttled.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long a unit waits whose records could not be published.
const BUS_PAUSE: Duration = Duration::from_secs(5);
/// How long a worker waits after it could not say what became of a unit.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// What a unit that makes one call at a time is to the worker's load, of which there is so much for each call at once.
/// One that makes more is less for each: its calls need not all be in flight all the time.
const LOAD: usize = 3;
/// What each call of a unit that makes many at once is to the load: half as many again are under way as can be.
const LOAD_OF_MANY: usize = 2;
/// How long a stopping worker lets units finish.
const DRAIN: Duration = Duration::from_secs(20);

/// Serves pools until the worker is to stop.
pub async fn run(worker: Worker, pools: Vec<Key>) {
    let (versions, _opened) = Versions::follow(Arc::clone(&worker.bus), worker.stage, worker.shutdown.clone());
    let concurrency = worker.concurrency.max(1);
    let context = Context { limits: Limits::new(concurrency) };
    let collector = Arc::new(Collector { worker, versions, context, clouds: Mutex::default() });
    let mut serving = JoinSet::new();
    for pool in pools {
        // Each pool has its own: one that nobody uses must not hold what another needs.
        let load = Arc::new(Semaphore::new(concurrency.saturating_mul(LOAD).min(Semaphore::MAX_PERMITS)));
        serving.spawn(serve_pool(Arc::clone(&collector), pool, load));
    }
    while serving.join_next().await.is_some() {}
}

async fn serve_pool(collector: Arc<Collector>, pool: Key, permits: Arc<Semaphore>) {
    let shutdown = collector.worker.shutdown.clone();
    let mut units = JoinSet::new();
    let mut pause = FIRST_PAUSE;
    while !shutdown.is_cancelled() {
        let began = Instant::now();
        tokio::select! {
            () = shutdown.cancelled() => {}
            error = collector.pull(&pool, &permits, &mut units) => {
                if error.kind() == BusErrorKind::NotFound {
                    tracing::debug!(%pool, "no run has used this pool yet");
                } else {
                    tracing::warn!(%pool, %error, "cannot pull units now");
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = if began.elapsed() > LAST_PAUSE * 2 { FIRST_PAUSE } else { (pause * 2).min(LAST_PAUSE) };
    }
    let drained = async { while units.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(%pool, "units that are not done are given back");
    }
}

/// Audit, version, plugin.
type CloudKey = (Key, Version, Key);

struct Collector {
    worker: Worker,
    versions: Versions,
    context: Context,
    clouds: Mutex<HashMap<CloudKey, Arc<dyn Cloud>>>,
}

/// What has become of a unit, in a word; nothing when it waits.
type Outcome = Option<&'static str>;

/// Why a unit is replaced by one that is done later.
fn why_replaced(unit: &Unit, successor: &Unit) -> &'static str {
    match (successor.waited_ms > unit.waited_ms, successor.failing_ms > unit.failing_ms) {
        (true, _) => "throttled",
        (_, true) => "failing",
        _ => "put_off",
    }
}

/// What becomes of a unit that was not done.
enum Fate {
    Replace { successor: Box<Unit> },
    Restart { first: Box<Unit> },
    End(Coverage),
}

impl Collector {
    /// Pulls and spawns until pulling fails.
    async fn pull(self: &Arc<Self>, pool: &Key, permits: &Arc<Semaphore>, units: &mut JoinSet<()>) -> BusError {
        // A unit that waits in a buffer is one that no other collector takes: hold few.
        let limits = PullLimits { messages: 4, ..PullLimits::default() };
        let mut puller = match self.worker.bus.pull(&ConsumerId::pool(pool), limits).await {
            Ok(puller) => puller,
            Err(error) => return error,
        };
        loop {
            let closed = || BusError::new(BusErrorKind::Unsupported, "the worker is closed");
            let least = u32::try_from(LOAD).unwrap_or(1);
            let Ok(mut permit) = Arc::clone(permits).acquire_many_owned(least).await else { return closed() };
            let delivery = match puller.next().await {
                Ok(delivery) => delivery,
                Err(error) => return error,
            };
            let more = self.load_of(&delivery).saturating_sub(least);
            if more > 0 {
                let rest = Arc::clone(permits).acquire_many_owned(more);
                match delivery.while_working(PROGRESS_EVERY, rest).await {
                    Ok(rest) => permit.merge(rest),
                    Err(_) => return closed(),
                }
            }
            while units.try_join_next().is_some() {}
            let collector = Arc::clone(self);
            units.spawn(async move {
                collector.take(delivery).await;
                drop(permit);
            });
        }
    }

    /// What a unit is to the worker's load.
    fn load_of(&self, delivery: &Delivery) -> u32 {
        #[derive(serde::Deserialize)]
        struct Calls {
            #[serde(default)]
            calls: u32,
        }
        let calls = serde_json::from_slice::<Calls>(&delivery.message.payload).map_or(0, |unit| unit.calls);
        let most = self.worker.concurrency.saturating_mul(LOAD);
        u32::try_from((calls as usize * LOAD_OF_MANY).clamp(LOAD, most.max(LOAD))).unwrap_or(1)
    }

    async fn take(&self, delivery: Delivery) {
        let _in_work = self.worker.presence.begin_work();
        let result = match serde_json::from_slice::<Unit>(&delivery.message.payload) {
            Ok(unit) => {
                let span = tracing::info_span!("unit", audit = %unit.audit, version = %unit.version,
                    plugin = %unit.plugin, unit = unit.id);
                tracing::Instrument::instrument(self.serve_traced(delivery, &unit), span).await
            }
            Err(error) => self.bury(delivery, format!("not a unit that this program understands: {error}")).await,
        };
        if let Err(error) = result {
            tracing::warn!(%error, "a unit comes again");
            // It may be this worker that takes it again: not at once.
            tokio::time::sleep(FAILED_PAUSE).await;
        }
    }

    /// Does one unit, and tells those who operate the worker of it. An error means that it comes again.
    async fn serve_traced(&self, delivery: Delivery, unit: &Unit) -> Result<(), BusError> {
        let mut span = Span::of_unit(&delivery.message, unit);
        let began = Instant::now();
        let served = span.around(self.serve(delivery, unit)).await;
        match &served {
            Ok(Some(outcome)) => {
                span.set("cloudmarker.outcome", *outcome);
                metrics::unit(&unit.audit, &unit.plugin, outcome, began.elapsed());
            }
            // It waits, or nobody waits for it.
            Ok(None) => span.discard(),
            Err(error) => span.fail(&error.to_string()),
        }
        served.map(|_| ())
    }

    /// Does one unit.
    async fn serve(&self, delivery: Delivery, unit: &Unit) -> Result<Outcome, BusError> {
        let open = match self.versions.get(&unit.audit, &unit.version).await {
            Err(error) if error.kind() == BusErrorKind::Corrupt => {
                let reason = format!("this collector cannot read the plan: {error}");
                return self.settle(delivery, unit, Fate::End(not_read(unit, State::Failed, &reason))).await;
            }
            open => open?,
        };
        let Some(open) = open else {
            tracing::debug!("the version is not open: the unit is dropped");
            return delivery.ack().await.map(|()| None);
        };
        if open.view.borrow().stopping {
            let coverage = vec![not_read(unit, State::Skipped, "stopped by an operator")];
            return self.end(delivery, unit, &Emitted::default(), Done { coverage, ..Done::default() }).await;
        }
        if let Some(rest) = rest_of_wait(unit, delivery.deliveries) {
            return delivery.give_back(rest).await.map(|()| None);
        }
        if delivery.deliveries.saturating_sub(slices(unit) + 1) > MAX_LOST_DELIVERIES {
            return self.give_up(delivery, unit).await;
        }
        if !unit.relayed.is_empty() {
            let done = Done { children: unit.relayed.clone(), ..Done::default() };
            return self.end(delivery, unit, &Emitted::default(), done).await;
        }
        self.work(delivery, unit, &open).await
    }

    async fn work(&self, delivery: Delivery, unit: &Unit, open: &OpenAudit) -> Result<Outcome, BusError> {
        let Some(spec) = open.plan.plugins.iter().find(|spec| spec.key == unit.plugin) else {
            let coverage = not_read(unit, State::Failed, "the plan has no such plugin");
            return self.settle(delivery, unit, Fate::End(coverage)).await;
        };
        let cloud = match self.cloud(unit, spec) {
            Ok(cloud) => cloud,
            Err(reason) => return self.leave_to_others(delivery, unit, open, reason).await,
        };
        let patience = cloud.patience();
        if let Some(wait) = self.pause(unit).await? {
            // How much of the pause is left is not known: it is looked at again before long.
            let wait = wait.min(LOOK_AGAIN) + jitter(unit, LOOK_AGAIN / 4);
            return self.settle(delivery, unit, Fate::Replace { successor: Box::new(unit.put_off(wait)) }).await;
        }
        let mut emitter = Emitter::new(Arc::clone(&self.worker.bus), unit, spec);
        let worked = async {
            let done = cloud.work(unit, &mut emitter).await?;
            Ok::<_, WorkError>((done, emitter.finish().await?))
        };
        let mut view = open.view.clone();
        let ended = async { drop(view.wait_for(|view| view.state.phase == Phase::Ended).await) };
        let worked = tokio::select! {
            worked = delivery.while_working(PROGRESS_EVERY, worked) => worked,
            // Cancelled: whatever comes of the unit, nobody waits for it.
            () = ended => {
                tracing::debug!("the version has ended: the unit is dropped");
                return delivery.ack().await.map(|()| None);
            }
        };
        match worked {
            Ok((mut done, emitted)) => {
                done.coverage.extend(too_large(unit, &emitted));
                if let Some(pause) = &done.pause {
                    tracing::info!(reason = pause.reason, wait = ?pause.wait, "throttled, with a part done");
                    self.remember_pause(unit, pause.wait).await;
                }
                self.end(delivery, unit, &emitted, done).await
            }
            Err(error) => match self.fate(unit, error, patience).await {
                Fate::End(coverage) => self.end_unread(delivery, unit, cloud.unread(unit, coverage)).await,
                fate => self.settle(delivery, unit, fate).await,
            },
        }
    }

    /// This worker cannot build the plugin (it lacks its secret, say): another one may. Whether there is one, the
    /// coordinator knows, long before the unit has come too often.
    async fn leave_to_others(
        &self,
        delivery: Delivery,
        unit: &Unit,
        open: &OpenAudit,
        reason: String,
    ) -> Result<Outcome, BusError> {
        tracing::warn!(reason, "this worker cannot serve the plugin");
        let cannot = Cannot {
            audit: unit.audit.clone(),
            version: unit.version.clone(),
            role: Role::Cloud,
            plugin: unit.plugin.clone(),
            reason,
        };
        let (presence, mut view) = (self.worker.presence.clone(), open.view.clone());
        presence.add_cannot(cannot.clone()).await;
        tokio::spawn(async move {
            // An error means that nobody follows the version any more.
            let _ = view.wait_for(|view| view.state.phase == Phase::Ended).await;
            presence.remove_cannot(&cannot).await;
        });
        let pause = Duration::from_secs(1 << (delivery.deliveries - 1).min(5));
        delivery.give_back(pause).await.map(|()| None)
    }

    fn cloud(&self, unit: &Unit, spec: &proto::plan::PluginSpec) -> Result<Arc<dyn Cloud>, String> {
        let mut clouds = self.clouds.lock().unwrap_or_else(PoisonError::into_inner);
        // Versions grow: what is of an older version of the same plugin has nothing left to do for long.
        let key = (unit.audit.clone(), unit.version.clone(), unit.plugin.clone());
        if let Some(cloud) = clouds.get(&key) {
            return Ok(Arc::clone(cloud));
        }
        let params = self.worker.expander.expand(&spec.params).map_err(|errors| in_one_line(&errors))?;
        let cloud = registry::build(spec, &params, &self.context)?;
        clouds.retain(|(audit, _, plugin), _| (audit, plugin) != (&unit.audit, &unit.plugin));
        clouds.insert(key, Arc::clone(&cloud));
        Ok(cloud)
    }

    /// What becomes of a unit after an error.
    async fn fate(&self, unit: &Unit, error: WorkError, patience: Duration) -> Fate {
        match error {
            WorkError::Throttled { wait, reason } => {
                tracing::info!(reason, ?wait, "throttled");
                self.remember_pause(unit, wait).await;
                throttled(unit, wait, patience, &reason)
            }
            WorkError::Transient { reason } => {
                tracing::info!(reason, attempt = unit.attempt, "tried again later");
                failing(unit, back_off(unit), patience, &reason)
            }
            WorkError::PageRefused { mut first, reason } => {
                first.restart = unit.restart + 1;
                if first.restart > MAX_RESTARTS {
                    let reason = format!("the page token was refused {MAX_RESTARTS} times: {reason}");
                    return Fate::End(not_read(unit, State::Partial, &reason));
                }
                Fate::Restart { first }
            }
            WorkError::NotRead { state, reason } => Fate::End(not_read(unit, state, &reason)),
            WorkError::Bus(error) if error.is_transient() => failing(unit, BUS_PAUSE, patience, &error.to_string()),
            WorkError::Bus(error) => {
                let reason = format!("its records cannot be published: {error}");
                Fate::End(not_read(unit, State::Failed, &reason))
            }
        }
    }

    async fn settle(&self, delivery: Delivery, unit: &Unit, fate: Fate) -> Result<Outcome, BusError> {
        match fate {
            Fate::Replace { successor } => {
                publish_all(&self.worker.bus, std::slice::from_ref(&*successor)).await?;
                delivery.ack().await.map(|()| Some(why_replaced(unit, &successor)))
            }
            Fate::Restart { first } => {
                tracing::info!(restart = first.restart, "the list begins again");
                let done = Done { children: vec![*first], ..Done::default() };
                self.end(delivery, unit, &Emitted::default(), done).await.map(|_| Some("restarted"))
            }
            Fate::End(coverage) => self.end_unread(delivery, unit, vec![coverage]).await,
        }
    }

    /// Ends a unit that is not read.
    async fn end_unread(&self, delivery: Delivery, unit: &Unit, coverage: Vec<Coverage>) -> Result<Outcome, BusError> {
        if let Some(first) = coverage.first() {
            tracing::warn!(state = first.state.as_str(), reason = first.reason, "not read");
        }
        let done = Done { coverage, ..Done::default() };
        self.end(delivery, unit, &Emitted::default(), done).await.map(|_| Some("unread"))
    }

    /// Publishes the units that follow, then the unit's end, then acknowledges.
    async fn end(&self, delivery: Delivery, unit: &Unit, emitted: &Emitted, done: Done) -> Result<Outcome, BusError> {
        let bus = &self.worker.bus;
        let children = unit.relays(done.children);
        publish_all(bus, &children).await?;
        for coverage in &done.coverage {
            metrics::coverage(&unit.audit, &unit.plugin, coverage.state.as_str());
        }
        let end = UnitEnd {
            plugin: unit.plugin.clone(),
            unit: unit.id.clone(),
            attempt: unit.attempt,
            restart: unit.restart,
            scope: unit.scope.clone(),
            resource_type: unit.resource_type.clone(),
            list: unit.list.clone(),
            children: children.into_iter().map(|child| child.id).collect(),
            frames: emitted.frames,
            last_seq: emitted.last_seq,
            records: emitted.records,
            coverage: done.coverage,
            reached: done.reached,
        };
        let message = Status::UnitEnd(end).message(&unit.audit, &unit.version).map_err(BusError::json)?;
        bus.publish(message).await?;
        delivery.ack().await.map(|()| Some("done"))
    }

    async fn give_up(&self, delivery: Delivery, unit: &Unit) -> Result<Outcome, BusError> {
        let reason = format!("it was delivered {} times and never settled", delivery.deliveries);
        self.bury_unit(&delivery, unit, reason.clone()).await?;
        self.settle(delivery, unit, Fate::End(not_read(unit, State::Failed, &reason))).await
    }

    async fn bury_unit(&self, delivery: &Delivery, unit: &Unit, reason: String) -> Result<(), BusError> {
        let message = &delivery.message;
        let letter =
            DeadLetter::new(&message.subject, Some(message.seq), reason, delivery.deliveries, &message.payload);
        status::bury(&*self.worker.bus, &unit.audit, &unit.version, Role::Cloud, &unit.plugin, &letter).await
    }

    /// A message of the queue that is no unit.
    async fn bury(&self, delivery: Delivery, reason: String) -> Result<(), BusError> {
        let message = &delivery.message;
        if let Some((audit, version, plugin)) = subject::parse(&message.subject) {
            let letter =
                DeadLetter::new(&message.subject, Some(message.seq), reason, delivery.deliveries, &message.payload);
            status::bury(&*self.worker.bus, &audit, &version, Role::Cloud, &plugin, &letter).await?;
        }
        delivery.ack().await
    }

    /// How long the unit's scope has been told to wait, if it has.
    async fn pause(&self, unit: &Unit) -> Result<Option<Duration>, BusError> {
        let entry = self.worker.bus.kv_get(Bucket::Throttle, &pause_key(unit)).await?;
        let pause = entry.and_then(|entry| serde_json::from_slice::<Throttle>(&entry.value).ok());
        Ok(pause.map(|pause| pause.wait()))
    }

    async fn remember_pause(&self, unit: &Unit, wait: Duration) {
        let wait = wait.max(Duration::from_secs(1));
        let Ok(value) = serde_json::to_vec(&Throttle::of(unit, wait)) else { return };
        match self.worker.bus.kv_create(Bucket::Throttle, &pause_key(unit), value.into(), Some(wait)).await {
            Ok(_) => {}
            Err(error) if error.kind() == BusErrorKind::Conflict => {}
            Err(error) => tracing::debug!(%error, "cannot tell others of the pause"),
        }
    }
}

/// A unit that waits because the cloud asked for it, while patience lasts.
fn throttled(unit: &Unit, wait: Duration, patience: Duration, reason: &str) -> Fate {
    let waited = Duration::from_millis(unit.waited_ms);
    if waited + wait > patience {
        let reason = format!("still throttled after waiting for {} s in all: {reason}", waited.as_secs());
        return Fate::End(not_read(unit, State::Throttled, &reason));
    }
    Fate::Replace { successor: Box::new(unit.successor(wait)) }
}

/// A unit that is tried again after something failed in passing, while patience lasts.
fn failing(unit: &Unit, wait: Duration, patience: Duration, reason: &str) -> Fate {
    if Duration::from_millis(unit.failing_ms) + wait > patience {
        return Fate::End(not_read(unit, State::Failed, reason));
    }
    Fate::Replace { successor: Box::new(unit.retry(wait)) }
}

/// How many deliveries of a unit are given back so that it waits.
fn slices(unit: &Unit) -> u64 {
    unit.wait_ms.div_ceil(WAIT_SLICE_MS)
}

/// For how long a delivery is to be given back because the unit waits. The deliveries count the time that has passed:
/// no clocks are compared.
fn rest_of_wait(unit: &Unit, deliveries: u64) -> Option<Duration> {
    let passed = (deliveries - 1).saturating_mul(WAIT_SLICE_MS);
    let rest = unit.wait_ms.saturating_sub(passed);
    (rest > 0).then(|| Duration::from_millis(rest.min(WAIT_SLICE_MS)))
}

fn pause_key(unit: &Unit) -> String {
    // A list of its own, like that of a vault's keys, is throttled on its own.
    let scope = format!("{}/{}", unit.scope, unit.list.as_deref().unwrap_or_default());
    format!("{}.{}.{}", unit.pool.token(), unit.plugin.token(), Id::digest(scope.as_bytes()))
}

fn not_read(unit: &Unit, state: State, reason: &str) -> Coverage {
    Coverage::not_read(&unit.scope, &unit.resource_type, state, reason)
}

fn too_large(unit: &Unit, emitted: &Emitted) -> Option<Coverage> {
    let first = emitted.too_large.first()?;
    let count = emitted.too_large.len() as u64;
    let reason = format!("{count} records are larger than the bus takes in a message, the first of them {first}");
    Some(Coverage { missing: Some(count), ..not_read(unit, State::Partial, &reason) })
}

/// Doubles from one second to one minute; units that failed together do not come again together.
fn back_off(unit: &Unit) -> Duration {
    let base = Duration::from_secs(1 << unit.attempt.saturating_sub(1).min(6)).min(Duration::from_secs(60));
    base / 2 + jitter(unit, base / 2)
}

/// A part of a time, another for each unit and attempt.
fn jitter(unit: &Unit, most: Duration) -> Duration {
    let spread = Id::digest(format!("{}:{}", unit.id, unit.attempt).as_bytes()).bits() % 1000;
    most * u32::try_from(spread).unwrap_or(0) / 1000
}

async fn publish_all(bus: &SharedBus, units: &[Unit]) -> Result<(), BusError> {
    for some in units.chunks(64) {
        let publishes = some.iter().map(|unit| async {
            let mut message = unit.message().map_err(BusError::json)?;
            if let Some(span) = trace::current() {
                span.mark_unit(&mut message, units.len());
            }
            bus.publish(message).await
        });
        futures::future::try_join_all(publishes).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::PATIENCE;

    #[test]
    fn a_wait_is_over_after_as_many_deliveries_as_it_has_pieces() {
        let (key, version) = (Key::new("k").unwrap(), Version::new("20260131_235959").unwrap());
        let root = Unit::root(&key, &version, &key, &key);
        assert_eq!((rest_of_wait(&root, 1), slices(&root)), (None, 0));
        let unit = root.successor(Duration::from_secs(12));
        let rests: Vec<_> = (1..=4).map(|deliveries| rest_of_wait(&unit, deliveries)).collect();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(rests, [seconds(5), seconds(5), seconds(2), None]);
        assert_eq!(slices(&unit), 3);
    }

    #[test]
    fn throttling_does_not_use_up_the_patience_for_failures() {
        let (key, version) = (Key::new("k").unwrap(), Version::new("20260131_235959").unwrap());
        let mut unit = Unit::root(&key, &version, &key, &key);
        for _ in 0..6 {
            let Fate::Replace { successor } = throttled(&unit, Duration::from_secs(200), PATIENCE, "429") else {
                panic!()
            };
            unit = *successor;
        }
        assert!(matches!(failing(&unit, Duration::from_secs(1), PATIENCE, "reset"), Fate::Replace { .. }));
        let Fate::End(coverage) = throttled(&unit, PATIENCE, PATIENCE, "429: wait") else { panic!() };
        assert_eq!(coverage.state, State::Throttled);
        assert!(coverage.reason.unwrap().contains("429: wait"));
    }
}
