//! `coordinator export`: writes the activity logs that a SqliteStore keeps to files, as CloudTail did.

mod form;
mod place;

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use proto::config::{Environment, suggest};
use sink::stores::sqlite::{Cell, QueryError, query};
use tempfile::NamedTempFile;

use super::{INCOMPLETE, USAGE};
use form::Form;

/// The clouds, as records name them, and what CloudTail called the files of their logs.
const CLOUDS: [(&str, &str); 2] = [("aws", "AWS_CloudTrail"), ("azure", "Azure_Activity_Log")];
/// How many names of rules are told.
const MOST_NAMES: usize = 20;

const EXAMPLES: &str = "\
Examples:
  coordinator export --output-dir exports                             all that is kept
  coordinator export --from 2024-01-01 --to 2024-12-31 --output-dir exports
  coordinator export --rule 'IAM User Management' --format csv

The files are AWS_CloudTrail_<date>.json and Azure_Activity_Log_<date>.json, with the day of the export. They are written
whole: a second export on a day replaces the first.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {
    /// The first day, in UTC.
    #[arg(long, value_name = "DATE", value_parser = date)]
    from: Option<Date>,
    /// The last day, in UTC.
    #[arg(long, value_name = "DATE", value_parser = date)]
    to: Option<Date>,
    /// Only events that this rule of what is kept holds for; it may be given several times.
    #[arg(long = "rule", value_name = "NAME", action = clap::ArgAction::Append)]
    rules: Vec<String>,
    /// Where to write; the folder is made if it is not there.
    #[arg(short = 'd', long, value_name = "FOLDER", default_value = ".")]
    output_dir: PathBuf,
    /// How to write.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    #[command(flatten)]
    place: place::PlaceArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A list with one log event a line.
    Json,
    /// One log event a line.
    Jsonl,
    /// With a line of names: what the events of all clouds have in common, and the log event; RFC 4180.
    Csv,
}

/// Why nothing, or not everything, is exported.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
}

pub(super) fn main(args: &ExportArgs) -> ExitCode {
    match export(args, &Environment::of_process()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ExportError::Usage(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::from(USAGE)
        }
        Err(ExportError::Failed(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::from(INCOMPLETE)
        }
    }
}

fn date(text: &str) -> Result<Date, String> {
    let is_plain = text.len() == 10;
    let read = text.parse::<Date>().ok().filter(|_| is_plain);
    read.ok_or_else(|| "a day is expected, like 2024-12-31".to_owned())
}

fn export(args: &ExportArgs, environment: &Environment) -> Result<(), ExportError> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        return Err(ExportError::Usage(format!("--from {from} is after --to {to}: no day is between them")));
    }
    let store = args.place.find(environment).map_err(ExportError::Usage)?;
    let folder = environment.path(&args.output_dir);
    fs::create_dir_all(&folder)
        .map_err(|error| ExportError::Usage(format!("cannot make the folder {}: {error}", folder.display())))?;
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let mut parts = Vec::new();
    for (cloud, name) in CLOUDS {
        let file = folder.join(format!("{name}_{today}.{}", args.format.ending()));
        let (events, part) = write(args, &store, cloud, &file)?;
        parts.push((events, part, file));
    }
    let is_empty = parts.iter().all(|(events, ..)| *events == 0);
    // A rule may be misspelt: no earlier export of the day is replaced by nothing.
    if is_empty && !args.rules.is_empty() {
        return nothing(args, &store);
    }
    for (events, part, file) in parts {
        // One that would be empty is not made, but one of an earlier export is replaced all the same.
        if events == 0 && !file.exists() {
            continue;
        }
        let failed = |error| ExportError::Failed(format!("cannot write {}: {error}", file.display()));
        part.as_file().sync_all().map_err(failed)?;
        part.persist(&file).map_err(|error| failed(error.error))?;
        eprintln!("{events} event{} in {}", if events == 1 { "" } else { "s" }, file.display());
    }
    if is_empty { nothing(args, &store) } else { Ok(()) }
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}

