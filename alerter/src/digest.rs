//! A digest: all findings of a version that people are told of, counted, in order, and each whole on disk, so that
//! memory does not grow with their texts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use proto::identity::IdMaker;
use proto::plan::{Plan, PluginSpec};
use proto::subject::{Key, Version};
use serde::Serialize;

use crate::event::{Finding, Severity};
use crate::outcome::Outcome;

/// What a digest is about.
#[derive(Debug, Clone)]
pub struct About {
    /// The audit.
    pub audit: Key,
    /// The run.
    pub version: Version,
    /// The alert.
    pub plugin: Key,
    /// The cloud plugins whose records were looked at.
    pub clouds: Vec<Key>,
    /// The event plugins that looked at them.
    pub events: Vec<Key>,
    /// What the alert's filters let through, when they leave anything out.
    pub filter: Option<String>,
    /// Findings that the last complete version had are left out.
    pub only_new: bool,
    /// What tells the run from those of other installations: see [`crate::outcome::Known::started`].
    pub started: String,
    /// Nothing was audited: somebody wants to see whether messages arrive.
    pub is_trial: bool,
}

impl About {
    /// All that there is, of an alert of an audit's version.
    #[must_use]
    pub fn new(audit: Key, version: Version, plugin: Key) -> Self {
        Self {
            audit,
            version,
            plugin,
            clouds: Vec::new(),
            events: Vec::new(),
            filter: None,
            only_new: false,
            started: String::new(),
            is_trial: false,
        }
    }

    /// What an alert of a plan is about.
    #[must_use]
    pub fn of(plan: &Plan, spec: &PluginSpec) -> Self {
        let (clouds, events) = (plan.clouds.clone(), plan.events.clone());
        Self { clouds, events, ..Self::new(plan.audit.clone(), plan.version.clone(), spec.key.clone()) }
    }

    /// The same for the same audit, version, plugin and part: what makes a second delivery known as one. Another
    /// installation may have all of these, at the same second; its run began at another fraction of it.
    #[must_use]
    pub fn idempotency_key(&self, part: &str) -> String {
        let maker = IdMaker::of_records(&self.audit, &self.version, &self.plugin);
        maker.id(&["alert", part, &self.started]).to_string()
    }

    /// When the run began, for people.
    #[must_use]
    pub fn begun(&self) -> String {
        let text = self.version.as_str();
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let (date, time) = ([part(0, 4), part(4, 6), part(6, 8)], [part(9, 11), part(11, 13), part(13, 15)]);
        format!("{} {} UTC", date.join("-"), time.join(":"))
    }
}

/// Where an event lies on disk, and what it is sorted by.
#[derive(Debug, Clone, Copy)]
struct Entry {
    severity: Severity,
    rule: u32,
    account: u32,
    len: u32,
    at: u64,
    id: u128,
}

/// A rule, as its findings name it.
#[derive(Debug)]
struct RuleName {
    rule: String,
    title: String,
    plugin: Key,
}

/// How many findings a rule has of a severity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleCount {
    /// How bad they are.
    pub severity: Severity,
    /// The rule's id.
    pub rule: String,
    /// What ought to be.
    pub title: String,
    /// How many.
    pub findings: u64,
}

/// How many findings there are of a severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SeverityCount {
    /// How bad they are.
    pub severity: Severity,
    /// How many.
    pub findings: u64,
}

/// Takes findings.
#[derive(Debug)]
pub struct Gathering {
    file: BufWriter<File>,
    written: u64,
    entries: Vec<Entry>,
    rules: Vec<RuleName>,
    rule_places: HashMap<(String, Key), u32>,
    accounts: Vec<String>,
    account_places: HashMap<String, u32>,
}

