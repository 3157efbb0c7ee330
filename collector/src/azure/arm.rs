//! Calls to Azure Resource Manager, and what its refusals mean.
//!
//! Reference: the common API details of ARM
//! (<https://github.com/Azure/azure-resource-manager-rpc/blob/master/v1.0/common-api-details.md>) for errors, and
//! <https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling> for throttling.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proto::coverage::State;
use proto::record::Text;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::sign_in::{SignIn, Token};
use crate::cloud::WorkError;
use crate::http::{self, Answer, Client, Expected, Room, bounded};

/// The wait when ARM throttles and does not say for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// A wait of none would ask again at once and never come to an end.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// No single wait is longer: what a server asks for is honoured, but an answer gone wrong is not.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What a service says when it is not in use in a subscription: there is nothing to read.
const NOT_ENABLED: [&str; 4] = [
    "MissingRegistrationForType",
    "MissingSubscriptionRegistration",
    "NoRegisteredProviderFound",
    "SubscriptionNotRegistered",
];

/// A service of Azure, Resource Manager or the key vaults, as one application.
#[derive(Debug)]
pub(super) struct Api {
    http: Client,
    sign_in: SignIn,
    /// By scope: throttling is by subscription, or by vault.
    paces: Mutex<HashMap<String, Pace>>,
}

/// Why a page was not had.
#[derive(Debug)]
pub(super) enum Refusal {
    /// For any unit.
    Work(WorkError),
    /// The page token is no longer good: the list must begin again.
    PageToken(String),
    /// There is no such thing: 404 or 410.
    NotFound(String),
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
            Self::PageToken(reason) | Self::NotFound(reason) => WorkError::NotRead { state: State::Failed, reason },
        }
    }
}

impl Api {
    pub(super) fn new(http: Client, sign_in: SignIn) -> Self {
        Self { http, sign_in, paces: Mutex::default() }
    }

    /// The answer at a URL. `page` counts the pages of a list from 1.
    ///
    /// The URL must be of the service: the token goes with it.
    pub(super) async fn get(&self, url: &Url, scope: &str, page: u32, expected: &Expected) -> Result<Answer, Refusal> {
        let room = self.http.room(expected).await;
        self.get_within(room, url, scope, page, expected).await
    }

    /// The same for whoever holds other answers, or keeps others waiting who do: it does not wait for room.
    pub(super) async fn get_at_once(
        &self,
        url: &Url,
        scope: &str,
        page: u32,
        expected: &Expected,
    ) -> Result<Answer, Refusal> {
        self.get_within(self.http.free_room(expected), url, scope, page, expected).await
    }

    async fn get_within(
        &self,
        room: Room,
        url: &Url,
        scope: &str,
        page: u32,
        expected: &Expected,
    ) -> Result<Answer, Refusal> {
        self.keep_pace(scope).await;
        let turn = self.http.turn().await;
        let mut used = self.sign_in.token().await?;
        let mut answer = self.http.get_in(&turn, url, used.secret(), room).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            // It may have expired on the way, or been revoked: one other token settles whether it was that.
            used = self.sign_in.replace(&used).await?;
            answer = self.http.get_in(&turn, url, used.secret(), answer.room).await?;
        }
        drop(turn);
        self.see(scope, &answer);
        if answer.status == StatusCode::OK {
            expected.learn(answer.body.len());
            return Ok(answer);
        }
        Err(refusal(&http::call("GET", url), page, &answer, &used))
    }

    /// Waits for the scope's next turn, if the scope has little left.
    async fn keep_pace(&self, scope: &str) {
        let wait = {
            let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
            paces.get_mut(scope).map(|pace| pace.turn(Instant::now()))
        };
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            tokio::time::sleep(wait).await;
        }
    }

    /// Remembers how much the service says is left.
    fn see(&self, scope: &str, answer: &Answer) {
        let Some(remaining) = remaining(&answer.headers) else { return };
        let gap = gap(remaining);
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if gap.is_zero() {
            paces.remove(scope);
        } else if let Some(pace) = paces.get_mut(scope) {
            pace.gap = gap;
        } else {
            paces.insert(scope.to_owned(), Pace { gap, next: Instant::now() + gap });
        }
    }
}

