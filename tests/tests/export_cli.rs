//! `coordinator export`: the activity logs of a SqliteStore, as files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use proto::bus::SharedBus;
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::identity::Id;
use proto::plan::{Plan, PluginSpec, Stage};
use proto::subject::{Key, Role, Version};
use serde_json::{Value, json};
use sink::registry::{Context, build_shared};
use sink::store::{Document, Store};
use tests::harness::{Output, Workspace};

const CLASS: &str = "cloudmarker.stores.sqlitestore.SqliteStore";

/// An event of a log.
struct Event {
    cloud: &'static str,
    id: String,
    time: &'static str,
    rules: &'static [&'static str],
    audit: &'static str,
    version: &'static str,
}

fn event(cloud: &'static str, id: &str, time: &'static str) -> Event {
    Event { cloud, id: id.to_owned(), time, rules: &["Users"], audit: "activity", version: "20250101_000000" }
}

impl Event {
    fn raw(&self) -> Value {
        // A member's order, a long number and a text with all that a table has to take care of.
        serde_json::from_str(&self.text()).unwrap_or_default()
    }

    fn text(&self) -> String {
        format!(
            r#"{{"zone":"z","eventID":"{}","eventTime":"{}","number":12345678901234567890.10,"userAgent":"a \"b\", c\nd"}}"#,
            self.id, self.time
        )
    }

    fn document(&self) -> Result<Document> {
        let com = json!({
            "cloud_type": self.cloud, "record_type": "cloud_activity", "reference": self.id, "event_id": self.id,
            "time": self.time, "actor": {"name": "some, \"body\"", "kind": "user", "user_agent": "a \"b\", c\nd"},
            "action": "iam:CreateUser", "resource": {"id": null, "type": null}, "outcome": "success", "error": null,
            "account": "111111111111", "region": "eu-west-1", "rules": self.rules,
            "lifetime": "permanent", "origin_type": "cloud", "audit_key": self.audit,
        });
        let ext = json!({"cloud_type": self.cloud, "record_type": "cloud_activity"});
        Ok(Document {
            id: Id::digest(format!("{}/{}", self.audit, self.id).as_bytes()).to_string(),
            record_type: "cloud_activity".to_owned(),
            audit: Key::new(self.audit)?,
            version: Version::new(self.version)?,
            body: Bytes::from(format!(r#"{{"raw":{},"ext":{ext},"com":{com}}}"#, self.text())),
        })
    }
}

/// The store that a run would have.
fn store(path: &Path) -> Result<Arc<dyn Store>> {
    let bus: SharedBus = Arc::new(MemoryBus::new(MemoryOptions::default()));
    let params = json!({"path": path.to_str().context("an odd path")?});
    let spec = PluginSpec {
        key: Key::new("archive")?,
        class: CLASS.to_owned(),
        params: params.clone(),
        role: Role::Store,
        stage: Stage::Sink,
        exclusive: false,
        pool: None,
    };
    let plan = Plan {
        audit: Key::new("activity")?,
        version: Version::new("20250101_000000")?,
        plugins: vec![spec.clone()],
        clouds: Vec::new(),
        events: Vec::new(),
        rules: Vec::new(),
    };
    build_shared(Context { bus: &bus, plan: &plan, spec: &spec, params: &params }).map_err(|error| anyhow!(error))
}

async fn fill(path: &Path, documents: &[Document]) -> Result<()> {
    let store = store(path)?;
    store.connect().await?;
    let written = store.write(documents).await?;
    ensure!(written.refused.is_empty(), "{:?}", written.refused);
    Ok(())
}

/// A workspace whose inventory `archive.db` has these events.
async fn workspace(events: &[Event]) -> Result<Workspace> {
    let workspace =
        Workspace::new(&format!("plugins:\n  archive: {{plugin: {CLASS}, params: {{path: archive.db}}}}\n"))?;
    let documents: Vec<Document> = events.iter().map(Event::document).collect::<Result<_>>()?;
    fill(&workspace.path().join("archive.db"), &documents).await?;
    Ok(workspace)
}

async fn export(workspace: &Workspace, args: &[&str], code: i32) -> Result<Output> {
    let all: Vec<&str> = ["export", "--output-dir", "out"].iter().chain(args).copied().collect();
    let ended = workspace.run(&all).await?.with_code(code)?;
    ensure!(ended.stdout.is_empty() && !ended.stderr.contains("panicked"), "{}{}", ended.stdout, ended.stderr);
    Ok(ended)
}

/// The texts of the files that were written, by the start of their names.
fn files(workspace: &Workspace) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(workspace.out())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let (stem, date) = name.rsplit_once('_').with_context(|| name.clone())?;
        ensure!(date.starts_with("20") && date.split('.').next().is_some_and(|day| day.len() == 10), "{name}");
        files.insert(stem.to_owned(), fs::read_to_string(workspace.out().join(&name))?);
    }
    Ok(files)
}

