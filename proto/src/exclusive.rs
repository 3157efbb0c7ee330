//! Plugins that need all of a version in one place: a file, one mail with all events.
//!
//! One worker holds the plugin's lease, reads the version from its first message to its end, delivers, and says so. If
//! it dies, another starts over. Delivered is what is said to be delivered: a crash before that means delivery again,
//! so a delivery must be such that a second one does no harm.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bus::lease::Lease;
use crate::bus::{BusError, Message, ReaderSpec, SharedBus};
use crate::plan::{Plan, PluginSpec};
use crate::run::Phase;
use crate::service::Worker;
use crate::service::metrics;
use crate::service::presence::{Cannot, Presence};
use crate::service::trace::{self, Kind, Span, SpanContext};
use crate::service::versions::{AuditView, Versions};
use crate::status::{Delivered, Failed, Status};
use crate::subject::{self, Key, Role, Stream, Version};

/// Takes a version whole, message by message, and delivers it at its end.
#[async_trait]
pub trait Exclusive: Send {
    /// Takes the next message: a frame of records for a store, an event for an alert.
    ///
    /// # Errors
    /// When it cannot be kept; then the plugin starts over, or fails.
    async fn accept(&mut self, message: &Message) -> Result<(), ExclusiveError>;

    /// Delivers. `revision` is the fencing token of the lease, just checked.
    ///
    /// # Errors
    /// When it cannot be delivered; then the plugin starts over, or fails.
    async fn finish(&mut self, revision: u64) -> Result<Delivery, ExclusiveError>;
}

/// What was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Documents: records or events, each once.
    pub documents: u64,
    /// Where to, in words for people.
    pub place: String,
}

/// Why an exclusive plugin could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ExclusiveError {
    /// No other try can help.
    #[error("{0}")]
    Permanent(String),
    /// It may go well later.
    #[error("{0}")]
    Transient(String),
}

/// What a worker needs to serve an exclusive plugin of an audit's version.
#[derive(Debug, Clone)]
pub struct Job {
    /// The bus.
    pub bus: SharedBus,
    /// The audit.
    pub audit: Key,
    /// The run.
    pub version: Version,
    /// The plugin.
    pub spec: PluginSpec,
    /// The worker's name.
    pub worker: String,
    /// What others are told of this worker.
    pub presence: Presence,
    /// The audit's state.
    pub view: watch::Receiver<AuditView>,
    /// Cancelled when the worker is to stop.
    pub shutdown: CancellationToken,
    /// How far the try came that is under way: a sequence, or all the way.
    reached: u64,
}

/// How long a failing plugin is tried again.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether what is to be read is still there.
const GAP_EVERY: Duration = Duration::from_secs(10);
/// How often the lease is tried when another worker holds it.
const LEASE_EVERY: Duration = Duration::from_millis(500);

enum Ended {
    Delivered,
    Shutdown,
    /// The version has ended, or the coordinator has given the part up.
    NotWanted,
    LeaseLost,
    Failed(ExclusiveError),
}

/// Serves an exclusive plugin until its version has ended. `make` builds the plugin anew for each try; it is called
/// once before the lease is taken, so that a worker that cannot build it does not keep others from it.
pub async fn serve(mut job: Job, make: impl Fn() -> Result<Box<dyn Exclusive>, String> + Send + Sync) {
    let mut first = match make() {
        Ok(plugin) => Some(plugin),
        Err(reason) => return job.cannot(reason).await,
    };
    let mut failing = Failing::default();
    while let Some(mut lease) = job.acquire().await {
        job.reached = 0;
        let attempt = match first.take().map_or_else(&make, Ok) {
            Ok(plugin) => AssertUnwindSafe(job.attempt(plugin, &mut lease)).catch_unwind().await.unwrap_or_else(|_| {
                Ended::Failed(ExclusiveError::Permanent(
                    "the plugin panicked: this is a defect; its log says where".into(),
                ))
            }),
            Err(reason) => Ended::Failed(ExclusiveError::Transient(reason)),
        };
        match attempt {
            // The lease is kept until the version has ended: nobody else needs to look.
            Ended::Delivered => return job.wait_for_end(lease).await,
            Ended::Shutdown | Ended::NotWanted => return lease.release().await,
            Ended::LeaseLost => {}
            Ended::Failed(error) => {
                let since = failing.since(job.reached);
                let last = matches!(error, ExclusiveError::Permanent(_))
                    || !job.bus.can_replay()
                    || since.elapsed() > PATIENCE;
                tracing::warn!(audit = %job.audit, plugin = %job.spec.key, %error, "the plugin failed");
                if last {
                    job.failed(error.to_string()).await;
                    return job.wait_for_end(lease).await;
                }
                lease.release().await;
                tokio::time::sleep(failing.pause()).await;
            }
        }
    }
}

/// A plugin that fails again and again: since when, and how far it came. One that comes further each time is not stuck.
#[derive(Default)]
struct Failing {
    since: Option<(Instant, u64)>,
    tries: u32,
}

