//! Sign-in as an application.
//!
//! Reference: <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>. The protocol is
//! the Azure SDK's; the transport is ours, so that its timeouts and bounds hold for the sign-in, too, a loopback
//! endpoint may be plain http (which the SDK refuses), and a refusal is read as it was sent (the SDK does not
//! understand a description with an escaped character).

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret as TokenSecret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{
    AsyncRawResponse, Body, ClientMethodOptions, ClientOptions, HttpClient, Request, RetryOptions, StatusCode,
    Transport,
};
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions,
};
use proto::record::Text;
use serde::Deserialize;
use url::form_urlencoded;

use super::certificate::read_small_file;
use super::{Application, Failure, Fresh, Proof};
use crate::http::{self, Answer, Client, Endpoint, HttpError, bounded};

/// The fields of the form that are secret.
const PROOFS: [&str; 2] = ["client_secret", "client_assertion"];

/// An application at one login endpoint.
#[derive(Debug)]
pub(super) struct Entra {
    application: Application,
    proof: Proof,
    transport: Arc<Login>,
}

impl Entra {
    /// Looks at the files that the proof is in.
    pub(super) fn new(application: Application, proof: Proof, login: Endpoint, http: Client) -> Result<Self, String> {
        match &proof {
            Proof::Secret(_) => {}
            Proof::Certificate(certificate) => drop(certificate.signing_key()?),
            Proof::Federated(file) => drop(federated_token(file)?),
        }
        Ok(Self { application, proof, transport: Arc::new(Login { http, endpoint: login }) })
    }

    pub(super) async fn token(&self, scope: &str) -> Result<Fresh, Failure> {
        let credential = self.credential().await.map_err(|why| Failure::Final(self.reason(&why)))?;
        let AccessToken { token, expires_on } =
            credential.get_token(&[scope], None).await.map_err(|error| self.explain(&error))?;
        let lifetime = SystemTime::from(expires_on).duration_since(SystemTime::now()).unwrap_or_default();
        Ok(Fresh { secret: token, lifetime })
    }

    /// A credential for one token, as it has a cache of its own.
    async fn credential(&self) -> Result<Arc<dyn TokenCredential>, String> {
        let Application { tenant, client } = self.application.clone();
        let client_options = self.client_options();
        let why = |error: azure_core::Error| bounded(&error.to_string(), 500);
        let assertion = match &self.proof {
            Proof::Secret(secret) => {
                let secret = TokenSecret::new(secret.expose().to_owned());
                let options = Some(ClientSecretCredentialOptions { client_options });
                return Ok(ClientSecretCredential::new(&tenant, client, secret, options).map_err(why)?);
            }
            // Keys and tokens are exchanged while a process runs, so the files are read each time.
            Proof::Certificate(certificate) => {
                let (certificate, client) = (certificate.clone(), client.clone());
                let audience = self.transport.endpoint.url(&format!("/{tenant}/oauth2/v2.0/token"), None);
                in_the_background(move || certificate.signing_key()?.assertion(&client, audience.as_str())).await?
            }
            Proof::Federated(file) => {
                let file = file.clone();
                in_the_background(move || federated_token(&file)).await?
            }
        };
        let options = Some(ClientAssertionCredentialOptions { client_options });
        Ok(ClientAssertionCredential::new(tenant, client, Given(assertion), options).map_err(why)?)
    }

    fn client_options(&self) -> ClientOptions {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = self.transport.endpoint.as_https();
        ClientOptions {
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
            // The unit is tried again as a whole, with patience and where all can see it.
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::clone(&self.transport) as Arc<dyn HttpClient>)),
            ..ClientOptions::default()
        }
    }

    fn explain(&self, error: &azure_core::Error) -> Failure {
        let reason = |why: &str| self.reason(why);
        let Some(trouble) = trouble_in(error) else {
            return Failure::Final(reason(&bounded(&error.to_string(), 500)));
        };
        let why = trouble.to_string();
        match trouble {
            Trouble::Http(HttpError::Transient { .. }) => Failure::Transient(reason(&why)),
            Trouble::Http(HttpError::TooLarge { .. }) => Failure::Final(reason(&why)),
            Trouble::Refused(refused) => match refused.patience() {
                Patience::Wait => Failure::throttled(refused.wait, reason(&why)),
                Patience::Retry => Failure::Transient(reason(&why)),
                Patience::None => Failure::Final(reason(&format!("{why} ({})", refused.remedy(&self.proof)))),
            },
        }
    }

    pub(super) fn reason(&self, why: &str) -> String {
        let Application { tenant, client } = &self.application;
        format!("cannot sign in to tenant {tenant} as application {client}: {why}")
    }
}

