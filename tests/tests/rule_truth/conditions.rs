//! What each built-in rule must say of a record, written again in Rust from what the rules are about, and by nothing of
//! the evaluator's.

use std::net::IpAddr;

use serde_json::{Value, json};

/// A record as it must be.
#[derive(Debug, Clone)]
pub struct Truth {
    /// The class of the plugin that makes it.
    pub class: &'static str,
    pub key: String,
    pub raw: Value,
    pub ext: Value,
    /// Without what every record has by its identity and origin.
    pub com: Value,
}

impl Truth {
    fn has_type(&self, record_type: &str) -> bool {
        self.ext["record_type"] == record_type
    }

    fn is_common(&self, record_type: &str) -> bool {
        self.com["record_type"] == record_type
    }

    fn is_azures(&self) -> bool {
        self.com["cloud_type"] == "azure"
    }
}

/// Something that is wrong.
#[derive(Debug, Clone)]
pub struct Found {
    pub event_type: &'static str,
    /// Tells it from others of its type in the same record.
    pub sub_key: String,
    /// What the event's `ext` has beside the record's.
    pub ext: Value,
    /// What the event's `com` must say of it.
    pub com: Value,
}

/// What is to be said of a record that a rule looks at.
#[derive(Debug, Clone, Default)]
pub struct Said {
    pub found: Vec<Found>,
    pub is_unknown: bool,
}

/// Whether something is wrong; nothing if it cannot be said.
type Wrong = Option<bool>;

/// One result, and an event of this type where something is wrong.
fn said(event_type: &'static str, wrong: Wrong) -> Said {
    said_with(event_type, wrong, json!({}), json!({}))
}

fn said_with(event_type: &'static str, wrong: Wrong, ext: Value, com: Value) -> Said {
    let found = Found { event_type, sub_key: String::new(), ext, com };
    Said { found: if wrong == Some(true) { vec![found] } else { Vec::new() }, is_unknown: wrong.is_none() }
}

/// Wrong if the value is this one, right if it is the other, and unknown if it is no truth value.
fn if_it_is(bad: bool, value: &Value) -> Wrong {
    value.as_bool().map(|value| value == bad)
}

/// A built-in rule with parameters.
pub struct Rule {
    /// What it is called in the configuration: the base configuration's key, or one of the test's.
    pub plugin: &'static str,
    pub id: &'static str,
    /// What it is configured by if the base configuration has no such key: by its id, and by these parameters.
    pub params: Option<fn() -> Value>,
    /// What it says of a record; nothing if it does not look at it.
    pub says: fn(&Truth) -> Option<Said>,
}

/// A rule under its key in the base configuration.
const fn base(plugin: &'static str, id: &'static str, says: fn(&Truth) -> Option<Said>) -> Rule {
    Rule { plugin, id, params: None, says }
}

/// A rule that is used by its id.
const fn own(plugin: &'static str, id: &'static str, says: fn(&Truth) -> Option<Said>) -> Rule {
    Rule { plugin, id, params: Some(|| json!({})), says }
}

/// The same with parameters.
const fn with(plugin: &'static str, id: &'static str, params: fn() -> Value, says: fn(&Truth) -> Option<Said>) -> Rule {
    Rule { plugin, id, params: Some(params), says }
}

