//! Streams and buckets: what they must be like, and creating those that are missing.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{ErrorCode, consumer};
use serde::Deserialize;
use serde_json::json;

use super::api::{CHANGE, Failure, QUERY};
use super::connection::Connection;
use super::options::NatsOptions;
use crate::bus::{Bucket, BusError, BusErrorKind, ConsumerSpec, StreamUsage};
use crate::subject::Stream;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Longer than any publisher tries to get rid of one message.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);

/// For how long a publisher of a bucket's change is recognised when it tries again.
const BUCKET_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// For how long watchers can see that an entry's time is over.
const MARKER_TTL: Duration = Duration::from_secs(60);

/// What the coordinator creates, as far as it is missing.
pub(super) fn wanted(options: &NatsOptions) -> Vec<Config> {
    let streams = Stream::ALL.into_iter().map(|stream| stream_config(stream, options));
    let buckets = Bucket::ALL.into_iter().map(|bucket| bucket_config(bucket, options));
    streams.chain(buckets).collect()
}

/// The stream behind a bucket.
pub(super) fn bucket_stream(bucket: Bucket) -> String {
    format!("KV_{}", bucket.name())
}

fn stream_config(stream: Stream, options: &NatsOptions) -> Config {
    let limits = &options.limits;
    let (max_bytes, max_age) = match stream {
        Stream::Units => (limits.units_max_bytes, Duration::ZERO),
        Stream::Records => (limits.records_max_bytes, 7 * DAY),
        Stream::Events => (limits.events_max_bytes, 30 * DAY),
        Stream::Status => (limits.status_max_bytes, 90 * DAY),
        Stream::Dead => (limits.dead_max_bytes, 90 * DAY),
    };
    Config {
        name: stream.name().into(),
        subjects: stream.subjects().iter().map(|subject| (*subject).to_owned()).collect(),
        retention: if stream == Stream::Units { RetentionPolicy::WorkQueue } else { RetentionPolicy::Limits },
        // The oldest events go when there is no more room; all else refuses what is new, as nothing may be lost.
        discard: if stream == Stream::Events { DiscardPolicy::Old } else { DiscardPolicy::New },
        allow_direct: stream == Stream::Events,
        max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
        max_age,
        storage: StorageType::File,
        num_replicas: options.replicas,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    }
}

fn bucket_config(bucket: Bucket, options: &NatsOptions) -> Config {
    let max_age = bucket.max_age().unwrap_or_default();
    let watched_for_expiry = matches!(bucket, Bucket::Leases | Bucket::Throttle | Bucket::Workers);
    Config {
        name: bucket_stream(bucket),
        subjects: vec![format!("$KV.{}.>", bucket.name())],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        max_bytes: -1,
        max_age,
        storage: StorageType::File,
        num_replicas: options.replicas,
        duplicate_window: if max_age.is_zero() {
            BUCKET_DUPLICATE_WINDOW
        } else {
            BUCKET_DUPLICATE_WINDOW.min(max_age)
        },
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: watched_for_expiry.then_some(MARKER_TTL),
        ..Config::default()
    }
}

/// Whether an entry's life time of such a bucket is part of what it means.
fn age_is_essential(wanted: &Config) -> bool {
    [Bucket::Leases, Bucket::Workers, Bucket::Throttle].iter().any(|bucket| bucket_stream(*bucket) == wanted.name)
}

/// Where a stream that is there differs from the wanted one in what matters; limits are the operator's to change.
fn differences(wanted: &Config, found: &Config) -> Vec<String> {
    let mut differences = Vec::new();
    let mut check = |same: bool, name: &str, wanted: String, found: String| {
        if !same {
            differences.push(format!("{name} is {found}, must be {wanted}"));
        }
    };
    let sorted = |config: &Config| {
        let mut subjects = config.subjects.clone();
        subjects.sort();
        subjects
    };
    let (want, have) = (sorted(wanted), sorted(found));
    check(want == have, "subjects", want.join(" "), have.join(" "));
    let same = wanted.retention == found.retention;
    check(same, "retention", format!("{:?}", wanted.retention), format!("{:?}", found.retention));
    let same = wanted.discard == found.discard;
    check(same, "discard", format!("{:?}", wanted.discard), format!("{:?}", found.discard));
    check(!found.no_ack, "no_ack", "false".into(), found.no_ack.to_string());
    if wanted.allow_message_ttl {
        let same = wanted.max_messages_per_subject == found.max_messages_per_subject;
        let (want, have) = (wanted.max_messages_per_subject, found.max_messages_per_subject);
        check(same, "max_msgs_per_subject", want.to_string(), have.to_string());
        check(found.allow_message_ttl, "allow_msg_ttl", "true".into(), found.allow_message_ttl.to_string());
    }
    if age_is_essential(wanted) {
        let same = wanted.max_age == found.max_age;
        check(same, "max_age", format!("{:?}", wanted.max_age), format!("{:?}", found.max_age));
    }
    differences
}

