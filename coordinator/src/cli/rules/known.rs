//! The rules that a command knows, and the one that it is about.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use evaluator::record::Record;
use evaluator::rule::{Instance, Pack, Rule, RuleError, Type, built_in, read_files};
use evaluator::rules::time_of;
use jiff::Timestamp;
use proto::config::{Environment, load, rules_section, suggest};
use proto::subject::Version;
use serde_json::{Map, Value};

use super::Refused;

/// Where rules come from beside those that are built in.
#[derive(Debug, Args)]
pub(super) struct Sources {
    /// A configuration whose own rules (`rules:`) are known, too; it may be given several times.
    #[arg(short, long, value_name = "FILE", action = clap::ArgAction::Append)]
    config: Vec<PathBuf>,
}

impl Sources {
    /// All rules.
    pub(super) fn pack(&self) -> Result<Pack, Refused> {
        if self.config.is_empty() {
            return Ok(built_in().clone());
        }
        let environment = Environment::of_process();
        let loaded = load(Some(&self.config), &environment);
        let paths = rules_section(&loaded)
            .map_err(|problems| Refused(problems.iter().map(ToString::to_string).collect()))?
            .into_iter()
            .map(|path| if path.starts_with("~") { environment.path(path) } else { path });
        let texts = read_files(&paths.collect::<Vec<_>>()).map_err(refused)?;
        built_in().with(&texts).map_err(refused)
    }

    /// The rule of an id, of a class or of a file.
    pub(super) fn rule(&self, name: &str) -> Result<Arc<Rule>, Refused> {
        if is_file(name) {
            return of_file(Path::new(name));
        }
        let pack = self.pack()?;
        if let Some(rule) = pack.get(name) {
            return Ok(Arc::clone(rule));
        }
        let short = |class: &'_ str| class.rsplit('.').next().unwrap_or_default().to_owned();
        let mut names: Vec<String> = pack.names().map(|(id, _)| id.to_owned()).collect();
        names.extend(pack.names().filter_map(|(_, class)| class.map(short)));
        let hint = suggest::did_you_mean(name, names.iter().map(String::as_str));
        let near: Vec<&str> = names.iter().filter(|id| id.contains(name)).map(String::as_str).take(5).collect();
        let hint = match near.as_slice() {
            [] => hint,
            _ if !hint.is_empty() => hint,
            near => format!("; these have it in their names: {}", near.join(", ")),
        };
        Err(format!(
            "there is no rule `{name}`{hint}; `coordinator rules` lists all, and a file is named with its ending"
        )
        .into())
    }
}

/// Whether a rule is named by its file.
fn is_file(name: &str) -> bool {
    let path = Path::new(name);
    name.contains('/') || path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn of_file(path: &Path) -> Result<Arc<Rule>, Refused> {
    let texts = read_files(&[path.to_owned()]).map_err(refused)?;
    let pack = Pack::default().with(&texts).map_err(refused)?;
    let mut rules = pack.rules();
    match (rules.next(), rules.len()) {
        (Some(rule), 0) => Ok(Arc::clone(rule)),
        (_, more) => Err(format!("{} has {} rules; name one of its files", path.display(), more + 1).into()),
    }
}

pub(super) fn refused(errors: Vec<RuleError>) -> Refused {
    Refused(errors.iter().map(ToString::to_string).collect())
}

/// How a rule looks at records.
#[derive(Debug, Args)]
pub(super) struct Look {
    /// Sets a parameter of the rule: `ports=22,80`, `min_tls_version=1.3`.
    #[arg(long = "param", value_name = "NAME=VALUE", action = clap::ArgAction::Append)]
    params: Vec<String>,
    /// The time of the run, such as 2026-01-31T00:00:00Z, instead of the one that the records were read at.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
}

impl Look {
    /// The rule with the parameters.
    pub(super) fn instance(&self, rule: &Arc<Rule>) -> Result<Instance, Refused> {
        let mut params = Map::new();
        for given in &self.params {
            let Some((name, value)) = given.split_once('=') else {
                return Err(format!("--param: found `{given}`; NAME=VALUE is expected").into());
            };
            let kind = rule.params.iter().find(|param| param.name == name).map(|param| &param.kind);
            if params.insert(name.to_owned(), value_of(kind, value)).is_some() {
                return Err(format!("--param: `{name}` is set twice").into());
            }
        }
        let wrong = |errors: Vec<proto::catalogue::ParamError>| {
            Refused(errors.iter().map(|error| format!("--param: {}: {}", error.path, error.message)).collect())
        };
        Instance::new(rule, &Value::Object(params)).map_err(wrong)
    }

    /// The time at which a record is looked at: when the run that read it began, if nobody says otherwise.
    pub(super) fn now(&self, record: &Record<'_>) -> Timestamp {
        let of_version = || Version::new(record.com_text("audit_version")?).ok().map(|version| time_of(&version));
        self.now.or_else(of_version).unwrap_or_else(Timestamp::now)
    }
}

/// A value as a command line writes it: JSON, or the text itself; items of a list with commas between them.
fn value_of(kind: Option<&Type>, text: &str) -> Value {
    let json = || serde_json::from_str(text).ok();
    match kind {
        Some(Type::Text | Type::Duration | Type::Version) => {
            json().filter(Value::is_null).unwrap_or_else(|| text.into())
        }
        Some(Type::List(item)) => {
            json().filter(|value: &Value| value.is_array() || value.is_null()).unwrap_or_else(|| {
                let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
                let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|text| value_of(Some(item), text)).collect()
            })
        }
        _ => json().unwrap_or_else(|| text.into()),
    }
}

