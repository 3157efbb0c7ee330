//! How fast stores take documents through the sink, beside the best that the same server takes of a plain loop with the
//! same batches on the same documents, in the same run.
//!
//! The sink's way begins with compressed frames on the in-process bus and ends with their acknowledgement: taking
//! frames apart, completing each document with its target, batching, writing. The plain loops get finished documents.
//! Rounds of both take turns, so that whatever else the machine does slows both.

mod corpus;
mod memory;
mod plain;
mod sink_path;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use proto::bus::SharedBus;
use proto::bus::memory::{MemoryBus, MemoryOptions};
use serde_json::{Value, json};
use sink::registry::{Context, build_shared};
use sink::store::Store;
use tests::harness::{Collector, MongoServer, SearchKind, SearchServer, Token};

use super::{Cli, median};
use corpus::Corpus;

/// What a store is to reach of a plain loop.
const TARGET: f64 = 0.8;

/// What is measured, as `--only` names it.
const STORES: [&str; 6] =
    ["FileStore", "SqliteStore", "MongoDBStore", "SplunkHECStore", "EsStore Elasticsearch", "EsStore OpenSearch"];

/// Where records come from.
#[derive(Debug, Clone, Copy)]
enum Estate {
    MockCloud,
    Azure,
}

/// How long something took: on the clock, and on this process's processor time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Took {
    seconds: f64,
    processor: f64,
}

pub(super) async fn measure(cli: &Cli) -> Result<()> {
    // reqwest finds no TLS provider by itself.
    rustls::crypto::ring::default_provider().install_default().ok();
    for estate in [Estate::MockCloud, Estate::Azure] {
        let wanted: Vec<&str> =
            STORES.into_iter().filter(|name| format!("stores {name} {estate:?}").contains(&cli.only)).collect();
        if wanted.is_empty() {
            continue;
        }
        let corpus = match estate {
            Estate::MockCloud => Corpus::of_mock_cloud(cli.documents).await?,
            Estate::Azure => Corpus::of_azure(cli.documents).await?,
        };
        println!("{corpus}:");
        for name in wanted {
            match name {
                "FileStore" => file(cli, &corpus).await?,
                "SqliteStore" => sqlite(cli, &corpus).await?,
                "MongoDBStore" => mongodb(cli, &corpus).await?,
                "SplunkHECStore" => splunk(cli, &corpus).await?,
                "EsStore Elasticsearch" => search(cli, &corpus, SearchKind::Elasticsearch).await?,
                _ => search(cli, &corpus, SearchKind::OpenSearch).await?,
            }
        }
    }
    memory::measure(cli).await
}

/// Rounds of the sink's way and of plain loops.
struct Rounds {
    store: String,
    documents: usize,
    ours: Vec<Took>,
    plain: Vec<(&'static str, Vec<Took>)>,
}

impl Rounds {
    fn new(store: impl Into<String>, corpus: &Corpus) -> Self {
        Self { store: store.into(), documents: corpus.len(), ours: Vec::new(), plain: Vec::new() }
    }

    fn add(&mut self, way: &'static str, took: Took) {
        match self.plain.iter_mut().find(|(known, _)| *known == way) {
            Some((_, rounds)) => rounds.push(took),
            None => self.plain.push((way, vec![took])),
        }
    }

