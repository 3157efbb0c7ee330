//! Azure Resource Manager: who may pass, and what is answered.

use std::cell::Cell;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;

use super::activity_log;
use super::arm_error::ArmError;
use super::arm_request::{Known, Query, Target, is_api_version, is_guid};
use super::faults::{Absence, Ailment, Passage, Trouble};
use super::kind::Kind;
use super::listing::{self, Listing, PageFaults};
use super::pages::{self, Page, SkipTokens};
use super::providers::{Form, SetSome, sql};
use super::simulation::Simulation;
use super::subscription::SubscriptionState;
use super::tokens::{self, Refusal};

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
    let (response, slowness) = {
        let call = Call { simulation, request, target, slowness: Cell::default(), remaining: Cell::default() };
        let mut response = call.answer(query).unwrap_or_else(|error| {
            count_error(simulation, error.status());
            error.into_response()
        });
        call.tell_remaining(&mut response);
        (response, call.slowness.get())
    };
    if !slowness.is_zero() {
        tokio::time::sleep(slowness).await;
    }
    with_request_id(simulation, response)
}

pub(super) fn with_request_id(simulation: &Simulation, mut response: Response) -> Response {
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
        Target::Known(known) => {
            statistics.count_kind(known.kind);
            match known.kind {
                _ if !known.names.is_empty() => statistics.detail_requests += 1,
                Kind::NetworkSecurityGroup => statistics.nsg_list_requests += 1,
                _ => statistics.list_requests += 1,
            }
        }
        Target::Unknown { .. } | Target::Nothing => statistics.other_requests += 1,
    }
}

pub(super) fn count_error(simulation: &Simulation, status: StatusCode) {
    let mut statistics = simulation.statistics.lock();
    match status {
        StatusCode::UNAUTHORIZED => statistics.unauthorized += 1,
        StatusCode::FORBIDDEN => statistics.forbidden += 1,
        StatusCode::TOO_MANY_REQUESTS => statistics.throttled += 1,
        status if status.is_server_error() => statistics.failed += 1,
        _ => {}
    }
}

pub(super) fn count_page(simulation: &Simulation, is_cut_off: bool) {
    let mut statistics = simulation.statistics.lock();
    if is_cut_off {
        statistics.cut_off += 1;
    } else {
        statistics.pages_served += 1;
    }
}

/// One request on its way.
struct Call<'a> {
    simulation: &'a Simulation,
    request: &'a Parts,
    target: Target<'a>,
    /// How much longer the answer takes.
    slowness: Cell<Duration>,
    /// How many reads the client has left.
    remaining: Cell<Option<u64>>,
}

/// What is to be done to a page on its way out.
#[derive(Default)]
struct Blemish {
    cut_off: bool,
    foreign_origin: Option<String>,
}

/// A thing, or a list below one.
struct Located {
    /// The number of the last thing on the way; none for a list of the whole subscription.
    index: Option<usize>,
    /// The name of the one setting that is meant, out of all of a server.
    setting: Option<String>,
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
        self.check_rate()?;
        let mut blemish = self.pass_gate()?;

