//! Where runs stand: what is known of one at a moment, live from a broker or past from the history.
//!
//! What is shown is a contract for programs, too: see the README.

mod follow;
mod look;

use std::collections::BTreeMap;

use proto::coverage::State;
use proto::plan::Stage;
use proto::run::Phase;
use proto::subject::{Key, Role, Version};
use serde::Serialize;

pub use follow::{Follower, StatusError, newest, past};

use crate::history::Outcome;
use crate::summary::AuditReport;

/// How many kinds of units that are left are named.
const MOST_LEFT: usize = 1_000;

/// Where a run stands.
#[derive(Debug, Clone, Serialize)]
pub struct RunStatus {
    /// The run.
    pub version: Version,
    /// What became of it: the worst of its audits.
    pub outcome: Outcome,
    /// When it began, in RFC 3339.
    pub started: Option<String>,
    /// When its last audit ended, in RFC 3339.
    pub ended: Option<String>,
    /// How long it took, or has taken until now.
    pub seconds: Option<u64>,
    /// The host and process that leads it, or led it last.
    pub leader: Option<String>,
    /// An operator has stopped collecting.
    pub stopping: bool,
    /// Its audits, in their order.
    pub audits: Vec<AuditStatus>,
    /// The workers that are alive; none are listed of a run that has ended.
    pub workers: Vec<WorkerStatus>,
    /// What the clouds have told to wait; nothing is listed of a run that has ended.
    pub throttled: Vec<ThrottleStatus>,
}

/// Where an audit of a run stands.
#[derive(Debug, Clone, Serialize)]
pub struct AuditStatus {
    /// The audit.
    pub audit: Key,
    /// What became of it.
    pub outcome: Outcome,
    /// How far it is.
    pub phase: Option<Phase>,
    /// When it ended, in RFC 3339.
    pub ended: Option<String>,
    /// How much longer it may take.
    pub estimate: Option<Estimate>,
    /// Its stages, plugin by plugin, while it runs.
    pub stages: Vec<StageStatus>,
    /// The units that are left, by cloud, scope and type, the most first; a bounded number.
    pub left: Vec<Left>,
    /// How many scopes and types were read how completely.
    pub coverage: BTreeMap<State, u64>,
    /// What is incomplete or failed until now, in a sentence each.
    pub problems: Vec<String>,
    /// What it came to: when it has ended.
    pub report: Option<AuditReport>,
}

/// How much longer an audit may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Seconds.
    pub seconds: u64,
    /// What that is made of.
    pub basis: Basis,
}

/// What an estimate is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The records of the last complete run, at the rate of this one.
    LastRun,
    /// The units that are known to be left: there may be more to find.
    UnitsLeft,
    /// What evaluator and stores have still to settle.
    Lag,
}

/// Where a stage of an audit stands: a cloud plugin, all event plugins, or a store or alert.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageStatus {
    /// The stage that serves it.
    pub stage: Stage,
    /// The role.
    pub role: Role,
    /// The plugin; none for the event plugins, which the evaluator runs in one pass.
    pub plugin: Option<Key>,
    /// What is counted in `done`, `of`, `waiting` and `in_work`: units, frames or events.
    pub unit: &'static str,
    /// How many are done.
    pub done: u64,
    /// How many there are, as far as it is known.
    pub of: u64,
    /// How many nobody has taken yet; none where it is not known.
    pub waiting: Option<u64>,
    /// How many are taken and not settled; none where it is not known.
    pub in_work: Option<u64>,
    /// Records read, events made or documents stored.
    pub result: u64,
    /// What `result` counts.
    pub result_unit: &'static str,
    /// Of these, how many a second: lately, when it has been looked at for a while; else since the run began.
    pub per_second: Option<f64>,
    /// Whether it has done all that it will ever get.
    pub is_done: bool,
    /// Why it failed, if it did.
    pub failed: Option<String>,
    /// Where documents go, as far as it is known.
    pub place: Option<String>,
}

/// Units that are left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// The cloud plugin.
    pub plugin: Key,
    /// The scope; empty for the plugin as a whole.
    pub scope: String,
    /// The resource type.
    pub resource_type: String,
    /// How many units.
    pub units: u64,
}

/// A worker that is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// The stage that it serves.
    pub stage: Stage,
    /// Its host.
    pub host: String,
    /// The program's version.
    pub version: String,
    /// The pools that it serves: of a collector.
    pub pools: Vec<Key>,
    /// Units, frames, batches or whole versions that it works on.
    pub in_work: u64,
    /// Those that it has finished since it started.
    pub done: u64,
    /// The plugins that it cannot build, and why.
    pub cannot: Vec<String>,
}

/// A scope that a cloud has told to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ThrottleStatus {
    /// The cloud plugin.
    pub plugin: Key,
    /// The scope; empty for the plugin as a whole.
    pub scope: String,
    /// Which of the scope's lists, where one waits on its own.
    pub list: Option<String>,
    /// Until when, in RFC 3339, by the clock of the collector that was told.
    pub until: String,
    /// How many seconds that is from now, by the clock of this host.
    pub seconds: u64,
}

impl RunStatus {
    /// Whether all its audits have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.audits.iter().all(|audit| audit.outcome != Outcome::Running)
    }
}

impl AuditStatus {
    /// That of an audit of which there is a report.
    #[must_use]
    pub fn of_report(report: AuditReport) -> Self {
        let mut coverage: BTreeMap<State, u64> = BTreeMap::new();
        for entry in report.clouds.iter().flat_map(|cloud| &cloud.coverage) {
            *coverage.entry(entry.state).or_default() += 1;
        }
        Self {
            audit: report.audit.clone(),
            outcome: Outcome::of_report(&report),
            phase: Some(Phase::Ended),
            ended: report.ended.clone(),
            estimate: None,
            stages: Vec::new(),
            left: Vec::new(),
            coverage,
            problems: report.problems.clone(),
            report: Some(report),
        }
    }

    /// That of an audit of which hardly anything is known.
    #[must_use]
    pub fn bare(audit: Key, outcome: Outcome) -> Self {
        Self {
            audit,
            outcome,
            phase: None,
            ended: None,
            estimate: None,
            stages: Vec::new(),
            left: Vec::new(),
            coverage: BTreeMap::new(),
            problems: Vec::new(),
            report: None,
        }
    }
}

/// The outcome of a run, by those of its audits: the one that most needs a look.
#[must_use]
pub fn outcome_of(audits: impl Iterator<Item = Outcome>) -> Outcome {
    let badness = |outcome: &Outcome| match outcome {
        Outcome::Complete => 0,
        Outcome::Incomplete => 1,
        Outcome::Cancelled => 2,
        Outcome::Unknown => 3,
        Outcome::Running => 4,
    };
    audits.max_by_key(badness).unwrap_or(Outcome::Unknown)
}
