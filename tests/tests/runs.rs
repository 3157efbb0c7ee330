//! The same run comes to the same, in one process and over a broker with five, with one worker of each kind and two.

use anyhow::Result;
use tests::harness::{NatsServer, PATIENCE, Services, Workspace};

/// The tutorial's first configuration, with the output folder named.
const TUTORIAL: &str = "
plugins:
  mymockcloud:
    plugin: cloudmarker.clouds.mockcloud.MockCloud
    params:
      record_count: 5
      record_types:
        - apple
        - ball
        - cat
  filestore:
    params:
      path: {out}

audits:
  mymockaudit:
    clouds:
      - mymockcloud
    stores:
      - filestore
    events:
      - mockevent
    alerts:
      - filestore

run:
  - mymockaudit
";

/// The built-in audit, with the output folder named.
const DEFAULT: &str = "plugins: {filestore: {params: {path: '{out}'}}}";

async fn over_nats(configuration: &str, of_each: usize) -> Result<Workspace> {
    let nats = NatsServer::start().await?;
    let services = Services::start(&nats, of_each)?;
    let workspace = Workspace::new(configuration)?;
    let output = workspace.run(&["run", "--now", "--nats", nats.url()]).await?;
    anyhow::ensure!(output.code() == Some(0), "{output:?}\n{}", services.printed());
    Ok(workspace)
}

async fn embedded(configuration: &str) -> Result<Workspace> {
    let workspace = Workspace::new(configuration)?;
    workspace.run(&["run", "--now"]).await?.with_code(0)?;
    Ok(workspace)
}

#[tokio::test]
async fn the_tutorials_run() -> Result<()> {
    let (here, there) = (embedded(TUTORIAL).await?, over_nats(TUTORIAL, 1).await?);
    let (records, events) = ("mymockaudit_mymockcloud.json", "mymockaudit_mockevent.json");
    for workspace in [&here, &there] {
        assert_eq!(workspace.files()?, [events, records]);
    }
    for (file, count) in [(records, 5), (events, 2)] {
        assert_eq!(here.stable_lines(file)?.len(), count);
        assert_eq!(here.stable_lines(file)?, there.stable_lines(file)?);
    }
    let documents = here.documents(records)?;
    let types: Vec<&str> = documents.iter().filter_map(|record| record["ext"]["record_type"].as_str()).collect();
    assert_eq!(types, ["apple", "ball", "cat", "apple", "ball"]);
    let com = &documents[4]["com"];
    assert_eq!(documents[4]["raw"]["data"], 4);
    assert_eq!(com["origin_worker"], "mymockaudit_mymockcloud");
    assert_eq!((&com["origin_class"], &com["origin_type"]), (&"MockCloud".into(), &"cloud".into()));
    assert_eq!((&com["target_class"], &com["target_type"]), (&"FileStore".into(), &"store".into()));
    Ok(())
}

