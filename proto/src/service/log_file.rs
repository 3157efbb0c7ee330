//! A file that is logged to, put aside at its time or size as Python's handlers do it.
//!
//! Several programs may log to one file. Each looks, when the time has come, whether another has put the file aside
//! already, and none ever replaces one that was put aside.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

/// When a file is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// After so many seconds since it was begun.
    Every {
        /// The seconds.
        seconds: u32,
        /// What the old file's name says of its time.
        unit: Unit,
    },
    /// At every so manieth midnight.
    Midnight {
        /// The days between.
        days: u32,
    },
    /// At the end of a day of the week.
    Weekly(Weekday),
}

/// The finest that an old file's name says of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The second.
    Second,
    /// The minute.
    Minute,
    /// The hour.
    Hour,
    /// The day.
    Day,
}

/// How a file is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Never.
    None,
    /// At its time: `x.log.2026-01-31`.
    Timed {
        /// When.
        when: When,
        /// By UTC, not by local time.
        utc: bool,
    },
    /// Before it is larger than this: `x.log.1`, the older ones `.2` and so on.
    Sized {
        /// Bytes.
        max_bytes: u64,
    },
}

/// A file that is logged to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Its path.
    pub path: PathBuf,
    /// How it is put aside.
    pub rotation: Rotation,
    /// How many that were put aside are kept; 0 for all (of a size: for none, and it is never put aside).
    pub backups: u32,
}

/// Writes to a log file.
#[derive(Debug)]
pub(super) struct Writer {
    settings: LogFile,
    file: File,
    size: u64,
    /// When it is put aside, and the time that is then the old file's.
    due: Option<Timestamp>,
    clock: fn() -> Timestamp,
}

impl Writer {
    /// Opens a log file to append to. In a folder like /tmp anybody can put a link there: it is not followed, and a file
    /// of somebody else is not written.
    pub(super) fn open(settings: LogFile) -> Result<Self, String> {
        Self::open_with(settings, Timestamp::now)
    }

    fn open_with(settings: LogFile, clock: fn() -> Timestamp) -> Result<Self, String> {
        let (file, metadata) = open(&settings.path)?;
        // A file that is there goes on from where it was last written.
        let began = if metadata.len() > 0 { metadata.modified().ok() } else { None };
        let began = began.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_else(clock);
        let due = settings.rotation.next(began);
        Ok(Self { settings, file, size: metadata.len(), due, clock })
    }

    fn rotate_if_due(&mut self, bytes: usize) {
        let is_due = match self.settings.rotation {
            Rotation::None => false,
            Rotation::Timed { .. } => self.due.is_some_and(|due| (self.clock)() >= due),
            Rotation::Sized { max_bytes } => {
                max_bytes > 0 && self.settings.backups > 0 && self.size > 0 && self.size + bytes as u64 > max_bytes
            }
        };
        if !is_due {
            return;
        }
        // What fails leaves the file as it is: a program is not kept from its work by its log.
        if self.is_still_there() {
            match self.settings.rotation {
                Rotation::Timed { .. } => self.put_aside_by_time(),
                _ => self.put_aside_by_size(),
            }
        }
        if let Ok((file, metadata)) = open(&self.settings.path) {
            (self.file, self.size) = (file, metadata.len());
        }
        self.due = self.settings.rotation.next((self.clock)());
    }

    /// Whether the name is still that of the file that is written to: another program may have put it aside.
    fn is_still_there(&self) -> bool {
        let (Ok(there), Ok(ours)) = (std::fs::symlink_metadata(&self.settings.path), self.file.metadata()) else {
            return false;
        };
        (there.dev(), there.ino()) == (ours.dev(), ours.ino())
    }

    fn put_aside_by_time(&self) {
        let Some(old) = self.due.and_then(|due| self.settings.rotation.suffix(due)) else { return };
        let aside = with_suffix(&self.settings.path, &old);
        // The file system does not replace what is there: it was put aside by another program, or the clock went back.
        if std::fs::hard_link(&self.settings.path, &aside).is_ok() {
            let _ = std::fs::remove_file(&self.settings.path);
        }
        if self.settings.backups > 0 {
            self.prune();
        }
    }

