//! The plugin `AzActivityLog`: what was done in the subscriptions of a tenant, as the Activity Log has it.
//!
//! The root lists the subscriptions and leads to the first window of each. A subscription's windows are read one after
//! the other, the oldest first, in units of some pages each.
//!
//! Reference: <https://learn.microsoft.com/rest/api/monitor/activity-logs/list>. The filter takes times and little
//! else, so what is kept is chosen here.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use proto::catalogue::{ParamError, PluginClass};
use proto::checkpoint::{self, Checkpoints, Reached};
use proto::coverage::{Coverage, State};
use proto::plan::Stage;
use proto::subject::Role;
use proto::unit::{ROOT, Unit};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use url::Url;

use super::arm::{Api, Refusal};
use super::engine::BuildError;
use super::list::{Next, Page};
use super::params::{AzureParams, Settings};
use super::sign_in::SignIn;
use super::subscription::{self, Subscription};
use crate::activity::form::{Activity, Actor, Kind, Outcome, Reader, Resource, Values, time};
use crate::activity::keep::{ACTIVITY_LOG, Event, Keep, Matcher};
use crate::activity::window::{self, Span, Windows, moment};
use crate::activity::{TYPE, defaults};
use crate::cloud::{Cloud, Done, PATIENCE, Pause, WorkError};
use crate::emit::{Draft, Emitter};
use crate::fields::Fields;
use crate::http::{Answer, Client, Expected, Timeouts};
use crate::registry::Context;
use crate::tally::{Tally, unit_id};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.azactivitylog.AzActivityLog",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(&|params| read(params).map(drop)),
};

/// The cloud, in `ext` and in `com`.
const CLOUD: &str = "azure";
const PATH: &str = "/providers/Microsoft.Insights/eventtypes/management/values";
const API_VERSION: &str = "2015-04-01";
/// Most pages of a unit.
const MOST_PAGES: u32 = 20;
/// Most pages of the list of subscriptions: the list is the tenant's.
const MOST_SUBSCRIPTION_PAGES: u32 = 10_000;
/// How long the rest of a unit waits after something failed in passing.
const REST_WAIT: Duration = Duration::from_secs(1);

/// The parameters that it has beside those of all of Azure's plugins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogParams {
    #[serde(default)]
    keep: Option<Keep>,
    #[serde(default, deserialize_with = "window::duration")]
    reach: Option<Duration>,
    #[serde(default, deserialize_with = "window::duration")]
    overlap: Option<Duration>,
    #[serde(default, deserialize_with = "window::duration")]
    window: Option<Duration>,
}

const OWN: [&str; 4] = ["keep", "reach", "overlap", "window"];

struct Parts {
    azure: AzureParams,
    matcher: Matcher,
    windows: Windows,
}

fn read(params: &Value) -> Result<Parts, Vec<ParamError>> {
    let (own, rest) = match params {
        Value::Object(all) => {
            let (own, rest): (Map<_, _>, Map<_, _>) =
                all.clone().into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
            (Value::Object(own), Value::Object(rest))
        }
        other => (Value::Null, other.clone()),
    };
    let mut errors = Vec::new();
    let azure = AzureParams::read(&rest, &[TYPE]).map_err(|more| errors.extend(more)).ok();
    let own: Option<LogParams> = proto::config::params::read(&own).map_err(|more| errors.extend(more)).ok();
    let parts = own.and_then(|own| {
        let windows = Windows { reach: own.reach, overlap: own.overlap, window: own.window };
        errors.extend(windows.check());
        let keep = own.keep.unwrap_or_else(defaults::activity_log);
        let matcher = Matcher::new(&keep, &ACTIVITY_LOG).map_err(|more| errors.extend(more)).ok()?;
        Some(Parts { azure: azure?, matcher, windows })
    });
    errors.sort_by(|one, other| one.path.cmp(&other.path));
    parts.filter(|_| errors.is_empty()).ok_or(errors)
}