impl Failing {
    fn since(&mut self, reached: u64) -> Instant {
        self.tries += 1;
        match self.since {
            Some((since, furthest)) if reached <= furthest => since,
            _ => {
                let now = Instant::now();
                (self.since, self.tries) = (Some((now, reached)), 1);
                now
            }
        }
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(100 << self.tries.min(6))
    }
}

impl Job {
    fn lease_key(&self) -> String {
        format!("{}.{}.{}.{}", self.audit.token(), self.version, self.spec.role, self.spec.key.token())
    }

    fn reader(&self) -> ReaderSpec {
        ReaderSpec::exclusive(&self.audit, &self.version, self.spec.role, &self.spec.key)
    }

    /// The sequence to read through, once it is known.
    fn end(&self) -> Option<u64> {
        let view = self.view.borrow();
        match self.spec.role {
            Role::Alert => view.state.events_end,
            _ => view.state.records_end,
        }
    }

    fn is_wanted(&self) -> bool {
        let view = self.view.borrow();
        view.state.phase != Phase::Ended
            && !view.state.failed.iter().any(|part| part.role == self.spec.role && part.plugin == self.spec.key)
    }

    /// Waits for the lease; `None` when there is nothing left to do.
    async fn acquire(&mut self) -> Option<Lease> {
        loop {
            if self.shutdown.is_cancelled() || !self.is_wanted() {
                return None;
            }
            match Lease::try_acquire(&self.bus, &self.lease_key(), &self.worker).await {
                Ok(Some(lease)) => return Some(lease),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "cannot ask for a lease now"),
            }
            let changed = self.view.changed();
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep(LEASE_EVERY) => {}
                changed = changed => if changed.is_err() { return None },
            }
        }
    }

    async fn attempt(&mut self, mut plugin: Box<dyn Exclusive>, lease: &mut Lease) -> Ended {
        let _in_work = self.presence.begin_work();
        match self.was_delivered().await {
            Ok(false) => {}
            Ok(true) => return Ended::Delivered,
            Err(error) => return Ended::Failed(ExclusiveError::Transient(error.to_string())),
        }
        let mut reader = match self.bus.read(&self.reader()).await {
            Ok(reader) => reader,
            Err(error) => return Ended::Failed(ExclusiveError::Transient(error.to_string())),
        };
        let (mut through, mut messages) = (0, 0);
        let mut span = self.span();
        let shutdown = self.shutdown.clone();
        loop {
            if !self.is_wanted() {
                return Ended::NotWanted;
            }
            if let Some(end) = self.end().filter(|end| through >= *end) {
                self.reached = u64::MAX;
                return self.deliver(plugin, lease, end, messages, span).await;
            }
            tokio::select! {
                message = reader.next() => match message {
                    Ok(message) => {
                        span.link(SpanContext::of_message(&message));
                        if let Err(error) = plugin.accept(&message).await {
                            span.fail(&error.to_string());
                            return Ended::Failed(error);
                        }
                        through = message.seq;
                        self.reached = through;
                        messages += 1;
                    }
                    Err(error) => return Ended::Failed(ExclusiveError::Transient(error.to_string())),
                },
                changed = self.view.changed() => if changed.is_err() { return Ended::NotWanted },
                // In one process nobody else can take the lease, and nothing can be read again.
                () = lease.lost(), if self.bus.can_replay() => return Ended::LeaseLost,
                () = tokio::time::sleep(GAP_EVERY), if self.end().is_some() && self.bus.can_replay() => {
                    if let Some(gap) = self.gap(through).await {
                        return Ended::Failed(gap);
                    }
                }
                () = shutdown.cancelled() => return Ended::Shutdown,
            }
        }
    }

    /// A span in the trace of the run: what is delivered is of all of it.
    fn span(&self) -> Span {
        let run = trace::is_on().then(|| SpanContext::of_run(&self.audit, &self.version));
        let mut span = Span::begin("deliver", Kind::Client, run);
        span.set("cloudmarker.audit", &self.audit);
        span.set("cloudmarker.version", &self.version);
        span.set("cloudmarker.role", self.spec.role.as_str());
        span.set("cloudmarker.plugin", &self.spec.key);
        span
    }

    async fn deliver(
        &self,
        mut plugin: Box<dyn Exclusive>,
        lease: &Lease,
        end: u64,
        messages: u64,
        mut span: Span,
    ) -> Ended {
        let checked = if self.bus.can_replay() { lease.check().await } else { Ok(0) };
        let revision = match checked {
            Ok(revision) => revision,
            Err(error) if error.is_transient() => {
                return Ended::Failed(ExclusiveError::Transient(error.to_string()));
            }
            Err(_) => return Ended::LeaseLost,
        };
        let began = Instant::now();
        let finished = plugin.finish(revision).await;
        let documents = finished.as_ref().ok().map(|delivery| delivery.documents);
        metrics::delivered(&self.audit, self.spec.role, &self.spec.key, documents, began.elapsed());
        let delivery = match finished {
            Ok(delivery) => delivery,
            Err(error) => {
                span.fail(&error.to_string());
                return Ended::Failed(error);
            }
        };
        span.set("cloudmarker.documents", delivery.documents);
        span.set("cloudmarker.messages", messages);
        let delivered = Status::Delivered(Delivered {
            role: self.spec.role,
            plugin: self.spec.key.clone(),
            end,
            messages,
            documents: delivery.documents,
            place: delivery.place,
            revision,
        });
        match self.say(&delivered).await {
            Ok(()) => Ended::Delivered,
            Err(error) => Ended::Failed(ExclusiveError::Transient(error.to_string())),
        }
    }

    /// What is to be read may be gone: then nobody will come to its end.
    async fn gap(&self, through: u64) -> Option<ExclusiveError> {
        let end = self.end()?;
        let reader = self.reader();
        let last = self.bus.last_seq(reader.stream, &reader.filter).await.ok()?;
        (last < end && last <= through).then(|| {
            ExclusiveError::Permanent(format!(
                "messages are gone: the version ends at {end}, and {} holds none behind {last}; give the stream more \
                 room and run again",
                reader.stream.name()
            ))
        })
    }

    /// Whether a worker before this one has said that it delivered.
    async fn was_delivered(&self) -> Result<bool, BusError> {
        if !self.bus.can_replay() {
            return Ok(false);
        }
        let filter = subject::status(&self.audit, &self.version, "delivered");
        let count = self.bus.count(Stream::Status, &filter).await?;
        if count == 0 {
            return Ok(false);
        }
        let name = format!("{}-again", self.reader().name);
        let mut reader = self.bus.read(&ReaderSpec { stream: Stream::Status, filter, name }).await?;
        for _ in 0..count {
            let Ok(message) = tokio::time::timeout(Duration::from_secs(10), reader.next()).await else { break };
            if let Ok(Status::Delivered(delivered)) = serde_json::from_slice(&message?.payload)
                && delivered.role == self.spec.role
                && delivered.plugin == self.spec.key
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn say(&self, status: &Status) -> Result<(), BusError> {
        let message = status.message(&self.audit, &self.version).map_err(BusError::json)?;
        self.bus.publish(message).await.map(|_| ())
    }

    async fn failed(&self, reason: String) {
        let failed = Status::Failed(Failed {
            role: self.spec.role,
            plugin: self.spec.key.clone(),
            worker: self.worker.clone(),
            reason,
            permanent: true,
        });
        // Unheard, the run would wait for ever.
        while self.is_wanted() && !self.shutdown.is_cancelled() {
            match self.say(&failed).await {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, plugin = %self.spec.key, "cannot report that the plugin failed"),
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// This worker cannot build the plugin: another one may.
    async fn cannot(mut self, reason: String) {
        tracing::warn!(audit = %self.audit, plugin = %self.spec.key, reason, "this worker cannot serve the plugin");
        let cannot = Cannot {
            audit: self.audit.clone(),
            version: self.version.clone(),
            role: self.spec.role,
            plugin: self.spec.key.clone(),
            reason,
        };
        self.presence.add_cannot(cannot.clone()).await;
        self.wait_until_unwanted().await;
        self.presence.remove_cannot(&cannot).await;
    }

    async fn wait_for_end(mut self, mut lease: Lease) {
        let lost = async { lease.lost().await };
        tokio::select! {
            () = self.wait_until_unwanted() => {}
            () = lost => {}
        }
        lease.release().await;
    }

    async fn wait_until_unwanted(&mut self) {
        let shutdown = self.shutdown.clone();
        while self.is_wanted() {
            tokio::select! {
                changed = self.view.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
        }
    }
}

/// What makes an exclusive plugin of a version anew for each try.
pub type Factory = Box<dyn Fn() -> Result<Box<dyn Exclusive>, String> + Send + Sync>;

/// How long a stopping worker lets plugins give up their leases.
const DRAIN: Duration = Duration::from_secs(20);

/// Serves the exclusive plugins of all open versions until the worker is to stop. `factory` says how a plugin is made,
/// or why this worker cannot make it.
pub async fn run(worker: Worker, factory: impl Fn(&Worker, &Arc<Plan>, &PluginSpec) -> Factory) {
    let (_versions, mut opened) = Versions::follow(Arc::clone(&worker.bus), worker.stage, worker.shutdown.clone());
    let mut serving = JoinSet::new();
    loop {
        let open = tokio::select! {
            () = worker.shutdown.cancelled() => break,
            open = opened.recv() => open,
        };
        let Some(open) = open else { break };
        while serving.try_join_next().is_some() {}
        for spec in open.plan.plugins.iter().filter(|spec| spec.exclusive) {
            let make = factory(&worker, &open.plan, spec);
            let job = Job {
                bus: Arc::clone(&worker.bus),
                audit: open.plan.audit.clone(),
                version: open.plan.version.clone(),
                spec: spec.clone(),
                worker: worker.name.clone(),
                presence: worker.presence.clone(),
                view: open.view.clone(),
                shutdown: worker.shutdown.clone(),
                reached: 0,
            };
            serving.spawn(serve(job, make));
        }
    }
    let drained = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("plugins that are not done are left to others");
    }
}
