//! The suite as its user runs it: the program `nogo`, its exit codes, its files, on whichever engine there is.
//!
//! `NOGO_ENGINE` chooses the engine (`auto` unless set). Each test has a store of its own. The names begin with `smoke_`
//! so that the runner gives them the machine to themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nogo_invariants::normalise::project;
use nogo_invariants::results::Results;
use nogo_invariants::verdict::Count;

fn nogo(store: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nogo"))
        .args(["--quiet", "--json", "--store"])
        .arg(store)
        .args(arguments)
        .output()
        .expect("run nogo")
}

/// Results of a run and its folder; with the program's words where there are none.
fn results(output: &Output, store: &Path) -> (Results, PathBuf) {
    let results: Results = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}; exit {:?}; nogo said: {}", output.status.code(), String::from_utf8_lossy(&output.stderr))
    });
    let folder = store.join(&results.run_id);
    (results, folder)
}

fn why(results: &Results) -> String {
    results.reasons.join("\n")
}

fn seen(results: &Results, law: &str, count: &str) -> u64 {
    let verdict =
        results.laws.iter().find(|verdict| verdict.law == law).unwrap_or_else(|| panic!("{law} was not judged"));
    verdict.exposure.get(count).map_or(0, |count: &Count| count.total)
}

#[test]
fn smoke_suite_is_go_with_its_exposure_and_the_record_judges_to_the_same_bytes() {
    let store = tempfile::tempdir().unwrap();
    let output = nogo(store.path(), &["run", "smoke", "--seed", "1"]);
    let (results, folder) = results(&output, store.path());
    assert_eq!(output.status.code(), Some(0), "{}", why(&results));

    for (law, count, least) in [
        ("tenancy.isolation", "scans", 5_000),
        ("tenancy.isolation", "foreign_attempts", 1_000),
        ("forecast.correctness", "forecasts", 500),
        ("billing.exactly_once", "forecasts_billed", 200),
        ("auth.fails_closed", "probes", 1_000),
        ("faults.landed", "landed", 3),
    ] {
        let seen = seen(&results, law, count);
        assert!(seen >= least, "{law}: {seen} {count}, at least {least} promised");
    }
    for name in ["manifest.json", "schedule.toml", "checks.json", "summary.md", "junit.xml", "report.html"] {
        assert!(folder.join(name).is_file(), "{name} is missing");
    }

    // What a run of any seed must look like; a changed outcome is reviewed with `cargo insta review`.
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots/tests/it/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_json_snapshot!("smoke_suite", project(&results)));

    let gated = nogo(store.path(), &["gate", &results.run_id]);
    assert_eq!(gated.status.code(), Some(0));
    assert_eq!(gated.stdout, std::fs::read(folder.join("results.json")).unwrap(), "judged again to other bytes");

    a_changed_record_is_not_a_pass(store.path(), &results.run_id, &folder);
}

/// One flipped byte in the final state, and a history cut short, each end inconclusive.
fn a_changed_record_is_not_a_pass(store: &Path, run: &str, folder: &Path) {
    for name in ["final_state.json.zst", "history.ndjson.zst"] {
        let path = folder.join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let gated = nogo(store, &["gate", run]);
        assert_ne!(gated.status.code(), Some(0), "{name} cut in half and still a pass");
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(nogo(store, &["gate", run]).status.code(), Some(0), "the restored record judges as before");
}

/// Two windows: one that waits for a request, and one that lasts until the load ends and cannot land.
const TO_THE_END: &str = r#"load_ms = 24000

[[fault]]
name = "worker-crash"
at_ms = 8000
duration_ms = 3000
when = { operation = "forecast.request", kth = 30 }

[[fault]]
name = "placebo"
at_ms = 19000
duration_ms = 5000
"#;

#[test]
fn smoke_with_a_fault_that_cannot_land_is_inconclusive_and_its_schedule_replays() {
    let store = tempfile::tempdir().unwrap();
    let plan = store.path().join("plan.toml");
    std::fs::write(&plan, TO_THE_END).unwrap();
    let output = nogo(store.path(), &["run", "smoke", "--seed", "2", "--schedule", plan.to_str().unwrap()]);
    std::fs::remove_file(plan).unwrap();
    let (results, folder) = results(&output, store.path());
    assert_eq!(output.status.code(), Some(3), "{}", why(&results));
    let landed = results.laws.iter().find(|verdict| verdict.law == "faults.landed").unwrap();
    assert_eq!(landed.answer.name(), "unknown", "{}", why(&results));
    let schedule = std::fs::read_to_string(folder.join("schedule.toml")).unwrap();
    assert!(schedule.contains("placebo") && schedule.contains("worker-crash"), "{schedule}");
    assert!(!schedule.contains("kth"), "the condition is replaced by the time at which it came: {schedule}");

    let again = nogo(store.path(), &["replay", &results.run_id]);
    let (replayed, replayed_folder) = self::results(&again, store.path());
    assert_eq!(again.status.code(), Some(3), "{}", why(&replayed));
    let faults = |results: &Results| results.faults.iter().map(|fault| fault.kind.clone()).collect::<Vec<_>>();
    assert_eq!(faults(&results), faults(&replayed));
    let stored = std::fs::read_to_string(replayed_folder.join("schedule.toml")).unwrap();
    assert_eq!(stored, schedule, "a replay leaves the schedule that it ran, for the next replay");
}

#[test]
fn smoke_without_load_is_inconclusive() {
    let store = tempfile::tempdir().unwrap();
    let output =
        nogo(store.path(), &["run", "smoke", "--seed", "3", "--faults", "none", "--rate", "0", "--load-s", "15"]);
    let (results, _) = results(&output, store.path());
    assert_eq!(output.status.code(), Some(3), "{}", why(&results));
}

#[test]
fn smoke_of_what_is_not_there_names_the_fix_and_leaves_no_run() {
    let store = tempfile::tempdir().unwrap();
    for (arguments, code, word) in [
        (vec!["run", "smokey"], 2, "there is smoke"),
        (vec!["run", "smoke", "--faults", "earthquake"], 2, "pool-exhaustion"),
        (vec!["run", "smoke", "--load-s", "5"], 2, "longer load"),
        (vec!["run", "smoke", "--system-bin", "/nowhere/forecastle"], 2, "no such file"),
        (vec!["gate", "nothing"], 2, "nogo list runs"),
        (vec!["mutants", "--dir", "/nowhere"], 2, "catalogue.toml"),
    ] {
        let output = nogo(store.path(), &arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    let docker = Command::new(env!("CARGO_BIN_EXE_nogo"))
        .args(["--quiet", "--store"])
        .arg(store.path())
        .args(["run", "smoke", "--engine", "docker", "--system-bin", "/bin/true"])
        .env("DOCKER_HOST", "tcp://127.0.0.1:9")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&docker.stderr);
    assert_eq!(docker.status.code(), Some(6), "{said}");
    assert!(said.contains("ci/setup"), "{said}");
    assert!(
        std::fs::read_dir(store.path()).unwrap().all(|entry| entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.'))
    );
}