/// Writes the events of a cloud beside the file that they are for; how many they are.
fn write(args: &ExportArgs, store: &Path, cloud: &str, file: &Path) -> Result<(u64, NamedTempFile), ExportError> {
    let failed =
        |error: &dyn std::fmt::Display| ExportError::Failed(format!("cannot write {}: {error}", file.display()));
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".export");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any file that a program makes: what the user's mask leaves of this.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut part: NamedTempFile = builder.tempfile_in(folder).map_err(|error| failed(&error))?;
    let events = {
        let mut out = BufWriter::with_capacity(1 << 18, part.as_file_mut());
        let mut form = Form::new(args.format);
        let result = query(store, &select(args, cloud), |_, row| match row {
            None => form.begin(&mut out),
            Some(row) => match row {
                [Cell::Text(document)] => form.event(&mut out, document),
                _ => Err(std::io::Error::other("the inventory has a document that is not text")),
            },
        });
        result.and_then(|()| Ok(form.end(&mut out)?)).and_then(|()| Ok(out.flush()?)).map_err(|error| match error {
            QueryError::NoInventory(_) => ExportError::Usage(missing(store)),
            QueryError::Sqlite(error) => ExportError::Usage(format!("cannot read {}: {error}", store.display())),
            QueryError::Unwanted(error) => failed(&error),
        })?;
        form.events()
    };
    Ok((events, part))
}

fn missing(store: &Path) -> String {
    format!(
        "there is no inventory at {}; a run with a SqliteStore makes one; name another with --path FILE, or the \
         configuration that has its SqliteStore with --config FILE",
        store.display()
    )
}

/// The statement that gives the documents of a cloud's events, in their order. The order is made of what is small; the
/// documents are fetched one by one.
fn select(args: &ExportArgs, cloud: &str) -> String {
    let mut which = format!("record_type = 'cloud_activity' AND NOT is_event AND cloud_type = {}", quoted(cloud));
    // Times are written alike, and a day is how they begin.
    if let Some(from) = args.from {
        which.push_str(&format!(" AND time >= {}", quoted(&from.to_string())));
    }
    // After the last day that there is, nothing is.
    if let Some(Ok(after)) = args.to.map(|to| to.tomorrow()) {
        which.push_str(&format!(" AND time < {}", quoted(&after.to_string())));
    }
    if !args.rules.is_empty() {
        let names: Vec<String> = args.rules.iter().map(|rule| quoted(rule)).collect();
        which.push_str(&format!(
            " AND EXISTS (SELECT 1 FROM json_each(document, '$.com.rules') WHERE value IN ({}))",
            names.join(", ")
        ));
    }
    // Two audits may keep the same event: it has one id in the log.
    format!(
        "WITH events AS MATERIALIZED (
            SELECT min(place) AS place, time, event FROM (
                SELECT rowid AS place, json_extract(document, '$.com.time') AS time,
                    coalesce(json_extract(document, '$.com.event_id'), id) AS event,
                    document, record_type, cloud_type, is_event
                FROM documents
            ) WHERE {which} GROUP BY time, event ORDER BY time, event
        )
        SELECT documents.document FROM events CROSS JOIN documents ON documents.rowid = events.place"
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

/// Says why nothing was found.
fn nothing(args: &ExportArgs, store: &Path) -> Result<(), ExportError> {
    let mut names = Vec::new();
    if !args.rules.is_empty() {
        let kept = "SELECT DISTINCT value FROM documents, json_each(document, '$.com.rules')
            WHERE record_type = 'cloud_activity' AND NOT is_event ORDER BY value";
        let read = query(store, kept, |_, row| {
            if let Some([Cell::Text(name)]) = row {
                names.push(name.clone());
            }
            Ok(())
        });
        read.map_err(|error| ExportError::Failed(format!("cannot read {}: {error}", store.display())))?;
    }
    for rule in args.rules.iter().filter(|rule| !names.contains(rule)) {
        let hint = suggest::did_you_mean(rule, names.iter().map(String::as_str));
        let some: Vec<&str> = names.iter().map(String::as_str).take(MOST_NAMES).collect();
        let known = if some.is_empty() { "no rule".to_owned() } else { some.join(", ") };
        eprintln!("no event is kept by a rule `{rule}`{hint} (rules with events: {known})");
    }
    eprintln!("no event is kept in {} that was asked for: nothing is written", store.display());
    Ok(())
}
