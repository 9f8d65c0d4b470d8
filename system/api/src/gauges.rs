//! What an instance says about the things it stands on, measured in the background and not when asked:
//! a scrape takes no connection and waits for nobody.

use std::time::Duration;

use forecastle_store::backlog::backlog;
use forecastle_store::{Cache, Db};

/// Measures for ever, once in each `every`; a server that does not answer keeps its last figures, but for
/// its own gauge.
pub(crate) async fn keep(db: Db, cache: Cache, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (counted, redis) = tokio::join!(backlog(&db), cache.ping());
        if let Ok(counted) = &counted {
            counted.publish();
        }
        metrics::gauge!("forecastle_postgres_up").set(f64::from(u8::from(counted.is_ok())));
        metrics::gauge!("forecastle_redis_up").set(f64::from(u8::from(redis.is_ok())));
    }
}
