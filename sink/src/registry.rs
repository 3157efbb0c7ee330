//! The stores that there are. A new one is a module and a line here.

use proto::bus::SharedBus;
use proto::catalogue::PluginClass;
use proto::exclusive::Exclusive;
use proto::plan::{Plan, PluginSpec, Stage};
use proto::subject::Role;
use serde_json::Value;

use crate::stores::file;

/// What a store is made of.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// For dead letters.
    pub bus: &'a SharedBus,
    /// The audit's version.
    pub plan: &'a Plan,
    /// The plugin.
    pub spec: &'a PluginSpec,
    /// Its parameters, expanded.
    pub params: &'a Value,
}

/// Builds a store that is served by one worker. The error is for people.
type Build = fn(Context<'_>) -> Result<Box<dyn Exclusive>, String>;

/// The classes that are served.
const SERVED: &[(PluginClass, Build)] = &[(file::CLASS, file::build)];

const fn planned(name: &'static str) -> PluginClass {
    PluginClass::planned(name, &[Role::Store, Role::Alert], Stage::Sink)
}

/// The classes that are known by name only.
const PLANNED: &[PluginClass] = &[
    planned("cloudmarker.stores.esstore.EsStore"),
    planned("cloudmarker.stores.mongodbstore.MongoDBStore"),
    planned("cloudmarker.stores.splunkhecstore.SplunkHECStore"),
];

/// All classes.
pub fn classes() -> impl Iterator<Item = &'static PluginClass> {
    SERVED.iter().map(|(class, _)| class).chain(PLANNED)
}

/// The classes that this program serves.
pub fn served() -> impl Iterator<Item = &'static PluginClass> {
    SERVED.iter().map(|(class, _)| class)
}

/// Builds a store.
///
/// # Errors
/// Why it cannot be built, for people.
pub fn build(context: Context<'_>) -> Result<Box<dyn Exclusive>, String> {
    let short = context.spec.short_class();
    let Some((_, build)) = SERVED.iter().find(|(class, _)| class.short_name() == short) else {
        return Err(format!("this sink does not serve the class {}", context.spec.class));
    };
    build(context)
}
