//! Whether this instance may give out what is cached, and the task that keeps it allowed to.
//!
//! One connection outside the pool, so that a pool full of waiters costs no instance its cache: it
//! listens for debts, looks for them now and then in case the bell was lost, pays them, and renews the
//! trust. The law it keeps stands in [`crate::cache_debts`].

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgListener, PgPoolOptions};
use uuid::Uuid;

use crate::cache::{Cache, Shared};
use crate::cache_debts::CHANNEL;
use crate::error::{StoreError, UnavailableReason};
use crate::pool::Db;

/// Debts looked at in one go.
const BATCH: i32 = 512;
/// Pause before connecting again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for one answer on the connection.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Until when the cache may be used, in milliseconds since `origin`.
pub(crate) struct Trust {
    origin: Instant,
    until_ms: AtomicU64,
}

impl Trust {
    /// For a cache that nobody else shares, or that the caller takes as it is.
    pub(crate) fn always() -> Self {
        Self { origin: Instant::now(), until_ms: AtomicU64::new(u64::MAX) }
    }

    /// Not before it is granted.
    pub(crate) fn none() -> Self {
        Self { origin: Instant::now(), until_ms: AtomicU64::new(0) }
    }

    pub(crate) fn holds(&self) -> bool {
        self.millis(Instant::now()) < self.until_ms.load(Ordering::Acquire)
    }

    fn grant(&self, from: Instant, lasting: Duration) {
        self.until_ms.store(self.millis(from + lasting), Ordering::Release);
    }

    fn withdraw(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Ends when the last handle of the cache is gone.
pub(crate) async fn keep(shared: Weak<Shared>, db: Db, lasting: Duration) {
    let reader = Reader { shared, id: Uuid::new_v4(), lasting, is_trusted: false };
    let mut reader = reader;
    while reader.shared.strong_count() > 0 {
        if let Err(error) = reader.serve(&db).await {
            tracing::warn!(error = %error, "keep trust in the cache");
        }
        // What was granted runs out by itself: a dead link withdraws nothing.
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

struct Reader {
    shared: Weak<Shared>,
    id: Uuid,
    lasting: Duration,
    is_trusted: bool,
}

impl Reader {
    /// Until the connection or the cache is gone.
    async fn serve(&mut self, db: &Db) -> Result<(), StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(db.options().acquire_timeout)
            // Rows of instances are under the nil tenant; a connection of its own may carry it for good.
            .connect_lazy_with(db.options().connect_options()?.options([("app.tenant", Uuid::nil().to_string())]));
        let mut link = answer(PgListener::connect_with(&pool)).await?;
        link.eager_reconnect(false);
        answer(link.listen(CHANNEL)).await?;
        loop {
            let Some(shared) = self.shared.upgrade() else {
                return Ok(());
            };
            self.round(&Cache { shared }, &mut link).await?;
            match tokio::time::timeout(self.lasting / 4, link.try_recv()).await {
                // The link broke.
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
                Ok(Ok(Some(_))) => while link.next_buffered().is_some() {},
                Err(_) => {}
            }
        }
    }

    /// Pays what is owed, and with nothing left renews the trust.
    async fn round(&mut self, cache: &Cache, link: &mut PgListener) -> Result<(), StoreError> {
        if cache.ping().await.is_err() {
            return self.withdraw(cache, link).await;
        }
        // An instance that lost its trust first shows that it can pay, so that nobody waits for a grant
        // that will be withdrawn at once.
        if !self.is_trusted && !pay_all(cache, link).await? {
            return Ok(());
        }
        let started = Instant::now();
        self.write_grant(link).await?;
        // After the grant: a debt recorded later than this look is of a writer that sees the grant.
        if !pay_all(cache, link).await? {
            return self.withdraw(cache, link).await;
        }
        cache.shared.trust.grant(started, self.lasting * 9 / 10);
        self.is_trusted = true;
        Ok(())
    }

    async fn write_grant(&self, link: &mut PgListener) -> Result<(), StoreError> {
        let query = sqlx::query(
            "WITH gone AS (
                 DELETE FROM app.cache_readers
                 WHERE tenant_id = $1 AND trusts_until < clock_timestamp() - interval '1 hour' AND reader_id <> $2)
             INSERT INTO app.cache_readers (tenant_id, reader_id, trusts_until)
             VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond')
             ON CONFLICT (tenant_id, reader_id) DO UPDATE SET trusts_until = excluded.trusts_until",
        );
        let lasting_ms = i64::try_from(self.lasting.as_millis()).unwrap_or(i64::MAX);
        let query = query.bind(Uuid::nil()).bind(self.id).bind(lasting_ms);
        answer(query.execute(&mut *link)).await.map(drop)
    }

    /// First here, then for everybody to see.
    async fn withdraw(&mut self, cache: &Cache, link: &mut PgListener) -> Result<(), StoreError> {
        cache.shared.trust.withdraw();
        if !std::mem::take(&mut self.is_trusted) {
            return Ok(());
        }
        metrics::counter!("forecastle_cache_trust_withdrawn_total").increment(1);
        let query = sqlx::query(
            "UPDATE app.cache_readers SET trusts_until = clock_timestamp() WHERE tenant_id = $1 AND reader_id = $2",
        );
        answer(query.bind(Uuid::nil()).bind(self.id).execute(&mut *link)).await.map(drop)
    }
}

/// Whether nothing is owed any more, as of the last look.
async fn pay_all(cache: &Cache, link: &mut PgListener) -> Result<bool, StoreError> {
    loop {
        let query = sqlx::query_as("SELECT key, blocks, seq FROM app.cache_debts_oldest($1)");
        let owed: Vec<(String, bool, i64)> = answer(query.bind(BATCH).fetch_all(&mut *link)).await?;
        if owed.is_empty() {
            return Ok(true);
        }
        let keys = |blocks: bool| owed.iter().filter(move |debt| debt.1 == blocks).map(|debt| debt.0.as_str());
        // Deletions first: a block that stands costs a few misses, one that is lost may cost the truth.
        if cache.delete_names(keys(false)).await.is_err() || cache.block_names(keys(true)).await.is_err() {
            return Ok(false);
        }
        let paid: Vec<i64> = owed.iter().map(|debt| debt.2).collect();
        answer(sqlx::query("SELECT app.cache_debts_paid($1)").bind(&paid).execute(&mut *link)).await?;
        metrics::counter!("forecastle_cache_debts_paid_total").increment(paid.len() as u64);
        if owed.len() < BATCH as usize {
            return Ok(true);
        }
    }
}

async fn answer<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(answered) => answered.map_err(StoreError::from),
        Err(_) => Err(StoreError::unavailable(UnavailableReason::Unreachable)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_runs_out_by_itself_and_can_be_withdrawn() {
        let trust = Trust::none();
        assert!(!trust.holds());
        trust.grant(Instant::now(), Duration::from_secs(60));
        assert!(trust.holds());
        trust.withdraw();
        assert!(!trust.holds());
        trust.grant(Instant::now() - Duration::from_secs(2), Duration::from_secs(1));
        assert!(!trust.holds(), "counted from before it was asked for");
        assert!(Trust::always().holds());
    }
}
