//! What the parts of the server share.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use crate::cloudsim::simulation::Shared;

use super::estate::Estate;
use super::faults::Gate;
use super::identities::Identities;
use super::statistics::Statistics;
use super::tokens::Tokens;

/// The one state of a running server.
pub(super) struct Simulation {
    /// Where the server listens: `http://127.0.0.1:8901`.
    pub(super) url: String,
    pub(super) estate: Estate,
    pub(super) page_size: usize,
    pub(super) token_lifetime: Duration,
    pub(super) identities: Identities,
    pub(super) tokens: Shared<Tokens>,
    pub(super) gate: Shared<Gate>,
    pub(super) statistics: Shared<Statistics>,
    /// The accounts that have read something, or tried to.
    pub(super) callers: Shared<BTreeSet<String>>,
}

impl Simulation {
    /// Issues a token that is good for the server's time, or for less.
    pub(super) fn issue(&self, email: &str, scopes: Vec<String>, at_most: Duration) -> (String, SystemTime) {
        self.statistics.lock().tokens_issued += 1;
        self.tokens.lock().issue(email, scopes, self.token_lifetime.min(at_most))
    }
}
