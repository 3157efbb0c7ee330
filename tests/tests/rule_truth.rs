//! All built-in rules in whole runs by the programs over a simulated Azure and a simulated Google Cloud: each finds what
//! is wrong by the truth of the clouds, and nothing else, and counts what it has looked at.

#![allow(clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

mod azure_truth;
mod rule_truth {
    pub mod conditions;
    pub mod google;
}

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use azure_truth::{CLASSES, LISTS, log_profile_missing, subscription};
use proto::identity::{Id, IdMaker};
use proto::subject::Key;
use rule_truth::conditions::{Found, RULES, Rule, Truth};
use rule_truth::google;
use serde_json::{Value, json};
use tests::cloudsim::{Cloudsim, Faults, Kind, Oddity};
use tests::gcpsim::Gcpsim;
use tests::harness::{Output, Workspace};

const AUDIT: &str = "estate";
/// Neither a log profile nor diagnostic settings.
const SILENT: usize = 2;
/// No log profile, and a diagnostic setting in its place.
const MODERN: usize = 5;
/// No log profile, and nobody may read the diagnostic settings.
const CLOSED: usize = 8;
/// A log profile without a policy of retention.
const OPEN_ENDED: usize = 11;
/// Things each third of which is without properties in an odd estate.
const ODD: [Kind; 10] = [
    Kind::VirtualMachine,
    Kind::Disk,
    Kind::StorageAccount,
    Kind::Vault,
    Kind::VaultKey,
    Kind::VaultSecret,
    Kind::MysqlServer,
    Kind::PostgresqlServer,
    Kind::SqlDatabase,
    Kind::WebApp,
];
/// Rules none of whose records in the estate are like this.
const NEVER_FAIL: [&str; 4] = [
    // Numbers are the mock cloud's.
    "mockevent",
    // Without parameters any extension may be there.
    "azvmextensionevent",
    // The simulator's servers and profiles keep their logs long enough by default; the same rules fail with others.
    "azlogprofileretentionevent",
    "azpostgreslogretentiondaysevent",
];

/// Clouds in which each rule finds something good and something bad.
struct Estate {
    azure: Cloudsim,
    google: Gcpsim,
    faults: Faults,
}

impl Estate {
    async fn new(faults: Faults) -> Result<Self> {
        let azure = Cloudsim::builder()
            .subscriptions(12)
            .machines(13)
            .disks(16)
            .nsgs(2)
            .rules(30)
            .storage_accounts(12)
            .mysql_servers(2)
            .count(Kind::MysqlFlexibleServer, 4)
            .postgresql_servers(5)
            .count(Kind::PostgresqlFlexibleServer, 6)
            .databases(3)
            .web_apps(12)
            .vaults(4)
            .keys(4)
            .secrets(4)
            .count_in(SILENT, Kind::DiagnosticSetting, 0)
            .count_in(MODERN, Kind::DiagnosticSetting, 1)
            .count_in(CLOSED, Kind::DiagnosticSetting, 1)
            .count_in(OPEN_ENDED, Kind::LogProfile, 1)
            .faults(|own| *own = faults.clone())
            .start()
            .await?;
        let google = Gcpsim::builder().projects(4).firewalls(40).instances(60).start().await?;
        Ok(Self { azure, google, faults })
    }

    /// A configuration of an audit of both clouds with all rules. What is JSON is YAML.
    fn configuration(&self, key_file: &Path) -> String {
        let mut plugins = json!({"filestore": {"params": {"path": "{out}"}}});
        for class in CLASSES {
            let params = json!({
                "tenant": self.azure.tenant(), "client": self.azure.client_id(), "secret": self.azure.client_secret(),
                "login_endpoint": self.azure.url(), "arm_endpoint": self.azure.url(),
            });
            let name = format!("cloudmarker.clouds.{}.{class}", class.to_lowercase());
            plugins[class.to_lowercase()] = json!({"plugin": name, "params": params});
        }
        let params = json!({"key_file_path": key_file, "api_endpoint": self.google.url()});
        plugins["gcpcloud"] = json!({"plugin": "cloudmarker.clouds.gcpcloud.GCPCloud", "params": params});
        for rule in RULES {
            if let Some(params) = rule.params {
                plugins[rule.plugin] = json!({"plugin": rule.id, "params": params()});
            }
        }
        let clouds: Vec<String> = CLASSES.iter().copied().chain(["GCPCloud"]).map(str::to_lowercase).collect();
        let events: Vec<&str> = RULES.iter().map(|rule| rule.plugin).collect();
        let audit = json!({"clouds": clouds, "stores": ["filestore"], "events": events, "alerts": ["filestore"]});
        json!({"plugins": plugins, "audits": {AUDIT: audit}, "run": [AUDIT]}).to_string()
    }

