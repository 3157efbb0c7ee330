//! The parameters that all alerts have, beside their own. An alert's own check and builder do not see them.

use std::time::Duration;

use proto::catalogue::{Check, ParamError};
use proto::config::params;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::event::{Finding, Severity};

/// How long the receiver may be away unless the parameters say otherwise.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// What all alerts have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether something is sent when there is nothing to tell.
    pub always: bool,
    /// What is less bad is left out.
    pub min_severity: Option<Severity>,
    /// The rules that are told of, by id or by the event plugin's key; all, if none is named.
    pub rules: Vec<String>,
    /// The subscriptions, projects and accounts that are told of; all, if none is named.
    pub accounts: Vec<String>,
    /// Whether findings that the last complete version had are left out.
    pub only_new: bool,
    /// How long the receiver may be away before the alert fails.
    #[serde(deserialize_with = "params::duration")]
    patience: Option<Duration>,
}

/// The names of these parameters.
const NAMES: [&str; 6] = ["always", "min_severity", "rules", "accounts", "only_new", "patience"];

impl Settings {
    /// Reads them from among an alert's parameters.
    ///
    /// # Errors
    /// Every one that is not as it should be.
    pub fn read(params: &Value) -> Result<Self, Vec<ParamError>> {
        params::read(&split(params).0)
    }

    /// How long the receiver may be away before the alert fails.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience.unwrap_or(PATIENCE)
    }

    /// Whether people are told of the finding.
    #[must_use]
    pub fn wants(&self, finding: &Finding) -> bool {
        let is_among = |names: &[String], name: &str| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let is_bad = self.min_severity.is_none_or(|least| {
            // What nobody has rated may be anything.
            finding.severity <= least || finding.severity == Severity::Unrated
        });
        is_bad
            && (self.rules.is_empty() || is_among(&self.rules, &finding.rule) || is_among(&self.rules, &finding.plugin))
            && (self.accounts.is_empty() || is_among(&self.accounts, &finding.account))
    }

    /// What is left out, for people; `None` when nothing can be.
    #[must_use]
    pub fn filter(&self) -> Option<String> {
        let mut parts = Vec::new();
        parts.extend(self.min_severity.map(|least| format!("severity {least} or worse")));
        let mut list = |what: &str, names: &[String]| {
            if !names.is_empty() {
                parts.push(format!("{what} {}", crate::readable::line(&names.join(", "))));
            }
        };
        list("rules", &self.rules);
        list("accounts", &self.accounts);
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// An alert's parameters: those that all alerts have, and its own.
#[must_use]
pub fn split(params: &Value) -> (Value, Value) {
    let Value::Object(params) = params else { return (Value::Object(Map::new()), params.clone()) };
    let (common, own) = params.clone().into_iter().partition(|(name, _)| NAMES.contains(&name.as_str()));
    (Value::Object(common), Value::Object(own))
}

/// Checks all parameters of an alert, given the check of its own.
pub fn check_with(own: Check) -> impl Fn(&Value) -> Result<(), Vec<ParamError>> + Send + Sync {
    move |params| {
        let mut errors = Settings::read(params).err().unwrap_or_default();
        errors.extend(own(&split(params).1).err().unwrap_or_default());
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use proto::subject::Key;
    use serde_json::json;

    use super::*;

    fn finding(severity: &str, rule: &str, account: &str) -> Finding {
        let event = json!({"com": {
            "id": "0123456789abcdef0123456789abcdef", "severity": severity, "rule": rule,
            "resource": {"account": account},
        }});
        Finding::read(event.to_string().as_bytes(), &Key::new("plugin").unwrap()).unwrap()
    }

    #[test]
    fn filters_leave_out_what_is_not_asked_for() {
        let of = |params: Value| Settings::read(&params).unwrap();
        assert!(of(json!({})).wants(&finding("info", "r", "")));
        let bad = of(json!({"min_severity": "high"}));
        assert!(bad.wants(&finding("high", "r", "")) && bad.wants(&finding("critical", "r", "")));
        assert!(!bad.wants(&finding("medium", "r", "")));
        assert!(bad.wants(&finding("grave", "r", "")), "what is not rated is not harmless");
        let rules = of(json!({"rules": ["azure_x", "PLUGIN2"]}));
        assert!(rules.wants(&finding("low", "Azure_X", "")) && !rules.wants(&finding("low", "azure_y", "")));
        assert!(of(json!({"rules": ["plugin"]})).wants(&finding("low", "azure_y", "")));
        let accounts = of(json!({"accounts": ["s-1"]}));
        assert!(accounts.wants(&finding("low", "r", "S-1")) && !accounts.wants(&finding("low", "r", "")));
        assert_eq!(bad.filter().as_deref(), Some("severity high or worse"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let said = |params: Value| Settings::read(&params).unwrap_err().remove(0).message;
        let severity = said(json!({"min_severity": "hihg"}));
        assert!(severity.contains("did you mean `high`?") && !severity.contains("unrated"), "{severity}");
        assert!(said(json!({"only_new": "sometimes"})).contains("true"));
    }
}
