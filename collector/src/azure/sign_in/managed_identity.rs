//! Sign-in by the managed identity of the machine that this runs on.
//!
//! Reference: <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token> (a
//! machine's metadata service) and <https://learn.microsoft.com/azure/app-service/overview-managed-identity> (App
//! Service, Functions, Container Apps). The SDK's client tries for more than a minute wherever it is.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use azure_core::credentials::Secret as TokenSecret;
use proto::config::Environment;
use proto::config::secret::Secret;
use proto::record::Text;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, SERVER};
use serde::{Deserialize, Deserializer, de};
use url::Url;

use super::{Failure, Fresh, Identity};
use crate::http::{self, Answer, Client, Endpoint, HttpError, Limits, Timeouts, bounded};

/// The metadata service of a machine in Azure; the address is the same everywhere and leaves no network.
const MACHINE: &str = "http://169.254.169.254";
const MACHINE_PATH: &str = "/metadata/identity/oauth2/token";
const MACHINE_VERSION: &str = "2018-02-01";
const APP_VERSION: &str = "2019-08-01";

const ENDPOINT_VARIABLE: &str = "IDENTITY_ENDPOINT";
const HEADER_VARIABLE: &str = "IDENTITY_HEADER";

/// The service is near, or it is not there at all.
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(2), read: Duration::from_secs(5), whole: Duration::from_secs(10) };

/// A managed identity of this machine.
pub(super) struct ManagedIdentity {
    identity: Identity,
    service: Service,
    http: Client,
    /// Whether a token has come before: then the service exists.
    has_answered: AtomicBool,
}

/// Who gives out the tokens.
enum Service {
    Machine(Url),
    /// The header is a secret of the app.
    App(Url, Secret),
}

impl fmt::Debug for ManagedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedIdentity")
            .field("identity", &self.identity)
            .field("service", &self.service.url().as_str())
            .finish_non_exhaustive()
    }
}

impl Service {
    fn find(endpoint: Option<Endpoint>, environment: &Environment) -> Result<Self, String> {
        if let Some(endpoint) = endpoint {
            return Ok(Self::Machine(endpoint.url(MACHINE_PATH, None)));
        }
        let variable = |name: &str| environment.variable(name).filter(|value| !value.is_empty());
        let other = match (variable(ENDPOINT_VARIABLE), variable(HEADER_VARIABLE)) {
            (Some(_), Some(_)) if variable("IDENTITY_SERVER_THUMBPRINT").is_some() => "Service Fabric",
            (Some(url), Some(header)) => {
                let url = Url::parse(url)
                    .map_err(|error| format!("the environment variable {ENDPOINT_VARIABLE} is not a URL ({error})"))?;
                return Ok(Self::App(url, Secret::from(header)));
            }
            (Some(_), None) if variable("IMDS_ENDPOINT").is_some() => "Azure Arc",
            (None, _) if variable("MSI_ENDPOINT").is_some() => match variable("MSI_SECRET") {
                Some(_) => "Azure Machine Learning",
                None => "Cloud Shell",
            },
            _ => {
                let url = Url::parse(&format!("{MACHINE}{MACHINE_PATH}")).map_err(|error| error.to_string())?;
                return Ok(Self::Machine(url));
            }
        };
        Err(format!(
            "the managed identity of {other} is not supported: virtual machines, scale sets, Kubernetes nodes, App Service, Functions and Container Apps are; choose another `credential`"
        ))
    }

    fn url(&self) -> &Url {
        match self {
            Self::Machine(url) | Self::App(url, _) => url,
        }
    }

    /// The text without the app's secret, should the answer repeat it.
    fn without_secret(&self, text: &str) -> String {
        match self {
            Self::App(_, secret) => text.replace(secret.expose(), "***"),
            Self::Machine(_) => text.to_owned(),
        }
    }

    /// The URL and the headers of a request for a token.
    fn request(&self, identity: &Identity, scope: &str) -> Result<(Url, HeaderMap), String> {
        let mut url = self.url().clone();
        let mut headers = HeaderMap::new();
        let (version, resource_id) = match self {
            Self::Machine(_) => {
                headers.insert(HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
                (MACHINE_VERSION, "msi_res_id")
            }
            Self::App(_, secret) => {
                let mut value = HeaderValue::from_str(secret.expose())
                    .map_err(|_| format!("the environment variable {HEADER_VARIABLE} is not the value of a header"))?;
                value.set_sensitive(true);
                headers.insert(HeaderName::from_static("x-identity-header"), value);
                (APP_VERSION, "mi_res_id")
            }
        };
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let mut query = url.query_pairs_mut();
        query.append_pair("api-version", version).append_pair("resource", resource);
        match identity {
            Identity::System => {}
            Identity::Client(id) => drop(query.append_pair("client_id", id)),
            Identity::Object(id) => {
                query.append_pair(if matches!(self, Self::App(..)) { "principal_id" } else { "object_id" }, id);
            }
            Identity::Resource(id) => drop(query.append_pair(resource_id, id)),
        }
        drop(query);
        Ok((url, headers))
    }
}

impl ManagedIdentity {
    pub(super) fn new(
        identity: Identity,
        endpoint: Option<Endpoint>,
        environment: &Environment,
    ) -> Result<Self, String> {
        let service = Service::find(endpoint, environment)?;
        // A proxy cannot reach this machine's own service, and must not see its tokens.
        let http =
            Client::new(TIMEOUTS, true, Limits::new(1)).map_err(|error| format!("cannot set up TLS: {error}"))?;
        Ok(Self { identity, service, http, has_answered: AtomicBool::new(false) })
    }

