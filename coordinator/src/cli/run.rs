//! `coordinator run`: runs audits, in this process or over a broker, and says what they came to.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::bus::nats::NatsOptions;
use proto::bus::{BusErrorKind, SharedBus};
use proto::config::secret::{Expander, has_reference};
use proto::config::{Config, Environment};
use proto::plan::Stage;
use proto::service::args::{BusArgs, ObserveArgs};
use proto::service::logging::{self, Logging};
use proto::service::{Observed, connect, shutdown, worker_name};
use proto::subject::Version;
use tokio_util::sync::CancellationToken;

use super::{INCOMPLETE, USAGE, check, print};
use crate::daemon::{self, Daemon};
use crate::embedded::Embedded;
use crate::history::History;
use crate::mail::Mails;
use crate::planner::Planner;
use crate::progress::Progress;
use crate::run::{Leader, Options, RunError, TAKE_OVER_PATIENCE};
use crate::schedule::Schedule;
use crate::summary::AuditReport;
use crate::terminal::Look;

pub(super) const EXAMPLES: &str = "\
Examples:
  coordinator run --now                               the audits under `run:`, once, in this process
  coordinator run --now --audit mockaudit --json      one of them; its report for programs
  coordinator run --now --nats nats://127.0.0.1:4222  over a broker, with the workers that are there
  coordinator run --resume 20260131_235959            a run whose coordinator died

Exit codes: 0 complete, 2 bad usage or configuration, 3 ended, but something is incomplete or failed.";

