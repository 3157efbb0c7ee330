//! FileStore as its workers use it: built by the registry, fed with messages, finished or dropped.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::bus::{Encoding, Message, Outgoing, Reader, ReaderSpec, SharedBus, header};
use proto::exclusive::Exclusive;
use proto::frame::FrameBuilder;
use proto::identity::IdMaker;
use proto::plan::{Plan, PluginSpec, Stage};
use proto::record::{Common, Identity, Origin, write_event, write_record};
use proto::status::DeadLetter;
use proto::subject::{self, Key, Role, Version};
use serde_json::{Value, json, value::RawValue};
use sink::registry::{Context, build};

/// How long something may take that happens at once unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

const V1: &str = "20260131_000001";
const V2: &str = "20260131_000002";
const V3: &str = "20260131_000003";

/// A folder of the test's own; deleted when dropped.
struct TempFolder(PathBuf);

impl TempFolder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("file-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The names of the files, with the hidden ones.
    fn names(&self) -> BTreeSet<String> {
        names(&self.0)
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// An audit with one cloud and one event plugin, and stores for its records or events.
struct Audit {
    bus: SharedBus,
    audit: Key,
    cloud: Key,
    event: Key,
}

impl Audit {
    fn new() -> Self {
        Self::named("audit", "cloud", "rule")
    }

    fn named(audit: &str, cloud: &str, event: &str) -> Self {
        let key = |name: &str| Key::new(name).unwrap();
        let bus = Arc::new(MemoryBus::new(MemoryOptions::default()));
        Self { bus, audit: key(audit), cloud: key(cloud), event: key(event) }
    }

    fn build(&self, role: Role, version: &str, folder: &Path) -> Result<Box<dyn Exclusive>, String> {
        self.build_class("cloudmarker.stores.filestore.FileStore", role, version, folder)
    }

    fn build_class(&self, class: &str, role: Role, at: &str, folder: &Path) -> Result<Box<dyn Exclusive>, String> {
        self.build_with(class, role, at, &json!({"path": folder}))
    }

    fn build_with(&self, class: &str, role: Role, at: &str, params: &Value) -> Result<Box<dyn Exclusive>, String> {
        let spec = PluginSpec {
            key: Key::new("filestore").unwrap(),
            class: class.to_owned(),
            params: params.clone(),
            role,
            stage: Stage::Sink,
            exclusive: true,
            pool: None,
        };
        let plan = Plan {
            audit: self.audit.clone(),
            version: version(at),
            plugins: vec![spec.clone()],
            clouds: vec![self.cloud.clone()],
            events: vec![self.event.clone()],
            rules: Vec::new(),
        };
        build(Context { bus: &self.bus, plan: &plan, spec: &spec, params })
    }

    fn store(&self, version: &str, folder: &Path) -> Box<dyn Exclusive> {
        self.build(Role::Store, version, folder).unwrap()
    }

    /// Why a store cannot be built.
    fn refused(&self, folder: &Path) -> String {
        match self.build(Role::Store, V1, folder) {
            Ok(_) => panic!("{} was taken", folder.display()),
            Err(reason) => reason,
        }
    }

    /// A record's text, without a line break.
    fn record(&self, at: &str, number: u64) -> String {
        let (version, class) = (version(at), "cloudmarker.clouds.mockcloud.MockCloud");
        let number = number.to_string();
        let id = IdMaker::of_records(&self.audit, &version, &self.cloud).id(&["mock", &number]);
        let origin = Origin::new(&self.audit, &version, &self.cloud, class, Role::Cloud);
        let raw = RawValue::from_string(format!("{{\"data\": {number}}}")).unwrap();
        let com = Common { cloud_type: "mock", ..Common::default() };
        let mut text = Vec::new();
        let identity = Identity { id, key: &number };
        write_record(&mut text, identity, Some(&raw), &json!({"record_type": "mock"}), &com, &origin).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// A frame of these lines, as the collector would send it.
    fn frame(&self, at: &str, lines: &[String]) -> Message {
        self.frame_of(&self.cloud, at, lines, Encoding::Lz4)
    }

    fn frame_of(&self, cloud: &Key, at: &str, lines: &[String], encoding: Encoding) -> Message {
        let mut frame = FrameBuilder::default();
        for line in lines {
            frame.push(line.as_bytes());
        }
        let subject = subject::record(&self.audit, &version(at), cloud);
        frame.take(subject, cloud, "unit", encoding).unwrap().into_message()
    }

    /// An event, as the evaluator would send it.
    fn event(&self, at: &str, number: u64) -> Message {
        let version = version(at);
        let id = IdMaker::of_events(&self.audit, &version, &self.event).id(&["mock", &number.to_string()]);
        let origin = Origin::new(&self.audit, &version, &self.event, "MockEvent", Role::Event);
        let mut text = Vec::new();
        write_event(&mut text, &json!({"data": number}), &json!({"id": id.to_string()}), &origin).unwrap();
        Outgoing::json_text(subject::event(&self.audit, &version, &self.event), text.into()).into_message()
    }

    /// Writes a version with these records from first to last; says how many documents there are.
    async fn write(&self, at: &str, folder: &Path, numbers: impl IntoIterator<Item = u64>) -> u64 {
        let mut store = self.store(at, folder);
        self.fill(&mut *store, at, numbers).await;
        store.finish(1).await.unwrap().documents
    }

    async fn fill(&self, store: &mut dyn Exclusive, at: &str, numbers: impl IntoIterator<Item = u64>) {
        let lines: Vec<String> = numbers.into_iter().map(|number| self.record(at, number)).collect();
        for lines in lines.chunks(100) {
            store.accept(&self.frame(at, lines)).await.unwrap();
        }
    }

    /// A reader of the dead letters that come from now on.
    async fn dead_letters(&self, at: &str) -> Box<dyn Reader> {
        let spec = ReaderSpec::dead(&self.audit, &version(at));
        self.bus.announce_reader(&spec).await.unwrap();
        self.bus.read(&spec).await.unwrap()
    }
}

fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

/// A file's documents: it must be a JSON array with one document a line.
fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let whole: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let lines = if whole.is_empty() { 1 } else { whole.len() + 2 };
    assert_eq!(text.lines().count(), lines, "{text}");
    assert!(text.ends_with("]\n"), "{text}");
    whole
}

/// The `raw.data` of a file's documents.
fn numbers(path: &Path) -> Vec<u64> {
    documents(path).iter().map(|document| document["raw"]["data"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn records_and_events_become_documents_of_their_origins_file() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    let mut store = audit.store(V1, &folder.0);
    audit.fill(&mut *store, V1, 0..250).await;
    let delivery = store.finish(1).await.unwrap();
    assert_eq!((delivery.documents, delivery.place), (250, folder.0.display().to_string()));
    assert_eq!(numbers(&folder.path("audit_cloud.json")), (0..250).collect::<Vec<_>>());

    let mut alert = audit.build(Role::Alert, V1, &folder.0).unwrap();
    for number in 0..3 {
        alert.accept(&audit.event(V1, number)).await.unwrap();
    }
    assert_eq!(alert.finish(1).await.unwrap().documents, 3);
    let events = documents(&folder.path("audit_rule.json"));
    assert_eq!(events.len(), 3);
    assert_eq!((&events[2]["ext"]["data"], events[2].get("raw")), (&json!(2), None));

    let record = &documents(&folder.path("audit_cloud.json"))[0];
    for (document, role) in [(record, "store"), (&events[0], "alert")] {
        let com = &document["com"];
        assert_eq!((&com["target_key"], &com["target_class"]), (&json!("filestore"), &json!("FileStore")));
        assert_eq!((&com["target_worker"], &com["target_type"]), (&json!("audit_filestore"), &json!(role)));
    }
    // Verbatim, as the cloud wrote it.
    let text = std::fs::read_to_string(folder.path("audit_cloud.json")).unwrap();
    assert!(text.starts_with("[\n{\"raw\":{\"data\": 0},"), "{}", &text[..60]);
}

#[tokio::test]
async fn a_file_is_valid_under_its_name_at_every_moment() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    let path = folder.path("audit_cloud.json");
    // Sizes that grow and shrink: a file written in place would be torn, or keep the end of a longer one.
    let of_version = |number: u64| (format!("20260131_{number:06}"), 1 + (number * 37) % 400);
    let (first, count) = of_version(0);
    audit.write(&first, &folder.0, 0..count).await;

    let done = Arc::new(AtomicBool::new(false));
    let (saw, seen) = mpsc::channel();
    let reader = std::thread::spawn({
        let (done, path) = (Arc::clone(&done), path.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                let documents = documents(&path);
                let version = documents[0]["com"]["audit_version"].as_str().unwrap().to_owned();
                assert!(documents.iter().all(|document| document["com"]["audit_version"] == *version));
                saw.send((version, documents.len() as u64)).unwrap();
            }
        }
    });
    for number in 1..25 {
        let (at, count) = of_version(number);
        audit.write(&at, &folder.0, 0..count).await;
        // The next version is begun when the reader has met this one.
        while seen.recv_timeout(PATIENCE).unwrap() != (at.clone(), count) {}
    }
    done.store(true, Ordering::Relaxed);
    reader.join().unwrap();
}

#[tokio::test]
async fn an_older_version_that_ends_later_stands_beside_the_newer_one() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    let (file, beside) = (folder.path("audit_cloud.json"), folder.path(&format!("audit_cloud.{V1}.json")));
    let mut sleeper = audit.store(V1, &folder.0);
    audit.fill(&mut *sleeper, V1, 0..5).await;
    audit.write(V2, &folder.0, 10..13).await;
    assert_eq!(sleeper.finish(1).await.unwrap().documents, 5);
    assert_eq!(numbers(&file), [10, 11, 12]);
    assert_eq!(numbers(&beside), [0, 1, 2, 3, 4]);

    // The same version again replaces its own file, as does a newer one.
    audit.write(V2, &folder.0, 20..22).await;
    assert_eq!(numbers(&file), [20, 21]);
    audit.write(V3, &folder.0, 30..31).await;
    assert_eq!((numbers(&file), numbers(&beside).len()), (vec![30], 5));
}

#[tokio::test]
async fn an_older_version_takes_the_name_when_the_newer_file_is_gone() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    audit.write(V2, &folder.0, 0..3).await;
    std::fs::remove_file(folder.path("audit_cloud.json")).unwrap();
    audit.write(V1, &folder.0, 0..1).await;
    assert_eq!(numbers(&folder.path("audit_cloud.json")), [0]);
    audit.write(V2, &folder.0, 0..2).await;
    assert_eq!(numbers(&folder.path("audit_cloud.json")), [0, 1]);
}

