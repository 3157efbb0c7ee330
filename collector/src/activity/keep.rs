//! Which events of an activity log are kept: the parameter `keep`.
//!
//! ```
//! use collector::activity::keep::{CLOUD_TRAIL, Event, Keep, Matcher};
//! use serde_json::json;
//!
//! let keep: Keep = serde_json::from_value(json!([
//!     {"rule": "Users", "field": "eventName", "is": ["CreateUser", "DeleteUser"]},
//!     {"rule": "Deletions", "field": "eventName", "like": "Delete*"},
//! ]))?;
//! let matcher = Matcher::new(&keep, &CLOUD_TRAIL).unwrap();
//! let event = Event { log: r#"{"eventName": "DeleteUser"}"#, own: &[] };
//! assert_eq!(matcher.holding(&event)?, Some(vec!["Users", "Deletions"]));
//! let event = Event { log: r#"{"eventName": "GetUser"}"#, own: &[] };
//! assert_eq!(matcher.holding(&event)?, None);
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use jmespath::ast::Ast;
use jmespath::{ErrorReason, Expression, RuntimeError, Variable};
use proto::catalogue::ParamError;
use proto::config::secret::has_reference;
use proto::identity::Id;
use regex::{Regex, RegexBuilder};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::members::Members;

/// Which events are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// All.
    All,
    /// Those for which any of the rules holds.
    Rules(Vec<Rule>),
}

/// A rule of what is kept, as a configuration has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name; several may have the same.
    pub rule: String,
    /// The field that `is`, `like` and `regex` are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Values.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub is: Texts,
    /// Patterns for the whole value: `*` is any text, `?` one character.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub like: Texts,
    /// Regular expressions, found anywhere in the value.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub regex: Texts,
    /// A JMESPath expression over the event; over a list of the event alone if it begins with `[`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jmespath: Option<String>,
}

/// A text or a list of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

impl Texts {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Into<String>, const N: usize> From<[T; N]> for Texts {
    fn from(texts: [T; N]) -> Self {
        Self(texts.into_iter().map(Into::into).collect())
    }
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            texts => serializer.collect_seq(texts),
        }
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Texts, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Texts)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Rules(rules) => {
                let mut list = serializer.serialize_seq(Some(rules.len()))?;
                rules.iter().try_for_each(|rule| list.serialize_element(rule))?;
                list.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Keep;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of rules, or `all`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Keep, E> {
                match text {
                    "all" => Ok(Keep::All),
                    _ => Err(de::Error::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Keep, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Keep::Rules)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// How the events of a log are looked at.
#[derive(Debug)]
pub struct Dialect {
    /// Fields that are not members of the log event: its envelope has them.
    pub own_fields: &'static [&'static str],
    /// Whether upper and lower case are the same.
    pub ignores_case: bool,
}

/// CloudTrail. Its own fields are those that LookupEvents can be asked for.
pub const CLOUD_TRAIL: Dialect = Dialect {
    own_fields: &[
        "EventId",
        "EventName",
        "ReadOnly",
        "Username",
        "ResourceType",
        "ResourceName",
        "EventSource",
        "AccessKeyId",
    ],
    ignores_case: false,
};

/// Azure's Activity Log, in which one operation is spelt in several ways.
pub const ACTIVITY_LOG: Dialect = Dialect { own_fields: &[], ignores_case: true };

/// An event, as a log gives it.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// The log event, as JSON.
    pub log: &'a str,
    /// The values of the envelope's own fields; one may have several.
    pub own: &'a [(&'static str, &'a str)],
}

/// Rules, ready to be asked.
#[derive(Debug)]
pub struct Matcher {
    /// `None`: everything is kept.
    rules: Option<Vec<Compiled>>,
    members: Members,
    digest: String,
}

#[derive(Debug)]
struct Compiled {
    name: Arc<str>,
    field: Option<Field>,
    /// In lower case if case makes no difference.
    is: HashSet<String>,
    ignores_case: bool,
    patterns: Vec<Regex>,
    jmespath: Option<Filter>,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Own(&'static str),
    Member(usize),
}

struct Filter {
    expression: Expression<'static>,
    /// It is for a list of events.
    of_list: bool,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expression.as_str())
    }
}

/// A compiled pattern takes at most so many bytes.
const MOST_PATTERN_BYTES: usize = 1024 * 1024;

