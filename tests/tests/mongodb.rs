//! `MongoDBStore` against a real MongoDB server.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use mongodb::bson::{Bson, Document as Bsoned, doc};
use mongodb::options::{ClientOptions, Credential, ServerAddress, Tls, TlsOptions};
use mongodb::{Client, Collection};
use proto::subject::{Key, Version};
use serde_json::{Value, json};
use sink::conformance::{Subject, check};
use sink::store::{Document, Pruning, Store, StoreError, Written};
use sink::stores::mongodb::MongoDbStore;
use tests::harness::{MongoServer, Workspace, free_port};

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

fn records(range: std::ops::Range<usize>, version: &str) -> Vec<Document> {
    let record = |number: usize| {
        let id = format!("{version}-{number:08x}");
        let body = json!({
            "raw": {"name": format!("vm{number}"), "size": number, "tags": {"a.b": "c", "$d": [1, 2.5, null]}},
            "ext": {"record_type": "vm", "number": number},
            "com": {"cloud_type": "mock", "record_type": "compute", "reference": format!("/vm/{number}"), "id": id,
                    "audit_key": "audit", "audit_version": version},
        });
        Document { version: Version::new(version).unwrap(), ..document(&id, body.to_string()) }
    };
    range.map(record).collect()
}

fn store(params: &Value) -> MongoDbStore {
    MongoDbStore::new(params).unwrap()
}

fn at(server: &MongoServer) -> MongoDbStore {
    store(&json!({"host": "127.0.0.1", "port": server.port(), "username": null, "password": null}))
}

/// The collection as another client sees it.
async fn collection(server: &MongoServer) -> Result<Collection<Bsoned>> {
    let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(server.port()) };
    let client = Client::with_options(ClientOptions::builder().hosts(vec![address]).build())?;
    Ok(client.database("cloudmarker").collection("cloudmarker"))
}

async fn find(collection: &Collection<Bsoned>, id: &str) -> Result<Bsoned> {
    collection.find_one(doc! {"_id": id}).await?.with_context(|| format!("there is no document {id}"))
}

fn permanent(result: Result<(), StoreError>) -> String {
    match result {
        Err(StoreError::Permanent(reason)) => reason,
        other => panic!("a permanent error is expected, not {other:?}"),
    }
}

fn transient(result: Result<(), StoreError>) -> String {
    match result {
        Err(StoreError::Transient { reason, .. }) => reason,
        other => panic!("a transient error is expected, not {other:?}"),
    }
}

