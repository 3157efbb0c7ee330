//! Waiting times between attempts.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Waiting times that double up to a bound, each with a random part, so that clients of a broker that comes back do
/// not all knock at once.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, attempts: 0 }
    }

    /// How often the next wait was asked for since the last success.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next wait: between a half and the whole of the doubled one before.
    pub(super) fn next(&mut self) -> Duration {
        let whole = self.first.saturating_mul(2_u32.saturating_pow(self.attempts)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        whole / 2 + (whole / 2).mul_f64(random_fraction())
    }
}

/// A number from 0 to 1. The keys of the standard library's hash maps are random enough to spread clients.
fn random_fraction() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for whole in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next();
            let whole = Duration::from_millis(whole);
            assert!(whole / 2 <= wait && wait <= whole, "{wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
