//! Records as collectors make them: of MockCloud, and of a simulated Azure.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use proto::bus::{Encoding, Outgoing};
use proto::frame::{self, FrameBuilder};
use proto::plan::{Plan, PluginSpec, Stage};
use proto::record::{self, RecordView, Target};
use proto::subject::{self, Key, Role, Version};
use serde::Deserialize;
use sink::store::Document;
use tests::cloudsim::{Cloudsim, Kind};
use tests::harness::Workspace;

use super::super::{PATIENCE, release};
use super::sink_path;

const AUDIT: &str = "audit";
/// The plugins that read the simulated Azure.
const AZURE: [&str; 4] = ["AzCloud", "AzVM", "AzDisk", "AzStorageAccount"];
/// About how many records they make of one of its subscriptions, as it is built here.
const RECORDS_OF_SUBSCRIPTION: usize = 1_800;

/// Records in frames, as they travel.
pub(super) struct Corpus {
    name: &'static str,
    audit: Key,
    version: Version,
    clouds: Vec<Key>,
    frames: Vec<Outgoing>,
    records: usize,
    bytes: usize,
}

impl fmt::Display for Corpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records of {}, {} bytes each on average",
            self.records,
            self.name,
            self.bytes / self.records.max(1)
        )
    }
}

impl Corpus {
    pub(super) async fn of_mock_cloud(records: usize) -> Result<Self> {
        let plugins = format!("  mockcloud: {{params: {{record_count: {records}}}}}\n");
        Self::collect("MockCloud", &plugins, &["mockcloud"], records).await
    }

    pub(super) async fn of_azure(records: usize) -> Result<Self> {
        let cloud = azure(records).await?;
        let plugins: String = AZURE.iter().map(|class| azure_plugin(&cloud, class)).collect();
        let keys = AZURE.map(str::to_ascii_lowercase);
        Self::collect("a simulated Azure", &plugins, &keys.each_ref().map(String::as_str), records).await
    }

    /// Collects as a user does, and makes records again of what the run has stored.
    async fn collect(name: &'static str, plugins: &str, clouds: &[&str], records: usize) -> Result<Self> {
        let configuration = format!(
            "plugins:\n{plugins}  files: {{plugin: FileStore, params: {{path: '{{out}}', format: jsonl}}}}\n\
             audits:\n  {AUDIT}: {{clouds: [{}], stores: [files], events: [], alerts: []}}\nrun: [{AUDIT}]\n",
            clouds.join(", ")
        );
        let workspace = Workspace::new(&configuration)?;
        let mut run = release("coordinator")?.args(["run", "--now"]).current_dir(workspace.path()).start()?;
        run.wait(PATIENCE).await?.with_code(0)?;
        Self::read(name, clouds, &workspace.out(), records)
    }

    fn read(name: &'static str, clouds: &[&str], folder: &Path, most: usize) -> Result<Self> {
        let audit = Key::new(AUDIT)?;
        let clouds: Vec<Key> = clouds.iter().map(|cloud| Key::new(cloud)).collect::<Result<_, _>>()?;
        let mut version = None;
        // Plugins collect at the same time: frames of each come all along.
        let mut frames: Vec<(f64, FrameOf)> = Vec::new();
        for cloud in &clouds {
            let path = folder.join(format!("{}_{}.jsonl", audit.token(), cloud.token()));
            let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let of_version = match &version {
                Some(version) => version,
                None => version.insert(version_of(text.split(|byte| *byte == b'\n').next().unwrap_or_default())?),
            };
            let made = frames_of(&text, &audit, of_version, cloud)?;
            let count = made.len() as f64;
            frames.extend(made.into_iter().enumerate().map(|(at, frame)| (at as f64 / count, frame)));
        }
        frames.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let version = version.context("nothing was collected")?;
        let mut corpus = Self { name, audit, version, clouds, frames: Vec::new(), records: 0, bytes: 0 };
        for (_, frame) in frames {
            if corpus.records < most {
                corpus.records += frame.records;
                corpus.bytes += frame.bytes;
                corpus.frames.push(frame.message);
            }
        }
        ensure!(corpus.records > most / 2, "only {} records of {name} were collected", corpus.records);
        Ok(corpus)
    }

    pub(super) fn len(&self) -> usize {
        self.records
    }

    pub(super) fn frames(&self) -> &[Outgoing] {
        &self.frames
    }

