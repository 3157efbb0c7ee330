//! The file: its tables, its one writer, and what its errors mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto::subject::Version;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, ffi, params};

use super::row::Row;
use crate::store::{Document, Pruning, StoreError, Written};

/// How long another process may be writing.
const BUSY: Duration = Duration::from_secs(20);
/// How many documents of old versions go at once, so that a run that writes meanwhile does not wait long.
const PRUNED_AT_ONCE: usize = 5_000;
/// How many record types get a view.
const MOST_VIEWS: usize = 1_000;

/// How long the log gets before it is brought into the file, in pages: 64 MiB.
const LONG_LOG: usize = 2048;
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Large pages hold several documents each; writing takes half the time that it takes with the default of 4 KiB.
///
/// What is acknowledged survives a power failure: [`Database::write`] itself has the log on the disk before it returns.
/// `synchronous = NORMAL` leaves that to it, so that it can be done while the next documents are written, and leaves
/// to SQLite what keeps the file whole. The log is brought into the file by [`Database::checkpoint`].
const SETTINGS: &str = "
    PRAGMA page_size = 32768;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA cache_size = -16000;
";

/// It has to have read before it knows that there is a log.
const SETTINGS_OF_CHECKPOINTER: &str = "
    PRAGMA synchronous = NORMAL;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA cache_size = -512;
    SELECT count(*) FROM sqlite_schema;
";

/// `account` is the subscription, project or account; `origin` the plugin that made it.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS documents (
        id TEXT NOT NULL PRIMARY KEY,
        audit TEXT NOT NULL,
        version TEXT NOT NULL,
        record_type TEXT NOT NULL,
        cloud_type TEXT,
        account TEXT,
        reference TEXT,
        origin TEXT,
        severity TEXT,
        is_event INTEGER NOT NULL,
        is_permanent INTEGER NOT NULL,
        document TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS documents_of_version ON documents (audit, version, record_type);
    CREATE INDEX IF NOT EXISTS documents_of_type ON documents (record_type);
    CREATE INDEX IF NOT EXISTS documents_of_cloud ON documents (cloud_type) WHERE cloud_type IS NOT NULL;
    CREATE INDEX IF NOT EXISTS documents_of_origin ON documents (origin);
    CREATE INDEX IF NOT EXISTS documents_of_account ON documents (account) WHERE account IS NOT NULL;
    CREATE INDEX IF NOT EXISTS documents_of_reference ON documents (reference) WHERE reference IS NOT NULL;
    CREATE INDEX IF NOT EXISTS documents_of_severity ON documents (severity) WHERE severity IS NOT NULL;
    CREATE INDEX IF NOT EXISTS documents_that_are_events ON documents (version) WHERE is_event;
";

const WRITE: &str = "
    INSERT INTO documents (id, audit, version, record_type, cloud_type, account, reference, origin, severity,
        is_event, is_permanent, document)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
    ON CONFLICT (id) DO UPDATE SET audit = ?2, version = ?3, record_type = ?4, cloud_type = ?5, account = ?6,
        reference = ?7, origin = ?8, severity = ?9, is_event = ?10, is_permanent = ?11, document = ?12
";

/// An inventory's file.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    log: Arc<Log>,
    /// The record types that have a view.
    viewed: BTreeSet<String>,
}

/// What is committed stands here first.
#[derive(Debug)]
struct Log {
    /// To have it on the disk. It is there, and the same file, for as long as a connection is.
    file: File,
    /// How long it is.
    pages: AtomicUsize,
    /// A connection of its own to bring it into the file, while the other writes.
    checkpointer: Mutex<Connection>,
}

impl Database {
    /// The one of a path: shared by all that name it in this process.
    pub(super) fn of(path: PathBuf) -> Arc<Self> {
        static KNOWN: Mutex<BTreeMap<PathBuf, Weak<Database>>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = known.get(&path).and_then(Weak::upgrade) {
            return database;
        }
        known.retain(|_, database| database.strong_count() > 0);
        let database = Arc::new(Self { path: path.clone(), open: Mutex::new(None) });
        known.insert(path, Arc::downgrade(&database));
        database
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file, making what has to be there.
    pub(super) fn open(&self) -> Result<(), StoreError> {
        self.with(|_| Ok(()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        // A connection that panicked has rolled back what it was doing.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Open) -> Result<T, rusqlite::Error>) -> Result<T, StoreError> {
        let mut open = self.lock();
        let worked = match &mut *open {
            Some(there) => work(there),
            None => {
                self.make_folder()?;
                let mut there = self.try_open().map_err(|error| self.explain(&error))?;
                let worked = work(&mut there);
                *open = Some(there);
                worked
            }
        };
        worked.map_err(|error| {
            *open = None; // begin anew: the file may have been replaced
            self.explain(&error)
        })
    }

    fn make_folder(&self) -> Result<(), StoreError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| {
            let folder = folder.display();
            StoreError::Permanent(format!("cannot create the folder {folder}: {error}; set `path` to another file"))
        })
    }

    fn try_open(&self) -> Result<Open, rusqlite::Error> {
        let mut connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY)?;
        connection.execute_batch(SETTINGS)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(SCHEMA)?;
        transaction.commit()?;
        let log = Arc::new(self.open_log()?);
        let hooked = Arc::clone(&log);
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            hooked.pages.store(usize::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Open { connection, log, viewed: BTreeSet::new() })
    }

