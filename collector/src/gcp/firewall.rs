//! Firewalls of a project's networks and their rules, normalised.
//!
//! What Google calls a firewall rule lets through, or keeps out, a list of protocols and ports: each entry of it gives
//! a record of its own.
//!
//! Reference: <https://cloud.google.com/compute/docs/reference/rest/v1/firewalls>.

use std::borrow::Cow;
use std::collections::HashMap;

use proto::record::Text;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::project::Project;
use super::record::{Made, Malformed, Names, Record, object};
use crate::fields::{Field, Fields};

/// The name of the type.
pub(super) const NAME: &str = "firewall";
/// What a rule's record is called.
const RULE: &str = "firewall_rule";
/// The path of the list, below a project.
pub(super) const PATH: &str = "/global/firewalls";
/// The port range that stands for every port.
const EVERY_PORT: &str = "0-65535";

/// A firewall, in the shape of the API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Firewall<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    self_link: Option<Text<'a>>,
    #[serde(borrow)]
    network: Option<Text<'a>>,
    priority: Option<i64>,
    #[serde(borrow)]
    direction: Option<Text<'a>>,
    disabled: Option<bool>,
    #[serde(borrow)]
    source_ranges: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    source_tags: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    source_service_accounts: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    target_tags: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    target_service_accounts: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    allowed: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    denied: Option<Vec<&'a RawValue>>,
}

/// An entry, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default, rename = "IPProtocol")]
    protocol: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    ports: Ports<'a>,
}

/// No ports are all ports, and null is what was there.
#[derive(Debug, Default)]
enum Ports<'a> {
    #[default]
    Absent,
    Present(Option<Vec<Text<'a>>>),
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Ports<'a>, D::Error> {
    Option::deserialize(deserializer).map(Ports::Present)
}

/// The records of a firewall: its own, then those of its entries.
pub(super) fn records<'a>(raw: &'a RawValue, project: &Project) -> Result<Made<'a>, Malformed> {
    let mut firewall: Firewall<'a> = object(raw).map_err(|error| Malformed::of("a firewall", raw, &error))?;
    let (id, name, self_link) = (firewall.id.take(), firewall.name.take(), firewall.self_link.take());
    let names = Names { id, name, self_link };
    let key = names.key(project, "global/firewalls").ok_or_else(|| Malformed::nameless("a firewall"))?;
    let mut made = Made::one(Record {
        record_type: NAME,
        common_type: None,
        key: key.clone(),
        reference: names.reference(),
        zone: None,
        raw,
        ext: Fields::new(),
        com: Fields::new(),
    });
    let lists = [("allow", firewall.allowed.take()), ("deny", firewall.denied.take())];
    let all = lists.into_iter().flat_map(|(access, list)| list.into_iter().flatten().map(move |raw| (access, raw)));
    // An order among all entries would give each another key when one is put before it.
    let mut equals: HashMap<String, usize> = HashMap::new();
    for (access, raw) in all {
        match object::<Entry<'a>>(raw) {
            Ok(entry) => {
                let protocol = entry.protocol.as_ref().map(lower);
                let kind = format!("{key}/{access}/{}", protocol.as_deref().unwrap_or_default());
                let ordinal = equals.entry(kind.clone()).or_insert(0);
                let key = format!("{kind}/{ordinal}");
                *ordinal += 1;
                made.records.push(Record {
                    record_type: RULE,
                    common_type: Some(RULE),
                    key,
                    reference: names.reference(),
                    zone: None,
                    raw,
                    ext: firewall.ext_of_a_rule(&names),
                    com: firewall.com_of_a_rule(access, protocol, entry.ports),
                });
            }
            Err(error) => made.lost.push(format!("in {key}: a rule cannot be understood: {error}")),
        }
    }
    Ok(made)
}

