//! The audit log, for the tenant's owners.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use forecastle_store::audit::{self, AuditRow};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, Problem};
use crate::extract::{PageParams, PageRequest, encode_cursor};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// Something that was done.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    id: Uuid,
    at: DateTime<Utc>,
    /// The user who did it; null where the system did, or somebody unknown.
    actor_id: Option<Uuid>,
    #[schema(example = "member.role_changed")]
    action: String,
    /// What it was done to: tenant, user or session.
    #[schema(example = "user")]
    object_kind: String,
    object_id: Uuid,
    /// What it was before: a role, a plan.
    #[schema(example = "owner")]
    before: Option<String>,
    /// What it is since.
    #[schema(example = "viewer")]
    after: Option<String>,
}

impl From<AuditRow> for AuditEntry {
    fn from(stored: AuditRow) -> Self {
        Self {
            id: stored.id(),
            at: stored.occurred_at,
            actor_id: stored.actor_id,
            action: stored.action,
            object_kind: stored.object_kind,
            object_id: stored.object_id,
            before: stored.before,
            after: stored.after,
        }
    }
}

/// Some entries, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditPage {
    items: Vec<AuditEntry>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// Read who did what, the newest first.
#[utoipa::path(get, path = "/v1/audit-log", tag = "users", params(PageParams), responses(
    (status = 200, body = AuditPage),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "limit or cursor is wrong."),
))]
pub(crate) async fn list(State(state): State<AppState>, caller: Caller, page: PageRequest) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let found = audit::list(&mut tx, page.after, page.limit).await?;
    let items = found.items.into_iter().map(AuditEntry::from).collect();
    let page = AuditPage { items, next_cursor: found.next.as_ref().map(encode_cursor) };
    Ok(Reply::json(StatusCode::OK, &page))
}
