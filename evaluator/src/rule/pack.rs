//! Many rules: the built-in ones and those of users.

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

/// The files of the built-in rules, by their paths below `rules/`.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// Rules by their ids.
#[derive(Debug, Clone, Default)]
pub struct Pack {
    rules: BTreeMap<String, Arc<Rule>>,
    /// Ids by the classes that the rules answer to, and by their last parts.
    classes: BTreeMap<String, String>,
}

/// The built-in rules.
#[must_use]
pub fn built_in() -> &'static Pack {
    static PACK: OnceLock<Pack> = OnceLock::new();
    PACK.get_or_init(|| {
        let texts = BUILT_IN.iter().map(|(file, text)| RuleText { file: (*file).to_owned(), text: (*text).to_owned() });
        let texts: Vec<RuleText> = texts.collect();
        let (pack, errors) = Pack::default().and_good_ones(&texts);
        // A test compiles each of them; one that is broken takes no others with it.
        errors.iter().for_each(|error| tracing::error!("a built-in rule is broken: {error}"));
        pack
    })
}

impl Pack {
    /// These rules, and others over them: one with the id of one that is there replaces it.
    ///
    /// # Errors
    /// All that is wrong with the others.
    pub fn with(&self, texts: &[RuleText]) -> Result<Self, Vec<RuleError>> {
        let (pack, errors) = self.and_good_ones(texts);
        if errors.is_empty() { Ok(pack) } else { Err(errors) }
    }

    /// These rules, those of the others that are good over them, and what is wrong with the rest.
    fn and_good_ones(&self, texts: &[RuleText]) -> (Self, Vec<RuleError>) {
        let mut pack = self.clone();
        let mut errors = Vec::new();
        let mut added: BTreeMap<String, String> = BTreeMap::new();
        for RuleText { file, text } in texts {
            let rule = match Rule::parse(file, text) {
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
            if let Err(message) = pack.add(rule) {
                errors.push(RuleError::of_file(file, message));
            }
        }
        (pack, errors)
    }

    fn add(&mut self, mut rule: Rule) -> Result<(), String> {
        if let Some(replaced) = self.rules.remove(&rule.id) {
            self.classes.retain(|_, id| *id != replaced.id);
            // What replaces a rule answers to its class.
            rule.class = rule.class.or_else(|| replaced.class.clone());
        }
        let names = [rule.class.as_deref(), Some(rule.short_name())].into_iter().flatten().chain([rule.id.as_str()]);
        for name in names {
            if let Some(other) = self.classes.insert(name.to_owned(), rule.id.clone())
                && other != rule.id
            {
                return Err(format!(
                    "the rule `{other}` answers to `{name}` already; to replace it, give this one the id `{other}`"
                ));
            }
        }
        self.rules.insert(rule.id.clone(), Arc::new(rule));
        Ok(())
    }

    /// The rule of an id or of a class, which may be its last part alone.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Rule>> {
        let find = |name: &str| self.classes.get(name).and_then(|id| self.rules.get(id));
        find(name).or_else(|| find(name.rsplit('.').next().unwrap_or(name)))
    }

    /// All rules, by their ids.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Arc<Rule>> {
        self.rules.values()
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
