//! Keeps a lease while the computation runs, on a task of its own, never on the computing thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_store::Db;
use forecastle_store::jobs::{self, Claim, Settled};

use crate::lease::LeaseState;

/// Beats until the lease is lost; the caller aborts it when the job is settled. Where the database does
/// not answer for a whole lease, another worker may have the job: that counts as lost too.
pub(crate) async fn keep(db: Db, claim: Claim, state: Arc<LeaseState>, every: Duration, lease: Duration) {
    let mut held_until = Instant::now() + lease;
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked_at = Instant::now();
        let rest = held_until.saturating_duration_since(asked_at);
        match tokio::time::timeout(rest, jobs::heartbeat(&db, &claim, lease)).await {
            // Counted from before the question, so that it never outlasts the server's own count.
            Ok(Ok(Settled::Done)) => held_until = asked_at + lease,
            Ok(Ok(Settled::LeaseLost)) => break,
            Ok(Err(error)) => tracing::debug!(error = %error, "heartbeat failed"),
            Err(_) => {}
        }
        if Instant::now() >= held_until {
            break;
        }
    }
    state.lose();
}
