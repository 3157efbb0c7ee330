//! The sections `audits` and `run`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::checker::Checker;
use super::place::Place;
use super::plugins::{Checked, checked_key};
use super::schedule::{self, ScheduleConfig};
use super::suggest;
use crate::subject::{Key, Role};

const ROLES: [(&str, Role); 4] =
    [("clouds", Role::Cloud), ("stores", Role::Store), ("events", Role::Event), ("alerts", Role::Alert)];
const EXPECTED: &str = "a mapping with the keys clouds, stores, events and alerts";

/// An audit: which plugins it has in which role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditConfig {
    /// The plugins that make records.
    pub clouds: Vec<Key>,
    /// The plugins that keep records.
    pub stores: Vec<Key>,
    /// The plugins that make events of records.
    pub events: Vec<Key>,
    /// The plugins that keep events, or tell people of them.
    pub alerts: Vec<Key>,
    /// When it runs.
    pub schedule: ScheduleConfig,
}

impl AuditConfig {
    /// The plugins of a role.
    #[must_use]
    pub fn of_role(&self, role: Role) -> &[Key] {
        match role {
            Role::Cloud => &self.clouds,
            Role::Store => &self.stores,
            Role::Event => &self.events,
            Role::Alert => &self.alerts,
        }
    }
}

pub(super) type Plugins<'a> = BTreeMap<String, Checked<'a>>;

pub(super) fn read(
    checker: &mut Checker<'_>,
    place: &Place,
    section: &Value,
    plugins: &Plugins<'_>,
    schedule: &ScheduleConfig,
) -> BTreeMap<Key, AuditConfig> {
    let Some(entries) = checker.mapping(place, section, "a mapping of audit keys to audits") else {
        return BTreeMap::new();
    };
    let mut audits = BTreeMap::new();
    for (name, value) in entries {
        let place = place.key(name);
        let key = checked_key(checker, &place, name);
        let audit = audit(checker, &place, value, plugins, schedule);
        if let Some(key) = key {
            audits.insert(key, audit);
        }
    }
    audits
}

fn audit(
    checker: &mut Checker<'_>,
    place: &Place,
    value: &Value,
    plugins: &Plugins<'_>,
    defaults: &ScheduleConfig,
) -> AuditConfig {
    let mut audit = AuditConfig::default();
    let Some(entries) = checker.mapping(place, value, EXPECTED) else { return audit };
    let known: Vec<&str> = ROLES.iter().map(|(key, _)| *key).chain(schedule::KEYS).collect();
    checker.known_keys(place, entries, &known);
    audit.schedule = schedule::read(checker, place, entries, defaults);
    for (key, role) in ROLES {
        let Some(list) = entries.get(key) else { continue };
        let names = checker.names(&place.key(key), list, "a list of plugin keys");
        let keys = names.into_iter().filter_map(|(place, name)| used(checker, &place, &name, role, plugins)).collect();
        match role {
            Role::Cloud => audit.clouds = keys,
            Role::Store => audit.stores = keys,
            Role::Event => audit.events = keys,
            Role::Alert => audit.alerts = keys,
        }
    }
    audit
}

/// A plugin key in a list, if it names a plugin that can have the role.
fn used(checker: &mut Checker<'_>, place: &Place, name: &str, role: Role, plugins: &Plugins<'_>) -> Option<Key> {
    let Some(plugin) = plugins.get(name) else {
        let able = |checked: &Checked<'_>| checked.class.is_some_and(|class| class.roles.contains(&role));
        let named = |able_only: bool| {
            let fitting = plugins.iter().filter(move |(_, checked)| !able_only || able(checked));
            suggest::nearest(name, fitting.map(|(key, _)| key.as_str()))
        };
        let hint = named(true).or_else(|| named(false));
        let hint = hint.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        checker.error(place, format!("no plugin `{name}` is defined under `plugins`{hint}"));
        return None;
    };
    if let Some(class) = plugin.class.filter(|class| !class.roles.contains(&role)) {
        let fitting = ROLES.iter().filter(|(_, role)| class.roles.contains(role));
        let sections: Vec<String> = fitting.map(|(section, _)| format!("`{section}`")).collect();
        let article = if role == Role::Event || role == Role::Alert { "an" } else { "a" };
        let message = format!(
            "the plugin `{name}` ({}) cannot be {article} {role}; it can stand under {}",
            class.short_name(),
            sections.join(" and ")
        );
        checker.error(place, message);
    }
    Key::new(name).ok()
}

/// The audits of a run: those that the configuration lists, or those that the command line names.
pub(super) fn selected(
    checker: &mut Checker<'_>,
    place: &Place,
    section: &Value,
    selection: Option<&[String]>,
    audits: &BTreeMap<Key, AuditConfig>,
) -> Vec<Key> {
    let find = |name: &str| audits.keys().find(|key| key.as_str() == name).cloned();
    let unknown = |name: &str| {
        let hint = suggest::did_you_mean(name, audits.keys().map(Key::as_str));
        format!("no audit `{name}` is defined under `audits`{hint}")
    };
    let mut listed = Vec::new();
    for (place, name) in checker.names(place, section, "a list of audit keys") {
        match find(&name) {
            Some(key) => listed.push(key),
            None => checker.error(&place, unknown(&name)),
        }
    }
    let Some(selection) = selection else {
        if section.as_array().is_some_and(Vec::is_empty) {
            checker.warn(place, "no audit is listed; nothing runs".to_owned());
        }
        return listed;
    };
    let mut selected = Vec::new();
    for name in selection {
        match find(name) {
            Some(key) if selected.contains(&key) => {
                checker.error_of_option("--audit", format!("`{name}` is named a second time; name it once"));
            }
            Some(key) => selected.push(key),
            None => checker.error_of_option("--audit", unknown(name)),
        }
    }
    selected
}
