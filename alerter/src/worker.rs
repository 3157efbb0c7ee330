//! Serves the alerts of all open versions.

use std::sync::Arc;

use proto::exclusive::{self, Factory};
use proto::plan::{Plan, PluginSpec};
use proto::service::Worker;

/// Serves until the worker is to stop.
pub async fn run(worker: Worker) {
    exclusive::run(worker, factory).await;
}

fn factory(_worker: &Worker, _plan: &Arc<Plan>, spec: &PluginSpec) -> Factory {
    let class = spec.class.clone();
    Box::new(move || Err(format!("this alerter does not serve the class {class}")))
}
