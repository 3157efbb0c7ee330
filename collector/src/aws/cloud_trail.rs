//! The plugin `AwsCloudTrail`: the management events of accounts, region by region, as LookupEvents returns them.
//!
//! The root leads to the accounts; an account finds out who it is and which regions it has, and leads to the first
//! window of each. A region's windows are read one after the other, the oldest first, in units of some pages each.
//! AWS takes two calls in a second to each region of an account, so nothing is gained by more at once.
//!
//! Reference: <https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html>.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use proto::catalogue::{ParamError, PluginClass};
use proto::checkpoint::{self, Checkpoints, Reached};
use proto::coverage::{Coverage, State};
use proto::plan::Stage;
use proto::record::Text;
use proto::subject::Role;
use proto::unit::{ROOT, Unit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::account::Account;
use super::api::{Api, Call, Refusal};
use super::event::{Envelope, EventReader};
use super::params::AwsParams;
use super::region::{Service, is_region};
use super::{sdk_http, xml};
use crate::activity::TYPE;
use crate::activity::keep::{Event, Matcher};
use crate::activity::window::{Span, Windows, missing, moment, read_until};
use crate::cloud::{Cloud, Done, PATIENCE, Pause, WorkError};
use crate::emit::{Draft, Emitter};
use crate::http::{Answer, Client, Endpoint, Expected, Timeouts};
use crate::registry::Context;
use crate::tally::{Tally, unit_id};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.awscloudtrail.AwsCloudTrail",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("aws"),
    check: Some(&|params| AwsParams::read(params).map(drop)),
};

const TARGET: &str = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents";
/// Most events of a page.
const PAGE: u32 = 50;
/// Most pages of a unit: some ten seconds.
const MOST_PAGES: u32 = 20;
/// A window of more pages goes round in circles: no region has so many events in a month.
const PAGES_OF_WINDOW: u32 = 1_000_000;
/// How many calls AWS takes in a second.
const CALLS_PER_SECOND: u32 = 2;
/// How long the rest of a unit waits after something failed in passing.
const REST_WAIT: Duration = Duration::from_secs(1);

/// Builds the plugin of its parameters, expanded. Nothing is asked of the network yet.
///
/// # Errors
/// All that is wrong with them, or that TLS cannot be set up.
pub fn build(params: &Value, context: &Context) -> Result<Arc<dyn Cloud>, Vec<ParamError>> {
    let mut params = AwsParams::read(params)?;
    let in_general = |message: String| vec![ParamError { path: String::new(), message }];
    let endpoint = params.endpoint_url.as_deref().map(Endpoint::parse).transpose();
    let endpoint = endpoint.map_err(|error| in_general(format!("`endpoint_url`: {error}")))?;
    let no_tls = |error| in_general(format!("cannot set up TLS: {error}; does this host have CA certificates?"));
    let direct = endpoint.as_ref().is_some_and(Endpoint::is_loopback);
    let concurrency = params.concurrency.map(|calls| usize::try_from(calls.get()).unwrap_or(usize::MAX));
    let http = Client::new(Timeouts::default(), direct, Arc::clone(&context.limits)).map_err(no_tls)?;
    let sdk_http = sdk_http::client().map_err(no_tls)?;
    let mut accounts = std::mem::take(&mut params.accounts);
    if accounts.is_empty() {
        accounts.push(super::params::AccountParams::default());
    }
    let account = |account| Account::new(account, params.regions.first(), params.endpoint_url.as_ref(), &sdk_http);
    Ok(Arc::new(CloudTrail {
        accounts: accounts.into_iter().map(account).collect(),
        matcher: params.matcher()?,
        windows: params.windows(),
        api: Api::new(
            http.with_concurrency(concurrency),
            endpoint,
            params.calls_per_second.map_or(CALLS_PER_SECOND, std::num::NonZeroU32::get),
        ),
        reader: EventReader::new(),
        page_size: Expected::new(256 * 1024),
        small: Expected::new(16 * 1024),
        regions: params.regions,
        patience: params.patience.unwrap_or(PATIENCE),
    }))
}

/// The plugin at work.
struct CloudTrail {
    accounts: Vec<Account>,
    matcher: Matcher,
    windows: Windows,
    api: Api,
    reader: EventReader,
    /// How large answers are.
    page_size: Expected,
    small: Expected,
    regions: Vec<String>,
    patience: Duration,
}

/// What the unit of an account carries.
#[derive(Debug, Serialize, Deserialize)]
struct AccountTask {
    /// Its number among the accounts of the configuration.
    account: usize,
    /// Where the run before came to.
    #[serde(flatten)]
    checkpoints: Checkpoints,
}

