//! `coordinator status`: where a run stands while it goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cloudsim::Cloudsim;
use tests::harness::{NatsServer, PATIENCE, Program, Services, Workspace};

/// A workspace with a run that takes a while, over a broker.
async fn slow_run() -> Result<(Cloudsim, NatsServer, Services, Workspace, Program)> {
    let azure = Cloudsim::builder()
        .subscriptions(12)
        .nsgs(20)
        .page_size(2)
        .faults(|faults| {
            faults.forbid(1);
            faults.latency = Duration::from_millis(250);
            faults.throttle_every = 60;
            faults.retry_after = 3;
        })
        .start()
        .await?;
    let nats = NatsServer::start().await?;
    let services = Services::start(&nats, 1)?;
    let workspace = Workspace::new(&azure.configuration())?;
    let run = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
    run.wait_for_line("collecting", PATIENCE).await?;
    Ok((azure, nats, services, workspace, run))
}

async fn json(workspace: &Workspace, args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&workspace.run(args).await?.with_code(0)?.stdout)?)
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[tokio::test]
async fn a_run_is_seen_while_it_goes_on() -> Result<()> {
    let (_azure, nats, _services, workspace, mut run) = slow_run().await?;
    let args = ["status", "--json", "--nats", nats.url()];
    let (mut seen_left, mut seen_throttled, mut seen_load) = (false, false, false);
    let mut last = 0;
    loop {
        let status = json(&workspace, &args).await?;
        if status["outcome"] != "running" {
            break;
        }
        let audit = &status["audits"][0];
        let stages = list(audit, "stages");
        if stages.is_empty() {
            continue; // its plan is not there yet
        }
        let of = |role: &str| stages.iter().find(|stage| stage["role"] == role);
        let (cloud, event) = (of("cloud").context("a cloud")?, of("event").context("the events")?);
        ensure!(of("store").is_some() && of("alert").is_some(), "{audit}");
        let done = cloud["done"].as_u64().context("a count")?;
        ensure!(done >= last && cloud["of"].as_u64() >= Some(done), "{cloud}");
        last = done;
        ensure!(event["waiting"].is_u64() || audit["phase"] != "collecting", "{event}");
        let workers: Vec<&str> =
            list(&status, "workers").iter().filter_map(|worker| worker["stage"].as_str()).collect();
        assert_eq!(workers, ["collector", "evaluator", "sink", "alerter"], "{status}");
        seen_load |= list(&status, "workers").iter().any(|worker| worker["done"].as_u64() > Some(0));
        for left in list(audit, "left") {
            ensure!(left["plugin"] == "myazcloud" && left["units"].as_u64() > Some(0), "{left}");
            seen_left |= left["type"].is_null()
                && left["resource_type"] == "nsg"
                && left["scope"].as_str().is_some_and(|scope| scope.len() == 36);
        }
        for pause in list(&status, "throttled") {
            ensure!(pause["plugin"] == "myazcloud" && pause["seconds"].as_u64() <= Some(4), "{pause}");
            seen_throttled |= pause["scope"].as_str().is_some_and(|scope| scope.len() == 36);
        }
    }
    assert!(seen_left && seen_throttled && seen_load, "{seen_left} {seen_throttled} {seen_load}");
    assert!(last > 0);
    run.wait(PATIENCE).await?.with_code(3)?;
    Ok(())
}

#[tokio::test]
async fn who_looks_on_sees_lines_and_then_the_end() -> Result<()> {
    let (_azure, nats, _services, workspace, mut run) = slow_run().await?;
    let mut watch = workspace.coordinator(&["status", "--watch", "--nats", nats.url()]).start()?;
    let mut objects = workspace.coordinator(&["status", "--watch", "--json", "--nats", nats.url()]).start()?;
    let end = run.wait(PATIENCE).await?.with_code(3)?;
    // The exit code is that of the run, and the last that is shown is its summary.
    let seen = watch.wait(PATIENCE).await?.with_code(3)?;
    assert!(seen.stdout.ends_with(&end.stdout), "{}\n---\n{}", seen.stdout, end.stdout);
    assert!(seen.stdout.contains("myazaudit: collecting, myazcloud "), "{}", seen.stdout);
    assert!(!seen.stdout.contains('\u{1b}'), "{}", seen.stdout);
    let objects = objects.wait(PATIENCE).await?.with_code(3)?;
    let lines: Vec<Value> = objects.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert!(lines.len() > 1, "{}", objects.stdout);
    assert_eq!(lines.last().map(|line| &line["outcome"]), Some(&Value::from("incomplete")));
    Ok(())
}

#[tokio::test]
async fn a_part_that_nobody_serves_is_seen() -> Result<()> {
    let nats = NatsServer::start().await?;
    let services = Services::start_these(&nats, &[("collector", 1), ("sink", 1)])?;
    let workspace = Workspace::new("plugins: {filestore: {params: {path: '{out}'}}}")?;
    let run = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
    run.wait_for_line("waiting: ", PATIENCE).await?;
    let text = workspace.run(&["status", "--nats", nats.url()]).await?.with_code(0)?.stdout;
    assert!(text.contains("running") && text.contains("collector-"), "{text}\n{}", services.printed());
    assert!(!text.contains("evaluator-"), "{text}");
    Ok(())
}