    /// All records that there must be.
    fn records(&self) -> Vec<Truth> {
        let estate = self.azure.estate();
        let mut records = Vec::new();
        let truth = |class, expected: azure_truth::Expected| {
            let azure_truth::Expected { key, raw, ext, com, .. } = expected;
            Truth { class, key, raw, ext, com }
        };
        for index in 0..self.azure.truth().subscriptions {
            records.push(truth("AzCloud", subscription(&self.azure, index)));
            for list in LISTS {
                let count =
                    if self.faults.denied.contains(&(index, list.kind)) { 0 } else { estate.count(index, list.kind) };
                for number in 0..count {
                    let oddity = self.faults.oddity(list.kind, number);
                    let expected = list.odd_records(&self.azure, index, number, oddity);
                    records.extend(expected.into_iter().map(|record| truth(list.class, record)));
                }
            }
            if estate.count(index, Kind::LogProfile) == 0 {
                let is_denied = self.faults.denied.contains(&(index, Kind::DiagnosticSetting));
                let settings = (!is_denied).then(|| estate.count(index, Kind::DiagnosticSetting));
                records.push(truth("AzMonitor", log_profile_missing(&self.azure, index, settings)));
            }
        }
        records.extend(google::records(&self.google));
        records
    }
}

/// What a rule must say of all records.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    pass: u64,
    fail: u64,
    unknown: u64,
    events: u64,
}

/// What a run's table says of an event plugin.
fn told(output: &Output, plugin: &str) -> Result<Counts> {
    let row = |line: &&str| {
        let mut words = line.trim_matches('│').split_whitespace();
        words.next() == Some("event") && words.next() == Some(plugin)
    };
    let line = output.stdout.lines().find(row).with_context(|| format!("no row of {plugin}: {}", output.stdout))?;
    let words: Vec<&str> = line.trim_matches('│').split_whitespace().collect();
    let number = |before: &str| -> Result<u64> {
        let place = words.iter().position(|word| word.trim_end_matches(',') == before);
        let place = place.and_then(|place| place.checked_sub(1)).with_context(|| format!("no {before}: {line}"))?;
        Ok(words.get(place).context("a number")?.parse()?)
    };
    Ok(Counts { pass: number("pass")?, fail: number("fail")?, unknown: number("unknown")?, events: number("events")? })
}

/// What is found, by the finding's id.
type Findings<'a> = BTreeMap<String, (&'a Truth, Found)>;

/// Every event as it must be, and the counts of the rule.
fn expected<'a>(rule: &Rule, records: &'a [Truth]) -> Result<(Findings<'a>, Counts)> {
    let findings = IdMaker::of_findings(&Key::new(AUDIT)?, &Key::new(rule.plugin)?);
    let (mut events, mut counts) = (Findings::new(), Counts::default());
    for record in records {
        let Some(said) = (rule.says)(record) else { continue };
        let is_good = said.found.is_empty() && !said.is_unknown;
        counts.pass += u64::from(is_good);
        counts.fail += u64::from(!said.found.is_empty());
        counts.unknown += u64::from(said.is_unknown);
        for found in said.found {
            let id = findings.id(&[found.event_type, &record.key, &found.sub_key]).to_string();
            counts.events += 1;
            ensure!(events.insert(id, (record, found)).is_none(), "two findings of {} are the same", record.key);
        }
    }
    Ok((events, counts))
}

