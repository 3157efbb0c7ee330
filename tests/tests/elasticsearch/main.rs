//! `EsStore` against servers that speak as Elasticsearch and OpenSearch do: each of its promises on both.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

mod front;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use proto::subject::{Key, Version};
use reqwest::Method;
use serde_json::{Value, json};
use sink::conformance::{Subject, check};
use sink::store::{Document, Pruning, Store, StoreError, Written};
use sink::stores::elasticsearch::EsStore;
use tests::harness::{SEARCH_KINDS as KINDS, SearchKind as Kind, SearchServer, Workspace, free_port};

use front::{Fault, Front, PASSWORD, USER, says};

const V1: &str = "20260131_000001";
const V2: &str = "20260201_000002";
const V3: &str = "20260202_000003";

fn store(params: &Value) -> EsStore {
    EsStore::new(params).unwrap()
}

fn store_of(server: &SearchServer, more: &Value) -> EsStore {
    let mut params = json!({"url": server.url()});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    store(&params)
}

fn document(id: &str, version: &str, body: &Value) -> Document {
    let record_type = body.pointer("/ext/record_type").and_then(Value::as_str).unwrap_or_default().to_owned();
    document_of_text(id, version, &record_type, body.to_string())
}

fn document_of_text(id: &str, version: &str, record_type: &str, text: String) -> Document {
    Document {
        id: id.to_owned(),
        record_type: record_type.to_owned(),
        audit: Key::new("audit").unwrap(),
        version: Version::new(version).unwrap(),
        body: Bytes::from(text),
    }
}

/// A record as the sink gets it.
fn record(number: usize, audit: &str, version: &str) -> Value {
    json!({
        "raw": {"name": format!("disk-{number}"), "properties": {"a.b": [1, 2.5, null], "diskSizeGB": number}},
        "ext": {
            "cloud_type": "azure", "record_type": if number.is_multiple_of(2) { "disk" } else { "vm" },
            "subscription_name": format!("sub-{}", number % 10), "encrypted": number.is_multiple_of(3),
            "data_disks": [{"name": "d", "encrypted": null}],
        },
        "com": {
            "cloud_type": "azure", "record_type": "disk", "reference": format!("/subscriptions/{number}"),
            "id": format!("{audit}-{version}-{number}"), "audit_key": audit, "audit_version": version,
            "target_key": "es",
        },
    })
}

fn records(count: usize, audit: &str, version: &str) -> Vec<Document> {
    (0..count)
        .map(|number| document(&format!("{audit}-{version}-{number}"), version, &record(number, audit, version)))
        .collect()
}

