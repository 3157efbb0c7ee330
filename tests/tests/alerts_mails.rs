//! The mails about runs, and test messages: the programs, and a mail server that records.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::harness::{
    Mail, NatsServer, PATIENCE, Postfix, Script, Services, SmtpServer, WebhookReceiver, Workspace, free_port,
};

/// Three audits, and mails about them.
fn configuration(key: &str, port: u16, more: &str) -> String {
    format!(
        "
{key}:
  from_addr: Cloudmarker <cloudmarker@example.com>
  to_addrs:
    - user1@example.com
    - user2@example.com
  subject: Cloudmarker Alert
  host: localhost
  port: {port}
  ssl_mode: disable
{more}
audits:
  one: {{clouds: [mockcloud], stores: [], events: [mockevent], alerts: []}}
  two: {{clouds: [mockcloud], stores: [], events: [mockevent], alerts: []}}
  three: {{clouds: [mockcloud], stores: [], events: [mockevent], alerts: []}}
run: [one, two, three]
"
    )
}

fn subjects(mails: &[Mail]) -> Vec<String> {
    let mut subjects: Vec<String> = mails.iter().filter_map(|mail| mail.header("Subject")).collect();
    subjects.sort();
    subjects
}

fn ids(mails: &[Mail]) -> BTreeSet<Option<String>> {
    mails.iter().map(|mail| mail.header("Message-ID")).collect()
}

/// The eight mails of three audits of the built-in mocks: 10 records, of which 4 are findings.
fn eight() -> Vec<String> {
    let mut subjects = vec![
        "Cloudmarker Alert all audits begin".to_owned(),
        "Cloudmarker Alert all audits have ended: complete".to_owned(),
    ];
    for audit in ["one", "two", "three"] {
        subjects.push(format!("Cloudmarker Alert {audit} begins"));
        subjects.push(format!("Cloudmarker Alert {audit} has ended: complete, 10 records, 4 findings"));
    }
    subjects.sort();
    subjects
}

