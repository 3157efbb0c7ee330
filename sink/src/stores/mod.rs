//! The stores.

pub mod file;
pub mod sqlite;
