//! A tenant's users: list and read for everybody in it, add, change and remove for its owners.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use forecastle_domain::{Email, Password, Role, UserId};
use forecastle_store::idempotency::IdempotentRequest;
use forecastle_store::identity::EMAIL_CONSTRAINT;
use forecastle_store::members::{self, Added, Changed, Member, NewMember, Removed};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::signup::read_credential;
use crate::detached::detached;
use crate::error::{ApiError, FieldProblem, Problem};
use crate::extract::{Fields, JsonBody, PageParams, PageRequest, PathId, encode_cursor};
use crate::idempotent::{self, Begun, IdempotencyKey};
use crate::reply::Reply;
use crate::session_check::{self, Caller};
use crate::state::AppState;
use crate::texts::{EmailText, RoleName, ShortText};

/// Names what a role may be.
const ROLE_HINT: &str = "must be owner, editor or viewer";

/// A user of the tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct User {
    id: Uuid,
    email: String,
    name: String,
    /// owner, editor or viewer.
    #[schema(example = "editor")]
    role: String,
    created_at: DateTime<Utc>,
}

impl From<Member> for User {
    fn from(stored: Member) -> Self {
        Self {
            id: stored.id().as_uuid(),
            email: stored.email,
            name: stored.name,
            role: stored.role,
            created_at: stored.created_at,
        }
    }
}

/// Some users, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserPage {
    items: Vec<User>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// A user to add. Has no `Debug`: it holds a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct UserAdd {
    /// Of nobody else, here or at another customer.
    email: EmailText,
    name: ShortText,
    role: RoleName,
    /// Its first password, 12 to 128 characters.
    #[schema(format = "password", min_length = 12, max_length = 128)]
    password: String,
}

/// What to change of a user; at least one of them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct UserChange {
    #[schema(value_type = ShortText, required = false)]
    name: Option<ShortText>,
    #[schema(value_type = RoleName, required = false)]
    role: Option<RoleName>,
}

struct Accepted {
    email: Email,
    name: String,
    role: Role,
    password: Password,
}

/// List the tenant's users, the newest first.
#[utoipa::path(get, path = "/v1/users", tag = "users", params(PageParams), responses(
    (status = 200, body = UserPage),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "limit or cursor is wrong."),
))]
pub(crate) async fn list(State(state): State<AppState>, caller: Caller, page: PageRequest) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let found = members::list(&mut tx, page.after, page.limit).await?;
    let items = found.items.into_iter().map(User::from).collect();
    let page = UserPage { items, next_cursor: found.next.as_ref().map(encode_cursor) };
    Ok(Reply::json(StatusCode::OK, &page))
}

/// Read a user.
#[utoipa::path(get, path = "/v1/users/{id}", tag = "users",
    params(("id" = Uuid, Path, description = "The user.")),
    responses(
        (status = 200, body = User),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, removed, or not yours."),
    ))]
pub(crate) async fn read(State(state): State<AppState>, caller: Caller, PathId(id): PathId) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let member = members::read(&mut tx, UserId::from_uuid(id)).await?;
    Ok(Reply::json(StatusCode::OK, &User::from(member.ok_or_else(ApiError::not_found)?)))
}

