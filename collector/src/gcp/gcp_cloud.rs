//! The plugin `GCPCloud`: the projects that an account sees, and the firewalls and virtual machines in them.
//!
//! The root leads to the first page of the list of projects. Each page of it leads to the next, and to the first page
//! of each list of each of its projects, list by list: neighbours in the queue are of different projects, for these are
//! what Google throttles by.

use std::sync::Arc;
use std::time::Duration;

use proto::catalogue::{ParamError, PluginClass, in_one_line};
use proto::config::Environment;
use proto::coverage::{Coverage, State};
use proto::plan::Stage;
use proto::subject::Role;
use proto::unit::{ROOT, Unit};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use url::form_urlencoded;

use super::api::{Api, Wanted, not_a_page};
use super::credential::{self, CredentialError};
use super::list::{Item, Next, Page};
use super::params::{GcpCloudParams, Settings};
use super::project::{self, Project};
use super::record::{Made, Malformed, Record};
use super::refusal::Refusal;
use super::sign_in::{Clients, SignIn};
use super::{firewall, instance};
use crate::cloud::{Cloud, Done, WorkError};
use crate::emit::{Draft, Emitter};
use crate::http::{Answer, Client, Endpoint, Expected, Timeouts};
use crate::registry::{Context, Served};
use crate::tally::{Tally, unit_id};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.gcpcloud.GCPCloud",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("gcp"),
    check: Some(&check),
};

/// The class and what builds it.
pub(crate) const SERVED: &[Served] = &[(&CLASS, |params, context| {
    build(params, context, &Environment::of_process()).map_err(|error| error.to_string())
})];

/// Most items of a page: the most that Google gives.
const PAGE_SIZE: u32 = 500;
/// How large a page is before the first one came.
const EXPECTED_SIZE: usize = 1024 * 1024;
/// The metadata server is on the machine, or nowhere.
const METADATA_TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(3), read: Duration::from_secs(4), whole: Duration::from_secs(5) };
/// A sign-in is a small answer.
const SIGN_IN_TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(10), read: Duration::from_secs(30), whole: Duration::from_secs(60) };

/// Checks parameters; references like `${CM_KEY_FILE}` may stand in them unexpanded.
///
/// # Errors
/// All that is wrong with them.
pub fn check(params: &Value) -> Result<(), Vec<ParamError>> {
    GcpCloudParams::read(params).map(drop)
}

/// Builds the plugin of its parameters, expanded, on the host whose environment this is. Files with credentials are
/// read; nothing is asked of the network yet.
///
/// # Errors
/// See [`BuildError`].
pub fn build(params: &Value, context: &Context, environment: &Environment) -> Result<Arc<dyn Cloud>, BuildError> {
    let settings = GcpCloudParams::read(params).and_then(GcpCloudParams::settings).map_err(BuildError::Params)?;
    Ok(Arc::new(GcpCloud::new(settings, context, environment)?))
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
    /// There is nothing to sign in with.
    #[error("cannot prepare the sign-in: {0}")]
    Credential(#[from] CredentialError),
}

/// The plugin.
#[derive(Debug)]
struct GcpCloud {
    settings: Settings,
    api: Api,
    /// How large pages are, list by list.
    projects: Expected,
    firewalls: Expected,
    instances: Expected,
}

/// A list of a project's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Firewalls,
    Instances,
}

/// All of them, in the order in which they are read.
const LISTS: [List; 2] = [List::Firewalls, List::Instances];

impl List {
    fn find(name: &str) -> Option<Self> {
        LISTS.into_iter().find(|list| list.name() == name)
    }

    /// Its name in units, in coverage and in `ext.record_type`.
    fn name(self) -> &'static str {
        match self {
            Self::Firewalls => firewall::NAME,
            Self::Instances => instance::NAME,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Firewalls => firewall::PATH,
            Self::Instances => instance::PATH,
        }
    }

    /// The query of each of its pages.
    fn query(self) -> String {
        match self {
            Self::Firewalls => format!("maxResults={PAGE_SIZE}"),
            // A zone that is away must not keep the others back: it is named instead.
            Self::Instances => format!("maxResults={PAGE_SIZE}&returnPartialSuccess=true"),
        }
    }

    fn parse(self, body: &[u8]) -> serde_json::Result<Page<'_>> {
        match self {
            Self::Firewalls => Page::of_list(body),
            Self::Instances => Page::of_instances(body),
        }
    }

    fn records<'a>(self, item: &'a Item<'a>, project: &Project) -> Result<Made<'a>, Malformed> {
        match self {
            Self::Firewalls => firewall::records(item.raw, project),
            Self::Instances => instance::records(item.raw, item.zone.as_deref(), project),
        }
    }
}

