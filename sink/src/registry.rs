//! The stores that there are. A new one is a module and a line here.

use std::sync::{Arc, LazyLock};

use proto::bus::SharedBus;
use proto::catalogue::PluginClass;
use proto::exclusive::Exclusive;
use proto::plan::{Plan, PluginSpec};
use serde_json::Value;

use crate::settings;
use crate::store::Store;
use crate::stores::{elasticsearch, file, mongodb, splunk, sqlite};

/// What a store is made of.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// For dead letters.
    pub bus: &'a SharedBus,
    /// The audit's version.
    pub plan: &'a Plan,
    /// The plugin.
    pub spec: &'a PluginSpec,
    /// Its parameters, expanded. Those that all shared stores have ([`settings::Settings`]) are not among them.
    pub params: &'a Value,
}

/// Builds a store. The error is for people.
#[derive(Clone, Copy)]
enum Build {
    /// One that is served by one worker: its class has `exclusive: true`.
    Exclusive(fn(Context<'_>) -> Result<Box<dyn Exclusive>, String>),
    /// One that any number of workers write to: its class has `exclusive: false`.
    Shared(fn(Context<'_>) -> Result<Arc<dyn Store>, String>),
}

/// The classes that are served: a line for each.
const SERVED: &[(PluginClass, Build)] = &[
    (elasticsearch::CLASS, Build::Shared(elasticsearch::build)),
    (file::CLASS, Build::Exclusive(file::build)),
    (mongodb::CLASS, Build::Shared(mongodb::build)),
    (splunk::CLASS, Build::Shared(splunk::build)),
    (sqlite::CLASS, Build::Shared(sqlite::build)),
];

/// The served classes with the checks of what all shared stores have before their own.
static CLASSES: LazyLock<Vec<PluginClass>> = LazyLock::new(|| SERVED.iter().map(complete).collect());

fn complete((class, build): &(PluginClass, Build)) -> PluginClass {
    match (build, class.check) {
        (Build::Shared(_), Some(check)) => {
            PluginClass { check: Some(Box::leak(Box::new(settings::check_with(check)))), ..*class }
        }
        _ => *class,
    }
}

/// All classes.
pub fn classes() -> impl Iterator<Item = &'static PluginClass> {
    CLASSES.iter()
}

/// The classes that this program serves.
pub fn served() -> impl Iterator<Item = &'static PluginClass> {
    CLASSES.iter()
}

fn find(spec: &PluginSpec) -> Result<Build, String> {
    let short = spec.short_class();
    let found = SERVED.iter().find(|(class, _)| class.short_name() == short);
    found.map(|(_, build)| *build).ok_or_else(|| format!("this sink does not serve the class {}", spec.class))
}

/// Builds a store that is served by one worker.
///
/// # Errors
/// Why it cannot be built, for people.
pub fn build(context: Context<'_>) -> Result<Box<dyn Exclusive>, String> {
    match find(context.spec)? {
        Build::Exclusive(build) => build(context),
        Build::Shared(_) => Err(format!("the class {} is not one that one worker serves", context.spec.class)),
    }
}

/// Builds a store that several workers write to. `params` are its expanded parameters, with those that all shared
/// stores have.
///
/// # Errors
/// Why it cannot be built, for people.
pub fn build_shared(context: Context<'_>) -> Result<Arc<dyn Store>, String> {
    match find(context.spec)? {
        Build::Shared(build) => {
            let (_, own) = settings::split(context.params);
            build(Context { params: &own, ..context })
        }
        Build::Exclusive(_) => Err(format!("the class {} is one that one worker serves", context.spec.class)),
    }
}
