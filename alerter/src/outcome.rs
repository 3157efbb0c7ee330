//! Whether all was read and evaluated, as the coordinator knows it when the events are complete. Alerts are delivered
//! before the run has ended: what becomes of stores and of other alerts stands in the run's summary.

use proto::bus::{Bucket, BusError, SharedBus};
use proto::run::RunState;
use proto::subject::{Key, Role, Version};

use crate::readable::line;

/// Whether all was read, and what could not be judged of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `None` when it is not known here.
    is_complete: Option<bool>,
    gaps: Vec<String>,
    unclear: Vec<String>,
}

impl Outcome {
    /// It is not known here.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// What is missing, in a sentence each; all was read when nothing is.
    #[must_use]
    pub fn of_gaps(gaps: impl IntoIterator<Item = String>) -> Self {
        let gaps: Vec<String> = gaps.into_iter().map(|gap| line(&gap)).collect();
        Self { is_complete: Some(gaps.is_empty()), gaps, unclear: Vec::new() }
    }

    /// The same with what rules could not judge, in a sentence each: it was read, and may be a finding all the same.
    #[must_use]
    pub fn with_unclear(mut self, unclear: impl IntoIterator<Item = String>) -> Self {
        self.unclear = unclear.into_iter().map(|text| line(&text)).collect();
        self
    }

    /// The word for it, if it is known.
    #[must_use]
    pub fn word(&self) -> Option<&'static str> {
        self.is_complete.map(|is_complete| if is_complete { "complete" } else { "incomplete" })
    }

    /// What is missing.
    #[must_use]
    pub fn gaps(&self) -> &[String] {
        &self.gaps
    }

    /// What rules could not judge.
    #[must_use]
    pub fn unclear(&self) -> &[String] {
        &self.unclear
    }
}

/// What an alert knows of its run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether all was read.
    pub outcome: Outcome,
    /// When the run began, to the nanosecond: no other installation's run of this version has it.
    pub started: String,
}

/// What is known of an audit's version.
///
/// # Errors
/// When the bus cannot be asked.
pub async fn of(bus: &SharedBus, audit: &Key, version: &Version) -> Result<Known, BusError> {
    let Some(entry) = bus.kv_get(Bucket::Runs, version.as_str()).await? else { return Ok(Known::default()) };
    let run: RunState = serde_json::from_slice(&entry.value).map_err(BusError::json)?;
    Ok(Known { outcome: outcome(&run, audit), started: run.started })
}

fn outcome(run: &RunState, audit: &Key) -> Outcome {
    let Some(state) = run.audits.get(audit).filter(|state| state.events_end.is_some()) else {
        return Outcome::unknown();
    };
    // What has failed since the gaps were written down.
    let failed = state.failed.iter().filter(|part| part.role == Role::Store && !part.left_out);
    let failed = failed.map(|part| format!("store {}: {}", part.plugin, part.reason));
    Outcome::of_gaps(state.gaps.iter().cloned().chain(failed)).with_unclear(state.unclear.iter().cloned())
}

#[cfg(test)]
mod tests {
    use proto::run::{AuditState, FailedPart};

    use super::*;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn run(state: AuditState) -> RunState {
        let mut run =
            RunState::new(Version::new("20260131_235959").unwrap(), String::new(), String::new(), &[key("prod")]);
        run.audits.insert(key("prod"), state);
        run
    }

    #[test]
    fn what_is_not_known_is_not_complete() {
        assert_eq!(outcome(&run(AuditState::default()), &key("prod")).word(), None);
        let ended = || AuditState { events_end: Some(0), ..AuditState::default() };
        assert_eq!(outcome(&run(ended()), &key("other")).word(), None);
        assert_eq!(outcome(&run(ended()), &key("prod")).word(), Some("complete"));
        let part = |role, left_out| FailedPart { role, plugin: key("p"), reason: "away\nfor ever".into(), left_out };
        let optional = AuditState { failed: vec![part(Role::Store, true), part(Role::Alert, false)], ..ended() };
        assert_eq!(outcome(&run(optional), &key("prod")).word(), Some("complete"));
        let failed = AuditState {
            failed: vec![part(Role::Store, false)],
            gaps: vec!["cloud c: vm denied".into()],
            unclear: vec!["r: 3 unknown".into()],
            ..ended()
        };
        let said = outcome(&run(failed), &key("prod"));
        assert_eq!(said.word(), Some("incomplete"));
        assert_eq!(said.gaps(), ["cloud c: vm denied", "store p: away for ever"]);
        assert_eq!(said.unclear(), ["r: 3 unknown"]);
    }
}
