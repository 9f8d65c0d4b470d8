//! The progress of a tenant's forecasts, as it happens.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response, Sse};
use forecastle_domain::ForecastId;
use forecastle_store::events::{self, EventPlace};
use forecastle_store::forecasts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, Problem};
use crate::session_check::Caller;
use crate::state::AppState;
use crate::streams::{self, ForecastMessage, NoSlot, Start};

/// Longest wait for the tenant's feed to begin.
const BEGIN_MAX: Duration = Duration::from_secs(5);

/// Which forecasts.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// Told of this forecast alone, its present state first; of all if absent.
    #[param(value_type = Uuid, required = false)]
    forecast_id: Option<String>,
}

/// From where on; documents a header that is read by hand.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "documents a header")]
pub(crate) struct ResumeParams {
    /// The id of the last event that was read; nothing after it is missed or told twice.
    #[param(rename = "Last-Event-ID", value_type = String, required = false, pattern = "^[0-9]{1,18}-[0-9]{1,18}-[0-9]{1,18}$")]
    last_event_id: Option<String>,
}

/// What an event is about.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "documents the stream, which is written event by event")]
pub(crate) enum StreamEventName {
    Forecast,
    Ready,
    Reset,
}

/// One event, as a reader of server-sent events gets it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents the stream, which is written event by event")]
pub(crate) struct StreamEvent {
    event: StreamEventName,
    /// Where to read on from, for Last-Event-ID; `reset` has none.
    #[schema(value_type = String, required = false)]
    id: Option<String>,
    /// Of `forecast` what it came to, of the others an empty object.
    #[schema(content_media_type = "application/json", example = "{}")]
    data: String,
    /// Milliseconds after which to come back.
    #[schema(value_type = u64, required = false)]
    retry: Option<u64>,
}

/// Watch forecasts: server-sent events, as long as the session stands.
///
/// `forecast` is a change or a sign of progress: forecast_id, state (queued, running, succeeded, failed,
/// cancelled), percent, error_code, at. `ready` follows once all that was missed has been told. `reset`
/// comes first where the place in Last-Event-ID is too old to read on from: read the forecasts again. The
/// stream ends now and then; come back with the last id.
#[utoipa::path(get, path = "/v1/forecasts/events", tag = "forecasts",
    params(EventParams, ResumeParams),
    responses(
        (status = 200, body = StreamEvent, content_type = "text/event-stream", description = "Events of this form until the stream ends."),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The query or Last-Event-ID is not one (query_invalid, last_event_id_invalid)."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The forecast is absent, or not yours."),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Too many requests, or too many streams of this user (too_many_streams)."),
    ))]
pub(crate) async fn stream(
    State(state): State<AppState>,
    caller: Caller,
    params: Result<Query<EventParams>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let only = only(params)?;
    let came_from = last_event_id(&headers)?;
    if state.draining.is_cancelled() {
        return Err(ApiError::unavailable());
    }
    let slot = state.slots.take(caller.tenant, caller.user).map_err(no_slot)?;
    let mut subscription = state.feeds.subscribe(caller.tenant);
    match tokio::time::timeout(BEGIN_MAX.min(state.config.request_timeout), subscription.begun()).await {
        Ok(Ok(())) => {}
        _ => return Err(ApiError::unavailable()),
    }
    let start = start(&state, &caller, only, came_from).await?;
    Ok(Sse::new(streams::open(state, caller, slot, subscription, start)).into_response())
}

fn only(
    params: Result<Query<EventParams>, axum::extract::rejection::QueryRejection>,
) -> Result<Option<ForecastId>, ApiError> {
    let refused = || ApiError::new(StatusCode::BAD_REQUEST, "query_invalid");
    let Query(params) = params.map_err(|_| refused())?;
    // One that is no UUID is nobody's, as in a path.
    let parse = |text: String| text.parse().map(ForecastId::from_uuid).map_err(|_| ApiError::not_found());
    params.forecast_id.map(parse).transpose()
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventPlace>, ApiError> {
    let refused = || ApiError::new(StatusCode::BAD_REQUEST, "last_event_id_invalid");
    let mut values = headers.get_all("last-event-id").iter();
    let (Some(value), rest) = (values.next(), values.next()) else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| rest.is_none()).ok_or_else(refused)?;
    text.parse().map(Some).map_err(|_| refused())
}

fn no_slot(why: NoSlot) -> ApiError {
    match why {
        NoSlot::OfUser => ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams")
            .detail("You watch from too many places. Close one.")
            .retry_after(Duration::from_secs(5)),
        NoSlot::OfInstance => ApiError::unavailable(),
    }
}

async fn start(
    state: &AppState,
    caller: &Caller,
    only: Option<ForecastId>,
    came_from: Option<EventPlace>,
) -> Result<Start, ApiError> {
    let scope = state.db.tenant(caller.tenant);
    let mut tx = scope.begin().await?;
    let end = events::end(&mut tx).await?;
    let is_kept = match came_from {
        Some(place) => events::is_kept(&mut tx, place, state.config.streams.events_kept).await?,
        None => false,
    };
    tx.rollback().await;
    let place = came_from.filter(|_| is_kept).unwrap_or(end);
    let mut start = Start { only, first: None, place, has_gap: came_from.is_some() && !is_kept };
    if let Some(id) = only {
        // Read after its place: a change between the two is told as an event too.
        let forecast = forecasts::read(&scope, id).await?.ok_or_else(ApiError::not_found)?.summary;
        if came_from.is_none() || start.has_gap {
            start.first = Some(ForecastMessage {
                forecast_id: id.as_uuid(),
                percent: (forecast.state == "succeeded").then_some(100),
                at: forecast.finished_at.or(forecast.started_at).unwrap_or(forecast.requested_at),
                state: forecast.state,
                error_code: forecast.error_code,
            });
        }
    }
    Ok(start)
}
