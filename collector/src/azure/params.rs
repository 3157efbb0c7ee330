//! The parameters of Azure's plugins.

use proto::catalogue::ParamError;
use proto::config::params;
use proto::config::secret::{Secret, has_reference};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::http::{Endpoint, EndpointError};

/// A cloud of Azure: where it is, and what tokens for it are for.
///
/// Reference: <https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure> and
/// <https://learn.microsoft.com/azure/china/resources-developer-guide>.
struct NationalCloud {
    arm: &'static str,
    login: &'static str,
    scope: &'static str,
}

const PUBLIC: NationalCloud = NationalCloud {
    arm: "https://management.azure.com",
    login: "https://login.microsoftonline.com",
    scope: "https://management.azure.com/.default",
};

const NATIONAL_CLOUDS: [NationalCloud; 3] = [
    PUBLIC,
    NationalCloud {
        arm: "https://management.chinacloudapi.cn",
        login: "https://login.chinacloudapi.cn",
        scope: "https://management.chinacloudapi.cn/.default",
    },
    NationalCloud {
        arm: "https://management.usgovcloudapi.net",
        login: "https://login.microsoftonline.us",
        scope: "https://management.core.usgovcloudapi.net/.default",
    },
];

/// The parameters of `AzCloud`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzCloudParams {
    /// The tenant to sign in to: its id or one of its domains.
    pub tenant: String,
    /// The application to sign in as: its client id.
    pub client: String,
    /// A secret of the application: mostly a reference like `${CM_SECRET}`.
    pub secret: Secret,
    /// Where to sign in, for other clouds than the public one and for simulators.
    #[serde(default)]
    pub login_endpoint: Option<String>,
    /// Where Resource Manager is, for other clouds than the public one and for simulators.
    #[serde(default)]
    pub arm_endpoint: Option<String>,
    /// Known from the Python tool, and of no effect: collectors share the work.
    #[serde(default)]
    pub processes: Option<IgnoredAny>,
    /// Known from the Python tool, and of no effect.
    #[serde(default)]
    pub threads: Option<IgnoredAny>,
    /// For debugging: how many subscriptions are read; 0 for all.
    #[serde(default, rename = "_max_subs")]
    pub max_subs: Option<u64>,
    /// For debugging: how many resources of a type are read in each subscription; 0 for all.
    #[serde(default, rename = "_max_recs")]
    pub max_recs: Option<u64>,
}

/// What the required parameters are.
const REQUIRED: [(&str, &str); 3] = [
    ("tenant", "the id or a domain of the tenant to sign in to"),
    ("client", "the client id of the application to sign in as"),
    ("secret", "a secret of the application; `${CM_SECRET}` takes it from the worker's environment"),
];
/// The parameters that are endpoints.
const ENDPOINTS: [&str; 2] = ["login_endpoint", "arm_endpoint"];

/// Parameters that a plugin can be built of.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) tenant: String,
    pub(super) client: String,
    pub(super) secret: Secret,
    pub(super) login: Endpoint,
    pub(super) arm: Endpoint,
    /// What the token is for.
    pub(super) scope: String,
    pub(super) max_subs: Option<u64>,
    pub(super) max_recs: Option<u64>,
}

impl AzCloudParams {
    /// Reads parameters, expanded or not.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn read(params: &Value) -> Result<Self, Vec<ParamError>> {
        let (read, mut errors) = match params::read_with(params, &REQUIRED) {
            Ok(read) => (Some(read), Vec::new()),
            Err(errors) => (None, errors),
        };
        let known = |name: &str| params.get(name)?.as_str().filter(|text| !has_reference(text));
        for (name, what) in REQUIRED {
            if known(name).is_some_and(str::is_empty) {
                errors.push(params::required(name, what));
            }
        }
        if let Some(tenant) = known("tenant").filter(|tenant| !is_tenant(tenant)) {
            errors.push(error("tenant", format!("{tenant:?} is not the id or a domain of a tenant")));
        }
        for name in ENDPOINTS {
            if let Some(Err(why)) = known(name).map(Endpoint::parse) {
                errors.push(not_an_endpoint(name, &why));
            }
        }
        read.filter(|_| errors.is_empty()).ok_or(errors)
    }

    /// The settings that expanded parameters come to.
    pub(super) fn settings(self) -> Result<Settings, Vec<ParamError>> {
        let endpoint = |name, text: &str| Endpoint::parse(text).map_err(|why| vec![not_an_endpoint(name, &why)]);
        let arm = endpoint("arm_endpoint", self.arm_endpoint.as_deref().unwrap_or(PUBLIC.arm))?;
        let cloud = NATIONAL_CLOUDS.iter().find(|cloud| cloud.arm == arm.to_string());
        let login = self.login_endpoint.as_deref().unwrap_or(cloud.unwrap_or(&PUBLIC).login);
        Ok(Settings {
            tenant: self.tenant,
            client: self.client,
            secret: self.secret,
            login: endpoint("login_endpoint", login)?,
            scope: match cloud {
                Some(cloud) => cloud.scope.to_owned(),
                // What listens here stands for the public cloud.
                None if arm.is_loopback() => PUBLIC.scope.to_owned(),
                None => format!("{arm}/.default"),
            },
            arm,
            max_subs: self.max_subs.filter(|most| *most > 0),
            max_recs: self.max_recs.filter(|most| *most > 0),
        })
    }
}

