//! SqliteStore as its workers use it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::bus::SharedBus;
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::plan::{Plan, PluginSpec, Stage};
use proto::subject::{Key, Role, Version};
use serde_json::json;
use sink::conformance::{Subject, check};
use sink::registry::{Context, build_shared};
use sink::store::{Document, Store, StoreError};
use sink::stores::sqlite::{Cell, QueryError, query};

fn store(path: &Path) -> Arc<dyn Store> {
    let bus: SharedBus = Arc::new(MemoryBus::new(MemoryOptions::default()));
    let params = json!({"path": path.to_str().unwrap(), "keep_versions": 3});
    let spec = PluginSpec {
        key: Key::new("inventory").unwrap(),
        class: "cloudmarker.stores.sqlitestore.SqliteStore".to_owned(),
        params: params.clone(),
        role: Role::Store,
        stage: Stage::Sink,
        exclusive: false,
        pool: None,
    };
    let plan = Plan {
        audit: Key::new("audit").unwrap(),
        version: Version::new("20260131_235959").unwrap(),
        plugins: vec![spec.clone()],
        clouds: Vec::new(),
        events: Vec::new(),
        rules: Vec::new(),
    };
    build_shared(Context { bus: &bus, plan: &plan, spec: &spec, params: &params }).unwrap()
}

fn rows(path: &Path, sql: &str) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    query(path, sql, |_, row| {
        rows.extend(row.map(<[Cell]>::to_vec));
        Ok(())
    })
    .unwrap();
    rows
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn documents(path: &Path) -> BTreeMap<String, String> {
    rows(path, "SELECT id, document FROM documents").iter().map(|row| (text(&row[0]), text(&row[1]))).collect()
}

fn document(id: &str, record_type: &str) -> Document {
    let body = json!({"raw": {"a": 1}, "ext": {"record_type": record_type, "project_id": "p-1"},
        "com": {"id": id, "cloud_type": "gcp", "reference": "//r", "origin_key": "o", "severity": "high"}});
    Document {
        id: id.to_owned(),
        record_type: record_type.to_owned(),
        audit: Key::new("audit").unwrap(),
        version: Version::new("20260131_235959").unwrap(),
        body: body.to_string().into(),
    }
}

#[tokio::test]
async fn it_does_what_every_store_must() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("new/folder/inventory.db");
    let reading = path.clone();
    let subject = Subject::new(store(&path), move |ids| {
        let there = documents(&reading);
        Box::pin(
            async move { Ok(ids.into_iter().filter_map(|id| there.get(&id).map(|text| (id, text.clone()))).collect()) },
        )
    });
    check(&subject).await.unwrap();
}

#[tokio::test]
async fn it_is_read_by_columns_and_by_views_while_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inventory.db");
    let (one, other) = (store(&path), store(&path));
    one.connect().await.unwrap();
    one.write(&[document("1", "firewall"), document("2", "it's \"odd\""), document("3", "documents")]).await.unwrap();
    let columns = "SELECT audit, version, cloud_type, account, reference, origin, severity, is_event FROM firewall";
    let texts = ["audit", "20260131_235959", "gcp", "p-1", "//r", "o", "high"];
    let mut expected: Vec<Cell> = texts.iter().map(|text| Cell::Text((*text).to_owned())).collect();
    expected.push(Cell::Integer(0));
    assert_eq!(rows(&path, columns), [expected]);
    assert_eq!(rows(&path, "SELECT ext ->> '$.project_id' FROM \"it's \"\"odd\"\"\""), [[Cell::Text("p-1".into())]]);
    assert_eq!(rows(&path, "SELECT id FROM _documents"), [[Cell::Text("3".into())]]);
    let (first, second) = tokio::join!(async { one.write(&[document("4", "a")]).await }, async {
        other.write(&[document("5", "b")]).await
    });
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(rows(&path, "SELECT count(*) FROM documents"), [[Cell::Integer(5)]]);
}

#[tokio::test]
async fn what_cannot_be_used_is_said_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("text");
    std::fs::write(&other, "not a database, but long enough to have a header of one hundred bytes".repeat(4)).unwrap();
    let is_folder = folder.path().join("folder");
    std::fs::create_dir(&is_folder).unwrap();
    for (path, said) in
        [(other.clone(), "is a file of another kind"), (is_folder, "cannot write"), (other.join("x"), "cannot create")]
    {
        match store(&path).connect().await {
            Err(StoreError::Permanent(reason)) => assert!(reason.contains(said), "{reason}"),
            connected => panic!("{connected:?}"),
        }
    }
    let nothing = query(&folder.path().join("none"), "SELECT 1", |_, _| Ok(()));
    assert!(matches!(nothing, Err(QueryError::NoInventory(_))));
}

#[tokio::test]
async fn a_query_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inventory.db");
    store(&path).write(&[document("1", "a")]).await.unwrap();
    for sql in ["DELETE FROM documents", "DROP TABLE documents", "no sql"] {
        assert!(matches!(query(&path, sql, |_, _| Ok(())), Err(QueryError::Sqlite(_))), "{sql}");
    }
    assert_eq!(documents(&path).len(), 1);
}
