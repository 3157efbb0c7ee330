//! What a worker says of itself: that it is alive, what it serves, and what it cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::bus::{Bucket, BusError, SharedBus};
use crate::plan::Stage;
use crate::subject::{Key, Role, Version};

/// How often a worker says that it is alive.
pub const EVERY: Duration = Duration::from_secs(5);

/// What is known of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its name.
    pub name: String,
    /// The stage that it serves.
    pub stage: Stage,
    /// Its host.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// The program's version.
    pub program: String,
    /// The version of the form of messages.
    pub schema: String,
    /// The pools that it serves: for collectors.
    #[serde(default)]
    pub pools: Vec<Key>,
    /// The plugin classes that it serves, by short name.
    pub classes: Vec<String>,
    /// The plugins that it cannot build, and why.
    #[serde(default)]
    pub cannot: Vec<Cannot>,
}

/// A plugin of a version that a worker cannot build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cannot {
    /// The audit.
    pub audit: Key,
    /// The run.
    pub version: Version,
    /// The plugin's role.
    pub role: Role,
    /// The plugin.
    pub plugin: Key,
    /// Why, and what to do.
    pub reason: String,
}

/// How much a worker has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Units, frames, batches or whole versions that it works on now.
    pub in_work: u64,
    /// Those that it has finished since it started.
    pub done: u64,
}

/// What a worker announces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Who it is, and what it serves.
    #[serde(flatten)]
    pub info: WorkerInfo,
    /// How much it has to do, as of its last announcement.
    #[serde(default)]
    pub load: Load,
}

/// Counts as a thing in work until it is dropped.
#[derive(Debug)]
#[must_use = "it counts for as long as it is held"]
pub struct InWork {
    shared: Arc<Shared>,
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.shared.in_work.fetch_sub(1, Ordering::Relaxed);
        self.shared.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells others of a worker for as long as it lives.
#[derive(Debug, Clone)]
pub struct Presence {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bus: SharedBus,
    key: String,
    info: Mutex<WorkerInfo>,
    changed: Notify,
    in_work: AtomicU64,
    done: AtomicU64,
}

impl Presence {
    /// Begins to tell of a worker, and goes on until `shutdown`.
    #[must_use]
    pub fn start(bus: SharedBus, info: WorkerInfo, shutdown: CancellationToken) -> Self {
        // The name may be too long for a key with many escapes: its digest is not.
        let key = format!("{}.{}", info.stage, crate::identity::Id::digest(info.name.as_bytes()));
        let (info, changed) = (Mutex::new(info), Notify::new());
        let shared = Arc::new(Shared { bus, key, info, changed, in_work: AtomicU64::new(0), done: AtomicU64::new(0) });
        let teller = Arc::clone(&shared);
        tokio::spawn(async move {
            while !shutdown.is_cancelled() {
                teller.tell().await;
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = teller.changed.notified() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
            let goodbye = teller.bus.kv_delete(Bucket::Workers, &teller.key);
            let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
        });
        Self { shared }
    }

    /// Counts a unit, frame, batch or version as in work until what is returned is dropped.
    pub fn begin_work(&self) -> InWork {
        self.shared.in_work.fetch_add(1, Ordering::Relaxed);
        InWork { shared: Arc::clone(&self.shared) }
    }

    /// Tells at once that the worker cannot build a plugin.
    pub async fn add_cannot(&self, cannot: Cannot) {
        let mut info = self.shared.info.lock().await;
        if !info.cannot.contains(&cannot) {
            info.cannot.push(cannot);
        }
        self.shared.changed.notify_one();
    }

    /// Forgets what the worker could not build.
    pub async fn remove_cannot(&self, cannot: &Cannot) {
        self.shared.info.lock().await.cannot.retain(|known| known != cannot);
        self.shared.changed.notify_one();
    }
}

impl Shared {
    async fn tell(&self) {
        let load = Load { in_work: self.in_work.load(Ordering::Relaxed), done: self.done.load(Ordering::Relaxed) };
        let body = serde_json::to_vec(&Announced { info: self.info.lock().await.clone(), load });
        let told = match body {
            Ok(body) => self.bus.kv_put(Bucket::Workers, &self.key, body.into()).await.map(|_| ()),
            Err(error) => Err(BusError::json(error)),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "cannot announce this worker now");
        }
    }
}

/// The workers that are alive.
///
/// # Errors
/// When the broker cannot be asked.
pub async fn alive(bus: &SharedBus) -> Result<Vec<WorkerInfo>, BusError> {
    Ok(announced(bus).await?.into_iter().map(|announced| announced.info).collect())
}

/// What the workers that are alive announce.
///
/// # Errors
/// When the broker cannot be asked.
pub async fn announced(bus: &SharedBus) -> Result<Vec<Announced>, BusError> {
    let entries = bus.kv_entries(Bucket::Workers, "").await?;
    Ok(entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect())
}
