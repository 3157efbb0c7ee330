//! What the refusals of Google's APIs mean.
//!
//! References: <https://cloud.google.com/apis/design/errors> for the shape,
//! <https://cloud.google.com/compute/docs/api/best-practices> and
//! <https://cloud.google.com/compute/quotas> for what Compute Engine says when it has been asked too often.

use std::time::Duration;

use proto::coverage::State;
use proto::identity::Id;
use proto::record::Text;
use serde::Deserialize;

use super::project::Project;
use crate::cloud::WorkError;
use crate::http::{Answer, bounded};

/// Quotas are per minute: the wait when Google throttles and does not say for how long.
const MINUTE: Duration = Duration::from_secs(60);
/// Those that wait for the same minute do not come back together.
const SPREAD: Duration = Duration::from_secs(10);
/// A wait of none would ask again at once and never come to an end.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// No single wait is longer: what a server asks for is honoured, but an answer gone wrong is not.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Reasons of a 403 that is a 429.
const THROTTLED: [&str; 6] = [
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "quotaExceeded",
    "dailyLimitExceeded",
    "RATE_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
];
/// Reasons of a service that is not in use.
const NOT_ENABLED: [&str; 2] = ["accessNotConfigured", "SERVICE_DISABLED"];

/// Why a page was not had.
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

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The call, for people.
    pub(super) call: &'a str,
    /// Which page of the list.
    pub(super) page: u32,
    /// The project that it was asked of; the list of projects is asked of none.
    pub(super) project: Option<&'a Project>,
    /// The account that asks, if it is known.
    pub(super) account: Option<&'a str>,
    /// What must not stand in any text.
    pub(super) token: &'a str,
}

/// An error as Google words it.
#[derive(Debug, Default, Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow)]
    error: ErrorFields<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorFields<'a> {
    #[serde(borrow)]
    message: Option<Text<'a>>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    #[serde(borrow)]
    errors: Vec<Reason<'a>>,
    #[serde(borrow)]
    details: Vec<Detail<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reason<'a> {
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

/// `google.rpc.ErrorInfo` and `google.rpc.RetryInfo`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Detail<'a> {
    #[serde(borrow)]
    reason: Option<Text<'a>>,
    #[serde(borrow)]
    metadata: Option<DetailMetadata<'a>>,
    /// `30s`, `1.5s`.
    #[serde(borrow)]
    retry_delay: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DetailMetadata<'a> {
    /// Whom the call is charged to: `projects/17`.
    #[serde(borrow)]
    consumer: Option<Text<'a>>,
    #[serde(borrow)]
    permission: Option<Text<'a>>,
}

/// A refusal, in short.
#[derive(Debug)]
struct Said {
    reasons: Vec<String>,
    message: String,
    consumer: Option<String>,
    permission: Option<String>,
    delay: Option<Duration>,
    /// Status, reason and message, bounded and without the token.
    text: String,
}

