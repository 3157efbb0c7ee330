//! `SqliteStore`: an inventory in one file, for one machine. Anybody's SQLite reads it while a run writes.
//!
//! One table has the documents, by id, with the fields that people ask for beside the JSON; each record type has a
//! view. All stores of a process that name the same file share one connection, so there is one writer; other
//! processes take turns.

mod database;
mod query;
mod row;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::catalogue::{ParamError, PluginClass, in_one_line};
use proto::config::{Environment, params};
use proto::plan::Stage;
use proto::subject::Role;
use serde::Deserialize;
use serde_json::Value;

use crate::registry::Context;
use crate::store::{BatchLimits, Document, Pruning, Store, StoreError, Written};
use database::Database;
pub use query::{Cell, QueryError, query};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.stores.sqlitestore.SqliteStore",
    roles: &[Role::Store, Role::Alert],
    stage: Stage::Sink,
    exclusive: false,
    pool: None,
    check: Some(&check),
};

/// How much it takes at once: a transaction each, and a sync to the disk. One is made ready while another is written
/// and a third is on its way to the disk.
const LIMITS: BatchLimits =
    BatchLimits { documents: 10_000, bytes: 4 * 1024 * 1024, linger: Duration::from_millis(200), in_flight: 3 };

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// The file.
    path: Option<String>,
}

fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    let read: Params = params::read(value)?;
    if read.path.as_deref() == Some("") {
        let message = "found an empty text; the path of a file is expected".to_owned();
        return Err(vec![ParamError { path: "path".into(), message }]);
    }
    Ok(())
}

/// The file of an inventory for which the parameters name none.
#[must_use]
pub fn default_path(environment: &Environment) -> PathBuf {
    environment.state_dir().join("inventory.db")
}

/// Builds the store of its parameters.
///
/// # Errors
/// When the parameters are not as they should be, for people.
pub fn build(context: Context<'_>) -> Result<Arc<dyn Store>, String> {
    let read: Params = params::read(context.params).map_err(|errors| in_one_line(&errors))?;
    let environment = Environment::of_process();
    let path = read.path.map_or_else(|| default_path(&environment), |path| environment.path(path));
    Ok(Arc::new(SqliteStore { database: Database::of(path) }))
}

struct SqliteStore {
    database: Arc<Database>,
}

impl SqliteStore {
    /// Does something that blocks.
    async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        let done = tokio::task::spawn_blocking(move || work(&database)).await;
        done.map_err(|error| StoreError::Permanent(format!("writing {} ended badly: {error}", self.place())))?
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn limits(&self) -> BatchLimits {
        LIMITS
    }

    async fn connect(&self) -> Result<(), StoreError> {
        self.block(Database::open).await
    }

    async fn write(&self, documents: &[Document]) -> Result<Written, StoreError> {
        let documents = documents.to_vec();
        self.block(move |database| database.write(&documents)).await
    }

    async fn prune(&self, pruning: &Pruning) -> Result<u64, StoreError> {
        let pruning = pruning.clone();
        self.block(move |database| database.prune(&pruning)).await
    }

    fn place(&self) -> String {
        self.database.path().display().to_string()
    }
}
