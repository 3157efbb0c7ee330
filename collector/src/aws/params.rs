//! The parameters of AWS's plugins.

use std::num::NonZeroU32;
use std::time::Duration;

use proto::catalogue::ParamError;
use proto::config::params;
use proto::config::secret::{Secret, has_reference};
use serde::Deserialize;
use serde_json::Value;

use super::region::is_region;
use crate::activity::defaults;
use crate::activity::keep::{CLOUD_TRAIL, Keep, Matcher};
use crate::activity::window::{self, Windows};
use crate::http::Endpoint;

/// The parameters of `AwsCloudTrail`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AwsParams {
    /// The accounts; if none is named, the one that this host is signed in to.
    #[serde(default)]
    pub(super) accounts: Vec<AccountParams>,
    /// The regions of all accounts that do not name theirs; if none is named, all that are enabled.
    #[serde(default)]
    pub(super) regions: Vec<String>,
    /// Where all services are, for proxies and simulators.
    #[serde(default)]
    pub(super) endpoint_url: Option<String>,
    /// Which events are kept.
    #[serde(default)]
    pub(super) keep: Option<Keep>,
    /// How far the first run reaches back.
    #[serde(default, deserialize_with = "window::duration")]
    reach: Option<Duration>,
    /// How much is read again, for events that arrive late.
    #[serde(default, deserialize_with = "window::duration")]
    overlap: Option<Duration>,
    /// How long a window is.
    #[serde(default, deserialize_with = "window::duration")]
    window: Option<Duration>,
    /// How many calls of this plugin are in flight.
    #[serde(default)]
    pub(super) concurrency: Option<NonZeroU32>,
    /// How long a unit may wait in all, for a cloud that throttles or is away.
    #[serde(default, deserialize_with = "params::duration")]
    pub(super) patience: Option<Duration>,
    /// For debugging: how many calls there are in a second to each region of each account.
    #[serde(default, rename = "_calls_per_second")]
    pub(super) calls_per_second: Option<NonZeroU32>,
}

/// One account, and how to sign in to it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountParams {
    /// Its number, if the credentials must be of this account.
    #[serde(default)]
    pub(super) account: Option<String>,
    /// A profile of AWS's configuration files.
    #[serde(default)]
    pub(super) profile: Option<String>,
    /// A key.
    #[serde(default)]
    pub(super) access_key_id: Option<String>,
    /// The key's secret.
    #[serde(default)]
    pub(super) secret_access_key: Option<Secret>,
    /// The token of a key that is good for a while.
    #[serde(default)]
    pub(super) session_token: Option<Secret>,
    /// A role to take, with what is above.
    #[serde(default)]
    pub(super) role_arn: Option<String>,
    /// What the role asks for besides.
    #[serde(default)]
    pub(super) external_id: Option<Secret>,
    /// What the role's sessions are called.
    #[serde(default)]
    pub(super) session_name: Option<String>,
    /// Its regions.
    #[serde(default)]
    pub(super) regions: Vec<String>,
}

impl AwsParams {
    /// Reads parameters, expanded or not.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub(super) fn read(value: &Value) -> Result<Self, Vec<ParamError>> {
        let params: Self = params::read(value)?;
        let mut errors = params.windows().check();
        if let Some(endpoint) = params.endpoint_url.as_deref().filter(|text| !has_reference(text))
            && let Err(why) = Endpoint::parse(endpoint)
        {
            errors.push(error("endpoint_url", format!("`endpoint_url` is not an endpoint: {why}")));
        }
        errors.extend(wrong_regions("regions", &params.regions));
        for (at, account) in params.accounts.iter().enumerate() {
            errors.extend(account.check(&format!("accounts[{at}]")));
        }
        errors.extend(params.matcher().err().into_iter().flatten());
        errors.sort_by(|one, other| one.path.cmp(&other.path));
        if errors.is_empty() { Ok(params) } else { Err(errors) }
    }

    /// The rules of what is kept.
    pub(super) fn matcher(&self) -> Result<Matcher, Vec<ParamError>> {
        Matcher::new(&self.keep.clone().unwrap_or_else(defaults::cloud_trail), &CLOUD_TRAIL)
    }

    /// What is read.
    pub(super) fn windows(&self) -> Windows {
        Windows { reach: self.reach, overlap: self.overlap, window: self.window }
    }
}