#[tokio::test]
async fn a_plugin_that_found_nothing_replaces_its_file_by_an_empty_array() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    audit.write(V1, &folder.0, 0..3).await;
    assert_eq!(audit.write(V2, &folder.0, []).await, 0);
    assert_eq!(std::fs::read_to_string(folder.path("audit_cloud.json")).unwrap(), "[]\n");
}

#[tokio::test]
async fn a_document_that_comes_again_is_written_once() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    let mut store = audit.store(V1, &folder.0);
    let line = |number| audit.record(V1, number);
    let frame = audit.frame(V1, &[line(1), line(2), line(1)]);
    store.accept(&frame).await.unwrap();
    store.accept(&frame).await.unwrap();
    store.accept(&audit.frame(V1, &[line(2), line(3)])).await.unwrap();
    assert_eq!(store.finish(1).await.unwrap().documents, 3);
    assert_eq!(numbers(&folder.path("audit_cloud.json")), [1, 2, 3]);
}

#[tokio::test]
async fn what_is_no_document_becomes_a_dead_letter_and_the_rest_is_kept() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    let mut dead = audit.dead_letters(V1).await;
    let mut store = audit.store(V1, &folder.0);
    let bad = ["{\"raw\":", "{\"raw\":null,\"ext\":{}}", "{\"com\":{\"id\":\"no id\"}}"];
    let mut lines: Vec<String> = bad.iter().map(|line| (*line).to_owned()).collect();
    lines.insert(1, audit.record(V1, 1));
    lines.push(audit.record(V1, 2));
    store.accept(&audit.frame(V1, &lines)).await.unwrap();

    let stranger = Key::new("stranger").unwrap();
    let foreign = audit.frame_of(&stranger, V1, &[audit.record(V1, 3)], Encoding::Identity);
    store.accept(&foreign).await.unwrap();
    let mut broken = audit.frame(V1, &[audit.record(V1, 4)]);
    broken.payload = broken.payload.slice(..broken.payload.len() / 2);
    store.accept(&broken).await.unwrap();
    let mut future = audit.frame(V1, &[audit.record(V1, 5)]);
    future.set_header(header::SCHEMA, "99".to_owned());
    store.accept(&future).await.unwrap();

    assert_eq!(store.finish(1).await.unwrap().documents, 2);
    assert_eq!(numbers(&folder.path("audit_cloud.json")), [1, 2]);
    let reasons = [
        ("of cloud: not a document: EOF", bad[0]),
        ("of cloud: not a document: missing field `com`", bad[1]),
        ("of cloud: not a document: com.id is not an id", bad[2]),
        ("of stranger: the plan has no plugin stranger", "\"key\":\"3\""),
        ("of cloud: the frame cannot be decompressed", ""),
        ("of cloud: the frame's schema is \"99\"", ""),
    ];
    for (reason, text) in reasons {
        let message = tokio::time::timeout(PATIENCE, dead.next()).await.unwrap().unwrap();
        assert_eq!(*message.subject, *format!("cm.dead.audit.{V1}.store.filestore"));
        let letter = DeadLetter::read(&message).unwrap();
        assert!(letter.reason.starts_with(reason), "{letter:?}");
        assert!(letter.message.contains(text) && letter.bytes > 0, "{letter:?}");
        assert!(letter.subject.starts_with(&format!("cm.record.audit.{V1}.")), "{letter:?}");
    }
}

