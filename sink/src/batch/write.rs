//! Writes one batch: tries again, splits what is too large, sorts out what the store refuses.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::health::Health;
use super::with_jitter;
use crate::store::{Document, Store, StoreError};

/// How long a batch is held while the store takes nothing. Then it is given back, as another worker may reach it.
pub(super) const HOLD: Duration = Duration::from_secs(60);
/// How often a batch is tried that nothing is taken of, before its halves are, as one document may be to blame.
const TRIES: u32 = 5;
/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The documents that the store refuses for good, by their place in the batch, with its own words. All others are
    /// stored.
    pub(super) refused: Vec<(usize, String)>,
    /// How often something of it was written again.
    pub(super) retries: u64,
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
    tries: u32,
    /// Since when nothing of it was taken.
    stuck: Option<Instant>,
}

impl Part {
    fn new(documents: Vec<Document>, places: Vec<usize>) -> Self {
        Self { documents, places, tries: 0, stuck: None }
    }

    fn halves(mut self) -> [Self; 2] {
        let middle = self.documents.len() / 2;
        let second = Self::new(self.documents.split_off(middle), self.places.split_off(middle));
        [Self::new(self.documents, self.places), second]
    }

    /// Takes note of a try that took nothing.
    fn note_failure(&mut self) {
        self.tries += 1;
        self.stuck.get_or_insert_with(Instant::now);
    }

    /// Whether nothing of it was taken for so long.
    fn is_stuck_for(&self, time: Duration) -> bool {
        self.stuck.is_some_and(|since| since.elapsed() > time)
    }

    fn only(self, wanted: &[(usize, String)]) -> Self {
        let mut part = Self::new(Vec::with_capacity(wanted.len()), Vec::with_capacity(wanted.len()));
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
    let taken_before = health.taken();
    let mut settled = Settled::default();
    let places = (0..documents.len()).collect();
    // What failed stands behind the others: they shall not wait for it.
    let mut parts = VecDeque::from([Part::new(documents, places)]);
    let mut pause = FIRST_PAUSE;
    // How long the store was down before is no reason to give this batch back at once: a store that can be reached, and
    // takes nothing (its disk is full), would be asked without a pause, and the messages delivered again and again.
    let mut down: Option<Instant> = None;
    while let Some(mut part) = parts.pop_front() {
        let count = part.documents.len();
        let wait = match store.write(&part.documents).await {
            Ok(written) => {
                for (at, reason) in &written.refused {
                    if let Some(place) = part.places.get(*at) {
                        settled.refused.push((*place, reason.clone()));
                    }
                }
                let (tries, stuck) = (part.tries, part.stuck);
                let mut again = part.only(&written.again);
                if again.documents.len() < count {
                    health.good();
                    (pause, down) = (FIRST_PAUSE, None);
                } else {
                    (again.tries, again.stuck) = (tries, stuck);
                    again.note_failure();
                }
                let Some((_, reason)) = written.again.first().filter(|_| !again.documents.is_empty()) else { continue };
                tracing::debug!(store = store.place(), documents = again.documents.len(), reason, "documents wait");
                if again.is_stuck_for(patience) && health.taken() > taken_before {
                    let reason = format!("{reason}; it was so for longer than `patience` allows");
                    settled.refused.extend(again.places.into_iter().map(|place| (place, reason.clone())));
                    continue;
                }
                health.bad(reason);
                parts.push_back(again);
                None
            }
            Err(StoreError::TooLarge(_)) if count > 1 => {
                parts.extend(part.halves());
                continue;
            }
            Err(StoreError::TooLarge(reason)) => {
                health.good();
                down = None;
                settled.refused.extend(part.places.first().map(|place| (*place, reason)));
                continue;
            }
            Err(StoreError::Permanent(reason)) => return Err(Unsettled::Hopeless(reason)),
            Err(StoreError::Transient { reason, wait }) => {
                tracing::warn!(store = store.place(), reason, "the store takes nothing now");
                part.note_failure();
                let is_due = if count > 1 {
                    part.tries >= TRIES
                } else {
                    part.is_stuck_for(hold) && health.taken() > taken_before
                };
                // It can be reached, and does not take this: one of the documents may be to blame.
                if is_due && store.connect().await.is_ok() {
                    if count == 1 {
                        let reason = format!("the store took others, and not this one, again and again: {reason}");
                        settled.refused.extend(part.places.first().map(|place| (*place, reason)));
                        continue;
                    }
                    pause = FIRST_PAUSE;
                    parts.extend(part.halves());
                } else {
                    parts.push_back(part);
                }
                health.bad(&reason);
                wait
            }
        };
        if down.get_or_insert_with(Instant::now).elapsed() > hold {
            return Err(Unsettled::Down);
        }
        settled.retries += 1;
        tokio::time::sleep(wait.unwrap_or_else(|| with_jitter(pause)).min(HOLD)).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    Ok(settled)
}
