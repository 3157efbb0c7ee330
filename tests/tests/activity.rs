//! Activity logs in whole runs: each event is kept exactly once, whatever is killed, late, throttled or refused.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tests::awssim::{Account, Arrival, Awssim};
use tests::cloudsim::{Cloudsim, LateEvent};
use tests::harness::{Launch, NatsServer, Output, Services, Workspace};

const ONE: &str = "111111111111";
const TWO: &str = "222222222222";
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a run may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the rules of the tests keep.
const KEPT: [&str; 3] = ["CreateUser", "DeleteUser", "LateUser"];

fn keep() -> Value {
    json!([
        {"rule": "Users", "field": "eventName", "is": ["CreateUser", "DeleteUser"]},
        {"rule": "Late", "field": "eventName", "like": "Late*"},
    ])
}

/// Both accounts: one by its key, the other by a role that asks for an external id.
fn two_accounts() -> (Account, Account) {
    (Account::new(ONE), Account::new(TWO).with_role("audit", Some("external-1")))
}

/// A folder, with an audit of these parameters into an inventory.
struct Logs {
    workspace: Workspace,
}

impl Logs {
    fn new(aws: &Awssim, params: &Value) -> Result<Self> {
        let workspace = Workspace::new("{}")?;
        let logs = Self { workspace };
        logs.configure(aws, params)?;
        Ok(logs)
    }

    /// The same for the Activity Log.
    fn of_azure(azure: &Cloudsim, params: &Value) -> Result<Self> {
        let logs = Self { workspace: Workspace::new("{}")? };
        let mut all = json!({
            "tenant": azure.tenant(), "client": azure.client_id(), "secret": azure.client_secret(),
            "login_endpoint": azure.url(), "arm_endpoint": azure.url(),
        });
        let members = all.as_object_mut().context("an object")?;
        members.extend(params.as_object().context("an object")?.clone());
        logs.configure_plugin("AzActivityLog", &all)?;
        Ok(logs)
    }

    fn configure_plugin(&self, class: &str, params: &Value) -> Result<()> {
        let configuration = json!({
            "plugins": {
                "trail": {"plugin": class, "params": params},
                "inventory": {"plugin": "SqliteStore", "params": {"path": self.inventory()}},
                "vaults": {"plugin": "azure_key_vault_deleted"},
            },
            "audits": {"logs": {"clouds": ["trail"], "stores": ["inventory"], "events": ["vaults"]}},
            "run": ["logs"],
        });
        self.workspace.configure(&configuration.to_string())
    }

    fn configure(&self, aws: &Awssim, params: &Value) -> Result<()> {
        let (one, two) = two_accounts();
        let mut all = json!({
            "endpoint_url": aws.url(),
            "accounts": [
                {"account": ONE, "access_key_id": one.key_id, "secret_access_key": one.secret},
                {"account": TWO, "access_key_id": one.key_id, "secret_access_key": one.secret,
                    "role_arn": two.role_arn("audit"), "external_id": "external-1"},
            ],
            "keep": keep(),
            "_calls_per_second": 1000,
        });
        let members = all.as_object_mut().context("an object")?;
        members.extend(params.as_object().context("an object")?.clone());
        self.configure_plugin("AwsCloudTrail", &all)
    }

    fn inventory(&self) -> PathBuf {
        self.workspace.path().join("inventory.db")
    }

    /// A run of one process, with what this host keeps from run to run.
    fn launch(&self, more: &[&str]) -> Launch {
        let mut args = vec!["run", "--now", "-c", "cloudmarker.yaml"];
        args.extend(more);
        self.workspace.coordinator(&args).env("CM_STATE_DIR", self.workspace.path().join("state"))
    }

    async fn run(&self) -> Result<Output> {
        self.launch(&[]).start()?.wait(PATIENCE).await
    }

