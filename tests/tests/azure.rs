//! `AzCloud` against the simulated Azure: unit by unit, as a worker does them, but without waiting.

#![allow(clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use collector::azure::az_cloud;
use collector::cloud::{Cloud, Done, WorkError};
use collector::emit::Emitter;
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::bus::{Reader, ReaderSpec, SharedBus};
use proto::coverage::{Coverage, Fold, State};
use proto::frame;
use proto::plan::PluginSpec;
use proto::subject::{Key, Role, Version};
use proto::unit::{Unit, UnitEnd};
use serde_json::{Value, json};
use tests::cloudsim::{Cloudsim, Times, Trouble};

/// Reads the cloud, unit by unit.
struct Reading {
    cloud: Arc<dyn Cloud>,
    bus: SharedBus,
    frames: Box<dyn Reader>,
    spec: PluginSpec,
    root: Unit,
    records: Vec<Value>,
    fold: Fold,
    errors: Vec<WorkError>,
    ids: Vec<String>,
}

impl Reading {
    async fn of(cloud: &Cloudsim, more: Value) -> Result<Self> {
        let mut params = json!({
            "tenant": cloud.tenant(), "client": cloud.client_id(), "secret": cloud.client_secret(),
            "login_endpoint": cloud.url(), "arm_endpoint": cloud.url(),
        });
        for (name, value) in more.as_object().context("parameters are a mapping")? {
            params[name] = value.clone();
        }
        let (audit, plugin) = (Key::new("audit")?, Key::new("azure")?);
        let version = Version::new("20260131_235959")?;
        let bus: SharedBus =
            Arc::new(MemoryBus::new(MemoryOptions { stream_bytes: 1 << 30, ..MemoryOptions::default() }));
        let reader = ReaderSpec::exclusive(&audit, &version, Role::Store, &plugin);
        bus.announce_reader(&reader).await?;
        Ok(Self {
            cloud: az_cloud::build(&params)?,
            frames: bus.read(&reader).await?,
            bus,
            root: Unit::root(&audit, &version, &plugin, &plugin),
            spec: PluginSpec {
                key: plugin,
                class: az_cloud::CLASS.name.to_owned(),
                params,
                role: Role::Cloud,
                stage: az_cloud::CLASS.stage,
                exclusive: false,
                pool: None,
            },
            records: Vec::new(),
            fold: Fold::default(),
            errors: Vec::new(),
            ids: Vec::new(),
        })
    }

    /// Does one unit and takes in what it made.
    async fn work(&mut self, unit: &Unit) -> Result<Result<Done, WorkError>> {
        let mut out = Emitter::new(self.bus.clone(), unit, &self.spec);
        let done = self.cloud.work(unit, &mut out).await;
        let emitted = out.finish().await?;
        for _ in 0..emitted.frames {
            let next = tokio::time::timeout(Duration::from_secs(10), self.frames.next());
            let message = next.await.with_context(|| format!("a frame of {} does not come", unit.id))??;
            let body = frame::open(&message)?;
            for line in frame::lines(&body) {
                self.records.push(serde_json::from_slice(line)?);
            }
        }
        if let Ok(done) = &done {
            self.end(unit, emitted.records, done);
        }
        Ok(done)
    }

    fn end(&mut self, unit: &Unit, records: u64, done: &Done) {
        self.fold.add(&UnitEnd {
            plugin: unit.plugin.clone(),
            unit: unit.id.clone(),
            attempt: unit.attempt,
            restart: unit.restart,
            scope: unit.scope.clone(),
            resource_type: unit.resource_type.clone(),
            children: done.children.iter().map(|child| child.id.clone()).collect(),
            frames: 0,
            last_seq: 0,
            records,
            coverage: done.coverage.clone(),
        });
    }

