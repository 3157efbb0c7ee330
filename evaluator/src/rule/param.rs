//! The parameters of rules: their types, and what is wrong with those of a configuration.

use std::fmt;

use proto::catalogue::ParamError;
use proto::config::{params, suggest};
use serde_json::{Map, Value};

use super::file::ParamFile;
use crate::json::Json;
use crate::native::time;

/// A parameter of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// What it can be.
    pub kind: Type,
    /// What it is unless a configuration sets it. Null is none.
    pub default: Value,
    /// What it is for.
    pub about: String,
    /// The least number.
    pub min: Option<f64>,
    /// The greatest number.
    pub max: Option<f64>,
    /// The only texts.
    pub allowed: Option<Vec<String>>,
    nonzero: bool,
}

/// What a parameter can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// A whole number.
    Int,
    /// A number.
    Number,
    /// A text.
    Text,
    /// True or false.
    Bool,
    /// A length of time: `90d`.
    Duration,
    /// A port.
    Port,
    /// A version: a text, or a number such as 1.2.
    Version,
    /// A list.
    List(Box<Type>),
}

impl Type {
    fn parse(word: &str) -> Option<Self> {
        Some(match word.trim() {
            "int" => Self::Int,
            "number" => Self::Number,
            "string" => Self::Text,
            "bool" => Self::Bool,
            "duration" => Self::Duration,
            "port" => Self::Port,
            "version" => Self::Version,
            other => match Self::parse(other.strip_prefix("list of ")?)? {
                Self::List(_) => return None,
                item => Self::List(Box::new(item)),
            },
        })
    }

    fn expected(&self) -> &'static str {
        match self {
            Self::Int => "a whole number",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Bool => "`true` or `false`",
            Self::Duration => "a duration such as `90d` or `1h 30m`",
            Self::Port => "a port from 0 to 65535",
            Self::Version => "a version such as \"1.2\"",
            Self::List(_) => "a list",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int => f.write_str("int"),
            Self::Number => f.write_str("number"),
            Self::Text => f.write_str("string"),
            Self::Bool => f.write_str("bool"),
            Self::Duration => f.write_str("duration"),
            Self::Port => f.write_str("port"),
            Self::Version => f.write_str("version"),
            Self::List(item) => write!(f, "list of {item}"),
        }
    }
}

impl Param {
    /// A parameter as a rule file declares it.
    pub(super) fn declared(name: &str, file: ParamFile) -> Result<Self, String> {
        let Some(kind) = Type::parse(&file.kind) else {
            return Err(format!(
                "there is no type `{}` (allowed: int, number, string, bool, duration, port, version, list of one of them)",
                file.kind
            ));
        };
        let ParamFile { default, min, max, allowed, nonzero, about, .. } = file;
        let mut param = Self { name: name.to_owned(), kind, default: Value::Null, about, min, max, allowed, nonzero };
        if !default.is_null() {
            let read = param.read(&default);
            param.default = read.map_err(|errors| {
                let error =
                    errors.first().map(|error| format!("{}: {}", error.path, error.message)).unwrap_or_default();
                format!("the default is wrong: {error}")
            })?;
        }
        Ok(param)
    }

    /// Reads a value that is not null.
    fn read(&self, value: &Value) -> Result<Value, Vec<ParamError>> {
        let Type::List(item) = &self.kind else {
            return self.read_as(&self.kind, value).map_err(|message| vec![self.error("", message)]);
        };
        let Value::Array(items) = value else {
            let hint = if value.is_object() { "" } else { "; write `[...]`" };
            let message = format!("found {}; a list is expected{hint}", params::describe(value));
            return Err(vec![self.error("", message)]);
        };
        let (mut read, mut errors) = (Vec::new(), Vec::new());
        for (index, value) in items.iter().enumerate() {
            match self.read_as(item, value) {
                Ok(value) => read.push(value),
                Err(message) => errors.push(self.error(&format!("[{index}]"), message)),
            }
        }
        if errors.is_empty() { Ok(Value::Array(read)) } else { Err(errors) }
    }

    fn read_as(&self, kind: &Type, value: &Value) -> Result<Value, String> {
        let read = match (kind, value) {
            (Type::Int, Value::Number(number)) => whole(number).map(Value::from),
            (Type::Number, Value::Number(_)) => Some(value.clone()),
            (Type::Text, Value::String(_)) => Some(value.clone()),
            (Type::Bool, Value::Bool(_)) => Some(value.clone()),
            (Type::Bool, Value::String(word)) => params::boolean(word).map(Value::from),
            (Type::Duration, Value::String(text)) => time::length(text).map(|_| value.clone()),
            (Type::Port, Value::Number(number)) => {
                whole(number).and_then(|port| u16::try_from(port).ok()).map(Value::from)
            }
            (Type::Port, Value::String(text)) => {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse::<u16>().ok().filter(|_| digits).map(Value::from)
            }
            (Type::Version, Value::String(text)) => crate::native::version::parse(text).map(|_| value.clone()),
            (Type::Version, Value::Number(number)) => Some(Value::String(number.to_string())),
            _ => None,
        };
        let Some(read) = read else {
            let quotes = match (kind, value) {
                (Type::Text, Value::Number(_) | Value::Bool(_)) => "; write it in quotes",
                _ => "",
            };
            return Err(format!("found {}; {} is expected{quotes}", params::describe(value), kind.expected()));
        };
        let number = read.as_f64();
        let outside = |limit: Option<f64>, wrong: fn(f64, f64) -> bool| matches!((limit, number), (Some(limit), Some(number)) if wrong(number, limit));
        let limits = match (self.min, self.max) {
            (Some(min), Some(max)) => format!("a number from {min} to {max}"),
            (Some(min), None) => format!("a number of at least {min}"),
            (None, Some(max)) => format!("a number of at most {max}"),
            (None, None) => String::new(),
        };
        if outside(self.min, |number, min| number < min) || outside(self.max, |number, max| number > max) {
            return Err(format!("found {}; {limits} is expected", params::describe(value)));
        }
        if self.nonzero && number == Some(0.0) {
            return Err("found the number 0; any other number is expected".to_owned());
        }
        if let (Some(allowed), Value::String(word)) = (&self.allowed, &read)
            && !allowed.contains(word)
        {
            let hint = suggest::did_you_mean(word, allowed.iter().map(String::as_str));
            return Err(format!("found {}{hint} (allowed: {})", params::describe(value), allowed.join(", ")));
        }
        Ok(read)
    }

