//! Signed calls to AWS, and what its refusals mean.
//!
//! Reference: <https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/CommonErrors.html>.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use proto::coverage::State;
use proto::record::Text;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::time::Instant;

use super::account::Account;
use super::region::{self, Service};
use super::xml;
use crate::cloud::WorkError;
use crate::http::{Answer, Client, Endpoint, Expected, Outgoing, bounded, call};

/// The wait when AWS throttles, which does not say for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(2);
/// A call waits no longer than this for its turn.
const LONGEST_TURN: Duration = Duration::from_secs(30);

/// AWS, as several accounts.
#[derive(Debug)]
pub(super) struct Api {
    http: Client,
    endpoint: Option<Endpoint>,
    /// The time between two calls to a region of an account.
    gap: Duration,
    /// When the next call to each is due.
    next: Mutex<HashMap<String, Instant>>,
}

/// A call.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) service: Service,
    pub(super) region: &'a str,
    /// What is asked for: `LookupEvents`.
    pub(super) action: &'static str,
    /// In JSON, with the target that this is for; or a form.
    pub(super) target: Option<&'static str>,
    pub(super) body: String,
    pub(super) expected: &'a Expected,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// For any unit.
    Work(WorkError),
    /// The page token is no longer good: the list must begin again.
    PageToken(String),
}

impl<E: Into<WorkError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Work(error.into())
    }
}

impl Refusal {
    /// What becomes of a unit for which it makes no difference.
    pub(super) fn into_work_error(self) -> WorkError {
        match self {
            Self::Work(error) => error,
            Self::PageToken(reason) => WorkError::NotRead { state: State::Failed, reason },
        }
    }
}

impl Api {
    pub(super) fn new(http: Client, endpoint: Option<Endpoint>, calls_per_second: u32) -> Self {
        let gap = Duration::from_secs(1) / calls_per_second.max(1);
        Self { http, endpoint, gap, next: Mutex::default() }
    }

    /// Waits for the next turn of a region of an account: AWS takes two such calls in a second.
    pub(super) async fn keep_pace(&self, place: &str) {
        let turn = {
            let now = Instant::now();
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let due = next.entry(place.to_owned()).or_insert(now);
            let turn = (*due).clamp(now, now + LONGEST_TURN);
            *due = turn + self.gap;
            turn
        };
        tokio::time::sleep_until(turn).await;
    }

    /// Makes a call as an account.
    pub(super) async fn call(&self, account: &Account, call: &Call<'_>) -> Result<Answer, Refusal> {
        let room = self.http.room(call.expected).await;
        let turn = self.http.turn().await;
        let mut credentials = account.credentials().await?;
        let mut answer = self.http.send_in(&turn, self.signed(call, &credentials)?, room).await?;
        if said(&answer).0.contains("ExpiredToken") {
            // It may have expired on the way: one other settles whether it was that.
            credentials = account.replace(&credentials).await?;
            answer = self.http.send_in(&turn, self.signed(call, &credentials)?, answer.room).await?;
        }
        drop(turn);
        if answer.status == reqwest::StatusCode::OK {
            call.expected.learn(answer.body.len());
            return Ok(answer);
        }
        Err(self.refusal(call, &answer))
    }

    fn signed(&self, call: &Call<'_>, credentials: &Credentials) -> Result<Outgoing, WorkError> {
        self.try_signed(call, credentials, SystemTime::now()).map_err(|error| WorkError::NotRead {
            state: State::Failed,
            reason: format!("{} in {} cannot be signed: {error}", call.action, call.region),
        })
    }

