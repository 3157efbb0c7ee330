//! SQL servers, their databases and the encryption of those, in the shape of the API version 2021-11-01.

use serde_json::{Value, json};

use super::{Definition, End, Form, SetSome, Shape};
use crate::cloudsim::kind::Kind;

const FORM: Form = Form::Pages { token: "$skipToken", end: End::Absent };

pub(in crate::cloudsim) const SERVER: Definition = Definition {
    namespace: "Microsoft.Sql",
    types: &["servers"],
    parent: None,
    form: FORM,
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Sql/servers/sql-{h}-{n}",
    permission: "Microsoft.Sql/servers/read",
    generate: server,
};

pub(in crate::cloudsim) const DATABASE: Definition = Definition {
    namespace: "Microsoft.Sql",
    types: &["servers", "databases"],
    parent: Some(Kind::SqlServer),
    form: FORM,
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Sql/servers/sql-{h}-{p}/databases/{d}",
    permission: "Microsoft.Sql/servers/databases/read",
    generate: database,
};

pub(in crate::cloudsim) const TRANSPARENT_DATA_ENCRYPTION: Definition = Definition {
    namespace: "Microsoft.Sql",
    types: &["servers", "databases", "transparentDataEncryption"],
    parent: Some(Kind::SqlDatabase),
    form: Form::Detail(Some("current")),
    id: DATABASE.id,
    permission: "Microsoft.Sql/servers/databases/transparentDataEncryption/read",
    generate: transparent_data_encryption,
};

fn server(shape: &mut Shape<'_>) -> Value {
    let mut server = json!({
        "id": SERVER.id,
        "name": "sql-{h}-{n}",
        "type": "Microsoft.Sql/servers",
        "kind": "v12.0",
        "location": shape.location(),
        "properties": {
            "administratorLogin": "cloudsa",
            "version": "12.0",
            "state": "Ready",
            "fullyQualifiedDomainName": "sql-{h}-{n}.database.windows.net",
            "privateEndpointConnections": [],
            "minimalTlsVersion": shape.turn(&["1.2", "None", "1.0"]),
            "publicNetworkAccess": shape.turn(&["Enabled", "Disabled"]),
            "restrictOutboundNetworkAccess": "Disabled",
        },
    });
    server.set("tags", shape.tags());
    server
}

fn database(shape: &mut Shape<'_>) -> Value {
    let is_master = shape.is_first;
    let (sku, tier) = if is_master { ("System", "System") } else { ("BC_Gen5", "BusinessCritical") };
    let mut database = json!({
        "id": DATABASE.id,
        "name": "{d}",
        "type": "Microsoft.Sql/servers/databases",
        "kind": if is_master { "v12.0,system" } else { "v12.0,user,vcore" },
        "location": shape.location(),
        "managedBy": Value::Null,
        "sku": {"name": sku, "tier": tier, "capacity": 2},
        "properties": {
            "collation": "SQL_Latin1_General_CP1_CI_AS",
            "maxSizeBytes": 34_359_738_368_u64,
            "status": if shape.is(5, 6) && !is_master { "Paused" } else { "Online" },
            "databaseId": "{0}",
            "creationDate": "2024-03-10T05:12:26.2424241Z",
            "currentServiceObjectiveName": sku,
            "requestedServiceObjectiveName": sku,
            "defaultSecondaryLocation": "northeurope",
            "catalogCollation": "SQL_Latin1_General_CP1_CI_AS",
            "zoneRedundant": shape.is(1, 4),
            "readScale": "Enabled",
            "isInfraEncryptionEnabled": false,
        },
    });
    database.set("tags", shape.tags());
    database
}

/// Whoever lists databases with encryption switched off finds `master` first.
fn transparent_data_encryption(shape: &mut Shape<'_>) -> Value {
    let is_on = !shape.is_first && !shape.is(1, 3);
    json!({
        "id": format!("{}/transparentDataEncryption/current", DATABASE.id),
        "name": "current",
        "type": "Microsoft.Sql/servers/databases/transparentDataEncryption",
        "properties": {"state": if is_on { "Enabled" } else { "Disabled" }},
    })
}

/// Until 2020 the state was called status, and the answer told the location, too.
pub(in crate::cloudsim) fn before_2020(answer: &mut Value) {
    answer.set("location", Some("West Europe"));
    if let Some(Value::Object(properties)) = answer.get_mut("properties")
        && let Some(state) = properties.remove("state")
    {
        properties.insert("status".to_owned(), state);
    }
}
