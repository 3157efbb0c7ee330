//! Takes frames of records, runs all event plugins of the audit over each record in one pass, and publishes the events.
//!
//! A frame is acknowledged after its events and its counts are stored. A frame that comes again makes the same events
//! under the same ids.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use proto::bus::{BusError, BusErrorKind, ConsumerId, Delivery, Outgoing, PullLimits, Puller};
use proto::catalogue::in_one_line;
use proto::frame;
use proto::plan::Plan;
use proto::run::Phase;
use proto::service::Worker;
use proto::service::metrics;
use proto::service::presence::Cannot;
use proto::service::trace::{Kind, Span, SpanContext};
use proto::service::versions::{OpenAudit, Versions};
use proto::status::{self, Counts, DeadLetter, Results, Settled, Status, Unclear};
use proto::subject::{self, Key, Role};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::condition::excerpt_of;
use crate::record::Record;
use crate::rule::{Outcome, built_in};
use crate::rules::Rules;

/// Frames that one lane takes at once: their counts travel in one message.
const BATCH: usize = 16;
/// Events of one frame that are on their way at once, where each takes a round trip.
const EVENTS_AT_ONCE: usize = 128;
/// How often a delivery that is being worked on says so.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How many deliveries may end with their worker.
const MAX_LOST_DELIVERIES: u64 = 20;
/// How long a consumer may be missing before it is worth a word.
const MISSING_PATIENCE: Duration = Duration::from_secs(5);
/// How long a stopping worker lets frames finish.
const DRAIN: Duration = Duration::from_secs(20);

/// Serves all open versions until the worker is to stop.
pub async fn run(worker: Worker) {
    let (_versions, mut opened) = Versions::follow(Arc::clone(&worker.bus), worker.stage, worker.shutdown.clone());
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            () = worker.shutdown.cancelled() => break,
            open = opened.recv() => match open {
                Some(open) => {
                    while serving.try_join_next().is_some() {}
                    serving.spawn(serve_audit(worker.clone(), open));
                }
                None => break,
            },
        }
    }
    let drained = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("frames that are not done are given back");
    }
}

/// The event plugins of an audit's version, ready to run.
struct Audit {
    plan: Arc<Plan>,
    rules: Rules,
}

impl Audit {
    /// The plugins of a plan, or the first one that this worker cannot build.
    fn build(worker: &Worker, plan: &Arc<Plan>) -> Result<Self, Cannot> {
        let cannot = |plugin: Key, reason: String| Cannot {
            audit: plan.audit.clone(),
            version: plan.version.clone(),
            role: Role::Event,
            plugin,
            reason,
        };
        let pack = built_in().with(&plan.rules).map_err(|errors| {
            let plugin = plan.events.first().cloned().unwrap_or_else(|| plan.audit.clone());
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            cannot(plugin, format!("this evaluator cannot read the rules of the configuration: {}", errors.join("; ")))
        })?;
        let expand = |params: &Value| worker.expander.expand(params).map_err(|errors| in_one_line(&errors));
        let rules = Rules::build(plan, &pack, expand).map_err(|(plugin, reason)| cannot(plugin, reason))?;
        Ok(Self { plan: Arc::clone(plan), rules })
    }
}

async fn serve_audit(worker: Worker, open: OpenAudit) {
    if open.plan.of_role(Role::Event).next().is_none() {
        return;
    }
    let audit = match Audit::build(&worker, &open.plan) {
        Ok(audit) => Arc::new(audit),
        Err(cannot) => return wait_unable(worker, open, cannot).await,
    };
    let mut lanes = JoinSet::new();
    for _ in 0..worker.concurrency.max(1) {
        lanes.spawn(lane(worker.clone(), Arc::clone(&audit), open.clone()));
    }
    while let Some(ended) = lanes.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            // Its frames are given back; the next one of this kind counts as a lost delivery.
            tracing::error!(audit = %open.plan.audit, %error, "a rule panicked");
            lanes.spawn(lane(worker.clone(), Arc::clone(&audit), open.clone()));
        }
    }
}

