//! A digest as a message of blocks. Slack takes 50 of them, and 3,000 characters in one.

use std::io;

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::event::{Finding, Severity};
use crate::outcome::Outcome;
use crate::readable::{counted, grouped, line};

/// How many findings are shown.
const SHOWN: usize = 10;
/// How many rules are counted.
const RULES: usize = 15;
/// How many gaps are told of.
const GAPS: usize = 5;
/// The longest text of a block, in characters.
const LONGEST: usize = 2900;

/// A message.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// What notifications show.
    pub(super) text: String,
    pub(super) blocks: Value,
    /// The same for a message that is sent again.
    pub(super) key: String,
}

/// The message of a digest, behind the words that are configured.
pub(super) fn of(digest: &Digest, words: &str) -> io::Result<Said> {
    let about = &digest.about;
    let headline = digest.headline();
    let mut blocks = vec![json!({
        "type": "header",
        "text": {"type": "plain_text", "text": cut(&headline, 150), "emoji": false},
    })];
    let words = line(words);
    if !words.is_empty() {
        blocks.push(section(&escape(&words)));
    }
    if about.is_trial {
        blocks.push(section("*This is a test message.* Nothing was audited."));
    }
    let mut facts = format!("*Audit* {} · *begun* {}", escape(&line(about.audit.as_str())), about.begun());
    if let Some(filter) = &about.filter {
        facts = format!("{facts} · *filter* {}", escape(filter));
    }
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": cut(&facts, LONGEST)}]}));
    blocks.push(section(&coverage(&digest.outcome)));
    let rules = digest.by_rule();
    if rules.is_empty() {
        blocks.push(section(digest.nothing()));
    } else {
        let mut text = format!("*{}*\n", counted(digest.len(), "finding", "findings"));
        for rule in rules.iter().take(RULES) {
            let title = if rule.title.is_empty() { &rule.rule } else { &rule.title };
            let (sign, title) = (sign(rule.severity), escape(&cut(title, 100)));
            text = format!("{text}{sign} {} × {title} (_{}_)\n", grouped(rule.findings), rule.severity);
        }
        if rules.len() > RULES {
            text = format!("{text}and {} more rules", rules.len() - RULES);
        }
        blocks.push(section(&text));
        blocks.push(json!({"type": "divider"}));
    }
    // Of few rules, more findings each.
    let picked = digest.pick((SHOWN / rules.len().max(1)).max(3), SHOWN);
    for place in &picked {
        blocks.push(section(&finding(&digest.finding(*place)?)));
    }
    let more = digest.len() - picked.len() as u64;
    if more > 0 {
        let text = format!("and {}: see the file", counted(more, "more finding", "more findings"));
        blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": text}]}));
    }
    let text = if words.is_empty() { headline } else { format!("{words} {headline}") };
    Ok(Said { text: escape(&cut(&text, 1000)), blocks: blocks.into(), key: about.idempotency_key("slack") })
}

fn coverage(outcome: &Outcome) -> String {
    let mut text = match outcome.word() {
        None => "The run's summary says whether all was read.".to_owned(),
        Some(_) if outcome.gaps().is_empty() => "*Complete*: all that was asked for was read.".to_owned(),
        Some(_) => ":warning: *Incomplete*: what could not be read may hide findings.".to_owned(),
    };
    let mut list = |items: &[String]| {
        for item in items.iter().take(GAPS) {
            text = format!("{text}\n• {}", escape(item));
        }
        if items.len() > GAPS {
            text = format!("{text}\n• and {} more", items.len() - GAPS);
        }
    };
    list(outcome.gaps());
    list(outcome.unclear());
    text
}

fn finding(finding: &Finding) -> String {
    let resource = if finding.resource.is_empty() { "(no name)" } else { &finding.resource };
    let mut text = format!("{} *{}*", sign(finding.severity), escape(resource));
    for detail in [&finding.kind, &finding.account] {
        if !detail.is_empty() {
            text = format!("{text} · {}", escape(detail));
        }
    }
    text = format!("{text}\n{}", escape(&cut(&finding.description, 600)));
    if !finding.recommendation.is_empty() {
        text = format!("{text}\n_What to do:_ {}", escape(&cut(&finding.recommendation, 400)));
    }
    text
}

fn sign(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => ":red_circle:",
        Severity::High => ":large_orange_circle:",
        Severity::Medium => ":large_yellow_circle:",
        Severity::Low => ":large_blue_circle:",
        Severity::Info | Severity::Unrated => ":white_circle:",
    }
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(text, LONGEST), "verbatim": true}})
}

/// Nothing in a text of the cloud's is a link or calls the whole channel.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let mut text: String = text.chars().take(longest - 1).collect();
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tests::event;

    #[test]
    fn a_message_keeps_slacks_bounds_and_calls_nobody() {
        let events: Vec<Value> = (0..500)
            .map(|n| {
                let mut event = event(n, "high", &format!("rule{}", n % 50), "a");
                event["com"]["description"] = format!("<!channel> & {}", "x".repeat(5000)).into();
                event
            })
            .collect();
        let gaps = (0..100).map(|n| format!("gap {n} {}", "y".repeat(1000)));
        let said = of(&Digest::of_events(&events, Outcome::of_gaps(gaps)), "<!here> now").unwrap();
        let blocks = said.blocks.as_array().unwrap();
        assert!(blocks.len() <= 50, "{}", blocks.len());
        for block in blocks {
            let text = block["text"]["text"].as_str().or(block["elements"][0]["text"].as_str()).unwrap_or_default();
            let most = if block["type"] == "header" { 150 } else { 3000 };
            assert!(text.chars().count() <= most, "{text}");
            assert!(!text.contains("<!"), "{text}");
        }
        assert!(!said.text.contains("<!") && said.text.contains("prod: 500 high; incomplete"));
        assert!(said.blocks.to_string().contains("490 more findings"));
    }
}
