//! Forecasts as their tenant asks for them and reads them. Computing them is the worker's business.
//!
//! Law: the quota is taken, the forecast stored and its job queued in one transaction, or none of it.

use chrono::{DateTime, Utc};
use forecastle_domain::{Flag, ForecastId, Plan, ScenarioId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::FromRow;
use sqlx::types::Json;
use uuid::Uuid;

use crate::error::StoreError;
use crate::paging::{Page, PageKey};
use crate::scope::{TenantScope, TenantTx};
use crate::{flags, identity, jobs, scenarios};

/// A forecast with its input and, once it succeeded, its result.
#[derive(Debug, Clone, Serialize, Deserialize, FromRow)]
pub struct Forecast {
    /// All but input and result.
    #[sqlx(flatten)]
    pub summary: ForecastSummary,
    /// The scenario as it was when asked: its JSON, which is passed on without being read.
    #[sqlx(json)]
    pub input: Box<RawValue>,
    /// Of a forecast that succeeded; likewise.
    #[sqlx(json(nullable))]
    pub result: Option<Box<RawValue>>,
}

/// A forecast in a list: all but its input and result.
#[derive(Debug, Clone, Serialize, Deserialize, FromRow)]
pub struct ForecastSummary {
    pub(crate) forecast_id: Uuid,
    pub(crate) scenario_id: Uuid,
    /// The scenario's version when asked.
    pub scenario_version: i32,
    /// As stored: queued, running, succeeded, failed or cancelled.
    pub state: String,
    /// Times a worker has claimed it.
    pub attempts: i32,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
    /// When it was first claimed.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// What computed the result.
    pub engine_version: Option<String>,
    /// Lower-case hex SHA-256 of canonical engine version, input and result.
    pub result_hash: Option<String>,
    /// Why it failed.
    pub error_code: Option<String>,
}

impl ForecastSummary {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> ForecastId {
        self.forecast_id.into()
    }

    /// The scenario it was made from.
    #[must_use]
    pub fn scenario_id(&self) -> ScenarioId {
        self.scenario_id.into()
    }

    /// Whether it will never change again.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.finished_at.is_some()
    }
}

/// What became of a request.
#[derive(Debug)]
pub enum Requested {
    /// Queued; commits with the transaction.
    Forecast(Box<Forecast>),
    /// No such scenario of this tenant.
    NoScenario,
    /// The scenario needs what is switched off for this tenant.
    SwitchedOff(Flag),
    /// The plan's hard cap for this period is reached.
    QuotaExceeded {
        /// The plan in force.
        plan: Plan,
        /// Its cap.
        cap: u32,
    },
}

/// Takes quota, stores the forecast with a copy of the scenario's input, and queues its job.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn request(
    tx: &mut TenantTx,
    id: ForecastId,
    scenario: ScenarioId,
    user: UserId,
) -> Result<Requested, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let Some(scenario) = scenarios::read_in(tx, scenario).await? else { return Ok(Requested::NoScenario) };
    let period = match admit(tx, scenario.input.get()).await? {
        Ok(period) => period,
        Err(refused) => return Ok(refused),
    };
    let query = sqlx::query_as(
        "WITH asked AS (
             INSERT INTO app.forecasts (tenant_id, forecast_id, scenario_id, scenario_version, requested_by, input,
                                        state, requested_at, quota_period, quota_state)
             VALUES ($1, $2, $3, $4, $5, $6, 'queued', now(), $7, 'held')
             RETURNING forecast_id, scenario_id, scenario_version, state, requested_at),
         queued AS (
             INSERT INTO app.jobs (tenant_id, job_id, kind, subject_id, state, ready_at, enqueued_at)
             VALUES ($1, $2, $8, $2, 'queued', now(), now())
             RETURNING attempts, pg_notify($9, ''))
         SELECT forecast_id, scenario_id, scenario_version, state, attempts, requested_at,
                NULL::timestamptz AS started_at, NULL::timestamptz AS finished_at, NULL::text AS engine_version,
                NULL::text AS result_hash, NULL::text AS error_code
         FROM asked, queued",
    );
    let query = query
        .bind(tenant)
        .bind(id.as_uuid())
        .bind(scenario.id().as_uuid())
        .bind(scenario.version)
        .bind(user.as_uuid())
        .bind(Json(&scenario.input))
        .bind(period)
        .bind(jobs::KIND_FORECAST)
        .bind(jobs::CHANNEL);
    // Without its input: that was read above, and is kilobytes.
    let summary = tx.one(query).await?;
    Ok(Requested::Forecast(Box::new(Forecast { summary, input: scenario.input, result: None })))
}

