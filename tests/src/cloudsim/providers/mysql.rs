//! MySQL: single servers (2017-12-01), which are gone from most of the world, and flexible ones (2023-12-30).

use serde_json::{Value, json};

use super::{Definition, End, Form, SetSome, Shape};
use crate::cloudsim::kind::Kind;

pub(in crate::cloudsim) const SERVER: Definition = Definition {
    // Not as the paths of the documentation spell it.
    namespace: "Microsoft.DBforMySQL",
    types: &["servers"],
    parent: None,
    form: Form::OnePage,
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.DBforMySQL/servers/mysql-{h}-{n}",
    permission: "Microsoft.DBforMySQL/servers/read",
    generate: server,
};

pub(in crate::cloudsim) const FLEXIBLE_SERVER: Definition = Definition {
    namespace: "Microsoft.DBforMySQL",
    types: &["flexibleServers"],
    parent: None,
    form: Form::Pages { token: "%24skiptoken", end: End::Absent },
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.DBforMySQL/flexibleServers/mysqlflex-{h}-{n}",
    permission: "Microsoft.DBforMySQL/flexibleServers/read",
    generate: flexible_server,
};

pub(in crate::cloudsim) const FLEXIBLE_CONFIGURATIONS: Definition = Definition {
    namespace: "Microsoft.DBforMySQL",
    types: &["flexibleServers", "configurations"],
    parent: Some(Kind::MysqlFlexibleServer),
    form: Form::Settings,
    id: FLEXIBLE_SERVER.id,
    permission: "Microsoft.DBforMySQL/flexibleServers/configurations/read",
    generate: flexible_configurations,
};

fn server(shape: &mut Shape<'_>) -> Value {
    let mut server = json!({
        "id": SERVER.id,
        "name": "mysql-{h}-{n}",
        "type": "Microsoft.DBforMySQL/servers",
        "location": shape.location(),
        "sku": {"name": "GP_Gen5_4", "tier": "GeneralPurpose", "family": "Gen5", "capacity": 4},
        "properties": {
            "administratorLogin": "cloudsa",
            "version": shape.turn(&["8.0", "5.7"]),
            "sslEnforcement": shape.turn(&["Enabled", "Disabled"]),
            "minimalTlsVersion": shape.turn(&["TLS1_2", "TLSEnforcementDisabled", "TLS1_0"]),
            "publicNetworkAccess": shape.turn(&["Enabled", "Enabled", "Disabled"]),
            "userVisibleState": "Ready",
            "fullyQualifiedDomainName": "mysql-{h}-{n}.mysql.database.azure.com",
            "earliestRestoreDate": "2024-05-01T18:02:41.577+00:00",
            "storageProfile": {"storageMB": 128_000, "backupRetentionDays": 7, "geoRedundantBackup": "Disabled", "storageAutogrow": "Disabled"},
            "replicationRole": "",
            "masterServerId": "",
            "replicaCapacity": 5,
            "privateEndpointConnections": [],
        },
    });
    server.set("tags", shape.tags());
    server
}

fn flexible_server(shape: &mut Shape<'_>) -> Value {
    let mut server = json!({
        "id": FLEXIBLE_SERVER.id,
        "name": "mysqlflex-{h}-{n}",
        "type": "Microsoft.DBforMySQL/flexibleServers",
        "location": shape.location(),
        "sku": {"name": "Standard_D2ads_v5", "tier": "GeneralPurpose"},
        "systemData": {"createdAt": "2024-03-10T05:12:26.2424241+00:00"},
        "properties": {
            "administratorLogin": "cloudsa",
            "version": shape.turn(&["8.0.21", "5.7"]),
            "state": shape.turn(&["Ready", "Ready", "Stopped"]),
            "fullyQualifiedDomainName": "mysqlflex-{h}-{n}.mysql.database.azure.com",
            "availabilityZone": "1",
            "storage": {"storageSizeGB": 128, "iops": 600, "autoGrow": "Enabled", "logOnDisk": "Disabled", "storageSku": "Premium_LRS", "autoIoScaling": "Enabled"},
            "backup": {"backupRetentionDays": 7, "geoRedundantBackup": "Disabled", "earliestRestoreDate": "2024-06-01T18:35:22.123+00:00"},
            "network": {"publicNetworkAccess": shape.turn(&["Enabled", "Disabled"])},
            "highAvailability": {"mode": "Disabled", "state": "NotEnabled"},
            "maintenanceWindow": {"customWindow": "Disabled", "dayOfWeek": 0, "startHour": 0, "startMinute": 0},
            "replicationRole": "None",
            "replicaCapacity": 10,
        },
    });
    server.set("tags", shape.tags());
    server
}

fn flexible_configurations(shape: &mut Shape<'_>) -> Value {
    // Which way it is written depends on who wrote it last.
    let encrypted = shape.turn(&["ON", "OFF", "on", "Off"]);
    let audited = shape.turn(&["OFF", "ON"]);
    let setting = |(name, value, kind, allowed): (&str, &str, &str, &str)| {
        json!({
            "id": format!("{}/configurations/{name}", FLEXIBLE_SERVER.id),
            "name": name,
            "type": "Microsoft.DBforMySQL/flexibleServers/configurations",
            "properties": {
                "value": value,
                "currentValue": value,
                "description": "A setting of the server.",
                "defaultValue": "ON",
                "dataType": kind,
                "allowedValues": allowed,
                "source": "user-override",
                "isReadOnly": "False",
                "isConfigPendingRestart": "False",
                "isDynamicConfig": "True",
            },
        })
    };
    let settings = [
        ("audit_log_enabled", audited, "Enumeration", "ON,OFF"),
        ("audit_log_events", "CONNECTION", "Set", "DDL,DML_SELECT,DML_NONSELECT,DCL,ADMIN,CONNECTION"),
        ("max_connections", "341", "Integer", "10-1365"),
        ("require_secure_transport", encrypted, "Enumeration", "ON,OFF"),
        ("slow_query_log", "OFF", "Enumeration", "ON,OFF"),
        (
            "tls_version",
            shape.turn(&["TLSv1.2", "TLSv1.2,TLSv1.3", "TLSv1,TLSv1.1,TLSv1.2"]),
            "Set",
            "TLSv1,TLSv1.1,TLSv1.2,TLSv1.3",
        ),
    ];
    settings.into_iter().map(setting).collect()
}
