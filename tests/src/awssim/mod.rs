//! A simulated AWS: a real HTTP server on a loopback address that behaves as CloudTrail's LookupEvents, STS and EC2's
//! DescribeRegions. It checks Signature Version 4 by computing it, throttles as CloudTrail does, and has as many events
//! as one likes.
//!
//! ```
//! # async fn example() -> anyhow::Result<()> {
//! use tests::awssim::{Account, Awssim};
//!
//! let aws = Awssim::builder()
//!     .account(Account::new("111111111111").with_role("audit", Some("external-1")))
//!     .regions(&["us-east-1", "eu-west-1"])
//!     .events(1_000, std::time::Duration::from_secs(90 * 24 * 3600))
//!     .calls_per_second(Some(2.0))
//!     .start()
//!     .await?;
//! aws.deny("111111111111", "eu-west-1");
//! # Ok(())
//! # }
//! ```

mod log;
mod signature;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use log::Arrival;
use log::Log;
use signature::Signed;

/// No request that this server knows has a longer body.
const LONGEST_BODY: usize = 64 * 1024;
const TARGET: &str = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents";
/// The keys that LookupEvents takes.
const ATTRIBUTES: [&str; 8] =
    ["EventId", "EventName", "ReadOnly", "Username", "ResourceType", "ResourceName", "EventSource", "AccessKeyId"];
/// How far a client's clock may be wrong, in seconds.
const SKEW: i64 = 300;

/// An account.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its number.
    pub id: String,
    /// A key of a user in it.
    pub key_id: String,
    /// The key's secret.
    pub secret: String,
    /// By name: the external id that each role asks for.
    roles: BTreeMap<String, Option<String>>,
}

impl Account {
    /// An account with a key.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            key_id: format!("AKIA{id}KEY1"),
            secret: format!("secret-of-{id}/+="),
            roles: BTreeMap::new(),
        }
    }

    /// The same with a role that anybody may take who knows the external id.
    #[must_use]
    pub fn with_role(mut self, name: &str, external_id: Option<&str>) -> Self {
        self.roles.insert(name.to_owned(), external_id.map(str::to_owned));
        self
    }

    /// The role's ARN.
    pub fn role_arn(&self, name: &str) -> String {
        format!("arn:aws:iam::{}:role/{name}", self.id)
    }
}

/// What is simulated.
#[derive(Debug)]
pub struct Builder {
    listen: SocketAddr,
    accounts: Vec<Account>,
    regions: Vec<String>,
    events: u64,
    span: Duration,
    calls_per_second: Option<f64>,
}

impl Builder {
    /// Where it listens; a free port of the loopback address if nothing is said.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// One more account.
    #[must_use]
    pub fn account(mut self, account: Account) -> Self {
        self.accounts.push(account);
        self
    }

    /// The regions that are enabled in all accounts.
    #[must_use]
    pub fn regions(mut self, regions: &[&str]) -> Self {
        self.regions = regions.iter().map(|region| (*region).to_owned()).collect();
        self
    }

    /// So many events in each region of each account, evenly over so long a time until now.
    #[must_use]
    pub fn events(mut self, count: u64, span: Duration) -> Self {
        (self.events, self.span) = (count, span);
        self
    }

    /// How many calls of LookupEvents each region of each account takes in a second; `None` for any number.
    #[must_use]
    pub fn calls_per_second(mut self, calls: Option<f64>) -> Self {
        self.calls_per_second = calls;
        self
    }

