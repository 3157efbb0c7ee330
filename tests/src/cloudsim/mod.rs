//! A simulated Azure: a real HTTP server on a loopback address that behaves as Entra ID's token endpoint,
//! as Azure Resource Manager and as the data plane of Key Vault, with an estate of any size, faults on
//! demand, and the truth to compare with.
//!
//! ```
//! # async fn example() -> anyhow::Result<()> {
//! use tests::cloudsim::{Ailment, Cloudsim, Kind};
//!
//! let cloud = Cloudsim::builder()
//!     .subscriptions(4)
//!     .nsgs(250)
//!     .machines(30)
//!     .page_size(100)
//!     .faults(|faults| {
//!         faults.forbid(1);
//!         faults.throttle_every = 10;
//!         faults.deny(1, Kind::Disk);
//!         faults.ailing.insert(Kind::InstanceView, (10, Ailment::Gone));
//!     })
//!     .start()
//!     .await?;
//! // ... point a collector at cloud.url() ...
//! assert_eq!(cloud.readable().nsgs, 750);
//! assert_eq!(cloud.readable_inventory().of(Kind::InstanceView), 3 * 27);
//! for machine in cloud.estate().items(2, Kind::VirtualMachine) {
//!     // ... compare it with what was collected ...
//! }
//! cloud.faults(|faults| faults.throttle_every = 0);
//! # Ok(())
//! # }
//! ```

mod activity_log;
mod arm;
mod arm_error;
mod arm_request;
mod assertion;
mod builder;
mod clock;
mod configuration;
mod estate;
mod faults;
mod identity;
mod kind;
mod listing;
mod login;
mod network_security_group;
pub(crate) mod pages;
mod providers;
pub(crate) mod random;
mod rate;
mod rule_book;
mod security_rule;
mod server;
pub(crate) mod simulation;
mod statistics;
mod subscription;
mod template;
mod tls;
mod tokens;
mod vault;

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use activity_log::LateEvent;
pub use builder::Builder;
pub use estate::{Counts, Estate, Inventory};
pub use faults::{Absence, Ailment, Faults, Oddity, Times, Trouble};
pub use kind::Kind;
pub use network_security_group::NetworkSecurityGroup;
pub use security_rule::SecurityRule;
pub use statistics::Statistics;
pub use subscription::{Subscription, SubscriptionState};

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

    /// The server's address, `http://127.0.0.1:PORT` or `https://localhost:PORT`: the endpoint of the login and
    /// of Resource Manager. Vaults are folders of it.
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
        self.configuration_of(&configuration::DEFAULT)
    }

    /// As [`Cloudsim::configuration`], with the plugins of these classes: `AzCloud`, `AzVM`, `AzDisk`, `AzKV`,
    /// `AzMonitor`, `AzPostgres`, `AzSQL`, `AzStorageAccount`, `AzWebApp`. The key of `AzVM` is `myazvm`.
    pub fn configuration_of(&self, classes: &[&str]) -> String {
        configuration::configuration(&self.simulation, classes)
    }

    /// All that there is in the cloud, thing by thing.
    pub fn estate(&self) -> &Estate {
        &self.simulation.estate
    }

    /// How much there is in all subscriptions.
    pub fn truth(&self) -> Counts {
        self.estate().counts_where(|_| true)
    }

    /// How much there is in the subscriptions that are not forbidden for good or deleted, as things stand now;
    /// without groups and rules where those are denied.
    pub fn readable(&self) -> Counts {
        let faults = self.simulation.gate.lock().faults().clone();
        let estate = self.estate();
        let is_readable = |subscription: usize| {
            !faults.forbids(subscription) && estate.state(subscription) != SubscriptionState::Deleted
        };
        let groups = estate.counts_where(|subscription| {
            is_readable(subscription) && !faults.hides(subscription, Kind::NetworkSecurityGroup)
        });
        Counts { subscriptions: estate.counts_where(is_readable).subscriptions, ..groups }
    }

    /// How much there is of every kind in all subscriptions.
    pub fn inventory(&self) -> Inventory {
        self.estate().inventory_where(|_, _| true)
    }

    /// How much there is of every kind that can be read, as things stand now: without subscriptions that are
    /// forbidden or deleted, kinds that are denied and providers that are not there, and without what an
    /// [`Ailment`] keeps from being read. What is odd counts.
    pub fn readable_inventory(&self) -> Inventory {
        let faults = self.simulation.gate.lock().faults().clone();
        let estate = self.estate();
        let mut inventory = Inventory::default();
        for kind in Kind::ALL {
            for subscription in 0..self.truth().subscriptions {
                inventory.add(kind, estate.readable(subscription, kind, &faults).count());
            }
        }
        inventory
    }

    /// The numbers of the things of a kind that can be read in a subscription, as in
    /// [`Cloudsim::readable_inventory`]; what they are says [`Estate::item`].
    pub fn readable_numbers(&self, subscription: usize, kind: Kind) -> Vec<usize> {
        let faults = self.simulation.gate.lock().faults().clone();
        self.estate().readable(subscription, kind, &faults).collect()
    }

    /// An event of the Activity Log of a subscription comes in, whenever it happened.
    pub fn arrive(&self, subscription: usize, event: LateEvent) {
        self.simulation.activity.lock().late.entry(subscription).or_default().push(event);
    }

    /// All events of the Activity Log of a subscription.
    pub fn activity(&self, subscription: usize) -> Vec<serde_json::Value> {
        self.simulation.activity.lock().all(&self.simulation, subscription)
    }

    /// The certificate, in PEM, that a client must trust, if the server speaks https.
    pub fn ca_pem(&self) -> Option<&str> {
        self.simulation.ca_pem.as_deref()
    }

    /// What `IDENTITY_ENDPOINT` is on an App Service; a machine's endpoint is
    /// `/metadata/identity/oauth2/token` at [`Cloudsim::url`].
    pub fn identity_endpoint(&self) -> String {
        format!("{}{}", self.url(), identity::APP_SERVICE)
    }

    /// What `IDENTITY_HEADER` is on an App Service.
    pub fn identity_header(&self) -> &str {
        &self.simulation.credentials.identity_header
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
