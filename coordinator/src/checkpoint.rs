//! Writes down how far logs were read, so that the next run goes on there: only what every store has.
//!
//! Collectors say with the ends of units how far they have come. A moment is written down when all frames that were
//! published until it was said are settled by every store and by the evaluator, or when the audit ends with all of them
//! drained. What a store did not get is so read again by the next run, and ids settle what comes twice.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto::bus::{Bus, BusError};
use proto::checkpoint::{self, Reached};
use proto::plan::Plan;
use proto::run::AuditState;
use proto::subject::{Key, Role};
use proto::unit::UnitEnd;

use crate::tally::Dead;

/// How far each cloud plugin has read its logs, as the ends of its units say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    furthest: BTreeMap<(Key, String), Timestamp>,
}

impl Said {
    /// Adds what a unit's end says.
    pub fn add(&mut self, end: &UnitEnd) {
        for reached in &end.reached {
            let known = self.furthest.entry((end.plugin.clone(), reached.key.clone())).or_insert(reached.until);
            *known = reached.until.max(*known);
        }
    }

    /// What another does not have.
    fn beyond(&self, other: &Self) -> Self {
        let is_new = |key: &(Key, String), until: &Timestamp| other.furthest.get(key).is_none_or(|known| known < until);
        let beyond = self.furthest.iter().filter(|(key, until)| is_new(key, until));
        Self { furthest: beyond.map(|(key, until)| (key.clone(), *until)).collect() }
    }

    /// Writes it down.
    async fn write(&self, bus: &dyn Bus, plan: &Plan) -> Result<(), BusError> {
        for ((plugin, key), until) in &self.furthest {
            let reached = Reached { key: key.clone(), until: *until };
            checkpoint::advance(bus, &plan.audit, &plan.version, plugin, &reached).await?;
        }
        Ok(())
    }
}

/// What of it is written down already.
#[derive(Debug, Default)]
pub(crate) struct Written {
    done: Said,
    /// What will be when all has settled this sequence.
    next: Option<(Said, u64)>,
}

impl Written {
    /// The sequence that all must have settled before more can be written down, if there is more. `last_seq` is the
    /// last one that was published when this was said.
    pub(crate) fn awaits(&mut self, said: &Said, last_seq: u64) -> Option<u64> {
        if self.next.is_none() {
            let new = said.beyond(&self.done);
            self.next = (!new.furthest.is_empty()).then_some((new, last_seq));
        }
        self.next.as_ref().map(|(_, seq)| *seq)
    }

    /// All have settled that sequence.
    pub(crate) async fn settled(&mut self, bus: &dyn Bus, plan: &Plan) -> Result<(), BusError> {
        if let Some((said, seq)) = self.next.take() {
            if let Err(error) = said.write(bus, plan).await {
                self.next = Some((said, seq));
                return Err(error);
            }
            self.done.furthest.extend(said.furthest);
        }
        Ok(())
    }
}

/// Whether everything that was read until the end is where it belongs.
fn is_drained(state: &AuditState) -> bool {
    !state.cancelled && !state.failed.iter().any(|part| matches!(part.role, Role::Store | Role::Event))
}

/// Whether dead letters hold something of the logs that could still be stored: what a store refused, or the evaluator.
/// What was too large to leave its collector will be so the next time.
pub(crate) fn has_lost(dead: &BTreeMap<(Role, Key), Dead>) -> bool {
    dead.keys().any(|(role, _)| matches!(role, Role::Store | Role::Event))
}

/// Writes down what was said in an audit that ends, if all its stores have everything. A broker keeps dead letters, so
/// that they can be sent back; without one they end with the process, and only reading again helps. An audit whose stores
/// are all files keeps the newest run alone: it reads all that the cloud still has each time.
///
/// # Errors
/// When the broker cannot be asked.
pub(crate) async fn end(
    bus: &dyn Bus,
    plan: &Plan,
    state: &AuditState,
    dead: &BTreeMap<(Role, Key), Dead>,
    said: &Said,
) -> Result<(), BusError> {
    if !is_drained(state) || !bus.can_replay() && has_lost(dead) {
        if !said.furthest.is_empty() {
            tracing::info!(audit = %plan.audit, "not all was stored: the next run reads the same of the logs again");
        }
        return Ok(());
    }
    let mut stores = plan.of_role(Role::Store).peekable();
    if !said.furthest.is_empty() && stores.peek().is_some() && stores.all(|spec| spec.exclusive) {
        tracing::warn!(
            audit = %plan.audit,
            "files hold the newest run alone, so the next run reads the logs from their beginning again: add a store that \
             keeps what it has, such as SqliteStore"
        );
        return Ok(());
    }
    said.write(bus, plan).await
}

