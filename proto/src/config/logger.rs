//! The section `logger`: what Python's logging is configured with, as far as it means something here.

use std::fmt;
use std::path::PathBuf;

use jiff::civil::Weekday;
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;

use super::checker::Checker;
use super::params::{boolean, describe};
use super::place::Place;
use super::suggest;
use crate::service::log_file::{LogFile, Rotation, Unit, When};
use crate::service::log_format::LineFormat;

const SECTION: [&str; 8] =
    ["version", "disable_existing_loggers", "formatters", "filters", "handlers", "loggers", "root", "incremental"];
const ROOT: [&str; 4] = ["level", "handlers", "filters", "propagate"];
const FORMATTER: [&str; 7] = ["format", "datefmt", "style", "validate", "class", "()", "defaults"];
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
/// The handlers that there are, as Python calls them.
const CLASSES: [&str; 6] = [
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.handlers.TimedRotatingFileHandler",
    "logging.handlers.RotatingFileHandler",
    "logging.handlers.WatchedFileHandler",
];
/// The names of loggers begin with one of these: our own parts, and what they stand on.
pub(crate) const OURS: [&str; 6] = ["proto", "collector", "evaluator", "sink", "alerter", "coordinator"];
const LIBRARIES: [&str; 12] = [
    "async_nats",
    "azure_core",
    "azure_identity",
    "h2",
    "hyper",
    "hyper_util",
    "lettre",
    "mongodb",
    "reqwest",
    "rustls",
    "tokio",
    "tower",
];
/// How the Python tool's packages are called here.
const PACKAGES: [(&str, &[&str]); 5] = [
    ("cloudmarker", &OURS),
    ("cloudmarker.clouds", &["collector"]),
    ("cloudmarker.events", &["evaluator"]),
    ("cloudmarker.stores", &["sink"]),
    ("cloudmarker.alerts", &["alerter"]),
];

/// What is logged, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggerConfig {
    /// What is logged at all (`root.level`).
    pub root_level: Level,
    /// Where to: the handlers that stand in `root.handlers`.
    pub handlers: Vec<LogHandler>,
    /// What is logged of parts of the program, by the beginning of their names (`loggers`).
    pub loggers: Vec<(String, Level)>,
}

/// A handler: where lines go, and how they look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHandler {
    /// From which level on.
    pub level: Level,
    /// How lines look.
    pub format: Option<LineFormat>,
    /// The file that they go to; none for the terminal's standard error.
    pub file: Option<LogFile>,
}

impl LoggerConfig {
    /// The handler that writes to the terminal's standard error.
    #[must_use]
    pub fn console(&self) -> Option<&LogHandler> {
        self.handlers.iter().find(|handler| handler.file.is_none())
    }

    /// The first file that is written to.
    #[must_use]
    pub fn file(&self) -> Option<&LogFile> {
        self.handlers.iter().find_map(|handler| handler.file.as_ref())
    }
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

    fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(name) => Self::parse(name),
            other => Self::parse(&other.as_u64()?.to_string()),
        }
    }

    /// The level of a name, in upper or lower case, or of Python's number.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_uppercase().as_str() {
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
    if section.contains_key("filters") {
        no_effect(checker, &place.key("filters"), "nothing is filtered but by level");
    }

    let root_place = place.key("root");
    let root = mapping_in(checker, place, section, "root").unwrap_or(&empty);
    checker.known_keys(&root_place, root, &ROOT);
    let root_level = level(checker, &root_place, root).unwrap_or(Level::Warning);

    let formatters_place = place.key("formatters");
    let formatters = mapping_in(checker, place, section, "formatters").unwrap_or(&empty);
    let mut formats = Vec::new();
    for key in formatters.keys() {
        formats.push((key.as_str(), formatter(checker, &formatters_place, formatters, key)));
    }

    let handlers_place = place.key("handlers");
    let handlers = mapping_in(checker, place, section, "handlers").unwrap_or(&empty);
    let on = handlers_of_root(checker, &root_place, root, handlers);
    let mut used = Vec::new();
    for key in handlers.keys() {
        let handler = handler(checker, &handlers_place, handlers, key, &formats);
        if on.contains(key) {
            used.extend(handler);
        }
    }

    let loggers_place = place.key("loggers");
    let entries = mapping_in(checker, place, section, "loggers").unwrap_or(&empty);
    let mut loggers = Vec::new();
    for key in entries.keys() {
        loggers.extend(logger(checker, &loggers_place, entries, key));
    }
    LoggerConfig { root_level, handlers: used, loggers }
}

type Entries = Map<String, Value>;

fn no_effect(checker: &mut Checker<'_>, place: &Place, why: &str) {
    if !checker.is_of_base(place) {
        checker.warn(place, format!("this has no effect: {why}"));
    }
}