#[tokio::test]
async fn what_was_written_aside_is_gone_at_the_end() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    let mut store = audit.store(V1, &folder.0);
    audit.fill(&mut *store, V1, 0..1000).await;
    let aside = folder.names();
    assert!(aside.len() == 1 && aside.iter().all(|name| name.starts_with('.')), "{aside:?}");
    drop(store);
    assert!(folder.names().is_empty(), "{:?}", folder.names());

    audit.write(V1, &folder.0, 0..10).await;
    let left = folder.names();
    assert!(left.contains("audit_cloud.json"), "{left:?}");
    assert!(!left.iter().any(|name| name.contains("tmp")), "{left:?}");

    // Nor does a version that stands beside leave anything.
    audit.write(V3, &folder.0, 0..10).await;
    audit.write(V2, &folder.0, 0..10).await;
    let more: Vec<String> = folder.names().difference(&left).cloned().collect();
    assert_eq!(more, [format!("audit_cloud.{V2}.json")]);
}

#[tokio::test]
async fn what_a_killed_worker_left_is_removed_and_what_is_being_written_is_not() {
    let (audit, folder) = (Audit::new(), TempFolder::new());
    let writing = audit.store(V1, &folder.0);
    let left = folder.path(&format!(".audit_cloud.{V1}.99999-0.tmp"));
    let other = folder.path(&format!(".audit_cloud.x.{V1}.99999-0.tmp"));
    for path in [&left, &other] {
        std::fs::write(path, "[\n{}").unwrap();
    }
    let before = folder.names().len();
    drop(audit.store(V2, &folder.0));
    assert!(!left.exists() && other.exists());
    assert_eq!(folder.names().len(), before - 1);
    drop(writing);
}

