//! `AzCloud` against a server that answers as Azure does on its worse days.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

mod canned;

use std::sync::Arc;
use std::time::Duration;

use canned::{Canned, answer, json};
use collector::azure::az_cloud;
use collector::cloud::{Cloud, Done, WorkError};
use collector::emit::Emitter;
use collector::http::Limits;
use collector::registry::{self, Context};
use proto::bus::SharedBus;
use proto::bus::memory::{MemoryBus, MemoryOptions};
use proto::coverage::{Coverage, State};
use proto::plan::{PluginSpec, Stage};
use proto::subject::{Key, Role, Version};
use proto::unit::Unit;
use serde_json::json;

const TOKEN: &str = r#"{"token_type":"Bearer","expires_in":3599,"access_token":"t0ken"}"#;
const ENABLED: &str = r#"{"value":[{"id":"/subscriptions/S1","subscriptionId":"S1","state":"Enabled"}]}"#;

/// A cloud with the answers to `GET /subscriptions` and to the list of groups.
async fn azure(subscriptions: &str, groups: Vec<u8>) -> Canned {
    let subscriptions = json("200 OK", subscriptions);
    Canned::start(move |request| match request {
        _ if request.starts_with("POST /t/oauth2/v2.0/token ") => json("200 OK", TOKEN),
        _ if request.starts_with("GET /subscriptions?api-version=") => subscriptions.clone(),
        _ => groups.clone(),
    })
    .await
}

struct Reading {
    cloud: Arc<dyn Cloud>,
    bus: SharedBus,
    root: Unit,
    spec: PluginSpec,
}

impl Reading {
    fn of(server: &Canned) -> Self {
        Self::with(server, az_cloud::CLASS.name, Limits::new(8))
    }

    fn with(server: &Canned, class: &str, limits: Arc<Limits>) -> Self {
        let params = json!({"tenant": "t", "client": "c", "secret": "hunter2",
            "login_endpoint": server.url, "arm_endpoint": server.url});
        let plugin = Key::new("azure").unwrap();
        let version = Version::new("20260131_235959").unwrap();
        let root = Unit::root(&Key::new("audit").unwrap(), &version, &plugin, &plugin);
        let spec = PluginSpec {
            key: plugin,
            class: class.into(),
            params: params.clone(),
            role: Role::Cloud,
            stage: Stage::Collector,
            exclusive: false,
            pool: None,
        };
        let cloud = registry::build(&spec, &params, &Context { limits }).unwrap();
        Self { cloud, bus: Arc::new(MemoryBus::new(MemoryOptions::default())), root, spec }
    }

    /// What becomes of a unit, and how many records it makes.
    async fn work(&self, unit: &Unit) -> (Result<Done, WorkError>, u64) {
        let mut out = Emitter::new(Arc::clone(&self.bus), unit, &self.spec);
        let done = self.cloud.work(unit, &mut out).await;
        (done, out.finish().await.unwrap().records)
    }

    async fn subscriptions(&self) -> (Result<Done, WorkError>, u64) {
        let list = self.work(&self.root).await.0.unwrap().children.remove(0);
        self.work(&list).await
    }

    async fn groups(&self) -> (Result<Done, WorkError>, u64) {
        let lists = self.subscriptions().await.0.unwrap().children;
        let list = lists.iter().find(|list| list.resource_type == "nsg").unwrap();
        self.work(list).await
    }
}

async fn groups(answer: Vec<u8>) -> (Result<Done, WorkError>, u64) {
    Reading::of(&azure(ENABLED, answer).await).groups().await
}

