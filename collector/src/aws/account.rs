//! One account, and its credentials.

use std::time::{Duration, SystemTime};

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use proto::coverage::State;
use tokio::sync::{Mutex, OnceCell};

use super::params::AccountParams;
use super::region::main_region;
use crate::cloud::WorkError;
use crate::http::bounded;

/// Credentials are renewed so long before they expire.
const EARLY: Duration = Duration::from_secs(300);
/// What the sessions of a role are called unless the parameters say otherwise.
const SESSION: &str = "cloudmarker";
/// How much of what went wrong is told.
const MOST_WORDS: usize = 700;

/// An account, and how to sign in to it.
#[derive(Debug)]
pub(super) struct Account {
    params: AccountParams,
    /// A region of its partition, if one is known.
    region: Option<String>,
    endpoint: Option<String>,
    http: SharedHttpClient,
    source: OnceCell<Source>,
    /// The credentials that were had last; held by whoever asks for others.
    kept: Mutex<Option<Credentials>>,
}

/// Where credentials come from.
#[derive(Debug)]
struct Source {
    provider: SharedCredentialsProvider,
    main_region: &'static str,
}

impl Account {
    /// Nothing is asked of the network yet.
    pub(super) fn new(
        params: AccountParams,
        region: Option<&String>,
        endpoint: Option<&String>,
        http: &SharedHttpClient,
    ) -> Self {
        let region = params.regions.first().or(region).cloned();
        Self {
            params,
            region,
            endpoint: endpoint.cloned(),
            http: http.clone(),
            source: OnceCell::new(),
            kept: Mutex::default(),
        }
    }

    pub(super) fn params(&self) -> &AccountParams {
        &self.params
    }

    /// The region in which the account itself is asked about.
    pub(super) async fn main_region(&self) -> Result<&'static str, WorkError> {
        self.source().await.map(|source| source.main_region)
    }

    /// Credentials that are good for a while.
    pub(super) async fn credentials(&self) -> Result<Credentials, WorkError> {
        self.other_than(None).await
    }

    /// Credentials other than those that were refused.
    pub(super) async fn replace(&self, refused: &Credentials) -> Result<Credentials, WorkError> {
        self.other_than(Some(refused)).await
    }

    async fn other_than(&self, refused: Option<&Credentials>) -> Result<Credentials, WorkError> {
        let source = self.source().await?;
        let mut kept = self.kept.lock().await;
        if let Some(credentials) = kept.as_ref().filter(|kept| Some(*kept) != refused && is_good(kept)) {
            return Ok(credentials.clone());
        }
        let provided = source.provider.provide_credentials().await;
        let credentials = provided.map_err(|error| self.failure(&error))?;
        *kept = Some(credentials.clone());
        Ok(credentials)
    }

    async fn source(&self) -> Result<&Source, WorkError> {
        self.source.get_or_try_init(|| self.find_source()).await
    }

    async fn find_source(&self) -> Result<Source, WorkError> {
        let params = &self.params;
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(self.http.clone());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(main_region(region)));
        }
        if let Some(profile) = &params.profile {
            loader = loader.profile_name(profile);
        }
        if let (Some(id), Some(secret)) = (&params.access_key_id, &params.secret_access_key) {
            let token = params.session_token.as_ref().map(|token| token.expose().to_owned());
            loader = loader.credentials_provider(Credentials::from_keys(id, secret.expose(), token));
        }
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let config = loader.load().await;
        let main_region = main_region(config.region().map_or("", |region| region.as_ref()));
        let Some(provider) = config.credentials_provider() else {
            return Err(self.failed("AWS's chain of credentials has none"));
        };
        let provider = match &params.role_arn {
            None => provider,
            Some(role) => {
                let name = params.session_name.as_deref().unwrap_or(SESSION);
                let mut taken = AssumeRoleProvider::builder(role).session_name(name).region(Region::new(main_region));
                if let Some(id) = &params.external_id {
                    taken = taken.external_id(id.expose());
                }
                SharedCredentialsProvider::new(taken.configure(&config).build_from_provider(provider).await)
            }
        };
        Ok(Source { provider, main_region })
    }

    fn failed(&self, why: &str) -> WorkError {
        WorkError::NotRead { state: State::Failed, reason: self.reason(why) }
    }

    fn reason(&self, why: &str) -> String {
        format!("cannot sign in to the account {}: {}", self.params.label(), bounded(why, MOST_WORDS))
    }

    fn failure(&self, error: &CredentialsError) -> WorkError {
        let mut said = vec![error.to_string()];
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            said.push(error.to_string());
            cause = error.source();
        }
        said.dedup();
        let said = said.join(": ");
        let is_in = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if matches!(error, CredentialsError::ProviderTimedOut(_)) || is_in(&["Throttling", "dispatch failure"]) {
            return WorkError::Transient { reason: self.reason(&said) };
        }
        let (state, hint) = match (&self.params.role_arn, error) {
            (Some(role), _) if is_in(&["AccessDenied", "not authorized"]) => {
                let hint = format!(
                    "; let these credentials take the role: `sts:AssumeRole` on {role}, and a trust policy of the \
                     role that names them (and the same external id)"
                );
                (State::Denied, hint)
            }
            _ if is_in(&["InvalidClientTokenId", "SignatureDoesNotMatch"]) => {
                (State::Failed, "; check the key and its secret".to_owned())
            }
            (_, CredentialsError::CredentialsNotLoaded(_)) => {
                let hint = "; set `profile`, or `access_key_id` and `secret_access_key`, or give this host a role";
                (State::Failed, hint.to_owned())
            }
            _ => (State::Failed, String::new()),
        };
        WorkError::NotRead { state, reason: format!("{}{hint}", self.reason(&said)) }
    }
}

fn is_good(credentials: &Credentials) -> bool {
    credentials.expiry().is_none_or(|expiry| expiry > SystemTime::now() + EARLY)
}
