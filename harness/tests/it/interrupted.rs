//! Ctrl-C in the middle of faults: what stands is healed, what runs is stopped, the record is kept (exit code 130).

use std::path::Path;
use std::time::{Duration, Instant};

use nogo_harness::run_directory::RunDirectory;

use crate::holdings::Holdings;
use crate::killed::{Nogo, clean, the_system, told};

/// Until everything is started and both faults stand.
const LIMIT: Duration = Duration::from_secs(120);
/// Until all is undone: the run may heal for half a minute.
const UNDONE_LIMIT: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Two windows at the same time, much longer than the test takes to come to their middle.
const PLAN: &str = r#"load_ms = 60000

[[fault]]
name = "redis-loss"
at_ms = 4000
duration_ms = 50000

[[fault]]
name = "partition"
target = "apis-replica-1"
at_ms = 4000
duration_ms = 50000
"#;

/// The run once both its faults were felt.
async fn in_the_middle(nogo: &mut Nogo, store: &Path) -> Holdings {
    let deadline = Instant::now() + LIMIT;
    loop {
        nogo.lives(store);
        if let Some(mut run) = Holdings::of_the_run_in(store) {
            run.look().await;
            if told(store, &run.run_id).observed.len() == 2 {
                return run;
            }
        }
        assert!(Instant::now() < deadline, "the faults were not felt");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_ctrl_c_in_the_middle_of_faults_heals_them_and_leaves_nothing() {
    let binary = the_system().await;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path();
    let plan = store.join("plan.toml");
    std::fs::write(&plan, PLAN).unwrap();
    let mut nogo = Nogo::start(store, &binary, &["run", "smoke", "--seed", "1", "--schedule", plan.to_str().unwrap()]);
    let holdings = in_the_middle(&mut nogo, store).await;

    let status = nogo.interrupt(UNDONE_LIMIT);

    assert_eq!(status.code(), Some(130), "{}", std::fs::read_to_string(store.join("nogo.log")).unwrap_or_default());
    let told = told(store, &holdings.run_id);
    assert_eq!((told.removed.len(), &told.removed), (2, &told.installed), "both were healed, and the record says so");
    assert_eq!(holdings.left().await, [""; 0]);
    let manifest = RunDirectory::find(store, &holdings.run_id).unwrap().manifest().unwrap();
    assert!(!manifest.complete && manifest.aborted_because == "interrupted", "{}", manifest.aborted_because);
    let cleaned = clean(store);
    assert_eq!(cleaned.status.code(), Some(0));
    let said = String::from_utf8_lossy(&cleaned.stdout).into_owned();
    assert!(!said.contains(&holdings.run_id), "something was left to clean: {said}");
}
