//! How many chances to fail each law must have had before its silence says something.

use std::collections::BTreeMap;

use crate::timeline::Timeline;
use crate::verdict::{Count, FloorReached};

/// Where a floor applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// The whole run.
    Total,
    /// Each fault that there was, by itself, if it leaves the system something to show: see [`SERVED_PERCENT_MIN`].
    EachFault,
    /// The whole run, where there was a fault.
    TotalIfFaults,
}

/// Where a fault takes the truth away (the primary killed, frozen, out of reach), almost everything must be refused, and a
/// refusal shows nothing of what the other laws look at. Such a fault declares a goodput floor below this, and the law
/// over its window is that floor; what the others need, they must find in the rest of the run. One that declares no floor
/// is asked for everything.
pub const SERVED_PERCENT_MIN: u64 = 10;

/// A least count of a law.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// The law.
    pub law: &'static str,
    /// Which of its counts.
    pub count: &'static str,
    /// Where.
    pub cell: Cell,
    /// Least that says something.
    pub min: u64,
}

const fn floor(law: &'static str, count: &'static str, cell: Cell, min: u64) -> Floor {
    Floor { law, count, cell, min }
}

/// The smoke suite's floors; the large ones are what the suite promises to show.
pub const SMOKE: &[Floor] = &[
    floor("forecast.correctness", "forecasts", Cell::Total, 500),
    floor("forecast.correctness", "forecasts", Cell::EachFault, 1),
    floor("forecast.correctness", "amounts", Cell::Total, 10_000),
    floor("forecast.determinism", "hashes", Cell::Total, 500),
    floor("forecast.determinism", "hashes", Cell::EachFault, 1),
    floor("forecast.determinism", "repetitions", Cell::Total, 20),
    floor("forecast.determinism", "across_workers", Cell::Total, 1),
    floor("tenancy.isolation", "scans", Cell::Total, 5_000),
    floor("tenancy.isolation", "scans", Cell::EachFault, 1),
    floor("tenancy.isolation", "foreign_attempts", Cell::Total, 1_000),
    floor("tenancy.isolation", "foreign_attempts", Cell::EachFault, 1),
    floor("tenancy.isolation", "own_canary_seen", Cell::Total, 100),
    floor("billing.exactly_once", "forecasts_billed", Cell::Total, 200),
    floor("billing.exactly_once", "forecasts_billed", Cell::EachFault, 1),
    floor("billing.exactly_once", "bills", Cell::Total, 10),
    floor("billing.exactly_once", "charges", Cell::Total, 10),
    floor("auth.fails_closed", "probes", Cell::Total, 1_000),
    floor("auth.fails_closed", "probes", Cell::EachFault, 1),
    floor("auth.fails_closed", "probes_after_heal", Cell::TotalIfFaults, 1),
    floor("auth.fails_closed", "honest_after_heal", Cell::TotalIfFaults, 1),
    floor("queue.no_lost_jobs", "acknowledged", Cell::Total, 200),
    floor("queue.no_lost_jobs", "acknowledged", Cell::EachFault, 1),
    floor("forecast.correctness", "calculations", Cell::Total, 40),
    floor("queue.completed_once", "completions", Cell::Total, 200),
    floor("process.no_unplanned_exit", "processes", Cell::Total, 2),
    floor("store.read_your_writes", "reads", Cell::Total, 100),
    floor("store.read_your_writes", "replica_reads", Cell::Total, 100),
    floor("store.read_your_writes", "replicas", Cell::Total, 2),
    floor("store.connection_hygiene", "connections", Cell::Total, 1),
    floor("privacy.no_pii", "bytes", Cell::Total, 1_000),
    floor("slo.errors", "operations", Cell::Total, 1_000),
    floor("slo.latency", "samples", Cell::Total, 100),
    floor("load.offered", "operations", Cell::Total, 1_000),
];

/// For judging a history by hand: one chance is enough.
pub const ANY: &[Floor] = &[
    floor("forecast.correctness", "forecasts", Cell::Total, 1),
    floor("forecast.determinism", "hashes", Cell::Total, 1),
    floor("tenancy.isolation", "scans", Cell::Total, 1),
    floor("tenancy.isolation", "foreign_attempts", Cell::Total, 1),
    floor("billing.exactly_once", "forecasts_billed", Cell::Total, 1),
    floor("auth.fails_closed", "probes", Cell::Total, 1),
    floor("queue.no_lost_jobs", "acknowledged", Cell::Total, 1),
    floor("queue.completed_once", "completions", Cell::Total, 1),
    floor("process.no_unplanned_exit", "processes", Cell::Total, 1),
    floor("store.read_your_writes", "reads", Cell::Total, 1),
    floor("store.connection_hygiene", "connections", Cell::Total, 1),
    floor("privacy.no_pii", "bytes", Cell::Total, 1),
    floor("slo.errors", "operations", Cell::Total, 1),
    floor("slo.latency", "samples", Cell::Total, 1),
    floor("load.offered", "operations", Cell::Total, 1),
];

/// The floors of one law, with what was reached; empty kinds of fault give no row.
pub fn reached(
    floors: &[Floor],
    law: &str,
    exposure: &BTreeMap<String, Count>,
    timeline: &Timeline<'_>,
) -> Vec<FloorReached> {
    let mut rows = Vec::new();
    for floor in floors.iter().filter(|floor| floor.law == law) {
        let count = exposure.get(floor.count);
        let mut row = |cell: String, seen: u64| {
            rows.push(FloorReached { count: floor.count.to_owned(), cell, floor: floor.min, seen });
        };
        let total = count.map_or(0, |count| count.total);
        match floor.cell {
            Cell::Total => row("total".to_owned(), total),
            Cell::TotalIfFaults if timeline.windows.is_empty() => {}
            Cell::TotalIfFaults => row("total".to_owned(), total),
            Cell::EachFault => {
                let serves = |id: &str| {
                    let mut events = timeline.faults.get(id).into_iter().flatten();
                    let percent = events.find_map(|event| event.goodput_floor_percent);
                    percent.is_none_or(|percent| percent >= SERVED_PERCENT_MIN)
                };
                let served = timeline.windows.iter().filter(|window| serves(window.id));
                let mut kinds: Vec<&str> = served.map(|window| window.kind).collect();
                kinds.sort_unstable();
                kinds.dedup();
                for kind in kinds {
                    let seen = count.and_then(|count| count.fault.get(kind)).copied().unwrap_or(0);
                    row(format!("fault/{kind}"), seen);
                }
            }
        }
    }
    rows
}
