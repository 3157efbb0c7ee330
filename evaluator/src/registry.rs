//! The classes of event plugins: each rule answers to one, and to its id.

use std::sync::{Arc, OnceLock};

use proto::catalogue::{Check, ParamError, PluginClass};
use proto::plan::Stage;
use proto::subject::Role;
use serde_json::Value;

use crate::rule::{Instance, Pack, Rule, built_in};

/// All classes of the built-in rules.
pub fn classes() -> impl Iterator<Item = &'static PluginClass> {
    static CLASSES: OnceLock<Vec<PluginClass>> = OnceLock::new();
    let classes = CLASSES.get_or_init(|| built_in().names().flat_map(|(id, class)| of_built_in(id, class)).collect());
    classes.iter()
}

/// The classes that this program serves without users' own rules.
pub fn served() -> impl Iterator<Item = &'static PluginClass> {
    classes().filter(|class| class.check.is_some())
}

/// The classes of the rules of a pack that are not built in. A program asks once, when it reads its configuration.
#[must_use]
pub fn classes_of(pack: &Pack) -> Vec<&'static PluginClass> {
    let own: Vec<PluginClass> = pack.beside(built_in()).flat_map(of_rule).collect();
    own.leak().iter().collect()
}

/// The classes of a built-in rule, which is compiled when there are parameters to check.
fn of_built_in(id: &'static str, class: Option<&'static str>) -> Vec<PluginClass> {
    let check = move |params: &Value| match params {
        // A rule's defaults are good, or it does not compile.
        Value::Null => Ok(()),
        Value::Object(fields) if fields.is_empty() => Ok(()),
        params => match built_in().instance(id, params) {
            Some(instance) => instance.map(drop),
            None => Err(vec![ParamError { path: String::new(), message: format!("the built-in rule {id} is broken") }]),
        },
    };
    under_its_names(id, class, Box::leak(Box::new(check)))
}

/// A class by the name of the Python tool, and one by the rule's id. They live as long as the program.
fn of_rule(rule: &Arc<Rule>) -> Vec<PluginClass> {
    let rule: &'static Arc<Rule> = Box::leak(Box::new(Arc::clone(rule)));
    let check = move |params: &Value| Instance::new(rule, params).map(drop);
    under_its_names(&rule.id, rule.class.as_deref(), Box::leak(Box::new(check)))
}

fn under_its_names(id: &'static str, class: Option<&'static str>, check: Check) -> Vec<PluginClass> {
    let named = |name: &'static str| PluginClass {
        name,
        roles: &[Role::Event],
        stage: Stage::Evaluator,
        exclusive: false,
        pool: None,
        check: Some(check),
    };
    class.into_iter().chain([id]).map(named).collect()
}
