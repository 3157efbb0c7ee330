//! The command line. Results go to standard output, everything else to standard error.
//!
//! Exit codes: 0 complete; 2 bad usage or configuration; 3 ended, but something is incomplete or failed.

mod alerts;
mod broker;
mod cancel;
mod check;
mod completions;
mod dead_letters;
mod diff;
mod export;
mod import;
mod next;
mod query;
mod rules;
mod run;
mod runs;
mod schema;
mod status;
mod up;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

pub use run::RunArgs;

/// Bad usage or configuration.
const USAGE: u8 = 2;
/// Ended, but something is incomplete or failed.
const INCOMPLETE: u8 = 3;

/// The version, and the commit that it was built of.
const VERSION: &str = env!("CM_VERSION");

const EXAMPLES: &str = "\
Examples:
  coordinator check -c azure.yaml                     is the configuration good?
  coordinator run --now -c azure.yaml                 run its audits in this process, with nothing to install
  coordinator run --now --nats nats://127.0.0.1:4222  over a broker, with any number of workers
  coordinator status --watch                          where the run stands
  coordinator runs                                    what came of the last ones
  coordinator diff                                    what changed between the last two

Exit codes: 0 good, or complete; 2 bad usage or configuration; 3 ended, but something is incomplete or failed.
Results go to standard output, all else to standard error. NO_COLOR turns colours off.";

const BASE_EXAMPLES: &str = "\
Examples:
  coordinator print-base-config                       what other configurations are merged over";

/// Audits cloud environments: reads their configuration, stores it, evaluates rules over it, and alerts.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version = VERSION, disable_version_flag = true, args_conflicts_with_subcommands = true)]
#[command(after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
    /// Print the built-in base configuration.
    #[arg(short, long)]
    print_base_config: bool,
    /// Print the version.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run audits: at the turns of their schedules, now, or where a coordinator that died left off.
    #[command(after_help = run::EXAMPLES)]
    Run(RunArgs),
    /// Say when audits run next.
    Next(next::NextArgs),
    /// End a run, whoever leads it: what was stored stays.
    Cancel(cancel::CancelArgs),
    /// What tells people: list it, and send a test message.
    Alerts(alerts::AlertsArgs),
    /// Check the configuration without running anything.
    Check(check::CheckArgs),
    /// Write what a shell completes commands with.
    Completions(completions::CompletionsArgs),
    /// What could not be processed: list it, show it, send it back, drop it.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// What changed between two runs: findings and resources that are new, gone, changed, or could not be read.
    Diff(diff::DiffArgs),
    /// Write the activity logs that a SqliteStore keeps to files.
    Export(export::ExportArgs),
    /// Bring over the configuration of another tool.
    Import(import::ImportArgs),
    /// Read the inventory that a SqliteStore keeps.
    Query(query::QueryArgs),
    /// List rules, show them, test them, try them on records, and begin new ones.
    Rules(rules::RulesArgs),
    /// List the runs that are known, with their outcomes.
    Runs(runs::RunsArgs),
    /// What stands in CloudTrail's events: services, their operations, and what these ask and answer.
    Schema(schema::SchemaArgs),
    /// Show where a run stands, live or past: stages, what is left, workers, what waits for the cloud.
    Status(status::StatusArgs),
    /// Start a broker and one of each worker on this host, and keep them alive until Ctrl-C.
    #[command(after_help = up::EXAMPLES)]
    Up(up::UpArgs),
    /// Print the built-in base configuration.
    #[command(after_help = BASE_EXAMPLES)]
    PrintBaseConfig,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None if cli.print_base_config => print_base_config(),
        None => run::main(&cli.run),
        Some(Command::Run(args)) => run::main(&args),
        Some(Command::Next(args)) => next::main(&args),
        Some(Command::Cancel(args)) => cancel::main(&args),
        Some(Command::Alerts(args)) => alerts::main(&args),
        Some(Command::Check(args)) => check::main(&args),
        Some(Command::Completions(args)) => completions::main(&args),
        Some(Command::DeadLetters(args)) => dead_letters::main(&args),
        Some(Command::Diff(args)) => diff::main(&args),
        Some(Command::Export(args)) => export::main(&args),
        Some(Command::Import(args)) => import::main(&args),
        Some(Command::Query(args)) => query::main(&args),
        Some(Command::Rules(args)) => rules::main(&args),
        Some(Command::Runs(args)) => runs::main(&args),
        Some(Command::Schema(args)) => schema::main(&args),
        Some(Command::Status(args)) => status::main(&args),
        Some(Command::Up(args)) => up::main(&args),
        Some(Command::PrintBaseConfig) => print_base_config(),
    }
}

fn print_base_config() -> ExitCode {
    print(proto::config::BASE)
}

/// Writes a result to standard output. A reader that has gone away wants no more.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("coordinator: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests;
