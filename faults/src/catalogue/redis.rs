//! What is done to Redis: its loss must be felt in latency, not in answers.
//!
//! PostgreSQL is the truth, so four in five answers must come whatever Redis does; what is missing in the first moments are
//! those that waited for it, and those whom the instances' own limits turn away while they count alone.

use super::FaultRow;
use crate::fault::Tolerance;

const BOTH: &[&str] = &["docker", "process"];
const REDIS: &[&str] = &["redis"];

const ANSWERS_GO_ON: Tolerance = Tolerance { goodput_ratio_min: 0.80, outage_ms_max: 3_000, recover_ms_max: 15_000 };

/// Those under which a stranger's greeting is late, or is not answered.
pub(super) const UNANSWERED: &[&str] =
    &["redis-loss", "redis-freeze", "redis-slow", "redis-blackhole", "redis-clients-killed"];

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[
    FaultRow {
        name: "redis-loss",
        kind: "redis_loss",
        targets: REDIS,
        what: "Redis is killed, and started again with nothing in it",
        control_proof: "its process or container is gone and its address refuses; later another run id with no keys",
        effect_proof: "PING through the API's own link fails",
        engines: BOTH,
        tolerance: ANSWERS_GO_ON,
    },
    FaultRow {
        name: "redis-freeze",
        kind: "redis_freeze",
        targets: REDIS,
        what: "Redis stands still: connections stay open and nobody answers",
        control_proof: "its process stopped (/proc) or its container paused; a greeting at its address stays unanswered",
        effect_proof: "/readyz of an API says that it does without Redis",
        engines: BOTH,
        tolerance: ANSWERS_GO_ON,
    },
    FaultRow {
        name: "redis-slow",
        kind: "redis_slow",
        targets: REDIS,
        what: "every answer of Redis comes 80 ms late, give or take 20",
        control_proof: "the proxies list the toxics, and a greeting through each link is answered 60 ms late or more",
        effect_proof: "each of five /readyz of every API, which make one trip, takes 60 ms or more",
        engines: BOTH,
        tolerance: ANSWERS_GO_ON,
    },
    FaultRow {
        name: "redis-blackhole",
        kind: "redis_blackhole",
        targets: REDIS,
        what: "nothing that is said on the links to Redis arrives, in either direction, and nothing is closed",
        control_proof: "the proxies list the toxics, and a greeting through each link stays unanswered",
        effect_proof: "/readyz of an API says that it does without Redis",
        engines: BOTH,
        tolerance: ANSWERS_GO_ON,
    },
    FaultRow {
        name: "redis-flush",
        kind: "redis_flush",
        targets: REDIS,
        what: "everything Redis holds is flushed, every 400 ms",
        control_proof: "a mark that was put before is gone, and the server counts flushes",
        effect_proof: "through the API's own link fewer than half of the keys are left",
        engines: BOTH,
        tolerance: ANSWERS_GO_ON,
    },
    FaultRow {
        name: "redis-eviction",
        kind: "redis_eviction",
        targets: REDIS,
        what: "its memory is full of other keys, and Redis evicts what was used least",
        control_proof: "the server counts evictions under the limit it was drawn down to",
        effect_proof: "through the API's own link fewer than half of the keys are left",
        engines: BOTH,
        tolerance: ANSWERS_GO_ON,
    },
    FaultRow {
        name: "redis-memory-refused",
        kind: "redis_memory_refused",
        targets: REDIS,
        what: "its memory is full, and Redis refuses every write",
        control_proof: "a write of ours is refused with OOM",
        effect_proof: "the APIs' own counters: more refusals of Redis than before",
        engines: BOTH,
        tolerance: ANSWERS_GO_ON,
    },
    FaultRow {
        name: "redis-clients-killed",
        kind: "redis_clients_killed",
        targets: REDIS,
        what: "every client of Redis is cut off, every 150 ms",
        control_proof: "no client is connected that was before",
        effect_proof: "the APIs' own counters: more failures of Redis than before",
        engines: BOTH,
        tolerance: ANSWERS_GO_ON,
    },
    FaultRow {
        name: "redis-demoted",
        kind: "redis_demoted",
        targets: REDIS,
        what: "Redis is made a replica of a server that is not there: it answers what it knows and takes no write",
        control_proof: "it says that it is a replica, and a write of ours is refused with READONLY",
        effect_proof: "the APIs' own counters: more refusals of Redis than before",
        engines: BOTH,
        tolerance: ANSWERS_GO_ON,
    },
];
