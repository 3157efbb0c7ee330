//! Virtual machines.
//!
//! Reference: <https://cloud.google.com/compute/docs/reference/rest/v1/instances/aggregatedList>.

use std::borrow::Cow;

use proto::record::Text;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::project::Project;
use super::record::{Made, Malformed, Names, Record, object};
use crate::fields::Fields;

/// The name of the type.
pub(super) const NAME: &str = "instance";
/// The path of the list of all zones, below a project.
pub(super) const PATH: &str = "/aggregated/instances";

/// An instance, in the shape of the API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Instance<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    self_link: Option<Text<'a>>,
    #[serde(borrow)]
    zone: Option<Text<'a>>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    can_ip_forward: Option<bool>,
    #[serde(borrow)]
    network_interfaces: Option<Vec<Interface<'a>>>,
    #[serde(borrow)]
    service_accounts: Option<Vec<ServiceAccount<'a>>>,
    shielded_instance_config: Option<Shielded>,
    #[serde(borrow)]
    confidential_instance_config: Option<Confidential<'a>>,
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Interface<'a> {
    #[serde(borrow)]
    access_configs: Option<Vec<Access<'a>>>,
    #[serde(borrow)]
    ipv6_access_configs: Option<Vec<Access<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Access<'a> {
    #[serde(borrow, rename = "natIP")]
    nat_ip: Option<Text<'a>>,
    #[serde(borrow)]
    external_ipv6: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceAccount<'a> {
    #[serde(borrow)]
    email: Option<Text<'a>>,
    #[serde(borrow)]
    scopes: Option<Vec<Text<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Shielded {
    enable_secure_boot: Option<bool>,
    enable_vtpm: Option<bool>,
    enable_integrity_monitoring: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Confidential<'a> {
    enable_confidential_compute: Option<bool>,
    /// `SEV`, `SEV_SNP`, `TDX`.
    #[serde(borrow)]
    confidential_instance_type: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata<'a> {
    #[serde(borrow)]
    items: Option<Vec<MetadataItem<'a>>>,
}

#[derive(Debug, Deserialize)]
struct MetadataItem<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow, default)]
    value: Option<Text<'a>>,
}

/// The record of an instance that was listed in this zone.
pub(super) fn records<'a>(raw: &'a RawValue, zone: Option<&str>, project: &Project) -> Result<Made<'a>, Malformed> {
    let mut instance: Instance<'a> = object(raw).map_err(|error| Malformed::of("an instance", raw, &error))?;
    let (id, name, self_link) = (instance.id.take(), instance.name.take(), instance.self_link.take());
    let names = Names { id, name, self_link };
    let zone = instance.zone_name().or_else(|| zone.map(|zone| Cow::Owned(zone.to_owned())));
    let path = format!("zones/{}/instances", zone.as_deref().unwrap_or_default());
    let key = names.key(project, &path).ok_or_else(|| Malformed::nameless("an instance"))?;
    Ok(Made::one(Record {
        record_type: NAME,
        common_type: Some("compute"),
        key,
        reference: names.reference(),
        zone,
        raw,
        ext: instance.ext(),
        com: Fields::new(),
    }))
}

impl<'a> Instance<'a> {
    fn ext(self) -> Fields<'a> {
        let shielded = self.shielded_instance_config.unwrap_or_default();
        let metadata = self.metadata.unwrap_or_default();
        let accounts = self.service_accounts.unwrap_or_default();
        let mut emails = Vec::new();
        let mut scopes = Vec::new();
        for account in accounts {
            emails.extend(account.email);
            scopes.extend(account.scopes.unwrap_or_default());
        }
        Fields::new()
            .with("status", self.status)
            .with("external_ips", self.network_interfaces.map(external_ips))
            .with("service_accounts", emails)
            .with("scopes", scopes)
            .with("ip_forwarding", self.can_ip_forward.unwrap_or(false))
            .with("secure_boot", shielded.enable_secure_boot)
            .with("vtpm", shielded.enable_vtpm)
            .with("integrity_monitoring", shielded.enable_integrity_monitoring)
            .with("confidential", self.confidential_instance_config.is_some_and(|config| config.is_on()))
            .with("os_login", metadata.switch("enable-oslogin"))
            .with("serial_port_enabled", metadata.switch("serial-port-enable"))
            .with("block_project_ssh_keys", metadata.switch("block-project-ssh-keys"))
            // The values hold start-up scripts, and these, too often, passwords.
            .with("metadata_keys", metadata.keys())
    }

    /// The zone of the link to it.
    fn zone_name(&self) -> Option<Cow<'a, str>> {
        let Text(link) = self.zone.as_ref()?;
        let name = match link {
            Cow::Borrowed(link) => Cow::Borrowed(link.rsplit('/').next()?),
            Cow::Owned(link) => Cow::Owned(link.rsplit('/').next()?.to_owned()),
        };
        Some(name).filter(|name| !name.is_empty())
    }
}

/// The addresses that are reached from outside.
fn external_ips(interfaces: Vec<Interface<'_>>) -> Vec<Text<'_>> {
    let lists = interfaces.into_iter().flat_map(|interface| [interface.access_configs, interface.ipv6_access_configs]);
    let configs = lists.flatten().flatten();
    // An address that is given at each start is not there while the machine is off.
    configs.flat_map(|config| [config.nat_ip, config.external_ipv6]).flatten().filter(|ip| !ip.is_empty()).collect()
}

impl Confidential<'_> {
    fn is_on(&self) -> bool {
        let is_type = |name: &Text<'_>| !name.is_empty() && &**name != "CONFIDENTIAL_INSTANCE_TYPE_UNSPECIFIED";
        self.enable_confidential_compute == Some(true) || self.confidential_instance_type.as_ref().is_some_and(is_type)
    }
}