/// What a unit carries: which page of its list is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    /// The page's number, from 1.
    page: u32,
    /// The token of the page; the first page has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// How many resources the pages before had.
    #[serde(default)]
    before: u64,
    /// The project whose list it is; the list of projects has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project: Option<Project>,
    /// Entries of `projects` that no page before had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unseen: Option<Vec<String>>,
}

impl Task {
    fn first(project: Option<Project>) -> Self {
        Self { page: 1, token: None, before: 0, project, unseen: None }
    }

    fn to_raw(&self) -> Result<Box<RawValue>, WorkError> {
        to_raw_value(self).map_err(|error| WorkError::NotRead {
            state: State::Failed,
            reason: format!("the task of a unit cannot be written as JSON: {error}"),
        })
    }
}

impl GcpCloud {
    fn new(settings: Settings, context: &Context, environment: &Environment) -> Result<Self, BuildError> {
        let found =
            credential::find(&settings.way, settings.impersonate.as_deref(), settings.metadata.as_ref(), environment)?;
        let client = |timeouts, direct| Client::new(timeouts, direct, Arc::clone(&context.limits));
        let is_local = settings.services.compute.is_loopback();
        let clients = Clients {
            // What stands for Google here stands for its token endpoint, too; elsewhere the proxy of the host is right.
            google: client(SIGN_IN_TIMEOUTS, is_local)?,
            metadata: client(METADATA_TIMEOUTS, true)?,
        };
        let sign_in = SignIn::new(found.credential, clients, settings.services.iam_credentials.clone());
        let http = client(Timeouts::default(), is_local)?
            .with_concurrency(settings.concurrency)
            .with_headers(charged_to(found.quota_project.as_deref()));
        Ok(Self {
            api: Api::new(http, sign_in),
            settings,
            projects: Expected::new(EXPECTED_SIZE),
            firewalls: Expected::new(EXPECTED_SIZE),
            instances: Expected::new(EXPECTED_SIZE),
        })
    }

    /// Reads a page of the list of projects.
    async fn projects(&self, unit: &Unit, task: &Task, out: &mut Emitter) -> Result<Done, WorkError> {
        let endpoint = &self.settings.services.resource_manager;
        let query = format!("pageSize={PAGE_SIZE}");
        let answer = self.fetch(unit, task, endpoint, project::PATH, &query, &self.projects).await?;
        let page =
            Page::of_projects(&answer.body).map_err(|error| not_a_page(&endpoint.url(project::PATH, None), &error))?;
        let next = page.next(task.token.as_deref(), task.page);
        let (items, mut tally) = limit(&page.items, task.before, self.settings.max_projects, &next);
        let mut done = Done::default();
        let mut found = Vec::new();
        for item in items {
            match project::read(item.raw) {
                Ok(read) => {
                    if self.emit(out, &read.record, &read.project, &mut tally).await? {
                        tally.read();
                    }
                    match read.unreadable.or_else(|| self.why_left_out(&read.project)) {
                        Some(reason) => done.coverage.extend(skipped(&read.project, &reason)),
                        None => found.push(read.project),
                    }
                }
                Err(malformed) => tally.lost(malformed.to_string()),
            }
        }
        for item in page.items.iter().skip(items.len()) {
            if let Ok(read) = project::read(item.raw) {
                done.coverage.extend(skipped(&read.project, "`_max_projects` leaves out the project"));
            }
        }
        if task.before + tally.count() == 0 && next == Next::End && page.items.is_empty() {
            let account = self.api.account().unwrap_or("the account");
            let reason =
                format!("{account} sees no project: give it the role Browser, and Compute Viewer to read them");
            tracing::warn!(reason);
            // Google hides what one may not see: nothing is known of what there is.
            done.coverage.push(Coverage::not_read(&unit.scope, &unit.resource_type, State::Denied, reason));
            return Ok(done);
        }
        let all: Vec<Project> =
            page.items.iter().filter_map(|item| project::read(item.raw).ok()).map(|read| read.project).collect();
        let known_by: Vec<&str> = all.iter().flat_map(known_by).collect();
        let mut unseen = self.settings.projects.not_matched_by(&known_by);
        if let Some(before) = &task.unseen {
            unseen.retain(|entry| before.contains(entry));
        }
        if next == Next::End {
            for entry in &unseen {
                let reason = format!("`projects` names {entry}, and the account sees no such project");
                done.coverage.push(Coverage::not_read(entry, &unit.resource_type, State::Failed, reason));
            }
        }
        go_on(unit, &Task { unseen: Some(unseen), ..task.clone() }, next, &mut tally, &mut done)?;
        for list in LISTS {
            for project in &found {
                let id = unit_id(list.name(), &project.id, 0, 1);
                let task = Task::first(Some(project.clone())).to_raw()?;
                done.children.push(unit.child(id, &project.id, list.name(), task));
            }
        }
        done.coverage.push(tally.coverage(&unit.scope, &unit.resource_type));
        Ok(done)
    }

