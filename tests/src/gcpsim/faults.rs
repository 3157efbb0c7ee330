//! What is to go wrong, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cloudsim::Times;

/// What is wrong with one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The caller may not read there: 403 `PERMISSION_DENIED` with the permission that is missing.
    Denied,
    /// The API is off in the project: 403 `accessNotConfigured`, `SERVICE_DISABLED`.
    ApiDisabled,
    /// Too many requests, in the way of [`Faults::throttling`].
    Throttled,
    /// 500.
    Broken,
    /// The bodies of its pages end in the middle.
    CutOff,
}

/// Where something is wrong. A trouble of a part comes before one of its project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The list of projects.
    ProjectList,
    /// All of a project, by its index. It is listed all the same.
    Project(usize),
    /// One kind of things in a project.
    Part(usize, Part),
}

/// The kinds of things in a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Firewalls.
    Firewalls,
    /// Instances, by zone and aggregated.
    Instances,
    /// The list of zones.
    Zones,
}

/// How Compute Engine says that there were too many requests. Other services always answer 429.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Throttling {
    /// 403 `rateLimitExceeded`, its own way.
    #[default]
    RateLimitExceeded,
    /// 429 `RESOURCE_EXHAUSTED`.
    ResourceExhausted,
}

/// All that can be made to go wrong. The default is a cloud without faults.
///
/// "Every N-th" counts the API requests that came with a good token, from the start or from the last
/// change of the faults; 0 is never. A request that would be both throttled and failed is throttled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How long each answer of an API takes.
    pub latency: Duration,
    /// Every N-th request is throttled.
    pub throttle_every: u64,
    /// How Compute Engine throttles.
    pub throttling: Throttling,
    /// The seconds in `Retry-After` of a throttled answer; Google mostly sends none.
    pub retry_after: Option<u64>,
    /// Every N-th request is answered 500, 503 and 502 (in HTML) by turns.
    pub fail_every: u64,
    /// The body of every N-th request is cut off, if it is a page.
    pub cut_off_every: u64,
    /// The body of every N-th request stalls in the middle, if it is a page.
    pub stall_every: u64,
    /// How long a body stalls.
    pub stall_for: Duration,
    /// After so many requests, every token issued until then has expired. Happens once.
    pub expire_tokens_after: Option<u64>,
    /// The token endpoint and the metadata server answer 503.
    pub fail_token_requests: Times,
    /// Good page tokens are refused.
    pub refuse_page_tokens: Times,
    /// Each page begins with so many items of the page before, as if as many new ones had come in front
    /// of the list meanwhile.
    pub page_overlap: usize,
    /// Every N-th firewall and instance of a project is odd: fields are missing or of a wrong type, or
    /// it is no object at all.
    pub odd_every: usize,
    /// Every N-th project is odd.
    pub odd_projects_every: usize,
    /// The zones that do not answer, by name.
    pub unreachable_zones: BTreeSet<String>,
    /// The accounts that may sign in and read nothing, by address.
    pub blind: BTreeSet<String>,
    /// What is wrong with single places.
    pub places: BTreeMap<Place, (Trouble, Times)>,
}

impl Faults {
    /// Gives one place a trouble, in place of the one it had.
    pub fn at(&mut self, place: Place, trouble: Trouble, times: Times) {
        self.places.insert(place, (trouble, times));
    }

    /// Denies a whole project for good.
    pub fn deny(&mut self, project: usize) {
        self.at(Place::Project(project), Trouble::Denied, Times::Always);
    }

    /// Denies one kind of things in a project for good.
    pub fn deny_part(&mut self, project: usize, part: Part) {
        self.at(Place::Part(project, part), Trouble::Denied, Times::Always);
    }

    /// Switches Compute Engine off in a project for good.
    pub fn disable_api(&mut self, project: usize) {
        self.at(Place::Project(project), Trouble::ApiDisabled, Times::Always);
    }

    /// Whether nothing can be read there, however often one tries.
    pub(super) fn is_shut(&self, project: usize, part: Part) -> bool {
        [Place::Part(project, part), Place::Project(project)]
            .iter()
            .any(|place| matches!(self.places.get(place), Some((_, Times::Always))))
    }

