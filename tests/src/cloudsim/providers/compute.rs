//! Virtual machines and their instance views, in the shape of the API version 2024-07-01.

use serde_json::{Value, json};

use super::{Definition, End, Form, SetSome, Shape};
use crate::cloudsim::kind::Kind;

const PROVIDER: &str = "/subscriptions/{s}/resourceGroups/RG{g}/providers/Microsoft.Compute";

pub(in crate::cloudsim) const VIRTUAL_MACHINE: Definition = Definition {
    namespace: "Microsoft.Compute",
    types: &["virtualMachines"],
    parent: None,
    form: Form::Pages { token: "$skiptoken", end: End::Absent },
    // The provider writes the resource group in capitals here, and in small letters at the disks.
    id: "/subscriptions/{s}/resourceGroups/RG{g}/providers/Microsoft.Compute/virtualMachines/vm{n}",
    permission: "Microsoft.Compute/virtualMachines/read",
    generate: virtual_machine,
};

pub(in crate::cloudsim) const INSTANCE_VIEW: Definition = Definition {
    namespace: "Microsoft.Compute",
    types: &["virtualMachines", "instanceView"],
    parent: Some(Kind::VirtualMachine),
    form: Form::Detail(None),
    id: VIRTUAL_MACHINE.id,
    permission: "Microsoft.Compute/virtualMachines/instanceView/read",
    generate: instance_view,
};

/// Extensions by name, publisher and type.
const EXTENSIONS: [(&str, &str, &str); 4] = [
    ("AzureMonitorLinuxAgent", "Microsoft.Azure.Monitor", "AzureMonitorLinuxAgent"),
    ("AzureDiskEncryptionForLinux", "Microsoft.Azure.Security", "AzureDiskEncryptionForLinux"),
    ("MDE.Linux", "Microsoft.Azure.AzureDefenderForServers", "MDE.Linux"),
    ("CustomScript", "Microsoft.Azure.Extensions", "CustomScript"),
];

/// What a machine and its instance view must agree on.
struct Machine {
    is_windows: bool,
    /// Its disks are files in a storage account.
    is_unmanaged: bool,
    data_disks: usize,
    is_deallocated: bool,
    extensions: usize,
}

impl Machine {
    fn of(shape: &Shape<'_>) -> Self {
        Self {
            is_windows: shape.is(1, 3),
            is_unmanaged: shape.is(7, 8),
            data_disks: shape.variant % 3,
            is_deallocated: shape.is(3, 5),
            extensions: shape.variant % (EXTENSIONS.len() + 1),
        }
    }
}

fn data_disk_name(number: usize) -> String {
    format!("vm{{n}}_DataDisk_{number}")
}

fn virtual_machine(shape: &mut Shape<'_>) -> Value {
    let machine = Machine::of(shape);
    let mut virtual_machine = json!({
        "id": VIRTUAL_MACHINE.id,
        "name": "vm{n}",
        "type": "Microsoft.Compute/virtualMachines",
        "location": shape.location(),
        "properties": {
            "vmId": "{0}",
            "hardwareProfile": {"vmSize": shape.pick(&["Standard_D2s_v3", "Standard_B2ms", "Standard_E4ds_v5"])},
            "storageProfile": storage_profile(shape, &machine),
            "osProfile": os_profile(&machine),
            "networkProfile": {"networkInterfaces": [{
                "id": "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Network/networkInterfaces/nic{n}",
                "properties": {"primary": true},
            }]},
            "diagnosticsProfile": {"bootDiagnostics": {"enabled": shape.is(0, 2)}},
            "provisioningState": if shape.is(13, 24) { "Updating" } else { "Succeeded" },
            "timeCreated": "2024-06-27T01:02:38.3138469+00:00",
        },
        "etag": "\"{n}\"",
    });
    virtual_machine.set("tags", shape.tags());
    virtual_machine.set("zones", shape.is(1, 4).then(|| json!(["1"])));
    virtual_machine.set(
        "identity",
        shape.is(2, 4).then(|| json!({"type": "SystemAssigned", "principalId": "{1}", "tenantId": shape.tenant})),
    );
    let extensions: Vec<Value> = EXTENSIONS
        .iter()
        .take(machine.extensions)
        .map(|(name, ..)| json!({"id": format!("{}/extensions/{name}", VIRTUAL_MACHINE.id)}))
        .collect();
    virtual_machine.set("resources", (!extensions.is_empty()).then_some(extensions));
    if let Some(properties) = virtual_machine.get_mut("properties") {
        properties.set("securityProfile", security_profile(shape));
        properties.set("licenseType", (machine.is_windows && shape.is(1, 2)).then_some("Windows_Server"));
    }
    virtual_machine
}

