//! `SplunkHECStore` against a strict imitation of the HTTP Event Collector.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proto::subject::{Key, Version};
use serde_json::{Value, json};
use sink::conformance::{Subject, check};
use sink::store::{Document, Pruning, Store, StoreError, Written};
use sink::stores::splunk::SplunkHecStore;
use tests::harness::{Collector, Fault, PATIENCE, Program, Token, Workspace, free_port};

const VERSION: &str = "20260131_235959";

fn document(id: &str, body: impl Into<String>) -> Document {
    Document {
        id: id.to_owned(),
        record_type: "compute".to_owned(),
        audit: Key::new("audit").unwrap(),
        version: Version::new(VERSION).unwrap(),
        body: body.into().into(),
    }
}

fn records(range: std::ops::Range<usize>) -> Vec<Document> {
    let record = |number: usize| {
        let id = format!("{number:08x}");
        let body = json!({
            "raw": {"name": format!("vm{number}"), "size": number},
            "ext": {"record_type": "vm"},
            "com": {"cloud_type": "mock", "record_type": "compute", "id": id, "audit_version": VERSION},
        });
        document(&id, body.to_string())
    };
    range.map(record).collect()
}

fn store(collector: &Collector, more: Value) -> SplunkHecStore {
    let mut params = json!({"uri": collector.url("/services/collector"), "token": "right", "index": "main"});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    SplunkHecStore::new(&params).unwrap()
}

async fn collector() -> Result<Collector> {
    let collector = Collector::start().await?;
    collector.add_token("right", Token::to(&["main", "other"]));
    Ok(collector)
}

fn ids(collector: &Collector) -> Vec<String> {
    collector.events().iter().map(|event| event.json()["com"]["id"].as_str().unwrap_or_default().to_owned()).collect()
}

fn permanent<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Permanent(reason)) => reason,
        other => panic!("a permanent error is expected, not {other:?}"),
    }
}

fn transient<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (String, Option<Duration>) {
    match result {
        Err(StoreError::Transient { reason, wait }) => (reason, wait),
        other => panic!("a transient error is expected, not {other:?}"),
    }
}

/// The collector is as strict as what Splunk's own client for Python sends to a real one allows.
#[tokio::test]
async fn splunks_own_client_works_with_the_collector() -> Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = tests.join("../.testdeps/sdk/bin/python");
    ensure!(python.is_file(), "there is no Python with Splunk's client: run make test (or tests/setup)");
    for collector in [Collector::start().await?, Collector::start_tls().await?] {
        collector.add_token("right", Token::to(&["main"]));
        let scheme = collector.url("");
        let scheme = scheme.split(':').next().unwrap();
        let mut proof = Program::at(&python)
            .arg(tests.join("sdk/splunk_proof.py"))
            .args(["localhost", &collector.port().to_string(), scheme])
            .arg(collector.authority())
            .arg("right")
            .start()?;
        let output = proof.wait(PATIENCE).await?.with_code(0)?;
        let answer =
            |status: u16, body: Value| json!({"path": "/services/collector/event", "status": status, "answer": body});
        assert_eq!(
            serde_json::from_str::<Value>(&output.stdout)?,
            json!([
                answer(200, json!({"text": "Success", "code": 0})),
                answer(400, json!({"text": "Incorrect index", "code": 7, "invalid-event-number": 0})),
                answer(403, json!({"text": "Invalid token", "code": 4})),
            ])
        );
        let events = collector.events();
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].json()["com"]["id"].as_str(), events[0].source.as_deref()),
            (Some("python"), Some("proof"))
        );
        assert!(events[0].time.is_some());
    }
    Ok(())
}

