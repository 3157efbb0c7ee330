//! The options that all programs have in common.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tracing::Level;

/// How a program finds the broker.
#[derive(Debug, Clone, Default, Args)]
pub struct BusArgs {
    /// The broker's URL (nats://host:4222; several separated by commas). Before it: the `nats:` section of the
    /// configuration.
    #[arg(long, env = "NATS_URL", hide_env_values = true, value_name = "URL")]
    pub nats: Option<String>,
    /// Configuration files, instead of the default ones.
    #[arg(short, long, value_name = "FILE", num_args = 0.., action = clap::ArgAction::Append)]
    pub config: Option<Vec<PathBuf>>,
}

/// The options of a service.
#[derive(Debug, Clone, Args)]
pub struct ServiceArgs {
    /// How it finds the broker.
    #[command(flatten)]
    pub bus: BusArgs,
    /// Units or frames worked on at once.
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// The worker's name, unique among those alive.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Variables that parameters may refer to as ${NAME}, beside those that begin with CM_.
    #[arg(long, value_name = "NAME")]
    pub allow_env: Vec<String>,
    /// Folders of files that parameters may refer to as ${file:PATH}.
    #[arg(long, value_name = "FOLDER", default_value = "/run/secrets")]
    pub secrets_dir: Vec<PathBuf>,
    /// Where to answer /healthz and /readyz (127.0.0.1:8080).
    #[arg(long, value_name = "ADDRESS")]
    pub health: Option<SocketAddr>,
    /// Where to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where a program logs.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// A file to log to, beside standard error.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// From which level on: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: Level,
}
