//! The ways to sign in, as the parameters choose them.

use proto::catalogue::ParamError;
use proto::config::secret::has_reference;
use proto::config::{Environment, params};
use serde_json::Value;

use super::endpoints::not_an_endpoint;
use super::{AzureParams, error};
use crate::azure::sign_in::{Application, Certificate, Credential, Identity, Proof};
use crate::http::Endpoint;

/// A way to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ClientSecret,
    ClientCertificate,
    WorkloadIdentity,
    ManagedIdentity,
    AzureCli,
}

use Way::{AzureCli, ClientCertificate, ClientSecret, ManagedIdentity, WorkloadIdentity};

const WAYS: [(&str, Way); 5] = [
    ("client_secret", ClientSecret),
    ("client_certificate", ClientCertificate),
    ("workload_identity", WorkloadIdentity),
    ("managed_identity", ManagedIdentity),
    ("azure_cli", AzureCli),
];

/// The parameters that not all ways take. A way that is not named here has no use for the parameter.
const TAKEN_BY: [(&str, &[Way]); 7] = [
    ("client", &[ClientSecret, ClientCertificate, WorkloadIdentity, ManagedIdentity]),
    ("secret", &[ClientSecret]),
    ("certificate", &[ClientCertificate]),
    ("token_file", &[WorkloadIdentity]),
    ("object_id", &[ManagedIdentity]),
    ("resource_id", &[ManagedIdentity]),
    ("identity_endpoint", &[ManagedIdentity]),
];

/// The parameters that name a user-assigned identity.
const IDENTITIES: [&str; 3] = ["client", "object_id", "resource_id"];

const TENANT: (&str, &str) = ("tenant", "the id or a domain of the tenant to sign in to");
const CLIENT: (&str, &str) = ("client", "the client id of the application to sign in as");
const SECRET: (&str, &str) =
    ("secret", "a secret of the application; `${CM_SECRET}` takes it from the worker's environment");
const CERTIFICATE: (&str, &str) =
    ("certificate", "the path of a PEM file with the application's certificate and its private key");

const SAY_HOW: &str = "say how to sign in: set `tenant` and `client` with `secret` or `certificate`, or set `credential` to \
    `workload_identity`, `managed_identity` or `azure_cli`";

/// Where an Azure workload finds its identity, if the parameters do not say.
const TENANT_VARIABLE: &str = "AZURE_TENANT_ID";
const CLIENT_VARIABLE: &str = "AZURE_CLIENT_ID";
const TOKEN_FILE_VARIABLE: &str = "AZURE_FEDERATED_TOKEN_FILE";

impl Way {
    fn name(self) -> &'static str {
        WAYS.iter().find(|(_, way)| *way == self).map_or("", |(name, _)| name)
    }

    fn requires(self) -> &'static [(&'static str, &'static str)] {
        match self {
            ClientSecret => &[TENANT, CLIENT, SECRET],
            ClientCertificate => &[TENANT, CLIENT, CERTIFICATE],
            WorkloadIdentity | ManagedIdentity | AzureCli => &[],
        }
    }

    /// The way that the parameters choose, by name or by what is given; none if that is in a reference.
    fn chosen(params: &Value) -> Result<Option<Self>, ParamError> {
        match params.get("credential") {
            None | Some(Value::Null) => match (is_given(params, "secret"), is_given(params, "certificate")) {
                (true, false) => Ok(Some(ClientSecret)),
                (false, true) => Ok(Some(ClientCertificate)),
                (true, true) => Err(error("certificate", "`secret` and `certificate` are both set: keep one")),
                (false, false) => Err(error("credential", SAY_HOW)),
            },
            Some(Value::String(text)) if has_reference(text) => Ok(None),
            Some(Value::String(text)) => match WAYS.iter().find(|(name, _)| name == text) {
                Some((_, way)) => Ok(Some(*way)),
                None => {
                    // What stands there might be a secret.
                    let names = WAYS.map(|(name, _)| name);
                    let hint = params::did_you_mean(text, names);
                    let message = format!("that is not a way to sign in{hint} (allowed: {})", names.join(", "));
                    Err(error("credential", message))
                }
            },
            // It has been told that this should be a text.
            Some(_) => Ok(None),
        }
    }
}

fn is_given(params: &Value, name: &str) -> bool {
    params.get(name).is_some_and(|value| !value.is_null())
}