/// What a unit of a window carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WindowTask {
    account: usize,
    /// The account's own id.
    id: String,
    region: String,
    #[serde(flatten)]
    span: Span,
    /// The page's number, from 1.
    page: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl WindowTask {
    /// The place, in coverage and in units.
    fn place(&self) -> String {
        format!("{}/{}", self.id, self.region)
    }

    fn unit(&self, parent: &Unit, restart: u32) -> Result<Unit, WorkError> {
        let window = moment(self.span.from).to_string();
        let place = self.place();
        let id = unit_id(TYPE, &format!("{place}/{window}"), restart, self.page);
        Ok(Unit { list: Some(window), ..parent.child(id, &place, TYPE, to_raw(self)?) })
    }
}

/// A page of the answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page<'a> {
    #[serde(borrow, default)]
    events: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    next_token: Option<Text<'a>>,
}

#[async_trait]
impl Cloud for CloudTrail {
    async fn work(&self, unit: &Unit, out: &mut Emitter) -> Result<Done, WorkError> {
        if unit.id == ROOT {
            return self.root(unit);
        }
        if let Ok(task) = serde_json::from_str::<WindowTask>(unit.task.get()) {
            return self.window(unit, task, out).await;
        }
        match serde_json::from_str::<AccountTask>(unit.task.get()) {
            Ok(task) => self.account(unit, &task).await,
            Err(error) => Err(failed(format!("the unit {} is not one of AwsCloudTrail's: {error}", unit.id))),
        }
    }

    fn unread(&self, unit: &Unit, own: Coverage) -> Vec<Coverage> {
        let Ok(task) = serde_json::from_str::<WindowTask>(unit.task.get()) else { return vec![own] };
        vec![missing(own, &task.span)]
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

impl CloudTrail {
    fn root(&self, unit: &Unit) -> Result<Done, WorkError> {
        let all = Checkpoints::of_task(&unit.task);
        let children = self.accounts.iter().enumerate().map(|(number, account)| {
            let params = account.params();
            let checkpoints = match &params.account {
                Some(id) => all.of(&format!("{id}/")),
                None => all.clone(),
            };
            let task = AccountTask { account: number, checkpoints };
            Ok(unit.child(format!("account/{number}"), &params.label(), TYPE, to_raw(&task)?))
        });
        Ok(Done { children: children.collect::<Result<_, WorkError>>()?, ..Done::default() })
    }

    fn account_of(&self, unit: &Unit, number: usize) -> Result<&Account, WorkError> {
        self.accounts.get(number).ok_or_else(|| failed(format!("the unit {} is of no account", unit.id)))
    }

    /// Finds out which account it is and which regions it has.
    async fn account(&self, unit: &Unit, task: &AccountTask) -> Result<Done, WorkError> {
        let account = self.account_of(unit, task.account)?;
        let id = self.identity(account).await?;
        let params = account.params();
        if let Some(expected) = params.account.as_ref().filter(|expected| **expected != id) {
            let reason = format!("the credentials for the account {expected} are of the account {id}: correct either");
            return Err(failed(reason));
        }
        let named = [&params.regions, &self.regions].into_iter().find(|regions| !regions.is_empty());
        let regions = match named {
            Some(regions) => regions.clone(),
            None => self.enabled_regions(account).await?,
        };
        let mut done = Done::default();
        for region in regions {
            let key = checkpoint::key(&[&id, &region], self.matcher.digest());
            let beginning = self.windows.begin(&unit.version, task.checkpoints.until(&key));
            let task = WindowTask {
                account: task.account,
                id: id.clone(),
                region,
                span: beginning.first,
                page: 1,
                token: None,
            };
            done.coverage.extend(beginning.lost(&task.place()));
            done.children.push(task.unit(unit, 0)?);
        }
        Ok(done)
    }

    /// The account that the credentials are of.
    async fn identity(&self, account: &Account) -> Result<String, WorkError> {
        let body = "Action=GetCallerIdentity&Version=2011-06-15";
        let answer = self.ask(account, Service::Sts, "GetCallerIdentity", body).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let id = xml::text(&text, "Account").filter(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_digit()));
        id.map(str::to_owned)
            .ok_or_else(|| failed("GetCallerIdentity names no account: is it AWS that answers?".into()))
    }

    async fn enabled_regions(&self, account: &Account) -> Result<Vec<String>, WorkError> {
        // Without `AllRegions`, those that are enabled.
        let body = "Action=DescribeRegions&Version=2016-11-15";
        let answer = match self.ask(account, Service::Ec2, "DescribeRegions", body).await {
            Err(WorkError::NotRead { state: State::Denied, reason }) => {
                let reason = format!("{reason}, or name the account's `regions`");
                return Err(WorkError::NotRead { state: State::Denied, reason });
            }
            answer => answer?,
        };
        let text = String::from_utf8_lossy(&answer.body);
        let regions: Vec<String> =
            xml::texts(&text, "regionName").into_iter().filter(|name| is_region(name)).map(str::to_owned).collect();
        if regions.is_empty() {
            return Err(failed("DescribeRegions names no region: is it AWS that answers?".into()));
        }
        Ok(regions)
    }

    /// A small question about an account.
    async fn ask(
        &self,
        account: &Account,
        service: Service,
        action: &'static str,
        body: &str,
    ) -> Result<Answer, WorkError> {
        let region = account.main_region().await?;
        let call = Call { service, region, action, target: None, body: body.to_owned(), expected: &self.small };
        self.api.call(account, &call).await.map_err(Refusal::into_work_error)
    }

    /// Reads some pages of a window, and leads to what follows.
    async fn window(&self, unit: &Unit, task: WindowTask, out: &mut Emitter) -> Result<Done, WorkError> {
        let account = self.account_of(unit, task.account)?;
        let place = task.place();
        let (mut task, mut tally, mut done) = (task, Tally::default(), Done::default());
        let begun = task.page;
        loop {
            let answer = match self.page(account, &task, &place).await {
                Ok(answer) => answer,
                Err(refusal) => {
                    let is_first = task.page == begun;
                    refused(unit, &task, refusal, is_first, &mut tally, &mut done)?;
                    break;
                }
            };
            let page: Page<'_> = match serde_json::from_slice(&answer.body) {
                Ok(page) => page,
                Err(error) => {
                    tally.cut(format!("a page of the log cannot be understood: {error}"));
                    break;
                }
            };
            for raw in &page.events {
                self.emit(raw, &task, out, &mut tally).await?;
            }
            let Some(Text(token)) = page.next_token else {
                self.end_window(unit, &task, answer.server_time(), &mut done)?;
                break;
            };
            if task.token.as_deref() == Some(&*token) || task.page >= PAGES_OF_WINDOW {
                tally.cut(format!("the log of {} goes round in circles", task.span.words()));
                break;
            }
            task = WindowTask { token: Some(token.into_owned()), page: task.page + 1, ..task };
            if task.page - begun >= MOST_PAGES {
                let next = task.unit(unit, unit.restart)?;
                done.children.push(Unit { restart: unit.restart, ..next });
                break;
            }
        }
        let coverage = tally.coverage(&place, TYPE);
        let is_cut = coverage.state != State::Complete && done.children.is_empty() && done.reached.is_empty();
        done.coverage.push(if is_cut { missing(coverage, &task.span) } else { coverage });
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
        let key = checkpoint::key(&[&task.id, &task.region], self.matcher.digest());
        done.reached.push(Reached { key, until: read_until(&task.span, now) });
        if let Some(span) = self.windows.next(&task.span) {
            let next = WindowTask { span, page: 1, token: None, ..task.clone() };
            done.children.push(next.unit(unit, 0)?);
        }
        Ok(())
    }

