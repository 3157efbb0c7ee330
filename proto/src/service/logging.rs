//! Logs: to standard error, and to a file where one is named. Standard output is for results.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Where logs go, from which level on.
#[derive(Debug, Clone)]
pub struct Logging {
    /// To standard error.
    pub console: LevelFilter,
    /// To a file.
    pub file: Option<(PathBuf, LevelFilter)>,
}

/// Begins to log. The variable `RUST_LOG`, when it is set, decides what goes to standard error instead. Returns a
/// warning for people when the file cannot be used: a program is not kept from its work by its log.
#[must_use]
pub fn begin(logging: &Logging) -> Option<String> {
    let console = match EnvFilter::try_from_default_env() {
        Ok(filter) => filter,
        Err(_) => filter(logging.console),
    };
    let colours = std::io::stderr().is_terminal();
    let console = fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(false).with_filter(console);
    let (file, warning) = match &logging.file {
        None => (None, None),
        Some((path, level)) => match open(path) {
            Ok(file) => {
                let layer = fmt::layer().with_ansi(false).with_writer(Mutex::new(file));
                (Some(layer.with_filter(filter(*level))), None)
            }
            Err(reason) => (None, Some(reason)),
        },
    };
    // A second start in one process keeps the first one's logging.
    let _ = tracing_subscriber::registry().with(console).with(file).try_init();
    warning
}

/// Our own words from a level on, of libraries what is worse than usual.
fn filter(level: LevelFilter) -> EnvFilter {
    let ours = ["proto", "collector", "evaluator", "sink", "alerter", "coordinator"];
    let libraries = level.min(LevelFilter::WARN);
    ours.iter().fold(EnvFilter::default().add_directive(libraries.into()), |filter, name| {
        match format!("{name}={level}").parse() {
            Ok(directive) => filter.add_directive(directive),
            Err(_) => filter,
        }
    })
}

/// Opens a log file to append to. In a folder like /tmp anybody can put a link there: it is not followed, and a file
/// of somebody else is not written.
fn open(path: &Path) -> Result<File, String> {
    let refuse = |reason: String| format!("no log is written to {}: {reason}", path.display());
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(no_follow)
        .open(path)
        .map_err(|error| refuse(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| refuse(error.to_string()))?;
    if metadata.is_file() && metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refuse("the file belongs to another user; name another one".to_owned()));
    }
    Ok(file)
}
