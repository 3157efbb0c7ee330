//! `GCPCloud` against the simulated Google Cloud: unit by unit, and in whole runs.

#![allow(clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use collector::cloud::WorkError;
use collector::emit::Emitter;
use collector::gcp::gcp_cloud;
use collector::http::Limits;
use collector::registry::Context;
use proto::config::Environment;
use proto::coverage::{Coverage, State};
use reading::Reading;
use serde_json::{Value, json};
use tests::gcpsim::{Counts, Gcpsim, Part, Place, Throttling, Times, Trouble};
use tests::harness::{NatsServer, Output, Services, Workspace};

/// A cloud with a key file, and what reads it.
struct Audited {
    cloud: Gcpsim,
    folder: tempfile::TempDir,
}

impl Audited {
    fn new(cloud: Gcpsim) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("key.json"), cloud.key_file())?;
        Ok(Self { cloud, folder })
    }

    fn params(&self, more: Value) -> Result<Value> {
        let mut params =
            json!({"key_file_path": self.folder.path().join("key.json"), "api_endpoint": self.cloud.url()});
        for (name, value) in more.as_object().context("parameters are a mapping")? {
            params[name] = value.clone();
        }
        Ok(params)
    }

    async fn reading(&self, more: Value) -> Result<Reading> {
        Reading::of("GCPCloud", self.params(more)?).await
    }

    /// The same on a host with another environment.
    async fn reading_on(&self, environment: Environment, more: Value) -> Result<Reading> {
        let mut reading = self.reading(json!({})).await?;
        reading.cloud = gcp_cloud::build(&self.params(more)?, &Context { limits: Limits::new(16) }, &environment)?;
        Ok(reading)
    }

    fn project_id(&self, project: usize) -> String {
        self.cloud.estate().project(project).id().to_owned()
    }
}

async fn audited(builder: tests::gcpsim::Builder) -> Result<Audited> {
    Audited::new(builder.start().await?)
}

/// How many different things there are records of, as far as records tell it.
fn counts(reading: &Reading) -> Counts {
    let of = |record_type| reading.of_type(record_type);
    let is_active = |record: &&&Value| record["ext"]["lifecycle_state"] == "ACTIVE";
    let projects = of("project");
    Counts {
        projects: projects.len(),
        active_projects: projects.values().filter(is_active).count(),
        firewalls: of("firewall").len(),
        rules: of("firewall_rule").len(),
        instances: of("instance").len(),
    }
}

/// The key of a thing with a link.
fn key(thing: &Value) -> String {
    let link = thing["selfLink"].as_str().unwrap_or_default();
    link.split_once("/compute/v1/").map_or(link, |(_, key)| key).to_owned()
}

fn by_key(things: impl Iterator<Item = Value>) -> BTreeMap<String, Value> {
    things.map(|thing| (key(&thing), thing)).collect()
}

