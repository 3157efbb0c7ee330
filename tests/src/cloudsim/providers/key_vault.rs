//! Key vaults (2023-07-01), and their keys and secrets as the data plane lists them (7.4): never a value.

use serde_json::{Value, json};

use super::{Definition, End, Form, SetSome, Shape};
use crate::cloudsim::kind::Kind;

pub(in crate::cloudsim) const VAULT: Definition = Definition {
    namespace: "Microsoft.KeyVault",
    types: &["vaults"],
    parent: None,
    form: Form::Pages { token: "$skiptoken", end: End::EmptyPage },
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.KeyVault/vaults/kv-{h}-{n}",
    permission: "Microsoft.KeyVault/vaults/read",
    generate: vault,
};

const LIST: Form = Form::Pages { token: "$skiptoken", end: End::NullEmptyPage };

pub(in crate::cloudsim) const KEY: Definition = Definition {
    namespace: "Microsoft.KeyVault",
    types: &["vaults", "keys"],
    parent: Some(Kind::Vault),
    form: LIST,
    id: VAULT.id,
    permission: "Microsoft.KeyVault/vaults/keys/read",
    generate: key,
};

pub(in crate::cloudsim) const SECRET: Definition = Definition {
    namespace: "Microsoft.KeyVault",
    types: &["vaults", "secrets"],
    parent: Some(Kind::Vault),
    form: LIST,
    id: VAULT.id,
    permission: "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
    generate: secret,
};

/// Whether who may read a vault of this shape is a matter of roles, not of the vault's own policies.
pub(in crate::cloudsim) fn goes_by_roles(variant: usize) -> bool {
    variant % 3 == 1
}

fn vault(shape: &mut Shape<'_>) -> Value {
    let mut properties = json!({
        "sku": {"family": "A", "name": shape.turn(&["standard", "premium"])},
        "tenantId": shape.tenant,
        "accessPolicies": [{
            "tenantId": shape.tenant,
            "objectId": "{0}",
            "permissions": {"keys": ["list"], "secrets": ["list"], "certificates": []},
        }],
        "enabledForDeployment": shape.is(1, 2),
        "enabledForDiskEncryption": shape.is(0, 2),
        "enabledForTemplateDeployment": false,
        "vaultUri": format!("{}/vaults/kv-{{h}}-{{n}}/", shape.url),
        "provisioningState": "Succeeded",
    });
    // On, off, null, absent: each in its own rhythm.
    properties.set(
        "enableSoftDelete",
        match shape.variant % 4 {
            0 | 1 => Some(Value::from(true)),
            2 => Some(Value::from(false)),
            _ => None,
        },
    );
    properties.set(
        "enablePurgeProtection",
        match shape.variant % 3 {
            0 => Some(Value::from(true)),
            1 => None,
            _ => Some(Value::Null),
        },
    );
    let roles = goes_by_roles(shape.variant);
    properties.set("enableRbacAuthorization", (!shape.is(2, 3)).then_some(roles));
    properties.set(
        "publicNetworkAccess",
        match shape.variant % 5 {
            0 | 3 => Some("Enabled"),
            1 => Some("Disabled"),
            _ => None,
        },
    );
    let acls = json!({
        "bypass": shape.turn(&["AzureServices", "None"]),
        "defaultAction": shape.turn(&["Deny", "Allow"]),
        "ipRules": [{"value": "203.0.113.0/24"}],
        "virtualNetworkRules": [],
    });
    properties.set("networkAcls", (!shape.is(2, 3)).then_some(acls));
    json!({
        "id": VAULT.id,
        "name": "kv-{h}-{n}",
        "type": "Microsoft.KeyVault/vaults",
        "location": shape.location(),
        "tags": shape.tags().unwrap_or_else(|| json!({})),
        "systemData": {
            "createdBy": "owner@example.com",
            "createdByType": "User",
            "createdAt": "2024-01-02T13:03:51.5Z",
            "lastModifiedBy": "owner@example.com",
            "lastModifiedByType": "User",
            "lastModifiedAt": "2024-01-02T13:03:51.5Z",
        },
        "properties": properties,
    })
}

/// Times are seconds since 1970. No expiry is one that is absent or null; 0 is an expiry.
fn attributes(shape: &Shape<'_>) -> Value {
    let mut attributes = json!({
        "enabled": !shape.is(4, 5),
        "created": 1_704_200_000,
        "updated": 1_704_200_000,
        "recoveryLevel": shape.turn(&["Recoverable+Purgeable", "Purgeable", "Recoverable"]),
        "recoverableDays": 90,
    });
    attributes.set(
        "exp",
        match shape.variant % 4 {
            0 => Some(Value::from(1_924_988_399_u64)),
            1 => None,
            2 => Some(Value::Null),
            _ if shape.is(3, 8) => Some(Value::from(0)),
            _ => Some(Value::from(1_514_764_799_u64)),
        },
    );
    attributes.set("nbf", shape.is(0, 3).then_some(1_704_200_000_u64));
    if shape.is(11, 12)
        && let Value::Object(attributes) = &mut attributes
    {
        attributes.remove("enabled");
    }
    attributes
}

/// An entry that belongs to a certificate is managed. Its id has the host that a real vault has, although this
/// server is reached at another: clients take ids apart, and refuse those with other paths.
fn entry(shape: &mut Shape<'_>, id: &str, kind: &str, stem: &str) -> Value {
    let mut entry = json!({
        id: format!("https://kv-{{h}}-{{p}}.vault.azure.net/{kind}/{stem}{{n}}"),
        "attributes": attributes(shape),
    });
    entry.set(
        "managed",
        match shape.variant % 6 {
            2 => Some(true),
            4 => Some(false),
            _ => None,
        },
    );
    entry.set("tags", shape.tags());
    entry
}

fn key(shape: &mut Shape<'_>) -> Value {
    entry(shape, "kid", "keys", "key")
}

fn secret(shape: &mut Shape<'_>) -> Value {
    let mut secret = entry(shape, "id", "secrets", "secret");
    secret.set("contentType", shape.is(1, 2).then_some("text/plain"));
    secret
}
