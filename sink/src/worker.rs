//! Serves the stores of all open versions.

use std::sync::Arc;

use proto::catalogue::in_one_line;
use proto::exclusive::{self, Factory};
use proto::plan::{Plan, PluginSpec};
use proto::service::Worker;

use crate::batch;
use crate::registry::{self, Context};

/// Serves until the worker is to stop.
pub async fn run(worker: Worker) {
    tokio::join!(exclusive::run(worker.clone(), factory), batch::run(worker));
}

fn factory(worker: &Worker, plan: &Arc<Plan>, spec: &PluginSpec) -> Factory {
    let (worker, plan, spec) = (worker.clone(), Arc::clone(plan), spec.clone());
    Box::new(move || {
        let params = worker.expander.expand(&spec.params).map_err(|errors| in_one_line(&errors))?;
        registry::build(Context { bus: &worker.bus, plan: &plan, spec: &spec, params: &params })
    })
}
