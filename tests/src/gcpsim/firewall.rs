//! A firewall of a project's networks, in the shape of Compute Engine's version 1.

use serde_json::{Value, json};

use crate::cloudsim::random::Random;

use super::identities::HOME_NUMBER;
use super::project::add;

/// Ports that nobody should open to the Internet.
const ADMIN_PORTS: [&str; 8] = ["22", "3389", "1433", "3306", "5432", "445", "6379", "27017"];

const PRIVATE: [&str; 4] = ["10.0.0.0/8", "10.128.0.0/9", "172.16.0.0/12", "192.168.10.0/24"];

/// How many kinds of rules there are. The first firewalls of a project are one of each, in order.
pub(super) const KINDS: usize = 18;

/// How many entries a rule of each kind has.
const ENTRIES: [usize; KINDS] = [1, 1, 3, 3, 3, 1, 1, 1, 1, 1, 2, 1, 2, 3, 4, 3, 1, 1];

/// A firewall's place.
pub(super) struct Site<'a> {
    pub(super) project: &'a str,
    pub(super) index: usize,
}

/// The firewall at a place.
pub(super) fn firewall(random: &mut Random, site: &Site<'_>) -> Value {
    let kind = kind(random, site.index);
    let (stem, rule) = rule(random, kind, site.project);
    let project = site.project;
    let name = format!("{stem}-{}", site.index);
    let link = format!("https://www.googleapis.com/compute/v1/projects/{project}");
    let network = random.pick(&["default", "default", "prod-vpc"]);
    let mut firewall = json!({
        "kind": "compute#firewall",
        "id": (1_000_000_000_000_000_000 + random.below(8_000_000_000_000_000_000)).to_string(),
        "creationTimestamp": timestamp(random),
        "name": name,
        "selfLink": format!("{link}/global/firewalls/{name}"),
        "network": format!("{link}/global/networks/{network}"),
        "priority": random.pick_number(&[1000, 1000, 65534, 0, 900]),
        "direction": "INGRESS",
        "disabled": false,
        "logConfig": {"enable": false},
    });
    if random.below(3) == 0 {
        add(&mut firewall, "logConfig", Some(json!({"enable": true, "metadata": "INCLUDE_ALL_METADATA"})));
    }
    add(&mut firewall, "description", (random.below(2) == 0).then(|| "Written by hand, \"for a while\"".into()));
    if let (Some(firewall), Value::Object(rule)) = (firewall.as_object_mut(), rule) {
        firewall.extend(rule);
    }
    firewall
}

/// The first thing drawn, so that entries can be counted without making the firewall.
fn kind(random: &mut Random, index: usize) -> usize {
    if index < KINDS { index } else { random.below(KINDS as u64) as usize }
}

/// The stem of the name, and what makes the rule. What a rule does not use is absent.
fn rule(random: &mut Random, kind: usize, project: &str) -> (&'static str, Value) {
    let port = random.pick(&ADMIN_PORTS);
    let everyone = json!(["0.0.0.0/0"]);
    let private = random.pick(&PRIVATE);
    match kind {
        // The first is worth a finding, so that no project is without.
        0 => ("default-allow-ssh", json!({"sourceRanges": everyone, "allowed": [tcp(&["22"])]})),
        1 => ("allow-everything", json!({"sourceRanges": everyone, "allowed": [{"IPProtocol": "all"}]})),
        2 => (
            "allow-web",
            json!({"sourceRanges": everyone, "allowed": [tcp(&["80", "443", "8000-8100"]), {"IPProtocol": "udp", "ports": ["443"]}, {"IPProtocol": "icmp"}]}),
        ),
        3 => (
            "allow-admin-twice",
            json!({"sourceRanges": everyone, "allowed": [tcp(&["22"]), tcp(&["3389"]), tcp(&["22"])]}),
        ),
        4 => (
            "allow-by-number",
            json!({"sourceRanges": [private, "0.0.0.0/0"], "allowed": [{"IPProtocol": "6", "ports": [port]}, {"IPProtocol": "17"}, {"IPProtocol": "112"}]}),
        ),
        5 => (
            "allow-tagged",
            json!({"sourceTags": ["bastion", "jump-host"], "targetTags": ["ssh"], "allowed": [tcp(&["22"])]}),
        ),
        6 => (
            "allow-account",
            json!({
                "sourceServiceAccounts": [format!("web@{project}.iam.gserviceaccount.com")],
                "targetServiceAccounts": [format!("db@{project}.iam.gserviceaccount.com")],
                "allowed": [tcp(&["5432"])],
            }),
        ),
        7 => (
            "allow-tag-or-range",
            json!({"sourceRanges": [private], "sourceTags": ["office"], "targetTags": ["internal", "web"], "allowed": [tcp(&[port])]}),
        ),
        8 => (
            "deny-egress",
            json!({"direction": "EGRESS", "destinationRanges": everyone, "denied": [{"IPProtocol": "all"}], "priority": 65534}),
        ),
        9 => (
            "allow-egress-api",
            json!({"direction": "EGRESS", "destinationRanges": ["199.36.153.8/30"], "allowed": [tcp(&["443"])]}),
        ),
        10 => (
            "deny-ssh",
            json!({"sourceRanges": everyone, "denied": [tcp(&["22"]), {"IPProtocol": "udp", "ports": ["53", "123"]}]}),
        ),
        11 => ("allow-rdp-off", json!({"sourceRanges": everyone, "allowed": [tcp(&["3389"])], "disabled": true})),
        12 => (
            "allow-ssh-v6",
            json!({"sourceRanges": ["::/0"], "allowed": [tcp(&[port]), {"IPProtocol": "58"}], "targetTags": ["v6"]}),
        ),
        13 => (
            "default-allow-internal",
            json!({"sourceRanges": ["10.128.0.0/9"], "allowed": [tcp(&["0-65535"]), {"IPProtocol": "udp", "ports": ["0-65535"]}, {"IPProtocol": "icmp"}], "priority": 65534}),
        ),
        14 => (
            "allow-vpn",
            json!({"sourceRanges": ["203.0.113.17/32"], "allowed": [{"IPProtocol": "esp"}, {"IPProtocol": "ah"}, {"IPProtocol": "sctp"}, {"IPProtocol": "ipip"}]}),
        ),
        15 => (
            "gke-cluster-all",
            json!({"sourceRanges": ["10.4.0.0/14"], "targetTags": ["gke-cluster-node"], "allowed": [tcp(&[]), {"IPProtocol": "udp"}, {"IPProtocol": "esp"}]}),
        ),
        16 => (
            "allow-health-checks",
            json!({
                "sourceRanges": ["130.211.0.0/22", "35.191.0.0/16"],
                "targetServiceAccounts": [format!("{HOME_NUMBER}-compute@developer.gserviceaccount.com")],
                "allowed": [tcp(&["80", "8080"])],
            }),
        ),
        _ => (
            "allow-half-the-world",
            json!({"sourceRanges": ["0.0.0.0/1", "128.0.0.0/1"], "allowed": [tcp(&["20-25"])]}),
        ),
    }
}

