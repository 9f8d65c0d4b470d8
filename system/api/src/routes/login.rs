//! Login: a session for an address and its password.
//!
//! Law: an unknown address, a wrong password and text that could be neither get the same answer after
//! the same work.

use axum::extract::State;
use axum::http::StatusCode;
use forecastle_domain::{Email, Password, SessionId};
use forecastle_store::{identity, sessions};
use forecastle_telemetry::ProductEvent;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answers::{Tokens, fresh_secret};
use crate::detached::detached;
use crate::error::{ApiError, Problem};
use crate::extract::{Fields, JsonBody};
use crate::product_events;
use crate::reply::Reply;
use crate::state::AppState;

/// Credentials. Has no `Debug`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct LogIn {
    /// Any text: what is no address gets the answer of an unknown one.
    email: String,
    #[schema(format = "password")]
    password: String,
}

/// Open a session.
#[utoipa::path(post, path = "/v1/login", tag = "auth", request_body = LogIn, responses(
    (status = 200, body = Tokens),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
    (status = 401, body = Problem, content_type = "application/problem+json", description = "Address and password do not match."),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong."),
))]
pub(crate) async fn log_in(State(state): State<AppState>, JsonBody(body): JsonBody) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let email = fields.required_string("email");
    let password = fields.required_string("password");
    fields.finish()?;

    let email = Email::parse(&email);
    let password = Password::parse(password);
    let credentials = match &email {
        Ok(email) => identity::credentials_by_email(&state.db, email).await?,
        Err(_) => None,
    };
    // A password that cannot be anybody's is checked against nobody's.
    let known = credentials.as_ref().filter(|_| password.is_ok());
    let typed = password.as_ref().map_or_else(|_| String::new(), |password| password.expose().to_owned());
    let matches = state.passwords.verify(typed, known.map(|known| known.password_hash.clone())).await?;
    let Some(credentials) = credentials else { return Err(refused()) };
    let (tenant, user) = (credentials.tenant_id(), credentials.user_id());
    if !matches {
        // Not waited for: the answer must not take longer where the address is known.
        tokio::spawn(async move {
            if let Err(error) = identity::note_failed_login(&state.db, tenant, user).await {
                tracing::warn!(error = %error, "a failed login was not noted");
            }
        });
        return Err(refused());
    }
    let tokens = detached(async move {
        let session = SessionId::from_uuid(Uuid::new_v4());
        let secret = fresh_secret();
        let hash = &credentials.password_hash;
        let mut tx = state.db.tenant(tenant).begin().await?;
        if !sessions::open_by_password(&mut tx, session, user, hash, &secret, state.config.lifetimes()).await? {
            return Err(refused());
        }
        tx.commit().await?;
        product_events::record(&state, ProductEvent::LoggedIn, tenant, user);
        Ok(Tokens::issue(&state, tenant, user, session, &secret))
    });
    Ok(Reply::json(StatusCode::OK, &tokens.await?))
}

fn refused() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_credentials").detail("E-mail address and password do not match.")
}