#[tokio::test]
async fn everything_is_read_once_and_as_it_is() -> Result<()> {
    let builder = Gcpsim::builder().projects(6).firewalls(23).firewalls_in(2, 0).instances(31).page_size(7);
    let audited = audited(builder).await?;
    let cloud = &audited.cloud;
    let reading = audited.reading(json!({})).await?.all().await?;
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    let truth = cloud.truth();
    assert_eq!(counts(&reading), truth);
    assert_eq!(reading.records.len(), truth.projects + truth.firewalls + truth.rules + truth.instances);
    assert!(reading.fold.is_whole(), "{:?}", reading.fold.coverage());
    assert_eq!(reading.coverage("", "project"), Coverage::complete("", "project", 6));
    let (projects, firewalls, instances) =
        (reading.of_type("project"), reading.of_type("firewall"), reading.of_type("instance"));
    for (listed, index) in cloud.listed_projects().iter().zip(0..) {
        let id = audited.project_id(index);
        assert_eq!(&projects[&id]["raw"], listed);
        assert_eq!((&projects[&id]["com"]["reference"], &projects[&id]["ext"]["project_id"]), (&json!(id), &json!(id)));
        if !cloud.estate().project(index).is_active() {
            continue;
        }
        let all = by_key(cloud.estate().firewalls(index));
        assert_eq!(reading.coverage(&id, "firewall"), Coverage::complete(&id, "firewall", all.len() as u64));
        for (key, firewall) in all {
            assert_eq!(firewalls[&key]["raw"], firewall);
            assert_eq!(firewalls[&key]["com"]["reference"], firewall["selfLink"]);
        }
        let all = by_key(cloud.estate().instances(index));
        assert_eq!(reading.coverage(&id, "instance"), Coverage::complete(&id, "instance", 31));
        for (key, instance) in all {
            let record = instances[&key];
            assert_eq!(record["raw"], instance);
            assert_eq!(record["com"]["record_type"], "compute");
            let zone = record["ext"]["zone"].as_str().context("an instance without a zone")?;
            assert!(instance["zone"].as_str().is_some_and(|link| link.ends_with(&format!("/{zone}"))), "{zone}");
            assert_eq!(record["ext"]["client_email"], cloud.service_account());
            assert_eq!(record["ext"]["project_name"], listed["name"]);
        }
    }
    // One request a page, and one token for all.
    let statistics = cloud.statistics();
    let pages = |things: u64| things.div_ceil(7);
    assert_eq!(statistics.project_list_requests, 1);
    assert_eq!(statistics.firewall_list_requests, 4 * pages(23) + 1);
    assert_eq!(statistics.aggregated_list_requests, 5 * pages(31));
    assert_eq!((statistics.token_requests, statistics.tokens_issued), (1, 1));
    Ok(())
}

