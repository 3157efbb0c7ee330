//! Google's refusals, in its words. Clients match the codes and reasons; people read the messages.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::project::add;
use super::scopes::Service;

/// An answer other than 200.
#[derive(Debug)]
pub(super) struct GoogleError {
    status: StatusCode,
    canonical: &'static str,
    message: String,
    reason: &'static str,
    /// Whether it is about the use of the service, not about the request.
    of_usage: bool,
    details: Vec<Value>,
    retry_after: Option<u64>,
    html: bool,
}

impl GoogleError {
    fn new(status: StatusCode, canonical: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            canonical,
            message: message.into(),
            reason,
            of_usage: false,
            details: Vec::new(),
            retry_after: None,
            html: false,
        }
    }

    fn bad_request(canonical: &'static str, reason: &'static str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, canonical, reason, message)
    }

    fn forbidden(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", reason, message)
    }

    fn with(mut self, detail: Value) -> Self {
        self.details.push(detail);
        self
    }

    fn with_info(self, reason: &str, domain: &str, metadata: Value) -> Self {
        self.with(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": domain,
            "metadata": metadata,
        }))
    }

    fn of_usage(mut self) -> Self {
        self.of_usage = true;
        self
    }

    fn unauthenticated(service: Service, reason: &'static str, message: &str, info: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", reason, message).with_info(
            info,
            "googleapis.com",
            json!({"service": service.host()}),
        )
    }

    pub(super) fn no_credentials(service: Service) -> Self {
        Self::unauthenticated(
            service,
            "required",
            "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
            "CREDENTIALS_MISSING",
        )
    }

    /// Google does not tell an expired token from one that never was.
    pub(super) fn bad_token(service: Service) -> Self {
        Self::unauthenticated(
            service,
            "authError",
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
            "ACCESS_TOKEN_TYPE_UNSUPPORTED",
        )
    }

    pub(super) fn narrow_scope(service: Service) -> Self {
        Self::forbidden("insufficientPermissions", "Request had insufficient authentication scopes.").with_info(
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
            "googleapis.com",
            json!({"service": service.host()}),
        )
    }

    pub(super) fn denied(permission: &str, project: &str) -> Self {
        let resource = format!("projects/{project}");
        Self::forbidden("forbidden", format!("Required '{permission}' permission for '{resource}'")).with_info(
            "IAM_PERMISSION_DENIED",
            "compute.googleapis.com",
            json!({"permission": permission, "resource": resource}),
        )
    }

    pub(super) fn projects_denied() -> Self {
        Self::forbidden("forbidden", "The caller does not have permission")
    }

    pub(super) fn impersonation_denied() -> Self {
        let permission = "iam.serviceAccounts.getAccessToken";
        let message = format!("Permission '{permission}' denied on resource (or it may not exist).");
        Self::forbidden("forbidden", message).with_info(
            "IAM_PERMISSION_DENIED",
            "iam.googleapis.com",
            json!({"permission": permission}),
        )
    }

    /// `number` is the project that pays for the call.
    pub(super) fn service_disabled(service: Service, number: &str) -> Self {
        let (host, title) = (service.host(), service.title());
        let link = format!("https://console.developers.google.com/apis/api/{host}/overview?project={number}");
        let message = format!(
            "{title} has not been used in project {number} before or it is disabled. Enable it by visiting {link} then retry. If you enabled this API recently, wait a few minutes for the action to propagate to our systems and retry."
        );
        Self::forbidden("accessNotConfigured", message)
            .of_usage()
            .with(json!({
                "@type": "type.googleapis.com/google.rpc.Help",
                "links": [{"description": "Google developers console API activation", "url": link}],
            }))
            .with_info(
                "SERVICE_DISABLED",
                "googleapis.com",
                json!({
                    "consumer": format!("projects/{number}"),
                    "service": host,
                    "serviceTitle": title,
                    "containerInfo": number,
                    "activationUrl": link,
                }),
            )
    }

    pub(super) fn project_deleted(service: Service, number: &str) -> Self {
        Self::forbidden("forbidden", format!("Project #{number} has been deleted."))
            .with(json!({
                "@type": "type.googleapis.com/google.rpc.Help",
                "links": [{
                    "description": "Google developers console",
                    "url": "https://console.developers.google.com",
                }],
            }))
            .with_info(
                "CONSUMER_INVALID",
                "googleapis.com",
                json!({"consumer": format!("projects/{number}"), "service": service.host()}),
            )
    }

    /// Compute Engine's own way is 403; the other services answer 429, as it may one day.
    pub(super) fn throttled(service: Service, number: &str, as_forbidden: bool, retry_after: Option<u64>) -> Self {
        let host = service.host();
        let (metric, limit, name) = match service {
            Service::Compute => ("List requests", "List requests per minute", "list_requests_per_minute"),
            _ => ("Read requests", "Read requests per minute", "read_requests"),
        };
        let message = format!(
            "Quota exceeded for quota metric '{metric}' and limit '{limit}' of service '{host}' for consumer 'project_number:{number}'."
        );
        let (status, canonical) = if as_forbidden {
            (StatusCode::FORBIDDEN, "PERMISSION_DENIED")
        } else {
            (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED")
        };
        let mut error = Self::new(status, canonical, "rateLimitExceeded", message).of_usage().with_info(
            "RATE_LIMIT_EXCEEDED",
            "googleapis.com",
            json!({
                "consumer": format!("projects/{number}"),
                "quota_limit": "ReadRequestsPerMinutePerProject",
                "quota_limit_value": "1500",
                "quota_location": "global",
                "quota_metric": format!("{host}/{name}"),
                "service": host,
            }),
        );
        error.retry_after = retry_after;
        error
    }

    pub(super) fn project_not_found(project: &str) -> Self {
        let message = format!("The resource 'projects/{project}' was not found");
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "notFound", message)
    }

    pub(super) fn unknown_zone(zone: &str) -> Self {
        Self::bad_request(
            "INVALID_ARGUMENT",
            "invalid",
            format!("Invalid value for field 'zone': '{zone}'. Unknown zone."),
        )
    }

    /// A parameter that has the wrong value. Compute Engine says which.
    pub(super) fn invalid_value(service: Service, field: &str, value: &str, why: &str) -> Self {
        match service {
            Service::Compute => Self::bad_request(
                "INVALID_ARGUMENT",
                "invalid",
                format!("Invalid value for field '{field}': '{value}'. {why}"),
            ),
            _ => {
                Self::bad_request("INVALID_ARGUMENT", "badRequest", "Request contains an invalid argument.".to_owned())
                    .with(json!({
                        "@type": "type.googleapis.com/google.rpc.BadRequest",
                        "fieldViolations": [{"field": field, "description": why}],
                    }))
            }
        }
    }

    pub(super) fn refused_page_token(service: Service, token: &str) -> Self {
        Self::invalid_value(service, "pageToken", token, "The page token is invalid or has expired.")
    }

    pub(super) fn unknown_parameter(name: &str) -> Self {
        let description = format!(
            "Invalid JSON payload received. Unknown name \"{name}\": Cannot bind query parameter. Field '{name}' could not be found in request message."
        );
        Self::bad_request("INVALID_ARGUMENT", "invalid", description.clone()).with(json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"description": description}],
        }))
    }

    /// A zone that should be listed and does not answer.
    pub(super) fn unreachable(zone: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            "backendError",
            format!("The zone '{zone}' is currently unreachable. Please try again."),
        )
    }

    pub(super) fn internal() -> Self {
        let message = "Internal error encountered.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "backendError", message)
    }

    pub(super) fn unavailable() -> Self {
        let message = "The service is currently unavailable.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "backendError", message)
    }

    /// The front end speaks HTML.
    pub(super) fn bad_gateway() -> Self {
        let message = "The server encountered a temporary error and could not complete your request.";
        Self::new(StatusCode::BAD_GATEWAY, "UNAVAILABLE", "backendError", message).in_html()
    }

    pub(super) fn no_such_page(path: &str) -> Self {
        let message = format!("The requested URL {path} was not found on this server.");
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "notFound", message).in_html()
    }

    fn in_html(mut self) -> Self {
        self.html = true;
        self
    }

    /// The status, for the statistics.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether it says that there were too many requests.
    pub(super) fn is_throttling(&self) -> bool {
        self.reason == "rateLimitExceeded"
    }

    fn body(&self) -> String {
        let code = self.status.as_u16();
        if self.html {
            let escaped = self.message.replace('&', "&amp;").replace('<', "&lt;");
            return format!("<!DOCTYPE html>\n<html lang=en>\n<title>Error {code}</title>\n<p>{escaped}\n");
        }
        let domain = if self.of_usage { "usageLimits" } else { "global" };
        let mut item = json!({"message": self.message, "domain": domain, "reason": self.reason});
        if self.status == StatusCode::UNAUTHORIZED {
            add(&mut item, "location", Some("Authorization".into()));
            add(&mut item, "locationType", Some("header".into()));
        }
        let mut error = json!({
            "code": code,
            "message": self.message,
            "errors": [item],
            "status": self.canonical,
        });
        add(&mut error, "details", (!self.details.is_empty()).then(|| self.details.clone().into()));
        format!("{:#}\n", json!({"error": error}))
    }
}

impl IntoResponse for GoogleError {
    fn into_response(self) -> Response {
        let kind = if self.html { "text/html; charset=UTF-8" } else { "application/json; charset=UTF-8" };
        let mut response = (self.status, [(header::CONTENT_TYPE, kind)], self.body()).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = "Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\"";
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
