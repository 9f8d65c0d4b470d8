//! Faults of the system's own processes, planted.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use nogo_faults::{BlastRadius, BoxFuture, FaultRow, MidJobProbe, ProcessControl as _, ProcessKill, ProcessKillLimits};
use sqlx::PgPool;

use super::{Planted, Site};
use crate::nemesis::effect::OrphanedJobs;

/// Long jobs put into the queue so that the victim is in the middle of one.
const BAITS: usize = 4;
/// Paths of such a job: most of a second of one core.
const BAIT_PATHS: u32 = 30_000;

/// A worker killed while it holds a job.
pub(super) async fn worker_crash(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let victim = site.topology.process_named(&site.step.target)?;
    let identity = victim.identity().with_context(|| format!("find a running {}", site.step.target))?;
    radius.allow_process(identity);
    let baits = site.load.submit_long_forecasts(BAITS, BAIT_PATHS).await;
    let mid_job = LongJobHeld { reader: site.reader.clone(), worker: site.step.target.clone(), baits };
    let fault = ProcessKill::new(victim, Arc::new(mid_job), ProcessKillLimits::default(), row.tolerance);
    let probe = OrphanedJobs::new(site.reader.clone(), site.step.target.clone());
    Ok(Planted { row, fault: Box::new(fault), radius, probe: Box::new(probe) })
}

/// Whether the victim runs one of the long jobs right now.
struct LongJobHeld {
    reader: PgPool,
    worker: String,
    baits: Vec<String>,
}

impl MidJobProbe for LongJobHeld {
    fn mid_job(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async move {
            let held: Option<(String, i32)> = sqlx::query_as(
                "SELECT job_id::text, attempts FROM app.jobs
                 WHERE state = 'running' AND (worker = $1 OR worker LIKE $1 || '/%') AND subject_id::text = ANY($2) LIMIT 1",
            )
            .bind(&self.worker)
            .bind(&self.baits)
            .fetch_optional(&self.reader)
            .await
            .ok()
            .flatten();
            held.map(|(job, attempts)| format!("{} runs job {job}, attempt {attempts}", self.worker))
        })
    }
}
