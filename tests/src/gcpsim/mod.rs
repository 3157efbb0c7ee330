//! A simulated Google Cloud: a real HTTP server on a loopback address that behaves as the token endpoint,
//! the metadata server, the Resource Manager, Compute Engine and the IAM credentials service, all at one
//! root; with an estate of any size, faults on demand, and the truth to compare with.
//!
//! ```
//! # async fn example() -> anyhow::Result<()> {
//! use tests::gcpsim::{Gcpsim, Part};
//!
//! let cloud = Gcpsim::builder()
//!     .projects(4)
//!     .firewalls(250)
//!     .page_size(100)
//!     .faults(|faults| {
//!         faults.deny_part(1, Part::Firewalls);
//!         faults.throttle_every = 10;
//!     })
//!     .start()
//!     .await?;
//! std::fs::write("key.json", cloud.key_file())?;
//! // ... point a collector at cloud.url() with this key file ...
//! assert_eq!(cloud.truth().firewalls, 750);
//! assert_eq!(cloud.readable().firewalls, 500);
//! cloud.faults(|faults| faults.throttle_every = 0);
//! # Ok(())
//! # }
//! ```

mod access;
mod builder;
mod configuration;
mod estate;
mod faults;
mod filter;
mod firewall;
mod google_error;
mod iam_credentials;
mod identities;
mod instance;
mod jwt;
mod lists;
mod metadata_server;
mod project;
mod request;
mod scopes;
mod server;
mod signing_key;
mod simulation;
mod statistics;
mod token_endpoint;
mod tokens;
mod zone;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use crate::cloudsim::Times;
pub use builder::Builder;
pub use estate::{Counts, Estate};
pub use faults::{Faults, Part, Place, Throttling, Trouble};
pub use project::Project;
pub use statistics::Statistics;

use simulation::Simulation;

/// A running simulated Google Cloud. It stops when it is dropped.
pub struct Gcpsim {
    simulation: Arc<Simulation>,
    // Dropping this is the sign to stop.
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<()>>,
}

impl Gcpsim {
    /// A small cloud without faults, to be changed and started.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The server's address, `http://127.0.0.1:PORT`: the root of all services.
    pub fn url(&self) -> &str {
        &self.simulation.url
    }

    /// The address of the metadata server as clients take it, `127.0.0.1:PORT`.
    pub fn metadata_host(&self) -> &str {
        self.url().strip_prefix("http://").unwrap_or(self.url())
    }

    /// The service account's key file.
    pub fn key_file(&self) -> String {
        let identities = &self.simulation.identities;
        format!("{:#}\n", identities.key_file(self.url(), &identities.key))
    }

    /// The same with a key that the account does not have: "Invalid JWT Signature."
    pub fn wrong_key_file(&self) -> String {
        let identities = &self.simulation.identities;
        format!("{:#}\n", identities.key_file(self.url(), &identities.wrong_key))
    }

    /// The file that `gcloud auth application-default login` leaves behind: a person's refresh token.
    pub fn user_file(&self) -> String {
        format!("{:#}\n", self.simulation.identities.user_file(self.url()))
    }

    /// The service account that has the key file.
    pub fn service_account(&self) -> &str {
        &self.simulation.identities.service_account
    }

    /// The account of the machine, whose tokens the metadata server has.
    pub fn machine_account(&self) -> &str {
        &self.simulation.identities.machine_account
    }

    /// The person whom the refresh token stands for.
    pub fn user(&self) -> &str {
        &self.simulation.identities.user.email
    }

    /// The accounts that all others may impersonate, and use as delegates.
    pub fn impersonable(&self) -> &[String] {
        &self.simulation.identities.impersonable
    }

    /// The accounts whose credentials a service has found good.
    pub fn callers(&self) -> BTreeSet<String> {
        self.simulation.callers.lock().clone()
    }

    /// Whatever nobody should ever find in a log: the private key, line by line, the refresh token, the
    /// client secret and all access tokens issued so far.
    pub fn secrets(&self) -> Vec<String> {
        let identities = &self.simulation.identities;
        let mut secrets = self.simulation.tokens.lock().all();
        secrets.extend(identities.key.pem().lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
        secrets.extend([identities.user.refresh_token.clone(), identities.user.client_secret.clone()]);
        secrets
    }

    /// A Cloudmarker configuration (YAML) that audits this cloud with the key file at this path.
    pub fn configuration(&self, key_file: &Path) -> String {
        configuration::configuration(&self.simulation, key_file)
    }

    /// All that there is in the cloud, thing by thing, without the oddities that the faults add.
    pub fn estate(&self) -> &Estate {
        &self.simulation.estate
    }

    /// How much there is in all projects.
    pub fn truth(&self) -> Counts {
        self.estate().counts()
    }

    /// How much of it can be read, as things stand now: without the places that have a trouble for good
    /// and without the instances in zones that do not answer.
    pub fn readable(&self) -> Counts {
        let faults = self.simulation.gate.lock().faults().clone();
        (0..self.estate().projects()).fold(Counts::default(), |sum, project| {
            let mut counts = self.estate().counts_of(project);
            if faults.is_shut(project, Part::Firewalls) {
                (counts.firewalls, counts.rules) = (0, 0);
            }
            counts.instances = if faults.is_shut(project, Part::Instances) {
                0
            } else {
                self.instance_places(project, &faults).count()
            };
            sum + counts
        })
    }

    /// The projects as `GET /v1/projects` lists them now, odd ones among them.
    pub fn listed_projects(&self) -> Vec<Value> {
        let gate = self.simulation.gate.lock();
        (0..self.estate().projects())
            .map(|index| lists::listed_project(&self.simulation, gate.faults(), index))
            .collect()
    }

    /// The firewalls of a project as they are listed now, odd ones among them.
    pub fn listed_firewalls(&self, project: usize) -> Vec<Value> {
        let gate = self.simulation.gate.lock();
        let site = self.estate().project(project);
        (0..self.estate().firewall_count(project))
            .map(|index| lists::listed_firewall(&self.simulation, gate.faults(), &site, project, index))
            .collect()
    }

    /// The instances of a project as they are listed now, odd ones among them; those in zones that do
    /// not answer are not.
    pub fn listed_instances(&self, project: usize) -> Vec<Value> {
        let faults = self.simulation.gate.lock().faults().clone();
        let site = self.estate().project(project);
        self.instance_places(project, &faults)
            .map(|(zone, index)| lists::listed_instance(&self.simulation, &faults, &site, project, zone, index))
            .collect()
    }

    /// The zones and numbers of a project's instances that can be reached.
    fn instance_places(&self, project: usize, faults: &Faults) -> impl Iterator<Item = (usize, usize)> {
        let estate = self.estate();
        estate
            .zones()
            .iter()
            .enumerate()
            .filter(|(_, name)| !faults.unreachable_zones.contains(**name))
            .flat_map(move |(zone, _)| estate.instances_in(project, zone).map(move |index| (zone, index)))
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

    /// Ends all tokens issued so far. A JWT that a client signed itself cannot be taken back.
    pub fn expire_tokens(&self) {
        self.simulation.tokens.lock().expire();
    }

    /// Stops taking requests and waits until the answers under way are out.
    pub async fn stop(self) -> Result<()> {
        drop(self.stop);
        self.server.await.context("the simulated cloud broke down")?
    }
}
