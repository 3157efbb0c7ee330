//! The plugin `AzKV`: key vaults, and the attributes of their secrets and keys. A value is never asked for.
//!
//! Reference: <https://learn.microsoft.com/rest/api/keyvault/keyvault/vaults/list-by-subscription>, the definition
//! `Vault`; and, with the vault's own token, <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secrets/get-secrets>
//! and <https://learn.microsoft.com/rest/api/keyvault/keys/get-keys/get-keys>, the definitions `SecretItem` and
//! `KeyItem`.

use std::borrow::Cow;

use proto::catalogue::PluginClass;
use proto::plan::Stage;
use proto::record::Text;
use proto::subject::Role;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;
use super::resource::{Made, Malformed, Record, checked_id};
use super::service::{Base, Item, Items, List, Plugin};
use crate::fields::Fields;

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.azkv.AzKV",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(&|params| super::engine::check(&PLUGIN, params)),
};

const VAULT: &str = "key_vault";
const SECRET: &str = "key_vault_secret";
const KEY: &str = "key_vault_key";
/// The version of the vaults' own API.
const VAULT_API_VERSION: &str = "7.4";

/// What it reads.
pub(super) const PLUGIN: Plugin = Plugin {
    lists: &[List {
        name: VAULT,
        base: Base::Subscription,
        path: "/providers/Microsoft.KeyVault/vaults",
        api_version: "2023-07-01",
        retired: false,
        items: Items::Lists(
            vault,
            &[
                List {
                    name: SECRET,
                    base: Base::Vault,
                    path: "secrets",
                    api_version: VAULT_API_VERSION,
                    retired: false,
                    items: Items::Records(secret),
                },
                List {
                    name: KEY,
                    base: Base::Vault,
                    path: "keys",
                    api_version: VAULT_API_VERSION,
                    retired: false,
                    items: Items::Records(key),
                },
            ],
        ),
    }],
    emits_subscriptions: false,
};

/// A vault, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Vault<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    properties: Option<VaultProperties<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VaultProperties<'a> {
    enable_soft_delete: Option<bool>,
    enable_purge_protection: Option<bool>,
    enable_rbac_authorization: Option<bool>,
    #[serde(borrow)]
    public_network_access: Option<Text<'a>>,
    #[serde(borrow)]
    network_acls: Option<NetworkAcls<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkAcls<'a> {
    #[serde(borrow)]
    default_action: Option<Text<'a>>,
}

/// Where a vault is reached. Apart from the rest: a vault without is still a record.
#[derive(Debug, Deserialize)]
struct Reachable<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    properties: Option<ReachableProperties<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReachableProperties<'a> {
    #[serde(borrow)]
    vault_uri: Option<Text<'a>>,
}

/// A secret, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Secret<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    attributes: Option<Attributes>,
    managed: Option<bool>,
}

/// A key, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Key<'a> {
    #[serde(borrow)]
    kid: Text<'a>,
    attributes: Option<Attributes>,
    managed: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
struct Attributes {
    enabled: Option<bool>,
    /// Seconds since 1970.
    exp: Option<i64>,
}

/// The URI of a vault: what its lists stand behind.
pub(super) fn vault_uri(raw: &RawValue) -> Result<Cow<'_, str>, Malformed> {
    let vault: Reachable<'_> = answer::item("a key vault", raw)?;
    match vault.properties.and_then(|properties| properties.vault_uri) {
        Some(Text(uri)) if !uri.is_empty() => Ok(uri),
        _ => Err(Malformed(format!("the key vault {} has no `vaultUri`", &*vault.id))),
    }
}

