//! The stores.

pub mod elasticsearch;
pub mod file;
pub mod mongodb;
pub mod splunk;
pub mod sqlite;
