//! How far what grows without end was read, such as an activity log: the next run goes on there.
//!
//! A collector says with the end of a unit how far it has come ([`Reached`]). The coordinator keeps the furthest of
//! each, and writes it down only when every store has all that was read until then. The root unit of the next run
//! carries it ([`Checkpoints`]).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bus::{Bucket, Bus, BusError};
use crate::identity::Id;
use crate::subject::{Key, Version};

/// How far something was read, without a gap since where it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// What was read, by which rules: see [`key`].
    pub key: String,
    /// Everything until then.
    #[serde(with = "rfc3339")]
    pub until: Timestamp,
}

/// The key of something that is read by some rules: one that is read by others is another.
///
/// ```
/// use proto::checkpoint::key;
///
/// assert_eq!(key(&["111111111111", "us-east-1"], "5b1c"), "111111111111/us-east-1/5b1c");
/// ```
#[must_use]
pub fn key(place: &[&str], rules: &str) -> String {
    format!("{}/{rules}", place.join("/"))
}

/// The checkpoints of one cloud plugin of one audit, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoints {
    /// Until when each was read.
    #[serde(default)]
    checkpoints: BTreeMap<String, Until>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
struct Until(#[serde(with = "rfc3339")] Timestamp);

/// As it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    key: String,
    #[serde(with = "rfc3339")]
    until: Timestamp,
    /// The run that came so far.
    version: Version,
}

impl Checkpoints {
    /// What is kept of a cloud plugin of an audit. What cannot be read counts as nothing: it is read again.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub async fn fetch(bus: &dyn Bus, audit: &Key, plugin: &Key) -> Result<Self, BusError> {
        let entries = bus.kv_entries(Bucket::Checkpoints, &prefix(audit, plugin)).await?;
        let kept = entries.iter().filter_map(|entry| {
            let kept: Kept = serde_json::from_slice(&entry.value).ok()?;
            Some((kept.key, Until(kept.until)))
        });
        Ok(Self { checkpoints: kept.collect() })
    }

    /// Until when something was read.
    #[must_use]
    pub fn until(&self, key: &str) -> Option<Timestamp> {
        self.checkpoints.get(key).map(|until| until.0)
    }

    /// Those whose keys begin so: of one account, say.
    #[must_use]
    pub fn of(&self, beginning: &str) -> Self {
        let of = self.checkpoints.iter().filter(|(key, _)| key.starts_with(beginning));
        Self { checkpoints: of.map(|(key, at)| (key.clone(), *at)).collect() }
    }

    /// The task of a root unit that carries them; null when there are none. More than fit into a message are left
    /// out: what they are about is read again from its beginning.
    #[must_use]
    pub fn task(&self) -> Box<RawValue> {
        if self.checkpoints.is_empty() {
            return RawValue::NULL.to_owned();
        }
        let most =
            Self { checkpoints: self.checkpoints.iter().take(MOST).map(|(key, at)| (key.clone(), *at)).collect() };
        serde_json::value::to_raw_value(&most).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }

    /// What the task of a root unit carries.
    #[must_use]
    pub fn of_task(task: &RawValue) -> Self {
        serde_json::from_str(task.get()).unwrap_or_default()
    }

    /// Notes how far something was read. It never goes back.
    pub fn reach(&mut self, reached: &Reached) {
        let until = Until(reached.until);
        let known = self.checkpoints.entry(reached.key.clone()).or_insert(until);
        *known = until.max(*known);
    }
}

/// Writes down how far something was read, unless it was read further already.
///
/// # Errors
/// When the broker cannot be asked.
pub async fn advance(
    bus: &dyn Bus,
    audit: &Key,
    version: &Version,
    plugin: &Key,
    reached: &Reached,
) -> Result<(), BusError> {
    let key = format!("{}{}", prefix(audit, plugin), Id::digest(reached.key.as_bytes()));
    if let Some(entry) = bus.kv_get(Bucket::Checkpoints, &key).await?
        && let Ok(kept) = serde_json::from_slice::<Kept>(&entry.value)
        && kept.until >= reached.until
    {
        return Ok(());
    }
    let kept = Kept { key: reached.key.clone(), until: reached.until, version: version.clone() };
    let value = serde_json::to_vec(&kept).map_err(BusError::json)?;
    bus.kv_put(Bucket::Checkpoints, &key, value.into()).await.map(drop)
}

fn prefix(audit: &Key, plugin: &Key) -> String {
    format!("{}.{}.", audit.token(), plugin.token())
}

/// Most checkpoints that a root unit carries: some 70 bytes each.
const MOST: usize = 8_000;

mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::memory::{MemoryBus, MemoryOptions};

    fn reached(key: &str, until: &str) -> Reached {
        Reached { key: key.into(), until: until.parse().unwrap() }
    }

    #[tokio::test]
    async fn a_checkpoint_goes_forward_only_and_belongs_to_its_plugin() {
        let bus = MemoryBus::new(MemoryOptions::default());
        let (audit, plugin, other) = (Key::new("a").unwrap(), Key::new("p").unwrap(), Key::new("p2").unwrap());
        let version = Version::new("20260131_235959").unwrap();
        for until in ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-01T00:00:00Z"] {
            advance(&bus, &audit, &version, &plugin, &reached("k1", until)).await.unwrap();
        }
        advance(&bus, &audit, &version, &other, &reached("k1", "2026-01-09T00:00:00Z")).await.unwrap();
        let kept = Checkpoints::fetch(&bus, &audit, &plugin).await.unwrap();
        assert_eq!(kept.until("k1"), Some("2026-01-03T00:00:00Z".parse().unwrap()));
        assert_eq!(kept.until("k2"), None);
        assert_eq!(Checkpoints::of_task(&kept.task()), kept);
    }

    #[test]
    fn a_root_without_any_is_as_ever() {
        assert_eq!(Checkpoints::default().task().get(), "null");
        assert_eq!(Checkpoints::of_task(RawValue::NULL), Checkpoints::default());
    }
}
