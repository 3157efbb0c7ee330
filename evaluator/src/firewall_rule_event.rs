//! FirewallRuleEvent: a firewall rule opens sensitive ports to the whole Internet.
//!
//! It looks at one rule by itself, in the form that all clouds' rules are brought into. Whether another rule of
//! higher priority denies the same, and whether anything stands behind the firewall, it does not know.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use proto::catalogue::{ParamError, PluginClass};
use proto::config::params;
use proto::plan::Stage;
use proto::subject::Role;
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::native::networks::{self, Coverage};
use crate::native::ports;
use crate::plugin::{EventDraft, EventPlugin, Outcome, Record, friendly_cloud};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.events.firewallruleevent.FirewallRuleEvent",
    roles: &[Role::Event],
    stage: Stage::Evaluator,
    exclusive: false,
    pool: None,
    check: Some(check),
};

/// SSH, SQL Server, Oracle, MySQL, Remote Desktop and PostgreSQL.
const SENSITIVE_PORTS: [u16; 6] = [22, 1433, 1521, 3306, 3389, 5432];

/// Checks parameters.
///
/// # Errors
/// All that is wrong with them.
pub fn check(params: &Value) -> Result<(), Vec<ParamError>> {
    params::read::<Params>(params).map(drop)
}

/// Builds the plugin of its parameters.
///
/// # Errors
/// All that is wrong with them.
pub fn build(params: &Value) -> Result<Box<dyn EventPlugin>, Vec<ParamError>> {
    let ports = match params::read::<Params>(params)?.ports {
        Some(ports) => ports.into_iter().map(|port| port.0).collect(),
        None => BTreeSet::from(SENSITIVE_PORTS),
    };
    Ok(Box::new(FirewallRuleEvent { ports: ports.into_iter().collect() }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The ports that nobody should reach from everywhere.
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

/// A port as configurations write it: a number, or its digits as a text.
#[derive(Debug)]
struct Port(u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port from 0 to 65535")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Port, E> {
        let port = u16::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))?;
        Ok(Port(port))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Port, E> {
        if number.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&number) {
            return Ok(Port(number as u16)); // 22.0, as a program may have written it
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Port, E> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse().ok().filter(|_| digits);
        port.map(Port).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[derive(Debug)]
struct FirewallRuleEvent {
    /// Sorted, each once.
    ports: Vec<u16>,
}

impl EventPlugin for FirewallRuleEvent {
    fn evaluate(&self, record: &Record<'_>, events: &mut Vec<EventDraft>) -> Outcome {
        if record.head.record_type.as_deref() != Some("firewall_rule") {
            return Outcome::NotApplicable;
        }
        let Some(com) = record.view.com else { return Outcome::NotApplicable };
        match Rule::read(com) {
            Ok(rule) => self.judge(&rule, record, events),
            Err(error) => Outcome::Unknown(format!("com cannot be read: {error}")),
        }
    }
}

impl FirewallRuleEvent {
    /// One condition that does not hold is enough to pass, whatever is unknown of the others.
    fn judge(&self, rule: &Rule<'_>, record: &Record<'_>, events: &mut Vec<EventDraft>) -> Outcome {
        let from_internet = |rule: &Rule<'_>| rule.is_from_the_internet(record.head.cloud_type.as_deref());
        let conditions: [&dyn Fn(&Rule<'_>) -> Holds; 5] = [
            &|rule| rule.is_enabled(),
            &|rule| rule.is_inbound(),
            &|rule| rule.is_allowing(),
            &|rule| rule.is_tcp(),
            &from_internet,
        ];
        let mut unknown = Vec::new();
        for condition in conditions {
            match condition(rule) {
                Holds::Yes => {}
                Holds::No => return Outcome::Pass,
                Holds::Unknown(reason) => unknown.push(reason),
            }
        }
        let exposed = match rule.exposed(&self.ports) {
            Ok(exposed) if exposed.is_empty() => return Outcome::Pass,
            Ok(exposed) => exposed,
            Err(reason) => {
                unknown.push(reason);
                Vec::new()
            }
        };
        if !unknown.is_empty() {
            return Outcome::Unknown(unknown.join("; "));
        }
        events.push(draft(record, exposed));
        Outcome::Fail
    }
}

fn draft(record: &Record<'_>, exposed: Vec<u16>) -> EventDraft {
    let cloud = friendly_cloud(record.head.cloud_type.as_deref().filter(|cloud| !cloud.is_empty()));
    let resource = record.head.reference.as_deref().filter(|reference| !reference.is_empty()).unwrap_or("(no id)");
    let ports = ports::phrase(&exposed);
    EventDraft {
        event_type: "firewall_rule_event",
        sub_key: String::new(),
        ext: Vec::new(),
        com: vec![("exposed_ports", exposed.into())],
        with_source: true,
        description: format!("{cloud} firewall rule {resource} exposes {ports} to the entire Internet."),
        recommendation: format!(
            "Check {cloud} firewall rule {resource} and restrict {ports} to the addresses that need it."
        ),
    }
}

/// Whether a condition holds.
enum Holds {
    Yes,
    No,
    /// It cannot be said, for this reason.
    Unknown(String),
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// The fields of `com` that make a firewall rule, each unparsed: one that is not as it should be leaves the others
/// readable. `None` is a field that is absent.
#[derive(Deserialize)]
struct Rule<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    enabled: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    direction: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    access: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    source_addresses: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    protocol: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    destination_ports: Option<&'a RawValue>,
}

/// Takes null as a value of the field, not as its absence.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl<'a> Rule<'a> {
    fn read(com: &'a RawValue) -> serde_json::Result<Self> {
        serde_json::from_str(com.get())
    }

    fn is_enabled(&self) -> Holds {
        match self.enabled.map(RawValue::get) {
            Some("true") => Holds::Yes,
            Some("false") => Holds::No,
            other => unclear("enabled", other),
        }
    }

    fn is_inbound(&self) -> Holds {
        one_of("direction", self.direction, &["in"], &["out"])
    }

    fn is_allowing(&self) -> Holds {
        one_of("access", self.access, &["allow"], &["deny"])
    }

    fn is_tcp(&self) -> Holds {
        let json = self.protocol.map(RawValue::get);
        let Some(protocol) = json.and_then(token) else { return unclear("protocol", json) };
        let protocol = protocol.trim();
        match protocol.parse() {
            Ok(ALL_PROTOCOLS | TCP) => Holds::Yes,
            Ok(0..=255) => Holds::No,
            Ok(_) => unclear("protocol", json),
            Err(_) => one_of("protocol", self.protocol, &["tcp", "all", "any", "*"], OTHER_PROTOCOLS),
        }
    }

    fn is_from_the_internet(&self, cloud_type: Option<&str>) -> Holds {
        let json = self.source_addresses.map(RawValue::get);
        if json == Some("null") && cloud_type == Some("gcp") {
            return Holds::No; // sources are given by tags or service accounts, which only machines of the network have
        }
        let Some(list) = self.source_addresses.and_then(items) else { return unclear("source_addresses", json) };
        let sources: Vec<Cow<'_, str>> = list.iter().filter_map(|item| text(item.get())).collect();
        let no_text = || list.iter().map(|item| item.get()).find(|item| text(item).is_none());
        let unread = match networks::coverage(sources.iter().map(AsRef::as_ref)) {
            Coverage::Whole => return Holds::Yes,
            Coverage::Part => no_text(),
            Coverage::Unclear(source) => Some(source),
        };
        // No sources at all is no gap: Azure lists none where application security groups are the sources.
        unread.map_or(Holds::No, |source| Holds::Unknown(not_understood("source_addresses", source)))
    }

    /// Those of the ports that the rule opens; the reason if that cannot be said.
    fn exposed(&self, sensitive: &[u16]) -> Result<Vec<u16>, String> {
        if sensitive.is_empty() {
            return Ok(Vec::new());
        }
        let json = self.destination_ports.map(RawValue::get);
        let list = self.destination_ports.and_then(items).filter(|list| !list.is_empty());
        let Some(list) = list else { return Err(reason("destination_ports", json)) };
        let tokens = || list.iter().map(|item| token(item.get()).unwrap_or(item.get().into()));
        let exposed = ports::within(sensitive, tokens().filter_map(|token| ports::parse(&token)).collect());
        let unread = if exposed.is_empty() { tokens().find(|token| ports::parse(token).is_none()) } else { None };
        match unread {
            Some(token) => Err(not_understood("destination_ports", &token)),
            None => Ok(exposed),
        }
    }
}

const ALL_PROTOCOLS: i64 = -1;
const TCP: i64 = 6;

/// Protocols that have no TCP ports, by the names that the clouds use.
const OTHER_PROTOCOLS: &[&str] = &[
    "udp",
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
];

/// Whether the text of a field is among the first words or the second, in any case.
fn one_of(field: &str, json: Option<&RawValue>, yes: &[&str], no: &[&str]) -> Holds {
    let json = json.map(RawValue::get);
    let Some(text) = json.and_then(text) else { return unclear(field, json) };
    let among = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text.trim()));
    match (among(yes), among(no)) {
        (true, _) => Holds::Yes,
        (_, true) => Holds::No,
        _ => unclear(field, json),
    }
}

/// The text that JSON holds, if it holds one.
fn text(json: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str(json).ok().map(|Text(text)| text)
}

/// A text, or the digits of a number.
fn token(json: &str) -> Option<Cow<'_, str>> {
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if is_number { Some(json.into()) } else { text(json) }
}

