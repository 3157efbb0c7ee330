//! `coordinator rules`: lists rules, shows them, tests them and tries them on records.

mod documents;
mod explain;
mod known;
mod list;
mod new;
mod overview;
mod show;
mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::{Cell, Table};
use serde::Serialize;

use super::{INCOMPLETE, USAGE, print};
use crate::terminal::Look;

const EXAMPLES: &str = "\
Examples:
  coordinator rules --cloud azure --service storage     the rules over Azure's storage accounts
  coordinator rules --control cis_azure_3.0             those of a benchmark
  coordinator rules list --severity high,critical       the same as `rules` alone
  coordinator rules show AzSQLDatabaseTDEEvent          all of a rule
  coordinator rules new my_rule --cloud azure --record-type sql_db
  coordinator rules test my_rule.yaml
  coordinator rules try my_rule.yaml --from /tmp/cloudmarker
  coordinator rules explain my_rule.yaml --record /tmp/cloudmarker/azaudit_azcloud.json

A rule is named by its id, by the class of the Python tool that it answers to, or by its file.";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(super) struct RulesArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: list::ListArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List rules: the same as `rules` alone.
    List(list::ListArgs),
    /// Show all of a rule.
    Show(show::ShowArgs),
    /// Run the tests that stand in rule files.
    Test(test::TestArgs),
    /// Show what each part of a rule's conditions comes to on a record, and why the rule says what it says.
    Explain(explain::ExplainArgs),
    /// Begin a rule: write a commented file that passes its own tests.
    New(new::NewArgs),
    /// Try a rule on the records of a run: how many would fail, by account.
    Try(overview::TryArgs),
}

pub(super) fn main(args: &RulesArgs) -> ExitCode {
    let done = match &args.command {
        None => list::main(&args.list),
        Some(Command::List(args)) => list::main(args),
        Some(Command::Show(args)) => show::main(args),
        Some(Command::Test(args)) => test::main(args),
        Some(Command::Explain(args)) => explain::main(args),
        Some(Command::New(args)) => new::main(args),
        Some(Command::Try(args)) => overview::main(args),
    };
    done.unwrap_or_else(|Refused(reasons)| {
        for reason in reasons {
            eprintln!("error: {reason}");
        }
        ExitCode::from(USAGE)
    })
}

/// Why a command cannot do what it is told.
#[derive(Debug)]
struct Refused(Vec<String>);

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self(vec![reason])
    }
}

type Done = Result<ExitCode, Refused>;

fn print_json(value: &impl Serialize) -> Done {
    let text = serde_json::to_string_pretty(value).map_err(|error| format!("cannot write JSON: {error}"))?;
    Ok(print(&format!("{text}\n")))
}

/// A table as wide as the terminal; elsewhere each row is one line.
fn table(header: &[&str]) -> Table {
    Look::of_stdout().table(header)
}

/// A text of a record, as a person may see it: control characters would act on the terminal.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn cell(text: &str) -> Cell {
    Cell::new(shown(text))
}

/// `1 rule`, `2 rules`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