    /// All documents.
    fn documents(&self) -> Result<Vec<Value>> {
        let inventory = Connection::open_with_flags(self.inventory(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut rows = inventory.prepare("SELECT document FROM documents")?;
        let texts = rows.query_map([], |row| row.get::<_, String>(0))?;
        texts.map(|text| Ok(serde_json::from_str(&text?)?)).collect()
    }

    /// The ids of all events in the inventory, each of which is there once.
    fn ids(&self) -> Result<BTreeSet<String>> {
        let documents = self.documents()?;
        let ids: BTreeSet<String> =
            documents.iter().filter_map(|it| it["com"]["event_id"].as_str()).map(str::to_owned).collect();
        ensure!(ids.len() == documents.len(), "{} events in {} documents", ids.len(), documents.len());
        Ok(ids)
    }
}

/// The ids of what is to be kept of all accounts and regions.
fn truth(aws: &Awssim) -> BTreeSet<String> {
    let places = [ONE, TWO].into_iter().flat_map(|account| REGIONS.map(|region| (account, region)));
    places.flat_map(|(account, region)| aws.event_ids(account, region, Some(&KEPT))).collect()
}

async fn simulate(events: u64, span: Duration, calls_per_second: Option<f64>) -> Result<Awssim> {
    let (one, two) = two_accounts();
    let aws = Awssim::builder().account(one).account(two).regions(&REGIONS).events(events, span);
    aws.calls_per_second(calls_per_second).start().await
}

/// Pages read in all.
async fn pages_reach(aws: &Awssim, pages: u64) -> Result<()> {
    let began = Instant::now();
    while aws.statistics().pages < pages {
        ensure!(began.elapsed() < PATIENCE, "only {:?}", aws.statistics());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[tokio::test]
async fn two_accounts_of_two_regions_with_the_same_rules_are_each_complete() -> Result<()> {
    let aws = simulate(700, DAY * 20, None).await?;
    let logs = Logs::new(&aws, &json!({}))?;
    let output = logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?, truth(&aws), "{output:?}");
    assert_eq!(truth(&aws).len(), 4 * 140);
    assert!(aws.statistics().pages_by_place.len() == 4 && aws.statistics().roles >= 1);

    let documents = logs.documents()?;
    let one = documents.iter().find(|it| it["com"]["account"] == TWO).context("none of the second account")?;
    let (com, raw) = (&one["com"], &one["raw"]);
    assert_eq!(com["lifetime"], "permanent");
    assert_eq!((&com["cloud_type"], &com["record_type"]), (&json!("aws"), &json!("cloud_activity")));
    assert_eq!((&com["event_id"], &com["reference"]), (&raw["eventID"], &raw["eventID"]));
    assert_eq!((&com["time"], &com["region"]), (&raw["eventTime"], &raw["awsRegion"]));
    assert_eq!(com["actor"]["name"], raw["userIdentity"]["userName"]);
    assert_eq!(com["rules"], json!(["Users"]));
    assert_eq!(one["ext"]["account_id"], TWO);

    // The next run reads what is new, and the overlap: one window of each, and no more.
    let before = aws.statistics().pages;
    let late = jiff::Timestamp::now().as_second() - 600;
    aws.arrive(TWO, "us-east-1", Arrival { time: late, name: "LateUser".into(), number: 1 });
    // One that is older than the overlap came too late: it is what the overlap is for that decides.
    let too_late = Arrival { time: late - 7200, name: "LateUser".into(), number: 2 };
    aws.arrive(ONE, "us-east-1", too_late);
    logs.run().await?.with_code(0)?;
    assert_eq!(aws.statistics().pages - before, 4);
    let missing: Vec<String> = truth(&aws).difference(&logs.ids()?).cloned().collect();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(logs.ids()?.len(), 4 * 140 + 1);

    // Another set of rules is read from its own beginning.
    let other = json!([{"rule": "Late", "field": "eventName", "is": "LateUser"}]);
    logs.configure(&aws, &json!({"keep": other}))?;
    logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?, truth(&aws));
    Ok(())
}

#[tokio::test]
async fn a_run_that_is_killed_in_the_middle_of_a_window_goes_on_and_doubles_nothing() -> Result<()> {
    let aws = simulate(6_000, DAY * 30, None).await?;
    let logs = Logs::new(&aws, &json!({"window": "10d"}))?;
    // Some windows are read and stored, others are not: then nobody answers any more, and the run dies.
    aws.hold_after(Some(250));
    let mut program = logs.launch(&[]).start()?;
    pages_reach(&aws, 250).await?;
    // What was read is stored and written down meanwhile.
    let kept = logs.workspace.path().join("state/kv/cm_checkpoints");
    let began = Instant::now();
    while std::fs::read_dir(&kept).map_or(0, Iterator::count) == 0 {
        ensure!(began.elapsed() < PATIENCE, "no checkpoint is written at {}", kept.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    program.kill9().await?;
    let so_far = logs.ids()?.len();
    assert!(so_far > 0 && so_far < truth(&aws).len(), "{so_far}");

    aws.hold_after(None);
    let late = jiff::Timestamp::now().as_second() - 60;
    aws.arrive(ONE, "eu-west-1", Arrival { time: late, name: "LateUser".into(), number: 7 });
    logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?, truth(&aws));
    let once = 4 * 6_000 / 50;
    let pages = aws.statistics().pages;
    assert!(pages < 250 + once, "{pages} pages: the second run has begun anew");
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_killed_in_the_middle_of_a_window_is_replaced() -> Result<()> {
    let aws = simulate(4_000, DAY * 10, None).await?;
    let logs = Logs::new(&aws, &json!({"window": "5d"}))?;
    let nats = NatsServer::start().await?;
    let mut services = Services::start(&nats, 1)?;
    let mut program = logs.launch(&["--nats", nats.url()]).start()?;
    pages_reach(&aws, 60).await?;
    services.kill9_and_replace(&nats, "collector").await?;
    let output = program.wait(PATIENCE).await?;
    assert_eq!(output.code(), Some(0), "{output:?}\n{}", services.printed());
    assert_eq!(logs.ids()?, truth(&aws));

    // The broker has the checkpoints: the next run reads no more than what is new.
    let before = aws.statistics().pages;
    let output = logs.launch(&["--nats", nats.url()]).start()?.wait(PATIENCE).await?;
    assert_eq!(output.code(), Some(0), "{output:?}");
    assert_eq!(aws.statistics().pages - before, 4);
    assert_eq!(logs.ids()?, truth(&aws));
    Ok(())
}

#[tokio::test]
async fn an_expression_without_a_match_advances() -> Result<()> {
    let aws = simulate(120, DAY, None).await?;
    let keep = json!([{"rule": "Nobody", "jmespath": "[?userIdentity.userName == 'nobody']"}]);
    let logs = Logs::new(&aws, &json!({"keep": keep}))?;
    logs.run().await?.with_code(0)?;
    let before = aws.statistics().pages;
    assert!(before > 4 * 80, "the first run reads windows of 90 days: {before}");
    logs.run().await?.with_code(0)?;
    assert_eq!(aws.statistics().pages - before, 4);

    let keep = json!([{"rule": "Admin", "jmespath": "[?userIdentity.userName == 'admin-user']"}]);
    logs.configure(&aws, &json!({"keep": keep}))?;
    logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?.len(), 4 * 18, "every seventh of 120 events");
    Ok(())
}

#[tokio::test]
async fn two_calls_in_a_second_are_enough_and_more_are_throttled_and_lose_nothing() -> Result<()> {
    // At the pace that AWS takes, nothing is throttled.
    let aws = simulate(300, Duration::from_secs(3000), Some(2.0)).await?;
    let logs = Logs::new(&aws, &json!({"reach": "1h", "_calls_per_second": 2}))?;
    let began = Instant::now();
    logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?, truth(&aws));
    assert!(began.elapsed() >= Duration::from_millis(2_500), "{:?}", began.elapsed());
    assert!(aws.statistics().throttled <= 4, "{:?}", aws.statistics());

    // Somebody else reads the same log: what is throttled waits, and is read all the same.
    let aws = simulate(400, Duration::from_secs(3000), Some(2.0)).await?;
    let logs = Logs::new(&aws, &json!({"reach": "1h"}))?;
    logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?, truth(&aws));
    assert!(aws.statistics().throttled > 0);
    Ok(())
}

#[tokio::test]
async fn a_page_token_that_is_refused_begins_the_window_again() -> Result<()> {
    let aws = simulate(400, Duration::from_secs(3000), None).await?;
    let logs = Logs::new(&aws, &json!({"reach": "1h"}))?;
    aws.refuse_tokens(2);
    logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?, truth(&aws));
    Ok(())
}

