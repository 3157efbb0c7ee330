//! Watching buckets, so that nothing is missed over an outage.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_trait::async_trait;
use tokio::time::{Instant, sleep, sleep_until};

use super::api::{Failure, QUERY};
use super::backoff::Backoff;
use super::kv::{Change, open_listing};
use super::pull::ConsumeLink;
use super::read::{Event, Ordered};
use super::streams::bucket_stream;
use crate::bus::{Bucket, BusError, KvChange, Watcher};

/// How often it is checked that the watcher has seen all that the bucket has.
const CHECK: Duration = Duration::from_secs(5);

/// How often a bucket must be looked for in vain before it counts as gone.
const MISSING: u32 = 3;

/// A watcher that lists the bucket's entries anew after any trouble, and whenever a check finds that it has missed
/// something.
pub(super) struct NatsWatcher {
    link: Arc<ConsumeLink>,
    bucket: Bucket,
    ordered: Option<Ordered>,
    seen: Seen,
    changes: VecDeque<KvChange>,
    check_at: Instant,
    backoff: Backoff,
    missing: u32,
}

/// What the watcher has seen of the bucket.
#[derive(Debug, Default)]
struct Seen {
    /// Each key's last revision, and whether it is an entry (or the mark of a deleted one).
    keys: HashMap<String, (u64, bool)>,
    /// The keys that the listing under way has brought so far.
    listing: Option<HashSet<String>>,
    /// Everything up to this sequence of the bucket's stream.
    through: u64,
    /// Where the watcher stood at the last check, if that was behind.
    behind: Option<u64>,
}

impl Seen {
    fn begin_listing(&mut self) {
        self.listing = Some(HashSet::new());
        self.behind = None;
    }

    /// What there is to say about a change.
    fn take(&mut self, change: Change) -> Option<KvChange> {
        let (key, revision, live) = match &change {
            Change::Put(entry) => (entry.key.clone(), entry.revision, true),
            Change::Gone { key, revision } => (key.clone(), *revision, false),
        };
        self.through = self.through.max(revision);
        let was_live = self.keys.insert(key.clone(), (revision, live)).is_some_and(|(_, live)| live);
        let listing = self.listing.as_mut().map(|listing| listing.insert(key.clone())).is_some();
        match change {
            Change::Put(entry) => Some(KvChange::Put(entry)),
            // The mark of an entry that this watcher has never seen tells nobody anything.
            Change::Gone { .. } if listing && !was_live => None,
            Change::Gone { .. } => Some(KvChange::Gone { key }),
        }
    }

    /// The entries that were there before the listing, and are not any more.
    fn end_listing(&mut self) -> Vec<KvChange> {
        let Some(listed) = self.listing.take() else { return Vec::new() };
        let mut gone = Vec::new();
        self.keys.retain(|key, (_, live)| {
            let keep = listed.contains(key);
            if !keep && *live {
                gone.push(KvChange::Gone { key: key.clone() });
            }
            keep
        });
        gone
    }

    /// Whether something was missed, when the bucket has so many messages (one a key) and this last sequence.
    fn has_missed(&mut self, messages: u64, last_seq: u64) -> bool {
        if self.listing.is_some() {
            return false;
        }
        if self.through < last_seq {
            // What is still behind the second time is not on its way.
            return self.behind.replace(self.through) == Some(self.through);
        }
        self.behind = None;
        messages != u64::try_from(self.keys.len()).unwrap_or(u64::MAX)
    }
}

impl NatsWatcher {
    pub(super) async fn open(link: &Arc<ConsumeLink>, bucket: Bucket) -> Result<Self, BusError> {
        let mut watcher = Self {
            link: link.clone(),
            bucket,
            ordered: None,
            seen: Seen::default(),
            changes: VecDeque::new(),
            check_at: Instant::now() + CHECK,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            missing: 0,
        };
        watcher.list().await.map_err(|failure| watcher.error(failure))?;
        Ok(watcher)
    }

    fn error(&self, failure: Failure) -> BusError {
        failure.into_error(format_args!("cannot watch {}", self.bucket.name()))
    }

