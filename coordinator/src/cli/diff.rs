//! `coordinator diff`: what changed between two runs of an audit.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use comfy_table::Cell;
use proto::bus::SharedBus;
use proto::config::Environment;
use proto::config::secret::Expander;
use proto::service::args::BusArgs;
use proto::subject::{Key, Version};
use serde::Serialize;
use serde_json::json;
use sink::stores::sqlite::default_path;

use super::broker::{self, Place};
use super::{USAGE, check};
use crate::diff::{
    Change, Counts, DiffError, FieldChange, Item, Kind, Scratch, Sides, Unread, findings_of_broker, findings_of_store,
    newly_unread, resources_of_store,
};
use crate::history::{Entry, History, Outcome, Wanted};
use crate::summary::AuditReport;
use crate::terminal::{Colour, Look, cell, cut, shown};

/// Something is not the same.
const DIFFERS: u8 = 1;
/// How many fields of a resource a table shows.
const SHOWN_FIELDS: usize = 3;
/// The longest text in a table, in characters.
const LONGEST: usize = 160;

const EXAMPLES: &str = "\
Examples:
  coordinator diff                                     the last two complete runs of the only audit
  coordinator diff --audit mockaudit                   those of an audit
  coordinator diff 20260130_000000 20260131_000000     certain ones
  coordinator diff --ignore raw.etag --ignore raw.properties.timeCreated
  coordinator diff --db inventory.db --json            resources of this inventory, for programs
  coordinator diff --nats nats://127.0.0.1:4222        findings out of the events at the broker

Findings come from a SqliteStore among the audit's alerts, or from the broker, which keeps events for 30 days; resources
come from a SqliteStore among its stores. What the newer run could not read is `not read`, never `gone`; what the older
one could not is `not known before`, never `new`.

Exit codes: 0 nothing differs, 1 something does, 2 the runs cannot be compared.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DiffArgs {
    /// The older run; without it, the last complete one but one.
    #[arg(value_name = "OLD", value_parser = |text: &str| Version::new(text))]
    old: Option<Version>,
    /// The newer run; without it, the last complete one.
    #[arg(value_name = "NEW", value_parser = |text: &str| Version::new(text))]
    new: Option<Version>,
    /// The audit, if there are several.
    #[arg(long, value_name = "KEY", value_parser = |text: &str| Key::new(text))]
    audit: Option<Key>,
    /// The inventory that a SqliteStore keeps, instead of those that the audit's configuration names.
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,
    /// A field whose changes are none, with all below it: raw.etag. May be given several times.
    #[arg(long, value_name = "FIELD")]
    ignore: Vec<String>,
    /// How many of each change a table shows; 0 is all. JSON has all unless this is given.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Ask no broker: what this host knows.
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    bus: BusArgs,
}

/// How many of each change a table shows.
const SHOWN: usize = 20;

pub(super) fn main(args: &DiffArgs) -> ExitCode {
    let environment = Environment::of_process();
    let history = History::of_host(&environment);
    let compared = broker::with(&args.bus, args.here, async |place| {
        let (broker, bus) = match place {
            Place::Here => (None, None),
            Place::Broker(bus) => {
                let known = history.synchronise(&bus).await.map_err(|error| error.to_string())?;
                (Some(known.id), Some(bus))
            }
        };
        let (old, new) = choose(args, &history, broker.as_deref())?;
        compare(args, &environment, &Sides { old: &old, new: &new }, bus.as_ref()).await
    });
    compared.unwrap_or_else(|reason| {
        eprintln!("error: {reason}");
        ExitCode::from(USAGE)
    })
}

