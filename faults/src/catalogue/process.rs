//! What is done to the system's own processes.
//!
//! One of two APIs away leaves the other, and requests go where a connection is taken: the floor stays near all. Workers
//! answer nobody, so their loss is felt in the queue alone. What an API answers late or not at all while it is starved
//! is its own half of the load.
//!
//! Some rows leave the APIs out. Memory that may not grow ends a process once it needs more, which nothing that a request
//! of the load asks for makes an API do; an hour's jump of its clock ends every token, so that what follows is a refusal
//! to everybody and no finding. An API that is stopped, and takes connections that it does not answer, has no row yet.
//!
//! A biller runs to its end within a moment and answers nobody. Each of its rows sends one on its way and strikes it while
//! one of its requests is held by a rule of the proxy: what is not caught in the middle has not landed. The victim is
//! `biller-2`, so that the passes of other windows, which are `biller-1`'s, go on beside it.
use super::FaultRow;
use crate::fault::Tolerance;

const BOTH: &[&str] = &["docker", "process"];
const APIS: &[&str] = &["api-1", "api-2"];
const WORKERS: &[&str] = &["worker-1", "worker-2"];
const BILLERS: &[&str] = &["biller-2"];
const EACH: &[&str] = &["api-1", "api-2", "worker-1", "worker-2"];

