//! Every built-in rule against the tests in its file, and what every rule has.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

use evaluator::rule::{Pack, Rule, RuleText, built_in, run_tests, untested};

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
                let (count, failures) = run_tests(&std::sync::Arc::new(rule));
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
    let (count, failures) = run_tests(&std::sync::Arc::new(rule));
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