/// An entry that is a mapping, if it is there.
fn mapping_in<'a>(checker: &mut Checker<'_>, place: &Place, entries: &'a Entries, key: &str) -> Option<&'a Entries> {
    let value = entries.get(key)?;
    checker.mapping(&place.key(key), value, "a mapping")
}

/// A text, if it is there.
fn text_in<'a>(checker: &mut Checker<'_>, place: &Place, entries: &'a Entries, key: &str) -> Option<&'a str> {
    let value = entries.get(key).filter(|value| !value.is_null())?;
    let text = value.as_str();
    if text.is_none() {
        checker.error(&place.key(key), format!("found {}; a text is expected", describe(value)));
    }
    text
}

/// How lines look that a formatter makes.
fn formatter(checker: &mut Checker<'_>, place: &Place, entries: &Entries, key: &str) -> Option<LineFormat> {
    let entries = mapping_in(checker, place, entries, key)?;
    let place = &place.key(key);
    checker.known_keys(place, entries, &FORMATTER);
    for key in ["class", "()", "defaults"].into_iter().filter(|key| entries.contains_key(*key)) {
        no_effect(checker, &place.key(key), "lines are formatted by `format` and `datefmt`");
    }
    if let Some(style) = text_in(checker, place, entries, "style").filter(|style| *style != "%") {
        checker.error(
            &place.key("style"),
            format!("found the text {style:?}; formats are of the style `%`: `%(message)s`"),
        );
        return None;
    }
    // Without a format, Python writes the message alone.
    let format = text_in(checker, place, entries, "format").unwrap_or("%(message)s");
    let dates = text_in(checker, place, entries, "datefmt");
    if let Some(problem) = dates.and_then(|dates| crate::service::log_format::check_dates(dates).err()) {
        checker.error(&place.key("datefmt"), problem);
        return None;
    }
    match LineFormat::new(format, dates) {
        Ok(format) => Some(format),
        Err(problem) => {
            checker.error(&place.key("format"), problem);
            None
        }
    }
}

/// A handler of a class that is served.
fn handler(
    checker: &mut Checker<'_>,
    place: &Place,
    handlers: &Entries,
    key: &str,
    formats: &[(&str, Option<LineFormat>)],
) -> Option<LogHandler> {
    let entries = mapping_in(checker, place, handlers, key)?;
    let place = &place.key(key);
    let class = text_in(checker, place, entries, "class");
    let class = class
        .or_else(|| ["console", "file"].contains(&key).then_some(if key == "file" { CLASSES[1] } else { CLASSES[0] }));
    let Some(class) = class else {
        checker.error(&place.key("class"), format!("a class is missing (allowed: {})", CLASSES.join(", ")));
        return None;
    };
    let level = level(checker, place, entries).unwrap_or(Level::NotSet);
    let format = format_of(checker, place, entries, formats);
    if entries.contains_key("filters") {
        no_effect(checker, &place.key("filters"), "nothing is filtered but by level");
    }
    let file = match class {
        "logging.StreamHandler" => {
            checker.known_keys(place, entries, &CONSOLE);
            if entries.get("stream").and_then(Value::as_str) == Some("ext://sys.stdout") {
                no_effect(
                    checker,
                    &place.key("stream"),
                    "logs go to standard error, as standard output is for results",
                );
            }
            None
        }
        "logging.NullHandler" => return None,
        class if CLASSES.contains(&class) => {
            checker.known_keys(place, entries, &FILE);
            let rotation = rotation(checker, place, entries, class);
            let backups = whole(checker, place, entries, "backupCount");
            let path = file_name(checker, place, entries)?;
            let backups = backups.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
            Some(LogFile { path, rotation: rotation?, backups })
        }
        class => {
            // What the handler is for is unknown; what is known is that it does nothing.
            let hint = suggest::did_you_mean(class, CLASSES);
            let known = CLASSES.join(", ");
            checker.warn(
                place,
                format!("this handler has no effect: its class `{class}` is not served{hint} (served: {known})"),
            );
            return None;
        }
    };
    Some(LogHandler { level, format, file })
}

fn format_of(
    checker: &mut Checker<'_>,
    place: &Place,
    entries: &Entries,
    formats: &[(&str, Option<LineFormat>)],
) -> Option<LineFormat> {
    let name = text_in(checker, place, entries, "formatter")?;
    let Some((_, format)) = formats.iter().find(|(known, _)| *known == name) else {
        let hint = suggest::did_you_mean(name, formats.iter().map(|(known, _)| *known));
        checker.error(
            &place.key("formatter"),
            format!("no formatter `{name}` is defined under `logger.formatters`{hint}"),
        );
        return None;
    };
    format.clone()
}

