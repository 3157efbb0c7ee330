//! Mail, against a recorder over real sockets.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::bus::{Bucket, ReaderSpec, SharedBus};
use proto::config::Environment;
use proto::config::secret::Expander;
use proto::frame::SCHEMA;
use proto::plan::Stage;
use proto::run::{Phase, RunState};
use proto::service::Worker;
use proto::service::presence::{Presence, WorkerInfo};
use proto::subject::{Role, Version};
use serde_json::{Value, json};
use tests::harness::{PATIENCE, Script, SmtpServer, Tls};
use tokio_util::sync::CancellationToken;

use crate::{VERSION, alert, bus, deliver, deliver_version, event, events, failure, key, message, plan};

const CLASS: &str = "cloudmarker.alerts.emailalert.EmailAlert";
const PASSWORD: &str = "correct horse";

/// The parameters of an alert by a recorder, with others in place of these or beside them.
fn params(server: &SmtpServer, others: Value) -> Value {
    let mut params = json!({
        "from_addr": "Cloudmarker <cloudmarker@example.com>",
        "to_addrs": ["Anna <anna@example.com>", "bert@example.com"],
        "subject": "[Cloudmarker]",
        "host": "localhost",
        "port": server.port(),
        "ssl_mode": "disable",
        "timeout": "20s",
        "patience": "20s",
    });
    if let (Some(params), Value::Object(others)) = (params.as_object_mut(), others) {
        params.extend(others);
    }
    params
}

fn safe(server: &SmtpServer, mode: &str) -> Value {
    params(server, json!({"ssl_mode": mode, "ca_cert": server.ca_file(), "username": "anna", "password": PASSWORD}))
}

