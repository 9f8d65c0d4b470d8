//! The queue: enqueue, claim, heartbeat, settle.
//!
//! A job is enqueued in the transaction that creates its subject and claimed under a lease with a
//! fence, a number that only rises. Every later statement names the fence, so a worker that lost its
//! lease writes nothing. Attempts are counted by the claim, so a job that kills its worker still ends.
//!
//! Order of a job's life: queued, running, then succeeded, failed or dead; or queued again for a retry.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forecastle_domain::{ForecastId, JOB_ATTEMPTS_MAX, TenantId, UsageEventId};
use sqlx::FromRow;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::error::StoreError;
use crate::pool::Db;
use crate::scope::TenantTx;

/// The one kind of job there is today.
pub const KIND_FORECAST: &str = "forecast";
/// The channel a commit with new jobs rings.
const CHANNEL: &str = "forecastle_jobs";
/// Pause before listening again after the link broke; polling goes on meanwhile.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// Queues the job of a forecast, due at once, and wakes the workers when the transaction commits.
///
/// # Errors
/// `Conflict` if the forecast has its job already; else as [`StoreError`] says.
pub async fn enqueue_forecast(tx: &mut TenantTx, forecast: ForecastId) -> Result<(), StoreError> {
    let query = sqlx::query(
        "WITH queued AS (
             INSERT INTO app.jobs (tenant_id, job_id, kind, subject_id, state, ready_at, enqueued_at)
             VALUES ($1, $2, $3, $2, 'queued', now(), now())
             RETURNING job_id)
         SELECT pg_notify($4, '') FROM queued",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(forecast.as_uuid()).bind(KIND_FORECAST).bind(CHANNEL);
    tx.execute(query).await.map(drop)
}

/// How a worker claims.
#[derive(Debug, Clone, Copy)]
pub struct ClaimTerms {
    /// How long a claim holds without a heartbeat.
    pub lease: Duration,
    /// How long after its first claim a job may still be worked on.
    pub deadline: Duration,
}

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

/// A claimed job with its input.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// What to name when settling.
    pub claim: Claim,
    /// Kind, one of those asked for.
    pub kind: String,
    /// The forecast it computes.
    pub forecast_id: ForecastId,
    /// The scenario's input as copied at the request.
    pub input: serde_json::Value,
    /// After this instant the job may only fail.
    pub deadline_at: DateTime<Utc>,
    /// From due to claimed, ms; the retry's wait is in it.
    pub waited_ms: i64,
}

/// A job that a claim found used up and ended.
#[derive(Debug, Clone)]
pub struct EndedJob {
    /// Whose job it was.
    pub tenant_id: TenantId,
    /// The forecast that failed with it.
    pub forecast_id: ForecastId,
    /// `attempts_exhausted` or `deadline_exceeded`.
    pub code: String,
}

/// What one claim brought.
#[derive(Debug, Clone, Default)]
pub struct ClaimBatch {
    /// To be worked on, oldest first.
    pub jobs: Vec<ClaimedJob>,
    /// Ended by the claim itself.
    pub ended: Vec<EndedJob>,
}

#[derive(FromRow)]
struct ClaimRow {
    tenant_id: Uuid,
    job_id: Uuid,
    kind: String,
    subject_id: Uuid,
    attempt: i32,
    fence: i64,
    deadline_at: Option<DateTime<Utc>>,
    input: Option<serde_json::Value>,
    claimed: bool,
    end_code: Option<String>,
    waited_ms: i64,
}

/// Takes up to `limit` due jobs of the kinds given, oldest first, of whatever tenant. Jobs of other
/// kinds stay where they are.
///
/// # Errors
/// As [`StoreError`] says. After `Timeout` jobs may have been claimed unheard: their leases run out.
pub async fn claim(
    db: &Db,
    worker: &str,
    limit: u32,
    terms: ClaimTerms,
    kinds: &[&str],
) -> Result<ClaimBatch, StoreError> {
    let query = sqlx::query_as("SELECT * FROM app.queue_claim($1, $2, $3, $4, $5, $6)")
        .bind(worker)
        .bind(i32::try_from(limit).unwrap_or(i32::MAX))
        .bind(millis(terms.lease))
        .bind(millis(terms.deadline))
        .bind(i32::try_from(JOB_ATTEMPTS_MAX).unwrap_or(i32::MAX))
        .bind(kinds.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>());
    let rows: Vec<ClaimRow> = db.across_tenants().await?.all(query).await?;
    let mut batch = ClaimBatch::default();
    for row in rows {
        let tenant_id = TenantId::from_uuid(row.tenant_id);
        let forecast_id = ForecastId::from_uuid(row.subject_id);
        if row.claimed {
            batch.jobs.push(ClaimedJob {
                claim: Claim {
                    tenant_id,
                    job_id: row.job_id,
                    fence: row.fence,
                    attempt: u32::try_from(row.attempt).unwrap_or(u32::MAX),
                },
                kind: row.kind,
                forecast_id,
                input: row.input.ok_or(StoreError::Corrupt { what: "forecasts.input" })?,
                deadline_at: row.deadline_at.ok_or(StoreError::Corrupt { what: "jobs.deadline_at" })?,
                waited_ms: row.waited_ms,
            });
        } else {
            batch.ended.push(EndedJob { tenant_id, forecast_id, code: row.end_code.unwrap_or_default() });
        }
    }
    Ok(batch)
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

/// Extends the lease from now on.
///
/// # Errors
/// As [`StoreError`] says; the lease may or may not have been extended.
pub async fn heartbeat(db: &Db, claim: &Claim, lease: Duration) -> Result<Settled, StoreError> {
    let mut tx = db.tenant(claim.tenant_id).begin().await?;
    let query = sqlx::query(
        "UPDATE app.jobs SET lease_until = clock_timestamp() + $4 * interval '1 millisecond'
         WHERE tenant_id = $1 AND job_id = $2 AND fence = $3 AND state = 'running'",
    );
    let query = query.bind(claim.tenant_id.as_uuid()).bind(claim.job_id).bind(claim.fence).bind(millis(lease));
    let touched = tx.execute(query).await?;
    tx.commit().await?;
    Ok(settled(touched > 0))
}

/// What a forecast came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Version of the mathematics.
    pub engine_version: String,
    /// The result, as it is shown.
    pub result: serde_json::Value,
    /// Lower-case hex SHA-256 of the canonical form.
    pub result_hash: String,
}

