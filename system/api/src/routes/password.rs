//! Another password, for who knows the old one. Every other session of the user ends with it.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use forecastle_domain::{AuditAction, Password};
use forecastle_store::audit::{self, AuditEvent};
use forecastle_store::identity;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

use super::signup::read_credential;
use crate::detached::detached;
use crate::error::{ApiError, Problem};
use crate::extract::{Fields, JsonBody};
use crate::layers::ClientAddress;
use crate::rate_limit::Decisions;
use crate::session_check::{self, Caller};
use crate::state::AppState;

/// Both passwords. Has no `Debug`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct PasswordChange {
    #[schema(format = "password")]
    old_password: String,
    /// 12 to 128 characters.
    #[schema(format = "password", min_length = 12, max_length = 128)]
    new_password: String,
}

/// Set another password. Limited as tightly as logging in; once it is answered, this is the user's only session.
#[utoipa::path(put, path = "/v1/me/password", tag = "auth", extensions(("x-ends-sessions" = json!(true))), request_body = PasswordChange, responses(
    (status = 204, description = "The new password holds."),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
    (status = 403, body = Problem, content_type = "application/problem+json", description = "The old password is wrong (wrong_password)."),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong."),
))]
pub(crate) async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    Extension(decisions): Extension<Arc<Decisions>>,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let old = fields.required_string("old_password");
    let new = read_credential(&mut fields, "new_password", Password::parse);
    fields.finish()?;
    let new = new.ok_or_else(|| ApiError::internal("a refused field was not noted"))?;
    decisions.note(state.limiter.credentials(address).await)?;

    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let stored = identity::password_hash(&mut tx, caller.user).await?.ok_or_else(ApiError::unauthenticated)?;
    // Given back before the hashing, which takes its time.
    tx.rollback().await;
    let matches = match Password::parse(old) {
        Ok(old) => state.passwords.verify(old.expose().to_owned(), Some(stored.clone())).await?,
        // Nobody's password, so nothing is given away by looking no further.
        Err(_) => false,
    };
    if !matches {
        return detached(async move { refuse(&state, &caller).await }).await;
    }
    let new_hash = state.passwords.hash(new.expose().to_owned()).await?;
    detached(async move {
        let mut tx = state.db.tenant(caller.tenant).begin().await?;
        let ended = identity::change_password(&mut tx, caller.user, caller.session, &stored, &new_hash).await?;
        // Another change came first: the old password is not the old one any more.
        let ended = ended.ok_or_else(wrong_password)?;
        session_check::commit_ending(&state, tx, &ended).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

async fn refuse(state: &AppState, caller: &Caller) -> Result<StatusCode, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let event = AuditEvent::of_user(AuditAction::PasswordChangeRefused, caller.user).by(caller.user);
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Err(wrong_password())
}

fn wrong_password() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "wrong_password").detail("The old password is not right.")
}