fn mismatch(wanted: &Config, found: &Config) -> Result<(), BusError> {
    let differences = differences(wanted, found);
    if differences.is_empty() {
        return Ok(());
    }
    let name = &wanted.name;
    let message = format!(
        "the stream {name} is there with another configuration: {}. Cloudmarker never deletes or changes a stream: \
         change it (nats stream edit {name}), or, when nothing in it is needed any more, remove it (nats stream rm \
         {name}) and it is created anew",
        differences.join("; ")
    );
    Err(BusError::new(BusErrorKind::Mismatch, message))
}

impl Connection {
    /// Creates what is missing, and compares what is there.
    pub(super) async fn ensure_streams(&self, options: &NatsOptions) -> Result<(), BusError> {
        if !self.client.is_server_compatible(2, 11, 0) {
            let version = self.client.server_info().version;
            let message = format!("the NATS server is version {version}; Cloudmarker needs 2.11 or newer: update it");
            return Err(BusError::new(BusErrorKind::Mismatch, message));
        }
        for wanted in wanted(options) {
            self.ensure_stream(&wanted).await?;
        }
        Ok(())
    }

    async fn ensure_stream(&self, wanted: &Config) -> Result<(), BusError> {
        let name = &wanted.name;
        let found = match self.stream_info(name, CHANGE).await {
            Ok(info) => info,
            Err(failure) if failure.is(ErrorCode::STREAM_NOT_FOUND) => {
                let created = self.api::<Info>(&format!("STREAM.CREATE.{name}"), wanted, CHANGE).await;
                match created {
                    Ok(info) => {
                        tracing::info!(stream = name, "created the stream");
                        info
                    }
                    // Somebody else was faster.
                    Err(failure) if failure.is(ErrorCode::STREAM_NAME_EXIST) => {
                        let again = self.stream_info(name, CHANGE).await;
                        again.map_err(|failure| failure.into_error(format_args!("cannot look at the stream {name}")))?
                    }
                    Err(failure) => {
                        return Err(failure.into_error(format_args!("cannot create the stream {name}")));
                    }
                }
            }
            Err(failure) => return Err(failure.into_error(format_args!("cannot look at the stream {name}"))),
        };
        mismatch(wanted, &found.config)
    }

    /// Whether all streams and buckets are there.
    pub(super) async fn has_streams(&self) -> Result<bool, BusError> {
        let names = Stream::ALL.into_iter().map(|stream| stream.name().to_owned());
        for name in names.chain(Bucket::ALL.into_iter().map(bucket_stream)) {
            match self.stream_info(&name, QUERY).await {
                Ok(_) => {}
                Err(failure) if failure.is(ErrorCode::STREAM_NOT_FOUND) => return Ok(false),
                Err(failure) => {
                    return Err(failure.into_error(format_args!("cannot look at the stream {name}")));
                }
            }
        }
        Ok(true)
    }

    pub(super) async fn stream_info(&self, name: &str, patience: Duration) -> Result<Info, Failure> {
        self.api(&format!("STREAM.INFO.{name}"), &json!({}), patience).await
    }

    /// How many messages of a stream match a filter: the sum over its subjects, which come in pages.
    pub(super) async fn count(&self, name: &str, filter: &str) -> Result<u64, Failure> {
        let operation = format!("STREAM.INFO.{name}");
        let (mut count, mut offset) = (0, 0);
        loop {
            let body = json!({ "subjects_filter": filter, "offset": offset });
            let page: SubjectsPage = self.api(&operation, &body, QUERY).await?;
            let subjects = page.state.subjects.unwrap_or_default();
            count += subjects.values().sum::<u64>();
            offset += subjects.len();
            if subjects.is_empty() || offset >= page.total {
                return Ok(count);
            }
        }
    }

    pub(super) async fn usage(&self, stream: Stream) -> Result<StreamUsage, BusError> {
        let name = stream.name();
        let info = self.stream_info(name, QUERY).await;
        let info = info.map_err(|failure| failure.into_error(format_args!("cannot look at the stream {name}")))?;
        let max_bytes = u64::try_from(info.config.max_bytes).ok().filter(|bytes| *bytes > 0);
        Ok(StreamUsage { messages: info.state.messages, bytes: info.state.bytes, max_bytes })
    }

