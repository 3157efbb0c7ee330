//! Whether all was read, evaluated and stored, as far as an alerter can know before the run has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::bus::{Bucket, BusError, ReaderSpec, SharedBus};
use proto::coverage::Fold;
use proto::identity::{Id, IdSet};
use proto::run::{FailedPart, RunState};
use proto::status::{Results, Status};
use proto::subject::{self, Key, Role, Stream, Version};

use crate::readable::{counted, line};

/// Whether all was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of it.
    Complete,
    /// Not all: what is missing, in a sentence each.
    Incomplete(Vec<String>),
    /// It is not known here: the run's summary says it.
    Unknown,
}

impl Outcome {
    /// The word for it, if it is known.
    #[must_use]
    pub fn word(&self) -> Option<&'static str> {
        match self {
            Self::Complete => Some("complete"),
            Self::Incomplete(_) => Some("incomplete"),
            Self::Unknown => None,
        }
    }

    /// What is missing.
    #[must_use]
    pub fn gaps(&self) -> &[String] {
        match self {
            Self::Incomplete(gaps) => gaps,
            Self::Complete | Self::Unknown => &[],
        }
    }
}

/// How many gaps are told of.
const MOST_GAPS: usize = 1000;
/// How long is waited for the next of the messages that are known to be there.
const NEXT: Duration = Duration::from_secs(10);

/// What is known of an audit's version.
pub async fn of(bus: &SharedBus, audit: &Key, version: &Version, clouds: &[Key]) -> Outcome {
    let (failed, stopped) = match state(bus, audit, version).await {
        Ok(state) => state,
        Err(error) => {
            tracing::warn!(%audit, %version, %error, "cannot read the state of the run now");
            return Outcome::Unknown;
        }
    };
    let mut gaps: Vec<String> = failed
        .iter()
        .filter(|part| !part.left_out && part.role != Role::Alert)
        .map(|part| format!("{} {} failed: {}", part.role, part.plugin, part.reason))
        .collect();
    if stopped {
        gaps.push("collecting was stopped by an operator".to_owned());
    }
    // Without replay nobody but the coordinator hears what the stages say.
    let said = if bus.can_replay() { said(bus, audit, version).await } else { Ok(None) };
    match said {
        Ok(Some(said)) if clouds.iter().all(|cloud| said.clouds.contains_key(cloud)) => said.gaps(&mut gaps),
        Ok(_) if gaps.is_empty() => return Outcome::Unknown,
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%audit, %version, %error, "cannot read now what was said of the run");
            if gaps.is_empty() {
                return Outcome::Unknown;
            }
        }
    }
    if gaps.is_empty() {
        return Outcome::Complete;
    }
    let more = gaps.len().saturating_sub(MOST_GAPS) as u64;
    gaps.truncate(MOST_GAPS);
    if more > 0 {
        gaps.push(format!("and {}", counted(more, "more gap", "more gaps")));
    }
    Outcome::Incomplete(gaps.iter().map(|gap| line(gap)).collect())
}

/// What has failed so far, and whether an operator has stopped the run.
async fn state(bus: &SharedBus, audit: &Key, version: &Version) -> Result<(Vec<FailedPart>, bool), BusError> {
    let Some(entry) = bus.kv_get(Bucket::Runs, version.as_str()).await? else { return Ok((Vec::new(), false)) };
    let run: RunState = serde_json::from_slice(&entry.value).map_err(BusError::json)?;
    let failed = run.audits.get(audit).map(|state| state.failed.clone()).unwrap_or_default();
    Ok((failed, run.stopping))
}

/// What collectors and evaluators have said.
#[derive(Default)]
struct Said {
    clouds: BTreeMap<Key, Fold>,
    units: IdSet,
    settled: IdSet,
    rules: BTreeMap<Key, Results>,
}