    fn print(&self, least: Option<f64>) {
        let documents = self.documents as f64;
        let rate =
            |rounds: &[Took]| documents / median(&mut rounds.iter().map(|took| took.seconds).collect::<Vec<_>>());
        let processor = |rounds: &[Took]| {
            median(&mut rounds.iter().map(|took| took.processor).collect::<Vec<_>>()) / documents * 1e6
        };
        let target = least.map(|least| format!(" (target: {least:.0})")).unwrap_or_default();
        println!(
            "  {}: {:.0} documents/s{target}, {:.1} us of processor time a document",
            self.store,
            rate(&self.ours),
            processor(&self.ours)
        );
        for (way, rounds) in &self.plain {
            // What disturbs a round disturbs both.
            let mut ratios: Vec<f64> =
                self.ours.iter().zip(rounds).map(|(ours, plain)| plain.seconds / ours.seconds).collect();
            let (low, high) =
                ratios.iter().fold((f64::MAX, 0.0_f64), |(low, high), ratio| (low.min(*ratio), high.max(*ratio)));
            println!(
                "    {way}: {:.0} documents/s{}; the store reaches {:.2} of it ({low:.2} to {high:.2}; target: \
                 {TARGET})",
                rate(rounds),
                Some(processor(rounds))
                    .filter(|time| time.is_finite())
                    .map(|time| format!(", {time:.1} us"))
                    .unwrap_or_default(),
                median(&mut ratios)
            );
        }
    }
}

/// The store by itself, for what it makes before the first document.
fn store(corpus: &Corpus, class: &str, params: &Value) -> Result<Arc<dyn Store>> {
    let bus: SharedBus = Arc::new(MemoryBus::new(MemoryOptions::default()));
    let spec = sink_path::spec(class, params.clone())?;
    let plan = corpus.plan(&spec);
    build_shared(Context { bus: &bus, plan: &plan, spec: &spec, params }).map_err(|reason| anyhow!(reason))
}

async fn connected(corpus: &Corpus, class: &str, params: &Value) -> Result<Arc<dyn Store>> {
    let store = store(corpus, class, params)?;
    store.connect().await?;
    Ok(store)
}

async fn file(cli: &Cli, corpus: &Corpus) -> Result<()> {
    let mut rounds = Rounds::new("FileStore", corpus);
    let documents = corpus.documents("FileStore")?;
    for _ in 0..cli.runs {
        let folder = tempfile::tempdir()?;
        let params = json!({"path": text(folder.path())?});
        rounds.ours.push(sink_path::through(corpus, "FileStore", params).await?);
        rounds.add("a plain buffered write, and a sync", plain::file(&folder.path().join("plain"), &documents)?);
    }
    rounds.print(Some(300_000.0));
    Ok(())
}

async fn sqlite(cli: &Cli, corpus: &Corpus) -> Result<()> {
    let mut rounds = Rounds::new("SqliteStore", corpus);
    let folder = tempfile::tempdir()?;
    let rows = folder.path().join("rows.csv");
    for round in 0..cli.runs {
        let path = folder.path().join(format!("inventory-{round}.db"));
        let params = json!({"path": text(&path)?});
        rounds.ours.push(sink_path::through(corpus, "SqliteStore", params).await?);
        if !plain::has_sqlite_shell() {
            continue;
        }
        if !rows.exists() {
            plain::dump_rows(&path, &rows).await?;
        }
        let path = folder.path().join(format!("import-{round}.db"));
        // The same table with the same indexes.
        drop(connected(corpus, "SqliteStore", &json!({"path": text(&path)?})).await?);
        rounds.add("`.import` of the sqlite3 shell", plain::sqlite_import(&path, &rows, corpus.len()).await?);
    }
    rounds.print(Some(50_000.0));
    if !plain::has_sqlite_shell() {
        println!("    no sqlite3 is installed: nothing to compare with");
    }
    Ok(())
}

async fn mongodb(cli: &Cli, corpus: &Corpus) -> Result<()> {
    let mut rounds = Rounds::new("MongoDBStore", corpus);
    let documents = corpus.documents("MongoDBStore")?;
    let server = MongoServer::start().await?;
    let params = json!({"host": "127.0.0.1", "port": server.port(), "username": null, "password": null});
    let mongo = plain::Mongo::connect(server.port()).await?;
    for _ in 0..cli.runs {
        mongo.clear().await?;
        rounds.ours.push(sink_path::through(corpus, "MongoDBStore", params.clone()).await?);
        mongo.check(corpus.len()).await?;
        for (way, how) in
            [("plain `update` commands of upserts", plain::How::Update), ("plain insert_many", plain::How::Insert)]
        {
            mongo.clear().await?;
            let store = connected(corpus, "MongoDBStore", &params).await?;
            rounds.add(
                way,
                mongo.write(how, plain::batches(&documents, store.limits()), store.limits().in_flight).await?,
            );
            mongo.check(corpus.len()).await?;
        }
    }
    rounds.print(None);
    Ok(())
}

async fn splunk(cli: &Cli, corpus: &Corpus) -> Result<()> {
    let mut rounds = Rounds::new("SplunkHECStore", corpus);
    let documents = corpus.documents("SplunkHECStore")?;
    let collector = Collector::start().await?;
    collector.add_token("right", Token::to(&["main"]));
    let params = json!({"uri": collector.url("/services/collector"), "token": "right", "index": "main"});
    let limits = store(corpus, "SplunkHECStore", &params)?.limits();
    for _ in 0..cli.runs {
        rounds.ours.push(sink_path::through(corpus, "SplunkHECStore", params.clone()).await?);
        anyhow::ensure!(collector.count() == corpus.len(), "{} events have arrived", collector.count());
        collector.clear();
        let url = collector.url("/services/collector/event");
        rounds.add("plain posts", plain::hec(&url, plain::batches(&documents, limits), limits.in_flight).await?);
        anyhow::ensure!(collector.count() == corpus.len(), "{} events have arrived", collector.count());
        collector.clear();
    }
    rounds.print(None);
    Ok(())
}

async fn search(cli: &Cli, corpus: &Corpus, kind: SearchKind) -> Result<()> {
    // These imitations are slow.
    let corpus = &corpus.first(corpus.len() / 5)?;
    let mut rounds = Rounds::new(format!("EsStore, {kind:?}, {} documents", corpus.len()), corpus);
    let documents = corpus.documents("EsStore")?;
    for _ in 0..cli.runs {
        // A new server each time: they get slower the more they hold.
        let server = SearchServer::start(kind).await?;
        let params = json!({"url": server.url()});
        rounds.ours.push(sink_path::through(corpus, "EsStore", params).await?);
        anyhow::ensure!(server.count("cloudmarker").await? == corpus.len() as u64, "documents are missing");
        let server = SearchServer::start(kind).await?;
        let store = connected(corpus, "EsStore", &json!({"url": server.url()})).await?;
        let batches = plain::batches(&documents, store.limits());
        rounds.add("plain bulk requests", plain::bulk(&server, batches, store.limits().in_flight).await?);
        anyhow::ensure!(server.count("cloudmarker").await? == corpus.len() as u64, "documents are missing");
    }
    rounds.print(None);
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("an odd path")
}
