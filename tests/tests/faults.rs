//! Nothing is lost or doubled: whatever is killed in mid-run, the run ends complete, with each record stored once.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::harness::{NatsServer, Output, PATIENCE, Program, Services, Workspace};

const RECORDS: usize = 60_000;

/// Enough records that a run is caught in the middle, and a broker that gives the work of the dead to others soon.
const AUDIT: &str = "
plugins:
  filestore: {params: {path: '{out}'}}
  mockcloud: {params: {record_count: 60000}}
  mockevent: {params: {n: 50}}
nats: {ack_wait: 2s}
";

struct Run {
    nats: NatsServer,
    services: Services,
    workspace: Workspace,
    coordinator: Program,
}

impl Run {
    /// A run that is in the middle: a fifth of its frames is in the stream.
    async fn begin() -> Result<Self> {
        let nats = NatsServer::start().await?;
        let services = Services::start(&nats, 1)?;
        let workspace = Workspace::new(AUDIT)?;
        let coordinator = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
        coordinator.wait_for_line("collecting", PATIENCE).await?;
        tokio::time::timeout(PATIENCE, frames(&nats, RECORDS / 128 / 5)).await??;
        Ok(Self { nats, services, workspace, coordinator })
    }

    async fn end(mut self) -> Result<()> {
        let output = self.coordinator.wait(PATIENCE).await?;
        self.verify(&output)
    }

    fn verify(&self, output: &Output) -> Result<()> {
        ensure!(output.code() == Some(0), "{output:?}\n{}", self.services.printed());
        let records = self.workspace.documents("mockaudit_mockcloud.json")?;
        let mut data: Vec<u64> = records.iter().filter_map(|record| record["raw"]["data"].as_u64()).collect();
        data.sort_unstable();
        ensure!(data.iter().copied().eq(0..RECORDS as u64), "{} records, not each once", data.len());
        let events = self.workspace.documents("mockaudit_mockevent.json")?;
        let mut data: Vec<u64> = events.iter().filter_map(|event| event["ext"]["data"].as_u64()).collect();
        data.sort_unstable();
        ensure!(data.iter().copied().eq((0..RECORDS as u64).step_by(50)), "{} events, not each once", data.len());
        Ok(())
    }
}

/// Waits until so many frames are in the stream.
async fn frames(nats: &NatsServer, count: usize) -> Result<()> {
    let client = async_nats::connect(nats.url()).await?;
    let mut stream = async_nats::jetstream::new(client).get_stream("CM_RECORDS").await?;
    while stream.info().await?.state.messages < u64::try_from(count)? {}
    Ok(())
}

#[tokio::test]
async fn a_collector_is_killed() -> Result<()> {
    let mut run = Run::begin().await?;
    run.services.kill9_and_replace(&run.nats, "collector").await?;
    run.end().await
}

#[tokio::test]
async fn an_evaluator_is_killed() -> Result<()> {
    let mut run = Run::begin().await?;
    run.services.kill9_and_replace(&run.nats, "evaluator").await?;
    run.end().await
}

#[tokio::test]
async fn a_sink_is_killed() -> Result<()> {
    let mut run = Run::begin().await?;
    run.services.kill9_and_replace(&run.nats, "sink").await?;
    run.end().await
}

#[tokio::test]
async fn the_coordinator_is_killed_and_another_resumes_the_run() -> Result<()> {
    let mut run = Run::begin().await?;
    run.coordinator.kill9().await?;
    let told = run.coordinator.wait_for_line("--resume ", PATIENCE).await?;
    let version = told.rsplit(' ').next().unwrap_or_default().to_owned();
    let args = ["run", "--resume", &version, "--nats", run.nats.url()];
    let output = run.workspace.run(&args).await?;
    run.verify(&output)
}

#[tokio::test]
async fn ctrl_c_detaches_and_the_run_can_be_resumed_also_after_its_end() -> Result<()> {
    let mut run = Run::begin().await?;
    run.coordinator.interrupt()?;
    let output = run.coordinator.wait(PATIENCE).await?.with_code(3)?;
    let version = output.stderr.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    let args = ["run", "--resume", &version, "--nats", run.nats.url()];
    let resumed = run.workspace.run(&args).await?;
    run.verify(&resumed)?;
    // The summary of an ended run is kept.
    let again = run.workspace.run(&args).await?.with_code(0)?;
    assert_eq!(again.stdout, resumed.stdout);
    Ok(())
}

#[tokio::test]
async fn the_broker_is_killed_and_started_again() -> Result<()> {
    let mut run = Run::begin().await?;
    run.nats.restart().await?;
    run.end().await
}

#[tokio::test]
async fn everything_is_drained_by_sigterm_and_replaced() -> Result<()> {
    let mut run = Run::begin().await?;
    for stage in ["collector", "evaluator", "sink"] {
        run.services.add(&run.nats, stage)?;
        let old = run.services.first(stage).ok_or_else(|| anyhow::anyhow!("no {stage}"))?;
        old.terminate()?;
        old.wait(Duration::from_secs(40)).await?.with_code(0)?;
    }
    run.end().await
}

#[tokio::test]
async fn no_sink_is_running() -> Result<()> {
    let nats = NatsServer::start().await?;
    let _services = Services::start_these(&nats, &[("collector", 1), ("evaluator", 1), ("alerter", 1)])?;
    let workspace = Workspace::new("plugins: {filestore: {params: {path: '{out}'}}}")?;
    let args = ["run", "--now", "--nats", nats.url(), "--wait-workers", "2"];
    let output = workspace.run(&args).await?.with_code(3)?;
    assert!(output.stderr.contains("waiting: no sink is running"), "{output:?}");
    for problem in ["store filestore: no sink is running", "alert filestore: no sink is running"] {
        assert!(output.stdout.contains(problem), "{output:?}");
    }
    assert!(!workspace.out().exists());
    Ok(())
}

#[tokio::test]
async fn services_started_before_the_broker_wait_for_it() -> Result<()> {
    let mut nats = NatsServer::start().await?;
    nats.stop().await?;
    let services = Services::start(&nats, 1)?;
    let workspace = Workspace::new("plugins: {filestore: {params: {path: '{out}'}}}")?;
    let mut coordinator = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
    coordinator.wait_for_line("waiting for the broker", PATIENCE).await?;
    nats.restart().await?;
    services.ready().await?;
    coordinator.wait(PATIENCE).await?.with_code(0)?;
    assert_eq!(workspace.documents("mockaudit_mockcloud.json")?.len(), 10);
    Ok(())
}