impl<'a> Firewall<'a> {
    fn ext_of_a_rule(&self, names: &Names<'a>) -> Fields<'a> {
        let list = |texts: &Option<Vec<Text<'a>>>| texts.clone().unwrap_or_default();
        Fields::new()
            .with("firewall_id", names.id.clone())
            .with("firewall_link", names.self_link.clone())
            .with("network", self.network.clone())
            .with("priority", self.priority)
            .with("source_tags", list(&self.source_tags))
            .with("source_service_accounts", list(&self.source_service_accounts))
            .with("target_tags", list(&self.target_tags))
            .with("target_service_accounts", list(&self.target_service_accounts))
    }

    fn com_of_a_rule(&self, access: &'static str, protocol: Option<Cow<'a, str>>, ports: Ports<'a>) -> Fields<'a> {
        let ports = match ports {
            Ports::Absent => Field::from(vec![Cow::Borrowed(EVERY_PORT)]),
            Ports::Present(ports) => Field::from(ports),
        };
        Fields::new()
            .with("enabled", !self.disabled.unwrap_or(false))
            .with("direction", self.direction())
            .with("source_addresses", self.source_addresses())
            .with("protocol", protocol)
            .with("destination_ports", ports)
            .with("access", access)
    }

    fn direction(&self) -> Option<Cow<'a, str>> {
        self.direction.as_ref().map(lower).map(|direction| match &*direction {
            "ingress" => Cow::Borrowed("in"),
            "egress" => Cow::Borrowed("out"),
            _ => direction,
        })
    }

    /// Whoever comes in by a tag or an account alone comes from no address that is known.
    fn source_addresses(&self) -> Option<Vec<Text<'a>>> {
        let is_named = |texts: &Option<Vec<Text<'_>>>| texts.as_ref().is_some_and(|texts| !texts.is_empty());
        match &self.source_ranges {
            Some(ranges) if !ranges.is_empty() => Some(ranges.clone()),
            _ if is_named(&self.source_tags) || is_named(&self.source_service_accounts) => Some(Vec::new()),
            // Google fills in 0.0.0.0/0 where nobody names a source: what has none is missing something.
            _ => None,
        }
    }
}

