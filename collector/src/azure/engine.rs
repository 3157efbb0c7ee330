//! What all plugins of Azure do: they list the subscriptions, read the lists of each, and the details of their items.
//!
//! The root leads to the first page of the list of subscriptions. Each page of it leads to the next, and to the first
//! page of each list of each of its subscriptions, list by list: neighbours in the queue are of different
//! subscriptions, for these are what Azure throttles by. Items that need calls of their own follow in units of up to
//! [`MOST_PARENTS`], so that all collectors share them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use proto::catalogue::{ParamError, in_one_line};
use proto::coverage::{Coverage, State};
use proto::identity::Id;
use proto::unit::{ROOT, Unit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use url::Url;

use super::arm::{Api, Refusal};
use super::key_vault::vault_uri;
use super::list::{Next, Page, without_mark};
use super::monitor;
use super::params::{AzureParams, Settings};
use super::resource::{Made, Malformed, Record};
use super::service::{Base, Detail, Item, Items, List, Plugin};
use super::sign_in::{SignIn, SignInError};
use super::subscription::{self, Subscription};
use crate::cloud::{Cloud, Done, Pause, WorkError};
use crate::emit::{Draft, Emitter};
use crate::http::{Answer, Client, Endpoint, Expected, Timeouts, call};
use crate::registry::Context;
use crate::tally::{Tally, unit_id};

/// Most items whose details one unit reads.
const MOST_PARENTS: usize = 50;
/// Most bytes of items in a unit: it must fit into a message, and be worth one.
const MOST_PARENT_BYTES: usize = 192 * 1024;
/// An item larger than this has no details read: its unit would not fit into a message.
const LARGEST_PARENT: usize = 640 * 1024;
/// How many details of a unit are asked for at once. Other units ask at the same time.
const AHEAD: usize = 25;
/// Most pages of a detail that is a list.
const MOST_DETAIL_PAGES: u32 = 100;
/// How large a page and a detail are before the first one came.
const LIST_SIZE: usize = 1024 * 1024;
const DETAIL_SIZE: usize = 32 * 1024;
/// How long the rest of a unit waits after something failed in passing.
const REST_WAIT: Duration = Duration::from_secs(1);

/// Why the plugin cannot be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    /// The parameters are not as they should be.
    #[error("{}", in_one_line(.0))]
    Params(Vec<ParamError>),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}; does this host have CA certificates?")]
    Tls(#[from] reqwest::Error),
    /// The credential cannot be used.
    #[error("cannot prepare the sign-in: {0}")]
    SignIn(#[from] SignInError),
}

/// Checks parameters; references like `${CM_SECRET}` may stand in them unexpanded.
///
/// # Errors
/// All that is wrong with them.
pub(super) fn check(plugin: &Plugin, params: &Value) -> Result<(), Vec<ParamError>> {
    read(plugin, params).map(drop)
}

fn read(plugin: &Plugin, params: &Value) -> Result<AzureParams, Vec<ParamError>> {
    let names: Vec<String> = plugin.all_lists().into_iter().flat_map(versioned).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    AzureParams::read(params, &names)
}

/// The names among `api_versions` that belong to a list.
fn versioned(list: &List) -> Vec<String> {
    match list.items {
        Items::Details(_) => vec![list.name.to_owned(), details_of(list)],
        _ => vec![list.name.to_owned()],
    }
}

/// Builds a plugin of its parameters, expanded. Nothing is asked of the network yet.
///
/// # Errors
/// When the parameters are not as they should be, or TLS cannot be set up.
pub(super) fn build(plugin: &'static Plugin, params: &Value, context: &Context) -> Result<Arc<dyn Cloud>, BuildError> {
    let settings = read(plugin, params).and_then(AzureParams::settings).map_err(BuildError::Params)?;
    Ok(Arc::new(Engine::new(plugin, settings, context)?))
}

/// A plugin at work.
#[derive(Debug)]
struct Engine {
    plugin: &'static Plugin,
    settings: Settings,
    arm: Api,
    vaults: Api,
    /// How large answers are, by the names of lists; details under the name with a star.
    expected: HashMap<String, Expected>,
}

/// What a unit carries: which page of its list is read, or which items' details.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Task {
    /// The page's number, from 1; 0 for details.
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
    /// The resource whose list it is, if it is not the subscription's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<Parent>,
    /// The items whose details are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    items: Vec<Box<RawValue>>,
    /// Entries of `subscriptions` that no page before had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unseen: Option<Vec<String>>,
    /// Finds out whether the list goes round in circles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
}

/// A page that was seen before, to find a circle by the method of Brent: each mark stands twice as long as the one
/// before, so that every circle comes to one that is longer than itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Mark {
    page: String,
    steps: u32,
    stands: u32,
}

