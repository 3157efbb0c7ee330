//! Key-value buckets: streams of one message per key, as NATS lays them down, so that its own tools can read them.
//!
//! The client library's own store is passed by: its reads may come from a replica that lags behind, and creating a
//! key again after it was deleted loses the life time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::header;
use async_nats::jetstream::consumer::DeliverPolicy;
use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use super::api::{Failure, QUERY};
use super::publish::{Publication, Publisher, StoredMessage};
use super::pull::{ConsumeLink, Received};
use super::read::{Event, Ordered};
use super::streams::bucket_stream;
use crate::bus::{Bucket, BusError, BusErrorKind, KvEntry};

/// How long a change of an entry is tried: who changes entries has clocks to keep.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long all entries of a bucket may take to come; of the next one, [`QUERY`].
const LISTING: Duration = Duration::from_secs(60);

/// How often creating an entry begins anew because its key's end came in between.
const CREATE_ATTEMPTS: usize = 5;

/// For how long the mark of a deleted entry stays for watchers to see.
const DELETED: Duration = Duration::from_secs(3600);

const OPERATION: &str = "KV-Operation";
const OPERATION_DELETE: &str = "DEL";

/// The buckets of one bus.
#[derive(Debug)]
pub(super) struct Buckets {
    publisher: Publisher,
    link: Arc<ConsumeLink>,
}

impl Buckets {
    pub(super) fn new(publisher: Publisher, link: Arc<ConsumeLink>) -> Self {
        Self { publisher, link }
    }

    pub(super) async fn get(&self, bucket: Bucket, key: &str) -> Result<Option<KvEntry>, BusError> {
        let found = self.last(bucket, key).await?.filter(|message| !is_mark(message));
        Ok(found.map(|message| KvEntry { key: key.into(), value: message.payload, revision: message.seq }))
    }

