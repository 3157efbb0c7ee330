//! `FileStore`: one file for each cloud or event plugin of the audit, with one document a line: a JSON array, or without
//! the array's brackets and commas (`format: jsonl`); as it is, or compressed (`compress: zstd`).
//!
//! A file is valid under its name at every moment: the new one is written beside it, synced, and renamed when the
//! version ends. It is never replaced by an older version's: a worker that slept and woke leaves its own beside it.

mod folder;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use async_trait::async_trait;
use proto::bus::{Message, SharedBus};
use proto::catalogue::{ParamError, PluginClass, in_one_line};
use proto::config::{Environment, params};
use proto::exclusive::{Delivery, Exclusive, ExclusiveError};
use proto::frame;
use proto::identity::IdSet;
use proto::plan::{PluginSpec, Stage};
use proto::record::{self, RecordView, Target};
use proto::status::{self, DeadLetter};
use proto::subject::{self, Key, Role, Version};
use serde::Deserialize;
use serde_json::Value;

use crate::batch::budget::{Budget, SetAside};
use crate::registry::Context;
use folder::{Folder, Name};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.stores.filestore.FileStore",
    roles: &[Role::Store, Role::Alert],
    stage: Stage::Sink,
    exclusive: true,
    pool: None,
    check: Some(&check),
};

/// Where files are written unless the parameters say otherwise.
const DEFAULT_PATH: &str = "/tmp/cloudmarker";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// The folder.
    path: String,
    /// How the documents stand in a file.
    format: Format,
    /// How a file is compressed.
    compress: Compress,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// A JSON array with one document a line.
    #[default]
    Json,
    /// One document a line.
    Jsonl,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Compress {
    #[default]
    None,
    Zstd,
}

impl Params {
    /// The ending of the files' names.
    fn ending(&self) -> &'static str {
        match (self.format, self.compress) {
            (Format::Json, Compress::None) => "json",
            (Format::Json, Compress::Zstd) => "json.zst",
            (Format::Jsonl, Compress::None) => "jsonl",
            (Format::Jsonl, Compress::Zstd) => "jsonl.zst",
        }
    }
}

impl Default for Params {
    fn default() -> Self {
        Self { path: DEFAULT_PATH.to_owned(), format: Format::Json, compress: Compress::None }
    }
}

fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    let read: Params = params::read(value)?;
    if read.path.is_empty() {
        let message = "found an empty text; the path of a folder is expected".to_owned();
        return Err(vec![ParamError { path: "path".into(), message }]);
    }
    Ok(())
}

/// The files that a plugin with these parameters writes for an audit: one per origin. For a check that no two write
/// the same.
///
/// # Errors
/// Every parameter that is not as it should be.
pub fn files(audit: &Key, origins: &[Key], value: &Value) -> Result<Vec<PathBuf>, Vec<ParamError>> {
    let read: Params = params::read(value)?;
    let folder = Environment::of_process().path(&read.path);
    Ok(origins.iter().map(|origin| folder.join(name(audit, origin, &read).to_string())).collect())
}

/// The name of a file. Tokens have no `/` and no `.`.
fn name(audit: &Key, origin: &Key, params: &Params) -> Name {
    Name { stem: format!("{}_{}", audit.token(), origin.token()), ending: params.ending() }
}

/// Builds the store of its parameters, and opens its folder.
///
/// # Errors
/// When the folder cannot be used, for people.
pub fn build(context: Context<'_>) -> Result<Box<dyn Exclusive>, String> {
    let read: Params = params::read(context.params).map_err(|errors| in_one_line(&errors))?;
    let (plan, spec) = (context.plan, context.spec);
    let folder = Folder::open(Environment::of_process().path(&read.path))?;
    let mut outputs = BTreeMap::new();
    for origin in plan.origins(spec.role) {
        let output = Output::create(&folder, name(&plan.audit, origin, &read), &read, &plan.version)?;
        outputs.insert(origin.clone(), output);
    }
    let buffers = READ + outputs.len() * WRITE_BYTES * 5 / 4;
    Ok(Box::new(FileStore {
        bus: context.bus.clone(),
        audit: plan.audit.clone(),
        version: plan.version.clone(),
        spec: spec.clone(),
        target: Target::new(&plan.audit, &spec.key, &spec.class, spec.role),
        folder,
        outputs,
        _buffers: Budget::of_process().set_aside(buffers),
        seen: IdSet::default(),
    }))
}

struct FileStore {
    bus: SharedBus,
    audit: Key,
    version: Version,
    spec: PluginSpec,
    target: Target,
    folder: Folder,
    outputs: BTreeMap<Key, Output>,
    seen: IdSet,
    /// What it holds is not for other stores.
    _buffers: SetAside,
}

/// A file that is being written, under its temporary name.
struct Output {
    name: Name,
    temporary: PathBuf,
    file: Writer,
    format: Format,
    /// What is not yet written.
    buffer: Vec<u8>,
    documents: u64,
}

/// How much is written at once, in bytes.
const WRITE_BYTES: usize = 256 * 1024;

/// How hard is compressed: much faster than documents come, and not much larger than with the next levels.
const ZSTD_LEVEL: i32 = 3;

/// What a reader has in its buffer, in bytes of compressed frames, and what one of these becomes.
const READ: usize = 9 * 1024 * 1024;

