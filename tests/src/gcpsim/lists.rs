//! The lists of the Resource Manager and of Compute Engine: who may pass, and what is answered.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Map, Value, json};

use crate::cloudsim::pages::{SkipTokens, cut};

use super::access;
use super::faults::{Faults, Part, Passage, Place, Throttling, Trouble};
use super::filter::Filter;
use super::google_error::GoogleError;
use super::identities::HOME_NUMBER;
use super::project::{Project, add};
use super::request::{Query, Target};
use super::scopes::Service;
use super::simulation::Simulation;
use super::{firewall, instance};

/// Compute Engine's own limit of a page.
const DEFAULT_PAGE: usize = 500;

/// Answers a request for a page of a list.
pub(super) async fn answer(simulation: &Simulation, request: &Parts, target: Target) -> Response {
    count(simulation, &target);
    let latency = simulation.gate.lock().faults().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let service = match target {
        Target::Projects | Target::ProjectSearch => Service::ResourceManager,
        _ => Service::Compute,
    };
    let call = Call { simulation, request, target, service };
    call.answer().unwrap_or_else(|error| {
        access::count_error(simulation, &error);
        error.into_response()
    })
}

fn count(simulation: &Simulation, target: &Target) {
    let mut statistics = simulation.statistics.lock();
    match target {
        Target::Projects | Target::ProjectSearch => statistics.project_list_requests += 1,
        Target::Zones { .. } => statistics.zone_list_requests += 1,
        Target::Instances { .. } => statistics.instance_list_requests += 1,
        Target::AggregatedInstances { .. } => statistics.aggregated_list_requests += 1,
        Target::Firewalls { .. } => statistics.firewall_list_requests += 1,
        _ => statistics.other_requests += 1,
    }
}

/// A project as a list of version 1 gives it, odd or not.
pub(super) fn listed_project(simulation: &Simulation, faults: &Faults, index: usize) -> Value {
    let project = simulation.estate.project(index).v1();
    if faults.is_odd_project(index) { odd_project(project, index / faults.odd_projects_every) } else { project }
}

/// A firewall as its list gives it, odd or not.
pub(super) fn listed_firewall(
    simulation: &Simulation,
    faults: &Faults,
    site: &Project,
    project: usize,
    index: usize,
) -> Value {
    let firewall = simulation.estate.firewall(site, project, index);
    if faults.is_odd(index) { firewall::odd(firewall, index / faults.odd_every) } else { firewall }
}

/// An instance as its list gives it, odd or not.
pub(super) fn listed_instance(
    simulation: &Simulation,
    faults: &Faults,
    site: &Project,
    project: usize,
    zone: usize,
    index: usize,
) -> Value {
    let instance = simulation.estate.instance(site, project, zone, index);
    if faults.is_odd(index) { instance::odd(instance, index / faults.odd_every) } else { instance }
}

fn odd_project(mut project: Value, turn: usize) -> Value {
    let Some(fields) = project.as_object_mut() else { return project };
    match turn % 4 {
        0 => {
            fields.remove("projectId");
            fields.remove("projectNumber");
        }
        1 => return Value::Null,
        2 => {
            fields.insert("name".to_owned(), 17.into());
            fields.insert("labels".to_owned(), "none".into());
            fields.remove("lifecycleState");
        }
        _ => {
            fields.insert("projectId".to_owned(), json!({"id": "an object"}));
        }
    }
    project
}

/// One request on its way.
struct Call<'a> {
    simulation: &'a Simulation,
    request: &'a Parts,
    target: Target,
    service: Service,
}

/// What is to be done to a page on its way out.
#[derive(Default)]
struct Blemish {
    cut_off: bool,
    stall: Duration,
}

/// Where a page begins and ends, and the token of the next one.
struct Window {
    start: usize,
    end: usize,
    next: Option<String>,
}