/// Add a user. The Idempotency-Key stands for everything in the body but the password, of which no trace is kept.
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = UserAdd,
    params(("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = r"^[!-~]([ -~]*[!-~])?$", description = "1 to 255 printable characters; one effect for each key.")),
    responses(
        (status = 201, body = User, headers(("Location" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No Idempotency-Key, or the body is not JSON."),
        (status = 402, body = Problem, content_type = "application/problem+json", description = "The plan's limit is reached (user_limit)."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The address is taken (email_taken), or the key is in flight."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong, or the key was used for another request."),
    ))]
pub(crate) async fn add(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let key = IdempotencyKey::from_headers(&headers)?;
    let accepted = accept(&body)?;
    // A plain digest of a password could be guessed from, so none goes into the fingerprint.
    let fingerprint = serde_json::json!([accepted.email.as_str(), accepted.name, accepted.role]).to_string();
    let request = key.bind(&caller, "POST", "/v1/users", fingerprint.as_bytes());
    let password_hash = state.passwords.hash(accepted.password.expose().to_owned()).await?;
    let new = NewMember {
        user_id: UserId::from_uuid(Uuid::now_v7()),
        email: accepted.email,
        name: accepted.name,
        role: accepted.role,
        password_hash,
    };
    detached(async move { add_once(&state, &caller, request, &new).await }).await
}

async fn add_once(
    state: &AppState,
    caller: &Caller,
    request: IdempotentRequest,
    new: &NewMember,
) -> Result<Response, ApiError> {
    let mut attempt = match idempotent::begin(state, caller, request).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Fresh(attempt) => attempt,
    };
    let outcome = match members::add(&mut attempt.tx, caller.user, new).await {
        Ok(Added::Member(member)) => {
            let path = format!("/v1/users/{}", member.id());
            Ok(Reply::json(StatusCode::CREATED, &User::from(member)).location(path))
        }
        Ok(Added::LimitReached { plan, limit }) => {
            let upgrade = plan.upgrade().map_or("a larger plan", |plan| plan.as_str());
            Err(ApiError::new(StatusCode::PAYMENT_REQUIRED, "user_limit").detail(format!(
                "The {plan} plan has room for {limit} users, and they are there. Upgrade to {upgrade} for more."
            )))
        }
        Ok(Added::NotAllowed) => {
            // Not kept under the key: it may be otherwise at another moment.
            attempt.tx.rollback().await;
            return Err(ApiError::role_forbidden());
        }
        Err(error) if error.is_conflict_on(EMAIL_CONSTRAINT) => {
            Err(ApiError::new(StatusCode::CONFLICT, "email_taken")
                .detail("An account with this e-mail address exists."))
        }
        Err(error) => Err(error.into()),
    };
    attempt.finish(outcome).await
}

fn accept(body: &[u8]) -> Result<Accepted, ApiError> {
    let mut fields = Fields::parse(body)?;
    let name = fields.line("name", 1..=200);
    let email = read_credential(&mut fields, "email", |text| Email::parse(&text));
    let role = fields.word("role", ROLE_HINT);
    let password = read_credential(&mut fields, "password", Password::parse);
    fields.finish()?;
    let (Some(email), Some(role), Some(password)) = (email, role, password) else {
        return Err(ApiError::internal("a refused field was not noted"));
    };
    Ok(Accepted { email, name, role, password })
}

/// Change a user's name or role. A new role holds on every instance once this is answered.
#[utoipa::path(patch, path = "/v1/users/{id}", tag = "users", extensions(("x-ends-sessions" = json!(true))), request_body = UserChange,
    params(("id" = Uuid, Path, description = "The user.")),
    responses(
        (status = 200, body = User),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, removed, or not yours."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nobody would own the tenant (last_owner)."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong."),
    ))]
pub(crate) async fn change(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let (name, role) = accept_change(&body)?;
    detached(async move {
        let mut tx = state.db.tenant(caller.tenant).begin().await?;
        match members::change(&mut tx, caller.user, UserId::from_uuid(id), name.as_deref(), role).await? {
            Changed::Member { member, out_of_date } => {
                session_check::commit_ending(&state, tx, &out_of_date).await?;
                Ok(Reply::json(StatusCode::OK, &User::from(member)))
            }
            Changed::LastOwner => Err(last_owner()),
            Changed::NotFound => Err(ApiError::not_found()),
            Changed::NotAllowed => Err(ApiError::role_forbidden()),
        }
    })
    .await
}

fn accept_change(body: &[u8]) -> Result<(Option<String>, Option<Role>), ApiError> {
    let mut fields = Fields::parse(body)?;
    let name = fields.has("name").then(|| fields.line("name", 1..=200));
    let role = if fields.has("role") { fields.word("role", ROLE_HINT) } else { None };
    if name.is_none() && role.is_none() {
        fields.problem(FieldProblem::new("", "required", "must name what to change: name, role or both"));
    }
    fields.finish()?;
    Ok((name, role))
}

/// Remove a user. Once this is answered no session of it is let in anywhere; what it made stays.
#[utoipa::path(delete, path = "/v1/users/{id}", tag = "users", extensions(("x-ends-sessions" = json!(true))),
    params(("id" = Uuid, Path, description = "The user.")),
    responses(
        (status = 204, description = "The user is gone."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, removed, or not yours."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nobody would own the tenant (last_owner)."),
    ))]
pub(crate) async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<StatusCode, ApiError> {
    detached(async move {
        let mut tx = state.db.tenant(caller.tenant).begin().await?;
        match members::remove(&mut tx, caller.user, UserId::from_uuid(id)).await? {
            Removed::Member { ended } => {
                session_check::commit_ending(&state, tx, &ended).await?;
                Ok(StatusCode::NO_CONTENT)
            }
            Removed::Before { ended } => {
                tx.rollback().await;
                // Whoever removed it may have died before it made that known.
                session_check::forget(&state, caller.tenant, &ended).await;
                Err(ApiError::not_found())
            }
            Removed::LastOwner => Err(last_owner()),
            Removed::NotFound => Err(ApiError::not_found()),
            Removed::NotAllowed => Err(ApiError::role_forbidden()),
        }
    })
    .await
}

fn last_owner() -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "last_owner")
        .detail("Somebody must own the tenant. Make another user owner first.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_something_known() {
        let of = |body: &str| accept_change(body.as_bytes()).map_err(|error| error.body());
        assert_eq!(of(r#"{"name": "Bo"}"#), Ok((Some("Bo".to_owned()), None)));
        assert_eq!(of(r#"{"role": "viewer"}"#), Ok((None, Some(Role::Viewer))));
        for wrong in ["{}", r#"{"role": "admin"}"#, r#"{"role": null}"#, r#"{"name": ""}"#, r#"{"email": "a@b.c"}"#] {
            assert!(of(wrong).unwrap_err().contains("\"invalid\""), "{wrong}");
        }
    }
}
