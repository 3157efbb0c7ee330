//! What the stages say about a run on `cm.status…`: plain JSON, for the coordinator and for anybody else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bus::Outgoing;
use crate::coverage::Coverage;
pub use crate::letter::{DeadLetter, Retry, bury};
use crate::subject::{self, Key, Role, Version};
use crate::unit::UnitEnd;

/// One message of the status stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Status {
    /// The audit's version has begun.
    RunBegun {
        /// When, in RFC 3339.
        at: String,
        /// The cloud plugins.
        clouds: Vec<Key>,
    },
    /// A unit of collecting is done.
    UnitEnd(UnitEnd),
    /// A worker has connected to a shared store: it can be used.
    Connected(Connected),
    /// A stage has settled messages of its input.
    Counts(Counts),
    /// An exclusive plugin has delivered a whole version.
    Delivered(Delivered),
    /// A plugin failed at run time.
    Failed(Failed),
    /// A part of what was read and what not, before the end of a version whose report has no room for it.
    Coverage(CoveragePart),
    /// The audit's version has ended.
    RunEnded {
        /// When, in RFC 3339.
        at: String,
        /// Whether all was read, evaluated, stored and delivered.
        complete: bool,
        /// What was not, in a sentence each.
        problems: Vec<String>,
        /// The whole report, as the coordinator writes it.
        #[serde(default)]
        report: serde_json::Value,
    },
}

impl Status {
    /// The last token of its subject.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RunBegun { .. } => "run_begun",
            Self::UnitEnd(_) => "unit_end",
            Self::Connected(_) => "connected",
            Self::Counts(_) => "counts",
            Self::Delivered(_) => "delivered",
            Self::Failed(_) => "failed",
            Self::Coverage(_) => "coverage",
            Self::RunEnded { .. } => "run_ended",
        }
    }

    /// The status as a message.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn message(&self, audit: &Key, version: &Version) -> serde_json::Result<Outgoing> {
        Outgoing::json(subject::status(audit, version, self.kind()), self)
    }
}

/// A part of what a cloud plugin read and what not. It may be said twice: readers keep one per plugin and number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CoveragePart {
    /// The cloud plugin.
    pub plugin: Key,
    /// The number of the part, from 0.
    pub part: u32,
    /// Per scope and resource type.
    pub coverage: Vec<Coverage>,
}

/// A worker has connected to a shared store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connected {
    /// The role of the plugin.
    pub role: Role,
    /// The plugin.
    pub plugin: Key,
    /// The worker.
    pub worker: String,
    /// Where the documents are, in words for people.
    pub place: String,
}

/// Messages of its input that a stage has settled. Readers fold by (role, plugin, sequence): a message that is
/// settled twice counts once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Counts {
    /// The role of the plugins.
    pub role: Role,
    /// The plugin of a shared store or alert; `None` for the evaluator, which runs all event plugins in one pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Key>,
    /// One entry per message.
    pub settled: Vec<Settled>,
}

/// One settled message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settled {
    /// Its sequence in the input stream.
    pub seq: u64,
    /// The records or events in it; of a store, those that are stored now.
    pub records: u64,
    /// Per plugin what became of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<Key, Results>,
}

/// What a rule said of records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// Records that pass.
    #[serde(default)]
    pub pass: u64,
    /// Records that fail.
    #[serde(default)]
    pub fail: u64,
    /// Records of which it cannot be said, wholly or in part: one that fails in another part counts there, too.
    #[serde(default)]
    pub unknown: u64,
    /// Events made.
    #[serde(default)]
    pub events: u64,
    /// The first record of which it cannot be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Unclear>,
}

/// A record of which a rule cannot say whether it passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unclear {
    /// The resource, as the cloud calls it.
    pub resource: String,
    /// Why it cannot be said: the field that is missing.
    pub reason: String,
}

impl Results {
    /// Adds the results of other records.
    pub fn add(&mut self, other: Self) {
        self.pass += other.pass;
        self.fail += other.fail;
        self.unknown += other.unknown;
        self.events += other.events;
        self.sample = self.sample.take().or(other.sample);
    }
}

/// An exclusive plugin has delivered: its sign of being drained.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivered {
    /// The plugin's role.
    pub role: Role,
    /// The plugin.
    pub plugin: Key,
    /// The sequence that it read through.
    pub end: u64,
    /// The messages (frames or events) that it read.
    pub messages: u64,
    /// The documents that it delivered.
    pub documents: u64,
    /// Where to, in words for people.
    pub place: String,
    /// The revision of its lease: the fencing token.
    pub revision: u64,
}

/// A plugin failed at run time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failed {
    /// The plugin's role.
    pub role: Role,
    /// The plugin.
    pub plugin: Key,
    /// The worker.
    pub worker: String,
    /// Why, and what to do.
    pub reason: String,
    /// Whether no other try can help.
    pub permanent: bool,
}
