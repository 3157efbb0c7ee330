//! The way of a unit's records into frames and onto the bus.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use proto::bus::{BusError, Receipt, SharedBus};
use proto::frame::{self, FrameBuilder};
use proto::identity::IdMaker;
use proto::plan::PluginSpec;
use proto::record::{self, Identity, Origin};
use proto::service::trace::{self, SpanContext};
use proto::status::{self, DeadLetter};
use proto::subject::{self, Role};
use proto::unit::Unit;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cloud::WorkError;

/// A record as a cloud plugin makes it.
#[derive(Debug)]
pub struct Draft<'a, E, C> {
    /// The resource type, in the cloud's vocabulary: the same as in `ext.record_type`.
    pub record_type: &'a str,
    /// The cloud's own id of the resource (Azure: lower-cased) plus a discriminator where one resource gives several
    /// records.
    pub key: &'a str,
    /// The API's answer, untouched.
    pub raw: Option<&'a RawValue>,
    /// Cloud-specific, derived.
    pub ext: &'a E,
    /// Common to all clouds: an object. Begin it with [`proto::record::Common`].
    pub com: &'a C,
}

/// What does not change from unit to unit of a plugin.
#[derive(Debug)]
struct Maker {
    ids: IdMaker,
    origin: Origin,
    /// The same for records of permanent lifetime.
    permanent: (IdMaker, Origin),
}

/// Takes the records of one unit.
#[derive(Debug)]
pub struct Emitter {
    bus: SharedBus,
    unit: Unit,
    maker: Arc<Maker>,
    builder: FrameBuilder,
    /// The record that is being written; kept for its space.
    line: Vec<u8>,
    in_flight: FuturesUnordered<BoxFuture<'static, Result<Receipt, BusError>>>,
    emitted: Emitted,
    /// The span that frames come from.
    span: Option<SpanContext>,
}

/// What a unit has emitted.
#[derive(Debug, Clone, Default)]
pub struct Emitted {
    /// Frames stored.
    pub frames: u64,
    /// The sequence of the last of them.
    pub last_seq: u64,
    /// Records in them.
    pub records: u64,
    /// Records that are too large for the bus, by key: they are dead letters.
    pub too_large: Vec<String>,
}

impl Emitter {
    /// An emitter for a unit of a plugin.
    #[must_use]
    pub fn new(bus: SharedBus, unit: &Unit, spec: &PluginSpec) -> Self {
        let origin = Origin::new(&unit.audit, &unit.version, &unit.plugin, &spec.class, Role::Cloud);
        let maker = Maker {
            ids: IdMaker::of_records(&unit.audit, &unit.version, &unit.plugin),
            permanent: (IdMaker::of_permanent_records(&unit.audit), origin.clone().permanent()),
            origin,
        };
        Self {
            bus,
            unit: unit.clone(),
            maker: Arc::new(maker),
            builder: FrameBuilder::default(),
            line: Vec::new(),
            in_flight: FuturesUnordered::new(),
            emitted: Emitted::default(),
            span: trace::current(),
        }
    }

    /// Emits a record. It waits when too much is on its way.
    ///
    /// # Errors
    /// [`WorkError::Bus`] when frames cannot be published; [`WorkError::NotRead`] when the record cannot be written.
    pub async fn emit<E: Serialize, C: Serialize>(&mut self, draft: Draft<'_, E, C>) -> Result<(), WorkError> {
        let maker = Arc::clone(&self.maker);
        self.emit_as(&maker.ids, &maker.origin, draft).await
    }

    /// Emits a record of permanent lifetime: one that is the same in every version, however often it is read.
    ///
    /// # Errors
    /// As [`Emitter::emit`].
    pub async fn emit_permanent<E: Serialize, C: Serialize>(
        &mut self,
        draft: Draft<'_, E, C>,
    ) -> Result<(), WorkError> {
        let maker = Arc::clone(&self.maker);
        self.emit_as(&maker.permanent.0, &maker.permanent.1, draft).await
    }

    async fn emit_as<E: Serialize, C: Serialize>(
        &mut self,
        ids: &IdMaker,
        origin: &Origin,
        draft: Draft<'_, E, C>,
    ) -> Result<(), WorkError> {
        let identity = Identity { id: ids.id(&[draft.record_type, draft.key]), key: draft.key };
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        record::write_record(&mut line, identity, draft.raw, draft.ext, draft.com, origin).map_err(|error| {
            WorkError::NotRead {
                state: proto::coverage::State::Failed,
                reason: format!("{} {}: {error}", draft.record_type, draft.key),
            }
        })?;
        let sent = self.send(draft.key, &line).await;
        self.line = line;
        sent
    }

    async fn send(&mut self, key: &str, line: &[u8]) -> Result<(), WorkError> {
        if self.builder.is_due_before(line.len()) {
            self.flush().await?;
        }
        let room = self.bus.max_message().saturating_sub(HEADROOM);
        if !frame::fits(line, self.bus.encoding(), room) {
            return self.bury(key, line).await;
        }
        self.builder.push(line);
        Ok(())
    }

    /// Sends the last frame and waits until all are stored.
    ///
    /// # Errors
    /// [`WorkError::Bus`].
    pub async fn finish(mut self) -> Result<Emitted, WorkError> {
        self.flush().await?;
        while !self.in_flight.is_empty() {
            self.settle_one().await?;
        }
        Ok(self.emitted)
    }

    async fn flush(&mut self) -> Result<(), WorkError> {
        let records = self.builder.records();
        let subject = subject::record(&self.unit.audit, &self.unit.version, &self.unit.plugin);
        let Some(mut frame) = self.builder.take(subject, &self.unit.plugin, &self.unit.id, self.bus.encoding()) else {
            return Ok(());
        };
        if let Some(span) = self.span {
            span.mark(&mut frame);
        }
        self.emitted.frames += 1;
        self.emitted.records += u64::from(records);
        let bus = Arc::clone(&self.bus);
        self.in_flight.push(Box::pin(async move { bus.publish(frame).await }));
        while self.in_flight.len() >= self.bus.pipeline() {
            self.settle_one().await?;
        }
        // Futures begin when they are polled: the frame is on its way before the next record is made.
        if let Some(Some(receipt)) = self.in_flight.next().now_or_never() {
            self.settled(receipt)?;
        }
        Ok(())
    }

    fn settled(&mut self, receipt: Result<Receipt, BusError>) -> Result<(), WorkError> {
        self.emitted.last_seq = self.emitted.last_seq.max(receipt?.seq);
        Ok(())
    }

    async fn settle_one(&mut self) -> Result<(), WorkError> {
        if let Some(receipt) = self.in_flight.next().await {
            self.settled(receipt)?;
        }
        Ok(())
    }

    /// A record that is too large goes to the dead letters by name, and the run is incomplete.
    async fn bury(&mut self, key: &str, line: &[u8]) -> Result<(), WorkError> {
        let unit = &self.unit;
        let reason = format!("the record of {key} is {} bytes, more than the bus takes in a message", line.len());
        let subject = subject::record(&unit.audit, &unit.version, &unit.plugin);
        let letter = DeadLetter::new(&subject, None, reason, 1, line);
        status::bury(&*self.bus, &unit.audit, &unit.version, Role::Cloud, &unit.plugin, &letter).await?;
        self.emitted.too_large.push(key.to_owned());
        Ok(())
    }
}

/// Room for headers and for what an incompressible record grows by, in bytes.
const HEADROOM: usize = 8 * 1024;
