//! A rule with its parameters looks at records.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use proto::catalogue::ParamError;
use serde::Serialize;
use serde_json::Value as Plain;

use super::check::{Finding, Rule};
use super::outcome::{EventDraft, Judgement, Outcome, Resource};
use super::param;
use crate::condition::{Bucket, Evaluation, Expression, Scene, Value, Wanted, excerpt_of};
use crate::json::Json;
use crate::record::Record;

/// The most events that one record gives, of one finding.
const MAX_EVENTS: usize = 1_000;
/// The longest reason, in characters.
const MAX_REASON: usize = 400;
/// The longest sub-key, in characters.
const MAX_SUB_KEY: usize = 1_000;

/// A rule with the parameters of a configuration.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The rule.
    pub rule: Arc<Rule>,
    params: Arc<Json<'static>>,
}

/// What a part of a condition comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The key of the rule that it is a part of: `fail_if`.
    pub key: String,
    /// How deep it stands.
    pub depth: usize,
    /// Its source.
    pub text: String,
    /// Its value as JSON, or why it has none.
    pub value: Result<String, String>,
}

/// What one item, or the record as a whole, comes to.
enum Said {
    Pass,
    Fail(Box<EventDraft>),
    Unknown(String),
}

impl Instance {
    /// A rule with parameters, expanded.
    ///
    /// # Errors
    /// All that is wrong with the parameters.
    pub fn new(rule: &Arc<Rule>, params: &Plain) -> Result<Self, Vec<ParamError>> {
        let params = param::read(&rule.params, params)?;
        Ok(Self { rule: Arc::clone(rule), params: Arc::new(params) })
    }

    /// Whether the rule looks at records of these types.
    #[must_use]
    pub fn selects(&self, cloud: Option<&str>, com_type: Option<&str>, ext_type: Option<&str>) -> bool {
        let among = |wanted: &Option<Vec<String>>, found: Option<&str>| match wanted {
            None => true,
            Some(wanted) => found.is_some_and(|found| wanted.iter().any(|word| word == found)),
        };
        let rule = &self.rule;
        among(&rule.ext_types, ext_type) && among(&rule.com_types, com_type) && among(&rule.clouds, cloud)
    }

    /// Looks at a record, at the time of the audit's version. Never panics, whatever the record.
    #[must_use]
    pub fn judge(&self, record: &Record<'_>, now: Timestamp) -> Judgement {
        if let Some(reason) = &record.trouble {
            return unknown(reason.clone());
        }
        let (cloud, com_type) = (record.com_text("cloud_type"), record.com_text("record_type"));
        if let (Some(_), Some(reason)) = (&self.rule.ext_types, record.ext_trouble()) {
            return unknown(format!("ext cannot be read: {reason}"));
        }
        if !self.selects(cloud, com_type, record.ext_text("record_type")) {
            return Judgement::plain(Outcome::NotApplicable);
        }
        self.judge_selected(record, now)
    }

    /// Looks at a record of the types that the rule selects.
    #[must_use]
    pub fn judge_selected(&self, record: &Record<'_>, now: Timestamp) -> Judgement {
        let evaluation = Evaluation::new(self.scene(record, now), &self.rule.lets);
        match self.rule.when.as_ref().map(|when| evaluation.truth(when)) {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => return Judgement::plain(Outcome::NotApplicable),
            Some(Err(trouble)) => return unknown(trouble.to_string()),
        }
        let (mut events, mut reason) = (Vec::new(), None);
        for finding in &self.rule.findings {
            self.find(finding, record, &evaluation, |said| match said {
                Said::Pass => {}
                Said::Fail(event) => events.push(*event),
                Said::Unknown(why) => reason = reason.take().or(Some(why)),
            });
        }
        match (events.is_empty(), reason) {
            (true, None) => Judgement::plain(Outcome::Pass),
            (true, Some(reason)) => unknown(reason),
            (false, reason) => Judgement { outcome: Outcome::Fail, events, also_unknown: reason.map(shorten) },
        }
    }

