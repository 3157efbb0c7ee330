//! Alerts of whole runs: the programs, a real broker, and a mail server that records.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::gcpsim::{Gcpsim, Part};
use tests::harness::{Mail, NatsServer, PATIENCE, Script, Services, SmtpServer, WebhookReceiver, Workspace};

/// An audit with events whose mails go to a recorder.
fn configuration(server: &SmtpServer, more: &str) -> String {
    format!(
        "
plugins:
  mail:
    plugin: cloudmarker.alerts.emailalert.EmailAlert
    params:
      from_addr: cloudmarker@example.com
      to_addrs: [ops@example.com]
      subject: '[Cloudmarker]'
      host: localhost
      port: {port}
      ssl_mode: disable
      patience: 20s
  mockcloud: {{params: {{record_count: 2000}}}}
  mockevent: {{params: {{n: 10}}}}
{more}
",
        port = server.port()
    )
}

const ONE_AUDIT: &str = "
audits:
  prod: {clouds: [mockcloud], stores: [], events: [mockevent], alerts: [mail]}
run: [prod]
";

fn ids(mails: &[Mail]) -> BTreeSet<Option<String>> {
    mails.iter().map(|mail| mail.header("Message-ID")).collect()
}

#[tokio::test]
async fn a_run_in_one_process_sends_a_mail() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let workspace = Workspace::new(&configuration(&server, ONE_AUDIT))?;
    let output = workspace.run(&["run", "--now"]).await?.with_code(0)?;
    let mails = server.mails();
    ensure!(mails.len() == 1, "{output:?}");
    let subject = mails[0].header("Subject").context("no subject")?;
    ensure!(subject.starts_with("[Cloudmarker] prod: 200 ") && subject.ends_with("; complete"), "{subject}");
    Ok(())
}

#[tokio::test]
async fn a_mail_says_what_was_not_read_with_a_broker_and_without() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let cloud = Gcpsim::builder().projects(3).firewalls(3).instances(3);
    let cloud = cloud.faults(|faults| faults.deny_part(0, Part::Firewalls)).start().await?;
    let more = format!(
        "
  gcp:
    plugin: cloudmarker.clouds.gcpcloud.GCPCloud
    params: {{key_file_path: ./key.json, api_endpoint: '{}'}}
audits:
  prod: {{clouds: [mockcloud, gcp], stores: [], events: [mockevent], alerts: [mail]}}
run: [prod]
",
        cloud.url()
    );
    let workspace = Workspace::new("")?;
    let key = workspace.path().join("key.json");
    std::fs::write(&key, cloud.key_file())?;
    // Workers are at home elsewhere.
    workspace.configure(&configuration(&server, &more).replace("./key.json", &key.display().to_string()))?;
    let alone = workspace.run(&["run", "--now"]).await?.with_code(3)?;
    let nats = NatsServer::start().await?;
    let _services = Services::start(&nats, 1)?;
    let over_nats = workspace.run(&["run", "--now", "--nats", nats.url()]).await?.with_code(3)?;
    let mails = server.mails();
    ensure!(mails.len() == 2, "{alone:?}\n{over_nats:?}");
    for mail in mails {
        let subject = mail.header("Subject").context("no subject")?;
        ensure!(subject.ends_with("; incomplete"), "{subject}");
        let text = mail.text.replace("=\r\n", "");
        ensure!(text.contains("What could not be read") && text.contains("cloud gcp: firewall"), "{text}");
        ensure!(text.contains("denied"), "{text}");
    }
    Ok(())
}

/// The headlines of the mails of a run, then of the same with more records, then of the same again.
async fn news(server: &SmtpServer, args: &[&str]) -> Result<Vec<String>> {
    let state = tempfile::tempdir()?;
    for (records, is_told) in [(2000, true), (2020, true), (2020, false)] {
        let text = configuration(server, ONE_AUDIT)
            .replace("patience: 20s", "patience: 20s\n      only_new: true")
            .replace("record_count: 2000", &format!("record_count: {records}"));
        let workspace = Workspace::new(&text)?;
        let run = workspace.coordinator(args).env("CM_STATE_DIR", state.path());
        let output = run.start()?.wait(PATIENCE).await?.with_code(0)?;
        ensure!(is_told || output.stdout.contains("are left out"), "{output:?}");
    }
    Ok(server.mails().iter().filter_map(|mail| mail.header("Subject")).collect())
}

