//! Keeps a lease while the computation runs, on a task of its own, never on the computing thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_store::Db;
use forecastle_store::jobs::{self, Claim, Settled};

use crate::lease::LeaseState;

/// Beats until the lease is lost; the caller aborts it when the job is settled. Where the database does
/// not answer for a whole lease, another worker may have the job: that counts as lost too. And one lease
/// after the deadline it ends, so that a computation that heeds no stop cannot keep its job for ever.
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
        if Instant::now() >= held_until.min(state.deadline() + lease) {
            break;
        }
    }
    state.lose();
}

#[cfg(test)]
mod tests {
    use forecastle_store::DbOptions;
    use forecastle_store::jobs::{ClaimTerms, KIND_FORECAST};
    use forecastle_store::migrate::{RolePasswords, migrate};
    use forecastle_testbed::{Postgres, customers};

    use super::*;

    #[tokio::test]
    async fn beating_ends_after_the_deadline_even_if_the_computation_does_not() {
        let postgres = Postgres::start();
        migrate(&postgres.admin_url(), &RolePasswords::default()).await.unwrap();
        let mut admin = customers::connect(&postgres.admin_url()).await;
        let customer = customers::sign_up(&mut admin, "PRO", "USD", "2026-01-01").await;
        customers::queue_forecast(&mut admin, &customer, &customers::scenario_input()).await;
        let db = Db::open(DbOptions::new(postgres.url_of("forecastle_app"), "heartbeat-test")).unwrap();
        let terms = ClaimTerms { lease: Duration::from_secs(30), deadline: Duration::from_secs(30) };
        let job = jobs::claim(&db, "w", 1, terms, &[KIND_FORECAST]).await.unwrap().jobs.remove(0);

        let state = Arc::new(LeaseState::until(Instant::now()));
        let beating = keep(db, job.claim, Arc::clone(&state), Duration::from_millis(50), Duration::from_secs(1));
        tokio::time::timeout(Duration::from_secs(15), beating).await.expect("it ends by itself");
        assert!(state.is_lost());
    }
}
