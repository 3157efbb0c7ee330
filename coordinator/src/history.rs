//! The runs that this host knows: their outcomes, times, counts, coverage and failures, in one file of its state.
//!
//! A broker keeps what is said of its runs for 90 days; a run in one process forgets it with the process. Both are
//! written down here. A coordinator that is new, or was away, reads at the broker what it has missed. A run in one
//! process begins with those before it: which versions ended complete decides what a store may remove.

mod broker;
mod old;

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::bus::{Bucket, SharedBus};
use proto::config::Environment;
use proto::plan::Stage;
use proto::run::{Phase, RunState};
use proto::service::host_name;
use proto::subject::{Key, Version};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::summary::AuditReport;

/// How many runs a new bus is told of at most.
const MOST_TOLD: usize = 1_000;
/// How long another process may be writing.
const BUSY: Duration = Duration::from_secs(10);
/// How hard reports are compressed: they repeat themselves.
const LEVEL: i32 = 3;
/// The largest report that is read, in bytes.
const LARGEST: usize = 256 * 1024 * 1024;

/// One row for each audit of a run. `broker` is empty for runs in one process. `report` is JSON, compressed with zstd.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS runs (
        broker TEXT NOT NULL,
        version TEXT NOT NULL,
        audit TEXT NOT NULL,
        place INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        started TEXT,
        ended TEXT,
        leader TEXT,
        records INTEGER,
        events INTEGER,
        documents INTEGER,
        problems INTEGER,
        report BLOB,
        PRIMARY KEY (version, audit, broker)
    );
    CREATE INDEX IF NOT EXISTS runs_of_audit ON runs (audit, version);
    PRAGMA user_version = 1;
";

/// Why the history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite.
    #[error(
        "cannot use the history of runs {path}: {error}; remove the file to begin anew, or name another folder in CM_STATE_DIR"
    )]
    Sqlite {
        /// The file.
        path: String,
        /// What SQLite says.
        error: rusqlite::Error,
    },
    /// The folder.
    #[error("cannot make the folder {path} for the history of runs: {error}; name another one in CM_STATE_DIR")]
    Folder {
        /// The folder.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The broker.
    #[error("cannot read the runs at the broker: {0}")]
    Bus(#[from] proto::bus::BusError),
}

/// What became of an audit of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has not ended.
    Running,
    /// All was read, evaluated, stored and delivered.
    Complete,
    /// Something was not.
    Incomplete,
    /// An operator cancelled it.
    Cancelled,
    /// It began, and nothing says how it ended.
    Unknown,
}

impl Outcome {
    /// The word for it, which also stands in the history.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }

    fn of_word(word: &str) -> Self {
        let all = [Self::Running, Self::Complete, Self::Incomplete, Self::Cancelled];
        all.into_iter().find(|outcome| outcome.as_str() == word).unwrap_or(Self::Unknown)
    }

    /// What a report says.
    #[must_use]
    pub fn of_report(report: &AuditReport) -> Self {
        match report.is_complete() {
            _ if report.cancelled.is_some() => Self::Cancelled,
            true => Self::Complete,
            false => Self::Incomplete,
        }
    }

    /// What the state of a run says of one of its audits.
    #[must_use]
    pub fn of_state(run: &RunState, audit: &Key) -> Self {
        match run.audits.get(audit) {
            Some(state) if state.phase != Phase::Ended => Self::Running,
            Some(state) if state.cancelled => Self::Cancelled,
            Some(state) if state.complete == Some(true) => Self::Complete,
            Some(_) => Self::Incomplete,
            None => Self::Unknown,
        }
    }
}

/// An audit of a run. Its JSON is a contract: see the README.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The run.
    pub version: Version,
    /// The audit.
    pub audit: Key,
    /// What became of it.
    pub outcome: Outcome,
    /// How far it is, if it has not ended.
    pub phase: Option<Phase>,
    /// When the run began, in RFC 3339.
    pub started: Option<String>,
    /// When the audit ended, in RFC 3339.
    pub ended: Option<String>,
    /// How long it took, or has taken until now.
    pub seconds: Option<u64>,
    /// Records read.
    pub records: Option<u64>,
    /// Events made.
    pub events: Option<u64>,
    /// Documents stored and delivered.
    pub documents: Option<u64>,
    /// How many sentences say what is incomplete.
    pub problems: Option<u64>,
    /// The host and process that led it.
    pub leader: Option<String>,
    /// The broker that it went over; none for a run in one process.
    pub broker: Option<String>,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    /// Those of this broker alone.
    pub broker: Option<&'a str>,
    /// Those of this audit.
    pub audit: Option<&'a Key>,
    /// Those of this run.
    pub version: Option<&'a Version>,
    /// The newest ones, at most so many.
    pub limit: Option<usize>,
}

