//! The rules that people write, good and bad, and the six that Azure adds to every group.

use super::random::Random;
use super::security_rule::{SecurityRuleProperties, Text};

/// Ports that nobody should open to the Internet.
const ADMIN_PORTS: [&str; 9] = ["22", "3389", "1433", "3306", "5432", "445", "5985", "6379", "27017"];

/// How a rule may write "the whole Internet".
const EVERYONE: [&str; 3] = ["*", "Internet", "0.0.0.0/0"];

const PRIVATE: [&str; 5] = ["10.0.0.0/8", "10.20.30.0/24", "172.16.0.0/12", "192.168.0.0/16", "VirtualNetwork"];

/// A rule worth a finding: an administrative port, open to everyone.
pub(super) fn exposed_port(random: &mut Random) -> (&'static str, SecurityRuleProperties) {
    let rule = SecurityRuleProperties::new("Inbound", "Allow")
        .protocol(random.pick(&["Tcp", "Tcp", "TCP", "*"]))
        .source(random.pick(&EVERYONE))
        .port(random.pick(&ADMIN_PORTS));
    ("AllowAdmin", rule)
}

/// Any rule: the stem of its name, and its body without a priority. `scope` is the id of the resource
/// group, for the application security groups that a rule may name.
pub(super) fn any(random: &mut Random, scope: &str) -> (&'static str, SecurityRuleProperties) {
    let inbound = |access| SecurityRuleProperties::new("Inbound", access);
    let outbound = |access| SecurityRuleProperties::new("Outbound", access);
    match random.below(14) {
        0 | 1 => exposed_port(random),
        2 => (
            "AllowEverything",
            inbound("Allow").source(random.pick(&EVERYONE)).described("Opened for a migration, to be closed again"),
        ),
        3 => (
            "AllowPortList",
            inbound("Allow").protocol("Tcp").source(random.pick(&EVERYONE)).ports(texts(&[
                "80",
                "20-25",
                "8080-8090",
                random.pick(&ADMIN_PORTS),
            ])),
        ),
        4 => (
            "AllowFromList",
            inbound("Allow")
                .protocol("Tcp")
                .sources(texts(&["203.0.113.0/24", "0.0.0.0/0"]))
                .port(random.pick(&ADMIN_PORTS)),
        ),
        5 | 6 => {
            ("AllowWeb", inbound("Allow").protocol("TCP").source(random.pick(&EVERYONE)).ports(texts(&["80", "443"])))
        }
        7 => (
            "AllowOfficeAdmin",
            inbound("Allow")
                .protocol("Tcp")
                .source(random.pick(&PRIVATE))
                .destination("VirtualNetwork")
                .port(random.pick(&ADMIN_PORTS))
                .described("Administration from inside"),
        ),
        8 => (
            "AllowPartners",
            inbound("Allow")
                .protocol("Tcp")
                .sources(texts(&["198.51.100.0/24", "203.0.113.17"]))
                .destinations(texts(&["10.1.0.0/16", "10.2.0.0/16"]))
                .ports(texts(&["1433", "5000-5100"])),
        ),
        9 => (
            "DenyAdminFromInternet",
            inbound("Deny").protocol("Tcp").source("Internet").ports(ADMIN_PORTS.map(Text::from).to_vec()),
        ),
        10 => (
            "AllowWebToDatabase",
            inbound("Allow")
                .protocol("Tcp")
                .source_group(application_group(scope, "web"))
                .destination_group(application_group(scope, "database"))
                .port("1433"),
        ),
        11 => (
            "AllowPing",
            inbound("Allow").protocol(random.pick(&["Icmp", "Udp", "Esp", "Ah"])).source(random.pick(&EVERYONE)),
        ),
        12 => (
            "AllowStorageOut",
            outbound("Allow")
                .protocol("Tcp")
                .source("VirtualNetwork")
                .destination(random.pick(&["Storage", "Internet", "AzureCloud"]))
                .port("443"),
        ),
        _ => ("DenyInternetOut", outbound("Deny").destination(random.pick(&["Internet", "0.0.0.0/0"]))),
    }
}

/// The rules that every group has, by name.
pub(super) fn defaults() -> [(&'static str, SecurityRuleProperties); 6] {
    let inbound = |access| SecurityRuleProperties::new("Inbound", access);
    let outbound = |access| SecurityRuleProperties::new("Outbound", access);
    [
        (
            "AllowVnetInBound",
            inbound("Allow")
                .source("VirtualNetwork")
                .destination("VirtualNetwork")
                .prioritised(65_000)
                .described("Allow inbound traffic from all VMs in VNET"),
        ),
        (
            "AllowAzureLoadBalancerInBound",
            inbound("Allow")
                .source("AzureLoadBalancer")
                .prioritised(65_001)
                .described("Allow inbound traffic from azure load balancer"),
        ),
        ("DenyAllInBound", inbound("Deny").prioritised(65_500).described("Deny all inbound traffic")),
        (
            "AllowVnetOutBound",
            outbound("Allow")
                .source("VirtualNetwork")
                .destination("VirtualNetwork")
                .prioritised(65_000)
                .described("Allow outbound traffic from all VMs to all VMs in VNET"),
        ),
        (
            "AllowInternetOutBound",
            outbound("Allow")
                .destination("Internet")
                .prioritised(65_001)
                .described("Allow outbound traffic from all VMs to Internet"),
        ),
        ("DenyAllOutBound", outbound("Deny").prioritised(65_500).described("Deny all outbound traffic")),
    ]
}

fn texts(values: &[&'static str]) -> Vec<Text> {
    values.iter().copied().map(Text::from).collect()
}

fn application_group(scope: &str, name: &str) -> String {
    format!("{scope}/providers/Microsoft.Network/applicationSecurityGroups/{name}")
}
