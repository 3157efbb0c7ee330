//! The collector: units in, records out. One module per cloud.

pub mod cloud;
pub mod emit;
