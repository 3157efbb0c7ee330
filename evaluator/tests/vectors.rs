//! The event plugins against vectors measured on the Python tool, and against arbitrary records.
//!
//! Each line of `vectors/*.jsonl` is one call: `params`, the record (`input`), the events that came out without their
//! two texts (`output`), or how it failed (`error`, `init_error`). Where the Python tool was wrong, a table here says
//! what is done instead and why.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use evaluator::condition::Wanted;
use evaluator::event::Maker;
use evaluator::record::Record;
use evaluator::rule::{EventDraft, Instance, Judgement, Outcome, built_in};
use evaluator::rules::time_of;
use proto::catalogue::in_one_line;
use proto::subject::{Key, Version};
use serde_json::{Value, json};

#[path = "vectors/instead.rs"]
mod instead;
#[path = "vectors/records.rs"]
mod records;

const MOCK_EVENT: &str = "cloudmarker.events.mockevent.MockEvent";
const FIREWALL_RULE_EVENT: &str = "cloudmarker.events.firewallruleevent.FirewallRuleEvent";

/// What is done in place of what the vector shows.
#[derive(Debug, Clone)]
enum Instead {
    /// The rule passes.
    Passes,
    /// The rule does not look at such a record.
    PassesBy,
    /// An event, of this other field in `ext` or `com`.
    Fires(&'static str, Value),
    /// It is unknown, for a reason that names this.
    Unknown(&'static str),
    /// A configuration error, at this parameter.
    Refused(&'static str),
}

use Instead::{Fires, Passes, PassesBy, Refused, Unknown};

/// The vectors of MockEvent that show a failure or a defect: what is done instead, and why.
fn mock_event_instead() -> BTreeMap<&'static str, (Instead, &'static str)> {
    BTreeMap::from([
        ("MockEvent-026", (Unknown("raw.data is null"), "null is no number: it failed")),
        ("MockEvent-027", (Unknown("raw.data is a text"), "a text is no number: it failed")),
        ("MockEvent-029", (Unknown("raw.data is a list"), "a list is no number: it failed")),
        ("MockEvent-033", (Passes, "a bucket that is null is one that is missing: data is 1, and it need not fail")),
        ("MockEvent-035", (Fires("data", json!(3)), "without ext the event has its own fields: it need not fail")),
        ("MockEvent-037", (Refused("m"), "an unknown parameter, told with its name")),
    ])
}

/// The vectors of FirewallRuleEvent that show a failure or a defect: what is done instead, and why.
fn firewall_rule_event_instead() -> BTreeMap<&'static str, (Instead, &'static str)> {
    let port_22 = || Fires("exposed_ports", json!([22]));
    BTreeMap::from([
        (
            "FirewallRuleEvent-072",
            (Unknown("destination_ports"), "99999 is no port: passing it by in silence hides it"),
        ),
        ("FirewallRuleEvent-074", (port_22(), "a blank does not close a port")),
        ("FirewallRuleEvent-078", (Unknown("destination_ports"), "`22-` may be 22 or all above")),
        (
            "FirewallRuleEvent-092",
            (Fires("exposed_ports", default_ports()), "any port is among them the sensitive ones"),
        ),
        ("FirewallRuleEvent-097", (Unknown("destination_ports"), "`22-80-90` is no range, but may mean one")),
        ("FirewallRuleEvent-099", (Unknown("destination_ports"), "`1e3` is no port")),
        (
            "FirewallRuleEvent-100",
            (Unknown("destination_ports"), "`0x16` is no port as clouds write it, but may be 22"),
        ),
        ("FirewallRuleEvent-103", (Unknown("destination_ports is null"), "it failed; a gap is no pass")),
        ("FirewallRuleEvent-106", (Fires("exposed_ports", json!([3389])), "one port need not be in a list")),
        ("FirewallRuleEvent-107", (port_22(), "22 the number is as open as \"22\": it failed")),
        (
            "FirewallRuleEvent-117",
            (Unknown("destination_ports"), "an object is no list of ports; its keys fired by chance"),
        ),
        ("FirewallRuleEvent-123", (port_22(), "the two halves are the whole Internet")),
        ("FirewallRuleEvent-131", (Unknown("source_addresses"), "a source that is null may be anybody")),
        ("FirewallRuleEvent-133", (port_22(), "/00 is /0")),
        ("FirewallRuleEvent-137", (Unknown("source_addresses"), "an object is no list; its keys fired by chance")),
        ("FirewallRuleEvent-146", (port_22(), "TCP is tcp")),
        ("FirewallRuleEvent-147", (port_22(), "`*` is all protocols, and tcp one of them")),
        ("FirewallRuleEvent-148", (port_22(), "`any` is all protocols, and tcp one of them")),
        ("FirewallRuleEvent-151", (Unknown("protocol"), "an empty protocol is a gap, not a pass")),
        ("FirewallRuleEvent-153", (Unknown("protocol is missing"), "a gap is no pass")),
        ("FirewallRuleEvent-165", (port_22(), "ALLOW is allow")),
        ("FirewallRuleEvent-166", (Unknown("access is null"), "a gap is no pass")),
        ("FirewallRuleEvent-173", (Unknown("enabled"), "the text \"false\" was taken for true: it is neither")),
        ("FirewallRuleEvent-175", (Unknown("enabled"), "0 is not a boolean")),
        ("FirewallRuleEvent-178", (Unknown("enabled is missing"), "a gap is no pass")),
        ("FirewallRuleEvent-191", (Refused("ports"), "a number is not a list of ports")),
        ("FirewallRuleEvent-195", (Refused("ports[0]"), "`true` is not port 1")),
    ])
}

fn default_ports() -> Value {
    json!([22, 1433, 1521, 3306, 3389, 5432])
}

fn instance(class: &str, params: &Value) -> Result<Instance, String> {
    built_in().instance(class, params).unwrap().map_err(|errors| in_one_line(&errors))
}

fn version() -> Version {
    Version::new("20260131_235959").unwrap()
}

fn judge(instance: &Instance, record: &Record<'_>) -> Judgement {
    instance.judge(record, time_of(&version()))
}

fn maker() -> Maker {
    Maker::new(&Key::new("audit").unwrap(), &version(), &Key::new("rule").unwrap(), "test.Test")
}

/// What came of a record: the outcome, and the events as they are published.
fn evaluated(class: &str, params: &Value, record: &[u8]) -> Result<(Outcome, Vec<Value>), String> {
    let instance = instance(class, params)?;
    let record = Record::parse(record, instance.rule.raw_wanted()).unwrap();
    let judgement = judge(&instance, &record);
    let event = |draft: &EventDraft| {
        let message = maker().message(&record, draft).unwrap();
        serde_json::from_slice::<Value>(&message.payload).unwrap()
    };
    Ok((judgement.outcome, judgement.events.iter().map(event).collect()))
}

/// The fields of `com` that only our events have.
const OURS: [&str; 10] =
    ["id", "finding_id", "severity", "title", "rule", "rule_version", "controls", "resource", "source", "evidence"];

/// An event without what the worker of the Python tool added later, and without texts, which must be there.
fn comparable(mut event: Value) -> Value {
    let com = event["com"].as_object_mut().unwrap();
    for name in ["description", "recommendation"] {
        let text = com.remove(name).unwrap();
        assert!(text.as_str().unwrap().ends_with('.'), "{text}");
    }
    com.retain(|name, _| !name.starts_with("origin_") && !name.starts_with("audit_") && !OURS.contains(&name.as_str()));
    event
}

/// Tests a file of vectors and returns how many were as the Python tool has it.
fn test_vectors(class: &str, lines: &str, mut instead: BTreeMap<&str, (Instead, &str)>) -> usize {
    let mut same = 0;
    for line in lines.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let id = vector["id"].as_str().unwrap();
        let record = serde_json::to_vec(&vector["input"]).unwrap();
        let result = evaluated(class, &vector["params"], &record);
        match instead.remove(id) {
            Some((instead, why)) => test_instead(id, why, &instead, result, &vector["params"]),
            None => {
                assert!(vector.get("error").is_none() && vector.get("init_error").is_none(), "{id} is in no table");
                test_same(id, &vector, result);
                same += 1;
            }
        }
    }
    assert!(instead.is_empty(), "no such vectors: {:?}", instead.keys());
    same
}

