use proto::coverage::Coverage;
use proto::run::AuditState;
use proto::status::Status;
use serde_json::json;

use super::*;
use crate::tally::Tally;

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn version(seconds: u32) -> Version {
    Version::new(&format!("20260131_2359{seconds:02}")).unwrap()
}

fn history(folder: &tempfile::TempDir) -> History {
    let state = folder.path().join("state");
    History::of_host(&Environment::empty().with("CM_STATE_DIR", state.to_str().unwrap()))
}

fn report(version: &Version, audit: &str, problems: &[&str], scopes: usize) -> AuditReport {
    let coverage = (0..scopes).map(|scope| Coverage::complete(&format!("scope-{scope}"), "nsg", 7));
    let report = json!({
        "audit": audit,
        "version": version,
        "clouds": [{"plugin": "cloud", "records": 10, "coverage": coverage.collect::<Vec<_>>()}],
        "events": [{"plugin": "rule", "results": {"events": 4}}],
        "outputs": [],
        "started": "2026-01-31T23:59:00Z",
        "ended": "2026-02-01T00:01:05Z",
        "frames": 1,
        "evaluated": 1,
        "problems": problems,
    });
    serde_json::from_value(report).unwrap()
}

fn state(version: &Version, audits: &[&str], phase: Phase, leader: &str) -> RunState {
    let audits: Vec<Key> = audits.iter().map(|audit| key(audit)).collect();
    let mut run = RunState::new(version.clone(), "2026-01-31T23:59:00Z".into(), leader.into(), &audits);
    for state in run.audits.values_mut() {
        *state = AuditState { phase, complete: (phase == Phase::Ended).then_some(true), ..AuditState::default() };
    }
    run
}

#[test]
fn what_a_run_came_to_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(&folder);
    assert!(history.entries(&Wanted::default()).unwrap().is_empty());
    history.note(&[state(&version(1), &["b", "a"], Phase::Planned, "x")], Some("id")).unwrap();
    let begun = history.entries(&Wanted::default()).unwrap();
    assert_eq!(begun.iter().map(|entry| entry.audit.as_str()).collect::<Vec<_>>(), ["b", "a"], "in their order");
    assert!(begun.iter().all(|entry| entry.outcome == Outcome::Running && entry.records.is_none()));

    let reports = [report(&version(1), "b", &[], 3), report(&version(1), "a", &["no"], 3)];
    history.record(&reports, Some("id")).unwrap();
    // What is noted late takes nothing back.
    history.note(&[state(&version(1), &["b", "a"], Phase::Planned, "x")], Some("id")).unwrap();
    let ended = history.entries(&Wanted::default()).unwrap();
    assert_eq!(
        ended.iter().map(|entry| (entry.outcome, entry.seconds, entry.records, entry.events)).collect::<Vec<_>>(),
        [(Outcome::Complete, Some(125), Some(10), Some(4)), (Outcome::Incomplete, Some(125), Some(10), Some(4))]
    );
    let kept = history.report(&key("a"), &version(1)).unwrap().unwrap();
    assert_eq!(serde_json::to_value(&kept).unwrap(), serde_json::to_value(&reports[1]).unwrap());
    assert!(history.report(&key("a"), &version(2)).unwrap().is_none());
}

#[test]
fn entries_are_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(&folder);
    for second in 0..5 {
        history.record(&[report(&version(second), "a", &[], 1)], None).unwrap();
        history.record(&[report(&version(second), "b", &[], 1)], Some("id")).unwrap();
    }
    let count = |wanted: Wanted<'_>| history.entries(&wanted).unwrap().len();
    assert_eq!(count(Wanted::default()), 10);
    assert_eq!(count(Wanted { broker: Some(""), ..Wanted::default() }), 5);
    assert_eq!(count(Wanted { audit: Some(&key("b")), ..Wanted::default() }), 5);
    assert_eq!(count(Wanted { version: Some(&version(3)), ..Wanted::default() }), 2);
    let newest = history.entries(&Wanted { limit: Some(1), ..Wanted::default() }).unwrap();
    assert_eq!(newest[0].version, version(4));
}

#[test]
fn a_run_whose_process_is_gone_is_not_running() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(&folder);
    let outcome = || history.entries(&Wanted::default()).unwrap()[0].outcome;
    history.note(&[state(&version(1), &["a"], Phase::Collecting, &crate::run::leader_name())], None).unwrap();
    assert_eq!(outcome(), Outcome::Running);
    let gone = format!("{}-coordinator-999999999", host_name());
    history.note(&[state(&version(1), &["a"], Phase::Collecting, &gone)], None).unwrap();
    assert_eq!(outcome(), Outcome::Unknown);
}

#[test]
fn lines_of_older_versions_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(&folder);
    let old = folder.path().join("state/runs.jsonl");
    std::fs::create_dir_all(old.parent().unwrap()).unwrap();
    let line = serde_json::to_string(&state(&version(1), &["a"], Phase::Ended, "x")).unwrap();
    std::fs::write(&old, format!("{line}\n{}", &line[..20])).unwrap();
    for _ in 0..2 {
        let entries = history.entries(&Wanted::default()).unwrap();
        assert_eq!((entries.len(), entries[0].outcome), (1, Outcome::Complete));
        assert!(!old.exists() && old.with_extension("jsonl.read").exists());
    }
}

#[test]
fn a_report_with_much_coverage_is_told_in_parts() {
    let whole = report(&version(1), "a", &[], 20_000);
    let statuses = whole.statuses("2026-02-01T00:01:05Z".into()).unwrap();
    assert!(statuses.len() > 2);
    let mut tally = Tally::default();
    for (_, status) in &statuses {
        let bytes = serde_json::to_vec(status).unwrap();
        assert!(bytes.len() < 512 * 1024, "{} bytes", bytes.len());
        for _ in 0..2 {
            tally.add(serde_json::from_slice(&bytes).unwrap());
        }
    }
    assert!(tally.awaits_coverage());
    let told = tally.ended().unwrap();
    assert_eq!(serde_json::to_value(&told).unwrap(), serde_json::to_value(&whole).unwrap());

    let small = report(&version(1), "a", &[], 5);
    let statuses = small.statuses(String::new()).unwrap();
    assert!(matches!(&statuses[..], [(_, Status::RunEnded { .. })]), "{statuses:?}");
}
