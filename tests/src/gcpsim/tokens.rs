//! The access tokens issued so far.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use crate::cloudsim::random::Random;

/// Whom and what a token stands for.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// The account's address.
    pub(super) email: String,
    pub(super) scopes: Vec<String>,
    pub(super) expires: SystemTime,
}

/// All tokens, the expired ones among them: tests look for them where they should not be.
#[derive(Default)]
pub(super) struct Tokens {
    grants: HashMap<String, Grant>,
    // Drawn anew in each server: a token of another must not be good here, though the two were started
    // with the same seed.
    key: RandomState,
}

impl Tokens {
    /// Issues a token. It has the look of Google's.
    pub(super) fn issue(&mut self, email: &str, scopes: Vec<String>, lifetime: Duration) -> (String, SystemTime) {
        let number = self.grants.len() as u64;
        let mut random = Random::at(self.key.hash_one(number), &[number]);
        let token = format!("ya29.c.{:016x}{:016x}{:016x}", random.next(), random.next(), random.next());
        let expires = SystemTime::now() + lifetime;
        self.grants.insert(token.clone(), Grant { email: email.to_owned(), scopes, expires });
        (token, expires)
    }

    /// What the token stands for, if it was issued here.
    pub(super) fn get(&self, token: &str) -> Option<&Grant> {
        self.grants.get(token)
    }

    /// Ends all tokens issued so far.
    pub(super) fn expire(&mut self) {
        let now = SystemTime::now();
        for grant in self.grants.values_mut() {
            grant.expires = grant.expires.min(now);
        }
    }

    /// The tokens themselves.
    pub(super) fn all(&self) -> Vec<String> {
        self.grants.keys().cloned().collect()
    }
}
