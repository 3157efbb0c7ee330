//! Plans: what the coordinator makes of the configuration for one audit version, cut by stage.
//!
//! A plan holds `${NAME}` references as the configuration has them; each worker expands what its own start-up allows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bus::{Bucket, Bus, BusError};
use crate::subject::{Key, Role, Version};

/// A stage of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Units in, records out.
    Collector,
    /// Records in, events out.
    Evaluator,
    /// Records or events in, documents out.
    Sink,
    /// Events in, messages to people out.
    Alerter,
    /// Plans and watches.
    Coordinator,
}

impl Stage {
    /// The stage's name, which is also its program's.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Collector => "collector",
            Self::Evaluator => "evaluator",
            Self::Sink => "sink",
            Self::Alerter => "alerter",
            Self::Coordinator => "coordinator",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A plugin as the configuration has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginSpec {
    /// Its key under `plugins:`.
    pub key: Key,
    /// The class that it names, as written: `cloudmarker.clouds.mockcloud.MockCloud`.
    pub class: String,
    /// Its parameters, unexpanded: a mapping.
    pub params: serde_json::Value,
    /// Its role in the audit.
    pub role: Role,
    /// The stage that serves it.
    pub stage: Stage,
    /// Whether one worker serves a whole version of it.
    #[serde(default)]
    pub exclusive: bool,
    /// The workers able to take its units: for clouds only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Key>,
}

impl PluginSpec {
    /// The last part of the class's name.
    #[must_use]
    pub fn short_class(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or(&self.class)
    }
}

/// What one stage needs to know of an audit's version; the coordinator's own is whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The audit.
    pub audit: Key,
    /// The run.
    pub version: Version,
    /// The plugins that the stage serves.
    pub plugins: Vec<PluginSpec>,
    /// The cloud plugins' keys: whose records there are.
    pub clouds: Vec<Key>,
    /// The event plugins' keys: whose events there are.
    pub events: Vec<Key>,
    /// The users' own rules: for the evaluator only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleText>,
}

/// A rule file of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleText {
    /// Its path, as the configuration finds it.
    pub file: String,
    /// What it says.
    pub text: String,
}

impl Plan {
    /// The part of the plan that a stage gets.
    #[must_use]
    pub fn cut(&self, stage: Stage) -> Self {
        let plugins = match stage {
            Stage::Coordinator => self.plugins.clone(),
            _ => self.plugins.iter().filter(|plugin| plugin.stage == stage).cloned().collect(),
        };
        let rules = match stage {
            Stage::Coordinator | Stage::Evaluator => self.rules.clone(),
            _ => Vec::new(),
        };
        Self { plugins, rules, ..self.clone() }
    }

    /// The plugins of a role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &PluginSpec> {
        self.plugins.iter().filter(move |plugin| plugin.role == role)
    }

    /// The keys of the plugins that make what a role reads: clouds for stores, event plugins for alerts.
    #[must_use]
    pub fn origins(&self, role: Role) -> &[Key] {
        match role {
            Role::Alert => &self.events,
            _ => &self.clouds,
        }
    }

    /// Puts the plan where the workers of a stage find it.
    ///
    /// # Errors
    /// When the broker refuses it or is away for too long.
    pub async fn publish(&self, bus: &dyn Bus, stage: Stage) -> Result<(), BusError> {
        let body = serde_json::to_vec(&self.cut(stage)).map_err(BusError::json)?;
        let key = key(&self.audit, &self.version, stage);
        if body.len() <= MAX_VALUE {
            bus.kv_put(Bucket::Plans, &key, body.into()).await?;
            return Ok(());
        }
        let packed = lz4_flex::compress_prepend_size(&body);
        let parts: Vec<&[u8]> = packed.chunks(MAX_VALUE).collect();
        for (number, part) in parts.iter().enumerate() {
            bus.kv_put(Bucket::Plans, &format!("{key}.part.{number}"), part.to_vec().into()).await?;
        }
        let index = Parts { parts: parts.len() };
        bus.kv_put(Bucket::Plans, &key, serde_json::to_vec(&index).map_err(BusError::json)?.into()).await?;
        Ok(())
    }

    /// The plan of a stage, if there is one.
    ///
    /// # Errors
    /// When the broker cannot be asked or the plan cannot be read.
    pub async fn fetch(bus: &dyn Bus, audit: &Key, version: &Version, stage: Stage) -> Result<Option<Self>, BusError> {
        let key = key(audit, version, stage);
        let Some(entry) = bus.kv_get(Bucket::Plans, &key).await? else { return Ok(None) };
        let Ok(Parts { parts }) = serde_json::from_slice(&entry.value) else {
            return serde_json::from_slice(&entry.value).map(Some).map_err(BusError::json);
        };
        let mut packed = Vec::new();
        for number in 0..parts {
            let Some(part) = bus.kv_get(Bucket::Plans, &format!("{key}.part.{number}")).await? else {
                return Ok(None);
            };
            packed.extend_from_slice(&part.value);
        }
        let (size, block) = lz4_flex::block::uncompressed_size(&packed).map_err(BusError::corrupt)?;
        if size > MAX_PLAN {
            return Err(BusError::corrupt(format!("a plan of {size} bytes")));
        }
        let body = lz4_flex::block::decompress(block, size).map_err(BusError::corrupt)?;
        serde_json::from_slice(&body).map(Some).map_err(BusError::json)
    }

    /// Removes the plan of a stage.
    ///
    /// # Errors
    /// When the broker refuses it or is away for too long.
    pub async fn remove(bus: &dyn Bus, audit: &Key, version: &Version, stage: Stage) -> Result<(), BusError> {
        for entry in bus.kv_entries(Bucket::Plans, &key(audit, version, stage)).await? {
            bus.kv_delete(Bucket::Plans, &entry.key).await?;
        }
        Ok(())
    }
}

/// The largest value that is put under one key, in bytes.
const MAX_VALUE: usize = 512 * 1024;
/// The largest plan, in bytes.
const MAX_PLAN: usize = 64 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    parts: usize,
}

fn key(audit: &Key, version: &Version, stage: Stage) -> String {
    format!("{}.{version}.{stage}", audit.token())
}