#[tokio::test]
async fn the_rules_of_a_firewall_are_its_entries() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(2).deleted_projects(0).firewalls(40).instances(0)).await?;
    let reading = audited.reading(json!({})).await?.all().await?;
    let rules = reading.of_type("firewall_rule");
    for firewall in (0..2).flat_map(|project| audited.cloud.estate().firewalls(project)) {
        let key = key(&firewall);
        let of_it = |access: &str| {
            let begin = format!("{key}/{access}/");
            rules.iter().filter(move |(key, _)| key.starts_with(&begin)).map(|(_, rule)| &rule["raw"])
        };
        for (list, access) in [("allowed", "allow"), ("denied", "deny")] {
            let entries = firewall[list].as_array().cloned().unwrap_or_default();
            let found: BTreeSet<String> = of_it(access).map(Value::to_string).collect();
            assert_eq!(of_it(access).count(), entries.len(), "{firewall}");
            assert_eq!(found, entries.iter().map(Value::to_string).collect());
        }
    }
    // A firewall comes before its rules.
    let mut firewall = String::new();
    for record in reading.records.iter().filter(|record| record["com"]["record_type"] != "project") {
        let key = record["com"]["key"].as_str().unwrap_or_default();
        match record["ext"]["record_type"].as_str() {
            Some("firewall") => firewall = key.to_owned(),
            _ => assert!(key.starts_with(&format!("{firewall}/")), "{key} after {firewall}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn projects_are_read_side_by_side_and_ids_say_what_is_read() -> Result<()> {
    let builder = Gcpsim::builder().projects(3).deleted_projects(0).firewalls(3).instances(1).page_size(2);
    let audited = audited(builder).await?;
    let reading = audited.reading(json!({})).await?.all().await?;
    let [a, b, c] = [0, 1, 2].map(|project| audited.project_id(project));
    let list = |list: &str, id: &str, page: u32| format!("{list}/{id}/p{page}");
    assert_eq!(
        reading.ids,
        [
            "root".to_owned(),
            "project/p1".to_owned(),
            "project/p2".to_owned(),
            list("firewall", &a, 1),
            list("firewall", &b, 1),
            list("instance", &a, 1),
            list("instance", &b, 1),
            list("firewall", &c, 1),
            list("instance", &c, 1),
            list("firewall", &a, 2),
            list("firewall", &b, 2),
            list("firewall", &c, 2),
        ]
    );
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_the_rest_is_read() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(5).firewalls(3).instances(4)).await?;
    audited.cloud.faults(|faults| {
        faults.deny_part(0, Part::Firewalls);
        faults.disable_api(1);
        faults.deny(2);
    });
    let reading = audited.reading(json!({})).await?.all().await?;
    assert_eq!(counts(&reading), audited.cloud.readable());
    assert!(!reading.fold.is_whole());
    for (project, list, state, parts) in [
        (0, "firewall", State::Denied, ["403 ", "permission compute.firewalls.list, like Compute Viewer"]),
        (0, "instance", State::Complete, ["", ""]),
        (1, "firewall", State::NotEnabled, ["403 SERVICE_DISABLED: ", "not enabled in the project"]),
        (1, "instance", State::NotEnabled, ["403 SERVICE_DISABLED: ", "not enabled in the project"]),
        (2, "instance", State::Denied, ["GET http://127.0.0.1", "permission compute.instances.list"]),
        (4, "firewall", State::Skipped, ["pending deletion", "DELETE_REQUESTED"]),
    ] {
        let coverage = reading.coverage(&audited.project_id(project), list);
        assert_eq!(coverage.state, state, "{project} {list}");
        let reason = coverage.reason.unwrap_or_default();
        assert!(parts.iter().all(|part| reason.contains(part)), "{parts:?}: {reason}");
    }
    // Nothing is asked of a project that is about to be deleted.
    assert_eq!(audited.cloud.statistics().firewall_list_requests, 4);
    Ok(())
}

#[tokio::test]
async fn a_list_of_projects_that_is_refused_fails_all() -> Result<()> {
    let audited = audited(Gcpsim::builder()).await?;
    for (trouble, state, part) in [
        (Trouble::Denied, State::Denied, "like Browser"),
        // It says nothing of what there is: the account's own project has no such API.
        (Trouble::ApiDisabled, State::Failed, "enable the API in the project that the calls are charged to"),
    ] {
        audited.cloud.faults(|faults| faults.at(Place::ProjectList, trouble, Times::Always));
        let reading = audited.reading(json!({})).await?.all().await?;
        let coverage = reading.fold.coverage();
        assert_eq!((coverage.len(), coverage[0].state), (1, state), "{coverage:?}");
        assert!(coverage[0].reason.as_ref().is_some_and(|reason| reason.contains(part)), "{coverage:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_throttled_unit_says_how_long_to_wait() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(3).firewalls(9).instances(9).page_size(4)).await?;
    for (throttling, code) in [(Throttling::RateLimitExceeded, "403 "), (Throttling::ResourceExhausted, "429 ")] {
        for (retry_after, waits) in [(Some(17), 17..18), (None, 60..70)] {
            audited.cloud.faults(|faults| {
                faults.throttle_every = 3;
                (faults.throttling, faults.retry_after) = (throttling, retry_after);
            });
            let reading = audited.reading(json!({})).await?.all().await?;
            assert_eq!(counts(&reading), audited.cloud.truth());
            assert!(reading.fold.is_whole() && !reading.errors.is_empty());
            for error in &reading.errors {
                let WorkError::Throttled { wait, reason } = error else { panic!("{error}") };
                assert!(waits.contains(&wait.as_secs()), "{wait:?}");
                assert!(reason.contains(code) || reason.contains("/v1/projects: 429"), "{reason}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn failures_of_the_server_and_cut_off_answers_are_transient() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(4).firewalls(20).instances(20).page_size(4)).await?;
    audited.cloud.faults(|faults| {
        faults.fail_every = 3;
        faults.cut_off_every = 4;
    });
    let reading = audited.reading(json!({})).await?.all().await?;
    assert_eq!(counts(&reading), audited.cloud.truth());
    assert!(reading.fold.is_whole());
    let reasons: Vec<String> = reading.errors.iter().map(ToString::to_string).collect();
    assert!(reading.errors.iter().all(|error| matches!(error, WorkError::Transient { .. })), "{reasons:?}");
    for part in [": 500", ": 503", ": 502", "cut off"] {
        assert!(reasons.iter().any(|reason| reason.contains(part)), "{part}: {reasons:?}");
    }
    assert!(reasons.iter().all(|reason| !reason.contains("pageToken")), "{reasons:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_that_expires_between_pages_is_replaced_once() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(2).firewalls(20).page_size(4)).await?;
    audited.cloud.faults(|faults| faults.expire_tokens_after = Some(3));
    let reading = audited.reading(json!({})).await?.all().await?;
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    assert_eq!(counts(&reading), audited.cloud.truth());
    let statistics = audited.cloud.statistics();
    assert_eq!((statistics.tokens_issued, statistics.unauthorized), (2, 1));
    Ok(())
}

#[tokio::test]
async fn units_whose_token_was_refused_share_the_next_one() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(8).deleted_projects(0).firewalls(2).instances(2)).await?;
    let mut reading = audited.reading(json!({})).await?;
    let list = reading.first_of("project").await?;
    let units = reading.work(&list).await??.children;
    assert_eq!(units.len(), 16);
    audited.cloud.expire_tokens();
    let work = units.iter().map(|unit| async {
        let mut out = Emitter::new(reading.bus.clone(), unit, &reading.spec);
        let done = reading.cloud.work(unit, &mut out).await?;
        out.finish().await?;
        Ok::<_, WorkError>(done)
    });
    assert_eq!(futures::future::try_join_all(work).await?.len(), 16);
    assert_eq!(audited.cloud.statistics().tokens_issued, 2);
    Ok(())
}

#[tokio::test]
async fn a_token_without_a_life_is_no_endless_loop() -> Result<()> {
    let audited = audited(Gcpsim::builder().token_lifetime(Duration::ZERO)).await?;
    let mut reading = audited.reading(json!({})).await?;
    let list = reading.first_of("project").await?;
    let Err(WorkError::Transient { reason }) = reading.work(&list).await? else { panic!() };
    assert!(reason.contains("had expired"), "{reason}");
    assert_eq!(audited.cloud.statistics().api_requests(), 0, "a token that has expired is not used");
    Ok(())
}

#[tokio::test]
async fn a_refused_page_token_begins_the_list_again() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(6).firewalls(9).instances(9).page_size(4)).await?;
    audited.cloud.faults(|faults| faults.refuse_page_tokens = Times::Next(2));
    let reading = audited.reading(json!({})).await?.all().await?;
    assert_eq!(counts(&reading), audited.cloud.truth());
    assert!(reading.fold.is_whole(), "{:?}", reading.fold.coverage());
    // What was read before the list began again does not count.
    assert_eq!(reading.coverage("", "project").read, 6);
    let refused = reading.errors.iter().filter(|error| matches!(error, WorkError::PageRefused { .. })).count();
    assert_eq!((refused, reading.errors.len()), (2, 2));
    assert!(reading.ids.contains(&"project/r1/p2".to_owned()), "{:?}", reading.ids);
    Ok(())
}

#[tokio::test]
async fn pages_that_shift_double_nothing() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(5).firewalls(20).instances(20).page_size(4)).await?;
    audited.cloud.faults(|faults| faults.page_overlap = 1);
    let reading = audited.reading(json!({})).await?.all().await?;
    assert_eq!(counts(&reading), audited.cloud.truth());
    let ids: BTreeSet<&str> = reading.records.iter().filter_map(|record| record["com"]["id"].as_str()).collect();
    let truth = audited.cloud.truth();
    assert_eq!(ids.len(), truth.projects + truth.firewalls + truth.rules + truth.instances);
    Ok(())
}

#[tokio::test]
async fn a_zone_that_is_away_is_named() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(2).deleted_projects(0).firewalls(1).instances(30)).await?;
    let zone = audited.cloud.estate().zones()[1].to_owned();
    audited.cloud.faults(|faults| faults.unreachable_zones = BTreeSet::from([zone.clone()]));
    let reading = audited.reading(json!({})).await?.all().await?;
    assert_eq!(counts(&reading), audited.cloud.readable());
    assert!(counts(&reading).instances < 60 && counts(&reading).instances > 0);
    let coverage = reading.coverage(&audited.project_id(0), "instance");
    assert_eq!((coverage.state, coverage.missing), (State::Partial, None));
    assert!(coverage.reason.unwrap_or_default().contains(&format!("could not reach zones/{zone}")));
    Ok(())
}

