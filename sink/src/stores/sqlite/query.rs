//! Reads an inventory.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

/// A value of a result.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A whole number.
    Integer(i64),
    /// Another number.
    Real(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no such file.
    #[error("there is no inventory at {0}; a run with a SqliteStore makes one; name another with --db PATH")]
    NoInventory(String),
    /// SQLite.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The result is not wanted any more.
    #[error("{0}")]
    Unwanted(#[from] std::io::Error),
}

/// Reads from an inventory, row by row; nothing can be changed. `each` gets the names of the columns and a row; before
/// the first row, and where there is none, it is called with `None`.
///
/// # Errors
/// See [`QueryError`].
pub fn query(
    path: &Path,
    sql: &str,
    mut each: impl FnMut(&[String], Option<&[Cell]>) -> std::io::Result<()>,
) -> Result<(), QueryError> {
    if !path.exists() {
        return Err(QueryError::NoInventory(path.display().to_string()));
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    let mut statement = connection.prepare(sql)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    each(&columns, None)?;
    let mut rows = statement.query([])?;
    let mut cells = Vec::with_capacity(columns.len());
    while let Some(row) = rows.next()? {
        cells.clear();
        for at in 0..columns.len() {
            cells.push(match row.get_ref(at)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(number) => Cell::Integer(number),
                ValueRef::Real(number) => Cell::Real(number),
                ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
            });
        }
        each(&columns, Some(&cells))?;
    }
    Ok(())
}