    fn error(&self, below: &str, message: String) -> ParamError {
        ParamError { path: format!("{}{below}", self.name), message }
    }
}

/// A whole number; `22.0`, as a program may have written it, is one.
fn whole(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
    })
}

/// Reads the parameters of a configuration.
///
/// # Errors
/// All that is wrong with them.
pub(super) fn read(declared: &[Param], given: &Value) -> Result<Json<'static>, Vec<ParamError>> {
    let none = Map::new();
    let given = match given {
        Value::Null => &none,
        Value::Object(given) => given,
        other => {
            let found = params::describe(other);
            let message = format!("found {found}; a mapping of parameters is expected (`name: value`)");
            return Err(vec![ParamError { path: String::new(), message }]);
        }
    };
    let names: Vec<&str> = declared.iter().map(|param| param.name.as_str()).collect();
    let unknown = given.keys().filter(|name| !names.contains(&name.as_str()));
    let mut errors: Vec<ParamError> = unknown
        .map(|name| ParamError { path: name.clone(), message: suggest::unknown("parameter", name, &names) })
        .collect();
    let mut values = Map::new();
    for param in declared {
        let value = match given.get(&param.name) {
            None | Some(Value::Null) => Ok(param.default.clone()),
            Some(value) => param.read(value),
        };
        match value {
            Ok(value) => {
                values.insert(param.name.clone(), value);
            }
            Err(wrong) => errors.extend(wrong),
        }
    }
    errors.sort_by(|one, other| one.path.cmp(&other.path));
    if errors.is_empty() { Ok(Json::from(&Value::Object(values))) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn param(yaml: &str) -> Param {
        Param::declared("p", serde_yaml::from_str(yaml).unwrap()).unwrap()
    }

    fn refused(yaml: &str, value: &Value) -> String {
        let errors = read(&[param(yaml)], &json!({"p": value})).unwrap_err();
        errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect::<Vec<_>>().join(" | ")
    }

    fn taken(yaml: &str, value: &Value) -> Value {
        let read = read(&[param(yaml)], &json!({"p": value})).unwrap();
        serde_json::to_value(read).unwrap()["p"].clone()
    }

    #[test]
    fn values_are_read_by_their_types() {
        assert_eq!(taken("{type: int}", &json!(22.0)), json!(22));
        assert_eq!(taken("{type: list of port}", &json!([22, "3389", 1.0])), json!([22, 3389, 1]));
        assert_eq!(taken("{type: version}", &json!(1.2)), json!("1.2"));
        assert_eq!(taken("{type: bool}", &json!("yes")), json!(true));
        assert_eq!(taken("{type: duration}", &json!("90d")), json!("90d"));
        assert_eq!(taken("{type: int, default: 5}", &Value::Null), json!(5));
        assert_eq!(taken("{type: list of string}", &Value::Null), Value::Null);
        assert_eq!(taken("{type: list of string}", &json!([])), json!([]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_path() {
        assert_eq!(refused("{type: int}", &json!("x")), "p: found the text \"x\"; a whole number is expected");
        assert_eq!(
            refused("{type: int, min: 1}", &json!(0)),
            "p: found the number 0; a number of at least 1 is expected"
        );
        assert_eq!(
            refused("{type: list of port}", &json!([22, true, "-1"])),
            "p[1]: found `true`; a port from 0 to 65535 is expected | \
             p[2]: found the text \"-1\"; a port from 0 to 65535 is expected"
        );
        assert_eq!(
            refused("{type: list of string}", &json!("a")),
            "p: found the text \"a\"; a list is expected; write `[...]`"
        );
        assert_eq!(
            refused("{type: string}", &json!(5)),
            "p: found the number 5; a text is expected; write it in quotes"
        );
        assert_eq!(
            refused("{type: number, nonzero: true}", &json!(0)),
            "p: found the number 0; any other number is expected"
        );
        assert_eq!(
            refused("{type: string, allowed: [low, high]}", &json!("hihg")),
            "p: found the text \"hihg\"; did you mean `high`? (allowed: low, high)"
        );
        let errors = read(&[param("{type: int}")], &json!({"q": 1})).unwrap_err();
        assert!(errors[0].message.starts_with("unknown parameter `q`"), "{errors:?}");
        assert!(read(&[], &json!([1])).is_err());
    }

    #[test]
    fn a_wrong_declaration_is_refused() {
        for yaml in [
            "{type: text}",
            "{type: list of list of int}",
            "{type: int, default: x}",
            "{type: int, min: 2, default: 1}",
        ] {
            assert!(Param::declared("p", serde_yaml::from_str(yaml).unwrap()).is_err(), "{yaml}");
        }
    }
}
