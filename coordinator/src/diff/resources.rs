//! Resources of two runs, out of a store that keeps versions: a SqliteStore.

use std::path::Path;
use std::time::Duration;

use proto::identity::Id;
use proto::record::RecordView;
use proto::subject::Role;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde_json::{Map, Value};

use super::fields::{OF_THE_RUN, differing};
use super::findings::with_doubt;
use super::scratch::{Judged, Scratch, Side};
use super::{Change, DiffError, Item, Sides};
use crate::summary::AuditReport;

/// How long another process may be writing.
const BUSY: Duration = Duration::from_secs(10);

/// Opens an inventory to read it; the error says why there is none.
pub(super) fn open(path: &Path) -> Result<Connection, String> {
    let shown = path.display();
    if !path.exists() {
        return Err(format!("there is no inventory at {shown}"));
    }
    let open = || {
        let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        store.busy_timeout(BUSY)?;
        store.query_row("SELECT count(*) FROM (SELECT 1 FROM documents LIMIT 1)", [], |row| row.get::<_, i64>(0))?;
        Ok::<_, rusqlite::Error>(store)
    };
    open().map_err(|error| format!("{shown} is no inventory that can be read: {error}"))
}

/// How many records or events of a report's version a store has.
pub(super) fn stored(store: &Connection, path: &Path, report: &AuditReport, events: bool) -> Result<u64, DiffError> {
    let select =
        "SELECT count(*) FROM documents WHERE audit = ?1 AND version = ?2 AND is_event = ?3 AND NOT is_permanent";
    let count: i64 = store
        .query_row(select, params![report.audit.as_str(), report.version.as_str(), events], |row| row.get(0))
        .map_err(|error| failed(path, error))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

fn failed(path: &Path, error: rusqlite::Error) -> DiffError {
    DiffError::Store { path: path.display().to_string(), error }
}

/// The records or events of a version.
pub(super) struct Rows<'a> {
    pub(super) store: &'a Connection,
    pub(super) path: &'a Path,
    pub(super) report: &'a AuditReport,
    pub(super) events: bool,
}

impl Rows<'_> {
    /// Hands over each document with its place in the store.
    pub(super) fn each(&self, mut each: impl FnMut(i64, &[u8]) -> Result<(), DiffError>) -> Result<(), DiffError> {
        let failed = |error| failed(self.path, error);
        // What was done in a cloud neither changes nor goes.
        let select = "SELECT rowid, document FROM documents
                      WHERE audit = ?1 AND version = ?2 AND is_event = ?3 AND NOT is_permanent";
        let mut rows = self.store.prepare(select).map_err(failed)?;
        let (audit, version) = (self.report.audit.as_str(), self.report.version.as_str());
        let mut rows = rows.query(params![audit, version, self.events]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let place = row.get(0).map_err(failed)?;
            let document = row.get_ref(1).map_err(failed)?.as_bytes().unwrap_or_default();
            each(place, document)?;
        }
        Ok(())
    }
}

pub(super) fn of_store(
    sides: &Sides<'_>,
    path: &Path,
    ignored: &[String],
) -> Result<Result<Scratch, String>, DiffError> {
    let store = match open(path) {
        Ok(store) => store,
        Err(reason) => return Ok(Err(reason)),
    };
    for report in [sides.old, sides.new] {
        if report.records() > 0 && stored(&store, path, report, false)? == 0 {
            return Ok(Err(format!("{} keeps no records of {}", path.display(), report.version)));
        }
        if let Some(reason) = why_not_whole(report) {
            return Ok(Err(format!("{} does not have all of {}: {reason}", path.display(), report.version)));
        }
    }
    let mut scratch = Scratch::new()?;
    for (report, is_new) in [(sides.old, false), (sides.new, true)] {
        Rows { store: &store, path, report, events: false }.each(|place, document| {
            let Some((id, digest)) = identity(document) else { return Ok(()) };
            scratch.add(id, is_new, &Side { digest: Some(digest), place: Some(place), facts: None })
        })?;
    }
    let (before, after) = sides.known();
    scratch.judge(|old, new| {
        let (side, change, elsewhere) = match (old, new) {
            (Some(old), Some(new)) if old.digest == new.digest => return Ok(Judged::Same),
            (Some(old), Some(new)) => return changed(&store, path, old, new, ignored),
            (Some(side), None) => (side, Change::Gone, &after),
            (None, Some(side)) => (side, Change::New, &before),
            (None, None) => return Ok(Judged::Same),
        };
        let Some((mut item, _)) = fetch(&store, path, side)? else { return Ok(Judged::Same) };
        let doubt = elsewhere.why_unsure(&item.plugin, item.scope.as_deref(), item.kind.as_deref());
        (item.change, item.reason) = with_doubt(change, doubt);
        Ok(Judged::Item(Box::new(item)))
    })?;
    Ok(Ok(scratch))
}

