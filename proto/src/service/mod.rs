//! The runtime that every service stands on: start-up, signals, draining, health, logging, and what it says of
//! itself to others.

pub mod args;
pub mod connect;
pub mod health;
pub mod log_file;
pub mod log_format;
pub mod logging;
mod memory;
mod metered;
pub mod metrics;
pub mod presence;
pub mod shutdown;
pub mod trace;
pub mod versions;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::bus::{BusErrorKind, SharedBus};
use crate::config::Environment;
use crate::config::secret::Expander;
use crate::plan::Stage;
use crate::subject::Key;
use args::{ObserveArgs, ServiceArgs};
use health::Health;
use logging::Logging;
use memory::Gate;
use metered::Metered;
use presence::Presence;
use trace::TraceSettings;

/// What a stage's worker is given.
#[derive(Debug, Clone)]
pub struct Worker {
    /// The bus.
    pub bus: SharedBus,
    /// The stage that it serves.
    pub stage: Stage,
    /// Its name, unique among those alive: host, stage and process.
    pub name: String,
    /// Cancelled when it is to drain and stop.
    pub shutdown: CancellationToken,
    /// What others are told of it.
    pub presence: Presence,
    /// What it may expand in parameters.
    pub expander: Expander,
    /// Units or frames that it works on at once.
    pub concurrency: usize,
}

/// What a service serves.
#[derive(Debug, Clone)]
pub struct Serves {
    /// Its stage.
    pub stage: Stage,
    /// The plugin classes, by short name.
    pub classes: Vec<String>,
    /// The pools: for collectors.
    pub pools: Vec<Key>,
    /// Units or frames worked on at once, unless the options say otherwise.
    pub concurrency: usize,
}

/// How often a person is told that the broker has no streams yet.
const REMIND_EVERY: Duration = Duration::from_secs(10);

