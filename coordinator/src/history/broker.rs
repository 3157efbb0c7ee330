//! Brings the history up to date from a broker: all of it when it is new, what it has missed when its coordinator was
//! away.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use proto::bus::{Bucket, BusError, BusErrorKind, Message, ReaderSpec, SharedBus};
use proto::identity::Id;
use proto::run::{Phase, RunState};
use proto::service::worker_name;
use proto::status::Status;
use proto::subject::{self, Key, Stream, Version};

use super::{History, HistoryError, Wanted};
use crate::summary::AuditReport;
use crate::tally::Tally;

/// The key that holds the broker's id: its address may change.
const BROKER: &str = "broker";
/// From how many missing runs on all that is said of ends is read, instead of asking for each.
const MANY: usize = 20;
/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The runs that a broker knows.
#[derive(Debug, Clone, Default)]
pub struct AtBroker {
    /// The broker's id.
    pub id: String,
    /// The states of its runs, the newest first.
    pub runs: Vec<RunState>,
}

impl History {
    /// Writes down what is not known of a broker's runs, and tells which there are.
    ///
    /// # Errors
    /// When the broker cannot be asked, or the history cannot be written.
    pub async fn synchronise(&self, bus: &SharedBus) -> Result<AtBroker, HistoryError> {
        let id = id_of(bus).await?;
        let entries = bus.kv_entries(Bucket::Runs, "").await?;
        let mut runs: Vec<RunState> =
            entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect();
        runs.sort_unstable_by(|one, other| other.version.cmp(&one.version));

        let entries = self.entries(&Wanted { broker: Some(&id), ..Wanted::default() })?;
        // What has a report has counts.
        let reported: HashSet<(Key, Version)> = entries
            .iter()
            .filter(|entry| entry.records.is_some())
            .map(|entry| (entry.audit.clone(), entry.version.clone()))
            .collect();
        let ended = runs.iter().flat_map(|run| {
            let ended = run.audits.iter().filter(|(_, state)| state.phase == Phase::Ended);
            ended.map(|(audit, _)| (audit.clone(), run.version.clone()))
        });
        let missing: Vec<(Key, Version)> = ended.filter(|run| !reported.contains(run)).collect();
        self.note(&runs, Some(&id))?;
        if entries.is_empty() || missing.len() > MANY {
            self.take_over(bus, &id, all_ended(bus, &reported).await?).await?;
        } else {
            self.take_over(bus, &id, missing).await?;
        }
        // The order of a run's audits is known of its state alone.
        self.note(&runs, Some(&id))?;
        Ok(AtBroker { id, runs })
    }

    async fn take_over(&self, bus: &SharedBus, id: &str, ended: Vec<(Key, Version)>) -> Result<(), HistoryError> {
        for (audit, version) in ended {
            if let Some(report) = report_of(bus, &audit, &version).await? {
                self.record(&[report], Some(id))?;
            }
        }
        Ok(())
    }
}

/// The id that a broker got from the first coordinator that asked for it.
pub(super) async fn id_of(bus: &SharedBus) -> Result<String, BusError> {
    if let Some(entry) = bus.kv_get(Bucket::Checkpoints, BROKER).await? {
        return Ok(String::from_utf8_lossy(&entry.value).into_owned());
    }
    let unique = format!("{}:{}", worker_name(proto::plan::Stage::Coordinator), jiff::Timestamp::now().as_nanosecond());
    let id = Id::digest(unique.as_bytes()).to_string();
    match bus.kv_create(Bucket::Checkpoints, BROKER, id.clone().into(), None).await {
        Ok(_) => Ok(id),
        Err(error) if error.kind() == BusErrorKind::Conflict => {
            let entry = bus.kv_get(Bucket::Checkpoints, BROKER).await?;
            Ok(entry.map_or(id, |entry| String::from_utf8_lossy(&entry.value).into_owned()))
        }
        Err(error) => Err(error),
    }
}

/// The versions of which the status stream has the ends, but for those that are known.
async fn all_ended(bus: &SharedBus, known: &HashSet<(Key, Version)>) -> Result<Vec<(Key, Version)>, BusError> {
    let mut ended: BTreeMap<(Version, Key), ()> = BTreeMap::new();
    read_all(bus, "cm.status.*.*.run_ended", |message| {
        if let Some((audit, version)) = subject::parse_status(&message.subject)
            && !known.contains(&(audit.clone(), version.clone()))
        {
            ended.insert((version, audit), ());
        }
    })
    .await?;
    Ok(ended.into_keys().map(|(version, audit)| (audit, version)).collect())
}

/// What an audit of a run came to, as the status stream has it; none or one.
pub(super) async fn report_of(
    bus: &SharedBus,
    audit: &Key,
    version: &Version,
) -> Result<Option<AuditReport>, BusError> {
    let mut tally = Tally::default();
    for kind in ["run_ended", "coverage"] {
        read_all(bus, &subject::status(audit, version, kind), |message| {
            match serde_json::from_slice::<Status>(&message.payload) {
                Ok(status) => tally.add(status),
                Err(error) => tracing::warn!(%error, subject = &*message.subject, "cannot read a status"),
            }
        })
        .await?;
        if !tally.awaits_coverage() {
            break;
        }
    }
    Ok(tally.ended())
}

/// Reads what is in the status stream now.
async fn read_all(bus: &SharedBus, filter: &str, mut each: impl FnMut(&Message)) -> Result<(), BusError> {
    let last = bus.last_seq(Stream::Status, filter).await?;
    if last == 0 {
        return Ok(());
    }
    let name = format!("history-{}-{}", std::process::id(), Id::digest(filter.as_bytes()));
    let mut reader = bus.read(&ReaderSpec { stream: Stream::Status, filter: filter.to_owned(), name }).await?;
    loop {
        let text = || format!("what is said about runs does not come ({filter})");
        let next = tokio::time::timeout(PATIENCE, reader.next()).await;
        let message = next.map_err(|_| BusError::new(BusErrorKind::Unavailable, text()))??;
        each(&message);
        if message.seq >= last {
            return Ok(());
        }
    }
}
