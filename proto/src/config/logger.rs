//! The section `logger`: what Python's logging is configured with, as far as it means something here.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;

use super::checker::Checker;
use super::params::describe;
use super::place::Place;
use super::suggest;

const SECTION: [&str; 8] =
    ["version", "disable_existing_loggers", "formatters", "filters", "handlers", "loggers", "root", "incremental"];
const ROOT: [&str; 4] = ["level", "handlers", "filters", "propagate"];
const CONSOLE: [&str; 5] = ["class", "level", "formatter", "filters", "stream"];
const FILE: [&str; 15] = [
    "class",
    "level",
    "formatter",
    "filters",
    "filename",
    "mode",
    "encoding",
    "delay",
    "errors",
    "when",
    "interval",
    "backupCount",
    "maxBytes",
    "utc",
    "atTime",
];
/// What can be set, but does nothing here.
const WITHOUT_EFFECT: [&str; 3] = ["formatters", "filters", "loggers"];

/// What is logged, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggerConfig {
    /// What is logged at all (`root.level`).
    pub root_level: Level,
    /// What is logged to the terminal's standard error (`handlers.console.level`); none when `console` does not
    /// stand in `root.handlers`.
    pub console: Option<Level>,
    /// The file that is logged to (`handlers.file.filename`); none when `file` does not stand in `root.handlers`.
    pub file: Option<PathBuf>,
    /// What is logged to the file (`handlers.file.level`).
    pub file_level: Level,
    /// How many old files are kept (`handlers.file.backupCount`); 0 for all.
    pub file_backups: u32,
}

/// How much is logged. The order is that of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Everything.
    NotSet,
    /// What only developers read.
    Debug,
    /// What goes on.
    Info,
    /// What may need somebody.
    Warning,
    /// What failed.
    Error,
    /// What ended the process.
    Critical,
}

impl Level {
    const NAMES: [&str; 6] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "NOTSET"];

    /// The level of a name, in upper or lower case, or of Python's number.
    fn parse(value: &Value) -> Option<Self> {
        let name = match value {
            Value::String(name) => name.to_uppercase(),
            other => other.as_u64()?.to_string(),
        };
        Some(match name.as_str() {
            "NOTSET" | "0" => Self::NotSet,
            "DEBUG" | "10" => Self::Debug,
            "INFO" | "20" => Self::Info,
            "WARNING" | "WARN" | "30" => Self::Warning,
            "ERROR" | "40" => Self::Error,
            "CRITICAL" | "FATAL" | "50" => Self::Critical,
            _ => return None,
        })
    }

    /// The name as configurations write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSet => "NOTSET",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::NotSet => Self::TRACE,
            Level::Debug => Self::DEBUG,
            Level::Info => Self::INFO,
            Level::Warning => Self::WARN,
            Level::Error | Level::Critical => Self::ERROR,
        }
    }
}

/// Reads the section; what is wrong in it goes to the checker.
pub(super) fn read(checker: &mut Checker<'_>, place: &Place, section: &Value) -> LoggerConfig {
    let empty = Map::new();
    let section = checker.mapping(place, section, "a mapping such as Python's logging takes").unwrap_or(&empty);
    checker.known_keys(place, section, &SECTION);
    for key in WITHOUT_EFFECT {
        let place = place.key(key);
        if section.contains_key(key) && !checker.is_of_base(&place) {
            checker.warn(
                &place,
                "this has no effect; lines are formatted in one way, and `root.level` holds for all".to_owned(),
            );
        }
    }

    let root_place = place.key("root");
    let root = mapping_in(checker, place, section, "root").unwrap_or(&empty);
    checker.known_keys(&root_place, root, &ROOT);
    let root_level = level(checker, &root_place, root).unwrap_or(Level::Warning);

    let handlers_place = place.key("handlers");
    let handlers = mapping_in(checker, place, section, "handlers").unwrap_or(&empty);
    for key in handlers.keys().filter(|key| !matches!(key.as_str(), "console" | "file")) {
        let message = "this handler has no effect; there are `console` and `file`".to_owned();
        checker.warn(&handlers_place.key(key), message);
    }
    let on = handlers_of_root(checker, &root_place, root, handlers);

    let console = handler(checker, &handlers_place, handlers, "console", &CONSOLE);
    let console_level = console.and_then(|console| level(checker, &handlers_place.key("console"), console));
    let file = handler(checker, &handlers_place, handlers, "file", &FILE);
    let file_place = handlers_place.key("file");
    let file_level = file.and_then(|file| level(checker, &file_place, file));
    let name = file.and_then(|file| file_name(checker, &file_place, file));
    let file_backups = file.and_then(|file| backups(checker, &file_place, file));

    LoggerConfig {
        root_level,
        console: on.iter().any(|key| key == "console").then(|| console_level.unwrap_or(Level::NotSet)),
        file: name.filter(|_| on.iter().any(|key| key == "file")),
        file_level: file_level.unwrap_or(Level::NotSet),
        file_backups: file_backups.unwrap_or(0),
    }
}

type Entries = Map<String, Value>;

/// An entry that is a mapping, if it is there.
fn mapping_in<'a>(checker: &mut Checker<'_>, place: &Place, entries: &'a Entries, key: &str) -> Option<&'a Entries> {
    let value = entries.get(key)?;
    checker.mapping(&place.key(key), value, "a mapping")
}

fn handler<'a>(
    checker: &mut Checker<'_>,
    place: &Place,
    handlers: &'a Entries,
    key: &str,
    known: &[&str],
) -> Option<&'a Entries> {
    let handler = mapping_in(checker, place, handlers, key)?;
    checker.known_keys(&place.key(key), handler, known);
    Some(handler)
}

fn level(checker: &mut Checker<'_>, place: &Place, entries: &Entries) -> Option<Level> {
    let value = entries.get("level").filter(|value| !value.is_null())?;
    let level = Level::parse(value);
    if level.is_none() {
        let hint = value.as_str().map(|word| suggest::did_you_mean(word, Level::NAMES)).unwrap_or_default();
        let found = describe(value);
        let message = format!("found {found}; a level is expected{hint} (allowed: {})", Level::NAMES.join(", "));
        checker.error(&place.key("level"), message);
    }
    level
}

/// The keys of the handlers that are on.
fn handlers_of_root(checker: &mut Checker<'_>, place: &Place, root: &Entries, handlers: &Entries) -> Vec<String> {
    let place = place.key("handlers");
    let Some(value) = root.get("handlers") else { return Vec::new() };
    let named = checker.names(&place, value, "a list of handlers (console, file)");
    for (place, key) in &named {
        if !handlers.contains_key(key) {
            let hint = suggest::did_you_mean(key, handlers.keys().map(String::as_str));
            checker.error(place, format!("no handler `{key}` is defined under `logger.handlers`{hint}"));
        }
    }
    named.into_iter().map(|(_, key)| key).collect()
}

fn file_name(checker: &mut Checker<'_>, place: &Place, file: &Entries) -> Option<PathBuf> {
    let value = file.get("filename").unwrap_or(&Value::Null);
    if let Some(name) = value.as_str().filter(|name| !name.is_empty()) {
        return Some(PathBuf::from(name));
    }
    let message = format!("found {}; the path of a file is expected", describe(value));
    checker.error(&place.key("filename"), message);
    None
}

fn backups(checker: &mut Checker<'_>, place: &Place, file: &Entries) -> Option<u32> {
    let value = file.get("backupCount").filter(|value| !value.is_null())?;
    let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
    if count.is_none() {
        let message = format!("found {}; a whole number is expected", describe(value));
        checker.error(&place.key("backupCount"), message);
    }
    count
}
