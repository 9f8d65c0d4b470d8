//! What is requested and never done, to show that a fault without effect is noticed.

use super::FaultRow;
use crate::fault::Tolerance;

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[FaultRow {
    name: "placebo",
    kind: "placebo",
    targets: &["redis"],
    what: "requested and never done: a run that asks for it must end inconclusive",
    control_proof: "none, which is the point",
    effect_proof: "none",
    engines: &["docker", "process"],
    tolerance: Tolerance { goodput_ratio_min: 0.95, outage_ms_max: 1_000, recover_ms_max: 1_000 },
}];