#[tokio::test]
async fn what_is_refused_is_told_and_read_later() -> Result<()> {
    let aws = simulate(200, DAY * 3, None).await?;
    let logs = Logs::new(&aws, &json!({}))?;
    aws.deny(TWO, "eu-west-1");
    let output = logs.run().await?.with_code(3)?;
    assert!(output.stdout.contains("222222222222/eu-west-1") && output.stdout.contains("denied"), "{output:?}");
    assert!(output.stdout.contains("cloudtrail:LookupEvents"), "{output:?}");
    assert_eq!(logs.ids()?.len(), 3 * 40);
    // When it may, the next run reads all of it.
    aws.allow(TWO, "eu-west-1");
    logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?, truth(&aws));
    Ok(())
}

#[tokio::test]
async fn wrong_keys_and_roles_and_accounts_cost_their_own_account() -> Result<()> {
    let aws = simulate(20, DAY, None).await?;
    let (one, two) = two_accounts();
    let good = json!({"account": ONE, "access_key_id": one.key_id, "secret_access_key": one.secret});
    let with = |more: Value| {
        let mut account = good.clone();
        account.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        account
    };
    let wrong_secret = "hunter2hunter2";
    let cases = [
        (with(json!({"secret_access_key": wrong_secret})), "SignatureDoesNotMatch"),
        (with(json!({"access_key_id": "AKIANOBODY"})), "InvalidClientTokenId"),
        (with(json!({"account": TWO})), "are of the account 111111111111"),
        (with(json!({"account": TWO, "role_arn": two.role_arn("audit"), "external_id": "no"})), "sts:AssumeRole"),
    ];
    for (bad, why) in cases {
        let logs = Logs::new(&aws, &json!({"accounts": [bad, good]}))?;
        let output = logs.run().await?.with_code(3)?;
        assert!(output.stdout.contains(why), "{why}: {output:?}");
        assert!(!output.stdout.contains(wrong_secret) && !output.stderr.contains(wrong_secret));
        assert_eq!(logs.ids()?.len(), 2 * 4, "{why}");
    }
    Ok(())
}

