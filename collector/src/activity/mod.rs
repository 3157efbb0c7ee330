//! What the activity logs of all clouds have in common: which events are kept ([`keep`]), where a run goes on
//! ([`window`]), and the form that their records have ([`form`]).

pub mod defaults;
pub mod form;
pub mod keep;
mod members;
pub mod window;

/// The type of the records, in `ext.record_type` and in `com.record_type`.
pub const TYPE: &str = "cloud_activity";
