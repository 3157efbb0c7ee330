//! `coordinator check`: says what is wrong with a configuration, without running anything.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use proto::config::{Config, Environment, Problem, load, rules_section, validate};

use super::{USAGE, print};
use crate::planner::{PlanError, Planner, UserRules};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Configuration files, instead of the default ones.
    #[arg(short, long, value_name = "FILE", num_args = 0.., action = clap::ArgAction::Append)]
    config: Option<Vec<PathBuf>>,
    /// The audits to check, instead of those under `run:`.
    #[arg(long, value_name = "KEY", num_args = 1.., action = clap::ArgAction::Append)]
    audit: Vec<String>,
}

pub(super) fn main(args: &CheckArgs) -> ExitCode {
    let environment = Environment::of_process();
    let Some((config, rules)) = read(args.config.as_deref(), &args.audit, &environment) else {
        return ExitCode::from(USAGE);
    };
    let audits: Vec<String> = config.run.iter().map(ToString::to_string).collect();
    let errors = Planner::new(&config, &rules).err().unwrap_or_default();
    let (unserved, wrong): (Vec<_>, Vec<_>) =
        errors.into_iter().partition(|error| matches!(error, PlanError::Unserved(_)));
    if !wrong.is_empty() {
        for error in &wrong {
            eprintln!("error: {error}");
        }
        return ExitCode::from(USAGE);
    }
    if !unserved.is_empty() {
        return print("The configuration is good, but this version cannot run it: see the warnings.\n");
    }
    print(&format!("The configuration is good. Audits to run: {}\n", audits.join(", ")))
}

/// Reads and validates a configuration and the rules that it names; tells what is wrong with them, and gives them when
/// nothing is.
pub(super) fn read(
    files: Option<&[PathBuf]>,
    audits: &[String],
    environment: &Environment,
) -> Option<(Config, UserRules)> {
    let selection = (!audits.is_empty()).then_some(audits);
    let loaded = load(files, environment);
    // What is wrong with the section is told with the rest of the configuration.
    let of_home = |path: PathBuf| if path.starts_with("~") { environment.path(path) } else { path };
    let paths: Vec<PathBuf> = rules_section(&loaded).unwrap_or_default().into_iter().map(of_home).collect();
    let rules = UserRules::read(&paths);
    for error in rules.as_ref().err().into_iter().flatten() {
        eprintln!("error: {error}");
    }
    // Without the rules, checking would say of each plugin that uses one that its class is unknown.
    let rules = rules.ok()?;
    let (config, problems) = validate(&loaded, &rules.with_classes(), selection);
    for problem in &problems {
        eprintln!("{}: {problem}", problem.severity);
    }
    config.filter(|_| !problems.iter().any(Problem::is_error)).map(|config| (config, rules))
}
