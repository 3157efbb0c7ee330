//! What is to go wrong, and when.

use std::collections::BTreeMap;
use std::time::Duration;

/// How often something is to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// Not at all.
    #[default]
    Never,
    /// At the next so many occasions.
    Next(u32),
    /// At every occasion.
    Always,
}

impl Times {
    /// Whether it happens now; uses up one of [`Times::Next`].
    pub(crate) fn take(&mut self) -> bool {
        match self {
            Self::Never | Self::Next(0) => false,
            Self::Next(left) => {
                *left -= 1;
                true
            }
            Self::Always => true,
        }
    }
}

/// What is wrong with one subscription. It is listed all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The client may not read in it: 403 `AuthorizationFailed`.
    Forbidden,
    /// 429 `SubscriptionRequestsThrottled`.
    Throttled,
    /// 500 `InternalServerError`.
    Broken,
    /// The bodies of its pages end in the middle.
    CutOff,
    /// Its first page has a `nextLink` that leads to this origin (`https://host:port`), even if nothing
    /// comes after the page. A client that follows it hands its token to a stranger.
    ForeignNextLink(String),
}

/// All that can be made to go wrong at Resource Manager. The default is a cloud without faults.
///
/// "Every N-th" counts the requests that came with a good token, from the start or from the last change
/// of the faults; 0 is never. A request that would be both throttled and failed is throttled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// How long each answer takes.
    pub latency: Duration,
    /// Every N-th request is answered 429.
    pub throttle_every: u64,
    /// The seconds in `Retry-After` of an answer 429.
    pub retry_after: u64,
    /// Every N-th request is answered 500 and 503 by turns.
    pub fail_every: u64,
    /// The body of every N-th request is cut off, if it is a page.
    pub cut_off_every: u64,
    /// After so many requests, every token issued until then has expired. Happens once.
    pub expire_tokens_after: Option<u64>,
    /// Good page tokens are refused.
    pub refuse_page_tokens: Times,
    /// What is wrong with single subscriptions, by their index in the list.
    pub subscriptions: BTreeMap<usize, (Trouble, Times)>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            throttle_every: 0,
            retry_after: 1,
            fail_every: 0,
            cut_off_every: 0,
            expire_tokens_after: None,
            refuse_page_tokens: Times::Never,
            subscriptions: BTreeMap::new(),
        }
    }
}

impl Faults {
    /// Forbids the first `count` subscriptions.
    pub fn forbid(&mut self, count: usize) {
        for subscription in 0..count {
            self.trouble(subscription, Trouble::Forbidden, Times::Always);
        }
    }

    /// Gives one subscription a trouble, in place of the one it had.
    pub fn trouble(&mut self, subscription: usize, trouble: Trouble, times: Times) {
        self.subscriptions.insert(subscription, (trouble, times));
    }

    /// Whether the subscription is forbidden for good.
    pub(super) fn forbids(&self, subscription: usize) -> bool {
        matches!(self.subscriptions.get(&subscription), Some((Trouble::Forbidden, Times::Always)))
    }
}

/// What happens to one request that came with a good token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// It is answered.
    Pass,
    /// It is answered, and the body of the answer is cut off.
    CutOff,
    /// 429.
    Throttle,
    /// 500.
    Fail,
    /// 503.
    Unavailable,
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
        let expire = self.faults.expire_tokens_after.is_some_and(|after| self.passed >= after);
        if expire {
            self.faults.expire_tokens_after = None;
        }
        let is_nth = |every: u64| every != 0 && self.passed.is_multiple_of(every);
        let passage = if is_nth(self.faults.throttle_every) {
            Passage::Throttle
        } else if is_nth(self.faults.fail_every) {
            if (self.passed / self.faults.fail_every).is_multiple_of(2) { Passage::Unavailable } else { Passage::Fail }
        } else if is_nth(self.faults.cut_off_every) {
            Passage::CutOff
        } else {
            Passage::Pass
        };
        (passage, expire)
    }

    /// The trouble that a request to the subscription meets.
    pub(super) fn meet_trouble(&mut self, subscription: usize) -> Option<Trouble> {
        let (trouble, times) = self.faults.subscriptions.get_mut(&subscription)?;
        times.take().then(|| trouble.clone())
    }

    /// Whether a good page token is refused now.
    pub(super) fn refuse_page_token(&mut self) -> bool {
        self.faults.refuse_page_tokens.take()
    }
}
