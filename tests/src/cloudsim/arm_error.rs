//! Resource Manager's refusals, in its words. Clients match the codes; people read the messages.

use std::time::SystemTime;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::clock;
use super::providers::SetSome;

/// An answer other than 200.
#[derive(Debug)]
pub(super) struct ArmError {
    status: StatusCode,
    code: &'static str,
    message: String,
    header: Option<(HeaderName, String)>,
    /// What `details` repeats the error for.
    target: Option<&'static str>,
}

impl ArmError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None, target: None }
    }

    fn with(mut self, name: HeaderName, value: String) -> Self {
        self.header = Some((name, value));
        self
    }

    /// 401. `authority` is where a token can be had.
    fn unauthorized(authority: &str, code: &'static str, message: impl Into<String>, description: &str) -> Self {
        let challenge = format!(
            "Bearer authorization_uri=\"{authority}\", error=\"invalid_token\", error_description=\"{description}\""
        );
        Self::new(StatusCode::UNAUTHORIZED, code, message).with(header::WWW_AUTHENTICATE, challenge)
    }

    pub(super) fn no_authorization(authority: &str) -> Self {
        Self::unauthorized(
            authority,
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.",
            "The authentication failed because of missing 'Authorization' header.",
        )
    }

    pub(super) fn not_a_bearer_token(authority: &str) -> Self {
        let message = "Authentication failed. The 'Authorization' header is provided in an invalid format.";
        Self::unauthorized(authority, "AuthenticationFailedInvalidHeader", message, message)
    }

    pub(super) fn unknown_token(authority: &str) -> Self {
        let message = "The access token is invalid.";
        Self::unauthorized(authority, "InvalidAuthenticationToken", message, message)
    }

    pub(super) fn expired_token(authority: &str, expired: SystemTime, now: SystemTime) -> Self {
        let message = format!(
            "The access token expiry UTC time '{}' is earlier than current UTC time '{}'.",
            clock::resource_manager(expired),
            clock::resource_manager(now)
        );
        let description = message.clone();
        Self::unauthorized(authority, "ExpiredAuthenticationToken", message, &description)
    }

    pub(super) fn wrong_audience(authority: &str, audience: &str, allowed: &[&str]) -> Self {
        let message = format!(
            "The access token has been obtained for wrong audience or resource '{audience}'. It should exactly match with one of the allowed audiences '{}'.",
            allowed.join("','")
        );
        let description = "The access token has been obtained for wrong audience or resource.";
        Self::unauthorized(authority, "InvalidAuthenticationTokenAudience", message, description)
    }

    pub(super) fn missing_api_version() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        )
    }

    pub(super) fn invalid_api_version(version: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "InvalidApiVersionParameter",
            format!("The api-version '{version}' is invalid."),
        )
    }

    pub(super) fn invalid_subscription_id(id: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "InvalidSubscriptionId",
            format!("The provided subscription identifier '{id}' is malformed or invalid."),
        )
    }

    pub(super) fn subscription_not_found(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "SubscriptionNotFound", format!("The subscription '{id}' could not be found."))
    }

    pub(super) fn unknown_resource_type(kind: &str, namespace: &str, version: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "InvalidResourceType",
            format!(
                "The resource type '{kind}' could not be found in the namespace '{namespace}' for api version '{version}'."
            ),
        )
    }

    pub(super) fn resource_not_found(resource: &str, group: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ResourceNotFound",
            format!(
                "The Resource '{resource}' under resource group '{group}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
            ),
        )
    }

    pub(super) fn not_registered(namespace: &'static str) -> Self {
        let mut error = Self::new(
            StatusCode::CONFLICT,
            "MissingSubscriptionRegistration",
            format!(
                "The subscription is not registered to use namespace '{namespace}'. See https://aka.ms/rps-not-found for how to register subscriptions."
            ),
        );
        error.target = Some(namespace);
        error
    }

    pub(super) fn unknown_namespace(namespace: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "InvalidResourceNamespace",
            format!("The resource namespace '{namespace}' is invalid."),
        )
    }

    pub(super) fn no_provider(namespace: &str, kind: &str, version: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "NoRegisteredProviderFound",
            format!(
                "No registered resource provider found for location '' and API version '{version}' for type '{kind}' of '{namespace}'. The supported api-versions are ''. The supported locations are ''."
            ),
        )
    }

    pub(super) fn retired(namespace: &str, kind: &str) -> Self {
        Self::new(StatusCode::GONE, "Gone", format!("The resource type '{namespace}/{kind}' has been retired."))
    }

    pub(super) fn no_subscription() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MissingSubscription",
            "The request did not have a subscription or a valid tenant level resource provider.",
        )
    }

    pub(super) fn method_not_allowed(method: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            format!("The requested resource does not support http method '{method}'."),
        )
        .with(header::ALLOW, "GET".to_owned())
    }

    pub(super) fn forbidden(client: &str, object: &str, action: &str, scope: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "AuthorizationFailed",
            format!(
                "The client '{client}' with object id '{object}' does not have authorization to perform action '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials."
            ),
        )
    }

    pub(super) fn refused_page_token() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidSkipToken", "The provided skip token is invalid or has expired.")
    }

    /// `scope` is `subscription '<id>'` or `tenant '<id>'`.
    pub(super) fn throttled(scope: &str, actor: &str, retry_after: u64) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "SubscriptionRequestsThrottled",
            format!(
                "Number of 'read' requests for {scope} actor '{actor}' exceeded. Please try again after '{retry_after}' seconds after additional tokens are available. Refer to https://aka.ms/arm-throttling for additional information."
            ),
        )
        .with(header::RETRY_AFTER, retry_after.to_string())
    }

    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            "The server encountered an internal error. Please retry the request.",
        )
    }

    pub(super) fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServerUnavailable",
            "The server is currently unable to receive requests. Please retry your request.",
        )
    }

    /// The status, for the statistics.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for ArmError {
    fn into_response(self) -> Response {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(target) = self.target {
            let detail = json!({"code": self.code, "target": target, "message": self.message});
            error.set("details", Some(json!([detail])));
        }
        let body = json!({"error": error}).to_string();
        let headers = [
            (header::CONTENT_TYPE.as_str(), "application/json; charset=utf-8"),
            (header::CACHE_CONTROL.as_str(), "no-cache"),
            ("x-ms-failure-cause", "gateway"),
        ];
        let mut response = (self.status, headers, body).into_response();
        if let Some((name, value)) = self.header
            && let Ok(value) = HeaderValue::try_from(value)
        {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