#[tokio::test]
async fn odd_things_cost_themselves_only() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(10).firewalls(50).instances(50).page_size(20)).await?;
    let cloud = &audited.cloud;
    cloud.faults(|faults| (faults.odd_every, faults.odd_projects_every) = (5, 4));
    let reading = audited.reading(json!({})).await?.all().await?;
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    let list = reading.coverage("", "project");
    assert_eq!((list.state, list.read, list.missing), (State::Partial, 8, Some(2)));
    let is_odd = |index: usize, every: usize| (index + 1).is_multiple_of(every);
    let raws = |record_type: &str| -> BTreeSet<String> {
        reading.of_type(record_type).values().map(|record| record["raw"].to_string()).collect()
    };
    let (firewalls, instances) = (raws("firewall"), raws("instance"));
    let mut listed = BTreeSet::new();
    for project in (0..10).filter(|project| !is_odd(*project, 4) && cloud.estate().project(*project).is_active()) {
        let id = audited.project_id(project);
        for (list, things, read) in [
            ("firewall", cloud.listed_firewalls(project), &firewalls),
            ("instance", cloud.listed_instances(project), &instances),
        ] {
            let coverage = reading.coverage(&id, list);
            assert_eq!((coverage.state, coverage.missing.is_some()), (State::Partial, true), "{coverage:?}");
            assert!(coverage.reason.as_ref().is_some_and(|reason| reason.contains("a")), "{coverage:?}");
            assert!((40..50).contains(&coverage.read), "{coverage:?}");
            assert_eq!(things.len(), 50);
            listed.extend(things.iter().map(Value::to_string));
            // Whatever is not odd is there.
            let good = match list {
                "firewall" => cloud.estate().firewalls(project).collect::<Vec<_>>(),
                _ => cloud.estate().instances(project).collect(),
            };
            let good = good.into_iter().filter(|thing| things.contains(thing));
            assert_eq!(good.filter(|thing| !read.contains(&thing.to_string())).count(), 0, "{list} of {id}");
        }
    }
    assert!(firewalls.is_subset(&listed) && instances.is_subset(&listed));
    Ok(())
}

