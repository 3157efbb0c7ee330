//! The plugin `AzDisk`: managed disks, attached or not.
//!
//! The list has all that a record needs; there is no call for each disk.
//!
//! Reference: <https://learn.microsoft.com/rest/api/compute/disks/list>, the definition `Disk`.

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
    name: "cloudmarker.clouds.azdisk.AzDisk",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(&|params| super::engine::check(&PLUGIN, params)),
};

const NAME: &str = "disk";

/// What it reads.
pub(super) const PLUGIN: Plugin = Plugin {
    lists: &[List {
        name: NAME,
        base: Base::Subscription,
        path: "/providers/Microsoft.Compute/disks",
        api_version: "2023-10-02",
        retired: false,
        items: Items::Records(records),
    }],
    emits_subscriptions: false,
};

/// A disk, in the shape of the API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Disk<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    managed_by: Option<Text<'a>>,
    /// A shared disk has many machines, and they stand here.
    #[serde(borrow)]
    managed_by_extended: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    properties: Option<Properties<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties<'a> {
    #[serde(borrow)]
    disk_state: Option<Text<'a>>,
    encryption_settings_collection: Option<EncryptionSettings>,
    #[serde(borrow)]
    encryption: Option<Encryption<'a>>,
    #[serde(borrow)]
    security_profile: Option<SecurityProfile<'a>>,
    #[serde(borrow)]
    network_access_policy: Option<Text<'a>>,
    #[serde(borrow)]
    public_network_access: Option<Text<'a>>,
}

/// Azure Disk Encryption.
#[derive(Debug, Deserialize)]
struct EncryptionSettings {
    enabled: Option<bool>,
}

/// Encryption by the storage service.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encryption<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    disk_encryption_set_id: Option<Text<'a>>,
}

/// What disks of confidential machines have.
#[derive(Debug, Deserialize)]
struct SecurityProfile<'a> {
    #[serde(borrow, rename = "secureVMDiskEncryptionSetId")]
    disk_encryption_set_id: Option<Text<'a>>,
}

/// The record of a disk.
fn records(item: Item<'_>) -> Result<Made<'_>, Malformed> {
    let disk: Disk<'_> = answer::item("a disk", item.raw)?;
    let id = checked_id("a disk", disk.id)?;
    let owners = disk.managed_by.iter().chain(disk.managed_by_extended.iter().flatten());
    let is_attached = owners.into_iter().any(|owner| !owner.is_empty());
    let properties = disk.properties.unwrap_or_default();
    let encryption = properties.encryption.unwrap_or_default();
    let confidential = properties.security_profile.and_then(|profile| profile.disk_encryption_set_id);
    let ext = Fields::new()
        .with("disk_type", if is_attached { "attached" } else { "unattached" })
        .with("disk_state", properties.disk_state)
        .with(
            "azure_disk_encryption_enabled",
            properties.encryption_settings_collection.and_then(|settings| settings.enabled),
        )
        .with("encryption_type", encryption.kind)
        .with("encryption_set", encryption.disk_encryption_set_id.or_else(|| confidential.clone()))
        .with("secure_vm_encryption_set", confidential)
        .with("network_access_policy", properties.network_access_policy)
        .with("public_network_access", properties.public_network_access);
    Ok(Made::one(Record { ext, ..Record::of(NAME, Some("disk"), id, item.raw) }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::vectors::{one, raw, refuses_flaws};
    use super::*;

    fn made(disk: &Value) -> Value {
        one(records(Item { raw: &raw(disk), parent: "" }))
    }

    #[test]
    fn today_a_disk_says_how_it_is_encrypted_and_reached() {
        let disk = json!({"id": "/d", "managedBy": "/vm", "properties": {
            "diskState": "Attached", "encryptionSettingsCollection": {"enabled": true, "encryptionSettings": []},
            "encryption": {"type": "EncryptionAtRestWithCustomerKey", "diskEncryptionSetId": "/set"},
            "networkAccessPolicy": "DenyAll", "publicNetworkAccess": "Disabled"}});
        let record = made(&disk);
        assert_eq!(record["raw"], disk);
        assert_eq!(record["com"], json!({"cloud_type": "azure", "record_type": "disk", "reference": "/d"}));
        for (field, value) in [
            ("disk_type", json!("attached")),
            ("disk_state", json!("Attached")),
            ("azure_disk_encryption_enabled", json!(true)),
            ("encryption_type", json!("EncryptionAtRestWithCustomerKey")),
            ("encryption_set", json!("/set")),
            ("network_access_policy", json!("DenyAll")),
            ("public_network_access", json!("Disabled")),
        ] {
            assert_eq!(record["ext"][field], value, "{field}");
        }
    }

    #[test]
    fn a_shared_disk_is_attached_and_a_confidential_one_has_a_set() {
        let disk = json!({"id": "/d", "managedBy": null, "managedByExtended": ["/vm1", "/vm2"], "properties": {
            "encryption": {"type": "EncryptionAtRestWithPlatformKey"}, "securityProfile": {
            "securityType": "ConfidentialVM_DiskEncryptedWithCustomerKey", "secureVMDiskEncryptionSetId": "/set"}}});
        let record = made(&disk);
        assert_eq!(record["ext"]["disk_type"], "attached");
        assert_eq!(record["ext"]["encryption_set"], "/set");
        assert_eq!(record["ext"]["secure_vm_encryption_set"], "/set");
        assert_eq!(made(&json!({"id": "/d", "managedByExtended": []}))["ext"]["disk_type"], "unattached");
    }

    #[test]
    fn what_is_missing_or_null_is_null() {
        let nulls = json!({"diskState": null, "encryptionSettingsCollection": null, "encryption": null,
            "securityProfile": null, "networkAccessPolicy": null, "publicNetworkAccess": null});
        for disk in [json!({"id": "/d"}), json!({"id": "/d", "managedByExtended": null, "properties": nulls})] {
            let record = made(&disk);
            for field in [
                "disk_state",
                "azure_disk_encryption_enabled",
                "encryption_type",
                "encryption_set",
                "secure_vm_encryption_set",
            ] {
                assert_eq!(record["ext"].get(field), Some(&Value::Null), "{field}");
            }
        }
    }

    #[test]
    fn what_is_wrong_costs_the_disk() {
        let good = json!({"id": "/d", "managedBy": "/vm", "managedByExtended": ["/vm"], "properties": {
            "diskState": "Attached", "encryptionSettingsCollection": {"enabled": true},
            "encryption": {"type": "T", "diskEncryptionSetId": "/set"},
            "securityProfile": {"secureVMDiskEncryptionSetId": "/set"},
            "networkAccessPolicy": "DenyAll", "publicNetworkAccess": "Disabled"}});
        refuses_flaws(&good, |disk| records(Item { raw: &raw(disk), parent: "" }).map(drop));
    }
}
