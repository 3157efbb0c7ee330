//! Collects what is wrong while a configuration is checked.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::load::Loaded;
use super::params::describe;
use super::place::Place;
use super::problem::{Problem, Severity};
use super::secret;
use super::suggest;
use crate::catalogue::ParamError;

/// The problems so far, and what tells which file is to blame.
pub(super) struct Checker<'a> {
    loaded: &'a Loaded,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(loaded: &'a Loaded) -> Self {
        Self { loaded, problems: loaded.problems.clone() }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    pub(super) fn error(&mut self, place: &Place, message: String) {
        self.note(Severity::Error, place, message);
    }

    pub(super) fn warn(&mut self, place: &Place, message: String) {
        self.note(Severity::Warning, place, message);
    }

    /// A warning about one place that another, more exact one, is to blame for.
    pub(super) fn warn_of(&mut self, place: &Place, blamed: &Place, message: String) {
        let file = self.loaded.origin(blamed).map(str::to_owned);
        self.problems.push(Problem { severity: Severity::Warning, file, path: place.to_string(), message });
    }

    /// Whether something is wrong at a place or below.
    pub(super) fn has_problem_at(&self, place: &Place) -> bool {
        let path = place.to_string();
        let below = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.problems.iter().any(|problem| problem.path.strip_prefix(&path).is_some_and(below))
    }

    /// An error in what the command line says.
    pub(super) fn error_of_option(&mut self, option: &str, message: String) {
        let path = option.to_owned();
        self.problems.push(Problem { severity: Severity::Error, file: None, path, message });
    }

    /// Errors that a plugin has with its parameters.
    pub(super) fn param_errors(&mut self, place: &Place, errors: Vec<ParamError>) {
        for error in errors {
            self.error(&place.below(&error.path), error.message);
        }
    }

    fn note(&mut self, severity: Severity, place: &Place, message: String) {
        let file = self.loaded.origin(place).map(str::to_owned);
        let problem = Problem { severity, file, path: place.to_string(), message };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Whether what stands here is the base configuration's own.
    pub(super) fn is_of_base(&self, place: &Place) -> bool {
        self.loaded.is_of_base(place)
    }

    /// The entries of a mapping, or an error.
    pub(super) fn mapping<'v>(
        &mut self,
        place: &Place,
        value: &'v Value,
        expected: &str,
    ) -> Option<&'v Map<String, Value>> {
        if value.as_object().is_none() {
            self.error(place, format!("found {}; {expected} is expected", describe(value)));
        }
        value.as_object()
    }

    /// Tells of each key that is not among the known ones.
    pub(super) fn known_keys(&mut self, place: &Place, entries: &Map<String, Value>, known: &[&str]) {
        for key in entries.keys().filter(|key| !known.contains(&key.as_str())) {
            self.error(&place.key(key), suggest::unknown("key", key, known));
        }
    }

    /// The names in a list, with their places; each may occur once.
    pub(super) fn names(&mut self, place: &Place, value: &Value, expected: &str) -> Vec<(Place, String)> {
        let Value::Array(items) = value else {
            let hint = value.as_str().map(|text| format!("; write `[{text}]`")).unwrap_or_default();
            self.error(place, format!("found {}; {expected} is expected{hint}", describe(value)));
            return Vec::new();
        };
        let mut known = BTreeSet::new();
        let mut names = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let place = place.index(index);
            let name = match item {
                Value::String(name) => name.clone(),
                // As the same word is a text where it is a key.
                Value::Number(_) | Value::Bool(_) => item.to_string(),
                other => {
                    self.error(&place, format!("found {}; {expected} is expected", describe(other)));
                    continue;
                }
            };
            if known.insert(name.clone()) {
                names.push((place, name));
            } else {
                self.error(&place, format!("`{name}` is listed a second time; list it once"));
            }
        }
        names
    }

    /// Tells of references that are written wrongly, anywhere in a value.
    pub(super) fn references(&mut self, place: &Place, value: &Value) {
        match value {
            Value::String(text) => {
                if let Err(error) = secret::check_references(text) {
                    self.error(place, error.to_string());
                }
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, item)| self.references(&place.index(index), item));
            }
            Value::Object(entries) => entries.iter().for_each(|(key, entry)| self.references(&place.key(key), entry)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}
