//! Logout: the end of the session that asks for it.

use axum::extract::State;
use axum::http::StatusCode;

use crate::detached::detached;
use crate::error::ApiError;
use crate::session_check::{self, Caller};
use crate::state::AppState;

/// End this session. The answer comes once no instance lets it in any more.
#[utoipa::path(post, path = "/v1/logout", tag = "auth", extensions(("x-ends-sessions" = json!(true))), responses((status = 204, description = "The session has ended.")))]
pub(crate) async fn log_out(State(state): State<AppState>, caller: Caller) -> Result<StatusCode, ApiError> {
    detached(async move { session_check::end(&state, &caller).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
