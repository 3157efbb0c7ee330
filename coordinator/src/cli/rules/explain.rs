//! `coordinator rules explain`: what each part of a rule's conditions comes to on a record.

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use evaluator::record::Record;
use evaluator::rule::{Explained, Instance, Judgement, Outcome};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::known::{Look, Sources, looks_at};
use super::{Done, Refused, cell, documents, print, print_json, shown, table};

/// The largest record, in bytes.
const MAX_RECORD: u64 = 64 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  coordinator rules explain AzSQLDatabaseTDEEvent --record database.json
  coordinator rules explain firewall_rule_internet --record rule.json --param ports=22,8080
  coordinator rules explain my_rule.yaml --record /tmp/cloudmarker/azaudit_azcloud.json --resource /subscriptions/.../sa1
  jq '.[7]' records.json | coordinator rules explain my_rule.yaml --record -";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    /// The rule's id, class or file.
    #[arg(value_name = "RULE")]
    rule: String,
    /// A file with a record, or many as a FileStore writes them; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    record: PathBuf,
    /// Which record of many: a part of its `com.reference`, `key` or `id`. Without it, the first that the rule looks at.
    #[arg(long, value_name = "TEXT")]
    resource: Option<String>,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    sources: Sources,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// What a rule says of a record, and why.
#[derive(Debug, Serialize)]
struct Explanation<'a> {
    rule: &'a str,
    resource: &'a str,
    now: String,
    result: &'static str,
    /// Why it is unknown, or why the rule does not look at the record.
    because: Option<String>,
    parts: Vec<Part>,
    events: Vec<Event<'a>>,
}

#[derive(Debug, Serialize)]
struct Part {
    key: String,
    depth: usize,
    expression: String,
    /// As JSON, if it has one.
    value: Option<String>,
    /// Why it has none.
    trouble: Option<String>,
}

#[derive(Debug, Serialize)]
struct Event<'a> {
    event_type: &'a str,
    sub_key: &'a str,
    description: &'a str,
    recommendation: &'a str,
}

pub(super) fn main(args: &ExplainArgs) -> Done {
    let rule = args.sources.rule(&args.rule)?;
    let instance = args.look.instance(&rule)?;
    let text = find(&args.record, args.resource.as_deref(), &instance)?;
    let record = Record::parse(&text, rule.raw_wanted())
        .map_err(|error| format!("{}: not a record: {error}", args.record.display()))?;
    let now = args.look.now(&record);
    let judgement = instance.judge(&record, now);
    let explanation = explain(&instance, &record, &judgement, now);
    if args.json { print_json(&explanation) } else { Ok(print(&in_words(&explanation))) }
}

/// The text of the record that is meant.
fn find(file: &Path, resource: Option<&str>, instance: &Instance) -> Result<Vec<u8>, Refused> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let begin = beginning(file).map_err(|error| format!("{name} cannot be read: {error}"))?;
    // One record may stand on many lines.
    let broken = match begin.trim_ascii_start().first() {
        Some(b'{') => match serde_json::from_slice::<&RawValue>(&begin) {
            Ok(_) => return Ok(begin),
            Err(error) => Some(error.to_string()),
        },
        _ => None,
    };
    let mut search = Search { resource, instance, found: None, first: None, count: 0, broken: None };
    if file == Path::new("-") {
        documents::lines(begin.as_slice(), |line, document| search.look(line, document));
    } else {
        documents::read(file, |line, document| search.look(line, document));
    }
    let Search { found, first, count, broken: of_line, .. } = search;
    match (found, first, resource) {
        (Some(text), ..) => Ok(text),
        (None, Some(_), Some(part)) => {
            Err(format!("{name}: none of its {count} records has `{part}` in its reference, key or id").into())
        }
        // The rule looks at none of them; the first shows why.
        (None, Some(text), None) => Ok(text),
        (None, None, _) => {
            let why = broken.map(|why| format!("not a record: {why}")).or(of_line);
            let why = why.unwrap_or_else(|| "it has no records".to_owned());
            Err(format!("{name}: {why}").into())
        }
    }
}

