//! What the stages have said of an audit's version so far, folded so that a message that comes twice counts once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use proto::coverage::{Coverage, Fold};
use proto::status::{Connected, Counts, DeadLetter, Delivered, Failed, Results, Status};
use proto::subject::{Key, Role, Stream};
use proto::unit::{ROOT, UnitEnd};

use crate::checkpoint::Said;

use crate::summary::AuditReport;

/// The fold of an audit version's status messages and dead letters.
#[derive(Debug, Default)]
pub struct Tally {
    /// Status messages read.
    pub messages: u64,
    /// The report of a version that has ended, as it was told.
    report: Option<serde_json::Value>,
    /// What of its coverage was told beside it, by plugin and number.
    coverage_parts: BTreeMap<(Key, u32), Vec<Coverage>>,
    /// How far logs were read.
    said: Said,
    last_heard: BTreeMap<Stream, u64>,
    clouds: BTreeMap<Key, CloudTally>,
    settled: SeqSet,
    rules: BTreeMap<Key, Results>,
    delivered: BTreeMap<(Role, Key), Delivered>,
    shared: BTreeMap<(Role, Key), SharedTally>,
    failed: BTreeMap<(Role, Key), Failed>,
    dead: BTreeMap<(Role, Key), Dead>,
    last_seq: u64,
}

/// What is known of one cloud plugin.
#[derive(Debug, Default)]
struct CloudTally {
    ended: HashSet<String>,
    /// Announced children without an end, and what they read.
    awaited: HashMap<String, Reading>,
    frames: u64,
    fold: Fold,
}

/// What a unit reads, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading {
    /// The scope; empty for the plugin as a whole.
    pub scope: String,
    /// The resource type.
    pub resource_type: String,
}

impl Reading {
    /// Of a child there is its id alone, which begins with the type, and, where its parent has no scope, goes on with
    /// that of the child.
    fn of_child(parent: &UnitEnd, child: &str) -> Self {
        let mut words = child.split('/');
        let resource_type = words.next().unwrap_or_default().to_owned();
        let is_relay = child.starts_with(&format!("{}/", parent.unit));
        let own = words.next().filter(|_| words.next().is_some() && !is_relay);
        let scope = if parent.scope.is_empty() { own.unwrap_or_default() } else { &parent.scope };
        Self { scope: scope.to_owned(), resource_type }
    }
}

/// What is known of a store or alert that several workers serve.
#[derive(Debug, Default)]
struct SharedTally {
    settled: SeqSet,
    documents: u64,
    /// Where the documents are: once a worker has connected to it.
    place: Option<String>,
}

/// Dead letters of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// How many.
    pub count: u64,
    /// Why the first of them is one.
    pub reason: String,
}

impl Tally {
    /// Adds a status message.
    pub fn add(&mut self, status: Status) {
        self.messages += 1;
        match status {
            Status::UnitEnd(end) => self.unit_end(end),
            Status::Connected(Connected { role, plugin, place, .. }) => {
                self.shared.entry((role, plugin)).or_default().place = Some(place);
            }
            Status::Counts(counts) => self.counts(counts),
            Status::Delivered(delivered) => {
                self.delivered.insert((delivered.role, delivered.plugin.clone()), delivered);
            }
            Status::Failed(failed) => {
                self.failed.insert((failed.role, failed.plugin.clone()), failed);
            }
            Status::Coverage(part) => {
                self.coverage_parts.insert((part.plugin, part.part), part.coverage);
            }
            Status::RunEnded { report, .. } => self.report = Some(report),
            Status::RunBegun { .. } => {}
        }
    }

    /// The report of a version that has ended.
    #[must_use]
    pub fn ended(&self) -> Option<AuditReport> {
        let mut report: AuditReport = serde_json::from_value(self.report.clone()?).ok()?;
        for ((plugin, _), coverage) in &self.coverage_parts {
            let cloud = report.clouds.iter_mut().find(|cloud| cloud.plugin == *plugin);
            // A report that has its coverage needs no parts.
            if let Some(cloud) = cloud.filter(|cloud| cloud.coverage_parts > 0) {
                cloud.coverage.extend(coverage.iter().cloned());
            }
        }
        for cloud in &mut report.clouds {
            cloud.coverage_parts = 0;
        }
        Some(report)
    }

    /// Whether the report of a version that has ended is there, and has its coverage elsewhere.
    #[must_use]
    pub fn awaits_coverage(&self) -> bool {
        let parts = self.report.as_ref().and_then(|report| report.get("clouds")?.as_array());
        parts.is_some_and(|clouds| clouds.iter().any(|cloud| cloud.get("coverage_parts").is_some()))
    }

    /// Notes a message that was heard.
    pub fn heard(&mut self, stream: Option<Stream>, seq: u64) {
        if let Some(stream) = stream {
            let last = self.last_heard.entry(stream).or_default();
            *last = seq.max(*last);
        }
    }

