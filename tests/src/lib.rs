//! Test harness and simulators.

pub mod cloudsim;
pub mod gcpsim;
pub mod harness;
