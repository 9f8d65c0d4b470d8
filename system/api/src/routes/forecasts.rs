//! Forecasts: request, read, list.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use forecastle_domain::{ForecastId, Plan, ScenarioId};
use forecastle_store::forecast_request;
use forecastle_store::forecasts::{self, ForecastSummary, Requested};
use forecastle_store::idempotency::IdempotentRequest;
use forecastle_store::{CacheKey, StoreError, TenantTx};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::forecast_result::ForecastResult;
use super::scenario_input::ScenarioInput;
use crate::changing::changing;
use crate::detached::detached;
use crate::error::{ApiError, Problem};
use crate::extract::{Fields, JsonBody, PageParams, PageRequest, PathId, encode_cursor};
use crate::idempotent::{self, Begun, IdempotencyKey};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;
use crate::wanted::Found;

/// Which scenario to forecast.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct ForecastRequest {
    scenario_id: Uuid,
}

/// A forecast.
#[derive(Serialize, ToSchema)]
pub(crate) struct Forecast {
    #[serde(flatten)]
    head: ForecastItem,
    /// The scenario's input as it was when asked.
    #[schema(value_type = ScenarioInput)]
    input: Box<RawValue>,
    /// Null until it succeeds.
    #[schema(value_type = Option<ForecastResult>)]
    result: Option<Box<RawValue>>,
}

/// A forecast in a list: all but its input and result.
#[derive(Serialize, ToSchema)]
pub(crate) struct ForecastItem {
    id: Uuid,
    scenario_id: Uuid,
    scenario_version: i32,
    /// queued, running, succeeded, failed or cancelled.
    #[schema(example = "queued")]
    state: String,
    /// Times a worker has taken it up.
    attempts: i32,
    requested_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    engine_version: Option<String>,
    /// Lower-case hex SHA-256 of the canonical JSON of engine version, input and result.
    result_hash: Option<String>,
    /// Why it failed.
    error_code: Option<String>,
}

impl From<ForecastSummary> for ForecastItem {
    fn from(stored: ForecastSummary) -> Self {
        Self {
            id: stored.id().as_uuid(),
            scenario_id: stored.scenario_id().as_uuid(),
            scenario_version: stored.scenario_version,
            state: stored.state,
            attempts: stored.attempts,
            requested_at: stored.requested_at,
            started_at: stored.started_at,
            finished_at: stored.finished_at,
            engine_version: stored.engine_version,
            result_hash: stored.result_hash,
            error_code: stored.error_code,
        }
    }
}

impl From<forecasts::Forecast> for Forecast {
    fn from(stored: forecasts::Forecast) -> Self {
        Self { head: stored.summary.into(), input: stored.input, result: stored.result }
    }
}

/// Some forecasts, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct ForecastPage {
    items: Vec<ForecastItem>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// Request a forecast of a scenario as it is now.
