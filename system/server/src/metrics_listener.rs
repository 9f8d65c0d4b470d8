//! Prometheus metrics of a process that has no HTTP interface of its own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Pause between two tidyings of the recorder, which keeps every sample of a histogram until one.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the recorder and answers `GET /metrics` and `GET /livez` on `listen` in the background; the
/// address it really listens on.
pub(crate) async fn start(listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    start_with(listen, recorder()?, Router::new()).await
}

/// Installs the recorder of this process and keeps it tidy; needs a runtime.
pub(crate) fn recorder() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new().install_recorder().context("install metrics recorder")?;
    let upkept = handle.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP_EVERY);
        loop {
            ticks.tick().await;
            upkept.run_upkeep();
        }
    });
    Ok(handle)
}

/// As [`start`], with an installed recorder and further routes.
pub(crate) async fn start_with(
    listen: SocketAddr,
    handle: PrometheusHandle,
    routes: Router,
) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(listen).await.context("bind metrics listener")?;
    let address = listener.local_addr().context("read metrics address")?;
    let metrics = move || {
        forecastle_telemetry::tell_time();
        std::future::ready(handle.render())
    };
    let app = routes.route("/livez", get(|| async { "alive\n" })).route("/metrics", get(metrics));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(error = %error, "serve metrics");
        }
    });
    Ok(address)
}