/// All built-in rules, and some once more with parameters.
pub const RULES: &[Rule] = &[
    base("mockevent", "mock_event", |_| Some(Said::default())),
    base("rdbmsenforcetlsevent", "rdbms_enforce_tls", |it| {
        let wrong = if_it_is(false, &it.com["tls_enforced"]);
        it.is_common("rdbms").then(|| said("rdbms_enforce_tls_event", wrong))
    }),
    base("firewallruleevent", "firewall_rule_internet", |it| firewall_rule(it, &[22, 1433, 1521, 3306, 3389, 5432])),
    with(
        "firewallweb",
        "firewall_rule_internet",
        || json!({"ports": [80, 443, 8080]}),
        |it| firewall_rule(it, &[80, 443, 8080]),
    ),
    own("udpinternet", "azure_udp_internet", |it| {
        let opens_udp = ["udp", "17", "all"].iter().any(|protocol| it.com["protocol"] == *protocol);
        let ports = if opens_udp { exposed(it, UDP_SERVICES) } else { Vec::new() };
        let com = json!({"exposed_ports": ports});
        let says = || said_with("udp_internet_event", Some(!ports.is_empty()), json!({}), com);
        (it.is_common("firewall_rule") && it.is_azures()).then(says)
    }),
    // ---- Compute ----
    base("azvmosdiskencryptionevent", "azure_vm_os_disk_encryption", |it| {
        let wrong = is_weak(&it.ext["os_disk_encryption"]).map(|weak| weak && it.ext["encryption_at_host"] != true);
        it.has_type("vm_instance_view").then(|| said("vm_os_disk_encryption_event", wrong))
    }),
    base("azvmdatadiskencryptionevent", "azure_vm_data_disk_encryption", |it| {
        it.has_type("vm_instance_view").then(|| data_disks(it))
    }),
    base("azvmextensionevent", "azure_vm_extensions", |it| {
        it.has_type("vm_instance_view").then(|| extensions(it, None, &[], &[]))
    }),
    with(
        "vmextensions",
        "azure_vm_extensions",
        || {
            json!({
                "whitelisted": ["MDE.Linux", "AzureMonitorLinuxAgent", "AzureDiskEncryptionForLinux"],
                "blacklisted": ["MDE.Linux", "CustomScript", "Backdoor"],
                "required": ["MDE.Linux", "AzureMonitorLinuxAgent", "AzureDiskEncryptionForLinux"],
            })
        },
        |it| {
            let allowed = ["AzureMonitorLinuxAgent", "AzureDiskEncryptionForLinux"];
            // What is both asked for and forbidden is forbidden.
            let forbidden = ["CustomScript", "MDE.Linux"];
            it.has_type("vm_instance_view").then(|| extensions(it, Some(&allowed), &forbidden, &allowed))
        },
    ),
    own("unattacheddisk", "azure_disk_unattached_encryption", |it| {
        let own_key = it.ext["encryption_type"].as_str().map(|kind| kind.contains("Customer"));
        let is_confidential = it.ext["secure_vm_encryption_set"].is_string();
        let wrong = match is_confidential || it.ext["azure_disk_encryption_enabled"] == true {
            true => Some(false),
            false => own_key.map(|own| !own),
        };
        let is_it = it.has_type("disk") && it.ext["disk_type"] == "unattached";
        is_it.then(|| said("disk_unattached_encryption_event", wrong))
    }),
    // ---- Key vaults ----
    base("azkvkeynoexpiryevent", "azure_key_vault_key_expiry", |it| {
        it.has_type("key_vault_key").then(|| said("key_vault_key_no_expiry_event", never_expires(it)))
    }),
    base("azkvsecretnoexpiryevent", "azure_key_vault_secret_expiry", |it| {
        it.has_type("key_vault_secret").then(|| said("key_vault_secret_no_expiry_event", never_expires(it)))
    }),
    own("vaultrbac", "azure_key_vault_rbac", |it| {
        let wrong = if_it_is(false, &it.ext["enable_rbac_authorization"]);
        it.has_type("key_vault").then(|| said("key_vault_rbac_event", wrong))
    }),
    base("azkvnonrecoverableevent", "azure_key_vault_recoverable", |it| {
        let is_on = |name: &str| it.ext[name] == true;
        let wrong = Some(!(is_on("enable_soft_delete") && is_on("enable_purge_protection")));
        it.has_type("key_vault").then(|| said("key_vault_non_recoverable_event", wrong))
    }),
    // ---- Monitor ----
    base("azlogprofileevent", "azure_log_profile", |it| {
        let wrong = it.ext["diagnostic_settings"].as_u64().map(|count| count == 0);
        it.has_type("log_profile_missing").then(|| said("log_profile_event", wrong))
    }),
    base("azlogprofilemissingcategoryevent", "azure_log_profile_categories", |it| {
        let missing = lacking(&["Action", "Delete", "Write"], &texts(&it.ext["categories"]));
        let com = json!({"evidence": {"categories": it.ext["categories"], "missing_categories": missing}});
        let says = || said_with("log_profile_missing_category_event", Some(!missing.is_empty()), json!({}), com);
        it.is_common("log_profile").then(says)
    }),
    base("azlogprofilemissinglocationevent", "azure_log_profile_locations", |it| {
        let mut wanted = texts(&it.ext["subscription_locations"]);
        wanted.push("global");
        let missing = lacking(&wanted, &texts(&it.ext["locations"]));
        let ext = json!({"missing_locations": missing});
        let says = || said_with("log_profile_missing_location_event", Some(!missing.is_empty()), ext, json!({}));
        it.is_common("log_profile").then(says)
    }),
    base("azlogprofileretentionevent", "azure_log_profile_retention", |it| retention(it, 365)),
    with(
        "logretention",
        "azure_log_profile_retention",
        || json!({"_min_retention_days": 366}),
        |it| retention(it, 366),
    ),
    // ---- Databases ----
    base("azsqldatabasetdeevent", "azure_sql_database_tde", |it| {
        let is_it = it.has_type("sql_db") && it.ext["system_database"] != true;
        is_it.then(|| said("sql_db_tde_event", if_it_is(false, &it.ext["tde_enabled"])))
    }),
    base("azpostgresconnectionthrottlingevent", "azure_postgresql_connection_throttling", |it| {
        setting(it, "connection_throttling_enabled", "postgres_connection_throttling_event")
    }),
    base("azpostgreslogcheckpointsevent", "azure_postgresql_log_checkpoints", |it| {
        setting(it, "log_checkpoints_enabled", "postgres_log_checkpoints_event")
    }),
    base("azpostgreslogconnectionsevent", "azure_postgresql_log_connections", |it| {
        setting(it, "log_connections_enabled", "postgres_log_connections_event")
    }),
    base("azpostgreslogdisconnectionsevent", "azure_postgresql_log_disconnections", |it| {
        setting(it, "log_disconnections_enabled", "postgres_log_disconnections_event")
    }),
    base("azpostgreslogdurationevent", "azure_postgresql_log_duration", |it| {
        setting(it, "log_duration_enabled", "postgres_log_duration_event")
    }),
    base("azpostgreslogretentiondaysevent", "azure_postgresql_log_retention_days", |it| log_files(it, 3)),
    with(
        "logfiles",
        "azure_postgresql_log_retention_days",
        || json!({"_min_log_retention_days": 4}),
        |it| log_files(it, 4),
    ),
    // ---- Storage ----
    base("azstorageaccountsecuretransferevent", "azure_storage_secure_transfer", |it| {
        let wrong = if_it_is(false, &it.ext["secure_transfer_required"]);
        storage(it, "storage_account_secure_transfer_event", wrong)
    }),
    base("azstorageaccountdefaultnetworkaccessevent", "azure_storage_default_network_access", |it| {
        let is_closed = ["Disabled", "SecuredByPerimeter"].iter().any(|word| it.ext["public_network_access"] == *word);
        let wrong = if_it_is(true, &it.ext["default_network_access_allowed"]).map(|open| open && !is_closed);
        storage(it, "storage_account_default_network_access_event", wrong)
    }),
    base("azstorageaccountallowtrustedservicesevent", "azure_storage_trusted_services", |it| {
        let wrong = if_it_is(false, &it.ext["trusted_services_allowed"]);
        storage(it, "storage_account_allow_trusted_services_event", wrong)
    }),
    own("blobpublic", "azure_storage_blob_public_access", |it| {
        let wrong = Some(it.ext["allow_blob_public_access"] != false);
        storage(it, "storage_account_blob_public_access_event", wrong)
    }),
    own("sharedkey", "azure_storage_shared_key_access", |it| {
        storage(it, "storage_account_shared_key_access_event", Some(it.ext["allow_shared_key_access"] != false))
    }),
    own("storagetls", "azure_storage_minimum_tls_version", |it| {
        let wrong = it.ext["minimum_tls_version"].as_str().map(|version| ["TLS1_0", "TLS1_1"].contains(&version));
        storage(it, "storage_account_tls_event", wrong)
    }),
    // ---- Web apps ----
    base("azwebapphttpsevent", "azure_web_app_https", |it| {
        app(it, "web_app_https_event", if_it_is(false, &it.ext["https_only"]))
    }),
    base("azwebapphttp20event", "azure_web_app_http20", |it| {
        app(it, "web_app_http20_event", if_it_is(false, &it.ext["http20_enabled"]))
    }),
    base("azwebappclientcertevent", "azure_web_app_client_certificate", |it| {
        app(it, "web_app_client_certificate_event", if_it_is(false, &it.ext["client_cert_enabled"]))
    }),
    base("azwebapptlsevent", "azure_web_app_tls", |it| app(it, "web_app_tls_event", is_tls_below(it, &["1.0", "1.1"]))),
    with(
        "apptls",
        "azure_web_app_tls",
        || json!({"_min_tls_version": "1.3"}),
        |it| app(it, "web_app_tls_event", is_tls_below(it, &["1.0", "1.1", "1.2"])),
    ),
    own("appftp", "azure_web_app_ftp", |it| {
        let wrong = it.ext["ftps_state"].as_str().map(|state| state == "AllAllowed");
        app(it, "web_app_ftp_event", wrong)
    }),
    // ---- Google Cloud ----
    own("gcpaddress", "gcp_instance_external_ip", |it| {
        let interfaces = it.raw["networkInterfaces"].as_array().cloned().unwrap_or_default();
        let wrong = interfaces.iter().any(|interface| {
            ["accessConfigs", "ipv6AccessConfigs"]
                .iter()
                .any(|name| interface[*name].as_array().is_some_and(|configs| !configs.is_empty()))
        });
        instance(it, "instance_external_ip_event", Some(wrong))
    }),
    own("gcpaccount", "gcp_instance_default_account_full_access", |it| {
        let is_default = |email: &&str| email.ends_with("-compute@developer.gserviceaccount.com");
        let wrong = texts(&it.ext["service_accounts"]).iter().any(is_default)
            && texts(&it.ext["scopes"]).iter().any(|scope| scope.ends_with("/auth/cloud-platform"));
        instance(it, "instance_default_account_full_access_event", Some(wrong)).filter(|_| !is_node(it))
    }),
    own("gcpforwarding", "gcp_instance_ip_forwarding", |it| {
        let wrong = if_it_is(true, &it.raw["canIpForward"]);
        instance(it, "instance_ip_forwarding_event", wrong).filter(|_| !is_node(it))
    }),
    own("gcpshielded", "gcp_instance_shielded", |it| shielded(it, &["vtpm", "integrity_monitoring"])),
    with(
        "gcpsecureboot",
        "gcp_instance_shielded",
        || json!({"secure_boot": true}),
        |it| shielded(it, &["vtpm", "integrity_monitoring", "secure_boot"]),
    ),
    own("gcposlogin", "gcp_instance_os_login", |it| {
        instance(it, "instance_os_login_event", if_it_is(false, &it.ext["os_login"]))
    }),
    with(
        "gcposloginoff",
        "gcp_instance_os_login",
        || json!({"project_default": false}),
        |it| instance(it, "instance_os_login_event", Some(it.ext["os_login"] != true)),
    ),
    own("gcpserial", "gcp_instance_serial_port", |it| {
        instance(it, "instance_serial_port_event", if_it_is(true, &it.ext["serial_port_enabled"]))
    }),
    with(
        "gcpserialoff",
        "gcp_instance_serial_port",
        || json!({"project_default": false}),
        |it| instance(it, "instance_serial_port_event", Some(it.ext["serial_port_enabled"] == true)),
    ),
    own("gcpkeys", "gcp_instance_project_ssh_keys", |it| {
        // What the project says of OS Login decides where the instance says nothing.
        let says_nothing = it.ext["block_project_ssh_keys"].is_null() && it.ext["os_login"].is_null();
        let wrong = it.ext["block_project_ssh_keys"] != true && it.ext["os_login"] != true;
        instance(it, "instance_project_ssh_keys_event", (!says_nothing).then_some(wrong))
    }),
    with(
        "gcpkeysoslogin",
        "gcp_instance_project_ssh_keys",
        || json!({"project_default": true}),
        |it| {
            let wrong = it.ext["block_project_ssh_keys"] != true && it.ext["os_login"] == false;
            instance(it, "instance_project_ssh_keys_event", Some(wrong))
        },
    ),
];

