//! Measures rules: records a second on one core, from compressed frames to events as they are published.
//!
//! `make bench`, or `cargo run --release -p evaluator --example bench_rules`. The time to parse the same records with `serde_json` alone
//! is told beside it. Time is counted while the thread has a core; a machine that does much else still slows it down, so its
//! load is told, too.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that measures, and says so")]

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use evaluator::event::Maker;
use evaluator::rule::{Instance, Outcome, Pack, RuleText, built_in};
use evaluator::rules::{AuditRule, Rules, time_of};
use proto::subject::{Key, Version};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records of a frame, as the collectors pack them.
const FRAME: usize = 128;
/// How long each case is measured, after as long a time to warm up.
const TIME: Duration = Duration::from_secs(2);

const TWO_FIELDS: &str = r#"
id: two_fields
title: Storage accounts require secure transfer
severity: high
remediation: Require secure transfer.
applies_to: {cloud: azure, ext.record_type: storage_account_properties}
event_type: two_fields_event
fail_if: ext.secure_transfer_required == false || ext.default_network_access_allowed == true
description: "{{ cloud }} storage account {{ resource }} is open."
recommendation: "Close {{ resource }}."
"#;

fn main() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("rules, on one core; the machine's load at the beginning: {}", load.trim());
    let two_fields = Pack::default().with(&[RuleText { file: "bench".into(), text: TWO_FIELDS.into() }]).unwrap();
    let mut passing = f64::NAN;
    for (size, target) in [(4 << 10, 100_000), (1 << 10, 200_000)] {
        let records: Vec<Value> = (0..4 * FRAME).map(|n| storage_account(n, size, n % 100 == 0)).collect();
        passing = measure(&format!("a rule of two fields, {} KiB", size >> 10), &two_fields, &records, target);
    }
    let unknown: Vec<Value> = (0..4 * FRAME)
        .map(|n| {
            let mut record = storage_account(n, 1 << 10, false);
            record["ext"]["secure_transfer_required"] = Value::Null;
            record["ext"]["default_network_access_allowed"] = Value::Null;
            record
        })
        .collect();
    let erring = measure("the same, every record unknown, 1 KiB", &two_fields, &unknown, 100_000);
    println!("  {:.2} times the cost of records that pass (target: at most 2)", passing / erring);
    let failing: Vec<Value> = (0..4 * FRAME).map(|n| storage_account(n, 1 << 10, true)).collect();
    measure("the same, every record fails, 1 KiB", &two_fields, &failing, 0);
    let mixed: Vec<Value> = (0..4 * FRAME).map(mixed).collect();
    let name = format!("all {} built-in rules, mixed records of 2 to 4 KiB", built_in().rules().len());
    measure(&name, built_in(), &mixed, 60_000);
}

/// Measures and tells a case; returns the records a second.
fn measure(name: &str, pack: &Pack, records: &[Value], target: u64) -> f64 {
    let version = Version::new("20260131_235959").unwrap();
    let audit = Key::new("audit").unwrap();
    let instances = pack.rules().map(|rule| {
        let key = Key::new(&rule.id).unwrap();
        let maker = Maker::new(&audit, &version, &key, &rule.id);
        // What fires on a share of all records says nothing of rules.
        let params = if rule.id == "mock_event" { json!({"n": 1_000_003}) } else { Value::Null };
        AuditRule { key, instance: Instance::new(rule, &params).unwrap(), maker }
    });
    let rules = Rules::new(instances.collect(), time_of(&version));
    let lines: Vec<Vec<u8>> = records.iter().map(|record| serde_json::to_vec(record).unwrap()).collect();
    let frames: Vec<Vec<u8>> =
        lines.chunks(FRAME).map(|lines| lz4_flex::compress_prepend_size(&lines.join(&b'\n'))).collect();
    let bytes = lines.iter().map(Vec::len).sum::<usize>() / lines.len();
    let mut counts = [0_u64; 4];
    let mut pass = |counts: &mut [u64; 4]| {
        for frame in &frames {
            let body = lz4_flex::decompress_size_prepended(frame).unwrap();
            for line in body.split(|byte| *byte == b'\n') {
                let record = rules.read(line).unwrap();
                counts[0] += 1;
                rules.judge(&record, |number, judgement| {
                    match judgement.outcome {
                        Outcome::Pass => counts[1] += 1,
                        Outcome::Fail => counts[2] += 1,
                        _ => counts[3] += 1,
                    }
                    for draft in &judgement.events {
                        black_box(rules.rules()[number].maker.message(&record, draft).unwrap());
                    }
                });
            }
        }
    };
    run(&mut counts, &mut pass);
    counts = [0; 4];
    let time = run(&mut counts, &mut pass);
    let rate = counts[0] as f64 / time.as_secs_f64();
    let mut parse = |counts: &mut [u64; 4]| {
        for line in &lines {
            black_box(serde_json::from_slice::<Value>(line).unwrap());
            counts[0] += 1;
        }
    };
    let mut parsed = [0; 4];
    let parsing = run(&mut parsed, &mut parse);
    let parsing = parsing.as_secs_f64() * 1e6 / parsed[0] as f64;
    let [all, passed, failed, unknown] = counts;
    println!("{name}");
    println!(
        "  {rate:>9.0} records/s ({:.2} µs each; serde_json alone to a tree: {parsing:.2} µs), {bytes} bytes each{}",
        1e6 / rate,
        if target > 0 { format!(" (target: {target})") } else { String::new() }
    );
    let share = |count: u64| count as f64 / all as f64;
    println!("  for each record: {:.2} pass, {:.2} fail, {:.2} unknown", share(passed), share(failed), share(unknown));
    rate
}

