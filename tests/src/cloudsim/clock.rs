//! The two ways in which Azure writes a time into its error messages.

use std::time::{SystemTime, UNIX_EPOCH};

/// As Entra ID writes it: `2021-03-12 20:10:09Z`.
pub(super) fn entra(time: SystemTime) -> String {
    let utc = Utc::of(time);
    format!("{:04}-{:02}-{:02} {:02}:{:02}:{:02}Z", utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second)
}

/// As Resource Manager writes it: `4/15/2023 7:40:04 AM`.
pub(super) fn resource_manager(time: SystemTime) -> String {
    let utc = Utc::of(time);
    let half = if utc.hour < 12 { "AM" } else { "PM" };
    let hour = match utc.hour % 12 {
        0 => 12,
        hour => hour,
    };
    format!("{}/{}/{} {hour}:{:02}:{:02} {half}", utc.month, utc.day, utc.year, utc.minute, utc.second)
}

/// A moment, taken apart. Two formats are no reason for a calendar library.
struct Utc {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Utc {
    /// A time before 1970 counts as 1970.
    fn of(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (year, month, day) = civil(seconds / 86_400);
        Self { year, month, day, hour: seconds / 3_600 % 24, minute: seconds / 60 % 60, second: seconds % 60 }
    }
}

/// Year, month and day of a day counted from 1970-01-01. Years begin in March here, so that the leap
/// day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times_are_written_as_the_two_services_write_them() {
        assert_eq!(entra(at(0)), "1970-01-01 00:00:00Z");
        assert_eq!(entra(at(1_615_579_809)), "2021-03-12 20:10:09Z");
        assert_eq!(entra(at(1_709_210_096)), "2024-02-29 12:34:56Z");
        assert_eq!(resource_manager(at(1_681_544_404)), "4/15/2023 7:40:04 AM");
        assert_eq!(resource_manager(at(0)), "1/1/1970 12:00:00 AM");
        assert_eq!(resource_manager(at(43_200)), "1/1/1970 12:00:00 PM");
    }
}
