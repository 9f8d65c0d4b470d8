//! What Redis should have done and did not confirm, kept in PostgreSQL until somebody has it done.
//!
//! The hole this closes: an instance whose own link to Redis is cut commits a change and cannot delete
//! the cached value, while another instance, whose link is whole, goes on giving the old one out. So
//! a writer without a confirmation records a *debt*, one row for each key, before it goes on; a commit
//! rings every API instance, and whoever reaches Redis pays: it blocks or deletes the key and removes
//! the row ([`crate::cache_trust`]). The writer waits until its rows are gone, or until no instance
//! can give out anything that was cached.
//!
//! # Why no stale value follows an acknowledged write
//! An instance uses the cache only while it *trusts* it: for a bounded time after it (1) wrote into
//! PostgreSQL until when it will trust, then (2) looked for debts and found none, or paid all of them.
//! Let a write be committed at `c`, its deletion recorded as a debt at `d > c`, and acknowledged at `a`.
//! - Paid before `a`: the deletion came after the commit, and a fill by a reader that had looked before
//!   is refused, since the deletion took its mark ([`crate::cache`]).
//! - Not paid: at `a` every grant that the writer saw after `d` is over. A grant it did not see was
//!   written after `d`, so the look that follows it finds the debt, and the instance pays it or does
//!   not trust. Hence nobody trusts without having paid, also when Redis comes back full of old values.
//!
//! Times are PostgreSQL's on the writer's side and monotonic on the reader's, which counts from before
//! its grant and a tenth less. So the wait ends within the longest trust (2 s) even if an instance died
//! with it; where all instances have lost Redis they have withdrawn, and nobody waits.
//!
//! The same holds for announcements, so that a writer that dies after its commit leaves a blocked key.
//!
//! Not closed: a COMMIT whose answer was lost and that PostgreSQL carries out later than the block lasts
//! (15 s). Nobody was told that it happened; the entry's lifetime bounds it.
//!
//! Cost: nothing while Redis confirms. Redis must not persist: one that came back with an old
//! snapshot would bring back what was deleted.

use std::time::Duration;

use forecastle_domain::TenantId;
use sqlx::postgres::PgConnection;
use tokio::time::Instant;

use crate::cache::CacheKey;
use crate::error::StoreError;
use crate::pool::Db;

/// The channel that a new debt rings.
pub(crate) const CHANNEL: &str = "forecastle_cache_debts";
/// First pause between two looks at whether a debt is paid; doubles up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(80);
/// Longest wait: longer than any instance may trust, however that is set.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Keys in one order, so that two writers of the same ones do not wait for each other.
const RECORD: &str = "WITH owed AS (
        INSERT INTO app.cache_debts (tenant_id, key, blocks)
        SELECT DISTINCT $1, name, $3 FROM unnest($2::text[]) AS name ORDER BY name
        ON CONFLICT (tenant_id, key, blocks)
        DO UPDATE SET seq = excluded.seq, owed_at = excluded.owed_at
        RETURNING seq)
    SELECT pg_notify($4, '') FROM owed";

/// Records a deletion within the very transaction of a change made outside the application.
pub(crate) async fn record_deletion(
    admin: &mut PgConnection,
    tenant: TenantId,
    key: &CacheKey,
) -> Result<(), StoreError> {
    let names = vec![key.as_str().to_owned()];
    let query = sqlx::query(RECORD).bind(tenant.as_uuid()).bind(names).bind(false).bind(CHANNEL);
    query.execute(admin).await?;
    Ok(())
}

/// What is owed to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Debt {
    /// Nobody may fill it for a while: a change is under way.
    Block,
    /// It must be deleted: the change is committed.
    Deletion,
}

/// How a debt was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// A peer did it.
    Paid,
    /// It stands, and no instance uses the cache before it is paid.
    NobodyTrusts,
}

/// The recording side.
#[derive(Clone)]
pub(crate) struct Debts {
    db: Db,
}

impl Debts {
    pub(crate) const fn new(db: Db) -> Self {
        Self { db }
    }

    /// Records what is owed to these keys, all of one tenant, and returns once no instance can give out
    /// what stands under them. Safe to cancel: the record stands.
    ///
    /// # Errors
    /// As [`StoreError`] says: then nothing is known to be recorded.
    pub(crate) async fn settle(&self, keys: &[CacheKey], debt: Debt) -> Result<Settlement, StoreError> {
        let tenant = keys.first().and_then(CacheKey::tenant).ok_or(StoreError::NotFound)?;
        let names: Vec<String> = keys.iter().map(|key| key.as_str().to_owned()).collect();
        self.record(tenant, &names, debt).await?;
        metrics::counter!("forecastle_cache_debts_total", "kind" => debt.as_str()).increment(1);
        let started = Instant::now();
        let settled = self.wait(tenant, &names, debt).await;
        metrics::histogram!("forecastle_cache_debt_wait_seconds").record(started.elapsed().as_secs_f64());
        settled
    }

    async fn record(&self, tenant: TenantId, names: &[String], debt: Debt) -> Result<(), StoreError> {
        let mut tx = self.db.tenant(tenant).begin().await?;
        let query = sqlx::query(RECORD).bind(tenant.as_uuid()).bind(names).bind(debt == Debt::Block).bind(CHANNEL);
        tx.execute(query).await?;
        tx.commit().await
    }

    async fn wait(&self, tenant: TenantId, names: &[String], debt: Debt) -> Result<Settlement, StoreError> {
        let end = Instant::now() + WAIT_MAX;
        let mut nobody_trusts_from = None;
        let mut pause = PAUSE_MIN;
        loop {
            let asked = Instant::now();
            let statement = "SELECT owed, trust_ms FROM app.cache_debts_standing($1, $2, $3)";
            let query =
                || sqlx::query_as(statement).bind(tenant.as_uuid()).bind(names.to_vec()).bind(debt == Debt::Block);
            let rows: Vec<(i64, i64)> = self.db.read_all(query).await?;
            let (owed, trust_ms) = rows.into_iter().next().ok_or(StoreError::NotFound)?;
            if owed == 0 {
                return Ok(Settlement::Paid);
            }
            // Later grants come from instances that have seen the debt: the first answer's are the ones to
            // wait for, counted from when it came.
            let over = *nobody_trusts_from
                .get_or_insert_with(|| Instant::now() + Duration::from_millis(u64::try_from(trust_ms).unwrap_or(0)));
            if trust_ms <= 0 || asked >= over {
                return Ok(Settlement::NobodyTrusts);
            }
            if asked >= end {
                return Err(StoreError::Timeout);
            }
            tokio::time::sleep(pause.min(over.saturating_duration_since(asked))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

impl Debt {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Deletion => "deletion",
        }
    }
}
