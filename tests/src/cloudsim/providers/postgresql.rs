//! PostgreSQL: single servers (2017-12-01) and flexible ones (2024-08-01), and the settings of both.

use serde_json::{Value, json};

use super::{Definition, End, Form, SetSome, Shape};
use crate::cloudsim::kind::Kind;

pub(in crate::cloudsim) const SERVER: Definition = Definition {
    namespace: "Microsoft.DBforPostgreSQL",
    types: &["servers"],
    parent: None,
    form: Form::OnePage,
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.DBforPostgreSQL/servers/pg-{h}-{n}",
    permission: "Microsoft.DBforPostgreSQL/servers/read",
    generate: server,
};

pub(in crate::cloudsim) const CONFIGURATIONS: Definition = Definition {
    namespace: "Microsoft.DBforPostgreSQL",
    types: &["servers", "configurations"],
    parent: Some(Kind::PostgresqlServer),
    form: Form::Settings,
    id: SERVER.id,
    permission: "Microsoft.DBforPostgreSQL/servers/configurations/read",
    generate: configurations,
};

pub(in crate::cloudsim) const FLEXIBLE_SERVER: Definition = Definition {
    namespace: "Microsoft.DBforPostgreSQL",
    types: &["flexibleServers"],
    parent: None,
    form: Form::Pages { token: "%24skipToken", end: End::Absent },
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.DBforPostgreSQL/flexibleServers/pgflex-{h}-{n}",
    permission: "Microsoft.DBforPostgreSQL/flexibleServers/read",
    generate: flexible_server,
};

pub(in crate::cloudsim) const FLEXIBLE_CONFIGURATIONS: Definition = Definition {
    namespace: "Microsoft.DBforPostgreSQL",
    types: &["flexibleServers", "configurations"],
    parent: Some(Kind::PostgresqlFlexibleServer),
    form: Form::Settings,
    id: FLEXIBLE_SERVER.id,
    permission: "Microsoft.DBforPostgreSQL/flexibleServers/configurations/read",
    generate: flexible_configurations,
};

fn server(shape: &mut Shape<'_>) -> Value {
    let mut server = json!({
        "id": SERVER.id,
        "name": "pg-{h}-{n}",
        "type": "Microsoft.DBforPostgreSQL/servers",
        "location": shape.location(),
        "sku": {"name": "B_Gen5_1", "tier": "Basic", "family": "Gen5", "capacity": 1},
        "properties": {
            "administratorLogin": "cloudsa",
            "version": shape.turn(&["11", "10", "9.6"]),
            "sslEnforcement": shape.turn(&["Disabled", "Enabled"]),
            "minimalTlsVersion": shape.turn(&["TLSEnforcementDisabled", "TLS1_2", "TLS1_0"]),
            "infrastructureEncryption": shape.turn(&["Disabled", "Enabled"]),
            "publicNetworkAccess": shape.turn(&["Enabled", "Enabled", "Disabled"]),
            "userVisibleState": "Ready",
            "fullyQualifiedDomainName": "pg-{h}-{n}.postgres.database.azure.com",
            "earliestRestoreDate": "2024-05-01T18:02:41.577+00:00",
            "storageProfile": {"storageMB": 5120, "backupRetentionDays": 7, "geoRedundantBackup": "Disabled", "storageAutogrow": "Enabled"},
            "replicationRole": "",
            "masterServerId": "",
            "replicaCapacity": 0,
            "privateEndpointConnections": [],
        },
    });
    server.set("tags", shape.tags());
    server
}

