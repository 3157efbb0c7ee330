//! What a run read completely, so that what it does not have is not there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::coverage::{Coverage, State};
use proto::subject::Role;
use serde::Serialize;

use crate::summary::{AuditReport, CloudReport, EventReport};

/// Record types that are made of lists of other names; the first of several leads to the others, or all are lists of
/// the scope.
const MADE_OF: [(&str, &[&str]); 9] = [
    ("security_rule", &["nsg"]),
    ("firewall_rule", &["firewall"]),
    ("log_profile_missing", &["log_profile"]),
    ("mysql_server", &["mysql_server", "mysql_flexible_server"]),
    ("postgresql_server", &["postgresql_server", "postgresql_flexible_server"]),
    ("sql_db", &["sql_server", "sql_db"]),
    ("key_vault_key", &["key_vault", "key_vault_key"]),
    ("key_vault_secret", &["key_vault", "key_vault_secret"]),
    ("key_vault_key_missing", &["key_vault", "key_vault_key"]),
];

/// A scope and type that one run read completely and the other one did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The cloud plugin.
    pub plugin: String,
    /// The scope; empty for the plugin as a whole.
    pub scope: String,
    /// The resource type; empty for all.
    #[serde(rename = "type")]
    pub kind: String,
    /// How completely it was read; none where nothing is said of it.
    pub state: Option<State>,
    /// Why.
    pub reason: Option<String>,
}

/// What one report says of coverage, ready to be asked often.
#[derive(Debug)]
pub(super) struct Known<'a> {
    report: &'a AuditReport,
    clouds: HashMap<&'a str, KnownCloud<'a>>,
    events: HashMap<&'a str, &'a EventReport>,
}

#[derive(Debug)]
struct KnownCloud<'a> {
    report: &'a CloudReport,
    /// By scope in small letters, and type.
    scopes: HashMap<String, BTreeMap<&'a str, &'a Coverage>>,
    types: BTreeSet<&'a str>,
}

impl<'a> Known<'a> {
    pub(super) fn of(report: &'a AuditReport) -> Self {
        let clouds = report.clouds.iter().map(|cloud| {
            let mut scopes: HashMap<String, BTreeMap<&str, &Coverage>> = HashMap::new();
            for coverage in &cloud.coverage {
                let scope = scopes.entry(coverage.scope.to_lowercase()).or_default();
                scope.insert(&coverage.resource_type, coverage);
            }
            let types = cloud.coverage.iter().map(|coverage| coverage.resource_type.as_str()).collect();
            (cloud.plugin.as_str(), KnownCloud { report: cloud, scopes, types })
        });
        let events = report.events.iter().map(|event| (event.plugin.as_str(), event));
        Self { report, clouds: clouds.collect(), events: events.collect() }
    }

    /// Why this run cannot say that it has no resource of this kind; `None` when it can.
    pub(super) fn why_unsure(&self, plugin: &str, scope: Option<&str>, kind: Option<&str>) -> Option<String> {
        let Some(cloud) = self.clouds.get(plugin) else {
            return Some(format!("the cloud {plugin} is not a part of the run"));
        };
        if self.report.cancelled.is_some() {
            return Some("the run was cancelled".to_owned());
        }
        if let Some(reason) = &cloud.report.failed {
            return Some(format!("the cloud {plugin} failed: {reason}"));
        }
        if let Some(dead) = self.dead(Role::Cloud, plugin) {
            return Some(dead);
        }
        cloud.why_unread(&scope.unwrap_or_default().to_lowercase(), kind)
    }

    /// Why this run cannot say that it has no finding of this kind.
    pub(super) fn why_no_finding(
        &self,
        event: &str,
        plugin: &str,
        scope: Option<&str>,
        kind: Option<&str>,
    ) -> Option<String> {
        let Some(known) = self.events.get(event) else {
            return Some(format!("the event plugin {event} is not a part of the run"));
        };
        if let Some(reason) = &known.failed {
            return Some(format!("the event plugin {event} failed: {reason}"));
        }
        if self.report.evaluated < self.report.frames {
            let (evaluated, frames) = (self.report.evaluated, self.report.frames);
            return Some(format!("only {evaluated} of {frames} frames are known to be evaluated"));
        }
        if let Some(dead) = self.dead(Role::Event, event) {
            return Some(dead);
        }
        if let Some(unsure) = self.why_unsure(plugin, scope, kind) {
            return Some(unsure);
        }
        // What a rule cannot judge is neither there nor gone.
        let unknown = known.results.unknown;
        (unknown > 0).then(|| format!("the rule could not judge {unknown} resources"))
    }