/// What an event says and what it must say, as far as the rule and the record decide it.
fn verify(rule: &Rule, event: &Value, record: &Truth, found: &Found) -> Result<()> {
    let (mut ext, com) = (record.ext.clone(), &event["com"]);
    ext["record_type"] = json!(found.event_type);
    for (name, value) in azure_truth::members(&found.ext) {
        ext[name] = value;
    }
    let what = || format!("{event}\nis not of\n{record:#?}\n{found:#?}");
    ensure!(event.get("raw").is_none() && event["ext"] == ext, "{}", what());
    for (name, value) in azure_truth::members(&found.com) {
        ensure!(com[&name] == value, "{name}: {}", what());
    }
    let account = record.ext.get("subscription_id").or(record.ext.get("project_id"));
    let resource = &com["resource"];
    for (found, expected) in [
        (&com["cloud_type"], &record.com["cloud_type"]),
        (&com["record_type"], &json!(found.event_type)),
        (&com["reference"], &record.com["reference"]),
        (&com["rule"], &json!(rule.id)),
        (&resource["cloud"], &record.com["cloud_type"]),
        (&resource["account"], account.unwrap_or(&Value::Null)),
        (&resource["type"], &record.ext["record_type"]),
        (&resource["id"], &record.com["reference"]),
        (&com["origin_key"], &json!(rule.plugin)),
        (&com["origin_type"], &json!("event")),
        (&com["source"]["origin_key"], &json!(record.class.to_lowercase())),
        (&com["source"]["origin_class"], &json!(record.class)),
        (&com["source"]["origin_type"], &json!("cloud")),
    ] {
        ensure!(found == expected && !found.is_null(), "{found}, not {expected}: {}", what());
    }
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty() && !text.contains("{{"));
    for name in ["title", "description", "recommendation", "audit_version"] {
        ensure!(is_text(&com[name]), "{name}: {}", what());
    }
    ensure!(is_text(&com["source"]["origin_worker"]), "{}", what());
    let description = com["description"].as_str().unwrap_or_default();
    let reference = record.com["reference"].as_str().unwrap_or_default();
    ensure!(description.contains(reference) && description.ends_with('.'), "{}", what());
    // A text says "unknown" where something that it names is missing.
    ensure!(!description.contains("unknown") && !description.contains("  "), "{}", what());
    let severity = com["severity"].as_str().unwrap_or_default();
    ensure!(["critical", "high", "medium", "low", "info"].contains(&severity), "{}", what());
    ensure!(com["rule_version"].as_u64().is_some_and(|version| version > 0), "{}", what());
    let controls = azure_truth::members(&com["controls"]);
    let is_listed = |numbers: &Value| numbers.as_array().is_some_and(|numbers| numbers.iter().all(is_text));
    ensure!(!controls.is_empty() && controls.values().all(is_listed), "no controls: {}", what());
    for id in [&com["id"], &com["finding_id"], &com["source"]["id"]] {
        ensure!(id.as_str().and_then(Id::parse).is_some(), "{}", what());
    }
    Ok(())
}

/// The ids of the built-in rules, as their files have them.
fn built_in() -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../evaluator/rules")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                // Rules over activity logs have clouds of their own, where logs are.
                folders.extend((!path.ends_with("activity")).then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = std::fs::read_to_string(&path)?;
                let id = text.lines().find_map(|line| line.strip_prefix("id: "));
                let id = id.with_context(|| format!("{} has no id", path.display()))?;
                ids.insert(id.split('#').next().unwrap_or_default().trim().to_owned());
            }
        }
    }
    Ok(ids)
}

