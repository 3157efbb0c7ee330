//! What a run came to: the table at its end, and whether it is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use comfy_table::Table;
use proto::coverage::{Coverage, State};
use proto::plan::Plan;
use proto::run::{AuditState, Cancelled};
use proto::status::{CoveragePart, Results, Status};
use proto::subject::{Key, Role, Version};

use serde::{Deserialize, Serialize};

use crate::tally::Tally;
use crate::terminal::{Colour, Look, cell, number, shown};

/// How many bytes of coverage a message takes: far below what a broker allows, as there are other plugins and reasons.
const MOST_COVERAGE: usize = 128 * 1024;

/// How many reasons why something is not complete are named.
const NAMED_GROUPS: usize = 20;
/// How many sentences alerts are told of what was not read, and of what is unclear: they stand in the run's state.
const TOLD: usize = 40;
/// The longest of them, in characters.
const LONGEST: usize = 300;

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
    /// When the run began, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When the audit ended, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// An operator stopped collecting.
    #[serde(default)]
    pub stopped: bool,
    /// An operator cancelled it: what was done until then stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancelled>,
    /// Frames of records that the clouds announced.
    #[serde(default)]
    pub frames: u64,
    /// Those of them that are known to be evaluated.
    #[serde(default)]
    pub evaluated: u64,
    /// What could not be processed, by plugin.
    #[serde(default)]
    pub dead: Vec<DeadReport>,
    /// What is incomplete or failed, in a sentence each.
    pub problems: Vec<String>,
    /// Mails about the run that could not be sent, in a sentence each: that costs the audit nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mails: Vec<String>,
}

/// What an audit's version read and what not.
#[derive(Debug, Serialize)]
pub struct AuditCoverage<'a> {
    /// The audit.
    pub audit: &'a Key,
    /// The run.
    pub version: &'a Version,
    /// Whether all was read, evaluated, stored and delivered.
    pub complete: bool,
    /// Per cloud plugin: records and coverage.
    pub clouds: &'a [CloudReport],
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
    /// How many messages tell the coverage, where it has no room here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub coverage_parts: u32,
    /// Why it failed as a whole, if it did.
    pub failed: Option<String>,
}

