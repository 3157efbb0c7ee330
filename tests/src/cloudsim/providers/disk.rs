//! Managed disks, in the shape of the API version 2023-10-02.

use serde_json::{Value, json};

use super::{Definition, End, Form, SetSome, Shape};

pub(in crate::cloudsim) const DISK: Definition = Definition {
    namespace: "Microsoft.Compute",
    types: &["disks"],
    parent: None,
    form: Form::Pages { token: "$skiptoken", end: End::Absent },
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Compute/disks/disk{n}",
    permission: "Microsoft.Compute/disks/read",
    generate: disk,
};

fn disk(shape: &mut Shape<'_>) -> Value {
    // The machines of this shape have disks outside of managed storage, so this one belongs to none.
    let is_attached = !shape.is(7, 8);
    let state = match (is_attached, shape.is(3, 5)) {
        (false, _) => "Unattached",
        (true, true) => "Reserved",
        (true, false) => "Attached",
    };
    let mut disk = json!({
        "id": DISK.id,
        "name": "disk{n}",
        "type": "Microsoft.Compute/disks",
        "location": shape.location(),
        "sku": {"name": shape.pick(&["Premium_LRS", "StandardSSD_LRS", "Standard_LRS"]), "tier": "Premium"},
        "properties": {
            "osType": if shape.is(1, 3) { "Windows" } else { "Linux" },
            "hyperVGeneration": "V2",
            "creationData": {"createOption": "FromImage", "imageReference": {
                "id": "/Subscriptions/{s}/Providers/Microsoft.Compute/Locations/westeurope/Publishers/Canonical/ArtifactTypes/VMImage/Offers/0001-com-ubuntu-server-jammy/Skus/22_04-lts-gen2/Versions/22.04.202406140",
            }},
            "diskSizeGB": 30,
            "diskSizeBytes": 32_213_303_296_u64,
            "diskIOPSReadWrite": 500,
            "diskMBpsReadWrite": 60,
            "encryption": encryption(shape),
            "diskState": state,
            "provisioningState": "Succeeded",
            "timeCreated": "2024-06-27T01:02:39.2043547+00:00",
            "uniqueId": "{0}",
        },
    });
    disk.set("tags", shape.tags());
    disk.set("zones", shape.is(1, 4).then(|| json!(["1"])));
    let machine = "/subscriptions/{s}/resourceGroups/RG{g}/providers/Microsoft.Compute/virtualMachines/vm{n}";
    disk.set("managedBy", is_attached.then_some(machine));
    if let Some(properties) = disk.get_mut("properties") {
        properties.set("encryptionSettingsCollection", disk_encryption(shape));
        // Disks from before network access policies do not say.
        if !shape.is(2, 4) {
            properties.set("networkAccessPolicy", Some(shape.turn(&["AllowAll", "DenyAll", "AllowPrivate"])));
            properties.set("publicNetworkAccess", Some(shape.turn(&["Enabled", "Disabled"])));
        }
    }
    disk
}

fn encryption(shape: &Shape<'_>) -> Value {
    let set = "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Compute/diskEncryptionSets/des1";
    match shape.variant % 5 {
        2 => json!({"type": "EncryptionAtRestWithCustomerKey", "diskEncryptionSetId": set}),
        4 => json!({"type": "EncryptionAtRestWithPlatformAndCustomerKeys", "diskEncryptionSetId": set}),
        _ => json!({"type": "EncryptionAtRestWithPlatformKey"}),
    }
}

/// Azure Disk Encryption: on, off, or never thought of.
fn disk_encryption(shape: &Shape<'_>) -> Option<Value> {
    match shape.variant % 4 {
        0 => Some(json!({
            "enabled": true,
            "encryptionSettings": [{"diskEncryptionKey": {
                "sourceVault": {"id": "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.KeyVault/vaults/kv-{h}-1"},
                "secretUrl": "https://kv-{h}-1.vault.azure.net/secrets/{2}/1",
            }}],
            "encryptionSettingsVersion": "1.1",
        })),
        2 => Some(json!({"enabled": false})),
        _ => None,
    }
}
