//! The alerts.

pub mod email;
pub mod slack;
pub mod webhook;
