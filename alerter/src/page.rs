//! A digest as a page for people: plain text and HTML.

use std::io;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value};
use serde::Serialize;

use crate::digest::{Digest, RuleCount, SeverityCount};
use crate::event::{Finding, Severity};
use crate::readable::{counted, grouped, line};

/// How many findings of one rule are shown at least, if there are so many.
const OF_EACH_RULE: usize = 20;
/// How many findings are shown.
pub const IN_ALL: usize = 150;
/// How many rules and gaps are listed.
const MOST_LINES: usize = 40;

/// What the templates say.
#[derive(Debug, Serialize)]
pub struct Page {
    headline: String,
    audit: String,
    version: String,
    begun: String,
    clouds: String,
    events: String,
    /// `complete`, `incomplete`, or nothing when it is not known.
    outcome: Option<&'static str>,
    gaps: Vec<String>,
    more_gaps: usize,
    unclear: Vec<String>,
    more_unclear: usize,
    nothing: &'static str,
    filter: Option<String>,
    is_trial: bool,
    total: u64,
    total_in_words: String,
    shown: u64,
    severities: Vec<SeverityCount>,
    rules: Vec<RuleCount>,
    more_rules: usize,
    groups: Vec<SeverityGroup>,
    /// What is attached, in words.
    pub attached: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SeverityGroup {
    severity: Severity,
    findings: u64,
    rules: Vec<RuleGroup>,
}

#[derive(Debug, Serialize)]
struct RuleGroup {
    rule: String,
    title: String,
    findings: u64,
    more: u64,
    accounts: Vec<AccountGroup>,
}

#[derive(Debug, Serialize)]
struct AccountGroup {
    account: String,
    cloud: String,
    findings: Vec<Finding>,
}

impl Page {
    /// The page of a digest.
    ///
    /// # Errors
    /// When a finding cannot be read.
    pub fn of(digest: &Digest) -> io::Result<Self> {
        let about = &digest.about;
        let (severities, mut rules) = (digest.by_severity(), digest.by_rule());
        // Of few rules, more findings each.
        let of_each = (IN_ALL / rules.len().max(1)).max(OF_EACH_RULE);
        let picked = digest.pick(of_each, IN_ALL);
        let groups = groups(digest, &picked, &severities, &rules)?;
        let more_rules = rules.len().saturating_sub(MOST_LINES);
        rules.truncate(MOST_LINES);
        let names = |keys: &[proto::subject::Key]| {
            let names: Vec<&str> = keys.iter().map(proto::subject::Key::as_str).collect();
            line(&names.join(", "))
        };
        let (gaps, unclear) = (digest.outcome.gaps(), digest.outcome.unclear());
        Ok(Self {
            headline: digest.headline(),
            audit: line(about.audit.as_str()),
            version: about.version.to_string(),
            begun: about.begun(),
            clouds: names(&about.clouds),
            events: names(&about.events),
            outcome: digest.outcome.word(),
            gaps: gaps.iter().take(MOST_LINES).cloned().collect(),
            more_gaps: gaps.len().saturating_sub(MOST_LINES),
            unclear: unclear.iter().take(MOST_LINES).cloned().collect(),
            more_unclear: unclear.len().saturating_sub(MOST_LINES),
            nothing: digest.nothing(),
            filter: about.filter.clone(),
            is_trial: about.is_trial,
            total: digest.len(),
            total_in_words: counted(digest.len(), "finding", "findings"),
            shown: picked.len() as u64,
            severities,
            rules,
            more_rules,
            groups,
            attached: Vec::new(),
        })
    }

    /// Whether all findings are on it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.shown == self.total
    }

    /// As plain text.
    ///
    /// # Errors
    /// When the template is wrong: a defect.
    pub fn text(&self) -> Result<String, minijinja::Error> {
        self.render("digest.txt")
    }

    /// As HTML.
    ///
    /// # Errors
    /// When the template is wrong: a defect.
    pub fn html(&self) -> Result<String, minijinja::Error> {
        self.render("digest.html")
    }

    fn render(&self, name: &str) -> Result<String, minijinja::Error> {
        TEMPLATES.get_template(name)?.render(Value::from(Serde(self)))
    }
}

