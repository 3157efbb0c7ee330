//! What services tell those who operate them: health, metrics, and how they stop taking work.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

#[path = "metrics/text.rs"]
mod text;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::harness::{Collector, NatsServer, PATIENCE, Program, STAGES, Token, Workspace, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use text::Scrape;

/// The address that a program says it answers at.
async fn address(program: &Program) -> Result<String> {
    let line = program.wait_for_line("answering /healthz", PATIENCE).await?;
    let (_, rest) = line.split_once("address=").context("no address")?;
    Ok(rest.split_whitespace().next().unwrap_or_default().to_owned())
}

/// The status and the body of an answer.
async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    if path == "/metrics" {
        ensure!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    }
    Ok((status, body.to_owned()))
}

async fn scrape(address: &str) -> Result<Scrape> {
    let (status, body) = get(address, "/metrics").await?;
    ensure!(status == 200, "{status}");
    Scrape::read(&body)
}

fn service(nats: &str, stage: &str, more: &[&str]) -> Result<Program> {
    Program::named(stage).args(["--nats", nats, "--health", "127.0.0.1:0"]).args(more.iter().copied()).start()
}

/// A million records would tell the same; these are enough for a look in mid-run.
const RECORDS: u64 = 20_000;

#[tokio::test]
async fn every_service_can_be_scraped_in_mid_run() -> Result<()> {
    let splunk = Collector::start().await?;
    splunk.add_token("right", Token::to(&["main"]));
    let nats = NatsServer::start().await?;
    let mut services = Vec::new();
    for stage in STAGES {
        services.push(service(nats.url(), stage, &[])?);
    }
    let workspace = Workspace::new(&format!(
        "
plugins:
  mockcloud: {{params: {{record_count: {RECORDS}}}}}
  mockevent: {{params: {{n: 3}}}}
  splunk:
    plugin: cloudmarker.stores.splunkhecstore.SplunkHECStore
    params: {{uri: '{}', token: right, index: main}}
audits:
  prod: {{clouds: [mockcloud], stores: [splunk], events: [mockevent], alerts: [filestore]}}
run: [prod]
",
        splunk.url("/services/collector")
    ))?;
    let mut coordinator = workspace
        .coordinator(&["run", "--now", "--nats", nats.url(), "--health", "127.0.0.1:0"])
        .env("RUST_LOG", "info")
        .start()?;
    let mut addresses = vec![address(&coordinator).await?];
    for program in &services {
        addresses.push(address(program).await?);
    }

    let in_mid_run = async {
        loop {
            let leads = scrape(&addresses[0]).await?.sum("cloudmarker_run_active", &[("audit", "prod")]);
            let read = scrape(&addresses[1]).await?.sum("cloudmarker_records_total", &[("plugin", "mockcloud")]);
            if leads == 1.0 && read > 0.0 {
                return anyhow::Ok(());
            }
        }
    };
    timeout(PATIENCE, in_mid_run).await.context("nothing is read")??;
    // All that is told is right at any moment.
    for address in &addresses {
        ensure!(scrape(address).await?.sum("process_resident_memory_bytes", &[]) > 1e6, "{address}");
        assert_eq!(get(address, "/healthz").await?, (200, "alive\n".to_owned()));
    }
    let output = coordinator.wait(PATIENCE).await?.with_code(0)?;
    ensure!(output.stdout.contains("prod"), "{output:?}");

    let mut told = Vec::new();
    for address in &addresses[1..] {
        assert_eq!(get(address, "/readyz").await?, (200, "ready\n".to_owned()));
        told.push(scrape(address).await?);
    }
    let [collector, evaluator, sink, _] = &told[..] else { panic!("four") };
    let of_cloud = [("audit", "prod"), ("plugin", "mockcloud")];
    let records = RECORDS as f64;
    assert_eq!(collector.sum("cloudmarker_records_total", &of_cloud), records);
    ensure!(collector.sum("cloudmarker_units_total", &[("outcome", "done")]) >= records / 10_000.0);
    ensure!(collector.sum("cloudmarker_published_bytes_total", &[("kind", "record")]) > records);
    assert_eq!(evaluator.sum("cloudmarker_records_evaluated_total", &[("audit", "prod")]), records);
    let of_rule = |result| [("plugin", "mockevent"), ("result", result)];
    let results = |result| evaluator.sum("cloudmarker_rule_results_total", &of_rule(result));
    assert_eq!(results("pass") + results("fail"), records);
    let events = evaluator.sum("cloudmarker_events_total", &[("plugin", "mockevent")]);
    ensure!(events > 0.0 && events == results("fail"), "{events}");
    let stored = [("role", "store"), ("plugin", "splunk"), ("outcome", "stored")];
    assert_eq!(sink.sum("cloudmarker_documents_total", &stored), records);
    let delivered = [("role", "alert"), ("plugin", "filestore"), ("outcome", "delivered")];
    assert_eq!(sink.sum("cloudmarker_documents_total", &delivered), events);
    ensure!(sink.sum("cloudmarker_store_write_seconds_count", &[("plugin", "splunk")]) > 0.0);
    let acknowledged = |scrape: &Scrape| {
        scrape.sum("cloudmarker_messages_settled_total", &[("kind", "record"), ("how", "acknowledged")])
    };
    assert_eq!(acknowledged(evaluator), acknowledged(sink));
    for scrape in &told {
        assert_eq!(scrape.sum("cloudmarker_messages_in_hand", &[]), 0.0);
        // A version would be a label without bound.
        let values = scrape.samples.iter().flat_map(|sample| sample.labels.values());
        let years: BTreeSet<&String> = values.filter(|value| value.len() == 15 && value.contains('_')).collect();
        assert!(years.iter().all(|value| !value.starts_with("20")), "{years:?}");
    }
    Ok(())
}