        let Some(id) = self.target.subscription() else {
            return match self.target {
                Target::Subscriptions => self.subscriptions(version, &query, &blemish),
                _ => Err(ArmError::no_subscription()),
            };
        };
        let subscription = self.find_subscription(id)?;
        self.meet_trouble(subscription, id, &mut blemish)?;
        match &self.target {
            Target::Known(known) => self.known(subscription, known, version, &query, &blemish),
            Target::Unknown { kind, .. } if kind.eq_ignore_ascii_case("eventtypes") => {
                Ok(activity_log::answer(self.simulation, subscription, self.request, blemish.cut_off))
            }
            Target::Unknown { namespace, kind, .. } => Err(ArmError::unknown_resource_type(kind, namespace, version)),
            _ => json(&self.simulation.estate.subscription(subscription), false),
        }
    }

    fn check_token(&self) -> Result<(), ArmError> {
        let simulation = self.simulation;
        let authority = format!("{}/{}", simulation.url, simulation.estate.tenant());
        let is_audience =
            |audience: &str| AUDIENCES.contains(&audience) || audience == simulation.url || self.is_host(audience);
        tokens::check(simulation, &self.request.headers, is_audience).map_err(|refusal| match refusal {
            Refusal::NoAuthorization => ArmError::no_authorization(&authority),
            Refusal::NotBearer => ArmError::not_a_bearer_token(&authority),
            Refusal::Unknown => ArmError::unknown_token(&authority),
            Refusal::Expired { at, now } => ArmError::expired_token(&authority, at, now),
            Refusal::WrongAudience(audience) => ArmError::wrong_audience(&authority, &audience, &AUDIENCES),
        })
    }

    /// Whether `audience` is this server, by the name that the client calls it.
    fn is_host(&self, audience: &str) -> bool {
        audience == self.simulation.origin(&self.request.headers)
    }

    /// The limit on reads, if there is one; without, there is always as much left as at the start.
    fn check_rate(&self) -> Result<(), ArmError> {
        const UNLIMITED: u64 = 249;
        let Some(limits) = &self.simulation.rate_limits else {
            self.remaining.set(Some(UNLIMITED));
            return Ok(());
        };
        let subscription = self.target.subscription().and_then(|id| self.simulation.estate.subscription_index(id));
        match limits.lock().take(subscription, Instant::now()) {
            Ok(remaining) => {
                self.remaining.set(Some(remaining));
                Ok(())
            }
            Err(retry_after) => {
                self.remaining.set(Some(0));
                Err(self.throttled_for(retry_after))
            }
        }
    }

    fn tell_remaining(&self, response: &mut Response) {
        let Some(remaining) = self.remaining.get() else { return };
        let names = match self.target.subscription() {
            Some(_) => {
                ["x-ms-ratelimit-remaining-subscription-reads", "x-ms-ratelimit-remaining-subscription-global-reads"]
            }
            None => ["x-ms-ratelimit-remaining-tenant-reads", "x-ms-ratelimit-remaining-tenant-global-reads"],
        };
        // All clients together have fifteen times as much.
        for (name, value) in names.into_iter().zip([remaining, remaining.saturating_mul(15)]) {
            response.headers_mut().insert(HeaderName::from_static(name), value.into());
        }
        if let Target::Known(known) = &self.target
            && known.kind.namespace() == "Microsoft.Compute"
        {
            let value = if known.is_one || !known.names.is_empty() {
                "Microsoft.Compute/LowCostGet3Min;3999,Microsoft.Compute/LowCostGet30Min;31999"
            } else {
                "Microsoft.Compute/HighCostGet3Min;237,Microsoft.Compute/HighCostGet30Min;1917"
            };
            let name = HeaderName::from_static("x-ms-ratelimit-remaining-resource");
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }

    /// The faults that do not depend on the subscription.
    fn pass_gate(&self) -> Result<Blemish, ArmError> {
        let (passage, slowness) = self.simulation.pass_gate();
        self.slowness.set(slowness);
        match passage {
            Passage::Pass => Ok(Blemish::default()),
            Passage::CutOff => Ok(Blemish { cut_off: true, ..Blemish::default() }),
            Passage::Throttle => Err(self.throttled()),
            Passage::Fail => Err(ArmError::internal()),
            Passage::Unavailable => Err(ArmError::unavailable()),
        }
    }

    fn throttled(&self) -> ArmError {
        let retry_after = self.simulation.gate.lock().faults().retry_after;
        self.throttled_for(retry_after)
    }

    fn throttled_for(&self, retry_after: u64) -> ArmError {
        let scope = match self.target.subscription() {
            Some(id) => format!("subscription '{id}'"),
            None => format!("tenant '{}'", self.simulation.estate.tenant()),
        };
        ArmError::throttled(&scope, &self.simulation.object_id, retry_after)
    }

    fn find_subscription(&self, id: &str) -> Result<usize, ArmError> {
        if !is_guid(id) {
            return Err(ArmError::invalid_subscription_id(id));
        }
        let estate = &self.simulation.estate;
        let index = estate.subscription_index(id);
        let there = index.filter(|index| {
            // A deleted one is known, but nothing can be read in it.
            estate.state(*index) != SubscriptionState::Deleted || matches!(self.target, Target::Subscription(_))
        });
        there.ok_or_else(|| ArmError::subscription_not_found(id))
    }

    fn meet_trouble(&self, subscription: usize, id: &str, blemish: &mut Blemish) -> Result<(), ArmError> {
        let trouble = self.simulation.gate.lock().meet_trouble(subscription);
        match trouble {
            None => {}
            Some(Trouble::Forbidden) => return Err(self.forbidden(id)),
            Some(Trouble::Throttled) => return Err(self.throttled()),
            Some(Trouble::Broken) => return Err(ArmError::internal()),
            Some(Trouble::CutOff) => blemish.cut_off = true,
            Some(Trouble::ForeignNextLink(origin)) => blemish.foreign_origin = Some(origin),
        }
        Ok(())
    }

    fn forbidden(&self, subscription: &str) -> ArmError {
        let (action, scope) = self.target.permission(subscription, self.request.uri.path());
        ArmError::forbidden(&self.simulation.client_id, &self.simulation.object_id, &action, &scope)
    }

    fn known(
        &self,
        subscription: usize,
        known: &Known<'_>,
        version: &str,
        query: &Query,
        blemish: &Blemish,
    ) -> Result<Response, ArmError> {
        let (kind, definition) = (known.kind, known.kind.definition());
        self.check_provider(subscription, known, version)?;
        let located = self.locate(subscription, known)?;
        let estate = &self.simulation.estate;
        let odd = listing::odd(self.simulation.gate.lock().faults(), kind);
        let render = |index: usize| {
            let mut body = Vec::new();
            listing::render(estate, subscription, kind, index, &odd, &mut body);
            body
        };
        match (definition.form, located.index) {
            (Form::Pages { .. } | Form::OnePage, parent) if !known.is_one => {
                self.list(subscription, kind, parent, version, query, blemish)
            }
            (Form::Settings, Some(server)) => match &located.setting {
                None => {
                    let settings = [br#"{"value":"#.as_slice(), &render(server), b"}"].concat();
                    Ok(answer_json(settings, blemish.cut_off))
                }
                Some(name) => {
                    let settings: Value = serde_json::from_slice(&render(server)).unwrap_or_default();
                    let setting = settings
                        .as_array()
                        .into_iter()
                        .flatten()
                        .find(|setting| setting["name"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(name)))
                        .ok_or_else(|| self.not_found(known))?;
                    json(setting, blemish.cut_off)
                }
            },
            (_, Some(index)) => {
                let mut body = render(index);
                let wants_view =
                    query.expand.as_deref().is_some_and(|expand| expand.eq_ignore_ascii_case("instanceView"));
                if kind == Kind::VirtualMachine && wants_view {
                    body = edited(&body, |machine| {
                        let view = estate.item(subscription, Kind::InstanceView, index);
                        if let Some(properties) = machine.get_mut("properties") {
                            properties.set("instanceView", Some(view));
                        }
                    });
                } else if kind == Kind::TransparentDataEncryption && version < "2020-02" {
                    body = edited(&body, sql::before_2020);
                }
                Ok(answer_json(body, blemish.cut_off))
            }
            (_, None) => Err(self.not_found(known)),
        }
    }

    fn check_provider(&self, subscription: usize, known: &Known<'_>, version: &str) -> Result<(), ArmError> {
        let (namespace, kind) = (known.kind.namespace(), known.kind.definition().types.join("/"));
        let gate = self.simulation.gate.lock();
        let faults = gate.faults();
        let absence = faults.absent.get(&(subscription, namespace.to_ascii_lowercase())).copied();
        let is_denied = faults.denied.contains(&(subscription, known.kind));
        drop(gate);
        match absence {
            Some(Absence::NotRegistered) => Err(ArmError::not_registered(namespace)),
            Some(Absence::NoNamespace) => Err(ArmError::unknown_namespace(namespace)),
            Some(Absence::NoType) => Err(ArmError::unknown_resource_type(&kind, namespace, version)),
            Some(Absence::NoProvider) => Err(ArmError::no_provider(namespace, &kind, version)),
            Some(Absence::Retired) => Err(ArmError::retired(namespace, &kind)),
            None if is_denied => Err(self.forbidden(known.subscription)),
            None => Ok(()),
        }
    }

    /// Goes down the names, looking at what is wrong with each thing on the way.
    fn locate(&self, subscription: usize, known: &Known<'_>) -> Result<Located, ArmError> {
        let estate = &self.simulation.estate;
        let mut way: Vec<Kind> = std::iter::successors(Some(known.kind), |kind| kind.parent()).collect();
        way.reverse();
        let (mut at, mut setting) = (None, None);
        for (depth, kind) in way.into_iter().enumerate() {
            let form = kind.definition().form;
            let parent = at;
            match (known.names.get(depth), form) {
                (None, _) => {}
                (Some(name), Form::Settings) => setting = Some((*name).to_owned()),
                (Some(name), Form::Detail(fixed)) => {
                    if !fixed.is_some_and(|fixed| name.eq_ignore_ascii_case(fixed)) {
                        return Err(self.not_found(known));
                    }
                }
                (Some(name), _) => {
                    let index = estate
                        .find(subscription, kind, at, name)
                        .filter(|index| depth > 0 || self.is_in_group(&estate.id(subscription, kind, *index)));
                    at = Some(index.ok_or_else(|| self.not_found(known))?);
                }
            }
            // What ails a list below a resource goes by the resource, and a list of all is never ill.
            let patient = if depth > 0 && !matches!(form, Form::Detail(_) | Form::Settings) { parent } else { at };
            if let Some(patient) = patient {
                self.examine(subscription, kind, patient, known)?;
            }
        }
        Ok(Located { index: at, setting })
    }

    fn examine(&self, subscription: usize, kind: Kind, number: usize, known: &Known<'_>) -> Result<(), ArmError> {
        let ailment = self.simulation.gate.lock().faults().ailment(subscription, kind, number);
        match ailment {
            None => Ok(()),
            Some(Ailment::Denied) => Err(self.forbidden(known.subscription)),
            Some(Ailment::Gone) => Err(self.not_found(known)),
            Some(Ailment::Broken) => Err(ArmError::internal()),
        }
    }

    /// Whether the path leads to the resource with this id, the resource group included.
    fn is_in_group(&self, id: &str) -> bool {
        let parts = |path: &str| -> Vec<String> {
            path.split('/').filter(|part| !part.is_empty()).map(str::to_ascii_lowercase).collect()
        };
        parts(self.request.uri.path()).starts_with(&parts(id))
    }

    fn not_found(&self, known: &Known<'_>) -> ArmError {
        let types = known.kind.definition().types;
        let resource: Vec<&str> = types.iter().zip(&known.names).flat_map(|(kind, name)| [*kind, *name]).collect();
        let mut parts =
            self.request.uri.path().split('/').skip_while(|part| !part.eq_ignore_ascii_case("resourceGroups"));
        let group = parts.nth(1).unwrap_or_default();
        ArmError::resource_not_found(&format!("{}/{}", known.kind.namespace(), resource.join("/")), group)
    }

    fn subscriptions(&self, version: &str, query: &Query, blemish: &Blemish) -> Result<Response, ArmError> {
        let estate = &self.simulation.estate;
        let total = estate.counts_where(|_| true).subscriptions;
        let tokens = estate.subscription_pages();
        let offset = self.offset(query, &tokens)?;
        let (range, next) = pages::cut(total, offset, self.simulation.page_size);
        let next_link = next.map(|next| self.link(None, version, query, "%24skiptoken", &tokens.encode(next)));
        let page = Page { value: range.map(|index| estate.subscription(index)).collect(), next_link };
        let response = json(&page, blemish.cut_off)?;
        count_page(self.simulation, blemish.cut_off);
        Ok(response)
    }

    fn list(
        &self,
        subscription: usize,
        kind: Kind,
        parent: Option<usize>,
        version: &str,
        query: &Query,
        blemish: &Blemish,
    ) -> Result<Response, ArmError> {
        let simulation = self.simulation;
        let size = simulation.page_size.min(query.top.unwrap_or(usize::MAX));
        let listing = Listing::new(&simulation.estate, subscription, kind, parent, size);
        let tokens = simulation.estate.pages(subscription, kind, parent.unwrap_or_default());
        let offset = self.offset(query, &tokens)?;
        let spelling = match kind.definition().form {
            Form::Pages { token, .. } => token,
            _ => "%24skiptoken",
        };
        let link = |origin, next| self.link(origin, version, query, spelling, &tokens.encode(next));
        let next = listing.next(offset);
        let next_link = match &blemish.foreign_origin {
            Some(origin) if offset == 0 => Some(link(Some(origin), next.unwrap_or(listing.total()))),
            _ => next.map(|next| link(None, next)),
        };
        let faults = PageFaults::of(simulation.gate.lock().faults(), kind);
        let body = listing.body(offset, next_link.as_deref(), &faults);
        count_page(simulation, blemish.cut_off);
        Ok(answer_json(body, blemish.cut_off))
    }

    fn link(&self, origin: Option<&String>, version: &str, query: &Query, spelling: &str, token: &str) -> String {
        let origin = origin.cloned().unwrap_or_else(|| self.simulation.origin(&self.request.headers));
        let path = self.request.uri.path();
        let top = query.top.map(|top| format!("&%24top={top}")).unwrap_or_default();
        format!("{origin}{path}?api-version={version}{top}&{spelling}={token}")
    }

    fn offset(&self, query: &Query, tokens: &SkipTokens) -> Result<usize, ArmError> {
        match &query.skip_token {
            Some(token) => self.simulation.read_skip_token(tokens, token).ok_or_else(ArmError::refused_page_token),
            None => Ok(0),
        }
    }
}

/// A body, changed as a whole.
fn edited(body: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = serde_json::from_slice(body).unwrap_or_default();
    edit(&mut value);
    value.to_string().into_bytes()
}

/// 200 with a JSON body, or with the first half of one.
fn json(value: &impl Serialize, cut_off: bool) -> Result<Response, ArmError> {
    match serde_json::to_vec(value) {
        Ok(body) => Ok(answer_json(body, cut_off)),
        Err(_) => Err(ArmError::internal()),
    }
}

/// 200 with this JSON body, or with the first half of it.
pub(super) fn answer_json(body: Vec<u8>, cut_off: bool) -> Response {
    let body = Bytes::from(body);
    let length = body.len();
    let body = if cut_off { half_of(body) } else { Body::from(body) };
    let headers = [
        (header::CONTENT_TYPE, "application/json; charset=utf-8".to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    (headers, body).into_response()
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