// ---- Firewalls ----

/// Services over UDP that answer everybody.
const UDP_SERVICES: &[u16] = &[19, 53, 69, 111, 123, 137, 161, 389, 1900, 5353, 11211];
/// The other ports of the rules' parameters behind which something speaks UDP: Remote Desktop, and QUIC.
const UDP_TOO: &[u16] = &[3389, 443];

fn firewall_rule(it: &Truth, sensitive: &[u16]) -> Option<Said> {
    let ports = exposed(it, sensitive);
    let com = json!({"exposed_ports": ports});
    let says = || said_with("firewall_rule_event", Some(!ports.is_empty()), json!({}), com);
    it.is_common("firewall_rule").then(says)
}

/// Those of the ports that a firewall's rule opens to all of the Internet.
fn exposed(it: &Truth, sensitive: &[u16]) -> Vec<u16> {
    let is = |name: &str, value: Value| it.com[name] == value;
    let lets_in = is("enabled", json!(true)) && is("direction", json!("in")) && is("access", json!("allow"));
    if !lets_in || !are_everyone(&texts(&it.com["source_addresses"])) {
        return Vec::new();
    }
    let protocol = it.com["protocol"].as_str().unwrap_or_default();
    let speaks = |port: &u16| match protocol {
        "all" | "tcp" | "6" => true,
        "udp" | "17" => UDP_SERVICES.contains(port) || UDP_TOO.contains(port),
        _ => false,
    };
    let ranges = texts(&it.com["destination_ports"]);
    let is_open = |port: &u16| {
        ranges.iter().any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| text.parse::<u16>().unwrap_or_else(|_| unreachable!("the port {text}"));
            (number(first)..=number(last)).contains(port)
        })
    };
    sensitive.iter().copied().filter(speaks).filter(is_open).collect()
}

