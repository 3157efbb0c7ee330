//! How many documents an inventory takes in a second: `cargo run --release -p sink --example sqlite_rate [DOCUMENTS]
//! [FOLDER]`.
//!
//! The documents are like those of virtual machines and network security groups, of 1 to 4 KB, and come in batches
//! as large as the store asks for, as many at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use proto::bus::SharedBus;
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::identity::IdMaker;
use proto::plan::{Plan, PluginSpec, Stage};
use proto::subject::{Key, Role, Version};
use serde_json::{Value, json};
use sink::registry::{Context, build_shared};
use sink::store::{Document, Store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PLACEHOLDER: &str = "00000000000000000000000000000000";
const KINDS: [&str; 5] = ["virtual_machine", "security_rule", "nsg", "disk", "nic"];

fn body(number: usize) -> Value {
    // They come scope by scope.
    let scope = number / 500;
    let subscription = format!("{:08x}-0000-0000-0000-{scope:012x}", scope.wrapping_mul(2_654_435_761) % (1 << 32));
    let kind = KINDS[number % KINDS.len()];
    let reference = format!("/subscriptions/{subscription}/resourcegroups/rg-{}/{kind}/{number}", number % 41);
    let entries: Vec<Value> = (0..number % 12)
        .map(|entry| {
            json!({"name": format!("entry-{entry}"), "id": format!("{reference}/entries/{entry}"), "properties": {
                "provisioningState": "Succeeded", "priority": 100 + entry, "protocol": "Tcp", "direction": "Inbound",
                "sourceAddressPrefix": format!("10.{entry}.0.0/16"), "destinationPortRange": "443", "access": "Allow"}})
        })
        .collect();
    json!({
        "raw": {"id": reference, "name": format!("{kind}-{number}"), "location": "westeurope", "type": kind,
            "tags": {"team": format!("team-{}", number % 31), "cost-center": "4711", "env": "prod"},
            "properties": {"provisioningState": "Succeeded", "entries": entries, "vmId": format!("{number:032x}")}},
        "ext": {"cloud_type": "azure", "record_type": kind, "subscription_id": subscription,
            "subscription_name": "Pay-As-You-Go", "subscription_state": "Enabled"},
        "com": {"cloud_type": "azure", "record_type": kind, "reference": reference, "id": PLACEHOLDER,
            "key": reference, "audit_key": "audit", "audit_version": "20260131_235959", "origin_key": "azcloud",
            "origin_class": "AzCloud", "origin_worker": "audit_azcloud", "origin_type": "cloud",
            "target_key": "inventory", "target_class": "SqliteStore", "target_worker": "audit_inventory",
            "target_type": "store"},
    })
}

/// A document's text with the place of its id.
struct Template {
    text: Vec<u8>,
    id_at: usize,
    record_type: &'static str,
}

fn store(path: &Path) -> Result<(Arc<dyn Store>, Plan)> {
    let bus: SharedBus = Arc::new(MemoryBus::new(MemoryOptions::default()));
    let params = json!({"path": path.to_str().context("an odd path")?});
    let spec = PluginSpec {
        key: Key::new("inventory")?,
        class: "cloudmarker.stores.sqlitestore.SqliteStore".to_owned(),
        params: params.clone(),
        role: Role::Store,
        stage: Stage::Sink,
        exclusive: false,
        pool: None,
    };
    let plan = Plan {
        audit: Key::new("audit")?,
        version: Version::new("20260131_235959")?,
        plugins: vec![spec.clone()],
        clouds: vec![Key::new("azcloud")?],
        events: Vec::new(),
        rules: Vec::new(),
    };
    let context = Context { bus: &bus, plan: &plan, spec: &spec, params: &params };
    Ok((build_shared(context).map_err(|reason| anyhow!(reason))?, plan))
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "its result")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().map_or(Ok(500_000), |text| text.parse())?;
    let folder = args.next().unwrap_or_else(|| ".".to_owned());
    let path = Path::new(&folder).join("sqlite_rate.db");
    let templates: Vec<Template> = (0..20_000)
        .map(|number| {
            let text = body(number).to_string();
            let id_at = text.find(PLACEHOLDER).unwrap_or_default();
            Template { text: text.into_bytes(), id_at, record_type: KINDS[number % KINDS.len()] }
        })
        .collect();
    let mean = templates.iter().map(|template| template.text.len()).sum::<usize>() / templates.len();
    let (store, plan) = store(&path)?;
    store.connect().await.map_err(|error| anyhow!("{error}"))?;
    let ids = IdMaker::of_records(&plan.audit, &plan.version, &Key::new("azcloud")?);
    let limits = store.limits();
    for round in ["first", "again, replacing"] {
        let began = Instant::now();
        let mut writing = FuturesUnordered::new();
        let mut making = Duration::ZERO;
        let mut number = 0;
        while number < count || !writing.is_empty() {
            if number < count && writing.len() < limits.in_flight {
                let began = Instant::now();
                let (mut batch, mut bytes) = (Vec::new(), 0);
                while number < count && batch.len() < limits.documents && bytes < limits.bytes {
                    let template = &templates[number % templates.len()];
                    let id = ids.id(&["t", &number.to_string()]).to_string();
                    let mut text = template.text.clone();
                    text[template.id_at..template.id_at + id.len()].copy_from_slice(id.as_bytes());
                    bytes += text.len();
                    let (audit, version) = (plan.audit.clone(), plan.version.clone());
                    let record_type = template.record_type.to_owned();
                    batch.push(Document { id, record_type, audit, version, body: text.into() });
                    number += 1;
                }
                making += began.elapsed();
                let store = Arc::clone(&store);
                writing.push(tokio::spawn(async move { store.write(&batch).await }));
            } else if let Some(written) = writing.next().await {
                let written = written?.map_err(|error| anyhow!("{error}"))?;
                ensure!(written.refused.is_empty() && written.again.is_empty(), "{written:?}");
            }
        }
        let (took, making) = (began.elapsed().as_secs_f64(), making.as_secs_f64());
        let rate = count as f64 / took;
        println!(
            "{round}: {count} documents of {mean} bytes in {took:.1} s ({making:.1} s of it made them): {rate:.0} documents/s"
        );
    }
    println!("{} bytes", std::fs::metadata(&path)?.len());
    drop(store);
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{ending}", path.display()));
    }
    Ok(())
}