/// Builds the plugin of its parameters, expanded. Nothing is asked of the network yet.
///
/// # Errors
/// When the parameters are not as they should be, or TLS cannot be set up.
pub(super) fn build(params: &Value, context: &Context) -> Result<Arc<dyn Cloud>, BuildError> {
    let Parts { azure, matcher, windows } = read(params).map_err(BuildError::Params)?;
    let settings = azure.settings().map_err(BuildError::Params)?;
    let endpoints = &settings.endpoints;
    let direct = endpoints.arm.is_loopback() || endpoints.login.is_loopback();
    let http =
        Client::new(Timeouts::default(), direct, Arc::clone(&context.limits))?.with_concurrency(settings.concurrency);
    let (credential, login) = (settings.credential.clone(), endpoints.login.clone());
    let sign_in = SignIn::new(credential, login, endpoints.arm_scope.clone(), http.clone())?;
    Ok(Arc::new(ActivityLog {
        api: Api::new(http, sign_in),
        settings,
        matcher,
        windows,
        reader: Reader::new(PATHS),
        page_size: Expected::new(512 * 1024),
        list_size: Expected::new(256 * 1024),
    }))
}

/// The plugin at work.
struct ActivityLog {
    settings: Settings,
    api: Api,
    matcher: Matcher,
    windows: Windows,
    reader: Reader<22>,
    /// How large answers are.
    page_size: Expected,
    list_size: Expected,
}

/// What a unit of a window carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WindowTask {
    subscription: Subscription,
    #[serde(flatten)]
    span: Span,
    /// The page's number, from 1.
    page: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

impl WindowTask {
    fn unit(&self, parent: &Unit, restart: u32) -> Result<Unit, WorkError> {
        let window = moment(self.span.from).to_string();
        let scope = &self.subscription.id;
        let id = unit_id(TYPE, &format!("{scope}/{window}"), restart, self.page);
        Ok(Unit { list: Some(window), ..parent.child(id, scope, TYPE, to_raw(self)?) })
    }
}

#[async_trait]
impl Cloud for ActivityLog {
    async fn work(&self, unit: &Unit, out: &mut Emitter) -> Result<Done, WorkError> {
        if unit.id == ROOT {
            return self.subscriptions(unit).await;
        }
        let task = serde_json::from_str(unit.task.get())
            .map_err(|error| failed(format!("the unit {} is not one of AzActivityLog's: {error}", unit.id)))?;
        self.window(unit, task, out).await
    }

    fn unread(&self, unit: &Unit, own: Coverage) -> Vec<Coverage> {
        match serde_json::from_str::<WindowTask>(unit.task.get()) {
            Ok(task) => vec![window::missing(own, &task.span)],
            Err(_) => vec![own],
        }
    }

    fn patience(&self) -> Duration {
        self.settings.patience.unwrap_or(PATIENCE)
    }
}

impl ActivityLog {
    /// Lists the subscriptions, and leads to the first window of each.
    async fn subscriptions(&self, unit: &Unit) -> Result<Done, WorkError> {
        let (arm, selection) = (&self.settings.endpoints.arm, &self.settings.selection);
        let checkpoints = Checkpoints::of_task(&unit.task);
        let tenant = self.settings.tenant.as_deref().unwrap_or_default();
        let query = format!("api-version={}", subscription::API_VERSION);
        let mut url = arm.url(subscription::PATH, Some(&query));
        let (mut tally, mut done, mut known) = (Tally::default(), Done::default(), Vec::new());
        for number in 1..=MOST_SUBSCRIPTION_PAGES {
            let answer = self.api.get(&url, "", 1, &self.list_size).await.map_err(Refusal::into_work_error)?;
            let page = Page::parse(&answer.body)
                .map_err(|error| failed(format!("the list of subscriptions cannot be understood: {error}")))?;
            for raw in &page.value {
                match subscription::read(raw, tenant) {
                    Ok((subscription, _)) => {
                        known.extend([Some(subscription.id.clone()), subscription.name.clone()].into_iter().flatten());
                        self.subscription(unit, subscription, &checkpoints, &mut done)?;
                        tally.read();
                    }
                    Err(malformed) => tally.lost(malformed.to_string()),
                }
            }
            match page.next(arm, &url, number) {
                Next::End => break,
                Next::Page(next) => url = next,
                Next::Refused(reason) => {
                    tally.cut(reason);
                    break;
                }
            }
        }
        if known.is_empty() && tally.is_empty() {
            let reason = "the application sees no subscription: give it the role Reader";
            done.coverage.push(Coverage::not_read("", subscription::NAME, State::Denied, reason));
            return Ok(done);
        }
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        for entry in selection.not_matched_by(&known) {
            let reason = format!("`subscriptions` names {entry}, and the application sees no such subscription");
            done.coverage.push(Coverage::not_read(&entry, subscription::NAME, State::Failed, reason));
        }
        done.coverage.push(tally.coverage("", subscription::NAME));
        Ok(done)
    }

