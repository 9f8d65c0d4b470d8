//! The figures a tenant sees first: counts, the latest forecasts, usage of the running period.

use chrono::{DateTime, Utc};
use forecastle_domain::{ForecastId, Period};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::scope::TenantScope;

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

/// What a period has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct PeriodUsage {
    /// Usage events stamped within the period.
    pub forecasts_succeeded: i64,
    /// Requests admitted in the period and not given back.
    pub quota_taken: i64,
}

/// Everything a dashboard counts.
#[derive(Debug, FromRow)]
pub struct Overview {
    /// Scenarios and forecasts.
    #[sqlx(flatten)]
    pub counts: Counts,
    /// Of the period asked for.
    #[sqlx(flatten)]
    pub usage: PeriodUsage,
    /// The latest forecasts, the newest first.
    #[sqlx(json)]
    pub recent: Vec<RecentForecast>,
}

/// Counts, the latest forecasts and a period's usage, in one trip and from one snapshot.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn overview(scope: &TenantScope, period: &Period) -> Result<Overview, StoreError> {
    let statement = "SELECT scenarios, queued, running, succeeded, failed, cancelled, forecasts_succeeded, quota_taken,
                recent
         FROM app.read_dashboard($1, $2, $3, $4, $5)";
    let index = index_of(period)?;
    scope
        .read_one(statement, |query| query.bind(period.start).bind(period.end).bind(index).bind(RECENT_FORECASTS))
        .await
}

/// Usage events and quota of a period, in one trip.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn period_usage(scope: &TenantScope, period: &Period) -> Result<PeriodUsage, StoreError> {
    let statement = "SELECT forecasts_succeeded, quota_taken FROM app.read_period_usage($1, $2, $3, $4)";
    let index = index_of(period)?;
    scope.read_one(statement, |query| query.bind(period.start).bind(period.end).bind(index)).await
}

fn index_of(period: &Period) -> Result<i32, StoreError> {
    i32::try_from(period.index).map_err(|_| StoreError::Corrupt { what: "period index" })
}