    /// Removes the oldest of those that were put aside.
    fn prune(&self) {
        let Some(folder) = self.settings.path.parent() else { return };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Some(name) = self.settings.path.file_name().and_then(|name| name.to_str()) else { return };
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let mut old: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .filter(|entry| {
                let found = entry.file_name();
                let suffix = found.to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix('.'));
                suffix.is_some_and(|suffix| self.settings.rotation.is_suffix(suffix))
            })
            .map(|entry| entry.path())
            .collect();
        old.sort();
        let kept = usize::try_from(self.settings.backups).unwrap_or(usize::MAX);
        for path in old.iter().take(old.len().saturating_sub(kept)) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn put_aside_by_size(&self) {
        let path = &self.settings.path;
        for number in (1..self.settings.backups).rev() {
            let _ =
                std::fs::rename(with_suffix(path, &number.to_string()), with_suffix(path, &(number + 1).to_string()));
        }
        let _ = std::fs::rename(path, with_suffix(path, "1"));
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rotate_if_due(bytes.len());
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn open(path: &Path) -> Result<(File, std::fs::Metadata), String> {
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
    Ok((file, metadata))
}

impl Rotation {
    fn zone(self) -> TimeZone {
        match self {
            Self::Timed { utc: true, .. } => TimeZone::UTC,
            _ => TimeZone::system(),
        }
    }

    /// When a file that was begun then is put aside.
    fn next(self, began: Timestamp) -> Option<Timestamp> {
        self.next_in(&began.to_zoned(self.zone()))
    }

    fn next_in(self, began: &Zoned) -> Option<Timestamp> {
        let Self::Timed { when, .. } = self else { return None };
        let days = match when {
            When::Every { seconds, .. } => {
                return began.timestamp().checked_add(Span::new().seconds(i64::from(seconds))).ok();
            }
            When::Midnight { days } => days.max(1),
            When::Weekly(day) => u32::try_from(began.weekday().until(day)).unwrap_or(0) + 1,
        };
        let day = began.date().checked_add(Span::new().days(i64::from(days))).ok()?;
        // The first moment of the day, where a change of the clocks leaves midnight out.
        Some(day.to_zoned(began.time_zone().clone()).ok()?.start_of_day().ok()?.timestamp())
    }

    /// What the name of a file says that is put aside at this moment: when it was begun, as it were.
    fn suffix(self, due: Timestamp) -> Option<String> {
        let Self::Timed { when, .. } = self else { return None };
        let due = due.to_zoned(self.zone());
        let (back, unit) = match when {
            When::Every { seconds, unit } => (Span::new().seconds(i64::from(seconds)), unit),
            When::Midnight { days } => (Span::new().days(i64::from(days.max(1))), Unit::Day),
            When::Weekly(_) => (Span::new().days(7), Unit::Day),
        };
        let began = due.checked_sub(back).ok()?;
        let format = match unit {
            Unit::Second => "%Y-%m-%d_%H-%M-%S",
            Unit::Minute => "%Y-%m-%d_%H-%M",
            Unit::Hour => "%Y-%m-%d_%H",
            Unit::Day => "%Y-%m-%d",
        };
        Some(began.strftime(format).to_string())
    }

    /// Whether a file of this suffix was put aside by this rotation.
    fn is_suffix(self, suffix: &str) -> bool {
        let Self::Timed { when, .. } = self else { return false };
        let shape = match when {
            When::Every { unit: Unit::Second, .. } => "dddd-dd-dd_dd-dd-dd",
            When::Every { unit: Unit::Minute, .. } => "dddd-dd-dd_dd-dd",
            When::Every { unit: Unit::Hour, .. } => "dddd-dd-dd_dd",
            _ => "dddd-dd-dd",
        };
        let fits = |(found, shape): (u8, u8)| if shape == b'd' { found.is_ascii_digit() } else { found == shape };
        suffix.len() == shape.len() && suffix.bytes().zip(shape.bytes()).all(fits)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    fn midnight() -> Rotation {
        Rotation::Timed { when: When::Midnight { days: 1 }, utc: true }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_day_ends_at_local_midnight_also_when_the_clocks_change() {
        let next = |text: &str| {
            let began: Zoned = text.parse().unwrap();
            midnight().next_in(&began).unwrap().to_zoned(began.time_zone().clone()).to_string()
        };
        let cases = [
            ("2026-01-31T23:59:59+01:00[Europe/Berlin]", "2026-02-01T00:00:00+01:00[Europe/Berlin]"),
            ("2026-03-29T00:00:00+01:00[Europe/Berlin]", "2026-03-30T00:00:00+02:00[Europe/Berlin]"),
            ("2026-10-25T02:30:00+01:00[Europe/Berlin]", "2026-10-26T00:00:00+01:00[Europe/Berlin]"),
            // There is no midnight on this day.
            ("2018-11-03T12:00:00-03:00[America/Sao_Paulo]", "2018-11-04T01:00:00-02:00[America/Sao_Paulo]"),
        ];
        for (began, due) in cases {
            assert_eq!(next(began), due);
        }
    }

    #[test]
    fn an_old_file_is_named_after_its_day() {
        let timed = |when| Rotation::Timed { when, utc: true };
        let due = at("2026-02-01T00:00:00Z");
        assert_eq!(midnight().suffix(due).unwrap(), "2026-01-31");
        let hourly = timed(When::Every { seconds: 3600, unit: Unit::Hour });
        assert_eq!(hourly.suffix(due).unwrap(), "2026-01-31_23");
        assert!(hourly.is_suffix("2026-01-31_23") && !hourly.is_suffix("2026-01-31"));
        assert!(midnight().is_suffix("2026-01-31") && !midnight().is_suffix("2026-01-31.gz"));
        let sundays = timed(When::Weekly(Weekday::Sunday));
        assert_eq!(sundays.next(at("2026-11-21T10:00:00Z")), Some(at("2026-11-23T00:00:00Z")));
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_put_aside_at_midnight_and_the_oldest_removed() {
        static NOW: AtomicI64 = AtomicI64::new(0);
        let clock = || Timestamp::from_second(NOW.load(Ordering::Relaxed)).unwrap();
        let set = |text: &str| NOW.store(at(text).as_second(), Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(folder.path().join("x.log.other"), "stays").unwrap();
        std::fs::write(folder.path().join("y.log.2020-01-01"), "stays").unwrap();
        let settings = LogFile { path: path.clone(), rotation: midnight(), backups: 2 };
        set("2026-01-30T12:00:00Z");
        let mut writer = Writer::open_with(settings.clone(), clock).unwrap();
        // Another program with the same file.
        let mut second = Writer::open_with(settings, clock).unwrap();
        for day in ["2026-01-30T23:59:59Z", "2026-01-31T00:00:00Z", "2026-02-01T09:00:00Z", "2026-02-02T00:00:01Z"] {
            set(day);
            writer.write_all(format!("1 {day}\n").as_bytes()).unwrap();
            second.write_all(format!("2 {day}\n").as_bytes()).unwrap();
        }
        let there = names(folder.path());
        assert_eq!(there, ["x.log", "x.log.2026-01-31", "x.log.2026-02-01", "x.log.other", "y.log.2020-01-01"]);
        let text = std::fs::read_to_string(folder.path().join("x.log.2026-02-01")).unwrap();
        assert_eq!(text, "1 2026-02-01T09:00:00Z\n2 2026-02-01T09:00:00Z\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "1 2026-02-02T00:00:01Z\n2 2026-02-02T00:00:01Z\n");
    }

    #[test]
    fn a_file_is_put_aside_before_it_is_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let settings = LogFile { path: path.clone(), rotation: Rotation::Sized { max_bytes: 10 }, backups: 2 };
        let mut writer = Writer::open(settings).unwrap();
        for line in ["aaaa\n", "bbbb\n", "cccc\n", "dddd\n", "eeee\n", "ffff\n", "gggg\n"] {
            writer.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(names(folder.path()), ["x.log", "x.log.1", "x.log.2"]);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "gggg\n");
        assert_eq!(std::fs::read_to_string(folder.path().join("x.log.2")).unwrap(), "cccc\ndddd\n");
    }

    #[test]
    fn links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let settings = LogFile { path, rotation: Rotation::None, backups: 0 };
        assert!(Writer::open(settings).unwrap_err().contains("no log is written"));
    }
}
