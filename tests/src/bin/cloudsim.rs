//! A simulated Azure to try Cloudmarker on, without an account. Prints where it listens and a matching
//! configuration, and serves until it is stopped.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tests::cloudsim::{Builder, Cloudsim, Faults, Times, Trouble};
use tokio::signal::unix::{SignalKind, signal};

/// A simulated Azure: the token endpoint and Resource Manager, on a loopback address.
///
/// Subscriptions, network security groups and rules are generated from the seed: the same seed gives the
/// same cloud.
#[derive(Parser)]
#[command(name = "cloudsim", version)]
struct Arguments {
    /// Where to listen; loopback addresses only, port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8900")]
    listen: SocketAddr,

    /// What the cloud is generated from
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many subscriptions there are
    #[arg(long, value_name = "N", default_value_t = 3)]
    subscriptions: usize,

    /// Network security groups in each subscription
    #[arg(long, value_name = "N", default_value_t = 5)]
    nsgs: usize,

    /// Security rules in each group, beside the six of Azure's own
    #[arg(long, value_name = "N", default_value_t = 4)]
    rules: usize,

    /// Most items in a page of a list
    #[arg(long, value_name = "N", default_value_t = 100)]
    page_size: usize,

    /// The secret to sign in with
    #[arg(long, value_name = "SECRET", default_value = "cloudsim-secret")]
    client_secret: String,

    /// How long a token is good
    #[arg(long, value_name = "SECONDS", default_value_t = 3599)]
    token_lifetime: u64,

    /// Write the matching Cloudmarker configuration to this file, too
    #[arg(long, value_name = "FILE")]
    write_config: Option<PathBuf>,

    #[command(flatten)]
    faults: FaultArguments,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Faults (requests are counted once their token is found good)")]
struct FaultArguments {
    /// Forbid the first N subscriptions (403)
    #[arg(long, value_name = "N", default_value_t = 0)]
    forbid: usize,

    /// Throttle every N-th request (429); 0: none
    #[arg(long, value_name = "N", default_value_t = 0)]
    throttle_every: u64,

    /// What a throttled client is told to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    retry_after: u64,

    /// Fail every N-th request, with 500 and 503 by turns; 0: none
    #[arg(long, value_name = "N", default_value_t = 0)]
    fail_every: u64,

    /// Cut off the body of every N-th request, if it is a page; 0: none
    #[arg(long, value_name = "N", default_value_t = 0)]
    cut_off_every: u64,

    /// How long each answer of Resource Manager takes
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    latency_ms: u64,

    /// End all tokens after N requests, once
    #[arg(long, value_name = "N")]
    expire_tokens_after: Option<u64>,

    /// Refuse good page tokens
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Refuse::Never)]
    refuse_page_tokens: Refuse,

    /// Let the last subscription's first page lead to another server
    #[arg(long, value_name = "ORIGIN")]
    foreign_next_link: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Refuse {
    Never,
    Once,
    Always,
}

impl Arguments {
    fn builder(&self) -> Builder {
        Cloudsim::builder()
            .listen(self.listen)
            .seed(self.seed)
            .subscriptions(self.subscriptions)
            .nsgs(self.nsgs)
            .rules(self.rules)
            .page_size(self.page_size)
            .client_secret(&self.client_secret)
            .token_lifetime(Duration::from_secs(self.token_lifetime))
            .faults(|faults| self.faults.apply(faults, self.subscriptions))
    }
}

impl FaultArguments {
    fn apply(&self, faults: &mut Faults, subscriptions: usize) {
        faults.latency = Duration::from_millis(self.latency_ms);
        faults.throttle_every = self.throttle_every;
        faults.retry_after = self.retry_after;
        faults.fail_every = self.fail_every;
        faults.cut_off_every = self.cut_off_every;
        faults.expire_tokens_after = self.expire_tokens_after;
        faults.refuse_page_tokens = match self.refuse_page_tokens {
            Refuse::Never => Times::Never,
            Refuse::Once => Times::Next(1),
            Refuse::Always => Times::Always,
        };
        if let (Some(origin), Some(last)) = (&self.foreign_next_link, subscriptions.checked_sub(1)) {
            let trouble = Trouble::ForeignNextLink(origin.clone());
            faults.trouble(last, trouble, Times::Always);
        }
        faults.forbid(self.forbid);
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cloud = arguments.builder().start().await?;
    // Before anything is printed: who reads the address may stop the server at once.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let configuration = cloud.configuration();
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

fn announce(cloud: &Cloudsim, configuration: &str) -> Result<()> {
    let (all, readable) = (cloud.truth(), cloud.readable());
    let mut out = std::io::stdout().lock();
    // All but the configuration itself is a comment, so that the whole can be read as one.
    writeln!(out, "# A simulated Azure at {}", cloud.url())?;
    writeln!(
        out,
        "# {} subscriptions ({} readable), {} network security groups ({} readable), {} rules ({} readable)",
        all.subscriptions, readable.subscriptions, all.nsgs, readable.nsgs, all.rules, readable.rules
    )?;
    write!(out, "{configuration}")?;
    out.flush().context("cannot write to standard output")
}
