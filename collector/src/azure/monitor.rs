//! The plugin `AzMonitor`: whether the activity log of each subscription is kept: its log profile, or the record that
//! there is none, and its diagnostic settings, which have taken the place of log profiles.
//!
//! Reference: <https://learn.microsoft.com/rest/api/monitor/log-profiles/list>, the definition `LogProfileResource`;
//! <https://learn.microsoft.com/rest/api/monitor/subscription-diagnostic-settings/list>, the definition
//! `SubscriptionDiagnosticSettingsResource`; and <https://learn.microsoft.com/rest/api/resources/subscriptions/list-locations>.

use std::borrow::Cow;

use proto::catalogue::PluginClass;
use proto::plan::Stage;
use proto::record::Text;
use proto::subject::Role;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;
use super::resource::{Made, Malformed, Raw, Record, checked_id};
use super::service::{Base, Item, Items, List, Plugin};
use crate::fields::Fields;

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.azmonitor.AzMonitor",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(&|params| super::engine::check(&PLUGIN, params)),
};

const LOG_PROFILE: &str = "log_profile";
const LOG_PROFILE_MISSING: &str = "log_profile_missing";
const DIAGNOSTIC_SETTING: &str = "diagnostic_setting";

/// The path of the list of a subscription's locations, behind that of the subscription.
pub(super) const LOCATIONS_PATH: &str = "/locations";
/// The version of the API that the locations are read by.
pub(super) const LOCATIONS_API_VERSION: &str = "2022-12-01";

/// What it reads.
pub(super) const PLUGIN: Plugin = Plugin {
    lists: &[
        List {
            name: LOG_PROFILE,
            base: Base::Subscription,
            path: "/providers/microsoft.insights/logprofiles",
            api_version: "2016-03-01",
            retired: true,
            items: Items::LogProfiles,
        },
        SETTINGS,
    ],
    emits_subscriptions: false,
};

/// The diagnostic settings of a subscription.
pub(super) const SETTINGS: List = List {
    name: DIAGNOSTIC_SETTING,
    base: Base::Subscription,
    path: "/providers/Microsoft.Insights/diagnosticSettings",
    api_version: "2021-05-01-preview",
    retired: false,
    items: Items::Records(diagnostic_setting),
};

/// A log profile, in the shape of the API.
#[derive(Debug, Deserialize)]
struct LogProfile<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    properties: Option<LogProfileProperties<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogProfileProperties<'a> {
    #[serde(borrow)]
    categories: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    locations: Option<Vec<Text<'a>>>,
    retention_policy: Option<RetentionPolicy>,
}

#[derive(Debug, Default, Deserialize)]
struct RetentionPolicy {
    enabled: Option<bool>,
    days: Option<i64>,
}

/// Diagnostic settings, in the shape of the API.
#[derive(Debug, Deserialize)]
struct DiagnosticSetting<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    properties: Option<DiagnosticSettingProperties<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiagnosticSettingProperties<'a> {
    #[serde(borrow)]
    logs: Option<Vec<Log<'a>>>,
    #[serde(borrow)]
    storage_account_id: Option<Text<'a>>,
    #[serde(borrow)]
    workspace_id: Option<Text<'a>>,
    #[serde(borrow)]
    event_hub_authorization_rule_id: Option<Text<'a>>,
    /// What event hubs were before.
    #[serde(borrow)]
    service_bus_rule_id: Option<Text<'a>>,
    /// A service of a partner of Microsoft's.
    #[serde(borrow)]
    marketplace_partner_id: Option<Text<'a>>,
}

impl DiagnosticSettingProperties<'_> {
    fn exports(&self) -> bool {
        let destinations = [
            &self.storage_account_id,
            &self.workspace_id,
            &self.event_hub_authorization_rule_id,
            &self.service_bus_rule_id,
            &self.marketplace_partner_id,
        ];
        let goes_somewhere = destinations.into_iter().flatten().any(|destination| !destination.is_empty());
        goes_somewhere && self.logs.iter().flatten().any(|log| log.enabled == Some(true))
    }
}

/// One category or one group of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Log<'a> {
    #[serde(borrow)]
    category: Option<Text<'a>>,
    #[serde(borrow)]
    category_group: Option<Text<'a>>,
    enabled: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Location<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

/// The name of a location of a subscription.
pub(super) fn location_name(raw: &RawValue) -> Result<Cow<'_, str>, Malformed> {
    let Location { name: Text(name) } = answer::item("a location", raw)?;
    Ok(name)
}

