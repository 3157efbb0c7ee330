//! What is kept if a configuration does not say: the high-value events of CloudTail's example configuration, without
//! what it had twice, and without what no log has (`GetObject` and `PutObject` are data events, which LookupEvents
//! never returns; there is no API `UpdateSecurityGroup`); and what the built-in rules look at beside.

use super::keep::{Keep, Rule, Texts};

/// A rule's name, and the values.
type Defaults = &'static [(&'static str, &'static [&'static str])];

const CLOUD_TRAIL: Defaults = &[
    (
        "IAM User Management",
        &[
            "CreateUser",
            "DeleteUser",
            "CreateRole",
            "DeleteRole",
            "CreateGroup",
            "DeleteGroup",
            "CreateAccessKey",
            "DeleteAccessKey",
            "UpdateAccessKey",
            "AttachRolePolicy",
            "DetachRolePolicy",
            "GetLoginProfile",
            "CreateLoginProfile",
            "DeleteLoginProfile",
        ],
    ),
    ("Policy Rules", &["PutGroupPolicy", "PutRolePolicy", "PutUserPolicy"]),
    ("S3 Activity", &["PutBucketAcl", "PutBucketPolicy", "DeleteBucket"]),
    ("EC2 Instance Activity", &["RunInstances", "TerminateInstances", "ModifyInstanceAttribute"]),
    ("CloudTrail Management", &["StartLogging", "StopLogging", "UpdateTrail", "DeleteTrail", "PutEventSelectors"]),
    (
        "Access Modifications",
        &[
            "CreateSecurityGroup",
            "DeleteSecurityGroup",
            "AuthorizeSecurityGroupIngress",
            "AuthorizeSecurityGroupEgress",
        ],
    ),
    (BUILT_IN, &["ConsoleLogin", "DeleteBucketPublicAccessBlock"]),
];

const ACTIVITY_LOG: Defaults = &[
    ("Resource Group Created", &["Microsoft.Resources/subscriptions/resourcegroups/write"]),
    ("Resource Group Deleted", &["Microsoft.Resources/subscriptions/resourcegroups/delete"]),
    ("Resource Created", &["Microsoft.Resources/deployments/write"]),
    ("Resource Deleted", &["Microsoft.Resources/deployments/delete"]),
    ("Azure VM Management", &["Microsoft.Compute/virtualMachines/write", "Microsoft.Compute/virtualMachines/delete"]),
    (
        "Azure Storage Management",
        &["Microsoft.Storage/storageAccounts/write", "Microsoft.Storage/storageAccounts/delete"],
    ),
    (
        "Azure Storage Activity",
        &[
            "Microsoft.Storage/storageAccounts/blobServices/containers/write",
            "Microsoft.Storage/storageAccounts/blobServices/containers/delete",
        ],
    ),
    ("Security Assessment Completed", &["Microsoft.Security/assessments/write"]),
    ("Security Alert Raised", &["Microsoft.Security/alerts/write"]),
    (
        BUILT_IN,
        &[
            "Microsoft.Authorization/roleAssignments/write",
            "Microsoft.Insights/diagnosticSettings/delete",
            "Microsoft.KeyVault/vaults/delete",
            "Microsoft.Network/networkSecurityGroups/securityRules/write",
        ],
    ),
];

/// The name of what the built-in rules look at.
const BUILT_IN: &str = "Built-in Rules";

/// For CloudTrail.
#[must_use]
pub fn cloud_trail() -> Keep {
    let mut rules = rules("eventName", CLOUD_TRAIL);
    // Whatever the root user of an account does.
    rules.push(rule(BUILT_IN, "userIdentity.type", &["Root"]));
    Keep::Rules(rules)
}

/// For the Activity Log.
#[must_use]
pub fn activity_log() -> Keep {
    Keep::Rules(rules("operationName", ACTIVITY_LOG))
}

fn rules(field: &str, defaults: Defaults) -> Vec<Rule> {
    defaults.iter().map(|(name, values)| rule(name, field, values)).collect()
}

fn rule(name: &str, field: &str, values: &[&str]) -> Rule {
    Rule {
        rule: name.to_owned(),
        field: Some(field.to_owned()),
        is: Texts(values.iter().map(|value| (*value).to_owned()).collect()),
        ..Rule::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::activity::keep::{self, Matcher};

    #[test]
    fn the_defaults_are_rules_without_duplicates() {
        for (keep, dialect, count) in [(cloud_trail(), keep::CLOUD_TRAIL, 35), (activity_log(), keep::ACTIVITY_LOG, 16)]
        {
            Matcher::new(&keep, &dialect).unwrap();
            let Keep::Rules(rules) = keep else { panic!() };
            let values: Vec<&String> = rules.iter().flat_map(|rule| &rule.is.0).collect();
            assert_eq!(values.len(), count);
            assert_eq!(values.iter().collect::<HashSet<_>>().len(), count);
        }
    }
}