/// What records a rule looks at, in words.
pub(super) fn looks_at(rule: &Rule) -> String {
    let parts = [("cloud", &rule.clouds), ("ext.record_type", &rule.ext_types), ("com.record_type", &rule.com_types)];
    let said: Vec<String> = parts
        .into_iter()
        .filter_map(|(name, words)| words.as_ref().map(|words| format!("{name} {}", words.join(" or "))))
        .collect();
    if said.is_empty() { "all records".to_owned() } else { said.join(", ") }
}

/// The cloud and the service that a rule is about, by the folders that it stands in.
pub(super) fn place_of(rule: &Rule) -> (String, String) {
    let mut folders = Path::new(&rule.file).parent().into_iter().flat_map(Path::components).rev();
    let mut folder = || folders.next().map(|folder| folder.as_os_str().to_string_lossy().into_owned());
    let is_built_in = built_in().get(&rule.id).is_some_and(|other| std::ptr::eq(&**other, rule));
    let (service, cloud) = (folder().unwrap_or_default(), folder().filter(|_| is_built_in));
    let cloud = match (&rule.clouds, cloud) {
        (Some(clouds), _) => clouds.join(", "),
        // A service with no folders above it is a cloud of its own: mock.
        (None, None) if is_built_in => service.clone(),
        (None, cloud) => cloud.unwrap_or_else(|| "any".to_owned()),
    };
    (cloud, service)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_as_the_parameter_wants_them() {
        let list = |item| Some(Type::List(Box::new(item)));
        for (kind, text, value) in [
            (list(Type::Port), "22,80", json!([22, 80])),
            (list(Type::Port), "[22, 80]", json!([22, 80])),
            (list(Type::Text), "[a b, c]", json!(["a b", "c"])),
            (list(Type::Text), "", json!([])),
            (list(Type::Text), "1,2", json!(["1", "2"])),
            (Some(Type::Version), "1.10", json!("1.10")),
            (Some(Type::Text), "true", json!("true")),
            (Some(Type::Int), "5", json!(5)),
            (Some(Type::Int), "x", json!("x")),
            (Some(Type::Bool), "false", json!(false)),
            (Some(Type::Text), "null", json!(null)),
            (None, "5", json!(5)),
        ] {
            assert_eq!(value_of(kind.as_ref(), text), value, "{text}");
        }
    }

    #[test]
    fn built_in_rules_say_where_they_stand() {
        let place = |id: &str| place_of(built_in().get(id).unwrap());
        let words = |cloud: &str, service: &str| (cloud.to_owned(), service.to_owned());
        assert_eq!(place("azure_storage_minimum_tls_version"), words("azure", "storage"));
        assert_eq!(place("firewall_rule_internet"), words("any", "network"));
        assert_eq!(place("mock_event"), words("mock", "mock"));
    }
}
