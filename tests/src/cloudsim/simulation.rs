//! What the parts of the server share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, header};

use super::activity_log::ActivityLog;
use super::assertion::Credentials;
use super::estate::Estate;
use super::faults::{Gate, Passage};
use super::pages::SkipTokens;
use super::random::Random;
use super::rate::RateLimits;
use super::statistics::Statistics;
use super::tokens::Tokens;

/// The one state of a running server.
pub(super) struct Simulation {
    /// Where the server listens: `http://127.0.0.1:8900`.
    pub(super) url: String,
    /// The certificate of the authority that vouches for the server, over https.
    pub(super) ca_pem: Option<String>,
    pub(super) estate: Estate,
    pub(super) page_size: usize,
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) object_id: String,
    /// Other ways to sign in.
    pub(super) credentials: Credentials,
    pub(super) token_lifetime: Duration,
    pub(super) rate_limits: Option<Shared<RateLimits>>,
    pub(super) tokens: Shared<Tokens>,
    pub(super) gate: Shared<Gate>,
    pub(super) statistics: Shared<Statistics>,
    pub(super) activity: Shared<ActivityLog>,
    pub(super) answers: AtomicU64,
}

impl Simulation {
    /// Ends all tokens issued so far.
    pub(super) fn expire_tokens(&self) {
        self.tokens.lock().expire(SystemTime::now());
    }

    /// The server's own origin, by the name that the client calls it: a client that asked `localhost`
    /// must not be sent to `127.0.0.1`, which is another origin.
    pub(super) fn origin(&self, headers: &HeaderMap) -> String {
        let scheme = self.url.split_once("://").map_or("http", |(scheme, _)| scheme);
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.map_or_else(|| self.url.clone(), |host| format!("{scheme}://{host}"))
    }

    /// Counts a request with a good token. How it passes, and how much longer its answer takes.
    pub(super) fn pass_gate(&self) -> (Passage, Duration) {
        let (passage, expire, slowness) = self.gate.lock().pass();
        if expire {
            self.expire_tokens();
        }
        (passage, slowness)
    }

    /// The offset that a page token stands for, unless it is refused.
    pub(super) fn read_skip_token(&self, tokens: &SkipTokens, token: &str) -> Option<usize> {
        let offset = tokens.decode(token);
        let read = offset.filter(|_| !self.gate.lock().refuse_page_token());
        if read.is_none() {
            self.statistics.lock().page_tokens_refused += 1;
        }
        read
    }

    /// An id for the next answer, as each answer of Azure has one.
    pub(super) fn next_request_id(&self) -> String {
        Random::at(0, &[self.answers.fetch_add(1, Ordering::Relaxed)]).guid()
    }
}

/// A mutex whose holders never leave a half-made change, so that the panic of one is no reason for
/// the others to stop.
#[derive(Default)]
pub(crate) struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
