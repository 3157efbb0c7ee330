//! Managed identities: the endpoints at which a machine or an App Service gets a token without a secret.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::simulation::Simulation;

/// Which endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdentityPath {
    /// A virtual machine's, the Instance Metadata Service.
    Machine,
    /// An App Service's, which `IDENTITY_ENDPOINT` names.
    AppService,
}

/// Where an App Service finds its endpoint.
pub(super) const APP_SERVICE: &str = "/msi/token";

impl IdentityPath {
    /// None for a path that is not theirs.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        if path.eq_ignore_ascii_case("/metadata/identity/oauth2/token") {
            Some(Self::Machine)
        } else if path.eq_ignore_ascii_case(APP_SERVICE) {
            Some(Self::AppService)
        } else {
            None
        }
    }
}

/// Answers a request for a token.
pub(super) fn answer(simulation: &Simulation, path: IdentityPath, request: &Parts) -> Response {
    simulation.statistics.lock().identity_requests += 1;
    let (status, body) = match token(simulation, path, request) {
        Ok(token) => {
            simulation.statistics.lock().tokens_issued += 1;
            (StatusCode::OK, token)
        }
        Err((status, body)) => (status, body),
    };
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], body.to_string()).into_response()
}

fn token(simulation: &Simulation, path: IdentityPath, request: &Parts) -> Result<Value, (StatusCode, Value)> {
    let bad = |text: &str| (StatusCode::BAD_REQUEST, json!({"error": "invalid_request", "error_description": text}));
    if request.method != Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, json!({"error": "method_not_allowed"})));
    }
    let shown = |name: &str| text(&request.headers, name);
    match path {
        IdentityPath::Machine if !shown("metadata").eq_ignore_ascii_case("true") => {
            return Err(bad("Required metadata header not specified"));
        }
        IdentityPath::AppService if shown("x-identity-header") != simulation.credentials.identity_header => {
            let body = json!({"statusCode": 401, "message": "The X-IDENTITY-HEADER is missing or wrong."});
            return Err((StatusCode::UNAUTHORIZED, body));
        }
        _ => {}
    }
    let query = request.uri.query().unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.into_owned())
    };
    if parameter("api-version").is_none_or(|version| version.is_empty()) {
        return Err(bad("Required query variable 'api-version' is missing"));
    }
    let resource = parameter("resource").filter(|resource| !resource.is_empty());
    let resource = resource.ok_or_else(|| bad("Required audience parameter not specified"))?;
    if parameter("client_id").is_some_and(|client| !client.eq_ignore_ascii_case(&simulation.client_id)) {
        return Err(bad("Identity not found"));
    }
    let (now, lifetime) = (SystemTime::now(), simulation.token_lifetime);
    let token = simulation.tokens.lock().issue(resource.trim_end_matches('/'), lifetime, now);
    let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
    let mut answer = json!({
        "access_token": token,
        "client_id": simulation.client_id,
        "expires_on": since_1970(now + lifetime),
        "resource": resource,
        "token_type": "Bearer",
    });
    if path == IdentityPath::Machine {
        // All numbers are texts here.
        answer["refresh_token"] = "".into();
        answer["expires_in"] = lifetime.as_secs().to_string().into();
        answer["ext_expires_in"] = lifetime.as_secs().to_string().into();
        answer["not_before"] = since_1970(now).into();
    }
    Ok(answer)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
