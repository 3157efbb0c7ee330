//! The plugin `AzStorageAccount`: storage accounts, and who may reach them how.
//!
//! The list has all that a record needs; there is no call for each account.
//!
//! Reference: <https://learn.microsoft.com/rest/api/storagerp/storage-accounts/list>, the definition `StorageAccount`.

use proto::catalogue::PluginClass;
use proto::plan::Stage;
use proto::record::Text;
use proto::subject::Role;
use serde::Deserialize;

use super::answer;
use super::resource::{Made, Malformed, Record, checked_id};
use super::service::{Base, Item, Items, List, Plugin};
use crate::fields::Fields;

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.azstorageaccount.AzStorageAccount",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(&|params| super::engine::check(&PLUGIN, params)),
};

const NAME: &str = "storage_account_properties";

/// What it reads.
pub(super) const PLUGIN: Plugin = Plugin {
    lists: &[List {
        name: NAME,
        base: Base::Subscription,
        path: "/providers/Microsoft.Storage/storageAccounts",
        api_version: "2023-05-01",
        retired: false,
        items: Items::Records(records),
    }],
    emits_subscriptions: false,
};

/// An account, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Account<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    properties: Option<Properties<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties<'a> {
    supports_https_traffic_only: Option<bool>,
    #[serde(borrow)]
    network_acls: Option<NetworkAcls<'a>>,
    #[serde(borrow)]
    minimum_tls_version: Option<Text<'a>>,
    allow_blob_public_access: Option<bool>,
    allow_shared_key_access: Option<bool>,
    #[serde(borrow)]
    public_network_access: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkAcls<'a> {
    #[serde(borrow)]
    default_action: Option<Text<'a>>,
    /// A list with commas: `Logging, Metrics, AzureServices`.
    #[serde(borrow)]
    bypass: Option<Text<'a>>,
}

impl NetworkAcls<'_> {
    /// Azure allows what no rule denies, so an action that is not told is `Allow`.
    fn allows_by_default(&self) -> bool {
        self.default_action.as_deref().is_none_or(|action| action == "Allow")
    }

    fn trusts_azure_services(&self) -> bool {
        let bypass = self.bypass.as_deref().unwrap_or_default();
        bypass.split(',').any(|service| service.trim() == "AzureServices")
    }
}

/// The record of an account.
fn records(item: Item<'_>) -> Result<Made<'_>, Malformed> {
    let account: Account<'_> = answer::item("a storage account", item.raw)?;
    let id = checked_id("a storage account", account.id)?;
    let is_described = account.properties.is_some();
    let properties = account.properties.unwrap_or_default();
    // An account without network rules is open to all; of one without properties nothing is known.
    let acls = properties.network_acls;
    let allowed = is_described.then(|| acls.as_ref().is_none_or(NetworkAcls::allows_by_default));
    let trusted = is_described.then(|| acls.as_ref().is_none_or(NetworkAcls::trusts_azure_services));
    let ext = Fields::new()
        .with("secure_transfer_required", properties.supports_https_traffic_only)
        .with("default_network_access_allowed", allowed)
        .with("trusted_services_allowed", trusted)
        .with("minimum_tls_version", properties.minimum_tls_version)
        .with("allow_blob_public_access", properties.allow_blob_public_access)
        .with("allow_shared_key_access", properties.allow_shared_key_access)
        .with("public_network_access", properties.public_network_access);
    Ok(Made::one(Record { ext, ..Record::of(NAME, Some(NAME), id, item.raw) }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::vectors::{one, raw, refuses_flaws};
    use super::*;

    fn ext(properties: &Value) -> Value {
        let account = json!({"id": "/sa", "properties": properties});
        one(records(Item { raw: &raw(&account), parent: "" }))["ext"].clone()
    }

    #[test]
    fn who_may_reach_an_account_is_said() {
        for (acls, by_default, trusted) in [
            (Value::Null, true, true),
            (json!({}), true, false),
            (json!({"defaultAction": "Allow", "bypass": "None"}), true, false),
            (json!({"defaultAction": "Deny", "bypass": "AzureServices"}), false, true),
            (json!({"defaultAction": "Deny", "bypass": "Logging,AzureServices , Metrics"}), false, true),
            (json!({"defaultAction": "Deny", "bypass": "Logging, Metrics"}), false, false),
            (json!({"defaultAction": null, "bypass": null}), true, false),
        ] {
            let ext = ext(&json!({"networkAcls": acls}));
            assert_eq!(ext["default_network_access_allowed"], json!(by_default), "{acls}");
            assert_eq!(ext["trusted_services_allowed"], json!(trusted), "{acls}");
        }
    }

    #[test]
    fn today_an_account_says_more() {
        let full = ext(&json!({"supportsHttpsTrafficOnly": true, "minimumTlsVersion": "TLS1_2",
            "allowBlobPublicAccess": false, "allowSharedKeyAccess": true, "publicNetworkAccess": "Disabled"}));
        for (field, value) in [
            ("secure_transfer_required", json!(true)),
            ("minimum_tls_version", json!("TLS1_2")),
            ("allow_blob_public_access", json!(false)),
            ("allow_shared_key_access", json!(true)),
            ("public_network_access", json!("Disabled")),
        ] {
            assert_eq!(full[field], value, "{field}");
            for bare in [json!({}), Value::Null] {
                assert_eq!(ext(&bare).get(field), Some(&Value::Null), "{field}");
            }
        }
    }

    #[test]
    fn what_is_wrong_costs_the_account() {
        let good = json!({"id": "/sa", "properties": {"supportsHttpsTrafficOnly": true,
            "networkAcls": {"defaultAction": "Deny", "bypass": "None"}, "minimumTlsVersion": "TLS1_2",
            "allowBlobPublicAccess": false, "allowSharedKeyAccess": true, "publicNetworkAccess": "Disabled"}});
        refuses_flaws(&good, |account| records(Item { raw: &raw(account), parent: "" }).map(drop));
    }
}
