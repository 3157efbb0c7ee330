//! What a program counts of its work, in Prometheus' text format.
//!
//! Nothing is counted before [`begin`]: a program without a health address pays for a look at a flag. What is counted is
//! counted per message, never per record. Labels are audits and plugins, of which a configuration has few; versions,
//! scopes and resources are no labels. Should there be more than [`MOST_SETS`] pairs of audit and plugin all the same,
//! the others are counted together as `other`.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::plan::Stage;
use crate::subject::{Key, Role};

/// The most pairs of audit and plugin that are told apart.
pub const MOST_SETS: usize = 500;
/// The label of all others.
const OTHER: &str = "other";
/// What the names of our metrics begin with.
const PREFIX: &str = "cloudmarker_";
/// The media type of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds of what should take milliseconds.
const SHORT: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];
/// Bounds of what waits for others: clouds, stores, people's servers.
const LONG: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0];

static COUNTS: AtomicBool = AtomicBool::new(false);
static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The metrics of this program.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    names: Vec<String>,
    sets: RwLock<HashSet<u64>>,
    pub(super) published: IntCounterVec,
    pub(super) published_bytes: IntCounterVec,
    pub(super) publish_seconds: HistogramVec,
    pub(super) publish_failures: IntCounterVec,
    pub(super) duplicates: IntCounterVec,
    pub(super) records: IntCounterVec,
    pub(super) events: IntCounterVec,
    pub(super) dead_letters: IntCounterVec,
    pub(super) received: IntCounterVec,
    pub(super) received_bytes: IntCounterVec,
    pub(super) redelivered: IntCounterVec,
    pub(super) settled: IntCounterVec,
    pub(super) in_hand: IntGaugeVec,
    pub(super) message_seconds: HistogramVec,
    pub(super) lag: IntGaugeVec,
    pub(super) unsettled: IntGaugeVec,
    units: IntCounterVec,
    unit_seconds: HistogramVec,
    coverage: IntCounterVec,
    cloud_requests: IntCounterVec,
    cloud_request_seconds: HistogramVec,
    evaluated: IntCounterVec,
    results: IntCounterVec,
    evaluation_seconds: HistogramVec,
    documents: IntCounterVec,
    store_seconds: HistogramVec,
    store_retries: IntCounterVec,
    deliveries: IntCounterVec,
    delivery_seconds: HistogramVec,
    runs: IntCounterVec,
    run_active: IntGaugeVec,
    run_units: IntGaugeVec,
    run_end: GaugeVec,
    run_duration: GaugeVec,
    run_complete: IntGaugeVec,
    run_gaps: IntGaugeVec,
    pub(super) spans_exported: IntCounter,
    pub(super) spans_dropped: IntCounter,
    pub(super) memory_limited: IntGauge,
    draining: IntGauge,
    build: IntGaugeVec,
    resident: IntGauge,
    cpu: Counter,
    started: Gauge,
    open_files: IntGauge,
}