#[tokio::test]
async fn limits_and_selections_leave_out_and_say_so() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(6).firewalls(2).instances(2).page_size(4)).await?;
    let reading = audited.reading(json!({"_max_projects": 2})).await?.all().await?;
    assert_eq!(reading.of_type("project").len(), 2);
    assert_eq!(audited.cloud.statistics().project_list_requests, 1);
    let list = reading.coverage("", "project");
    assert_eq!((list.state, list.read, list.missing), (State::Skipped, 2, None));
    let left_out = reading.coverage(&audited.project_id(2), "instance");
    assert_eq!(left_out.state, State::Skipped);
    assert!(left_out.reason.unwrap_or_default().contains("`_max_projects`"));

    let [one, two] = [0, 1].map(|project| audited.project_id(project));
    let reading = audited.reading(json!({"projects": {"exclude": [one]}})).await?.all().await?;
    assert_eq!(reading.coverage(&one, "firewall").state, State::Skipped);
    assert_eq!(reading.coverage(&one, "firewall").reason.as_deref(), Some("`projects` leaves out the project"));
    assert_eq!(reading.coverage(&two, "firewall"), Coverage::complete(&two, "firewall", 2));
    let name = audited.cloud.listed_projects()[1]["name"].clone();
    let reading = audited.reading(json!({"projects": [name]})).await?.all().await?;
    assert_eq!(reading.coverage(&two, "instance").state, State::Complete);
    assert!(reading.fold.is_whole());

    // The second page has the last project; what no page has is said.
    let last = audited.project_id(5);
    let reading = audited.reading(json!({"projects": [one, last, "gone-project"]})).await?.all().await?;
    let missing: Vec<_> = reading.fold.coverage().into_iter().filter(|one| !one.state.is_whole()).collect();
    let [gone] = missing.as_slice() else { panic!("{missing:?}") };
    assert_eq!((gone.scope.as_str(), gone.state), ("gone-project", State::Failed));
    Ok(())
}

#[tokio::test]
async fn an_account_that_sees_nothing_is_told() -> Result<()> {
    let audited = audited(Gcpsim::builder()).await?;
    let account = audited.cloud.service_account().to_owned();
    audited.cloud.faults(|faults| faults.blind = BTreeSet::from([account.clone()]));
    let reading = audited.reading(json!({})).await?.all().await?;
    let coverage = reading.coverage("", "project");
    assert_eq!((coverage.state, coverage.read, coverage.missing), (State::Denied, 0, None));
    assert!(coverage.reason.as_ref().is_some_and(|reason| reason.contains(&account)), "{coverage:?}");
    assert!(!reading.fold.is_whole());
    Ok(())
}

