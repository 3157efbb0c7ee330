//! A simulated Azure to try Cloudmarker on, without an account. Prints where it listens and a matching
//! configuration, and serves until it is stopped.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tests::cloudsim::{Absence, Ailment, Builder, Cloudsim, Faults, Kind, Oddity, SubscriptionState, Times, Trouble};
use tokio::signal::unix::{SignalKind, signal};

/// A simulated Azure: the token endpoint, Resource Manager and Key Vault, on a loopback address.
///
/// Everything in it is generated from the seed: the same seed gives the same cloud.
#[derive(Parser)]
#[command(name = "cloudsim", version, after_help = kinds())]
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

    /// Things of a kind in each subscription: machines=250, databases=4; see below for the kinds
    #[arg(long, value_name = "KIND=N", value_parser = count, num_args = 1.., value_delimiter = ',')]
    count: Vec<(Kind, usize)>,

    /// The state of a subscription, by its index
    #[arg(long, value_name = "INDEX=STATE", value_parser = state)]
    state: Vec<(usize, SubscriptionState)>,

    /// Make the items of lists about this long, by tags; 0: as they are
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    item_bytes: usize,

    /// Most items in a page of a list
    #[arg(long, value_name = "N", default_value_t = 100)]
    page_size: usize,

    /// The secret to sign in with
    #[arg(long, value_name = "SECRET", default_value = "cloudsim-secret")]
    client_secret: String,

    /// A certificate (PEM) that the application may sign in with, too
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,

    /// A text that the application may sign in with as a federated token
    #[arg(long, value_name = "TEXT")]
    federated_token: Option<String>,

    /// Limit reads: requests in the bucket of each subscription, and requests a second that refill it
    /// (Azure's are 250:25)
    #[arg(long, value_name = "BUCKET:RATE", value_parser = rate_limit)]
    rate_limit: Option<(u32, f64)>,

    /// Serve over https, with a certificate of an authority that is written to this file
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// The cloud plugins that the configuration names: AzCloud, AzVM, AzDisk, AzKV, AzMonitor, AzPostgres,
    /// AzSQL, AzStorageAccount, AzWebApp
    #[arg(long, value_name = "CLASS", default_value = "AzCloud", num_args = 1.., value_delimiter = ',')]
    plugins: Vec<String>,

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

    /// Delay the answer to every N-th request; 0: none
    #[arg(long, value_name = "N", default_value_t = 0)]
    slow_every: u64,

    /// How long a slow answer is delayed
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    slow_ms: u64,

    /// Deny a kind in a subscription (403)
    #[arg(long, value_name = "INDEX:KIND", value_parser = denial)]
    deny: Vec<(usize, Kind)>,

    /// Take a provider away from a subscription (409)
    #[arg(long, value_name = "INDEX:NAMESPACE", value_parser = provider)]
    unregister: Vec<(usize, String)>,

    /// Let every N-th resource of a kind be gone when it is asked for (404)
    #[arg(long, value_name = "KIND=N", value_parser = count)]
    gone: Vec<(Kind, usize)>,

    /// Let every N-th resource of a kind be broken for ever (500)
    #[arg(long, value_name = "KIND=N", value_parser = count)]
    broken: Vec<(Kind, usize)>,

    /// Let every N-th resource of a kind be denied (403)
    #[arg(long, value_name = "KIND=N", value_parser = count)]
    denied: Vec<(Kind, usize)>,

    /// Let every N-th thing of a kind be without its properties
    #[arg(long, value_name = "KIND=N", value_parser = count)]
    odd: Vec<(Kind, usize)>,

    /// Repeat the last thing of each page on the next one
    #[arg(long)]
    shifting_pages: bool,

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

/// A kind by its name in the help: `virtual-machine`, or a shorter one.
fn kind(name: &str) -> Result<Kind, String> {
    let wanted = name.to_ascii_lowercase().replace(['-', '_'], "");
    let wanted = match wanted.trim_end_matches('s') {
        "machine" | "vm" => "virtualmachine",
        "nsg" => "networksecuritygroup",
        "nic" => "networkinterface",
        "publicip" | "publicaddresse" => "publicipaddress",
        "database" => "sqldatabase",
        "key" => "vaultkey",
        "secret" => "vaultsecret",
        _ => &wanted,
    };
    let is_it = |kind: &Kind| {
        let name = format!("{kind:?}").to_ascii_lowercase();
        name == wanted || name.trim_end_matches('s') == wanted.trim_end_matches('s')
    };
    Kind::ALL.into_iter().find(is_it).ok_or_else(|| format!("'{name}' is no kind; the kinds are: {}", kind_names()))
}