#[cfg(test)]
mod tests {
    use proto::bus::memory::{MemoryBus, MemoryOptions};
    use proto::checkpoint::Checkpoints;
    use proto::plan::{PluginSpec, Stage};
    use proto::run::FailedPart;
    use proto::subject::Version;

    use super::*;

    fn time(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).unwrap()
    }

    fn said(key: &str, day: i64) -> Said {
        Said { furthest: [((Key::new("p").unwrap(), key.to_owned()), time(day))].into() }
    }

    fn plan() -> Plan {
        Plan {
            audit: Key::new("a").unwrap(),
            version: Version::new("20260131_235959").unwrap(),
            plugins: vec![],
            clouds: vec![],
            events: vec![],
            rules: vec![],
        }
    }

    fn no_letters() -> BTreeMap<(Role, Key), Dead> {
        BTreeMap::new()
    }

    fn letters(role: Role) -> BTreeMap<(Role, Key), Dead> {
        [((role, Key::new("s").unwrap()), Dead { count: 1, reason: String::new() })].into()
    }

    async fn kept(bus: &MemoryBus) -> Option<Timestamp> {
        Checkpoints::fetch(bus, &plan().audit, &Key::new("p").unwrap()).await.unwrap().until("k")
    }

    #[tokio::test]
    async fn nothing_is_written_down_that_a_store_does_not_have() {
        let bus = MemoryBus::new(MemoryOptions::default());
        let failed = |role| FailedPart { role, plugin: Key::new("s").unwrap(), reason: String::new(), left_out: false };
        for role in [Role::Store, Role::Event] {
            let state = AuditState { failed: vec![failed(role)], ..AuditState::default() };
            end(&bus, &plan(), &state, &no_letters(), &said("k", 1)).await.unwrap();
            assert_eq!(kept(&bus).await, None);
        }
        let cancelled = AuditState { cancelled: true, ..AuditState::default() };
        end(&bus, &plan(), &cancelled, &no_letters(), &said("k", 1)).await.unwrap();
        assert_eq!(kept(&bus).await, None);
        let refused = letters(Role::Store);
        end(&bus, &plan(), &AuditState::default(), &refused, &said("k", 1)).await.unwrap();
        assert_eq!(kept(&bus).await, None, "the letters end with the process");
        let alert = AuditState { failed: vec![failed(Role::Alert)], ..AuditState::default() };
        end(&bus, &plan(), &alert, &letters(Role::Cloud), &said("k", 1)).await.unwrap();
        assert_eq!(kept(&bus).await, Some(time(1)));
    }

    #[tokio::test]
    async fn files_alone_keep_no_log() {
        let bus = MemoryBus::new(MemoryOptions::default());
        let store = |exclusive| PluginSpec {
            key: Key::new(if exclusive { "files" } else { "inventory" }).unwrap(),
            class: String::new(),
            params: serde_json::Value::Null,
            role: Role::Store,
            stage: Stage::Sink,
            exclusive,
            pool: None,
        };
        let state = AuditState::default();
        let files = Plan { plugins: vec![store(true)], ..plan() };
        end(&bus, &files, &state, &no_letters(), &said("k", 1)).await.unwrap();
        assert_eq!(kept(&bus).await, None);
        let both = Plan { plugins: vec![store(true), store(false)], ..plan() };
        end(&bus, &both, &state, &no_letters(), &said("k", 1)).await.unwrap();
        assert_eq!(kept(&bus).await, Some(time(1)));
    }

    #[tokio::test]
    async fn what_is_said_later_waits_for_its_own_records() {
        let bus = MemoryBus::new(MemoryOptions::default());
        let mut written = Written::default();
        assert_eq!(written.awaits(&Said::default(), 5), None);
        assert_eq!(written.awaits(&said("k", 1), 5), Some(5));
        // More is said while the first still waits: it is not written with it.
        assert_eq!(written.awaits(&said("k", 2), 9), Some(5));
        written.settled(&bus, &plan()).await.unwrap();
        assert_eq!(kept(&bus).await, Some(time(1)));
        assert_eq!(written.awaits(&said("k", 2), 9), Some(9));
        written.settled(&bus, &plan()).await.unwrap();
        assert_eq!(kept(&bus).await, Some(time(2)));
        assert_eq!(written.awaits(&said("k", 2), 20), None);
    }
}
