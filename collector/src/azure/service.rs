//! What a plugin reads, as data: which lists there are in a subscription, and what becomes of their items.
//!
//! A further resource type is a [`List`] in the table of its plugin. One that is more than its own JSON has a maker; one
//! that needs a call for each item has a [`Detail`]; one that has lists of its own has these below it.

use serde_json::value::RawValue;

use super::resource::{Made, Malformed};

/// A plugin.
#[derive(Debug)]
pub(super) struct Plugin {
    /// What it reads in each subscription, in this order.
    pub(super) lists: &'static [List],
    /// Whether the subscriptions themselves are records, and records name the tenant.
    pub(super) emits_subscriptions: bool,
}

impl Plugin {
    /// All lists, wherever they stand.
    pub(super) fn all_lists(&self) -> Vec<&'static List> {
        fn add(lists: &'static [List], all: &mut Vec<&'static List>) {
            for list in lists {
                all.push(list);
                if let Items::Lists(_, below) = &list.items {
                    add(below, all);
                }
            }
        }
        let mut all = Vec::new();
        add(self.lists, &mut all);
        all
    }

    /// The list of this name, wherever it stands.
    pub(super) fn find(&self, name: &str) -> Option<&'static List> {
        self.all_lists().into_iter().find(|list| list.name == name)
    }
}

/// A list of Azure Resource Manager or of a key vault.
#[derive(Debug)]
pub(super) struct List {
    /// Its name in units, in coverage, among `api_versions` and, unless a maker says otherwise, in `ext.record_type`.
    pub(super) name: &'static str,
    /// What its path stands behind.
    pub(super) base: Base,
    /// Its path: begins with a slash for all but vaults.
    pub(super) path: &'static str,
    /// The version of the API that it is read by.
    pub(super) api_version: &'static str,
    /// Azure has retired the service, or will: an answer that there is no such thing means that there is nothing.
    pub(super) retired: bool,
    /// What becomes of its items.
    pub(super) items: Items,
}

/// What a path stands behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// `/subscriptions/<id>`.
    Subscription,
    /// The id of the resource whose list it is.
    Resource,
    /// The URI of the vault, with the vault's token.
    Vault,
}

/// What becomes of the items of a list.
#[derive(Debug)]
pub(super) enum Items {
    /// Each is a record as it is; its common type.
    Plain(Option<&'static str>),
    /// Each gives records.
    Records(Maker),
    /// Each needs a call of its own.
    Details(&'static Detail),
    /// Each gives records, perhaps none, and has lists of its own.
    Lists(Maker, &'static [List]),
    /// The log profiles of a subscription: see [`super::monitor`].
    LogProfiles,
}

/// The call that each item of a list needs.
#[derive(Debug)]
pub(super) struct Detail {
    /// Its path, behind the item's id.
    pub(super) path: &'static str,
    /// The version of the API that it is read by.
    pub(super) api_version: &'static str,
    /// Whether the answer is a list: then all its pages are read, and the maker gets one JSON array.
    pub(super) is_list: bool,
    /// Makes records of the item and the answer.
    pub(super) maker: DetailMaker,
}

/// An item of a list, with what is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    /// Its JSON, untouched.
    pub(super) raw: &'a RawValue,
    /// The id of the resource whose list it is from; empty for lists of a subscription.
    pub(super) parent: &'a str,
}

/// Makes the records of an item. The item's own record comes last.
pub(super) type Maker = for<'a> fn(Item<'a>) -> Result<Made<'a>, Malformed>;

/// Makes the records of an item and the answer to the call that it needed.
pub(super) type DetailMaker = for<'a> fn(Item<'a>, &'a RawValue) -> Result<Made<'a>, Malformed>;
