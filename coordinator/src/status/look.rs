//! How a run's status looks to a person.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::Cell;
use proto::run::Phase;
use proto::subject::Role;

use super::{AuditStatus, Basis, Estimate, Left, RunStatus, StageStatus};
use crate::history::Outcome;
use crate::terminal::{Colour, Look, cell, number, shown, span, thousands};

/// How many scopes of which units are left are shown.
const SHOWN_LEFT: usize = 8;
/// How many types of each are named.
const SHOWN_TYPES: usize = 4;
/// How many scopes that wait are shown.
const SHOWN_THROTTLED: usize = 8;
/// How many problems are shown of an audit that runs.
const SHOWN_PROBLEMS: usize = 10;
/// The longest problem that is shown of an audit that runs, in characters.
const LONGEST: usize = 300;

impl Outcome {
    /// Its colour.
    #[must_use]
    pub fn colour(self) -> Colour {
        match self {
            Self::Running => Colour::Busy,
            Self::Complete => Colour::Good,
            Self::Incomplete => Colour::Bad,
            Self::Cancelled | Self::Unknown => Colour::Odd,
        }
    }
}

impl RunStatus {
    /// The status as text, for a person.
    #[must_use]
    pub fn render(&self, look: Look) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "Run {}: {}", self.version, look.paint(self.outcome.colour(), self.outcome.as_str()));
        if let Some(seconds) = self.seconds {
            let _ = write!(text, "{}{}", if self.ended.is_some() { ", took " } else { " for " }, span(seconds));
        }
        if let Some(leader) = self.leader.as_deref().filter(|leader| !leader.is_empty()) {
            let _ = write!(text, ", led by {}", shown(leader));
        }
        if self.stopping {
            let _ = write!(text, ", {}", look.paint(Colour::Odd, "collecting is being stopped"));
        }
        text.push('\n');
        for audit in &self.audits {
            text.push('\n');
            match &audit.report {
                Some(report) => text.push_str(&report.render(look)),
                None => audit.render(look, &mut text),
            }
        }
        if !self.workers.is_empty() {
            self.render_workers(look, &mut text);
        }
        if !self.throttled.is_empty() {
            self.render_throttled(look, &mut text);
        }
        look.finish(&text)
    }

    fn render_workers(&self, look: Look, text: &mut String) {
        let mut table = look.table(&["worker", "host", "version", "pools", "in work", "done"]);
        for worker in &self.workers {
            let pools: Vec<&str> = worker.pools.iter().map(proto::subject::Key::as_str).collect();
            table.add_row([
                cell(&worker.name),
                cell(&worker.host),
                cell(&worker.version),
                cell(&pools.join(", ")),
                look.count(worker.in_work),
                look.count(worker.done),
            ]);
        }
        let _ = write!(text, "\nWorkers\n{}", look.text_of(&table));
        for worker in &self.workers {
            for cannot in &worker.cannot {
                text.push_str(&look.line("  ! ", &format!("{} cannot serve {cannot}", worker.name), LONGEST));
            }
        }
    }

    fn render_throttled(&self, look: Look, text: &mut String) {
        let mut table = look.table(&["cloud", "scope", "waits until", "for"]);
        for pause in self.throttled.iter().take(SHOWN_THROTTLED) {
            let scope = match &pause.list {
                Some(list) => format!("{} ({list})", pause.scope),
                None => pause.scope.clone(),
            };
            table.add_row([
                cell(pause.plugin.as_str()),
                cell(if scope.is_empty() { "all" } else { &scope }),
                cell(&clock(&pause.until)),
                number(span(pause.seconds)),
            ]);
        }
        let _ = write!(text, "\n{}\n{}", look.paint(Colour::Odd, "Throttled by the cloud"), look.text_of(&table));
        more(text, self.throttled.len(), SHOWN_THROTTLED, "scopes");
    }

    /// One line: for what is appended to.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        let audits: Vec<String> = self.audits.iter().map(AuditStatus::in_a_line).collect();
        let time = self.seconds.map(|seconds| format!(" {}", span(seconds))).unwrap_or_default();
        format!("{}{time} {}\n", self.version, audits.join("; "))
    }
}

impl AuditStatus {
    fn render(&self, look: Look, text: &mut String) {
        let phase = match (self.outcome, self.phase) {
            (Outcome::Running, Some(phase)) => look.paint(Colour::Busy, phase.as_str()),
            (outcome, _) => look.paint(outcome.colour(), outcome.as_str()),
        };
        let _ = write!(text, "Audit {}: {phase}", shown(self.audit.as_str()));
        if let Some(estimate) = self.estimate {
            let _ = write!(text, ", {}", estimate.in_words());
        }
        text.push('\n');
        if !self.stages.is_empty() {
            // Narrow enough for a terminal of eighty columns.
            let mut table = look.table(&["role", "plugin", "done", "lag", "result", "a second", "state"]);
            for stage in &self.stages {
                table.add_row(stage.row(look));
            }
            text.push_str(&look.text_of(&table));
        }
        for problem in self.problems.iter().take(SHOWN_PROBLEMS) {
            text.push_str(&look.line("  ! ", problem, LONGEST));
        }
        more(text, self.problems.len(), SHOWN_PROBLEMS, "problems");
        if self.phase.is_some_and(|phase| phase <= Phase::Collecting) && !self.left.is_empty() {
            render_left(&self.left, look, text);
        }
        if self.outcome == Outcome::Unknown {
            text.push_str("  - it began, and nothing says how it ended: its process died, or is on another host\n");
        }
    }