/// The record of a log profile. `locations` are those of the subscription, if they could be read.
pub(super) fn log_profile<'a>(raw: &'a RawValue, locations: Option<&'a [String]>) -> Result<Made<'a>, Malformed> {
    let profile: LogProfile<'a> = answer::item("a log profile", raw)?;
    let id = checked_id("a log profile", profile.id)?;
    let properties = profile.properties.unwrap_or_default();
    let retention = properties.retention_policy.unwrap_or_default();
    let mut ext = Fields::new()
        .with("retention_enabled", retention.enabled)
        .with("retention_days", retention.days)
        .with("categories", properties.categories);
    if let Some(locations) = locations {
        let names = locations.iter().map(|name| Cow::Borrowed(name.as_str()));
        ext.set("subscription_locations", names.collect::<Vec<_>>());
    }
    ext.set("locations", properties.locations);
    Ok(Made::one(Record { ext, ..Record::of(LOG_PROFILE, Some(LOG_PROFILE), id, raw) }))
}

/// Whether diagnostic settings export anything: at least one log is enabled, and there is a place for it.
pub(super) fn exports(raw: &RawValue) -> Result<bool, Malformed> {
    let setting: DiagnosticSetting<'_> = answer::item("a diagnostic setting", raw)?;
    Ok(setting.properties.is_some_and(|properties| properties.exports()))
}

/// The record that a subscription has no log profile. `diagnostic_settings` is how many diagnostic settings of it
/// export something, if they could be read: whoever has those needs no profile.
pub(super) fn log_profile_missing<'a>(subscription_id: &str, diagnostic_settings: Option<u64>) -> Record<'a> {
    let count = diagnostic_settings.and_then(|count| i64::try_from(count).ok());
    Record {
        record_type: LOG_PROFILE_MISSING,
        common_type: Some(LOG_PROFILE_MISSING),
        id: format!("/subscriptions/{subscription_id}").into(),
        raw: Raw::Nothing,
        ext: Fields::new().with("diagnostic_settings", count),
        com: Fields::new(),
    }
}

