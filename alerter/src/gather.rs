//! What all alerts have in common: a version's events, each once, filtered, delivered when there is something to
//! tell, and tried again for as long as their patience lasts.

use std::sync::Arc;

use async_trait::async_trait;
use proto::bus::{Message, SharedBus};
use proto::exclusive::{Delivery, Exclusive, ExclusiveError};
use proto::identity::IdSet;
use proto::plan::{Plan, PluginSpec};
use proto::status::{self, DeadLetter};
use proto::subject::{self, Key};

use crate::alert::{Alert, with_patience};
use crate::digest::{About, Gathering};
use crate::event::Finding;
use crate::outcome;
use crate::readable::counted;
use crate::settings::Settings;

/// An alert of an audit's version.
pub struct Gather {
    bus: SharedBus,
    spec: PluginSpec,
    about: About,
    settings: Settings,
    alert: Box<dyn Alert>,
    gathering: Gathering,
    seen: IdSet,
    left_out: u64,
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather").field("plugin", &self.spec.key).field("place", &self.alert.place()).finish()
    }
}

impl Gather {
    /// Gathers for an alert.
    ///
    /// # Errors
    /// When there can be no temporary file.
    pub fn new(
        bus: &SharedBus,
        plan: &Plan,
        spec: &PluginSpec,
        settings: Settings,
        alert: Box<dyn Alert>,
    ) -> Result<Self, String> {
        Ok(Self {
            bus: Arc::clone(bus),
            spec: spec.clone(),
            about: About::new(plan, spec, settings.filter()),
            settings,
            alert,
            gathering: Gathering::new().map_err(|error| format!("cannot make a temporary file: {error}"))?,
            seen: IdSet::default(),
            left_out: 0,
        })
    }

    async fn bury(&self, message: &Message, origin: &Key, reason: &str) -> Result<(), ExclusiveError> {
        let reason = format!("of {origin}: {reason}");
        let letter = DeadLetter::new(&message.subject, Some(message.seq), reason, 1, &message.payload);
        let (audit, version) = (&self.about.audit, &self.about.version);
        status::bury(&*self.bus, audit, version, self.spec.role, &self.spec.key, &letter)
            .await
            .map_err(|error| ExclusiveError::Transient(error.to_string()))
    }

    fn nothing(&self) -> Delivery {
        let place = match self.left_out {
            0 => "no message: there are no findings".to_owned(),
            left_out => {
                format!("no message: the filters leave out all of {}", counted(left_out, "finding", "findings"))
            }
        };
        Delivery { documents: 0, place }
    }
}

fn on_disk(error: std::io::Error) -> ExclusiveError {
    ExclusiveError::Transient(format!("cannot write a temporary file: {error}"))
}

#[async_trait]
impl Exclusive for Gather {
    async fn accept(&mut self, message: &Message) -> Result<(), ExclusiveError> {
        let Some((_, _, origin)) = subject::parse(&message.subject) else { return Ok(()) };
        let finding = match Finding::read(&message.payload, &origin) {
            Ok(finding) => finding,
            Err(error) => return self.bury(message, &origin, &format!("not an event: {error}")).await,
        };
        if !self.seen.insert(finding.id) {
            return Ok(());
        }
        if !self.settings.wants(&finding) {
            self.left_out += 1;
            return Ok(());
        }
        self.gathering.add(&finding, &origin, &message.payload).map_err(on_disk)
    }

    async fn finish(&mut self, _revision: u64) -> Result<Delivery, ExclusiveError> {
        if self.gathering.is_empty() && !self.settings.always {
            return Ok(self.nothing());
        }
        let about = self.about.clone();
        let outcome = outcome::of(&self.bus, &about.audit, &about.version, &about.clouds).await;
        let gathering = std::mem::replace(&mut self.gathering, Gathering::new().map_err(on_disk)?);
        let ended = tokio::task::spawn_blocking(move || gathering.end(about, outcome)).await;
        let digest = ended.map_err(|error| ExclusiveError::Transient(error.to_string()))?.map_err(on_disk)?;
        let digest = Arc::new(digest);
        // A try from the beginning would tell those again who have been told: it ends here, well or not.
        with_patience(&mut *self.alert, &digest, self.settings.patience()).await.map_err(ExclusiveError::Permanent)?;
        Ok(Delivery { documents: digest.len(), place: self.alert.place() })
    }
}