#[tokio::test]
async fn every_way_to_sign_in_reads_the_same() -> Result<()> {
    let audited = audited(Gcpsim::builder().projects(2).firewalls(3).instances(3)).await?;
    let cloud = &audited.cloud;
    let folder = audited.folder.path();
    std::fs::write(folder.join("user.json"), cloud.user_file())?;
    let reader = cloud.impersonable()[0].clone();
    let none = Value::Null;
    let here = || Environment::empty().in_directory(folder);
    let default = |file: &str| here().with("GOOGLE_APPLICATION_CREDENTIALS", file);
    let application_default = json!({"key_file_path": none, "credential": "application_default"});
    let metadata = json!({"key_file_path": none, "credential": "metadata", "metadata_endpoint": cloud.url()});
    let impersonated = json!({"impersonate": reader});
    for (environment, params, email) in [
        (here(), json!({"key_file_path": "key.json"}), json!(cloud.service_account())),
        (default("key.json"), application_default.clone(), json!(cloud.service_account())),
        (default("user.json"), application_default.clone(), none.clone()),
        (here().with("GCE_METADATA_HOST", cloud.metadata_host()), application_default, json!(cloud.machine_account())),
        (here(), metadata, json!(cloud.machine_account())),
        (here(), impersonated, json!(reader)),
    ] {
        let reading = audited.reading_on(environment, params.clone()).await?.all().await?;
        assert!(reading.fold.is_whole(), "{params}: {:?}", reading.fold.coverage());
        assert_eq!(counts(&reading), cloud.truth(), "{params}");
        assert!(reading.records.iter().all(|record| record["ext"]["client_email"] == email), "{params}");
    }
    let callers = [cloud.service_account(), cloud.user(), cloud.machine_account(), &reader];
    assert!(callers.iter().all(|caller| cloud.callers().contains(*caller)), "{:?}", cloud.callers());
    Ok(())
}

#[tokio::test]
async fn a_wrong_sign_in_says_what_to_do() -> Result<()> {
    let audited = audited(Gcpsim::builder()).await?;
    std::fs::write(audited.folder.path().join("wrong.json"), audited.cloud.wrong_key_file())?;
    let wrong = json!({"key_file_path": audited.folder.path().join("wrong.json")});
    let stranger = json!({"impersonate": "stranger@nowhere.iam.gserviceaccount.com"});
    for (params, said, remedy) in [
        (wrong, "400 invalid_grant: Invalid JWT Signature.", "make a new key and set `key_file_path`"),
        (stranger, ": 403 ", "role Service Account Token Creator on stranger@"),
    ] {
        let mut reading = audited.reading(params).await?;
        let list = reading.first_of("project").await?;
        let Err(WorkError::NotRead { state, reason }) = reading.work(&list).await? else { panic!() };
        assert_eq!(state, State::Failed);
        assert!(reason.contains(said) && reason.contains(remedy), "{reason}");
    }
    assert_eq!(audited.cloud.statistics().api_requests(), 0);
    Ok(())
}

#[tokio::test]
async fn a_host_without_a_metadata_server_is_told_within_seconds() -> Result<()> {
    let audited = audited(Gcpsim::builder()).await?;
    let away = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.local_addr()?.to_string()
    };
    let environment = Environment::empty().with("GCE_METADATA_HOST", &away);
    let params = json!({"key_file_path": null, "credential": "application_default"});
    let mut reading = audited.reading_on(environment, params).await?;
    let list = reading.first_of("project").await?;
    let began = Instant::now();
    let Err(WorkError::NotRead { state: State::Failed, reason }) = reading.work(&list).await? else { panic!() };
    assert!(began.elapsed() < Duration::from_secs(10));
    for part in ["GOOGLE_APPLICATION_CREDENTIALS is not set", "there is no metadata server here", "`key_file_path`"] {
        assert!(reason.contains(part), "{reason}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cloud_that_is_away_may_come_back() -> Result<()> {
    let away = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        format!("http://{}", listener.local_addr()?)
    };
    let audited = audited(Gcpsim::builder()).await?;
    let mut reading = audited.reading(json!({"api_endpoint": away})).await?;
    let list = reading.first_of("project").await?;
    let Err(WorkError::Transient { reason }) = reading.work(&list).await? else { panic!() };
    assert!(reason.contains(&format!("GET {away}/v1/projects: cannot connect")), "{reason}");
    audited.cloud.faults(|faults| faults.fail_token_requests = Times::Next(1));
    let mut reading = audited.reading(json!({})).await?;
    let Err(WorkError::Transient { reason }) = reading.work(&list).await? else { panic!() };
    assert!(reason.contains("/token: 503"), "{reason}");
    assert!(reading.work(&list).await?.is_ok());
    Ok(())
}

