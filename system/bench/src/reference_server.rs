//! The reference of the read rows: an axum handler with the same query by key and nothing around it. No
//! authentication, no session, no row-level security, no limits, no headers of ours, no metrics.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::{Json, Router, routing};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::FromRow;
use sqlx::postgres::{PgPool, PgPoolOptions};
use uuid::Uuid;

/// Names the row's tenant, since nobody is signed in.
pub(crate) const TENANT_HEADER: &str = "x-tenant";

/// The same fields, and its JSON passed on unread, as the measured handler does.
#[derive(Serialize, FromRow)]
struct Scenario {
    scenario_id: Uuid,
    name: String,
    notes: Option<String>,
    #[sqlx(json)]
    input: Box<RawValue>,
    version: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// Listens on a free port, prints `{"address": …}`, and serves.
pub(crate) async fn serve(database_url: &str) -> anyhow::Result<()> {
    // As large as the measured one's, and without the driver's question before each use.
    let pool = PgPoolOptions::new()
        .max_connections(50)
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(2))
        .connect(database_url)
        .await
        .context("connect")?;
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.context("bind")?;
    println!("{}", serde_json::json!({ "address": listener.local_addr()?.to_string() }));
    let router = Router::new().route("/v1/scenarios/{id}", routing::get(read)).with_state(pool);
    axum::serve(listener, router).await.context("serve")
}

async fn read(State(pool): State<PgPool>, Path(id): Path<Uuid>, headers: HeaderMap) -> impl IntoResponse {
    let tenant = headers.get(TENANT_HEADER).and_then(|value| value.to_str().ok()?.parse::<Uuid>().ok());
    let query = sqlx::query_as::<_, Scenario>(
        "SELECT scenario_id, name, notes, input, version, created_at, updated_at
         FROM app.scenarios WHERE tenant_id = $1 AND scenario_id = $2",
    );
    match query.bind(tenant).bind(id).fetch_optional(&pool).await {
        Ok(Some(scenario)) => Json(scenario).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
