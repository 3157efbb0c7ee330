//! A network security group, in the shape of the API version 2024-05-01.

use std::collections::BTreeMap;

use serde::Serialize;

use super::random::Random;
use super::rule_book;
use super::security_rule::{Reference, SecurityRule};

/// The numbers that Azure leaves to the rules of people.
const PRIORITIES: std::ops::RangeInclusive<u32> = 100..=4096;

/// Groups in one resource group.
const GROUPS_TOGETHER: usize = 10;

/// A network security group as the list of a subscription gives it.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkSecurityGroup {
    name: String,
    id: String,
    etag: String,
    #[serde(rename = "type")]
    kind: &'static str,
    location: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'static str, &'static str>,
    properties: Properties,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    provisioning_state: &'static str,
    resource_guid: String,
    flush_connection: bool,
    security_rules: Vec<SecurityRule>,
    default_security_rules: Vec<SecurityRule>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    network_interfaces: Vec<Reference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subnets: Vec<Reference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flow_logs: Vec<Reference>,
}

impl NetworkSecurityGroup {
    /// The id of the group with this number (from 0) in a subscription.
    pub(super) fn id_of(subscription: &str, number: usize) -> String {
        format!(
            "{}/providers/Microsoft.Network/networkSecurityGroups/{}",
            resource_group(subscription, number),
            name(number)
        )
    }

    /// The group with this number. As in Azure, what a group does not have is absent: the first group of
    /// a subscription has everything, the second is used by a subnet alone, the third by nothing.
    pub(super) fn generate(random: &mut Random, subscription: &str, number: usize, rules: usize) -> Self {
        let id = Self::id_of(subscription, number);
        let scope = resource_group(subscription, number);
        let etag = format!("W/\"{}\"", random.guid());
        let reference = |wanted: bool, stem: &str| {
            let id = format!("{scope}/providers/Microsoft.Network/{stem}{}", number + 1);
            wanted.then_some(Reference { id }).into_iter().collect()
        };
        let with_interface = number.is_multiple_of(3);
        let with_subnet = with_interface || number % 3 == 1;
        Self {
            name: name(number),
            kind: "Microsoft.Network/networkSecurityGroups",
            location: random.pick(&["westeurope", "northeurope", "eastus", "southindia"]),
            tags: if number.is_multiple_of(2) {
                BTreeMap::from([("owner", random.pick(&["platform", "web", "data"]))])
            } else {
                BTreeMap::new()
            },
            properties: Properties {
                provisioning_state: "Succeeded",
                resource_guid: random.guid(),
                flush_connection: random.below(2) == 0,
                security_rules: security_rules(random, &id, &etag, &scope, number, rules),
                default_security_rules: rule_book::defaults()
                    .into_iter()
                    .map(|(name, rule)| SecurityRule::new_default(&id, &etag, name, rule))
                    .collect(),
                network_interfaces: reference(with_interface, "networkInterfaces/nic"),
                subnets: reference(with_subnet, "virtualNetworks/vnet1/subnets/subnet"),
                flow_logs: reference(with_interface, "networkWatchers/watcher1/flowLogs/flowlog"),
            },
            id,
            etag,
        }
    }

    /// The resource id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The rules that people wrote; not the six of Azure's own.
    pub fn security_rules(&self) -> &[SecurityRule] {
        &self.properties.security_rules
    }
}

/// The first rule of a subscription is one worth a finding, so that no estate is without.
fn security_rules(
    random: &mut Random,
    group: &str,
    etag: &str,
    scope: &str,
    number: usize,
    count: usize,
) -> Vec<SecurityRule> {
    PRIORITIES
        .step_by(priority_step(count))
        .zip(1..=count)
        .map(|(priority, ordinal)| {
            let (stem, rule) = if number == 0 && ordinal == 1 {
                rule_book::exposed_port(random)
            } else {
                rule_book::any(random, scope)
            };
            let name = format!("{stem}{ordinal}");
            SecurityRule::new(group, etag, name, rule.prioritised(priority))
        })
        .collect()
}

/// People leave gaps of ten between priorities, as long as they fit.
fn priority_step(rules: usize) -> usize {
    let span = PRIORITIES.count();
    (span / rules.max(1)).clamp(1, 10)
}

fn name(number: usize) -> String {
    format!("nsg{}", number + 1)
}

fn resource_group(subscription: &str, number: usize) -> String {
    format!("/subscriptions/{subscription}/resourceGroups/rg{}", number / GROUPS_TOGETHER + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_can_have_as_many_rules_as_azure_allows() {
        for count in [0, 1, 4, 399, 400, 1000] {
            let group = NetworkSecurityGroup::generate(&mut Random::at(1, &[]), "s", 3, count);
            assert_eq!(group.security_rules().len(), count);
        }
    }

    #[test]
    fn the_first_group_has_every_field_and_the_third_is_unused() {
        let group = |number| {
            let group = NetworkSecurityGroup::generate(&mut Random::at(1, &[]), "s", number, 1);
            serde_json::to_value(group).unwrap()
        };
        for field in ["networkInterfaces", "subnets", "flowLogs"] {
            assert!(group(0)["properties"].get(field).is_some(), "{field}");
            assert!(group(2)["properties"].get(field).is_none(), "{field}");
        }
        assert!(group(1)["properties"].get("subnets").is_some());
        assert!(group(1)["properties"].get("networkInterfaces").is_none());
        assert_eq!(
            group(12)["id"],
            "/subscriptions/s/resourceGroups/rg2/providers/Microsoft.Network/networkSecurityGroups/nsg13"
        );
    }
}
