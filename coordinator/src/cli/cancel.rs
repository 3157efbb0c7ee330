//! `coordinator cancel`: ends a run, whoever leads it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use proto::bus::{Bucket, BusError, BusErrorKind, SharedBus};
use proto::config::Environment;
use proto::run::{Cancelled, RunState};
use proto::service::args::BusArgs;
use proto::service::{connect, host_name};
use proto::subject::Version;
use tokio_util::sync::CancellationToken;

use super::{INCOMPLETE, USAGE};
use crate::mail::Mails;
use crate::progress::Progress;
use crate::run::{Leader, Options, RunError, is_led, state_of_run};

/// How long the broker is waited for.
const CONNECT: Duration = Duration::from_secs(10);
/// How long whoever leads the run may take to end it. A leader that died holds its lease for some seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether the run has ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Examples:
  coordinator cancel 20260131_235959 --nats nats://127.0.0.1:4222

`coordinator runs` lists the runs and their versions.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CancelArgs {
    /// The run.
    #[arg(value_name = "VERSION", value_parser = |text: &str| Version::new(text))]
    version: Version,
    #[command(flatten)]
    bus: BusArgs,
}

pub(super) fn main(args: &CancelArgs) -> ExitCode {
    let environment = Environment::of_process();
    let options = match connect::options(&args.bus, &environment) {
        Ok(Some(options)) => options,
        Ok(None) => return usage(connect::NO_BROKER),
        Err(reason) => return usage(&reason),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("cannot start: {error}")),
    };
    let ended = runtime.block_on(async {
        let bus = match connect::nats(options, Some(CONNECT)).await {
            Ok(bus) => bus,
            Err(error) => return usage(&error.to_string()),
        };
        let who = format!("{} on {}", environment.variable("USER").unwrap_or("somebody"), host_name());
        match cancel(&bus, &args.version, who).await {
            Ok(ended) => ended,
            Err(RunError::NoSuchRun(version)) => usage(&RunError::NoSuchRun(version).to_string()),
            Err(error) => failure(&error.to_string()),
        }
    });
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

/// Cancels a run and waits until it has ended.
async fn cancel(bus: &SharedBus, version: &Version, who: String) -> Result<ExitCode, RunError> {
    if !bus.is_ready().await? {
        return Err(RunError::NoSuchRun(version.clone()));
    }
    if mark(bus, version, who).await?.is_ended() {
        return Ok(failure(&format!("the run {version} has ended: there is nothing to cancel")));
    }
    let began = tokio::time::Instant::now();
    loop {
        let found = state_of_run(bus, version).await?;
        let (run, _) = found.ok_or_else(|| RunError::NoSuchRun(version.clone()))?;
        if run.is_ended() {
            return Ok(conclude(&run));
        }
        if !is_led(bus, version).await? {
            end(bus, version).await?;
        } else if began.elapsed() > PATIENCE {
            return Ok(failure(&format!(
                "{} leads the run {version} and does not end it; try again when it does not run any more",
                run.leader
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Says in the run's state that it is cancelled: whoever leads it sees it there. The state as it is then.
async fn mark(bus: &SharedBus, version: &Version, who: String) -> Result<RunState, RunError> {
    loop {
        let found = state_of_run(bus, version).await?;
        let (mut run, revision) = found.ok_or_else(|| RunError::NoSuchRun(version.clone()))?;
        if run.is_ended() || run.cancelled.is_some() {
            return Ok(run);
        }
        run.cancelled = Some(Cancelled { by: who.clone(), at: Timestamp::now().to_string() });
        let value = serde_json::to_vec(&run).map_err(BusError::json)?;
        match bus.kv_update(Bucket::Runs, version.as_str(), value.into(), revision).await {
            Ok(_) => return Ok(run),
            // Its leader has changed it meanwhile.
            Err(error) if error.kind() == BusErrorKind::Conflict => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends a run that nobody leads.
async fn end(bus: &SharedBus, version: &Version) -> Result<(), RunError> {
    let options = Options {
        wait_workers: Duration::ZERO,
        ack_wait: Duration::from_secs(30),
        poll: Duration::from_millis(100),
        embedded: false,
        mails: Mails::none(),
    };
    let progress = Arc::new(Progress::to_stderr());
    let leader = Leader::resume(Arc::clone(bus), options, version, Duration::ZERO, |_, _| None, progress).await;
    let led = match leader {
        Ok(leader) => leader.lead(CancellationToken::new()).await.map(|_| ()),
        Err(error) => Err(error),
    };
    match led {
        // Somebody was faster: he ends it.
        Err(RunError::TakenOver { .. } | RunError::NoPlan(_)) => Ok(()),
        led => led,
    }
}

fn conclude(run: &RunState) -> ExitCode {
    let ended_before = run.audits.iter().filter(|(_, state)| !state.cancelled);
    let names: Vec<String> = ended_before.map(|(audit, _)| audit.to_string()).collect();
    if names.len() == run.audits.len() {
        return failure(&format!("the run {} had come to its end before it could be cancelled", run.version));
    }
    eprintln!("the run {} is cancelled; what was stored stays", run.version);
    if !names.is_empty() {
        eprintln!("these audits had ended before: {}", names.join(", "));
    }
    ExitCode::SUCCESS
}
