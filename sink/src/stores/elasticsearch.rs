//! `EsStore`: documents in Elasticsearch (7.8 and later) or OpenSearch, in one index or one for each record type or
//! month.
//!
//! A document replaces the one of its id, so that whatever comes twice is there once.

mod bulk;
mod client;
mod index;
mod params;
mod prune;
mod server;
mod template;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::catalogue::{ParamError, PluginClass, in_one_line};
use proto::plan::Stage;
use proto::subject::Role;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::registry::Context;
use crate::store::{BatchLimits, Document, Pruning, Store, StoreError, Written};
use bulk::Verdict;
use client::{Answer, Client, Payload, is_passing};
use params::Settings;
use server::{Kind, Server, Unfit};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.stores.esstore.EsStore",
    roles: &[Role::Store, Role::Alert],
    stage: Stage::Sink,
    exclusive: false,
    pool: None,
    check: Some(&check),
};

/// Most documents in a request. Small ones would otherwise come by the ten thousands, and the answer tells of each.
const MAX_DOCUMENTS: usize = 5_000;
/// Requests at once: the servers work on one with one thread for each shard.
const IN_FLIGHT: usize = 4;
const LINGER: Duration = Duration::from_millis(500);
/// How many documents are deleted by one call: some seconds' work, so that nobody between us loses patience.
const DELETED_AT_ONCE: u64 = 20_000;

fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    params::check(value)
}

/// Builds the store of its parameters. Nobody is asked yet.
///
/// # Errors
/// What is wrong with the parameters, or with the file of certificates, for people.
pub fn build(context: Context<'_>) -> Result<Arc<dyn Store>, String> {
    Ok(Arc::new(EsStore::new(context.params)?))
}

/// The store.
#[derive(Debug)]
pub struct EsStore {
    settings: Settings,
    client: Client,
}

impl EsStore {
    /// A store of these parameters, expanded. Nobody is asked yet.
    ///
    /// # Errors
    /// What is wrong with the parameters, or with the file of certificates, for people.
    pub fn new(params: &Value) -> Result<Self, String> {
        let settings = params::read(params).map_err(|errors| in_one_line(&errors))?;
        let client = Client::new(&settings)?;
        Ok(Self { settings, client })
    }