fn test_same(id: &str, vector: &Value, result: Result<(Outcome, Vec<Value>), String>) {
    let (outcome, events) = result.unwrap();
    let events: Vec<Value> = events.into_iter().map(comparable).collect();
    assert_eq!(Value::from(events.clone()), vector["output"], "{id}");
    let expected = if events.is_empty() { Outcome::Pass } else { Outcome::Fail };
    assert!(outcome == expected || (events.is_empty() && outcome == Outcome::NotApplicable), "{id}: {outcome:?}");
}

fn test_instead(id: &str, why: &str, instead: &Instead, result: Result<(Outcome, Vec<Value>), String>, params: &Value) {
    match (instead, result) {
        (Refused(param), Err(error)) => assert!(error.starts_with(&format!("{param}: ")), "{id}, {params}: {error}"),
        (Passes, Ok((Outcome::Pass, events))) | (PassesBy, Ok((Outcome::NotApplicable, events))) => {
            assert_eq!(events, [] as [Value; 0], "{id}: {why}");
        }
        (Unknown(named), Ok((Outcome::Unknown(reason), events))) => {
            assert!(reason.contains(named), "{id}, {why}: {reason}");
            assert_eq!(events, [] as [Value; 0], "{id}: {why}");
        }
        (Fires(name, value), Ok((Outcome::Fail, events))) => {
            assert_eq!(events.len(), 1, "{id}: {why}");
            let found = events[0]["com"].get(name).or(events[0]["ext"].get(name));
            assert_eq!(found, Some(value), "{id}: {why}");
            comparable(events[0].clone());
        }
        (_, result) => panic!("{id}, {why}: {result:?}"),
    }
}

