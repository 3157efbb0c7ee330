//! `make bench`: how fast whole runs are, as records per second and as ratios to the Python tool.
//!
//! Every figure is the median of several runs of the release programs as a user starts them, from start to exit. The
//! Python tool was measured at 5,000 to 9,800 records/s on such machines, with one FileStore, MockEvent and a
//! FileStore alert.

#![allow(clippy::print_stdout)] // its results

mod activity;
mod clouds;
mod rules;
mod stores;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tests::harness::{NatsServer, Program, STAGES, Workspace};

/// The middle of what was measured of the Python tool, in records/s.
const PYTHON: f64 = 6_300.0;
/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(300);

// As the programs have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "Measures whole runs with the release programs beside this one")]
struct Cli {
    /// Records of a run.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Documents that stores are given.
    #[arg(long, default_value_t = 100_000)]
    documents: usize,
    /// Runs of which the median is taken.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only the benchmarks whose names hold this text.
    #[arg(long, default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    println!("{} cores, {} runs each, medians", std::thread::available_parallelism()?, cli.runs);
    if "start".contains(&cli.only) {
        start(&cli).await?;
    }
    if "embedded".contains(&cli.only) {
        embedded(&cli).await?;
    }
    rules::measure(&cli).await?;
    for (n, target) in [(50, 100_000), (3, 40_000)] {
        for synced in [true, false] {
            if format!("nats n: {n}").contains(&cli.only) {
                over_nats(&cli, n, target, synced).await?;
            }
        }
    }
    clouds::measure(&cli).await?;
    activity::measure(&cli).await?;
    stores::measure(&cli).await
}

fn configuration(records: u64, n: u64) -> String {
    format!(
        "plugins:\n  filestore: {{params: {{path: '{{out}}'}}}}\n  \
         mockcloud: {{params: {{record_count: {records}}}}}\n  mockevent: {{params: {{n: {n}}}}}\n"
    )
}

/// Start to exit of the default audit.
async fn start(cli: &Cli) -> Result<()> {
    let workspace = Workspace::new("plugins: {filestore: {params: {path: '{out}'}}}")?;
    let mut times = Vec::new();
    for _ in 0..cli.runs.max(5) {
        times.push(timed_run(&workspace, &["run", "--now"]).await?.0);
    }
    println!("start to exit, default audit, embedded: {:.0} ms (target: under 100)", median(&mut times) * 1000.0);
    Ok(())
}

async fn embedded(cli: &Cli) -> Result<()> {
    let small = cli.records / 10;
    let (_, floor) = measure(cli, small, 3, &["run", "--now"]).await?;
    let (rate, peak) = measure(cli, cli.records, 3, &["run", "--now"]).await?;
    let growth = (peak - floor) as f64 * 1024.0 / (cli.records - small) as f64;
    println!(
        "embedded, {} records, n: 3: {rate:.0} records/s (target: 300,000), {:.0} x Python; peak {} MiB \
         (target: under 100), {growth:.1} bytes a record (target: at most 30)",
        cli.records,
        rate / PYTHON,
        peak / 1024
    );
    Ok(())
}

/// Over a broker as `deploy/` configures it, which syncs each write to the disk before it answers, or as it comes.
async fn over_nats(cli: &Cli, n: u64, target: u64, synced: bool) -> Result<()> {
    let nats = if synced { NatsServer::start().await? } else { NatsServer::start_unsynced().await? };
    let mut services = Vec::new();
    for stage in STAGES {
        services.push(release(stage)?.args(["--nats", nats.url()]).start()?);
    }
    let args = ["run", "--now", "--nats", nats.url()];
    let (rate, _) = measure(cli, cli.records, n, &args).await?;
    let durability = if synced { "each write synced" } else { "the server's default syncing" };
    println!(
        "five processes over one nats-server ({durability}), {} records, n: {n}: {rate:.0} records/s \
         (target: {target}), {:.0} x Python",
        cli.records,
        rate / PYTHON
    );
    for service in &services {
        println!("  {} peak {} MiB", service.name(), peak_of(service)? / 1024);
    }
    Ok(())
}

/// The median rate of runs with so many records, and the coordinator's peak memory in KiB.
async fn measure(cli: &Cli, records: u64, n: u64, args: &[&str]) -> Result<(f64, u64)> {
    let mut times = Vec::new();
    let mut peak = 0;
    for _ in 0..cli.runs {
        let workspace = Workspace::new(&configuration(records, n))?;
        let (seconds, memory) = timed_run(&workspace, args).await?;
        verify(&workspace.out(), records, n)?;
        times.push(seconds);
        peak = peak.max(memory);
    }
    Ok((records as f64 / median(&mut times), peak))
}

/// One run: seconds from start to exit, and peak memory in KiB.
async fn timed_run(workspace: &Workspace, args: &[&str]) -> Result<(f64, u64)> {
    let began = Instant::now();
    let mut program = release("coordinator")?.args(args.iter().copied()).current_dir(workspace.path()).start()?;
    let pid = program.pid();
    let peak = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&peak);
    let watching = tokio::spawn(async move {
        // The figure in /proc only grows: the last one that can be read is the peak, to within one look.
        while let Some(memory) = pid.and_then(high_water) {
            seen.fetch_max(memory, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    program.wait(PATIENCE).await?.with_code(0)?;
    let seconds = began.elapsed().as_secs_f64();
    watching.abort();
    Ok((seconds, peak.load(Ordering::Relaxed)))
}

fn release(name: &str) -> Result<tests::harness::Launch> {
    let folder = std::env::current_exe()?.parent().map(Path::to_path_buf).unwrap_or_else(PathBuf::new);
    let path = folder.join(name);
    ensure!(path.exists(), "{} is missing: run `make bench`", path.display());
    Ok(Program::at(path))
}

fn peak_of(program: &Program) -> Result<u64> {
    program.pid().and_then(high_water).context("the program has ended")
}

/// What a process has used of the processor, in seconds: `utime` and `stime` of `/proc/<pid>/stat`.
fn processor_time_of(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    // Behind the name: state is the first; utime and stime the 12th and 13th; Linux counts 100 a second.
    Ok((ticks(11) + ticks(12)) / 100.0)
}

/// The peak resident memory of a process, in KiB.
fn high_water(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A fast run with something missing is no result.
fn verify(out: &Path, records: u64, n: u64) -> Result<()> {
    for (file, count) in [("mockaudit_mockcloud.json", records), ("mockaudit_mockevent.json", records.div_ceil(n))] {
        let text = std::fs::read(out.join(file))?;
        let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        ensure!(lines == count + 2, "{file} has {lines} lines instead of {}", count + 2);
    }
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
