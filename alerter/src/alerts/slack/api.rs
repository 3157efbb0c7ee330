//! The methods of Slack's Web API that are needed, and what their answers mean.

use std::net::IpAddr;
use std::time::Duration;

use proto::config::secret::Secret;
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Host, Url};

use super::blocks::Said;
use crate::alert::AlertError;
use crate::http::{Client, Reach, exchange};
use crate::listing::Listing;
use crate::readable::line;

/// Whether a failure is that of one receiver or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Receiver,
    Everybody,
}

/// Why a method failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) scope: Scope,
    pub(super) error: AlertError,
}

impl From<AlertError> for Failure {
    fn from(error: AlertError) -> Self {
        Self { scope: Scope::Everybody, error }
    }
}

/// The API with a bot's token.
pub(super) struct Api {
    client: Client,
    base: Url,
    token: Secret,
}

/// How long is waited when Slack asks for patience without saying for how long.
const RATE_LIMITED: Duration = Duration::from_secs(30);

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

#[derive(Deserialize)]
struct Outcome {
    ok: bool,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    needed: Option<String>,
}

#[derive(Deserialize)]
struct WithId {
    id: String,
}

impl Api {
    pub(super) fn new(base: Url, token: Secret) -> Result<Self, String> {
        let client = Client::new(Reach::Anywhere, is_loopback(&base))?;
        Ok(Self { client, base, token })
    }

    /// The user who has an e-mail address.
    pub(super) async fn user_of(&self, address: &str) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Found {
            user: WithId,
        }
        let found: Found = self.form("users.lookupByEmail", &[("email", address)]).await?;
        Ok(found.user.id)
    }

    /// The conversation with a user.
    pub(super) async fn open(&self, user: &str) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Opened {
            channel: WithId,
        }
        let opened: Opened = self.json("conversations.open", &json!({"users": user})).await?;
        Ok(opened.channel.id)
    }

    /// Posts a message; Slack's own id of the channel.
    pub(super) async fn post(&self, channel: &str, said: &Said) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Posted {
            channel: String,
        }
        let message = json!({
            "channel": channel,
            "text": said.text,
            "blocks": said.blocks,
            "metadata": {"event_type": "cloudmarker_alert", "event_payload": {"idempotency_key": said.key}},
            "unfurl_links": false,
            "unfurl_media": false,
        });
        let posted: Posted = self.json("chat.postMessage", &message).await?;
        Ok(posted.channel)
    }

    /// Puts a file into a channel.
    pub(super) async fn upload(&self, channel: &str, file: &Listing) -> Result<(), Failure> {
        #[derive(Deserialize)]
        struct Place {
            upload_url: String,
            file_id: String,
        }
        let length = file.content.len().to_string();
        let asked = [("filename", file.name.as_str()), ("length", length.as_str())];
        let place: Place = self.form("files.getUploadURLExternal", &asked).await?;
        let url = Url::parse(&place.upload_url)
            .ok()
            .filter(|url| url.scheme() == "https" || (is_loopback(url) && is_loopback(&self.base)))
            .ok_or_else(|| {
                AlertError::Permanent("Slack names a place for the file that is not to be trusted".into())
            })?;
        // The URL is the permission: the token is nobody's business there.
        let answer = exchange("the upload to Slack", self.client.post(url).body(file.content.clone())).await?;
        if !answer.status.is_success() {
            let reason = format!("the upload to Slack: HTTP {}{}", answer.status.as_u16(), answer.excerpt());
            let error = if answer.is_transient() {
                AlertError::Transient { reason, wait: answer.retry_after() }
            } else {
                AlertError::Permanent(reason)
            };
            return Err(Failure { scope: Scope::Receiver, error });
        }
        let files = json!([{"id": place.file_id, "title": "All findings"}]).to_string();
        let _: Value =
            self.form("files.completeUploadExternal", &[("files", files.as_str()), ("channel_id", channel)]).await?;
        Ok(())
    }

    async fn form<T: for<'de> Deserialize<'de>>(&self, method: &str, fields: &[(&str, &str)]) -> Result<T, Failure> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.request(method)?.header("Content-Type", "application/x-www-form-urlencoded").body(body);
        self.call(method, request).await
    }

    async fn json<T: for<'de> Deserialize<'de>>(&self, method: &str, body: &Value) -> Result<T, Failure> {
        let request = self.request(method)?.header("Content-Type", "application/json; charset=utf-8");
        self.call(method, request.body(body.to_string())).await
    }

    fn request(&self, method: &str) -> Result<RequestBuilder, AlertError> {
        let url = self.base.join(method).map_err(|error| AlertError::Permanent(format!("{method}: {error}")))?;
        Ok(self.client.post(url).bearer_auth(self.token.expose()))
    }

    async fn call<T: for<'de> Deserialize<'de>>(&self, method: &str, request: RequestBuilder) -> Result<T, Failure> {
        let answer = exchange(&format!("Slack's {method}"), request).await?;
        if answer.status.as_u16() == 429 {
            let reason = format!("Slack's {method} is asked too often");
            let wait = Some(answer.retry_after().unwrap_or(RATE_LIMITED));
            return Err(AlertError::Transient { reason, wait }.into());
        }
        if answer.is_transient() {
            let reason = format!("Slack's {method}: HTTP {}{}", answer.status.as_u16(), answer.excerpt());
            return Err(AlertError::Transient { reason, wait: answer.retry_after() }.into());
        }
        // Errors come with HTTP 200.
        let outcome: Outcome = serde_json::from_slice(&answer.body).map_err(|_| {
            let status = answer.status.as_u16();
            AlertError::Permanent(format!("Slack's {method}: HTTP {status} and no JSON: is `base_url` right?"))
        })?;
        if !outcome.ok {
            return Err(refusal(method, &outcome));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            AlertError::Permanent(format!("Slack's {method} answers otherwise than documented: {error}")).into()
        })
    }
}

fn refusal(method: &str, outcome: &Outcome) -> Failure {
    let error = line(outcome.error.as_deref().unwrap_or("no reason given"));
    let hint = match error.as_str() {
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => {
            "; check `bot_user_token`".to_owned()
        }
        "missing_scope" => match &outcome.needed {
            Some(needed) => format!("; give the bot the scope {}", line(needed)),
            None => "; give the bot more scopes".to_owned(),
        },
        "not_in_channel" => "; invite the bot to the channel".to_owned(),
        "channel_not_found" => "; check the channel, and invite the bot to it".to_owned(),
        "users_not_found" | "user_not_found" => "; nobody of this workspace has the address or id".to_owned(),
        _ => String::new(),
    };
    let reason = format!("Slack's {method}: {error}{hint}");
    match error.as_str() {
        "ratelimited" => AlertError::Transient { reason, wait: Some(RATE_LIMITED) }.into(),
        "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" | "team_added_to_org" => {
            AlertError::transient(reason).into()
        }
        "invalid_auth"
        | "not_authed"
        | "account_inactive"
        | "token_revoked"
        | "token_expired"
        | "missing_scope"
        | "no_permission"
        | "org_login_required"
        | "ekm_access_denied"
        | "not_allowed_token_type" => AlertError::Permanent(reason).into(),
        _ => Failure { scope: Scope::Receiver, error: AlertError::Permanent(reason) },
    }
}
