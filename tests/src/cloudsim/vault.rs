//! The data plane of Key Vault: what a vault lists of its keys and secrets. Real vaults have a host each;
//! these are folders of the one server, and for the rest behave like a service of their own: another
//! audience, other errors, and pages of at most 25.

use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::arm::{answer_json, count_error, count_page, with_request_id};
use super::arm_request::Query;
use super::faults::{Ailment, Passage, Trouble};
use super::kind::Kind;
use super::listing::{Listing, PageFaults};
use super::providers::{SetSome, key_vault};
use super::simulation::Simulation;
use super::tokens::{self, Refusal};

/// The audiences of the clouds; the first is the one that challenges name.
const AUDIENCES: [&str; 3] = ["https://vault.azure.net", "https://vault.azure.cn", "https://vault.usgovcloudapi.net"];

/// Most entries of a page, whatever the client asks for.
const LONGEST_PAGE: usize = 25;

/// A request to the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VaultPath<'a> {
    vault: &'a str,
    /// Keys or secrets; none for what this server does not have.
    kind: Option<Kind>,
}

impl<'a> VaultPath<'a> {
    /// None for a path that is not the data plane's.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        parts.next().filter(|first| first.eq_ignore_ascii_case("vaults"))?;
        let vault = parts.next()?;
        let kind = match (parts.next(), parts.next()) {
            (Some(kind), None) if kind.eq_ignore_ascii_case("keys") => Some(Kind::VaultKey),
            (Some(kind), None) if kind.eq_ignore_ascii_case("secrets") => Some(Kind::VaultSecret),
            _ => None,
        };
        Some(Self { vault, kind })
    }
}

/// Answers a request to the data plane.
pub(super) async fn answer(simulation: &Simulation, path: VaultPath<'_>, request: &Parts) -> Response {
    {
        let mut statistics = simulation.statistics.lock();
        statistics.vault_requests += 1;
        if let Some(kind) = path.kind {
            statistics.count_kind(kind);
        }
    }
    let latency = simulation.gate.lock().faults().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let mut slowness = Duration::ZERO;
    let mut response = list(simulation, path, request, &mut slowness).unwrap_or_else(|error| {
        count_error(simulation, error.status);
        error.into_response()
    });
    if !slowness.is_zero() {
        tokio::time::sleep(slowness).await;
    }
    response.headers_mut().insert("x-ms-keyvault-service-version", HeaderValue::from_static("1.9.1652.1"));
    with_request_id(simulation, response)
}

