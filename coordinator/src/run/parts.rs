//! The parts of an audit's version that somebody must serve, and whether anybody can.

use std::collections::BTreeMap;

use proto::frame::SCHEMA;
use proto::plan::{Plan, PluginSpec, Stage};
use proto::service::presence::WorkerInfo;
use proto::subject::{Key, Role};

/// A part: a plugin, or all event plugins, which the evaluator serves in one pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A cloud, store or alert plugin.
    Plugin(Role, Key),
    /// All event plugins.
    Evaluation,
}

/// Why nobody serves a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// The reason, and what to do.
    pub reason: String,
    /// A worker is there and cannot: it says why.
    pub refused: bool,
}

/// All parts of a plan.
#[must_use]
pub fn of(plan: &Plan) -> Vec<Part> {
    let single = |role| plan.of_role(role).map(move |spec| Part::Plugin(role, spec.key.clone()));
    let mut parts: Vec<Part> = single(Role::Cloud).collect();
    if plan.of_role(Role::Event).next().is_some() {
        parts.push(Part::Evaluation);
    }
    parts.extend(single(Role::Store));
    parts.extend(single(Role::Alert));
    parts
}

/// The parts that no living worker can serve.
#[must_use]
pub fn unserved(plan: &Plan, workers: &[WorkerInfo]) -> BTreeMap<Part, Unserved> {
    let unserved = of(plan).into_iter().filter_map(|part| {
        let why = match &part {
            Part::Plugin(role, key) => {
                plan.plugins.iter().find(|spec| spec.role == *role && spec.key == *key).and_then(|spec| {
                    why_unserved(plan, workers, spec.stage, &[spec], &|cannot| {
                        cannot.role == *role && cannot.plugin == *key
                    })
                })
            }
            Part::Evaluation => {
                let specs: Vec<&PluginSpec> = plan.of_role(Role::Event).collect();
                why_unserved(plan, workers, Stage::Evaluator, &specs, &|cannot| cannot.role == Role::Event)
            }
        };
        why.map(|why| (part, why))
    });
    unserved.collect()
}

fn why_unserved(
    plan: &Plan,
    workers: &[WorkerInfo],
    stage: Stage,
    specs: &[&PluginSpec],
    concerns: &dyn Fn(&proto::service::presence::Cannot) -> bool,
) -> Option<Unserved> {
    let of_stage: Vec<&WorkerInfo> =
        workers.iter().filter(|worker| worker.stage == stage && worker.schema == SCHEMA).collect();
    let cannot = |worker: &WorkerInfo| {
        worker
            .cannot
            .iter()
            .find(|cannot| cannot.audit == plan.audit && cannot.version == plan.version && concerns(cannot))
            .map(|cannot| (worker.name.clone(), cannot.reason.clone()))
    };
    let missing = |worker: &WorkerInfo| -> Option<String> {
        specs.iter().find_map(|spec| {
            // A rule of a user comes with the plan.
            let is_carried = spec.role == Role::Event
                && !plan.rules.is_empty()
                && evaluator::registry::served().all(|class| class.short_name() != spec.short_class());
            if !is_carried && !worker.classes.iter().any(|class| class == spec.short_class()) {
                return Some(format!("serves the class {}", spec.short_class()));
            }
            let pool = spec.pool.as_ref()?;
            (!worker.pools.contains(pool)).then(|| format!("serves the pool {pool}"))
        })
    };
    if of_stage.iter().any(|worker| missing(worker).is_none() && cannot(worker).is_none()) {
        return None;
    }
    if let Some((name, reason)) = of_stage.iter().find_map(|worker| cannot(worker)) {
        let reason = if plan.plugins.len() > 1 && workers.len() > 4 { format!("{reason} ({name})") } else { reason };
        return Some(Unserved { reason, refused: true });
    }
    let lacks = of_stage.iter().find_map(|worker| missing(worker));
    let what = match (lacks, specs.first().and_then(|spec| spec.pool.as_ref())) {
        (Some(lacks), _) => format!("no running {stage} {lacks}"),
        (None, Some(pool)) => format!("no {stage} of the pool {pool} is running"),
        (None, None) => format!("no {stage} is running"),
    };
    Some(Unserved { reason: format!("{what}; start one: `{stage} --nats URL`"), refused: false })
}
