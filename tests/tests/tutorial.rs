//! The tutorial's configuration files, as it prints them: each is checked, and those that this version serves are run
//! and give what the tutorial says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cloudsim::Cloudsim;
use tests::harness::{Output, PATIENCE, Workspace};

/// Where a run writes, to be named after a file of the tutorial.
const OWN: &str = "
plugins: {filestore: {params: {path: '{out}'}}}
logger: {handlers: {file: {filename: run.log}}}
";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/tests/config/tutorial")
}

fn file(name: &str) -> String {
    folder().join(format!("{name}.yaml")).display().to_string()
}

/// What a check says of a file of the tutorial.
struct Checked {
    name: &'static str,
    code: i32,
    /// The first words of standard output.
    result: &'static str,
    /// The lines of standard error, with FILE for the file.
    told: Vec<String>,
}

impl Checked {
    /// It can be run.
    fn good(name: &'static str, told: Vec<String>) -> Self {
        Self { name, code: 0, result: "The configuration is good. Audits to run: ", told }
    }

    fn wrong(name: &'static str, told: Vec<String>) -> Self {
        Self { name, code: 2, result: "", told }
    }
}

fn expected() -> Vec<Checked> {
    let line = |text: &str| vec![text.to_owned()];
    let credentials = || {
        line(
            "error: FILE: plugins.myazcloud.params.credential: say how to sign in: set `tenant` and `client` with `secret` \
             or `certificate`, or set `credential` to `workload_identity`, `managed_identity` or `azure_cli`",
        )
    };
    let beside = |plugin: &str, names: &str| {
        format!(
            "warning: FILE: plugins.{plugin}: found parameters beside `plugin`: {names}; they are read, move them under \
             `params`"
        )
    };
    vec![
        Checked::good("get-started", vec![]),
        Checked::good("mockcloud-in-base", vec![]),
        Checked::good("mockcloud", vec![]),
        Checked::good("mockevent", vec![]),
        Checked::good("filestore", vec![]),
        Checked::good("logger", vec![]),
        Checked::good("email", line("warning: FILE: emailalert: found `emailalert`; read as `email`, write it so")),
        Checked::wrong("azcloud", credentials()),
        Checked::wrong("firewallruleevent", credentials()),
        Checked::wrong(
            "foo",
            line("error: FILE: run[1]: no audit `fooaudit` is defined under `audits`; did you mean `mockaudit`?"),
        ),
        Checked::wrong("bar", line("error: FILE: run[0]: no audit `baraudit` is defined under `audits`")),
        Checked::good("azvm", vec![]),
        Checked::good(
            "gcpcloud",
            line(
                "warning: FILE: plugins.mygcpcloud.params.zone: `zone` has no effect, all zones are read; leave it out",
            ),
        ),
        Checked::good("esstore-minimal", vec![]),
        Checked::good("esstore", vec![beside("esstore", "host, index, port")]),
        Checked::good("mongodbstore-minimal", vec![]),
        Checked::good("mongodbstore", vec![beside("mongodbstore", "collection, db, host, password, port, username")]),
        Checked::good("splunkhecstore", vec![]),
        Checked::wrong(
            "slackalert",
            line(
                "error: FILE: plugins.slackalert.params.bot_user_token: set `bot_user_token`: the bot's token (`xoxb-...`)",
            ),
        ),
        Checked::good("emailalert", vec![]),
    ]
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

#[tokio::test]
async fn every_file_is_checked() -> Result<()> {
    let expected = expected();
    for checked in &expected {
        let (workspace, file) = (Workspace::new("")?, file(checked.name));
        let output = workspace.run(&["check", "-c", &file]).await?.with_code(checked.code)?;
        let told = output.stderr.replace(&file, "FILE");
        assert_eq!(lines(&told), checked.told.iter().map(String::as_str).collect(), "{}", checked.name);
        assert_eq!(told.lines().count(), checked.told.len(), "{}: each once", checked.name);
        assert!(output.stdout.starts_with(checked.result), "{}: {output:?}", checked.name);
        assert_eq!(output.stdout.is_empty(), checked.result.is_empty(), "{}: {output:?}", checked.name);
    }
    let names: BTreeSet<String> = expected.iter().map(|checked| format!("{}.yaml", checked.name)).collect();
    let files: BTreeSet<String> = std::fs::read_dir(folder())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    assert_eq!(files, names, "each file is checked");
    Ok(())
}

#[tokio::test]
async fn what_is_not_served_is_not_run_in_part() -> Result<()> {
    for checked in expected().iter().filter(|checked| !checked.result.starts_with("The configuration is good. ")) {
        let workspace = Workspace::new(OWN)?;
        let args = ["run", "--now", "-c", &file(checked.name), "cloudmarker.yaml"];
        let output = workspace.run(&args).await?.with_code(2)?;
        assert!(output.stderr.contains("error: ") && output.stdout.is_empty(), "{output:?}");
        if checked.code == 0 {
            let told = "which this version does not serve; remove it from the audit";
            assert!(output.stderr.contains(told), "{}: {output:?}", checked.name);
        }
        assert_eq!(std::fs::read_dir(workspace.path())?.count(), 1, "{}: {output:?}", checked.name);
    }
    Ok(())
}

/// Runs a file of the tutorial with the output in a workspace.
async fn run(name: &str) -> Result<Workspace> {
    let workspace = Workspace::new(OWN)?;
    workspace.run(&["-n", "-c", &file(name), "cloudmarker.yaml"]).await?.with_code(0)?;
    Ok(workspace)
}

/// The values of a field of `ext` in all documents of a file.
fn field<'a>(documents: &'a [Value], name: &str) -> Vec<&'a Value> {
    documents.iter().map(|document| &document["ext"][name]).collect()
}

