//! What was read and what was not: per scope and resource type, with counts and the reason.
//!
//! Only [`State::Complete`] lets anybody say that a resource is gone or that a check has no failures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::unit::UnitEnd;

/// How completely a resource type of a scope was read. The order is that of badness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All of it was read.
    Complete,
    /// By configuration, limit, an operator's stop or a disabled scope, it was not asked for.
    Skipped,
    /// The service is not enabled in the scope: there is nothing to read.
    NotEnabled,
    /// Some was read, some was not.
    Partial,
    /// The cloud kept throttling past all patience.
    Throttled,
    /// The cloud refused it to these credentials.
    Denied,
    /// It failed in another way.
    Failed,
}

impl State {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Skipped => "skipped",
            Self::NotEnabled => "not enabled",
            Self::Partial => "partial",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }

    /// Whether there is nothing more.
    fn is_all(self) -> bool {
        matches!(self, Self::Complete | Self::NotEnabled)
    }

    /// Whether nothing is missing that was asked for. What is not enabled has nothing to miss, and what the
    /// configuration leaves out is not missed.
    #[must_use]
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Complete | Self::NotEnabled | Self::Skipped)
    }
}

/// The coverage of one resource type in one scope, as one unit or a whole run saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The scope: an Azure subscription's id, a GCP project's id, or empty for the plugin as a whole.
    pub scope: String,
    /// The resource type, in the cloud's vocabulary (`nsg`, `subscription`).
    pub resource_type: String,
    /// How completely it was read.
    pub state: State,
    /// Resources read.
    pub read: u64,
    /// Resources known to be missing; `None` when it is not known how many are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<u64>,
    /// Why it is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Coverage {
    /// All of `read` resources were read.
    #[must_use]
    pub fn complete(scope: &str, resource_type: &str, read: u64) -> Self {
        Self {
            scope: scope.to_owned(),
            resource_type: resource_type.to_owned(),
            state: State::Complete,
            read,
            missing: None,
            reason: None,
        }
    }

    /// Nothing was read, for this reason.
    #[must_use]
    pub fn not_read(scope: &str, resource_type: &str, state: State, reason: impl Into<String>) -> Self {
        Self { state, reason: Some(reason.into()), ..Self::complete(scope, resource_type, 0) }
    }

    /// How many resources are missing, if that is known.
    fn known_missing(&self) -> Option<u64> {
        if self.state.is_all() { Some(0) } else { self.missing }
    }

    /// Adds what another unit of the same list saw.
    fn add(&mut self, other: &Self) {
        let something = self.read + other.read > 0;
        let missing = self.known_missing().zip(other.known_missing()).map(|(a, b)| a + b);
        self.state = match self.state.max(other.state) {
            // What was left out on purpose, or is not there, does not make the rest partial.
            worst if worst.is_whole() => worst,
            _ if something => State::Partial,
            worst => worst,
        };
        self.read += other.read;
        self.missing = missing.filter(|_| !self.state.is_all());
        if self.reason.is_none() {
            self.reason.clone_from(&other.reason);
        }
    }
}

/// What all units of a cloud plugin read, folded from their ends. A unit end may come twice; a list that was begun
/// again counts from its last beginning.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    /// By scope, resource type and list.
    lists: BTreeMap<(String, String, Option<String>), List>,
}

#[derive(Debug, Clone, Default)]
struct List {
    restart: u32,
    records: u64,
    coverage: BTreeMap<(String, String), Coverage>,
}

impl Fold {
    /// Adds a unit's end. The caller sees to it that each unit is added once.
    pub fn add(&mut self, end: &UnitEnd) {
        let list = self.lists.entry((end.scope.clone(), end.resource_type.clone(), end.list.clone())).or_default();
        if end.restart < list.restart {
            return;
        }
        if end.restart > list.restart {
            *list = List { restart: end.restart, ..List::default() };
        }
        list.records += end.records;
        for coverage in &end.coverage {
            let key = (coverage.scope.clone(), coverage.resource_type.clone());
            match list.coverage.get_mut(&key) {
                Some(known) => known.add(coverage),
                None => {
                    list.coverage.insert(key, coverage.clone());
                }
            }
        }
    }