impl Call<'_> {
    /// The checks in Google's order; the faults come after the token, as its quotas do.
    fn answer(&self) -> Result<Response, GoogleError> {
        if self.request.method != Method::GET {
            return Err(GoogleError::no_such_page(self.request.uri.path()));
        }
        let caller = access::check(self.simulation, self.request, self.service)?;
        let mut query = Query::parse(&self.target, self.service, self.request.uri.query().unwrap_or_default())?;
        query.return_partial_success |= self.asks_new_version();
        let mut blemish = self.pass_gate()?;
        // A copy, so that one page is of one mind about the faults.
        let faults = self.simulation.gate.lock().faults().clone();
        let is_blind = faults.blind.contains(&caller);
        let page = match &self.target {
            Target::Projects | Target::ProjectSearch => {
                self.meet_trouble(&[Place::ProjectList], HOME_NUMBER, "", &mut blemish)?;
                self.projects(&query, &faults, is_blind)?
            }
            Target::Zones { project } => {
                let (index, site) = self.enter(project, Part::Zones, is_blind, &mut blemish)?;
                self.zones(&query, &faults, index, &site)?
            }
            Target::Firewalls { project } => {
                let (index, site) = self.enter(project, Part::Firewalls, is_blind, &mut blemish)?;
                self.firewalls(&query, &faults, index, &site)?
            }
            Target::Instances { project, zone } => {
                let (index, site) = self.enter(project, Part::Instances, is_blind, &mut blemish)?;
                self.instances(&query, &faults, index, &site, zone)?
            }
            Target::AggregatedInstances { project } => {
                let (index, site) = self.enter(project, Part::Instances, is_blind, &mut blemish)?;
                self.aggregated_instances(&query, &faults, index, &site)?
            }
            _ => return Err(GoogleError::no_such_page(self.request.uri.path())),
        };
        let mut statistics = self.simulation.statistics.lock();
        if blemish.cut_off {
            statistics.cut_off += 1;
        } else {
            statistics.pages_served += 1;
        }
        drop(statistics);
        respond(&page, query.compact, &blemish)
    }

    /// Whether the client asks for a version of Compute Engine in which aggregated lists are always given
    /// without what cannot be reached; the parameter is gone there. Google's clients ask so since October 2026.
    fn asks_new_version(&self) -> bool {
        let version = self.request.headers.get("x-goog-api-version").and_then(|version| version.to_str().ok());
        version.is_some_and(|version| version >= "2026-09-01")
    }

    /// The faults that do not depend on the place.
    fn pass_gate(&self) -> Result<Blemish, GoogleError> {
        let mut gate = self.simulation.gate.lock();
        let (passage, expire) = gate.pass();
        let stall = gate.faults().stall_for;
        drop(gate);
        if expire {
            self.simulation.tokens.lock().expire();
        }
        match passage {
            Passage::Pass => Ok(Blemish::default()),
            Passage::CutOff => Ok(Blemish { cut_off: true, ..Blemish::default() }),
            Passage::Stall => Ok(Blemish { stall, ..Blemish::default() }),
            Passage::Throttle => Err(self.throttled(HOME_NUMBER)),
            Passage::Fail => Err(GoogleError::internal()),
            Passage::Unavailable => Err(GoogleError::unavailable()),
            Passage::BadGateway => Err(GoogleError::bad_gateway()),
        }
    }

    fn throttled(&self, number: &str) -> GoogleError {
        let gate = self.simulation.gate.lock();
        let faults = gate.faults();
        let as_forbidden = self.service == Service::Compute && faults.throttling == Throttling::RateLimitExceeded;
        GoogleError::throttled(self.service, number, as_forbidden, faults.retry_after)
    }

    /// Finds a project and looks whether the caller may read this part of it.
    fn enter(
        &self,
        id: &str,
        part: Part,
        is_blind: bool,
        blemish: &mut Blemish,
    ) -> Result<(usize, Project), GoogleError> {
        let estate = &self.simulation.estate;
        let index = estate.project_index(id).ok_or_else(|| GoogleError::project_not_found(id))?;
        let project = estate.project(index);
        if is_blind {
            return Err(GoogleError::denied(self.permission(), id));
        }
        if !project.is_active() {
            return Err(GoogleError::project_deleted(self.service, &project.number()));
        }
        let places = [Place::Part(index, part), Place::Project(index)];
        self.meet_trouble(&places, &project.number(), id, blemish)?;
        Ok((index, project))
    }

    /// The permission that reading it takes.
    fn permission(&self) -> &'static str {
        match self.target {
            Target::Zones { .. } => "compute.zones.list",
            Target::Firewalls { .. } => "compute.firewalls.list",
            _ => "compute.instances.list",
        }
    }

    fn meet_trouble(&self, places: &[Place], number: &str, id: &str, blemish: &mut Blemish) -> Result<(), GoogleError> {
        let trouble = self.simulation.gate.lock().meet_trouble(places);
        match trouble {
            None => Ok(()),
            Some(Trouble::Denied) if self.service == Service::Compute => {
                Err(GoogleError::denied(self.permission(), id))
            }
            Some(Trouble::Denied) => Err(GoogleError::projects_denied()),
            Some(Trouble::ApiDisabled) => Err(GoogleError::service_disabled(self.service, number)),
            Some(Trouble::Throttled) => Err(self.throttled(number)),
            Some(Trouble::Broken) => Err(GoogleError::internal()),
            Some(Trouble::CutOff) => {
                blemish.cut_off = true;
                Ok(())
            }
        }
    }

    fn projects(&self, query: &Query, faults: &Faults, is_blind: bool) -> Result<Value, GoogleError> {
        let estate = &self.simulation.estate;
        let is_search = self.target == Target::ProjectSearch;
        let field = if is_search { "query" } else { "filter" };
        let filter = Filter::parse(&query.filter)
            .ok_or_else(|| GoogleError::invalid_value(self.service, field, &query.filter, "Not an expression."))?;
        let listed: Vec<usize> = (0..estate.projects())
            .filter(|index| filter.is_empty() || filter.lets_through(&estate.project(*index)))
            .filter(|_| !is_blind)
            .collect();
        // Another filter is another list: a token of one does not fit the other.
        let mut hasher = DefaultHasher::new();
        (is_search, &query.filter).hash(&mut hasher);
        let window = self.window(query, faults, &[1, hasher.finish()], listed.len())?;
        let page = listed.get(window.start..window.end).unwrap_or_default().iter().map(|index| {
            if is_search { estate.project(*index).v3() } else { listed_project(self.simulation, faults, *index) }
        });
        let mut answer = json!({});
        add(&mut answer, "projects", not_empty(page.collect()));
        add(&mut answer, "nextPageToken", window.next.map(Value::from));
        Ok(answer)
    }

    fn zones(&self, query: &Query, faults: &Faults, project: usize, site: &Project) -> Result<Value, GoogleError> {
        let estate = &self.simulation.estate;
        let window = self.window(query, faults, &[2, project as u64], estate.zones().len())?;
        let zones = (window.start..window.end).filter_map(|zone| estate.zone(site, zone)).collect();
        Ok(compute_list("compute#zoneList", &format!("projects/{}/zones", site.id()), zones, window.next))
    }

    fn firewalls(&self, query: &Query, faults: &Faults, project: usize, site: &Project) -> Result<Value, GoogleError> {
        let total = self.simulation.estate.firewall_count(project);
        let window = self.window(query, faults, &[3, project as u64], total)?;
        let firewalls = (window.start..window.end)
            .map(|index| listed_firewall(self.simulation, faults, site, project, index))
            .collect();
        let id = format!("projects/{}/global/firewalls", site.id());
        Ok(compute_list("compute#firewallList", &id, firewalls, window.next))
    }

    fn instances(
        &self,
        query: &Query,
        faults: &Faults,
        project: usize,
        site: &Project,
        zone: &str,
    ) -> Result<Value, GoogleError> {
        let estate = &self.simulation.estate;
        let Some(number) = estate.zones().iter().position(|name| *name == zone) else {
            return Err(GoogleError::unknown_zone(zone));
        };
        if faults.unreachable_zones.contains(zone) {
            return Err(GoogleError::unreachable(zone));
        }
        let all = estate.instances_in(project, number);
        let window = self.window(query, faults, &[4, project as u64, number as u64], all.len())?;
        let instances = all
            .skip(window.start)
            .take(window.end - window.start)
            .map(|index| listed_instance(self.simulation, faults, site, project, number, index))
            .collect();
        let id = format!("projects/{}/zones/{zone}/instances", site.id());
        Ok(compute_list("compute#instanceList", &id, instances, window.next))
    }

    /// Every page has all zones: those without a machine on this page have a warning instead.
    fn aggregated_instances(
        &self,
        query: &Query,
        faults: &Faults,
        project: usize,
        site: &Project,
    ) -> Result<Value, GoogleError> {
        let estate = &self.simulation.estate;
        let is_unreachable = |zone: &&&str| faults.unreachable_zones.contains(**zone);
        if let Some(zone) = estate.zones().iter().find(is_unreachable)
            && !query.return_partial_success
        {
            return Err(GoogleError::unreachable(zone));
        }
        let reachable = |zone: usize, name: &str| {
            if faults.unreachable_zones.contains(name) { 0..0 } else { estate.instances_in(project, zone) }
        };
        let total = estate.zones().iter().enumerate().map(|(zone, name)| reachable(zone, name).len()).sum();
        let window = self.window(query, faults, &[5, project as u64], total)?;
        let mut items = Map::new();
        let mut passed = 0;
        for (zone, name) in estate.zones().iter().enumerate() {
            let all = reachable(zone, name);
            let (skip, end) = (window.start.saturating_sub(passed), window.end.saturating_sub(passed));
            passed += all.len();
            let instances: Vec<Value> = all
                .take(end)
                .skip(skip)
                .map(|index| listed_instance(self.simulation, faults, site, project, zone, index))
                .collect();
            let scope = format!("zones/{name}");
            let content = if !instances.is_empty() {
                json!({"instances": instances})
            } else if faults.unreachable_zones.contains(*name) {
                warning("UNREACHABLE", &format!("The scope '{scope}' is currently unreachable."), &scope)
            } else {
                warning(
                    "NO_RESULTS_ON_PAGE",
                    &format!("There are no results for scope '{scope}' on this page."),
                    &scope,
                )
            };
            items.insert(scope, content);
        }
        let id = format!("projects/{}/aggregated/instances", site.id());
        let mut answer = json!({
            "kind": "compute#instanceAggregatedList",
            "id": id,
            "items": items,
            "selfLink": format!("https://www.googleapis.com/compute/v1/{id}"),
        });
        let unreachable = estate.zones().iter().filter(is_unreachable).map(|zone| format!("zones/{zone}").into());
        add(&mut answer, "unreachables", not_empty(unreachable.collect()));
        add(&mut answer, "nextPageToken", window.next.map(Value::from));
        Ok(answer)
    }

    /// Which items of the list at `place` the page has.
    fn window(&self, query: &Query, faults: &Faults, place: &[u64], total: usize) -> Result<Window, GoogleError> {
        let tokens = self.simulation.estate.pages(place);
        let offset = match &query.page_token {
            Some(token) => self.read_page_token(&tokens, token)?,
            None => 0,
        };
        let size = query.page_size.unwrap_or(DEFAULT_PAGE).min(self.simulation.page_size);
        let (range, next) = cut(total, offset, size);
        // At least one step forward, or the list had no end.
        let next = next.map(|next| tokens.encode((next - faults.page_overlap.min(next)).max(offset + 1)));
        Ok(Window { start: range.start, end: range.end, next })
    }

    fn read_page_token(&self, tokens: &SkipTokens, token: &str) -> Result<usize, GoogleError> {
        match tokens.decode(token) {
            Some(offset) if !self.simulation.gate.lock().refuse_page_token() => Ok(offset),
            _ => {
                self.simulation.statistics.lock().page_tokens_refused += 1;
                Err(GoogleError::refused_page_token(self.service, token))
            }
        }
    }
}

