//! `AzCloud` and its lists against the simulated Azure, by the example of network security groups.

#![allow(clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

mod reading;

use std::time::Duration;

use anyhow::Result;
use collector::cloud::WorkError;
use collector::emit::Emitter;
use proto::coverage::{Coverage, State};
use proto::unit::Unit;
use reading::Reading;
use serde_json::{Value, json};
use tests::cloudsim::{Cloudsim, Times, Trouble};

/// Reads the network security groups.
async fn nsg_reading(cloud: &Cloudsim, more: Value) -> Result<Reading> {
    Ok(Reading::azure("AzCloud", cloud, more).await?.only(&["nsg"]))
}

/// How many different subscriptions, groups and rules there are records of.
fn counts(reading: &Reading) -> (usize, usize, usize) {
    let of = |record_type| reading.of_type(record_type).len();
    (of("subscription"), of("nsg"), of("security_rule"))
}

fn truth(cloud: &Cloudsim) -> (usize, usize, usize) {
    let truth = cloud.truth();
    (truth.subscriptions, truth.nsgs, truth.rules)
}

fn readable(cloud: &Cloudsim) -> (usize, usize, usize) {
    (cloud.truth().subscriptions, cloud.readable().nsgs, cloud.readable().rules)
}

#[tokio::test]
async fn everything_is_read_once_and_as_it_is() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(7).nsgs(25).nsgs_in(2, 0).rules(3).page_size(5).start().await?;
    let reading = nsg_reading(&cloud, json!({})).await?.all().await?;
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    assert_eq!(counts(&reading), truth(&cloud));
    let (subscriptions, nsgs, rules) = truth(&cloud);
    assert_eq!(reading.records.len(), subscriptions + nsgs + rules);
    assert!(reading.fold.is_whole());
    assert_eq!(reading.coverage("", "subscription"), Coverage::complete("", "subscription", 7));
    for subscription in 0..7 {
        let id = cloud.estate().subscription_id(subscription);
        let count = if subscription == 2 { 0 } else { 25 };
        assert_eq!(reading.coverage(&id, "nsg"), Coverage::complete(&id, "nsg", count));
        for nsg in cloud.estate().nsgs(subscription) {
            let records = reading.of_type("nsg");
            let record = records[&nsg.id().to_lowercase()];
            assert_eq!(record["raw"], serde_json::to_value(&nsg)?);
            assert_eq!(record["com"]["reference"], nsg.id());
            assert_eq!(record["ext"]["subscription_id"], id);
            assert_eq!(record["ext"]["tenant_id"], cloud.tenant());
        }
    }
    // One request a page, and one token for all.
    let statistics = cloud.statistics();
    assert_eq!((statistics.subscription_list_requests, statistics.nsg_list_requests), (2, 6 * 5 + 1));
    assert_eq!(statistics.tokens_issued, 1);
    Ok(())
}

#[tokio::test]
async fn rules_come_before_their_group_and_ids_say_what_is_read() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(1).nsgs(3).rules(2).page_size(2).start().await?;
    let reading = nsg_reading(&cloud, json!({})).await?.all().await?;
    let types: Vec<&str> = reading.records.iter().filter_map(|record| record["ext"]["record_type"].as_str()).collect();
    let group = ["security_rule", "security_rule", "nsg"];
    assert_eq!(types, [["subscription"].as_slice(), &group, &group, &group].concat());
    let id = cloud.estate().subscription_id(0);
    assert_eq!(reading.ids, ["root", "subscription/p1", &format!("nsg/{id}/p1"), &format!("nsg/{id}/p2")]);
    Ok(())
}

