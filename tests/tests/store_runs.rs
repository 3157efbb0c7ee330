//! Stores that are servers, in whole runs of five processes over a broker: whatever is killed or restarted in the
//! middle, each document is there once, equal by content.
//!
//! What is told of the servers: MongoDB is the genuine one, and is killed. The two that speak as Elasticsearch and
//! OpenSearch do are imitations: noida-db now and then loses what it has just confirmed, when it is stopped, too, and
//! osmem-server keeps nothing over a restart, so neither is restarted. Splunk's collector is an imitation, too, and Splunk can replace no event: there it is shown that nothing is missing, and that what is doubled has one id.
//!
//! 100,000 records each. The two imitations of Elasticsearch take some 4,000 documents a second and get slower the more
//! they hold, so what is killed there is killed among 20,000.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use mongodb::bson::{self, Bson, Document, doc};
use mongodb::options::{ClientOptions, ServerAddress};
use proto::identity::IdMaker;
use proto::subject::{Key, Version};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sink::stores::sqlite::{Cell, query};
use tests::harness::{
    Collector, Fault, MongoServer, NatsServer, Output, Program, SearchKind, SearchServer, Services, Token, Workspace,
};

const RECORDS: u64 = 100_000;
/// Where a server is slow and many things happen to it.
const FEWER: u64 = 20_000;
/// Every so many records make an event.
const EVERY: usize = 50;
/// How long a run may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(300);

const AUDIT: &str = "
plugins:
  thestore: {plugin: CLASS, params: PARAMS}
  mockcloud: {params: {record_count: RECORDS}}
  mockevent: {params: {n: 50}}
audits:
  audit: {clouds: [mockcloud], stores: [thestore], events: [mockevent], alerts: [thestore]}
run: [audit]
nats: {ack_wait: 2s}
";

/// A server that documents go to.
enum Place {
    Mongo(MongoServer),
    Search(SearchServer),
    Splunk(Collector),
}

impl Place {
    async fn mongo() -> Result<Self> {
        Ok(Self::Mongo(MongoServer::start().await?))
    }

    async fn search(kind: SearchKind) -> Result<Self> {
        Ok(Self::Search(SearchServer::start(kind).await?))
    }

    async fn splunk() -> Result<Self> {
        let collector = Collector::start().await?;
        collector.add_token("right", Token::to(&["main"]));
        Ok(Self::Splunk(collector))
    }

    /// The class that writes to it, and its parameters.
    fn plugin(&self) -> (&'static str, Value) {
        match self {
            Self::Mongo(server) => ("MongoDBStore", json!({"host": "127.0.0.1", "port": server.port()})),
            Self::Search(server) => ("EsStore", json!({"host": "127.0.0.1", "port": server.port()})),
            Self::Splunk(collector) => {
                ("SplunkHECStore", json!({"uri": collector.url(""), "token": "right", "index": "main"}))
            }
        }
    }

    fn collection<T: Send + Sync>(server: &MongoServer) -> Result<mongodb::Collection<T>> {
        let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(server.port()) };
        let client = mongodb::Client::with_options(ClientOptions::builder().hosts(vec![address]).build())?;
        Ok(client.database("cloudmarker").collection("cloudmarker"))
    }

    /// How many documents there are by now.
    async fn count(&self) -> Result<u64> {
        match self {
            Self::Mongo(server) => Ok(Self::collection::<Document>(server)?.count_documents(doc! {}).await?),
            // There is no index before the first document.
            Self::Search(server) => Ok(server.count("cloudmarker").await.unwrap_or(0)),
            Self::Splunk(collector) => Ok(u64::try_from(collector.count())?),
        }
    }

    /// All documents of an origin, by the ids that the server has them under.
    async fn all<T: DeserializeOwned + Send + Sync + Unpin>(&self, origin: &str) -> Result<Vec<(String, T)>> {
        match self {
            Self::Mongo(server) => {
                let mut found = Self::collection::<Document>(server)?.find(doc! {"com.origin_type": origin}).await?;
                let mut all = Vec::new();
                while let Some(mut document) = found.try_next().await? {
                    let Some(Bson::String(id)) = document.remove("_id") else { anyhow::bail!("no id: {document}") };
                    all.push((id, bson::deserialize_from_document(document)?));
                }
                Ok(all)
            }
            Self::Search(server) => server.all("cloudmarker", &json!({"term": {"com.origin_type": origin}})).await,
            Self::Splunk(collector) => {
                let (of, mut all) = (format!("\"origin_type\":\"{origin}\",\"target_key\""), Vec::new());
                for event in collector.events().iter().filter(|event| event.event.contains(&of)) {
                    let id = event.json()["com"]["id"].as_str().context("no id")?.to_owned();
                    all.push((id, serde_json::from_str(&event.event)?));
                }
                Ok(all)
            }
        }
    }

    /// Restarts the server as hard as what it has confirmed outlives.
    async fn restart(&mut self) -> Result<()> {
        match self {
            Self::Mongo(server) => server.restart().await,
            Self::Search(server) => {
                server.stop().await?;
                server.restart().await
            }
            Self::Splunk(_) => anyhow::bail!("it is a part of this process"),
        }
    }
}