    /// Does the root and all that follows from it, each unit again until it is done.
    async fn all(mut self) -> Result<Self> {
        let mut units = VecDeque::from([self.root.clone()]);
        let mut seen = BTreeSet::new();
        while let Some(unit) = units.pop_front() {
            // As the broker does: what is published twice is queued once.
            if !seen.insert((unit.id.clone(), unit.attempt)) {
                continue;
            }
            self.ids.push(unit.id.clone());
            let following = match self.work(&unit).await? {
                Ok(done) => done.children,
                Err(error) => {
                    let following = self.after(&unit, &error);
                    self.errors.push(error);
                    following
                }
            };
            units.extend(following);
            if self.ids.len() > 10_000 {
                bail!("no end: {:?}", self.errors.last());
            }
        }
        Ok(self)
    }

    fn after(&mut self, unit: &Unit, error: &WorkError) -> Vec<Unit> {
        let mut done = Done::default();
        match error {
            WorkError::Throttled { wait, .. } => return vec![unit.successor(*wait)],
            WorkError::Transient { .. } => return vec![unit.successor(Duration::ZERO)],
            WorkError::PageRefused { first, .. } => {
                let first = Unit { restart: unit.restart + 1, ..(**first).clone() };
                done.children.push(first.clone());
                self.end(unit, 0, &done);
                return vec![first];
            }
            WorkError::NotRead { state, reason } => {
                done.coverage.push(Coverage::not_read(&unit.scope, &unit.resource_type, *state, reason));
            }
            WorkError::Bus(_) => {}
        }
        self.end(unit, 0, &done);
        Vec::new()
    }

    /// The first unit of this list.
    async fn first_of(&mut self, resource_type: &str) -> Result<Unit> {
        let mut unit = self.root.clone();
        while unit.resource_type != resource_type {
            let mut done = self.work(&unit).await??;
            unit = done.children.pop().context("no unit follows")?;
        }
        Ok(unit)
    }

    fn of_type(&self, record_type: &str) -> BTreeMap<String, &Value> {
        let of_type = self.records.iter().filter(|record| record["ext"]["record_type"] == record_type);
        of_type.map(|record| (record["com"]["key"].as_str().unwrap_or_default().to_owned(), record)).collect()
    }

    /// How many different subscriptions, groups and rules there are records of.
    fn counts(&self) -> (usize, usize, usize) {
        (self.of_type("subscription").len(), self.of_type("nsg").len(), self.of_type("security_rule").len())
    }

    fn coverage(&self, scope: &str, resource_type: &str) -> Coverage {
        let coverage = self.fold.coverage();
        let found = coverage.iter().find(|one| one.scope == scope && one.resource_type == resource_type);
        found.unwrap_or_else(|| panic!("no coverage of {resource_type} in {scope:?}: {coverage:?}")).clone()
    }
}

fn truth(cloud: &Cloudsim) -> (usize, usize, usize) {
    let truth = cloud.truth();
    (truth.subscriptions, truth.nsgs, truth.rules)
}

fn readable(cloud: &Cloudsim) -> (usize, usize, usize) {
    (cloud.truth().subscriptions, cloud.readable().nsgs, cloud.readable().rules)
}

#[tokio::test]
async fn everything_is_read_once_and_as_it_is() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(7).nsgs(25).nsgs_in(2, 0).rules(3).page_size(5).start().await?;
    let reading = Reading::of(&cloud, json!({})).await?.all().await?;
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    assert_eq!(reading.counts(), truth(&cloud));
    let (subscriptions, nsgs, rules) = truth(&cloud);
    assert_eq!(reading.records.len(), subscriptions + nsgs + rules);
    assert!(reading.fold.is_whole());
    assert_eq!(reading.coverage("", "subscription"), Coverage::complete("", "subscription", 7));
    for subscription in 0..7 {
        let id = cloud.estate().subscription_id(subscription);
        let count = if subscription == 2 { 0 } else { 25 };
        assert_eq!(reading.coverage(&id, "nsg"), Coverage::complete(&id, "nsg", count));
        for nsg in cloud.estate().nsgs(subscription) {
            let records = reading.of_type("nsg");
            let record = records[&nsg.id().to_lowercase()];
            assert_eq!(record["raw"], serde_json::to_value(&nsg)?);
            assert_eq!(record["com"]["reference"], nsg.id());
            assert_eq!(record["ext"]["subscription_id"], id);
            assert_eq!(record["ext"]["tenant_id"], cloud.tenant());
        }
    }
    // One request a page, and one token for all.
    let statistics = cloud.statistics();
    assert_eq!((statistics.subscription_list_requests, statistics.nsg_list_requests), (2, 6 * 5 + 1));
    assert_eq!(statistics.tokens_issued, 1);
    Ok(())
}