impl Mark {
    /// The mark after one more page; nothing when the page is the marked one.
    fn step(mark: Option<&Self>, link: &str) -> Option<Self> {
        let page = Id::digest(link.as_bytes()).to_string();
        match mark {
            None => Some(Self { page, steps: 0, stands: 1 }),
            Some(mark) if mark.page == page => None,
            Some(mark) if mark.steps + 1 >= mark.stands => {
                Some(Self { page, steps: 0, stands: mark.stands.saturating_mul(2) })
            }
            Some(mark) => Some(Self { steps: mark.steps + 1, ..mark.clone() }),
        }
    }
}

/// A resource that has lists of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Parent {
    id: String,
    /// Where its lists are, if not at Resource Manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Task {
    fn first(subscription: Option<Subscription>, parent: Option<Parent>) -> Self {
        Self { page: 1, subscription, parent, ..Self::default() }
    }

    fn to_raw(&self) -> Result<Box<RawValue>, WorkError> {
        to_raw_value(self).map_err(|error| WorkError::NotRead {
            state: State::Failed,
            reason: format!("the task of a unit cannot be written as JSON: {error}"),
        })
    }
}

/// What a list's units have in common.
struct Place<'a> {
    list: &'static List,
    subscription: &'a Subscription,
    /// The id of the resource whose list it is, or nothing.
    parent: &'a str,
}

/// A page that was read, with where it came from.
struct Fetched {
    url: Url,
    endpoint: Endpoint,
    answer: Answer,
}

/// What became of an item whose details were asked for.
enum Detailed {
    /// The answer, or the answers of a list as a JSON array. The room is kept with it.
    Read(Box<RawValue>, Vec<Answer>),
    /// It was deleted since it was listed.
    Gone,
    NotRead(State, String),
    Throttled(Duration, String),
    Transient(String),
    /// The unit was throttled before its turn.
    NotTried,
}

impl Engine {
    fn new(plugin: &'static Plugin, settings: Settings, context: &Context) -> Result<Self, BuildError> {
        let direct = settings.endpoints.arm.is_loopback() || settings.endpoints.login.is_loopback();
        let http = Client::new(Timeouts::default(), direct, Arc::clone(&context.limits))?
            .with_concurrency(settings.concurrency);
        let api = |scope: &str| -> Result<Api, BuildError> {
            let endpoints = &settings.endpoints;
            let (credential, login) = (settings.credential.clone(), endpoints.login.clone());
            let sign_in = SignIn::new(credential, login, scope.to_owned(), http.clone())?;
            Ok(Api::new(http.clone(), sign_in))
        };
        let (arm, vaults) = (api(&settings.endpoints.arm_scope)?, api(&settings.endpoints.vault_scope)?);
        let mut expected = HashMap::from([(subscription::NAME.to_owned(), Expected::new(LIST_SIZE))]);
        for list in plugin.all_lists() {
            expected.insert(list.name.to_owned(), Expected::new(LIST_SIZE));
            expected.insert(details_of(list), Expected::new(DETAIL_SIZE));
        }
        Ok(Self { plugin, settings, arm, vaults, expected })
    }

    /// Reads a page of the list of subscriptions.
    async fn subscriptions(&self, unit: &Unit, task: &Task, out: &mut Emitter) -> Result<Done, WorkError> {
        let settings = &self.settings;
        let tenant = settings.tenant.as_deref().unwrap_or_default();
        let url = settings.endpoints.arm.url(subscription::PATH, Some(&version_query(subscription::API_VERSION)));
        let fetched = self.fetch(unit, task, Base::Subscription, url).await?;
        let page = parse(&fetched)?;
        let next = page.next(&fetched.endpoint, &fetched.url, task.page);
        let (items, mut tally) = limit(&page.value, task.before, settings.max_subs, "_max_subs", &next);
        let mut done = Done::default();
        let (mut found, mut known) = (Vec::new(), Vec::new());
        for raw in items {
            match subscription::read(raw, tenant) {
                Ok((subscription, record)) => {
                    known.extend([Some(subscription.id.clone()), subscription.name.clone()].into_iter().flatten());
                    if !self.plugin.emits_subscriptions || self.emit(out, &record, &subscription, &mut tally).await? {
                        tally.read();
                    }
                    match self.why_skipped(&subscription) {
                        Some(reason) => done.coverage.extend(self.skipped(&subscription, &reason)),
                        None => {
                            done.coverage.extend(subscription.note());
                            found.push(subscription);
                        }
                    }
                }
                Err(malformed) => tally.lost(malformed.to_string()),
            }
        }
        for raw in page.value.iter().skip(items.len()) {
            if let Ok((subscription, _)) = subscription::read(raw, tenant) {
                known.extend([Some(subscription.id.clone()), subscription.name.clone()].into_iter().flatten());
                done.coverage.extend(self.skipped(&subscription, "`_max_subs` leaves out the subscription"));
            }
        }
        if task.before + tally.count() == 0 && next == Next::End && page.value.is_empty() {
            let reason = "the application sees no subscription: give it the role Reader";
            done.coverage.push(Coverage::not_read("", subscription::NAME, State::Denied, reason));
            return Ok(done);
        }
        let seen: Vec<&str> = known.iter().map(String::as_str).collect();
        let mut unseen = settings.selection.not_matched_by(&seen);
        if let Some(before) = &task.unseen {
            unseen.retain(|entry| before.contains(entry));
        }
        if next == Next::End {
            for entry in &unseen {
                let reason = format!("`subscriptions` names {entry}, and the application sees no such subscription");
                done.coverage.push(Coverage::not_read(entry, subscription::NAME, State::Failed, reason));
            }
        }
        for list in self.plugin.lists {
            for subscription in &found {
                let task = Task::first(Some(subscription.clone()), None);
                let id = unit_id(list.name, &subscription.id, 0, 1);
                done.children.push(unit.child(id, &subscription.id, list.name, task.to_raw()?));
            }
        }
        let before = task.before + tally.count();
        let going_on = Task { before, unseen: Some(unseen), ..task.but_for_items() };
        go_on(unit, &going_on, next, &mut tally, &mut done)?;
        done.coverage.push(tally.coverage(&unit.scope, &unit.resource_type));
        Ok(done)
    }