#[tokio::test]
async fn only_what_is_new_is_told_of_by_one_process_after_another() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let subjects = news(&server, &["run", "--now"]).await?;
    ensure!(subjects.len() == 2 && subjects[0].contains("prod: 200 "), "{subjects:?}");
    ensure!(subjects[1].contains("prod: 2 ") && subjects[1].ends_with(" (new); complete"), "{subjects:?}");
    Ok(())
}

#[tokio::test]
async fn only_what_is_new_is_told_of_over_a_broker() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let nats = NatsServer::start().await?;
    let _services = Services::start(&nats, 1)?;
    let subjects = news(&server, &["run", "--now", "--nats", nats.url()]).await?;
    ensure!(subjects.len() == 2 && subjects[0].contains("prod: 200 "), "{subjects:?}");
    ensure!(subjects[1].contains("prod: 2 ") && subjects[1].ends_with(" (new); complete"), "{subjects:?}");
    Ok(())
}

#[tokio::test]
async fn an_alert_that_fails_costs_no_other_and_is_said() -> Result<()> {
    let (server, receiver) = (SmtpServer::start(Script::default()).await?, WebhookReceiver::start().await?);
    server.rewrite(Script { refuse: [("ops@example.com", ("550 5.1.1 gone", None))].into(), ..Script::default() });
    let more = format!(
        "
  hook: {{plugin: WebhookAlert, params: {{url: '{}', allow: [127.0.0.1]}}}}
audits:
  prod: {{clouds: [mockcloud], stores: [], events: [mockevent], alerts: [mail, hook]}}
run: [prod]
",
        receiver.url("/")
    );
    let workspace = Workspace::new(&configuration(&server, &more))?;
    let output = workspace.run(&["run", "--now"]).await?;
    ensure!(output.code() != Some(0), "{output:?}");
    ensure!(format!("{output:?}").contains("ops@example.com: 550"), "{output:?}");
    assert_eq!(receiver.posted().len(), 1);
    assert_eq!(receiver.posted()[0].json()["total"], json!(200));
    Ok(())
}

/// Kills the alerter when the mail server has seen so much, and lets another take over.
async fn killed_at(script: Script, verb: &str) -> Result<Vec<Mail>> {
    let server = SmtpServer::start(script).await?;
    let nats = NatsServer::start().await?;
    let mut services = Services::start(&nats, 1)?;
    let workspace = Workspace::new(&configuration(&server, ONE_AUDIT))?;
    let mut coordinator = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
    server.wait_for(verb, 1, PATIENCE).await?;
    server.rewrite(Script::default());
    services.kill9_and_replace(&nats, "alerter").await?;
    let output = coordinator.wait(PATIENCE).await?;
    ensure!(output.code() == Some(0), "{output:?}\n{}", services.printed());
    Ok(server.mails())
}

#[tokio::test]
async fn an_alerter_that_is_killed_before_it_has_sent_sends_one_mail() -> Result<()> {
    let mails = killed_at(Script { hang_at: Some("RCPT"), ..Script::default() }, "RCPT").await?;
    assert_eq!(mails.len(), 1);
    let subject = mails[0].header("Subject").context("no subject")?;
    // Over a broker an alerter knows what was read.
    ensure!(subject.ends_with("; complete"), "{subject}");
    Ok(())
}

#[tokio::test]
async fn an_alerter_that_is_killed_after_it_has_sent_sends_the_same_mail_again() -> Result<()> {
    let mails = killed_at(Script { hang_at: Some("MESSAGE"), ..Script::default() }, "MESSAGE").await?;
    assert_eq!((mails.len(), ids(&mails).len()), (2, 1));
    Ok(())
}
