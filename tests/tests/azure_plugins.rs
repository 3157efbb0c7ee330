//! Every plugin of Azure against the simulated Azure: what it makes of an estate, and of whatever goes wrong.

#![allow(clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

mod azure_truth;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::Request;
use azure_truth::{CLASSES, Expected, LISTS, List, essence_of_com, list, log_profile_missing, subscription};
use collector::cloud::WorkError;
use proto::coverage::{Coverage, State};
use proto::unit::Unit;
use reading::Reading;
use serde_json::{Value, json};
use tests::cloudsim::{Absence, Ailment, Builder, Cloudsim, Kind, Oddity, SubscriptionState, Times};

/// A small subscription, to be changed.
fn one_subscription() -> Builder {
    Cloudsim::builder().subscriptions(1)
}

async fn read(class: &str, cloud: &Cloudsim) -> Result<Reading> {
    let reading = Reading::azure(class, cloud, json!({})).await?.all().await?;
    ensure!(reading.errors.is_empty(), "{:?}", reading.errors);
    Ok(reading)
}

fn scope(cloud: &Cloudsim) -> String {
    cloud.estate().subscription_id(0)
}

/// The records of the first subscription's things with these numbers.
fn records_of(cloud: &Cloudsim, list: &List, numbers: impl IntoIterator<Item = usize>) -> Vec<Expected> {
    numbers.into_iter().flat_map(|number| list.records(cloud, 0, number)).collect()
}

fn all_but<const N: usize>(count: usize, without: [usize; N]) -> impl Iterator<Item = usize> {
    (0..count).filter(move |number| !without.contains(number))
}

/// Sees to it that the records are these, each once. Those of types in `ignored` do not count.
fn assert_records(reading: &Reading, expected: &[Expected], ignored: &[&str]) {
    let is_wanted = |record: &&Value| !ignored.iter().any(|name| record["ext"]["record_type"] == *name);
    let mut wanted: BTreeMap<(&str, &str), &Expected> =
        expected.iter().map(|one| ((one.record_type, one.key.as_str()), one)).collect();
    assert_eq!(wanted.len(), expected.len(), "two things have one key");
    let (mut ids, mut references) = (BTreeSet::new(), BTreeSet::new());
    for record in reading.records.iter().filter(is_wanted) {
        let record_type = record["ext"]["record_type"].as_str().unwrap_or_default();
        let key = record["com"]["key"].as_str().unwrap_or_default();
        let Some(expected) = wanted.remove(&(record_type, key)) else {
            panic!("a record too many, or twice: {record_type} {key}");
        };
        assert_eq!(record["raw"], expected.raw, "raw of {record_type} {key}");
        assert_eq!(record["ext"], expected.ext, "ext of {record_type} {key}");
        assert_eq!(essence_of_com(record), expected.com, "com of {record_type} {key}");
        assert!(ids.insert(record["com"]["id"].to_string()), "the id of {record_type} {key} is there twice");
        assert!(references.insert((record_type, record["com"]["reference"].to_string())), "{record_type} {key}");
    }
    assert!(wanted.is_empty(), "missing: {:?}", wanted.keys().collect::<Vec<_>>());
}

/// An estate with enough of everything that every list has several pages and most shapes come up.
async fn estate() -> Result<Cloudsim> {
    let mut builder = Cloudsim::builder().subscriptions(3).page_size(7).rules(5);
    for kind in Kind::ALL {
        builder = match kind {
            Kind::Location | Kind::LogProfile | Kind::DiagnosticSetting => builder,
            Kind::Vault | Kind::SqlServer => builder.count(kind, 4),
            Kind::SqlDatabase => builder.count(kind, 8),
            Kind::VaultKey | Kind::VaultSecret => builder.count(kind, 27),
            _ => builder.count(kind, 25),
        };
    }
    // What is not there is complete, too.
    let empty = [Kind::VirtualMachine, Kind::Disk, Kind::SqlServer, Kind::Vault, Kind::WebApp, Kind::PostgresqlServer];
    empty.into_iter().fold(builder, |builder, kind| builder.count_in(2, kind, 0)).start().await
}

/// Reads all with a plugin, and holds all against the truth.
async fn verify(class: &str) -> Result<()> {
    let cloud = estate().await?;
    let reading = read(class, &cloud).await?;
    let (mut expected, mut coverage) = (Vec::new(), vec![Coverage::complete("", "subscription", 3)]);
    for index in 0..3 {
        let id = cloud.estate().subscription_id(index);
        if class == "AzCloud" {
            expected.push(subscription(&cloud, index));
        }
        for list in LISTS.iter().filter(|list| list.class == class) {
            let count = cloud.estate().count(index, list.kind);
            let records: Vec<_> = (0..count).map(|number| list.records(&cloud, index, number)).collect();
            let mut read = Coverage::complete(&id, list.name, count as u64);
            // Servers that do not have the setting: their record would not be whole.
            let without = records.iter().filter(|records| records.is_empty()).count() as u64;
            if list.types.is_some() && without > 0 {
                assert_eq!(list.name, "mysql_flexible_server");
                read = Coverage { state: State::Partial, read: count as u64 - without, missing: Some(without), ..read };
            }
            expected.extend(records.into_iter().flatten());
            if list.kind == Kind::LogProfile && count == 0 {
                let settings = cloud.estate().count(index, Kind::DiagnosticSetting);
                expected.push(log_profile_missing(&cloud, index, Some(settings)));
                read.read = 1;
            }
            coverage.push(read);
        }
    }
    assert_records(&reading, &expected, &[]);
    coverage.sort_by(|a, b| (&a.scope, &a.resource_type).cmp(&(&b.scope, &b.resource_type)));
    let without_reasons = |coverage: Vec<Coverage>| -> Vec<Coverage> {
        coverage.into_iter().map(|one| Coverage { reason: None, ..one }).collect()
    };
    assert_eq!(without_reasons(reading.fold.coverage()), coverage);
    let said = reading.fold.coverage().into_iter().all(|one| (one.state == State::Complete) == one.reason.is_none());
    assert!(said, "{:?}", reading.fold.coverage());
    Ok(())
}

