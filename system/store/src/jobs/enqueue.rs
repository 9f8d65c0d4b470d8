//! Jobs come in: in the transaction of what they are for, with the bell that rings at its commit.

use forecastle_domain::{ForecastId, TenantId};

use super::{CHANNEL, KIND_FORECAST, KIND_PROBE};
use crate::error::StoreError;
use crate::pool::Db;
use crate::scope::TenantTx;

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

/// Queues `count` jobs that do nothing ([`KIND_PROBE`]), due at once, in one transaction, and rings once.
/// They go through claim, lease, fence and completion like any other; no quota, no usage, no event.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn enqueue_probes(tx: &mut TenantTx, count: u32) -> Result<(), StoreError> {
    let query = sqlx::query(
        "WITH ids AS MATERIALIZED (SELECT gen_random_uuid() AS id FROM generate_series(1, $2)),
         queued AS (
             INSERT INTO app.jobs (tenant_id, job_id, kind, subject_id, state, ready_at, enqueued_at)
             SELECT $1, id, $3, id, 'queued', now(), now() FROM ids
             RETURNING job_id)
         SELECT pg_notify($4, '') FROM queued LIMIT 1",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(i64::from(count)).bind(KIND_PROBE).bind(CHANNEL);
    tx.execute(query).await.map(drop)
}

/// How many jobs of a kind a tenant has waiting or running.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn count_open(db: &Db, tenant: TenantId, kind: &str) -> Result<u64, StoreError> {
    let mut tx = db.tenant(tenant).begin().await?;
    let query = sqlx::query_scalar(
        "SELECT count(*) FROM app.jobs WHERE tenant_id = $1 AND kind = $2 AND state IN ('queued', 'running')",
    );
    let open: Option<i64> = tx.scalar(query.bind(tenant.as_uuid()).bind(kind)).await?;
    tx.rollback().await;
    Ok(open.and_then(|open| u64::try_from(open).ok()).unwrap_or(0))
}