/// Whether the sources have all of some addresses from everywhere, of IPv4 or of IPv6.
fn are_everyone(sources: &[&str]) -> bool {
    let all = |addresses: &[&str]| {
        addresses.iter().all(|address| {
            let address: IpAddr = address.parse().unwrap_or_else(|_| unreachable!("{address}"));
            sources.iter().any(|source| has(source, address))
        })
    };
    all(&["1.1.1.1", "8.8.8.8", "52.0.0.1", "93.184.216.34", "130.1.1.1", "151.101.1.1", "203.0.114.1", "223.5.5.5"])
        || all(&["2001:4860:4860::8888", "2600::1", "2a00:1450::1", "3000::1"])
}

/// Whether an address is in a network. Names of groups have none.
fn has(network: &str, address: IpAddr) -> bool {
    let (begin, length) = network.split_once('/').unwrap_or((network, ""));
    let Ok(begin) = begin.parse::<IpAddr>() else { return false };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let whole = if begin.is_ipv4() { 32 } else { 128 };
    let length: u32 = length.parse().unwrap_or(whole);
    begin.is_ipv4() == address.is_ipv4() && (length == 0 || (bits(begin) ^ bits(address)) >> (128 - length) == 0)
}

// ---- Machines ----

/// Whether a kind of encryption is not one's own.
fn is_weak(kind: &Value) -> Wrong {
    match kind.as_str()? {
        "platform_managed_key" | "none" => Some(true),
        "azure_disk_encryption" | "encryption_at_host" | "customer_managed_key" => Some(false),
        _ => None,
    }
}

