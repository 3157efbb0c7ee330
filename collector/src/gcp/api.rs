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