/// The file, as far as it may be one record.
fn beginning(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().take(MAX_RECORD).read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    let mut opened = documents::open(file)?;
    opened.by_ref().take(4096).read_to_end(&mut bytes)?;
    if bytes.trim_ascii_start().starts_with(b"{") {
        opened.take(MAX_RECORD).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The record that is meant, among many.
struct Search<'a> {
    resource: Option<&'a str>,
    instance: &'a Instance,
    found: Option<Vec<u8>>,
    first: Option<Vec<u8>>,
    count: usize,
    broken: Option<String>,
}

impl Search<'_> {
    /// Whether it is still to be found.
    fn look(&mut self, line: usize, document: Result<&[u8], String>) -> bool {
        let document = match document {
            Ok(document) => document,
            Err(trouble) => {
                self.broken.get_or_insert_with(|| format!("line {line}: {trouble}"));
                return true;
            }
        };
        let record = match Record::parse(document, self.instance.rule.raw_wanted()) {
            Ok(record) => record,
            Err(error) => {
                self.broken.get_or_insert_with(|| format!("line {line}: not a record: {error}"));
                return true;
            }
        };
        self.count += 1;
        let is_meant = match self.resource {
            Some(part) => {
                let text = |name| record.com_text(name).unwrap_or_default();
                ["reference", "key", "id"].iter().any(|name| text(name).contains(part))
            }
            None => {
                let (cloud, com) = (record.com_text("cloud_type"), record.com_text("record_type"));
                self.instance.selects(cloud, com, record.ext_text("record_type"))
            }
        };
        if is_meant {
            self.found = Some(document.to_vec());
        }
        self.first.get_or_insert_with(|| document.to_vec());
        !is_meant
    }
}

fn explain<'a>(
    instance: &'a Instance,
    record: &'a Record<'_>,
    judgement: &'a Judgement,
    now: Timestamp,
) -> Explanation<'a> {
    let rule = &instance.rule;
    let (cloud, com, ext) =
        (record.com_text("cloud_type"), record.com_text("record_type"), record.ext_text("record_type"));
    let selected = instance.selects(cloud, com, ext);
    let looked = record.trouble.is_none() && selected;
    let (result, because) = match &judgement.outcome {
        Outcome::Pass => ("pass", None),
        Outcome::Fail => {
            ("fail", judgement.also_unknown.as_ref().map(|why| format!("of a part it cannot be said: {why}")))
        }
        Outcome::Unknown(why) => ("unknown", Some(why.clone())),
        Outcome::NotApplicable if selected => ("not applicable", Some("`when` is false".to_owned())),
        Outcome::NotApplicable => {
            let is = |name: &str, found: Option<&str>| format!("{name} {}", found.unwrap_or("(none)"));
            let found = [is("cloud", cloud), is("ext.record_type", ext), is("com.record_type", com)].join(", ");
            ("not applicable", Some(format!("the rule looks at {}; the record has {found}", looks_at(rule))))
        }
    };
    Explanation {
        rule: &rule.id,
        resource: record.name().unwrap_or("a record without an id"),
        now: now.to_string(),
        result,
        because,
        parts: if looked { instance.explain(record, now).into_iter().map(part).collect() } else { Vec::new() },
        events: judgement
            .events
            .iter()
            .map(|draft| Event {
                event_type: &draft.event_type,
                sub_key: &draft.sub_key,
                description: &draft.description,
                recommendation: &draft.recommendation,
            })
            .collect(),
    }
}

fn part(explained: Explained) -> Part {
    let Explained { key, depth, text, value } = explained;
    let (value, trouble) = match value {
        Ok(value) => (Some(value), None),
        Err(trouble) => (None, Some(trouble)),
    };
    Part { key, depth, expression: text, value, trouble }
}

fn in_words(explanation: &Explanation<'_>) -> String {
    let because = explanation.because.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
    let mut text = shown(&format!("{} of {}: {}{because}", explanation.rule, explanation.resource, explanation.result));
    text.push('\n');
    if !explanation.parts.is_empty() {
        let mut table = table(&["", "expression", "value"]);
        let mut before = "";
        for part in &explanation.parts {
            let key = if part.key == before && part.depth > 0 { "" } else { &part.key };
            before = &part.key;
            let expression = format!("{}{}", "  ".repeat(part.depth), part.expression);
            let value = match (&part.value, &part.trouble) {
                (Some(value), _) => value.clone(),
                (None, trouble) => format!("unknown: {}", trouble.as_deref().unwrap_or_default()),
            };
            table.add_row([cell(key), cell(&expression), cell(&value)]);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{table}");
        let _ = writeln!(text, "The time of the run is {}.", explanation.now);
    }
    for event in &explanation.events {
        let of = if event.sub_key.is_empty() { String::new() } else { format!(" of {}", event.sub_key) };
        let event = format!("Event {}{of}: {} {}", event.event_type, event.description, event.recommendation);
        let _ = writeln!(text, "{}", shown(&event));
    }
    text
}