async fn wait_unable(worker: Worker, mut open: OpenAudit, cannot: Cannot) {
    tracing::warn!(audit = %cannot.audit, plugin = %cannot.plugin, reason = cannot.reason,
        "this worker cannot serve the audit");
    worker.presence.add_cannot(cannot.clone()).await;
    tokio::select! {
        () = worker.shutdown.cancelled() => {}
        _ = open.view.wait_for(|view| view.state.phase == Phase::Ended) => {}
    }
    worker.presence.remove_cannot(&cannot).await;
}

/// Works batch by batch until the version has ended.
async fn lane(worker: Worker, audit: Arc<Audit>, mut open: OpenAudit) {
    let id = ConsumerId::evaluator(&audit.plan.audit, &audit.plan.version);
    let mut pause = Duration::from_millis(100);
    let mut missing: Option<Instant> = None;
    loop {
        let ended = open.view.clone();
        tokio::select! {
            () = ended_of(ended) => return,
            error = work(&worker, &audit, &id, &mut pause) => {
                // The consumer of a version that ends goes a moment before the news of its end comes.
                if worker.shutdown.is_cancelled() {
                    return;
                }
                let is_missing = error.kind() == BusErrorKind::NotFound;
                if is_missing && missing.get_or_insert_with(Instant::now).elapsed() < MISSING_PATIENCE {
                    tracing::debug!(audit = %audit.plan.audit, %error, "no frames to pull");
                } else {
                    tracing::warn!(audit = %audit.plan.audit, %error, "frames come again");
                }
            }
        }
        tokio::select! {
            () = worker.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            changed = open.view.changed() => if changed.is_err() { return },
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

async fn ended_of(mut view: tokio::sync::watch::Receiver<proto::service::versions::AuditView>) {
    // An error means that nobody follows the version any more.
    let _ = view.wait_for(|view| view.state.phase == Phase::Ended).await;
}

async fn work(worker: &Worker, audit: &Audit, id: &ConsumerId, pause: &mut Duration) -> BusError {
    let mut puller = match worker.bus.pull(id, PullLimits { messages: BATCH * 2, ..PullLimits::default() }).await {
        Ok(puller) => puller,
        Err(error) => return error,
    };
    loop {
        // Frames that were taken are finished before the worker stops.
        let taken = tokio::select! {
            () = worker.shutdown.cancelled() => return stopped(),
            taken = take(&mut *puller) => taken,
        };
        let batch = match taken {
            Ok(batch) => batch,
            Err(error) => return error,
        };
        if let Err(error) = settle(worker, audit, batch).await {
            return error;
        }
        *pause = Duration::from_millis(100);
    }
}

fn stopped() -> BusError {
    BusError::new(BusErrorKind::Unsupported, "the worker stops")
}

/// One delivery, and those that are there already. What comes again comes alone: if it is what its worker died of, it
/// takes no others with it.
async fn take(puller: &mut dyn Puller) -> Result<Vec<Delivery>, BusError> {
    let mut batch = vec![puller.next().await?];
    while batch.len() < BATCH && batch.last().is_some_and(|delivery| delivery.deliveries == 1) {
        match puller.next().now_or_never() {
            Some(delivery) => batch.push(delivery?),
            None => break,
        }
    }
    Ok(batch)
}

/// Evaluates frames, publishes what came of them, and acknowledges them.
async fn settle(worker: &Worker, audit: &Audit, batch: Vec<Delivery>) -> Result<(), BusError> {
    let Some(first) = batch.first() else { return Ok(()) };
    let _in_work = worker.presence.begin_work();
    let work = async {
        let mut settled = Vec::with_capacity(batch.len());
        for delivery in &batch {
            settled.push(evaluate(worker, audit, delivery).await?);
        }
        let counts = Status::Counts(Counts { role: Role::Event, plugin: None, settled });
        let plan = &audit.plan;
        worker.bus.publish(counts.message(&plan.audit, &plan.version).map_err(BusError::json)?).await.map(|_| ())
    };
    first.while_working(PROGRESS_EVERY, keep(&batch, work)).await?;
    for delivery in batch {
        delivery.ack().await?;
    }
    Ok(())
}

/// Reports progress for all of a batch but the first, which its caller keeps.
async fn keep<T>(batch: &[Delivery], work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => for delivery in batch.iter().skip(1) {
                if let Err(error) = delivery.progress().await {
                    tracing::debug!(%error, "cannot report progress");
                }
            },
        }
    }
}

/// Evaluates one frame and publishes its events.
async fn evaluate(worker: &Worker, audit: &Audit, delivery: &Delivery) -> Result<Settled, BusError> {
    let message = &delivery.message;
    let mut settled = Settled { seq: message.seq, records: 0, results: BTreeMap::new() };
    let opened = if delivery.deliveries > MAX_LOST_DELIVERIES {
        Err(format!("it was delivered {} times and never settled", delivery.deliveries))
    } else {
        frame::open(message).map_err(|error| error.to_string())
    };
    let body = match opened {
        Ok(body) => body,
        Err(reason) => {
            bury(worker, audit, delivery, reason, &message.payload).await?;
            return Ok(settled);
        }
    };
    let mut span = Span::begin("evaluate", Kind::Consumer, SpanContext::of_message(message));
    let from = span.context();
    let began = Instant::now();
    let at_once = if worker.bus.pipeline() > 1 { EVENTS_AT_ONCE } else { 1 };
    let mut publishing = FuturesUnordered::new();
    let rules = audit.rules.rules();
    let mut results = vec![Results::default(); rules.len()];
    for line in frame::lines(&body) {
        settled.records += 1;
        let events = match apply(&audit.rules, line, &mut results) {
            Ok(events) => events,
            Err(error) => {
                bury(worker, audit, delivery, format!("not a record: {error}"), line).await?;
                continue;
            }
        };
        for (number, event) in events {
            let Some(rule) = rules.get(number) else { continue };
            let mut event = match event {
                Ok(event) => event,
                Err(reason) => {
                    bury_of(worker, audit, delivery, &rule.key, reason, line).await?;
                    continue;
                }
            };
            if event_bytes(&event) > worker.bus.max_message() {
                let reason = "the event is larger than the bus takes in a message".to_owned();
                bury_of(worker, audit, delivery, &rule.key, reason, &event.payload).await?;
                continue;
            }
            if let Some(span) = from {
                span.mark(&mut event);
            }
            publishing.push(worker.bus.publish(event));
            while publishing.len() >= at_once {
                publishing.next().await.transpose()?;
            }
        }
    }
    while let Some(receipt) = publishing.next().await {
        receipt?;
    }
    for (rule, results) in rules.iter().zip(&results) {
        metrics::rule_results(&audit.plan.audit, &rule.key, results);
    }
    metrics::frame_evaluated(&audit.plan.audit, settled.records, began.elapsed());
    span.set("cloudmarker.audit", &audit.plan.audit);
    span.set("cloudmarker.version", &audit.plan.version);
    span.set("cloudmarker.records", settled.records);
    settled.results = rules.iter().map(|rule| rule.key.clone()).zip(results).collect();
    Ok(settled)
}

fn event_bytes(event: &Outgoing) -> usize {
    event.payload.len() + 1024
}

/// An event of the rule of this number, or why it cannot be written.
type Made = (usize, Result<Outgoing, String>);

/// Runs the rules over one record, and counts what they say.
fn apply(rules: &Rules, line: &[u8], results: &mut [Results]) -> serde_json::Result<Vec<Made>> {
    let record = rules.read(line)?;
    let mut events = Vec::new();
    rules.judge(&record, |number, judgement| {
        let (Some(rule), Some(result)) = (rules.rules().get(number), results.get_mut(number)) else { return };
        match &judgement.outcome {
            Outcome::Pass => result.pass += 1,
            Outcome::Fail => result.fail += 1,
            Outcome::NotApplicable | Outcome::Unknown(_) => {}
        }
        if let Some(reason) = judgement.unknown() {
            result.unknown += 1;
            result.sample.get_or_insert_with(|| Unclear { resource: name_of(&record), reason: reason.to_owned() });
        }
        for draft in &judgement.events {
            let event =
                rule.maker.message(&record, draft).map_err(|error| format!("its event cannot be written: {error}"));
            result.events += u64::from(event.is_ok());
            events.push((number, event));
        }
    });
    Ok(events)
}

/// What a record is called where a person reads it.
fn name_of(record: &Record<'_>) -> String {
    const LONGEST: usize = 400;
    excerpt_of(record.name().unwrap_or("a record without an id"), LONGEST)
}

async fn bury(
    worker: &Worker,
    audit: &Audit,
    delivery: &Delivery,
    reason: String,
    body: &[u8],
) -> Result<(), BusError> {
    let Some((_, _, origin)) = subject::parse(&delivery.message.subject) else { return Ok(()) };
    bury_of(worker, audit, delivery, &origin, reason, body).await
}

async fn bury_of(
    worker: &Worker,
    audit: &Audit,
    delivery: &Delivery,
    plugin: &Key,
    reason: String,
    body: &[u8],
) -> Result<(), BusError> {
    let message = &delivery.message;
    let letter = DeadLetter::new(&message.subject, Some(message.seq), reason, delivery.deliveries, body);
    status::bury(&*worker.bus, &audit.plan.audit, &audit.plan.version, Role::Event, plugin, &letter).await
}

#[cfg(test)]
mod tests {
    use proto::plan::{PluginSpec, Stage};
    use proto::subject::Version;
    use serde_json::json;

    use super::*;

    fn rules(class: &str) -> Rules {
        let spec = PluginSpec {
            key: Key::new("rule").unwrap(),
            class: class.to_owned(),
            params: json!({}),
            role: Role::Event,
            stage: Stage::Evaluator,
            exclusive: false,
            pool: None,
        };
        let plan = Plan {
            audit: Key::new("audit").unwrap(),
            version: Version::new("20260131_235959").unwrap(),
            events: vec![spec.key.clone()],
            plugins: vec![spec],
            clouds: Vec::new(),
            rules: Vec::new(),
        };
        Rules::build(&plan, built_in(), |params| Ok(params.clone())).unwrap()
    }

    #[test]
    fn a_record_whose_com_cannot_be_read_is_unknown_to_every_rule() {
        let rules = rules("cloudmarker.events.mockevent.MockEvent");
        let mut results = [Results::default()];
        let events = apply(&rules, br#"{"raw":{"data":3},"com":{"reference":5}}"#, &mut results).unwrap();
        assert!(events.is_empty());
        let reason = "com.reference is a number; a text is needed".to_owned();
        let sample = Some(Unclear { resource: "a record without an id".to_owned(), reason });
        assert_eq!(results, [Results { unknown: 1, sample, ..Results::default() }]);
    }

    #[test]
    fn the_first_record_that_is_unknown_is_kept() {
        let rules = rules("MockEvent");
        let mut results = [Results::default()];
        for data in ["3", "4", "null", "[]"] {
            let record = format!(r#"{{"raw":{{"data":{data}}},"com":{{"reference":"r{data}"}}}}"#);
            apply(&rules, record.as_bytes(), &mut results).unwrap();
        }
        let sample = results[0].sample.as_ref().unwrap();
        assert_eq!((sample.resource.as_str(), sample.reason.as_str()), ("rnull", "raw.data is null"));
        assert_eq!((results[0].pass, results[0].fail, results[0].unknown, results[0].events), (1, 1, 2, 1));
    }
}