    /// Begins to list all entries, and to follow the changes after them.
    async fn list(&mut self) -> Result<(), Failure> {
        self.ordered = None;
        // Whatever the listing does not bring up to here is not there any more.
        let last_seq = self.link.api.stream_info(&bucket_stream(self.bucket), QUERY).await?.state.last_sequence;
        let ordered = open_listing(&self.link, self.bucket, ">").await?;
        self.seen.begin_listing();
        self.seen.through = last_seq;
        if ordered.pending == 0 {
            self.changes.extend(self.seen.end_listing());
        }
        self.ordered = Some(ordered);
        self.check_at = Instant::now() + CHECK;
        Ok(())
    }

    async fn recover(&mut self) -> Result<(), BusError> {
        let Err(failure) = self.list().await else {
            self.missing = 0;
            return Ok(());
        };
        tracing::debug!(bucket = self.bucket.name(), %failure, "cannot go on watching; trying again");
        self.missing = if failure.is(ErrorCode::STREAM_NOT_FOUND) { self.missing + 1 } else { 0 };
        if self.missing >= MISSING {
            return Err(self.error(failure));
        }
        let delay = self.backoff.next();
        sleep(delay).await;
        Ok(())
    }

    fn take(&mut self, event: Event) {
        self.backoff.reset();
        let Event::Message(received) = event else {
            self.changes.extend(self.seen.end_listing());
            return;
        };
        if let Some(change) = Change::read(self.bucket, &received) {
            self.changes.extend(self.seen.take(change));
        }
        if received.pending == 0 {
            self.changes.extend(self.seen.end_listing());
        }
    }

    /// Compares what was seen with what the bucket has, and lists anew when something was missed.
    async fn check(&mut self) {
        // An error says nothing; the next check may.
        if let Ok(info) = self.link.api.stream_info(&bucket_stream(self.bucket), QUERY).await
            && self.seen.has_missed(info.state.messages, info.state.last_sequence)
        {
            tracing::debug!(bucket = self.bucket.name(), "a change was missed; listing the bucket anew");
            self.ordered = None;
        }
        self.check_at = Instant::now() + CHECK;
    }
}

#[async_trait]
impl Watcher for NatsWatcher {
    async fn next(&mut self) -> Result<KvChange, BusError> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Ok(change);
            }
            let Some(ordered) = &mut self.ordered else {
                self.recover().await?;
                continue;
            };
            tokio::select! {
                event = ordered.next() => match event {
                    Ok(event) => self.take(event),
                    Err(trouble) => {
                        tracing::debug!(bucket = self.bucket.name(), "watching anew: {trouble}");
                        self.ordered = None;
                    }
                },
                () = sleep_until(self.check_at) => self.check().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::KvEntry;

    fn put(key: &str, revision: u64) -> Change {
        Change::Put(KvEntry { key: key.into(), value: "".into(), revision })
    }

    #[test]
    fn a_listing_tells_what_has_gone_since_the_last_one() {
        let mut seen = Seen::default();
        seen.begin_listing();
        assert!(matches!(seen.take(put("a", 1)), Some(KvChange::Put(_))));
        assert!(matches!(seen.take(put("b", 2)), Some(KvChange::Put(_))));
        assert!(seen.take(Change::Gone { key: "never seen".into(), revision: 3 }).is_none());
        assert!(seen.end_listing().is_empty());

        seen.begin_listing();
        assert!(seen.take(put("b", 2)).is_some());
        assert_eq!(seen.end_listing(), [KvChange::Gone { key: "a".into() }]);
        assert!(matches!(seen.take(Change::Gone { key: "b".into(), revision: 4 }), Some(KvChange::Gone { .. })));
    }

    #[test]
    fn what_stays_behind_or_disappears_silently_is_noticed() {
        let mut seen = Seen::default();
        seen.begin_listing();
        seen.take(put("a", 1));
        seen.end_listing();
        assert!(!seen.has_missed(1, 1));
        assert!(!seen.has_missed(2, 2), "it may be on its way");
        seen.take(put("b", 2));
        assert!(!seen.has_missed(2, 2));
        assert!(!seen.has_missed(2, 3));
        assert!(seen.has_missed(2, 3), "it does not come");
        seen.take(put("b", 3));
        assert!(seen.has_missed(1, 3), "an entry has gone without a mark");
    }
}