    fn scene<'s>(&'s self, record: &'s Record<'_>, now: Timestamp) -> Scene<'s> {
        let reads_raw = *self.rule.raw_wanted() != Wanted::default();
        Scene {
            raw: if reads_raw { record.raw() } else { Bucket::Missing },
            ext: record.ext(),
            com: record.com(),
            params: &self.params,
            now,
        }
    }

    fn find<'s>(
        &'s self,
        finding: &'s Finding,
        record: &Record<'_>,
        evaluation: &Evaluation<'s>,
        mut say: impl FnMut(Said),
    ) {
        let Some((name, list)) = &finding.for_each else {
            return say(self.examine(finding, record, evaluation, None));
        };
        let value = match evaluation.value(list) {
            Ok(value) => value,
            Err(trouble) => return say(Said::Unknown(trouble.to_string())),
        };
        let Some(items) = value.items() else {
            let wanted = if matches!(value, Value::Null) { "null".to_owned() } else { value.kind().to_owned() };
            let what = list.blame().map_or("the list of `for_each`", |blame| blame);
            return say(Said::Unknown(format!("{what} is {wanted}; a list is needed")));
        };
        let mut made = 0;
        for (number, item) in items.enumerate() {
            let said = evaluation.with_item(item.clone(), |evaluation| {
                self.examine(finding, record, evaluation, Some((name, &item, number)))
            });
            if matches!(said, Said::Fail(_)) {
                made += 1;
                if made > MAX_EVENTS {
                    return say(Said::Unknown(format!("more than {MAX_EVENTS} items fail; the others are not told")));
                }
            }
            say(said);
        }
    }

    fn examine<'s>(
        &'s self,
        finding: &'s Finding,
        record: &Record<'_>,
        evaluation: &Evaluation<'s>,
        item: Option<(&Arc<str>, &Value<'s>, usize)>,
    ) -> Said {
        let unclear = |reason: String| match item {
            Some((name, _, number)) => {
                Said::Unknown(format!("{name} {}: {reason}", sub_key(finding, evaluation, Some(number))))
            }
            None => Said::Unknown(reason),
        };
        match finding.unknown_if.as_ref().map(|(condition, because)| (evaluation.truth(condition), because)) {
            None | Some((Ok(false), _)) => {}
            Some((Ok(true), because)) => return unclear(because.clone()),
            Some((Err(trouble), _)) => return unclear(trouble.to_string()),
        }
        match evaluation.truth(&finding.fail_if) {
            Ok(false) => Said::Pass,
            Ok(true) => Said::Fail(Box::new(self.draft(finding, record, evaluation, item))),
            Err(trouble) => unclear(trouble.to_string()),
        }
    }

    fn draft<'s>(
        &'s self,
        finding: &'s Finding,
        record: &Record<'_>,
        evaluation: &Evaluation<'s>,
        item: Option<(&Arc<str>, &Value<'s>, usize)>,
    ) -> EventDraft {
        let values = self.values(finding, record, evaluation, item);
        let fields = |fields: &'s [(Arc<str>, Expression)]| {
            // What an event is about is known; a field of it that is not is null.
            let value = |expression| evaluation.value(expression).map_or(Plain::Null, |value| value.to_json());
            fields.iter().map(|(name, expression)| (Arc::clone(name), value(expression))).collect()
        };
        EventDraft {
            event_type: Arc::clone(&finding.event_type),
            sub_key: match (&finding.sub_key, item) {
                (None, None) => String::new(),
                (_, item) => sub_key(finding, evaluation, item.map(|(_, _, number)| number)),
            },
            ext: fields(&finding.ext),
            com: fields(&finding.com),
            evidence: fields(&finding.evidence),
            names_source: self.rule.names_source,
            description: self.rule.messages.render(&finding.description, &values),
            recommendation: self.rule.messages.render(&finding.recommendation, &values),
            facts: Arc::clone(&finding.facts),
            resource: resource(record),
        }
    }

    /// What the templates of a finding use.
    fn values<'s>(
        &'s self,
        finding: &'s Finding,
        record: &Record<'_>,
        evaluation: &Evaluation<'s>,
        item: Option<(&Arc<str>, &Value<'s>, usize)>,
    ) -> BTreeMap<Arc<str>, minijinja::Value> {
        let mut values: BTreeMap<Arc<str>, minijinja::Value> = BTreeMap::new();
        for name in finding.description.uses.iter().chain(&finding.recommendation.uses) {
            if values.contains_key(name.as_str()) {
                continue;
            }
            let bucket = |bucket| match bucket {
                Bucket::There(json) => in_templates(json),
                Bucket::Missing | Bucket::Broken(_) => minijinja::Value::UNDEFINED,
            };
            let value = match (name.as_str(), item) {
                ("cloud", _) => friendly_cloud(record.com_text("cloud_type")).into_owned().into(),
                ("resource", _) => reference(record).into(),
                ("params", _) => in_templates(&*self.params),
                ("ext", _) => bucket(record.ext()),
                ("com", _) => bucket(record.com()),
                (name, Some((item_name, item, _))) if **item_name == *name => in_templates(item.to_json()),
                (name, _) => {
                    let number = self.rule.let_names.iter().position(|known| **known == *name);
                    let value = number.map(|number| evaluation.named(number));
                    match value {
                        Some(Ok(value)) => in_templates(value.to_json()),
                        _ => minijinja::Value::UNDEFINED,
                    }
                }
            };
            values.insert(name.as_str().into(), value);
        }
        if !values.contains_key("resource") {
            values.insert("resource".into(), reference(record).into());
        }
        values
    }

    /// What each part of the rule's conditions comes to on a record.
    #[must_use]
    pub fn explain(&self, record: &Record<'_>, now: Timestamp) -> Vec<Explained> {
        let evaluation = Evaluation::new(self.scene(record, now), &self.rule.lets);
        let mut explained = Vec::new();
        for (name, expression) in self.rule.let_names.iter().zip(&self.rule.lets) {
            tell_parts(&format!("let {name}"), expression, &evaluation, &mut explained);
        }
        if let Some(when) = &self.rule.when {
            tell_parts("when", when, &evaluation, &mut explained);
        }
        for finding in &self.rule.findings {
            let prefix = if self.rule.findings.len() == 1 { String::new() } else { format!("{} ", finding.event_type) };
            match &finding.for_each {
                None => tell_finding(&prefix, finding, &evaluation, &mut explained),
                Some((name, list)) => {
                    tell_parts(&format!("{prefix}for_each"), list, &evaluation, &mut explained);
                    let items = evaluation.value(list).ok().and_then(|value| value.items());
                    for (number, item) in items.into_iter().flatten().take(20).enumerate() {
                        evaluation.with_item(item, |evaluation| {
                            let key = format!("{prefix}{name} {} ", sub_key(finding, evaluation, Some(number)));
                            tell_finding(&key, finding, evaluation, &mut explained);
                        });
                    }
                }
            }
        }
        explained
    }
}