    async fn page(&self, account: &Account, task: &WindowTask, place: &str) -> Result<Answer, Refusal> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Lookup<'a> {
            start_time: i64,
            end_time: i64,
            max_results: u32,
            #[serde(skip_serializing_if = "Option::is_none")]
            next_token: Option<&'a str>,
        }
        let lookup = Lookup {
            start_time: task.span.from,
            end_time: task.span.until,
            max_results: PAGE,
            next_token: task.token.as_deref(),
        };
        let body = serde_json::to_string(&lookup).map_err(|error| failed(error.to_string()))?;
        let call = Call {
            service: Service::CloudTrail,
            region: &task.region,
            action: "LookupEvents",
            target: Some(TARGET),
            body,
            expected: &self.page_size,
        };
        self.api.keep_pace(place).await;
        self.api.call(account, &call).await
    }

    /// Emits an event if it is kept.
    async fn emit(
        &self,
        raw: &RawValue,
        task: &WindowTask,
        out: &mut Emitter,
        tally: &mut Tally,
    ) -> Result<(), WorkError> {
        let read = Envelope::read(raw).and_then(|envelope| envelope.log(raw).map(|log| (envelope, log)));
        let (envelope, log) = match read {
            Ok(read) => read,
            Err(reason) => {
                tally.lost(reason);
                return Ok(());
            }
        };
        let own = envelope.own();
        let rules = match self.matcher.holding(&Event { log: log.get(), own: &own }) {
            Ok(Some(rules)) => rules,
            Ok(None) => return Ok(()),
            Err(error) => {
                tally.lost(format!("a log event cannot be understood: {error}"));
                return Ok(());
            }
        };
        let read = match self.reader.read(&log, &envelope) {
            Ok(read) => read,
            Err(reason) => {
                tally.lost(reason);
                return Ok(());
            }
        };
        let Some(id) = read.id() else {
            tally.lost(format!("an event of {} has no id", task.place()));
            return Ok(());
        };
        let ext = read.ext(&task.id, &task.region);
        let com = read.com(id, &task.id, &task.region, &rules);
        out.emit_permanent(Draft { record_type: TYPE, key: id, raw: Some(&log), ext: &ext, com: &com }).await?;
        tally.read();
        Ok(())
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
            let first = WindowTask { page: 1, token: None, ..task.clone() }.unit(unit, unit.restart + 1)?;
            return Err(WorkError::PageRefused { first: Box::new(first), reason });
        }
        Refusal::Work(error) if is_first => return Err(error),
        Refusal::Work(error) => error,
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