    fn subscription(
        &self,
        unit: &Unit,
        subscription: Subscription,
        checkpoints: &Checkpoints,
        done: &mut Done,
    ) -> Result<(), WorkError> {
        let known_by = [Some(subscription.id.as_str()), subscription.name.as_deref()];
        let known_by: Vec<&str> = known_by.into_iter().flatten().collect();
        let why_skipped = match () {
            () if subscription.is_deleted() => Some("the subscription is deleted"),
            () if !self.settings.selection.includes(&known_by) => Some("`subscriptions` leaves out the subscription"),
            () => None,
        };
        if let Some(reason) = why_skipped {
            done.coverage.push(Coverage::not_read(&subscription.id, TYPE, State::Skipped, reason));
            return Ok(());
        }
        let beginning = self.windows.begin(&unit.version, checkpoints.until(&self.key(&subscription)));
        done.coverage.extend(beginning.lost(&subscription.id));
        let task = WindowTask { subscription, span: beginning.first, page: 1, link: None };
        done.children.push(task.unit(unit, 0)?);
        Ok(())
    }

    fn key(&self, subscription: &Subscription) -> String {
        checkpoint::key(&[&subscription.id.to_lowercase()], self.matcher.digest())
    }

    /// Reads some pages of a window, and leads to what follows.
    async fn window(&self, unit: &Unit, task: WindowTask, out: &mut Emitter) -> Result<Done, WorkError> {
        let (mut task, mut tally, mut done) = (task, Tally::default(), Done::default());
        let begun = task.page;
        loop {
            let (url, answer) = match self.page(&task).await {
                Ok(page) => page,
                Err(refusal) => {
                    let is_first = task.page == begun;
                    refused(unit, &task, refusal, is_first, &mut tally, &mut done)?;
                    break;
                }
            };
            let page = match Page::parse(&answer.body) {
                Ok(page) => page,
                Err(error) => {
                    tally.cut(format!("a page of the log cannot be understood: {error}"));
                    break;
                }
            };
            for raw in &page.value {
                self.emit(raw, &task.subscription, out, &mut tally).await?;
            }
            match page.next(&self.settings.endpoints.arm, &url, task.page) {
                Next::End => {
                    self.end_window(unit, &task, answer.server_time(), &mut done)?;
                    break;
                }
                Next::Refused(reason) => {
                    tally.cut(reason);
                    break;
                }
                Next::Page(next) => task = WindowTask { link: Some(next.into()), page: task.page + 1, ..task },
            }
            if task.page - begun >= MOST_PAGES {
                let next = task.unit(unit, unit.restart)?;
                done.children.push(Unit { restart: unit.restart, ..next });
                break;
            }
        }
        let coverage = tally.coverage(&task.subscription.id, TYPE);
        let is_cut = coverage.state != State::Complete && done.children.is_empty() && done.reached.is_empty();
        done.coverage.push(if is_cut { window::missing(coverage, &task.span) } else { coverage });
        Ok(done)
    }

    /// A window was read to its end.
    fn end_window(
        &self,
        unit: &Unit,
        task: &WindowTask,
        now: Option<SystemTime>,
        done: &mut Done,
    ) -> Result<(), WorkError> {
        let until = window::read_until(&task.span, now);
        done.reached.push(Reached { key: self.key(&task.subscription), until });
        if let Some(span) = self.windows.next(&task.span) {
            let next = WindowTask { span, page: 1, link: None, ..task.clone() };
            done.children.push(next.unit(unit, 0)?);
        }
        Ok(())
    }

