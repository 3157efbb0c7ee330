//! What all shared stores have in common: documents are made of messages, batched, written with patience, and a
//! message is acknowledged when all its documents are stored or among the dead letters.
//!
//! Any number of workers share a store's consumer. What all stores of one of them hold is bounded ([`budget`]), so a slow
//! store makes a run slower, not larger, and no other store slow.

pub(crate) mod budget;
mod documents;
mod health;
mod lane;
mod prune;
mod retry;
#[cfg(test)]
mod tests;
mod write;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use proto::bus::{BusError, BusErrorKind, ConsumerId};
use proto::catalogue::in_one_line;
use proto::plan::PluginSpec;
use proto::run::{AuditState, Phase};
use proto::service::Worker;
use proto::service::presence::Cannot;
use proto::service::versions::{OpenAudit, Versions};
use proto::status::{Connected, Failed, Status};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::registry::{self, Context};
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use budget::Budget;
use health::Health;
use lane::Lane;

/// How long a stopping worker lets batches finish.
const DRAIN: Duration = Duration::from_secs(20);
/// The same where old versions are being removed.
const DRAIN_AFTER_PRUNING: Duration = Duration::from_secs(55);
/// How long a try to connect may take.
const CONNECTING: Duration = Duration::from_secs(60);
/// How long a store may be unreachable at first before that is said: it may be restarting.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// How long a consumer may be missing before it is worth a word.
const MISSING_PATIENCE: Duration = Duration::from_secs(5);
/// How often a store's own code may panic.
const MAX_PANICS: u32 = 3;

/// Serves the shared stores of all open versions, and takes dead letters that were sent back to any, until the worker
/// is to stop.
pub async fn run(worker: Worker) {
    tokio::join!(serve_versions(worker.clone()), retry::run(worker));
}

async fn serve_versions(worker: Worker) {
    let (_versions, mut opened) = Versions::follow(Arc::clone(&worker.bus), worker.stage, worker.shutdown.clone());
    let mut serving = JoinSet::new();
    let mut prunes = false;
    loop {
        let open = tokio::select! {
            () = worker.shutdown.cancelled() => break,
            open = opened.recv() => open,
        };
        let Some(open) = open else { break };
        while serving.try_join_next().is_some() {}
        for spec in open.plan.plugins.iter().filter(|spec| !spec.exclusive) {
            prunes |= Settings::read(&spec.params).is_ok_and(|settings| settings.prunes());
            let job = Job {
                worker: worker.clone(),
                open: open.clone(),
                spec: spec.clone(),
                has_connected: false,
                budget: Budget::of_process(),
            };
            serving.spawn(serve(job));
        }
    }
    let drained = async { while serving.join_next().await.is_some() {} };
    let patience = if prunes { DRAIN_AFTER_PRUNING } else { DRAIN };
    if tokio::time::timeout(patience, drained).await.is_err() {
        tracing::warn!("batches that are not stored are given back");
    }
}

/// A shared store of an audit's version, as one worker serves it.
struct Job {
    worker: Worker,
    open: OpenAudit,
    spec: PluginSpec,
    has_connected: bool,
    budget: Arc<Budget>,
}

/// Why a lane ended.
enum Ended {
    /// The version has ended or the part has failed.
    NotWanted,
    /// The worker stops, and holds nothing any more.
    Stopped,
    /// The store is down for too long to hold what was pulled.
    Down,
    /// The store cannot be used: no other try can help.
    Hopeless(String),
    /// The bus: what is held comes again.
    Bus(BusError),
}

async fn serve(job: Job) {
    match job.build() {
        Ok((store, settings)) => fill(job, store, settings).await,
        Err(reason) => job.cannot(reason).await,
    }
}

