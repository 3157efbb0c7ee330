//! Azure's clouds: where each is, and what tokens for it are for.
//!
//! Reference: <https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud>,
//! <https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure> and
//! <https://learn.microsoft.com/azure/china/resources-developer-guide>.

use proto::catalogue::ParamError;
use proto::config::params;

use super::error;
use crate::http::{Endpoint, EndpointError};

/// A cloud of Azure.
#[derive(Debug, PartialEq, Eq)]
struct NationalCloud {
    name: &'static str,
    /// What other tools call it.
    aliases: &'static [&'static str],
    login: &'static str,
    arm: &'static str,
    arm_scope: &'static str,
    vault_scope: &'static str,
    vault_suffix: &'static str,
}

const PUBLIC: NationalCloud = NationalCloud {
    name: "public",
    aliases: &["AzureCloud", "AzurePublicCloud"],
    login: "https://login.microsoftonline.com",
    arm: "https://management.azure.com",
    arm_scope: "https://management.azure.com/.default",
    vault_scope: "https://vault.azure.net/.default",
    vault_suffix: ".vault.azure.net",
};

const CLOUDS: [NationalCloud; 3] = [
    PUBLIC,
    NationalCloud {
        name: "china",
        aliases: &["AzureChinaCloud"],
        login: "https://login.chinacloudapi.cn",
        arm: "https://management.chinacloudapi.cn",
        arm_scope: "https://management.chinacloudapi.cn/.default",
        vault_scope: "https://vault.azure.cn/.default",
        vault_suffix: ".vault.azure.cn",
    },
    NationalCloud {
        name: "usgovernment",
        aliases: &["AzureUSGovernment"],
        login: "https://login.microsoftonline.us",
        arm: "https://management.usgovcloudapi.net",
        arm_scope: "https://management.core.usgovcloudapi.net/.default",
        vault_scope: "https://vault.usgovcloudapi.net/.default",
        vault_suffix: ".vault.usgovcloudapi.net",
    },
];

impl NationalCloud {
    fn named(name: &str) -> Option<&'static Self> {
        let is_name = |known: &&str| known.eq_ignore_ascii_case(name);
        CLOUDS.iter().find(|cloud| is_name(&cloud.name) || cloud.aliases.iter().any(is_name))
    }
}

/// Where the plugin signs in and reads, and what its tokens are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::azure) struct Endpoints {
    pub(in crate::azure) login: Endpoint,
    pub(in crate::azure) arm: Endpoint,
    pub(in crate::azure) arm_scope: String,
    pub(in crate::azure) vault_scope: String,
    /// How the names of the cloud's vaults end; none for a cloud that is not Azure's own.
    pub(in crate::azure) vault_suffix: Option<&'static str>,
}

/// What the parameters say of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Choice<'a> {
    pub(super) cloud: Option<&'a str>,
    pub(super) login: Option<&'a str>,
    pub(super) arm: Option<&'a str>,
    pub(super) vault_scope: Option<&'a str>,
}

