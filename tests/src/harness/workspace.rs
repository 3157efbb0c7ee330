//! A folder with a configuration and an output folder, and what a run left there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{Launch, Output, Program};

/// How long a run may take before a test gives it up.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A folder of its own for a test.
#[derive(Debug)]
pub struct Workspace {
    folder: TempDir,
}

impl Workspace {
    /// A folder with this configuration as `cloudmarker.yaml`, in which `{out}` stands for the output folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(configuration: &str) -> Result<Self> {
        let workspace = Self { folder: tempfile::tempdir()? };
        workspace.configure(configuration)?;
        Ok(workspace)
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, configuration: &str) -> Result<()> {
        let text = configuration.replace("{out}", &self.out().display().to_string());
        Ok(std::fs::write(self.path().join("cloudmarker.yaml"), text)?)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The output folder.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.path().join("out")
    }

    /// The coordinator, to be started in the folder.
    pub fn coordinator(&self, args: &[&str]) -> Launch {
        Program::named("coordinator").args(args.iter().copied()).current_dir(self.path())
    }

    /// Runs the coordinator in the folder to its end.
    ///
    /// # Errors
    /// When it does not start or does not end in time.
    pub async fn run(&self, args: &[&str]) -> Result<Output> {
        self.coordinator(args).start()?.wait(PATIENCE).await
    }

    /// The documents of a file in the output folder, in its order. The file must be a JSON array with one document a
    /// line.
    ///
    /// # Errors
    /// When it is not.
    pub fn documents(&self, file: &str) -> Result<Vec<Value>> {
        let path = self.out().join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let whole: Vec<Value> = serde_json::from_str(&text).with_context(|| format!("{file} is no JSON array"))?;
        let lines = lines(&text)?;
        ensure!(lines.len() == whole.len(), "{file}: {} lines for {} documents", lines.len(), whole.len());
        Ok(whole)
    }

    /// The lines of a file in the output folder, sorted, with what differs from run to run made the same: the version
    /// and the ids that are made of it.
    ///
    /// # Errors
    /// When the file is not a JSON array with one document a line.
    pub fn stable_lines(&self, file: &str) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(self.out().join(file)).with_context(|| format!("cannot read {file}"))?;
        let mut lines: Vec<String> = lines(&text)?.into_iter().map(stable).collect::<Result<_>>()?;
        lines.sort();
        Ok(lines)
    }

    /// The names of the files in the output folder, without hidden ones.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.out())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

fn lines(text: &str) -> Result<Vec<&str>> {
    if text == "[]\n" {
        return Ok(Vec::new());
    }
    let Some(inner) = text.strip_prefix("[\n").and_then(|text| text.strip_suffix("\n]\n")) else {
        bail!("not an array with one document a line: {}", text.chars().take(200).collect::<String>());
    };
    Ok(inner.split(",\n").collect())
}

/// A line without what a version makes of it.
fn stable(line: &str) -> Result<String> {
    let document: Value = serde_json::from_str(line)?;
    let com = |name: &str| document["com"][name].as_str().with_context(|| format!("com.{name} is missing: {line}"));
    let version = format!("\"audit_version\":\"{}\"", com("audit_version")?);
    let id = format!("\"id\":\"{}\"", com("id")?);
    let line = line.replace(&version, "\"audit_version\":\"V\"").replace(&id, "\"id\":\"I\"");
    // An event names the record that it is about.
    Ok(match document["com"]["source"]["id"].as_str() {
        Some(source) => line.replace(&format!("\"id\":\"{source}\""), "\"id\":\"S\""),
        None => line,
    })
}
