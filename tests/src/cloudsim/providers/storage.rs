//! Storage accounts, in the shape of the API version 2023-05-01.

use serde_json::{Value, json};

use super::{Definition, End, Form, SetSome, Shape};

pub(in crate::cloudsim) const STORAGE_ACCOUNT: Definition = Definition {
    namespace: "Microsoft.Storage",
    types: &["storageAccounts"],
    parent: None,
    form: Form::Pages { token: "$skipToken", end: End::Absent },
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Storage/storageAccounts/st{h}n{n}",
    permission: "Microsoft.Storage/storageAccounts/read",
    generate: storage_account,
};

/// The sixth shape is of an account from before there were network rules and minimum versions.
fn storage_account(shape: &mut Shape<'_>) -> Value {
    let is_old = shape.is(5, 6);
    let mut properties = json!({
        "creationTime": "2024-06-01T02:28:53.4540398Z",
        "provisioningState": "Succeeded",
        "primaryLocation": "westeurope",
        "statusOfPrimary": "available",
        "accessTier": shape.turn(&["Hot", "Cool"]),
        "encryption": {
            "keySource": if shape.is(2, 5) { "Microsoft.Keyvault" } else { "Microsoft.Storage" },
            "services": {
                "blob": {"enabled": true, "keyType": "Account", "lastEnabledTime": "2024-06-01T02:28:53.5790398Z"},
                "file": {"enabled": true, "keyType": "Account", "lastEnabledTime": "2024-06-01T02:28:53.5790398Z"},
            },
        },
        "primaryEndpoints": {
            "blob": "https://st{h}n{n}.blob.core.windows.net/",
            "dfs": "https://st{h}n{n}.dfs.core.windows.net/",
            "file": "https://st{h}n{n}.file.core.windows.net/",
            "queue": "https://st{h}n{n}.queue.core.windows.net/",
            "table": "https://st{h}n{n}.table.core.windows.net/",
            "web": "https://st{h}n{n}.z6.web.core.windows.net/",
        },
        "privateEndpointConnections": [],
    });
    properties.set("supportsHttpsTrafficOnly", (!shape.is(11, 12)).then(|| !shape.is(1, 3)));
    if !is_old {
        properties.set("networkAcls", Some(network_acls(shape)));
        properties.set(
            "minimumTlsVersion",
            match shape.variant % 4 {
                0 => Some("TLS1_2"),
                1 => Some("TLS1_0"),
                2 => Some("TLS1_1"),
                _ => None,
            },
        );
        properties.set("allowBlobPublicAccess", (!shape.is(3, 4)).then(|| shape.is(0, 2)));
        // Null is how the provider says that nobody chose.
        properties.set(
            "allowSharedKeyAccess",
            match shape.variant % 4 {
                0 => Some(Value::Null),
                1 => Some(true.into()),
                2 => Some(false.into()),
                _ => None,
            },
        );
        properties.set(
            "publicNetworkAccess",
            match shape.variant % 3 {
                0 => None,
                1 => Some("Enabled"),
                _ => Some("Disabled"),
            },
        );
    }
    let mut account = json!({
        "id": STORAGE_ACCOUNT.id,
        "name": "st{h}n{n}",
        "type": "Microsoft.Storage/storageAccounts",
        "kind": shape.turn(&["StorageV2", "Storage", "BlobStorage"]),
        "location": shape.location(),
        "sku": {"name": shape.pick(&["Standard_LRS", "Standard_GRS"]), "tier": "Standard"},
        "properties": properties,
    });
    account.set("tags", Some(shape.tags().unwrap_or_else(|| json!({}))));
    account
}

fn network_acls(shape: &Shape<'_>) -> Value {
    json!({
        "bypass": shape.turn(&["AzureServices", "Logging, Metrics, AzureServices", "None", "Logging, Metrics", "Metrics"]),
        "defaultAction": shape.turn(&["Allow", "Deny", "Deny"]),
        "ipRules": if shape.is(1, 4) { json!([{"value": "203.0.113.0/24", "action": "Allow"}]) } else { json!([]) },
        "virtualNetworkRules": [],
        "resourceAccessRules": [],
    })
}
