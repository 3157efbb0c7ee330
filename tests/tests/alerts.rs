//! Alerts: what people get of a version's events, whatever the servers in between do.

mod alerts {
    pub mod mail;
    pub mod news;
    pub mod postfix;
    pub mod slack;
    pub mod webhook;
}

use std::sync::Arc;

use anyhow::{Result, anyhow};
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::bus::{Outgoing, SharedBus};
use proto::exclusive::{Delivery, Exclusive, ExclusiveError};
use proto::identity::Id;
use proto::plan::{Plan, PluginSpec, Stage};
use proto::subject::{self, Key, Role, Version};
use serde_json::{Value, json};

const VERSION: &str = "20260131_235959";

fn key(name: &str) -> Result<Key> {
    Ok(Key::new(name)?)
}

fn bus() -> SharedBus {
    Arc::new(MemoryBus::new(MemoryOptions::default()))
}

/// The plan of an audit `prod` with one alert.
fn plan(version: &str, class: &str, params: &Value) -> Result<Plan> {
    let spec = PluginSpec {
        key: key("alert")?,
        class: class.to_owned(),
        params: params.clone(),
        role: Role::Alert,
        stage: Stage::Alerter,
        exclusive: true,
        pool: None,
    };
    Ok(Plan {
        audit: key("prod")?,
        version: Version::new(version)?,
        plugins: vec![spec],
        clouds: vec![key("azcloud")?],
        events: vec![key("openport")?],
        rules: Vec::new(),
    })
}

/// An alert of a version.
fn alert(version: &str, class: &str, params: &Value) -> Result<Box<dyn Exclusive>> {
    alert_of(&bus(), version, class, params)
}

/// The same on a bus that others use.
fn alert_of(bus: &SharedBus, version: &str, class: &str, params: &Value) -> Result<Box<dyn Exclusive>> {
    let plan = plan(version, class, params)?;
    let spec = plan.plugins.first().ok_or_else(|| anyhow!("no plugin"))?;
    alerter::registry::build(bus, &plan, spec, params).map_err(|reason| anyhow!(reason))
}

fn message(version: &str, event: &Value) -> Result<Outgoing> {
    let subject = subject::event(&key("prod")?, &Version::new(version)?, &key("openport")?);
    let id = event["com"]["id"].as_str().unwrap_or_default().to_owned();
    Ok(Outgoing::json(subject, event)?.with_id(id))
}

/// Gives an alert a version's events, and lets it deliver.
async fn deliver_version(
    version: &str,
    class: &str,
    params: &Value,
    events: &[Value],
) -> Result<Result<Delivery, ExclusiveError>> {
    let mut alert = alert(version, class, params)?;
    for event in events {
        alert.accept(&message(version, event)?.into_message()).await?;
    }
    Ok(alert.finish(1).await)
}

async fn deliver(class: &str, params: &Value, events: &[Value]) -> Result<Result<Delivery, ExclusiveError>> {
    deliver_version(VERSION, class, params, events).await
}

/// What a delivery that cannot succeed says.
async fn failure(class: &str, params: &Value, events: &[Value]) -> Result<String> {
    match deliver(class, params, events).await? {
        Err(ExclusiveError::Permanent(reason)) => Ok(reason),
        other => Err(anyhow!("not refused for good: {other:?}")),
    }
}

/// An event's id: as those that are made are, spread evenly.
fn id(n: u32) -> String {
    Id::digest(&n.to_be_bytes()).to_string()
}

/// An event.
fn event(n: u32, severity: &str) -> Value {
    json!({"ext": {"record_type": "port_event"}, "com": {
        "id": id(n), "finding_id": format!("{:032x}", n + 1_000_000), "severity": severity,
        "title": "Ports are closed to the internet", "rule": "azure_port",
        "description": format!("The port {n} is open."), "recommendation": "Close it.",
        "resource": {"cloud": "azure", "account": format!("sub-{}", n % 3), "type": "nsg", "id": format!("/nsg/{n}"),
            "name": format!("nsg-{n}"), "region": "westeurope"},
    }})
}

fn events(count: u32) -> Vec<Value> {
    (0..count).map(|n| event(n, if n % 4 == 0 { "critical" } else { "high" })).collect()
}
