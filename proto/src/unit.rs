//! Units: the resumable pieces of collecting.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bus::Outgoing;
use crate::checkpoint::Reached;
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
    /// Which of the scope's lists of that type it reads, where there are several: the name of the vault, say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// What the plugin needs to do it.
    pub task: Box<RawValue>,
    /// How many calls it makes at once: a worker takes the fewer units, the more they make. 0 is one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub calls: u32,
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
    /// Units that this one does nothing but publish: see [`Unit::relays`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relayed: Vec<Unit>,
}

/// Most units that one unit announces: its end must fit into a message.
pub const MOST_CHILDREN: usize = 512;

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
            list: None,
            task: null(),
            calls: 0,
            attempt: 1,
            restart: 0,
            wait_ms: 0,
            waited_ms: 0,
            failing_ms: 0,
            relayed: Vec::new(),
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
            calls: 0,
            attempt: 1,
            restart: 0,
            wait_ms: 0,
            waited_ms: 0,
            failing_ms: 0,
            list: None,
            relayed: Vec::new(),
            audit: self.audit.clone(),
            version: self.version.clone(),
            plugin: self.plugin.clone(),
            pool: self.pool.clone(),
        }
    }

    /// The unit that goes on with this one's list: its next page, or the details of its items.
    #[must_use]
    pub fn next_page(&self, id: String, task: Box<RawValue>) -> Self {
        let child = self.child(id, &self.scope, &self.resource_type, task);
        Self { restart: self.restart, list: self.list.clone(), ..child }
    }

    /// The unit that does, after a wait, what this one has left: this one has done some of its work, so that all
    /// patience begins anew.
    #[must_use]
    pub fn rest(&self, task: Box<RawValue>, wait: Duration) -> Self {
        let next = self.next_page(format!("{}+", self.id), task);
        Self { wait_ms: millis(wait), calls: self.calls, ..next }
    }

    /// The same children, or, if they are too many for one unit end, units that announce them.
    ///
    /// ```
    /// # use proto::subject::{Key, Version};
    /// # use proto::unit::{MOST_CHILDREN, Unit};
    /// # let (key, version) = (Key::new("k").unwrap(), Version::new("20260131_235959").unwrap());
    /// let root = Unit::root(&key, &version, &key, &key);
    /// let children = (0..3 * MOST_CHILDREN).map(|n| root.child(n.to_string(), "", "", root.task.clone()));
    /// let relays = root.relays(children.collect());
    /// assert_eq!((relays.len(), relays[0].relayed.len()), (3, MOST_CHILDREN));
    /// ```
    #[must_use]
    pub fn relays(&self, children: Vec<Self>) -> Vec<Self> {
        if children.len() <= MOST_CHILDREN {
            return children;
        }
        let mut relays: Vec<Self> = Vec::new();
        for child in children {
            match relays.last_mut() {
                Some(relay) if relay.relayed.len() < MOST_CHILDREN => relay.relayed.push(child),
                _ => {
                    let id = format!("{}/{}", self.id, relays.len());
                    let relay = self.child(id, &self.scope, &self.resource_type, null());
                    relays.push(Self { relayed: vec![child], list: Some("relay".to_owned()), ..relay });
                }
            }
        }
        self.relays(relays)
    }

    /// The unit that replaces this one, to be done after a wait that the cloud asked for.
    #[must_use]
    pub fn successor(&self, wait: Duration) -> Self {
        let waited_ms = self.waited_ms.saturating_add(millis(wait));
        Self { attempt: self.attempt + 1, wait_ms: millis(wait), waited_ms, failing_ms: 0, ..self.clone() }
    }

    /// The unit that replaces this one because others of its scope wait: it has not been tried, so that its patience is
    /// as it was.
    #[must_use]
    pub fn put_off(&self, wait: Duration) -> Self {
        Self { attempt: self.attempt + 1, wait_ms: millis(wait), ..self.clone() }
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

/// A pause that the cloud has asked for, as it stands in [`Bucket::Throttle`](crate::bus::Bucket::Throttle): all
/// collectors honour it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// The plugin whose units wait.
    pub plugin: Key,
    /// The scope that they read.
    pub scope: String,
    /// Which of the scope's lists of a type they read, where it is throttled on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// How long the pause is, in milliseconds.
    pub wait_ms: u64,
    /// When it ends by the clock of the collector that was told, in RFC 3339: for people.
    pub until: String,
}

impl Throttle {
    /// The pause of a unit that the cloud has told to wait.
    #[must_use]
    pub fn of(unit: &Unit, wait: Duration) -> Self {
        let until = jiff::Timestamp::now().checked_add(wait).unwrap_or(jiff::Timestamp::MAX);
        Self {
            plugin: unit.plugin.clone(),
            scope: unit.scope.clone(),
            list: unit.list.clone(),
            wait_ms: millis(wait),
            until: until.to_string(),
        }
    }

    /// How long the pause is.
    #[must_use]
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
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
    /// Which of the scope's lists of that type it read, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
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
    /// How far what grows without end was read, from where it began and without a gap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<Reached>,
}
