//! What changed between two runs of an audit: findings and resources that are new, gone, changed and still there.
//!
//! *Gone* is never said of what the newer run could not read, nor *new* of what the older one could not: the coverage
//! of both decides. Nothing is held in memory but a few pages: both sides go through a database of their own on the
//! disk, which puts them in one order.

mod coverage;
mod fields;
mod findings;
mod resources;
mod scratch;

use std::path::Path;

use proto::bus::SharedBus;
use serde::Serialize;

pub use coverage::{Unread, newly_unread};
pub use fields::FieldChange;
pub use scratch::{Counts, Scratch};

use crate::summary::AuditReport;
use coverage::Known;

/// Why two runs cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The database on the disk.
    #[error("cannot compare on the disk: {0}; is the folder for temporary files (TMPDIR) full?")]
    Scratch(rusqlite::Error),
    /// The store.
    #[error("cannot read the inventory {path}: {error}")]
    Store {
        /// The file.
        path: String,
        /// What SQLite says.
        error: rusqlite::Error,
    },
    /// The broker.
    #[error("{0}")]
    Bus(#[from] proto::bus::BusError),
}

/// What became of something between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The newer run has it, and the older one had not.
    New,
    /// The older run had it, and the newer one has not, though it looked.
    Gone,
    /// Both have it, and it is not the same.
    Changed,
    /// The older run had it, and the newer one could not look.
    NotRead,
    /// The newer run has it, and the older one could not look.
    NotKnownBefore,
}

impl Change {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 5] = [Self::New, Self::Gone, Self::Changed, Self::NotRead, Self::NotKnownBefore];

    /// The words for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Gone => "gone",
            Self::Changed => "changed",
            Self::NotRead => "not read",
            Self::NotKnownBefore => "not known before",
        }
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Findings, by their identity across runs.
    Findings,
    /// Resources, by plugin, type and key.
    Resources,
}

/// A finding or resource that is not the same in both runs. Its JSON is a contract: see the README.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Item {
    /// What became of it.
    pub change: Change,
    /// The finding's id across runs, or the resource's key.
    pub id: String,
    /// The cloud plugin that it comes from.
    pub plugin: String,
    /// The type of the resource.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// The subscription, project or account.
    #[serde(default)]
    pub scope: Option<String>,
    /// The resource, as the cloud calls it.
    #[serde(default)]
    pub reference: Option<String>,
    /// The rule: of a finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The event plugin: of a finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Of a finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// What is wrong: of a finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The fields that differ, a bounded number: of a resource that changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// How many more fields differ.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_fields: u64,
    /// Why it is not known: of what was not read, or not known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Two runs of an audit, by their reports.
#[derive(Debug)]
pub struct Sides<'a> {
    /// The older one.
    pub old: &'a AuditReport,
    /// The newer one.
    pub new: &'a AuditReport,
}

impl Sides<'_> {
    fn known(&self) -> (Known<'_>, Known<'_>) {
        (Known::of(self.old), Known::of(self.new))
    }
}

/// Compares the findings that a store keeps; an `Ok(Err)` says why it cannot.
///
/// # Errors
/// When the store or the disk cannot be used.
pub fn findings_of_store(sides: &Sides<'_>, path: &Path) -> Result<Result<Scratch, String>, DiffError> {
    findings::of_store(sides, path)
}

/// Compares the findings that a broker keeps; an `Ok(Err)` says why it cannot.
///
/// # Errors
/// When the broker or the disk cannot be used.
pub async fn findings_of_broker(sides: &Sides<'_>, bus: &SharedBus) -> Result<Result<Scratch, String>, DiffError> {
    findings::of_broker(sides, bus).await
}

/// Compares the resources that a store keeps, without the fields that begin with one of `ignored`; an `Ok(Err)` says
/// why it cannot.
///
/// # Errors
/// When the store or the disk cannot be used.
pub fn resources_of_store(
    sides: &Sides<'_>,
    path: &Path,
    ignored: &[String],
) -> Result<Result<Scratch, String>, DiffError> {
    resources::of_store(sides, path, ignored)
}
