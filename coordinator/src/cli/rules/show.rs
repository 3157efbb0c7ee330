//! `coordinator rules show`: all of a rule.

use std::fmt::Write;

use clap::Args;
use comfy_table::Cell;
use evaluator::rule::{Controls, Param, Rule, Severity};
use serde::Serialize;
use serde_json::Value;

use super::known::{Sources, looks_at, place_of};
use super::{Done, print, print_json, table};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The rule's id, class or file.
    #[arg(value_name = "RULE")]
    rule: String,
    /// Print the rule's file: a beginning for one of your own.
    #[arg(long, conflicts_with = "json")]
    source: bool,
    #[command(flatten)]
    sources: Sources,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: &'a str,
    title: &'a str,
    severity: Severity,
    class: Option<&'a str>,
    version: u32,
    cloud: &'a str,
    service: &'a str,
    looks_at: LooksAt<'a>,
    about: Option<&'a str>,
    remediation: &'a str,
    params: Vec<ShownParam<'a>>,
    conditions: Vec<Condition>,
    findings: Vec<ShownFinding<'a>>,
    controls: Controls,
    tests: usize,
    file: &'a str,
}

#[derive(Debug, Serialize)]
struct LooksAt<'a> {
    cloud: &'a Option<Vec<String>>,
    #[serde(rename = "ext.record_type")]
    ext: &'a Option<Vec<String>>,
    #[serde(rename = "com.record_type")]
    com: &'a Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct ShownParam<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: String,
    default: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<&'a [String]>,
    about: &'a str,
}

#[derive(Debug, Serialize)]
struct Condition {
    key: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct ShownFinding<'a> {
    event_type: &'a str,
    severity: Severity,
    title: &'a str,
}

pub(super) fn main(args: &ShowArgs) -> Done {
    let rule = args.sources.rule(&args.rule)?;
    if args.source {
        return Ok(print(&rule.text));
    }
    let (cloud, service) = place_of(&rule);
    let shown = all_of(&rule, &cloud, &service);
    if args.json { print_json(&shown) } else { Ok(print(&in_words(&rule, &shown))) }
}

fn all_of<'a>(rule: &'a Rule, cloud: &'a str, service: &'a str) -> Shown<'a> {
    let param = |param: &'a Param| ShownParam {
        name: &param.name,
        kind: param.kind.to_string(),
        default: &param.default,
        min: param.min,
        max: param.max,
        allowed: param.allowed.as_deref(),
        about: param.about.trim(),
    };
    Shown {
        id: &rule.id,
        title: &rule.title,
        severity: rule.severity,
        class: rule.class.as_deref(),
        version: rule.version,
        cloud,
        service,
        looks_at: LooksAt { cloud: &rule.clouds, ext: &rule.ext_types, com: &rule.com_types },
        about: rule.about.as_deref().map(str::trim),
        remediation: &rule.remediation,
        params: rule.params.iter().map(param).collect(),
        conditions: rule.conditions().into_iter().map(|(key, text)| Condition { key, text }).collect(),
        findings: rule
            .findings
            .iter()
            .map(|finding| ShownFinding {
                event_type: &finding.event_type,
                severity: finding.facts.severity,
                title: &finding.facts.title,
            })
            .collect(),
        controls: rule.all_controls(),
        tests: rule.test_count(),
        file: &rule.file,
    }
}

fn in_words(rule: &Rule, shown: &Shown<'_>) -> String {
    let mut text = format!("{}: {}\n", shown.id, shown.title);
    let mut say = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    say("severity", shown.severity.as_str());
    if let Some(class) = shown.class {
        say("class", class);
    }
    say("version", &shown.version.to_string());
    say("cloud", shown.cloud);
    say("service", shown.service);
    say("looks at", &looks_at(rule));
    for finding in &shown.findings {
        let more = match shown.findings.len() {
            1 => String::new(),
            _ => format!(" ({}: {})", finding.severity, finding.title),
        };
        say("event type", &format!("{}{more}", finding.event_type));
    }
    for condition in &shown.conditions {
        say(&condition.key, &condition.text);
    }
    say("tests", &shown.tests.to_string());
    say("file", shown.file);
    for (heading, paragraph) in [("About", shown.about.unwrap_or_default()), ("What to do", shown.remediation)] {
        if !paragraph.is_empty() {
            let _ = write!(text, "\n{heading}\n{}", wrapped(paragraph));
        }
    }
    if !shown.params.is_empty() {
        let mut table = table(&["parameter", "type", "default", ""]);
        for param in &shown.params {
            let default = if param.default.is_null() { "none".to_owned() } else { param.default.to_string() };
            table.add_row([param.name, &param.kind, &default, &about(param)].map(Cell::new));
        }
        let _ = writeln!(text, "\n{table}");
    }
    if !shown.controls.is_empty() {
        let mut table = table(&["benchmark", "controls"]);
        for (benchmark, controls) in &shown.controls {
            table.add_row([benchmark.as_str(), &controls.join(", ")].map(Cell::new));
        }
        let _ = writeln!(text, "\n{table}");
    }
    text
}

/// What a parameter is for, and what it may be.
fn about(param: &ShownParam<'_>) -> String {
    let limits = match (param.min, param.max, param.allowed) {
        (.., Some(allowed)) => format!(" ({})", allowed.join(", ")),
        (Some(min), Some(max), None) => format!(" ({min} to {max})"),
        (Some(min), None, None) => format!(" (at least {min})"),
        (None, Some(max), None) => format!(" (at most {max})"),
        (None, None, None) => String::new(),
    };
    format!("{}{limits}", param.about)
}

/// A paragraph in lines that are good to read.
fn wrapped(paragraph: &str) -> String {
    const WIDTH: usize = 100;
    let (mut text, mut width) = (String::from(" "), 1);
    for word in paragraph.split_whitespace() {
        let length = word.chars().count();
        if width + 1 + length > WIDTH && width > 1 {
            text.push_str("\n ");
            width = 1;
        }
        text.push(' ');
        text.push_str(word);
        width += 1 + length;
    }
    text.push('\n');
    text
}
