//! What is done to PostgreSQL.
//!
//! Who may do what is read from the primary alone, and so is what must have been replayed before a replica may answer.
//! While it is down, silent or out of reach, only what was found authorised and trusted within the last two seconds is
//! still given out, so that the floors of such faults are small, yet never nothing: a system that refuses everybody from
//! the first moment on falls below them. Their outage covers the longest window and the recovery behind it.
//!
//! Where the primary goes on, a floor is a half to three quarters of what the smoke suite's load measured, and never what
//! refusing everybody would reach.

use super::FaultRow;
use crate::fault::Tolerance;

const BOTH: &[&str] = &["docker", "process"];
const PRIMARY: &[&str] = &["postgres"];
const REPLICAS: &[&str] = &["replica-1", "replica-2"];

const fn tolerance(goodput_percent_min: u8, outage_ms_max: u64, recover_ms_max: u64) -> Tolerance {
    Tolerance { goodput_ratio_min: goodput_percent_min as f64 / 100.0, outage_ms_max, recover_ms_max }
}

/// Those under which a stranger's greeting is late, or is not answered.
pub(super) const UNANSWERED: &[&str] =
    &["postgres-crash", "postgres-freeze", "postgres-slow", "postgres-blackhole", "postgres-reset", "replica-stop"];

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[
    // Writers of scenarios and jobs wait for their locks and are refused; reads go on by the cache and by rows nobody
    // locks, and are promised more than the floor (`FaultRow::service`). 40 to 50 % of all that was due succeeded.
    FaultRow {
        name: "pool-exhaustion",
        kind: "pool_exhaustion",
        targets: PRIMARY,
        what: "every connection the server has left is taken and held, and writers of scenarios and jobs wait for locks",
        control_proof: "pg_stat_activity and pg_locks: our sessions hold, the system's wait",
        effect_proof: "/readyz of an API, which takes a connection from the same pool, fails or takes over 750 ms",
        engines: BOTH,
        tolerance: tolerance(25, 8_000, 15_000),
    },
    // Each instance works on with one connection: what waits too long for it is refused.
    FaultRow {
        name: "max-connections",
        kind: "max_connections",
        targets: PRIMARY,
        what: "max_connections is reached by other sessions: each process of the system keeps one connection and gets no other",
        control_proof: "pg_stat_activity: our sessions hold the rest, the system's are down to what it keeps; an ordinary \
                        role is refused with 53300",
        effect_proof: "the APIs' own counters: more answers with status 503 than before, and twice as many a second",
        engines: BOTH,
        tolerance: tolerance(50, 1_500, 15_000),
    },
    FaultRow {
        name: "postgres-crash",
        kind: "postgres_crash",
        targets: PRIMARY,
        what: "the primary is killed with all its children, and at the end of the window started on its data and recovered",
        control_proof: "its process or container is gone and its address refuses; later another life of the same cluster, \
                        its log as long as before",
        effect_proof: "/readyz of an API fails",
        engines: BOTH,
        tolerance: tolerance(2, 16_000, 20_000),
    },
    FaultRow {
        name: "postgres-freeze",
        kind: "postgres_freeze",
        targets: PRIMARY,
        what: "every process of the primary stands still: connections stay open and nobody answers",
        control_proof: "every process stopped (/proc) or the container paused; a greeting at its address stays unanswered",
        effect_proof: "/readyz of an API fails",
        engines: BOTH,
        tolerance: tolerance(6, 14_000, 15_000),
    },
    // A transaction has up to five trips: a third of a second, well within every time-out; the pools carry less.
    FaultRow {
        name: "postgres-slow",
        kind: "postgres_slow",
        targets: PRIMARY,
        what: "every answer of the primary comes 40 ms late, give or take 10",
        control_proof: "the proxies list the toxics, and a greeting through each link is answered 30 ms late or more",
        effect_proof: "each of five /readyz of every API, which make one trip, takes 30 ms or more",
        engines: BOTH,
        tolerance: tolerance(70, 1_500, 15_000),
    },
    FaultRow {
        name: "postgres-blackhole",
        kind: "postgres_blackhole",
        targets: PRIMARY,
        what: "nothing that is said on the links to the primary arrives, in either direction, and nothing is closed",
        control_proof: "the proxies list the toxics, and a greeting through each link stays unanswered",
        effect_proof: "/readyz of an API fails",
        engines: BOTH,
        tolerance: tolerance(6, 14_000, 15_000),
    },
    // What is under way is refused; what begins in between is answered.
    FaultRow {
        name: "postgres-reset",
        kind: "postgres_reset",
        targets: PRIMARY,
        what: "for some 60 ms of every 700 whatever the primary answers the system, and whoever connects to it, is reset",
        control_proof: "the proxies take the toxics, and a greeting through each link ends without an answer, at each blow",
        effect_proof: "the APIs' own counters: more answers with status 503 than before, and twice as many a second",
        engines: BOTH,
        tolerance: tolerance(14, 4_000, 15_000),
    },
    // Edits wait for the lock's limit and are refused; while they wait they hold connections.
    FaultRow {
        name: "row-locks",
        kind: "row_locks",
        targets: PRIMARY,
        what: "one transaction locks every scenario's row and stays open",
        control_proof: "pg_stat_activity: idle in transaction; another session is refused the rows with 55P03",
        effect_proof: "sessions of the system wait for ours (pg_blocking_pids)",
        engines: BOTH,
        tolerance: tolerance(33, 3_000, 15_000),
    },
    // Scenarios cannot even be read past the cache; what does not touch them goes on until the pools are full of waiters.
    FaultRow {
        name: "table-locks",
        kind: "table_locks",
        targets: PRIMARY,
        what: "one transaction locks the scenarios' table against readers and writers and stays open",
        control_proof: "pg_stat_activity: idle in transaction; another session is refused the table with 55P03",
        effect_proof: "sessions of the system wait for ours (pg_blocking_pids)",
        engines: BOTH,
        tolerance: tolerance(15, 4_000, 15_000),
    },
    // It holds no lock: events of forecasts wait for it, and nothing else.
    FaultRow {
        name: "idle-in-transaction",
        kind: "idle_in_transaction",
        targets: PRIMARY,
        what: "one transaction takes a number and stays open, so that nothing younger counts as settled",
        control_proof: "pg_stat_activity: idle in transaction, and the oldest that runs",
        effect_proof: "events of forecasts are committed and cannot be given out, the oldest for over 300 ms",
        engines: BOTH,
        tolerance: tolerance(90, 1_500, 15_000),
    },
    // A victim's request is refused or tried again; between two deadlocks everything goes on.
    FaultRow {
        name: "deadlocks",
        kind: "deadlocks",
        targets: PRIMARY,
        what: "a session quarrels with whoever edits a scenario, and the server ends the other side, again and again",
        control_proof: "the server's count of deadlocks rises, and not by those that ended against us",
        effect_proof: "the APIs' own counters: more answers with status 503 than before, and twice as many a second",
        engines: BOTH,
        tolerance: tolerance(70, 1_500, 15_000),
    },
    // What reads and then writes is refused; what only reads goes on.
    FaultRow {
        name: "serialization-failures",
        kind: "serialization_failures",
        targets: PRIMARY,
        what: "transactions are held to one snapshot, and the rows that count quota are rewritten under them",
        control_proof: "a new session gets repeatable read, and a transaction of ours that reads and then writes gets 40001",
        effect_proof: "the APIs' own counters: more answers with status 503 than before, and twice as many a second",
        engines: BOTH,
        tolerance: tolerance(50, 1_500, 15_000),
    },
    // Nothing can be written where it needs room; reads go on.
    FaultRow {
        name: "disk-full",
        kind: "disk_full",
        targets: PRIMARY,
        what: "the volume of a set size that the data lie on, the log excepted, is filled to the last byte (on the process \
               engine the volume is mounted by root)",
        control_proof: "the file system has less than 64 KiB left, and a table of ours is refused with 53100",
        effect_proof: "the APIs' own counters: more answers with status 503 than before, and twice as many a second",
        engines: BOTH,
        tolerance: tolerance(25, 1_500, 15_000),
    },
    // Edits end by their time-out after two seconds and hold their connections until then.
    FaultRow {
        name: "statement-timeout",
        kind: "statement_timeout",
        targets: PRIMARY,
        what: "every update of scenarios sleeps in the server until its own time-out ends it",
        control_proof: "the catalogue has our trigger, and an update of ours is ended with 57014",
        effect_proof: "the APIs' own counters: more answers with status 503 than before, and twice as many a second",
        engines: BOTH,
        tolerance: tolerance(35, 3_000, 15_000),
    },
    // One of two replicas: the other and the primary answer. What is missing from all is what the load earns itself: a
    // quota that is used up, an edit of an old version; in a long run that is up to a twelfth.
    FaultRow {
        name: "replica-stop",
        kind: "replica_stop",
        targets: REPLICAS,
        what: "a replica is killed, and at the end of the window started on its data",
        control_proof: "its process or container is gone and its address refuses; later another life of the same cluster",
        effect_proof: "the APIs' own counters: it answers no read any more",
        engines: BOTH,
        tolerance: tolerance(90, 1_500, 20_000),
    },
    FaultRow {
        name: "replica-lag",
        kind: "replica_lag",
        targets: REPLICAS,
        what: "a replica goes on receiving the log and stops replaying it",
        control_proof: "the replica says that its replay is paused",
        effect_proof: "the APIs' own counters: it answers no read any more",
        engines: BOTH,
        tolerance: tolerance(90, 1_500, 15_000),
    },
];
