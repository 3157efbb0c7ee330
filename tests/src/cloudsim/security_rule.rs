//! A security rule, in the shape of the API version 2024-05-01.

use std::borrow::Cow;

use serde::Serialize;

/// Text that mostly is one of a few constants.
pub(super) type Text = Cow<'static, str>;

/// A reference to another resource by its id.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Reference {
    pub(super) id: String,
}

/// A rule of a network security group.
#[derive(Clone, Debug, Serialize)]
pub struct SecurityRule {
    name: Text,
    id: String,
    etag: String,
    #[serde(rename = "type")]
    kind: &'static str,
    properties: SecurityRuleProperties,
}

/// The body of a rule. Where the plural form of a field is used, the singular one is absent; where the
/// singular one is used, the plural one is an empty list; with application security groups both are so.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecurityRuleProperties {
    pub(super) provisioning_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<Text>,
    pub(super) protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_port_range: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destination_port_range: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_address_prefix: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destination_address_prefix: Option<Text>,
    pub(super) access: &'static str,
    pub(super) priority: u32,
    pub(super) direction: &'static str,
    pub(super) source_port_ranges: Vec<Text>,
    pub(super) destination_port_ranges: Vec<Text>,
    pub(super) source_address_prefixes: Vec<Text>,
    pub(super) destination_address_prefixes: Vec<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) source_application_security_groups: Vec<Reference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) destination_application_security_groups: Vec<Reference>,
}

impl SecurityRuleProperties {
    /// A rule for any protocol, from anywhere to anywhere; the methods below narrow it down.
    pub(super) fn new(direction: &'static str, access: &'static str) -> Self {
        Self {
            provisioning_state: "Succeeded",
            description: None,
            protocol: "*",
            source_port_range: Some("*".into()),
            destination_port_range: Some("*".into()),
            source_address_prefix: Some("*".into()),
            destination_address_prefix: Some("*".into()),
            access,
            priority: 0,
            direction,
            source_port_ranges: Vec::new(),
            destination_port_ranges: Vec::new(),
            source_address_prefixes: Vec::new(),
            destination_address_prefixes: Vec::new(),
            source_application_security_groups: Vec::new(),
            destination_application_security_groups: Vec::new(),
        }
    }

    pub(super) fn protocol(mut self, protocol: &'static str) -> Self {
        self.protocol = protocol;
        self
    }

    pub(super) fn source(mut self, prefix: impl Into<Text>) -> Self {
        self.source_address_prefix = Some(prefix.into());
        self
    }

    pub(super) fn sources(mut self, prefixes: Vec<Text>) -> Self {
        self.source_address_prefix = None;
        self.source_address_prefixes = prefixes;
        self
    }

    pub(super) fn source_group(mut self, id: String) -> Self {
        self.source_address_prefix = None;
        self.source_application_security_groups = vec![Reference { id }];
        self
    }

    pub(super) fn destination(mut self, prefix: impl Into<Text>) -> Self {
        self.destination_address_prefix = Some(prefix.into());
        self
    }

    pub(super) fn destinations(mut self, prefixes: Vec<Text>) -> Self {
        self.destination_address_prefix = None;
        self.destination_address_prefixes = prefixes;
        self
    }

    pub(super) fn destination_group(mut self, id: String) -> Self {
        self.destination_address_prefix = None;
        self.destination_application_security_groups = vec![Reference { id }];
        self
    }

    pub(super) fn port(mut self, port: impl Into<Text>) -> Self {
        self.destination_port_range = Some(port.into());
        self
    }

    pub(super) fn ports(mut self, ports: Vec<Text>) -> Self {
        self.destination_port_range = None;
        self.destination_port_ranges = ports;
        self
    }

    pub(super) fn described(mut self, description: impl Into<Text>) -> Self {
        self.description = Some(description.into());
        self
    }

    pub(super) fn prioritised(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }
}

impl SecurityRule {
    /// The rule `name` of the group with this id and etag.
    pub(super) fn new(group: &str, etag: &str, name: impl Into<Text>, properties: SecurityRuleProperties) -> Self {
        let name = name.into();
        Self {
            id: format!("{group}/securityRules/{name}"),
            name,
            etag: etag.to_owned(),
            kind: "Microsoft.Network/networkSecurityGroups/securityRules",
            properties,
        }
    }

    /// As [`SecurityRule::new`], one of the rules that every group has.
    pub(super) fn new_default(group: &str, etag: &str, name: &'static str, properties: SecurityRuleProperties) -> Self {
        Self {
            name: name.into(),
            id: format!("{group}/defaultSecurityRules/{name}"),
            etag: etag.to_owned(),
            kind: "Microsoft.Network/networkSecurityGroups/defaultSecurityRules",
            properties,
        }
    }

    /// The resource id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether this rule, taken alone, lets all the Internet reach a TCP port.
    pub fn exposes(&self, port: u16) -> bool {
        let rule = &self.properties;
        let sources = rule.source_address_prefix.iter().chain(&rule.source_address_prefixes);
        let ports = rule.destination_port_range.iter().chain(&rule.destination_port_ranges);
        rule.direction == "Inbound"
            && rule.access == "Allow"
            && (rule.protocol == "*" || rule.protocol.eq_ignore_ascii_case("tcp"))
            && sources.into_iter().any(|source| is_everyone(source))
            && ports.into_iter().any(|range| contains(range, port))
    }
}

fn is_everyone(prefix: &str) -> bool {
    matches!(prefix, "*" | "Internet" | "0.0.0.0/0")
}

fn contains(range: &str, port: u16) -> bool {
    if range == "*" {
        return true;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&port),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(properties: SecurityRuleProperties) -> SecurityRule {
        SecurityRule::new("/group", "etag", "rule", properties)
    }

    #[test]
    fn a_rule_exposes_the_ports_that_everyone_may_reach() {
        let allow = || SecurityRuleProperties::new("Inbound", "Allow").protocol("TCP");
        assert!(rule(allow().port("22")).exposes(22));
        assert!(rule(allow().source("Internet").ports(vec!["80".into(), "20-25".into()])).exposes(22));
        assert!(rule(allow().sources(vec!["10.0.0.0/8".into(), "0.0.0.0/0".into()])).exposes(1));
        assert!(!rule(allow().port("20-21")).exposes(22));
        assert!(!rule(allow().source("10.0.0.0/8")).exposes(22));
        assert!(!rule(allow().source_group("/asg".into())).exposes(22));
        assert!(!rule(allow().protocol("Udp")).exposes(22));
        assert!(!rule(SecurityRuleProperties::new("Inbound", "Deny")).exposes(22));
        assert!(!rule(SecurityRuleProperties::new("Outbound", "Allow")).exposes(22));
    }

    #[test]
    fn a_plural_field_displaces_the_singular_one() {
        let properties = SecurityRuleProperties::new("Inbound", "Allow")
            .sources(vec!["10.0.0.0/8".into()])
            .destination_group("/asg".into());
        let json = serde_json::to_value(rule(properties)).unwrap();
        let properties = &json["properties"];
        assert!(properties.get("sourceAddressPrefix").is_none());
        assert_eq!(properties["sourceAddressPrefixes"][0], "10.0.0.0/8");
        assert!(properties.get("sourceApplicationSecurityGroups").is_none());
        assert!(properties.get("destinationAddressPrefix").is_none());
        assert_eq!(properties["destinationAddressPrefixes"], serde_json::json!([]));
        assert_eq!(properties["destinationApplicationSecurityGroups"][0]["id"], "/asg");
        assert_eq!(properties["destinationPortRange"], "*");
    }
}
