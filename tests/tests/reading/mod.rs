//! A cloud plugin at work, unit by unit, as a worker does them, but without waiting.

#![allow(dead_code, clippy::panic, reason = "each test takes what it needs; the lint knows test functions only")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use collector::cloud::{Cloud, Done, WorkError};
use collector::emit::Emitter;
use collector::http::Limits;
use collector::registry::{self, Context};
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::bus::{Reader, ReaderSpec, SharedBus};
use proto::coverage::{Coverage, Fold};
use proto::frame;
use proto::plan::PluginSpec;
use proto::subject::{Key, Role, Version};
use proto::unit::{Unit, UnitEnd};
use serde_json::{Value, json};
use tests::cloudsim::Cloudsim;

/// Reads a cloud, unit by unit.
pub struct Reading {
    pub cloud: Arc<dyn Cloud>,
    pub bus: SharedBus,
    frames: Box<dyn Reader>,
    pub spec: PluginSpec,
    pub root: Unit,
    /// Only units of these resource types are done, if there are any.
    only: Vec<&'static str>,
    pub records: Vec<Value>,
    pub fold: Fold,
    pub errors: Vec<WorkError>,
    pub ids: Vec<String>,
}

impl Reading {
    /// A plugin of this class (its short name) with these parameters.
    pub async fn of(class: &str, params: Value) -> Result<Self> {
        let class = registry::served().find(|served| served.short_name() == class).context("no such class")?;
        let (audit, plugin) = (Key::new("audit")?, Key::new("plugin")?);
        let version = Version::new("20260131_235959")?;
        let bus: SharedBus =
            Arc::new(MemoryBus::new(MemoryOptions { stream_bytes: 1 << 30, ..MemoryOptions::default() }));
        let reader = ReaderSpec::exclusive(&audit, &version, Role::Store, &plugin);
        bus.announce_reader(&reader).await?;
        let root = Unit::root(&audit, &version, &plugin, &plugin);
        let spec = PluginSpec {
            key: plugin,
            class: class.name.to_owned(),
            params,
            role: Role::Cloud,
            stage: class.stage,
            exclusive: false,
            pool: None,
        };
        let context = Context { limits: Limits::new(16) };
        Ok(Self {
            cloud: registry::build(&spec, &spec.params, &context).map_err(|reason| anyhow!(reason))?,
            frames: bus.read(&reader).await?,
            bus,
            root,
            spec,
            only: Vec::new(),
            records: Vec::new(),
            fold: Fold::default(),
            errors: Vec::new(),
            ids: Vec::new(),
        })
    }

    /// A plugin for the simulated Azure, with further parameters.
    pub async fn azure(class: &str, cloud: &Cloudsim, more: Value) -> Result<Self> {
        let mut params = json!({
            "tenant": cloud.tenant(), "client": cloud.client_id(), "secret": cloud.client_secret(),
            "login_endpoint": cloud.url(), "arm_endpoint": cloud.url(),
        });
        for (name, value) in more.as_object().context("parameters are a mapping")? {
            params[name] = value.clone();
        }
        Self::of(class, params).await
    }

    /// The same, but only units of these resource types are done.
    pub fn only(self, only: &[&'static str]) -> Self {
        Self { only: only.to_vec(), ..self }
    }

    /// Does one unit and takes in what it made.
    pub async fn work(&mut self, unit: &Unit) -> Result<Result<Done, WorkError>> {
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
            list: unit.list.clone(),
            children: done.children.iter().map(|child| child.id.clone()).collect(),
            frames: 0,
            last_seq: 0,
            records,
            coverage: done.coverage.clone(),
            reached: done.reached.clone(),
        });
    }

    /// Does the root and all that follows from it, each unit again until it is done.
    pub async fn all(mut self) -> Result<Self> {
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
            let is_wanted = |unit: &Unit| {
                self.only.is_empty() || unit.scope.is_empty() || self.only.contains(&unit.resource_type.as_str())
            };
            units.extend(following.into_iter().filter(is_wanted));
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
                let own = Coverage::not_read(&unit.scope, &unit.resource_type, *state, reason);
                done.coverage.extend(self.cloud.unread(unit, own));
            }
            WorkError::Bus(_) => {}
        }
        self.end(unit, 0, &done);
        Vec::new()
    }

    /// The first unit of this list.
    pub async fn first_of(&mut self, resource_type: &str) -> Result<Unit> {
        let mut unit = self.root.clone();
        while unit.resource_type != resource_type {
            let mut done = self.work(&unit).await??;
            anyhow::ensure!(!done.children.is_empty(), "no unit follows");
            let next = done.children.iter().position(|child| child.resource_type == resource_type);
            unit = done.children.swap_remove(next.unwrap_or(0));
        }
        Ok(unit)
    }

    pub fn of_type(&self, record_type: &str) -> BTreeMap<String, &Value> {
        let of_type = self.records.iter().filter(|record| record["ext"]["record_type"] == record_type);
        of_type.map(|record| (record["com"]["key"].as_str().unwrap_or_default().to_owned(), record)).collect()
    }

    pub fn coverage(&self, scope: &str, resource_type: &str) -> Coverage {
        let coverage = self.fold.coverage();
        let found = coverage.iter().find(|one| one.scope == scope && one.resource_type == resource_type);
        found.unwrap_or_else(|| panic!("no coverage of {resource_type} in {scope:?}: {coverage:?}")).clone()
    }
}
