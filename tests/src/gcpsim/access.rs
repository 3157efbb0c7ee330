//! Who calls, and whether the token is good for the service.

use std::time::SystemTime;

use axum::http::request::Parts;
use axum::http::{StatusCode, header};

use super::google_error::GoogleError;
use super::jwt::Jwt;
use super::scopes::{self, Service};
use super::simulation::Simulation;

/// The account that calls, by its address.
pub(super) fn check(simulation: &Simulation, request: &Parts, service: Service) -> Result<String, GoogleError> {
    let Some(value) = request.headers.get(header::AUTHORIZATION) else {
        return Err(GoogleError::no_credentials(service));
    };
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| GoogleError::bad_token(service))?;
    // Three parts make a JWT; Google's own tokens have a third part as well, but no head in JSON.
    let email = match Jwt::parse(token) {
        Some(jwt) => check_self_signed(simulation, request, service, &jwt)?,
        None => {
            let grant = simulation.tokens.lock().get(token).cloned();
            let grant = grant
                .filter(|grant| grant.expires > SystemTime::now())
                .ok_or_else(|| GoogleError::bad_token(service))?;
            if !service.is_open_to(&grant.scopes) {
                return Err(GoogleError::narrow_scope(service));
            }
            grant.email
        }
    };
    simulation.callers.lock().insert(email.clone());
    Ok(email)
}

/// Google's generated clients need no token endpoint: they sign for the service itself, naming either
/// the service or the scopes.
fn check_self_signed(
    simulation: &Simulation,
    request: &Parts,
    service: Service,
    jwt: &Jwt<'_>,
) -> Result<String, GoogleError> {
    let account = &simulation.identities.service_account;
    let (claims, bad) = (&jwt.claims, || GoogleError::bad_token(service));
    let is_own = claims.iss.as_ref() == Some(account) && claims.sub.as_ref() == Some(account);
    if !is_own || !jwt.is_signed_by(&simulation.identities.key) || !jwt.is_timely(SystemTime::now()) {
        return Err(bad());
    }
    match (&claims.scope, &claims.aud) {
        (Some(scope), _) => {
            let scopes = scopes::parse(scope.split_whitespace()).ok_or_else(bad)?;
            if !service.is_open_to(&scopes) {
                return Err(GoogleError::narrow_scope(service));
            }
        }
        (None, Some(audience)) => {
            let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            let origins = [format!("https://{}", service.host()), simulation.url.clone(), format!("http://{host}")];
            let names_service = origins.iter().any(|origin| {
                audience.strip_prefix(origin.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            if !names_service {
                return Err(bad());
            }
        }
        (None, None) => return Err(bad()),
    }
    simulation.statistics.lock().self_signed_requests += 1;
    Ok(account.clone())
}

/// Enters a refusal into the statistics.
pub(super) fn count_error(simulation: &Simulation, error: &GoogleError) {
    let mut statistics = simulation.statistics.lock();
    match error.status() {
        _ if error.is_throttling() => statistics.throttled += 1,
        StatusCode::UNAUTHORIZED => statistics.unauthorized += 1,
        StatusCode::FORBIDDEN => statistics.forbidden += 1,
        status if status.is_server_error() => statistics.failed += 1,
        _ => {}
    }
}
