//! What a worker process can be told.

use std::time::Duration;

use forecastle_store::{CacheOptions, DbOptions};

/// Settings of one worker process.
#[derive(Clone)]
pub struct WorkerConfig {
    /// How to reach PostgreSQL; one of the connections is for listening.
    pub db: DbOptions,
    /// How to reach Redis.
    pub cache: CacheOptions,
    /// Name of this process, the first part of the worker's name on its claims.
    pub instance: String,
    /// Jobs computed at once.
    pub concurrency: u32,
    /// How long a claim holds without a heartbeat.
    pub lease: Duration,
    /// Time between heartbeats; a third of the lease or less.
    pub heartbeat: Duration,
    /// Shortest time between two signs of progress of one job.
    pub progress: Duration,
    /// Longest time between two looks at the queue while a slot is free.
    pub poll: Duration,
    /// Silence after which the listening link is asked whether it still stands.
    pub listen_keep_alive: Duration,
    /// How long events of forecasts are kept.
    pub events_kept: Duration,
    /// How long after its first claim a job may be worked on.
    pub deadline: Duration,
    /// Back-off before the second attempt, doubling from there, ms.
    pub backoff_base_ms: u64,
    /// Longest back-off, ms.
    pub backoff_cap_ms: u64,
    /// How long a drain waits for running jobs before it gives them back to the queue.
    pub drain: Duration,
}

impl WorkerConfig {
    /// The documented defaults, with the given servers; four jobs at once, on nine connections.
    #[must_use]
    pub fn new(db: DbOptions, cache: CacheOptions, instance: impl Into<String>) -> Self {
        Self {
            db: DbOptions { max_connections: 9, ..db },
            cache,
            instance: instance.into(),
            concurrency: 4,
            lease: Duration::from_secs(10),
            heartbeat: Duration::from_secs(2),
            progress: Duration::from_millis(500),
            poll: Duration::from_millis(500),
            listen_keep_alive: Duration::from_secs(5),
            events_kept: Duration::from_secs(3_600),
            deadline: Duration::from_secs(300),
            backoff_base_ms: 500,
            backoff_cap_ms: 30_000,
            drain: Duration::from_secs(30),
        }
    }
}