    /// Asks the server what it is; nothing when it may not tell us.
    async fn greet(&self) -> Result<Option<Server>, StoreError> {
        let answer = self.client.ask(Method::GET, "", Payload::Nothing).await?;
        let place = self.client.place();
        match answer.status {
            StatusCode::OK => match Server::read(&answer.json()) {
                Ok(server) => Ok(Some(server)),
                Err(Unfit::TooOld(version)) => {
                    let reason = format!("{place} is Elasticsearch {version}; 7.8 or later, or OpenSearch, is needed");
                    Err(StoreError::Permanent(reason))
                }
                Err(Unfit::Other) => Err(self.is_another(&answer)),
            },
            // A right of its own, which whoever may write need not have.
            StatusCode::FORBIDDEN if answer.json().pointer("/error/type").is_some() => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.client.failure(&answer, "ask what it is")),
            status if is_passing(status) || status.is_redirection() => {
                Err(self.client.failure(&answer, "ask what it is"))
            }
            _ => Err(self.is_another(&answer)),
        }
    }

    fn is_another(&self, answer: &Answer) -> StoreError {
        let (place, words) = (self.client.place(), answer.words());
        if self.settings.base.scheme() == "http" && words.contains("HTTPS") {
            let https = place.replacen("http", "https", 1);
            return StoreError::Permanent(format!("{place} wants https: set `url: {https}` (it says: {words})"));
        }
        StoreError::Permanent(format!(
            "what answers at {place} is neither Elasticsearch nor OpenSearch ({words}); check host, port and path"
        ))
    }

    /// Makes the index template unless it is there.
    async fn ensure_template(&self, kind: Kind) -> Result<(), StoreError> {
        let name = self.settings.index.template_name();
        let path = format!("_index_template/{name}");
        let there = self.client.ask(Method::GET, &path, Payload::Nothing).await?;
        match there.status {
            StatusCode::OK => {
                let json = there.json();
                let found =
                    json.pointer("/index_templates/0/index_template/_meta").and_then(|meta| meta.get(template::MARK));
                match found.and_then(|ours| ours.get("template")).and_then(Value::as_u64) {
                    Some(version) if version < template::VERSION => {}
                    Some(_) => return Ok(()),
                    None => {
                        tracing::info!(name, "the index template is not ours any more, and stays as it is");
                        return Ok(());
                    }
                }
            }
            StatusCode::NOT_FOUND => {}
            StatusCode::FORBIDDEN => return self.without_template(&name, &there).await,
            _ => return Err(self.client.failure(&there, "look for the index template")),
        }
        let body = Payload::Json(template::template(&self.settings.index, kind));
        let made = self.client.ask(Method::PUT, &path, body).await?;
        match made.status {
            status if status.is_success() => {
                tracing::info!(name, "made the index template");
                Ok(())
            }
            StatusCode::FORBIDDEN => self.without_template(&name, &made).await,
            _ => Err(match self.client.failure(&made, &format!("make the index template `{name}`")) {
                StoreError::Permanent(reason) => {
                    StoreError::Permanent(format!("{reason}; make one yourself and set `template: false`"))
                }
                other => other,
            }),
        }
    }

    /// Whoever may not make templates can have somebody else make the index.
    async fn without_template(&self, name: &str, refusal: &Answer) -> Result<(), StoreError> {
        let what = format!("make the index template `{name}`");
        if self.indexes().await?.is_some_and(|indexes| !indexes.is_empty()) {
            let reason = self.client.failure(refusal, &what);
            tracing::warn!("{reason}; the index that is there is used as it is");
            return Ok(());
        }
        let refused = self.client.failure(refusal, &what);
        Err(StoreError::Permanent(format!(
            "{refused} (manage_index_templates), or make the index {} yourself; `template: false` goes without",
            self.settings.index
        )))
    }

    /// The indexes that there are; nothing when we may not know.
    async fn indexes(&self) -> Result<Option<Vec<String>>, StoreError> {
        let path = format!("{}/_settings?filter_path=*.settings.index.provided_name", self.settings.index.wildcard());
        let answer = self.client.ask(Method::GET, &path, Payload::Nothing).await?;
        match answer.status {
            StatusCode::OK => {
                let names = |json: Value| json.as_object().map(|indexes| indexes.keys().cloned().collect());
                Ok(Some(names(answer.json()).unwrap_or_default()))
            }
            StatusCode::NOT_FOUND => Ok(Some(Vec::new())),
            StatusCode::FORBIDDEN => Ok(None),
            _ => Err(self.client.failure(&answer, "look for the index")),
        }
    }

    /// Says what is to be known of the indexes that are already there.
    async fn look_at_indexes(&self) -> Result<(), StoreError> {
        let Some(indexes) = self.indexes().await? else { return Ok(()) };
        if let Some(name) = self.settings.index.fixed()
            && indexes.iter().any(|index| index.starts_with(&format!(".ds-{name}-")))
        {
            return Err(StoreError::Permanent(format!(
                "`{name}` at {} is a data stream, in which documents cannot be replaced; set `index` to another name",
                self.client.place()
            )));
        }
        let path = format!("{}/_mapping?filter_path=*.mappings._meta", self.settings.index.wildcard());
        let answer = self.client.ask(Method::GET, &path, Payload::Nothing).await?;
        if indexes.is_empty() || answer.status != StatusCode::OK {
            return Ok(());
        }
        let marks = answer.json();
        let is_ours = |index: &&String| {
            marks.get(*index).and_then(|index| index.pointer("/mappings/_meta")?.get(template::MARK)).is_some()
        };
        let others: Vec<&String> = indexes.iter().filter(|index| !is_ours(index)).collect();
        if !others.is_empty() {
            tracing::warn!(
                indexes = ?others,
                "these indexes were not made by our template: they may refuse documents whose fields differ from what \
                 they have, and nothing is pruned where audits are not keywords; a new `index` has neither fault"
            );
        }
        Ok(())
    }

    /// Deletes what a query finds, part by part.
    async fn delete(&self, query: &Value) -> Result<u64, StoreError> {
        let path = format!(
            "{}/_delete_by_query?conflicts=proceed&refresh=true&ignore_unavailable=true&max_docs={DELETED_AT_ONCE}\
             &filter_path=deleted,failures.cause",
            self.settings.index.wildcard()
        );
        let mut deleted = 0;
        loop {
            let answer = self.client.ask(Method::POST, &path, Payload::Json(query.clone())).await?;
            if answer.status == StatusCode::NOT_FOUND {
                return Ok(deleted);
            }
            let json = answer.json();
            let failed = json.pointer("/failures/0/cause");
            let Some(part) = json.get("deleted").and_then(Value::as_u64).filter(|_| failed.is_none()) else {
                let what = "delete the documents of old versions";
                return Err(match failed {
                    Some(cause) => StoreError::Transient {
                        reason: format!("{}: cannot {what}: {cause}", self.client.place()),
                        wait: None,
                    },
                    None => self.client.failure(&answer, what),
                });
            };
            deleted += part;
            if part < DELETED_AT_ONCE {
                return Ok(deleted);
            }
        }
    }
}

