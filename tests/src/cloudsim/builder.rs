//! How a simulated cloud is described and started.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::Cloudsim;
use super::activity_log::ActivityLog;
use super::assertion::Credentials;
use super::estate::{Estate, Size};
use super::faults::{Faults, Gate};
use super::kind::Kind;
use super::providers::resources::LOCATIONS;
use super::rate::RateLimits;
use super::server;
use super::simulation::{Shared, Simulation};
use super::subscription::SubscriptionState;
use super::tls;

/// Azure's limit.
const MOST_RULES: usize = 1000;

/// A description of a simulated cloud. Made by [`Cloudsim::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    listen: SocketAddr,
    seed: u64,
    size: Size,
    page_size: usize,
    item_bytes: usize,
    client_secret: String,
    certificates: Vec<String>,
    federated: Vec<String>,
    token_lifetime: Duration,
    rate_limit: Option<(u32, f64)>,
    is_tls: bool,
    faults: Faults,
    activity: ActivityLog,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            seed: 1,
            size: Size::default(),
            page_size: 100,
            item_bytes: 0,
            client_secret: "cloudsim-secret".to_owned(),
            certificates: Vec::new(),
            federated: Vec::new(),
            rate_limit: None,
            is_tls: false,
            // What Entra ID says of its tokens, most of the time.
            token_lifetime: Duration::from_secs(3599),
            faults: Faults::default(),
            activity: ActivityLog::default(),
        }
    }
}

impl Builder {
    /// So many events in the Activity Log of each subscription, evenly over so long a time until now.
    #[must_use]
    pub fn activity(mut self, count: u64, span: Duration) -> Self {
        let until = jiff::Timestamp::now().as_second();
        let from = until.saturating_sub_unsigned(span.as_secs());
        self.activity = ActivityLog { from, until, count, ..ActivityLog::default() };
        self
    }

    /// The address to listen on; only loopback addresses are taken. By default a free port of 127.0.0.1.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// The number that everything is generated from: the same seed gives the same cloud.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many subscriptions there are.
    pub fn subscriptions(mut self, count: usize) -> Self {
        self.size.subscriptions = count;
        self
    }

    /// How many network security groups each subscription has.
    pub fn nsgs(self, count: usize) -> Self {
        self.count(Kind::NetworkSecurityGroup, count)
    }

    /// How many network security groups one subscription has, given by its index.
    pub fn nsgs_in(self, subscription: usize, count: usize) -> Self {
        self.count_in(subscription, Kind::NetworkSecurityGroup, count)
    }

    /// How many things of a kind each subscription has; of what is listed below a resource, how many each
    /// resource has. A detail is there once for each resource, whatever is said here, and a subscription
    /// has one log profile at most.
    pub fn count(mut self, kind: Kind, count: usize) -> Self {
        self.size.of_each.insert(kind, count);
        self
    }

    /// How many things of a kind one subscription has, given by its index.
    pub fn count_in(mut self, subscription: usize, kind: Kind, count: usize) -> Self {
        self.size.of_one.insert((subscription, kind), count);
        self
    }

    /// How many virtual machines each subscription has, each with an instance view.
    pub fn machines(self, count: usize) -> Self {
        self.count(Kind::VirtualMachine, count)
    }

    /// How many managed disks each subscription has.
    pub fn disks(self, count: usize) -> Self {
        self.count(Kind::Disk, count)
    }

    /// How many resource groups each subscription has.
    pub fn resource_groups(self, count: usize) -> Self {
        self.count(Kind::ResourceGroup, count)
    }

    /// How many network interfaces each subscription has.
    pub fn network_interfaces(self, count: usize) -> Self {
        self.count(Kind::NetworkInterface, count)
    }

    /// How many public addresses each subscription has.
    pub fn public_addresses(self, count: usize) -> Self {
        self.count(Kind::PublicIpAddress, count)
    }

    /// How many load balancers each subscription has.
    pub fn load_balancers(self, count: usize) -> Self {
        self.count(Kind::LoadBalancer, count)
    }

    /// How many application gateways each subscription has.
    pub fn application_gateways(self, count: usize) -> Self {
        self.count(Kind::ApplicationGateway, count)
    }

    /// How many storage accounts each subscription has.
    pub fn storage_accounts(self, count: usize) -> Self {
        self.count(Kind::StorageAccount, count)
    }

    /// How many MySQL servers each subscription has: single ones, and as many flexible ones.
    pub fn mysql_servers(self, count: usize) -> Self {
        self.count(Kind::MysqlServer, count).count(Kind::MysqlFlexibleServer, count)
    }

    /// How many PostgreSQL servers each subscription has: single ones, and as many flexible ones.
    pub fn postgresql_servers(self, count: usize) -> Self {
        self.count(Kind::PostgresqlServer, count).count(Kind::PostgresqlFlexibleServer, count)
    }

    /// How many SQL servers each subscription has.
    pub fn sql_servers(self, count: usize) -> Self {
        self.count(Kind::SqlServer, count)
    }

    /// How many databases each SQL server has, the `master` included.
    pub fn databases(self, count: usize) -> Self {
        self.count(Kind::SqlDatabase, count)
    }

    /// How many web apps each subscription has.
    pub fn web_apps(self, count: usize) -> Self {
        self.count(Kind::WebApp, count)
    }

    /// How many key vaults each subscription has.
    pub fn vaults(self, count: usize) -> Self {
        self.count(Kind::Vault, count)
    }

