//! Jobs end well: result, usage event and job state in one transaction, each job under its own fence.

use std::sync::Arc;

use forecastle_domain::UsageEventId;
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

/// What `complete_jobs_of` raises where a job is held whose forecast has ended.
const DATA_CORRUPTED: &str = "XX001";

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
/// As [`StoreError`] says. After one that is of availability it may have been done: call again. `LeaseLost` then
/// means that it had been, or that another worker has the job.
pub async fn complete(db: &Db, claim: &Claim, outcome: &Outcome, event: UsageEventId) -> Result<Settled, StoreError> {
    let completion = Completion { claim: *claim, outcome: Some((outcome.clone(), event)) };
    let ended = complete_all(db, &[&completion]).await?;
    ended.first().copied().ok_or(StoreError::NotFound)
}

/// The same for several jobs in one transaction, one tenant's after the other's and each under its own fence: those
/// whose lease is lost are left out, and the others are done. Answers in the order of `completions`.
///
/// # Errors
/// As [`complete`]; then none of them is known to be done.
pub async fn complete_all(db: &Db, completions: &[&Completion]) -> Result<Vec<Settled>, StoreError> {
    let mut by_tenant = completions.to_vec();
    // In one order, so that two workers which end the same jobs do not wait for each other.
    by_tenant.sort_unstable_by_key(|completion| (completion.claim.tenant_id.as_uuid(), completion.claim.job_id));
    let (mut tenants, mut counts): (Vec<Uuid>, Vec<i32>) = (Vec::new(), Vec::new());
    let mut jobs = Vec::with_capacity(by_tenant.len());
    let mut fences = Vec::with_capacity(by_tenant.len());
    let mut engines = Vec::with_capacity(by_tenant.len());
    let mut results = Vec::with_capacity(by_tenant.len());
    let mut hashes = Vec::with_capacity(by_tenant.len());
    let mut events = Vec::with_capacity(by_tenant.len());
    for Completion { claim, outcome } in by_tenant {
        let tenant = claim.tenant_id.as_uuid();
        match counts.last_mut() {
            Some(count) if tenants.last() == Some(&tenant) => *count += 1,
            _ => {
                tenants.push(tenant);
                counts.push(1);
            }
        }
        jobs.push(claim.job_id);
        fences.push(claim.fence);
        let outcome = outcome.as_ref();
        engines.push(outcome.map(|(outcome, _)| outcome.engine_version.as_str()));
        results.push(outcome.map(|(outcome, _)| &*outcome.result));
        hashes.push(outcome.map(|(outcome, _)| outcome.result_hash.as_str()));
        events.push(outcome.map(|(_, event)| event.as_uuid()));
    }
    // A transaction of its own, which sets each tenant for itself; the tenants are those of the claims. Under its
    // fence, a second try changes nothing.
    let statement = "SELECT app.complete_jobs_of($1, $2, $3, $4, $5, $6, $7, $8)";
    let query = || {
        let query = sqlx::query_as(statement).bind(&tenants).bind(&counts).bind(&jobs).bind(&fences);
        query.bind(&engines).bind(&results).bind(&hashes).bind(&events)
    };
    // One column, of records.
    let done: Vec<((Uuid, Uuid),)> = match db.read_all(query).await {
        Err(StoreError::Refused { code }) if code == DATA_CORRUPTED => {
            return Err(StoreError::Corrupt { what: "forecasts.quota_state" });
        }
        done => done?,
    };
    let is_done = |completion: &&Completion| {
        settled(done.contains(&((completion.claim.tenant_id.as_uuid(), completion.claim.job_id),)))
    };
    Ok(completions.iter().map(is_done).collect())
}