/// A record of MockCloud as it is stored. Nothing else may be in it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    raw: Data,
    ext: Ext,
    com: Com,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    data: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ext {
    cloud_type: String,
    record_type: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Com {
    cloud_type: String,
    record_type: String,
    id: String,
    key: String,
    audit_key: String,
    audit_version: String,
    origin_key: String,
    origin_class: String,
    origin_worker: String,
    origin_type: String,
    target_key: String,
    target_class: String,
    target_worker: String,
    target_type: String,
}

/// What has to be there of a version.
struct Truth {
    ids: IdMaker,
    version: String,
    class: &'static str,
}

impl Truth {
    fn new(version: &str, class: &'static str) -> Result<Self> {
        let ids = IdMaker::of_records(&Key::new("audit")?, &Version::new(version)?, &Key::new("mockcloud")?);
        Ok(Self { ids, version: version.to_owned(), class })
    }

    fn record_type(number: u64) -> &'static str {
        if number.is_multiple_of(2) { "foo" } else { "bar" }
    }

    fn id(&self, number: u64) -> String {
        self.ids.id(&[Self::record_type(number), &format!("mockcloud/{number}")]).to_string()
    }

    fn record(&self, number: u64) -> Record {
        let text = str::to_owned;
        Record {
            raw: Data { data: number },
            ext: Ext { cloud_type: text("mock"), record_type: text(Self::record_type(number)) },
            com: Com {
                cloud_type: text("mock"),
                record_type: text("mock"),
                id: self.id(number),
                key: format!("mockcloud/{number}"),
                audit_key: text("audit"),
                audit_version: self.version.clone(),
                origin_key: text("mockcloud"),
                origin_class: text("MockCloud"),
                origin_worker: text("audit_mockcloud"),
                origin_type: text("cloud"),
                target_key: text("thestore"),
                target_class: text(self.class),
                target_worker: text("audit_thestore"),
                target_type: text("store"),
            },
        }
    }

    /// Holds an event against what MockEvent makes of a record; the ids of events are what the server has.
    fn verify_event(&self, id: &str, event: &Value) -> Result<u64> {
        let number = event["ext"]["data"].as_u64().with_context(|| format!("no data: {event}"))?;
        let finding = event["com"]["finding_id"].as_str().filter(|finding| finding.len() == 32);
        let expected = json!({
            "ext": {"cloud_type": "mock", "record_type": "mock_event", "data": number, "n": EVERY},
            "com": {
                "record_type": "mock_event",
                "description": format!("{number} is a multiple of {EVERY}."),
                "recommendation": format!("Divide {number} by {EVERY} and confirm that the remainder is 0."),
                "id": id, "finding_id": finding, "severity": "info", "title": "Numbers are not multiples of n",
                "rule": "mock_event", "rule_version": 1, "controls": {},
                "resource": {
                    "cloud": "mock", "account": null, "type": Self::record_type(number), "id": null, "name": null,
                    "region": null,
                },
                "source": {
                    "origin_key": "mockcloud", "origin_class": "MockCloud", "origin_worker": "audit_mockcloud",
                    "origin_type": "cloud", "id": self.id(number), "record_type": Self::record_type(number),
                },
                "audit_key": "audit", "audit_version": self.version, "origin_key": "mockevent",
                "origin_class": "MockEvent", "origin_worker": "audit_mockevent", "origin_type": "event",
                "target_key": "thestore", "target_class": self.class, "target_worker": "audit_thestore",
                "target_type": "alert",
            },
        });
        ensure!(*event == expected, "the event {id} is\n{event}\nand not\n{expected}");
        Ok(number)
    }
}

struct Run {
    nats: NatsServer,
    services: Services,
    workspace: Workspace,
    coordinator: Program,
    place: Place,
    records: u64,
}