impl Matcher {
    /// Prepares rules.
    ///
    /// # Errors
    /// All that is wrong with them, by their places below `keep`. What holds a reference like `${CM_ADMIN}` is not
    /// looked at.
    pub fn new(keep: &Keep, dialect: &Dialect) -> Result<Self, Vec<ParamError>> {
        let text = serde_json::to_string(keep).unwrap_or_default();
        let digest = Id::digest(text.as_bytes()).to_string();
        let Keep::Rules(rules) = keep else { return Ok(Self { rules: None, members: Members::default(), digest }) };
        let (mut members, mut errors, mut compiled) = (Members::default(), Vec::new(), Vec::new());
        if rules.is_empty() {
            errors.push(error("keep", "no rule would keep nothing: name rules, or write `keep: all`".to_owned()));
        }
        for (at, rule) in rules.iter().enumerate() {
            compiled.push(Compiled::new(rule, &format!("keep[{at}]"), dialect, &mut members, &mut errors));
        }
        if errors.is_empty() { Ok(Self { rules: Some(compiled), members, digest }) } else { Err(errors) }
    }

    /// Says which rules these are: others have another digest.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The names of the rules that hold, if the event is kept.
    ///
    /// # Errors
    /// When the event is not JSON.
    pub fn holding(&self, event: &Event<'_>) -> serde_json::Result<Option<Vec<&str>>> {
        let Some(rules) = &self.rules else { return Ok(Some(Vec::new())) };
        let values = self.members.values(event.log)?;
        let mut document = Document { text: event.log, parsed: None };
        let mut names: Vec<&str> = Vec::new();
        for rule in rules {
            if !names.contains(&&*rule.name) && rule.holds(event, &values, &mut document) {
                names.push(&rule.name);
            }
        }
        Ok((!names.is_empty()).then_some(names))
    }
}

/// The event for expressions, parsed when the first of them needs it.
struct Document<'a> {
    text: &'a str,
    /// The event, and a list of it.
    parsed: Option<(jmespath::Rcvar, jmespath::Rcvar)>,
}

impl Document<'_> {
    fn of(&mut self, filter: &Filter) -> jmespath::Rcvar {
        let (event, list) = self.parsed.get_or_insert_with(|| {
            // It has been read already: an error cannot be.
            let event = Arc::new(Variable::from_json(self.text).unwrap_or(Variable::Null));
            let list = Arc::new(Variable::Array(vec![Arc::clone(&event)]));
            (event, list)
        });
        Arc::clone(if filter.of_list { list } else { event })
    }
}

impl Compiled {
    fn new(rule: &Rule, place: &str, dialect: &Dialect, members: &mut Members, errors: &mut Vec<ParamError>) -> Self {
        let has_values = !(rule.is.is_empty() && rule.like.is_empty() && rule.regex.is_empty());
        let mut wrong = |name: &str, message: String| errors.push(error(&format!("{place}{name}"), message));
        match (&rule.field, has_values) {
            (None, true) => wrong(".field", "set `field`: what `is`, `like` and `regex` are about".into()),
            (Some(_), false) => wrong("", "`field` needs one of `is`, `like` and `regex`".into()),
            (None, false) if rule.jmespath.is_none() => {
                wrong("", "the rule says nothing: set `field` with `is`, `like` or `regex`, or set `jmespath`".into());
            }
            _ => {}
        }
        if rule.rule.trim().is_empty() {
            wrong(".rule", "the name is empty".into());
        }
        let field = rule.field.as_deref().and_then(|field| {
            if field.split('.').any(str::is_empty) {
                wrong(".field", format!("{field:?} is not a field: write it like `eventName` or `userIdentity.arn`"));
                return None;
            }
            let own = dialect.own_fields.iter().find(|own| **own == field);
            Some(own.map_or_else(|| Field::Member(members.add(field)), |own| Field::Own(own)))
        });
        let mut patterns = Vec::new();
        let texts = |name: &'static str, texts: &'_ Texts| {
            texts
                .0
                .iter()
                .enumerate()
                .map(move |(at, text)| (format!(".{name}[{at}]"), text.clone()))
                .collect::<Vec<_>>()
        };
        let likes = texts("like", &rule.like).into_iter().map(|(name, text)| (name, wildcards(&text), text));
        let regexes = texts("regex", &rule.regex).into_iter().map(|(name, text)| (name, text.clone(), text));
        for (name, pattern, text) in likes.chain(regexes) {
            let builder = &mut RegexBuilder::new(&pattern);
            let builder = builder.case_insensitive(dialect.ignores_case).size_limit(MOST_PATTERN_BYTES);
            match builder.build() {
                Ok(pattern) => patterns.push(pattern),
                Err(_) if has_reference(&text) => {}
                Err(why) => wrong(&name, format!("{text:?} is not a regular expression: {}", in_short(&why))),
            }
        }
        let jmespath = rule.jmespath.as_deref().and_then(|text| match jmespath::compile(text) {
            Ok(expression) => {
                for why in wrong_calls(expression.as_ast()) {
                    wrong(".jmespath", format!("{text:?} is not a JMESPath expression: {why}"));
                }
                Some(Filter { expression, of_list: text.trim_start().starts_with('[') })
            }
            Err(_) if has_reference(text) => None,
            Err(why) => {
                let why = why.to_string();
                let why = why.lines().next().unwrap_or_default();
                wrong(".jmespath", format!("{text:?} is not a JMESPath expression: {why}"));
                None
            }
        });
        let folded = |text: &String| if dialect.ignores_case { text.to_lowercase() } else { text.clone() };
        Self {
            name: rule.rule.as_str().into(),
            field,
            is: rule.is.0.iter().map(folded).collect(),
            ignores_case: dialect.ignores_case,
            patterns,
            jmespath,
        }
    }