/// Why the stores of a run do not have all of its records.
fn why_not_whole(report: &AuditReport) -> Option<String> {
    // Which of several stores this one is, is not known: what is wrong with any counts.
    let failed = report.outputs.iter().filter(|output| output.role == Role::Store && output.shared);
    let failed =
        failed.filter_map(|output| Some(format!("the store {} failed: {}", output.plugin, output.failed.as_ref()?)));
    let dead = report.dead.iter().filter(|dead| dead.role == Role::Store);
    let dead =
        dead.map(|dead| format!("{} documents of {} could not be stored: {}", dead.count, dead.plugin, dead.reason));
    failed.chain(dead).next()
}

/// Who a record is across runs, and a digest of what it says.
fn identity(document: &[u8]) -> Option<(Id, Vec<u8>)> {
    let view = RecordView::parse(document).ok()?;
    let head = view.head().ok()?;
    let mut com: Map<String, Value> = serde_json::from_str(view.com?.get()).ok()?;
    let ext_type = view.ext.and_then(|ext| {
        #[derive(serde::Deserialize)]
        struct Typed {
            #[serde(default)]
            record_type: Option<String>,
        }
        serde_json::from_str::<Typed>(ext.get()).ok()?.record_type
    });
    let plugin = head.origin_key.as_deref().unwrap_or_default();
    let key = head.key.as_deref().or(head.reference.as_deref()).unwrap_or_default();
    let text = serde_json::to_vec(&(plugin, ext_type, key)).ok()?;
    com.retain(|name, _| !OF_THE_RUN.contains(&name.as_str()));
    let mut content = serde_json::to_vec(&com).ok()?;
    for bucket in [view.raw, view.ext].into_iter().flatten() {
        content.push(0);
        content.extend_from_slice(bucket.get().as_bytes());
    }
    Some((Id::digest(&text), Id::digest(&content).bits().to_be_bytes().to_vec()))
}

/// What is told of a record, and the record.
fn fetch(store: &Connection, path: &Path, side: &Side) -> Result<Option<(Item, String)>, DiffError> {
    let select = "SELECT record_type, account, reference, origin, json_extract(document, '$.com.key'), document
                  FROM documents WHERE rowid = ?1";
    let mut select = store.prepare_cached(select).map_err(|error| failed(path, error))?;
    let found = select.query_row([side.place], |row| {
        let kind: Option<String> = row.get(0)?;
        let item = Item {
            change: Change::Changed,
            id: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
            plugin: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
            kind: kind.filter(|kind| !kind.is_empty()),
            scope: row.get(1)?,
            reference: row.get(2)?,
            rule: None,
            event: None,
            severity: None,
            description: None,
            fields: Vec::new(),
            more_fields: 0,
            reason: None,
        };
        Ok((item, row.get(5)?))
    });
    // It may have been removed meanwhile.
    found.optional().map_err(|error| failed(path, error))
}

/// What changed of a record; nothing if it is only written otherwise.
fn changed(store: &Connection, path: &Path, old: &Side, new: &Side, ignored: &[String]) -> Result<Judged, DiffError> {
    let (Some((_, before)), Some((mut item, after))) = (fetch(store, path, old)?, fetch(store, path, new)?) else {
        return Ok(Judged::Same);
    };
    match differing(&before, &after, ignored) {
        Some((fields, 0)) if fields.is_empty() => Ok(Judged::Same),
        Some((fields, more)) => {
            (item.fields, item.more_fields) = (fields, more);
            Ok(Judged::Item(Box::new(item)))
        }
        None => Ok(Judged::Item(Box::new(item))),
    }
}
