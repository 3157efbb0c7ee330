//! The schema of CloudTrail's events. What an API call asks and answers stands in `requestParameters` and
//! `responseElements` of its event, in the shapes that AWS describes its services with. botocore ships these
//! descriptions, so any Python with boto3 and any AWS CLI has them.

mod expand;
mod find;
mod json;
mod models;
mod name;
mod prose;
mod service;
mod skeleton;

pub use expand::{Side, write_shape};
pub use find::find;
pub use models::Models;
pub use name::{Asked, Resolved, resolve};
pub use prose::plain;
pub use service::{Operation, Service};
pub use skeleton::rule;

/// Why a schema cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// There are no models, or not there.
    #[error("{0}")]
    NoModels(String),
    /// A file of the models cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was asked for is not there.
    #[error("{0}")]
    Unknown(String),
    /// The result cannot be written.
    #[error("cannot write the schema: {0}")]
    Unwritten(#[from] std::io::Error),
}

impl SchemaError {
    fn unreadable(path: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Self::Unreadable { path: path.to_string(), reason: reason.to_string() }
    }
}
