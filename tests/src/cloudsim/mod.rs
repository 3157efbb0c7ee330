//! A simulated Azure: a real HTTP server on a loopback address that behaves as Entra ID's token endpoint
//! and as Azure Resource Manager, with an estate of any size, faults on demand, and the truth to compare
//! with.
//!
//! ```
//! # async fn example() -> anyhow::Result<()> {
//! use tests::cloudsim::Cloudsim;
//!
//! let cloud = Cloudsim::builder()
//!     .subscriptions(4)
//!     .nsgs(250)
//!     .page_size(100)
//!     .faults(|faults| {
//!         faults.forbid(1);
//!         faults.throttle_every = 10;
//!     })
//!     .start()
//!     .await?;
//! // ... point a collector at cloud.url() ...
//! assert_eq!(cloud.readable().nsgs, 750);
//! cloud.faults(|faults| faults.throttle_every = 0);
//! # Ok(())
//! # }
//! ```

mod arm;
mod arm_error;
mod arm_request;
mod builder;
mod clock;
mod configuration;
mod estate;
mod faults;
mod login;
mod network_security_group;
pub(crate) mod pages;
pub(crate) mod random;
mod rule_book;
mod security_rule;
mod server;
pub(crate) mod simulation;
mod statistics;
mod subscription;
mod tokens;

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use builder::Builder;
pub use estate::{Counts, Estate};
pub use faults::{Faults, Times, Trouble};
pub use network_security_group::NetworkSecurityGroup;
pub use security_rule::SecurityRule;
pub use statistics::Statistics;
pub use subscription::Subscription;

use simulation::Simulation;

/// A running simulated cloud. It stops when it is dropped.
pub struct Cloudsim {
    simulation: Arc<Simulation>,
    // Dropping this is the sign to stop.
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<()>>,
}

impl Cloudsim {
    /// A small cloud without faults, to be changed and started.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The server's address, `http://127.0.0.1:PORT`: the endpoint of the login and of Resource Manager.
    pub fn url(&self) -> &str {
        &self.simulation.url
    }

    /// The tenant to sign in to.
    pub fn tenant(&self) -> &str {
        self.simulation.estate.tenant()
    }

    /// The application to sign in as.
    pub fn client_id(&self) -> &str {
        &self.simulation.client_id
    }

    /// The secret to sign in with.
    pub fn client_secret(&self) -> &str {
        &self.simulation.client_secret
    }

    /// A Cloudmarker configuration (YAML) that audits this cloud.
    pub fn configuration(&self) -> String {
        configuration::configuration(&self.simulation)
    }

    /// All that there is in the cloud, thing by thing.
    pub fn estate(&self) -> &Estate {
        &self.simulation.estate
    }

    /// How much there is in all subscriptions.
    pub fn truth(&self) -> Counts {
        self.estate().counts_where(|_| true)
    }

    /// How much there is in the subscriptions that are not forbidden for good, as things stand now.
    pub fn readable(&self) -> Counts {
        let gate = self.simulation.gate.lock();
        self.estate().counts_where(|subscription| !gate.faults().forbids(subscription))
    }

    /// What was asked and answered so far.
    pub fn statistics(&self) -> Statistics {
        *self.simulation.statistics.lock()
    }

    /// Changes what goes wrong from now on; requests are counted anew for the faults that come every
    /// so many requests.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        self.simulation.gate.lock().change(change);
    }

    /// Ends all tokens issued so far.
    pub fn expire_tokens(&self) {
        self.simulation.expire_tokens();
    }

    /// Stops taking requests and waits until the answers under way are out.
    pub async fn stop(self) -> Result<()> {
        drop(self.stop);
        self.server.await.context("the simulated cloud broke down")?
    }
}