    fn holds(&self, event: &Event<'_>, values: &[Vec<Cow<'_, str>>], document: &mut Document<'_>) -> bool {
        let by_value = match self.field {
            None => true,
            Some(Field::Own(name)) => event.own.iter().any(|(own, value)| *own == name && self.matches(value)),
            Some(Field::Member(at)) => values.get(at).is_some_and(|values| values.iter().any(|it| self.matches(it))),
        };
        by_value && self.jmespath.as_ref().is_none_or(|filter| filter.holds(document))
    }

    fn matches(&self, value: &str) -> bool {
        let is = if self.ignores_case { self.is.contains(&value.to_lowercase()) } else { self.is.contains(value) };
        is || self.patterns.iter().any(|pattern| pattern.is_match(value))
    }
}

impl Filter {
    /// An expression that cannot be evaluated, like a search in what is null, finds nothing.
    fn holds(&self, document: &mut Document<'_>) -> bool {
        self.expression.search(document.of(self)).is_ok_and(|found| found.is_truthy())
    }
}

/// What is wrong with the calls in an expression: functions that there are not, and wrong numbers of arguments. The
/// library finds that out when it evaluates a call; nothing would ever be kept, and nobody told.
fn wrong_calls(ast: &Ast) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut left = vec![ast];
    while let Some(ast) = left.pop() {
        match ast {
            Ast::Function { name, args, .. } => {
                left.extend(args);
                let call = format!("{name}({})", vec!["@"; args.len()].join(", "));
                let tried = jmespath::compile(&call).and_then(|call| call.search(Variable::Null));
                match tried.map_err(|error| error.reason) {
                    Err(ErrorReason::Runtime(RuntimeError::UnknownFunction(name))) => {
                        wrong.push(format!("there is no function `{name}`"));
                    }
                    Err(ErrorReason::Runtime(
                        RuntimeError::TooManyArguments { expected, actual }
                        | RuntimeError::NotEnoughArguments { expected, actual },
                    )) => wrong.push(format!("`{name}` takes {expected} arguments, not {actual}")),
                    _ => {}
                }
            }
            Ast::Comparison { lhs, rhs, .. }
            | Ast::Projection { lhs, rhs, .. }
            | Ast::And { lhs, rhs, .. }
            | Ast::Or { lhs, rhs, .. }
            | Ast::Subexpr { lhs, rhs, .. }
            | Ast::Condition { predicate: lhs, then: rhs, .. } => left.extend([&**lhs, &**rhs]),
            Ast::Expref { ast: node, .. }
            | Ast::Flatten { node, .. }
            | Ast::Not { node, .. }
            | Ast::ObjectValues { node, .. } => left.push(node),
            Ast::MultiList { elements, .. } => left.extend(elements),
            Ast::MultiHash { elements, .. } => left.extend(elements.iter().map(|pair| &pair.value)),
            _ => {}
        }
    }
    wrong
}