    /// Records made.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.lists.values().map(|list| list.records).sum()
    }

    /// The coverage per scope and resource type, in order.
    #[must_use]
    pub fn coverage(&self) -> Vec<Coverage> {
        let mut all: BTreeMap<(&str, &str), Coverage> = BTreeMap::new();
        for coverage in self.lists.values().flat_map(|list| list.coverage.values()) {
            match all.get_mut(&(coverage.scope.as_str(), coverage.resource_type.as_str())) {
                Some(known) => known.add(coverage),
                None => {
                    all.insert((&coverage.scope, &coverage.resource_type), coverage.clone());
                }
            }
        }
        all.into_values().collect()
    }

    /// Whether everything is complete, not enabled, or left out by configuration.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lists.values().flat_map(|list| list.coverage.values()).all(|coverage| coverage.state.is_whole())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(unit: &str, restart: u32, records: u64, coverage: Coverage) -> UnitEnd {
        UnitEnd {
            plugin: crate::subject::Key::new("p").unwrap(),
            unit: unit.into(),
            attempt: 1,
            restart,
            scope: coverage.scope.clone(),
            resource_type: coverage.resource_type.clone(),
            list: None,
            children: vec![],
            frames: 1,
            last_seq: 1,
            records,
            coverage: vec![coverage],
            reached: vec![],
        }
    }

    #[test]
    fn pages_add_up_and_one_bad_page_makes_it_partial() {
        let mut fold = Fold::default();
        fold.add(&end("1", 0, 10, Coverage::complete("s", "nsg", 5)));
        fold.add(&end("2", 0, 8, Coverage::complete("s", "nsg", 4)));
        assert!(fold.is_whole());
        fold.add(&end("3", 0, 0, Coverage::not_read("s", "nsg", State::Failed, "why")));
        assert!(!fold.is_whole());
        assert_eq!(fold.records(), 18);
        let coverage = fold.coverage();
        assert_eq!(coverage.len(), 1);
        assert_eq!((coverage[0].state, coverage[0].read), (State::Partial, 9));
        assert_eq!(coverage[0].reason.as_deref(), Some("why"));
    }

    #[test]
    fn missing_are_as_many_as_are_known_of_all() {
        let missing = |missing| Coverage { missing, ..Coverage::not_read("s", "vm", State::Failed, "why") };
        let mut fold = Fold::default();
        fold.add(&end("1", 0, 9, Coverage::complete("s", "vm", 9)));
        assert_eq!(fold.coverage()[0].missing, None);
        fold.add(&end("2", 0, 0, missing(Some(2))));
        fold.add(&end("3", 0, 0, missing(Some(3))));
        assert_eq!(fold.coverage()[0].missing, Some(5));
        fold.add(&end("4", 0, 0, missing(None)));
        fold.add(&end("5", 0, 0, missing(Some(1))));
        assert_eq!(fold.coverage()[0].missing, None, "nobody knows how many more");
    }

    #[test]
    fn a_refused_scope_stays_refused() {
        let mut fold = Fold::default();
        fold.add(&end("1", 0, 0, Coverage::not_read("s", "nsg", State::Denied, "403")));
        assert_eq!(fold.coverage()[0].state, State::Denied);
    }

    #[test]
    fn an_empty_page_beside_a_refusal_is_not_a_part() {
        let mut fold = Fold::default();
        fold.add(&end("1", 0, 0, Coverage::complete("s", "vm", 0)));
        fold.add(&end("2", 0, 0, Coverage::not_read("s", "vm", State::Denied, "403")));
        assert_eq!(fold.coverage()[0].state, State::Denied);
    }

    #[test]
    fn lists_of_one_type_are_begun_again_apart() {
        let mut fold = Fold::default();
        let of = |list: &str, restart| UnitEnd {
            list: Some(list.into()),
            ..end(list, restart, 5, Coverage::complete("s", "key", 5))
        };
        fold.add(&of("a", 0));
        fold.add(&of("b", 1));
        assert_eq!((fold.records(), fold.coverage()[0].read), (10, 10));
    }

    #[test]
    fn a_limit_leaves_the_rest_whole_but_not_complete() {
        let mut fold = Fold::default();
        fold.add(&end("1", 0, 10, Coverage::complete("s", "nsg", 5)));
        fold.add(&end("2", 0, 0, Coverage::not_read("s", "nsg", State::Skipped, "by limit")));
        assert!(fold.is_whole());
        assert_eq!((fold.coverage()[0].state, fold.coverage()[0].read), (State::Skipped, 5));
    }

    #[test]
    fn a_list_begun_again_counts_from_its_last_beginning() {
        let mut fold = Fold::default();
        fold.add(&end("r0/p1", 0, 10, Coverage::complete("s", "nsg", 5)));
        fold.add(&end("r1/p1", 1, 12, Coverage::complete("s", "nsg", 6)));
        fold.add(&end("r0/p2", 0, 10, Coverage::complete("s", "nsg", 5)));
        assert_eq!(fold.records(), 12);
        assert_eq!(fold.coverage()[0].read, 6);
    }
}