    /// Starts it.
    pub async fn start(self) -> Result<Awssim> {
        anyhow::ensure!(self.listen.ip().is_loopback(), "the simulated cloud listens on loopback addresses only");
        let listener = TcpListener::bind(self.listen).await.context("cannot listen")?;
        let url = format!("http://{}", listener.local_addr()?);
        let until = jiff::Timestamp::now().as_second();
        let from = until - i64::try_from(self.span.as_secs())?;
        let log = Log { from, until, count: self.events, arrivals: Vec::new() };
        let places = self
            .accounts
            .iter()
            .flat_map(|account| self.regions.iter().map(|region| ((account.id.clone(), region.clone()), log.clone())));
        let state = Inner { logs: places.collect(), ..Inner::default() };
        let simulation = Arc::new(Simulation {
            accounts: self.accounts,
            regions: self.regions,
            calls_per_second: self.calls_per_second,
            state: Mutex::new(state),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&simulation));
        let server = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(async move { drop(stopped.await) });
            served.await.context("the simulated cloud stopped serving")
        });
        Ok(Awssim { url, simulation, _stop: stop, _server: server })
    }
}

/// A running simulated cloud. It stops when it is dropped.
#[derive(Debug)]
pub struct Awssim {
    url: String,
    simulation: Arc<Simulation>,
    // Dropping this is the sign to stop.
    _stop: oneshot::Sender<()>,
    _server: JoinHandle<Result<()>>,
}

/// What was asked and answered so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Pages of events.
    pub pages: u64,
    /// Events in them.
    pub events: u64,
    /// Calls that were throttled.
    pub throttled: u64,
    /// Calls whose signature or key is not right.
    pub unsigned: u64,
    /// Calls that were refused to their caller.
    pub denied: u64,
    /// Roles taken.
    pub roles: u64,
    /// Pages by account and region.
    pub pages_by_place: BTreeMap<(String, String), u64>,
}

impl Awssim {
    /// One region without events, to be changed and started.
    pub fn builder() -> Builder {
        Builder {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            accounts: Vec::new(),
            regions: vec!["us-east-1".to_owned()],
            events: 0,
            span: Duration::from_secs(3600),
            calls_per_second: None,
        }
    }

    /// The address of all its services: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What was asked and answered so far.
    pub fn statistics(&self) -> Statistics {
        self.simulation.state().statistics.clone()
    }

    /// From now on, the account may not look up events in the region.
    pub fn deny(&self, account: &str, region: &str) {
        self.simulation.state().denied.insert((account.to_owned(), region.to_owned()));
    }

    /// From now on, it may.
    pub fn allow(&self, account: &str, region: &str) {
        self.simulation.state().denied.remove(&(account.to_owned(), region.to_owned()));
    }

    /// So many of the next page tokens are refused.
    pub fn refuse_tokens(&self, count: u32) {
        self.simulation.state().refused_tokens = count;
    }

    /// From now on, all calls of LookupEvents but the next so many wait until this is called with `None`.
    pub fn hold_after(&self, pages: Option<u64>) {
        self.simulation.state().hold_after = pages;
    }

    /// An event comes in, whenever it happened.
    pub fn arrive(&self, account: &str, region: &str, arrival: Arrival) {
        let place = (account.to_owned(), region.to_owned());
        self.simulation.state().logs.entry(place).or_default().arrivals.push(arrival);
    }

    /// The ids of all events of a region of an account of which the calls are those, or of all.
    pub fn event_ids(&self, account: &str, region: &str, calls: Option<&[&str]>) -> BTreeSet<String> {
        let state = self.simulation.state();
        let Some(log) = state.logs.get(&(account.to_owned(), region.to_owned())) else { return BTreeSet::new() };
        let events = log.between(i64::MIN / 4, i64::MAX / 4).map(|entry| log.event(entry, account, region));
        let is_wanted = |event: &Value| {
            calls.is_none_or(|calls| calls.iter().any(|call| event["EventName"].as_str() == Some(*call)))
        };
        events.filter(is_wanted).filter_map(|event| event["EventId"].as_str().map(str::to_owned)).collect()
    }
}

