//! Where a run begins to read a log, and in which windows it goes on.
//!
//! A run begins where the last one that was stored ended, and a little before, for what arrived late. It ends at its
//! own time, so that a unit that is done again leads to the same windows. A log's windows are read one after the
//! other, the oldest first: what is about to be forgotten is read before anything else, and how far one has come is
//! one moment.

use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proto::catalogue::ParamError;
use proto::coverage::{Coverage, State};
use proto::subject::Version;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::TYPE;

/// How long the clouds keep their logs.
const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// What will be forgotten while it is being read is not asked for.
const MARGIN: Duration = Duration::from_secs(3600);
const WINDOW: Duration = Duration::from_secs(24 * 3600);
const OVERLAP: Duration = Duration::from_secs(30 * 60);
/// There are no more windows than the cloud's limit has minutes.
const SHORTEST_WINDOW: Duration = Duration::from_secs(60);

/// The parameters of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// How far the first run reaches back.
    #[serde(default, deserialize_with = "duration")]
    pub reach: Option<Duration>,
    /// How much is read again, for events that arrive late.
    #[serde(default, deserialize_with = "duration")]
    pub overlap: Option<Duration>,
    /// How long a window is.
    #[serde(default, deserialize_with = "duration")]
    pub window: Option<Duration>,
}

/// Reads a duration, with days: a day has 24 hours.
///
/// # Errors
/// When the value is no duration.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let days = |text: &str| {
        let span: jiff::Span = text.parse().ok()?;
        Duration::try_from(span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?).ok()
    };
    let found = match Value::deserialize(deserializer)? {
        Value::String(text) => days(&text),
        Value::Number(number) => number.as_u64().map(Duration::from_secs),
        _ => None,
    };
    let expected = "invalid value, expected a duration such as `30m`, `6h` or `90d`";
    found.map(Some).ok_or_else(|| de::Error::custom(expected))
}

/// What a run reads of a log: a window, and where the last one ends. In seconds since 1970, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The beginning.
    pub from: i64,
    /// The end of this window.
    pub until: i64,
    /// The end of all.
    pub end: i64,
}

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// The first window.
    pub first: Span,
    /// What nobody has read and nobody can read any more: since when.
    pub lost_since: Option<Timestamp>,
}

impl Windows {
    /// What is wrong with them.
    #[must_use]
    pub fn check(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        let mut wrong = |path: &str, message: &str| {
            errors.push(ParamError { path: path.to_owned(), message: message.to_owned() });
        };
        if self.reach.is_some_and(|reach| reach > KEPT || reach.is_zero()) {
            wrong("reach", "the cloud keeps its log for 90 days: write a time up to `90d`");
        }
        if self.window.is_some_and(|window| window < SHORTEST_WINDOW) {
            wrong("window", "a window is one minute or longer: write `1h` or `1d`");
        }
        if self.overlap.is_some_and(|overlap| overlap > WINDOW * 30) {
            wrong("overlap", "more than `30d` would be read again by each run");
        }
        errors
    }

    /// Where a run begins, after one that came to a checkpoint or the first of all.
    #[must_use]
    pub fn begin(&self, version: &Version, checkpoint: Option<Timestamp>) -> Beginning {
        let end = time_of(version);
        let oldest = end - signed(self.reach.unwrap_or(KEPT).min(KEPT - MARGIN));
        let limit = end - signed(KEPT - MARGIN);
        // A run whose time is before the checkpoint has nothing to read but the overlap.
        let wanted = checkpoint.map_or(oldest, |at| at.min(end) - signed(self.overlap.unwrap_or(OVERLAP)));
        let from = wanted.max(limit);
        let first = self.window(from.as_second(), end.as_second());
        Beginning { first, lost_since: checkpoint.filter(|at| *at < limit) }
    }

    /// The window after another.
    #[must_use]
    pub fn next(&self, span: &Span) -> Option<Span> {
        (span.until < span.end).then(|| self.window(span.until, span.end))
    }

    fn window(&self, from: i64, end: i64) -> Span {
        let length = self.window.unwrap_or(WINDOW).max(SHORTEST_WINDOW);
        let until = from.saturating_add(i64::try_from(length.as_secs()).unwrap_or(i64::MAX)).min(end);
        Span { from, until, end }
    }
}

impl Beginning {
    /// What is lost for ever, if something is.
    #[must_use]
    pub fn lost(&self, scope: &str) -> Option<Coverage> {
        let since = self.lost_since?;
        let until = moment(self.first.from);
        let reason = format!(
            "what the log had from {since} to {until} is lost: the last run was longer ago than the cloud keeps it"
        );
        Some(Coverage::not_read(scope, TYPE, State::Partial, reason))
    }
}

