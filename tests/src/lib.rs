//! Test harness and simulators.

pub mod awssim;
pub mod cloudsim;
pub mod gcpsim;
pub mod harness;
