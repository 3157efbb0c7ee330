//! Plain loops: what a store is measured by. Each gets finished documents, sends as many in a batch as the store does,
//! and has as many batches under way.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Bson, Document as Bsoned, doc};
use mongodb::options::{Acknowledgment, ClientOptions, ServerAddress, WriteConcern};
use mongodb::{Client, Collection};
use serde_json::Value;
use sink::store::{BatchLimits, Document};
use tests::harness::SearchServer;
use tokio::process::Command;

use super::super::processor_time_of;
use super::Took;

/// A running measurement.
pub(super) struct Clock {
    began: Instant,
    processor: f64,
}

impl Clock {
    pub(super) fn start() -> Result<Self> {
        Ok(Self { began: Instant::now(), processor: processor_time_of(std::process::id())? })
    }

    pub(super) fn stop(self) -> Result<Took> {
        let processor = processor_time_of(std::process::id())? - self.processor;
        Ok(Took { seconds: self.began.elapsed().as_secs_f64(), processor })
    }
}

/// Documents as the sink batches them.
pub(super) fn batches(documents: &[Document], limits: BatchLimits) -> Vec<Vec<Document>> {
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for document in documents {
        let is_full = batch.len() >= limits.documents || bytes + document.body.len() > limits.bytes;
        if is_full && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += document.body.len();
        batch.push(document.clone());
    }
    batches.push(batch);
    batches
}

async fn at_once<F: Future<Output = Result<()>> + Send + 'static>(
    batches: Vec<Vec<Document>>,
    at_once: usize,
    write: impl Fn(Vec<Document>) -> F,
) -> Result<Took> {
    let clock = Clock::start()?;
    stream::iter(batches)
        .map(|batch| {
            let writing = tokio::spawn(write(batch));
            async move { writing.await? }
        })
        .buffer_unordered(at_once)
        .try_collect::<()>()
        .await?;
    clock.stop()
}

pub(super) fn file(path: &Path, documents: &[Document]) -> Result<Took> {
    let clock = Clock::start()?;
    let mut file = BufWriter::with_capacity(256 * 1024, File::create(path)?);
    for document in documents {
        file.write_all(&document.body)?;
        file.write_all(b",\n")?;
    }
    file.into_inner()?.sync_all()?;
    clock.stop()
}

pub(super) fn has_sqlite_shell() -> bool {
    std::process::Command::new("sqlite3").arg("--version").stdout(Stdio::null()).status().is_ok()
}

async fn sqlite_shell(path: &Path, commands: &[String]) -> Result<String> {
    let output = Command::new("sqlite3").arg("-batch").arg(path).args(commands).output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && errors.is_empty(), "sqlite3: {}: {errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Writes the rows of an inventory as CSV.
pub(super) async fn dump_rows(inventory: &Path, rows: &Path) -> Result<()> {
    let commands =
        [".mode csv".to_owned(), format!(".once '{}'", rows.display()), "SELECT * FROM documents;".to_owned()];
    sqlite_shell(inventory, &commands).await.map(drop)
}

pub(super) async fn sqlite_import(inventory: &Path, rows: &Path, count: usize) -> Result<Took> {
    let began = Instant::now();
    let commands = [".mode csv".to_owned(), format!(".import '{}' documents", rows.display())];
    sqlite_shell(inventory, &commands).await?;
    let seconds = began.elapsed().as_secs_f64();
    let counted = sqlite_shell(inventory, &["SELECT count(*) FROM documents;".to_owned()]).await?;
    ensure!(counted.trim() == count.to_string(), "{counted} rows are there instead of {count}");
    Ok(Took { seconds, processor: f64::NAN })
}

pub(super) async fn hec(url: &str, batches: Vec<Vec<Document>>, in_flight: usize) -> Result<Took> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    at_once(batches, in_flight, |batch| {
        let request = client.post(url).header("authorization", "Splunk right").header("content-encoding", "gzip");
        async move {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            for document in &batch {
                encoder.write_all(br#"{"time":1770000000,"index":"main","sourcetype":"json","event":"#)?;
                encoder.write_all(&document.body)?;
                encoder.write_all(b"}\n")?;
            }
            request.body(encoder.finish()?).send().await?.error_for_status()?.bytes().await?;
            Ok(())
        }
    })
    .await
}

pub(super) async fn bulk(server: &SearchServer, batches: Vec<Vec<Document>>, in_flight: usize) -> Result<Took> {
    let url = format!("{}/cloudmarker/_bulk", server.url());
    at_once(batches, in_flight, |batch| {
        let request = server.http().post(&url).header("content-type", "application/x-ndjson");
        async move {
            let mut body = Vec::new();
            for document in &batch {
                writeln!(body, "{{\"index\":{{\"_id\":\"{}\"}}}}", document.id)?;
                body.extend_from_slice(&document.body);
                body.push(b'\n');
            }
            let answer: Value = request.body(body).send().await?.error_for_status()?.json().await?;
            ensure!(answer["errors"] == false, "{answer}");
            Ok(())
        }
    })
    .await
}

/// How documents are written to MongoDB.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    /// As the store has to: whatever is there with an id is replaced.
    Update,
    /// As is fastest where nothing is there.
    Insert,
}

/// A collection as another client sees it.
pub(super) struct Mongo(Collection<Bsoned>);

impl Mongo {
    pub(super) async fn connect(port: u16) -> Result<Self> {
        let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(port) };
        let client = Client::with_options(ClientOptions::builder().hosts(vec![address]).build())?;
        Ok(Self(client.database("cloudmarker").collection("cloudmarker")))
    }

    pub(super) async fn clear(&self) -> Result<()> {
        Ok(self.0.drop().await?)
    }

    pub(super) async fn check(&self, documents: usize) -> Result<()> {
        let count = self.0.count_documents(doc! {}).await?;
        ensure!(count == documents as u64, "{count} documents are there instead of {documents}");
        Ok(())
    }

    /// JSON becomes BSON by the driver's own types, within the time that is measured: documents come as JSON.
    pub(super) async fn write(&self, how: How, batches: Vec<Vec<Document>>, in_flight: usize) -> Result<Took> {
        at_once(batches, in_flight, |batch| {
            let collection = self.0.clone();
            async move {
                let documents: Vec<Bsoned> = batch.iter().map(bson).collect::<Result<_>>()?;
                match how {
                    How::Insert => {
                        let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
                        collection.insert_many(documents).ordered(false).write_concern(concern).await?;
                    }
                    How::Update => {
                        let updates: Vec<Bson> = documents
                            .into_iter()
                            .map(|document| {
                                let id = document.get("_id").cloned().unwrap_or(Bson::Null);
                                doc! {"q": {"_id": id}, "u": document, "upsert": true}.into()
                            })
                            .collect();
                        let update = doc! {
                            "update": collection.name(), "updates": updates, "ordered": false,
                            "writeConcern": {"w": "majority", "j": true},
                        };
                        collection.client().database("cloudmarker").run_command(update).await?;
                    }
                }
                Ok(())
            }
        })
        .await
    }
}

fn bson(document: &Document) -> Result<Bsoned> {
    let mut bson = doc! {"_id": &document.id};
    let value: Bsoned = serde_json::from_slice(&document.body).context("cannot read a document")?;
    bson.extend(value);
    Ok(bson)
}