/// As the sign-in library will have it.
fn is_tenant(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == '.' || c == '-')
}

fn not_an_endpoint(name: &str, why: &EndpointError) -> ParamError {
    error(name, format!("`{name}` is not an endpoint: {why}"))
}

fn error(path: &str, message: String) -> ParamError {
    ParamError { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(more: Value) -> Settings {
        let mut params = json!({"tenant": "t", "client": "c", "secret": "s"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        AzCloudParams::read(&params).unwrap().settings().unwrap()
    }

    fn errors(params: Value) -> Vec<String> {
        let errors = AzCloudParams::read(&params).unwrap_err();
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn what_is_required_is_asked_for_all_at_once() {
        let errors = errors(json!({"tenant": null, "client": ""}));
        assert_eq!(errors.len(), 3);
        for name in ["tenant", "client", "secret"] {
            let begin = format!("{name}: set `{name}`: ");
            assert!(errors.iter().any(|error| error.starts_with(&begin)), "{name}: {errors:?}");
        }
    }

    #[test]
    fn references_may_stand_anywhere() {
        let params = json!({"tenant": "${CM_TENANT}", "client": "${CM_CLIENT}", "secret": "${CM_SECRET}",
            "arm_endpoint": "${CM_ARM}", "login_endpoint": "http://${CM_LOGIN}"});
        assert!(AzCloudParams::read(&params).is_ok());
    }

    #[test]
    fn endpoints_and_tenants_are_looked_at() {
        let errors = errors(json!({"tenant": "a b", "client": "c", "secret": "s",
            "arm_endpoint": "http://management.azure.com", "login_endpoint": "https://u:p@login.example"}));
        assert_eq!(errors.len(), 3);
        assert!(errors[0].starts_with("tenant: "), "{errors:?}");
        assert!(errors[1].starts_with("login_endpoint: ") && errors[2].starts_with("arm_endpoint: "), "{errors:?}");
    }

    #[test]
    fn unknown_parameters_are_errors() {
        let errors = errors(json!({"tennant": "t", "client": "c", "secret": 5, "arm_endpoint": "x"}));
        assert_eq!(errors.len(), 4, "{errors:?}");
        for begin in ["tennant: ", "secret: ", "tenant: set `tenant`", "arm_endpoint: "] {
            assert!(errors.iter().any(|error| error.starts_with(begin)), "{begin}: {errors:?}");
        }
    }

    #[test]
    fn the_parameters_of_the_python_tool_are_taken() {
        let settings = settings(json!({"processes": 4, "threads": 30, "_max_subs": 0, "_max_recs": 7}));
        assert_eq!((settings.max_subs, settings.max_recs), (None, Some(7)));
    }

    #[test]
    fn each_cloud_has_its_own_sign_in() {
        let of = |more| {
            let settings = settings(more);
            (settings.login.to_string(), settings.scope)
        };
        assert_eq!(of(json!({})), (PUBLIC.login.into(), PUBLIC.scope.into()));
        let (login, scope) = of(json!({"arm_endpoint": "https://management.usgovcloudapi.net/"}));
        assert_eq!(login, "https://login.microsoftonline.us");
        assert_eq!(scope, "https://management.core.usgovcloudapi.net/.default");
        let own = json!({"arm_endpoint": "https://arm.stack.example", "login_endpoint": "https://login.example"});
        assert_eq!(of(own), ("https://login.example".into(), "https://arm.stack.example/.default".into()));
        let local = json!({"arm_endpoint": "http://127.0.0.1:1", "login_endpoint": "http://127.0.0.1:1"});
        assert_eq!(of(local).1, PUBLIC.scope);
    }

    #[test]
    fn the_secret_is_not_shown() {
        let params = json!({"tenant": "t", "client": "c", "secret": "hunter2"});
        let params = AzCloudParams::read(&params).unwrap();
        assert!(!format!("{params:?} {:?}", params.clone().settings()).contains("hunter2"));
    }
}
