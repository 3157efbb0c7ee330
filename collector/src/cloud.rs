//! What a cloud plugin is: it works on units, one at a time, and says what it read and what not.

use std::time::Duration;

use async_trait::async_trait;
use proto::bus::BusError;
use proto::checkpoint::Reached;
use proto::coverage::{Coverage, State};
use proto::unit::Unit;

use crate::emit::Emitter;

/// A cloud plugin, built of its parameters. It is shared by all units of a version.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Works on one unit: reads what it names, emits the records, and returns the units that follow from it.
    ///
    /// The root unit ([`proto::unit::ROOT`]) comes first. A unit that is done again must emit the same records and
    /// return the same children as far as the cloud still answers the same.
    ///
    /// # Errors
    /// [`WorkError`] says what is to become of the unit.
    async fn work(&self, unit: &Unit, out: &mut Emitter) -> Result<Done, WorkError>;

    /// What it means that a unit is not read: its own coverage, as the worker has it, and that of all that would have
    /// followed from it.
    fn unread(&self, _unit: &Unit, own: Coverage) -> Vec<Coverage> {
        vec![own]
    }

    /// How long a unit may wait in all, because the cloud throttles or because something fails in passing.
    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// How long a unit may wait in all unless the plugin's parameters say otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// What has become of a unit.
#[derive(Debug, Default)]
pub struct Done {
    /// The units that follow: made with [`Unit::child`].
    pub children: Vec<Unit>,
    /// What was read and what was not.
    pub coverage: Vec<Coverage>,
    /// How far what grows without end was read.
    pub reached: Vec<Reached>,
    /// The cloud asks to wait, though a part was done: what is left is among the children.
    pub pause: Option<Pause>,
}

/// A wait that the cloud asks for.
#[derive(Debug, Clone)]
pub struct Pause {
    /// How long.
    pub wait: Duration,
    /// What the cloud said.
    pub reason: String,
}

/// Why a unit was not done, and what is to become of it.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The cloud asks to wait: a successor of the unit comes after the wait, and the scope's other units wait, too.
    #[error("throttled: {reason}")]
    Throttled {
        /// How long.
        wait: Duration,
        /// What the cloud said.
        reason: String,
    },
    /// It may go well later (the network, a 5xx answer): a successor comes after a growing wait, while patience lasts.
    #[error("{reason}")]
    Transient {
        /// What failed, on what, why.
        reason: String,
    },
    /// The cloud refused a page token: the list begins again with this unit, at most three times.
    #[error("the page token was refused: {reason}")]
    PageRefused {
        /// Page 1 of the list; its `restart` is set by the worker.
        first: Box<Unit>,
        /// What the cloud said.
        reason: String,
    },
    /// It cannot be read: this is its coverage.
    #[error("{}: {reason}", state.as_str())]
    NotRead {
        /// Denied, not enabled, failed, skipped.
        state: State,
        /// Why, and what to do.
        reason: String,
    },
    /// The records cannot be published: the unit is given back.
    #[error("cannot publish: {0}")]
    Bus(#[from] BusError),
}