#[test]
fn mock_event_is_as_in_the_vectors() {
    let same = test_vectors(MOCK_EVENT, include_str!("vectors/mock_event.jsonl"), mock_event_instead());
    assert_eq!(same, 14);
}

#[test]
fn firewall_rule_event_is_as_in_the_vectors() {
    let lines = include_str!("vectors/firewall_rule_event.jsonl");
    let same = test_vectors(FIREWALL_RULE_EVENT, lines, firewall_rule_event_instead());
    assert_eq!(same, 44);
}

/// All other event plugins: each line of the file names its plugin. In the end all vectors have been compared.
#[test]
fn the_other_event_plugins_are_as_in_the_vectors() {
    let mut instead = instead::table();
    let mut plugins: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for line in include_str!("vectors/other_events.jsonl").lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let (id, plugin) = (vector["id"].as_str().unwrap(), vector["plugin"].as_str().unwrap());
        let class = format!("cloudmarker.events.{}.{plugin}", plugin.to_lowercase());
        assert_eq!(built_in().get(&class).and_then(|rule| rule.class.as_deref()), Some(class.as_str()));
        let record = records::ours(plugin, &vector["input"]).to_string();
        let mut result = evaluated(&class, &vector["params"], record.as_bytes());
        for event in result.iter_mut().flat_map(|(_, events)| events) {
            records::without_derived(&vector["input"], event);
        }
        let (same, all) = plugins.entry(plugin.to_owned()).or_default();
        *all += 1;
        match instead.remove(id) {
            Some((instead, why)) => test_instead(id, why, &instead, result, &vector["params"]),
            None => {
                assert!(vector.get("error").is_none() && vector.get("init_error").is_none(), "{id} is in no table");
                test_same(id, &vector, result);
                *same += 1;
            }
        }
    }
    assert!(instead.is_empty(), "no such vectors: {:?}", instead.keys());
    let all: usize = plugins.values().map(|(_, all)| all).sum();
    assert_eq!((plugins.len(), all + 91), (25, 570), "with those of the two plugins above");
    for (plugin, (same, _)) in plugins {
        assert!(same >= 4, "{plugin}: {same} are as the Python tool has them");
    }
}

