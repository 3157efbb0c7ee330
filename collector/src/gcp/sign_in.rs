//! Sign-in at Google: access tokens of one credential, kept and renewed.
//!
//! References: <https://developers.google.com/identity/protocols/oauth2/service-account#httprest> for service accounts,
//! <https://developers.google.com/identity/protocols/oauth2/web-server#offline> for people,
//! <https://cloud.google.com/compute/docs/metadata/overview> for machines and
//! <https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken> for
//! impersonation. It is ours, on our own bounded client: the library for it has no timeouts, asks as often as there are
//! callers, logs the answers, and knows the metadata server at one address only.

use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use proto::config::secret::Secret;
use proto::coverage::State;
use proto::record::Text;
use reqwest::StatusCode;
use reqwest::header::{self, HeaderMap, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::RSA_PKCS1_SHA256;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use super::credential::{Credential, Impersonated, Machine, ServiceAccount, User};
use crate::cloud::WorkError;
use crate::http::{self, Answer, Client, Endpoint, HttpError, bounded};

/// What the tokens are good for: reading.
const READ: [&str; 2] =
    ["https://www.googleapis.com/auth/compute.readonly", "https://www.googleapis.com/auth/cloud-platform.read-only"];
/// What a token is good for that makes another account's.
const IMPERSONATE: [&str; 1] = ["https://www.googleapis.com/auth/iam"];
/// How long a proof, and a token of an impersonated account, may last: an hour is the most that Google takes.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The longest time for a token.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest time for an answer of the metadata server: it is on the machine, or nowhere.
const METADATA_PATIENCE: Duration = Duration::from_secs(5);
/// In a new pod it takes some seconds until the metadata server answers.
const METADATA_TRIES: u32 = 3;
const METADATA_PAUSE: Duration = Duration::from_secs(1);
/// A token is renewed when a quarter of its life is left, at most so long before its end.
const EARLIEST_RENEWAL: Duration = Duration::from_secs(300);
/// How long a final refusal holds, so that units that wait do not all ask, and how long a renewal that failed rests.
const REST: Duration = Duration::from_secs(30);
/// The wait when a sign-in is throttled and nobody says for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// No single wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The path of the metadata server's answers about the account of the machine.
const MACHINE_ACCOUNT: &str = "/computeMetadata/v1/instance/service-accounts/default";

/// Gives out tokens of one credential. Callers share what one of them has asked for.
#[derive(Debug)]
pub(super) struct SignIn {
    credential: Credential,
    http: Clients,
    /// IAM Service Account Credentials: where tokens of other accounts are made.
    iam_credentials: Endpoint,
    held: RwLock<Option<Token>>,
    /// Held by the caller that asks for a token.
    asking: tokio::sync::Mutex<Attempts>,
    /// The address of the account, once it is known.
    account: OnceLock<String>,
    /// Whether the metadata server has ever answered.
    is_met: OnceLock<()>,
}

/// What asks.
#[derive(Debug)]
pub(super) struct Clients {
    /// Google, or what stands for it.
    pub(super) google: Client,
    /// The metadata server: never by a proxy.
    pub(super) metadata: Client,
}

/// A token that was given out.
#[derive(Clone)]
pub(super) struct Token {
    secret: Secret,
    generation: u64,
    renewal: Instant,
    expires: Instant,
}

/// What is known of earlier attempts to get one.
#[derive(Debug, Default)]
struct Attempts {
    /// Counts the tokens.
    generation: u64,
    /// The last failure, and until when nobody need try again.
    failed: Option<(Failure, Instant)>,
}

/// A token that has just come.
struct Fresh {
    secret: Secret,
    lifetime: Duration,
}

/// Why no token came.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    Throttled(Duration, String),
    Transient(String),
    Final(String),
}

impl Token {
    /// The token, for the header that it is sent in.
    pub(super) fn secret(&self) -> &str {
        self.secret.expose()
    }

