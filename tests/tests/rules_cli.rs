//! `coordinator rules`: what a person writes rules with, as the program that is typed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::{Output, PATIENCE, Workspace};

/// A workspace with nothing configured.
fn workspace() -> Result<Workspace> {
    Workspace::new("{}")
}

/// Runs `coordinator rules` and expects this exit code.
async fn rules(workspace: &Workspace, args: &[&str], code: i32) -> Result<Output> {
    let all: Vec<&str> = ["rules"].iter().chain(args).copied().collect();
    workspace.run(&all).await?.with_code(code)
}

async fn json_of(workspace: &Workspace, args: &[&str]) -> Result<Value> {
    let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    Ok(serde_json::from_str(&rules(workspace, &all, 0).await?.stdout)?)
}

/// Runs it, expects that it refuses, and returns what it says.
async fn refused(workspace: &Workspace, args: &[&str]) -> Result<String> {
    let ended = rules(workspace, args, 2).await?;
    ensure!(ended.stdout.is_empty(), "{}", ended.stdout);
    ensure!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    Ok(ended.stderr)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    Ok(fs::write(path, text)?)
}

/// A storage account of a subscription, with what it says of TLS.
fn account(subscription: &str, name: &str, tls: Value) -> Value {
    json!({
        "raw": {"name": name},
        "ext": {"cloud_type": "azure", "record_type": "storage_account_properties", "subscription_id": subscription,
                "minimum_tls_version": tls},
        "com": {"cloud_type": "azure", "record_type": "storage_account_properties",
                "reference": format!("/subscriptions/{subscription}/{name}"), "audit_version": "20260101_000000"},
    })
}

const TLS: &str = "azure_storage_minimum_tls_version";

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|rule| rule["id"].as_str()).collect()
}

#[tokio::test]
async fn rules_are_listed_and_filtered() -> Result<()> {
    let workspace = workspace()?;
    let all = json_of(&workspace, &[]).await?;
    ensure!(ids(&all).len() >= 40, "{all}");
    assert_eq!(all, json_of(&workspace, &["list"]).await?);
    let text = rules(&workspace, &[], 0).await?.stdout;
    for id in ids(&all) {
        ensure!(text.contains(id), "{id} is not in\n{text}");
    }
    ensure!(text.contains("AzSQLDatabaseTDEEvent") && text.contains(&format!("{} rules\n", ids(&all).len())), "{text}");

    for (filter, all_are) in [
        (
            ["--cloud", "gcp"],
            &(|rule: &Value| ["gcp", "any"].iter().any(|cloud| rule["cloud"] == *cloud)) as &dyn Fn(&Value) -> bool,
        ),
        (["--service", "storage"], &|rule| rule["service"] == "storage"),
        (["--severity", "HIGH,critical"], &|rule| rule["severity"] == "high" || rule["severity"] == "critical"),
        (["--control", "cis_azure_3.0"], &|rule| rule["controls"]["cis_azure_3.0"].is_array()),
        (["--control", "cis_azure_3.0:4.15"], &|rule| rule["id"] == TLS),
    ] {
        let some = json_of(&workspace, &filter).await?;
        let some = some.as_array().context("a list")?;
        let wanted = all.as_array().into_iter().flatten().filter(|rule| all_are(rule)).count();
        ensure!(!some.is_empty() && some.iter().all(all_are), "{filter:?}: {some:?}");
        ensure!(some.len() == wanted && wanted < ids(&all).len(), "{filter:?}: {} of {wanted}", some.len());
    }
    let both = json_of(&workspace, &["--cloud", "gcp", "--service", "storage"]).await?;
    assert_eq!(ids(&both), [] as [&str; 0]);
    Ok(())
}