/// A server that takes a message and does not answer before it is told to.
async fn holding() -> Result<(String, mpsc::UnboundedReceiver<()>, Arc<Notify>)> {
    let (told, came) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let goes = Arc::clone(&go);
    let answer = move || {
        let (told, goes) = (told.clone(), Arc::clone(&goes));
        async move {
            let _ = told.send(());
            goes.notified().await;
            "taken"
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let app = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok((url, came, go))
}

#[tokio::test]
async fn a_worker_that_drains_says_so_until_it_has_drained() -> Result<()> {
    let (url, mut came, go) = holding().await?;
    let nats = NatsServer::start().await?;
    let mut services = Vec::new();
    for stage in STAGES {
        services.push(service(nats.url(), stage, &[])?);
    }
    let workspace = Workspace::new(&format!(
        "
plugins:
  hook: {{plugin: WebhookAlert, params: {{url: '{url}', allow: [127.0.0.1]}}}}
audits:
  prod: {{clouds: [mockcloud], stores: [], events: [mockevent], alerts: [hook]}}
run: [prod]
"
    ))?;
    let mut coordinator = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
    timeout(PATIENCE, came.recv()).await?.context("no message")?;
    let alerter = services.last_mut().context("an alerter")?;
    let address = address(alerter).await?;
    assert_eq!(get(&address, "/readyz").await?.0, 200);
    alerter.terminate()?;
    alerter.wait_for_line("draining", PATIENCE).await?;
    assert_eq!(get(&address, "/readyz").await?, (503, "draining\n".to_owned()));
    assert_eq!(get(&address, "/healthz").await?.0, 200);
    assert_eq!(scrape(&address).await?.sum("cloudmarker_draining", &[]), 1.0);
    go.notify_one();
    alerter.wait(PATIENCE).await?.with_code(0)?;
    coordinator.wait(PATIENCE).await?.with_code(0)?;
    ensure!(came.try_recv().is_err(), "told once");
    Ok(())
}

#[tokio::test]
async fn a_worker_answers_before_there_is_a_broker() -> Result<()> {
    let nobody = format!("nats://127.0.0.1:{}", free_port()?);
    let mut worker = service(&nobody, "sink", &[])?;
    let address = address(&worker).await?;
    assert_eq!(get(&address, "/healthz").await?.0, 200);
    assert_eq!(get(&address, "/readyz").await?, (503, "waiting for the broker\n".to_owned()));
    scrape(&address).await?;
    assert_eq!(get(&address, "/other").await?.0, 404);
    worker.terminate()?;
    worker.wait(PATIENCE).await?.with_code(0)?;
    Ok(())
}

#[tokio::test]
async fn a_worker_above_its_memory_leaves_the_work_to_others() -> Result<()> {
    let nats = NatsServer::start().await?;
    // No program is so small.
    let small = service(nats.url(), "collector", &["--max-memory", "1MiB"])?;
    let small_address = address(&small).await?;
    small.wait_for_line("--max-memory allows", PATIENCE).await?;
    let mut services = Vec::new();
    for stage in STAGES {
        services.push(service(nats.url(), stage, &[])?);
    }
    let large = address(&services[0]).await?;
    let workspace = Workspace::new(
        "
plugins:
  mockcloud: {params: {record_count: 30000}}
  filestore: {params: {path: '{out}'}}
audits:
  prod: {clouds: [mockcloud], stores: [filestore], events: [], alerts: []}
run: [prod]
",
    )?;
    workspace.run(&["run", "--now", "--nats", nats.url()]).await?.with_code(0)?;
    let (limited, free) = (scrape(&small_address).await?, scrape(&large).await?);
    assert_eq!(limited.sum("cloudmarker_memory_limited", &[]), 1.0);
    assert_eq!(free.sum("cloudmarker_memory_limited", &[]), 0.0);
    let records = |scrape: &Scrape| scrape.sum("cloudmarker_records_total", &[]);
    assert_eq!(records(&limited) + records(&free), 30_000.0);
    ensure!(records(&free) >= 20_000.0, "{}", records(&free));
    let said = small.stderr().lines().filter(|line| line.contains("--max-memory allows")).count();
    assert_eq!(said, 1);
    Ok(())
}

#[tokio::test]
async fn a_coordinator_tells_of_the_last_run_of_each_audit() -> Result<()> {
    let workspace = Workspace::new(
        "
plugins:
  mockcloud: {params: {record_count: 50}}
  filestore: {params: {path: '{out}'}}
audits:
  prod: {clouds: [mockcloud], stores: [filestore], events: [mockevent], alerts: [filestore]}
run: [prod]
schedule: every 1s
",
    )?;
    let mut daemon = workspace.coordinator(&["run", "--health", "127.0.0.1:0"]).env("RUST_LOG", "info").start()?;
    let address = address(&daemon).await?;
    let of_audit = [("audit", "prod")];
    let ended = async {
        loop {
            let scrape = scrape(&address).await?;
            if scrape.sum("cloudmarker_runs_total", &[("audit", "prod"), ("outcome", "complete")]) >= 1.0 {
                return anyhow::Ok(scrape);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let scrape = timeout(PATIENCE, ended).await.context("no run ends")??;
    assert_eq!(scrape.sum("cloudmarker_run_last_complete", &of_audit), 1.0);
    assert_eq!(scrape.sum("cloudmarker_run_coverage_gaps", &of_audit), 0.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    let end = scrape.sum("cloudmarker_run_last_end_timestamp_seconds", &of_audit);
    ensure!(end <= now && now - end < 60.0, "{end}");
    // All stages are in this process, and so are their counts.
    ensure!(scrape.sum("cloudmarker_records_total", &of_audit) >= 50.0);
    ensure!(scrape.sum("cloudmarker_records_evaluated_total", &of_audit) >= 50.0);
    assert_eq!(get(&address, "/readyz").await?, (200, "ready\n".to_owned()));
    daemon.terminate()?;
    daemon.wait(PATIENCE).await?.with_code(0)?;
    Ok(())
}

/// The options that a text names.
fn options(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 2 && !word.ends_with('-')).collect()
}

#[tokio::test]
async fn the_examples_name_options_that_there_are() -> Result<()> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut helps = String::new();
    for words in
        [&["coordinator", "run"][..], &["coordinator", "up"], &["collector"], &["evaluator"], &["sink"], &["alerter"]]
    {
        let help = Program::named(words[0]).args(words[1..].iter().copied()).arg("--help").start()?;
        helps.push_str(&{ help }.wait(PATIENCE).await?.with_code(0)?.stdout);
    }
    let known = options(&helps);
    // Of docker and systemctl.
    let others = BTreeSet::from(["--build", "--scale", "--now"]);
    let mut seen = BTreeSet::new();
    for file in [
        "README.md",
        "compose/compose.yaml",
        "kubernetes/cloudmarker.yaml",
        "systemd/cloudmarker@.service",
        "systemd/cloudmarker-coordinator.service",
    ] {
        let text = std::fs::read_to_string(deploy.join(file))?;
        for option in options(&text).difference(&others) {
            ensure!(known.contains(option), "{file}: no program has the option {option}");
            seen.insert((*option).to_owned());
        }
    }
    ensure!(seen.contains("--max-memory") && seen.contains("--otlp") && seen.len() > 8, "{seen:?}");
    Ok(())
}

/// All that stands in `expr` anywhere in a dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, entry) in entries {
                match entry {
                    Value::String(text) if key == "expr" || key == "query" || key == "definition" => {
                        found.push(text.clone());
                    }
                    entry => expressions(entry, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_names_metrics_that_there_are() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana");
    let known: BTreeSet<&str> = proto::service::metrics::names().iter().map(String::as_str).collect();
    let mut used = BTreeSet::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        let mut found = Vec::new();
        expressions(&dashboard, &mut found);
        ensure!(found.len() > 10, "{}: {}", path.display(), found.len());
        for expression in found {
            let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let names = words.filter(|word| word.starts_with("cloudmarker_") || word.starts_with("process_"));
            for name in names {
                ensure!(known.contains(name), "{}: there is no metric {name}", path.display());
                used.insert(name.to_owned());
            }
        }
    }
    ensure!(used.len() >= 20, "{used:?}");
    Ok(())
}
