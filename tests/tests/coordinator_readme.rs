//! The examples in the coordinator's README run as they stand there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::harness::Workspace;

/// The sections whose examples can run without a cloud.
const SECTIONS: [&str; 3] = ["## `coordinator schema`", "## `coordinator import", "## `coordinator export`"];
const CONFIGURATION: &str = "
plugins:
  archive: {plugin: cloudmarker.stores.sqlitestore.SqliteStore, params: {path: inventory.db}}
audits:
  mockaudit: {clouds: [mockcloud], stores: [archive], events: [], alerts: []}
";
const EVENT_CONFIG: &str = r#"{"dataSources": [{"source": "AWS CloudTrail", "account_profile_pairs": [],
    "lookup_Attributes": [{"RuleName": "Users", "AttributeKey": "EventName", "AttributeValue": "CreateUser"}]}]}"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands of the sections, in their order.
fn examples() -> Result<Vec<String>> {
    let readme = std::fs::read_to_string(root().join("coordinator/README.md"))?;
    let (mut of_section, mut of_shell) = (false, false);
    let mut commands = Vec::new();
    for line in readme.lines() {
        if line.starts_with("## ") {
            of_section = SECTIONS.iter().any(|section| line.starts_with(section));
        }
        match line {
            "```sh" => of_shell = true,
            "```" => of_shell = false,
            command if of_section && of_shell => commands.push(command.to_owned()),
            _ => {}
        }
    }
    Ok(commands)
}

#[tokio::test]
async fn examples_run() -> Result<()> {
    let workspace = Workspace::new(CONFIGURATION)?;
    workspace.run(&["run", "--now", "-c", "cloudmarker.yaml"]).await?.with_code(0)?;
    std::fs::write(workspace.path().join("event_config.json"), EVENT_CONFIG)?;
    // A Python with botocore, as the path has it.
    let wheel = root().join(".testdeps/botocore-1.44.5-py3-none-any.whl").canonicalize()?;
    let packages = workspace.path().join("python/lib/python3.11/site-packages");
    std::fs::create_dir_all(&packages)?;
    let unpacked = Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&packages).status()?;
    ensure!(unpacked.success(), "the wheel cannot be unpacked");
    std::fs::create_dir(workspace.path().join("python/bin"))?;
    std::fs::write(workspace.path().join("python/bin/python3"), "")?;

    let path = std::env::join_paths(
        [workspace.path().join("python/bin"), root().join("target/debug").canonicalize()?]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").context("a path")?)),
    )?;
    let examples = examples()?;
    ensure!(examples.len() >= 12, "{examples:?}");
    for command in examples {
        let ended = Command::new("sh")
            .args(["-c", &command])
            .current_dir(workspace.path())
            .env("PATH", &path)
            .env("HOME", workspace.path())
            .env("CM_STATE_DIR", workspace.path())
            .output()?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(ended.status.success(), "{command}\n{said}");
    }
    ensure!(workspace.path().join("activity.yaml").is_file(), "nothing was imported");
    Ok(())
}