    /// Why nothing is read in a subscription, if nothing is.
    fn why_skipped(&self, subscription: &Subscription) -> Option<String> {
        if subscription.is_deleted() {
            return Some("the subscription is deleted".to_owned());
        }
        let known_by = [Some(subscription.id.as_str()), subscription.name.as_deref()];
        let known_by: Vec<&str> = known_by.into_iter().flatten().collect();
        let is_selected = self.settings.selection.includes(&known_by);
        (!is_selected).then(|| "`subscriptions` leaves out the subscription".to_owned())
    }

    fn skipped(&self, subscription: &Subscription, reason: &str) -> Vec<Coverage> {
        let skipped = |list: &List| Coverage::not_read(&subscription.id, list.name, State::Skipped, reason);
        self.plugin.all_lists().into_iter().map(skipped).collect()
    }

    /// Reads a page of a list.
    async fn page(&self, unit: &Unit, task: &Task, place: &Place<'_>, out: &mut Emitter) -> Result<Done, WorkError> {
        let list = place.list;
        let url = self.first_url(unit, task, place)?;
        let fetched = match self.fetch(unit, task, list.base, url).await {
            Err(WorkError::NotRead { state: State::NotEnabled, reason }) if list.retired => {
                return Ok(retired(unit, &reason));
            }
            fetched => fetched?,
        };
        let page = parse(&fetched)?;
        let next = page.next(&fetched.endpoint, &fetched.url, task.page);
        // A limit is one of the subscription's resources: the lists of a resource are read whole.
        let most = if place.parent.is_empty() { self.settings.max_recs } else { None };
        let (items, mut tally) = limit(&page.value, task.before, most, "_max_recs", &next);
        let mut done = Done::default();
        let mut listed = 0;
        match &list.items {
            Items::Details(_) => listed = self.lead_to_details(unit, task, items, &mut tally, &mut done)?,
            Items::Plain(_) | Items::Records(_) | Items::Lists(..) | Items::LogProfiles => {
                for raw in items {
                    let item = Item { raw, parent: place.parent };
                    let made = match &list.items {
                        Items::Records(maker) | Items::Lists(maker, _) => maker(item),
                        Items::Plain(common_type) => super::resource::plain(list.name, *common_type, item),
                        Items::Details(_) | Items::LogProfiles => Ok(Made::default()),
                    };
                    self.emit_all(out, made, place.subscription, &mut tally).await?;
                    if let Items::Lists(_, below) = &list.items {
                        self.lead_to_lists(unit, place, raw, below, &mut done)?;
                    }
                }
            }
        }
        let before = task.before + tally.count() + listed;
        go_on(unit, &Task { before, ..task.but_for_items() }, next, &mut tally, &mut done)?;
        if let Items::Lists(_, below) = &list.items {
            done.coverage.extend(below.iter().map(|list| tally.coverage_below(&place.subscription.id, list.name)));
        }
        // What is led to has a coverage of its own: to call an unread list complete would be wrong.
        if listed == 0 || !tally.is_empty() {
            done.coverage.push(tally.coverage(&place.subscription.id, &unit.resource_type));
        }
        Ok(done)
    }

    /// Where a list begins.
    fn first_url(&self, unit: &Unit, task: &Task, place: &Place<'_>) -> Result<Url, WorkError> {
        let list = place.list;
        let query = version_query(self.version(list));
        match (list.base, &task.parent) {
            (Base::Subscription, _) => {
                let path = format!("{}/{}{}", subscription::PATH, place.subscription.id, list.path);
                Ok(self.settings.endpoints.arm.url(&path, Some(&query)))
            }
            (Base::Resource, Some(parent)) => {
                Ok(self.settings.endpoints.arm.url(&format!("{}{}", parent.id, list.path), Some(&query)))
            }
            (Base::Vault, Some(Parent { url: Some(url), .. })) => {
                let mut url = Url::parse(url).map_err(|_| foreign_task(unit, "a vault without a URL"))?;
                url.set_path(&format!("{}/{}", url.path().trim_end_matches('/'), list.path));
                url.set_query(Some(&query));
                Ok(url)
            }
            _ => Err(foreign_task(unit, "no resource whose list it is")),
        }
    }

