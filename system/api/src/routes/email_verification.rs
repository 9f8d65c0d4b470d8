//! Verification of an e-mail address: the token that was mailed comes back, or is mailed again.

use axum::extract::State;
use axum::http::StatusCode;
use forecastle_domain::TokenPurpose;
use forecastle_store::mail_tokens;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::detached::detached;
use crate::error::{ApiError, Problem};
use crate::extract::{Fields, JsonBody};
use crate::mail::{MailConfig, read_token};
use crate::session_check::Caller;
use crate::state::AppState;

/// The token of a verification mail. Has no `Debug`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct Confirmation {
    token: String,
}

/// Say that the address reaches its user. A token counts once.
#[utoipa::path(post, path = "/v1/email-verification/confirm", tag = "auth", request_body = Confirmation, responses(
    (status = 204, description = "The address is verified."),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
    (status = 401, body = Problem, content_type = "application/problem+json", description = "The token does not hold."),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong."),
))]
pub(crate) async fn confirm(State(state): State<AppState>, JsonBody(body): JsonBody) -> Result<StatusCode, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let token = fields.required_string("token");
    fields.finish()?;
    let token = read_token(&token)?;
    detached(async move {
        let owner = mail_tokens::owner(&state.db, &token, TokenPurpose::EmailVerification).await?;
        let mut tx = state.db.tenant(owner.ok_or_else(MailConfig::token_refused)?).begin().await?;
        if !mail_tokens::verify_email(&mut tx, &token).await? {
            return Err(MailConfig::token_refused());
        }
        tx.commit().await?;
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Mail another verification token, unless the address is verified or one went out a moment ago. The
/// answer is the same.
#[utoipa::path(post, path = "/v1/email-verification", tag = "auth", responses(
    (status = 202, description = "A mail is on its way if one is due."),
))]
pub(crate) async fn resend(State(state): State<AppState>, caller: Caller) -> Result<StatusCode, ApiError> {
    detached(async move {
        let Some(mail) = &state.config.mail else { return Ok(()) };
        let mut tx = state.db.tenant(caller.tenant).begin().await?;
        if !mail_tokens::is_verified(&mut tx, caller.user).await? {
            mail.issue(&mut tx, caller.user, TokenPurpose::EmailVerification).await?;
            tx.commit().await?;
        }
        Ok(())
    })
    .await?;
    Ok(StatusCode::ACCEPTED)
}
