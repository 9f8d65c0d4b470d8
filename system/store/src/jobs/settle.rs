//! What a worker writes about a job it holds, but for its success: all of it under the claim's fence and
//! within its lease by the database's clock.

use std::time::Duration;

use super::{CHANNEL, Claim, Settled, millis, settled};
use crate::error::StoreError;
use crate::pool::Db;

/// Extends the lease from now on, and tells those who watch how far the computation is, in percent.
///
/// # Errors
/// As [`StoreError`] says; the lease may or may not have been extended.
pub async fn heartbeat(db: &Db, claim: &Claim, lease: Duration, percent: Option<u8>) -> Result<Settled, StoreError> {
    let mut tx = db.tenant(claim.tenant_id).begin().await?;
    let query = sqlx::query_as(
        "WITH held AS (
             UPDATE app.jobs SET lease_until = clock_timestamp() + $4 * interval '1 millisecond'
             WHERE tenant_id = $1 AND job_id = $2 AND fence = $3 AND state = 'running'
               AND lease_until > clock_timestamp()
             RETURNING subject_id),
         event AS (
             INSERT INTO app.forecast_events (tenant_id, forecast_id, state, percent)
             SELECT $1, held.subject_id, 'running', $5 FROM held WHERE $5 IS NOT NULL
             RETURNING 1)
         SELECT (SELECT count(*) FROM held), (SELECT count(pg_notify($6, $1::text)) FROM event)",
    );
    let query = query
        .bind(claim.tenant_id.as_uuid())
        .bind(claim.job_id)
        .bind(claim.fence)
        .bind(millis(lease))
        .bind(percent.map(i16::from))
        .bind(crate::events::CHANNEL);
    let (held, _): (i64, i64) = tx.one(query).await?;
    tx.commit().await?;
    Ok(settled(held > 0))
}

/// How a job ends without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The input can never succeed.
    Permanent,
    /// The last attempt failed: a dead letter.
    Exhausted,
}

/// Ends job and forecast as failed and gives the quota back, once. `code` is shown to the customer,
/// `cause` is kept on the job.
///
/// # Errors
/// As [`StoreError`] says; call again after `CommitUnknown`.
pub async fn fail(db: &Db, claim: &Claim, failure: Failure, code: &str, cause: &str) -> Result<Settled, StoreError> {
    let mut tx = db.tenant(claim.tenant_id).begin().await?;
    let query = sqlx::query_as(
        "WITH held AS (
             UPDATE app.jobs SET state = $4, lease_until = NULL, finished_at = now(), last_error_code = $6
             WHERE tenant_id = $1 AND job_id = $2 AND fence = $3 AND state = 'running'
               AND lease_until > clock_timestamp()
             RETURNING subject_id),
         ended AS (
             UPDATE app.forecasts f
             SET state = 'failed', error_code = $5, finished_at = now(), quota_state = 'released'
             FROM held
             WHERE f.tenant_id = $1 AND f.forecast_id = held.subject_id AND f.quota_state = 'held'
             RETURNING f.quota_period),
         given_back AS (
             UPDATE app.quota_periods q SET taken = q.taken - 1
             FROM ended WHERE q.tenant_id = $1 AND q.period_index = ended.quota_period),
         attempt AS (
             UPDATE app.job_attempts a SET ended_at = now(), outcome = 'failed'
             FROM held
             WHERE a.tenant_id = $1 AND a.job_id = $2 AND a.fence = $3 AND a.outcome IS NULL)
         SELECT count(*) FROM held",
    );
    let query = query
        .bind(claim.tenant_id.as_uuid())
        .bind(claim.job_id)
        .bind(claim.fence)
        .bind(match failure {
            Failure::Permanent => "failed",
            Failure::Exhausted => "dead",
        })
        .bind(code)
        .bind(cause);
    let (held,): (i64,) = tx.one(query).await?;
    tx.commit().await?;
    Ok(settled(held > 0))
}

/// Queues the job again, due after `delay`; the attempt stays counted and the quota stays taken.
///
/// # Errors
/// As [`StoreError`] says; call again after `CommitUnknown`.
pub async fn retry(db: &Db, claim: &Claim, delay: Duration, cause: &str) -> Result<Settled, StoreError> {
    queue_again(db, claim, Some(delay), cause).await
}

/// Gives the job back as it was before the claim, at its old place in the queue, and rings: the attempt
/// stays counted, and whoever claims next goes on with it. For a worker that drains.
///
/// # Errors
/// As [`StoreError`] says; call again after `CommitUnknown`.
pub async fn hand_back(db: &Db, claim: &Claim) -> Result<Settled, StoreError> {
    queue_again(db, claim, None, "drained").await
}

async fn queue_again(db: &Db, claim: &Claim, delay: Option<Duration>, cause: &str) -> Result<Settled, StoreError> {
    let mut tx = db.tenant(claim.tenant_id).begin().await?;
    let query = sqlx::query_as(
        "WITH held AS (
             UPDATE app.jobs
             SET state = 'queued', lease_until = NULL, last_error_code = $5, handed_back = $4::bigint IS NULL,
                 ready_at = coalesce(now() + $4 * interval '1 millisecond', ready_at)
             WHERE tenant_id = $1 AND job_id = $2 AND fence = $3 AND state = 'running'
               AND lease_until > clock_timestamp()
             RETURNING subject_id),
         waiting AS (
             UPDATE app.forecasts f SET state = 'queued'
             FROM held WHERE f.tenant_id = $1 AND f.forecast_id = held.subject_id AND f.state = 'running'),
         attempt AS (
             UPDATE app.job_attempts a
             SET ended_at = now(), outcome = CASE WHEN $4 IS NULL THEN 'drained' ELSE 'retry' END
             FROM held
             WHERE a.tenant_id = $1 AND a.job_id = $2 AND a.fence = $3 AND a.outcome IS NULL)
         SELECT (SELECT count(*) FROM held), (SELECT count(pg_notify($6, '')) FROM held WHERE $4 IS NULL)",
    );
    let query = query
        .bind(claim.tenant_id.as_uuid())
        .bind(claim.job_id)
        .bind(claim.fence)
        .bind(delay.map(millis))
        .bind(cause)
        .bind(CHANNEL);
    let (held, _): (i64, i64) = tx.one(query).await?;
    tx.commit().await?;
    Ok(settled(held > 0))
}