#[tokio::test]
async fn names_do_not_lead_out_of_the_folder() {
    let folder = TempFolder::new();
    let inner = folder.path("in/ner");
    let audit = Audit::named("../../audit", "..", "a/b");
    audit.write(V1, &inner, 0..2).await;
    audit.build(Role::Alert, V1, &inner).unwrap().finish(1).await.unwrap();
    let visible: Vec<String> = names(&inner).into_iter().filter(|name| !name.starts_with('.')).collect();
    let prefix = "=2E=2E=2F=2E=2E=2Faudit";
    assert_eq!(visible, [format!("{prefix}_=2E=2E.json"), format!("{prefix}_a=2Fb.json")]);
    assert_eq!(folder.names(), BTreeSet::from(["in".to_owned()]));
    assert_eq!(names(&folder.path("in")), BTreeSet::from(["ner".to_owned()]));
}

#[tokio::test]
async fn a_folder_that_is_a_link_or_no_folder_is_refused() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    let (real, link, file) = (folder.path("real"), folder.path("link"), folder.path("file"));
    std::fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    std::fs::write(&file, "mine").unwrap();
    let reason = audit.refused(&link);
    assert!(reason.contains(&format!("the folder {} is a symbolic link", link.display())), "{reason}");
    assert!(reason.contains("set `path` to another folder"), "{reason}");
    // A dangling link is a link, too, and not followed to create what it names.
    let dangling = folder.path("dangling");
    symlink(folder.path("nowhere"), &dangling).unwrap();
    audit.refused(&dangling);
    assert!(!folder.path("nowhere").exists());
    let reason = audit.refused(&file);
    assert!(reason.contains("is not a folder; set `path` to one"), "{reason}");
    let reason = audit.refused(&file.join("below"));
    assert!(reason.contains("cannot create the folder"), "{reason}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert!(names(&real).is_empty());
}

