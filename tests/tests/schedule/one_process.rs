//! Schedules without a broker, and what the command line says of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::harness::{Launch, PATIENCE, Workspace};

const STOP: Duration = Duration::from_secs(30);

fn coordinator(workspace: &Workspace) -> Launch {
    workspace.coordinator(&["run"]).env("CM_STATE_DIR", workspace.path().join("state"))
}

#[tokio::test]
async fn audits_run_at_their_turns_until_it_is_stopped() -> Result<()> {
    let workspace = Workspace::new("schedule: every 2s\nplugins: {filestore: {params: {path: '{out}'}}}")?;
    let mut daemon = coordinator(&workspace).start()?;
    let waits = daemon.wait_for_line("waiting for", PATIENCE).await?;
    ensure!(waits.contains("mockaudit: waiting for 20") && waits.contains("(every 2s)"), "{waits}");
    daemon.wait_for_line("has ended: complete", PATIENCE).await?;
    let first = workspace.documents("mockaudit_mockcloud.json")?;
    let later = async {
        while daemon.stderr().matches("has ended: complete").count() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, later).await?;
    daemon.terminate()?;
    let output = daemon.wait(STOP).await?.with_code(0)?;
    ensure!(output.stdout.matches("Audit mockaudit, version ").count() >= 3, "{output:?}");
    let last = workspace.documents("mockaudit_mockcloud.json")?;
    ensure!(first.len() == 10 && last.len() == 10);
    ensure!(first[0]["com"]["audit_version"].as_str() < last[0]["com"]["audit_version"].as_str());
    Ok(())
}

