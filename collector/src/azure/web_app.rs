//! The plugin `AzWebApp`: web apps with their configuration.
//!
//! The list has a configuration, too, but it is a stub of nulls; what counts is the call for each app.
//!
//! Reference: <https://learn.microsoft.com/rest/api/appservice/web-apps/list> and
//! <https://learn.microsoft.com/rest/api/appservice/web-apps/get-configuration>, the definitions `Site` and
//! `SiteConfigResource`.

use proto::catalogue::PluginClass;
use proto::plan::Stage;
use proto::record::Text;
use proto::subject::Role;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;
use super::resource::{Made, Malformed, Raw, Record, checked_id, joined};
use super::service::{Base, Detail, Item, Items, List, Plugin};
use crate::fields::Fields;

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.azwebapp.AzWebApp",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(&|params| super::engine::check(&PLUGIN, params)),
};

const NAME: &str = "web_app_config";
const API_VERSION: &str = "2023-12-01";

/// What it reads.
pub(super) const PLUGIN: Plugin = Plugin {
    lists: &[List {
        name: NAME,
        base: Base::Subscription,
        path: "/providers/Microsoft.Web/sites",
        api_version: API_VERSION,
        retired: false,
        items: Items::Details(&Detail {
            path: "/config/web",
            api_version: API_VERSION,
            is_list: false,
            maker: records,
        }),
    }],
    emits_subscriptions: false,
};

/// An app, in the shape of the API.
#[derive(Debug, Deserialize)]
struct App<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    properties: Option<AppProperties>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppProperties {
    https_only: Option<bool>,
    client_cert_enabled: Option<bool>,
}

/// The configuration of an app, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Config<'a> {
    #[serde(borrow)]
    properties: Option<ConfigProperties<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigProperties<'a> {
    http20_enabled: Option<bool>,
    #[serde(borrow)]
    min_tls_version: Option<Text<'a>>,
    #[serde(borrow)]
    ftps_state: Option<Text<'a>>,
    remote_debugging_enabled: Option<bool>,
}

/// The record of an app and its configuration.
fn records<'a>(item: Item<'a>, answer: &'a RawValue) -> Result<Made<'a>, Malformed> {
    let app: App<'a> = answer::item("a web app", item.raw)?;
    let id = checked_id("a web app", app.id)?;
    let config: Config<'a> = answer::part("the configuration", &id, answer)?;
    let raw = joined(item.raw, "config", answer)?;
    let (properties, config) = (app.properties.unwrap_or_default(), config.properties.unwrap_or_default());
    let ext = Fields::new()
        .with("https_only", properties.https_only)
        .with("client_cert_enabled", properties.client_cert_enabled)
        .with("http20_enabled", config.http20_enabled)
        .with("min_tls_version", config.min_tls_version)
        .with("ftps_state", config.ftps_state)
        .with("remote_debugging_enabled", config.remote_debugging_enabled)
        .with("kind", app.kind);
    let com = Fields::new();
    Ok(Made::one(Record { record_type: NAME, common_type: Some(NAME), id, raw: Raw::Joined(raw), ext, com }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::vectors::{one, raw, refuses_flaws};
    use super::*;

    fn made(app: &Value, config: &Value) -> Value {
        one(records(Item { raw: &raw(app), parent: "" }, &raw(config)))
    }

    #[test]
    fn what_an_app_allows_comes_of_both_answers() {
        let app = json!({"id": "/w", "kind": "app,linux", "properties": {"httpsOnly": true, "clientCertEnabled": false,
            "siteConfig": {"minTlsVersion": null, "http20Enabled": null}}});
        let config = json!({"id": "/w/config/web", "properties": {"http20Enabled": true, "minTlsVersion": "1.3",
            "ftpsState": "FtpsOnly", "remoteDebuggingEnabled": false}});
        let record = made(&app, &config);
        assert_eq!(record["raw"]["config"], config);
        assert_eq!(record["raw"]["properties"], app["properties"]);
        assert_eq!(record["com"], json!({"cloud_type": "azure", "record_type": "web_app_config", "reference": "/w"}));
        for (field, value) in [
            ("https_only", json!(true)),
            ("client_cert_enabled", json!(false)),
            ("http20_enabled", json!(true)),
            ("min_tls_version", json!("1.3")),
            ("ftps_state", json!("FtpsOnly")),
            ("remote_debugging_enabled", json!(false)),
            ("kind", json!("app,linux")),
        ] {
            assert_eq!(record["ext"][field], value, "{field}");
            for properties in [Value::Null, json!({})] {
                let bare = made(&json!({"id": "/w", "properties": properties}), &json!({"properties": properties}));
                assert_eq!(bare["ext"].get(field), Some(&Value::Null), "{field}");
            }
        }
    }

    #[test]
    fn what_is_wrong_costs_the_app() {
        let app = json!({"id": "/w", "kind": "app", "properties": {"httpsOnly": true, "clientCertEnabled": false}});
        let config = json!({"properties": {"http20Enabled": true, "minTlsVersion": "1.2", "ftpsState": "Disabled",
            "remoteDebuggingEnabled": false}});
        let of = |app: &Value, config: &Value| records(Item { raw: &raw(app), parent: "" }, &raw(config)).map(drop);
        refuses_flaws(&app, |app| of(app, &config));
        refuses_flaws(&config, |config| of(&app, config));
        let error = of(&app, &json!({"properties": 5})).unwrap_err().to_string();
        assert!(error.starts_with("the configuration of /w cannot be understood: "), "{error}");
    }
}