/// Takes quota for one more forecast of this input, as far as plan and switches allow it at this moment: the
/// period it is counted in, or the refusal. Whoever makes a forecast, the first time or again, asks here.
pub(crate) async fn admit(tx: &mut TenantTx, input: &str) -> Result<Result<i32, Requested>, StoreError> {
    let terms = identity::terms_in(tx).await?;
    // Asked only where a switch matters, and then in this transaction: what it says is what holds.
    if is_simulated(input) && !flags::entitlements(tx, terms.plan).await?.allow(Flag::Uncertainty) {
        return Ok(Err(Requested::SwitchedOff(Flag::Uncertainty)));
    }
    let period = i32::try_from(terms.period.index).map_err(|_| StoreError::Corrupt { what: "period index" })?;
    let cap = terms.plan.included_forecasts();
    let admitted = take_quota(tx, period, Some(cap)).await?
        // Beyond the included ones each is charged: only what plan and switch both allow.
        || flags::entitlements(tx, terms.plan).await?.allow(Flag::Overage) && take_quota(tx, period, None).await?;
    if !admitted {
        return Ok(Err(Requested::QuotaExceeded { plan: terms.plan, cap }));
    }
    Ok(Ok(period))
}

/// Whether an input asks for simulated paths; one that does not read is taken to.
pub(crate) fn is_simulated(input: &str) -> bool {
    #[derive(Deserialize)]
    struct Block {
        uncertainty: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Block>(input).map_or(true, |input| input.uncertainty.is_some())
}

/// Counts one more request in a period, unless the cap is reached: check and count are one statement.
async fn take_quota(tx: &mut TenantTx, period: i32, cap: Option<u32>) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "INSERT INTO app.quota_periods AS q (tenant_id, period_index, taken) VALUES ($1, $2, 1)
         ON CONFLICT (tenant_id, period_index) DO UPDATE SET taken = q.taken + 1
         WHERE $3::bigint IS NULL OR q.taken < $3",
    );
    let tenant = tx.tenant_id().as_uuid();
    Ok(tx.execute(query.bind(tenant).bind(period).bind(cap.map(i64::from))).await? == 1)
}

/// A forecast of this tenant, in one trip; `None` if there is none of that id.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn read(scope: &TenantScope, id: ForecastId) -> Result<Option<Forecast>, StoreError> {
    let statement = "SELECT * FROM app.read_forecast_row($1, $2)";
    scope.read_optional(statement, |query| query.bind(id.as_uuid())).await
}

/// The tenant's forecasts, the newest first, from `after` on.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn list(tx: &mut TenantTx, after: PageKey, limit: u32) -> Result<Page<ForecastSummary>, StoreError> {
    let query = sqlx::query_as(
        "SELECT f.forecast_id, f.scenario_id, f.scenario_version, f.state, j.attempts, f.requested_at, f.started_at,
                f.finished_at, f.engine_version, f.result_hash, f.error_code
         FROM app.forecasts f
         JOIN app.jobs j ON j.tenant_id = f.tenant_id AND j.kind = 'forecast' AND j.subject_id = f.forecast_id
         WHERE f.tenant_id = $1 AND (f.requested_at, f.forecast_id) < ($2, $3)
         ORDER BY f.requested_at DESC, f.forecast_id DESC LIMIT $4",
    );
    let tenant = tx.tenant_id().as_uuid();
    let query = query.bind(tenant).bind(after.at).bind(after.id).bind(i64::from(limit) + 1);
    let rows: Vec<ForecastSummary> = tx.all(query).await?;
    Ok(Page::of(rows, limit, |row| PageKey { at: row.requested_at, id: row.forecast_id }))
}