#[tokio::test]
async fn a_filter_that_means_nothing_is_refused() -> Result<()> {
    let workspace = workspace()?;
    for (args, said) in [
        (["--cloud", "azur"], "unknown cloud `azur`; did you mean `azure`?"),
        (["--service", "storages"], "unknown service `storages`; did you mean `storage`?"),
        (["--severity", "hihg"], "invalid value 'hihg'"),
        (["--control", "cis_azure_99"], "no rule is about `cis_azure_99` (benchmarks: cis_azure_1.1.0"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: there is no such file"),
    ] {
        let stderr = refused(&workspace, &args).await?;
        ensure!(stderr.contains(said), "{args:?}: {stderr}");
    }
    Ok(())
}

const MINE: &str = "
id: my_numbers
title: Numbers are small
severity: low
remediation: Choose another number.
applies_to: {com.record_type: mock}
params:
  most: {type: int, default: 3, max: 9, about: The largest number that is small}
event_type: my_event
fail_if: raw.data > params.most
description: 'Number {{ raw_data }} is large.'
recommendation: Choose a smaller one.
let: {raw_data: raw.data}
sample: {raw: {data: 1}, com: {record_type: mock, cloud_type: mock, reference: one}}
tests:
  - {name: small, expect: pass}
  - {name: large, set: {raw.data: 4}, expect: fail}
  - {name: none, set: {raw: null}, expect: unknown}
";

#[tokio::test]
async fn the_rules_of_a_configuration_are_listed_shown_and_tested() -> Result<()> {
    let workspace = Workspace::new("rules: [rules]")?;
    write(workspace.path(), "rules/mine.yaml", MINE)?;
    let config = ["-c", "cloudmarker.yaml"];
    let with = json_of(&workspace, &config).await?;
    let without = json_of(&workspace, &[]).await?;
    ensure!(ids(&with).contains(&"my_numbers") && !ids(&without).contains(&"my_numbers"), "{with}");
    assert_eq!(ids(&with).len(), ids(&without).len() + 1);

    let shown = rules(&workspace, &["show", "my_numbers", "-c", "cloudmarker.yaml"], 0).await?.stdout;
    for part in [
        "my_numbers: Numbers are small",
        "raw.data > params.most",
        "com.record_type mock",
        "rules/mine.yaml",
        "The largest number that is small (at most 9)",
        "Choose another number.",
    ] {
        ensure!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let tested = rules(&workspace, &["test", "-c", "cloudmarker.yaml"], 0).await?.stdout;
    ensure!(
        tested.starts_with(&format!("{} rules, ", ids(&with).len())) && tested.ends_with(": all pass\n"),
        "{tested}"
    );
    Ok(())
}

#[tokio::test]
async fn all_of_a_rule_is_shown() -> Result<()> {
    let workspace = workspace()?;
    for name in [
        "azure_sql_database_tde",
        "AzSQLDatabaseTDEEvent",
        "cloudmarker.events.azsqldatabasetdeevent.AzSQLDatabaseTDEEvent",
    ] {
        let shown = json_of(&workspace, &["show", name]).await?;
        assert_eq!(shown["id"], "azure_sql_database_tde");
    }
    let text = rules(&workspace, &["show", "firewall_rule_internet"], 0).await?.stdout;
    for part in ["FirewallRuleEvent", "net.exposes(com, params.ports)", "[22,1433,", "cis_gcp_4.0", "list of port"] {
        ensure!(text.contains(part), "{part} is not in\n{text}");
    }
    let source = rules(&workspace, &["show", "firewall_rule_internet", "--source"], 0).await?.stdout;
    write(workspace.path(), "mine.yaml", &source)?;
    let tested = rules(&workspace, &["test", "mine.yaml"], 0).await?.stdout;
    ensure!(tested.starts_with("1 rule, "), "{tested}");
    Ok(())
}

#[tokio::test]
async fn a_rule_that_is_not_there_is_told_with_what_may_be_meant() -> Result<()> {
    let workspace = workspace()?;
    for (args, said) in [
        (
            vec!["show", "azure_sql_database_tdf"],
            "there is no rule `azure_sql_database_tdf`; did you mean `azure_sql_database_tde`?",
        ),
        (vec!["show", "FirewalRuleEvent"], "did you mean `FirewallRuleEvent`?"),
        (vec!["show", "blob_public"], "these have it in their names: azure_storage_blob_public_access"),
        (vec!["show", "nowhere.yaml"], "nowhere.yaml: it cannot be read: No such file"),
        (vec!["explain", "xyzzy", "--record", "r.json"], "there is no rule `xyzzy`; `coordinator rules` lists all"),
        (vec!["try", "xyzzy", "--from", "."], "there is no rule `xyzzy`"),
    ] {
        let stderr = refused(&workspace, &args).await?;
        ensure!(stderr.starts_with("error: ") && stderr.contains(said), "{args:?}: {stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn tests_say_what_was_expected_and_what_came() -> Result<()> {
    let workspace = workspace()?;
    let built_in = json_of(&workspace, &["test"]).await?;
    ensure!(built_in["tests"].as_u64() > Some(300) && built_in["failures"] == json!([]), "{built_in}");

    write(workspace.path(), "rules/wrong.yaml", &MINE.replace("{raw.data: 4}", "{raw.data: 2}"))?;
    write(
        workspace.path(),
        "rules/more.yaml",
        &MINE.replace("my_numbers", "more").replace("  - {name: none, set: {raw: null}, expect: unknown}\n", ""),
    )?;
    let ended = rules(&workspace, &["test", "rules"], 3).await?;
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "FAILED rules/wrong.yaml: my_numbers: test \"large\": it is pass; fail is expected",
            "  - more: no test expects unknown",
            "2 rules, 5 tests: 1 failed",
        ]
    );
    let ended = rules(&workspace, &["test", "rules", "--json"], 3).await?;
    let tested: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(tested["failures"][0]["test"], "large");
    assert_eq!(tested["untested"][0]["expect"], json!(["unknown"]));
    Ok(())
}

#[tokio::test]
async fn broken_rules_are_told_with_their_places_and_the_others_are_tested() -> Result<()> {
    let workspace = workspace()?;
    write(workspace.path(), "rules/good.yaml", MINE)?;
    write(workspace.path(), "rules/bad.yaml", &MINE.replace("params.most", "params.mots"))?;
    let ended = rules(&workspace, &["test", "rules"], 2).await?;
    let place = "error: rules/bad.yaml:10:28: unknown parameter `mots`; did you mean `most`? (allowed: most)\n\
                 10 | fail_if: raw.data > params.mots\n   |                            ^\n";
    assert_eq!((ended.stderr.as_str(), ended.stdout.as_str()), (place, "1 rule, 3 tests: all pass\n"));

    fs::remove_file(workspace.path().join("rules/bad.yaml"))?;
    write(workspace.path(), "rules/twice.yaml", MINE)?;
    let ended = rules(&workspace, &["test", "rules"], 2).await?;
    ensure!(ended.stderr.contains("has a rule `my_numbers`, too"), "{}", ended.stderr);
    for (path, said) in [("nowhere", "nowhere: it cannot be read"), ("out", "out: it cannot be read")] {
        ensure!(refused(&workspace, &["test", path]).await?.contains(said), "{path}");
    }
    fs::create_dir(workspace.path().join("empty"))?;
    ensure!(refused(&workspace, &["test", "empty"]).await?.contains("there is no rule file in this folder"));
    Ok(())
}

#[tokio::test]
async fn what_a_rule_says_of_a_record_is_explained() -> Result<()> {
    let workspace = workspace()?;
    let record = account("s1", "sa1", json!("TLS1_1"));
    write(workspace.path(), "record.json", &serde_json::to_string_pretty(&record)?)?;
    let args = ["explain", TLS, "--record", "record.json"];
    let text = rules(&workspace, &args, 0).await?.stdout;
    ensure!(text.starts_with(&format!("{TLS} of /subscriptions/s1/sa1: fail\n")), "{text}");
    let row = |name: &str, value: &str| text.lines().any(|line| line.contains(name) && line.contains(value));
    ensure!(row("version.lt(ext.minimum_tls_version, params.min_tls_version)", "true"), "{text}");
    ensure!(row("  ext.minimum_tls_version", "\"TLS1_1\"") && row("  params.min_tls_version", "\"1.2\""), "{text}");
    ensure!(text.contains("has an insecure minimum TLS version, TLS1_1."), "{text}");

    let with = |more: &[&'static str]| args.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    let explained = json_of(&workspace, &with(&["--param", "min_tls_version=1.0"])).await?;
    assert_eq!((&explained["result"], &explained["parts"][0]["value"]), (&json!("pass"), &json!("false")));
    assert_eq!(explained["now"], "2026-01-01T00:00:00Z", "the time of the run that read it");
    let explained = json_of(&workspace, &with(&["--now", "2027-01-01T00:00:00Z"])).await?;
    assert_eq!(explained["now"], "2027-01-01T00:00:00Z");

    write(workspace.path(), "record.json", &account("s1", "sa1", Value::Null).to_string())?;
    let explained = json_of(&workspace, &args).await?;
    assert_eq!(
        (&explained["result"], &explained["because"]),
        (&json!("unknown"), &json!("ext.minimum_tls_version is null"))
    );

    let explained = json_of(&workspace, &["explain", "azure_sql_database_tde", "--record", "record.json"]).await?;
    assert_eq!(explained["result"], "not applicable");
    let because = explained["because"].as_str().context("a reason")?;
    ensure!(because.contains("the record has cloud azure, ext.record_type storage_account_properties"), "{because}");
    Ok(())
}

#[tokio::test]
async fn a_record_is_found_among_many() -> Result<()> {
    let workspace = workspace()?;
    let other = json!({"ext": {"record_type": "other"}, "com": {"cloud_type": "azure", "reference": "/other"}});
    let list = [other, account("s1", "sa1", json!("TLS1_2")), account("s2", "sa2", json!("TLS1_0"))];
    let lines: Vec<String> = list.iter().map(Value::to_string).collect();
    write(workspace.path(), "list.json", &format!("[\n{}\n]\n", lines.join(",\n")))?;
    write(workspace.path(), "lines.jsonl", &lines.join("\n"))?;
    for file in ["list.json", "lines.jsonl"] {
        let args = ["explain", TLS, "--record", file];
        let first = json_of(&workspace, &args).await?;
        assert_eq!((&first["resource"], &first["result"]), (&json!("/subscriptions/s1/sa1"), &json!("pass")));
        let meant = json_of(&workspace, &[args.as_slice(), &["--resource", "sa2"]].concat()).await?;
        assert_eq!((&meant["resource"], &meant["result"]), (&json!("/subscriptions/s2/sa2"), &json!("fail")));
        let stderr = refused(&workspace, &[args.as_slice(), &["--resource", "sa9"]].concat()).await?;
        ensure!(stderr.contains("none of its 3 records has `sa9`"), "{stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn a_record_that_is_none_is_refused() -> Result<()> {
    let workspace = workspace()?;
    for (text, said) in [
        ("{\"com\": {\n", "not a record: EOF while parsing"),
        ("hello", "not a record: expected value"),
        ("[]", "it has no records"),
        ("", "it has no records"),
        ("[1, 2]", "not a record: invalid type"),
    ] {
        write(workspace.path(), "record.json", text)?;
        let stderr = refused(&workspace, &["explain", TLS, "--record", "record.json"]).await?;
        ensure!(stderr.starts_with("error: record.json: ") && stderr.contains(said), "{text:?}: {stderr}");
    }
    let stderr = refused(&workspace, &["explain", TLS, "--record", "nowhere.json"]).await?;
    ensure!(stderr.contains("nowhere.json cannot be read: No such file"), "{stderr}");
    write(workspace.path(), "record.json", &account("s", "a", Value::Null).to_string())?;
    for (param, said) in [
        ("min_tls", "--param: found `min_tls`; NAME=VALUE is expected"),
        ("min_tls=1", "--param: min_tls: unknown parameter `min_tls`"),
        ("min_tls_version=new", "a version such as \"1.2\" is expected"),
    ] {
        let stderr = refused(&workspace, &["explain", TLS, "--record", "record.json", "--param", param]).await?;
        ensure!(stderr.contains(said), "{param}: {stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn control_characters_of_records_do_not_reach_the_terminal() -> Result<()> {
    let workspace = workspace()?;
    write(workspace.path(), "record.json", &account("s\u{1b}[31m", "a\u{7}\nb", json!("TLS1_0")).to_string())?;
    for args in [["explain", TLS, "--record", "record.json"], ["try", TLS, "--from", "record.json"]] {
        let text = rules(&workspace, &args, 0).await?.stdout;
        ensure!(text.contains("fail") && !text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_new_rule_passes_its_own_tests_and_is_not_written_over() -> Result<()> {
    let workspace = workspace()?;
    let args = ["new", "my_rule", "--cloud", "azure", "--record-type", "sql_db"];
    let ended = rules(&workspace, &args, 0).await?;
    ensure!(ended.stdout.starts_with("my_rule.yaml is written") && ended.stderr.is_empty(), "{ended:?}");
    let tested = rules(&workspace, &["test", "my_rule.yaml"], 0).await?.stdout;
    assert_eq!(tested, "1 rule, 4 tests: all pass\n");
    let shown = json_of(&workspace, &["show", "./my_rule.yaml"]).await?;
    assert_eq!(shown["looks_at"]["ext.record_type"], json!(["sql_db"]));

    fs::write(workspace.path().join("my_rule.yaml"), "mine")?;
    let stderr = refused(&workspace, &args).await?;
    ensure!(stderr.contains("my_rule.yaml is there already; it is not written over"), "{stderr}");
    assert_eq!(fs::read_to_string(workspace.path().join("my_rule.yaml"))?, "mine");

    rules(&workspace, &["new", "fire", "--cloud", "gcp", "--record-type", "firewall_rule"], 0).await?;
    let shown = json_of(&workspace, &["show", "fire.yaml"]).await?;
    assert_eq!(shown["looks_at"]["com.record_type"], json!(["firewall_rule"]));
    let ended = rules(&workspace, &["new", "odd", "--record-type", "sql_bd"], 0).await?;
    ensure!(
        ended.stderr.contains("no built-in rule looks at records of the type sql_bd; did you mean `sql_db`?"),
        "{ended:?}"
    );
    for (args, said) in [
        (vec!["new", "My Rule"], "`id` is made of small letters"),
        (vec!["new", "../up"], "`id` is made of small letters"),
        (vec!["new", "x", "--to", "nowhere"], "there is no folder nowhere"),
        (vec!["new", "x", "--cloud", "aws"], "name the records of aws: --record-type TYPE"),
    ] {
        let stderr = refused(&workspace, &args).await?;
        ensure!(stderr.contains(said), "{args:?}: {stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn a_rule_is_tried_on_the_records_of_a_run() -> Result<()> {
    let workspace = workspace()?;
    let list = |records: &[Value]| {
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        format!("[\n{}\n]\n", lines.join(",\n"))
    };
    let one = [
        account("s1", "a1", json!("TLS1_0")),
        account("s1", "a2", json!("TLS1_2")),
        account("s2", "b1", json!("TLS1_1")),
        account("s2", "b2", json!("TLS1_0")),
        account("s2", "b3", Value::Null),
        json!({"ext": {"record_type": "other"}, "com": {"cloud_type": "azure", "reference": "/other"}}),
    ];
    let mut event = account("s1", "a1", json!("TLS1_0"));
    event["com"]["origin_type"] = json!("event");
    write(&workspace.out(), "audit_cloud.json", &list(&one))?;
    write(&workspace.out(), "audit_cloud.20250101_000000.json", &list(&one))?;
    write(&workspace.out(), "audit_events.json", &list(&[event]))?;
    write(&workspace.out(), "more.jsonl", &account("", "c1", json!("TLS1_2")).to_string())?;
    write(&workspace.out(), "notes.txt", "nothing")?;
    let args = ["try", TLS, "--from", "out", "--samples", "2"];
    let tried = json_of(&workspace, &args).await?;
    let count = |name: &str| tried[name].as_u64().unwrap_or(u64::MAX);
    assert_eq!(["records", "pass", "fail", "unknown", "not_applicable", "unreadable"].map(count), [7, 2, 3, 1, 1, 0]);
    let accounts: Vec<String> = tried["accounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| format!("{} {} {} {} {}", it["account"], it["pass"], it["fail"], it["unknown"], it["sample"]))
        .collect();
    let expected = [r#""s2" 0 2 1 "/subscriptions/s2/b1""#, r#""s1" 1 1 0 "/subscriptions/s1/a1""#, r#""" 1 0 0 null"#];
    assert_eq!(accounts, expected);
    assert_eq!(tried["failing"].as_array().map(Vec::len), Some(2));
    let reason = json!([{"reason": "ext.minimum_tls_version is null", "count": 1, "sample": "/subscriptions/s2/b3"}]);
    assert_eq!(tried["unknown_because"], reason);

    let ended = rules(&workspace, &args, 0).await?;
    let head = "on 7 records of 3 files: 6 looked at, 2 pass, 3 fail (3 events), 1 unknown\n";
    ensure!(ended.stdout.lines().next().is_some_and(|line| format!("{line}\n").ends_with(head)), "{}", ended.stdout);
    ensure!(
        ended.stdout.contains("and 1 more") && ended.stdout.contains("ext.minimum_tls_version is null"),
        "{}",
        ended.stdout
    );
    ensure!(ended.stderr.contains("audit_cloud.20250101_000000.json is of an older run"), "{}", ended.stderr);
    let strict = json_of(&workspace, &["try", TLS, "--from", "out", "--param", "min_tls_version=1.3"]).await?;
    assert_eq!(strict["fail"], 5);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_the_rest_is_tried() -> Result<()> {
    let workspace = workspace()?;
    let good = account("s1", "a1", json!("TLS1_0"));
    write(&workspace.out(), "a.json", &format!("[\n{good},\nnonsense,\n{good}"))?;
    let ended = rules(&workspace, &["try", TLS, "--from", "out"], 3).await?;
    ensure!(ended.stdout.contains("2 fail"), "{}", ended.stdout);
    ensure!(
        ended.stderr.contains("2 documents cannot be read, the first: out/a.json:3: not a record"),
        "{}",
        ended.stderr
    );

    for (from, said) in
        [("nowhere", "there is no nowhere; name the folder"), ("empty", "empty: no file in it ends in .json")]
    {
        fs::create_dir_all(workspace.path().join("empty"))?;
        let stderr = refused(&workspace, &["try", TLS, "--from", from]).await?;
        ensure!(stderr.contains(said), "{from}: {stderr}");
    }
    let ended = rules(&workspace, &["try", "azure_sql_database_tde", "--from", "out"], 3).await?;
    ensure!(
        ended.stdout.contains("it looks at none of them; it looks at cloud azure, ext.record_type sql_db"),
        "{}",
        ended.stdout
    );
    Ok(())
}

/// What a run says and what is said of the files that it has left are the same.
#[tokio::test]
async fn a_run_and_a_try_of_its_records_agree() -> Result<()> {
    let workspace = workspace()?;
    for format in ["{format: json}", "{format: jsonl}", "{compress: zstd}", "{format: jsonl, compress: zstd}"] {
        let params = format!("{{path: '{{out}}', {}", &format[1..]);
        workspace.configure(&format!(
            "plugins: {{filestore: {{params: {params}}}, mockcloud: {{params: {{record_count: 1000}}}}, \
             mockevent: {{params: {{n: 7}}}}}}"
        ))?;
        let ended = workspace.run(&["run", "--now"]).await?.with_code(0)?;
        ensure!(ended.stdout.contains("857 pass, 143 fail, 0 unknown"), "{}", ended.stdout);
        let tried = json_of(&workspace, &["try", "MockEvent", "--from", "out", "--param", "n=7"]).await?;
        let counts = ["records", "pass", "fail", "unknown", "events"].map(|name| tried[name].as_u64());
        assert_eq!(counts, [1000, 857, 143, 0, 143].map(Some), "{format}");
        fs::remove_dir_all(workspace.out())?;
    }
    Ok(())
}

/// A file is much larger than the memory that trying a rule on it takes.
#[tokio::test]
async fn many_records_are_tried_in_little_memory() -> Result<()> {
    let workspace = workspace()?;
    let mut record = account("s1", "a1", json!("TLS1_2"));
    record["raw"]["filling"] = json!("x".repeat(4000));
    let text = vec![record.to_string(); 30_000].join(",\n");
    ensure!(text.len() > 120_000_000);
    write(&workspace.out(), "big.json", &format!("[\n{text}\n]\n"))?;
    let mut coordinator = workspace.coordinator(&["rules", "try", TLS, "--from", "out", "--json"]).start()?;
    let status = format!("/proc/{}/status", coordinator.pid().context("it runs")?);
    let watched = tokio::spawn(async move {
        // The figure only grows: the last one that can be read is the peak, to within one look.
        let mut peak = 0_u64;
        while let Ok(text) = tokio::fs::read_to_string(&status).await
            && let Some(line) = text.lines().find(|line| line.starts_with("VmHWM:"))
        {
            peak = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(peak);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        peak
    });
    let ended = coordinator.wait(PATIENCE).await?.with_code(0)?;
    let tried: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(tried["pass"], 30_000);
    let peak = watched.await?;
    ensure!(peak > 1024 && peak < 64 * 1024, "{peak} KiB");
    Ok(())
}

#[tokio::test]
async fn help_shows_examples() -> Result<()> {
    let workspace = workspace()?;
    for command in [vec![], vec!["test"], vec!["explain"], vec!["new"], vec!["try"]] {
        let help = rules(&workspace, &[command.as_slice(), &["--help"]].concat(), 0).await?.stdout;
        ensure!(help.contains("Examples:\n  coordinator rules "), "{command:?}: {help}");
    }
    Ok(())
}
