//! All kinds of resources: what is listed is the truth, each can be read by its id, and whatever rules look
//! at comes up in more than one way.

use std::collections::{BTreeSet, HashSet};

use reqwest::StatusCode;
use serde_json::Value;
use tests::cloudsim::{Cloudsim, Kind, SubscriptionState};

use crate::caller::Caller;

/// The lists of a whole subscription, and a version of each that clients of today ask for.
const LISTS: [(Kind, &str, &str); 20] = [
    (Kind::Location, "locations", "2022-12-01"),
    (Kind::ResourceGroup, "resourcegroups", "2025-04-01"),
    (Kind::VirtualMachine, "providers/Microsoft.Compute/virtualMachines", "2026-04-01"),
    (Kind::Disk, "providers/Microsoft.Compute/disks", "2026-03-02"),
    (Kind::NetworkInterface, "providers/Microsoft.Network/networkInterfaces", "2026-03-01"),
    (Kind::PublicIpAddress, "providers/Microsoft.Network/publicIPAddresses", "2024-05-01"),
    (Kind::LoadBalancer, "providers/Microsoft.Network/loadBalancers", "2024-05-01"),
    (Kind::ApplicationGateway, "providers/Microsoft.Network/applicationGateways", "2024-05-01"),
    (Kind::NetworkSecurityGroup, "providers/Microsoft.Network/networkSecurityGroups", "2024-05-01"),
    (Kind::StorageAccount, "providers/Microsoft.Storage/storageAccounts", "2023-05-01"),
    (Kind::MysqlServer, "providers/Microsoft.DBForMySQL/servers", "2017-12-01"),
    (Kind::MysqlFlexibleServer, "providers/Microsoft.DBforMySQL/flexibleServers", "2023-12-30"),
    (Kind::PostgresqlServer, "providers/Microsoft.DBforPostgreSQL/servers", "2017-12-01"),
    (Kind::PostgresqlFlexibleServer, "providers/Microsoft.DBforPostgreSQL/flexibleServers", "2024-08-01"),
    (Kind::SqlServer, "providers/Microsoft.Sql/servers", "2023-08-01"),
    (Kind::WebApp, "providers/Microsoft.Web/sites", "2023-12-01"),
    (Kind::Vault, "providers/Microsoft.KeyVault/vaults", "2023-07-01"),
    (Kind::LogProfile, "providers/microsoft.insights/logprofiles", "2016-03-01"),
    (Kind::DiagnosticSetting, "providers/Microsoft.Insights/diagnosticSettings", "2021-05-01-preview"),
    (Kind::SqlServer, "providers/microsoft.sql/SERVERS", "2021-11-01"),
];

/// What is read below a resource: its parent, the rest of the path, whether it is a list.
const BELOW: [(Kind, Kind, &str, bool); 7] = [
    (Kind::InstanceView, Kind::VirtualMachine, "instanceView", false),
    (Kind::MysqlFlexibleConfigurations, Kind::MysqlFlexibleServer, "configurations", true),
    (Kind::PostgresqlConfigurations, Kind::PostgresqlServer, "configurations", true),
    (Kind::PostgresqlFlexibleConfigurations, Kind::PostgresqlFlexibleServer, "configurations", true),
    (Kind::WebConfiguration, Kind::WebApp, "config/web", false),
    (Kind::SqlDatabase, Kind::SqlServer, "databases", true),
    (Kind::TransparentDataEncryption, Kind::SqlDatabase, "transparentDataEncryption/current", false),
];

#[tokio::test]
async fn every_list_is_the_truth_on_pages() {
    let caller = Caller::start(Cloudsim::builder().page_size(2).machines(5).vaults(4).web_apps(3)).await;
    let estate = caller.cloud.estate();
    for subscription in 0..3 {
        let id = estate.subscription_id(subscription);
        for (kind, path, version) in LISTS {
            let (listed, pages) = caller.list(&format!("/subscriptions/{id}/{path}?api-version={version}")).await;
            let truth: Vec<Value> = estate.items(subscription, kind).collect();
            assert_eq!(listed, truth, "{kind:?}");
            assert_eq!(listed.len(), estate.count(subscription, kind), "{kind:?}");
            let is_one_page = matches!(
                kind,
                Kind::Location
                    | Kind::MysqlServer
                    | Kind::PostgresqlServer
                    | Kind::LogProfile
                    | Kind::DiagnosticSetting
            );
            let wanted = match kind {
                _ if is_one_page => 1,
                // This list ends with an empty page.
                Kind::Vault => 3,
                _ => listed.len().div_ceil(2),
            };
            assert_eq!(pages, wanted, "{kind:?}");
        }
    }
    assert_eq!(caller.cloud.inventory().of(Kind::VirtualMachine), 15);
    assert_eq!(caller.cloud.readable_inventory(), caller.cloud.inventory());
    assert_eq!(caller.cloud.statistics().requests_of(Kind::VirtualMachine), 9);
}