/// A folder for whole runs.
fn in_workspace(cloud: &Gcpsim, key_file: &str, more: &str) -> Result<Workspace> {
    let workspace = Workspace::new("")?;
    let path = workspace.path().join("key.json");
    std::fs::write(&path, key_file)?;
    let configuration =
        cloud.configuration(&path).replace("      api_endpoint:", &format!("{more}      api_endpoint:"));
    workspace.configure(&configuration)?;
    let store =
        "plugins: {filestore: {params: {path: '{out}'}}}".replace("{out}", &workspace.out().display().to_string());
    std::fs::write(workspace.path().join("store.yaml"), store)?;
    Ok(workspace)
}

async fn run(workspace: &Workspace) -> Result<Output> {
    workspace.run(&["run", "--now", "-c", "cloudmarker.yaml", "store.yaml"]).await
}

/// What a run stored, each record once.
fn stored(workspace: &Workspace) -> Result<Counts> {
    let records = workspace.documents("mygcpaudit_mygcpcloud.json")?;
    let ids: BTreeSet<&str> = records.iter().filter_map(|record| record["com"]["id"].as_str()).collect();
    assert_eq!(ids.len(), records.len());
    let of = |record_type: &str| records.iter().filter(|record| record["ext"]["record_type"] == record_type).count();
    let is_active = |record: &&Value| record["ext"]["lifecycle_state"] == "ACTIVE";
    Ok(Counts {
        projects: of("project"),
        active_projects: records.iter().filter(is_active).count(),
        firewalls: of("firewall"),
        rules: of("firewall_rule"),
        instances: of("instance"),
    })
}

/// Nothing that a run printed or wrote shows any secret of the cloud.
fn assert_no_secret(cloud: &Gcpsim, output: &Output, workspace: &Workspace) -> Result<()> {
    let mut texts = vec![output.stdout.clone(), output.stderr.clone()];
    for file in workspace.files()? {
        texts.push(std::fs::read_to_string(workspace.out().join(file))?);
    }
    let shown: Vec<String> =
        cloud.secrets().into_iter().filter(|secret| texts.iter().any(|text| text.contains(secret))).collect();
    assert!(shown.is_empty(), "{shown:?}");
    assert!(texts.iter().all(|text| !text.contains("key_file_path\":")), "the path of the key is in a record");
    Ok(())
}

#[tokio::test]
async fn a_run_with_every_fault_at_once_reads_all_that_can_be_read() -> Result<()> {
    let builder = Gcpsim::builder().projects(8).firewalls(30).instances(30).page_size(5);
    let cloud = builder
        .faults(|faults| {
            (faults.throttle_every, faults.retry_after) = (17, Some(1));
            (faults.fail_every, faults.cut_off_every) = (13, 11);
            faults.refuse_page_tokens = Times::Next(2);
            faults.expire_tokens_after = Some(20);
            faults.deny_part(0, Part::Firewalls);
            faults.disable_api(1);
        })
        .start()
        .await?;
    let workspace = in_workspace(&cloud, &cloud.key_file(), "")?;
    let output = run(&workspace).await?.with_code(3)?;
    assert_eq!(stored(&workspace)?, cloud.readable());
    for part in ["denied", "not enabled", "pending deletion", "compute.firewalls.list"] {
        assert!(output.stdout.contains(part), "{part}: {}", output.stdout);
    }
    assert!(!workspace.documents("mygcpaudit_firewallruleevent.json")?.is_empty());
    assert_no_secret(&cloud, &output, &workspace)
}

