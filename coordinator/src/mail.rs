//! The mails about runs: one when all audits begin, one when each of them begins, one when each of them ends, and one
//! when all have ended. They are what `email:` at the top of the configuration asks for.

use std::fmt::Write;
use std::time::Duration;

use alerter::mail::{Draft, Letter, MailError, Mailer};
use alerter::readable::{counted, line};
use alerter::settings::{self, Settings};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proto::catalogue::in_one_line;
use proto::config::secret::Expander;
use proto::identity::Id;
use proto::plan::Plan;
use proto::subject::{Key, Role, Version};
use serde_json::Value;
use tokio::time::Instant;

use crate::summary::AuditReport;

/// How long the mail server may be away, unless the configuration says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first pause between two tries; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How many problems of an audit a mail names.
const PROBLEMS: usize = 40;

/// Sends the mails about runs, if the configuration asks for them.
#[derive(Debug, Default)]
pub struct Mails {
    /// None when no mails are asked for; why there can be none.
    mailer: Option<Result<Mailer, String>>,
    patience: Duration,
}

impl Mails {
    /// Those that a configuration asks for. What is wrong with it costs no run: it is told with its summary.
    #[must_use]
    pub fn new(email: Option<&Value>, expander: &Expander) -> Self {
        let Some(email) = email else { return Self::default() };
        let patience = match (email.get("patience"), Settings::read(&settings::split(email).0)) {
            (Some(_), Ok(settings)) => settings.patience(),
            _ => PATIENCE,
        };
        let mailer = expander.expand(&settings::split(email).1).and_then(|email| Mailer::new(&email));
        Self { mailer: Some(mailer.map_err(|errors| in_one_line(&errors))), patience }
    }

    /// None.
    #[must_use]
    pub fn none() -> &'static Self {
        static NONE: Mails = Mails { mailer: None, patience: PATIENCE };
        &NONE
    }

    /// For the whole life of the process: its configuration does not change.
    #[must_use]
    pub fn for_ever(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    /// How long the mail server may be away.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// What sends them; `None` when no mails are asked for.
    pub(crate) fn mailer(&self) -> Option<Result<&Mailer, &str>> {
        self.mailer.as_ref().map(|mailer| mailer.as_ref().map_err(String::as_str))
    }

    /// Sends a mail that is plainly a test. The answer says whom it was sent to.
    ///
    /// # Errors
    /// Why it could not be sent, for people.
    pub async fn try_out(&self) -> Result<String, String> {
        let mailer = self.mailer().ok_or("the configuration has no `email`")??;
        let now = Timestamp::now();
        let text = "This is a test message of Cloudmarker. Nothing was audited, and nothing is wrong.\n\n\
                    Somebody wants to see whether the mails about runs arrive.\n";
        let message = mailer.write(Draft {
            subject: mailer.subject("test message of the mails about runs"),
            message_id: mailer.message_id(&Id::digest(format!("test {now}").as_bytes()).to_string()),
            text: text.to_owned(),
            ..Draft::default()
        })?;
        send(Letter::new(mailer, message), Instant::now() + self.patience.min(Duration::from_secs(20))).await?;
        Ok(mailer.place())
    }
}

