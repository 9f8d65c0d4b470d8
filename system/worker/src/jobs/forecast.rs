//! The forecast job: the copied input in, result and hash out. Same input, same bytes, whichever worker
//! and attempt.

use std::sync::Arc;

use forecastle_forecast::{ENGINE_VERSION, ForecastError};
use forecastle_store::jobs::Outcome;

use crate::compute::{Compute, NoAnswer};
use crate::lease::{LeaseState, StopReason};

/// How a job failed; the policy reads from the type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JobError {
    /// Another attempt may succeed.
    #[error("retryable: {cause}")]
    Retryable {
        /// Stable word, kept on the job.
        cause: &'static str,
    },
    /// No attempt can succeed.
    #[error("permanent: {code}")]
    Permanent {
        /// Stable word, shown to the customer.
        code: &'static str,
    },
    /// It was told to stop.
    #[error("stopped: {0:?}")]
    Stopped(StopReason),
}

/// Computes on a thread of its own, so that a long forecast delays no heartbeat.
pub(crate) async fn run(
    compute: &Compute,
    input: serde_json::Value,
    lease: Arc<LeaseState>,
) -> Result<Outcome, JobError> {
    let asked = Arc::clone(&lease);
    let computed = compute.run(move || {
        let progress = |percent| asked.set_percent(percent);
        let forecast = forecastle_forecast::run_reporting(&input, 1, &|| asked.should_stop().is_some(), &progress)?;
        // Here too, on the thread that computes: a result of many months has hundreds of kB.
        Ok(Outcome {
            engine_version: ENGINE_VERSION.to_owned(),
            result: forecast.result.to_string().into(),
            result_hash: forecast.result_hash,
        })
    });
    match computed.await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(ForecastError::Invalid(_))) => Err(JobError::Permanent { code: "invalid_input" }),
        Ok(Err(ForecastError::AmountOutOfRange)) => Err(JobError::Permanent { code: "amount_out_of_range" }),
        Ok(Err(ForecastError::Stopped)) => Err(JobError::Stopped(lease.should_stop().unwrap_or(StopReason::LeaseLost))),
        // The panic's own text may hold customer data; the hook has logged its place.
        Err(NoAnswer) => Err(JobError::Retryable { cause: "panicked" }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn an_input_that_breaks_the_bounds_fails_for_good() {
        let lease = Arc::new(LeaseState::until(Instant::now() + Duration::from_secs(60)));
        let compute = Compute::new(1).unwrap();
        let outcome = run(&compute, serde_json::json!({}), lease).await;
        assert_eq!(outcome.unwrap_err(), JobError::Permanent { code: "invalid_input" });
    }
}