    /// The units that read the details of a page's items; how many items they take.
    fn lead_to_details(
        &self,
        unit: &Unit,
        task: &Task,
        items: &[&RawValue],
        tally: &mut Tally,
        done: &mut Done,
    ) -> Result<u64, WorkError> {
        let mut units: Vec<Vec<Box<RawValue>>> = Vec::new();
        let (mut listed, mut bytes) = (0, 0);
        for raw in items {
            let size = raw.get().len();
            if size > LARGEST_PARENT {
                tally.lost(format!("a resource of {size} bytes is too large to have its details read"));
                continue;
            }
            listed += 1;
            bytes += size;
            match units.last_mut() {
                Some(unit) if unit.len() < MOST_PARENTS && bytes <= MOST_PARENT_BYTES => unit.push((*raw).to_owned()),
                _ => {
                    bytes = size;
                    units.push(vec![(*raw).to_owned()]);
                }
            }
        }
        let page = unit_id(&unit.resource_type, &self.place_id(unit, task), unit.restart, task.page);
        for (number, items) in units.into_iter().enumerate() {
            let task = Task { page: 0, items, mark: None, ..task.but_for_items() };
            let calls = u32::try_from(task.items.len().min(AHEAD)).unwrap_or(1);
            let details = unit.next_page(format!("{page}/d{}", number + 1), task.to_raw()?);
            done.children.push(Unit { calls, ..details });
        }
        Ok(listed)
    }

    /// The units that read the lists of an item.
    fn lead_to_lists(
        &self,
        unit: &Unit,
        place: &Place<'_>,
        raw: &RawValue,
        below: &'static [List],
        done: &mut Done,
    ) -> Result<(), WorkError> {
        let scope = &place.subscription.id;
        let unknown = |list: &List, state, reason| Coverage::not_read(scope, list.name, state, reason);
        let id = match super::resource::id_of("a resource", raw) {
            Ok(id) if is_resource_id(&id) => id,
            Ok(id) => {
                let reason = format!("{id:?} is not the id of a resource: its lists are not read");
                done.coverage.extend(below.iter().map(|list| unknown(list, State::Failed, reason.clone())));
                return Ok(());
            }
            Err(Malformed(reason)) => {
                done.coverage.extend(below.iter().map(|list| unknown(list, State::Failed, reason.clone())));
                return Ok(());
            }
        };
        for list in below {
            let url = match list.base {
                Base::Vault => match self.vault(raw) {
                    Ok(url) => Some(url.into()),
                    Err(Malformed(reason)) => {
                        done.coverage.push(unknown(list, State::Failed, reason));
                        continue;
                    }
                },
                Base::Subscription | Base::Resource => None,
            };
            let task = Task::first(Some(place.subscription.clone()), Some(Parent { id: id.clone().into_owned(), url }));
            let unit_id = unit_id(list.name, &place_id(scope, Some(&id)), 0, 1);
            let name = id.rsplit('/').next().unwrap_or_default().to_lowercase();
            done.children.push(Unit { list: Some(name), ..unit.child(unit_id, scope, list.name, task.to_raw()?) });
        }
        Ok(())
    }

    /// How the names of vaults end.
    fn vault_domain(&self) -> String {
        let endpoints = &self.settings.endpoints;
        match (endpoints.vault_suffix, Url::parse(&endpoints.vault_scope)) {
            (Some(suffix), _) => suffix.to_owned(),
            (None, Ok(scope)) => format!(".{}", scope.host_str().unwrap_or_default()),
            (None, Err(_)) => endpoints.vault_scope.clone(),
        }
    }

    /// Where a vault is. The token for vaults is shown to vaults only.
    fn vault(&self, raw: &RawValue) -> Result<Url, Malformed> {
        let text = vault_uri(raw)?;
        let bad = |why: &str| Malformed(format!("the URI of a vault, {text:?}, {why}"));
        let url = Url::parse(&text).map_err(|error| bad(&format!("is not a URL ({error})")))?;
        let endpoint = Endpoint::of(&url).map_err(|error| bad(&format!("cannot be used: {error}")))?;
        let is_vault = endpoint.host().to_ascii_lowercase().ends_with(&self.vault_domain());
        // Simulators have no names: what is on this host may lead to this host.
        if is_vault || (endpoint.is_loopback() && self.settings.endpoints.arm.is_loopback()) {
            Ok(url)
        } else {
            Err(bad("is not one of this cloud's vaults, which alone may see the token (`key_vault_scope`)"))
        }
    }

    fn place_id(&self, unit: &Unit, task: &Task) -> String {
        place_id(&unit.scope, task.parent.as_ref().map(|parent| parent.id.as_str()))
    }

