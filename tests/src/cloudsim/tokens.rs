//! The tokens that the login side issues and Resource Manager looks at.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, header};

use super::random::Random;
use super::simulation::Simulation;

/// Why a request is not let in. Each service has its own words for it.
#[derive(Debug)]
pub(super) enum Refusal {
    NoAuthorization,
    NotBearer,
    Unknown,
    Expired { at: SystemTime, now: SystemTime },
    WrongAudience(String),
}

/// Looks at the token of a request to the service that `is_audience` knows the names of.
pub(super) fn check(
    simulation: &Simulation,
    headers: &HeaderMap,
    is_audience: impl Fn(&str) -> bool,
) -> Result<(), Refusal> {
    let value = headers.get(header::AUTHORIZATION).ok_or(Refusal::NoAuthorization)?;
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or(Refusal::NotBearer)?;
    let grant = simulation.tokens.lock().get(token).cloned().ok_or(Refusal::Unknown)?;
    let now = SystemTime::now();
    if grant.expires <= now {
        return Err(Refusal::Expired { at: grant.expires, now });
    }
    let audience = grant.audience.trim_end_matches('/');
    if is_audience(audience) { Ok(()) } else { Err(Refusal::WrongAudience(audience.to_owned())) }
}

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
