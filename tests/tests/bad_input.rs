//! Bad input is refused before anything happens: one clear line for each mistake, exit code 2, and nothing written. A
//! plugin that fails while it runs is named with its reason, and the run ends with exit code 3.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::harness::{NatsServer, Output, PATIENCE, Program, STAGES, Services, Workspace};

/// Where everything goes that a run writes: whatever slips through is seen in the workspace.
const OWN: &str = "
plugins: {filestore: {params: {path: '{out}'}}}
logger: {handlers: {file: {filename: run.log}}}
";

/// All that is in a folder, as paths below it.
fn contents(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            found.extend(contents(&entry.path())?.into_iter().map(|below| format!("{name}/{below}")));
        }
        found.insert(name);
    }
    Ok(found)
}

/// Runs the coordinator, which has to refuse this with exit code 2, nothing on standard output, and nothing written:
/// not in the workspace, not in the home folder. Returns standard error.
async fn refused(workspace: &Workspace, args: &[&str]) -> Result<String> {
    let before = contents(workspace.path())?;
    let mut coordinator = workspace.coordinator(args).start()?;
    let output = coordinator.wait(PATIENCE).await?.with_code(2)?;
    let (after, home) = (contents(workspace.path())?, contents(coordinator.home())?);
    ensure!(output.stdout.is_empty(), "{args:?} printed a result: {output:?}");
    ensure!(before == after && home.is_empty(), "{args:?} wrote something: {before:?} {after:?} {home:?}\n{output:?}");
    ensure!(!output.stderr.contains('\u{1b}'), "{args:?} is not a terminal's: {output:?}");
    Ok(output.stderr)
}

/// Has `run --now` and `check` refuse a file `bad.yaml` with this text, with exactly these lines.
async fn refused_with(text: impl AsRef<[u8]>, lines: &[&str]) -> Result<()> {
    let text = text.as_ref();
    let workspace = Workspace::new(OWN)?;
    std::fs::write(workspace.path().join("bad.yaml"), text)?;
    let expected: String = lines.iter().map(|line| format!("error: bad.yaml: {line}\n")).collect();
    for command in [["run", "--now"].as_slice(), &["check"]] {
        let args = [command, &["-c", "cloudmarker.yaml", "bad.yaml"]].concat();
        let stderr = refused(&workspace, &args).await?;
        ensure!(
            stderr == expected,
            "{}\n--- {args:?}\n{stderr}--- expected\n{expected}",
            String::from_utf8_lossy(text)
        );
    }
    Ok(())
}

/// Runs audits with this configuration over what the workspace holds, and expects it to be fine.
async fn fine(text: &str) -> Result<()> {
    let workspace = Workspace::new(OWN)?;
    std::fs::write(workspace.path().join("fine.yaml"), text)?;
    let files = ["-c", "cloudmarker.yaml", "fine.yaml"];
    let checked = workspace.run(&[["check"].as_slice(), &files].concat()).await?.with_code(0)?;
    assert_eq!((checked.stdout.as_str(), checked.stderr.as_str()), (GOOD, ""), "{text}");
    workspace.run(&[["run", "--now"].as_slice(), &files].concat()).await?.with_code(0)?;
    assert_eq!(workspace.documents("mockaudit_mockcloud.json")?.len(), 10, "{text}");
    Ok(())
}

const GOOD: &str = "The configuration is good. Audits to run: mockaudit\n";

// Files.

