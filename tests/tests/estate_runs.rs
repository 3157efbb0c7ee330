//! Whole runs over mixed estates by the programs, with everything going wrong that can: what is stored is the truth
//! but for what the coverage says is missing, and no secret is anywhere.

#![allow(clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

mod azure_truth;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use azure_truth::{CLASSES, LISTS, List, essence_of_com, log_profile_missing, subscription};
use futures::StreamExt;
use proto::coverage::{Coverage, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::cloudsim::{Absence, Ailment, Cloudsim, Faults, Kind, Oddity, SubscriptionState, Times, Trouble};
use tests::gcpsim::{Gcpsim, Part};
use tests::harness::{NatsServer, PATIENCE, Program, Services, Workspace};

/// A configuration of one audit over these clouds. What is JSON is YAML.
fn configuration(clouds: &[(&str, Value)], more: Value) -> String {
    let mut plugins = json!({"filestore": {"params": {"path": "{out}"}}});
    for (key, cloud) in clouds {
        plugins[*key] = cloud.clone();
    }
    let keys: Vec<&str> = clouds.iter().map(|(key, _)| *key).collect();
    let audit =
        json!({"clouds": keys, "stores": ["filestore"], "events": ["firewallruleevent"], "alerts": ["filestore"]});
    let mut configuration = json!({"plugins": plugins, "audits": {"estate": audit}, "run": ["estate"]});
    if let (Value::Object(configuration), Value::Object(more)) = (&mut configuration, more) {
        configuration.extend(more);
    }
    configuration.to_string()
}

/// A plugin for the simulated Azure; its key is its class in small letters.
fn azure(class: &str, cloud: &Cloudsim, more: Value) -> Value {
    let mut params = json!({
        "tenant": cloud.tenant(), "client": cloud.client_id(), "secret": cloud.client_secret(),
        "login_endpoint": cloud.url(), "arm_endpoint": cloud.url(),
    });
    if let (Value::Object(params), Value::Object(more)) = (&mut params, more) {
        params.extend(more);
    }
    json!({"plugin": format!("cloudmarker.clouds.{}.{class}", class.to_lowercase()), "params": params})
}

fn google(cloud: &Gcpsim, key_file: &Path) -> Value {
    let params = json!({"key_file_path": key_file, "api_endpoint": cloud.url(), "patience": "90s"});
    json!({"plugin": "cloudmarker.clouds.gcpcloud.GCPCloud", "params": params})
}

/// What `--coverage FILE` writes.
#[derive(Debug, Deserialize)]
struct AuditCoverage {
    complete: bool,
    clouds: Vec<CloudCoverage>,
}

#[derive(Debug, Deserialize)]
struct CloudCoverage {
    plugin: String,
    records: u64,
    coverage: Vec<Coverage>,
    failed: Option<String>,
}

fn coverage(workspace: &Workspace) -> Result<AuditCoverage> {
    let text = std::fs::read(workspace.path().join("coverage.json"))?;
    let mut audits: Vec<AuditCoverage> = serde_json::from_slice(&text)?;
    ensure!(audits.len() == 1);
    audits.pop().context("an audit")
}

impl AuditCoverage {
    fn of(&self, plugin: &str) -> Result<&CloudCoverage> {
        self.clouds.iter().find(|cloud| cloud.plugin == plugin).with_context(|| format!("no coverage of {plugin}"))
    }
}

impl CloudCoverage {
    fn find(&self, scope: &str, resource_type: &str) -> Option<&Coverage> {
        self.coverage.iter().find(|one| one.scope == scope && one.resource_type == resource_type)
    }
}

fn text<'a>(record: &'a Value, bucket: &str, name: &str) -> &'a str {
    record[bucket][name].as_str().unwrap_or_default()
}

// ---- The mixed estate ----

const PROJECTS: usize = 20;

