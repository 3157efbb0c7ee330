//! An instance, in the shape of Compute Engine's version 1.

use serde_json::{Value, json};

use crate::cloudsim::random::Random;

use super::firewall::timestamp;
use super::project::{Project, add};
use super::scopes::CLOUD_PLATFORM;
use super::zone;

/// An instance's place.
pub(super) struct Site<'a> {
    pub(super) project: &'a Project,
    pub(super) zone: &'static str,
    /// Its number in the project, over all zones.
    pub(super) index: usize,
}

/// The instance at a place. What there is not is absent; each trait has a cycle of its own, so that all
/// combinations come up.
pub(super) fn instance(random: &mut Random, site: &Site<'_>) -> Value {
    let (index, zone, project) = (site.index, site.zone, site.project.id());
    let base = format!("https://www.googleapis.com/compute/v1/projects/{project}");
    let link = format!("{base}/zones/{zone}");
    let stem = random.pick(&["web", "db", "gke-cluster-pool", "worker", "bastion"]);
    let name = format!("{stem}-{index}");
    let status = match index % 8 {
        3 => "TERMINATED",
        5 => random.pick(&["STAGING", "STOPPING", "SUSPENDED", "PROVISIONING", "REPAIRING"]),
        _ => "RUNNING",
    };
    let preemptible = random.below(4) == 0;
    let mut instance = json!({
        "kind": "compute#instance",
        "id": (1_000_000_000_000_000_000 + random.below(8_000_000_000_000_000_000)).to_string(),
        "creationTimestamp": timestamp(random),
        "name": name,
        "status": status,
        "selfLink": format!("{link}/instances/{name}"),
        "zone": link,
        "machineType": format!("{link}/machineTypes/{}", random.pick(&["e2-medium", "n2-standard-4", "n2d-standard-2"])),
        "cpuPlatform": if status == "RUNNING" { "AMD Milan" } else { "Unknown CPU Platform" },
        "canIpForward": index % 6 == 4,
        "disks": disks(random, &link, &name, index),
        "networkInterfaces": network_interfaces(random, &base, zone, index),
        "metadata": metadata(random, index),
        "tags": tags(random, index),
        "scheduling": {
            "onHostMaintenance": if preemptible { "TERMINATE" } else { "MIGRATE" },
            "automaticRestart": !preemptible,
            "preemptible": preemptible,
            "provisioningModel": if preemptible { "SPOT" } else { "STANDARD" },
        },
        "deletionProtection": index % 7 == 2,
        "startRestricted": false,
        "labelFingerprint": fingerprint(random),
        "fingerprint": fingerprint(random),
        "lastStartTimestamp": timestamp(random),
        "shieldedInstanceIntegrityPolicy": {"updateAutoLearnPolicy": true},
        "reservationAffinity": {"consumeReservationType": "ANY_RESERVATION"},
        "resourceStatus": {"scheduling": {}},
    });
    let labels = (index % 3 != 1).then(
        || json!({"environment": random.pick(&["production", "staging"]), "owner": random.pick(&["ana", "platform"])}),
    );
    add(&mut instance, "labels", labels);
    // Whatever it is called: the name is anybody's to give, the label is not.
    if index % 12 == 10 {
        instance["labels"]["goog-gke-node"] = "".into();
    }
    add(&mut instance, "serviceAccounts", service_accounts(site.project, index));
    // Machines of before 2018 have none.
    let shielded = (index % 5 != 3).then(|| {
        json!({
            "enableSecureBoot": index.is_multiple_of(2),
            "enableVtpm": index % 5 != 4,
            "enableIntegrityMonitoring": index % 5 != 4,
        })
    });
    add(&mut instance, "shieldedInstanceConfig", shielded);
    let confidential = match index % 9 {
        2 => Some(json!({"enableConfidentialCompute": true, "confidentialInstanceType": "SEV"})),
        5 => Some(json!({"enableConfidentialCompute": false})),
        7 => Some(json!({"confidentialInstanceType": "SEV_SNP"})),
        _ => None,
    };
    add(&mut instance, "confidentialInstanceConfig", confidential);
    add(&mut instance, "lastStopTimestamp", (status == "TERMINATED").then(|| timestamp(random).into()));
    instance
}

