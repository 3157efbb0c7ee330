//! Traces: a receiver of OTLP sees one trace follow a unit through all stages.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use tests::harness::{Collector, NatsServer, PATIENCE, Program, STAGES, Token, WebhookReceiver, Workspace};

/// A receiver of OTLP over HTTP, with JSON bodies.
#[derive(Debug, Clone, Default)]
struct Receiver {
    bodies: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
}

impl Receiver {
    async fn start() -> Result<(Self, String)> {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let take = async |State(receiver): State<Self>, headers: HeaderMap, body: String| {
            let body = serde_json::from_str(&body).unwrap();
            receiver.bodies.lock().unwrap().push((headers, body));
            axum::Json(json!({"partialSuccess": {}}))
        };
        let app = axum::Router::new().route("/v1/traces", axum::routing::post(take)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok((receiver, url))
    }

    /// All spans, each with the name of its service.
    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        let resources = bodies.iter().flat_map(|(_, body)| body["resourceSpans"].as_array().unwrap());
        let of = |resource: &Value| {
            let service = text(&resource["resource"]["attributes"], "service.name");
            let scopes = resource["scopeSpans"].as_array().unwrap().iter();
            let spans = scopes.flat_map(|scope| scope["spans"].as_array().unwrap());
            spans.map(|span| Span { service: service.clone(), span: span.clone() }).collect::<Vec<_>>()
        };
        resources.flat_map(of).collect()
    }
}

#[derive(Debug, Clone)]
struct Span {
    service: String,
    span: Value,
}

fn text(attributes: &Value, name: &str) -> String {
    let found = attributes.as_array().into_iter().flatten().find(|attribute| attribute["key"] == name);
    found.and_then(|attribute| attribute["value"]["stringValue"].as_str()).unwrap_or_default().to_owned()
}

impl Span {
    fn field(&self, name: &str) -> &str {
        self.span[name].as_str().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.field("name")
    }

    fn trace(&self) -> &str {
        self.field("traceId")
    }

    fn id(&self) -> &str {
        self.field("spanId")
    }

    fn parent(&self) -> &str {
        self.field("parentSpanId")
    }

    fn attribute(&self, name: &str) -> String {
        text(&self.span["attributes"], name)
    }

    /// Ids and times as the protocol has them.
    fn check(&self) {
        let is_hex = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_hex(self.trace(), 32) && is_hex(self.id(), 16), "{self:?}");
        assert!(self.parent().is_empty() || is_hex(self.parent(), 16), "{self:?}");
        let time = |name| self.field(name).parse::<u128>().unwrap();
        assert!(time("endTimeUnixNano") >= time("startTimeUnixNano"), "{self:?}");
        assert!(time("startTimeUnixNano") > 1_700_000_000_000_000_000, "{self:?}");
        assert!((3..=5).contains(&self.span["kind"].as_i64().unwrap()), "{self:?}");
    }
}

fn configuration(splunk: &Collector, hook: &WebhookReceiver, records: u64) -> String {
    format!(
        "
plugins:
  mockcloud: {{params: {{record_count: {records}}}}}
  mockevent: {{params: {{n: 10}}}}
  splunk:
    plugin: cloudmarker.stores.splunkhecstore.SplunkHECStore
    params: {{uri: '{}', token: right, index: main}}
  hook: {{plugin: WebhookAlert, params: {{url: '{}', allow: [127.0.0.1]}}}}
audits:
  prod: {{clouds: [mockcloud], stores: [splunk], events: [mockevent], alerts: [hook]}}
run: [prod]
",
        splunk.url("/services/collector"),
        hook.url("/")
    )
}

