//! The parameters of Azure's plugins.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use proto::catalogue::ParamError;
use proto::config::secret::{Secret, has_reference};
use proto::config::{Environment, params};
use serde::Deserialize;
use serde_json::Value;

use self::endpoints::{Choice, Endpoints};
use super::sign_in::Credential;
use crate::selection::Selection;

mod endpoints;
mod way;

/// What the Python tool starts if it is not told otherwise.
const PROCESSES: u32 = 4;
const THREADS: u32 = 30;

/// The parameter that selects.
const SUBSCRIPTIONS: &str = "subscriptions";

/// The parameters of all of Azure's plugins.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureParams {
    /// How to sign in: `client_secret` (if there is a secret), `client_certificate` (if there is a certificate),
    /// `workload_identity`, `managed_identity` or `azure_cli`.
    #[serde(default)]
    pub credential: Option<String>,
    /// The tenant to sign in to: its id or one of its domains.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The application to sign in as: its client id. For a managed identity: the client id of the user-assigned one.
    #[serde(default)]
    pub client: Option<String>,
    /// A secret of the application: mostly a reference like `${CM_SECRET}`.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// A certificate of the application with its private key, not encrypted: the path of a PEM file, or the PEM itself
    /// by a reference like `${CM_CERTIFICATE}`.
    #[serde(default)]
    pub certificate: Option<Secret>,
    /// The file with the token of a workload identity; it is read anew for each sign-in.
    #[serde(default)]
    pub token_file: Option<String>,
    /// The user-assigned managed identity by its object (principal) id.
    #[serde(default)]
    pub object_id: Option<String>,
    /// The user-assigned managed identity by its resource id.
    #[serde(default)]
    pub resource_id: Option<String>,
    /// Where the metadata service of the machine is, for simulators.
    #[serde(default)]
    pub identity_endpoint: Option<String>,
    /// The cloud: `public`, `china` or `usgovernment`.
    #[serde(default)]
    pub cloud: Option<String>,
    /// Where to sign in, for other clouds and for simulators.
    #[serde(default)]
    pub login_endpoint: Option<String>,
    /// Where Resource Manager is, for other clouds and for simulators.
    #[serde(default)]
    pub arm_endpoint: Option<String>,
    /// What tokens for key vaults are for, for other clouds.
    #[serde(default)]
    pub key_vault_scope: Option<String>,
    /// Known from the Python tool: `processes` times `threads` calls are in flight.
    #[serde(default)]
    pub processes: Option<NonZeroU32>,
    /// Known from the Python tool: see `processes`.
    #[serde(default)]
    pub threads: Option<NonZeroU32>,
    /// How many calls of this plugin are in flight.
    #[serde(default)]
    pub concurrency: Option<NonZeroU32>,
    /// Which subscriptions are read.
    #[serde(default)]
    pub subscriptions: Option<Selection>,
    /// The `api-version` by which a list is read, by the list's name.
    #[serde(default)]
    pub api_versions: BTreeMap<String, String>,
    /// How long a unit may wait in all, for a cloud that throttles or is away.
    #[serde(default, deserialize_with = "params::duration")]
    pub patience: Option<Duration>,
    /// For debugging: how many subscriptions are read; 0 for all.
    #[serde(default, rename = "_max_subs")]
    pub max_subs: Option<u64>,
    /// For debugging: how many resources of a type are read in each subscription; 0 for all.
    #[serde(default, rename = "_max_recs")]
    pub max_recs: Option<u64>,
}

/// Parameters that a plugin can be built of.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) credential: Credential,
    pub(super) endpoints: Endpoints,
    /// The tenant, if the parameters or the environment name it: a managed identity and the Azure CLI know theirs.
    pub(super) tenant: Option<String>,
    /// How many calls are in flight, if the parameters say so.
    pub(super) concurrency: Option<usize>,
    pub(super) selection: Selection,
    pub(super) api_versions: BTreeMap<String, String>,
    pub(super) max_subs: Option<u64>,
    pub(super) max_recs: Option<u64>,
    pub(super) patience: Option<Duration>,
}