async fn in_the_background(
    work: impl FnOnce() -> Result<TokenSecret, String> + Send + 'static,
) -> Result<TokenSecret, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(format!("the preparation broke off: {error}")))
}

/// The token that the surroundings of a workload have put into a file. Whatever else is in the file is not sent.
fn federated_token(file: &Path) -> Result<TokenSecret, String> {
    let name = format!("`token_file` {}", file.display());
    let text = read_small_file(file).map_err(|why| {
        format!(
            "{name} cannot be read: {why}; is this a pod with a workload identity, and may this user read the file?"
        )
    })?;
    let token = text.expose().trim();
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b));
    if token.split('.').count() != 3 || !token.split('.').all(is_part) {
        return Err(format!(
            "{name} holds no token: a signed JSON web token is expected, three parts with dots between"
        ));
    }
    Ok(TokenSecret::new(token.to_owned()))
}

/// An assertion made beforehand.
#[derive(Debug)]
struct Given(TokenSecret);

#[async_trait]
impl ClientAssertion for Given {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.secret().to_owned())
    }
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
            let refused = Refused::read(&http::call("POST", &url), &answer, |text| without_proof(form, text));
            return Err(Trouble::Refused(refused).into_azure());
        }
        Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), answer.body))
    }
}

/// The text without what the form proves the application with, should the answer repeat it.
fn without_proof(form: &[u8], text: &str) -> String {
    let hidden = form_urlencoded::parse(form).filter(|(name, _)| PROOFS.contains(&name.as_ref()));
    hidden.fold(text.to_owned(), |text, (_, value)| text.replace(value.as_ref(), "***"))
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

/// Whether to ask again.
#[derive(Debug, PartialEq, Eq)]
enum Patience {
    /// When the wait is over.
    Wait,
    /// It may pass.
    Retry,
    /// It will not.
    None,
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
    /// `hide` leaves out what is secret: before the text is cut, for a part of it would not be found.
    fn read(call: &str, answer: &Answer, hide: impl Fn(&str) -> String) -> Self {
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
            text: format!("{call}: {status} {}", bounded(&hide(description), 500)).trim_end().to_owned(),
        }
    }

    fn patience(&self) -> Patience {
        match self.status {
            429 => Patience::Wait,
            408 | 500.. => Patience::Retry,
            _ if self.is_temporary => Patience::Retry,
            _ => Patience::None,
        }
    }

    /// Reference: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>
    fn remedy(&self, proof: &Proof) -> &'static str {
        match self.code {
            Some(7_000_215) => "set `secret` to the value of a secret of the application, not to the secret's id",
            Some(7_000_222) => match proof {
                Proof::Certificate(_) => {
                    "the certificate has expired: add another to the application and set `certificate`"
                }
                _ => "the secret has expired: make another for the application and set `secret`",
            },
            Some(700_016) => "set `client` to the application's id and `tenant` to the tenant that it is in",
            Some(90_002 | 900_023) => "set `tenant` to the tenant's id or to one of its domains",
            Some(53_003) => "a conditional access policy of the tenant keeps the application out",
            Some(500_011) => "`login_endpoint` and `arm_endpoint` must be of the same cloud",
            Some(700_027 | 700_030 | 5_002_738) => {
                "add the certificate of `certificate` to the application's certificates, or set `certificate` to one that is there"
            }
            Some(700_024) => "the time in what was signed is not Entra ID's: set this host's clock",
            Some(70_021 | 700_211..=700_213 | 700_222 | 700_223) => {
                "give the application a federated credential with the issuer, subject and audience of the token in `token_file`"
            }
            _ => match proof {
                Proof::Secret(_) => "check `tenant`, `client` and `secret`",
                Proof::Certificate(_) => "check `tenant`, `client` and `certificate`",
                Proof::Federated(_) => "check `tenant`, `client` and `token_file`",
            },
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
            &Answer { status, headers: HeaderMap::new(), body: body.into(), room: http::Room::default() },
            str::to_owned,
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
        assert_eq!(refused.patience(), Patience::None);
        assert!(refused.remedy(&Proof::Secret("s".into())).contains("set `secret`"));
    }

    #[test]
    fn what_may_pass_is_not_final() {
        let temporary = r#"{"error":"temporarily_unavailable","error_description":"AADSTS90033: …"}"#;
        for (status, body) in [(500, ""), (503, "<html>"), (400, temporary)] {
            assert_eq!(refused(status, body).patience(), Patience::Retry, "{status}");
        }
        assert_eq!(refused(429, "").patience(), Patience::Wait);
    }
}
