//! Whole runs against the simulated Azure: the coverage says what could not be read, and the rest is complete.

use anyhow::Result;
use serde_json::Value;
use tests::cloudsim::{Cloudsim, Counts};
use tests::harness::{NatsServer, Output, Program, Services, Workspace};

fn in_workspace(azure: &Cloudsim) -> Result<Workspace> {
    let configuration = azure.configuration();
    let workspace = Workspace::new(&configuration)?;
    let store =
        "plugins: {filestore: {params: {path: '{out}'}}}".replace("{out}", &workspace.out().display().to_string());
    std::fs::write(workspace.path().join("store.yaml"), store)?;
    Ok(workspace)
}

async fn run(workspace: &Workspace) -> Result<Output> {
    workspace.run(&["run", "--now", "-c", "cloudmarker.yaml", "store.yaml"]).await
}

fn counts(records: &[Value]) -> Counts {
    let of = |kind: &str| records.iter().filter(|record| record["ext"]["record_type"] == kind).count();
    Counts { subscriptions: of("subscription"), nsgs: of("nsg"), rules: of("security_rule") }
}

fn assert_unique(records: &[Value]) {
    let mut ids: Vec<&str> = records.iter().filter_map(|record| record["com"]["id"].as_str()).collect();
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    assert_eq!((ids.len(), all), (records.len(), records.len()));
}

#[tokio::test]
async fn a_forbidden_subscription_is_denied_and_the_others_are_complete() -> Result<()> {
    let azure = Cloudsim::builder().subscriptions(3).faults(|faults| faults.forbid(1)).start().await?;
    let workspace = in_workspace(&azure)?;
    let output = run(&workspace).await?.with_code(3)?;
    let forbidden = azure.estate().subscription_id(0);
    assert!(output.stdout.contains(&format!("11 types of {forbidden} denied (0 read)")), "{}", output.stdout);
    let records = workspace.documents("myazaudit_myazcloud.json")?;
    assert_eq!(counts(&records).nsgs, azure.readable().nsgs);
    assert_eq!(counts(&records).rules, azure.readable().rules);
    assert_eq!(counts(&records).subscriptions, azure.truth().subscriptions, "a forbidden one is listed");
    assert_unique(&records);
    assert!(!workspace.documents("myazaudit_firewallruleevent.json")?.is_empty());
    Ok(())
}

#[tokio::test]
async fn every_seventh_request_throttled_changes_nothing() -> Result<()> {
    let azure = Cloudsim::builder()
        .subscriptions(3)
        .nsgs(9)
        .page_size(2)
        .faults(|faults| faults.throttle_every = 7)
        .start()
        .await?;
    let workspace = in_workspace(&azure)?;
    run(&workspace).await?.with_code(0)?;
    let records = workspace.documents("myazaudit_myazcloud.json")?;
    assert_eq!(counts(&records), azure.truth());
    assert_unique(&records);
    Ok(())
}

#[tokio::test]
async fn a_token_that_expires_between_two_pages_is_renewed() -> Result<()> {
    let azure = Cloudsim::builder()
        .subscriptions(1)
        .nsgs(4)
        .page_size(2)
        .faults(|faults| faults.expire_tokens_after = Some(2))
        .start()
        .await?;
    let workspace = in_workspace(&azure)?;
    run(&workspace).await?.with_code(0)?;
    assert_eq!(counts(&workspace.documents("myazaudit_myazcloud.json")?), azure.truth());
    Ok(())
}

#[tokio::test]
async fn over_a_broker_with_two_of_every_worker() -> Result<()> {
    let azure = Cloudsim::builder()
        .subscriptions(5)
        .nsgs(20)
        .page_size(7)
        .faults(|faults| faults.throttle_every = 11)
        .start()
        .await?;
    let nats = NatsServer::start().await?;
    let services = Services::start(&nats, 2)?;
    let workspace = in_workspace(&azure)?;
    let args = ["run", "--now", "--nats", nats.url(), "-c", "cloudmarker.yaml", "store.yaml"];
    let output = workspace.run(&args).await?;
    assert_eq!(output.code(), Some(0), "{output:?}\n{}", services.printed());
    // The simulator's secret is no secret; a real one that travels like this is worth a word.
    let warning = "warning: plugin myazcloud: `secret` stands in the configuration as it is";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    let records = workspace.documents("myazaudit_myazcloud.json")?;
    assert_eq!(counts(&records), azure.truth());
    assert_unique(&records);
    Ok(())
}

#[tokio::test]
async fn wrong_credentials_end_the_run_with_one_clear_reason() -> Result<()> {
    let azure = Cloudsim::builder().start().await?;
    let workspace = in_workspace(&azure)?;
    let secret = azure.client_secret();
    let configuration = azure.configuration().replace(secret, "not-the-secret-at-all");
    workspace.configure(&configuration)?;
    let output = run(&workspace).await?.with_code(3)?;
    assert!(output.stdout.contains("AADSTS7000215"), "{output:?}");
    assert!(!output.stdout.contains("not-the-secret-at-all") && !output.stderr.contains("not-the-secret-at-all"));
    assert_eq!(std::fs::read_to_string(workspace.out().join("myazaudit_myazcloud.json"))?, "[]\n");
    Ok(())
}

#[tokio::test]
async fn a_collector_without_the_secret_leaves_the_cloud_to_one_that_has_it() -> Result<()> {
    let azure = Cloudsim::builder().start().await?;
    let workspace = in_workspace(&azure)?;
    let reference = azure.configuration().replace(azure.client_secret(), "${CM_TEST_SECRET}");
    workspace.configure(&reference)?;
    // Nobody has it: the part ends as failed, in words that help.
    let output = run(&workspace).await?.with_code(3)?;
    assert!(output.stdout.contains("cloud myazcloud: ") && output.stdout.contains("CM_TEST_SECRET"), "{output:?}");
    // One of two has it.
    let nats = NatsServer::start().await?;
    let _services = Services::start_these(&nats, &[("evaluator", 1), ("sink", 1), ("collector", 1)])?;
    let able = Program::named("collector").args(["--nats", nats.url()]).env("CM_TEST_SECRET", azure.client_secret());
    let _able = able.start()?;
    let args = ["run", "--now", "--nats", nats.url(), "-c", "cloudmarker.yaml", "store.yaml"];
    let output = workspace.run(&args).await?.with_code(0)?;
    assert!(!output.stdout.contains(azure.client_secret()) && !output.stderr.contains(azure.client_secret()));
    assert_eq!(counts(&workspace.documents("myazaudit_myazcloud.json")?), azure.truth());
    Ok(())
}