#[tokio::test]
async fn az_cloud_reads_what_there_is() -> Result<()> {
    verify("AzCloud").await
}

#[tokio::test]
async fn az_vm_reads_what_there_is() -> Result<()> {
    verify("AzVM").await
}

#[tokio::test]
async fn az_disk_reads_what_there_is() -> Result<()> {
    verify("AzDisk").await
}

#[tokio::test]
async fn az_kv_reads_what_there_is() -> Result<()> {
    verify("AzKV").await
}

#[tokio::test]
async fn az_monitor_reads_what_there_is() -> Result<()> {
    verify("AzMonitor").await
}

#[tokio::test]
async fn az_postgres_reads_what_there_is() -> Result<()> {
    verify("AzPostgres").await
}

#[tokio::test]
async fn az_sql_reads_what_there_is() -> Result<()> {
    verify("AzSQL").await
}

#[tokio::test]
async fn az_storage_account_reads_what_there_is() -> Result<()> {
    verify("AzStorageAccount").await
}

#[tokio::test]
async fn az_web_app_reads_what_there_is() -> Result<()> {
    verify("AzWebApp").await
}

/// The keys of each bucket's fields that differ between records show that the estate has more than one shape.
#[tokio::test]
async fn the_estate_has_every_shape_that_rules_tell_apart() -> Result<()> {
    let cloud = estate().await?;
    let values = |name: &str, field: &str| -> BTreeSet<String> {
        let list = list(name);
        let all = (0..3).flat_map(|index| (0..cloud.estate().count(index, list.kind)).map(move |n| (index, n)));
        all.flat_map(|(index, number)| list.records(&cloud, index, number))
            .map(|record| record.ext.get(field).or(record.com.get(field)).map_or("absent".into(), Value::to_string))
            .collect()
    };
    for (list, field, least) in [
        ("vm_instance_view", "os_disk_encryption", 5),
        ("vm_instance_view", "os_disk_encrypted", 3),
        ("vm_instance_view", "all_data_disks_encrypted", 4),
        ("vm_instance_view", "power_state", 4),
        ("disk", "encryption_type", 3),
        ("disk", "disk_type", 2),
        ("key_vault", "recoverable", 2),
        ("key_vault_key", "expires", 3),
        ("key_vault_secret", "managed", 2),
        ("postgresql_server", "tls_enforced", 2),
        ("postgresql_flexible_server", "tls_enforced", 3),
        ("mysql_flexible_server", "tls_enforced", 2),
        ("sql_db", "tde_enabled", 2),
        ("storage_account_properties", "trusted_services_allowed", 2),
        ("storage_account_properties", "secure_transfer_required", 3),
        ("web_app_config", "min_tls_version", 5),
        ("web_app_config", "http20_enabled", 3),
    ] {
        let values = values(list, field);
        assert!(values.len() >= least, "{list} {field}: {values:?}");
    }
    Ok(())
}

#[tokio::test]
async fn details_are_read_by_the_fifty_and_asked_for_once() -> Result<()> {
    let cloud = one_subscription().machines(120).page_size(110).start().await?;
    let reading = read("AzVM", &cloud).await?;
    assert_records(&reading, &records_of(&cloud, list("vm_instance_view"), 0..120), &[]);
    let details: Vec<&String> = reading.ids.iter().filter(|id| id.contains("/d")).collect();
    assert_eq!(details.len(), 4, "{details:?}");
    let statistics = cloud.statistics();
    assert_eq!((statistics.requests_of(Kind::VirtualMachine), statistics.requests_of(Kind::InstanceView)), (2, 120));
    assert_eq!(statistics.tokens_issued, 1);
    Ok(())
}

#[tokio::test]
async fn older_versions_of_the_api_are_understood() -> Result<()> {
    let cloud = one_subscription().sql_servers(1).databases(6).start().await?;
    let versions = json!({"api_versions": {"sql_db_details": "2014-04-01"}});
    let reading = Reading::azure("AzSQL", &cloud, versions).await?.all().await?;
    let expected = records_of(&cloud, list("sql_db"), 0..6);
    assert_eq!(reading.records.len(), 6);
    for expected in expected {
        let record = reading.of_type("sql_db")[&expected.key];
        assert_eq!(record["ext"], expected.ext);
        assert!(record["raw"]["transparent_data_encryption"]["properties"]["status"].is_string(), "{record}");
    }
    Ok(())
}