    /// How many keys each vault has.
    pub fn keys(self, count: usize) -> Self {
        self.count(Kind::VaultKey, count)
    }

    /// How many secrets each vault has.
    pub fn secrets(self, count: usize) -> Self {
        self.count(Kind::VaultSecret, count)
    }

    /// How many log profiles each subscription has: none or one. By default two of three have one.
    pub fn log_profiles(self, count: usize) -> Self {
        self.count(Kind::LogProfile, count)
    }

    /// How many diagnostic settings each subscription has.
    pub fn diagnostic_settings(self, count: usize) -> Self {
        self.count(Kind::DiagnosticSetting, count)
    }

    /// What has become of one subscription, given by its index.
    pub fn subscription_state(mut self, subscription: usize, state: SubscriptionState) -> Self {
        self.size.states.insert(subscription, state);
        self
    }

    /// Makes the items of lists about this many bytes long, by tags; for measurements. Network security
    /// groups have the length that their rules give them, and configurations, views and locations stay as
    /// they are.
    pub fn item_bytes(mut self, length: usize) -> Self {
        self.item_bytes = length;
        self
    }

    /// How many rules each group has, beside the six that Azure adds.
    pub fn rules(mut self, count: usize) -> Self {
        self.size.rules = count;
        self
    }

    /// How many items a page of a list has at most.
    pub fn page_size(mut self, size: usize) -> Self {
        self.page_size = size;
        self
    }

    /// The secret to sign in with.
    pub fn client_secret(mut self, secret: impl Into<String>) -> Self {
        self.client_secret = secret.into();
        self
    }

    /// A certificate (PEM) that the application may sign in with, too.
    pub fn certificate(mut self, pem: impl Into<String>) -> Self {
        self.certificates.push(pem.into());
        self
    }

    /// A text that the application may sign in with as a client assertion, as if a federated identity
    /// provider had given it out.
    pub fn federated_token(mut self, assertion: impl Into<String>) -> Self {
        self.federated.push(assertion.into());
        self
    }

    /// Limits reads as Resource Manager does (there: 250 and 25): each subscription, and what is outside of
    /// all, has a bucket of so many requests, filled at this rate.
    pub fn rate_limit(mut self, bucket: u32, per_second: f64) -> Self {
        self.rate_limit = Some((bucket, per_second));
        self
    }

    /// Serves over https, at `https://localhost:PORT`, with a certificate that [`Cloudsim::ca_pem`] vouches
    /// for.
    pub fn tls(mut self) -> Self {
        self.is_tls = true;
        self
    }

    /// How long a token is good.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token_lifetime = lifetime;
        self
    }

    /// Changes what goes wrong from the start.
    pub fn faults(mut self, change: impl FnOnce(&mut Faults)) -> Self {
        change(&mut self.faults);
        self
    }

    /// Starts the server. It answers from the moment this returns.
    pub async fn start(self) -> Result<Cloudsim> {
        ensure!(
            self.listen.ip().is_loopback(),
            "the simulated cloud listens on loopback addresses only (127.0.0.1, [::1]), not on {}: \
             its secrets are public",
            self.listen
        );
        ensure!(self.page_size > 0, "a page needs room for at least one item");
        ensure!(
            self.size.rules <= MOST_RULES,
            "a network security group has at most {MOST_RULES} rules, not {}",
            self.size.rules
        );
        if let Some((bucket, per_second)) = self.rate_limit {
            ensure!(bucket > 0 && per_second > 0.0, "a rate limit lets something through, at last");
        }
        let most_of = |kind| self.size.most_of(kind).unwrap_or_default();
        ensure!(most_of(Kind::LogProfile) <= 1, "a subscription has at most one log profile");
        ensure!(most_of(Kind::Location) <= LOCATIONS.len(), "there are {} locations at most", LOCATIONS.len());
        let listener =
            TcpListener::bind(self.listen).await.with_context(|| format!("cannot listen on {}", self.listen))?;
        let address = listener.local_addr().context("the listener has no address")?;
        let identity = if self.is_tls { Some(tls::Identity::generate()?) } else { None };
        let url = match &identity {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        let estate = Estate::new(self.seed, self.size, &url, self.item_bytes);
        let mut credentials = Credentials::new(estate.identity_header());
        for pem in &self.certificates {
            credentials.add_certificate(pem)?;
        }
        for assertion in self.federated {
            credentials.add_federated(assertion);
        }
        let ca_pem = identity.as_ref().map(|identity| identity.ca_pem.clone());
        let simulation = Arc::new(Simulation {
            url,
            ca_pem,
            credentials,
            rate_limits: self.rate_limit.map(|(bucket, rate)| Shared::new(RateLimits::new(bucket, rate))),
            client_id: estate.client_id(),
            object_id: estate.object_id(),
            estate,
            page_size: self.page_size,
            client_secret: self.client_secret,
            token_lifetime: self.token_lifetime,
            tokens: Shared::default(),
            gate: Shared::new(Gate::new(self.faults)),
            statistics: Shared::default(),
            activity: Shared::new(self.activity),
            answers: AtomicU64::new(0),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            // An error means that the handle is gone, which is a reason to stop as well.
            let _ = stopped.await;
        };
        let server = tokio::spawn(server::serve(listener, identity, simulation.clone(), stopped));
        Ok(Cloudsim { simulation, stop, server })
    }
}
