//! Usage of the running billing period; always from PostgreSQL.

use axum::extract::State;
use axum::http::StatusCode;
use forecastle_store::{dashboard, identity};

use super::answers::Usage;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// Read the running period's usage.
#[utoipa::path(get, path = "/v1/usage", tag = "billing", responses((status = 200, body = Usage)))]
pub(crate) async fn read(State(state): State<AppState>, caller: Caller) -> Result<Reply, ApiError> {
    let scope = state.db.tenant(caller.tenant);
    let terms = identity::terms(&scope).await?;
    let usage = Usage::of(&terms, dashboard::period_usage(&scope, &terms.period).await?);
    Ok(Reply::json(StatusCode::OK, &usage))
}