/// Sends a letter, trying again until a time while the server is away.
///
/// # Errors
/// Why not all have it, for people.
pub(crate) async fn send(mut letter: Letter, until: Instant) -> Result<(), String> {
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match letter.send().await {
            Ok(()) => return Ok(()),
            Err(MailError::Permanent(reason)) => return Err(reason),
            Err(MailError::Transient(reason)) => reason,
        };
        if Instant::now() + pause >= until {
            return Err(format!("{reason}; given up"));
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// What a mail is about.
#[derive(Debug, Clone)]
pub(crate) enum Occasion {
    /// All audits begin.
    RunBegun,
    /// One of them begins.
    AuditBegun(Key),
    /// One of them has ended, at this time.
    AuditEnded(Box<AuditReport>, Timestamp),
    /// All have ended.
    RunEnded(Vec<AuditReport>, Timestamp),
}

impl Occasion {
    /// Its name in the state of the run.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::RunBegun => "begun".to_owned(),
            Self::AuditBegun(audit) => format!("begun.{}", audit.token()),
            Self::AuditEnded(report, _) => format!("ended.{}", report.audit.token()),
            Self::RunEnded(..) => "ended".to_owned(),
        }
    }

    /// The audit that it is about; none when it is about all.
    pub(crate) fn audit(&self) -> Option<&Key> {
        match self {
            Self::AuditBegun(audit) => Some(audit),
            Self::AuditEnded(report, _) => Some(&report.audit),
            Self::RunBegun | Self::RunEnded(..) => None,
        }
    }

    /// Its name for people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::RunBegun => "mail about the beginning of all audits".to_owned(),
            Self::AuditBegun(audit) => format!("mail about the beginning of {}", line(audit.as_str())),
            Self::AuditEnded(report, _) => format!("mail about the end of {}", line(report.audit.as_str())),
            Self::RunEnded(..) => "mail about the end of all audits".to_owned(),
        }
    }
}

/// The run that mails are about.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) version: Version,
    /// When it began, in RFC 3339: no other installation's run of this version has it.
    pub(crate) started: String,
    pub(crate) plans: Vec<Plan>,
}

impl About {
    /// The mail of an occasion. Made again, it has the same `Message-ID`.
    pub(crate) fn write(&self, mailer: &Mailer, occasion: &Occasion) -> Result<Vec<u8>, String> {
        let (subject, text) = self.say(occasion, &TimeZone::system());
        let key = Id::digest(format!("{}\n{}\n{}", occasion.key(), self.version, self.started).as_bytes());
        mailer.write(Draft {
            subject: mailer.subject(&subject),
            message_id: mailer.message_id(&key.to_string()),
            text,
            ..Draft::default()
        })
    }

    /// The end of the subject, and the text. The first lines are those that the Python tool's mails have.
    fn say(&self, occasion: &Occasion, zone: &TimeZone) -> (String, String) {
        match occasion {
            Occasion::RunBegun => {
                let mut text = self.head("all audits", None, zone);
                let _ = writeln!(text, "\nAudits: {}", self.plans.len());
                for plan in &self.plans {
                    let _ = writeln!(text, "\n{}", line(plan.audit.as_str()));
                    text.push_str(&contents(plan, "  "));
                }
                ("all audits begin".to_owned(), text)
            }
            Occasion::AuditBegun(audit) => {
                let mut text = self.head(audit.as_str(), None, zone);
                text.push('\n');
                for plan in self.plans.iter().filter(|plan| plan.audit == *audit) {
                    text.push_str(&contents(plan, ""));
                }
                (format!("{} begins", line(audit.as_str())), text)
            }
            Occasion::AuditEnded(report, ended) => {
                let mut text = self.head(report.audit.as_str(), Some(*ended), zone);
                text.push_str(&outcome(report));
                (format!("{} has ended: {}", line(report.audit.as_str()), in_words(report)), text)
            }
            Occasion::RunEnded(reports, ended) => {
                let incomplete = reports.iter().filter(|report| !report.is_complete()).count();
                let said = match incomplete {
                    0 => "complete".to_owned(),
                    _ => format!("{incomplete} of {} incomplete", reports.len()),
                };
                let mut text = self.head("all audits", Some(*ended), zone);
                let _ = writeln!(text, "\nOutcome: {said}");
                for report in reports {
                    let _ = writeln!(text, "\n{}: {}", line(report.audit.as_str()), in_words(report));
                    text.push_str(&problems(report));
                }
                (format!("all audits have ended: {said}"), text)
            }
        }
    }

