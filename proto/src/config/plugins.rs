//! The section `plugins`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::checker::Checker;
use super::class::{find_class, is_misnamed, unknown_class};
use super::params::{self, describe};
use super::place::Place;
use super::suggest;
use crate::catalogue::PluginClass;
use crate::subject::{Key, Role};

const KEYS: [&str; 3] = ["plugin", "params", "pool"];
const EXPECTED: &str = "a mapping with `plugin` and, if need be, `params`";

/// A plugin: what a key under `plugins` stands for.
#[derive(Clone, PartialEq)]
pub struct PluginConfig {
    /// The class's full name in the catalogue, however the configuration wrote it.
    pub class: String,
    /// The parameters: a mapping, with its references not expanded.
    pub params: Value,
    /// The pool of its units, if the configuration names one.
    pub pool: Option<Key>,
}

impl fmt::Debug for PluginConfig {
    /// Parameters are named only: there are secrets among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.params.as_object().map(|params| params.keys().collect()).unwrap_or_default();
        f.debug_struct("PluginConfig")
            .field("class", &self.class)
            .field("params", &names)
            .field("pool", &self.pool)
            .finish()
    }
}

/// A plugin as far as it could be read; audits that use it are checked even if it could not.
pub(super) struct Checked<'a> {
    pub(super) place: Place,
    pub(super) class: Option<&'a PluginClass>,
    pub(super) config: Option<(Key, PluginConfig)>,
}

pub(super) fn read<'a>(
    checker: &mut Checker<'_>,
    place: &Place,
    section: &Value,
    classes: &[&'a PluginClass],
) -> BTreeMap<String, Checked<'a>> {
    let Some(entries) = checker.mapping(place, section, "a mapping of plugin keys to plugins") else {
        return BTreeMap::new();
    };
    let usable = |value: &Value| value.get("plugin").is_some();
    let others: Vec<&str> = entries.iter().filter(|(_, value)| usable(value)).map(|(key, _)| key.as_str()).collect();
    entries.iter().map(|(key, value)| (key.clone(), plugin(checker, place, (key, value), &others, classes))).collect()
}

fn plugin<'a>(
    checker: &mut Checker<'_>,
    place: &Place,
    (name, value): (&str, &Value),
    others: &[&str],
    classes: &[&'a PluginClass],
) -> Checked<'a> {
    let place = place.key(name);
    let key = checked_key(checker, &place, name);
    let mut checked = Checked { place: place.clone(), class: None, config: None };
    let Some(entries) = checker.mapping(&place, value, EXPECTED) else { return checked };
    let Some(class) = class_of(checker, &place, name, entries, others, classes) else {
        // Without the class nobody knows what else may stand here.
        for key in entries.keys() {
            if !KEYS.contains(&key.as_str()) && suggest::nearest(key, KEYS).is_some() {
                checker.error(&place.key(key), suggest::unknown("key", key, &KEYS));
            }
        }
        return checked;
    };
    checked.class = Some(class);
    let params = params(checker, &place, entries, class);
    let pool = pool(checker, &place, entries, class);
    if let (Some(key), Some(params)) = (key, params) {
        let params = Value::Object(params);
        checked.config = Some((key, PluginConfig { class: class.name.to_owned(), params, pool }));
    }
    checked
}

/// The key of a name, or an error.
pub(super) fn checked_key(checker: &mut Checker<'_>, place: &Place, name: &str) -> Option<Key> {
    Key::new(name).map_err(|error| checker.error(place, error.to_string())).ok()
}

fn class_of<'a>(
    checker: &mut Checker<'_>,
    place: &Place,
    name: &str,
    entries: &Map<String, Value>,
    others: &[&str],
    classes: &[&'a PluginClass],
) -> Option<&'a PluginClass> {
    let class_place = place.key("plugin");
    let written = match entries.get("plugin") {
        Some(Value::String(written)) => written,
        Some(other) if !other.is_null() => {
            checker.error(&class_place, format!("found {}; the name of a plugin class is expected", describe(other)));
            return None;
        }
        _ => {
            let hint = suggest::nearest(name, others.iter().copied().filter(|other| *other != name));
            let hint = hint.map(|near| format!(", or did you mean the plugin `{near}`?")).unwrap_or_default();
            checker.error(place, format!("no class is named; set `plugin` to a plugin class{hint}"));
            return None;
        }
    };
    let Some(class) = find_class(written, classes) else {
        checker.error(&class_place, unknown_class(written, classes));
        return None;
    };
    if is_misnamed(written, class) {
        checker.warn(&class_place, format!("found the class `{written}`; read as `{}`, write it so", class.name));
    }
    Some(class)
}