    /// The log, which is there by now.
    fn open_log(&self) -> Result<Log, rusqlite::Error> {
        let open = || {
            // SQLite follows symbolic links, and has the log beside what they point to.
            let mut name = std::fs::canonicalize(&self.path)?.into_os_string();
            name.push("-wal");
            let path = PathBuf::from(name);
            // Its name shall survive a power failure, too.
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
            File::open(path)
        };
        let file = open().map_err(|error| cannot_sync(&error))?;
        let checkpointer = Connection::open(&self.path)?;
        checkpointer.busy_timeout(BUSY)?;
        checkpointer.execute_batch(SETTINGS_OF_CHECKPOINTER)?;
        Ok(Log { file, pages: AtomicUsize::new(0), checkpointer: Mutex::new(checkpointer) })
    }

    /// Writes documents in one transaction. When it returns, they are on the disk.
    pub(super) fn write(&self, documents: &[Document]) -> Result<Written, StoreError> {
        let (written, log) = self.commit(documents)?;
        // While this one waits for the disk, others write.
        log.file.sync_data().map_err(|error| self.explain(&cannot_sync(&error)))?;
        if log.pages.load(Ordering::Relaxed) >= LONG_LOG
            && let Err(error) = self.checkpoint(&log)
        {
            // What was to be stored is: in the log, from which all read it.
            tracing::warn!(path = %self.path.display(), %error, "the log cannot be brought into the file now");
        }
        Ok(written)
    }

