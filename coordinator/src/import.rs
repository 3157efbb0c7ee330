//! Brings over the configurations of tools that this one takes the place of.

mod cloudtail;
mod field;
mod notes;
mod pattern;

pub use cloudtail::cloudtail;
pub use notes::{Kind, Notes};

/// A configuration of ours.
#[derive(Debug)]
pub struct Imported {
    /// It, as YAML.
    pub config: String,
    /// What is not in it as it was, or not at all.
    pub notes: Notes,
}
