//! Audits run at their turns, each turn once: whatever becomes of coordinators, and however many there are.

#[path = "schedule/broker.rs"]
mod broker;
#[path = "schedule/cancel.rs"]
mod cancel;
#[path = "schedule/one_process.rs"]
mod one_process;
#[path = "schedule/reading.rs"]
mod reading;
