//! The parameters of `GCPCloud`.

use std::num::NonZeroUsize;
use std::time::Duration;

use proto::catalogue::ParamError;
use proto::config::params::{self, did_you_mean};
use proto::config::secret::has_reference;
use serde::Deserialize;
use serde_json::Value;

use crate::http::{Endpoint, EndpointError};
use crate::selection::Selection;

/// What the Python tool starts if it is told one of them only.
const PROCESSES: usize = 4;
const THREADS: usize = 30;

/// The parameters of `GCPCloud`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcpCloudParams {
    /// The key file of a service account: a path on the worker's host.
    #[serde(default)]
    pub key_file_path: Option<String>,
    /// How to sign in: `key_file`, `application_default` or `metadata`.
    #[serde(default)]
    pub credential: Option<String>,
    /// A service account to act as: its address.
    #[serde(default)]
    pub impersonate: Option<String>,
    /// The root of all services, for simulators and proxies.
    #[serde(default)]
    pub api_endpoint: Option<String>,
    /// Where the metadata server is, for simulators.
    #[serde(default)]
    pub metadata_endpoint: Option<String>,
    /// Which projects are read.
    #[serde(default)]
    pub projects: Option<Selection>,
    /// How long a unit may wait in all.
    #[serde(default, deserialize_with = "params::duration")]
    pub patience: Option<Duration>,
    /// Calls in flight.
    #[serde(default)]
    pub concurrency: Option<NonZeroUsize>,
    /// Known from the Python tool: times `threads` it is the concurrency.
    #[serde(default)]
    pub processes: Option<NonZeroUsize>,
    /// Known from the Python tool: times `processes` it is the concurrency.
    #[serde(default)]
    pub threads: Option<NonZeroUsize>,
    /// For debugging: how many projects are read; 0 for all.
    #[serde(default, rename = "_max_projects")]
    pub max_projects: Option<u64>,
}

/// How to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// With the key file at this path.
    KeyFile(String),
    /// With what Google calls the application default credentials of the host.
    ApplicationDefault,
    /// As the service account of the machine.
    Metadata,
}

const KEY_FILE: &str = "key_file";
const APPLICATION_DEFAULT: &str = "application_default";
const METADATA: &str = "metadata";
const WAYS: [&str; 3] = [KEY_FILE, APPLICATION_DEFAULT, METADATA];

/// What the path is, for whom it is missing.
const KEY_FILE_PATH: &str = "the path of a service account's key file on the collector's host, \
    or set `credential` to `application_default` or `metadata`";

/// Where the services are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Services {
    /// Cloud Resource Manager: the projects.
    pub(super) resource_manager: Endpoint,
    /// Compute Engine: what is in them.
    pub(super) compute: Endpoint,
    /// IAM Service Account Credentials: tokens of service accounts.
    pub(super) iam_credentials: Endpoint,
}

/// Parameters that a plugin can be built of.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) way: Way,
    pub(super) impersonate: Option<String>,
    pub(super) services: Services,
    pub(super) metadata: Option<Endpoint>,
    pub(super) projects: Selection,
    pub(super) patience: Option<Duration>,
    pub(super) concurrency: Option<usize>,
    pub(super) max_projects: Option<u64>,
}

