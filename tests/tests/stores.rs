//! Shared stores: whatever is killed in mid-run, and however often a document comes, each is stored once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use proto::bus::nats::{NatsBus, NatsOptions};
use proto::status::{self, DeadLetter};
use proto::subject::{self, Key, Role, Version};
use serde_json::Value;
use sink::stores::sqlite::{Cell, query};
use tests::harness::{NatsServer, Output, PATIENCE, Program, Services, Workspace};

const RECORDS: u64 = 100_000;

const AUDIT: &str = "
plugins:
  inventory: {plugin: SqliteStore, params: {path: '{out}/inventory.db'}}
  mockcloud: {params: {record_count: 100000}}
  mockevent: {params: {n: 50}}
audits:
  audit: {clouds: [mockcloud], stores: [inventory], events: [mockevent], alerts: [inventory]}
run: [audit]
nats: {ack_wait: 2s}
";

fn inventory(workspace: &Workspace) -> PathBuf {
    workspace.out().join("inventory.db")
}

fn rows(workspace: &Workspace, sql: &str) -> Result<Vec<Vec<Cell>>> {
    let mut rows = Vec::new();
    query(&inventory(workspace), sql, |_, row| {
        rows.extend(row.map(<[Cell]>::to_vec));
        Ok(())
    })?;
    Ok(rows)
}

fn count(workspace: &Workspace, which: &str) -> Result<i64> {
    let rows = rows(workspace, &format!("SELECT count(*) FROM documents WHERE {which}"))?;
    match rows.first().and_then(|row| row.first()) {
        Some(Cell::Integer(count)) => Ok(*count),
        other => anyhow::bail!("no count: {other:?}"),
    }
}

/// Each record and each event is there once, with what MockCloud and MockEvent make of it.
fn verify(workspace: &Workspace) -> Result<()> {
    let mut found = BTreeMap::new();
    for row in rows(workspace, "SELECT id, is_event, document FROM documents")? {
        let [Cell::Text(id), Cell::Integer(is_event), Cell::Text(document)] = &row[..] else {
            anyhow::bail!("an odd row: {row:?}");
        };
        let document: Value = serde_json::from_str(document)?;
        ensure!(document["com"]["id"] == id.as_str(), "the row {id} is of another document: {document}");
        let (role, bucket) = if *is_event == 1 { ("alert", "ext") } else { ("store", "raw") };
        ensure!(document["com"]["target_type"] == role && document["com"]["target_key"] == "inventory", "{document}");
        let data = document[bucket]["data"].as_u64().with_context(|| format!("no data: {document}"))?;
        ensure!(found.insert((*is_event, data), id.clone()).is_none(), "{role} {data} is there twice");
    }
    let of = |kind| found.range((kind, 0)..(kind + 1, 0)).map(|((_, data), _)| *data).collect::<Vec<u64>>();
    ensure!(of(0).into_iter().eq(0..RECORDS), "{} records, not all", of(0).len());
    ensure!(of(1).into_iter().eq((0..RECORDS).step_by(50)), "{} events, not all", of(1).len());
    Ok(())
}

struct Run {
    nats: NatsServer,
    services: Services,
    workspace: Workspace,
    coordinator: Program,
}

