//! The collector: units in, records out. One module per cloud.

pub mod activity;
pub mod aws;
pub mod azure;
pub mod cloud;
pub mod emit;
pub mod fields;
pub mod gcp;
pub mod http;
pub mod mock;
pub mod registry;
pub mod selection;
pub mod tally;
pub mod worker;
