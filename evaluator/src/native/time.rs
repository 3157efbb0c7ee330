//! Points in time and lengths of time, in the forms that clouds and people write them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Reads a point in time: RFC 3339 (`2026-01-31T12:00:00Z`), the same without an offset (taken as UTC), or a date.
#[must_use]
pub fn point(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse::<Timestamp>()
        .ok()
        .or_else(|| text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp()))
}

/// The point in time that is so many seconds after the beginning of 1970; of milliseconds, if it is as large as that.
#[must_use]
pub fn epoch(seconds: f64) -> Option<Timestamp> {
    // The year 5138 in seconds, March 1973 in milliseconds.
    const MILLISECONDS_FROM: f64 = 1e11;
    if !seconds.is_finite() {
        return None;
    }
    let milliseconds = if seconds.abs() >= MILLISECONDS_FROM { seconds } else { seconds * 1000.0 };
    (milliseconds.abs() < 2e14).then(|| Timestamp::from_millisecond(milliseconds as i64).ok()).flatten()
}

/// Reads a length of time: `90d`, `1h 30m`, `2w`, `P90D`, `PT1H`.
#[must_use]
pub fn length(text: &str) -> Option<SignedDuration> {
    let text = text.trim();
    let iso = |text: &str| {
        let span = text.parse::<jiff::Span>().ok()?;
        // Months and years have no length of their own: 30 and 365 days.
        let days = i64::from(span.get_years()) * 365
            + i64::from(span.get_months()) * 30
            + i64::from(span.get_weeks()) * 7
            + i64::from(span.get_days());
        let rest = i64::from(span.get_hours())
            .checked_mul(3600)?
            .checked_add(span.get_minutes().checked_mul(60)?)?
            .checked_add(span.get_seconds())?;
        Some(SignedDuration::from_secs(days.checked_mul(86_400)?.checked_add(rest)?))
    };
    if text.is_empty() { None } else { iso(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time() {
        let noon = "2026-01-31T12:00:00Z".parse::<Timestamp>().unwrap();
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00", " 2026-01-31 12:00:00"]
        {
            assert_eq!(point(text), Some(noon), "{text}");
        }
        assert!(point("2026-01-31").is_some());
        assert_eq!(epoch(noon.as_second() as f64), Some(noon));
        assert_eq!(epoch(noon.as_millisecond() as f64), Some(noon));
        for text in ["", "soon", "2026-13-01", "12:00"] {
            assert_eq!(point(text), None, "{text}");
        }
        for number in [f64::NAN, f64::INFINITY, 1e300, -1e300] {
            assert_eq!(epoch(number), None);
        }
    }

    #[test]
    fn lengths_of_time() {
        for (text, seconds) in
            [("90d", 7_776_000), ("1h 30m", 5_400), ("2w", 1_209_600), ("P90D", 7_776_000), ("PT1H", 3_600), ("0s", 0)]
        {
            assert_eq!(length(text).map(|it| it.as_secs()), Some(seconds), "{text}");
        }
        for text in ["", "90", "soon", "d", "999999999999999999d"] {
            assert_eq!(length(text), None, "{text}");
        }
    }
}
