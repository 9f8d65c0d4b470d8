//! The figures a tenant sees first: counts, the latest forecasts, usage of the running period.

use chrono::{DateTime, Utc};
use forecastle_domain::{ForecastId, Period};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::scope::TenantTx;

/// How many forecasts a dashboard shows.
pub const RECENT_FORECASTS: i64 = 10;

/// How many of each there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct Counts {
    /// Stored scenarios.
    pub scenarios: i64,
    /// Forecasts waiting.
    pub queued: i64,
    /// Forecasts being computed.
    pub running: i64,
    /// Forecasts with a result.
    pub succeeded: i64,
    /// Forecasts that ended without one.
    pub failed: i64,
    /// Forecasts withdrawn.
    pub cancelled: i64,
}

/// Counts scenarios, and forecasts by state, in one statement.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn counts(tx: &mut TenantTx) -> Result<Counts, StoreError> {
    let query = sqlx::query_as(
        "SELECT (SELECT count(*) FROM app.scenarios WHERE tenant_id = $1) AS scenarios,
                count(*) FILTER (WHERE state = 'queued') AS queued,
                count(*) FILTER (WHERE state = 'running') AS running,
                count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
                count(*) FILTER (WHERE state = 'failed') AS failed,
                count(*) FILTER (WHERE state = 'cancelled') AS cancelled
         FROM app.forecasts WHERE tenant_id = $1",
    );
    let tenant = tx.tenant_id().as_uuid();
    tx.one(query.bind(tenant)).await
}

/// One of the latest forecasts.
#[derive(Debug, Clone, Serialize, Deserialize, FromRow)]
pub struct RecentForecast {
    forecast_id: Uuid,
    /// Of the scenario, as it is called now.
    pub scenario_name: String,
    /// As stored.
    pub state: String,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl RecentForecast {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> ForecastId {
        self.forecast_id.into()
    }
}

/// The latest forecasts, the newest first.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn recent_forecasts(tx: &mut TenantTx) -> Result<Vec<RecentForecast>, StoreError> {
    let query = sqlx::query_as(
        "SELECT f.forecast_id, s.name AS scenario_name, f.state, f.requested_at, f.finished_at
         FROM app.forecasts f JOIN app.scenarios s USING (tenant_id, scenario_id)
         WHERE f.tenant_id = $1 ORDER BY f.requested_at DESC, f.forecast_id DESC LIMIT $2",
    );
    let tenant = tx.tenant_id().as_uuid();
    tx.all(query.bind(tenant).bind(RECENT_FORECASTS)).await
}

/// What a period has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct PeriodUsage {
    /// Usage events stamped within the period.
    pub forecasts_succeeded: i64,
    /// Requests admitted in the period and not given back.
    pub quota_taken: i64,
}

/// Usage events and quota of a period, in one statement.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn period_usage(tx: &mut TenantTx, period: &Period) -> Result<PeriodUsage, StoreError> {
    let query = sqlx::query_as(
        "SELECT (SELECT count(*) FROM app.usage_events
                 WHERE tenant_id = $1 AND occurred_at >= $2 AND occurred_at < $3) AS forecasts_succeeded,
                coalesce((SELECT taken FROM app.quota_periods WHERE tenant_id = $1 AND period_index = $4), 0)::bigint
                    AS quota_taken",
    );
    let tenant = tx.tenant_id().as_uuid();
    let index = i32::try_from(period.index).map_err(|_| StoreError::Corrupt { what: "period index" })?;
    tx.one(query.bind(tenant).bind(period.start).bind(period.end).bind(index)).await
}
