//! Firewall rules in the form that all clouds' rules are brought into: which ports one opens to the whole Internet.
//!
//! A rule is looked at by itself. Whether another rule of higher priority denies the same, and whether anything stands
//! behind the firewall, is not known here.

use std::borrow::Cow;

use super::networks::{self, Coverage};
use super::ports;
use crate::condition::excerpt;
use crate::json::{Json, Object};

/// Those of the ports, which must be sorted, that the rule opens to everyone; none if one of its conditions does not
/// hold, whatever is unknown of the others. Over UDP, only ports behind which something speaks it count.
///
/// # Errors
/// Why it cannot be said: each field that is missing or cannot be understood.
pub fn exposed(rule: &Object<'_>, sensitive: &[u16]) -> Result<Vec<u16>, String> {
    opened_to_everyone(rule, sensitive, false)
}

/// Those of the ports that the rule opens to everyone over UDP. Whoever asks knows that these ports speak it.
///
/// # Errors
/// As for [`exposed`].
pub fn exposed_udp(rule: &Object<'_>, sensitive: &[u16]) -> Result<Vec<u16>, String> {
    opened_to_everyone(rule, sensitive, true)
}

fn opened_to_everyone(rule: &Object<'_>, sensitive: &[u16], over_udp: bool) -> Result<Vec<u16>, String> {
    let rule = Rule(rule);
    let transport = rule.transport();
    let conditions = [
        rule.is_enabled(),
        rule.one_of("direction", &["in"], &["out"]),
        rule.one_of("access", &["allow"], &["deny"]),
        match &transport {
            Ok(Transport::Neither) => Holds::No,
            Ok(Transport::Tcp) if over_udp => Holds::No,
            Ok(_) => Holds::Yes,
            Err(reason) => Holds::Unknown(reason.clone()),
        },
        rule.is_from_the_internet(),
    ];
    let mut unknown = Vec::new();
    for condition in conditions {
        match condition {
            Holds::Yes => {}
            Holds::No => return Ok(Vec::new()),
            Holds::Unknown(reason) => unknown.push(reason),
        }
    }
    let asked: Cow<'_, [u16]> = match transport {
        Ok(Transport::Udp) if !over_udp => sensitive.iter().copied().filter(|port| speaks_udp(*port)).collect(),
        _ => sensitive.into(),
    };
    match rule.opened(&asked) {
        Ok(opened) if opened.is_empty() => return Ok(opened),
        Ok(opened) if unknown.is_empty() => return Ok(opened),
        Ok(_) => {}
        Err(reason) => unknown.push(reason),
    }
    Err(unknown.join("; "))
}

/// Whether a condition holds.
enum Holds {
    Yes,
    No,
    /// It cannot be said, for this reason.
    Unknown(String),
}

/// Which ports a protocol has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Those of all protocols.
    Every,
    /// Those of TCP.
    Tcp,
    /// Those of UDP.
    Udp,
    /// None, or those of yet another protocol.
    Neither,
}

/// What a protocol is, by its name or number as clouds write it; `None` if it is none.
#[must_use]
pub fn transport(protocol: &str) -> Option<Transport> {
    const OTHERS: [&str; 16] = [
        "icmp",
        "icmpv6",
        "ipv6-icmp",
        "igmp",
        "esp",
        "ah",
        "gre",
        "sctp",
        "ipip",
        "udplite",
        "vrrp",
        "ospf",
        "pim",
        "dccp",
        "rsvp",
        "l2tp",
    ];
    let protocol = protocol.trim();
    if let Ok(number) = protocol.parse::<i64>() {
        return match number {
            -1 => Some(Transport::Every),
            6 => Some(Transport::Tcp),
            17 => Some(Transport::Udp),
            0..=255 => Some(Transport::Neither),
            _ => None,
        };
    }
    let is = |word: &&str| word.eq_ignore_ascii_case(protocol);
    if ["all", "any", "*"].iter().any(is) {
        Some(Transport::Every)
    } else if is(&"tcp") {
        Some(Transport::Tcp)
    } else if is(&"udp") {
        Some(Transport::Udp)
    } else {
        OTHERS.iter().any(is).then_some(Transport::Neither)
    }
}

