//! What an alert is: something that tells people, or what stands for them, of a digest.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::digest::Digest;

/// Tells of a digest. It keeps in mind whom it has told already, so that another try tells nobody twice.
#[async_trait]
pub trait Alert: Send + Sync {
    /// Tells all whom it has not told yet.
    ///
    /// # Errors
    /// When somebody could not be told. All others have been.
    async fn deliver(&mut self, digest: &Arc<Digest>) -> Result<(), AlertError>;

    /// How many have been told: of several tries, those that come further are not in vain.
    fn told(&self) -> u64;

    /// Whom it tells, in words for people.
    fn place(&self) -> String;
}

/// Why somebody could not be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlertError {
    /// No other try can help.
    #[error("{0}")]
    Permanent(String),
    /// It may go well later.
    #[error("{reason}")]
    Transient {
        /// What failed.
        reason: String,
        /// How long the receiver asks to wait.
        wait: Option<Duration>,
    },
}

impl AlertError {
    /// A transient one.
    pub fn transient(reason: impl Into<String>) -> Self {
        Self::Transient { reason: reason.into(), wait: None }
    }
}

/// The first pause between two tries; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Delivers, with tries until this long after the last one that came further.
///
/// # Errors
/// Why somebody could not be told, for people.
pub async fn with_patience(alert: &mut dyn Alert, digest: &Arc<Digest>, patience: Duration) -> Result<(), String> {
    try_and_try(alert, digest, patience, FIRST_PAUSE).await
}

async fn try_and_try(
    alert: &mut dyn Alert,
    digest: &Arc<Digest>,
    patience: Duration,
    first_pause: Duration,
) -> Result<(), String> {
    let (mut since, mut told, mut pause) = (Instant::now(), alert.told(), first_pause);
    loop {
        let error = match alert.deliver(digest).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let (reason, wait) = match error {
            AlertError::Permanent(reason) => return Err(reason),
            AlertError::Transient { reason, wait } => (reason, wait),
        };
        if alert.told() > told {
            (since, told, pause) = (Instant::now(), alert.told(), first_pause);
        }
        let left = patience.saturating_sub(since.elapsed());
        if let Some(asked) = wait.filter(|asked| *asked > left) {
            let (asked, patience) = (asked.as_secs(), patience.as_secs());
            return Err(format!("{reason}; given up, as it asks to wait {asked} s (`patience` is {patience} s)"));
        }
        let wait = wait.unwrap_or_default().max(pause);
        if wait > left {
            return Err(format!("{reason}; given up after {} s", since.elapsed().as_secs()));
        }
        tracing::warn!(reason, wait = wait.as_secs_f32(), "an alert could not be sent; it is tried again");
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(Vec<Result<(), AlertError>>, u64);

    #[async_trait]
    impl Alert for Script {
        async fn deliver(&mut self, _: &Arc<Digest>) -> Result<(), AlertError> {
            let next = self.0.remove(0);
            if matches!(&next, Err(AlertError::Transient { reason, .. }) if reason == "further") {
                self.1 += 1;
            }
            next
        }

        fn told(&self) -> u64 {
            self.1
        }

        fn place(&self) -> String {
            String::new()
        }
    }

    async fn run(script: Vec<Result<(), AlertError>>, patience: u64) -> (Result<(), String>, u128) {
        let mut alert = Script(script, 0);
        let begun = Instant::now();
        let digest = Arc::new(Digest::of_nothing().unwrap());
        let patience = Duration::from_millis(patience);
        let result = try_and_try(&mut alert, &digest, patience, Duration::from_millis(1)).await;
        (result, begun.elapsed().as_millis())
    }

    #[tokio::test]
    async fn tries_end_by_time_and_at_once_when_they_cannot_help() {
        let no = || Err(AlertError::transient("away"));
        assert_eq!(run(vec![no(), no(), Ok(())], 60_000).await.0, Ok(()));
        let permanent = run(vec![no(), Err(AlertError::Permanent("never".into()))], 60_000).await.0;
        assert_eq!(permanent, Err("never".into()));
        let (given_up, _) = run((0..100).map(|_| no()).collect(), 50).await;
        assert!(given_up.unwrap_err().starts_with("away; given up after "));
        // A try that came further begins the time anew.
        let mut script: Vec<_> = (0..100).map(|_| Err(AlertError::transient("further"))).collect();
        script.push(Ok(()));
        assert_eq!(run(script, 60_000).await.0, Ok(()));
    }

    #[tokio::test]
    async fn who_asks_for_time_gets_it_as_far_as_there_is_any() {
        let asks = |wait| Err(AlertError::Transient { reason: "busy".into(), wait: Some(Duration::from_millis(wait)) });
        let (refused, took) = run(vec![asks(100_000)], 60_000).await;
        assert!(refused.unwrap_err().contains("it asks to wait 100 s (`patience` is 60 s)") && took < 60_000);
        let (waited, took) = run(vec![asks(100), Ok(())], 60_000).await;
        assert!(waited.is_ok() && took >= 100, "{took}");
    }
}