/// The items of a list. A text alone is the list of it.
fn items(json: &RawValue) -> Option<Vec<&RawValue>> {
    match json.get().bytes().next() {
        Some(b'"') => Some(vec![json]),
        Some(b'[') => serde_json::from_str(json.get()).ok(),
        _ => None,
    }
}

fn unclear(field: &str, found: Option<&str>) -> Holds {
    Holds::Unknown(reason(field, found))
}

/// Why a field does not say what it should.
fn reason(field: &str, found: Option<&str>) -> String {
    match found {
        None => format!("com.{field} is missing"),
        Some("null") => format!("com.{field} is null"),
        Some("[]") => format!("com.{field} is empty"),
        Some(found) => not_understood(field, found),
    }
}

fn not_understood(field: &str, found: &str) -> String {
    format!("com.{field} cannot be understood: `{}`", excerpt(found))
}

/// The beginning of a text that may be of any size.
fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a plugin with these parameters says of a rule that has some fields changed, or taken away by "absent".
    fn judged(params: &Value, changes: &Value) -> (Outcome, Vec<EventDraft>) {
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
        let text = json!({"raw": null, "ext": {}, "com": com}).to_string();
        let mut events = Vec::new();
        let plugin = build(params).unwrap_or_else(|errors| panic!("{params}: {errors:?}"));
        (plugin.evaluate(&Record::parse(text.as_bytes()).unwrap(), &mut events), events)
    }

    fn outcome(changes: &Value) -> Outcome {
        judged(&json!({}), changes).0
    }

    fn exposed(params: &Value, changes: &Value) -> Value {
        let (outcome, events) = judged(params, changes);
        assert_eq!(outcome, Outcome::Fail, "{changes}");
        assert_eq!(events.len(), 1, "{changes}");
        assert_eq!(events[0].com[0].0, "exposed_ports");
        events[0].com[0].1.clone()
    }

    #[test]
    fn an_open_rule_is_told_in_plain_sentences() {
        let (outcome, events) = judged(&Value::Null, &json!({}));
        assert_eq!(outcome, Outcome::Fail);
        assert_eq!(
            events,
            [EventDraft {
                event_type: "firewall_rule_event",
                sub_key: String::new(),
                ext: vec![],
                com: vec![("exposed_ports", json!([22]))],
                with_source: true,
                description: "Azure firewall rule /nsg/r1 exposes port 22 to the entire Internet.".into(),
                recommendation: "Check Azure firewall rule /nsg/r1 and restrict port 22 to the addresses that need it."
                    .into(),
            }]
        );
        let ports = json!(["*"]);
        let changes = json!({"cloud_type": "gcp", "reference": "absent", "destination_ports": ports});
        let (_, events) = judged(&json!({"ports": [3389, 22, 1433]}), &changes);
        assert_eq!(
            events[0].description,
            "Google Cloud Platform (GCP) firewall rule (no id) exposes ports 22, 1433, and 3389 to the entire Internet."
        );
    }

    #[test]
    fn rules_that_are_open_in_whatever_way_it_is_written() {
        for changes in [
            json!({"source_addresses": ["::/0"]}),
            json!({"source_addresses": ["*"]}),
            json!({"source_addresses": ["internet"]}),
            json!({"source_addresses": ["ANY", null]}),
            json!({"source_addresses": ["0.0.0.0/1", "128.0.0.0/1"]}),
            json!({"source_addresses": "0.0.0.0/0"}),
            json!({"direction": "IN", "access": "Allow"}),
            json!({"protocol": "TCP"}),
            json!({"protocol": "all"}),
            json!({"protocol": "Any"}),
            json!({"protocol": "*"}),
            json!({"protocol": "6"}),
            json!({"protocol": 6}),
            json!({"protocol": "-1"}),
            json!({"protocol": -1}),
            json!({"destination_ports": [22]}),
            json!({"destination_ports": "22"}),
            json!({"destination_ports": ["*"], "protocol": "all"}),
            json!({"destination_ports": ["x", "20-25", null]}),
        ] {
            assert_eq!(outcome(&changes), Outcome::Fail, "{changes}");
        }
    }

    #[test]
    fn one_thing_that_closes_a_rule_is_enough() {
        let closing = [
            json!({"enabled": false}),
            json!({"direction": "out"}),
            json!({"access": "deny"}),
            json!({"protocol": "udp"}),
            json!({"protocol": "17"}),
            json!({"protocol": 0}),
            json!({"source_addresses": ["10.0.0.0/8"]}),
            json!({"source_addresses": []}),
            json!({"source_addresses": ["VirtualNetwork"]}),
            json!({"destination_ports": ["23", "8000-9000"]}),
        ];
        let fields = ["enabled", "direction", "access", "protocol", "source_addresses", "destination_ports"];
        for changes in &closing {
            assert_eq!(outcome(changes), Outcome::Pass, "{changes}");
            for field in fields.iter().filter(|field| changes.get(**field).is_none()) {
                for gap in [json!("absent"), json!(null), json!({"a": []})] {
                    let mut changes = changes.clone();
                    changes[*field] = gap;
                    assert_eq!(outcome(&changes), Outcome::Pass, "{changes}");
                }
            }
        }
    }

    #[test]
    fn a_gcp_rule_for_tagged_sources_is_closed() {
        assert_eq!(outcome(&json!({"cloud_type": "gcp", "source_addresses": null})), Outcome::Pass);
        let absent = outcome(&json!({"cloud_type": "gcp", "source_addresses": "absent"}));
        assert_eq!(absent, Outcome::Unknown("com.source_addresses is missing".into()));
    }

    #[test]
    fn what_is_missing_or_unreadable_is_unknown_by_name() {
        for (changes, reason) in [
            (json!({"enabled": null}), "com.enabled is null"),
            (json!({"enabled": "false"}), "com.enabled cannot be understood: `\"false\"`"),
            (json!({"direction": "absent"}), "com.direction is missing"),
            (json!({"access": null}), "com.access is null"),
            (json!({"protocol": ""}), "com.protocol cannot be understood: `\"\"`"),
            (json!({"protocol": 256}), "com.protocol cannot be understood: `256`"),
            (json!({"source_addresses": null}), "com.source_addresses is null"),
            (
                json!({"source_addresses": {"0.0.0.0/0": 1}}),
                "com.source_addresses cannot be understood: `{\"0.0.0.0/0\":1}`",
            ),
            (json!({"source_addresses": ["10.0.0.0/8", null]}), "com.source_addresses cannot be understood: `null`"),
            (json!({"source_addresses": ["10.0.0.0/40"]}), "com.source_addresses cannot be understood: `10.0.0.0/40`"),
            (json!({"destination_ports": null}), "com.destination_ports is null"),
            (json!({"destination_ports": []}), "com.destination_ports is empty"),
            (json!({"destination_ports": ["23", "ssh"]}), "com.destination_ports cannot be understood: `ssh`"),
            (json!({"destination_ports": [23, {}]}), "com.destination_ports cannot be understood: `{}`"),
            (
                json!({"enabled": null, "destination_ports": "absent"}),
                "com.enabled is null; com.destination_ports is missing",
            ),
        ] {
            assert_eq!(judged(&json!({}), &changes), (Outcome::Unknown(reason.into()), vec![]), "{changes}");
        }
    }

    #[test]
    fn a_reason_is_short_however_long_the_value() {
        let Outcome::Unknown(reason) = outcome(&json!({"destination_ports": ["é".repeat(1 << 20)]})) else {
            panic!("a long text is no port");
        };
        assert!(reason.len() < 250, "{reason}");
    }

    #[test]
    fn only_firewall_rules_are_looked_at() {
        for record_type in [json!("firewall"), json!(null), json!("absent")] {
            assert_eq!(outcome(&json!({"record_type": record_type})), Outcome::NotApplicable);
        }
    }

    #[test]
    fn the_ports_can_be_chosen() {
        let all = json!({"destination_ports": ["0-65535"]});
        assert_eq!(exposed(&json!({}), &all), json!(SENSITIVE_PORTS));
        assert_eq!(exposed(&json!({"ports": null}), &all), json!(SENSITIVE_PORTS));
        assert_eq!(exposed(&json!({"ports": [443, "80", 8080, 80, 22.0, 0]}), &all), json!([0, 22, 80, 443, 8080]));
        assert_eq!(judged(&json!({"ports": []}), &all).0, Outcome::Pass);
        assert_eq!(judged(&json!({"ports": []}), &json!({"destination_ports": null})).0, Outcome::Pass);
    }

    #[test]
    fn wrong_parameters_are_refused() {
        for params in [
            json!({"ports": 22}),
            json!({"ports": [true]}),
            json!({"ports": [22, 65536]}),
            json!({"ports": [-1]}),
            json!({"ports": [22.5]}),
            json!({"ports": ["2²"]}),
            json!({"ports": ["+22"]}),
            json!({"ports": [null]}),
            json!({"port": [22]}),
            json!([22]),
        ] {
            assert_eq!(check(&params).unwrap_err().len(), 1, "{params}");
            assert!(build(&params).is_err());
        }
        let errors = check(&json!({"ports": [22, 65536, "x"]})).unwrap_err();
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["ports[1]", "ports[2]"]);
        assert_eq!(errors[0].message, "found the number 65536; a port from 0 to 65535 is expected");
    }
}
