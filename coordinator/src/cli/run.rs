//! `coordinator run`: runs audits, in this process or over a broker, and says what they came to.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use proto::bus::SharedBus;
use proto::bus::nats::NatsOptions;
use proto::config::secret::has_reference;
use proto::config::{Config, Environment};
use proto::service::args::BusArgs;
use proto::service::logging::{self, Logging};
use proto::service::{connect, shutdown};
use proto::subject::Version;
use tokio_util::sync::CancellationToken;

use super::{INCOMPLETE, USAGE, check, print};
use crate::embedded::Embedded;
use crate::history::History;
use crate::planner::Planner;
use crate::progress::Progress;
use crate::run::{Leader, Options, RunError};
use crate::summary::AuditReport;

/// The options of a run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Run the audits now.
    #[arg(short, long)]
    now: bool,
    /// The audits to run, instead of those under `run:`.
    #[arg(long, value_name = "KEY", num_args = 1.., action = clap::ArgAction::Append)]
    audit: Vec<String>,
    /// Take over a run whose coordinator died.
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["now", "audit"], value_parser = |text: &str| Version::new(text))]
    resume: Option<Version>,
    /// How long a part of the run may have no worker that can serve it, before it ends as failed (300, 5m).
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    wait_workers: Duration,
    /// Units of collecting worked on at once, when all stages are in this process.
    #[arg(long, value_name = "N", default_value_t = 64)]
    concurrency: usize,
    /// A file that takes the coverage as JSON: what was read of each scope and resource type, and what not.
    #[arg(long, value_name = "FILE")]
    coverage: Option<std::path::PathBuf>,
    /// A file to log to, instead of the configuration's.
    #[arg(long, value_name = "FILE")]
    log_file: Option<std::path::PathBuf>,
    #[command(flatten)]
    bus: BusArgs,
}

/// Reads a time: seconds, or a number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed: Result<jiff::SignedDuration, _> = text.parse();
    parsed
        .ok()
        .and_then(|duration| duration.try_into().ok())
        .ok_or_else(|| "a time is expected: seconds (300), or a number with a unit (90s, 5m, 1h)".to_owned())
}

pub(super) fn main(args: &RunArgs) -> ExitCode {
    let environment = Environment::of_process();
    let Some((config, rules)) = check::read(args.bus.config.as_deref(), &args.audit, &environment) else {
        return ExitCode::from(USAGE);
    };
    if !args.now && args.resume.is_none() {
        eprintln!(
            "error: running by schedule is not a part of this version; \
             `coordinator run --now` runs the audits once, now"
        );
        return ExitCode::from(USAGE);
    }
    let nats = match connect::of_config(args.bus.nats.as_deref(), &config, &environment) {
        Ok(nats) => nats,
        Err(reason) => return usage(&reason),
    };
    if nats.is_none() && args.resume.is_some() {
        return usage("there is nothing to resume without a broker: name it with --nats URL");
    }
    let planner = match Planner::new(&config, &rules) {
        Ok(planner) => planner,
        Err(reasons) => {
            for reason in reasons {
                eprintln!("error: {reason}");
            }
            return ExitCode::from(USAGE);
        }
    };
    if config.email.is_some() {
        eprintln!("warning: email: this version sends no mails about audits");
    }
    begin_logging(args, &config, &environment);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("cannot start: {error}")),
    };
    let ended = runtime.block_on(async {
        match nats {
            Some(nats) => over_nats(args, nats, &config, &planner).await,
            None => in_this_process(args, &planner).await,
        }
    });
    // What still blocks a thread is not waited for.
    runtime.shutdown_background();
    ended
}

fn usage(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(USAGE)
}

fn failure(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(INCOMPLETE)
}

fn begin_logging(args: &RunArgs, config: &Config, environment: &Environment) {
    let file = args.log_file.as_ref().map(|file| environment.path(file));
    let logging = Logging::of_config(&config.logger, file.as_deref(), environment);
    if let Some(warning) = logging::begin(&logging) {
        eprintln!("warning: {warning}");
    }
}

async fn in_this_process(args: &RunArgs, planner: &Planner) -> ExitCode {
    let stop = match shutdown::on_signals("stopping: what was read is finished") {
        Ok(stop) => stop,
        Err(error) => return failure(&format!("cannot receive signals: {error}")),
    };
    let plans: Vec<_> =
        planner.audits().iter().map(|audit| planner.plan(audit, &Version::at(jiff::Timestamp::now()))).collect();
    let embedded = Embedded::start(&plans, args.concurrency);
    let mut history = History::of_host(&Environment::of_process());
    history.tell(&embedded.bus).await;
    let options = Options {
        wait_workers: args.wait_workers,
        ack_wait: Duration::from_secs(60),
        poll: Duration::from_millis(20),
        embedded: true,
    };
    let ended = begin(Arc::clone(&embedded.bus), options, planner, stop, args).await;
    history.write(&embedded.bus).await;
    embedded.stop().await;
    ended
}

