//! Sign-in at Microsoft Entra ID with a client secret.
//!
//! Reference: <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>. The protocol and
//! the cache of tokens are the Azure SDK's; the transport is ours, so that its timeouts and bounds hold for the sign-in,
//! too, a loopback endpoint may be plain http (which the SDK refuses), and a refusal is read as it was sent (the SDK
//! does not understand a description with an escaped character).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{
    AsyncRawResponse, Body, ClientOptions, HttpClient, Request, RetryOptions, StatusCode, Transport,
};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use proto::coverage::State;
use proto::record::Text;
use serde::Deserialize;

use super::arm::bounded;
use crate::cloud::WorkError;
use crate::http::{self, Answer, Client, Endpoint, HttpError};

/// The longest time for a token, with the time in which another unit asks for it.
const PATIENCE: Duration = Duration::from_secs(120);
/// The wait when Entra ID throttles and does not say for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// No single wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The application that signs in.
#[derive(Debug, Clone)]
pub(super) struct Application {
    pub(super) tenant: String,
    pub(super) client: String,
    pub(super) secret: Secret,
}

/// Gives out tokens of one application for one service.
pub(super) struct SignIn {
    application: Application,
    /// What the token is for: `https://management.azure.com/.default`.
    scope: String,
    transport: Arc<Login>,
    current: Mutex<Current>,
}

/// The credential in use. It caches its token and renews it before it expires; one whose token is refused all the
/// same is replaced as a whole, for nothing else makes it forget.
#[derive(Clone)]
struct Current {
    generation: u64,
    credential: Arc<ClientSecretCredential>,
}

/// A token that was given out.
#[derive(Debug, Clone)]
pub(super) struct Token {
    secret: Secret,
    generation: u64,
}

impl Token {
    /// The token, for the header that it is sent in.
    pub(super) fn secret(&self) -> &str {
        self.secret.secret()
    }

    #[cfg(test)]
    pub(super) fn for_test(secret: &'static str) -> Self {
        Self { secret: Secret::new(secret), generation: 0 }
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn")
            .field("application", &self.application)
            .field("scope", &self.scope)
            .field("login", &self.transport.endpoint)
            .finish_non_exhaustive()
    }
}

impl SignIn {
    /// Nothing is asked of the network yet.
    pub(super) fn new(
        application: Application,
        login: Endpoint,
        scope: String,
        http: Client,
    ) -> azure_core::Result<Self> {
        let transport = Arc::new(Login { http, endpoint: login });
        let current = Current { generation: 0, credential: credential(&application, &transport)? };
        Ok(Self { application, scope, transport, current: Mutex::new(current) })
    }

    /// A token that is good for some minutes.
    pub(super) async fn token(&self) -> Result<Token, WorkError> {
        let Current { generation, credential } = self.lock().clone();
        let scopes = [self.scope.as_str()];
        let asked = tokio::time::timeout(PATIENCE, credential.get_token(&scopes, None));
        match asked.await {
            // The SDK takes any JSON for a token.
            Ok(Ok(token)) if token.token.secret().is_empty() => Err(WorkError::NotRead {
                state: State::Failed,
                reason: self.reason("the answer holds no token; is `login_endpoint` right?"),
            }),
            Ok(Ok(token)) => Ok(Token { secret: token.token, generation }),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err(WorkError::Transient { reason: self.reason("there was no answer in two minutes") }),
        }
    }

    /// Another token in place of one that was refused. Whoever comes second gets the one that the first asked for.
    pub(super) async fn replace(&self, refused: &Token) -> Result<Token, WorkError> {
        {
            let mut current = self.lock();
            if current.generation == refused.generation {
                current.credential =
                    credential(&self.application, &self.transport).map_err(|error| self.explain(&error))?;
                current.generation += 1;
            }
        }
        self.token().await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn explain(&self, error: &azure_core::Error) -> WorkError {
        let Some(trouble) = trouble_in(error) else {
            return WorkError::NotRead { state: State::Failed, reason: self.reason(&bounded(&error.to_string(), 500)) };
        };
        let reason = self.reason(&trouble.to_string());
        match trouble {
            Trouble::Http(HttpError::Transient { .. }) => WorkError::Transient { reason },
            Trouble::Http(HttpError::TooLarge { .. }) => WorkError::NotRead { state: State::Failed, reason },
            Trouble::Refused(refused) => refused.work_error(reason),
        }
    }

    /// The text without the secret, should anybody repeat it.
    fn reason(&self, why: &str) -> String {
        let Application { tenant, client, secret } = &self.application;
        format!("cannot sign in to tenant {tenant} as application {client}: {why}").replace(secret.secret(), "***")
    }
}

fn credential(application: &Application, transport: &Arc<Login>) -> azure_core::Result<Arc<ClientSecretCredential>> {
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host = transport.endpoint.as_https();
    let client_options = ClientOptions {
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
        // The unit is tried again as a whole, with patience and where all can see it.
        retry: RetryOptions::none(),
        transport: Some(Transport::new(Arc::clone(transport) as Arc<dyn HttpClient>)),
        ..ClientOptions::default()
    };
    ClientSecretCredential::new(
        &application.tenant,
        application.client.clone(),
        application.secret.clone(),
        Some(ClientSecretCredentialOptions { client_options }),
    )
}

/// The transport of the sign-in: what the SDK sends to `https://host:port` goes to the configured endpoint.
#[derive(Debug)]
struct Login {
    http: Client,
    endpoint: Endpoint,
}

#[async_trait]
impl HttpClient for Login {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let url = self.endpoint.url(request.url().path(), request.url().query());
        let Body::Bytes(form) = request.body() else {
            return Err(azure_core::Error::with_message(ErrorKind::Other, "the sign-in is not a form"));
        };
        let answer =
            self.http.post_form(&url, form.clone()).await.map_err(|error| Trouble::Http(error).into_azure())?;
        if !answer.status.is_success() {
            let refused = Refused::read(&http::call("POST", &url), &answer);
            return Err(Trouble::Refused(refused).into_azure());
        }
        Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), answer.body))
    }
}