/// Job, forecast, usage event, quota and attempt, in one statement. The event's id is the caller's, so
/// that a second try after a lost answer cannot make a second event.
///
/// # Errors
/// As [`StoreError`] says. After `CommitUnknown` call again: `LeaseLost` then means it had been done,
/// or that another worker has the job.
pub async fn complete(db: &Db, claim: &Claim, outcome: &Outcome, event: UsageEventId) -> Result<Settled, StoreError> {
    let mut tx = db.tenant(claim.tenant_id).begin().await?;
    let query = sqlx::query_as(
        "WITH held AS (
             UPDATE app.jobs SET state = 'succeeded', lease_until = NULL, finished_at = now()
             WHERE tenant_id = $1 AND job_id = $2 AND fence = $3 AND state = 'running'
             RETURNING subject_id),
         done AS (
             UPDATE app.forecasts f
             SET state = 'succeeded', engine_version = $4, result = $5, result_hash = $6, finished_at = now(),
                 quota_state = 'consumed'
             FROM held
             WHERE f.tenant_id = $1 AND f.forecast_id = held.subject_id AND f.quota_state = 'held'
             RETURNING f.forecast_id),
         event AS (
             INSERT INTO app.usage_events (tenant_id, usage_event_id, forecast_id, occurred_at)
             SELECT $1, $7, done.forecast_id, now() FROM done
             RETURNING forecast_id),
         attempt AS (
             UPDATE app.job_attempts a SET ended_at = now(), outcome = 'succeeded'
             FROM held
             WHERE a.tenant_id = $1 AND a.job_id = $2 AND a.fence = $3 AND a.outcome IS NULL)
         SELECT (SELECT count(*) FROM held), (SELECT count(*) FROM event)",
    );
    let query = query
        .bind(claim.tenant_id.as_uuid())
        .bind(claim.job_id)
        .bind(claim.fence)
        .bind(&outcome.engine_version)
        .bind(&outcome.result)
        .bind(&outcome.result_hash)
        .bind(event.as_uuid());
    let (held, events): (i64, i64) = tx.one(query).await?;
    if held != events {
        // The job is ours but its forecast had ended already: let nothing of it through.
        return Err(StoreError::Corrupt { what: "forecasts.quota_state" });
    }
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
    let mut tx = db.tenant(claim.tenant_id).begin().await?;
    let query = sqlx::query_as(
        "WITH held AS (
             UPDATE app.jobs
             SET state = 'queued', lease_until = NULL, last_error_code = $5,
                 ready_at = now() + $4 * interval '1 millisecond'
             WHERE tenant_id = $1 AND job_id = $2 AND fence = $3 AND state = 'running'
             RETURNING subject_id),
         waiting AS (
             UPDATE app.forecasts f SET state = 'queued'
             FROM held WHERE f.tenant_id = $1 AND f.forecast_id = held.subject_id AND f.state = 'running'),
         attempt AS (
             UPDATE app.job_attempts a SET ended_at = now(), outcome = 'retry'
             FROM held
             WHERE a.tenant_id = $1 AND a.job_id = $2 AND a.fence = $3 AND a.outcome IS NULL)
         SELECT count(*) FROM held",
    );
    let query =
        query.bind(claim.tenant_id.as_uuid()).bind(claim.job_id).bind(claim.fence).bind(millis(delay)).bind(cause);
    let (held,): (i64,) = tx.one(query).await?;
    tx.commit().await?;
    Ok(settled(held > 0))
}

/// Rings whenever jobs were committed, and after every new connection, since some may have been missed.
/// A broken or silent link only costs time: whoever waits must poll as well. Ends with its last handle.
#[must_use]
pub fn wakeups(db: &Db) -> Arc<Notify> {
    let bell = Arc::new(Notify::new());
    let ringer = Arc::downgrade(&bell);
    let db = db.clone();
    tokio::spawn(async move {
        while ringer.strong_count() > 0 {
            if let Err(error) = listen(&db, &ringer).await {
                tracing::warn!(error = %error, "listen for jobs");
            }
            tokio::time::sleep(LISTEN_PAUSE).await;
        }
    });
    bell
}

async fn listen(db: &Db, bell: &std::sync::Weak<Notify>) -> Result<(), StoreError> {
    // A connection of its own: listening holds it for ever.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(db.options().acquire_timeout)
        .connect_lazy_with(db.options().connect_options()?);
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        let Some(bell) = bell.upgrade() else {
            return Ok(());
        };
        bell.notify_one();
        drop(bell);
        // `None`: the link broke; the caller connects again.
        if listener.try_recv().await?.is_none() {
            return Ok(());
        }
    }
}

const fn settled(touched: bool) -> Settled {
    if touched { Settled::Done } else { Settled::LeaseLost }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