#[tokio::test]
async fn the_activity_log_of_each_subscription_is_kept_whatever_its_spelling() -> Result<()> {
    let azure = Cloudsim::builder()
        .subscriptions(3)
        .page_size(7)
        .activity(120, DAY * 5)
        .faults(|faults| faults.throttle_every = 25)
        .start()
        .await?;
    let keep = json!([{"rule": "Machines", "field": "operationName", "like": "microsoft.compute/VIRTUALMACHINES/*"}]);
    let logs = Logs::of_azure(&azure, &json!({"keep": keep, "window": "2d", "reach": "10d"}))?;
    let truth = || -> BTreeSet<String> {
        let events = (0..3).flat_map(|subscription| azure.activity(subscription));
        let is_kept = |event: &Value| {
            event["operationName"]["value"].as_str().unwrap().to_lowercase().starts_with("microsoft.compute/virtual")
        };
        events.filter(is_kept).map(|event| event["eventDataId"].as_str().unwrap().to_owned()).collect()
    };
    let output = logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?, truth(), "{output:?}");
    assert_eq!(truth().len(), 3 * 40);
    let documents = logs.documents()?;
    let one = documents.iter().find(|it| it["com"]["action"] == "MICROSOFT.COMPUTE/virtualMachines/delete").unwrap();
    assert_eq!((&one["com"]["outcome"], &one["com"]["actor"]["kind"]), (&json!("success"), &json!("user")));
    assert_eq!((&one["com"]["lifetime"], &one["com"]["rules"]), (&json!("permanent"), &json!(["Machines"])));

    // What comes in late is read by the next run, and nothing twice.
    let late = jiff::Timestamp::now().as_second() - 600;
    azure.arrive(1, LateEvent { time: late, operation: "Microsoft.Compute/virtualMachines/write".into() });
    logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?, truth());
    assert_eq!(truth().len(), 3 * 40 + 1);
    Ok(())
}

#[tokio::test]
async fn a_forbidden_subscription_is_told_and_read_later() -> Result<()> {
    let azure =
        Cloudsim::builder().subscriptions(2).activity(30, DAY).faults(|faults| faults.forbid(1)).start().await?;
    let logs = Logs::of_azure(&azure, &json!({"keep": "all", "reach": "3d"}))?;
    let output = logs.run().await?.with_code(3)?;
    assert!(output.stdout.contains("denied") && output.stdout.contains("cloud_activity"), "{output:?}");
    assert_eq!(logs.ids()?.len(), 30);
    azure.faults(|faults| *faults = tests::cloudsim::Faults::default());
    logs.run().await?.with_code(0)?;
    assert_eq!(logs.ids()?.len(), 60);
    Ok(())
}
