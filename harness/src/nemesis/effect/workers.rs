//! What the queue shows of a worker: jobs it left behind, leases it lost, claims it no longer makes.

use std::time::Duration;

use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use sqlx::PgPool;
use sqlx::Row as _;
use tokio::time::Instant;

use super::{EffectProbe, proof};

/// For so long nobody has extended the leases of orphans: well over the 750 ms after which every suite's workers do
/// (a quarter of their lease), and less than the lease, after which somebody else takes the jobs over.
const UNEXTENDED_FOR: Duration = Duration::from_millis(1_500);

/// The jobs that a killed worker held: running under its name, their leases extended by nobody.
pub struct OrphanedJobs {
    /// Read-only connections past every proxy.
    pub reader: PgPool,
    /// Name of the worker.
    pub worker: String,
    /// The first look, to compare later ones with.
    pub orphans: Vec<Orphan>,
    /// When it was.
    since: Instant,
}

/// A job as a worker left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    job_id: String,
    worker: String,
    attempts: i32,
    lease_until_us: i64,
}

impl OrphanedJobs {
    /// Watches the jobs of `worker`.
    pub fn new(reader: PgPool, worker: String) -> Self {
        OrphanedJobs { reader, worker, orphans: Vec::new(), since: Instant::now() }
    }

    async fn held(&self) -> Result<Vec<Orphan>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT job_id::text, worker, attempts, (extract(epoch FROM lease_until) * 1000000)::bigint
             FROM app.jobs WHERE state = 'running' AND (worker = $1 OR worker LIKE $1 || '/%') ORDER BY job_id",
        )
        .bind(&self.worker)
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Orphan {
                    job_id: row.try_get(0)?,
                    worker: row.try_get(1)?,
                    attempts: row.try_get(2)?,
                    lease_until_us: row.try_get(3)?,
                })
            })
            .collect()
    }

    /// Jobs that a later incarnation of the worker completed. What became of the orphans themselves is for a law to judge:
    /// were it part of the recovery, a lost job would look like a fault that is not over.
    async fn completed_since(&self) -> Result<i64, sqlx::Error> {
        let dead: Vec<&str> = self.orphans.iter().map(|orphan| orphan.worker.as_str()).collect();
        sqlx::query_scalar(
            "SELECT count(*) FROM app.job_attempts
             WHERE (worker = $1 OR worker LIKE $1 || '/%') AND worker <> ALL($2) AND outcome = 'succeeded'",
        )
        .bind(&self.worker)
        .bind(&dead)
        .fetch_one(&self.reader)
        .await
    }
}

impl EffectProbe for OrphanedJobs {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "app.jobs";
            match self.held().await {
                Err(error) => proof(ProofKind::Effect, source, false, format!("not read: {error}")),
                Ok(held) if held.is_empty() => {
                    proof(ProofKind::Effect, source, false, format!("{} holds no job", self.worker))
                }
                Ok(held) => {
                    // Held by a process that is gone (the control proof), and unchanged for longer than one that lives
                    // would leave them.
                    let unchanged = !self.orphans.is_empty() && self.orphans.iter().all(|orphan| held.contains(orphan));
                    let jobs = held.len();
                    // A commit may have been under way at the blow; what is held now is what the next look compares with.
                    if !unchanged {
                        (self.orphans, self.since) = (held, Instant::now());
                    }
                    let unextended = self.since.elapsed();
                    let what = format!(
                        "{jobs} jobs stand running under {}, leases not extended for {} ms",
                        self.worker,
                        unextended.as_millis()
                    );
                    proof(ProofKind::Effect, source, unextended >= UNEXTENDED_FOR, what)
                }
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "app.job_attempts";
            if self.orphans.is_empty() {
                return proof(ProofKind::Recovery, source, false, "its dead incarnation was never seen".to_owned());
            }
            match self.completed_since().await {
                Err(error) => proof(ProofKind::Recovery, source, false, format!("not read: {error}")),
                Ok(completed) => {
                    let what = format!("{} completed {completed} jobs since it was started again", self.worker);
                    proof(ProofKind::Recovery, source, completed > 0, what)
                }
            }
        })
    }
}

/// Attempts that a worker lost the lease of, beyond those before the fault: somebody else has taken the jobs over.
pub struct LeasesLost {
    reader: PgPool,
    worker: String,
    lost_before: i64,
    /// What it had completed at the first look after healing.
    completed_then: Option<i64>,
}

impl LeasesLost {
    /// Counts those of `worker` now, before the fault.
    ///
    /// # Errors
    /// When the queue cannot be read.
    pub async fn new(reader: PgPool, worker: String) -> anyhow::Result<Self> {
        let mut probe = LeasesLost { reader, worker, lost_before: 0, completed_then: None };
        probe.lost_before = probe.count("lease_lost").await?;
        Ok(probe)
    }

    async fn count(&self, outcome: &str) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT count(*) FROM app.job_attempts WHERE (worker = $1 OR worker LIKE $1 || '/%') AND outcome = $2",
        )
        .bind(&self.worker)
        .bind(outcome)
        .fetch_one(&self.reader)
        .await
    }
}

