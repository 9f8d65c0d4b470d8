//! Completions of one tenant that come while another is being written go together in the next
//! transaction: nobody waits for company, and a busy queue costs few commits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use forecastle_domain::TenantId;
use forecastle_store::jobs::{self, Completion, Settled};
use forecastle_store::{Db, StoreError, UnavailableReason};
use tokio::sync::oneshot;

/// Most completions of one transaction.
const BATCH_MAX: usize = 64;

type Answer = Result<Settled, StoreError>;

struct Waiting {
    completion: Completion,
    answer: oneshot::Sender<Answer>,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Completions {
    db: Db,
    /// A tenant is in it while somebody writes for it, with those who came since.
    waiting: Arc<Mutex<HashMap<TenantId, Vec<Waiting>>>>,
}

impl Completions {
    pub(crate) fn new(db: Db) -> Self {
        Self { db, waiting: Arc::default() }
    }

    /// As [`jobs::complete_all`] for one job, alone or in company.
    pub(crate) async fn write(&self, completion: Completion) -> Answer {
        let tenant = completion.claim.tenant_id;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { completion, answer };
        let is_first = match self.lock().entry(tenant) {
            Entry::Occupied(mut others) => {
                others.get_mut().push(waiting);
                false
            }
            Entry::Vacant(vacant) => {
                vacant.insert(vec![waiting]);
                true
            }
        };
        if is_first {
            let this = self.clone();
            // A task of its own: whoever came first must not be able to leave the others in the lurch.
            tokio::spawn(async move { this.write_until_none_waits(tenant).await });
        }
        answered.await.unwrap_or(Err(StoreError::Unavailable { reason: UnavailableReason::Unreachable }))
    }

    async fn write_until_none_waits(&self, tenant: TenantId) {
        loop {
            // Those that are ready at this very moment come along.
            tokio::task::yield_now().await;
            let batch: Vec<Waiting> = {
                let mut waiting = self.lock();
                let Some(of_tenant) = waiting.get_mut(&tenant) else { return };
                if of_tenant.is_empty() {
                    waiting.remove(&tenant);
                    return;
                }
                let count = of_tenant.len().min(BATCH_MAX);
                of_tenant.drain(..count).collect()
            };
            self.write_batch(tenant, batch).await;
        }
    }

    async fn write_batch(&self, tenant: TenantId, batch: Vec<Waiting>) {
        metrics::histogram!("forecastle_job_completion_batch").record(batch.len() as f64);
        let (completions, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.completion, waiting.answer)).unzip();
        match jobs::complete_all(&self.db, tenant, &completions).await {
            Ok(settled) => {
                for (answer, settled) in answers.into_iter().zip(settled) {
                    let _ = answer.send(Ok(settled));
                }
            }
            // One that can never be written must not take the others with it.
            Err(error) if completions.len() > 1 && !error.is_unavailable() => {
                for (answer, completion) in answers.into_iter().zip(completions) {
                    let alone = jobs::complete_all(&self.db, tenant, &[completion]).await;
                    let _ = answer.send(alone.and_then(|settled| settled.first().copied().ok_or(StoreError::NotFound)));
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TenantId, Vec<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