    pub(super) async fn token(&self, scope: &str) -> Result<Fresh, Failure> {
        let (url, headers) =
            self.service.request(&self.identity, scope).map_err(|why| Failure::Final(self.reason(&why)))?;
        let answer = match self.http.get_with(&url, headers.clone()).await {
            // Once more, lest a single lost packet ends it: what is not there is final below.
            Err(HttpError::Transient { .. }) => self.http.get_with(&url, headers).await,
            other => other,
        };
        let answer = answer.map_err(|error| self.no_answer(&error))?;
        let call = http::call("GET", &url);
        if answer.status != 200 {
            return Err(self.refused(&call, &answer));
        }
        let given: Given<'_> = serde_json::from_slice(&answer.body).map_err(|_| {
            Failure::Final(self.reason(&format!("{call}: the answer holds no token; is it Azure that answers there?")))
        })?;
        self.has_answered.store(true, Ordering::Relaxed);
        Ok(given.fresh(SystemTime::now()))
    }

    fn no_answer(&self, error: &HttpError) -> Failure {
        match error {
            HttpError::Transient { .. } if self.has_answered.load(Ordering::Relaxed) => {
                Failure::Transient(self.reason(&error.to_string()))
            }
            HttpError::Transient { .. } => Failure::Final(self.reason(&format!(
                "there is no managed identity here ({error}): run the collector in Azure, or choose another `credential`"
            ))),
            HttpError::TooLarge { .. } => Failure::Final(self.reason(&error.to_string())),
        }
    }

    fn refused(&self, call: &str, answer: &Answer) -> Failure {
        let body: Refused<'_> = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said = [body.error_description, body.message, body.error].into_iter().flatten().next();
        // Before the text is cut: a part of a secret would not be found.
        let said = self.service.without_secret(said.as_deref().unwrap_or_default());
        let text = format!("{call}: {} {}", answer.status.as_u16(), bounded(&said, 500));
        let text = text.trim_end();
        let is_azure = answer.headers.get(SERVER).is_some_and(|server| server.as_bytes().starts_with(b"IMDS"));
        let reason = |hint: &str| self.reason(&format!("{text}{}{hint}", if hint.is_empty() { "" } else { " " }));
        match answer.status.as_u16() {
            429 => Failure::throttled(answer.retry_after(), reason("")),
            408 | 500.. => Failure::Transient(reason("")),
            // The service is being brought up to date.
            404 | 410 if is_azure => Failure::Transient(reason("")),
            400 => Failure::Final(reason(match self.identity {
                Identity::System => {
                    "(give the machine a system-assigned identity, or name a user-assigned one by `client`, `object_id` or `resource_id`)"
                }
                _ => "(assign the identity to this machine, or name one that is)",
            })),
            401 | 403 if matches!(self.service, Service::App(..)) => Failure::Final(reason(
                "(the environment variable IDENTITY_HEADER is not the one that the app was given)",
            )),
            _ => Failure::Final(reason(
                "(there is no managed identity here: run the collector in Azure, or choose another `credential`)",
            )),
        }
    }

    pub(super) fn reason(&self, why: &str) -> String {
        let identity = match &self.identity {
            Identity::System => "the managed identity of this machine".to_owned(),
            Identity::Client(id) | Identity::Object(id) | Identity::Resource(id) => {
                format!("the managed identity {id}")
            }
        };
        format!("cannot sign in by {identity}: {why}")
    }
}

/// The answer, whose numbers are mostly texts.
#[derive(Deserialize)]
struct Given<'a> {
    #[serde(borrow)]
    access_token: Text<'a>,
    #[serde(default, deserialize_with = "number")]
    expires_in: Option<u64>,
    /// In seconds since 1970.
    #[serde(default, deserialize_with = "number")]
    expires_on: Option<u64>,
}

impl Given<'_> {
    /// The service keeps its tokens, too: what it gives may be old, and then the end counts, not the length.
    fn fresh(&self, now: SystemTime) -> Fresh {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let until = self.expires_on.map(|end| Duration::from_secs(end).saturating_sub(now));
        let length = self.expires_in.map(Duration::from_secs);
        let lifetime = until.into_iter().chain(length).min().unwrap_or_default();
        Fresh { secret: TokenSecret::new(self.access_token.to_string()), lifetime }
    }
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::Number(number) => Ok(number.as_u64()),
        serde_json::Value::String(text) => Ok(text.parse().ok()),
        _ => Err(de::Error::custom("not a number")),
    }
}

#[derive(Default, Deserialize)]
struct Refused<'a> {
    #[serde(borrow, default)]
    error: Option<Text<'a>>,
    #[serde(borrow, default)]
    error_description: Option<Text<'a>>,
    /// App Service's.
    #[serde(borrow, default)]
    message: Option<Text<'a>>,
}
