//! Since when a store takes nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Since when a store takes nothing, as one worker sees it. Shared by the batches that are on their way.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failing: Option<Instant>,
    /// Why, in the store's last words.
    reason: String,
    /// How often the store has taken something.
    taken: u64,
    /// The consumer's floor when it was last looked at.
    floor: Option<u64>,
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store has taken something.
    pub(super) fn good(&self) {
        let mut state = self.state();
        *state = State { taken: state.taken + 1, ..State::default() };
    }

    /// How often the store has taken something.
    pub(super) fn taken(&self) -> u64 {
        self.state().taken
    }

    /// The store has taken nothing, and says why.
    pub(super) fn bad(&self, reason: &str) {
        let mut state = self.state();
        reason.clone_into(&mut state.reason);
        state.failing.get_or_insert_with(Instant::now);
    }

    /// For how long it has taken nothing and why, if it does not.
    pub(super) fn failing(&self) -> Option<(Duration, String)> {
        let state = self.state();
        state.failing.map(|since| (since.elapsed(), state.reason.clone()))
    }

    /// Whether it is known where the consumer's floor was when the store began to take nothing.
    pub(super) fn knows_floor(&self) -> bool {
        self.state().floor.is_some()
    }

    /// Notes where the consumer's floor is now. When it moved since the last look, others can reach the store, and
    /// patience begins anew.
    pub(super) fn has_moved(&self, floor: u64) -> bool {
        let mut state = self.state();
        let moved = state.floor.is_some_and(|then| floor > then);
        state.floor = Some(floor);
        if moved {
            state.failing = Some(Instant::now());
        }
        moved
    }
}