/// The events of a run by plugin and finding.
type Events = BTreeMap<(&'static str, String), Value>;

/// Holds a run's events and counts against the truth.
fn verify_run(workspace: &Workspace, output: &Output, records: &[Truth]) -> Result<Events> {
    let mut all = Events::new();
    let mut all_wrong = Vec::new();
    for rule in RULES {
        let mut wrong = Vec::new();
        let (mut missing, counts) = expected(rule, records)?;
        let file = format!("{AUDIT}_{}.json", rule.plugin);
        let documents = match workspace.documents(&file) {
            Err(_) if counts.events == 0 && !workspace.files()?.contains(&file) => Vec::new(),
            documents => documents?,
        };
        for event in documents {
            let id = event["com"]["finding_id"].as_str().unwrap_or_default().to_owned();
            match missing.remove(&id) {
                Some((record, found)) => {
                    wrong.extend(verify(rule, &event, record, &found).err().map(|it| it.to_string()))
                }
                None => wrong.push(format!("{}: nobody knows {event}", rule.plugin)),
            }
            all.insert((rule.plugin, id), event);
        }
        wrong.extend(missing.values().map(|missing| format!("{}: there is no event of {missing:#?}", rule.plugin)));
        let told = told(output, rule.plugin)?;
        if told != counts {
            wrong.push(format!("{}: the run says {told:?}, not {counts:?}", rule.plugin));
        }
        let note = format!("event {}: {} unknown, such as ", rule.plugin, counts.unknown);
        if output.stdout.contains(&note) != (counts.unknown > 0) {
            wrong.push(format!("{}: the run does not say why {} are unknown", rule.plugin, counts.unknown));
        }
        // One rule's mistake is not to hide another's: the counts come first.
        wrong.reverse();
        wrong.truncate(3);
        all_wrong.extend(wrong);
    }
    ensure!(all_wrong.is_empty(), "{}\n{}", all_wrong.join("\n"), output.stdout);
    Ok(all)
}

/// An estate, and a folder with the configuration of its audit.
async fn begin(faults: Faults) -> Result<(Estate, Workspace)> {
    let estate = Estate::new(faults).await?;
    let workspace = Workspace::new("")?;
    let key_file = workspace.path().join("key.json");
    std::fs::write(&key_file, estate.google.key_file())?;
    workspace.configure(&estate.configuration(&key_file))?;
    Ok((estate, workspace))
}

#[tokio::test]
async fn each_rule_finds_what_is_wrong_and_nothing_else() -> Result<()> {
    let known: BTreeSet<String> = RULES.iter().map(|rule| rule.id.to_owned()).collect();
    assert_eq!(known, built_in()?, "the table has each built-in rule over resources");
    let mut faults = Faults::default();
    faults.deny(CLOSED, Kind::DiagnosticSetting);
    let (estate, workspace) = begin(faults).await?;
    let records = estate.records();
    for rule in RULES {
        let (_, counts) = expected(rule, &records)?;
        let is_shown = counts.pass > 0 && (counts.fail > 0 || NEVER_FAIL.contains(&rule.plugin));
        assert!(is_shown, "{}: the estate does not show what it does: {counts:?}", rule.plugin);
    }
    // What is denied in one subscription makes the run incomplete, and its rule unknown.
    let output = workspace.run(&["run", "--now"]).await?.with_code(3)?;
    let events = verify_run(&workspace, &output, &records)?;
    let output = workspace.run(&["run", "--now"]).await?.with_code(3)?;
    let again = verify_run(&workspace, &output, &records)?;
    assert!(events.keys().eq(again.keys()), "a finding keeps its id");
    let ids = |events: &Events| -> BTreeSet<String> {
        events.values().map(|event| event["com"]["id"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let (first, second) = (ids(&events), ids(&again));
    assert_eq!((first.len(), second.len()), (events.len(), again.len()), "each event has an id of its own");
    assert!(first.is_disjoint(&second), "an event of another version is another");
    Ok(())
}

#[tokio::test]
async fn what_does_not_say_is_unknown() -> Result<()> {
    let mut faults = Faults::default();
    let oddities = [Oddity::NoProperties, Oddity::NullProperties].into_iter().cycle();
    faults.odd.extend(ODD.into_iter().zip(oddities).map(|(kind, how)| (kind, (3, how))));
    let (estate, workspace) = begin(faults).await?;
    let output = workspace.run(&["run", "--now"]).await?.with_code(3)?;
    let text = |bucket: &Value, name: &str| bucket[name].as_str().unwrap_or_default().to_owned();
    let mut stored = BTreeSet::new();
    for class in CLASSES.iter().copied().chain(["GCPCloud"]) {
        for record in workspace.documents(&format!("{AUDIT}_{}.json", class.to_lowercase()))? {
            stored.insert((class, text(&record["ext"], "record_type"), text(&record["com"], "key")));
        }
    }
    let is_stored = |it: &Truth| stored.contains(&(it.class, text(&it.ext, "record_type"), it.key.clone()));
    let (records, lost): (Vec<Truth>, Vec<Truth>) = estate.records().into_iter().partition(is_stored);
    assert_eq!(records.len(), stored.len(), "a record is of something that is there");
    // What lies in a vault that does not say its address cannot be read; nothing else is lost.
    assert!(!lost.is_empty() && lost.iter().all(|it| it.ext.get("vault_id").is_some()), "{lost:#?}");
    verify_run(&workspace, &output, &records)?;
    // Of none of them anything is unknown where everything says what it is.
    for plugin in ["azvmosdiskencryptionevent", "unattacheddisk", "azkvkeynoexpiryevent", "azkvsecretnoexpiryevent"] {
        assert!(told(&output, plugin)?.unknown > 0, "{plugin}: {}", output.stdout);
    }
    Ok(())
}
