//! Completions that come while others are being written go together in the next transaction, whosever they are:
//! nobody waits for company, and a busy queue costs few commits and keeps few connections warm.
//!
//! A tenant whose rows somebody holds must not hold up the others. What takes too long together is tried again tenant by
//! tenant, a tenant that was too slow by itself is written alone until it is not, and whoever has waited for
//! [`PATIENCE`] opens another lane.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forecastle_domain::TenantId;
use forecastle_store::jobs::{self, Completion, Settled};
use forecastle_store::{Db, StoreError, UnavailableReason};
use tokio::sync::oneshot;

/// Most completions of one transaction.
const BATCH_MAX: usize = 64;
/// Most bytes of results in one transaction; a larger result goes alone. One of 360 months has about 200 kB.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How long a completion waits for a lane before it opens one.
const PATIENCE: Duration = Duration::from_millis(25);
/// Most transactions at a time.
const LANES_MAX: usize = 4;

type Answer = Result<Settled, StoreError>;

struct Waiting {
    completion: Completion,
    /// Of its result, as JSON.
    bytes: usize,
    answer: oneshot::Sender<Answer>,
}

impl Waiting {
    const fn tenant(&self) -> TenantId {
        self.completion.claim.tenant_id
    }
}

/// Who waits and who writes.
#[derive(Default)]
struct Lanes {
    waiting: VecDeque<Waiting>,
    /// Transactions under way.
    open: usize,
    /// Tenants whose last completion took too long by itself.
    slow: HashSet<TenantId>,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Completions {
    db: Db,
    lanes: Arc<Mutex<Lanes>>,
}

impl Completions {
    pub(crate) fn new(db: Db) -> Self {
        Self { db, lanes: Arc::default() }
    }

    /// As [`jobs::complete_all`] for one job, alone or in company.
    pub(crate) async fn write(&self, completion: Completion) -> Answer {
        let (answer, mut answered) = oneshot::channel();
        let bytes = completion.outcome.as_ref().map_or(0, |(outcome, _)| outcome.result.len());
        self.lock().waiting.push_back(Waiting { completion, bytes, answer });
        self.open_lane(1);
        loop {
            match tokio::time::timeout(PATIENCE, &mut answered).await {
                Ok(answer) => {
                    return answer.unwrap_or(Err(StoreError::Unavailable { reason: UnavailableReason::Unreachable }));
                }
                Err(_) => self.open_lane(LANES_MAX),
            }
        }
    }

    /// Writes what waits, if anything does and fewer than `lanes_max` lanes are open. In a task of its own: whoever came
    /// first must not be able to leave the others in the lurch.
    fn open_lane(&self, lanes_max: usize) {
        let mut lanes = self.lock();
        if lanes.waiting.is_empty() || lanes.open >= lanes_max {
            return;
        }
        lanes.open += 1;
        let lane = Lane { completions: self.clone(), is_open: true };
        tokio::spawn(async move { lane.write_until_none_waits().await });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    /// Those who have waited longest, with whoever may go with them: the first one's tenant alone if it is slow.
    fn next_batch(&mut self) -> Vec<Waiting> {
        let Some(first) = self.waiting.front().map(Waiting::tenant) else { return Vec::new() };
        let is_first_slow = self.slow.contains(&first);
        let (mut batch, mut bytes, mut others) = (Vec::new(), 0_usize, VecDeque::new());
        for waiting in self.waiting.drain(..) {
            let may_come =
                if is_first_slow { waiting.tenant() == first } else { !self.slow.contains(&waiting.tenant()) };
            let sum = bytes.saturating_add(waiting.bytes);
            if may_come && (batch.is_empty() || (batch.len() < BATCH_MAX && sum <= BATCH_BYTES_MAX)) {
                bytes = sum;
                batch.push(waiting);
            } else {
                others.push_back(waiting);
            }
        }
        self.waiting = others;
        batch
    }
}

/// One transaction after the other.
struct Lane {
    completions: Completions,
    is_open: bool,
}

impl Drop for Lane {
    /// However it ends, the next one may open.
    fn drop(&mut self) {
        if self.is_open {
            self.completions.lock().open -= 1;
        }
    }
}

impl Lane {
    async fn write_until_none_waits(mut self) {
        loop {
            // Those that are ready at this very moment come along.
            tokio::task::yield_now().await;
            let Some(batch) = self.take_or_close() else { return };
            self.write_batch(batch).await;
        }
    }

    /// Under one lock: whoever comes later finds no lane open, and opens one.
    fn take_or_close(&mut self) -> Option<Vec<Waiting>> {
        let mut lanes = self.completions.lock();
        let batch = lanes.next_batch();
        if batch.is_empty() {
            lanes.open -= 1;
            self.is_open = false;
            return None;
        }
        Some(batch)
    }

