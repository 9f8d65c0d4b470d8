//! What machines ask: alive, ready, metrics, the document, the public keys.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, Problem};
use crate::reply::Reply;
use crate::state::AppState;

/// How an instance is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
    /// Whether Redis answers; without it everything works, only slower.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<bool>,
}

/// Does the process run? Touches nothing else.
#[utoipa::path(get, path = "/livez", tag = "machines", responses((status = 200, body = Health)))]
pub(crate) async fn livez() -> Reply {
    Reply::json(StatusCode::OK, &Health { status: "ok", redis: None })
}

/// Does PostgreSQL answer, and may requests be sent here?
#[utoipa::path(get, path = "/readyz", tag = "machines", responses(
    (status = 200, body = Health),
    (status = 503, body = Problem, content_type = "application/problem+json", description = "PostgreSQL does not answer, or the instance is about to end."),
))]
pub(crate) async fn readyz(State(state): State<AppState>) -> Result<Reply, ApiError> {
    if state.is_draining() {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "draining")
            .detail("This instance is about to end; ask another one.")
            .retry_after(std::time::Duration::from_secs(1)));
    }
    let (postgres, redis) = tokio::join!(state.db.ping(), state.cache.ping());
    postgres?;
    Ok(Reply::json(StatusCode::OK, &Health { status: "ok", redis: Some(redis.is_ok()) }))
}

/// Metrics in Prometheus's text format. No tenant and no person is in a label.
#[utoipa::path(get, path = "/metrics", tag = "machines", responses(
    (status = 200, body = String, content_type = "text/plain"),
))]
pub(crate) async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    let pool = state.db.stats();
    metrics::gauge!("forecastle_pool_connections_max").set(pool.max);
    metrics::gauge!("forecastle_pool_connections_open").set(pool.open);
    metrics::gauge!("forecastle_pool_connections_idle").set(pool.idle);
    metrics::gauge!("forecastle_pool_connections_in_use").set(pool.open.saturating_sub(pool.idle));
    for replica in state.reads.replicas() {
        let in_use = replica.pool.open.saturating_sub(replica.pool.idle);
        metrics::gauge!("forecastle_replica_usable", "replica" => replica.name.clone()).set(u32::from(replica.usable));
        metrics::gauge!("forecastle_replica_lag_bytes", "replica" => replica.name.clone())
            .set(replica.lag_bytes as f64);
        metrics::gauge!("forecastle_replica_connections_max", "replica" => replica.name.clone()).set(replica.pool.max);
        metrics::gauge!("forecastle_replica_connections_in_use", "replica" => replica.name).set(in_use);
    }
    forecastle_telemetry::tell_time();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], state.metrics.render())
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "machines", responses(
    (status = 200, body = Object, content_type = "application/json"),
))]
pub(crate) async fn openapi() -> impl IntoResponse {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(crate::openapi::openapi()));
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}

/// Public keys of access tokens (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "machines", responses(
    (status = 200, body = Object, content_type = "application/json"),
))]
pub(crate) async fn jwks(State(state): State<AppState>) -> impl IntoResponse {
    Json(state.config.keys.current().public_jwks())
}
