//! Findings of two runs: out of a store, or the events at a broker.

use std::path::Path;
use std::time::Duration;

use proto::bus::{BusError, BusErrorKind, ReaderSpec, SharedBus};
use proto::identity::Id;
use proto::subject::{self, Stream};
use serde::Deserialize;

use super::coverage::Known;
use super::resources::{Rows, open, stored};
use super::scratch::{Judged, Scratch, Side};
use super::{Change, DiffError, Item, Sides};

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest description that is told, in characters.
const LONGEST: usize = 1_000;

pub(super) fn of_store(sides: &Sides<'_>, path: &Path) -> Result<Result<Scratch, String>, DiffError> {
    let store = match open(path) {
        Ok(store) => store,
        Err(reason) => return Ok(Err(reason)),
    };
    for report in [sides.old, sides.new] {
        if report.events() > 0 && stored(&store, path, report, true)? == 0 {
            return Ok(Err(format!("{} keeps no events of {}", path.display(), report.version)));
        }
    }
    let mut scratch = Scratch::new()?;
    for (report, is_new) in [(sides.old, false), (sides.new, true)] {
        Rows { store: &store, path, report, events: true }.each(|_, document| add(&mut scratch, is_new, document))?;
    }
    judge(sides, &mut scratch)?;
    Ok(Ok(scratch))
}

pub(super) async fn of_broker(sides: &Sides<'_>, bus: &SharedBus) -> Result<Result<Scratch, String>, DiffError> {
    let mut scratch = Scratch::new()?;
    for (report, is_new) in [(sides.old, false), (sides.new, true)] {
        let filter = subject::events_of(&report.audit, &report.version);
        let last = bus.last_seq(Stream::Events, &filter).await?;
        let count = bus.count(Stream::Events, &filter).await?;
        if count < report.events() {
            return Ok(Err(format!(
                "the broker has {count} of the {} events of {}: it keeps them for 30 days",
                report.events(),
                report.version
            )));
        }
        if last == 0 {
            continue;
        }
        let name = format!("diff-{}-{}", report.version, std::process::id());
        let mut reader = bus.read(&ReaderSpec { stream: Stream::Events, filter, name }).await?;
        loop {
            let message = tokio::time::timeout(PATIENCE, reader.next()).await.map_err(|_| {
                let text = "the events of the run do not come from the broker; try again";
                BusError::new(BusErrorKind::Unavailable, text)
            })??;
            add(&mut scratch, is_new, &message.payload)?;
            if message.seq >= last {
                break;
            }
        }
    }
    judge(sides, &mut scratch)?;
    Ok(Ok(scratch))
}

/// What is read of an event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    ext: Ext,
    com: Com,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ext {
    subscription_id: Option<String>,
    project_id: Option<String>,
    account_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Com {
    id: Option<String>,
    finding_id: Option<String>,
    reference: Option<String>,
    description: Option<String>,
    severity: Option<String>,
    rule: Option<String>,
    origin_key: Option<String>,
    source: Source,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    origin_key: Option<String>,
    record_type: Option<String>,
}

fn add(scratch: &mut Scratch, is_new: bool, document: &[u8]) -> Result<(), DiffError> {
    let Ok(Event { ext, com }) = serde_json::from_slice::<Event>(document) else {
        tracing::warn!("an event cannot be read: it is left out");
        return Ok(());
    };
    let Some(id) = com.finding_id.or(com.id) else { return Ok(()) };
    let item = Item {
        change: Change::New,
        plugin: com.source.origin_key.unwrap_or_default(),
        kind: com.source.record_type,
        scope: ext.subscription_id.or(ext.project_id).or(ext.account_id),
        reference: com.reference,
        rule: com.rule,
        event: com.origin_key,
        severity: com.severity,
        description: com.description.map(|text| crate::terminal::cut(&text, LONGEST)),
        fields: Vec::new(),
        more_fields: 0,
        reason: None,
        id: id.clone(),
    };
    let facts = serde_json::to_string(&item).ok();
    scratch.add(Id::digest(id.as_bytes()), is_new, &Side { digest: None, place: None, facts })
}

fn judge(sides: &Sides<'_>, scratch: &mut Scratch) -> Result<(), DiffError> {
    let (before, after) = sides.known();
    scratch.judge(|old, new| {
        let (side, change, elsewhere) = match (old, new) {
            (Some(side), None) => (side, Change::Gone, &after),
            (None, Some(side)) => (side, Change::New, &before),
            _ => return Ok(Judged::Same),
        };
        // It was written a moment ago.
        let Some(mut item) = side.facts.as_deref().and_then(|facts| serde_json::from_str::<Item>(facts).ok()) else {
            return Ok(Judged::Same);
        };
        (item.change, item.reason) = with_doubt(change, why(elsewhere, &item));
        Ok(Judged::Item(Box::new(item)))
    })
}

fn why(known: &Known<'_>, item: &Item) -> Option<String> {
    let event = item.event.as_deref().unwrap_or_default();
    known.why_no_finding(event, &item.plugin, item.scope.as_deref(), item.kind.as_deref())
}

/// What is gone or new, if nothing speaks against saying so.
pub(super) fn with_doubt(change: Change, doubt: Option<String>) -> (Change, Option<String>) {
    match (change, &doubt) {
        (Change::Gone, Some(_)) => (Change::NotRead, doubt),
        (Change::New, Some(_)) => (Change::NotKnownBefore, doubt),
        _ => (change, None),
    }
}