#[tokio::test]
async fn rules_come_before_their_group_and_ids_say_what_is_read() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(1).nsgs(3).rules(2).page_size(2).start().await?;
    let reading = Reading::of(&cloud, json!({})).await?.all().await?;
    let types: Vec<&str> = reading.records.iter().filter_map(|record| record["ext"]["record_type"].as_str()).collect();
    let group = ["security_rule", "security_rule", "nsg"];
    assert_eq!(types, [["subscription"].as_slice(), &group, &group, &group].concat());
    let id = cloud.estate().subscription_id(0);
    assert_eq!(reading.ids, ["root", "subscription/p1", &format!("nsg/{id}/p1"), &format!("nsg/{id}/p2")]);
    Ok(())
}

#[tokio::test]
async fn a_forbidden_subscription_is_denied_and_the_others_are_read() -> Result<()> {
    let builder = Cloudsim::builder().subscriptions(3).nsgs(4).rules(1);
    let cloud = builder.faults(|faults| faults.forbid(1)).start().await?;
    let reading = Reading::of(&cloud, json!({})).await?.all().await?;
    assert_eq!(reading.counts(), readable(&cloud));
    let coverage = reading.coverage(&cloud.estate().subscription_id(0), "nsg");
    assert_eq!((coverage.state, coverage.read), (State::Denied, 0));
    let reason = coverage.reason.unwrap_or_default();
    for part in ["GET http://127.0.0.1", "/networkSecurityGroups: 403 AuthorizationFailed: The client", "Reader"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(!reading.fold.is_whole());
    Ok(())
}

#[tokio::test]
async fn a_throttled_unit_says_how_long_to_wait() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(2).nsgs(20).rules(1).page_size(4).start().await?;
    cloud.faults(|faults| {
        faults.throttle_every = 3;
        faults.retry_after = 17;
    });
    let reading = Reading::of(&cloud, json!({})).await?.all().await?;
    assert_eq!(reading.counts(), truth(&cloud));
    assert!(reading.fold.is_whole());
    assert!(!reading.errors.is_empty());
    for error in &reading.errors {
        let WorkError::Throttled { wait, reason } = error else { panic!("{error}") };
        assert_eq!(wait.as_secs(), 17);
        assert!(reason.contains("429 SubscriptionRequestsThrottled"), "{reason}");
    }
    Ok(())
}

#[tokio::test]
async fn failures_of_the_server_and_cut_off_answers_are_transient() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(2).nsgs(20).rules(1).page_size(4).start().await?;
    cloud.faults(|faults| {
        faults.fail_every = 3;
        faults.cut_off_every = 4;
    });
    let reading = Reading::of(&cloud, json!({})).await?.all().await?;
    assert_eq!(reading.counts(), truth(&cloud));
    assert!(reading.fold.is_whole());
    let reasons: Vec<String> = reading.errors.iter().map(ToString::to_string).collect();
    assert!(reading.errors.iter().all(|error| matches!(error, WorkError::Transient { .. })), "{reasons:?}");
    for part in ["500 InternalServerError", "503 ServerUnavailable", "cut off"] {
        assert!(reasons.iter().any(|reason| reason.contains(part)), "{part}: {reasons:?}");
    }
    assert!(reasons.iter().all(|reason| !reason.contains("skiptoken")), "{reasons:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_that_expires_between_pages_is_replaced_once() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(1).nsgs(20).rules(1).page_size(4).start().await?;
    cloud.faults(|faults| faults.expire_tokens_after = Some(3));
    let reading = Reading::of(&cloud, json!({})).await?.all().await?;
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    assert_eq!(reading.counts(), truth(&cloud));
    let statistics = cloud.statistics();
    assert_eq!((statistics.tokens_issued, statistics.unauthorized), (2, 1));
    Ok(())
}

