//! What a sink has in memory at most, as a process over a broker: with each store, and with one that is much slower
//! than the collector; and what the slow one does to another.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use sink::stores::sqlite::{Cell, query};
use tests::cloudsim::Cloudsim;
use tests::harness::{Collector, MongoServer, NatsServer, SearchKind, SearchServer, Token, Workspace};

use super::super::{Cli, PATIENCE, peak_of, release};
use super::corpus;

/// What a sink may have, in MiB.
const TARGET: u64 = 150;
/// How long the slow store takes for a request, of at most 1 MiB and with three others: about a tenth of what the others
/// take.
const SLOW: Duration = Duration::from_millis(500);

pub(super) async fn measure(cli: &Cli) -> Result<()> {
    if !"stores memory".contains(&cli.only) {
        return Ok(());
    }
    let cloud = corpus::azure(cli.documents).await?;
    println!("memory of a sink, over a broker, with the records of a simulated Azure as they are collected:");
    let sqlite =
        Plugin { key: "sqlite", text: "{plugin: SqliteStore, params: {path: '{out}/inventory.db'}}".to_owned() };
    let mongo = MongoServer::start().await?;
    let mongo = Plugin {
        key: "mongodb",
        text: format!(
            "{{plugin: MongoDBStore, params: {{host: 127.0.0.1, port: {}, username: null, password: null}}}}",
            mongo.port()
        ),
    };
    let search = SearchServer::start(SearchKind::OpenSearch).await?;
    let search =
        Plugin { key: "opensearch", text: format!("{{plugin: EsStore, params: {{url: '{}'}}}}", search.url()) };
    let collector = Collector::start().await?;
    collector.add_token("right", Token::to(&["main"]));
    let splunk = Plugin { key: "splunk", text: hec(&collector.url("/services/collector")) };
    let file = Plugin { key: "file", text: "{plugin: FileStore, params: {path: '{out}'}}".to_owned() };
    for stores in
        [[&file].as_slice(), &[&sqlite], &[&mongo], &[&splunk], &[&search], &[&file, &sqlite, &mongo, &splunk, &search]]
    {
        run(&cloud, stores).await?.print();
        collector.clear();
    }
    let slow = SlowCollector::start().await?;
    let slowed = Plugin { key: "slow", text: hec(&slow.url) };
    let alone = run(&cloud, &[&file, &sqlite]).await?;
    alone.print();
    let beside = run(&cloud, &[&file, &sqlite, &slowed]).await?;
    beside.print();
    println!(
        "    the slow store took {} requests of {SLOW:?} each; beside it the inventory was complete after {:.2} times the \
         time that it takes without",
        slow.requests.load(Ordering::Relaxed),
        beside.complete / alone.complete
    );
    Ok(())
}

fn hec(url: &str) -> String {
    format!("{{plugin: SplunkHECStore, params: {{uri: '{url}', token: right, index: main}}}}")
}

struct Plugin {
    key: &'static str,
    text: String,
}

/// A run of an audit with some stores.
struct Seen {
    stores: String,
    records: u64,
    seconds: f64,
    /// After what time the inventory had all, if there is one.
    complete: f64,
    /// KiB.
    peak: u64,
}

impl Seen {
    fn print(&self) {
        println!(
            "  {}: peak {} MiB (target: under {TARGET}); {} records in {:.1} s",
            self.stores,
            self.peak / 1024,
            self.records,
            self.seconds
        );
    }
}

async fn run(cloud: &Cloudsim, stores: &[&Plugin]) -> Result<Seen> {
    let classes = ["AzCloud", "AzVM", "AzDisk", "AzStorageAccount"];
    let plugins: String = classes.iter().map(|class| corpus::azure_plugin(cloud, class)).collect();
    let targets: String = stores.iter().map(|store| format!("  {}: {}\n", store.key, store.text)).collect();
    let keys: Vec<&str> = stores.iter().map(|store| store.key).collect();
    let workspace = Workspace::new(&format!(
        "plugins:\n{plugins}{targets}audits:\n  audit: {{clouds: [{}], stores: [{}], events: [], alerts: []}}\n\
         run: [audit]\n",
        classes.map(str::to_ascii_lowercase).join(", "),
        keys.join(", ")
    ))?;
    let nats = NatsServer::start_unsynced().await?;
    let mut services = Vec::new();
    for stage in ["collector", "sink"] {
        services.push(release(stage)?.args(["--nats", nats.url()]).start()?);
    }
    let began = Instant::now();
    let complete = Arc::new(Mutex::new(0.0));
    let watching = tokio::spawn(watch(workspace.out().join("inventory.db"), began, Arc::clone(&complete)));
    let args = ["run", "--now", "--nats", nats.url()];
    let mut coordinator = release("coordinator")?.args(args).current_dir(workspace.path()).start()?;
    let ended = coordinator.wait(PATIENCE).await?.with_code(0)?;
    let seconds = began.elapsed().as_secs_f64();
    watching.abort();
    let complete = *complete.lock().unwrap_or_else(PoisonError::into_inner);
    let sink = services.last().context("no sink")?;
    let records = records_of(&format!("{}{}", ended.stdout, ended.stderr));
    ensure!(records > 0, "nothing was collected: {}", ended.stderr);
    Ok(Seen { stores: keys.join(" and "), records, seconds, complete, peak: peak_of(sink)? })
}

/// Notes after what time an inventory has grown last.
async fn watch(path: PathBuf, began: Instant, grown: Arc<Mutex<f64>>) {
    let mut before = 0;
    loop {
        let mut count = 0;
        // There may be none yet.
        let _ = query(&path, "SELECT count(*) FROM documents", |_, row| {
            if let Some([Cell::Integer(rows)]) = row {
                count = *rows;
            }
            Ok(())
        });
        if count > before {
            before = count;
            *grown.lock().unwrap_or_else(PoisonError::into_inner) = began.elapsed().as_secs_f64();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a run says at its end: `audit: ended: 5 of 5 units, 100 records, 0 events`.
fn records_of(text: &str) -> u64 {
    let ended = text.lines().rfind(|line| line.contains("ended:")).unwrap_or_default();
    let before = ended.split(" records").next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// A collector that takes everything, slowly.
struct SlowCollector {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl SlowCollector {
    async fn start() -> Result<Self> {
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&requests);
        let collect = move |body: Bytes| async move {
            // Whether the token is good is answered at once.
            if !body.is_empty() {
                seen.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(SLOW).await;
            }
            r#"{"text": "Success", "code": 0}"#
        };
        let router = Router::new().route("/services/collector/event", post(collect)).layer(DefaultBodyLimit::disable());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/services/collector", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, requests })
    }
}
