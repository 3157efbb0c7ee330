//! What every implementation of the bus must do, as checks that run over any of them.
//!
//! Each check uses names of its own, so that all of them can share one bus, at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// For those who implement [`Factory`].
pub use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

use super::{
    Bucket, BusError, BusErrorKind, ConsumerId, ConsumerSpec, Delivery, KvChange, Outgoing, PullLimits, Puller, Reader,
    ReaderSpec, Receipt, SharedBus, Watcher, header, lease,
};
use crate::subject::{self, Key, Role, Stream, Version};

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long one check may take.
const CHECK_PATIENCE: Duration = Duration::from_secs(90);

/// For how long it is watched that something does not happen.
const QUIET: Duration = Duration::from_millis(300);

/// An ack wait that no check outlasts: what comes again earlier does so for another reason.
const LONG_ACK_WAIT: Duration = Duration::from_secs(120);

/// How much clocks may differ: the broker may begin to measure a little before the caller does.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(50);

/// How a check ends: well, or with what is wrong.
pub type Checked<T = ()> = Result<T, String>;

/// Makes the buses that are checked.
#[async_trait]
pub trait Factory: Send + Sync {
    /// The bus that checks share. Its streams are ensured.
    async fn bus(&self) -> Checked<SharedBus>;

    /// A bus of its own whose stream of records is bounded to so many bytes. Its streams are ensured.
    async fn bounded(&self, max_bytes: usize) -> Checked<SharedBus>;
}

/// One check of the suite.
pub struct Check {
    /// What it checks.
    pub name: &'static str,
    run: for<'a> fn(&'a Case<'a>) -> BoxFuture<'a, Checked>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Check").field(&self.name).finish()
    }
}

/// What a check works with.
struct Case<'a> {
    factory: &'a dyn Factory,
    bus: SharedBus,
    /// Nobody else's.
    audit: Key,
    version: Version,
    plugin: Key,
}

/// All checks.
#[must_use]
pub fn checks() -> Vec<Check> {
    macro_rules! checks {
        ($($name:ident),* $(,)?) => {
            vec![$(Check { name: stringify!($name), run: |case| Box::pin($name(case)) }),*]
        };
    }
    checks![
        ensuring_again_changes_nothing,
        messages_come_in_order,
        headers_and_body_come_as_they_were,
        filters_choose_messages,
        two_pullers_share_the_messages,
        a_dropped_delivery_comes_again_at_once,
        a_lost_delivery_comes_again_after_the_ack_wait,
        progress_postpones_redelivery,
        a_delivery_is_given_back_with_a_delay,
        a_dropped_puller_gives_back_its_buffer,
        the_ack_floor_does_not_pass_what_is_unsettled,
        a_consumer_of_nothing_is_drained,
        a_unit_leaves_the_queue_when_acknowledged,
        a_repeat_is_dropped,
        consumers_are_independent,
        consumers_are_created_once_and_deleted,
        publishing_compares_and_sets,
        entries_are_created_changed_and_deleted,
        one_of_many_changes_an_entry,
        entries_are_listed_by_prefix,
        an_entry_with_a_life_time_goes,
        a_lease_lives_as_long_as_it_is_renewed,
        a_watcher_sees_what_is_there_and_what_changes,
        the_last_sequence_and_the_count_follow_filters,
        a_purge_removes_what_matches,
        a_purge_stops_at_its_sequence,
        a_message_that_is_too_large_is_refused,
        a_full_stream_holds_up_its_publisher,
        an_announced_reader_sees_all_in_order,
        a_bus_that_can_replay_reads_again,
    ]
}

