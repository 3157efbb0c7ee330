//! CloudTail's `event_config.json`: which events of CloudTrail and of the Activity Log it keeps, and of whom.

use std::fmt::Write;

use collector::activity::keep::{ACTIVITY_LOG, CLOUD_TRAIL, Dialect, Keep, Matcher, Rule, Texts};
use proto::config::suggest;
use serde_json::{Map, Value, json};

use super::Imported;
use super::field::{Field, of_activity_log, of_cloud_trail};
use super::notes::{Kind, Notes};
use super::pattern::{Pattern, pattern};

/// What CloudTail calls a rule without a name.
const NAMELESS: &str = "Unknown Rule";
/// Data events: LookupEvents returns management events alone.
const DATA_EVENTS: [&str; 22] = [
    "AbortMultipartUpload",
    "BatchExecuteStatement",
    "BatchGetItem",
    "BatchWriteItem",
    "CompleteMultipartUpload",
    "CopyObject",
    "CreateMultipartUpload",
    "DeleteItem",
    "DeleteObject",
    "DeleteObjects",
    "GetItem",
    "GetObject",
    "HeadObject",
    "Invoke",
    "ListObjects",
    "ListObjectsV2",
    "PutItem",
    "PutObject",
    "Query",
    "Scan",
    "UpdateItem",
    "UploadPart",
];
/// Names of events that people look for, and that no service has.
const NO_EVENTS: [&str; 1] = ["UpdateSecurityGroup"];

/// What stands above the configuration.
const HEAD: &str = "\
# Made from CloudTail's configuration by `coordinator import cloudtail`. Try it: `coordinator check -c FILE`, then
# `coordinator run --now -c FILE`. The events are kept in the SqliteStore `archive`; `coordinator export` writes them to
# files, and `coordinator query` reads them. What parameters there are stands in collector/README.md, `Activity logs`.
";

/// One of CloudTail's sources, and what reads it here.
struct Log {
    /// As CloudTail calls it.
    source: &'static str,
    key: &'static str,
    class: &'static str,
    dialect: &'static Dialect,
    field: fn(&str) -> Field,
    /// The member that says of whom the log is.
    scopes: &'static str,
}

const LOGS: [Log; 2] = [
    Log {
        source: "AWS CloudTrail",
        key: "awscloudtrail",
        class: "cloudmarker.clouds.awscloudtrail.AwsCloudTrail",
        dialect: &CLOUD_TRAIL,
        field: of_cloud_trail,
        scopes: "account_profile_pairs",
    },
    Log {
        source: "Azure Activity Log",
        key: "azactivitylog",
        class: "cloudmarker.clouds.azactivitylog.AzActivityLog",
        dialect: &ACTIVITY_LOG,
        field: of_activity_log,
        scopes: "subscription_ids",
    },
];

impl Log {
    fn is_aws(&self) -> bool {
        !self.dialect.ignores_case
    }
}

/// Our configuration for one of CloudTail.
///
/// # Errors
/// All that keeps the text from being a configuration of CloudTail, by place.
pub fn cloudtail(text: &str) -> Result<Imported, Vec<String>> {
    let root: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| vec![format!("it is not JSON: {error}")])?;
    let expected = "`dataSources`: a list of sources is expected, as CloudTail's event_config.json has it";
    let sources = root["dataSources"].as_array().ok_or_else(|| vec![expected.to_owned()])?;
    let mut import = Import::default();
    import.unknown_members(&root, "", &["dataSources"]);
    for (at, source) in sources.iter().enumerate() {
        import.source(source, &format!("dataSources[{at}]"));
    }
    if !import.errors.is_empty() {
        return Err(import.errors);
    }
    if import.plugins.is_empty() {
        return Err(vec!["no source has a rule that could be brought over: there is nothing to configure".to_owned()]);
    }
    Ok(Imported { config: config(&import.plugins)?, notes: import.notes })
}