#[tokio::test]
async fn an_export_that_finds_nothing_replaces_nothing() -> Result<()> {
    let workspace = workspace(&two_years()).await?;
    export(&workspace, &DB, 0).await?;
    let before = files(&workspace)?;
    let none = export(&workspace, &[&DB[..], &["--rule", "Usres"]].concat(), 0).await?;
    ensure!(none.stderr.contains("nothing is written") && files(&workspace)? == before, "{}", none.stderr);
    Ok(())
}

const DB: [&str; 2] = ["--path", "archive.db"];

fn two_years() -> Vec<Event> {
    vec![
        event("aws", "a3", "2025-01-01T00:00:00Z"),
        event("aws", "a1", "2024-01-01T00:00:00Z"),
        event("aws", "a2", "2024-12-31T23:59:59.999Z"),
        event("aws", "a0", "2023-12-31T23:59:59Z"),
        event("azure", "z1", "2024-06-01T12:00:00.1234567Z"),
    ]
}

fn ids(text: &str) -> Result<Vec<String>> {
    let events: Vec<Value> = serde_json::from_str(text)?;
    events.iter().map(|event| Ok(event["eventID"].as_str().context("an id")?.to_owned())).collect()
}

#[tokio::test]
async fn the_log_events_are_written_as_they_came() -> Result<()> {
    let events = two_years();
    let workspace = workspace(&events).await?;
    let said = export(&workspace, &DB, 0).await?.stderr;
    ensure!(said.contains("4 events in ") && said.contains("1 event in "), "{said}");
    let files = files(&workspace)?;
    assert_eq!(files.keys().collect::<Vec<_>>(), ["AWS_CloudTrail", "Azure_Activity_Log"]);
    let texts: Vec<String> = [3, 1, 2, 0].iter().map(|at| events[*at].text()).collect();
    assert_eq!(files["AWS_CloudTrail"], format!("[\n{}\n]\n", texts.join(",\n")));
    let azure: Value = serde_json::from_str(&files["Azure_Activity_Log"])?;
    assert_eq!(azure, json!([events[4].raw()]));
    Ok(())
}