#[derive(Debug)]
struct Simulation {
    accounts: Vec<Account>,
    regions: Vec<String>,
    calls_per_second: Option<f64>,
    state: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    logs: BTreeMap<(String, String), Log>,
    statistics: Statistics,
    denied: BTreeSet<(String, String)>,
    refused_tokens: u32,
    hold_after: Option<u64>,
    /// Keys that were given out for roles: the account, the secret, the token.
    sessions: BTreeMap<String, (String, String, String)>,
    /// What is left of each region's calls, and since when.
    buckets: BTreeMap<(String, String), (f64, Instant)>,
}

impl Simulation {
    fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who has signed: the account's number.
    fn caller(&self, signed: &Signed, request: &Parts, body: &[u8]) -> Result<String, (&'static str, &'static str)> {
        const UNKNOWN: (&str, &str) =
            ("InvalidClientTokenId", "The security token included in the request is invalid.");
        let (account, secret) = match self.accounts.iter().find(|account| account.key_id == signed.key_id) {
            Some(account) if signed.token.is_none() => (account.id.clone(), account.secret.clone()),
            Some(_) => return Err(UNKNOWN),
            None => match self.state().sessions.get(&signed.key_id) {
                Some((account, secret, token)) if signed.token.as_ref() == Some(token) => {
                    (account.clone(), secret.clone())
                }
                _ => return Err(UNKNOWN),
            },
        };
        let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", &signed.time).ok();
        let time = time.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok()).map(|time| time.timestamp());
        let now = jiff::Timestamp::now().as_second();
        if time.is_none_or(|time| (time.as_second() - now).abs() > SKEW) {
            return Err(("RequestExpired", "Signature not yet current, or expired."));
        }
        if !signed.is_by(&secret, request, body) {
            return Err((
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.",
            ));
        }
        Ok(account)
    }
}

