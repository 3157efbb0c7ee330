//! A subscription, in the shape of the API version 2022-12-01.

use serde::Serialize;
use std::collections::BTreeMap;

use super::random::Random;

/// What has become of a subscription. It is listed all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubscriptionState {
    /// All is well.
    #[default]
    Enabled,
    /// A payment is due soon.
    Warned,
    /// A payment is overdue.
    PastDue,
    /// Nothing can be changed in it any more; what is there can be read.
    Disabled,
    /// What it had is gone: reading in it is answered 404 `SubscriptionNotFound`.
    Deleted,
}

impl SubscriptionState {
    /// As Azure writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Warned => "Warned",
            Self::PastDue => "PastDue",
            Self::Disabled => "Disabled",
            Self::Deleted => "Deleted",
        }
    }
}

/// A subscription as `GET /subscriptions` lists it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    id: String,
    authorization_source: &'static str,
    managed_by_tenants: Vec<ManagedByTenant>,
    subscription_id: String,
    tenant_id: String,
    display_name: String,
    state: &'static str,
    subscription_policies: SubscriptionPolicies,
    tags: BTreeMap<&'static str, &'static str>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ManagedByTenant {
    tenant_id: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SubscriptionPolicies {
    location_placement_id: &'static str,
    quota_id: &'static str,
    spending_limit: &'static str,
}

impl Subscription {
    /// The subscription with this number (from 0).
    pub(super) fn generate(
        random: &mut Random,
        number: usize,
        guid: &str,
        tenant: &str,
        state: SubscriptionState,
    ) -> Self {
        let managed = random.below(3);
        Self {
            id: format!("/subscriptions/{guid}"),
            authorization_source: random.pick(&["RoleBased", "RoleBased", "Legacy"]),
            managed_by_tenants: (0..managed).map(|_| ManagedByTenant { tenant_id: random.guid() }).collect(),
            subscription_id: guid.to_owned(),
            tenant_id: tenant.to_owned(),
            display_name: format!("Simulated Subscription {}", number + 1),
            state: state.name(),
            subscription_policies: SubscriptionPolicies {
                location_placement_id: "Public_2014-09-01",
                quota_id: random.pick(&["PayAsYouGo_2014-09-01", "EnterpriseAgreement_2014-09-01"]),
                spending_limit: random.pick(&["Off", "On"]),
            },
            tags: BTreeMap::from([
                ("environment", random.pick(&["production", "staging", "development"])),
                ("costCenter", random.pick(&["1001", "1002", "2001"])),
            ]),
        }
    }

    /// The resource id: `/subscriptions/<guid>`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The GUID alone.
    pub fn subscription_id(&self) -> &str {
        &self.subscription_id
    }

    /// The name that people see.
    pub fn display_name(&self) -> &str {
        &self.display_name
    }
}
