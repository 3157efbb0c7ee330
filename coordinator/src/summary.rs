//! What a run came to: the table at its end, and whether it is complete.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};
use proto::coverage::{Coverage, State};
use proto::plan::Plan;
use proto::run::AuditState;
use proto::status::Results;
use proto::subject::{Key, Role, Version};

use serde::{Deserialize, Serialize};

use crate::tally::Tally;

/// How many scopes that are not complete are named.
const NAMED_SCOPES: usize = 20;

/// What an audit's version came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditReport {
    /// The audit.
    pub audit: Key,
    /// The run.
    pub version: Version,
    /// Per cloud plugin: records and coverage.
    pub clouds: Vec<CloudReport>,
    /// Per event plugin: what it said.
    pub events: Vec<EventReport>,
    /// Per store and alert: documents and outcome.
    pub outputs: Vec<OutputReport>,
    /// What is incomplete or failed, in a sentence each.
    pub problems: Vec<String>,
}

/// What a cloud plugin came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CloudReport {
    /// The plugin.
    pub plugin: Key,
    /// Its records.
    pub records: u64,
    /// Per scope and resource type.
    pub coverage: Vec<Coverage>,
    /// Why it failed as a whole, if it did.
    pub failed: Option<String>,
}

/// What an event plugin came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventReport {
    /// The plugin.
    pub plugin: Key,
    /// Its results.
    pub results: Results,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

/// What a store or alert came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutputReport {
    /// The plugin.
    pub plugin: Key,
    /// Store or alert.
    pub role: Role,
    /// Documents delivered.
    pub documents: u64,
    /// Where to.
    pub place: Option<String>,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

impl AuditReport {
    /// The report of an audit's version.
    #[must_use]
    pub fn new(plan: &Plan, state: &AuditState, tally: &Tally, stopped: bool) -> Self {
        let failed = |role: Role, plugin: &Key| {
            let part = state.failed.iter().find(|part| part.role == role && part.plugin == *plugin);
            part.map(|part| part.reason.clone())
        };
        let clouds = plan.of_role(Role::Cloud).map(|spec| CloudReport {
            plugin: spec.key.clone(),
            records: tally.records_of(&spec.key),
            coverage: tally.coverage_of(&spec.key),
            failed: failed(Role::Cloud, &spec.key),
        });
        let events = plan.of_role(Role::Event).map(|spec| EventReport {
            plugin: spec.key.clone(),
            results: tally.results_of(&spec.key),
            failed: failed(Role::Event, &spec.key),
        });
        let outputs = plan.of_role(Role::Store).chain(plan.of_role(Role::Alert)).map(|spec| {
            let delivered = tally.delivered(spec.role, &spec.key);
            OutputReport {
                plugin: spec.key.clone(),
                role: spec.role,
                documents: delivered.map_or(0, |delivered| delivered.documents),
                place: delivered.map(|delivered| delivered.place.clone()),
                failed: failed(spec.role, &spec.key),
            }
        });
        let mut report = Self {
            audit: plan.audit.clone(),
            version: plan.version.clone(),
            clouds: clouds.collect(),
            events: events.collect(),
            outputs: outputs.collect(),
            problems: Vec::new(),
        };
        report.problems = report.find_problems(state, tally, stopped);
        report
    }