fn groups(
    digest: &Digest,
    picked: &[usize],
    severities: &[SeverityCount],
    rules: &[RuleCount],
) -> io::Result<Vec<SeverityGroup>> {
    let mut groups: Vec<SeverityGroup> = Vec::new();
    for place in picked {
        let finding = digest.finding(*place)?;
        let severity = finding.severity;
        if groups.last().is_none_or(|last| last.severity != severity) {
            let count = severities.iter().find(|count| count.severity == severity);
            let findings = count.map_or(0, |count| count.findings);
            groups.push(SeverityGroup { severity, findings, rules: Vec::new() });
        }
        let Some(group) = groups.last_mut() else { continue };
        if group.rules.last().is_none_or(|last| last.rule != finding.rule) {
            // Two plugins may have one rule, with parameters of their own.
            let same = rules.iter().filter(|count| count.severity == severity && count.rule == finding.rule);
            let findings = same.map(|count| count.findings).sum();
            let (rule, title) = (finding.rule.clone(), finding.title.clone());
            group.rules.push(RuleGroup { rule, title, findings, more: findings, accounts: Vec::new() });
        }
        let Some(rule) = group.rules.last_mut() else { continue };
        if rule.accounts.last().is_none_or(|last| last.account != finding.account) {
            let (account, cloud) = (finding.account.clone(), finding.cloud.clone());
            rule.accounts.push(AccountGroup { account, cloud, findings: Vec::new() });
        }
        rule.more = rule.more.saturating_sub(1);
        if let Some(account) = rule.accounts.last_mut() {
            account.findings.push(finding);
        }
    }
    Ok(groups)
}

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut templates = Environment::new();
    match SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
        Ok(syntax) => templates.set_syntax(syntax),
        Err(error) => tracing::error!(%error, "the syntax of the built-in templates is wrong"),
    }
    templates.set_auto_escape_callback(|name| match name.rsplit('.').next() {
        Some("html") => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    templates.add_filter("grouped", |number: u64| grouped(number));
    let all = [
        ("digest.txt", include_str!("../templates/digest.txt")),
        ("digest.html", include_str!("../templates/digest.html")),
    ];
    for (name, text) in all {
        if let Err(error) = templates.add_template(name, text) {
            // The tests render every template: this cannot be.
            tracing::error!(%error, name, "a built-in template is wrong");
        }
    }
    templates
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tests::event;
    use crate::outcome::Outcome;

    #[test]
    fn both_forms_say_all_that_there_is() {
        let events: Vec<_> = (0..12)
            .map(|n| event(n, ["high", "low"][n as usize % 2], "azure_port", ["s-1", "s-2"][n as usize / 6]))
            .collect();
        let gaps = Outcome::of_gaps(["azcloud: nsg of s-3 denied: 403".into()]).with_unclear(["tls: 3 unknown".into()]);
        let page = Page::of(&Digest::of_events(&events, gaps)).unwrap();
        assert!(page.is_whole());
        for form in [page.text().unwrap(), page.html().unwrap()] {
            for said in [
                "prod: 6 high, 6 low; incomplete",
                "2026-01-31 23:59:59 UTC",
                "20260131_235959",
                "azcloud",
                "azure_port ought",
                "s-1",
                "s-2",
                "thing-3",
                "The thing 3 is open.",
                "Close it.",
                "denied: 403",
                "tls: 3 unknown",
            ] {
                assert!(form.contains(said), "{said} is not in\n{form}");
            }
        }
    }

    #[test]
    fn what_a_cloud_says_is_text_and_not_html() {
        let mut odd = event(1, "high", "<b>rule</b>", "<script>alert(1)</script>");
        odd["com"]["description"] = "<img src=x onerror=alert(1)> שלום 🔥 \u{202e}".into();
        odd["com"]["resource"]["name"] = "\"><a href=\"javascript:x\">".into();
        let page = Page::of(&Digest::of_events(&[odd], Outcome::unknown())).unwrap();
        let html = page.html().unwrap();
        for wrong in ["<script", "<img", "javascript:x\">", "<b>rule", "\u{202e}"] {
            assert!(!html.contains(wrong), "{wrong}");
        }
        assert!(html.contains("&lt;script&gt;") && html.contains("שלום 🔥"));
        assert!(page.text().unwrap().contains("<img src=x onerror=alert(1)> שלום 🔥"));
    }

    #[test]
    fn a_page_is_bounded() {
        let events: Vec<_> = (0..3000).map(|n| event(n, "high", &format!("rule{}", n % 100), "a")).collect();
        let page = Page::of(&Digest::of_events(&events, Outcome::of_gaps([]))).unwrap();
        assert!(!page.is_whole() && page.shown == IN_ALL as u64);
        let text = page.text().unwrap();
        assert!(text.contains("3,000 findings") && text.len() < 100_000, "{}", text.len());
        assert!(text.contains("and 10 more of this rule"), "{text}");
    }

    #[test]
    fn nothing_is_something_to_say() {
        let page = Page::of(&Digest::of_nothing().unwrap()).unwrap();
        assert!(page.text().unwrap().contains("no findings") && page.html().unwrap().contains("no findings"));
    }
}