fn permanent_error(result: Result<(), StoreError>) -> String {
    match result {
        Err(StoreError::Permanent(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_does_what_every_store_must() -> Result<()> {
    const LIMIT: usize = 3_000_000;
    for kind in KINDS {
        for index in ["cloudmarker", "cm-{record_type}-{month}"] {
            let server = Arc::new(SearchServer::start(kind).await?);
            let front = Front::limited(&server.url(), LIMIT).await?;
            let store = store(&json!({"url": front.url(), "index": index}));
            let read = move |ids: Vec<String>| -> futures::future::BoxFuture<'static, Result<_, String>> {
                let server = Arc::clone(&server);
                Box::pin(async move { server.sources(ids).await.map_err(|error| error.to_string()) })
            };
            let subject = Subject::new(Arc::new(store), read).with_too_large(LIMIT);
            if let Err(wrong) = check(&subject).await {
                panic!("{kind:?}, {index}:\n{wrong}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn documents_arrive_equal_by_content_and_once() -> Result<()> {
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        for compress in [false, true] {
            let index = format!("records-{compress}");
            let store = store_of(&server, &json!({"index": index, "compress": compress}));
            store.connect().await?;
            let documents = records(2_000, "a", V1);
            assert_eq!(store.write(&documents).await?, Written::default());
            // Twice in one batch, and again: what is redelivered.
            let again: Vec<Document> = documents.iter().chain(&documents[..500]).cloned().collect();
            assert_eq!(store.write(&again).await?, Written::default());
            assert_eq!(server.count(&index).await?, 2_000, "{kind:?}");
            for document in documents.iter().step_by(97) {
                let there = server.document(&index, &document.id).await?;
                assert_eq!(there, Some(serde_json::from_slice(&document.body)?), "{kind:?}");
            }
            // The same id with other content replaces it.
            let changed = json!({"raw": null, "ext": {}, "com": {"audit_key": "a", "audit_version": V1}});
            store.write(&[document(&documents[7].id, V1, &changed)]).await?;
            assert_eq!(server.document(&index, &documents[7].id).await?, Some(changed));
            assert_eq!(server.count(&index).await?, 2_000);
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_tutorials_configuration_runs() -> Result<()> {
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        let port = server.port();
        for (name, port) in
            [("esstore", format!("port: {port}")), ("esstore-minimal", format!("params: {{port: {port}}}"))]
        {
            let file =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../proto/tests/config/tutorial/{name}.yaml"));
            // What the tutorial leaves to the host: where files go, and here the port.
            let own = format!(
                "plugins: {{filestore: {{params: {{path: '{{out}}'}}}}, esstore: {{{port}}}}}\n\
                 logger: {{handlers: {{file: {{filename: run.log}}}}}}\n",
            );
            let workspace = Workspace::new(&own)?;
            let args = ["-n", "-c", &file.display().to_string(), "cloudmarker.yaml"];
            let output = workspace.run(&args).await?.with_code(0)?;
            assert!(output.stdout.contains("in index cloudmarker at http://localhost:"), "{output:?}");
            let of =
                async |origin: &str| server.find("cloudmarker", json!({"term": {"com.origin_type": origin}})).await;
            assert_eq!((of("cloud").await?, of("event").await?), (10, 4), "{kind:?}: {output:?}");
            let targets = json!({"bool": {"filter": [
                {"term": {"com.target_class": "EsStore"}}, {"term": {"com.target_key": "esstore"}},
            ]}});
            assert_eq!(server.find("cloudmarker", targets).await?, 14, "{kind:?}");
            // As the tutorial looks at them.
            let seen = server.must(Method::GET, "cloudmarker/_search?pretty", None).await?;
            assert_eq!(seen["hits"]["total"]["value"], 14, "{kind:?}: {seen}");
            server.must(Method::DELETE, "cloudmarker", None).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn fields_are_searched_as_they_are_meant() -> Result<()> {
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        let store = store_of(&server, &json!({}));
        store.connect().await?;
        store.write(&records(100, "my audit", V1)).await?;
        let find = async |query: Value| server.find("cloudmarker", query).await;
        assert_eq!(find(json!({"term": {"ext.record_type": "disk"}})).await?, 50, "{kind:?}");
        assert_eq!(find(json!({"term": {"ext.encrypted": "true"}})).await?, 34, "{kind:?}");
        assert_eq!(find(json!({"term": {"com.audit_key": "my audit"}})).await?, 100);
        assert_eq!(find(json!({"term": {"com.audit_key": "my"}})).await?, 0);
        // noida-db knows no formats of fields within fields, and searches what is not to be searched, too.
        if kind == Kind::OpenSearch {
            assert_eq!(find(json!({"range": {"com.audit_version.time": {"gte": "20260131_000000"}}})).await?, 100);
            assert_eq!(find(json!({"range": {"com.audit_version.time": {"gte": "20260201_000000"}}})).await?, 0);
            assert_eq!(find(json!({"exists": {"field": "raw.name"}})).await?, 0);
        }
        // Kept, and not looked into.
        let mapping = server.must(Method::GET, "cloudmarker/_mapping", None).await?;
        let properties = &mapping["cloudmarker"]["mappings"]["properties"];
        assert_eq!(properties["raw"], json!({"type": "object", "enabled": false}));
        let by_type = json!({"size": 0, "aggs": {"t": {"terms": {"field": "ext.subscription_name", "size": 20}}}});
        let found = server.must(Method::POST, "cloudmarker/_search", Some(&by_type)).await?;
        assert_eq!(found["aggregations"]["t"]["buckets"].as_array().map(Vec::len), Some(10), "{kind:?}: {found}");
    }
    Ok(())
}

#[tokio::test]
async fn the_template_is_made_once_and_left_to_whoever_changes_it() -> Result<()> {
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        let front = Front::plain(&server.url()).await?;
        let store = store(&json!({"url": front.url(), "index": "c-{month}"}));
        let path = "_index_template/cloudmarker.c-_any_";
        let puts = || front.seen().iter().filter(|(call, _)| call.starts_with("PUT ")).count();
        store.connect().await?;
        store.connect().await?;
        assert_eq!(puts(), 1, "{kind:?}");
        let template = server.must(Method::GET, path, None).await?["index_templates"][0]["index_template"].clone();
        assert_eq!(template["index_patterns"], json!(["c-*"]));

        // An older one of ours is replaced.
        let mut older = template.clone();
        older["_meta"] = json!({"cloudmarker": {"template": 0}});
        server.must(Method::PUT, path, Some(&older)).await?;
        store.connect().await?;
        assert_eq!(puts(), 2, "{kind:?}");
        assert_eq!(server.must(Method::GET, path, None).await?["index_templates"][0]["index_template"], template);

        // One that is a user's own stays.
        older["_meta"] = json!({});
        server.must(Method::PUT, path, Some(&older)).await?;
        store.connect().await?;
        assert_eq!(puts(), 2, "{kind:?}");
    }
    Ok(())
}

#[tokio::test]
async fn whoever_may_not_make_templates_can_use_an_index_that_is_there() -> Result<()> {
    let denied = r#"{"error":{"type":"security_exception","reason":"action [x] is unauthorized"},"status":403}"#;
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        for call in ["GET /_index_template", "PUT /_index_template"] {
            let front = Front::plain(&server.url()).await?;
            front.always(call, says(403, denied));
            let index = format!("own-{}", call.to_lowercase().replace([' ', '/'], ""));
            let store = store(&json!({"url": front.url(), "index": index}));
            let error = permanent_error(store.connect().await);
            assert!(error.contains("does not allow") && error.contains("make the index"), "{error}");
            server.must(Method::PUT, &index, None).await?;
            store.connect().await?;
        }
        // Nor need they ask what the server is.
        let front = Front::plain(&server.url()).await?;
        front.once("/", says(403, denied));
        store(&json!({"url": front.url()})).connect().await?;
    }
    Ok(())
}

#[tokio::test]
async fn documents_go_to_the_index_of_their_type_and_month() -> Result<()> {
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        let store = store_of(&server, &json!({"index": "CM-{record_type}-{month}"}));
        store.connect().await?;
        let documents: Vec<Document> = records(10, "a", V1).into_iter().chain(records(10, "a", V2)).collect();
        store.write(&documents).await?;
        store.write(&documents).await?;
        for (index, count) in [("cm-disk-2026.01", 5), ("cm-vm-2026.01", 5), ("cm-disk-2026.02", 5), ("cm-*", 20)] {
            assert_eq!(server.count(index).await?, count, "{kind:?} {index}");
        }
        assert_eq!(server.find("cm-*", json!({"term": {"com.audit_key": "a"}})).await?, 20);
        // Only that version goes, from whichever index.
        let pruning = Pruning {
            audit: Key::new("a")?,
            before: Version::new(V3)?,
            keep: vec![Version::new(V2)?],
            permanent_days: None,
        };
        assert_eq!(store.prune(&pruning).await?, 10, "{kind:?}");
        assert_eq!(server.count("cm-*-2026.02").await?, 10);
    }
    Ok(())
}

/// Documents that are hard to take, by name, and whether Elasticsearch takes them.
fn hard_documents() -> Vec<(&'static str, String, bool)> {
    let com = json!({"audit_key": "a", "audit_version": V1});
    let of = |raw: Value, ext: Value| json!({"raw": raw, "ext": ext, "com": com}).to_string();
    let many: serde_json::Map<String, Value> = (0..5_000).map(|n| (format!("key{n}"), json!(n))).collect();
    let deep = (0..30).fold(json!("x"), |inner, _| json!({"d": inner}));
    let very_deep = "[".repeat(3_000) + &"]".repeat(3_000);
    let huge = "9".repeat(40);
    vec![
        ("dots", of(json!({"a.b": 1, "a": 2, ".": 3, "..": {"": 4}}), json!({"x.y": 1, "x": {"z": 2}})), true),
        ("odd dots in ext", of(json!({}), json!({".": 1, "a..b": 2, "": 3})), false),
        ("dollars and NULs", of(json!({"$set": 1, "a\0b": "c\0d"}), json!({"$ref": "e\0f"})), false),
        (
            "numbers",
            format!(r#"{{"raw":{{"n":{huge}}},"ext":{{"n":{huge},"m":1e999,"f":-0.0}},"com":{{"audit_key":"a"}}}}"#),
            false,
        ),
        (
            "not a date",
            json!({"raw": {}, "ext": {}, "com": {"audit_key": "a", "audit_version": "soon"}}).to_string(),
            true,
        ),
        ("a truth value", of(json!({"x": true}), json!({"x": true, "created": "2026-01-31"})), true),
        ("a text there", of(json!({"x": "t"}), json!({"x": "maybe", "created": "never"})), true),
        ("a list there", of(json!({"x": [1]}), json!({"x": ["a", 1, false, null], "created": 5})), true),
        ("an object there", of(json!({"x": {"y": 1}}), json!({"x": {"y": 1}})), true),
        ("5,000 keys in raw", of(Value::Object(many.clone()), json!({})), true),
        ("5,000 keys in ext", of(json!({}), Value::Object(many)), true),
        ("long texts", of(json!("x".repeat(100_000)), json!({"t": "é".repeat(50_000)})), true),
        ("10 MB", of(json!({"t": "x".repeat(10_000_000)}), json!({})), true),
        ("deep", of(deep.clone(), json!({"deep": deep})), true),
        ("too deep", format!(r#"{{"raw":{very_deep},"ext":{{}},"com":{{"audit_key":"a"}}}}"#), false),
        ("two of a key", r#"{"raw":{},"ext":{},"com":{"audit_key":"a","audit_key":"b"}}"#.to_owned(), false),
        ("not JSON", r#"{"raw":"#.to_owned(), false),
        ("an action", r#"{"delete":{"_index":"cloudmarker","_id":"good-0"}}"#.to_owned(), true),
        ("lines", "{\"raw\":{},\n\"ext\":{},\r\n\"com\":{}}".to_owned(), true),
        ("no object", "[1,2]".to_owned(), false),
        ("nothing", String::new(), false),
    ]
}

#[tokio::test]
async fn a_bad_document_is_stored_or_refused_by_name_and_harms_no_other() -> Result<()> {
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        let store = store_of(&server, &json!({}));
        store.connect().await?;
        let mut documents = Vec::new();
        for (place, (_, text, _)) in hard_documents().into_iter().enumerate() {
            let good =
                json!({"raw": {"n": place}, "ext": {"n": place}, "com": {"audit_key": "a", "audit_version": V1}});
            documents.push(document(&format!("good-{place}"), V1, &good));
            documents.push(document_of_text(&format!("hard-{place}"), V1, "hard", text));
        }
        let written = match store.write(&documents).await {
            Ok(written) => written,
            // A server that takes the whole for garbage: as the batch layer does, each alone.
            Err(StoreError::TooLarge(_)) => alone(&store, &documents).await?,
            Err(error) => panic!("{kind:?}: {error}"),
        };
        assert_eq!(written.again, [], "{kind:?}");
        for (place, (name, text, taken)) in hard_documents().into_iter().enumerate() {
            let good = server.document("cloudmarker", &format!("good-{place}")).await?;
            assert!(good.is_some_and(|good| good["ext"]["n"] == json!(place)), "{kind:?}: beside {name}");
            let refused = written.refused.iter().find(|(at, _)| *at == 2 * place + 1);
            let there = server.document("cloudmarker", &format!("hard-{place}")).await?;
            assert_eq!(there.is_some(), refused.is_none(), "{kind:?}: {name}: {refused:?}");
            if kind == Kind::Elasticsearch && taken {
                assert_eq!(refused, None, "{name}");
                assert_eq!(there, serde_json::from_str(&text).ok(), "{name}");
            }
            if let Some((_, words)) = refused {
                assert!(!words.is_empty() && words.len() < 2_000, "{kind:?}: {name}: {words}");
                println!("{kind:?} refuses {name}: {words}");
            }
        }
        let expected = documents.len() - written.refused.len();
        assert_eq!(server.count("cloudmarker").await?, u64::try_from(expected)?, "{kind:?}");
    }
    Ok(())
}

async fn alone(store: &EsStore, documents: &[Document]) -> Result<Written> {
    let mut all = Written::default();
    for (place, document) in documents.iter().enumerate() {
        match store.write(std::slice::from_ref(document)).await {
            Ok(written) => all.refused.extend(written.refused.into_iter().map(|(_, words)| (place, words))),
            Err(StoreError::TooLarge(words)) => all.refused.push((place, words)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

#[tokio::test]
async fn old_versions_of_the_audit_go_and_nothing_else() -> Result<()> {
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        let store = store_of(&server, &json!({}));
        let pruning = |keep: &[&str], before: &str, permanent_days| Pruning {
            audit: Key::new("a").unwrap(),
            before: Version::new(before).unwrap(),
            keep: keep.iter().map(|version| Version::new(version).unwrap()).collect(),
            permanent_days,
        };
        // Nothing to delete yet.
        assert_eq!(store.prune(&pruning(&[], V3, Some(1))).await?, 0, "{kind:?}");
        store.connect().await?;
        assert_eq!(store.prune(&pruning(&[], V3, Some(1))).await?, 0, "{kind:?}");
        for version in [V1, V2, V3] {
            store.write(&records(30, "a", version)).await?;
            store.write(&records(30, "a b", version)).await?;
        }
        let log = |version: &str| {
            let mut log = record(0, "a", version);
            log["com"]["lifetime"] = json!("permanent");
            document(&format!("log-{version}"), version, &log)
        };
        store.write(&[log(V1), log("29990101_000000")]).await?;
        server.count("cloudmarker").await?;
        assert_eq!(store.prune(&pruning(&[V2], V3, None)).await?, 30, "{kind:?}");
        assert_eq!(server.count("cloudmarker").await?, 152, "{kind:?}");
        assert_eq!(server.find("cloudmarker", json!({"term": {"com.audit_version": V2}})).await?, 60);
        assert_eq!(store.prune(&pruning(&[V2], V3, Some(1))).await?, 1, "{kind:?}");
        assert!(server.document("cloudmarker", "log-29990101_000000").await?.is_some());
        assert_eq!(store.prune(&pruning(&[V2], V3, Some(1))).await?, 0, "{kind:?}");
    }
    Ok(())
}

#[tokio::test]
async fn more_documents_than_one_call_deletes_go_in_parts() -> Result<()> {
    let server = SearchServer::start(Kind::OpenSearch).await?;
    let front = Front::plain(&server.url()).await?;
    let store = store(&json!({"url": front.url()}));
    store.connect().await?;
    store.write(&records(3, "a", V1)).await?;
    server.count("cloudmarker").await?;
    // What so many documents would take minutes for.
    front.once("_delete_by_query", says(200, r#"{"deleted":20000}"#));
    front.once("_delete_by_query", says(200, r#"{"deleted":20000,"failures":[]}"#));
    let pruning = Pruning { audit: Key::new("a")?, before: Version::new(V2)?, keep: vec![], permanent_days: None };
    assert_eq!(store.prune(&pruning).await?, 40_003);
    front
        .once("_delete_by_query", says(200, r#"{"deleted":5,"failures":[{"cause":{"type":"t","reason":"no disk"}}]}"#));
    match store.prune(&pruning).await {
        Err(StoreError::Transient { reason, .. }) => assert!(reason.contains("no disk"), "{reason}"),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_pruned_where_audits_cannot_be_told_apart() -> Result<()> {
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        // As the Python tool left it: the server has guessed the fields.
        let store = store_of(&server, &json!({"template": false}));
        store.connect().await?;
        let simple = |id: &str| document(id, V1, &json!({"ext": {}, "com": {"audit_key": "a b", "audit_version": V1}}));
        assert_eq!(store.write(&["1", "2", "3"].map(simple)).await?, Written::default());
        server.count("cloudmarker").await?;
        let pruning = Pruning { audit: Key::new("a")?, before: Version::new(V2)?, keep: vec![], permanent_days: None };
        let error = permanent_error(store.prune(&pruning).await.map(drop));
        assert!(error.contains("`com.audit_key` is no keyword"), "{error}");
        assert_eq!(server.count("cloudmarker").await?, 3);
        // It is still written to.
        store_of(&server, &json!({})).connect().await?;
        assert_eq!(store.write(&["3", "4"].map(simple)).await?, Written::default());
        assert_eq!(server.count("cloudmarker").await?, 4);
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_is_refused_in_plain_sentences() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        let front = Front::secure(&server.url()).await?;
        let misnamed = Front::misnamed(&server.url()).await?;
        let (ca, other_ca) = (file("ca.pem", front.ca_pem()), file("other.pem", misnamed.ca_pem()));
        let (url, login) = (front.url(), json!({"username": USER, "password": PASSWORD}));
        let with = |mut params: Value, more: &Value| {
            for (name, value) in more.as_object().unwrap() {
                params[name] = value.clone();
            }
            params
        };

        // As it should be, in both ways.
        for params in [json!({"url": url, "ca_cert": ca}), json!({"url": url, "verify": false})] {
            let store = store(&with(params, &login));
            store.connect().await?;
            assert_eq!(store.write(&records(10, "a", V1)).await?, Written::default());
        }
        assert_eq!(server.count("cloudmarker").await?, 10);

        let wrong = json!({"username": USER, "password": "hunter2"});
        for (params, why) in [
            (
                with(json!({"url": url, "ca_cert": ca}), &wrong),
                "does not know the user `elastic`, or the password is wrong",
            ),
            (json!({"url": url, "ca_cert": ca}), "set `username` and `password`, or `api_key`"),
            (json!({"url": url, "ca_cert": ca, "api_key": "id:hunter2"}), "does not know the owner of the API key"),
            (json!({"url": url, "ca_cert": other_ca}), "not from an authority that is trusted here; set `ca_cert`"),
            (json!({"url": url}), "not from an authority that is trusted here; set `ca_cert`"),
            (json!({"url": misnamed.url(), "ca_cert": other_ca}), "is of another host"),
            (json!({"url": format!("{}/somewhere", server.url())}), "neither Elasticsearch nor OpenSearch"),
        ] {
            let error = permanent_error(store(&params).connect().await);
            assert!(error.contains(why), "{kind:?} {params}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        for (params, why) in [
            (json!({"host": "127.0.0.1", "port": free_port()?}), "it cannot be reached"),
            (json!({"host": "no-such-host.invalid"}), "it cannot be reached"),
            (json!({"host": "localhost", "port": front.port()}), "if it speaks TLS, set `url: https://localhost"),
        ] {
            match store(&params).connect().await {
                Err(StoreError::Transient { reason, .. }) => assert!(reason.contains(why), "{kind:?}: {reason}"),
                other => panic!("{params}: {other:?}"),
            }
        }
        // A plain server says something that is no TLS, or ends the connection.
        let error = store(&json!({"url": server.url().replace("http", "https")})).connect().await.unwrap_err();
        assert!(error.to_string().contains("if it is plain http, set `url: http://"), "{kind:?}: {error}");
    }
    for (path, why) in [
        (folder.path().join("none.pem").to_str().unwrap().to_owned(), "cannot read"),
        (file("empty.pem", "nothing"), "no certificate"),
    ] {
        let error = EsStore::new(&json!({"url": "https://localhost", "ca_cert": path})).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn what_answers_otherwise_is_told() -> Result<()> {
    let server = SearchServer::start(Kind::OpenSearch).await?;
    for (fault, why) in [
        (says(200, r#"{"version":{"number":"6.8.0"},"tagline":"You Know, for Search"}"#), "7.8 or later"),
        (says(200, r#"{"status":"ok"}"#), "neither Elasticsearch nor OpenSearch"),
        (says(200, "<html>"), "neither Elasticsearch nor OpenSearch"),
        (says(400, "The plain HTTP request was sent to HTTPS port"), "wants https: set `url: https://"),
        (says(403, "<html>Forbidden"), "does not allow"),
        (
            Fault::Answer {
                status: 302,
                headers: vec![("location", "https://login.example/".into())],
                body: String::new(),
            },
            "sends us on to https://login.example/",
        ),
    ] {
        let front = Front::plain(&server.url()).await?;
        front.once("/", fault);
        let error = permanent_error(store(&json!({"url": front.url()})).connect().await);
        assert!(error.contains(why), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_batch_that_fails_as_a_whole_says_what_to_do() -> Result<()> {
    let server = SearchServer::start(Kind::OpenSearch).await?;
    let front = Front::plain(&server.url()).await?;
    let store = store(&json!({"url": front.url()}));
    store.connect().await?;
    let documents = records(10, "a", V1);
    let wait = |seconds: &str| vec![("retry-after", seconds.to_owned())];
    for (status, wanted) in [(429, Some(7)), (503, Some(7)), (502, None), (504, None), (500, None)] {
        let headers = wanted.map(|_| wait("7")).unwrap_or_default();
        front.once("_bulk", Fault::Answer { status, headers, body: "busy".into() });
        match store.write(&documents).await {
            Err(StoreError::Transient { wait, reason }) => {
                assert_eq!(wait, wanted.map(Duration::from_secs), "{status}");
                assert!(reason.contains("busy"), "{reason}");
            }
            other => panic!("{status}: {other:?}"),
        }
    }
    front.once("_bulk", says(401, r#"{"error":{"type":"security_exception","reason":"expired"}}"#));
    assert!(permanent_error(store.write(&documents).await.map(drop)).contains("expired"));
    front.once("_bulk", says(403, r#"{"error":{"type":"security_exception","reason":"no"}}"#));
    assert!(permanent_error(store.write(&documents).await.map(drop)).contains("does not allow"));
    front.once("_bulk", says(200, "<html>Sign in"));
    assert!(matches!(store.write(&documents).await, Err(StoreError::Transient { .. })));
    front.once("_bulk", says(400, r#"{"error":{"type":"illegal_argument_exception","reason":"Malformed"}}"#));
    assert!(matches!(store.write(&documents).await, Err(StoreError::TooLarge(_))));
    assert_eq!(server.ask(Method::GET, "cloudmarker/_count", None).await?.0, 404, "nothing was written by then");

    // Stored, and the answer lost: once more is not twice.
    front.once("_bulk", Fault::LoseAnswer);
    assert!(matches!(store.write(&documents).await, Err(StoreError::Transient { .. })));
    assert_eq!(server.count("cloudmarker").await?, 10);
    assert_eq!(store.write(&documents).await?, Written::default());
    assert_eq!(server.count("cloudmarker").await?, 10);
    let (_, headers) = front.seen().into_iter().rev().find(|(call, _)| call.contains("_bulk")).unwrap();
    assert_eq!(headers["content-type"], "application/x-ndjson");
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_too_large_is_to_be_split() -> Result<()> {
    for kind in KINDS {
        let server = SearchServer::start(kind).await?;
        let front = Front::limited(&server.url(), 1_000_000).await?;
        let store = store(&json!({"url": front.url()}));
        store.connect().await?;
        let large: Vec<Document> = (0..3)
            .map(|n| document(&n.to_string(), V1, &json!({"raw": "x".repeat(600_000), "ext": {}, "com": {}})))
            .collect();
        match store.write(&large).await {
            Err(StoreError::TooLarge(_)) => {}
            other => panic!("{other:?}"),
        }
        for document in &large {
            assert_eq!(store.write(std::slice::from_ref(document)).await?, Written::default());
        }
        assert_eq!(server.count("cloudmarker").await?, 3);
    }
    Ok(())
}

#[tokio::test]
async fn a_data_stream_is_refused_before_anything_is_written() -> Result<()> {
    // Neither server has data streams as the genuine one has: its answer stands here.
    let server = SearchServer::start(Kind::Elasticsearch).await?;
    let front = Front::plain(&server.url()).await?;
    front.once(
        "stream/_settings",
        says(200, r#"{".ds-stream-2026.01.01-000001":{"settings":{"index":{"provided_name":"x"}}}}"#),
    );
    let error = permanent_error(store(&json!({"url": front.url(), "index": "stream"})).connect().await);
    assert!(error.contains("is a data stream"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_restart_of_the_server_in_the_middle_loses_and_doubles_nothing() -> Result<()> {
    let mut server = SearchServer::start(Kind::Elasticsearch).await?;
    let store = store_of(&server, &json!({}));
    store.connect().await?;
    let documents = records(6_000, "a", V1);
    let batches: Vec<&[Document]> = documents.chunks(1_000).collect();
    for batch in &batches[..3] {
        store.write(batch).await?;
    }
    // Stopped with a batch on its way.
    let (written, stopped) = tokio::join!(store.write(batches[3]), server.stop());
    stopped?;
    assert!(matches!(written, Ok(_) | Err(StoreError::Transient { .. })), "{written:?}");
    assert!(matches!(store.write(batches[4]).await, Err(StoreError::Transient { .. })));
    server.restart().await?;
    for batch in &batches[3..] {
        assert_eq!(store.write(batch).await?, Written::default());
    }
    assert_eq!(server.count("cloudmarker").await?, 6_000);
    for document in documents.iter().step_by(499) {
        assert_eq!(server.document("cloudmarker", &document.id).await?, Some(serde_json::from_slice(&document.body)?));
    }
    Ok(())
}