impl EffectProbe for LeasesLost {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "app.job_attempts";
            match self.count("lease_lost").await {
                Ok(lost) => {
                    let since = lost - self.lost_before;
                    let what = format!("{since} jobs of {} were taken over, their leases over", self.worker);
                    proof(ProofKind::Effect, source, since > 0, what)
                }
                Err(error) => proof(ProofKind::Effect, source, false, format!("not read: {error}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "app.job_attempts";
            match self.count("succeeded").await {
                Ok(completed) => {
                    let since = completed - *self.completed_then.get_or_insert(completed);
                    let what = format!("{} completed {since} jobs since the fault was undone", self.worker);
                    proof(ProofKind::Recovery, source, since > 0, what)
                }
                Err(error) => proof(ProofKind::Recovery, source, false, format!("not read: {error}")),
            }
        })
    }
}

/// Workers that claim nothing while others do, or while jobs wait.
pub struct ClaimsNothing {
    /// Read-only connections past every proxy.
    pub reader: PgPool,
    /// Names of the workers.
    pub workers: Vec<String>,
}

/// Time in which a worker that works claims something, though it may be busy with a long job.
const CLAIMS_WITHIN_MS: i64 = 2_000;
/// Claims of everybody, or jobs that wait, from which on none of its own is no chance.
const CLAIMS_MIN: i64 = 8;
/// Jobs that ended in the last moments from which on the shortest of them says something.
const JOBS_MIN: i64 = 3;

impl ClaimsNothing {
    /// Claims of these workers in the last moments, and of everybody with the jobs that wait for one since before.
    async fn look(&self) -> Result<(i64, i64), sqlx::Error> {
        sqlx::query_as(
            "WITH since AS (SELECT clock_timestamp() - make_interval(secs => $2 / 1000.0) AS at)
             SELECT count(*) FILTER (WHERE split_part(worker, '/', 1) = ANY($1)),
                    count(*) + (SELECT count(*) FROM app.jobs, since WHERE state = 'queued' AND ready_at < since.at)
             FROM app.job_attempts, since WHERE claimed_at > since.at",
        )
        .bind(&self.workers)
        .bind(CLAIMS_WITHIN_MS)
        .fetch_one(&self.reader)
        .await
    }

    fn words(&self, its: i64, all: i64) -> String {
        let workers = self.workers.join(", ");
        format!("{workers}: {its} claims in {CLAIMS_WITHIN_MS} ms; {all} jobs were claimed by anybody or wait")
    }
}

impl EffectProbe for ClaimsNothing {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "app.job_attempts";
            match self.look().await {
                Ok((its, all)) => proof(ProofKind::Effect, source, its == 0 && all >= CLAIMS_MIN, self.words(its, all)),
                Err(error) => proof(ProofKind::Effect, source, false, format!("not read: {error}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "app.job_attempts";
            match self.look().await {
                Ok((its, all)) => proof(ProofKind::Recovery, source, its > 0, self.words(its, all)),
                Err(error) => proof(ProofKind::Recovery, source, false, format!("not read: {error}")),
            }
        })
    }
}

/// Jobs that take long because whoever works on them has a long way to the queue.
pub struct SlowJobs {
    /// Read-only connections past every proxy.
    pub reader: PgPool,
    /// Names of the workers.
    pub workers: Vec<String>,
    /// The shortest takes at least this, milliseconds.
    pub least_ms: i32,
}

impl SlowJobs {
    /// The shortest time from claim to end among those that ended in the last moments, milliseconds, and how many did.
    async fn look(&self) -> Result<(Option<i32>, i64), sqlx::Error> {
        sqlx::query_as(
            "SELECT min(extract(epoch FROM ended_at - claimed_at) * 1000)::integer, count(*) FROM app.job_attempts
             WHERE split_part(worker, '/', 1) = ANY($1) AND claimed_at > clock_timestamp() - interval '1 s'
                   AND outcome = 'succeeded'",
        )
        .bind(&self.workers)
        .fetch_one(&self.reader)
        .await
    }
}

impl EffectProbe for SlowJobs {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "app.job_attempts";
            match self.look().await {
                Ok((Some(ms), jobs)) => {
                    let what = format!("the shortest of {jobs} jobs of the last second took {ms} ms");
                    proof(ProofKind::Effect, source, ms >= self.least_ms && jobs >= JOBS_MIN, what)
                }
                Ok((None, _)) => proof(ProofKind::Effect, source, false, "no job ended in the last second".to_owned()),
                Err(error) => proof(ProofKind::Effect, source, false, format!("not read: {error}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "app.job_attempts";
            match self.look().await {
                Ok((Some(ms), jobs)) => {
                    let what = format!("the shortest of {jobs} jobs of the last second took {ms} ms");
                    proof(ProofKind::Recovery, source, ms < self.least_ms, what)
                }
                Ok((None, _)) => {
                    proof(ProofKind::Recovery, source, false, "no job ended in the last second".to_owned())
                }
                Err(error) => proof(ProofKind::Recovery, source, false, format!("not read: {error}")),
            }
        })
    }
}
