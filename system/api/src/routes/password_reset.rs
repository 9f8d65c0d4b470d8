//! Another password for who has lost theirs: a token by mail, then the password with it.
//!
//! Law: nothing tells whether an address has an account, neither the answer nor how long it takes.

use axum::extract::State;
use axum::http::StatusCode;
use forecastle_domain::{Email, Password, TokenPurpose};
use forecastle_store::{identity, mail_tokens};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::detached::detached;
use crate::error::{ApiError, FieldProblem, Problem};
use crate::extract::{Fields, JsonBody};
use crate::mail::{MailConfig, read_token};
use crate::session_check;
use crate::state::AppState;

/// Whose password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct ResetRequest {
    /// Any text: what is no address gets the answer of an unknown one.
    email: String,
}

/// The token of a reset mail and the password to be. Has no `Debug`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct Reset {
    token: String,
    /// 12 to 128 characters.
    #[schema(format = "password", min_length = 12, max_length = 128)]
    password: String,
}

/// Mail a token that chooses another password, if the address has an account.
#[utoipa::path(post, path = "/v1/password-reset", tag = "auth", request_body = ResetRequest, responses(
    (status = 202, description = "A mail is on its way if the address has an account."),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong."),
))]
pub(crate) async fn request(State(state): State<AppState>, JsonBody(body): JsonBody) -> Result<StatusCode, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let email = fields.required_string("email");
    fields.finish()?;
    let Some(mail) = state.config.mail.clone() else { return Ok(StatusCode::ACCEPTED) };
    let email = Email::parse(&email);
    // Both sides of the answer take this long at least; writing a mail takes much less.
    let floor = tokio::time::sleep(mail.reset_answer_floor);
    let written = detached(async move {
        let Ok(email) = email else { return Ok(()) };
        let Some(account) = identity::credentials_by_email(&state.db, &email).await? else { return Ok(()) };
        let mut tx = state.db.tenant(account.tenant_id()).begin().await?;
        mail.issue(&mut tx, account.user_id(), TokenPurpose::PasswordReset).await?;
        tx.commit().await?;
        Ok(())
    });
    let (written, ()) = tokio::join!(written, floor);
    written?;
    Ok(StatusCode::ACCEPTED)
}

/// Choose another password. A token counts once; every session of the user ends, and the answer comes
/// once no instance lets one of them in any more.
#[utoipa::path(post, path = "/v1/password-reset/confirm", tag = "auth", extensions(("x-ends-sessions" = json!(true))), request_body = Reset, responses(
    (status = 204, description = "The password is changed."),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
    (status = 401, body = Problem, content_type = "application/problem+json", description = "The token does not hold."),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong."),
))]
pub(crate) async fn confirm(State(state): State<AppState>, JsonBody(body): JsonBody) -> Result<StatusCode, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let token = fields.required_string("token");
    let password = fields.string("password").and_then(|text| match Password::parse(text) {
        Ok(password) => Some(password),
        Err(error) => {
            fields.problem(FieldProblem::new("/password", error.code(), error.to_string()));
            None
        }
    });
    fields.finish()?;
    let password = password.ok_or_else(|| ApiError::internal("a refused field was not noted"))?;
    let token = read_token(&token)?;
    // Asked before as well, so that nobody has passwords hashed for nothing; only in the transaction it holds.
    let owner = mail_tokens::owner(&state.db, &token, TokenPurpose::PasswordReset).await?;
    let tenant = owner.ok_or_else(MailConfig::token_refused)?;
    let password_hash = state.passwords.hash(password.expose().to_owned()).await?;
    detached(async move {
        let mut tx = state.db.tenant(tenant).begin().await?;
        let ended = mail_tokens::reset_password(&mut tx, &token, &password_hash).await?;
        let ended = ended.ok_or_else(MailConfig::token_refused)?;
        session_check::commit_ending(&state, tx, &ended).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