    /// Whether all was read, evaluated, stored and delivered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty()
    }

    fn find_problems(&self, state: &AuditState, tally: &Tally, stopped: bool) -> Vec<String> {
        let mut problems = Vec::new();
        if stopped {
            problems.push("collecting was stopped by an operator".to_owned());
        }
        for cloud in &self.clouds {
            if let Some(reason) = &cloud.failed {
                problems.push(format!("cloud {}: {reason}", cloud.plugin));
            }
            if cloud.failed.is_none() && !tally.has_collected(&cloud.plugin) {
                problems.push(format!("cloud {}: nothing says that collecting has ended", cloud.plugin));
            }
            problems.extend(not_whole(cloud));
        }
        if self.events.iter().any(|event| event.failed.is_none()) && tally.settled() < tally.frames() {
            let (settled, all) = (tally.settled(), tally.frames());
            problems.push(format!("events: only {settled} of {all} frames are known to be evaluated"));
        }
        // The evaluator serves all event plugins: one reason is said once.
        let mut failed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for event in &self.events {
            if let Some(reason) = &event.failed {
                failed.entry(reason).or_default().push(event.plugin.to_string());
            }
        }
        problems.extend(failed.into_iter().map(|(reason, plugins)| format!("event {}: {reason}", plugins.join(", "))));
        for output in &self.outputs {
            if let Some(reason) = &output.failed {
                problems.push(format!("{} {}: {reason}", output.role, output.plugin));
            }
            let (all, what) = match output.role {
                Role::Alert => (state.events, "events"),
                _ => (Some(tally.frames()), "frames"),
            };
            match tally.delivered(output.role, &output.plugin) {
                None if output.failed.is_none() => {
                    problems.push(format!("{} {}: nothing says that it was delivered", output.role, output.plugin));
                }
                Some(delivered) if all.is_some_and(|all| delivered.messages < all) => {
                    let (read, all) = (delivered.messages, all.unwrap_or_default());
                    let (role, plugin) = (output.role, &output.plugin);
                    problems.push(format!("{role} {plugin}: only {read} of {all} {what} were there to read"));
                }
                _ => {}
            }
        }
        for ((role, plugin), dead) in tally.dead() {
            let (count, reason) = (dead.count, &dead.reason);
            problems.push(format!("{role} {plugin}: {count} messages could not be processed, the first: {reason}"));
        }
        problems
    }

    /// The report as text: a table, and what is incomplete below it.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let outcome = if self.is_complete() { "complete" } else { "INCOMPLETE" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "Audit {}, version {}: {outcome}", self.audit, self.version);
        let _ = writeln!(text, "{}", self.table());
        for problem in &self.problems {
            let _ = writeln!(text, "  ! {problem}");
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["role", "plugin", "count", "", "outcome"]);
        let mut row = |role: Role, plugin: &Key, count: u64, what: &str, outcome: String| {
            let count = Cell::new(count).set_alignment(CellAlignment::Right);
            table.add_row(vec![Cell::new(role), Cell::new(plugin), count, Cell::new(what), Cell::new(outcome)]);
        };
        for cloud in &self.clouds {
            let outcome = match &cloud.failed {
                Some(_) => "failed".to_owned(),
                None => coverage_in_words(&cloud.coverage),
            };
            row(Role::Cloud, &cloud.plugin, cloud.records, "records", outcome);
        }
        for event in &self.events {
            let outcome = match &event.failed {
                Some(_) => "failed".to_owned(),
                None => results_in_words(event.results),
            };
            row(Role::Event, &event.plugin, event.results.events, "events", outcome);
        }
        for output in &self.outputs {
            let outcome = match (&output.failed, &output.place) {
                (Some(_), _) => "failed".to_owned(),
                (None, Some(place)) => format!("in {place}"),
                (None, None) => "not delivered".to_owned(),
            };
            row(output.role, &output.plugin, output.documents, "documents", outcome);
        }
        table
    }
}

fn not_whole(cloud: &CloudReport) -> Vec<String> {
    let mut missed = cloud.coverage.iter().filter(|coverage| !coverage.state.is_whole());
    let mut problems: Vec<String> = missed
        .by_ref()
        .take(NAMED_SCOPES)
        .map(|coverage| {
            let scope = if coverage.scope.is_empty() { "all" } else { &coverage.scope };
            let state = coverage.state.as_str();
            let kind = if coverage.resource_type.is_empty() { "everything" } else { &coverage.resource_type };
            let reason = coverage.reason.as_deref().unwrap_or("no reason is known");
            format!("cloud {}: {kind} of {scope} {state} ({} read): {reason}", cloud.plugin, coverage.read)
        })
        .collect();
    let more = missed.count();
    if more > 0 {
        problems.push(format!("cloud {}: {more} more scopes and types are not complete", cloud.plugin));
    }
    problems
}

fn coverage_in_words(coverage: &[Coverage]) -> String {
    let mut counts: BTreeMap<State, usize> = BTreeMap::new();
    for entry in coverage {
        *counts.entry(entry.state).or_default() += 1;
    }
    match counts.len() {
        0 => "nothing read".to_owned(),
        1 if counts.contains_key(&State::Complete) => "complete".to_owned(),
        _ => {
            let words: Vec<String> =
                counts.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
            words.join(", ")
        }
    }
}

fn results_in_words(results: Results) -> String {
    format!("{} pass, {} fail, {} unknown", results.pass, results.fail, results.unknown)
}
