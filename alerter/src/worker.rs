//! Serves the alerts of all open versions.

use std::sync::Arc;

use proto::catalogue::in_one_line;
use proto::exclusive::{self, Factory};
use proto::plan::{Plan, PluginSpec};
use proto::service::Worker;

use crate::registry;

/// Serves until the worker is to stop.
pub async fn run(worker: Worker) {
    exclusive::run(worker, factory).await;
}

fn factory(worker: &Worker, plan: &Arc<Plan>, spec: &PluginSpec) -> Factory {
    let (worker, plan, spec) = (worker.clone(), Arc::clone(plan), spec.clone());
    Box::new(move || {
        let params = worker.expander.expand(&spec.params).map_err(|errors| in_one_line(&errors))?;
        registry::build(&worker.bus, &plan, &spec, &params)
    })
}
