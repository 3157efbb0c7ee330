//! Sends spans over OTLP: HTTP with JSON bodies. It never holds anybody up: what does not fit into its queue, and what
//! the receiver does not take in time, is dropped and counted.

use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;

use super::settings::TraceSettings;
use super::{Kind, SpanContext, Traced, Value};
use crate::service::metrics;

/// Spans that wait to be sent.
const QUEUE: usize = 4096;
/// The most spans of one request.
const BATCH: usize = 512;
/// How long spans wait for others.
const LINGER: Duration = Duration::from_secs(1);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);
/// How often a batch is sent that the receiver does not take now, and the first pause between.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a receiver may ask for.
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// How long a stopping program waits for the rest to be sent.
const FLUSH: Duration = Duration::from_secs(3);

enum Job {
    Span(Box<Traced>),
    Flush(oneshot::Sender<()>),
}

/// Takes spans and has them sent.
#[derive(Debug)]
pub(super) struct Exporter {
    queue: Sender<Job>,
    share: f64,
}

impl Exporter {
    pub(super) fn start(settings: TraceSettings) -> Result<Self, String> {
        let share = settings.share;
        let sink = Receiving::new(settings)?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(work(jobs, sink));
        Ok(Self { queue, share })
    }

    /// Whether a trace is among those that are exported.
    pub(super) fn samples(&self, trace: u128) -> bool {
        self.share >= 1.0 || ((trace & u128::from(u64::MAX)) as f64) < self.share * u64::MAX as f64
    }

    pub(super) fn take(&self, span: Box<Traced>) {
        if self.queue.try_send(Job::Span(span)).is_err() {
            metrics::spans_dropped(1);
        }
    }

    pub(super) async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Job::Flush(done)).await.is_ok() {
                let _ = sent.await;
            }
        };
        if tokio::time::timeout(FLUSH, flushed).await.is_err() {
            tracing::warn!("the receiver of traces does not take what is left");
        }
    }
}

async fn work(mut jobs: Receiver<Job>, mut receiving: Receiving) {
    let mut batch = Vec::new();
    while let Some(job) = jobs.recv().await {
        let mut flushed = fill(&mut batch, job);
        let due = tokio::time::Instant::now() + LINGER;
        while flushed.is_none() && batch.len() < BATCH {
            match tokio::time::timeout_at(due, jobs.recv()).await {
                Ok(Some(job)) => flushed = fill(&mut batch, job),
                _ => break,
            }
        }
        if !batch.is_empty() {
            receiving.send(&std::mem::take(&mut batch)).await;
        }
        if let Some(flushed) = flushed {
            let _ = flushed.send(());
        }
    }
}

fn fill(batch: &mut Vec<Traced>, job: Job) -> Option<oneshot::Sender<()>> {
    match job {
        Job::Span(span) => {
            batch.push(*span);
            None
        }
        Job::Flush(done) => Some(done),
    }
}

/// The receiver of spans.
struct Receiving {
    client: reqwest::Client,
    url: String,
    resource: Vec<Json>,
    /// It is said once that it takes nothing, until it does.
    failing: bool,
}

/// Why a batch was not taken.
struct Refused {
    reason: String,
    /// Whether it may be taken later.
    again: bool,
    wait: Option<Duration>,
}

