//! Which findings the last complete version of an audit had: what is new is told by them.
//!
//! The alerter that has read a version whole puts its findings aside. The coordinator, which alone knows whether the
//! version ends complete, then makes them those of the last complete version, or drops them. Each step can be repeated
//! after a crash, and no version takes the place of a newer one.

use serde::{Deserialize, Serialize};

use crate::bus::{Bucket, Bus, BusError, BusErrorKind};
use crate::identity::Id;
use crate::subject::{Key, Version};

/// The findings of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The version.
    pub version: Version,
    /// Sorted.
    ids: Vec<u128>,
}

impl Known {
    /// Whether the version had this finding.
    #[must_use]
    pub fn contains(&self, finding: Id) -> bool {
        self.ids.binary_search(&finding.bits()).is_ok()
    }

    /// How many findings it had.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it had none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// How many findings stand under one key: 512 KiB. Ids are digests: compressing them saves nothing.
const OF_EACH_PART: usize = 32 * 1024;
/// How large an id is, in bytes.
const ID: usize = 16;
/// How often what is being replaced is read again.
const TRIES: usize = 5;

/// What stands under a version's key: its parts are complete when it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    findings: usize,
    parts: usize,
    /// Of all parts, one after another.
    digest: String,
}

/// What stands under an audit's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// The last complete version.
    version: Version,
    /// The one before it, whose findings nobody needs any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Version>,
}

fn head_key(audit: &Key) -> String {
    format!("{}.head", audit.token())
}

fn index_key(audit: &Key, version: &Version) -> String {
    format!("{}.{version}", audit.token())
}

fn part_key(audit: &Key, version: &Version, part: usize) -> String {
    format!("{}.{version}.{part}", audit.token())
}

/// Puts the findings of a version aside, in whatever order they come, each of them as often as it likes. The same
/// findings may be put again.
///
/// # Errors
/// When the bus refuses them or is away for too long.
pub async fn put(bus: &dyn Bus, audit: &Key, version: &Version, findings: &[Id]) -> Result<(), BusError> {
    let mut ids: Vec<u128> = findings.iter().map(|id| id.bits()).collect();
    ids.sort_unstable();
    ids.dedup();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    let mut parts = 0;
    for part in bytes.chunks(OF_EACH_PART * ID) {
        bus.kv_put(Bucket::Findings, &part_key(audit, version, parts), part.to_vec().into()).await?;
        parts += 1;
    }
    let index = Index { findings: ids.len(), parts, digest: Id::digest(&bytes).to_string() };
    let value = serde_json::to_vec(&index).map_err(BusError::json)?;
    bus.kv_put(Bucket::Findings, &index_key(audit, version), value.into()).await?;
    Ok(())
}

