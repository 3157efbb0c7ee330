//! The estate: what there is in the simulated cloud. Nothing of it is stored; each thing is generated
//! when it is asked for, so that an estate of any size takes the same memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use serde_json::Value;

use super::faults::Faults;
use super::kind::Kind;
use super::network_security_group::NetworkSecurityGroup;
use super::pages::SkipTokens;
use super::providers::resources::LOCATIONS;
use super::providers::{self, Form, SHAPES, Shape};
use super::random::Random;
use super::subscription::{Subscription, SubscriptionState};
use super::template::{Filling, Template};

/// Things in one resource group.
const GROUPED: usize = 10;

/// How far apart the shapes of two subscriptions begin, so that small estates differ, too.
const STRIDE: usize = 7;

/// The kinds of things, as the first part of their place in [`Random::at`].
mod kind {
    pub(super) const IDENTITY: u64 = 1;
    pub(super) const SUBSCRIPTION: u64 = 2;
    pub(super) const NETWORK_SECURITY_GROUP: u64 = 3;
    pub(super) const PAGES: u64 = 4;
    pub(super) const SHAPE: u64 = 5;
    pub(super) const GUIDS: u64 = 6;
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

/// How many things of each kind there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory(BTreeMap<Kind, usize>);

impl Inventory {
    /// How many there are of one kind.
    pub fn of(&self, kind: Kind) -> usize {
        self.0.get(&kind).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, kind: Kind, count: usize) {
        *self.0.entry(kind).or_default() += count;
    }
}

/// The size of an estate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) subscriptions: usize,
    /// Rules in each network security group.
    pub(super) rules: usize,
    /// Things in each subscription that has no entry in `of_one`; below each parent, for the kinds that
    /// are listed below one.
    pub(super) of_each: BTreeMap<Kind, usize>,
    pub(super) of_one: BTreeMap<(usize, Kind), usize>,
    /// What is not enabled.
    pub(super) states: BTreeMap<usize, SubscriptionState>,
}

impl Default for Size {
    fn default() -> Self {
        Self { subscriptions: 3, rules: 4, of_each: BTreeMap::new(), of_one: BTreeMap::new(), states: BTreeMap::new() }
    }
}

impl Size {
    /// The most that was asked for of a kind, if anything was.
    pub(super) fn most_of(&self, kind: Kind) -> Option<usize> {
        let in_one = self.of_one.iter().filter(|((_, of), _)| *of == kind).map(|(_, count)| *count);
        in_one.chain(self.of_each.get(&kind).copied()).max()
    }

    fn of(&self, subscription: usize, kind: Kind) -> usize {
        let own = self.of_one.get(&(subscription, kind)).or_else(|| self.of_each.get(&kind));
        own.copied().unwrap_or(match kind {
            Kind::Location => LOCATIONS.len(),
            Kind::NetworkSecurityGroup => 5,
            Kind::VirtualMachine | Kind::Disk | Kind::SqlDatabase | Kind::VaultKey | Kind::VaultSecret => 3,
            // Some subscriptions have none of them.
            Kind::LogProfile => usize::from(subscription % 3 != 2),
            Kind::DiagnosticSetting => 2 - subscription % 3,
            _ => 2,
        })
    }
}

/// The names of a subscription.
#[derive(Debug)]
struct Names {
    id: String,
    short: String,
}

/// All that there is, by index. A thing beyond the end of a list can be generated; it is only never listed.
#[derive(Debug)]
pub struct Estate {
    seed: u64,
    size: Size,
    tenant: String,
    url: String,
    /// How long items are made, if they can be.
    item_bytes: usize,
    names: Vec<Names>,
    indices: HashMap<String, usize>,
    by_short: HashMap<String, usize>,
    templates: Vec<OnceLock<Template>>,
    ids: Vec<Template>,
}

/// Where a thing stands: what it looks like, and what it is called.
struct Place<'a> {
    variant: usize,
    is_first: bool,
    filling: Filling<'a>,
}