    fn try_signed(
        &self,
        call: &Call<'_>,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Outgoing, Box<dyn std::error::Error>> {
        let url = region::url(call.service, call.region, self.endpoint.as_ref())?;
        let mut headers = HeaderMap::new();
        let media_type = match call.target {
            Some(target) => {
                headers.insert("x-amz-target", HeaderValue::from_static(target));
                "application/x-amz-json-1.1"
            }
            None => "application/x-www-form-urlencoded; charset=utf-8",
        };
        headers.insert(reqwest::header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        let signed_headers: Vec<(&str, &str)> =
            headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
        let identity = credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(call.region)
            .name(call.service.name())
            .time(now)
            .settings(SigningSettings::default())
            .build()?
            .into();
        let body = call.body.as_bytes();
        let request =
            SignableRequest::new("POST", url.as_str(), signed_headers.into_iter(), SignableBody::Bytes(body))?;
        let (instructions, _signature) = sign(request, &params)?.into_parts();
        for header in instructions.into_parts().0 {
            let mut value = HeaderValue::from_str(header.value())?;
            value.set_sensitive(header.sensitive());
            headers.insert(HeaderName::from_bytes(header.name().as_bytes())?, value);
        }
        Ok(Outgoing { method: Method::POST, url, headers, body: body.to_vec() })
    }

    fn refusal(&self, asked: &Call<'_>, answer: &Answer) -> Refusal {
        let (code, message) = said(answer);
        let place = match region::url(asked.service, asked.region, self.endpoint.as_ref()) {
            Ok(url) => call("POST", &url),
            Err(_) => asked.service.name().to_owned(),
        };
        let mut text = format!("{} in {} ({place}): {}", asked.action, asked.region, answer.status.as_u16());
        for part in [bounded(&code, 100), bounded(&message, 500)] {
            if !part.is_empty() {
                text.push_str(if text.ends_with(|c: char| c.is_ascii_digit()) { " " } else { ": " });
                text.push_str(&part);
            }
        }
        let not_read = |state, hint: &str| {
            let reason = if hint.is_empty() { text.clone() } else { format!("{text}; {hint}") };
            Refusal::Work(WorkError::NotRead { state, reason })
        };
        match code.as_str() {
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "SlowDown"
            | "RequestThrottled" => throttled(answer, text),
            "InvalidNextTokenException" => Refusal::PageToken(text),
            "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" | "UnauthorizedAccess" => {
                let action = format!("{}:{}", asked.service.name(), asked.action);
                not_read(State::Denied, &format!("give the credentials the permission `{action}`"))
            }
            "OptInRequired" | "SubscriptionRequiredException" => {
                not_read(State::NotEnabled, "the region or the service is not enabled in the account")
            }
            "InvalidClientTokenId" | "UnrecognizedClientException" | "AuthFailure" => not_read(
                State::Failed,
                "the key is not known here: check it, and whether the region is enabled in the account",
            ),
            "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "RequestTimeTooSkewed"
            | "RequestExpired" => not_read(State::Failed, "check the key's secret, and the clock of this host"),
            _ => match answer.status.as_u16() {
                429 => throttled(answer, text),
                408 | 500.. => Refusal::Work(WorkError::Transient { reason: text }),
                403 => not_read(State::Denied, ""),
                300..400 => not_read(State::Failed, "it leads to another place, and is not followed"),
                _ => not_read(State::Failed, ""),
            },
        }
    }
}

fn throttled(answer: &Answer, reason: String) -> Refusal {
    let wait = answer.retry_after().unwrap_or(DEFAULT_WAIT).clamp(Duration::from_secs(1), Duration::from_secs(600));
    Refusal::Work(WorkError::Throttled { wait, reason })
}

/// The code and the message of an error, in JSON or in XML.
fn said(answer: &Answer) -> (String, String) {
    #[derive(Default, Deserialize)]
    struct Body<'a> {
        #[serde(borrow, default, rename = "__type")]
        kind: Option<Text<'a>>,
        #[serde(borrow, default)]
        message: Option<Text<'a>>,
        #[serde(borrow, default, rename = "Message")]
        other: Option<Text<'a>>,
    }
    if answer.status == reqwest::StatusCode::OK {
        return Default::default();
    }
    let body = String::from_utf8_lossy(&answer.body);
    if body.trim_start().starts_with('<') {
        let text = |element| xml::text(&body, element).unwrap_or_default().to_owned();
        return (text("Code"), text("Message"));
    }
    let body: Body<'_> = serde_json::from_str(&body).unwrap_or_default();
    let code = body.kind.as_deref().unwrap_or_default();
    // `com.amazonaws.cloudtrail#AccessDeniedException`
    let code = code.rsplit('#').next().unwrap_or_default().to_owned();
    let message = body.message.or(body.other);
    (code, message.as_deref().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::{Limits, Room, Timeouts};

    fn api() -> Api {
        Api::new(Client::new(Timeouts::default(), true, Limits::new(1)).unwrap(), None, 2)
    }

    fn refusal(status: u16, body: &str) -> Refusal {
        let expected = Expected::new(1);
        let call = Call {
            service: Service::CloudTrail,
            region: "eu-west-1",
            action: "LookupEvents",
            target: None,
            body: String::new(),
            expected: &expected,
        };
        let status = reqwest::StatusCode::from_u16(status).unwrap();
        api().refusal(&call, &Answer { status, headers: HeaderMap::new(), body: body.into(), room: Room::default() })
    }

    #[test]
    fn a_refusal_says_what_becomes_of_the_unit_and_what_to_do() {
        let Refusal::Work(WorkError::NotRead { state: State::Denied, reason }) = refusal(
            400,
            r#"{"__type":"com.amazonaws.cloudtrail#AccessDeniedException","Message":"User: arn is not authorized"}"#,
        ) else {
            panic!()
        };
        assert_eq!(
            reason,
            "LookupEvents in eu-west-1 (POST https://cloudtrail.eu-west-1.amazonaws.com/): 400 AccessDeniedException: \
             User: arn is not authorized; give the credentials the permission `cloudtrail:LookupEvents`"
        );
        let throttled = refusal(400, r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#);
        assert!(matches!(throttled, Refusal::Work(WorkError::Throttled { wait: DEFAULT_WAIT, .. })));
        let token = refusal(400, r#"{"__type":"InvalidNextTokenException","message":"x"}"#);
        assert!(matches!(token, Refusal::PageToken(_)));
        assert!(matches!(refusal(503, "<html>"), Refusal::Work(WorkError::Transient { .. })));
        let xml =
            "<ErrorResponse><Error><Code>InvalidClientTokenId</Code><Message>no</Message></Error></ErrorResponse>";
        let Refusal::Work(WorkError::NotRead { state: State::Failed, reason }) = refusal(403, xml) else { panic!() };
        assert!(reason.contains("403 InvalidClientTokenId: no; the key is not known"), "{reason}");
        assert!(matches!(refusal(403, ""), Refusal::Work(WorkError::NotRead { state: State::Denied, .. })));
    }

    /// The example of AWS's documentation of Signature Version 4 has other headers; what is shown here is that the
    /// signature depends on what it should.
    #[test]
    fn a_signature_covers_the_body_and_the_target() {
        let expected = Expected::new(1);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let sign = |body: &str, target| {
            let call = Call {
                service: Service::CloudTrail,
                region: "eu-west-1",
                action: "LookupEvents",
                target: Some(target),
                body: body.to_owned(),
                expected: &expected,
            };
            let credentials = Credentials::from_keys("AKIDEXAMPLE", "secret", Some("token".to_owned()));
            let signed = api().try_signed(&call, &credentials, now).unwrap();
            assert_eq!(signed.headers["x-amz-security-token"], "token");
            signed.headers["authorization"].to_str().unwrap().to_owned()
        };
        let one = sign("{}", "a");
        assert!(one.contains("Credential=AKIDEXAMPLE/20231114/eu-west-1/cloudtrail/aws4_request"), "{one}");
        assert!(one.contains("x-amz-target") && one.contains("content-type"), "{one}");
        assert!(one != sign("{ }", "a") && one != sign("{}", "b") && one == sign("{}", "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_to_a_region_keep_their_distance() {
        let api = Arc::new(api());
        let began = Instant::now();
        for _ in 0..5 {
            api.keep_pace("a/us-east-1").await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        api.keep_pace("a/us-east-2").await;
        assert_eq!(began.elapsed(), Duration::from_secs(2));
    }
}