// ---- Throttling ----

/// The first unit that reads details.
async fn first_details(reading: &mut Reading, resource_type: &str) -> Result<Unit> {
    let mut unit = reading.first_of(resource_type).await?;
    while !unit.id.contains("/d") {
        let mut done = reading.work(&unit).await??;
        let next = done.children.iter().position(|child| child.resource_type == resource_type);
        unit = done.children.swap_remove(next.context("no details follow")?);
    }
    Ok(unit)
}

#[tokio::test]
async fn throttled_details_keep_what_they_have_and_leave_the_rest() -> Result<()> {
    let cloud = one_subscription().machines(50).start().await?;
    let mut reading = Reading::azure("AzVM", &cloud, json!({})).await?;
    let details = first_details(&mut reading, "vm_instance_view").await?;
    cloud.faults(|faults| {
        faults.throttle_every = 20;
        faults.retry_after = 17;
    });
    let done = reading.work(&details).await??;
    let kept = reading.records.len();
    assert!((19..50).contains(&kept), "{kept}");
    let pause = done.pause.context("the scope is to wait")?;
    assert_eq!(pause.wait.as_secs(), 17);
    assert!(pause.reason.contains("429"), "{}", pause.reason);
    let [rest] = done.children.as_slice() else { panic!("{:?}", done.children) };
    assert_eq!((rest.wait_ms, rest.attempt), (17_000, 1));
    assert_eq!(done.coverage, [Coverage::complete(&scope(&cloud), "vm_instance_view", kept as u64)]);
    cloud.faults(|faults| faults.throttle_every = 0);
    let done = reading.work(rest).await??;
    assert!(done.children.is_empty() && done.pause.is_none());
    assert_records(&reading, &records_of(&cloud, list("vm_instance_view"), 0..50), &[]);
    assert_eq!(reading.coverage(&scope(&cloud), "vm_instance_view").read, 50);
    Ok(())
}

#[tokio::test]
async fn details_of_which_every_seventh_is_throttled_end_after_few_attempts() -> Result<()> {
    let cloud = one_subscription().machines(100).faults(|faults| faults.throttle_every = 7).start().await?;
    let reading = Reading::azure("AzVM", &cloud, json!({})).await?.all().await?;
    assert_records(&reading, &records_of(&cloud, list("vm_instance_view"), 0..100), &[]);
    assert_eq!(
        reading.coverage(&scope(&cloud), "vm_instance_view"),
        Coverage::complete(&scope(&cloud), "vm_instance_view", 100)
    );
    assert!(reading.ids.len() < 40, "{}", reading.ids.len());
    let statistics = cloud.statistics();
    // What was answered is not asked for again.
    assert_eq!(statistics.arm_requests() - statistics.throttled, 102, "{statistics:?}");
    Ok(())
}

#[tokio::test]
async fn failures_and_cut_off_answers_cost_details_another_try() -> Result<()> {
    let cloud = one_subscription().machines(60).start().await?;
    cloud.faults(|faults| {
        faults.fail_every = 7;
        faults.cut_off_every = 11;
    });
    let reading = Reading::azure("AzVM", &cloud, json!({})).await?.all().await?;
    assert_records(&reading, &records_of(&cloud, list("vm_instance_view"), 0..60), &[]);
    let coverage = reading.coverage(&scope(&cloud), "vm_instance_view");
    assert_eq!((coverage.state, coverage.read), (State::Complete, 60));
    assert!(reading.ids.len() < 40 && cloud.statistics().failed > 0, "{}", reading.ids.len());
    Ok(())
}

/// Calls slow down before the limit is reached, by what the service says is left.
#[tokio::test]
async fn the_limit_of_the_service_is_hardly_ever_hit() -> Result<()> {
    let cloud = one_subscription().machines(250).rate_limit(70, 50.0).start().await?;
    let reading = Reading::azure("AzVM", &cloud, json!({})).await?.all().await?;
    assert_records(&reading, &records_of(&cloud, list("vm_instance_view"), 0..250), &[]);
    let statistics = cloud.statistics();
    let calls = statistics.arm_requests();
    assert!(calls > 250 && statistics.throttled * 50 <= calls, "{} of {calls} throttled", statistics.throttled);
    Ok(())
}

// ---- What is missing ----

#[tokio::test]
async fn what_was_deleted_since_it_was_listed_is_no_gap() -> Result<()> {
    for (class, name, detail) in [
        ("AzVM", "vm_instance_view", Kind::InstanceView),
        ("AzWebApp", "web_app_config", Kind::WebConfiguration),
        ("AzPostgres", "postgresql_flexible_server", Kind::PostgresqlFlexibleConfigurations),
    ] {
        let list = list(name);
        let cloud = one_subscription().count(list.kind, 6).start().await?;
        cloud.faults(|faults| faults.ail(0, list.kind, 3, Ailment::Gone));
        let reading = Reading::azure(class, &cloud, json!({})).await?.only(&[name]).all().await?;
        assert_records(&reading, &records_of(&cloud, list, all_but(6, [3])), &[]);
        assert_eq!(reading.coverage(&scope(&cloud), name), Coverage::complete(&scope(&cloud), name, 5));
        assert_eq!(cloud.statistics().requests_of(detail), 6);
    }
    Ok(())
}