/// Runs a service: starts to log, connects to the broker (waiting for it as long as it takes), tells others that the
/// worker is there, works until a signal, and drains. The exit code is 2 for bad usage or configuration.
pub async fn run<F: Future<Output = ()>>(
    serves: Serves,
    args: &ServiceArgs,
    work: impl FnOnce(Worker) -> F,
) -> ExitCode {
    let logging = match Logging::of_args(&args.log) {
        Ok(logging) => logging,
        Err(reason) => {
            eprintln!("{}: {reason}", serves.stage);
            return ExitCode::from(2);
        }
    };
    if let Some(warning) = logging::begin(&logging) {
        tracing::warn!("{warning}");
    }
    let stage = serves.stage;
    match start(serves, args).await {
        Ok(Some((worker, observed))) => {
            tracing::info!(worker = worker.name, "ready");
            work(worker).await;
            observed.end().await;
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(StartError::Usage(reason)) => {
            eprintln!("{stage}: {reason}");
            ExitCode::from(2)
        }
        Err(StartError::Start(reason)) => {
            eprintln!("{stage}: {reason}");
            ExitCode::FAILURE
        }
    }
}

enum StartError {
    /// Bad usage or configuration.
    Usage(String),
    /// It could not start.
    Start(String),
}

/// What tells others of a program while it runs.
#[derive(Debug)]
pub struct Observed {
    health: Option<Health>,
}

impl Observed {
    /// Begins to answer for health and to export traces, as the options say. `name` tells this process from others.
    ///
    /// # Errors
    /// What is wrong with the options, for people.
    pub async fn begin(
        args: &ObserveArgs,
        stage: Stage,
        name: &str,
        environment: &Environment,
        shutdown: &CancellationToken,
    ) -> Result<Self, String> {
        let traces = TraceSettings::read(args.otlp.as_deref(), stage.as_str(), name, environment)?;
        if let Some(settings) = traces {
            trace::begin(settings)?;
        }
        let Some(address) = args.health else { return Ok(Self { health: None }) };
        let serving = Health::serve(address, stage, shutdown.clone()).await;
        let health = serving.map_err(|error| format!("cannot listen on {address}: {error}"))?;
        tracing::info!(address = %health.address, "answering /healthz, /readyz and /metrics");
        Ok(Self { health: Some(health) })
    }

    /// The bus as the program is to use it: what goes over it is counted, where anybody asks for it.
    #[must_use]
    pub fn watch(&self, bus: SharedBus) -> SharedBus {
        self.watch_with(bus, None)
    }

    fn watch_with(&self, bus: SharedBus, gate: Option<Gate>) -> SharedBus {
        if self.health.is_none() && gate.is_none() {
            return bus;
        }
        let metered = Arc::new(Metered::new(bus, gate));
        if let Some(health) = &self.health {
            health.set_bus(&metered);
        }
        metered
    }

    /// All stages are in this process: there is no broker to wait for.
    pub fn is_alone(&self) {
        if let Some(health) = &self.health {
            health.set_alone();
        }
    }

    /// Sends what is left to be sent, and answers no more.
    pub async fn end(self) {
        trace::end().await;
    }
}

/// A bus whose traffic is counted, where anything is.
#[must_use]
pub fn counted(bus: SharedBus) -> SharedBus {
    if metrics::is_on() { Arc::new(Metered::new(bus, None)) } else { bus }
}

/// `None` when a signal came before the broker.
async fn start(serves: Serves, args: &ServiceArgs) -> Result<Option<(Worker, Observed)>, StartError> {
    let name = args.name.clone().unwrap_or_else(|| worker_name(serves.stage));
    let environment = Environment::of_process();
    let options = connect::options(&args.bus, &environment).map_err(StartError::Usage)?;
    let Some(mut options) = options else { return Err(StartError::Usage(connect::NO_BROKER.to_owned())) };
    options.name.clone_from(&name);
    let shutdown = shutdown::on_signals("draining: what is being worked on is finished")
        .map_err(|error| StartError::Start(format!("cannot receive signals: {error}")))?;
    let observed = Observed::begin(&args.observe, serves.stage, &name, &environment, &shutdown).await;
    let observed = observed.map_err(StartError::Usage)?;
    let connected = tokio::select! {
        () = shutdown.cancelled() => return Ok(None),
        connected = connect::nats(options, None) => connected,
    };
    let bus = connected.map_err(|error| match error.kind() {
        BusErrorKind::Refused => StartError::Usage(error.to_string()),
        _ => StartError::Start(error.to_string()),
    })?;
    let gate = args.max_memory.map(|limit| Gate::start(limit, shutdown.clone()));
    let bus = observed.watch_with(bus, gate);
    tokio::select! {
        () = shutdown.cancelled() => return Ok(None),
        () = wait_until_ready(&bus) => {}
    }
    let info = presence::WorkerInfo {
        name: name.clone(),
        stage: serves.stage,
        host: host_name(),
        pid: std::process::id(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        schema: crate::frame::SCHEMA.to_owned(),
        pools: serves.pools,
        classes: serves.classes,
        cannot: Vec::new(),
    };
    let presence = Presence::start(bus.clone(), info, shutdown.clone());
    let expander = Expander::new(environment).allow_env(&args.allow_env).secrets_dirs(&args.secrets_dir);
    let concurrency = args.concurrency.unwrap_or(serves.concurrency).max(1);
    let worker = Worker { bus, stage: serves.stage, name, shutdown, presence, expander, concurrency };
    Ok(Some((worker, observed)))
}

/// Workers create no streams: they wait for a coordinator to have done so.
async fn wait_until_ready(bus: &SharedBus) {
    let mut reminded: Option<tokio::time::Instant> = None;
    loop {
        match bus.is_ready().await {
            Ok(true) => return,
            state if reminded.is_none_or(|reminded| reminded.elapsed() >= REMIND_EVERY) => {
                match state {
                    Err(error) => tracing::warn!(%error, "waiting for the broker"),
                    Ok(_) => tracing::warn!("waiting for a coordinator: the broker has no streams yet"),
                }
                reminded = Some(tokio::time::Instant::now());
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The name of this process among workers.
#[must_use]
pub fn worker_name(stage: Stage) -> String {
    format!("{}-{stage}-{}", host_name(), std::process::id())
}

/// The name of this host.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
