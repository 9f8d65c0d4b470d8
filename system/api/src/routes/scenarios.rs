//! Scenarios: create, read, edit, list.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use forecastle_domain::ScenarioId;
use forecastle_store::idempotency::IdempotentRequest;
use forecastle_store::scenarios::{self, Created, Edited, ScenarioContent, ScenarioSummary};
use forecastle_store::{CacheKey, StoreError, TenantTx};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::scenario_input::ScenarioInput;
use crate::changing::changing;
use crate::detached::detached;
use crate::error::{ApiError, FieldProblem, Problem};
use crate::extract::{Fields, IfMatch, JsonBody, PageParams, PageRequest, PathId, encode_cursor};
use crate::idempotent::{self, Begun, IdempotencyKey};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;
use crate::texts::ShortText;
use crate::wanted::Found;

/// What a user writes into a scenario.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct ScenarioWrite {
    name: ShortText,
    /// At most 10,000 characters, none of them NUL.
    #[schema(max_length = 10_000, pattern = r"^[^\u0000]*$")]
    notes: Option<String>,
    input: ScenarioInput,
}

/// A scenario.
#[derive(Serialize, ToSchema)]
pub(crate) struct Scenario {
    id: Uuid,
    name: String,
    notes: Option<String>,
    /// As accepted.
    #[schema(value_type = ScenarioInput)]
    input: Box<RawValue>,
    /// 1 when created, one more with each edit; also the ETag.
    version: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<scenarios::Scenario> for Scenario {
    fn from(stored: scenarios::Scenario) -> Self {
        Self {
            id: stored.id().as_uuid(),
            name: stored.name,
            notes: stored.notes,
            input: stored.input,
            version: stored.version,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}

/// A scenario in a list: all but its input.
#[derive(Serialize, ToSchema)]
pub(crate) struct ScenarioItem {
    id: Uuid,
    name: String,
    notes: Option<String>,
    version: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<ScenarioSummary> for ScenarioItem {
    fn from(stored: ScenarioSummary) -> Self {
        Self {
            id: stored.id().as_uuid(),
            name: stored.name,
            notes: stored.notes,
            version: stored.version,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}

/// Some scenarios, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct ScenarioPage {
    items: Vec<ScenarioItem>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// Create a scenario.
#[utoipa::path(post, path = "/v1/scenarios", tag = "scenarios", request_body = ScenarioWrite,
    params(("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = r"^[!-~]([ -~]*[!-~])?$", description = "1 to 255 printable characters; one effect for each key.")),
    responses(
        (status = 201, body = Scenario, headers(("ETag" = String), ("Location" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No Idempotency-Key, or the body is not JSON."),
        (status = 402, body = Problem, content_type = "application/problem+json", description = "The plan's limit is reached."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The key is in flight."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong, or the key was used for another request."),
    ))]
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let key = IdempotencyKey::from_headers(&headers)?;
    detached(async move {
        let request = key.bind(&caller, "POST", "/v1/scenarios", &body);
        let content = accept(&body);
        let changed = [CacheKey::dashboard(caller.tenant)];
        changing(&state.cache, &changed, create_once(&state, &caller, request, content)).await
    })
    .await
}

async fn create_once(
    state: &AppState,
    caller: &Caller,
    request: IdempotentRequest,
    content: Result<ScenarioContent, ApiError>,
) -> Result<Response, ApiError> {
    let mut attempt = match idempotent::begin(state, caller, request).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Fresh(attempt) => attempt,
    };
    let outcome = match content {
        Ok(content) => store(&mut attempt.tx, &content).await,
        Err(refusal) => Err(refusal),
    };
    attempt.finish(outcome).await
}

async fn store(tx: &mut TenantTx, content: &ScenarioContent) -> Result<Reply, ApiError> {
    match scenarios::create(tx, ScenarioId::from_uuid(Uuid::now_v7()), content).await? {
        Created::Scenario(scenario) => {
            let (version, path) = (scenario.version, format!("/v1/scenarios/{}", scenario.id()));
            let reply = Reply::json(StatusCode::CREATED, &Scenario::from(*scenario));
            Ok(reply.version(version).location(path))
        }
        Created::LimitReached(limit) => Err(ApiError::new(StatusCode::PAYMENT_REQUIRED, "scenario_limit")
            .detail(format!("Your plan keeps {limit} scenarios. Upgrade to keep more."))),
    }
}

/// Read a scenario.
#[utoipa::path(get, path = "/v1/scenarios/{id}", tag = "scenarios",
    params(("id" = Uuid, Path, description = "The scenario.")),
    responses(
        (status = 200, body = Scenario, headers(("ETag" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, or not yours."),
    ))]
pub(crate) async fn read(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
    Found(found): Found,
) -> Result<Reply, ApiError> {
    let id = ScenarioId::from_uuid(id);
    let key = CacheKey::scenario(caller.tenant, id);
    let load = state.reads.read(caller.tenant, |scope| Box::pin(scenarios::read(scope, id)));
    let found: Result<Option<scenarios::Scenario>, StoreError> =
        state.cache.peeked_or_load(found, &key, state.config.cache_ttl, load, Option::is_some).await;
    let scenario = found?.ok_or_else(ApiError::not_found)?;
    let version = scenario.version;
    Ok(Reply::json(StatusCode::OK, &Scenario::from(scenario)).version(version))
}

/// Replace a scenario's content, based on the version in If-Match.
#[utoipa::path(put, path = "/v1/scenarios/{id}", tag = "scenarios", request_body = ScenarioWrite,
    params(
        ("id" = Uuid, Path, description = "The scenario."),
        ("If-Match" = String, Header, pattern = r#"^"[1-9][0-9]*"$"#, example = "\"1\"", description = "The ETag of the version that is replaced."),
    ),
    responses(
        (status = 200, body = Scenario, headers(("ETag" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, or not yours."),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "It was edited since."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong."),
        (status = 428, body = Problem, content_type = "application/problem+json", description = "No If-Match."),
    ))]
pub(crate) async fn edit(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
    IfMatch(expected): IfMatch,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let content = accept(&body)?;
    detached(async move {
        let id = ScenarioId::from_uuid(id);
        let changed = [CacheKey::scenario(caller.tenant, id), CacheKey::dashboard(caller.tenant)];
        changing(&state.cache, &changed, replace(&state, &caller, id, expected, &content)).await
    })
    .await
}

async fn replace(
    state: &AppState,
    caller: &Caller,
    id: ScenarioId,
    expected: Option<i32>,
    content: &ScenarioContent,
) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    // Versions begin at 1, so a tag that is none of ours matches nothing.
    match scenarios::edit(&mut tx, id, expected.unwrap_or(0), content).await? {
        Edited::Scenario(scenario) => {
            tx.commit().await?;
            let version = scenario.version;
            Ok(Reply::json(StatusCode::OK, &Scenario::from(*scenario)).version(version))
        }
        Edited::VersionDiffers => Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "version_differs")
            .detail("The scenario was edited since. Read it again.")),
        Edited::NotFound => Err(ApiError::not_found()),
    }
}

/// List scenarios, the newest first.
#[utoipa::path(get, path = "/v1/scenarios", tag = "scenarios", params(PageParams), responses(
    (status = 200, body = ScenarioPage),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "limit or cursor is wrong."),
))]
pub(crate) async fn list(State(state): State<AppState>, caller: Caller, page: PageRequest) -> Result<Reply, ApiError> {
    let list = state.reads.read(caller.tenant, |scope| Box::pin(scenarios::list(scope, page.after, page.limit)));
    let found = list.await?;
    let items = found.items.into_iter().map(ScenarioItem::from).collect();
    let page = ScenarioPage { items, next_cursor: found.next.as_ref().map(encode_cursor) };
    Ok(Reply::json(StatusCode::OK, &page))
}

fn accept(body: &[u8]) -> Result<ScenarioContent, ApiError> {
    let mut fields = Fields::parse(body)?;
    let name = fields.line("name", 1..=200);
    let notes = fields.optional_text("notes", 10_000);
    let input = fields.value("input");
    if let Some(Err(faults)) = input.as_ref().map(forecastle_forecast::validate) {
        for fault in faults {
            fields.problem(FieldProblem::new(format!("/input{}", fault.pointer), fault.code, fault.message));
        }
    }
    fields.finish()?;
    let input = input.ok_or_else(|| ApiError::internal("a refused field was not noted"))?;
    Ok(ScenarioContent { name, notes, input })
}
