//! Calls to Google's APIs.

use proto::coverage::State;
use reqwest::StatusCode;
use url::Url;

use super::project::Project;
use super::refusal::{Asked, Refusal, refusal};
use super::sign_in::{SignIn, Token};
use crate::cloud::WorkError;
use crate::http::{self, Answer, Client, Expected};

/// How often a call is made again because its token expired while the call waited for its turn.
const MOST_EXPIRED: u32 = 5;

/// The services, as one account.
#[derive(Debug)]
pub(super) struct Api {
    http: Client,
    sign_in: SignIn,
}

/// A page of a list to be had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Where: at a service's own endpoint, for the token goes with it.
    pub(super) url: &'a Url,
    /// Its number, from 1.
    pub(super) page: u32,
    /// The project whose list it is.
    pub(super) project: Option<&'a Project>,
    /// How large such pages are.
    pub(super) expected: &'a Expected,
}

impl Api {
    pub(super) fn new(http: Client, sign_in: SignIn) -> Self {
        Self { http, sign_in }
    }

    /// The address of the account, if it has one; it may not be known before the first call.
    pub(super) fn account(&self) -> Option<&str> {
        self.sign_in.account()
    }

    /// Gets a page.
    pub(super) async fn page(&self, wanted: Wanted<'_>) -> Result<Answer, Refusal> {
        let room = self.http.room(wanted.expected).await;
        let mut token = self.sign_in.token().await?;
        let mut answer = self.http.get(wanted.url, token.secret(), room).await?;
        let (mut is_replaced, mut expired) = (false, 0);
        while answer.status == StatusCode::UNAUTHORIZED {
            // A call waits for its turn, and a token that expired meanwhile was not refused for anything else.
            if token.is_expired() && expired < MOST_EXPIRED {
                expired += 1;
                token = self.sign_in.token().await?;
            } else if !is_replaced {
                // It may have been revoked: one other token settles whether it was that.
                is_replaced = true;
                token = self.sign_in.replace(&token).await?;
            } else {
                break;
            }
            answer = self.http.get(wanted.url, token.secret(), answer.room).await?;
        }
        if answer.status == StatusCode::OK {
            wanted.expected.learn(answer.body.len());
            return Ok(answer);
        }
        Err(self.refused(wanted, &token, &answer))
    }

    fn refused(&self, wanted: Wanted<'_>, token: &Token, answer: &Answer) -> Refusal {
        let call = http::call("GET", wanted.url);
        if answer.status == StatusCode::UNAUTHORIZED && token.is_expired() {
            let reason = format!("{call}: 401; the token expired again before the call was answered");
            return Refusal::Work(WorkError::Transient { reason });
        }
        let asked = Asked {
            call: &call,
            page: wanted.page,
            project: wanted.project,
            account: self.account(),
            token: token.secret(),
        };
        refusal(&asked, answer)
    }
}

/// Why the body of a page cannot be read.
pub(super) fn not_a_page(url: &Url, error: &serde_json::Error) -> WorkError {
    let call = http::call("GET", url);
    if error.is_eof() {
        return WorkError::Transient { reason: format!("{call}: the answer was cut off ({error})") };
    }
    WorkError::NotRead {
        state: State::Failed,
        reason: format!("{call}: the answer is not a page of a list ({error}); is `api_endpoint` right?"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::{HeaderMap, HeaderValue};
    use serde_json::json;

    use super::super::sign_in::tests::{Given, Server, held, token};
    use super::*;
    use crate::http::{Limits, Timeouts};

    /// Gets a page of a server that gives out `t<number of the request>`, with a token that is held already for so
    /// long.
    async fn page(server: &Server, life: Option<Duration>) -> Result<Answer, Refusal> {
        let sign_in = server.service_account();
        let headers =
            HeaderMap::from_iter([("x-goog-user-project".parse().unwrap(), HeaderValue::from_static("payer"))]);
        let http = Client::new(Timeouts::default(), true, Limits::new(1)).unwrap().with_headers(headers);
        let url = Url::parse(&format!("{}/v1/projects?pageSize=500", server.url)).unwrap();
        let expected = Expected::new(0);
        let wanted = Wanted { url: &url, page: 1, project: None, expected: &expected };
        sign_in.hold(life.and_then(|life| held("old", life, life)));
        Api::new(http, sign_in).page(wanted).await
    }

    fn unauthorized() -> Given {
        (401, "", json!({"error": {"code": 401, "message": "Invalid Credentials", "status": "UNAUTHENTICATED"}}))
    }

    #[tokio::test]
    async fn a_token_that_expires_on_the_way_is_not_one_that_was_refused() {
        let life = Duration::from_millis(200);
        let server = Server::start(move |number, asked| match asked.header("authorization") {
            _ if asked.line.starts_with("POST") => (200, "", token(number)),
            "Bearer old" => {
                std::thread::sleep(life);
                unauthorized()
            }
            // Revoked, say.
            "Bearer t1" => unauthorized(),
            _ => (200, "", json!({})),
        })
        .await;
        let answer = page(&server, Some(life)).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let asked = server.asked();
        let used: Vec<&str> = asked.iter().map(|asked| asked.header("authorization")).collect();
        assert_eq!(used, ["Bearer old", "", "Bearer t1", "", "Bearer t3"]);
        let payers: Vec<&str> = asked.iter().map(|asked| asked.header("x-goog-user-project")).collect();
        assert_eq!(payers, ["payer", "", "payer", "", "payer"], "calls are charged to somebody, sign-ins are not");
    }

    #[tokio::test]
    async fn a_token_is_replaced_once() {
        let server = Server::start(|number, asked| match asked.line.starts_with("POST") {
            true => (200, "", token(number)),
            false => unauthorized(),
        })
        .await;
        let Err(Refusal::Work(WorkError::NotRead { state, reason })) = page(&server, None).await else { panic!() };
        assert_eq!((state, server.asked().len()), (State::Failed, 4));
        assert!(reason.contains("401 UNAUTHENTICATED: Invalid Credentials; a new token was refused, too"), "{reason}");
    }
}
