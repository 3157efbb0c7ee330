//! `coordinator rules`: lists rules.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use clap::builder::PossibleValuesParser;
use comfy_table::{Cell, ColumnConstraint};
use evaluator::rule::{Controls, Rule};
use proto::config::suggest;
use serde::Serialize;

use super::known::{Sources, place_of};
use super::{Done, counted, print, print_json, table};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only rules over this cloud's records; rules over those of every cloud (`any`) are among them.
    #[arg(long, value_name = "CLOUD", value_delimiter = ',')]
    cloud: Vec<String>,
    /// Only rules about this service: the folder that they stand in.
    #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
    service: Vec<String>,
    /// Only rules of this severity.
    #[arg(long, value_name = "SEVERITY", value_delimiter = ',', ignore_case = true,
        value_parser = PossibleValuesParser::new(["critical", "high", "medium", "low", "info"]))]
    severity: Vec<String>,
    /// Only rules about this control or benchmark: `7.1`, `cis_azure_3.0`, `cis_azure`, or `cis_azure_3.0:7.1`.
    #[arg(long, value_name = "CONTROL", value_delimiter = ',')]
    control: Vec<String>,
    #[command(flatten)]
    sources: Sources,
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
}

/// A rule in a list.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    id: &'a str,
    severity: &'a str,
    cloud: String,
    service: String,
    title: &'a str,
    class: Option<&'a str>,
    version: u32,
    controls: Controls,
    file: &'a str,
}

pub(super) fn main(args: &ListArgs) -> Done {
    let pack = args.sources.pack()?;
    let all: Vec<Entry<'_>> = pack.rules().map(entry).collect();
    let clouds = all.iter().flat_map(|entry| entry.cloud.split(", ")).filter(|cloud| *cloud != "any").collect();
    known("cloud", &args.cloud, &clouds)?;
    known("service", &args.service, &all.iter().map(|entry| entry.service.as_str()).collect())?;
    let entries: Vec<&Entry<'_>> = all.iter().filter(|entry| is_wanted(entry, args)).collect();
    if let Some(control) = args.control.iter().find(|control| !all.iter().any(|entry| is_about(entry, control))) {
        let benchmarks: BTreeSet<&str> =
            all.iter().flat_map(|entry| entry.controls.keys()).map(String::as_str).collect();
        let benchmarks: Vec<&str> = benchmarks.into_iter().collect();
        return Err(format!("no rule is about `{control}` (benchmarks: {})", benchmarks.join(", ")).into());
    }
    if args.json {
        return print_json(&entries);
    }
    if entries.is_empty() {
        eprintln!("no rule is all of that");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = table(&["id", "severity", "cloud", "service", "title", "class"]);
    // An id is there to be copied.
    if let Some(id) = table.column_mut(0) {
        id.set_constraint(ColumnConstraint::ContentWidth);
    }
    for entry in &entries {
        let class = entry.class.and_then(|class| class.rsplit('.').next()).unwrap_or_default();
        table.add_row([entry.id, entry.severity, &entry.cloud, &entry.service, entry.title, class].map(Cell::new));
    }
    Ok(print(&format!("{table}\n{}\n", counted(entries.len(), "rule"))))
}

fn entry(rule: &Arc<Rule>) -> Entry<'_> {
    let (cloud, service) = place_of(rule);
    // A rule is as bad as the worst that it finds.
    let worst = rule.findings.iter().map(|finding| finding.facts.severity).max().unwrap_or(rule.severity);
    Entry {
        id: &rule.id,
        severity: worst.as_str(),
        cloud,
        service,
        title: &rule.title,
        class: rule.class.as_deref(),
        version: rule.version,
        controls: rule.all_controls(),
        file: &rule.file,
    }
}

fn is_wanted(entry: &Entry<'_>, args: &ListArgs) -> bool {
    let among = |wanted: &[String], found: &str| {
        wanted.is_empty() || wanted.iter().any(|word| found.split(", ").any(|found| word.eq_ignore_ascii_case(found)))
    };
    (entry.cloud == "any" || among(&args.cloud, &entry.cloud))
        && among(&args.service, &entry.service)
        && among(&args.severity, entry.severity)
        && (args.control.is_empty() || args.control.iter().any(|control| is_about(entry, control)))
}

/// Whether a rule is about a benchmark (of any version, if none is named), a control, or a control of a benchmark.
fn is_about(entry: &Entry<'_>, wanted: &str) -> bool {
    let is_benchmark = |benchmark: &str, wanted: &str| {
        benchmark.strip_prefix(wanted).is_some_and(|rest| matches!(rest.get(..1), None | Some("_")))
    };
    entry.controls.iter().any(|(benchmark, controls)| match wanted.split_once(':') {
        Some((of, control)) => is_benchmark(benchmark, of) && controls.iter().any(|known| known == control),
        None => is_benchmark(benchmark, wanted) || controls.iter().any(|known| known == wanted),
    })
}

/// A word that no rule has is a mistake, and not an empty list.
fn known(what: &str, wanted: &[String], there: &BTreeSet<&str>) -> Result<(), String> {
    let there: Vec<&str> = there.iter().copied().collect();
    match wanted.iter().find(|word| !there.iter().any(|known| known.eq_ignore_ascii_case(word))) {
        Some(word) => Err(suggest::unknown(what, word, &there)),
        None => Ok(()),
    }
}