    async fn fetch(&self, unit: &Unit, task: &Task, base: Base, first: Url) -> Result<Fetched, WorkError> {
        let endpoint = match base {
            Base::Vault => Endpoint::of(&first).map_err(|_| foreign_task(unit, "a vault without a host"))?,
            Base::Subscription | Base::Resource => self.settings.endpoints.arm.clone(),
        };
        let url = match &task.link {
            None => first,
            Some(link) => match Url::parse(link) {
                // It was looked at when it was found; the token is worth another look.
                Ok(url) if endpoint.is_origin_of(&url) => url,
                _ => return Err(foreign_task(unit, "a link that leads away from where the list is")),
            },
        };
        match self.get(base, &url, unit, task.page, &unit.resource_type).await {
            Ok(answer) => Ok(Fetched { url, endpoint, answer }),
            Err(Refusal::PageToken(reason)) => {
                let task = Task { page: 1, link: None, before: 0, unseen: None, mark: None, ..task.but_for_items() };
                let id = unit_id(&unit.resource_type, &self.place_id(unit, &task), unit.restart + 1, 1);
                let first = unit.next_page(id, task.to_raw()?);
                Err(WorkError::PageRefused { first: Box::new(first), reason })
            }
            Err(refusal) => {
                let list = self.plugin.find(&unit.resource_type);
                Err(not_found_or(refusal, list.is_some_and(|list| list.retired)))
            }
        }
    }

    async fn get(&self, base: Base, url: &Url, unit: &Unit, page: u32, kind: &str) -> Result<Answer, Refusal> {
        self.ask(base, url, unit, page, kind, true).await
    }

    /// `waits`: whether it waits for room, as the first call for something does.
    async fn ask(
        &self,
        base: Base,
        url: &Url,
        unit: &Unit,
        page: u32,
        kind: &str,
        waits: bool,
    ) -> Result<Answer, Refusal> {
        let (api, scope) = match base {
            Base::Vault => (&self.vaults, url.host_str().unwrap_or_default()),
            Base::Subscription | Base::Resource => (&self.arm, unit.scope.as_str()),
        };
        let Some(expected) = self.expected.get(kind) else {
            return Err(Refusal::Work(foreign_task(unit, "another resource type")));
        };
        match waits {
            true => api.get(url, scope, page, expected).await,
            false => api.get_at_once(url, scope, page, expected).await,
        }
    }

    /// Reads the details of a unit's items, and leaves the rest to another unit when it is throttled on the way.
    async fn details(
        &self,
        unit: &Unit,
        task: &Task,
        place: &Place<'_>,
        detail: &Detail,
        out: &mut Emitter,
    ) -> Result<Done, WorkError> {
        let halted = AtomicBool::new(false);
        let (mut tally, mut rest, mut pause, mut failure) = (Tally::default(), Vec::new(), None, None);
        let mut asked: Vec<BoxFuture<'_, (&Box<RawValue>, Detailed)>> = Vec::with_capacity(task.items.len());
        for item in &task.items {
            let halted = &halted;
            asked.push(Box::pin(async move { (item, self.detail(unit, place, detail, item, halted).await) }));
        }
        let mut answers = stream::iter(asked).buffered(AHEAD);
        while let Some((item, detailed)) = answers.next().await {
            match detailed {
                Detailed::Read(answer, _room) => {
                    let made = (detail.maker)(Item { raw: item, parent: place.parent }, &answer);
                    self.emit_all(out, made, place.subscription, &mut tally).await?;
                }
                Detailed::Gone => tracing::debug!("a resource was deleted since it was listed"),
                Detailed::NotRead(state, reason) => tally.not_read(state, reason),
                Detailed::Throttled(wait, reason) => {
                    rest.push(item);
                    let longest = pause.as_ref().map_or(Duration::ZERO, |pause: &Pause| pause.wait);
                    pause = Some(Pause { wait: wait.max(longest), reason });
                }
                Detailed::Transient(reason) => {
                    rest.push(item);
                    failure = Some(reason);
                }
                Detailed::NotTried => rest.push(item),
            }
        }
        let wait = pause.as_ref().map_or(REST_WAIT, |pause| pause.wait);
        if rest.len() == task.items.len() {
            return Err(match (pause, failure) {
                (Some(Pause { wait, reason }), _) => WorkError::Throttled { wait, reason },
                (None, reason) => WorkError::Transient { reason: reason.unwrap_or_default() },
            });
        }
        let mut done = Done { pause, ..Done::default() };
        if !rest.is_empty() {
            let items = rest.into_iter().cloned().collect();
            let rest = Task { items, ..task.but_for_items() };
            done.children.push(unit.rest(rest.to_raw()?, wait));
        }
        done.coverage.push(tally.coverage(&place.subscription.id, &unit.resource_type));
        Ok(done)
    }

    async fn detail(
        &self,
        unit: &Unit,
        place: &Place<'_>,
        detail: &Detail,
        item: &RawValue,
        halted: &AtomicBool,
    ) -> Detailed {
        if halted.load(Ordering::Relaxed) {
            return Detailed::NotTried;
        }
        let detailed = self.try_detail(unit, place, detail, item).await;
        if matches!(detailed, Detailed::Throttled(..)) {
            halted.store(true, Ordering::Relaxed);
        }
        detailed
    }

