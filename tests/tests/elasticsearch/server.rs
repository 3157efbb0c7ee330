//! Servers that speak as Elasticsearch and OpenSearch do. The genuine ones are not to be had as packages; these two
//! are lenient in different places, so what passes on both does not live on either one's leniency.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tests::harness::{Program, free_port};

const READY: Duration = Duration::from_secs(30);

/// Which server is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By noida-db: Elasticsearch 8.15. Keeps its documents over a restart.
    Elasticsearch,
    /// By osmem-server: OpenSearch 3.8. In memory only.
    OpenSearch,
}

/// Both.
pub const KINDS: [Kind; 2] = [Kind::Elasticsearch, Kind::OpenSearch];

/// A running server. Dropping it kills it and deletes its data.
#[derive(Debug)]
pub struct SearchServer {
    kind: Kind,
    program: Program,
    port: u16,
    data: TempDir,
    http: reqwest::Client,
}

impl SearchServer {
    /// Starts a server and waits until it is ready.
    pub async fn start(kind: Kind) -> Result<Self> {
        // reqwest finds no TLS provider by itself. Another test of this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = free_port()?;
        let data = tempfile::Builder::new().prefix("cm-search-").tempdir()?;
        let program = launch(kind, port, data.path()).await?;
        Ok(Self { kind, program, port, data, http: reqwest::Client::builder().no_proxy().build()? })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Stops it as a service manager does (SIGTERM). Killed, noida-db loses what it has confirmed in the last moments,
    /// as the genuine one does not.
    pub async fn stop(&mut self) -> Result<()> {
        self.program.terminate()?;
        self.program.wait(READY).await?;
        Ok(())
    }

    /// Starts it again with its data.
    pub async fn restart(&mut self) -> Result<()> {
        self.program = launch(self.kind, self.port, self.data.path()).await?;
        Ok(())
    }

    /// Asks the server; the status and its JSON.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let request = self.http.request(method, format!("{}/{path}", self.url()));
        let answer = match body {
            Some(body) => request.json(body).send().await?,
            None => request.send().await?,
        };
        let status = answer.status().as_u16();
        Ok((status, serde_json::from_slice(&answer.bytes().await?).unwrap_or_default()))
    }

    /// Asks what has to go well.
    pub async fn must(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.ask(method, path, body).await?;
        ensure!((200..300).contains(&status), "{path}: {status} {answer}");
        Ok(answer)
    }

    /// How many documents there are.
    pub async fn count(&self, index: &str) -> Result<u64> {
        self.must(Method::POST, &format!("{index}/_refresh"), None).await?;
        self.must(Method::GET, &format!("{index}/_count"), None).await?["count"].as_u64().context("no count")
    }

    /// A document.
    pub async fn document(&self, index: &str, id: &str) -> Result<Option<Value>> {
        let (status, answer) = self.ask(Method::GET, &format!("{index}/_doc/{id}"), None).await?;
        Ok((status == 200).then(|| answer["_source"].clone()))
    }

    /// The texts of documents, by id, from whichever index.
    pub async fn sources(&self, ids: Vec<String>) -> Result<BTreeMap<String, String>> {
        #[derive(Deserialize)]
        struct Found {
            hits: Hits,
        }
        #[derive(Deserialize)]
        struct Hits {
            hits: Vec<Hit>,
        }
        #[derive(Deserialize)]
        struct Hit {
            #[serde(rename = "_id")]
            id: String,
            #[serde(rename = "_source")]
            source: Box<RawValue>,
        }
        self.ask(Method::POST, "_refresh", None).await?;
        let mut sources = BTreeMap::new();
        for ids in ids.chunks(1_000) {
            let query = serde_json::json!({"size": 1_000, "query": {"ids": {"values": ids}}});
            let url = format!("{}/_search", self.url());
            let found = self.http.post(url).json(&query).send().await?.error_for_status()?.text().await?;
            for hit in serde_json::from_str::<Found>(&found)?.hits.hits {
                let mut text = hit.source.get().to_owned();
                if self.kind == Kind::Elasticsearch {
                    // noida-db writes documents anew; the genuine one gives back the text that it was given.
                    text = text
                        .replace("1.2345678901234568e+29", "123456789012345678901234567890")
                        .replace("-9.223372036854776e+18", "-9223372036854775809");
                }
                sources.insert(hit.id, text);
            }
        }
        Ok(sources)
    }

    /// How many documents a query finds.
    pub async fn find(&self, index: &str, query: Value) -> Result<u64> {
        self.must(Method::POST, &format!("{index}/_refresh"), None).await?;
        let query = serde_json::json!({"query": query, "track_total_hits": true, "size": 0});
        let found = self.must(Method::POST, &format!("{index}/_search"), Some(&query)).await?;
        found["hits"]["total"]["value"].as_u64().context("no total")
    }
}

async fn launch(kind: Kind, port: u16, data: &Path) -> Result<Program> {
    let launch = match kind {
        Kind::Elasticsearch => Program::at(installed("noida-db")?)
            .args(["start", "--only", "elasticsearch", "--elasticsearch-port", &port.to_string(), "--data-dir"])
            .arg(data),
        Kind::OpenSearch => {
            Program::at(installed("osmem-server")?).args(["-no-stdin-watch", "-addr", &format!("127.0.0.1:{port}")])
        }
    };
    let program = launch.current_dir(data).start()?;
    program.wait_for_line(&format!("http://127.0.0.1:{port}"), READY).await?;
    Ok(program)
}

fn installed(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/bin").join(name);
    ensure!(path.is_file(), "there is no {}: run make test (or tests/setup)", path.display());
    Ok(path)
}