    fn dead(&self, role: Role, plugin: &str) -> Option<String> {
        let dead = self.report.dead.iter().find(|dead| dead.role == role && dead.plugin.as_str() == plugin)?;
        Some(format!("{} messages of {plugin} could not be processed: {}", dead.count, dead.reason))
    }
}

impl KnownCloud<'_> {
    fn why_unread(&self, scope: &str, kind: Option<&str>) -> Option<String> {
        let lists = self.lists_of(kind);
        // The list of the scopes themselves stands at the plugin as a whole, and may name one that is not seen.
        let places = [scope, ""].into_iter().filter_map(|scope| self.scopes.get(scope));
        for entries in places {
            let found: Vec<&Coverage> = match &lists {
                Some(lists) => lists.iter().filter_map(|list| entries.get(list).copied()).collect(),
                None => entries.values().copied().collect(),
            };
            if let Some(unread) = found.iter().find(|coverage| coverage.state != State::Complete) {
                return Some(in_words(unread));
            }
            if !found.is_empty() {
                return None;
            }
        }
        let named = kind.unwrap_or("the type");
        if self.scopes.contains_key(scope) && !scope.is_empty() {
            return Some(format!("{named} of {scope} was not asked for"));
        }
        // A scope of which nothing is said is gone if all scopes were listed.
        match self.scopes.get("") {
            None => Some(format!("nothing says that {named} of {scope} was read")),
            Some(whole) => whole.values().find(|coverage| coverage.state != State::Complete).map(|one| in_words(one)),
        }
    }

    /// The lists that a type is made of; `None` when that is not known: then all of a scope count.
    fn lists_of<'k>(&self, kind: Option<&'k str>) -> Option<Vec<&'k str>> {
        let kind = kind?;
        if let Some((_, lists)) = MADE_OF.iter().find(|(made, _)| *made == kind)
            && lists.iter().any(|list| self.types.contains(list))
        {
            return Some(lists.to_vec());
        }
        self.types.contains(kind).then(|| vec![kind])
    }
}

fn in_words(coverage: &Coverage) -> String {
    let scope = if coverage.scope.is_empty() { "all scopes" } else { &coverage.scope };
    let (kind, state) = (&coverage.resource_type, coverage.state.as_str());
    match &coverage.reason {
        Some(reason) => format!("{kind} of {scope} {state}: {reason}"),
        None => format!("{kind} of {scope} {state}"),
    }
}

