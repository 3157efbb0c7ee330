//! The evaluator: records in, events out.

pub mod plugin;