impl Said {
    fn add(&mut self, status: Status) {
        match status {
            // It may come twice.
            Status::UnitEnd(end)
                if self.units.insert(Id::digest(format!("{} {}", end.plugin, end.unit).as_bytes())) =>
            {
                self.clouds.entry(end.plugin.clone()).or_default().add(&end);
            }
            Status::Counts(counts) if counts.role == Role::Event => {
                for settled in counts.settled {
                    if self.settled.insert(Id::digest(&settled.seq.to_be_bytes())) {
                        for (rule, results) in settled.results {
                            self.rules.entry(rule).or_default().add(results);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn gaps(&self, gaps: &mut Vec<String>) {
        for (cloud, fold) in &self.clouds {
            for coverage in fold.coverage().iter().filter(|coverage| !coverage.state.is_whole()) {
                let scope = if coverage.scope.is_empty() { "" } else { " of " };
                let reason = coverage.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                gaps.push(format!(
                    "{cloud}: {}{scope}{} {}{reason}",
                    coverage.resource_type,
                    coverage.scope,
                    coverage.state.as_str()
                ));
            }
        }
        for (rule, results) in self.rules.iter().filter(|(_, results)| results.unknown > 0) {
            let sample = results.sample.as_ref();
            let sample =
                sample.map(|unclear| format!(", {} for one: {}", unclear.resource, unclear.reason)).unwrap_or_default();
            gaps.push(format!("{rule} cannot judge {}{sample}", counted(results.unknown, "record", "records")));
        }
    }
}

/// All that was said so far, from the beginning. Unit ends and counts stand before the end of the events is known.
async fn said(bus: &SharedBus, audit: &Key, version: &Version) -> Result<Option<Said>, BusError> {
    let mut said = Said::default();
    for kind in ["unit_end", "counts"] {
        let filter = subject::status(audit, version, kind);
        let count = bus.count(Stream::Status, &filter).await?;
        if count == 0 {
            continue;
        }
        let name = format!("{version}-outcome-{kind}-{}", audit.token());
        let mut reader = bus.read(&ReaderSpec { stream: Stream::Status, filter, name }).await?;
        for _ in 0..count {
            let Ok(message) = tokio::time::timeout(NEXT, reader.next()).await else {
                tracing::warn!(%audit, %version, kind, "what was said of the run is not all there");
                return Ok(None);
            };
            match serde_json::from_slice(&message?.payload) {
                Ok(status) => said.add(status),
                Err(error) => tracing::warn!(%audit, %version, %error, "cannot read what was said of the run"),
            }
        }
    }
    Ok(Some(said))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn unit_end(unit: &str, coverage: Value) -> Status {
        serde_json::from_value(json!({
            "kind": "unit_end", "plugin": "azcloud", "unit": unit, "attempt": 1, "restart": 0, "scope": "s-1",
            "resource_type": "nsg", "list": null, "children": [], "frames": 0, "last_seq": 0, "records": 0,
            "coverage": [coverage],
        }))
        .unwrap()
    }

    fn counts(seq: u64, unknown: u64) -> Status {
        serde_json::from_value(json!({"kind": "counts", "role": "event", "settled": [{
            "seq": seq, "records": 3,
            "results": {"tls": {"unknown": unknown, "sample": {"resource": "/r", "reason": "no tls"}}},
        }]}))
        .unwrap()
    }

    #[test]
    fn what_is_missing_is_said_once() {
        let mut said = Said::default();
        said.add(unit_end("root", json!({"scope": "s-1", "resource_type": "nsg", "state": "complete", "read": 5})));
        let mut gaps = Vec::new();
        said.gaps(&mut gaps);
        assert!(gaps.is_empty(), "{gaps:?}");
        let denied = json!({"scope": "s-2", "resource_type": "vm", "state": "denied", "read": 0, "reason": "HTTP 403"});
        for _ in 0..2 {
            said.add(unit_end("vm", denied.clone()));
            said.add(counts(7, 2));
        }
        said.gaps(&mut gaps);
        assert_eq!(gaps, ["azcloud: vm of s-2 denied: HTTP 403", "tls cannot judge 2 records, /r for one: no tls"]);
    }
}