#[tokio::test]
async fn a_forbidden_subscription_is_denied_and_the_others_are_read() -> Result<()> {
    let builder = Cloudsim::builder().subscriptions(3).nsgs(4).rules(1);
    let cloud = builder.faults(|faults| faults.forbid(1)).start().await?;
    let reading = nsg_reading(&cloud, json!({})).await?.all().await?;
    assert_eq!(counts(&reading), readable(&cloud));
    let coverage = reading.coverage(&cloud.estate().subscription_id(0), "nsg");
    assert_eq!((coverage.state, coverage.read), (State::Denied, 0));
    let reason = coverage.reason.unwrap_or_default();
    for part in ["GET http://127.0.0.1", "/networkSecurityGroups: 403 AuthorizationFailed: The client", "Reader"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(!reading.fold.is_whole());
    Ok(())
}

#[tokio::test]
async fn a_throttled_unit_says_how_long_to_wait() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(2).nsgs(20).rules(1).page_size(4).start().await?;
    cloud.faults(|faults| {
        faults.throttle_every = 3;
        faults.retry_after = 17;
    });
    let reading = nsg_reading(&cloud, json!({})).await?.all().await?;
    assert_eq!(counts(&reading), truth(&cloud));
    assert!(reading.fold.is_whole());
    assert!(!reading.errors.is_empty());
    for error in &reading.errors {
        let WorkError::Throttled { wait, reason } = error else { panic!("{error}") };
        assert_eq!(wait.as_secs(), 17);
        assert!(reason.contains("429 SubscriptionRequestsThrottled"), "{reason}");
    }
    Ok(())
}

#[tokio::test]
async fn failures_of_the_server_and_cut_off_answers_are_transient() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(2).nsgs(20).rules(1).page_size(4).start().await?;
    cloud.faults(|faults| {
        faults.fail_every = 3;
        faults.cut_off_every = 4;
    });
    let reading = nsg_reading(&cloud, json!({})).await?.all().await?;
    assert_eq!(counts(&reading), truth(&cloud));
    assert!(reading.fold.is_whole());
    let reasons: Vec<String> = reading.errors.iter().map(ToString::to_string).collect();
    assert!(reading.errors.iter().all(|error| matches!(error, WorkError::Transient { .. })), "{reasons:?}");
    for part in ["500 InternalServerError", "503 ServerUnavailable", "cut off"] {
        assert!(reasons.iter().any(|reason| reason.contains(part)), "{part}: {reasons:?}");
    }
    assert!(reasons.iter().all(|reason| !reason.contains("skiptoken")), "{reasons:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_that_expires_between_pages_is_replaced_once() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(1).nsgs(20).rules(1).page_size(4).start().await?;
    cloud.faults(|faults| faults.expire_tokens_after = Some(3));
    let reading = nsg_reading(&cloud, json!({})).await?.all().await?;
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    assert_eq!(counts(&reading), truth(&cloud));
    let statistics = cloud.statistics();
    assert_eq!((statistics.tokens_issued, statistics.unauthorized), (2, 1));
    Ok(())
}

#[tokio::test]
async fn units_whose_token_was_refused_share_the_next_one() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(8).nsgs(2).start().await?;
    let mut reading = nsg_reading(&cloud, json!({})).await?;
    let root = reading.root.clone();
    let list = reading.work(&root).await??.children.remove(0);
    let mut units = reading.work(&list).await??.children;
    units.retain(|unit| unit.resource_type == "nsg");
    cloud.expire_tokens();
    let work = units.iter().map(|unit| async {
        let mut out = Emitter::new(reading.bus.clone(), unit, &reading.spec);
        let done = reading.cloud.work(unit, &mut out).await?;
        out.finish().await?;
        Ok::<_, WorkError>(done)
    });
    let done = futures::future::try_join_all(work).await?;
    assert_eq!(done.len(), 8);
    assert_eq!(cloud.statistics().tokens_issued, 2);
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_refused_again_is_no_endless_loop() -> Result<()> {
    let (cloud, other) = (Cloudsim::builder().start().await?, Cloudsim::builder().start().await?);
    let mut reading = nsg_reading(&cloud, json!({"login_endpoint": other.url()})).await?;
    let list = reading.first_of("subscription").await?;
    let Err(WorkError::NotRead { state, reason }) = reading.work(&list).await? else { panic!() };
    assert_eq!(state, State::Failed);
    assert!(reason.contains("401 InvalidAuthenticationToken"), "{reason}");
    assert!(reason.contains("`login_endpoint` and `arm_endpoint`"), "{reason}");
    assert_eq!((cloud.statistics().unauthorized, other.statistics().tokens_issued), (2, 2));
    Ok(())
}