/// The record of diagnostic settings of a subscription.
pub(super) fn diagnostic_setting(item: Item<'_>) -> Result<Made<'_>, Malformed> {
    let setting: DiagnosticSetting<'_> = answer::item("a diagnostic setting", item.raw)?;
    let id = checked_id("a diagnostic setting", setting.id)?;
    let properties = setting.properties.unwrap_or_default();
    let enabled = properties.logs.unwrap_or_default().into_iter().filter(|log| log.enabled == Some(true));
    let categories: Vec<Text<'_>> = enabled.filter_map(|log| log.category.or(log.category_group)).collect();
    let ext = Fields::new()
        .with("categories", categories)
        .with("storage_account_id", properties.storage_account_id)
        .with("workspace_id", properties.workspace_id)
        .with("event_hub_rule_id", properties.event_hub_authorization_rule_id);
    Ok(Made::one(Record { ext, ..Record::of(DIAGNOSTIC_SETTING, Some(DIAGNOSTIC_SETTING), id, item.raw) }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::vectors::{one, raw, refuses_flaws, written};
    use super::*;

    #[test]
    fn a_log_profile_says_what_it_keeps_where() {
        let profile = json!({"id": "/lp", "name": null, "type": null, "location": null, "properties":
            {"categories": ["Write", "Delete"], "locations": ["global"], "retentionPolicy": {"enabled": true, "days": 0}}});
        let locations = ["eastus".to_owned()];
        let record = one(log_profile(&raw(&profile), Some(&locations)));
        assert_eq!(record["raw"], profile);
        assert_eq!(record["ext"]["categories"], json!(["Write", "Delete"]));
        assert_eq!(record["ext"]["subscription_locations"], json!(["eastus"]));
        assert_eq!(record["ext"]["retention_days"], 0);
        for bare in [
            json!({"id": "/lp"}),
            json!({"id": "/lp", "properties": {"retentionPolicy": null, "categories": null, "locations": null}}),
        ] {
            let record = one(log_profile(&raw(&bare), None));
            let ext = record["ext"].as_object().unwrap();
            assert!(!ext.contains_key("subscription_locations"));
            for field in ["retention_enabled", "retention_days", "categories", "locations"] {
                assert_eq!(ext.get(field), Some(&Value::Null), "{field}");
            }
        }
    }

    #[test]
    fn no_log_profile_is_a_record_of_the_subscription() {
        let record = written(&log_profile_missing("5-a", Some(2)));
        assert_eq!(record["raw"], Value::Null);
        assert_eq!(
            record["com"],
            json!({"cloud_type": "azure", "record_type": "log_profile_missing", "reference": "/subscriptions/5-a"})
        );
        assert_eq!(record["ext"]["record_type"], "log_profile_missing");
        assert_eq!(record["ext"]["diagnostic_settings"], 2);
        let ext = written(&log_profile_missing("5-a", None))["ext"].clone();
        assert_eq!(ext.get("diagnostic_settings"), Some(&Value::Null));
        assert_eq!(ext.get("retention_enabled"), None);
    }

    #[test]
    fn a_diagnostic_setting_says_which_logs_go_where() {
        let setting = json!({"id": "/ds", "properties": {
            "logs": [{"category": "Administrative", "enabled": true}, {"category": "Security", "enabled": false},
                {"category": null, "categoryGroup": "allLogs", "enabled": true}, {"category": "Policy"},
                {"enabled": true}],
            "storageAccountId": "/sa", "workspaceId": "/ws", "eventHubAuthorizationRuleId": "/eh"}});
        let record = one(diagnostic_setting(Item { raw: &raw(&setting), parent: "" }));
        assert_eq!(record["raw"], setting);
        assert_eq!(record["com"]["record_type"], "diagnostic_setting");
        assert_eq!(record["ext"]["categories"], json!(["Administrative", "allLogs"]));
        assert_eq!(record["ext"]["storage_account_id"], "/sa");
        assert_eq!(record["ext"]["workspace_id"], "/ws");
        assert_eq!(record["ext"]["event_hub_rule_id"], "/eh");
        let record = one(diagnostic_setting(Item { raw: &raw(&json!({"id": "/ds"})), parent: "" }));
        assert_eq!(record["ext"]["categories"], json!([]));
        assert_eq!(record["ext"].get("workspace_id"), Some(&Value::Null));
    }

    #[test]
    fn settings_export_what_is_enabled_to_somewhere() {
        let of = |properties: Value| exports(&raw(&json!({"id": "/ds", "properties": properties}))).unwrap();
        let logs = json!([{"category": "Policy", "enabled": false}, {"category": "Security", "enabled": true}]);
        for destination in [
            "storageAccountId",
            "workspaceId",
            "eventHubAuthorizationRuleId",
            "serviceBusRuleId",
            "marketplacePartnerId",
        ] {
            assert!(of(json!({"logs": logs, destination: "/d"})), "{destination}");
            assert!(!of(json!({"logs": logs, destination: ""})), "{destination}");
        }
        for properties in [
            Value::Null,
            json!({}),
            json!({"logs": logs}),
            json!({"logs": null, "workspaceId": "/ws"}),
            json!({"logs": [], "workspaceId": "/ws"}),
            json!({"logs": [{"category": "Policy", "enabled": false}, {"category": "X"}], "workspaceId": "/ws"}),
        ] {
            assert!(!of(properties.clone()), "{properties}");
        }
        assert!(exports(&raw(&json!({"id": "/ds", "properties": {"logs": {}}}))).is_err());
    }

    #[test]
    fn a_location_has_a_name() {
        assert_eq!(location_name(&raw(&json!({"id": "/l", "name": "eastus", "type": "Region"}))).unwrap(), "eastus");
        let error = location_name(&raw(&json!({"id": "/l", "name": 5}))).unwrap_err().to_string();
        assert!(error.starts_with("a location /l cannot be understood: "), "{error}");
    }

    #[test]
    fn what_is_wrong_costs_itself_only() {
        let profile = json!({"id": "/lp", "properties": {"categories": ["Write"], "locations": ["global"],
            "retentionPolicy": {"enabled": true, "days": 5}}});
        refuses_flaws(&profile, |json| log_profile(&raw(json), None).map(drop));
        let setting = json!({"id": "/ds", "properties": {
            "logs": [{"category": "Administrative", "categoryGroup": "audit", "enabled": true}],
            "storageAccountId": "/sa", "workspaceId": "/ws", "eventHubAuthorizationRuleId": "/eh"}});
        refuses_flaws(&setting, |json| diagnostic_setting(Item { raw: &raw(json), parent: "" }).map(drop));
    }
}
