//! A request for a forecast as it nearly always is: nobody has used its key, its plan has room for it, and nothing
//! changes in between. Two trips: a look, and one statement that writes everything or nothing.
//!
//! Law: as that of [`crate::forecasts::request`] and of [`crate::idempotency`] together. Whatever is not the usual is left to
//! those two, which can wait, refuse and replay.

use std::time::Duration;

use forecastle_domain::{ForecastId, ScenarioId, UserId};
use serde_json::value::RawValue;
use sqlx::FromRow;

use crate::error::{StoreError, UnavailableReason};
use crate::forecasts::{Forecast, ForecastSummary, is_simulated};
use crate::idempotency::{IdempotentRequest, StoredAnswer};
use crate::identity::{TermsRow, terms_of};
use crate::jobs;
use crate::scope::TenantScope;

/// Longest time between look and write. What was seen may be as old as in a transaction that began with the look.
const LOOK_MAX: Duration = Duration::from_secs(1);

#[derive(FromRow)]
struct LookRow {
    is_known_key: bool,
    version: i32,
    #[sqlx(json)]
    input: Box<RawValue>,
    #[sqlx(flatten)]
    terms: TermsRow,
}

/// A forecast that could be asked for at the moment of the look. Nothing is written yet.
#[derive(Debug)]
pub struct Prospect {
    /// As it will be stored, queued.
    pub forecast: Forecast,
    requested_by: UserId,
    plan: String,
    billing_state: String,
    period: i32,
    cap: i64,
}

/// Looks whether the usual way is open; `None` sends the caller the long way.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn look(
    scope: &TenantScope,
    request: &IdempotentRequest,
    id: ForecastId,
    scenario: ScenarioId,
) -> Result<Option<Prospect>, StoreError> {
    let statement = "SELECT * FROM app.look_before_request($1, $2, $3, $4)";
    let (user, key) = (request.user_id.as_uuid(), request.key.clone());
    let found: Option<LookRow> = scope
        .read_optional(statement, move |query| query.bind(user).bind(key.clone()).bind(scenario.as_uuid()))
        .await?;
    // A simulation may be switched off for the tenant, which is asked in the transaction that goes by it.
    let Some(seen) = found.filter(|seen| !seen.is_known_key && !is_simulated(seen.input.get())) else {
        return Ok(None);
    };
    let (plan, billing_state) = (seen.terms.plan.clone(), seen.terms.billing_state.clone());
    let requested_at = seen.terms.now;
    let terms = terms_of(seen.terms)?;
    let summary = ForecastSummary {
        forecast_id: id.as_uuid(),
        scenario_id: scenario.as_uuid(),
        scenario_version: seen.version,
        state: "queued".to_owned(),
        attempts: 0,
        requested_at,
        started_at: None,
        finished_at: None,
        engine_version: None,
        result_hash: None,
        error_code: None,
    };
    Ok(Some(Prospect {
        forecast: Forecast { summary, input: seen.input, result: None },
        requested_by: request.user_id,
        plan,
        billing_state,
        period: i32::try_from(terms.period.index).map_err(|_| StoreError::Corrupt { what: "period index" })?,
        cap: i64::from(terms.plan.included_forecasts()),
    }))
}

/// Takes key and quota, stores the forecast, queues its job and stores the answer, in one statement that commits.
/// False where what was seen is no longer so, or the cap is reached: then nothing is written.
///
/// # Errors
/// `CommitUnknown` if it may have been done: the key tells. Else as [`StoreError`] says, and nothing is written.
pub async fn write(
    scope: &TenantScope,
    prospect: &Prospect,
    request: &IdempotentRequest,
    answer: &StoredAnswer,
    ttl: Duration,
) -> Result<bool, StoreError> {
    let statement =
        "SELECT app.request_forecast($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
    let summary = &prospect.forecast.summary;
    let written = scope.read_all(statement, |query| {
        query
            .bind(summary.forecast_id)
            .bind(summary.scenario_id)
            .bind(summary.scenario_version)
            .bind(&prospect.plan)
            .bind(&prospect.billing_state)
            .bind(summary.requested_at)
            .bind(millis(LOOK_MAX))
            .bind(prospect.requested_by.as_uuid())
            .bind(prospect.period)
            .bind(prospect.cap)
            .bind(jobs::KIND_FORECAST)
            .bind(jobs::CHANNEL)
            .bind(&request.key)
            .bind(request.fingerprint.as_slice())
            .bind(i32::from(answer.status))
            .bind(&answer.response)
            .bind(millis(ttl))
    });
    let written: Result<Vec<(bool,)>, StoreError> = written.await;
    match written {
        Ok(rows) => Ok(rows.first().is_some_and(|(is_written,)| *is_written)),
        // It was sent, and whether the server carried it out is not known.
        Err(StoreError::Timeout | StoreError::Unavailable { reason: UnavailableReason::Unreachable }) => {
            Err(StoreError::CommitUnknown)
        }
        Err(error) => Err(error),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