/// Why the sign-in failed, on its way through the SDK.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Http(HttpError),
    #[error("{0}")]
    Refused(Refused),
}

impl Trouble {
    fn into_azure(self) -> azure_core::Error {
        azure_core::Error::new(ErrorKind::Other, self)
    }
}

/// Finds ours below what the SDK put around it.
fn trouble_in(error: &azure_core::Error) -> Option<&Trouble> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(trouble) = error.downcast_ref() {
            return Some(trouble);
        }
        cause = error.source();
    }
    None
}

/// What Entra ID answered in place of a token.
#[derive(Debug)]
struct Refused {
    status: u16,
    /// The number behind `AADSTS`.
    code: Option<i64>,
    is_temporary: bool,
    wait: Option<Duration>,
    text: String,
}

#[derive(Debug, Default, Deserialize)]
struct RefusedBody<'a> {
    #[serde(borrow, default)]
    error: Option<Text<'a>>,
    #[serde(borrow, default)]
    error_description: Option<Text<'a>>,
    #[serde(default)]
    error_codes: Vec<i64>,
}

impl Refused {
    fn read(call: &str, answer: &Answer) -> Self {
        let body: RefusedBody<'_> = serde_json::from_slice(&answer.body).unwrap_or_default();
        let error = body.error.as_deref().unwrap_or_default();
        // Trace ids and times follow; they would make each repetition another text.
        let description = body.error_description.as_deref().unwrap_or(error);
        let description = description.split("Trace ID:").next().unwrap_or_default();
        let status = answer.status.as_u16();
        Self {
            status,
            code: body.error_codes.first().copied(),
            is_temporary: error == "temporarily_unavailable",
            wait: answer.retry_after(),
            text: format!("{call}: {status} {}", bounded(description, 500)).trim_end().to_owned(),
        }
    }

    fn work_error(&self, reason: String) -> WorkError {
        match self.status {
            429 => {
                let wait = self.wait.unwrap_or(DEFAULT_WAIT).clamp(Duration::from_secs(1), LONGEST_WAIT);
                WorkError::Throttled { wait, reason }
            }
            408 | 500.. => WorkError::Transient { reason },
            _ if self.is_temporary => WorkError::Transient { reason },
            _ => WorkError::NotRead { state: State::Failed, reason: format!("{reason} ({})", self.remedy()) },
        }
    }

    /// Reference: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>
    fn remedy(&self) -> &'static str {
        match self.code {
            Some(7_000_215) => "set `secret` to the value of a secret of the application, not to the secret's id",
            Some(7_000_222) => "the secret has expired: make another for the application and set `secret`",
            Some(700_016) => "set `client` to the application's id and `tenant` to the tenant that it is in",
            Some(90_002 | 900_023) => "set `tenant` to the tenant's id or to one of its domains",
            Some(53_003) => "a conditional access policy of the tenant keeps the application out",
            Some(500_011) => "`login_endpoint` and `arm_endpoint` must be of the same cloud",
            _ => "check `tenant`, `client` and `secret`",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    fn refused(status: u16, body: &str) -> Refused {
        let status = reqwest::StatusCode::from_u16(status).unwrap();
        Refused::read(
            "POST https://login/t/oauth2/v2.0/token",
            &Answer { status, headers: HeaderMap::new(), body: body.into() },
        )
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let body = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid \"client\" secret provided.\r\nTrace ID: 1\r\nTimestamp: 2","error_codes":[7000215]}"#;
        let refused = refused(401, body);
        assert_eq!(
            refused.to_string(),
            "POST https://login/t/oauth2/v2.0/token: 401 AADSTS7000215: Invalid \"client\" secret provided."
        );
        let WorkError::NotRead { state, reason } = refused.work_error(refused.to_string()) else { panic!() };
        assert_eq!(state, State::Failed);
        assert!(reason.contains("set `secret`"), "{reason}");
    }

    #[test]
    fn what_may_pass_is_not_final() {
        let temporary = r#"{"error":"temporarily_unavailable","error_description":"AADSTS90033: …"}"#;
        for (status, body) in [(500, ""), (503, "<html>"), (400, temporary)] {
            let error = refused(status, body).work_error(String::new());
            assert!(matches!(error, WorkError::Transient { .. }), "{status}: {error:?}");
        }
        let error = refused(429, "").work_error(String::new());
        assert!(matches!(error, WorkError::Throttled { wait: DEFAULT_WAIT, .. }), "{error:?}");
    }
}
