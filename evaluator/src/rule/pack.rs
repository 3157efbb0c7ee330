//! Many rules: the built-in ones and those of users.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use proto::catalogue::ParamError;
use serde_json::Value;

pub use proto::plan::RuleText;

use super::check::Rule;
use super::judge::Instance;
use super::place::RuleError;

/// The files of the built-in rules by their paths below `rules/`: id, class and text.
const BUILT_IN: &[(&str, &str, Option<&str>, &str)] = include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// Rules by their ids. Built-in ones are compiled when they are first asked for: a run uses few of them, and each takes
/// its time.
#[derive(Debug, Clone, Default)]
pub struct Pack {
    rules: BTreeMap<String, Arc<Entry>>,
    /// Ids by the classes that the rules answer to, and by their last parts.
    classes: BTreeMap<String, String>,
}

/// A rule, compiled or not yet.
#[derive(Debug)]
struct Entry {
    id: Cow<'static, str>,
    class: Option<Cow<'static, str>>,
    file: Cow<'static, str>,
    text: &'static str,
    /// Nothing of a built-in rule that is broken: it takes no others with it.
    compiled: OnceLock<Option<Arc<Rule>>>,
}

impl Entry {
    fn rule(&self) -> Option<&Arc<Rule>> {
        let compile = || match Rule::parse(&self.file, self.text) {
            Ok(rule) => Some(Arc::new(rule)),
            Err(error) => {
                tracing::error!("a built-in rule is broken: {error}");
                None
            }
        };
        self.compiled.get_or_init(compile).as_ref()
    }

    /// The last part of the class that it answers to, or its id.
    fn short_name(&self) -> &str {
        self.class.as_deref().map_or(&self.id, |class| class.rsplit('.').next().unwrap_or(class))
    }
}

/// The built-in rules.
#[must_use]
pub fn built_in() -> &'static Pack {
    static PACK: OnceLock<Pack> = OnceLock::new();
    PACK.get_or_init(|| {
        let mut pack = Pack::default();
        for (file, id, class, text) in BUILT_IN {
            let compiled = OnceLock::new();
            let entry = Entry { id: (*id).into(), class: class.map(Into::into), file: (*file).into(), text, compiled };
            if let Err(error) = pack.add(entry) {
                tracing::error!("a built-in rule is broken: {file}: {error}");
            }
        }
        pack
    })
}

impl Pack {
    /// These rules, and others over them: one with the id of one that is there replaces it.
    ///
    /// # Errors
    /// All that is wrong with the others.
    pub fn with(&self, texts: &[RuleText]) -> Result<Self, Vec<RuleError>> {
        let mut pack = self.clone();
        let mut errors = Vec::new();
        let mut added: BTreeMap<String, String> = BTreeMap::new();
        for RuleText { file, text } in texts {
            let mut rule = match Rule::parse(file, text) {
                Ok(rule) => rule,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            if let Some(other) = added.insert(rule.id.clone(), file.clone()) {
                let message = format!("{other} has a rule `{}`, too; give one of them another id", rule.id);
                errors.push(RuleError::of_file(file, message));
                continue;
            }
            // What replaces a rule answers to its class.
            let replaced = pack.rules.get(&rule.id).and_then(|replaced| replaced.class.as_deref());
            rule.class = rule.class.or_else(|| replaced.map(str::to_owned));
            let entry = Entry {
                id: rule.id.clone().into(),
                class: rule.class.clone().map(Into::into),
                file: file.clone().into(),
                text: "",
                compiled: OnceLock::from(Some(Arc::new(rule))),
            };
            if let Err(message) = pack.add(entry) {
                errors.push(RuleError::of_file(file, message));
            }
        }
        if errors.is_empty() { Ok(pack) } else { Err(errors) }
    }

    fn add(&mut self, entry: Entry) -> Result<(), String> {
        let id = entry.id.clone().into_owned();
        if self.rules.remove(&id).is_some() {
            self.classes.retain(|_, other| *other != id);
        }
        let names = [entry.class.as_deref(), Some(entry.short_name())].into_iter().flatten().chain([id.as_str()]);
        for name in names {
            if let Some(other) = self.classes.insert(name.to_owned(), id.clone())
                && other != id
            {
                return Err(format!(
                    "the rule `{other}` answers to `{name}` already; to replace it, give this one the id `{other}`"
                ));
            }
        }
        self.rules.insert(id, Arc::new(entry));
        Ok(())
    }

    /// The rule of an id or of a class, which may be its last part alone.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Rule>> {
        self.entry(name).and_then(|entry| entry.rule())
    }

    fn entry(&self, name: &str) -> Option<&Arc<Entry>> {
        let find = |name: &str| self.classes.get(name).and_then(|id| self.rules.get(id));
        find(name).or_else(|| find(name.rsplit('.').next().unwrap_or(name)))
    }

    /// All rules, by their ids.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Arc<Rule>> {
        self.rules.values().filter_map(|entry| entry.rule()).collect::<Vec<_>>().into_iter()
    }

    /// The ids of all rules, and the class that each answers to. Compiles none.
    pub fn names(&self) -> impl ExactSizeIterator<Item = (&str, Option<&str>)> {
        self.rules.values().map(|entry| (&*entry.id, entry.class.as_deref()))
    }

    /// The rules that are not those of another pack. Compiles none of those.
    pub fn beside(&self, other: &Self) -> impl Iterator<Item = &Arc<Rule>> {
        let is_there = |entry: &Arc<Entry>| other.rules.get(&*entry.id).is_some_and(|it| Arc::ptr_eq(it, entry));
        self.rules.values().filter(move |entry| !is_there(entry)).filter_map(|entry| entry.rule())
    }

    /// A rule with parameters, expanded.
    ///
    /// # Errors
    /// All that is wrong with the parameters; nothing of a class that no rule answers to.
    pub fn instance(&self, name: &str, params: &Value) -> Option<Result<Instance, Vec<ParamError>>> {
        self.get(name).map(|rule| Instance::new(rule, params))
    }
}

/// The texts of the rule files at these paths: files, and all `.yaml` and `.yml` files below folders.
///
/// # Errors
/// What cannot be read.
pub fn read_files(paths: &[PathBuf]) -> Result<Vec<RuleText>, Vec<RuleError>> {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        let before = files.len();
        if let Err(error) = find(path, &mut files, 0) {
            errors.push(RuleError::of_file(&path.display().to_string(), format!("it cannot be read: {error}")));
        } else if files.len() == before {
            let message = "there is no rule file in this folder (`.yaml`)".to_owned();
            errors.push(RuleError::of_file(&path.display().to_string(), message));
        }
    }
    files.sort();
    files.dedup();
    let mut texts = Vec::new();
    for file in files {
        let name = file.display().to_string();
        match fs::read_to_string(&file) {
            Ok(text) => texts.push(RuleText { file: name, text }),
            Err(error) => errors.push(RuleError::of_file(&name, format!("it cannot be read: {error}"))),
        }
    }
    if errors.is_empty() { Ok(texts) } else { Err(errors) }
}

/// How deep folders are looked through.
const MAX_DEPTH: usize = 16;

fn find(path: &Path, files: &mut Vec<PathBuf>, depth: usize) -> std::io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?.path();
        let is_rule = entry.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_rule || entry.is_dir() {
            find(&entry, files, depth + 1)?;
        }
    }
    Ok(())
}
