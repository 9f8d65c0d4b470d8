//! The bounded pool and the one way to hold one of its connections.
//!
//! Three things are bounded here that the driver leaves open: waiting for a connection, waiting for
//! an answer, and giving a connection back. A caller whose future is dropped never leaves a
//! transaction behind: connections are opened and transactions begun in a task of their own, and
//! a connection that is let go in the middle is rolled back, or thrown away when that does not
//! succeed in time.
//!
//! A connection that comes back clean is kept at hand for the next caller. The driver's own pool asks
//! the server a question at each return, which would cost a request with one statement as much again.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{AssertSqlSafe, Connection, Executor, FromRow, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::error::{StoreError, UnavailableReason};

/// A prepared statement with its arguments.
pub type PgQuery<'q> = Query<'q, Postgres, PgArguments>;
/// The same, its rows read as `T`.
pub type PgQueryAs<'q, T> = QueryAs<'q, Postgres, T, PgArguments>;
/// The same, the first column of its rows read as `T`.
pub type PgQueryScalar<'q, T> = QueryScalar<'q, Postgres, T, PgArguments>;

/// How much longer the client waits than the server's own statement limit, so that the server's
/// answer, which keeps the connection usable, normally comes first.
const CLIENT_GRACE: Duration = Duration::from_millis(500);
/// What a reading function answers once where a column was added while it ran: its plan's rows have the
/// old shape (feature not supported, datatype mismatch). The next call plans anew.
const SCHEMA_CHANGED: [&str; 2] = ["0A000", "42804"];

/// Shortest pause between two looks for connections that have been at hand for too long.
const AGE_LOOK_MIN: Duration = Duration::from_millis(10);

/// How a process connects; every limit is a setting.
#[derive(Clone)]
pub struct DbOptions {
    /// `postgres://user:password@host:port/database`; never logged.
    pub database_url: String,
    /// Most connections this process holds in its pool.
    pub max_connections: u32,
    /// Longest wait for a connection.
    pub acquire_timeout: Duration,
    /// The server ends a statement after this time.
    pub statement_timeout: Duration,
    /// The server gives up waiting for a lock after this time.
    pub lock_timeout: Duration,
    /// The server ends a transaction that is silent for this time.
    pub idle_in_transaction_timeout: Duration,
    /// How long a connection is kept at hand, in use or not, before the driver's pool sees it again, checks it
    /// and enforces its age.
    pub kept_at_hand_max: Duration,
    /// Shown in `pg_stat_activity`: the process's name, no tenant.
    pub application_name: String,
}

impl DbOptions {
    /// The defaults: 50 connections, 2 s to get one, 4 s a statement, 2 s a lock, 10 s of silence, 60 s at hand.
    #[must_use]
    pub fn new(database_url: impl Into<String>, application_name: impl Into<String>) -> Self {
        Self {
            database_url: database_url.into(),
            max_connections: 50,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(4),
            lock_timeout: Duration::from_secs(2),
            idle_in_transaction_timeout: Duration::from_secs(10),
            kept_at_hand_max: Duration::from_secs(60),
            application_name: application_name.into(),
        }
    }

    /// The same with so many connections less in the pool, which the process holds beside it, as
    /// [`crate::listen::listen`] and [`crate::Cache::open_shared`] each do: what a process was given is what it
    /// uses. A pool keeps at least one.
    #[must_use]
    pub fn sparing(mut self, connections: u32) -> Self {
        self.max_connections = self.max_connections.saturating_sub(connections).max(1);
        self
    }

    pub(crate) fn connect_options(&self) -> Result<PgConnectOptions, StoreError> {
        let options = PgConnectOptions::from_str(&self.database_url)
            .map_err(|_| StoreError::Refused { code: "database_url".to_owned() })?;
        Ok(options.application_name(&self.application_name).options([
            ("search_path", "app".to_owned()),
            ("timezone", "UTC".to_owned()),
            // Statements are few, prepared, and each goes by an index of its own. A plan for each call's values would
            // cost more than the call; one that was made while a table was small would read all of it long after.
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            ("enable_seqscan", "off".to_owned()),
            // Compiling would cost more than running, and would be tried wherever a sequence has to be read after all.
            ("jit", "off".to_owned()),
            ("statement_timeout", self.statement_timeout.as_millis().to_string()),
            ("lock_timeout", self.lock_timeout.as_millis().to_string()),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction_timeout.as_millis().to_string()),
        ]))
    }
}