    /// Why the configuration leaves out what is in a project, if it does.
    fn why_left_out(&self, project: &Project) -> Option<String> {
        let known_by: Vec<&str> = known_by(project).collect();
        (!self.settings.projects.includes(&known_by)).then(|| "`projects` leaves out the project".to_owned())
    }

    /// Reads a page of a list of a project's resources.
    async fn resources(
        &self,
        unit: &Unit,
        task: &Task,
        project: &Project,
        list: List,
        out: &mut Emitter,
    ) -> Result<Done, WorkError> {
        let endpoint = &self.settings.services.compute;
        let path = format!("/compute/v1/projects/{}{}", project.id, list.path());
        let expected = match list {
            List::Firewalls => &self.firewalls,
            List::Instances => &self.instances,
        };
        let answer = self.fetch(unit, task, endpoint, &path, &list.query(), expected).await?;
        let mut page = list.parse(&answer.body).map_err(|error| not_a_page(&endpoint.url(&path, None), &error))?;
        let next = page.next(task.token.as_deref(), task.page);
        let mut tally = Tally::default();
        for reason in std::mem::take(&mut page.lost) {
            tally.lost(reason);
        }
        if let Some(missing) = page.missing.take() {
            tally.cut(missing);
        }
        for item in &page.items {
            match list.records(item, project) {
                Ok(made) => self.emit_all(out, made, project, &mut tally).await?,
                Err(malformed) => tally.lost(malformed.to_string()),
            }
        }
        let mut done = Done::default();
        go_on(unit, task, next, &mut tally, &mut done)?;
        done.coverage.push(tally.coverage(&unit.scope, &unit.resource_type));
        Ok(done)
    }

    /// Gets the page that a task names.
    async fn fetch(
        &self,
        unit: &Unit,
        task: &Task,
        endpoint: &Endpoint,
        path: &str,
        query: &str,
        expected: &Expected,
    ) -> Result<Answer, WorkError> {
        let query = match &task.token {
            None => query.to_owned(),
            Some(token) => form_urlencoded::Serializer::new(query.to_owned()).append_pair("pageToken", token).finish(),
        };
        let url = endpoint.url(path, Some(&query));
        let wanted = Wanted { url: &url, page: task.page, project: task.project.as_ref(), expected };
        match self.api.page(wanted).await {
            Ok(answer) => Ok(answer),
            Err(Refusal::Work(error)) => Err(error),
            Err(Refusal::PageToken(reason)) => {
                let first = Task::first(task.project.clone()).to_raw()?;
                let id = unit_id(&unit.resource_type, &unit.scope, unit.restart + 1, 1);
                let first = unit.child(id, &unit.scope, &unit.resource_type, first);
                Err(WorkError::PageRefused { first: Box::new(first), reason })
            }
        }
    }

    /// Emits what was made of a resource, and counts the resource.
    async fn emit_all(
        &self,
        out: &mut Emitter,
        made: Made<'_>,
        project: &Project,
        tally: &mut Tally,
    ) -> Result<(), WorkError> {
        for reason in made.lost {
            tally.lost(reason);
        }
        // The first record is the resource's own.
        let mut whole = None;
        for record in &made.records {
            let emitted = self.emit(out, record, project, tally).await?;
            whole.get_or_insert(emitted);
        }
        if whole == Some(true) {
            tally.read();
        }
        Ok(())
    }

