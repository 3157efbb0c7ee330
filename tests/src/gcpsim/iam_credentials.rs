//! Tokens of other accounts: `generateAccessToken`.

use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::access;
use super::google_error::GoogleError;
use super::scopes::{self, Service};
use super::simulation::Simulation;

const SERVICE: Service = Service::IamCredentials;

/// What an account may live without asking its organisation.
const LONGEST: Duration = Duration::from_secs(3600);

/// The body of the request. As everywhere at Google, null is the same as nothing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    scope: Option<Vec<String>>,
    lifetime: Option<String>,
    delegates: Option<Vec<String>>,
}

/// Answers a request for a token of `account`.
pub(super) fn answer(simulation: &Simulation, request: &Parts, account: &str, body: &[u8]) -> Response {
    simulation.statistics.lock().impersonation_requests += 1;
    generate(simulation, request, account, body).unwrap_or_else(|error| {
        access::count_error(simulation, &error);
        error.into_response()
    })
}

fn generate(simulation: &Simulation, request: &Parts, account: &str, body: &[u8]) -> Result<Response, GoogleError> {
    if request.method != Method::POST {
        return Err(GoogleError::no_such_page(request.uri.path()));
    }
    access::check(simulation, request, SERVICE)?;
    let invalid = |field: &str, why: &str| GoogleError::invalid_value(SERVICE, field, "", why);
    let wanted: Wanted =
        serde_json::from_slice(body).map_err(|error| invalid("body", &format!("Invalid JSON payload: {error}")))?;
    let may_be_had = |account: &str| simulation.identities.impersonable.iter().any(|known| known == account);
    // Each of the chain must have the right to the next; here the ends decide.
    let delegates = wanted.delegates.unwrap_or_default();
    let is_chain_good =
        delegates.iter().all(|delegate| delegate.strip_prefix("projects/-/serviceAccounts/").is_some_and(may_be_had));
    if !may_be_had(account) || !is_chain_good {
        return Err(GoogleError::impersonation_denied());
    }
    let scopes = wanted.scope.unwrap_or_default();
    if scopes.is_empty() {
        return Err(invalid("scope", "At least one scope is required."));
    }
    let scopes = scopes::parse(scopes.iter().map(String::as_str))
        .ok_or_else(|| invalid("scope", "The scope is not one of Google's."))?;
    let lifetime = match wanted.lifetime.as_deref() {
        None => LONGEST,
        Some(text) => text
            .strip_suffix('s')
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs)
            .filter(|lifetime| !lifetime.is_zero() && *lifetime <= LONGEST)
            .ok_or_else(|| invalid("lifetime", "The lifetime must be from 1s to 3600s."))?,
    };
    let (token, expires) = simulation.issue(account, scopes, lifetime);
    let expires = Timestamp::try_from(expires)
        .and_then(|expires| expires.round(jiff::Unit::Second))
        .map_err(|_| GoogleError::internal())?;
    let answer = json!({"accessToken": token, "expireTime": expires.to_string()});
    Ok(([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], format!("{answer:#}\n")).into_response())
}
