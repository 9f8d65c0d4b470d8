//! One streaming copy of the database: whether it may be used, how far it has replayed, and a tenant's
//! scope on a connection that is known to show enough.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use forecastle_domain::TenantId;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{StoreError, UnavailableReason};
use crate::pool::{Db, DbOptions, Lease, PoolStats};
use crate::reads::ReplicaOptions;
use crate::scope::TenantScope;
use crate::wal_position::WalPosition;

/// Pause between two looks at a replica that a reader waits for; replay follows within a millisecond.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(1);

/// The replica's own word on where it is; empty where it is no standby (any more).
const POSITION: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text ELSE '' END";

/// Why a replica was not read from. Also a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassedOver {
    /// Has not replayed what the reader must see, and did not within the wait.
    Behind,
    /// All of its connections are in use.
    Busy,
    /// Did not answer, or not in time.
    Failed,
    /// Ended the read as taking too long, or as waiting too long for what replay holds.
    Slow,
    /// Refused the read itself, or what it gave does not read.
    Refused,
    /// Withdrew the answer because replay needed what it was reading.
    Conflict,
    /// Is a primary itself: what it holds may be another history.
    Promoted,
}

impl PassedOver {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Slow => "slow",
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Promoted => "promoted",
        }
    }
}

/// A replica as one process knows it.
pub(crate) struct Replica {
    name: String,
    db: Db,
    opening_timeout: Duration,
    catch_up_wait: Duration,
    /// Whether its last answer came, and was a standby's.
    answers: AtomicBool,
    /// The last position it told. A hint: a restart may set it back, so each read asks again.
    position: AtomicU64,
    /// Where a reader has last wanted it to be in vain; until it gets there nobody else tries.
    wanted: AtomicU64,
}

impl Replica {
    /// Opens the pool and watches the replica until the last handle is gone. Unused until it has answered.
    pub(crate) fn open(
        name: &str,
        url: &str,
        primary: &DbOptions,
        options: &ReplicaOptions,
    ) -> Result<Arc<Self>, StoreError> {
        let db = Db::open(DbOptions {
            database_url: url.to_owned(),
            max_connections: options.max_connections,
            acquire_timeout: options.opening_timeout,
            statement_timeout: options.statement_timeout,
            // Only replay holds locks there that a read waits for: being behind by another name. 0 is no limit.
            lock_timeout: options.catch_up_wait.max(Duration::from_millis(1)),
            ..primary.clone()
        })?;
        let replica = Arc::new(Self {
            name: name.to_owned(),
            db,
            opening_timeout: options.opening_timeout,
            catch_up_wait: options.catch_up_wait,
            answers: AtomicBool::new(false),
            position: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
        });
        tokio::spawn(watch(Arc::downgrade(&replica), options.poll_every));
        Ok(replica)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a reader should try: it answers, and is past the point where the last reader gave up on it.
    pub(crate) fn is_usable(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
            && self.position.load(Ordering::Relaxed) >= self.wanted.load(Ordering::Relaxed)
    }

    /// The last position it told.
    pub(crate) fn position(&self) -> WalPosition {
        WalPosition(self.position.load(Ordering::Relaxed))
    }

    pub(crate) fn pool(&self) -> PoolStats {
        self.db.stats()
    }

    pub(crate) async fn close(&self, limit: Duration) {
        self.db.close(limit).await;
    }

    /// A scope that sees everything up to `needed`: the replica says so itself, on the very connection that
    /// is then read from. A statement sees what is replayed when it begins, and replay does not go back as
    /// long as a connection lasts.
    pub(crate) async fn scope(&self, tenant: TenantId, needed: WalPosition) -> Result<TenantScope, PassedOver> {
        let PoolStats { max, open, idle } = self.db.stats();
        if open >= max && idle == 0 {
            return Err(PassedOver::Busy);
        }
        let (mut lease, position) = match timeout(self.opening_timeout, self.ask()).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => return Err(self.failed(&error)),
            Err(_) => return Err(self.failed(&StoreError::Timeout)),
        };
        if self.learn(position)? >= needed {
            return Ok(TenantScope::held(lease, tenant));
        }
        let catching_up = self.catch_up(&mut lease, needed);
        match timeout(self.catch_up_wait + self.opening_timeout, catching_up).await {
            Ok(Ok(())) => Ok(TenantScope::held(lease, tenant)),
            Ok(Err(passed_over)) => Err(passed_over),
            Err(_) => Err(self.failed(&StoreError::Timeout)),
        }
    }