    pub(super) async fn create_consumer(&self, spec: &ConsumerSpec) -> Result<(), BusError> {
        let wanted = consumer_config(spec);
        let id = &spec.id;
        let error = |failure: Failure| failure.into_error(format_args!("cannot create the consumer {id}"));
        for _ in 0..3 {
            let action = match self.consumer_info(id.stream.name(), &id.name, CHANGE).await {
                Ok(info) => {
                    compare_consumer(spec, &info.config)?;
                    if info.config.ack_wait == wanted.ack_wait && info.config.max_ack_pending == wanted.max_ack_pending
                    {
                        return Ok(());
                    }
                    "update"
                }
                Err(failure) if failure.is(ErrorCode::CONSUMER_NOT_FOUND) => "create",
                Err(failure) => return Err(error(failure)),
            };
            match self.write_consumer(id.stream.name(), &id.name, &wanted, action).await {
                Ok(_) => return Ok(()),
                // Somebody else was faster: look again.
                Err(failure)
                    if failure.is(ErrorCode::CONSUMER_ALREADY_EXISTS)
                        || failure.is(ErrorCode::CONSUMER_NAME_EXIST)
                        || failure.is(ErrorCode::CONSUMER_DOES_NOT_EXIST) => {}
                Err(failure) => return Err(error(failure)),
            }
        }
        Err(BusError::new(BusErrorKind::Unavailable, format!("the consumer {id} is being changed by somebody else")))
    }

    pub(super) async fn write_consumer(
        &self,
        stream: &str,
        name: &str,
        config: &consumer::Config,
        action: &str,
    ) -> Result<consumer::Info, Failure> {
        let body = json!({ "stream_name": stream, "config": config, "action": action });
        self.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &body, CHANGE).await
    }

    pub(super) async fn consumer_info(
        &self,
        stream: &str,
        name: &str,
        patience: Duration,
    ) -> Result<consumer::Info, Failure> {
        self.api(&format!("CONSUMER.INFO.{stream}.{name}"), &json!({}), patience).await
    }

    pub(super) async fn delete_consumer(&self, stream: &str, name: &str) -> Result<(), Failure> {
        let operation = format!("CONSUMER.DELETE.{stream}.{name}");
        match self.api::<serde_json::Value>(&operation, &json!({}), CHANGE).await {
            Err(failure) if failure.kind() != BusErrorKind::NotFound => Err(failure),
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct SubjectsPage {
    #[serde(default)]
    total: usize,
    state: SubjectsState,
}

#[derive(Deserialize)]
struct SubjectsState {
    #[serde(default)]
    subjects: Option<HashMap<String, u64>>,
}

fn consumer_config(spec: &ConsumerSpec) -> consumer::Config {
    consumer::Config {
        durable_name: Some(spec.id.name.clone()),
        name: Some(spec.id.name.clone()),
        deliver_policy: consumer::DeliverPolicy::All,
        ack_policy: consumer::AckPolicy::Explicit,
        ack_wait: spec.ack_wait,
        // An abandoned message would hold the ack floor for ever.
        max_deliver: -1,
        max_ack_pending: -1,
        filter_subject: spec.filter.clone(),
        metadata: spec.metadata.iter().cloned().collect(),
        ..consumer::Config::default()
    }
}

fn compare_consumer(spec: &ConsumerSpec, found: &consumer::Config) -> Result<(), BusError> {
    let id = &spec.id;
    let problem = if found.filter_subject != spec.filter {
        format!("reads {:?} instead of {:?}", found.filter_subject, spec.filter)
    } else if found.ack_policy != consumer::AckPolicy::Explicit {
        "does not ask for each message's acknowledgement".to_owned()
    } else if found.deliver_subject.is_some() {
        "pushes instead of being pulled from".to_owned()
    } else {
        return Ok(());
    };
    let message = format!(
        "the consumer {id} is there and {problem}: remove it if nobody needs it (nats consumer rm {} {})",
        id.stream.name(),
        id.name
    );
    Err(BusError::new(BusErrorKind::Mismatch, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_may_change_limits_but_not_what_matters() {
        let options = NatsOptions::new("nats://localhost");
        for wanted in wanted(&options) {
            let limits = Config { max_bytes: 1, num_replicas: 3, duplicate_window: DAY, ..wanted.clone() };
            assert!(differences(&wanted, &limits).is_empty(), "{}", wanted.name);
            let other = Config {
                subjects: vec!["x".into()],
                retention: RetentionPolicy::Interest,
                no_ack: true,
                ..wanted.clone()
            };
            assert_eq!(differences(&wanted, &other).len(), 3, "{}", wanted.name);
            let age = Config { max_age: DAY / 2, ..wanted.clone() };
            let matters = ["KV_cm_leases", "KV_cm_throttle", "KV_cm_workers"].contains(&&*wanted.name);
            assert_eq!(differences(&wanted, &age).len(), usize::from(matters), "{}", wanted.name);
        }
    }
}