/// The record of a vault.
fn vault(item: Item<'_>) -> Result<Made<'_>, Malformed> {
    let vault: Vault<'_> = answer::item("a key vault", item.raw)?;
    let id = checked_id("a key vault", vault.id)?;
    let properties = vault.properties.unwrap_or_default();
    let soft_delete = properties.enable_soft_delete.unwrap_or(false);
    let purge_protection = properties.enable_purge_protection.unwrap_or(false);
    // Azure allows what no rule denies, so an action that is not told is `Allow`.
    let default_action = properties.network_acls.and_then(|acls| acls.default_action);
    let ext = Fields::new()
        .with("enable_soft_delete", soft_delete)
        .with("enable_purge_protection", purge_protection)
        .with("recoverable", soft_delete && purge_protection)
        .with("enable_rbac_authorization", properties.enable_rbac_authorization.unwrap_or(false))
        .with("public_network_access", properties.public_network_access)
        .with("default_network_access_allowed", default_action.is_none_or(|action| &*action == "Allow"));
    Ok(Made::one(Record { ext, ..Record::of(VAULT, Some(VAULT), id, item.raw) }))
}

/// The record of a secret.
fn secret(item: Item<'_>) -> Result<Made<'_>, Malformed> {
    let secret: Secret<'_> = answer::part("a secret", item.parent, item.raw)?;
    let id = checked_id("a secret", secret.id)?;
    Ok(entry(item, SECRET, id, secret.attributes, secret.managed))
}

/// The record of a key.
fn key(item: Item<'_>) -> Result<Made<'_>, Malformed> {
    let key: Key<'_> = answer::part("a key", item.parent, item.raw)?;
    let id = checked_id("a key", key.kid)?;
    Ok(entry(item, KEY, id, key.attributes, key.managed))
}

fn entry<'a>(
    item: Item<'a>,
    record_type: &'static str,
    id: Cow<'a, str>,
    attributes: Option<Attributes>,
    managed: Option<bool>,
) -> Made<'a> {
    let Attributes { enabled, exp } = attributes.unwrap_or_default();
    let ext = Fields::new()
        .with("vault_id", item.parent)
        .with("vault_name", answer::name_of(item.parent))
        .with("expiry_set", exp.is_some())
        .with("expires", exp)
        .with("enabled", enabled)
        .with("managed", managed.unwrap_or(false))
        .with("reference", id.clone());
    Made::one(Record { ext, ..Record::of(record_type, Some(record_type), id, item.raw) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::service::Maker;
    use super::super::vectors::{one, raw, refuses_flaws};
    use super::*;

    const PARENT: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/Kv1";

    fn made(vault_json: &Value) -> Value {
        one(vault(Item { raw: &raw(vault_json), parent: "" }))
    }

    fn made_below(maker: Maker, entry: &Value) -> Value {
        one(maker(Item { raw: &raw(entry), parent: PARENT }))
    }

    #[test]
    fn who_may_reach_a_vault_is_said() {
        for (properties, allowed) in [
            (json!({}), true),
            (json!({"networkAcls": null}), true),
            (json!({"networkAcls": {}}), true),
            (json!({"networkAcls": {"defaultAction": "Allow", "bypass": "AzureServices"}}), true),
            (json!({"networkAcls": {"defaultAction": "Deny"}}), false),
        ] {
            let record = made(&json!({"id": "/kv", "properties": properties}));
            assert_eq!(record["ext"]["default_network_access_allowed"], json!(allowed), "{properties}");
            assert_eq!(record["ext"]["public_network_access"], Value::Null);
            assert_eq!(record["ext"]["enable_rbac_authorization"], false);
        }
        let record = made(&json!({"id": "/kv", "properties":
            {"publicNetworkAccess": "Disabled", "enableRbacAuthorization": true}}));
        assert_eq!(record["ext"]["public_network_access"], "Disabled");
        assert_eq!(record["ext"]["enable_rbac_authorization"], true);
        let record = made(&json!({"id": "/kv"}));
        assert_eq!(record["ext"]["recoverable"], false);
    }

    #[test]
    fn an_entry_names_its_vault_and_what_manages_it() {
        let secret_json = json!({"id": "https://kv1.vault.azure.net/secrets/s", "managed": true,
            "attributes": {"enabled": true, "exp": 1_893_456_000, "nbf": 5}});
        let record = made_below(secret, &secret_json);
        assert_eq!(record["raw"], secret_json);
        assert_eq!(record["com"]["reference"], "https://kv1.vault.azure.net/secrets/s");
        let ext = &record["ext"];
        assert_eq!((&ext["vault_id"], &ext["vault_name"]), (&json!(PARENT), &json!("Kv1")));
        assert_eq!((&ext["expires"], &ext["managed"]), (&json!(1_893_456_000), &json!(true)));
        let record = made_below(key, &json!({"kid": "https://kv1.vault.azure.net/keys/k"}));
        let ext = &record["ext"];
        assert_eq!(ext["reference"], "https://kv1.vault.azure.net/keys/k");
        assert_eq!((&ext["expires"], &ext["enabled"]), (&Value::Null, &Value::Null));
        assert_eq!((&ext["expiry_set"], &ext["managed"]), (&json!(false), &json!(false)));
        let nulls = json!({"kid": "/k", "attributes": {"exp": null, "enabled": null}, "managed": null});
        assert_eq!(made_below(key, &nulls)["ext"]["expiry_set"], false);
    }

    #[test]
    fn a_vault_is_reached_where_it_says() {
        let vault = raw(&json!({"id": "/kv", "properties": {"vaultUri": "https://kv1.vault.azure.net/"}}));
        assert_eq!(vault_uri(&vault).unwrap(), "https://kv1.vault.azure.net/");
        for bad in [
            json!({"id": "/kv"}),
            json!({"id": "/kv", "properties": {}}),
            json!({"id": "/kv", "properties": {"vaultUri": null}}),
            json!({"id": "/kv", "properties": {"vaultUri": ""}}),
        ] {
            assert_eq!(vault_uri(&raw(&bad)).unwrap_err().to_string(), "the key vault /kv has no `vaultUri`", "{bad}");
            assert!(made(&bad)["ext"].is_object());
        }
        assert!(vault_uri(&raw(&json!({"id": "/kv", "properties": {"vaultUri": 5}}))).is_err());
    }

    #[test]
    fn what_is_wrong_costs_itself_only() {
        let good = json!({"id": "/kv", "properties": {"enableSoftDelete": true, "enablePurgeProtection": true,
            "enableRbacAuthorization": true, "publicNetworkAccess": "Enabled",
            "networkAcls": {"defaultAction": "Deny"}}});
        let of = |maker: Maker, json: &Value| maker(Item { raw: &raw(json), parent: PARENT }).map(drop);
        refuses_flaws(&good, |json| of(vault, json));
        let attributes = json!({"enabled": true, "exp": 5});
        refuses_flaws(&json!({"id": "/s", "attributes": attributes, "managed": true}), |json| of(secret, json));
        refuses_flaws(&json!({"kid": "/k", "attributes": attributes, "managed": true}), |json| of(key, json));
        let error = of(key, &json!({"id": "/not-a-kid"})).unwrap_err().to_string();
        assert!(error.starts_with(&format!("a key of {PARENT} cannot be understood: ")), "{error}");
    }
}
