//! The tokens that the login side issues and Resource Manager looks at.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use super::random::Random;

/// What a token stands for.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// The service that it is for: the scope without `/.default`.
    pub(super) audience: String,
    /// When it ends.
    pub(super) expires: SystemTime,
}

/// All tokens issued so far. Expired ones stay, because the answer to an expired token is another than
/// the answer to one never seen.
#[derive(Default)]
pub(super) struct Tokens {
    grants: HashMap<String, Grant>,
    // Drawn anew in each process and server: a token of another server must not be good here, though
    // the two were started with the same seed.
    key: RandomState,
}

impl Tokens {
    /// Issues a token.
    pub(super) fn issue(&mut self, audience: &str, lifetime: Duration, now: SystemTime) -> String {
        let number = self.grants.len() as u64;
        let mut random = Random::at(self.key.hash_one(number), &[number]);
        let token = format!("cloudsim.{:016x}{:016x}{:016x}", random.next(), random.next(), random.next());
        let grant = Grant { audience: audience.to_owned(), expires: now + lifetime };
        self.grants.insert(token.clone(), grant);
        token
    }

    /// What the token stands for, if it was issued here.
    pub(super) fn get(&self, token: &str) -> Option<&Grant> {
        self.grants.get(token)
    }

    /// Ends all tokens issued so far.
    pub(super) fn expire(&mut self, now: SystemTime) {
        // A second ago, so that the error message is true to the second, too.
        let end = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        for grant in self.grants.values_mut() {
            grant.expires = grant.expires.min(end);
        }
    }
}
