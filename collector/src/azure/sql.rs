//! The plugin `AzSQL`: databases of SQL servers, each with its transparent data encryption.
//!
//! Reference: <https://learn.microsoft.com/rest/api/sql/servers/list>,
//! <https://learn.microsoft.com/rest/api/sql/databases/list-by-server> and
//! <https://learn.microsoft.com/rest/api/sql/transparent-data-encryptions/get>, the definitions `Database` and
//! `LogicalDatabaseTransparentDataEncryption`.

use proto::catalogue::PluginClass;
use proto::plan::Stage;
use proto::record::Text;
use proto::subject::Role;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;
use super::resource::{Made, Malformed, Raw, Record, checked_id, id_of, joined};
use super::service::{Base, Detail, Item, Items, List, Plugin};
use crate::fields::Fields;

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.azsql.AzSQL",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(&|params| super::engine::check(&PLUGIN, params)),
};

const NAME: &str = "sql_db";
const API_VERSION: &str = "2023-08-01";

/// What it reads.
pub(super) const PLUGIN: Plugin = Plugin {
    lists: &[List {
        name: "sql_server",
        base: Base::Subscription,
        path: "/providers/Microsoft.Sql/servers",
        api_version: API_VERSION,
        retired: false,
        items: Items::Lists(
            server,
            &[List {
                name: NAME,
                base: Base::Resource,
                path: "/databases",
                api_version: API_VERSION,
                retired: false,
                items: Items::Details(&Detail {
                    path: "/transparentDataEncryption/current",
                    api_version: API_VERSION,
                    is_list: false,
                    maker: database,
                }),
            }],
        ),
    }],
    emits_subscriptions: false,
};

/// A database, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Database<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

/// The encryption of a database, in the shape of the API.
#[derive(Debug, Deserialize)]
struct Encryption<'a> {
    #[serde(borrow)]
    properties: Option<EncryptionProperties<'a>>,
}

#[derive(Debug, Deserialize)]
struct EncryptionProperties<'a> {
    #[serde(borrow)]
    state: Option<Text<'a>>,
    /// What versions of the API before 2020 call the state.
    #[serde(borrow)]
    status: Option<Text<'a>>,
}

/// A server is no record of this plugin; its databases are.
fn server(item: Item<'_>) -> Result<Made<'_>, Malformed> {
    id_of("an SQL server", item.raw)?;
    Ok(Made::default())
}

/// The record of a database and its encryption.
fn database<'a>(item: Item<'a>, answer: &'a RawValue) -> Result<Made<'a>, Malformed> {
    let database: Database<'a> = answer::item("an SQL database", item.raw)?;
    let id = checked_id("an SQL database", database.id)?;
    let encryption: Encryption<'a> = answer::part("the transparent data encryption", &id, answer)?;
    let raw = joined(item.raw, "transparent_data_encryption", answer)?;
    let state = encryption.properties.and_then(|properties| properties.state.or(properties.status));
    let name = database.name.as_deref().or_else(|| answer::name_of(&id));
    let ext = Fields::new()
        .with("tde_enabled", state.map(|state| &*state == "Enabled"))
        .with("server_name", answer::name_of(item.parent))
        .with("system_database", name.is_some_and(|name| name.eq_ignore_ascii_case("master")));
    let com = Fields::new();
    Ok(Made::one(Record { record_type: NAME, common_type: Some("database"), id, raw: Raw::Joined(raw), ext, com }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::vectors::{one, raw, refuses_flaws};
    use super::*;

    const SERVER: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Sql/servers/sql1";

    fn made(database_json: &Value, encryption: &Value) -> Value {
        one(database(Item { raw: &raw(database_json), parent: SERVER }, &raw(encryption)))
    }

    #[test]
    fn encryption_is_told_by_its_state_or_of_old_by_its_status() {
        for (encryption, enabled) in [
            (json!({"properties": {"state": "Enabled"}}), Some(true)),
            (json!({"properties": {"state": "Disabled"}}), Some(false)),
            (json!({"properties": {"status": "Enabled"}}), Some(true)),
            (json!({"properties": {"state": "Disabled", "status": "Enabled"}}), Some(false)),
            // What is not said is not known.
            (json!({"properties": {"state": null, "status": null}}), None),
            (json!({"properties": null}), None),
            (json!({}), None),
        ] {
            let record = made(&json!({"id": "/db", "name": "d1"}), &encryption);
            assert_eq!(record["ext"]["tde_enabled"], json!(enabled), "{encryption}");
            let joined = json!({"id": "/db", "name": "d1", "transparent_data_encryption": encryption});
            assert_eq!(record["raw"], joined);
            assert_eq!(record["ext"]["server_name"], "sql1");
        }
    }

    #[test]
    fn master_is_a_system_database() {
        for (database, system) in [
            (json!({"id": format!("{SERVER}/databases/master"), "name": "master"}), true),
            (json!({"id": format!("{SERVER}/databases/master"), "name": null}), true),
            (json!({"id": format!("{SERVER}/databases/d1"), "name": "d1"}), false),
            (json!({"id": format!("{SERVER}/databases/d1")}), false),
        ] {
            assert_eq!(made(&database, &json!({}))["ext"]["system_database"], json!(system), "{database}");
        }
    }

    #[test]
    fn a_server_leads_to_its_databases_and_is_no_record() {
        let server_json = raw(&json!({"id": SERVER}));
        assert!(server(Item { raw: &server_json, parent: "" }).unwrap().records.is_empty());
        assert!(server(Item { raw: &raw(&json!({"name": "sql1"})), parent: "" }).is_err());
    }

    #[test]
    fn what_is_wrong_costs_the_database() {
        let good = json!({"id": "/db", "name": "d1"});
        let encryption = json!({"properties": {"state": "Enabled", "status": "Enabled"}});
        let of = |db: &Value, tde: &Value| database(Item { raw: &raw(db), parent: SERVER }, &raw(tde)).map(drop);
        refuses_flaws(&good, |db| of(db, &encryption));
        refuses_flaws(&encryption, |tde| of(&good, tde));
    }
}
