//! `coordinator diff`: what changed between two runs, and what cannot be said.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cloudsim::Cloudsim;
use tests::harness::{NatsServer, Output, PATIENCE, Services, Workspace};

/// A host with an inventory, in which `{out}` is a folder of its own.
struct Host(Workspace);

const INVENTORY: &str = "
plugins: {inventory: {plugin: SqliteStore, params: {path: '{out}.db'}}}
audits: {AUDIT: {stores: [inventory], alerts: [inventory]}}
";

impl Host {
    fn new(audit: &str) -> Result<Self> {
        let workspace = Workspace::new("{}")?;
        let text = INVENTORY.replace("{out}", &workspace.out().display().to_string()).replace("AUDIT", audit);
        std::fs::write(workspace.path().join("inventory.yaml"), text)?;
        Ok(Self(workspace))
    }

    /// Runs a command with a configuration beside that of the inventory.
    async fn with(&self, configuration: &str, args: &[&str]) -> Result<Output> {
        self.0.configure(configuration)?;
        let args = [args, &["-c", "cloudmarker.yaml", "inventory.yaml"]].concat();
        let state = self.0.path().join("state");
        self.0.coordinator(&args).env("CM_STATE_DIR", state).start()?.wait(PATIENCE).await
    }

    async fn diff(&self, args: &[&str], code: i32) -> Result<Value> {
        let args = [&["diff", "--json"], args].concat();
        let output = self.with("{}", &args).await?.with_code(code)?;
        serde_json::from_str(&output.stdout).with_context(|| format!("no JSON: {output:?}"))
    }

    fn inventory(&self) -> std::path::PathBuf {
        self.0.path().join("out.db")
    }

    async fn versions(&self) -> Result<Vec<String>> {
        let output = self.with("{}", &["runs", "--json", "--here"]).await?.with_code(0)?;
        let runs: Value = serde_json::from_str(&output.stdout)?;
        let versions = runs.as_array().context("a list")?.iter().filter_map(|run| run["version"].as_str());
        Ok(versions.map(str::to_owned).collect())
    }
}

fn mock(records: u32) -> String {
    format!("{{plugins: {{mockcloud: {{params: {{record_count: {records}}}}}}}}}")
}

fn counts(diff: &Value, kind: &str) -> [u64; 6] {
    ["new", "gone", "changed", "same", "not_read", "not_known_before"]
        .map(|name| diff[kind]["counts"][name].as_u64().unwrap_or(u64::MAX))
}

fn items<'a>(diff: &'a Value, kind: &str) -> &'a [Value] {
    diff[kind]["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[tokio::test]
async fn what_came_went_and_changed_is_told() -> Result<()> {
    let host = Host::new("mockaudit")?;
    for records in [10, 10, 16] {
        host.with(&mock(records), &["run", "--now"]).await?.with_code(0)?;
    }
    let versions = host.versions().await?;
    let [third, second, first] = &versions[..] else { anyhow::bail!("{versions:?}") };

    let same = host.diff(&[first, second], 0).await?;
    assert_eq!((counts(&same, "resources"), counts(&same, "findings")), ([0, 0, 0, 10, 0, 0], [0, 0, 0, 4, 0, 0]));
    assert_eq!(same["differs"], false);

    // The last two complete ones.
    let grown = host.diff(&[], 1).await?;
    assert_eq!((&grown["old"], &grown["new"]), (&Value::from(&**second), &Value::from(&**third)));
    assert_eq!((counts(&grown, "resources"), counts(&grown, "findings")), ([6, 0, 0, 10, 0, 0], [2, 0, 0, 4, 0, 0]));
    assert!(items(&grown, "resources").iter().all(|item| item["change"] == "new" && item["plugin"] == "mockcloud"));
    assert_eq!(items(&grown, "findings")[0]["event"], "mockevent");
    let shrunk = host.diff(&[third, second], 1).await?;
    assert_eq!((counts(&shrunk, "resources"), counts(&shrunk, "findings")), ([0, 6, 0, 10, 0, 0], [0, 2, 0, 4, 0, 0]));
    let few = host.diff(&["--limit", "2"], 1).await?;
    assert_eq!((items(&few, "resources").len(), counts(&few, "resources")[0]), (2, 6));

    // A value of one resource is another one in the newer run; the order of another's fields is.
    let store = rusqlite::Connection::open(host.inventory())?;
    let changed = store.execute(
        "UPDATE documents SET document = json_set(document, '$.raw.owner', 'somebody', '$.ext.size', 3)
         WHERE version = ?1 AND json_extract(document, '$.raw.data') = 5 AND NOT is_event",
        [second],
    )?;
    let shuffled = store.execute(
        "UPDATE documents SET document = json_object('com', json_extract(document, '$.com'), 'ext',
             json_extract(document, '$.ext'), 'raw', json_extract(document, '$.raw'))
         WHERE version = ?1 AND json_extract(document, '$.raw.data') = 7 AND NOT is_event",
        [second],
    )?;
    assert_eq!((changed, shuffled), (1, 1));
    let diff = host.diff(&[first, second], 1).await?;
    assert_eq!(counts(&diff, "resources"), [0, 0, 1, 9, 0, 0]);
    let fields = items(&diff, "resources")[0]["fields"].as_array().context("fields")?.clone();
    let paths: Vec<&str> = fields.iter().filter_map(|field| field["path"].as_str()).collect();
    assert_eq!(paths, ["raw.owner", "ext.size"]);
    assert_eq!((&fields[0]["old"], &fields[0]["new"]), (&Value::Null, &Value::from("\"somebody\"")));
    let ignored = host.diff(&[first, second, "--ignore", "raw.owner", "--ignore", "ext"], 0).await?;
    assert_eq!(counts(&ignored, "resources"), [0, 0, 0, 10, 0, 0]);

    let text = host.with("{}", &["diff", first, second]).await?.with_code(1)?.stdout;
    assert!(text.contains("raw.owner: nothing → \"somebody\"") && !text.contains('│'), "{text}");
    Ok(())
}