/// Puts a metric into the registry, and its name, with these endings, among the names.
fn add<M: Collector + Clone + 'static>(
    (registry, names): (&Registry, &RefCell<Vec<String>>),
    endings: &[&str],
    made: prometheus::Result<M>,
) -> M {
    #[expect(clippy::expect_used, reason = "names and labels are constants, and a test makes them all")]
    let metric = made.expect("a metric's name and labels are legal");
    // The name is taken only where a constant occurs twice, which a test would find.
    let _ = registry.register(Box::new(metric.clone()));
    let described = metric.desc();
    let all = described.iter().flat_map(|desc| endings.iter().map(move |ending| format!("{}{ending}", desc.fq_name)));
    names.borrow_mut().extend(all);
    metric
}

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let names = RefCell::default();
        let r = (&registry, &names);
        let name = |name: &str| format!("{PREFIX}{name}");
        let opts = |metric: &str, help: &str| Opts::new(name(metric), help);
        let counter =
            |metric: &str, help: &str, labels: &[&str]| add(r, &[""], IntCounterVec::new(opts(metric, help), labels));
        let gauge =
            |metric: &str, help: &str, labels: &[&str]| add(r, &[""], IntGaugeVec::new(opts(metric, help), labels));
        let real = |metric: &str, help: &str, labels: &[&str]| add(r, &[""], GaugeVec::new(opts(metric, help), labels));
        let histogram = |metric: &str, help: &str, labels: &[&str], bounds: &[f64]| {
            let opts = HistogramOpts::new(name(metric), help).buckets(bounds.to_vec());
            add(r, &["_bucket", "_sum", "_count"], HistogramVec::new(opts, labels))
        };
        let of_message = ["kind", "audit", "plugin"];
        let of_plugin = ["audit", "plugin"];
        let of_role = ["audit", "role", "plugin"];
        Self {
            published: counter("messages_published_total", "Messages stored at the broker.", &of_message),
            published_bytes: counter("published_bytes_total", "Bytes of the bodies of these messages.", &of_message),
            publish_seconds: histogram(
                "publish_seconds",
                "From publishing a message to the broker's word that it is stored.",
                &["kind"],
                &SHORT,
            ),
            publish_failures: counter(
                "publish_failures_total",
                "Messages that the broker did not take.",
                &["kind", "reason"],
            ),
            duplicates: counter(
                "duplicates_total",
                "Messages that the broker had already: work that was done again, and changed nothing.",
                &of_message,
            ),
            records: counter("records_total", "Records published.", &of_plugin),
            events: counter("events_total", "Events published.", &of_plugin),
            dead_letters: counter("dead_letters_total", "Messages that could not be processed.", &of_role),
            received: counter("messages_received_total", "Messages received, those that came again too.", &of_message),
            received_bytes: counter("received_bytes_total", "Bytes of the bodies of these messages.", &of_message),
            redelivered: counter(
                "redeliveries_total",
                "Messages received that had been delivered before.",
                &of_message,
            ),
            settled: counter(
                "messages_settled_total",
                "Messages done (how=\"acknowledged\") or given back to come again (how=\"given_back\").",
                &["kind", "audit", "plugin", "how"],
            ),
            in_hand: gauge("messages_in_hand", "Messages received and not settled.", &["kind"]),
            message_seconds: histogram(
                "message_seconds",
                "From receiving a message to its acknowledgement.",
                &["kind", "audit"],
                &LONG,
            ),
            lag: gauge("lag_messages", "Messages that wait for the workers of a part.", &of_role),
            unsettled: gauge("unsettled_messages", "Messages that all workers of a part hold.", &of_role),
            units: counter(
                "units_total",
                "Units of collecting, by what became of them: done, unread, throttled, failing (tried again later), \
                 put_off, restarted.",
                &["audit", "plugin", "outcome"],
            ),
            unit_seconds: histogram("unit_seconds", "Work on a unit of collecting.", &of_plugin, &LONG),
            coverage: counter(
                "coverage_total",
                "What units said of what they read, by state.",
                &["audit", "plugin", "state"],
            ),
            cloud_requests: counter(
                "cloud_requests_total",
                "Requests to clouds, by the class of the answer (2xx, 3xx, 4xx, 429, 5xx) or `none`.",
                &["answer"],
            ),
            cloud_request_seconds: histogram(
                "cloud_request_seconds",
                "From a request to a cloud to the head of its answer.",
                &[],
                &LONG,
            ),
            evaluated: counter("records_evaluated_total", "Records that the rules were applied to.", &["audit"]),
            results: counter(
                "rule_results_total",
                "What rules said of records: pass, fail, unknown.",
                &["audit", "plugin", "result"],
            ),
            evaluation_seconds: histogram(
                "evaluation_seconds",
                "Evaluation of a frame, until its events are stored at the broker.",
                &["audit"],
                &LONG,
            ),
            documents: counter(
                "documents_total",
                "Documents by what became of them: stored, refused (by the store), delivered (whole, at the end of a run).",
                &["audit", "role", "plugin", "outcome"],
            ),
            store_seconds: histogram("store_write_seconds", "A store's work on one batch.", &of_role, &LONG),
            store_retries: counter("store_retries_total", "Batches, whole or in part, written again.", &of_role),
            deliveries: counter(
                "deliveries_total",
                "Files and messages to people, by what became of them: delivered, failed (and perhaps tried again).",
                &["audit", "role", "plugin", "outcome"],
            ),
            delivery_seconds: histogram("delivery_seconds", "A delivery's last step.", &of_role, &LONG),
            runs: counter("runs_total", "Runs that ended, complete or incomplete.", &["audit", "outcome"]),
            run_active: gauge("run_active", "Whether a run of the audit is led by this coordinator now.", &["audit"]),
            run_units: gauge("run_units", "Units of the run that is led now: done, left.", &["audit", "state"]),
            run_end: real("run_last_end_timestamp_seconds", "When the last run ended.", &["audit"]),
            run_duration: real("run_last_duration_seconds", "How long the last run took.", &["audit"]),
            run_complete: gauge("run_last_complete", "Whether the last run was complete.", &["audit"]),
            run_gaps: gauge(
                "run_coverage_gaps",
                "Scopes and resource types that the last run did not read whole.",
                &["audit"],
            ),
            spans_exported: add(r, &[""], IntCounter::with_opts(opts("spans_exported_total", "Spans sent over OTLP."))),
            spans_dropped: add(
                r,
                &[""],
                IntCounter::with_opts(opts("spans_dropped_total", "Spans that could not be sent over OTLP.")),
            ),
            memory_limited: add(
                r,
                &[""],
                IntGauge::with_opts(opts("memory_limited", "Whether nothing is pulled because of --max-memory.")),
            ),
            draining: add(
                r,
                &[""],
                IntGauge::with_opts(opts("draining", "Whether the program finishes what it holds and stops.")),
            ),
            build: gauge("build_info", "The program.", &["version", "stage"]),
            resident: add(
                r,
                &[""],
                IntGauge::with_opts(Opts::new("process_resident_memory_bytes", "Resident memory size in bytes.")),
            ),
            cpu: add(
                r,
                &[""],
                Counter::with_opts(Opts::new(
                    "process_cpu_seconds_total",
                    "User and system CPU time spent in seconds.",
                )),
            ),
            started: add(
                r,
                &[""],
                Gauge::with_opts(Opts::new("process_start_time_seconds", "Start of the process since the epoch.")),
            ),
            open_files: add(r, &[""], IntGauge::with_opts(Opts::new("process_open_fds", "Open file descriptors."))),
            sets: RwLock::default(),
            names: names.take(),
            registry,
        }
    }

    /// A pair of labels, or `other` for both when there are too many.
    pub(super) fn pair<'a>(&self, audit: &'a str, plugin: &'a str) -> (&'a str, &'a str) {
        let mut hasher = DefaultHasher::new();
        (audit, plugin).hash(&mut hasher);
        let set = hasher.finish();
        if self.sets.read().unwrap_or_else(PoisonError::into_inner).contains(&set) {
            return (audit, plugin);
        }
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        if sets.len() < MOST_SETS {
            sets.insert(set);
        }
        if sets.contains(&set) { (audit, plugin) } else { (OTHER, OTHER) }
    }
}

