//! What the records of Azure's plugins must be, derived from the truth of the simulated Azure by the contract between
//! collector and rules, and by nothing of the collector's.

#![allow(dead_code, reason = "each test takes what it needs")]

use serde_json::{Map, Value, json};
use tests::cloudsim::{Cloudsim, Estate, Kind, Oddity};

/// A record as it must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    pub record_type: &'static str,
    pub key: String,
    pub raw: Value,
    pub ext: Value,
    /// Without what every record has by its identity and origin.
    pub com: Value,
}

/// A list of a plugin: what it is called in coverage, and what there is of it.
#[derive(Debug, Clone, Copy)]
pub struct List {
    pub class: &'static str,
    /// Its name in units and in coverage.
    pub name: &'static str,
    pub kind: Kind,
    /// What each item takes a call of its own for.
    pub detail: Option<Kind>,
    /// The record type and the common type; none if the items are no records.
    pub types: Option<(&'static str, Option<&'static str>)>,
}

const fn plain(class: &'static str, name: &'static str, kind: Kind, common: Option<&'static str>) -> List {
    List { class, name, kind, detail: None, types: Some((name, common)) }
}

const fn detailed(
    class: &'static str,
    name: &'static str,
    kind: Kind,
    detail: Kind,
    types: (&'static str, Option<&'static str>),
) -> List {
    List { class, name, kind, detail: Some(detail), types: Some(types) }
}

/// All that the nine plugins read in a subscription.
pub const LISTS: &[List] = &[
    plain("AzCloud", "virtual_machine", Kind::VirtualMachine, Some("compute")),
    plain("AzCloud", "app_gateway", Kind::ApplicationGateway, None),
    plain("AzCloud", "lb", Kind::LoadBalancer, None),
    plain("AzCloud", "nic", Kind::NetworkInterface, None),
    plain("AzCloud", "nsg", Kind::NetworkSecurityGroup, None),
    plain("AzCloud", "public_ip", Kind::PublicIpAddress, None),
    plain("AzCloud", "storage_account", Kind::StorageAccount, None),
    plain("AzCloud", "resource_group", Kind::ResourceGroup, None),
    plain("AzCloud", "mysql_server", Kind::MysqlServer, Some("rdbms")),
    detailed(
        "AzCloud",
        "mysql_flexible_server",
        Kind::MysqlFlexibleServer,
        Kind::MysqlFlexibleConfigurations,
        ("mysql_server", Some("rdbms")),
    ),
    plain("AzCloud", "web_apps", Kind::WebApp, None),
    detailed(
        "AzVM",
        "vm_instance_view",
        Kind::VirtualMachine,
        Kind::InstanceView,
        ("vm_instance_view", Some("compute")),
    ),
    plain("AzDisk", "disk", Kind::Disk, Some("disk")),
    plain("AzKV", "key_vault", Kind::Vault, Some("key_vault")),
    plain("AzKV", "key_vault_secret", Kind::VaultSecret, Some("key_vault_secret")),
    plain("AzKV", "key_vault_key", Kind::VaultKey, Some("key_vault_key")),
    plain("AzMonitor", "log_profile", Kind::LogProfile, Some("log_profile")),
    plain("AzMonitor", "diagnostic_setting", Kind::DiagnosticSetting, Some("diagnostic_setting")),
    detailed(
        "AzPostgres",
        "postgresql_server",
        Kind::PostgresqlServer,
        Kind::PostgresqlConfigurations,
        ("postgresql_server", Some("rdbms")),
    ),
    detailed(
        "AzPostgres",
        "postgresql_flexible_server",
        Kind::PostgresqlFlexibleServer,
        Kind::PostgresqlFlexibleConfigurations,
        ("postgresql_server", Some("rdbms")),
    ),
    List { class: "AzSQL", name: "sql_server", kind: Kind::SqlServer, detail: None, types: None },
    detailed("AzSQL", "sql_db", Kind::SqlDatabase, Kind::TransparentDataEncryption, ("sql_db", Some("database"))),
    plain("AzStorageAccount", "storage_account_properties", Kind::StorageAccount, Some("storage_account_properties")),
    detailed(
        "AzWebApp",
        "web_app_config",
        Kind::WebApp,
        Kind::WebConfiguration,
        ("web_app_config", Some("web_app_config")),
    ),
];

