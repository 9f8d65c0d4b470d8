//! SIGKILL of nogo in the middle of each fault: the next start leaves nothing of the run on this host.
//!
//! Faults on different victims overlap, so that one start of the whole system and one SIGKILL go through many rows of the
//! table at once. Two groups run with the other tests; all of them, with every row of the table in one, run by
//! `cargo nextest run --run-ignored all -E 'test(/^killed::/)'`, which `ci/nightly` does on both engines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nogo_faults::catalogue;
use nogo_harness::environment::system_binary;
use nogo_harness::recorder::read_history;
use nogo_harness::schedule_file;
use nogo_invariants::history::{Event, FaultState};
use rustix::process::{Pid, Signal, kill_process};

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
pub struct Nogo(Child);

impl Nogo {
    pub fn start(store: &Path, binary: &Path, arguments: &[&str]) -> Self {
        let log = std::fs::File::create(store.join("nogo.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nogo"));
        command.args(["--quiet", "--store"]).arg(store).args(arguments).arg("--system-bin").arg(binary);
        Self(command.stdout(Stdio::null()).stderr(log).spawn().expect("start nogo"))
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ctrl-C; gives how it ended.
    pub fn interrupt(&mut self, limit: Duration) -> ExitStatus {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "nogo has not ended {} s after Ctrl-C", limit.as_secs());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Fails with what it said if it has ended.
    pub fn lives(&mut self, store: &Path) {
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

pub async fn the_system() -> PathBuf {
    system_binary::build(&system_binary::workspace_root(), None).await.expect("build the system")
}

pub fn clean(store: &Path) -> Output {
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

/// When a fault begins, milliseconds: what others need in order to land, and to be felt, is hurt last.
fn at_ms(fault: &str, target: &str) -> u64 {
    match target {
        // A job has to be under way, while everything else is well.
        _ if matches!(fault, "worker-freeze" | "worker-crash" | "memory-limit") || target.starts_with("biller-") => {
            1_500
        }
        // Others are shown by what each API tells of itself.
        _ if fault == "descriptors" => 20_000,
        "clients" => 4_000,
        "postgres" => 15_000,
        "redis" => 12_000,
        "replica-1" | "replica-2" => 6_000,
        link if catalogue::role_and_store(link).is_some() => 5_000,
        worker if worker.starts_with("worker") => 7_000,
        _ => 10_000,
    }
}

fn schedule(faults: &[(&str, &str)]) -> String {
    let lines = faults.iter().map(|(fault, target)| {
        let at_ms = at_ms(fault, target);
        format!("\n[[fault]]\nname = \"{fault}\"\ntarget = \"{target}\"\nat_ms = {at_ms}\nduration_ms = {STANDS_MS}\n")
    });
    format!("load_ms = {LOAD_MS}\n{}", lines.collect::<String>())
}

/// What a run's own record tells of its faults, each by its kind and victim.
#[derive(Default)]
pub struct Told {
    pub installed: BTreeSet<(String, String)>,
    /// Felt, as a probe saw it.
    pub observed: BTreeSet<(String, String)>,
    pub removed: BTreeSet<(String, String)>,
    /// Faults whose effect nobody saw, in the record's words.
    unfelt: Vec<String>,
}

/// Reads what the run has told so far; a fault that could not be done fails the test with the reason.
pub fn told(store: &Path, run: &str) -> Told {
    let stored = read_history(&store.join(run).join("history.ndjson.zst"));
    let mut told = Told::default();
    for event in stored.map(|stored| stored.events).unwrap_or_default() {
        let fault = match event {
            Event::Fault(fault) => fault,
            Event::Note(note) if note.text.contains("no effect within") => {
                told.unfelt.push(note.text);
                continue;
            }
            _ => continue,
        };
        let which = (fault.kind, fault.target);
        match fault.state {
            FaultState::Installed => drop(told.installed.insert(which)),
            FaultState::Observed => drop(told.observed.insert(which)),
            FaultState::Removed => drop(told.removed.insert(which)),
            FaultState::Failed => panic!("{} on {}: {:?}", which.0, which.1, fault.detail),
            _ => {}
        }
    }
    told
}

/// Whether what a fault leaves on the host besides processes is there; none for one that leaves nothing of its own.
fn left_on_the_host(fault: &str, holdings: &Holdings, paused: usize) -> Option<bool> {
    let still = holdings.standing_still();
    let stands_still = |program: &str| still.iter().any(|name| name.starts_with(program));
    match fault {
        "worker-freeze" | "biller-freeze" => Some(stands_still("forecastle")),
        "postgres-freeze" => Some(paused > 0 || stands_still("postgres")),
        "redis-freeze" => Some(paused > 0 || stands_still("redis")),
        "cpu-starved" => Some(!holdings.groups().is_empty()),
        "clock-skew" | "clock-step" => Some(!holdings.clocks().is_empty()),
        _ => None,
    }
}

/// Those of `faults` that the run is not in the middle of, with what is missing. A fault stands once its control proof was
/// read and what it leaves on the host is there; one that leaves nothing there has to be felt.
async fn not_in_the_middle(holdings: &Holdings, told: &Told, faults: &[(&str, &str)]) -> Vec<String> {
    let (paused, _) = holdings.paused().await;
    let missing = |&(fault, target): &(&str, &str)| {
        let which = (catalogue::find(fault).unwrap().kind.to_owned(), target.to_owned());
        let what = match left_on_the_host(fault, holdings, paused) {
            _ if told.removed.contains(&which) => "was healed before the others stood",
            _ if !told.installed.contains(&which) => "is not installed",
            Some(true) => return None,
            Some(false) => "has left nothing on the host",
            None if told.observed.contains(&which) => return None,
            None => "was not felt",
        };
        Some(format!("{fault} on {target} {what}"))
    };
    faults.iter().filter_map(missing).collect()
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
    // Looked at before the kill: what stands still and has lost its parent, the kernel hangs up on and lets go on.
    let mut holdings = loop {
        nogo.lives(store);
        if holdings.is_none() {
            holdings = Holdings::of_the_run_in(store);
        }
        let mut missing = vec!["the run has not begun".to_owned()];
        let mut unfelt = Vec::new();
        if let Some(run) = &mut holdings {
            run.look().await;
            let told = told(store, &run.run_id);
            missing = not_in_the_middle(run, &told, faults).await;
            unfelt = told.unfelt;
        }
        match holdings {
            Some(run) if missing.is_empty() => break run,
            _ => {}
        }
        let in_time = Instant::now() < deadline && !missing.iter().any(|what| what.contains("was healed"));
        assert!(in_time, "{}; {}", missing.join("; "), unfelt.join("; "));
        tokio::time::sleep(LOOK_EVERY).await;
    };
    holdings.look().await;
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
        "biller-crash" on "biller-2",
        "redis-eviction" on "redis",
        "api-drain" on "api-2",
        "link-latency" on "api-1-redis",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_a_locked_table {
        "table-locks" on "postgres",
        "biller-drain" on "biller-2",
        "redis-clients-killed" on "redis",
        "client-herd" on "apis",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_an_open_transaction {
        "idle-in-transaction" on "postgres",
        "biller-freeze" on "biller-2",
        "redis-demoted" on "redis",
        "partition-answers" on "workers-postgres",
        "sink-reset" on "apis-errors",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_deadlocks {
        "deadlocks" on "postgres",
        "provider-answer-lost" on "billers-provider",
        "webhook-late" on "provider-webhooks",
        "redis-slow" on "redis",
        "client-spike" on "clients",
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
        "sink-blackhole" on "apis-analytics",
        "provider-slow-body" on "billers-provider",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_reset_links {
        "postgres-reset" on "postgres",
        "sink-error" on "alert-1-alerts",
        "provider-reset" on "billers-provider",
    }
    #[ignore = "the long form, for ci/nightly"]
    chaos_nothing_is_left_of_narrow_links {
        "link-bandwidth" on "api-1-postgres",
        "link-slicing" on "api-2-postgres",
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
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    for group in GROUPS {
        std::fs::write(&plan, schedule(group)).unwrap();
        schedule_file::read(&plan, [0; 32]).expect("they may stand at the same time");
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
