//! Whether a store can be used, without a run.

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

/// Connects to a store as a worker would before a run, making what has to be there before the first document; where its
/// documents are. One that a single worker serves begins its files, and leaves none.
///
/// # Errors
/// Why it cannot be used, in a plain sentence.
pub async fn try_connect(expander: &Expander, plan: &Plan, spec: &PluginSpec) -> Result<String, String> {
    let params = expander.expand(&spec.params).map_err(|errors| in_one_line(&errors))?;
    // A store has dead letters only once it has documents.
    let bus: SharedBus = Arc::new(MemoryBus::new(MemoryOptions::default()));
    let context = Context { bus: &bus, plan, spec, params: &params };
    if spec.exclusive {
        return registry::build(context).map(|_| "its files can be written".to_owned());
    }
    let store = registry::build_shared(context)?;
    match tokio::time::timeout(PATIENCE, store.connect()).await {
        Ok(Ok(())) => Ok(store.place()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{} does not answer", store.place())),
    }
}

#[cfg(test)]
mod tests {
    use proto::config::Environment;
    use proto::plan::Stage;
    use proto::subject::{Key, Role, Version};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_folder_that_cannot_be_used_is_told_and_one_that_can_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let tried = async |path: &std::path::Path| {
            let spec = PluginSpec {
                key: Key::new("files").unwrap(),
                class: "cloudmarker.stores.filestore.FileStore".to_owned(),
                params: json!({"path": path}),
                role: Role::Store,
                stage: Stage::Sink,
                exclusive: true,
                pool: None,
            };
            let plan = Plan {
                audit: Key::new("audit").unwrap(),
                version: Version::new("20260131_235959").unwrap(),
                plugins: vec![spec.clone()],
                clouds: vec![Key::new("cloud").unwrap()],
                events: Vec::new(),
                rules: Vec::new(),
            };
            try_connect(&Expander::of_everything(Environment::empty()), &plan, &spec).await
        };
        assert!(tried(&file).await.unwrap_err().contains("is not a folder"));
        assert!(tried(folder.path()).await.is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
