//! Google Cloud, over the REST APIs of Resource Manager and Compute Engine.
//!
//! [`gcp_cloud`] is the plugin: which units there are and what becomes of them. It reads through `api`, which calls the
//! services with the tokens of `sign_in`, while `refusal` says what their refusals mean. `credential` is what signs in
//! and where it is found. `list` is what a page of a list is; `record` what a record looks like, with the makers of
//! records in `project`, `firewall` and `instance`.

mod api;
mod credential;
mod firewall;
pub mod gcp_cloud;
mod instance;
mod list;
mod params;
mod project;
mod record;
mod refusal;
mod sign_in;

pub(crate) use gcp_cloud::SERVED;
