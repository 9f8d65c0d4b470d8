//! What is done to the links between the system's processes and its stores, each role and each store by itself.
//!
//! A victim is `<role>-<store>`: a process (`api-1-redis`) or all processes of a role (`apis-postgres`). How much harm is
//! tolerated depends on the victim: one of two APIs without the primary leaves the other's half (the floor is three quarters
//! of the least that was measured), both leave what was found authorised a moment ago; Redis and one replica can be done without; workers and billers answer nobody.
//!
//! A biller is at work in no window of the load but its own, where one is sent on its way. It has no part in the rows that
//! only slow a link down: a pass has no time that another could be told from.

use super::FaultRow;
use crate::fault::Tolerance;

const BOTH: &[&str] = &["docker", "process"];
/// What links lead to, as victims name it last: stores, the provider, the APIs where its events go, sinks.
const STORES: [&str; 9] =
    ["postgres", "redis", "replica-1", "replica-2", "provider", "webhooks", "errors", "analytics", "alerts"];

const SILENT: &[&str] = &[
    "api-1-postgres",
    "api-2-postgres",
    "apis-postgres",
    "worker-1-postgres",
    "worker-2-postgres",
    "workers-postgres",
    "billers-postgres",
    "api-1-redis",
    "api-2-redis",
    "apis-redis",
    "apis-replica-1",
    "apis-replica-2",
];
const SLOW: &[&str] = &[
    "api-1-postgres",
    "api-2-postgres",
    "apis-postgres",
    "worker-1-postgres",
    "worker-2-postgres",
    "workers-postgres",
    "api-1-redis",
    "api-2-redis",
    "apis-redis",
];
const TO_POSTGRES: &[&str] = &["api-1-postgres", "api-2-postgres", "apis-postgres"];

const SHOWN_SILENT: &str = "the proxies list the toxics, and a greeting through each link stays unanswered";
const SHOWN_LATE: &str = "the proxies list the toxics, and two kilobytes through each link take 25 ms or more";
const FELT: &str = "an API and the primary: its /readyz fails; Redis: it says that it does without; a replica: it answers no \
                    read of theirs; workers: they claim nothing though jobs wait; billers: a pass does not end within 3 s, or \
                    fails";

const fn tolerance(goodput_percent_min: u8, outage_ms_max: u64, recover_ms_max: u64) -> Tolerance {
    Tolerance { goodput_ratio_min: goodput_percent_min as f64 / 100.0, outage_ms_max, recover_ms_max }
}

