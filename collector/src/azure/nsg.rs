//! Network security groups and their rules, normalised into firewall rules.
//!
//! Reference: <https://learn.microsoft.com/rest/api/virtualnetwork/network-security-groups/list-all>, the definitions
//! `NetworkSecurityGroup` and `SecurityRule`.

use std::borrow::Cow;

use proto::record::Text;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::resource::{Made, Malformed, Raw, Record, checked_id};
use super::service::Item;
use crate::fields::Fields;

/// The address range that stands for every address.
const EVERYWHERE: &str = "0.0.0.0/0";
/// The port range that stands for every port.
const EVERY_PORT: &str = "0-65535";

/// A group, in the shape of the API. The rules that Azure adds to each group (`defaultSecurityRules`) are no
/// configuration of anybody's, and are left out.
#[derive(Debug, Deserialize)]
struct Group<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    properties: GroupProperties<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupProperties<'a> {
    #[serde(borrow, default)]
    security_rules: Option<Vec<&'a RawValue>>,
}

/// A rule, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Rule<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    properties: RuleProperties<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuleProperties<'a> {
    #[serde(borrow)]
    provisioning_state: Option<Text<'a>>,
    #[serde(borrow)]
    direction: Option<Text<'a>>,
    #[serde(borrow)]
    access: Option<Text<'a>>,
    #[serde(borrow)]
    protocol: Option<Text<'a>>,
    priority: Option<f64>,
    #[serde(borrow)]
    source_application_security_groups: Option<Vec<Reference<'a>>>,
    #[serde(borrow)]
    source_address_prefix: Option<Text<'a>>,
    #[serde(borrow)]
    source_address_prefixes: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    destination_port_range: Option<Text<'a>>,
    #[serde(borrow)]
    destination_port_ranges: Option<Vec<Text<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Reference<'a> {
    #[serde(borrow)]
    id: Text<'a>,
}

/// What `com` says of a firewall rule, in words common to all clouds.
#[derive(Debug)]
struct FirewallRule<'a> {
    /// That Azure has put it to use. One whose last update is under way or has failed may be in force as it was or as
    /// it shall be: nobody can say.
    enabled: Option<bool>,
    /// `in`, `out`.
    direction: Option<Cow<'a, str>>,
    /// `allow`, `deny`.
    access: Option<Cow<'a, str>>,
    /// Address ranges and service tags; none when the sources are application security groups, and null when nothing
    /// is said of them.
    source_addresses: Option<Vec<Cow<'a, str>>>,
    /// `tcp`, `udp`, ..., `all`.
    protocol: Option<Cow<'a, str>>,
    /// Ports and ranges of ports.
    destination_ports: Vec<Cow<'a, str>>,
}

/// The records of a group: those of its rules, then its own.
pub(super) fn records(Item { raw, .. }: Item<'_>) -> Result<Made<'_>, Malformed> {
    let group: Group<'_> =
        serde_json::from_str(raw.get()).map_err(|error| Malformed::of("a network security group", raw, &error))?;
    let id = checked_id("a network security group", group.id)?;
    let mut made = Made { records: Vec::new(), lost: Vec::new() };
    for rule in group.properties.security_rules.unwrap_or_default() {
        match rule_record(&id, rule) {
            Ok(record) => made.records.push(record),
            Err(Malformed(reason)) => made.lost.push(format!("in {id}: {reason}")),
        }
    }
    made.records.push(Record::of("nsg", None, id, raw));
    Ok(made)
}

fn rule_record<'a>(nsg_id: &Cow<'a, str>, raw: &'a RawValue) -> Result<Record<'a>, Malformed> {
    let rule: Rule<'a> =
        serde_json::from_str(raw.get()).map_err(|error| Malformed::of("a security rule", raw, &error))?;
    let id = checked_id("a security rule", rule.id)?;
    let mut properties = rule.properties;
    let mut ext = Fields::new()
        .with("nsg_id", nsg_id.clone())
        .with("security_rule_id", id.clone())
        .with("priority", properties.priority.map(|priority| priority as i64));
    let groups = properties.source_application_security_groups.take().filter(|groups| !groups.is_empty());
    let is_from_groups = groups.is_some();
    if let Some(groups) = groups {
        let ids: Vec<_> = groups.into_iter().map(|group| group.id).collect();
        ext.set("source_application_security_groups", ids);
    }
    Ok(Record {
        record_type: "security_rule",
        common_type: Some("firewall_rule"),
        id,
        raw: Raw::Answer(raw),
        ext,
        com: FirewallRule::of(properties, is_from_groups).into_fields(),
    })
}

impl<'a> FirewallRule<'a> {
    fn of(rule: RuleProperties<'a>, is_from_groups: bool) -> Self {
        let sources: Vec<_> = all_of(rule.source_address_prefix, rule.source_address_prefixes).map(source).collect();
        Self {
            enabled: rule.provisioning_state.is_some_and(|state| state.to_lowercase() == "succeeded").then_some(true),
            direction: rule.direction.map(|direction| match lower(direction) {
                direction if direction == "inbound" => Cow::Borrowed("in"),
                direction if direction == "outbound" => Cow::Borrowed("out"),
                other => other,
            }),
            access: rule.access.map(lower),
            source_addresses: (is_from_groups || !sources.is_empty()).then_some(sources),
            protocol: rule.protocol.map(|protocol| match lower(protocol) {
                protocol if protocol == "*" => Cow::Borrowed("all"),
                other => other,
            }),
            destination_ports: all_of(rule.destination_port_range, rule.destination_port_ranges)
                .map(|ports| if ports == "*" { Cow::Borrowed(EVERY_PORT) } else { ports })
                .collect(),
        }
    }
}

impl<'a> FirewallRule<'a> {
    fn into_fields(self) -> Fields<'a> {
        Fields::new()
            .with("enabled", self.enabled)
            .with("direction", self.direction)
            .with("access", self.access)
            .with("source_addresses", self.source_addresses)
            .with("protocol", self.protocol)
            .with("destination_ports", self.destination_ports)
    }
}

