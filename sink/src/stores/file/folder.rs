//! The folder of a FileStore: whose it is, and how a file gets its name.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::subject::Version;

/// How long another worker may hold the folder's lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// The name of a file in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// What it is of.
    pub stem: String,
    /// What tells its form: `json`.
    pub ending: &'static str,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stem, self.ending)
    }
}

/// A folder that is ours.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens a folder, creating it if need be.
    ///
    /// # Errors
    /// When it cannot be created, is no folder, is a symbolic link, or belongs to somebody else; for people.
    pub fn open(path: PathBuf) -> Result<Self, String> {
        // Without a slash at its end: one makes the system look behind a symbolic link.
        let path: PathBuf = path.components().collect();
        if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&path)
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(format!("cannot create the folder {}: {error}; set `path` to another one", path.display()));
        }
        let folder = Self { path };
        folder.must_be_ours(&folder.path, "folder")?;
        let metadata =
            folder.path.symlink_metadata().map_err(|error| folder.cannot("look at", &folder.path, &error))?;
        if !metadata.is_dir() {
            return Err(format!("{} is not a folder; set `path` to one", folder.path.display()));
        }
        Ok(folder)
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a file under a name that nobody looks at.
    ///
    /// # Errors
    /// When it cannot be created, or when the file that it is to become is not ours; for people.
    pub fn create_temporary(&self, name: &Name, version: &Version) -> Result<(PathBuf, File), String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let stem = name.stem.as_str();
        self.must_be_ours(&self.named(name), "file")?;
        self.remove_abandoned(stem);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // In containers, processes of different workers often have one number.
        let nonce = RandomState::new().hash_one(stem);
        let path = self.path.join(format!(".{stem}.{version}.{}-{count}-{nonce:016x}.tmp", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .map_err(|error| self.cannot("create", &path, &error))?;
        // Locked for as long as somebody writes it: see `remove_abandoned`.
        file.lock().map_err(|error| self.cannot("lock", &path, &error))?;
        Ok((path, file))
    }

    /// Removes what a worker that was killed has left: files that nobody writes any more. On a large estate each
    /// would be gigabytes.
    fn remove_abandoned(&self, stem: &str) {
        let prefix = format!(".{stem}.");
        let Ok(entries) = std::fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // `.<stem>.<version>.<process>-<count>.tmp`; a longer stem that begins like ours has no version there.
            let Some(rest) = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".tmp")) else { continue };
            if Version::new(rest.split('.').next().unwrap_or_default()).is_err() {
                continue;
            }
            let is_abandoned = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
            if is_abandoned && let Err(error) = std::fs::remove_file(entry.path()) {
                tracing::debug!(%error, file = %entry.path().display(), "cannot remove an abandoned file");
            }
        }
    }

    /// Gives a written file its name, unless a newer version has it: then the file stands beside it. Under the lock.
    ///
    /// # Errors
    /// When it cannot be renamed; for people.
    pub fn publish(&self, temporary: &Path, name: &Name, version: &Version) -> Result<(), String> {
        let Name { stem, ending } = name;
        let marker = self.path.join(match *ending {
            "json" => format!(".{stem}.version"),
            ending => format!(".{stem}.{ending}.version"),
        });
        self.must_be_ours(&marker, "file")?;
        let there = match std::fs::read_to_string(&marker) {
            Ok(text) => Version::new(text.trim()).ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(self.cannot("read", &marker, &error)),
        };
        if there.as_ref().is_some_and(|there| there > version) && self.named(name).exists() {
            let beside = self.path.join(format!("{stem}.{version}.{ending}"));
            tracing::warn!(file = %beside.display(), "a newer version has the name: this one stands beside it");
            return self.rename(temporary, &beside);
        }
        let named = self.named(name);
        self.must_be_ours(&named, "file")?;
        // The marker first: whoever comes between the two sees a file that is no newer than it says.
        let marker_temporary = temporary.with_extension("version");
        write_new(&marker_temporary, format!("{version}\n").as_bytes())
            .map_err(|error| self.cannot("write", &marker_temporary, &error))?;
        self.rename(&marker_temporary, &marker)?;
        self.rename(temporary, &named)
    }

    /// Makes the names durable.
    ///
    /// # Errors
    /// When the folder cannot be synced; for people.
    pub fn sync(&self) -> Result<(), String> {
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| self.cannot("sync", &self.path, &error))
    }

    /// Locks the folder against other workers; unlocked when the file is dropped.
    ///
    /// # Errors
    /// When another worker holds it for too long; for people.
    pub fn lock(&self) -> Result<File, String> {
        let path = self.path.join(".cloudmarker.lock");
        self.must_be_ours(&path, "file")?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o644)
            .open(&path)
            .map_err(|error| self.cannot("open", &path, &error))?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) if began.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(format!("another worker holds {} for too long", path.display()));
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(self.cannot("lock", &path, &error)),
            }
        }
    }

    fn named(&self, name: &Name) -> PathBuf {
        self.path.join(name.to_string())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), String> {
        std::fs::rename(from, to).map_err(|error| self.cannot("write", to, &error))
    }

    /// Refuses what is a symbolic link or belongs to somebody else: in a folder like /tmp anybody can put it there.
    fn must_be_ours(&self, path: &Path, what: &str) -> Result<(), String> {
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.cannot("look at", path, &error)),
        };
        let path = path.display();
        if metadata.is_symlink() {
            return Err(format!("the {what} {path} is a symbolic link; remove it, or set `path` to another folder"));
        }
        let us = rustix::process::geteuid().as_raw();
        if metadata.uid() != us {
            let owner = metadata.uid();
            return Err(format!(
                "the {what} {path} belongs to another user (uid {owner}, this is {us}); set `path` to another folder"
            ));
        }
        Ok(())
    }

    fn cannot(&self, what: &str, path: &Path, error: &std::io::Error) -> String {
        format!("cannot {what} {}: {error}; check the folder's permissions and space", path.display())
    }
}

/// Writes a file that must not be there, through to the disk.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
