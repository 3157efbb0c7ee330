//! The two texts of an event, as templates.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::place::{RuleError, Source};
use crate::condition;
use crate::native::ports;

/// Steps that one template may take.
const FUEL: u64 = 20_000;
/// The longest text, in characters.
const LONGEST: usize = 4_000;

/// The templates of a rule.
#[derive(Debug)]
pub(super) struct Messages {
    templates: Environment<'static>,
}

/// A template of a rule.
#[derive(Debug)]
pub(super) struct Message {
    name: String,
    /// The names that it uses.
    pub(super) uses: Vec<String>,
}

impl Messages {
    pub(super) fn new() -> Self {
        let mut templates = Environment::new();
        templates.set_fuel(Some(FUEL));
        templates.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        templates.set_formatter(|out, _, value| match value.kind() {
            // A sentence says what it does not know.
            ValueKind::Undefined | ValueKind::None => out.write_str("unknown").map_err(Error::from),
            _ => write!(out, "{value}").map_err(Error::from),
        });
        templates.add_filter("listed", |list: Value| texts(&list).map(|texts| condition::listed(&texts)));
        templates.add_filter("ports", |list: Value| {
            let ports: Option<Vec<u16>> = list.try_iter()?.map(|port| u16::try_from(port).ok()).collect();
            ports.map(|list| ports::phrase(&list)).ok_or_else(|| wrong("`ports` takes a list of ports"))
        });
        templates.add_filter("plural", |list: Value, one: String, many: String| {
            let count = list.len().or_else(|| usize::try_from(list).ok());
            Ok::<_, Error>(if count == Some(1) { one } else { many })
        });
        Self { templates }
    }

    /// Adds a template that may use these names.
    pub(super) fn add(
        &mut self,
        source: &Source<'_>,
        key: &str,
        text: &str,
        known: &[String],
    ) -> Result<Message, RuleError> {
        let name = format!("{key} {}", self.templates.templates().count());
        let at = |error: &Error| {
            let line = error.line().unwrap_or(1).saturating_sub(1);
            text.split_inclusive('\n').take(line).map(|line| line.chars().count()).sum::<usize>()
        };
        if text.trim().is_empty() {
            return Err(source.key(key, format!("`{key}` is empty; say it in a sentence")));
        }
        let added = self.templates.add_template_owned(name.clone(), text.trim().to_owned());
        added.map_err(|error| {
            let said = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            source.within(key, text, at(&error), format!("the template is wrong: {said}"))
        })?;
        let uses: Vec<String> = match self.templates.get_template(&name) {
            Ok(template) => template.undeclared_variables(false).into_iter().collect(),
            Err(_) => Vec::new(),
        };
        for name in &uses {
            if !known.contains(name) {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let at = text.find(name.as_str()).map_or(0, |at| text[..at].chars().count());
                return Err(source.within(key, text, at, proto::config::suggest::unknown("name", name, &known)));
            }
        }
        Ok(Message { name, uses })
    }

    /// The text. An event is never lost for its text: what cannot be written is said.
    pub(super) fn render(&self, message: &Message, values: &BTreeMap<Arc<str>, Value>) -> String {
        let rendered = self.templates.get_template(&message.name).and_then(|template| template.render(values));
        match rendered {
            Ok(text) => in_one_line(&text),
            Err(error) => {
                tracing::warn!(%error, template = message.name, "a text cannot be written");
                let resource = values.get("resource").map(ToString::to_string).unwrap_or_default();
                format!(
                    "Something is wrong with {resource}, and the text that would say what cannot be written: {error}."
                )
            }
        }
    }
}

fn texts(list: &Value) -> Result<Vec<String>, Error> {
    Ok(list.try_iter()?.map(|item| item.to_string()).collect())
}

fn wrong(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// The words with single blanks between them: a template may stand on several lines.
fn in_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > LONGEST {
            return condition::excerpt_of(&line, LONGEST);
        }
    }
    line
}