/// The runs of this host.
#[derive(Debug, Clone)]
pub struct History {
    path: PathBuf,
    /// What versions before this one kept, if it is there.
    old: PathBuf,
}

impl History {
    /// That of this host.
    #[must_use]
    pub fn of_host(environment: &Environment) -> Self {
        let folder = environment.state_dir();
        Self { path: folder.join("history.db"), old: folder.join("runs.jsonl") }
    }

    fn open(&self) -> Result<Connection, HistoryError> {
        if let Some(folder) = self.path.parent() {
            make_folder(folder).map_err(|error| HistoryError::Folder { path: folder.display().to_string(), error })?;
        }
        let open = || {
            let connection = Connection::open(&self.path)?;
            connection.busy_timeout(BUSY)?;
            connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        let connection = open().map_err(|error| self.failed(error))?;
        if self.old.exists() {
            self.read_old(&connection).map_err(|error| self.failed(error))?;
        }
        Ok(connection)
    }

    fn failed(&self, error: rusqlite::Error) -> HistoryError {
        HistoryError::Sqlite { path: self.path.display().to_string(), error }
    }

    fn with<T>(&self, act: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, HistoryError> {
        act(&self.open()?).map_err(|error| self.failed(error))
    }

    /// Notes where runs stand: those that have begun, and those that have ended without anybody knowing more of them.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub fn note(&self, runs: &[RunState], broker: Option<&str>) -> Result<(), HistoryError> {
        if runs.is_empty() {
            return Ok(());
        }
        self.with(|connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            for run in runs {
                note(connection, run, broker)?;
            }
            connection.execute_batch("COMMIT")
        })
    }

    /// Writes down what audits of a run came to.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub fn record(&self, reports: &[AuditReport], broker: Option<&str>) -> Result<(), HistoryError> {
        if reports.is_empty() {
            return Ok(());
        }
        self.with(|connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            for report in reports {
                record(connection, report, broker)?;
            }
            connection.execute_batch("COMMIT")
        })
    }

    /// The entries that are wanted, the newest run first, its audits in their order.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn entries(&self, wanted: &Wanted<'_>) -> Result<Vec<Entry>, HistoryError> {
        self.with(|connection| {
            let mut select = connection.prepare(
                "SELECT version, audit, outcome, started, ended, records, events, documents, problems, leader, broker
                 FROM runs
                 WHERE (?1 IS NULL OR broker = ?1) AND (?2 IS NULL OR audit = ?2) AND (?3 IS NULL OR version = ?3)
                 ORDER BY version DESC, broker, place LIMIT ?4",
            )?;
            let limit = wanted.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
            let rows = select.query_map(
                params![wanted.broker, wanted.audit.map(Key::as_str), wanted.version.map(Version::as_str), limit],
                |row| Ok(entry(row)),
            )?;
            // What cannot be read was not written by this program.
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
        })
    }

    /// The report of an audit of a run, if it is known.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn report(&self, audit: &Key, version: &Version) -> Result<Option<AuditReport>, HistoryError> {
        let packed: Option<Vec<u8>> = self.with(|connection| {
            let select = "SELECT report FROM runs WHERE audit = ?1 AND version = ?2 AND report IS NOT NULL";
            connection.query_row(select, [audit.as_str(), version.as_str()], |row| row.get(0)).optional()
        })?;
        Ok(packed.and_then(|packed| unpack(&packed)))
    }

    /// Tells a new bus of the runs of this host that ended before.
    pub async fn tell(&self, bus: &SharedBus) {
        let entries = match self.entries(&Wanted { broker: Some(""), ..Wanted::default() }) {
            Ok(entries) => entries,
            Err(error) => return tracing::warn!(%error, "this run knows nothing of those before it"),
        };
        let mut runs: Vec<RunState> = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.outcome != Outcome::Running) {
            if runs.last().is_none_or(|run| run.version != entry.version) {
                if runs.len() >= MOST_TOLD {
                    break;
                }
                let (started, leader) = (entry.started.unwrap_or_default(), entry.leader.unwrap_or_default());
                runs.push(RunState::new(entry.version, started, leader, &[]));
            }
            let Some(run) = runs.last_mut() else { continue };
            run.order.push(entry.audit.clone());
            let state = run.audits.entry(entry.audit).or_default();
            state.phase = Phase::Ended;
            state.complete = Some(entry.outcome == Outcome::Complete);
            state.cancelled = entry.outcome == Outcome::Cancelled;
            state.ended = entry.ended;
        }
        for run in runs {
            let Ok(value) = serde_json::to_vec(&run) else { continue };
            if let Err(error) = bus.kv_put(Bucket::Runs, run.version.as_str(), value.into()).await {
                return tracing::warn!(%error, "this run does not know all of those before it");
            }
        }
    }

    /// Notes where the runs stand that this process leads, and what they came to. What cannot be written down is no
    /// reason to fail a run.
    pub async fn keep(&self, bus: &SharedBus, reports: &[AuditReport]) {
        if let Err(error) = self.try_keep(bus, reports).await {
            tracing::warn!(%error, "the run is not written down");
        }
    }

    async fn try_keep(&self, bus: &SharedBus, reports: &[AuditReport]) -> Result<(), HistoryError> {
        // A bus that keeps nothing is that of this process.
        let broker = if bus.can_replay() { Some(broker::id_of(bus).await?) } else { None };
        let entries = bus.kv_entries(Bucket::Runs, "").await?;
        let runs = entries.iter().filter_map(|entry| serde_json::from_slice::<RunState>(&entry.value).ok());
        let ours = crate::run::leader_name();
        let runs: Vec<RunState> = runs.filter(|run| run.leader == ours).collect();
        self.note(&runs, broker.as_deref())?;
        self.record(reports, broker.as_deref())
    }
}

