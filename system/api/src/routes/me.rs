//! The caller as it sees itself.

use axum::extract::State;
use axum::http::StatusCode;
use forecastle_store::{identity, mail_tokens};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// A user, its tenant and its session.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    user_id: Uuid,
    tenant_id: Uuid,
    session_id: Uuid,
    email: String,
    /// Whether a token mailed to the address came back.
    email_verified: bool,
    name: String,
    #[schema(example = "owner")]
    role: String,
    organization: String,
}

/// Who am I?
#[utoipa::path(get, path = "/v1/me", tag = "auth", responses((status = 200, body = Me)))]
pub(crate) async fn read(State(state): State<AppState>, caller: Caller) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let profile = identity::profile(&mut tx, caller.user).await?.ok_or_else(ApiError::unauthenticated)?;
    let email_verified = mail_tokens::is_verified(&mut tx, caller.user).await?;
    let me = Me {
        user_id: caller.user.as_uuid(),
        tenant_id: caller.tenant.as_uuid(),
        session_id: caller.session.as_uuid(),
        email: profile.email,
        email_verified,
        name: profile.name,
        role: profile.role,
        organization: profile.organization,
    };
    Ok(Reply::json(StatusCode::OK, &me))
}
