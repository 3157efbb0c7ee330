//! What all stores of a process together hold of documents: so many bytes, whatever their number and their speed.
//!
//! Each lane has a part that no other can take, and beside it may hold what nobody has a claim to; so a store that has
//! come to a stand holds up no other. A lane that holds nothing is never refused: a message that is larger than its part
//! passes, alone of its lane. And nothing waits in a circle, as what is held needs no room to be written.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// What the stores of this process may hold, in bytes. They make requests of a part of it, and the process, its
/// connections and a database's cache need several times as much again.
const OF_PROCESS: usize = 24 * 1024 * 1024;

/// A number of bytes that lanes share.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
    state: Mutex<State>,
    freed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// What each lane holds.
    lanes: BTreeMap<u64, usize>,
    set_aside: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { bytes, state: Mutex::default(), freed: watch::Sender::new(()) })
    }

    /// The one of this process.
    pub(crate) fn of_process() -> Arc<Self> {
        static BUDGET: LazyLock<Arc<Budget>> = LazyLock::new(|| Budget::new(OF_PROCESS));
        Arc::clone(&BUDGET)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane's place among the others, for as long as it is kept.
    pub(crate) fn lane(self: &Arc<Self>) -> Share {
        let mut state = self.state();
        let lane = state.next;
        state.next += 1;
        state.lanes.insert(lane, 0);
        Share { budget: Arc::clone(self), lane }
    }

    /// Takes away what something else than a lane holds, for as long as this is kept: a file store's buffers.
    pub(crate) fn set_aside(self: &Arc<Self>, bytes: usize) -> SetAside {
        self.state().set_aside += bytes;
        SetAside { budget: Arc::clone(self), bytes }
    }

    /// What lanes may hold together. However much is set aside, they get along.
    fn of_lanes(&self, state: &State) -> usize {
        self.bytes.saturating_sub(state.set_aside).max(self.bytes / 4)
    }

    /// Half of all is divided among the lanes; the other half is for those who can use it.
    fn guaranteed(&self, state: &State) -> usize {
        self.of_lanes(state) / 2 / state.lanes.len().max(1)
    }

    fn has_room(&self, state: &State, lane: u64, bytes: usize) -> bool {
        let held = state.lanes.get(&lane).copied().unwrap_or_default();
        let guaranteed = self.guaranteed(state);
        if held == 0 || held + bytes <= guaranteed {
            return true;
        }
        let others = state.lanes.iter().filter(|(other, _)| **other != lane);
        let spoken_for: usize = others.map(|(_, held)| guaranteed.max(*held)).sum();
        held + bytes + spoken_for <= self.of_lanes(state)
    }
}

/// A lane's place in a budget.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    lane: u64,
}

impl Share {
    /// Room for so many bytes, if there is any.
    pub(crate) fn take(&self, bytes: usize) -> Option<Room> {
        let mut state = self.budget.state();
        if !self.budget.has_room(&state, self.lane, bytes) {
            return None;
        }
        *state.lanes.entry(self.lane).or_default() += bytes;
        Some(Room { budget: Arc::clone(&self.budget), lane: self.lane, bytes })
    }

    /// The bytes that no other lane can take, as long as no lane joins.
    pub(crate) fn guaranteed(&self) -> usize {
        self.budget.guaranteed(&self.budget.state())
    }

    /// Tells when any lane has given back some.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.budget.freed.subscribe()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.state().lanes.remove(&self.lane);
        self.budget.freed.send_replace(());
    }
}

/// What one message takes of a budget, until this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Arc<Budget>,
    lane: u64,
    bytes: usize,
}

impl Room {
    /// Takes note of how much it is in truth.
    pub(crate) fn correct(&mut self, bytes: usize) {
        self.count(bytes);
        if bytes < self.bytes {
            self.budget.freed.send_replace(());
        }
        self.bytes = bytes;
    }