fn data_disks(it: &Truth) -> Said {
    let mut said = Said { is_unknown: it.ext["data_disks"].is_null(), ..Said::default() };
    for disk in it.ext["data_disks"].as_array().into_iter().flatten() {
        // Where the machine does not tell of the disk, Azure Disk Encryption alone counts.
        let wrong =
            if disk["encryption"].is_null() { Some(disk["encrypted"] != true) } else { is_weak(&disk["encryption"]) };
        match wrong.map(|wrong| wrong && it.ext["encryption_at_host"] != true) {
            None => said.is_unknown = true,
            Some(false) => {}
            Some(true) => said.found.push(Found {
                event_type: "vm_data_disk_encryption_event",
                sub_key: disk["name"].as_str().unwrap_or_default().to_owned(),
                ext: json!({}),
                com: json!({"evidence": {"disk": disk}}),
            }),
        }
    }
    said
}

/// What is wrong with a machine's extensions; the lists are sorted.
fn extensions(it: &Truth, allowed: Option<&[&str]>, forbidden: &[&str], needed: &[&str]) -> Said {
    let there = texts(&it.ext["extensions"]);
    let of_those = |wanted: &dyn Fn(&str) -> bool| {
        let mut those: Vec<&str> = there.iter().copied().filter(|name| wanted(name)).collect();
        those.sort_unstable();
        those
    };
    let found = [
        ("vm_blacklisted_extension_event", of_those(&|name| forbidden.contains(&name))),
        ("vm_unapproved_extension_event", of_those(&|name| allowed.is_some_and(|allowed| !allowed.contains(&name)))),
        ("vm_required_extension_event", lacking(needed, &there)),
    ];
    let found = found.into_iter().filter(|(_, names)| !names.is_empty()).map(|(event_type, names)| Found {
        event_type,
        sub_key: String::new(),
        ext: json!({}),
        com: json!({"evidence": {"extensions": names}}),
    });
    Said { found: found.collect(), is_unknown: false }
}