/// The classes of the plugins.
pub const CLASSES: [&str; 9] =
    ["AzCloud", "AzVM", "AzDisk", "AzKV", "AzMonitor", "AzPostgres", "AzSQL", "AzStorageAccount", "AzWebApp"];

/// The list of this name.
pub fn list(name: &str) -> &'static List {
    let found = LISTS.iter().find(|list| list.name == name);
    found.unwrap_or_else(|| unreachable!("no list {name}"))
}

impl List {
    /// The records of the thing with this number: that of the thing itself comes last. None if it has no record
    /// because what would make it is not there.
    pub fn records(&self, cloud: &Cloudsim, subscription: usize, index: usize) -> Vec<Expected> {
        self.odd_records(cloud, subscription, index, None)
    }

    /// The same for a thing that is odd.
    pub fn odd_records(
        &self,
        cloud: &Cloudsim,
        subscription: usize,
        index: usize,
        oddity: Option<Oddity>,
    ) -> Vec<Expected> {
        let Some((record_type, common_type)) = self.types else { return Vec::new() };
        let estate = cloud.estate();
        let item = estate.item(subscription, self.kind, index);
        let item = oddity.map_or(item.clone(), |oddity| oddity.apply(item));
        let detail = self.detail.map(|detail| estate.item(subscription, detail, index));
        let Some(id) = item["id"].as_str().or(item["kid"].as_str()).map(str::to_owned) else { return Vec::new() };
        let Some((raw, ext, com)) = self.made(estate, subscription, index, &item, detail) else { return Vec::new() };
        let mut expected = Vec::new();
        if self.kind == Kind::NetworkSecurityGroup {
            for rule in array(&item["properties"]["securityRules"]) {
                expected.push(security_rule(cloud, subscription, &id, rule));
            }
        }
        let mut common = json!({"cloud_type": "azure", "record_type": common_type, "reference": id});
        add(&mut common, com);
        expected.push(Expected {
            record_type,
            key: id.to_lowercase(),
            raw,
            ext: full_ext(cloud, subscription, record_type, self.class, ext),
            com: common,
        });
        expected
    }

