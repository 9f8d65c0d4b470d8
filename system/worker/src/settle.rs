//! Brings a job's end into the database, as often as it takes, for as long as the lease is ours.

use std::sync::Arc;
use std::time::Duration;

use forecastle_domain::{JOB_ATTEMPTS_MAX, UsageEventId, backoff_ms};
use forecastle_store::jobs::{self, Claim, Completion, Failure, Outcome, Settled};
use forecastle_store::{Db, StoreError};
use rand::RngExt;

use crate::completions::Completions;
use crate::config::WorkerConfig;
use crate::jobs::forecast::JobError;
use crate::lease::{LeaseState, StopReason};

/// First pause after the database did not take an end; doubles up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The one thing to write, fixed before the first try so that every try writes the same.
#[derive(Debug)]
enum End {
    Succeeded(Box<Completion>),
    Failed { failure: Failure, code: &'static str, cause: &'static str },
    Retry { delay: Duration, cause: &'static str },
    HandBack,
}

/// Settles the job; the word for the metric: `succeeded`, `failed`, `dead`, `retried`, `drained` or
/// `lease_lost`, which a cancelled job looks like too. A success without an outcome is a probe's.
pub(crate) async fn settle(
    db: &Db,
    completions: &Completions,
    config: &WorkerConfig,
    claim: &Claim,
    lease: &Arc<LeaseState>,
    outcome: Result<Option<Outcome>, JobError>,
) -> &'static str {
    let Some((end, word)) = decide(config, claim, outcome) else {
        return "lease_lost";
    };
    let mut pause = PAUSE_MIN;
    loop {
        match write(db, completions, claim, &end).await {
            Ok(Settled::Done) => return word,
            Ok(Settled::LeaseLost) => return "lease_lost",
            Err(error) if error.is_unavailable() => {
                tracing::warn!(error = %error, "settle job");
            }
            Err(error) => {
                // Nothing this worker can do: its lease runs out and the attempt counts.
                tracing::error!(error = %error, "settle job");
                return "lease_lost";
            }
        }
        if lease.is_lost() {
            return "lease_lost";
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn decide(
    config: &WorkerConfig,
    claim: &Claim,
    outcome: Result<Option<Outcome>, JobError>,
) -> Option<(End, &'static str)> {
    let cause = match outcome {
        Ok(outcome) => {
            let outcome = outcome.map(|outcome| (outcome, UsageEventId::from_uuid(uuid::Uuid::now_v7())));
            return Some((End::Succeeded(Box::new(Completion { claim: *claim, outcome })), "succeeded"));
        }
        Err(JobError::Permanent { code }) => {
            return Some((End::Failed { failure: Failure::Permanent, code, cause: code }, "failed"));
        }
        Err(JobError::Stopped(StopReason::LeaseLost)) => return None,
        Err(JobError::Stopped(StopReason::DeadlineExceeded)) => {
            let code = "deadline_exceeded";
            return Some((End::Failed { failure: Failure::Permanent, code, cause: code }, "failed"));
        }
        // The process goes away for reasons of its own: that must cost the job nothing.
        Err(JobError::Stopped(StopReason::Drained)) => return Some((End::HandBack, "drained")),
        Err(JobError::Retryable { cause }) => cause,
    };
    if claim.attempt >= JOB_ATTEMPTS_MAX {
        let end = End::Failed { failure: Failure::Exhausted, code: "attempts_exhausted", cause };
        return Some((end, "dead"));
    }
    let wait_ms = backoff_ms(claim.attempt, config.backoff_base_ms, config.backoff_cap_ms, rand::rng().random::<f64>());
    Some((End::Retry { delay: Duration::from_millis(wait_ms), cause }, "retried"))
}

async fn write(db: &Db, completions: &Completions, claim: &Claim, end: &End) -> Result<Settled, StoreError> {
    match end {
        End::Succeeded(completion) => completions.write(Completion::clone(completion)).await,
        End::Failed { failure, code, cause } => jobs::fail(db, claim, *failure, code, cause).await,
        End::Retry { delay, cause } => jobs::retry(db, claim, *delay, cause).await,
        End::HandBack => jobs::hand_back(db, claim).await,
    }
}
