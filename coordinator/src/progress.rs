//! Live progress on standard error: one moving line per audit on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use proto::run::Phase;
use proto::subject::Key;

/// How often a plain line says how far it is while the phase does not change.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// How far an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Its phase.
    pub phase: Phase,
    /// Units done.
    pub units_done: u64,
    /// Units known and not done.
    pub units_left: u64,
    /// Records read.
    pub records: u64,
    /// Events made.
    pub events: u64,
    /// Documents in the stores that several workers write to; `None` when there is no such store.
    pub documents: Option<u64>,
}

impl std::fmt::Display for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = self.units_done + self.units_left;
        write!(
            f,
            "{}: {} of {units} units, {} records, {} events",
            self.phase.as_str(),
            self.units_done,
            self.records,
            self.events
        )?;
        match self.documents {
            Some(documents) => write!(f, ", {documents} documents stored"),
            None => Ok(()),
        }
    }
}

/// Writes a line to standard error. Nobody may be reading it any more: that is no reason to stop a run.
fn tell(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress {
    bars: Option<MultiProgress>,
    lines: Mutex<BTreeMap<Key, Line>>,
}

#[derive(Debug)]
struct Line {
    bar: Option<ProgressBar>,
    shown: Option<(Snapshot, Instant)>,
}

impl Progress {
    /// Progress for where standard error goes.
    #[must_use]
    pub fn to_stderr() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, lines: Mutex::default() }
    }

    /// Shows how far an audit is.
    pub fn update(&self, audit: &Key, now: Snapshot) {
        let mut lines = self.lines();
        let line = lines.entry(audit.clone()).or_insert_with(|| Line { bar: self.bar(audit), shown: None });
        let due =
            line.shown.is_none_or(|(then, at)| then.phase != now.phase || (then != now && at.elapsed() >= PLAIN_EVERY));
        match &line.bar {
            Some(bar) if now.phase == Phase::Ended => bar.finish_and_clear(),
            Some(bar) => bar.set_message(now.to_string()),
            None if due && now.phase != Phase::Planned => tell(&format!("{audit}: {now}")),
            None => {}
        }
        if due {
            line.shown = Some((now, Instant::now()));
        }
    }

    /// Says something about an audit that stays.
    pub fn say(&self, audit: &Key, text: &str) {
        let line = format!("{audit}: {text}");
        match &self.bars {
            Some(bars) => {
                // A terminal that cannot be written to cannot be told so either.
                let _ = bars.println(line);
            }
            None => tell(&line),
        }
    }

    fn bar(&self, audit: &Key) -> Option<ProgressBar> {
        let bars = self.bars.as_ref()?;
        let bar = bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(audit.to_string());
        bar.enable_steady_tick(Duration::from_millis(120));
        Some(bar)
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<Key, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
