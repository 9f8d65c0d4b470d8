//! The claim loop and the drain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_store::jobs::{self, ClaimTerms, ClaimedJob, KIND_FORECAST};
use forecastle_store::{Cache, CacheKey, CacheUnavailable, Db, StoreError};
use rand::RngExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config::WorkerConfig;
use crate::jobs::forecast;
use crate::lease::LeaseState;
use crate::{heartbeat, settle};

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The database's address does not parse.
    #[error("open database pool: {0}")]
    Database(#[from] StoreError),
    /// Redis's address does not parse.
    #[error("open cache: {0}")]
    Cache(#[from] CacheUnavailable),
}

struct Worker {
    db: Db,
    cache: Cache,
    config: WorkerConfig,
    name: String,
    /// Ends computations that outlast the drain.
    give_back: CancellationToken,
}

/// Claims and runs jobs until `shutdown` resolves; then claims no more, waits for the running ones and
/// returns. A server that does not answer delays it and never ends it.
///
/// # Errors
/// An address that does not parse.
pub async fn work(config: WorkerConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), WorkError> {
    let db = Db::open(config.db.clone())?;
    let cache = Cache::open(&config.cache)?;
    let bell = jobs::wakeups(&db);
    // A name of its own for each start: a restarted twin must not be taken for the one that died.
    let name = format!("{}/{:08x}", config.instance, rand::rng().random::<u32>());
    let slots = Arc::new(Semaphore::new(config.concurrency as usize));
    let running = TaskTracker::new();
    let worker = Arc::new(Worker { db, cache, config, name, give_back: CancellationToken::new() });

    tokio::pin!(shutdown);
    loop {
        let free = tokio::select! {
            () = &mut shutdown => break,
            permit = Arc::clone(&slots).acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_) => break,
            },
        };
        drop(free);
        let limit = u32::try_from(slots.available_permits()).unwrap_or(u32::MAX).max(1);
        // Not raced against the shutdown: a claim that was sent has to be heard.
        let taken = worker.claim_and_start(limit, &slots, &running).await;
        if taken == 0 {
            let wait = jittered(worker.config.poll);
            tokio::select! {
                () = &mut shutdown => break,
                () = bell.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    tracing::info!("draining");
    running.close();
    if tokio::time::timeout(worker.config.drain, running.wait()).await.is_err() {
        worker.give_back.cancel();
        let _ = tokio::time::timeout(worker.config.lease, running.wait()).await;
    }
    worker.db.close(Duration::from_secs(1)).await;
    Ok(())
}

impl Worker {
    /// How many jobs were taken or ended; 0 also where the queue could not be asked.
    async fn claim_and_start(self: &Arc<Self>, limit: u32, slots: &Arc<Semaphore>, running: &TaskTracker) -> usize {
        let terms = ClaimTerms { lease: self.config.lease, deadline: self.config.deadline };
        let batch = match jobs::claim(&self.db, &self.name, limit, terms, &[KIND_FORECAST]).await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::warn!(error = %error, "claim jobs");
                metrics::counter!("forecastle_job_claim_errors_total").increment(1);
                return 0;
            }
        };
        let taken = batch.jobs.len() + batch.ended.len();
        for ended in batch.ended {
            let word = if ended.code == "attempts_exhausted" { "dead" } else { "failed" };
            metrics::counter!("forecastle_jobs_total", "outcome" => word).increment(1);
            let keys = [CacheKey::forecast(ended.tenant_id, ended.forecast_id), CacheKey::dashboard(ended.tenant_id)];
            self.cache.delete(&keys).await;
        }
        for job in batch.jobs {
            metrics::counter!("forecastle_jobs_claimed_total").increment(1);
            metrics::histogram!("forecastle_job_wait_seconds").record(job.waited_ms as f64 / 1000.0);
            let slot = Arc::clone(slots).try_acquire_owned();
            let worker = Arc::clone(self);
            running.spawn(async move {
                worker.run_job(job).await;
                drop(slot);
            });
        }
        taken
    }

    async fn run_job(&self, job: ClaimedJob) {
        let started = Instant::now();
        let left_ms = (job.deadline_at - chrono::Utc::now()).num_milliseconds();
        let deadline = started + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        let lease = Arc::new(LeaseState::until(deadline));
        // Ends with this function, also where it panics: else the lease would outlive the work.
        let beating = AbortOnDropHandle::new(tokio::spawn(heartbeat::keep(
            self.db.clone(),
            job.claim,
            Arc::clone(&lease),
            self.config.heartbeat,
            self.config.lease,
        )));
        let changed =
            [CacheKey::dashboard(job.claim.tenant_id), CacheKey::forecast(job.claim.tenant_id, job.forecast_id)];
        self.cache.delete(&changed[..1]).await;

        let computing = forecast::run(job.input, Arc::clone(&lease));
        tokio::pin!(computing);
        let outcome = tokio::select! {
            outcome = &mut computing => outcome,
            () = self.give_back.cancelled() => {
                lease.drain();
                computing.await
            }
        };
        self.cache.announce(&changed[..1]).await;
        let word = settle::settle(&self.db, &self.config, &job.claim, &lease, outcome).await;
        drop(beating);
        self.cache.delete(&changed).await;
        metrics::counter!("forecastle_jobs_total", "outcome" => word).increment(1);
        metrics::histogram!("forecastle_job_run_seconds").record(started.elapsed().as_secs_f64());
        tracing::info!(
            job_id = %job.claim.job_id, attempt = job.claim.attempt, fence = job.claim.fence, outcome = word,
            "job settled"
        );
    }
}

/// Between half and all of it, so that idle workers do not ask in step.
fn jittered(poll: Duration) -> Duration {
    poll.mul_f64(rand::rng().random_range(0.5..=1.0))
}