impl AzureParams {
    /// Reads parameters, expanded or not. `lists` are the names of the lists that the plugin reads, as far as their
    /// `api-version` can be set.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn read(params: &Value, lists: &[&str]) -> Result<Self, Vec<ParamError>> {
        let (read, mut errors) = match params::read(params) {
            Ok(read) => (Some(read), Vec::new()),
            Err(errors) => (None, errors),
        };
        if params.is_object() || params.is_null() {
            let known = |name: &str| params.get(name)?.as_str().filter(|text| !has_reference(text));
            let choice = Choice {
                cloud: known("cloud"),
                login: known("login_endpoint"),
                arm: known("arm_endpoint"),
                vault_scope: known("key_vault_scope"),
            };
            errors.extend(way::check(params));
            errors.extend(choice.endpoints().err().into_iter().flatten());
            errors.extend(wrong_api_versions(params, lists));
            errors.extend(params.get(SUBSCRIPTIONS).into_iter().flat_map(|it| Selection::check(SUBSCRIPTIONS, it)));
        }
        errors.sort_by(|one, other| one.path.cmp(&other.path));
        read.filter(|_| errors.is_empty()).ok_or(errors)
    }

    /// The settings that expanded parameters come to on this host.
    pub(super) fn settings(self) -> Result<Settings, Vec<ParamError>> {
        self.settings_in(&Environment::of_process())
    }

    fn settings_in(self, environment: &Environment) -> Result<Settings, Vec<ParamError>> {
        let choice = Choice {
            cloud: self.cloud.as_deref(),
            login: self.login_endpoint.as_deref(),
            arm: self.arm_endpoint.as_deref(),
            vault_scope: self.key_vault_scope.as_deref(),
        };
        let (credential, endpoints) = match (way::credential(&self, environment), choice.endpoints()) {
            (Ok(credential), Ok(endpoints)) => (credential, endpoints),
            (credential, endpoints) => {
                let errors = [credential.err(), endpoints.err()];
                return Err(errors.into_iter().flatten().flatten().collect());
            }
        };
        let tenant = match &credential {
            Credential::Application(application, _) => Some(application.tenant.clone()),
            Credential::ManagedIdentity { .. } | Credential::AzureCli { .. } => self.tenant.clone(),
        };
        Ok(Settings {
            concurrency: self.concurrency(),
            credential,
            endpoints,
            tenant,
            selection: self.subscriptions.unwrap_or_default(),
            api_versions: self.api_versions,
            max_subs: self.max_subs.filter(|most| *most > 0),
            max_recs: self.max_recs.filter(|most| *most > 0),
            patience: self.patience,
        })
    }

    fn concurrency(&self) -> Option<usize> {
        let calls = match (self.concurrency, self.processes, self.threads) {
            (Some(calls), ..) => calls.get(),
            (None, None, None) => return None,
            (None, processes, threads) => {
                let processes = processes.map_or(PROCESSES, NonZeroU32::get);
                processes.saturating_mul(threads.map_or(THREADS, NonZeroU32::get))
            }
        };
        Some(usize::try_from(calls).unwrap_or(usize::MAX))
    }
}

fn wrong_api_versions(params: &Value, lists: &[&str]) -> Vec<ParamError> {
    let mut errors = Vec::new();
    let Some(versions) = params.get("api_versions").and_then(Value::as_object) else { return errors };
    for (name, version) in versions {
        let path = format!("api_versions.{name}");
        if !lists.contains(&name.as_str()) {
            let hint = params::did_you_mean(name, lists.iter().copied());
            let message = format!("this plugin reads no list `{name}`{hint} (allowed: {})", lists.join(", "));
            errors.push(error(&path, message));
        }
        if let Some(text) = version.as_str().filter(|text| !has_reference(text) && !is_api_version(text)) {
            let message = format!("{text:?} is not an api-version; write it like `2025-04-01` or `2025-04-01-preview`");
            errors.push(error(&path, message));
        }
    }
    errors
}

/// A date, and perhaps what kind of version it is. It becomes a part of a query, so it is not taken on trust.
fn is_api_version(text: &str) -> bool {
    let is_date = |date: &str| {
        let parts: Vec<&str> = date.split('-').collect();
        let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
        parts.iter().map(|part| part.len()).eq([4, 2, 2]) && parts.iter().all(is_number)
    };
    let is_suffix =
        |suffix: &str| suffix.len() > 1 && suffix.bytes().skip(1).all(|b| b.is_ascii_alphanumeric() || b == b'.');
    match text.split_at_checked(10) {
        Some((date, "")) => is_date(date),
        Some((date, suffix)) => is_date(date) && suffix.starts_with('-') && is_suffix(suffix),
        None => false,
    }
}