/// Runs all checks at the same time.
///
/// # Errors
/// What is wrong, a line for each check that failed.
pub async fn run(factory: &dyn Factory) -> Checked {
    let bus = factory.bus().await?;
    let checks = checks();
    let running = checks.iter().map(|check| async {
        let case = Case::new(factory, bus.clone(), check.name)?;
        let ended = timeout(CHECK_PATIENCE, (check.run)(&case)).await;
        let ended = ended.unwrap_or_else(|_| Err(format!("did not end within {CHECK_PATIENCE:?}")));
        ended.map_err(|error| format!("{}: {error}", check.name))
    });
    let failures: Vec<String> = join_all(running).await.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

impl<'a> Case<'a> {
    fn new(factory: &'a dyn Factory, bus: SharedBus, name: &str) -> Checked<Self> {
        Ok(Self {
            factory,
            bus,
            audit: Key::new(name).map_err(text)?,
            version: Version::new("20260131_235959").map_err(text)?,
            plugin: key("plugin")?,
        })
    }

    fn subject(&self) -> String {
        subject::record(&self.audit, &self.version, &self.plugin)
    }

    fn all(&self) -> String {
        subject::records_of(&self.audit, &self.version)
    }

    /// A consumer of records.
    async fn consumer(&self, name: &str, filter: &str, ack_wait: Duration) -> Checked<ConsumerId> {
        let name = format!("{}-{}", self.audit.token(), name);
        let spec = consumer_spec(Stream::Records, name, filter, ack_wait);
        self.bus.create_consumer(&spec).await.map_err(text)?;
        Ok(spec.id)
    }

    /// A consumer of all the check's records, and one who pulls from it.
    async fn pulled(&self, ack_wait: Duration) -> Checked<(ConsumerId, Box<dyn Puller>)> {
        let id = self.consumer("all", &self.all(), ack_wait).await?;
        let puller = self.pull(&id).await?;
        Ok((id, puller))
    }

    async fn pull(&self, id: &ConsumerId) -> Checked<Box<dyn Puller>> {
        self.bus.pull(id, PullLimits::default()).await.map_err(text)
    }

    /// Publishes numbers, and returns their sequences.
    async fn publish(&self, subject: &str, numbers: std::ops::Range<u32>) -> Checked<Vec<u64>> {
        let mut sequences = Vec::new();
        for number in numbers {
            let message = Outgoing::new(subject.to_owned(), number.to_string().into());
            sequences.push(self.bus.publish(message).await.map_err(text)?.seq);
        }
        Ok(sequences)
    }

    async fn floor(&self, id: &ConsumerId) -> Checked<u64> {
        Ok(self.bus.consumer_state(id).await.map_err(text)?.ack_floor)
    }

    async fn count(&self, stream: Stream, filter: &str) -> Checked<u64> {
        self.bus.count(stream, filter).await.map_err(text)
    }

    async fn last_seq(&self, filter: &str) -> Checked<u64> {
        self.bus.last_seq(Stream::Records, filter).await.map_err(text)
    }

    /// A key of a bucket that belongs to the check.
    fn entry(&self, name: &str) -> String {
        format!("{}.{name}", self.audit.token())
    }

    async fn value(&self, bucket: Bucket, key: &str) -> Checked<Option<Bytes>> {
        Ok(self.bus.kv_get(bucket, key).await.map_err(text)?.map(|entry| entry.value))
    }

    /// The next change of an entry of the check.
    async fn change(&self, watcher: &mut Box<dyn Watcher>) -> Checked<KvChange> {
        let prefix = self.entry("");
        within("a change of an entry", async {
            loop {
                let change = watcher.next().await.map_err(text)?;
                let key = match &change {
                    KvChange::Put(entry) => &entry.key,
                    KvChange::Gone { key } => key,
                };
                if key.starts_with(&prefix) {
                    return Ok(change);
                }
            }
        })
        .await
    }

    /// Waits until a watcher says that an entry has gone, whatever it says of it before.
    async fn gone(&self, watcher: &mut Box<dyn Watcher>, wanted: &str) -> Checked {
        loop {
            if let KvChange::Gone { key } = self.change(watcher).await?
                && key == wanted
            {
                return Ok(());
            }
        }
    }
}

fn consumer_spec(stream: Stream, name: String, filter: &str, ack_wait: Duration) -> ConsumerSpec {
    let metadata = vec![("check".to_owned(), name.clone())];
    ConsumerSpec { id: ConsumerId { stream, name }, filter: filter.to_owned(), ack_wait, metadata }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

fn key(name: &str) -> Checked<Key> {
    Key::new(name).map_err(text)
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn same<T: PartialEq + fmt::Debug>(what: &str, found: &T, wanted: &T) -> Checked {
    ensure(found == wanted, || format!("{what}: {found:?} instead of {wanted:?}"))
}

/// The error must be of this kind.
fn refused<T: fmt::Debug>(what: &str, result: Result<T, BusError>, kind: BusErrorKind) -> Checked {
    match result {
        Ok(done) => Err(format!("{what}: went well ({done:?}) instead of failing as {kind:?}")),
        Err(error) => ensure(error.kind() == kind, || format!("{what}: {:?} ({error}), not {kind:?}", error.kind())),
    }
}

/// Something that must happen soon.
async fn within<T>(what: &str, happening: impl Future<Output = Checked<T>>) -> Checked<T> {
    timeout(PATIENCE, happening).await.unwrap_or_else(|_| Err(format!("{what}: not within {PATIENCE:?}")))
}

/// Something that must become so soon.
async fn until<F: Future<Output = Checked<bool>>>(what: &str, mut holds: impl FnMut() -> F) -> Checked {
    within(what, async {
        while !holds().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
    .await
}

async fn next(puller: &mut Box<dyn Puller>) -> Checked<Delivery> {
    within("a delivery", async { puller.next().await.map_err(text) }).await
}

async fn nothing_comes(puller: &mut Box<dyn Puller>, for_long: Duration) -> Checked {
    match timeout(for_long, puller.next()).await {
        Err(_) => Ok(()),
        Ok(Ok(delivery)) => Err(format!("{delivery:?} came, {:?}", delivery.message.payload)),
        Ok(Err(error)) => Err(error.to_string()),
    }
}

fn number(payload: &Bytes) -> Checked<u32> {
    std::str::from_utf8(payload).map_err(text)?.parse().map_err(text)
}

async fn ack(delivery: Delivery) -> Checked {
    delivery.ack().await.map_err(text)
}

/// Takes and settles so many deliveries; returns their numbers.
async fn take(puller: &mut Box<dyn Puller>, count: usize) -> Checked<Vec<u32>> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let delivery = next(puller).await?;
        numbers.push(number(&delivery.message.payload)?);
        ack(delivery).await?;
    }
    Ok(numbers)
}

async fn read(reader: &mut Box<dyn Reader>, count: u32) -> Checked<Vec<u32>> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let message = within("a message", async { reader.next().await.map_err(text) }).await?;
        numbers.push(number(&message.payload)?);
    }
    Ok(numbers)
}

fn numbers(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

async fn ensuring_again_changes_nothing(case: &Case<'_>) -> Checked {
    case.consumer("all", &case.all(), LONG_ACK_WAIT).await?;
    case.publish(&case.subject(), 0..1).await?;
    case.bus.ensure_streams().await.map_err(text)?;
    same("messages after ensuring again", &case.count(Stream::Records, &case.all()).await?, &1)?;
    same("is ready", &case.bus.is_ready().await.map_err(text)?, &true)
}

async fn messages_come_in_order(case: &Case<'_>) -> Checked {
    let (_, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    let published = case.publish(&case.subject(), 0..300).await?;
    ensure(published.is_sorted_by(|one, other| one < other), || "sequences do not grow".into())?;
    for (expected, seq) in (0..).zip(published) {
        let delivery = next(&mut puller).await?;
        same("message", &number(&delivery.message.payload)?, &expected)?;
        same("sequence", &delivery.message.seq, &seq)?;
        same("deliveries", &delivery.deliveries, &1)?;
        ack(delivery).await?;
    }
    nothing_comes(&mut puller, QUIET).await
}

async fn headers_and_body_come_as_they_were(case: &Case<'_>) -> Checked {
    let (_, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    let body: Bytes = (0..=255).collect::<Vec<u8>>().into();
    let mut message = Outgoing::new(case.subject(), body.clone()).with_id(format!("{}:ü id", case.audit));
    message.headers = vec![(header::CONTENT_TYPE, "x/y; z".into()), (header::COUNT, "7".into())];
    let receipt = case.bus.publish(message).await.map_err(text)?;

    let delivery = next(&mut puller).await?;
    same("subject", &&*delivery.message.subject, &&*case.subject())?;
    same("sequence", &delivery.message.seq, &receipt.seq)?;
    same("body", &delivery.message.payload, &body)?;
    same("content type", &delivery.message.header(header::CONTENT_TYPE), &Some("x/y; z"))?;
    same("count", &delivery.message.header(header::COUNT), &Some("7"))?;
    let id = format!("{}:ü id", case.audit);
    same("message id", &delivery.message.header(header::MESSAGE_ID), &Some(id.as_str()))?;
    ack(delivery).await
}

async fn filters_choose_messages(case: &Case<'_>) -> Checked {
    let audit = case.audit.token();
    let (one, other) = (key("one")?, key("other")?);
    let later = Version::new("20260201_000000").map_err(text)?;
    let subjects = [
        subject::record(&case.audit, &case.version, &one),
        subject::record(&case.audit, &case.version, &other),
        subject::record(&case.audit, &later, &one),
    ];
    let filters: [(String, &[u32]); 5] = [
        (subjects[0].clone(), &[0]),
        (case.all(), &[0, 1]),
        (format!("cm.record.{audit}.*.one"), &[0, 2]),
        (format!("cm.record.{audit}.>"), &[0, 1, 2]),
        (format!("cm.*.{audit}.{later}.*"), &[2]),
    ];
    let mut pullers = Vec::new();
    for (place, (filter, _)) in filters.iter().enumerate() {
        let id = case.consumer(&format!("filter-{place}"), filter, LONG_ACK_WAIT).await?;
        pullers.push(case.pull(&id).await?);
    }
    for (number, subject) in (0..).zip(&subjects) {
        case.publish(subject, number..number + 1).await?;
    }
    for ((filter, wanted), puller) in filters.iter().zip(&mut pullers) {
        same(filter, &take(puller, wanted.len()).await?.as_slice(), wanted)?;
        nothing_comes(puller, QUIET).await?;
    }
    Ok(())
}

async fn two_pullers_share_the_messages(case: &Case<'_>) -> Checked {
    let (id, mut first) = case.pulled(LONG_ACK_WAIT).await?;
    let mut second = case.pull(&id).await?;
    let last = case.publish(&case.subject(), 0..400).await?.last().copied().unwrap_or_default();
    let mut seen: Vec<u32> = Vec::new();
    while seen.len() < 400 {
        let delivery = within("a delivery to either", async {
            tokio::select! {
                delivery = first.next() => delivery.map_err(text),
                delivery = second.next() => delivery.map_err(text),
            }
        })
        .await?;
        seen.push(number(&delivery.message.payload)?);
        ack(delivery).await?;
    }
    let distinct: BTreeSet<u32> = seen.iter().copied().collect();
    same("distinct messages", &distinct.len(), &400)?;
    until("the ack floor at the end", || async { Ok(case.floor(&id).await? >= last) }).await?;
    nothing_comes(&mut first, QUIET).await?;
    nothing_comes(&mut second, QUIET).await
}

async fn a_dropped_delivery_comes_again_at_once(case: &Case<'_>) -> Checked {
    let (id, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    let sequences = case.publish(&case.subject(), 0..1).await?;
    for deliveries in 1..=5 {
        let delivery = next(&mut puller).await?;
        same("deliveries", &delivery.deliveries, &deliveries)?;
        ensure(case.floor(&id).await? < sequences[0], || "the ack floor has passed it".into())?;
        drop(delivery);
    }
    ack(next(&mut puller).await?).await?;
    nothing_comes(&mut puller, QUIET).await
}

async fn a_lost_delivery_comes_again_after_the_ack_wait(case: &Case<'_>) -> Checked {
    let ack_wait = Duration::from_millis(500);
    let (_, mut puller) = case.pulled(ack_wait).await?;
    case.publish(&case.subject(), 0..1).await?;
    let delivery = next(&mut puller).await?;
    let lost = Instant::now();
    // As if its worker had been killed.
    std::mem::forget(delivery);
    let again = next(&mut puller).await?;
    // It was on its way for a while before it was lost here.
    ensure(lost.elapsed() >= ack_wait / 2, || format!("it came again after {:?}", lost.elapsed()))?;
    same("deliveries", &again.deliveries, &2)?;
    ack(again).await?;
    nothing_comes(&mut puller, ack_wait * 2).await
}

async fn progress_postpones_redelivery(case: &Case<'_>) -> Checked {
    let ack_wait = Duration::from_millis(1500);
    let (id, mut puller) = case.pulled(ack_wait).await?;
    let sequences = case.publish(&case.subject(), 0..1).await?;
    let delivery = next(&mut puller).await?;
    let working = nothing_comes(&mut puller, ack_wait * 2);
    delivery.while_working(ack_wait / 6, working).await?;
    ack(delivery).await?;
    until("the ack floor", || async { Ok(case.floor(&id).await? >= sequences[0]) }).await?;
    nothing_comes(&mut puller, QUIET).await
}

async fn a_delivery_is_given_back_with_a_delay(case: &Case<'_>) -> Checked {
    let (_, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    case.publish(&case.subject(), 0..1).await?;
    let delay = Duration::from_millis(700);
    let given_back = Instant::now();
    next(&mut puller).await?.give_back(delay).await.map_err(text)?;
    let again = next(&mut puller).await?;
    let after = given_back.elapsed();
    ensure(after + CLOCK_TOLERANCE >= delay, || format!("it came again after {after:?}, not {delay:?}"))?;
    same("deliveries", &again.deliveries, &2)?;

    again.give_back(Duration::ZERO).await.map_err(text)?;
    let third = next(&mut puller).await?;
    same("deliveries", &third.deliveries, &3)?;
    ack(third).await
}

async fn a_dropped_puller_gives_back_its_buffer(case: &Case<'_>) -> Checked {
    let (id, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    case.publish(&case.subject(), 0..50).await?;
    ack(next(&mut puller).await?).await?;
    drop(puller);
    let mut other = case.pull(&id).await?;
    let rest: BTreeSet<u32> = take(&mut other, 49).await?.into_iter().collect();
    same("messages of the next puller", &rest.len(), &49)
}

async fn the_ack_floor_does_not_pass_what_is_unsettled(case: &Case<'_>) -> Checked {
    let (id, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    let sequences = case.publish(&case.subject(), 0..5).await?;
    same("last sequence", &case.last_seq(&case.all()).await?, &sequences[4])?;
    ensure(case.floor(&id).await? < sequences[0], || "the floor has passed what nobody has pulled".into())?;

    let mut deliveries = BTreeMap::new();
    for place in 0..5 {
        deliveries.insert(place, next(&mut puller).await?);
    }
    let settled_to = |pending: u64| {
        let id = &id;
        move || async move { Ok(case.bus.consumer_state(id).await.map_err(text)?.ack_pending == pending) }
    };
    // Out of order; each time with the sequence that the floor must not pass.
    for (place, pending, bound) in [(1, 4, 0), (2, 3, 0), (4, 2, 0), (0, 1, 3)] {
        if let Some(delivery) = deliveries.remove(&place) {
            ack(delivery).await?;
        }
        until("the acknowledgement", settled_to(pending)).await?;
        let floor = case.floor(&id).await?;
        let bound = sequences[bound];
        ensure(floor < bound, || format!("the floor is at {floor}, past the unsettled {bound}"))?;
    }
    ensure(case.floor(&id).await? >= sequences[2], || "the floor stands still".into())?;
    if let Some(delivery) = deliveries.remove(&3) {
        ack(delivery).await?;
    }
    until("the floor at the end", || async { Ok(case.floor(&id).await? >= sequences[4]) }).await
}

async fn a_consumer_of_nothing_is_drained(case: &Case<'_>) -> Checked {
    let (id, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    same("last sequence", &case.last_seq(&case.all()).await?, &0)?;
    let state = case.bus.consumer_state(&id).await.map_err(text)?;
    same("pending", &(state.ack_pending, state.pending), &(0, 0))?;
    nothing_comes(&mut puller, QUIET).await
}

async fn a_unit_leaves_the_queue_when_acknowledged(case: &Case<'_>) -> Checked {
    let pool = &case.audit;
    let filter = subject::units_of_pool(pool);
    let spec =
        ConsumerSpec { id: ConsumerId::pool(pool), ..consumer_spec(Stream::Units, "".into(), &filter, LONG_ACK_WAIT) };
    case.bus.create_consumer(&spec).await.map_err(text)?;
    let unit = subject::unit(pool, &case.audit, &case.version, &case.plugin);
    case.publish(&unit, 0..3).await?;
    let mine = subject::units_of(&case.audit, &case.version);
    same("units in the queue", &case.count(Stream::Units, &mine).await?, &3)?;

    let mut puller = case.pull(&spec.id).await?;
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        deliveries.push(next(&mut puller).await?);
    }
    same("units in the queue when pulled", &case.count(Stream::Units, &mine).await?, &3)?;
    for (delivery, left) in deliveries.into_iter().zip([2, 1, 0]) {
        ack(delivery).await?;
        until("fewer units", || async { Ok(case.count(Stream::Units, &mine).await? == left) }).await?;
    }
    nothing_comes(&mut puller, QUIET).await
}

async fn a_repeat_is_dropped(case: &Case<'_>) -> Checked {
    let (_, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    let message = |body: &'static str, id: &str| {
        let id = format!("{}:{id}", case.audit);
        Outgoing::new(case.subject(), Bytes::from_static(body.as_bytes())).with_id(id)
    };
    let first = case.bus.publish(message("1", "a")).await.map_err(text)?;
    same("the first is a duplicate", &first.duplicate, &false)?;
    for body in ["1", "2"] {
        let again = case.bus.publish(message(body, "a")).await.map_err(text)?;
        same("receipt of the repeat", &again, &Receipt { seq: first.seq, duplicate: true })?;
    }
    let other = case.bus.publish(message("3", "b")).await.map_err(text)?;
    same("another id is a duplicate", &other.duplicate, &false)?;
    same("messages", &take(&mut puller, 2).await?, &vec![1, 3])?;
    // What is published without an id is never a repeat.
    case.publish(&case.subject(), 7..8).await?;
    case.publish(&case.subject(), 7..8).await?;
    same("messages without id", &take(&mut puller, 2).await?, &vec![7, 7])?;
    // A settled message is remembered, too.
    let late = case.bus.publish(message("1", "a")).await.map_err(text)?;
    same("receipt of the late repeat", &late, &Receipt { seq: first.seq, duplicate: true })?;
    nothing_comes(&mut puller, QUIET).await
}

async fn consumers_are_independent(case: &Case<'_>) -> Checked {
    let one = case.consumer("one", &case.all(), LONG_ACK_WAIT).await?;
    let other = case.consumer("other", &case.all(), LONG_ACK_WAIT).await?;
    let last = case.publish(&case.subject(), 0..20).await?[19];
    let mut puller = case.pull(&one).await?;
    same("messages of the one", &take(&mut puller, 20).await?, &numbers(0..20))?;
    until("the floor of the one", || async { Ok(case.floor(&one).await? >= last) }).await?;
    ensure(case.floor(&other).await? < last, || "the other's floor has moved".into())?;
    let mut puller = case.pull(&other).await?;
    same("messages of the other", &take(&mut puller, 20).await?, &numbers(0..20))?;
    until("the floor of the other", || async { Ok(case.floor(&other).await? >= last) }).await
}

async fn consumers_are_created_once_and_deleted(case: &Case<'_>) -> Checked {
    let missing = ConsumerId { stream: Stream::Records, name: format!("{}-missing", case.audit.token()) };
    refused("a missing consumer's state", case.bus.consumer_state(&missing).await, BusErrorKind::NotFound)?;
    let pulled = case.bus.pull(&missing, PullLimits::default()).await.map(|_| ());
    refused("pulling from a missing consumer", pulled, BusErrorKind::NotFound)?;
    case.bus.delete_consumer(&missing).await.map_err(text)?;

    let (id, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    case.publish(&case.subject(), 0..2).await?;
    same("messages", &take(&mut puller, 1).await?, &vec![0])?;
    // Once more the same: it stays where it is.
    case.consumer("all", &case.all(), LONG_ACK_WAIT).await?;
    same("messages", &take(&mut puller, 1).await?, &vec![1])?;
    let other = consumer_spec(Stream::Records, id.name.clone(), &case.subject(), LONG_ACK_WAIT);
    refused("the same name for another filter", case.bus.create_consumer(&other).await, BusErrorKind::Mismatch)?;

    case.bus.delete_consumer(&id).await.map_err(text)?;
    let after = within("the end of a deleted consumer's puller", async { Ok(puller.next().await) }).await?;
    refused("pulling from a deleted consumer", after, BusErrorKind::NotFound)?;
    case.bus.delete_consumer(&id).await.map_err(text)
}

async fn publishing_compares_and_sets(case: &Case<'_>) -> Checked {
    let subject = subject::status(&case.audit, &case.version, "compared");
    let message = |body: &str| Outgoing::new(subject.clone(), body.to_owned().into());
    let first = case.bus.publish_expecting(message("first"), 0).await.map_err(text)?;
    let again = case.bus.publish_expecting(message("again"), 0).await;
    refused("a second first message", again, BusErrorKind::Conflict)?;

    let attempts: FuturesUnordered<_> = (0..20)
        .map(|number| {
            let message = message(&number.to_string());
            async move { case.bus.publish_expecting(message, first.seq).await }
        })
        .collect();
    let mut winners = Vec::new();
    for result in attempts.collect::<Vec<_>>().await {
        match result {
            Ok(receipt) => winners.push(receipt.seq),
            Err(error) => refused("losing", Err::<(), _>(error), BusErrorKind::Conflict)?,
        }
    }
    same("winners of 20", &winners.len(), &1)?;
    case.bus.publish_expecting(message("next"), winners[0]).await.map_err(text)?;
    Ok(())
}

async fn entries_are_created_changed_and_deleted(case: &Case<'_>) -> Checked {
    let (bus, bucket, key) = (&case.bus, Bucket::Runs, case.entry("a"));
    same("an entry that was never set", &case.value(bucket, &key).await?, &None)?;
    let created = bus.kv_create(bucket, &key, "1".into(), None).await.map_err(text)?;
    refused("creating again", bus.kv_create(bucket, &key, "1".into(), None).await, BusErrorKind::Conflict)?;
    let entry = bus.kv_get(bucket, &key).await.map_err(text)?.ok_or("the created entry is not there")?;
    same("the created entry", &(entry.revision, &entry.value[..]), &(created, &b"1"[..]))?;
    same("its key", &entry.key, &key)?;

    let updated = bus.kv_update(bucket, &key, "2".into(), created).await.map_err(text)?;
    ensure(updated > created, || "the revision does not grow".into())?;
    refused("a stale change", bus.kv_update(bucket, &key, "3".into(), created).await, BusErrorKind::Conflict)?;
    let missing = bus.kv_update(bucket, &case.entry("missing"), "3".into(), updated).await;
    refused("a change of a missing entry", missing, BusErrorKind::Conflict)?;
    let put = bus.kv_put(bucket, &key, "4".into()).await.map_err(text)?;
    ensure(put > updated, || "the revision does not grow".into())?;
    same("the value", &case.value(bucket, &key).await?, &Some("4".into()))?;

    bus.kv_delete(bucket, &key).await.map_err(text)?;
    same("the value after deleting", &case.value(bucket, &key).await?, &None)?;
    refused("changing a deleted entry", bus.kv_update(bucket, &key, "5".into(), put).await, BusErrorKind::Conflict)?;
    bus.kv_delete(bucket, &key).await.map_err(text)?;
    let anew = bus.kv_create(bucket, &key, "6".into(), None).await.map_err(text)?;
    ensure(anew > put, || "the revision does not grow".into())?;
    same("the value when created anew", &case.value(bucket, &key).await?, &Some("6".into()))
}

async fn one_of_many_changes_an_entry(case: &Case<'_>) -> Checked {
    let (bucket, key) = (Bucket::Runs, case.entry("a"));
    let mut revision = None;
    for round in 0..3 {
        let attempts = (0..20).map(|number: u32| {
            let (value, key) = (Bytes::from(number.to_string()), &key);
            async move {
                let changed = match revision {
                    None => case.bus.kv_create(bucket, key, value, None).await,
                    Some(revision) => case.bus.kv_update(bucket, key, value, revision).await,
                };
                (number, changed)
            }
        });
        let mut winners = Vec::new();
        for (number, changed) in join_all(attempts).await {
            match changed {
                Ok(revision) => winners.push((number, revision)),
                Err(error) => refused("losing", Err::<(), _>(error), BusErrorKind::Conflict)?,
            }
        }
        same(&format!("winners of 20 in round {round}"), &winners.len(), &1)?;
        let (winner, won) = winners[0];
        same("the value", &case.value(bucket, &key).await?, &Some(winner.to_string().into()))?;
        revision = Some(won);
    }
    Ok(())
}

async fn entries_are_listed_by_prefix(case: &Case<'_>) -> Checked {
    let (bus, bucket) = (&case.bus, Bucket::Plans);
    same("entries before", &bus.kv_entries(bucket, &case.entry("")).await.map_err(text)?.len(), &0)?;
    for name in ["v1.a", "v1.b", "v1x.c", "v2.d", "v1.gone"] {
        bus.kv_put(bucket, &case.entry(name), "old".into()).await.map_err(text)?;
        bus.kv_put(bucket, &case.entry(name), name.to_owned().into()).await.map_err(text)?;
    }
    bus.kv_delete(bucket, &case.entry("v1.gone")).await.map_err(text)?;
    for (prefix, wanted) in [
        ("v1.", &["v1.a", "v1.b"][..]),
        ("v1", &["v1.a", "v1.b", "v1x.c"]),
        ("", &["v1.a", "v1.b", "v1x.c", "v2.d"]),
        ("v3.", &[]),
    ] {
        let entries = bus.kv_entries(bucket, &case.entry(prefix)).await.map_err(text)?;
        let found: BTreeMap<String, Bytes> = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        let wanted = wanted.iter().map(|name| (case.entry(name), Bytes::from_static(name.as_bytes()))).collect();
        same(&format!("entries under {prefix:?}"), &found, &wanted)?;
    }
    Ok(())
}

async fn an_entry_with_a_life_time_goes(case: &Case<'_>) -> Checked {
    let (bus, bucket, key) = (&case.bus, Bucket::Throttle, case.entry("scope"));
    let ttl = Duration::from_secs(1);
    let mut watcher = bus.kv_watch(bucket).await.map_err(text)?;
    // Twice: what is created in the place of an entry that has gone has a life time as well.
    for round in 0..2 {
        let created = Instant::now();
        bus.kv_create(bucket, &key, "paused".into(), Some(ttl)).await.map_err(text)?;
        same(&format!("the value in round {round}"), &case.value(bucket, &key).await?, &Some("paused".into()))?;
        let put = case.change(&mut watcher).await?;
        ensure(matches!(&put, KvChange::Put(entry) if entry.value == "paused"), || format!("{put:?}"))?;
        case.gone(&mut watcher, &key).await?;
        let lived = created.elapsed();
        ensure(lived + CLOCK_TOLERANCE >= ttl, || format!("it lived for {lived:?} only"))?;
        same("the value when its time is over", &case.value(bucket, &key).await?, &None)?;
    }
    // And so has one that takes the place of a deleted one.
    bus.kv_create(bucket, &key, "paused".into(), None).await.map_err(text)?;
    bus.kv_delete(bucket, &key).await.map_err(text)?;
    bus.kv_create(bucket, &key, "paused".into(), Some(ttl)).await.map_err(text)?;
    until("the end of the last one", || async { Ok(case.value(bucket, &key).await?.is_none()) }).await
}

async fn a_lease_lives_as_long_as_it_is_renewed(case: &Case<'_>) -> Checked {
    let (bus, bucket, key) = (&case.bus, Bucket::Leases, case.entry("lease"));
    let mut watcher = bus.kv_watch(bucket).await.map_err(text)?;
    let began = Instant::now();
    let mut revision = bus.kv_create(bucket, &key, "me".into(), None).await.map_err(text)?;
    while began.elapsed() < lease::TTL * 3 / 2 {
        tokio::time::sleep(lease::TTL / 5).await;
        revision = bus.kv_update(bucket, &key, "me".into(), revision).await.map_err(text)?;
    }
    let renewed = Instant::now();
    same("the lease while it is renewed", &case.value(bucket, &key).await?, &Some("me".into()))?;
    case.gone(&mut watcher, &key).await?;
    let lived = renewed.elapsed();
    ensure(lived + CLOCK_TOLERANCE >= lease::TTL, || format!("it ended {lived:?} after it was renewed"))?;
    ensure(lived < lease::TTL * 2, || format!("it ended only {lived:?} after it was renewed"))?;
    refused("a late renewal", bus.kv_update(bucket, &key, "me".into(), revision).await, BusErrorKind::Conflict)?;
    bus.kv_create(bucket, &key, "other".into(), None).await.map_err(text)?;
    Ok(())
}

async fn a_watcher_sees_what_is_there_and_what_changes(case: &Case<'_>) -> Checked {
    let (bus, bucket) = (&case.bus, Bucket::Plans);
    let (a, b, c) = (case.entry("a"), case.entry("b"), case.entry("c"));
    for key in [&a, &b, &c] {
        bus.kv_put(bucket, key, "old".into()).await.map_err(text)?;
    }
    bus.kv_put(bucket, &a, "new".into()).await.map_err(text)?;
    bus.kv_delete(bucket, &c).await.map_err(text)?;

    let mut watcher = bus.kv_watch(bucket).await.map_err(text)?;
    let mut seen = BTreeMap::new();
    while seen.len() < 2 {
        match case.change(&mut watcher).await? {
            KvChange::Put(entry) => seen.insert(entry.key, entry.value),
            KvChange::Gone { .. } => None,
        };
    }
    same("the values that are there", &seen, &BTreeMap::from([(a.clone(), "new".into()), (b, "old".into())]))?;

    let revision = bus.kv_put(bucket, &c, "back".into()).await.map_err(text)?;
    let put = within("the change", async {
        loop {
            match case.change(&mut watcher).await? {
                KvChange::Put(entry) if entry.key == c => return Ok(entry),
                _ => {}
            }
        }
    })
    .await?;
    same("the new value", &(put.revision, &put.value[..]), &(revision, &b"back"[..]))?;
    bus.kv_delete(bucket, &a).await.map_err(text)?;
    case.gone(&mut watcher, &a).await
}

async fn the_last_sequence_and_the_count_follow_filters(case: &Case<'_>) -> Checked {
    let audit = case.audit.token();
    let later = Version::new("20260201_000000").map_err(text)?;
    let (one, other) = (key("one")?, key("other")?);
    let whole_audit = format!("cm.record.{audit}.>");
    case.consumer("whole", &whole_audit, LONG_ACK_WAIT).await?;
    same("the last of nothing", &case.last_seq(&whole_audit).await?, &0)?;
    same("the count of nothing", &case.count(Stream::Records, &whole_audit).await?, &0)?;

    let first = case.publish(&subject::record(&case.audit, &case.version, &one), 0..3).await?[2];
    let second = case.publish(&subject::record(&case.audit, &case.version, &other), 0..2).await?[1];
    let third = case.publish(&subject::record(&case.audit, &later, &one), 0..1).await?[0];
    for (filter, last, count) in [
        (subject::record(&case.audit, &case.version, &one), first, 3),
        (case.all(), second, 5),
        (format!("cm.record.{audit}.*.one"), third, 4),
        (whole_audit, third, 6),
        (subject::record(&case.audit, &later, &other), 0, 0),
    ] {
        same(&format!("the last of {filter}"), &case.last_seq(&filter).await?, &last)?;
        same(&format!("the count of {filter}"), &case.count(Stream::Records, &filter).await?, &count)?;
    }
    Ok(())
}

async fn a_purge_removes_what_matches(case: &Case<'_>) -> Checked {
    let later = Version::new("20260201_000000").map_err(text)?;
    let id = case.consumer("later", &subject::records_of(&case.audit, &later), LONG_ACK_WAIT).await?;
    case.consumer("all", &case.all(), LONG_ACK_WAIT).await?;
    case.publish(&case.subject(), 0..10).await?;
    case.publish(&subject::record(&case.audit, &later, &case.plugin), 0..10).await?;
    case.bus.purge(Stream::Records, &case.all(), None).await.map_err(text)?;
    same("messages that match", &case.count(Stream::Records, &case.all()).await?, &0)?;
    let left = subject::records_of(&case.audit, &later);
    same("other messages", &case.count(Stream::Records, &left).await?, &10)?;
    let mut puller = case.pull(&id).await?;
    same("other messages", &take(&mut puller, 10).await?, &numbers(0..10))
}

async fn a_purge_stops_at_its_sequence(case: &Case<'_>) -> Checked {
    let (id, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    let sequences = case.publish(&case.subject(), 0..10).await?;
    case.bus.purge(Stream::Records, &case.all(), Some(0)).await.map_err(text)?;
    same("messages after purging through nothing", &case.count(Stream::Records, &case.all()).await?, &10)?;
    same("messages", &take(&mut puller, 4).await?, &numbers(0..4))?;
    until("the floor", || async { Ok(case.floor(&id).await? >= sequences[3]) }).await?;
    case.bus.purge(Stream::Records, &case.all(), Some(sequences[3])).await.map_err(text)?;
    same("messages that are left", &case.count(Stream::Records, &case.all()).await?, &6)?;
    same("the last sequence", &case.last_seq(&case.all()).await?, &sequences[9])?;
    same("messages that are left", &take(&mut puller, 6).await?, &numbers(4..10))
}

async fn a_message_that_is_too_large_is_refused(case: &Case<'_>) -> Checked {
    let (_, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    let max = case.bus.max_message();
    let message = |size: usize| Outgoing::new(case.subject(), vec![b'x'; size].into());
    // The headers count, too.
    let mut with_headers = message(max - 100);
    with_headers.headers.push((header::CONTENT_TYPE, "y".repeat(200).into()));
    for message in [message(max + 1), with_headers] {
        refused("a message that is too large", case.bus.publish(message).await, BusErrorKind::TooLarge)?;
    }
    let largest = max - 1024;
    case.bus.publish(message(largest)).await.map_err(text)?;
    // It comes even to one who wants to hold less.
    let delivery = next(&mut puller).await?;
    same("size of what is not too large", &delivery.message.payload.len(), &largest)?;
    ack(delivery).await?;
    nothing_comes(&mut puller, QUIET).await
}

async fn a_full_stream_holds_up_its_publisher(case: &Case<'_>) -> Checked {
    const MESSAGES: u32 = 40;
    const SIZE: usize = 32 * 1024;
    let bound = 16 * SIZE;
    let case =
        Case { bus: case.factory.bounded(bound).await?, ..Case::new(case.factory, case.bus.clone(), "bounded")? };
    let (_, mut puller) = case.pulled(LONG_ACK_WAIT).await?;
    let usage = case.bus.usage(Stream::Records).await.map_err(text)?;
    // One that refuses what is new has to tell whoever makes room how much there is.
    let told = usage.max_bytes.is_some() || !case.bus.can_replay();
    ensure(told, || "a bounded stream does not tell its bound".into())?;

    let publishing = async {
        for number in 0..MESSAGES {
            let mut body = format!("{number:09}").into_bytes();
            body.resize(SIZE, b' ');
            let message = Outgoing::new(case.subject(), body.into());
            loop {
                match case.bus.publish(message.clone()).await {
                    Ok(_) => break,
                    // A bus may wait for room, or say that there is none: then its caller waits.
                    Err(error) if error.kind() == BusErrorKind::Full => {}
                    Err(error) => return Err(error.to_string()),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    };
    let making_room = async {
        let full = || async {
            let used = case.bus.usage(Stream::Records).await.map_err(text)?.bytes;
            Ok(used + 2 * u64::try_from(SIZE).map_err(text)? > u64::try_from(bound).map_err(text)?)
        };
        until("a full stream", full).await?;
        tokio::time::sleep(QUIET).await;
        let held = case.count(Stream::Records, &case.all()).await?;
        ensure(held <= 16, || format!("{held} messages of {SIZE} bytes are in {bound} bytes"))?;
        for expected in 0..MESSAGES {
            let delivery = next(&mut puller).await?;
            let seq = delivery.message.seq;
            let text_of = String::from_utf8_lossy(&delivery.message.payload).trim_end().to_owned();
            same("message", &text_of, &format!("{expected:09}"))?;
            ack(delivery).await?;
            case.bus.purge(Stream::Records, &case.all(), Some(seq)).await.map_err(text)?;
        }
        Ok(())
    };
    futures::try_join!(publishing, making_room).map(|_| ())
}

async fn an_announced_reader_sees_all_in_order(case: &Case<'_>) -> Checked {
    let spec = ReaderSpec::exclusive(&case.audit, &case.version, Role::Store, &case.plugin);
    case.bus.announce_reader(&spec).await.map_err(text)?;
    case.publish(&case.subject(), 0..100).await?;
    let mut reader = case.bus.read(&spec).await.map_err(text)?;
    same("what was published before", &read(&mut reader, 100).await?, &numbers(0..100))?;
    let subject = case.subject();
    let publishing = case.publish(&subject, 100..400);
    let reading = read(&mut reader, 300);
    let (_, seen) = futures::try_join!(publishing, reading)?;
    same("what was published meanwhile", &seen, &numbers(100..400))?;
    // Waiting in vain loses nothing.
    ensure(timeout(QUIET, reader.next()).await.is_err(), || "there is more than was published".into())?;
    case.publish(&case.subject(), 400..401).await?;
    same("what was published later", &read(&mut reader, 1).await?, &vec![400])?;
    drop(reader);
    case.bus.retire_reader(&spec).await.map_err(text)?;
    // Nobody waits for it any more: publishing goes on.
    case.publish(&case.subject(), 401..402).await.map(|_| ())
}

async fn a_bus_that_can_replay_reads_again(case: &Case<'_>) -> Checked {
    let spec = ReaderSpec::exclusive(&case.audit, &case.version, Role::Store, &case.plugin);
    case.bus.announce_reader(&spec).await.map_err(text)?;
    case.publish(&case.subject(), 0..20).await?;
    let mut first = case.bus.read(&spec).await.map_err(text)?;
    same("the first reading", &read(&mut first, 10).await?, &numbers(0..10))?;
    drop(first);
    if !case.bus.can_replay() {
        let again = case.bus.read(&spec).await.map(|_| ());
        return refused("reading again", again, BusErrorKind::Unsupported);
    }
    let mut second = case.bus.read(&spec).await.map_err(text)?;
    let mut third = case.bus.read(&spec).await.map_err(text)?;
    same("the second reading", &read(&mut second, 20).await?, &numbers(0..20))?;
    same("a reading at the same time", &read(&mut third, 20).await?, &numbers(0..20))
}
