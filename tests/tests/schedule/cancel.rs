//! Runs that are cancelled: whoever leads them, and when nobody does.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proto::run::RunState;
use tests::harness::{Output, PATIENCE, Program};

use super::reading::{House, complete};

/// How soon nothing may be left of a run after it was cancelled by its leader.
const SECONDS: Duration = Duration::from_secs(10);

const LONG: &str = "
schedule: 0 0 29 2 *
plugins:
  filestore: {params: {path: '{out}'}}
  inventory: {plugin: SqliteStore, params: {path: '{out}/inventory.db'}}
  mockcloud: {params: {record_count: 200000}}
audits: {mockaudit: {stores: [filestore, inventory]}}
nats: {ack_wait: 2s}
";

/// A run in the middle, and its version.
async fn in_the_middle(house: &House) -> Result<(Program, String)> {
    let run = house.workspace.coordinator(&["run", "--now", "--nats", house.nats.url()]).start()?;
    house.until_records(100).await?;
    let version = house.runs().await?.last().map(|run| run.version.to_string()).unwrap_or_default();
    Ok((run, version))
}

async fn cancel(house: &House, version: &str) -> Result<Output> {
    house.workspace.run(&["cancel", version, "--nats", house.nats.url()]).await
}

/// What was stored stays, and there is no file that anybody could take for a whole one.
async fn is_cancelled(house: &House, version: &str) -> Result<()> {
    let runs = house.runs().await?;
    let of = |run: &&RunState| run.version.as_str() == version;
    let run = runs.iter().find(of).ok_or_else(|| anyhow::anyhow!("no run {version}"))?;
    ensure!(
        run.is_ended() && run.audits.values().all(|audit| audit.cancelled && audit.complete == Some(false)),
        "{run:#?}"
    );
    ensure!(house.messages("CM_UNITS").await? == 0, "units are left");
    let files: Vec<String> = house.workspace.files()?;
    ensure!(files.iter().all(|file| file.starts_with("inventory")), "{files:?}");
    Ok(())
}

#[tokio::test]
async fn whoever_follows_a_cancelled_run_is_told() -> Result<()> {
    let house = House::with(LONG).await?;
    let (mut run, version) = in_the_middle(&house).await?;
    let began = Instant::now();
    let output = cancel(&house, &version).await?.with_code(0)?;
    ensure!(began.elapsed() < SECONDS, "it took {:?}", began.elapsed());
    ensure!(output.stderr.contains("is cancelled; what was stored stays"), "{output:?}");
    let output = run.wait(PATIENCE).await?.with_code(3)?;
    ensure!(output.stdout.contains("CANCELLED") && output.stdout.contains("cancelled by "), "{output:?}");
    is_cancelled(&house, &version).await?;
    // It is not cancelled twice, nor resumed.
    let output = cancel(&house, &version).await?.with_code(3)?;
    ensure!(output.stderr.contains("there is nothing to cancel"), "{output:?}");
    let output = house.workspace.run(&["run", "--resume", &version, "--nats", house.nats.url()]).await?.with_code(3)?;
    ensure!(output.stdout.contains("CANCELLED"), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn a_run_that_the_waiting_coordinator_leads() -> Result<()> {
    let house = House::with(LONG).await?;
    let coordinator = house.coordinator()?;
    coordinator.wait_for_line("leading:", PATIENCE).await?;
    let detach = ["run", "--now", "--detach", "--nats", house.nats.url()];
    let version = house.workspace.run(&detach).await?.with_code(0)?.stdout.trim().to_owned();
    house.until_records(100).await?;
    let began = Instant::now();
    cancel(&house, &version).await?.with_code(0)?;
    ensure!(began.elapsed() < SECONDS, "it took {:?}", began.elapsed());
    coordinator.wait_for_line(&format!("run {version} has ended: cancelled"), PATIENCE).await?;
    is_cancelled(&house, &version).await?;
    // The next run is whole, in the same files.
    house.workspace.configure(&LONG.replace("200000", "1000"))?;
    house.workspace.run(&["run", "--now", "--nats", house.nats.url()]).await?.with_code(0)?;
    ensure!(house.workspace.documents("mockaudit_mockcloud.json")?.len() == 1000);
    ensure!(complete(&house.runs().await?) == 1);
    Ok(())
}

#[tokio::test]
async fn a_run_that_nobody_leads() -> Result<()> {
    let house = House::with(LONG).await?;
    let (mut run, version) = in_the_middle(&house).await?;
    run.kill9().await?;
    cancel(&house, &version).await?.with_code(0)?;
    is_cancelled(&house, &version).await
}

#[tokio::test]
async fn a_run_whose_leader_is_frozen() -> Result<()> {
    let house = House::with(LONG).await?;
    let (mut run, version) = in_the_middle(&house).await?;
    run.freeze()?;
    cancel(&house, &version).await?.with_code(0)?;
    is_cancelled(&house, &version).await?;
    run.wake()?;
    let output = run.wait(PATIENCE).await?.with_code(3)?;
    ensure!(output.stderr.contains("led by another coordinator"), "{output:?}");
    is_cancelled(&house, &version).await
}

#[tokio::test]
async fn what_is_no_run() -> Result<()> {
    let house = House::with(LONG).await?;
    let output = cancel(&house, "20200101_000000").await?.with_code(2)?;
    ensure!(output.stderr.contains("there is no run 20200101_000000"), "{output:?}");
    let output = house.workspace.run(&["cancel", "20200101_000000"]).await?.with_code(2)?;
    ensure!(output.stderr.contains("no broker is named"), "{output:?}");
    Ok(())
}
