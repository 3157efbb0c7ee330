//! Which turns of a schedule are done with: kept where it outlives coordinators, and changed by compare-and-set alone,
//! so that of two that think they lead only one begins a turn.

use jiff::Timestamp;
use proto::bus::{Bucket, BusError, BusErrorKind, SharedBus};
use proto::run::Turn;
use proto::subject::{Key, Version};
use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

/// What is known of a schedule's turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Served {
    /// The schedule, for people.
    pub(super) schedule: String,
    /// All turns until then are begun, put off, left out or missed.
    #[serde(with = "moment")]
    pub(super) through: Timestamp,
    /// The run that is to be begun now: whoever finds it begins it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) claim: Option<Claim>,
    /// A turn that waits until the audits have ended that ran when it came.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "moment_if_any")]
    pub(super) waiting: Option<Timestamp>,
    /// How many turns were left out, for some audits at least, because they still ran.
    #[serde(default)]
    pub(super) skipped: u64,
    /// How many turns came while nobody was up, and were not made up for.
    #[serde(default)]
    pub(super) missed: u64,
}

/// A turn that somebody has taken upon himself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// The turn.
    #[serde(with = "moment")]
    pub(super) turn: Timestamp,
    /// When it was claimed.
    #[serde(with = "moment")]
    pub(super) at: Timestamp,
    /// The version of its run.
    pub(super) version: Version,
    /// The audits that run: those that do not still run.
    pub(super) audits: Vec<Key>,
}

impl Claim {
    /// What the run says about itself.
    pub(super) fn turn_of(&self, schedule: &Schedule) -> Turn {
        Turn { schedule: schedule.id.clone(), at: self.turn.to_string() }
    }
}

/// Keeps what is known of turns.
#[derive(Debug)]
pub(super) struct TurnBook {
    bus: SharedBus,
}

impl TurnBook {
    pub(super) fn new(bus: SharedBus) -> Self {
        Self { bus }
    }

    /// What is known of a schedule, with its revision. A schedule that nobody has known begins now.
    pub(super) async fn open(&self, schedule: &Schedule, now: Timestamp) -> Result<(Served, u64), BusError> {
        let key = key(schedule);
        loop {
            if let Some(entry) = self.bus.kv_get(Bucket::Checkpoints, &key).await? {
                return Ok((serde_json::from_slice(&entry.value).map_err(BusError::json)?, entry.revision));
            }
            let served = Served {
                schedule: format!("{} ({})", schedule.timing(), schedule.zone_name()),
                through: now,
                claim: None,
                waiting: None,
                skipped: 0,
                missed: 0,
            };
            let value = serde_json::to_vec(&served).map_err(BusError::json)?;
            match self.bus.kv_create(Bucket::Checkpoints, &key, value.into(), None).await {
                Ok(revision) => return Ok((served, revision)),
                Err(error) if error.kind() == BusErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Changes what is known; none when somebody else has changed it.
    pub(super) async fn change(
        &self,
        schedule: &Schedule,
        served: &Served,
        revision: u64,
    ) -> Result<Option<u64>, BusError> {
        let value = serde_json::to_vec(served).map_err(BusError::json)?;
        match self.bus.kv_update(Bucket::Checkpoints, &key(schedule), value.into(), revision).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == BusErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn key(schedule: &Schedule) -> String {
    format!("turns.{}", schedule.id)
}

/// A moment in RFC 3339.
mod moment {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(moment)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

mod moment_if_any {
    use jiff::Timestamp;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(moment: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match moment {
            Some(moment) => super::moment::serialize(moment, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        super::moment::deserialize(deserializer).map(Some)
    }
}
