//! Makes our records of the vectors' records.
//!
//! The vectors show `raw` as the Python SDK has it; the collector's `azure_attributes.json` says how the API calls the
//! same, by the SDK's own models. Members of `ext` that rules read and that the Python tool did not have yet are
//! derived of `raw`, as the collector does.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

const ATTRIBUTES: &str = include_str!("../../../collector/tests/data/azure_attributes.json");

/// The attributes of the SDK's models: model, attribute, its place in the API's JSON and, if it has one, its model.
type Attributes = BTreeMap<String, BTreeMap<String, Vec<String>>>;

fn attributes() -> &'static Attributes {
    static READ: OnceLock<Attributes> = OnceLock::new();
    READ.get_or_init(|| serde_json::from_str(ATTRIBUTES).unwrap())
}

/// The models of the resources that the plugins look at.
fn model(plugin: &str) -> Option<&'static str> {
    Some(match plugin {
        "AzVMOSDiskEncryptionEvent" | "AzVMDataDiskEncryptionEvent" | "AzVMExtensionEvent" => "VirtualMachine",
        "AzSQLDatabaseTDEEvent" => "Database",
        "AzKVNonRecoverableEvent" => "Vault",
        "AzKVKeyNoExpiryEvent" => "KeyItem",
        "AzKVSecretNoExpiryEvent" => "SecretItem",
        _ if plugin.starts_with("AzPostgres") => "PostgresServer",
        _ if plugin.starts_with("AzLogProfile") => "LogProfileResource",
        _ if plugin.starts_with("AzStorageAccount") => "StorageAccount",
        _ if plugin.starts_with("AzWebApp") => "Site",
        _ => return None,
    })
}

/// The API's form of a resource of the SDK. What the models do not know, as in the records of other plugins, stays.
fn rest(model: &str, resource: &Value) -> Value {
    match resource {
        Value::Array(resources) => resources.iter().map(|resource| rest(model, resource)).collect(),
        Value::Object(members) => {
            let mut answer = Map::new();
            for (name, value) in members {
                let Some(attribute) = attributes()[model].get(name) else {
                    answer.insert(name.clone(), value.clone());
                    continue;
                };
                let value = attribute.get(1).map_or_else(|| value.clone(), |model| rest(model, value));
                match attribute[0].split_once('.') {
                    Some((outer, inner)) => {
                        let outer = answer.entry(outer).or_insert_with(|| json!({}));
                        outer.as_object_mut().unwrap().insert(inner.to_owned(), value);
                    }
                    None => {
                        answer.insert(attribute[0].clone(), value);
                    }
                }
            }
            answer.into()
        }
        other => other.clone(),
    }
}

/// The record of a vector in the form that it has here.
pub fn ours(plugin: &str, record: &Value) -> Value {
    let mut record = record.clone();
    let Some(model) = model(plugin) else { return record };
    let Some(raw) = record.get("raw") else { return record };
    let mut answer = rest(model, raw);
    if let Some(view) = raw.get("instance_view") {
        answer["instance_view"] = rest("VirtualMachineInstanceView", view);
    }
    record["raw"] = answer.clone();
    let derived = match model {
        "VirtualMachine" => machine(&answer),
        "LogProfileResource" if answer.is_object() => {
            vec![("categories", answer.pointer("/properties/categories").cloned().unwrap_or_default())]
        }
        _ => Vec::new(),
    };
    if let Some(ext) = record.get_mut("ext").and_then(Value::as_object_mut) {
        for (name, value) in derived {
            ext.entry(name).or_insert(value);
        }
    }
    record
}

/// Takes from an event's `ext` what was derived and the vector's record did not have.
pub fn without_derived(record: &Value, event: &mut Value) {
    for name in ["os_disk_name", "data_disks", "categories"] {
        if record["ext"].get(name).is_none()
            && let Some(ext) = event["ext"].as_object_mut()
        {
            ext.remove(name);
        }
    }
}

/// What the collector says of a machine's disks, but for the kind of encryption that it has: the vectors' flags decide.
fn machine(answer: &Value) -> Vec<(&'static str, Value)> {
    let os_disk = answer.pointer("/properties/storageProfile/osDisk/name").cloned().unwrap_or_default();
    let Some(disks) = answer.pointer("/instance_view/disks").and_then(Value::as_array) else {
        return vec![("os_disk_name", os_disk)];
    };
    let described = |disk: &Value| {
        let settings = disk["encryptionSettings"].as_array().cloned().unwrap_or_default();
        let said: Vec<bool> = settings.iter().filter_map(|settings| settings["enabled"].as_bool()).collect();
        let encrypted = match said.is_empty() && !settings.is_empty() {
            true => Value::Null,
            false => json!(said.contains(&true)),
        };
        json!({"name": disk["name"], "encrypted": encrypted})
    };
    let data_disks = disks.iter().filter(|disk| disk["name"] != os_disk).map(described).collect();
    vec![("os_disk_name", os_disk), ("data_disks", data_disks)]
}
