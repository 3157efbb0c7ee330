//! MySQL servers, two lists of the plugin `AzCloud`: single servers, which Azure has retired, and flexible servers, which
//! have taken their place.
//!
//! Reference: <https://learn.microsoft.com/rest/api/mysql/singleserver/servers/list>;
//! <https://learn.microsoft.com/rest/api/mysql/flexibleserver/servers/list> and
//! <https://learn.microsoft.com/rest/api/mysql/flexibleserver/configurations/get>; the definitions `Server` and
//! `Configuration`.

use std::borrow::Cow;

use proto::record::Text;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;
use super::resource::{Made, Malformed, Raw, Record, checked_id, joined};
use super::service::{Base, Detail, Item, Items, List};
use crate::fields::Fields;

const NAME: &str = "mysql_server";
const FLEXIBLE_API_VERSION: &str = "2023-12-30";

/// The single servers.
pub(super) const SINGLE_SERVERS: List = List {
    name: NAME,
    base: Base::Subscription,
    path: "/providers/Microsoft.DBforMySQL/servers",
    api_version: "2017-12-01",
    retired: true,
    items: Items::Records(single),
};

/// The flexible servers.
pub(super) const FLEXIBLE_SERVERS: List = List {
    name: "mysql_flexible_server",
    base: Base::Subscription,
    path: "/providers/Microsoft.DBforMySQL/flexibleServers",
    api_version: FLEXIBLE_API_VERSION,
    retired: false,
    items: Items::Details(&Detail {
        path: "/configurations/require_secure_transport",
        api_version: FLEXIBLE_API_VERSION,
        is_list: false,
        maker: flexible,
    }),
};

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

/// A setting, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Configuration<'a> {
    #[serde(borrow)]
    properties: Option<ConfigurationProperties<'a>>,
}

#[derive(Debug, Deserialize)]
struct ConfigurationProperties<'a> {
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

/// The record of a single server.
fn single(item: Item<'_>) -> Result<Made<'_>, Malformed> {
    let server: Server<'_> = answer::item("a MySQL server", item.raw)?;
    let id = checked_id("a MySQL server", server.id)?;
    let enforcement = server.properties.and_then(|properties| properties.ssl_enforcement);
    let tls_enforced = enforcement.map(|enforcement| &*enforcement == "Enabled");
    Ok(made(id, Raw::Answer(item.raw), "single", tls_enforced))
}

/// The record of a flexible server and its setting `require_secure_transport`.
fn flexible<'a>(item: Item<'a>, configuration: &'a RawValue) -> Result<Made<'a>, Malformed> {
    let server: Server<'a> = answer::item("a MySQL server", item.raw)?;
    let id = checked_id("a MySQL server", server.id)?;
    let setting: Configuration<'a> = answer::part("the configuration require_secure_transport", &id, configuration)?;
    let value = setting.properties.and_then(|properties| properties.value);
    let tls_enforced = value.map(|value| value.eq_ignore_ascii_case("on"));
    // A list, as for PostgreSQL servers, so that a rule reads both alike.
    let list = RawValue::from_string(format!("[{}]", configuration.get()))
        .map_err(|error| Malformed(format!("the configuration of {id} cannot be put into a list: {error}")))?;
    let raw = joined(item.raw, "configuration", &list)?;
    Ok(made(id, Raw::Joined(raw), "flexible", tls_enforced))
}

fn made<'a>(id: Cow<'a, str>, raw: Raw<'a>, kind: &'static str, tls_enforced: Option<bool>) -> Made<'a> {
    let ext = Fields::new().with("reference", id.clone()).with("server_kind", kind);
    let com = Fields::new().with("tls_enforced", tls_enforced);
    Made::one(Record { record_type: NAME, common_type: Some("rdbms"), id, raw, ext, com })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::vectors::{one, raw, refuses_flaws};
    use super::*;

    #[test]
    fn a_flexible_server_says_by_a_setting_whether_it_wants_tls() {
        for (properties, expected) in [
            (json!({"value": "ON", "dataType": "Enumeration"}), json!(true)),
            (json!({"value": "on"}), json!(true)),
            (json!({"value": "OFF"}), json!(false)),
            (json!({"value": null}), Value::Null),
            (json!({}), Value::Null),
            (Value::Null, Value::Null),
        ] {
            let configuration = json!({"id": "/m/c", "name": "require_secure_transport", "properties": properties});
            let record = one(flexible(Item { raw: &raw(&json!({"id": "/m"})), parent: "" }, &raw(&configuration)));
            assert_eq!(record["raw"], json!({"id": "/m", "configuration": [configuration]}));
            assert_eq!(record["ext"]["record_type"], "mysql_server");
            assert_eq!(
                (&record["ext"]["reference"], &record["ext"]["server_kind"]),
                (&json!("/m"), &json!("flexible"))
            );
            let com =
                json!({"cloud_type": "azure", "record_type": "rdbms", "reference": "/m", "tls_enforced": expected});
            assert_eq!(record["com"], com, "{properties}");
        }
    }

    #[test]
    fn a_single_server_that_does_not_say_is_not_accused() {
        for server in [json!({"id": "/m"}), json!({"id": "/m", "properties": {"sslEnforcement": null}})] {
            let record = one(single(Item { raw: &raw(&server), parent: "" }));
            assert_eq!(record["com"].get("tls_enforced"), Some(&Value::Null));
            assert_eq!(record["ext"]["server_kind"], "single");
        }
    }

    #[test]
    fn what_is_wrong_costs_the_server() {
        let good = json!({"id": "/m", "properties": {"sslEnforcement": "Enabled"}});
        let setting = json!({"properties": {"value": "ON"}});
        refuses_flaws(&good, |server| single(Item { raw: &raw(server), parent: "" }).map(drop));
        refuses_flaws(&good, |server| flexible(Item { raw: &raw(server), parent: "" }, &raw(&setting)).map(drop));
        refuses_flaws(&setting, |setting| flexible(Item { raw: &raw(&good), parent: "" }, &raw(setting)).map(drop));
    }
}