/// Everything at once. Subscriptions from the twentieth on have nothing wrong of their own.
fn azure_faults(faults: &mut Faults, stranger: &str) {
    faults.throttle_every = 31;
    faults.fail_every = 37;
    faults.cut_off_every = 41;
    faults.slow_every = 10;
    faults.slow_by = Duration::from_millis(100);
    faults.expire_tokens_after = Some(300);
    faults.refuse_page_tokens = Times::Next(4);
    faults.shifting_pages = true;
    faults.odd.insert(Kind::Disk, (5, Oddity::NoId));
    faults.odd.insert(Kind::NetworkSecurityGroup, (4, Oddity::TextProperties));
    faults.odd.insert(Kind::StorageAccount, (2, Oddity::NoProperties));
    faults.trouble(0, Trouble::Forbidden, Times::Always);
    faults.deny(1, Kind::Disk);
    faults.deny(2, Kind::InstanceView);
    faults.deny(3, Kind::Vault);
    faults.unregister(4, "Microsoft.Web", Absence::NotRegistered);
    faults.unregister(5, "Microsoft.DBforMySQL", Absence::Retired);
    faults.unregister(6, "Microsoft.DBforPostgreSQL", Absence::NoProvider);
    faults.ail(9, Kind::Vault, 1, Ailment::Denied);
    faults.ail(10, Kind::VirtualMachine, 1, Ailment::Gone);
    faults.ail(11, Kind::InstanceView, 1, Ailment::Gone);
    faults.ail(12, Kind::WebConfiguration, 1, Ailment::Denied);
    faults.trouble(13, Trouble::ForeignNextLink(stranger.to_owned()), Times::Always);
    faults.trouble(14, Trouble::Throttled, Times::Next(5));
    faults.trouble(15, Trouble::CutOff, Times::Next(3));
    faults.trouble(16, Trouble::Broken, Times::Next(3));
    faults.ail(17, Kind::TransparentDataEncryption, 1, Ailment::Broken);
    faults.deny(18, Kind::NetworkSecurityGroup);
    faults.unregister(19, "Microsoft.Insights", Absence::NotRegistered);
}

/// How a list is to end that is not complete; nothing for what is.
fn azure_plan(subscription: usize, list: &List) -> Option<State> {
    let odd = match list.name {
        "disk" | "nsg" => Some(State::Partial),
        // A server without the setting that its record tells.
        _ => None,
    };
    match (subscription, list.name) {
        (0, _) => Some(State::Denied),
        (1, "disk") | (2, "vm_instance_view") | (3, "key_vault" | "key_vault_key" | "key_vault_secret") => {
            Some(State::Denied)
        }
        (4, "web_apps" | "web_app_config") | (5, "mysql_server") => Some(State::NotEnabled),
        (5, "mysql_flexible_server") => Some(State::Failed),
        (6, "postgresql_server" | "postgresql_flexible_server") => Some(State::NotEnabled),
        (8, _) => Some(State::Skipped),
        (9, "key_vault_key" | "key_vault_secret") | (11, "vm_instance_view") | (12, "web_app_config") => {
            Some(State::Partial)
        }
        // What has details says complete of those, and what it does not follow beside.
        (13, _) => Some(State::Partial),
        (17, "sql_db") => Some(State::Partial),
        (18, "nsg") => Some(State::Denied),
        (19, "diagnostic_setting") => Some(State::NotEnabled),
        _ => odd,
    }
}

