//! Rules: data in YAML files, compiled once, that look at one record and say pass, fail or unknown.

mod check;
mod file;
mod judge;
mod message;
mod outcome;
mod pack;
mod param;
mod place;
mod trial;

pub use check::{Finding, Rule, Severity};
pub use judge::friendly_cloud;
pub use judge::{Explained, Instance};
pub use outcome::{Controls, EventDraft, Facts, Judgement, Outcome, Resource};
pub use pack::{Pack, RuleText, built_in, read_files};
pub use param::{Param, Type};
pub use place::RuleError;
pub use trial::{TestFailure, run_tests, untested};