/// The calls of a scope, one after the other.
#[derive(Debug)]
struct Pace {
    gap: Duration,
    next: Instant,
}

impl Pace {
    /// How long the next call waits for its turn.
    fn turn(&mut self, now: Instant) -> Duration {
        let turn = self.next.max(now);
        // Calls that are given up leave no hole: nobody waits longer than this.
        self.next = (turn + self.gap).min(now + LONGEST_TURN);
        turn - now
    }
}

/// A call waits no longer than this for its turn.
const LONGEST_TURN: Duration = Duration::from_secs(10);
/// What the service may have left before we slow down.
const PLENTY: u64 = 50;

/// The smallest number of calls that the service has left for us, in any of its ways of counting:
/// `x-ms-ratelimit-remaining-subscription-reads: 249`,
/// `x-ms-ratelimit-remaining-resource: Microsoft.Compute/LowCostGet3Min;3999,Microsoft.Compute/LowCostGet30Min;31999`.
fn remaining(headers: &HeaderMap) -> Option<u64> {
    let ours = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-ms-ratelimit-remaining-"));
    let values = ours.filter_map(|(_, value)| value.to_str().ok()).flat_map(|value| value.split(','));
    values.filter_map(|value| value.rsplit(';').next()?.trim().parse().ok()).min()
}

/// The time between two calls: at half of [`PLENTY`] it is that in which Resource Manager's bucket gets one more
/// (25 reads a second), so that the bucket neither fills nor runs dry.
fn gap(remaining: u64) -> Duration {
    let short = PLENTY.saturating_sub(remaining);
    Duration::from_micros(short * 40_000 * 2 / PLENTY)
}

/// An error as ARM words it; some services leave out the outer object.
#[derive(Debug, Default, Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow, default)]
    error: Option<ErrorFields<'a>>,
    #[serde(borrow, flatten)]
    flat: ErrorFields<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorFields<'a> {
    #[serde(borrow, default)]
    code: Option<Text<'a>>,
    #[serde(borrow, default)]
    message: Option<Text<'a>>,
}

/// A refusal, in short.
struct Said {
    code: String,
    /// Status, code and message, bounded and without the token.
    text: String,
}

impl Said {
    fn of(answer: &Answer, token: &Token) -> Self {
        let body: ErrorBody<'_> = serde_json::from_slice(&answer.body).unwrap_or_default();
        let fields = body.error.unwrap_or(body.flat);
        // Nothing is known to repeat the token; a log that does would be a way into the estate. It is hidden before the
        // text is cut, or a part of it could stay.
        let hidden = |text: Option<Text<'_>>| text.as_deref().unwrap_or_default().replace(token.secret(), "***");
        let code = bounded(&hidden(fields.code), 100);
        let message = bounded(&hidden(fields.message), 500);
        let mut text = answer.status.as_u16().to_string();
        for part in [&code, &message] {
            if !part.is_empty() {
                text.push_str(if text.len() == 3 { " " } else { ": " });
                text.push_str(part);
            }
        }
        Self { code, text }
    }
}

