//! The options that all programs have in common.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tracing::level_filters::LevelFilter;

use super::log_file::{LogFile, Rotation, When};
use super::log_format::{LineFormat, check_dates};
use super::logging::LogFormat;
use crate::config::{Level, OURS, targets};

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
    /// The most memory to use (2GiB, 500MB): above it nothing more is taken, and other workers get what was.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_memory: Option<u64>,
    /// What to tell of this process to those who operate it.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// Where to log.
    #[command(flatten)]
    pub log: LogArgs,
}

fn size(text: &str) -> Result<u64, String> {
    let size = crate::config::params::bytes_of(text).filter(|size| *size > 0);
    size.ok_or_else(|| "a size is expected, such as 2GiB or 500MB".to_owned())
}

/// What a program tells of itself to those who operate it.
#[derive(Debug, Clone, Default, Args)]
pub struct ObserveArgs {
    /// Where to answer /healthz, /readyz and /metrics (127.0.0.1:8080).
    #[arg(long, value_name = "ADDRESS")]
    pub health: Option<SocketAddr>,
    /// Where to send traces, over HTTP (http://127.0.0.1:4318). Before it: the variables OTEL_EXPORTER_OTLP_*.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
}

/// Where a program logs.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// From which level on (error, warning, info, debug), of all or of a part: info, collector=debug.
    #[arg(long, value_name = "[PART=]LEVEL", default_value = "info", value_delimiter = ',', value_parser = part_level)]
    pub log_level: Vec<(Option<String>, LevelFilter)>,
    /// How lines look: `json`, or a format of Python's logging ('%(asctime)s %(levelname)s %(message)s').
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// How dates in such a format look, as strftime has it (%Y-%m-%d %H:%M:%S).
    #[arg(long, value_name = "FORMAT", requires = "log_format", value_parser = dates)]
    pub log_date_format: Option<String>,
    /// A file to log to, beside standard error.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// When to put the file aside: midnight, never, or before it is larger than a size (100MB).
    #[arg(long, value_name = "WHEN", default_value = "midnight", value_parser = rotation)]
    pub log_rotate: Rotation,
    /// How many files that were put aside to keep.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub log_backups: u32,
}

impl LogArgs {
    /// The level of all, and those of parts.
    pub(super) fn levels(&self) -> (LevelFilter, Vec<(String, LevelFilter)>) {
        let mut all = LevelFilter::INFO;
        let mut parts = Vec::new();
        for (part, level) in &self.log_level {
            match part {
                None => all = *level,
                Some(part) => {
                    parts.extend(targets(part).into_iter().flatten().map(|target| (target, *level)));
                }
            }
        }
        (all, parts)
    }

    /// How lines look.
    ///
    /// # Errors
    /// What is wrong with the format, for people.
    pub(super) fn format(&self) -> Result<LogFormat, String> {
        match self.log_format.as_deref() {
            None => Ok(LogFormat::Plain),
            Some("json") => Ok(LogFormat::Json),
            Some(format) => LineFormat::new(format, self.log_date_format.as_deref()).map(LogFormat::Lines),
        }
    }

    pub(super) fn file(&self) -> Option<LogFile> {
        let path = self.log_file.clone()?;
        Some(LogFile { path, rotation: self.log_rotate, backups: self.log_backups })
    }
}

fn part_level(text: &str) -> Result<(Option<String>, LevelFilter), String> {
    let (part, level) = match text.split_once('=') {
        Some((part, level)) => (Some(part.trim()), level.trim()),
        None => (None, text.trim()),
    };
    if let Some(part) = part.filter(|part| targets(part).is_none()) {
        return Err(format!("nothing is logged under the name `{part}`; names begin with {}", OURS.join(", ")));
    }
    let level = match level {
        "trace" => LevelFilter::TRACE,
        "off" => LevelFilter::OFF,
        level => Level::parse(level)
            .map(LevelFilter::from)
            .ok_or_else(|| format!("`{level}` is no level; allowed: error, warning, info, debug, trace, off"))?,
    };
    Ok((part.map(str::to_owned), level))
}

fn dates(text: &str) -> Result<String, String> {
    check_dates(text).map(|()| text.to_owned())
}

fn rotation(text: &str) -> Result<Rotation, String> {
    match text {
        "never" => Ok(Rotation::None),
        "midnight" => Ok(Rotation::Timed { when: When::Midnight { days: 1 }, utc: false }),
        size => match crate::config::params::bytes_of(size).filter(|size| *size > 0) {
            Some(max_bytes) => Ok(Rotation::Sized { max_bytes }),
            None => Err("`midnight`, `never` or a size such as 100MB is expected".to_owned()),
        },
    }
}
