//! How fast a collector reads a (simulated) Azure: bound by the cloud's latency, and by its own core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tests::cloudsim::{Cloudsim, Kind};
use tests::harness::{NatsServer, Program, Workspace};

use super::{Cli, PATIENCE, median, peak_of, processor_time_of, release};

/// Calls in flight of one collector.
const CONCURRENCY: usize = 64;
/// What each call takes in the benchmark that is bound by latency.
const LATENCY: Duration = Duration::from_millis(50);
const SUBSCRIPTIONS: usize = 20;
const MACHINES: usize = 250;
/// The resources of the benchmark that is bound by the processor, their pages and their sizes.
const RESOURCES: usize = 200_000;
const PAGE: usize = 1_000;
const ITEM_BYTES: usize = 4 * 1024;

pub(super) async fn measure(cli: &Cli) -> Result<()> {
    if "azure latency".contains(&cli.only) {
        latency(cli).await?;
    }
    if "azure cpu".contains(&cli.only) {
        cpu(cli).await?;
    }
    Ok(())
}

/// An audit of one plugin of Azure that nobody stores or evaluates: collecting alone.
fn configuration(cloud: &Cloudsim, class: &str) -> String {
    format!(
        "plugins:\n  azure:\n    plugin: {class}\n    params: {{tenant: '{}', client: '{}', secret: '{}', \
         login_endpoint: '{url}', arm_endpoint: '{url}', concurrency: {CONCURRENCY}}}\n\
         audits:\n  azure: {{clouds: [azure], stores: [], events: [], alerts: []}}\nrun: [azure]\n",
        cloud.tenant(),
        cloud.client_id(),
        cloud.client_secret(),
        url = cloud.url()
    )
}

async fn latency(cli: &Cli) -> Result<()> {
    let cloud = Cloudsim::builder()
        .subscriptions(SUBSCRIPTIONS)
        .machines(MACHINES)
        .page_size(MACHINES)
        .faults(|faults| faults.latency = LATENCY)
        .start()
        .await?;
    let workspace = Workspace::new(&configuration(&cloud, "cloudmarker.clouds.azvm.AzVM"))?;
    let mut medians = Vec::new();
    for collectors in [1, 2] {
        let (mut times, mut calls) = (Vec::new(), 0);
        for _ in 0..cli.runs {
            let nats = NatsServer::start_unsynced().await?;
            let _collectors = start_collectors(collectors, &nats, &[]).await?;
            let before = cloud.statistics().arm_requests();
            times.push(run(&workspace, &nats).await?);
            calls = cloud.statistics().arm_requests() - before;
        }
        let seconds = median(&mut times);
        let least = calls as f64 * LATENCY.as_secs_f64() / CONCURRENCY as f64;
        println!(
            "AzVM, {SUBSCRIPTIONS} subscriptions of {MACHINES} machines, {LATENCY:?} a call, {collectors} collector(s) \
             of {CONCURRENCY}: {seconds:.2} s for {calls} calls, {:.2} x calls x latency / concurrency of one collector",
            seconds / least
        );
        medians.push((seconds, least));
    }
    if let [(one, least), (two, _)] = medians.as_slice() {
        println!(
            "  one collector {:.2} (target: at most 1.3); two take {:.2} of one (target: 0.6)",
            one / least,
            two / one
        );
    }
    Ok(())
}

