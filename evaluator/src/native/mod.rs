//! What rules ask that a condition language cannot say well.

pub mod networks;
pub mod ports;
