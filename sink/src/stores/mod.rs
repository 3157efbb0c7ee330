//! The stores.

pub mod file;
