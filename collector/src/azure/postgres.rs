//! The plugin `AzPostgres`: PostgreSQL servers with their settings: single servers, which Azure retires, and flexible
//! servers, which have taken their place.
//!
//! Reference: <https://learn.microsoft.com/rest/api/postgresql/singleserver/servers/list> and
//! <https://learn.microsoft.com/rest/api/postgresql/singleserver/configurations/list-by-server>;
//! <https://learn.microsoft.com/rest/api/postgresql/servers/list-by-subscription> and
//! <https://learn.microsoft.com/rest/api/postgresql/configurations/list-by-server>; the definitions `Server` and
//! `Configuration`.

use proto::catalogue::PluginClass;
use proto::plan::Stage;
use proto::record::Text;
use proto::subject::Role;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;
use super::resource::{Made, Malformed, Raw, Record, checked_id, joined};
use super::service::{Base, Detail, Item, Items, List, Plugin};
use crate::fields::{Field, Fields};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.azpostgres.AzPostgres",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(&|params| super::engine::check(&PLUGIN, params)),
};

const NAME: &str = "postgresql_server";
const SINGLE_API_VERSION: &str = "2017-12-01";
const FLEXIBLE_API_VERSION: &str = "2024-08-01";

/// What it reads.
pub(super) const PLUGIN: Plugin = Plugin {
    lists: &[
        List {
            name: NAME,
            base: Base::Subscription,
            path: "/providers/Microsoft.DBforPostgreSQL/servers",
            api_version: SINGLE_API_VERSION,
            retired: true,
            items: Items::Details(&Detail {
                path: "/configurations",
                api_version: SINGLE_API_VERSION,
                is_list: true,
                maker: single,
            }),
        },
        List {
            name: "postgresql_flexible_server",
            base: Base::Subscription,
            path: "/providers/Microsoft.DBforPostgreSQL/flexibleServers",
            api_version: FLEXIBLE_API_VERSION,
            retired: false,
            items: Items::Details(&Detail {
                path: "/configurations",
                api_version: FLEXIBLE_API_VERSION,
                is_list: true,
                maker: flexible,
            }),
        },
    ],
    emits_subscriptions: false,
};

/// A setting that `ext` tells.
struct Setting {
    /// Its name on single servers.
    single: &'static str,
    /// Its name on flexible servers.
    flexible: &'static str,
    /// What `ext` calls a truth value.
    boolean: &'static str,
    /// What `ext` calls a whole number.
    integer: &'static str,
}

/// The settings that `ext` tells, under the names of single servers.
const SETTINGS: &[Setting] = &[
    Setting {
        single: "log_checkpoints",
        flexible: "log_checkpoints",
        boolean: "log_checkpoints_enabled",
        integer: "log_checkpoints",
    },
    Setting {
        single: "log_connections",
        flexible: "log_connections",
        boolean: "log_connections_enabled",
        integer: "log_connections",
    },
    Setting {
        single: "log_disconnections",
        flexible: "log_disconnections",
        boolean: "log_disconnections_enabled",
        integer: "log_disconnections",
    },
    Setting {
        single: "log_duration",
        flexible: "log_duration",
        boolean: "log_duration_enabled",
        integer: "log_duration",
    },
    Setting {
        single: "connection_throttling",
        flexible: "connection_throttle.enable",
        boolean: "connection_throttling_enabled",
        integer: "connection_throttling",
    },
    Setting {
        single: "log_retention_days",
        flexible: "logfiles.retention_days",
        boolean: "log_retention_days_enabled",
        integer: "log_retention_days",
    },
];

/// The setting by which a flexible server refuses what is not TLS.
const REQUIRE_TLS: &str = "require_secure_transport";

/// A server, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Server<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    properties: Option<ServerProperties<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerProperties<'a> {
    #[serde(borrow)]
    ssl_enforcement: Option<Text<'a>>,
}

/// A setting, in the shape of the API. There are hundreds, so that only those that count are read further.
#[derive(Debug, Deserialize)]
struct Configuration<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationProperties<'a> {
    #[serde(borrow)]
    value: Option<Text<'a>>,
    #[serde(borrow)]
    data_type: Option<Text<'a>>,
}

fn is_on(value: &str) -> bool {
    value.eq_ignore_ascii_case("on")
}

