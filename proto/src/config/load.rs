//! From files to one value that knows which file each part of it came from.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::environment::Environment;
use super::merge::merge;
use super::params::describe;
use super::place::Place;
use super::problem::{Problem, Severity};
use super::yaml;

/// The base configuration: what holds unless a file says otherwise.
pub const BASE: &str = include_str!("../../../config/base.yaml");

/// What the base configuration is called in problems.
pub const BASE_NAME: &str = "the built-in base configuration";

/// The files that are read when none are named; those that do not exist are passed over.
pub const DEFAULT_FILES: [&str; 4] =
    ["/etc/cloudmarker.yaml", "~/.cloudmarker.yaml", "~/cloudmarker.yaml", "cloudmarker.yaml"];

/// The largest file, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// The base configuration and the files merged over it, not yet checked.
#[derive(Clone)]
pub struct Loaded {
    pub(super) value: Value,
    pub(super) problems: Vec<Problem>,
    /// Whether all files could be read: else checking says much that is not so.
    pub(super) complete: bool,
    sources: Vec<Source>,
}

#[derive(Clone)]
struct Source {
    name: String,
    value: Value,
}

/// Loads the base configuration and files, in their order.
///
/// Without a list of files the default ones are read, as far as they exist. A file that is named must exist.
/// No files at all (`Some(&[])`) leaves the base configuration alone. What is wrong comes out in
/// [`validate`](super::validate()).
#[must_use]
pub fn load(files: Option<&[PathBuf]>, environment: &Environment) -> Loaded {
    let mut loaded = Loaded::base();
    match files {
        Some(files) => {
            for file in files {
                loaded.add_file(file, environment, Absent::Wrong);
            }
        }
        None => {
            let without_home = |file: &&&str| environment.home().is_some() || !file.starts_with('~');
            let mut read = Vec::new();
            for file in DEFAULT_FILES.iter().filter(without_home) {
                // In the home directory, two of them are one.
                let path = environment.path(file);
                if !read.contains(&path) {
                    loaded.add_file(Path::new(file), environment, Absent::Fine);
                    read.push(path);
                }
            }
        }
    }
    loaded
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Fine,
    Wrong,
}

impl Loaded {
    /// The base configuration alone.
    #[must_use]
    pub fn base() -> Self {
        let empty = Value::Object(Map::new());
        let loaded = Self { value: empty, problems: Vec::new(), complete: true, sources: Vec::new() };
        loaded.with_text(BASE_NAME, BASE)
    }

    /// The configuration with one more text merged over it; `name` stands for the file in problems.
    ///
    /// ```
    /// use proto::config::Loaded;
    /// let loaded = Loaded::base().with_text("mine.yaml", "schedule: 10:30");
    /// assert_eq!(loaded.value()["schedule"], "10:30");
    /// ```
    #[must_use]
    pub fn with_text(mut self, name: &str, text: &str) -> Self {
        self.add_text(name, text);
        self
    }

    /// The merged value, unchecked and unexpanded.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    fn add_file(&mut self, file: &Path, environment: &Environment, absent: Absent) {
        let path = environment.path(file);
        // The home directory is told in full: with sudo it is not the one that one thinks of.
        let name = if file.starts_with("~") { path.display() } else { file.display() }.to_string();
        match read(&path) {
            Ok(text) => self.add_text(&name, &text),
            Err(error) => {
                let is_absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
                match (is_absent, absent) {
                    (true, Absent::Fine) => {}
                    (true, Absent::Wrong) => {
                        self.fail(&name, "there is no such file; correct its name or leave it out".to_owned());
                    }
                    (false, _) => self.fail(&name, format!("the file cannot be read: {error}")),
                }
            }
        }
    }

    fn add_text(&mut self, name: &str, text: &str) {
        let document = match yaml::parse(text) {
            Ok(document) => document,
            Err(message) => return self.fail(name, message),
        };
        for repeat in document.repeats {
            let message =
                format!("found this key a second time{}; keep one of them, or merge the two", repeat.position);
            let path = repeat.place.to_string();
            self.problems.push(Problem { severity: Severity::Error, file: Some(name.to_owned()), path, message });
        }
        let value = match document.value {
            Value::Null => Value::Object(Map::new()),
            value @ Value::Object(_) => value,
            other => {
                let found = describe(&other);
                let keys = super::validate::TOP.join(", ");
                return self.fail(name, format!("found {found}; a mapping with some of the keys {keys} is expected"));
            }
        };
        merge(&mut self.value, value.clone());
        self.sources.push(Source { name: name.to_owned(), value });
    }

    fn fail(&mut self, name: &str, message: String) {
        self.complete = false;
        self.problems.push(Problem::of_file(name, message));
    }

    /// The file that the value at a place came from: the last that has it, or else the most of the way to it.
    pub(super) fn origin(&self, place: &Place) -> Option<&str> {
        (1..=place.len()).rev().map(|steps| place.prefix(steps)).find_map(|prefix| self.last_with(&prefix))
    }

    /// Whether the value at a place is the base configuration's own.
    pub(super) fn is_of_base(&self, place: &Place) -> bool {
        self.origin(place) == Some(BASE_NAME)
    }

    fn last_with(&self, place: &Place) -> Option<&str> {
        let has = |source: &&Source| place.find(&source.value).is_some();
        self.sources.iter().rev().find(has).map(|source| source.name.as_str())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        io::Error::other(format!("line {line} is not UTF-8 text"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_the_last_file_that_has_the_place() {
        let loaded = Loaded::base()
            .with_text("one.yaml", "plugins: {mockcloud: {params: {a: 1}}, x: {plugin: y}}")
            .with_text("two.yaml", "plugins: {mockcloud: {params: {b: 1}}}");
        let params = Place::root().key("plugins").key("mockcloud").key("params");
        assert_eq!(loaded.origin(&params.key("a")), Some("one.yaml"));
        assert_eq!(loaded.origin(&params.key("b")), Some("two.yaml"));
        assert_eq!(loaded.origin(&params.key("missing")), Some("two.yaml"));
        assert_eq!(loaded.origin(&Place::root().key("plugins").key("x").key("params")), Some("one.yaml"));
        assert!(loaded.is_of_base(&Place::root().key("plugins").key("mockcloud").key("plugin")));
        assert_eq!(loaded.origin(&Place::root().key("nowhere")), None);
    }
}
