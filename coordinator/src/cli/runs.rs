//! `coordinator runs`: lists the runs that are known.

use std::process::ExitCode;

use clap::Args;
use proto::config::Environment;
use proto::run::Phase;
use proto::service::args::BusArgs;
use proto::subject::Key;

use super::broker::{self, Place};
use super::{USAGE, print};
use crate::history::{Entry, History, Outcome, Wanted};
use crate::terminal::{Look, cell, number, span};

const EXAMPLES: &str = "\
Examples:
  coordinator runs                                     the last twenty at the broker, or of this host without one
  coordinator runs --audit mockaudit --limit 100
  coordinator runs --json --nats nats://127.0.0.1:4222
  coordinator runs --here                              what this host knows, without asking the broker

`coordinator status VERSION` tells all of one.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunsArgs {
    /// Those of this audit.
    #[arg(long, value_name = "KEY", value_parser = |text: &str| Key::new(text))]
    audit: Option<Key>,
    /// The newest ones, at most so many; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Ask no broker: what this host knows.
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    bus: BusArgs,
}

pub(super) fn main(args: &RunsArgs) -> ExitCode {
    let history = History::of_host(&Environment::of_process());
    let listed = broker::with(&args.bus, args.here, async |place| {
        let entries = entries(args, &history, place).await?;
        if args.json {
            let text = serde_json::to_string_pretty(&entries).map_err(|error| format!("cannot write JSON: {error}"))?;
            return Ok(print(&format!("{text}\n")));
        }
        if entries.is_empty() {
            eprintln!("there are no runs yet; `coordinator run --now` begins one");
            return Ok(ExitCode::SUCCESS);
        }
        Ok(print(&table(&entries, Look::of_stdout())))
    });
    listed.unwrap_or_else(|reason| {
        eprintln!("error: {reason}");
        ExitCode::from(USAGE)
    })
}

async fn entries(args: &RunsArgs, history: &History, place: Place) -> Result<Vec<Entry>, String> {
    let limit = Some(args.limit).filter(|limit| *limit > 0);
    let (id, runs) = match place {
        Place::Here => (None, Vec::new()),
        Place::Broker(bus) => {
            let known = history.synchronise(&bus).await.map_err(|error| error.to_string())?;
            (Some(known.id), known.runs)
        }
    };
    let wanted = Wanted { broker: id.as_deref(), audit: args.audit.as_ref(), version: None, limit };
    let mut entries = history.entries(&wanted).map_err(|error| error.to_string())?;
    for entry in entries.iter_mut().filter(|entry| entry.outcome == Outcome::Running) {
        let run = runs.iter().find(|run| run.version == entry.version);
        entry.phase = run.and_then(|run| run.audits.get(&entry.audit)).map(|state| state.phase);
    }
    Ok(entries)
}

fn table(entries: &[Entry], look: Look) -> String {
    let mut table = look.table(&["run", "audit", "outcome", "took", "records", "events", "documents", "problems"]);
    for entry in entries {
        let outcome = look.paint(entry.outcome.colour(), entry.outcome.as_str());
        let outcome = match entry.phase.filter(|_| entry.outcome == Outcome::Running).map(Phase::as_str) {
            Some(phase) => format!("{outcome}: {phase}"),
            None => outcome,
        };
        let count = |count: Option<u64>| count.map_or_else(|| number(""), |count| look.count(count));
        table.add_row([
            cell(entry.version.as_str()),
            cell(entry.audit.as_str()),
            comfy_table::Cell::new(outcome),
            number(entry.seconds.map(span).unwrap_or_default()),
            count(entry.records),
            count(entry.events),
            count(entry.documents),
            count(entry.problems),
        ]);
    }
    look.text_of(&table)
}