fn refusal(call: &str, page: u32, answer: &Answer, token: &Token) -> Refusal {
    let said = Said::of(answer, token);
    let reason = |hint: &str| format!("{call}: {}{}{hint}", said.text, if hint.is_empty() { "" } else { "; " });
    let not_read = |state, hint| Refusal::Work(WorkError::NotRead { state, reason: reason(hint) });
    if NOT_ENABLED.iter().any(|code| said.code.eq_ignore_ascii_case(code)) {
        // The same code, with the versions that there are, when it is the version that nobody knows.
        let versions = said.text.split_once("supported api-versions are '").map(|(_, versions)| versions);
        if versions.is_some_and(|versions| !versions.starts_with('\'')) {
            return not_read(State::Failed, "set another version of the API for this list with `api_versions`");
        }
        return not_read(State::NotEnabled, "the service is not registered in the subscription");
    }
    match answer.status.as_u16() {
        429 => throttled(answer, &said, reason("")),
        503 if answer.retry_after().is_some() => throttled(answer, &said, reason("")),
        408 | 500.. => Refusal::Work(WorkError::Transient { reason: reason("") }),
        400 | 410 if page > 1 => Refusal::PageToken(reason("")),
        401 if said.code.eq_ignore_ascii_case("InvalidAuthenticationTokenTenant") => {
            not_read(State::Denied, "the subscription belongs to another tenant than `tenant`")
        }
        401 => not_read(
            State::Failed,
            "a new token was refused, too: check that `login_endpoint` and `arm_endpoint` are of the same cloud",
        ),
        403 => {
            let hint = match permission(&said.text) {
                Some(action) if is_in_vault(action) => {
                    format!("give the application a role with the permission {action}, like Key Vault Reader")
                }
                Some(action) => format!("give the application a role with the permission {action}, like Reader"),
                None if said.text.contains(" list permission on key vault ") => {
                    "give the application the permission List in the vault's access policies".to_owned()
                }
                None if is_network(&said.text) => {
                    "the network keeps this host out: allow its address, or run a collector where it is let in"
                        .to_owned()
                }
                None => "give the application a role that may read it, like Reader".to_owned(),
            };
            not_read(State::Denied, &hint)
        }
        404 if said.code.eq_ignore_ascii_case("SubscriptionNotFound") => {
            not_read(State::Failed, "it was deleted or moved since the subscriptions were listed")
        }
        404 | 410 => Refusal::NotFound(reason("")),
        300..400 => not_read(State::Failed, "it leads to another place, and the token is not shown there"),
        _ => not_read(State::Failed, ""),
    }
}

/// A vault's firewall, and a vault that is reached by private links alone.
fn is_network(message: &str) -> bool {
    let parts =
        ["ForbiddenByFirewall", "ForbiddenByConnection", "Client address is not authorized", "ublic network access"];
    parts.iter().any(|part| message.contains(part))
}

fn throttled(answer: &Answer, said: &Said, reason: String) -> Refusal {
    let wait = answer.retry_after().or_else(|| wait_in(&said.text)).unwrap_or(DEFAULT_WAIT);
    Refusal::Work(WorkError::Throttled { wait: wait.clamp(SHORTEST_WAIT, LONGEST_WAIT), reason })
}

/// Resource Manager names the permission: "… authorization to perform action 'Microsoft.Compute/disks/read' over …".
/// A vault that goes by roles does so, too: "Action: 'Microsoft.KeyVault/vaults/keys/read'".
fn permission(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("perform action '").or_else(|| message.split_once("Action: '"))?;
    Some(rest.split_once('\'')?.0)
}

/// Whether the permission is for what is in a vault, which the role Reader has not.
fn is_in_vault(action: &str) -> bool {
    let kinds = ["Microsoft.KeyVault/vaults/keys/", "Microsoft.KeyVault/vaults/secrets/"];
    kinds.iter().any(|kind| action.starts_with(kind))
}

