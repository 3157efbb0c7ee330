//! The history of runs: what a host writes down, and what a new one reads at the broker, are the same.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cloudsim::Cloudsim;
use tests::harness::{NatsServer, Output, PATIENCE, Services, Workspace};

/// A host: a configuration, and a state of its own.
struct Host {
    workspace: Workspace,
    state: PathBuf,
}

impl Host {
    fn new(configuration: &str) -> Result<Self> {
        let workspace = Workspace::new(configuration)?;
        let state = workspace.path().join("state");
        Ok(Self { workspace, state })
    }

    async fn run(&self, args: &[&str]) -> Result<Output> {
        self.workspace.coordinator(args).env("CM_STATE_DIR", &self.state).start()?.wait(PATIENCE).await
    }

    async fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.run(args).await?.with_code(0)?;
        serde_json::from_str(&output.stdout).with_context(|| format!("{args:?} printed no JSON: {output:?}"))
    }
}

const MOCK: &str = "plugins: {filestore: {params: {path: '{out}'}}}";

fn outcomes(runs: &Value) -> Vec<&str> {
    runs.as_array().into_iter().flatten().filter_map(|run| run["outcome"].as_str()).collect()
}

#[tokio::test]
async fn a_host_knows_its_runs_without_a_broker() -> Result<()> {
    let host = Host::new(MOCK)?;
    let none = host.run(&["runs"]).await?.with_code(0)?;
    assert!(none.stdout.is_empty() && none.stderr.contains("coordinator run --now"), "{none:?}");
    let nothing = host.run(&["status"]).await?.with_code(2)?;
    assert!(nothing.stderr.contains("there are no runs yet"), "{nothing:?}");

    let reports = host.json(&["run", "--now", "--json"]).await?;
    host.run(&["run", "--now"]).await?.with_code(0)?;
    let runs = host.json(&["runs", "--json"]).await?;
    assert_eq!(outcomes(&runs), ["complete", "complete"]);
    assert_eq!(runs[1]["version"], reports[0]["version"], "the newest is first");
    assert_eq!(
        (&runs[1]["records"], &runs[1]["events"], &runs[1]["documents"], &runs[1]["problems"]),
        (&10.into(), &4.into(), &14.into(), &0.into())
    );
    let version = reports[0]["version"].as_str().context("a version")?;
    let status = host.json(&["status", version, "--json"]).await?;
    assert_eq!(status["audits"][0]["report"], reports[0]);
    assert_eq!(status["audits"][0]["coverage"]["complete"], 1);
    assert_eq!(host.json(&["runs", "--json", "--limit", "1"]).await?.as_array().map(Vec::len), Some(1));
    assert_eq!(host.json(&["runs", "--json", "--audit", "other"]).await?, Value::Array(Vec::new()));

    // What is no terminal gets bare columns.
    let listed = host.run(&["runs"]).await?.with_code(0)?.stdout;
    assert!(listed.starts_with("run ") && listed.lines().count() == 3, "{listed}");
    assert!(!listed.contains(['│', '\u{1b}']), "{listed}");
    let unknown = host.run(&["status", "20000101_000000"]).await?.with_code(2)?;
    assert!(unknown.stderr.contains("coordinator runs"), "{unknown:?}");
    Ok(())
}

#[tokio::test]
async fn a_process_that_died_left_a_run_that_did_not_end() -> Result<()> {
    let host =
        Host::new("plugins: {filestore: {params: {path: '{out}'}}, mockcloud: {params: {record_count: 20000000}}}")?;
    let args = ["run", "--now", "--concurrency", "1"];
    let mut dying = host.workspace.coordinator(&args).env("CM_STATE_DIR", &host.state).start()?;
    dying.wait_for_line("collecting", PATIENCE).await?;
    assert_eq!(outcomes(&host.json(&["runs", "--json"]).await?), ["running"]);
    dying.kill9().await?;
    assert_eq!(outcomes(&host.json(&["runs", "--json"]).await?), ["unknown"]);
    let status = host.run(&["status"]).await?.with_code(0)?;
    assert!(status.stdout.contains("nothing says how it ended"), "{status:?}");
    Ok(())
}