const fn tolerance(goodput_percent_min: u8, outage_ms_max: u64, recover_ms_max: u64) -> Tolerance {
    Tolerance { goodput_ratio_min: goodput_percent_min as f64 / 100.0, outage_ms_max, recover_ms_max }
}

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[
    FaultRow {
        name: "worker-crash",
        kind: "worker_crash",
        targets: WORKERS,
        what: "a worker gets SIGKILL while it holds a job, and is started again at the end of the window",
        control_proof: "pid and start time are gone from /proc",
        effect_proof: "the job it held stands running under its name, and nobody extends the lease for 1.5 s",
        engines: BOTH,
        tolerance: tolerance(95, 2_000, 20_000),
    },
    FaultRow {
        name: "worker-freeze",
        kind: "worker_freeze",
        targets: WORKERS,
        what: "a worker gets SIGSTOP while it holds a job, and SIGCONT once its lease is long over",
        control_proof: "its state in /proc is T, under the same pid and start time",
        effect_proof: "an attempt of its own has lost its lease: another worker has taken the job over",
        engines: BOTH,
        tolerance: tolerance(95, 2_000, 20_000),
    },
    FaultRow {
        name: "worker-drain",
        kind: "worker_drain",
        targets: WORKERS,
        what: "a worker gets SIGTERM, drains and ends, and is started again at the end of the window",
        control_proof: "its exit, with its code; pid and start time are gone from /proc",
        effect_proof: "the queue: it claims nothing for two seconds while others do, or eight jobs wait",
        engines: BOTH,
        tolerance: tolerance(95, 2_000, 20_000),
    },
    FaultRow {
        name: "api-crash",
        kind: "api_crash",
        targets: APIS,
        what: "an API gets SIGKILL, and is started again at the end of the window",
        control_proof: "pid and start time are gone from /proc",
        effect_proof: "its /readyz is refused",
        engines: BOTH,
        tolerance: tolerance(95, 2_000, 20_000),
    },
    FaultRow {
        name: "api-drain",
        kind: "api_drain",
        targets: APIS,
        what: "an API gets SIGTERM, drains and ends, and is started again at the end of the window",
        control_proof: "its exit, with its code; pid and start time are gone from /proc",
        effect_proof: "its /readyz is refused",
        engines: BOTH,
        tolerance: tolerance(95, 2_000, 20_000),
    },
    FaultRow {
        name: "restart-storm",
        kind: "restart_storm",
        targets: EACH,
        what: "a process gets SIGKILL, is started, and gets SIGKILL again 400 ms after it is ready, throughout the window",
        control_proof: "the incarnation before is gone from /proc, and the kills are counted",
        effect_proof: "an API: its /readyz is refused; a worker: attempts of its own have lost their leases",
        engines: BOTH,
        tolerance: tolerance(93, 2_000, 20_000),
    },
    FaultRow {
        name: "rolling-restart",
        kind: "rolling_restart",
        targets: &["apis"],
        what: "every API gets SIGTERM, drains, ends and is started again, the next once the one before is ready",
        control_proof: "their exits, with their codes; every incarnation from before is gone from /proc",
        effect_proof: "the /readyz of an API is refused",
        engines: BOTH,
        tolerance: tolerance(95, 2_000, 20_000),
    },
    FaultRow {
        name: "cpu-starved",
        kind: "cpu_starved",
        targets: EACH,
        what: "a process gets 10 hundredths of one core if it is an API, 5 if it is a worker (a control group: by root)",
        control_proof: "/proc has it in the group, whose members had to wait for their share",
        effect_proof: "four of twelve answers to a stranger take 40 ms or more, and twice as long as before",
        engines: BOTH,
        tolerance: tolerance(90, 2_000, 20_000),
    },
    FaultRow {
        name: "memory-limit",
        kind: "memory_limit",
        targets: WORKERS,
        what: "a worker may map no memory beside what it has, and gets jobs that need some, until its own allocator ends \
               it; it is started again at the end of the window",
        control_proof: "its exit, by a signal, under the limit that /proc showed",
        effect_proof: "attempts of its own have lost their leases",
        engines: BOTH,
        tolerance: tolerance(95, 2_000, 20_000),
    },
    FaultRow {
        name: "descriptors",
        kind: "descriptors",
        targets: EACH,
        what: "a process may open no descriptor beyond those it has, so that it accepts no connection",
        control_proof: "/proc shows the limit, and more descriptors open than it allows",
        effect_proof: "a new connection to it is not served within 750 ms",
        engines: BOTH,
        tolerance: tolerance(88, 2_000, 20_000),
    },
    // Less than the leeway that tokens have: nobody may notice.
    FaultRow {
        name: "clock-skew",
        kind: "clock_skew",
        targets: EACH,
        what: "a process's time of day is 4 s ahead (libfaketime); its monotonic clock stays right",
        control_proof: "the library is among its mappings, and its file says so",
        effect_proof: "the time of day that it tells with its metrics",
        engines: BOTH,
        tolerance: tolerance(95, 1_500, 20_000),
    },
    FaultRow {
        name: "clock-step",
        kind: "clock_step",
        targets: WORKERS,
        what: "a worker's time of day jumps an hour ahead, and back at the end of the window (libfaketime)",
        control_proof: "the library is among its mappings, and its file says so",
        effect_proof: "the time of day that it tells with its metrics",
        engines: BOTH,
        tolerance: tolerance(95, 1_500, 20_000),
    },
    FaultRow {
        name: "biller-crash",
        kind: "biller_crash",
        targets: BILLERS,
        what: "a biller gets SIGKILL once the provider has charged for it and before it hears so; another pass is begun at \
               the end of the window",
        control_proof: "the proxy holds the provider's answer to it; pid and start time are gone from /proc",
        effect_proof: "the provider's book has charges that stand open in app.payments",
        engines: BOTH,
        tolerance: tolerance(95, 1_500, 20_000),
    },
    FaultRow {
        name: "biller-drain",
        kind: "biller_drain",
        targets: BILLERS,
        what: "a biller gets SIGTERM once the provider has charged for it and before it hears so, and ends; another pass is \
               begun at the end of the window",
        control_proof: "the proxy holds the provider's answer to it; its exit, with its code",
        effect_proof: "the provider's book has charges that stand open in app.payments",
        engines: BOTH,
        tolerance: tolerance(95, 1_500, 20_000),
    },
    FaultRow {
        name: "biller-freeze",
        kind: "biller_freeze",
        targets: BILLERS,
        what: "a biller gets SIGSTOP while it is about to commit, and SIGCONT once the database has long taken its locks \
               from it; then its COMMIT goes on",
        control_proof: "the proxy holds its COMMIT; its state in /proc is T, under the same pid and start time",
        effect_proof: "another biller has settled all that it was to settle, while it stands still",
        engines: BOTH,
        tolerance: tolerance(95, 1_500, 20_000),
    },
];
