//! Units: the resumable pieces of collecting.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bus::Outgoing;
use crate::coverage::Coverage;
use crate::subject::{self, Key, Version};

/// One page of one list in one scope, up to 50 parents of one scope for details, or the root of a plugin.
///
/// The id is made of what the unit reads, so that its parent, when it is done again, announces and publishes the same
/// child. A throttled unit is replaced by its successor: the same unit with the next attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unit {
    /// Unique in (audit, version, plugin); says what is read.
    pub id: String,
    /// The audit.
    pub audit: Key,
    /// The run.
    pub version: Version,
    /// The cloud plugin.
    pub plugin: Key,
    /// The workers that are able to take it.
    pub pool: Key,
    /// The scope that it reads: a subscription's id, a project's id, or empty for the plugin as a whole.
    pub scope: String,
    /// The resource type that it reads, in the cloud's vocabulary.
    pub resource_type: String,
    /// What the plugin needs to do it.
    pub task: Box<RawValue>,
    /// Counts the successors, from 1.
    pub attempt: u32,
    /// How often the list was begun again because a page token was refused.
    #[serde(default)]
    pub restart: u32,
    /// For how long its first delivery is given back, in milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
    /// How long its predecessors waited in all because the cloud asked for it, in milliseconds.
    #[serde(default)]
    pub waited_ms: u64,
    /// How long they waited since the last answer of the cloud because something failed in passing, in milliseconds.
    #[serde(default)]
    pub failing_ms: u64,
}

/// The id of the unit that a plugin begins with.
pub const ROOT: &str = "root";

impl Unit {
    /// The unit that a cloud plugin begins with: it finds out what there is to read.
    #[must_use]
    pub fn root(audit: &Key, version: &Version, plugin: &Key, pool: &Key) -> Self {
        Self {
            id: ROOT.to_owned(),
            audit: audit.clone(),
            version: version.clone(),
            plugin: plugin.clone(),
            pool: pool.clone(),
            scope: String::new(),
            resource_type: String::new(),
            task: null(),
            attempt: 1,
            restart: 0,
            wait_ms: 0,
            waited_ms: 0,
            failing_ms: 0,
        }
    }

    /// A unit that this one announces.
    #[must_use]
    pub fn child(&self, id: String, scope: &str, resource_type: &str, task: Box<RawValue>) -> Self {
        Self {
            id,
            scope: scope.to_owned(),
            resource_type: resource_type.to_owned(),
            task,
            attempt: 1,
            restart: 0,
            wait_ms: 0,
            waited_ms: 0,
            failing_ms: 0,
            ..self.clone()
        }
    }

    /// The unit that reads the next page of this one's list.
    #[must_use]
    pub fn next_page(&self, id: String, task: Box<RawValue>) -> Self {
        Self { restart: self.restart, ..self.child(id, &self.scope, &self.resource_type, task) }
    }

    /// The unit that replaces this one, to be done after a wait that the cloud asked for.
    #[must_use]
    pub fn successor(&self, wait: Duration) -> Self {
        let waited_ms = self.waited_ms.saturating_add(millis(wait));
        Self { attempt: self.attempt + 1, wait_ms: millis(wait), waited_ms, failing_ms: 0, ..self.clone() }
    }

    /// The unit that replaces this one after something failed in passing, to be done after a wait.
    #[must_use]
    pub fn retry(&self, wait: Duration) -> Self {
        let failing_ms = self.failing_ms.saturating_add(millis(wait));
        Self { attempt: self.attempt + 1, wait_ms: millis(wait), failing_ms, ..self.clone() }
    }

    /// The unit as a message. Its message id holds the attempt: a unit that is published twice is queued once.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn message(&self) -> serde_json::Result<Outgoing> {
        let subject = subject::unit(&self.pool, &self.audit, &self.version, &self.plugin);
        let id = format!("unit:{}:{}:{}:{}:{}", self.audit, self.version, self.plugin, self.id, self.attempt);
        Ok(Outgoing::json(subject, self)?.with_id(id))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// What a worker says when a unit is done, before it acknowledges the unit. It may be said twice: readers keep one
/// per unit and never sum messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnitEnd {
    /// The cloud plugin.
    pub plugin: Key,
    /// The unit's id.
    pub unit: String,
    /// The unit's attempt.
    pub attempt: u32,
    /// The unit's restart.
    #[serde(default)]
    pub restart: u32,
    /// The unit's scope.
    pub scope: String,
    /// The unit's resource type.
    pub resource_type: String,
    /// The ids of the units that it published.
    pub children: Vec<String>,
    /// Frames published.
    pub frames: u64,
    /// The stream sequence of the last of them.
    pub last_seq: u64,
    /// Records in them.
    pub records: u64,
    /// What was read and what was not.
    pub coverage: Vec<Coverage>,
}
