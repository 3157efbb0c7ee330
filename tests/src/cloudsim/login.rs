//! The login side: Entra ID's token endpoint, and the documents that a login library reads first.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::assertion::Doubt;
use super::clock;
use super::simulation::Simulation;

/// A request to the login side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginPath<'a> {
    /// `/{tenant}/oauth2/v2.0/token`
    Token(&'a str),
    /// `/{tenant}/v2.0/.well-known/openid-configuration`
    OpenIdConfiguration(&'a str),
    /// `/common/discovery/instance`
    Instance,
    /// `/{tenant}/discovery/v2.0/keys`
    Keys,
}

impl<'a> LoginPath<'a> {
    /// None for a path that is Resource Manager's.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let is = |wanted: &[&str]| {
            parts.len() == wanted.len() + 1
                && parts.iter().skip(1).zip(wanted).all(|(part, wanted)| part.eq_ignore_ascii_case(wanted))
        };
        let tenant = parts.first()?;
        if is(&["oauth2", "v2.0", "token"]) {
            Some(Self::Token(tenant))
        } else if is(&["v2.0", ".well-known", "openid-configuration"]) {
            Some(Self::OpenIdConfiguration(tenant))
        } else if is(&["discovery", "instance"]) {
            Some(Self::Instance)
        } else if is(&["discovery", "v2.0", "keys"]) {
            Some(Self::Keys)
        } else {
            None
        }
    }
}

/// Answers a request to the login side; `body` matters to the token endpoint alone.
pub(super) fn answer(simulation: &Simulation, path: LoginPath<'_>, request: &Parts, body: &[u8]) -> Response {
    let origin = simulation.origin(&request.headers);
    if let LoginPath::Token(tenant) = path {
        simulation.statistics.lock().token_requests += 1;
        return match token(simulation, tenant, request, body) {
            Ok(token) => {
                simulation.statistics.lock().tokens_issued += 1;
                no_store(StatusCode::OK, &token)
            }
            Err(error) => error.answer(simulation),
        };
    }
    simulation.statistics.lock().discovery_requests += 1;
    match path {
        LoginPath::OpenIdConfiguration(tenant) if !is_tenant(simulation, tenant) => {
            LoginError::unknown_tenant("invalid_tenant", tenant).answer(simulation)
        }
        LoginPath::Instance => no_store(StatusCode::OK, &instance(simulation, &origin)),
        LoginPath::Keys => no_store(StatusCode::OK, &json!({"keys": []})),
        _ => no_store(StatusCode::OK, &open_id_configuration(simulation, &origin)),
    }
}

/// The checks in Entra ID's order: whom one asks, what for, who asks, and with what secret.
fn token(simulation: &Simulation, tenant: &str, request: &Parts, body: &[u8]) -> Result<Value, LoginError> {
    if request.method != Method::POST {
        return Err(LoginError::not_post(&request.method));
    }
    if !is_tenant(simulation, tenant) {
        return Err(LoginError::unknown_tenant("invalid_request", tenant));
    }
    let field = |name: &'static str| {
        form_urlencoded::parse(body)
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .filter(|value| !value.is_empty())
            .ok_or_else(|| LoginError::missing(name))
    };
    let grant_type = field("grant_type")?;
    if grant_type != "client_credentials" {
        return Err(LoginError::unsupported_grant(&grant_type));
    }
    let client_id = field("client_id")?;
    let scope = field("scope")?;
    let Some(audience) = scope.strip_suffix("/.default") else {
        return Err(LoginError::invalid_scope(&scope));
    };
    if !client_id.eq_ignore_ascii_case(&simulation.client_id) {
        return Err(LoginError::unknown_client(&client_id, tenant));
    }
    if let Ok(assertion) = field("client_assertion") {
        let kind = field("client_assertion_type")?;
        if kind != JWT_BEARER {
            return Err(LoginError::unsupported_assertion(&kind));
        }
        check_assertion(simulation, tenant, request, &assertion)?;
    } else if field("client_secret")? != simulation.client_secret {
        return Err(LoginError::wrong_secret(&client_id));
    }
    let lifetime = simulation.token_lifetime;
    let token = simulation.tokens.lock().issue(audience, lifetime, SystemTime::now());
    Ok(json!({
        "token_type": "Bearer",
        "expires_in": lifetime.as_secs(),
        "ext_expires_in": lifetime.as_secs(),
        "access_token": token,
    }))
}

/// The kind of assertion that there is.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn check_assertion(simulation: &Simulation, tenant: &str, request: &Parts, assertion: &str) -> Result<(), LoginError> {
    let origins = [simulation.url.clone(), simulation.origin(&request.headers)];
    let endpoints: Vec<String> = origins
        .iter()
        .flat_map(|origin| [format!("{origin}/{tenant}/oauth2/v2.0/token"), format!("{origin}/{tenant}/v2.0")])
        .collect();
    let (client, now) = (&simulation.client_id, SystemTime::now());
    let checked = simulation.credentials.check(assertion, client, &endpoints, now);
    checked.map_err(|doubt| LoginError::doubtful(doubt, client, now))
}

fn is_tenant(simulation: &Simulation, tenant: &str) -> bool {
    tenant.eq_ignore_ascii_case(simulation.estate.tenant())
}

