//! Runs the tests that stand in rule files.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use proto::subject::{Key, Version};
use serde::Serialize;
use serde_json::Value;

use super::check::Rule;
use super::file::{Expect, TestFile};
use super::judge::Instance;
use super::outcome::{Judgement, Outcome};
use crate::event::Maker;
use crate::record::Record;

/// The time of the run in tests that set none.
const NOW: &str = "2026-01-01T00:00:00Z";

/// A test that a rule does not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestFailure {
    /// The file.
    pub file: String,
    /// The rule.
    pub rule: String,
    /// The test's name.
    pub test: String,
    /// What came out, and what should have.
    pub message: String,
}

impl fmt::Display for TestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: test \"{}\": {}", self.file, self.rule, self.test, self.message)
    }
}

/// Runs a rule's tests. There are as many of them as the number says; the failures are those that it does not pass.
#[must_use]
pub fn run_tests(rule: &Arc<Rule>) -> (usize, Vec<TestFailure>) {
    let failure = |test: &str, message: String| TestFailure {
        file: rule.file.clone(),
        rule: rule.id.clone(),
        test: test.to_owned(),
        message,
    };
    let run = |test: &TestFile| run_test(rule, test).err().map(|message| failure(&test.name, message));
    (rule.tests.len(), rule.tests.iter().filter_map(run).collect())
}

/// What a rule's tests do not show, of what every rule's tests should: a record that passes, one that fails and one
/// of which it cannot be said.
#[must_use]
pub fn untested(rule: &Rule) -> Vec<&'static str> {
    let expected = [(Expect::Pass, "pass"), (Expect::Fail, "fail"), (Expect::Unknown, "unknown")];
    let is_tested = |expect| rule.tests.iter().any(|test| test.expect == expect);
    expected.into_iter().filter(|(expect, _)| !is_tested(*expect)).map(|(_, name)| name).collect()
}

fn run_test(rule: &Arc<Rule>, test: &TestFile) -> Result<(), String> {
    let mut record = test.record.clone().unwrap_or_else(|| rule.sample.clone());
    if record.is_null() {
        return Err("there is no record: give the rule a `sample`, or the test a `record`".to_owned());
    }
    for (path, value) in &test.set.0 {
        set(&mut record, path, value.clone())?;
    }
    for path in &test.unset {
        unset(&mut record, path)?;
    }
    let now = test.now.as_deref().unwrap_or(NOW);
    let now: Timestamp = now.parse().map_err(|_| format!("`now` is `{now}`; write it as {NOW}"))?;
    let instance = Instance::new(rule, &test.params).map_err(|errors| proto::catalogue::in_one_line(&errors))?;
    let text = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
    let record =
        Record::parse(&text, rule.raw_wanted()).map_err(|error| format!("the record cannot be read: {error}"))?;
    let judgement = instance.judge(&record, now);
    compare(test, &judgement)?;
    let Some(expected) = &test.events else { return Ok(()) };
    let events = events(&record, &judgement)?;
    if events.len() != expected.len() {
        return Err(format!("{} events came out, {} are expected", events.len(), expected.len()));
    }
    for (number, (event, expected)) in events.iter().zip(expected).enumerate() {
        for (path, wanted) in &expected.0 {
            // Null stands for what is missing, too.
            let found = get(event, path).unwrap_or(&Value::Null);
            if found != wanted {
                return Err(format!("event {}: {path} is {found}; {wanted} is expected", number + 1));
            }
        }
    }
    Ok(())
}

fn compare(test: &TestFile, judgement: &Judgement) -> Result<(), String> {
    let (outcome, found) = match &judgement.outcome {
        Outcome::NotApplicable => ("not_applicable".to_owned(), Expect::NotApplicable),
        Outcome::Pass => ("pass".to_owned(), Expect::Pass),
        Outcome::Fail => ("fail".to_owned(), Expect::Fail),
        Outcome::Unknown(reason) => (format!("unknown ({reason})"), Expect::Unknown),
    };
    if found != test.expect {
        return Err(format!("it is {outcome}; {} is expected", name_of(test.expect)));
    }
    match &test.because {
        Some(because) if !judgement.unknown().is_some_and(|reason| reason.contains(because.as_str())) => {
            let reason = judgement.unknown().unwrap_or("nothing is unknown");
            Err(format!("the reason is `{reason}`; `{because}` is expected in it"))
        }
        _ => Ok(()),
    }
}

fn name_of(expect: Expect) -> &'static str {
    match expect {
        Expect::Pass => "pass",
        Expect::Fail => "fail",
        Expect::Unknown => "unknown",
        Expect::NotApplicable => "not_applicable",
    }
}

/// The events as they would be published.
fn events(record: &Record<'_>, judgement: &Judgement) -> Result<Vec<Value>, String> {
    let key = |name: &str| Key::new(name).map_err(|error| error.to_string());
    let version = Version::new("20260101_000000").map_err(|error| error.to_string())?;
    let maker = Maker::new(&key("test")?, &version, &key("test")?, "test.Test");
    let event = |draft| {
        let message = maker.message(record, draft).map_err(|error| error.to_string())?;
        serde_json::from_slice(&message.payload).map_err(|error| error.to_string())
    };
    judgement.events.iter().map(event).collect()
}

/// The steps of a path: `ext.data_disks[0].name`.
fn steps(path: &str) -> Vec<&str> {
    path.split(['.', '[']).map(|step| step.trim_end_matches(']')).collect()
}

fn get<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    steps(path).into_iter().try_fold(value, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

fn set(value: &mut Value, path: &str, new: Value) -> Result<(), String> {
    let mut place = value;
    for step in steps(path) {
        if place.is_null() {
            *place = Value::Object(serde_json::Map::new());
        }
        place = match place {
            Value::Object(fields) => fields.entry(step).or_insert(Value::Null),
            Value::Array(items) => {
                let item = step.parse::<usize>().ok().and_then(|number| items.get_mut(number));
                item.ok_or_else(|| format!("set: there is no {path}"))?
            }
            _ => return Err(format!("set: there is no {path}")),
        };
    }
    *place = new;
    Ok(())
}

fn unset(value: &mut Value, path: &str) -> Result<(), String> {
    let absent = || format!("unset: there is no {path}");
    let steps = steps(path);
    let Some((last, before)) = steps.split_last() else { return Err(absent()) };
    let mut place = value;
    for step in before {
        place = match place {
            Value::Array(items) => step.parse::<usize>().ok().and_then(|number| items.get_mut(number)),
            other => other.get_mut(*step),
        }
        .ok_or_else(absent)?;
    }
    let removed = place.as_object_mut().and_then(|fields| fields.remove(*last));
    removed.map(drop).ok_or_else(absent)
}