impl Gathering {
    /// An empty one, with a file that has no name and goes with it.
    ///
    /// # Errors
    /// When there can be no temporary file.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::with_capacity(64 * 1024, tempfile::tempfile()?),
            written: 0,
            entries: Vec::new(),
            rules: Vec::new(),
            rule_places: HashMap::new(),
            accounts: Vec::new(),
            account_places: HashMap::new(),
        })
    }

    /// Adds a finding with its event as it came.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, finding: &Finding, plugin: &Key, event: &[u8]) -> io::Result<()> {
        let len = u32::try_from(event.len()).map_err(|_| io::Error::other("an event of more than 4 GiB"))?;
        self.file.write_all(event)?;
        let rule = self.rule(finding, plugin);
        let account = match self.account_places.get(&finding.account) {
            Some(place) => *place,
            None => {
                let place = next_place(self.accounts.len())?;
                self.accounts.push(finding.account.clone());
                self.account_places.insert(finding.account.clone(), place);
                place
            }
        };
        let entry =
            Entry { severity: finding.severity, rule: rule?, account, len, at: self.written, id: finding.id.bits() };
        self.entries.push(entry);
        self.written += u64::from(len);
        Ok(())
    }

    fn rule(&mut self, finding: &Finding, plugin: &Key) -> io::Result<u32> {
        let name = (finding.rule.clone(), plugin.clone());
        if let Some(place) = self.rule_places.get(&name) {
            return Ok(*place);
        }
        let place = next_place(self.rules.len())?;
        let (rule, title) = (finding.rule.clone(), finding.title.clone());
        self.rules.push(RuleName { rule, title, plugin: plugin.clone() });
        self.rule_places.insert(name, place);
        Ok(place)
    }

    /// How many findings there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The digest of what was gathered. It is the same in whatever order the findings came.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(self, about: About, outcome: Outcome) -> io::Result<Digest> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let (rules, accounts, mut entries) = (self.rules, self.accounts, self.entries);
        let rule_order = order_of(&rules, |rule| (rule.rule.as_str(), rule.plugin.as_str()));
        let account_order = order_of(&accounts, String::as_str);
        let place = |order: &[u32], at: u32| order.get(at as usize).copied().unwrap_or_default();
        entries.sort_unstable_by_key(|entry| {
            (entry.severity, place(&rule_order, entry.rule), place(&account_order, entry.account), entry.id)
        });
        Ok(Digest { about, outcome, file, bytes: self.written, entries, rules })
    }
}

fn next_place(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(|_| io::Error::other("too many different rules or accounts"))
}

/// The place of each in the order of their keys.
fn order_of<'a, T, K: Ord>(items: &'a [T], key: impl Fn(&'a T) -> K) -> Vec<u32> {
    let mut sorted: Vec<usize> = (0..items.len()).collect();
    sorted.sort_by_key(|place| items.get(*place).map(&key));
    let mut order = vec![0; items.len()];
    for (rank, place) in sorted.into_iter().enumerate() {
        if let Some(slot) = order.get_mut(place) {
            *slot = u32::try_from(rank).unwrap_or(u32::MAX);
        }
    }
    order
}

/// All findings of a version that people are told of: by severity, rule and account.
#[derive(Debug)]
pub struct Digest {
    /// What it is about.
    pub about: About,
    /// Whether all was read.
    pub outcome: Outcome,
    file: File,
    bytes: u64,
    entries: Vec<Entry>,
    rules: Vec<RuleName>,
}

impl Digest {
    /// How many findings there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many places there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// How much all events are, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many findings there are of each severity that there are any of.
    #[must_use]
    pub fn by_severity(&self) -> Vec<SeverityCount> {
        let mut counts: Vec<SeverityCount> = Vec::new();
        for entry in &self.entries {
            match counts.last_mut().filter(|last| last.severity == entry.severity) {
                Some(last) => last.findings += 1,
                None => counts.push(SeverityCount { severity: entry.severity, findings: 1 }),
            }
        }
        counts
    }

    /// How many findings each rule has, the worst first.
    #[must_use]
    pub fn by_rule(&self) -> Vec<RuleCount> {
        let groups = self.entries.chunk_by(|one, other| (one.severity, one.rule) == (other.severity, other.rule));
        let count = |group: &[Entry]| {
            let first = group.first()?;
            let name = self.rules.get(first.rule as usize)?;
            let (rule, title) = (name.rule.clone(), name.title.clone());
            Some(RuleCount { severity: first.severity, rule, title, findings: group.len() as u64 })
        };
        groups.filter_map(count).collect()
    }

    /// The places of findings that are worth showing: up to so many of each rule, and so many in all.
    #[must_use]
    pub fn pick(&self, of_each: usize, in_all: usize) -> Vec<usize> {
        let (mut picked, mut rule, mut taken) = (Vec::new(), None, 0);
        for (place, entry) in self.entries.iter().enumerate() {
            if picked.len() == in_all {
                break;
            }
            if rule != Some((entry.severity, entry.rule)) {
                (rule, taken) = (Some((entry.severity, entry.rule)), 0);
            }
            if taken < of_each {
                picked.push(place);
                taken += 1;
            }
        }
        picked
    }

