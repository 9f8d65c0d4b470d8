//! SIGKILL of nogo in the middle of each fault: the next start leaves nothing of the run on this host.
//!
//! Faults on different victims overlap, so that one start of the whole system and one SIGKILL go through many rows of the
//! table at once. Two groups run with the other tests; all of them, with every row of the table in one, run by
//! `cargo nextest run --run-ignored all -E 'test(/^killed::/)'`, which `ci/nightly` does on both engines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nogo_faults::catalogue;
use nogo_harness::environment::system_binary;
use nogo_harness::recorder::read_history;
use nogo_invariants::history::{Event, FaultState};

use crate::holdings::Holdings;

/// Until everything is started and every fault stands; a start takes 20 to 25 s.
const LIMIT: Duration = Duration::from_secs(150);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Length of each window: longer than the test, so that nothing is healed.
const STANDS_MS: u64 = 50_000;
/// Length of the load, milliseconds.
const LOAD_MS: u64 = 100_000;

/// A nogo that is killed, also when the test fails.
struct Nogo(Child);

impl Nogo {
    fn start(store: &Path, binary: &Path, arguments: &[&str]) -> Self {
        let log = std::fs::File::create(store.join("nogo.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nogo"));
        command.args(["--quiet", "--store"]).arg(store).args(arguments).arg("--system-bin").arg(binary);
        Self(command.stdout(Stdio::null()).stderr(log).spawn().expect("start nogo"))
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Fails with what it said if it has ended.
    fn lives(&mut self, store: &Path) {
        if let Some(status) = self.0.try_wait().unwrap() {
            panic!("nogo ended with {status}: {}", std::fs::read_to_string(store.join("nogo.log")).unwrap_or_default());
        }
    }
}

impl Drop for Nogo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn the_system() -> PathBuf {
    system_binary::build(&system_binary::workspace_root(), None).await.expect("build the system")
}

fn clean(store: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nogo"))
        .args(["--quiet", "--json", "--store"])
        .arg(store)
        .arg("clean")
        .output()
        .expect("run nogo")
}

/// The next start, as its user has it: nothing of the run is left, and a start after it finds nothing more of it.
async fn the_next_start_cleans(store: &Path, holdings: &Holdings) {
    let cleaned = clean(store);
    let said = String::from_utf8_lossy(&cleaned.stdout).into_owned();
    assert_eq!(cleaned.status.code(), Some(0), "{said}");
    assert_eq!(holdings.left().await, [""; 0], "after {said}");
    let again = clean(store);
    assert!(!String::from_utf8_lossy(&again.stdout).contains(&holdings.run_id), "once was not enough");
}

/// When a fault begins, milliseconds: what others need in order to land is hurt last.
fn at_ms(fault: &str, target: &str) -> u64 {
    match target {
        // A job has to be under way, while everything else is well.
        _ if matches!(fault, "worker-freeze" | "worker-crash" | "memory-limit") => 1_500,
        // Others are shown by what an API tells of itself.
        _ if fault == "descriptors" => 14_000,
        "clients" => 4_000,
        "postgres" => 10_000,
        "redis" => 8_000,
        "replica-1" | "replica-2" => 7_500,
        link if catalogue::role_and_store(link).is_some() => 7_000,
        _ => 6_000,
    }
}

fn schedule(faults: &[(&str, &str)]) -> String {
    let lines = faults.iter().map(|(fault, target)| {
        let at_ms = at_ms(fault, target);
        format!("\n[[fault]]\nname = \"{fault}\"\ntarget = \"{target}\"\nat_ms = {at_ms}\nduration_ms = {STANDS_MS}\n")
    });
    format!("load_ms = {LOAD_MS}\n{}", lines.collect::<String>())
}

/// How many faults stand by the run's own record, and by whose word one does not.
fn standing(store: &Path, run: &str) -> usize {
    let stored = read_history(&store.join(run).join("history.ndjson.zst"));
    let mut standing = BTreeSet::new();
    for event in stored.map(|stored| stored.events).unwrap_or_default() {
        let Event::Fault(fault) = event else { continue };
        match fault.state {
            FaultState::Installed => drop(standing.insert(fault.id)),
            FaultState::Failed => panic!("{} on {}: {:?}", fault.kind, fault.target, fault.detail),
            FaultState::Removed => panic!("{} on {} was healed before the others stood", fault.kind, fault.target),
            _ => {}
        }
    }
    standing.len()
}

/// What each fault leaves besides processes is there, or the SIGKILL came too early to show anything.
async fn is_in_the_middle(holdings: &Holdings, faults: &[(&str, &str)]) {
    let still = holdings.standing_still();
    let (paused, containers) = holdings.paused().await;
    for (fault, _) in faults {
        let shows = match *fault {
            "worker-freeze" => still.iter().any(|name| name.starts_with("forecastle")),
            "postgres-freeze" => paused > 0 || still.iter().any(|name| name.starts_with("postgres")),
            "redis-freeze" => paused > 0 || still.iter().any(|name| name.starts_with("redis")),
            "cpu-starved" => !holdings.groups().is_empty(),
            "clock-skew" | "clock-step" => !holdings.clocks().is_empty(),
            _ => containers > 0 || !holdings.left().await.is_empty(),
        };
        assert!(
            shows,
            "{fault} has left nothing: {still:?} stand still, {paused} of {containers} containers are paused"
        );
    }
}

async fn killed_under(faults: &[(&str, &str)]) {
    let binary = the_system().await;
    let store = tempfile::tempdir().unwrap();
    let store = store.path();
    let plan = store.join("plan.toml");
    std::fs::write(&plan, schedule(faults)).unwrap();
    let mut nogo = Nogo::start(store, &binary, &["run", "smoke", "--seed", "1", "--schedule", plan.to_str().unwrap()]);
    let deadline = Instant::now() + LIMIT;
    let mut holdings = None;
    let mut holdings = loop {
        nogo.lives(store);
        if holdings.is_none() {
            holdings = Holdings::of_the_run_in(store);
        }
        let mut stands = 0;
        if let Some(run) = &mut holdings {
            run.look().await;
            stands = standing(store, &run.run_id);
        }
        match holdings {
            Some(run) if stands == faults.len() => break run,
            _ => {}
        }
        assert!(Instant::now() < deadline, "{stands} of {} faults stand", faults.len());
        tokio::time::sleep(LOOK_EVERY).await;
    };
    holdings.look().await;
    // Before the kill: what stands still and has lost its parent, the kernel hangs up on and lets go on.
    is_in_the_middle(&holdings, faults).await;
    nogo.kill();
    assert!(!holdings.left().await.is_empty(), "SIGKILL leaves the servers behind");
    the_next_start_cleans(store, &holdings).await;
}

macro_rules! killed_under {
    ($($(#[$attribute:meta])* $name:ident { $($fault:literal on $target:literal),+ $(,)? })+) => {
        $(
            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                killed_under(&[$(($fault, $target)),+]).await;
            }
        )+
        const GROUPS: &[&[(&str, &str)]] = &[$(&[$(($fault, $target)),+]),+];
    };
}

killed_under! {
    chaos_nothing_is_left_of_what_stands_still {
        "postgres-freeze" on "postgres",
        "replica-lag" on "replica-1",
        "redis-freeze" on "redis",
        "worker-freeze" on "worker-1",
        "clock-step" on "worker-2",
        "cpu-starved" on "api-2",
        "partition" on "apis-replica-2",
        "client-slow-senders" on "clients",
    }
    chaos_nothing_is_left_of_what_is_down {
        "postgres-crash" on "postgres",
        "replica-stop" on "replica-2",
        "redis-loss" on "redis",
        "api-crash" on "api-1",
        "worker-drain" on "worker-1",
        "link-reset" on "apis-replica-1",
        "client-duplicates" on "clients",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_what_is_full {
        "disk-full" on "postgres",
        "redis-memory-refused" on "redis",
        "worker-crash" on "worker-1",
        "restart-storm" on "worker-2",
        "descriptors" on "api-1",
        "clock-skew" on "api-2",
        "half-open" on "apis-replica-2",
        "client-hang-ups" on "clients",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_an_exhausted_pool {
        "pool-exhaustion" on "postgres",
        "redis-flush" on "redis",
        "rolling-restart" on "apis",
        "partition-requests" on "worker-1-postgres",
        "client-retry-storm" on "clients",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_locked_rows {
        "row-locks" on "postgres",
        "redis-eviction" on "redis",
        "api-drain" on "api-2",
        "link-latency" on "api-1-redis",
        "client-herd" on "clients",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_a_locked_table {
        "table-locks" on "postgres",
        "redis-clients-killed" on "redis",
        "link-bandwidth" on "api-1-postgres",
        "client-spike" on "clients",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_an_open_transaction {
        "idle-in-transaction" on "postgres",
        "redis-demoted" on "redis",
        "link-slicing" on "api-2-postgres",
        "partition-answers" on "workers-postgres",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_deadlocks {
        "deadlocks" on "postgres",
        "provider-answer-lost" on "billers-provider",
        "webhook-late" on "provider-webhooks",
        "redis-slow" on "redis",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_serialization_failures {
        "serialization-failures" on "postgres",
        "provider-error" on "billers-provider",
        "webhook-reordered" on "provider-webhooks",
        "redis-blackhole" on "redis",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_slow_statements {
        "statement-timeout" on "postgres",
        "provider-busy" on "billers-provider",
        "webhook-forged" on "provider-webhooks",
        "redis-reply-lost" on "apis-redis",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_slow_links {
        "postgres-slow" on "postgres",
        "memory-limit" on "worker-2",
        "postgres-commit-lost" on "workers-postgres",
        "provider-request-lost" on "billers-provider",
        "webhook-twice" on "provider-webhooks",
        "redis-reply-late" on "apis-redis",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_used_up_connections {
        "max-connections" on "postgres",
        "provider-slow-body" on "billers-provider",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_reset_links {
        "postgres-reset" on "postgres",
        "provider-reset" on "billers-provider",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_silent_links {
        "postgres-blackhole" on "postgres",
        "postgres-commit-answer-lost" on "api-1-postgres",
        "postgres-request-held" on "api-2-postgres",
        "postgres-answer-late" on "workers-postgres",
        "redis-error-reply" on "apis-redis",
    }
}

#[test]
fn every_fault_of_the_table_is_in_the_middle_of_a_kill() {
    let covered: BTreeSet<&str> = GROUPS.iter().flat_map(|group| group.iter().map(|(fault, _)| *fault)).collect();
    // The placebo does nothing, so that there is no middle of it.
    let rows: BTreeSet<&str> = catalogue::all().map(|row| row.name).filter(|name| *name != "placebo").collect();
    assert_eq!(covered, rows);
    for (fault, target) in GROUPS.iter().copied().flatten() {
        assert!(catalogue::find(fault).unwrap().targets.contains(target), "{fault} cannot hurt {target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_nothing_is_left_of_a_sweep_whose_process_stands_still() {
    let binary = the_system().await;
    let store = tempfile::tempdir().unwrap();
    let store = store.path();
    let mut nogo = Nogo::start(store, &binary, &["sweep", "refresh", "--fault", "stop"]);
    let deadline = Instant::now() + LIMIT;
    let mut holdings = None;
    let holdings = loop {
        nogo.lives(store);
        if holdings.is_none() {
            holdings = Holdings::of_the_run_in(store);
        }
        if let Some(run) = &mut holdings {
            run.look_at_processes();
        }
        match holdings {
            Some(run) if !run.standing_still().is_empty() => break run,
            _ => {}
        }
        assert!(Instant::now() < deadline, "no process of the sweep was ever stopped");
        // A process stands still for about a second.
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    nogo.kill();
    let mut holdings = holdings;
    holdings.look().await;
    assert!(!holdings.left().await.is_empty(), "SIGKILL leaves the servers behind");
    the_next_start_cleans(store, &holdings).await;
}