/// The reports of the two runs that are to be compared.
fn choose(args: &DiffArgs, history: &History, broker: Option<&str>) -> Result<(AuditReport, AuditReport), String> {
    let entries = history.entries(&Wanted { broker, audit: args.audit.as_ref(), ..Wanted::default() });
    let entries = entries.map_err(|error| error.to_string())?;
    let named: Vec<&Version> = [&args.old, &args.new].into_iter().flatten().collect();
    for version in &named {
        if !entries.iter().any(|entry| entry.version == **version) {
            let of = args.audit.as_ref().map(|audit| format!(" of the audit {audit}")).unwrap_or_default();
            return Err(format!("there is no run {version}{of}; `coordinator runs` lists those that are known"));
        }
    }
    let is_complete = |entry: &&Entry| entry.outcome == Outcome::Complete;
    let needed = 2 - named.len().min(2);
    let fits = |audit: &&Key| {
        let own = || entries.iter().filter(|entry| entry.audit == **audit);
        let others = own().filter(is_complete).filter(|entry| !named.contains(&&entry.version));
        named.iter().all(|version| own().any(|entry| entry.version == **version)) && others.count() >= needed
    };
    let audits: BTreeSet<&Key> = entries.iter().map(|entry| &entry.audit).collect();
    let fitting: Vec<&Key> = audits.iter().copied().filter(fits).collect();
    let audit = match fitting[..] {
        [audit] => audit,
        [] => {
            return Err(match needed {
                0 => "the two runs have no audit in common; `coordinator runs` says which ran".to_owned(),
                _ => "there are no two complete runs of an audit to compare; name two that ended otherwise \
                      (`coordinator runs` lists them): coordinator diff OLD NEW"
                    .to_owned(),
            });
        }
        _ => {
            let names: Vec<&str> = fitting.iter().map(|audit| audit.as_str()).collect();
            return Err(format!("there are several audits: name one with --audit: {}", names.join(", ")));
        }
    };
    let complete = entries.iter().filter(|entry| entry.audit == *audit).filter(is_complete);
    let mut complete = complete.map(|entry| &entry.version).filter(|version| !named.contains(version));
    let (old, new) = match (&args.old, &args.new) {
        (Some(old), Some(new)) => (old, new),
        (Some(old), None) => (old, complete.next().unwrap_or(old)),
        _ => {
            let newest = complete.next();
            match (complete.next(), newest) {
                (Some(old), Some(new)) => (old, new),
                _ => return Err("there are no two complete runs".to_owned()),
            }
        }
    };
    let report = |version: &Version| {
        history.report(audit, version).map_err(|error| error.to_string())?.ok_or_else(|| {
            let entry = entries.iter().find(|entry| entry.version == *version && entry.audit == *audit);
            match entry.map(|entry| entry.outcome) {
                Some(Outcome::Running) => format!(
                    "the run {version} has not ended; `coordinator status {version} --watch` looks on until it has"
                ),
                _ => format!("what the run {version} read is not known: it never ended, or an older version led it"),
            }
        })
    };
    Ok((report(old)?, report(new)?))
}

/// What was compared, and out of what.
struct Compared {
    kind: Kind,
    /// Where from, or why not at all.
    source: Result<(String, Scratch), String>,
}

impl Compared {
    fn counts(&self) -> Option<&Counts> {
        self.source.as_ref().ok().map(|(_, scratch)| scratch.counts())
    }
}

