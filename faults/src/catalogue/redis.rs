//! What is done to Redis: its loss must be felt in latency, not in answers.

use super::FaultRow;
use crate::fault::Tolerance;

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[FaultRow {
    name: "redis-loss",
    kind: "redis_loss",
    targets: &["redis"],
    what: "Redis is killed, and started again with nothing in it",
    control_proof: "its process or container is gone and its address refuses; later another run id with no keys",
    effect_proof: "PING through the API's own link fails",
    engines: &["docker", "process"],
    tolerance: Tolerance { goodput_ratio_min: 0.80, outage_ms_max: 3_000, recover_ms_max: 15_000 },
}];
