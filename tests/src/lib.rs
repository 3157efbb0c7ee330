//! Test harness and simulators.

pub mod harness;