/// The parameters, checked, if they are a mapping.
fn params(
    checker: &mut Checker<'_>,
    place: &Place,
    entries: &Map<String, Value>,
    class: &PluginClass,
) -> Option<Map<String, Value>> {
    let params_place = place.key("params");
    let mut params = match entries.get("params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params.clone(),
        Some(other) => {
            let message = format!("found {}; a mapping of parameters is expected (`name: value`)", describe(other));
            checker.error(&params_place, message);
            return None;
        }
    };
    let adopted = adopt(checker, place, entries, class, &mut params);
    let place_of =
        |name: &str| if adopted.iter().any(|key| key == name) { place.key(name) } else { params_place.key(name) };
    if class.short_name() == "GCPCloud" && params.remove("zone").is_some() {
        checker.warn(&place_of("zone"), "`zone` has no effect, all zones are read; leave it out".to_owned());
    }
    for (name, value) in &params {
        checker.references(&place_of(name), value);
    }
    if let Some(check) = class.check
        && let Err(errors) = check(&Value::Object(params.clone()))
    {
        for error in errors {
            let first = error.path.split(['.', '[']).next().unwrap_or_default();
            let below = if adopted.iter().any(|key| key == first) { place } else { &params_place };
            checker.param_errors(below, vec![error]);
        }
    }
    Some(params)
}

/// Takes parameters that stand beside `plugin` instead of under `params`, and returns their names.
fn adopt(
    checker: &mut Checker<'_>,
    place: &Place,
    entries: &Map<String, Value>,
    class: &PluginClass,
    params: &mut Map<String, Value>,
) -> Vec<String> {
    let beside: Vec<(&String, &Value)> = entries.iter().filter(|(key, _)| !KEYS.contains(&key.as_str())).collect();
    let unknown = match class.check {
        Some(check) => {
            let mut all = params.clone();
            all.extend(beside.iter().map(|(key, value)| ((*key).clone(), (*value).clone())));
            check(&Value::Object(all)).err().unwrap_or_default().into_iter().filter(params::is_unknown).collect()
        }
        None => Vec::new(),
    };
    let mut adopted = Vec::new();
    for (key, value) in beside {
        let place = place.key(key);
        let unknown = unknown.iter().find(|error| error.path == *key);
        let is_zone = key == "zone" && class.short_name() == "GCPCloud";
        let misspelt = suggest::nearest(key, KEYS).is_some() && (unknown.is_some() || class.check.is_none());
        if misspelt {
            checker.error(&place, suggest::unknown("key", key, &KEYS));
        } else if let Some(unknown) = unknown.filter(|_| !is_zone) {
            checker.error(&place, unknown.message.clone());
        } else if params.contains_key(key) {
            checker.error(&place, format!("`{key}` stands here and under `params`; keep the one under `params`"));
        } else {
            params.insert(key.clone(), value.clone());
            adopted.push(key.clone());
        }
    }
    if !adopted.is_empty() {
        let list = adopted.join(", ");
        let message = format!("found parameters beside `plugin`: {list}; they are read, move them under `params`");
        // The file to blame is the one that has them.
        checker.warn_of(place, &place.key(&adopted[0]), message);
    }
    adopted
}

fn pool(checker: &mut Checker<'_>, place: &Place, entries: &Map<String, Value>, class: &PluginClass) -> Option<Key> {
    let place = place.key("pool");
    let value = entries.get("pool").filter(|value| !value.is_null())?;
    if !class.roles.contains(&Role::Cloud) {
        checker.error(&place, "only clouds have a pool; leave it out".to_owned());
        return None;
    }
    match value {
        Value::String(name) if !name.is_empty() => checked_key(checker, &place, name),
        other => {
            checker.error(&place, format!("found {}; the name of a pool is expected", describe(other)));
            None
        }
    }
}