impl Said {
    fn of(answer: &Answer, token: &str) -> Self {
        let ErrorBody { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
        let reasons: Vec<String> = error
            .details
            .iter()
            .filter_map(|detail| detail.reason.as_deref())
            .chain(error.errors.iter().filter_map(|error| error.reason.as_deref()))
            .map(|reason| bounded(reason, 100))
            .collect();
        // Nothing is known to repeat the token; a log that does would be a way into the estate. Cut first, its beginning
        // would stay.
        let message = error.message.as_deref().unwrap_or_default().replace(token, "***");
        let message = bounded(&message, 500);
        let first = reasons.first().cloned().or_else(|| error.status.as_deref().map(|status| bounded(status, 100)));
        let mut text = answer.status.as_u16().to_string();
        for part in [first.as_deref().unwrap_or_default(), &message] {
            if !part.is_empty() {
                text.push_str(if text.len() == 3 { " " } else { ": " });
                text.push_str(part);
            }
        }
        let of_details = |of: fn(&DetailMetadata<'_>) -> Option<String>| {
            error.details.iter().filter_map(|detail| detail.metadata.as_ref()).find_map(of)
        };
        Self {
            consumer: of_details(|metadata| metadata.consumer.as_deref().map(str::to_owned)),
            permission: of_details(|metadata| metadata.permission.as_deref().map(str::to_owned))
                .or_else(|| permission_in(&message)),
            delay: error.details.iter().find_map(|detail| seconds(detail.retry_delay.as_deref()?)),
            reasons,
            message,
            text,
        }
    }

    fn has(&self, reasons: &[&str]) -> bool {
        self.reasons.iter().any(|reason| reasons.contains(&reason.as_str()))
    }

    /// Google has no code for it.
    fn is_deletion(&self) -> bool {
        let phrases = ["scheduled for deletion", "pending deletion", "pendingDeletion", "has been deleted"];
        phrases.iter().any(|phrase| self.message.contains(phrase))
    }
}

/// What becomes of a call that was refused.
pub(super) fn refusal(asked: &Asked<'_>, answer: &Answer) -> Refusal {
    let said = Said::of(answer, asked.token);
    let reason = |hint: &str| format!("{}: {}{}{hint}", asked.call, said.text, if hint.is_empty() { "" } else { "; " });
    let not_read = |state, hint: &str| Refusal::Work(WorkError::NotRead { state, reason: reason(hint) });
    let throttled = || {
        let wait = wait(answer, &said, asked.call);
        Refusal::Work(WorkError::Throttled { wait, reason: reason("") })
    };
    match answer.status.as_u16() {
        429 => throttled(),
        403 if said.has(&THROTTLED) => throttled(),
        503 if answer.retry_after().is_some() => throttled(),
        408 | 500.. => Refusal::Work(WorkError::Transient { reason: reason("") }),
        400 | 410 if asked.page > 1 => Refusal::PageToken(reason("")),
        401 => not_read(State::Failed, "a new token was refused, too: check that it is a token of Google Cloud"),
        403 => forbidden(asked, &said, not_read),
        404 if asked.project.is_some() => {
            not_read(State::Failed, "it was deleted since the projects were listed, or there is no such API here")
        }
        404 => not_read(State::Failed, "is `api_endpoint` right?"),
        300..400 => not_read(State::Failed, "it leads to another place, and the token is not shown there"),
        _ => not_read(State::Failed, ""),
    }
}

fn forbidden(asked: &Asked<'_>, said: &Said, not_read: impl Fn(State, &str) -> Refusal) -> Refusal {
    if let (true, Some(_)) = (said.is_deletion(), asked.project) {
        return not_read(State::Skipped, "the project is pending deletion");
    }
    if said.has(&NOT_ENABLED) {
        // Calls may be charged to another project than they ask of: then it says nothing of what is in this one.
        let charged = said.consumer.as_deref().map(|consumer| consumer.trim_start_matches("projects/"));
        let is_its_own = |project: &Project| {
            let mut known_by = [Some(project.id.as_str()), project.number.as_deref()].into_iter().flatten();
            known_by.any(|known| charged.map_or_else(|| names(&said.message, known), |charged| charged == known))
        };
        return match asked.project {
            Some(project) if is_its_own(project) => {
                not_read(State::NotEnabled, "the API is not enabled in the project")
            }
            _ => not_read(
                State::Failed,
                "enable the API in the project that the calls are charged to, that of the account",
            ),
        };
    }
    if said.has(&["BILLING_DISABLED"]) {
        return not_read(State::Failed, "without billing the project cannot be read");
    }
    if said.has(&["ACCESS_TOKEN_SCOPE_INSUFFICIENT"]) {
        return not_read(State::Denied, "give the machine the access scope `cloud-platform`");
    }
    if said.has(&["USER_PROJECT_DENIED"]) {
        return not_read(State::Denied, "give the account the role Service Usage Consumer in the quota project");
    }
    if said.has(&["SECURITY_POLICY_VIOLATED", "vpcServiceControls"]) {
        return not_read(State::Denied, "a perimeter of VPC Service Controls keeps the account out");
    }
    let account = asked.account.unwrap_or("the account");
    let role = if asked.project.is_some() { "Compute Viewer" } else { "Browser" };
    match &said.permission {
        Some(permission) => {
            let permission = bounded(permission, 100);
            not_read(State::Denied, &format!("give {account} a role with the permission {permission}, like {role}"))
        }
        None => not_read(State::Denied, &format!("give {account} a role that may read it, like {role}")),
    }
}

/// Whether a message names a project by this id or number, and not one whose id or number has it as a part.
fn names(message: &str, project: &str) -> bool {
    // `example.com:my-project` is another project than `my-project`; behind it, a sentence may end.
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '-';
    message.match_indices(project).any(|(place, _)| {
        let before = message[..place].chars().next_back();
        let behind = message[place + project.len()..].chars().next();
        !before.is_some_and(|c| goes_on(c) || c == '.' || c == ':') && !behind.is_some_and(goes_on)
    })
}

/// How long Google asks to wait: in the header, in the details, or until the next minute.
fn wait(answer: &Answer, said: &Said, call: &str) -> Duration {
    let until_the_next_minute = || {
        let spread = Id::digest(call.as_bytes()).bits() % SPREAD.as_millis();
        MINUTE + Duration::from_millis(u64::try_from(spread).unwrap_or(0))
    };
    let wait = answer.retry_after().or(said.delay).unwrap_or_else(until_the_next_minute);
    wait.clamp(SHORTEST_WAIT, LONGEST_WAIT)
}

/// `1.5s`.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

/// Compute Engine names the permission in the message: "Required 'compute.firewalls.list' permission for '...'".
fn permission_in(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("Required '").or_else(|| message.split_once("Permission '"))?;
    let (permission, _) = rest.split_once('\'')?;
    let is_permission = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/');
    (permission.contains('.') && permission.chars().all(is_permission)).then(|| permission.to_owned())
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, RETRY_AFTER};
    use serde_json::{Value, json};