impl Run {
    /// A run that is in the middle: some documents are stored.
    async fn begin(of_each: usize) -> Result<Self> {
        let nats = NatsServer::start().await?;
        let services = Services::start(&nats, of_each)?;
        let workspace = Workspace::new(AUDIT)?;
        let coordinator = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
        coordinator.wait_for_line("collecting", PATIENCE).await?;
        let some = async {
            while count(&workspace, "NOT is_event")? < 10_000 {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, some).await??;
        Ok(Self { nats, services, workspace, coordinator })
    }

    async fn end(mut self) -> Result<()> {
        let output = self.coordinator.wait(PATIENCE).await?;
        self.verify(&output)
    }

    fn verify(&self, output: &Output) -> Result<()> {
        ensure!(output.code() == Some(0), "{output:?}\n{}", self.services.printed());
        verify(&self.workspace)
    }
}

#[tokio::test]
async fn all_documents_arrive_in_one_process() -> Result<()> {
    let workspace = Workspace::new(AUDIT)?;
    let output = workspace.run(&["run", "--now"]).await?.with_code(0)?;
    assert!(output.stdout.contains("inventory.db") && output.stdout.contains("100000"), "{output:?}");
    verify(&workspace)?;
    // Another version stands beside it.
    workspace.run(&["run", "--now"]).await?.with_code(0)?;
    assert_eq!(count(&workspace, "NOT is_event")?, 2 * i64::try_from(RECORDS)?);
    Ok(())
}

#[tokio::test]
async fn all_documents_arrive_over_a_broker_with_two_sinks() -> Result<()> {
    Run::begin(2).await?.end().await
}

#[tokio::test]
async fn a_sink_is_killed() -> Result<()> {
    let mut run = Run::begin(1).await?;
    run.services.kill9_and_replace(&run.nats, "sink").await?;
    run.end().await
}

#[tokio::test]
async fn one_of_two_sinks_is_killed() -> Result<()> {
    let mut run = Run::begin(2).await?;
    let sink = run.services.first("sink").context("no sink is running")?;
    sink.kill9().await?;
    run.end().await
}

#[tokio::test]
async fn the_broker_is_killed_and_started_again() -> Result<()> {
    let mut run = Run::begin(1).await?;
    run.nats.restart().await?;
    run.end().await
}

#[tokio::test]
async fn a_sink_is_drained_and_replaced() -> Result<()> {
    let mut run = Run::begin(1).await?;
    run.services.add(&run.nats, "sink")?;
    let old = run.services.first("sink").context("no sink is running")?;
    old.terminate()?;
    old.wait(PATIENCE).await?.with_code(0)?;
    run.end().await
}

#[tokio::test]
async fn the_coordinator_is_killed_and_the_version_is_run_on() -> Result<()> {
    let mut run = Run::begin(1).await?;
    run.coordinator.kill9().await?;
    let told = run.coordinator.wait_for_line("--resume ", PATIENCE).await?;
    let version = told.rsplit(' ').next().unwrap_or_default().to_owned();
    let output = run.workspace.run(&["run", "--resume", &version, "--nats", run.nats.url()]).await?;
    run.verify(&output)
}

/// An inventory that cannot be used, beside a file that can.
fn unusable(more: &str) -> String {
    format!(
        "
plugins:
  inventory: {{plugin: SqliteStore, params: {{path: '{{out}}/mine.txt'{more}}}}}
  filestore: {{params: {{path: '{{out}}'}}}}
audits:
  audit: {{clouds: [mockcloud], stores: [inventory, filestore], events: [], alerts: []}}
run: [audit]
"
    )
}

fn workspace_with(configuration: &str) -> Result<Workspace> {
    let workspace = Workspace::new(configuration)?;
    std::fs::create_dir(workspace.out())?;
    std::fs::write(workspace.out().join("mine.txt"), "this is no inventory, and nobody may write over it ".repeat(20))?;
    Ok(workspace)
}

async fn runs_with(nats: Option<&NatsServer>, workspace: &Workspace, code: i32) -> Result<Output> {
    match nats {
        Some(nats) => workspace.run(&["run", "--now", "--nats", nats.url()]).await?.with_code(code),
        None => workspace.run(&["run", "--now"]).await?.with_code(code),
    }
}

#[tokio::test]
async fn nothing_is_collected_for_a_store_that_cannot_be_used() -> Result<()> {
    let nats = NatsServer::start().await?;
    let _services = Services::start(&nats, 1)?;
    for nats in [None, Some(&nats)] {
        let workspace = workspace_with(&unusable(""))?;
        let output = runs_with(nats, &workspace, 3).await?;
        assert!(output.stdout.contains("! store inventory: ") && output.stdout.contains("another kind"), "{output:?}");
        assert!(output.stdout.contains("nothing was collected, as the store inventory cannot be used"), "{output:?}");
        assert_eq!(workspace.files()?, ["mine.txt"], "a file was written for a run that read nothing");
    }
    Ok(())
}

#[tokio::test]
async fn a_run_goes_on_without_an_optional_store() -> Result<()> {
    let nats = NatsServer::start().await?;
    let _services = Services::start(&nats, 1)?;
    for nats in [None, Some(&nats)] {
        let workspace = workspace_with(&unusable(", optional: yes"))?;
        let output = runs_with(nats, &workspace, 0).await?;
        assert!(output.stdout.contains("- store inventory: left out, as it is optional: "), "{output:?}");
        assert_eq!(workspace.documents("audit_mockcloud.json")?.len(), 10);
    }
    Ok(())
}

#[tokio::test]
async fn no_sink_is_running() -> Result<()> {
    let nats = NatsServer::start().await?;
    let _services = Services::start_these(&nats, &[("collector", 1), ("evaluator", 1)])?;
    let workspace = Workspace::new(AUDIT)?;
    let output = workspace.run(&["run", "--now", "--nats", nats.url(), "--wait-workers", "2"]).await?.with_code(3)?;
    assert!(output.stderr.contains("waiting: no sink is running"), "{output:?}");
    assert!(output.stdout.contains("store inventory: no sink is running"), "{output:?}");
    Ok(())
}

/// A small inventory that keeps two versions.
const KEEPING: &str = "
plugins:
  inventory: {plugin: SqliteStore, params: {path: '{out}/inventory.db', keep_versions: 2}}
audits:
  audit: {clouds: [mockcloud], stores: [inventory], events: [mockevent], alerts: []}
  other: {clouds: [mockcloud], stores: [inventory], events: [], alerts: []}
run: [audit]
";

fn versions(workspace: &Workspace) -> Result<Vec<String>> {
    let rows = rows(workspace, "SELECT DISTINCT version FROM documents WHERE audit = 'audit' ORDER BY version")?;
    rows.into_iter()
        .map(|row| if let [Cell::Text(version)] = &row[..] { Ok(version.clone()) } else { anyhow::bail!("{row:?}") })
        .collect()
}

/// Waits until something is so.
async fn until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let waiting = async {
        while !is_so()? {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, waiting).await?
}

#[tokio::test]
async fn old_versions_go_and_the_last_complete_ones_stay() -> Result<()> {
    let nats = NatsServer::start().await?;
    let _services = Services::start(&nats, 2)?;
    for nats in [None, Some(&nats)] {
        let workspace = Workspace::new(KEEPING)?;
        let state = workspace.path().join("state");
        let mut seen = Vec::new();
        let run = async |args: &[&str], code| {
            let mut args = ["run", "--now"].into_iter().chain(args.iter().copied()).collect::<Vec<&str>>();
            if let Some(nats) = nats {
                args.extend(["--nats", nats.url()]);
            }
            let coordinator = workspace.coordinator(&args).env("CM_STATE_DIR", &state);
            coordinator.start()?.wait(PATIENCE).await?.with_code(code)
        };
        run(&["--audit", "other"], 0).await?;
        for n in 0..4 {
            run(&[], 0).await?;
            until(|| Ok(versions(&workspace)?.len() == (n + 1).min(2))).await?;
            seen.push(versions(&workspace)?.pop().context("no version")?);
        }
        assert_eq!(versions(&workspace)?, seen[2..], "the two newest stay");
        assert_eq!(count(&workspace, "audit = 'other'")?, 10, "another audit's stay");
        // A run that is not complete pushes nothing out.
        let incomplete = KEEPING
            .replace("plugins:\n", "plugins:\n  nowhere: {plugin: FileStore, params: {path: /proc/nowhere}}\n")
            .replace("stores: [inventory], events: [mockevent]", "stores: [inventory, nowhere], events: [mockevent]");
        workspace.configure(&incomplete)?;
        run(&["--wait-workers", "1"], 3).await?;
        let there = versions(&workspace)?;
        assert!(there.len() == 3 && there[..2] == seen[2..], "{there:?}");
    }
    Ok(())
}

#[tokio::test]
async fn stores_are_connected_to_in_a_check() -> Result<()> {
    let workspace = workspace_with(&unusable(""))?;
    let good = workspace.run(&["check"]).await?.with_code(0)?;
    assert!(!good.stderr.contains("inventory"), "{good:?}");
    let output = workspace.run(&["check", "--connect"]).await?.with_code(3)?;
    assert!(output.stderr.contains("error: audits.audit.stores: inventory: cannot be used: "), "{output:?}");
    workspace.configure(&unusable(", optional: true"))?;
    let output = workspace.run(&["check", "--connect"]).await?.with_code(0)?;
    assert!(output.stderr.contains("a run goes on without it"), "{output:?}");
    workspace.configure(KEEPING)?;
    let output = workspace.run(&["check", "--connect"]).await?.with_code(0)?;
    assert!(output.stderr.contains("inventory: can be used: ") && inventory(&workspace).exists(), "{output:?}");
    workspace.configure(&KEEPING.replace("keep_versions: 2", "keep_version: 2, patience: soon"))?;
    let output = workspace.run(&["check"]).await?.with_code(2)?;
    assert!(
        output.stderr.contains("unknown parameter `keep_version`") && output.stderr.contains("patience"),
        "{output:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_inventory_is_queried() -> Result<()> {
    let workspace = Workspace::new(KEEPING)?;
    let state = workspace.path().join("state");
    let configuration = KEEPING.replace("path: '{out}/inventory.db', ", "");
    workspace.configure(&configuration)?;
    let run = async |args: &[&str], code| {
        let coordinator = workspace.coordinator(args).env("CM_STATE_DIR", &state);
        coordinator.start()?.wait(PATIENCE).await?.with_code(code)
    };
    let none = run(&["query", "SELECT 1"], 2).await?;
    assert!(none.stderr.contains("there is no inventory at "), "{none:?}");
    run(&["run", "--now"], 0).await?;
    let sql = "SELECT json_extract(raw, '$.data') AS data, origin, reference FROM foo ORDER BY data LIMIT 2";
    let table = run(&["query", sql], 0).await?;
    assert!(table.stdout.contains("data") && table.stdout.contains("mockcloud"), "{table:?}");
    let json = run(&["query", sql, "--format", "json"], 0).await?;
    let rows: Value = serde_json::from_str(&json.stdout)?;
    let row = |data: u64| serde_json::json!({"data": data, "origin": "mockcloud", "reference": null});
    assert_eq!(rows, Value::Array(vec![row(0), row(2)]));
    let csv = run(&["query", "SELECT 'a,\"b\"' AS x, NULL AS y, 1.5 AS z", "--format", "csv"], 0).await?;
    assert_eq!(csv.stdout, "x,y,z\r\n\"a,\"\"b\"\"\",,1.5\r\n");
    let refused = run(&["query", "DELETE FROM documents"], 2).await?;
    assert!(refused.stderr.contains("readonly"), "{refused:?}");
    Ok(())
}

/// The commands of the documentation, as words.
fn documented_commands() -> Result<Vec<Vec<String>>> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../sink/README.md"))?;
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let words = |line: &str| -> Vec<String> {
        let parts = line.split('"').enumerate();
        parts
            .flat_map(|(at, part)| match at % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    };
    Ok(blocks.flat_map(str::lines).map(words).collect())
}

#[tokio::test]
async fn the_documented_commands_run() -> Result<()> {
    let nats = NatsServer::start().await?;
    let _services = Services::start(&nats, 1)?;
    let workspace = Workspace::new(KEEPING)?;
    runs_with(Some(&nats), &workspace, 0).await?;
    let (state, inventory) = (workspace.path().join("state"), inventory(&workspace));
    std::fs::create_dir(&state)?;
    std::fs::copy(&inventory, state.join("inventory.db"))?;
    std::fs::copy(&inventory, workspace.path().join("inventory.db"))?;
    let mut results = Vec::new();
    for command in documented_commands()? {
        assert_eq!(command[0], "coordinator");
        let words =
            command[1..].iter().map(|word| if word.starts_with("nats://") { nats.url() } else { word.as_str() });
        let coordinator = workspace.coordinator(&words.collect::<Vec<&str>>()).env("CM_STATE_DIR", &state);
        let output = coordinator.start()?.wait(PATIENCE).await?;
        // There is no letter 17, nor any other.
        let code = if command.iter().any(|word| word == "17") { 3 } else { 0 };
        results.push(output.with_code(code)?);
    }
    assert_eq!(results.len(), 7);
    assert!(results[4].stdout.contains("foo"), "{results:?}");
    assert!(results[5].stdout.starts_with("data\r\n0\r\n"), "{results:?}");
    assert_eq!(serde_json::from_str::<Vec<Value>>(&results[6].stdout)?.len(), 0, "no store keeps the events");
    Ok(())
}

#[tokio::test]
async fn a_document_that_is_refused_is_sent_back_later() -> Result<()> {
    let nats = NatsServer::start().await?;
    let _services = Services::start(&nats, 1)?;
    let workspace = Workspace::new(KEEPING)?;
    workspace.run(&["check", "--connect"]).await?.with_code(0)?;
    let database = rusqlite::Connection::open(inventory(&workspace))?;
    database.execute_batch(
        "CREATE TRIGGER picky BEFORE INSERT ON documents WHEN json_extract(NEW.document, '$.raw.data') IN (3, 7)
         BEGIN SELECT RAISE(ABORT, 'not this one'); END",
    )?;
    let output = runs_with(Some(&nats), &workspace, 3).await?;
    assert!(output.stdout.contains("store inventory: 2 messages could not be processed"), "{output:?}");
    assert_eq!(count(&workspace, "audit = 'audit'")?, 8, "the others are unharmed");
    let letters = async |args: &[&str], code| {
        let args: Vec<&str> =
            ["dead-letters"].into_iter().chain(args.iter().copied()).chain(["--nats", nats.url()]).collect();
        workspace.run(&args).await?.with_code(code)
    };
    let listed = letters(&["list"], 0).await?;
    assert!(listed.stdout.matches("not this one").count() == 2, "{listed:?}");
    let shown = letters(&["show", "--all"], 0).await?;
    let letter: Value = serde_json::from_str(shown.stdout.lines().next().context("no letter")?)?;
    let document: Value = serde_json::from_str(letter["message"].as_str().context("no message")?)?;
    assert_eq!((&document["raw"]["data"], &document["com"]["target_key"]), (&3.into(), &"inventory".into()));
    // While nothing has changed, they are refused again.
    letters(&["retry", "--all"], 0).await?;
    let again = async || anyhow::Ok(letters(&["list"], 0).await?.stdout.matches("not this one").count());
    let refused_again = async {
        while again().await? < 2 {}
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, refused_again).await??;
    database.execute_batch("DROP TRIGGER picky")?;
    letters(&["retry", "--all", "--audit", "another"], 0).await?;
    assert_eq!(again().await?, 2);
    letters(&["retry", "--all", "--plugin", "inventory"], 0).await?;
    until(|| Ok(count(&workspace, "audit = 'audit'")? == 10)).await?;
    assert_eq!(again().await?, 0);
    let stored =
        rows(&workspace, "SELECT count(*) FROM documents WHERE json_extract(document, '$.raw.data') IN (3, 7)")?;
    assert_eq!(stored, [[Cell::Integer(2)]]);
    letters(&["drop", "999"], 3).await?;
    Ok(())
}

/// Text that hardly gets smaller, as base64 is.
fn dense(bytes: usize) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = 88_172_645_463_325_252_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(digits[(state % 64) as usize])
    };
    (0..bytes).map(next).collect()
}