fn tell_finding<'s>(key: &str, finding: &'s Finding, evaluation: &Evaluation<'s>, explained: &mut Vec<Explained>) {
    if let Some((condition, _)) = &finding.unknown_if {
        tell_parts(&format!("{key}unknown_if"), condition, evaluation, explained);
    }
    tell_parts(&format!("{key}fail_if"), &finding.fail_if, evaluation, explained);
}

fn tell_parts<'s>(key: &str, expression: &'s Expression, evaluation: &Evaluation<'s>, explained: &mut Vec<Explained>) {
    for part in expression.parts().into_iter().filter(|part| part.depth == 0 || !part.is_constant()) {
        let value = part.value(evaluation);
        explained.push(Explained {
            key: key.to_owned(),
            depth: part.depth,
            text: part.text().to_owned(),
            value: value
                .map(|value| excerpt_of(&value.to_json().to_string(), 200))
                .map_err(|trouble| trouble.to_string()),
        });
    }
}

/// What tells an item's event from another's: never the same for two items that differ in it, and stable over runs.
fn sub_key<'s>(finding: &'s Finding, evaluation: &Evaluation<'s>, number: Option<usize>) -> String {
    let value = finding.sub_key.as_ref().map(|expression| evaluation.value(expression));
    match (value, number) {
        (Some(Ok(Value::Text(text))), _) if !text.is_empty() => excerpt_of(&text, MAX_SUB_KEY),
        (Some(Ok(value @ (Value::Int(_) | Value::Bool(_)))), _) => value.to_json().to_string(),
        (_, Some(number)) => format!("#{}", number + 1),
        (_, None) => String::new(),
    }
}

