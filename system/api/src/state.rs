//! What every handler shares: configuration and the handles to everything outside the process.

use std::sync::Arc;

use forecastle_store::{Cache, Db, Reads};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::config::ApiConfig;
use crate::passwords::Passwords;
use crate::rate_limit::RateLimiter;
use crate::routes::calculators::Turns;
use crate::streams::{Feeds, Slots, Standings};

/// Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    shared: Arc<Shared>,
}

/// Reached through [`AppState`]'s dereference.
pub struct Shared {
    pub(crate) config: ApiConfig,
    pub(crate) db: Db,
    /// What may be answered by a replica. Never what decides who may do what.
    pub(crate) reads: Reads,
    pub(crate) cache: Cache,
    pub(crate) passwords: Passwords,
    pub(crate) limiter: RateLimiter,
    pub(crate) calculations: Turns,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) feeds: Feeds,
    pub(crate) slots: Slots,
    /// Whether the sessions of open streams stand.
    pub(crate) standings: Standings,
    /// The instance takes nothing new, and what has no end of its own ends.
    pub(crate) draining: CancellationToken,
    /// The instance will drain in a moment, and says so to whoever distributes requests.
    pub(crate) leaving: CancellationToken,
}

impl AppState {
    /// Inside a runtime: it begins to listen for events.
    pub(crate) fn new(config: ApiConfig, db: Db, reads: Reads, cache: Cache, metrics: PrometheusHandle) -> Self {
        let passwords = Passwords::new(
            config.password_hashes_max,
            config.password_waiters_max,
            config.password_wait,
            config.password_memory_kib,
            config.password_passes,
        );
        let limiter = RateLimiter::new(cache.clone(), config.limits);
        let calculations = Turns::new(config.calculations_max);
        let streams = config.streams;
        let feeds = Feeds::new(db.clone(), streams.poll, streams.listen_keep_alive);
        let slots = Slots::new(streams.of_user_max, streams.max);
        let (draining, leaving) = (CancellationToken::new(), CancellationToken::new());
        let shared = Shared {
            config,
            db,
            reads,
            cache,
            passwords,
            limiter,
            calculations,
            metrics,
            feeds,
            slots,
            standings: Standings::default(),
            draining,
            leaving,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether the instance is about to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.leaving.is_cancelled()
    }
}

impl std::ops::Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}