/// Whether a service listens on this port over UDP: a rule that opens TCP's sensitive ports over UDP opens nothing.
#[must_use]
pub fn speaks_udp(port: u16) -> bool {
    // DNS, DHCP, TFTP, portmapper, NTP, NetBIOS, SNMP, LDAP, QUIC, IKE, syslog, RIP, IPMI, OpenVPN, SQL Server browser,
    // L2TP, RADIUS, SSDP, NFS, Remote Desktop, STUN, WS-Discovery, SIP, mDNS, LLMNR, memcached, WireGuard and the old
    // echo, discard, daytime, quote, chargen and time.
    const PORTS: [u16; 44] = [
        7, 9, 13, 17, 19, 37, 53, 67, 68, 69, 111, 123, 137, 138, 161, 162, 389, 443, 500, 514, 520, 623, 1194, 1434,
        1645, 1646, 1701, 1812, 1813, 1900, 2049, 2123, 2152, 3389, 3478, 3702, 4500, 5060, 5353, 5355, 10_001, 11_211,
        27_015, 51_820,
    ];
    PORTS.binary_search(&port).is_ok()
}

struct Rule<'r>(&'r Object<'r>);

impl<'r> Rule<'r> {
    fn is_enabled(&self) -> Holds {
        match self.0.get("enabled") {
            Some(Json::Bool(true)) => Holds::Yes,
            Some(Json::Bool(false)) => Holds::No,
            other => Holds::Unknown(reason("enabled", other)),
        }
    }

    /// Whether the text of a field is among the first words or the second, in any case.
    fn one_of(&self, field: &str, yes: &[&str], no: &[&str]) -> Holds {
        let found = self.0.get(field);
        let Some(text) = found.and_then(Json::as_text) else { return Holds::Unknown(reason(field, found)) };
        let among = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text.trim()));
        match (among(yes), among(no)) {
            (true, _) => Holds::Yes,
            (_, true) => Holds::No,
            _ => Holds::Unknown(reason(field, found)),
        }
    }

    fn transport(&self) -> Result<Transport, String> {
        let found = self.0.get("protocol");
        let protocol = found.and_then(token).as_deref().and_then(transport);
        protocol.ok_or_else(|| reason("protocol", found))
    }

    fn is_from_the_internet(&self) -> Holds {
        const FIELD: &str = "source_addresses";
        let found = self.0.get(FIELD);
        let Some(list) = found.and_then(items) else { return Holds::Unknown(reason(FIELD, found)) };
        let sources = list.iter().filter_map(Json::as_text);
        let unread = match networks::coverage(sources) {
            Coverage::Whole => return Holds::Yes,
            Coverage::Part => list.iter().find(|item| item.as_text().is_none()).map(written),
            Coverage::Unclear(source) => Some(source.to_owned()),
        };
        // No sources at all is no gap: where application security groups, tags or service accounts are the sources,
        // which only machines of the network have, the list is empty.
        unread.map_or(Holds::No, |source| Holds::Unknown(not_understood(FIELD, &source)))
    }

    /// Those of the ports that the rule opens; the reason if that cannot be said.
    fn opened(&self, sensitive: &[u16]) -> Result<Vec<u16>, String> {
        const FIELD: &str = "destination_ports";
        if sensitive.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.0.get(FIELD);
        let list = found.and_then(items).filter(|list| !list.is_empty());
        let Some(list) = list else { return Err(reason(FIELD, found)) };
        opened(list, sensitive).map_err(|token| not_understood(FIELD, &token))
    }
}

