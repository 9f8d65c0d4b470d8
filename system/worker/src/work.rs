//! The claim loop and the drain.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_domain::TenantId;
use forecastle_store::jobs::{self, ClaimTerms, ClaimedJob, KIND_FORECAST, KIND_PROBE};
use forecastle_store::listen::listen;
use forecastle_store::{Cache, CacheKey, CacheUnavailable, Db, StoreError};
use rand::RngExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::completions::Completions;
use crate::compute::Compute;
use crate::config::WorkerConfig;
use crate::heartbeat::Rhythm;
use crate::jobs::forecast;
use crate::lease::LeaseState;
use crate::{heartbeat, prune, settle};

/// Most jobs of one claim: the lock that keeps the order is held for so many.
const CLAIM_MAX: u32 = 64;
/// How long a claim waits for more free slots while the queue is known to hold more.
const GATHER: Duration = Duration::from_millis(2);

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The database's address does not parse.
    #[error("open database pool: {0}")]
    Database(#[from] StoreError),
    /// Redis's address does not parse.
    #[error("open cache: {0}")]
    Cache(#[from] CacheUnavailable),
    /// The system gave nothing to compute on.
    #[error("make room for computing: {0}")]
    Compute(#[from] std::io::Error),
}

struct Worker {
    db: Db,
    cache: Cache,
    completions: Completions,
    compute: Compute,
    config: WorkerConfig,
    name: String,
    /// Ends computations that outlast the drain.
    give_back: CancellationToken,
}

/// What one claim brought.
struct Taken {
    /// Jobs taken or ended; 0 also where the queue could not be asked.
    count: usize,
    /// As many as were asked for: there may be more.
    was_full: bool,
}

/// Claims and runs jobs until `shutdown` resolves; then claims no more, waits for the running ones and
/// returns. A server that does not answer delays it and never ends it.
///
/// Its speed can be measured by jobs that do nothing: `jobs::enqueue_probes` puts them into the queue, this
/// loop claims, leases, completes and counts them as it does forecasts, and `jobs::count_open` says when
/// none is left.
///
/// # Errors
/// An address that does not parse.
pub async fn work(config: WorkerConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), WorkError> {
    let db = Db::open(config.db.clone().sparing(1))?;
    let cache = Cache::open_for_writing(&config.cache, &db)?;
    let bell = Arc::new(Notify::new());
    let _listening = listen(&db, jobs::CHANNEL, config.listen_keep_alive, {
        let bell = Arc::clone(&bell);
        move |_| bell.notify_one()
    });
    let _pruning = AbortOnDropHandle::new(tokio::spawn(prune::keep(db.clone(), config.events_kept)));
    // A name of its own for each start: a restarted twin must not be taken for the one that died.
    let name = format!("{}/{:08x}", config.instance, rand::rng().random::<u32>());
    let slots = Arc::new(Semaphore::new(config.concurrency as usize));
    let running = TaskTracker::new();
    let completions = Completions::new(db.clone());
    let compute = Compute::new(config.concurrency)?;
    let worker =
        Arc::new(Worker { db, cache, completions, compute, config, name, give_back: CancellationToken::new() });

    tokio::pin!(shutdown);
    let mut is_busy = false;
    loop {
        let free = tokio::select! {
            () = &mut shutdown => break,
            free = free_slots(&slots, worker.config.concurrency, is_busy) => free,
        };
        // Not raced against the shutdown: a claim that was sent has to be heard.
        let taken = worker.claim_and_start(free, &slots, &running).await;
        is_busy = taken.was_full;
        if taken.count == 0 {
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

/// Waits for at least one free slot, and where the queue is busy a moment for half of them, since one
/// claim of many costs little more than a claim of one. How many are free.
async fn free_slots(slots: &Semaphore, concurrency: u32, is_busy: bool) -> u32 {
    // The semaphore is never closed.
    let _ = slots.acquire().await;
    let half = (concurrency / 2).clamp(1, CLAIM_MAX / 2);
    if is_busy && slots.available_permits() < half as usize {
        let _ = tokio::time::timeout(GATHER, slots.acquire_many(half)).await;
    }
    u32::try_from(slots.available_permits()).unwrap_or(CLAIM_MAX).clamp(1, CLAIM_MAX)
}

impl Worker {
    async fn claim_and_start(self: &Arc<Self>, limit: u32, slots: &Arc<Semaphore>, running: &TaskTracker) -> Taken {
        let terms = ClaimTerms { lease: self.config.lease, deadline: self.config.deadline };
        let batch = match jobs::claim(&self.db, &self.name, limit, terms, &[KIND_FORECAST, KIND_PROBE]).await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::warn!(error = %error, "claim jobs");
                metrics::counter!("forecastle_job_claim_errors_total").increment(1);
                return Taken { count: 0, was_full: false };
            }
        };
        let count = batch.jobs.len() + batch.ended.len();
        for ended in batch.ended {
            let word = if ended.code == "attempts_exhausted" { "dead" } else { "failed" };
            metrics::counter!("forecastle_jobs_total", "outcome" => word).increment(1);
            let keys = [CacheKey::forecast(ended.tenant_id, ended.forecast_id), CacheKey::dashboard(ended.tenant_id)];
            self.cache.delete(&keys).await;
        }
        let shown = self.hide_waiting(&batch.jobs);
        for job in batch.jobs {
            metrics::counter!("forecastle_jobs_claimed_total").increment(1);
            metrics::histogram!("forecastle_job_wait_seconds").record(job.waited_ms as f64 / 1000.0);
            let slot = Arc::clone(slots).try_acquire_owned();
            let (worker, shown) = (Arc::clone(self), shown.clone());
            running.spawn(async move {
                worker.run_job(job, &shown).await;
                drop(slot);
            });
        }
        Taken { count, was_full: count >= limit as usize }
    }

    /// Deletes the dashboards on which these jobs still wait, all in one trip, beside their heartbeats; what it
    /// returns is cancelled when that is done.
    fn hide_waiting(self: &Arc<Self>, jobs: &[ClaimedJob]) -> CancellationToken {
        let tenants: BTreeSet<_> =
            jobs.iter().filter(|job| job.kind != KIND_PROBE).map(|job| job.claim.tenant_id.as_uuid()).collect();
        let done = CancellationToken::new();
        if tenants.is_empty() {
            done.cancel();
            return done;
        }
        let keys: Vec<_> = tenants.into_iter().map(|tenant| CacheKey::dashboard(TenantId::from_uuid(tenant))).collect();
        let (worker, at_end) = (Arc::clone(self), done.clone().drop_guard());
        tokio::spawn(async move {
            worker.cache.delete(&keys).await;
            drop(at_end);
        });
        done
    }

    async fn run_job(&self, job: ClaimedJob, shown: &CancellationToken) {
        let started = Instant::now();
        let lease = Arc::new(LeaseState::until(started + job.time_left));
        let rhythm =
            Rhythm { every: self.config.heartbeat, progress_every: self.config.progress, lease: self.config.lease };
        // Ends with this function, also where it panics: else the lease would outlive the work.
        let beating = AbortOnDropHandle::new(tokio::spawn(heartbeat::keep(
            self.db.clone(),
            job.claim,
            Arc::clone(&lease),
            rhythm,
        )));
        let (claim, word) = (job.claim, self.run_under_lease(job, &lease, shown).await);
        drop(beating);
        metrics::counter!("forecastle_jobs_total", "outcome" => word).increment(1);
        metrics::histogram!("forecastle_job_run_seconds").record(started.elapsed().as_secs_f64());
        tracing::info!(
            job_id = %claim.job_id, attempt = claim.attempt, fence = claim.fence, outcome = word,
            "job settled"
        );
    }

    async fn run_under_lease(
        &self,
        job: ClaimedJob,
        lease: &Arc<LeaseState>,
        shown: &CancellationToken,
    ) -> &'static str {
        let settle =
            async |outcome| settle::settle(&self.db, &self.completions, &self.config, &job.claim, lease, outcome).await;
        if job.kind == KIND_PROBE {
            return settle(Ok(None)).await;
        }
        let changed =
            [CacheKey::dashboard(job.claim.tenant_id), CacheKey::forecast(job.claim.tenant_id, job.forecast_id)];
        shown.cancelled().await;

        let computing = forecast::run(&self.compute, job.input, Arc::clone(lease));
        tokio::pin!(computing);
        let outcome = tokio::select! {
            outcome = &mut computing => outcome,
            () = self.give_back.cancelled() => {
                lease.drain();
                computing.await
            }
        };
        lease.stop_telling().await;
        self.cache.announce(&changed[..1]).await;
        let word = settle(outcome.map(Some)).await;
        self.cache.delete(&changed).await;
        word
    }
}

/// Between half and all of it, so that idle workers do not ask in step.
fn jittered(poll: Duration) -> Duration {
    poll.mul_f64(rand::rng().random_range(0.5..=1.0))
}
