//! Takes dead letters that an operator sent back, also of versions that have ended.

use std::sync::Arc;
use std::time::Duration;

use proto::bus::{BusError, BusErrorKind, ConsumerId, Delivery, PullLimits};
use proto::catalogue::in_one_line;
use proto::plan::{Plan, PluginSpec};
use proto::service::Worker;
use proto::status::{DeadLetter, Retry};
use proto::subject::{self, Key, Role, Version};

use super::documents;
use super::health::Health;
use super::write::{self, HOLD, Unsettled};
use crate::registry::{self, Context};
use crate::store::{Document, Store, StoreError};

/// How often it is looked whether anything was ever sent back.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// When a letter comes again whose store is down.
const LATER: Duration = Duration::from_secs(30);
/// How often a delivery that is being worked on says so.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Takes what comes until the worker is to stop.
pub(super) async fn run(worker: Worker) {
    // Where nothing outlives the process, nothing is sent back.
    if worker.bus.can_replay() {
        tokio::join!(take_all(&worker, Role::Store), take_all(&worker, Role::Alert));
    }
}

async fn take_all(worker: &Worker, role: Role) {
    while !worker.shutdown.is_cancelled() {
        tokio::select! {
            () = worker.shutdown.cancelled() => return,
            error = pull(worker, role) => {
                // The coordinator makes the consumer when the first letter is sent back.
                if error.kind() != BusErrorKind::NotFound {
                    tracing::warn!(%error, "cannot take dead letters that were sent back now");
                }
            }
        }
        tokio::select! {
            () = worker.shutdown.cancelled() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn pull(worker: &Worker, role: Role) -> BusError {
    let limits = PullLimits { messages: 16, ..PullLimits::default() };
    let mut puller = match worker.bus.pull(&ConsumerId::retries(role), limits).await {
        Ok(puller) => puller,
        Err(error) => return error,
    };
    loop {
        let taken = match puller.next().await {
            Ok(delivery) => take(worker, delivery).await,
            Err(error) => return error,
        };
        if let Err(error) = taken {
            return error;
        }
    }
}

/// What became of a letter.
enum Fate {
    Stored,
    /// It is a dead letter again.
    Dead(String),
    /// The store is down.
    Later(String),
}

async fn take(worker: &Worker, delivery: Delivery) -> Result<(), BusError> {
    let Some((audit, version, role, plugin)) = subject::parse_letter(&delivery.message.subject) else {
        return delivery.ack().await;
    };
    let retry = match Retry::read(&delivery.message) {
        Ok(retry) => retry,
        Err(error) => {
            tracing::error!(%error, "cannot read a dead letter that was sent back");
            return delivery.ack().await;
        }
    };
    let fate = delivery.while_working(PROGRESS_EVERY, store(worker, &audit, &version, &retry)).await;
    match fate {
        Fate::Stored => {
            tracing::info!(%audit, %version, %role, %plugin, "a dead letter that was sent back is stored");
            delivery.ack().await
        }
        Fate::Dead(reason) => {
            tracing::warn!(%audit, %version, %role, %plugin, reason, "a dead letter that was sent back is one again");
            let letter = DeadLetter { reason, tries: retry.letter.tries + 1, ..retry.letter };
            let subject = subject::dead(&audit, &version, role, &plugin);
            // Under another id than the first time: it is not the same letter that came twice.
            let id = format!("dead-again:{}", delivery.message.seq);
            worker.bus.publish(letter.outgoing(&*worker.bus, subject)?.with_id(id)).await?;
            delivery.ack().await
        }
        Fate::Later(reason) => {
            tracing::warn!(%audit, %version, %role, %plugin, reason, "a dead letter that was sent back waits");
            delivery.give_back(LATER).await
        }
    }
}

async fn store(worker: &Worker, audit: &Key, version: &Version, retry: &Retry) -> Fate {
    let text = retry.letter.message.clone().into_bytes().into();
    let document = match documents::written_before(audit, version, text) {
        Ok(document) => document,
        Err(reason) => return Fate::Dead(reason),
    };
    let store = match build(worker, audit, version, &retry.plugin) {
        Ok(store) => store,
        Err(reason) => return Fate::Dead(reason),
    };
    match store.connect().await {
        Ok(()) => write(&*store, document).await,
        Err(StoreError::Permanent(reason)) => Fate::Dead(reason),
        Err(StoreError::Transient { reason, .. } | StoreError::TooLarge(reason)) => Fate::Later(reason),
    }
}

fn build(worker: &Worker, audit: &Key, version: &Version, spec: &PluginSpec) -> Result<Arc<dyn Store>, String> {
    let params = worker.expander.expand(&spec.params).map_err(|errors| in_one_line(&errors))?;
    let plan = Plan {
        audit: audit.clone(),
        version: version.clone(),
        plugins: vec![spec.clone()],
        clouds: Vec::new(),
        events: Vec::new(),
        rules: Vec::new(),
    };
    registry::build_shared(Context { bus: &worker.bus, plan: &plan, spec, params: &params })
}

async fn write(store: &dyn Store, document: Document) -> Fate {
    let health = Health::default();
    match write::write(store, vec![document], &health, HOLD).await {
        Ok(settled) => match settled.refused.into_iter().next() {
            None => Fate::Stored,
            Some((_, reason)) => Fate::Dead(reason),
        },
        Err(Unsettled::Hopeless(reason)) => Fate::Dead(reason),
        Err(Unsettled::Down) => Fate::Later(health.failing().map(|(_, reason)| reason).unwrap_or_default()),
    }
}