/// Whether Google's Kubernetes Engine has made the instance.
fn is_node(it: &Truth) -> bool {
    it.raw["labels"].get("goog-gke-node").is_some()
}

fn instance(it: &Truth, event_type: &'static str, wrong: Wrong) -> Option<Said> {
    it.has_type("instance").then(|| said(event_type, wrong))
}

fn shielded(it: &Truth, needed: &[&str]) -> Option<Said> {
    let wrong = needed.iter().any(|name| it.ext[*name] != true);
    instance(it, "instance_shielded_event", Some(wrong))
}

// ---- The rest ----

/// Of what is disabled it does not matter; of what does not say, it does only if it never expires.
fn never_expires(it: &Truth) -> Wrong {
    match (it.ext["enabled"].as_bool(), it.ext["expiry_set"].as_bool()?) {
        (_, true) | (Some(false), false) => Some(false),
        (Some(true), false) => Some(true),
        (None, false) => None,
    }
}

/// 0 days are for ever, with the policy on or off.
fn retention(it: &Truth, least: u64) -> Option<Said> {
    let days = it.ext["retention_days"].as_u64();
    let wrong = days.map(|days| days > 0 && (days < least || it.ext["retention_enabled"] == false));
    it.is_common("log_profile").then(|| said("log_profile_retention_event", wrong))
}

fn setting(it: &Truth, name: &str, event_type: &'static str) -> Option<Said> {
    it.has_type("postgresql_server").then(|| said(event_type, if_it_is(false, &it.ext[name])))
}

fn log_files(it: &Truth, least: u64) -> Option<Said> {
    let wrong = it.ext["log_retention_days"].as_u64().map(|days| days < least);
    it.has_type("postgresql_server").then(|| said("postgres_log_retention_days_event", wrong))
}

fn storage(it: &Truth, event_type: &'static str, wrong: Wrong) -> Option<Said> {
    it.has_type("storage_account_properties").then(|| said(event_type, wrong))
}

fn app(it: &Truth, event_type: &'static str, wrong: Wrong) -> Option<Said> {
    it.has_type("web_app_config").then(|| said(event_type, wrong))
}

fn is_tls_below(it: &Truth, below: &[&str]) -> Wrong {
    it.ext["min_tls_version"].as_str().map(|version| below.contains(&version))
}

/// What is wanted and not there, sorted.
fn lacking<'a>(wanted: &[&'a str], there: &[&str]) -> Vec<&'a str> {
    let mut lacking: Vec<&str> = wanted.iter().copied().filter(|name| !there.contains(name)).collect();
    lacking.sort_unstable();
    lacking
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
