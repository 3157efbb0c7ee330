//! A simulated Google Cloud to try Cloudmarker on, without an account. Prints where it listens and a
//! matching configuration, and serves until it is stopped.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tests::gcpsim::{Builder, Faults, Gcpsim, Throttling, Times};
use tokio::signal::unix::{SignalKind, signal};

/// A simulated Google Cloud on a loopback address: token endpoint, metadata server, Resource Manager,
/// Compute Engine and IAM credentials at one root.
///
/// Projects, firewalls and instances are generated from the seed: the same seed gives the same cloud.
#[derive(Parser)]
#[command(name = "gcpsim", version)]
struct Arguments {
    /// Where to listen; loopback addresses only, port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8901")]
    listen: SocketAddr,

    /// Write the service account's key file here
    #[arg(long, value_name = "FILE")]
    write_key: PathBuf,

    /// Write the matching Cloudmarker configuration to this file, too
    #[arg(long, value_name = "FILE")]
    write_config: Option<PathBuf>,

    /// What the cloud is generated from
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many projects there are
    #[arg(long, value_name = "N", default_value_t = 4)]
    projects: usize,

    /// How many of them, the last ones, are about to be deleted
    #[arg(long, value_name = "N", default_value_t = 1)]
    deleted_projects: usize,

    /// Firewalls in each project
    #[arg(long, value_name = "N", default_value_t = 20)]
    firewalls: usize,

    /// Instances in each project
    #[arg(long, value_name = "N", default_value_t = 12)]
    instances: usize,

    /// Zones in each project
    #[arg(long, value_name = "N", default_value_t = 6)]
    zones: usize,

    /// Most items in a page of a list
    #[arg(long, value_name = "N", default_value_t = 500)]
    page_size: usize,

    /// How long a token is good
    #[arg(long, value_name = "SECONDS", default_value_t = 3599)]
    token_lifetime: u64,

    #[command(flatten)]
    faults: FaultArguments,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Faults (requests are counted once their token is found good)")]
struct FaultArguments {
    /// Deny the first N projects (403)
    #[arg(long, value_name = "N", default_value_t = 0)]
    deny: usize,

    /// Switch Compute Engine off in the N projects after the denied ones (403)
    #[arg(long, value_name = "N", default_value_t = 0)]
    disable_api: usize,

    /// Throttle every N-th request; 0: none
    #[arg(long, value_name = "N", default_value_t = 0)]
    throttle_every: u64,

    /// How Compute Engine throttles
    #[arg(long, value_name = "STATUS", value_enum, default_value_t = ThrottleAs::Forbidden)]
    throttle_as: ThrottleAs,

    /// What a throttled client is told to wait; nothing by default
    #[arg(long, value_name = "SECONDS")]
    retry_after: Option<u64>,

    /// Fail every N-th request, with 500, 503 and 502 by turns; 0: none
    #[arg(long, value_name = "N", default_value_t = 0)]
    fail_every: u64,

    /// Cut off the body of every N-th request, if it is a page; 0: none
    #[arg(long, value_name = "N", default_value_t = 0)]
    cut_off_every: u64,

    /// How long each answer takes
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    latency_ms: u64,

    /// End all tokens after N requests, once
    #[arg(long, value_name = "N")]
    expire_tokens_after: Option<u64>,

    /// Refuse good page tokens
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Refuse::Never)]
    refuse_page_tokens: Refuse,

    /// Begin each page with the last N items of the page before
    #[arg(long, value_name = "N", default_value_t = 0)]
    page_overlap: usize,

    /// Make every N-th firewall and instance odd; 0: none
    #[arg(long, value_name = "N", default_value_t = 0)]
    odd_every: usize,

    /// A zone that does not answer; may be given several times
    #[arg(long, value_name = "ZONE")]
    unreachable_zone: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ThrottleAs {
    /// 403 rateLimitExceeded
    #[value(name = "403")]
    Forbidden,
    /// 429 RESOURCE_EXHAUSTED
    #[value(name = "429")]
    TooManyRequests,
}

#[derive(Clone, Copy, ValueEnum)]
enum Refuse {
    Never,
    Once,
    Always,
}

impl Arguments {
    fn builder(&self) -> Builder {
        Gcpsim::builder()
            .listen(self.listen)
            .seed(self.seed)
            .projects(self.projects)
            .deleted_projects(self.deleted_projects)
            .firewalls(self.firewalls)
            .instances(self.instances)
            .zones(self.zones)
            .page_size(self.page_size)
            .token_lifetime(Duration::from_secs(self.token_lifetime))
            .faults(|faults| self.faults.apply(faults))
    }
}

impl FaultArguments {
    fn apply(&self, faults: &mut Faults) {
        faults.latency = Duration::from_millis(self.latency_ms);
        faults.throttle_every = self.throttle_every;
        faults.throttling = match self.throttle_as {
            ThrottleAs::Forbidden => Throttling::RateLimitExceeded,
            ThrottleAs::TooManyRequests => Throttling::ResourceExhausted,
        };
        faults.retry_after = self.retry_after;
        faults.fail_every = self.fail_every;
        faults.cut_off_every = self.cut_off_every;
        faults.expire_tokens_after = self.expire_tokens_after;
        faults.refuse_page_tokens = match self.refuse_page_tokens {
            Refuse::Never => Times::Never,
            Refuse::Once => Times::Next(1),
            Refuse::Always => Times::Always,
        };
        faults.page_overlap = self.page_overlap;
        faults.odd_every = self.odd_every;
        faults.unreachable_zones = self.unreachable_zone.iter().cloned().collect();
        (0..self.deny).for_each(|project| faults.deny(project));
        (self.deny..self.deny + self.disable_api).for_each(|project| faults.disable_api(project));
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cloud = arguments.builder().start().await?;
    // Before anything is printed: who reads the address may stop the server at once.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let key = &arguments.write_key;
    std::fs::write(key, cloud.key_file()).with_context(|| format!("cannot write the key file to {}", key.display()))?;
    let configuration = cloud.configuration(key);
    if let Some(path) = &arguments.write_config {
        std::fs::write(path, &configuration)
            .with_context(|| format!("cannot write the configuration to {}", path.display()))?;
    }
    announce(&cloud, &configuration)?;
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    cloud.stop().await
}

fn announce(cloud: &Gcpsim, configuration: &str) -> Result<()> {
    let (all, readable) = (cloud.truth(), cloud.readable());
    let mut out = std::io::stdout().lock();
    // All but the configuration itself is a comment, so that the whole can be read as one.
    writeln!(out, "# A simulated Google Cloud at {}", cloud.url())?;
    writeln!(
        out,
        "# {} projects ({} active), {} firewalls ({} readable) with {} rules ({} readable), {} instances ({} readable)",
        all.projects,
        all.active_projects,
        all.firewalls,
        readable.firewalls,
        all.rules,
        readable.rules,
        all.instances,
        readable.instances
    )?;
    write!(out, "{configuration}")?;
    out.flush().context("cannot write to standard output")
}