#[tokio::test]
async fn a_mail_goes_by_every_mode_and_says_what_was_found() -> Result<()> {
    for (mode, tls) in [("ssl", Tls::Implicit), ("starttls", Tls::Starttls), ("disable", Tls::None)] {
        let server = SmtpServer::start(Script { tls, user: Some(("anna", PASSWORD)), ..Script::default() }).await?;
        let mut params = safe(&server, mode);
        if mode == "disable" {
            params["ca_cert"] = Value::Null;
        }
        let mut found = events(10);
        found.push(event(3, "high")); // again
        let delivery = deliver(CLASS, &params, &found).await??;
        assert_eq!(delivery.documents, 10);
        assert!(delivery.place.contains("anna@example.com, bert@example.com"), "{}", delivery.place);
        let mails = server.mails();
        ensure!(mails.len() == 1, "{mode}: {mails:?}");
        let mail = &mails[0];
        assert_eq!((mail.from.as_str(), mail.is_safe), ("cloudmarker@example.com", tls != Tls::None));
        assert_eq!(
            (mail.user.as_deref(), &mail.to[..]),
            (Some("anna"), &["anna@example.com".to_owned(), "bert@example.com".to_owned()][..])
        );
        assert_eq!(mail.header("Subject").as_deref(), Some("[Cloudmarker] prod: 3 critical, 7 high"));
        assert_eq!(mail.header("From").as_deref(), Some("Cloudmarker <cloudmarker@example.com>"));
        for said in [
            "multipart/alternative",
            "text/plain",
            "text/html",
            "The port 3 is open.",
            "Close it.",
            "sub-2",
            "azure_port",
        ] {
            assert!(mail.text.contains(said), "{said} is not in\n{}", mail.text);
        }
        assert!(!mail.text.contains("attachment"), "all fit");
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_receiver_costs_no_other() -> Result<()> {
    let refuse = [("anna@example.com", ("550 5.1.1 no such user", None))].into();
    let server = SmtpServer::start(Script { refuse, ..Script::default() }).await?;
    let said = failure(CLASS, &params(&server, json!({})), &events(1)).await?;
    assert!(said.contains("anna@example.com: 550") && said.contains("no such user"), "{said}");
    assert!(said.contains("1 of 2 receivers have the mail"), "{said}");
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, ["bert@example.com"]);
    Ok(())
}

#[tokio::test]
async fn who_is_refused_for_a_while_gets_it_later_and_nobody_gets_it_twice() -> Result<()> {
    let refuse = [("bert@example.com", ("451 4.7.1 greylisted", Some(2)))].into();
    let server = SmtpServer::start(Script { refuse, ..Script::default() }).await?;
    deliver(CLASS, &params(&server, json!({})), &events(1)).await??;
    let mails = server.mails();
    let to: Vec<&[String]> = mails.iter().map(|mail| &mail.to[..]).collect();
    assert_eq!(to, [["anna@example.com".to_owned()], ["bert@example.com".to_owned()]]);
    assert_eq!(mails[0].header("Message-ID"), mails[1].header("Message-ID"));
    Ok(())
}

#[tokio::test]
async fn a_server_that_hangs_anywhere_ends_in_a_failure() -> Result<()> {
    for (verb, tls) in [
        ("GREETING", Tls::None),
        ("EHLO", Tls::None),
        ("STARTTLS", Tls::Starttls),
        ("AUTH", Tls::Implicit),
        ("MAIL", Tls::None),
        ("RCPT", Tls::None),
        ("DATA", Tls::None),
    ] {
        let user = (verb == "AUTH").then_some(("anna", PASSWORD));
        let server = SmtpServer::start(Script { tls, user, hang_at: Some(verb), ..Script::default() }).await?;
        let mut params = match tls {
            Tls::None => params(&server, json!({})),
            Tls::Implicit => safe(&server, "ssl"),
            Tls::Starttls => safe(&server, "starttls"),
        };
        params["timeout"] = json!("1s");
        params["patience"] = json!("1s");
        let begun = Instant::now();
        let said = failure(CLASS, &params, &events(1)).await?;
        assert!(said.contains("does not answer") && said.contains("given up"), "{verb}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{verb}");
        assert!(server.mails().is_empty(), "{verb}");
    }
    // After the end of a message there is no knowing whether it was taken: it comes again, known as the same.
    let server = SmtpServer::start(Script { hang_up_at: Some(("MESSAGE", 1)), ..Script::default() }).await?;
    deliver(CLASS, &params(&server, json!({})), &events(1)).await??;
    let ids: BTreeSet<_> = server.mails().iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!((server.mails().len(), ids.len()), (2, 1));
    Ok(())
}

#[tokio::test]
async fn what_no_other_try_can_mend_is_said_at_once() -> Result<()> {
    let implicit = || Script { tls: Tls::Implicit, user: Some(("anna", PASSWORD)), ..Script::default() };
    let server = SmtpServer::start(implicit()).await?;
    let mut wrong = safe(&server, "ssl");
    wrong["password"] = json!("hunter2");
    let said = failure(CLASS, &wrong, &events(1)).await?;
    assert!(said.contains("refuses the login of anna: 535") && said.contains("`password`"), "{said}");
    assert!(!said.contains("hunter2") && !said.contains(PASSWORD), "{said}");

    let mut untrusted = safe(&server, "ssl");
    untrusted["ca_cert"] = json!(server.other_ca_file());
    let said = failure(CLASS, &untrusted, &events(1)).await?;
    assert!(said.contains("not to be trusted") && said.contains("`ca_cert`"), "{said}");

    let elsewhere = SmtpServer::start_as_another(implicit()).await?;
    let said = failure(CLASS, &safe(&elsewhere, "ssl"), &events(1)).await?;
    assert!(said.contains("not to be trusted") && said.contains("name"), "{said}");

    let plain = SmtpServer::start(Script::default()).await?;
    let said = failure(CLASS, &safe(&plain, "ssl"), &events(1)).await?;
    assert!(said.contains("`ssl_mode: starttls`"), "{said}");
    let said = failure(CLASS, &safe(&plain, "starttls"), &events(1)).await?;
    assert!(said.contains("does not offer STARTTLS"), "{said}");

    // It waits for TLS, and we for its greeting.
    let mut silent = params(&server, json!({"timeout": "1s", "patience": "1s"}));
    let said = failure(CLASS, &silent, &events(1)).await?;
    assert!(said.contains("`ssl_mode: ssl`"), "{said}");
    silent["port"] = json!(tests::harness::free_port()?);
    let said = failure(CLASS, &silent, &events(1)).await?;
    assert!(said.contains("refused"), "{said}");

    let sender =
        SmtpServer::start(Script { answer: [("MAIL", ("550 5.7.1 not you", 9))].into(), ..Script::default() }).await?;
    let said = failure(CLASS, &params(&sender, json!({})), &events(1)).await?;
    assert!(said.contains("refuses the sender cloudmarker@example.com: 550") && said.contains("not you"), "{said}");
    let large =
        SmtpServer::start(Script { answer: [("MESSAGE", ("552 5.3.4 too large", 9))].into(), ..Script::default() })
            .await?;
    let said = failure(CLASS, &params(&large, json!({})), &events(1)).await?;
    assert!(said.contains("too large"), "{said}");
    for server in [server, elsewhere, plain, sender, large] {
        assert!(server.mails().is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn a_version_that_is_delivered_again_is_known_as_the_same() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let params = params(&server, json!({}));
    let mut found = events(5);
    deliver(CLASS, &params, &found).await??;
    // The worker dies before it says so; another reads the events in another order.
    found.reverse();
    deliver(CLASS, &params, &found).await??;
    deliver_version("20260201_000000", CLASS, &params, &found).await??;
    let ids: Vec<_> = server.mails().iter().filter_map(|mail| mail.header("Message-ID")).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
    assert!(ids[0].ends_with("@example.com>"), "{ids:?}");
    Ok(())
}

#[tokio::test]
async fn nothing_is_sent_about_nothing_unless_it_is_asked_for() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let delivery = deliver(CLASS, &params(&server, json!({})), &[]).await??;
    assert_eq!((delivery.documents, delivery.place.as_str()), (0, "no message: there are no findings"));
    let filtered = params(&server, json!({"min_severity": "critical", "accounts": ["sub-1"]}));
    let delivery = deliver(CLASS, &filtered, &[event(1, "high"), event(2, "critical")]).await??;
    assert!(delivery.place.contains("all of 2 findings are left out: severity critical"), "{}", delivery.place);
    assert!(server.verbs().is_empty());
    deliver(CLASS, &params(&server, json!({"always": true})), &[]).await??;
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].header("Subject").as_deref(), Some("[Cloudmarker] prod: no findings"));
    let filtered = params(&server, json!({"min_severity": "critical"}));
    assert_eq!(deliver(CLASS, &filtered, &[event(1, "high"), event(2, "critical")]).await??.documents, 1);
    assert!(server.mails()[1].text.contains("severity critical or worse"));
    Ok(())
}

