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
/// Most bytes of results in one transaction; a larger result goes alone. One of 360 months has about 200 kB.
const BATCH_BYTES_MAX: usize = 4 << 20;

type Answer = Result<Settled, StoreError>;

struct Waiting {
    completion: Completion,
    /// Of its result, as JSON.
    bytes: usize,
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
        let bytes = completion.outcome.as_ref().map_or(0, |(outcome, _)| outcome.result.len());
        let waiting = Waiting { completion, bytes, answer };
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
                let count = fitting(of_tenant.iter().map(|waiting| waiting.bytes));
                of_tenant.drain(..count).collect()
            };
            self.write_batch(tenant, batch).await;
        }
    }

    /// All of them, together where that can be. A batch that takes too long, or that one of its completions spoils, is
    /// halved until it can be written or stands alone. Where even one alone takes too long, it is not the batch: the
    /// others are not tried.
    async fn write_batch(&self, tenant: TenantId, batch: Vec<Waiting>) {
        metrics::histogram!("forecastle_job_completion_batch").record(batch.len() as f64);
        let mut parts = vec![batch];
        let mut gone: Option<StoreError> = None;
        while let Some(mut part) = parts.pop() {
            let completions: Vec<Completion> = part.iter().map(|waiting| waiting.completion.clone()).collect();
            let written = match &gone {
                Some(error) => Err(error.clone()),
                None => jobs::complete_all(&self.db, tenant, &completions).await,
            };
            match written {
                Ok(settled) => {
                    for (waiting, settled) in part.into_iter().zip(settled) {
                        let _ = waiting.answer.send(Ok(settled));
                    }
                }
                Err(error) if gone.is_none() && part.len() > 1 && may_be_the_batch(&error) => {
                    metrics::counter!("forecastle_job_completion_batches_halved_total").increment(1);
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
                Err(error) => {
                    if error.is_unavailable() {
                        gone = Some(error.clone());
                    }
                    for waiting in part {
                        let _ = waiting.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TenantId, Vec<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether fewer at once may fare better.
const fn may_be_the_batch(error: &StoreError) -> bool {
    matches!(error, StoreError::Timeout) || !error.is_unavailable()
}

/// How many of those that wait go into one transaction; at least one.
fn fitting(bytes: impl Iterator<Item = usize>) -> usize {
    let mut sum = 0_usize;
    let within = bytes.take(BATCH_MAX).take_while(|bytes| {
        sum = sum.saturating_add(*bytes);
        sum <= BATCH_BYTES_MAX
    });
    within.count().max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forecastle_domain::UsageEventId;
    use forecastle_store::DbOptions;
    use forecastle_store::jobs::{ClaimTerms, KIND_FORECAST, Outcome};
    use forecastle_store::migrate::{RolePasswords, migrate};
    use forecastle_testbed::{Postgres, customers};

    use super::*;

    #[test]
    fn a_batch_ends_where_its_results_become_too_large() {
        assert_eq!(fitting(std::iter::repeat_n(1_000, 200)), BATCH_MAX);
        assert_eq!(fitting(std::iter::repeat_n(1 << 20, 200)), 4);
        assert_eq!(fitting([BATCH_BYTES_MAX + 1, 1].into_iter()), 1, "alone, but written");
    }

    #[tokio::test]
    async fn a_batch_that_takes_too_long_is_written_in_smaller_ones() {
        let postgres = Postgres::start();
        migrate(&postgres.admin_url(), &RolePasswords::default()).await.unwrap();
        let mut admin = customers::connect(&postgres.admin_url()).await;
        let customer = customers::sign_up(&mut admin, "PRO", "EUR", "2026-01-01").await;
        for _ in 0..12 {
            customers::queue_forecast(&mut admin, &customer, &customers::scenario_input()).await;
        }
        let options = DbOptions::new(postgres.url_of("forecastle_app"), "worker");
        let db = Db::open(DbOptions { statement_timeout: Duration::from_millis(1_000), ..options }).unwrap();
        let terms = ClaimTerms { lease: Duration::from_secs(60), deadline: Duration::from_secs(60) };
        let claimed = jobs::claim(&db, "w", 12, terms, &[KIND_FORECAST]).await.unwrap();
        // Twelve take 2.4 s, six 1.2 s, three 0.6 s.
        let slow = "CREATE FUNCTION app.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                PERFORM pg_sleep(0.2); RETURN NEW; END $$;
            CREATE TRIGGER slow BEFORE UPDATE ON app.forecasts FOR EACH ROW EXECUTE FUNCTION app.slow()";
        sqlx::raw_sql(slow).execute(&mut admin).await.unwrap();
        let completions = Completions::new(db);
        let mut writing = tokio::task::JoinSet::new();
        for job in claimed.jobs {
            let outcome = Outcome { engine_version: "1".to_owned(), result: "{}".into(), result_hash: "0".repeat(64) };
            let event = UsageEventId::from_uuid(uuid::Uuid::now_v7());
            let completion = Completion { claim: job.claim, outcome: Some((outcome, event)) };
            let completions = completions.clone();
            writing.spawn(async move { completions.write(completion).await });
        }
        while let Some(written) = writing.join_next().await {
            assert_eq!(written.unwrap(), Ok(Settled::Done));
        }
        assert_eq!(customers::count(&mut admin, "SELECT count(*) FROM app.usage_events").await, 12);
    }
}