    pub(super) fn audit(&self) -> &Key {
        &self.audit
    }

    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// A plan with this plugin alone.
    pub(super) fn plan(&self, spec: &PluginSpec) -> Plan {
        Plan {
            audit: self.audit.clone(),
            version: self.version.clone(),
            plugins: vec![spec.clone()],
            clouds: self.clouds.clone(),
            events: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// The first frames of it, with so many records.
    pub(super) fn first(&self, most: usize) -> Result<Self> {
        let mut first = Self {
            name: self.name,
            audit: self.audit.clone(),
            version: self.version.clone(),
            clouds: self.clouds.clone(),
            frames: Vec::new(),
            records: 0,
            bytes: 0,
        };
        for message in &self.frames {
            if first.records >= most {
                break;
            }
            let body = frame::open(&message.clone().into_message())?;
            first.records += frame::lines(&body).count();
            first.bytes += body.len();
            first.frames.push(message.clone());
        }
        Ok(first)
    }

    /// The documents that a store of this class is to have.
    pub(super) fn documents(&self, class: &str) -> Result<Vec<Document>> {
        let spec = sink_path::spec(class, serde_json::Value::Null)?;
        let target = Target::new(&self.audit, &spec.key, &spec.class, Role::Store);
        let mut documents = Vec::with_capacity(self.records);
        for message in &self.frames {
            let body = frame::open(&message.clone().into_message())?;
            for line in frame::lines(&body) {
                let record = RecordView::parse(line)?;
                let mut text = Vec::with_capacity(line.len() + 128);
                record::write_document(&mut text, &record, &target)?;
                documents.push(Document {
                    id: record.id()?.to_string(),
                    record_type: String::new(), // plain loops have no use for it
                    audit: self.audit.clone(),
                    version: self.version.clone(),
                    body: text.into(),
                });
            }
        }
        Ok(documents)
    }
}

/// A simulated Azure of which about so many records are made.
pub(super) async fn azure(records: usize) -> Result<Cloudsim> {
    Cloudsim::builder()
        .subscriptions(records.div_ceil(RECORDS_OF_SUBSCRIPTION).max(1))
        .nsgs(100)
        .rules(8)
        .machines(200)
        .disks(200)
        .network_interfaces(200)
        .storage_accounts(50)
        .count(Kind::WebApp, 0)
        .page_size(500)
        .start()
        .await
}

/// A plugin of the simulated Azure, by the key of its class in small letters.
pub(super) fn azure_plugin(cloud: &Cloudsim, class: &str) -> String {
    let key = class.to_ascii_lowercase();
    format!(
        "  {key}:\n    plugin: {class}\n    params: {{tenant: '{}', client: '{}', secret: '{}', login_endpoint: '{url}', \
         arm_endpoint: '{url}'}}\n",
        cloud.tenant(),
        cloud.client_id(),
        cloud.client_secret(),
        url = cloud.url()
    )
}

struct FrameOf {
    message: Outgoing,
    records: usize,
    bytes: usize,
}

fn frames_of(text: &[u8], audit: &Key, version: &Version, cloud: &Key) -> Result<Vec<FrameOf>> {
    let (mut frames, mut builder, mut bytes, mut line) = (Vec::new(), FrameBuilder::default(), 0, Vec::new());
    let mut take = |builder: &mut FrameBuilder, bytes: &mut usize| {
        let records = builder.records() as usize;
        let subject = subject::record(audit, version, cloud);
        let unit = frames.len().to_string();
        let Some(message) = builder.take(subject, cloud, &unit, Encoding::Lz4) else { return };
        frames.push(FrameOf { message, records, bytes: std::mem::take(bytes) });
    };
    for document in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        without_target(document, &mut line)?;
        if builder.is_due_before(line.len()) {
            take(&mut builder, &mut bytes);
        }
        bytes += line.len();
        builder.push(&line);
    }
    take(&mut builder, &mut bytes);
    Ok(frames)
}

/// The record that a document was made of: a store adds the fields of the target behind all others.
fn without_target(document: &[u8], line: &mut Vec<u8>) -> Result<()> {
    const FIELDS: &[u8] = b",\"target_key\":";
    let end = document.windows(FIELDS.len()).rposition(|window| window == FIELDS);
    let end = end.context("a document without a target")?;
    line.clear();
    line.extend_from_slice(document.get(..end).unwrap_or_default());
    line.extend_from_slice(b"}}");
    Ok(())
}

fn version_of(document: &[u8]) -> Result<Version> {
    #[derive(Deserialize)]
    struct Com<'a> {
        audit_version: &'a str,
    }
    let com = RecordView::parse(document)?.com.context("a document without `com`")?;
    Ok(Version::new(serde_json::from_str::<Com<'_>>(com.get())?.audit_version)?)
}

/// The stage whose workers stores are.
pub(super) const STAGE: Stage = Stage::Sink;