#[tokio::test]
async fn a_run_outlasts_many_tokens_of_two_seconds() -> Result<()> {
    let builder = Gcpsim::builder().projects(4).firewalls(20).instances(20).page_size(2);
    let builder = builder.token_lifetime(Duration::from_secs(2));
    let cloud = builder.faults(|faults| faults.latency = Duration::from_millis(250)).start().await?;
    let workspace = in_workspace(&cloud, &cloud.key_file(), "      concurrency: 3\n")?;
    let output = run(&workspace).await?.with_code(0)?;
    assert_eq!(stored(&workspace)?, cloud.truth());
    let statistics = cloud.statistics();
    assert!(statistics.tokens_issued >= 3, "{statistics:?}");
    assert_no_secret(&cloud, &output, &workspace)
}

#[tokio::test]
async fn over_a_broker_with_two_of_every_worker() -> Result<()> {
    let builder = Gcpsim::builder().projects(6).firewalls(40).instances(40).page_size(9);
    let cloud = builder.faults(|faults| (faults.throttle_every, faults.retry_after) = (19, Some(1))).start().await?;
    let nats = NatsServer::start().await?;
    let services = Services::start(&nats, 2)?;
    let workspace = in_workspace(&cloud, &cloud.key_file(), "")?;
    let args = ["run", "--now", "--nats", nats.url(), "-c", "cloudmarker.yaml", "store.yaml"];
    let output = workspace.run(&args).await?;
    assert_eq!(output.code(), Some(0), "{output:?}\n{}", services.printed());
    assert_eq!(stored(&workspace)?, cloud.truth());
    let printed = services.printed();
    assert!(cloud.secrets().iter().all(|secret| !printed.contains(secret)));
    assert_no_secret(&cloud, &output, &workspace)
}

#[tokio::test]
async fn a_wrong_key_ends_the_run_with_one_clear_reason() -> Result<()> {
    let cloud = Gcpsim::builder().start().await?;
    let workspace = in_workspace(&cloud, &cloud.wrong_key_file(), "")?;
    let output = run(&workspace).await?.with_code(3)?;
    assert_eq!(output.stdout.matches("Invalid JWT Signature.").count(), 1, "{}", output.stdout);
    assert!(output.stdout.contains("make a new key"), "{}", output.stdout);
    assert_eq!(std::fs::read_to_string(workspace.out().join("mygcpaudit_mygcpcloud.json"))?, "[]\n");
    assert_eq!(cloud.statistics().token_requests, 1);
    assert_no_secret(&cloud, &output, &workspace)
}

#[tokio::test]
async fn a_key_file_that_is_not_there_is_named() -> Result<()> {
    let cloud = Gcpsim::builder().start().await?;
    let workspace = in_workspace(&cloud, &cloud.key_file(), "")?;
    std::fs::remove_file(workspace.path().join("key.json"))?;
    let output = run(&workspace).await?.with_code(3)?;
    assert!(output.stdout.contains("`key_file_path`: cannot read"), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn the_tutorials_audit_runs_with_its_relative_path() -> Result<()> {
    let cloud = Gcpsim::builder().projects(2).firewalls(3).instances(3).start().await?;
    let workspace = in_workspace(&cloud, &cloud.key_file(), "")?;
    std::fs::copy(workspace.path().join("key.json"), workspace.path().join("keyfile.json"))?;
    let tutorial = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/tests/config/tutorial/gcpcloud.yaml");
    let endpoint = format!("plugins: {{mygcpcloud: {{params: {{api_endpoint: '{}'}}}}}}", cloud.url());
    std::fs::write(workspace.path().join("endpoint.yaml"), endpoint)?;
    workspace.run(&["-n", "-c", tutorial, "endpoint.yaml", "store.yaml"]).await?.with_code(0)?;
    assert_eq!(stored(&workspace)?, cloud.truth());
    Ok(())
}

#[tokio::test]
async fn the_example_is_good() -> Result<()> {
    let workspace = Workspace::new("")?;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/gcp.yaml");
    let checked = workspace.run(&["check", "-c", example]).await?.with_code(0)?;
    assert_eq!(checked.stdout, "The configuration is good. Audits to run: mygcpaudit\n");
    assert_eq!(checked.stderr, "");
    Ok(())
}