impl GcpCloudParams {
    /// Reads parameters, expanded or not. No file is looked at: it is on the worker's host.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn read(params: &Value) -> Result<Self, Vec<ParamError>> {
        let (read, mut errors) = match params::read(params) {
            Ok(read) => (Some(read), Vec::new()),
            Err(errors) => (None, errors),
        };
        let text = |name: &str| params.get(name).and_then(Value::as_str);
        let known = |name: &str| text(name).filter(|text| !has_reference(text));
        let is_wrong = |errors: &[ParamError], name: &str| errors.iter().any(|error| error.path == name);
        if !is_wrong(&errors, "credential") && !is_wrong(&errors, "key_file_path") {
            errors.extend(sign_in_error(text("credential"), text("key_file_path")));
        }
        if let Some(email) = known("impersonate").filter(|email| !is_email(email)) {
            let message = format!(
                "{email:?} is not the address of a service account; write it like `NAME@PROJECT.iam.gserviceaccount.com`"
            );
            errors.push(error("impersonate", message));
        }
        for name in ["api_endpoint", "metadata_endpoint"] {
            if let Some(Err(message)) = known(name).map(|text| endpoint(name, text)) {
                errors.push(error(name, message));
            }
        }
        read.filter(|_| errors.is_empty()).ok_or(errors)
    }

    /// The settings that expanded parameters come to.
    pub(super) fn settings(self) -> Result<Settings, Vec<ParamError>> {
        let parsed = |name: &str, text: Option<&str>| {
            text.map(|text| endpoint(name, text).map_err(|message| vec![error(name, message)])).transpose()
        };
        let api = parsed("api_endpoint", self.api_endpoint.as_deref())?;
        let service = |host: &str| match &api {
            Some(api) => Ok(api.clone()),
            None => Endpoint::parse(host).map_err(|why| vec![error("api_endpoint", why.to_string())]),
        };
        let threads = match (self.processes, self.threads) {
            // The defaults of the Python tool are nobody's wish.
            (None, None) => None,
            (processes, threads) => {
                let processes = processes.map_or(PROCESSES, NonZeroUsize::get);
                Some(processes.saturating_mul(threads.map_or(THREADS, NonZeroUsize::get)))
            }
        };
        Ok(Settings {
            way: way(self.credential.as_deref(), self.key_file_path.as_deref()).map_err(|error| vec![error])?,
            impersonate: self.impersonate,
            services: Services {
                resource_manager: service("https://cloudresourcemanager.googleapis.com")?,
                compute: service("https://compute.googleapis.com")?,
                iam_credentials: service("https://iamcredentials.googleapis.com")?,
            },
            metadata: parsed("metadata_endpoint", self.metadata_endpoint.as_deref())?,
            projects: self.projects.unwrap_or_default(),
            patience: self.patience,
            concurrency: self.concurrency.map(NonZeroUsize::get).or(threads),
            max_projects: self.max_projects.filter(|most| *most > 0),
        })
    }
}

fn sign_in_error(credential: Option<&str>, key_file_path: Option<&str>) -> Option<ParamError> {
    // Which way a reference stands for is known where it is expanded.
    if credential.is_some_and(has_reference) { None } else { way(credential, key_file_path).err() }
}

fn way(credential: Option<&str>, key_file_path: Option<&str>) -> Result<Way, ParamError> {
    match (credential, key_file_path) {
        (None | Some(KEY_FILE), None | Some("")) => Err(params::required("key_file_path", KEY_FILE_PATH)),
        (None | Some(KEY_FILE), Some(path)) => Ok(Way::KeyFile(path.to_owned())),
        (Some(APPLICATION_DEFAULT), None) => Ok(Way::ApplicationDefault),
        (Some(METADATA), None) => Ok(Way::Metadata),
        (Some(other @ (APPLICATION_DEFAULT | METADATA)), Some(_)) => Err(error(
            "key_file_path",
            format!("`credential` is `{other}`, which uses no key file: leave out one of the two"),
        )),
        (Some(other), _) => {
            let hint = did_you_mean(other, WAYS);
            Err(error("credential", format!("found {other:?}{hint} (allowed: {})", WAYS.join(", "))))
        }
    }
}

fn endpoint(name: &str, text: &str) -> Result<Endpoint, String> {
    let not_an_endpoint = |why: EndpointError| format!("`{name}` is not an endpoint: {why}");
    Endpoint::parse(text).map_err(not_an_endpoint)
}

/// It becomes a part of a path, so it is not taken on trust.
pub(super) fn is_email(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    text.split_once('@').is_some_and(|(name, domain)| {
        !name.is_empty() && domain.contains('.') && name.chars().all(is_plain) && domain.chars().all(is_plain)
    })
}

