//! What a unit read, and what not: shared by the clouds.

use proto::coverage::{Coverage, State};

/// The id of the unit that reads a page of a list. One that was begun again has other ids than before.
#[must_use]
pub fn unit_id(resource_type: &str, scope: &str, restart: u32, page: u32) -> String {
    let mut id = resource_type.to_owned();
    if !scope.is_empty() {
        id = format!("{id}/{scope}");
    }
    if restart > 0 {
        id = format!("{id}/r{restart}");
    }
    format!("{id}/p{page}")
}

/// Counts what was read, and what was not.
#[derive(Debug, Default)]
pub struct Tally {
    read: u64,
    lost: u64,
    /// Why what is lost is lost, in the worst case.
    worst: Option<State>,
    is_cut: bool,
    left_out: Option<u64>,
    limited: bool,
    reason: Option<String>,
}

impl Tally {
    /// A resource was read.
    pub fn read(&mut self) {
        self.read += 1;
    }

    /// Something in an answer cannot be understood: it is lost, and nothing else.
    pub fn lost(&mut self, reason: String) {
        tracing::warn!(reason, "left out a part of an answer");
        self.miss(State::Partial, reason);
    }

    /// A resource is known and could not be read.
    pub fn not_read(&mut self, state: State, reason: String) {
        tracing::warn!(reason, state = state.as_str(), "a resource is not read");
        self.miss(state, reason);
    }

    fn miss(&mut self, state: State, reason: String) {
        self.lost += 1;
        self.worst = self.worst.max(Some(state));
        self.reason.get_or_insert(reason);
    }

    /// The pages that follow are not read: how much is missing is not known.
    pub fn cut(&mut self, reason: String) {
        tracing::warn!(reason, "a list is not read to its end");
        self.is_cut = true;
        self.reason.get_or_insert(reason);
    }

    /// The configuration leaves out the rest: so many on this page, and more if the list goes on.
    pub fn left_out(&mut self, here: u64, goes_on: bool, reason: String) {
        self.limited = true;
        self.left_out = (!goes_on).then_some(here);
        self.reason.get_or_insert(reason);
    }

    /// What is to be known of a list that is complete.
    pub fn note(&mut self, reason: String) {
        self.reason.get_or_insert(reason);
    }

    /// Whether the configuration leaves out something.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// What it means for the lists of the resources that are listed here, before any of them is read: there may be
    /// none, and some may not be known.
    #[must_use]
    pub fn coverage_below(&self, scope: &str, resource_type: &str) -> Coverage {
        let state = match () {
            () if self.is_cut => State::Partial,
            () if self.limited => State::Skipped,
            () => return Coverage::complete(scope, resource_type, 0),
        };
        Coverage { state, reason: self.reason.clone(), ..Coverage::complete(scope, resource_type, 0) }
    }

    /// How many resources were read.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.read
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read == 0 && self.lost == 0 && !self.is_cut && !self.limited && self.reason.is_none()
    }

    /// The coverage that it comes to.
    #[must_use]
    pub fn coverage(self, scope: &str, resource_type: &str) -> Coverage {
        let (state, missing) = match self.worst {
            _ if self.is_cut => (State::Partial, None),
            Some(worst) if self.read == 0 => (worst, (!self.limited).then_some(self.lost)),
            Some(_) => (State::Partial, (!self.limited).then_some(self.lost)),
            None if self.limited => (State::Skipped, self.left_out),
            None => (State::Complete, None),
        };
        Coverage { state, missing, reason: self.reason, ..Coverage::complete(scope, resource_type, self.read) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_say_what_is_read() {
        assert_eq!(unit_id("subscription", "", 0, 2), "subscription/p2");
        assert_eq!(unit_id("nsg", "s", 0, 1), "nsg/s/p1");
        assert_eq!(unit_id("nsg", "s", 1, 1), "nsg/s/r1/p1");
    }

    #[test]
    fn a_tally_says_what_is_missing() {
        let mut tally = Tally::default();
        tally.read();
        assert_eq!(tally.coverage("s", "nsg"), Coverage::complete("s", "nsg", 1));

        let mut tally = Tally::default();
        tally.lost("first".into());
        tally.lost("second".into());
        let coverage = tally.coverage("s", "nsg");
        assert_eq!((coverage.state, coverage.missing), (State::Partial, Some(2)));
        assert_eq!(coverage.reason.as_deref(), Some("first"));

        let mut tally = Tally::default();
        tally.lost("first".into());
        tally.cut("cut".into());
        assert_eq!(tally.coverage("s", "nsg").missing, None);

        let mut tally = Tally::default();
        tally.left_out(3, false, "limit".into());
        let coverage = tally.coverage("s", "nsg");
        assert_eq!((coverage.state, coverage.missing), (State::Skipped, Some(3)));
    }

    #[test]
    fn what_is_denied_one_by_one_is_denied() {
        let mut tally = Tally::default();
        tally.not_read(State::Denied, "403".into());
        tally.not_read(State::Denied, "403".into());
        let coverage = tally.coverage("s", "vm");
        assert_eq!((coverage.state, coverage.missing), (State::Denied, Some(2)));

        let mut tally = Tally::default();
        tally.read();
        tally.not_read(State::Denied, "403".into());
        assert_eq!(tally.coverage("s", "vm").state, State::Partial);
    }
}