/// What `before` read completely and `after` did not.
#[must_use]
pub fn newly_unread(before: &AuditReport, after: &AuditReport) -> Vec<Unread> {
    let known = Known::of(after);
    let mut unread = Vec::new();
    for cloud in &before.clouds {
        let name = cloud.plugin.as_str();
        let Some(there) = known.clouds.get(name) else {
            let reason = Some("the cloud is not a part of the run".to_owned());
            unread.push(Unread { plugin: name.into(), scope: String::new(), kind: String::new(), state: None, reason });
            continue;
        };
        if let Some(reason) = &there.report.failed {
            let reason = Some(reason.clone());
            unread.push(Unread { plugin: name.into(), scope: String::new(), kind: String::new(), state: None, reason });
        }
        for coverage in cloud.coverage.iter().filter(|coverage| coverage.state == State::Complete) {
            let entries = there.scopes.get(&coverage.scope.to_lowercase());
            let now = entries.and_then(|entries| entries.get(coverage.resource_type.as_str()));
            let is_complete = now.is_some_and(|now| now.state == State::Complete);
            // A scope that was listed away, or a list without parents, is read as far as there is something to read.
            let kind = Some(coverage.resource_type.as_str());
            if is_complete || (now.is_none() && there.why_unread(&coverage.scope.to_lowercase(), kind).is_none()) {
                continue;
            }
            unread.push(Unread {
                plugin: name.to_owned(),
                scope: coverage.scope.clone(),
                kind: coverage.resource_type.clone(),
                state: now.map(|now| now.state),
                reason: now.and_then(|now| now.reason.clone()),
            });
        }
    }
    unread
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(coverage: &[Coverage], unknown: u64) -> AuditReport {
        let report = json!({
            "audit": "a",
            "version": "20260131_235959",
            "clouds": [{"plugin": "az", "records": 0, "coverage": coverage}],
            "events": [{"plugin": "rule", "results": {"unknown": unknown}}],
            "outputs": [],
            "problems": [],
        });
        serde_json::from_value(report).unwrap()
    }

    fn ok(scope: &str, kind: &str) -> Coverage {
        Coverage::complete(scope, kind, 5)
    }

    fn no(scope: &str, kind: &str, state: State) -> Coverage {
        Coverage::not_read(scope, kind, state, "because")
    }

    #[test]
    fn only_what_was_read_completely_is_sure() {
        let report = report(
            &[
                ok("", "subscription"),
                ok("S1", "nsg"),
                ok("S1", "vm"),
                no("s2", "nsg", State::Denied),
                ok("s2", "vm"),
                no("s3", "nsg", State::Skipped),
                ok("s4", "key_vault"),
                no("s5", "vm", State::NotEnabled),
            ],
            0,
        );
        let known = Known::of(&report);
        let is_sure = |scope, kind| known.why_unsure("az", Some(scope), Some(kind)).is_none();
        assert!(is_sure("s1", "nsg") && is_sure("s1", "security_rule") && is_sure("s2", "vm"));
        assert!(!is_sure("s2", "nsg") && !is_sure("s2", "security_rule") && !is_sure("s3", "nsg"));
        assert!(!is_sure("s5", "vm"), "what is not enabled was not read");
        assert!(is_sure("s9", "vm"), "a subscription that is listed no more is gone");
        assert!(!is_sure("s4", "vm"), "it was not asked for");
        assert!(is_sure("s4", "key_vault_key"), "there is no vault that could have one");
        assert!(is_sure("s1", "subscription"), "the list of all subscriptions has it");
        assert!(is_sure("s1", "no_such_type") && !is_sure("s2", "no_such_type"), "all lists of the scope count");
        assert!(known.why_unsure("other", Some("s1"), Some("nsg")).is_some());
        let why = known.why_unsure("az", Some("s2"), Some("nsg")).unwrap();
        assert_eq!(why, "nsg of s2 denied: because");
    }

    #[test]
    fn scopes_that_were_not_listed_are_not_gone() {
        let report = report(&[no("", "subscription", State::Partial), ok("s1", "vm")], 0);
        let known = Known::of(&report);
        assert!(known.why_unsure("az", Some("s9"), Some("vm")).is_some());
        assert!(known.why_unsure("az", Some("s1"), Some("vm")).is_none());
    }

    #[test]
    fn a_rule_that_cannot_judge_says_nothing_of_what_is_gone() {
        let sure = report(&[ok("s1", "vm")], 0);
        let finding = |report: &AuditReport, event: &str| {
            Known::of(report).why_no_finding(event, "az", Some("s1"), Some("vm")).is_none()
        };
        assert!(finding(&sure, "rule") && !finding(&sure, "other"));
        assert!(!finding(&report(&[ok("s1", "vm")], 3), "rule"));
        assert!(!finding(&AuditReport { frames: 2, evaluated: 1, ..sure.clone() }, "rule"));
    }

    #[test]
    fn what_became_unreadable_is_listed() {
        let before = report(&[ok("", "subscription"), ok("s1", "nsg"), ok("s2", "nsg"), ok("s3", "vm")], 0);
        let after = report(&[ok("", "subscription"), ok("s1", "nsg"), no("s2", "nsg", State::Denied)], 0);
        let unread = newly_unread(&before, &after);
        assert_eq!(unread.len(), 1, "{unread:?}");
        assert_eq!((unread[0].scope.as_str(), unread[0].state), ("s2", Some(State::Denied)));
        assert!(newly_unread(&after, &before).is_empty());
    }
}