    fn in_a_line(&self) -> String {
        let phase = match (self.outcome, self.phase) {
            (Outcome::Running, Some(phase)) => phase.as_str(),
            (outcome, _) => outcome.as_str(),
        };
        let mut line = format!("{}: {phase}", shown(self.audit.as_str()));
        if let Some(report) = &self.report {
            let _ = write!(line, ", {} records, {} events", report.records(), report.events());
        }
        for stage in &self.stages {
            let name = stage.plugin.as_ref().map_or("events", |plugin| plugin.as_str());
            let _ = write!(line, ", {} {} of {} {}", shown(name), stage.done, stage.of, stage.unit);
        }
        if let Some(estimate) = self.estimate {
            let _ = write!(line, ", {}", estimate.in_words());
        }
        line
    }
}

/// By cloud and scope, with the types: that of which the most is left first.
fn render_left(left: &[Left], look: Look, text: &mut String) {
    let mut scopes: BTreeMap<(&str, &str), (u64, Vec<&Left>)> = BTreeMap::new();
    for entry in left {
        let (units, types) = scopes.entry((entry.plugin.as_str(), &entry.scope)).or_default();
        *units += entry.units;
        types.push(entry);
    }
    let mut scopes: Vec<_> = scopes.into_iter().collect();
    scopes.sort_by(|(_, (one, _)), (_, (other, _))| other.cmp(one));
    let mut table = look.table(&["left of", "scope", "units", "types"]);
    for ((plugin, scope), (units, types)) in scopes.iter().take(SHOWN_LEFT) {
        let mut words: Vec<String> =
            types.iter().take(SHOWN_TYPES).map(|left| format!("{} {}", left.units, left.resource_type)).collect();
        if types.len() > SHOWN_TYPES {
            words.push(format!("{} more", types.len() - SHOWN_TYPES));
        }
        table.add_row([
            cell(plugin),
            cell(if scope.is_empty() { "all" } else { scope }),
            look.count(*units),
            cell(&words.join(", ")),
        ]);
    }
    text.push_str(&look.text_of(&table));
    more(text, scopes.len(), SHOWN_LEFT, "scopes");
}

fn more(text: &mut String, count: usize, shown: usize, what: &str) {
    if count > shown {
        let _ = writeln!(text, "  … and {} more {what}", thousands((count - shown) as u64));
    }
}

impl StageStatus {
    fn row(&self, look: Look) -> Vec<Cell> {
        let state = match (&self.failed, self.is_done, &self.place) {
            (Some(_), ..) => look.paint(Colour::Bad, "failed"),
            (None, true, Some(place)) => look.paint(Colour::Good, &format!("in {}", shown(place))),
            (None, true, None) => look.paint(Colour::Good, "done"),
            (None, false, _) if self.done == 0 && self.result == 0 => look.paint(Colour::Faint, "waiting"),
            (None, false, _) => look.paint(Colour::Busy, "working"),
        };
        // A plugin that reads a whole version says nothing before it has delivered.
        let is_silent = !self.is_done && self.waiting.is_none() && matches!(self.role, Role::Store | Role::Alert);
        let state = if is_silent && self.failed.is_none() { look.paint(Colour::Faint, "reads along") } else { state };
        vec![
            cell(self.role.as_str()),
            cell(self.plugin.as_ref().map_or("all", |plugin| plugin.as_str())),
            number(if is_silent {
                format!("{} {}", look.digits(self.of), self.unit)
            } else {
                format!("{} of {} {}", look.digits(self.done), look.digits(self.of), self.unit)
            }),
            match self.waiting {
                Some(waiting) => look.count(waiting + self.in_work.unwrap_or(0)),
                None => number(""),
            },
            number(if is_silent {
                String::new()
            } else {
                format!("{} {}", look.digits(self.result), self.result_unit)
            }),
            match self.per_second {
                Some(rate) if !self.is_done && !is_silent => number(format!("{rate:.0}")),
                _ => number(""),
            },
            Cell::new(state),
        ]
    }
}

impl Estimate {
    fn in_words(self) -> String {
        let basis = match self.basis {
            Basis::LastRun => "by the last complete run",
            Basis::UnitsLeft => "if no more is found",
            Basis::Lag => "by what waits",
        };
        format!("about {} left, {basis}", span(self.seconds))
    }
}

/// The time of day of a moment, by this host's clock.
fn clock(moment: &str) -> String {
    let parsed: Result<jiff::Timestamp, _> = moment.parse();
    parsed.map_or_else(
        |_| moment.to_owned(),
        |moment| moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string(),
    )
}