    async fn page(&self, task: &WindowTask) -> Result<(Url, Answer), Refusal> {
        let (arm, id) = (&self.settings.endpoints.arm, &task.subscription.id);
        let url = match &task.link {
            None => {
                let (from, until) = (moment(task.span.from), moment(task.span.until));
                let filter = format!("eventTimestamp ge '{from}' and eventTimestamp le '{until}'");
                let filter = filter.replace(' ', "%20").replace('\'', "%27");
                let version = self.settings.api_versions.get(TYPE).map_or(API_VERSION, String::as_str);
                let path = format!("{}/{id}{PATH}", subscription::PATH);
                arm.url(&path, Some(&format!("api-version={version}&$filter={filter}")))
            }
            Some(link) => match Url::parse(link) {
                // It was looked at when it was found; the token is worth another look.
                Ok(url) if arm.is_origin_of(&url) => url,
                _ => return Err(Refusal::Work(failed("the link to a page leads away from Resource Manager".into()))),
            },
        };
        let answer = self.api.get(&url, id, task.page, &self.page_size).await?;
        Ok((url, answer))
    }

    /// Emits an event if it is kept.
    async fn emit(
        &self,
        raw: &RawValue,
        subscription: &Subscription,
        out: &mut Emitter,
        tally: &mut Tally,
    ) -> Result<(), WorkError> {
        let read = self.matcher.holding(&Event { log: raw.get(), own: &[] });
        let (rules, values) = match read.and_then(|rules| Ok((rules, self.reader.read(raw.get())?))) {
            Ok((Some(rules), values)) => (rules, values),
            Ok((None, _)) => return Ok(()),
            Err(error) => {
                tally.lost(format!("an event of the log cannot be understood: {error}"));
                return Ok(());
            }
        };
        let Some(id) = values.get(EVENT_DATA_ID).map(str::to_lowercase) else {
            tally.lost(format!("an event of the log of {} has no `eventDataId`", subscription.id));
            return Ok(());
        };
        let (ext, com) = (ext(&values, subscription), com(&values, &id, subscription, &rules));
        out.emit_permanent(Draft { record_type: TYPE, key: &id, raw: Some(raw), ext: &ext, com: &com }).await?;
        tally.read();
        Ok(())
    }
}

const EVENT_DATA_ID: usize = 0;
const EVENT_TIMESTAMP: usize = 1;
const SUBMITTED: usize = 2;
const OPERATION: usize = 3;
const CATEGORY: usize = 4;
const LEVEL: usize = 5;
const STATUS: usize = 6;
const SUB_STATUS: usize = 7;
const CALLER: usize = 8;
const RESOURCE_ID: usize = 9;
const RESOURCE_TYPE: usize = 10;
const RESOURCE_GROUP: usize = 11;
const CORRELATION: usize = 12;
const CLIENT_ADDRESS: usize = 13;
const CLAIMED_ADDRESS: usize = 14;
const OBJECT_ID: usize = 15;
const APPLICATION: usize = 16;
const IDENTITY_TYPE: usize = 17;
const PROVIDER: usize = 18;
const SCOPE: usize = 19;
const ROLE: usize = 20;
const REQUEST_BODY: usize = 21;

/// In the order of the constants.
const PATHS: [&[&str]; 22] = [
    &["eventDataId"],
    &["eventTimestamp"],
    &["submissionTimestamp"],
    &["operationName"],
    &["category"],
    &["level"],
    &["status"],
    &["subStatus"],
    &["caller"],
    &["resourceId"],
    &["resourceType"],
    &["resourceGroupName"],
    &["correlationId"],
    &["httpRequest", "clientIpAddress"],
    &["claims", "ipaddr"],
    &["claims", "http://schemas.microsoft.com/identity/claims/objectidentifier"],
    &["claims", "appid"],
    &["claims", "idtyp"],
    &["resourceProviderName"],
    &["authorization", "scope"],
    &["authorization", "role"],
    &["properties", "requestbody"],
];

fn ext<'a>(values: &'a Values<'_>, subscription: &'a Subscription) -> Fields<'a> {
    Fields::new()
        .with("cloud_type", CLOUD)
        .with("record_type", TYPE)
        .with("subscription_id", subscription.id.as_str())
        .with("subscription_name", subscription.name.as_deref())
        .with("subscription_state", subscription.state.as_deref())
        .with("operation", values.get(OPERATION))
        .with("category", values.get(CATEGORY))
        .with("level", values.get(LEVEL))
        .with("status", values.get(STATUS))
        .with("sub_status", values.get(SUB_STATUS))
        .with("resource_group", values.get(RESOURCE_GROUP))
        .with("resource_provider", values.get(PROVIDER))
        .with("correlation_id", values.get(CORRELATION))
        .with("submitted", values.get(SUBMITTED).and_then(time))
        .with("authorization_scope", values.get(SCOPE))
        .with("authorization_role", values.get(ROLE))
        // What was asked for is JSON in a text, where the log has it at all.
        .with("request_body", values.get(REQUEST_BODY))
}