#[tokio::test]
async fn details_that_are_missing_though_the_resource_is_there_are_a_gap() -> Result<()> {
    let cloud = one_subscription().machines(6).start().await?;
    cloud.faults(|faults| faults.ail(0, Kind::InstanceView, 3, Ailment::Gone));
    let reading = read("AzVM", &cloud).await?;
    assert_records(&reading, &records_of(&cloud, list("vm_instance_view"), all_but(6, [3])), &[]);
    let coverage = reading.coverage(&scope(&cloud), "vm_instance_view");
    assert_eq!((coverage.state, coverage.read, coverage.missing), (State::Partial, 5, Some(1)));
    let reason = coverage.reason.unwrap_or_default();
    assert!(reason.contains("/virtualMachines/vm4/instanceView: 404 ResourceNotFound"), "{reason}");
    Ok(())
}

#[tokio::test]
async fn one_denied_detail_costs_one_resource_and_names_the_permission() -> Result<()> {
    let cloud = one_subscription().machines(6).start().await?;
    cloud.faults(|faults| faults.ail(0, Kind::InstanceView, 2, Ailment::Denied));
    let reading = read("AzVM", &cloud).await?;
    assert_records(&reading, &records_of(&cloud, list("vm_instance_view"), all_but(6, [2])), &[]);
    let coverage = reading.coverage(&scope(&cloud), "vm_instance_view");
    assert_eq!((coverage.state, coverage.read, coverage.missing), (State::Partial, 5, Some(1)));
    let reason = coverage.reason.unwrap_or_default();
    assert!(reason.contains("permission Microsoft.Compute/virtualMachines/instanceView/read"), "{reason}");

    cloud.faults(|faults| faults.deny(0, Kind::InstanceView));
    let reading = read("AzVM", &cloud).await?;
    let coverage = reading.coverage(&scope(&cloud), "vm_instance_view");
    assert_eq!((coverage.state, coverage.read, coverage.missing), (State::Denied, 0, Some(6)));
    Ok(())
}

/// What an odd form costs: whether the thing still has a record.
fn survives(list: &List, oddity: Oddity) -> bool {
    let is_plain = list.class == "AzCloud" && !matches!(list.name, "nsg" | "mysql_server" | "mysql_flexible_server");
    // Nothing in the properties of a database makes a record, and nothing that flexible servers have in theirs.
    let is_unread = is_plain || list.name == "sql_db";
    let is_flexible = matches!(list.name, "mysql_flexible_server" | "postgresql_flexible_server");
    match oddity {
        Oddity::NoId | Oddity::Text => false,
        Oddity::NoProperties | Oddity::NullProperties => list.name != "nsg",
        Oddity::TextProperties => is_unread,
        Oddity::WrongTypes => is_unread || is_flexible,
    }
}

#[tokio::test]
async fn a_malformed_resource_costs_itself_alone() -> Result<()> {
    let oddities = [
        Oddity::NoProperties,
        Oddity::NullProperties,
        Oddity::TextProperties,
        Oddity::WrongTypes,
        Oddity::NoId,
        Oddity::Text,
    ];
    let lists = LISTS.iter().filter(|list| list.types.is_some() && list.kind != Kind::LogProfile);
    for (list, oddity) in lists.flat_map(|list| oddities.map(|oddity| (list, oddity))) {
        let mut builder = one_subscription().page_size(4).rules(1);
        builder = match list.kind.parent() {
            Some(parent) => builder.count(parent, 1).count(list.kind, 9),
            None => builder.count(list.kind, 9),
        };
        let cloud = builder.start().await?;
        let count = cloud.estate().count(0, list.kind);
        cloud.faults(|faults| {
            faults.odd.insert(list.kind, (4, oddity));
        });
        let reading = Reading::azure(list.class, &cloud, json!({}))
            .await?
            .only(&["key_vault", "sql_server", list.name])
            .all()
            .await?;
        let what = format!("{oddity:?} {}", list.name);
        assert!(reading.errors.is_empty(), "{what}: {:?}", reading.errors);
        let (mut expected, mut lost) = (Vec::new(), 0);
        for number in 0..count {
            let odd = (number + 1).is_multiple_of(4).then_some(oddity);
            let made = match odd {
                Some(oddity) if !survives(list, oddity) => Vec::new(),
                odd => list.odd_records(&cloud, 0, number, odd),
            };
            lost += u64::from(made.is_empty());
            expected.extend(made);
        }
        let mut ignored = vec!["subscription", "log_profile_missing", "key_vault"];
        ignored.retain(|name| *name != list.name);
        assert_records(&reading, &expected, &ignored);
        let coverage = reading.coverage(&scope(&cloud), list.name);
        let state = if lost > 0 { State::Partial } else { State::Complete };
        let missing = Some(lost).filter(|lost| *lost > 0);
        assert_eq!((coverage.state, coverage.read, coverage.missing), (state, count as u64 - lost, missing), "{what}");
        assert!(count < 4 || survives(list, oddity) || lost > 0, "{what}: nothing was odd");
    }
    Ok(())
}

