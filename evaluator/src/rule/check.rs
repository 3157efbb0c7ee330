//! From a rule file to a rule that can judge records: everything that can be wrong with it is found here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use proto::config::suggest;
use serde::Serialize;
use serde_json::Value;

use super::file::{Entries, FindingFile, RuleFile, TestFile};
use super::message::{Message, Messages};
use super::outcome::{Controls, Facts};
use super::param::Param;
use super::place::{RuleError, Source};
use crate::condition::{Expression, Names, Reads, Wanted};

/// The largest rule file, in bytes.
const MAX_FILE: usize = 256 * 1024;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing that needs doing.
    Info,
    /// It makes other mistakes worse.
    Low,
    /// It should be mended.
    Medium,
    /// It should be mended soon.
    High,
    /// It should be mended now.
    Critical,
}

impl Severity {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [Self::Critical, Self::High, Self::Medium, Self::Low, Self::Info];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The severity of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == name)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule, compiled.
#[derive(Debug)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// The class of the Python tool that it answers to.
    pub class: Option<String>,
    /// What ought to be, in a few words.
    pub title: String,
    /// How bad it is if it is not so.
    pub severity: Severity,
    /// Counts changes of what it says.
    pub version: u32,
    /// What it is about, for people.
    pub about: Option<String>,
    /// How to mend what it finds.
    pub remediation: String,
    /// The controls of benchmarks that it is about.
    pub controls: Controls,
    /// The clouds whose records it looks at; `None` for all.
    pub clouds: Option<Vec<String>>,
    /// The `com.record_type`s that it looks at; `None` for all.
    pub com_types: Option<Vec<String>>,
    /// The `ext.record_type`s that it looks at; `None` for all.
    pub ext_types: Option<Vec<String>>,
    /// Its parameters.
    pub params: Vec<Param>,
    /// What it finds.
    pub findings: Vec<Finding>,
    /// The file that it stands in.
    pub file: String,
    /// The text of the file.
    pub text: String,
    pub(super) let_names: Vec<Arc<str>>,
    pub(super) lets: Vec<Expression>,
    pub(super) when: Option<Expression>,
    pub(super) names_source: bool,
    pub(super) messages: Messages,
    pub(super) raw: Wanted,
    pub(super) sample: Value,
    pub(super) tests: Vec<TestFile>,
}

/// What a rule finds.
#[derive(Debug)]
pub struct Finding {
    /// The record type of its events.
    pub event_type: Arc<str>,
    /// What all its events have in common.
    pub facts: Arc<Facts>,
    /// The condition as the file has it.
    pub fail_if_text: String,
    pub(super) for_each: Option<(Arc<str>, Expression)>,
    pub(super) fail_if: Expression,
    pub(super) unknown_if: Option<(Expression, String)>,
    pub(super) sub_key: Option<Expression>,
    pub(super) description: Message,
    pub(super) recommendation: Message,
    pub(super) ext: Vec<(Arc<str>, Expression)>,
    pub(super) com: Vec<(Arc<str>, Expression)>,
    pub(super) evidence: Vec<(Arc<str>, Expression)>,
}

impl Rule {
    /// Reads and compiles a rule file.
    ///
    /// # Errors
    /// What is wrong with it, where, and what to do.
    pub fn parse(file: &str, text: &str) -> Result<Self, RuleError> {
        let source = Source { file, text };
        if text.len() > MAX_FILE {
            return Err(RuleError::of_file(file, format!("the file is larger than {} KiB", MAX_FILE >> 10)));
        }
        let read: RuleFile = serde_yaml::from_str(text).map_err(|error| yaml_error(&source, &error))?;
        Checker { source, raw: Wanted::default() }.rule(read)
    }

    /// The last part of the class that it answers to, or its id.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.class.as_deref().map_or(&self.id, |class| class.rsplit('.').next().unwrap_or(class))
    }

    /// The record that its tests change; null if there is none.
    #[must_use]
    pub fn sample(&self) -> &Value {
        &self.sample
    }

    /// What it reads of `raw`.
    #[must_use]
    pub fn raw_wanted(&self) -> &Wanted {
        &self.raw
    }
}

