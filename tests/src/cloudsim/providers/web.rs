//! Web apps and their settings, in the shape of the API version 2023-12-01.

use serde_json::{Value, json};

use super::{Definition, End, Form, SetSome, Shape};
use crate::cloudsim::kind::Kind;

pub(in crate::cloudsim) const SITE: Definition = Definition {
    namespace: "Microsoft.Web",
    types: &["sites"],
    parent: None,
    form: Form::Pages { token: "%24skipToken", end: End::Null },
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Web/sites/app-{h}-{n}",
    permission: "Microsoft.Web/sites/read",
    generate: site,
};

pub(in crate::cloudsim) const CONFIGURATION: Definition = Definition {
    namespace: "Microsoft.Web",
    types: &["sites", "config"],
    parent: Some(Kind::WebApp),
    form: Form::Detail(Some("web")),
    id: SITE.id,
    permission: "Microsoft.Web/sites/config/read",
    generate: configuration,
};

fn site(shape: &mut Shape<'_>) -> Value {
    let host = "app-{h}-{n}.azurewebsites.net";
    let mut properties = json!({
        "state": if shape.is(4, 5) { "Stopped" } else { "Running" },
        "hostNames": [host],
        "defaultHostName": host,
        "enabledHostNames": [host, "app-{h}-{n}.scm.azurewebsites.net"],
        "repositorySiteName": "app-{h}-{n}",
        "enabled": true,
        "availabilityState": "Normal",
        "usageState": "Normal",
        "reserved": shape.is(1, 2),
        "isXenon": false,
        "hyperV": false,
        "lastModifiedTimeUtc": "2024-06-27T10:02:07.483",
        "serverFarmId": "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Web/serverfarms/plan1",
        "clientCertMode": "Required",
        "clientAffinityEnabled": true,
        "containerSize": 0,
        "redundancyMode": "None",
        "publicNetworkAccess": Value::Null,
        // A stub: what it says of the settings is nothing.
        "siteConfig": {
            "numberOfWorkers": 1,
            "linuxFxVersion": "",
            "acrUseManagedIdentityCreds": false,
            "alwaysOn": shape.is(0, 2),
            "http20Enabled": Value::Null,
            "minTlsVersion": Value::Null,
            "scmMinTlsVersion": Value::Null,
            "ftpsState": Value::Null,
            "remoteDebuggingEnabled": Value::Null,
            "functionAppScaleLimit": 0,
            "minimumElasticInstanceCount": 0,
        },
    });
    properties.set("httpsOnly", (!shape.is(11, 12)).then(|| !shape.is(1, 3)));
    properties.set("clientCertEnabled", (!shape.is(7, 12)).then(|| shape.is(1, 4)));
    let mut site = json!({
        "id": SITE.id,
        "name": "app-{h}-{n}",
        "type": "Microsoft.Web/sites",
        "kind": shape.turn(&["app", "app,linux", "functionapp", "functionapp,linux", "app,linux,container"]),
        // This provider gives the name that people read.
        "location": shape.turn(&["West Europe", "East US"]),
        "properties": properties,
    });
    site.set("tags", shape.tags());
    let identity = json!({"type": "SystemAssigned", "tenantId": shape.tenant, "principalId": "{0}"});
    site.set("identity", shape.is(2, 3).then_some(identity));
    site
}

fn configuration(shape: &mut Shape<'_>) -> Value {
    let mut properties = json!({
        "numberOfWorkers": 1,
        "defaultDocuments": ["Default.htm", "index.html", "hostingstart.html"],
        "netFrameworkVersion": "v6.0",
        "linuxFxVersion": "",
        "requestTracingEnabled": false,
        "httpLoggingEnabled": shape.is(0, 2),
        "logsDirectorySizeLimit": 35,
        "detailedErrorLoggingEnabled": false,
        "publishingUsername": "$app-{h}-{n}",
        "scmType": "None",
        "use32BitWorkerProcess": true,
        "webSocketsEnabled": false,
        "alwaysOn": shape.is(0, 2),
        "managedPipelineMode": "Integrated",
        "virtualApplications": [{"virtualPath": "/", "physicalPath": "site\\wwwroot", "preloadEnabled": false}],
        "loadBalancing": "LeastRequests",
        "autoHealEnabled": false,
        "ipSecurityRestrictions": [{"ipAddress": "Any", "action": "Allow", "priority": 2_147_483_647, "name": "Allow all", "description": "Allow all access"}],
        "minTlsVersion": match shape.variant % 5 {
            0 => json!("1.2"),
            1 => json!("1.0"),
            2 => json!("1.1"),
            3 => json!("1.3"),
            _ => Value::Null,
        },
        "scmMinTlsVersion": "1.2",
        "ftpsState": shape.turn(&["FtpsOnly", "AllAllowed", "Disabled"]),
        "localMySqlEnabled": false,
        "preWarmedInstanceCount": 0,
    });
    properties.set("http20Enabled", (!shape.is(7, 8)).then(|| shape.is(0, 3)));
    properties.set("remoteDebuggingEnabled", (!shape.is(5, 8)).then(|| shape.is(1, 6)));
    json!({
        "id": format!("{}/config/web", SITE.id),
        "name": "app-{h}-{n}",
        "type": "Microsoft.Web/sites/config",
        "location": "West Europe",
        "properties": properties,
    })
}
