//! The plugin `AzCloud`: the subscriptions of a tenant and the network security groups in them, with their rules.
//!
//! The root leads to the first page of the list of subscriptions. Each page of it leads to the next, and to the first
//! page of each list of each of its subscriptions.

use std::sync::Arc;

use azure_core::credentials::Secret;
use proto::catalogue::{ParamError, PluginClass, in_one_line};
use proto::coverage::{Coverage, State};
use proto::plan::Stage;
use proto::subject::Role;
use proto::unit::{ROOT, Unit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use url::Url;

use super::arm::{Arm, Refusal};
use super::list::{Next, Page, Tally, unit_id};
pub use super::params::AzCloudParams;
use super::params::Settings;
use super::resource::{self, RESOURCE_TYPES, Record, ResourceType};
use super::sign_in::{Application, SignIn};
use super::subscription::{self, Subscription};
use crate::cloud::{Cloud, Done, WorkError};
use crate::emit::{Draft, Emitter};
use crate::http::{Client, Timeouts};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.azcloud.AzCloud",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(check),
};

/// Checks parameters; references like `${CM_SECRET}` may stand in them unexpanded.
///
/// # Errors
/// All that is wrong with them.
pub fn check(params: &Value) -> Result<(), Vec<ParamError>> {
    AzCloudParams::read(params).map(drop)
}

/// Builds the plugin of its parameters, expanded. Nothing is asked of the network yet.
///
/// # Errors
/// When the parameters are not as they should be, or TLS cannot be set up.
pub fn build(params: &Value) -> Result<Arc<dyn Cloud>, BuildError> {
    let settings = AzCloudParams::read(params).and_then(AzCloudParams::settings).map_err(BuildError::Params)?;
    Ok(Arc::new(AzCloud::new(settings)?))
}

/// Why the plugin cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The parameters are not as they should be.
    #[error("{}", in_one_line(.0))]
    Params(Vec<ParamError>),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}; does this host have CA certificates?")]
    Tls(#[from] reqwest::Error),
    /// The sign-in library does not take the parameters.
    #[error("cannot prepare the sign-in: {0}")]
    SignIn(#[from] azure_core::Error),
}

/// The plugin.
#[derive(Debug)]
pub struct AzCloud {
    arm: Arm,
    tenant: String,
    max_subs: Option<u64>,
    max_recs: Option<u64>,
}

/// What a unit carries: which page of its list is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    /// The page's number, from 1.
    page: u32,
    /// The link to the page; the first page has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    /// How many resources the pages before had.
    #[serde(default)]
    before: u64,
    /// The subscription whose list it is; the list of subscriptions has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscription: Option<Subscription>,
}

impl Task {
    fn first(subscription: Option<Subscription>) -> Self {
        Self { page: 1, link: None, before: 0, subscription }
    }

    fn to_raw(&self) -> Result<Box<RawValue>, WorkError> {
        to_raw_value(self).map_err(|error| WorkError::NotRead {
            state: State::Failed,
            reason: format!("the task of a unit cannot be written as JSON: {error}"),
        })
    }
}

/// A page that was read, with where it came from.
struct Fetched {
    url: Url,
    body: Vec<u8>,
}

impl AzCloud {
    fn new(settings: Settings) -> Result<Self, BuildError> {
        let direct = settings.arm.is_loopback() || settings.login.is_loopback();
        let http = Client::new(Timeouts::default(), direct)?;
        let tenant = settings.tenant.clone();
        let application = Application {
            tenant: settings.tenant,
            client: settings.client,
            secret: Secret::new(settings.secret.expose().to_owned()),
        };
        let sign_in = SignIn::new(application, settings.login, settings.scope, http.clone())?;
        let arm = Arm::new(http, sign_in, settings.arm);
        Ok(Self { arm, tenant, max_subs: settings.max_subs, max_recs: settings.max_recs })
    }

