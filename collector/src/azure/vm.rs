//! The plugin `AzVM`: virtual machines with their instance views: power state, extensions, and how the disks are
//! encrypted.
//!
//! Reference: <https://learn.microsoft.com/rest/api/compute/virtual-machines/list-all> and
//! <https://learn.microsoft.com/rest/api/compute/virtual-machines/instance-view>, the definitions `VirtualMachine` and
//! `VirtualMachineInstanceView`.

use std::borrow::Cow;

use proto::catalogue::PluginClass;
use proto::plan::Stage;
use proto::record::Text;
use proto::subject::Role;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;
use super::resource::{Made, Malformed, Raw, Record, checked_id, joined};
use super::service::{Base, Detail, Item, Items, List, Plugin};
use crate::fields::Fields;

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.azvm.AzVM",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(&|params| super::engine::check(&PLUGIN, params)),
};

const NAME: &str = "vm_instance_view";
const API_VERSION: &str = "2024-07-01";

/// What it reads.
pub(super) const PLUGIN: Plugin = Plugin {
    lists: &[List {
        name: NAME,
        base: Base::Subscription,
        path: "/providers/Microsoft.Compute/virtualMachines",
        api_version: API_VERSION,
        retired: false,
        items: Items::Details(&Detail {
            path: "/instanceView",
            api_version: API_VERSION,
            is_list: false,
            maker: records,
        }),
    }],
    emits_subscriptions: false,
};

/// A machine, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Machine<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    properties: Option<MachineProperties<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MachineProperties<'a> {
    #[serde(borrow)]
    storage_profile: Option<StorageProfile<'a>>,
    security_profile: Option<SecurityProfile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecurityProfile {
    encryption_at_host: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StorageProfile<'a> {
    #[serde(borrow)]
    os_disk: Option<Disk<'a>>,
    #[serde(borrow)]
    data_disks: Option<Vec<Disk<'a>>>,
}

/// A disk as the machine has it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Disk<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    /// A disk without is a page blob in a storage account: unmanaged.
    #[serde(borrow)]
    managed_disk: Option<ManagedDisk<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedDisk<'a> {
    #[serde(borrow)]
    disk_encryption_set: Option<EncryptionSet<'a>>,
    /// Confidential machines have their set here.
    #[serde(borrow)]
    security_profile: Option<DiskSecurityProfile<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiskSecurityProfile<'a> {
    #[serde(borrow)]
    disk_encryption_set: Option<EncryptionSet<'a>>,
}

#[derive(Debug, Deserialize)]
struct EncryptionSet<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

/// What a machine is at this moment, in the shape of the API.
#[derive(Debug, Deserialize)]
struct InstanceView<'a> {
    #[serde(borrow)]
    statuses: Option<Vec<Status<'a>>>,
    #[serde(borrow)]
    disks: Option<Vec<DiskView<'a>>>,
    #[serde(borrow)]
    extensions: Option<Vec<Extension<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    code: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct Extension<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiskView<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    encryption_settings: Option<Vec<EncryptionSettings>>,
}

/// Settings of Azure Disk Encryption.
#[derive(Debug, Deserialize)]
struct EncryptionSettings {
    enabled: Option<bool>,
}

impl DiskView<'_> {
    /// What the first settings say, as the Python tool has it.
    fn first_enabled(&self) -> Option<bool> {
        self.encryption_settings.as_deref().and_then(<[_]>::first).map_or(Some(false), |first| first.enabled)
    }

    /// Whether any settings are enabled; `None` when there are some and they do not say.
    fn any_enabled(&self) -> Option<bool> {
        let settings = self.encryption_settings.as_deref().unwrap_or_default();
        if settings.is_empty() {
            return Some(false);
        }
        settings.iter().filter_map(|settings| settings.enabled).reduce(|any, enabled| any || enabled)
    }
}

impl<'a> Disk<'a> {
    fn encryption_set(&self) -> Option<&Cow<'a, str>> {
        let managed = self.managed_disk.as_ref()?;
        let confidential = || managed.security_profile.as_ref()?.disk_encryption_set.as_ref();
        let set = managed.disk_encryption_set.as_ref().or_else(confidential)?;
        set.id.as_ref().map(|Text(id)| id)
    }
}