/// What YAML says, with the place where it says it.
fn yaml_error(source: &Source<'_>, error: &serde_yaml::Error) -> RuleError {
    let said = error.to_string();
    let said = said.rfind(" at line ").map_or(said.as_str(), |at| &said[..at]);
    // The path to the place: `tests[0].expect: `.
    let said = said.rsplit_once(": unknown ").map_or_else(|| said.to_owned(), |(_, rest)| format!("unknown {rest}"));
    let message = match said.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected ")) {
        Some((name, allowed)) => {
            let allowed: Vec<&str> = allowed.split('`').skip(1).step_by(2).collect();
            suggest::unknown("key", name, &allowed)
        }
        None => said,
    };
    match error.location() {
        Some(location) => source.at(location.line(), location.column(), message),
        None => match message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            Some(name) => RuleError::of_file(source.file, format!("set `{name}`: every rule has one")),
            None => RuleError::of_file(source.file, message),
        },
    }
}

/// The names under `let`, and what reasons name instead of each.
type Named = Vec<(String, Arc<str>)>;

struct Checker<'t> {
    source: Source<'t>,
    raw: Wanted,
}

impl Checker<'_> {
    fn rule(mut self, file: RuleFile) -> Result<Rule, RuleError> {
        self.word("id", &file.id)?;
        let severity = self.severity(&file.severity)?;
        for (key, text) in [("title", &file.title), ("remediation", &file.remediation)] {
            if text.trim().is_empty() {
                return Err(self.source.key(key, format!("`{key}` is empty")));
            }
        }
        if let Some(class) = &file.class
            && (class.split('.').any(str::is_empty) || class.contains(char::is_whitespace))
        {
            return Err(self.source.within(
                "class",
                class,
                0,
                "this is no name of a class: `package.module.Class`".into(),
            ));
        }
        let applies = &file.applies_to;
        if applies.com.is_none() && applies.ext.is_none() && file.when.is_none() && applies.cloud.is_some() {
            let message = "name the records: set `ext.record_type` or `com.record_type`".to_owned();
            return Err(self.source.key("applies_to", message));
        }
        let params = self.params(file.params)?;
        let param_names: Vec<String> = params.iter().map(|param| param.name.clone()).collect();
        let (let_names, lets) = self.lets(file.lets, &param_names)?;
        let names = Names { params: &param_names, lets: &let_names, item: None };
        let when = file.when.as_deref().map(|text| self.expression("when", text, &names)).transpose()?;
        let facts = Facts {
            severity,
            title: file.title.trim().to_owned(),
            rule: file.id.clone(),
            rule_version: file.version,
            controls: file.controls.clone(),
        };
        let top = FindingFile {
            event_type: file.event_type,
            for_each: file.for_each,
            fail_if: file.fail_if,
            unknown_if: file.unknown_if,
            unknown_because: file.unknown_because,
            sub_key: file.sub_key,
            description: file.description,
            recommendation: file.recommendation,
            ext: file.ext,
            com: file.com,
            evidence: file.evidence,
            ..FindingFile::default()
        };
        let stated = match file.findings {
            None => vec![top],
            Some(findings) => {
                if top.event_type.is_some() || top.fail_if.is_some() || top.description.is_some() {
                    let message =
                        "a rule has either `findings` or one finding at its top; move the other there".to_owned();
                    return Err(self.source.key("findings", message));
                }
                findings
            }
        };
        if stated.is_empty() {
            return Err(self.source.key("findings", "there are none; a rule finds something".to_owned()));
        }
        let mut messages = Messages::new();
        let mut findings = Vec::with_capacity(stated.len());
        for finding in stated {
            findings.push(self.finding(finding, &facts, &names, &mut messages)?);
        }
        Ok(Rule {
            id: file.id,
            class: file.class,
            title: facts.title,
            severity,
            version: file.version,
            about: file.about,
            remediation: file.remediation.trim().to_owned(),
            controls: file.controls,
            clouds: file.applies_to.cloud.map(|words| words.0),
            com_types: file.applies_to.com.map(|words| words.0),
            ext_types: file.applies_to.ext.map(|words| words.0),
            params,
            findings,
            file: self.source.file.to_owned(),
            text: self.source.text.to_owned(),
            let_names: let_names.into_iter().map(|(name, _)| name.into()).collect(),
            lets,
            when,
            names_source: file.names_source,
            messages,
            raw: self.raw,
            sample: file.sample,
            tests: file.tests,
        })
    }

    fn word(&self, key: &str, word: &str) -> Result<(), RuleError> {
        let fine = !word.is_empty()
            && word.len() <= 80
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-');
        if fine {
            return Ok(());
        }
        let message = format!("`{key}` is made of small letters, digits, `_` and `-`, and at most 80 characters long");
        Err(self.source.within(key, word, 0, message))
    }

    fn severity(&self, name: &str) -> Result<Severity, RuleError> {
        Severity::parse(name).ok_or_else(|| {
            let allowed: Vec<&str> = Severity::ALL.iter().map(|severity| severity.as_str()).collect();
            self.source.within("severity", name, 0, suggest::unknown("severity", name, &allowed))
        })
    }

    fn params(&self, declared: Entries<super::file::ParamFile>) -> Result<Vec<Param>, RuleError> {
        let mut params = Vec::new();
        for (name, file) in declared.0 {
            if !Names::can_be(&name) {
                return Err(self.source.key(&name, format!("a parameter cannot be called `{name}`")));
            }
            params.push(Param::declared(&name, file).map_err(|message| self.source.key(&name, message))?);
        }
        Ok(params)
    }

    fn lets(&mut self, stated: Entries<String>, params: &[String]) -> Result<(Named, Vec<Expression>), RuleError> {
        let (mut names, mut lets): (Named, Vec<Expression>) = (Vec::new(), Vec::new());
        for (name, text) in stated.0 {
            if !Names::can_be(&name) || TEXT_NAMES.contains(&name.as_str()) {
                return Err(self.source.key(&name, format!("`{name}` has a meaning already; give it another name")));
            }
            let known = Names { params, lets: &names, item: None };
            let expression = self.expression(&name, &text, &known)?;
            let blame = expression.blame().map_or_else(|| name.as_str().into(), Arc::clone);
            names.push((name, blame));
            lets.push(expression);
        }
        Ok((names, lets))
    }

    fn expression(&mut self, key: &str, text: &str, names: &Names<'_>) -> Result<Expression, RuleError> {
        let expression =
            Expression::compile(text, names).map_err(|error| self.source.within(key, text, error.at, error.message))?;
        let Reads { raw, .. } = expression.reads();
        self.raw.add(raw);
        Ok(expression)
    }

    fn finding(
        &mut self,
        file: FindingFile,
        rule: &Facts,
        names: &Names<'_>,
        messages: &mut Messages,
    ) -> Result<Finding, RuleError> {
        let Some(event_type) = file.event_type else {
            return Err(self.missing("event_type", "the type of its events"));
        };
        self.word("event_type", &event_type)?;
        let Some(fail_if) = file.fail_if else { return Err(self.missing("fail_if", "the condition")) };
        let Some(description) = file.description else { return Err(self.missing("description", "what is wrong")) };
        let Some(recommendation) = file.recommendation else {
            return Err(self.missing("recommendation", "what to do"));
        };
        let facts = Facts {
            severity: file.severity.as_deref().map_or(Ok(rule.severity), |name| self.severity(name))?,
            title: file.title.map_or_else(|| rule.title.clone(), |title| title.trim().to_owned()),
            controls: file.controls.unwrap_or_else(|| rule.controls.clone()),
            ..rule.clone()
        };
        let for_each = match file.for_each.as_ref().map(|each| each.0.as_slice()) {
            None => None,
            Some([(item, list)]) => {
                if !Names::can_be(item) || TEXT_NAMES.contains(&item.as_str()) {
                    let message = format!("`{item}` has a meaning already; give the items another name");
                    return Err(self.source.key(item, message));
                }
                Some((Arc::from(item.as_str()), self.expression("for_each", list, names)?))
            }
            Some(_) => {
                let message = "`for_each` names one list: `for_each: {disk: ext.data_disks}`".to_owned();
                return Err(self.source.key("for_each", message));
            }
        };
        if for_each.is_some() && file.sub_key.is_none() {
            let message = "set `sub_key`, too: what tells one item's event from another's, such as its name".to_owned();
            return Err(self.source.key("for_each", message));
        }
        let item = for_each.as_ref().map(|(item, _)| Arc::clone(item));
        let names = &Names { item: item.as_deref(), ..*names };
        let mut known: Vec<String> = TEXT_NAMES.iter().map(|name| (*name).to_owned()).collect();
        known.extend(names.lets.iter().map(|(name, _)| name.clone()));
        known.extend(names.item.map(str::to_owned));
        let unknown_if = match file.unknown_if {
            Some(text) => {
                let because = file.unknown_because.map(|because| because.trim().to_owned());
                let because = because.unwrap_or_else(|| format!("{} is so", text.trim()));
                Some((self.expression("unknown_if", &text, names)?, because))
            }
            None => None,
        };
        Ok(Finding {
            event_type: event_type.into(),
            facts: Arc::new(facts),
            fail_if: self.expression("fail_if", &fail_if, names)?,
            fail_if_text: fail_if.trim().to_owned(),
            for_each,
            unknown_if,
            sub_key: file.sub_key.map(|text| self.expression("sub_key", &text, names)).transpose()?,
            description: messages.add(&self.source, "description", &description, &known)?,
            recommendation: messages.add(&self.source, "recommendation", &recommendation, &known)?,
            ext: self.fields(file.ext, names, &["record_type"])?,
            com: self.fields(file.com, names, &OWN_FIELDS)?,
            evidence: self.fields(file.evidence, names, &[])?,
        })
    }

    fn fields(
        &mut self,
        stated: Entries<String>,
        names: &Names<'_>,
        taken: &[&str],
    ) -> Result<Vec<(Arc<str>, Expression)>, RuleError> {
        let mut fields = Vec::new();
        for (name, text) in stated.0 {
            if taken.contains(&name.as_str()) || name.starts_with("origin_") || name.starts_with("audit_") {
                return Err(self
                    .source
                    .key(&name, format!("every event has its own `{name}`; give the field another name")));
            }
            fields.push((Arc::from(name.as_str()), self.expression(&name, &text, names)?));
        }
        Ok(fields)
    }

    fn missing(&self, key: &str, what: &str) -> RuleError {
        RuleError::of_file(self.source.file, format!("set `{key}` in each finding: {what}"))
    }
}

