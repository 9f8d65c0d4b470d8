//! What is done to processes: one worker of two killed leaves the API untouched.

use super::FaultRow;
use crate::fault::Tolerance;

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[FaultRow {
    name: "worker-crash",
    kind: "worker_crash",
    targets: &["worker-1", "worker-2"],
    what: "a worker gets SIGKILL while it holds a job, and is started again at the end of the window",
    control_proof: "pid and start time are gone from /proc",
    effect_proof: "the job it held stands running under its name with nobody to extend the lease",
    engines: &["docker", "process"],
    tolerance: Tolerance { goodput_ratio_min: 0.95, outage_ms_max: 2_000, recover_ms_max: 20_000 },
}];