/// What a server's settings say.
#[derive(Default)]
struct Settings {
    /// One for each of [`SETTINGS`] that is set and understood.
    known: [Option<(&'static str, Field<'static>)>; SETTINGS.len()],
    requires_tls: Option<bool>,
    /// Those that are set and not understood, each with the reason.
    lost: Vec<String>,
}

impl Settings {
    /// Of several of one name the last counts, as in the Python tool.
    fn read(server: &str, configurations: &[&RawValue], name: fn(&Setting) -> &str) -> Self {
        let mut settings = Self::default();
        for raw in configurations {
            if let Err(Malformed(reason)) = settings.add(server, raw, name) {
                settings.lost.push(reason);
            }
        }
        settings
    }

    fn add(&mut self, server: &str, raw: &RawValue, name: fn(&Setting) -> &str) -> Result<(), Malformed> {
        let configuration: Configuration<'_> = answer::part("a configuration", server, raw)?;
        let (Some(set), Some(properties)) = (configuration.name, configuration.properties) else { return Ok(()) };
        let known = SETTINGS.iter().zip(&mut self.known).find(|(setting, _)| name(setting) == &*set);
        if known.is_none() && &*set != REQUIRE_TLS {
            return Ok(());
        }
        let what = format!("the configuration {}", &*set);
        let properties: Option<ConfigurationProperties<'_>> = answer::part(&what, server, properties)?;
        let Some(ConfigurationProperties { value: Some(value), data_type }) = properties else { return Ok(()) };
        let Some((setting, told)) = known else {
            self.requires_tls = Some(is_on(&value));
            return Ok(());
        };
        *told = match data_type.as_deref() {
            Some("Boolean") => Some((setting.boolean, is_on(&value).into())),
            Some("Integer") => {
                let number: i64 = value
                    .trim()
                    .parse()
                    .map_err(|_| Malformed(format!("{what} of {server} is not a whole number: {:?}", &*value)))?;
                Some((setting.integer, number.into()))
            }
            _ => return Ok(()),
        };
        Ok(())
    }
}

/// The record of a single server and its settings.
fn single<'a>(item: Item<'a>, configurations: &'a RawValue) -> Result<Made<'a>, Malformed> {
    made(item, configurations, "single", |setting| setting.single)
}

/// The record of a flexible server and its settings.
fn flexible<'a>(item: Item<'a>, configurations: &'a RawValue) -> Result<Made<'a>, Malformed> {
    made(item, configurations, "flexible", |setting| setting.flexible)
}