#[tokio::test]
async fn a_large_document_that_was_refused_is_sent_back_whole() -> Result<()> {
    let nats = NatsServer::start().await?;
    let _services = Services::start(&nats, 1)?;
    let workspace = Workspace::new(KEEPING)?;
    runs_with(Some(&nats), &workspace, 0).await?;
    let version = Version::new(&versions(&workspace)?.pop().context("no version")?)?;
    let (audit, plugin) = (Key::new("audit")?, Key::new("inventory")?);

    // As much as a frame can bring of what does not get smaller, and more that does.
    let document = rows(&workspace, "SELECT document FROM documents LIMIT 1")?;
    let [Cell::Text(document)] = &document[0][..] else { anyhow::bail!("{document:?}") };
    let mut document: Value = serde_json::from_str(document)?;
    let mut large = Vec::new();
    for (id, text) in [("1", dense(1024 * 1024 - 9 * 1024)), ("2", r#"{"name":"value"}"#.repeat(300_000))] {
        document["com"]["id"] = id.repeat(32).into();
        document["raw"] = serde_json::json!({"text": text});
        large.push(document.to_string());
    }
    let bus = NatsBus::connect(NatsOptions::new(nats.url()), Some(PATIENCE), |_| {}).await?;
    let bury = async |body: &str| {
        let letter =
            DeadLetter::new(&subject::record(&audit, &version, &plugin), Some(1), "no".into(), 1, body.as_bytes());
        status::bury(&*bus, &audit, &version, Role::Store, &plugin, &letter).await
    };
    for body in &large {
        bury(body).await?;
    }
    // More than any message carries: its beginning is kept, and the reason why it is not tried again.
    bury(&serde_json::json!({"raw": dense(3 * 1024 * 1024)}).to_string()).await?;

    let letters = async |args: &[&str], code| {
        let args: Vec<&str> =
            ["dead-letters"].into_iter().chain(args.iter().copied()).chain(["--nats", nats.url()]).collect();
        workspace.run(&args).await?.with_code(code)
    };
    let shown = letters(&["show", "--all"], 0).await?;
    let shown: Vec<Value> = shown.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(shown.len(), 3);
    for (letter, body) in shown.iter().zip(&large) {
        assert!(letter["message"] == body.as_str(), "the message is not whole");
    }
    let retried = letters(&["retry", "--all"], 3).await?;
    assert!(retried.stderr.contains("2 sent back") && retried.stderr.contains("run the audit again"), "{retried:?}");
    until(|| Ok(count(&workspace, "length(document) > 1000000")? == 2)).await?;
    for (id, body) in ["1", "2"].into_iter().zip(&large) {
        let stored = rows(&workspace, &format!("SELECT document FROM documents WHERE id = '{}'", id.repeat(32)))?;
        assert!(stored == [[Cell::Text(body.clone())]], "the document {id} is another one");
    }
    let left = letters(&["list"], 0).await?;
    assert!(left.stdout.matches("3145738").count() == 1 && left.stdout.lines().count() == 2, "{left:?}");
    letters(&["drop", "--all"], 0).await?;
    assert!(letters(&["list"], 0).await?.stderr.contains("there are no dead letters"));
    Ok(())
}
