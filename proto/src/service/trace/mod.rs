//! Traces: a unit's way from the collector to the stores, over all programs.
//!
//! Messages carry the W3C header `traceparent`. A unit's work, a frame's evaluation, its way into a store, and what is
//! delivered at a run's end are spans. A run begins with a span of known ids, so that whoever ends it can tell of it. So
//! that no trace grows with the estate, each is given a number of units in the header `tracestate`; units beyond it
//! begin traces of their own, with a link to where they come from.
//!
//! Without an exporter ([`begin`]) there are no spans: everything here is a look at a flag.

mod exporter;
mod settings;

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::bus::{Message, Outgoing, header};
use crate::identity::Id;
use crate::subject::{Key, Version};
use crate::unit::{ROOT, Unit};

pub use settings::TraceSettings;

use exporter::Exporter;

/// How many units a trace takes.
const UNITS_OF_A_TRACE: u32 = 64;
/// How many links a span takes: beyond them, nobody looks.
const MOST_LINKS: usize = 32;

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

tokio::task_local! {
    /// The span in which the task works.
    static CURRENT: Option<SpanContext>;
}

/// The span in which the task works, if there is one: see [`Span::around`].
#[must_use]
pub fn current() -> Option<SpanContext> {
    CURRENT.try_with(|current| *current).ok().flatten()
}

/// Begins to export spans.
///
/// # Errors
/// What is wrong with the settings, for people.
pub fn begin(settings: TraceSettings) -> Result<(), String> {
    let exporter = Exporter::start(settings)?;
    // A second start in one process keeps the first one's exporter.
    let _ = EXPORTER.set(exporter);
    Ok(())
}

/// Sends what is left, for a moment at most.
pub async fn end() {
    if let Some(exporter) = EXPORTER.get() {
        exporter.flush().await;
    }
}

/// Whether spans are exported.
#[must_use]
pub fn is_on() -> bool {
    EXPORTER.get().is_some()
}

/// A span as others refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    trace: u128,
    span: u64,
    sampled: bool,
    /// How many units may still continue the trace.
    units: u32,
}

impl SpanContext {
    /// The span of an audit's run.
    #[must_use]
    pub fn of_run(audit: &Key, version: &Version) -> Self {
        let name = format!("run:{}:{version}", audit.token());
        let trace = Id::digest(name.as_bytes()).bits().max(1);
        let span = half(Id::digest(format!("span:{name}").as_bytes()).bits());
        let sampled = EXPORTER.get().is_some_and(|exporter| exporter.samples(trace));
        Self { trace, span, sampled, units: UNITS_OF_A_TRACE }
    }

    /// What a message says of the span that published it; nothing when no spans are exported.
    #[must_use]
    pub fn of_message(message: &Message) -> Option<Self> {
        if !is_on() {
            return None;
        }
        let mut context = Self::parse(message.header(header::TRACE_PARENT)?)?;
        let state = message.header(header::TRACE_STATE).unwrap_or_default();
        let ours = state.split(',').find_map(|entry| entry.trim().strip_prefix("cloudmarker=units:"));
        context.units = ours.and_then(|units| units.parse().ok()).unwrap_or(0).min(UNITS_OF_A_TRACE);
        Some(context)
    }

    /// Reads a header `traceparent`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex =
            |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_right = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
        // Later versions may say more.
        if !is_right || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace, span, sampled, units: 0 })
    }

    /// Writes the span into the headers of a message that it publishes.
    pub fn mark(&self, message: &mut Outgoing) {
        self.mark_with(message, None);
    }

    /// The same for one of so many units that it publishes.
    pub fn mark_unit(&self, message: &mut Outgoing, of: usize) {
        let of = u32::try_from(of).unwrap_or(u32::MAX).max(1);
        self.mark_with(message, Some(self.units.saturating_sub(1) / of));
    }

    fn mark_with(&self, message: &mut Outgoing, units: Option<u32>) {
        let flags = u8::from(self.sampled);
        let parent = format!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span);
        message.headers.push((header::TRACE_PARENT, parent.into()));
        if let Some(units) = units {
            message.headers.push((header::TRACE_STATE, format!("cloudmarker=units:{units}").into()));
        }
    }
}

/// The lower half of a digest, which is never 0.
fn half(bits: u128) -> u64 {
    u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(1).max(1)
}

/// A number that nobody else has.
fn random() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    // Each state has random keys.
    RandomState::new().hash_one(DRAWN.fetch_add(1, Ordering::Relaxed)).max(1)
}

/// What a span does with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It takes messages.
    Consumer,
    /// It begins the work of others.
    Producer,
    /// It talks to a server.
    Client,
}

/// A value of a span's attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&Key> for Value {
    fn from(key: &Key) -> Self {
        key.as_str().into()
    }
}

