//! The dashboard: what a tenant sees first.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use forecastle_store::dashboard::{self, Overview};
use forecastle_store::{CacheKey, StoreError, TenantScope, identity};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::answers::Usage;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;
use crate::wanted::Found;

/// A tenant at a glance.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Dashboard {
    organization: String,
    #[schema(example = "FREE")]
    plan: String,
    /// How many there are.
    scenarios: i64,
    forecasts: ForecastCounts,
    /// The latest ten, the newest first.
    recent_forecasts: Vec<RecentForecast>,
    usage: Usage,
}

/// Forecasts by state.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ForecastCounts {
    queued: i64,
    running: i64,
    succeeded: i64,
    failed: i64,
    cancelled: i64,
}

/// One of the latest forecasts.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct RecentForecast {
    id: Uuid,
    /// As the scenario is called now.
    scenario_name: String,
    state: String,
    requested_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

/// Read the dashboard.
#[utoipa::path(get, path = "/v1/dashboard", tag = "dashboard", responses((status = 200, body = Dashboard)))]
pub(crate) async fn read(
    State(state): State<AppState>,
    caller: Caller,
    Found(found): Found,
) -> Result<Reply, ApiError> {
    let key = CacheKey::dashboard(caller.tenant);
    let load = state.reads.read(caller.tenant, |scope| Box::pin(load(scope)));
    let found: Result<Dashboard, StoreError> =
        state.cache.peeked_or_load(found, &key, state.config.cache_ttl, load, |_| true).await;
    let mut dashboard = found?;
    if dashboard.usage.is_over(Utc::now()) {
        // Kept since before the period turned: its usage is the last period's.
        dashboard = self::load(&state.db.tenant(caller.tenant)).await?;
    }
    Ok(Reply::json(StatusCode::OK, &dashboard))
}

async fn load(scope: &TenantScope) -> Result<Dashboard, StoreError> {
    let terms = identity::terms(scope).await?;
    let Overview { counts, usage, recent } = dashboard::overview(scope, &terms.period).await?;
    let recent_forecasts = recent.into_iter().map(|forecast| RecentForecast {
        id: forecast.id().as_uuid(),
        scenario_name: forecast.scenario_name,
        state: forecast.state,
        requested_at: forecast.requested_at,
        finished_at: forecast.finished_at,
    });
    Ok(Dashboard {
        organization: terms.organization.clone(),
        plan: terms.plan.to_string(),
        scenarios: counts.scenarios,
        forecasts: ForecastCounts {
            queued: counts.queued,
            running: counts.running,
            succeeded: counts.succeeded,
            failed: counts.failed,
            cancelled: counts.cancelled,
        },
        recent_forecasts: recent_forecasts.collect(),
        usage: Usage::of(&terms, usage),
    })
}