#[async_trait]
impl Store for EsStore {
    fn limits(&self) -> BatchLimits {
        BatchLimits {
            documents: MAX_DOCUMENTS,
            bytes: self.settings.buffer_bytes,
            linger: LINGER,
            in_flight: IN_FLIGHT,
        }
    }

    async fn connect(&self) -> Result<(), StoreError> {
        let server = self.greet().await?;
        if let Some(server) = &server {
            tracing::debug!(%server, place = self.client.place(), "reached");
        }
        match server {
            Some(server) if self.settings.template => self.ensure_template(server.kind).await?,
            None if self.settings.template => {
                tracing::warn!(
                    place = self.client.place(),
                    "the server may not tell us what it is (the right `monitor`), so no index template is made"
                );
            }
            _ => {}
        }
        self.look_at_indexes().await
    }

    async fn write(&self, documents: &[Document]) -> Result<Written, StoreError> {
        if documents.is_empty() {
            return Ok(Written::default());
        }
        let mut body = bulk::body(&self.settings.index, documents);
        let gzip = self.settings.compress;
        if gzip {
            let compressed = tokio::task::spawn_blocking(move || bulk::compressed(&body)).await;
            let failed = |reason| StoreError::Transient { reason, wait: None };
            body = compressed.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        }
        let path = bulk::path(&self.settings.index);
        let answer = self.client.ask(Method::POST, &path, Payload::Lines { body, gzip }).await?;
        let what = format!("write into the index `{}`", self.settings.index);
        if !answer.status.is_success() {
            // The server cannot make sense of the request as a whole. One of its documents is the cause, and splitting
            // finds it.
            if answer.status == StatusCode::BAD_REQUEST && answer.json().pointer("/error/type").is_some() {
                return Err(StoreError::TooLarge(format!("{}: {}", self.client.place(), answer.words())));
            }
            return Err(self.client.failure(&answer, &what));
        }
        let place = self.client.place();
        match bulk::verdict(&answer.body, documents.len()) {
            Verdict::Written(written) => Ok(written),
            Verdict::Hopeless { forbidden: true, words } => Err(StoreError::Permanent(format!(
                "{place}: not allowed to {what}: {words}; give it the rights `create_index`, `index` and `delete` on it"
            ))),
            Verdict::Hopeless { forbidden: false, words } => {
                Err(StoreError::Permanent(format!("{place}: cannot {what}: {words}; make the index, or set another")))
            }
            Verdict::Unclear(reason) => Err(StoreError::Transient { reason: format!("{place}: {reason}"), wait: None }),
        }
    }

    async fn prune(&self, pruning: &Pruning) -> Result<u64, StoreError> {
        let path = format!(
            "{}/_field_caps?fields={}&ignore_unavailable=true&allow_no_indices=true",
            self.settings.index.wildcard(),
            prune::FIELDS.join(",")
        );
        let answer = self.client.ask(Method::GET, &path, Payload::Nothing).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(0),
            _ => return Err(self.client.failure(&answer, "look at the fields of the index")),
        }
        if let Some(field) = prune::not_a_keyword(&answer.json()) {
            return Err(StoreError::Permanent(format!(
                "{}: nothing is deleted: `{field}` is no keyword in every index of {}, so audits cannot be told apart \
                 for certain; write into a new index",
                self.client.place(),
                self.settings.index
            )));
        }
        // What was written in the last second is not found yet. It is if this goes well; a right of its own.
        let path = format!("{}/_refresh?ignore_unavailable=true", self.settings.index.wildcard());
        let refreshed = self.client.ask(Method::POST, &path, Payload::Nothing).await?;
        if is_passing(refreshed.status) {
            return Err(self.client.failure(&refreshed, "look at what was written last"));
        }
        let mut deleted = self.delete(&prune::of_versions(pruning)).await?;
        if let Some(query) = prune::of_age(pruning, jiff::Timestamp::now()) {
            deleted += self.delete(&query).await?;
        }
        Ok(deleted)
    }

    fn place(&self) -> String {
        format!("index {} at {}", self.settings.index, self.client.place())
    }
}
