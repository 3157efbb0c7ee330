//! Every built-in rule against the tests in its file, and what every rule has.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

use std::sync::Arc;

use evaluator::condition::Wanted;
use evaluator::event::Maker;
use evaluator::record::Record;
use evaluator::rules::{AuditRule, Rules, time_of};
use proto::subject::{Key, Version};
use serde_json::Value;

use evaluator::rule::{Instance, Outcome, Pack, Rule, RuleText, built_in, run_tests, untested};

/// The files are compiled one by one here, so that a broken one is told with its place.
#[test]
fn every_rule_file_compiles_and_passes_its_own_tests() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let texts = evaluator::rule::read_files(&[root]).unwrap();
    let mut wrong = Vec::new();
    let mut tests = 0;
    for RuleText { file, text } in &texts {
        match Rule::parse(file, text) {
            Err(error) => wrong.push(error.to_string()),
            Ok(rule) => {
                let (count, failures) = run_tests(&Arc::new(rule));
                tests += count;
                wrong.extend(failures.iter().map(ToString::to_string));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tests > 30, "only {tests} tests");
    assert_eq!(texts.len(), built_in().rules().len(), "each file is one built-in rule");
    Pack::default().with(&texts).unwrap();
}

/// The names are known before a rule is compiled: they are what the file says.
#[test]
fn the_names_of_built_in_rules_are_those_of_their_files() {
    let of_rules = built_in().rules().map(|rule| (rule.id.as_str(), rule.class.as_deref()));
    assert!(built_in().names().eq(of_rules));
}

#[test]
fn every_rule_shows_a_pass_a_fail_and_an_unknown_and_says_what_to_do() {
    let mut wrong = Vec::new();
    for rule in built_in().rules() {
        for missing in untested(rule) {
            wrong.push(format!("{}: no test expects {missing}", rule.file));
        }
        if rule.title.len() < 15 || rule.title.ends_with('.') {
            wrong.push(format!("{}: the title says in a few words, without a full stop, what ought to be", rule.file));
        }
        if rule.remediation.len() < 20 || !rule.remediation.ends_with('.') {
            wrong.push(format!("{}: the remediation says in whole sentences how to mend it", rule.file));
        }
        for param in &rule.params {
            if param.about.is_empty() {
                wrong.push(format!("{}: say what the parameter `{}` is for", rule.file, param.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The guide's first rule is a rule, and its tests pass.
#[test]
fn the_rule_of_the_guide_works() {
    let guide = include_str!("../rules/README.md");
    let text = guide.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let rule = Rule::parse("README.md", text).unwrap_or_else(|error| panic!("{error}"));
    let (count, failures) = run_tests(&Arc::new(rule));
    assert_eq!((count, failures), (3, vec![]));
}

/// The guide names every function, and none that there is not.
#[test]
fn the_guide_names_every_function() {
    let guide = include_str!("../rules/README.md");
    let missing: Vec<&str> = evaluator::condition::functions()
        .iter()
        .map(|function| function.name)
        .filter(|name| !guide.contains(name.rsplit('.').next().unwrap()))
        .collect();
    assert_eq!(missing, [] as [&str; 0], "not in the guide");
}

/// Rules are chosen by record type before any condition runs: what they say is what each would say by itself.
#[test]
fn the_index_leaves_no_rule_out() {
    let version = Version::new("20260101_000000").unwrap();
    let now = time_of(&version);
    let instances: Vec<Instance> = built_in().rules().map(|rule| Instance::new(rule, &Value::Null).unwrap()).collect();
    let audit_rule = |instance: &Instance| {
        let key = Key::new(&instance.rule.id).unwrap();
        let maker = Maker::new(&Key::new("audit").unwrap(), &version, &key, &instance.rule.id);
        AuditRule { key, instance: instance.clone(), maker }
    };
    let rules = Rules::new(instances.iter().map(audit_rule).collect(), now);
    let odd = [r#"{"com":[]}"#, r#"{"ext":{"x":1e999},"com":{"cloud_type":"azure"}}"#, "{}", r#"{"com":null,"ext":3}"#];
    let samples = built_in().rules().map(|rule| rule.sample().to_string());
    let (mut said, mut applied) = (0, 0);
    for text in samples.chain(odd.map(str::to_owned)) {
        let record = rules.read(text.as_bytes()).unwrap();
        let mut of_index = vec![Outcome::NotApplicable; instances.len()];
        rules.judge(&record, |number, judgement| of_index[number] = judgement.outcome);
        for (instance, of_index) in instances.iter().zip(of_index) {
            let alone = Record::parse(text.as_bytes(), &Wanted::All).unwrap();
            let alone = instance.judge(&alone, now).outcome;
            assert_eq!(of_index, alone, "{} of {text}", instance.rule.id);
            said += 1;
            applied += u64::from(alone != Outcome::NotApplicable);
        }
    }
    assert!(applied > 10 && said > 3 * applied, "{applied} of {said}");
}

#[test]
fn a_rule_of_a_user_replaces_a_built_in_one_by_its_id() {
    let text = |file: &str, id: &str, class: &str| RuleText {
        file: file.to_owned(),
        text: format!(
            "id: {id}\ntitle: Mine\nseverity: low\nremediation: Mend it.\napplies_to: {{ext.record_type: sql_db}}\n{class}\
             event_type: mine_event\nfail_if: 'true'\ndescription: It is so.\nrecommendation: Mend it.\n"
        ),
    };
    const CLASS: &str = "cloudmarker.events.azsqldatabasetdeevent.AzSQLDatabaseTDEEvent";
    let pack = built_in().with(&[text("a.yaml", "azure_sql_database_tde", "")]).unwrap();
    assert_eq!(pack.rules().len(), built_in().rules().len());
    for name in [CLASS, "AzSQLDatabaseTDEEvent", "azure_sql_database_tde", "elsewhere.AzSQLDatabaseTDEEvent"] {
        assert_eq!(pack.get(name).map(|rule| rule.title.as_str()), Some("Mine"), "{name}");
        assert_ne!(built_in().get(name).unwrap().title, "Mine");
    }
    let errors = built_in().with(&[text("b.yaml", "mine", &format!("class: {CLASS}\n"))]).unwrap_err();
    assert!(errors[0].message.contains("give this one the id `azure_sql_database_tde`"), "{errors:?}");
    let twice = [text("a.yaml", "mine", ""), text("b.yaml", "mine", "")];
    assert!(built_in().with(&twice).unwrap_err()[0].message.starts_with("a.yaml has a rule `mine`, too"));
    let classes = evaluator::registry::classes_of(&pack);
    assert!(classes.iter().any(|class| class.name == CLASS && class.check.is_some()), "{classes:?}");
}

/// An event says who and what it is about in the same order as the Python tool does, and then what is ours.
#[test]
fn the_fields_of_an_event_stand_in_their_order() {
    let rule = built_in().get("FirewallRuleEvent").unwrap();
    let instance = Instance::new(rule, &Value::Null).unwrap();
    let text = rule.sample().to_string();
    let record = Record::parse(text.as_bytes(), rule.raw_wanted()).unwrap();
    let version = Version::new("20260101_000000").unwrap();
    let judgement = instance.judge(&record, time_of(&version));
    let key = Key::new("k").unwrap();
    let message = Maker::new(&key, &version, &key, "a.B").message(&record, &judgement.events[0]).unwrap();
    let text = String::from_utf8(message.payload.to_vec()).unwrap();
    let com = &text[text.find("\"com\":").unwrap()..];
    let fields = [
        "cloud_type",
        "record_type",
        "exposed_ports",
        "reference",
        "description",
        "recommendation",
        "id",
        "finding_id",
        "severity",
        "title",
        "rule",
        "rule_version",
        "controls",
        "resource",
        "source",
        "evidence",
        "audit_key",
        "audit_version",
        "origin_key",
        "origin_class",
        "origin_worker",
        "origin_type",
    ];
    let places: Vec<usize> = fields.iter().map(|field| com.find(&format!("\"{field}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{com}");
}

/// The base configuration has a key for each class of the Python tool, and each is served.
#[test]
fn the_base_configuration_names_every_class() {
    let base: serde_json::Value = serde_yaml::from_str(proto::config::BASE).unwrap();
    let plugins = base["plugins"].as_object().unwrap().values();
    let mut named: Vec<&str> = plugins.filter_map(|plugin| plugin["plugin"].as_str()).collect();
    named.retain(|class| class.starts_with("cloudmarker.events."));
    named.sort_unstable();
    let mut classes: Vec<&str> = built_in().rules().filter_map(|rule| rule.class.as_deref()).collect();
    classes.sort_unstable();
    assert_eq!((named.len(), named), (27, classes));
}
