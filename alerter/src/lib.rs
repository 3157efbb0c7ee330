//! The alerter: events in, messages to people out.

pub mod registry;
pub mod worker;