#[tokio::test]
async fn units_whose_token_was_refused_share_the_next_one() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(8).nsgs(2).start().await?;
    let mut reading = Reading::of(&cloud, json!({})).await?;
    let root = reading.root.clone();
    let list = reading.work(&root).await??.children.remove(0);
    let units = reading.work(&list).await??.children;
    cloud.expire_tokens();
    let work = units.iter().map(|unit| async {
        let mut out = Emitter::new(reading.bus.clone(), unit, &reading.spec);
        let done = reading.cloud.work(unit, &mut out).await?;
        out.finish().await?;
        Ok::<_, WorkError>(done)
    });
    let done = futures::future::try_join_all(work).await?;
    assert_eq!(done.len(), 8);
    assert_eq!(cloud.statistics().tokens_issued, 2);
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_refused_again_is_no_endless_loop() -> Result<()> {
    let cloud = Cloudsim::builder().token_lifetime(Duration::ZERO).start().await?;
    let mut reading = Reading::of(&cloud, json!({})).await?;
    let list = reading.first_of("subscription").await?;
    let Err(WorkError::NotRead { state, reason }) = reading.work(&list).await? else { panic!() };
    assert_eq!(state, State::Failed);
    assert!(reason.contains("401 ExpiredAuthenticationToken"), "{reason}");
    assert_eq!(cloud.statistics().unauthorized, 2);
    Ok(())
}

#[tokio::test]
async fn a_next_link_of_another_origin_is_not_followed() -> Result<()> {
    let stranger = Cloudsim::builder().start().await?;
    let cloud = Cloudsim::builder().subscriptions(1).nsgs(6).rules(1).page_size(4).start().await?;
    cloud.faults(|faults| {
        faults.trouble(0, Trouble::ForeignNextLink(stranger.url().to_owned()), Times::Always);
    });
    let reading = Reading::of(&cloud, json!({})).await?.all().await?;
    assert_eq!(stranger.statistics().arm_requests(), 0);
    assert_eq!(reading.counts(), (1, 4, 4));
    let coverage = reading.coverage(&cloud.estate().subscription_id(0), "nsg");
    assert_eq!((coverage.state, coverage.read, coverage.missing), (State::Partial, 4, None));
    assert!(coverage.reason.unwrap_or_default().contains(stranger.url()));
    Ok(())
}

#[tokio::test]
async fn a_unit_with_a_foreign_link_shows_nobody_the_token() -> Result<()> {
    let stranger = Cloudsim::builder().start().await?;
    let cloud = Cloudsim::builder().subscriptions(1).nsgs(6).page_size(4).start().await?;
    let mut reading = Reading::of(&cloud, json!({})).await?;
    let list = reading.first_of("nsg").await?;
    let page = reading.work(&list).await??.children.remove(0);
    let task = page.task.get().replace(cloud.url(), stranger.url());
    let page = Unit { task: serde_json::value::RawValue::from_string(task)?, ..page };
    assert!(matches!(reading.work(&page).await?, Err(WorkError::NotRead { state: State::Failed, .. })));
    assert_eq!(stranger.statistics().arm_requests(), 0);
    Ok(())
}