    /// All of them, together where that can be. A batch that takes too long, or that one of its completions spoils, is
    /// parted by tenant, then halved, until it can be written or stands alone. Where one alone takes too long the others
    /// of its tenant are not tried, and where that happens to a second tenant, or the server is gone, nobody is.
    async fn write_batch(&self, batch: Vec<Waiting>) {
        metrics::histogram!("forecastle_job_completion_batch").record(batch.len() as f64);
        let mut parts = vec![batch];
        let mut given_up: HashSet<TenantId> = HashSet::new();
        let mut gone: Option<StoreError> = None;
        while let Some(part) = parts.pop() {
            let Some(tenant) = part.first().map(Waiting::tenant) else { continue };
            let written = match &gone {
                Some(error) => Err(error.clone()),
                None if given_up.contains(&tenant) => Err(StoreError::Timeout),
                None => {
                    let completions: Vec<&Completion> = part.iter().map(|waiting| &waiting.completion).collect();
                    jobs::complete_all(&self.completions.db, &completions).await
                }
            };
            let is_tried = gone.is_none() && !given_up.contains(&tenant);
            match written {
                Ok(settled) => {
                    self.completions.lock().slow.remove(&tenant);
                    for (waiting, settled) in part.into_iter().zip(settled) {
                        let _ = waiting.answer.send(Ok(settled));
                    }
                }
                Err(error) if is_tried && part.len() > 1 && may_be_the_batch(&error) => {
                    metrics::counter!("forecastle_job_completion_batches_parted_total").increment(1);
                    parts.extend(smaller(part));
                }
                Err(error) => {
                    if is_tried && error == StoreError::Timeout {
                        given_up.insert(tenant);
                        self.completions.lock().slow.insert(tenant);
                    }
                    if given_up.len() > 1 || (error.is_unavailable() && error != StoreError::Timeout) {
                        gone = Some(error.clone());
                    }
                    for waiting in part {
                        let _ = waiting.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}

/// Whether fewer at once may fare better.
const fn may_be_the_batch(error: &StoreError) -> bool {
    matches!(error, StoreError::Timeout) || !error.is_unavailable()
}

/// One part for each tenant; one tenant's in halves.
fn smaller(batch: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let half = batch.len() / 2;
    let mut of_tenants: BTreeMap<TenantId, Vec<Waiting>> = BTreeMap::new();
    for waiting in batch {
        of_tenants.entry(waiting.tenant()).or_default().push(waiting);
    }
    let mut parts: Vec<_> = of_tenants.into_values().collect();
    if let [only] = parts.as_mut_slice() {
        let second = only.split_off(half);
        parts.push(second);
    }
    parts
}

#[cfg(test)]
mod tests {
    use forecastle_domain::UsageEventId;
    use forecastle_store::DbOptions;
    use forecastle_store::jobs::{Claim, ClaimTerms, KIND_FORECAST, Outcome};
    use forecastle_store::migrate::{RolePasswords, migrate};
    use forecastle_testbed::{Postgres, customers};

    use super::*;

    fn waiting(tenant: TenantId, bytes: usize) -> Waiting {
        let claim = Claim { tenant_id: tenant, job_id: uuid::Uuid::now_v7(), fence: 1, attempt: 1 };
        Waiting { completion: Completion { claim, outcome: None }, bytes, answer: oneshot::channel().0 }
    }

    fn tenant() -> TenantId {
        TenantId::from_uuid(uuid::Uuid::now_v7())
    }

    #[test]
    fn a_batch_ends_where_its_results_become_too_large() {
        let batch_of = |sizes: &mut dyn Iterator<Item = usize>| {
            let mut lanes =
                Lanes { waiting: sizes.map(|bytes| waiting(tenant(), bytes)).collect(), ..Lanes::default() };
            (lanes.next_batch().len(), lanes.waiting.len())
        };
        assert_eq!(batch_of(&mut std::iter::repeat_n(1_000, 200)), (BATCH_MAX, 200 - BATCH_MAX));
        assert_eq!(batch_of(&mut std::iter::repeat_n(1 << 20, 200)), (4, 196));
        assert_eq!(batch_of(&mut [BATCH_BYTES_MAX + 1, 1].into_iter()), (1, 1), "alone, but written");
        assert_eq!(batch_of(&mut std::iter::empty()), (0, 0));
    }

    #[test]
    fn a_slow_tenant_goes_alone_and_in_its_turn() {
        let (quick, slow) = (tenant(), tenant());
        let order = [quick, slow, quick, slow, quick];
        let mut lanes = Lanes { waiting: order.map(|of| waiting(of, 1)).into(), ..Lanes::default() };
        lanes.slow.insert(slow);
        let batch = lanes.next_batch();
        assert_eq!(batch.iter().map(Waiting::tenant).collect::<Vec<_>>(), [quick; 3]);
        let batch = lanes.next_batch();
        assert_eq!(batch.iter().map(Waiting::tenant).collect::<Vec<_>>(), [slow; 2]);
    }

    #[test]
    fn a_batch_is_parted_by_tenant_and_then_in_halves() {
        let (one, other) = (tenant(), tenant());
        let sizes = |order: &[TenantId]| {
            let mut sizes: Vec<_> = smaller(order.iter().map(|of| waiting(*of, 1)).collect())
                .iter()
                .map(|part| (part.iter().all(|waiting| waiting.tenant() == part[0].tenant()), part.len()))
                .collect();
            sizes.sort_unstable();
            sizes
        };
        assert_eq!(sizes(&[one, other, one, one]), [(true, 1), (true, 3)]);
        assert_eq!(sizes(&[one; 5]), [(true, 2), (true, 3)]);
    }

    /// Claims all that `customers` have queued.
    async fn claim_all(db: &Db) -> Vec<Completion> {
        let terms = ClaimTerms { lease: Duration::from_secs(60), deadline: Duration::from_secs(60) };
        let claimed = jobs::claim(db, "w", 64, terms, &[KIND_FORECAST]).await.unwrap();
        let completion = |claim| {
            let outcome = Outcome { engine_version: "1".to_owned(), result: "{}".into(), result_hash: "0".repeat(64) };
            Completion { claim, outcome: Some((outcome, UsageEventId::from_uuid(uuid::Uuid::now_v7()))) }
        };
        claimed.jobs.into_iter().map(|job| completion(job.claim)).collect()
    }

    #[tokio::test]
    async fn a_tenant_whose_rows_are_held_keeps_nobody_else_from_ending() {
        let postgres = Postgres::start();
        migrate(&postgres.admin_url(), &RolePasswords::default()).await.unwrap();
        let mut admin = customers::connect(&postgres.admin_url()).await;
        let mut holder = customers::connect(&postgres.admin_url()).await;
        let options = DbOptions::new(postgres.url_of("forecastle_app"), "worker");
        let db = Db::open(DbOptions { lock_timeout: Duration::from_millis(300), ..options }).unwrap();
        let held = customers::sign_up(&mut admin, "PRO", "EUR", "2026-01-01").await;
        customers::queue_forecast(&mut admin, &held, &customers::scenario_input()).await;
        for _ in 0..6 {
            let free = customers::sign_up(&mut admin, "PRO", "EUR", "2026-01-01").await;
            customers::queue_forecast(&mut admin, &free, &customers::scenario_input()).await;
        }
        let all = claim_all(&db).await;
        sqlx::raw_sql("BEGIN").execute(&mut holder).await.unwrap();
        sqlx::query("SELECT 1 FROM app.jobs WHERE tenant_id = $1 FOR UPDATE")
            .bind(held.tenant)
            .execute(&mut holder)
            .await
            .unwrap();
        let completions = Completions::new(db);
        let mut writing = tokio::task::JoinSet::new();
        for completion in all.clone() {
            let completions = completions.clone();
            writing.spawn(async move { (completion.claim.tenant_id, completions.write(completion).await) });
        }
        while let Some(written) = writing.join_next().await {
            let (tenant, answer) = written.unwrap();
            let expected = if tenant == held.tenant.into() { Err(StoreError::Timeout) } else { Ok(Settled::Done) };
            assert_eq!(answer, expected);
        }
        assert_eq!(completions.lock().slow.len(), 1);
        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
        let again = all.into_iter().find(|completion| completion.claim.tenant_id == held.tenant.into()).unwrap();
        assert_eq!(completions.write(again).await, Ok(Settled::Done));
        assert!(completions.lock().slow.is_empty(), "it goes with the others again");
        assert_eq!(customers::count(&mut admin, "SELECT count(*) FROM app.usage_events").await, 7);
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
        let all = claim_all(&db).await;
        // Twelve take 2.4 s, six 1.2 s, three 0.6 s.
        let slow = "CREATE FUNCTION app.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                PERFORM pg_sleep(0.2); RETURN NEW; END $$;
            CREATE TRIGGER slow BEFORE UPDATE ON app.forecasts FOR EACH ROW EXECUTE FUNCTION app.slow()";
        sqlx::raw_sql(slow).execute(&mut admin).await.unwrap();
        let completions = Completions::new(db);
        let mut writing = tokio::task::JoinSet::new();
        for completion in all {
            let completions = completions.clone();
            writing.spawn(async move { completions.write(completion).await });
        }
        while let Some(written) = writing.join_next().await {
            assert_eq!(written.unwrap(), Ok(Settled::Done));
        }
        assert_eq!(customers::count(&mut admin, "SELECT count(*) FROM app.usage_events").await, 12);
    }
}
