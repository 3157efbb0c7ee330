//! What a store is. Everything that all stores need, batches, retries, dead letters and acknowledgements, is the
//! `batch` layer's: a store's own file holds only what is that store's own.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proto::subject::{Key, Version};

/// A record or event on its way into a store.
#[derive(Debug, Clone)]
pub struct Document {
    /// `com.id`: the same resource of the same version has the same id, however often it comes. Stores replace by it.
    pub id: String,
    /// The type: `ext.record_type`, or that of `com`; empty when there is neither.
    pub record_type: String,
    /// The audit that it belongs to.
    pub audit: Key,
    /// The run that it belongs to.
    pub version: Version,
    /// Its JSON: one object on one line, with the target's fields in `com`.
    pub body: Bytes,
}

/// How much a store takes at once.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Most documents in a batch.
    pub documents: usize,
    /// Most bytes of documents in a batch. A document that is larger comes alone.
    pub bytes: usize,
    /// How long documents wait for a batch to fill.
    pub linger: Duration,
    /// Batches on their way at once.
    pub in_flight: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { documents: 1_000, bytes: 4 * 1024 * 1024, linger: Duration::from_millis(500), in_flight: 4 }
    }
}

/// What became of a batch that the store took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Documents that the store refuses for good, by their place in the batch, each with the store's own words. All
    /// others are stored.
    pub refused: Vec<(usize, String)>,
    /// Documents that the store could not take now and may take later, by their place in the batch.
    pub again: Vec<(usize, String)>,
}

/// Why a store did not take a batch, or cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It may go well later: the network, a server that is busy or restarting.
    #[error("{reason}")]
    Transient {
        /// What failed, on what, why.
        reason: String,
        /// How long the server asks to wait.
        wait: Option<Duration>,
    },
    /// No other try can help: a wrong password, no such index.
    #[error("{0}")]
    Permanent(String),
    /// The request is too large for the server: the batch is split, and a single document refused.
    #[error("{0}")]
    TooLarge(String),
}

/// Which versions of an audit a store keeps. See [`Pruning::goes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruning {
    /// The audit.
    pub audit: Key,
    /// Only versions older than this one go: what runs now, or was never heard of, stays.
    pub before: Version,
    /// The versions to keep, whatever their age; the last complete one is always among them.
    pub keep: Vec<Version>,
    /// Documents of permanent lifetime (activity logs) that are older than so many days go, too.
    pub permanent_days: Option<u32>,
}

impl Pruning {
    /// Whether the documents of a version of the audit go: those of permanent lifetime (`com.lifetime` is `permanent`)
    /// never by their version.
    #[must_use]
    pub fn goes(&self, version: &Version) -> bool {
        *version < self.before && !self.keep.contains(version)
    }
}

/// A store that several workers write to at once, for any number of versions.
#[async_trait]
pub trait Store: Send + Sync {
    /// How much it takes at once.
    fn limits(&self) -> BatchLimits;

    /// Whether it can be reached and used as configured. Makes what has to be there before the first document: an
    /// index template, a table. May be called again.
    ///
    /// # Errors
    /// In a plain sentence: unreachable, refused, wrong index, wrong password.
    async fn connect(&self) -> Result<(), StoreError>;

    /// Stores documents, replacing those of the same id. Within a batch ids are distinct. When it returns, they are stored as durably as the store
    /// promises.
    ///
    /// # Errors
    /// When nothing is known to be stored; the same documents may come again.
    async fn write(&self, documents: &[Document]) -> Result<Written, StoreError>;

    /// Deletes what is not to be kept of an audit; how many documents went.
    ///
    /// # Errors
    /// When it could not; it is tried again after the next version.
    async fn prune(&self, pruning: &Pruning) -> Result<u64, StoreError>;

    /// Where the documents are, in words for people.
    fn place(&self) -> String;
}
