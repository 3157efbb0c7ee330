//! The token endpoint: a signed statement or a refresh token in, an access token out.

use std::time::{Duration, SystemTime};

use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::jwt::Jwt;
use super::scopes;
use super::simulation::Simulation;

/// A client may name any of Google's own addresses for this endpoint, whichever it asks.
const AUDIENCES: [&str; 3] = [
    "https://oauth2.googleapis.com/token",
    "https://www.googleapis.com/oauth2/v4/token",
    "https://accounts.google.com/o/oauth2/token",
];

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Answers a request for a token.
pub(super) fn answer(simulation: &Simulation, request: &Parts, body: &[u8]) -> Response {
    simulation.statistics.lock().token_requests += 1;
    if simulation.gate.lock().fail_token_request() {
        simulation.statistics.lock().failed += 1;
        return (StatusCode::SERVICE_UNAVAILABLE, json_type(), pretty(&json!({"error": "internal_failure"})))
            .into_response();
    }
    match token(simulation, request, body) {
        Ok(token) => (StatusCode::OK, json_type(), pretty(&token)).into_response(),
        Err(Refusal { status, error, description }) => {
            let body = json!({"error": error, "error_description": description});
            (status, json_type(), pretty(&body)).into_response()
        }
    }
}

fn json_type() -> [(header::HeaderName, &'static str); 1] {
    [(header::CONTENT_TYPE, "application/json; charset=utf-8")]
}

fn pretty(body: &Value) -> String {
    format!("{body:#}")
}

/// What Google says instead of giving a token.
struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl Refusal {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.into() }
    }

    fn invalid_client(description: &str) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, ..Self::new("invalid_client", description) }
    }
}

fn token(simulation: &Simulation, request: &Parts, body: &[u8]) -> Result<Value, Refusal> {
    if request.method != Method::POST {
        return Err(Refusal::new("invalid_request", "Request method must be POST."));
    }
    let field = |name: &str| {
        form_urlencoded::parse(body)
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Refusal::new("invalid_request", format!("Missing required parameter: {name}")))
    };
    let (email, scopes) = match field("grant_type")?.as_str() {
        JWT_BEARER => of_assertion(simulation, request, &field("assertion")?)?,
        "refresh_token" => {
            let user = &simulation.identities.user;
            if field("client_id")? != user.client_id {
                return Err(Refusal::invalid_client("The OAuth client was not found."));
            }
            if field("client_secret")? != user.client_secret {
                return Err(Refusal::invalid_client("Unauthorized"));
            }
            if field("refresh_token")? != user.refresh_token {
                return Err(Refusal::new("invalid_grant", "Token has been expired or revoked."));
            }
            (user.email.clone(), vec![scopes::CLOUD_PLATFORM.to_owned(), "openid".to_owned()])
        }
        other => return Err(Refusal::new("unsupported_grant_type", format!("Invalid grant_type: {other}"))),
    };
    let scope = scopes.join(" ");
    let (token, _) = simulation.issue(&email, scopes, Duration::MAX);
    Ok(json!({
        "access_token": token,
        "expires_in": simulation.token_lifetime.as_secs(),
        "scope": scope,
        "token_type": "Bearer",
    }))
}

/// The account and the scopes of an assertion, once everything about it is found good.
fn of_assertion(simulation: &Simulation, request: &Parts, assertion: &str) -> Result<(String, Vec<String>), Refusal> {
    let identities = &simulation.identities;
    let invalid = |description: &str| Refusal::new("invalid_grant", description);
    let jwt = Jwt::parse(assertion).ok_or_else(|| invalid("Invalid JWT: Not a JSON web token."))?;
    if jwt.claims.iss.as_ref() != Some(&identities.service_account) {
        return Err(invalid("Invalid grant: account not found"));
    }
    if !jwt.is_signed_by(&identities.key) {
        return Err(invalid("Invalid JWT Signature."));
    }
    if !jwt.is_timely(SystemTime::now()) {
        return Err(invalid(
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.",
        ));
    }
    let own = [format!("{}/token", simulation.url), format!("http://{}/token", host(request))];
    let audience = jwt.claims.aud.as_deref().unwrap_or_default();
    if !AUDIENCES.contains(&audience) && !own.iter().any(|own| own == audience) {
        return Err(invalid(&format!(
            "Invalid JWT: Failed audience check. The right audience is {}",
            AUDIENCES.first().copied().unwrap_or_default()
        )));
    }
    if jwt.claims.sub.is_some() && jwt.claims.sub != jwt.claims.iss {
        return Err(Refusal {
            status: StatusCode::UNAUTHORIZED,
            ..Refusal::new(
                "unauthorized_client",
                "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested.",
            )
        });
    }
    let scopes = jwt.claims.scope.as_deref().unwrap_or_default();
    if scopes.trim().is_empty() {
        return Err(Refusal::new("invalid_scope", "Empty or missing scope not allowed."));
    }
    let scopes = scopes::parse(scopes.split_whitespace())
        .ok_or_else(|| Refusal::new("invalid_scope", "Invalid OAuth scope or ID token audience provided."))?;
    Ok((identities.service_account.clone(), scopes))
}

/// The server, by the name that the client calls it.
fn host(request: &Parts) -> &str {
    request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}
