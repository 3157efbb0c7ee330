//! Test harness and simulators.