impl AccountParams {
    fn check(&self, place: &str) -> Vec<ParamError> {
        let mut errors = wrong_regions(&format!("{place}.regions"), &self.regions);
        let mut wrong = |name: &str, message: &str| errors.push(error(&format!("{place}.{name}"), message.to_owned()));
        let known = |text: &Option<String>| text.clone().filter(|text| !has_reference(text));
        if known(&self.account).is_some_and(|id| id.len() != 12 || !id.bytes().all(|b| b.is_ascii_digit())) {
            wrong("account", "an account's number has twelve digits; write it in quotes");
        }
        if known(&self.role_arn).is_some_and(|arn| !(arn.starts_with("arn:aws") && arn.contains(":role/"))) {
            wrong("role_arn", "that is not the ARN of a role; write it like `arn:aws:iam::111111111111:role/audit`");
        }
        match (&self.access_key_id, &self.secret_access_key) {
            (Some(_), None) => {
                wrong("secret_access_key", "set `secret_access_key`: `access_key_id` is of no use alone")
            }
            (None, Some(_)) => wrong("access_key_id", "set `access_key_id`: `secret_access_key` is of no use alone"),
            _ => {}
        }
        if self.session_token.is_some() && self.access_key_id.is_none() {
            wrong("session_token", "`session_token` belongs to a key: set `access_key_id` and `secret_access_key`");
        }
        if self.profile.is_some() && self.access_key_id.is_some() {
            wrong("profile", "`profile` and `access_key_id` are both set: keep one");
        }
        if self.role_arn.is_none() {
            for (name, is_set) in
                [("external_id", self.external_id.is_some()), ("session_name", self.session_name.is_some())]
            {
                if is_set {
                    wrong(name, &format!("`{name}` is for a role: set `role_arn`, or remove it"));
                }
            }
        }
        errors
    }

    /// What it is called before it is known which account it is.
    pub(super) fn label(&self) -> String {
        let name = self.account.as_ref().or(self.role_arn.as_ref()).or(self.profile.as_ref());
        name.or(self.access_key_id.as_ref()).map_or_else(|| "default".to_owned(), String::clone)
    }
}

fn wrong_regions(path: &str, regions: &[String]) -> Vec<ParamError> {
    let wrong = regions.iter().enumerate().filter(|(_, region)| !has_reference(region) && !is_region(region));
    let message = |region: &String| format!("{region:?} is not a region; write it like `eu-west-1`");
    wrong.map(|(at, region)| error(&format!("{path}[{at}]"), message(region))).collect()
}

fn error(path: &str, message: String) -> ParamError {
    ParamError { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(params: &Value) -> Vec<String> {
        let errors = AwsParams::read(params).unwrap_err();
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn nothing_needs_to_be_said() {
        let params = AwsParams::read(&json!({})).unwrap();
        assert!(params.accounts.is_empty() && params.matcher().is_ok());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let said = errors(&json!({
            "endpoint_url": "http://aws.example",
            "regions": ["us-east-1", "useast"],
            "reach": "91d",
            "keep": [{"rule": "a", "field": "x", "regex": "("}],
            "accounts": [
                {"account": "1", "profile": "p", "access_key_id": "k", "external_id": "e"},
                {"secret_access_key": "hunter2", "role_arn": "audit", "session_token": "t", "regions": ["x"]},
            ],
        }));
        let paths: Vec<&str> = said.iter().filter_map(|error| error.split(": ").next()).collect();
        assert_eq!(
            paths,
            [
                "accounts[0].account",
                "accounts[0].external_id",
                "accounts[0].profile",
                "accounts[0].secret_access_key",
                "accounts[1].access_key_id",
                "accounts[1].regions[0]",
                "accounts[1].role_arn",
                "accounts[1].session_token",
                "endpoint_url",
                "keep[0].regex[0]",
                "reach",
                "regions[1]"
            ]
        );
        assert!(!said.iter().any(|error| error.contains("hunter2")));
        assert!(errors(&json!({"acounts": []}))[0].contains("did you mean `accounts`?"));
        assert!(errors(&json!({"keep": "everything"}))[0].contains("a list of rules, or `all`"));
    }

    #[test]
    fn references_may_stand_anywhere() {
        let params = json!({"endpoint_url": "${CM_AWS}", "regions": ["${CM_R}"], "accounts": [{"account": "${CM_A}",
            "access_key_id": "${CM_K}", "secret_access_key": "${CM_S}", "role_arn": "${CM_ROLE}",
            "external_id": "${CM_X}"}]});
        assert!(AwsParams::read(&params).is_ok());
    }
}
