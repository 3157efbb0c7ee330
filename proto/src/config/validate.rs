//! From a loaded value to a typed configuration, with everything that is wrong told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::audits::{self, Plugins};
use super::checker::Checker;
use super::class::find_class;
use super::load::Loaded;
use super::place::Place;
use super::plugins;
use super::problem::Problem;
use super::schedule::{self, ScheduleConfig};
use super::{Config, logger, nats};
use crate::catalogue::PluginClass;
use crate::subject::{Key, Role};

/// The keys at the top of a configuration.
pub(super) const TOP: [&str; 11] =
    ["plugins", "audits", "run", "rules", "schedule", "timezone", "catch_up", "overlap", "logger", "email", "nats"];
/// What the tutorial calls `email`.
const MISNAMED_EMAIL: &str = "emailalert";
/// Parameters of an e-mail alert that mean nothing for the mails about runs.
const OF_FINDINGS: [&str; 5] = ["always", "min_severity", "rules", "accounts", "only_new"];

/// Checks a configuration against the classes that there are.
///
/// `selection` are the audits that the command line names, if it names any: they run instead of those under `run`.
/// There is a configuration if there is no error; warnings are told in either case.
///
/// A class that is known, but not served by this version, is a warning: [`find_class`] finds out which class of the
/// catalogue a plugin has.
#[must_use]
pub fn validate(
    loaded: &Loaded,
    classes: &[&PluginClass],
    selection: Option<&[String]>,
) -> (Option<Config>, Vec<Problem>) {
    let mut checker = Checker::new(loaded);
    if !loaded.complete {
        return (None, checker.into_problems());
    }
    let config = config(&mut checker, loaded, classes, selection);
    let problems = checker.into_problems();
    let config = config.filter(|_| !problems.iter().any(Problem::is_error));
    (config, problems)
}

/// The section `nats` alone: all that a service other than the coordinator reads of a configuration.
///
/// # Errors
/// What keeps the files from being read, and what is wrong in the section.
pub fn nats_section(loaded: &Loaded) -> Result<Option<super::NatsConfig>, Vec<Problem>> {
    let mut checker = Checker::new(loaded);
    let place = Place::root().key("nats");
    let section = match loaded.value.get("nats") {
        Some(section) if loaded.complete && !section.is_null() => section,
        _ if loaded.complete => return Ok(None),
        _ => return Err(checker.into_problems()),
    };
    checker.references(&place, section);
    let nats = nats::read(section).map_err(|errors| checker.param_errors(&place, errors)).ok();
    let problems: Vec<Problem> = checker.into_problems().into_iter().filter(|it| it.path.starts_with("nats")).collect();
    if problems.iter().any(Problem::is_error) { Err(problems) } else { Ok(nats) }
}

/// The section `rules` alone: its classes are needed before the rest can be checked.
///
/// # Errors
/// What keeps the files from being read, and what is wrong in the section.
pub fn rules_section(loaded: &Loaded) -> Result<Vec<PathBuf>, Vec<Problem>> {
    let mut checker = Checker::new(loaded);
    if !loaded.complete {
        return Err(checker.into_problems());
    }
    let paths = rules(&mut checker, loaded.value.get("rules").unwrap_or(&Value::Null));
    let problems: Vec<Problem> =
        checker.into_problems().into_iter().filter(|it| it.path.starts_with("rules") && it.is_error()).collect();
    if problems.is_empty() { Ok(paths) } else { Err(problems) }
}

/// Files and folders of users' own rules.
fn rules(checker: &mut Checker<'_>, section: &Value) -> Vec<PathBuf> {
    match section {
        Value::Null => Vec::new(),
        section => {
            let names = checker.names(&Place::root().key("rules"), section, "a list of rule files and folders");
            names.into_iter().map(|(_, name)| PathBuf::from(name)).collect()
        }
    }
}

