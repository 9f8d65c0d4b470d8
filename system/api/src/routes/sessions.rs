//! The caller's own sessions: where is it signed in, and out with the one it does not know.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use forecastle_domain::{AuditAction, SessionId};
use forecastle_store::audit::{self, AuditEvent};
use forecastle_store::sessions;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::detached::detached;
use crate::error::{ApiError, Problem};
use crate::extract::{PageParams, PageRequest, PathId, encode_cursor};
use crate::reply::Reply;
use crate::session_check::{self, Caller};
use crate::state::AppState;

/// A session that stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct Session {
    id: Uuid,
    /// Whether it is the one that asks.
    is_current: bool,
    created_at: DateTime<Utc>,
    /// When it ends by itself.
    expires_at: DateTime<Utc>,
}

/// Some sessions, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionPage {
    items: Vec<Session>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// List your sessions, the newest first.
#[utoipa::path(get, path = "/v1/sessions", tag = "auth", params(PageParams), responses(
    (status = 200, body = SessionPage),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "limit or cursor is wrong."),
))]
pub(crate) async fn list(State(state): State<AppState>, caller: Caller, page: PageRequest) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let found = sessions::list(&mut tx, caller.user, page.after, page.limit).await?;
    let items = found.items.into_iter().map(|session| Session {
        id: session.id().as_uuid(),
        is_current: session.id() == caller.session,
        created_at: session.created_at,
        expires_at: session.expires_at,
    });
    let page = SessionPage { items: items.collect(), next_cursor: found.next.as_ref().map(encode_cursor) };
    Ok(Reply::json(StatusCode::OK, &page))
}

/// End one of your sessions. The answer comes once no instance lets it in any more.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "auth", extensions(("x-ends-sessions" = json!(true))),
    params(("id" = Uuid, Path, description = "The session.")),
    responses(
        (status = 204, description = "The session has ended, now or before."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, or not yours."),
    ))]
pub(crate) async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<StatusCode, ApiError> {
    detached(async move {
        let session = SessionId::from_uuid(id);
        let mut tx = state.db.tenant(caller.tenant).begin().await?;
        let was_live = sessions::revoke_own(&mut tx, caller.user, session).await?.ok_or_else(ApiError::not_found)?;
        if was_live {
            let event = AuditEvent::of_session(AuditAction::SessionRevoked, session).by(caller.user);
            audit::record(&mut tx, event).await?;
        }
        // Also where it had been revoked before: whoever did it may have died before it made that known.
        session_check::commit_ending(&state, tx, &[session]).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