    /// Whether its time is over.
    pub(super) fn is_expired(&self) -> bool {
        Instant::now() >= self.expires
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.renewal
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Failure {
    /// The same with what it was for.
    fn of(self, credential: &Credential) -> Self {
        let with = |why: String| format!("cannot sign in as {credential}: {why}");
        match self {
            Self::Throttled(wait, why) => Self::Throttled(wait, with(why)),
            Self::Transient(why) => Self::Transient(with(why)),
            Self::Final(why) => Self::Final(with(why)),
        }
    }

    /// Until when others take it for theirs.
    fn rest(&self) -> Duration {
        match self {
            Self::Final(_) => REST,
            Self::Throttled(wait, _) => *wait,
            Self::Transient(_) => Duration::ZERO,
        }
    }
}

impl From<Failure> for WorkError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Throttled(wait, reason) => Self::Throttled { wait, reason },
            Failure::Transient(reason) => Self::Transient { reason },
            Failure::Final(reason) => Self::NotRead { state: State::Failed, reason },
        }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Transient { .. } => Self::Transient(error.to_string()),
            HttpError::TooLarge { .. } => Self::Final(error.to_string()),
        }
    }
}

impl SignIn {
    /// Nothing is asked of the network yet.
    pub(super) fn new(credential: Credential, http: Clients, iam_credentials: Endpoint) -> Self {
        let known = match &credential {
            Credential::ServiceAccount(account) => Some(account.email.clone()),
            Credential::Impersonated(account) => Some(account.email.clone()),
            Credential::Machine(_) | Credential::User(_) => None,
        };
        let account = known.map_or_else(OnceLock::new, OnceLock::from);
        Self {
            credential,
            http,
            iam_credentials,
            held: RwLock::default(),
            asking: tokio::sync::Mutex::default(),
            account,
            is_met: OnceLock::new(),
        }
    }

    /// The address of the account: of a machine it is known after the first token, of a person never.
    pub(super) fn account(&self) -> Option<&str> {
        self.account.get().map(String::as_str)
    }