#[tokio::test]
async fn a_refused_page_token_begins_the_list_again() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(6).nsgs(9).rules(1).page_size(4).start().await?;
    cloud.faults(|faults| faults.refuse_page_tokens = Times::Next(2));
    let reading = Reading::of(&cloud, json!({})).await?.all().await?;
    assert_eq!(reading.counts(), truth(&cloud));
    assert!(reading.fold.is_whole(), "{:?}", reading.fold.coverage());
    // What was read before the list began again does not count.
    assert_eq!(reading.coverage("", "subscription").read, 6);
    let is_other = |id: &&String| !id.starts_with("nsg/");
    let ids: Vec<&String> = reading.ids.iter().filter(is_other).collect();
    assert_eq!(ids, ["root", "subscription/p1", "subscription/p2", "subscription/r1/p1", "subscription/r1/p2"]);
    let refused = reading.errors.iter().filter(|error| matches!(error, WorkError::PageRefused { .. })).count();
    assert_eq!((refused, reading.errors.len()), (2, 2));
    assert!(reading.errors[0].to_string().contains("400 InvalidSkipToken"));
    Ok(())
}

#[tokio::test]
async fn a_wrong_sign_in_says_what_to_do_and_shows_no_secret() -> Result<()> {
    let cloud = Cloudsim::builder().start().await?;
    for (parameter, value, code, remedy) in [
        ("secret", "hunter2hunter2", "401 AADSTS7000215: Invalid client secret", "set `secret`"),
        ("client", "00000000-0000-0000-0000-000000000001", "400 AADSTS700016: ", "set `client`"),
        ("tenant", "nowhere.example", "400 AADSTS90002: ", "set `tenant`"),
    ] {
        let mut reading = Reading::of(&cloud, json!({parameter: value})).await?;
        let list = reading.first_of("subscription").await?;
        let Err(WorkError::NotRead { state, reason }) = reading.work(&list).await? else { panic!("{parameter}") };
        assert_eq!(state, State::Failed);
        assert!(reason.contains(code) && reason.contains(remedy), "{reason}");
        assert!(!reason.contains("hunter2") && !reason.contains(cloud.client_secret()), "{reason}");
    }
    assert_eq!(cloud.statistics().arm_requests(), 0);
    Ok(())
}

#[tokio::test]
async fn a_cloud_that_is_away_may_come_back() -> Result<()> {
    let away = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        format!("http://{}", listener.local_addr()?)
    };
    let cloud = Cloudsim::builder().start().await?;
    for (parameter, call) in [("login_endpoint", "POST"), ("arm_endpoint", "GET")] {
        let mut reading = Reading::of(&cloud, json!({parameter: away})).await?;
        let list = reading.first_of("subscription").await?;
        let Err(WorkError::Transient { reason }) = reading.work(&list).await? else { panic!("{parameter}") };
        assert!(reason.contains(&format!("{call} {away}/")) && reason.contains("cannot connect"), "{reason}");
    }
    Ok(())
}

#[tokio::test]
async fn limits_leave_out_and_say_so() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(6).nsgs(9).rules(1).page_size(4).start().await?;
    let reading = Reading::of(&cloud, json!({"_max_subs": 2, "_max_recs": 5})).await?.all().await?;
    assert_eq!(reading.counts(), (2, 10, 10));
    assert_eq!(cloud.statistics().subscription_list_requests, 1);
    let list = reading.coverage("", "subscription");
    assert_eq!((list.state, list.read, list.missing), (State::Skipped, 2, None));
    assert_eq!(reading.coverage(&cloud.estate().subscription_id(2), "nsg").state, State::Skipped);
    let reason = reading.coverage(&cloud.estate().subscription_id(0), "nsg").reason.unwrap_or_default();
    assert_eq!(reason, "`_max_recs` is 5");

    // A limit that nothing exceeds leaves out nothing.
    let reading = Reading::of(&cloud, json!({"_max_subs": 6, "_max_recs": 9})).await?.all().await?;
    assert_eq!(reading.counts(), truth(&cloud));
    assert!(reading.fold.coverage().iter().all(|coverage| coverage.state == State::Complete));
    Ok(())
}

#[tokio::test]
async fn a_tenant_without_subscriptions_is_complete() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(0).start().await?;
    let reading = Reading::of(&cloud, json!({})).await?.all().await?;
    assert_eq!(reading.fold.coverage(), [Coverage::complete("", "subscription", 0)]);
    Ok(())
}