    /// Brings the log into the file: most of it while others write, and the rest, which has come meanwhile, while
    /// nobody does. Only then does the log begin anew.
    fn checkpoint(&self, log: &Log) -> Result<(), StoreError> {
        let Ok(checkpointer) = log.checkpointer.try_lock() else { return Ok(()) };
        checkpointer.query_row(CHECKPOINT, [], |_| Ok(())).map_err(|error| self.explain(&error))?;
        self.with(|open| open.connection.query_row(CHECKPOINT, [], |_| Ok(())))?;
        log.pages.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Commits documents, which are in the log then, though perhaps not on the disk.
    fn commit(&self, documents: &[Document]) -> Result<(Written, Arc<Log>), StoreError> {
        // Reading the columns out of the JSON needs no turn at the file.
        let rows: Vec<Result<Row<'_>, String>> = documents.iter().map(Row::of).collect();
        self.with(|open| {
            let mut written = Written::default();
            let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut types = BTreeSet::new();
            {
                let mut insert = transaction.prepare_cached(WRITE)?;
                for (place, row) in rows.iter().enumerate() {
                    let refusal = match row {
                        Ok(row) => match execute(&mut insert, row) {
                            Ok(()) => {
                                if !open.viewed.contains(&row.document.record_type) {
                                    types.insert(row.document.record_type.clone());
                                }
                                continue;
                            }
                            Err(error) if is_of_the_document(&error) => error.to_string(),
                            Err(error) => return Err(error),
                        },
                        Err(reason) => reason.clone(),
                    };
                    written.refused.push((place, refusal));
                }
            }
            types.retain(|record_type| !record_type.is_empty() && !record_type.contains('\0'));
            if open.viewed.len() + types.len() <= MOST_VIEWS {
                for record_type in &types {
                    transaction.execute_batch(&view_of(record_type))?;
                }
            }
            transaction.commit()?;
            open.viewed.extend(types);
            Ok((written, Arc::clone(&open.log)))
        })
    }

    /// Removes what is not to be kept; how many documents went.
    pub(super) fn prune(&self, pruning: &Pruning) -> Result<u64, StoreError> {
        let versions = self.with(|open| {
            let mut versions =
                open.connection.prepare("SELECT DISTINCT version FROM documents WHERE audit = ?1 AND version < ?2")?;
            let rows = versions.query_map([pruning.audit.as_str(), pruning.before.as_str()], |row| row.get(0))?;
            rows.collect::<Result<Vec<String>, _>>()
        })?;
        let mut gone = 0;
        for version in versions {
            // What is no version was not written by this store.
            if Version::new(&version).is_ok_and(|version| pruning.goes(&version)) {
                gone += self.delete(pruning, "audit = ?1 AND version = ?2 AND NOT is_permanent", &version)?;
            }
        }
        if let Some(days) = pruning.permanent_days {
            let before = Version::at(Timestamp::now() - SignedDuration::from_hours(i64::from(days) * 24));
            gone += self.delete(pruning, "audit = ?1 AND version < ?2 AND is_permanent", before.as_str())?;
        }
        Ok(gone)
    }

    fn delete(&self, pruning: &Pruning, which: &str, version: &str) -> Result<u64, StoreError> {
        let delete = format!(
            "DELETE FROM documents WHERE rowid IN (SELECT rowid FROM documents WHERE {which} LIMIT {PRUNED_AT_ONCE})"
        );
        let mut gone = 0;
        loop {
            match self.with(|open| open.connection.execute(&delete, [pruning.audit.as_str(), version]))? {
                0 => return Ok(gone),
                some => gone += some as u64,
            }
        }
    }

    /// What an error means.
    fn explain(&self, error: &rusqlite::Error) -> StoreError {
        let path = self.path.display();
        let rusqlite::Error::SqliteFailure(failure, _) = error else {
            return StoreError::Permanent(format!("cannot use {path}: {error}"));
        };
        match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Transient {
                reason: format!("{path} is being written by another process ({error})"),
                wait: None,
            },
            ErrorCode::DiskFull => StoreError::Transient {
                reason: format!("cannot write {path}: {error}; make room on the disk"),
                wait: None,
            },
            ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::SchemaChanged => {
                StoreError::Transient { reason: format!("cannot write {path}: {error}"), wait: None }
            }
            ErrorCode::TooBig => StoreError::TooLarge(format!("{path}: {error}")),
            ErrorCode::NotADatabase => {
                StoreError::Permanent(format!("{path} is a file of another kind ({error}); set `path` to another one"))
            }
            ErrorCode::DatabaseCorrupt => StoreError::Permanent(format!(
                "{path} is damaged ({error}); restore it, or remove it and begin a new inventory"
            )),
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
                StoreError::Permanent(format!(
                    "cannot write {path}: {error}; check the permissions of the file and its folder, or set `path` to \
                 another file"
                ))
            }
            _ => StoreError::Permanent(format!("cannot use {path}: {error}; is its table another program's?")),
        }
    }
}

fn execute(insert: &mut rusqlite::CachedStatement<'_>, row: &Row<'_>) -> Result<(), rusqlite::Error> {
    let (document, common) = (row.document, &row.common);
    insert.execute(params![
        document.id,
        document.audit.as_str(),
        document.version.as_str(),
        document.record_type,
        common.cloud_type,
        row.account,
        common.reference,
        common.origin,
        row.severity,
        row.is_event,
        row.is_permanent,
        row.json,
    ])?;
    Ok(())
}

/// An error of the file system as SQLite has it.
fn cannot_sync(error: &std::io::Error) -> rusqlite::Error {
    let code = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ffi::SQLITE_FULL,
        ErrorKind::PermissionDenied => ffi::SQLITE_PERM,
        _ => ffi::SQLITE_IOERR,
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string()))
}

/// Whether an error is of one document, and the others are not concerned.
fn is_of_the_document(error: &rusqlite::Error) -> bool {
    let codes = [ErrorCode::TooBig, ErrorCode::ConstraintViolation, ErrorCode::TypeMismatch];
    error.sqlite_error_code().is_some_and(|code| codes.contains(&code))
}

/// The statement that makes the view of a record type.
fn view_of(record_type: &str) -> String {
    let is_taken = record_type.eq_ignore_ascii_case("documents")
        || record_type.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"));
    let name = if is_taken { format!("_{record_type}") } else { record_type.to_owned() };
    format!(
        "CREATE VIEW IF NOT EXISTS \"{}\" AS SELECT id, audit, version, cloud_type, account, reference, origin, \
         severity, is_event, json_extract(document, '$.raw') AS raw, json_extract(document, '$.ext') AS ext, \
         json_extract(document, '$.com') AS com, document FROM documents WHERE record_type = '{}';",
        name.replace('"', "\"\""),
        record_type.replace('\'', "''")
    )
}