fn config(
    checker: &mut Checker<'_>,
    loaded: &Loaded,
    classes: &[&PluginClass],
    selection: Option<&[String]>,
) -> Option<Config> {
    let top = loaded.value.as_object()?;
    let place = |key: &str| Place::root().key(key);
    let section = |key: &str| top.get(key).unwrap_or(&Value::Null);

    let mut known = TOP.to_vec();
    if top.contains_key(MISNAMED_EMAIL) {
        known.push(MISNAMED_EMAIL);
    }
    for key in top.keys().filter(|key| !known.contains(&key.as_str())) {
        checker.error(&place(key), super::suggest::unknown("key", key, &TOP));
    }

    let plugins = plugins::read(checker, &place("plugins"), section("plugins"), classes);
    let schedule = schedule::read(checker, &Place::root(), top, &ScheduleConfig::default());
    let audits = audits::read(checker, &place("audits"), section("audits"), &plugins, &schedule);
    let run = audits::selected(checker, &place("run"), section("run"), selection, &audits);
    let rules = rules(checker, section("rules"));
    let logger = logger::read(checker, &place("logger"), section("logger"));
    let email = email(checker, top, classes);
    let nats = match section("nats") {
        Value::Null => None,
        section => {
            checker.references(&place("nats"), section);
            nats::read(section).map_err(|errors| checker.param_errors(&place("nats"), errors)).ok()
        }
    };

    let used = used_plugins(checker, &audits, &run);
    unserved(checker, &plugins, &used);
    let plugins = plugins.into_values().filter_map(|plugin| plugin.config).collect();
    Some(Config { plugins, audits, run, rules, schedule, logger, email, nats })
}

/// The plugins of the audits that run.
fn used_plugins(
    checker: &mut Checker<'_>,
    audits: &BTreeMap<Key, super::AuditConfig>,
    run: &[Key],
) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (key, audit) in run.iter().filter_map(|key| audits.get_key_value(key)) {
        for role in [Role::Cloud, Role::Store, Role::Event, Role::Alert] {
            used.extend(audit.of_role(role).iter().map(|key| key.as_str().to_owned()));
        }
        let place = Place::root().key("audits").key(key.as_str());
        if audit.clouds.is_empty() && !checker.has_problem_at(&place) {
            checker.warn(&place, "this audit has no clouds; it reads nothing".to_owned());
        }
    }
    used
}

/// Warns of plugins that this version knows, but does not serve, if anybody would miss them.
fn unserved(checker: &mut Checker<'_>, plugins: &Plugins<'_>, used: &BTreeSet<String>) {
    for (key, plugin) in plugins {
        let Some(class) = plugin.class.filter(|class| class.check.is_none()) else { continue };
        let place = plugin.place.key("plugin");
        if used.contains(key) || !checker.is_of_base(&place) {
            let message = format!(
                "the class `{}` is known, but this version does not serve it; no audit can run with it",
                class.name
            );
            checker.warn(&place, message);
        }
    }
}

/// The notification mails: the parameters of an e-mail alert.
fn email(checker: &mut Checker<'_>, top: &Map<String, Value>, classes: &[&PluginClass]) -> Option<Value> {
    let of = |key: &str| top.get(key).filter(|value| !value.is_null()).map(|value| (Place::root().key(key), value));
    let (place, value) = match (of("email"), of(MISNAMED_EMAIL)) {
        (Some(_), Some((place, _))) => {
            checker.error(&place, format!("found both `email` and `{MISNAMED_EMAIL}`; keep `email`"));
            return None;
        }
        (Some(email), None) => email,
        (None, Some((place, value))) => {
            checker.warn(&place, format!("found `{MISNAMED_EMAIL}`; read as `email`, write it so"));
            (place, value)
        }
        (None, None) => return None,
    };
    checker.mapping(&place, value, "a mapping with from_addr, to_addrs, subject and the mail server")?;
    checker.references(&place, value);
    for name in OF_FINDINGS.into_iter().filter(|name| value.get(name).is_some()) {
        let text =
            format!("`{name}` chooses findings: it belongs to an e-mail alert; the mails about runs tell of none");
        checker.error(&place.key(name), text);
    }
    if let Some(check) = find_class("EmailAlert", classes).and_then(|class| class.check)
        && let Err(errors) = check(value)
    {
        checker.param_errors(&place, errors);
    }
    Some(value.clone())
}
