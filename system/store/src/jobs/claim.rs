//! Jobs go out to workers: the oldest first, of whatever tenant.

use std::time::Duration;

use forecastle_domain::{ForecastId, JOB_ATTEMPTS_MAX, TenantId};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Claim, KIND_FORECAST, millis};
use crate::error::StoreError;
use crate::pool::Db;

/// How a worker claims.
#[derive(Debug, Clone, Copy)]
pub struct ClaimTerms {
    /// How long a claim holds without a heartbeat.
    pub lease: Duration,
    /// How long after its first claim a job may still be worked on.
    pub deadline: Duration,
}

/// A claimed job with its input.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// What to name when settling.
    pub claim: Claim,
    /// Kind, one of those asked for.
    pub kind: String,
    /// What it is about: the forecast it computes; a probe's own id.
    pub forecast_id: ForecastId,
    /// The scenario's input as copied at the request; null for a probe.
    pub input: serde_json::Value,
    /// How long the job may still be worked on, by the database's clock at the claim.
    pub time_left: Duration,
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
    left_ms: Option<i64>,
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
    // What is left is counted here and not by the worker, whose clock may be wrong.
    let query = sqlx::query_as(
        "SELECT c.tenant_id, c.job_id, c.kind, c.subject_id, c.attempt, c.fence, c.input, c.claimed, c.end_code,
                c.waited_ms, (extract(epoch FROM c.deadline_at - clock_timestamp()) * 1000)::bigint AS left_ms
         FROM app.queue_claim($1, $2, $3, $4, $5, $6) c",
    )
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
        if !row.claimed {
            batch.ended.push(EndedJob { tenant_id, forecast_id, code: row.end_code.unwrap_or_default() });
            continue;
        }
        if row.kind == KIND_FORECAST && row.input.is_none() {
            return Err(StoreError::Corrupt { what: "forecasts.input" });
        }
        let left_ms = row.left_ms.ok_or(StoreError::Corrupt { what: "jobs.deadline_at" })?;
        batch.jobs.push(ClaimedJob {
            claim: Claim {
                tenant_id,
                job_id: row.job_id,
                fence: row.fence,
                attempt: u32::try_from(row.attempt).unwrap_or(u32::MAX),
            },
            kind: row.kind,
            forecast_id,
            input: row.input.unwrap_or_default(),
            time_left: Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)),
            waited_ms: row.waited_ms,
        });
    }
    Ok(batch)
}