/// Holds what a plugin has stored against the truth and against what the coverage says of it.
fn verify_azure(
    cloud: &Cloudsim,
    faults: &Faults,
    class: &str,
    documents: &[Value],
    told: &CloudCoverage,
) -> Result<()> {
    let mut stored: BTreeMap<(String, String), &Value> = BTreeMap::new();
    for record in documents {
        let place = (text(record, "ext", "record_type").to_owned(), text(record, "com", "key").to_owned());
        ensure!(stored.insert(place, record).is_none(), "stored twice: {record}");
    }
    let mut take = |expected: &azure_truth::Expected| -> Result<bool> {
        let Some(record) = stored.remove(&(expected.record_type.to_owned(), expected.key.clone())) else {
            return Ok(false);
        };
        let same = record["raw"] == expected.raw && record["ext"] == expected.ext;
        ensure!(same && essence_of_com(record) == expected.com, "{record}\nis not\n{expected:#?}");
        Ok(true)
    };
    for index in 0..cloud.truth().subscriptions {
        let scope = cloud.estate().subscription_id(index);
        if class == "AzCloud" {
            ensure!(take(&subscription(cloud, index))?, "the subscription {scope} is missing");
        }
        for list in LISTS.iter().filter(|list| list.class == class) {
            let name = list.name;
            let found = told.find(&scope, name).with_context(|| format!("no coverage of {name} in {scope}"))?;
            let (mut read, mut lost) = (0, 0);
            let absent = faults.absent.contains_key(&(index, list.kind.namespace().to_lowercase()));
            let count = if absent { 0 } else { cloud.estate().count(index, list.kind) };
            for number in 0..count {
                if faults.ailment(index, list.kind, number) == Some(Ailment::Gone) && list.detail.is_some() {
                    continue;
                }
                let records = list.odd_records(cloud, index, number, faults.oddity(list.kind, number));
                let own = records.len().saturating_sub(1);
                match records.last() {
                    None if list.types.is_none() => read = found.read,
                    None => lost += 1,
                    Some(last) if take(last)? => {
                        read += 1;
                        for record in records.iter().take(own) {
                            ensure!(take(record)?, "{record:#?} is missing");
                        }
                    }
                    Some(_) => lost += 1,
                }
            }
            if list.kind == Kind::LogProfile && count == 0 {
                let settings = (!absent).then(|| cloud.estate().count(index, Kind::DiagnosticSetting));
                read += u64::from(take(&log_profile_missing(cloud, index, settings))?);
            }
            let what = format!("{name} of {index}: {found:?}, {read} stored, {lost} not");
            match (found.state, found.missing) {
                (State::Complete | State::NotEnabled, _) => ensure!(lost == 0, "{what}"),
                (_, Some(missing)) => ensure!(missing == lost && lost > 0, "{what}"),
                // How much is missing is not known; that something is, was to be expected.
                (_, None) => {}
            }
            // Pages that shift show some things twice.
            ensure!(found.read >= read && found.read <= read + 2, "{what}");
            let mut wanted = azure_plan(index, list);
            if list.name == "mysql_flexible_server" && lost > 0 {
                wanted = wanted.or(Some(State::Partial));
            }
            let is_hopeless = class == "AzSQL" && found.state >= State::Partial;
            ensure!(found.state == wanted.unwrap_or(State::Complete) || is_hopeless, "{what}, not {wanted:?}");
            ensure!(found.state == State::Complete || found.reason.is_some(), "{what}: no reason");
        }
    }
    ensure!(stored.is_empty(), "{class}: nobody knows {:?}", stored.keys().collect::<Vec<_>>());
    Ok(())
}

