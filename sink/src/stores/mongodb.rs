//! `MongoDBStore`: one MongoDB document for each document, with the document's id as its `_id`.
//!
//! Documents keep their form (see [`encode`]), so that `{"com.record_type": "compute"}` finds what it says. Batches are
//! inserted; those documents that are there already are replaced then. Where most are, a store learns to replace at
//! once. Nothing counts as stored before most members of a replica set have it in their journals.

mod command;
mod encode;
mod failure;
mod params;

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Client, IndexModel};
use proto::catalogue::{ParamError, PluginClass, in_one_line};
use proto::config::params as parameters;
use proto::plan::Stage;
use proto::subject::{Role, Version};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::registry::Context;
use crate::store::{BatchLimits, Document as Stored, Pruning, Store, StoreError, Written};
use command::{Encoded, How, Limits, One, Reply, Trouble};
use failure::Watch;
use params::{Connection, Params};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.stores.mongodbstore.MongoDBStore",
    roles: &[Role::Store, Role::Alert],
    stage: Stage::Sink,
    exclusive: false,
    pool: None,
    check: Some(&check),
};

/// How long a batch may take: longer than the server waits for its replica set.
const WRITE: Duration = Duration::from_secs(120);
/// How long the first look at the server may take.
const CONNECT: Duration = Duration::from_secs(20);
/// How long is waited for the indexes of a collection that is large already; the server goes on by itself.
const INDEXES: Duration = Duration::from_secs(10);
/// How long old versions may take to go.
const PRUNE: Duration = Duration::from_secs(30 * 60);

/// What people ask for.
const INDEXED: [&[&str]; 5] = [
    &["com.audit_key", "com.audit_version"],
    &["com.record_type"],
    &["ext.record_type"],
    &["com.reference"],
    &["com.cloud_type"],
];

fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    params::check(value)
}

/// Builds the store of its parameters. It connects when it is first used.
///
/// # Errors
/// Every parameter that is not as it should be, for people.
pub fn build(context: Context<'_>) -> Result<Arc<dyn Store>, String> {
    Ok(Arc::new(MongoDbStore::new(context.params)?))
}

/// The store.
#[derive(Debug)]
pub struct MongoDbStore {
    connection: Connection,
    buffer_size: usize,
    watch: Watch,
    client: OnceCell<Client>,
    limits: OnceCell<Limits>,
    /// Most of the last documents were there already.
    replaces: AtomicBool,
}

impl MongoDbStore {
    /// The store of these parameters. It connects when it is first used.
    ///
    /// # Errors
    /// Every parameter that is not as it should be, for people.
    pub fn new(value: &Value) -> Result<Self, String> {
        params::check(value).map_err(|errors| in_one_line(&errors))?;
        let read: Params = parameters::read(value).map_err(|errors| in_one_line(&errors))?;
        let mut connection = read.connection()?;
        let watch = Watch::default();
        connection.options.sdam_event_handler = Some(watch.handler());
        Ok(Self {
            connection,
            buffer_size: read.buffer_size,
            watch,
            client: OnceCell::new(),
            limits: OnceCell::new(),
            replaces: AtomicBool::new(false),
        })
    }

    async fn client(&self) -> Result<&Client, StoreError> {
        let options = &self.connection.options;
        let made = self.client.get_or_try_init(|| async { Client::with_options(options.clone()) });
        made.await.map_err(|error| self.explain(&error))
    }

    fn explain(&self, error: &mongodb::error::Error) -> StoreError {
        failure::of_command(error, &self.connection, &self.watch)
    }

    /// An exchange with the server, not longer than this.
    async fn within<T>(
        &self,
        time: Duration,
        what: &str,
        exchange: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(time, exchange.into_future()).await {
            Ok(answer) => answer.map_err(|error| self.explain(&error)),
            Err(_) => Err(StoreError::Transient {
                reason: format!("{}: {what} took longer than {} s", self.connection, time.as_secs()),
                wait: None,
            }),
        }
    }