/// When a file is put aside.
fn rotation(checker: &mut Checker<'_>, place: &Place, entries: &Entries, class: &str) -> Option<Rotation> {
    match class {
        "logging.handlers.RotatingFileHandler" => {
            let max_bytes = whole(checker, place, entries, "maxBytes").unwrap_or(0);
            Some(Rotation::Sized { max_bytes })
        }
        "logging.handlers.TimedRotatingFileHandler" => {
            if entries.get("atTime").is_some_and(|value| !value.is_null()) {
                no_effect(checker, &place.key("atTime"), "a file is put aside at midnight");
            }
            let utc = entries.get("utc").filter(|value| !value.is_null()).is_some_and(|value| match value {
                Value::Bool(utc) => *utc,
                other => {
                    let utc = other.as_str().and_then(boolean);
                    if utc.is_none() {
                        let found = describe(other);
                        checker.error(&place.key("utc"), format!("found {found}; true or false is expected"));
                    }
                    utc.unwrap_or(false)
                }
            });
            let interval = whole(checker, place, entries, "interval").unwrap_or(1).max(1);
            let interval = u32::try_from(interval).unwrap_or(u32::MAX);
            // Python's own default.
            let word = text_in(checker, place, entries, "when").unwrap_or("h");
            let Some(when) = when(word, interval) else {
                let hint = suggest::did_you_mean(word, ["midnight"]);
                let message = format!(
                    "found the text {word:?}; a time is expected{hint} (allowed: S, M, H, D, W0 to W6, midnight)"
                );
                checker.error(&place.key("when"), message);
                return None;
            };
            Some(Rotation::Timed { when, utc })
        }
        _ => Some(Rotation::None),
    }
}

fn when(word: &str, interval: u32) -> Option<When> {
    let every = |seconds: u32, unit| When::Every { seconds: seconds.saturating_mul(interval), unit };
    Some(match word.to_uppercase().as_str() {
        "S" => every(1, Unit::Second),
        "M" => every(60, Unit::Minute),
        "H" => every(3600, Unit::Hour),
        "D" => every(24 * 3600, Unit::Day),
        "MIDNIGHT" => When::Midnight { days: interval },
        day => {
            let number: i8 = day.strip_prefix('W')?.parse().ok()?;
            When::Weekly(Weekday::from_monday_zero_offset(number).ok()?)
        }
    })
}

/// What is logged of a part of the program.
fn logger(checker: &mut Checker<'_>, place: &Place, entries: &Entries, key: &str) -> Vec<(String, Level)> {
    let Some(entries) = mapping_in(checker, place, entries, key) else { return Vec::new() };
    let place = &place.key(key);
    checker.known_keys(place, entries, &ROOT);
    for key in ["handlers", "filters", "propagate"].into_iter().filter(|key| entries.contains_key(*key)) {
        no_effect(checker, &place.key(key), "what is logged goes to the handlers of `root`");
    }
    let level = level(checker, place, entries);
    let Some(targets) = targets(key) else {
        no_effect(
            checker,
            place,
            &format!(
                "nothing is logged under this name; names begin with cloudmarker, {}, or a library such as {}",
                OURS.join(", "),
                LIBRARIES.join(", ")
            ),
        );
        return Vec::new();
    };
    let Some(level) = level else { return Vec::new() };
    targets.into_iter().map(|target| (target, level)).collect()
}

/// The beginnings of the names under which is logged what a logger's name stands for.
pub(crate) fn targets(name: &str) -> Option<Vec<String>> {
    if let Some((_, targets)) = PACKAGES.iter().find(|(package, _)| *package == name) {
        return Some(targets.iter().map(|target| (*target).to_owned()).collect());
    }
    let name = name.replace("::", ".").replace('-', "_");
    let first = name.split('.').next().unwrap_or_default();
    (OURS.contains(&first) || LIBRARIES.contains(&first)).then(|| vec![name.replace('.', "::")])
}

fn level(checker: &mut Checker<'_>, place: &Place, entries: &Entries) -> Option<Level> {
    let value = entries.get("level").filter(|value| !value.is_null())?;
    let level = Level::of_value(value);
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

/// A whole number, if it is there.
fn whole(checker: &mut Checker<'_>, place: &Place, entries: &Entries, key: &str) -> Option<u64> {
    let value = entries.get(key).filter(|value| !value.is_null())?;
    let number = value.as_u64().filter(|number| u32::try_from(*number).is_ok() || key == "maxBytes");
    if number.is_none() {
        checker.error(&place.key(key), format!("found {}; a whole number is expected", describe(value)));
    }
    number
}