async fn refused(answer: Vec<u8>) -> (State, String) {
    match groups(answer).await.0 {
        Err(WorkError::NotRead { state, reason }) => (state, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn malformed_groups_and_rules_lose_only_themselves() {
    let rule = r#"{"id":"/n/r","properties":{"direction":"Inbound","priority":1.0}}"#;
    let body = format!(
        r#"{{"value":[
            {{"id":"/n1","properties":{{"securityRules":[{rule},{{"id":"/n/r2","properties":null}},{rule}]}}}},
            {{"id":"/n2","properties":null}},
            null, 7, {{}}, "\ud800",
            {{"id":"/n3","properties":{{}}}}]}}"#
    );
    let (done, records) = groups(json("200 OK", &body)).await;
    let coverage = &done.unwrap().coverage[0];
    assert_eq!((coverage.state, coverage.read, coverage.missing, records), (State::Partial, 2, Some(6), 4));
    let reason = coverage.reason.as_deref().unwrap();
    assert!(reason.contains("/n1") && reason.contains("/n/r2"), "{reason}");
}

#[tokio::test]
async fn malformed_subscriptions_lose_only_themselves() {
    let body =
        r#"{"value":[{"id":"/subscriptions/S1","subscriptionId":"S1","state":"Enabled"},{"id":"/subscriptions/S2"}]}"#;
    let (done, records) = Reading::of(&azure(body, Vec::new()).await).subscriptions().await;
    let done = done.unwrap();
    assert!(done.children.iter().all(|child| child.scope == "S1"), "{:?}", done.children);
    assert!(done.children.iter().any(|child| child.id == "nsg/S1/p1"), "{:?}", done.children);
    assert_eq!(records, 1);
    assert_eq!((done.coverage[0].state, done.coverage[0].missing), (State::Partial, Some(1)));
}

#[tokio::test]
async fn a_disabled_subscription_is_read_and_a_deleted_one_is_not() {
    let body = r#"{"value":[{"id":"/subscriptions/S1","subscriptionId":"S1","state":"Disabled"},
        {"id":"/subscriptions/S2","subscriptionId":"S2","state":"Deleted"}],"nextLink":""}"#;
    let (done, records) = Reading::of(&azure(body, Vec::new()).await).subscriptions().await;
    let done = done.unwrap();
    assert!(done.children.iter().all(|child| child.scope == "S1"), "{:?}", done.children);
    assert_eq!(records, 2);
    let of = |scope: &str, resource_type: &str| {
        let is_it = |one: &&Coverage| one.scope == scope && one.resource_type == resource_type;
        done.coverage.iter().find(is_it).unwrap()
    };
    assert_eq!(of("S2", "nsg").state, State::Skipped);
    // It is read, and said.
    assert!(of("S1", "subscription").reason.as_deref().unwrap().contains("Disabled"));
}