    /// `raw`, and what `ext` and `com` have beyond what all records have.
    fn made(
        &self,
        estate: &Estate,
        subscription: usize,
        index: usize,
        item: &Value,
        detail: Option<Value>,
    ) -> Option<(Value, Value, Value)> {
        let nothing = json!({});
        let joined = |name: &str, detail: &Value| {
            let mut raw = item.clone();
            raw[name] = detail.clone();
            raw
        };
        Some(match (self.name, detail) {
            ("vm_instance_view", Some(view)) => (joined("instance_view", &view), machine(item, &view), nothing),
            ("mysql_flexible_server", Some(settings)) => {
                let setting = array(&settings).iter().find(|one| one["name"] == "require_secure_transport")?;
                let on = setting["properties"]["value"].as_str().map(|value| value.eq_ignore_ascii_case("on"));
                let ext = json!({"reference": item["id"], "server_kind": "flexible"});
                (joined("configuration", &json!([setting])), ext, json!({"tls_enforced": on}))
            }
            ("postgresql_server", Some(settings)) => {
                let tls = item["properties"]["sslEnforcement"].as_str().map(|value| value == "Enabled");
                let ext = postgresql("single", &settings);
                (joined("configuration", &settings), ext, json!({"tls_enforced": tls}))
            }
            ("postgresql_flexible_server", Some(settings)) => {
                let setting = array(&settings).iter().find(|one| one["name"] == "require_secure_transport");
                let value = setting.and_then(|setting| setting["properties"]["value"].as_str());
                let tls = value.map(|value| value.eq_ignore_ascii_case("on"));
                let ext = postgresql("flexible", &settings);
                (joined("configuration", &settings), ext, json!({"tls_enforced": tls}))
            }
            ("sql_db", Some(encryption)) => {
                let id = item["id"].as_str().unwrap_or_default();
                let ext = json!({
                    "tde_enabled": encryption["properties"]["state"] == "Enabled",
                    "server_name": id.split('/').nth(8),
                    "system_database": item["name"] == "master",
                });
                (joined("transparent_data_encryption", &encryption), ext, nothing)
            }
            ("web_app_config", Some(config)) => {
                let (app, settings) = (&item["properties"], &config["properties"]);
                let ext = json!({
                    "https_only": app["httpsOnly"],
                    "client_cert_enabled": app["clientCertEnabled"],
                    "http20_enabled": settings["http20Enabled"],
                    "min_tls_version": settings["minTlsVersion"],
                    "ftps_state": settings["ftpsState"],
                    "remote_debugging_enabled": settings["remoteDebuggingEnabled"],
                    "kind": item["kind"],
                });
                (joined("config", &config), ext, nothing)
            }
            ("mysql_server", _) => {
                let tls = item["properties"]["sslEnforcement"].as_str().map(|value| value == "Enabled");
                let ext = json!({"reference": item["id"], "server_kind": "single"});
                (item.clone(), ext, json!({"tls_enforced": tls}))
            }
            ("disk", _) => (item.clone(), disk(item), nothing),
            ("key_vault", _) => (item.clone(), vault(item), nothing),
            ("key_vault_secret" | "key_vault_key", _) => {
                let vault = estate.id(subscription, Kind::Vault, estate.parent(subscription, self.kind, index));
                (item.clone(), vault_entry(item, &vault), nothing)
            }
            ("log_profile", _) => {
                let names: Vec<Value> =
                    estate.items(subscription, Kind::Location).map(|location| location["name"].clone()).collect();
                let properties = &item["properties"];
                let ext = json!({
                    "retention_enabled": properties["retentionPolicy"]["enabled"],
                    "retention_days": properties["retentionPolicy"]["days"],
                    "categories": properties["categories"],
                    "subscription_locations": names,
                    "locations": properties["locations"],
                });
                (item.clone(), ext, nothing)
            }
            ("diagnostic_setting", _) => (item.clone(), diagnostic_setting(item), nothing),
            ("storage_account_properties", _) => (item.clone(), storage_account(item), nothing),
            _ => (item.clone(), nothing.clone(), nothing),
        })
    }
}

/// The record of a subscription, which `AzCloud` alone has.
pub fn subscription(cloud: &Cloudsim, subscription: usize) -> Expected {
    let raw = json!(cloud.estate().subscription(subscription));
    let id = format!("/subscriptions/{}", cloud.estate().subscription_id(subscription));
    Expected {
        record_type: "subscription",
        key: id.to_lowercase(),
        raw,
        ext: full_ext(cloud, subscription, "subscription", "AzCloud", json!({})),
        com: json!({"cloud_type": "azure", "record_type": "subscription", "reference": id}),
    }
}

/// The record that a subscription has no log profile.
pub fn log_profile_missing(cloud: &Cloudsim, subscription: usize, diagnostic_settings: Option<usize>) -> Expected {
    let id = format!("/subscriptions/{}", cloud.estate().subscription_id(subscription));
    let record_type = "log_profile_missing";
    let ext = json!({"diagnostic_settings": diagnostic_settings});
    Expected {
        record_type,
        key: id.to_lowercase(),
        raw: Value::Null,
        ext: full_ext(cloud, subscription, record_type, "AzMonitor", ext),
        com: json!({"cloud_type": "azure", "record_type": record_type, "reference": id}),
    }
}