/// The API has one value apart from many; often only one of the two is there, and it may be both. Beside a list, the
/// single value may be the empty text.
fn all_of<'a>(one: Option<Text<'a>>, many: Option<Vec<Text<'a>>>) -> impl Iterator<Item = Cow<'a, str>> {
    one.into_iter().filter(|text| !text.is_empty()).chain(many.into_iter().flatten()).map(|Text(text)| text)
}

/// Azure takes the service tag in any case, and the portal writes `Any`.
fn source(prefix: Cow<'_, str>) -> Cow<'_, str> {
    let is_everywhere = ["*", "any", "internet"].iter().any(|name| prefix.eq_ignore_ascii_case(name));
    if is_everywhere { Cow::Borrowed(EVERYWHERE) } else { prefix }
}

fn lower(Text(text): Text<'_>) -> Cow<'_, str> {
    if text.chars().any(char::is_uppercase) { Cow::Owned(text.to_lowercase()) } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::super::subscription::{self, Subscription};
    use super::*;

    const VECTORS: &str = include_str!("../../tests/data/azure_normalise.jsonl");
    const SUBSCRIPTION: &str = "a8daa361-b951-46b5-8e9d-b375f2ffe9fd";
    const TENANT: &str = "f3cfe067-d008-48f3-b026-cf0dd7409b25";

    const IN_FORCE: &str = "a rule whose update failed may be in force: it is not known to be off";
    const SOURCELESS: &str = "nothing is said of the sources: they are not known to be none";

    /// Where the vectors show what the Python tool did and something else is right.
    const DIFFERENCES: &[(&str, &str, &str)] = &[
        // function, a part of the input, why
        ("firewall_source_addresses", r#""internet""#, "service tags have no case: it is everywhere"),
        ("firewall_rules", r#""security_rules":[{}"#, "neither id nor properties: counted as lost, not a record"),
        ("firewall_state", r#""provisioning_state":5"#, "the rule alone is lost, not all that follow"),
        ("firewall_state", r#""provisioning_state":"Failed""#, IN_FORCE),
        ("firewall_state", r#""provisioning_state":"""#, IN_FORCE),
        ("firewall_source_addresses", r#""source_address_prefix":"""#, SOURCELESS),
        ("firewall_source_addresses", "{}", SOURCELESS),
        ("firewall_source_addresses", r#""source_address_prefixes":null"#, SOURCELESS),
        ("firewall_source_addresses", r#"{"source_address_prefixes":[]}"#, SOURCELESS),
    ];

    fn difference(vector: &Value) -> Option<&'static str> {
        let input = vector["input"].to_string();
        let is_same =
            |(function, part, _): &&(&str, &str, &str)| vector["function"] == *function && input.contains(part);
        DIFFERENCES.iter().find(is_same).map(|(_, _, why)| *why)
    }

    /// The API's name of an attribute of the Python SDK.
    fn camel(snake: &str) -> String {
        let mut words = snake.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |name, word| {
            let (head, tail) = word.split_at(1);
            name + &head.to_uppercase() + tail
        })
    }

    /// The API's form of a resource of the Python SDK, which flattens `properties`.
    fn rest(flat: &Value) -> Value {
        let (mut outer, mut properties) = (Map::new(), Map::new());
        for (name, value) in flat.as_object().unwrap() {
            let value = match (name.as_str(), value) {
                ("security_rules", Value::Array(rules)) => rules.iter().map(rest).collect(),
                _ => value.clone(),
            };
            let is_outer = ["id", "name", "type", "location", "etag", "tags"].contains(&name.as_str());
            let side = if is_outer { &mut outer } else { &mut properties };
            side.insert(camel(name), value);
        }
        if !properties.is_empty() || !outer.contains_key("location") {
            outer.insert("properties".into(), properties.into());
        }
        outer.into()
    }

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).unwrap()
    }

    fn in_list(raw: &RawValue) -> Item<'_> {
        Item { raw, parent: "" }
    }

    fn subscription() -> Subscription {
        let item = json!({"id": format!("/subscriptions/{SUBSCRIPTION}"), "subscriptionId": SUBSCRIPTION,
            "displayName": "Contoso Prod", "state": "Enabled"});
        subscription::read(&raw(&item), TENANT).unwrap().0
    }

    fn written(record: &Record<'_>) -> Value {
        let raw: Value = serde_json::from_str(record.raw.get().unwrap().get()).unwrap();
        json!({"raw": raw, "ext": record.ext(&subscription(), true), "com": record.com()})
    }

    /// `com` of a rule with these attributes, and an id.
    fn com(input: &Value) -> Option<Value> {
        let mut item = rest(input);
        item["id"] = "/id".into();
        let raw = raw(&item);
        let record = rule_record(&"/nsg".into(), &raw).ok()?;
        Some(serde_json::to_value(record.com()).unwrap())
    }

    fn made(flat: &Value) -> (Vec<Value>, Vec<String>) {
        let mut item = rest(flat);
        if item.get("properties").is_none() {
            item["properties"] = json!({});
        }
        let raw = raw(&item);
        let made = records(in_list(&raw)).unwrap();
        (made.records.iter().map(written).collect(), made.lost)
    }

    fn vectors() -> Vec<Value> {
        VECTORS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn rules_are_normalised_as_the_python_tool_did() {
        let mut compared = 0;
        for vector in vectors() {
            let field = match vector["function"].as_str().unwrap() {
                "firewall_state" => "enabled",
                "firewall_direction" => "direction",
                "firewall_access" => "access",
                "firewall_protocol" => "protocol",
                "firewall_source_addresses" => "source_addresses",
                "firewall_destination_ports" => "destination_ports",
                _ => continue,
            };
            let found = com(&vector["input"]).map(|com| com[field].clone());
            if difference(&vector).is_some() {
                assert_ne!(found, vector.get("output").cloned().or(Some(Value::Null)), "no difference: {vector}");
            } else {
                assert_eq!(found, vector.get("output").cloned(), "{vector}");
            }
            compared += 1;
        }
        assert_eq!(compared, 37);
    }

    #[test]
    fn rules_come_with_their_group_as_the_python_tool_had_them() {
        let mut compared = 0;
        for vector in vectors().iter().filter(|vector| vector["function"] == "firewall_rules") {
            let (mut records, lost) = made(&vector["input"]["raw"]);
            let group = records.pop().unwrap();
            assert_eq!(group["ext"], vector["input"]["ext"]);
            // The Python tool gave a reference to few records; it belongs to all that have an id.
            assert_eq!(
                group["com"],
                json!({"cloud_type": "azure", "record_type": null,
                "reference": vector["input"]["raw"]["id"]})
            );
            let expected = vector["output"].as_array().unwrap();
            if difference(vector).is_some() {
                assert!(records.is_empty());
                assert_eq!(lost.len(), expected.len());
            } else {
                assert_eq!(records.len(), expected.len());
                for (record, expected) in records.iter().zip(expected) {
                    // The priority is ours.
                    let mut ext = record["ext"].clone();
                    ext.as_object_mut().unwrap().remove("priority");
                    ext.as_object_mut().unwrap().remove("source_application_security_groups");
                    assert_eq!(ext, expected["ext"]);
                    assert_eq!(record["com"], expected["com"]);
                    assert_eq!(record["raw"], rest(&expected["raw"]));
                }
            }
            compared += 1;
        }
        assert_eq!(compared, 6);
    }

    #[test]
    fn a_subscription_is_as_the_python_tool_had_it() {
        let vectors = vectors();
        let vector = vectors.iter().find(|vector| vector["function"] == "subscription_record").unwrap();
        let input = &vector["input"];
        let item = json!({"id": input["id"], "subscriptionId": input["subscription_id"],
            "displayName": input["display_name"], "state": input["state"]});
        let raw = raw(&item);
        let (_, record) = subscription::read(&raw, TENANT).unwrap();
        let expected = &vector["output"][0];
        assert_eq!(written(&record)["ext"], expected["ext"]);
        let mut com = expected["com"].clone();
        com["reference"] = input["id"].clone();
        assert_eq!(written(&record)["com"], com);
    }

    #[test]
    fn the_fields_have_the_order_of_the_python_tool() {
        let item =
            json!({"id": "/N", "properties": {"securityRules": [{"id": "/N/securityRules/R", "properties": {}}]}});
        let raw = raw(&item);
        let made = records(in_list(&raw)).unwrap();
        let com = serde_json::to_string(&made.records[0].com()).unwrap();
        assert_eq!(
            com,
            r#"{"cloud_type":"azure","record_type":"firewall_rule","reference":"/N/securityRules/R","enabled":null,"direction":null,"access":null,"source_addresses":null,"protocol":null,"destination_ports":[]}"#
        );
        assert_eq!(made.records[0].key(), "/n/securityrules/r");
    }

    #[test]
    fn everywhere_has_one_name() {
        for everywhere in ["*", "Internet", "INTERNET", "any", "Any"] {
            let com = com(&json!({"source_address_prefix": everywhere, "source_address_prefixes": [everywhere]}));
            assert_eq!(com.unwrap()["source_addresses"], json!(["0.0.0.0/0", "0.0.0.0/0"]), "{everywhere}");
        }
    }

    #[test]
    fn only_a_rule_that_is_in_use_is_known_to_be() {
        for (state, enabled) in [
            (json!("Succeeded"), json!(true)),
            (json!("succeeded"), json!(true)),
            (json!("Updating"), Value::Null),
            (json!("Failed"), Value::Null),
            (json!("Deleting"), Value::Null),
            (Value::Null, Value::Null),
        ] {
            assert_eq!(com(&json!({"provisioning_state": state})).unwrap()["enabled"], enabled, "{state}");
        }
    }

    #[test]
    fn no_sources_are_those_of_groups_only() {
        let groups = json!([{"id": "/asg"}]);
        for (rule, sources) in [
            (json!({}), Value::Null),
            (json!({"source_address_prefix": ""}), Value::Null),
            (json!({"source_address_prefix": "", "source_address_prefixes": []}), Value::Null),
            (json!({"source_application_security_groups": []}), Value::Null),
            (json!({"source_address_prefix": "", "source_address_prefixes": ["10.0.0.0/8"]}), json!(["10.0.0.0/8"])),
            (json!({"source_application_security_groups": groups}), json!([])),
            (json!({"source_application_security_groups": groups, "source_address_prefix": ""}), json!([])),
        ] {
            assert_eq!(com(&rule).unwrap()["source_addresses"], sources, "{rule}");
        }
    }

    #[test]
    fn the_answer_is_kept_as_it_is() {
        let text = r#"{ "id":"\/N", "properties":{"securityRules":[ {"id":"/r","properties":{"priority":1.0e2,"direction":"Inbound"}} ],"x":1.10} }"#;
        let raw = RawValue::from_string(text.into()).unwrap();
        let made = records(in_list(&raw)).unwrap();
        assert_eq!(
            made.records[0].raw.get().unwrap().get(),
            r#"{"id":"/r","properties":{"priority":1.0e2,"direction":"Inbound"}}"#
        );
        assert_eq!(made.records[1].raw.get().unwrap().get(), text);
        assert_eq!(made.records[1].id, "/N");
    }

    #[test]
    fn a_malformed_item_loses_only_itself() {
        let good = json!({"id": "/r", "properties": {}});
        for bad in [
            json!(null),
            json!(5),
            json!({"properties": {}}),
            json!({"id": 5, "properties": {}}),
            json!({"id": "", "properties": {}}),
            json!({"id": "/r"}),
            json!({"id": "/r", "properties": null}),
            json!({"id": "/r", "properties": {"direction": 5}}),
            json!({"id": "/r", "properties": {"sourceAddressPrefixes": "10.0.0.0/8"}}),
            json!({"id": "/r", "properties": {"destinationPortRanges": [22]}}),
        ] {
            let raw = raw(&json!({"id": "/n", "properties": {"securityRules": [good, bad, good]}}));
            let made = records(in_list(&raw)).unwrap();
            assert_eq!((made.records.len(), made.lost.len()), (3, 1), "{bad}");
        }
        for bad in [
            json!(null),
            json!({"properties": {}}),
            json!({"id": "/n", "properties": null}),
            json!({"id": "/n", "properties": {"securityRules": {}}}),
        ] {
            assert!(records(in_list(&raw(&bad))).is_err(), "{bad}");
        }
    }
}