/// Says which part of the log is missing, of what was not read.
#[must_use]
pub fn missing(own: Coverage, span: &Span) -> Coverage {
    let reason = own.reason.as_deref().unwrap_or_default();
    let (from, end) = (moment(span.from), moment(span.end));
    let reason = format!("{reason}; what the log has from {from} to {end} is left to the next run");
    Coverage { reason: Some(reason), ..own }
}

impl Span {
    /// The same in words for people.
    #[must_use]
    pub fn words(&self) -> String {
        format!("{} to {}", moment(self.from), moment(self.until))
    }
}

/// Until when a window is read that was read to its end: no further than the clock of the cloud, which has no later
/// events yet. Or else a host whose clock is fast would keep later runs from what happens until then.
#[must_use]
pub fn read_until(span: &Span, server_time: Option<SystemTime>) -> Timestamp {
    let until = moment(span.until);
    let now = server_time.and_then(|time| Timestamp::try_from(time).ok());
    now.map_or(until, |now| until.min(now))
}

/// A time in seconds since 1970.
#[must_use]
pub fn moment(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// When a run began.
#[must_use]
pub fn time_of(version: &Version) -> Timestamp {
    let civil = jiff::civil::DateTime::strptime("%Y%m%d_%H%M%S", version.as_str());
    let zoned = civil.and_then(|civil| civil.to_zoned(TimeZone::UTC));
    // A version that is no time was made by hand.
    zoned.map_or_else(|_| moment(Timestamp::now().as_second()), |zoned| zoned.timestamp())
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn version() -> Version {
        Version::new("20260401_000000").unwrap()
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_run_reaches_back_to_what_the_cloud_still_has() {
        let windows = Windows::default();
        let begun = windows.begin(&version(), None);
        assert_eq!(moment(begun.first.from), time("2026-01-01T01:00:00Z"));
        assert_eq!(moment(begun.first.end), time("2026-04-01T00:00:00Z"));
        assert_eq!(begun.lost_since, None);
        let mut spans = vec![begun.first];
        while let Some(next) = windows.next(&spans[spans.len() - 1]) {
            spans.push(next);
        }
        assert_eq!(spans.len(), 90);
        assert!(spans.windows(2).all(|pair| pair[0].until == pair[1].from && pair[0].until - pair[0].from == DAY));
        assert_eq!(spans[89].until, begun.first.end);

        let short = Windows { reach: Some(Duration::from_secs(3600)), ..windows };
        assert_eq!(moment(short.begin(&version(), None).first.from), time("2026-03-31T23:00:00Z"));
    }

    #[test]
    fn the_next_run_reads_a_little_again() {
        let begun = Windows::default().begin(&version(), Some(time("2026-03-31T22:00:00Z")));
        let from = time("2026-03-31T21:30:00Z").as_second();
        assert_eq!(begun.first, Span { from, until: from + 9000, end: from + 9000 });
        assert_eq!(Windows::default().next(&begun.first), None);
    }

    #[test]
    fn what_the_cloud_has_forgotten_is_a_gap() {
        let begun = Windows::default().begin(&version(), Some(time("2025-12-01T00:00:00Z")));
        assert_eq!(moment(begun.first.from), time("2026-01-01T01:00:00Z"));
        assert_eq!(begun.lost_since, Some(time("2025-12-01T00:00:00Z")));
    }

    #[test]
    fn a_checkpoint_from_the_future_is_no_reason_to_read_backwards() {
        let begun = Windows::default().begin(&version(), Some(time("2026-05-01T00:00:00Z")));
        assert_eq!(moment(begun.first.from), time("2026-03-31T23:30:00Z"));
        assert!(begun.first.from < begun.first.until);
    }

    #[test]
    fn what_has_not_happened_yet_is_not_read() {
        let span = Span { from: 0, until: 86_400, end: 2 * 86_400 };
        let at = |second| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        assert_eq!(read_until(&span, at(3_600)), moment(3_600));
        assert_eq!(read_until(&span, at(90_000)), moment(86_400));
        assert_eq!(read_until(&span, None), moment(86_400));
    }

    #[test]
    fn parameters_are_bounded() {
        let of = |value| proto::config::params::read::<Windows>(&value).unwrap().check().len();
        assert_eq!(of(serde_json::json!({"reach": "90d", "overlap": "1h", "window": "6h"})), 0);
        assert_eq!(of(serde_json::json!({"reach": "91d", "overlap": "31d", "window": "5s"})), 3);
    }
}