#[tokio::test]
async fn a_token_that_comes_expired_is_not_used() -> Result<()> {
    let cloud = Cloudsim::builder().token_lifetime(Duration::ZERO).start().await?;
    let mut reading = nsg_reading(&cloud, json!({})).await?;
    let list = reading.first_of("subscription").await?;
    let Err(WorkError::Transient { reason }) = reading.work(&list).await? else { panic!() };
    assert!(reason.contains("is this host's clock right?"), "{reason}");
    assert_eq!(cloud.statistics().arm_requests(), 0);
    Ok(())
}

#[tokio::test]
async fn a_next_link_of_another_origin_is_not_followed() -> Result<()> {
    let stranger = Cloudsim::builder().start().await?;
    let cloud = Cloudsim::builder().subscriptions(1).nsgs(6).rules(1).page_size(4).start().await?;
    cloud.faults(|faults| {
        faults.trouble(0, Trouble::ForeignNextLink(stranger.url().to_owned()), Times::Always);
    });
    let reading = nsg_reading(&cloud, json!({})).await?.all().await?;
    assert_eq!(stranger.statistics().arm_requests(), 0);
    assert_eq!(counts(&reading), (1, 4, 4));
    let coverage = reading.coverage(&cloud.estate().subscription_id(0), "nsg");
    assert_eq!((coverage.state, coverage.read, coverage.missing), (State::Partial, 4, None));
    assert!(coverage.reason.unwrap_or_default().contains(stranger.url()));
    Ok(())
}

#[tokio::test]
async fn a_unit_with_a_foreign_link_shows_nobody_the_token() -> Result<()> {
    let stranger = Cloudsim::builder().start().await?;
    let cloud = Cloudsim::builder().subscriptions(1).nsgs(6).page_size(4).start().await?;
    let mut reading = nsg_reading(&cloud, json!({})).await?;
    let list = reading.first_of("nsg").await?;
    let page = reading.work(&list).await??.children.remove(0);
    let task = page.task.get().replace(cloud.url(), stranger.url());
    let page = Unit { task: serde_json::value::RawValue::from_string(task)?, ..page };
    assert!(matches!(reading.work(&page).await?, Err(WorkError::NotRead { state: State::Failed, .. })));
    assert_eq!(stranger.statistics().arm_requests(), 0);
    Ok(())
}

#[tokio::test]
async fn a_refused_page_token_begins_the_list_again() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(6).nsgs(9).rules(1).page_size(4).start().await?;
    cloud.faults(|faults| faults.refuse_page_tokens = Times::Next(2));
    let reading = nsg_reading(&cloud, json!({})).await?.all().await?;
    assert_eq!(counts(&reading), truth(&cloud));
    assert!(reading.fold.is_whole(), "{:?}", reading.fold.coverage());
    // What was read before the list began again does not count.
    assert_eq!(reading.coverage("", "subscription").read, 6);
    let is_other = |id: &&String| !id.starts_with("nsg/");
    let ids: Vec<&String> = reading.ids.iter().filter(is_other).collect();
    assert_eq!(ids, ["root", "subscription/p1", "subscription/p2", "subscription/r1/p1", "subscription/r1/p2"]);
    let refused = reading.errors.iter().filter(|error| matches!(error, WorkError::PageRefused { .. })).count();
    assert_eq!((refused, reading.errors.len()), (2, 2));
    assert!(reading.errors[0].to_string().contains("400 InvalidSkipToken"));
    Ok(())
}

