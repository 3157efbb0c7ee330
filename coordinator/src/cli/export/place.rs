//! Which inventory is read.

use std::path::PathBuf;

use clap::Args;
use proto::config::secret::Expander;
use proto::config::{Config, Environment, PluginConfig, suggest};
use sink::stores::sqlite::{CLASS, default_path};

use crate::cli::check;

#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// Configuration files, instead of the default ones: they say where the SqliteStore is.
    #[arg(short, long, value_name = "FILE", num_args = 0.., action = clap::ArgAction::Append)]
    config: Option<Vec<PathBuf>>,
    /// The SqliteStore of the configuration, where it has several.
    #[arg(long, value_name = "KEY", conflicts_with = "path")]
    store: Option<String>,
    /// The file of the inventory itself.
    #[arg(long, visible_alias = "db", value_name = "FILE", conflicts_with = "config")]
    path: Option<PathBuf>,
}

impl PlaceArgs {
    /// The file of the inventory.
    pub(super) fn find(&self, environment: &Environment) -> Result<PathBuf, String> {
        if let Some(path) = &self.path {
            return Ok(environment.path(path));
        }
        let (config, _) = check::read(self.config.as_deref(), &[], environment).ok_or(
            "the configuration says where the inventory is, and is not good (see above); or name the file with --path",
        )?;
        match &self.store {
            Some(key) => of_store(&config, key, environment),
            None => the_only(&config, environment),
        }
    }
}

/// The SqliteStores of a configuration.
fn stores(config: &Config) -> impl Iterator<Item = (&str, &PluginConfig)> {
    let all = config.plugins.iter().filter(|(_, plugin)| plugin.class == CLASS.name);
    all.map(|(key, plugin)| (key.as_str(), plugin))
}

fn of_store(config: &Config, key: &str, environment: &Environment) -> Result<PathBuf, String> {
    let found = stores(config).find(|(known, _)| *known == key);
    let (_, plugin) = found.ok_or_else(|| {
        let names: Vec<&str> = stores(config).map(|(key, _)| key).collect();
        format!("--store: {}", suggest::unknown("SqliteStore", key, &names))
    })?;
    path(key, plugin, environment)
}

/// The one that there is; without any, the one that a SqliteStore without parameters would have.
fn the_only(config: &Config, environment: &Environment) -> Result<PathBuf, String> {
    let mut paths = Vec::new();
    for (key, plugin) in stores(config) {
        paths.push((key, path(key, plugin, environment)?));
    }
    let is_one = paths.windows(2).all(|two| two[0].1 == two[1].1);
    match paths.pop() {
        None => Ok(default_path(environment)),
        Some((_, path)) if is_one => Ok(path),
        Some((last, _)) => {
            let keys: Vec<&str> = paths.into_iter().map(|(key, _)| key).chain([last]).collect();
            Err(format!("the configuration has several SqliteStores; name one with --store: {}", keys.join(", ")))
        }
    }
}

fn path(key: &str, plugin: &PluginConfig, environment: &Environment) -> Result<PathBuf, String> {
    let Some(path) = plugin.params["path"].as_str() else { return Ok(default_path(environment)) };
    let expanded = Expander::of_everything(environment.clone()).expand_text(path);
    expanded.map(|path| environment.path(path)).map_err(|error| format!("plugins.{key}.params.path: {error}"))
}
