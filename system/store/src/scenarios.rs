//! Stored scenarios: create, read, edit under a version, list.
//!
//! Not for judging their content: what comes in here was accepted by the forecast crate.

use chrono::{DateTime, Utc};
use forecastle_domain::ScenarioId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::identity;
use crate::paging::{Page, PageKey};
use crate::scope::{TenantScope, TenantTx};

/// A scenario as stored.
#[derive(Debug, Clone, Serialize, Deserialize, FromRow)]
pub struct Scenario {
    scenario_id: Uuid,
    /// Its name.
    pub name: String,
    /// Free text.
    pub notes: Option<String>,
    /// The input as accepted: its JSON, which is passed on without being read.
    #[sqlx(json)]
    pub input: Box<RawValue>,
    /// 1 when created, one more with each edit.
    pub version: i32,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last edited.
    pub updated_at: DateTime<Utc>,
}

impl Scenario {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> ScenarioId {
        self.scenario_id.into()
    }
}

/// A scenario in a list: all but its input.
#[derive(Debug, FromRow)]
pub struct ScenarioSummary {
    scenario_id: Uuid,
    /// Its name.
    pub name: String,
    /// Free text.
    pub notes: Option<String>,
    /// 1 when created, one more with each edit.
    pub version: i32,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last edited.
    pub updated_at: DateTime<Utc>,
}

impl ScenarioSummary {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> ScenarioId {
        self.scenario_id.into()
    }
}

/// What a user writes into a scenario.
#[derive(Debug)]
pub struct ScenarioContent {
    /// 1 to 200 characters.
    pub name: String,
    /// At most 10,000 characters.
    pub notes: Option<String>,
    /// The input as accepted.
    pub input: Value,
}

/// What became of a request to create.
#[derive(Debug)]
pub enum Created {
    /// Stored as version 1; commits with the transaction.
    Scenario(Box<Scenario>),
    /// The plan allows this many, and there are as many.
    LimitReached(u32),
}

/// Stores a new scenario, unless the plan's limit is reached; counted under the tenant's lock.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn create(tx: &mut TenantTx, id: ScenarioId, content: &ScenarioContent) -> Result<Created, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let terms = identity::terms_locked(tx).await?;
    if let Some(limit) = terms.plan.scenario_limit() {
        let query = sqlx::query_scalar("SELECT count(*) FROM app.scenarios WHERE tenant_id = $1");
        let count: i64 = tx.scalar(query.bind(tenant)).await?.unwrap_or(0);
        if count >= i64::from(limit) {
            return Ok(Created::LimitReached(limit));
        }
    }
    let query = sqlx::query_as(
        "INSERT INTO app.scenarios (tenant_id, scenario_id, name, notes, input, version, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, 1, now(), now())
         RETURNING scenario_id, name, notes, input, version, created_at, updated_at",
    );
    let query = query.bind(tenant).bind(id.as_uuid()).bind(&content.name).bind(&content.notes).bind(&content.input);
    Ok(Created::Scenario(Box::new(tx.one(query).await?)))
}

/// A scenario of this tenant, in one trip; `None` if there is none of that id.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn read(scope: &TenantScope, id: ScenarioId) -> Result<Option<Scenario>, StoreError> {
    let statement = "SELECT scenario_id, name, notes, input, version, created_at, updated_at
         FROM app.read_scenario($1, $2)";
    scope.read_optional(statement, |query| query.bind(id.as_uuid())).await
}

/// The same inside a transaction.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn read_in(tx: &mut TenantTx, id: ScenarioId) -> Result<Option<Scenario>, StoreError> {
    let query = sqlx::query_as(
        "SELECT scenario_id, name, notes, input, version, created_at, updated_at
         FROM app.scenarios WHERE tenant_id = $1 AND scenario_id = $2",
    );
    let tenant = tx.tenant_id().as_uuid();
    tx.optional(query.bind(tenant).bind(id.as_uuid())).await
}

/// What became of an edit.
#[derive(Debug)]
pub enum Edited {
    /// Stored with the next version; commits with the transaction.
    Scenario(Box<Scenario>),
    /// Somebody else has edited it since `expected_version`.
    VersionDiffers,
    /// No such scenario of this tenant.
    NotFound,
}

/// Replaces a scenario's content if it still has `expected_version`.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn edit(
    tx: &mut TenantTx,
    id: ScenarioId,
    expected_version: i32,
    content: &ScenarioContent,
) -> Result<Edited, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let query = sqlx::query_as(
        "UPDATE app.scenarios SET name = $4, notes = $5, input = $6, version = version + 1, updated_at = now()
         WHERE tenant_id = $1 AND scenario_id = $2 AND version = $3
         RETURNING scenario_id, name, notes, input, version, created_at, updated_at",
    );
    let query = query.bind(tenant).bind(id.as_uuid()).bind(expected_version);
    let query = query.bind(&content.name).bind(&content.notes).bind(&content.input);
    if let Some(scenario) = tx.optional(query).await? {
        return Ok(Edited::Scenario(Box::new(scenario)));
    }
    Ok(if read_in(tx, id).await?.is_some() { Edited::VersionDiffers } else { Edited::NotFound })
}

/// The tenant's scenarios, the newest first, from `after` on, in one trip.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn list(scope: &TenantScope, after: PageKey, limit: u32) -> Result<Page<ScenarioSummary>, StoreError> {
    let statement = "SELECT scenario_id, name, notes, version, created_at, updated_at
         FROM app.read_scenarios($1, $2, $3, $4) ORDER BY created_at DESC, scenario_id DESC";
    let rows: Vec<ScenarioSummary> =
        scope.read_all(statement, |query| query.bind(after.at).bind(after.id).bind(i64::from(limit) + 1)).await?;
    Ok(Page::of(rows, limit, |row| PageKey { at: row.created_at, id: row.scenario_id }))
}