fn error(path: &str, message: impl Into<String>) -> ParamError {
    ParamError { path: path.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sign_in::{Certificate, Identity, Proof};
    use super::*;

    const LISTS: [&str; 2] = ["virtual_machine", "disk"];

    fn with(more: &Value) -> Value {
        let mut params = json!({"tenant": "t", "client": "c", "secret": "s"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    }

    fn settings(params: &Value) -> Settings {
        AzureParams::read(params, &LISTS).unwrap().settings_in(&Environment::empty().in_directory("/here")).unwrap()
    }

    fn errors(params: &Value) -> Vec<String> {
        said(AzureParams::read(params, &LISTS).unwrap_err())
    }

    fn said(errors: Vec<ParamError>) -> Vec<String> {
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn what_is_required_is_asked_for_all_at_once() {
        let errors = errors(&json!({"tenant": null, "client": "", "secret": "${CM_SECRET}"}));
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert_eq!(errors[0], "client: set `client`: the client id of the application to sign in as");
        assert!(errors[1].starts_with("tenant: set `tenant`: "), "{errors:?}");
        let errors = self::errors(&json!({"credential": "client_certificate"}));
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors[0].starts_with("certificate: set `certificate`: the path of a PEM file"), "{errors:?}");
        assert!(
            self::errors(&json!({"tenant": "t", "client": "c", "secret": ""}))[0].starts_with("secret: set `secret`")
        );
    }

    #[test]
    fn without_a_hint_the_ways_are_told() {
        for params in [json!({}), Value::Null, json!({"tenant": "t", "client": "c", "secret": null})] {
            let errors = errors(&params);
            assert_eq!(errors.len(), 1, "{errors:?}");
            for way in ["`secret`", "`certificate`", "`workload_identity`", "`managed_identity`", "`azure_cli`"] {
                assert!(
                    errors[0].starts_with("credential: say how to sign in") && errors[0].contains(way),
                    "{errors:?}"
                );
            }
        }
    }

    #[test]
    fn a_way_is_named_rightly_and_not_repeated_if_it_is_not() {
        let errors = errors(&json!({"credential": "managed_identiti", "arm_endpoint": "x"}));
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[1].starts_with("credential: that is not a way to sign in; did you mean `managed_identity`?"));
        let errors = self::errors(&json!({"credential": "hunter2hunter2"}));
        assert!(!errors[0].contains("hunter2"), "{errors:?}");
    }

    #[test]
    fn what_a_way_has_no_use_for_is_an_error() {
        let both = errors(&json!({"tenant": "t", "client": "c", "secret": "s", "certificate": "/c.pem"}));
        assert_eq!(both, ["certificate: `secret` and `certificate` are both set: keep one"]);
        let several = errors(&json!({"credential": "azure_cli", "client": "c", "secret": "s", "object_id": ""}));
        assert_eq!(
            several,
            [
                "client: `credential` azure_cli has no use for `client`: remove it, or choose `client_secret` or `client_certificate` or `workload_identity` or `managed_identity`",
                "object_id: `credential` azure_cli has no use for `object_id`: remove it, or choose `managed_identity`",
                "secret: `credential` azure_cli has no use for `secret`: remove it, or choose `client_secret`",
            ]
        );
        let identities = errors(&json!({"credential": "managed_identity", "client": "c", "resource_id": "/r"}));
        assert_eq!(
            identities,
            ["resource_id: `client`, `object_id` and `resource_id` each name an identity: keep one"]
        );
        let endpoint = errors(&json!({"credential": "managed_identity", "identity_endpoint": "http://host.example"}));
        assert!(endpoint[0].starts_with("identity_endpoint: `identity_endpoint` is not an endpoint: plain http"));
        assert!(
            errors(&with(&json!({"token_file": "/t"})))[0].starts_with("token_file: `credential` client_secret has no")
        );
    }

    #[test]
    fn each_way_has_its_credential() {
        let params = json!({"tenant": "t", "client": "c", "certificate": "app.pem"});
        let Credential::Application(application, Proof::Certificate(Certificate::File(path))) =
            settings(&params).credential
        else {
            panic!()
        };
        assert_eq!((&*application.tenant, &*application.client), ("t", "c"));
        assert_eq!(path.to_str(), Some("/here/app.pem"));
        let pem = json!({"tenant": "t", "client": "c", "certificate": "\n-----BEGIN hunter2"});
        let pem = settings(&pem);
        assert!(matches!(&pem.credential, Credential::Application(_, Proof::Certificate(Certificate::Pem(_)))));
        assert!(!format!("{pem:?}").contains("hunter2"));
        for (given, identity) in [
            (json!({"credential": "managed_identity"}), Identity::System),
            (json!({"credential": "managed_identity", "client": "c"}), Identity::Client("c".into())),
            (json!({"credential": "managed_identity", "object_id": "o"}), Identity::Object("o".into())),
            (json!({"credential": "managed_identity", "resource_id": "/r"}), Identity::Resource("/r".into())),
        ] {
            let settings = settings(&given);
            let Credential::ManagedIdentity { identity: found, endpoint: None } = settings.credential else { panic!() };
            assert_eq!((found, settings.tenant), (identity, None));
        }
        let cli = settings(&json!({"credential": "azure_cli", "tenant": "t.example"}));
        let Credential::AzureCli { tenant } = cli.credential else { panic!() };
        assert_eq!((tenant, cli.tenant), (Some("t.example".into()), Some("t.example".into())));
    }

    #[test]
    fn a_workload_is_given_its_identity_by_its_surroundings() {
        let read = |params: Value| AzureParams::read(&params, &LISTS).unwrap();
        let environment = Environment::empty()
            .with("AZURE_TENANT_ID", "t")
            .with("AZURE_CLIENT_ID", "c")
            .with("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token");
        let settings =
            read(json!({"credential": "workload_identity", "client": "c2"})).settings_in(&environment).unwrap();
        let Credential::Application(application, Proof::Federated(path)) = settings.credential else { panic!() };
        assert_eq!((&*application.tenant, &*application.client), ("t", "c2"));
        assert_eq!((path.to_str(), settings.tenant.as_deref()), (Some("/var/run/token"), Some("t")));

        // Another host than the one that checks the parameters may run the plugin: the check does not ask for them.
        let nothing = read(json!({"credential": "workload_identity", "arm_endpoint": "${CM_ARM}"}));
        let errors = said(nothing.settings_in(&Environment::empty()).unwrap_err());
        assert_eq!(errors.len(), 4, "{errors:?}");
        for (error, name) in errors.iter().zip(["tenant", "client", "token_file", "arm_endpoint"]) {
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
        }
        assert!(errors[2].contains("AZURE_FEDERATED_TOKEN_FILE"), "{errors:?}");
    }

    #[test]
    fn references_may_stand_anywhere() {
        let params = json!({"tenant": "${CM_TENANT}", "client": "${CM_CLIENT}", "secret": "${CM_SECRET}",
            "arm_endpoint": "${CM_ARM}", "login_endpoint": "http://${CM_LOGIN}", "cloud": "${CM_CLOUD}",
            "credential": "${CM_WAY}", "key_vault_scope": "${CM_SCOPE}", "api_versions": {"disk": "${CM_V}"},
            "subscriptions": ["${CM_SUBSCRIPTION}"]});
        assert!(AzureParams::read(&params, &LISTS).is_ok());
    }

    #[test]
    fn errors_of_all_kinds_come_at_once() {
        let errors = errors(&json!({"tennant": "t", "tenant": "a b", "client": "c", "secret": 5, "arm_endpoint": "x",
            "cloud": "moon", "concurrency": 0, "patience": "soon", "subscriptions": [],
            "api_versions": {"virtual_machin": "2025-04-01", "disk": "2025-4-1"}}));
        let paths: Vec<&str> = errors.iter().filter_map(|error| error.split(": ").next()).collect();
        assert_eq!(
            paths,
            [
                "api_versions.disk",
                "api_versions.virtual_machin",
                "arm_endpoint",
                "cloud",
                "concurrency",
                "patience",
                "secret",
                "subscriptions",
                "tenant",
                "tennant"
            ]
        );
        assert!(errors[1].contains("did you mean `virtual_machine`?"), "{errors:?}");
        assert!(errors[4].contains("a whole number, 1 or more"), "{errors:?}");
        assert_eq!(self::errors(&json!([])).len(), 1);
    }

    #[test]
    fn api_versions_are_dates() {
        for good in ["2025-04-01", "2021-05-01-preview", "2014-04-01-alpha.1"] {
            assert!(is_api_version(good), "{good}");
        }
        for bad in
            ["", "2025", "2025-04-1", "2025-04-011", "2025-04-01-", "2025-04-01-a&b", "20250401ab", "2025-04-0é1"]
        {
            assert!(!is_api_version(bad), "{bad}");
        }
        let settings = settings(&with(&json!({"api_versions": {"disk": "2024-03-02"}})));
        assert_eq!(settings.api_versions["disk"], "2024-03-02");
    }

    #[test]
    fn the_parameters_of_the_python_tool_are_taken() {
        let concurrency = |more| settings(&with(&more)).concurrency;
        assert_eq!(concurrency(json!({})), None);
        assert_eq!(concurrency(json!({"processes": 2})), Some(60));
        assert_eq!(concurrency(json!({"threads": 5})), Some(20));
        assert_eq!(concurrency(json!({"processes": 2, "threads": 5, "concurrency": 7})), Some(7));
        let settings = settings(&with(&json!({"_max_subs": 0, "_max_recs": 7, "patience": 90})));
        assert_eq!((settings.max_subs, settings.max_recs), (None, Some(7)));
        assert_eq!(settings.patience, Some(Duration::from_secs(90)));
    }

    #[test]
    fn the_secret_is_not_shown() {
        let params = with(&json!({"secret": "hunter2"}));
        let params = AzureParams::read(&params, &LISTS).unwrap();
        assert!(!format!("{params:?} {:?}", params.clone().settings()).contains("hunter2"));
    }
}