/// What protects a disk at rest: the first that holds. `None` when nothing is known of the disk.
fn encryption(disk: Option<&Disk<'_>>, azure_disk_encryption: bool, at_host: bool) -> Option<&'static str> {
    match disk {
        _ if azure_disk_encryption => Some("azure_disk_encryption"),
        _ if at_host => Some("encryption_at_host"),
        Some(disk) if disk.encryption_set().is_some() => Some("customer_managed_key"),
        Some(Disk { managed_disk: Some(_), .. }) => Some("platform_managed_key"),
        Some(_) => Some("none"),
        None => None,
    }
}

/// What is said of a data disk: as the machine has it, and whether the view says that Azure Disk Encryption is on.
fn data_disk<'a>(
    name: Option<Text<'a>>,
    disk: Option<&Disk<'a>>,
    azure_disk_encryption: Option<bool>,
    at_host: bool,
) -> Fields<'a> {
    Fields::new()
        .with("name", name)
        .with("encrypted", azure_disk_encryption)
        .with("encryption", encryption(disk, azure_disk_encryption == Some(true), at_host))
        .with("encryption_set", disk.and_then(Disk::encryption_set).cloned())
}

/// The record of a machine and its instance view.
fn records<'a>(item: Item<'a>, answer: &'a RawValue) -> Result<Made<'a>, Malformed> {
    let machine: Machine<'a> = answer::item("a virtual machine", item.raw)?;
    let id = checked_id("a virtual machine", machine.id)?;
    let view: InstanceView<'a> = answer::part("the instance view", &id, answer)?;
    let raw = joined(item.raw, "instance_view", answer)?;
    let properties = machine.properties.unwrap_or_default();
    let at_host = properties.security_profile.and_then(|profile| profile.encryption_at_host).unwrap_or(false);
    // Without it, nobody knows which disks there are, nor which of those in the view is that of the OS.
    let are_disks_known = properties.storage_profile.is_some();
    let storage = properties.storage_profile.unwrap_or_default();
    let os_disk = storage.os_disk.as_ref();
    let os_disk_name = os_disk.and_then(|disk| disk.name.as_deref());
    let data_disks = storage.data_disks.as_deref().unwrap_or_default();

    let (mut os_disk_encrypted, mut all_data_disks_encrypted) = (None, None);
    let mut os_azure_disk_encryption = false;
    let mut views = Vec::new();
    for view in view.disks.unwrap_or_default() {
        let first = view.first_enabled();
        // A machine and a disk that both have no name go together, as in the Python tool.
        if view.name.as_deref() == os_disk_name {
            os_disk_encrypted = Some(first);
            os_azure_disk_encryption = view.any_enabled() == Some(true);
            continue;
        }
        if matches!(all_data_disks_encrypted, None | Some(Some(true))) {
            all_data_disks_encrypted = Some(first);
        }
        views.push(view);
    }
    // The view of a machine may lack disks that the machine has, and the other way round while one is detached.
    let mut described = Vec::new();
    for disk in data_disks {
        let name = disk.name.as_deref();
        let seen = views.iter().position(|view| name.is_some() && view.name.as_deref() == name);
        let any = seen.and_then(|place| views.remove(place).any_enabled());
        described.push(data_disk(disk.name.clone(), Some(disk), any, at_host));
    }
    for view in views {
        let any = view.any_enabled();
        described.push(data_disk(view.name, None, any, at_host));
    }

    let mut ext = Fields::new();
    if let Some(power_state) = view.statuses.and_then(power_state) {
        ext.set("power_state", power_state);
    }
    ext.set("os_disk_name", os_disk.and_then(|disk| disk.name.clone()));
    if let Some(encrypted) = os_disk_encrypted {
        ext.set("os_disk_encrypted", encrypted);
    }
    if let Some(encrypted) = all_data_disks_encrypted {
        ext.set("all_data_disks_encrypted", encrypted);
    }
    ext.set("os_disk_encryption", encryption(os_disk, os_azure_disk_encryption, at_host));
    ext.set("encryption_at_host", at_host);
    ext.set("os_disk_encryption_set", os_disk.and_then(Disk::encryption_set).cloned());
    ext.set("data_disks", are_disks_known.then_some(described));
    let names = view.extensions.unwrap_or_default().into_iter().filter_map(|extension| extension.name);
    ext.set("extensions", names.collect::<Vec<_>>());
    let com = Fields::new();
    Ok(Made::one(Record { record_type: NAME, common_type: Some("compute"), id, raw: Raw::Joined(raw), ext, com }))
}

