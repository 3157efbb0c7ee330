//! What the parts of the server share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::estate::Estate;
use super::faults::Gate;
use super::random::Random;
use super::statistics::Statistics;
use super::tokens::Tokens;

/// The one state of a running server.
pub(super) struct Simulation {
    /// Where the server listens: `http://127.0.0.1:8900`.
    pub(super) url: String,
    pub(super) estate: Estate,
    pub(super) page_size: usize,
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) object_id: String,
    pub(super) token_lifetime: Duration,
    pub(super) tokens: Shared<Tokens>,
    pub(super) gate: Shared<Gate>,
    pub(super) statistics: Shared<Statistics>,
    pub(super) answers: AtomicU64,
}

impl Simulation {
    /// Ends all tokens issued so far.
    pub(super) fn expire_tokens(&self) {
        self.tokens.lock().expire(SystemTime::now());
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
