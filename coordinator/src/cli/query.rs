//! `coordinator query`: reads the inventory that a SqliteStore keeps.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use proto::config::Environment;
use serde_json::{Map, Value};
use sink::stores::sqlite::{Cell, QueryError, default_path, query};

use super::{INCOMPLETE, USAGE};
use crate::terminal::{self, Look};

/// How many characters of a value a table shows.
const LONGEST: usize = 200;

const EXAMPLES: &str = "\
Examples:
  coordinator query \"SELECT record_type, count(*) FROM documents GROUP BY 1\"
  coordinator query \"SELECT reference FROM virtual_machine WHERE account = '…'\" --format csv
  coordinator query --db inventory.db \"SELECT com FROM nsg LIMIT 3\" --format json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct QueryArgs {
    /// What to read: the table `documents`, or a view named after a record type.
    #[arg(value_name = "SQL")]
    sql: String,
    /// The inventory, instead of the one in the state directory.
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For people; long values are cut.
    Table,
    /// A list with one object a line.
    Json,
    /// With a line of names; RFC 4180.
    Csv,
}

pub(super) fn main(args: &QueryArgs) -> ExitCode {
    let environment = Environment::of_process();
    let path = args.db.as_ref().map_or_else(|| default_path(&environment), |path| environment.path(path));
    match print(&path, &args.sql, args.format) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has gone away wants no more.
        Err(QueryError::Unwanted(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error @ QueryError::Unwanted(_)) => {
            eprintln!("error: cannot write the result: {error}");
            ExitCode::from(INCOMPLETE)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn print(path: &Path, sql: &str, format: Format) -> Result<(), QueryError> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    match format {
        Format::Table => table(path, sql, &mut out)?,
        Format::Json => json(path, sql, &mut out)?,
        Format::Csv => query(path, sql, |columns, row| match row {
            None => csv(&mut out, columns.iter().map(|name| Some(name.clone()))),
            Some(row) => csv(&mut out, row.iter().map(text)),
        })?,
    }
    Ok(out.flush()?)
}

fn table(path: &Path, sql: &str, out: &mut impl Write) -> Result<(), QueryError> {
    let look = Look::of_stdout();
    let mut table = look.table(&[]);
    query(path, sql, |columns, row| {
        match row {
            None => {
                let names: Vec<&str> = columns.iter().map(String::as_str).collect();
                table = look.table(&names);
                &mut table
            }
            Some(row) => table.add_row(row.iter().map(|cell| terminal::cut(&text(cell).unwrap_or_default(), LONGEST))),
        };
        Ok(())
    })?;
    Ok(out.write_all(look.text_of(&table).as_bytes())?)
}

fn json(path: &Path, sql: &str, out: &mut impl Write) -> Result<(), QueryError> {
    let mut before = "[\n";
    query(path, sql, |columns, row| {
        let Some(row) = row else { return Ok(()) };
        let object: Map<String, Value> = columns.iter().cloned().zip(row.iter().map(value)).collect();
        out.write_all(before.as_bytes())?;
        before = ",\n";
        Ok(serde_json::to_writer(&mut *out, &object)?)
    })?;
    Ok(writeln!(out, "{}", if before == "[\n" { "[]" } else { "\n]" })?)
}

fn csv(out: &mut impl Write, values: impl Iterator<Item = Option<String>>) -> std::io::Result<()> {
    for (place, value) in values.enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        match value {
            Some(text) if text.is_empty() || text.contains(['"', ',', '\n', '\r']) => {
                write!(out, "\"{}\"", text.replace('"', "\"\""))?;
            }
            Some(text) => out.write_all(text.as_bytes())?,
            None => {}
        }
    }
    out.write_all(b"\r\n")
}

fn text(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Integer(number) => Some(number.to_string()),
        Cell::Real(number) => Some(number.to_string()),
        Cell::Text(text) => Some(text.clone()),
        Cell::Bytes(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(number) => (*number).into(),
        Cell::Real(number) => (*number).into(),
        Cell::Text(_) | Cell::Bytes(_) => text(cell).into(),
    }
}
