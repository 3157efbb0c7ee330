//! The metadata server of a machine: the token of its account, for whoever runs on it.

use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use url::form_urlencoded;

use super::identities::{HOME, HOME_NUMBER};
use super::scopes;
use super::simulation::Simulation;

const FLAVOR: &str = "metadata-flavor";

/// Answers a request for something about the machine.
pub(super) fn answer(simulation: &Simulation, request: &Parts, path: &str) -> Response {
    simulation.statistics.lock().metadata_requests += 1;
    let mut response = match look_up(simulation, request, path) {
        Ok((kind, text)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err((status, text)) => (status, [(header::CONTENT_TYPE, "text/html; charset=UTF-8")], text).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(FLAVOR, HeaderValue::from_static("Google"));
    headers.insert(header::SERVER, HeaderValue::from_static("Metadata Server for VM"));
    response
}

type Found = (&'static str, String);

/// The content type and the content.
fn look_up(simulation: &Simulation, request: &Parts, path: &str) -> Result<Found, (StatusCode, String)> {
    let is_own = request.headers.get(FLAVOR).is_some_and(|flavor| flavor == "Google");
    // A request that came through a proxy may be somebody else's.
    if !is_own || request.headers.contains_key("x-forwarded-for") {
        let text = "Missing required header \"Metadata-Flavor\": \"Google\"".to_owned();
        return Err((StatusCode::FORBIDDEN, text));
    }
    if request.method != Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "Method not allowed".to_owned()));
    }
    let account = &simulation.identities.machine_account;
    let parameter = |name: &str| {
        let query = request.uri.query().unwrap_or_default().as_bytes();
        form_urlencoded::parse(query).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    let text = |text: &str| Ok(("application/text", text.to_owned()));
    let not_found = || Err((StatusCode::NOT_FOUND, format!("The requested URL /{path} was not found.")));
    match path {
        "" => text("computeMetadata/\n"),
        "project/project-id" => text(HOME),
        "project/numeric-project-id" => text(HOME_NUMBER),
        "universe/universe-domain" | "universe/universe_domain" => text("googleapis.com"),
        "instance/service-accounts/" => text(&format!("default/\n{account}/\n")),
        _ => {
            let of_account = path.strip_prefix("instance/service-accounts/").and_then(|path| path.split_once('/'));
            match of_account.filter(|(name, _)| *name == "default" || name == account) {
                Some((_, "email")) => text(account),
                Some((_, "scopes")) => text(&format!("{}\n", scopes::CLOUD_PLATFORM)),
                Some((_, "")) if parameter("recursive").is_some_and(|value| value.eq_ignore_ascii_case("true")) => {
                    let all = json!({"aliases": ["default"], "email": account, "scopes": [scopes::CLOUD_PLATFORM]});
                    Ok(("application/json", all.to_string()))
                }
                Some((_, "")) => text("aliases\nemail\nidentity\nscopes\ntoken\n"),
                Some((_, "token")) => token(simulation, parameter("scopes")),
                _ => not_found(),
            }
        }
    }
}

fn token(simulation: &Simulation, wanted: Option<String>) -> Result<Found, (StatusCode, String)> {
    if simulation.gate.lock().fail_token_request() {
        simulation.statistics.lock().failed += 1;
        return Err((StatusCode::SERVICE_UNAVAILABLE, "Could not fetch the token. Please try again.".to_owned()));
    }
    let scopes = match wanted.filter(|scopes| !scopes.is_empty()) {
        None => vec![scopes::CLOUD_PLATFORM.to_owned()],
        Some(wanted) => {
            scopes::parse(wanted.split(',')).ok_or_else(|| (StatusCode::BAD_REQUEST, "Invalid scope".to_owned()))?
        }
    };
    let (token, _) = simulation.issue(&simulation.identities.machine_account, scopes, Duration::MAX);
    let lifetime = simulation.token_lifetime.as_secs();
    let answer = json!({"access_token": token, "expires_in": lifetime, "token_type": "Bearer"});
    Ok(("application/json", answer.to_string()))
}