fn made<'a>(
    item: Item<'a>,
    configurations: &'a RawValue,
    kind: &'static str,
    name: fn(&Setting) -> &str,
) -> Result<Made<'a>, Malformed> {
    let server: Server<'a> = answer::item("a PostgreSQL server", item.raw)?;
    let id = checked_id("a PostgreSQL server", server.id)?;
    let list: Vec<&RawValue> = answer::part("the configuration", &id, configurations)?;
    let raw = joined(item.raw, "configuration", configurations)?;
    let settings = Settings::read(&id, &list, name);
    let enforcement = server.properties.and_then(|properties| properties.ssl_enforcement);
    let tls_enforced = match kind {
        "single" => enforcement.map(|enforcement| &*enforcement == "Enabled"),
        _ => settings.requires_tls,
    };
    let mut ext = Fields::new().with("server_kind", kind);
    for (name, value) in settings.known.into_iter().flatten() {
        ext.set(name, value);
    }
    let com = Fields::new().with("tls_enforced", tls_enforced);
    let record = Record { record_type: NAME, common_type: Some("rdbms"), id, raw: Raw::Joined(raw), ext, com };
    Ok(Made { records: vec![record], lost: settings.lost })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::service::DetailMaker;
    use super::super::vectors::{one, raw, refuses_flaws, written};
    use super::*;

    fn setting(name: &str, value: &Value, data_type: &str) -> Value {
        json!({"id": format!("/pg/configurations/{name}"), "name": name,
            "properties": {"value": value, "dataType": data_type}})
    }

    fn record(maker: DetailMaker, server: &Value, settings: &Value) -> Value {
        one(maker(Item { raw: &raw(server), parent: "" }, &raw(settings)))
    }

    #[test]
    fn a_flexible_server_tells_the_same_by_other_names() {
        let settings = json!([
            setting("log_checkpoints", &json!("on"), "Boolean"),
            setting("connection_throttle.enable", &json!("ON"), "Boolean"),
            setting("logfiles.retention_days", &json!("7"), "Integer"),
            setting("connection_throttling", &json!("off"), "Boolean"),
            setting("log_retention_days", &json!("1"), "Integer"),
            setting("require_secure_transport", &json!("On"), "Boolean"),
        ]);
        let flexible_record =
            record(flexible, &json!({"id": "/pg", "properties": {"sslEnforcement": "Disabled"}}), &settings);
        assert_eq!(flexible_record["raw"]["configuration"], settings);
        let ext = &flexible_record["ext"];
        assert_eq!((&ext["record_type"], &ext["server_kind"]), (&json!("postgresql_server"), &json!("flexible")));
        assert_eq!(ext["log_checkpoints_enabled"], true);
        assert_eq!(ext["connection_throttling_enabled"], true);
        assert_eq!(ext["log_retention_days"], 7);
        assert_eq!(ext.get("log_duration_enabled"), None);
        assert_eq!(
            flexible_record["com"],
            json!({"cloud_type": "azure", "record_type": "rdbms", "reference": "/pg", "tls_enforced": true})
        );
        let single_record = record(single, &json!({"id": "/pg"}), &settings);
        assert_eq!(single_record["ext"]["server_kind"], "single");
        assert_eq!(single_record["ext"]["connection_throttling_enabled"], false);
        assert_eq!(single_record["ext"]["log_retention_days"], 1);
    }

    #[test]
    fn each_kind_says_in_its_own_way_whether_it_wants_tls() {
        let set = |value: &str| json!([setting("require_secure_transport", &json!(value), "Boolean")]);
        let server = |enforcement: &Value| json!({"id": "/pg", "properties": {"sslEnforcement": enforcement}});
        for (maker, server, settings, expected) in [
            (single as DetailMaker, server(&json!("Enabled")), set("off"), json!(true)),
            (single, server(&json!("Disabled")), set("on"), json!(false)),
            (single, server(&Value::Null), set("on"), Value::Null),
            (single, json!({"id": "/pg"}), set("on"), Value::Null),
            (flexible, server(&json!("Disabled")), set("ON"), json!(true)),
            (flexible, server(&json!("Enabled")), set("off"), json!(false)),
            (flexible, server(&json!("Enabled")), json!([]), Value::Null),
        ] {
            assert_eq!(record(maker, &server, &settings)["com"].get("tls_enforced"), Some(&expected));
        }
    }

    #[test]
    fn a_setting_that_is_not_understood_is_lost_alone() {
        let settings = json!([
            setting("log_retention_days", &json!("x"), "Integer"),
            setting("log_duration", &json!(5), "Boolean"),
            setting("array_nulls", &json!(5), "Boolean"),
            5,
            {"name": "log_connections"},
            {"name": null, "properties": null},
            setting("log_disconnections", &Value::Null, "Boolean"),
            setting("log_checkpoints", &json!("on"), "Boolean"),
        ]);
        let (server, settings) = (raw(&json!({"id": "/pg"})), raw(&settings));
        let made = single(Item { raw: &server, parent: "" }, &settings).unwrap();
        let ext = written(&made.records[0])["ext"].clone();
        assert_eq!(ext["log_checkpoints_enabled"], true);
        for lost in ["log_retention_days", "log_duration_enabled", "log_connections_enabled"] {
            assert_eq!(ext.get(lost), None, "{lost}");
        }
        assert_eq!(made.lost.len(), 3, "{:?}", made.lost);
        assert_eq!(made.lost[0], r#"the configuration log_retention_days of /pg is not a whole number: "x""#);
        assert!(
            made.lost[1].starts_with("the configuration log_duration of /pg cannot be understood: "),
            "{:?}",
            made.lost
        );
    }

    #[test]
    fn what_is_wrong_costs_the_server() {
        let good = json!({"id": "/pg", "properties": {"sslEnforcement": "Enabled"}});
        for maker in [single as DetailMaker, flexible] {
            refuses_flaws(&good, |server| maker(Item { raw: &raw(server), parent: "" }, &raw(&json!([]))).map(drop));
            for bad in [json!(null), json!({}), json!("x"), json!({"value": []})] {
                let error = maker(Item { raw: &raw(&good), parent: "" }, &raw(&bad)).unwrap_err().to_string();
                assert!(error.starts_with("the configuration of /pg cannot be understood: "), "{error}");
            }
        }
    }
}
