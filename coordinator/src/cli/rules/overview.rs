//! `coordinator rules try`: what a rule says of the records of a run, by account.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use comfy_table::{Cell, CellAlignment};
use evaluator::condition::excerpt_of;
use evaluator::record::Record;
use evaluator::rule::{Instance, Judgement, Outcome};
use serde::Serialize;

use super::documents;
use super::known::{Look, Sources, looks_at};
use super::{Done, INCOMPLETE, cell, counted, print, print_json, shown, table};

/// How many accounts a table has; JSON has them all.
const SHOWN_ACCOUNTS: usize = 50;
/// How many different reasons are kept: records may give as many as there are of them.
const MAX_REASONS: usize = 20;
/// The longest name of a resource, in characters.
const LONGEST: usize = 400;

const EXAMPLES: &str = "\
Examples:
  coordinator rules try my_rule.yaml --from /tmp/cloudmarker
  coordinator rules try firewall_rule_internet --from out --param ports=22,8080
  coordinator rules try AzKVKeyNoExpiryEvent --from keys.jsonl --json

Exit codes: 0 all was read; 2 there is nothing to read; 3 a part of it could not be read.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TryArgs {
    /// The rule's id, class or file.
    #[arg(value_name = "RULE")]
    rule: String,
    /// The folder that a FileStore wrote to, or a file with a document a line; compressed ones (.zst) are read, too.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// How many resources are named.
    #[arg(long, value_name = "N", default_value_t = 10)]
    samples: usize,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    sources: Sources,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// What a rule says of records.
#[derive(Debug, Default, Serialize)]
struct Overview {
    rule: String,
    files: usize,
    /// All records, whether the rule looks at them or not.
    records: u64,
    #[serde(flatten)]
    counts: Counts,
    not_applicable: u64,
    events: u64,
    accounts: Vec<Account>,
    failing: Vec<Failing>,
    unknown_because: Vec<Reason>,
    /// Documents and files that cannot be read.
    unreadable: u64,
    /// The first of them.
    trouble: Option<String>,
    #[serde(skip)]
    by_account: BTreeMap<String, Counts>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Counts {
    pass: u64,
    fail: u64,
    unknown: u64,
    /// A resource that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<String>,
}

#[derive(Debug, Serialize)]
struct Account {
    account: String,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Debug, Serialize)]
struct Failing {
    account: String,
    resource: String,
    description: String,
}

#[derive(Debug, Serialize)]
struct Reason {
    reason: String,
    count: u64,
    sample: String,
}

pub(super) fn main(args: &TryArgs) -> Done {
    let rule = args.sources.rule(&args.rule)?;
    let instance = args.look.instance(&rule)?;
    let (files, old) = documents::files(&args.from)?;
    for file in old {
        eprintln!("warning: {} is of an older run than the file without a version: passed over", file.display());
    }
    let mut overview = Overview { rule: rule.id.clone(), files: files.len(), ..Overview::default() };
    for file in &files {
        documents::read(file, |line, document| {
            let read = document.and_then(|document| overview.add(document, &instance, args));
            if let Err(trouble) = read {
                overview.fail_to_read(file, line, &trouble);
            }
            true
        });
    }
    overview.end();
    let printed = if args.json { print_json(&overview)? } else { print(&overview.in_words(&looks_at(&rule))) };
    match &overview.trouble {
        Some(trouble) => {
            eprintln!("error: {} cannot be read, the first: {trouble}", counted_long(overview.unreadable, "document"));
            Ok(ExitCode::from(INCOMPLETE))
        }
        None => Ok(printed),
    }
}

fn counted_long(count: u64, what: &str) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), what)
}

impl Overview {
    fn fail_to_read(&mut self, file: &Path, line: usize, trouble: &str) {
        self.unreadable += 1;
        let place = if line == 0 { String::new() } else { format!(":{line}") };
        self.trouble.get_or_insert_with(|| format!("{}{place}: {trouble}", file.display()));
    }