#[tokio::test]
async fn a_wrong_sign_in_says_what_to_do_and_shows_no_secret() -> Result<()> {
    let cloud = Cloudsim::builder().start().await?;
    for (parameter, value, code, remedy) in [
        ("secret", "hunter2hunter2", "401 AADSTS7000215: Invalid client secret", "set `secret`"),
        ("client", "00000000-0000-0000-0000-000000000001", "400 AADSTS700016: ", "set `client`"),
        ("tenant", "nowhere.example", "400 AADSTS90002: ", "set `tenant`"),
    ] {
        let mut reading = nsg_reading(&cloud, json!({parameter: value})).await?;
        let list = reading.first_of("subscription").await?;
        let Err(WorkError::NotRead { state, reason }) = reading.work(&list).await? else { panic!("{parameter}") };
        assert_eq!(state, State::Failed);
        assert!(reason.contains(code) && reason.contains(remedy), "{reason}");
        assert!(!reason.contains("hunter2") && !reason.contains(cloud.client_secret()), "{reason}");
    }
    assert_eq!(cloud.statistics().arm_requests(), 0);
    Ok(())
}

#[tokio::test]
async fn a_cloud_that_is_away_may_come_back() -> Result<()> {
    let away = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        format!("http://{}", listener.local_addr()?)
    };
    let cloud = Cloudsim::builder().start().await?;
    for (parameter, call) in [("login_endpoint", "POST"), ("arm_endpoint", "GET")] {
        let mut reading = nsg_reading(&cloud, json!({parameter: away})).await?;
        let list = reading.first_of("subscription").await?;
        let Err(WorkError::Transient { reason }) = reading.work(&list).await? else { panic!("{parameter}") };
        assert!(reason.contains(&format!("{call} {away}/")) && reason.contains("cannot connect"), "{reason}");
    }
    Ok(())
}

#[tokio::test]
async fn limits_leave_out_and_say_so() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(6).nsgs(9).rules(1).page_size(4).start().await?;
    let reading = nsg_reading(&cloud, json!({"_max_subs": 2, "_max_recs": 5})).await?.all().await?;
    assert_eq!(counts(&reading), (2, 10, 10));
    assert_eq!(cloud.statistics().subscription_list_requests, 1);
    let list = reading.coverage("", "subscription");
    assert_eq!((list.state, list.read, list.missing), (State::Skipped, 2, None));
    assert_eq!(reading.coverage(&cloud.estate().subscription_id(2), "nsg").state, State::Skipped);
    let reason = reading.coverage(&cloud.estate().subscription_id(0), "nsg").reason.unwrap_or_default();
    assert_eq!(reason, "`_max_recs` is 5");

    // A limit that nothing exceeds leaves out nothing.
    let reading = nsg_reading(&cloud, json!({"_max_subs": 6, "_max_recs": 9})).await?.all().await?;
    assert_eq!(counts(&reading), truth(&cloud));
    assert!(reading.fold.is_whole() && reading.coverage("", "subscription").state == State::Complete);
    Ok(())
}

#[tokio::test]
async fn an_application_that_sees_no_subscription_is_denied() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(0).start().await?;
    let reading = nsg_reading(&cloud, json!({})).await?.all().await?;
    let reason = "the application sees no subscription: give it the role Reader";
    assert_eq!(reading.fold.coverage(), [Coverage::not_read("", "subscription", State::Denied, reason)]);
    Ok(())
}

#[tokio::test]
async fn a_subscription_that_is_named_and_not_seen_is_said() -> Result<()> {
    let cloud = Cloudsim::builder().subscriptions(6).nsgs(1).page_size(4).start().await?;
    let first = cloud.estate().subscription_id(0);
    let names = json!({"subscriptions": [first, "gone", cloud.estate().subscription_id(5)]});
    let reading = nsg_reading(&cloud, names).await?.all().await?;
    assert_eq!(reading.coverage(&first, "nsg").state, State::Complete);
    let gone = reading.coverage("gone", "subscription");
    assert_eq!(gone.state, State::Failed);
    assert!(gone.reason.unwrap_or_default().contains("`subscriptions` names gone"));
    assert!(!reading.fold.is_whole());
    assert_eq!(reading.fold.coverage().iter().filter(|one| !one.state.is_whole()).count(), 1);
    Ok(())
}