/// A version has ended complete: what was put aside for it are the findings of the last complete version now, unless
/// those of a newer one are. If nothing was put aside, nobody asks for what is new, and what an older version has left
/// goes, as it would be out of date when somebody does.
///
/// # Errors
/// When the bus cannot be asked.
pub async fn complete(bus: &dyn Bus, audit: &Key, version: &Version) -> Result<(), BusError> {
    let key = head_key(audit);
    let has_findings = bus.kv_get(Bucket::Findings, &index_key(audit, version)).await?.is_some();
    loop {
        let there = bus.kv_get(Bucket::Findings, &key).await?;
        let head: Option<Head> = there.as_ref().map(|entry| read(&entry.value)).transpose()?;
        let before = match &head {
            Some(head) if head.version > *version => return Ok(()),
            Some(head) if head.version == *version => head.before.clone(),
            Some(head) => Some(head.version.clone()),
            None => None,
        };
        let is_there = head.as_ref().is_some_and(|head| head.version == *version);
        let changed = match &there {
            _ if is_there => Ok(()),
            None if !has_findings => return Ok(()),
            Some(_) if !has_findings => bus.kv_delete(Bucket::Findings, &key).await,
            entry => {
                let head = Head { version: version.clone(), before: before.clone() };
                let value = serde_json::to_vec(&head).map_err(BusError::json)?;
                match entry {
                    Some(entry) => bus.kv_update(Bucket::Findings, &key, value.into(), entry.revision).await.map(drop),
                    None => bus.kv_create(Bucket::Findings, &key, value.into(), None).await.map(drop),
                }
            }
        };
        match changed {
            Ok(()) => {
                return match before {
                    Some(before) => remove(bus, audit, &before).await,
                    None => Ok(()),
                };
            }
            // Another version ended at the same time.
            Err(error) if error.kind() == BusErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
}

/// A version has ended: what was put aside for it goes, unless it is the last complete one.
///
/// # Errors
/// When the bus cannot be asked.
pub async fn forget(bus: &dyn Bus, audit: &Key, version: &Version) -> Result<(), BusError> {
    match head(bus, audit).await? {
        Some(head) if head.version == *version => Ok(()),
        _ => remove(bus, audit, version).await,
    }
}

/// The findings of the last complete version; `None` when there is none that has kept them.
///
/// # Errors
/// When the bus cannot be asked, or what it has is damaged.
pub async fn last_complete(bus: &dyn Bus, audit: &Key) -> Result<Option<Known>, BusError> {
    for _ in 0..TRIES {
        let Some(head) = head(bus, audit).await? else { return Ok(None) };
        // What is missing or torn may be on its way out: then there is a newer one.
        if let Some(known) = fetch(bus, audit, head.version).await? {
            return Ok(Some(known));
        }
    }
    Err(BusError::corrupt(format!("the findings of the last complete version of {audit} are damaged")))
}

async fn head(bus: &dyn Bus, audit: &Key) -> Result<Option<Head>, BusError> {
    let entry = bus.kv_get(Bucket::Findings, &head_key(audit)).await?;
    entry.map(|entry| read(&entry.value)).transpose()
}

fn read<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, BusError> {
    serde_json::from_slice(value).map_err(BusError::json)
}

async fn fetch(bus: &dyn Bus, audit: &Key, version: Version) -> Result<Option<Known>, BusError> {
    let Some(entry) = bus.kv_get(Bucket::Findings, &index_key(audit, &version)).await? else { return Ok(None) };
    let index: Index = read(&entry.value)?;
    let mut bytes = Vec::new();
    for part in 0..index.parts {
        match bus.kv_get(Bucket::Findings, &part_key(audit, &version, part)).await? {
            Some(entry) => bytes.extend_from_slice(&entry.value),
            None => return Ok(None),
        }
    }
    if bytes.len() != index.findings * ID || Id::digest(&bytes).to_string() != index.digest {
        return Ok(None);
    }
    let ids = bytes.as_chunks::<ID>().0.iter().map(|id| u128::from_be_bytes(*id)).collect();
    Ok(Some(Known { version, ids }))
}

async fn remove(bus: &dyn Bus, audit: &Key, version: &Version) -> Result<(), BusError> {
    // Whoever put them aside may have died before the index was there: the parts are looked for.
    let mut parts = 0;
    while bus.kv_get(Bucket::Findings, &part_key(audit, version, parts)).await?.is_some() {
        parts += 1;
    }
    bus.kv_delete(Bucket::Findings, &index_key(audit, version)).await?;
    // The last one first: what a crash leaves is found again.
    for part in (0..parts).rev() {
        bus.kv_delete(Bucket::Findings, &part_key(audit, version, part)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::memory::{MemoryBus, MemoryOptions};

    fn version(n: u32) -> Version {
        Version::new(&format!("20260131_{n:06}")).unwrap()
    }

    /// Each of them twice, and in no order.
    fn findings(range: std::ops::Range<u32>) -> Vec<Id> {
        range.clone().chain(range).map(|n| Id::digest(&n.to_be_bytes())).collect()
    }

    fn has(known: &Known, n: u32) -> bool {
        known.contains(Id::digest(&n.to_be_bytes()))
    }

    async fn keys(bus: &MemoryBus) -> Vec<String> {
        let entries = bus.kv_entries(Bucket::Findings, "").await.unwrap();
        entries.into_iter().map(|entry| entry.key).collect()
    }

    #[tokio::test]
    async fn a_complete_version_takes_the_place_of_an_older_one_and_no_other_does() {
        let bus = MemoryBus::new(MemoryOptions::default());
        let audit = Key::new("prod").unwrap();
        assert_eq!(last_complete(&bus, &audit).await.unwrap(), None);
        for _ in 0..2 {
            put(&bus, &audit, &version(2), &findings(0..100_000)).await.unwrap();
        }
        // What is put aside is not yet anybody's.
        assert_eq!(last_complete(&bus, &audit).await.unwrap(), None);
        for _ in 0..2 {
            complete(&bus, &audit, &version(2)).await.unwrap();
            forget(&bus, &audit, &version(2)).await.unwrap();
        }
        let known = last_complete(&bus, &audit).await.unwrap().unwrap();
        assert_eq!((known.version.clone(), known.len()), (version(2), 100_000));
        assert!(has(&known, 0) && has(&known, 99_999) && !has(&known, 100_000));
        assert_eq!(keys(&bus).await.len(), 1 + 1 + 4);

        // One that ends incomplete, and one that is older, change nothing.
        put(&bus, &audit, &version(3), &findings(5..6)).await.unwrap();
        forget(&bus, &audit, &version(3)).await.unwrap();
        put(&bus, &audit, &version(1), &findings(5..6)).await.unwrap();
        complete(&bus, &audit, &version(1)).await.unwrap();
        forget(&bus, &audit, &version(1)).await.unwrap();
        assert_eq!(last_complete(&bus, &audit).await.unwrap(), Some(known));
        assert_eq!(keys(&bus).await.len(), 6);

        // A newer one replaces it, even by nothing.
        put(&bus, &audit, &version(4), &findings(0..0)).await.unwrap();
        for _ in 0..2 {
            complete(&bus, &audit, &version(4)).await.unwrap();
        }
        assert!(last_complete(&bus, &audit).await.unwrap().is_some_and(|known| known.is_empty()));
        assert_eq!(keys(&bus).await, ["prod.20260131_000004", "prod.head"]);

        // Nobody asked for what is new in this one: what is known is out of date.
        complete(&bus, &audit, &version(5)).await.unwrap();
        assert_eq!(last_complete(&bus, &audit).await.unwrap(), None);
        assert!(keys(&bus).await.is_empty());
    }

    #[tokio::test]
    async fn what_is_damaged_is_said() {
        let bus = MemoryBus::new(MemoryOptions::default());
        let audit = Key::new("prod").unwrap();
        put(&bus, &audit, &version(1), &findings(0..10)).await.unwrap();
        complete(&bus, &audit, &version(1)).await.unwrap();
        bus.kv_put(Bucket::Findings, "prod.20260131_000001.0", "x".into()).await.unwrap();
        assert_eq!(last_complete(&bus, &audit).await.unwrap_err().kind(), BusErrorKind::Corrupt);
    }
}
