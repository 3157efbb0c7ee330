//! What versions before this one kept: a line for each run in one process, read once.

use proto::run::RunState;
use rusqlite::Connection;

use super::{History, note};

impl History {
    /// Takes over the lines, and sets the file aside. Two that do so at once do no harm.
    pub(super) fn read_old(&self, connection: &Connection) -> rusqlite::Result<()> {
        let text = match std::fs::read_to_string(&self.old) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, file = %self.old.display(), "cannot read the runs of this host");
                return Ok(());
            }
        };
        connection.execute_batch("BEGIN IMMEDIATE")?;
        // A line that was cut by a crash is no run.
        let runs = text.lines().filter_map(|line| serde_json::from_str::<RunState>(line).ok());
        for run in runs.filter(RunState::is_ended) {
            note(connection, &run, None)?;
        }
        connection.execute_batch("COMMIT")?;
        let aside = self.old.with_extension("jsonl.read");
        if let Err(error) = std::fs::rename(&self.old, &aside) {
            tracing::warn!(%error, file = %self.old.display(), "cannot set aside what was read");
        }
        Ok(())
    }
}