#[tokio::test]
async fn what_cannot_be_read_has_its_state() {
    let error = |status: &str, code: &str| json(status, &format!(r#"{{"error":{{"code":"{code}","message":"M."}}}}"#));
    for (answer, state, part) in [
        (error("409 Conflict", "MissingSubscriptionRegistration"), State::NotEnabled, "409 MissingSubscription"),
        (error("404 Not Found", "SubscriptionNotFound"), State::Failed, "404 SubscriptionNotFound: M.; it was deleted"),
        (error("403 Forbidden", "AuthorizationFailed"), State::Denied, "403 AuthorizationFailed: M.; give"),
        (answer("302 Found", "Location: https://other.example/\r\n", b""), State::Failed, "302; it leads"),
        (answer("200 OK", "", b"<html>Sign in to the guest network</html>"), State::Failed, "not a page of a list"),
        (json("200 OK", "{}"), State::Failed, "missing field `value`"),
    ] {
        let (found, reason) = refused(answer).await;
        assert_eq!(found, state, "{reason}");
        assert!(reason.contains("/subscriptions/S1/providers/Microsoft.Network/networkSecurityGroups: "), "{reason}");
        assert!(reason.contains(part) && !reason.contains("api-version"), "{reason}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_transient() {
    for body in ["", r#"{"value":[{"id":"/n1","#] {
        let (done, records) = groups(json("200 OK", body)).await;
        assert!(matches!(done, Err(WorkError::Transient { .. })), "{done:?}");
        assert_eq!(records, 0);
    }
}

async fn sign_in(answer: Vec<u8>) -> WorkError {
    let server = Canned::start(move |_| answer.clone()).await;
    let error = Reading::of(&server).subscriptions().await.0.unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert_eq!(server.requests(), ["POST /t/oauth2/v2.0/token HTTP/1.1"]);
    error
}

#[tokio::test]
async fn a_refused_sign_in_is_read_as_it_was_sent() {
    let body = r#"{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys for app 'c' are expired.\r\nTrace ID: 1","error_codes":[7000222]}"#;
    let WorkError::NotRead { state, reason } = sign_in(json("401 Unauthorized", body)).await else { panic!() };
    assert_eq!(state, State::Failed);
    assert!(reason.contains("keys for app 'c' are expired. (the secret has expired"), "{reason}");
}

#[tokio::test]
async fn a_sign_in_that_may_go_well_later_is_transient() {
    for answer in [
        json("500 Internal Server Error", "{}"),
        answer("503 Service Unavailable", "", b"<html>"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec(),
    ] {
        let error = sign_in(answer).await;
        assert!(matches!(error, WorkError::Transient { .. }), "{error:?}");
    }
    let throttled = sign_in(answer("429 Too Many Requests", "Retry-After: 7\r\n", b"")).await;
    assert!(matches!(throttled, WorkError::Throttled { wait, .. } if wait.as_secs() == 7), "{throttled:?}");
}

#[tokio::test]
async fn a_sign_in_that_is_no_token_fails() {
    for body in ["<html>", r#"{"access_token":5}"#, "{}"] {
        let error = sign_in(json("200 OK", body)).await;
        assert!(matches!(error, WorkError::NotRead { state: State::Failed, .. }), "{body}: {error:?}");
    }
}

/// Servers whose settings come in two pages, with room for a few of them: whoever waits for a second page must not wait
/// for room that others hold until it is there.
#[tokio::test]
async fn details_of_several_pages_do_not_wait_for_one_another() {
    const SERVERS: usize = 100;
    let id =
        |server: usize| format!("/subscriptions/S1/providers/Microsoft.DBforPostgreSQL/flexibleServers/pg{server}");
    let servers: Vec<String> = (0..SERVERS)
        .map(|server| format!(r#"{{"id":"{}","name":"pg{server}","properties":{{}}}}"#, id(server)))
        .collect();
    let servers = format!(r#"{{"value":[{}]}}"#, servers.join(","));
    let server = Canned::start_with_url(move |url, request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path {
            _ if request.starts_with("POST ") => json("200 OK", TOKEN),
            _ if path.starts_with("/subscriptions?") => json("200 OK", ENABLED),
            _ if path.contains("/configurations?page=2") => json("200 OK", r#"{"value":[]}"#),
            _ if path.contains("/configurations?") => {
                let link = format!("{url}{}/configurations?page=2", path.split("/configurations").next().unwrap());
                let filler = "x".repeat(100_000);
                json(
                    "200 OK",
                    &format!(r#"{{"value":[{{"name":"a","properties":{{"value":"{filler}"}}}}],"nextLink":"{link}"}}"#),
                )
            }
            _ if path.contains("/flexibleServers?") => json("200 OK", &servers),
            _ => json("200 OK", r#"{"value":[]}"#),
        }
    })
    .await;
    let reading = Reading::with(&server, "cloudmarker.clouds.azpostgres.AzPostgres", Limits::of(64, 512 * 1024));
    let lists = reading.subscriptions().await.0.unwrap().children;
    let list = lists.iter().find(|list| list.resource_type == "postgresql_flexible_server").unwrap();
    let units = reading.work(list).await.0.unwrap().children;
    assert_eq!(units.len(), 2);
    let work = futures::future::join_all(units.iter().map(|unit| reading.work(unit)));
    let done = tokio::time::timeout(Duration::from_secs(15), work).await.unwrap();
    assert_eq!(done.iter().map(|(_, records)| records).sum::<u64>(), SERVERS as u64);
}