#[tokio::test]
async fn documents_are_stored_as_they_are_once_each() -> Result<()> {
    let server = MongoServer::start().await?;
    let (store, found) = (at(&server), collection(&server).await?);
    store.connect().await?;
    store.connect().await?;
    assert_eq!(found.estimated_document_count().await?, 0, "connecting has written something");
    assert!(store.place().ends_with(&format!("127.0.0.1:{}, cloudmarker.cloudmarker", server.port())));

    let batch = records(0..1000, VERSION);
    assert_eq!(store.write(&batch).await?, Written::default());
    let one = find(&found, &batch[7].id).await?;
    assert_eq!(
        one,
        doc! {
            "_id": &batch[7].id,
            "raw": {"name": "vm7", "size": 7, "tags": {"a.b": "c", "$d": [1, 2.5, null]}},
            "ext": {"record_type": "vm", "number": 7},
            "com": {"cloud_type": "mock", "record_type": "compute", "reference": "/vm/7", "id": &batch[7].id,
                    "audit_key": "audit", "audit_version": VERSION},
        }
    );

    // The same again, some of them, and some of them changed: by every mixture of what is there and what is not.
    for _ in 0..3 {
        assert_eq!(store.write(&batch).await?, Written::default());
    }
    let changed = document(&batch[3].id, r#"{"com":{"audit_key":"other"}}"#);
    let mixed: Vec<_> = records(990..1100, VERSION).into_iter().chain([changed]).collect();
    assert_eq!(store.write(&mixed).await?, Written::default());
    assert_eq!(store.write(&mixed).await?, Written::default());
    assert_eq!(found.count_documents(doc! {}).await?, 1100);
    assert_eq!(find(&found, &batch[3].id).await?, doc! {"_id": &batch[3].id, "com": {"audit_key": "other"}});

    // Two at once, the same documents.
    let (one, other) = (at(&server), at(&server));
    let same = records(5000..7000, VERSION);
    let (first, second) = tokio::join!(one.write(&same), other.write(&same));
    assert_eq!((first?.refused, second?.refused), (Vec::new(), Vec::new()));
    assert_eq!(found.count_documents(doc! {"com.audit_key": "audit"}).await?, 3099);
    Ok(())
}

/// What a document was, by what the store says of its forms.
fn body(mut stored: Bsoned) -> Result<String> {
    stored.remove("_id");
    match stored.remove("_json") {
        Some(Bson::String(exact)) => Ok(exact),
        None => Ok(text(&Bson::Document(stored))),
        Some(other) => anyhow::bail!("`_json` is {other}"),
    }
}

fn text(bson: &Bson) -> String {
    let joined = |items: Vec<String>| items.join(",");
    match bson {
        Bson::Document(members) => {
            let member = |(name, value): (&String, &Bson)| format!("{}:{}", json!(name), text(value));
            format!("{{{}}}", joined(members.iter().map(member).collect()))
        }
        Bson::Array(items) => format!("[{}]", joined(items.iter().map(text).collect())),
        Bson::String(value) => json!(value).to_string(),
        Bson::Double(value) => json!(value).to_string(),
        Bson::Decimal128(value) => value.to_string(),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn it_is_what_every_store_is() -> Result<()> {
    let server = MongoServer::start().await?;
    let found = collection(&server).await?;
    let subject = Subject::new(Arc::new(at(&server)), move |ids| {
        let found = found.clone();
        Box::pin(async move {
            let read = async {
                let mut there = BTreeMap::new();
                let mut documents = found.find(doc! {"_id": {"$in": ids}}).await?;
                while let Some(document) = documents.try_next().await? {
                    there.insert(document.get_str("_id")?.to_owned(), body(document)?);
                }
                anyhow::Ok(there)
            };
            read.await.map_err(|error| error.to_string())
        })
    });
    check(&subject.with_too_large(17 * 1024 * 1024)).await.map_err(anyhow::Error::msg)
}

#[tokio::test]
async fn the_tutorials_configuration_runs() -> Result<()> {
    let server = MongoServer::start().await?;
    let found = collection(&server).await?;
    let port = server.port();
    for (name, port) in
        [("mongodbstore", format!("port: {port}")), ("mongodbstore-minimal", format!("params: {{port: {port}}}"))]
    {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../proto/tests/config/tutorial/{name}.yaml"));
        let own = format!(
            "plugins: {{filestore: {{params: {{path: '{{out}}'}}}}, mongodbstore: {{{port}}}}}\n\
             logger: {{handlers: {{file: {{filename: run.log}}}}}}\n",
        );
        let workspace = Workspace::new(&own)?;
        let args = ["-n", "-c", &file.display().to_string(), "cloudmarker.yaml"];
        let output = workspace.run(&args).await?.with_code(0)?;
        assert!(output.stdout.contains("MongoDB at "), "{output:?}");
        let of = |kind: &str| found.count_documents(doc! {"com.origin_type": kind}).into_future();
        assert_eq!((of("cloud").await?, of("event").await?), (10, 4), "{output:?}");
        for event in found.find(doc! {"com.target_type": "alert"}).await?.try_collect::<Vec<_>>().await? {
            assert_eq!(event.get_document("com")?.get_str("target_class")?, "MongoDBStore");
        }
        found.delete_many(doc! {}).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_people_ask_for_is_indexed() -> Result<()> {
    let server = MongoServer::start().await?;
    let (store, found) = (at(&server), collection(&server).await?);
    store.connect().await?;
    store.write(&records(0..10, VERSION)).await?;
    for (filter, index) in [
        (doc! {"com.audit_key": "audit", "com.audit_version": VERSION}, "com.audit_version"),
        (doc! {"com.record_type": "compute"}, "com.record_type"),
        (doc! {"ext.record_type": "vm"}, "ext.record_type"),
        (doc! {"com.reference": "/vm/3"}, "com.reference"),
        (doc! {"com.cloud_type": "mock"}, "com.cloud_type"),
    ] {
        let find = doc! {"explain": {"find": "cloudmarker", "filter": &filter}, "verbosity": "queryPlanner"};
        let plan = found.client().database("cloudmarker").run_command(find).await?;
        let plan = plan.get_document("queryPlanner")?.get_document("winningPlan")?.to_string();
        assert!(plan.contains("IXSCAN") && plan.contains(index), "{filter}: {plan}");
    }
    Ok(())
}

#[tokio::test]
async fn odd_documents_keep_what_they_say_and_harm_no_others() -> Result<()> {
    let server = MongoServer::start().await?;
    let (store, found) = (at(&server), collection(&server).await?);
    store.connect().await?;
    let many_keys: serde_json::Map<String, Value> = (0..5000).map(|key| (format!("key{key}"), json!(key))).collect();
    let many_keys = json!({"raw": many_keys}).to_string();
    let deep = format!("{{\"raw\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    let nearly = format!("{{\"raw\":\"{}\"}}", "x".repeat(16 * 1024 * 1024 - 60));
    let too_large = format!("{{\"raw\":\"{}\"}}", "x".repeat(16 * 1024 * 1024));
    let batch = [
        document("plain", r#"{"raw":1}"#),
        document("keys", r#"{"raw":{"a.b":{"$c":1,"":2},".":3,"$":4,"$set":{"x":5},"$ref":6,"$id":7}}"#),
        document("numbers", r#"{"raw":[18446744073709551615,9007199254740993,0.1,123456789012345678901234567890.5]}"#),
        document("more digits", r#"{"raw":1234567890123456789012345678901234567890}"#),
        document("nul", r#"{"raw":{"a\u0000b":"c\u0000d"}}"#),
        document("top", r#"{"$set":{"raw":1},"_id":5}"#),
        document("deep", deep.clone()),
        document("broken", r#"{"raw":"#),
        document("many keys", many_keys),
        document("dates", r#"{"com":{"time":"yesterday","audit_version":7},"ext":{"$date":"no date"}}"#),
        document("empty", "{}"),
        document("too large", too_large),
        document("nearly too large", nearly),
        document("last", r#"{"raw":2}"#),
    ];
    for _ in 0..2 {
        let written = store.write(&batch).await?;
        assert_eq!(written.again, []);
        let refused: Vec<usize> = written.refused.iter().map(|(place, _)| *place).collect();
        assert_eq!(refused, [7, 11], "{:?}", written.refused);
        assert!(written.refused[0].1.contains("not JSON"), "{:?}", written.refused);
        assert!(written.refused[1].1.contains("16777216"), "{:?}", written.refused);
    }
    assert_eq!(found.count_documents(doc! {}).await?, 12);
    let raw = async |id: &str| anyhow::Ok(find(&found, id).await?.get("raw").cloned().context("there is no raw")?);
    assert_eq!(
        raw("keys").await?,
        Bson::from(doc! {"a.b": {"$c": 1, "": 2}, ".": 3, "$": 4, "$set": {"x": 5}, "$ref": 6, "$id": 7})
    );
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    assert_eq!(
        raw("numbers").await?,
        Bson::Array(vec![
            decimal("18446744073709551615"),
            Bson::Int64(9_007_199_254_740_993),
            Bson::Double(0.1),
            decimal("123456789012345678901234567890.5"),
        ])
    );
    assert_eq!(raw("many keys").await?.as_document().map(Bsoned::len), Some(5000));
    for (id, exact) in [
        ("more digits", r#"{"raw":1234567890123456789012345678901234567890}"#),
        ("nul", r#"{"raw":{"a\u0000b":"c\u0000d"}}"#),
        ("top", r#"{"$set":{"raw":1},"_id":5}"#),
        ("deep", &deep),
    ] {
        assert_eq!(find(&found, id).await?.get_str("_json")?, exact);
    }
    Ok(())
}

#[tokio::test]
async fn what_a_collection_does_not_take_is_refused_alone() -> Result<()> {
    let server = MongoServer::start().await?;
    let found = collection(&server).await?;
    let db = found.client().database("cloudmarker");
    db.run_command(doc! {
        "create": "cloudmarker",
        "validator": {"$jsonSchema": {"required": ["com"]}},
    })
    .await?;
    db.run_command(doc! {
        "createIndexes": "cloudmarker",
        "indexes": [{"key": {"com.once": 1}, "name": "once", "unique": true, "sparse": true}],
    })
    .await?;
    let store = at(&server);
    store.connect().await?;
    let batch = [
        document("a", r#"{"com":{"once":1}}"#),
        document("b", r#"{"raw":1}"#),
        document("c", r#"{"com":{"once":1}}"#),
        document("d", r#"{"com":{}}"#),
    ];
    for _ in 0..3 {
        let written = store.write(&batch).await?;
        assert_eq!(written.again, []);
        assert_eq!(written.refused.len(), 2);
        assert!(written.refused[0].0 == 1 && written.refused[0].1.contains("121"), "{:?}", written.refused);
        assert!(written.refused[1].0 == 2 && written.refused[1].1.contains("once"), "{:?}", written.refused);
    }
    assert_eq!(found.count_documents(doc! {}).await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_servers_bad_moment_is_no_refusal() -> Result<()> {
    let server = MongoServer::start().await?;
    let (store, found) = (at(&server), collection(&server).await?);
    store.connect().await?;
    let admin = found.client().database("admin");
    let fail = async |data: Bsoned| {
        let fail = doc! {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data};
        admin.run_command(fail).await.map(drop)
    };
    let batch = records(0..10, VERSION);
    for code in [10_107, 189, 11_600, 64, 211, 99_999] {
        fail(doc! {"failCommands": ["insert", "update"], "errorCode": code}).await?;
        let reason = transient(store.write(&batch).await.map(drop));
        assert!(!reason.contains("Kind:"), "{reason}");
        assert_eq!(store.write(&batch).await?, Written::default());
    }
    fail(doc! {"failCommands": ["insert", "update"], "closeConnection": true}).await?;
    transient(store.write(&batch).await.map(drop));
    fail(doc! {"failCommands": ["insert", "update"], "writeConcernError": {"code": 64, "errmsg": "waiting timed out"}})
        .await?;
    let reason = transient(store.write(&batch).await.map(drop));
    assert!(reason.contains("durable"), "{reason}");
    fail(doc! {"failCommands": ["insert", "update"], "errorCode": 13}).await?;
    permanent(store.write(&batch).await.map(drop));
    assert_eq!(store.write(&batch).await?, Written::default());
    assert_eq!(found.count_documents(doc! {}).await?, 10);
    Ok(())
}

#[tokio::test]
async fn only_what_is_not_kept_goes() -> Result<()> {
    const VERSIONS: [&str; 4] = ["20200101_000000", "20200102_000000", "20200103_000000", "20990101_000000"];
    let server = MongoServer::start().await?;
    let (store, found) = (at(&server), collection(&server).await?);
    store.connect().await?;
    for version in VERSIONS {
        store.write(&records(0..10, version)).await?;
        let of = |audit: &str, id: &str, more: &str| {
            let body = format!(r#"{{"com":{{"audit_key":"{audit}","audit_version":"{version}"{more}}}}}"#);
            document(&format!("{version}-{id}"), body)
        };
        store.write(&[of("audit", "log", r#","lifetime":"permanent""#), of("another", "other", "")]).await?;
    }
    let version = |at: usize| Version::new(VERSIONS[at]).unwrap();
    let pruning =
        Pruning { audit: Key::new("audit").unwrap(), before: version(2), keep: vec![version(0)], permanent_days: None };
    assert_eq!(store.prune(&pruning).await?, 10);
    assert_eq!(store.prune(&pruning).await?, 0);
    for (at, left) in [(0, 12), (1, 2), (2, 12), (3, 12)] {
        assert_eq!(found.count_documents(doc! {"com.audit_version": VERSIONS[at]}).await?, left, "{}", VERSIONS[at]);
    }
    assert_eq!(store.prune(&Pruning { permanent_days: Some(365), ..pruning }).await?, 3);
    assert_eq!(found.count_documents(doc! {"com.lifetime": "permanent"}).await?, 1);
    assert_eq!(found.count_documents(doc! {"com.audit_key": "another"}).await?, 4);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_soon() -> Result<()> {
    let port = free_port()?;
    let nobody = store(&json!({"host": "127.0.0.1", "port": port}));
    let asked = Instant::now();
    let reason = transient(nobody.connect().await);
    assert!(reason.contains(&format!("127.0.0.1:{port}")) && reason.contains("refused"), "{reason}");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let reason = transient(store(&json!({"host": "nowhere.invalid"})).connect().await);
    assert!(reason.contains("no such host") && reason.contains("nowhere.invalid"), "{reason}");

    // Somebody listens, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = silent.local_addr()?.port();
    let asked = Instant::now();
    transient(store(&json!({"host": "127.0.0.1", "port": port})).connect().await);
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    Ok(())
}

#[tokio::test]
async fn what_was_stored_outlives_a_killed_server() -> Result<()> {
    let mut server = MongoServer::start().await?;
    let store = at(&server);
    store.connect().await?;
    let batch = records(0..2000, VERSION);
    store.write(&batch).await?;
    server.kill9().await?;
    transient(store.write(&records(2000..2010, VERSION)).await.map(drop));
    server.restart().await?;
    store.write(&records(2000..2010, VERSION)).await?;
    assert_eq!(collection(&server).await?.count_documents(doc! {}).await?, 2010);
    Ok(())
}

/// A client of the secured server.
fn secured(server: &MongoServer, credential: Option<Credential>) -> Result<Client> {
    let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(server.port()) };
    let tls = TlsOptions::builder().ca_file_path(server.authority()).build();
    let mut options = ClientOptions::builder().hosts(vec![address]).tls(Tls::Enabled(tls)).build();
    options.direct_connection = Some(true);
    options.credential = credential;
    Ok(Client::with_options(options)?)
}

#[tokio::test]
async fn tls_users_and_a_replica_set() -> Result<()> {
    let mut server = MongoServer::start_secured().await?;
    let port = server.port();
    let bare = secured(&server, None)?.database("admin");
    let params = |more: Value| {
        let mut params = json!({
            "host": "127.0.0.1", "port": port, "ca_cert": server.authority(), "username": "writer",
            "password": "p:w@1/%", "auth_source": "admin",
        });
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        params
    };

    // Before it is a replica set nobody is primary.
    let reason =
        transient(store(&params(json!({"username": null, "password": null, "auth_source": null}))).connect().await);
    assert!(reason.contains("takes writes"), "{reason}");
    let member = doc! {"_id": 0, "host": format!("127.0.0.1:{port}")};
    bare.run_command(doc! {"replSetInitiate": {"_id": "rs0", "members": [member]}}).await?;
    while !bare.run_command(doc! {"hello": 1}).await?.get_bool("isWritablePrimary")? {
        tokio::task::yield_now().await;
    }
    bare.run_command(doc! {"createUser": "root", "pwd": "root", "roles": ["root"]}).await?;
    let root = Credential::builder().username("root".to_owned()).password("root".to_owned()).build();
    let root = secured(&server, Some(root))?;
    let admin = root.database("admin");
    let found = root.database("cloudmarker").collection::<Bsoned>("cloudmarker");
    for (user, role) in [("writer", "readWrite"), ("reader", "read")] {
        let roles = vec![doc! {"role": role, "db": "cloudmarker"}];
        admin.run_command(doc! {"createUser": user, "pwd": "p:w@1/%", "roles": roles}).await?;
    }

    let right = store(&params(json!({})));
    right.connect().await?;
    right.write(&records(0..100, VERSION)).await?;
    let uri = format!("mongodb://writer:p%3Aw%401%2F%25@127.0.0.1:{port}/cloudmarker?authSource=admin&replicaSet=rs0");
    let by_uri = store(&json!({"uri": uri, "tls": true, "ca_cert": server.authority()}));
    assert!(!format!("{by_uri:?} {}", by_uri.place()).contains("p:w@1"));
    by_uri.connect().await?;
    by_uri.write(&records(50..150, VERSION)).await?;
    store(&params(json!({"ca_cert": false}))).connect().await?;
    assert_eq!(found.count_documents(doc! {}).await?, 150);

    let reason = permanent(store(&params(json!({"password": "wrong"}))).connect().await);
    assert!(reason.contains("\"writer\"") && reason.contains("`password`") && !reason.contains("wrong"), "{reason}");
    let reason = permanent(store(&params(json!({"auth_source": "cloudmarker"}))).connect().await);
    assert!(reason.contains("`auth_source`"), "{reason}");
    let reason = permanent(store(&params(json!({"username": "reader"}))).connect().await);
    assert!(reason.contains("\"reader\"") && reason.contains("`readWrite`"), "{reason}");
    let reason =
        permanent(store(&params(json!({"username": null, "password": null, "auth_source": null}))).connect().await);
    assert!(reason.contains("set `username`"), "{reason}");
    let reason = permanent(store(&params(json!({"ca_cert": server.other_authority()}))).connect().await);
    assert!(reason.contains("`ca_cert`"), "{reason}");
    let reason = permanent(store(&params(json!({"ca_cert": "/no/such/file"}))).connect().await);
    assert!(reason.contains("/no/such/file"), "{reason}");
    let reason = transient(store(&params(json!({"ca_cert": null, "tls": false}))).connect().await);
    assert!(reason.contains("`tls: true`"), "{reason}");
    // More members than there are.
    let reason = permanent(store(&params(json!({"write_concern": 3}))).write(&records(0..1, VERSION)).await.map(drop));
    assert!(reason.contains("`write_concern`"), "{reason}");

    // A primary that steps down takes no writes, and is primary again after a time.
    admin.run_command(doc! {"replSetStepDown": 6, "force": true, "secondaryCatchUpPeriodSecs": 0}).await?;
    let reason = transient(right.write(&records(150..160, VERSION)).await.map(drop));
    assert!(reason.contains("primary"), "{reason}");
    admin.run_command(doc! {"replSetFreeze": 0}).await.ok();
    write_until_stored(&right, &records(150..160, VERSION)).await;

    server.kill9().await?;
    transient(right.write(&records(160..170, VERSION)).await.map(drop));
    server.restart().await?;
    write_until_stored(&right, &records(160..170, VERSION)).await;
    assert_eq!(found.count_documents(doc! {}).await?, 170);
    let ids: Vec<Bsoned> = found.find(doc! {}).sort(doc! {"_id": 1}).await?.try_collect().await?;
    let expected: Vec<String> = records(0..170, VERSION).into_iter().map(|document| document.id).collect();
    assert!(ids.iter().map(|found| found.get_str("_id").unwrap()).eq(expected));
    Ok(())
}

/// Each try waits for a primary by itself.
async fn write_until_stored(store: &MongoDbStore, documents: &[Document]) {
    for _ in 0..12 {
        match store.write(documents).await {
            Ok(written) => return assert_eq!(written, Written::default()),
            Err(StoreError::Transient { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the replica set has no primary for too long");
}

#[test]
fn parameters_are_checked_all_at_once() {
    let check = |params: Value| {
        let check = sink::stores::mongodb::CLASS.check.unwrap();
        let errors = check(&params).err().unwrap_or_default();
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect::<Vec<_>>().join("\n")
    };
    for good in [
        json!({}),
        json!({"host": "h", "port": 1, "username": "u", "password": "p", "buffer_size": 5, "write_concern": 2}),
        json!({"uri": "mongodb://a:b@h1,h2:5/db?replicaSet=x&w=1", "write_concern": "majority"}),
        json!({"uri": "${CM_MONGO}", "username": "u", "password": "${file:p}"}),
    ] {
        assert_eq!(check(good), "");
    }
    let bad = check(json!({"buffer_size": 0, "db": "a.b", "collection": "$x", "password": "p", "write_concern": 0}));
    for path in ["buffer_size: ", "db: ", "collection: ", "username: ", "write_concern: "] {
        assert!(bad.contains(path), "{bad}");
    }
    assert!(check(json!({"uri": "mongodb://h", "host": "g"})).starts_with("host: "));
    assert!(check(json!({"uri": "mongodb+srv://u:p@h"})).contains("mongodb://user"));
    let wrong = check(json!({"uri": "mongodb://u:hunter2@h:port?tls=5"}));
    assert!(wrong.starts_with("uri: ") && !wrong.contains("hunter2"), "{wrong}");
    assert!(check(json!({"hots": "g"})).contains("did you mean `host`"));
}
