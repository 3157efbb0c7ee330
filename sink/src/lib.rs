//! The sink: records or events in, documents in a store out. It serves stores for records and, where they are listed
//! under `alerts:`, for events.

pub mod batch;
pub mod conformance;
pub mod connect;
pub mod registry;
pub mod settings;
pub mod store;
pub mod stores;
pub mod worker;