    /// The event at a place, as it came. It is read from disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn event(&self, place: usize) -> io::Result<Vec<u8>> {
        let entry = self.entries.get(place).ok_or_else(|| io::Error::other("there is no such finding"))?;
        let mut event = vec![0; entry.len as usize];
        self.file.read_exact_at(&mut event, entry.at)?;
        Ok(event)
    }

    /// The finding at a place. It is read from disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn finding(&self, place: usize) -> io::Result<Finding> {
        let event = self.event(place)?;
        let entry = self.entries.get(place).and_then(|entry| self.rules.get(entry.rule as usize));
        let plugin = entry.ok_or_else(|| io::Error::other("there is no such rule"))?;
        Finding::read(&event, &plugin.plugin).map_err(io::Error::from)
    }

    /// What was found, in a few words: `3 critical, 12 high`, `3 critical (new)`, or `no findings`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let counts: Vec<String> = self
            .by_severity()
            .iter()
            .map(|count| format!("{} {}", crate::readable::grouped(count.findings), count.severity))
            .collect();
        match (counts.is_empty(), self.about.only_new) {
            (true, true) => "nothing new".to_owned(),
            (true, false) => "no findings".to_owned(),
            (false, true) => format!("{} (new)", counts.join(", ")),
            (false, false) => counts.join(", "),
        }
    }

    /// That there are no findings, in a sentence. A filter may have left all of them out.
    #[must_use]
    pub fn nothing(&self) -> &'static str {
        match &self.about.filter {
            _ if self.about.only_new => "There is nothing new.",
            Some(_) => "There are no findings that the filter lets through.",
            None => "There are no findings.",
        }
    }

    /// What was found, where, and whether all was read: `prod: 3 critical, 12 high; complete`.
    #[must_use]
    pub fn headline(&self) -> String {
        if self.about.is_trial {
            return format!("test message of the alert {}", crate::readable::line(self.about.plugin.as_str()));
        }
        let audit = crate::readable::line(self.about.audit.as_str());
        match self.outcome.word() {
            Some(word) => format!("{audit}: {}; {word}", self.in_words()),
            None => format!("{audit}: {}", self.in_words()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    impl About {
        /// Of an audit `prod`.
        pub(crate) fn example() -> Self {
            let key = |name| Key::new(name).unwrap();
            Self {
                clouds: vec![key("azcloud")],
                events: vec![key("openport")],
                ..Self::new(key("prod"), Version::new("20260131_235959").unwrap(), key("mail"))
            }
        }
    }

    impl Digest {
        pub(crate) fn of_nothing() -> io::Result<Self> {
            Gathering::new()?.end(About::example(), Outcome::unknown())
        }

        pub(crate) fn of_events(events: &[Value], outcome: Outcome) -> Self {
            let mut gathering = Gathering::new().unwrap();
            let plugin = Key::new("openport").unwrap();
            for event in events {
                let text = event.to_string();
                gathering.add(&Finding::read(text.as_bytes(), &plugin).unwrap(), &plugin, text.as_bytes()).unwrap();
            }
            gathering.end(About::example(), outcome).unwrap()
        }
    }

    /// An event.
    pub(crate) fn event(n: u32, severity: &str, rule: &str, account: &str) -> Value {
        json!({"ext": {"record_type": "x_event"}, "com": {
            "id": format!("{n:032x}"), "finding_id": format!("f{n}"), "severity": severity, "title": format!("{rule} ought"),
            "rule": rule, "description": format!("The thing {n} is open."), "recommendation": "Close it.",
            "resource": {"cloud": "azure", "account": account, "type": "nsg", "id": format!("/things/{n}"), "name": format!("thing-{n}"), "region": "eu"},
        }})
    }

    #[test]
    fn it_is_the_same_in_whatever_order_findings_come() {
        let mut events: Vec<Value> = (0..60)
            .map(|n| {
                event(n, ["low", "critical", "high"][n as usize % 3], ["b", "a"][n as usize % 2], &(n % 4).to_string())
            })
            .collect();
        let one = Digest::of_events(&events, Outcome::of_gaps([]));
        events.reverse();
        let other = Digest::of_events(&events, Outcome::of_gaps([]));
        let ids = |digest: &Digest| (0..60).map(|n| digest.finding(n).unwrap().id).collect::<Vec<_>>();
        assert_eq!(ids(&one), ids(&other));
        let order: Vec<_> = (0..60)
            .map(|n| one.finding(n).unwrap())
            .map(|finding| (finding.severity, finding.rule, finding.account, finding.id))
            .collect();
        assert!(order.is_sorted());
        assert_eq!(one.headline(), "prod: 20 critical, 20 high, 20 low; complete");
        let rules = one.by_rule();
        assert_eq!(rules.len(), 6);
        assert_eq!((rules[0].severity, rules[0].rule.as_str(), rules[0].findings), (Severity::Critical, "a", 10));
        assert_eq!(one.pick(2, 5).len(), 5);
        assert_eq!(one.pick(2, 100).len(), 12);
        assert_eq!(Digest::of_nothing().unwrap().headline(), "prod: no findings");
    }

    #[test]
    fn the_key_of_a_delivery_is_its_own() {
        let about = About::example();
        assert_eq!(about.idempotency_key("a"), About::example().idempotency_key("a"));
        assert_ne!(about.idempotency_key("a"), about.idempotency_key("b"));
        let other = About { version: Version::new("20260201_000000").unwrap(), ..About::example() };
        assert_ne!(about.idempotency_key("a"), other.idempotency_key("a"));
        let elsewhere = About { started: "2026-01-31T23:59:59.5Z".into(), ..About::example() };
        assert_ne!(about.idempotency_key("a"), elsewhere.idempotency_key("a"));
        assert_eq!(about.begun(), "2026-01-31 23:59:59 UTC");
    }
}
