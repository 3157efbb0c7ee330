//! Where a subscription's activity log goes: the log profile (2016-03-01) and the diagnostic settings
//! (2021-05-01-preview).

use serde_json::{Value, json};

use super::{Definition, Form, SetSome, Shape};

pub(in crate::cloudsim) const LOG_PROFILE: Definition = Definition {
    namespace: "microsoft.insights",
    types: &["logprofiles"],
    parent: None,
    form: Form::OnePage,
    id: "/subscriptions/{s}/providers/microsoft.insights/logprofiles/default",
    permission: "microsoft.insights/logprofiles/read",
    generate: log_profile,
};

pub(in crate::cloudsim) const DIAGNOSTIC_SETTING: Definition = Definition {
    namespace: "Microsoft.Insights",
    types: &["diagnosticSettings"],
    parent: None,
    form: Form::OnePage,
    id: "subscriptions/{s}/providers/microsoft.insights/diagnosticSettings/setting{n}",
    permission: "Microsoft.Insights/diagnosticSettings/read",
    generate: diagnostic_setting,
};

fn log_profile(shape: &mut Shape<'_>) -> Value {
    let mut properties = json!({
        "locations": if shape.is(0, 2) {
            json!(["global", "eastus", "eastus2", "westus", "westus2", "northeurope", "westeurope", "uksouth", "germanywestcentral", "southindia", "southeastasia", "japaneast", "australiaeast"])
        } else {
            json!(["global", "westeurope"])
        },
        "categories": match shape.variant % 4 {
            0 => json!(["Write", "Delete", "Action"]),
            1 => json!(["Write"]),
            2 => json!(["Delete", "Action"]),
            _ => json!([]),
        },
        "storageAccountId": "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Storage/storageAccounts/st{h}n1",
        "serviceBusRuleId": Value::Null,
    });
    properties.set(
        "retentionPolicy",
        match shape.variant % 3 {
            0 => Some(json!({"enabled": true, "days": 365})),
            1 => Some(json!({"enabled": false, "days": 0})),
            _ => None,
        },
    );
    json!({
        "id": LOG_PROFILE.id,
        "type": Value::Null,
        "name": "default",
        "location": Value::Null,
        "kind": Value::Null,
        "tags": Value::Null,
        "properties": properties,
        "identity": Value::Null,
    })
}

fn diagnostic_setting(shape: &mut Shape<'_>) -> Value {
    const CATEGORIES: [&str; 8] = [
        "Administrative",
        "Security",
        "ServiceHealth",
        "Alert",
        "Recommendation",
        "Policy",
        "Autoscale",
        "ResourceHealth",
    ];
    let logs: Vec<Value> = if shape.is(3, 4) {
        vec![json!({"categoryGroup": "allLogs", "enabled": true})]
    } else {
        let is_on = |number: usize| shape.is(0, 4) || (number + shape.variant).is_multiple_of(3);
        CATEGORIES
            .iter()
            .enumerate()
            .map(|(number, category)| json!({"category": category, "enabled": is_on(number)}))
            .collect()
    };
    let mut properties = json!({"logs": logs, "logAnalyticsDestinationType": Value::Null});
    match shape.variant % 3 {
        0 => properties.set(
            "storageAccountId",
            Some("/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Storage/storageAccounts/st{h}n1"),
        ),
        1 => properties.set(
            "workspaceId",
            Some("/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.OperationalInsights/workspaces/logs1"),
        ),
        _ => {
            properties.set("eventHubAuthorizationRuleId", Some(
                "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.EventHub/namespaces/hub1/authorizationRules/RootManageSharedAccessKey",
            ));
            properties.set("eventHubName", Some("activity"));
        }
    }
    json!({
        "id": DIAGNOSTIC_SETTING.id,
        "type": Value::Null,
        "name": "setting{n}",
        "location": Value::Null,
        "kind": Value::Null,
        "tags": Value::Null,
        "properties": properties,
        "identity": Value::Null,
    })
}
