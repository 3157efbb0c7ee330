//! The contract between the stages of Cloudmarker, and the runtime they stand on.
//!
//! Whatever two stages must agree on stands here: how a record looks and who it is ([`record`], [`identity`]), how
//! records travel ([`subject`], [`frame`], [`bus`]), what a unit of collecting is and what its end says ([`unit`],
//! [`coverage`], [`status`], [`letter`]), what an audit consists of ([`plan`], [`config`]), and in which state a run is
//! ([`run`]) and how far a log was read ([`checkpoint`]). The stages know this crate and never one another.

pub mod bus;
pub mod catalogue;
pub mod checkpoint;
pub mod config;
pub mod coverage;
pub mod exclusive;
pub mod findings;
pub mod frame;
pub mod identity;
pub mod letter;
pub mod plan;
pub mod record;
pub mod run;
pub mod service;
pub mod status;
pub mod subject;
pub mod unit;
