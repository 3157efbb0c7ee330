//! Azure, over the REST API of Azure Resource Manager (ARM) and of the key vaults.
//!
//! A plugin is data: which lists it reads, and what makes records of their items (`service`). There is one module for
//! each plugin, and one engine for all. The engine reads through `arm`, which calls a service and says what its
//! refusals mean, with the tokens of `sign_in`. `list` is what a page of a list is, `resource` what a record is.

pub mod activity_log;
mod answer;
mod arm;
pub mod az_cloud;
pub mod disk;
mod engine;
pub mod key_vault;
mod list;
pub mod monitor;
mod mysql;
mod nsg;
mod params;
pub mod postgres;
mod resource;
mod service;
mod sign_in;
pub mod sql;
pub mod storage_account;
mod subscription;
#[cfg(test)]
mod vectors;
pub mod vm;
pub mod web_app;

use std::sync::Arc;

use serde_json::Value;

use crate::cloud::Cloud;
use crate::registry::{Context, Served};

/// The plugins.
pub(crate) const SERVED: &[Served] = &[
    (&az_cloud::CLASS, |params, context| build(&az_cloud::PLUGIN, params, context)),
    (&vm::CLASS, |params, context| build(&vm::PLUGIN, params, context)),
    (&disk::CLASS, |params, context| build(&disk::PLUGIN, params, context)),
    (&key_vault::CLASS, |params, context| build(&key_vault::PLUGIN, params, context)),
    (&monitor::CLASS, |params, context| build(&monitor::PLUGIN, params, context)),
    (&postgres::CLASS, |params, context| build(&postgres::PLUGIN, params, context)),
    (&sql::CLASS, |params, context| build(&sql::PLUGIN, params, context)),
    (&storage_account::CLASS, |params, context| build(&storage_account::PLUGIN, params, context)),
    (&activity_log::CLASS, |params, context| activity_log::build(params, context).map_err(|error| error.to_string())),
    (&web_app::CLASS, |params, context| build(&web_app::PLUGIN, params, context)),
];

fn build(plugin: &'static service::Plugin, params: &Value, context: &Context) -> Result<Arc<dyn Cloud>, String> {
    engine::build(plugin, params, context).map_err(|error| error.to_string())
}