/// What a record's `com` says beyond its identity and origin.
pub fn essence_of_com(record: &Value) -> Value {
    let mut com = record["com"].clone();
    if let Value::Object(com) = &mut com {
        let is_added = |name: &str| ["audit_", "origin_", "target_"].iter().any(|prefix| name.starts_with(prefix));
        com.retain(|name, _| name != "id" && name != "key" && !is_added(name));
    }
    com
}

fn full_ext(cloud: &Cloudsim, subscription: usize, record_type: &str, class: &str, more: Value) -> Value {
    let subscription = json!(cloud.estate().subscription(subscription));
    let mut ext = json!({
        "cloud_type": "azure",
        "record_type": record_type,
        "subscription_id": subscription["subscriptionId"],
        "subscription_name": subscription["displayName"],
        "subscription_state": subscription["state"],
    });
    if class == "AzCloud" {
        ext["tenant_id"] = subscription["tenantId"].clone();
    }
    add(&mut ext, more);
    ext
}

fn add(to: &mut Value, more: Value) {
    if let (Value::Object(to), Value::Object(more)) = (to, more) {
        to.extend(more);
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A truth value, and false for all that is none.
fn is_true(value: &Value) -> bool {
    value == &json!(true)
}

fn security_rule(cloud: &Cloudsim, subscription: usize, nsg: &str, rule: &Value) -> Expected {
    let properties = &rule["properties"];
    let lower = |name: &str| properties[name].as_str().map(str::to_lowercase);
    let texts = |one: &str, many: &str| -> Vec<String> {
        let one = properties[one].as_str().into_iter();
        let one = one.filter(|text| !text.is_empty());
        one.chain(array(&properties[many]).iter().filter_map(Value::as_str)).map(str::to_owned).collect()
    };
    let word = |text: Option<String>, from: &[(&str, &str)]| {
        text.map(|text| from.iter().find(|(old, _)| *old == text).map_or(text.clone(), |(_, new)| (*new).to_owned()))
    };
    let sources: Vec<String> = texts("sourceAddressPrefix", "sourceAddressPrefixes")
        .into_iter()
        .map(|text| match text.to_lowercase().as_str() {
            "*" | "any" | "internet" => "0.0.0.0/0".to_owned(),
            _ => text,
        })
        .collect();
    let ports: Vec<String> = texts("destinationPortRange", "destinationPortRanges")
        .into_iter()
        .map(|text| if text == "*" { "0-65535".to_owned() } else { text })
        .collect();
    let mut ext = json!({"nsg_id": nsg, "security_rule_id": rule["id"], "priority": properties["priority"]});
    let groups = array(&properties["sourceApplicationSecurityGroups"]);
    if !groups.is_empty() {
        ext["source_application_security_groups"] = groups.iter().map(|group| group["id"].clone()).collect();
    }
    Expected {
        record_type: "security_rule",
        key: rule["id"].as_str().unwrap_or_default().to_lowercase(),
        raw: rule.clone(),
        ext: full_ext(cloud, subscription, "security_rule", "AzCloud", ext),
        com: json!({
            "cloud_type": "azure",
            "record_type": "firewall_rule",
            "reference": rule["id"],
            // Nobody knows whether a rule is in force whose update is under way or has failed.
            "enabled": (lower("provisioningState").as_deref() == Some("succeeded")).then_some(true),
            "direction": word(lower("direction"), &[("inbound", "in"), ("outbound", "out")]),
            "access": lower("access"),
            "source_addresses": (!sources.is_empty() || !groups.is_empty()).then_some(sources),
            "protocol": word(lower("protocol"), &[("*", "all")]),
            "destination_ports": ports,
        }),
    }
}

/// What protects a disk: the first that holds.
fn protection(disk: Option<&Value>, azure_disk_encryption: bool, at_host: bool) -> Value {
    let Some(disk) = disk.filter(|disk| disk.is_object()) else {
        return match (azure_disk_encryption, at_host) {
            (true, _) => json!("azure_disk_encryption"),
            (false, true) => json!("encryption_at_host"),
            (false, false) => Value::Null,
        };
    };
    let managed = &disk["managedDisk"];
    json!(match () {
        () if azure_disk_encryption => "azure_disk_encryption",
        () if at_host => "encryption_at_host",
        () if managed["diskEncryptionSet"]["id"].is_string() => "customer_managed_key",
        () if managed.is_object() => "platform_managed_key",
        () => "none",
    })
}

fn machine(machine: &Value, view: &Value) -> Value {
    let properties = &machine["properties"];
    let os_disk = &properties["storageProfile"]["osDisk"];
    let at_host = is_true(&properties["securityProfile"]["encryptionAtHost"]);
    let is_os_disk = |view: &&Value| view["name"] == os_disk["name"];
    let settings = |view: &Value| array(&view["encryptionSettings"]).to_vec();
    let any = |view: &Value| settings(view).iter().any(|one| is_true(&one["enabled"]));
    // As the Python tool has it: no settings are off, and of several the first counts.
    let first = |view: &Value| settings(view).first().map_or(json!(false), |first| first["enabled"].clone());
    // Settings none of which says whether they are enabled leave it open.
    let encrypted = |view: &Value| match settings(view) {
        all if all.is_empty() => json!(false),
        all if all.iter().all(|one| one["enabled"].is_null()) => Value::Null,
        _ => json!(any(view)),
    };
    let mut ext = json!({
        "os_disk_name": os_disk["name"],
        "encryption_at_host": at_host,
        "os_disk_encryption_set": os_disk["managedDisk"]["diskEncryptionSet"]["id"],
        "extensions": array(&view["extensions"]).iter().map(|one| one["name"].clone()).collect::<Vec<_>>(),
    });
    let codes = array(&view["statuses"]).iter().filter_map(|status| status["code"].as_str());
    if let Some(state) = codes.filter_map(|code| code.strip_prefix("PowerState/")).next_back() {
        ext["power_state"] = json!(state.to_lowercase());
    }
    let views = array(&view["disks"]);
    let os_view = views.iter().find(is_os_disk);
    if let Some(view) = os_view {
        ext["os_disk_encrypted"] = first(view);
    }
    ext["os_disk_encryption"] = protection(Some(os_disk), os_view.is_some_and(any), at_host);
    let data_views: Vec<&Value> = views.iter().filter(|view| !is_os_disk(view)).collect();
    for view in &data_views {
        if ext.get("all_data_disks_encrypted").is_none_or(is_true) {
            ext["all_data_disks_encrypted"] = first(view);
        }
    }
    // First what the machine has, then what only its view shows.
    let models = array(&properties["storageProfile"]["dataDisks"]);
    let described = |model: Option<&Value>, view: Option<&Value>| {
        json!({
            "name": model.or(view).map(|disk| disk["name"].clone()),
            "encrypted": view.map(encrypted),
            "encryption": protection(model, view.is_some_and(any), at_host),
            "encryption_set": model.map(|model| model["managedDisk"]["diskEncryptionSet"]["id"].clone()),
        })
    };
    let same = |one: &Value, other: &Value| one["name"].is_string() && one["name"] == other["name"];
    let of_models =
        models.iter().map(|model| described(Some(model), data_views.iter().copied().find(|view| same(view, model))));
    let only_seen = data_views.iter().copied().filter(|view| !models.iter().any(|model| same(view, model)));
    let disks: Vec<Value> = of_models.chain(only_seen.map(|view| described(None, Some(view)))).collect();
    ext["data_disks"] = json!(properties["storageProfile"].is_object().then_some(disks));
    ext
}

fn disk(disk: &Value) -> Value {
    let properties = &disk["properties"];
    let owner = disk["managedBy"].as_str().unwrap_or_default();
    json!({
        "disk_type": if owner.is_empty() { "unattached" } else { "attached" },
        "disk_state": properties["diskState"],
        "azure_disk_encryption_enabled": properties["encryptionSettingsCollection"]["enabled"],
        "encryption_type": properties["encryption"]["type"],
        "encryption_set": properties["encryption"]["diskEncryptionSetId"],
        "secure_vm_encryption_set": properties["securityProfile"]["secureVMDiskEncryptionSetId"],
        "network_access_policy": properties["networkAccessPolicy"],
        "public_network_access": properties["publicNetworkAccess"],
    })
}

fn vault(vault: &Value) -> Value {
    let properties = &vault["properties"];
    let (soft_delete, purge) = (&properties["enableSoftDelete"], &properties["enablePurgeProtection"]);
    let acls = &properties["networkAcls"];
    json!({
        "enable_soft_delete": is_true(soft_delete),
        "enable_purge_protection": is_true(purge),
        "recoverable": is_true(soft_delete) && is_true(purge),
        "enable_rbac_authorization": is_true(&properties["enableRbacAuthorization"]),
        "public_network_access": properties["publicNetworkAccess"],
        "default_network_access_allowed": acls.is_null() || acls["defaultAction"] == "Allow",
    })
}

fn vault_entry(entry: &Value, vault: &str) -> Value {
    let attributes = &entry["attributes"];
    json!({
        "vault_id": vault,
        "vault_name": vault.rsplit('/').next(),
        "expiry_set": !attributes["exp"].is_null(),
        "expires": attributes["exp"],
        "enabled": attributes["enabled"],
        "managed": is_true(&entry["managed"]),
        "reference": entry.get("kid").unwrap_or(&entry["id"]),
    })
}

fn diagnostic_setting(setting: &Value) -> Value {
    let properties = &setting["properties"];
    let enabled = array(&properties["logs"]).iter().filter(|log| is_true(&log["enabled"]));
    let names = enabled.map(|log| log.get("category").unwrap_or(&log["categoryGroup"]).clone());
    json!({
        "categories": names.collect::<Vec<_>>(),
        "storage_account_id": properties["storageAccountId"],
        "workspace_id": properties["workspaceId"],
        "event_hub_rule_id": properties["eventHubAuthorizationRuleId"],
    })
}

fn postgresql(kind: &str, settings: &Value) -> Value {
    let mut ext = json!({"server_kind": kind});
    let names: &[(&str, &str)] = match kind {
        "single" => &[("connection_throttling", "connection_throttling"), ("log_retention_days", "log_retention_days")],
        _ => &[
            ("connection_throttle.enable", "connection_throttling"),
            ("logfiles.retention_days", "log_retention_days"),
        ],
    };
    let both = ["log_checkpoints", "log_connections", "log_disconnections", "log_duration"].map(|name| (name, name));
    for (name, ours) in both.iter().chain(names) {
        let Some(setting) = array(settings).iter().find(|setting| setting["name"] == *name) else { continue };
        let properties = &setting["properties"];
        let value = properties["value"].as_str().unwrap_or_default();
        match properties["dataType"].as_str() {
            Some("Boolean") => ext[format!("{ours}_enabled")] = json!(value.eq_ignore_ascii_case("on")),
            Some("Integer") => ext[*ours] = json!(value.parse::<i64>().ok()),
            _ => {}
        }
    }
    ext
}

fn storage_account(account: &Value) -> Value {
    let properties = &account["properties"];
    let acls = &properties["networkAcls"];
    let bypass = acls["bypass"].as_str().unwrap_or_default();
    let told = |told: bool| if properties.is_object() { json!(told) } else { Value::Null };
    let trusted = acls.is_null() || bypass.split(',').any(|one| one.trim() == "AzureServices");
    json!({
        "secure_transfer_required": properties["supportsHttpsTrafficOnly"],
        "default_network_access_allowed": told(acls.is_null() || acls["defaultAction"] == "Allow"),
        "trusted_services_allowed": told(trusted),
        "minimum_tls_version": properties["minimumTlsVersion"],
        "allow_blob_public_access": properties["allowBlobPublicAccess"],
        "allow_shared_key_access": properties["allowSharedKeyAccess"],
        "public_network_access": properties["publicNetworkAccess"],
    })
}

/// An object's members.
pub fn members(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}