/// What could not be processed of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadReport {
    /// The plugin's role.
    pub role: Role,
    /// The plugin.
    pub plugin: Key,
    /// How many messages.
    pub count: u64,
    /// Why the first of them.
    pub reason: String,
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
    /// Whether several workers serve it.
    #[serde(default)]
    pub shared: bool,
    /// It could not be used at the beginning, and the configuration allows to go on without it.
    #[serde(default)]
    pub left_out: bool,
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
            coverage_parts: 0,
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
                documents: match delivered {
                    Some(delivered) => delivered.documents,
                    None => tally.documents_of(spec.role, &spec.key),
                },
                place: match delivered {
                    Some(delivered) => Some(delivered.place.clone()),
                    None => tally.place(spec.role, &spec.key).map(str::to_owned),
                },
                shared: !spec.exclusive,
                left_out: state
                    .failed
                    .iter()
                    .any(|part| part.left_out && part.role == spec.role && part.plugin == spec.key),
                failed: failed(spec.role, &spec.key),
            }
        });
        let mut report = Self {
            audit: plan.audit.clone(),
            version: plan.version.clone(),
            clouds: clouds.collect(),
            events: events.collect(),
            outputs: outputs.collect(),
            started: None,
            ended: None,
            stopped,
            cancelled: None,
            frames: tally.frames(),
            evaluated: tally.settled(),
            dead: dead_of(tally),
            problems: Vec::new(),
            mails: Vec::new(),
        };
        report.problems = report.find_problems(state, tally, stopped);
        report
    }

    /// The report of what was cancelled, if it was. What is missing then is so for this reason.
    #[must_use]
    pub fn cancelled_by(mut self, cancelled: Option<Cancelled>) -> Self {
        if let Some(Cancelled { by, at }) = &cancelled {
            self.problems = vec![format!("cancelled by {by} at {at}; what was stored until then stays")];
        }
        self.cancelled = cancelled;
        self
    }

    /// The report with its times.
    #[must_use]
    pub fn between(mut self, started: Option<String>, ended: Option<String>) -> Self {
        (self.started, self.ended) = (started, ended);
        self
    }

    /// What is said at the end of the audit, in order: the report, and before it what of its coverage has no room in
    /// a message. Each with what makes a repeat a duplicate.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn statuses(&self, at: String) -> serde_json::Result<Vec<(String, Status)>> {
        let mut report = self.clone();
        let mut statuses = Vec::new();
        let coverage: Vec<&[Coverage]> = self.clouds.iter().map(|cloud| &cloud.coverage[..]).collect();
        let has_room = serde_json::to_vec(&coverage)?.len() <= MOST_COVERAGE;
        for cloud in report.clouds.iter_mut().filter(|_| !has_room) {
            for part in parts(std::mem::take(&mut cloud.coverage))? {
                let number = cloud.coverage_parts;
                cloud.coverage_parts += 1;
                let id = format!("coverage:{}:{}:{}:{number}", self.audit, self.version, cloud.plugin);
                let part = CoveragePart { plugin: cloud.plugin.clone(), part: number, coverage: part };
                statuses.push((id, Status::Coverage(part)));
            }
        }
        let ended = Status::RunEnded {
            at,
            complete: self.is_complete(),
            problems: self.problems.clone(),
            report: serde_json::to_value(&report)?,
        };
        statuses.push((format!("run_ended:{}:{}", self.audit, self.version), ended));
        Ok(statuses)
    }

    /// Records of all clouds.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.clouds.iter().map(|cloud| cloud.records).sum()
    }

    /// Events of all event plugins.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.iter().map(|event| event.results.events).sum()
    }

    /// Documents of all stores and alerts.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.outputs.iter().map(|output| output.documents).sum()
    }

    /// What was read and what not, for programs.
    #[must_use]
    pub fn coverage(&self) -> AuditCoverage<'_> {
        AuditCoverage { audit: &self.audit, version: &self.version, complete: self.is_complete(), clouds: &self.clouds }
    }

    /// Whether all was read, evaluated, stored and delivered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty()
    }

    /// What alerts can be told before the run has ended: what could not be read or evaluated, and what rules could not
    /// judge, in a bounded number of sentences.
    #[must_use]
    pub fn so_far(&self, tally: &Tally, stopped: bool) -> (Vec<String>, Vec<String>) {
        (bounded(self.not_evaluated(tally, stopped)), bounded(self.unclear().collect()))
    }

    fn find_problems(&self, state: &AuditState, tally: &Tally, stopped: bool) -> Vec<String> {
        let mut problems = self.not_evaluated(tally, stopped);
        problems.extend(self.not_delivered(state, tally));
        problems
    }

    /// What could not be read or evaluated.
    fn not_evaluated(&self, tally: &Tally, stopped: bool) -> Vec<String> {
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
        problems.extend(dead_letters(tally, |role| matches!(role, Role::Cloud | Role::Event)));
        problems
    }

    /// What could not be stored, or told.
    fn not_delivered(&self, state: &AuditState, tally: &Tally) -> Vec<String> {
        let mut problems = Vec::new();
        for output in self.outputs.iter().filter(|output| !output.left_out) {
            if let Some(reason) = &output.failed {
                problems.push(format!("{} {}: {reason}", output.role, output.plugin));
            }
            let (all, what) = match output.role {
                Role::Alert => (state.events, "events"),
                _ => (Some(tally.frames()), "frames"),
            };
            if output.shared {
                let settled = tally.settled_by(output.role, &output.plugin);
                if let Some(all) = all.filter(|all| settled < *all && output.failed.is_none()) {
                    let (role, plugin) = (output.role, &output.plugin);
                    problems.push(format!("{role} {plugin}: only {settled} of {all} {what} are known to be stored"));
                }
                continue;
            }
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
        problems.extend(dead_letters(tally, |role| matches!(role, Role::Store | Role::Alert)));
        problems
    }

    /// The report as text: a table, and what is incomplete below it.
    #[must_use]
    pub fn render(&self, look: Look) -> String {
        let mut text = String::new();
        let outcome = match self.is_complete() {
            true => look.finish(&look.paint(Colour::Good, "complete")),
            false if self.cancelled.is_some() => look.finish(&look.paint(Colour::Bad, "CANCELLED")),
            false => look.finish(&look.paint(Colour::Bad, "INCOMPLETE")),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "Audit {}, version {}: {outcome}", self.audit, self.version);
        text.push_str(&look.text_of(&self.table(look)));
        for problem in self.problems.iter().chain(&self.mails) {
            let _ = writeln!(text, "  ! {problem}");
        }
        for note in self.clouds.iter().flat_map(notes).chain(self.left_out()).chain(self.unclear()) {
            let _ = writeln!(text, "  - {note}");
        }
        text
    }

    /// Why rules cannot say of records whether they pass, by an example for each rule.
    fn unclear(&self) -> impl Iterator<Item = String> {
        self.events.iter().filter_map(|event| {
            let sample = event.results.sample.as_ref()?;
            let (plugin, unknown) = (&event.plugin, event.results.unknown);
            Some(format!("event {plugin}: {unknown} unknown, such as {}: {}", sample.resource, sample.reason))
        })
    }

    fn left_out(&self) -> impl Iterator<Item = String> {
        self.outputs.iter().filter(|output| output.left_out).map(|output| {
            let reason = output.failed.as_deref().unwrap_or_default();
            format!("{} {}: left out, as it is optional: {reason}", output.role, output.plugin)
        })
    }

    fn table(&self, look: Look) -> Table {
        let mut table = look.table(&["role", "plugin", "count", "", "outcome"]);
        let mut row = |role: Role, plugin: &Key, count: u64, what: &str, outcome: String| {
            table.add_row(vec![
                cell(role.as_str()),
                cell(plugin.as_str()),
                number(count),
                cell(what),
                comfy_table::Cell::new(outcome),
            ]);
        };
        let failed = || look.paint(Colour::Bad, "failed");
        for cloud in &self.clouds {
            let outcome = match &cloud.failed {
                Some(_) => failed(),
                None if cloud.coverage.iter().all(|coverage| coverage.state.is_whole()) => {
                    coverage_in_words(&cloud.coverage)
                }
                None => look.paint(Colour::Odd, &coverage_in_words(&cloud.coverage)),
            };
            row(Role::Cloud, &cloud.plugin, cloud.records, "records", outcome);
        }
        for event in &self.events {
            let outcome = match &event.failed {
                Some(_) => failed(),
                None => results_in_words(&event.results),
            };
            row(Role::Event, &event.plugin, event.results.events, "events", outcome);
        }
        for output in &self.outputs {
            let outcome = match (&output.failed, &output.place) {
                (Some(_), _) if output.left_out => look.paint(Colour::Odd, "left out"),
                (Some(_), _) => failed(),
                (None, Some(place)) => shown(&format!("in {place}")),
                (None, None) => look.paint(Colour::Odd, "not delivered"),
            };
            row(output.role, &output.plugin, output.documents, "documents", outcome);
        }
        table
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Coverage in pieces that fit into a message each.
fn parts(coverage: Vec<Coverage>) -> serde_json::Result<Vec<Vec<Coverage>>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in coverage {
        let size = serde_json::to_vec(&entry)?.len() + 1;
        if bytes + size > MOST_COVERAGE && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.push(entry);
    }
    parts.push(part);
    Ok(parts)
}

/// The first of many sentences, each cut, and how many more there are.
fn bounded(mut sentences: Vec<String>) -> Vec<String> {
    let more = sentences.len().saturating_sub(TOLD);
    sentences.truncate(TOLD);
    for sentence in &mut sentences {
        if let Some((end, _)) = sentence.char_indices().nth(LONGEST) {
            sentence.truncate(end);
            sentence.push('…');
        }
    }
    if more > 0 {
        sentences.push(format!("{more} more; the run's summary names them"));
    }
    sentences
}

/// What could not be processed, in a sentence for each plugin of the roles.
fn dead_letters(tally: &Tally, wanted: impl Fn(Role) -> bool) -> Vec<String> {
    let dead = tally.dead().iter().filter(|((role, _), _)| wanted(*role));
    let lines = dead.map(|((role, plugin), dead)| {
        let (count, reason) = (dead.count, &dead.reason);
        format!("{role} {plugin}: {count} messages could not be processed, the first: {reason}")
    });
    lines.collect()
}

fn dead_of(tally: &Tally) -> Vec<DeadReport> {
    let dead = tally.dead().iter().map(|((role, plugin), dead)| DeadReport {
        role: *role,
        plugin: plugin.clone(),
        count: dead.count,
        reason: dead.reason.clone(),
    });
    dead.collect()
}

pub(crate) fn not_whole(cloud: &CloudReport) -> Vec<String> {
    in_groups(cloud, |coverage| !coverage.state.is_whole())
}

/// What is whole and has something to be said of all the same: what was skipped, is not enabled, or is not in order.
fn notes(cloud: &CloudReport) -> Vec<String> {
    in_groups(cloud, |coverage| coverage.state.is_whole() && coverage.reason.is_some())
}

/// Entries with one state and one kind of reason, in a sentence.
fn in_groups(cloud: &CloudReport, wanted: impl Fn(&Coverage) -> bool) -> Vec<String> {
    let mut groups: Vec<(State, String, Vec<&Coverage>)> = Vec::new();
    for coverage in cloud.coverage.iter().filter(|coverage| wanted(coverage)) {
        let kind = kind_of(coverage);
        match groups.iter_mut().find(|(state, known, _)| *state == coverage.state && *known == kind) {
            Some((_, _, group)) => group.push(coverage),
            None => groups.push((coverage.state, kind, vec![coverage])),
        }
    }
    let more = groups.len().saturating_sub(NAMED_GROUPS);
    let mut lines: Vec<String> =
        groups.iter().take(NAMED_GROUPS).filter_map(|(_, _, group)| group_in_words(cloud, group)).collect();
    if more > 0 {
        lines.push(format!("cloud {}: {more} more reasons; `--coverage FILE` writes all", cloud.plugin));
    }
    lines
}

/// The kind of the reason: what a service says by status and code, or the text without the scope.
fn kind_of(coverage: &Coverage) -> String {
    let reason = coverage.reason.as_deref().unwrap_or_default();
    let mut parts = reason.split(": ").filter(|part| {
        let (status, rest) = part.split_at_checked(3).unwrap_or_default();
        status.bytes().all(|byte| byte.is_ascii_digit())
            && !status.is_empty()
            && (rest.is_empty() || rest.starts_with(' '))
    });
    match parts.next() {
        Some(code) => code.to_owned(),
        None if coverage.scope.is_empty() => reason.to_owned(),
        None => reason.replace(&coverage.scope, "…"),
    }
}

fn group_in_words(cloud: &CloudReport, group: &[&Coverage]) -> Option<String> {
    let first = group.first()?;
    let name = |text: &str, empty: &str| if text.is_empty() { empty.to_owned() } else { text.to_owned() };
    let (kind, scope) = (name(&first.resource_type, "everything"), name(&first.scope, "all"));
    let count = |of: fn(&Coverage) -> &str| group.iter().map(|one| of(one)).collect::<BTreeSet<_>>().len();
    let (kinds, scopes) = (count(|one| &one.resource_type), count(|one| &one.scope));
    let what = if kinds == 1 { kind.clone() } else { format!("{kinds} types") };
    let place = if scopes == 1 { scope.clone() } else { format!("{scopes} scopes") };
    let read: u64 = group.iter().map(|one| one.read).sum();
    let (state, reason) = (first.state.as_str(), first.reason.as_deref().unwrap_or("no reason is known"));
    let example = if group.len() == 1 { String::new() } else { format!(", the first {kind} of {scope}") };
    Some(format!("cloud {}: {what} of {place} {state} ({read} read){example}: {reason}", cloud.plugin))
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

fn results_in_words(results: &Results) -> String {
    format!("{} pass, {} fail, {} unknown", results.pass, results.fail, results.unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(coverage: Vec<Coverage>) -> CloudReport {
        CloudReport { plugin: Key::new("azure").unwrap(), records: 0, coverage, coverage_parts: 0, failed: None }
    }

    fn denied(scope: &str, kind: &str) -> Coverage {
        let reason = format!("GET https://arm/subscriptions/{scope}/{kind}: 403 AuthorizationFailed: No, {kind}; give");
        Coverage::not_read(scope, kind, State::Denied, reason)
    }

    #[test]
    fn what_has_one_reason_is_one_line() {
        let cloud = cloud(vec![denied("s1", "nic"), denied("s1", "nsg"), denied("s2", "nsg")]);
        let [line] = not_whole(&cloud).try_into().unwrap();
        let begin = "cloud azure: 2 types of 2 scopes denied (0 read), the first nic of s1: GET https://arm/";
        assert!(line.starts_with(begin), "{line}");
        assert!(notes(&cloud).is_empty());
    }

    #[test]
    fn other_states_and_reasons_are_other_lines() {
        let odd = Coverage::not_read("s1", "lb", State::Failed, "reset of s1");
        let odd_too = Coverage::not_read("s2", "lb", State::Failed, "reset of s2");
        let cloud = cloud(vec![denied("s1", "nic"), odd, odd_too]);
        let lines = not_whole(&cloud);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("cloud azure: nic of s1 denied (0 read): GET "), "{lines:?}");
        assert_eq!(lines[1], "cloud azure: lb of 2 scopes failed (0 read), the first lb of s1: reset of s1");
    }

    #[test]
    fn what_is_whole_and_odd_is_noted() {
        let deleted = Coverage::not_read("s1", "lb", State::Skipped, "the subscription is deleted");
        let cloud = cloud(vec![deleted, Coverage::complete("s2", "lb", 5)]);
        assert!(not_whole(&cloud).is_empty());
        assert_eq!(notes(&cloud), ["cloud azure: lb of s1 skipped (0 read): the subscription is deleted"]);
    }
}