/// The regular expression of a pattern for a whole value.
fn wildcards(pattern: &str) -> String {
    let mut regex = String::from("(?s)^");
    for part in pattern.split_inclusive(['*', '?']) {
        let (text, wildcard) = match part.strip_suffix(['*', '?']) {
            Some(text) => (text, if part.ends_with('*') { ".*" } else { "." }),
            None => (part, ""),
        };
        regex.push_str(&regex::escape(text));
        regex.push_str(wildcard);
    }
    regex.push('$');
    regex
}

/// What is wrong with a regular expression, without the drawing of it.
fn in_short(why: &regex::Error) -> String {
    let text = why.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

fn error(path: &str, message: String) -> ParamError {
    ParamError { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn matcher(rules: Value, dialect: &Dialect) -> Matcher {
        Matcher::new(&serde_json::from_value(rules).unwrap(), dialect).unwrap()
    }

    fn holds(rule: Value, event: &Value, dialect: &Dialect) -> bool {
        let mut rule = rule;
        rule["rule"] = "r".into();
        let text = event.to_string();
        let own = [("Username", "Ann"), ("ResourceType", "AWS::IAM::User"), ("ResourceType", "AWS::IAM::Role")];
        matcher(json!([rule]), dialect).holding(&Event { log: &text, own: &own }).unwrap().is_some()
    }

    #[test]
    fn a_value_is_the_same_text_and_nothing_in_it_is_special() {
        let event =
            json!({"eventSource": "s3.amazonaws.com", "n": 5, "b": true, "none": null, "list": ["x", {"y": 1}]});
        for (field, is, expected) in [
            ("eventSource", "s3.amazonaws.com", true),
            ("eventSource", "s3.*", false),
            ("eventSource", "S3.amazonaws.com", false),
            ("n", "5", true),
            ("b", "true", true),
            ("none", "null", false),
            ("none", "", false),
            ("missing", "", false),
            ("list", "x", true),
            ("list.y", "1", true),
            ("eventSource.x", "s3.amazonaws.com", false),
        ] {
            assert_eq!(holds(json!({"field": field, "is": is}), &event, &CLOUD_TRAIL), expected, "{field} {is}");
        }
    }

    #[test]
    fn wildcards_are_for_the_whole_value_and_expressions_for_any_part() {
        let event = json!({"eventName": "Delete.User"});
        for (rule, expected) in [
            (json!({"like": "Delete*"}), true),
            (json!({"like": "delete*"}), false),
            (json!({"like": "Delete?User"}), true),
            (json!({"like": "*.User"}), true),
            (json!({"like": "*xUser"}), false),
            (json!({"like": "elete*"}), false),
            (json!({"like": ["nothing", "*"]}), true),
            (json!({"regex": "e\\.U"}), true),
            (json!({"regex": "^e"}), false),
            (json!({"regex": ".*User$"}), true),
        ] {
            let mut rule = rule;
            rule["field"] = "eventName".into();
            assert_eq!(holds(rule.clone(), &event, &CLOUD_TRAIL), expected, "{rule}");
        }
    }

    #[test]
    fn azure_spells_in_many_ways() {
        let event =
            json!({"operationName": {"value": "MICROSOFT.COMPUTE/virtualMachines/write", "localizedValue": "x"}});
        for rule in [
            json!({"is": "Microsoft.Compute/virtualMachines/write"}),
            json!({"like": "microsoft.compute/*/WRITE"}),
            json!({"regex": "^Microsoft\\.Compute/"}),
        ] {
            let mut rule = rule;
            rule["field"] = "operationName".into();
            assert!(holds(rule.clone(), &event, &ACTIVITY_LOG), "{rule}");
            assert!(!holds(rule.clone(), &event, &CLOUD_TRAIL), "{rule}");
        }
    }

    #[test]
    fn the_envelope_has_fields_of_its_own() {
        let event = json!({"Username": "other"});
        assert!(holds(json!({"field": "Username", "is": "Ann"}), &event, &CLOUD_TRAIL));
        assert!(!holds(json!({"field": "Username", "is": "other"}), &event, &CLOUD_TRAIL));
        assert!(holds(json!({"field": "ResourceType", "like": "*::Role"}), &event, &CLOUD_TRAIL));
        assert!(holds(json!({"field": "Username", "is": "other"}), &event, &ACTIVITY_LOG));
    }

    #[test]
    fn jmespath_is_over_the_event_or_a_list_of_it() {
        let event = json!({"eventName": "CreateUser", "userIdentity": {"userName": "admin-user"}, "tags": []});
        for (rule, expected) in [
            (json!({"jmespath": "userIdentity.userName == 'admin-user'"}), true),
            (json!({"jmespath": "[?userIdentity.userName == 'admin-user']"}), true),
            (json!({"jmespath": "[?userIdentity.userName == 'x']"}), false),
            (json!({"jmespath": "tags"}), false),
            (json!({"jmespath": "starts_with(missing, 'x')"}), false),
            (json!({"jmespath": "userIdentity", "field": "eventName", "is": "CreateUser"}), true),
            (json!({"jmespath": "userIdentity", "field": "eventName", "is": "DeleteUser"}), false),
            (json!({"jmespath": "nothing", "field": "eventName", "is": "CreateUser"}), false),
        ] {
            assert_eq!(holds(rule.clone(), &event, &CLOUD_TRAIL), expected, "{rule}");
        }
    }

    #[test]
    fn a_call_that_can_never_be_made_is_an_error_at_once() {
        let errors = |text: &str| {
            let keep = serde_json::from_value(json!([{"rule": "r", "jmespath": text}])).unwrap();
            let errors = Matcher::new(&keep, &CLOUD_TRAIL).map(drop).err().unwrap_or_default();
            errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; ")
        };
        assert!(errors("[?start_with(eventName, 'x')]").contains("there is no function `start_with`"));
        assert!(errors("a && !contains(eventName)").contains("`contains` takes 2 arguments, not 1"));
        assert!(errors("{x: [length(a, b)]}").contains("`length` takes 1 arguments, not 2"));
        for good in ["[?contains(eventName, 'x')]", "not_null(a, b, c)", "sort_by(tags, &key)[0]", "join('', keys(@))"]
        {
            assert_eq!(errors(good), "", "{good}");
        }
    }

    #[test]
    fn names_come_once_and_all_is_all() {
        let rules = json!([
            {"rule": "b", "field": "eventName", "is": "x"},
            {"rule": "a", "field": "eventName", "like": "*"},
            {"rule": "b", "field": "eventName", "regex": "x"},
        ]);
        let event = Event { log: r#"{"eventName":"x"}"#, own: &[] };
        assert_eq!(matcher(rules, &CLOUD_TRAIL).holding(&event).unwrap(), Some(vec!["b", "a"]));
        assert_eq!(matcher(json!("all"), &CLOUD_TRAIL).holding(&event).unwrap(), Some(vec![]));
        let broken = Event { log: "{", own: &[] };
        assert!(matcher(json!([{"rule": "b", "field": "e", "is": "x"}]), &CLOUD_TRAIL).holding(&broken).is_err());
    }

    #[test]
    fn other_rules_have_another_digest() {
        let digest = |rules| matcher(rules, &CLOUD_TRAIL).digest().to_owned();
        let one = json!([{"rule": "a", "field": "eventName", "is": ["x"]}]);
        assert_eq!(digest(one.clone()), digest(json!([{"rule": "a", "is": "x", "field": "eventName"}])));
        assert_ne!(digest(one), digest(json!([{"rule": "a", "field": "eventName", "is": ["y"]}])));
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let keep: Keep = serde_json::from_value(json!([
            {"rule": "", "is": "x"},
            {"rule": "a", "field": "x"},
            {"rule": "a"},
            {"rule": "a", "field": "a..b", "regex": ["ok", "(("]},
            {"rule": "a", "jmespath": "[?x"},
            {"rule": "a", "field": "x", "regex": "(${CM_X}"},
        ]))
        .unwrap();
        let errors = Matcher::new(&keep, &CLOUD_TRAIL).unwrap_err();
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "keep[0].field",
                "keep[0].rule",
                "keep[1]",
                "keep[2]",
                "keep[3].field",
                "keep[3].regex[1]",
                "keep[4].jmespath"
            ]
        );
        assert!(Matcher::new(&Keep::Rules(vec![]), &CLOUD_TRAIL).is_err());
        assert!(serde_json::from_value::<Keep>(json!("everything")).is_err());
        assert!(serde_json::from_value::<Keep>(json!([{"rule": "a", "fild": "x"}])).is_err());
    }

    #[test]
    fn a_configuration_is_written_as_it_is_read() {
        let text = json!([{"rule": "a", "field": "eventName", "is": ["x", "y"], "like": "z*"}]);
        let keep: Keep = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(&keep).unwrap(), text);
    }
}