async fn cpu(cli: &Cli) -> Result<()> {
    for resources in [RESOURCES / 20, RESOURCES] {
        let cloud = Cloudsim::builder()
            .subscriptions(SUBSCRIPTIONS)
            .disks(resources / SUBSCRIPTIONS)
            .page_size(PAGE)
            .item_bytes(ITEM_BYTES)
            .start()
            .await?;
        if resources == RESOURCES {
            println!("  the simulator alone: {:.0} items/s", simulator_rate(&cloud).await?);
        }
        let workspace = Workspace::new(&configuration(&cloud, "cloudmarker.clouds.azdisk.AzDisk"))?;
        let (mut times, mut processor, mut peak) = (Vec::new(), Vec::new(), 0);
        for _ in 0..cli.runs {
            let nats = NatsServer::start_unsynced().await?;
            // One core for the collector: the rest is the simulator's and the broker's.
            let collectors = start_collectors(1, &nats, &["/usr/bin/taskset", "-c", "0"]).await?;
            let collector = collectors.first().context("no collector")?;
            let before = processor_time(collector)?;
            times.push(run(&workspace, &nats).await?);
            processor.push(processor_time(collector)? - before);
            peak = peak.max(peak_of(collector)?);
        }
        let (seconds, busy) = (median(&mut times), median(&mut processor));
        println!(
            "AzDisk, {resources} resources of {ITEM_BYTES} bytes in pages of {PAGE}, one collector on one core: {:.0} \
             records/s (target: 25,000) from the start of the coordinator to its end, {:.0} per second of the core's; \
             peak {} MiB (target: under 150)",
            resources as f64 / seconds,
            resources as f64 / busy,
            peak / 1024
        );
    }
    Ok(())
}

/// One run over the broker, in seconds from start to exit.
async fn run(workspace: &Workspace, nats: &NatsServer) -> Result<f64> {
    let began = Instant::now();
    let args = ["run", "--now", "--nats", nats.url()];
    let mut program = release("coordinator")?.args(args).current_dir(workspace.path()).start()?;
    program.wait(PATIENCE).await?.with_code(0)?;
    Ok(began.elapsed().as_secs_f64())
}

async fn start_collectors(count: usize, nats: &NatsServer, before: &[&str]) -> Result<Vec<Program>> {
    let mut collectors = Vec::new();
    for _ in 0..count {
        let concurrency = CONCURRENCY.to_string();
        let args = ["--nats", nats.url(), "--concurrency", &concurrency];
        let launch = match before.split_first() {
            None => release("collector")?.args(args),
            Some((tool, more)) => {
                let collector = release_path("collector")?;
                Program::at(*tool).args(more.iter().copied()).arg(collector).args(args)
            }
        };
        collectors.push(launch.start()?);
    }
    Ok(collectors)
}

fn release_path(name: &str) -> Result<std::path::PathBuf> {
    let folder = std::env::current_exe()?;
    let path = folder.parent().context("no folder")?.join(name);
    ensure!(path.exists(), "{} is missing: run `make bench`", path.display());
    Ok(path)
}

fn processor_time(program: &Program) -> Result<f64> {
    processor_time_of(program.pid().context("the program has ended")?)
}

/// How many items a plain client gets out of the simulator in a second.
async fn simulator_rate(cloud: &Cloudsim) -> Result<f64> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let token = {
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope=https%3A%2F%2Fmanagement.azure.com%2F.default",
            cloud.client_id(),
            cloud.client_secret()
        );
        let url = format!("{}/{}/oauth2/v2.0/token", cloud.url(), cloud.tenant());
        let request = client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        answer["access_token"].as_str().context("no token")?.to_owned()
    };
    let (client, token) = (Arc::new(client), Arc::new(token));
    let began = Instant::now();
    let counts: Vec<usize> = stream::iter(0..SUBSCRIPTIONS)
        .map(|subscription| {
            let (client, token) = (Arc::clone(&client), Arc::clone(&token));
            let id = cloud.estate().subscription_id(subscription);
            let mut next = Some(format!(
                "{}/subscriptions/{id}/providers/Microsoft.Compute/disks?api-version=2023-10-02",
                cloud.url()
            ));
            async move {
                let mut pages = 0;
                while let Some(url) = next.take() {
                    let body = client.get(url).bearer_auth(&token).send().await?.error_for_status()?.text().await?;
                    pages += 1;
                    next = body.rsplit_once("\"nextLink\":\"").map(|(_, link)| link.trim_end_matches("\"}").to_owned());
                }
                anyhow::Ok(pages)
            }
        })
        .buffer_unordered(8)
        .try_collect()
        .await?;
    ensure!(counts.iter().sum::<usize>() >= RESOURCES / PAGE, "pages are missing: {counts:?}");
    let items = (0..SUBSCRIPTIONS).map(|subscription| cloud.estate().count(subscription, Kind::Disk)).sum::<usize>();
    Ok(items as f64 / began.elapsed().as_secs_f64())
}