fn flexible_server(shape: &mut Shape<'_>) -> Value {
    let mut server = json!({
        "id": FLEXIBLE_SERVER.id,
        "name": "pgflex-{h}-{n}",
        "type": "Microsoft.DBforPostgreSQL/flexibleServers",
        "location": shape.location(),
        "sku": {"name": "Standard_D2ds_v5", "tier": "GeneralPurpose"},
        "systemData": {"createdAt": "2024-03-10T05:12:26.2424241Z"},
        "properties": {
            "administratorLogin": "cloudsa",
            "version": shape.turn(&["16", "15", "14"]),
            "minorVersion": "4",
            "state": shape.turn(&["Ready", "Ready", "Stopped"]),
            "fullyQualifiedDomainName": "pgflex-{h}-{n}.postgres.database.azure.com",
            "availabilityZone": "1",
            "authConfig": {"activeDirectoryAuth": shape.turn(&["Disabled", "Enabled"]), "passwordAuth": "Enabled"},
            "dataEncryption": {"type": shape.turn(&["SystemManaged", "SystemManaged", "AzureKeyVault"])},
            "storage": {"storageSizeGB": 128, "autoGrow": "Disabled", "tier": "P10", "iops": 500},
            "backup": {"backupRetentionDays": 7, "geoRedundantBackup": "Disabled", "earliestRestoreDate": "2024-06-01T18:35:22.123Z"},
            "network": {"publicNetworkAccess": shape.turn(&["Enabled", "Disabled"])},
            "highAvailability": {"mode": "Disabled", "state": "NotEnabled"},
            "maintenanceWindow": {"customWindow": "Disabled", "dayOfWeek": 0, "startHour": 0, "startMinute": 0},
            "replicationRole": "Primary",
            "replicaCapacity": 5,
            "privateEndpointConnections": [],
        },
    });
    server.set("tags", shape.tags());
    server
}

/// Name, value, data type, allowed values.
type Setting = (&'static str, &'static str, &'static str, &'static str);

const BOOLEAN: &str = "on,off";

/// What both kinds of servers have, each setting with its own turn so that they combine.
fn logging(shape: &Shape<'_>) -> Vec<Setting> {
    let turn = |divisor: usize| {
        let values = ["on", "off", "ON", "OFF"];
        values.get((shape.variant / divisor) % values.len()).copied().unwrap_or_default()
    };
    vec![
        ("array_nulls", "on", "Boolean", BOOLEAN),
        ("client_min_messages", "notice", "Enumeration", "debug5,debug4,debug3,debug2,debug1,log,notice,warning,error"),
        ("log_checkpoints", turn(1), "Boolean", BOOLEAN),
        ("log_connections", turn(2), "Boolean", BOOLEAN),
        ("log_disconnections", turn(3), "Boolean", BOOLEAN),
        ("log_duration", turn(4), "Boolean", BOOLEAN),
        ("max_connections", "100", "Integer", "25-5000"),
    ]
}

fn configurations(shape: &mut Shape<'_>) -> Value {
    let mut settings = logging(shape);
    // Some servers have no throttling, and of some the type is not what it ought to be.
    if !shape.is(4, 5) {
        let kind = if shape.is(7, 10) { "Enumeration" } else { "Boolean" };
        settings.push(("connection_throttling", shape.turn(&["on", "off", "ON"]), kind, BOOLEAN));
    }
    settings.push(("log_retention_days", shape.turn(&["3", "7", "4"]), "Integer", "1-7"));
    rendered(SERVER.id, "Microsoft.DBforPostgreSQL/servers/configurations", &settings, false)
}

fn flexible_configurations(shape: &mut Shape<'_>) -> Value {
    let mut settings = logging(shape);
    settings.push(("connection_throttle.enable", shape.turn(&["on", "off", "ON"]), "Boolean", BOOLEAN));
    settings.push(("logfiles.retention_days", shape.turn(&["3", "7"]), "Integer", "1-7"));
    if !shape.is(5, 6) {
        settings.push(("require_secure_transport", shape.turn(&["on", "off", "ON"]), "Boolean", BOOLEAN));
    }
    settings.push(("ssl_min_protocol_version", shape.turn(&["TLSv1.2", "TLSv1.3"]), "Enumeration", "TLSv1.2,TLSv1.3"));
    rendered(FLEXIBLE_SERVER.id, "Microsoft.DBforPostgreSQL/flexibleServers/configurations", &settings, true)
}

fn rendered(server: &str, kind: &str, settings: &[Setting], is_flexible: bool) -> Value {
    let setting = |(name, value, data_type, allowed): &Setting| {
        let mut properties = json!({
            "value": value,
            "description": "A setting of the server.",
            "defaultValue": if *data_type == "Boolean" { "on" } else { value },
            "dataType": data_type,
            "allowedValues": allowed,
            "source": "user-override",
        });
        if is_flexible {
            properties.set("isDynamicConfig", Some(true));
            properties.set("isReadOnly", Some(false));
            properties.set("isConfigPendingRestart", Some(false));
        }
        json!({"id": format!("{server}/configurations/{name}"), "name": name, "type": kind, "properties": properties})
    };
    settings.iter().map(setting).collect()
}