impl Receiving {
    fn new(settings: TraceSettings) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let wrong = || format!("OTEL_EXPORTER_OTLP_HEADERS: `{name}` and its value are no header");
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        // There may be one already; the client needs any.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(REQUEST)
            .default_headers(headers)
            .user_agent(concat!("cloudmarker/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("cannot export traces: {error}"))?;
        let resource = settings.resource.iter().map(|(name, value)| attribute(name, &Value::Text(value.clone())));
        Ok(Self { client, url: settings.url, resource: resource.collect(), failing: false })
    }

    async fn send(&mut self, spans: &[Traced]) {
        let body = json!({"resourceSpans": [{
            "resource": {"attributes": self.resource},
            "scopeSpans": [{
                "scope": {"name": "cloudmarker", "version": env!("CARGO_PKG_VERSION")},
                "spans": spans.iter().map(span).collect::<Vec<_>>(),
            }],
        }]});
        let body = body.to_string();
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=TRIES {
            let refused = match self.post(body.clone()).await {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(url = self.url, "traces are exported again");
                    }
                    return metrics::spans_exported(spans.len() as u64);
                }
                Err(refused) => refused,
            };
            if !std::mem::replace(&mut self.failing, true) {
                let reason = refused.reason;
                tracing::warn!(url = self.url, reason, "traces cannot be exported now; spans are dropped meanwhile");
            }
            if !refused.again || attempt == TRIES {
                break;
            }
            tokio::time::sleep(refused.wait.unwrap_or(pause).min(LAST_PAUSE)).await;
            pause *= 2;
        }
        metrics::spans_dropped(spans.len() as u64);
    }

    async fn post(&self, body: String) -> Result<(), Refused> {
        let request = self.client.post(&self.url).header("content-type", "application/json").body(body);
        let answer = request.send().await.map_err(|error| Refused {
            reason: in_full(&error.without_url()),
            again: true,
            wait: None,
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let wait = answer.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
        Err(Refused {
            reason: format!("it answers {status}"),
            again: matches!(status.as_u16(), 429 | 502 | 503 | 504),
            wait: wait.map(Duration::from_secs),
        })
    }
}

/// An error with all that it comes from.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn span(span: &Traced) -> Json {
    let SpanContext { trace, span: id, .. } = span.context;
    let began = span.began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut told = json!({
        "traceId": format!("{trace:032x}"),
        "spanId": format!("{id:016x}"),
        "flags": 1,
        "name": span.name,
        "kind": match span.kind {
            Kind::Client => 3,
            Kind::Producer => 4,
            Kind::Consumer => 5,
        },
        "startTimeUnixNano": began.as_nanos().to_string(),
        "endTimeUnixNano": (began + span.took).as_nanos().to_string(),
        "attributes": span.attributes.iter().map(|(name, value)| attribute(name, value)).collect::<Vec<_>>(),
    });
    let Some(object) = told.as_object_mut() else { return told };
    if let Some(parent) = span.parent {
        object.insert("parentSpanId".to_owned(), format!("{parent:016x}").into());
    }
    if !span.links.is_empty() {
        let links = span
            .links
            .iter()
            .map(|link| json!({"traceId": format!("{:032x}", link.trace), "spanId": format!("{:016x}", link.span)}));
        object.insert("links".to_owned(), links.collect());
    }
    if let Some(reason) = &span.failure {
        object.insert("status".to_owned(), json!({"code": 2, "message": reason}));
    }
    told
}

fn attribute(name: &str, value: &Value) -> Json {
    // 64-bit numbers are texts in OTLP's JSON.
    let value = match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Number(number) => json!({"intValue": i64::try_from(*number).unwrap_or(i64::MAX).to_string()}),
    };
    json!({"key": name, "value": value})
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn traced() -> Traced {
        Traced {
            name: "collect",
            kind: Kind::Consumer,
            context: SpanContext { trace: 1, span: 2, sampled: true, units: 0 },
            parent: Some(3),
            links: vec![SpanContext { trace: 4, span: 5, sampled: true, units: 0 }],
            attributes: vec![("a", Value::Number(u64::MAX)), ("b", "c".into())],
            began: UNIX_EPOCH + Duration::from_secs(1),
            clock: Instant::now(),
            took: Duration::from_millis(5),
            failure: Some("no".to_owned()),
        }
    }

    #[test]
    fn a_span_is_written_as_otlp_has_it() {
        let told = span(&traced());
        let expected = json!({
            "traceId": "00000000000000000000000000000001",
            "spanId": "0000000000000002",
            "parentSpanId": "0000000000000003",
            "flags": 1,
            "name": "collect",
            "kind": 5,
            "startTimeUnixNano": "1000000000",
            "endTimeUnixNano": "1005000000",
            "attributes": [
                {"key": "a", "value": {"intValue": "9223372036854775807"}},
                {"key": "b", "value": {"stringValue": "c"}},
            ],
            "links": [{"traceId": "00000000000000000000000000000004", "spanId": "0000000000000005"}],
            "status": {"code": 2, "message": "no"},
        });
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_at_once() {
        let (queue, _jobs) = mpsc::channel(1);
        let exporter = Exporter { queue, share: 1.0 };
        metrics::begin(crate::plan::Stage::Sink);
        let dropped = || {
            let text = metrics::text(false);
            let count = text.lines().find_map(|line| line.strip_prefix("cloudmarker_spans_dropped_total "));
            count.unwrap().parse::<u64>().unwrap()
        };
        let before = dropped();
        exporter.take(Box::new(traced()));
        exporter.take(Box::new(traced()));
        assert_eq!(dropped(), before + 1);
    }

    #[test]
    fn the_share_of_traces_is_kept() {
        let (queue, _jobs) = mpsc::channel(1);
        let exporter = |share| Exporter { queue: queue.clone(), share };
        let traces = || (0..1000_u64).map(|_| u128::from(super::super::random()));
        assert!(traces().all(|trace| exporter(1.0).samples(trace) && !exporter(0.0).samples(trace)));
        let sampled = traces().filter(|trace| exporter(0.25).samples(*trace)).count();
        assert!((150..350).contains(&sampled), "{sampled}");
    }
}
