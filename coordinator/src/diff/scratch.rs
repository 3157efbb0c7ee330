//! Puts two sides of any size in one order, on the disk, and keeps what came of them.

use std::collections::BTreeMap;

use proto::identity::Id;
use rusqlite::{Connection, params};
use serde::Serialize;

use super::{Change, DiffError, Item};

/// How many rows go into a transaction.
const AT_ONCE: u32 = 20_000;

/// A database that is gone with the value: SQLite writes it to a file without a name when it outgrows the cache.
const SCHEMA: &str = "
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA temp_store = FILE;
    PRAGMA cache_size = -32000;
    CREATE TABLE sides (
        id BLOB NOT NULL,
        is_new INTEGER NOT NULL,
        digest BLOB,
        place INTEGER,
        facts TEXT,
        PRIMARY KEY (id, is_new)
    ) WITHOUT ROWID;
    CREATE TABLE items (change INTEGER NOT NULL, sort TEXT NOT NULL, item TEXT NOT NULL);
";

/// How many there are of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Of each change.
    #[serde(flatten)]
    pub changes: BTreeMap<Change, u64>,
    /// Those that are the same in both.
    pub same: u64,
}

impl Counts {
    fn new() -> Self {
        Self { changes: Change::ALL.map(|change| (change, 0)).into(), same: 0 }
    }

    /// How many there are of a change.
    #[must_use]
    pub fn of(&self, change: Change) -> u64 {
        self.changes.get(&change).copied().unwrap_or(0)
    }

    /// Whether anything is new, gone or changed.
    #[must_use]
    pub fn differ(&self) -> bool {
        [Change::New, Change::Gone, Change::Changed].into_iter().any(|change| self.of(change) > 0)
    }
}

/// What one side has of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side {
    /// Of its content; none where it is not compared.
    pub(super) digest: Option<Vec<u8>>,
    /// Where its store has it.
    pub(super) place: Option<i64>,
    /// What is told of it.
    pub(super) facts: Option<String>,
}

/// What became of one thing.
#[derive(Debug)]
pub(super) enum Judged {
    /// It is the same.
    Same,
    /// It is not.
    Item(Box<Item>),
}

/// Both sides, and what came of them.
#[derive(Debug)]
pub struct Scratch {
    connection: Connection,
    pending: u32,
    counts: Counts,
}

impl Scratch {
    /// An empty one.
    pub(super) fn new() -> Result<Self, DiffError> {
        let open = || {
            let connection = Connection::open("")?;
            connection.execute_batch(SCHEMA)?;
            connection.execute_batch("BEGIN")?;
            Ok(connection)
        };
        let connection = open().map_err(DiffError::Scratch)?;
        Ok(Self { connection, pending: 0, counts: Counts::new() })
    }

    /// Adds what a side has. The same thing twice is one: the last stands.
    pub(super) fn add(&mut self, id: Id, is_new: bool, side: &Side) -> Result<(), DiffError> {
        let insert = || {
            let mut insert =
                self.connection.prepare_cached("INSERT OR REPLACE INTO sides VALUES (?1, ?2, ?3, ?4, ?5)")?;
            insert.execute(params![id.bits().to_be_bytes(), is_new, side.digest, side.place, side.facts])?;
            Ok(())
        };
        insert().map_err(DiffError::Scratch)?;
        self.pending += 1;
        if self.pending >= AT_ONCE {
            self.pending = 0;
            self.connection.execute_batch("COMMIT; BEGIN").map_err(DiffError::Scratch)?;
        }
        Ok(())
    }

    /// Judges each thing by what both sides have of it.
    pub(super) fn judge(
        &mut self,
        mut judge: impl FnMut(Option<&Side>, Option<&Side>) -> Result<Judged, DiffError>,
    ) -> Result<(), DiffError> {
        let mut rows = self
            .connection
            .prepare("SELECT id, is_new, digest, place, facts FROM sides ORDER BY id, is_new")
            .map_err(DiffError::Scratch)?;
        let mut rows = rows.query([]).map_err(DiffError::Scratch)?;
        let mut counts = Counts::new();
        let mut held: Option<(Vec<u8>, Side)> = None;
        let mut conclude = |old: Option<&Side>, new: Option<&Side>| -> Result<(), DiffError> {
            match judge(old, new)? {
                Judged::Same => counts.same += 1,
                Judged::Item(item) => {
                    *counts.changes.entry(item.change).or_default() += 1;
                    keep(&self.connection, &item)?;
                }
            }
            Ok(())
        };
        while let Some(row) = rows.next().map_err(DiffError::Scratch)? {
            let read = || {
                let side = Side { digest: row.get(2)?, place: row.get(3)?, facts: row.get(4)? };
                Ok::<_, rusqlite::Error>((row.get::<_, Vec<u8>>(0)?, row.get::<_, bool>(1)?, side))
            };
            let (id, is_new, side) = read().map_err(DiffError::Scratch)?;
            match held.take() {
                Some((known, old)) if is_new && known == id => {
                    conclude(Some(&old), Some(&side))?;
                    continue;
                }
                Some((_, old)) => conclude(Some(&old), None)?,
                None => {}
            }
            if is_new {
                conclude(None, Some(&side))?;
            } else {
                held = Some((id, side));
            }
        }
        if let Some((_, old)) = held {
            conclude(Some(&old), None)?;
        }
        self.counts = counts;
        Ok(())
    }

    /// How many there are of each.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Hands over what is not the same: in the order of the changes and, in each, of scope, type and name; at most so
    /// many of each change. `each` says whether it wants more.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn items(&self, most_of_each: Option<usize>, mut each: impl FnMut(Item) -> bool) -> Result<(), DiffError> {
        let limit = most_of_each.map_or(-1, |most| i64::try_from(most).unwrap_or(i64::MAX));
        for change in Change::ALL {
            let select = "SELECT item FROM items WHERE change = ?1 ORDER BY sort LIMIT ?2";
            let mut rows = self.connection.prepare_cached(select).map_err(DiffError::Scratch)?;
            let mut rows = rows.query(params![change as i64, limit]).map_err(DiffError::Scratch)?;
            while let Some(row) = rows.next().map_err(DiffError::Scratch)? {
                let text: String = row.get(0).map_err(DiffError::Scratch)?;
                // It was written a moment ago.
                let Ok(item) = serde_json::from_str(&text) else { continue };
                if !each(item) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn keep(connection: &Connection, item: &Item) -> Result<(), DiffError> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let sort = [&item.plugin, &text(&item.scope), &text(&item.kind), &text(&item.reference), &text(&item.event)]
        .map(String::as_str)
        .join("\u{0}");
    let json = serde_json::to_string(item).unwrap_or_default();
    let insert = || {
        let mut insert = connection.prepare_cached("INSERT INTO items VALUES (?1, ?2, ?3)")?;
        insert.execute(params![item.change as i64, sort, json])?;
        Ok(())
    };
    insert().map_err(DiffError::Scratch)
}
