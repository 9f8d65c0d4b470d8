//! Routes of the HTTP API.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{
    api_error::{ApiError, plain},
    metrics::{Metrics, runtime_text},
    registry::Registry,
    request::{ProxyRequest, ToxicRequest, read},
    server::ToxidOptions,
};

/// The release whose API this is.
const VERSION: &str = "2.12.0";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-toxiproxy-request-id");

pub(super) type Shared = Arc<Mutex<Registry>>;

pub(super) fn router(registry: Shared, options: ToxidOptions, metrics: Metrics) -> Router {
    let mut router = Router::new()
        .route("/version", get(version))
        .route("/reset", post(reset))
        .route("/populate", post(populate))
        .route("/proxies", get(list_proxies).post(create_proxy))
        .route("/proxies/{proxy}", get(show_proxy).post(update_proxy).patch(update_proxy).delete(delete_proxy))
        .route("/proxies/{proxy}/toxics", get(list_toxics).post(add_toxic))
        .route(
            "/proxies/{proxy}/toxics/{toxic}",
            get(show_toxic).post(update_toxic).patch(update_toxic).delete(remove_toxic),
        );
    if options.proxy_metrics || options.runtime_metrics {
        router = router.route("/metrics", get(async move || show_metrics(options, &metrics)));
    }
    let limit = Duration::from_millis(options.handler_ms_max);
    router
        .fallback(async || plain(StatusCode::NOT_FOUND, "404 page not found"))
        .layer(middleware::from_fn(move |request, next| finish_in_time(request, next, limit)))
        .layer(middleware::from_fn(refuse_browsers))
        .layer(middleware::from_fn(name_request))
        .with_state(registry)
}

/// Each answer names its request, for whoever compares logs.
async fn name_request(request: Request, next: Next) -> Response {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = format!("{:012x}{:08x}", since_epoch.as_millis(), COUNT.fetch_add(1, Ordering::Relaxed));
    tracing::debug!(id, method = %request.method(), uri = %request.uri(), "request");
    let mut response = next.run(request).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// A page in a browser on this machine must not be able to drive the proxies.
async fn refuse_browsers(request: Request, next: Next) -> Response {
    let browser =
        request.headers().get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"));
    if browser { plain(StatusCode::FORBIDDEN, "User agent not allowed") } else { next.run(request).await }
}

/// Whoever asks waits no longer than the limit. What was begun goes on, then and when the client
/// hangs up, so that no change is left half done.
async fn finish_in_time(request: Request, next: Next, limit: Duration) -> Response {
    match tokio::time::timeout(limit, tokio::spawn(next.run(request))).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the request took too long"),
    }
}

fn show_metrics(options: ToxidOptions, metrics: &Metrics) -> Response {
    let mut text = String::new();
    if options.proxy_metrics {
        text.push_str(&metrics.proxy_text());
    }
    if options.runtime_metrics {
        text.push_str(&runtime_text());
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn version() -> Response {
    ([(header::CONTENT_TYPE, "application/json;charset=utf-8")], format!("{{\"version\": \"{VERSION}\"}}\n"))
        .into_response()
}

async fn reset(State(registry): State<Shared>) -> Result<StatusCode, ApiError> {
    registry.lock().await.reset().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn populate(State(registry): State<Shared>, body: Bytes) -> Result<Response, ApiError> {
    let requests: Vec<ProxyRequest> = read(&body)?;
    let outcome = registry.lock().await.populate(requests).await;
    Ok(match outcome {
        Ok(proxies) => (StatusCode::CREATED, Json(json!({ "proxies": proxies }))).into_response(),
        Err((error, proxies)) => {
            let mut answer = error.body();
            answer["proxies"] = proxies.into();
            (error.status(), Json(answer)).into_response()
        }
    })
}

async fn list_proxies(State(registry): State<Shared>) -> Json<Value> {
    Json(Value::Object(registry.lock().await.list()))
}

async fn create_proxy(State(registry): State<Shared>, body: Bytes) -> Result<(StatusCode, Json<Value>), ApiError> {
    let proxy = registry.lock().await.create(read(&body)?).await?;
    Ok((StatusCode::CREATED, Json(proxy)))
}

async fn show_proxy(State(registry): State<Shared>, Path(proxy): Path<String>) -> Result<Json<Value>, ApiError> {
    registry.lock().await.show(&proxy).map(Json)
}

async fn update_proxy(
    State(registry): State<Shared>,
    Path(proxy): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let mut registry = registry.lock().await;
    // A missing proxy is told before a bad body.
    registry.show(&proxy)?;
    registry.update(&proxy, read(&body)?).await.map(Json)
}

async fn delete_proxy(State(registry): State<Shared>, Path(proxy): Path<String>) -> Result<StatusCode, ApiError> {
    registry.lock().await.delete(&proxy).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_toxics(State(registry): State<Shared>, Path(proxy): Path<String>) -> Result<Json<Vec<Value>>, ApiError> {
    registry.lock().await.list_toxics(&proxy).map(Json)
}

async fn add_toxic(
    State(registry): State<Shared>,
    Path(proxy): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let registry = registry.lock().await;
    registry.show(&proxy)?;
    registry.add_toxic(&proxy, read(&body)?).await.map(Json)
}

async fn show_toxic(
    State(registry): State<Shared>,
    Path((proxy, toxic)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    registry.lock().await.show_toxic(&proxy, &toxic).map(Json)
}

async fn update_toxic(
    State(registry): State<Shared>,
    Path((proxy, toxic)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let registry = registry.lock().await;
    registry.show_toxic(&proxy, &toxic)?;
    let request: ToxicRequest = read(&body)?;
    registry.update_toxic(&proxy, &toxic, request).await.map(Json)
}

async fn remove_toxic(
    State(registry): State<Shared>,
    Path((proxy, toxic)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    registry.lock().await.remove_toxic(&proxy, &toxic).await?;
    Ok(StatusCode::NO_CONTENT)
}
