//! The state of a run: one key of `cm_runs` per version, changed by the holder of the run's lease; to cancel it, by
//! anybody who may.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::subject::{Key, Version};

/// Half of the time that records are kept: a run that is older is failed before its records age out.
pub const MAX_RUN: Duration = Duration::from_secs(7 * 24 * 3600 / 2);

/// How far an audit's version has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The version is taken, its plans and consumers are being made.
    Planned,
    /// The shared stores are being connected to: nothing is collected before it is known that they can be used.
    Connecting,
    /// Units are in the queue or being worked on.
    Collecting,
    /// All records are published; evaluator and stores work them off.
    DrainingStores,
    /// All events are published; alerts work them off.
    DrainingAlerts,
    /// All is settled; the summary is being made.
    Finishing,
    /// Nothing more is done for this version.
    Ended,
}

impl Phase {
    /// The words for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Connecting => "connecting to stores",
            Self::Collecting => "collecting",
            Self::DrainingStores => "draining stores",
            Self::DrainingAlerts => "draining alerts",
            Self::Finishing => "finishing",
            Self::Ended => "ended",
        }
    }
}

/// The state of one audit of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditState {
    /// How far it has come.
    pub phase: Phase,
    /// The last sequence of its records, once collecting has ended: what stores read through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_end: Option<u64>,
    /// The last sequence of its events, once the evaluator has drained: what alerts read through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_end: Option<u64>,
    /// How many events there were then, where the bus keeps what was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// What could not be read or evaluated, in a sentence each, a bounded number: known with `events_end`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
    /// What rules could not judge, in a sentence each, a bounded number: known with `events_end`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unclear: Vec<String>,
    /// Parts that have ended as failed: nobody waits for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedPart>,
    /// An operator cancelled it before it had ended; set with [`Phase::Ended`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// Whether the run ended complete; set with [`Phase::Ended`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// When it ended, in RFC 3339; set with [`Phase::Ended`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// The newest versions of the audit that ended complete, this one first; set with [`Phase::Ended`] when this one
    /// did. Stores that keep a number of versions go by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complete_versions: Vec<Version>,
}

impl Default for AuditState {
    fn default() -> Self {
        Self {
            phase: Phase::Planned,
            records_end: None,
            events_end: None,
            events: None,
            gaps: Vec::new(),
            unclear: Vec::new(),
            failed: Vec::new(),
            cancelled: false,
            complete: None,
            ended: None,
            complete_versions: Vec::new(),
        }
    }
}

/// A part of a run that ended as failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedPart {
    /// The plugin's role.
    pub role: crate::subject::Role,
    /// The plugin.
    pub plugin: Key,
    /// Why, and what to do.
    pub reason: String,
    /// It was left out at the beginning, as the configuration allows: the run may be complete without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_out: bool,
}

/// What became of a mail about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailState {
    /// The leader has begun to send it. If it died of that, nobody knows whether it was sent.
    Sending,
    /// The mail server has it.
    Sent,
}

/// A turn of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// What tells the schedule from others.
    pub schedule: String,
    /// When the turn is, in RFC 3339. A run may begin later: its version says when.
    pub at: String,
}

/// Who cancelled a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// The user, host and process.
    pub by: String,
    /// When, in RFC 3339.
    pub at: String,
}

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    /// The run.
    pub version: Version,
    /// When it began, in RFC 3339.
    pub started: String,
    /// The host and process that leads it.
    pub leader: String,
    /// How many have led it before: whoever finds a higher number than its own leads no more.
    #[serde(default)]
    pub term: u64,
    /// The turn that it is the run of; none for one that somebody asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<Turn>,
    /// An operator has cancelled it: whoever leads it ends it. All else here is the leader's to change; this is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancelled>,
    /// An operator has stopped collecting: units that are left are not done.
    #[serde(default)]
    pub stopping: bool,
    /// Its audits, in the order of `run:`.
    pub order: Vec<Key>,
    /// The state of each.
    pub audits: BTreeMap<Key, AuditState>,
    /// The mails about it, by what they are about.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mails: BTreeMap<String, MailState>,
}

impl RunState {
    /// The state of a run that begins.
    #[must_use]
    pub fn new(version: Version, started: String, leader: String, audits: &[Key]) -> Self {
        Self {
            version,
            started,
            leader,
            term: 0,
            turn: None,
            cancelled: None,
            stopping: false,
            order: audits.to_vec(),
            audits: audits.iter().map(|audit| (audit.clone(), AuditState::default())).collect(),
            mails: BTreeMap::new(),
        }
    }

    /// The audits that have not ended.
    pub fn unended(&self) -> impl Iterator<Item = &Key> {
        self.audits.iter().filter(|(_, audit)| audit.phase != Phase::Ended).map(|(audit, _)| audit)
    }

    /// Whether all its audits have ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.audits.values().all(|audit| audit.phase == Phase::Ended)
    }
}
