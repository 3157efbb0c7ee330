//! The evaluator: records in, events out.

pub mod event;
pub mod firewall_rule_event;
pub mod mock_event;
pub mod native;
pub mod plugin;
pub mod registry;
pub mod worker;
