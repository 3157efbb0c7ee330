//! What is to go wrong, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::kind::Kind;

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

/// How a provider that a subscription does not use, or that is no more, answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// 409 `MissingSubscriptionRegistration`: it is not registered.
    NotRegistered,
    /// 404 `InvalidResourceNamespace`: there is no such provider.
    NoNamespace,
    /// 404 `InvalidResourceType`: it does not have the type any more.
    NoType,
    /// 400 `NoRegisteredProviderFound`: not at this place, or not in this version.
    NoProvider,
    /// 410 `Gone`: it was retired.
    Retired,
}

/// What is wrong with one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// The client may not read it: 403.
    Denied,
    /// It was listed, and is no more: 404 `ResourceNotFound`.
    Gone,
    /// 500, for ever.
    Broken,
}

/// How a thing is not what it ought to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// It has no `properties` (no `attributes`, in a vault).
    NoProperties,
    /// Its `properties` are null.
    NullProperties,
    /// Its `properties` are a text.
    TextProperties,
    /// All of its properties are of another type: texts are numbers, everything else is a text.
    WrongTypes,
    /// It has no `id` and no `name`.
    NoId,
    /// It is not an object at all.
    Text,
}

impl Oddity {
    /// The odd form of a thing.
    pub fn apply(self, mut item: Value) -> Value {
        let Value::Object(object) = &mut item else { return item };
        let name = if object.contains_key("attributes") { "attributes" } else { "properties" };
        match self {
            Self::NoProperties => {
                object.remove(name);
            }
            Self::NullProperties => {
                object.insert(name.to_owned(), Value::Null);
            }
            Self::TextProperties => {
                object.insert(name.to_owned(), "odd".into());
            }
            Self::WrongTypes => {
                if let Some(Value::Object(properties)) = object.get_mut(name) {
                    for value in properties.values_mut() {
                        *value = if value.is_string() { json!(7) } else { json!("odd") };
                    }
                }
            }
            Self::NoId => {
                for name in ["id", "kid", "name"] {
                    object.remove(name);
                }
            }
            Self::Text => return json!("odd"),
        }
        item
    }
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
    /// The answer to every N-th request takes `slow_by` longer.
    pub slow_every: u64,
    /// How much longer a slow answer takes.
    pub slow_by: Duration,
    /// Kinds that may not be read in a subscription: 403, with the permission that is missing.
    pub denied: BTreeSet<(usize, Kind)>,
    /// Providers that a subscription does not have, by their namespace in lower case.
    pub absent: BTreeMap<(usize, String), Absence>,
    /// What is wrong with single resources, by kind and number: with a machine itself
    /// ([`Kind::VirtualMachine`]) or with its instance view alone ([`Kind::InstanceView`]). For what is listed
    /// below a resource ([`Kind::SqlDatabase`], [`Kind::VaultKey`], [`Kind::VaultSecret`]) the number is the
    /// parent's, and its list is meant. A list is not hindered by what is wrong with one of its members.
    pub ailments: BTreeMap<(usize, Kind, usize), Ailment>,
    /// Every N-th resource has the ailment, in all subscriptions; numbers as in `ailments`.
    pub ailing: BTreeMap<Kind, (usize, Ailment)>,
    /// Every N-th thing of a kind is odd, in lists and by itself.
    pub odd: BTreeMap<Kind, (usize, Oddity)>,
    /// Every page but the first begins with the last thing of the page before it, as if something had
    /// been created meanwhile.
    pub shifting_pages: bool,
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
            slow_every: 0,
            slow_by: Duration::ZERO,
            denied: BTreeSet::new(),
            absent: BTreeMap::new(),
            ailments: BTreeMap::new(),
            ailing: BTreeMap::new(),
            odd: BTreeMap::new(),
            shifting_pages: false,
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

    /// Denies a kind in a subscription.
    pub fn deny(&mut self, subscription: usize, kind: Kind) {
        self.denied.insert((subscription, kind));
    }

    /// Takes a provider (`Microsoft.DBforMySQL`) away from a subscription.
    pub fn unregister(&mut self, subscription: usize, namespace: &str, absence: Absence) {
        self.absent.insert((subscription, namespace.to_ascii_lowercase()), absence);
    }

    /// Gives one resource an ailment; for the number see [`Faults::ailments`].
    pub fn ail(&mut self, subscription: usize, kind: Kind, number: usize, ailment: Ailment) {
        self.ailments.insert((subscription, kind, number), ailment);
    }