#[tokio::test]
async fn what_is_below_a_resource_is_the_truth() {
    let caller = Caller::start(Cloudsim::builder().subscriptions(2).page_size(2)).await;
    let estate = caller.cloud.estate();
    for subscription in 0..2 {
        for (kind, parent, path, is_list) in BELOW {
            for number in 0..estate.count(subscription, parent) {
                let id = estate.id(subscription, parent, number);
                let target = format!("{id}/{path}?api-version=2025-01-01");
                let mut truth: Vec<Value> = estate.items_below(subscription, kind, number).collect();
                if let [Value::Array(settings)] = truth.as_slice() {
                    truth = settings.clone();
                }
                if is_list {
                    assert_eq!(caller.list(&target).await.0, truth, "{target}");
                    assert!(truth.len() > 2, "{kind:?}");
                } else {
                    let answer = caller.get(&target).await;
                    assert_eq!(answer.status, StatusCode::OK, "{target}: {}", answer.body);
                    assert_eq!([answer.body].as_slice(), truth, "{target}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_resource_is_found_by_its_id_and_no_other() {
    let caller = Caller::start(Cloudsim::builder().subscriptions(2).machines(25).resource_groups(3)).await;
    let estate = caller.cloud.estate();
    for (kind, _, version) in LISTS {
        if matches!(kind, Kind::Location) {
            continue;
        }
        for number in 0..estate.count(1, kind) {
            let id = estate.id(1, kind, number);
            let id = if id.starts_with('/') { id } else { format!("/{id}") };
            let answer = caller.get(&format!("{}?api-version={version}", id.to_uppercase())).await;
            assert_eq!(answer.status, StatusCode::OK, "{id}: {}", answer.body);
            assert_eq!(answer.body, estate.item(1, kind, number));
        }
    }
    let machine = estate.id(1, Kind::VirtualMachine, 24);
    assert!(machine.contains("/resourceGroups/RG3/"), "{machine}");
    for (from, to) in [("RG3", "RG2"), ("vm25", "vm26"), ("vm25", "vm025"), ("vm25", "disk25")] {
        let answer = caller.get(&format!("{}?api-version=2024-07-01", machine.replace(from, to))).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "ResourceNotFound"), "{to}");
    }
    let answer = caller.get(&format!("{}/config/ftp?api-version=2024-07-01", estate.id(1, Kind::WebApp, 0))).await;
    assert_eq!(answer.code(), "ResourceNotFound");
    let group = machine.split("/providers").next().unwrap();
    assert!(answer.message().starts_with("The Resource 'Microsoft.Web/sites/app-"), "{}", answer.message());
    assert!(group.ends_with("RG3"));
}

#[tokio::test]
async fn single_settings_and_other_views_can_be_asked_for() {
    let caller = Caller::start(Cloudsim::builder().subscriptions(1)).await;
    let estate = caller.cloud.estate();
    let server = estate.id(0, Kind::MysqlFlexibleServer, 0);
    let one = caller.get(&format!("{server}/configurations/REQUIRE_secure_transport?api-version=2023-12-30")).await;
    assert_eq!(one.body["properties"]["value"], "ON");
    let none = caller.get(&format!("{server}/configurations/nothing?api-version=2023-12-30")).await;
    assert_eq!(none.code(), "ResourceNotFound");

    let machine = estate.id(0, Kind::VirtualMachine, 0);
    let expanded = caller.get(&format!("{machine}?$expand=instanceView&api-version=2024-07-01")).await;
    assert_eq!(expanded.body["properties"]["instanceView"], estate.item(0, Kind::InstanceView, 0));

    let database = estate.id(0, Kind::SqlDatabase, 0);
    assert!(database.ends_with("/databases/master"), "{database}");
    let path = format!("{database}/transparentDataEncryption/current?api-version=");
    assert_eq!(caller.get(&format!("{path}2021-11-01")).await.body["properties"]["state"], "Disabled");
    let old = caller.get(&format!("{path}2014-04-01")).await;
    assert_eq!(old.body["properties"], serde_json::json!({"status": "Disabled"}));
}

#[tokio::test]
async fn a_client_may_ask_for_shorter_pages_and_gets_the_providers_own_links() {
    let caller = Caller::start(Cloudsim::builder().subscriptions(1).machines(6)).await;
    let id = caller.cloud.estate().subscription_id(0);
    let spelling = async |path: &str| {
        let answer = caller.get(&format!("/subscriptions/{id}/{path}?$top=1&api-version=2024-01-01")).await;
        assert_eq!(answer.body["value"].as_array().unwrap().len(), 1, "{path}");
        let link = answer.body["nextLink"].as_str().unwrap().to_owned();
        let (rest, _) = caller.list(&link).await;
        assert!(!rest.is_empty());
        link
    };
    assert!(spelling("providers/Microsoft.Compute/virtualMachines").await.contains("&$skiptoken="));
    assert!(spelling("providers/Microsoft.Storage/storageAccounts").await.contains("&$skipToken="));
    assert!(spelling("providers/Microsoft.Web/sites").await.contains("&%24skipToken="));
    assert!(spelling("resourcegroups").await.contains("&%24skiptoken="));
    let last = caller.get(&format!("/subscriptions/{id}/providers/Microsoft.Web/sites?api-version=2024-01-01")).await;
    assert_eq!(last.body.get("nextLink"), Some(&Value::Null));
    let last = caller.get(&format!("/subscriptions/{id}/resourcegroups?api-version=2024-01-01")).await;
    assert_eq!(last.body.get("nextLink"), None);
}

/// The values of a field over all things of a kind; none where it is absent.
fn values(cloud: &Cloudsim, kind: Kind, pointer: &str) -> BTreeSet<Option<String>> {
    let items = (0..3).flat_map(|subscription| cloud.estate().items(subscription, kind));
    let items = items.flat_map(|item| match item {
        Value::Array(settings) => settings,
        item => vec![item],
    });
    items.map(|item| item.pointer(pointer).map(Value::to_string)).collect()
}

#[tokio::test]
async fn whatever_rules_look_at_comes_up_in_more_than_one_way() {
    let builder = Kind::ALL.into_iter().fold(Cloudsim::builder(), |builder, kind| match kind {
        Kind::Location | Kind::LogProfile => builder,
        kind => builder.count(kind, 24),
    });
    let cloud = builder.start().await.unwrap();
    let three: [(Kind, &str); 15] = [
        (Kind::VirtualMachine, "/properties/securityProfile/encryptionAtHost"),
        (Kind::Disk, "/properties/encryptionSettingsCollection/enabled"),
        (Kind::Disk, "/properties/encryption/type"),
        (Kind::Disk, "/properties/networkAccessPolicy"),
        (Kind::StorageAccount, "/properties/supportsHttpsTrafficOnly"),
        (Kind::StorageAccount, "/properties/networkAcls/defaultAction"),
        (Kind::StorageAccount, "/properties/networkAcls/bypass"),
        (Kind::StorageAccount, "/properties/minimumTlsVersion"),
        (Kind::StorageAccount, "/properties/allowSharedKeyAccess"),
        (Kind::Vault, "/properties/enableSoftDelete"),
        (Kind::Vault, "/properties/enablePurgeProtection"),
        (Kind::VaultKey, "/attributes/exp"),
        (Kind::VaultSecret, "/managed"),
        (Kind::WebApp, "/properties/httpsOnly"),
        (Kind::WebConfiguration, "/properties/minTlsVersion"),
    ];
    for (kind, pointer) in three {
        assert!(values(&cloud, kind, pointer).len() >= 3, "{kind:?}{pointer}: {:?}", values(&cloud, kind, pointer));
    }
    let two: [(Kind, &str); 14] = [
        (Kind::VirtualMachine, "/properties/storageProfile/osDisk/managedDisk/diskEncryptionSet/id"),
        (Kind::VirtualMachine, "/properties/storageProfile/osDisk/vhd/uri"),
        (Kind::VirtualMachine, "/resources/0/id"),
        (Kind::InstanceView, "/vmAgent/vmAgentVersion"),
        (Kind::InstanceView, "/extensions/0/name"),
        (Kind::Disk, "/managedBy"),
        (Kind::MysqlServer, "/properties/sslEnforcement"),
        (Kind::PostgresqlServer, "/properties/sslEnforcement"),
        (Kind::TransparentDataEncryption, "/properties/state"),
        (Kind::Vault, "/properties/enableRbacAuthorization"),
        (Kind::VaultSecret, "/attributes/enabled"),
        (Kind::LogProfile, "/properties/retentionPolicy/days"),
        (Kind::LogProfile, "/properties/categories"),
        (Kind::DiagnosticSetting, "/properties/workspaceId"),
    ];
    for (kind, pointer) in two {
        assert!(values(&cloud, kind, pointer).len() >= 2, "{kind:?}{pointer}: {:?}", values(&cloud, kind, pointer));
    }
    let minimum = values(&cloud, Kind::WebConfiguration, "/properties/minTlsVersion");
    assert!(minimum.contains(&Some("null".to_owned())) && minimum.contains(&Some("\"1.0\"".to_owned())), "{minimum:?}");
    let expiry = values(&cloud, Kind::VaultSecret, "/attributes/exp");
    for wanted in [None, Some("null".to_owned()), Some("0".to_owned())] {
        assert!(expiry.contains(&wanted), "{wanted:?}: {expiry:?}");
    }

    // Settings of servers, in capitals and not, of the right type and not, and missing.
    let settings = |kind, name: &str| -> BTreeSet<String> {
        let servers = (0..3).flat_map(|subscription| cloud.estate().items(subscription, kind));
        servers
            .map(|settings| {
                let settings = settings.as_array().unwrap().iter();
                let setting = settings.filter(|setting| setting["name"] == name).map(|setting| &setting["properties"]);
                setting.map(|setting| format!("{}:{}", setting["dataType"], setting["value"])).collect()
            })
            .collect()
    };
    let throttling = settings(Kind::PostgresqlConfigurations, "connection_throttling");
    let wanted = ["", "\"Boolean\":\"ON\"", "\"Boolean\":\"on\"", "\"Boolean\":\"off\"", "\"Enumeration\":\"on\""];
    for wanted in wanted {
        assert!(throttling.contains(wanted), "{wanted}: {throttling:?}");
    }
    assert!(settings(Kind::PostgresqlConfigurations, "log_duration").len() >= 4);
    assert!(settings(Kind::MysqlFlexibleConfigurations, "require_secure_transport").len() >= 4);
    assert!(settings(Kind::PostgresqlFlexibleConfigurations, "require_secure_transport").len() >= 3);

    // What Azure Disk Encryption says of the first disk, and what machines do.
    let views = (0..3).flat_map(|subscription| cloud.estate().items(subscription, Kind::InstanceView));
    let (mut encryption, mut power) = (HashSet::new(), HashSet::new());
    for view in views {
        encryption.insert(view.pointer("/disks/0/encryptionSettings").map(|settings| settings[0]["enabled"].clone()));
        let statuses = view["statuses"].as_array().unwrap().iter();
        let codes: Vec<&str> = statuses.filter_map(|status| status["code"].as_str()).collect();
        let state = codes.iter().find(|code| code.starts_with("PowerState/")).map(|code| (*code).to_owned());
        if state.as_deref() == Some("PowerState/deallocated") {
            assert!(view.get("vmAgent").is_none() && view.get("extensions").is_none());
        }
        power.insert(state);
    }
    assert_eq!(encryption.len(), 4, "{encryption:?}");
    assert_eq!(power.len(), 5, "{power:?}");
}

#[tokio::test]
async fn ids_are_unique_and_never_end_in_a_hole() {
    let cloud = Cloudsim::builder().start().await.unwrap();
    let mut seen = HashSet::new();
    for subscription in 0..3 {
        for kind in Kind::ALL {
            for (number, item) in cloud.estate().items(subscription, kind).enumerate() {
                let text = item.to_string();
                let holes = ["{s}", "{h}", "{n}", "{p}", "{g}", "{d}", "{0}", "{1}", "{2}"];
                assert!(!holes.iter().any(|hole| text.contains(hole)), "{kind:?}: {text}");
                assert!(!item.is_null(), "{kind:?} {number}");
                let id = if kind == Kind::VaultKey { &item["kid"] } else { &item["id"] };
                if let Some(id) = id.as_str() {
                    assert!(seen.insert(id.to_owned()), "{id}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_disabled_subscription_can_be_read_and_a_deleted_one_cannot() {
    let builder = Cloudsim::builder()
        .subscription_state(0, SubscriptionState::Disabled)
        .subscription_state(1, SubscriptionState::Deleted);
    let caller = Caller::start(builder).await;
    let (subscriptions, _) = caller.list("/subscriptions?api-version=2022-12-01").await;
    let states: Vec<&str> = subscriptions.iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["Disabled", "Deleted", "Enabled"]);
    assert_eq!(caller.list(&caller.nsgs_path(0)).await.0.len(), 5);
    let deleted = caller.get(&caller.nsgs_path(1)).await;
    assert_eq!((deleted.status, deleted.code()), (StatusCode::NOT_FOUND, "SubscriptionNotFound"));
    assert_eq!(caller.cloud.readable().nsgs, 10);
    assert_eq!(caller.cloud.readable_inventory().of(Kind::Disk), 6);
}