    /// A token that has not expired.
    pub(super) async fn token(&self) -> Result<Token, WorkError> {
        let good = |token: &Token| !token.is_due();
        if let Some(token) = self.held().filter(good) {
            return Ok(token);
        }
        let mut attempts = match (self.asking.try_lock(), self.valid()) {
            (Ok(attempts), _) => attempts,
            // Somebody renews it already.
            (Err(_), Some(token)) => return Ok(token),
            (Err(_), None) => self.asking.lock().await,
        };
        if let Some(token) = self.held().filter(good) {
            return Ok(token);
        }
        if let Some((failure, until)) = &attempts.failed
            && Instant::now() < *until
        {
            return self.valid().ok_or_else(|| failure.clone().into());
        }
        let asked = Instant::now();
        let answer = match tokio::time::timeout(PATIENCE, self.ask(&self.credential, &READ)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Transient("there was no answer in two minutes".to_owned())),
        };
        match answer {
            Ok(Fresh { secret, lifetime }) => {
                attempts.generation += 1;
                attempts.failed = None;
                let expires = asked + lifetime;
                let renewal = expires - (lifetime / 4).min(EARLIEST_RENEWAL);
                self.hold(Some(Token { secret, generation: attempts.generation, renewal, expires }));
                self.valid().ok_or_else(|| {
                    let failure = Failure::Transient("the token that came had expired".to_owned());
                    failure.of(&self.credential).into()
                })
            }
            Err(failure) => {
                let failure = failure.of(&self.credential);
                let valid = self.valid();
                // One that is still good gives time to try the renewal again later.
                let rest = if valid.is_some() { failure.rest().max(REST) } else { failure.rest() };
                tracing::debug!(?failure, "no token");
                attempts.failed = Some((failure.clone(), Instant::now() + rest));
                valid.ok_or_else(|| failure.into())
            }
        }
    }

    /// Another token in place of one that was refused. Whoever comes second gets the one that the first asked for.
    pub(super) async fn replace(&self, refused: &Token) -> Result<Token, WorkError> {
        if self.held().is_some_and(|held| held.generation == refused.generation) {
            self.hold(None);
        }
        self.token().await
    }

    fn held(&self) -> Option<Token> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn valid(&self) -> Option<Token> {
        self.held().filter(|token| !token.is_expired())
    }

    pub(super) fn hold(&self, token: Option<Token>) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Asks for a token of this credential. An impersonated one asks its source first.
    fn ask<'a>(&'a self, credential: &'a Credential, scopes: &'a [&'a str]) -> BoxFuture<'a, Result<Fresh, Failure>> {
        Box::pin(async move {
            match credential {
                Credential::ServiceAccount(account) => self.of_service_account(account, scopes).await,
                Credential::User(user) => self.of_user(user).await,
                Credential::Machine(machine) => self.of_machine(machine, scopes).await,
                Credential::Impersonated(impersonated) => {
                    let source = self.ask(&impersonated.source, &IMPERSONATE).await?;
                    self.of_impersonated(impersonated, &source.secret, scopes).await
                }
            }
        })
    }

    async fn of_service_account(&self, account: &ServiceAccount, scopes: &[&str]) -> Result<Fresh, Failure> {
        let assertion = assertion(account, scopes, SystemTime::now())?;
        let grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        let form = form(&[("grant_type", grant_type), ("assertion", assertion.expose())]);
        let answer = self.http.google.post_form(&account.token_uri, form).await?;
        granted(&http::call("POST", &account.token_uri), &answer, &[&assertion], remedy_of_key)
    }

    async fn of_user(&self, user: &User) -> Result<Fresh, Failure> {
        let form = form(&[
            ("grant_type", "refresh_token"),
            ("client_id", &user.client_id),
            ("client_secret", user.client_secret.expose()),
            ("refresh_token", user.refresh_token.expose()),
        ]);
        let answer = self.http.google.post_form(&user.token_uri, form).await?;
        let secrets = [&user.client_secret, &user.refresh_token];
        granted(&http::call("POST", &user.token_uri), &answer, &secrets, remedy_of_login)
    }

    async fn of_machine(&self, machine: &Machine, scopes: &[&str]) -> Result<Fresh, Failure> {
        if self.account().is_none() {
            let email = self.metadata(machine, "/email", &[]).await?;
            let email = String::from_utf8_lossy(&email.body).trim().to_owned();
            self.account.get_or_init(|| bounded(&email, 200));
        }
        let answer = self.metadata(machine, "/token", scopes).await?;
        let token: Granted = serde_json::from_slice(&answer.body)
            .map_err(|_| Failure::Final("the metadata server gave no token".to_owned()))?;
        token.fresh().ok_or_else(|| Failure::Final("the metadata server gave an empty token".to_owned()))
    }

    /// Asks the metadata server about the account of the machine.
    async fn metadata(&self, machine: &Machine, what: &str, scopes: &[&str]) -> Result<Answer, Failure> {
        let mut url = machine.url.clone();
        url.set_path(&format!("{MACHINE_ACCOUNT}{what}"));
        if !scopes.is_empty() {
            url.query_pairs_mut().append_pair("scopes", &scopes.join(","));
        }
        let mut tries = 1;
        let why = loop {
            match self.ask_metadata_server(&url).await {
                Ok(answer) => {
                    self.is_met.get_or_init(|| ());
                    return machine_answer(&http::call("GET", &url), answer);
                }
                Err(why) if self.is_met.get().is_some() => return Err(Failure::Transient(why)),
                Err(why) if tries == METADATA_TRIES => break why,
                Err(_) => {
                    tries += 1;
                    tokio::time::sleep(METADATA_PAUSE).await;
                }
            }
        };
        let looked = machine.looked.as_ref().map(|looked| format!("{looked}, and ")).unwrap_or_default();
        Err(Failure::Final(format!(
            "{looked}there is no metadata server here, as every machine of Google Cloud has one ({why}); \
             set `key_file_path` to the key file of a service account"
        )))
    }

    /// The answer of a metadata server, whatever it says: it marks its answers, and answers marked questions only.
    async fn ask_metadata_server(&self, url: &Url) -> Result<Answer, String> {
        let flavor = HeaderValue::from_static("Google");
        let headers = HeaderMap::from_iter([(header::HeaderName::from_static("metadata-flavor"), flavor.clone())]);
        let asked = self.http.metadata.get_with(url, headers);
        let call = http::call("GET", url);
        match tokio::time::timeout(METADATA_PATIENCE, asked).await {
            Ok(Ok(answer)) if answer.headers.get("metadata-flavor") == Some(&flavor) => Ok(answer),
            Ok(Ok(answer)) => {
                Err(format!("{call}: {} comes from something else than a metadata server", answer.status.as_u16()))
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("{call}: there was no answer")),
        }
    }

    async fn of_impersonated(&self, of: &Impersonated, source: &Secret, scopes: &[&str]) -> Result<Fresh, Failure> {
        let path = format!("/v1/projects/-/serviceAccounts/{}:generateAccessToken", of.email);
        let url = self.iam_credentials.url(&path, None);
        let delegates: Vec<String> =
            of.delegates.iter().map(|delegate| format!("projects/-/serviceAccounts/{delegate}")).collect();
        let mut body = json!({"scope": scopes, "lifetime": format!("{}s", LIFETIME.as_secs())});
        if !delegates.is_empty() {
            body["delegates"] = delegates.into();
        }
        let answer = self.http.google.post_json(&url, source.expose(), body.to_string()).await?;
        let call = http::call("POST", &url);
        if answer.status != StatusCode::OK {
            let refused = Refused::read(&call, &answer, &[source]);
            let remedy = remedy_of_impersonation(&refused, of);
            return Err(refused.failure(&remedy));
        }
        let generated: Generated = serde_json::from_slice(&answer.body)
            .map_err(|_| Failure::Final(format!("{call}: the answer holds no token; is `api_endpoint` right?")))?;
        let lifetime = lifetime(&generated.expire_time, &answer.headers, SystemTime::now())
            .ok_or_else(|| Failure::Final(format!("{call}: the answer does not say when the token expires")))?;
        Ok(Fresh { secret: generated.access_token, lifetime })
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// A signed statement of the account that it is itself, and what it wants.
fn assertion(account: &ServiceAccount, scopes: &[&str], now: SystemTime) -> Result<Secret, Failure> {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut head = json!({"alg": "RS256", "typ": "JWT"});
    if let Some(id) = &account.key_id {
        head["kid"] = id.as_str().into();
    }
    let claims = json!({
        "iss": account.email,
        "scope": scopes.join(" "),
        "aud": account.token_uri.as_str(),
        "iat": now,
        "exp": now + LIFETIME.as_secs(),
    });
    let encoded = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encoded(&head), encoded(&claims));
    let mut signature = vec![0; account.key.public().modulus_len()];
    account
        .key
        .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| Failure::Final("the key of the account cannot sign".to_owned()))?;
    Ok(Secret::from(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

/// The answer of Google's token endpoint, and of the metadata server.
#[derive(Deserialize)]
struct Granted {
    access_token: Secret,
    expires_in: u64,
}

impl Granted {
    fn fresh(self) -> Option<Fresh> {
        // Too long a life is no reason to overflow.
        let lifetime = Duration::from_secs(self.expires_in.min(30 * 24 * 3600));
        (!self.access_token.is_empty()).then_some(Fresh { secret: self.access_token, lifetime })
    }
}

/// The answer of IAM Service Account Credentials.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Generated {
    access_token: Secret,
    expire_time: String,
}

/// The time until this one, by the server's own clock if it shows it, which it does to the second.
fn lifetime(expires: &str, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let expires = SystemTime::from(azure_core::time::parse_rfc3339(expires).ok()?);
    let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
    let now = match date.and_then(|date| azure_core::time::parse_rfc7231(date).ok()) {
        Some(date) => SystemTime::from(date) + Duration::from_secs(1),
        None => now,
    };
    Some(expires.duration_since(now).unwrap_or_default())
}

/// The token in an answer of the token endpoint.
fn granted(
    call: &str,
    answer: &Answer,
    secrets: &[&Secret],
    remedy: fn(&Refused) -> &'static str,
) -> Result<Fresh, Failure> {
    if answer.status != StatusCode::OK {
        let refused = Refused::read(call, answer, secrets);
        let remedy = remedy(&refused);
        return Err(refused.failure(remedy));
    }
    let granted: Option<Granted> = serde_json::from_slice(&answer.body).ok();
    granted.and_then(Granted::fresh).ok_or_else(|| {
        Failure::Final(format!("{call}: the answer holds no token; is `token_uri` in the key file right?"))
    })
}

fn machine_answer(call: &str, answer: Answer) -> Result<Answer, Failure> {
    if answer.status == StatusCode::OK {
        return Ok(answer);
    }
    let refused = Refused::read(call, &answer, &[]);
    let remedy = match answer.status.as_u16() {
        404 => "this machine has no service account: attach one that may read the projects, or set `key_file_path`",
        403 => "the machine's service account gives no tokens: look at its access scopes",
        _ => "look at the machine's service account",
    };
    Err(refused.failure(remedy))
}

/// What was answered in place of a token.
#[derive(Debug)]
struct Refused {
    status: u16,
    /// `invalid_grant`, `PERMISSION_DENIED`, ...
    code: String,
    description: String,
    wait: Option<Duration>,
    /// Without secrets, in short.
    text: String,
}

/// OAuth has texts where Google's APIs have an object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RefusedBody<'a> {
    #[serde(borrow)]
    error: Option<RefusedError<'a>>,
    #[serde(borrow)]
    error_description: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RefusedError<'a> {
    Code(#[serde(borrow)] Text<'a>),
    Object {
        #[serde(borrow, default)]
        status: Option<Text<'a>>,
        #[serde(borrow, default)]
        message: Option<Text<'a>>,
    },
}

impl Refused {
    fn read(call: &str, answer: &Answer, secrets: &[&Secret]) -> Self {
        let body: RefusedBody<'_> = serde_json::from_slice(&answer.body).unwrap_or_default();
        let (code, message) = match &body.error {
            Some(RefusedError::Code(code)) => (Some(&**code), None),
            Some(RefusedError::Object { status, message }) => (status.as_deref(), message.as_deref()),
            None => (None, None),
        };
        let without_secrets = |text: &str| {
            let secrets = secrets.iter().filter(|secret| !secret.is_empty());
            secrets.fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "***"))
        };
        let description = message.or(body.error_description.as_deref()).unwrap_or_default();
        let description = bounded(&without_secrets(description), 500);
        let code = bounded(&without_secrets(code.unwrap_or_default()), 100);
        let status = answer.status.as_u16();
        let mut text = format!("{call}: {status}");
        if !code.is_empty() {
            text = format!("{text} {code}");
        }
        if !description.is_empty() {
            text = format!("{text}: {description}");
        }
        Self { status, code, description, wait: answer.retry_after(), text }
    }

    fn failure(self, remedy: &str) -> Failure {
        match self.status {
            429 => {
                let wait = self.wait.unwrap_or(DEFAULT_WAIT).clamp(Duration::from_secs(1), LONGEST_WAIT);
                Failure::Throttled(wait, self.text)
            }
            408 | 500.. => Failure::Transient(self.text),
            _ if matches!(self.code.as_str(), "internal_failure" | "temporarily_unavailable" | "server_error") => {
                Failure::Transient(self.text)
            }
            _ => Failure::Final(format!("{} ({remedy})", self.text)),
        }
    }

    fn says(&self, words: &str) -> bool {
        self.description.to_ascii_lowercase().contains(words)
    }
}

