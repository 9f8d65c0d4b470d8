//! Keeps a lease while the computation runs, on a task of its own, never on the computing thread, and
//! tells on the way how far it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_store::jobs::{self, Claim, Settled};
use forecastle_store::{Db, StoreError};

use crate::lease::LeaseState;

/// How often to beat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rhythm {
    /// Between two beats.
    pub(crate) every: Duration,
    /// Between two beats that tell progress, where there was any.
    pub(crate) progress_every: Duration,
    /// What a beat extends the lease by.
    pub(crate) lease: Duration,
}

/// Beats until the lease is lost; the caller aborts it when the job is settled. Where the database does
/// not answer for a whole lease, another worker may have the job: that counts as lost too. And one lease
/// after the deadline it ends, so that a computation that heeds no stop cannot keep its job for ever.
pub(crate) async fn keep(db: Db, claim: Claim, state: Arc<LeaseState>, rhythm: Rhythm) {
    let started = Instant::now();
    let mut held_until = started + rhythm.lease;
    let (mut next_beat, mut next_progress) = (started + rhythm.every, started + rhythm.progress_every);
    let mut told = 0;
    loop {
        tokio::time::sleep_until(next_beat.min(next_progress).into()).await;
        let asked_at = Instant::now();
        let percent = state.percent();
        let tells = asked_at >= next_progress && percent > told;
        if asked_at >= next_progress {
            next_progress = asked_at + rhythm.progress_every;
        }
        if tells || asked_at >= next_beat {
            let rest = held_until.saturating_duration_since(asked_at);
            let beat = beat(&db, &claim, &state, rhythm.lease, tells.then_some(percent));
            match tokio::time::timeout(rest, beat).await {
                // Counted from before the question, so that it never outlasts the server's own count.
                Ok(Ok(Settled::Done)) => {
                    held_until = asked_at + rhythm.lease;
                    told = if tells { percent } else { told };
                }
                Ok(Ok(Settled::LeaseLost)) => break,
                Ok(Err(error)) => tracing::debug!(error = %error, "heartbeat failed"),
                Err(_) => {}
            }
            next_beat = Instant::now() + rhythm.every;
        }
        if Instant::now() >= held_until.min(state.deadline() + rhythm.lease) {
            break;
        }
    }
    state.lose();
}

async fn beat(
    db: &Db,
    claim: &Claim,
    state: &LeaseState,
    lease: Duration,
    percent: Option<u8>,
) -> Result<Settled, StoreError> {
    let Some(percent) = percent else {
        return jobs::heartbeat(db, claim, lease, None).await;
    };
    // Held until it is committed: the job's end waits for it, and comes after it in every order.
    let telling = state.telling().lock().await;
    jobs::heartbeat(db, claim, lease, telling.then_some(percent)).await
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
        let rhythm = Rhythm {
            every: Duration::from_millis(50),
            progress_every: Duration::from_millis(20),
            lease: Duration::from_secs(1),
        };
        state.set_percent(40);
        let beating = keep(db, job.claim, Arc::clone(&state), rhythm);
        tokio::time::timeout(Duration::from_secs(15), beating).await.expect("it ends by itself");
        assert!(state.is_lost());
        let told = "SELECT count(*) FROM app.forecast_events WHERE state = 'running' AND percent = 40";
        assert_eq!(customers::count(&mut admin, told).await, 1, "the same percentage is told once");
    }
}