#[test]
fn an_event_names_controls_of_its_own_cloud_only() {
    for (cloud, other) in [("azure", "gcp"), ("gcp", "azure")] {
        let mut record = open_rule();
        record["com"]["cloud_type"] = cloud.into();
        let (_, events) = evaluated(FIREWALL_RULE_EVENT, &json!({}), record.to_string().as_bytes()).unwrap();
        let controls = events[0]["com"]["controls"].as_object().unwrap();
        assert!(controls.contains_key(&format!("cis_{cloud}_3.0")), "{controls:?}");
        assert!(!controls.keys().any(|benchmark| benchmark.contains(other)), "{controls:?}");
    }
}

/// The fields of an event stand in the order that the Python tool has.
#[test]
fn exposed_ports_stand_behind_the_record_type() {
    let record = open_rule().to_string();
    let record = Record::parse(record.as_bytes(), &Wanted::All).unwrap();
    let judgement = judge(&instance(FIREWALL_RULE_EVENT, &json!({})).unwrap(), &record);
    let message = maker().message(&record, &judgement.events[0]).unwrap();
    let text = String::from_utf8(message.payload.to_vec()).unwrap();
    let com =
        r#""com":{"cloud_type":"azure","record_type":"firewall_rule_event","exposed_ports":[22],"reference":"/r","#;
    assert!(text.contains(com), "{text}");
}

fn open_rule() -> Value {
    json!({
        "raw": {"data": 3},
        "ext": {"record_type": "security_rule"},
        "com": {
            "cloud_type": "azure", "record_type": "firewall_rule", "reference": "/r", "enabled": true,
            "direction": "in", "access": "allow", "source_addresses": ["0.0.0.0/0"], "protocol": "tcp",
            "destination_ports": ["22"],
        },
    })
}