impl Run {
    /// A run of so many records that is in the middle: a tenth of them is stored.
    async fn begin(place: Place, records: u64, of_each: usize) -> Result<Self> {
        let nats = NatsServer::start().await?;
        let services = Services::start(&nats, of_each)?;
        let (class, params) = place.plugin();
        let audit = AUDIT.replace("CLASS", class).replace("PARAMS", &params.to_string());
        let workspace = Workspace::new(&audit.replace("RECORDS", &records.to_string()))?;
        let coordinator = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
        coordinator.wait_for_line("collecting", PATIENCE).await?;
        let some = async {
            // To count is work for a server: asked without a pause, it does nothing else.
            while place.count().await? < records / 10 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, some).await??;
        Ok(Self { nats, services, workspace, coordinator, place, records })
    }

    /// What is done now is done in the middle.
    fn is_running(&self) -> Result<()> {
        ensure!(!self.coordinator.stdout().contains("version "), "the run is over: {}", self.coordinator.stdout());
        Ok(())
    }

    /// Kills the coordinator, and has another one end the run.
    async fn resume(&mut self) -> Result<Output> {
        self.coordinator.kill9().await?;
        let told = self.coordinator.wait_for_line("--resume ", PATIENCE).await?;
        let version = told.rsplit(' ').next().unwrap_or_default().to_owned();
        self.run_on(&version).await
    }

    async fn run_on(&self, version: &str) -> Result<Output> {
        let args = ["run", "--resume", version, "--nats", self.nats.url()];
        self.workspace.coordinator(&args).start()?.wait(PATIENCE).await
    }

    async fn end(mut self) -> Result<()> {
        let output = self.coordinator.wait(PATIENCE).await?;
        self.verify(&output).await.map(drop)
    }

    /// Everything is there, once; the version.
    async fn verify(&self, output: &Output) -> Result<String> {
        ensure!(output.code() == Some(0), "{output:?}\n{}", self.services.printed());
        let version = output.stdout.split("version ").nth(1).and_then(|rest| rest.split(':').next());
        let version = version.with_context(|| format!("no version: {output:?}"))?;
        let truth = Truth::new(version, self.place.plugin().0)?;
        let replaces = !matches!(self.place, Place::Splunk(_));

        let records: Vec<(String, Record)> = self.place.all("cloud").await?;
        let events: Vec<(String, Value)> = self.place.all("event").await?;
        if replaces {
            ensure!(records.len() as u64 == self.records, "{} records", records.len());
            ensure!(events.len() as u64 == self.records / EVERY as u64, "{} events", events.len());
            ensure!(self.place.count().await? == (records.len() + events.len()) as u64, "there is something else");
        }
        let mut found = vec![false; usize::try_from(self.records)?];
        for (id, record) in &records {
            let number = record.raw.data;
            let there = found.get_mut(usize::try_from(number)?).with_context(|| format!("{number} was never made"))?;
            ensure!(!*there || !replaces, "the record {number} is there twice");
            *there = true;
            let expected = truth.record(number);
            ensure!(*record == expected && *id == expected.com.id, "{id} is\n{record:?}\nand not\n{expected:?}");
        }
        ensure!(found.iter().all(|there| *there), "{} records are missing", found.iter().filter(|is| !**is).count());
        let mut found = BTreeMap::new();
        for (id, event) in &events {
            let number = truth.verify_event(id, event)?;
            let other = found.insert(number, id);
            ensure!(other.is_none_or(|other| !replaces && other == id), "the event of {number} is there twice");
        }
        ensure!(found.into_keys().eq((0..self.records).step_by(EVERY)), "events are missing");
        Ok(version.to_owned())
    }
}

async fn all_arrive(place: Place, records: u64) -> Result<()> {
    Run::begin(place, records, 1).await?.end().await
}

async fn all_arrive_with_two_of_each(place: Place, records: u64) -> Result<()> {
    Run::begin(place, records, 2).await?.end().await
}

async fn a_sink_is_killed(place: Place, records: u64) -> Result<()> {
    let mut run = Run::begin(place, records, 1).await?;
    run.services.kill9_and_replace(&run.nats, "sink").await?;
    run.is_running()?;
    run.end().await
}

async fn one_of_two_sinks_is_killed(place: Place, records: u64) -> Result<()> {
    let mut run = Run::begin(place, records, 2).await?;
    run.services.first("sink").context("no sink is running")?.kill9().await?;
    run.is_running()?;
    run.end().await
}

