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
use crate::news::News;
use crate::outcome::{self, Known};
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
    /// When findings that the last complete version had are left out.
    news: Option<News>,
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
            about: About { only_new: settings.only_new, ..About::of(plan, spec) },
            news: settings.only_new.then(|| News::new(bus, &plan.audit, &plan.version)),
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

    /// What is left out, for people.
    async fn filter(&mut self) -> Result<Option<String>, ExclusiveError> {
        let news = match &mut self.news {
            Some(news) => Some(news.in_words().await?),
            None => None,
        };
        let parts: Vec<String> = self.settings.filter().into_iter().chain(news).collect();
        Ok((!parts.is_empty()).then(|| parts.join("; ")))
    }

    fn nothing(&self, filter: Option<String>) -> Delivery {
        let place = match (self.left_out, filter) {
            (0, _) | (_, None) => "no message: there are no findings".to_owned(),
            (left_out, Some(filter)) => {
                let all = counted(left_out, "finding", "findings");
                format!("no message: all of {all} are left out: {filter}")
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
        // All findings of the version are what the next one is held against, not only those that pass the filters.
        let is_new = match &mut self.news {
            Some(news) => news.is_new(&finding).await?,
            None => true,
        };
        if !is_new || !self.settings.wants(&finding) {
            self.left_out += 1;
            return Ok(());
        }
        self.gathering.add(&finding, &origin, &message.payload).map_err(on_disk)
    }

    async fn finish(&mut self, _revision: u64) -> Result<Delivery, ExclusiveError> {
        if let Some(news) = &self.news {
            news.keep().await?;
        }
        let filter = self.filter().await?;
        if self.gathering.is_empty() && !self.settings.always {
            return Ok(self.nothing(filter));
        }
        // A second delivery must be known as one: what its key is made of has to be known each time.
        let known = outcome::of(&self.bus, &self.about.audit, &self.about.version).await;
        let Known { outcome, started } = known.map_err(|error| ExclusiveError::Transient(error.to_string()))?;
        let about = About { filter, started, ..self.about.clone() };
        let gathering = std::mem::replace(&mut self.gathering, Gathering::new().map_err(on_disk)?);
        let ended = tokio::task::spawn_blocking(move || gathering.end(about, outcome)).await;
        let digest = ended.map_err(|error| ExclusiveError::Transient(error.to_string()))?.map_err(on_disk)?;
        let digest = Arc::new(digest);
        // A try from the beginning would tell those again who have been told: it ends here, well or not.
        with_patience(&mut *self.alert, &digest, self.settings.patience()).await.map_err(ExclusiveError::Permanent)?;
        Ok(Delivery { documents: digest.len(), place: self.alert.place() })
    }
}