/// Fills a store until the version has ended.
async fn fill(mut job: Job, store: Arc<dyn Store>, settings: Settings) {
    let health = Health::default();
    // Before it is connected: the others' parts are smaller from the first document on.
    let share = job.budget.lane();
    let (mut pause, mut missing, mut panics) = (FIRST_PAUSE, None::<Instant>, 0);
    while job.connect(&*store, &settings, &health).await {
        let lane = Lane::new(&job, &store, &settings, &health, &share).work();
        match AssertUnwindSafe(lane).catch_unwind().await {
            Ok(Ended::NotWanted | Ended::Stopped) => break,
            Ok(Ended::Down) => {}
            Ok(Ended::Hopeless(reason)) => return job.failed(reason).await,
            Ok(Ended::Bus(error)) => {
                // The consumer of a version that ends goes a moment before the news of its end comes.
                let is_missing = error.kind() == BusErrorKind::NotFound;
                if is_missing && missing.get_or_insert_with(Instant::now).elapsed() < MISSING_PATIENCE {
                    tracing::debug!(audit = %job.open.plan.audit, %error, "nothing to pull");
                } else {
                    tracing::warn!(audit = %job.open.plan.audit, plugin = %job.spec.key, %error, "messages come again");
                }
                job.sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(_) => {
                panics += 1;
                tracing::error!(audit = %job.open.plan.audit, plugin = %job.spec.key, "the store's code panicked");
                if panics >= MAX_PANICS {
                    let reason = "the plugin panicked: this is a defect; its log says where";
                    return job.failed(reason.to_owned()).await;
                }
            }
        }
    }
    drop(share);
    if job.has_connected {
        job.prune(&*store, &settings).await;
    }
}

impl Job {
    fn build(&self) -> Result<(Arc<dyn Store>, Settings), String> {
        let params = self.worker.expander.expand(&self.spec.params).map_err(|errors| in_one_line(&errors))?;
        let settings = Settings::read(&params).map_err(|errors| in_one_line(&errors))?;
        let context = Context { bus: &self.worker.bus, plan: &self.open.plan, spec: &self.spec, params: &params };
        Ok((registry::build_shared(context)?, settings))
    }

    fn consumer(&self) -> ConsumerId {
        let plan = &self.open.plan;
        ConsumerId::plugin(&plan.audit, &plan.version, self.spec.role, &self.spec.key)
    }

    fn is_wanted(&self) -> bool {
        self.wants(&self.open.view.borrow().state)
    }

    fn wants(&self, state: &AuditState) -> bool {
        let is_this = |part: &proto::run::FailedPart| part.role == self.spec.role && part.plugin == self.spec.key;
        state.phase != Phase::Ended && !state.failed.iter().any(is_this)
    }

    /// Returns when the version has ended or the part has failed.
    async fn unwanted(&self) {
        let mut view = self.open.view.clone();
        // An error means that nobody follows the version any more.
        let _ = view.wait_for(|view| !self.wants(&view.state)).await;
    }

    /// Sleeps, but no longer than there is something to do.
    async fn sleep(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.worker.shutdown.cancelled() => {}
            () = self.unwanted() => {}
        }
    }

    /// Connects, patiently. False when there is nothing left to do here.
    async fn connect(&mut self, store: &dyn Store, settings: &Settings, health: &Health) -> bool {
        if self.has_connected && self.is_out_of_patience(health, settings).await {
            let reason = health.failing().map(|(_, reason)| reason).unwrap_or_default();
            self.failed(out_of_patience(&reason)).await;
            return false;
        }
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut said: Option<Cannot> = None;
        let connected = loop {
            if self.worker.shutdown.is_cancelled() || !self.is_wanted() {
                break false;
            }
            let tried = tokio::time::timeout(CONNECTING, store.connect());
            let tried = AssertUnwindSafe(tried).catch_unwind().await;
            let reason = match tried {
                Ok(Ok(Ok(()))) => match self.say_connected(store).await {
                    Ok(()) => break true,
                    Err(error) => {
                        tracing::warn!(%error, plugin = %self.spec.key, "cannot say that the store can be used");
                        self.sleep(LAST_PAUSE).await;
                        continue;
                    }
                },
                Ok(Ok(Err(StoreError::Permanent(reason)))) => {
                    if self.has_connected {
                        self.failed(reason).await;
                    } else {
                        self.cannot(reason).await;
                    }
                    break false;
                }
                Ok(Ok(Err(StoreError::Transient { reason, .. } | StoreError::TooLarge(reason)))) => reason,
                Ok(Err(_)) => format!("{} does not answer", store.place()),
                Err(_) => {
                    self.cannot("the plugin panicked: this is a defect; its log says where".to_owned()).await;
                    break false;
                }
            };
            tracing::warn!(audit = %self.open.plan.audit, plugin = %self.spec.key, reason, "cannot connect to the store now");
            if self.has_connected {
                health.bad(&reason);
                if self.is_out_of_patience(health, settings).await {
                    self.failed(out_of_patience(&reason)).await;
                    break false;
                }
            } else if said.is_none() && began.elapsed() >= FIRST_PATIENCE.min(settings.patience()) {
                said = Some(self.say_cannot(reason).await);
            }
            self.sleep(with_jitter(pause)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        };
        if let Some(cannot) = said {
            self.worker.presence.remove_cannot(&cannot).await;
        }
        self.has_connected |= connected;
        connected
    }

    /// Whether the store has taken nothing for too long, from anybody: another worker may still reach it, and then it
    /// is not the store that is down.
    async fn is_out_of_patience(&self, health: &Health, settings: &Settings) -> bool {
        let Some((down, _)) = health.failing() else { return false };
        let is_late = down > settings.patience();
        if !is_late && health.knows_floor() {
            return false;
        }
        match self.worker.bus.consumer_state(&self.consumer()).await {
            Ok(state) => !health.has_moved(state.ack_floor) && is_late,
            Err(_) => false,
        }
    }

    async fn say_connected(&self, store: &dyn Store) -> Result<(), BusError> {
        if self.has_connected {
            return Ok(());
        }
        self.say(&Status::Connected(Connected {
            role: self.spec.role,
            plugin: self.spec.key.clone(),
            worker: self.worker.name.clone(),
            place: store.place(),
        }))
        .await
    }

    async fn say(&self, status: &Status) -> Result<(), BusError> {
        let plan = &self.open.plan;
        let message = status.message(&plan.audit, &plan.version).map_err(BusError::json)?;
        self.worker.bus.publish(message).await.map(|_| ())
    }

    async fn say_cannot(&self, reason: String) -> Cannot {
        let plan = &self.open.plan;
        tracing::warn!(audit = %plan.audit, plugin = %self.spec.key, reason, "this worker cannot serve the store");
        let cannot = Cannot {
            audit: plan.audit.clone(),
            version: plan.version.clone(),
            role: self.spec.role,
            plugin: self.spec.key.clone(),
            reason,
        };
        self.worker.presence.add_cannot(cannot.clone()).await;
        cannot
    }

    /// This worker cannot use the store: another one may.
    async fn cannot(&self, reason: String) {
        let cannot = self.say_cannot(reason).await;
        tokio::select! {
            () = self.worker.shutdown.cancelled() => {}
            () = self.unwanted() => {}
        }
        self.worker.presence.remove_cannot(&cannot).await;
    }

    /// The store's part of the run has failed.
    async fn failed(&self, reason: String) {
        tracing::error!(audit = %self.open.plan.audit, plugin = %self.spec.key, reason, "the store failed");
        let failed = Status::Failed(Failed {
            role: self.spec.role,
            plugin: self.spec.key.clone(),
            worker: self.worker.name.clone(),
            reason,
            permanent: true,
        });
        // Unheard, the run would wait for ever.
        while self.is_wanted() && !self.worker.shutdown.is_cancelled() {
            match self.say(&failed).await {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, plugin = %self.spec.key, "cannot report that the store failed"),
            }
            self.sleep(Duration::from_secs(2)).await;
        }
    }
}

fn out_of_patience(reason: &str) -> String {
    format!("{reason}; it was so for longer than the parameter `patience` allows")
}

/// A pause that is not the same for all.
fn with_jitter(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    // Each state has other random keys; 50 % to 100 %.
    let random = RandomState::new().hash_one(0_u8) % 1024;
    pause / 2 + pause.mul_f64(random as f64 / 2048.0)
}

/// Writes documents as a lane does: with patience, split where they are too large. What the store refuses, by place.
///
/// # Errors
/// When the store cannot be used, or is down for a minute.
pub(crate) async fn settle(
    store: &dyn Store,
    documents: &[crate::store::Document],
) -> Result<std::collections::BTreeMap<usize, String>, String> {
    let health = Health::default();
    match write::write(store, documents.to_vec(), &health, write::HOLD).await {
        Ok(settled) => Ok(settled.refused.into_iter().collect()),
        Err(write::Unsettled::Hopeless(reason)) => Err(reason),
        Err(write::Unsettled::Down) => Err(health.failing().map(|(_, reason)| reason).unwrap_or_default()),
    }
}
