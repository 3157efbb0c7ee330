//! `coordinator next`: when audits run next.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use proto::config::Environment;
use proto::subject::Key;
use serde::Serialize;

use super::{USAGE, check, print};
use crate::schedule::{Schedule, upcoming};
use crate::terminal::{Look, cell, span};

const EXAMPLES: &str = "\
Examples:
  coordinator next                                    the next ten turns
  coordinator next --audit mockaudit --count 3
  coordinator next --json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct NextArgs {
    /// Configuration files, instead of the default ones.
    #[arg(short, long, value_name = "FILE", num_args = 0.., action = clap::ArgAction::Append)]
    config: Option<Vec<PathBuf>>,
    /// The audits, instead of those under `run:`.
    #[arg(long, value_name = "KEY", num_args = 1.., action = clap::ArgAction::Append)]
    audit: Vec<String>,
    /// How many turns.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    count: u16,
    /// As JSON: a list with an object for each turn.
    #[arg(long)]
    json: bool,
}

/// A turn. Its JSON is a contract: see the README.
#[derive(Debug, Serialize)]
struct Turn<'a> {
    /// When, in RFC 3339, with the offset of the schedule's zone.
    at: String,
    /// The zone, by its IANA name where it has one.
    timezone: &'a str,
    /// The schedule, as it may be written.
    schedule: String,
    /// The audits that run, in their order.
    audits: &'a [Key],
}

pub(super) fn main(args: &NextArgs) -> ExitCode {
    let Some((config, _)) = check::read(args.config.as_deref(), &args.audit, &Environment::of_process()) else {
        return ExitCode::from(USAGE);
    };
    let schedules = match Schedule::of_config(&config) {
        Ok(schedules) => schedules,
        Err(reason) => {
            eprintln!("error: {reason}");
            return ExitCode::from(USAGE);
        }
    };
    let now = Timestamp::now();
    let turns = upcoming(&schedules, now, args.count.into());
    if args.json {
        return print(&json(&turns));
    }
    if turns.is_empty() {
        eprintln!("no audit has a turn");
        return ExitCode::SUCCESS;
    }
    let look = Look::of_stdout();
    let mut table = look.table(&["at", "zone", "in", "schedule", "audits"]);
    for (turn, schedule) in turns {
        let left = u64::try_from(turn.duration_since(now).as_secs()).unwrap_or(0);
        table.add_row(vec![
            cell(&schedule.local(turn).strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string()),
            cell(schedule.zone_name()),
            cell(&span(left)),
            cell(&schedule.timing().to_string()),
            cell(&schedule.names()),
        ]);
    }
    print(&look.text_of(&table))
}

fn json(turns: &[(Timestamp, &Schedule)]) -> String {
    let turns: Vec<Turn<'_>> = turns
        .iter()
        .map(|(turn, schedule)| Turn {
            at: schedule.local(*turn).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            timezone: schedule.zone_name(),
            schedule: schedule.timing().to_string(),
            audits: &schedule.audits,
        })
        .collect();
    // Texts and lists of texts: always JSON.
    let mut text = serde_json::to_string_pretty(&turns).unwrap_or_default();
    text.push('\n');
    text
}
