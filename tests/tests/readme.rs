//! What the README says is true: its commands run as they are printed, and give what it shows.
//!
//! The programs are the ones built beside the test, in place of those that `cargo run` and `cargo build` would make.
//! What is written to /tmp/cloudmarker there is written to the test's own folder here, and ports are free ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use serde_json::Value;
use tests::harness::{Launch, NatsServer, Output, PATIENCE, Program, Workspace};

/// The output folder and the log, in the test's own folder.
const OWN: &str = "
plugins: {filestore: {params: {path: '{out}'}}}
logger: {handlers: {file: {filename: run.log}}}
";

/// Where the README's runs write.
const DOCUMENTED_FOLDER: &str = "/tmp/cloudmarker";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn readme() -> Result<String> {
    std::fs::read_to_string(repository().join("README.md")).context("cannot read README.md")
}

/// The text of the section with this heading.
fn section(heading: &str) -> Result<String> {
    let readme = readme()?;
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).with_context(|| format!("no {heading:?}"))?;
    Ok(section.split("\n## ").next().unwrap_or(section).to_owned())
}

/// The fenced blocks of a language in a text.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let bodies = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    bodies.map(str::to_owned).collect()
}

/// What stands between single back-ticks outside of fenced blocks.
fn inline_code(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2).collect::<Vec<_>>().join("\n");
    prose.split('`').skip(1).step_by(2).map(|code| code.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The words of one shell command: white space separates, single quotes keep together, a word that begins with `#`
/// ends the line, a last `&` is dropped.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for letter in line.chars() {
        match letter {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '#' if !quoted && word.is_none() => break,
            ' ' if !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    if words.last().is_some_and(|word| word == "&") {
        words.pop();
    }
    words
}

/// The commands of a shell block, with its `for` loops unrolled.
fn commands(block: &str) -> Result<Vec<Vec<String>>> {
    let mut commands = Vec::new();
    let mut lines = block.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(head) = line.strip_prefix("for ") else {
            commands.extend(Some(words(line)).filter(|words| !words.is_empty()));
            continue;
        };
        let (name, values) = head
            .strip_suffix("; do")
            .and_then(|head| head.split_once(" in "))
            .with_context(|| format!("not a loop that this test understands: {line}"))?;
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "done").collect();
        for value in values.split_whitespace() {
            commands.extend(body.iter().map(|line| words(&line.replace(&format!("${name}"), value))));
        }
    }
    Ok(commands)
}

/// All commands of the shell blocks of a section.
fn commands_of(heading: &str) -> Result<Vec<Vec<String>>> {
    let blocks = blocks(&section(heading)?, "sh");
    ensure!(!blocks.is_empty(), "the section {heading:?} has no shell block");
    Ok(blocks.iter().map(|block| commands(block)).collect::<Result<Vec<_>>>()?.concat())
}

/// The program of this workspace that a command runs, and its arguments: by `cargo run`, by its path in the target
/// folder, or by its bare name.
fn of_workspace(command: &[String]) -> Option<(&str, &[String])> {
    let programs = ["coordinator", "collector", "evaluator", "sink", "alerter", "cloudsim", "bench"];
    let (first, rest) = command.split_first()?;
    let (program, args) = match (first.as_str(), rest.first().map(String::as_str)) {
        ("cargo", Some("run")) => {
            let own = rest.iter().position(|word| word == "--").unwrap_or(rest.len());
            let after = |name: &str| rest[..own].iter().skip_while(|word| *word != name).nth(1);
            (after("--bin").or_else(|| after("-p"))?.as_str(), rest.get(own + 1..).unwrap_or_default())
        }
        (path, _) => (path.strip_prefix("target/release/").unwrap_or(path), rest),
    };
    programs.contains(&program).then_some((program, args))
}

fn launch(command: &[String]) -> Result<Launch> {
    let (program, args) = of_workspace(command).with_context(|| format!("not a program of ours: {command:?}"))?;
    Ok(Program::named(program).args(args))
}

/// The command that begins with these words.
fn starting<'a>(commands: &'a [Vec<String>], words: &str) -> Result<&'a [String]> {
    let found = commands.iter().find(|command| command.join(" ").starts_with(words));
    found.map(Vec::as_slice).with_context(|| format!("the README has no command {words:?}: {commands:?}"))
}

fn replaced(command: &[String], from: &str, to: &str) -> Result<Vec<String>> {
    ensure!(command.iter().any(|word| word.contains(from)), "{from} is not in {command:?}");
    Ok(command.iter().map(|word| word.replace(from, to)).collect())
}

async fn make(target: &str) -> Result<()> {
    let dry = Program::at("make").args(["-n", target]).current_dir(repository()).start()?.wait(PATIENCE).await?;
    dry.with_code(0).with_context(|| format!("make {target}")).map(drop)
}