#[utoipa::path(post, path = "/v1/forecasts", tag = "forecasts", request_body = ForecastRequest,
    params(("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = r"^[!-~]([ -~]*[!-~])?$", description = "1 to 255 printable characters; one effect for each key.")),
    responses(
        (status = 202, body = Forecast, headers(("Location" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No Idempotency-Key, or the body is not JSON."),
        (status = 402, body = Problem, content_type = "application/problem+json", description = "The plan's cap for this period is reached."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The scenario is absent, or not yours."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The key is in flight."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong, or the key was used for another request."),
    ))]
pub(crate) async fn request(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let key = IdempotencyKey::from_headers(&headers)?;
    detached(async move {
        let request = key.bind(&caller, "POST", "/v1/forecasts", &body);
        let scenario = accept(&body);
        let changed = [CacheKey::dashboard(caller.tenant)];
        changing(&state.cache, &changed, request_once(&state, &caller, request, scenario)).await
    })
    .await
}

async fn request_once(
    state: &AppState,
    caller: &Caller,
    request: IdempotentRequest,
    scenario: Result<ScenarioId, ApiError>,
) -> Result<Response, ApiError> {
    if let Ok(scenario) = &scenario
        && let Some(reply) = enqueue_as_usual(state, caller, &request, *scenario).await?
    {
        return Ok(reply.into_response());
    }
    let mut attempt = match idempotent::begin(state, caller, request).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Fresh(attempt) => attempt,
    };
    let outcome = match scenario {
        Ok(scenario) => enqueue(&mut attempt.tx, caller, scenario).await,
        Err(refusal) => Err(refusal),
    };
    attempt.finish(outcome).await
}

/// Where the key is new, the plan has room and nothing is in the way; `None` leaves it to the long way.
async fn enqueue_as_usual(
    state: &AppState,
    caller: &Caller,
    request: &IdempotentRequest,
    scenario: ScenarioId,
) -> Result<Option<Reply>, ApiError> {
    let scope = state.db.tenant(caller.tenant);
    let id = ForecastId::from_uuid(Uuid::now_v7());
    let Some(prospect) = forecast_request::look(&scope, request, id, scenario).await? else { return Ok(None) };
    let reply = accepted(Requested::Forecast(Box::new(prospect.forecast.clone())))?;
    let ttl = state.config.idempotency_ttl;
    let is_written = forecast_request::write(&scope, &prospect, request, &reply.to_stored(), ttl).await?;
    Ok(is_written.then_some(reply))
}

async fn enqueue(tx: &mut TenantTx, caller: &Caller, scenario: ScenarioId) -> Result<Reply, ApiError> {
    let id = ForecastId::from_uuid(Uuid::now_v7());
    accepted(forecasts::request(tx, id, scenario, caller.user).await?)
}

/// The answer to a request for a forecast.
pub(super) fn accepted(requested: Requested) -> Result<Reply, ApiError> {
    match requested {
        Requested::Forecast(forecast) => {
            let location = format!("/v1/forecasts/{}", forecast.summary.id());
            Ok(Reply::json(StatusCode::ACCEPTED, &Forecast::from(*forecast)).location(location))
        }
        Requested::NoScenario => Err(ApiError::not_found()),
        Requested::SwitchedOff(flag) => Err(ApiError::switched_off(flag)),
        Requested::QuotaExceeded { plan, cap } => {
            let upgrade = plan.upgrade().map_or("a larger plan", Plan::as_str);
            Err(ApiError::new(StatusCode::PAYMENT_REQUIRED, "quota_exceeded").detail(format!(
                "The {plan} plan includes {cap} forecasts a period, and they are used. Upgrade to {upgrade} for more."
            )))
        }
    }
}

fn accept(body: &[u8]) -> Result<ScenarioId, ApiError> {
    let mut fields = Fields::parse(body)?;
    let scenario = fields.uuid("scenario_id");
    fields.finish()?;
    scenario.map(ScenarioId::from_uuid).ok_or_else(|| ApiError::internal("a refused field was not noted"))
}

/// Read a forecast.
#[utoipa::path(get, path = "/v1/forecasts/{id}", tag = "forecasts",
    params(("id" = Uuid, Path, description = "The forecast.")),
    responses(
        (status = 200, body = Forecast),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, or not yours."),
    ))]
pub(crate) async fn read(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
    Found(found): Found,
) -> Result<Reply, ApiError> {
    let id = ForecastId::from_uuid(id);
    let key = CacheKey::forecast(caller.tenant, id);
    let load = state.reads.read(caller.tenant, |scope| Box::pin(forecasts::read(scope, id)));
    // Only what can no longer change is kept.
    let is_final = |found: &Option<forecasts::Forecast>| found.as_ref().is_some_and(|f| f.summary.is_terminal());
    let found: Result<_, StoreError> =
        state.cache.peeked_or_load(found, &key, state.config.cache_ttl, load, is_final).await;
    Ok(Reply::json(StatusCode::OK, &Forecast::from(found?.ok_or_else(ApiError::not_found)?)))
}

/// List forecasts, the newest first.
#[utoipa::path(get, path = "/v1/forecasts", tag = "forecasts", params(PageParams), responses(
    (status = 200, body = ForecastPage),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "limit or cursor is wrong."),
))]
pub(crate) async fn list(State(state): State<AppState>, caller: Caller, page: PageRequest) -> Result<Reply, ApiError> {
    let list = state.reads.read(caller.tenant, |scope| {
        Box::pin(async move { forecasts::list(&mut scope.begin().await?, page.after, page.limit).await })
    });
    let found = list.await?;
    let items = found.items.into_iter().map(ForecastItem::from).collect();
    let page = ForecastPage { items, next_cursor: found.next.as_ref().map(encode_cursor) };
    Ok(Reply::json(StatusCode::OK, &page))
}
