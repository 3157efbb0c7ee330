//! The stores.

pub mod file;
pub mod mongodb;
pub mod splunk;
pub mod sqlite;
