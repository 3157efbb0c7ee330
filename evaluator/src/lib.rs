//! The evaluator: records in, events out.

pub mod condition;
pub mod event;
pub mod json;
pub mod native;
pub mod record;
pub mod registry;
pub mod rule;
pub mod rules;
pub mod worker;
