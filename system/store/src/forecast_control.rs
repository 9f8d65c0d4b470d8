//! Forecasts stopped and made again, as their tenant asks.
//!
//! Law: a forecast that ended stays as it ended. So a retry is a forecast of its own, with quota of its own,
//! made from the input that was stored with the first; and a cancellation and a success of one forecast
//! meet at the job's row, where exactly one of them finds it open.

use forecastle_domain::{ForecastId, UserId};
use uuid::Uuid;

use crate::error::StoreError;
use crate::forecasts::{self, Forecast, Requested};
use crate::jobs;
use crate::scope::TenantTx;

/// What became of a cancellation.
#[derive(Debug)]
pub enum Cancelled {
    /// Cancelled by this transaction, and its quota given back; commits with it.
    Forecast(Box<Forecast>),
    /// It had ended before.
    Ended,
    /// No such forecast of this tenant.
    NotFound,
}

/// Cancels a forecast that waits or runs. A worker that computes it finds its lease gone.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn cancel(tx: &mut TenantTx, id: ForecastId) -> Result<Cancelled, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    // A statement of its own: the next one must see what whoever held the row has written elsewhere.
    let query = sqlx::query_as(
        "SELECT job_id, state IN ('queued', 'running') FROM app.jobs
         WHERE tenant_id = $1 AND kind = 'forecast' AND subject_id = $2 FOR UPDATE",
    );
    let job: Option<(Uuid, bool)> = tx.optional(query.bind(tenant).bind(id.as_uuid())).await?;
    let job = match job {
        None => return Ok(Cancelled::NotFound),
        Some((_, false)) => return Ok(Cancelled::Ended),
        Some((job, true)) => job,
    };
    let query = sqlx::query_as(
        "WITH held AS (
             UPDATE app.jobs SET state = 'cancelled', lease_until = NULL, finished_at = now()
             WHERE tenant_id = $1 AND job_id = $2 AND state IN ('queued', 'running')
             RETURNING subject_id),
         ended AS (
             UPDATE app.forecasts f SET state = 'cancelled', finished_at = now(), quota_state = 'released'
             FROM held
             WHERE f.tenant_id = $1 AND f.forecast_id = held.subject_id AND f.quota_state = 'held'
             RETURNING f.quota_period),
         given_back AS (
             UPDATE app.quota_periods q SET taken = q.taken - 1
             FROM ended WHERE q.tenant_id = $1 AND q.period_index = ended.quota_period
             RETURNING 1),
         attempt AS (
             UPDATE app.job_attempts a SET ended_at = now(), outcome = 'cancelled'
             FROM held
             WHERE a.tenant_id = $1 AND a.job_id = $2 AND a.outcome IS NULL)
         SELECT (SELECT count(*) FROM held), (SELECT count(*) FROM given_back)",
    );
    let (held, given_back): (i64, i64) = tx.one(query.bind(tenant).bind(job)).await?;
    if (held, given_back) != (1, 1) {
        return Err(StoreError::Corrupt { what: "forecasts.quota_state" });
    }
    let query = sqlx::query_as(
        "SELECT f.forecast_id, f.scenario_id, f.scenario_version, f.state, j.attempts, f.requested_at, f.started_at,
                f.finished_at, f.engine_version, f.result_hash, f.error_code, f.input, f.result
         FROM app.forecasts f JOIN app.jobs j ON j.tenant_id = f.tenant_id AND j.job_id = $3
         WHERE f.tenant_id = $1 AND f.forecast_id = $2",
    );
    let forecast: Forecast = tx.one(query.bind(tenant).bind(id.as_uuid()).bind(job)).await?;
    Ok(Cancelled::Forecast(Box::new(forecast)))
}

/// What became of a retry.
#[derive(Debug)]
pub enum Retried {
    /// As a request for a forecast: queued, switched off, or no quota is left.
    Requested(Requested),
    /// It has not ended, or it succeeded.
    NotRetryable,
    /// No such forecast of this tenant.
    NotFound,
}

/// Makes a forecast again that failed or was cancelled: a new one, `id`, of the same input.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn retry(tx: &mut TenantTx, id: ForecastId, ended: ForecastId, user: UserId) -> Result<Retried, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let query = sqlx::query_as(
        "SELECT state IN ('failed', 'cancelled'), input::text FROM app.forecasts
         WHERE tenant_id = $1 AND forecast_id = $2",
    );
    let found: Option<(bool, String)> = tx.optional(query.bind(tenant).bind(ended.as_uuid())).await?;
    let input = match found {
        None => return Ok(Retried::NotFound),
        Some((false, _)) => return Ok(Retried::NotRetryable),
        Some((true, input)) => input,
    };
    let period = match forecasts::admit(tx, &input).await? {
        Ok(period) => period,
        Err(refused) => return Ok(Retried::Requested(refused)),
    };
    let query = sqlx::query_as(
        "INSERT INTO app.forecasts (tenant_id, forecast_id, scenario_id, scenario_version, requested_by, input, state,
                                    requested_at, quota_period, quota_state, retry_of)
         SELECT tenant_id, $3, scenario_id, scenario_version, $4, input, 'queued', now(), $5, 'held', forecast_id
         FROM app.forecasts WHERE tenant_id = $1 AND forecast_id = $2
         RETURNING forecast_id, scenario_id, scenario_version, state, 0 AS attempts, requested_at, started_at,
                   finished_at, engine_version, result_hash, error_code, input, result",
    );
    let query = query.bind(tenant).bind(ended.as_uuid()).bind(id.as_uuid()).bind(user.as_uuid()).bind(period);
    let forecast: Forecast = tx.one(query).await?;
    jobs::enqueue_forecast(tx, id).await?;
    Ok(Retried::Requested(Requested::Forecast(Box::new(forecast))))
}