/// A summary without what differs from run to run (the version, the folder) and without the width of its columns.
fn summary(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if let Some(place) = words.iter().position(|word| word == "in") {
            words.truncate(place + 1);
        }
        words
    };
    // On a terminal the table has lines, as the README shows it; here it has none.
    let rows = text.lines().filter_map(|line| match line.strip_prefix("Audit ") {
        Some(line) => {
            let (audit, rest) = line.split_once(", version ")?;
            let (_, outcome) = rest.split_once(": ")?;
            Some(vec![format!("Audit {audit}"), outcome.to_owned()])
        }
        None if line.starts_with(['┌', '╞', '└']) || line.trim().is_empty() => None,
        None => Some(cells(line.trim_matches('│'))),
    });
    rows.collect()
}

// Everything that is named is there.

#[tokio::test]
async fn every_command_names_what_is_there() -> Result<()> {
    let readme = readme()?;
    let (mut seen, mut targets) = (0, BTreeSet::new());
    let printed = blocks(&readme, "sh").iter().map(|block| commands(block)).collect::<Result<Vec<_>>>()?.concat();
    let mentioned = inline_code(&readme).into_iter().map(|code| words(&code));
    for command in printed.into_iter().chain(mentioned) {
        if let Some((program, args)) = of_workspace(&command) {
            flags_exist(program, args).await.with_context(|| format!("{command:?}"))?;
            seen += 1;
        }
        match command.first().map(String::as_str) {
            Some("make") => targets.extend(command.get(1).cloned()),
            Some("cargo") => {
                let package = command.iter().skip_while(|word| *word != "-p").nth(1);
                let there = package.is_none_or(|package| repository().join(package).join("Cargo.toml").is_file());
                ensure!(there, "there is no package: {command:?}");
            }
            Some(".testdeps/bin/nats-server") => {
                let configuration = command.iter().skip_while(|word| *word != "-c").nth(1);
                let configuration = configuration.context("the server is started with its configuration")?;
                ensure!(repository().join(configuration).is_file(), "there is no {configuration}");
            }
            _ => {}
        }
    }
    assert!(seen >= 8, "only {seen} commands were found");
    assert!(targets.is_superset(&["setup", "test", "lint", "bench"].map(str::to_owned).into()), "{targets:?}");
    for target in targets {
        make(&target).await?;
    }
    Ok(())
}

/// Whether a program knows the options that stand in its arguments, by its own help.
async fn flags_exist(program: &str, args: &[String]) -> Result<()> {
    // The coordinator's commands have options of their own.
    let command = args.first().filter(|word| program == "coordinator" && !word.starts_with('-'));
    let help = Program::named(program).args(command.cloned()).arg("--help").start()?.wait(PATIENCE).await?;
    let help = help.with_code(0)?.stdout;
    let known: BTreeSet<&str> = help.split([' ', ',', '\n']).collect();
    for flag in args.iter().filter(|word| word.starts_with('-')) {
        ensure!(known.contains(flag.as_str()), "{program} does not know {flag}:\n{help}");
    }
    Ok(())
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    let readme = readme()?;
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local: Vec<&str> = links.filter(|link| !link.contains("://")).collect();
    assert!(!local.is_empty());
    let folders = inline_code(&section("The code")?).into_iter().filter(|code| code.ends_with('/'));
    for path in local.into_iter().map(str::to_owned).chain(folders) {
        ensure!(repository().join(&path).exists(), "there is no {path}");
    }
    Ok(())
}

#[test]
fn the_toolchain_is_the_workspaces() -> Result<()> {
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml"))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"'));
    let version = version.context("the workspace names no rust-version")?;
    let said = format!("({version} or newer)");
    ensure!(readme()?.contains(&said), "the README does not say {said}");
    Ok(())
}

// What is shown is what happens.