/// A file, compressed or not. A thread of its own for each was measured and gained nothing: what was written was in the
/// system's memory as soon as it was handed over.
enum Writer {
    Plain(File),
    Zstd(Box<zstd::Encoder<'static, File>>),
}

impl Writer {
    fn new(file: File, compress: Compress) -> std::io::Result<Self> {
        Ok(match compress {
            Compress::None => Self::Plain(file),
            Compress::Zstd => {
                let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Ends the file and has it on the disk.
    fn end(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(file) => file.sync_all(),
            Self::Zstd(encoder) => {
                encoder.do_finish()?;
                encoder.get_ref().sync_all()
            }
        }
    }
}

impl Output {
    fn create(folder: &Folder, name: Name, params: &Params, version: &Version) -> Result<Self, String> {
        let (temporary, file) = folder.create_temporary(&name, version)?;
        let file = Writer::new(file, params.compress)
            .map_err(|error| format!("cannot compress {}: {error}", temporary.display()))?;
        Ok(Self { name, temporary, file, format: params.format, buffer: Vec::new(), documents: 0 })
    }

    fn write(&mut self, record: &RecordView<'_>, target: &Target) -> Result<(), WriteError> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(match (self.format, self.documents) {
            (Format::Json, 0) => b"[\n",
            (Format::Json, _) => b",\n",
            (Format::Jsonl, _) => b"",
        });
        if let Err(error) = record::write_document(&mut self.buffer, record, target) {
            self.buffer.truncate(start);
            return Err(WriteError::Record(error));
        }
        if self.format == Format::Jsonl {
            self.buffer.push(b'\n');
        }
        self.documents += 1;
        if self.buffer.len() >= WRITE_BYTES { self.flush().map_err(WriteError::File) } else { Ok(()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.buffer.extend_from_slice(match (self.format, self.documents) {
            (Format::Json, 0) => b"[]\n",
            (Format::Json, _) => b"\n]\n",
            (Format::Jsonl, _) => b"",
        });
        self.flush()?;
        self.file.end()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // After it was renamed there is nothing to remove.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

enum WriteError {
    /// The record is not one.
    Record(record::WriteError),
    /// The file cannot be written.
    File(std::io::Error),
}

#[async_trait]
impl Exclusive for FileStore {
    async fn accept(&mut self, message: &Message) -> Result<(), ExclusiveError> {
        let Some((_, _, origin)) = subject::parse(&message.subject) else { return Ok(()) };
        let body = match frame::open(message) {
            Ok(body) => body,
            Err(error) => return self.bury(message, &origin, error.to_string(), &message.payload).await,
        };
        for line in frame::lines(&body) {
            if let Some(reason) = self.keep(&origin, line)? {
                self.bury(message, &origin, reason, line).await?;
            }
        }
        Ok(())
    }

    async fn finish(&mut self, _revision: u64) -> Result<Delivery, ExclusiveError> {
        let outputs = std::mem::take(&mut self.outputs);
        let (folder, version) = (self.folder.clone(), self.version.clone());
        let ended = tokio::task::spawn_blocking(move || end_all(&folder, &version, outputs));
        let documents = ended.await.map_err(|error| ExclusiveError::Transient(error.to_string()))??;
        Ok(Delivery { documents, place: self.folder.path().display().to_string() })
    }
}

impl FileStore {
    /// Writes a document once; says why when the line is not one.
    fn keep(&mut self, origin: &Key, line: &[u8]) -> Result<Option<String>, ExclusiveError> {
        let Some(output) = self.outputs.get_mut(origin) else {
            return Ok(Some(format!("the plan has no plugin {origin}")));
        };
        let (record, id) = match RecordView::parse(line).and_then(|record| Ok((record, record.id()?))) {
            Ok(parsed) => parsed,
            Err(error) => return Ok(Some(format!("not a document: {error}"))),
        };
        if !self.seen.insert(id) {
            return Ok(None);
        }
        match output.write(&record, &self.target) {
            Ok(()) => Ok(None),
            Err(WriteError::Record(error)) => Ok(Some(error.to_string())),
            Err(WriteError::File(error)) => {
                Err(ExclusiveError::Transient(format!("cannot write {}: {error}", output.temporary.display())))
            }
        }
    }

    async fn bury(&self, message: &Message, origin: &Key, reason: String, line: &[u8]) -> Result<(), ExclusiveError> {
        let reason = format!("of {origin}: {reason}");
        let letter = DeadLetter::new(&message.subject, Some(message.seq), reason, 1, line);
        status::bury(&*self.bus, &self.audit, &self.version, self.spec.role, &self.spec.key, &letter)
            .await
            .map_err(|error| ExclusiveError::Transient(error.to_string()))
    }
}

/// Ends all files and gives them their names, under the folder's lock.
fn end_all(folder: &Folder, version: &Version, mut outputs: BTreeMap<Key, Output>) -> Result<u64, ExclusiveError> {
    for output in outputs.values_mut() {
        output.end().map_err(|error| {
            ExclusiveError::Transient(format!("cannot write {}: {error}", output.temporary.display()))
        })?;
    }
    let _lock = folder.lock().map_err(ExclusiveError::Transient)?;
    for output in outputs.values() {
        folder.publish(&output.temporary, &output.name, version).map_err(ExclusiveError::Transient)?;
    }
    folder.sync().map_err(ExclusiveError::Transient)?;
    Ok(outputs.values().map(|output| output.documents).sum())
}