    use super::*;
    use crate::http::Room;

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers, body: body.into(), room: Room::default() }
    }

    fn error(status: u16, reason: &str, message: &str) -> Answer {
        error_with(status, reason, message, json!([]))
    }

    fn error_with(status: u16, reason: &str, message: &str, details: Value) -> Answer {
        let body = json!({"error": {"code": status, "message": message, "status": "STATUS",
            "errors": [{"message": message, "domain": "global", "reason": reason}], "details": details}});
        answer(status, None, &body.to_string())
    }

    fn refused(page: u32, in_project: bool, answer: &Answer) -> Refusal {
        let project = Project { id: "my-project".into(), name: None, number: Some("17".into()) };
        let asked = Asked {
            call: "GET https://compute/x",
            page,
            project: in_project.then_some(&project),
            account: Some("sa@p.iam"),
            token: "t0ken",
        };
        refusal(&asked, answer)
    }

    fn not_read(in_project: bool, answer: &Answer) -> (State, String) {
        match refused(1, in_project, answer) {
            Refusal::Work(WorkError::NotRead { state, reason }) => (state, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (status, reason, message, state, hint) in [
            (401, "authError", "Invalid Credentials", State::Failed, "a new token was refused"),
            (
                403,
                "forbidden",
                "Required 'compute.firewalls.list' permission for 'projects/my-project'",
                State::Denied,
                "give sa@p.iam a role with the permission compute.firewalls.list, like Compute Viewer",
            ),
            (403, "forbidden", "No.", State::Denied, "give sa@p.iam a role that may read it"),
            (
                403,
                "accessNotConfigured",
                "Compute Engine API has not been used in project 17 before or it is disabled.",
                State::NotEnabled,
                "not enabled",
            ),
            (
                403,
                "accessNotConfigured",
                "Project 17 has been scheduled for deletion and cannot be used for API calls.",
                State::Skipped,
                "pending deletion",
            ),
            (403, "forbidden", "Project #17 has been deleted.", State::Skipped, "pending deletion"),
            (403, "vpcServiceControls", "Request is prohibited by organization's policy.", State::Denied, "perimeter"),
            (404, "notFound", "The resource 'projects/my-project' was not found", State::Failed, "deleted since"),
            (400, "invalid", "Invalid value.", State::Failed, ""),
            (302, "moved", "Found.", State::Failed, "another place"),
        ] {
            let (found, text) = not_read(true, &error(status, reason, message));
            assert_eq!(found, state, "{message}");
            assert!(text.starts_with(&format!("GET https://compute/x: {status} {reason}: {message}")), "{text}");
            assert!(text.contains(hint), "{text}");
        }
    }

    #[test]
    fn an_api_that_is_off_elsewhere_says_nothing_of_the_project() {
        let disabled = |consumer: &str| {
            let details = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED",
                "domain": "googleapis.com", "metadata": {"consumer": consumer, "service": "compute.googleapis.com"}}]);
            error_with(403, "accessNotConfigured", "The API is off.", details)
        };
        assert_eq!(not_read(true, &disabled("projects/17")).0, State::NotEnabled);
        assert_eq!(not_read(true, &disabled("projects/my-project")).0, State::NotEnabled);
        assert_eq!(not_read(true, &disabled("projects/18")).0, State::Failed);
        let (state, reason) = not_read(false, &disabled("projects/17"));
        assert_eq!(state, State::Failed);
        assert!(reason.contains("403 SERVICE_DISABLED: The API is off.; enable the API in the project"), "{reason}");
    }

    #[test]
    fn an_api_that_is_off_nobody_says_where_says_nothing_of_the_project() {
        let state = |message: &str| not_read(true, &error(403, "SERVICE_DISABLED", message)).0;
        for message in [
            "The API has not been used in project 17 before or it is disabled.",
            "The API is off in project my-project.",
            "Enable it: https://console.developers.google.com/apis/api/compute.googleapis.com/overview?project=17",
        ] {
            assert_eq!(state(message), State::NotEnabled, "{message}");
        }
        for message in [
            "",
            "The API is off.",
            "The API has not been used in project 117 before.",
            "The API has not been used in project 170 before.",
            "The API is off in project my-project-2.",
            "The API is off in project example.com:my-project.",
        ] {
            assert_eq!(state(message), State::Failed, "{message}");
        }
    }

    #[test]
    fn a_permission_in_the_details_is_named() {
        let details =
            json!([{"reason": "IAM_PERMISSION_DENIED", "metadata": {"permission": "resourcemanager.projects.get"}}]);
        let (state, reason) =
            not_read(false, &error_with(403, "forbidden", "The caller does not have permission", details));
        assert_eq!(state, State::Denied);
        assert!(reason.ends_with("a role with the permission resourcemanager.projects.get, like Browser"), "{reason}");
    }

    #[test]
    fn a_throttled_call_waits_as_long_as_it_is_told() {
        let waited = |answer: &Answer| match refused(1, true, answer) {
            Refusal::Work(WorkError::Throttled { wait, .. }) => wait,
            other => panic!("{other:?}"),
        };
        for reason in ["rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"] {
            let until_the_next_minute = waited(&error(403, reason, "Quota exceeded for quota group 'ReadGroup'"));
            assert!((60..70).contains(&until_the_next_minute.as_secs()), "{until_the_next_minute:?}");
        }
        for (status, retry_after, expected) in
            [(429, Some("17"), 17), (429, Some("0"), 1), (503, Some("5"), 5), (429, Some("7200"), 7200)]
        {
            assert_eq!(waited(&answer(status, retry_after, "")).as_secs(), expected);
        }
        let details = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"}]);
        assert_eq!(waited(&error_with(429, "rateLimitExceeded", "", details)), Duration::from_millis(2500));
    }

    #[test]
    fn what_may_pass_is_transient() {
        for status in [408, 500, 502, 503, 504] {
            let refused = refused(2, true, &error(status, "backendError", "Internal error"));
            assert!(matches!(refused, Refusal::Work(WorkError::Transient { .. })), "{status}: {refused:?}");
        }
    }

    #[test]
    fn a_bad_request_for_a_further_page_is_about_the_page_token() {
        let bad = error(400, "invalid", "Invalid value for field 'pageToken'");
        assert!(matches!(refused(2, true, &bad), Refusal::PageToken(_)));
        assert_eq!(not_read(true, &bad).0, State::Failed);
    }

    #[test]
    fn odd_answers_are_understood_and_never_show_the_token() {
        assert!(not_read(true, &answer(418, None, "<html>")).1.ends_with(": 418"));
        assert!(not_read(true, &answer(403, None, r#"{"error":"no"}"#)).1.contains(": 403; give"));
        let long = json!({"error": {"message": format!("t0ken\n{}", "x".repeat(9000))}}).to_string();
        let (_, reason) = not_read(true, &answer(400, None, &long));
        assert!(reason.len() < 700 && !reason.contains("t0ken") && !reason.contains('\n'), "{reason}");
    }
}
