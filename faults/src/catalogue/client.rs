//! What clients do to the APIs: load of a kind that nobody orders.
//!
//! A request that its own client gave up counts neither as offered nor as an error. What is refused with Retry-After under
//! a spike is the system's right; refusing all is not.

use super::FaultRow;
use crate::fault::Tolerance;

const BOTH: &[&str] = &["docker", "process"];
const CLIENTS: &[&str] = &["clients"];
/// What a crowd comes back to after a restart.
const APIS: &[&str] = &["apis"];

const fn tolerance(goodput_percent_min: u8, outage_ms_max: u64, recover_ms_max: u64) -> Tolerance {
    Tolerance { goodput_ratio_min: goodput_percent_min as f64 / 100.0, outage_ms_max, recover_ms_max }
}

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[
    FaultRow {
        name: "client-hang-ups",
        kind: "client_hang_ups",
        targets: CLIENTS,
        what: "every second operation is given up by its client where no answer has come within one or two ms, in the middle of the request",
        control_proof: "the clients count what they gave up",
        effect_proof: "the APIs' own counters: ten requests a second more than before given up",
        engines: BOTH,
        tolerance: tolerance(85, 1_500, 15_000),
    },
    FaultRow {
        name: "client-slow-senders",
        kind: "client_slow_senders",
        targets: CLIENTS,
        what: "40 clients of each API send a request at a byte every 150 ms",
        control_proof: "the clients count the bytes they sent",
        effect_proof: "the APIs' own gauge: 60 connections more are open than before",
        engines: BOTH,
        tolerance: tolerance(90, 1_500, 15_000),
    },
    // The second of two is answered like the first, or told to wait for it.
    FaultRow {
        name: "client-duplicates",
        kind: "client_duplicates",
        targets: CLIENTS,
        what: "every request with a key is sent twice at the same time, to two instances",
        control_proof: "the clients count what they sent twice",
        effect_proof: "the APIs' own counters: five requests a second more than before told that another with the same key is under way",
        engines: BOTH,
        tolerance: tolerance(70, 1_500, 15_000),
    },
    FaultRow {
        name: "client-retry-storm",
        kind: "client_retry_storm",
        targets: CLIENTS,
        what: "every read without an answer within one or two ms is given up and asked for again at once, up to four times, before its \
               client waits",
        control_proof: "the clients count what they asked for again",
        effect_proof: "the APIs' own counters: ten requests a second more than before given up",
        engines: BOTH,
        tolerance: tolerance(85, 1_500, 15_000),
    },
    FaultRow {
        name: "client-herd",
        kind: "client_herd",
        targets: APIS,
        what: "all APIs get SIGKILL and are started again; once they are ready every client logs in and reads its dashboard and \
               lists at once, and again as soon as all have",
        control_proof: "each API has another pid and start time and is ready; the clients count their logins",
        effect_proof: "the APIs' own counters: ten logins a second more than before",
        engines: BOTH,
        tolerance: tolerance(75, 3_000, 15_000),
    },
    FaultRow {
        name: "client-spike",
        kind: "client_spike",
        targets: CLIENTS,
        what: "for each ordinary operation nine more are due; each client does one at a time",
        control_proof: "the clients count the operations beyond the ordinary load, and those that they had no place left for",
        effect_proof: "the APIs' own counters: twice as many requests a second as before, and ten",
        engines: BOTH,
        tolerance: tolerance(70, 4_000, 20_000),
    },
];