    /// The last sequence of a stream that was heard.
    #[must_use]
    pub fn last_heard(&self, stream: Stream) -> u64 {
        self.last_heard.get(&stream).copied().unwrap_or(0)
    }

    /// Adds a dead letter.
    pub fn bury(&mut self, role: Role, plugin: Key, letter: DeadLetter) {
        let dead = self.dead.entry((role, plugin)).or_insert(Dead { count: 0, reason: letter.reason });
        dead.count += 1;
    }

    fn unit_end(&mut self, end: UnitEnd) {
        let cloud = self.clouds.entry(end.plugin.clone()).or_default();
        if !cloud.ended.insert(end.unit.clone()) {
            return;
        }
        cloud.awaited.remove(&end.unit);
        for child in &end.children {
            if !cloud.ended.contains(child) {
                cloud.awaited.insert(child.clone(), Reading::of_child(&end, child));
            }
        }
        cloud.frames += end.frames;
        cloud.fold.add(&end);
        self.said.add(&end);
        self.last_seq = self.last_seq.max(end.last_seq);
    }

    fn counts(&mut self, counts: Counts) {
        if let (Role::Store | Role::Alert, Some(plugin)) = (counts.role, counts.plugin) {
            let shared = self.shared.entry((counts.role, plugin)).or_default();
            for settled in counts.settled {
                if shared.settled.insert(settled.seq) {
                    shared.documents += settled.records;
                }
            }
            return;
        }
        if counts.role != Role::Event {
            return;
        }
        for settled in counts.settled {
            if self.settled.insert(settled.seq) {
                for (rule, results) in settled.results {
                    self.rules.entry(rule).or_default().add(results);
                }
            }
        }
    }

    /// How far logs were read.
    #[must_use]
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// Whether a cloud plugin's root has ended and every unit that was announced has.
    #[must_use]
    pub fn has_collected(&self, plugin: &Key) -> bool {
        self.clouds.get(plugin).is_some_and(|cloud| cloud.ended.contains(ROOT) && cloud.awaited.is_empty())
    }

    /// Whether a cloud plugin's root has ended.
    #[must_use]
    pub fn has_begun(&self, plugin: &Key) -> bool {
        self.clouds.get(plugin).is_some_and(|cloud| cloud.ended.contains(ROOT))
    }

    /// Units ended and units awaited, of all cloud plugins.
    #[must_use]
    pub fn units(&self) -> (u64, u64) {
        self.clouds.values().fold((0, 0), |(ended, awaited), cloud| {
            (ended + cloud.ended.len() as u64, awaited + cloud.awaited.len() as u64)
        })
    }

    /// Units ended and units awaited of a cloud plugin.
    #[must_use]
    pub fn units_of(&self, plugin: &Key) -> (u64, u64) {
        self.clouds.get(plugin).map_or((0, 0), |cloud| (cloud.ended.len() as u64, cloud.awaited.len() as u64))
    }

    /// What the awaited units of a cloud plugin read, and how many there are of each, the most first.
    #[must_use]
    pub fn left_of(&self, plugin: &Key) -> Vec<(Reading, u64)> {
        let mut left: BTreeMap<&Reading, u64> = BTreeMap::new();
        for reading in self.clouds.get(plugin).iter().flat_map(|cloud| cloud.awaited.values()) {
            *left.entry(reading).or_default() += 1;
        }
        let mut left: Vec<_> = left.into_iter().map(|(reading, count)| (reading.clone(), count)).collect();
        left.sort_by_key(|(_, count)| Reverse(*count));
        left
    }