/// Together some 60 MB.
const MANY: u32 = 100_000;

#[tokio::test]
async fn very_many_findings_are_a_mail_that_servers_take() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let mut alert = alert(VERSION, CLASS, &params(&server, json!({})))?;
    for n in 0..MANY {
        let mut event = event(n, "high");
        event["com"]["rule"] = json!(format!("rule_{}", n % 500));
        alert.accept(&message(VERSION, &event)?.into_message()).await?;
    }
    assert_eq!(alert.finish(1).await?.documents, u64::from(MANY));
    let mails = server.mails();
    let mail = mails.first().context("no mail")?;
    assert!(mail.text.len() < 10 * 1024 * 1024, "{} bytes", mail.text.len());
    assert_eq!(mail.header("Subject").as_deref(), Some("[Cloudmarker] prod: 100,000 high"));
    for name in ["findings_prod_20260131_235959.json.gz", "findings_prod_20260131_235959.csv.gz"] {
        assert!(mail.text.contains(name), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn odd_texts_make_a_mail_that_is_one() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let mut odd = event(1, "critical");
    odd["com"]["description"] =
        json!("\r\n.\r\nMAIL FROM:<evil@example.com>\r\n<script>alert(1)</script> שלום 🔥 \u{202e}\u{0}\u{7}");
    odd["com"]["title"] = json!("title\r\nBcc: evil@example.com");
    odd["com"]["resource"]["account"] = json!("<b>x</b>\r\nTo: evil@example.com");
    odd["com"]["recommendation"] = json!("y".repeat(1_000_000));
    deliver(CLASS, &params(&server, json!({})), &[odd]).await??;
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, ["anna@example.com", "bert@example.com"]);
    let head = mails[0].text.split("\r\n\r\n").next().unwrap_or_default();
    assert!(!head.contains("evil"), "{head}");
    assert!(mails[0].text.len() < 100_000);
    // What is no event is put aside, and the others are told of.
    let wrong = json!({"com": {"id": 5}});
    assert_eq!(deliver(CLASS, &params(&server, json!({})), &[wrong, event(1, "high")]).await??.documents, 1);
    Ok(())
}

