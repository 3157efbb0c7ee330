//! When audits run: `schedule`, `timezone`, `catch_up` and `overlap`, at the top for all and in an audit for itself.

use std::fmt;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::checker::Checker;
use super::params::{boolean, describe};
use super::place::Place;
use super::suggest;

/// The keys of a schedule.
pub(super) const KEYS: [&str; 4] = ["schedule", "timezone", "catch_up", "overlap"];

/// When something runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleConfig {
    /// The turns.
    pub timing: Timing,
    /// The zone of local times, by its IANA name; none for the host's.
    pub timezone: Option<String>,
    /// A turn that was missed while no coordinator was up is made up for at the next start.
    pub catch_up: bool,
    /// What becomes of a turn at which an audit still runs.
    pub overlap: Overlap,
}

impl Default for ScheduleConfig {
    /// Each midnight of the host's zone.
    fn default() -> Self {
        Self { timing: Timing::MIDNIGHT, timezone: None, catch_up: false, overlap: Overlap::Skip }
    }
}

/// What becomes of a turn at which an audit still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overlap {
    /// It is left out.
    #[default]
    Skip,
    /// It waits until the audit has ended; several that wait are one.
    Queue,
}

impl Overlap {
    /// The word in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
        }
    }
}

/// The turns of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timing {
    /// A time of each day, in local time.
    Daily(civil::Time),
    /// The local times that a cron expression matches.
    Cron(Box<CronTimes>),
    /// Again and again after so much time, counted from the beginning of 1970 in UTC: all who count agree.
    Every(Duration),
}

/// What a cron expression matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronTimes {
    /// As it is written, with one blank between fields.
    pub text: String,
    cron: Cron,
    every_hour: bool,
}

impl CronTimes {
    /// The first local time after one, or not before it if `inclusive`; none when there is none left.
    #[must_use]
    pub fn next(&self, from: civil::DateTime, inclusive: bool) -> Option<civil::DateTime> {
        self.cron.find_next_occurrence(&from, inclusive).ok()
    }

    /// The last local time before one, or not after it if `inclusive`; none when there was none.
    #[must_use]
    pub fn previous(&self, from: civil::DateTime, inclusive: bool) -> Option<civil::DateTime> {
        self.cron.find_previous_occurrence(&from, inclusive).ok()
    }

    /// Whether it goes on through all hours of a day. An hour that a clock shows twice then counts twice, and one that
    /// it does not show not at all; of others, each local time comes once, whatever the clock does.
    #[must_use]
    pub fn is_of_every_hour(&self) -> bool {
        self.every_hour
    }
}