/// A small generator of JSON, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    /// JSON text of any kind, well-formed though not always of a meaning.
    fn json(&mut self, depth: usize) -> String {
        const SCALARS: [&str; 40] = [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "-1",
            "6",
            "22",
            "22.0",
            "65536",
            "1e300",
            "-1e-300",
            "5e-324",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "1e999",
            r#""""#,
            r#"" ""#,
            r#""tcp""#,
            r#""\u0074cp""#,
            r#""\ud800""#,
            r#""\u0000""#,
            r#""*""#,
            r#""22""#,
            r#""22-""#,
            r#""-""#,
            r#""0-65535""#,
            r#""99999999999999999999-1""#,
            r#""２２""#,
            r#""²""#,
            r#""0.0.0.0/0""#,
            r#""0.0.0.0/1""#,
            r#""128.0.0.0/1""#,
            r#""::/129""#,
            r#""/""#,
            r#""::ffff:0:0/96""#,
            r#""Internet""#,
            r#""in""#,
            r#""allow""#,
        ];
        match self.below(if depth == 0 { 6 } else { 10 }) {
            6 | 7 => {
                let items: Vec<String> = (0..self.below(4)).map(|_| self.json(depth - 1)).collect();
                format!("[{}]", items.join(","))
            }
            8 | 9 => {
                let names = ["data", "record_type", "22", "0.0.0.0/0", "", "\\u0000"];
                let item = |numbers: &mut Self| format!("\"{}\":{}", numbers.one_of(&names), numbers.json(depth - 1));
                let items: Vec<String> = (0..self.below(4)).map(|_| item(self)).collect();
                format!("{{{}}}", items.join(","))
            }
            _ => self.one_of(&SCALARS).to_owned(),
        }
    }

    /// A record with one or some fields of any kind.
    fn record(&mut self) -> String {
        const FIELDS: [(&str, &str); 9] = [
            ("record_type", r#""firewall_rule""#),
            ("cloud_type", r#""gcp""#),
            ("reference", r#""r""#),
            ("enabled", "true"),
            ("direction", r#""in""#),
            ("access", r#""allow""#),
            ("protocol", r#""tcp""#),
            ("source_addresses", r#"["*"]"#),
            ("destination_ports", r#"["22"]"#),
        ];
        let mut com = String::new();
        for (name, usual) in FIELDS {
            match self.below(6) {
                0 => write!(com, ",\"{name}\":{}", self.json(3)).unwrap(),
                1 if self.below(3) == 0 => {}
                _ => write!(com, ",\"{name}\":{usual}").unwrap(),
            }
        }
        let com = if self.below(20) == 0 { self.json(4) } else { format!("{{{}}}", com.trim_start_matches(',')) };
        let raw = if self.below(4) == 0 { self.json(4) } else { format!("{{\"data\":{}}}", self.json(3)) };
        format!("{{\"raw\":{raw},\"ext\":{{}},\"com\":{com}}}")
    }
}

/// Evaluates a record with both plugins and checks what must be true of any: events exactly when it fails, and a
/// reason of a bounded size.
fn check_any(record: &str) -> Option<[Outcome; 2]> {
    thread_local! {
        static BOTH: [Instance; 2] =
            [MOCK_EVENT, FIREWALL_RULE_EVENT].map(|class| instance(class, &json!({})).unwrap());
    }
    let parsed = Record::parse(record.as_bytes(), &Wanted::All).ok()?;
    let outcomes = BOTH.with(|both| {
        both.each_ref().map(|instance| {
            let judgement = judge(instance, &parsed);
            let fails = judgement.outcome == Outcome::Fail;
            assert_eq!(judgement.events.len(), usize::from(fails), "{:?}", judgement.outcome);
            if let Outcome::Unknown(reason) = &judgement.outcome {
                assert!(!reason.is_empty() && reason.len() < 2_000, "{reason}");
            }
            judgement.outcome
        })
    });
    Some(outcomes)
}

#[test]
fn no_record_whatever_makes_them_panic() {
    let mut numbers = Numbers(1);
    let mut seen = [0; 4];
    for _ in 0..60_000 {
        let Some([_, outcome]) = check_any(&numbers.record()) else { continue };
        seen[match outcome {
            Outcome::NotApplicable => 0,
            Outcome::Pass => 1,
            Outcome::Fail => 2,
            Outcome::Unknown(_) => 3,
        }] += 1;
    }
    assert!(seen.iter().all(|seen| *seen > 1_000), "the generator is one-sided: {seen:?}");
}

#[test]
fn huge_and_deep_values_are_nothing_special() {
    let long = json!("x".repeat(1 << 20)).to_string();
    let many = |item: &str| format!("[{}]", vec![item; 10_000].join(","));
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
    let values = [
        long.clone(),
        format!("[{long}]"),
        many("null"),
        many(r#""10.0.0.0/8""#),
        many(r#""0-21""#),
        many(r#""no port""#),
        deep("[", "]"),
        deep(r#"{"a":"#, "}"),
        format!("[{}]", deep("[", "]")),
    ];
    let begin = Instant::now();
    for value in &values {
        assert!(check_any(&format!(r#"{{"raw":{{"data":{value}}},"com":{{}}}}"#)).is_some());
        assert!(check_any(&format!(r#"{{"raw":{value},"com":{value}}}"#)).is_some());
        let rule = open_rule();
        for field in rule["com"].as_object().unwrap().keys() {
            let mut rule = rule.clone();
            rule["com"][field] = json!("the value");
            let record = rule.to_string().replace("\"the value\"", value);
            assert!(check_any(&record).is_some());
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[test]
fn many_networks_and_ports_together_count() {
    let networks: Vec<String> = (0..=255).flat_map(|a| (0..64).map(move |b| format!("{a}.{}.0.0/14", b * 4))).collect();
    let ports: Vec<String> = (0..10_000).map(|n| format!("{n}-{}", n + 5)).collect();
    let mut rule = open_rule();
    rule["com"]["source_addresses"] = json!(networks);
    rule["com"]["destination_ports"] = json!(ports);
    let (outcome, events) = evaluated(FIREWALL_RULE_EVENT, &json!({}), rule.to_string().as_bytes()).unwrap();
    assert_eq!((outcome, &events[0]["com"]["exposed_ports"]), (Outcome::Fail, &default_ports()));
    rule["com"]["source_addresses"] =
        json!(networks[1..].iter().filter(|n| !n.starts_with("8.8.")).collect::<Vec<_>>());
    let (outcome, _) = evaluated(FIREWALL_RULE_EVENT, &json!({}), rule.to_string().as_bytes()).unwrap();
    assert_eq!(outcome, Outcome::Pass);
}