/// Begins to count.
pub fn begin(stage: Stage) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    METRICS.started.set(now.as_secs_f64());
    METRICS.build.with_label_values(&[env!("CARGO_PKG_VERSION"), stage.as_str()]).set(1);
    COUNTS.store(true, Ordering::Relaxed);
}

/// Whether anything is counted.
#[must_use]
pub fn is_on() -> bool {
    COUNTS.load(Ordering::Relaxed)
}

/// The metrics, if anything is counted.
pub(super) fn metrics() -> Option<&'static Metrics> {
    is_on().then(|| &*METRICS)
}

/// All metrics as text.
#[must_use]
pub fn text(draining: bool) -> String {
    METRICS.draining.set(i64::from(draining));
    let process = Process::now();
    METRICS.resident.set(whole(process.resident_bytes));
    // A counter that the system keeps.
    METRICS.cpu.inc_by((process.cpu_seconds - METRICS.cpu.get()).max(0.0));
    METRICS.open_files.set(whole(process.open_files));
    TextEncoder::new().encode_to_string(&METRICS.registry.gather()).unwrap_or_default()
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What the system says of this process.
struct Process {
    resident_bytes: u64,
    cpu_seconds: f64,
    open_files: u64,
}

impl Process {
    fn now() -> Self {
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self {
            resident_bytes: super::memory::resident_bytes().unwrap_or(0),
            cpu_seconds: cpu_seconds(),
            open_files: files as u64,
        }
    }
}

/// The time that the processors spent on this process.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A unit of collecting has come to this.
pub fn unit(audit: &Key, plugin: &Key, outcome: &'static str, took: Duration) {
    let Some(metrics) = metrics() else { return };
    let (audit, plugin) = metrics.pair(audit.as_str(), plugin.as_str());
    metrics.units.with_label_values(&[audit, plugin, outcome]).inc();
    metrics.unit_seconds.with_label_values(&[audit, plugin]).observe(took.as_secs_f64());
}

/// A unit has said this of what it read.
pub fn coverage(audit: &Key, plugin: &Key, state: &'static str) {
    let Some(metrics) = metrics() else { return };
    let (audit, plugin) = metrics.pair(audit.as_str(), plugin.as_str());
    metrics.coverage.with_label_values(&[audit, plugin, state]).inc();
}

/// A cloud has answered with this status, or not at all.
pub fn cloud_request(status: Option<u16>, took: Duration) {
    let Some(metrics) = metrics() else { return };
    let answer = match status {
        None => "none",
        Some(429) => "429",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
    };
    metrics.cloud_requests.with_label_values(&[answer]).inc();
    metrics.cloud_request_seconds.with_label_values::<&str>(&[]).observe(took.as_secs_f64());
}

/// A frame was evaluated.
pub fn frame_evaluated(audit: &Key, records: u64, took: Duration) {
    let Some(metrics) = metrics() else { return };
    let (audit, _) = metrics.pair(audit.as_str(), "");
    metrics.evaluated.with_label_values(&[audit]).inc_by(records);
    metrics.evaluation_seconds.with_label_values(&[audit]).observe(took.as_secs_f64());
}

/// A rule has said this of records.
pub fn rule_results(audit: &Key, plugin: &Key, results: &crate::status::Results) {
    let Some(metrics) = metrics() else { return };
    let (audit, plugin) = metrics.pair(audit.as_str(), plugin.as_str());
    for (result, count) in [("pass", results.pass), ("fail", results.fail), ("unknown", results.unknown)] {
        if count > 0 {
            metrics.results.with_label_values(&[audit, plugin, result]).inc_by(count);
        }
    }
}

/// A batch was written to a store.
pub fn batch_written(audit: &Key, role: Role, plugin: &Key, stored: u64, refused: u64, took: Duration) {
    let Some(metrics) = metrics() else { return };
    let (audit, plugin) = metrics.pair(audit.as_str(), plugin.as_str());
    let role = role.as_str();
    for (outcome, count) in [("stored", stored), ("refused", refused)] {
        if count > 0 {
            metrics.documents.with_label_values(&[audit, role, plugin, outcome]).inc_by(count);
        }
    }
    metrics.store_seconds.with_label_values(&[audit, role, plugin]).observe(took.as_secs_f64());
}

/// A store has not taken some of a batch, which was written again so often.
pub fn store_retried(audit: &Key, role: Role, plugin: &Key, times: u64) {
    let Some(metrics) = metrics() else { return };
    let (audit, plugin) = metrics.pair(audit.as_str(), plugin.as_str());
    metrics.store_retries.with_label_values(&[audit, role.as_str(), plugin]).inc_by(times);
}

/// What is delivered whole was delivered, with so many documents, or was not.
pub(crate) fn delivered(audit: &Key, role: Role, plugin: &Key, documents: Option<u64>, took: Duration) {
    let Some(metrics) = metrics() else { return };
    let (audit, plugin) = metrics.pair(audit.as_str(), plugin.as_str());
    let role = role.as_str();
    let outcome = if documents.is_some() { "delivered" } else { "failed" };
    metrics.deliveries.with_label_values(&[audit, role, plugin, outcome]).inc();
    metrics.delivery_seconds.with_label_values(&[audit, role, plugin]).observe(took.as_secs_f64());
    if let Some(documents) = documents {
        metrics.documents.with_label_values(&[audit, role, plugin, outcome]).inc_by(documents);
    }
}

/// A run of an audit that this coordinator leads has come so far.
pub fn run_progress(audit: &Key, units_done: u64, units_left: u64) {
    let Some(metrics) = metrics() else { return };
    let (audit, _) = metrics.pair(audit.as_str(), "");
    metrics.run_active.with_label_values(&[audit]).set(1);
    metrics.run_units.with_label_values(&[audit, "done"]).set(whole(units_done));
    metrics.run_units.with_label_values(&[audit, "left"]).set(whole(units_left));
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct RunOutcome {
    /// Whether it was complete.
    pub complete: bool,
    /// How long it took.
    pub took: Duration,
    /// Scopes and resource types that it did not read whole.
    pub gaps: u64,
}

/// A run of an audit has ended.
pub fn run_ended(audit: &Key, outcome: &RunOutcome) {
    let Some(metrics) = metrics() else { return };
    let (audit, _) = metrics.pair(audit.as_str(), "");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let word = if outcome.complete { "complete" } else { "incomplete" };
    metrics.runs.with_label_values(&[audit, word]).inc();
    metrics.run_active.with_label_values(&[audit]).set(0);
    metrics.run_end.with_label_values(&[audit]).set(now.as_secs_f64());
    metrics.run_duration.with_label_values(&[audit]).set(outcome.took.as_secs_f64());
    metrics.run_complete.with_label_values(&[audit]).set(i64::from(outcome.complete));
    metrics.run_gaps.with_label_values(&[audit]).set(whole(outcome.gaps));
}

/// Whether nothing is pulled because of the limit on memory.
pub(super) fn memory_limited(limited: bool) {
    METRICS.memory_limited.set(i64::from(limited));
}

/// Spans were sent.
pub(super) fn spans_exported(count: u64) {
    METRICS.spans_exported.inc_by(count);
}

/// Spans could not be sent.
pub(super) fn spans_dropped(count: u64) {
    METRICS.spans_dropped.inc_by(count);
}

/// The names of all series, those that a histogram is made of too.
#[must_use]
pub fn names() -> &'static [String] {
    &METRICS.names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    #[test]
    fn there_is_a_bound_to_what_is_told_apart() {
        let metrics = Metrics::new();
        for n in 0..MOST_SETS {
            assert_eq!(metrics.pair("a", &n.to_string()), ("a", &*n.to_string()));
        }
        assert_eq!(metrics.pair("a", "one more"), (OTHER, OTHER));
        assert_eq!(metrics.pair("a", "7"), ("a", "7"), "the known ones stay");
    }

    #[test]
    fn names_are_unique_and_told_in_full() {
        let mut names = names().to_vec();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        for name in ["cloudmarker_records_total", "cloudmarker_unit_seconds_bucket", "process_open_fds"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn what_happens_is_counted() {
        begin(Stage::Sink);
        batch_written(&key("a\"b"), Role::Store, &key("c"), 3, 1, Duration::from_millis(2));
        let text = text(true);
        for line in [
            r#"cloudmarker_documents_total{audit="a\"b",outcome="stored",plugin="c",role="store"} 3"#,
            r#"cloudmarker_documents_total{audit="a\"b",outcome="refused",plugin="c",role="store"} 1"#,
            r#"cloudmarker_store_write_seconds_count{audit="a\"b",plugin="c",role="store"} 1"#,
            "cloudmarker_draining 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        let resident = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        assert!(resident.unwrap().parse::<u64>().unwrap() > 1_000_000);
    }
}
