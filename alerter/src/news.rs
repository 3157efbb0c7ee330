//! What is new: findings that the last complete version of the audit did not have.

use std::sync::Arc;

use proto::bus::{BusError, SharedBus};
use proto::exclusive::ExclusiveError;
use proto::findings::{self, Known};
use proto::identity::Id;
use proto::subject::{Key, Version};

use crate::event::Finding;
use crate::readable::counted;

/// Tells what is new in an audit's version, and keeps its findings for the versions after it.
#[derive(Debug)]
pub struct News {
    bus: SharedBus,
    audit: Key,
    version: Version,
    /// All findings of this version.
    found: Vec<Id>,
    last: Option<Last>,
    /// How many of them the last complete version had.
    known: u64,
}

/// What is known of the last complete version.
#[derive(Debug)]
enum Last {
    Had(Known),
    None,
    Damaged,
}

impl News {
    /// Of an audit's version.
    #[must_use]
    pub fn new(bus: &SharedBus, audit: &Key, version: &Version) -> Self {
        let (audit, version) = (audit.clone(), version.clone());
        Self { bus: Arc::clone(bus), audit, version, found: Vec::new(), last: None, known: 0 }
    }

    /// Takes a finding of this version; false when the last complete one had it.
    ///
    /// # Errors
    /// When the bus cannot be asked now.
    pub async fn is_new(&mut self, finding: &Finding) -> Result<bool, ExclusiveError> {
        let id = Id::parse(&finding.finding_id).unwrap_or_else(|| Id::digest(finding.finding_id.as_bytes()));
        self.found.push(id);
        let is_known = matches!(self.last().await?, Last::Had(known) if known.contains(id));
        self.known += u64::from(is_known);
        Ok(!is_known)
    }

    async fn last(&mut self) -> Result<&Last, ExclusiveError> {
        let last = match self.last.take() {
            Some(last) => last,
            None => match findings::last_complete(&*self.bus, &self.audit).await {
                Ok(Some(known)) => Last::Had(known),
                Ok(None) => Last::None,
                Err(error) if error.is_transient() => return Err(later(&error)),
                Err(error) => {
                    tracing::warn!(audit = %self.audit, %error, "everything is told of, as if it were new");
                    Last::Damaged
                }
            },
        };
        Ok(self.last.insert(last))
    }

    /// Puts the findings of this version aside: if it ends complete, the next one is held against them.
    ///
    /// # Errors
    /// When the bus cannot be asked now.
    pub async fn keep(&self) -> Result<(), ExclusiveError> {
        findings::put(&*self.bus, &self.audit, &self.version, &self.found).await.map_err(|error| later(&error))
    }

    /// What new means here, for people.
    ///
    /// # Errors
    /// When the bus cannot be asked now.
    pub async fn in_words(&mut self) -> Result<String, ExclusiveError> {
        let known = self.known;
        Ok(match self.last().await? {
            Last::Had(last) => {
                let since = format!("only what is new since the complete version {}", last.version);
                match known {
                    0 => since,
                    known => format!("{since} ({} that it had are left out)", counted(known, "finding", "findings")),
                }
            }
            Last::None => "only what is new: everything, as no version before has ended complete".to_owned(),
            Last::Damaged => {
                "only what is new: everything, as what is known of the last complete version is damaged".to_owned()
            }
        })
    }
}

fn later(error: &BusError) -> ExclusiveError {
    ExclusiveError::Transient(error.to_string())
}