/// What is wrong with the choice; values may be references.
pub(super) fn check(params: &Value) -> Vec<ParamError> {
    let mut errors = Vec::new();
    let known = |name: &str| params.get(name)?.as_str().filter(|text| !has_reference(text));
    let is_empty = |name: &str| known(name).is_some_and(|text| text.trim().is_empty());
    let mut told = Vec::new();
    match Way::chosen(params) {
        Ok(Some(way)) => {
            for (name, what) in way.requires() {
                if is_empty(name) || !is_given(params, name) {
                    told.push(*name);
                    errors.push(params::required(name, what));
                }
            }
            for (name, ways) in TAKEN_BY {
                if is_given(params, name) && !ways.contains(&way) {
                    told.push(name);
                    errors.push(not_taken(way, name, ways));
                }
            }
            let given: Vec<&str> = IDENTITIES.into_iter().filter(|name| is_given(params, name)).collect();
            if way == ManagedIdentity && given.len() > 1 {
                for name in given.iter().skip(1) {
                    errors.push(error(name, "`client`, `object_id` and `resource_id` each name an identity: keep one"));
                }
            }
        }
        Ok(None) => {}
        Err(wrong) => errors.push(wrong),
    }
    for name in TAKEN_BY.iter().map(|(name, _)| *name).chain(["tenant"]) {
        if is_empty(name) && !told.contains(&name) {
            errors.push(error(name, format!("`{name}` is empty: set it, or leave it out")));
        }
    }
    if let Some(tenant) = known("tenant").filter(|tenant| !is_tenant(tenant)) {
        errors.push(error("tenant", format!("{tenant:?} is not the id or a domain of a tenant")));
    }
    if let Some(Err(why)) = known("identity_endpoint").filter(|text| !text.is_empty()).map(Endpoint::parse) {
        errors.push(not_an_endpoint("identity_endpoint", &why));
    }
    errors
}

fn not_taken(way: Way, name: &str, by: &[Way]) -> ParamError {
    let others: Vec<String> = by.iter().map(|way| format!("`{}`", way.name())).collect();
    let message =
        format!("`credential` {} has no use for `{name}`: remove it, or choose {}", way.name(), others.join(" or "));
    error(name, message)
}

/// As the sign-in library will have it.
fn is_tenant(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == '.' || c == '-')
}

/// What the parameters, checked and expanded, sign in with; what a workload is given by its surroundings is in the
/// environment.
pub(super) fn credential(params: &AzureParams, environment: &Environment) -> Result<Credential, Vec<ParamError>> {
    let way = match &params.credential {
        Some(name) => WAYS.iter().find(|(known, _)| known == name).map(|(_, way)| *way),
        None if params.certificate.is_some() => Some(ClientCertificate),
        None if params.secret.is_some() => Some(ClientSecret),
        None => None,
    };
    let application = || {
        let (tenant, client) = (params.tenant.clone(), params.client.clone());
        Application { tenant: tenant.unwrap_or_default(), client: client.unwrap_or_default() }
    };
    match way {
        Some(ClientSecret) => {
            Ok(Credential::Application(application(), Proof::Secret(params.secret.clone().unwrap_or_default())))
        }
        Some(ClientCertificate) => {
            let text = params.certificate.clone().unwrap_or_default();
            let certificate = match text.expose().trim_start().starts_with("-----BEGIN") {
                true => Certificate::Pem(text),
                false => Certificate::File(environment.path(text.expose())),
            };
            Ok(Credential::Application(application(), Proof::Certificate(certificate)))
        }
        Some(WorkloadIdentity) => workload_identity(params, environment),
        Some(ManagedIdentity) => {
            let identity = match (&params.client, &params.object_id, &params.resource_id) {
                (Some(client), ..) => Identity::Client(client.clone()),
                (None, Some(object), _) => Identity::Object(object.clone()),
                (None, None, Some(resource)) => Identity::Resource(resource.clone()),
                (None, None, None) => Identity::System,
            };
            let endpoint = params.identity_endpoint.as_deref().map(Endpoint::parse).transpose();
            let endpoint = endpoint.map_err(|why| vec![not_an_endpoint("identity_endpoint", &why)])?;
            Ok(Credential::ManagedIdentity { identity, endpoint })
        }
        Some(AzureCli) => Ok(Credential::AzureCli { tenant: params.tenant.clone() }),
        None => Err(vec![error("credential", SAY_HOW)]),
    }
}

fn workload_identity(params: &AzureParams, environment: &Environment) -> Result<Credential, Vec<ParamError>> {
    let mut errors = Vec::new();
    let mut given = |name: &str, value: &Option<String>, variable: &str, what: &str| {
        let found = value.as_deref().or_else(|| environment.variable(variable)).filter(|text| !text.is_empty());
        if found.is_none() {
            let message = format!(
                "set `{name}`: {what}; the environment variable {variable}, which Azure's workload identity sets, is not set here"
            );
            errors.push(error(name, message));
        }
        found.unwrap_or_default().to_owned()
    };
    let tenant = given("tenant", &params.tenant, TENANT_VARIABLE, TENANT.1);
    let client = given("client", &params.client, CLIENT_VARIABLE, CLIENT.1);
    let what = "the path of the file with the federated token";
    let token_file = given("token_file", &params.token_file, TOKEN_FILE_VARIABLE, what);
    if !is_tenant(&tenant) {
        errors.push(error("tenant", format!("{tenant:?} (of {TENANT_VARIABLE}) is not the id of a tenant")));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let proof = Proof::Federated(environment.path(token_file));
    Ok(Credential::Application(Application { tenant, client }, proof))
}