    async fn limits_of_server(&self) -> Result<Limits, StoreError> {
        let asked = self.limits.get_or_try_init(|| async {
            let db = self.client().await?.database(&self.connection.db);
            let hello = self.within(CONNECT, "the sign-in", db.run_command(doc! {"hello": 1})).await?;
            Ok(Limits::of_hello(&hello))
        });
        asked.await.copied()
    }

    /// Whether documents can be written, without writing one: no server takes an array as an id.
    async fn check_permission(&self) -> Result<(), StoreError> {
        let Connection { db, collection, .. } = &self.connection;
        let db = self.client().await?.database(db);
        let impossible = doc! {"insert": collection, "documents": [{"_id": []}]};
        self.within(CONNECT, "a first command", db.run_command(impossible)).await?;
        let impossible = doc! {"update": collection, "updates": [{"q": {"_id": ""}, "u": {"_id": []}, "upsert": true}]};
        self.within(CONNECT, "a first command", db.run_command(impossible)).await?;
        Ok(())
    }

    async fn make_indexes(&self) -> Result<(), StoreError> {
        let Connection { db, collection, .. } = &self.connection;
        let collection = self.client().await?.database(db).collection::<Document>(collection);
        let models = INDEXED.iter().map(|fields| {
            let keys: Document = fields.iter().map(|field| ((*field).to_owned(), 1.into())).collect();
            let options = IndexOptions::builder().name(format!("cloudmarker_{}", fields.join("_"))).build();
            IndexModel::builder().keys(keys).options(options).build()
        });
        // Without them all is right, if slower.
        if let Err(error) = self.within(INDEXES, "making the indexes", collection.create_indexes(models)).await {
            tracing::warn!(%error, place = self.place(), "the indexes are not there yet, or cannot be made");
        }
        Ok(())
    }

    fn encode(&self, documents: &[Stored], limits: Limits, written: &mut Written) -> Encoded {
        let mut encoded = Encoded::default();
        for (place, document) in documents.iter().enumerate() {
            let start = encoded.bson.len();
            let refusal = match encode::write(&mut encoded.bson, &document.id, &document.body) {
                Ok(()) => {
                    let bytes = encoded.bson.len() - start;
                    (bytes > limits.document).then(|| {
                        format!("it has {bytes} bytes as BSON; MongoDB takes documents of at most {}", limits.document)
                    })
                }
                Err(reason) => Some(reason),
            };
            match refusal {
                Some(reason) => {
                    encoded.bson.truncate(start);
                    written.refused.push((place, reason));
                }
                None => encoded.documents.push(One { place, range: start..encoded.bson.len() }),
            }
        }
        encoded
    }

    /// Writes documents in one way. Those that are there already come back, if they were to be inserted.
    async fn send(
        &self,
        how: How,
        batch: &[Stored],
        encoded: &Encoded,
        documents: &[One],
        limits: Limits,
        written: &mut Written,
    ) -> Result<Sent, StoreError> {
        let id_bytes = batch.iter().map(|document| document.id.len()).max().unwrap_or_default();
        let Connection { db, collection, concern, .. } = &self.connection;
        let db = self.client().await?.database(db);
        let id = |place: usize| batch.get(place).map_or("", |document| document.id.as_str());
        let (mut rest, mut sent) = (documents, Sent::default());
        while !rest.is_empty() {
            let (now, later) = command::chunk(how, rest, id_bytes, limits);
            rest = later;
            let command = command::write(how, collection, encoded, now, id, concern)
                .map_err(|error| StoreError::TooLarge(format!("the command cannot be written: {error}")))?;
            let reply = self.within(WRITE, "a write", db.run_raw_command(command)).await?;
            let reply = Reply::read(&reply);
            if let Some((code, reason)) = reply.concern {
                let reason = format!("written, but not as durable as `write_concern` says: {reason}");
                return Err(match failure::of_code(code, &reason, &self.connection) {
                    refused @ StoreError::Permanent(_) if code == 100 || code == 79 => refused,
                    _ => StoreError::Transient { reason, wait: None },
                });
            }
            sent.new += reply.new;
            for (index, trouble) in reply.troubles {
                let Some(one) = now.get(index) else { continue };
                match trouble {
                    Trouble::There if how == How::Insert => sent.there.push(one.clone()),
                    // Two wrote it at once, and the other was first.
                    Trouble::There => written.again.push((one.place, "another worker wrote it".to_owned())),
                    Trouble::Code(13, reason) => return Err(failure::of_code(13, &reason, &self.connection)),
                    Trouble::Code(code, reason) => {
                        let list = if failure::may_pass(code) { &mut written.again } else { &mut written.refused };
                        list.push((one.place, format!("{reason} (code {code})")));
                    }
                }
            }
        }
        Ok(sent)
    }

