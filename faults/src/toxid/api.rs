//! Routes of the HTTP API.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{
    api_error::{ApiError, plain},
    registry::{ProxyRequest, Registry, ToxicRequest},
};

/// The release whose API this is.
const VERSION: &str = "2.12.0";

pub(super) type Shared = Arc<Mutex<Registry>>;

pub(super) fn router(registry: Shared) -> Router {
    Router::new()
        .route("/version", get(version))
        .route("/reset", post(reset))
        .route("/populate", post(populate))
        .route("/proxies", get(list_proxies).post(create_proxy))
        .route("/proxies/{proxy}", get(show_proxy).post(update_proxy).patch(update_proxy).delete(delete_proxy))
        .route("/proxies/{proxy}/toxics", get(list_toxics).post(add_toxic))
        .route(
            "/proxies/{proxy}/toxics/{toxic}",
            get(show_toxic).post(update_toxic).patch(update_toxic).delete(remove_toxic),
        )
        .layer(middleware::from_fn(refuse_browsers))
        .with_state(registry)
}

/// A page in a browser on this machine must not be able to drive the proxies.
async fn refuse_browsers(request: Request, next: Next) -> Response {
    let browser =
        request.headers().get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"));
    if browser { ApiError::Browser.into_response() } else { next.run(request).await }
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
            plain(error.status(), &answer)
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

/// Bodies count as JSON whatever their content type says, as the official server takes them.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::BadBody(error.to_string()))
}