    /// A connection, and what the replica has just said on it. A connection that turns out to be broken is
    /// replaced.
    async fn ask(&self) -> Result<(Lease, Option<String>), StoreError> {
        for _ in 0..self.db.options().max_connections {
            let mut lease = self.db.across_tenants().await?;
            match lease.scalar(sqlx::query_scalar(POSITION)).await {
                Err(StoreError::Unavailable { reason: UnavailableReason::Unreachable }) => {}
                told => return Ok((lease, told?)),
            }
        }
        let mut lease = self.db.across_tenants().await?;
        let told = lease.scalar(sqlx::query_scalar(POSITION)).await?;
        Ok((lease, told))
    }

    async fn catch_up(&self, lease: &mut Lease, needed: WalPosition) -> Result<(), PassedOver> {
        let given_up = Instant::now() + self.catch_up_wait;
        while Instant::now() < given_up {
            sleep(CATCH_UP_PAUSE).await;
            let told = lease.scalar(sqlx::query_scalar(POSITION)).await;
            if self.learn(told.map_err(|error| self.failed(&error))?)? >= needed {
                return Ok(());
            }
        }
        self.wanted.fetch_max(needed.0, Ordering::Relaxed);
        Err(PassedOver::Behind)
    }

    /// Takes note of what it said about itself.
    fn learn(&self, position: Option<String>) -> Result<WalPosition, PassedOver> {
        match position.and_then(|text| text.parse::<WalPosition>().ok()) {
            Some(position) => {
                // Not the greatest ever seen: a copy that was made anew stands where it stands.
                self.position.store(position.0, Ordering::Relaxed);
                Ok(position)
            }
            None => {
                self.leave_alone("is no standby");
                Err(PassedOver::Promoted)
            }
        }
    }

    /// What an error of somebody's read says about the replica: nothing, where it is about that read alone. One
    /// tenant's slow question must not take the replica from all others; whether it answers at all is found
    /// out by the look that never ends.
    pub(crate) fn failed_to_read(&self, error: &StoreError) -> PassedOver {
        match error {
            StoreError::Timeout => PassedOver::Slow,
            StoreError::Corrupt { .. }
            | StoreError::Refused { .. }
            | StoreError::Conflict { .. }
            | StoreError::NotFound
            | StoreError::Unavailable { reason: UnavailableReason::ReadOnly } => PassedOver::Refused,
            _ => self.failed(error),
        }
    }

    /// Takes note of an error, and leaves the replica alone unless that says nothing about it.
    fn failed(&self, error: &StoreError) -> PassedOver {
        match error {
            StoreError::Unavailable { reason: UnavailableReason::PoolExhausted } => PassedOver::Busy,
            StoreError::Unavailable { reason: UnavailableReason::Contention } => PassedOver::Conflict,
            _ => {
                if !self.db.is_closed() {
                    self.leave_alone("does not answer");
                }
                PassedOver::Failed
            }
        }
    }

    fn leave_alone(&self, why: &'static str) {
        if self.answers.swap(false, Ordering::Relaxed) {
            tracing::warn!(replica = self.name, why, "replica is left alone");
        }
    }

    /// One question outside any read: what brings a replica back, and finds one that is gone.
    async fn look(&self) {
        match timeout(self.opening_timeout, self.ask()).await {
            Ok(Ok((_, position))) => {
                if self.learn(position).is_ok() && !self.answers.swap(true, Ordering::Relaxed) {
                    tracing::info!(replica = self.name, "replica answers");
                }
            }
            Ok(Err(error)) => drop(self.failed(&error)),
            Err(_) => drop(self.failed(&StoreError::Timeout)),
        }
    }
}

async fn watch(replica: Weak<Replica>, every: Duration) {
    while let Some(replica) = replica.upgrade() {
        replica.look().await;
        drop(replica);
        sleep(every).await;
    }
}
