//! Whether a shared store can be used, without a run.

use std::sync::Arc;
use std::time::Duration;

use proto::bus::SharedBus;
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::catalogue::in_one_line;
use proto::config::secret::Expander;
use proto::plan::{Plan, PluginSpec};

use crate::registry::{self, Context};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects to a shared store as a worker would before a run, making what has to be there before the first document;
/// where its documents are.
///
/// # Errors
/// Why it cannot be used, in a plain sentence.
pub async fn try_connect(expander: &Expander, plan: &Plan, spec: &PluginSpec) -> Result<String, String> {
    let params = expander.expand(&spec.params).map_err(|errors| in_one_line(&errors))?;
    // A store has dead letters only once it has documents.
    let bus: SharedBus = Arc::new(MemoryBus::new(MemoryOptions::default()));
    let store = registry::build_shared(Context { bus: &bus, plan, spec, params: &params })?;
    match tokio::time::timeout(PATIENCE, store.connect()).await {
        Ok(Ok(())) => Ok(store.place()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{} does not answer", store.place())),
    }
}