/// No ports: all of them, which is written by leaving the field out.
fn tcp(ports: &[&str]) -> Value {
    if ports.is_empty() { json!({"IPProtocol": "tcp"}) } else { json!({"IPProtocol": "tcp", "ports": ports}) }
}

/// How many records of rules the firewall at a place makes: one for each entry, allowed or denied.
pub(super) fn entries(random: &mut Random, index: usize) -> usize {
    ENTRIES.get(kind(random, index)).copied().unwrap_or_default()
}

/// A time as Compute Engine writes it: with milliseconds and California's offset.
pub(super) fn timestamp(random: &mut Random) -> String {
    format!(
        "20{:02}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}-07:00",
        18 + random.below(8),
        1 + random.below(12),
        1 + random.below(28),
        random.below(24),
        random.below(60),
        random.below(60),
        random.below(1000)
    )
}

/// Numbers are picked like texts.
trait PickNumber {
    fn pick_number(&mut self, choices: &[u64]) -> u64;
}

impl PickNumber for Random {
    fn pick_number(&mut self, choices: &[u64]) -> u64 {
        let index = self.below(choices.len() as u64) as usize;
        choices.get(index).copied().unwrap_or_default()
    }
}

/// An odd firewall in place of a good one.
pub(super) fn odd(mut firewall: Value, turn: usize) -> Value {
    let Some(fields) = firewall.as_object_mut() else { return firewall };
    match turn % 8 {
        0 => {
            fields.remove("selfLink");
            fields.remove("direction");
        }
        1 => {
            fields.insert("allowed".to_owned(), "tcp:22".into());
        }
        2 => return Value::Null,
        3 => {
            fields.insert("allowed".to_owned(), json!([{"ports": [22, "80"]}, null, {"IPProtocol": 6, "ports": null}]));
            fields.insert("disabled".to_owned(), "false".into());
        }
        4 => {
            fields.insert("sourceRanges".to_owned(), "0.0.0.0/0".into());
            fields.insert("priority".to_owned(), "high".into());
        }
        5 => return "a firewall that is no object".into(),
        6 => {
            fields.insert("direction".to_owned(), Value::Null);
            fields.insert("sourceRanges".to_owned(), Value::Null);
            fields.insert("targetTags".to_owned(), json!([1, null]));
        }
        _ => {
            fields.remove("allowed");
            fields.remove("denied");
            fields.remove("name");
            fields.remove("id");
        }
    }
    firewall
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: usize) -> Value {
        firewall(&mut Random::at(1, &[index as u64]), &Site { project: "web-prod-0", index })
    }

    #[test]
    fn the_first_firewalls_are_one_of_each_kind() {
        let all: Vec<Value> = (0..KINDS).map(at).collect();
        for field in [
            "sourceTags",
            "targetTags",
            "sourceServiceAccounts",
            "targetServiceAccounts",
            "denied",
            "destinationRanges",
        ] {
            assert!(all.iter().any(|firewall| firewall.get(field).is_some()), "{field}");
            assert!(all.iter().any(|firewall| firewall.get(field).is_none()), "{field}");
        }
        assert!(all.iter().any(|firewall| firewall["disabled"] == true));
        assert_eq!(all[0]["allowed"][0]["ports"][0], "22");
        assert!(all[5].get("sourceRanges").is_none());
        assert_eq!(all[8]["direction"], "EGRESS");
        assert_eq!(all[8]["priority"], 65534);
    }

    #[test]
    fn every_firewall_has_a_rule_and_a_name_of_its_own() {
        for index in 0..100 {
            let firewall = at(index);
            let lists = ["allowed", "denied"].iter().filter_map(|field| firewall[*field].as_array());
            let counted = entries(&mut Random::at(1, &[index as u64]), index);
            assert_eq!(lists.map(Vec::len).sum::<usize>(), counted, "{firewall}");
            let name = firewall["name"].as_str().unwrap();
            assert!(firewall["selfLink"].as_str().unwrap().ends_with(name));
            assert!(name.ends_with(&format!("-{index}")));
        }
    }

    #[test]
    fn an_odd_firewall_is_not_what_it_was() {
        for turn in 0..8 {
            assert_ne!(odd(at(4), turn), at(4), "{turn}");
        }
    }
}