/// The same for Google Cloud, by what is listed.
fn verify_google(cloud: &Gcpsim, documents: &[Value], told: &CloudCoverage) -> Result<()> {
    let of = |record_type: &str, project: &str| -> Vec<&Value> {
        let is_it = |record: &&Value| {
            text(record, "ext", "record_type") == record_type && text(record, "ext", "project_id") == project
        };
        documents.iter().filter(is_it).collect()
    };
    let keys: BTreeSet<_> =
        documents.iter().map(|record| (text(record, "ext", "record_type"), text(record, "com", "key"))).collect();
    ensure!(keys.len() == documents.len(), "something is stored twice");
    for (index, listed) in cloud.listed_projects().iter().enumerate() {
        let project = cloud.estate().project(index);
        let is_it = |record: &&Value| text(record, "ext", "record_type") == "project" && record["raw"] == *listed;
        ensure!(documents.iter().filter(is_it).count() == 1, "the project {} is missing", project.id());
        for (name, listed) in [("firewall", cloud.listed_firewalls(index)), ("instance", cloud.listed_instances(index))]
        {
            let found = told.find(project.id(), name).with_context(|| format!("no coverage of {name} in {index}"))?;
            let stored = of(name, project.id());
            let mut lost = listed;
            for record in &stored {
                let place = lost.iter().position(|one| *one == record["raw"]);
                lost.remove(place.with_context(|| format!("{name} of {index} is not as it is: {record}"))?);
            }
            let what = format!("{name} of {index}: {found:?}, {} stored, {} not", stored.len(), lost.len());
            match (found.state, found.missing) {
                (State::Complete, _) => ensure!(lost.is_empty(), "{what}"),
                (State::NotEnabled | State::Skipped, _) => ensure!(stored.is_empty(), "{what}"),
                (_, Some(missing)) => ensure!(missing == lost.len() as u64, "{what}"),
                (_, None) => {}
            }
            let is_active = project.is_active();
            let wanted = match (index, name) {
                _ if !is_active => State::Skipped,
                (0, _) | (1, "firewall") | (2, "instance") => State::Denied,
                (3, _) => State::NotEnabled,
                // A zone is away.
                (_, "instance") => State::Partial,
                // What is odd may still have a record.
                _ if lost.is_empty() => State::Complete,
                _ => State::Partial,
            };
            ensure!(found.state == wanted, "{what}, not {wanted:?}");
            ensure!(found.read >= stored.len() as u64, "{what}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_stored_is_the_truth_but_for_what_the_coverage_says_is_missing() -> Result<()> {
    let stranger = Cloudsim::builder().start().await?;
    let cloud = Cloudsim::builder()
        .subscriptions(30)
        .subscription_state(7, SubscriptionState::Disabled)
        .subscription_state(8, SubscriptionState::Deleted)
        .machines(5)
        // What is on two pages that shift is missed twice.
        .count_in(2, Kind::VirtualMachine, 3)
        .disks(7)
        .nsgs(5)
        .rules(2)
        .databases(2)
        .keys(2)
        .secrets(2)
        .page_size(3)
        .token_lifetime(Duration::from_secs(5))
        .faults(|faults| azure_faults(faults, stranger.url()))
        .start()
        .await?;
    let google_cloud = Gcpsim::builder()
        .projects(PROJECTS)
        .firewalls(7)
        .instances(6)
        .page_size(3)
        .token_lifetime(Duration::from_secs(5))
        .start()
        .await?;
    let away = google_cloud.estate().zones().iter().take(1).map(|zone| (*zone).to_owned()).collect();
    google_cloud.faults(|faults| {
        faults.throttle_every = 13;
        faults.retry_after = Some(1);
        faults.fail_every = 17;
        faults.cut_off_every = 19;
        faults.stall_every = 11;
        faults.stall_for = Duration::from_millis(200);
        faults.expire_tokens_after = Some(50);
        faults.fail_token_requests = Times::Next(1);
        faults.refuse_page_tokens = Times::Next(2);
        faults.page_overlap = 1;
        faults.odd_every = 4;
        faults.unreachable_zones = away;
        faults.deny(0);
        faults.deny_part(1, Part::Firewalls);
        faults.deny_part(2, Part::Instances);
        faults.disable_api(3);
    });
    let workspace = Workspace::new("")?;
    let key_file = workspace.path().join("key.json");
    std::fs::write(&key_file, google_cloud.key_file())?;
    let keys = CLASSES.map(str::to_lowercase);
    let mut clouds: Vec<(&str, Value)> = Vec::new();
    for (class, key) in CLASSES.iter().zip(&keys) {
        // What is broken for ever is not waited for as long as what is throttled.
        let patience = if *class == "AzSQL" { "6s" } else { "90s" };
        clouds.push((key, azure(class, &cloud, json!({"patience": patience}))));
    }
    clouds.push(("google", google(&google_cloud, &key_file)));
    workspace.configure(&configuration(&clouds, json!({})))?;
    let output = workspace.run(&["run", "--now", "--coverage", "coverage.json"]).await?.with_code(3)?;
    let told = coverage(&workspace)?;
    assert!(!told.complete && told.clouds.len() == 10 && told.clouds.iter().all(|cloud| cloud.failed.is_none()));
    let mut faults = Faults::default();
    azure_faults(&mut faults, stranger.url());
    for (class, key) in CLASSES.iter().zip(&keys) {
        let documents = workspace.documents(&format!("estate_{key}.json"))?;
        verify_azure(&cloud, &faults, class, &documents, told.of(key)?)
            .with_context(|| format!("{class}\n{}", output.stdout))?;
    }
    let documents = workspace.documents("estate_google.json")?;
    verify_google(&google_cloud, &documents, told.of("google")?)?;
    assert!(output.stdout.contains("the subscription is Disabled"), "{}", output.stdout);
    assert!(output.stdout.contains("the subscription is deleted"), "{}", output.stdout);
    assert_eq!(stranger.statistics().arm_requests(), 0);
    let statistics = cloud.statistics();
    for (fault, count) in [
        ("throttled", statistics.throttled),
        ("failed", statistics.failed),
        ("cut off", statistics.cut_off),
        ("unauthorized", statistics.unauthorized),
        ("forbidden", statistics.forbidden),
        ("page tokens refused", statistics.page_tokens_refused),
    ] {
        assert!(count > 0, "nothing was {fault}");
    }
    Ok(())
}

// ---- Tokens, kills, credentials ----

/// The machines of an estate are all stored, each once, as they are.
fn verify_machines(cloud: &Cloudsim, workspace: &Workspace) -> Result<()> {
    let documents = workspace.documents("estate_azvm.json")?;
    let mut stored: BTreeMap<&str, &Value> = BTreeMap::new();
    for record in &documents {
        ensure!(stored.insert(text(record, "com", "key"), record).is_none(), "stored twice: {record}");
    }
    let list = azure_truth::list("vm_instance_view");
    for index in 0..cloud.truth().subscriptions {
        for number in 0..cloud.estate().count(index, list.kind) {
            for expected in list.records(cloud, index, number) {
                let record = stored.remove(expected.key.as_str()).with_context(|| format!("no {}", expected.key))?;
                ensure!(record["raw"] == expected.raw && record["ext"] == expected.ext, "{record}");
            }
        }
    }
    ensure!(stored.is_empty(), "too many: {:?}", stored.keys());
    Ok(())
}

#[tokio::test]
async fn a_run_outlasts_its_tokens() -> Result<()> {
    let cloud = Cloudsim::builder()
        .subscriptions(4)
        .machines(25)
        .token_lifetime(Duration::from_secs(2))
        .faults(|faults| faults.latency = Duration::from_millis(200))
        .start()
        .await?;
    let plugin = azure("AzVM", &cloud, json!({"concurrency": 3}));
    let workspace = Workspace::new(&configuration(&[("azvm", plugin)], json!({})))?;
    workspace.run(&["run", "--now"]).await?.with_code(0)?;
    verify_machines(&cloud, &workspace)?;
    let statistics = cloud.statistics();
    assert!(statistics.tokens_issued >= 4, "{statistics:?}");
    // They are renewed before they end.
    assert!(statistics.unauthorized <= 3, "{statistics:?}");
    Ok(())
}

/// Waits until so many frames are in the stream.
async fn frames(nats: &NatsServer, count: u64) -> Result<()> {
    let client = async_nats::connect(nats.url()).await?;
    let mut stream = async_nats::jetstream::new(client).get_stream("CM_RECORDS").await?;
    while stream.info().await?.state.messages < count {}
    Ok(())
}

#[tokio::test]
async fn a_collector_is_killed_among_details() -> Result<()> {
    let cloud = Cloudsim::builder()
        .subscriptions(12)
        .machines(100)
        .faults(|faults| faults.latency = Duration::from_millis(50))
        .start()
        .await?;
    let nats = NatsServer::start().await?;
    let stages = [("collector", 2), ("evaluator", 1), ("sink", 1), ("alerter", 1)];
    let mut services = Services::start_these(&nats, &stages)?;
    let plugin = azure("AzVM", &cloud, json!({"concurrency": 16}));
    let workspace = Workspace::new(&configuration(&[("azvm", plugin)], json!({"nats": {"ack_wait": "2s"}})))?;
    let mut coordinator = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
    coordinator.wait_for_line("collecting", PATIENCE).await?;
    tokio::time::timeout(PATIENCE, frames(&nats, 4)).await??;
    services.kill9_and_replace(&nats, "collector").await?;
    let output = coordinator.wait(PATIENCE).await?;
    assert_eq!(output.code(), Some(0), "{output:?}\n{}", services.printed());
    verify_machines(&cloud, &workspace)?;
    let asked = cloud.statistics().requests_of(Kind::InstanceView);
    assert!(asked > 1200, "the collector was killed between units: {asked} calls");
    Ok(())
}

#[tokio::test]
async fn wrong_credentials_cost_their_plugin_alone() -> Result<()> {
    let cloud = Cloudsim::builder().start().await?;
    let google_cloud = Gcpsim::builder().start().await?;
    let workspace = Workspace::new("")?;
    let key_file = workspace.path().join("key.json");
    std::fs::write(&key_file, google_cloud.key_file())?;
    let wrong = azure("AzVM", &cloud, json!({"secret": "not-the-secret-at-all"}));
    let mock = json!({"plugin": "cloudmarker.clouds.mockcloud.MockCloud", "params": {"record_count": 500}});
    let clouds = [("azvm", wrong), ("google", google(&google_cloud, &key_file)), ("mock", mock)];
    workspace.configure(&configuration(&clouds, json!({})))?;
    let output = workspace.run(&["run", "--now", "--coverage", "coverage.json"]).await?.with_code(3)?;
    assert_eq!(output.stdout.matches("AADSTS7000215").count(), 1, "{}", output.stdout);
    assert!(output.stdout.contains("set `secret`"), "{}", output.stdout);
    for shown in [&output.stdout, &output.stderr] {
        assert!(!shown.contains("not-the-secret-at-all"), "{shown}");
    }
    let told = coverage(&workspace)?;
    let [one] = told.of("azvm")?.coverage.as_slice() else { panic!("{told:?}") };
    assert_eq!((one.scope.as_str(), one.state, one.read), ("", State::Failed, 0));
    assert!(workspace.documents("estate_azvm.json")?.is_empty());
    let google = told.of("google")?;
    assert!(google.records > 0 && google.coverage.iter().all(|one| one.state.is_whole()), "{google:?}");
    assert_eq!(workspace.documents("estate_google.json")?.len() as u64, google.records);
    assert_eq!(workspace.documents("estate_mock.json")?.len(), 500);
    let statistics = cloud.statistics();
    assert!((1..=2).contains(&statistics.token_requests), "{statistics:?}");
    assert_eq!(statistics.arm_requests(), 0);
    Ok(())
}

// ---- Secrets ----

/// All that goes over a broker, by whom it concerns not.
struct Eavesdropper {
    client: async_nats::Client,
    heard: tokio::task::JoinHandle<Result<Vec<(String, String)>>>,
}

impl Eavesdropper {
    async fn on(nats: &NatsServer) -> Result<Self> {
        let options = async_nats::ConnectOptions::new().subscription_capacity(1 << 20);
        let client = options.connect(nats.url()).await?;
        let mut all = client.subscribe(">").await?;
        client.flush().await?;
        let heard = tokio::spawn(async move {
            let mut heard = Vec::new();
            while let Some(message) = all.next().await {
                let subject = message.subject.to_string();
                if subject == "end.of.the.test" {
                    break;
                }
                let headers: Vec<_> = message
                    .headers
                    .iter()
                    .flat_map(|headers| headers.iter())
                    .map(|(name, values)| {
                        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                        (name.to_string(), values.join(","))
                    })
                    .collect();
                let payload = plain(&subject, &headers, message.payload)?;
                heard.push((subject, format!("{headers:?} {}", String::from_utf8_lossy(&payload))));
            }
            Ok(heard)
        });
        Ok(Self { client, heard })
    }

    async fn end(self) -> Result<Vec<(String, String)>> {
        self.client.publish("end.of.the.test", "".into()).await?;
        self.client.flush().await?;
        self.heard.await?
    }
}

/// What is compressed is opened.
fn plain(subject: &str, headers: &[(String, String)], payload: bytes::Bytes) -> Result<bytes::Bytes> {
    if !subject.starts_with("cm.record.") {
        return Ok(payload);
    }
    let headers = headers.iter().map(|(name, value)| (name.clone().into(), value.clone().into())).collect();
    let message = proto::bus::Message { subject: subject.into(), seq: 1, headers, payload };
    Ok(proto::frame::open(&message)?)
}

/// The tokens of the simulated Azure in a text.
fn has_azure_token(text: &str) -> bool {
    let is_token = |rest: &str| rest.len() >= 32 && rest.bytes().take(32).all(|byte| byte.is_ascii_hexdigit());
    text.match_indices("cloudsim.").any(|(place, found)| is_token(&text[place + found.len()..]))
}

#[tokio::test]
async fn no_secret_is_anywhere() -> Result<()> {
    const SECRET: &str = "sEcReT-of-the-application-0815";
    const WRONG: &str = "wRoNg-SeCrEt-of-another-4711";
    let cloud = Cloudsim::builder()
        .subscriptions(3)
        .client_secret(SECRET)
        .page_size(2)
        .token_lifetime(Duration::from_secs(4))
        .faults(|faults| {
            faults.throttle_every = 23;
            faults.fail_every = 29;
            faults.cut_off_every = 31;
            faults.expire_tokens_after = Some(20);
            faults.refuse_page_tokens = Times::Next(2);
            faults.forbid(1);
            faults.deny(1, Kind::Disk);
            faults.ail(2, Kind::Vault, 0, Ailment::Denied);
        })
        .start()
        .await?;
    let google_cloud = Gcpsim::builder().start().await?;
    google_cloud.faults(|faults| {
        faults.fail_every = 5;
        faults.expire_tokens_after = Some(4);
        faults.deny(0);
    });
    let nats = NatsServer::start().await?;
    let eavesdropper = Eavesdropper::on(&nats).await?;

    let workspace = Workspace::new("")?;
    let key_file = workspace.path().join("key.json");
    std::fs::write(&key_file, google_cloud.key_file())?;
    let reference = json!({"secret": "${CM_AZURE_SECRET}"});
    let clouds = [
        ("azcloud", azure("AzCloud", &cloud, reference.clone())),
        ("azvm", azure("AzVM", &cloud, reference.clone())),
        ("azkv", azure("AzKV", &cloud, reference)),
        ("azdisk", azure("AzDisk", &cloud, json!({"secret": "${CM_WRONG_SECRET}"}))),
        ("google", google(&google_cloud, &key_file)),
    ];
    let log = |name: &str| workspace.path().join(format!("{name}.log"));
    let logger = json!({"logger": {
        "version": 1,
        "handlers": {"file": {"class": "logging.FileHandler", "filename": log("coordinator"), "level": "DEBUG"}},
        "root": {"level": "DEBUG", "handlers": ["file"]},
    }});
    workspace.configure(&configuration(&clouds, logger))?;
    let mut programs = Vec::new();
    for stage in ["collector", "evaluator", "sink", "alerter"] {
        let file = log(stage).display().to_string();
        let program = Program::named(stage)
            .args(["--nats", nats.url(), "--log-level", "trace", "--log-file", &file])
            .env("RUST_LOG", "trace")
            .env("CM_AZURE_SECRET", SECRET)
            .env("CM_WRONG_SECRET", WRONG);
        programs.push(program.start()?);
    }
    let args = ["run", "--now", "--nats", nats.url(), "--coverage", "coverage.json"];
    let run = workspace.coordinator(&args).env("RUST_LOG", "trace").start()?.wait(PATIENCE).await?.with_code(3)?;
    let told = coverage(&workspace)?;
    assert!(told.clouds.iter().filter(|cloud| cloud.records > 0).count() == 4, "{told:?}");

    let mut shown = vec![("stdout".to_owned(), run.stdout), ("stderr".to_owned(), run.stderr)];
    for program in &mut programs {
        program.terminate()?;
        let output = program.wait(PATIENCE).await?;
        shown.push((format!("output of {}", output.name), format!("{}{}", output.stdout, output.stderr)));
    }
    for name in ["coordinator", "collector", "evaluator", "sink", "alerter"] {
        let text = std::fs::read_to_string(log(name)).with_context(|| format!("the log of {name}"))?;
        shown.push((format!("log of {name}"), text));
    }
    shown.push(("coverage".to_owned(), std::fs::read_to_string(workspace.path().join("coverage.json"))?));
    for file in workspace.files()? {
        shown.push((file.clone(), std::fs::read_to_string(workspace.out().join(&file))?));
    }
    let heard = eavesdropper.end().await?;
    for kind in ["cm.unit.", "cm.record.", "cm.event.", "cm.status.", "$KV.cm_plans.", "$KV.cm_runs."] {
        assert!(heard.iter().any(|(subject, _)| subject.starts_with(kind)), "nothing was heard of {kind}");
    }
    shown.extend(heard);
    let whole: usize = shown.iter().map(|(_, text)| text.len()).sum();
    assert!(whole > 500_000, "only {whole} bytes were shown");
    // What the test looks for is what was in use.
    assert!(cloud.statistics().tokens_issued > 2 && google_cloud.secrets().len() > 20);

    let mut secrets = google_cloud.secrets();
    secrets.extend([SECRET.to_owned(), WRONG.to_owned(), "BEGIN PRIVATE KEY".to_owned(), "eyJhbGciOi".to_owned()]);
    for (place, text) in &shown {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{place} shows a secret: {}", around(text, secret));
        }
        assert!(!has_azure_token(text), "{place} shows a token: {}", around(text, "cloudsim."));
    }
    Ok(())
}

/// The text before a secret, to find where it came from.
fn around<'a>(text: &'a str, secret: &str) -> &'a str {
    let place = text.find(secret).unwrap_or_default();
    let start = (place.saturating_sub(200)..=place).find(|at| text.is_char_boundary(*at)).unwrap_or(place);
    &text[start..place]
}