/// A page of a list as Compute Engine wraps it. An empty one has no `items`.
fn compute_list(kind: &str, id: &str, items: Vec<Value>, next: Option<String>) -> Value {
    let link = format!("https://www.googleapis.com/compute/v1/{id}");
    let mut answer = json!({"kind": kind, "id": id, "selfLink": link});
    add(&mut answer, "items", not_empty(items));
    add(&mut answer, "nextPageToken", next.map(Value::from));
    answer
}

fn warning(code: &str, message: &str, scope: &str) -> Value {
    json!({"warning": {"code": code, "message": message, "data": [{"key": "scope", "value": scope}]}})
}

fn not_empty(items: Vec<Value>) -> Option<Value> {
    (!items.is_empty()).then_some(Value::Array(items))
}

/// 200 with a JSON body, on many lines unless the client wants it otherwise: so does Google.
fn respond(page: &Value, compact: bool, blemish: &Blemish) -> Result<Response, GoogleError> {
    let body = if compact { serde_json::to_vec(page) } else { serde_json::to_vec_pretty(page) };
    let body = Bytes::from(body.map_err(|_| GoogleError::internal())?);
    let length = body.len();
    let body = if blemish.cut_off {
        halves(body, Duration::ZERO, false)
    } else if !blemish.stall.is_zero() {
        halves(body, blemish.stall, true)
    } else {
        Body::from(body)
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json; charset=UTF-8".to_owned()),
        (header::CACHE_CONTROL, "private".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, body).into_response())
}

/// A body that comes in two halves, or that promises more than it gives. The pause lets the first half
/// leave before the connection is closed over the error.
fn halves(body: Bytes, pause: Duration, whole: bool) -> Body {
    let (first, second) = (body.slice(..body.len() / 2), body.slice(body.len() / 2..));
    let first = stream::once(async { Ok(first) });
    let then = stream::once(async move {
        tokio::task::yield_now().await;
        tokio::time::sleep(pause).await;
        if whole { Ok(second) } else { Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)) }
    });
    Body::from_stream(first.chain(then))
}