/// Of the worst victim; [`tolerance_at`] narrows it.
const CUT_OFF: Tolerance = tolerance(6, 14_000, 20_000);
const HAMPERED: Tolerance = tolerance(70, 1_500, 20_000);

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[
    FaultRow {
        name: "link-latency",
        kind: "link_latency",
        targets: SLOW,
        what: "every answer on the victim's links comes 40 ms late, give or take 10",
        control_proof: "the proxies list the toxics, and a greeting through each link is answered 30 ms late or more",
        effect_proof: "APIs: each of five /readyz, which make one trip to each store, takes 30 ms or more; workers: none of \
                       three jobs or more ends within 30 ms of its claim",
        engines: BOTH,
        tolerance: HAMPERED,
    },
    FaultRow {
        name: "link-bandwidth",
        kind: "link_bandwidth",
        targets: TO_POSTGRES,
        what: "every connection on the victim's links carries 64 kB/s of answers at most",
        control_proof: SHOWN_LATE,
        effect_proof: "the APIs' own counters: the mean answer takes twice as long as before, and 5 ms longer",
        engines: BOTH,
        tolerance: HAMPERED,
    },
    FaultRow {
        name: "link-slicing",
        kind: "link_slicing",
        targets: TO_POSTGRES,
        what: "answers on the victim's links come in pieces of 64 bytes, give or take 32, 1 ms apart",
        control_proof: SHOWN_LATE,
        effect_proof: "the APIs' own counters: the mean answer takes twice as long as before, and 5 ms longer",
        engines: BOTH,
        tolerance: HAMPERED,
    },
    FaultRow {
        name: "partition",
        kind: "partition",
        targets: SILENT,
        what: "nothing that is said on the victim's links arrives, in either direction",
        control_proof: SHOWN_SILENT,
        effect_proof: FELT,
        engines: BOTH,
        tolerance: CUT_OFF,
    },
    FaultRow {
        name: "partition-requests",
        kind: "partition_requests",
        targets: SILENT,
        what: "nothing that the victim says on its links arrives; what it is told does",
        control_proof: SHOWN_SILENT,
        effect_proof: FELT,
        engines: BOTH,
        tolerance: CUT_OFF,
    },
    // What was asked is done all the same: a COMMIT holds, and nobody is told.
    FaultRow {
        name: "partition-answers",
        kind: "partition_answers",
        targets: SILENT,
        what: "what the victim says on its links arrives and is done; no answer comes back",
        control_proof: SHOWN_SILENT,
        effect_proof: FELT,
        engines: BOTH,
        tolerance: CUT_OFF,
    },
    FaultRow {
        name: "half-open",
        kind: "half_open",
        targets: SILENT,
        what: "on the victim's links neither answers nor the end of a connection come back: its half stays open, whatever \
               became of the other; at the end of the window it is reset",
        control_proof: SHOWN_SILENT,
        effect_proof: FELT,
        engines: BOTH,
        tolerance: CUT_OFF,
    },
    FaultRow {
        name: "link-reset",
        kind: "link_reset",
        targets: SILENT,
        what: "every connection on the victim's links is reset at the first answer",
        control_proof: "the proxies list the toxics, and a greeting through each link ends without an answer",
        effect_proof: FELT,
        engines: BOTH,
        tolerance: CUT_OFF,
    },
];

/// The role and the store of a victim such as `apis-postgres`; none for any other victim.
#[must_use]
pub fn role_and_store(victim: &str) -> Option<(&str, &str)> {
    STORES.into_iter().find_map(|store| {
        let role = victim.strip_suffix(store)?.strip_suffix('-')?;
        Some((role, &victim[role.len() + 1..]))
    })
}

/// What is tolerated of a fault of this family at that victim.
pub(super) fn tolerance_at(row: &FaultRow, victim: &str) -> Tolerance {
    let worst = row.tolerance;
    let least = match role_and_store(victim) {
        Some((role, _)) if role.starts_with("worker") || role.starts_with("biller") => tolerance(90, 2_000, 20_000),
        Some((_, "redis")) => tolerance(80, 3_000, 15_000),
        Some((_, "replica-1" | "replica-2")) => tolerance(85, 2_000, 20_000),
        Some(("apis", _)) | None => worst,
        Some(_) => tolerance(33, 3_000, 15_000),
    };
    if least.goodput_ratio_min > worst.goodput_ratio_min { least } else { worst }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_victim_of_a_link_is_a_role_and_a_store() {
        for victim in ROWS.iter().flat_map(|row| row.targets) {
            assert!(role_and_store(victim).is_some(), "{victim}");
        }
        assert_eq!(role_and_store("apis-replica-2"), Some(("apis", "replica-2")));
        assert_eq!(role_and_store("api-1-redis"), Some(("api-1", "redis")));
        assert_eq!(role_and_store("redis"), None);
        assert_eq!(role_and_store("worker-1"), None);
    }

    #[test]
    fn one_api_cut_off_leaves_the_half_of_the_other() {
        let row = ROWS.iter().find(|row| row.name == "partition").expect("a row");
        let floor = |victim| (tolerance_at(row, victim).goodput_ratio_min * 100.0).round() as u64;
        assert_eq!([floor("apis-postgres"), floor("api-1-postgres"), floor("apis-redis")], [6, 33, 80]);
        assert_eq!([floor("workers-postgres"), floor("billers-postgres")], [90, 90]);
    }
}
