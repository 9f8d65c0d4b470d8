//! Forecasts stopped, and made again.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use forecastle_domain::ForecastId;
use forecastle_store::CacheKey;
use forecastle_store::forecast_control::{self, Cancelled, Retried};
use forecastle_store::idempotency::IdempotentRequest;
use uuid::Uuid;

use super::forecasts::{Forecast, accepted};
use crate::changing::changing;
use crate::detached::detached;
use crate::error::{ApiError, Problem};
use crate::extract::PathId;
use crate::idempotent::{self, Begun, IdempotencyKey};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// Cancel a forecast that waits or runs; its quota is given back.
#[utoipa::path(post, path = "/v1/forecasts/{id}/cancel", tag = "forecasts",
    params(("id" = Uuid, Path, description = "The forecast.")),
    responses(
        (status = 200, body = Forecast, description = "Cancelled. Nothing will come of it any more."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, or not yours."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It had ended before (forecast_ended)."),
    ))]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<Reply, ApiError> {
    detached(async move {
        let id = ForecastId::from_uuid(id);
        let changed = [CacheKey::dashboard(caller.tenant), CacheKey::forecast(caller.tenant, id)];
        changing(&state.cache, &changed, cancel_once(&state, &caller, id)).await
    })
    .await
}

async fn cancel_once(state: &AppState, caller: &Caller, id: ForecastId) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    match forecast_control::cancel(&mut tx, id).await? {
        Cancelled::Forecast(forecast) => {
            tx.commit().await?;
            Ok(Reply::json(StatusCode::OK, &Forecast::from(*forecast)))
        }
        Cancelled::Ended => Err(ApiError::new(StatusCode::CONFLICT, "forecast_ended")
            .detail("The forecast has ended already; read it to see how.")),
        Cancelled::NotFound => Err(ApiError::not_found()),
    }
}

/// Make a forecast again that failed or was cancelled: a new one from the same input, counted as a request.
#[utoipa::path(post, path = "/v1/forecasts/{id}/retry", tag = "forecasts",
    params(
        ("id" = Uuid, Path, description = "The forecast that failed or was cancelled; it stays as it is."),
        ("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = r"^[!-~]([ -~]*[!-~])?$", description = "1 to 255 printable characters; one effect for each key."),
    ),
    responses(
        (status = 202, body = Forecast, headers(("Location" = String)), description = "The new forecast."),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No Idempotency-Key."),
        (status = 402, body = Problem, content_type = "application/problem+json", description = "The plan's cap for this period is reached."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, or not yours."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It has not ended, or it succeeded (forecast_not_retryable); or the key is in flight."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "The key was used for another request."),
    ))]
pub(crate) async fn retry(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key = IdempotencyKey::from_headers(&headers)?;
    detached(async move {
        let request = key.bind(&caller, "POST", &format!("/v1/forecasts/{id}/retry"), &[]);
        let changed = [CacheKey::dashboard(caller.tenant)];
        let ended = ForecastId::from_uuid(id);
        changing(&state.cache, &changed, retry_once(&state, &caller, request, ended)).await
    })
    .await
}

async fn retry_once(
    state: &AppState,
    caller: &Caller,
    request: IdempotentRequest,
    ended: ForecastId,
) -> Result<Response, ApiError> {
    let mut attempt = match idempotent::begin(state, caller, request).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Fresh(attempt) => attempt,
    };
    let id = ForecastId::from_uuid(Uuid::now_v7());
    let outcome = match forecast_control::retry(&mut attempt.tx, id, ended, caller.user).await {
        Ok(Retried::Requested(requested)) => accepted(requested),
        Ok(Retried::NotRetryable) => Err(ApiError::new(StatusCode::CONFLICT, "forecast_not_retryable")
            .detail("Only a forecast that failed or was cancelled can be made again.")),
        Ok(Retried::NotFound) => Err(ApiError::not_found()),
        Err(error) => Err(error.into()),
    };
    attempt.finish(outcome).await
}