#[tokio::test]
async fn a_test_message_is_marked_as_one() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let place =
        alerter::trial::send(&key("alert")?, CLASS, &params(&server, json!({"min_severity": "critical"}))).await;
    assert!(place.map_err(anyhow::Error::msg)?.contains("anna@example.com"));
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].header("Subject").as_deref(), Some("[Cloudmarker] test message of the alert alert"));
    assert!(mails[0].text.contains("This is a test message."));
    Ok(())
}

#[tokio::test]
async fn ten_alerters_at_once_send_one_mail() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let bus = bus();
    // Old versions are nobody's any more.
    let version = Version::at(jiff::Timestamp::now());
    let plan = plan(version.as_str(), CLASS, &params(&server, json!({})))?;
    let audit = key("prod")?;
    let spec = plan.plugins.first().context("no plugin")?;
    bus.announce_reader(&ReaderSpec::exclusive(&audit, &version, Role::Alert, &spec.key)).await?;
    let status = ReaderSpec::status(&audit, &version);
    bus.announce_reader(&status).await?;
    plan.publish(&*bus, Stage::Alerter).await?;
    let mut run = RunState::new(version.clone(), String::new(), "test".to_owned(), std::slice::from_ref(&audit));
    let state = run.audits.get_mut(&audit).context("no audit")?;
    state.phase = Phase::Collecting;
    bus.kv_put(Bucket::Runs, version.as_str(), serde_json::to_vec(&run)?.into()).await?;
    let shutdown = CancellationToken::new();
    let workers: Vec<_> = (0..10).map(|n| tokio::spawn(alerter::worker::run(worker(&bus, n, &shutdown)))).collect();
    let mut last = 0;
    for event in events(100) {
        last = bus.publish(message(version.as_str(), &event)?).await?.seq;
    }
    let state = run.audits.get_mut(&audit).context("no audit")?;
    (state.phase, state.events_end) = (Phase::DrainingAlerts, Some(last));
    bus.kv_put(Bucket::Runs, version.as_str(), serde_json::to_vec(&run)?.into()).await?;
    let mut reader = bus.read(&status).await?;
    let said = tokio::time::timeout(PATIENCE, reader.next()).await??;
    let said: Value = serde_json::from_slice(&said.payload)?;
    assert_eq!((&said["kind"], &said["documents"]), (&json!("delivered"), &json!(100)), "{said}");
    shutdown.cancel();
    for worker in workers {
        worker.await?;
    }
    assert_eq!(server.mails().len(), 1);
    Ok(())
}

fn worker(bus: &SharedBus, n: usize, shutdown: &CancellationToken) -> Worker {
    let name = format!("alerter-{n}");
    let info = WorkerInfo {
        name: name.clone(),
        stage: Stage::Alerter,
        host: "test".to_owned(),
        pid: 1,
        program: "0".to_owned(),
        schema: SCHEMA.to_owned(),
        pools: Vec::new(),
        classes: Vec::new(),
        cannot: Vec::new(),
    };
    Worker {
        bus: bus.clone(),
        stage: Stage::Alerter,
        name,
        shutdown: shutdown.clone(),
        presence: Presence::start(bus.clone(), info, shutdown.clone()),
        expander: Expander::new(Environment::empty()),
        concurrency: 1,
    }
}
