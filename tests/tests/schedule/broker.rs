//! Several coordinators at one broker.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proto::run::Phase;
use tests::harness::PATIENCE;

use super::reading::{House, TAKE_OVER, complete, each_turn_once, in_phase};

/// Short runs, often.
const OFTEN: &str = "
schedule: every 3s
plugins: {filestore: {params: {path: '{out}'}}}
nats: {ack_wait: 2s}
";

const RECORDS: usize = 30_000;

/// Runs that are caught in the middle.
const LONG: &str = "
schedule: every 10s
overlap: queue
plugins:
  filestore: {params: {path: '{out}'}}
  mockcloud: {params: {record_count: 30000}}
  mockevent: {params: {n: 50}}
nats: {ack_wait: 2s}
";

fn all_records_once(house: &House) -> Result<()> {
    let records = house.workspace.documents("mockaudit_mockcloud.json")?;
    let mut data: Vec<u64> = records.iter().filter_map(|record| record["raw"]["data"].as_u64()).collect();
    data.sort_unstable();
    ensure!(data.iter().copied().eq(0..RECORDS as u64), "{} records, not each once", data.len());
    Ok(())
}

#[tokio::test]
async fn a_leader_is_killed_between_runs() -> Result<()> {
    let house = House::with(OFTEN).await?;
    let (mut first, second) = house.two_coordinators().await?;
    house.until("a complete run", |runs| complete(runs) == 1 && runs.len() == 1).await?;
    first.kill9().await?;
    let killed = Instant::now();
    second.wait_for_line("leading:", PATIENCE).await?;
    ensure!(killed.elapsed() < TAKE_OVER, "nobody led for {:?}", killed.elapsed());
    let runs = house.until("three more complete runs", |runs| complete(runs) >= 4).await?;
    each_turn_once(&runs)?;
    ensure!(runs.iter().filter(|run| run.is_ended()).all(|run| run.term == 0), "a run was taken up: {runs:#?}");
    Ok(())
}

#[tokio::test]
async fn a_leader_is_killed_during_a_run_and_the_next_one_ends_it() -> Result<()> {
    let house = House::with(LONG).await?;
    let (mut first, second) = house.two_coordinators().await?;
    house.until("collecting", |runs| in_phase(runs, Phase::Collecting)).await?;
    house.until_records(50).await?;
    first.kill9().await?;
    let killed = Instant::now();
    let taken = second.wait_for_line("taken up, as nobody led it", PATIENCE).await?;
    ensure!(killed.elapsed() < TAKE_OVER, "nobody led for {:?}", killed.elapsed());
    let runs = house.until("a complete run", |runs| complete(runs) >= 1).await?;
    let run = &runs[0];
    ensure!(taken.contains(run.version.as_str()), "{taken}: {run:?}");
    ensure!(run.term == 1, "led by {} after {} others", run.leader, run.term);
    second.wait_for_line("has ended: complete", PATIENCE).await?;
    all_records_once(&house)?;
    each_turn_once(&house.runs().await?)
}

#[tokio::test]
async fn a_frozen_leader_wakes_and_runs_nothing_twice() -> Result<()> {
    let house = House::with(OFTEN).await?;
    let (mut first, second) = house.two_coordinators().await?;
    house.until("a run that has begun", |runs| complete(runs) >= 1 && runs.iter().any(|run| !run.is_ended())).await?;
    first.freeze()?;
    second.wait_for_line("leading:", PATIENCE).await?;
    let there = house.runs().await?.len();
    house.until("two more runs", |runs| complete(runs) >= there + 2).await?;
    first.wake()?;
    first.wait_for_line("leading no more", PATIENCE).await?;
    first.wait_for_line("standing by:", PATIENCE).await?;
    let there = house.runs().await?.len();
    let runs = house.until("three more runs", |runs| complete(runs) >= there + 3).await?;
    each_turn_once(&runs)?;
    // The run that it led when it froze was ended by the other.
    ensure!(runs.iter().filter(|run| run.is_ended()).count() == complete(&runs), "{runs:#?}");
    Ok(())
}

