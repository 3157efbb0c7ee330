//! All vectors of the event plugins that show a failure or a defect of the Python tool, but for those of MockEvent and
//! FirewallRuleEvent: what is done instead, and why.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Instead::{self, Fires, Passes, PassesBy, Refused, Unknown};

const NO_PASS: &str = "a gap is no pass";
const NO_FINDING: &str = "a gap is no finding either";
const FAILED_AT_GAP: &str = "it failed; a gap is neither a pass nor a finding";
const NO_BOOLEAN: &str = "neither true nor false; Python takes anything for one of them";
const NO_NUMBER: &str = "no number; it failed, or was taken for one";
const MYSQL: &str = "/subscriptions/a8daa361-b951-46b5-8e9d-b375f2ffe9fd/resourceGroups/rg1/providers/\
    Microsoft.DBforMySQL/servers/db1";

/// A plugin, the numbers of its vectors, what is done instead, and why.
type Row = (&'static str, &'static [u16], Instead, &'static str);

/// What is done instead, and why, by the ids of the vectors.
pub fn table() -> BTreeMap<String, (Instead, &'static str)> {
    let mut table = BTreeMap::new();
    for (plugin, numbers, instead, why) in rows() {
        for number in numbers {
            let twice = table.insert(format!("{plugin}-{number}"), (instead.clone(), why));
            assert!(twice.is_none(), "{plugin}-{number} stands here twice");
        }
    }
    table
}

fn rows() -> Vec<Row> {
    vec![
        (
            "AzVMOSDiskEncryptionEvent",
            &[208, 239, 240],
            Fires("os_disk_encrypted", json!(false)),
            "the name of the disk is for the text only: it failed",
        ),
        ("AzVMOSDiskEncryptionEvent", &[232], Unknown("ext.os_disk_encrypted is missing"), NO_FINDING),
        ("AzVMOSDiskEncryptionEvent", &[233, 234], Unknown("ext.os_disk_encrypted is a text"), NO_BOOLEAN),
        ("AzVMOSDiskEncryptionEvent", &[236], Unknown("ext.os_disk_encrypted is a number"), NO_BOOLEAN),
        ("AzVMDataDiskEncryptionEvent", &[244], Unknown("ext.data_disks is missing"), "it failed; a gap is no pass"),
        (
            "AzVMDataDiskEncryptionEvent",
            &[285],
            Fires("all_data_disks_encrypted", json!(false)),
            "a disk is none of the OS where no OS disk is known: it failed",
        ),
        ("AzVMExtensionEvent", &[332], Refused("blacklisted"), "a text is not a list of its letters"),
        ("AzVMExtensionEvent", &[335], Unknown("ext.extensions is missing"), "it failed; a gap is no pass"),
        ("AzVMExtensionEvent", &[336], Unknown("ext.extensions is null"), "it failed; a gap is no pass"),
        (
            "RDBMSEnforceTLSEvent",
            &[342],
            Fires("reference", json!(MYSQL)),
            "a bucket that is null is one that is missing, and with that it fired",
        ),
        ("RDBMSEnforceTLSEvent", &[361, 368], Unknown("com.tls_enforced is null"), NO_PASS),
        ("RDBMSEnforceTLSEvent", &[369, 376], Unknown("com.tls_enforced is missing"), NO_PASS),
        ("RDBMSEnforceTLSEvent", &[370], Unknown("com.tls_enforced is a number"), NO_BOOLEAN),
        ("RDBMSEnforceTLSEvent", &[371, 378], Unknown("com.tls_enforced is a text"), NO_BOOLEAN),
        ("AzPostgresLogCheckpointsEvent", &[407], Unknown("ext.log_checkpoints_enabled is null"), NO_PASS),
        ("AzPostgresLogCheckpointsEvent", &[408], Unknown("ext.log_checkpoints_enabled is a number"), NO_BOOLEAN),
        ("AzPostgresLogCheckpointsEvent", &[409, 410], Unknown("ext.log_checkpoints_enabled is a text"), NO_BOOLEAN),
        ("AzPostgresLogCheckpointsEvent", &[412], Unknown("ext.log_checkpoints_enabled is missing"), NO_PASS),
        ("AzPostgresLogConnectionsEvent", &[438], Unknown("ext.log_connections_enabled is null"), NO_PASS),
        ("AzPostgresLogConnectionsEvent", &[439], Unknown("ext.log_connections_enabled is a number"), NO_BOOLEAN),
        (
            "AzPostgresLogConnectionsEvent",
            &[440, 441, 442],
            Unknown("ext.log_connections_enabled is a text"),
            NO_BOOLEAN,
        ),
        ("AzPostgresLogDisconnectionsEvent", &[470], Unknown("ext.log_disconnections_enabled is a number"), NO_BOOLEAN),
        (
            "AzPostgresLogDisconnectionsEvent",
            &[471, 472, 473],
            Unknown("ext.log_disconnections_enabled is a text"),
            NO_BOOLEAN,
        ),
        ("AzPostgresLogDurationEvent", &[503, 504], Unknown("ext.log_duration_enabled is a text"), NO_BOOLEAN),
        ("AzPostgresLogRetentionDaysEvent", &[570], Unknown("ext.log_retention_days is a text"), NO_NUMBER),
        ("AzPostgresLogRetentionDaysEvent", &[571], Unknown("ext.log_retention_days is a boolean"), NO_NUMBER),
        ("AzPostgresLogRetentionDaysEvent", &[572], Unknown("ext.log_retention_days is missing"), FAILED_AT_GAP),
        (
            "AzPostgresLogRetentionDaysEvent",
            &[579],
            Refused("_min_log_retention_days"),
            "a text is no number: it failed at the first server",
        ),
        (
            "AzPostgresLogRetentionDaysEvent",
            &[580],
            Refused("min_log_retention_days"),
            "an unknown parameter, told with its name",
        ),
        ("AzSQLDatabaseTDEEvent", &[605], Unknown("ext.tde_enabled is null"), NO_FINDING),
        ("AzSQLDatabaseTDEEvent", &[606], Unknown("ext.tde_enabled is missing"), NO_FINDING),
        ("AzSQLDatabaseTDEEvent", &[608], Unknown("ext.tde_enabled is a text"), NO_BOOLEAN),
        ("AzSQLDatabaseTDEEvent", &[610], Unknown("ext.tde_enabled is a number"), NO_BOOLEAN),
        ("AzKVNonRecoverableEvent", &[635], Unknown("ext.recoverable is null"), NO_FINDING),
        ("AzKVNonRecoverableEvent", &[636], Unknown("ext.recoverable is missing"), NO_FINDING),
        ("AzKVNonRecoverableEvent", &[637, 638], Unknown("ext.recoverable is a text"), NO_BOOLEAN),
        ("AzKVNonRecoverableEvent", &[639, 640], Unknown("ext.recoverable is a number"), NO_BOOLEAN),
        ("AzKVKeyNoExpiryEvent", &[667], Unknown("ext.expiry_set is a number"), NO_BOOLEAN),
        ("AzKVKeyNoExpiryEvent", &[680, 682], Unknown("ext.enabled is missing"), NO_PASS),
        ("AzKVKeyNoExpiryEvent", &[684, 687], Unknown("ext.enabled is a text"), NO_BOOLEAN),
        ("AzKVKeyNoExpiryEvent", &[690, 691, 692], Unknown("ext.enabled is a number"), NO_BOOLEAN),
        ("AzKVSecretNoExpiryEvent", &[717], Unknown("ext.expiry_set is null"), NO_PASS),
        ("AzKVSecretNoExpiryEvent", &[719], Unknown("ext.expiry_set is a number"), NO_BOOLEAN),
        ("AzKVSecretNoExpiryEvent", &[726, 728, 729], Unknown("ext.enabled is null"), NO_PASS),
        ("AzKVSecretNoExpiryEvent", &[731], Unknown("ext.enabled is missing"), NO_PASS),
        ("AzKVSecretNoExpiryEvent", &[738, 739], Unknown("ext.enabled is a text"), NO_BOOLEAN),
        ("AzKVSecretNoExpiryEvent", &[741, 742, 743, 744], Unknown("ext.enabled is a number"), NO_BOOLEAN),
        ("AzLogProfileMissingCategoryEvent", &[748], Unknown("ext.categories is null"), FAILED_AT_GAP),
        ("AzLogProfileMissingCategoryEvent", &[772], Passes, "Azure does not mind the case of the names"),
        (
            "AzLogProfileMissingCategoryEvent",
            &[777],
            Unknown("ext.categories is a text"),
            "a text is not a list of its letters",
        ),
        ("AzLogProfileMissingLocationEvent", &[783], Unknown("ext is missing"), NO_PASS),
        ("AzLogProfileMissingLocationEvent", &[808], Unknown("ext.locations is null"), FAILED_AT_GAP),
        ("AzLogProfileMissingLocationEvent", &[809], Unknown("ext.subscription_locations is null"), FAILED_AT_GAP),
        ("AzLogProfileMissingLocationEvent", &[810], Unknown("ext.locations is missing"), FAILED_AT_GAP),
        ("AzLogProfileRetentionEvent", &[817], Unknown("ext is missing"), "it failed; a gap is no pass"),
        ("AzLogProfileRetentionEvent", &[818], Unknown("ext is missing"), NO_PASS),
        ("AzLogProfileRetentionEvent", &[835, 877], Passes, "0 days is for ever, also where the policy is enabled"),
        ("AzLogProfileRetentionEvent", &[841], Unknown("ext.retention_days is null"), FAILED_AT_GAP),
        ("AzLogProfileRetentionEvent", &[849, 857], Unknown("ext.retention_days is null"), NO_FINDING),
        ("AzLogProfileRetentionEvent", &[850, 858, 866, 874], Unknown("ext.retention_days is missing"), FAILED_AT_GAP),
        ("AzLogProfileRetentionEvent", &[854, 855], Unknown("ext.retention_enabled is null"), NO_FINDING),
        (
            "AzLogProfileRetentionEvent",
            &[861],
            Fires("retention_days", json!(364)),
            "too short, whether the policy is enabled or not: it failed",
        ),
        (
            "AzLogProfileRetentionEvent",
            &[864],
            Fires("retention_days", json!(-1)),
            "too short, whether the policy is enabled or not: it failed",
        ),
        ("AzLogProfileRetentionEvent", &[867], Passes, "0 days is for ever, whatever the policy says"),
        ("AzLogProfileRetentionEvent", &[870], Unknown("ext.retention_enabled is a text"), NO_BOOLEAN),
        (
            "AzStorageAccountSecureTransferEvent",
            &[906, 910, 911, 926],
            PassesBy,
            "without ext it is no storage account: it need not fail",
        ),
        (
            "AzStorageAccountSecureTransferEvent",
            &[913, 914],
            Fires("reference", Value::Null),
            "it is as insecure without a reference: it failed",
        ),
        ("AzStorageAccountSecureTransferEvent", &[931], Unknown("ext.secure_transfer_required is missing"), NO_PASS),
        (
            "AzStorageAccountSecureTransferEvent",
            &[932, 933],
            Unknown("ext.secure_transfer_required is a number"),
            NO_BOOLEAN,
        ),
        ("AzStorageAccountSecureTransferEvent", &[935], Unknown("ext.secure_transfer_required is a text"), NO_BOOLEAN),
        (
            "AzStorageAccountDefaultNetworkAccessEvent",
            &[961],
            Unknown("ext.default_network_access_allowed is null"),
            NO_PASS,
        ),
        (
            "AzStorageAccountDefaultNetworkAccessEvent",
            &[962],
            Unknown("ext.default_network_access_allowed is missing"),
            NO_PASS,
        ),
        (
            "AzStorageAccountDefaultNetworkAccessEvent",
            &[964],
            Unknown("ext.default_network_access_allowed is a number"),
            NO_BOOLEAN,
        ),
        (
            "AzStorageAccountDefaultNetworkAccessEvent",
            &[965, 966],
            Unknown("ext.default_network_access_allowed is a text"),
            NO_BOOLEAN,
        ),
        (
            "AzStorageAccountAllowTrustedServicesEvent",
            &[993],
            Unknown("ext.trusted_services_allowed is missing"),
            NO_PASS,
        ),
        (
            "AzStorageAccountAllowTrustedServicesEvent",
            &[994],
            Unknown("ext.trusted_services_allowed is a number"),
            NO_BOOLEAN,
        ),
        (
            "AzStorageAccountAllowTrustedServicesEvent",
            &[997],
            Unknown("ext.trusted_services_allowed is a text"),
            NO_BOOLEAN,
        ),
        ("AzWebAppHttpsEvent", &[1024], Unknown("ext.https_only is null"), NO_FINDING),
        ("AzWebAppHttpsEvent", &[1025], Unknown("ext.https_only is missing"), NO_FINDING),
        ("AzWebAppHttpsEvent", &[1026], Unknown("ext.https_only is a number"), NO_BOOLEAN),
        ("AzWebAppHttp20Event", &[1056], Unknown("ext.http20_enabled is missing"), NO_FINDING),
        ("AzWebAppHttp20Event", &[1057, 1058], Unknown("ext.http20_enabled is a number"), NO_BOOLEAN),
        ("AzWebAppHttp20Event", &[1059, 1061], Unknown("ext.http20_enabled is a text"), NO_BOOLEAN),
        ("AzWebAppClientCertEvent", &[1087], Unknown("ext.client_cert_enabled is missing"), NO_FINDING),
        ("AzWebAppClientCertEvent", &[1088, 1089], Unknown("ext.client_cert_enabled is a number"), NO_BOOLEAN),
        ("AzWebAppClientCertEvent", &[1092], Unknown("ext.client_cert_enabled is a text"), NO_BOOLEAN),
        (
            "AzWebAppTLSEvent",
            &[1100, 1101],
            Fires("reference", Value::Null),
            "it is as insecure without a reference: it failed",
        ),
        ("AzWebAppTLSEvent", &[1122], Passes, "version 1.10 is newer than 1.2; as numbers it is older"),
        ("AzWebAppTLSEvent", &[1123], Unknown("ext.min_tls_version"), "no version: it failed"),
        ("AzWebAppTLSEvent", &[1125], Unknown("ext.min_tls_version is missing"), "it failed; a gap is no pass"),
        ("AzWebAppTLSEvent", &[1129], Passes, "the version as storage accounts write it: it failed"),
        (
            "AzWebAppTLSEvent",
            &[1130],
            Unknown("ext.min_tls_version"),
            "no version: it passed, since nothing is less than it",
        ),
    ]
}
