//! How a simulated cloud is described and started.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::Cloudsim;
use super::estate::{Estate, Size};
use super::faults::{Faults, Gate};
use super::server;
use super::simulation::{Shared, Simulation};

/// Azure's limit.
const MOST_RULES: usize = 1000;

/// A description of a simulated cloud. Made by [`Cloudsim::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    listen: SocketAddr,
    seed: u64,
    size: Size,
    page_size: usize,
    client_secret: String,
    token_lifetime: Duration,
    faults: Faults,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            seed: 1,
            size: Size { subscriptions: 3, nsgs: 5, nsgs_in: BTreeMap::new(), rules: 4 },
            page_size: 100,
            client_secret: "cloudsim-secret".to_owned(),
            // What Entra ID says of its tokens, most of the time.
            token_lifetime: Duration::from_secs(3599),
            faults: Faults::default(),
        }
    }
}

impl Builder {
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
    pub fn nsgs(mut self, count: usize) -> Self {
        self.size.nsgs = count;
        self
    }

    /// How many network security groups one subscription has, given by its index.
    pub fn nsgs_in(mut self, subscription: usize, count: usize) -> Self {
        self.size.nsgs_in.insert(subscription, count);
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
        let listener =
            TcpListener::bind(self.listen).await.with_context(|| format!("cannot listen on {}", self.listen))?;
        let address = listener.local_addr().context("the listener has no address")?;
        let estate = Estate::new(self.seed, self.size);
        let simulation = Arc::new(Simulation {
            url: format!("http://{address}"),
            client_id: estate.client_id(),
            object_id: estate.object_id(),
            estate,
            page_size: self.page_size,
            client_secret: self.client_secret,
            token_lifetime: self.token_lifetime,
            tokens: Shared::default(),
            gate: Shared::new(Gate::new(self.faults)),
            statistics: Shared::default(),
            answers: AtomicU64::new(0),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            // An error means that the handle is gone, which is a reason to stop as well.
            let _ = stopped.await;
        };
        let server = tokio::spawn(server::serve(listener, simulation.clone(), stopped));
        Ok(Cloudsim { simulation, stop, server })
    }
}
