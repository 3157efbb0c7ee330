//! How a simulated Google Cloud is described and started.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::cloudsim::simulation::Shared;

use super::Gcpsim;
use super::estate::{Estate, Size};
use super::faults::{Faults, Gate};
use super::identities::Identities;
use super::server;
use super::signing_key::SigningKey;
use super::simulation::Simulation;
use super::zone;

/// A description of a simulated Google Cloud. Made by [`Gcpsim::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    listen: SocketAddr,
    seed: u64,
    size: Size,
    page_size: usize,
    token_lifetime: Duration,
    faults: Faults,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            seed: 1,
            size: Size {
                projects: 4,
                deleted: 1,
                firewalls: 20,
                firewalls_in: BTreeMap::new(),
                instances: 12,
                instances_in: BTreeMap::new(),
                zones: 6,
            },
            page_size: 500,
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

    /// How many projects there are, those that are about to be deleted among them.
    pub fn projects(mut self, count: usize) -> Self {
        self.size.projects = count;
        self
    }

    /// How many of the projects, the last ones, are about to be deleted. By default one.
    pub fn deleted_projects(mut self, count: usize) -> Self {
        self.size.deleted = count;
        self
    }

    /// How many firewalls each project has.
    pub fn firewalls(mut self, count: usize) -> Self {
        self.size.firewalls = count;
        self
    }

    /// How many firewalls one project has, given by its index.
    pub fn firewalls_in(mut self, project: usize, count: usize) -> Self {
        self.size.firewalls_in.insert(project, count);
        self
    }

    /// How many instances each project has, over all zones.
    pub fn instances(mut self, count: usize) -> Self {
        self.size.instances = count;
        self
    }

    /// How many instances one project has, given by its index.
    pub fn instances_in(mut self, project: usize, count: usize) -> Self {
        self.size.instances_in.insert(project, count);
        self
    }

    /// How many zones each project has.
    pub fn zones(mut self, count: usize) -> Self {
        self.size.zones = count;
        self
    }

    /// How many items a page of a list has at most, whatever the client asks for.
    pub fn page_size(mut self, size: usize) -> Self {
        self.page_size = size;
        self
    }

    /// How long a token is good. A JWT that a client signs for itself lives as long as the client says.
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
    pub async fn start(self) -> Result<Gcpsim> {
        ensure!(
            self.listen.ip().is_loopback(),
            "the simulated cloud listens on loopback addresses only (127.0.0.1, [::1]), not on {}: \
             its secrets are public",
            self.listen
        );
        ensure!(self.page_size > 0, "a page needs room for at least one item");
        let most = zone::NAMES.len();
        ensure!((1..=most).contains(&self.size.zones), "there are 1 to {most} zones, not {}", self.size.zones);
        let key = SigningKey::registered(self.seed).context("the key of the simulated account is damaged")?;
        let wrong_key = SigningKey::unregistered(self.seed).context("the key of no account is damaged")?;
        let listener =
            TcpListener::bind(self.listen).await.with_context(|| format!("cannot listen on {}", self.listen))?;
        let address = listener.local_addr().context("the listener has no address")?;
        let simulation = Arc::new(Simulation {
            url: format!("http://{address}"),
            estate: Estate::new(self.seed, self.size),
            page_size: self.page_size,
            token_lifetime: self.token_lifetime,
            identities: Identities::new(self.seed, key, wrong_key),
            tokens: Shared::default(),
            gate: Shared::new(Gate::new(self.faults)),
            statistics: Shared::default(),
            callers: Shared::new(BTreeSet::new()),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            // An error means that the handle is gone, which is a reason to stop as well.
            let _ = stopped.await;
        };
        let server = tokio::spawn(server::serve(listener, simulation.clone(), stopped));
        Ok(Gcpsim { simulation, stop, server })
    }
}