    fn add(&mut self, document: &[u8], instance: &Instance, args: &TryArgs) -> Result<(), String> {
        let record = Record::parse(document, instance.rule.raw_wanted()).map_err(|error| {
            let begin: String = String::from_utf8_lossy(document).chars().take(40).collect();
            format!("not a record ({error}): `{}`; one document a line is expected", shown(&begin))
        })?;
        // A FileStore of alerts writes its files in the same folder.
        if record.com_text("origin_type") == Some("event") {
            return Ok(());
        }
        self.records += 1;
        let judgement = instance.judge(&record, args.look.now(&record));
        if judgement.outcome == Outcome::NotApplicable {
            self.not_applicable += 1;
        } else {
            self.count(&record, &judgement, args.samples);
        }
        Ok(())
    }

    fn count(&mut self, record: &Record<'_>, judgement: &Judgement, samples: usize) {
        let name = || excerpt_of(record.name().unwrap_or("a record without an id"), LONGEST);
        let account = record.account().unwrap_or_default();
        let (pass, fail) = (judgement.outcome == Outcome::Pass, judgement.outcome == Outcome::Fail);
        let unknown = judgement.unknown();
        if !self.by_account.contains_key(account) {
            self.by_account.insert(account.to_owned(), Counts::default());
        }
        for counts in self.by_account.get_mut(account).into_iter().chain([&mut self.counts]) {
            counts.pass += u64::from(pass);
            counts.fail += u64::from(fail);
            counts.unknown += u64::from(unknown.is_some());
            if fail {
                counts.sample.get_or_insert_with(name);
            }
        }
        self.events += judgement.events.len() as u64;
        if let Some(draft) = judgement.events.first()
            && self.failing.len() < samples
        {
            let description = draft.description.clone();
            self.failing.push(Failing { account: account.to_owned(), resource: name(), description });
        }
        if let Some(reason) = unknown {
            let reasons = &mut self.unknown_because;
            if let Some(known) = reasons.iter_mut().find(|known| known.reason == reason) {
                known.count += 1;
            } else if reasons.len() < MAX_REASONS {
                reasons.push(Reason { reason: reason.to_owned(), count: 1, sample: name() });
            }
        }
    }

    /// Orders what was counted: most failures first.
    fn end(&mut self) {
        self.accounts = std::mem::take(&mut self.by_account)
            .into_iter()
            .map(|(account, counts)| Account { account, counts })
            .collect();
        self.accounts.sort_by_key(|account| std::cmp::Reverse((account.counts.fail, account.counts.unknown)));
        self.unknown_because.sort_by_key(|reason| std::cmp::Reverse(reason.count));
    }

    fn in_words(&self, looks_at: &str) -> String {
        let Counts { pass, fail, unknown, .. } = self.counts;
        let (records, files) = (counted_long(self.records, "record"), counted(self.files, "file"));
        let of = format!("{} on {records} of {files}", self.rule);
        if self.not_applicable == self.records {
            return format!("{of}: it looks at none of them; it looks at {looks_at}\n");
        }
        let events = counted_long(self.events, "event");
        let looked = self.records - self.not_applicable;
        let mut text = format!("{of}: {looked} looked at, {pass} pass, {fail} fail ({events}), {unknown} unknown\n");
        let mut by_account = table(&["account", "pass", "fail", "unknown", "such as"]);
        for account in self.accounts.iter().take(SHOWN_ACCOUNTS) {
            let Counts { pass, fail, unknown, sample } = &account.counts;
            let number = |count: &u64| Cell::new(count).set_alignment(CellAlignment::Right);
            let name = if account.account.is_empty() { "(none)" } else { &account.account };
            let sample = cell(sample.as_deref().unwrap_or_default());
            by_account.add_row([cell(name), number(pass), number(fail), number(unknown), sample]);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{by_account}");
        if self.accounts.len() > SHOWN_ACCOUNTS {
            let _ = writeln!(text, "{} more; --json has all", counted(self.accounts.len() - SHOWN_ACCOUNTS, "account"));
        }
        for failing in &self.failing {
            let _ = writeln!(text, "  ! {}", shown(&failing.description));
        }
        let more = fail.saturating_sub(self.failing.len() as u64);
        if more > 0 && !self.failing.is_empty() {
            let _ = writeln!(text, "  ! and {more} more; --samples names more of them");
        }
        for reason in &self.unknown_because {
            let line = format!("{} unknown, such as {}: {}", reason.count, reason.sample, reason.reason);
            let _ = writeln!(text, "  - {}", shown(&line));
        }
        text
    }
}