/// The options of a run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Run the audits now, once. Without it, they run at the turns of their schedules, until this is stopped.
    #[arg(short, long)]
    now: bool,
    /// Only begin the run, and print its version: a coordinator that waits for turns at the broker leads it.
    #[arg(long, requires = "now", conflicts_with = "coverage")]
    detach: bool,
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
    /// Print the reports as JSON: a list with an object for each audit.
    #[arg(long, requires = "now", conflicts_with = "detach")]
    json: bool,
    /// A file to log to, instead of the configuration's.
    #[arg(long, value_name = "FILE")]
    log_file: Option<std::path::PathBuf>,
    #[command(flatten)]
    observe: ObserveArgs,
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
    let nats = match connect::of_config(args.bus.nats.as_deref(), &config, &environment) {
        Ok(nats) => nats,
        Err(reason) => return usage(&reason),
    };
    if nats.is_none() && args.resume.is_some() {
        return usage("there is nothing to resume without a broker: name it with --nats URL");
    }
    if nats.is_none() && args.detach {
        return usage("a run in this process ends with it: name a broker with --nats URL to detach from one");
    }
    let is_by_schedule = !args.now && args.resume.is_none();
    if is_by_schedule && args.coverage.is_some() {
        return usage("--coverage is of one run: give it with --now");
    }
    let schedules = match Schedule::of_config(&config) {
        Ok(schedules) => schedules,
        Err(reason) => return usage(&reason),
    };
    if is_by_schedule && schedules.is_empty() {
        return usage("no audit is listed under `run:`, so none has a turn to wait for");
    }
    let planner = match Planner::new(&config, &rules) {
        Ok(planner) => Arc::new(planner),
        Err(reasons) => {
            for reason in reasons {
                eprintln!("error: {reason}");
            }
            return ExitCode::from(USAGE);
        }
    };
    let mails = Mails::new(config.email.as_ref(), &Expander::of_everything(environment.clone())).for_ever();
    begin_logging(args, &config, &environment);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("cannot start: {error}")),
    };
    let ended = runtime.block_on(async {
        let (stage, name) = (Stage::Coordinator, worker_name(Stage::Coordinator));
        let observed = Observed::begin(&args.observe, stage, &name, &environment, &CancellationToken::new()).await;
        let observed = match observed {
            Ok(observed) => observed,
            Err(reason) => return usage(&reason),
        };
        if nats.is_none() {
            observed.is_alone();
        }
        let ended = match nats {
            Some(nats) => over_nats(args, nats, &config, &planner, schedules, mails, &observed).await,
            None if is_by_schedule => wait_in_this_process(args, planner, schedules, mails).await,
            None => in_this_process(args, &planner, mails).await,
        };
        observed.end().await;
        ended
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

/// How runs in this process are led.
fn options_of_this_process(args: &RunArgs, mails: &'static Mails) -> Options {
    Options {
        wait_workers: args.wait_workers,
        ack_wait: Duration::from_secs(60),
        poll: Duration::from_millis(20),
        embedded: true,
        mails,
    }
}

/// Runs by schedule, without a broker.
async fn wait_in_this_process(
    args: &RunArgs,
    planner: Arc<Planner>,
    schedules: Vec<Schedule>,
    mails: &'static Mails,
) -> ExitCode {
    let stop = match shutdown::on_signals("stopping: what was read is finished") {
        Ok(stop) => stop,
        Err(error) => return failure(&format!("cannot receive signals: {error}")),
    };
    let state = match MemoryBus::open(MemoryOptions::default(), &Environment::of_process().state_dir()) {
        Ok(bus) => Arc::new(bus),
        Err(error) => return failure(&error.to_string()),
    };
    let daemon = Daemon { planner, schedules, options: options_of_this_process(args, mails) };
    match daemon.in_this_process(state, args.concurrency, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error.to_string()),
    }
}

async fn in_this_process(args: &RunArgs, planner: &Planner, mails: &'static Mails) -> ExitCode {
    let stop = match shutdown::on_signals("stopping: what was read is finished") {
        Ok(stop) => stop,
        Err(error) => return failure(&format!("cannot receive signals: {error}")),
    };
    let plans: Vec<_> =
        planner.audits().iter().map(|audit| planner.plan(audit, &Version::at(jiff::Timestamp::now()))).collect();
    let embedded = Embedded::start(&plans, args.concurrency);
    History::of_host(&Environment::of_process()).tell(&embedded.bus).await;
    let options = options_of_this_process(args, mails);
    let ended = begin(Arc::clone(&embedded.bus), options, planner, stop, args).await;
    embedded.stop().await;
    ended
}

async fn over_nats(
    args: &RunArgs,
    nats: NatsOptions,
    config: &Config,
    planner: &Arc<Planner>,
    schedules: Vec<Schedule>,
    mails: &'static Mails,
    observed: &Observed,
) -> ExitCode {
    let stop = match shutdown::on_signals("detaching: the workers go on") {
        Ok(stop) => stop,
        Err(error) => return failure(&format!("cannot receive signals: {error}")),
    };
    let connected = tokio::select! {
        () = stop.cancelled() => return ExitCode::from(INCOMPLETE),
        connected = connect::nats(nats, None) => connected,
    };
    let bus = match connected {
        Ok(bus) => observed.watch(bus),
        Err(error) => return usage(&error.to_string()),
    };
    let options = Options {
        wait_workers: args.wait_workers,
        ack_wait: connect::ack_wait(config),
        poll: Duration::from_millis(100),
        embedded: false,
        mails,
    };
    for warning in open_secrets(planner) {
        eprintln!("warning: {warning}");
    }
    match &args.resume {
        None if args.detach => detach(bus, options, planner).await,
        None if args.now => begin(bus, options, planner, stop, args).await,
        None => {
            let daemon = Daemon { planner: Arc::clone(planner), schedules, options };
            match daemon.over_nats(bus, stop).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error.to_string()),
            }
        }
        Some(version) => {
            let (progress, its) = (Arc::new(Progress::to_stderr()), Arc::clone(&bus));
            let leader = Leader::resume(its, options, version, TAKE_OVER_PATIENCE, |_, _| None, progress).await;
            lead(bus, leader, stop, args).await
        }
    }
}