    fn count(&self, bytes: usize) {
        // A lane that has ended holds nothing any more.
        if let Some(held) = self.budget.state().lanes.get_mut(&self.lane) {
            *held = (*held + bytes).saturating_sub(self.bytes);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.count(0);
        self.budget.freed.send_replace(());
    }
}

/// What is set aside of a budget, until this is dropped.
#[derive(Debug)]
pub(crate) struct SetAside {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for SetAside {
    fn drop(&mut self) {
        self.budget.state().set_aside -= self.bytes;
        self.budget.freed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes as much as there is, in pieces.
    fn fill(share: &Share, piece: usize) -> Vec<Room> {
        std::iter::from_fn(|| share.take(piece)).collect()
    }

    #[test]
    fn a_lane_that_never_gives_back_leaves_the_others_their_part() {
        let budget = Budget::new(1_200);
        let lanes = [budget.lane(), budget.lane(), budget.lane()];
        assert!(lanes.iter().all(|lane| lane.guaranteed() == 200));
        let greedy = fill(&lanes[0], 10);
        assert_eq!(greedy.len(), 80, "all but what the two others can claim");
        let (one, other) = (fill(&lanes[1], 10), fill(&lanes[2], 10));
        assert_eq!((one.len(), other.len()), (20, 20));
        drop(one);
        assert!(lanes[0].take(10).is_none(), "what another can claim is not lent again");
        assert_eq!(fill(&lanes[1], 10).len(), 20);
    }

    #[test]
    fn what_is_larger_than_all_passes_alone() {
        let budget = Budget::new(1_000);
        let (one, other) = (budget.lane(), budget.lane());
        let _held = fill(&other, 100);
        let large = one.take(5_000).expect("a lane that holds nothing gets room");
        assert!(one.take(1).is_none());
        assert!(other.take(1).is_none());
        drop(large);
        assert!(one.take(1).is_some());
    }

    #[test]
    fn what_is_set_aside_is_not_for_lanes_but_leaves_them_some() {
        let budget = Budget::new(1_000);
        let lane = budget.lane();
        let aside = budget.set_aside(400);
        assert_eq!(fill(&lane, 10).len(), 60);
        let more = budget.set_aside(10_000);
        assert_eq!(fill(&lane, 10).len(), 25);
        drop((aside, more));
        assert_eq!(fill(&lane, 10).len(), 100);
    }

    #[test]
    fn an_estimate_is_corrected() {
        let budget = Budget::new(1_000);
        let lane = budget.lane();
        let mut room = lane.take(100).unwrap();
        room.correct(990);
        assert!(lane.take(20).is_none());
        room.correct(10);
        let rest = lane.take(990).unwrap();
        assert!(lane.take(1).is_none());
        drop(room);
        drop(rest);
        assert_eq!(fill(&lane, 10).len(), 100);
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_it() {
        let budget = Budget::new(1_000);
        let (waiting, other) = (budget.lane(), budget.lane());
        let _own = waiting.take(250).unwrap();
        let lent = fill(&other, 750);
        let mut freed = waiting.freed();
        freed.mark_unchanged();
        assert!(waiting.take(100).is_none());
        // Between the look and the wait.
        drop(lent);
        tokio::time::timeout(std::time::Duration::from_secs(5), freed.changed()).await.expect("heard of").unwrap();
        assert!(waiting.take(100).is_some());
        drop(other);
        assert!(waiting.take(700).is_some(), "a lane that has ended claims nothing");
    }

    proptest! {
        /// However lanes take and give back: what they hold stays within the budget, but for what passes alone, and each
        /// can always have its part.
        #[test]
        fn no_more_is_held_than_there_is(steps in prop::collection::vec((0..4_usize, 1..300_usize, any::<bool>()), 1..200)) {
            let budget = Budget::new(2_000);
            let lanes: Vec<Share> = (0..4).map(|_| budget.lane()).collect();
            let mut held: Vec<Vec<Room>> = (0..4).map(|_| Vec::new()).collect();
            for (lane, bytes, takes) in steps {
                if takes {
                    held[lane].extend(lanes[lane].take(bytes));
                } else if !held[lane].is_empty() {
                    held[lane].swap_remove(0);
                }
                let all: usize = held.iter().map(|rooms| {
                    let bytes: usize = rooms.iter().map(|room| room.bytes).sum();
                    if rooms.len() == 1 { bytes.min(250) } else { bytes }
                }).sum();
                prop_assert!(all <= 2_000, "{all} bytes are held");
                for (share, rooms) in lanes.iter().zip(&held) {
                    let bytes: usize = rooms.iter().map(|room| room.bytes).sum();
                    if let Some(left) = 250_usize.checked_sub(bytes) {
                        prop_assert!(share.take(left).is_some());
                    }
                }
            }
        }
    }
}
