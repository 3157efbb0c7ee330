//! Writes one batch: tries again, splits what is too large, sorts out what the store refuses.

use std::time::Duration;

use super::health::Health;
use super::with_jitter;
use crate::store::{Document, Store, StoreError};

/// How long a batch is held while the store takes nothing. Then it is given back, as another worker may reach it.
pub(super) const HOLD: Duration = Duration::from_secs(60);
/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The documents that the store refuses for good, by their place in the batch, with its own words. All others are
    /// stored.
    pub(super) refused: Vec<(usize, String)>,
}

/// Why a batch is not settled.
#[derive(Debug)]
pub(super) enum Unsettled {
    /// The store is down for longer than the batch is held.
    Down,
    /// The store cannot be used: no other try can help.
    Hopeless(String),
}

/// Documents of a batch, with their places in it.
struct Part {
    documents: Vec<Document>,
    places: Vec<usize>,
}

impl Part {
    fn halves(mut self) -> [Self; 2] {
        let middle = self.documents.len() / 2;
        let second = Self { documents: self.documents.split_off(middle), places: self.places.split_off(middle) };
        [self, second]
    }

    fn only(self, wanted: &[(usize, String)]) -> Self {
        let mut part = Self { documents: Vec::with_capacity(wanted.len()), places: Vec::with_capacity(wanted.len()) };
        for (at, (document, place)) in self.documents.into_iter().zip(self.places).enumerate() {
            if wanted.iter().any(|(wanted, _)| *wanted == at) {
                part.documents.push(document);
                part.places.push(place);
            }
        }
        part
    }
}

/// Writes a batch until each document is stored or refused.
pub(super) async fn write(
    store: &dyn Store,
    documents: Vec<Document>,
    health: &Health,
    patience: Duration,
) -> Result<Settled, Unsettled> {
    let hold = HOLD.min(patience);
    let mut settled = Settled::default();
    let places = (0..documents.len()).collect();
    let mut parts = vec![Part { documents, places }];
    let mut pause = FIRST_PAUSE;
    while let Some(part) = parts.pop() {
        let count = part.documents.len();
        let (waiting, wait) = match store.write(&part.documents).await {
            Ok(written) => {
                for (at, reason) in &written.refused {
                    if let Some(place) = part.places.get(*at) {
                        settled.refused.push((*place, reason.clone()));
                    }
                }
                let again = part.only(&written.again);
                if again.documents.len() < count {
                    health.good();
                    pause = FIRST_PAUSE;
                }
                let Some((_, reason)) = written.again.first().filter(|_| !again.documents.is_empty()) else { continue };
                tracing::debug!(store = store.place(), documents = again.documents.len(), reason, "documents wait");
                let waiting = health.bad(reason);
                parts.push(again);
                (waiting, None)
            }
            Err(StoreError::TooLarge(_)) if count > 1 => {
                parts.extend(part.halves());
                continue;
            }
            Err(StoreError::TooLarge(reason)) => {
                health.good();
                settled.refused.extend(part.places.first().map(|place| (*place, reason)));
                continue;
            }
            Err(StoreError::Permanent(reason)) => return Err(Unsettled::Hopeless(reason)),
            Err(StoreError::Transient { reason, wait }) => {
                tracing::warn!(store = store.place(), reason, "the store takes nothing now");
                parts.push(part);
                (health.bad(&reason), wait)
            }
        };
        if waiting > hold {
            return Err(Unsettled::Down);
        }
        tokio::time::sleep(wait.unwrap_or_else(|| with_jitter(pause)).min(HOLD)).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    Ok(settled)
}