    /// Emits a record; false when it alone cannot be.
    async fn emit(
        &self,
        out: &mut Emitter,
        record: &Record<'_>,
        project: &Project,
        tally: &mut Tally,
    ) -> Result<bool, WorkError> {
        let (ext, com) = (record.ext(project, self.api.account()), record.com());
        let draft =
            Draft { record_type: record.record_type, key: &record.key, raw: Some(record.raw), ext: &ext, com: &com };
        match out.emit(draft).await {
            Ok(()) => Ok(true),
            Err(WorkError::NotRead { reason, .. }) => {
                tally.lost(reason);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

#[async_trait::async_trait]
impl Cloud for GcpCloud {
    async fn work(&self, unit: &Unit, out: &mut Emitter) -> Result<Done, WorkError> {
        if unit.id == ROOT {
            let task = Task::first(None).to_raw()?;
            let first = unit.child(unit_id(project::NAME, "", 0, 1), "", project::NAME, task);
            return Ok(Done { children: vec![first], ..Done::default() });
        }
        let task: Task =
            serde_json::from_str(unit.task.get()).map_err(|error| foreign_task(unit, &error.to_string()))?;
        match (&task.project, List::find(&unit.resource_type)) {
            (Some(project), Some(list)) => self.resources(unit, &task, project, list, out).await,
            (None, None) if unit.resource_type == project::NAME => self.projects(unit, &task, out).await,
            _ => Err(foreign_task(unit, "another resource type")),
        }
    }

    fn patience(&self) -> Duration {
        self.settings.patience.unwrap_or(crate::cloud::PATIENCE)
    }
}

/// Calls of a person are charged to a project of theirs.
fn charged_to(quota_project: Option<&str>) -> HeaderMap {
    let value = quota_project.and_then(|project| HeaderValue::from_str(project).ok());
    value.map(|value| (HeaderName::from_static("x-goog-user-project"), value)).into_iter().collect()
}

/// Adds the next page.
fn go_on(unit: &Unit, task: &Task, next: Next, tally: &mut Tally, done: &mut Done) -> Result<(), WorkError> {
    match next {
        Next::Page(token) if !tally.is_limited() => {
            let task = Task {
                page: task.page + 1,
                token: Some(token),
                before: task.before + tally.count(),
                project: task.project.clone(),
                unseen: task.unseen.clone(),
            };
            let id = unit_id(&unit.resource_type, &unit.scope, unit.restart, task.page);
            done.children.push(unit.next_page(id, task.to_raw()?));
        }
        Next::Refused(reason) => tally.cut(reason),
        Next::Page(_) | Next::End => {}
    }
    Ok(())
}

/// What `projects` may name a project by.
fn known_by(project: &Project) -> impl Iterator<Item = &str> {
    [Some(project.id.as_str()), project.name.as_deref(), project.number.as_deref()].into_iter().flatten()
}

fn skipped(project: &Project, reason: &str) -> Vec<Coverage> {
    let skipped = |list: List| Coverage::not_read(&project.id, list.name(), State::Skipped, reason);
    LISTS.into_iter().map(skipped).collect()
}

/// The items that a limit leaves of a page, and the tally that says so.
fn limit<'a, 'b>(items: &'a [Item<'b>], before: u64, most: Option<u64>, next: &Next) -> (&'a [Item<'b>], Tally) {
    let mut tally = Tally::default();
    let Some(most) = most else { return (items, tally) };
    let room = usize::try_from(most.saturating_sub(before)).unwrap_or(usize::MAX);
    let (taken, left_out) = items.split_at(room.min(items.len()));
    let is_full = taken.len() == room;
    if !left_out.is_empty() || (is_full && *next != Next::End) {
        tally.left_out(left_out.len() as u64, *next != Next::End, format!("`_max_projects` is {most}"));
    }
    (taken, tally)
}

/// A unit that this version of the plugin did not make.
fn foreign_task(unit: &Unit, why: &str) -> WorkError {
    WorkError::NotRead {
        state: State::Failed,
        reason: format!("the unit {} is not one of this version's ({why}): do all workers run the same one?", unit.id),
    }
}
