//! One instance of the interface, from its listener to the end of its drain.

use std::time::Duration;

use forecastle_store::{Cache, CacheUnavailable, Db, Reads, StoreError};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::ApiConfig;
use crate::connections::serve_connections;
use crate::gauges;
use crate::router::router;
use crate::state::AppState;

/// Upper bounds of the latency histogram's buckets, seconds.
const LATENCY_BUCKETS_S: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 10.0];
/// Pause between two tidyings of the metrics recorder.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Connections to the primary beside the pool: one on which events are heard, one that keeps the trust in the
/// cache. With replicas there is a further one, on which the primary is asked how far its log reaches.
const CONNECTIONS_BESIDE_POOL: u32 = 2;
/// Longest time the last analytics events may take at the end.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Why an instance did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database's address, or a replica's, does not parse.
    #[error("open database pool: {0}")]
    Database(#[from] StoreError),
    /// Redis's address does not parse.
    #[error("open cache: {0}")]
    Cache(#[from] CacheUnavailable),
    /// No metrics recorder was given and another one is installed.
    #[error("install metrics recorder: {0}")]
    Metrics(#[from] BuildError),
}

/// Answers on `listener` until `shutdown` resolves. Then `/readyz` says 503 and every answer asks its
/// connection to close, while new requests are still taken for the drain's delay, so that whoever
/// distributes them can look elsewhere. Then it takes no new connection, finishes what is under way
/// within the configured limit, and returns.
///
/// Neither PostgreSQL nor Redis has to answer for an instance to start.
///
/// # Errors
/// What kept it from starting.
pub async fn serve(
    config: ApiConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let db = Db::open(config.db.clone().sparing(CONNECTIONS_BESIDE_POOL))?;
    let reads = Reads::open(db.clone(), &config.replicas)?;
    let cache = Cache::open_shared(&config.cache, &db, config.cache_trust)?;
    let metrics = match config.metrics.clone() {
        Some(handle) => handle,
        None => PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS_S)?
            .install_recorder()?,
    };
    let (drain_delay, drain_timeout, analytics) = (config.drain_delay, config.drain_timeout, config.analytics.clone());
    let (connections, header_bytes_max) = (config.connections, config.header_bytes_max);
    let upkeep = tokio::spawn({
        let metrics = metrics.clone();
        async move {
            let mut ticks = tokio::time::interval(METRICS_UPKEEP_EVERY);
            loop {
                ticks.tick().await;
                metrics.run_upkeep();
            }
        }
    });

    let gauges = tokio::spawn(gauges::keep(db.clone(), cache.clone(), config.gauges_every));
    let state = AppState::new(config, db.clone(), reads.clone(), cache, metrics);
    let (leaving, streams_end) = (state.leaving.clone(), state.draining.clone());
    let app = router(state);
    let closing = CancellationToken::new();
    let announced = closing.clone();
    tokio::spawn(async move {
        shutdown.await;
        tracing::info!("draining");
        leaving.cancel();
        tokio::time::sleep(drain_delay).await;
        streams_end.cancel();
        announced.cancel();
    });
    let drained_in_time = async {
        closing.cancelled().await;
        tokio::time::sleep(drain_timeout).await;
    };
    tokio::select! {
        () = serve_connections(listener, app, connections, header_bytes_max, closing.clone()) => {}
        () = drained_in_time => tracing::warn!("drain took too long; connections dropped"),
    }
    upkeep.abort();
    gauges.abort();
    tokio::join!(db.close(drain_timeout), reads.close(drain_timeout));
    if let Some(analytics) = analytics {
        analytics.flush(FLUSH_MAX).await;
    }
    Ok(())
}