/// `VirtualMachine` as `virtual-machine`.
fn kind_names() -> String {
    let name = |kind: &Kind| -> String {
        let name = format!("{kind:?}");
        let letters = name.chars().enumerate().flat_map(|(index, letter)| {
            let dash = (index > 0 && letter.is_ascii_uppercase()).then_some('-');
            dash.into_iter().chain([letter.to_ascii_lowercase()])
        });
        letters.collect()
    };
    Kind::ALL.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn kinds() -> String {
    format!("Kinds: {}", kind_names())
}

fn split<'a>(text: &'a str, separator: char, shape: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once(separator).ok_or_else(|| format!("'{text}' should be {shape}"))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is no number"))
}

fn count(text: &str) -> Result<(Kind, usize), String> {
    let (name, count) = split(text, '=', "KIND=N")?;
    Ok((kind(name)?, number(count)?))
}

fn denial(text: &str) -> Result<(usize, Kind), String> {
    let (subscription, name) = split(text, ':', "INDEX:KIND")?;
    Ok((number(subscription)?, kind(name)?))
}

fn provider(text: &str) -> Result<(usize, String), String> {
    let (subscription, namespace) = split(text, ':', "INDEX:NAMESPACE")?;
    Ok((number(subscription)?, namespace.to_owned()))
}

fn state(text: &str) -> Result<(usize, SubscriptionState), String> {
    use SubscriptionState::{Deleted, Disabled, Enabled, PastDue, Warned};
    let (subscription, name) = split(text, '=', "INDEX=STATE")?;
    let state = [Enabled, Warned, PastDue, Disabled, Deleted].into_iter().find(|state| state.name() == name);
    let state = state.ok_or("a state is Enabled, Warned, PastDue, Disabled or Deleted")?;
    Ok((number(subscription)?, state))
}

fn rate_limit(text: &str) -> Result<(u32, f64), String> {
    let (bucket, rate) = split(text, ':', "BUCKET:RATE")?;
    Ok((number(bucket)?, number(rate)?))
}

impl Arguments {
    fn builder(&self) -> Result<Builder> {
        let mut builder = Cloudsim::builder()
            .listen(self.listen)
            .seed(self.seed)
            .subscriptions(self.subscriptions)
            .nsgs(self.nsgs)
            .rules(self.rules)
            .page_size(self.page_size)
            .item_bytes(self.item_bytes)
            .client_secret(&self.client_secret)
            .token_lifetime(Duration::from_secs(self.token_lifetime))
            .faults(|faults| self.faults.apply(faults, self.subscriptions));
        for (kind, count) in &self.count {
            builder = builder.count(*kind, *count);
        }
        for (subscription, state) in &self.state {
            builder = builder.subscription_state(*subscription, *state);
        }
        if let Some((bucket, rate)) = self.rate_limit {
            builder = builder.rate_limit(bucket, rate);
        }
        if let Some(path) = &self.certificate {
            let pem = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the certificate {}", path.display()))?;
            builder = builder.certificate(pem);
        }
        if let Some(token) = &self.federated_token {
            builder = builder.federated_token(token);
        }
        if self.tls_ca.is_some() {
            builder = builder.tls();
        }
        Ok(builder)
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
        faults.slow_every = self.slow_every;
        faults.slow_by = Duration::from_millis(self.slow_ms);
        for (subscription, kind) in &self.deny {
            faults.deny(*subscription, *kind);
        }
        for (subscription, namespace) in &self.unregister {
            faults.unregister(*subscription, namespace, Absence::NotRegistered);
        }
        let ailments = [(&self.gone, Ailment::Gone), (&self.broken, Ailment::Broken), (&self.denied, Ailment::Denied)];
        for (kinds, ailment) in ailments {
            faults.ailing.extend(kinds.iter().map(|(kind, every)| (*kind, (*every, ailment))));
        }
        faults.odd.extend(self.odd.iter().map(|(kind, every)| (*kind, (*every, Oddity::NoProperties))));
        faults.shifting_pages = self.shifting_pages;
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cloud = arguments.builder()?.start().await?;
    // Before anything is printed: who reads the address may stop the server at once.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let classes: Vec<&str> = arguments.plugins.iter().map(String::as_str).collect();
    let configuration = cloud.configuration_of(&classes);
    if let (Some(path), Some(pem)) = (&arguments.tls_ca, cloud.ca_pem()) {
        std::fs::write(path, pem).with_context(|| format!("cannot write the authority to {}", path.display()))?;
    }
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
    let (inventory, readable) = (cloud.inventory(), cloud.readable_inventory());
    let kinds = Kind::ALL.map(|kind| format!("{kind:?} {} ({} readable)", inventory.of(kind), readable.of(kind)));
    writeln!(out, "# {}", kinds.join(", "))?;
    write!(out, "{configuration}")?;
    out.flush().context("cannot write to standard output")
}
