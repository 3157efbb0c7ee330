//! Configurations as people write them: those of the tutorial, and those with mistakes.

#![allow(clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proto::catalogue::PluginClass;
use proto::config::secret::Secret;
use proto::config::{
    BASE, BASE_NAME, Config, Environment, Level, Loaded, Overlap, Problem, ScheduleConfig, Severity, find_class, load,
    merge, params, validate,
};
use proto::plan::Stage;
use proto::service::log_file::{Rotation, When};
use proto::subject::{Key, Role};
use serde::Deserialize;
use serde_json::{Value, json};

// The classes: some that are served, with parameters of their own, and some that are known by name only.

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(dead_code)]
struct MockCloud {
    record_count: u64,
    record_types: Vec<String>,
}

impl Default for MockCloud {
    fn default() -> Self {
        Self { record_count: 10, record_types: Vec::new() }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
#[allow(dead_code)]
struct MockEvent {
    n: u64,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
#[allow(dead_code)]
struct FirewallRuleEvent {
    ports: Vec<u16>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
#[allow(dead_code)]
struct FileStore {
    path: Option<PathBuf>,
    compress: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
#[allow(dead_code)]
struct EsStore {
    host: String,
    port: u16,
    index: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct AzCloud {
    tenant: String,
    client: String,
    secret: Secret,
}

const AZ_CLOUD: &[(&str, &str)] = &[
    ("tenant", "the directory (tenant) id"),
    ("client", "the application (client) id"),
    ("secret", "the client secret, best as `${CM_AZURE_SECRET}`"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct GcpCloud {
    key_file_path: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum SslMode {
    Ssl,
    StartTls,
    Disable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct EmailAlert {
    from_addr: String,
    to_addrs: Vec<String>,
    subject: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    ssl_mode: Option<SslMode>,
}

type Check = proto::catalogue::Check;

const fn served(name: &'static str, roles: &'static [Role], stage: Stage, check: Check) -> PluginClass {
    PluginClass { name, roles, stage, exclusive: false, pool: None, check: Some(check) }
}

const KEEPS: &[Role] = &[Role::Store, Role::Alert];

static SERVED: [PluginClass; 8] = [
    served("cloudmarker.clouds.mockcloud.MockCloud", &[Role::Cloud], Stage::Collector, &|value| {
        params::read::<MockCloud>(value).map(drop)
    }),
    served("cloudmarker.clouds.azcloud.AzCloud", &[Role::Cloud], Stage::Collector, &|value| {
        params::read_with::<AzCloud>(value, AZ_CLOUD).map(drop)
    }),
    served("cloudmarker.clouds.gcpcloud.GCPCloud", &[Role::Cloud], Stage::Collector, &|value| {
        params::read::<GcpCloud>(value).map(drop)
    }),
    served("cloudmarker.events.mockevent.MockEvent", &[Role::Event], Stage::Evaluator, &|value| {
        params::read::<MockEvent>(value).map(drop)
    }),
    served("cloudmarker.events.firewallruleevent.FirewallRuleEvent", &[Role::Event], Stage::Evaluator, &|value| {
        params::read::<FirewallRuleEvent>(value).map(drop)
    }),
    served("cloudmarker.stores.filestore.FileStore", KEEPS, Stage::Sink, &|value| {
        params::read::<FileStore>(value).map(drop)
    }),
    served("cloudmarker.stores.esstore.EsStore", KEEPS, Stage::Sink, &|value| params::read::<EsStore>(value).map(drop)),
    served("cloudmarker.alerts.emailalert.EmailAlert", &[Role::Alert], Stage::Alerter, &|value| {
        params::read::<EmailAlert>(value).map(drop)
    }),
];

/// The served classes, and all that the base names as known ones.
fn classes() -> Vec<&'static PluginClass> {
    static PLANNED: std::sync::OnceLock<Vec<PluginClass>> = std::sync::OnceLock::new();
    let planned = PLANNED.get_or_init(|| {
        let mut names: Vec<String> = serde_yaml::from_str::<Value>(BASE).unwrap()["plugins"]
            .as_object()
            .unwrap()
            .values()
            .map(|plugin| plugin["plugin"].as_str().unwrap().to_owned())
            .collect();
        names.extend(
            ["clouds.azvm.AzVM", "stores.splunkhecstore.SplunkHECStore", "alerts.slackalert.SlackAlert"]
                .map(|name| format!("cloudmarker.{name}")),
        );
        names
            .into_iter()
            .filter(|name| SERVED.iter().all(|class| class.name != name))
            .map(|name| {
                let (roles, stage): (&[Role], Stage) = match name.split('.').nth(1) {
                    Some("clouds") => (&[Role::Cloud], Stage::Collector),
                    Some("events") => (&[Role::Event], Stage::Evaluator),
                    Some("stores") => (KEEPS, Stage::Sink),
                    _ => (&[Role::Alert], Stage::Alerter),
                };
                PluginClass::planned(name.leak(), roles, stage)
            })
            .collect()
    });
    SERVED.iter().chain(planned).collect()
}

fn check_text(text: &str) -> (Option<Config>, Vec<Problem>) {
    validate(&Loaded::base().with_text("a.yaml", text), &classes(), None)
}

/// The problems of a text, one a line, with their severity.
fn lines((_, problems): (Option<Config>, Vec<Problem>)) -> Vec<String> {
    problems.iter().map(|problem| format!("{}: {problem}", problem.severity)).collect()
}

fn good(text: &str) -> Config {
    let (config, problems) = check_text(text);
    assert_eq!(problems, [], "{text}");
    config.unwrap()
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn names(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(Key::as_str).collect()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

fn tutorial(name: &str) -> (Option<Config>, Vec<String>) {
    let text = std::fs::read_to_string(fixture(&format!("tutorial/{name}.yaml"))).unwrap();
    let checked = check_text(&text);
    (checked.0.clone(), lines(checked))
}

// The base.

#[test]
fn the_base_is_good_on_its_own() {
    let (config, problems) = validate(&Loaded::base(), &classes(), None);
    assert_eq!(problems, []);
    let config = config.unwrap();
    assert_eq!(config.plugins.len(), 31);
    assert_eq!(names(&config.run), ["mockaudit"]);
    assert_eq!(config.schedule, ScheduleConfig::default());
    assert_eq!(config.schedule.timing.to_string(), "00:00");
    let audit = &config.audits[&key("mockaudit")];
    assert_eq!(names(&audit.clouds), ["mockcloud"]);
    assert_eq!(names(&audit.stores), ["filestore"]);
    assert_eq!(names(&audit.events), ["mockevent"]);
    assert_eq!(names(audit.of_role(Role::Alert)), ["filestore"]);
    assert_eq!(config.logger.root_level, Level::Info);
    assert_eq!(config.logger.console().unwrap().level, Level::Warning);
    let file = config.logger.file().unwrap();
    assert_eq!((file.path.as_path(), file.backups), (Path::new("/tmp/cloudmarker.log"), 5));
    assert_eq!((config.email, config.nats), (None, None));
}

#[test]
fn the_base_names_classes_after_their_modules() {
    let base: Value = serde_yaml::from_str(BASE).unwrap();
    for (key, plugin) in base["plugins"].as_object().unwrap() {
        let class = plugin["plugin"].as_str().unwrap();
        let parts: Vec<&str> = class.split('.').collect();
        assert_eq!((parts.len(), parts[0], parts[2]), (4, "cloudmarker", key.as_str()), "{class}");
        assert_eq!(parts[3].to_lowercase(), *key, "{class}");
        assert_eq!(plugin.as_object().unwrap().len(), 1, "{key}");
    }
}

// The tutorial.

#[test]
fn every_configuration_of_the_tutorial_loads() {
    let set = |name: &str, what: &str| format!("error: a.yaml: plugins.myazcloud.params.{name}: set `{name}`: {what}");
    let credentials = || AZ_CLOUD.iter().map(|(name, what)| set(name, what)).collect::<BTreeSet<_>>();
    let unserved = |path: &str, class: &str| {
        format!(
            "warning: {path}.plugin: the class `cloudmarker.{class}` is known, but this version does not serve it; no audit can run with it"
        )
    };
    let mongo = unserved(&format!("{BASE_NAME}: plugins.mongodbstore"), "stores.mongodbstore.MongoDBStore");
    let expected: Vec<(&str, BTreeSet<String>)> = vec![
        ("get-started", BTreeSet::new()),
        ("mockcloud-in-base", BTreeSet::new()),
        ("mockcloud", BTreeSet::new()),
        ("mockevent", BTreeSet::new()),
        ("filestore", BTreeSet::new()),
        ("esstore-minimal", BTreeSet::new()),
        ("emailalert", BTreeSet::new()),
        ("logger", BTreeSet::new()),
        ("azcloud", credentials()),
        ("firewallruleevent", credentials()),
        (
            "azvm",
            [
                unserved("a.yaml: plugins.myazvm", "clouds.azvm.AzVM"),
                unserved(
                    &format!("{BASE_NAME}: plugins.azvmosdiskencryptionevent"),
                    "events.azvmosdiskencryptionevent.AzVMOSDiskEncryptionEvent",
                ),
                unserved(
                    &format!("{BASE_NAME}: plugins.azvmdatadiskencryptionevent"),
                    "events.azvmdatadiskencryptionevent.AzVMDataDiskEncryptionEvent",
                ),
            ]
            .into(),
        ),
        (
            "gcpcloud",
            ["warning: a.yaml: plugins.mygcpcloud.params.zone: `zone` has no effect, all zones are read; leave it out"
                .to_owned()]
            .into(),
        ),
        (
            "esstore",
            ["warning: a.yaml: plugins.esstore: found parameters beside `plugin`: host, index, port; they are read, move them under `params`".to_owned()]
            .into(),
        ),
        ("mongodbstore-minimal", [mongo.clone()].into()),
        (
            "mongodbstore",
            [
                mongo,
                "warning: a.yaml: plugins.mongodbstore: found parameters beside `plugin`: collection, db, host, password, port, username; they are read, move them under `params`".to_owned(),
            ]
            .into(),
        ),
        (
            "splunkhecstore",
            [unserved("a.yaml: plugins.splunkstore", "stores.splunkhecstore.SplunkHECStore")].into(),
        ),
        ("slackalert", [unserved("a.yaml: plugins.slackalert", "alerts.slackalert.SlackAlert")].into()),
        ("email", ["warning: a.yaml: emailalert: found `emailalert`; read as `email`, write it so".to_owned()].into()),
        (
            "foo",
            ["error: a.yaml: run[1]: no audit `fooaudit` is defined under `audits`; did you mean `mockaudit`?".to_owned()].into(),
        ),
        ("bar", ["error: a.yaml: run[0]: no audit `baraudit` is defined under `audits`".to_owned()].into()),
    ];
    for (name, problems) in &expected {
        let (config, found) = tutorial(name);
        assert_eq!(&found.iter().cloned().collect::<BTreeSet<_>>(), problems, "{name}");
        assert_eq!(config.is_some(), !problems.iter().any(|problem| problem.starts_with("error")), "{name}");
    }
    let files = std::fs::read_dir(fixture("tutorial")).unwrap().count();
    assert_eq!(files, expected.len(), "each file is tested");
}

#[test]
fn what_the_tutorial_sets_arrives() {
    let config = |name: &str| tutorial(name).0.unwrap();
    let params = |name: &str, plugin: &str| config(name).plugins[&key(plugin)].params.clone();
    assert_eq!(
        params("get-started", "mymockcloud"),
        json!({"record_count": 5, "record_types": ["apple", "ball", "cat"]})
    );
    assert_eq!(params("mockevent", "mockevent"), json!({"n": 5}));
    assert_eq!(params("esstore", "esstore"), json!({"host": "localhost", "port": 9200, "index": "cloudmarker"}));
    assert_eq!(params("gcpcloud", "mygcpcloud"), json!({"key_file_path": "keyfile.json"}));
    assert_eq!(params("splunkhecstore", "splunkstore")["ca_cert"], json!(false));
    assert_eq!(config("esstore").plugins[&key("esstore")].class, "cloudmarker.stores.esstore.EsStore");
    assert_eq!(config("logger").logger.file().map(|file| file.path.as_path()), Some(Path::new("log/cloudmarker.log")));
    assert_eq!(config("email").email.unwrap()["subject"], "Cloudmarker Alert");
    let audit = &config("splunkhecstore").audits[&key("mockaudit")];
    assert_eq!((names(&audit.stores), names(&audit.alerts)), (vec!["filestore", "splunkstore"], vec!["filestore"]));
}

// Files.

#[test]
fn files_are_merged_in_their_order() {
    let file = |name: &str| fixture(&format!("tutorial/{name}.yaml"));
    let loaded = load(Some(&[file("get-started"), file("mockcloud"), file("filestore")]), &Environment::empty());
    let (config, problems) = validate(&loaded, &classes(), None);
    assert_eq!(problems, []);
    let config = config.unwrap();
    assert_eq!(config.plugins[&key("mockcloud")].params["record_count"], 20);
    assert_eq!(config.plugins[&key("mymockcloud")].params["record_count"], 5);
    assert_eq!(names(&config.run), ["mymockaudit"]);
    let merged = load(Some(&[file("foo"), file("bar")]), &Environment::empty());
    assert_eq!(merged.value()["run"], json!(["baraudit"]));
}

#[test]
fn default_files_are_read_as_far_as_they_exist() {
    if Path::new("/etc/cloudmarker.yaml").exists() {
        return; // This host has a configuration of its own.
    }
    let home = fixture("home");
    let environment = Environment::empty().with("HOME", home.to_str().unwrap()).in_directory(fixture("here"));
    let (config, problems) = validate(&load(None, &environment), &classes(), None);
    assert_eq!(problems, []);
    let config = config.unwrap();
    // The file here wins over those in the home directory, the visible one there over the hidden one.
    assert_eq!(config.schedule.timing.to_string(), "03:00");
    assert_eq!(config.plugins[&key("mockcloud")].params, json!({"record_count": 2, "record_types": ["hidden"]}));

    let nowhere = Environment::empty().with("HOME", "/nonexistent").in_directory("/nonexistent");
    assert_eq!(load(None, &nowhere).value(), Loaded::base().value());
    assert_eq!(load(None, &Environment::empty().in_directory("/nonexistent")).value(), Loaded::base().value());
    assert_eq!(load(Some(&[]), &environment).value(), Loaded::base().value());
}

#[test]
fn a_file_that_is_named_must_exist() {
    let files = [PathBuf::from("missing.yaml"), PathBuf::from("~/none.yaml")];
    let environment = Environment::empty().with("HOME", "/nonexistent").in_directory("/nonexistent");
    let checked = validate(&load(Some(&files), &environment), &classes(), None);
    assert!(checked.0.is_none());
    assert_eq!(
        lines(checked),
        [
            "error: missing.yaml: there is no such file; correct its name or leave it out",
            "error: /nonexistent/none.yaml: there is no such file; correct its name or leave it out",
        ]
    );
    let directory = load(Some(&[fixture("tutorial")]), &environment);
    let found = lines(validate(&directory, &classes(), None));
    assert!(found[0].contains("the file cannot be read: "), "{found:?}");
}

#[test]
fn what_is_no_configuration_is_refused() {
    let cases = [("- a\n- b\n", "a list"), ("hello", "the text \"hello\""), ("5", "the number 5")];
    for (text, found) in cases {
        let expected = format!(
            "error: a.yaml: found {found}; a mapping with some of the keys plugins, audits, run, rules, schedule, timezone, catch_up, overlap, logger, email, nats is expected"
        );
        assert_eq!(lines(check_text(text)), [expected]);
    }
    assert_eq!(
        lines(check_text("plugins:\n  a: [1,\nrun: x\n")),
        [
            "error: a.yaml: not valid YAML: did not find expected ',' or ']' at line 4 column 1, while parsing a flow sequence at line 2 column 6"
        ]
    );
}

#[test]
fn an_empty_file_changes_nothing() {
    for text in ["", "\n# nothing yet\n", "---\n", "plugins: {}\n"] {
        assert_eq!(good(text), good(""));
    }
}

#[test]
fn a_repeated_key_is_told_beside_all_else() {
    let text =
        "run: [mockaudit]\nplugins:\n  a: {plugin: MockCloud}\n  a: {plugin: MockCloud}\nrun: [mockaudit]\nx: 1\n";
    assert_eq!(
        lines(check_text(text)),
        [
            "error: a.yaml: plugins.a: found this key a second time (line 4, column 3); keep one of them, or merge the two",
            "error: a.yaml: run: found this key a second time (line 5, column 1); keep one of them, or merge the two",
            "error: a.yaml: x: unknown key `x` (allowed: plugins, audits, run, rules, schedule, timezone, catch_up, overlap, logger, email, nats)",
        ]
    );
}

#[test]
fn merging_is_as_it_always_was() {
    for line in std::fs::read_to_string(fixture("merge_dicts.jsonl")).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let args = case["args"].as_array().unwrap();
        let Some(output) = case.get("output") else {
            // What was an error there never comes to merging here.
            assert!(args.iter().any(|arg| !arg.is_object()), "{line}");
            continue;
        };
        let mut merged = json!({});
        args.iter().for_each(|arg| merge(&mut merged, arg.clone()));
        assert_eq!(&merged, output, "{line}");
    }
}

// Mistakes, one a line: a text, and what is said of it.

#[track_caller]
fn said(text: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(lines(check_text(text)), expected, "{text}");
}

#[test]
fn mistakes_at_the_top() {
    said(
        "plugin: {}",
        &[
            "error: a.yaml: plugin: unknown key `plugin`; did you mean `plugins`? (allowed: plugins, audits, run, rules, schedule, timezone, catch_up, overlap, logger, email, nats)",
        ],
    );
    said(
        "plugins: null\nrun: []\naudits: {mockaudit: {clouds: [], stores: [], events: [], alerts: []}}",
        &[
            "error: a.yaml: plugins: found null; a mapping of plugin keys to plugins is expected",
            "warning: a.yaml: run: no audit is listed; nothing runs",
        ],
    );
    said(
        "audits: null\nrun: null",
        &[
            "error: a.yaml: audits: found null; a mapping of audit keys to audits is expected",
            "error: a.yaml: run: found null; a list of audit keys is expected",
        ],
    );
    said(
        "schedule: 1030",
        &[
            "error: a.yaml: schedule: found the number 1030; a time of day (\"00:00\" to \"23:59\"), a cron expression (\"30 2 * * 1-5\") or an interval (\"every 6h\") is expected",
        ],
    );
    said(
        "schedule: 24:00",
        &[
            "error: a.yaml: schedule: found the text \"24:00\"; a time of day (\"00:00\" to \"23:59\"), a cron expression (\"30 2 * * 1-5\") or an interval (\"every 6h\") is expected",
        ],
    );
}

#[test]
fn schedules() {
    let good_ones = [
        ("10:30", "10:30"),
        ("\"00:00\"", "00:00"),
        ("9:05", "09:05"),
        ("23:59:59", "23:59:59"),
        ("\"*/10 * * * *\"", "*/10 * * * *"),
        ("30  2 * * mon-fri", "30 2 * * mon-fri"),
        ("0 30 2 L * *", "0 30 2 L * *"),
        ("\"@weekly\"", "@weekly"),
        ("every 6h", "every 6h"),
        ("every 90 minutes", "every 1h30m"),
        ("every 5s", "every 5s"),
    ];
    for (text, schedule) in good_ones {
        assert_eq!(good(&format!("schedule: {text}")).schedule.timing.to_string(), schedule);
    }
    for text in [
        "10",
        "10:3",
        "10:60",
        "-1:00",
        "noon",
        "10:30:",
        "1O:30",
        "null",
        "1:2:3:4",
        "+1:00",
        "10:30:60",
        "\"\"",
        "[x]",
        "30 2 * *",
        "60 2 * * *",
        "1 2 3 4 5 6 7",
        "30 2 30 2 *",
        "\"@never\"",
        "every",
        "every 0s",
        "every day",
        "every 1500ms",
        "every -5m",
        "every 400 days",
    ] {
        assert_eq!(lines(check_text(&format!("schedule: {text}"))).len(), 1, "{text}");
    }
}

#[test]
fn an_audit_has_the_schedule_of_all_but_for_what_it_says_itself() {
    let config = good(
        "schedule: '1:30'\ntimezone: Europe/Berlin\noverlap: queue\naudits:\n  \
         a: {clouds: [mockcloud]}\n  b: {clouds: [mockcloud], schedule: every 1h, catch_up: yes, overlap: skip}\n  \
         c: {clouds: [mockcloud], timezone: America/New_York}",
    );
    let of = |name: &str| &config.audits[&key(name)].schedule;
    assert_eq!(of("a"), &config.schedule);
    assert_eq!(config.schedule.timezone.as_deref(), Some("Europe/Berlin"));
    assert_eq!((config.schedule.overlap, config.schedule.catch_up), (Overlap::Queue, false));
    assert_eq!(of("b").timing.to_string(), "every 1h");
    assert_eq!((of("b").overlap, of("b").catch_up), (Overlap::Skip, true));
    assert_eq!(of("c").timing, of("a").timing);
    assert_eq!(of("c").timezone.as_deref(), Some("America/New_York"));
}

#[test]
fn mistakes_in_schedules() {
    said(
        "schedule: 30 2 * *\ntimezone: Europe/Berln\ncatch_up: maybe\noverlap: both\naudits: {a: {clouds: [mockcloud], schedule: every 0s, timezone: 1}}",
        &[
            "error: a.yaml: schedule: found the text \"30 2 * *\"; a cron expression has five fields, or six with the seconds first; here are 4",
            "error: a.yaml: timezone: found the text \"Europe/Berln\"; the name of a time zone is expected, such as `Europe/Berlin`; did you mean `Europe/Berlin`?",
            "error: a.yaml: catch_up: found the text \"maybe\"; `true` or `false` is expected",
            "error: a.yaml: overlap: found the text \"both\"; `skip` or `queue` is expected",
            "error: a.yaml: audits.a.schedule: found the text \"every 0s\"; an interval of whole seconds is expected, such as \"every 30m\", \"every 6h\" or \"every 1h 30m\"; for days, a time of day or a cron expression says at what time",
            "error: a.yaml: audits.a.timezone: found the number 1; the name of a time zone is expected, such as `Europe/Berlin`",
        ],
    );
    said(
        "schedule: 30 2 30 2 *",
        &["error: a.yaml: schedule: found the text \"30 2 30 2 *\"; no day ever matches this cron expression"],
    );
}

#[test]
fn mistakes_in_plugins() {
    said(
        "plugins: {mock: {plugin: cloudmarker.clouds.mockcloud.MockClud}}",
        &[
            "error: a.yaml: plugins.mock.plugin: unknown plugin class `cloudmarker.clouds.mockcloud.MockClud`; did you mean `cloudmarker.clouds.mockcloud.MockCloud`?",
        ],
    );
    said(
        "plugins: {mock: {plugin: cloudmarker.clouds.oracle.Exadata}}",
        &[
            "error: a.yaml: plugins.mock.plugin: unknown plugin class `cloudmarker.clouds.oracle.Exadata` (known: MockCloud, AzCloud, GCPCloud, AzVM)",
        ],
    );
    said(
        "plugins: {mock: {plugin: 5}}",
        &["error: a.yaml: plugins.mock.plugin: found the number 5; the name of a plugin class is expected"],
    );
    said(
        "plugins: {mockclod: {params: {record_count: 5}}}",
        &[
            "error: a.yaml: plugins.mockclod: no class is named; set `plugin` to a plugin class, or did you mean the plugin `mockcloud`?",
        ],
    );
    said(
        "plugins: {filestore: null, x: 5}",
        &[
            "error: a.yaml: plugins.filestore: found null; a mapping with `plugin` and, if need be, `params` is expected",
            "error: a.yaml: plugins.x: found the number 5; a mapping with `plugin` and, if need be, `params` is expected",
        ],
    );
    said(
        "plugins: {mockcloud: {parms: {record_count: 5}}}",
        &[
            "error: a.yaml: plugins.mockcloud.parms: unknown key `parms`; did you mean `params`? (allowed: plugin, params, pool)",
        ],
    );
    said(
        "plugins: {mongodbstore: {parms: {host: a}}}",
        &[
            "error: a.yaml: plugins.mongodbstore.parms: unknown key `parms`; did you mean `params`? (allowed: plugin, params, pool)",
        ],
    );
    said(
        "plugins: {mock: {plugn: MockCloud}}",
        &[
            "error: a.yaml: plugins.mock: no class is named; set `plugin` to a plugin class",
            "error: a.yaml: plugins.mock.plugn: unknown key `plugn`; did you mean `plugin`? (allowed: plugin, params, pool)",
        ],
    );
    said(
        "plugins: {esstore: {hots: localhost}}",
        &[
            "error: a.yaml: plugins.esstore.hots: unknown parameter `hots`; did you mean `host`? (allowed: host, port, index)",
        ],
    );
    said(
        "plugins: {esstore: {host: localhost, params: {host: localhost}}}",
        &["error: a.yaml: plugins.esstore.host: `host` stands here and under `params`; keep the one under `params`"],
    );
    said(
        "plugins: {esstore: {port: many}}",
        &[
            "warning: a.yaml: plugins.esstore: found parameters beside `plugin`: port; they are read, move them under `params`",
            "error: a.yaml: plugins.esstore.port: found the text \"many\"; a whole number from 0 to 65535 is expected",
        ],
    );
    said(
        "plugins: {esstore: {params: [a]}}",
        &["error: a.yaml: plugins.esstore.params: found a list; a mapping of parameters is expected (`name: value`)"],
    );
    said(
        "plugins: {filestore: {pool: a}, mockcloud: {pool: [a]}}",
        &[
            "error: a.yaml: plugins.filestore.pool: only clouds have a pool; leave it out",
            "error: a.yaml: plugins.mockcloud.pool: found a list; the name of a pool is expected",
        ],
    );
    said(
        "plugins: {mock: {plugin: arachnoid.clouds.MockCloud}}",
        &[
            "warning: a.yaml: plugins.mock.plugin: found the class `arachnoid.clouds.MockCloud`; read as `cloudmarker.clouds.mockcloud.MockCloud`, write it so",
        ],
    );
}

#[test]
fn mistakes_in_parameters() {
    said(
        "plugins: {mockcloud: {params: {recrod_count: 5, record_types: foo}}}",
        &[
            "error: a.yaml: plugins.mockcloud.params.record_types: found the text \"foo\"; a list is expected",
            "error: a.yaml: plugins.mockcloud.params.recrod_count: unknown parameter `recrod_count`; did you mean `record_count`? (allowed: record_count, record_types)",
        ],
    );
    said(
        "plugins: {mockevent: {params: {n: abc}}}",
        &["error: a.yaml: plugins.mockevent.params.n: found the text \"abc\"; a whole number is expected"],
    );
    said(
        "plugins: {mockevent: {params: {n: -3}}}",
        &["error: a.yaml: plugins.mockevent.params.n: found the number -3; a whole number, 0 or more, is expected"],
    );
    said(
        "plugins: {mockcloud: {params: {record_types: [a, 5, [b]]}}}",
        &[
            "error: a.yaml: plugins.mockcloud.params.record_types[1]: found the number 5; a text is expected; write it in quotes",
            "error: a.yaml: plugins.mockcloud.params.record_types[2]: found a list; a text is expected",
        ],
    );
    said(
        "plugins: {firewallruleevent: {params: {ports: [22, ssh, 70000]}}}",
        &[
            "error: a.yaml: plugins.firewallruleevent.params.ports[1]: found the text \"ssh\"; a whole number from 0 to 65535 is expected",
            "error: a.yaml: plugins.firewallruleevent.params.ports[2]: found the number 70000; a whole number from 0 to 65535 is expected",
        ],
    );
    said(
        "plugins: {az: {plugin: AzCloud, params: {tenant: null, client: 5, secret: 12345}}}",
        &[
            "error: a.yaml: plugins.az.params.client: found the number 5; a text is expected; write it in quotes",
            "error: a.yaml: plugins.az.params.secret: found a number; a text is expected; write it in quotes",
            "error: a.yaml: plugins.az.params.tenant: set `tenant`: the directory (tenant) id",
        ],
    );
    said(
        "plugins: {az: {plugin: AzCloud}}",
        &[
            "error: a.yaml: plugins.az.params.client: set `client`: the application (client) id",
            "error: a.yaml: plugins.az.params.secret: set `secret`: the client secret, best as `${CM_AZURE_SECRET}`",
            "error: a.yaml: plugins.az.params.tenant: set `tenant`: the directory (tenant) id",
        ],
    );
    said(
        "plugins: {filestore: {params: {path: \"${CM_PATH\"}}, mongodbstore: {params: {a: [\"${file:}\"]}}}",
        &[
            "error: a.yaml: plugins.filestore.params.path: `${` is not closed by `}`; write `$${` for a dollar and a brace",
            "error: a.yaml: plugins.mongodbstore.params.a[0]: `${file:}` is not a reference; `${NAME}` or `${file:PATH}` is expected, `$$` stands for a dollar",
        ],
    );
    said(
        "plugins: {filestore: {params: {compress: maybe}}}",
        &["error: a.yaml: plugins.filestore.params.compress: found the text \"maybe\"; `true` or `false` is expected"],
    );
}

#[test]
fn what_is_fine_in_parameters() {
    good("plugins: {mockcloud: {params: null}}");
    good("plugins: {mockcloud: {params: {record_count: null}}}");
    for word in ["yes", "no", "On", "OFF", "true"] {
        good(&format!("plugins: {{filestore: {{params: {{compress: {word}}}}}}}"));
    }
    let config = good("plugins: {mine: {plugin: MockCloud, pool: tenant-b, params: {record_types: [yes, on]}}}");
    let mine = &config.plugins[&key("mine")];
    assert_eq!(mine.class, "cloudmarker.clouds.mockcloud.MockCloud");
    assert_eq!(mine.pool, Some(key("tenant-b")));
    assert_eq!(mine.params, json!({"record_types": ["yes", "on"]}));
}

#[test]
fn mistakes_in_audits() {
    said(
        "audits: {mockaudit: {clouds: null}}",
        &["error: a.yaml: audits.mockaudit.clouds: found null; a list of plugin keys is expected"],
    );
    said(
        "audits: {mockaudit: {clouds: mockcloud}}",
        &[
            "error: a.yaml: audits.mockaudit.clouds: found the text \"mockcloud\"; a list of plugin keys is expected; write `[mockcloud]`",
        ],
    );
    said(
        "audits: {mockaudit: null}",
        &[
            "error: a.yaml: audits.mockaudit: found null; a mapping with the keys clouds, stores, events and alerts is expected",
        ],
    );
    said(
        "audits: {mockaudit: {cloud: [mockcloud]}}",
        &[
            "error: a.yaml: audits.mockaudit.cloud: unknown key `cloud`; did you mean `clouds`? (allowed: clouds, stores, events, alerts, schedule, timezone, catch_up, overlap)",
        ],
    );
    said(
        "audits: {mockaudit: {clouds: [mockclod, null]}}",
        &[
            "error: a.yaml: audits.mockaudit.clouds[1]: found null; a list of plugin keys is expected",
            "error: a.yaml: audits.mockaudit.clouds[0]: no plugin `mockclod` is defined under `plugins`; did you mean `mockcloud`?",
        ],
    );
    said(
        "audits: {mockaudit: {stores: [filestore, mockevent], alerts: [mockcloud], events: [filestore]}}",
        &[
            "error: a.yaml: audits.mockaudit.stores[1]: the plugin `mockevent` (MockEvent) cannot be a store; it can stand under `events`",
            "error: a.yaml: audits.mockaudit.events[0]: the plugin `filestore` (FileStore) cannot be an event; it can stand under `stores` and `alerts`",
            "error: a.yaml: audits.mockaudit.alerts[0]: the plugin `mockcloud` (MockCloud) cannot be an alert; it can stand under `clouds`",
        ],
    );
    said(
        "audits: {mockaudit: {stores: [filestore, filestore]}}",
        &["error: a.yaml: audits.mockaudit.stores[1]: `filestore` is listed a second time; list it once"],
    );
    said(
        "audits: {empty: {}}\nrun: [empty]",
        &["warning: a.yaml: audits.empty: this audit has no clouds; it reads nothing"],
    );
}

#[test]
fn mistakes_in_run() {
    said(
        "run: [mockadit]",
        &["error: a.yaml: run[0]: no audit `mockadit` is defined under `audits`; did you mean `mockaudit`?"],
    );
    said("run: [mockaudit, mockaudit]", &["error: a.yaml: run[1]: `mockaudit` is listed a second time; list it once"]);
    said(
        "run: mockaudit",
        &["error: a.yaml: run: found the text \"mockaudit\"; a list of audit keys is expected; write `[mockaudit]`"],
    );
}

#[test]
fn the_command_line_can_name_the_audits() {
    let loaded = Loaded::base().with_text("a.yaml", "audits: {b: {clouds: [mockcloud]}, 7: {clouds: [mockcloud]}}");
    let with = |audits: &[&str]| {
        let audits: Vec<String> = audits.iter().map(|audit| (*audit).to_owned()).collect();
        validate(&loaded, &classes(), Some(&audits))
    };
    let (config, problems) = with(&["b", "7"]);
    assert_eq!((names(&config.unwrap().run), problems), (vec!["b", "7"], vec![]));
    assert_eq!(
        lines(with(&["mockadit", "b", "b"])),
        [
            "error: --audit: no audit `mockadit` is defined under `audits`; did you mean `mockaudit`?",
            "error: --audit: `b` is named a second time; name it once",
        ]
    );
}

#[test]
fn keys_that_are_too_long_for_a_subject_are_refused() {
    let long = "a".repeat(91);
    let message = format!(
        "the name {long:?} is too long: 91 bytes as a part of a subject, at most 90 are allowed; choose a shorter one"
    );
    said(
        &format!("plugins: {{{long}: {{plugin: MockCloud}}}}\naudits: {{{long}: {{clouds: [mockcloud]}}}}"),
        &[&format!("error: a.yaml: plugins.{long}: {message}"), &format!("error: a.yaml: audits.{long}: {message}")],
    );
}

#[test]
fn mistakes_in_the_logger() {
    said(
        "logger: {root: {level: WARNIN, handlers: [console, fil]}, handler: {}, handlers: {file: {filename: null, filname: x}, syslog: {class: a}}}",
        &[
            "error: a.yaml: logger.handler: unknown key `handler`; did you mean `handlers`? (allowed: version, disable_existing_loggers, formatters, filters, handlers, loggers, root, incremental)",
            "error: a.yaml: logger.root.level: found the text \"WARNIN\"; a level is expected; did you mean `WARNING`? (allowed: DEBUG, INFO, WARNING, ERROR, CRITICAL, NOTSET)",
            "error: a.yaml: logger.root.handlers[1]: no handler `fil` is defined under `logger.handlers`; did you mean `file`?",
            "error: a.yaml: logger.handlers.file.filname: unknown key `filname`; did you mean `filename`? (allowed: class, level, formatter, filters, filename, mode, encoding, delay, errors, when, interval, backupCount, maxBytes, utc, atTime)",
            "error: a.yaml: logger.handlers.file.filename: found null; the path of a file is expected",
            "warning: a.yaml: logger.handlers.syslog: this handler has no effect: its class `a` is not served (served: logging.StreamHandler, logging.FileHandler, logging.NullHandler, logging.handlers.TimedRotatingFileHandler, logging.handlers.RotatingFileHandler, logging.handlers.WatchedFileHandler)",
        ],
    );
}

#[test]
fn mistakes_in_formats_and_rotation() {
    said(
        "logger: {formatters: {simple: {format: '%(mesage)s'}, other: {style: '{'}}, handlers: {console: {formatter: simpl}, file: {when: noon, backupCount: -1, utc: perhaps, interval: x}}}",
        &[
            "error: a.yaml: logger.formatters.other.style: found the text \"{\"; formats are of the style `%`: `%(message)s`",
            "error: a.yaml: logger.formatters.simple.format: `%(mesage)`: unknown attribute; did you mean `message`? (allowed: asctime, created, filename, funcName, levelname, levelno, lineno, message, module, msecs, name, pathname, process, processName, thread, threadName)",
            "error: a.yaml: logger.handlers.console.formatter: no formatter `simpl` is defined under `logger.formatters`; did you mean `simple`?",
            "error: a.yaml: logger.handlers.file.utc: found the text \"perhaps\"; true or false is expected",
            "error: a.yaml: logger.handlers.file.interval: found the text \"x\"; a whole number is expected",
            "error: a.yaml: logger.handlers.file.when: found the text \"noon\"; a time is expected (allowed: S, M, H, D, W0 to W6, midnight)",
            "error: a.yaml: logger.handlers.file.backupCount: found the number -1; a whole number is expected",
        ],
    );
    let problems = lines(check_text("logger: {formatters: {simple: {datefmt: '%Y-%J'}}}"));
    let said = "error: a.yaml: logger.formatters.simple.datefmt: `%Y-%J` is no date format as strftime takes it: ";
    assert!(problems.len() == 1 && problems[0].starts_with(said), "{problems:?}");
}

#[test]
fn the_logger_is_read() {
    let logger = good("logger: {root: {level: debug, handlers: [console]}, handlers: {console: {level: 40}}}").logger;
    assert_eq!((logger.root_level, logger.console().unwrap().level), (Level::Debug, Level::Error));
    assert_eq!(logger.file(), None);
    let logger = good("logger: {root: {handlers: [file]}}").logger;
    assert_eq!((logger.console(), logger.file().is_some()), (None, true));
    let own = "logger: {root: {handlers: [own]}, handlers: {own: {class: logging.handlers.TimedRotatingFileHandler, filename: x, when: W6, utc: true, backupCount: 3}}}";
    let file = good(own).logger.file().unwrap().clone();
    let when = When::Weekly(jiff::civil::Weekday::Sunday);
    assert_eq!((file.rotation, file.backups), (Rotation::Timed { when, utc: true }, 3));
    let parts =
        "logger: {loggers: {cloudmarker.clouds: {level: DEBUG}, collector.http: {level: ERROR}, hyper: {level: 20}}}";
    let mut loggers = good(parts).logger.loggers;
    loggers.sort();
    let part = |name: &str, level| (name.to_owned(), level);
    let expected = [part("collector", Level::Debug), part("collector::http", Level::Error), part("hyper", Level::Info)];
    assert_eq!(loggers, expected);
    said(
        "logger: {loggers: {adal-python: {level: WARNING}}}",
        &[
            "warning: a.yaml: logger.loggers.adal-python: this has no effect: nothing is logged under this name; names begin with cloudmarker, proto, collector, evaluator, sink, alerter, coordinator, or a library such as async_nats, azure_core, azure_identity, h2, hyper, hyper_util, lettre, mongodb, reqwest, rustls, tokio, tower",
        ],
    );
}

#[test]
fn mails_and_the_broker() {
    let config =
        good("email: {from_addr: a, to_addrs: [b], subject: c}\nnats: {url: \"nats://a,nats://b\", replicas: 3}");
    assert_eq!(config.email.unwrap()["to_addrs"], json!(["b"]));
    let nats = config.nats.unwrap();
    assert_eq!((nats.url, nats.replicas), (vec!["nats://a".to_owned(), "nats://b".to_owned()], Some(3)));
    good("email: null\nnats: null");
    said(
        "email: {from: a, to_addrs: b, subject: c, ssl_mode: startls}\nnats: {password: \"${X\", records_max_bytes: lots}",
        &[
            "error: a.yaml: email.from: unknown parameter `from` (allowed: from_addr, to_addrs, subject, host, ssl_mode)",
            "error: a.yaml: email.from_addr: set `from_addr`: it is required",
            "error: a.yaml: email.ssl_mode: found the text \"startls\"; did you mean `starttls`? (allowed: ssl, starttls, disable)",
            "error: a.yaml: email.to_addrs: found the text \"b\"; a list is expected",
            "error: a.yaml: nats.password: `${` is not closed by `}`; write `$${` for a dollar and a brace",
            "error: a.yaml: nats.records_max_bytes: found the text \"lots\"; a number of bytes, or a size such as `8GiB` or `500MB`, is expected",
        ],
    );
    said(
        "email: [a]",
        &[
            "error: a.yaml: email: found a list; a mapping with from_addr, to_addrs, subject and the mail server is expected",
        ],
    );
    said(
        "email: {from_addr: a, to_addrs: [b], subject: c}\nemailalert: {from_addr: a, to_addrs: [b], subject: c}",
        &["error: a.yaml: emailalert: found both `email` and `emailalert`; keep `email`"],
    );
}

#[test]
fn each_problem_names_the_file_that_it_came_from() {
    let loaded = Loaded::base()
        .with_text("one.yaml", "plugins: {mockcloud: {params: {record_count: x, record_types: 5}}}")
        .with_text("two.yaml", "plugins: {mockcloud: {params: {record_types: 6}, plugin: AzVM}}\nschedule: x")
        .with_text("three.yaml", "plugins: {mockcloud: {plugin: MockCloud}}\nrun: [gone]");
    let found = lines(validate(&loaded, &classes(), None));
    let files: Vec<&str> = found.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(files, ["one.yaml", "two.yaml", "two.yaml", "three.yaml"], "{found:#?}");
}

#[test]
fn planning_can_find_the_class_that_is_not_served() {
    let (config, problems) = check_text("audits: {mockaudit: {stores: [mongodbstore]}}");
    assert!(problems.iter().all(|problem| problem.severity == Severity::Warning));
    let class = find_class(&config.unwrap().plugins[&key("mongodbstore")].class, &classes()).unwrap();
    assert!(class.check.is_none());
}

#[test]
fn no_secret_is_printed() {
    let text = "plugins: {az: {plugin: AzCloud, params: {tenant: a, client: b, secret: hunter2}}}\n\
                email: {from_addr: a, to_addrs: [b], subject: hunter2}\n\
                nats: {user: a, password: hunter2}";
    let shown = format!("{:?}", good(text));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("secret"), "{shown}");
    let wrong =
        lines(check_text("plugins: {az: {plugin: AzCloud, params: {tenant: a, client: b, secret: [hunter2]}}}"));
    assert!(!wrong.join("\n").contains("hunter2"), "{wrong:?}");
}
