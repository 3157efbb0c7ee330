//! The resource types that are listed per subscription, and what a record of Azure looks like.
//!
//! A further type is a row of [`RESOURCE_TYPES`]; one whose item gives more than one record as it is has a maker of its
//! own.

use std::borrow::Cow;

use proto::record::{Common, Text};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::nsg::{self, FirewallRule};
use super::subscription::Subscription;

/// The cloud's name in records.
const CLOUD_TYPE: &str = "azure";

/// A resource type that Azure Resource Manager lists per subscription.
#[derive(Debug)]
pub(super) struct ResourceType {
    /// Its name in `ext.record_type`, in units and in coverage.
    pub(super) name: &'static str,
    /// The path of its list, below `/subscriptions/<id>`.
    pub(super) path: &'static str,
    /// The version of the API that it is read by.
    pub(super) api_version: &'static str,
    /// Its name in `com.record_type`.
    pub(super) common_type: Option<&'static str>,
    /// What makes records of an item of the list: [`plain`] if it is one record as it is.
    pub(super) maker: Maker,
}

/// Makes the records of an item of a list.
pub(super) type Maker = for<'a> fn(&ResourceType, &'a RawValue) -> Result<Made<'a>, Malformed>;

/// All resource types, in the order in which they are read.
pub(super) const RESOURCE_TYPES: &[ResourceType] = &[
    // https://learn.microsoft.com/rest/api/virtualnetwork/network-security-groups/list-all
    ResourceType {
        name: "nsg",
        path: "/providers/Microsoft.Network/networkSecurityGroups",
        api_version: "2024-05-01",
        common_type: None,
        maker: nsg::records,
    },
];

/// The resource type of this name.
pub(super) fn find(name: &str) -> Option<&'static ResourceType> {
    RESOURCE_TYPES.iter().find(|resource_type| resource_type.name == name)
}

/// What was made of an item.
#[derive(Debug)]
pub(super) struct Made<'a> {
    /// The records, in their order.
    pub(super) records: Vec<Record<'a>>,
    /// Parts of the item that are lost, each with the reason.
    pub(super) lost: Vec<String>,
}

/// A record before it is emitted.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// The type in `ext`.
    pub(super) record_type: &'static str,
    /// The type in `com`.
    pub(super) common_type: Option<&'static str>,
    /// The ARM id.
    pub(super) id: Cow<'a, str>,
    /// The item, untouched.
    pub(super) raw: &'a RawValue,
    /// What a security rule says beyond that.
    pub(super) rule: Option<SecurityRule<'a>>,
}

/// What a record of a security rule says beyond what every record says.
#[derive(Debug)]
pub(super) struct SecurityRule<'a> {
    pub(super) nsg_id: Cow<'a, str>,
    pub(super) firewall_rule: FirewallRule<'a>,
}

impl Record<'_> {
    /// The ARM id, lower-cased: Azure writes it now in this case, now in that.
    pub(super) fn key(&self) -> String {
        self.id.to_lowercase()
    }

    /// The bucket `ext`.
    pub(super) fn ext<'a>(&'a self, subscription: &'a Subscription) -> Ext<'a> {
        let rule = self.rule.as_ref().map(|rule| RuleExt { nsg_id: &rule.nsg_id, security_rule_id: &self.id });
        Ext {
            cloud_type: CLOUD_TYPE,
            record_type: self.record_type,
            subscription_id: &subscription.id,
            tenant_id: &subscription.tenant,
            subscription_name: subscription.name.as_deref(),
            subscription_state: subscription.state.as_deref(),
            rule,
        }
    }

    /// The bucket `com`.
    pub(super) fn com(&self) -> Com<'_> {
        let common =
            Common { cloud_type: CLOUD_TYPE, record_type: self.common_type, reference: Some(self.id.as_ref()) };
        Com { common, firewall_rule: self.rule.as_ref().map(|rule| &rule.firewall_rule) }
    }
}

/// The bucket `ext`.
#[derive(Debug, Serialize)]
pub(super) struct Ext<'a> {
    cloud_type: &'static str,
    record_type: &'static str,
    subscription_id: &'a str,
    tenant_id: &'a str,
    subscription_name: Option<&'a str>,
    subscription_state: Option<&'a str>,
    #[serde(flatten)]
    rule: Option<RuleExt<'a>>,
}

#[derive(Debug, Serialize)]
struct RuleExt<'a> {
    nsg_id: &'a str,
    security_rule_id: &'a str,
}

/// The bucket `com`.
#[derive(Debug, Serialize)]
pub(super) struct Com<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    #[serde(flatten)]
    firewall_rule: Option<&'a FirewallRule<'a>>,
}

/// An item that cannot be understood: which, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

impl Malformed {
    /// The error of reading the item, with the id if it has one.
    pub(super) fn of(what: &str, item: &RawValue, error: &serde_json::Error) -> Self {
        #[derive(Deserialize)]
        struct JustId<'a> {
            #[serde(borrow)]
            id: Text<'a>,
        }
        match serde_json::from_str::<JustId<'_>>(item.get()) {
            Ok(JustId { id }) => Self(format!("{what} {} cannot be understood: {error}", &*id)),
            Err(_) => Self(format!("{what} without an id cannot be understood: {error}")),
        }
    }
}

/// The id of an item: never empty.
pub(super) fn checked_id<'a>(what: &str, Text(id): Text<'a>) -> Result<Cow<'a, str>, Malformed> {
    if id.is_empty() { Err(Malformed(format!("{what} has an empty id"))) } else { Ok(id) }
}
