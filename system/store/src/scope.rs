//! The tenant scope: SQL on tenant tables cannot be run without one.
//!
//! The tenant is set locally in the transaction, in the same message as BEGIN, and dies with it. A read
//! of one statement needs no transaction of its own: it calls a reading function of migration 0011,
//! which sets the tenant locally for itself, and is one trip. Row-level security does the rest; a query here needs no `WHERE tenant_id`, but has one anyway
//! where an index wants it.

use std::sync::Arc;

use forecastle_domain::TenantId;
use sqlx::FromRow;
use sqlx::postgres::PgRow;
use tokio::sync::Mutex;

use crate::error::{StoreError, UnavailableReason};
use crate::pool::{Db, Lease, PgQuery, PgQueryAs, PgQueryScalar};

/// The right to open transactions for one tenant.
#[derive(Clone)]
pub struct TenantScope {
    source: Source,
    tenant_id: TenantId,
}

/// Where a scope's statements run.
#[derive(Clone)]
enum Source {
    /// On whichever connection of the pool is free.
    Pool(Db),
    /// On this one alone, for as long as the scope lasts.
    Held(Arc<Mutex<Option<Lease>>>),
}

impl Db {
    /// The scope of one tenant. The id must come from an authenticated session, a claimed job or the
    /// list of tenants to bill, never from a request's own fields.
    #[must_use]
    pub fn tenant(&self, tenant_id: TenantId) -> TenantScope {
        TenantScope { source: Source::Pool(self.clone()), tenant_id }
    }
}

/// What a scope of one connection answers once a transaction has taken that.
const NOTHING_HELD: StoreError = StoreError::unavailable(UnavailableReason::Unreachable);

impl TenantScope {
    /// The scope of one tenant on one connection, as [`Db::tenant`] says. The last thing done with it may
    /// be one transaction, which takes the connection.
    pub(crate) fn held(lease: Lease, tenant_id: TenantId) -> Self {
        Self { source: Source::Held(Arc::new(Mutex::new(Some(lease)))), tenant_id }
    }

    /// Whose scope this is.
    #[must_use]
    pub const fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }

    /// Opens a transaction: one trip. Safe to cancel.
    ///
    /// # Errors
    /// `Unavailable` (with the pool being exhausted as a reason of its own) or `Timeout`.
    pub async fn begin(&self) -> Result<TenantTx, StoreError> {
        self.begin_as("BEGIN").await
    }

    /// The same for whoever only reads: all of its statements see the database as it is at the first of them.
    ///
    /// # Errors
    /// As [`TenantScope::begin`].
    pub async fn begin_snapshot(&self) -> Result<TenantTx, StoreError> {
        self.begin_as("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    async fn begin_as(&self, begin: &'static str) -> Result<TenantTx, StoreError> {
        // A UUID's text form holds hex digits and hyphens only, so it is safe inside the quotes.
        let opening = format!("{begin}; SELECT set_config('app.tenant', '{}', true)", self.tenant_id);
        let lease = match &self.source {
            Source::Pool(db) => db.lease(opening, true).await?,
            Source::Held(held) => held.lock().await.take().ok_or(NOTHING_HELD)?.open(opening).await?,
        };
        Ok(TenantTx { lease, tenant_id: self.tenant_id })
    }

    /// The rows of a reading function, or of one that writes under a fence or a key, so that running it again changes nothing
    /// more: one trip, and no setting of it outlasts the statement. `statement`
    /// gives it `$1` as the tenant, which is bound here, from this scope and nothing else; `arguments`
    /// binds `$2` and what follows. Safe to cancel.
    pub(crate) async fn read_all<'q, T>(
        &self,
        statement: &'static str,
        arguments: impl Fn(PgQueryAs<'q, T>) -> PgQueryAs<'q, T>,
    ) -> Result<Vec<T>, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        let tenant = self.tenant_id.as_uuid();
        let query = || arguments(sqlx::query_as(statement).bind(tenant));
        match &self.source {
            Source::Pool(db) => db.read_all(query).await,
            Source::Held(held) => held.lock().await.as_mut().ok_or(NOTHING_HELD)?.all(query()).await,
        }
    }

    /// The first row of the same, if there is one.
    pub(crate) async fn read_optional<T>(
        &self,
        statement: &'static str,
        arguments: impl Fn(PgQueryAs<'static, T>) -> PgQueryAs<'static, T>,
    ) -> Result<Option<T>, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        Ok(self.read_all(statement, arguments).await?.into_iter().next())
    }

    /// The one row of a reading function that always has one.
    ///
    /// # Errors
    /// `NotFound` if there is none; else as [`StoreError`] says.
    pub(crate) async fn read_one<T>(
        &self,
        statement: &'static str,
        arguments: impl Fn(PgQueryAs<'static, T>) -> PgQueryAs<'static, T>,
    ) -> Result<T, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        self.read_optional(statement, arguments).await?.ok_or(StoreError::NotFound)
    }
}

/// An open transaction of one tenant. Dropped without [`TenantTx::commit`], it is rolled back.
///
/// Call nobody else while it is open: no Redis, no provider, no second transaction.
pub struct TenantTx {
    lease: Lease,
    tenant_id: TenantId,
}

impl TenantTx {
    /// Whose transaction this is.
    #[must_use]
    pub const fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }

    /// Runs a statement; the number of rows it touched.
    ///
    /// # Errors
    /// As [`StoreError`] says; after any error the transaction can only be dropped.
    pub async fn execute(&mut self, query: PgQuery<'_>) -> Result<u64, StoreError> {
        self.lease.execute(query).await
    }

    /// Every row, in the statement's order.
    ///
    /// # Errors
    /// As [`StoreError`] says; after any error the transaction can only be dropped.
    pub async fn all<T>(&mut self, query: PgQueryAs<'_, T>) -> Result<Vec<T>, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        self.lease.all(query).await
    }

    /// The first row, if there is one.
    ///
    /// # Errors
    /// As [`StoreError`] says; after any error the transaction can only be dropped.
    pub async fn optional<T>(&mut self, query: PgQueryAs<'_, T>) -> Result<Option<T>, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        self.lease.optional(query).await
    }

    /// The first row.
    ///
    /// # Errors
    /// `NotFound` if there is none; else as [`StoreError`] says.
    pub async fn one<T>(&mut self, query: PgQueryAs<'_, T>) -> Result<T, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        self.optional(query).await?.ok_or(StoreError::NotFound)
    }

    /// The first column of the first row, if there is one.
    ///
    /// # Errors
    /// As [`StoreError`] says; after any error the transaction can only be dropped.
    pub async fn scalar<T>(&mut self, query: PgQueryScalar<'_, T>) -> Result<Option<T>, StoreError>
    where
        T: Send + Unpin,
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        self.lease.scalar(query).await
    }

    /// Rolls back, and returns once that is done: its locks are free then. Dropping does the same a
    /// little later.
    pub async fn rollback(self) {
        self.lease.rollback().await;
    }

    /// Commits. Runs to its end even if the caller goes away.
    ///
    /// # Errors
    /// `CommitUnknown` if the answer was lost; `Refused` if a statement had failed before (nothing was
    /// written) or a deferred constraint refuses the whole.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.lease.commit().await
    }
}
