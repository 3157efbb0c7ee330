//! What the records of Google Cloud must be, derived from what the simulated one lists.

use std::collections::HashMap;

use serde_json::{Value, json};
use tests::gcpsim::Gcpsim;

use super::conditions::Truth;

const CLASS: &str = "GCPCloud";

/// All records of the cloud.
pub fn records(cloud: &Gcpsim) -> Vec<Truth> {
    let mut records = Vec::new();
    for (index, listed) in cloud.listed_projects().iter().enumerate() {
        let project = Project { listed, client_email: cloud.service_account() };
        records.push(project.record());
        if !cloud.estate().project(index).is_active() {
            continue;
        }
        for firewall in cloud.listed_firewalls(index) {
            records.extend(project.firewall(&firewall));
        }
        records.extend(cloud.listed_instances(index).iter().map(|instance| project.instance(instance)));
    }
    records
}

struct Project<'a> {
    listed: &'a Value,
    client_email: &'a str,
}

impl Project<'_> {
    /// A record with what all have.
    fn truth(
        &self,
        types: (&str, Option<&str>),
        key: String,
        reference: &Value,
        raw: &Value,
        own: [Value; 2],
    ) -> Truth {
        let mut ext = json!({
            "cloud_type": "gcp",
            "record_type": types.0,
            "project_id": self.listed["projectId"],
            "project_name": self.listed["name"],
            "zone": null,
            "client_email": self.client_email,
        });
        let mut com = json!({"cloud_type": "gcp", "record_type": types.1, "reference": reference});
        for (all, own) in [&mut ext, &mut com].into_iter().zip(own) {
            if let (Value::Object(all), Value::Object(own)) = (all, own) {
                all.extend(own);
            }
        }
        Truth { class: CLASS, key, raw: raw.clone(), ext, com }
    }

    fn record(&self) -> Truth {
        let id = &self.listed["projectId"];
        let ext =
            json!({"lifecycle_state": self.listed["lifecycleState"], "project_number": self.listed["projectNumber"]});
        let key = id.as_str().unwrap_or_default().to_owned();
        self.truth(("project", Some("project")), key, id, self.listed, [ext, json!({})])
    }

    fn firewall(&self, firewall: &Value) -> Vec<Truth> {
        let (link, key) = (&firewall["selfLink"], key(firewall));
        let mut records = vec![self.truth(("firewall", None), key.clone(), link, firewall, [json!({}), json!({})])];
        let list = |name: &str| firewall.get(name).cloned().unwrap_or_else(|| json!([]));
        let is_named = ["sourceTags", "sourceServiceAccounts"].iter().any(|name| firewall.get(*name).is_some());
        let nobody = if is_named { json!([]) } else { Value::Null };
        let mut equals: HashMap<String, usize> = HashMap::new();
        for (name, access) in [("allowed", "allow"), ("denied", "deny")] {
            for entry in firewall[name].as_array().into_iter().flatten() {
                let protocol = entry["IPProtocol"].as_str().unwrap_or_default().to_lowercase();
                let ordinal = equals.entry(format!("{access}/{protocol}")).or_default();
                let key = format!("{key}/{access}/{protocol}/{ordinal}");
                *ordinal += 1;
                let ext = json!({
                    "firewall_id": firewall["id"],
                    "firewall_link": link,
                    "network": firewall["network"],
                    "priority": firewall["priority"],
                    "source_tags": list("sourceTags"),
                    "source_service_accounts": list("sourceServiceAccounts"),
                    "target_tags": list("targetTags"),
                    "target_service_accounts": list("targetServiceAccounts"),
                });
                let com = json!({
                    "enabled": firewall["disabled"] != true,
                    "direction": if firewall["direction"] == "INGRESS" { "in" } else { "out" },
                    "source_addresses": firewall.get("sourceRanges").unwrap_or(&nobody),
                    "protocol": protocol,
                    "destination_ports": entry.get("ports").cloned().unwrap_or_else(|| json!(["0-65535"])),
                    "access": access,
                });
                let types = ("firewall_rule", Some("firewall_rule"));
                records.push(self.truth(types, key, link, entry, [ext, com]));
            }
        }
        records
    }

    fn instance(&self, instance: &Value) -> Truth {
        let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let zone = instance["zone"].as_str().and_then(|link| link.rsplit('/').next());
        let interfaces = all(&instance["networkInterfaces"]);
        let addresses: Vec<Value> = interfaces
            .iter()
            .flat_map(|interface| [all(&interface["accessConfigs"]), all(&interface["ipv6AccessConfigs"])].concat())
            .flat_map(|config| [config["natIP"].clone(), config["externalIpv6"].clone()])
            .filter(Value::is_string)
            .collect();
        let accounts = all(&instance["serviceAccounts"]);
        let (shielded, confidential) = (&instance["shieldedInstanceConfig"], &instance["confidentialInstanceConfig"]);
        let items = all(&instance["metadata"]["items"]);
        let switch = |key: &str| {
            let item = items.iter().find(|item| item["key"] == key)?;
            Some(["true", "yes", "1"].contains(&item["value"].as_str()?.to_lowercase().as_str()))
        };
        let ext = json!({
            "zone": zone,
            "status": instance["status"],
            "external_ips": addresses,
            "service_accounts": accounts.iter().map(|account| account["email"].clone()).collect::<Vec<_>>(),
            "scopes": accounts.iter().flat_map(|account| all(&account["scopes"])).collect::<Vec<_>>(),
            "ip_forwarding": instance["canIpForward"] == true,
            "secure_boot": shielded["enableSecureBoot"],
            "vtpm": shielded["enableVtpm"],
            "integrity_monitoring": shielded["enableIntegrityMonitoring"],
            "confidential": confidential["enableConfidentialCompute"] == true
                || confidential["confidentialInstanceType"].is_string(),
            "os_login": switch("enable-oslogin"),
            "serial_port_enabled": switch("serial-port-enable"),
            "block_project_ssh_keys": switch("block-project-ssh-keys"),
            "metadata_keys": items.iter().map(|item| item["key"].clone()).collect::<Vec<_>>(),
        });
        let types = ("instance", Some("compute"));
        self.truth(types, key(instance), &instance["selfLink"], instance, [ext, json!({})])
    }
}

/// The link without the host and the version.
fn key(thing: &Value) -> String {
    let link = thing["selfLink"].as_str().unwrap_or_default();
    link.split_once("/compute/v1/").map_or(link, |(_, key)| key).to_owned()
}
