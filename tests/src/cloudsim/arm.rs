//! Azure Resource Manager: who may pass, and what is answered.

use std::time::SystemTime;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Serialize;

use super::arm_error::ArmError;
use super::arm_request::{Query, Target, is_api_version, is_guid};
use super::faults::{Passage, Trouble};
use super::pages::{self, Page, SkipTokens};
use super::simulation::Simulation;

/// The services that a token may be for; with the server's own address, for clients that derive the
/// scope from the endpoint.
const AUDIENCES: [&str; 6] = [
    "https://management.core.windows.net",
    "https://management.azure.com",
    "https://management.chinacloudapi.cn",
    "https://management.core.chinacloudapi.cn",
    "https://management.core.usgovcloudapi.net",
    "https://management.usgovcloudapi.net",
];

/// Answers a request to Resource Manager.
pub(super) async fn answer(simulation: &Simulation, request: &Parts) -> Response {
    let target = Target::parse(request.uri.path());
    count(simulation, &target);
    let latency = simulation.gate.lock().faults().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let query = Query::parse(request.uri.query().unwrap_or_default());
    let call = Call { simulation, request, target };
    let mut response = call.answer(query).unwrap_or_else(|error| {
        count_error(simulation, &error);
        error.into_response()
    });
    for name in ["x-ms-request-id", "x-ms-correlation-request-id"] {
        if let Ok(value) = HeaderValue::try_from(simulation.next_request_id()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn count(simulation: &Simulation, target: &Target<'_>) {
    let mut statistics = simulation.statistics.lock();
    match target {
        Target::Subscriptions => statistics.subscription_list_requests += 1,
        Target::Subscription(_) => statistics.subscription_requests += 1,
        Target::NetworkSecurityGroups(_) => statistics.nsg_list_requests += 1,
        Target::Unknown { .. } | Target::Nothing => statistics.other_requests += 1,
    }
}

fn count_error(simulation: &Simulation, error: &ArmError) {
    let mut statistics = simulation.statistics.lock();
    match error.status() {
        StatusCode::UNAUTHORIZED => statistics.unauthorized += 1,
        StatusCode::FORBIDDEN => statistics.forbidden += 1,
        StatusCode::TOO_MANY_REQUESTS => statistics.throttled += 1,
        status if status.is_server_error() => statistics.failed += 1,
        _ => {}
    }
}

/// One request on its way.
struct Call<'a> {
    simulation: &'a Simulation,
    request: &'a Parts,
    target: Target<'a>,
}

/// What is to be done to a page on its way out.
#[derive(Default)]
struct Blemish {
    cut_off: bool,
    foreign_origin: Option<String>,
}

impl Call<'_> {
    /// The checks in Resource Manager's order; the faults come after the token, as its throttling does.
    fn answer(&self, query: Query) -> Result<Response, ArmError> {
        if self.request.method != Method::GET {
            return Err(ArmError::method_not_allowed(self.request.method.as_str()));
        }
        let version = query
            .api_version
            .as_deref()
            .filter(|version| !version.is_empty())
            .ok_or_else(ArmError::missing_api_version)?;
        if !is_api_version(version) {
            return Err(ArmError::invalid_api_version(version));
        }
        self.check_token()?;
        let mut blemish = self.pass_gate()?;

        let Some(id) = self.target.subscription() else {
            return match self.target {
                Target::Subscriptions => {
                    let estate = &self.simulation.estate;
                    let total = estate.counts_where(|_| true).subscriptions;
                    let tokens = estate.subscription_pages();
                    let item = |index| estate.subscription(index);
                    self.page(version, query.skip_token.as_deref(), &blemish, total, &tokens, item)
                }
                _ => Err(ArmError::no_subscription()),
            };
        };
        let subscription = self.find_subscription(id)?;
        self.meet_trouble(subscription, id, &mut blemish)?;
        let estate = &self.simulation.estate;
        match self.target {
            Target::NetworkSecurityGroups(_) => {
                let total = estate.counts_of(subscription).nsgs;
                let tokens = estate.nsg_pages(subscription);
                let item = |index| estate.nsg(subscription, index);
                self.page(version, query.skip_token.as_deref(), &blemish, total, &tokens, item)
            }
            Target::Unknown { namespace, kind, .. } => Err(ArmError::unknown_resource_type(kind, namespace, version)),
            _ => json(&estate.subscription(subscription), false),
        }
    }

    fn check_token(&self) -> Result<(), ArmError> {
        let simulation = self.simulation;
        let authority = format!("{}/{}", simulation.url, simulation.estate.tenant());
        let Some(value) = self.request.headers.get(header::AUTHORIZATION) else {
            return Err(ArmError::no_authorization(&authority));
        };
        let token = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| ArmError::not_a_bearer_token(&authority))?;
        let grant = simulation.tokens.lock().get(token).cloned().ok_or_else(|| ArmError::unknown_token(&authority))?;
        let now = SystemTime::now();
        if grant.expires <= now {
            return Err(ArmError::expired_token(&authority, grant.expires, now));
        }
        let audience = grant.audience.trim_end_matches('/');
        if AUDIENCES.contains(&audience) || audience == simulation.url || self.is_host(audience) {
            Ok(())
        } else {
            Err(ArmError::wrong_audience(&authority, audience, &AUDIENCES))
        }
    }

    /// Whether `audience` is this server, by the name that the client calls it.
    fn is_host(&self, audience: &str) -> bool {
        audience == self.origin()
    }

    /// The server's own origin, by the name that the client calls it: a client that asked `localhost`
    /// must not be sent to `127.0.0.1`, which is another origin.
    fn origin(&self) -> String {
        self.request
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .map_or_else(|| self.simulation.url.clone(), |host| format!("http://{host}"))
    }

    /// The faults that do not depend on the subscription.
    fn pass_gate(&self) -> Result<Blemish, ArmError> {
        let (passage, expire) = self.simulation.gate.lock().pass();
        if expire {
            self.simulation.expire_tokens();
        }
        match passage {
            Passage::Pass => Ok(Blemish::default()),
            Passage::CutOff => Ok(Blemish { cut_off: true, ..Blemish::default() }),
            Passage::Throttle => Err(self.throttled()),
            Passage::Fail => Err(ArmError::internal()),
            Passage::Unavailable => Err(ArmError::unavailable()),
        }
    }

    fn throttled(&self) -> ArmError {
        let simulation = self.simulation;
        let scope = match self.target.subscription() {
            Some(id) => format!("subscription '{id}'"),
            None => format!("tenant '{}'", simulation.estate.tenant()),
        };
        let retry_after = simulation.gate.lock().faults().retry_after;
        ArmError::throttled(&scope, &simulation.object_id, retry_after)
    }

    fn find_subscription(&self, id: &str) -> Result<usize, ArmError> {
        if !is_guid(id) {
            return Err(ArmError::invalid_subscription_id(id));
        }
        let index = self.simulation.estate.subscription_index(id);
        index.ok_or_else(|| ArmError::subscription_not_found(id))
    }

    fn meet_trouble(&self, subscription: usize, id: &str, blemish: &mut Blemish) -> Result<(), ArmError> {
        let simulation = self.simulation;
        let trouble = simulation.gate.lock().meet_trouble(subscription);
        match trouble {
            None => {}
            Some(Trouble::Forbidden) => {
                let (action, scope) = self.target.permission(id);
                let (client, object) = (&simulation.client_id, &simulation.object_id);
                return Err(ArmError::forbidden(client, object, &action, &scope));
            }
            Some(Trouble::Throttled) => return Err(self.throttled()),
            Some(Trouble::Broken) => return Err(ArmError::internal()),
            Some(Trouble::CutOff) => blemish.cut_off = true,
            Some(Trouble::ForeignNextLink(origin)) => blemish.foreign_origin = Some(origin),
        }
        Ok(())
    }

    fn page<T: Serialize>(
        &self,
        version: &str,
        skip_token: Option<&str>,
        blemish: &Blemish,
        total: usize,
        tokens: &SkipTokens,
        item: impl Fn(usize) -> T,
    ) -> Result<Response, ArmError> {
        let offset = match skip_token {
            Some(token) => self.read_skip_token(tokens, token)?,
            None => 0,
        };
        let (range, next) = pages::cut(total, offset, self.simulation.page_size);
        let link = |origin: &str, offset| {
            let path = self.request.uri.path();
            let token = tokens.encode(offset);
            format!("{origin}{path}?api-version={version}&%24skiptoken={token}")
        };
        let next_link = match &blemish.foreign_origin {
            Some(origin) if offset == 0 => Some(link(origin, next.unwrap_or(total))),
            _ => next.map(|next| link(&self.origin(), next)),
        };
        let page = Page { value: range.map(item).collect(), next_link };
        let response = json(&page, blemish.cut_off)?;
        let mut statistics = self.simulation.statistics.lock();
        if blemish.cut_off {
            statistics.cut_off += 1;
        } else {
            statistics.pages_served += 1;
        }
        Ok(response)
    }

    fn read_skip_token(&self, tokens: &SkipTokens, token: &str) -> Result<usize, ArmError> {
        let offset = tokens.decode(token);
        match offset {
            Some(offset) if !self.simulation.gate.lock().refuse_page_token() => Ok(offset),
            _ => {
                self.simulation.statistics.lock().page_tokens_refused += 1;
                Err(ArmError::refused_page_token())
            }
        }
    }
}

/// 200 with a JSON body, or with the first half of one.
fn json(value: &impl Serialize, cut_off: bool) -> Result<Response, ArmError> {
    let Ok(body) = serde_json::to_vec(value) else {
        return Err(ArmError::internal());
    };
    let body = Bytes::from(body);
    let length = body.len();
    let body = if cut_off { half_of(body) } else { Body::from(body) };
    let headers = [
        (header::CONTENT_TYPE, "application/json; charset=utf-8".to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, body).into_response())
}

/// A body that promises more than it gives. The pause lets the first half leave before the connection
/// is closed over the error.
fn half_of(body: Bytes) -> Body {
    let half = body.slice(..body.len() / 2);
    let first = stream::once(async { Ok(half) });
    let then = stream::once(async {
        tokio::task::yield_now().await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
    });
    Body::from_stream(first.chain(then))
}