#[tokio::test]
async fn a_named_file_that_is_not_there() -> Result<()> {
    let workspace = Workspace::new(OWN)?;
    for command in [["run", "--now"].as_slice(), &["check"]] {
        let args = [command, &["-c", "cloudmarker.yaml", "missing.yaml"]].concat();
        let expected = "error: missing.yaml: there is no such file; correct its name or leave it out\n";
        assert_eq!(refused(&workspace, &args).await?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_no_configuration() -> Result<()> {
    let not = |found: &str| {
        format!(
            "found {found}; a mapping with some of the keys plugins, audits, run, rules, schedule, timezone, catch_up, overlap, logger, email, nats is \
             expected"
        )
    };
    refused_with("- plugins\n- audits\n", &[&not("a list")]).await?;
    refused_with("plugins\n", &[&not("the text \"plugins\"")]).await?;
    refused_with(
        "plugins:\n  a: [1,\nrun: x\n",
        &[
            "not valid YAML: did not find expected ',' or ']' at line 4 column 1, while parsing a flow sequence at line 2 column 6",
        ],
    )
    .await?;
    refused_with(b"run: []\n# \xff\n", &["the file cannot be read: line 2 is not UTF-8 text"]).await
}

#[tokio::test]
async fn an_empty_file_and_a_bare_time_of_day_are_fine() -> Result<()> {
    fine("").await?;
    fine("# nothing yet\n").await?;
    fine("schedule: 10:30\n").await
}

#[tokio::test]
async fn a_default_file_is_named_as_well() -> Result<()> {
    let workspace = Workspace::new("run: [nope]")?;
    let expected = "error: cloudmarker.yaml: run[0]: no audit `nope` is defined under `audits`\n";
    for args in [["run", "--now"].as_slice(), &["-n"], &["check"]] {
        assert_eq!(refused(&workspace, args).await?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_default_file_that_stands_for_two_is_told_of_once() -> Result<()> {
    // In the home folder, `~/cloudmarker.yaml` and `cloudmarker.yaml` are one file.
    let workspace = Workspace::new("plugins: [a,\n")?;
    let output = workspace.coordinator(&["check"]).env("HOME", workspace.path()).start()?.wait(PATIENCE).await?;
    let stderr = output.with_code(2)?.stderr;
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    Ok(())
}

// What stands in them.

#[tokio::test]
async fn keys_that_are_unknown_or_repeated() -> Result<()> {
    refused_with(
        "plugin: {}",
        &["plugin: unknown key `plugin`; did you mean `plugins`? (allowed: plugins, audits, run, rules, schedule, timezone, catch_up, overlap, logger, email, nats)"],
    )
    .await?;
    refused_with(
        "run: [mockaudit]\nplugins:\n  a: {plugin: MockCloud}\n  a: {plugin: MockCloud}\n",
        &["plugins.a: found this key a second time (line 4, column 3); keep one of them, or merge the two"],
    )
    .await?;
    refused_with(
        "plugins: {mockcloud: {parms: {record_count: 5}}}",
        &["plugins.mockcloud.parms: unknown key `parms`; did you mean `params`? (allowed: plugin, params, pool)"],
    )
    .await
}

#[tokio::test]
async fn audits_and_plugins_that_are_not_there() -> Result<()> {
    refused_with(
        "run: [mockadit]",
        &["run[0]: no audit `mockadit` is defined under `audits`; did you mean `mockaudit`?"],
    )
    .await?;
    refused_with(
        "audits: {mockaudit: {clouds: [mockclod]}}",
        &["audits.mockaudit.clouds[0]: no plugin `mockclod` is defined under `plugins`; did you mean `mockcloud`?"],
    )
    .await?;
    refused_with(
        "plugins: {mine: {plugin: cloudmarker.clouds.mockcloud.MockClod}}",
        &[
            "plugins.mine.plugin: unknown plugin class `cloudmarker.clouds.mockcloud.MockClod`; did you mean `cloudmarker.clouds.mockcloud.MockCloud`?",
        ],
    )
    .await?;
    refused_with(
        "audits: {mockaudit: {events: [mockcloud]}}",
        &["audits.mockaudit.events[0]: the plugin `mockcloud` (MockCloud) cannot be an event; it can stand under `clouds`"],
    )
    .await
}

#[tokio::test]
async fn parameters_that_are_unknown_or_of_another_type() -> Result<()> {
    refused_with(
        "plugins: {mockcloud: {params: {recrod_count: 5}}}",
        &[
            "plugins.mockcloud.params.recrod_count: unknown parameter `recrod_count`; did you mean `record_count`? (allowed: record_count, record_types)",
        ],
    )
    .await?;
    refused_with(
        "plugins: {mockcloud: {params: {record_count: many}}}",
        &["plugins.mockcloud.params.record_count: found the text \"many\"; a whole number is expected"],
    )
    .await?;
    refused_with(
        "plugins: {filestore: {params: {path: ''}}}",
        &["plugins.filestore.params.path: found an empty text; the path of a folder is expected"],
    )
    .await
}

#[tokio::test]
async fn null_where_something_is_needed() -> Result<()> {
    refused_with(
        "audits: {mockaudit: {clouds: null}}",
        &["audits.mockaudit.clouds: found null; a list of plugin keys is expected"],
    )
    .await?;
    // As the tutorial prints it.
    refused_with(
        "plugins: {az: {plugin: cloudmarker.clouds.azcloud.AzCloud, params: {tenant: null, client: a, secret: b}}}",
        &["plugins.az.params.tenant: set `tenant`: the id or a domain of the tenant to sign in to"],
    )
    .await
}

#[tokio::test]
async fn keys_that_are_too_long_for_a_subject() -> Result<()> {
    // The slash takes three bytes in a subject.
    for (name, shown, length) in
        [("a".repeat(91), "a".repeat(91), 91), ("/".repeat(31), format!("{:?}", "/".repeat(31)), 93)]
    {
        let told = format!(
            "the name \"{name}\" is too long: {length} bytes as a part of a subject, at most 90 are allowed; choose a \
             shorter one"
        );
        let (plugin, audit) = (format!("plugins.{shown}: {told}"), format!("audits.{shown}: {told}"));
        refused_with(format!("plugins: {{{name}: {{plugin: MockCloud}}}}"), &[&plugin]).await?;
        refused_with(format!("audits: {{{name}: {{clouds: [mockcloud]}}}}"), &[&audit]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn all_mistakes_are_told_at_once() -> Result<()> {
    refused_with(
        "plugins: {mockcloud: {params: {record_count: x}}}\naudits: {mockaudit: {stores: null}}\nschedule: noon\n",
        &[
            "plugins.mockcloud.params.record_count: found the text \"x\"; a whole number is expected",
            "schedule: found the text \"noon\"; a time of day (\"00:00\" to \"23:59\"), a cron expression (\"30 2 * * 1-5\") or an interval (\"every 6h\") is expected",
            "audits.mockaudit.stores: found null; a list of plugin keys is expected",
        ],
    )
    .await
}

/// Two audits whose name and plugin run together to the same file.
const SHARED: &str = "
plugins: {c: {plugin: MockCloud}, b_c: {plugin: MockCloud}, filestore: {params: {path: '{out}'}}}
audits:
  a_b: {clouds: [c], stores: [filestore], events: [], alerts: []}
  a: {clouds: [b_c], stores: [filestore], events: [], alerts: []}
run: [a_b, a]
logger: {root: {handlers: [console]}}
";

#[tokio::test]
async fn two_plugins_that_would_write_one_file() -> Result<()> {
    let workspace = Workspace::new(SHARED)?;
    let file = workspace.out().join("a_b_c.json");
    let expected = format!(
        "error: filestore of audits.a_b.stores (for c) and filestore of audits.a.stores (for b_c) would write the \
         same file {}; give one of them another `path`, or rename the audit or the plugin\n",
        file.display()
    );
    for args in [["run", "--now"].as_slice(), &["check"]] {
        assert_eq!(refused(&workspace, args).await?, expected);
    }
    // Each alone has the file for itself.
    let alone = workspace.run(&["run", "--now", "--audit", "a_b"]).await?.with_code(0)?;
    assert!(alone.stdout.contains("Audit a_b,"), "{alone:?}");
    assert_eq!(workspace.files()?, ["a_b_c.json"]);
    Ok(())
}

#[tokio::test]
async fn two_file_stores_that_would_write_one_file() -> Result<()> {
    let workspace = Workspace::new(
        "
plugins: {filestore: {params: {path: '{out}'}}, again: {plugin: FileStore, params: {path: '{out}'}}}
audits: {mockaudit: {stores: [filestore, again]}}
",
    )?;
    for args in [["run", "--now"].as_slice(), &["check"]] {
        let stderr = refused(&workspace, args).await?;
        let file = workspace.out().join("mockaudit_mockcloud.json");
        let both = "again of audits.mockaudit.stores (for mockcloud) and filestore of audits.mockaudit.stores";
        assert!(stderr.contains(both) && stderr.contains(&file.display().to_string()), "{stderr}");
    }
    Ok(())
}

// The command line.

#[tokio::test]
async fn usage_that_is_wrong() -> Result<()> {
    let cases: &[(&[&str], &str)] = &[
        (&["run", "--nwo"], "unexpected argument '--nwo' found"),
        (&["check", "--nwo"], "unexpected argument '--nwo' found"),
        (&["--nwo"], "unexpected argument '--nwo' found"),
        (&["rnu"], "unrecognized subcommand 'rnu'"),
        (&["run", "--now", "extra"], "unexpected argument 'extra' found"),
        (&["run", "--detach"], "the following required arguments were not provided"),
        (&["run", "--now", "--detach"], "name a broker with --nats URL to detach from one"),
        (&["run", "--coverage", "coverage.json"], "--coverage is of one run: give it with --now"),
        (&["cancel", "today"], "a version looks like 20260131_235959 (UTC)"),
        (&["next", "--count", "0"], "0 is not in 1..=10000"),
        (&["run", "--now", "--audit", "mockadit"], "no audit `mockadit` is defined under `audits`; did you mean"),
        (&["check", "--audit", "mockadit"], "no audit `mockadit` is defined under `audits`; did you mean"),
        (&["run", "--now", "--wait-workers", "soon"], "a time is expected: seconds (300), or a number with a unit"),
        (&["run", "--now", "--wait-workers=-1s"], "a time is expected"),
        (&["run", "--now", "--nats", "http://127.0.0.1:1"], "it looks like nats://host:4222"),
        (&["run", "--resume", "today"], "a version looks like 20260131_235959 (UTC)"),
        (&["run", "--now", "--resume", "20260131_235959"], "cannot be used with"),
        (
            &["run", "--resume", "20260131_235959"],
            "there is nothing to resume without a broker: name it with --nats URL",
        ),
    ];
    // Without a log file: what is said is said on standard error.
    let workspace =
        Workspace::new("{plugins: {filestore: {params: {path: '{out}'}}}, logger: {root: {handlers: [console]}}}")?;
    for (args, text) in cases {
        let stderr = refused(&workspace, args).await?;
        assert!(stderr.starts_with("error: ") && stderr.contains(text), "{args:?}: {stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn a_run_that_the_broker_does_not_know() -> Result<()> {
    let nats = NatsServer::start().await?;
    let workspace = Workspace::new("plugins: {filestore: {params: {path: '{out}'}}}")?;
    let log = workspace.path().join("run.log").display().to_string();
    let args = ["run", "--resume", "20200101_000000", "--nats", nats.url(), "--log-file", &log];
    // At a broker that no coordinator has ever met, and at one that has seen runs.
    for _ in 0..2 {
        let output = workspace.run(&args).await?.with_code(2)?;
        assert!(output.stderr.contains("there is no run 20200101_000000 at this broker"), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let now = ["run", "--now", "--nats", nats.url(), "--log-file", &log, "--wait-workers", "0"];
        workspace.run(&now).await?.with_code(3)?;
    }
    assert!(!workspace.out().exists());
    Ok(())
}

#[tokio::test]
async fn services_that_are_told_of_no_broker() -> Result<()> {
    for stage in STAGES {
        let mut program = Program::named(stage).start()?;
        let output = program.wait(PATIENCE).await?.with_code(2)?;
        let expected = format!(
            "{stage}: no broker is named; name it with --nats nats://HOST:4222, the variable NATS_URL, or \
             `nats: {{url: ...}}` in the configuration\n"
        );
        assert_eq!((output.stderr, output.stdout), (expected, String::new()));
        assert!(contents(program.home())?.is_empty());
        let wrong = Program::named(stage).arg("--nwo").start()?.wait(PATIENCE).await?.with_code(2)?;
        assert!(wrong.stderr.contains("unexpected argument '--nwo' found"), "{wrong:?}");
    }
    Ok(())
}

#[tokio::test]
async fn services_that_are_given_a_wrong_section() -> Result<()> {
    let workspace = Workspace::new("nats: {urls: 'nats://127.0.0.1:1'}")?;
    for stage in STAGES {
        let mut program = Program::named(stage).current_dir(workspace.path()).start()?;
        let output = program.wait(PATIENCE).await?.with_code(2)?;
        let expected =
            format!("{stage}: cloudmarker.yaml: nats.urls: unknown key `urls`; did you mean `url`? (allowed: url,");
        assert!(output.stderr.starts_with(&expected), "{output:?}");
        assert_eq!((output.stderr.lines().count(), output.stdout.as_str()), (1, ""), "{output:?}");
    }
    Ok(())
}

// What fails while it runs.

/// The default audit with an output folder that is in the way, and why.
fn unusable(in_the_way: fn(&Path) -> std::io::Result<()>) -> Result<Workspace> {
    let workspace = Workspace::new(OWN)?;
    in_the_way(&workspace.out()).context("cannot prepare the output folder")?;
    Ok(workspace)
}

fn assert_both_failed(output: &Output, reason: &str) {
    for role in ["store", "alert"] {
        let problem = format!("  ! {role} filestore: ");
        let line = output.stdout.lines().find(|line| line.starts_with(&problem));
        assert!(line.is_some_and(|line| line.contains(reason)), "{role}: {reason}\n{output:?}");
        let row = output.stdout.lines().find(|line| line.starts_with(role));
        assert!(row.is_some_and(|row| row.contains("failed")), "{output:?}");
    }
    // The rest of the run is done, and said.
    assert!(output.stdout.contains("INCOMPLETE"), "{output:?}");
    let whole = |role: &str, text: &str| output.stdout.lines().any(|line| line.contains(role) && line.contains(text));
    assert!(whole("cloud", "complete") && whole("event", "6 pass, 4 fail, 0 unknown"), "{output:?}");
}

/// What can be in the way of an output folder, and what is said of it.
fn obstacles() -> Result<Vec<(Workspace, String)>> {
    let mut obstacles = Vec::new();
    let mut add = |in_the_way: fn(&Path) -> std::io::Result<()>, reason: fn(&str) -> String| {
        let workspace = unusable(in_the_way)?;
        let reason = reason(&workspace.out().display().to_string());
        obstacles.push((workspace, reason));
        anyhow::Ok(())
    };
    add(
        |out| {
            let real = out.with_file_name("real");
            std::fs::create_dir(&real)?;
            symlink(real, out)
        },
        |out| format!("the folder {out} is a symbolic link; remove it, or set `path` to another folder"),
    )?;
    add(|out| std::fs::write(out, "mine"), |out| format!("{out} is not a folder; set `path` to one"))?;
    add(
        |out| {
            std::fs::create_dir(out)?;
            symlink("/dev/null", out.join("mockaudit_mockcloud.json"))?;
            symlink("/dev/null", out.join("mockaudit_mockevent.json"))
        },
        |_| ".json is a symbolic link; remove it, or set `path` to another folder".to_owned(),
    )?;
    if !rustix::process::geteuid().is_root() {
        // Root may write everywhere.
        add(
            |out| {
                std::fs::create_dir(out)?;
                std::fs::set_permissions(out, std::fs::Permissions::from_mode(0o500))
            },
            |out| format!("cannot create {out}/"),
        )?;
    }
    Ok(obstacles)
}

#[tokio::test]
async fn an_output_folder_that_cannot_be_used() -> Result<()> {
    for (workspace, reason) in obstacles()? {
        let before = contents(workspace.path())?;
        let output = workspace.run(&["run", "--now"]).await?.with_code(3)?;
        assert_both_failed(&output, &reason);
        let mut after = contents(workspace.path())?;
        after.remove("run.log");
        assert_eq!(after, before, "{output:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_output_folder_that_cannot_be_made() -> Result<()> {
    // Nobody can make a folder there, root included.
    let workspace = Workspace::new(&OWN.replace("{out}", "/proc/cloudmarker"))?;
    let output = workspace.run(&["run", "--now"]).await?.with_code(3)?;
    assert_both_failed(&output, "cannot create the folder /proc/cloudmarker: ");
    assert_both_failed(&output, "set `path` to another one");
    // Colours are for terminals.
    assert!(!output.stderr.contains('\u{1b}'), "{}", output.stderr);
    Ok(())
}

#[tokio::test]
async fn an_output_folder_that_no_sink_can_use() -> Result<()> {
    let nats = NatsServer::start().await?;
    let services = Services::start(&nats, 1)?;
    for (workspace, reason) in obstacles()? {
        let args = ["run", "--now", "--nats", nats.url(), "--wait-workers", "2"];
        let mut coordinator = workspace.coordinator(&args).start()?;
        let waiting = coordinator.wait_for_line("waiting: ", PATIENCE).await;
        // Well before the patience of a store that may come back.
        let output = coordinator.wait(Duration::from_secs(60)).await?;
        ensure!(output.code() == Some(3), "{output:?}\n{}", services.printed());
        assert_both_failed(&output, &reason);
        waiting?;
        assert!(output.stderr.contains(&reason), "{output:?}");
    }
    Ok(())
}