    /// The entries whose keys begin so.
    pub(super) async fn entries(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>, BusError> {
        let listed = timeout(LISTING, self.list(bucket, prefix)).await.unwrap_or(Err(Failure::TimedOut));
        listed.map_err(|failure| failure.into_error(format_args!("cannot list {prefix}* of {}", bucket.name())))
    }

    async fn list(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>, Failure> {
        let mut until = Instant::now() + QUERY;
        loop {
            let filter = key_filter(prefix);
            let opened = timeout_at(until, open_listing(&self.link, bucket, &filter)).await;
            let mut listing = opened.unwrap_or(Err(Failure::TimedOut))?;
            // Trouble with a listing means to begin it again; the caller's patience bounds that.
            if let Some(mut entries) = drain(&mut listing, bucket, &mut until).await? {
                entries.retain(|entry| entry.key.starts_with(prefix));
                return Ok(entries);
            }
        }
    }

    pub(super) async fn create(
        &self,
        bucket: Bucket,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<u64, BusError> {
        let id = self.unique_id();
        let mut expected = 0;
        for _ in 0..CREATE_ATTEMPTS {
            let mut publication = self.change(bucket, key, value.clone(), id.clone())?.expecting(expected)?;
            if let Some(ttl) = ttl {
                publication.set_header(header::NATS_MESSAGE_TTL.as_ref(), &whole_seconds(ttl))?;
            }
            match self.publisher.store(&publication, PATIENCE).await {
                Err(error) if error.kind() == BusErrorKind::Conflict => {}
                stored => return stored.map(|ack| ack.sequence),
            }
            // A deleted key can be created again, in the place of the mark that it has left.
            expected = match self.last(bucket, key).await? {
                None => 0,
                Some(last) if is_mark(&last) => last.seq,
                Some(_) => return Err(conflict(bucket, key, "there is an entry already")),
            };
        }
        Err(conflict(bucket, key, "somebody else is changing it"))
    }

    pub(super) async fn update(&self, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BusError> {
        let publication = self.change(bucket, key, value, self.unique_id())?.expecting(revision)?;
        match self.publisher.store(&publication, PATIENCE).await {
            Err(error) if error.kind() == BusErrorKind::Conflict => {
                Err(conflict(bucket, key, &format!("it does not have the revision {revision} any more")))
            }
            stored => stored.map(|ack| ack.sequence),
        }
    }

    pub(super) async fn put(&self, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BusError> {
        let publication = self.change(bucket, key, value, self.unique_id())?;
        self.publisher.store(&publication, PATIENCE).await.map(|ack| ack.sequence)
    }

    pub(super) async fn delete(&self, bucket: Bucket, key: &str) -> Result<(), BusError> {
        if self.last(bucket, key).await?.is_none_or(|last| is_mark(&last)) {
            return Ok(());
        }
        let mut publication = self.change(bucket, key, Bytes::new(), self.unique_id())?;
        publication.set_header(OPERATION, OPERATION_DELETE)?;
        publication.set_header(header::NATS_MESSAGE_TTL.as_ref(), &whole_seconds(DELETED))?;
        self.publisher.store(&publication, PATIENCE).await.map(|_| ())
    }

    fn change(&self, bucket: Bucket, key: &str, value: Bytes, id: String) -> Result<Publication, BusError> {
        check_key(bucket, key)?;
        Publication::new(subject(bucket, key), bucket_stream(bucket), &[], id, value)
    }

    async fn last(&self, bucket: Bucket, key: &str) -> Result<Option<StoredMessage>, BusError> {
        check_key(bucket, key)?;
        let last = self.link.api.last_message(&bucket_stream(bucket), &subject(bucket, key)).await;
        last.map_err(|failure| failure.into_error(format_args!("cannot get {key} of {}", bucket.name())))
    }

    fn unique_id(&self) -> String {
        self.link.connection.client.new_inbox()
    }
}

/// A consumer of the last message of each key, and then of all changes.
pub(super) async fn open_listing(link: &Arc<ConsumeLink>, bucket: Bucket, filter: &str) -> Result<Ordered, Failure> {
    let (stream, filter) = (bucket_stream(bucket), subject(bucket, filter));
    Ordered::open(link, &stream, &filter, bucket.name(), DeliverPolicy::LastPerSubject).await
}

/// What a message of a bucket's stream says about its key.
pub(super) enum Change {
    Put(KvEntry),
    Gone { key: String, revision: u64 },
}

impl Change {
    pub(super) fn read(bucket: Bucket, received: &Received) -> Option<Self> {
        let message = &received.message;
        let key = message.subject.strip_prefix(&subject(bucket, ""))?.to_owned();
        let revision = message.seq;
        if message.header(OPERATION).is_some() || message.header(header::NATS_MARKER_REASON.as_ref()).is_some() {
            return Some(Self::Gone { key, revision });
        }
        Some(Self::Put(KvEntry { key, value: message.payload.clone(), revision }))
    }
}

/// The entries of a listing, `None` when it met with trouble.
/// Each one that comes gives the next one time.
async fn drain(listing: &mut Ordered, bucket: Bucket, until: &mut Instant) -> Result<Option<Vec<KvEntry>>, Failure> {
    // By key: a bucket may have as many entries as there were runs in 90 days.
    let mut entries: HashMap<String, KvEntry> = HashMap::new();
    let mut pending = listing.pending;
    while pending > 0 {
        let next = timeout_at(*until, listing.next()).await.map_err(|_| Failure::TimedOut)?;
        let Ok(event) = next else { return Ok(None) };
        match event {
            // Entries that were to come have gone in the meantime.
            Event::Idle => break,
            Event::Message(received) => {
                *until = Instant::now() + QUERY;
                pending = received.pending;
                match Change::read(bucket, &received) {
                    Some(Change::Put(entry)) => drop(entries.insert(entry.key.clone(), entry)),
                    Some(Change::Gone { key, .. }) => drop(entries.remove(&key)),
                    None => {}
                }
            }
        }
    }
    let mut entries: Vec<KvEntry> = entries.into_values().collect();
    entries.sort_unstable_by_key(|entry| entry.revision);
    Ok(Some(entries))
}

fn subject(bucket: Bucket, key: &str) -> String {
    format!("$KV.{}.{key}", bucket.name())
}

/// The narrowest filter for keys that begin so: of whole tokens.
fn key_filter(prefix: &str) -> String {
    match prefix.rfind('.') {
        Some(dot) => format!("{}>", &prefix[..=dot]),
        None => ">".into(),
    }
}

/// A deleted or expired entry leaves a mark of its own.
fn is_mark(message: &StoredMessage) -> bool {
    message.header(OPERATION).is_some() || message.header(header::NATS_MARKER_REASON.as_ref()).is_some()
}

/// The broker counts life times in seconds, from 1.
fn whole_seconds(ttl: Duration) -> String {
    let rounded_up = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    rounded_up.max(1).to_string()
}

fn conflict(bucket: Bucket, key: &str, why: &str) -> BusError {
    BusError::new(BusErrorKind::Conflict, format!("cannot set {key} of {}: {why}", bucket.name()))
}

fn check_key(bucket: Bucket, key: &str) -> Result<(), BusError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_=.".contains(&byte);
    if !key.is_empty() && key.bytes().all(legal) && key.split('.').all(|token| !token.is_empty()) {
        return Ok(());
    }
    let message =
        format!("{key:?} cannot be a key of {}: only letters, digits and -/_=. can stand in it", bucket.name());
    Err(BusError::new(BusErrorKind::Unsupported, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_as_narrow_as_tokens_allow() {
        assert_eq!(key_filter(""), ">");
        assert_eq!(key_filter("aud"), ">");
        assert_eq!(key_filter("audit.2026"), "audit.>");
        assert_eq!(key_filter("audit.v."), "audit.v.>");
    }

    #[test]
    fn life_times_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(200)), "1");
        assert_eq!(whole_seconds(Duration::from_millis(1500)), "2");
        assert_eq!(whole_seconds(Duration::from_secs(3)), "3");
    }

    #[test]
    fn a_key_is_made_of_tokens() {
        for key in ["a", "a.b", "=2E", "a/b_c-d"] {
            assert!(check_key(Bucket::Runs, key).is_ok(), "{key}");
        }
        for key in ["", ".", "a.", ".a", "a..b", "a b", "*", "a.>"] {
            assert!(check_key(Bucket::Runs, key).is_err(), "{key}");
        }
    }
}