/// The configuration with these plugins.
fn config(plugins: &[(String, &'static str, Map<String, Value>)]) -> Result<String, Vec<String>> {
    let failed = |error: serde_yaml::Error| vec![format!("cannot write YAML: {error}")];
    let keys: Vec<&str> = plugins.iter().map(|(key, ..)| key.as_str()).collect();
    let mut text = HEAD.to_owned();
    // Section by section: an object of JSON has no order of its own.
    text.push_str("plugins:\n");
    for (key, class, params) in plugins {
        let _ = writeln!(text, "  {key}:\n    plugin: {class}\n    params:");
        for name in ["credential", "accounts", "subscriptions", "keep"] {
            let Some(value) = params.get(name) else { continue };
            if let Value::String(word) = value {
                let _ = writeln!(text, "      {name}: {word}");
                continue;
            }
            let yaml = serde_yaml::to_string(value).map_err(failed)?;
            let _ = writeln!(text, "      {name}:");
            for line in yaml.lines() {
                let _ = writeln!(text, "        {line}");
            }
        }
    }
    text.push_str("  archive:\n    plugin: cloudmarker.stores.sqlitestore.SqliteStore\n\n");
    let _ = writeln!(text, "audits:\n  activity:\n    clouds: [{}]\n    stores: [archive]\n", keys.join(", "));
    text.push_str("run: [activity]\n");
    Ok(text)
}

#[derive(Default)]
struct Import {
    plugins: Vec<(String, &'static str, Map<String, Value>)>,
    notes: Notes,
    errors: Vec<String>,
}

impl Import {
    fn note(&mut self, kind: Kind, message: impl Into<String>, place: impl Into<String>) {
        self.notes.add(kind, message, place);
    }

    fn unknown_members(&mut self, object: &Value, place: &str, known: &[&str]) {
        for name in object.as_object().into_iter().flat_map(Map::keys) {
            if !known.contains(&name.as_str()) {
                let hint = suggest::did_you_mean(name, known.iter().copied());
                let message = format!("CloudTail does not know `{name}`, and did nothing with it{hint}");
                self.note(Kind::LeftOut, message, if place.is_empty() { "the file" } else { place });
            }
        }
    }

    fn source(&mut self, source: &Value, place: &str) {
        let Some(name) = source["source"].as_str() else {
            self.errors.push(format!("{place}.source: the name of a source is expected: {}", names()));
            return;
        };
        let Some(rules) = source["lookup_Attributes"].as_array() else {
            self.errors.push(format!("{place}.lookup_Attributes: a list of rules is expected"));
            return;
        };
        let Some(log) = LOGS.iter().find(|log| log.source == name) else {
            let hint = suggest::did_you_mean(name, LOGS.iter().map(|log| log.source));
            let message = format!("there is no source `{name}`{hint}: there are {}", names());
            self.note(Kind::Lost, message, format!("{place}.source"));
            return;
        };
        self.unknown_members(source, place, &["source", "lookup_Attributes", log.scopes]);
        let mut params = Map::new();
        if log.is_aws() {
            self.accounts(&source[log.scopes], &format!("{place}.{}", log.scopes), &mut params);
        } else {
            self.subscriptions(&source[log.scopes], &format!("{place}.{}", log.scopes), &mut params);
        }
        let mut kept: Vec<Rule> = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            self.rule(rule, log, &format!("{place}.lookup_Attributes[{at}]"), &mut kept);
        }
        if kept.is_empty() {
            self.note(Kind::Lost, "none of the source's rules could be brought over, so the source is left out", place);
            return;
        }
        match serde_json::to_value(Keep::Rules(kept)) {
            Ok(rules) => params.insert("keep".to_owned(), rules),
            Err(error) => return self.errors.push(format!("{place}: cannot write its rules: {error}")),
        };
        let same = self.plugins.iter().filter(|(_, class, _)| *class == log.class).count();
        let key = if same == 0 { log.key.to_owned() } else { format!("{}{}", log.key, same + 1) };
        self.plugins.push((key, log.class, params));
    }

    fn accounts(&mut self, pairs: &Value, place: &str, params: &mut Map<String, Value>) {
        let regions = "CloudTail read the one region that a profile is set to; here all regions are read that an account \
                       has enabled: set `regions` for fewer";
        self.note(Kind::Changed, regions, place);
        let pairs = match pairs {
            Value::Null => &Vec::new(),
            Value::Array(pairs) => pairs,
            _ => return self.errors.push(format!("{place}: a list is expected")),
        };
        let mut accounts: Vec<Value> = Vec::new();
        for (at, pair) in pairs.iter().enumerate() {
            let place = format!("{place}[{at}]");
            if !pair.is_object() {
                self.errors.push(format!("{place}: an object with `account_id` and `profile_name` is expected"));
                continue;
            }
            self.unknown_members(pair, &place, &["account_id", "profile_name"]);
            let mut account = Map::new();
            if let Some(id) = self.scope(&pair["account_id"], &format!("{place}.account_id")) {
                if id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit()) {
                    account.insert("account".to_owned(), escaped(&id).into());
                } else {
                    let message = "an account's number has twelve digits; without it, nobody checks that the profile is \
                                   of the right account";
                    self.note(Kind::LeftOut, message, format!("{place}.account_id: {id}"));
                }
            }
            if let Some(profile) = self.scope(&pair["profile_name"], &format!("{place}.profile_name")) {
                account.insert("profile".to_owned(), escaped(&profile).into());
            }
            let account = Value::Object(account);
            if accounts.contains(&account) {
                self.note(Kind::LeftOut, "the account stands there twice", place);
            } else if account != json!({}) {
                accounts.push(account);
            }
        }
        if accounts.is_empty() {
            let message = "no account is named: the one that this host is signed in to is read";
            self.note(Kind::Changed, message, place);
        } else {
            params.insert("accounts".to_owned(), accounts.into());
        }
    }

    fn subscriptions(&mut self, ids: &Value, place: &str, params: &mut Map<String, Value>) {
        let credential = "CloudTail tried all ways to sign in to Azure, one after another; here it is that of `az login` \
                          (`credential: azure_cli`): set another where nobody is signed in";
        self.note(Kind::Changed, credential, place);
        params.insert("credential".to_owned(), "azure_cli".into());
        let ids = match ids {
            Value::Null => &Vec::new(),
            Value::Array(ids) => ids,
            _ => return self.errors.push(format!("{place}: a list is expected")),
        };
        let mut subscriptions: Vec<String> = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            let place = format!("{place}[{at}]");
            let Some(id) = self.scope(id, &place) else { continue };
            if subscriptions.contains(&id) {
                self.note(Kind::LeftOut, "the subscription stands there twice", place);
            } else {
                subscriptions.push(escaped(&id));
            }
        }
        if subscriptions.is_empty() {
            let message = "no subscription is named, and CloudTail read none: here all are read that the sign-in sees; set \
                           `subscriptions` for fewer";
            self.note(Kind::Changed, message, place);
        } else {
            params.insert("subscriptions".to_owned(), subscriptions.into());
        }
    }

    /// A name that stands in the file, unless it is the one that stands there to be replaced.
    fn scope(&mut self, value: &Value, place: &str) -> Option<String> {
        let text = text_of(value)?;
        if text.starts_with("your-") {
            self.note(
                Kind::LeftOut,
                "the example's word, which stands there to be replaced",
                format!("{place}: {text}"),
            );
            return None;
        }
        Some(text)
    }

    fn rule(&mut self, rule: &Value, log: &Log, place: &str, kept: &mut Vec<Rule>) {
        if !rule.is_object() {
            self.errors
                .push(format!("{place}: an object with `RuleName`, `AttributeKey` and `AttributeValue` is expected"));
            return;
        }
        self.unknown_members(rule, place, &["RuleName", "AttributeKey", "AttributeValue", "jmes_filter"]);
        let name = text_of(&rule["RuleName"]);
        if name.is_none() {
            self.note(Kind::Changed, format!("a rule without a name is called `{NAMELESS}`"), place);
        }
        let name = name.unwrap_or_else(|| NAMELESS.to_owned());
        let (field, value) = (text_of(&rule["AttributeKey"]), text_of(&rule["AttributeValue"]));
        let shown = format!("{place} ({name})");
        let filter = self.filter(text_of(&rule["jmes_filter"]), log, &shown);
        let (field, value) = match (field, value) {
            (Some(field), Some(value)) => (field, value),
            (None, None) if filter.is_some() => {
                let made = Rule { rule: escaped(&name), jmespath: filter, ..Rule::default() };
                return self.keep(made, log, &shown, kept);
            }
            _ => {
                let message = "a rule needs `AttributeKey` and `AttributeValue`, or `jmes_filter` alone; CloudTail passed \
                               it over";
                return self.note(Kind::LeftOut, message, shown);
            }
        };
        let shown = format!("{place} ({name}): {value}");
        let field = (log.field)(&field);
        if let Some(note) = field.note {
            self.note(Kind::Changed, note, shown.clone());
        }
        if log.is_aws() && field.name.eq_ignore_ascii_case("eventName") && filter.is_none() {
            let why = if DATA_EVENTS.contains(&value.as_str()) {
                Some("a data event, which LookupEvents never returns (a trail has them, if it is told to)")
            } else {
                NO_EVENTS.contains(&value.as_str()).then_some("no service has such an event")
            };
            if let Some(why) = why {
                return self.note(Kind::LeftOut, why, shown);
            }
        }
        let (pattern, note) = pattern(&value);
        if let Some(note) = note {
            self.note(Kind::Changed, note, shown.clone());
        }
        let mut made =
            Rule { rule: escaped(&name), field: Some(escaped(&field.name)), jmespath: filter, ..Rule::default() };
        match pattern {
            Pattern::Is(value) => made.is = [escaped(&value)].into(),
            Pattern::Like(value) => made.like = [escaped(&value)].into(),
            Pattern::Regex(value) => made.regex = [escaped(&value)].into(),
        }
        self.keep(made, log, &shown, kept);
    }

    fn filter(&mut self, filter: Option<String>, log: &Log, shown: &str) -> Option<String> {
        let filter = filter?;
        if !log.is_aws() {
            let message = "CloudTail had `jmes_filter` for AWS only, and kept all that the rest of the rule finds; \
                           `jmespath` would work here";
            self.note(Kind::LeftOut, message, format!("{shown}: {filter}"));
            return None;
        }
        if !filter.trim_start().starts_with('[') {
            let message = "CloudTail gave the filter a list of events, of which it finds nothing; here it is given each \
                           event (write `[?...]` for a list)";
            self.note(Kind::Changed, message, format!("{shown}: {filter}"));
        }
        Some(escaped(&filter))
    }

    /// Adds a rule to those that there are, or to one of them that differs in its values alone.
    fn keep(&mut self, made: Rule, log: &Log, shown: &str, kept: &mut Vec<Rule>) {
        if let Err(errors) = Matcher::new(&Keep::Rules(vec![made.clone()]), log.dialect) {
            for error in errors {
                self.note(Kind::Lost, error.message, shown);
            }
            return;
        }
        let like_it = kept.iter_mut().find(|rule| {
            rule.rule == made.rule
                && rule.field == made.field
                && rule.jmespath == made.jmespath
                && kind(rule) == kind(&made)
        });
        let Some(rule) = like_it else {
            kept.push(made);
            return;
        };
        let mut is_new = false;
        for (all, one) in [(&mut rule.is, made.is), (&mut rule.like, made.like), (&mut rule.regex, made.regex)] {
            for value in one.0 {
                let is_known = all.0.iter().any(|known| {
                    *known == value || log.dialect.ignores_case && known.to_lowercase() == value.to_lowercase()
                });
                if !is_known {
                    all.0.push(value);
                    is_new = true;
                }
            }
        }
        if !is_new {
            self.note(Kind::LeftOut, "an earlier entry says the same", shown);
        }
    }
}

/// Which of `is`, `like` and `regex` a rule has.
fn kind(rule: &Rule) -> [bool; 3] {
    let has = |texts: &Texts| !texts.0.is_empty();
    [has(&rule.is), has(&rule.like), has(&rule.regex)]
}

fn names() -> String {
    LOGS.map(|log| format!("`{}`", log.source)).join(" and ")
}

/// A text, or a number as one; nothing for what is empty.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.trim().is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A value in which nothing is taken for a reference: `$$` and `${` mean something in a configuration.
fn escaped(text: &str) -> String {
    text.replace("$$", "$$$$").replace("${", "$${")
}