    fn head(&self, about: &str, ended: Option<Timestamp>, zone: &TimeZone) -> String {
        let shown = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %z (%Z)").to_string();
        let started: Option<Timestamp> = self.started.parse().ok();
        let mut text = format!("About: {}\n", line(about));
        if let Some(started) = started {
            let _ = writeln!(text, "Started: {}", shown(started));
        }
        if let Some(ended) = ended {
            let _ = writeln!(text, "Ended: {}", shown(ended));
        }
        if let (Some(started), Some(ended)) = (started, ended) {
            let _ = writeln!(text, "Duration: {}", duration(ended.as_second() - started.as_second()));
        }
        let _ = writeln!(text, "Version: {}", self.version);
        text
    }
}

/// `01 h 02 m 03 s`; hours go on beyond a day.
fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    format!("{:02} h {:02} m {:02} s", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// What an audit consists of.
fn contents(plan: &Plan, indent: &str) -> String {
    let roles = [("Clouds", Role::Cloud), ("Checks", Role::Event), ("Stores", Role::Store), ("Alerts", Role::Alert)];
    let mut text = String::new();
    for (name, role) in roles {
        let keys: Vec<String> = plan.of_role(role).map(|spec| line(spec.key.as_str())).collect();
        let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
        let _ = writeln!(text, "{indent}{name}: {keys}");
    }
    text
}

/// `complete, 1,000 records, 12 findings`.
fn in_words(report: &AuditReport) -> String {
    let records = report.clouds.iter().map(|cloud| cloud.records).sum();
    let events = report.events.iter().map(|event| event.results.events).sum();
    let outcome = if report.is_complete() { "complete" } else { "INCOMPLETE" };
    format!("{outcome}, {}, {}", counted(records, "record", "records"), counted(events, "finding", "findings"))
}

fn outcome(report: &AuditReport) -> String {
    let mut text = String::new();
    let outcome = if report.is_complete() { "complete" } else { "INCOMPLETE" };
    let _ = writeln!(text, "\nOutcome: {outcome}");
    text.push_str(&problems(report));
    text.push('\n');
    for cloud in &report.clouds {
        let (plugin, records) = (line(cloud.plugin.as_str()), counted(cloud.records, "record", "records"));
        let _ = writeln!(text, "Cloud {plugin}: {records}");
    }
    for event in &report.events {
        let (plugin, results) = (line(event.plugin.as_str()), &event.results);
        let findings = counted(results.events, "finding", "findings");
        let _ = writeln!(text, "Check {plugin}: {findings}; {} passed, {} unknown", results.pass, results.unknown);
    }
    for output in &report.outputs {
        let (role, plugin) = (if output.role == Role::Alert { "Alert" } else { "Store" }, line(output.plugin.as_str()));
        let place = match (&output.failed, &output.place) {
            (Some(_), _) if output.left_out => "left out".to_owned(),
            (Some(_), _) => "failed".to_owned(),
            (None, Some(place)) => line(place),
            (None, None) => "not delivered".to_owned(),
        };
        let _ = writeln!(text, "{role} {plugin}: {}, {place}", counted(output.documents, "document", "documents"));
    }
    text
}

/// What is missing, in a line each.
fn problems(report: &AuditReport) -> String {
    let mut text = String::new();
    for problem in report.problems.iter().take(PROBLEMS) {
        let _ = writeln!(text, "  - {}", line(problem));
    }
    if report.problems.len() > PROBLEMS {
        let _ = writeln!(text, "  - and {} more", report.problems.len() - PROBLEMS);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn about() -> About {
        let spec =
            |key: &str, role: &str| json!({"key": key, "class": "X", "params": {}, "role": role, "stage": "collector"});
        let plan = |audit: &str| {
            serde_json::from_value(json!({
                "audit": audit, "version": "20200228_085320", "clouds": ["azcloud"], "events": ["openport"],
                "plugins": [spec("azcloud", "cloud"), spec("openport", "event"), spec("mail", "alert")],
            }))
            .unwrap()
        };
        About {
            version: Version::new("20200228_085320").unwrap(),
            started: "2020-02-28T08:53:20.123456789Z".to_owned(),
            plans: vec![plan("prod"), plan("dev\r\nBcc: x@example.com")],
        }
    }

    fn report(audit: &str, problems: &[&str]) -> AuditReport {
        serde_json::from_value(json!({
            "audit": audit, "version": "20200228_085320", "problems": problems,
            "clouds": [{"plugin": "azcloud", "records": 12345, "coverage": [], "failed": null}],
            "events": [{"plugin": "openport", "results": {"pass": 5, "fail": 7, "unknown": 2, "events": 7}, "failed": null}],
            "outputs": [{"plugin": "mail", "role": "alert", "documents": 7, "place": "mail to a@b.c", "failed": null}],
        }))
        .unwrap()
    }

    fn india() -> TimeZone {
        TimeZone::posix("IST-5:30").unwrap()
    }

    #[test]
    fn a_beginning_says_what_will_be_audited() {
        let (subject, text) = about().say(&Occasion::AuditBegun(Key::new("prod").unwrap()), &india());
        assert_eq!(subject, "prod begins");
        let expected = "About: prod\nStarted: 2020-02-28 14:23:20 +0530 (IST)\nVersion: 20200228_085320\n\n\
                        Clouds: azcloud\nChecks: openport\nStores: none\nAlerts: mail\n";
        assert_eq!(text, expected);
        let (subject, text) = about().say(&Occasion::RunBegun, &india());
        assert_eq!(subject, "all audits begin");
        assert!(text.starts_with("About: all audits\nStarted: ") && text.contains("Audits: 2\n\nprod\n  Clouds: azc"));
        assert!(!text.contains("\nBcc"), "{text}");
    }

    #[test]
    fn an_end_says_what_it_came_to() {
        let ended: Timestamp = "2020-02-28T09:55:23Z".parse().unwrap();
        let problem = "cloud azcloud: nsg of s-1 denied (0 read): 403";
        let bad = Occasion::AuditEnded(Box::new(report("prod", &[problem])), ended);
        let (subject, text) = about().say(&bad, &india());
        assert_eq!(subject, "prod has ended: INCOMPLETE, 12,345 records, 7 findings");
        for said in [
            "About: prod\nStarted: 2020-02-28 14:23:20 +0530 (IST)\nEnded: 2020-02-28 15:25:23 +0530 (IST)\nDuration: 01 h 02 m 03 s\n",
            "Outcome: INCOMPLETE\n  - cloud azcloud: nsg of s-1 denied (0 read): 403\n",
            "Cloud azcloud: 12,345 records\n",
            "Check openport: 7 findings; 5 passed, 2 unknown\n",
            "Alert mail: 7 documents, mail to a@b.c\n",
        ] {
            assert!(text.contains(said), "{said} is not in\n{text}");
        }
        let all = Occasion::RunEnded(vec![report("prod", &[problem]), report("dev", &[])], ended);
        let (subject, text) = about().say(&all, &india());
        assert_eq!(subject, "all audits have ended: 1 of 2 incomplete");
        assert!(text.contains("prod: INCOMPLETE, ") && text.contains("dev: complete, ") && text.contains(problem));
        let good = Occasion::RunEnded(vec![report("prod", &[])], ended);
        assert_eq!(about().say(&good, &india()).0, "all audits have ended: complete");
    }

    #[test]
    fn hours_are_not_capped() {
        assert_eq!(
            [0, 3723, 360_000, -5].map(duration),
            ["00 h 00 m 00 s", "01 h 02 m 03 s", "100 h 00 m 00 s", "00 h 00 m 00 s"]
        );
    }

    #[test]
    fn what_is_not_to_be_had_is_told_and_stops_nothing() {
        let expander = Expander::new(proto::config::Environment::empty());
        assert!(Mails::new(None, &expander).mailer().is_none());
        let email = json!({"from_addr": "a@b.c", "to_addrs": ["d@e.f"], "host": "h", "username": "u", "password": "${CM_NO}", "patience": "5s"});
        let mails = Mails::new(Some(&email), &expander);
        assert!(mails.mailer().unwrap().unwrap_err().contains("CM_NO"));
        assert_eq!(mails.patience(), Duration::from_secs(5));
    }
}
