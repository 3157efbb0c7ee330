//! The estate: what there is in the simulated cloud. Nothing of it is stored; each thing is generated
//! when it is asked for, so that an estate of any size takes the same memory.

use std::collections::{BTreeMap, HashMap};

use super::network_security_group::NetworkSecurityGroup;
use super::pages::SkipTokens;
use super::random::Random;
use super::subscription::Subscription;

/// The kinds of things, as the first part of their place in [`Random::at`].
mod kind {
    pub(super) const IDENTITY: u64 = 1;
    pub(super) const SUBSCRIPTION: u64 = 2;
    pub(super) const NETWORK_SECURITY_GROUP: u64 = 3;
    pub(super) const PAGES: u64 = 4;
}

/// How many things there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Subscriptions.
    pub subscriptions: usize,
    /// Network security groups.
    pub nsgs: usize,
    /// Security rules that people wrote; the six of Azure's own in each group do not count.
    pub rules: usize,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            subscriptions: self.subscriptions + other.subscriptions,
            nsgs: self.nsgs + other.nsgs,
            rules: self.rules + other.rules,
        }
    }
}

/// The size of an estate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) subscriptions: usize,
    /// Groups in each subscription that has no entry in `nsgs_in`.
    pub(super) nsgs: usize,
    pub(super) nsgs_in: BTreeMap<usize, usize>,
    /// Rules in each group.
    pub(super) rules: usize,
}

/// All that there is, by index. A thing beyond the end of a list can be generated; it is only never listed.
#[derive(Debug)]
pub struct Estate {
    seed: u64,
    size: Size,
    tenant: String,
    indices: HashMap<String, usize>,
}

impl Estate {
    pub(super) fn new(seed: u64, size: Size) -> Self {
        let mut estate =
            Self { tenant: identity(seed, 0), indices: HashMap::with_capacity(size.subscriptions), seed, size };
        for subscription in 0..estate.size.subscriptions {
            let id = estate.subscription_id(subscription);
            estate.indices.insert(id, subscription);
        }
        estate
    }

    /// The id of the tenant that owns everything.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The id of the application that may sign in.
    pub(super) fn client_id(&self) -> String {
        identity(self.seed, 1)
    }

    /// The id by which Resource Manager knows that application.
    pub(super) fn object_id(&self) -> String {
        identity(self.seed, 2)
    }

    /// The GUID of a subscription.
    pub fn subscription_id(&self, subscription: usize) -> String {
        Random::at(self.seed, &[kind::SUBSCRIPTION, subscription as u64]).guid()
    }

    /// The index of a subscription, from its GUID in upper or lower case.
    pub fn subscription_index(&self, id: &str) -> Option<usize> {
        self.indices.get(&id.to_ascii_lowercase()).copied()
    }

    /// A subscription.
    pub fn subscription(&self, subscription: usize) -> Subscription {
        let mut random = Random::at(self.seed, &[kind::SUBSCRIPTION, subscription as u64]);
        let id = random.guid();
        Subscription::generate(&mut random, subscription, &id, &self.tenant)
    }

    /// The resource id of a group.
    pub fn nsg_id(&self, subscription: usize, nsg: usize) -> String {
        NetworkSecurityGroup::id_of(&self.subscription_id(subscription), nsg)
    }

    /// A group with its rules.
    pub fn nsg(&self, subscription: usize, nsg: usize) -> NetworkSecurityGroup {
        let place = [kind::NETWORK_SECURITY_GROUP, subscription as u64, nsg as u64];
        NetworkSecurityGroup::generate(
            &mut Random::at(self.seed, &place),
            &self.subscription_id(subscription),
            nsg,
            self.size.rules,
        )
    }

    /// The groups of a subscription, each generated when its turn comes.
    pub fn nsgs(&self, subscription: usize) -> impl Iterator<Item = NetworkSecurityGroup> {
        (0..self.counts_of(subscription).nsgs).map(move |nsg| self.nsg(subscription, nsg))
    }

    /// What there is in one subscription.
    pub fn counts_of(&self, subscription: usize) -> Counts {
        if subscription >= self.size.subscriptions {
            return Counts::default();
        }
        let own = self.size.nsgs_in.get(&subscription);
        let nsgs = own.copied().unwrap_or(self.size.nsgs);
        Counts { subscriptions: 1, nsgs, rules: nsgs * self.size.rules }
    }

    /// What there is in the subscriptions that `wanted` says yes to.
    pub fn counts_where(&self, wanted: impl Fn(usize) -> bool) -> Counts {
        (0..self.size.subscriptions)
            .filter(|subscription| wanted(*subscription))
            .map(|subscription| self.counts_of(subscription))
            .fold(Counts::default(), |sum, counts| sum + counts)
    }

    /// The page tokens of the list of subscriptions.
    pub(super) fn subscription_pages(&self) -> SkipTokens {
        SkipTokens::of(self.seed, &[kind::PAGES, kind::SUBSCRIPTION])
    }

    /// The page tokens of the list of a subscription's groups.
    pub(super) fn nsg_pages(&self, subscription: usize) -> SkipTokens {
        let place = [kind::PAGES, kind::NETWORK_SECURITY_GROUP, subscription as u64];
        SkipTokens::of(self.seed, &place)
    }
}

fn identity(seed: u64, number: u64) -> String {
    Random::at(seed, &[kind::IDENTITY, number]).guid()
}