impl<'a> Metadata<'a> {
    fn keys(self) -> Vec<Text<'a>> {
        self.items.into_iter().flatten().map(|item| item.key).collect()
    }

    /// Whether a switch is on; null if it is not there, or says neither yes nor no.
    fn switch(&self, key: &str) -> Option<bool> {
        let item = self.items.iter().flatten().find(|item| &*item.key == key)?;
        match item.value.as_deref()?.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "y" | "1" => Some(true),
            "false" | "no" | "n" | "0" => Some(false),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn project() -> Project {
        Project { id: "p".to_owned(), name: Some("My Project".to_owned()), number: None }
    }

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).unwrap()
    }

    fn made(instance: &Value, zone: Option<&str>) -> Value {
        let raw = raw(instance);
        let made = records(&raw, zone, &project()).unwrap();
        let [record] = made.records.as_slice() else { panic!("{made:?}") };
        json!({"raw": record.raw, "ext": record.ext(&project(), Some("a@b.c")), "com": record.com(), "key": record.key})
    }

    #[test]
    fn an_instance_says_what_rules_ask_of_it() {
        let link = "https://www.googleapis.com/compute/v1/projects/p/zones/us-east1-b";
        let instance = json!({
            "name": "vm", "id": "7", "selfLink": format!("{link}/instances/vm"), "zone": link, "status": "RUNNING",
            "canIpForward": true, "labels": {"a": "b"},
            "networkInterfaces": [
                {"accessConfigs": [{"natIP": "203.0.113.5"}, {"name": "External NAT"}]},
                {"ipv6AccessConfigs": [{"externalIpv6": "2600:1900::1"}]},
                {},
            ],
            "serviceAccounts": [{"email": "sa@p.iam.gserviceaccount.com", "scopes": ["s1", "s2"]}, {"email": "x@y.z"}],
            "shieldedInstanceConfig": {"enableSecureBoot": false, "enableVtpm": true},
            "confidentialInstanceConfig": {"confidentialInstanceType": "SEV_SNP"},
            "metadata": {"fingerprint": "f", "items": [
                {"key": "enable-oslogin", "value": "TRUE"}, {"key": "serial-port-enable", "value": "0"},
                {"key": "startup-script", "value": "PASSWORD=hunter2"}, {"key": "block-project-ssh-keys", "value": "?"},
            ]},
        });
        let record = made(&instance, Some("us-east1-b"));
        assert_eq!(
            record["ext"],
            json!({
                "cloud_type": "gcp", "record_type": "instance", "project_id": "p", "project_name": "My Project",
                "zone": "us-east1-b", "client_email": "a@b.c", "status": "RUNNING",
                "external_ips": ["203.0.113.5", "2600:1900::1"],
                "service_accounts": ["sa@p.iam.gserviceaccount.com", "x@y.z"], "scopes": ["s1", "s2"],
                "ip_forwarding": true, "secure_boot": false, "vtpm": true, "integrity_monitoring": null,
                "confidential": true, "os_login": true, "serial_port_enabled": false, "block_project_ssh_keys": null,
                "metadata_keys": ["enable-oslogin", "serial-port-enable", "startup-script", "block-project-ssh-keys"],
            })
        );
        let reference = format!("{link}/instances/vm");
        assert_eq!(record["com"], json!({"cloud_type": "gcp", "record_type": "compute", "reference": reference}));
        assert_eq!(record["key"], "projects/p/zones/us-east1-b/instances/vm");
        assert_eq!(record["raw"], instance);
    }

    #[test]
    fn what_is_missing_is_null_or_none() {
        let record = made(&json!({"name": "vm"}), Some("z"));
        assert_eq!((&record["ext"]["zone"], &record["key"]), (&json!("z"), &json!("projects/p/zones/z/instances/vm")));
        assert_eq!(record["com"].get("reference"), None);
        for (member, expected) in [
            ("status", Value::Null),
            ("external_ips", Value::Null),
            ("service_accounts", json!([])),
            ("scopes", json!([])),
            ("ip_forwarding", json!(false)),
            ("secure_boot", Value::Null),
            ("confidential", json!(false)),
            ("os_login", Value::Null),
            ("metadata_keys", json!([])),
        ] {
            assert_eq!(record["ext"][member], expected, "{member}");
        }
    }

    #[test]
    fn interfaces_without_access_from_outside_have_no_external_address() {
        let record = made(&json!({"name": "vm", "networkInterfaces": [{"networkIP": "10.0.0.2"}]}), Some("z"));
        assert_eq!(record["ext"]["external_ips"], json!([]));
    }

    #[test]
    fn a_malformed_instance_says_which_it_is() {
        for (bad, named) in [
            (json!(null), "without a name"),
            (json!(["7", "vm"]), "without a name"),
            (json!({}), "has neither"),
            (json!({"name": "vm", "status": 5}), "an instance vm cannot"),
            (json!({"name": "vm", "metadata": {"items": [{"value": "v"}]}}), "an instance vm cannot"),
            (json!({"name": "vm", "networkInterfaces": {}}), "an instance vm cannot"),
        ] {
            let raw = raw(&bad);
            let error = records(&raw, None, &project()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