#[tokio::test]
async fn a_file_that_is_a_link_is_refused_before_and_after() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    let (file, target) = (folder.path("audit_cloud.json"), folder.path("target"));
    std::fs::write(&target, "mine").unwrap();
    symlink(&target, &file).unwrap();
    let reason = audit.refused(&folder.0);
    assert!(reason.contains(&format!("the file {} is a symbolic link", file.display())), "{reason}");
    assert_eq!(folder.names(), BTreeSet::from(["audit_cloud.json".to_owned(), "target".to_owned()]));

    // So are links that are put there while the version is written: under its name, and for the files that guard it.
    for (number, name) in ["audit_cloud.json", ".audit_cloud.version", ".cloudmarker.lock"].into_iter().enumerate() {
        let output = folder.path(&number.to_string());
        let mut store = audit.store(V1, &output);
        symlink(&target, output.join(name)).unwrap();
        let error = store.finish(1).await.unwrap_err().to_string();
        assert!(error.contains(&format!("the file {} is a symbolic link", output.join(name).display())), "{error}");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "mine");
        assert!(!names(&output).iter().any(|name| name.contains("tmp")), "{:?}", names(&output));
    }
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can give a file away; nothing is claimed then.
    }
    let (folder, audit) = (TempFolder::new(), Audit::new());
    let give_away = |path: &Path| rustix::fs::chown(path, Some(rustix::fs::Uid::from_raw(12_345)), None).unwrap();
    let theirs = folder.path("theirs");
    std::fs::create_dir(&theirs).unwrap();
    give_away(&theirs);
    let reason = audit.refused(&theirs);
    let expected = format!("the folder {} belongs to another user (uid 12345, this is 0)", theirs.display());
    assert!(reason.contains(&expected), "{reason}");
    assert!(names(&theirs).is_empty());

    let ours = folder.path("ours");
    audit.write(V1, &ours, 0..2).await;
    let file = ours.join("audit_cloud.json");
    give_away(&file);
    let reason = audit.refused(&ours);
    assert!(reason.contains(&format!("the file {} belongs to another user", file.display())), "{reason}");
    assert_eq!(numbers(&file), [0, 1]);
}

#[test]
fn the_files_of_a_plan_are_known_beforehand() {
    let key = |name: &str| Key::new(name).unwrap();
    let files = |params: Value| sink::stores::file::files(&key("a.b"), &[key("c"), key("d")], &params).unwrap();
    let expected =
        |folder: &str| [format!("{folder}/a=2Eb_c.json"), format!("{folder}/a=2Eb_d.json")].map(PathBuf::from);
    assert_eq!(files(json!({"path": "/x"})), expected("/x"));
    assert_eq!(files(json!({})), expected("/tmp/cloudmarker"));
}

#[test]
fn a_class_that_is_not_served_is_named() {
    let (folder, audit) = (TempFolder::new(), Audit::new());
    let class = "cloudmarker.stores.nosuchstore.NoSuchStore";
    let Err(reason) = audit.build_class(class, Role::Store, V1, &folder.0) else { panic!("it was built") };
    assert_eq!(reason, format!("this sink does not serve the class {class}"));
}

/// The text of a file that may be compressed.
fn opened(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let bytes = if path.extension().unwrap() == "zst" { zstd::decode_all(&bytes[..]).unwrap() } else { bytes };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn every_form_has_the_same_documents() {
    let audit = Audit::new();
    let lines: Vec<String> = (0..5_000).map(|number| audit.record(V2, number)).collect();
    for count in [0, 1, lines.len()] {
        let folder = tempfile::tempdir().unwrap();
        for (format, compress, ending) in [
            ("json", "none", "json"),
            ("json", "zstd", "json.zst"),
            ("jsonl", "none", "jsonl"),
            ("jsonl", "zstd", "jsonl.zst"),
        ] {
            let params = json!({"path": folder.path(), "format": format, "compress": compress});
            let mut store = audit.build_with("FileStore", Role::Store, V2, &params).unwrap();
            for chunk in lines[..count].chunks(100) {
                store.accept(&audit.frame(V2, chunk)).await.unwrap();
            }
            assert_eq!(store.finish(1).await.unwrap().documents, count as u64);
            let text = opened(&folder.path().join(format!("audit_cloud.{ending}")));
            let documents: Vec<Value> = match format {
                "json" => serde_json::from_str(&text).unwrap(),
                _ => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            };
            let numbers: Vec<u64> =
                documents.iter().map(|document| document["raw"]["data"].as_u64().unwrap()).collect();
            assert!(numbers.into_iter().eq(0..count as u64), "{ending}");
        }
        // None hides another, and each knows its version.
        let mut old =
            audit.build_with("FileStore", Role::Store, V1, &json!({"path": folder.path(), "format": "jsonl"})).unwrap();
        old.finish(1).await.unwrap();
        assert_eq!(opened(&folder.path().join("audit_cloud.jsonl")).lines().count(), count);
        assert!(folder.path().join(format!("audit_cloud.{V1}.jsonl")).exists());
    }
}