/// Begins a run and leaves it to a coordinator that waits for turns at the broker.
async fn detach(bus: SharedBus, options: Options, planner: &Planner) -> ExitCode {
    match daemon::alive(&bus).await {
        Ok(alive) if alive.is_empty() => {
            return usage(
                "nobody would lead the run: no coordinator waits for turns at this broker; start one \
                 (`coordinator run`), or run without --detach",
            );
        }
        Ok(_) => {}
        // A broker without anything has no coordinator either.
        Err(error) if error.kind() == BusErrorKind::NotFound => {
            return usage("nobody would lead the run: no coordinator has ever been at this broker");
        }
        Err(error) => return failure(&error.to_string()),
    }
    let plan = |audit: &_, version: &_| planner.plan(audit, version);
    let begun = Leader::begin(bus, options, planner.audits(), plan, Arc::new(Progress::to_stderr())).await;
    let left = match begun {
        Ok(leader) => leader.leave().await,
        Err(error) => Err(error),
    };
    match left {
        Ok(version) => print(&format!("{version}\n")),
        Err(error) => failure(&error.to_string()),
    }
}

/// Who leads a run on from which its leader has been detached, if anybody does.
async fn successor(bus: &SharedBus) -> Option<String> {
    let alive = tokio::time::timeout(Duration::from_secs(5), daemon::alive(bus)).await.ok()?.ok()?;
    alive.into_iter().next().map(|worker| worker.name)
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
    let leader = Leader::begin(Arc::clone(&bus), options, planner.audits(), plan, progress).await;
    if let Ok(leader) = &leader
        && !options.embedded
    {
        // Whoever has to take the run over needs its name, and this coordinator may not be there to tell it.
        let version = leader.version();
        eprintln!("run {version}; if this coordinator dies: coordinator run --resume {version}");
    }
    lead(bus, leader, stop, args).await
}

async fn lead(bus: SharedBus, leader: Result<Leader, RunError>, stop: CancellationToken, args: &RunArgs) -> ExitCode {
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
        (version, Err(RunError::Detached(_))) => match successor(&bus).await {
            Some(successor) => failure(&format!(
                "detached from the run {version}: {successor} sees it through\nto end it: coordinator cancel {version}"
            )),
            None => failure(&format!(
                "{}\nto see the run through: coordinator run --resume {version}",
                RunError::Detached(version.clone())
            )),
        },
        (version, Err(error)) => {
            failure(&format!("{error}\nto see the run through: coordinator run --resume {version}"))
        }
    }
}

fn conclude(reports: &[AuditReport], args: &RunArgs) -> ExitCode {
    let written = args.coverage.as_deref().map_or(Ok(()), |file| write_coverage(reports, file));
    let printed = match text_of(reports, args.json) {
        Ok(text) => print(&text),
        Err(reason) => return failure(&reason),
    };
    if let Err(reason) = written {
        return failure(&reason);
    }
    if !reports.iter().all(|report| report.is_complete() && report.mails.is_empty()) {
        return ExitCode::from(INCOMPLETE);
    }
    printed
}

fn text_of(reports: &[AuditReport], json: bool) -> Result<String, String> {
    if json {
        let text = serde_json::to_string_pretty(reports).map_err(|error| format!("cannot write JSON: {error}"))?;
        return Ok(format!("{text}\n"));
    }
    let look = Look::of_stdout();
    let text: Vec<String> = reports.iter().map(|report| report.render(look)).collect();
    Ok(text.join("\n"))
}

/// Writes what was read and what not: a list with an object for each audit.
fn write_coverage(reports: &[AuditReport], file: &std::path::Path) -> Result<(), String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot write the coverage to {}: {error}", file.display());
    let audits: Vec<_> = reports.iter().map(AuditReport::coverage).collect();
    let mut text = serde_json::to_vec_pretty(&audits).map_err(|error| cannot(&error))?;
    text.push(b'\n');
    std::fs::write(file, text).map_err(|error| cannot(&error))
}