    /// What is wrong with a resource; for the number see [`Faults::ailments`].
    pub fn ailment(&self, subscription: usize, kind: Kind, number: usize) -> Option<Ailment> {
        let of_all = || {
            let (every, ailment) = self.ailing.get(&kind)?;
            is_nth(number, *every).then_some(*ailment)
        };
        self.ailments.get(&(subscription, kind, number)).copied().or_else(of_all)
    }

    /// How a thing is odd, by its number in the subscription.
    pub fn oddity(&self, kind: Kind, number: usize) -> Option<Oddity> {
        let (every, oddity) = self.odd.get(&kind)?;
        is_nth(number, *every).then_some(*oddity)
    }

    /// Whether a kind can never be read in a subscription: the whole of it is forbidden, or the kind is
    /// denied, or its provider is not there.
    pub fn hides(&self, subscription: usize, kind: Kind) -> bool {
        let above = std::iter::successors(Some(kind), |kind| kind.parent());
        self.forbids(subscription)
            || above.into_iter().any(|kind| {
                let provider = (subscription, kind.namespace().to_ascii_lowercase());
                self.denied.contains(&(subscription, kind)) || self.absent.contains_key(&provider)
            })
    }

    /// The oddities of a kind, if there are any.
    pub(super) fn is_odd(&self, kind: Kind) -> bool {
        self.odd.contains_key(&kind)
    }

    /// Whether the subscription is forbidden for good.
    pub(super) fn forbids(&self, subscription: usize) -> bool {
        matches!(self.subscriptions.get(&subscription), Some((Trouble::Forbidden, Times::Always)))
    }
}

fn is_nth(number: usize, every: usize) -> bool {
    every != 0 && (number + 1).is_multiple_of(every)
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

    /// How much longer the answer to the request counted last takes.
    fn slowness(&self) -> Duration {
        let is_slow = self.faults.slow_every != 0 && self.passed.is_multiple_of(self.faults.slow_every);
        if is_slow { self.faults.slow_by } else { Duration::ZERO }
    }

    /// Counts a request. The second value says that all tokens expire after it, the third how much longer
    /// its answer takes.
    pub(super) fn pass(&mut self) -> (Passage, bool, Duration) {
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
        (passage, expire, self.slowness())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_denied_kind_is_hidden_too() {
        let mut faults = Faults::default();
        faults.deny(0, Kind::SqlServer);
        faults.unregister(1, "Microsoft.DBforMySQL", Absence::NotRegistered);
        assert!(faults.hides(0, Kind::SqlServer) && faults.hides(0, Kind::TransparentDataEncryption));
        assert!(!faults.hides(1, Kind::SqlServer));
        assert!(faults.hides(1, Kind::MysqlServer) && faults.hides(1, Kind::MysqlFlexibleConfigurations));
        assert!(!faults.hides(1, Kind::PostgresqlServer));
    }

    #[test]
    fn every_nth_resource_ails_and_a_single_one_has_its_own() {
        let mut faults = Faults::default();
        faults.ailing.insert(Kind::InstanceView, (3, Ailment::Gone));
        faults.ail(1, Kind::InstanceView, 2, Ailment::Broken);
        let of = |subscription, number| faults.ailment(subscription, Kind::InstanceView, number);
        assert_eq!([of(0, 0), of(0, 1), of(0, 2)], [None, None, Some(Ailment::Gone)]);
        assert_eq!(of(1, 2), Some(Ailment::Broken));
        assert_eq!(faults.ailment(0, Kind::VirtualMachine, 2), None);
    }

    #[test]
    fn an_odd_thing_is_odd_in_one_way() {
        let item = || json!({"id": "/a", "name": "a", "properties": {"b": "c", "d": 1}});
        assert_eq!(Oddity::NoProperties.apply(item()), json!({"id": "/a", "name": "a"}));
        assert_eq!(Oddity::NullProperties.apply(item())["properties"], Value::Null);
        assert_eq!(Oddity::TextProperties.apply(item())["properties"], "odd");
        assert_eq!(Oddity::WrongTypes.apply(item())["properties"], json!({"b": 7, "d": "odd"}));
        assert_eq!(Oddity::NoId.apply(item()), json!({"properties": {"b": "c", "d": 1}}));
        assert_eq!(Oddity::Text.apply(item()), "odd");
    }
}
