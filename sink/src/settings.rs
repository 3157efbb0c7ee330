//! The parameters that all shared stores have, beside their own. A store's own check and builder do not see them.

use std::time::Duration;

use proto::catalogue::{Check, ParamError};
use proto::config::params;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How long a store may be down unless the parameters say otherwise.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// What all shared stores have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long the store may be down before its part of the run fails.
    #[serde(deserialize_with = "params::duration")]
    patience: Option<Duration>,
    /// Whether the run goes on without it when it cannot be used at the beginning.
    pub optional: bool,
    /// How many complete versions are kept.
    pub keep_versions: Option<u32>,
    /// For how many days versions are kept; the last complete one always is.
    pub keep_days: Option<u32>,
    /// For how many days documents of permanent lifetime (activity logs) are kept.
    pub keep_permanent_days: Option<u32>,
}

/// The names of these parameters.
pub(crate) const NAMES: [&str; 5] = ["patience", "optional", "keep_versions", "keep_days", "keep_permanent_days"];

impl Settings {
    /// Reads them from among a store's parameters.
    ///
    /// # Errors
    /// Every one that is not as it should be.
    pub fn read(params: &Value) -> Result<Self, Vec<ParamError>> {
        let settings: Self = params::read(&split(params).0)?;
        let zero = [
            ("keep_versions", settings.keep_versions),
            ("keep_days", settings.keep_days),
            ("keep_permanent_days", settings.keep_permanent_days),
        ];
        let errors: Vec<ParamError> = zero
            .into_iter()
            .filter(|(_, number)| *number == Some(0))
            .map(|(name, _)| ParamError {
                path: name.to_owned(),
                message: "found 0; at least 1 is expected; leave it out to keep all".to_owned(),
            })
            .collect();
        if errors.is_empty() { Ok(settings) } else { Err(errors) }
    }

    /// How long the store may be down before its part of the run fails.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience.unwrap_or(PATIENCE)
    }

    /// Whether anything is ever removed.
    #[must_use]
    pub fn prunes(&self) -> bool {
        self.keep_versions.is_some() || self.keep_days.is_some() || self.keep_permanent_days.is_some()
    }
}

/// A store's parameters: those that all shared stores have, and its own.
#[must_use]
pub fn split(params: &Value) -> (Value, Value) {
    let Value::Object(params) = params else { return (Value::Object(Map::new()), params.clone()) };
    let (common, own) = params.clone().into_iter().partition(|(name, _)| NAMES.contains(&name.as_str()));
    (Value::Object(common), Value::Object(own))
}

/// Checks all parameters of a shared store, given the check of its own.
pub fn check_with(own: Check) -> impl Fn(&Value) -> Result<(), Vec<ParamError>> + Send + Sync {
    move |params| {
        let mut errors = Settings::read(params).err().unwrap_or_default();
        errors.extend(own(&split(params).1).err().unwrap_or_default());
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_all_stores_have_is_read_apart() {
        let params = json!({"path": "p", "patience": "5m", "keep_versions": 3, "optional": "yes"});
        let settings = Settings::read(&params).unwrap();
        assert_eq!((settings.patience(), settings.keep_versions), (Duration::from_secs(300), Some(3)));
        assert!(settings.optional && settings.prunes());
        assert_eq!(split(&params).1, json!({"path": "p"}));
        assert_eq!(Settings::read(&json!({})).unwrap().patience(), PATIENCE);
    }

    #[test]
    fn both_checks_are_made() {
        fn own(params: &Value) -> Result<(), Vec<ParamError>> {
            assert_eq!(params, &json!({"wrong": 1}));
            Err(vec![ParamError { path: "wrong".into(), message: "no".into() }])
        }
        let errors = check_with(&own)(&json!({"keep_days": 0, "patience": "soon", "wrong": 1})).unwrap_err();
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["patience", "wrong"]);
        assert_eq!(check_with(&own)(&json!({"keep_days": 0, "wrong": 1})).unwrap_err()[0].path, "keep_days");
    }
}
