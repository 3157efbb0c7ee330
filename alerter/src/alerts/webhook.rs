//! `WebhookAlert`: a POST for each finding, or one for an audit's version.

mod body;
mod params;
mod sign;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use proto::catalogue::{PluginClass, in_one_line};
use proto::plan::Stage;
use proto::subject::Role;
use reqwest::StatusCode;
use serde_json::Value;

use crate::alert::{Alert, AlertError};
use crate::digest::Digest;
use crate::http::{Client, Reach, check_literal, exchange};
use crate::readable::{counted, grouped};
use body::Bodies;
use params::{Per, Target};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.alerts.webhookalert.WebhookAlert",
    roles: &[Role::Alert],
    stage: Stage::Alerter,
    exclusive: true,
    pool: None,
    check: Some(&params::check),
};

/// Builds the alert of its parameters.
///
/// # Errors
/// What is wrong with them, for people.
pub fn build(value: &Value) -> Result<Box<dyn Alert>, String> {
    let target = params::read(value).map_err(|errors| in_one_line(&errors))?;
    let bodies = target.bodies()?;
    if !target.is_allowed {
        check_literal(&target.url).map_err(|error| error.to_string())?;
    }
    let reach = if target.is_allowed { Reach::Anywhere } else { Reach::Outside };
    let client = Client::new(reach, target.is_allowed)?;
    Ok(Box::new(WebhookAlert { client, target, bodies, next: 0, refused: 0, first_refusal: None }))
}

struct WebhookAlert {
    client: Client,
    target: Target,
    bodies: Bodies,
    /// The first part that is not yet sent.
    next: usize,
    /// Parts that the receiver takes for wrong.
    refused: u64,
    first_refusal: Option<String>,
}

#[async_trait]
impl Alert for WebhookAlert {
    async fn deliver(&mut self, digest: &Arc<Digest>) -> Result<(), AlertError> {
        let parts = match self.target.per {
            Per::Version => 1,
            Per::Event => digest.entries(),
        };
        while self.next < parts {
            match self.post(digest).await {
                Ok(None) => {}
                Ok(Some(refusal)) => {
                    self.refused += 1;
                    self.first_refusal.get_or_insert(refusal);
                }
                Err(AlertError::Permanent(reason)) => return Err(AlertError::Permanent(self.so_far(reason, parts))),
                Err(AlertError::Transient { reason, wait }) => {
                    return Err(AlertError::Transient { reason: self.so_far(reason, parts), wait });
                }
            }
            self.next += 1;
        }
        match &self.first_refusal {
            None => Ok(()),
            Some(first) => {
                let all = counted(parts as u64, "message", "messages");
                let text = format!("{} of {all} are refused, such as: {first}", grouped(self.refused));
                Err(AlertError::Permanent(text))
            }
        }
    }

    fn told(&self) -> u64 {
        self.next as u64
    }

    fn place(&self) -> String {
        self.target.place()
    }
}

impl WebhookAlert {
    /// Posts the next part. `Some` when the receiver takes it, and not us, for wrong.
    async fn post(&self, digest: &Arc<Digest>) -> Result<Option<String>, AlertError> {
        let part = match self.target.per {
            Per::Version => None,
            Per::Event => Some(self.next),
        };
        let body = self.bodies.of(digest, part).map_err(AlertError::Permanent)?;
        let name = match part {
            None => "version".to_owned(),
            Some(place) => digest.finding(place).map(|finding| finding.id.to_string()).unwrap_or_default(),
        };
        let mut request = self
            .client
            .post(self.target.url.clone())
            .headers(self.target.headers.clone())
            .header("Idempotency-Key", digest.about.idempotency_key(&name));
        if let Some(secret) = &self.target.secret {
            let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            request = request
                .header(sign::TIMESTAMP, timestamp)
                .header(sign::SIGNATURE, sign::signature(secret, timestamp, body.as_bytes()));
        }
        let what = self.target.place();
        let answer = exchange(&what, request.body(body)).await?;
        if answer.status.is_success() {
            return Ok(None);
        }
        let said = format!("{what}: HTTP {}{}", answer.status.as_u16(), answer.excerpt());
        if answer.is_transient() {
            return Err(AlertError::Transient { reason: said, wait: answer.retry_after() });
        }
        match answer.status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Ok(Some(said))
            }
            status if status.is_redirection() => {
                Err(AlertError::Permanent(format!("{said}; redirects are not followed: set `url` to where it leads")))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(AlertError::Permanent(format!("{said}; check the URL, the headers and the keys")))
            }
            _ => Err(AlertError::Permanent(said)),
        }
    }

    fn so_far(&self, reason: String, parts: usize) -> String {
        if self.next == 0 {
            return reason;
        }
        let sent = self.next as u64 - self.refused;
        format!("{reason}; {} of {} are sent", grouped(sent), counted(parts as u64, "message", "messages"))
    }
}