impl fmt::Display for Timing {
    /// As it may be written in a configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daily(time) if time.second() == 0 => write!(f, "{}", time.strftime("%H:%M")),
            Self::Daily(time) => write!(f, "{}", time.strftime("%H:%M:%S")),
            Self::Cron(cron) => f.write_str(&cron.text),
            Self::Every(interval) => {
                f.write_str("every ")?;
                let seconds = interval.as_secs();
                for (count, unit) in [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')] {
                    if count > 0 {
                        write!(f, "{count}{unit}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

const EXPECTED: &str =
    "a time of day (\"00:00\" to \"23:59\"), a cron expression (\"30 2 * * 1-5\") or an interval (\"every 6h\")";

impl Timing {
    /// Each day at its beginning.
    pub const MIDNIGHT: Self = Self::Daily(civil::Time::midnight());

    /// Reads a schedule as a configuration has it.
    ///
    /// ```
    /// use proto::config::Timing;
    /// assert_eq!(Timing::parse("9:05").unwrap().to_string(), "09:05");
    /// assert_eq!(Timing::parse("every 90m").unwrap().to_string(), "every 1h30m");
    /// assert_eq!(Timing::parse("30 2 * * mon-fri").unwrap().to_string(), "30 2 * * mon-fri");
    /// assert!(Timing::parse("24:00").is_err());
    /// ```
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(interval) = text.strip_prefix("every").filter(|rest| rest.starts_with(char::is_whitespace)) {
            return every(interval.trim());
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        match fields[..] {
            [nickname] if nickname.starts_with('@') => cron(&fields),
            [_] => time_of_day(text).map(Self::Daily).ok_or_else(|| format!("{EXPECTED} is expected")),
            [] | [_, _] => Err(format!("{EXPECTED} is expected")),
            _ => cron(&fields),
        }
    }
}

/// `HH:MM` or `HH:MM:SS`.
fn time_of_day(text: &str) -> Option<civil::Time> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |part: &str, digits: std::ops::RangeInclusive<usize>| {
        let is_number = digits.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<i8>().ok().filter(|_| is_number)
    };
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, "00"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    // A clock shows no 60th second: no day would have it.
    let second = number(second, 2..=2).filter(|second| *second < 60)?;
    civil::Time::new(number(hour, 1..=2)?, number(minute, 2..=2)?, second, 0).ok()
}

fn every(interval: &str) -> Result<Timing, String> {
    let wrong = || {
        "an interval of whole seconds is expected, such as \"every 30m\", \"every 6h\" or \"every 1h 30m\"; for days, a \
         time of day or a cron expression says at what time"
            .to_owned()
    };
    let parsed: jiff::SignedDuration = interval.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from(parsed).map_err(|_| wrong())?;
    if duration.is_zero() || duration.subsec_nanos() > 0 || duration > Duration::from_secs(366 * 24 * 3600) {
        return Err(wrong());
    }
    Ok(Timing::Every(duration))
}

/// Five fields, or six with the seconds first.
fn cron(fields: &[&str]) -> Result<Timing, String> {
    let text = fields.join(" ");
    if !matches!(fields.len(), 1 | 5 | 6) {
        let count = fields.len();
        return Err(format!("a cron expression has five fields, or six with the seconds first; here are {count}"));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let cron = parser.parse(&text).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.trim_start_matches("Component error: ").trim_start_matches("Invalid pattern: ");
        format!("this cannot be read as a cron expression: {}", reason.trim_end_matches('.'))
    })?;
    let hours = if fields.len() == 6 { fields.get(2) } else { fields.get(1) };
    let every_hour = hours == Some(&"*") || text.eq_ignore_ascii_case("@hourly");
    let times = CronTimes { text, cron, every_hour };
    if times.next(civil::DateTime::constant(2000, 1, 1, 0, 0, 0, 0), true).is_none() {
        return Err("no day ever matches this cron expression".to_owned());
    }
    Ok(Timing::Cron(Box::new(times)))
}

/// Reads the keys of a schedule; what is not set is as in `over`.
pub(super) fn read(
    checker: &mut Checker<'_>,
    place: &Place,
    entries: &Map<String, Value>,
    over: &ScheduleConfig,
) -> ScheduleConfig {
    let mut config = over.clone();
    let mut wrong = |key: &str, value: &Value, expected: &str| {
        checker.error(&place.key(key), format!("found {}; {expected}", describe(value)));
    };
    if let Some(value) = entries.get("schedule") {
        match value.as_str().map_or_else(|| Err(format!("{EXPECTED} is expected")), Timing::parse) {
            Ok(timing) => config.timing = timing,
            Err(expected) => wrong("schedule", value, &expected),
        }
    }
    if let Some(value) = entries.get("timezone") {
        match value.as_str().map_or_else(|| Err(String::new()), zone) {
            Ok(_) => config.timezone = value.as_str().map(str::to_owned),
            Err(hint) => {
                wrong(
                    "timezone",
                    value,
                    &format!("the name of a time zone is expected, such as `Europe/Berlin`{hint}"),
                );
            }
        }
    }
    if let Some(value) = entries.get("catch_up") {
        match value.as_bool().or_else(|| value.as_str().and_then(boolean)) {
            Some(flag) => config.catch_up = flag,
            None => wrong("catch_up", value, "`true` or `false` is expected"),
        }
    }
    if let Some(value) = entries.get("overlap") {
        match value.as_str() {
            Some("skip") => config.overlap = Overlap::Skip,
            Some("queue") => config.overlap = Overlap::Queue,
            _ => wrong("overlap", value, "`skip` or `queue` is expected"),
        }
    }
    config
}

/// A time zone by its name.
///
/// # Errors
/// What may have been meant, or nothing.
fn zone(name: &str) -> Result<TimeZone, String> {
    let zone = TimeZone::get(name).ok().filter(|_| !name.is_empty());
    zone.ok_or_else(|| {
        let known: Vec<String> = jiff::tz::db().available().map(|known| known.to_string()).collect();
        suggest::did_you_mean(name, known.iter().map(String::as_str))
    })
}

impl ScheduleConfig {
    /// The zone of local times.
    ///
    /// # Errors
    /// When this host does not know it.
    pub fn zone(&self) -> Result<TimeZone, String> {
        match &self.timezone {
            None => Ok(TimeZone::system()),
            Some(name) => zone(name).map_err(|_| format!("this host does not know the time zone {name}")),
        }
    }
}