#[tokio::test]
async fn the_first_command_gives_what_is_shown() -> Result<()> {
    let section = section("Two commands")?;
    let commands = commands_of("Two commands")?;
    let workspace = Workspace::new(OWN)?;
    let run = launch(starting(&commands, "cargo run")?)?.current_dir(workspace.path());
    let output = run.start()?.wait(PATIENCE).await?.with_code(0)?;
    let shown = blocks(&section, "text").first().map(|shown| summary(shown)).unwrap_or_default();
    assert_eq!(shown.len(), 6, "{section}");
    assert_eq!(summary(&output.stdout), shown, "{}", output.stdout);
    // A newcomer's first run has nothing to warn of.
    assert!(!output.stderr.contains("WARN") && !output.stderr.contains("warning"), "{}", output.stderr);

    let folder = format!("{DOCUMENTED_FOLDER}/");
    let named: Vec<String> =
        inline_code(&section).iter().filter_map(|code| code.strip_prefix(&folder).map(str::to_owned)).collect();
    assert_eq!(named.len(), 2, "{section}");
    for file in named {
        ensure!(!workspace.documents(&file)?.is_empty(), "{file} is empty");
    }
    assert_eq!(starting(&commands, "make test")?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn the_simulated_azure_is_audited_in_three_commands() -> Result<()> {
    let commands = commands_of("Audit a (simulated) Azure")?;
    ensure!(commands.len() == 3, "{commands:?}");
    let workspace = Workspace::new(OWN)?;

    let cloudsim =
        replaced(starting(&commands, "cargo run -p tests --bin cloudsim")?, "127.0.0.1:8900", "127.0.0.1:0")?;
    let simulator = launch(&cloudsim)?.current_dir(workspace.path()).start()?;
    simulator.wait_for_line("run: [myazaudit]", PATIENCE).await?;

    // Its `-c` takes one more file: the one with the test's own folder.
    let run = launch(starting(&commands, "cargo run --release -p coordinator")?)?.arg("cloudmarker.yaml");
    let output = run.current_dir(workspace.path()).start()?.wait(PATIENCE).await?.with_code(3)?;
    let denied = output.stdout.lines().filter(|line| line.starts_with("  ! ") && line.contains(" denied ")).count();
    assert_eq!(denied, 1, "{output:?}");

    let folder = workspace.out().display().to_string();
    let look = replaced(starting(&commands, "grep")?, DOCUMENTED_FOLDER, &folder)?;
    let [grep, args @ ..] = look.as_slice() else { bail!("{look:?}") };
    let found = Program::at(grep).args(args).start()?.wait(PATIENCE).await?.with_code(0)?;
    let findings = workspace.documents("myazaudit_firewallruleevent.json")?;
    assert_eq!(found.stdout.lines().count(), findings.len());
    assert!(found.stdout.contains("\"description\":\"Azure firewall rule /subscriptions/"), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn the_configuration_shown_is_good_and_runs() -> Result<()> {
    let shown = blocks(&section("Configure")?, "yaml").concat();
    let workspace = Workspace::new(OWN)?;
    std::fs::write(workspace.path().join("shown.yaml"), &shown)?;
    let checked = workspace.run(&["check", "-c", "shown.yaml"]).await?.with_code(0)?;
    assert_eq!(checked.stderr, "");
    workspace.run(&["run", "--now", "-c", "shown.yaml", "cloudmarker.yaml"]).await?.with_code(0)?;
    assert_eq!(workspace.documents("myaudit_mymockcloud.json")?.len(), 5);
    assert_eq!(workspace.documents("myaudit_mockevent.json")?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn the_example_of_a_real_azure_is_good() -> Result<()> {
    let workspace = Workspace::new("")?;
    let example = repository().join("config/azure.yaml").display().to_string();
    let checked = workspace.run(&["check", "-c", &example]).await?.with_code(0)?;
    assert_eq!(checked.stdout, "The configuration is good. Audits to run: myazaudit\n");
    assert_eq!(checked.stderr, "");
    Ok(())
}

#[tokio::test]
async fn the_five_services_run_over_a_broker() -> Result<()> {
    let commands = commands_of("Five services over a broker")?;
    starting(&commands, "make setup")?;
    starting(&commands, ".testdeps/bin/nats-server -c deploy/nats/nats-server.conf")?;
    starting(&commands, "cargo build --release")?;
    // The harness starts that server with that configuration, on a port of its own.
    let nats = NatsServer::start().await?;
    let client = async_nats::connect(nats.url()).await?;
    let mut events = client.subscribe("cm.event.mockaudit.*.mockevent").await?;
    client.flush().await?;

    let here = |command: &[String]| replaced(command, "nats://127.0.0.1:4222", nats.url());
    let mut services = Vec::new();
    for stage in ["collector", "evaluator", "sink", "alerter"] {
        let command = here(starting(&commands, &format!("target/release/{stage} "))?)?;
        services.push(launch(&command)?.start()?);
    }
    let workspace = Workspace::new(OWN)?;
    let run = here(starting(&commands, "target/release/coordinator run")?)?;
    let output = launch(&run)?.current_dir(workspace.path()).start()?.wait(PATIENCE).await?;
    let printed: String = services.iter().map(|program| format!("{}\n{}", program.name(), program.stderr())).collect();
    ensure!(output.code() == Some(0), "{output:?}\n{printed}");
    assert_eq!(workspace.documents("mockaudit_mockcloud.json")?.len(), 10);
    assert_eq!(workspace.documents("mockaudit_mockevent.json")?.len(), 4);

    // Other teams get the events as they come, one JSON document a message.
    let mut ids = BTreeSet::new();
    while ids.len() < 4 {
        let message = tokio::time::timeout(PATIENCE, events.next()).await?.context("the subscription ended")?;
        let event: Value = serde_json::from_slice(&message.payload)?;
        ids.insert(event["com"]["id"].as_str().context("an event without com.id")?.to_owned());
    }
    drained(services).await
}

/// A service drains on SIGTERM.
async fn drained(services: Vec<Program>) -> Result<()> {
    let mut ends: Vec<Output> = Vec::new();
    for mut service in services {
        service.terminate()?;
        ends.push(service.wait(PATIENCE).await?);
    }
    ends.into_iter().try_for_each(|end| end.with_code(0).map(drop))
}
