//! The runs of this host that ended: what a run without a broker knows of those before it.
//!
//! A broker keeps the state of each run. A run in one process forgets it with the process, so it is written down, and
//! the next one begins with it: which versions ended complete decides what a store may remove.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use proto::bus::{Bucket, SharedBus};
use proto::config::Environment;
use proto::run::RunState;
use proto::subject::Version;

/// How many runs are known at most.
const MOST: usize = 1_000;

/// The runs of this host.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    known: BTreeSet<Version>,
}

impl History {
    /// That of this host.
    #[must_use]
    pub fn of_host(environment: &Environment) -> Self {
        Self { path: environment.state_dir().join("runs.jsonl"), known: BTreeSet::new() }
    }

    /// Tells a new bus of the runs that ended before.
    pub async fn tell(&mut self, bus: &SharedBus) {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(%error, file = %self.path.display(), "cannot read the runs of this host");
                }
                return;
            }
        };
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(MOST)) {
            // A line that was cut by a crash is no run.
            let Ok(run) = serde_json::from_str::<RunState>(line) else { continue };
            let value = line.as_bytes().to_vec().into();
            if run.is_ended() && bus.kv_put(Bucket::Runs, run.version.as_str(), value).await.is_ok() {
                self.known.insert(run.version);
            }
        }
        if lines.len() > 2 * MOST
            && let Err(error) = self.shorten(&lines)
        {
            tracing::warn!(%error, file = %self.path.display(), "cannot shorten the runs of this host");
        }
    }

    fn shorten(&self, lines: &[&str]) -> std::io::Result<()> {
        let mut text = lines.get(lines.len() - MOST..).unwrap_or(lines).join("\n");
        text.push('\n');
        let temporary = self.path.with_extension("tmp");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, &self.path)
    }

    /// Writes down the runs that have ended since.
    pub async fn write(&self, bus: &SharedBus) {
        let entries = match bus.kv_entries(Bucket::Runs, "").await {
            Ok(entries) => entries,
            Err(error) => return tracing::warn!(%error, "cannot write down that the run ended"),
        };
        for entry in entries {
            let Ok(mut run) = serde_json::from_slice::<RunState>(&entry.value) else { continue };
            if !run.is_ended() || self.known.contains(&run.version) {
                continue;
            }
            for state in run.audits.values_mut() {
                state.complete_versions.clear(); // each line says it of its own version
            }
            if let Err(error) = self.append(&run) {
                tracing::warn!(%error, file = %self.path.display(), "cannot write down that the run ended");
            }
        }
    }

    fn append(&self, run: &RunState) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut line = serde_json::to_vec(run)?;
        line.push(b'\n');
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?.write_all(&line)
    }
}