async fn the_server_is_restarted(place: Place, records: u64) -> Result<()> {
    let mut run = Run::begin(place, records, 1).await?;
    run.place.restart().await?;
    run.is_running()?;
    run.end().await
}

async fn the_broker_is_killed_and_started_again(place: Place, records: u64) -> Result<()> {
    let mut run = Run::begin(place, records, 1).await?;
    run.nats.restart().await?;
    run.is_running()?;
    run.end().await
}

async fn the_coordinator_is_killed_and_the_version_is_run_on_twice(place: Place, records: u64) -> Result<()> {
    let mut run = Run::begin(place, records, 1).await?;
    let output = run.resume().await?;
    let version = run.verify(&output).await?;
    let again = run.run_on(&version).await?;
    assert_eq!(run.verify(&again).await?, version);
    Ok(())
}

/// One after the other, in one run.
async fn everything_but_the_server_is_killed(place: Place, records: u64) -> Result<()> {
    let mut run = Run::begin(place, records, 2).await?;
    run.services.kill9_and_replace(&run.nats, "sink").await?;
    run.nats.restart().await?;
    run.is_running()?;
    let output = run.resume().await?;
    let version = run.verify(&output).await?;
    let again = run.run_on(&version).await?;
    assert_eq!(run.verify(&again).await?, version);
    Ok(())
}

mod mongodb_store {
    use super::*;

    #[tokio::test]
    async fn all_arrive_with_two_of_each() -> Result<()> {
        super::all_arrive_with_two_of_each(Place::mongo().await?, RECORDS).await
    }

    #[tokio::test]
    async fn a_sink_is_killed() -> Result<()> {
        super::a_sink_is_killed(Place::mongo().await?, RECORDS).await
    }

    #[tokio::test]
    async fn one_of_two_sinks_is_killed() -> Result<()> {
        super::one_of_two_sinks_is_killed(Place::mongo().await?, RECORDS).await
    }

    #[tokio::test]
    async fn the_server_is_killed_and_started_again() -> Result<()> {
        the_server_is_restarted(Place::mongo().await?, RECORDS).await
    }

    #[tokio::test]
    async fn the_broker_is_killed_and_started_again() -> Result<()> {
        super::the_broker_is_killed_and_started_again(Place::mongo().await?, RECORDS).await
    }

    #[tokio::test]
    async fn the_coordinator_is_killed_and_the_version_is_run_on_twice() -> Result<()> {
        super::the_coordinator_is_killed_and_the_version_is_run_on_twice(Place::mongo().await?, RECORDS).await
    }
}

mod elasticsearch_store {
    use super::*;

    async fn place() -> Result<Place> {
        Place::search(SearchKind::Elasticsearch).await
    }

    #[tokio::test]
    async fn all_arrive() -> Result<()> {
        super::all_arrive(place().await?, RECORDS).await
    }

    #[tokio::test]
    async fn one_of_two_sinks_is_killed() -> Result<()> {
        super::one_of_two_sinks_is_killed(place().await?, FEWER).await
    }

    #[tokio::test]
    async fn a_sink_is_killed() -> Result<()> {
        super::a_sink_is_killed(place().await?, FEWER).await
    }

    // No restart of the server in mid-run: the imitation now and then loses what it has just confirmed, even when it is
    // asked to stop. A real server that restarts is MongoDB's.

    #[tokio::test]
    async fn the_broker_is_killed_and_started_again() -> Result<()> {
        super::the_broker_is_killed_and_started_again(place().await?, FEWER).await
    }

    #[tokio::test]
    async fn the_coordinator_is_killed_and_the_version_is_run_on_twice() -> Result<()> {
        super::the_coordinator_is_killed_and_the_version_is_run_on_twice(place().await?, FEWER).await
    }

    #[tokio::test]
    async fn everything_but_an_opensearch_server_is_killed() -> Result<()> {
        everything_but_the_server_is_killed(Place::search(SearchKind::OpenSearch).await?, FEWER).await
    }

    #[tokio::test]
    async fn all_arrive_at_an_opensearch_server() -> Result<()> {
        super::all_arrive_with_two_of_each(Place::search(SearchKind::OpenSearch).await?, RECORDS).await
    }
}

mod splunk_store {
    use super::*;

    #[tokio::test]
    async fn all_arrive_with_two_of_each() -> Result<()> {
        super::all_arrive_with_two_of_each(Place::splunk().await?, RECORDS).await
    }