#[tokio::test]
async fn get_started_makes_five_records_of_three_types() -> Result<()> {
    let workspace = run("get-started").await?;
    let records = workspace.documents("mymockaudit_mymockcloud.json")?;
    assert_eq!(field(&records, "record_type"), ["apple", "ball", "cat", "apple", "ball"]);
    assert_eq!(workspace.documents("mymockaudit_mockevent.json")?.len(), 2);
    assert_eq!(workspace.files()?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn the_mock_cloud_makes_ten_records_unless_told_otherwise() -> Result<()> {
    let workspace = run("mockcloud-in-base").await?;
    let records = workspace.documents("mockaudit_mockcloud.json")?;
    let types: Vec<&Value> = field(&records, "record_type");
    assert_eq!(types, ["foo", "bar", "foo", "bar", "foo", "bar", "foo", "bar", "foo", "bar"]);
    assert_eq!(workspace.documents("mockaudit_mockevent.json")?.len(), 4);

    let workspace = run("mockcloud").await?;
    let records = workspace.documents("mockaudit_mockcloud.json")?;
    assert_eq!(records.len(), 20);
    assert_eq!(field(&records[17..], "record_type"), ["baz", "foo", "bar"]);
    assert_eq!(workspace.documents("mockaudit_mockevent.json")?.len(), 7);
    Ok(())
}

#[tokio::test]
async fn the_mock_event_looks_for_multiples_of_its_number() -> Result<()> {
    let workspace = run("mockevent").await?;
    assert_eq!(workspace.documents("mockaudit_mockcloud.json")?.len(), 10);
    let events = workspace.documents("mockaudit_mockevent.json")?;
    assert_eq!(field(&events, "data"), [0, 5]);
    Ok(())
}

#[tokio::test]
async fn the_file_store_writes_below_the_home_folder() -> Result<()> {
    // Exactly as printed: `path: ~/cloudmarker`.
    let workspace = Workspace::new("logger: {handlers: {file: {filename: run.log}}}")?;
    let mut coordinator = workspace.coordinator(&["-n", "-c", &file("filestore"), "cloudmarker.yaml"]).start()?;
    let output = coordinator.wait(PATIENCE).await?.with_code(0)?;
    let written = coordinator.home().join("cloudmarker");
    assert!(output.stdout.contains(&format!("in {}", written.display())), "{output:?}");
    for (file, count) in [("mockaudit_mockcloud.json", 10), ("mockaudit_mockevent.json", 4)] {
        let text = std::fs::read_to_string(written.join(file)).with_context(|| file.to_owned())?;
        assert_eq!(serde_json::from_str::<Vec<Value>>(&text)?.len(), count, "{file}");
    }
    Ok(())
}

#[tokio::test]
async fn the_logger_writes_where_it_is_told() -> Result<()> {
    let workspace = Workspace::new("plugins: {filestore: {params: {path: '{out}'}}}")?;
    std::fs::create_dir(workspace.path().join("log"))?;
    let output = workspace.run(&["-n", "-c", "cloudmarker.yaml", &file("logger")]).await?.with_code(0)?;
    let log = std::fs::read_to_string(workspace.path().join("log/cloudmarker.log"))?;
    let version = output.stdout.lines().next().and_then(|line| line.split([' ', ':']).nth(3)).unwrap_or_default();
    assert!(!version.is_empty() && log.contains(version), "{version:?} is not in the log:\n{log}\n{output:?}");
    assert!(!log.contains('\u{1b}'), "{log}");
    Ok(())
}

#[tokio::test]
async fn the_mails_of_a_run_do_not_keep_it_from_running() -> Result<()> {
    // The tutorial's own mail server is not to be asked: another one stands in, and nobody answers there.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let workspace = Workspace::new(&format!("{OWN}\nemailalert: {{host: 127.0.0.1, port: {silent}, patience: 1s}}"))?;
    let output = workspace.run(&["-n", "-c", &file("email"), "cloudmarker.yaml"]).await?.with_code(3)?;
    assert_eq!(workspace.documents("mockaudit_mockcloud.json")?.len(), 10);
    assert!(output.stdout.contains("mail"), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn a_later_file_wins() -> Result<()> {
    // The tutorial names the audits, and leaves their definition to the reader.
    let workspace = Workspace::new(
        "
plugins: {filestore: {params: {path: '{out}'}}}
logger: {handlers: {file: {filename: run.log}}}
audits:
  fooaudit: {clouds: [mockcloud], stores: [filestore], events: [], alerts: []}
  baraudit: {clouds: [mockcloud], stores: [filestore], events: [], alerts: []}
",
    )?;
    let (foo, bar) = (file("foo"), file("bar"));
    workspace.run(&["-n", "-c", "cloudmarker.yaml", &foo, &bar]).await?.with_code(0)?;
    assert_eq!(workspace.files()?, ["baraudit_mockcloud.json"]);
    workspace.run(&["-n", "-c", "cloudmarker.yaml", &bar, &foo]).await?.with_code(0)?;
    assert!(workspace.files()?.contains(&"fooaudit_mockcloud.json".to_owned()));
    assert!(workspace.files()?.contains(&"mockaudit_mockcloud.json".to_owned()));
    Ok(())
}

/// Runs a file of the tutorial with the nulls replaced, as it says, by what the simulated Azure wants.
async fn run_on_azure(azure: &Cloudsim, name: &str) -> Result<(Workspace, Output)> {
    let workspace = Workspace::new(OWN)?;
    std::fs::write(workspace.path().join("azure.yaml"), azure.configuration())?;
    let args = ["-n", "-c", &file(name), "azure.yaml", "cloudmarker.yaml"];
    let output = workspace.run(&args).await?.with_code(0)?;
    Ok((workspace, output))
}

#[tokio::test]
async fn azure_is_audited_for_exposed_ports() -> Result<()> {
    let azure = Cloudsim::builder().start().await?;
    let (all, _) = run_on_azure(&azure, "azcloud").await?;
    let (some, output) = run_on_azure(&azure, "firewallruleevent").await?;
    for workspace in [&all, &some] {
        let records = workspace.documents("myazaudit_myazcloud.json")?;
        let of = |kind: &str| field(&records, "record_type").into_iter().filter(|value| **value == kind).count();
        let truth = azure.truth();
        assert_eq!(
            (of("subscription"), of("nsg"), of("security_rule")),
            (truth.subscriptions, truth.nsgs, truth.rules)
        );
    }
    let ports = |workspace: &Workspace| -> Result<BTreeSet<u64>> {
        let events = workspace.documents("myazaudit_firewallruleevent.json")?;
        let ports = events.iter().filter_map(|event| event["com"]["exposed_ports"].as_array()).flatten();
        Ok(ports.filter_map(Value::as_u64).collect())
    };
    // The second file asks for these two only.
    assert_eq!(ports(&some)?, BTreeSet::from([22, 3389]), "{output:?}");
    ensure!(ports(&all)?.len() > 2 && ports(&all)?.is_superset(&ports(&some)?), "{:?}", ports(&all)?);
    Ok(())
}