#[tokio::test]
async fn one_trace_follows_a_unit_through_all_stages() -> Result<()> {
    let (receiver, url) = Receiver::start().await?;
    let (splunk, hook) = (Collector::start().await?, WebhookReceiver::start().await?);
    splunk.add_token("right", Token::to(&["main"]));
    let nats = NatsServer::start().await?;
    let start = |stage: &str| {
        let service = Program::named(stage).args(["--nats", nats.url()]);
        service.env("OTEL_EXPORTER_OTLP_ENDPOINT", &url).env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=ours").start()
    };
    let mut services: Vec<Program> = STAGES.into_iter().map(start).collect::<Result<_>>()?;
    let workspace = Workspace::new(&configuration(&splunk, &hook, 3_000))?;
    workspace.run(&["run", "--now", "--nats", nats.url(), "--otlp", &url]).await?.with_code(0)?;
    for service in &mut services {
        service.terminate()?;
        service.wait(PATIENCE).await?.with_code(0)?;
    }

    let spans = receiver.spans();
    spans.iter().for_each(Span::check);
    let sent = receiver.bodies.lock().unwrap().clone();
    assert!(sent.iter().all(|(headers, _)| headers["content-type"] == "application/json"));
    assert!(sent.iter().any(|(headers, _)| headers.get("x-tenant").is_some_and(|tenant| tenant == "ours")));
    let ids: BTreeSet<&str> = spans.iter().map(Span::id).collect();
    assert_eq!(ids.len(), spans.len(), "ids are unique");

    let run = spans.iter().find(|span| span.name() == "run").context("no run")?;
    assert_eq!((run.service.as_str(), run.parent()), ("coordinator", ""));
    let of_run: Vec<&Span> = spans.iter().filter(|span| span.trace() == run.trace()).collect();
    let stages: BTreeSet<(&str, &str)> = of_run.iter().map(|span| (span.service.as_str(), span.name())).collect();
    let expected = [
        ("alerter", "deliver"),
        ("collector", "collect"),
        ("coordinator", "run"),
        ("evaluator", "evaluate"),
        ("sink", "store"),
        ("sink", "write"),
    ];
    assert_eq!(stages, BTreeSet::from(expected));

    // From a document's way into the store back to the run, step by step.
    let by_id: BTreeMap<&str, &Span> = of_run.iter().map(|span| (span.id(), *span)).collect();
    let frames = of_run.iter().filter(|span| matches!(span.name(), "store" | "evaluate"));
    for frame in frames.clone() {
        let unit = by_id.get(frame.parent()).context("a frame that no unit made")?;
        assert_eq!(unit.name(), "collect", "{frame:?}");
        let mut up = *unit;
        while up.name() == "collect" {
            up = by_id.get(up.parent()).context("a unit that nobody made")?;
        }
        assert_eq!(up.id(), run.id());
    }
    // 3,000 records are 24 frames, evaluated and stored.
    assert_eq!(frames.count(), 48);
    let write = of_run.iter().find(|span| span.name() == "write").context("no write")?;
    assert_eq!(by_id.get(write.parent()).context("no parent")?.name(), "store");
    let deliver = of_run.iter().find(|span| span.name() == "deliver").context("no delivery")?;
    assert_eq!(deliver.parent(), run.id());
    let linked = deliver.span["links"][0]["spanId"].as_str().context("no link")?;
    assert_eq!(by_id.get(linked).context("linked to nothing")?.name(), "evaluate");
    for span in &of_run {
        assert_eq!(span.attribute("cloudmarker.audit"), if span.name() == "write" { "" } else { "prod" }, "{span:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_nobody_receives_slows_nobody_down() -> Result<()> {
    // It takes connections, and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (splunk, hook) = (Collector::start().await?, WebhookReceiver::start().await?);
    splunk.add_token("right", Token::to(&["main"]));
    let workspace = Workspace::new(&configuration(&splunk, &hook, 3_000))?;
    let began = Instant::now();
    let output = workspace.run(&["run", "--now", "--otlp", &url]).await?.with_code(0)?;
    // At the end, what is left is waited for shortly.
    ensure!(began.elapsed() < Duration::from_secs(30), "{:?}: {output:?}", began.elapsed());
    assert_eq!(splunk.count(), 3_000);
    drop(listener);
    Ok(())
}

#[tokio::test]
async fn a_run_in_one_process_is_traced_too() -> Result<()> {
    let (receiver, url) = Receiver::start().await?;
    let (splunk, hook) = (Collector::start().await?, WebhookReceiver::start().await?);
    splunk.add_token("right", Token::to(&["main"]));
    let workspace = Workspace::new(&configuration(&splunk, &hook, 100))?;
    let run =
        workspace.coordinator(&["run", "--now"]).env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{url}/v1/traces"));
    run.start()?.wait(PATIENCE).await?.with_code(0)?;
    let names: BTreeSet<String> = receiver.spans().iter().map(|span| span.name().to_owned()).collect();
    for name in ["run", "collect", "evaluate", "store", "write", "deliver"] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    let wrong = workspace.run(&["run", "--now", "--otlp", "localhost:4317"]).await?.with_code(2)?;
    ensure!(wrong.stderr.contains("--otlp: `localhost:4317"), "{wrong:?}");
    Ok(())
}