#[tokio::test]
async fn what_could_not_be_read_is_never_gone() -> Result<()> {
    let host = Host::new("myazaudit")?;
    let all = Cloudsim::builder().subscriptions(3).nsgs(4).start().await?;
    let some = Cloudsim::builder().subscriptions(3).nsgs(4).faults(|faults| faults.forbid(1)).start().await?;
    host.with(&all.configuration(), &["run", "--now"]).await?.with_code(0)?;
    host.with(&some.configuration(), &["run", "--now"]).await?.with_code(3)?;
    host.with(&all.configuration(), &["run", "--now"]).await?.with_code(0)?;
    let versions = host.versions().await?;
    let [third, second, first] = &versions[..] else { anyhow::bail!("{versions:?}") };
    let forbidden = some.estate().subscription_id(0).to_owned();

    let lost = host.diff(&[first, second], 1).await?;
    for kind in ["resources", "findings"] {
        let [new, gone, changed, same, not_read, not_known] = counts(&lost, kind);
        assert_eq!((new, gone, changed, not_known), (0, 0, 0, 0), "{kind}: {}", lost[kind]["counts"]);
        assert!(same > 0 && not_read > 0, "{kind}: {}", lost[kind]["counts"]);
        for item in items(&lost, kind) {
            ensure!(item["scope"] == *forbidden && item["change"] == "not_read", "{item}");
            ensure!(item["reason"].as_str().is_some_and(|reason| reason.contains("AuthorizationFailed")), "{item}");
        }
    }
    let unread = lost["coverage"]["newly_unreadable"].as_array().context("a list")?;
    assert_eq!(unread.len(), 11, "{unread:?}");
    assert!(unread.iter().all(|one| one["scope"] == *forbidden && one["state"] == "denied"), "{unread:?}");

    // The other way round, nothing is new that may have been there before.
    let won = host.diff(&[second, third], 1).await?;
    for kind in ["resources", "findings"] {
        let [new, gone, changed, _, not_read, not_known] = counts(&won, kind);
        assert_eq!((new, gone, changed, not_read), (0, 0, 0, 0), "{kind}: {}", won[kind]["counts"]);
        assert_eq!(not_known, counts(&lost, kind)[4]);
    }
    assert_eq!(won["coverage"]["newly_readable"].as_array().map(Vec::len), Some(11));
    // Between the complete ones there is nothing.
    let between = host.diff(&[], 0).await?;
    assert_eq!((&between["old"], &between["new"]), (&Value::from(&**first), &Value::from(&**third)));
    Ok(())
}

#[tokio::test]
async fn over_a_broker_findings_come_from_the_events() -> Result<()> {
    let nats = NatsServer::start().await?;
    let services = Services::start(&nats, 1)?;
    let workspace = Workspace::new("{}")?;
    let run = async |args: &[&str]| -> Result<Output> {
        let state = workspace.path().join("state");
        workspace.coordinator(args).env("CM_STATE_DIR", state).start()?.wait(PATIENCE).await
    };
    for records in [10, 16] {
        let store = format!("filestore: {{params: {{path: '{}'}}}}", workspace.out().display());
        workspace
            .configure(&format!("{{plugins: {{{store}, mockcloud: {{params: {{record_count: {records}}}}}}}}}"))?;
        let output = run(&["run", "--now", "--nats", nats.url()]).await?;
        ensure!(output.code() == Some(0), "{output:?}\n{}", services.printed());
    }
    let output = run(&["diff", "--json", "--nats", nats.url()]).await?.with_code(1)?;
    let diff: Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(counts(&diff, "findings"), [2, 0, 0, 4, 0, 0]);
    assert!(diff["resources"]["unavailable"].as_str().is_some_and(|reason| reason.contains("SqliteStore")), "{diff}");
    // Without the broker, nobody has them: that is said, and is no difference.
    let here = run(&["diff", "--here"]).await?.with_code(2)?;
    assert!(here.stdout.contains("findings are not compared"), "{here:?}");
    Ok(())
}