async fn answer(State(simulation): State<Arc<Simulation>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = body::to_bytes(body, LONGEST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let Some(signed) = Signed::read(&head) else {
        simulation.state().statistics.unsigned += 1;
        return error(
            "",
            StatusCode::FORBIDDEN,
            "MissingAuthenticationToken",
            "Request is missing Authentication Token",
        );
    };
    let caller = match simulation.caller(&signed, &head, &body) {
        Ok(caller) => caller,
        Err((code, message)) => {
            simulation.state().statistics.unsigned += 1;
            return unsigned(&signed.service, code, message);
        }
    };
    if signed.service == "cloudtrail" {
        let target = head.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        if target != Some(TARGET) {
            return json_error(400, "UnknownOperationException", "");
        }
        hold(&simulation).await;
        return lookup_events(&simulation, &caller, &signed.region, &body);
    }
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let action = form.get("Action").map_or("", String::as_str);
    match (&*signed.service, action) {
        ("sts", "GetCallerIdentity") => identity(&caller, &signed.key_id),
        ("sts", "AssumeRole") => assume_role(&simulation, &form),
        ("ec2", "DescribeRegions") => describe_regions(&simulation),
        (service, _) => {
            error(service, StatusCode::BAD_REQUEST, "InvalidAction", "The action is not valid for this endpoint.")
        }
    }
}

async fn hold(simulation: &Simulation) {
    loop {
        {
            let mut state = simulation.state();
            match &mut state.hold_after {
                None => return,
                Some(0) => {}
                Some(left) => {
                    *left -= 1;
                    return;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn lookup_events(simulation: &Simulation, account: &str, region: &str, body: &[u8]) -> Response {
    let place = (account.to_owned(), region.to_owned());
    let mut state = simulation.state();
    if let Some(rate) = simulation.calls_per_second {
        let now = Instant::now();
        let (level, since) = state.buckets.entry(place.clone()).or_insert((rate, now));
        *level = (*level + now.duration_since(*since).as_secs_f64() * rate).min(rate.max(1.0));
        *since = now;
        if *level < 1.0 {
            state.statistics.throttled += 1;
            return json_error(400, "ThrottlingException", "Rate exceeded");
        }
        *level -= 1.0;
    }
    if state.denied.contains(&place) {
        state.statistics.denied += 1;
        let message = format!(
            "User: arn:aws:iam::{account}:user/audit is not authorized to perform: cloudtrail:LookupEvents because no identity-based policy allows the cloudtrail:LookupEvents action"
        );
        return json_error(400, "AccessDeniedException", &message);
    }
    let request: Value = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(_) => return json_error(400, "SerializationException", ""),
    };
    let asked = match Asked::read(&request) {
        Ok(asked) => asked,
        Err((code, message)) => return json_error(400, code, message),
    };
    let digest = asked.digest(account, region);
    let skip = match &request["NextToken"] {
        Value::Null => 0,
        token => {
            if state.refused_tokens > 0 {
                state.refused_tokens -= 1;
                return json_error(400, "InvalidNextTokenException", "The token has expired.");
            }
            match position(token, &digest) {
                Some(skip) => skip,
                None => return json_error(400, "InvalidNextTokenException", "Invalid nextToken."),
            }
        }
    };
    let no_log = Log::default();
    let log = state.logs.get(&place).unwrap_or(&no_log);
    let mut events = Vec::with_capacity(asked.most);
    let mut at = skip;
    let mut rest = log.between(asked.start, asked.end).skip(skip);
    while events.len() < asked.most {
        let Some(entry) = rest.next() else { break };
        at += 1;
        let event = log.event(entry, account, region);
        if asked.attribute.as_ref().is_none_or(|(key, value)| Log::has(&event, key, value)) {
            events.push(event);
        }
    }
    let goes_on = rest.next().is_some();
    drop(rest);
    let mut answer = json!({"Events": events});
    if goes_on {
        answer["NextToken"] = BASE64_URL_SAFE_NO_PAD.encode(format!("{digest}:{at}")).into();
    }
    state.statistics.pages += 1;
    state.statistics.events += events_in(&answer);
    *state.statistics.pages_by_place.entry(place).or_default() += 1;
    ([(header::CONTENT_TYPE, "application/x-amz-json-1.1")], answer.to_string()).into_response()
}

fn events_in(answer: &Value) -> u64 {
    answer["Events"].as_array().map_or(0, |events| events.len() as u64)
}

/// What LookupEvents is asked.
struct Asked {
    start: i64,
    end: i64,
    most: usize,
    attribute: Option<(String, String)>,
}

impl Asked {
    fn read(request: &Value) -> Result<Self, (&'static str, &'static str)> {
        let time = |name: &str, otherwise: i64| request[name].as_f64().map_or(otherwise, |time| time as i64);
        let now = jiff::Timestamp::now().as_second();
        let (start, end) = (time("StartTime", now - 90 * 86_400), time("EndTime", now));
        if start > end {
            return Err(("InvalidTimeRangeException", "Start time must not be later than end time."));
        }
        let most = match &request["MaxResults"] {
            Value::Null => 50,
            most => most
                .as_u64()
                .filter(|most| (1..=50).contains(most))
                .ok_or(("InvalidMaxResultsException", "Max results must be between 1 and 50."))?,
        };
        let attribute = match request["LookupAttributes"].as_array().map(Vec::as_slice) {
            None | Some([]) => None,
            Some([one]) => {
                let (key, value) = (one["AttributeKey"].as_str(), one["AttributeValue"].as_str());
                let both = key.zip(value).filter(|(key, _)| ATTRIBUTES.contains(key));
                let (key, value) =
                    both.ok_or(("InvalidLookupAttributesException", "Lookup attribute is not valid."))?;
                Some((key.to_owned(), value.to_owned()))
            }
            Some(_) => return Err(("InvalidLookupAttributesException", "You can use at most 1 lookup attribute.")),
        };
        Ok(Self { start, end, most: most as usize, attribute })
    }

    /// A token is good for the same question only.
    fn digest(&self, account: &str, region: &str) -> String {
        let question = format!("{account}/{region}/{}/{}/{}/{:?}", self.start, self.end, self.most, self.attribute);
        signature::hex(&ring::digest::digest(&ring::digest::SHA256, question.as_bytes()).as_ref()[..8])
    }
}

fn position(token: &Value, digest: &str) -> Option<usize> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(token.as_str()?).ok()?).ok()?;
    let (of, position) = text.split_once(':')?;
    (of == digest).then(|| position.parse().ok()).flatten()
}

fn identity(account: &str, key: &str) -> Response {
    xml(
        StatusCode::OK,
        format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>arn:aws:iam::{account}:user/audit</Arn><UserId>{key}</UserId><Account>{account}</Account>\
         </GetCallerIdentityResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>\
         </GetCallerIdentityResponse>"
        ),
    )
}

fn assume_role(simulation: &Simulation, form: &BTreeMap<String, String>) -> Response {
    let arn = form.get("RoleArn").map_or("", String::as_str);
    let roles = simulation.accounts.iter().flat_map(|account| {
        account.roles.iter().map(move |(name, external_id)| (account, account.role_arn(name), external_id))
    });
    let taken = roles.into_iter().find(|(_, known, external_id)| {
        known == arn && (external_id.is_none() || external_id.as_ref() == form.get("ExternalId"))
    });
    let Some((account, ..)) = taken else {
        simulation.state().statistics.denied += 1;
        let message = format!(
            "User: arn:aws:iam::111111111111:user/audit is not authorized to perform: sts:AssumeRole on resource: {arn}"
        );
        return error("sts", StatusCode::FORBIDDEN, "AccessDenied", &message);
    };
    let mut state = simulation.state();
    state.statistics.roles += 1;
    let number = state.statistics.roles;
    let (key, secret, token) =
        (format!("ASIA{number:016}"), format!("role-secret-{number}"), format!("role-token-{number}"));
    state.sessions.insert(key.clone(), (account.id.clone(), secret.clone(), token.clone()));
    let expires =
        jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 3600).unwrap_or(jiff::Timestamp::MAX);
    xml(
        StatusCode::OK,
        format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
         <AssumedRoleUser><AssumedRoleId>AROA:s</AssumedRoleId><Arn>{arn}</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>{expires}</Expiration></Credentials>\
         </AssumeRoleResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleResponse>"
        ),
    )
}