/// Encryption at host: on, off, not said, or no profile at all.
fn security_profile(shape: &Shape<'_>) -> Option<Value> {
    match shape.variant % 4 {
        0 => None,
        1 => Some(json!({"encryptionAtHost": true})),
        2 => Some(json!({"encryptionAtHost": false})),
        _ => Some(json!({
            "securityType": "TrustedLaunch",
            "uefiSettings": {"secureBootEnabled": shape.is(3, 8), "vTpmEnabled": true},
        })),
    }
}

fn storage_profile(shape: &mut Shape<'_>, machine: &Machine) -> Value {
    let system = if machine.is_windows { "Windows" } else { "Linux" };
    let image = if machine.is_windows {
        json!({"publisher": "MicrosoftWindowsServer", "offer": "WindowsServer", "sku": "2022-datacenter-g2", "version": "latest", "exactVersion": "20348.2582.240619"})
    } else {
        json!({"publisher": "Canonical", "offer": "0001-com-ubuntu-server-jammy", "sku": "22_04-lts-gen2", "version": "latest", "exactVersion": "22.04.202406140"})
    };
    let set = format!("{PROVIDER}/diskEncryptionSets/des1");
    let mut os_disk = json!({
        "osType": system,
        "name": "disk{n}",
        "createOption": "FromImage",
        "caching": "ReadWrite",
        "diskSizeGB": 30,
        "deleteOption": if shape.is(0, 2) { "Delete" } else { "Detach" },
    });
    if machine.is_unmanaged {
        os_disk.set("vhd", Some(json!({"uri": "https://st{h}.blob.core.windows.net/vhds/vm{n}.vhd"})));
    } else {
        let mut disk = json!({
            "storageAccountType": shape.pick(&["Premium_LRS", "StandardSSD_LRS"]),
            "id": "/subscriptions/{s}/resourceGroups/RG{g}/providers/Microsoft.Compute/disks/disk{n}",
        });
        disk.set("diskEncryptionSet", shape.is(2, 5).then(|| json!({"id": set})));
        os_disk.set("managedDisk", Some(disk));
    }
    // Azure Disk Encryption of the old kind says so in the model, too.
    os_disk.set("encryptionSettings", shape.is(4, 12).then(|| json!({
        "enabled": true,
        "diskEncryptionKey": {
            "sourceVault": {"id": "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.KeyVault/vaults/kv-{h}-1"},
            "secretUrl": "https://kv-{h}-1.vault.azure.net/secrets/{2}/1",
        },
    })));
    let data_disks: Vec<Value> = (0..machine.data_disks)
        .map(|number| {
            let name = data_disk_name(number);
            let mut disk = json!({
                "lun": number,
                "name": name,
                "createOption": "Empty",
                "caching": "None",
                "diskSizeGB": 128,
                "toBeDetached": false,
            });
            if machine.is_unmanaged {
                disk.set("vhd", Some(json!({"uri": format!("https://st{{h}}.blob.core.windows.net/vhds/{name}.vhd")})));
            } else {
                let id = format!("{PROVIDER}/disks/{name}");
                let mut managed = json!({"storageAccountType": "Premium_LRS", "id": id});
                managed.set("diskEncryptionSet", (number == 1 && shape.is(2, 4)).then(|| json!({"id": set})));
                disk.set("managedDisk", Some(managed));
            }
            disk
        })
        .collect();
    json!({"imageReference": image, "osDisk": os_disk, "dataDisks": data_disks, "diskControllerType": "SCSI"})
}