fn unknown(reason: String) -> Judgement {
    Judgement::plain(Outcome::Unknown(shorten(reason)))
}

fn shorten(reason: String) -> String {
    excerpt_of(&reason, MAX_REASON)
}

fn reference(record: &Record<'_>) -> String {
    record.com_text("reference").filter(|reference| !reference.is_empty()).unwrap_or("(no id)").to_owned()
}

/// A cloud's name for people.
#[must_use]
pub fn friendly_cloud(cloud_type: Option<&str>) -> Cow<'_, str> {
    match cloud_type {
        Some("azure") => "Azure".into(),
        Some("gcp") => "Google Cloud Platform (GCP)".into(),
        Some("aws") => "Amazon Web Services (AWS)".into(),
        None | Some("") => "unknown cloud".into(),
        Some(other) => other.into(),
    }
}

/// The resource of a record, as far as it says.
fn resource(record: &Record<'_>) -> Resource {
    const FIELDS: [&str; 4] = ["name", "location", "region", "zone"];
    let wanted: Vec<String> = FIELDS.map(str::to_owned).into();
    let raw = record.view.raw.and_then(|raw| Json::parse_only(raw.get(), &wanted).ok());
    let raw_text = |field: &str| raw.as_ref()?.get(field)?.as_text();
    let filled = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let last = |text: &str| text.trim_end_matches('/').rsplit('/').next().unwrap_or(text).to_owned();
    let id = filled(record.com_text("reference"));
    Resource {
        cloud: filled(record.com_text("cloud_type")),
        account: record.account().map(str::to_owned),
        kind: filled(record.ext_text("record_type").or(record.com_text("record_type"))),
        name: filled(raw_text("name")).map(|name| last(&name)).or_else(|| id.as_deref().map(last)),
        region: filled(raw_text("location"))
            .or_else(|| filled(raw_text("region")).map(|region| last(&region)))
            .or_else(|| filled(raw_text("zone").or(record.ext_text("zone"))).map(|zone| last(&zone))),
        id,
    }
}

/// A value as templates see it.
fn in_templates(value: impl Serialize) -> minijinja::Value {
    fn convert(value: Plain) -> minijinja::Value {
        match value {
            Plain::Null => minijinja::Value::from(()),
            Plain::Bool(flag) => flag.into(),
            Plain::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => number.into(),
                (None, Some(number)) => number.into(),
                (None, None) => number.as_f64().unwrap_or_default().into(),
            },
            Plain::String(text) => text.into(),
            Plain::Array(items) => items.into_iter().map(convert).collect::<Vec<_>>().into(),
            Plain::Object(fields) => {
                fields.into_iter().map(|(name, value)| (name, convert(value))).collect::<BTreeMap<_, _>>().into()
            }
        }
    }
    serde_json::to_value(value).map_or(minijinja::Value::UNDEFINED, convert)
}
