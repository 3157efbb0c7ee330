//! How fast the (simulated) activity logs of some accounts are imported, and whether memory stays flat.
//!
//! A year of a million events comes to this: LookupEvents has 90 days, so that is what one run reads of each region. The
//! limit of two calls in a second is lifted: at it, a region gives 100 events a second, whoever asks.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::awssim::{Account, Awssim};
use tests::harness::Workspace;

use super::{Cli, median, timed_run};

const ACCOUNTS: u64 = 4;
const REGIONS: [&str; 5] = ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-2"];
const SPAN: Duration = Duration::from_secs(89 * 24 * 3600);

pub(super) async fn measure(cli: &Cli) -> Result<()> {
    if !"activity".contains(&cli.only) {
        return Ok(());
    }
    let small = cli.records / 10;
    let (_, floor) = import(cli, small).await?;
    let (rate, peak) = import(cli, cli.records).await?;
    let growth = (peak.saturating_sub(floor)) as f64 * 1024.0 / (cli.records - small) as f64;
    println!(
        "CloudTrail, {} events of {ACCOUNTS} accounts in {} regions into a SqliteStore, embedded: {rate:.0} events/s; \
         peak {} MiB (at a tenth: {} MiB), {growth:.1} bytes an event",
        cli.records,
        REGIONS.len(),
        peak / 1024,
        floor / 1024
    );
    Ok(())
}

/// The median rate of imports of so many events, and the peak memory in KiB.
async fn import(cli: &Cli, events: u64) -> Result<(f64, u64)> {
    let (mut times, mut peak) = (Vec::new(), 0);
    for _ in 0..cli.runs {
        let places = ACCOUNTS * REGIONS.len() as u64;
        let accounts: Vec<Account> = (1..=ACCOUNTS).map(|number| Account::new(&format!("{number:012}"))).collect();
        let mut builder = Awssim::builder().regions(&REGIONS).events(events / places, SPAN);
        for account in &accounts {
            builder = builder.account(account.clone());
        }
        let aws = builder.start().await?;
        let workspace = Workspace::new(&configuration(&aws, &accounts))?;
        let (seconds, memory) = timed_run(&workspace, &["run", "--now"]).await?;
        let read = aws.statistics().events;
        ensure!(read >= events / places * places, "only {read} events were read");
        times.push(seconds);
        peak = peak.max(memory);
    }
    Ok((events as f64 / median(&mut times), peak))
}

fn configuration(aws: &Awssim, accounts: &[Account]) -> String {
    let accounts: String = accounts
        .iter()
        .map(|account| format!("{{access_key_id: '{}', secret_access_key: '{}'}}, ", account.key_id, account.secret))
        .collect();
    format!(
        "plugins:\n  trail:\n    plugin: AwsCloudTrail\n    params: {{endpoint_url: '{}', keep: all, window: 10d, \
         _calls_per_second: 100000, accounts: [{accounts}]}}\n  \
         archive: {{plugin: SqliteStore, params: {{path: archive.db}}}}\n\
         audits:\n  logs: {{clouds: [trail], stores: [archive], events: [], alerts: []}}\nrun: [logs]\n",
        aws.url()
    )
}
