//! All that a law may look at: what the run was, what happened, and what was left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::final_state::FinalState;
use crate::history::Event;

/// What the run was; written before the load begins and completed at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Identity of the run.
    pub run_id: String,
    /// Root seed, as printed.
    pub seed: String,
    /// Suite, which names the verdict's scope.
    pub suite: String,
    /// `docker` or `process`.
    pub engine: String,
    /// Commit of the tree that was built.
    pub commit: String,
    /// Whether the tree had changes beside the commit.
    pub dirty: bool,
    /// SHA-256 of the lock file.
    pub lock_sha256: String,
    /// SHA-256 of the history as text, one line per event.
    pub history_sha256: String,
    /// Images or binaries by role, with their digests or versions.
    pub images: BTreeMap<String, String>,
    /// Kinds of fault asked for; each must have landed.
    pub faults_requested: Vec<String>,
    /// Whether the run was cut short; then nothing is complete.
    pub partial: bool,
    /// What the system was configured to hold to.
    pub settings: Settings,
}

/// Limits that the system was configured with, or is held to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// A revoked session is refused from this long after the acknowledgement.
    pub revocation_bound_ms: u64,
    /// Attempts that a job gets, counted at claim.
    pub attempts_max: u64,
    /// A forecast acknowledged this long before the end must have ended, milliseconds.
    pub terminal_bound_ms: u64,
    /// Difference of two claim stamps that says nothing about their order: a claim is stamped when
    /// its transaction begins, and locks later.
    pub fifo_tolerance_ms: u64,
    /// Kinds of fault that hold locks, under which a claim may pass over a locked job.
    pub lock_holding_faults: Vec<String>,
    /// Kinds of fault that cost no worker its lease or a job its attempts: they excuse neither. A clock may be wrong, since
    /// leases and deadlines are the database's; who is asked to go finishes or hands back.
    pub lease_keeping_faults: Vec<String>,
    /// Largest share of errors in a phase, per cent.
    pub errors_percent_max: u64,
    /// Largest p95 outside fault windows, milliseconds.
    pub latency_p95_ms_max: u64,
    /// Fewest answers for a p95 to say something.
    pub latency_samples_min: u64,
    /// Fewest operations for a share of errors to say something.
    pub error_samples_min: u64,
    /// How far the database's clock and commit may lie from the record's, milliseconds.
    pub clock_slack_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            revocation_bound_ms: 1_000,
            attempts_max: 3,
            terminal_bound_ms: 30_000,
            fifo_tolerance_ms: 1_500,
            lock_holding_faults: vec!["pool_exhaustion".to_owned()],
            lease_keeping_faults: ["clock_skew", "clock_step", "worker_drain"].map(str::to_owned).to_vec(),
            errors_percent_max: 1,
            latency_p95_ms_max: 3_000,
            latency_samples_min: 100,
            error_samples_min: 100,
            clock_slack_ms: 6_000,
        }
    }
}

/// All that a law may look at.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// What the run was.
    pub manifest: &'a Manifest,
    /// What happened, in order.
    pub history: &'a [Event],
    /// What was left.
    pub final_state: &'a FinalState,
}
