//! Which audit versions are open: what a worker serves beside the units of its pools.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::bus::{Bucket, BusError, BusErrorKind, KvChange, SharedBus};
use crate::plan::{Plan, Stage};
use crate::run::{AuditState, MAX_RUN, Phase, RunState};
use crate::subject::{Key, Version};

/// The state of an audit's version as a worker sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditView {
    /// The audit's state.
    pub state: AuditState,
    /// An operator has stopped collecting.
    pub stopping: bool,
}

/// An audit's version that is open, with the part of its plan that this stage serves.
#[derive(Debug, Clone)]
pub struct OpenAudit {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its state; changes until it has ended.
    pub view: watch::Receiver<AuditView>,
}

/// Follows the open versions for one stage.
#[derive(Debug, Clone)]
pub struct Versions {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bus: SharedBus,
    stage: Stage,
    open: Mutex<HashMap<(Key, Version), Entry>>,
    opened: mpsc::UnboundedSender<OpenAudit>,
}

#[derive(Debug)]
struct Entry {
    plan: Arc<Plan>,
    sender: watch::Sender<AuditView>,
}

impl Versions {
    /// Begins to follow; each version that opens is sent once.
    #[must_use]
    pub fn follow(
        bus: SharedBus,
        stage: Stage,
        shutdown: CancellationToken,
    ) -> (Self, mpsc::UnboundedReceiver<OpenAudit>) {
        let (opened, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { bus, stage, open: Mutex::default(), opened });
        let follower = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follower.follow() => {}
            }
        });
        (Self { shared }, receiver)
    }

    /// The version of an audit, if it is open. It is asked for when the news of it has not come yet.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub async fn get(&self, audit: &Key, version: &Version) -> Result<Option<OpenAudit>, BusError> {
        if let Some(open) = self.shared.known(audit, version) {
            return Ok(Some(open));
        }
        let Some(entry) = self.shared.bus.kv_get(Bucket::Runs, version.as_str()).await? else { return Ok(None) };
        let run: RunState = serde_json::from_slice(&entry.value).map_err(BusError::json)?;
        self.shared.apply(&run).await?;
        Ok(self.shared.known(audit, version))
    }
}

impl Shared {
    async fn follow(&self) {
        loop {
            if let Err(error) = self.watch().await {
                tracing::warn!(%error, "cannot follow the runs now");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn watch(&self) -> Result<(), BusError> {
        let mut watcher = self.bus.kv_watch(Bucket::Runs).await?;
        loop {
            let KvChange::Put(entry) = watcher.next().await? else { continue };
            match serde_json::from_slice::<RunState>(&entry.value) {
                Ok(run) => match self.apply(&run).await {
                    Err(error) if error.kind() == BusErrorKind::Corrupt => {
                        tracing::error!(%error, version = entry.key, "this worker cannot serve the run");
                    }
                    applied => applied?,
                },
                Err(error) => tracing::warn!(%error, version = entry.key, "cannot read the state of a run"),
            }
        }
    }

    async fn apply(&self, run: &RunState) -> Result<(), BusError> {
        let old = jiff::Timestamp::now() - MAX_RUN;
        if run.version < Version::at(old) {
            return Ok(()); // nobody leads it any more, and its records age out
        }
        for (audit, state) in &run.audits {
            let view = AuditView { state: state.clone(), stopping: run.stopping };
            if state.phase == Phase::Ended {
                self.close(audit, &run.version, view);
            } else if state.phase != Phase::Planned && !self.update(audit, &run.version, view.clone()) {
                self.open(audit, &run.version, view).await?;
            }
        }
        Ok(())
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<(Key, Version), Entry>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, audit: &Key, version: &Version) -> Option<OpenAudit> {
        let entries = self.entries();
        let entry = entries.get(&(audit.clone(), version.clone()))?;
        Some(OpenAudit { plan: Arc::clone(&entry.plan), view: entry.sender.subscribe() })
    }

    fn close(&self, audit: &Key, version: &Version, view: AuditView) {
        if let Some(entry) = self.entries().remove(&(audit.clone(), version.clone())) {
            entry.sender.send_replace(view);
        }
    }

    /// Tells of a new state; false when the version is not known.
    fn update(&self, audit: &Key, version: &Version, view: AuditView) -> bool {
        let entries = self.entries();
        let Some(entry) = entries.get(&(audit.clone(), version.clone())) else { return false };
        entry.sender.send_if_modified(|known| {
            // News may come twice and out of order; a state never goes back.
            let newer = view != *known && view.state.phase >= known.state.phase;
            if newer {
                *known = view;
            }
            newer
        });
        true
    }

    async fn open(&self, audit: &Key, version: &Version, view: AuditView) -> Result<(), BusError> {
        let Some(plan) = Plan::fetch(&*self.bus, audit, version, self.stage).await? else {
            tracing::warn!(%audit, %version, "the run has no plan for this stage");
            return Ok(());
        };
        let (sender, receiver) = watch::channel(view);
        let open = OpenAudit { plan: Arc::new(plan), view: receiver };
        let entry = Entry { plan: Arc::clone(&open.plan), sender };
        let mut entries = self.entries();
        if entries.contains_key(&(audit.clone(), version.clone())) {
            return Ok(()); // somebody else has opened it meanwhile
        }
        entries.insert((audit.clone(), version.clone()), entry);
        // Nobody listens when the stage needs units only.
        let _ = self.opened.send(open);
        Ok(())
    }
}