impl Choice<'_> {
    /// A cloud by its name or by its endpoints, of which each may be another; what is not said is the public cloud's.
    pub(super) fn endpoints(self) -> Result<Endpoints, Vec<ParamError>> {
        let mut errors = Vec::new();
        let named = self.cloud.and_then(|name| {
            let found = NationalCloud::named(name);
            if found.is_none() {
                errors.push(unknown_cloud(name));
            }
            found
        });
        let mut endpoint = |name, text: Option<&str>| match Endpoint::parse(text?) {
            Ok(endpoint) => Some(endpoint),
            Err(why) => {
                errors.push(not_an_endpoint(name, &why));
                None
            }
        };
        let login = endpoint("login_endpoint", self.login);
        let arm = endpoint("arm_endpoint", self.arm);
        if let Some(scope) = self.vault_scope.filter(|scope| !is_scope(scope)) {
            let message = format!("{scope:?} is not a scope; write it like `{}`", PUBLIC.vault_scope);
            errors.push(error("key_vault_scope", message));
        }

        let origin = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(ToString::to_string).unwrap_or_default();
        let (login_origin, arm_origin) = (origin(&login), origin(&arm));
        let of_login = CLOUDS.iter().find(|cloud| cloud.login == login_origin);
        let of_arm = CLOUDS.iter().find(|cloud| cloud.arm == arm_origin);
        let of_vault = CLOUDS.iter().find(|cloud| Some(cloud.vault_scope) == self.vault_scope);
        let cloud = named.or(of_arm).or(of_login.filter(|_| arm.is_none()));
        for (name, of) in [("login_endpoint", of_login), ("arm_endpoint", of_arm), ("key_vault_scope", of_vault)] {
            if let (Some(of), Some(cloud)) = (of, cloud)
                && of != cloud
            {
                let by = match (named, of_arm) {
                    (Some(_), _) => "`cloud`",
                    (None, Some(_)) => "`arm_endpoint`",
                    (None, None) => "`login_endpoint`",
                };
                let message = format!(
                    "`{name}` is the cloud {}'s, but {by} is {}'s: a token of one is not taken by the other",
                    of.name, cloud.name
                );
                errors.push(error(name, message));
            }
        }

        let or_public = cloud.unwrap_or(&PUBLIC);
        let login = login.map_or_else(|| Endpoint::parse(or_public.login), Ok);
        let arm = arm.map_or_else(|| Endpoint::parse(or_public.arm), Ok);
        let (Ok(login), Ok(arm), true) = (login, arm, errors.is_empty()) else { return Err(errors) };
        let is_local = arm.is_loopback();
        Ok(Endpoints {
            arm_scope: match cloud {
                Some(cloud) => cloud.arm_scope.to_owned(),
                // What listens here stands for the public cloud.
                None if is_local || self.arm.is_none() => PUBLIC.arm_scope.to_owned(),
                None => format!("{arm}/.default"),
            },
            vault_scope: self.vault_scope.unwrap_or(or_public.vault_scope).to_owned(),
            vault_suffix: match (self.vault_scope, cloud) {
                _ if is_local => None,
                (Some(_), _) => of_vault.map(|cloud| cloud.vault_suffix),
                (None, Some(cloud)) => Some(cloud.vault_suffix),
                (None, None) => Some(PUBLIC.vault_suffix).filter(|_| self.arm.is_none()),
            },
            login,
            arm,
        })
    }
}

fn unknown_cloud(name: &str) -> ParamError {
    let known = CLOUDS.iter().flat_map(|cloud| [cloud.name].into_iter().chain(cloud.aliases.iter().copied()));
    let hint = params::did_you_mean(name, known);
    let names: Vec<&str> = CLOUDS.iter().map(|cloud| cloud.name).collect();
    let allowed = names.join(", ");
    let message =
        format!("no cloud {name:?} is known{hint} (allowed: {allowed}; others by `login_endpoint` and `arm_endpoint`)");
    error("cloud", message)
}

/// `https://vault.azure.net/.default`: a resource, and all that was granted for it.
fn is_scope(text: &str) -> bool {
    text.strip_suffix("/.default").is_some_and(|resource| Endpoint::parse(resource).is_ok())
}

