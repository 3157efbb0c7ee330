//! Test harness and simulators.

pub mod cloudsim;
pub mod harness;