#[tokio::test]
async fn a_new_host_reads_at_the_broker_what_another_has_kept() -> Result<()> {
    let azure = Cloudsim::builder().subscriptions(4).nsgs(3).faults(|faults| faults.forbid(1)).start().await?;
    let nats = NatsServer::start().await?;
    let services = Services::start(&nats, 1)?;
    let kept = Host::new(&azure.configuration())?;
    let store = format!("plugins: {{filestore: {{params: {{path: '{}'}}}}}}", kept.workspace.out().display());
    std::fs::write(kept.workspace.path().join("store.yaml"), store)?;
    let azure_run = ["run", "--now", "--nats", nats.url(), "-c", "cloudmarker.yaml", "store.yaml"];
    let mock_run = ["run", "--now", "--nats", nats.url(), "-c", "store.yaml"];
    for (args, code) in [(&azure_run[..], 3), (&mock_run[..], 0), (&azure_run[..], 3)] {
        let output = kept.run(args).await?;
        ensure!(output.code() == Some(code), "{output:?}\n{}", services.printed());
    }

    // Written down by the coordinator that led them; it has not asked the broker for its history.
    let at_broker = ["runs", "--json", "--nats", nats.url()];
    let here = kept.json(&["runs", "--json", "--here"]).await?;
    assert_eq!(outcomes(&here), ["incomplete", "complete", "incomplete"]);
    let rebuilt = Host::new(MOCK)?;
    assert_eq!(rebuilt.json(&at_broker).await?, here);
    assert_eq!(kept.json(&at_broker).await?, here);
    for run in here.as_array().into_iter().flatten() {
        let version = run["version"].as_str().context("a version")?;
        let status = ["status", version, "--json", "--here"];
        let (one, other) = (kept.json(&status).await?, rebuilt.json(&status).await?);
        assert_eq!(one, other);
        assert!(one["audits"][0]["report"]["clouds"][0]["coverage"].as_array().is_some_and(|all| !all.is_empty()));
    }

    // A host that was away is brought up to date, and does not forget what it knows when the broker is gone.
    kept.run(&mock_run).await?.with_code(0)?;
    assert_eq!(outcomes(&rebuilt.json(&at_broker).await?), ["complete", "incomplete", "complete", "incomplete"]);
    let mut nats = nats;
    let url = nats.url().to_owned();
    nats.kill9().await?;
    let away = rebuilt.run(&["runs", "--nats", &url]).await?.with_code(2)?;
    assert!(away.stderr.contains("--here"), "{away:?}");
    assert_eq!(outcomes(&rebuilt.json(&["runs", "--json", "--here"]).await?).len(), 4);
    Ok(())
}

#[tokio::test]
async fn coverage_that_fits_in_no_message_is_told_all_the_same() -> Result<()> {
    // Some 4000 entries, each with a long reason.
    let azure = Cloudsim::builder().subscriptions(360).nsgs(0).faults(|faults| faults.forbid(360)).start().await?;
    let nats = NatsServer::start().await?;
    let services = Services::start(&nats, 1)?;
    let host = Host::new(&azure.configuration())?;
    let output = host.run(&["run", "--now", "--nats", nats.url(), "--json"]).await?;
    ensure!(output.code() == Some(3), "{output:?}\n{}", services.printed());
    ensure!(output.stdout.len() > 1024 * 1024, "{} bytes are no test", output.stdout.len());
    let reports: Value = serde_json::from_str(&output.stdout)?;
    let version = reports[0]["version"].as_str().context("a version")?;
    let rebuilt = Host::new(MOCK)?;
    let status = rebuilt.json(&["status", version, "--json", "--nats", nats.url()]).await?;
    ensure!(status["audits"][0]["report"] == reports[0], "what was rebuilt is not what was told");
    Ok(())
}
