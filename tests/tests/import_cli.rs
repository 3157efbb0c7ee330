//! `coordinator import cloudtail`: what CloudTail kept, ours keeps.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::{Output, Workspace};

/// A source's rules: names, and the values of its one field.
type Rules<'a> = &'a [(&'a str, &'a [&'a str])];

/// The rules of CloudTail's own configuration.
const AWS: Rules<'_> = &[
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
    ("S3 Activity", &["PutBucketAcl", "PutBucketPolicy", "DeleteBucket", "GetObject", "PutObject"]),
    ("EC2 Instance Activity", &["RunInstances", "TerminateInstances", "ModifyInstanceAttribute"]),
    ("CloudTrail Management", &["StartLogging", "StopLogging", "UpdateTrail", "DeleteTrail", "PutEventSelectors"]),
    (
        "Access Modifications",
        &[
            "CreateSecurityGroup",
            "DeleteSecurityGroup",
            "UpdateSecurityGroup",
            "AuthorizeSecurityGroupIngress",
            "AuthorizeSecurityGroupEgress",
        ],
    ),
];
const AZURE: Rules<'_> = &[
    ("Resource Group Created", &["Microsoft.Resources/subscriptions/resourcegroups/write"]),
    ("Resource Deleted", &["Microsoft.Resources/deployments/delete"]),
    ("Azure VM Management", &["Microsoft.Compute/virtualMachines/write", "Microsoft.Compute/virtualMachines/delete"]),
    ("Resource Deleted", &["Microsoft.Resources/deployments/delete"]),
];

fn rules(field: &str, rules: Rules<'_>) -> Vec<Value> {
    let of = |(name, values): &(&str, &[&str])| {
        let name = (*name).to_owned();
        let made =
            values.iter().map(move |value| json!({"RuleName": name, "AttributeKey": field, "AttributeValue": value}));
        made.collect::<Vec<_>>()
    };
    rules.iter().flat_map(of).collect()
}

/// CloudTail's own configuration, with its placeholders.
fn default_configuration() -> Value {
    json!({"dataSources": [
        {"source": "AWS CloudTrail",
         "account_profile_pairs": [{"account_id": "your-account-id", "profile_name": "your-profile-name"}],
         "lookup_Attributes": rules("EventName", AWS)},
        {"source": "Azure Activity Log", "subscription_ids": ["your-subscription-id"],
         "lookup_Attributes": rules("operationName", AZURE)},
    ]})
}

/// The example of its documentation.
fn published_example() -> Value {
    json!({"dataSources": [
        {"source": "AWS CloudTrail",
         "account_profile_pairs": [
            {"account_id": "9823653221093", "profile_name": "default"},
            {"account_id": "1234567890212", "profile_name": "development"}],
         "lookup_Attributes": [
            {"RuleName": "User Management", "AttributeKey": "EventName", "AttributeValue": "CreateUser"}]},
        {"source": "Azure Activity Log",
         "subscription_ids": ["34eb1234-8743-30ab-cdef-1238397430ab"],
         "lookup_Attributes": [
            {"RuleName": "Resource Group Changes", "AttributeKey": "category", "AttributeValue": "Administrative"}]},
    ]})
}

async fn import(configuration: &Value, code: i32) -> Result<(Workspace, Output)> {
    let workspace = Workspace::new("{}")?;
    fs::write(workspace.path().join("event_config.json"), serde_json::to_string_pretty(configuration)?)?;
    let ended = workspace.run(&["import", "cloudtail", "event_config.json"]).await?.with_code(code)?;
    ensure!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    Ok((workspace, ended))
}

/// The configuration that comes out, which has to be good.
async fn imported(configuration: &Value) -> Result<(Value, String)> {
    let (workspace, ended) = import(configuration, 0).await?;
    fs::write(workspace.path().join("ours.yaml"), &ended.stdout)?;
    let checked = workspace.run(&["check", "-c", "ours.yaml"]).await?.with_code(0)?;
    ensure!(checked.stdout.contains("Audits to run: activity"), "{}{}", checked.stdout, checked.stderr);
    ensure!(checked.stderr.is_empty(), "{}", checked.stderr);
    Ok((serde_yaml::from_str(&ended.stdout)?, ended.stderr))
}

/// Of one source of AWS with a rule of these members, the rule that it becomes.
async fn rule(members: Value) -> Result<(Value, String)> {
    let mut rule = json!({"RuleName": "r"});
    rule.as_object_mut().context("an object")?.extend(members.as_object().context("an object")?.clone());
    let source = json!({"source": "AWS CloudTrail", "account_profile_pairs": [], "lookup_Attributes": [rule]});
    let (config, said) = imported(&json!({"dataSources": [source]})).await?;
    let keep = config["plugins"]["awscloudtrail"]["params"]["keep"].clone();
    ensure!(keep.as_array().is_some_and(|rules| rules.len() == 1), "{keep}");
    Ok((keep[0].clone(), said))
}

#[tokio::test]
async fn the_published_example_is_brought_over() -> Result<()> {
    let (config, said) = imported(&published_example()).await?;
    assert_eq!(
        config,
        json!({
            "plugins": {
                "awscloudtrail": {
                    "plugin": "cloudmarker.clouds.awscloudtrail.AwsCloudTrail",
                    "params": {
                        "accounts": [{"profile": "default"}, {"profile": "development"}],
                        "keep": [{"rule": "User Management", "field": "EventName", "is": "CreateUser"}],
                    },
                },
                "azactivitylog": {
                    "plugin": "cloudmarker.clouds.azactivitylog.AzActivityLog",
                    "params": {
                        "credential": "azure_cli",
                        "subscriptions": ["34eb1234-8743-30ab-cdef-1238397430ab"],
                        "keep": [{"rule": "Resource Group Changes", "field": "category", "is": "Administrative"}],
                    },
                },
                "archive": {"plugin": "cloudmarker.stores.sqlitestore.SqliteStore"},
            },
            "audits": {"activity": {"clouds": ["awscloudtrail", "azactivitylog"], "stores": ["archive"]}},
            "run": ["activity"],
        })
    );
    // Its numbers of accounts have a digit too many.
    for part in [
        "left out: an account's number has twelve digits",
        "dataSources[0].account_profile_pairs[0].account_id: 9823653221093",
        "changed: CloudTail read the one region that a profile is set to",
        "changed: CloudTail tried all ways to sign in to Azure",
    ] {
        ensure!(said.contains(part), "{part} is not in\n{said}");
    }
    Ok(())
}

#[tokio::test]
async fn the_default_configuration_loses_what_was_of_no_use() -> Result<()> {
    let (config, said) = imported(&default_configuration()).await?;
    let params = |key: &str| config["plugins"][key]["params"].clone();
    ensure!(params("awscloudtrail").get("accounts").is_none(), "{config}");
    ensure!(params("azactivitylog").get("subscriptions").is_none(), "{config}");
    let keep = params("awscloudtrail")["keep"].clone();
    let keep = keep.as_array().context("a list")?;
    assert_eq!(keep.len(), AWS.len());
    for (rule, (name, values)) in keep.iter().zip(AWS) {
        let gone = ["GetObject", "PutObject", "UpdateSecurityGroup"];
        let values: Vec<&&str> = values.iter().filter(|value| !gone.contains(value)).collect();
        assert_eq!(*rule, json!({"rule": name, "field": "EventName", "is": values}));
    }
    let azure = params("azactivitylog")["keep"].clone();
    assert_eq!(azure.as_array().map(Vec::len), Some(AZURE.len() - 1));
    assert_eq!(azure[2], json!({"rule": AZURE[2].0, "field": "operationName", "is": AZURE[2].1}));

    for part in [
        "left out: a data event, which LookupEvents never returns",
        "dataSources[0].lookup_Attributes[20] (S3 Activity): GetObject\n",
        "left out: no service has such an event",
        "(Access Modifications): UpdateSecurityGroup\n",
        "left out: an earlier entry says the same\n    dataSources[1].lookup_Attributes[4] (Resource Deleted)",
        "left out: the example's word, which stands there to be replaced",
        "changed: no account is named: the one that this host is signed in to is read",
        "changed: no subscription is named",
        "changed: CloudTail took the value for a regular expression, for its dots; here it is the value itself",
    ] {
        ensure!(said.contains(part), "{part} is not in\n{said}");
    }
    Ok(())
}

#[tokio::test]
async fn values_are_marked_as_what_they_are() -> Result<()> {
    let with = |value: &str| json!({"AttributeKey": "EventName", "AttributeValue": value});
    let made = |kind: &str, value: &str| json!({"rule": "r", "field": "EventName", kind: value});
    for (value, wanted, is_told) in [
        ("CreateUser", made("is", "CreateUser"), false),
        ("Delete*", made("like", "Delete*"), false),
        ("Create(User|Role)", made("regex", "^(?:Create(User|Role))"), true),
        (".*User$", made("regex", ".*User$"), true),
        ("[CD]*", made("regex", "(?s)^[CD].*$"), true),
        // A dollar and a brace would be a reference.
        ("a${1}", made("regex", "^(?:a$${1})"), true),
    ] {
        let (rule, said) = rule(with(value)).await?;
        assert_eq!(rule, wanted, "{value}");
        ensure!(said.contains(&format!("lookup_Attributes[0] (r): {value}")) == is_told, "{value}: {said}");
    }
    let (source, _) = rule(json!({"AttributeKey": "EventSource", "AttributeValue": "s3.amazonaws.com"})).await?;
    assert_eq!(source["is"], "s3.amazonaws.com");
    Ok(())
}

#[tokio::test]
async fn filters_come_over_with_and_without_a_field() -> Result<()> {
    let filter = "[?userIdentity.userName == 'admin-user']";
    let (both, said) =
        rule(json!({"AttributeKey": "EventName", "AttributeValue": "CreateUser", "jmes_filter": filter})).await?;
    assert_eq!(both, json!({"rule": "r", "field": "EventName", "is": "CreateUser", "jmespath": filter}));
    ensure!(!said.contains("filter"), "{said}");
    let (alone, said) = rule(json!({"jmes_filter": "userIdentity.type == 'Root'"})).await?;
    assert_eq!(alone, json!({"rule": "r", "jmespath": "userIdentity.type == 'Root'"}));
    ensure!(said.contains("changed: CloudTail gave the filter a list of events"), "{said}");
    Ok(())
}

#[tokio::test]
async fn names_are_put_right() -> Result<()> {
    let (rule, said) =
        rule(json!({"AttributeKey": "Eventname", "AttributeValue": "CreateUser", "Rulename": "x"})).await?;
    assert_eq!(rule["field"], "EventName");
    ensure!(said.contains("there is no field `Eventname`: taken for `EventName`"), "{said}");
    ensure!(
        said.contains("CloudTail does not know `Rulename`, and did nothing with it; did you mean `RuleName`?"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn what_cannot_come_over_is_told_by_the_exit_status() -> Result<()> {
    let good = json!({"RuleName": "good", "AttributeKey": "EventName", "AttributeValue": "CreateUser"});
    let source =
        |name: &str, rules: Value| json!({"source": name, "account_profile_pairs": [], "lookup_Attributes": rules});
    for (sources, said) in [
        (
            json!([source(
                "AWS CloudTrail",
                json!([good, {"RuleName": "bad", "AttributeKey": "EventName", "AttributeValue": "(a"}])
            )]),
            "not imported: \"^(?:(a)\" is not a regular expression",
        ),
        (
            json!([source("AWS CloudTrail", json!([good])), source("AWS Cloudtrail", json!([good]))]),
            "not imported: there is no source `AWS Cloudtrail`; did you mean `AWS CloudTrail`?",
        ),
        (
            json!([source("AWS CloudTrail", json!([good, {"RuleName": "bad", "jmes_filter": "[?"}]))]),
            "is not a JMESPath expression",
        ),
    ] {
        let (_, ended) = import(&json!({"dataSources": sources}), 3).await?;
        ensure!(ended.stderr.contains(said) && ended.stdout.contains("good"), "{}\n{}", ended.stdout, ended.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn a_file_of_another_kind_is_refused() -> Result<()> {
    for (configuration, said) in [
        (json!([]), "event_config.json: `dataSources`: a list of sources is expected"),
        (json!({"dataSources": {}}), "`dataSources`: a list of sources is expected"),
        (
            json!({"dataSources": [{"lookup_Attributes": []}]}),
            "dataSources[0].source: the name of a source is expected",
        ),
        (
            json!({"dataSources": [{"source": "AWS CloudTrail"}]}),
            "dataSources[0].lookup_Attributes: a list of rules is expected",
        ),
        (json!({"dataSources": []}), "there is nothing to configure"),
    ] {
        let (_, ended) = import(&configuration, 2).await?;
        ensure!(ended.stderr.contains(said) && ended.stdout.is_empty(), "{configuration}: {}", ended.stderr);
    }
    let workspace = Workspace::new("{}")?;
    fs::write(workspace.path().join("event_config.json"), "{")?;
    let ended = workspace.run(&["import", "cloudtail", "event_config.json"]).await?.with_code(2)?;
    ensure!(ended.stderr.contains("event_config.json: it is not JSON"), "{}", ended.stderr);
    let ended = workspace.run(&["import", "cloudtail", "nowhere.json"]).await?.with_code(2)?;
    ensure!(ended.stderr.contains("cannot read nowhere.json"), "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn several_sources_of_a_kind_keep_their_rules_apart() -> Result<()> {
    let source = |profile: &str, event: &str| {
        json!({"source": "AWS CloudTrail", "account_profile_pairs": [{"account_id": "111111111111", "profile_name": profile}],
               "lookup_Attributes": [{"RuleName": "r", "AttributeKey": "EventName", "AttributeValue": event}]})
    };
    let (config, _) = imported(&json!({"dataSources": [source("a", "CreateUser"), source("b", "DeleteUser")]})).await?;
    assert_eq!(config["audits"]["activity"]["clouds"], json!(["awscloudtrail", "awscloudtrail2"]));
    let second = &config["plugins"]["awscloudtrail2"]["params"];
    assert_eq!(second["accounts"], json!([{"account": "111111111111", "profile": "b"}]));
    assert_eq!(second["keep"][0]["is"], "DeleteUser");
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_there_is_not_replaced() -> Result<()> {
    let workspace = Workspace::new("{}")?;
    fs::write(workspace.path().join("event_config.json"), published_example().to_string())?;
    let command = ["import", "cloudtail", "event_config.json", "--output", "ours.yaml"];
    let first = workspace.run(&command).await?.with_code(0)?;
    ensure!(first.stdout.is_empty(), "{}", first.stdout);
    let written = fs::read_to_string(workspace.path().join("ours.yaml"))?;
    ensure!(written.contains("AwsCloudTrail"), "{written}");
    let second = workspace.run(&command).await?.with_code(2)?;
    ensure!(second.stderr.contains("ours.yaml is there already"), "{}", second.stderr);
    assert_eq!(fs::read_to_string(workspace.path().join("ours.yaml"))?, written);
    Ok(())
}