    async fn delete(&self, filter: Document) -> Result<u64, StoreError> {
        let Connection { db, collection, concern, .. } = &self.connection;
        let collection = self.client().await?.database(db).collection::<Document>(collection);
        let delete = collection.delete_many(filter).write_concern(concern.clone());
        Ok(self.within(PRUNE, "removing old versions", delete).await?.deleted_count)
    }
}

/// What became of documents that were sent.
#[derive(Debug, Default)]
struct Sent {
    /// Those that were there already and have not been replaced.
    there: Vec<One>,
    /// How many replaced none.
    new: usize,
}

#[async_trait]
impl Store for MongoDbStore {
    fn limits(&self) -> BatchLimits {
        // The driver copies a command as often as it is wrapped: more at once would cost memory and gain little.
        BatchLimits { documents: self.buffer_size, in_flight: 2, ..BatchLimits::default() }
    }

    async fn connect(&self) -> Result<(), StoreError> {
        self.limits_of_server().await?;
        self.check_permission().await?;
        self.make_indexes().await
    }

    async fn write(&self, documents: &[Stored]) -> Result<Written, StoreError> {
        let limits = self.limits_of_server().await?;
        let mut written = Written::default();
        let encoded = self.encode(documents, limits, &mut written);
        let all = &encoded.documents;
        if self.replaces.load(Ordering::Relaxed) {
            let sent = self.send(How::Replace, documents, &encoded, all, limits, &mut written).await?;
            self.replaces.store(sent.new * 2 < all.len(), Ordering::Relaxed);
        } else {
            let sent = self.send(How::Insert, documents, &encoded, all, limits, &mut written).await?;
            self.replaces.store(sent.there.len() * 2 > all.len(), Ordering::Relaxed);
            self.send(How::Replace, documents, &encoded, &sent.there, limits, &mut written).await?;
        }
        written.refused.sort_by_key(|(place, _)| *place);
        written.again.sort_by_key(|(place, _)| *place);
        Ok(written)
    }

    async fn prune(&self, pruning: &Pruning) -> Result<u64, StoreError> {
        let audit = pruning.audit.as_str();
        let keep: Vec<&str> = pruning.keep.iter().map(Version::as_str).collect();
        let mut removed = self
            .delete(doc! {
                "com.audit_key": audit,
                "com.audit_version": {"$lt": pruning.before.as_str(), "$nin": keep},
                "com.lifetime": {"$ne": "permanent"},
            })
            .await?;
        if let Some(days) = pruning.permanent_days {
            let oldest = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * i64::from(days));
            let oldest = Version::at(oldest);
            removed += self
                .delete(doc! {
                    "com.audit_key": audit,
                    "com.audit_version": {"$lt": oldest.as_str()},
                    "com.lifetime": "permanent",
                })
                .await?;
        }
        Ok(removed)
    }

    fn place(&self) -> String {
        let Connection { db, collection, .. } = &self.connection;
        format!("MongoDB at {}, {db}.{collection}", self.connection)
    }
}
