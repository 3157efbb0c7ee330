//! Servers that speak as Elasticsearch and OpenSearch do. The genuine ones are not to be had as packages; these two
//! are lenient in different places, so what passes on both does not live on either one's leniency.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;

use super::port::free_port;
use super::process::Program;

const READY: Duration = Duration::from_secs(30);

/// Which server is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchKind {
    /// By noida-db: Elasticsearch 8.15. Keeps its documents over a restart.
    Elasticsearch,
    /// By osmem-server: OpenSearch 3.8. In memory only.
    OpenSearch,
}

/// Both imitations.
pub const SEARCH_KINDS: [SearchKind; 2] = [SearchKind::Elasticsearch, SearchKind::OpenSearch];

/// A running server. Dropping it kills it and deletes its data.
#[derive(Debug)]
pub struct SearchServer {
    kind: SearchKind,
    program: Program,
    port: u16,
    data: TempDir,
    http: reqwest::Client,
}

impl SearchServer {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// When it is not installed, or does not get ready.
    pub async fn start(kind: SearchKind) -> Result<Self> {
        // reqwest finds no TLS provider by itself. Another test of this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = free_port()?;
        let data = tempfile::Builder::new().prefix("cm-search-").tempdir()?;
        let program = launch(kind, port, data.path()).await?;
        Ok(Self { kind, program, port, data, http: reqwest::Client::builder().no_proxy().build()? })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client for it.
    #[must_use]
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Stops it as a service manager does (SIGTERM). Killed, noida-db loses what it has confirmed in the last moments,
    /// as the genuine one does not.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub async fn stop(&mut self) -> Result<()> {
        self.program.terminate()?;
        self.program.wait(READY).await?;
        Ok(())
    }

    /// Starts it again with its data.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.program = launch(self.kind, self.port, self.data.path()).await?;
        Ok(())
    }

    /// Asks the server; the status and its JSON.
    ///
    /// # Errors
    /// When it does not answer.
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
    ///
    /// # Errors
    /// When it does not.
    pub async fn must(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.ask(method, path, body).await?;
        ensure!((200..300).contains(&status), "{path}: {status} {answer}");
        Ok(answer)
    }

    /// How many documents there are.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn count(&self, index: &str) -> Result<u64> {
        self.must(Method::POST, &format!("{index}/_refresh"), None).await?;
        self.must(Method::GET, &format!("{index}/_count"), None).await?["count"].as_u64().context("no count")
    }

    /// A document.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn document(&self, index: &str, id: &str) -> Result<Option<Value>> {
        let (status, answer) = self.ask(Method::GET, &format!("{index}/_doc/{id}"), None).await?;
        Ok((status == 200).then(|| answer["_source"].clone()))
    }

    /// The texts of documents, by id, from whichever index.
    ///
    /// # Errors
    /// When the server does not answer.
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
                if self.kind == SearchKind::Elasticsearch {
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

    /// All documents that a query finds, with their ids.
    ///
    /// # Errors
    /// When the server does not answer, or otherwise than it should.
    pub async fn all<T: DeserializeOwned>(&self, index: &str, query: &Value) -> Result<Vec<(String, T)>> {
        #[derive(Deserialize)]
        struct Page<T> {
            #[serde(rename = "_scroll_id")]
            next: String,
            hits: Hits<T>,
        }
        #[derive(Deserialize)]
        struct Hits<T> {
            hits: Vec<Hit<T>>,
        }
        #[derive(Deserialize)]
        struct Hit<T> {
            #[serde(rename = "_id")]
            id: String,
            #[serde(rename = "_source")]
            source: T,
        }
        self.must(Method::POST, &format!("{index}/_refresh"), None).await?;
        let mut all = Vec::new();
        let mut asked = (format!("{index}/_search?scroll=5m"), serde_json::json!({"size": 5_000, "query": query}));
        loop {
            let url = format!("{}/{}", self.url(), asked.0);
            let text = self.http.post(url).json(&asked.1).send().await?.error_for_status()?.text().await?;
            let page: Page<T> = serde_json::from_str(&text)?;
            if page.hits.hits.is_empty() {
                return Ok(all);
            }
            all.extend(page.hits.hits.into_iter().map(|hit| (hit.id, hit.source)));
            asked = ("_search/scroll".to_owned(), serde_json::json!({"scroll": "5m", "scroll_id": page.next}));
        }
    }

    /// How many documents a query finds.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn find(&self, index: &str, query: Value) -> Result<u64> {
        self.must(Method::POST, &format!("{index}/_refresh"), None).await?;
        let query = serde_json::json!({"query": query, "track_total_hits": true, "size": 0});
        let found = self.must(Method::POST, &format!("{index}/_search"), Some(&query)).await?;
        found["hits"]["total"]["value"].as_u64().context("no total")
    }
}

async fn launch(kind: SearchKind, port: u16, data: &Path) -> Result<Program> {
    let launch = match kind {
        SearchKind::Elasticsearch => Program::at(installed("noida-db")?)
            .args(["start", "--only", "elasticsearch", "--elasticsearch-port", &port.to_string(), "--data-dir"])
            .arg(data),
        SearchKind::OpenSearch => {
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
