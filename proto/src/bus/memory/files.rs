//! A bucket whose entries outlive the process: a file each.
//!
//! The files are the truth, and every look and change goes to them under a lock: several processes of a host may have
//! one folder, and a compare-and-set holds between them, too.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::super::{Bucket, BusError, BusErrorKind, KvEntry};

/// The file that is locked; it holds the last revision, so that one is never given twice.
const LOCK: &str = ".lock";
/// An entry on its way in. Under the lock there is one at most.
const NEW: &str = ".new";
/// The longest name of a file on any usual file system, in bytes.
const LONGEST: usize = 255;

/// The entries of a bucket in a folder. A file begins with a line that holds the entry's revision.
#[derive(Debug)]
pub(super) struct Files {
    bucket: Bucket,
    folder: PathBuf,
}

impl Files {
    /// Those of a bucket below the folder of a host's state; the folder is made.
    pub(super) fn open(state_dir: &Path, bucket: Bucket) -> Result<Self, BusError> {
        let files = Self { bucket, folder: state_dir.join("kv").join(bucket.name()) };
        files.make_folder().map_err(|error| files.failed("make", &error))?;
        files.lock()?;
        Ok(files)
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<KvEntry>, BusError> {
        let path = self.path(key)?;
        // A file is replaced whole: whoever reads needs no lock.
        read(&path, key).map_err(|error| self.failed("read", &error))
    }

    /// The entries whose keys begin so.
    pub(super) fn entries(&self, prefix: &str) -> Result<Vec<KvEntry>, BusError> {
        let failed = |error: io::Error| self.failed("read", &error);
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.folder).map_err(failed)? {
            let name = file.map_err(failed)?.file_name();
            let Some(key) = name.to_str().filter(|name| name.starts_with(prefix) && !name.starts_with('.')) else {
                continue;
            };
            entries.extend(read(&self.folder.join(key), key).map_err(failed)?);
        }
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(entries)
    }

    /// Sets an entry if `check` agrees with the revision that is there. It is on the disk when this returns.
    pub(super) fn set(
        &self,
        key: &str,
        value: Bytes,
        check: impl FnOnce(Option<u64>) -> bool,
    ) -> Result<KvEntry, BusError> {
        let path = self.path(key)?;
        let failed = |error: io::Error| self.failed("write", &error);
        let lock = self.lock()?;
        if !check(read(&path, key).map_err(failed)?.map(|entry| entry.revision)) {
            let text = format!("the key {key} of {} was changed by somebody else", self.bucket.name());
            return Err(BusError::new(BusErrorKind::Conflict, text));
        }
        let revision = self.next_revision(&lock)?;
        self.write(&path, revision, &value).map_err(failed)?;
        Ok(KvEntry { key: key.to_owned(), value, revision })
    }

    /// Removes an entry; false when there is none.
    pub(super) fn remove(&self, key: &str) -> Result<bool, BusError> {
        let path = self.path(key)?;
        let _lock = self.lock()?;
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("remove", &error)),
        }
    }

    fn write(&self, path: &Path, revision: u64, value: &[u8]) -> io::Result<()> {
        let new = self.folder.join(NEW);
        // What a crash has left may be anybody's to read.
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
        file.write_all(format!("{revision}\n").as_bytes())?;
        file.write_all(value)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // The name is on the disk only when the folder is.
        File::open(&self.folder)?.sync_all()
    }

    /// The lock of the folder, held until the file is dropped.
    fn lock(&self) -> Result<File, BusError> {
        let open = || {
            let mut options = OpenOptions::new();
            options.create(true).read(true).write(true).truncate(false).mode(0o600).open(self.folder.join(LOCK))
        };
        let locked = open().and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| self.failed("lock", &error))
    }

    fn next_revision(&self, lock: &File) -> Result<u64, BusError> {
        let failed = |error: io::Error| self.failed("write", &error);
        let mut bytes = [0; 8];
        let last = match lock.read_exact_at(&mut bytes, 0) {
            Ok(()) => u64::from_be_bytes(bytes),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.entries("")?.iter().map(|entry| entry.revision).max().unwrap_or(0)
            }
            Err(error) => return Err(failed(error)),
        };
        lock.write_all_at(&(last + 1).to_be_bytes(), 0).map_err(failed)?;
        Ok(last + 1)
    }

    fn path(&self, key: &str) -> Result<PathBuf, BusError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=.".contains(&byte);
        if key.is_empty() || key.starts_with('.') || key.len() > LONGEST || !key.bytes().all(legal) {
            let text = format!("{key:?} cannot be a key of {}: it is no name of a file", self.bucket.name());
            return Err(BusError::new(BusErrorKind::Unsupported, text));
        }
        Ok(self.folder.join(key))
    }

    fn failed(&self, what: &str, error: &io::Error) -> BusError {
        let text = format!(
            "cannot {what} what this host keeps from run to run, in {}: {error}; `CM_STATE_DIR` names another folder",
            self.folder.display()
        );
        BusError::new(BusErrorKind::Unsupported, text)
    }
}