fn describe_regions(simulation: &Simulation) -> Response {
    let items: String = simulation
        .regions
        .iter()
        .map(|region| {
            format!(
                "<item><regionName>{region}</regionName><regionEndpoint>ec2.{region}.amazonaws.com</regionEndpoint>\
                 <optInStatus>opt-in-not-required</optInStatus></item>"
            )
        })
        .collect();
    xml(
        StatusCode::OK,
        format!(
            "<DescribeRegionsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
         <regionInfo>{items}</regionInfo></DescribeRegionsResponse>"
        ),
    )
}

/// The refusal of a request that nobody has signed rightly, as each service words it.
fn unsigned(service: &str, code: &str, message: &str) -> Response {
    match (service, code) {
        ("cloudtrail", "InvalidClientTokenId") => json_error(400, "UnrecognizedClientException", message),
        ("cloudtrail", "SignatureDoesNotMatch") => json_error(400, "InvalidSignatureException", message),
        ("cloudtrail", code) => json_error(400, code, message),
        ("ec2", _) => error(
            service,
            StatusCode::UNAUTHORIZED,
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
        ),
        (service, code) => error(service, StatusCode::FORBIDDEN, code, message),
    }
}

fn json_error(status: u16, code: &str, message: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = json!({"__type": code, "message": message}).to_string();
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body).into_response()
}

fn error(service: &str, status: StatusCode, code: &str, message: &str) -> Response {
    xml(
        status,
        match service {
            "ec2" => format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
            ),
            _ => format!(
                "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
            ),
        },
    )
}

fn xml(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}