fn os_profile(machine: &Machine) -> Value {
    let mut profile = json!({
        "computerName": "vm{n}",
        "adminUsername": "azureuser",
        "secrets": [],
        "allowExtensionOperations": true,
        "requireGuestProvisionSignal": true,
    });
    if machine.is_windows {
        let windows = json!({"provisionVMAgent": true, "enableAutomaticUpdates": true});
        profile.set("windowsConfiguration", Some(windows));
    } else {
        let linux = json!({"disablePasswordAuthentication": machine.extensions != 1, "provisionVMAgent": true});
        profile.set("linuxConfiguration", Some(linux));
    }
    profile
}

fn status(code: &str, display: &str) -> Value {
    json!({"code": code, "level": "Info", "displayStatus": display, "time": "2024-06-27T01:03:54.1386186+00:00"})
}

fn instance_view(shape: &mut Shape<'_>) -> Value {
    let machine = Machine::of(shape);
    let mut statuses = vec![status("ProvisioningState/succeeded", "Provisioning succeeded")];
    if machine.is_deallocated {
        statuses.push(json!({"code": "PowerState/deallocated", "level": "Info", "displayStatus": "VM deallocated"}));
    } else if !shape.is(14, 15) {
        let (code, display) = match shape.variant % 6 {
            4 => ("PowerState/stopped", "VM stopped"),
            5 => ("PowerState/starting", "VM starting"),
            _ => ("PowerState/running", "VM running"),
        };
        statuses.push(json!({"code": code, "level": "Info", "displayStatus": display}));
    }
    let mut view = json!({"disks": disks(shape, &machine), "statuses": statuses, "hyperVGeneration": "V2"});
    if machine.is_deallocated {
        return view;
    }
    view.set("computerName", Some("vm{n}"));
    view.set("osName", Some(if machine.is_windows { "Windows Server 2022 Datacenter" } else { "ubuntu" }));
    view.set("osVersion", Some(if machine.is_windows { "10.0.20348.2582" } else { "22.04" }));
    let ready = json!([status("ProvisioningState/succeeded", "Ready")]);
    view.set("vmAgent", Some(json!({"vmAgentVersion": "2.11.1.4", "extensionHandlers": [], "statuses": ready})));
    let extensions: Vec<Value> = EXTENSIONS
        .iter()
        .take(machine.extensions)
        .map(|(name, publisher, kind)| {
            json!({
                "name": name,
                "type": format!("{publisher}.{kind}"),
                "typeHandlerVersion": "1.31.1",
                "statuses": [status("ProvisioningState/succeeded", "Provisioning succeeded")],
            })
        })
        .collect();
    view.set("extensions", (!extensions.is_empty()).then_some(extensions));
    view
}

/// Azure Disk Encryption by disk: on, off, without a word, or settings that do not say.
fn disks(shape: &Shape<'_>, machine: &Machine) -> Vec<Value> {
    let settings = |turn: usize| match turn % 4 {
        0 => Some(json!([{
            "enabled": true,
            "diskEncryptionKey": {
                "sourceVault": {"id": "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.KeyVault/vaults/kv-{h}-1"},
                "secretUrl": "https://kv-{h}-1.vault.azure.net/secrets/{2}/1",
            },
        }])),
        1 => None,
        2 => Some(json!([{"enabled": false}])),
        _ => Some(json!([{}])),
    };
    let disk = |name: String, turn| {
        let status = status("ProvisioningState/succeeded", "Provisioning succeeded");
        let mut disk = json!({"name": name, "statuses": [status]});
        disk.set("encryptionSettings", settings(turn));
        disk
    };
    let os_disk = disk("disk{n}".to_owned(), shape.variant);
    let data_disks = (0..machine.data_disks).map(|number| disk(data_disk_name(number), shape.variant / 4 + number));
    std::iter::once(os_disk).chain(data_disks).collect()
}
