//! What can go wrong with a kind, a provider, or a single resource.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;
use tests::cloudsim::{Absence, Ailment, Cloudsim, Kind, Oddity};

use crate::caller::Caller;

fn list_path(caller: &Caller, subscription: usize, rest: &str) -> String {
    format!("/subscriptions/{}/{rest}?api-version=2024-01-01", caller.cloud.estate().subscription_id(subscription))
}

#[tokio::test]
async fn a_denied_kind_names_the_missing_permission() {
    let caller = Caller::start(Cloudsim::builder().faults(|faults| {
        faults.deny(0, Kind::VirtualMachine);
        faults.deny(0, Kind::InstanceView);
        faults.deny(0, Kind::Location);
        faults.deny(0, Kind::TransparentDataEncryption);
    }))
    .await;
    let estate = caller.cloud.estate();
    let id = estate.subscription_id(0);
    let machine = estate.id(0, Kind::VirtualMachine, 0);
    let database = estate.id(0, Kind::SqlDatabase, 1);
    let list = list_path(&caller, 0, "providers/Microsoft.Compute/virtualMachines");
    for (path, action, scope) in [
        (list, "Microsoft.Compute/virtualMachines/read", format!("/subscriptions/{id}/providers/Microsoft.Compute")),
        (
            format!("{machine}/instanceView?api-version=2024-07-01"),
            "Microsoft.Compute/virtualMachines/instanceView/read",
            format!("{machine}/instanceView"),
        ),
        (
            list_path(&caller, 0, "locations"),
            "Microsoft.Resources/subscriptions/locations/read",
            format!("/subscriptions/{id}"),
        ),
        (
            format!("{database}/transparentDataEncryption/current?api-version=2021-11-01"),
            "Microsoft.Sql/servers/databases/transparentDataEncryption/read",
            format!("{database}/transparentDataEncryption/current"),
        ),
    ] {
        let answer = caller.get(&path).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "AuthorizationFailed"), "{path}");
        let words = format!("to perform action '{action}' over scope '{scope}' or the scope");
        assert!(answer.message().contains(&words), "{}", answer.message());
    }
    assert_eq!(caller.get(&list_path(&caller, 0, "providers/Microsoft.Compute/disks")).await.status, StatusCode::OK);
    let other = list_path(&caller, 1, "providers/Microsoft.Compute/virtualMachines");
    assert_eq!(caller.get(&other).await.status, StatusCode::OK);
    caller.cloud.faults(|faults| faults.deny(1, Kind::NetworkSecurityGroup));
    let readable = caller.cloud.readable();
    assert_eq!((readable.subscriptions, readable.nsgs, readable.rules), (3, 10, 40));
    let readable = caller.cloud.readable_inventory();
    assert_eq!((readable.of(Kind::VirtualMachine), readable.of(Kind::InstanceView)), (6, 6));
    assert_eq!((readable.of(Kind::SqlDatabase), readable.of(Kind::TransparentDataEncryption)), (18, 12));
}

#[tokio::test]
async fn a_provider_can_be_absent_in_five_ways() {
    let caller = Caller::start(Cloudsim::builder().subscriptions(1)).await;
    let path = list_path(&caller, 0, "providers/Microsoft.DBforMySQL/servers");
    for (absence, status, code) in [
        (Absence::NotRegistered, 409, "MissingSubscriptionRegistration"),
        (Absence::NoNamespace, 404, "InvalidResourceNamespace"),
        (Absence::NoType, 404, "InvalidResourceType"),
        (Absence::NoProvider, 400, "NoRegisteredProviderFound"),
        (Absence::Retired, 410, "Gone"),
    ] {
        caller.cloud.faults(|faults| faults.unregister(0, "microsoft.dbformysql", absence));
        let answer = caller.get(&path).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code));
        assert!(answer.message().contains("Microsoft.DBforMySQL"), "{}", answer.message());
        if absence == Absence::NotRegistered {
            assert_eq!(answer.body["error"]["details"][0]["target"], "Microsoft.DBforMySQL");
        }
    }
    assert_eq!(caller.cloud.readable_inventory().of(Kind::MysqlFlexibleConfigurations), 0);
    assert_eq!(caller.cloud.readable_inventory().of(Kind::PostgresqlServer), 2);
}

#[tokio::test]
async fn single_resources_ail() {
    let caller = Caller::start(Cloudsim::builder().subscriptions(1).machines(7).faults(|faults| {
        faults.ailing.insert(Kind::InstanceView, (3, Ailment::Gone));
        faults.ail(0, Kind::InstanceView, 0, Ailment::Broken);
        faults.ail(0, Kind::VirtualMachine, 1, Ailment::Denied);
        faults.ail(0, Kind::SqlDatabase, 1, Ailment::Denied);
    }))
    .await;
    let estate = caller.cloud.estate();
    let mut statuses = Vec::new();
    for number in 0..7 {
        let id = estate.id(0, Kind::VirtualMachine, number);
        let answer = caller.get(&format!("{id}/instanceView?api-version=2024-07-01")).await;
        statuses.push(answer.status.as_u16());
        if number == 2 {
            assert_eq!(answer.code(), "ResourceNotFound");
            let words =
                "The Resource 'Microsoft.Compute/virtualMachines/vm3' under resource group 'RG1' was not found.";
            assert!(answer.message().starts_with(words), "{}", answer.message());
        }
    }
    assert_eq!(statuses, [500, 403, 404, 200, 200, 404, 200]);
    let (listed, _) = caller.list(&list_path(&caller, 0, "providers/Microsoft.Compute/virtualMachines")).await;
    assert_eq!(listed.len(), 7, "they are listed all the same");
    assert_eq!(caller.cloud.readable_numbers(0, Kind::InstanceView), [3, 4, 6]);

    // The databases of the second server, and what is below them.
    let databases = |server| format!("{}/databases?api-version=2021-11-01", estate.id(0, Kind::SqlServer, server));
    assert_eq!(caller.get(&databases(0)).await.status, StatusCode::OK);
    let denied = caller.get(&databases(1)).await;
    assert!(denied.message().contains("'Microsoft.Sql/servers/databases/read'"), "{}", denied.message());
    assert_eq!(caller.cloud.readable_numbers(0, Kind::SqlDatabase), [0, 1, 2]);
    assert_eq!(caller.cloud.readable_numbers(0, Kind::TransparentDataEncryption), [0, 1, 2]);
}