#[tokio::test]
async fn documents_are_events() -> Result<()> {
    let collector = collector().await?;
    let store = store(&collector, json!({"source": "s", "host": "h"}));
    store.connect().await?;
    assert_eq!(collector.count(), 0, "connecting has sent an event");
    let batch = records(0..1000);
    assert_eq!(store.write(&batch).await?, Written::default());
    let events = collector.events();
    assert_eq!(events.len(), 1000);
    for (event, document) in events.iter().zip(&batch) {
        assert_eq!(event.event.as_bytes(), document.body);
        assert_eq!(event.time, Some(1_769_903_999.0));
        assert_eq!((event.host.as_deref(), event.source.as_deref()), (Some("h"), Some("s")));
        assert_eq!((event.sourcetype.as_deref(), event.index.as_str()), (Some("json"), "main"));
    }
    assert_eq!(collector.requests().last().unwrap(), "event 200 0 gzip");
    assert!(store.place().ends_with("index main") && store.limits().documents == 1000);

    // What is left to the token, and to this host.
    collector.clear();
    let bare =
        SplunkHecStore::new(&json!({"uri": collector.url(""), "token": "right", "sourcetype": "_json"})).unwrap();
    bare.connect().await?;
    bare.write(&records(0..1)).await?;
    let event = &collector.events()[0];
    assert_eq!((event.index.as_str(), event.sourcetype.as_deref()), ("main", Some("_json")));
    assert_eq!(event.source.as_deref(), Some("cloudmarker:audit"));
    assert!(event.host.is_some());
    Ok(())
}

#[tokio::test]
async fn it_is_what_every_store_is() -> Result<()> {
    let collector = Arc::new(collector().await?);
    collector.set_max_content(2 * 1024 * 1024);
    let from = collector.clone();
    // The last of those with the same id, as `dedup com.id` shows it.
    let subject = Subject::new(Arc::new(store(&collector, json!({}))), move |ids| {
        let events = from.events();
        let wanted: BTreeSet<String> = ids.into_iter().collect();
        Box::pin(async move {
            let events = events.into_iter().map(|event| {
                let id = event.json()["com"]["id"].as_str().unwrap_or_default().to_owned();
                (id, event.event)
            });
            Ok(events.filter(|(id, _)| wanted.contains(id)).collect::<BTreeMap<_, _>>())
        })
    });
    check(&subject.with_too_large(3 * 1024 * 1024).without_pruning()).await.map_err(anyhow::Error::msg)
}

