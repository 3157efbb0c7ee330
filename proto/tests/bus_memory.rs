//! The in-process bus keeps the contract of all buses.

use std::sync::Arc;

use async_trait::async_trait;
use proto::bus::conformance::{self, Checked, Factory};
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::bus::{Bucket, Bus, BusErrorKind, KvChange, SharedBus};

struct InProcess {
    shared: SharedBus,
}

#[async_trait]
impl Factory for InProcess {
    async fn bus(&self) -> Checked<SharedBus> {
        Ok(Arc::clone(&self.shared))
    }

    async fn bounded(&self, max_bytes: usize) -> Checked<SharedBus> {
        let options = MemoryOptions { stream_bytes: max_bytes, ..MemoryOptions::default() };
        Ok(Arc::new(MemoryBus::new(options)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conformance_suite() {
    let options = MemoryOptions { max_message: 1024 * 1024, ..MemoryOptions::default() };
    let factory = InProcess { shared: Arc::new(MemoryBus::new(options)) };
    if let Err(failures) = conformance::run(&factory).await {
        panic!("{failures}");
    }
}

/// What a process puts into a durable bucket, the next one finds; and nothing else.
#[tokio::test]
async fn durable_buckets_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let open = || MemoryBus::open(MemoryOptions::default(), folder.path()).unwrap();
    let bus = open();
    for bucket in [Bucket::Findings, Bucket::Checkpoints] {
        let revision = bus.kv_create(bucket, "prod.head", "1".into(), None).await.unwrap();
        bus.kv_update(bucket, "prod.head", "2".into(), revision).await.unwrap();
        bus.kv_put(bucket, "prod.gone", "3".into()).await.unwrap();
        bus.kv_delete(bucket, "prod.gone").await.unwrap();
    }
    bus.kv_put(Bucket::Runs, "20260131_235959", "run".into()).await.unwrap();
    drop(bus);
    assert!(folder.path().join("kv/cm_findings/prod.head").is_file());

    let bus = open();
    for bucket in [Bucket::Findings, Bucket::Checkpoints] {
        let entries = bus.kv_entries(bucket, "prod.").await.unwrap();
        let [entry] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((entry.key.as_str(), &entry.value[..]), ("prod.head", b"2".as_slice()));
        let taken = bus.kv_create(bucket, "prod.head", "4".into(), None).await.unwrap_err();
        assert_eq!(taken.kind(), BusErrorKind::Conflict);
        let mut watcher = bus.kv_watch(bucket).await.unwrap();
        assert_eq!(watcher.next().await.unwrap(), KvChange::Put(entry.clone()));
        bus.kv_update(bucket, "prod.head", "5".into(), entry.revision).await.unwrap();
        assert!(matches!(watcher.next().await.unwrap(), KvChange::Put(entry) if entry.value == "5"));
    }
    assert!(bus.kv_get(Bucket::Runs, "20260131_235959").await.unwrap().is_none());
}