pub(super) fn not_an_endpoint(name: &str, why: &EndpointError) -> ParamError {
    error(name, format!("`{name}` is not an endpoint: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(choice: Choice<'_>) -> Endpoints {
        choice.endpoints().unwrap()
    }

    fn errors(choice: Choice<'_>) -> Vec<String> {
        let errors = choice.endpoints().unwrap_err();
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn a_cloud_goes_by_any_of_its_names() {
        for cloud in &CLOUDS {
            for name in [cloud.name].iter().chain(cloud.aliases) {
                for name in [(*name).to_owned(), name.to_uppercase()] {
                    let found = of(Choice { cloud: Some(&name), ..Choice::default() });
                    assert_eq!((found.login.to_string().as_str(), &*found.arm_scope), (cloud.login, cloud.arm_scope));
                    assert_eq!(
                        (&*found.vault_scope, found.vault_suffix),
                        (cloud.vault_scope, Some(cloud.vault_suffix))
                    );
                }
            }
        }
        let error = errors(Choice { cloud: Some("chian"), ..Choice::default() });
        assert!(error[0].starts_with("cloud: no cloud \"chian\" is known; did you mean `china`? (allowed: public, "));
    }

    #[test]
    fn a_cloud_is_known_by_an_endpoint_of_its_own() {
        let none = of(Choice::default());
        assert_eq!((&*none.arm_scope, none.vault_suffix), (PUBLIC.arm_scope, Some(".vault.azure.net")));
        let us = of(Choice { arm: Some("https://management.usgovcloudapi.net/"), ..Choice::default() });
        assert_eq!(us.login.to_string(), "https://login.microsoftonline.us");
        assert_eq!(us.arm_scope, "https://management.core.usgovcloudapi.net/.default");
        let china = of(Choice { login: Some("https://LOGIN.chinacloudapi.cn"), ..Choice::default() });
        assert_eq!(china.arm.to_string(), "https://management.chinacloudapi.cn");
        assert_eq!(china.vault_scope, "https://vault.azure.cn/.default");
    }

    #[test]
    fn other_clouds_and_this_host_are_taken_as_they_are() {
        let (login, arm) = (Some("https://login.stack.example"), Some("https://arm.stack.example"));
        let own = of(Choice { login, arm, ..Choice::default() });
        assert_eq!((&*own.arm_scope, own.vault_suffix), ("https://arm.stack.example/.default", None));
        let own =
            of(Choice { login, arm, vault_scope: Some("https://vault.stack.example/.default"), ..Choice::default() });
        assert_eq!((&*own.vault_scope, own.vault_suffix), ("https://vault.stack.example/.default", None));
        let local = Choice { arm: Some("http://127.0.0.1:1"), ..Choice::default() };
        assert_eq!((of(local).arm_scope, of(local).vault_suffix), (PUBLIC.arm_scope.into(), None));
        let local = of(Choice { cloud: Some("china"), ..local });
        assert_eq!((&*local.arm_scope, local.vault_suffix), ("https://management.chinacloudapi.cn/.default", None));
        // A way of one's own to a cloud that is named.
        let private = of(Choice { cloud: Some("public"), arm: Some("https://arm.corp.example"), ..Choice::default() });
        assert_eq!((&*private.arm_scope, private.vault_suffix), (PUBLIC.arm_scope, Some(".vault.azure.net")));
    }

    #[test]
    fn endpoints_of_different_clouds_contradict_each_other() {
        let said = errors(Choice {
            cloud: Some("china"),
            login: Some(PUBLIC.login),
            vault_scope: Some("https://vault.azure.net/.default"),
            ..Choice::default()
        });
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(
            said[0],
            "login_endpoint: `login_endpoint` is the cloud public's, but `cloud` is china's: a token of one is not taken by the other"
        );
        assert!(said[1].starts_with("key_vault_scope: "), "{said:?}");
        let said = errors(Choice {
            arm: Some("https://management.chinacloudapi.cn"),
            login: Some("https://login.microsoftonline.us"),
            ..Choice::default()
        });
        assert!(said[0].contains("cloud usgovernment's, but `arm_endpoint` is china's"), "{said:?}");
    }

    #[test]
    fn what_is_wrong_is_told_at_once() {
        let said = errors(Choice {
            cloud: Some("moon"),
            login: Some("https://u:p@login.example"),
            arm: Some("http://management.azure.com"),
            vault_scope: Some("vault.azure.net"),
        });
        let paths: Vec<&str> = said.iter().filter_map(|error| error.split(": ").next()).collect();
        assert_eq!(paths, ["cloud", "login_endpoint", "arm_endpoint", "key_vault_scope"]);
    }
}