#[tokio::test]
async fn a_malformed_detail_costs_its_resource_alone() -> Result<()> {
    // A server keeps its record without a setting; the others are nothing without their details.
    let of_one = |list: &&List| !matches!(list.class, "AzPostgres");
    for list in LISTS.iter().filter(of_one) {
        let Some(detail) = list.detail else { continue };
        let mut builder = one_subscription().page_size(4);
        builder = match list.kind.parent() {
            Some(parent) => builder.count(parent, 1).count(list.kind, 4),
            None => builder.count(list.kind, 4),
        };
        let cloud = builder.start().await?;
        cloud.faults(|faults| {
            faults.odd.insert(detail, (3, Oddity::Text));
        });
        let reading =
            Reading::azure(list.class, &cloud, json!({})).await?.only(&["sql_server", list.name]).all().await?;
        let coverage = reading.coverage(&scope(&cloud), list.name);
        assert_eq!((coverage.state, coverage.missing), (State::Partial, Some(1)), "{}: {coverage:?}", list.name);
        assert!(coverage.read >= 2, "{coverage:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_denied_kind_names_the_missing_permission() -> Result<()> {
    for list in LISTS.iter().filter(|list| list.kind.parent().is_none()) {
        let cloud = Cloudsim::builder().subscriptions(2).start().await?;
        cloud.faults(|faults| faults.deny(0, list.kind));
        let reading = Reading::azure(list.class, &cloud, json!({})).await?.only(&[list.name]).all().await?;
        let coverage = reading.coverage(&scope(&cloud), list.name);
        assert_eq!((coverage.state, coverage.read), (State::Denied, 0), "{}", list.name);
        let reason = coverage.reason.unwrap_or_default();
        let permission = format!("the permission {}, like Reader", list.kind.permission());
        assert!(reason.contains("403 AuthorizationFailed") && reason.contains(&permission), "{reason}");
        assert_ne!(reading.coverage(&cloud.estate().subscription_id(1), list.name).state, State::Denied);
    }
    Ok(())
}

#[tokio::test]
async fn a_provider_that_is_not_registered_has_nothing_to_read() -> Result<()> {
    for list in LISTS.iter().filter(|list| list.kind.parent().is_none() && list.kind != Kind::ResourceGroup) {
        for absence in [Absence::NotRegistered, Absence::NoProvider] {
            let cloud = Cloudsim::builder().subscriptions(2).start().await?;
            cloud.faults(|faults| faults.unregister(0, list.kind.namespace(), absence));
            let reading = Reading::azure(list.class, &cloud, json!({})).await?.only(&[list.name]).all().await?;
            let coverage = reading.coverage(&scope(&cloud), list.name);
            let what = format!("{absence:?} {}: {coverage:?}", list.name);
            if list.kind == Kind::LogProfile {
                // Where there can be no profile, there is none, and that is a finding.
                assert_records(&reading, &records_without_profiles(&cloud), &["log_profile"]);
                assert_eq!((coverage.state, coverage.read), (State::Complete, 1), "{what}");
            } else {
                assert_eq!((coverage.state, coverage.read), (State::NotEnabled, 0), "{what}");
            }
            assert!(coverage.reason.unwrap_or_default().contains("the service is not registered"), "{what}");
        }
    }
    Ok(())
}

/// The records of two subscriptions of which the first has no provider for profiles and settings.
fn records_without_profiles(cloud: &Cloudsim) -> Vec<Expected> {
    vec![log_profile_missing(cloud, 0, None)]
}

#[tokio::test]
async fn retired_services_have_nothing_to_read() -> Result<()> {
    for (class, retired, other) in [
        ("AzCloud", "mysql_server", "mysql_flexible_server"),
        ("AzPostgres", "postgresql_server", "postgresql_flexible_server"),
    ] {
        for absence in [Absence::NoType, Absence::NoNamespace, Absence::Retired] {
            let cloud = one_subscription().start().await?;
            cloud.faults(|faults| faults.unregister(0, list(retired).kind.namespace(), absence));
            let reading = Reading::azure(class, &cloud, json!({})).await?.only(&[retired, other]).all().await?;
            let coverage = reading.coverage(&scope(&cloud), retired);
            assert_eq!((coverage.state, coverage.read), (State::NotEnabled, 0), "{absence:?} {coverage:?}");
            let reason = coverage.reason.unwrap_or_default();
            assert!(reason.starts_with("Azure has retired the service: "), "{reason}");
            // What is not retired is missed.
            assert_eq!(reading.coverage(&scope(&cloud), other).state, State::Failed, "{absence:?}");
        }
    }
    Ok(())
}

// ---- Subscriptions ----

#[tokio::test]
async fn a_subscription_that_is_not_in_order_is_read_as_far_as_it_can_be() -> Result<()> {
    let states = [
        (SubscriptionState::Enabled, "Enabled"),
        (SubscriptionState::Disabled, "Disabled"),
        (SubscriptionState::Warned, "Warned"),
        (SubscriptionState::PastDue, "PastDue"),
        (SubscriptionState::Deleted, "Deleted"),
    ];
    let builder =
        states.iter().enumerate().fold(Cloudsim::builder().subscriptions(5), |builder, (index, (state, _))| {
            builder.subscription_state(index, *state)
        });
    let cloud = builder.disks(3).start().await?;
    let reading = read("AzDisk", &cloud).await?;
    let disks = (0..4).flat_map(|index| (0..3).flat_map(move |number| [(index, number)]));
    let expected: Vec<_> = disks.flat_map(|(index, number)| list("disk").records(&cloud, index, number)).collect();
    assert_records(&reading, &expected, &[]);
    for (index, (state, name)) in states.into_iter().enumerate() {
        let id = cloud.estate().subscription_id(index);
        let coverage = reading.coverage(&id, "disk");
        let notes = reading.fold.coverage();
        let note = notes.iter().find(|one| one.scope == id && one.resource_type == "subscription");
        match state {
            SubscriptionState::Enabled => assert!(note.is_none() && coverage == Coverage::complete(&id, "disk", 3)),
            SubscriptionState::Deleted => {
                assert_eq!((coverage.state, coverage.read), (State::Skipped, 0));
                assert_eq!(coverage.reason.as_deref(), Some("the subscription is deleted"));
            }
            _ => {
                assert_eq!(coverage, Coverage::complete(&id, "disk", 3));
                let reason = note.and_then(|note| note.reason.as_deref()).context(name)?;
                assert!(reason.contains(&format!("the subscription is {name}")), "{reason}");
            }
        }
    }
    // Deleted ones are listed, and so they have a record where subscriptions have records.
    let reading = Reading::azure("AzCloud", &cloud, json!({})).await?.only(&["nothing"]).all().await?;
    let expected: Vec<_> = (0..5).map(|index| subscription(&cloud, index)).collect();
    assert_records(&reading, &expected, &[]);
    Ok(())
}

#[tokio::test]
async fn subscriptions_are_included_and_excluded_by_id_name_and_pattern() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(6).disks(1).start().await?;
    let id = |index| cloud.estate().subscription_id(index);
    for (selection, read) in [
        (json!([id(1).to_uppercase()]), vec![1]),
        (json!(["simulated subscription 3", "*cription 5"]), vec![2, 4]),
        (json!({"exclude": ["Simulated Subscription 1", id(5)]}), vec![1, 2, 3, 4]),
        (json!({"include": ["simulated*"], "exclude": ["*[12]", "*2"]}), vec![0, 2, 3, 4, 5]),
        (json!(["nothing"]), vec![]),
    ] {
        let reading = Reading::azure("AzDisk", &cloud, json!({"subscriptions": selection})).await?.all().await?;
        let expected: Vec<_> = read.iter().flat_map(|index| list("disk").records(&cloud, *index, 0)).collect();
        assert_records(&reading, &expected, &[]);
        for index in 0..6 {
            let coverage = reading.coverage(&id(index), "disk");
            if read.contains(&index) {
                assert_eq!(coverage, Coverage::complete(&id(index), "disk", 1));
            } else {
                let reason = "`subscriptions` leaves out the subscription";
                assert_eq!(coverage, Coverage::not_read(&id(index), "disk", State::Skipped, reason));
            }
        }
        assert_eq!(reading.coverage("", "subscription").read, 6);
    }
    Ok(())
}

// ---- Limits and pages ----

#[tokio::test]
async fn a_limit_bounds_the_details_too() -> Result<()> {
    let cloud = one_subscription().machines(9).page_size(4).start().await?;
    let reading = Reading::azure("AzVM", &cloud, json!({"_max_recs": 5})).await?.all().await?;
    assert_records(&reading, &records_of(&cloud, list("vm_instance_view"), 0..5), &[]);
    let coverage = reading.coverage(&scope(&cloud), "vm_instance_view");
    assert_eq!((coverage.state, coverage.read), (State::Skipped, 5));
    assert_eq!(coverage.reason.as_deref(), Some("`_max_recs` is 5"));
    let statistics = cloud.statistics();
    assert_eq!((statistics.requests_of(Kind::VirtualMachine), statistics.requests_of(Kind::InstanceView)), (2, 5));
    Ok(())
}

#[tokio::test]
async fn a_refused_page_token_begins_a_list_with_details_again() -> Result<()> {
    let cloud = one_subscription().machines(9).page_size(4).start().await?;
    cloud.faults(|faults| faults.refuse_page_tokens = Times::Next(1));
    let reading = Reading::azure("AzVM", &cloud, json!({})).await?.all().await?;
    assert_eq!(reading.errors.len(), 1, "{:?}", reading.errors);
    assert!(matches!(reading.errors[0], WorkError::PageRefused { .. }));
    // What was read before is read again: the store has each once, by its id.
    let records = reading.of_type("vm_instance_view");
    assert_eq!(records.len(), 9);
    let coverage = reading.coverage(&scope(&cloud), "vm_instance_view");
    assert_eq!((coverage.state, coverage.read), (State::Complete, 9));
    Ok(())
}

#[tokio::test]
async fn pages_that_shift_give_each_resource_once_by_its_id() -> Result<()> {
    for class in ["AzVM", "AzCloud", "AzKV", "AzSQL"] {
        let builder = one_subscription().machines(10).nsgs(10).vaults(3).keys(10).sql_servers(3).databases(10);
        let cloud = builder.rules(2).page_size(3).start().await?;
        let steady = read(class, &cloud).await?;
        cloud.faults(|faults| faults.shifting_pages = true);
        let shifting = read(class, &cloud).await?;
        assert!(shifting.records.len() > steady.records.len(), "{class}: no page has shifted");
        let mut by_id: BTreeMap<&str, &Value> = BTreeMap::new();
        for record in &shifting.records {
            let id = record["com"]["id"].as_str().unwrap_or_default();
            let known = by_id.insert(id, record);
            assert!(known.is_none_or(|known| known == record), "{class}: one id, two records");
        }
        let of_steady: BTreeMap<&str, &Value> =
            steady.records.iter().map(|record| (record["com"]["id"].as_str().unwrap_or_default(), record)).collect();
        assert_eq!(by_id, of_steady, "{class}");
    }
    Ok(())
}

/// What is not known of a resource is not known of what is in it: an unread list is never complete.
#[tokio::test]
async fn what_cannot_be_read_leaves_the_lists_in_it_unread() -> Result<()> {
    for (class, above, below) in
        [("AzSQL", Kind::SqlServer, vec!["sql_db"]), ("AzKV", Kind::Vault, vec!["key_vault_key", "key_vault_secret"])]
    {
        let builder = Cloudsim::builder().subscriptions(4).count(above, 4).count_in(3, above, 0);
        let cloud = builder.subscription_state(2, SubscriptionState::Deleted).start().await?;
        cloud.faults(|faults| {
            faults.deny(0, above);
            faults.unregister(1, above.namespace(), Absence::NotRegistered);
        });
        let reading = Reading::azure(class, &cloud, json!({})).await?.all().await?;
        let states = [State::Denied, State::NotEnabled, State::Skipped, State::Complete];
        for (index, state) in states.into_iter().enumerate() {
            for name in &below {
                let coverage = reading.coverage(&cloud.estate().subscription_id(index), name);
                assert_eq!((coverage.state, coverage.read), (state, 0), "{name}");
            }
        }
        // Of some resources of the list nothing is known.
        let cloud = one_subscription().count(above, 4).page_size(2).start().await?;
        cloud.faults(|faults| {
            faults.odd.insert(above, (4, Oddity::Text));
        });
        let reading = Reading::azure(class, &cloud, json!({})).await?.all().await?;
        for name in &below {
            let coverage = reading.coverage(&scope(&cloud), name);
            assert_eq!((coverage.state, coverage.missing), (State::Partial, None), "{name}: {coverage:?}");
            assert!(coverage.read > 0 && coverage.reason.is_some(), "{coverage:?}");
        }
        let reading = Reading::azure(class, &cloud, json!({"_max_recs": 1})).await?.all().await?;
        for name in &below {
            let coverage = reading.coverage(&scope(&cloud), name);
            assert_eq!((coverage.state, coverage.missing), (State::Skipped, None), "{name}: {coverage:?}");
        }
    }
    Ok(())
}

// ---- Key vaults ----

#[tokio::test]
async fn a_vault_that_shows_nothing_costs_its_own_keys_and_secrets() -> Result<()> {
    let cloud = one_subscription().vaults(4).keys(3).secrets(2).start().await?;
    cloud.faults(|faults| faults.ail(0, Kind::Vault, 1, Ailment::Denied));
    let reading = Reading::azure("AzKV", &cloud, json!({})).await?.all().await?;
    let mut expected = records_of(&cloud, list("key_vault"), 0..4);
    expected.extend(records_of(&cloud, list("key_vault_key"), all_but(12, [3, 4, 5])));
    expected.extend(records_of(&cloud, list("key_vault_secret"), all_but(8, [2, 3])));
    assert_records(&reading, &expected, &[]);
    assert_eq!(reading.coverage(&scope(&cloud), "key_vault"), Coverage::complete(&scope(&cloud), "key_vault", 4));
    for (name, read, permission) in [
        ("key_vault_key", 9, "Microsoft.KeyVault/vaults/keys/read, like Key Vault Reader"),
        ("key_vault_secret", 6, "Microsoft.KeyVault/vaults/secrets/readMetadata/action, like Key Vault Reader"),
    ] {
        let coverage = reading.coverage(&scope(&cloud), name);
        assert_eq!((coverage.state, coverage.read, coverage.missing), (State::Partial, read, None), "{name}");
        let reason = coverage.reason.unwrap_or_default();
        assert!(reason.contains("403 Forbidden") && reason.contains(permission), "{reason}");
    }
    // Keys alone.
    cloud.faults(|faults| {
        faults.ailments.clear();
        faults.ail(0, Kind::VaultKey, 0, Ailment::Denied);
    });
    let reading = Reading::azure("AzKV", &cloud, json!({})).await?.all().await?;
    let coverage = reading.coverage(&scope(&cloud), "key_vault_key");
    assert_eq!((coverage.state, coverage.read), (State::Partial, 9));
    let reason = coverage.reason.unwrap_or_default();
    assert!(reason.contains("the permission List in the vault's access policies"), "{reason}");
    assert_eq!(reading.coverage(&scope(&cloud), "key_vault_secret").state, State::Complete);
    Ok(())
}

#[tokio::test]
async fn vaults_have_a_token_of_their_own() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(3).vaults(2).start().await?;
    read("AzKV", &cloud).await?;
    let statistics = cloud.statistics();
    assert_eq!((statistics.tokens_issued, statistics.unauthorized), (2, 0));
    assert_eq!(
        statistics.vault_requests,
        statistics.requests_of(Kind::VaultKey) + statistics.requests_of(Kind::VaultSecret)
    );
    Ok(())
}