    async fn try_detail(&self, unit: &Unit, place: &Place<'_>, detail: &Detail, item: &RawValue) -> Detailed {
        let id = match super::resource::id_of("a resource", item) {
            Ok(id) if is_resource_id(&id) => id,
            Ok(id) => return Detailed::NotRead(State::Partial, format!("{id:?} is not the id of a resource")),
            Err(Malformed(reason)) => return Detailed::NotRead(State::Partial, reason),
        };
        let kind = details_of(place.list);
        let version = self.settings.api_versions.get(&kind).map_or(detail.api_version, String::as_str);
        let mut url = self.settings.endpoints.arm.url(&format!("{id}{}", detail.path), Some(&version_query(version)));
        let (mut pages, mut items) = (Vec::new(), Vec::new());
        for page in 1.. {
            let answer = match self.ask(Base::Resource, &url, unit, page, &kind, page == 1).await {
                Ok(answer) => answer,
                Err(Refusal::NotFound(reason)) => return self.is_it_gone(unit, place, &id, reason).await,
                Err(refusal) => return refused(refusal),
            };
            if !detail.is_list {
                return match serde_json::from_slice::<Box<RawValue>>(without_mark(&answer.body)) {
                    Ok(raw) => Detailed::Read(raw, vec![answer]),
                    Err(error) => unreadable(&url, &error),
                };
            }
            let next = match Page::parse(&answer.body) {
                Ok(read) => {
                    items.extend(read.value.iter().map(|raw| raw.get().to_owned()));
                    read.next(&self.settings.endpoints.arm, &url, page)
                }
                Err(error) => return unreadable(&url, &error),
            };
            pages.push(answer);
            match next {
                Next::End => break,
                Next::Page(next) if page < MOST_DETAIL_PAGES => url = next,
                Next::Page(_) => {
                    return Detailed::NotRead(State::Failed, format!("{id}: more than {MOST_DETAIL_PAGES} pages"));
                }
                Next::Refused(reason) => return Detailed::NotRead(State::Failed, format!("{id}: {reason}")),
            }
        }
        match RawValue::from_string(format!("[{}]", items.join(","))) {
            Ok(raw) => Detailed::Read(raw, pages),
            Err(error) => unreadable(&url, &error),
        }
    }

    /// Details that are not there: either the whole resource is gone, or they alone are missing.
    async fn is_it_gone(&self, unit: &Unit, place: &Place<'_>, id: &str, reason: String) -> Detailed {
        let url = self.settings.endpoints.arm.url(id, Some(&version_query(self.version(place.list))));
        match self.ask(Base::Resource, &url, unit, 1, &details_of(place.list), false).await {
            Err(Refusal::NotFound(_)) => Detailed::Gone,
            Ok(_) => Detailed::NotRead(State::Failed, reason),
            Err(refusal) => refused(refusal),
        }
    }