#[tokio::test]
async fn two_leaders_in_turn_freeze_and_wake_for_a_while() -> Result<()> {
    let house = House::with(OFTEN).await?;
    let (mut first, mut second) = house.two_coordinators().await?;
    for round in 0..2 {
        let (old, new) = if round % 2 == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
        let there = house.runs().await?.len();
        house.until("a run of its leader", |runs| runs.len() > there).await?;
        old.freeze()?;
        let there = house.runs().await?.len();
        house.until("runs of the other", |runs| complete(runs) > there).await?;
        old.wake()?;
        old.wait_for_line("leading no more", PATIENCE).await?;
        ensure!(new.stderr().contains("leading:"), "{}", new.stderr());
    }
    let there = house.runs().await?.len();
    let runs = house.until("another run", |runs| complete(runs) > there).await?;
    each_turn_once(&runs)
}

#[tokio::test]
async fn a_coordinator_that_is_stopped_leaves_its_run_to_another() -> Result<()> {
    let house = House::with(LONG).await?;
    let (mut first, second) = house.two_coordinators().await?;
    house.until_records(50).await?;
    first.terminate()?;
    let output = first.wait(Duration::from_secs(20)).await?.with_code(0)?;
    ensure!(output.stderr.contains("left to another coordinator"), "{output:?}");
    second.wait_for_line("has ended: complete", PATIENCE).await?;
    all_records_once(&house)?;
    each_turn_once(&house.runs().await?)
}

#[tokio::test]
async fn a_run_beside_the_schedule_is_seen_through_by_the_coordinator() -> Result<()> {
    let never = LONG.replace("every 10s", "0 0 29 2 *");
    let house = House::with(&never).await?;
    let coordinator = house.coordinator()?;
    coordinator.wait_for_line("leading:", PATIENCE).await?;
    // Left at once,
    let output = house.workspace.run(&["run", "--now", "--detach", "--nats", house.nats.url()]).await?.with_code(0)?;
    let version = output.stdout.trim().to_owned();
    coordinator.wait_for_line(&format!("run {version} has ended: complete"), PATIENCE).await?;
    all_records_once(&house)?;
    // left in the middle,
    let mut run = house.workspace.coordinator(&["run", "--now", "--nats", house.nats.url()]).start()?;
    house.until_records(50).await?;
    run.interrupt()?;
    let output = run.wait(PATIENCE).await?.with_code(3)?;
    ensure!(output.stderr.contains("sees it through"), "{output:?}");
    house.until("two complete runs", |runs| complete(runs) == 2).await?;
    // and left by death.
    let mut run = house.workspace.coordinator(&["run", "--now", "--nats", house.nats.url()]).start()?;
    house.until_records(50).await?;
    run.kill9().await?;
    let runs = house.until("three complete runs", |runs| complete(runs) == 3).await?;
    ensure!(runs.iter().all(|run| run.turn.is_none() && run.term == 1), "{runs:#?}");
    all_records_once(&house)
}

#[tokio::test]
async fn a_run_cannot_be_left_to_nobody() -> Result<()> {
    let house = House::with(OFTEN).await?;
    let detach = ["run", "--now", "--detach", "--nats", house.nats.url()];
    let output = house.workspace.run(&detach).await?.with_code(2)?;
    ensure!(output.stderr.contains("nobody would lead the run"), "{output:?}");
    // One that was there has said good-bye.
    let mut coordinator = house.coordinator()?;
    coordinator.wait_for_line("leading:", PATIENCE).await?;
    coordinator.terminate()?;
    coordinator.wait(Duration::from_secs(20)).await?.with_code(0)?;
    let there = house.runs().await?.len();
    house.workspace.run(&detach).await?.with_code(2)?;
    ensure!(house.runs().await?.len() == there, "a run was begun");
    Ok(())
}

#[tokio::test]
async fn the_broker_is_away_at_a_turn() -> Result<()> {
    let mut house = House::with(OFTEN).await?;
    let coordinator = house.coordinator()?;
    house.until("a complete run", |runs| complete(runs) >= 1).await?;
    house.nats.stop().await?;
    coordinator.wait_for_line("cannot", PATIENCE).await?;
    house.nats.restart().await?;
    let there = house.runs().await?.len();
    let runs = house.until("two more complete runs", |runs| complete(runs) >= there + 2).await?;
    each_turn_once(&runs)
}