/// Those of the ports, which must be sorted, that a list of tokens opens.
///
/// # Errors
/// A token that cannot be understood, when the others open none.
pub fn opened(tokens: &[Json<'_>], sensitive: &[u16]) -> Result<Vec<u16>, String> {
    let read = |item: &Json<'_>| token(item).as_deref().and_then(ports::parse);
    let found = ports::within(sensitive, tokens.iter().filter_map(read).collect());
    match tokens.iter().find(|item| read(item).is_none()) {
        Some(item) if found.is_empty() => Err(item.as_text().map_or_else(|| written(item), str::to_owned)),
        _ => Ok(found),
    }
}

/// A text, or the digits of a whole number.
fn token<'j>(json: &'j Json<'_>) -> Option<Cow<'j, str>> {
    match json {
        Json::Text(text) => Some(Cow::Borrowed(text)),
        Json::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// The items of a list. A text alone is the list of it.
fn items<'j, 'a>(json: &'j Json<'a>) -> Option<&'j [Json<'a>]> {
    match json {
        Json::List(items) => Some(items),
        Json::Text(_) => Some(std::slice::from_ref(json)),
        _ => None,
    }
}

/// Why a field does not say what it should.
fn reason(field: &str, found: Option<&Json<'_>>) -> String {
    match found {
        None => format!("com.{field} is missing"),
        Some(Json::Null) => format!("com.{field} is null"),
        Some(Json::List(items)) if items.is_empty() => format!("com.{field} is empty"),
        Some(Json::Text(text)) => not_understood(field, text),
        Some(other) => not_understood(field, &written(other)),
    }
}

fn not_understood(field: &str, found: &str) -> String {
    format!("com.{field} cannot be understood: `{}`", excerpt(found))
}

/// A value as JSON, or what kind it is if that may be long.
fn written(json: &Json<'_>) -> String {
    match json {
        Json::List(_) | Json::Object(_) => json.kind().to_owned(),
        scalar => serde_json::to_string(scalar).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SENSITIVE: [u16; 6] = [22, 1433, 1521, 3306, 3389, 5432];

    /// What is said of a rule that has some fields changed, or taken away by "absent".
    fn judged(changes: &serde_json::Value) -> Result<Vec<u16>, String> {
        let mut com = json!({
            "cloud_type": "azure", "record_type": "firewall_rule", "reference": "/nsg/r1", "enabled": true,
            "direction": "in", "access": "allow", "source_addresses": ["0.0.0.0/0"], "protocol": "tcp",
            "destination_ports": ["22"],
        });
        for (name, value) in changes.as_object().unwrap() {
            com[name] = value.clone();
            if value == "absent" {
                com.as_object_mut().unwrap().remove(name);
            }
        }
        let Json::Object(com) = Json::from(&com) else { panic!() };
        exposed(&com, &SENSITIVE)
    }

    #[track_caller]
    fn opens(changes: &serde_json::Value, ports: &[u16]) {
        assert_eq!(judged(changes).as_deref(), Ok(ports), "{changes}");
    }

    #[test]
    fn everyone_in_any_spelling() {
        opens(&json!({}), &[22]);
        for sources in [
            json!(["::/0"]),
            json!(["*"]),
            json!(["internet"]),
            json!(["ANY"]),
            json!(["0.0.0.0/1", "128.0.0.0/1"]),
            json!("0.0.0.0/0"),
            json!(["10.0.0.0/8", "Internet"]),
            json!([5, "*"]),
        ] {
            opens(&json!({"source_addresses": sources}), &[22]);
        }
        for sources in [json!([]), json!(["10.0.0.0/8"]), json!(["VirtualNetwork"]), json!(["0.0.0.0/1"])] {
            opens(&json!({"source_addresses": sources}), &[]);
        }
    }

    #[test]
    fn rules_by_tag_or_service_account_are_not_everyone() {
        for cloud in ["azure", "gcp"] {
            opens(&json!({"cloud_type": cloud, "source_addresses": []}), &[]);
            let reason = judged(&json!({"cloud_type": cloud, "source_addresses": null}));
            assert_eq!(reason, Err("com.source_addresses is null".to_owned()));
        }
        opens(&json!({"cloud_type": "gcp", "direction": "out", "source_addresses": null}), &[]);
        assert!(judged(&json!({"cloud_type": "gcp", "source_addresses": "absent"})).is_err());
    }

    #[test]
    fn protocols_by_name_and_by_number() {
        let all = json!(["0-65535"]);
        for protocol in
            [json!("tcp"), json!("TCP"), json!("6"), json!(6), json!("all"), json!("*"), json!("Any"), json!(-1)]
        {
            opens(&json!({"protocol": protocol, "destination_ports": all}), &SENSITIVE);
        }
        for protocol in [json!("udp"), json!("UDP"), json!(17), json!("17")] {
            opens(&json!({"protocol": protocol, "destination_ports": all}), &[3389]);
            opens(&json!({"protocol": protocol, "destination_ports": ["22"]}), &[]);
        }
        for protocol in [json!("icmp"), json!("esp"), json!(1), json!("132"), json!(0)] {
            opens(&json!({"protocol": protocol, "destination_ports": all}), &[]);
        }
        for protocol in [json!(""), json!("tcpp"), json!(256), json!(null), json!(6.5), json!(["tcp"]), json!("absent")]
        {
            assert!(judged(&json!({"protocol": protocol})).unwrap_err().contains("protocol"), "{protocol}");
        }
    }

    #[test]
    fn ports_that_are_asked_for_over_udp_need_not_be_known() {
        let com = |protocol: &str| {
            Json::from(&json!({
                "enabled": true, "direction": "in", "access": "allow", "source_addresses": ["*"],
                "protocol": protocol, "destination_ports": ["8125"],
            }))
        };
        for (protocol, ports) in [("udp", &[8125][..]), ("17", &[8125]), ("all", &[8125]), ("tcp", &[]), ("icmp", &[])]
        {
            let Json::Object(com) = com(protocol) else { panic!() };
            assert_eq!(exposed_udp(&com, &[53, 8125]).as_deref(), Ok(ports), "{protocol}");
        }
        let Json::Object(com) = com("?") else { panic!() };
        assert!(exposed_udp(&com, &[8125]).unwrap_err().contains("com.protocol"));
    }

    #[test]
    fn one_condition_that_does_not_hold_is_enough() {
        for changes in [
            json!({"enabled": false, "direction": null, "protocol": "?"}),
            json!({"direction": "OUT", "source_addresses": {"a": 1}}),
            json!({"access": "Deny", "destination_ports": "absent"}),
            json!({"destination_ports": ["80"], "enabled": "yes"}),
        ] {
            opens(&changes, &[]);
        }
    }

    #[test]
    fn what_cannot_be_said_names_every_field() {
        let reason = judged(&json!({"enabled": 1, "access": "absent", "destination_ports": ["ssh"]})).unwrap_err();
        assert_eq!(
            reason,
            "com.enabled cannot be understood: `1`; com.access is missing; \
             com.destination_ports cannot be understood: `ssh`"
        );
        assert!(judged(&json!({"source_addresses": ["- ".repeat(1 << 20)]})).unwrap_err().len() < 200);
    }

    #[test]
    fn ports_that_cannot_be_understood() {
        opens(&json!({"destination_ports": ["ssh", "22"]}), &[22]);
        opens(&json!({"destination_ports": [22]}), &[22]);
        for ports in [json!([]), json!(null), json!([null]), json!(["22-"]), json!([65536]), json!([-1]), json!([22.5])]
        {
            assert!(judged(&json!({"destination_ports": ports})).is_err(), "{ports}");
        }
    }

    #[test]
    fn the_table_of_udp_ports_is_sorted() {
        assert!((0..=u16::MAX).filter(|port| speaks_udp(*port)).count() == 44);
    }
}