#[tokio::test]
async fn the_tutorials_configuration_runs() -> Result<()> {
    let collector = Collector::start_tls().await?;
    collector.add_token("token123", Token::to(&["main"]));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/tests/config/tutorial/splunkhecstore.yaml");
    let own = format!(
        "plugins: {{filestore: {{params: {{path: '{{out}}'}}}}, splunkstore: {{params: {{uri: '{}'}}}}}}\n\
         logger: {{handlers: {{file: {{filename: run.log}}}}}}\n",
        collector.url("/services/collector")
    );
    let workspace = Workspace::new(&own)?;
    let args = ["-n", "-c", &file.display().to_string(), "cloudmarker.yaml"];
    let output = workspace.run(&args).await?.with_code(0)?;
    assert_eq!((collector.count(), ids(&collector).into_iter().collect::<BTreeSet<_>>().len()), (10, 10), "{output:?}");
    assert_eq!(collector.events()[0].json()["com"]["target_class"], "SplunkHECStore");
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_a_token_or_an_index_is_said_before_anything_is_sent() -> Result<()> {
    let collector = collector().await?;
    collector.add_token("off", Token { enabled: false, ..Token::to(&["main"]) });
    for (params, words) in [
        (json!({"token": "wrong"}), "check `token`"),
        (json!({"token": "off"}), "enable it"),
        (json!({"index": "nowhere"}), "\"nowhere\""),
        (json!({"uri": collector.url("/services/collector/event").replace("collector/event", "")}), "check `uri`"),
    ] {
        let store = store(&collector, params.clone());
        let reason = permanent(store.connect().await);
        assert!(reason.contains(words) && reason.starts_with("Splunk at http://localhost:"), "{params}: {reason}");
        assert!(!reason.contains("right") && !format!("{store:?}").contains("right"), "{reason}");
        permanent(store.write(&records(0..10)).await);
    }
    assert_eq!(collector.count(), 0);
    Ok(())
}

#[tokio::test]
async fn a_busy_server_is_waited_for() -> Result<()> {
    let collector = collector().await?;
    let store = store(&collector, json!({}));
    for (status, code) in [(500, Some(8)), (503, Some(9)), (503, Some(18)), (429, Some(26)), (502, None)] {
        collector.fail(Fault { status, code, wait: Some(7) });
        let (_, wait) = transient(store.write(&records(0..10)).await);
        assert_eq!(wait, Some(Duration::from_secs(7)), "{status}");
        assert_eq!(store.write(&records(0..10)).await?, Written::default());
    }
    collector.fail(Fault::coded(413, 6));
    assert!(matches!(store.write(&records(0..10)).await, Err(StoreError::TooLarge(_))));
    collector.fail(Fault::coded(200, 24));
    assert_eq!(store.write(&records(0..10)).await?, Written::default());
    collector.fail(Fault { status: 302, code: None, wait: None });
    permanent(store.write(&records(0..10)).await);
    assert_eq!(collector.count(), 50);
    Ok(())
}

#[tokio::test]
async fn a_bad_event_is_set_aside_alone() -> Result<()> {
    for first in [0, 1] {
        let collector = collector().await?;
        collector.count_from(first);
        let store = store(&collector, json!({}));
        let mut batch = records(0..20);
        batch[7].body = "{\"raw\":".into();
        batch[8].body = "[1]".into();
        let written = store.write(&batch).await?;
        let refused: Vec<usize> = written.refused.iter().map(|(place, _)| *place).collect();
        assert!(written.again.is_empty() && refused == [7, 8], "{written:?}");
        assert_eq!(collector.count(), 18);

        // One that the server alone finds bad: the eighth of those that it gets.
        collector.clear();
        let mut batch = records(0..20);
        batch[3].body = "{".into();
        batch[7].body = "{\"raw\":\"poison\"}".into();
        collector.refuse("poison");
        let written = store.write(&batch).await?;
        let refused: Vec<usize> = written.refused.iter().map(|(place, _)| *place).collect();
        assert_eq!(refused, [3, 7], "{written:?}");
        assert_eq!(written.again.len(), if first == 0 { 18 } else { 17 }, "{written:?}");
        let mut again: Vec<Document> = written.again.iter().map(|(place, _)| batch[*place].clone()).collect();
        while !again.is_empty() {
            let written = store.write(&again).await?;
            assert_eq!(written.refused, []);
            again = written.again.iter().map(|(place, _)| again[*place].clone()).collect();
        }
        let there: BTreeSet<String> = ids(&collector).into_iter().collect();
        let expected: BTreeSet<String> = batch
            .iter()
            .map(|document| document.id.clone())
            .filter(|id| ![&batch[3].id, &batch[7].id].contains(&id))
            .collect();
        assert_eq!(there, expected, "counted from {first}");
    }
    Ok(())
}

#[tokio::test]
async fn indexers_confirm_events_when_the_token_asks_for_it() -> Result<()> {
    let collector = collector().await?;
    collector.add_token("acking", Token { acknowledges: true, ..Token::to(&["main"]) });
    collector.set_polls(2);
    for ack in [json!("auto"), json!(true), json!(null)] {
        let store = store(&collector, json!({"token": "acking", "ack": ack}));
        store.connect().await?;
        collector.clear();
        let (one, other) = (records(0..10), records(10..20));
        let (one, other) = tokio::join!(store.write(&one), store.write(&other));
        assert_eq!((one?, other?), (Written::default(), Written::default()));
        assert_eq!(collector.count(), 20);
        let asked = collector.requests().iter().rev().take_while(|request| *request == "ack 200").count();
        assert!(asked >= 2, "{:?}", collector.requests());
    }
    let never = store(&collector, json!({"token": "acking", "ack": "no"}));
    assert!(permanent(never.connect().await).contains("`ack: false`"));
    assert!(permanent(never.write(&records(0..10)).await).contains("`ack: false`"));
    let always = store(&collector, json!({"ack": true}));
    assert!(permanent(always.write(&records(0..10)).await).contains("`ack: true`"));
    // A channel does no harm where nothing is confirmed.
    let requests = collector.requests().len();
    store(&collector, json!({})).write(&records(0..10)).await?;
    store(&collector, json!({"ack": false})).write(&records(0..10)).await?;
    assert_eq!(collector.requests().len(), requests + 2);

    collector.set_polls(usize::MAX);
    let start = Instant::now();
    let store = store(&collector, json!({"token": "acking", "ack_timeout": "1s"}));
    let (reason, _) = transient(store.write(&records(0..10)).await);
    assert!(reason.contains("not confirmed") && start.elapsed() < Duration::from_secs(10), "{reason}");
    Ok(())
}

#[tokio::test]
async fn certificates_are_checked_unless_told_otherwise() -> Result<()> {
    let collector = Collector::start_tls().await?;
    collector.add_token("right", Token::to(&["main"]));
    for ca_cert in [json!(collector.authority()), json!(false)] {
        let store = store(&collector, json!({"ca_cert": ca_cert}));
        store.connect().await?;
        store.write(&records(0..10)).await?;
    }
    assert_eq!(collector.count(), 20);
    for ca_cert in [json!(collector.other_authority()), json!(null), json!(true)] {
        let reason = permanent(store(&collector, json!({"ca_cert": ca_cert})).connect().await);
        assert!(reason.contains("`ca_cert`"), "{reason}");
    }
    for (ca_cert, words) in [(json!("/no/such/file"), "/no/such/file"), (json!("/dev/null"), "no certificate")] {
        let params = json!({"uri": collector.url(""), "token": "t", "index": "i", "ca_cert": ca_cert});
        let reason = SplunkHecStore::new(&params).unwrap_err();
        assert!(reason.contains(words), "{reason}");
    }
    // The wrong protocol, either way.
    let plain = store(&collector, json!({"uri": collector.url("").replace("https", "http")}));
    transient(plain.connect().await);
    let open = Collector::start().await?;
    let reason = permanent(store(&open, json!({"uri": open.url("").replace("http", "https")})).connect().await);
    assert!(reason.contains("does not speak https"), "{reason}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_soon() -> Result<()> {
    let port = free_port()?;
    let nobody = |uri: String| SplunkHecStore::new(&json!({"uri": uri, "token": "t", "index": "i"})).unwrap();
    let start = Instant::now();
    let (reason, _) = transient(nobody(format!("http://127.0.0.1:{port}")).connect().await);
    assert!(reason.contains(&format!("127.0.0.1:{port}")) && reason.contains("refused"), "{reason}");
    transient(nobody("http://nowhere.invalid:8088".to_owned()).connect().await);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn nothing_is_removed() -> Result<()> {
    let collector = collector().await?;
    let store = store(&collector, json!({}));
    store.write(&records(0..10)).await?;
    let pruning = Pruning {
        audit: Key::new("audit")?,
        before: Version::new("20990101_000000")?,
        keep: Vec::new(),
        permanent_days: Some(1),
    };
    assert_eq!((store.prune(&pruning).await?, store.prune(&pruning).await?), (0, 0));
    assert_eq!(collector.count(), 10);
    Ok(())
}

#[test]
fn parameters_are_checked_all_at_once() {
    let check = |params: Value| {
        let check = sink::stores::splunk::CLASS.check.unwrap();
        let errors = check(&params).err().unwrap_or_default();
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect::<Vec<_>>().join("\n")
    };
    for good in [
        json!({"uri": "https://h:8088", "token": "t"}),
        json!({"uri": "${CM_URI}", "token": "${CM_TOKEN}", "index": "i", "ca_cert": "/ca.pem", "ack": "auto"}),
        json!({"uri": "https://h", "token": "t", "ca_cert": false, "ack": true, "ack_timeout": "1m", "host": "h"}),
    ] {
        assert_eq!(check(good), "");
    }
    assert_eq!(check(json!({})), "token: set `token`: it is required\nuri: set `uri`: it is required");
    let bad = check(json!({"uri": "h", "token": "", "index": "", "buffer_size": 0, "sourcetype": "", "ack": "maybe"}));
    for path in ["uri: ", "token: ", "index: ", "buffer_size: ", "sourcetype: ", "ack: "] {
        assert!(bad.contains(path), "{bad}");
    }
}
