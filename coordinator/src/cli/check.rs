//! `coordinator check`: says what is wrong with a configuration, without running anything.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use proto::config::secret::Expander;
use proto::config::{Config, Environment, Problem, load, rules_section, validate};
use proto::plan::Stage;
use proto::subject::Version;
use sink::connect::try_connect;
use sink::settings::Settings;

use super::{INCOMPLETE, USAGE, print};
use crate::planner::{PlanError, Planner, UserRules};

const EXAMPLES: &str = "\
Examples:
  coordinator check                                   the configuration that `run` would use
  coordinator check -c azure.yaml stores.yaml
  coordinator check --connect                         also whether the stores can be used, from this host";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// Configuration files, instead of the default ones.
    #[arg(short, long, value_name = "FILE", num_args = 0.., action = clap::ArgAction::Append)]
    config: Option<Vec<PathBuf>>,
    /// The audits to check, instead of those under `run:`.
    #[arg(long, value_name = "KEY", num_args = 1.., action = clap::ArgAction::Append)]
    audit: Vec<String>,
    /// Also connect to the stores, from this host and with its secrets; what has to be there before the first
    /// document, such as a table, is made.
    #[arg(long)]
    connect: bool,
}

pub(super) fn main(args: &CheckArgs) -> ExitCode {
    let environment = Environment::of_process();
    let Some((config, rules)) = read(args.config.as_deref(), &args.audit, &environment) else {
        return ExitCode::from(USAGE);
    };
    let audits: Vec<String> = config.run.iter().map(ToString::to_string).collect();
    let planned = Planner::new(&config, &rules);
    let connected = match &planned {
        Ok(planner) if args.connect => connect(planner, &environment),
        _ => true,
    };
    let errors = planned.err().unwrap_or_default();
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
    let printed = print(&format!("The configuration is good. Audits to run: {}\n", audits.join(", ")));
    if connected { printed } else { ExitCode::from(INCOMPLETE) }
}

/// Connects to all stores, and says of each whether it can be used. False when one that is needed cannot.
fn connect(planner: &Planner, environment: &Environment) -> bool {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return false;
        }
    };
    let expander = Expander::of_everything(environment.clone());
    let version = Version::at(jiff::Timestamp::now());
    let mut all_good = true;
    for audit in planner.audits() {
        let plan = planner.plan(audit, &version);
        for spec in plan.plugins.iter().filter(|spec| spec.stage == Stage::Sink) {
            let name = format!("audits.{audit}.{}s: {}", spec.role, spec.key);
            match runtime.block_on(try_connect(&expander, &plan, spec)) {
                Ok(place) => eprintln!("{name}: can be used: {place}"),
                Err(reason) if Settings::read(&spec.params).is_ok_and(|settings| settings.optional) => {
                    eprintln!("warning: {name}: cannot be used: {reason}; a run goes on without it, as it is optional");
                }
                Err(reason) => {
                    eprintln!("error: {name}: cannot be used: {reason}");
                    all_good = false;
                }
            }
        }
    }
    runtime.shutdown_background();
    all_good
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
