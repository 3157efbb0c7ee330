//! The data plane of Key Vault.

use reqwest::StatusCode;
use serde_json::Value;
use tests::cloudsim::{Ailment, Cloudsim, Kind};

use crate::caller::Caller;

const SCOPE: &str = "https://vault.azure.net/.default";

/// A caller with a token for vaults.
async fn start(builder: tests::cloudsim::Builder) -> Caller {
    let mut caller = Caller::start(builder).await;
    let cloud = &caller.cloud;
    let answer = caller.ask_token(cloud.tenant(), cloud.client_id(), cloud.client_secret(), SCOPE).await;
    caller.token = answer.body["access_token"].as_str().unwrap().to_owned();
    caller
}

fn uri(caller: &Caller, subscription: usize, vault: usize) -> String {
    let vault = caller.cloud.estate().item(subscription, Kind::Vault, vault);
    vault["properties"]["vaultUri"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn vaults_list_keys_and_secrets_without_a_value() {
    let caller = start(Cloudsim::builder().keys(30).secrets(50)).await;
    let mut values = 0;
    for subscription in 0..3 {
        for vault in 0..2 {
            let uri = uri(&caller, subscription, vault);
            assert!(uri.starts_with(caller.cloud.url()) && uri.ends_with('/'), "{uri}");
            let vault_name = uri.trim_end_matches('/').rsplit('/').next().unwrap();
            // 50 is two full pages: an empty one follows.
            for (kind, path, pages) in [(Kind::VaultKey, "keys", 2), (Kind::VaultSecret, "secrets", 3)] {
                let (listed, count) = caller.list(&format!("{uri}{path}?api-version=7.4")).await;
                let truth: Vec<Value> = caller.cloud.estate().items_below(subscription, kind, vault).collect();
                assert_eq!(listed, truth);
                assert_eq!(count, pages);
                let name = if kind == Kind::VaultKey { "kid" } else { "id" };
                for item in &listed {
                    let start = format!("https://{vault_name}.vault.azure.net/{path}/");
                    assert!(item[name].as_str().unwrap().starts_with(&start), "{item}");
                    assert!(item.get("value").is_none() && item.get("key").is_none());
                    values += 1;
                }
            }
        }
    }
    assert_eq!(values, 6 * 80);
    let inventory = caller.cloud.inventory();
    assert_eq!((inventory.of(Kind::VaultKey), inventory.of(Kind::VaultSecret)), (180, 300));
    assert_eq!(caller.cloud.statistics().vault_requests, 6 * 5);
    let few = caller.get(&format!("{}keys?api-version=7.4&maxresults=3", uri(&caller, 0, 0))).await;
    assert_eq!(few.body["value"].as_array().unwrap().len(), 3);
    let short = start(Cloudsim::builder()).await;
    let last = short.get(&format!("{}keys?api-version=7.4", uri(&short, 0, 0))).await;
    assert_eq!(last.body.get("nextLink"), Some(&Value::Null));
}

#[tokio::test]
async fn a_token_is_for_one_of_the_two_services() {
    let mut caller = start(Cloudsim::builder()).await;
    let target = format!("{}secrets?api-version=7.4", uri(&caller, 0, 0));
    let arm = caller.get(&caller.nsgs_path(0)).await;
    assert_eq!((arm.status, arm.code()), (StatusCode::UNAUTHORIZED, "InvalidAuthenticationTokenAudience"));

    caller.sign_in().await;
    let vault = caller.get(&target).await;
    assert_eq!((vault.status, vault.code()), (StatusCode::UNAUTHORIZED, "Unauthorized"));
    assert!(vault.message().starts_with("AKV10022: Invalid audience."), "{}", vault.message());
    let challenge = format!(
        "Bearer authorization=\"{}/{}\", resource=\"https://vault.azure.net\"",
        caller.cloud.url(),
        caller.cloud.tenant()
    );
    assert_eq!(vault.header("www-authenticate"), challenge);
    let without = caller.http.get(&target).send().await.unwrap();
    assert_eq!(without.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(without.headers()["www-authenticate"].to_str().unwrap(), challenge);
}

#[tokio::test]
async fn a_vault_can_be_denied_by_policies_and_by_roles() {
    let caller = start(Cloudsim::builder().subscriptions(1).faults(|faults| {
        faults.ail(0, Kind::VaultSecret, 0, Ailment::Denied);
        faults.ail(0, Kind::VaultKey, 1, Ailment::Denied);
    }))
    .await;
    let get = async |vault, path: &str| caller.get(&format!("{}{path}?api-version=7.4", uri(&caller, 0, vault))).await;
    let by_policy = get(0, "secrets").await;
    assert_eq!((by_policy.status, by_policy.code()), (StatusCode::FORBIDDEN, "Forbidden"));
    assert_eq!(by_policy.body["error"]["innererror"]["code"], "AccessDenied");
    assert!(
        by_policy.message().contains("does not have secrets list permission on key vault 'kv-"),
        "{}",
        by_policy.message()
    );
    let by_role = get(1, "keys").await;
    assert_eq!(by_role.body["error"]["innererror"]["code"], "ForbiddenByRbac");
    assert!(by_role.message().contains("'Microsoft.KeyVault/vaults/keys/read'"), "{}", by_role.message());
    assert_eq!([get(0, "keys").await.status, get(1, "secrets").await.status], [StatusCode::OK; 2]);
    let readable = caller.cloud.readable_inventory();
    assert_eq!((readable.of(Kind::VaultKey), readable.of(Kind::VaultSecret), readable.of(Kind::Vault)), (3, 3, 2));
}

#[tokio::test]
async fn faults_hold_for_vaults_too() {
    let caller = start(Cloudsim::builder().subscriptions(1).keys(4).page_size(3)).await;
    let target = format!("{}keys?api-version=7.4", uri(&caller, 0, 0));
    caller.cloud.faults(|faults| faults.throttle_every = 1);
    let throttled = caller.get(&target).await;
    assert_eq!((throttled.status, throttled.code()), (StatusCode::TOO_MANY_REQUESTS, "Throttled"));
    assert_eq!(throttled.header("retry-after"), "1");
    caller.cloud.faults(|faults| {
        faults.throttle_every = 0;
        faults.fail_every = 1;
    });
    assert_eq!(caller.get(&target).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    caller.cloud.faults(|faults| faults.fail_every = 0);
    let nobody = caller.get(&target.replace("-1/keys", "-9/keys")).await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    let value = caller.get(&target.replace("/keys?", "/keys/key1?")).await;
    assert_eq!(value.status, StatusCode::NOT_FOUND);
    let none = caller.get(target.split('?').next().unwrap()).await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
    caller.cloud.expire_tokens();
    assert_eq!(caller.get(&target).await.status, StatusCode::UNAUTHORIZED);
}
