//! lease
use std::time::Duration;
/// How long a lease lives that is not renewed.
pub const TTL: Duration = Duration::from_secs(5);
