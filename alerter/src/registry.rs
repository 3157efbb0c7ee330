//! The alerts that there are. A new one is a module and a line here.

use std::sync::LazyLock;

use proto::bus::SharedBus;
use proto::catalogue::{PluginClass, in_one_line};
use proto::exclusive::Exclusive;
use proto::plan::{Plan, PluginSpec};
use serde_json::Value;

use crate::alert::Alert;
use crate::alerts::{email, slack, webhook};
use crate::gather::Gather;
use crate::settings::{self, Settings};

/// Builds an alert of its own parameters, expanded. The error is for people.
type Build = fn(&Value) -> Result<Box<dyn Alert>, String>;

/// The classes: a line for each.
const SERVED: &[(PluginClass, Build)] =
    &[(email::CLASS, email::build), (slack::CLASS, slack::build), (webhook::CLASS, webhook::build)];

/// The classes with the checks of what all alerts have before their own.
static CLASSES: LazyLock<Vec<PluginClass>> = LazyLock::new(|| SERVED.iter().map(complete).collect());

fn complete((class, _): &(PluginClass, Build)) -> PluginClass {
    match class.check {
        Some(check) => PluginClass { check: Some(Box::leak(Box::new(settings::check_with(check)))), ..*class },
        None => *class,
    }
}

/// All classes.
pub fn classes() -> impl Iterator<Item = &'static PluginClass> {
    CLASSES.iter()
}

/// The classes that this program serves.
pub fn served() -> impl Iterator<Item = &'static PluginClass> {
    classes()
}

/// Builds an alert of its class and all its parameters, expanded.
///
/// # Errors
/// Why it cannot be built, for people.
pub fn build_alert(class: &str, params: &Value) -> Result<(Settings, Box<dyn Alert>), String> {
    let short = class.rsplit('.').next().unwrap_or(class);
    let found = SERVED.iter().find(|(known, _)| known.short_name() == short);
    let (_, build) = found.ok_or_else(|| format!("this alerter does not serve the class {class}"))?;
    let settings = Settings::read(params).map_err(|errors| in_one_line(&errors))?;
    Ok((settings, build(&settings::split(params).1)?))
}

/// Builds what takes an audit's version and tells of it.
///
/// # Errors
/// Why it cannot be built, for people.
pub fn build(bus: &SharedBus, plan: &Plan, spec: &PluginSpec, params: &Value) -> Result<Box<dyn Exclusive>, String> {
    let (settings, alert) = build_alert(&spec.class, params)?;
    Ok(Box::new(Gather::new(bus, plan, spec, settings, alert)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_documentation_are_right() {
        let text = include_str!("../README.md");
        let examples = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let mut seen = Vec::new();
        for example in examples {
            let example: Value = serde_yaml::from_str(example).unwrap();
            for (key, plugin) in example["plugins"].as_object().unwrap() {
                let class = plugin["plugin"].as_str().unwrap();
                let short = class.rsplit('.').next().unwrap();
                let known = classes().find(|known| known.short_name() == short).unwrap();
                let check = known.check.unwrap();
                check(&plugin["params"]).unwrap_or_else(|errors| panic!("{key}: {errors:?}"));
                seen.push(short.to_owned());
            }
        }
        assert!(classes().all(|class| seen.iter().any(|seen| seen == class.short_name())), "{seen:?}");
    }
}