/// A Resource Manager of ours, whose one list of vaults says that they are where it is told to say.
async fn resource_manager_with(vaults: Vec<Value>) -> Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let answer = move |request: Request| async move {
        let path = request.uri().path().to_owned();
        let body = match () {
            () if path.ends_with("/token") => json!({"token_type": "Bearer", "expires_in": 3599, "access_token": "t"}),
            () if path.ends_with("/vaults") => json!({"value": vaults}),
            () => json!({"value": [{"id": "/subscriptions/s1", "subscriptionId": "s1", "state": "Enabled"}]}),
        };
        ([("content-type", "application/json")], body.to_string())
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    Ok(url)
}

#[tokio::test]
async fn a_vault_uri_that_leads_to_a_stranger_is_never_shown_the_token() -> Result<()> {
    let uris = [
        "https://kv.attacker.example/",
        "https://vault.azure.net.attacker.example/",
        "https://notvault.azure.net/",
        "https://kv.vault.azure.net@attacker.example/",
        "https://kv.vault.azure.net:pass@attacker.example/",
        "http://kv.vault.azure.net/",
        "https://169.254.169.254/",
        "ftp://kv.vault.azure.net/",
        "kv.vault.azure.net",
    ];
    let vault = |number: usize, uri: &str| json!({"id": format!("/subscriptions/s1/vaults/kv{number}"), "properties": {"vaultUri": uri}});
    let mut vaults: Vec<Value> = uris.iter().enumerate().map(|(number, uri)| vault(number, uri)).collect();
    vaults.push(vault(99, "https://kv99.vault.azure.net/"));
    let url = resource_manager_with(vaults).await?;
    let params = json!({"tenant": "t", "client": "c", "secret": "s", "login_endpoint": url, "arm_endpoint": url});
    let mut reading = Reading::of("AzKV", params).await?;
    let list = reading.first_of("key_vault").await?;
    let done = reading.work(&list).await??;
    // The vaults themselves are read; the lists of the one that is a vault of this cloud follow.
    assert_eq!(reading.of_type("key_vault").len(), uris.len() + 1);
    let tasks: Vec<&str> = done.children.iter().map(|child| child.task.get()).collect();
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    assert!(tasks.iter().all(|task| task.contains("https://kv99.vault.azure.net/")), "{tasks:?}");
    for name in ["key_vault_key", "key_vault_secret"] {
        let coverage = reading.coverage("s1", name);
        assert_eq!((coverage.state, coverage.read, coverage.missing), (State::Failed, 0, None), "{coverage:?}");
        assert!(coverage.reason.unwrap_or_default().contains("attacker.example"), "the first is named");
    }
    Ok(())
}

