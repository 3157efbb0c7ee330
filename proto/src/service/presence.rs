//! What a worker says of itself: that it is alive, what it serves, and what it cannot.

use std::sync::Arc;
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
}

impl Presence {
    /// Begins to tell of a worker, and goes on until `shutdown`.
    #[must_use]
    pub fn start(bus: SharedBus, info: WorkerInfo, shutdown: CancellationToken) -> Self {
        // The name may be too long for a key with many escapes: its digest is not.
        let key = format!("{}.{}", info.stage, crate::identity::Id::digest(info.name.as_bytes()));
        let shared = Arc::new(Shared { bus, key, info: Mutex::new(info), changed: Notify::new() });
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
        let body = serde_json::to_vec(&*self.info.lock().await);
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
    let entries = bus.kv_entries(Bucket::Workers, "").await?;
    Ok(entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect())
}