/// Two in every ten have none.
fn service_accounts(project: &Project, index: usize) -> Option<Value> {
    let default = format!("{}-compute@developer.gserviceaccount.com", project.number());
    match index % 10 {
        0 | 5 => Some(json!([{"email": default, "scopes": [CLOUD_PLATFORM]}])),
        1 | 6 | 8 => Some(json!([{
            "email": default,
            "scopes": [
                "https://www.googleapis.com/auth/devstorage.read_only",
                "https://www.googleapis.com/auth/logging.write",
                "https://www.googleapis.com/auth/monitoring.write",
            ],
        }])),
        2 | 3 | 7 => {
            let id = project.id().rsplit(':').next().unwrap_or_default();
            Some(json!([{"email": format!("app@{id}.iam.gserviceaccount.com"), "scopes": [CLOUD_PLATFORM]}]))
        }
        _ => None,
    }
}

/// A public address, one that the machine has no more, none; a second interface; an IPv6 address.
fn network_interfaces(random: &mut Random, base: &str, zone: &str, index: usize) -> Value {
    let region = zone::region(zone);
    let mut interface = |number: u64| {
        json!({
            "kind": "compute#networkInterface",
            "name": format!("nic{number}"),
            "network": format!("{base}/global/networks/{}", if number == 0 { "default" } else { "prod-vpc" }),
            "subnetwork": format!("{base}/regions/{region}/subnetworks/default"),
            "networkIP": format!("10.128.{}.{}", random.below(256), 2 + random.below(250)),
            "fingerprint": fingerprint(random),
            "stackType": "IPV4_ONLY",
        })
    };
    let (mut first, second) = (interface(0), interface(1));
    let nat = |address: Option<String>| {
        let mut access = json!({
            "kind": "compute#accessConfig",
            "type": "ONE_TO_ONE_NAT",
            "name": "External NAT",
            "networkTier": "PREMIUM",
        });
        add(&mut access, "natIP", address.map(Value::from));
        json!([access])
    };
    let address = |octet: usize| Some(format!("203.0.{}.{}", octet, index % 254 + 1));
    match index % 6 {
        0 | 3 => add(&mut first, "accessConfigs", Some(nat(address(113)))),
        // Stopped machines keep the configuration and lose the address.
        1 => add(&mut first, "accessConfigs", Some(nat(None))),
        4 => {
            add(&mut first, "stackType", Some("IPV4_IPV6".into()));
            add(&mut first, "ipv6AccessType", Some("EXTERNAL".into()));
            let access = json!([{
                "kind": "compute#accessConfig",
                "type": "DIRECT_IPV6",
                "name": "external-ipv6",
                "externalIpv6": format!("2600:1900:4000:{:x}::", index % 0xffff),
                "externalIpv6PrefixLength": 96,
                "networkTier": "PREMIUM",
            }]);
            add(&mut first, "ipv6AccessConfigs", Some(access));
        }
        _ => {}
    }
    if index % 6 == 3 {
        let mut second = second;
        add(&mut second, "accessConfigs", Some(nat(address(114))));
        json!([first, second])
    } else {
        json!([first])
    }
}

fn disks(random: &mut Random, link: &str, name: &str, index: usize) -> Value {
    let mut disk = |number: usize, size: &str| {
        let disk = if number == 0 { name.to_owned() } else { format!("{name}-data-{number}") };
        let mut disk = json!({
            "kind": "compute#attachedDisk",
            "type": "PERSISTENT",
            "mode": "READ_WRITE",
            "interface": "SCSI",
            "index": number,
            "boot": number == 0,
            "autoDelete": number == 0 && index.is_multiple_of(2),
            "deviceName": disk,
            "diskSizeGb": size,
            "source": format!("{link}/disks/{disk}"),
            "architecture": "X86_64",
        });
        if number == 0 {
            let license =
                "https://www.googleapis.com/compute/v1/projects/debian-cloud/global/licenses/debian-12-bookworm";
            add(&mut disk, "licenses", Some(json!([license])));
            add(&mut disk, "guestOsFeatures", Some(json!([{"type": "UEFI_COMPATIBLE"}, {"type": "GVNIC"}])));
        }
        let key = match (index + number) % 5 {
            1 => Some(
                json!({"kmsKeyName": "projects/keys/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"}),
            ),
            3 => Some(json!({"sha256": format!("{:016x}{:016x}", random.next(), random.next())})),
            _ => None,
        };
        add(&mut disk, "diskEncryptionKey", key);
        disk
    };
    if index % 3 == 2 { json!([disk(0, "10"), disk(1, "500")]) } else { json!([disk(0, "20")]) }
}