/// Runs passes for a time; returns how long this thread had a core in it.
fn run(counts: &mut [u64; 4], mut pass: impl FnMut(&mut [u64; 4])) -> Duration {
    let (begin, clock) = (on_core(), Instant::now());
    while clock.elapsed() < TIME {
        pass(counts);
    }
    match (begin, on_core()) {
        (Some(begin), Some(end)) => end.saturating_sub(begin),
        _ => clock.elapsed(),
    }
}

/// How long this thread has had a core: other programs take the wall clock's time, not this. Linux only.
fn on_core() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// The API's answer, of about a size.
fn raw(name: &str, kind: &str, size: usize) -> Value {
    let mut fields = serde_json::Map::new();
    let mut text = 0;
    while text + 300 < size {
        let at = fields.len();
        fields.insert(
            format!("setting{at}"),
            json!({"value": format!("value {at}"), "enabled": at.is_multiple_of(3), "level": at}),
        );
        text += 62;
    }
    json!({"id": id(name, kind), "name": name, "type": kind, "location": "westeurope", "properties": fields, "tags": {}})
}

fn id(name: &str, kind: &str) -> String {
    format!("/subscriptions/a8daa361-b951-46b5-8e9d-b375f2ffe9fd/resourceGroups/rg1/providers/{kind}/{name}")
}

fn record(n: usize, kind: &str, size: usize, ext: Value, com: Value) -> Value {
    let name = format!("resource{n}");
    let mut record = json!({"raw": {}, "ext": {"cloud_type": "azure"}, "com": {"cloud_type": "azure"}});
    let common = json!({
        "reference": id(&name, kind), "id": format!("{n:032x}"), "key": id(&name, kind), "audit_key": "audit",
        "audit_version": "20260131_235959", "origin_key": "azcloud", "origin_class": "AzCloud",
        "origin_worker": "audit_azcloud", "origin_type": "cloud",
    });
    let subscription = json!({
        "subscription_id": "a8daa361-b951-46b5-8e9d-b375f2ffe9fd", "subscription_name": "Contoso Prod",
        "subscription_state": "Enabled",
    });
    for (bucket, fields) in [("ext", subscription), ("ext", ext), ("com", com), ("com", common)] {
        let Value::Object(fields) = fields else { continue };
        record[bucket].as_object_mut().unwrap().extend(fields);
    }
    let rest = size.saturating_sub(serde_json::to_vec(&record).unwrap().len());
    record["raw"] = raw(&name, kind, rest);
    record
}

fn storage_account(n: usize, size: usize, open: bool) -> Value {
    record(
        n,
        "Microsoft.Storage/storageAccounts",
        size,
        json!({
            "record_type": "storage_account_properties", "secure_transfer_required": !open,
            "default_network_access_allowed": open, "trusted_services_allowed": true,
        }),
        json!({"record_type": "storage_account_properties"}),
    )
}

/// A record of one of many types, of which one in twenty is not as it should be.
fn mixed(n: usize) -> Value {
    let size = 2048 + n * 37 % 2048;
    let good = !n.is_multiple_of(20);
    match n % 8 {
        0 => record(
            n,
            "Microsoft.Compute/virtualMachines",
            size,
            json!({"record_type": "vm_instance_view", "os_disk_encrypted": good, "all_data_disks_encrypted": good,
                "os_disk_name": "os", "extensions": ["a", "b"], "data_disks": [{"name": "d1", "encrypted": good}, {"name": "d2", "encrypted": true}]}),
            json!({"record_type": "compute"}),
        ),
        1 => record(
            n,
            "Microsoft.Sql/servers/databases",
            size,
            json!({"record_type": "sql_db", "tde_enabled": good, "system_database": false}),
            json!({"record_type": "database"}),
        ),
        2 => record(
            n,
            "Microsoft.DBforPostgreSQL/servers",
            size,
            json!({"record_type": "postgresql_server", "log_checkpoints_enabled": good, "log_connections_enabled": true,
                "log_disconnections_enabled": true, "log_duration_enabled": true, "connection_throttling_enabled": good,
                "log_retention_days": 7}),
            json!({"record_type": "rdbms", "tls_enforced": good}),
        ),
        3 => record(
            n,
            "Microsoft.Web/sites",
            size,
            json!({"record_type": "web_app_config", "https_only": good, "client_cert_enabled": true,
                "http20_enabled": true, "min_tls_version": if good { "1.2" } else { "1.0" }}),
            json!({"record_type": "web_app_config"}),
        ),
        4 => record(
            n,
            "Microsoft.KeyVault/vaults",
            size,
            json!({"record_type": "key_vault", "recoverable": good}),
            json!({"record_type": "key_vault"}),
        ),
        5 => storage_account(n, size, !good),
        6 => record(
            n,
            "Microsoft.Network/networkSecurityGroups",
            size,
            json!({"record_type": "security_rule"}),
            json!({"record_type": "firewall_rule", "enabled": true, "direction": "in", "access": "allow", "protocol": "tcp",
                "source_addresses": [if good { "10.0.0.0/8" } else { "0.0.0.0/0" }], "destination_ports": ["22", "8000-8100"]}),
        ),
        _ => record(
            n,
            "Microsoft.Network/publicIPAddresses",
            size,
            json!({"record_type": "public_ip"}),
            json!({"record_type": null}),
        ),
    }
}