/// A moment's view of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStats {
    /// The limit.
    pub max: u32,
    /// Connections open or being opened.
    pub open: u32,
    /// Of those, the ones nobody uses.
    pub idle: u32,
}

/// One process's access to PostgreSQL. Cheap to clone. Tables are reached through [`Db::tenant`].
#[derive(Clone)]
pub struct Db {
    pool: PgPool,
    at_hand: Arc<AtHand>,
    options: Arc<DbOptions>,
}

/// Connections that came back clean, the last used one on top, and the right to hold one: whoever has a
/// permit finds a connection here or room for one in the driver's pool.
struct AtHand {
    connections: Mutex<Vec<Kept>>,
    permits: Arc<Semaphore>,
}

struct Kept {
    connection: PoolConnection<Postgres>,
    /// When the driver's pool gave it out.
    since: Instant,
}

impl AtHand {
    fn new(connections_max: u32) -> Self {
        let permits = Arc::new(Semaphore::new(connections_max as usize));
        Self { connections: Mutex::new(Vec::new()), permits }
    }

    fn take(&self) -> Option<Kept> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, kept: Kept) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
    }

    fn take_all(&self) -> Vec<Kept> {
        std::mem::take(&mut *self.connections.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The longest kept of those that have been at hand for `kept_max`.
    fn take_aged(&self, kept_max: Duration) -> Option<Kept> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let (oldest, _) = connections.iter().enumerate().min_by_key(|(_, kept)| kept.since)?;
        (connections[oldest].since.elapsed() >= kept_max).then(|| connections.remove(oldest))
    }

    fn count(&self) -> usize {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Gives connections that have been at hand for too long back to the driver's pool, whether anybody uses them
/// or not. The last one that came back is the first that goes out, so under little load the others would
/// grow old here unseen. Ends when the pool's last handle is gone.
async fn hand_back(at_hand: Weak<AtHand>, kept_max: Duration, limit: Duration) {
    while let Some(at_hand) = at_hand.upgrade() {
        // A permit goes with it: whoever holds another one finds a connection, or room for one. Where none is
        // free all connections are in use, and come by in [`Lease::drop`].
        while let Ok(_permit) = Arc::clone(&at_hand.permits).try_acquire_owned()
            && let Some(mut aged) = at_hand.take_aged(kept_max)
        {
            let _ = timeout(limit, aged.connection.return_to_pool()).await;
        }
        drop(at_hand);
        tokio::time::sleep((kept_max / 4).max(AGE_LOOK_MIN)).await;
    }
}

impl Db {
    /// Prepares a pool; connects only when first used, so a dead server delays no start. Must be called inside
    /// a tokio runtime.
    ///
    /// # Errors
    /// `Refused` if the address does not parse.
    pub fn open(options: DbOptions) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            // A stale connection shows at BEGIN, which is tried again; a ping would cost a trip each time.
            .test_before_acquire(false)
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(1800))
            .connect_lazy_with(options.connect_options()?);
        let at_hand = Arc::new(AtHand::new(options.max_connections));
        let limit = options.statement_timeout + CLIENT_GRACE;
        tokio::spawn(hand_back(Arc::downgrade(&at_hand), options.kept_at_hand_max, limit));
        Ok(Self { pool, at_hand, options: Arc::new(options) })
    }

    /// Whether the server answers: one trip over a pooled connection.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.lease("SELECT 1".to_owned(), false).await.map(drop)
    }

    /// Counts for metrics and for tests.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        PoolStats {
            max: self.options.max_connections,
            open: self.pool.size(),
            idle: u32::try_from(self.pool.num_idle() + self.at_hand.count()).unwrap_or(u32::MAX),
        }
    }

    /// Closes idle connections and waits, at most `limit`, for the others to come back.
    pub async fn close(&self, limit: Duration) {
        let closed = self.pool.close();
        // From here on nothing is kept any more, see `Lease::drop`.
        drop(self.at_hand.take_all());
        let _ = timeout(limit, closed).await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    pub(crate) fn options(&self) -> &DbOptions {
        &self.options
    }

    /// A connection for one statement outside any tenant: only the functions that migrations 0003 and on make
    /// for that. It may turn out to be broken: what only reads goes through [`Db::read_all`], which looks for
    /// another one then, and what writes is the work of somebody who comes again.
    pub(crate) async fn across_tenants(&self) -> Result<Lease, StoreError> {
        self.acquire(self.acquire_deadline()).await
    }

    /// The rows of one statement that needs no transaction of the caller's: one trip. It reads, or running it again
    /// changes nothing more. `build` is called again, for another connection, where the first turns out to be broken, as long as the
    /// time to acquire lasts, and once where a migration changed a table under the statement's plan. Safe
    /// to cancel.
    pub(crate) async fn read_all<'q, T>(&self, build: impl Fn() -> PgQueryAs<'q, T>) -> Result<Vec<T>, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        let deadline = self.acquire_deadline();
        let mut replanned = false;
        // One try for each connection that may have gone stale, and one for a new one.
        for _ in 0..=self.options.max_connections {
            let mut lease = self.acquire(deadline).await?;
            match lease.all(build()).await {
                Err(StoreError::Unavailable { reason: UnavailableReason::Unreachable })
                    if Instant::now() < deadline => {}
                Err(StoreError::Refused { code }) if !replanned && SCHEMA_CHANGED.contains(&code.as_str()) => {
                    replanned = true;
                }
                answer => return answer,
            }
        }
        Err(StoreError::unavailable(UnavailableReason::Unreachable))
    }

    /// Fetches a connection and runs `opening` on it (a simple-protocol message), both in a task of
    /// their own. A connection that turns out to be broken is replaced, as long as the time to acquire
    /// lasts.
    pub(crate) async fn lease(&self, opening: String, in_transaction: bool) -> Result<Lease, StoreError> {
        let db = self.clone();
        let task = tokio::spawn(async move { db.lease_in_own_task(opening, in_transaction).await });
        match task.await {
            Ok(lease) => lease,
            Err(_) => Err(StoreError::unavailable(UnavailableReason::Unreachable)),
        }
    }

    async fn lease_in_own_task(&self, opening: String, in_transaction: bool) -> Result<Lease, StoreError> {
        let deadline = self.acquire_deadline();
        // One try for each connection that may have gone stale, and one for a new one.
        for _ in 0..=self.options.max_connections {
            let mut lease = self.acquire(deadline).await?;
            lease.in_transaction = in_transaction;
            match lease.simple(opening.clone()).await {
                Ok(()) => return Ok(lease),
                Err(StoreError::Unavailable { reason: UnavailableReason::Unreachable })
                    if Instant::now() < deadline =>
                {
                    lease.discard()
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::unavailable(UnavailableReason::Unreachable))
    }

    fn acquire_deadline(&self) -> Instant {
        Instant::now() + self.options.acquire_timeout
    }

    async fn acquire(&self, deadline: Instant) -> Result<Lease, StoreError> {
        let permits = Arc::clone(&self.at_hand.permits);
        let permit = match permits.try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let permits = Arc::clone(&self.at_hand.permits);
                match tokio::time::timeout_at(deadline, permits.acquire_owned()).await {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) | Err(_) => return Err(self.refused_a_connection()),
                }
            }
        };
        if let Some(kept) = self.at_hand.take() {
            return Ok(Lease::of(self, kept, permit));
        }
        // The driver's acquire may open a connection, which is not to be torn off half-way.
        let db = self.clone();
        let task = tokio::spawn(async move { db.acquire_from_driver(deadline, permit).await });
        match task.await {
            Ok(lease) => lease,
            Err(_) => Err(StoreError::unavailable(UnavailableReason::Unreachable)),
        }
    }

    async fn acquire_from_driver(&self, deadline: Instant, permit: OwnedSemaphorePermit) -> Result<Lease, StoreError> {
        match tokio::time::timeout_at(deadline + CLIENT_GRACE, self.pool.acquire()).await {
            Ok(Ok(connection)) => Ok(Lease::of(self, Kept { connection, since: Instant::now() }, permit)),
            Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => Err(self.refused_a_connection()),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// The driver says the same for "all in use" and for "nobody answers".
    fn refused_a_connection(&self) -> StoreError {
        let stats = self.stats();
        let reason =
            if stats.open >= stats.max { UnavailableReason::PoolExhausted } else { UnavailableReason::Unreachable };
        metrics::counter!("forecastle_pool_refusals_total", "reason" => reason.as_str()).increment(1);
        StoreError::unavailable(reason)
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("stats", &self.stats()).finish()
    }
}

/// One connection, held. Dropping it gives it back clean or throws it away, within its limit.
pub(crate) struct Lease {
    connection: Option<PoolConnection<Postgres>>,
    since: Instant,
    pool: PgPool,
    at_hand: Arc<AtHand>,
    /// Goes with the connection, to whoever gives it back.
    permit: Option<OwnedSemaphorePermit>,
    limit: Duration,
    kept_max: Duration,
    in_flight: bool,
    in_transaction: bool,
    failed: bool,
}

impl Lease {
    fn of(db: &Db, kept: Kept, permit: OwnedSemaphorePermit) -> Self {
        Self {
            connection: Some(kept.connection),
            since: kept.since,
            pool: db.pool.clone(),
            at_hand: Arc::clone(&db.at_hand),
            permit: Some(permit),
            limit: db.options.statement_timeout + CLIENT_GRACE,
            kept_max: db.options.kept_at_hand_max,
            in_flight: false,
            in_transaction: false,
            failed: false,
        }
    }

    pub(crate) async fn execute(&mut self, query: PgQuery<'_>) -> Result<u64, StoreError> {
        let (limit, connection) = self.start()?;
        let answer = timeout(limit, query.execute(connection)).await;
        self.settle(answer).map(|done| done.rows_affected())
    }

    pub(crate) async fn all<T>(&mut self, query: PgQueryAs<'_, T>) -> Result<Vec<T>, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        let (limit, connection) = self.start()?;
        let answer = timeout(limit, query.fetch_all(connection)).await;
        self.settle(answer)
    }

    pub(crate) async fn optional<T>(&mut self, query: PgQueryAs<'_, T>) -> Result<Option<T>, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        let (limit, connection) = self.start()?;
        let answer = timeout(limit, query.fetch_optional(connection)).await;
        self.settle(answer)
    }

    pub(crate) async fn scalar<T>(&mut self, query: PgQueryScalar<'_, T>) -> Result<Option<T>, StoreError>
    where
        T: Send + Unpin,
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        let (limit, connection) = self.start()?;
        let answer = timeout(limit, query.fetch_optional(connection)).await;
        self.settle(answer)
    }

    /// Opens a transaction on this connection, in a task of its own: whoever waits for it may go away.
    pub(crate) async fn open(mut self, opening: String) -> Result<Self, StoreError> {
        let task = tokio::spawn(async move {
            self.in_transaction = true;
            self.simple(opening).await.map(|()| self)
        });
        task.await.unwrap_or(Err(StoreError::unavailable(UnavailableReason::Unreachable)))
    }

    /// Statements without arguments, as one message.
    pub(crate) async fn simple(&mut self, statements: String) -> Result<(), StoreError> {
        let (limit, connection) = self.start()?;
        let answer = timeout(limit, connection.execute(sqlx::raw_sql(AssertSqlSafe(statements)))).await;
        self.settle(answer).map(|_| ())
    }

    /// Rolls back; where that fails, dropping sees to it.
    pub(crate) async fn rollback(mut self) {
        if self.simple("ROLLBACK".to_owned()).await.is_ok() {
            self.in_transaction = false;
        }
    }

    /// Commits in a task of its own: a caller that goes away does not interrupt it.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        if self.failed {
            // PostgreSQL would answer COMMIT of a failed transaction with a ROLLBACK and no error.
            return Err(StoreError::Refused { code: "25P02".to_owned() });
        }
        tokio::spawn(self.commit_in_own_task()).await.unwrap_or(Err(StoreError::CommitUnknown))
    }

    async fn commit_in_own_task(mut self) -> Result<(), StoreError> {
        match self.simple("COMMIT".to_owned()).await {
            Ok(()) => {
                self.leave_transaction();
                Ok(())
            }
            // The server never answered, or the link broke: it may have been done.
            Err(StoreError::Timeout | StoreError::Unavailable { .. }) if self.connection.is_none() => {
                Err(StoreError::CommitUnknown)
            }
            Err(error) => Err(error),
        }
    }

    /// What `Drop` goes by: nothing is left to roll back.
    const fn leave_transaction(&mut self) {
        self.in_transaction = false;
    }

    fn start(&mut self) -> Result<(Duration, &mut PgConnection), StoreError> {
        let connection =
            self.connection.as_mut().ok_or_else(|| StoreError::unavailable(UnavailableReason::Unreachable))?;
        self.in_flight = true;
        Ok((self.limit, connection))
    }

    fn settle<T>(
        &mut self,
        answer: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, StoreError> {
        self.in_flight = false;
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.failed = true;
                let error = StoreError::from(error);
                let gone = matches!(error, StoreError::Unavailable { reason: UnavailableReason::Unreachable });
                if gone {
                    self.discard();
                }
                Err(error)
            }
            Err(_) => {
                self.failed = true;
                self.discard();
                Err(StoreError::Timeout)
            }
        }
    }

    /// Closes the socket at once; the pool may open another connection in its place.
    fn discard(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let unclean = self.in_flight || self.in_transaction;
        if !unclean && !self.failed && self.since.elapsed() < self.kept_max && !self.pool.is_closed() {
            // Before the permit is free: whoever gets it finds the connection.
            self.at_hand.keep(Kept { connection, since: self.since });
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            drop(connection.detach());
            return;
        };
        let (limit, since, kept_max, was_refused) = (self.limit, self.since, self.kept_max, self.failed);
        let (permit, pool, at_hand) = (self.permit.take(), self.pool.clone(), Arc::clone(&self.at_hand));
        runtime.spawn(async move {
            // Held until the driver's pool has room again.
            let _permit = permit;
            if unclean {
                // A statement that was let go in the middle is waited for by the driver first.
                let rollback = connection.execute(sqlx::raw_sql("ROLLBACK"));
                if !matches!(timeout(limit, rollback).await, Ok(Ok(_))) {
                    drop(connection.detach());
                    return;
                }
                if !was_refused && since.elapsed() < kept_max && !pool.is_closed() {
                    at_hand.keep(Kept { connection, since });
                    return;
                }
            }
            // Ends with a ping; bounded, since on a dead link it would keep the permit for ever.
            let _ = timeout(limit, connection.return_to_pool()).await;
        });
    }
}

/// A connection of its own, outside the pool, for administration (migrations, bulk loading).
///
/// # Errors
/// `Refused` for a bad address, else as the server says.
pub(crate) async fn connect_once(database_url: &str) -> Result<PgConnection, StoreError> {
    let options = PgConnectOptions::from_str(database_url)
        .map_err(|_| StoreError::Refused { code: "database_url".to_owned() })?
        .application_name("forecastle-admin");
    timeout(Duration::from_secs(10), PgConnection::connect_with(&options))
        .await
        .map_err(|_| StoreError::unavailable(UnavailableReason::Unreachable))?
        .map_err(StoreError::from)
}
