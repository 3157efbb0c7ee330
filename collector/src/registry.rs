//! The clouds that there are. A new one is a module and a line here.

use std::sync::Arc;

use proto::catalogue::{PluginClass, in_one_line};
use proto::plan::{PluginSpec, Stage};
use proto::subject::{Key, Role};
use serde_json::Value;

use crate::cloud::Cloud;
use crate::{azure, mock};

/// Builds a plugin of its parameters, expanded. The error is for people.
type Build = fn(&Value) -> Result<Arc<dyn Cloud>, String>;

/// The classes that are served.
const SERVED: &[(PluginClass, Build)] = &[
    (mock::CLASS, |params| mock::build(params).map_err(|errors| in_one_line(&errors))),
    (azure::az_cloud::CLASS, |params| azure::az_cloud::build(params).map_err(|error| error.to_string())),
];

const fn planned(name: &'static str) -> PluginClass {
    PluginClass::planned(name, &[Role::Cloud], Stage::Collector)
}

/// The classes that are known by name only.
const PLANNED: &[PluginClass] = &[
    planned("cloudmarker.clouds.azvm.AzVM"),
    planned("cloudmarker.clouds.azdisk.AzDisk"),
    planned("cloudmarker.clouds.azkv.AzKV"),
    planned("cloudmarker.clouds.azmonitor.AzMonitor"),
    planned("cloudmarker.clouds.azpostgres.AzPostgres"),
    planned("cloudmarker.clouds.azsql.AzSQL"),
    planned("cloudmarker.clouds.azstorageaccount.AzStorageAccount"),
    planned("cloudmarker.clouds.azwebapp.AzWebApp"),
    planned("cloudmarker.clouds.gcpcloud.GCPCloud"),
];

/// All classes.
pub fn classes() -> impl Iterator<Item = &'static PluginClass> {
    SERVED.iter().map(|(class, _)| class).chain(PLANNED)
}

/// The classes that this program serves.
pub fn served() -> impl Iterator<Item = &'static PluginClass> {
    SERVED.iter().map(|(class, _)| class)
}

/// The pools of the clouds that are served, as they are called unless a configuration names others.
#[must_use]
pub fn pools() -> Vec<Key> {
    let mut pools: Vec<Key> = served().filter_map(|class| Key::new(class.pool?).ok()).collect();
    pools.sort();
    pools.dedup();
    pools
}

/// Builds a plugin of its parameters, expanded.
///
/// # Errors
/// Why it cannot be built, for people.
pub fn build(spec: &PluginSpec, params: &Value) -> Result<Arc<dyn Cloud>, String> {
    let short = spec.short_class();
    let Some((_, build)) = SERVED.iter().find(|(class, _)| class.short_name() == short) else {
        return Err(format!("this collector does not serve the class {}", spec.class));
    };
    build(params)
}
