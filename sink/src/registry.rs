//! The stores that there are. A new one is a module and a line here.

use std::sync::{Arc, LazyLock};

use proto::bus::SharedBus;
use proto::catalogue::PluginClass;
use proto::exclusive::Exclusive;
use proto::plan::{Plan, PluginSpec};
use serde_json::Value;

use crate::settings;
use crate::store::Store;
use crate::stores::{elasticsearch, file, mongodb, splunk, sqlite};

/// What a store is made of.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// For dead letters.
    pub bus: &'a SharedBus,
    /// The audit's version.
    pub plan: &'a Plan,
    /// The plugin.
    pub spec: &'a PluginSpec,
    /// Its parameters, expanded. Those that all shared stores have ([`settings::Settings`]) are not among them.
    pub params: &'a Value,
}

/// Builds a store. The error is for people.
#[derive(Clone, Copy)]
enum Build {
    /// One that is served by one worker: its class has `exclusive: true`.
    Exclusive(fn(Context<'_>) -> Result<Box<dyn Exclusive>, String>),
    /// One that any number of workers write to: its class has `exclusive: false`.
    Shared(fn(Context<'_>) -> Result<Arc<dyn Store>, String>),
}

/// The classes that are served: a line for each.
const SERVED: &[(PluginClass, Build)] = &[
    (elasticsearch::CLASS, Build::Shared(elasticsearch::build)),
    (file::CLASS, Build::Exclusive(file::build)),
    (mongodb::CLASS, Build::Shared(mongodb::build)),
    (splunk::CLASS, Build::Shared(splunk::build)),
    (sqlite::CLASS, Build::Shared(sqlite::build)),
];

/// The served classes with the checks of what all shared stores have before their own.
static CLASSES: LazyLock<Vec<PluginClass>> = LazyLock::new(|| SERVED.iter().map(complete).collect());

fn complete((class, build): &(PluginClass, Build)) -> PluginClass {
    match (build, class.check) {
        (Build::Shared(_), Some(check)) => {
            PluginClass { check: Some(Box::leak(Box::new(settings::check_with(check)))), ..*class }
        }
        _ => *class,
    }
}

/// All classes.
pub fn classes() -> impl Iterator<Item = &'static PluginClass> {
    CLASSES.iter()
}

/// The classes that this program serves.
pub fn served() -> impl Iterator<Item = &'static PluginClass> {
    CLASSES.iter()
}

fn find(spec: &PluginSpec) -> Result<Build, String> {
    let short = spec.short_class();
    let found = SERVED.iter().find(|(class, _)| class.short_name() == short);
    found.map(|(_, build)| *build).ok_or_else(|| format!("this sink does not serve the class {}", spec.class))
}

/// Builds a store that is served by one worker.
///
/// # Errors
/// Why it cannot be built, for people.
pub fn build(context: Context<'_>) -> Result<Box<dyn Exclusive>, String> {
    match find(context.spec)? {
        Build::Exclusive(build) => build(context),
        Build::Shared(_) => Err(format!("the class {} is not one that one worker serves", context.spec.class)),
    }
}

/// Builds a store that several workers write to. `params` are its expanded parameters, with those that all shared
/// stores have.
///
/// # Errors
/// Why it cannot be built, for people.
pub fn build_shared(context: Context<'_>) -> Result<Arc<dyn Store>, String> {
    match find(context.spec)? {
        Build::Shared(build) => {
            let (_, own) = settings::split(context.params);
            build(Context { params: &own, ..context })
        }
        Build::Exclusive(_) => Err(format!("the class {} is one that one worker serves", context.spec.class)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    const README: &str = include_str!("../README.md");

    /// What the documentation says under a heading.
    fn section(heading: &str) -> &'static str {
        let (_, section) = README.split_once(&format!("\n## {heading}\n")).unwrap();
        section.split("\n## ").next().unwrap()
    }

    /// The parameters in a section's table.
    fn told(section: &str) -> BTreeSet<String> {
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let names = rows.filter_map(|row| row.split(" | ").next());
        names.flat_map(|cell| cell.split(',')).map(|name| name.trim_matches([' ', '`']).to_owned()).collect()
    }

    /// The parameters that a check lists when it is given one that it does not know.
    fn allowed(check: impl Fn(&Value) -> Result<(), Vec<proto::catalogue::ParamError>>) -> BTreeSet<String> {
        let errors = check(&json!({"no such parameter": 1})).unwrap_err();
        let list = errors.iter().find_map(|error| error.message.split_once("(allowed: ")).unwrap().1;
        list.trim_end_matches(')').split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn every_parameter_is_documented() {
        for class in classes() {
            let name = class.short_name();
            assert_eq!(told(section(name)), allowed(class.check.unwrap()), "{name}");
        }
        let of_all: BTreeSet<String> = settings::NAMES.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(told(section("What all stores but FileStore have")), of_all);
    }

    #[test]
    fn the_examples_of_the_documentation_are_right() {
        let mut seen = BTreeSet::new();
        for example in README.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let example: Value = serde_yaml::from_str(example).unwrap();
            for (key, plugin) in example["plugins"].as_object().unwrap() {
                let short = plugin["plugin"].as_str().unwrap().rsplit('.').next().unwrap();
                let known = classes().find(|known| known.short_name() == short).unwrap();
                (known.check.unwrap())(&plugin["params"]).unwrap_or_else(|errors| panic!("{key}: {errors:?}"));
                seen.insert(short.to_owned());
            }
        }
        assert!(classes().all(|class| seen.contains(class.short_name())), "{seen:?}");
    }
}