    /// Whether the thing with this index (from 0) of a list is odd.
    pub(super) fn is_odd(&self, index: usize) -> bool {
        self.odd_every != 0 && (index + 1).is_multiple_of(self.odd_every)
    }

    /// The same for the list of projects.
    pub(super) fn is_odd_project(&self, index: usize) -> bool {
        self.odd_projects_every != 0 && (index + 1).is_multiple_of(self.odd_projects_every)
    }
}

/// What happens to one API request that came with a good token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// It is answered.
    Pass,
    /// It is answered, and the body of the answer is cut off.
    CutOff,
    /// It is answered, and the body of the answer stalls.
    Stall,
    /// Too many requests.
    Throttle,
    /// 500.
    Fail,
    /// 503.
    Unavailable,
    /// 502.
    BadGateway,
}

/// The faults and the requests counted towards them.
#[derive(Default)]
pub(super) struct Gate {
    faults: Faults,
    passed: u64,
}

impl Gate {
    pub(super) fn new(faults: Faults) -> Self {
        Self { faults, passed: 0 }
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Counting begins anew, so that a test can say which request will be hit.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults);
        self.passed = 0;
    }

    /// Counts a request. The second value says that all tokens expire after it.
    pub(super) fn pass(&mut self) -> (Passage, bool) {
        self.passed += 1;
        let faults = &mut self.faults;
        let expire = faults.expire_tokens_after.is_some_and(|after| self.passed >= after);
        if expire {
            faults.expire_tokens_after = None;
        }
        let is_nth = |every: u64| every != 0 && self.passed.is_multiple_of(every);
        let passage = if is_nth(faults.throttle_every) {
            Passage::Throttle
        } else if is_nth(faults.fail_every) {
            match (self.passed / faults.fail_every) % 3 {
                1 => Passage::Fail,
                2 => Passage::Unavailable,
                _ => Passage::BadGateway,
            }
        } else if is_nth(faults.cut_off_every) {
            Passage::CutOff
        } else if is_nth(faults.stall_every) {
            Passage::Stall
        } else {
            Passage::Pass
        };
        (passage, expire)
    }

    /// The trouble that a request to one of these places meets; the first that has one counts.
    pub(super) fn meet_trouble(&mut self, places: &[Place]) -> Option<Trouble> {
        places.iter().find_map(|place| {
            let (trouble, times) = self.faults.places.get_mut(place)?;
            times.take().then_some(*trouble)
        })
    }

    /// Whether a good page token is refused now.
    pub(super) fn refuse_page_token(&mut self) -> bool {
        self.faults.refuse_page_tokens.take()
    }

    /// Whether a request for a token fails now.
    pub(super) fn fail_token_request(&mut self) -> bool {
        self.faults.fail_token_requests.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_take_turns_and_throttling_comes_first() {
        let mut gate = Gate::new(Faults { fail_every: 2, throttle_every: 8, ..Faults::default() });
        let passages: Vec<Passage> = (0..8).map(|_| gate.pass().0).collect();
        assert_eq!(
            passages,
            [
                Passage::Pass,
                Passage::Fail,
                Passage::Pass,
                Passage::Unavailable,
                Passage::Pass,
                Passage::BadGateway,
                Passage::Pass,
                Passage::Throttle
            ]
        );
    }

    #[test]
    fn a_part_has_its_own_trouble_before_its_project_s() {
        let mut gate = Gate::default();
        gate.change(|faults| {
            faults.deny(1);
            faults.at(Place::Part(1, Part::Zones), Trouble::Broken, Times::Next(1));
        });
        let places = [Place::Part(1, Part::Zones), Place::Project(1)];
        assert_eq!(gate.meet_trouble(&places), Some(Trouble::Broken));
        assert_eq!(gate.meet_trouble(&places), Some(Trouble::Denied));
        assert_eq!(gate.meet_trouble(&[Place::Part(0, Part::Zones), Place::Project(0)]), None);
    }
}