fn lower<'a>(Text(text): &Text<'a>) -> Cow<'a, str> {
    if text.chars().any(char::is_uppercase) { Cow::Owned(text.to_lowercase()) } else { text.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::super::project;
    use super::*;

    const VECTORS: &str = include_str!("../../tests/data/gcp_normalise.jsonl");
    const CLIENT_EMAIL: &str = "sa@p.iam.gserviceaccount.com";

    /// Where the vectors show what the Python tool did and something else is right, in all records of a function (the
    /// empty one: of all) alike. See [`expected`] for what depends on the firewall.
    const DIFFERENCES: &[(&str, &str, &str, &str, &str)] = &[
        // function, bucket, member, ours, why
        ("", "ext", "key_file_path", ABSENT, "where the key of an audit lies is nobody's business"),
        ("project_record", "com", "reference", "\"strong-augury-224506\"", "all records with an id have a reference"),
        ("project_record", "ext", "lifecycle_state", "\"ACTIVE\"", "says whether it can be read"),
        ("project_record", "ext", "project_number", "\"1\"", "Google's messages name a project by its number"),
    ];
    const ABSENT: &str = "absent";

    fn vectors(function: &str) -> Vec<Value> {
        let vectors = VECTORS.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        vectors.filter(|vector| vector["function"] == function).collect()
    }

    /// The Python tool's record, with our differences.
    fn expected(function: &str, record: &Value, firewall: Option<&Value>) -> Value {
        let mut record = record.clone();
        for (of, bucket, member, ours, _) in DIFFERENCES {
            if of.is_empty() || *of == function {
                let members: &mut Map<String, Value> = record[bucket].as_object_mut().unwrap();
                match *ours {
                    ABSENT => drop(members.remove(*member)),
                    ours => drop(members.insert((*member).to_owned(), serde_json::from_str(ours).unwrap())),
                }
            }
        }
        let Some(firewall) = firewall else { return record };
        if record["com"]["record_type"] == Value::Null {
            // All records with a link have a reference.
            if let Some(link) = firewall.get("selfLink") {
                record["com"]["reference"] = link.clone();
            }
            return record;
        }
        if record["com"]["reference"] == Value::Null {
            // Where there is none, there is none.
            record["com"].as_object_mut().unwrap().remove("reference");
        }
        // What a rule needs of its firewall, so that nobody has to find that.
        for (ours, theirs, absent) in [
            ("network", "network", Value::Null),
            ("priority", "priority", Value::Null),
            ("source_tags", "sourceTags", json!([])),
            ("source_service_accounts", "sourceServiceAccounts", json!([])),
            ("target_tags", "targetTags", json!([])),
            ("target_service_accounts", "targetServiceAccounts", json!([])),
        ] {
            record["ext"][ours] = firewall.get(theirs).cloned().unwrap_or(absent);
        }
        if firewall.get("sourceTags").is_some() && firewall.get("sourceRanges").is_none() {
            // Who comes by a tag alone comes from no address; the Python tool had null, on which its rules failed.
            record["com"]["source_addresses"] = json!([]);
        }
        record
    }

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).unwrap()
    }

    fn project() -> Project {
        Project {
            id: "strong-augury-224506".to_owned(),
            name: Some("My Project".to_owned()),
            number: Some("1".to_owned()),
        }
    }

    fn written(record: &Record<'_>, project: &Project) -> Value {
        json!({"raw": record.raw, "ext": record.ext(project, Some(CLIENT_EMAIL)), "com": record.com()})
    }

    /// The records of a firewall as JSON, and what was lost.
    fn made(firewall: &Value) -> (Vec<Value>, Vec<String>) {
        let raw = raw(firewall);
        let made = records(&raw, &project()).unwrap();
        (made.records.iter().map(|record| written(record, &project())).collect(), made.lost)
    }

    #[test]
    fn rules_are_as_the_python_tool_had_them() {
        let vectors = vectors("firewall_rules");
        assert_eq!(vectors.len(), 12);
        for vector in &vectors {
            let firewall = &vector["input"]["raw"];
            let (found, lost) = made(firewall);
            let own = json!({"raw": firewall, "ext": vector["input"]["ext"], "com": vector["input"]["com"]});
            let rules = vector["output"].as_array().unwrap();
            let all: Vec<Value> = std::iter::once(&own)
                .chain(rules)
                .map(|record| expected("firewall_rules", record, Some(firewall)))
                .collect();
            assert_eq!(found, all, "{firewall}");
            assert_eq!(lost, [""; 0]);
        }
    }

    #[test]
    fn a_firewall_comes_before_its_rules_as_with_the_python_tool() {
        let vectors = vectors("make_record");
        assert_eq!(vectors.len(), 2);
        for vector in &vectors {
            let mut found = Vec::new();
            let mut all = Vec::new();
            let mut theirs = vector["output"].as_array().unwrap().iter();
            for firewall in vector["input"]["raw_list"].as_array().unwrap() {
                let (records, _) = made(firewall);
                all.extend(theirs.by_ref().take(records.len()).map(|r| expected("make_record", r, Some(firewall))));
                found.extend(records);
            }
            assert_eq!(found, all);
            assert!(theirs.next().is_none());
        }
    }

    #[test]
    fn a_project_is_as_the_python_tool_had_it() {
        let vectors = vectors("project_record");
        assert_eq!(vectors.len(), 1);
        for vector in &vectors {
            let raw = raw(&vector["input"]);
            let read = project::read(&raw).unwrap();
            assert_eq!(read.project, project());
            let expected = expected("project_record", &vector["output"][0], None);
            assert_eq!(written(&read.record, &read.project), expected);
        }
    }

    #[test]
    fn the_fields_have_the_order_of_the_python_tool() {
        let raw = raw(&json!({"name": "f", "selfLink": "https://h/projects/p/global/firewalls/f", "allowed": [{}]}));
        let made = records(&raw, &project()).unwrap();
        assert_eq!(
            serde_json::to_string(&made.records[1].com()).unwrap(),
            r#"{"cloud_type":"gcp","record_type":"firewall_rule","reference":"https://h/projects/p/global/firewalls/f","enabled":true,"direction":null,"source_addresses":null,"protocol":null,"destination_ports":["0-65535"],"access":"allow"}"#
        );
        let ext = serde_json::to_string(&made.records[1].ext(&project(), None)).unwrap();
        let begin = r#"{"cloud_type":"gcp","record_type":"firewall_rule","project_id":"strong-augury-224506","project_name":"My Project","zone":null,"client_email":null,"firewall_id":null,"firewall_link":"https://h/projects/p/global/firewalls/f","network":null,"#;
        assert!(ext.starts_with(begin), "{ext}");
    }

    #[test]
    fn equal_rules_have_keys_of_their_own() {
        let tcp = json!({"IPProtocol": "tcp", "ports": ["22"]});
        let raw = raw(&json!({"name": "f", "allowed": [tcp, {"IPProtocol": "UDP"}, tcp], "denied": [tcp, {}]}));
        let made = records(&raw, &project()).unwrap();
        let keys: Vec<&str> = made.records.iter().map(|record| record.key.as_str()).collect();
        let firewall = "projects/strong-augury-224506/global/firewalls/f";
        let expected = ["", "/allow/tcp/0", "/allow/udp/0", "/allow/tcp/1", "/deny/tcp/0", "/deny//0"];
        assert_eq!(keys, expected.map(|end| format!("{firewall}{end}")));
    }

    #[test]
    fn sources_that_are_not_addresses_are_named() {
        let source = |more: Value| {
            let mut firewall = json!({"name": "f", "direction": "INGRESS", "allowed": [{"IPProtocol": "tcp"}]});
            firewall.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let (records, _) = made(&firewall);
            (records[1]["com"]["source_addresses"].clone(), records[1]["ext"].clone())
        };
        let (addresses, ext) = source(json!({"sourceServiceAccounts": ["a@b.c"], "targetTags": ["t"]}));
        assert_eq!(addresses, json!([]));
        assert_eq!((&ext["source_service_accounts"], &ext["target_tags"]), (&json!(["a@b.c"]), &json!(["t"])));
        let (addresses, ext) = source(json!({"sourceTags": ["web"], "sourceRanges": ["10.0.0.0/8"]}));
        assert_eq!((addresses, &ext["source_tags"]), (json!(["10.0.0.0/8"]), &json!(["web"])));
        assert_eq!(source(json!({"sourceTags": [], "priority": 0})).0, Value::Null);
        assert_eq!(source(json!({"sourceRanges": []})).0, Value::Null);
        assert_eq!(source(json!({"sourceRanges": [], "sourceTags": ["web"]})).0, json!([]));
    }

    #[test]
    fn the_answer_is_kept_as_it_is() {
        let text = r#"{ "name":"f\/", "allowed":[ {"IPProtocol":"tcp" , "x":1.0e2} ],"y":1.10 }"#;
        let raw = RawValue::from_string(text.into()).unwrap();
        let made = records(&raw, &project()).unwrap();
        assert_eq!(made.records[0].raw.get(), text);
        assert_eq!(made.records[1].raw.get(), r#"{"IPProtocol":"tcp" , "x":1.0e2}"#);
    }

    #[test]
    fn a_malformed_item_loses_only_itself() {
        let good = json!({"IPProtocol": "tcp"});
        for bad in
            [json!(null), json!(5), json!([]), json!({"IPProtocol": 6}), json!({"ports": "22"}), json!({"ports": [22]})]
        {
            let (records, lost) = made(&json!({"name": "f", "allowed": [good, bad, good]}));
            assert_eq!((records.len(), lost.len()), (3, 1), "{bad}");
            assert!(lost[0].contains("global/firewalls/f: a rule cannot be understood"), "{lost:?}");
        }
        let (records, _) = made(&json!({"name": "f", "allowed": [{"ports": null}]}));
        assert_eq!(records[1]["com"]["destination_ports"], Value::Null);
        for bad in [
            json!(null),
            json!({}),
            json!({"allowed": []}),
            json!({"name": "f", "direction": 5}),
            json!({"name": "f", "sourceRanges": "10.0.0.0/8"}),
            json!({"name": "f", "allowed": {}}),
        ] {
            assert!(super::records(&raw(&bad), &project()).is_err(), "{bad}");
        }
    }
}
