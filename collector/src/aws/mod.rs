//! Amazon Web Services.
//!
//! `account` is one account with its credentials, which come from AWS's own chain; `api` signs calls and says what
//! refusals mean; `region` is where services are, and which regions an account has. The plugin `AwsCloudTrail` is
//! `cloud_trail`; `event` makes records of its events.

mod account;
mod api;
pub mod cloud_trail;
mod event;
mod params;
mod region;
mod sdk_http;
mod xml;

use proto::catalogue::in_one_line;

use crate::registry::Served;

/// The plugins.
pub(crate) const SERVED: &[Served] = &[(&cloud_trail::CLASS, |params, context| {
    cloud_trail::build(params, context).map_err(|errors| in_one_line(&errors))
})];