async fn compare(
    args: &DiffArgs,
    environment: &Environment,
    sides: &Sides<'_>,
    bus: Option<&SharedBus>,
) -> Result<ExitCode, String> {
    let stores = Stores::of(args, environment, &sides.new.audit);
    let findings = Compared { kind: Kind::Findings, source: findings(sides, &stores, bus).await? };
    let resources = Compared { kind: Kind::Resources, source: resources(sides, &stores, &args.ignore)? };
    let (lost, won) = (newly_unread(sides.old, sides.new), newly_unread(sides.new, sides.old));
    let both = [findings, resources];
    let differs = both.iter().filter_map(Compared::counts).any(Counts::differ) || !lost.is_empty() || !won.is_empty();
    let out = BufWriter::new(std::io::stdout().lock());
    let written = if args.json {
        write_json(out, args, sides, &both, (&lost, &won), differs)
    } else {
        write_text(out, args, sides, &both, (&lost, &won))
    };
    match written {
        Err(Unwritten::Out(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            return Err(format!("cannot write the result: {error}"));
        }
        Err(Unwritten::Diff(error)) => return Err(error.to_string()),
        _ => {}
    }
    if both.iter().all(|compared| compared.source.is_err()) {
        return Ok(ExitCode::from(USAGE));
    }
    Ok(if differs { ExitCode::from(DIFFERS) } else { ExitCode::SUCCESS })
}

/// The inventories of an audit.
struct Stores {
    /// Those that keep its records.
    records: Vec<PathBuf>,
    /// Those that keep its events.
    events: Vec<PathBuf>,
}

impl Stores {
    fn of(args: &DiffArgs, environment: &Environment, audit: &Key) -> Self {
        if let Some(db) = &args.db {
            let path = environment.path(db);
            return Self { records: vec![path.clone()], events: vec![path] };
        }
        let config = check::read(args.bus.config.as_deref(), &[], environment).map(|(config, _)| config);
        let plugins = config.as_ref().and_then(|config| Some((config, config.audits.get(audit)?)));
        let Some((config, plugins)) = plugins else { return Self { records: Vec::new(), events: Vec::new() } };
        let expander = Expander::of_everything(environment.clone());
        let path = |key: &Key| {
            let plugin = config.plugins.get(key)?;
            if plugin.class.rsplit('.').next() != Some("SqliteStore") {
                return None;
            }
            let params = expander.expand(&plugin.params).ok()?;
            let path = params.get("path").and_then(serde_json::Value::as_str);
            Some(path.map_or_else(|| default_path(environment), |path| environment.path(path)))
        };
        Self {
            records: plugins.stores.iter().filter_map(path).collect(),
            events: plugins.alerts.iter().filter_map(path).collect(),
        }
    }
}

type Source = Result<(String, Scratch), String>;

async fn findings(sides: &Sides<'_>, stores: &Stores, bus: Option<&SharedBus>) -> Result<Source, String> {
    let mut reasons = Vec::new();
    for path in &stores.events {
        match findings_of_store(sides, path).map_err(|error| error.to_string())? {
            Ok(scratch) => return Ok(Ok((path.display().to_string(), scratch))),
            Err(reason) => reasons.push(reason),
        }
    }
    if let Some(bus) = bus {
        match findings_of_broker(sides, bus).await.map_err(|error| error.to_string())? {
            Ok(scratch) => return Ok(Ok(("the broker's events".to_owned(), scratch))),
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        reasons.push(
            "no store of the audit that can be read keeps them, and there is no broker: put a SqliteStore among its \
             `alerts`, or name an inventory with --db"
                .to_owned(),
        );
    }
    Ok(Err(reasons.join("; ")))
}

fn resources(sides: &Sides<'_>, stores: &Stores, ignored: &[String]) -> Result<Source, String> {
    let mut reasons = Vec::new();
    for path in &stores.records {
        match resources_of_store(sides, path, ignored).map_err(|error| error.to_string())? {
            Ok(scratch) => return Ok(Ok((path.display().to_string(), scratch))),
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        reasons.push(
            "no store of the audit that can be read keeps versions of them: put a SqliteStore among its `stores`, or \
             name an inventory with --db"
                .to_owned(),
        );
    }
    Ok(Err(reasons.join("; ")))
}

enum Unwritten {
    Out(std::io::Error),
    Diff(DiffError),
}

impl From<std::io::Error> for Unwritten {
    fn from(error: std::io::Error) -> Self {
        Self::Out(error)
    }
}

impl From<serde_json::Error> for Unwritten {
    fn from(error: serde_json::Error) -> Self {
        Self::Out(error.into())
    }
}

/// Does something with each item, until writing fails.
fn each(
    scratch: &Scratch,
    most: Option<usize>,
    mut with: impl FnMut(Item) -> Result<(), Unwritten>,
) -> Result<(), Unwritten> {
    let mut failed = None;
    let done = scratch.items(most, |item| match with(item) {
        Ok(()) => true,
        Err(error) => {
            failed = Some(error);
            false
        }
    });
    match failed {
        Some(error) => Err(error),
        None => done.map_err(Unwritten::Diff),
    }
}

fn write_json(
    mut out: impl Write,
    args: &DiffArgs,
    sides: &Sides<'_>,
    both: &[Compared],
    (lost, won): (&[Unread], &[Unread]),
    differs: bool,
) -> Result<(), Unwritten> {
    fn field(out: &mut impl Write, name: &str, value: &impl Serialize) -> Result<(), Unwritten> {
        write!(out, "  \"{name}\": ")?;
        serde_json::to_writer(&mut *out, value)?;
        Ok(writeln!(out, ",")?)
    }
    writeln!(out, "{{")?;
    field(&mut out, "audit", &sides.new.audit)?;
    field(&mut out, "old", &sides.old.version)?;
    field(&mut out, "new", &sides.new.version)?;
    field(&mut out, "differs", &differs)?;
    for compared in both {
        let name = serde_json::to_string(&compared.kind)?;
        let (source, unavailable) = match &compared.source {
            Ok((source, _)) => (Some(source), None),
            Err(reason) => (None, Some(reason)),
        };
        writeln!(out, "  {name}: {{\"source\": {}, \"unavailable\": {},", json!(source), json!(unavailable))?;
        writeln!(out, "    \"counts\": {},", json!(compared.counts()))?;
        write!(out, "    \"items\": [")?;
        let mut before = "\n      ";
        if let Ok((_, scratch)) = &compared.source {
            each(scratch, args.limit.filter(|limit| *limit > 0), |item| {
                out.write_all(before.as_bytes())?;
                before = ",\n      ";
                Ok(serde_json::to_writer(&mut out, &item)?)
            })?;
        }
        writeln!(out, "]}},")?;
    }
    let coverage = json!({"newly_unreadable": lost, "newly_readable": won});
    writeln!(out, "  \"coverage\": {coverage}\n}}")?;
    Ok(out.flush()?)
}

fn write_text(
    mut out: impl Write,
    args: &DiffArgs,
    sides: &Sides<'_>,
    both: &[Compared],
    (lost, won): (&[Unread], &[Unread]),
) -> Result<(), Unwritten> {
    let look = Look::of_stdout();
    writeln!(out, "Audit {}, from {} to {}", shown(sides.new.audit.as_str()), sides.old.version, sides.new.version)?;
    let mut table = look.table(&["", "new", "gone", "changed", "the same", "not read", "not known before"]);
    for compared in both {
        let Some(counts) = compared.counts() else { continue };
        let count = |change: Change| look.count(counts.of(change));
        table.add_row([
            Cell::new(title(compared.kind)),
            count(Change::New),
            count(Change::Gone),
            if compared.kind == Kind::Findings { cell("") } else { count(Change::Changed) },
            look.count(counts.same),
            count(Change::NotRead),
            count(Change::NotKnownBefore),
        ]);
    }
    if !table.is_empty() {
        out.write_all(look.text_of(&table).as_bytes())?;
    }
    for compared in both {
        if let Err(reason) = &compared.source {
            writeln!(out, "  - {} are not compared: {}", title(compared.kind), shown(reason))?;
        }
    }
    let most = args.limit.unwrap_or(SHOWN);
    for compared in both {
        if let Ok((_, scratch)) = &compared.source {
            write_items(&mut out, look, compared.kind, scratch, Some(most).filter(|most| *most > 0))?;
        }
    }
    for (title, unread) in [("No longer readable", lost), ("Readable again, or for the first time", won)] {
        if unread.is_empty() {
            continue;
        }
        writeln!(out, "\n{title}")?;
        let mut table = look.table(&["cloud", "scope", "type", "state", "reason"]);
        for one in unread.iter().take(if most == 0 { usize::MAX } else { most }) {
            let all = |text: &str| if text.is_empty() { cell("all") } else { cell(text) };
            table.add_row([
                cell(&one.plugin),
                all(&one.scope),
                all(&one.kind),
                cell(one.state.map_or("nothing said", |state| state.as_str())),
                cell(&cut(one.reason.as_deref().unwrap_or_default(), LONGEST)),
            ]);
        }
        out.write_all(look.text_of(&table).as_bytes())?;
        if most > 0 && unread.len() > most {
            writeln!(out, "  … and {} more; --limit 0 shows all", unread.len() - most)?;
        }
    }
    Ok(out.flush()?)
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Findings => "findings",
        Kind::Resources => "resources",
    }
}

fn write_items(
    out: &mut impl Write,
    look: Look,
    kind: Kind,
    scratch: &Scratch,
    most: Option<usize>,
) -> Result<(), Unwritten> {
    let mut table = match kind {
        Kind::Findings => look.table(&["finding", "severity", "event", "resource", "what"]),
        Kind::Resources => look.table(&["resource", "type", "scope", "name", "what"]),
    };
    each(scratch, most, |item| {
        let colour = match (item.change, kind) {
            (Change::New, Kind::Findings) => Colour::Bad,
            (Change::Gone, Kind::Findings) => Colour::Good,
            (Change::NotRead | Change::NotKnownBefore, _) => Colour::Faint,
            _ => Colour::Odd,
        };
        let change = Cell::new(look.paint(colour, item.change.as_str()));
        let text = |text: &Option<String>| cell(&cut(text.as_deref().unwrap_or_default(), LONGEST));
        let name = item.reference.clone().unwrap_or_else(|| item.id.clone());
        let what = match (&item.reason, &item.description) {
            (Some(reason), _) => reason.clone(),
            (None, Some(description)) => description.clone(),
            (None, None) => fields(&item.fields, item.more_fields),
        };
        let what = cell(&cut(&what, LONGEST));
        table.add_row(match kind {
            Kind::Findings => [change, text(&item.severity), text(&item.event), cell(&name), what],
            Kind::Resources => [change, text(&item.kind), text(&item.scope), cell(&name), what],
        });
        Ok(())
    })?;
    if table.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    out.write_all(look.text_of(&table).as_bytes())?;
    for change in Change::ALL {
        let more = scratch.counts().of(change).saturating_sub(most.map_or(u64::MAX, |most| most as u64));
        if more > 0 {
            writeln!(out, "  … and {more} more {}; --limit 0 shows all", change.as_str())?;
        }
    }
    Ok(())
}

fn fields(fields: &[FieldChange], more: u64) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    let mut words: Vec<String> = fields
        .iter()
        .take(SHOWN_FIELDS)
        .map(|field| format!("{}: {} → {}", field.path, value(&field.old), value(&field.new)))
        .collect();
    let more = more + fields.len().saturating_sub(SHOWN_FIELDS) as u64;
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join("; ")
}
