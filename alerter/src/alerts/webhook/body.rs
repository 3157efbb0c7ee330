//! What is posted: templates of the user's, of the presets, and our own plain form.

use std::io;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use proto::config::params::did_you_mean;
use proto::config::secret::Secret;
use serde::Serialize;

use super::params::{Per, Preset};
use crate::digest::{About, Digest, Gathering, RuleCount, SeverityCount};
use crate::event::{Finding, Severity};
use crate::outcome::Outcome;

/// How much work a template may make.
const FUEL: u64 = 1_000_000;
/// How many findings a message about a version names.
const FINDINGS: usize = 50;
/// How many gaps.
const GAPS: usize = 20;

/// The name of the one template.
const NAME: &str = "body";

/// What templates may name, as [`Words`] has it.
const WORDS: [&str; 20] = [
    "headline",
    "audit",
    "version",
    "begun",
    "begun_at",
    "plugin",
    "is_trial",
    "outcome",
    "gaps",
    "unclear",
    "total",
    "in_words",
    "severities",
    "rules",
    "findings",
    "more",
    "finding",
    "event",
    "key",
    "routing_key",
];

/// Makes the bodies of one webhook.
#[derive(Debug)]
pub(super) struct Bodies {
    per: Per,
    templates: Environment<'static>,
    is_json: bool,
    routing_key: Secret,
}

/// What a template is told.
#[derive(Serialize)]
struct Words {
    headline: String,
    audit: String,
    version: String,
    begun: String,
    begun_at: String,
    plugin: String,
    is_trial: bool,
    outcome: Option<&'static str>,
    gaps: Vec<String>,
    unclear: Vec<String>,
    total: u64,
    in_words: String,
    severities: Vec<SeverityCount>,
    rules: Vec<RuleCount>,
    /// The first findings, of a message about a version.
    findings: Vec<Finding>,
    more: u64,
    /// The finding, of a message about one.
    finding: Option<Finding>,
    event: Option<serde_json::Value>,
    /// The same for a message that is sent again.
    key: String,
    routing_key: String,
}

impl Bodies {
    pub(super) fn new(
        per: Per,
        preset: Option<Preset>,
        template: Option<&str>,
        is_json: bool,
        routing_key: Secret,
    ) -> Result<Self, String> {
        let text = match (preset, template, per) {
            (Some(Preset::Teams), ..) => include_str!("../../../templates/teams.json"),
            (Some(Preset::Pagerduty), ..) => include_str!("../../../templates/pagerduty.json"),
            (Some(Preset::Opsgenie), ..) => include_str!("../../../templates/opsgenie.json"),
            (None, Some(template), _) => template,
            (None, None, Per::Event) => include_str!("../../../templates/event.json"),
            (None, None, Per::Version) => include_str!("../../../templates/version.json"),
        };
        let mut templates = Environment::new();
        templates.set_fuel(Some(FUEL));
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        // What a cloud says stays a value: it cannot end a string and go on as JSON.
        templates.set_auto_escape_callback(move |_| if is_json { AutoEscape::Json } else { AutoEscape::None });
        templates.add_filter("unlinked", |text: String| text.replace('[', "\\[").replace(']', "\\]"));
        templates
            .add_template_owned(NAME, text.to_owned())
            .map_err(|error| format!("the template is wrong: {}", said(&error)))?;
        let used = templates.get_template(NAME).map(|template| template.undeclared_variables(false));
        if let Some(unknown) = used.iter().flatten().find(|name| !WORDS.contains(&name.as_str())) {
            let hint = did_you_mean(unknown, WORDS);
            return Err(format!("the template names `{unknown}`{hint} (known: {})", WORDS.join(", ")));
        }
        Ok(Self { per, templates, is_json, routing_key })
    }

    /// The body about a finding, or about all of the digest.
    pub(super) fn of(&self, digest: &Digest, place: Option<usize>) -> Result<String, String> {
        let words = self
            .words(digest, place)
            .map_err(|error| format!("cannot read the temporary file of the findings: {error}"))?;
        let template = self.templates.get_template(NAME).map_err(|error| error.to_string())?;
        let body = template
            .render(Value::from(Serde(words)))
            .map_err(|error| format!("the template does not fit: {}", said(&error)))?;
        if self.is_json && serde_json::from_str::<serde::de::IgnoredAny>(&body).is_err() {
            return Err("what the template makes is not JSON; values come with their quotes: write \
                        `{\"text\": {{ headline }}}`, or set `content_type`"
                .to_owned());
        }
        Ok(body)
    }

    /// Makes a body of a finding that nobody has, to see whether the template is right.
    pub(super) fn try_out(&self) -> Result<(), String> {
        let digest = example().map_err(|reason| format!("cannot try the template out: {reason}"))?;
        self.of(&digest, (self.per == Per::Event).then_some(0)).map(drop)
    }