    /// Records of all cloud plugins.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.clouds.values().map(|cloud| cloud.fold.records()).sum()
    }

    /// Records of one cloud plugin.
    #[must_use]
    pub fn records_of(&self, plugin: &Key) -> u64 {
        self.clouds.get(plugin).map_or(0, |cloud| cloud.fold.records())
    }

    /// The coverage of one cloud plugin.
    #[must_use]
    pub fn coverage_of(&self, plugin: &Key) -> Vec<Coverage> {
        self.clouds.get(plugin).map(|cloud| cloud.fold.coverage()).unwrap_or_default()
    }

    /// Frames that the unit ends announced.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.clouds.values().map(|cloud| cloud.frames).sum()
    }

    /// The last sequence of a frame that the unit ends announced.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Frames that the evaluator has settled.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled.len
    }

    /// What a rule said.
    #[must_use]
    pub fn results_of(&self, plugin: &Key) -> Results {
        self.rules.get(plugin).cloned().unwrap_or_default()
    }

    /// Events of all rules.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.rules.values().map(|results| results.events).sum()
    }

    /// What a store or alert has delivered.
    #[must_use]
    pub fn delivered(&self, role: Role, plugin: &Key) -> Option<&Delivered> {
        self.delivered.get(&(role, plugin.clone()))
    }

    /// Whether a worker has connected to a shared store.
    #[must_use]
    pub fn has_connected(&self, role: Role, plugin: &Key) -> bool {
        self.place(role, plugin).is_some()
    }

    /// Where a shared store keeps its documents, once a worker has connected to it.
    #[must_use]
    pub fn place(&self, role: Role, plugin: &Key) -> Option<&str> {
        self.shared.get(&(role, plugin.clone()))?.place.as_deref()
    }

    /// Messages (frames or events) that a shared store has settled.
    #[must_use]
    pub fn settled_by(&self, role: Role, plugin: &Key) -> u64 {
        self.shared.get(&(role, plugin.clone())).map_or(0, |shared| shared.settled.len)
    }

    /// Documents that a shared store has taken, each message counted once.
    #[must_use]
    pub fn documents_of(&self, role: Role, plugin: &Key) -> u64 {
        self.shared.get(&(role, plugin.clone())).map_or(0, |shared| shared.documents)
    }

    /// Documents that all shared stores have taken.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.shared.values().map(|shared| shared.documents).sum()
    }

    /// Plugins that failed for good.
    pub fn failed(&self) -> impl Iterator<Item = &Failed> {
        self.failed.values().filter(|failed| failed.permanent)
    }

    /// Dead letters by role and plugin.
    #[must_use]
    pub fn dead(&self) -> &BTreeMap<(Role, Key), Dead> {
        &self.dead
    }
}

/// Sequences, kept as ranges: they come nearly in order.
#[derive(Debug, Default)]
struct SeqSet {
    /// First to last.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl SeqSet {
    /// Adds a sequence; false when it was there.
    fn insert(&mut self, seq: u64) -> bool {
        let before = self.ranges.range(..=seq).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= seq) {
            return false;
        }
        self.len += 1;
        let last = self.ranges.remove(&(seq + 1)).unwrap_or(seq);
        let first = match before {
            Some((first, end)) if end + 1 == seq => first,
            _ => seq,
        };
        self.ranges.insert(first, last);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(unit: &str, children: &[&str]) -> Status {
        Status::UnitEnd(UnitEnd {
            plugin: Key::new("p").unwrap(),
            unit: unit.into(),
            attempt: 1,
            restart: 0,
            scope: String::new(),
            list: None,
            resource_type: "t".into(),
            children: children.iter().map(|child| (*child).to_owned()).collect(),
            frames: 2,
            last_seq: 7,
            records: 10,
            coverage: vec![Coverage::complete("", "t", 10)],
            reached: vec![],
        })
    }

    #[test]
    fn collecting_ends_when_every_announced_unit_has() {
        let plugin = Key::new("p").unwrap();
        let mut tally = Tally::default();
        assert!(!tally.has_collected(&plugin));
        tally.add(end("b", &[])); // a child's end may come before its parent's
        tally.add(end(ROOT, &["a", "b"]));
        assert!(!tally.has_collected(&plugin));
        tally.add(end("a", &["c"]));
        assert!(!tally.has_collected(&plugin));
        tally.add(end("c", &[]));
        assert!(tally.has_collected(&plugin));
    }

    #[test]
    fn what_is_left_is_known_by_scope() {
        let plugin = Key::new("p").unwrap();
        let mut tally = Tally::default();
        tally.add(end(ROOT, &["subscription/p1"]));
        tally.add(end("subscription/p1", &["nsg/s1/p1", "vm/s1/p1", "nsg/s2/p1", "nsg/s1/r1/p2", "subscription/p1/0"]));
        tally.add(end("vm/s1/p1", &[]));
        let left: Vec<_> = tally.left_of(&plugin).into_iter().map(|(r, n)| (r.resource_type, r.scope, n)).collect();
        assert_eq!(
            left,
            [("nsg".into(), "s1".into(), 2), ("subscription".into(), String::new(), 1), ("nsg".into(), "s2".into(), 1)]
        );
        assert_eq!(tally.units_of(&plugin), (3, 4));
    }

    #[test]
    fn an_end_that_comes_twice_counts_once() {
        let mut tally = Tally::default();
        for _ in 0..2 {
            tally.add(end(ROOT, &[]));
        }
        assert_eq!((tally.records(), tally.frames()), (10, 2));
    }

    #[test]
    fn a_frame_that_is_settled_twice_counts_once() {
        let mut tally = Tally::default();
        let rule = Key::new("r").unwrap();
        for seq in [1, 2, 5, 3, 2, 4, 5, 9] {
            let results = [(rule.clone(), Results { events: 1, ..Results::default() })].into();
            let settled = proto::status::Settled { seq, records: 1, results };
            tally.add(Status::Counts(Counts { role: Role::Event, plugin: None, settled: vec![settled] }));
        }
        assert_eq!((tally.settled(), tally.results_of(&rule).events), (6, 6));
        assert_eq!(tally.settled.ranges, [(1, 5), (9, 9)].into());
    }
}
