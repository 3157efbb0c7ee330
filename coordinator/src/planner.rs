//! Makes plans of a configuration, and refuses what could not run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use evaluator::rule::RuleError;
use proto::catalogue::PluginClass;
use proto::config::Config;
use proto::plan::{Plan, PluginSpec, RuleText, Stage};
use proto::subject::{Key, Role, Version};
use serde_json::Value;

/// All classes of all stages.
#[must_use]
pub fn classes() -> Vec<&'static PluginClass> {
    collector::registry::classes()
        .chain(evaluator::registry::classes())
        .chain(sink::registry::classes())
        .chain(alerter::registry::classes())
        .collect()
}

/// The rules of users: their texts, which travel with the plans, and the classes that they make.
#[derive(Debug, Default)]
pub struct UserRules {
    texts: Vec<RuleText>,
    classes: Vec<&'static PluginClass>,
}

impl UserRules {
    /// Reads and compiles rule files, and all those below folders.
    ///
    /// # Errors
    /// All that is wrong with them, with its place.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Vec<RuleError>> {
        if paths.is_empty() {
            return Ok(Self::default());
        }
        let texts = evaluator::rule::read_files(paths)?;
        let pack = evaluator::rule::built_in().with(&texts)?;
        Ok(Self { texts, classes: evaluator::registry::classes_of(&pack) })
    }

    /// The classes of all stages, and those of these rules before them: they replace what has the same name.
    #[must_use]
    pub fn with_classes(&self) -> Vec<&'static PluginClass> {
        self.classes.iter().copied().chain(classes()).collect()
    }
}

/// Why a configuration cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An audit needs a plugin that this version knows and does not serve.
    #[error("{0}")]
    Unserved(String),
    /// Something is wrong with it.
    #[error("{0}")]
    Wrong(String),
}

/// What a configuration comes to for the audits of a run. A plan is made of it for each version.
#[derive(Debug)]
pub struct Planner {
    rules: Vec<RuleText>,
    audits: BTreeMap<Key, Vec<PluginSpec>>,
    order: Vec<Key>,
}

impl Planner {
    /// Plans the audits that a configuration runs.
    ///
    /// # Errors
    /// All that keeps it from running: classes that this version does not serve, files that two plugins would write.
    pub fn new(config: &Config, rules: &UserRules) -> Result<Self, Vec<PlanError>> {
        let classes = rules.with_classes();
        let mut errors = Vec::new();
        let mut audits = BTreeMap::new();
        for key in &config.run {
            let Some(audit) = config.audits.get(key) else { continue };
            let mut specs = Vec::new();
            let lists = [
                (Role::Cloud, &audit.clouds),
                (Role::Event, &audit.events),
                (Role::Store, &audit.stores),
                (Role::Alert, &audit.alerts),
            ];
            for (role, plugins) in lists {
                for plugin in plugins {
                    match spec(config, &classes, role, plugin) {
                        Ok(spec) => specs.push(spec),
                        Err(error) => errors.push(match error {
                            PlanError::Unserved(why) => PlanError::Unserved(format!("audits.{key}.{role}s: {why}")),
                            PlanError::Wrong(why) => PlanError::Wrong(format!("audits.{key}.{role}s: {why}")),
                        }),
                    }
                }
            }
            audits.insert(key.clone(), specs);
        }
        let planner = Self { rules: rules.texts.clone(), audits, order: config.run.clone() };
        errors.extend(planner.shared_files().into_iter().map(PlanError::Wrong));
        if errors.is_empty() { Ok(planner) } else { Err(errors) }
    }

    /// The audits, in the order of the run.
    #[must_use]
    pub fn audits(&self) -> &[Key] {
        &self.order
    }

    /// An audit's plan for a version.
    #[must_use]
    pub fn plan(&self, audit: &Key, version: &Version) -> Plan {
        let plugins = self.audits.get(audit).cloned().unwrap_or_default();
        let keys = |role| plugins.iter().filter(|spec| spec.role == role).map(|spec| spec.key.clone()).collect();
        Plan {
            audit: audit.clone(),
            version: version.clone(),
            clouds: keys(Role::Cloud),
            events: keys(Role::Event),
            plugins,
            rules: self.rules.clone(),
        }
    }

    /// Files that two plugins would write: names are made of an audit's and a plugin's key, which may run together.
    fn shared_files(&self) -> Vec<String> {
        let mut writers: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut errors = Vec::new();
        for (audit, specs) in &self.audits {
            let keys = |role| -> Vec<Key> {
                specs.iter().filter(|spec| spec.role == role).map(|spec| spec.key.clone()).collect()
            };
            for spec in specs.iter().filter(|spec| spec.short_class() == "FileStore") {
                let origins = keys(if spec.role == Role::Alert { Role::Event } else { Role::Cloud });
                // Wrong parameters have been told by the check of the configuration.
                let Ok(files) = sink::stores::file::files(audit, &origins, &spec.params) else { continue };
                for (file, origin) in files.into_iter().zip(&origins) {
                    let writer = format!("{} of audits.{audit}.{}s (for {origin})", spec.key, spec.role);
                    if let Some(other) = writers.insert(file.clone(), writer.clone()) {
                        let file = file.display();
                        errors.push(format!(
                            "{writer} and {other} would write the same file {file}; \
                             give one of them another `path`, or rename the audit or the plugin"
                        ));
                    }
                }
            }
        }
        errors
    }
}

fn spec(config: &Config, classes: &[&PluginClass], role: Role, key: &Key) -> Result<PluginSpec, PlanError> {
    let Some(plugin) = config.plugins.get(key) else {
        return Err(PlanError::Wrong(format!("there is no plugin {key}")));
    };
    let short = plugin.class.rsplit('.').next().unwrap_or(&plugin.class);
    let Some(class) = classes.iter().find(|class| class.short_name() == short) else {
        return Err(PlanError::Wrong(format!("the class {} of the plugin {key} is unknown", plugin.class)));
    };
    if class.check.is_none() {
        return Err(PlanError::Unserved(format!(
            "the plugin {key} is of the class {short}, which this version does not serve; remove it from the audit"
        )));
    }
    let pool = match (&plugin.pool, class.pool) {
        (_, None) => None,
        (Some(pool), Some(_)) => Some(pool.clone()),
        (None, Some(pool)) => Some(Key::new(pool).map_err(|error| PlanError::Wrong(error.to_string()))?),
    };
    let params = match &plugin.params {
        Value::Null => Value::Object(serde_json::Map::new()),
        params => params.clone(),
    };
    // The alerter serves what talks to people; stores are the sink's, in both roles.
    let stage: Stage = class.stage;
    Ok(PluginSpec {
        key: key.clone(),
        class: class.name.to_owned(),
        params,
        role,
        stage,
        exclusive: class.exclusive,
        pool,
    })
}