fn com<'a>(values: &'a Values<'_>, id: &'a str, subscription: &'a Subscription, rules: &'a [&'a str]) -> Activity<'a> {
    let outcome = outcome(values.get(STATUS));
    Activity {
        time: values.get(EVENT_TIMESTAMP).and_then(time),
        actor: actor(values),
        action: values.get(OPERATION).map(str::to_owned),
        resource: Resource {
            id: values.get(RESOURCE_ID),
            kind: values.get(RESOURCE_TYPE).or_else(|| values.get(PROVIDER)),
        },
        outcome,
        error: values.get(SUB_STATUS).filter(|_| outcome == Some(Outcome::Failure)),
        account: Some(&subscription.id),
        region: None,
        ..Activity::new(CLOUD, id, rules)
    }
}

fn outcome(status: Option<&str>) -> Option<Outcome> {
    let is = |words: &[&str]| status.is_some_and(|status| words.iter().any(|word| word.eq_ignore_ascii_case(status)));
    match () {
        () if is(&["Succeeded", "Success", "Resolved", "Completed"]) => Some(Outcome::Success),
        () if is(&["Failed", "Failure", "Canceled", "Cancelled"]) => Some(Outcome::Failure),
        () if is(&["Started", "Accepted", "In Progress", "InProgress", "Active", "Updated"]) => Some(Outcome::Started),
        () => None,
    }
}

fn actor<'a>(values: &'a Values<'_>) -> Actor<'a> {
    let caller = values.get(CALLER);
    let application = values.get(APPLICATION);
    let kind = match (values.get(IDENTITY_TYPE), caller) {
        (Some(kind), _) if kind.eq_ignore_ascii_case("app") => Some(Kind::Application),
        (Some(kind), _) if kind.eq_ignore_ascii_case("user") => Some(Kind::User),
        (_, Some(caller)) if caller.contains('@') => Some(Kind::User),
        // The caller of an application is its object id; of Azure itself, the name of a service.
        (_, Some(caller)) if caller.starts_with("Microsoft.") => Some(Kind::Service),
        (_, Some(_)) => Some(Kind::Application),
        (_, None) if application.is_some() => Some(Kind::Application),
        _ => None,
    };
    Actor {
        name: caller.or(application),
        id: values.get(OBJECT_ID).or(application),
        kind,
        address: values.get(CLIENT_ADDRESS).or_else(|| values.get(CLAIMED_ADDRESS)),
        user_agent: None,
    }
}

/// What becomes of a window of which a page was refused: all of it is done again, or what is left.
fn refused(
    unit: &Unit,
    task: &WindowTask,
    refusal: Refusal,
    is_first: bool,
    tally: &mut Tally,
    done: &mut Done,
) -> Result<(), WorkError> {
    let error = match refusal {
        Refusal::PageToken(reason) => {
            let first = WindowTask { page: 1, link: None, ..task.clone() }.unit(unit, unit.restart + 1)?;
            return Err(WorkError::PageRefused { first: Box::new(first), reason });
        }
        refusal if is_first => return Err(refusal.into_work_error()),
        refusal => refusal.into_work_error(),
    };
    match error {
        WorkError::Throttled { wait, reason } => {
            done.children.push(unit.rest(to_raw(task)?, wait));
            done.pause = Some(Pause { wait, reason });
        }
        WorkError::Transient { .. } => done.children.push(unit.rest(to_raw(task)?, REST_WAIT)),
        WorkError::NotRead { reason, .. } => tally.cut(reason),
        error => return Err(error),
    }
    Ok(())
}

fn to_raw<T: Serialize>(task: &T) -> Result<Box<RawValue>, WorkError> {
    to_raw_value(task).map_err(|error| failed(format!("the task of a unit cannot be written as JSON: {error}")))
}

fn failed(reason: String) -> WorkError {
    WorkError::NotRead { state: State::Failed, reason }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subscription() -> Subscription {
        Subscription { id: "a8".into(), name: Some("Prod".into()), state: Some("Enabled".into()), tenant: "t".into() }
    }

    fn form(event: &Value) -> (Value, Value) {
        let text = event.to_string();
        let reader = Reader::new(PATHS);
        let values = reader.read(&text).unwrap();
        let subscription = subscription();
        let com = serde_json::to_value(com(&values, "e1", &subscription, &["r"])).unwrap();
        (com, serde_json::to_value(ext(&values, &subscription)).unwrap())
    }

    #[test]
    fn an_event_has_the_form_of_all_logs() {
        let (com, ext) = form(&json!({
            "eventDataId": "E1", "eventTimestamp": "2026-01-02T03:04:05.1234567Z", "caller": "ann@contoso.example",
            "submissionTimestamp": "2026-01-02T03:06:00Z", "level": "Informational",
            "operationName": {"value": "MICROSOFT.COMPUTE/virtualMachines/write", "localizedValue": "Create"},
            "category": {"value": "Administrative", "localizedValue": "x"}, "status": {"value": "Succeeded"},
            "subStatus": {"value": "OK"}, "resourceId": "/subscriptions/a8/vm1",
            "resourceType": {"value": "Microsoft.Compute/virtualMachines"}, "resourceGroupName": "rg",
            "httpRequest": {"clientIpAddress": "203.0.113.5", "method": "PUT"},
            "claims": {"http://schemas.microsoft.com/identity/claims/objectidentifier": "o1", "appid": "x"},
        }));
        let expected = json!({
            "cloud_type": "azure", "record_type": "cloud_activity", "reference": "e1", "event_id": "e1",
            "time": "2026-01-02T03:04:05.1234567Z",
            "actor": {"name": "ann@contoso.example", "id": "o1", "kind": "user", "address": "203.0.113.5",
                "user_agent": null},
            "action": "MICROSOFT.COMPUTE/virtualMachines/write",
            "resource": {"id": "/subscriptions/a8/vm1", "type": "Microsoft.Compute/virtualMachines"},
            "outcome": "success", "error": null, "account": "a8", "region": null, "rules": ["r"],
        });
        assert_eq!(com, expected);
        assert_eq!(ext["submitted"], "2026-01-02T03:06:00Z");
        assert_eq!((&ext["category"], &ext["subscription_id"]), (&json!("Administrative"), &json!("a8")));
    }

    #[test]
    fn who_and_how_it_ended_is_told_if_it_is_known() {
        let of = |event: Value| {
            let (com, _) = form(&event);
            (com["actor"]["kind"].clone(), com["outcome"].clone(), com["error"].clone())
        };
        let failed = json!({"caller": "5b1c", "status": {"value": "Failed"}, "subStatus": {"value": "Forbidden"}});
        assert_eq!(of(failed), (json!("application"), json!("failure"), json!("Forbidden")));
        assert_eq!(
            of(json!({"claims": {"idtyp": "app"}, "status": {"value": "Accepted"}})),
            (json!("application"), json!("started"), Value::Null)
        );
        assert_eq!(of(json!({"caller": "Microsoft.Advisor"})), (json!("service"), Value::Null, Value::Null));
        assert_eq!(of(json!({"status": null, "claims": "odd"})), (Value::Null, Value::Null, Value::Null));
    }

    #[test]
    fn parameters_of_both_kinds_are_checked_at_once() {
        let good = json!({"tenant": "t", "client": "c", "secret": "s", "subscriptions": ["a"], "keep": "all",
            "overlap": "1h", "api_versions": {"cloud_activity": "2015-04-01"}});
        assert!(read(&good).is_ok());
        let bad = json!({"tenant": "t", "client": "c", "secret": "s", "reach": "1y", "kepe": "all",
            "keep": [{"rule": "a"}]});
        let errors = read(&bad).map(drop).unwrap_err();
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["kepe", "reach"]);
        let errors = read(&json!({"tenant": "t", "client": "c", "secret": "s", "keep": [{"rule": "a"}]}));
        assert_eq!(errors.map(drop).unwrap_err()[0].path, "keep[0]");
    }
}