/// `running`, `deallocated`, ...: the last that is told.
fn power_state(statuses: Vec<Status<'_>>) -> Option<String> {
    let mut codes = statuses.into_iter().rev().filter_map(|status| status.code);
    codes.find_map(|code| code.strip_prefix("PowerState/").map(str::to_lowercase))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::vectors::{one, raw, refuses_flaws};
    use super::*;

    fn made(machine: &Value, view: &Value) -> Value {
        one(records(Item { raw: &raw(machine), parent: "" }, &raw(view)))
    }

    fn machine(os_disk: &Value, data_disks: &Value, security: &Value) -> Value {
        json!({"id": "/vm", "properties": {"storageProfile": {"osDisk": os_disk, "dataDisks": data_disks},
            "securityProfile": security}})
    }

    #[test]
    fn what_protects_the_os_disk_is_the_first_that_holds() {
        let set = json!({"name": "os", "managedDisk": {"diskEncryptionSet": {"id": "/set"}}});
        let confidential =
            json!({"name": "os", "managedDisk": {"securityProfile": {"diskEncryptionSet": {"id": "/set"}}}});
        let managed = json!({"name": "os", "managedDisk": {"id": "/disk", "diskEncryptionSet": null}});
        let unmanaged = json!({"name": "os", "vhd": {"uri": "https://sa.blob.core.windows.net/vhds/os.vhd"}});
        let (at_host, not_at_host) = (json!({"encryptionAtHost": true}), json!({"encryptionAtHost": false}));
        let encrypted = json!({"disks": [{"name": "os", "encryptionSettings": [{"enabled": true}]}]});
        let twice = json!({"disks": [{"name": "os", "encryptionSettings": [{"enabled": false}, {"enabled": true}]}]});
        let plain = json!({"disks": [{"name": "os"}]});
        for (disk, security, view, kind, set) in [
            (&set, &at_host, &encrypted, json!("azure_disk_encryption"), json!("/set")),
            (&set, &at_host, &twice, json!("azure_disk_encryption"), json!("/set")),
            (&set, &at_host, &plain, json!("encryption_at_host"), json!("/set")),
            (&set, &not_at_host, &plain, json!("customer_managed_key"), json!("/set")),
            (&confidential, &Value::Null, &plain, json!("customer_managed_key"), json!("/set")),
            (&managed, &Value::Null, &plain, json!("platform_managed_key"), Value::Null),
            (&managed, &json!({}), &json!({}), json!("platform_managed_key"), Value::Null),
            (&unmanaged, &not_at_host, &plain, json!("none"), Value::Null),
            (&Value::Null, &Value::Null, &plain, Value::Null, Value::Null),
        ] {
            let record = made(&machine(disk, &json!([]), security), view);
            assert_eq!(record["ext"]["os_disk_encryption"], kind, "{disk} {security} {view}");
            assert_eq!(record["ext"]["os_disk_encryption_set"], set, "{disk}");
            assert_eq!(record["ext"]["encryption_at_host"], json!(security == &at_host));
        }
    }

    #[test]
    fn each_data_disk_is_described() {
        let disks = json!([
            {"name": "set", "managedDisk": {"diskEncryptionSet": {"id": "/set"}}},
            {"name": "managed", "managedDisk": {}},
            {"name": "ade", "managedDisk": {}},
            {"name": "blob", "vhd": {}},
            {"managedDisk": {}},
        ]);
        let view = json!({"disks": [
            {"name": "os"},
            {"name": "set"},
            {"name": "managed", "encryptionSettings": [{}]},
            {"name": "ade", "encryptionSettings": [{"enabled": null}, {"enabled": false}, {"enabled": true}]},
            {"name": "blob", "encryptionSettings": [{"enabled": false}]},
            {"name": "gone", "encryptionSettings": []},
            {},
        ]});
        let record = made(&machine(&json!({"name": "os", "managedDisk": {}}), &disks, &Value::Null), &view);
        assert_eq!(
            record["ext"]["data_disks"],
            json!([
                {"name": "set", "encrypted": false, "encryption": "customer_managed_key", "encryption_set": "/set"},
                {"name": "managed", "encrypted": null, "encryption": "platform_managed_key", "encryption_set": null},
                {"name": "ade", "encrypted": true, "encryption": "azure_disk_encryption", "encryption_set": null},
                {"name": "blob", "encrypted": false, "encryption": "none", "encryption_set": null},
                {"name": null, "encrypted": null, "encryption": "platform_managed_key", "encryption_set": null},
                {"name": "gone", "encrypted": false, "encryption": null, "encryption_set": null},
                {"name": null, "encrypted": false, "encryption": null, "encryption_set": null},
            ])
        );
        assert_eq!(record["ext"]["os_disk_name"], "os");
        assert_eq!(record["ext"]["all_data_disks_encrypted"], false);
        let at_host = machine(&json!({"name": "os"}), &disks, &json!({"encryptionAtHost": true}));
        let record = made(&at_host, &view);
        assert_eq!(record["ext"]["data_disks"][4]["encryption"], "encryption_at_host");
    }

    #[test]
    fn a_data_disk_that_the_view_does_not_show_is_not_left_out() {
        let disks = json!([
            {"name": "managed", "managedDisk": {}},
            {"name": "set", "managedDisk": {"diskEncryptionSet": {"id": "/set"}}},
        ]);
        let machine = machine(&json!({"name": "os", "managedDisk": {}}), &disks, &Value::Null);
        for view in [json!({}), json!({"disks": null}), json!({"disks": []}), json!({"disks": [{"name": "os"}]})] {
            assert_eq!(
                made(&machine, &view)["ext"]["data_disks"],
                json!([
                    {"name": "managed", "encrypted": null, "encryption": "platform_managed_key", "encryption_set": null},
                    {"name": "set", "encrypted": null, "encryption": "customer_managed_key", "encryption_set": "/set"},
                ]),
                "{view}"
            );
        }
        let none = json!({"id": "/vm", "properties": {"storageProfile": {}}});
        assert_eq!(made(&none, &json!({}))["ext"]["data_disks"], json!([]));
        let unknown = json!({"id": "/vm", "properties": {}});
        assert_eq!(made(&unknown, &json!({"disks": [{"name": "d"}]}))["ext"]["data_disks"], Value::Null);
    }

    #[test]
    fn the_two_answers_stand_side_by_side_to_the_byte() {
        let machine = r#"{ "id":"\/vm", "properties":{"x":1.50} }"#;
        let view = r#"{"statuses":[ ], "y":1.0e2}"#;
        let (machine, view) =
            (RawValue::from_string(machine.into()).unwrap(), RawValue::from_string(view.into()).unwrap());
        let made = records(Item { raw: &machine, parent: "" }, &view).unwrap();
        assert_eq!(
            made.records[0].raw.get().unwrap().get(),
            r#"{ "id":"\/vm", "properties":{"x":1.50} ,"instance_view":{"statuses":[ ], "y":1.0e2}}"#
        );
        assert_eq!(made.records[0].id, "/vm");
    }

    #[test]
    fn what_is_missing_or_null_is_no_error() {
        for machine in [json!({"id": "/vm"}), json!({"id": "/vm", "properties": null})] {
            let record = made(&machine, &json!({"statuses": null, "disks": null, "extensions": null}));
            let ext = record["ext"].as_object().unwrap();
            assert!(!ext.contains_key("power_state") && !ext.contains_key("os_disk_encrypted"), "{record}");
            assert_eq!(ext["os_disk_name"], Value::Null);
            assert_eq!(ext["os_disk_encryption"], Value::Null);
            assert_eq!(ext["encryption_at_host"], false);
            assert_eq!((&ext["data_disks"], &ext["extensions"]), (&Value::Null, &json!([])));
        }
        let view = json!({"statuses": [{"code": null}, {}, {"code": "PowerState/Running"}, {"code": "other"}],
            "disks": [{"name": null, "encryptionSettings": null}], "extensions": [{"name": null}, {"name": "E"}]});
        let record = made(&json!({"id": "/vm"}), &view);
        assert_eq!(record["ext"]["power_state"], "running");
        assert_eq!(record["ext"]["extensions"], json!(["E"]));
        assert_eq!(record["ext"]["os_disk_encrypted"], false);
    }

    #[test]
    fn what_is_wrong_costs_the_machine_and_says_which() {
        let good = json!({"id": "/vm", "properties": {
            "storageProfile": {
                "osDisk": {"name": "os", "managedDisk": {"diskEncryptionSet": {"id": "/set"},
                    "securityProfile": {"diskEncryptionSet": {"id": "/set"}}}},
                "dataDisks": [{"name": "d", "managedDisk": {"diskEncryptionSet": {"id": "/set"}}}]},
            "securityProfile": {"encryptionAtHost": true}}});
        let view = json!({"statuses": [{"code": "PowerState/running"}],
            "disks": [{"name": "os", "encryptionSettings": [{"enabled": true}]}], "extensions": [{"name": "E"}]});
        let of = |machine: &Value, view: &Value| records(Item { raw: &raw(machine), parent: "" }, &raw(view)).map(drop);
        refuses_flaws(&good, |machine| of(machine, &view));
        refuses_flaws(&view, |view| of(&good, view));
        let error = of(&good, &json!({"disks": 5})).unwrap_err().to_string();
        assert!(error.starts_with("the instance view of /vm cannot be understood: "), "{error}");
    }
}