#[tokio::test]
async fn days_are_of_utc_and_both_ends_belong_to_them() -> Result<()> {
    let workspace = workspace(&two_years()).await?;
    for (args, aws) in [
        (&["--from", "2024-01-01", "--to", "2024-12-31"][..], &["a1", "a2"][..]),
        (&["--from", "2024-12-31"], &["a2", "a3"]),
        (&["--to", "2023-12-31"], &["a0"]),
        (&["--from", "2024-01-01", "--to", "2024-01-01"], &["a1"]),
        (&["--to", "9999-12-31"], &["a0", "a1", "a2", "a3"]),
    ] {
        let args: Vec<&str> = DB.iter().chain(args).copied().collect();
        export(&workspace, &args, 0).await?;
        assert_eq!(ids(&files(&workspace)?["AWS_CloudTrail"])?, aws, "{args:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_export_is_the_same_as_the_first() -> Result<()> {
    let workspace = workspace(&two_years()).await?;
    export(&workspace, &DB, 0).await?;
    let first = files(&workspace)?;
    export(&workspace, &DB, 0).await?;
    assert_eq!(files(&workspace)?, first);
    // What is asked for now is all that is there, even where that is nothing.
    export(&workspace, &["--path", "archive.db", "--from", "2030-01-01"], 0).await?;
    ensure!(files(&workspace)?.values().all(|text| text == "[]\n"), "{:?}", files(&workspace)?);
    Ok(())
}

#[tokio::test]
async fn an_event_that_two_audits_keep_is_one() -> Result<()> {
    let mut events = two_years();
    events.push(Event { audit: "other", ..event("aws", "a1", "2024-01-01T00:00:00Z") });
    let workspace = workspace(&events).await?;
    export(&workspace, &DB, 0).await?;
    assert_eq!(ids(&files(&workspace)?["AWS_CloudTrail"])?, ["a0", "a1", "a2", "a3"]);
    Ok(())
}

#[tokio::test]
async fn rules_choose_events() -> Result<()> {
    let mut events = two_years();
    events[0].rules = &["Policies", "It's all"];
    events[1].rules = &["Users", "Policies"];
    let workspace = workspace(&events).await?;
    for (rules, aws) in [
        (&["--rule", "Policies"][..], &["a1", "a3"][..]),
        (&["--rule", "It's all"], &["a3"]),
        (&["--rule", "It's all", "--rule", "Users"], &["a0", "a1", "a2", "a3"]),
    ] {
        let args: Vec<&str> = DB.iter().chain(rules).copied().collect();
        export(&workspace, &args, 0).await?;
        assert_eq!(ids(&files(&workspace)?["AWS_CloudTrail"])?, aws, "{rules:?}");
    }
    let said = export(&workspace, &["--path", "archive.db", "--rule", "Polices"], 0).await?.stderr;
    let wanted =
        "no event is kept by a rule `Polices`; did you mean `Policies`? (rules with events: It's all, Policies, Users)";
    ensure!(said.contains(wanted), "{said}");
    Ok(())
}

#[tokio::test]
async fn other_formats_hold_the_same() -> Result<()> {
    let events = two_years();
    let workspace = workspace(&events).await?;
    export(&workspace, &["--path", "archive.db", "--format", "jsonl", "--to", "2024-01-01"], 0).await?;
    export(&workspace, &["--path", "archive.db", "--format", "csv", "--to", "2024-01-01"], 0).await?;
    let mut texts: Vec<(String, String)> = Vec::new();
    for entry in fs::read_dir(workspace.out())? {
        let path = entry?.path();
        let ending = path.extension().context("an ending")?.to_string_lossy().into_owned();
        texts.push((ending, fs::read_to_string(path)?));
    }
    texts.sort();
    let [(csv, table), (jsonl, lines)] = texts.as_slice() else { anyhow::bail!("{texts:?}") };
    assert_eq!((csv.as_str(), jsonl.as_str()), ("csv", "jsonl"));
    assert_eq!(*lines, format!("{}\n{}\n", events[3].text(), events[1].text()));

    let mut rows = table.split_inclusive("\r\n");
    assert_eq!(
        rows.next(),
        Some(
            "time,event_id,account,region,actor_name,actor_id,actor_kind,actor_address,actor_user_agent,action,\
             resource_id,resource_type,outcome,error,rules,raw\r\n"
        )
    );
    let first = format!(
        "2023-12-31T23:59:59Z,a0,111111111111,eu-west-1,\"some, \"\"body\"\"\",,user,,\"a \"\"b\"\", c\nd\",iam:CreateUser,\
         ,,success,,Users,\"{}\"\r\n",
        events[3].text().replace('"', "\"\"")
    );
    assert_eq!(rows.next(), Some(first.as_str()));
    assert_eq!(rows.count(), 1);
    Ok(())
}

#[tokio::test]
async fn the_configuration_says_where_the_inventory_is() -> Result<()> {
    let workspace = workspace(&two_years()).await?;
    let configured = ["-c", "cloudmarker.yaml"];
    export(&workspace, &configured, 0).await?;
    assert_eq!(ids(&files(&workspace)?["AWS_CloudTrail"])?.len(), 4);
    // With two of them, one has to be named.
    workspace.configure(&format!(
        "plugins:\n  archive: {{plugin: {CLASS}, params: {{path: \"${{DIR}}/archive.db\"}}}}\n  other: {{plugin: {CLASS}}}\n"
    ))?;
    let said = export(&workspace, &["--store", "archive", "-c", "cloudmarker.yaml"], 2).await?.stderr;
    ensure!(said.contains("plugins.archive.params.path: `${DIR}` is not set"), "{said}");
    workspace.configure(&format!(
        "plugins:\n  archive: {{plugin: {CLASS}, params: {{path: archive.db}}}}\n  other: {{plugin: {CLASS}}}\n"
    ))?;
    let said = export(&workspace, &configured, 2).await?.stderr;
    ensure!(said.contains("several SqliteStores; name one with --store: archive, other"), "{said}");
    export(&workspace, &["--store", "archive", "-c", "cloudmarker.yaml"], 0).await?;
    let said = export(&workspace, &["--store", "archiv", "-c", "cloudmarker.yaml"], 2).await?.stderr;
    ensure!(said.contains("unknown SqliteStore `archiv`; did you mean `archive`?"), "{said}");
    Ok(())
}

#[tokio::test]
async fn wrong_input_is_told() -> Result<()> {
    let workspace = workspace(&[]).await?;
    for (args, said) in [
        (&["--from", "2024-13-01"][..], "a day is expected, like 2024-12-31"),
        (&["--from", "01.02.2024"], "a day is expected"),
        (&["--from", "2024-01-01T10:00"], "a day is expected"),
        (&["--from", "2024-02-01", "--to", "2024-01-31"], "--from 2024-02-01 is after --to 2024-01-31"),
        (&["--path", "nowhere.db"], "there is no inventory at "),
        (&["--path", "cloudmarker.yaml"], "cannot read "),
        (&["--path", "archive.db", "--store", "x"], "cannot be used with"),
    ] {
        let ended = export(&workspace, args, 2).await?;
        ensure!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
    }
    let none = export(&workspace, &DB, 0).await?;
    ensure!(none.stderr.contains("nothing is written") && files(&workspace)?.is_empty(), "{}", none.stderr);
    // A folder that cannot be made.
    let taken = workspace.run(&["export", "--path", "archive.db", "-d", "cloudmarker.yaml"]).await?.with_code(2)?;
    ensure!(taken.stderr.contains("cannot make the folder "), "{}", taken.stderr);
    Ok(())
}

/// Memory is that of one document and of what SQLite keeps of the file, however many events there are.
#[tokio::test]
async fn memory_does_not_grow_with_the_events() -> Result<()> {
    let workspace = workspace(&[]).await?;
    let path = workspace.path().join("archive.db");
    let mut peaks = Vec::new();
    let mut written = 0;
    for count in [2_000, 40_000] {
        while written < count {
            let documents = (written..written + 2_000)
                .map(|number| event("aws", &format!("{number:036}"), "2024-01-01T00:00:00Z").document());
            fill(&path, &documents.collect::<Result<Vec<_>>>()?).await?;
            written += 2_000;
        }
        let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/coordinator");
        let script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL); \
                      print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
        let measured = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(binary)
            .args(["export", "--path", "archive.db", "-d", "out"])
            .current_dir(workspace.path())
            .output()?;
        ensure!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stderr));
        peaks.push(String::from_utf8(measured.stdout)?.trim().parse::<u64>()?);
        assert_eq!(ids(&files(&workspace)?["AWS_CloudTrail"])?.len(), count);
    }
    ensure!(peaks[1] < peaks[0] + 24 * 1024, "{peaks:?} KiB");
    Ok(())
}
