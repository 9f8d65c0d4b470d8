//! The sweep as its user runs it: points listed, visited in all four ways, judged, judged again, and found again by name.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nogo_harness::environment::system_binary;
use nogo_harness::point_sweep::{PointFault, SweepResults};
use nogo_invariants::verdict::Launch;

fn nogo(store: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nogo"))
        .args(["--quiet", "--json", "--store"])
        .arg(store)
        .args(arguments)
        .output()
        .expect("run nogo")
}

fn results(output: &Output) -> SweepResults {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}; exit {:?}; nogo said: {}", output.status.code(), String::from_utf8_lossy(&output.stderr))
    })
}

/// Name of the one commit that rotates the token.
fn the_commit(listing: &SweepResults) -> String {
    let own = listing.points.iter().filter(|point| !point.recurs).map(|point| point.name.as_str());
    let commits: Vec<&str> = own.filter(|name| name.contains("/postgres/")).collect();
    assert_eq!(commits.len(), 1, "a refresh commits once: {commits:?}");
    commits[0].to_owned()
}

#[test]
fn chaos_a_refresh_is_swept_at_its_commit_and_its_cases_judge_to_the_same() {
    let store = tempfile::tempdir().unwrap();
    let listed = nogo(store.path(), &["sweep", "refresh", "--list"]);
    assert_eq!(listed.status.code(), Some(0), "{}", String::from_utf8_lossy(&listed.stderr));
    let listing = results(&listed);
    assert!(listing.cases.is_empty() && listing.points.len() >= 2, "{:?}", listing.points);
    let commit = the_commit(&listing);

    let output = nogo(store.path(), &["sweep", "refresh", "--point", &commit]);
    let swept = results(&output);
    assert_eq!(output.status.code(), Some(0), "{}", swept.table());
    let faults: Vec<PointFault> = swept.cases.iter().map(|case| case.fault).collect();
    assert_eq!(faults, PointFault::ALL);
    for case in &swept.cases {
        assert!(case.landed && case.verdict == Launch::Go && case.name == commit, "{case:?}");
        for file in ["history.ndjson.zst", "final_state.json.zst", "schedule.toml", "manifest.json", "results.json"] {
            assert!(store.path().join(&swept.run_id).join(&case.folder).join(file).is_file(), "{file} of {case:?}");
        }
    }

    let gated = nogo(store.path(), &["gate", "latest"]);
    assert_eq!(gated.status.code(), Some(0));
    assert_eq!(results(&gated), swept, "judged again to something else");

    // A record that was tampered with is no pass.
    let history = store.path().join(&swept.run_id).join(&swept.cases[0].folder).join("history.ndjson.zst");
    let whole = std::fs::read(&history).unwrap();
    std::fs::write(&history, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(nogo(store.path(), &["gate", "latest"]).status.code(), Some(3));
}

#[test]
fn chaos_a_point_that_is_not_listed_and_a_fault_that_cannot_be_are_usage_errors() {
    let store = tempfile::tempdir().unwrap();
    let output = nogo(store.path(), &["sweep", "refresh", "--point", "api/postgres/000000000000#1"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not in the listing"));
    for wrong in
        [&["sweep", "nothing"][..], &["sweep", "refresh", "--fault", "melt"], &["sweep", "refresh", "--point", "x"]]
    {
        assert_eq!(nogo(store.path(), wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// The system under a setting that forgets a request's key at once: an answer that is lost after its commit, and nothing
/// milder, has the request done again.
fn a_system_that_forgets_keys(folder: &Path) -> PathBuf {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let binary = runtime.block_on(system_binary::build(&system_binary::workspace_root(), None)).expect("build");
    let wrapper = folder.join("forgetful");
    let script = format!("#!/bin/sh\nFORECASTLE_IDEMPOTENCY_TTL_S=0 exec '{}' \"$@\"\n", binary.display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    wrapper
}

#[test]
fn chaos_a_request_done_again_after_its_lost_answer_is_revealed_by_that_alone() {
    let store = tempfile::tempdir().unwrap();
    let wrapper = a_system_that_forgets_keys(store.path());
    let wrapper = wrapper.to_str().unwrap();
    let sweep =
        |arguments: &[&str]| nogo(store.path(), &[&["sweep", "forecast", "--system-bin", wrapper], arguments].concat());
    let listing = results(&sweep(&["--list"]));
    let own = listing.points.iter().filter(|point| !point.recurs && point.name.starts_with("api/postgres/"));
    let commits: Vec<&str> = own.map(|point| point.name.as_str()).collect();
    assert_eq!(commits.len(), 1, "the request commits once: {commits:?}");

    let output = sweep(&["--point", commits[0], "--fault", "lost-before,lost-after,kill"]);
    let swept = results(&output);
    assert_eq!(output.status.code(), Some(1), "{}", swept.table());
    let verdicts: Vec<(PointFault, Launch)> = swept.cases.iter().map(|case| (case.fault, case.verdict)).collect();
    let expected =
        [(PointFault::LostBefore, Launch::Go), (PointFault::LostAfter, Launch::NoGo), (PointFault::Kill, Launch::NoGo)];
    assert_eq!(verdicts, expected, "{}", swept.table());
    assert!(swept.cases[1].violated.contains(&"billing.exactly_once".to_owned()), "{:?}", swept.cases[1]);
}
