//! `coordinator alerts`: lists the alerts of a configuration, and sends a test message through one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::catalogue::in_one_line;
use proto::config::secret::Expander;
use proto::config::{Config, Environment, PluginConfig};
use proto::subject::Key;
use serde_json::Value;

use super::{INCOMPLETE, USAGE, check, print};
use crate::mail::Mails;
use crate::terminal::{Look, cell};

/// What the mails about runs are called where alerts are named.
const EMAIL: &str = "email";

const EXAMPLES: &str = "\
Examples:
  coordinator alerts                  what tells people, and whom
  coordinator alerts list             the same
  coordinator alerts test mymail      one message through the alert mymail
  coordinator alerts test email       one mail by `email:`, which tells of runs

Messages are sent from this host, with its secrets; the workers of a cluster may have others.";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(super) struct AlertsArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the alerts that talk to people: the same as `alerts` alone.
    List(ListArgs),
    /// Send one message that is plainly a test, and say where it went, or why it could not.
    Test(TestArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Configuration files, instead of the default ones.
    #[arg(short, long, value_name = "FILE", num_args = 0.., action = clap::ArgAction::Append)]
    config: Option<Vec<PathBuf>>,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// The alert's key under `plugins:`, or `email` for the mails about runs.
    key: String,
    #[command(flatten)]
    list: ListArgs,
}

pub(super) fn main(args: &AlertsArgs) -> ExitCode {
    let list = match &args.command {
        None => &args.list,
        Some(Command::List(list)) => list,
        Some(Command::Test(test)) => &test.list,
    };
    let environment = Environment::of_process();
    let Some((config, _)) = check::read(list.config.as_deref(), &[], &environment) else {
        return ExitCode::from(USAGE);
    };
    let expander = Expander::of_everything(environment);
    match &args.command {
        Some(Command::Test(args)) => test(args, &config, &expander),
        None | Some(Command::List(_)) => print(&listed(&config, &expander)),
    }
}

/// The plugins that talk to people.
fn alerts(config: &Config) -> impl Iterator<Item = (&Key, &PluginConfig)> {
    config.plugins.iter().filter(|(_, plugin)| talks(&plugin.class))
}

fn talks(class: &str) -> bool {
    let short = class.rsplit('.').next().unwrap_or(class);
    alerter::registry::served().any(|known| known.short_name() == short)
}

fn params(plugin: &PluginConfig, expander: &Expander) -> Result<Value, String> {
    let params = match &plugin.params {
        Value::Null => Value::Object(serde_json::Map::new()),
        params => params.clone(),
    };
    expander.expand(&params).map_err(|errors| in_one_line(&errors))
}

fn listed(config: &Config, expander: &Expander) -> String {
    let mut audits: BTreeMap<&Key, Vec<&str>> = BTreeMap::new();
    for (audit, lists) in &config.audits {
        for plugin in &lists.alerts {
            audits.entry(plugin).or_default().push(audit.as_str());
        }
    }
    let look = Look::of_stdout();
    let mut table = look.table(&["alert", "audits", "tells"]);
    for (key, plugin) in alerts(config) {
        let place = params(plugin, expander)
            .and_then(|params| alerter::registry::build_alert(&plugin.class, &params))
            .map_or_else(|reason| format!("cannot be used here: {reason}"), |(_, alert)| alert.place());
        let audits = audits.get(key).map(|audits| audits.join(", "));
        table.add_row(vec![cell(key.as_str()), cell(&audits.unwrap_or_else(|| "none".into())), cell(&place)]);
    }
    if let Some(mailer) = Mails::new(config.email.as_ref(), expander).mailer() {
        let place = mailer.map_or_else(|reason| format!("cannot be used here: {reason}"), |mailer| mailer.place());
        table.add_row(vec![cell(EMAIL), cell("begin and end of all"), cell(&place)]);
    }
    if table.is_empty() { "There is nothing that tells people.\n".to_owned() } else { look.text_of(&table) }
}

fn test(args: &TestArgs, config: &Config, expander: &Expander) -> ExitCode {
    let plugin = config.plugins.iter().find(|(key, _)| key.as_str() == args.key);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("cannot start: {error}")),
    };
    let sent = match plugin {
        Some((key, plugin)) if talks(&plugin.class) => {
            let params = params(plugin, expander);
            runtime.block_on(async { alerter::trial::send(key, &plugin.class, &params?).await })
        }
        Some((key, plugin)) => {
            return usage(&format!(
                "{key} is a {}, which tells nobody; `coordinator check --connect` tries the stores. {}",
                plugin.class.rsplit('.').next().unwrap_or(&plugin.class),
                known(config)
            ));
        }
        None if args.key == EMAIL && config.email.is_some() => {
            let mails = Mails::new(config.email.as_ref(), expander);
            runtime.block_on(mails.try_out())
        }
        None => return usage(&format!("there is no alert {}. {}", args.key, known(config))),
    };
    runtime.shutdown_background();
    match sent {
        Ok(place) => print(&format!("A test message was sent: {place}\n")),
        Err(reason) => failure(&format!("the test message of {} was not sent: {reason}", args.key)),
    }
}

/// The keys that there are.
fn known(config: &Config) -> String {
    let email = config.email.as_ref().map(|_| EMAIL);
    let keys: Vec<&str> = alerts(config).map(|(key, _)| key.as_str()).chain(email).collect();
    match keys.is_empty() {
        true => "The configuration has none".to_owned(),
        false => format!("These tell people: {}", keys.join(", ")),
    }
}

fn usage(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(USAGE)
}

fn failure(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(INCOMPLETE)
}
