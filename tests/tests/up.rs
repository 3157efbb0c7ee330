//! `coordinator up`: a broker and the workers on one host, kept alive, and all gone at the end.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::harness::{Launch, NatsServer, PATIENCE, Program, STAGES, Workspace, free_port};
use tokio::time::timeout;

const CONFIGURATION: &str = "
plugins:
  mockcloud: {params: {record_count: 500}}
  filestore: {params: {path: '{out}'}}
audits:
  prod: {clouds: [mockcloud], stores: [filestore], events: [mockevent], alerts: [filestore]}
run: [prod]
";

fn nats_server() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/bin/nats-server")
}

/// `coordinator up` with its state in a folder of the test.
fn up(workspace: &Workspace, more: &[&str]) -> Launch {
    let state = workspace.path().join("state");
    workspace.coordinator(&["up", "--state-dir"]).arg(state).args(more.iter().copied())
}

fn up_with_broker(workspace: &Workspace, port: u16) -> Result<Program> {
    up(workspace, &["--port", &port.to_string()]).arg("--nats-server").arg(nats_server()).start()
}

/// What it prints of what runs: names and processes.
async fn processes(up: &Program) -> Result<Vec<(String, u32)>> {
    up.wait_for_line("Ctrl-C stops all", PATIENCE).await?;
    let lines = up.stdout();
    let parsed = lines.lines().filter_map(|line| {
        let (name, rest) = line.split_once("  process ")?;
        let pid = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((name.trim().to_owned(), pid.parse().ok()?))
    });
    Ok(parsed.collect())
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

async fn until(what: &str, mut is: impl FnMut() -> bool) -> Result<()> {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.with_context(|| format!("never: {what}"))
}

#[tokio::test]
async fn what_dies_is_started_again_and_ctrl_c_leaves_nothing() -> Result<()> {
    let workspace = Workspace::new(CONFIGURATION)?;
    let port = free_port()?;
    let mut up = up_with_broker(&workspace, port)?;
    let running = processes(&up).await?;
    let names: Vec<&str> = running.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["broker", "collector", "evaluator", "sink", "alerter"]);
    let url = format!("nats://127.0.0.1:{port}");
    ensure!(up.stdout().contains(&format!("next: coordinator run --now --nats {url}\n")), "{}", up.stdout());
    // No run was there yet, and the workers are ready all the same.
    for stage in STAGES {
        until(stage, || up.stderr().lines().any(|line| line.starts_with(stage) && line.contains("ready"))).await?;
    }

    for name in ["evaluator", "broker"] {
        let (_, pid) = running.iter().find(|(known, _)| known == name).context("it runs")?;
        kill(*pid, Signal::KILL);
        up.wait_for_line(&format!("the {name} has died"), PATIENCE).await?;
    }
    let again = |up: &Program| {
        let lines = up.stderr();
        lines.lines().filter(|line| line.starts_with("evaluator") && line.contains("ready")).count() == 2
    };
    until("an evaluator that is ready again", || again(&up)).await?;
    workspace.run(&["run", "--now", "--nats", &url]).await?.with_code(0)?;
    assert_eq!(workspace.documents("prod_mockcloud.json")?.len(), 500);

    let note = |name: &str| {
        let text = std::fs::read_to_string(workspace.path().join("state/up/processes").join(name)).unwrap();
        text.split(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let pids: Vec<u32> = names.iter().map(|name| note(name)).collect();
    assert!(pids.iter().all(|pid| lives(*pid)), "{pids:?}");
    up.interrupt()?;
    let output = up.wait(PATIENCE).await?.with_code(0)?;
    assert!(pids.iter().all(|pid| !lives(*pid)), "{pids:?}");
    assert!(running.iter().all(|(_, pid)| !lives(*pid)), "{running:?}");
    // The workers were there to hear of it before the broker went.
    let said = |text: &str| output.stderr.find(text).with_context(|| format!("{text}: {}", output.stderr));
    ensure!(said("collector | ")? < said("all has stopped")?, "{}", output.stderr);
    for stage in STAGES {
        let stopped = output.stderr.lines().any(|line| line.starts_with(stage) && line.contains("stopped"));
        ensure!(stopped, "{stage}: {}", output.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn what_a_killed_one_leaves_is_ended_by_the_next() -> Result<()> {
    let workspace = Workspace::new(CONFIGURATION)?;
    let mut first = up_with_broker(&workspace, free_port()?)?;
    let left = processes(&first).await?;
    let mut second = up_with_broker(&workspace, free_port()?)?;
    let refused = second.wait(PATIENCE).await?.with_code(2)?;
    ensure!(refused.stderr.contains("another `coordinator up`"), "{refused:?}");
    first.kill9().await?;
    assert!(left.iter().all(|(_, pid)| lives(*pid)), "they outlive it");
    let mut third = up_with_broker(&workspace, free_port()?)?;
    processes(&third).await?;
    assert!(left.iter().all(|(_, pid)| !lives(*pid)), "{left:?}");
    third.terminate()?;
    third.wait(PATIENCE).await?.with_code(0)?;
    Ok(())
}

#[tokio::test]
async fn workers_alone_serve_a_broker_that_is_there() -> Result<()> {
    let nats = NatsServer::start().await?;
    let workspace = Workspace::new(CONFIGURATION)?;
    let mut up = up(&workspace, &["--nats", nats.url()]).start()?;
    assert_eq!(processes(&up).await?.len(), 4);
    workspace.run(&["run", "--now", "--nats", nats.url()]).await?.with_code(0)?;
    up.terminate()?;
    up.wait(PATIENCE).await?.with_code(0)?;
    Ok(())
}

#[tokio::test]
async fn what_is_missing_is_said() -> Result<()> {
    let workspace = Workspace::new(CONFIGURATION)?;
    let nobody = up(&workspace, &[]).env("PATH", "/nowhere").start()?.wait(PATIENCE).await?.with_code(2)?;
    ensure!(nobody.stderr.contains("no nats-server on PATH"), "{nobody:?}");
    let wrong =
        up(&workspace, &["--nats-server", "/nowhere/nats-server"]).start()?.wait(PATIENCE).await?.with_code(2)?;
    ensure!(wrong.stderr.contains("/nowhere/nats-server"), "{wrong:?}");
    Ok(())
}
