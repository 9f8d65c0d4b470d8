//! How far the primary's log reaches, asked once for all who wait.
//!
//! Law: an answer comes from a query that was sent after its asker had asked. Whoever arrives while a
//! query is under way waits for the next one. So the answer covers every transaction whose success
//! anybody was told before the asker asked, on whichever instance, without anything being remembered.
//!
//! It asks for the position up to which the log is on disk. A commit is told only once its own record
//! is there (`synchronous_commit`, which must not be off), and a copy can receive nothing beyond it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::error::StoreError;
use crate::pool::{Db, DbOptions, Lease};
use crate::wal_position::WalPosition;

/// Askers that may wait; further ones are turned away at once, and read from the primary.
const ASKERS_MAX: usize = 4_096;

type Asker = oneshot::Sender<WalPosition>;

/// The way to ask. One connection of its own, so that no asker waits behind the pool.
pub(crate) struct ReadIndex {
    askers: mpsc::Sender<Asker>,
    latest: Arc<AtomicU64>,
    limit: Duration,
}

impl ReadIndex {
    /// Connects when first asked. `limit` bounds each query and each asker's wait. Must be called inside a
    /// tokio runtime.
    pub(crate) fn open(primary: &DbOptions, limit: Duration) -> Result<Self, StoreError> {
        let options =
            DbOptions { max_connections: 1, acquire_timeout: limit, statement_timeout: limit, ..primary.clone() };
        let db = Db::open(options)?;
        let (askers, asked) = mpsc::channel(ASKERS_MAX);
        let latest = Arc::new(AtomicU64::new(0));
        tokio::spawn(answer(db, asked, limit, Arc::clone(&latest)));
        Ok(Self { askers, latest, limit })
    }

    /// A position at or past every commit that was told before this call; `None` if the primary does not
    /// say in time.
    pub(crate) async fn now(&self) -> Option<WalPosition> {
        let (asker, told) = oneshot::channel();
        self.askers.try_send(asker).ok()?;
        timeout(self.limit, told).await.ok()?.ok()
    }

    /// The newest answer, however old: for a figure to look at, never for a decision.
    pub(crate) fn latest(&self) -> WalPosition {
        WalPosition(self.latest.load(Ordering::Relaxed))
    }
}

/// Ends when nobody can ask any more.
async fn answer(db: Db, mut asked: mpsc::Receiver<Asker>, limit: Duration, latest: Arc<AtomicU64>) {
    let mut held = None;
    let mut askers = Vec::new();
    // Takes all who have asked by now; the query is sent after that.
    while asked.recv_many(&mut askers, ASKERS_MAX).await > 0 {
        match timeout(limit, flushed(&db, &mut held)).await {
            Ok(Ok(position)) => {
                latest.store(position.0, Ordering::Relaxed);
                for asker in askers.drain(..) {
                    let _ = asker.send(position);
                }
            }
            // Dropped unanswered: they know that there is no answer.
            Ok(Err(_)) | Err(_) => {
                held = None;
                askers.clear();
            }
        }
    }
    drop(held);
    db.close(limit).await;
}

/// Asks over the connection that is held, or over a new one where that has broken.
async fn flushed(db: &Db, held: &mut Option<Lease>) -> Result<WalPosition, StoreError> {
    if let Some(lease) = held
        && let Ok(position) = ask(lease).await
    {
        return Ok(position);
    }
    *held = None;
    let mut lease = db.across_tenants().await?;
    let position = ask(&mut lease).await?;
    *held = Some(lease);
    Ok(position)
}

async fn ask(lease: &mut Lease) -> Result<WalPosition, StoreError> {
    let position: Option<String> = lease.scalar(sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")).await?;
    position.ok_or(StoreError::Corrupt { what: "log position" })?.parse()
}