fn list(
    simulation: &Simulation,
    path: VaultPath<'_>,
    request: &Parts,
    slowness: &mut Duration,
) -> Result<Response, VaultError> {
    let estate = &simulation.estate;
    check_token(simulation, request)?;
    if request.method != Method::GET {
        let text = format!("HTTP method {} is not allowed on this resource.", request.method);
        return Err(VaultError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", text));
    }
    let query = Query::parse(request.uri.query().unwrap_or_default());
    let Some(version) = query.api_version.as_deref().filter(|version| !version.is_empty()) else {
        return Err(VaultError::bad_parameter("AKV10000: The api-version query parameter is missing."));
    };
    let (passage, more) = simulation.pass_gate();
    *slowness = more;
    let mut is_cut_off = match passage {
        Passage::Pass => false,
        Passage::CutOff => true,
        Passage::Throttle => return Err(VaultError::throttled(simulation)),
        Passage::Fail => return Err(VaultError::internal()),
        Passage::Unavailable => return Err(VaultError::unavailable()),
    };
    let not_found = || {
        let text = format!("A vault or an entry of it was not found: {}", request.uri.path());
        VaultError::new(StatusCode::NOT_FOUND, "NotFound", text)
    };
    let (subscription, vault) = estate.find_vault(path.vault).ok_or_else(not_found)?;
    let kind = path.kind.ok_or_else(not_found)?;
    let forbidden =
        || VaultError::forbidden(simulation, path.vault, kind, estate.variant(subscription, Kind::Vault, vault));
    let (trouble, is_denied, ailments) = {
        let mut gate = simulation.gate.lock();
        let trouble = gate.meet_trouble(subscription);
        let faults = gate.faults();
        let is_denied = faults.denied.contains(&(subscription, kind));
        (trouble, is_denied, [Kind::Vault, kind].map(|kind| faults.ailment(subscription, kind, vault)))
    };
    match trouble {
        Some(Trouble::Forbidden) => return Err(forbidden()),
        Some(Trouble::Throttled) => return Err(VaultError::throttled(simulation)),
        Some(Trouble::Broken) => return Err(VaultError::internal()),
        Some(Trouble::CutOff) => is_cut_off = true,
        Some(Trouble::ForeignNextLink(_)) | None => {}
    }
    if is_denied {
        return Err(forbidden());
    }
    if let Some(ailment) = ailments.into_iter().flatten().next() {
        return Err(match ailment {
            Ailment::Denied => forbidden(),
            Ailment::Gone => not_found(),
            Ailment::Broken => VaultError::internal(),
        });
    }

    let size = simulation.page_size.min(LONGEST_PAGE).min(query.top.unwrap_or(LONGEST_PAGE));
    let listing = Listing::new(estate, subscription, kind, Some(vault), size);
    let tokens = estate.pages(subscription, kind, vault);
    let offset = match &query.skip_token {
        Some(token) => simulation
            .read_skip_token(&tokens, token)
            .ok_or_else(|| VaultError::bad_parameter("The $skiptoken is invalid or has expired."))?,
        None => 0,
    };
    let next = listing.next(offset).map(|next| {
        let (origin, path, token) = (simulation.origin(&request.headers), request.uri.path(), tokens.encode(next));
        format!("{origin}{path}?api-version={version}&$skiptoken={token}&maxresults={size}")
    });
    let faults = PageFaults::of(simulation.gate.lock().faults(), kind);
    let body = listing.body(offset, next.as_deref(), &faults);
    count_page(simulation, is_cut_off);
    Ok(answer_json(body, is_cut_off))
}

/// Whoever comes without a token is told where to get one, and for what.
fn check_token(simulation: &Simulation, request: &Parts) -> Result<(), VaultError> {
    let is_audience = |audience: &str| AUDIENCES.contains(&audience);
    tokens::check(simulation, &request.headers, is_audience).map_err(|refusal| {
        let text = match refusal {
            Refusal::NoAuthorization | Refusal::NotBearer => {
                "AKV10000: Request is missing a Bearer or PoP token.".to_owned()
            }
            Refusal::Unknown => "AKV10001: The token cannot be read.".to_owned(),
            Refusal::Expired { .. } => "[TokenExpired] Error validating token: it has expired.".to_owned(),
            Refusal::WrongAudience(audience) => {
                format!("AKV10022: Invalid audience. Expected {}, found: {audience}.", AUDIENCES[0])
            }
        };
        let mut error = VaultError::new(StatusCode::UNAUTHORIZED, "Unauthorized", text);
        let origin = simulation.origin(&request.headers);
        error.challenge = Some(format!(
            "Bearer authorization=\"{origin}/{}\", resource=\"{}\"",
            simulation.estate.tenant(),
            AUDIENCES[0]
        ));
        error
    })
}

/// A refusal, in Key Vault's words.
struct VaultError {
    status: StatusCode,
    code: &'static str,
    message: String,
    inner: Option<&'static str>,
    challenge: Option<String>,
    retry_after: Option<u64>,
}

impl VaultError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), inner: None, challenge: None, retry_after: None }
    }

    fn bad_parameter(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadParameter", message)
    }

    /// A vault that goes by roles words it otherwise than one that has policies of its own.
    fn forbidden(simulation: &Simulation, vault: &str, kind: Kind, variant: usize) -> Self {
        let (client, object, tenant) = (&simulation.client_id, &simulation.object_id, simulation.estate.tenant());
        let (noun, action) = match kind {
            Kind::VaultKey => ("keys", "Microsoft.KeyVault/vaults/keys/read"),
            _ => ("secrets", "Microsoft.KeyVault/vaults/secrets/readMetadata/action"),
        };
        let (message, inner) = if key_vault::goes_by_roles(variant) {
            let message = format!(
                "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: appid={client};oid={object};iss=https://sts.windows.net/{tenant}/\r\nAction: '{action}'\r\nResource: '/{noun}'\r\nAssignment: (not found)\r\nVault: {vault};location=westeurope\r\n"
            );
            (message, "ForbiddenByRbac")
        } else {
            let message = format!(
                "The user, group or application 'appid={client};oid={object};iss=https://sts.windows.net/{tenant}/' does not have {noun} list permission on key vault '{vault};location=westeurope'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287"
            );
            (message, "AccessDenied")
        };
        Self { inner: Some(inner), ..Self::new(StatusCode::FORBIDDEN, "Forbidden", message) }
    }

    fn throttled(simulation: &Simulation) -> Self {
        let retry_after = simulation.gate.lock().faults().retry_after;
        let message = "Request was not processed because too many requests were received. Reduce the load by sending fewer requests.";
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "Throttled", message) }
    }

    fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "An internal error occurred.")
    }

    fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "The service is temporarily unavailable.")
    }
}

impl IntoResponse for VaultError {
    fn into_response(self) -> Response {
        let mut error: Value = json!({"code": self.code, "message": self.message});
        error.set("innererror", self.inner.map(|code| json!({"code": code})));
        let headers = [(header::CONTENT_TYPE, "application/json; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
        let mut response = (self.status, headers, json!({"error": error}).to_string()).into_response();
        let more = [
            (header::WWW_AUTHENTICATE, self.challenge),
            (header::RETRY_AFTER, self.retry_after.map(|seconds| seconds.to_string())),
        ];
        for (name, value) in more {
            if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_data_plane_are_told_from_others() {
        let path = |path| VaultPath::parse(path);
        assert_eq!(path("/vaults/kv-1/keys"), Some(VaultPath { vault: "kv-1", kind: Some(Kind::VaultKey) }));
        assert_eq!(path("/vaults/kv-1/Secrets"), Some(VaultPath { vault: "kv-1", kind: Some(Kind::VaultSecret) }));
        assert_eq!(path("/vaults/kv-1/secrets/a/1"), Some(VaultPath { vault: "kv-1", kind: None }));
        assert_eq!(path("/vaults/kv-1/certificates"), Some(VaultPath { vault: "kv-1", kind: None }));
        assert_eq!(path("/vaults"), None);
        assert_eq!(path("/subscriptions/x/providers/Microsoft.KeyVault/vaults"), None);
    }
}