impl From<&Version> for Value {
    fn from(version: &Version) -> Self {
        version.as_str().into()
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// Work that is traced. It ends when it is dropped. Without an exporter it is nothing.
#[derive(Debug, Default)]
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<Box<Traced>>);

/// What is told of a span.
#[derive(Debug)]
struct Traced {
    name: &'static str,
    kind: Kind,
    context: SpanContext,
    parent: Option<u64>,
    links: Vec<SpanContext>,
    attributes: Vec<(&'static str, Value)>,
    began: SystemTime,
    clock: Instant,
    took: Duration,
    failure: Option<String>,
}

impl Span {
    /// Begins a span, in the trace of its parent if it has one.
    pub fn begin(name: &'static str, kind: Kind, parent: Option<SpanContext>) -> Self {
        let Some(exporter) = EXPORTER.get() else { return Self(None) };
        let context = match parent {
            Some(parent) => SpanContext { span: random(), ..parent },
            None => {
                let trace = u128::from(random()) << 64 | u128::from(random());
                SpanContext { trace, span: random(), sampled: exporter.samples(trace), units: UNITS_OF_A_TRACE }
            }
        };
        if !context.sampled {
            return Self::unsampled(context);
        }
        Self::with(name, kind, context, parent.map(|parent| parent.span))
    }

    fn with(name: &'static str, kind: Kind, context: SpanContext, parent: Option<u64>) -> Self {
        Self(Some(Box::new(Traced {
            name,
            kind,
            context,
            parent,
            links: Vec::new(),
            attributes: Vec::new(),
            began: SystemTime::now(),
            clock: Instant::now(),
            took: Duration::ZERO,
            failure: None,
        })))
    }

    /// A span that nobody sees, and whose messages say so.
    fn unsampled(context: SpanContext) -> Self {
        Self::with("", Kind::Consumer, context, None)
    }

    /// Begins the span of work on a unit that came as this message.
    pub fn of_unit(message: &Message, unit: &Unit) -> Self {
        let from = SpanContext::of_message(message);
        let goes_on = from.filter(|from| from.units > 0 || unit.id == ROOT);
        let mut span = Self::begin("collect", Kind::Consumer, goes_on);
        if goes_on.is_none() {
            span.link(from);
        }
        span.set("cloudmarker.audit", &unit.audit);
        span.set("cloudmarker.version", &unit.version);
        span.set("cloudmarker.plugin", &unit.plugin);
        span.set("cloudmarker.unit", unit.id.as_str());
        span.set("cloudmarker.scope", unit.scope.as_str());
        span.set("cloudmarker.resource_type", unit.resource_type.as_str());
        span
    }

    /// Tells of an audit's run that is over.
    pub fn of_run(audit: &Key, version: &Version, took: Duration) -> Self {
        if !is_on() {
            return Self(None);
        }
        let mut span = Self::with("run", Kind::Producer, SpanContext::of_run(audit, version), None);
        if let Some(traced) = &mut span.0 {
            traced.began = SystemTime::now().checked_sub(took).unwrap_or(UNIX_EPOCH);
            traced.took = took;
        }
        span.set("cloudmarker.audit", audit);
        span.set("cloudmarker.version", version);
        span
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(traced) = &mut self.0 {
            traced.attributes.push((name, value.into()));
        }
    }

    /// Links another span, of another trace perhaps.
    pub fn link(&mut self, other: Option<SpanContext>) {
        if let (Some(traced), Some(other)) = (&mut self.0, other)
            && traced.links.len() < MOST_LINKS
            && !traced.links.contains(&other)
        {
            traced.links.push(other);
        }
    }

    /// The work failed.
    pub fn fail(&mut self, reason: &str) {
        if let Some(traced) = &mut self.0 {
            traced.failure = Some(reason.to_owned());
        }
    }

    /// Does some work in the span: [`current`] names it there.
    pub async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        match self.context() {
            Some(context) => CURRENT.scope(Some(context), work).await,
            None => work.await,
        }
    }

    /// Nothing came of it: nobody is told.
    pub fn discard(mut self) {
        self.0 = None;
    }

    /// How messages and other spans refer to it.
    #[must_use]
    pub fn context(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|traced| traced.context)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let (Some(mut traced), Some(exporter)) = (self.0.take(), EXPORTER.get())
            && traced.context.sampled
        {
            if traced.took.is_zero() {
                traced.took = traced.clock.elapsed();
            }
            exporter.take(traced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    #[test]
    fn a_header_is_read_and_written() {
        let context = SpanContext { units: 9, ..SpanContext::parse(HEADER).unwrap() };
        assert!(context.sampled);
        let mut message = Outgoing::new("cm.unit.p.a.v.p".into(), "".into());
        context.mark_unit(&mut message, 4);
        let message = message.into_message();
        assert_eq!(message.header("traceparent"), Some(HEADER));
        assert_eq!(message.header("tracestate"), Some("cloudmarker=units:2"));
    }

    #[test]
    fn a_header_that_is_none_is_ignored() {
        assert!(SpanContext::parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later").is_some());
        for header in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(SpanContext::parse(header), None, "{header}");
        }
    }

    #[test]
    fn a_run_has_the_same_ids_for_all() {
        let version = Version::new("20260131_235959").unwrap();
        let run = SpanContext::of_run(&key("a"), &version);
        assert_eq!(run, SpanContext::of_run(&key("a"), &version));
        assert_ne!(run.trace, SpanContext::of_run(&key("b"), &version).trace);
    }

    #[test]
    fn without_an_exporter_there_is_nothing() {
        let mut span = Span::begin("collect", Kind::Consumer, SpanContext::parse(HEADER));
        span.set("a", 1);
        assert!(span.context().is_none() && !is_on());
    }
}