/// The names that templates know, beside those of `let` and the item.
pub(super) const TEXT_NAMES: [&str; 5] = ["cloud", "resource", "params", "ext", "com"];

/// The fields that `com` of every event has.
const OWN_FIELDS: [&str; 14] = [
    "cloud_type",
    "record_type",
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
];

impl Rule {
    /// What it asks of a record, for people: the key in the rule file and the expression, in the order of their use.
    #[must_use]
    pub fn conditions(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let mut add = |key: String, expression: &Expression| all.push((key, expression.text().to_owned()));
        for (name, expression) in self.let_names.iter().zip(&self.lets) {
            add(format!("let {name}"), expression);
        }
        if let Some(when) = &self.when {
            add("when".to_owned(), when);
        }
        for finding in &self.findings {
            let of = if self.findings.len() == 1 { String::new() } else { format!("{} ", finding.event_type) };
            if let Some((item, list)) = &finding.for_each {
                add(format!("{of}for_each {item}"), list);
            }
            if let Some((condition, _)) = &finding.unknown_if {
                add(format!("{of}unknown_if"), condition);
            }
            add(format!("{of}fail_if"), &finding.fail_if);
        }
        all
    }

    /// How many tests its file has.
    #[must_use]
    pub fn test_count(&self) -> usize {
        self.tests.len()
    }

    /// All controls that it is about.
    #[must_use]
    pub fn all_controls(&self) -> Controls {
        let mut all: BTreeMap<String, Vec<String>> = self.controls.clone();
        for finding in &self.findings {
            for (benchmark, controls) in &finding.facts.controls {
                let known = all.entry(benchmark.clone()).or_default();
                known.extend(controls.iter().filter(|control| !known.contains(control)).cloned().collect::<Vec<_>>());
            }
        }
        all
    }
}