async fn over_nats(args: &RunArgs, nats: NatsOptions, config: &Config, planner: &Planner) -> ExitCode {
    let stop = match shutdown::on_signals("detaching: the workers go on") {
        Ok(stop) => stop,
        Err(error) => return failure(&format!("cannot receive signals: {error}")),
    };
    let connected = tokio::select! {
        () = stop.cancelled() => return ExitCode::from(INCOMPLETE),
        connected = connect::nats(nats, None) => connected,
    };
    let bus = match connected {
        Ok(bus) => bus,
        Err(error) => return usage(&error.to_string()),
    };
    let options = Options {
        wait_workers: args.wait_workers,
        ack_wait: connect::ack_wait(config),
        poll: Duration::from_millis(100),
        embedded: false,
    };
    for warning in open_secrets(planner) {
        eprintln!("warning: {warning}");
    }
    match &args.resume {
        None => begin(bus, options, planner, stop, args).await,
        Some(version) => {
            let leader = Leader::resume(bus, options, version, Arc::new(Progress::to_stderr())).await;
            lead(leader, stop, args).await
        }
    }
}

/// Parameters that hold a secret, in all plugins.
const SECRETS: [&str; 6] = ["secret", "password", "token", "bot_user_token", "api_key", "routing_key"];

/// Secrets that stand in the configuration as they are: a plan takes them to the broker, where others may read them.
fn open_secrets(planner: &Planner) -> BTreeSet<String> {
    let version = Version::at(jiff::Timestamp::UNIX_EPOCH);
    let plans = planner.audits().iter().map(|audit| planner.plan(audit, &version));
    let specs: Vec<_> = plans.flat_map(|plan| plan.plugins).collect();
    let is_open = |spec: &proto::plan::PluginSpec, name: &str| {
        spec.params.get(name).and_then(serde_json::Value::as_str).is_some_and(|text| !has_reference(text))
    };
    let names = specs.iter().flat_map(|spec| SECRETS.iter().map(move |name| (spec, *name)));
    names
        .filter(|(spec, name)| is_open(spec, name))
        .map(|(spec, name)| {
            format!(
                "plugin {}: `{name}` stands in the configuration as it is, and the broker keeps it with the plan, where \
                 others may read it; write ${{CM_NAME}} or ${{file:PATH}}, and give the worker the value",
                spec.key
            )
        })
        .collect()
}

async fn begin(
    bus: SharedBus,
    options: Options,
    planner: &Planner,
    stop: CancellationToken,
    args: &RunArgs,
) -> ExitCode {
    let progress = Arc::new(Progress::to_stderr());
    let plan = |audit: &_, version: &_| planner.plan(audit, version);
    let leader = Leader::begin(bus, options, planner.audits(), plan, progress).await;
    if let Ok(leader) = &leader
        && !options.embedded
    {
        // Whoever has to take the run over needs its name, and this coordinator may not be there to tell it.
        let version = leader.version();
        eprintln!("run {version}; if this coordinator dies: coordinator run --resume {version}");
    }
    lead(leader, stop, args).await
}

async fn lead(leader: Result<Leader, RunError>, stop: CancellationToken, args: &RunArgs) -> ExitCode {
    let led = match leader {
        Ok(leader) => {
            tracing::info!(version = %leader.version(), "the run begins");
            let version = leader.version().clone();
            (version, leader.lead(stop).await)
        }
        Err(error @ RunError::NoSuchRun(_)) => return usage(&error.to_string()),
        Err(error) => return failure(&error.to_string()),
    };
    match led {
        (_, Ok(reports)) => conclude(&reports, args),
        (version, Err(error)) => {
            failure(&format!("{error}\nto see the run through: coordinator run --resume {version}"))
        }
    }
}

fn conclude(reports: &[AuditReport], args: &RunArgs) -> ExitCode {
    let written = args.coverage.as_deref().map_or(Ok(()), |file| write_coverage(reports, file));
    let text: Vec<String> = reports.iter().map(AuditReport::render).collect();
    let printed = print(&text.join("\n"));
    if let Err(reason) = written {
        return failure(&reason);
    }
    if !reports.iter().all(AuditReport::is_complete) {
        return ExitCode::from(INCOMPLETE);
    }
    printed
}

/// Writes what was read and what not: a list with an object for each audit.
fn write_coverage(reports: &[AuditReport], file: &std::path::Path) -> Result<(), String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot write the coverage to {}: {error}", file.display());
    let audits: Vec<_> = reports.iter().map(AuditReport::coverage).collect();
    let mut text = serde_json::to_vec_pretty(&audits).map_err(|error| cannot(&error))?;
    text.push(b'\n');
    std::fs::write(file, text).map_err(|error| cannot(&error))
}
