//! Forgets events of forecasts whose time is over, a little at a time.

use std::time::Duration;

use forecastle_store::{Db, events};
use rand::RngExt;

/// Time between two looks, where the last one found less than a batch.
const EVERY: Duration = Duration::from_secs(30);
/// Pause between two batches.
const PAUSE: Duration = Duration::from_millis(100);
/// Most events forgotten by one statement.
const BATCH: u32 = 1_000;

/// Prunes until it is dropped; a database that does not answer is asked again at the next look.
pub(crate) async fn keep(db: Db, kept_for: Duration) {
    let mut wait = EVERY;
    loop {
        let jitter = rand::rng().random_range(0.5..=1.0);
        tokio::time::sleep(wait.mul_f64(jitter)).await;
        wait = match events::prune(&db, kept_for, BATCH).await {
            Ok(gone) if gone >= u64::from(BATCH) => PAUSE,
            Ok(_) => EVERY,
            Err(error) => {
                tracing::debug!(error = %error, "prune events");
                EVERY
            }
        };
    }
}
