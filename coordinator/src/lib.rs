//! The coordinator: plans, watches and reports runs; the command line a person uses; and the embedded mode, which has
//! all stages in one process.

pub mod checkpoint;
pub mod cli;
pub mod daemon;
pub mod diff;
pub mod embedded;
pub mod history;
pub mod import;
pub mod mail;
pub mod planner;
pub mod progress;
pub mod run;
pub mod schedule;
pub mod schema;
pub mod status;
pub mod summary;
pub mod tally;
pub mod terminal;