    /// Reads a page of the list of subscriptions.
    async fn subscriptions(&self, unit: &Unit, task: &Task, out: &mut Emitter) -> Result<Done, WorkError> {
        let fetched = self.fetch(unit, task, subscription::PATH, subscription::API_VERSION).await?;
        let page = parse(&fetched)?;
        let next = page.next(self.arm.endpoint(), &fetched.url, task.page);
        let (items, mut tally) = limit(&page.value, task.before, self.max_subs, "_max_subs", &next);
        let mut done = Done::default();
        for raw in items {
            match subscription::read(raw, &self.tenant) {
                Ok((subscription, record)) => {
                    if emit(out, &record, &subscription, &mut tally).await? {
                        tally.read();
                    }
                    follow(unit, subscription, &mut done)?;
                }
                Err(malformed) => tally.lost(malformed.to_string()),
            }
        }
        for raw in page.value.iter().skip(items.len()) {
            if let Ok((subscription, _)) = subscription::read(raw, &self.tenant) {
                let reason = "`_max_subs` leaves out the subscription";
                done.coverage.extend(skipped(&subscription, reason));
            }
        }
        if task.before + tally.count() == 0 && next == Next::End && page.value.is_empty() {
            tracing::warn!(tenant = self.tenant, "the application sees no subscription: give it the role Reader");
        }
        self.go_on(unit, task, next, tally, &mut done)?;
        Ok(done)
    }

    /// Reads a page of a list of a subscription's resources.
    async fn resources(
        &self,
        unit: &Unit,
        task: &Task,
        resource_type: &ResourceType,
        out: &mut Emitter,
    ) -> Result<Done, WorkError> {
        let Some(subscription) = &task.subscription else { return Err(foreign_task(unit, "no subscription")) };
        let path = format!("{}/{}{}", subscription::PATH, subscription.id, resource_type.path);
        let fetched = self.fetch(unit, task, &path, resource_type.api_version).await?;
        let page = parse(&fetched)?;
        let next = page.next(self.arm.endpoint(), &fetched.url, task.page);
        let (items, mut tally) = limit(&page.value, task.before, self.max_recs, "_max_recs", &next);
        for raw in items {
            match (resource_type.maker)(resource_type, raw) {
                Ok(made) => {
                    for reason in made.lost {
                        tally.lost(reason);
                    }
                    let mut whole = true;
                    for record in &made.records {
                        whole = emit(out, record, subscription, &mut tally).await?;
                    }
                    // The last record is the resource's own.
                    if whole {
                        tally.read();
                    }
                }
                Err(malformed) => tally.lost(malformed.to_string()),
            }
        }
        let mut done = Done::default();
        self.go_on(unit, task, next, tally, &mut done)?;
        Ok(done)
    }

    async fn fetch(&self, unit: &Unit, task: &Task, path: &str, api_version: &str) -> Result<Fetched, WorkError> {
        let endpoint = self.arm.endpoint();
        let url = match &task.link {
            None => endpoint.url(path, Some(&format!("api-version={api_version}"))),
            Some(link) => match Url::parse(link) {
                // It was looked at when it was found; the token is worth another look.
                Ok(url) if endpoint.is_origin_of(&url) => url,
                _ => return Err(foreign_task(unit, "a link that leads away from `arm_endpoint`")),
            },
        };
        match self.arm.page(&url, task.page).await {
            Ok(body) => Ok(Fetched { url, body }),
            Err(Refusal::Work(error)) => Err(error),
            Err(Refusal::PageToken(reason)) => {
                let task = Task::first(task.subscription.clone());
                let id = unit_id(&unit.resource_type, &unit.scope, unit.restart + 1, task.page);
                let first = unit.child(id, &unit.scope, &unit.resource_type, task.to_raw()?);
                Err(WorkError::PageRefused { first: Box::new(first), reason })
            }
        }
    }

    /// Adds the next page and the coverage of this one.
    fn go_on(&self, unit: &Unit, task: &Task, next: Next, mut tally: Tally, done: &mut Done) -> Result<(), WorkError> {
        match next {
            Next::Page(url) if !tally.is_limited() => {
                let task = Task {
                    page: task.page + 1,
                    link: Some(url.into()),
                    before: task.before + tally.count(),
                    subscription: task.subscription.clone(),
                };
                let id = unit_id(&unit.resource_type, &unit.scope, unit.restart, task.page);
                done.children.push(unit.next_page(id, task.to_raw()?));
            }
            Next::Refused(reason) => tally.cut(reason),
            Next::Page(_) | Next::End => {}
        }
        done.coverage.push(tally.coverage(&unit.scope, &unit.resource_type));
        Ok(())
    }
}