    /// Reads the log profiles of a subscription, and whether there is something newer in their place.
    async fn log_profiles(&self, unit: &Unit, place: &Place<'_>, out: &mut Emitter) -> Result<Done, WorkError> {
        let list = place.list;
        let url = |path: &str, version: &str| {
            let path = format!("{}/{}{path}", subscription::PATH, place.subscription.id);
            self.settings.endpoints.arm.url(&path, Some(&version_query(version)))
        };
        let mut tally = Tally::default();
        let profiles = self.whole_list(unit, url(list.path, self.version(list)), list.retired).await;
        let profiles = match profiles {
            // Azure has retired log profiles: where there is no such thing any more, there are none.
            Err(WorkError::NotRead { state: State::NotEnabled, reason }) => {
                tally.note(reason);
                Vec::new()
            }
            profiles => profiles?,
        };
        let mut beside = async |path, version| match self.whole_list(unit, url(path, version), false).await {
            Ok(items) => Ok(Some(items)),
            Err(WorkError::NotRead { state, reason }) => {
                if state != State::NotEnabled {
                    tally.cut(reason);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        };
        let locations = beside(monitor::LOCATIONS_PATH, monitor::LOCATIONS_API_VERSION).await?;
        let newer = beside(monitor::SETTINGS.path, self.version(&monitor::SETTINGS)).await?;
        let mut names = Vec::new();
        for raw in locations.iter().flatten() {
            match monitor::location_name(raw) {
                Ok(name) => names.push(name.into_owned()),
                Err(Malformed(reason)) => tally.lost(reason),
            }
        }
        let locations = locations.is_some().then_some(names);
        if profiles.is_empty() {
            // Settings of which one cannot be understood are settings of which nothing is known.
            let exporting = newer.map(|settings| settings.iter().map(|raw| monitor::exports(raw)).collect::<Vec<_>>());
            let newer = match exporting {
                Some(exporting) if exporting.iter().all(Result::is_ok) => {
                    Some(exporting.into_iter().flatten().filter(|exports| *exports).count() as u64)
                }
                _ => None,
            };
            let made = Made::one(monitor::log_profile_missing(&place.subscription.id, newer));
            self.emit_all(out, Ok(made), place.subscription, &mut tally).await?;
        }
        for raw in &profiles {
            let made = monitor::log_profile(raw, locations.as_deref());
            self.emit_all(out, made, place.subscription, &mut tally).await?;
        }
        let coverage = vec![tally.coverage(&place.subscription.id, &unit.resource_type)];
        Ok(Done { coverage, ..Done::default() })
    }

    /// All items of a short list. Of a retired service, an answer that there is no such thing means that it is not
    /// enabled.
    async fn whole_list(&self, unit: &Unit, first: Url, retired: bool) -> Result<Vec<Box<RawValue>>, WorkError> {
        let (mut items, mut url) = (Vec::new(), first);
        for page in 1..=MOST_DETAIL_PAGES {
            let answer = self.get(Base::Subscription, &url, unit, page, &unit.resource_type).await;
            let answer = answer.map_err(|refusal| not_found_or(refusal, retired))?;
            let fetched = Fetched { url, endpoint: self.settings.endpoints.arm.clone(), answer };
            let read = parse(&fetched)?;
            items.extend(read.value.iter().map(|raw| (*raw).to_owned()));
            match read.next(&fetched.endpoint, &fetched.url, page) {
                Next::End => return Ok(items),
                Next::Page(next) => url = next,
                Next::Refused(reason) => return Err(WorkError::NotRead { state: State::Partial, reason }),
            }
        }
        Err(WorkError::NotRead { state: State::Partial, reason: format!("more than {MOST_DETAIL_PAGES} pages") })
    }

    /// Emits what was made of a resource, and counts the resource.
    async fn emit_all(
        &self,
        out: &mut Emitter,
        made: Result<Made<'_>, Malformed>,
        subscription: &Subscription,
        tally: &mut Tally,
    ) -> Result<(), WorkError> {
        let made = match made {
            Ok(made) => made,
            Err(Malformed(reason)) => {
                tally.lost(reason);
                return Ok(());
            }
        };
        for reason in made.lost {
            tally.lost(reason);
        }
        // The last record is the resource's own; a resource that gives none was read all the same.
        let mut whole = true;
        for record in &made.records {
            whole = self.emit(out, record, subscription, tally).await?;
        }
        if whole {
            tally.read();
        }
        Ok(())
    }

    /// Emits a record; false when it alone cannot be.
    async fn emit(
        &self,
        out: &mut Emitter,
        record: &Record<'_>,
        subscription: &Subscription,
        tally: &mut Tally,
    ) -> Result<bool, WorkError> {
        let (key, com) = (record.key(), record.com());
        let ext = record.ext(subscription, self.plugin.emits_subscriptions);
        let draft = Draft { record_type: record.record_type, key: &key, raw: record.raw.get(), ext: &ext, com: &com };
        match out.emit(draft).await {
            Ok(()) => Ok(true),
            Err(WorkError::NotRead { reason, .. }) => {
                tally.lost(reason);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn version(&self, list: &List) -> &str {
        self.settings.api_versions.get(list.name).map_or(list.api_version, String::as_str)
    }
}

#[async_trait::async_trait]
impl Cloud for Engine {
    async fn work(&self, unit: &Unit, out: &mut Emitter) -> Result<Done, WorkError> {
        if unit.id == ROOT {
            let task = Task::first(None, None);
            let first = unit.child(unit_id(subscription::NAME, "", 0, 1), "", subscription::NAME, task.to_raw()?);
            return Ok(Done { children: vec![first], ..Done::default() });
        }
        let task: Task =
            serde_json::from_str(unit.task.get()).map_err(|error| foreign_task(unit, &error.to_string()))?;
        let Some(subscription) = &task.subscription else {
            return match unit.resource_type.as_str() {
                subscription::NAME => self.subscriptions(unit, &task, out).await,
                _ => Err(foreign_task(unit, "no subscription")),
            };
        };
        let Some(list) = self.plugin.find(&unit.resource_type) else {
            return Err(foreign_task(unit, "another resource type"));
        };
        let parent = task.parent.as_ref().map_or("", |parent| parent.id.as_str());
        let place = Place { list, subscription, parent };
        match &list.items {
            Items::Details(detail) if !task.items.is_empty() => self.details(unit, &task, &place, detail, out).await,
            Items::LogProfiles => self.log_profiles(unit, &place, out).await,
            _ => self.page(unit, &task, &place, out).await,
        }
    }

    /// Of details, it is known how many are missing; of a list whose items have lists, these are not read either.
    fn unread(&self, unit: &Unit, own: Coverage) -> Vec<Coverage> {
        let items = serde_json::from_str::<Task>(unit.task.get()).map_or(0, |task| task.items.len() as u64);
        if items > 0 {
            return vec![Coverage { missing: Some(items), ..own }];
        }
        let below = match self.plugin.find(&unit.resource_type).map(|list| &list.items) {
            Some(Items::Lists(_, below)) => *below,
            _ => &[],
        };
        let below = below.iter().map(|list| Coverage { resource_type: list.name.to_owned(), ..own.clone() });
        below.chain([own.clone()]).collect()
    }

    fn patience(&self) -> Duration {
        self.settings.patience.unwrap_or(crate::cloud::PATIENCE)
    }
}

impl Task {
    /// The same without the items.
    fn but_for_items(&self) -> Self {
        Self {
            page: self.page,
            link: self.link.clone(),
            before: self.before,
            subscription: self.subscription.clone(),
            parent: self.parent.clone(),
            items: Vec::new(),
            unseen: self.unseen.clone(),
            mark: self.mark.clone(),
        }
    }
}

/// A list that is not there: a service that is retired has nothing.
fn not_found_or(refusal: Refusal, retired: bool) -> WorkError {
    match refusal {
        Refusal::NotFound(reason) if retired => WorkError::NotRead { state: State::NotEnabled, reason },
        refusal => refusal.into_work_error(),
    }
}

/// Adds the next page.
fn go_on(unit: &Unit, task: &Task, next: Next, tally: &mut Tally, done: &mut Done) -> Result<(), WorkError> {
    match next {
        Next::Page(url) if !tally.is_limited() => {
            let parent = task.parent.as_ref().map(|parent| parent.id.as_str());
            let Some(mark) = Mark::step(task.mark.as_ref(), url.as_str()) else {
                tally.cut("the list goes round in circles: a page leads to one before it".to_owned());
                return Ok(());
            };
            let (link, mark) = (Some(url.into()), Some(mark));
            let task = Task { page: task.page + 1, link, mark, ..task.but_for_items() };
            let id = unit_id(&unit.resource_type, &place_id(&unit.scope, parent), unit.restart, task.page);
            done.children.push(unit.next_page(id, task.to_raw()?));
        }
        Next::Refused(reason) => tally.cut(reason),
        Next::Page(_) | Next::End => {}
    }
    Ok(())
}

/// The scope, and the resource in it whose list is read, as a part of a unit's id.
fn place_id(scope: &str, parent: Option<&str>) -> String {
    match parent {
        // Ids come now in this case, now in that.
        Some(id) => format!("{scope}/{}", Id::digest(id.to_lowercase().as_bytes())),
        None => scope.to_owned(),
    }
}

/// The name of a list's details among `api_versions`.
fn details_of(list: &List) -> String {
    format!("{}_details", list.name)
}

fn version_query(version: &str) -> String {
    format!("api-version={version}")
}

/// It becomes a path: nothing in it may lead elsewhere.
fn is_resource_id(id: &str) -> bool {
    id.starts_with('/') && !id.contains(['?', '#', '\\']) && !id.split('/').any(|part| part == ".." || part == ".")
}

fn refused(refusal: Refusal) -> Detailed {
    if let Refusal::PageToken(reason) = refusal {
        // The details are read from their first page again.
        return Detailed::Transient(reason);
    }
    match refusal.into_work_error() {
        WorkError::Throttled { wait, reason } => Detailed::Throttled(wait, reason),
        WorkError::Transient { reason } => Detailed::Transient(reason),
        WorkError::NotRead { state, reason } => Detailed::NotRead(state, reason),
        WorkError::PageRefused { reason, .. } => Detailed::Transient(reason),
        WorkError::Bus(error) => Detailed::Transient(error.to_string()),
    }
}

fn unreadable(url: &Url, error: &serde_json::Error) -> Detailed {
    let call = call("GET", url);
    if error.is_eof() {
        Detailed::Transient(format!("{call}: the answer was cut off ({error})"))
    } else {
        Detailed::NotRead(State::Failed, format!("{call}: the answer cannot be understood ({error})"))
    }
}

/// Nothing is there of a service that Azure has retired.
fn retired(unit: &Unit, reason: &str) -> Done {
    let reason = format!("Azure has retired the service: {reason}");
    let coverage = vec![Coverage::not_read(&unit.scope, &unit.resource_type, State::NotEnabled, reason)];
    Done { coverage, ..Done::default() }
}

fn parse(fetched: &Fetched) -> Result<Page<'_>, WorkError> {
    Page::parse(&fetched.answer.body).map_err(|error| {
        let call = call("GET", &fetched.url);
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

/// A unit that this version of the plugin did not make.
fn foreign_task(unit: &Unit, why: &str) -> WorkError {
    WorkError::NotRead {
        state: State::Failed,
        reason: format!("the unit {} is not one of this version's ({why}): do all workers run the same one?", unit.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_goes_round_in_circles_is_found_out() {
        for (before, circle) in [(0, 2), (3, 2), (5, 7), (0, 1)] {
            let page = |step: usize| if step < before { step } else { before + (step - before) % circle };
            let mut mark = None;
            let found = (0..200).find(|step| {
                let next = Mark::step(mark.as_ref(), &page(*step).to_string());
                mark.clone_from(&next);
                next.is_none()
            });
            assert!(found.is_some_and(|step| step < 8 * (before + circle)), "{before} {circle}: {found:?}");
        }
        let mut mark = None;
        for step in 0..1000 {
            mark = Mark::step(mark.as_ref(), &step.to_string());
            assert!(mark.is_some(), "{step}");
        }
    }
}