/// `url` is this server by the name that the client calls it, here and below: a login library compares it
/// with the authority that it was told.
fn open_id_configuration(simulation: &Simulation, url: &str) -> Value {
    let tenant = simulation.estate.tenant();
    json!({
        "token_endpoint": format!("{url}/{tenant}/oauth2/v2.0/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "jwks_uri": format!("{url}/{tenant}/discovery/v2.0/keys"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": format!("{url}/{tenant}/v2.0"),
        "authorization_endpoint": format!("{url}/{tenant}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{url}/{tenant}/oauth2/v2.0/devicecode"),
        "tenant_region_scope": "EU",
        "cloud_instance_name": "localhost",
    })
}

/// Tells a login library that this server is an authority that it may talk to.
fn instance(simulation: &Simulation, url: &str) -> Value {
    let tenant = simulation.estate.tenant();
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    json!({
        "tenant_discovery_endpoint": format!("{url}/{tenant}/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": [{
            "preferred_network": host,
            "preferred_cache": host,
            "aliases": [host],
        }],
    })
}

fn no_store(status: StatusCode, body: &Value) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "application/json; charset=utf-8"), (header::CACHE_CONTROL, "no-store, no-cache")];
    (status, headers, body.to_string()).into_response()
}

/// A refusal, in Entra ID's words.
struct LoginError {
    status: StatusCode,
    error: &'static str,
    number: u32,
    text: String,
}

impl LoginError {
    fn bad_request(error: &'static str, number: u32, text: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, number, text }
    }

    fn not_post(method: &Method) -> Self {
        let text = format!("The endpoint only accepts POST requests. Received a {method} request.");
        Self::bad_request("invalid_request", 900_561, text)
    }

    /// The token endpoint and the discovery document call the same thing by different names.
    fn unknown_tenant(error: &'static str, tenant: &str) -> Self {
        let text = format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
        );
        Self::bad_request(error, 90_002, text)
    }

    fn missing(field: &str) -> Self {
        let text = format!("The request body must contain the following parameter: '{field}'.");
        Self::bad_request("invalid_request", 900_144, text)
    }

    fn unsupported_grant(grant_type: &str) -> Self {
        let text = format!("The app requested an unsupported grant type '{grant_type}'.");
        Self::bad_request("unsupported_grant_type", 70_003, text)
    }

    fn invalid_scope(scope: &str) -> Self {
        let text = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
        );
        Self::bad_request("invalid_scope", 1_002_012, text)
    }

    fn unknown_client(client: &str, tenant: &str) -> Self {
        let text = format!(
            "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."
        );
        Self::bad_request("unauthorized_client", 700_016, text)
    }

    fn wrong_secret(client: &str) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            error: "invalid_client",
            number: 7_000_215,
            text: format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'."
            ),
        }
    }

    fn unsupported_assertion(kind: &str) -> Self {
        let text = format!("The client assertion type '{kind}' is not supported; it must be '{JWT_BEARER}'.");
        Self::bad_request("invalid_request", 50_027, text)
    }

    fn invalid_client(number: u32, text: String) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, error: "invalid_client", number, text }
    }

    /// What is wrong with a client assertion.
    fn doubtful(doubt: Doubt, client: &str, now: SystemTime) -> Self {
        let key = |reason: &str, thumbprint: &str| {
            format!(
                "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - {reason}, Thumbprint of key used by client: '{thumbprint}', Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app Id '{client}'.]"
            )
        };
        let time = |seconds| clock::entra(UNIX_EPOCH + Duration::from_secs(seconds));
        let (number, text) = match doubt {
            Doubt::Malformed => (50_027, "JWT token is invalid or malformed.".to_owned()),
            Doubt::NoThumbprint => {
                (50_027, "Invalid JWT token. No certificate thumbprint specified in token header.".to_owned())
            }
            Doubt::UnknownKey(thumbprint) => (700_027, key("The key was not found.", &thumbprint)),
            Doubt::BadSignature(thumbprint) => {
                (700_027, key("Key was found, but use of the key to verify the signature failed.", &thumbprint))
            }
            Doubt::OtherClient => {
                (700_021, "Client assertion application identifier doesn't match 'client_id' parameter.".to_owned())
            }
            Doubt::OtherAudience(audience) => {
                (700_023, format!("Client assertion audience claim '{audience}' does not match Realm issuer."))
            }
            Doubt::OutOfTime { from, until } => (
                700_024,
                format!(
                    "Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, expiry time of assertion {}.",
                    clock::entra(now),
                    time(from),
                    time(until)
                ),
            ),
            Doubt::NotFederated => {
                (70_021, "No matching federated identity record found for presented assertion.".to_owned())
            }
        };
        Self::invalid_client(number, text)
    }

    fn answer(self, simulation: &Simulation) -> Response {
        let time = clock::entra(SystemTime::now());
        let (trace, correlation) = (simulation.next_request_id(), simulation.next_request_id());
        let Self { status, error, number, text } = self;
        let body = json!({
            "error": error,
            "error_description": format!(
                "AADSTS{number}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}"
            ),
            "error_codes": [number],
            "timestamp": time,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("{}/error?code={number}", simulation.url),
        });
        no_store(status, &body)
    }
}