// ---- All plugins alike ----

#[tokio::test]
async fn a_token_that_expires_on_the_way_is_replaced() -> Result<()> {
    for class in CLASSES {
        let cloud = Cloudsim::builder().subscriptions(2).start().await?;
        let steady = read(class, &cloud).await?;
        cloud.faults(|faults| faults.expire_tokens_after = Some(2));
        let expiring = read(class, &cloud).await?;
        let keys = |reading: &Reading| -> BTreeSet<String> {
            reading.records.iter().map(|record| record["com"]["id"].to_string()).collect()
        };
        assert_eq!(keys(&expiring), keys(&steady), "{class}");
        // Calls under way at that moment are refused together, and share the next token.
        let statistics = cloud.statistics();
        assert!(statistics.unauthorized >= 1 && statistics.tokens_issued <= 6, "{class}: {statistics:?}");
    }
    Ok(())
}

#[tokio::test]
async fn slow_answers_change_nothing() -> Result<()> {
    let cloud = one_subscription().machines(20).start().await?;
    cloud.faults(|faults| {
        faults.slow_every = 3;
        faults.slow_by = Duration::from_millis(50);
    });
    let reading = read("AzVM", &cloud).await?;
    // Records come in the order of their machines, whichever answer came first.
    let names: Vec<&str> = reading.records.iter().filter_map(|record| record["raw"]["name"].as_str()).collect();
    assert_eq!(names, (1..=20).map(|number| format!("vm{number}")).collect::<Vec<_>>());
    Ok(())
}