/// Like the folder of a user's keys: runs tell what stands where.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn note(connection: &Connection, run: &RunState, broker: Option<&str>) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO runs (broker, version, audit, place, outcome, started, ended, leader)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET leader = ?8, place = ?4, started = coalesce(started, ?6),
             outcome = CASE WHEN report IS NULL THEN ?5 ELSE outcome END, ended = coalesce(ended, ?7)",
    )?;
    for (place, audit) in run.order.iter().enumerate() {
        let ended = run.audits.get(audit).and_then(|state| state.ended.as_deref());
        let started = Some(&run.started).filter(|started| !started.is_empty());
        insert.execute(params![
            broker.unwrap_or_default(),
            run.version.as_str(),
            audit.as_str(),
            i64::try_from(place).unwrap_or(i64::MAX),
            Outcome::of_state(run, audit).as_str(),
            started,
            ended,
            run.leader,
        ])?;
    }
    Ok(())
}

fn record(connection: &Connection, report: &AuditReport, broker: Option<&str>) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO runs (broker, version, audit, place, outcome, started, ended, records, events, documents,
             problems, report)
         VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT DO UPDATE SET outcome = ?4, started = coalesce(?5, started), ended = coalesce(?6, ended),
             records = ?7, events = ?8, documents = ?9, problems = ?10, report = ?11",
    )?;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    insert.execute(params![
        broker.unwrap_or_default(),
        report.version.as_str(),
        report.audit.as_str(),
        Outcome::of_report(report).as_str(),
        report.started,
        report.ended,
        number(report.records()),
        number(report.events()),
        number(report.documents()),
        number(report.problems.len() as u64),
        pack(report),
    ])?;
    Ok(())
}

fn pack(report: &AuditReport) -> Option<Vec<u8>> {
    let json = serde_json::to_vec(report).ok()?;
    zstd::bulk::compress(&json, LEVEL).ok()
}

fn unpack(packed: &[u8]) -> Option<AuditReport> {
    let json = zstd::bulk::decompress(packed, LARGEST).ok()?;
    serde_json::from_slice(&json).ok()
}

fn entry(row: &Row<'_>) -> Option<Entry> {
    let text = |at: usize| row.get::<_, Option<String>>(at).ok().flatten();
    let count = |at: usize| row.get::<_, Option<i64>>(at).ok().flatten().and_then(|count| u64::try_from(count).ok());
    let (started, ended, leader, broker) = (text(3), text(4), text(9), text(10));
    let broker = broker.filter(|broker| !broker.is_empty());
    let mut outcome = Outcome::of_word(&text(2)?);
    if outcome == Outcome::Running && broker.is_none() && !leader.as_deref().is_some_and(lives) {
        outcome = Outcome::Unknown;
    }
    Some(Entry {
        version: Version::new(&text(0)?).ok()?,
        audit: Key::new(&text(1)?).ok()?,
        outcome,
        phase: None,
        seconds: seconds(started.as_deref(), ended.as_deref(), outcome),
        started,
        ended,
        records: count(5),
        events: count(6),
        documents: count(7),
        problems: count(8),
        leader,
        broker,
    })
}

/// Whether a leader of this host is alive. A process of the same number may be another one: then it is taken for it.
fn lives(leader: &str) -> bool {
    let begin = format!("{}-{}-", host_name(), Stage::Coordinator);
    let pid = leader.strip_prefix(&begin).and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

/// How long it took, or has taken until now.
#[must_use]
pub fn seconds(started: Option<&str>, ended: Option<&str>, outcome: Outcome) -> Option<u64> {
    let started: jiff::Timestamp = started?.parse().ok()?;
    let ended = match ended {
        Some(ended) => ended.parse().ok()?,
        None if outcome == Outcome::Running => jiff::Timestamp::now(),
        None => return None,
    };
    u64::try_from(ended.duration_since(started).as_secs()).ok()
}

#[cfg(test)]
mod tests;