#[tokio::test]
async fn three_audits_make_eight_mails() -> Result<()> {
    // The tutorial's own wrong name means the same.
    for key in ["email", "emailalert"] {
        let server = SmtpServer::start(Script::default()).await?;
        let workspace = Workspace::new(&configuration(key, server.port(), ""))?;
        let output = workspace.run(&["run", "--now"]).await?.with_code(0)?;
        let told = output.stderr.contains("found `emailalert`; read as `email`, write it so");
        ensure!(told == (key == "emailalert"), "{output:?}");
        let mails = server.mails();
        assert_eq!(subjects(&mails), eight());
        assert_eq!(ids(&mails).len(), 8);
        for mail in &mails {
            assert_eq!(mail.to, ["user1@example.com", "user2@example.com"]);
            let said = |text: &str| -> Result<()> {
                ensure!(mail.text.contains(text), "{text} is not in\n{}", mail.text);
                Ok(())
            };
            said("Auto-Submitted: auto-generated")?;
            said("\r\nAbout: ")?;
            said("\r\nStarted: ")?;
            let subject = mail.header("Subject").context("no subject")?;
            if subject.contains("ended") {
                said("\r\nDuration: 00 h 00 m ")?;
                said("complete")?;
            } else {
                said("mockcloud")?;
                ensure!(!mail.text.contains("\nEnded: "), "{}", mail.text);
            }
        }
        // The first is about all, and so is the last; each audit begins before it ends.
        let order: Vec<String> = mails.iter().filter_map(|mail| mail.header("Subject")).collect();
        let place = |text: &str| order.iter().position(|subject| subject.contains(text)).context("no such mail");
        assert_eq!((place("all audits begin")?, place("all audits have")?), (0, 7));
        for audit in ["one", "two", "three"] {
            ensure!(place(&format!("{audit} begins"))? < place(&format!("{audit} has"))?, "{order:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_postfix_takes_them_with_a_secret_of_the_environment() -> Result<()> {
    let postfix = Postfix::start().await?;
    let configuration = configuration("email", postfix.starttls(), "  username: anna\n  password: ${CM_MAIL_PASSWORD}")
        .replace("ssl_mode: disable", &format!("ssl_mode: starttls\n  ca_cert: {}", postfix.ca_file().display()))
        .replace("user1@example.com", "anna@y.test")
        .replace("user2@example.com", "bert@y.test")
        .replace("run: [one, two, three]", "run: [two]");
    let workspace = Workspace::new(&configuration)?;
    let launch = workspace.coordinator(&["run", "--now"]).env("CM_MAIL_PASSWORD", Postfix::PASSWORD);
    launch.start()?.wait(PATIENCE).await?.with_code(0)?;
    for name in ["anna", "bert"] {
        let mails = postfix.mails_of(name, 4).await?;
        ensure!(mails.iter().any(|mail| mail.contains("About: two")), "{mails:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_mail_that_cannot_be_sent_is_said_and_stops_no_audit() -> Result<()> {
    // Nobody listens.
    let workspace = Workspace::new(&configuration("email", free_port()?, "  patience: 3s"))?;
    let begun = Instant::now();
    let output = workspace.run(&["run", "--now"]).await?.with_code(3)?;
    assert_eq!(output.stdout.matches(": complete").count(), 3, "{output:?}");
    for mail in ["beginning of all audits", "end of all audits", "beginning of two", "end of two"] {
        ensure!(output.stdout.contains(&format!("! mail about the {mail}: ")), "{mail}: {output:?}");
    }
    ensure!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    // A server that hangs, and a secret that is not there.
    let server = SmtpServer::start(Script { hang_at: Some("MAIL"), ..Script::default() }).await?;
    workspace.configure(&configuration("email", server.port(), "  patience: 3s"))?;
    let begun = Instant::now();
    let output = workspace.run(&["run", "--now"]).await?.with_code(3)?;
    assert_eq!(output.stdout.matches(": complete").count(), 3, "{output:?}");
    ensure!(output.stdout.contains("not sent within 3 s after the end"), "{output:?}");
    ensure!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let secret = "  username: anna\n  password: ${CM_MAIL_PASSWORD}";
    workspace.configure(&configuration("email", server.port(), secret))?;
    let output = workspace.run(&["run", "--now"]).await?.with_code(3)?;
    ensure!(output.stdout.contains("CM_MAIL_PASSWORD"), "{output:?}");

    // One receiver who is refused costs no other.
    server.rewrite(Script { refuse: [("user1@example.com", ("550 5.1.1 gone", None))].into(), ..Script::default() });
    workspace.configure(&configuration("email", server.port(), ""))?;
    let output = workspace.run(&["run", "--now"]).await?.with_code(3)?;
    ensure!(output.stdout.contains("user1@example.com: 550 5.1.1 gone"), "{output:?}");
    assert_eq!(subjects(&server.mails()), eight());
    Ok(())
}

#[tokio::test]
async fn an_end_says_what_is_missing() -> Result<()> {
    let server = SmtpServer::start(Script::default()).await?;
    let configuration = configuration("email", server.port(), "");
    let broken = "
plugins:
  hook: {plugin: WebhookAlert, params: {url: 'http://127.0.0.1:1/', allow: [127.0.0.1], patience: 1s}}
"
    .to_owned()
        + &configuration.replacen("alerts: []", "alerts: [hook]", 1);
    let output = Workspace::new(&broken)?.run(&["run", "--now"]).await?.with_code(3)?;
    let mails = server.mails();
    assert_eq!(mails.len(), 8, "{output:?}");
    let subjects = subjects(&mails);
    ensure!(subjects.iter().any(|subject| subject.ends_with("ended: 1 of 3 incomplete")), "{subjects:?}");
    let end = mails.iter().find(|mail| mail.text.contains("one has ended: INCOMPLETE, 10 records, 4 findings"));
    let end = end.with_context(|| format!("{subjects:?}"))?;
    ensure!(end.text.contains("Outcome: INCOMPLETE") && end.text.contains("alert hook: "), "{}", end.text);
    Ok(())
}

/// Kills the coordinator when the mail server has seen so much, and lets another take the run over.
async fn killed_at(verb: &'static str) -> Result<Vec<Mail>> {
    let server = SmtpServer::start(Script { hang_at: Some(verb), ..Script::default() }).await?;
    let nats = NatsServer::start().await?;
    let _services = Services::start(&nats, 1)?;
    let workspace = Workspace::new(&configuration("email", server.port(), ""))?;
    let mut coordinator = workspace.coordinator(&["run", "--now", "--nats", nats.url()]).start()?;
    let line = coordinator.wait_for_line("coordinator run --resume ", PATIENCE).await?;
    let version = line.split("--resume ").nth(1).context("no version")?.trim().to_owned();
    server.wait_for(verb, 1, PATIENCE).await?;
    coordinator.kill9().await?;
    server.rewrite(Script::default());
    let mut next = workspace.coordinator(&["run", "--resume", &version, "--nats", nats.url()]).start()?;
    let output = next.wait(PATIENCE).await?;
    ensure!(output.code() == Some(0), "{output:?}");
    Ok(server.mails())
}

#[tokio::test]
async fn a_coordinator_that_is_killed_before_it_has_sent_sends_each_mail_once() -> Result<()> {
    let mails = killed_at("RCPT").await?;
    assert_eq!(subjects(&mails), eight());
    Ok(())
}

#[tokio::test]
async fn a_coordinator_that_is_killed_after_it_has_sent_sends_the_same_mail_again() -> Result<()> {
    // The server has it, and nobody has heard of that.
    let mails = killed_at("MESSAGE").await?;
    assert_eq!((mails.len(), ids(&mails).len()), (9, 8));
    let mut once = subjects(&mails);
    once.dedup();
    assert_eq!(once, eight());
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_the_section_is_said_by_check() -> Result<()> {
    let check = async |more: &str| -> Result<String> {
        let workspace = Workspace::new(&format!("email: {more}\n"))?;
        Ok(workspace.run(&["check"]).await?.with_code(2)?.stderr)
    };
    let said = check("{to_addrs: [x@example.com], host: h}").await?;
    ensure!(said.contains("cloudmarker.yaml: email.from_addr") && said.contains("the sender's address"), "{said}");
    let rest = "from_addr: a@example.com, to_addrs: [b@example.com], host: h";
    for (wrong, expected) in [
        ("ssl_mode: tls", "email.ssl_mode"),
        ("prot: 25", "email.prot"),
        ("port: 70000", "email.port"),
        ("min_severity: high", "email.min_severity: `min_severity` chooses findings"),
        ("only_new: true", "email.only_new: `only_new` chooses findings"),
        ("subject: \"a\\nBcc: x\"", "email.subject"),
        ("patience: soon", "email.patience"),
    ] {
        let said = check(&format!("{{{rest}, {wrong}}}")).await?;
        ensure!(said.contains(expected), "{wrong}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_test_message_says_where_it_went_or_why_not() -> Result<()> {
    let (server, receiver) = (SmtpServer::start(Script::default()).await?, WebhookReceiver::start().await?);
    let plugins = format!(
        "
plugins:
  hook: {{plugin: WebhookAlert, params: {{url: '{}', allow: [127.0.0.1], min_severity: critical}}}}
  away: {{plugin: WebhookAlert, params: {{url: '${{CM_HOOK_URL}}', allow: [127.0.0.1]}}}}
",
        receiver.url("/secret")
    );
    let workspace = Workspace::new(&(plugins + &configuration("email", server.port(), "")))?;
    let output = workspace.run(&["alerts", "test", "hook"]).await?.with_code(0)?;
    ensure!(
        output.stdout.starts_with("A test message was sent: ") && output.stdout.contains("127.0.0.1"),
        "{output:?}"
    );
    ensure!(!output.stdout.contains("secret"), "{output:?}");
    assert_eq!(receiver.posted()[0].json()["test"], true);

    let output = workspace.run(&["alerts", "test", "email"]).await?.with_code(0)?;
    ensure!(output.stdout.contains("user1@example.com, user2@example.com by localhost:"), "{output:?}");
    let mails = server.mails();
    assert_eq!(mails[0].header("Subject").as_deref(), Some("Cloudmarker Alert test message of the mails about runs"));
    ensure!(mails[0].text.contains("This is a test message"), "{}", mails[0].text);

    server.rewrite(Script { answer: [("MAIL", ("550 5.7.1 not you", 9))].into(), ..Script::default() });
    let output = workspace.run(&["alerts", "test", "email"]).await?.with_code(3)?;
    ensure!(output.stderr.contains("was not sent: ") && output.stderr.contains("550 5.7.1 not you"), "{output:?}");
    let output = workspace.run(&["alerts", "test", "away"]).await?.with_code(3)?;
    ensure!(output.stderr.contains("CM_HOOK_URL"), "{output:?}");
    for (key, expected) in [("nothing", "there is no alert nothing"), ("filestore", "filestore is a FileStore")] {
        let output = workspace.run(&["alerts", "test", key]).await?.with_code(2)?;
        ensure!(output.stderr.contains(expected), "{output:?}");
        ensure!(output.stderr.contains("These tell people: away, hook, email"), "{output:?}");
    }
    let listed = workspace.run(&["alerts"]).await?.with_code(0)?.stdout;
    for said in ["hook", "none", "cannot be used here", "user1@example.com"] {
        ensure!(listed.contains(said), "{said} is not in {listed}");
    }
    Ok(())
}