fn remedy_of_key(refused: &Refused) -> &'static str {
    match refused.code.as_str() {
        "invalid_grant" if refused.says("signature") => {
            "the key was deleted or is another account's: make a new key and set `key_file_path` to its file"
        }
        "invalid_grant" if refused.says("reasonable timeframe") => "set the clock of this host",
        "invalid_grant" if refused.says("account not found") || refused.says("disabled") => {
            "the service account was deleted or disabled: make a key of one that is there"
        }
        "invalid_scope" => "the service account may not have the scopes that reading needs",
        _ => "make a new key of the service account and set `key_file_path` to its file",
    }
}

fn remedy_of_login(refused: &Refused) -> &'static str {
    match refused.code.as_str() {
        "invalid_client" | "unauthorized_client" | "deleted_client" | "disabled_client" => {
            "the client that was logged in with is gone: run `gcloud auth application-default login` again"
        }
        _ => "the login has expired or was revoked: run `gcloud auth application-default login` again",
    }
}

fn remedy_of_impersonation(refused: &Refused, of: &Impersonated) -> String {
    match refused.status {
        403 if refused.says("has not been used") || refused.says("disabled") => {
            "enable the IAM Service Account Credentials API in the project of the account that signs in".to_owned()
        }
        403 => format!("give the account that signs in the role Service Account Token Creator on {}", of.email),
        404 => format!("there is no service account {}: check `impersonate`", of.email),
        401 => "the account that signs in is not accepted".to_owned(),
        _ => "check `impersonate`".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests;