/// The switches in all their spellings, beside what nobody should see. Each fourth has no items at all.
fn metadata(random: &mut Random, index: usize) -> Value {
    let mut metadata = json!({"kind": "compute#metadata", "fingerprint": fingerprint(random)});
    if index % 4 == 3 {
        return metadata;
    }
    let item = |key: &str, value: &str| json!({"key": key, "value": value});
    let mut items = vec![
        item("ssh-keys", "ana:ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA ana@example.com"),
        item("startup-script", "#!/bin/bash\nexport PASSWORD=hunter2\n"),
    ];
    let mut switch = |key: &str, values: &[&'static str]| match random.pick(values) {
        "" => {}
        value => items.push(item(key, value)),
    };
    switch("enable-oslogin", &["TRUE", "true", "FALSE", "false", "", "yes"]);
    switch("serial-port-enable", &["1", "true", "TRUE", "0", "false", ""]);
    switch("block-project-ssh-keys", &["true", "TRUE", "false", ""]);
    add(&mut metadata, "items", Some(items.into()));
    metadata
}

fn tags(random: &mut Random, index: usize) -> Value {
    let mut tags = json!({"fingerprint": fingerprint(random)});
    add(&mut tags, "items", (index.is_multiple_of(2)).then(|| json!(["ssh", "web"])));
    tags
}

/// Eight bytes in base64.
fn fingerprint(random: &mut Random) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(random.next().to_be_bytes())
}

/// An odd instance in place of a good one.
pub(super) fn odd(mut instance: Value, turn: usize) -> Value {
    let Some(fields) = instance.as_object_mut() else { return instance };
    match turn % 8 {
        0 => {
            fields.remove("selfLink");
            fields.remove("status");
        }
        1 => {
            fields.insert("networkInterfaces".to_owned(), json!({"nic0": {}}));
        }
        2 => return Value::Null,
        3 => {
            fields.insert("serviceAccounts".to_owned(), json!([null, {"email": 7, "scopes": "all"}]));
            fields.insert("canIpForward".to_owned(), "true".into());
        }
        4 => {
            fields.insert("shieldedInstanceConfig".to_owned(), "on".into());
            fields.insert("metadata".to_owned(), json!({"items": [{"value": "no key"}, 3, {"key": "enable-oslogin"}]}));
        }
        5 => return json!(["an instance that is no object"]),
        6 => {
            fields.insert("networkInterfaces".to_owned(), json!([{"accessConfigs": [{"natIP": null}, null]}, null]));
            fields.insert("confidentialInstanceConfig".to_owned(), Value::Null);
        }
        _ => {
            fields.insert("selfLink".to_owned(), 17.into());
            fields.insert("status".to_owned(), Value::Null);
            fields.remove("name");
            fields.remove("id");
        }
    }
    instance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: usize) -> Value {
        let project = Project::generate(&mut Random::at(1, &[0]), 0, true);
        let site = Site { project: &project, zone: "us-central1-a", index };
        instance(&mut Random::at(1, &[index as u64]), &site)
    }

    #[test]
    fn a_few_dozen_instances_show_every_trait_with_and_without() {
        let all: Vec<Value> = (0..60).map(at).collect();
        for pointer in [
            "/labels",
            "/serviceAccounts",
            "/shieldedInstanceConfig",
            "/confidentialInstanceConfig",
            "/networkInterfaces/0/accessConfigs",
            "/networkInterfaces/0/accessConfigs/0/natIP",
            "/networkInterfaces/0/ipv6AccessConfigs",
            "/networkInterfaces/1",
            "/metadata/items",
            "/tags/items",
            "/disks/1",
        ] {
            assert!(all.iter().any(|instance| instance.pointer(pointer).is_some()), "{pointer}");
            assert!(all.iter().any(|instance| instance.pointer(pointer).is_none()), "{pointer}");
        }
        for key in ["enable-oslogin", "serial-port-enable", "block-project-ssh-keys"] {
            let has = |instance: &&Value| {
                instance["metadata"]["items"]
                    .as_array()
                    .is_some_and(|items| items.iter().any(|item| item["key"] == key))
            };
            assert!(all.iter().any(|instance| has(&instance)), "{key}");
            assert!(!all.iter().all(|instance| has(&instance)), "{key}");
        }
    }

    #[test]
    fn an_odd_instance_is_not_what_it_was() {
        for turn in 0..8 {
            assert_ne!(odd(at(4), turn), at(4), "{turn}");
        }
    }
}
