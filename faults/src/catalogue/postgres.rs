//! What is done to PostgreSQL.
//!
//! With all writers of scenarios and jobs blocked, reads by cache and by rows nobody locks must go on until the pool is
//! full of waiters: a tenth is what a cache alone can answer.

use super::FaultRow;
use crate::fault::Tolerance;

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[FaultRow {
    name: "pool-exhaustion",
    kind: "pool_exhaustion",
    targets: &["postgres"],
    what: "every connection the server has left is taken and held, and writers of scenarios and jobs wait for locks",
    control_proof: "pg_stat_activity and pg_locks: our sessions hold, the system's wait",
    effect_proof: "/readyz of an API, which takes a connection from the same pool, fails or takes over 750 ms",
    engines: &["docker", "process"],
    tolerance: Tolerance { goodput_ratio_min: 0.10, outage_ms_max: 8_000, recover_ms_max: 15_000 },
}];
