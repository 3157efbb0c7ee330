//! Leases: at most one worker at a time does what a lease stands for.
//!
//! A lease is an optimisation, never a proof: its holder may sleep past its end and wake. So each effect is made under
//! the lease's revision (the fencing token) and checked where it lands.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Bucket, BusError, BusErrorKind, SharedBus};

/// How long a lease lives that is not renewed.
pub const TTL: Duration = Duration::from_secs(5);
/// How often its holder renews it.
pub const RENEW_EVERY: Duration = Duration::from_millis(1500);

/// A lease that this worker holds. It renews itself until it is released or dropped.
#[derive(Debug)]
pub struct Lease {
    bus: SharedBus,
    key: String,
    revision: watch::Receiver<Option<u64>>,
    renewal: tokio::task::JoinHandle<()>,
}

impl Lease {
    /// Takes the lease, if nobody holds it.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub async fn try_acquire(bus: &SharedBus, key: &str, holder: &str) -> Result<Option<Self>, BusError> {
        let created = Instant::now();
        // Two workers may have one name; who holds a lease must be known all the same.
        let holder = &format!("{holder} {:016x}", RandomState::new().hash_one(key));
        match bus.kv_create(Bucket::Leases, key, holder.to_owned().into(), None).await {
            Ok(revision) => Ok(Some(Self::hold(Arc::clone(bus), key, holder, revision, created))),
            Err(error) if error.kind() == BusErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn hold(bus: SharedBus, key: &str, holder: &str, revision: u64, created: Instant) -> Self {
        let (sender, receiver) = watch::channel(Some(revision));
        let renewal = Renewal {
            bus: Arc::clone(&bus),
            key: key.to_owned(),
            holder: holder.to_owned(),
            revision,
            renewed: created,
            told: sender,
        };
        Self { bus, key: key.to_owned(), revision: receiver, renewal: tokio::spawn(renewal.run()) }
    }

    /// The fencing token: the revision under which the lease is held now; `None` when it is lost.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        *self.revision.borrow()
    }

    /// Waits until the lease is lost.
    pub async fn lost(&mut self) {
        // An error means that the renewal has ended, which it does only when the lease is lost.
        let _ = self.revision.wait_for(Option::is_none).await;
    }

    /// Asks the broker whether the lease is still ours, before an effect that must not happen twice. Returns the
    /// fencing token.
    ///
    /// # Errors
    /// [`BusErrorKind::Conflict`] when it is lost, or when the broker cannot be asked.
    pub async fn check(&self) -> Result<u64, BusError> {
        let lost = || BusError::new(BusErrorKind::Conflict, format!("the lease {} is lost", self.key));
        // The renewal may change the revision between the two looks: then look again.
        for _ in 0..3 {
            let held = self.revision().ok_or_else(lost)?;
            let there = self.bus.kv_get(Bucket::Leases, &self.key).await?;
            if there.is_some_and(|entry| entry.revision == held) && self.revision() == Some(held) {
                return Ok(held);
            }
        }
        Err(lost())
    }

    /// Gives the lease up, so that another can take it at once.
    pub async fn release(self) {
        self.renewal.abort();
        // Whoever slept past the end of its lease must not end another's.
        if self.check().await.is_ok()
            && let Err(error) = self.bus.kv_delete(Bucket::Leases, &self.key).await
        {
            tracing::debug!(%error, key = self.key, "cannot release the lease; it ends by itself");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl Renewal {
    /// A renewal may have arrived whose answer got lost: then the entry is ours, under a revision that we do not know.
    async fn adopt(&mut self) -> bool {
        let there = self.bus.kv_get(Bucket::Leases, &self.key);
        match tokio::time::timeout_at(self.renewed + TTL, there).await {
            Ok(Ok(Some(entry))) if entry.value == self.holder.as_bytes() => {
                self.revision = entry.revision;
                self.told.send_replace(Some(entry.revision));
                true
            }
            _ => false,
        }
    }
}

struct Renewal {
    bus: SharedBus,
    key: String,
    holder: String,
    revision: u64,
    renewed: Instant,
    told: watch::Sender<Option<u64>>,
}

impl Renewal {
    async fn run(mut self) {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let asked = Instant::now();
            let value = self.holder.clone().into();
            let renewal = self.bus.kv_update(Bucket::Leases, &self.key, value, self.revision);
            match tokio::time::timeout_at(self.renewed + TTL, renewal).await {
                Ok(Ok(revision)) => {
                    self.revision = revision;
                    self.renewed = asked;
                    self.told.send_replace(Some(revision));
                }
                Ok(Err(error)) if error.is_transient() && self.renewed.elapsed() < TTL => {}
                Ok(Err(error)) if error.kind() == BusErrorKind::Conflict && self.adopt().await => {
                    self.renewed = asked;
                }
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(key = self.key, "the lease is lost");
                    self.told.send_replace(None);
                    return;
                }
            }
        }
    }
}
