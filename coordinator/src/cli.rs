//! The command line. Results go to standard output, everything else to standard error.
//!
//! Exit codes: 0 complete; 2 bad usage or configuration; 3 ended, but something is incomplete or failed.

mod check;
mod dead_letters;
mod query;
mod rules;
mod run;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

pub use run::RunArgs;

/// Bad usage or configuration.
const USAGE: u8 = 2;
/// Ended, but something is incomplete or failed.
const INCOMPLETE: u8 = 3;

/// Audits cloud environments: reads their configuration, stores it, evaluates rules over it, and alerts.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, disable_version_flag = true, args_conflicts_with_subcommands = true)]
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
    /// Run audits: now, or take over a run whose coordinator died.
    Run(RunArgs),
    /// Check the configuration without running anything.
    Check(check::CheckArgs),
    /// What could not be processed: list it, show it, send it back, drop it.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Read the inventory that a SqliteStore keeps.
    Query(query::QueryArgs),
    /// List rules, show them, test them, try them on records, and begin new ones.
    Rules(rules::RulesArgs),
    /// Print the built-in base configuration.
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
        Some(Command::Check(args)) => check::main(&args),
        Some(Command::DeadLetters(args)) => dead_letters::main(&args),
        Some(Command::Query(args)) => query::main(&args),
        Some(Command::Rules(args)) => rules::main(&args),
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
