//! The coordinator: plans, watches and reports runs; the command line a person uses; and the embedded mode, which has
//! all stages in one process.

pub mod checkpoint;
pub mod cli;
pub mod embedded;
pub mod history;
pub mod planner;
pub mod progress;
pub mod run;
pub mod summary;
pub mod tally;
