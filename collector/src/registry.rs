//! The clouds that there are. A new one is a module and a line here.

use std::sync::Arc;

use proto::catalogue::{PluginClass, in_one_line};
use proto::plan::PluginSpec;
use proto::subject::Key;
use serde_json::Value;

use crate::cloud::Cloud;
use crate::http::Limits;
use crate::{aws, azure, gcp, mock};

/// What all plugins of a worker share.
#[derive(Debug, Clone)]
pub struct Context {
    /// The bounds of what they ask of the clouds at once.
    pub limits: Arc<Limits>,
}

/// Builds a plugin of its parameters, expanded. The error is for people.
pub(crate) type Build = fn(&Value, &Context) -> Result<Arc<dyn Cloud>, String>;

/// A class and what builds it.
pub(crate) type Served = (&'static PluginClass, Build);

/// The classes that are served, cloud by cloud.
const SERVED: &[&[Served]] = &[
    &[(&mock::CLASS, |params, _| mock::build(params).map_err(|errors| in_one_line(&errors)))],
    aws::SERVED,
    azure::SERVED,
    gcp::SERVED,
];

/// All classes.
pub fn classes() -> impl Iterator<Item = &'static PluginClass> {
    served()
}

/// The classes that this program serves.
pub fn served() -> impl Iterator<Item = &'static PluginClass> {
    SERVED.iter().flat_map(|cloud| cloud.iter()).map(|(class, _)| *class)
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
pub fn build(spec: &PluginSpec, params: &Value, context: &Context) -> Result<Arc<dyn Cloud>, String> {
    let short = spec.short_class();
    let Some((_, build)) = SERVED.iter().flat_map(|cloud| cloud.iter()).find(|(class, _)| class.short_name() == short)
    else {
        return Err(format!("this collector does not serve the class {}", spec.class));
    };
    build(params, context)
}