impl Estate {
    pub(super) fn new(seed: u64, size: Size, url: &str, item_bytes: usize) -> Self {
        let names: Vec<Names> = (0..size.subscriptions)
            .map(|subscription| {
                let id = subscription_guid(seed, subscription);
                Names { short: id.chars().filter(|letter| *letter != '-').take(12).collect(), id }
            })
            .collect();
        let index = |name: fn(&Names) -> &String| {
            names.iter().enumerate().map(|(index, names)| (name(names).clone(), index)).collect()
        };
        Self {
            tenant: identity(seed, 0),
            url: url.to_owned(),
            item_bytes,
            indices: index(|names| &names.id),
            by_short: index(|names| &names.short),
            names,
            templates: std::iter::repeat_with(OnceLock::new).take(Kind::COUNT * SHAPES * 2).collect(),
            ids: Kind::ALL.iter().map(|kind| Template::parse(kind.definition().id)).collect(),
            seed,
            size,
        }
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

    /// What a client on an App Service shows to prove that it is there.
    pub(super) fn identity_header(&self) -> String {
        identity(self.seed, 3)
    }

    /// The GUID of a subscription.
    pub fn subscription_id(&self, subscription: usize) -> String {
        subscription_guid(self.seed, subscription)
    }

    /// The index of a subscription, from its GUID in upper or lower case.
    pub fn subscription_index(&self, id: &str) -> Option<usize> {
        self.indices.get(&id.to_ascii_lowercase()).copied()
    }

    /// A subscription.
    pub fn subscription(&self, subscription: usize) -> Subscription {
        let mut random = Random::at(self.seed, &[kind::SUBSCRIPTION, subscription as u64]);
        let id = random.guid();
        Subscription::generate(&mut random, subscription, &id, &self.tenant, self.state(subscription))
    }

    /// Whether a subscription is enabled, and if not, what it is.
    pub fn state(&self, subscription: usize) -> SubscriptionState {
        self.size.states.get(&subscription).copied().unwrap_or_default()
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
        let nsgs = self.count(subscription, Kind::NetworkSecurityGroup);
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

    /// The page tokens of a list.
    pub(super) fn pages(&self, subscription: usize, kind: Kind, parent: usize) -> SkipTokens {
        let place = match kind {
            Kind::NetworkSecurityGroup => vec![kind::PAGES, kind::NETWORK_SECURITY_GROUP, subscription as u64],
            _ => vec![kind::PAGES, kind::GUIDS, kind as u64, subscription as u64, parent as u64],
        };
        SkipTokens::of(self.seed, &place)
    }

    /// How many things of a kind a subscription has. Of a detail there are as many as of its parent.
    pub fn count(&self, subscription: usize, kind: Kind) -> usize {
        let definition = kind.definition();
        match (definition.parent, definition.form) {
            (Some(parent), Form::Settings | Form::Detail(_)) => self.count(subscription, parent),
            (Some(parent), _) => self.count(subscription, parent) * self.below_each(subscription, kind),
            (None, _) if subscription < self.size.subscriptions => self.size.of(subscription, kind),
            (None, _) => 0,
        }
    }

    /// How many things of a kind there are below each parent: 1 of a detail.
    pub fn below_each(&self, subscription: usize, kind: Kind) -> usize {
        match kind.definition().form {
            Form::Settings | Form::Detail(_) => 1,
            _ => self.size.of(subscription, kind),
        }
    }

    /// The number of the parent of a thing, in the list of parents.
    pub fn parent(&self, subscription: usize, kind: Kind, index: usize) -> usize {
        index / self.below_each(subscription, kind).max(1)
    }

    /// How much there is of everything, where `wanted` says yes to the subscription and the kind.
    pub fn inventory_where(&self, wanted: impl Fn(usize, Kind) -> bool) -> Inventory {
        let mut inventory = Inventory::default();
        for kind in Kind::ALL {
            let subscriptions = (0..self.size.subscriptions).filter(|subscription| wanted(*subscription, kind));
            inventory.add(kind, subscriptions.map(|subscription| self.count(subscription, kind)).sum());
        }
        inventory
    }

    /// The numbers of the things of a kind that these faults let be read. A thing below a resource cannot be
    /// read if the resource cannot: nobody would know of it.
    pub(super) fn readable(&self, subscription: usize, kind: Kind, faults: &Faults) -> impl Iterator<Item = usize> {
        let is_there = self.state(subscription) != SubscriptionState::Deleted && !faults.hides(subscription, kind);
        let count = if is_there { self.count(subscription, kind) } else { 0 };
        (0..count).filter(move |number| self.is_well(subscription, kind, *number, faults))
    }

    /// Whether nothing keeps the thing from being read. A member of a list of the whole subscription is
    /// read with the list, whatever ails itself.
    fn is_well(&self, subscription: usize, kind: Kind, number: usize, faults: &Faults) -> bool {
        let mut at = Some((kind, number));
        while let Some((kind, number)) = at {
            let definition = kind.definition();
            let Some(parent) = definition.parent else { break };
            let above = self.parent(subscription, kind, number);
            // A request for what is below the resource passes by the resource itself.
            if faults.ailment(subscription, kind, above_or(definition.form, number, above)).is_some()
                || (parent.parent().is_none() && faults.ailment(subscription, parent, above).is_some())
            {
                return false;
            }
            at = Some((parent, above));
        }
        true
    }

    /// A thing as the cloud answers it: an object, or, for the settings of a server, the array of them.
    pub fn item(&self, subscription: usize, kind: Kind, index: usize) -> Value {
        let mut text = Vec::new();
        self.render(subscription, kind, index, &mut text);
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// All things of a kind in a subscription, each generated when its turn comes.
    pub fn items(&self, subscription: usize, kind: Kind) -> impl Iterator<Item = Value> {
        (0..self.count(subscription, kind)).map(move |index| self.item(subscription, kind, index))
    }

    /// The things of a kind below one parent; the one detail of it, for a detail.
    pub fn items_below(&self, subscription: usize, kind: Kind, parent: usize) -> impl Iterator<Item = Value> {
        let each = self.below_each(subscription, kind);
        (parent * each..(parent + 1) * each).map(move |index| self.item(subscription, kind, index))
    }

    /// The resource id of a thing; of a detail, the id of what it is a detail of.
    pub fn id(&self, subscription: usize, kind: Kind, index: usize) -> String {
        match kind {
            Kind::NetworkSecurityGroup => self.nsg_id(subscription, index),
            Kind::Location => {
                let name = LOCATIONS.get(index).map_or("", |(name, ..)| name);
                format!("/subscriptions/{}/locations/{name}", self.subscription_id(subscription))
            }
            _ => self
                .ids
                .get(kind as usize)
                .map(|template| template.text(&self.place(subscription, kind, index).filling))
                .unwrap_or_default(),
        }
    }

    /// Appends the JSON of a thing.
    pub(super) fn render(&self, subscription: usize, kind: Kind, index: usize, out: &mut Vec<u8>) {
        if kind == Kind::NetworkSecurityGroup {
            // Writing to memory does not fail.
            let _ = serde_json::to_writer(out, &self.nsg(subscription, index));
            return;
        }
        let place = self.place(subscription, kind, index);
        let slot = (kind as usize * SHAPES + place.variant) * 2 + usize::from(place.is_first);
        if let Some(slot) = self.templates.get(slot) {
            let template = slot.get_or_init(|| self.template(kind, place.variant, place.is_first));
            out.reserve(template.len());
            template.render(&place.filling, out);
        }
    }

    fn template(&self, kind: Kind, variant: usize, is_first: bool) -> Template {
        let mut shape = Shape {
            random: Random::at(self.seed, &[kind::SHAPE, kind as u64, variant as u64]),
            variant,
            is_first,
            tenant: &self.tenant,
            url: &self.url,
        };
        let mut item = (kind.definition().generate)(&mut shape);
        if self.item_bytes > 0 && matches!(kind.definition().form, Form::Pages { .. }) {
            providers::pad(&mut item, self.item_bytes);
        }
        Template::parse(&item.to_string())
    }

    fn place(&self, subscription: usize, kind: Kind, index: usize) -> Place<'_> {
        let definition = kind.definition();
        if let (Some(parent), Form::Settings | Form::Detail(_)) = (definition.parent, definition.form) {
            return self.place(subscription, parent, index);
        }
        let (parent, ordinal) = match definition.parent {
            Some(_) => {
                let each = self.below_each(subscription, kind).max(1);
                (index / each, index % each)
            }
            None => (index, index),
        };
        let variant = match (kind, definition.parent) {
            (Kind::Location, _) => index,
            (_, Some(_)) => ordinal + 3 * parent + STRIDE * subscription,
            (_, None) => index + STRIDE * subscription,
        };
        let groups = self.size.of(subscription, Kind::ResourceGroup).max(1);
        let names = self.names.get(subscription);
        let seed = Random::at(self.seed, &[kind::GUIDS, kind as u64, subscription as u64, index as u64]).next();
        Place {
            variant: variant % SHAPES,
            is_first: definition.parent.is_some() && ordinal == 0,
            filling: Filling {
                subscription: names.map_or("", |names| &names.id),
                short: names.map_or("", |names| &names.short),
                number: ordinal + 1,
                parent: parent + 1,
                group: parent / GROUPED % groups + 1,
                seed,
            },
        }
    }

    /// The shape of a vault, for what the data plane must know of it.
    pub(super) fn variant(&self, subscription: usize, kind: Kind, index: usize) -> usize {
        self.place(subscription, kind, index).variant
    }

    /// Finds a thing below a parent (or at the top, without one) by the last part of its id.
    pub(super) fn find(&self, subscription: usize, kind: Kind, parent: Option<usize>, name: &str) -> Option<usize> {
        let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
        // Names end in the number, from 1 on; databases count from the `master`, which has none.
        let number = name.get(digits..).filter(|number| !number.is_empty());
        let number = number.map_or(Some(0), |number| number.parse::<usize>().ok())?;
        let each = self.below_each(subscription, kind);
        [number.checked_sub(1), Some(number)].into_iter().flatten().find_map(|ordinal| {
            let index = match parent {
                Some(parent) if ordinal < each => parent * each + ordinal,
                Some(_) => return None,
                None => ordinal,
            };
            let id = self.id(subscription, kind, index);
            let is_it = id.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(name));
            (is_it && index < self.count(subscription, kind)).then_some(index)
        })
    }

    /// The vault of this name: its subscription and its number there.
    pub(super) fn find_vault(&self, name: &str) -> Option<(usize, usize)> {
        let name = name.to_ascii_lowercase();
        let (_, rest) = name.split_once('-')?;
        let (short, _) = rest.split_once('-')?;
        let subscription = self.by_short.get(short).copied()?;
        Some((subscription, self.find(subscription, Kind::Vault, None, &name)?))
    }
}

/// Whose number an ailment goes by: see [`Faults::ailments`].
fn above_or(form: Form, number: usize, above: usize) -> usize {
    if matches!(form, Form::Detail(_) | Form::Settings) { number } else { above }
}

fn subscription_guid(seed: u64, subscription: usize) -> String {
    Random::at(seed, &[kind::SUBSCRIPTION, subscription as u64]).guid()
}

fn identity(seed: u64, number: u64) -> String {
    Random::at(seed, &[kind::IDENTITY, number]).guid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudsim::faults::Ailment;

    fn estate() -> Estate {
        let of_each = BTreeMap::from([(Kind::SqlServer, 4), (Kind::SqlDatabase, 12), (Kind::VirtualMachine, 25)]);
        Estate::new(1, Size { of_each, ..Size::default() }, "http://127.0.0.1:1", 0)
    }

    #[test]
    fn a_thing_is_found_by_its_name_alone_below_its_parent() {
        let estate = estate();
        let name = |kind, index| {
            let id = estate.id(1, kind, index);
            id.rsplit('/').next().map(str::to_ascii_uppercase).unwrap()
        };
        for kind in [Kind::VirtualMachine, Kind::StorageAccount, Kind::Vault, Kind::LogProfile] {
            for index in 0..estate.count(1, kind) {
                assert_eq!(estate.find(1, kind, None, &name(kind, index)), Some(index), "{kind:?}");
            }
        }
        for index in 0..48 {
            let name = name(Kind::SqlDatabase, index);
            assert_eq!(name == "MASTER", index % 12 == 0);
            assert_eq!(estate.find(1, Kind::SqlDatabase, Some(index / 12), &name), Some(index));
        }
        assert_eq!(estate.find(1, Kind::SqlDatabase, Some(3), "db12"), None);
        for name in ["", "vm", "vm0", "vm26", "vm1a", "vm99999999999999999999999"] {
            assert_eq!(estate.find(1, Kind::VirtualMachine, None, name), None, "{name}");
        }
    }

    #[test]
    fn a_vault_is_found_by_its_name_in_all_the_world() {
        let estate = estate();
        for subscription in 0..3 {
            let id = estate.id(subscription, Kind::Vault, 1);
            let name = id.rsplit('/').next().unwrap();
            assert!(name.len() <= 24, "{name}");
            assert_eq!(estate.find_vault(&name.to_uppercase()), Some((subscription, 1)));
        }
        for name in ["kv", "kv-1", "kv-000000000000-1", "-", ""] {
            assert_eq!(estate.find_vault(name), None, "{name}");
        }
    }

    #[test]
    fn details_are_as_many_as_their_parents_and_look_like_them() {
        let estate = estate();
        assert_eq!(estate.count(0, Kind::TransparentDataEncryption), 48);
        assert_eq!(estate.count(9, Kind::TransparentDataEncryption), 0);
        assert_eq!(estate.items_below(0, Kind::SqlDatabase, 2).count(), 12);
        assert_eq!(estate.parent(0, Kind::SqlDatabase, 35), 2);
        for index in 0..25 {
            let machine = estate.item(2, Kind::VirtualMachine, index);
            let view = estate.item(2, Kind::InstanceView, index);
            assert_eq!(machine["properties"]["storageProfile"]["osDisk"]["name"], view["disks"][0]["name"]);
            let data_disks = machine["properties"]["storageProfile"]["dataDisks"].as_array().unwrap();
            assert_eq!(view["disks"].as_array().unwrap().len(), data_disks.len() + 1);
        }
        // What a subscription without faults has is readable; an ailing server hides all below it.
        let mut faults = Faults::default();
        faults.ail(0, Kind::SqlServer, 1, Ailment::Gone);
        let readable: Vec<usize> = estate.readable(0, Kind::TransparentDataEncryption, &faults).collect();
        assert_eq!(readable, (0..12).chain(24..48).collect::<Vec<_>>());
        assert_eq!(estate.readable(0, Kind::SqlServer, &faults).count(), 4);
        assert_eq!(estate.readable(1, Kind::TransparentDataEncryption, &faults).count(), 48);
    }

    #[test]
    fn shapes_combine_and_subscriptions_differ() {
        let estate = estate();
        let machine = |subscription, index| {
            let mut machine = estate.item(subscription, Kind::VirtualMachine, index)["properties"].take();
            machine["vmId"].take();
            machine
                .to_string()
                .replace(&estate.subscription_id(subscription), "")
                .replace(&format!("vm{}", index + 1), "")
        };
        assert_ne!(machine(0, 0), machine(0, 1));
        assert_ne!(machine(0, 0), machine(1, 0));
        let ids: std::collections::HashSet<String> =
            estate.items(0, Kind::VirtualMachine).map(|machine| machine["properties"]["vmId"].to_string()).collect();
        assert_eq!(ids.len(), 25, "each has a GUID of its own");
    }
}
