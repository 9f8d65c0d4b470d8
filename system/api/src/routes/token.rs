//! Refresh: one refresh token for the next, and a new access token.

use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forecastle_store::sessions::{self, RefreshSecret, Refreshed, Rotation};
use serde::Deserialize;
use utoipa::ToSchema;

use super::answers::Tokens;
use crate::detached::detached;
use crate::error::{ApiError, Problem};
use crate::extract::{Fields, JsonBody};
use crate::reply::Reply;
use crate::session_check;
use crate::state::AppState;

/// A refresh token. Has no `Debug`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct Refresh {
    refresh_token: String,
}

/// Exchange a refresh token. Within the grace an exchanged token answers with the same successor;
/// later it ends the session.
#[utoipa::path(post, path = "/v1/token/refresh", tag = "auth", extensions(("x-ends-sessions" = json!(true))), request_body = Refresh, responses(
    (status = 200, body = Tokens),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
    (status = 401, body = Problem, content_type = "application/problem+json", description = "The token does not hold."),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong."),
))]
pub(crate) async fn refresh(State(state): State<AppState>, JsonBody(body): JsonBody) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let token = fields.required_string("refresh_token");
    fields.finish()?;
    let bytes = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| bytes.try_into().ok());
    let presented = RefreshSecret(bytes.ok_or_else(refused)?);

    let tokens = detached(async move {
        let keys = state.config.keys.current();
        let successors = |parent: &RefreshSecret| keys.refresh_successors(&parent.0).map(RefreshSecret).collect();
        let rotation =
            Rotation { successors: &successors, grace: state.config.refresh_grace, ttl: state.config.refresh_ttl };
        match sessions::refresh(&state.db, &presented, rotation).await? {
            Refreshed::Successor { tenant_id, user_id, session_id, secret } => {
                Ok(Tokens::issue(&state, tenant_id, user_id, session_id, &secret))
            }
            Refreshed::Refused => Err(refused()),
            Refreshed::FamilyOver { tenant_id, session_id } => {
                session_check::forget(&state, tenant_id, &[session_id]).await;
                Err(refused())
            }
            Refreshed::FamilyEndUnknown { tenant_id, session_id } => {
                session_check::withhold(&state, tenant_id, &[session_id]).await;
                Err(ApiError::unavailable())
            }
            Refreshed::FamilyEnded { tenant_id, session_id } => {
                metrics::counter!("forecastle_refresh_families_ended_total").increment(1);
                session_check::forget(&state, tenant_id, &[session_id]).await;
                Err(refused())
            }
        }
    });
    Ok(Reply::json(StatusCode::OK, &tokens.await?))
}

fn refused() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_refresh_token").detail("Log in again.")
}
