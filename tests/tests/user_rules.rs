//! Users' own rules: named in the configuration, carried to the evaluators by the plan, told at the start when broken,
//! and counted in the summary.

use std::fs;

use anyhow::{Result, ensure};
use tests::harness::{NatsServer, PATIENCE, Services, Workspace};

const CONFIGURATION: &str = "
rules: [rules]
plugins:
  filestore: {params: {path: '{out}'}}
  even: {plugin: even_numbers, params: {n: 2}}
audits:
  mine: {clouds: [mockcloud], events: [even], alerts: [filestore]}
run: [mine]
logger: {handlers: {file: {filename: run.log}}}
";

const RULE: &str = "
id: even_numbers
title: Numbers are odd
severity: low
remediation: Choose another number.
applies_to: {com.record_type: mock}
params:
  n: {type: int, default: 3, about: What numbers are divided by}
event_type: even_event
fail_if: raw.data % params.n == 0
description: '{{ cloud }} number {{ data }} is even.'
recommendation: Choose another number than {{ data }}.
let: {data: raw.data}
";

fn workspace(rule: &str) -> Result<Workspace> {
    let workspace = Workspace::new(CONFIGURATION)?;
    fs::create_dir(workspace.path().join("rules"))?;
    fs::write(workspace.path().join("rules/even.yaml"), rule)?;
    Ok(workspace)
}

#[tokio::test]
async fn a_rule_of_a_user_runs_in_this_process() -> Result<()> {
    let workspace = workspace(RULE)?;
    let ended = workspace.run(&["run", "--now", "-c", "cloudmarker.yaml"]).await?.with_code(0)?;
    ensure!(ended.stdout.contains("5 pass, 5 fail, 0 unknown"), "{}", ended.stdout);
    let events = workspace.documents("mine_even.json")?;
    assert_eq!(events.len(), 5);
    assert_eq!(events[0]["com"]["rule"], "even_numbers");
    assert_eq!(events[0]["com"]["severity"], "low");
    Ok(())
}

#[tokio::test]
async fn a_rule_of_a_user_travels_to_the_workers_of_other_hosts() -> Result<()> {
    let nats = NatsServer::start().await?;
    let workspace = workspace(RULE)?;
    let services = Services::start(&nats, 1)?;
    let args = ["run", "--now", "-c", "cloudmarker.yaml", "--nats", nats.url()];
    let ended = workspace.run(&args).await?;
    ensure!(ended.code() == Some(0), "{ended:?}\n{}", services.printed());
    assert_eq!(workspace.documents("mine_even.json")?.len(), 5);
    Ok(())
}

#[tokio::test]
async fn what_is_unknown_is_counted_and_shown_with_its_reason() -> Result<()> {
    let workspace = workspace(&RULE.replace("raw.data % params.n == 0", "raw.size > 0"))?;
    let ended = workspace.run(&["run", "--now", "-c", "cloudmarker.yaml"]).await?.with_code(0)?;
    ensure!(ended.stdout.contains("0 pass, 0 fail, 10 unknown"), "{}", ended.stdout);
    ensure!(ended.stdout.contains("raw.size is missing"), "{}", ended.stdout);
    Ok(())
}

#[tokio::test]
async fn a_broken_rule_is_refused_with_its_place() -> Result<()> {
    let workspace = workspace(&RULE.replace("% params.n", "% params.m"))?;
    for command in [["check"].as_slice(), &["run", "--now"]] {
        let mut coordinator = workspace.coordinator(&[command, &["-c", "cloudmarker.yaml"]].concat()).start()?;
        let ended = coordinator.wait(PATIENCE).await?.with_code(2)?;
        let place = "error: rules/even.yaml:10:28: unknown parameter `m` (allowed: n)\n\
                     10 | fail_if: raw.data % params.m == 0\n   |                            ^\n";
        assert_eq!(ended.stderr, place);
    }
    Ok(())
}

#[tokio::test]
async fn parameters_are_checked_against_the_rule() -> Result<()> {
    let workspace = workspace(&RULE.replace("type: int", "type: int, min: 5").replace("default: 3", "default: 7"))?;
    let mut coordinator = workspace.coordinator(&["check", "-c", "cloudmarker.yaml"]).start()?;
    let ended = coordinator.wait(PATIENCE).await?.with_code(2)?;
    let line =
        "error: cloudmarker.yaml: plugins.even.params.n: found the number 2; a number of at least 5 is expected\n";
    assert_eq!(ended.stderr, line);
    Ok(())
}