/// Resource providers name the wait in the message: "Please try again after '372' seconds."
fn wait_in(message: &str) -> Option<Duration> {
    let (_, rest) = message.split_once("try again after '")?;
    let (seconds, _) = rest.split_once('\'')?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, RETRY_AFTER};

    use super::*;

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers, body: body.into(), room: Room::default() }
    }

    fn error(status: u16, code: &str) -> Answer {
        answer(status, None, &format!(r#"{{"error":{{"code":"{code}","message":"The reason.","details":[]}}}}"#))
    }

    fn refused(page: u32, answer: &Answer) -> Refusal {
        refusal("GET https://arm/subscriptions", page, answer, &Token::for_test("t0ken"))
    }

    fn not_read(page: u32, answer: &Answer) -> (State, String) {
        match refused(page, answer) {
            Refusal::Work(WorkError::NotRead { state, reason }) => (state, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (status, code, state) in [
            (401, "InvalidAuthenticationToken", State::Failed),
            (401, "InvalidAuthenticationTokenTenant", State::Denied),
            (403, "AuthorizationFailed", State::Denied),
            (404, "SubscriptionNotFound", State::Failed),
            (400, "NoRegisteredProviderFound", State::NotEnabled),
            (404, "noRegisteredProviderFound", State::NotEnabled),
            (409, "MissingSubscriptionRegistration", State::NotEnabled),
            (400, "InvalidSubscriptionId", State::Failed),
            (302, "Found", State::Failed),
        ] {
            let (found, reason) = not_read(1, &error(status, code));
            assert_eq!(found, state, "{status} {code}");
            let begin = format!("GET https://arm/subscriptions: {status} {code}: The reason.");
            assert!(reason.starts_with(&begin), "{reason}");
        }
    }

    #[test]
    fn a_flat_error_and_no_error_are_understood() {
        let flat = answer(403, None, r#"{"code":"AuthorizationFailed","message":"No."}"#);
        assert!(not_read(1, &flat).1.contains("403 AuthorizationFailed: No."));
        assert!(not_read(1, &answer(418, None, "<html>")).1.ends_with(": 418"));
        let odd = answer(403, None, r#"{"error":"no","code":5}"#);
        assert!(not_read(1, &odd).1.contains(": 403;"));
    }

    #[test]
    fn a_refusal_is_bounded_and_never_shows_the_token() {
        let long = format!(r#"{{"error":{{"code":"C","message":"t0ken\n{}"}}}}"#, "x".repeat(9000));
        let (_, reason) = not_read(1, &answer(400, None, &long));
        assert!(reason.len() < 700, "{}", reason.len());
        assert!(!reason.contains("t0ken") && !reason.contains('\n'), "{reason}");
        let cut = format!(r#"{{"error":{{"code":"C","message":"{}t0ken"}}}}"#, "x".repeat(497));
        let (_, reason) = not_read(1, &answer(400, None, &cut));
        assert!(!reason.contains("t0"), "{reason}");
    }

    #[test]
    fn a_throttled_call_waits_as_long_as_it_is_told() {
        let rp =
            r#"{"error":{"code":"ResourceRequestsThrottled","message":"… Please try again after '372' seconds."}}"#;
        for (status, retry_after, body, expected) in [
            (429, Some("17"), "", 17),
            (429, None, "", 10),
            (429, None, rp, 372),
            (429, Some("0"), "", 1),
            (429, Some("86400"), "", 86_400),
            (503, Some("5"), "", 5),
        ] {
            let answer = answer(status, retry_after, body);
            let Refusal::Work(WorkError::Throttled { wait, .. }) = refused(1, &answer) else {
                panic!("{status} {retry_after:?}")
            };
            assert_eq!(wait.as_secs(), expected, "{status} {retry_after:?} {body}");
        }
    }

    #[test]
    fn a_denial_names_the_missing_permission() {
        let body = r#"{"error":{"code":"AuthorizationFailed","message":"The client 'a' does not have authorization to perform action 'Microsoft.Compute/disks/read' over scope '/subscriptions/s'."}}"#;
        let (state, reason) = not_read(1, &answer(403, None, body));
        assert_eq!(state, State::Denied);
        assert!(reason.contains("a role with the permission Microsoft.Compute/disks/read"), "{reason}");
    }

    #[test]
    fn a_vault_that_denies_says_how_it_may_be_read() {
        for (message, hint) in [
            (
                r"Caller is not authorized.\r\nAction: 'Microsoft.KeyVault/vaults/keys/read'\r\nResource: '/keys'",
                "the permission Microsoft.KeyVault/vaults/keys/read, like Key Vault Reader",
            ),
            (
                "The application 'a' does not have secrets list permission on key vault 'kv;location=westeurope'.",
                "the permission List in the vault's access policies",
            ),
        ] {
            let body = format!(r#"{{"error":{{"code":"Forbidden","message":"{message}"}}}}"#);
            let (state, reason) = not_read(1, &answer(403, None, &body));
            assert!(state == State::Denied && reason.contains(hint), "{reason}");
        }
    }

    #[test]
    fn a_firewall_is_no_matter_of_roles() {
        let body = r#"{"error":{"code":"Forbidden","message":"Client address is not authorized and caller is not a trusted service.","innererror":{"code":"ForbiddenByFirewall"}}}"#;
        let (state, reason) = not_read(1, &answer(403, None, body));
        assert_eq!(state, State::Denied);
        assert!(reason.contains("the network keeps this host out") && !reason.contains("role"), "{reason}");
    }

    #[test]
    fn a_version_that_nobody_knows_is_not_a_service_that_is_not_there() {
        let body = r#"{"error":{"code":"NoRegisteredProviderFound","message":"No registered resource provider found for location 'eastus' and API version '2099-01-01' for type 'disks'. The supported api-versions are '2024-03-02, 2023-10-02'."}}"#;
        let (state, reason) = not_read(1, &answer(400, None, body));
        assert_eq!(state, State::Failed);
        assert!(reason.contains("`api_versions`"), "{reason}");
    }

    #[test]
    fn what_is_not_there_is_told_apart() {
        for (status, code) in [(404, "ResourceNotFound"), (410, "Gone"), (404, "InvalidResourceType")] {
            assert!(matches!(refused(1, &error(status, code)), Refusal::NotFound(_)), "{status} {code}");
        }
    }

    #[test]
    fn calls_slow_down_before_the_limit() {
        let mut headers = HeaderMap::new();
        headers.append("x-ms-ratelimit-remaining-subscription-reads", "249".parse().unwrap());
        assert_eq!(remaining(&headers), Some(249));
        let compute = "Microsoft.Compute/LowCostGet3Min;31,Microsoft.Compute/LowCostGet30Min;31999";
        headers.append("x-ms-ratelimit-remaining-resource", compute.parse().unwrap());
        assert_eq!(remaining(&headers), Some(31));
        assert_eq!(remaining(&HeaderMap::new()), None);
        assert_eq!(gap(PLENTY), Duration::ZERO);
        assert_eq!(gap(PLENTY / 2), Duration::from_millis(40));
        assert_eq!(gap(0), Duration::from_millis(80));
    }

    #[test]
    fn turns_come_one_after_the_other_and_never_too_late() {
        let now = Instant::now();
        let mut pace = Pace { gap: Duration::from_millis(40), next: now };
        let turns: Vec<_> = (0..3).map(|_| pace.turn(now).as_millis()).collect();
        assert_eq!(turns, [0, 40, 80]);
        for _ in 0..1000 {
            assert!(pace.turn(now) <= LONGEST_TURN);
        }
        assert_eq!(pace.turn(now + Duration::from_secs(60)), Duration::ZERO);
    }

    #[test]
    fn what_may_pass_is_transient() {
        for status in [408, 500, 502, 503, 504] {
            let refused = refused(2, &error(status, "InternalServerError"));
            assert!(matches!(refused, Refusal::Work(WorkError::Transient { .. })), "{status}: {refused:?}");
        }
    }

    #[test]
    fn a_bad_request_for_a_further_page_is_about_the_page_token() {
        assert!(matches!(refused(2, &error(400, "InvalidSkipToken")), Refusal::PageToken(_)));
        assert_eq!(not_read(1, &error(400, "InvalidSkipToken")).0, State::Failed);
        assert_eq!(not_read(2, &error(400, "NoRegisteredProviderFound")).0, State::NotEnabled);
    }
}