/// A daemon that has seen a turn long ago, and was down since.
async fn down_for_hours(workspace: &Workspace) -> Result<()> {
    let mut daemon = coordinator(workspace).start()?;
    daemon.wait_for_line("waiting for", PATIENCE).await?;
    let folder = workspace.path().join("state/kv/cm_checkpoints");
    let find = || -> Option<std::path::PathBuf> {
        let names = std::fs::read_dir(&folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        names.into_iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("turns.")))
    };
    let look = async {
        loop {
            match find() {
                Some(file) => break file,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let file = tokio::time::timeout(PATIENCE, look).await?;
    daemon.terminate()?;
    daemon.wait(STOP).await?.with_code(0)?;
    let text = std::fs::read_to_string(&file)?;
    let (revision, value) = text.split_once('\n').context("a revision and a value")?;
    let mut value: Value = serde_json::from_str(value)?;
    value["through"] = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(5)).to_string().into();
    Ok(std::fs::write(&file, format!("{revision}\n{value}"))?)
}

#[tokio::test]
async fn a_turn_that_was_missed_is_made_up_for_once_if_that_is_wanted() -> Result<()> {
    // The last turn was more than a minute ago, and the next one is far away.
    let zone = "timezone: UTC\n";
    let now = jiff::Timestamp::now();
    let ago = now - jiff::SignedDuration::from_mins(61);
    let schedule = format!("schedule: '{} * * *'\n", ago.strftime("%M %H"));
    let plugins = "plugins: {filestore: {params: {path: '{out}'}}}\n";
    let workspace = Workspace::new(&format!("{schedule}{zone}{plugins}catch_up: true\n"))?;
    down_for_hours(&workspace).await?;
    let mut daemon = coordinator(&workspace).start()?;
    daemon.wait_for_line("has ended: complete", PATIENCE).await?;
    daemon.terminate()?;
    daemon.wait(STOP).await?.with_code(0)?;
    ensure!(workspace.documents("mockaudit_mockcloud.json")?.len() == 10);
    // Once: not at the next start.
    let mut daemon = coordinator(&workspace).start()?;
    daemon.wait_for_line("waiting for", PATIENCE).await?;
    daemon.terminate()?;
    let output = daemon.wait(STOP).await?.with_code(0)?;
    ensure!(!output.stderr.contains("begins"), "{output:?}");

    let workspace = Workspace::new(&format!("{schedule}{zone}{plugins}"))?;
    down_for_hours(&workspace).await?;
    let mut daemon = coordinator(&workspace).start()?;
    let missed = daemon.wait_for_line("missed 1 turn", PATIENCE).await?;
    ensure!(missed.contains("`catch_up: true` makes up"), "{missed}");
    daemon.terminate()?;
    daemon.wait(STOP).await?.with_code(0)?;
    ensure!(!workspace.out().exists());
    Ok(())
}

/// A run that takes longer than it is until the next turn.
const SLOW: &str = "
schedule: every 1s
plugins:
  filestore: {params: {path: '{out}'}}
  mockcloud: {params: {record_count: 40000}}
audits: {mockaudit: {alerts: []}, other: {clouds: [few], stores: [filestore]}}
run: [mockaudit, other]
";

#[tokio::test]
async fn an_audit_that_still_runs_is_not_started_again() -> Result<()> {
    let workspace =
        Workspace::new(&format!("{SLOW}\n").replace("plugins:\n", "plugins:\n  few: {plugin: MockCloud}\n"))?;
    let mut daemon = coordinator(&workspace).start()?;
    let left_out = daemon.wait_for_line("still running at the turn of", PATIENCE).await?;
    ensure!(left_out.contains("mockaudit") && left_out.contains("left out (1 so far"), "{left_out}");
    // The other one goes on.
    daemon.wait_for_line("of other begins", PATIENCE).await?;
    daemon.terminate()?;
    let output = daemon.wait(PATIENCE).await?.with_code(0)?;
    let begun = output.stderr.lines().filter(|line| line.contains("begins")).count();
    ensure!(begun >= 2, "{output:?}");
    Ok(())
}

#[tokio::test]
async fn a_turn_can_wait_until_an_audit_has_ended() -> Result<()> {
    let queue = SLOW.replace("run: [mockaudit, other]", "run: [mockaudit]\noverlap: queue");
    let workspace = Workspace::new(&queue.replace("plugins:\n", "plugins:\n  few: {plugin: MockCloud}\n"))?;
    let mut daemon = coordinator(&workspace).start()?;
    daemon.wait_for_line("it waits (overlap: queue)", PATIENCE).await?;
    let again = async {
        while daemon.stderr().matches("of mockaudit begins").count() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await?;
    let said = daemon.stderr();
    let (ended, second) = (said.find("has ended"), said.rfind("of mockaudit begins"));
    ensure!(ended.is_some() && ended < second, "{said}");
    daemon.terminate()?;
    daemon.wait(PATIENCE).await?.with_code(0)?;
    Ok(())
}

#[tokio::test]
async fn the_next_turns_are_told() -> Result<()> {
    let workspace = Workspace::new(
        "schedule: '02:30'\ntimezone: Europe/Berlin\naudits: {often: {clouds: [mockcloud], schedule: every 12h}}\n\
         run: [mockaudit, often]",
    )?;
    let output = workspace.run(&["next", "--json"]).await?.with_code(0)?;
    let turns: Vec<Value> = serde_json::from_str(&output.stdout)?;
    ensure!(turns.len() == 10, "{output:?}");
    let daily = turns.iter().filter(|turn| turn["schedule"] == "02:30").count();
    ensure!((3..=4).contains(&daily), "{output:?}");
    let moments: Vec<jiff::Timestamp> = turns.iter().filter_map(|turn| turn["at"].as_str()?.parse().ok()).collect();
    ensure!(moments.len() == 10 && moments.is_sorted() && moments[0] > jiff::Timestamp::now(), "{output:?}");
    ensure!(turns.iter().all(|turn| turn["timezone"] == "Europe/Berlin" || turn["schedule"] == "every 12h"));
    let output = workspace.run(&["next", "--count", "3", "--audit", "often"]).await?.with_code(0)?;
    ensure!(output.stdout.lines().filter(|line| line.contains("every 12h")).count() == 3, "{output:?}");
    let workspace = Workspace::new("schedule: '02:60'")?;
    let output = workspace.run(&["next"]).await?.with_code(2)?;
    ensure!(output.stderr.contains("cloudmarker.yaml: schedule: found the text \"02:60\""), "{output:?}");
    Ok(())
}