#[async_trait::async_trait]
impl Cloud for AzCloud {
    async fn work(&self, unit: &Unit, out: &mut Emitter) -> Result<Done, WorkError> {
        if unit.id == ROOT {
            let first = first_page(unit, "", subscription::NAME, &Task::first(None))?;
            return Ok(Done { children: vec![first], coverage: Vec::new() });
        }
        let task: Task =
            serde_json::from_str(unit.task.get()).map_err(|error| foreign_task(unit, &error.to_string()))?;
        match resource::find(&unit.resource_type) {
            Some(resource_type) => self.resources(unit, &task, resource_type, out).await,
            None if unit.resource_type == subscription::NAME => self.subscriptions(unit, &task, out).await,
            None => Err(foreign_task(unit, "another resource type")),
        }
    }
}

/// The first page of each list of a subscription.
fn follow(unit: &Unit, subscription: Subscription, done: &mut Done) -> Result<(), WorkError> {
    if subscription.is_deleted() {
        done.coverage.extend(skipped(&subscription, "the subscription is deleted"));
        return Ok(());
    }
    let scope = subscription.id.clone();
    let task = Task::first(Some(subscription));
    for resource_type in RESOURCE_TYPES {
        done.children.push(first_page(unit, &scope, resource_type.name, &task)?);
    }
    Ok(())
}

fn skipped(subscription: &Subscription, reason: &str) -> Vec<Coverage> {
    let skipped =
        |resource_type: &ResourceType| Coverage::not_read(&subscription.id, resource_type.name, State::Skipped, reason);
    RESOURCE_TYPES.iter().map(skipped).collect()
}

/// The unit that begins a list.
fn first_page(parent: &Unit, scope: &str, resource_type: &str, task: &Task) -> Result<Unit, WorkError> {
    Ok(parent.child(unit_id(resource_type, scope, 0, 1), scope, resource_type, task.to_raw()?))
}

fn parse(fetched: &Fetched) -> Result<Page<'_>, WorkError> {
    Page::parse(&fetched.body).map_err(|error| {
        let call = crate::http::call("GET", &fetched.url);
        if error.is_eof() {
            WorkError::Transient { reason: format!("{call}: the answer was cut off ({error})") }
        } else {
            WorkError::NotRead {
                state: State::Failed,
                reason: format!("{call}: the answer is not a page of a list ({error}); is `arm_endpoint` right?"),
            }
        }
    })
}

/// The items that a limit leaves of a page, and the tally that says so.
fn limit<'a, 'b>(
    items: &'a [&'b RawValue],
    before: u64,
    most: Option<u64>,
    name: &str,
    next: &Next,
) -> (&'a [&'b RawValue], Tally) {
    let mut tally = Tally::default();
    let Some(most) = most else { return (items, tally) };
    let room = usize::try_from(most.saturating_sub(before)).unwrap_or(usize::MAX);
    let (taken, left_out) = items.split_at(room.min(items.len()));
    let is_full = taken.len() == room;
    if !left_out.is_empty() || (is_full && *next != Next::End) {
        tally.left_out(left_out.len() as u64, *next != Next::End, format!("`{name}` is {most}"));
    }
    (taken, tally)
}

/// Emits a record; false when it alone cannot be.
async fn emit(
    out: &mut Emitter,
    record: &Record<'_>,
    subscription: &Subscription,
    tally: &mut Tally,
) -> Result<bool, WorkError> {
    let (key, ext, com) = (record.key(), record.ext(subscription), record.com());
    let draft = Draft { record_type: record.record_type, key: &key, raw: Some(record.raw), ext: &ext, com: &com };
    match out.emit(draft).await {
        Ok(()) => Ok(true),
        Err(WorkError::NotRead { reason, .. }) => {
            tally.lost(reason);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// A unit that this version of the plugin did not make.
fn foreign_task(unit: &Unit, why: &str) -> WorkError {
    WorkError::NotRead {
        state: State::Failed,
        reason: format!("the unit {} is not one of this version's ({why}): do all workers run the same one?", unit.id),
    }
}
