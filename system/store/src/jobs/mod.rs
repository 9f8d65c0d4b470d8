//! The queue: enqueue, claim, heartbeat, settle.
//!
//! A job is enqueued in the transaction that creates its subject and claimed under a lease with a
//! fence, a number that only rises. Every later statement names the fence and asks the database's own
//! clock whether the lease still holds, so a worker that lost it, slept past it, or has a wrong clock
//! writes nothing. Attempts are counted by the claim, so a job that kills its worker still ends.
//!
//! Order of a job's life: queued, running, then succeeded, failed, cancelled or dead; or queued again for
//! a retry, or because its worker drained.

mod claim;
mod complete;
mod enqueue;
mod settle;

use std::time::Duration;

use forecastle_domain::TenantId;
use uuid::Uuid;

pub use claim::{ClaimBatch, ClaimTerms, ClaimedJob, EndedJob, claim};
pub use complete::{Completion, Outcome, complete, complete_all};
pub use enqueue::{count_open, enqueue_forecast, enqueue_probes};
pub use settle::{Failure, fail, hand_back, heartbeat, retry};

/// Computes a forecast; the job's subject is the forecast.
pub const KIND_FORECAST: &str = "forecast";
/// Does nothing but pass through the queue: a measure of its health and speed. Free, and no usage.
pub const KIND_PROBE: &str = "probe";
/// The channel that a commit with new jobs rings.
pub const CHANNEL: &str = "forecastle_jobs";

/// Which attempt at which job: what every later statement must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Whose job it is.
    pub tenant_id: TenantId,
    /// The job.
    pub job_id: Uuid,
    /// Rises with every claim of any job.
    pub fence: i64,
    /// 1 for the first claim.
    pub attempt: u32,
}

/// Whether a statement that names a fence took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Settled {
    /// It did.
    Done,
    /// The job is no longer this claim's; nothing was written.
    LeaseLost,
}

const fn settled(touched: bool) -> Settled {
    if touched { Settled::Done } else { Settled::LeaseLost }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