    #[tokio::test]
    async fn nothing_is_missing_whatever_is_killed_and_what_is_doubled_has_one_id() -> Result<()> {
        let place = Place::splunk().await?;
        if let Place::Splunk(collector) = &place {
            for (status, code) in [(503, Some(9)), (500, Some(8)), (429, Some(26)), (502, None)] {
                collector.fail(Fault { status, code, wait: None });
            }
        }
        everything_but_the_server_is_killed(place, RECORDS).await
    }
}

/// A server that takes what Elasticsearch takes, and takes its time.
struct SlowServer {
    port: u16,
    taken: Arc<AtomicU64>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for SlowServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl SlowServer {
    /// Works on one request at a time, and takes so long for a document.
    async fn start(per_document: Duration) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (taken, one) = (Arc::new(AtomicU64::new(0)), Arc::new(tokio::sync::Mutex::new(())));
        let count = Arc::clone(&taken);
        let bulk = async move |body: String| {
            let actions = body.lines().step_by(2).map(|action| serde_json::from_str::<Value>(action).unwrap());
            let items: Vec<Value> = actions
                .map(|action| json!({"index": {"_id": action["index"]["_id"], "status": 201, "result": "created"}}))
                .collect();
            let turn = one.lock().await;
            tokio::time::sleep(per_document * u32::try_from(items.len()).unwrap()).await;
            count.fetch_add(items.len() as u64, Ordering::SeqCst);
            drop(turn);
            axum::Json(json!({"took": 1, "errors": false, "items": items}))
        };
        let about =
            json!({"version": {"number": "8.15.3", "build_flavor": "default"}, "tagline": "You Know, for Search"});
        let router = axum::Router::new()
            .route("/", axum::routing::get(async move || axum::Json(about)))
            .route("/cloudmarker/_bulk", axum::routing::post(bulk))
            .fallback(async || (axum::http::StatusCode::NOT_FOUND, axum::Json(json!({"error": "none", "status": 404}))))
            .layer(axum::extract::DefaultBodyLimit::disable());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Ok(Self { port, taken, serving })
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }
}

/// The most that a process has had in memory, in MB.
fn peak_memory(program: &Program) -> Result<u64> {
    let pid = program.pid().context("it has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// Two stores, one of which takes a tenth of what the other one does: the other is not slowed, the slow one gets each
/// document once although it keeps two sinks waiting for longer than the ack wait, and no sink grows.
#[tokio::test]
async fn a_slow_store_slows_no_other_and_no_sink_grows() -> Result<()> {
    const AUDIT: &str = "
plugins:
  slow: {plugin: EsStore, params: {host: 127.0.0.1, port: PORT, template: false}}
  inventory: {plugin: SqliteStore, params: {path: '{out}/inventory.db'}}
  mockcloud: {params: {record_count: 20000}}
audits:
  audit: {clouds: [mockcloud], stores: [slow, inventory], events: [], alerts: []}
run: [audit]
nats: {ack_wait: 2s}
";
    let slow = SlowServer::start(Duration::from_millis(1)).await?;
    let nats = NatsServer::start().await?;
    let mut services = Services::start(&nats, 1)?;
    services.add(&nats, "sink")?;
    let workspace = Workspace::new(&AUDIT.replace("PORT", &slow.port.to_string()))?;
    let mut coordinator = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
    coordinator.wait_for_line("collecting", PATIENCE).await?;
    let all_in_the_other = async {
        let inventory = workspace.out().join("inventory.db");
        loop {
            let mut there = 0;
            query(&inventory, "SELECT count(*) FROM documents", |_, row| {
                if let Some([Cell::Integer(count)]) = row {
                    there = *count;
                }
                Ok(())
            })?;
            if there == i64::try_from(FEWER)? {
                return anyhow::Ok(slow.taken());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let meanwhile = tokio::time::timeout(PATIENCE, all_in_the_other).await??;
    println!("the other store had all {FEWER} when the slow one had {meanwhile}");
    ensure!(meanwhile < FEWER * 3 / 4, "the other store waited for the slow one, which had {meanwhile} by then");
    let output = coordinator.wait(PATIENCE).await?.with_code(0)?;
    assert_eq!(slow.taken(), FEWER, "nothing was sent twice: {output:?}");
    let memory = peak_memory(services.first("sink").context("no sink")?)?;
    println!("a sink had at most {memory} MB");
    ensure!(memory < 150, "a sink had {memory} MB in memory");
    Ok(())
}