#[tokio::test]
async fn the_default_run_also_with_two_of_every_worker() -> Result<()> {
    let (here, one, two) = (embedded(DEFAULT).await?, over_nats(DEFAULT, 1).await?, over_nats(DEFAULT, 2).await?);
    for (file, count) in [("mockaudit_mockcloud.json", 10), ("mockaudit_mockevent.json", 4)] {
        let expected = here.stable_lines(file)?;
        assert_eq!(expected.len(), count);
        assert_eq!(one.stable_lines(file)?, expected);
        assert_eq!(two.stable_lines(file)?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn the_old_commands_options_work() -> Result<()> {
    let workspace = Workspace::new(DEFAULT)?;
    workspace.run(&["-n", "-c", "cloudmarker.yaml"]).await?.with_code(0)?;
    assert_eq!(workspace.documents("mockaudit_mockcloud.json")?.len(), 10);
    let version = workspace.run(&["-v"]).await?.with_code(0)?;
    assert!(version.stdout.starts_with("coordinator "), "{version:?}");
    let old = workspace.run(&["-p"]).await?.with_code(0)?.stdout;
    let new = workspace.run(&["print-base-config"]).await?.with_code(0)?.stdout;
    assert!(old == new && new.contains("mockaudit:"), "{new}");
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_finds_nothing_leaves_an_empty_array() -> Result<()> {
    let workspace = Workspace::new(DEFAULT)?;
    workspace.run(&["run", "--now"]).await?.with_code(0)?;
    assert_eq!(workspace.documents("mockaudit_mockevent.json")?.len(), 4);
    let nothing = "plugins: {filestore: {params: {path: '{out}'}}, mockcloud: {params: {record_count: 0}}}";
    workspace.configure(nothing)?;
    workspace.run(&["run", "--now"]).await?.with_code(0)?;
    for file in ["mockaudit_mockcloud.json", "mockaudit_mockevent.json"] {
        assert_eq!(std::fs::read_to_string(workspace.out().join(file))?, "[]\n");
    }
    Ok(())
}

#[tokio::test]
async fn several_audits_run_under_one_version() -> Result<()> {
    let workspace = Workspace::new(
        "
plugins: {filestore: {params: {path: '{out}'}}, mockcloud: {params: {record_count: 25000}}}
audits:
  one: {clouds: [mockcloud], stores: [filestore], events: [], alerts: []}
  two: {clouds: [mockcloud], stores: [], events: [mockevent], alerts: [filestore]}
run: [one, two]
",
    )?;
    let output = workspace.run(&["run", "--now"]).await?.with_code(0)?;
    let (records, events) = (workspace.documents("one_mockcloud.json")?, workspace.documents("two_mockevent.json")?);
    assert_eq!((records.len(), events.len()), (25_000, 8_334));
    assert_eq!(records[0]["com"]["audit_version"], events[0]["com"]["audit_version"]);
    assert!(output.stdout.find("Audit one") < output.stdout.find("Audit two"), "{}", output.stdout);
    // One of them alone.
    let alone = Workspace::new("plugins: {filestore: {params: {path: '{out}'}}}\naudits: {other: {clouds: [nope]}}")?;
    let output = alone.run(&["run", "--now", "--audit", "mockaudit"]).await?;
    assert_eq!(output.code(), Some(2), "an audit with an unknown plugin is wrong even when it is not run: {output:?}");
    Ok(())
}

#[tokio::test]
async fn progress_is_plain_lines_and_the_summary_is_on_standard_output() -> Result<()> {
    let workspace = Workspace::new(DEFAULT)?;
    let output = workspace.run(&["run", "--now"]).await?.with_code(0)?;
    for text in ["complete", "mockcloud", "10", "records", "mockevent", "4", "events", "filestore", "documents"] {
        assert!(output.stdout.contains(text), "{text:?} is missing:\n{}", output.stdout);
    }
    assert!(!output.stdout.contains('\u{1b}') && !output.stderr.contains('\u{1b}'), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn the_first_ctrl_c_finishes_what_was_read() -> Result<()> {
    let workspace = Workspace::new(
        "plugins: {filestore: {params: {path: '{out}'}}, mockcloud: {params: {record_count: 20000000}}}",
    )?;
    let mut coordinator = workspace.coordinator(&["run", "--now", "--concurrency", "1"]).start()?;
    coordinator.wait_for_line("collecting", PATIENCE).await?;
    coordinator.interrupt()?;
    let output = coordinator.wait(PATIENCE).await?.with_code(3)?;
    assert!(output.stdout.contains("stopped by an operator"), "{output:?}");
    let records = workspace.documents("mockaudit_mockcloud.json")?.len();
    assert!(records < 20_000_000 && records % 10_000 == 0, "{records} records");
    Ok(())
}

#[tokio::test]
async fn a_store_that_cannot_be_built_holds_nobody_up() -> Result<()> {
    // More than the in-process bus holds for a reader that never comes.
    let workspace = Workspace::new(
        "
plugins:
  filestore: {params: {path: '{out}'}}
  linked: {plugin: FileStore, params: {path: '{out}-link'}}
  mockcloud: {params: {record_count: 100000}}
  mockevent: {params: {n: 2}}
audits:
  audit: {clouds: [mockcloud], stores: [filestore, linked], events: [mockevent], alerts: [filestore, linked]}
run: [audit]
",
    )?;
    std::os::unix::fs::symlink(workspace.path(), workspace.path().join("out-link"))?;
    let output = workspace.run(&["run", "--now"]).await?.with_code(3)?;
    for role in ["store", "alert"] {
        let problem = format!("! {role} linked: the folder");
        assert!(output.stdout.contains(&problem) && output.stdout.contains("is a symbolic link"), "{output:?}");
    }
    assert_eq!(workspace.documents("audit_mockcloud.json")?.len(), 100_000);
    assert_eq!(workspace.documents("audit_mockevent.json")?.len(), 50_000);
    Ok(())
}