fn read(path: &Path, key: &str) -> io::Result<Option<KvEntry>> {
    let mut content = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut content)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let line = content.iter().position(|byte| *byte == b'\n').and_then(|end| Some((end, content.get(..end)?)));
    let revision = line.and_then(|(end, line)| Some((end, std::str::from_utf8(line).ok()?.parse().ok()?)));
    let Some((end, revision)) = revision else {
        let text = format!("{} is no entry of a bucket; remove it", path.display());
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    };
    Ok(Some(KvEntry { key: key.to_owned(), value: Bytes::from(content).slice(end + 1..), revision }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn files(folder: &Path) -> Files {
        Files::open(folder, Bucket::Checkpoints).unwrap()
    }

    #[test]
    fn what_one_process_sets_another_sees_and_must_not_overwrite() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (files(folder.path()), files(folder.path()));
        let first = one.set("a.b", "1".into(), |there| there.is_none()).unwrap();
        assert_eq!(other.get("a.b").unwrap(), Some(first.clone()));
        let second = other.set("a.b", "2\n3".into(), |there| there == Some(first.revision)).unwrap();
        assert!(second.revision > first.revision);
        let lost = one.set("a.b", "4".into(), |there| there == Some(first.revision)).unwrap_err();
        assert_eq!(lost.kind(), BusErrorKind::Conflict);
        assert_eq!(one.entries("a.").unwrap(), std::slice::from_ref(&second));
        assert!(one.entries("b").unwrap().is_empty());
        // A revision is never given twice, not even to a key that was removed.
        assert!(one.remove("a.b").unwrap() && !one.remove("a.b").unwrap());
        assert!(other.set("a.b", "5".into(), |there| there.is_none()).unwrap().revision > second.revision);
    }

    #[test]
    fn a_file_is_its_owners_alone_and_holds_what_was_put() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        // What a crash has left does no harm.
        fs::write(files.folder.join(NEW), "rubbish").unwrap();
        files.set("key", Bytes::from_static(&[0, 255, b'\n']), |_| true).unwrap();
        assert_eq!(files.get("key").unwrap().unwrap().value, [0, 255, b'\n'].as_slice());
        let modes = [files.folder.join("key"), files.folder.clone()]
            .map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o777);
        assert_eq!(modes, [0o600, 0o700]);
        assert_eq!(files.entries("").unwrap().len(), 1);
        for wrong in ["", ".lock", "../key", "a/b"] {
            assert!(files.set(wrong, Bytes::new(), |_| true).is_err(), "{wrong}");
        }
        fs::write(files.folder.join("key"), "rubbish").unwrap();
        assert!(files.get("key").unwrap_err().to_string().contains("no entry"));
    }

    #[test]
    fn changes_at_once_are_made_one_after_another() {
        let folder = tempfile::tempdir().unwrap();
        let count = || {
            let files = files(folder.path());
            for _ in 0..20 {
                loop {
                    let there = files.get("n").unwrap();
                    let (n, revision) = there.map_or((0, None), |entry| {
                        (std::str::from_utf8(&entry.value).unwrap().parse::<u32>().unwrap(), Some(entry.revision))
                    });
                    if files.set("n", (n + 1).to_string().into(), |there| there == revision).is_ok() {
                        break;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(count);
            }
        });
        assert_eq!(files(folder.path()).get("n").unwrap().unwrap().value, "80".as_bytes());
    }
}
