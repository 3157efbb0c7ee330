//! Logs: the section `logger` of the Python tool's configurations, and the options of the services.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::harness::{PATIENCE, Program, Workspace, free_port};

const AUDIT: &str = "
plugins:
  filestore: {params: {path: '{out}'}}
";

/// A run's log file.
async fn logged(workspace: &Workspace, logger: &str) -> Result<String> {
    workspace.configure(&format!("{AUDIT}{logger}"))?;
    workspace.run(&["run", "--now"]).await?.with_code(0)?;
    std::fs::read_to_string(workspace.path().join("x.log")).context("no log")
}

#[tokio::test]
async fn lines_look_as_the_formatter_says() -> Result<()> {
    let workspace = Workspace::new(AUDIT)?;
    let text = logged(
        &workspace,
        "
logger:
  formatters:
    simple: {format: '%(asctime)s|%(levelname)-8s|%(name)s|%(processName)s|%(message)s', datefmt: '%Y/%j'}
  handlers: {file: {filename: x.log}}
",
    )
    .await?;
    let line = text.lines().find(|line| line.contains("the run begins")).context("no line")?;
    let fields: Vec<&str> = line.split('|').collect();
    let today = jiff::Zoned::now().strftime("%Y/%j").to_string();
    assert_eq!(fields[..4], [&*today, "INFO    ", "coordinator.cli.run", "coordinator"], "{line}");
    ensure!(fields[4].starts_with("the run begins version="), "{line}");

    // As the Python tool has it by default, in its own words.
    let text = logged(&workspace, "logger: {handlers: {file: {filename: x.log}}}").await?;
    let line = text.lines().rfind(|line| line.contains("the run begins")).context("no line")?;
    let (date, rest) = line.split_once(" [").context("no process")?;
    assert_eq!(date.len(), "2026-01-31 23:59:59".len(), "{line}");
    ensure!(rest.contains("] [coordinator] [") && rest.contains("] INFO coordinator.cli.run:"), "{line}");
    Ok(())
}

#[tokio::test]
async fn parts_have_levels_of_their_own() -> Result<()> {
    let workspace = Workspace::new(AUDIT)?;
    let logger = |loggers: &str| {
        format!(
            "
logger:
  formatters: {{simple: {{format: '%(levelname)s %(name)s'}}}}
  handlers: {{file: {{filename: x.log}}}}
  loggers: {loggers}
"
        )
    };
    let text = logged(&workspace, &logger("{cloudmarker: {level: ERROR}}")).await?;
    assert_eq!(text, "");
    let text = logged(&workspace, &logger("{coordinator: {level: ERROR}, proto: {level: DEBUG}}")).await?;
    ensure!(!text.contains("coordinator."), "{text}");
    let text = logged(&workspace, &logger("{coordinator.cli.run: {level: INFO}, coordinator: {level: ERROR}}")).await?;
    ensure!(text.lines().any(|line| line == "INFO coordinator.cli.run"), "{text}");
    Ok(())
}

fn age(path: &Path, days: u64) -> Result<()> {
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    Ok(std::fs::File::options().write(true).open(path)?.set_modified(then)?)
}

#[tokio::test]
async fn yesterdays_file_is_put_aside_and_the_oldest_removed() -> Result<()> {
    let workspace = Workspace::new(AUDIT)?;
    let path = workspace.path().join("x.log");
    let old = |name: &str| workspace.path().join(format!("x.log.{name}"));
    for name in ["2020-01-01", "2020-01-02", "2020-01-03", "notes"] {
        std::fs::write(old(name), name)?;
    }
    std::fs::write(&path, "yesterday's\n")?;
    age(&path, 1)?;
    let yesterday = jiff::Zoned::now().yesterday()?.strftime("%Y-%m-%d").to_string();
    let text = logged(&workspace, "logger: {handlers: {file: {filename: x.log, backupCount: 2}}}").await?;
    ensure!(text.contains("the run begins") && !text.contains("yesterday's"), "{text}");
    assert_eq!(std::fs::read_to_string(old(&yesterday))?, "yesterday's\n");
    let there = ["2020-01-01", "2020-01-02", "2020-01-03", "notes"].map(|name| old(name).exists());
    assert_eq!(there, [false, false, true, true]);
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_is_an_error_of_the_configuration() -> Result<()> {
    let workspace = Workspace::new(AUDIT)?;
    workspace.configure(&format!(
        "{AUDIT}logger: {{formatters: {{simple: {{format: '%(msg)s'}}}}, handlers: {{file: {{when: midnigth}}}}}}"
    ))?;
    let output = workspace.run(&["check"]).await?.with_code(2)?;
    let text = format!("{}{}", output.stdout, output.stderr);
    ensure!(text.contains("logger.formatters.simple.format: `%(msg)`: unknown attribute"), "{text}");
    ensure!(text.contains("logger.handlers.file.when") && text.contains("did you mean `midnight`?"), "{text}");
    Ok(())
}

/// A service that waits for a broker, and says so.
fn service(more: &[&str]) -> Result<Program> {
    let nobody = format!("nats://127.0.0.1:{}", free_port()?);
    Program::named("sink").args(["--nats", &nobody]).args(more.iter().copied()).start()
}

#[tokio::test]
async fn services_take_the_same_by_options() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("sink.log");
    std::fs::write(&file, "yesterday's\n")?;
    age(&file, 1)?;
    let name = file.to_string_lossy();
    let format = ["--log-format", "%(levelname)s~%(name)s~%(message)s", "--log-level", "warning,proto=debug"];
    let mut sink = service(&[&format[..], &["--log-file", &name, "--log-backups", "1"]].concat())?;
    let line = sink.wait_for_line("WARNING~proto.", PATIENCE).await?;
    ensure!(line.starts_with("WARNING~proto."), "{line}");
    sink.terminate()?;
    sink.wait(PATIENCE).await?;
    ensure!(std::fs::read_to_string(&file)?.contains(&line), "{line}");
    let yesterday = jiff::Zoned::now().yesterday()?.strftime("%Y-%m-%d").to_string();
    ensure!(folder.path().join(format!("sink.log.{yesterday}")).exists());

    let mut sink = service(&["--log-format", "json", "--health", "127.0.0.1:0"])?;
    let line = sink.wait_for_line("answering", PATIENCE).await?;
    let object: Value = serde_json::from_str(&line)?;
    assert_eq!((object["level"].as_str(), object["target"].as_str()), (Some("INFO"), Some("proto::service")));
    sink.terminate()?;
    sink.wait(PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn wrong_options_are_refused() -> Result<()> {
    for (options, said) in [
        (["--log-level", "loud"], "`loud` is no level"),
        (["--log-level", "colector=info"], "nothing is logged under the name `colector`"),
        (["--log-format", "%(nam)s"], "did you mean `name`?"),
        (["--log-rotate", "sometimes"], "`midnight`, `never` or a size"),
        (["--max-memory", "much"], "2GiB"),
    ] {
        let output = service(&options)?.wait(PATIENCE).await?.with_code(2)?;
        ensure!(output.stderr.contains(said), "{output:?}");
    }
    Ok(())
}
