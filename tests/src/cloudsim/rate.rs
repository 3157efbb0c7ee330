//! Resource Manager's limits on how much one client may read: a bucket of requests for each subscription,
//! and one for what is outside of all.

use std::collections::HashMap;
use std::time::Instant;

/// Buckets that are filled steadily, and emptied by requests.
#[derive(Debug)]
pub(super) struct RateLimits {
    bucket: f64,
    per_second: f64,
    /// What was in each bucket, and when.
    levels: HashMap<Option<usize>, (f64, Instant)>,
}

impl RateLimits {
    pub(super) fn new(bucket: u32, per_second: f64) -> Self {
        Self { bucket: bucket.into(), per_second, levels: HashMap::new() }
    }

    /// Takes one request out of a bucket. How many are left; or, if there was none, the seconds until
    /// there is one.
    pub(super) fn take(&mut self, subscription: Option<usize>, now: Instant) -> Result<u64, u64> {
        let (level, since) = self.levels.entry(subscription).or_insert((self.bucket, now));
        let refill = now.saturating_duration_since(*since).as_secs_f64() * self.per_second;
        *level = (*level + refill).min(self.bucket);
        *since = now;
        if *level >= 1.0 {
            *level -= 1.0;
            Ok(*level as u64)
        } else {
            Err(((1.0 - *level) / self.per_second).ceil().max(1.0) as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_gives_what_it_holds_and_fills_again() {
        let mut limits = RateLimits::new(3, 0.5);
        let now = Instant::now();
        let taken: Vec<_> = (0..4).map(|_| limits.take(Some(0), now)).collect();
        assert_eq!(taken, [Ok(2), Ok(1), Ok(0), Err(2)]);
        assert_eq!(limits.take(Some(1), now), Ok(2), "each subscription has its own");
        assert_eq!(limits.take(Some(0), now + Duration::from_secs(1)), Err(1));
        assert_eq!(limits.take(Some(0), now + Duration::from_secs(4)), Ok(1));
        assert_eq!(limits.take(Some(0), now + Duration::from_secs(900)), Ok(2), "never more than it holds");
    }
}