    fn words(&self, digest: &Digest, place: Option<usize>) -> io::Result<Words> {
        let about = &digest.about;
        let picked = if place.is_none() { digest.pick(5, FINDINGS) } else { Vec::new() };
        let finding = place.map(|place| digest.finding(place)).transpose()?;
        let event = match place {
            Some(place) => Some(serde_json::from_slice(&digest.event(place)?)?),
            None => None,
        };
        let begun = about.begun();
        let part = finding.as_ref().map_or_else(|| "version".to_owned(), |finding| finding.id.to_string());
        // Counting is for messages that say it: there may be very many about one finding each.
        let (severities, rules, in_words) = match place {
            None => (digest.by_severity(), digest.by_rule(), digest.in_words()),
            Some(_) => (Vec::new(), Vec::new(), String::new()),
        };
        Ok(Words {
            headline: if place.is_none() || about.is_trial { digest.headline() } else { String::new() },
            audit: about.audit.to_string(),
            version: about.version.to_string(),
            begun_at: begun.replacen(' ', "T", 1).replace(" UTC", "Z"),
            begun,
            plugin: about.plugin.to_string(),
            is_trial: about.is_trial,
            outcome: digest.outcome.word(),
            gaps: digest.outcome.gaps().iter().take(GAPS).cloned().collect(),
            unclear: digest.outcome.unclear().iter().take(GAPS).cloned().collect(),
            total: digest.len(),
            in_words,
            severities,
            rules: rules.into_iter().take(FINDINGS).collect(),
            more: digest.len() - if place.is_none() { picked.len() as u64 } else { digest.len() },
            findings: picked.into_iter().map(|place| digest.finding(place)).collect::<io::Result<_>>()?,
            finding,
            event,
            key: about.idempotency_key(&part),
            routing_key: self.routing_key.expose().to_owned(),
        })
    }
}

fn said(error: &minijinja::Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let place = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    crate::readable::line(&format!("{detail}{place}"))
}

/// A digest of one finding.
fn example() -> Result<Digest, String> {
    let name = |text: &str| proto::subject::Key::new(text).map_err(|error| error.to_string());
    let (audit, plugin) = (name("audit")?, name("plugin")?);
    let version = proto::subject::Version::new("20260131_235959").map_err(|error| error.to_string())?;
    let about = About::new(audit, version, plugin.clone());
    let id = about.idempotency_key("example");
    let text = |severity: Severity| {
        serde_json::json!({"ext": {}, "com": {
            "id": id, "severity": severity, "title": "t", "rule": "r", "description": "d", "recommendation": "r",
            "resource": {"cloud": "c", "account": "a", "type": "t", "id": "i", "name": "n", "region": "r"},
        }})
        .to_string()
    };
    let event = text(Severity::High);
    let finding = Finding::read(event.as_bytes(), &plugin).map_err(|error| error.to_string())?;
    let mut gathering = Gathering::new().map_err(|error| error.to_string())?;
    gathering.add(&finding, &plugin, event.as_bytes()).map_err(|error| error.to_string())?;
    gathering.end(about, Outcome::unknown()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::digest::tests::event;

    fn made(per: Per, preset: Option<Preset>, events: &[Json], outcome: Outcome) -> Json {
        let bodies = Bodies::new(per, preset, None, true, Secret::from("key\"")).unwrap();
        let digest = Digest::of_events(events, outcome);
        let body = bodies.of(&digest, (per == Per::Event).then_some(0)).unwrap();
        serde_json::from_str(&body).unwrap()
    }

    fn odd() -> Json {
        let mut odd = event(7, "medium", "rule\"", "a</script>");
        odd["com"]["title"] = "\", \"x\": \"{{ 1 }} [evil](http://x)".into();
        odd["com"]["description"] = "שלום 🔥 \\ \" \n".repeat(1000).into();
        odd
    }

    #[test]
    fn the_presets_have_the_receivers_form() {
        let pagerduty = made(Per::Event, Some(Preset::Pagerduty), &[odd()], Outcome::unknown());
        assert_eq!(pagerduty["routing_key"], "key\"");
        assert_eq!((&pagerduty["event_action"], &pagerduty["dedup_key"]), (&json!("trigger"), &json!("f7")));
        assert_eq!(pagerduty["payload"]["severity"], "warning");
        assert_eq!(pagerduty["payload"]["timestamp"], "2026-01-31T23:59:59Z");
        assert!(pagerduty["payload"]["summary"].as_str().unwrap().chars().count() <= 1024);
        let opsgenie = made(Per::Event, Some(Preset::Opsgenie), &[odd()], Outcome::unknown());
        assert_eq!((&opsgenie["alias"], &opsgenie["priority"]), (&json!("f7"), &json!("P3")));
        assert!(opsgenie["message"].as_str().unwrap().chars().count() <= 130);
        let many: Vec<Json> =
            (0..500).map(|_| odd()).chain((0..300).map(|n| event(n + 10, "high", &format!("r{n}"), "a"))).collect();
        let gaps = Outcome::of_gaps((0..100).map(|n| format!("gap {n}")));
        let teams = made(Per::Version, Some(Preset::Teams), &many, gaps);
        assert_eq!(teams["attachments"][0]["contentType"], "application/vnd.microsoft.card.adaptive");
        let text = teams.to_string();
        assert!(text.len() < 28 * 1024, "{}", text.len());
        assert!(!text.contains("[evil]"), "{text}");
    }

    #[test]
    fn our_own_form_says_all() {
        let events = [odd(), event(1, "critical", "r", "a")];
        let version = made(Per::Version, None, &events, Outcome::of_gaps([]));
        assert_eq!((&version["total"], &version["outcome"]), (&json!(2), &json!("complete")));
        assert_eq!(version["findings"][0]["severity"], "critical");
        let one = made(Per::Event, None, &events, Outcome::of_gaps([]));
        assert_eq!(one["event"], events[1]);
        assert_eq!(one["key"].as_str().unwrap().len(), 32);
    }
}