fn error(path: &str, message: String) -> ParamError {
    ParamError { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(params: Value) -> Settings {
        GcpCloudParams::read(&params).unwrap().settings().unwrap()
    }

    fn errors(params: Value) -> Vec<String> {
        let errors = GcpCloudParams::read(&params).unwrap_err();
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn a_sign_in_is_asked_for() {
        for params in [json!({}), json!({"credential": "key_file"}), json!({"key_file_path": ""}), Value::Null] {
            let errors = errors(params);
            assert_eq!(errors.len(), 1);
            assert!(errors[0].starts_with("key_file_path: set `key_file_path`: the path of"), "{errors:?}");
        }
        for (params, way) in [
            (json!({"key_file_path": "k.json"}), Way::KeyFile("k.json".into())),
            (json!({"key_file_path": "k.json", "credential": "key_file"}), Way::KeyFile("k.json".into())),
            (json!({"credential": "application_default"}), Way::ApplicationDefault),
            (json!({"credential": "metadata", "key_file_path": null}), Way::Metadata),
        ] {
            assert_eq!(settings(params).way, way);
        }
        assert_eq!(
            errors(json!({"key_file_path": "k.json", "credential": "metadata"})),
            ["key_file_path: `credential` is `metadata`, which uses no key file: leave out one of the two"]
        );
        assert_eq!(
            errors(json!({"credential": "metadta"})),
            [
                "credential: found \"metadta\"; did you mean `metadata`? (allowed: key_file, application_default, metadata)"
            ]
        );
    }

    #[test]
    fn all_errors_are_told_at_once_with_their_place() {
        let errors = errors(json!({
            "credential": 5, "impersonate": "../me", "api_endpoint": "http://compute.googleapis.com",
            "metadata_endpoint": "http://169.254.169.254", "threads": 0, "patience": "soon", "proejcts": ["a"],
            "_max_projects": -1,
        }));
        for begin in [
            "credential: ",
            "impersonate: \"../me\" is not the address of a service account",
            "api_endpoint: `api_endpoint` is not an endpoint: plain http to",
            "metadata_endpoint: `metadata_endpoint` is not an endpoint: plain http to",
            "threads: ",
            "patience: ",
            "proejcts: unknown parameter `proejcts`; did you mean `projects`?",
            "_max_projects: ",
        ] {
            assert!(errors.iter().any(|error| error.starts_with(begin)), "{begin}: {errors:#?}");
        }
        assert_eq!(errors.len(), 8, "{errors:#?}");
    }

    #[test]
    fn references_may_stand_anywhere() {
        let params = json!({"key_file_path": "${CM_KEY}", "impersonate": "${CM_ME}", "api_endpoint": "${CM_API}"});
        assert!(GcpCloudParams::read(&params).is_ok());
        let params = json!({"credential": "${CM_WAY}", "key_file_path": "k.json"});
        assert!(GcpCloudParams::read(&params).is_ok());
        // Once expanded they are looked at.
        let params = json!({"credential": "none", "key_file_path": "k.json"});
        assert!(GcpCloudParams::read(&params).is_err());
    }

    #[test]
    fn one_endpoint_is_the_root_of_all_services() {
        let one = settings(json!({"credential": "metadata", "api_endpoint": "http://127.0.0.1:9"})).services;
        assert!(one.compute == one.resource_manager && one.compute == one.iam_credentials);
        let many = settings(json!({"credential": "metadata"})).services;
        assert_eq!(many.compute.to_string(), "https://compute.googleapis.com");
        assert_ne!(many.compute, many.resource_manager);
    }

    #[test]
    fn the_parameters_of_the_python_tool_are_taken() {
        let with = |more: Value| {
            let mut params = json!({"key_file_path": "keyfile.json"});
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            settings(params)
        };
        let of = |more| with(more).concurrency;
        assert_eq!(of(json!({})), None);
        assert_eq!(of(json!({"processes": 4, "threads": 30})), Some(120));
        assert_eq!((of(json!({"processes": 2})), of(json!({"threads": 5}))), (Some(60), Some(20)));
        assert_eq!(of(json!({"processes": 4, "threads": 30, "concurrency": 8})), Some(8));
        assert_eq!(with(json!({"_max_projects": 0})).max_projects, None);
        assert_eq!(with(json!({"_max_projects": 7, "patience": "5m"})).max_projects, Some(7));
        assert!(!with(json!({"projects": {"exclude": ["*-test"]}})).projects.includes(&["my-test"]));
    }
}
