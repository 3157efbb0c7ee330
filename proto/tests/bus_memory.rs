//! The in-process bus keeps the contract of all buses.

use std::sync::Arc;

use async_trait::async_trait;
use proto::bus::SharedBus;
use proto::bus::conformance::{self, Checked, Factory};
use proto::bus::memory::{MemoryBus, MemoryOptions};

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
