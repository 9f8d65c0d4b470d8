//! Jobs end well: result, usage event and job state in one transaction, each job under its own fence.

use std::sync::Arc;

use forecastle_domain::{TenantId, UsageEventId};
use uuid::Uuid;

use super::{Claim, Settled, settled};
use crate::error::StoreError;
use crate::pool::Db;

/// What a forecast came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Version of the mathematics.
    pub engine_version: String,
    /// The result as it is shown, JSON. Written as text once, since it is copied for each try to store it.
    pub result: Arc<str>,
    /// Lower-case hex SHA-256 of the canonical form.
    pub result_hash: String,
}

/// A job that has done its work.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Which attempt at which job.
    pub claim: Claim,
    /// The forecast's result, with the id of the usage event that stands for it; nothing for a probe.
    pub outcome: Option<(Outcome, UsageEventId)>,
}

/// Job, forecast, usage event, quota and attempt, in one statement. The event's id is the caller's, so
/// that a second try after a lost answer cannot make a second event.
///
/// # Errors
/// As [`StoreError`] says. After `CommitUnknown` call again: `LeaseLost` then means it had been done,
/// or that another worker has the job.
pub async fn complete(db: &Db, claim: &Claim, outcome: &Outcome, event: UsageEventId) -> Result<Settled, StoreError> {
    let completion = Completion { claim: *claim, outcome: Some((outcome.clone(), event)) };
    let ended = complete_all(db, claim.tenant_id, std::slice::from_ref(&completion)).await?;
    ended.first().copied().ok_or(StoreError::NotFound)
}

/// The same for several jobs of one tenant in one transaction, each under its own fence: those whose
/// lease is lost are left out, and the others are done. Answers in the order of `completions`.
///
/// # Errors
/// As [`complete`]; then none of them is known to be done.
pub async fn complete_all(db: &Db, tenant: TenantId, completions: &[Completion]) -> Result<Vec<Settled>, StoreError> {
    let mut jobs = Vec::with_capacity(completions.len());
    let mut fences = Vec::with_capacity(completions.len());
    let mut engines = Vec::with_capacity(completions.len());
    let mut results = Vec::with_capacity(completions.len());
    let mut hashes = Vec::with_capacity(completions.len());
    let mut events = Vec::with_capacity(completions.len());
    for Completion { claim, outcome } in completions {
        jobs.push(claim.job_id);
        fences.push(claim.fence);
        let outcome = outcome.as_ref();
        engines.push(outcome.map(|(outcome, _)| outcome.engine_version.as_str()));
        results.push(outcome.map(|(outcome, _)| &*outcome.result));
        hashes.push(outcome.map(|(outcome, _)| outcome.result_hash.as_str()));
        events.push(outcome.map(|(_, event)| event.as_uuid()));
    }
    let mut tx = db.tenant(tenant).begin().await?;
    let query = sqlx::query_as(
        "WITH wanted AS (
             SELECT * FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::uuid[])
                 AS w (job_id, fence, engine_version, result, result_hash, usage_event_id)),
         held AS (
             UPDATE app.jobs j SET state = 'succeeded', lease_until = NULL, finished_at = now()
             FROM wanted w
             WHERE j.tenant_id = $1 AND j.job_id = w.job_id AND j.fence = w.fence AND j.state = 'running'
               AND j.lease_until > clock_timestamp() AND j.deadline_at > clock_timestamp()
             RETURNING j.job_id, j.kind, j.subject_id, w.engine_version, w.result, w.result_hash, w.usage_event_id),
         done AS (
             UPDATE app.forecasts f
             SET state = 'succeeded', engine_version = held.engine_version, result = held.result::jsonb,
                 result_hash = held.result_hash, finished_at = now(), quota_state = 'consumed'
             FROM held
             WHERE f.tenant_id = $1 AND held.kind = 'forecast' AND f.forecast_id = held.subject_id
               AND f.quota_state = 'held'
             RETURNING f.forecast_id, held.usage_event_id),
         event AS (
             INSERT INTO app.usage_events (tenant_id, usage_event_id, forecast_id, occurred_at)
             SELECT $1, done.usage_event_id, done.forecast_id, now() FROM done
             RETURNING forecast_id),
         attempt AS (
             UPDATE app.job_attempts a SET ended_at = now(), outcome = 'succeeded'
             FROM wanted w, held
             WHERE a.tenant_id = $1 AND a.job_id = w.job_id AND held.job_id = w.job_id AND a.fence = w.fence
               AND a.outcome IS NULL)
         SELECT held.job_id, held.kind = 'forecast', event.forecast_id IS NOT NULL
         FROM held LEFT JOIN event ON event.forecast_id = held.subject_id",
    );
    let query =
        query.bind(tenant.as_uuid()).bind(&jobs).bind(fences).bind(engines).bind(results).bind(hashes).bind(events);
    let held: Vec<(Uuid, bool, bool)> = tx.all(query).await?;
    if held.iter().any(|(_, is_forecast, has_event)| is_forecast != has_event) {
        // The job is ours but its forecast had ended already: let nothing of it through.
        return Err(StoreError::Corrupt { what: "forecasts.quota_state" });
    }
    tx.commit().await?;
    Ok(jobs.iter().map(|job| settled(held.iter().any(|(done, ..)| done == job))).collect())
}