#[tokio::test]
async fn every_nth_thing_is_odd_and_the_truth_stays() {
    let caller = Caller::start(Cloudsim::builder().subscriptions(1).disks(6).faults(|faults| {
        faults.odd.insert(Kind::Disk, (3, Oddity::NoProperties));
        faults.odd.insert(Kind::WebConfiguration, (2, Oddity::TextProperties));
        faults.odd.insert(Kind::NetworkSecurityGroup, (5, Oddity::Text));
        faults.odd.insert(Kind::PostgresqlConfigurations, (1, Oddity::WrongTypes));
    }))
    .await;
    let estate = caller.cloud.estate();
    let (disks, _) = caller.list(&list_path(&caller, 0, "providers/Microsoft.Compute/disks")).await;
    let whole: Vec<bool> = disks.iter().map(|disk| disk.get("properties").is_some()).collect();
    assert_eq!(whole, [true, true, false, true, true, false]);
    assert!(estate.item(0, Kind::Disk, 2).get("properties").is_some());
    let site = estate.id(0, Kind::WebApp, 1);
    assert_eq!(caller.get(&format!("{site}/config/web?api-version=2023-12-01")).await.body["properties"], "odd");
    let (groups, _) = caller.list(&caller.nsgs_path(0)).await;
    assert_eq!(groups[4], "odd");
    assert_eq!(groups[0]["name"], "nsg1");
    let server = estate.id(0, Kind::PostgresqlServer, 0);
    let (settings, _) = caller.list(&format!("{server}/configurations?api-version=2017-12-01")).await;
    assert!(settings.iter().all(|setting| setting["properties"]["value"] == 7), "{settings:?}");
}

#[tokio::test]
async fn pages_can_shift() {
    let caller = Caller::start(Cloudsim::builder().subscriptions(1).disks(5).page_size(2)).await;
    let path = list_path(&caller, 0, "providers/Microsoft.Compute/disks");
    let names = |disks: Vec<Value>| -> Vec<String> {
        disks.iter().map(|disk| disk["name"].as_str().unwrap().trim_start_matches("disk").to_owned()).collect()
    };
    assert_eq!(names(caller.list(&path).await.0), ["1", "2", "3", "4", "5"]);
    caller.cloud.faults(|faults| faults.shifting_pages = true);
    assert_eq!(names(caller.list(&path).await.0), ["1", "2", "2", "3", "4", "4", "5"]);
}

#[tokio::test]
async fn every_nth_answer_is_slow() {
    let slow_by = Duration::from_millis(80);
    let caller = Caller::start(Cloudsim::builder().faults(|faults| {
        faults.slow_every = 2;
        faults.slow_by = slow_by;
    }))
    .await;
    let path = caller.nsgs_path(0);
    let time = async || {
        let begun = Instant::now();
        caller.get(&path).await;
        begun.elapsed()
    };
    let times = [time().await, time().await, time().await, time().await];
    assert!(times[1] >= slow_by && times[3] >= slow_by, "{times:?}");
    // On a busy machine one may be late, but not both.
    assert!(times[0].min(times[2]) < slow_by, "{times:?}");
}

#[tokio::test]
async fn reads_are_limited_by_subscription() {
    let caller = Caller::start(Cloudsim::builder().rate_limit(3, 0.01)).await;
    let left = "x-ms-ratelimit-remaining-subscription-reads";
    let mut remaining = Vec::new();
    for _ in 0..3 {
        let answer = caller.get(&caller.nsgs_path(0)).await;
        assert_eq!(answer.status, StatusCode::OK);
        remaining.push(answer.header(left).to_owned());
    }
    assert_eq!(remaining, ["2", "1", "0"]);
    let refused = caller.get(&caller.nsgs_path(0)).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::TOO_MANY_REQUESTS, "SubscriptionRequestsThrottled"));
    let retry_after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((90..=100).contains(&retry_after), "{retry_after}");
    assert_eq!(refused.header(left), "0");
    assert_eq!(caller.get(&caller.nsgs_path(1)).await.header(left), "2", "each has its own bucket");
    let tenant = caller.get("/subscriptions?api-version=2022-12-01").await;
    assert_eq!(tenant.header("x-ms-ratelimit-remaining-tenant-reads"), "2");

    let free = Caller::start(Cloudsim::builder()).await;
    for _ in 0..2 {
        let answer = free.get(&list_path(&free, 0, "providers/Microsoft.Compute/disks")).await;
        assert_eq!(answer.header(left), "249");
        assert_eq!(answer.header("x-ms-ratelimit-remaining-subscription-global-reads"), "3735");
        assert!(answer.header("x-ms-ratelimit-remaining-resource").starts_with("Microsoft.Compute/HighCostGet3Min;"));
    }
}
