//! Changes of plan: the history, and the one that waits for its period's end.
//!
//! Law: `tenants.plan` and the newest applied change say the same, because both change in one transaction
//! under the tenant's lock (see [`crate::periods::lock_profile`]).

use chrono::{DateTime, Utc};
use forecastle_domain::{AppliedChange, InvoiceId, Plan, PlanChangeKind, PlanHistory};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::scope::TenantTx;

/// Why a change was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeCause {
    /// The customer wanted it.
    Customer,
    /// An invoice was given up: FREE from the period's end. The customer cannot take it back.
    Unpaid,
}

impl ChangeCause {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Unpaid => "unpaid",
        }
    }
}

/// A change that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingChange {
    /// Its id.
    pub change_id: Uuid,
    /// In force until then.
    pub from: Plan,
    /// In force from then on.
    pub to: Plan,
    /// The end of a period.
    pub effective_at: DateTime<Utc>,
    /// Who wanted it.
    pub cause: ChangeCause,
}

#[derive(FromRow)]
struct ChangeRow {
    change_id: Uuid,
    from_plan: String,
    to_plan: String,
    effective_at: DateTime<Utc>,
    cause: String,
}

impl TryFrom<ChangeRow> for PendingChange {
    type Error = StoreError;

    fn try_from(row: ChangeRow) -> Result<Self, StoreError> {
        let plan = |word: &str| word.parse().map_err(|_| StoreError::Corrupt { what: "plan_changes.to_plan" });
        Ok(Self {
            change_id: row.change_id,
            from: plan(&row.from_plan)?,
            to: plan(&row.to_plan)?,
            effective_at: row.effective_at,
            cause: if row.cause == "unpaid" { ChangeCause::Unpaid } else { ChangeCause::Customer },
        })
    }
}

/// Every plan the tenant was on; `current` is what its row says.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn history(tx: &mut TenantTx, current: Plan) -> Result<PlanHistory, StoreError> {
    let query = sqlx::query_as(
        "SELECT change_id, from_plan, to_plan, effective_at, cause FROM app.plan_changes
         WHERE tenant_id = $1 AND state = 'applied' ORDER BY effective_at, seq",
    );
    let rows: Vec<ChangeRow> = tx.all(query.bind(tx.tenant_id().as_uuid())).await?;
    let changes = rows.into_iter().map(|row| {
        let change = PendingChange::try_from(row)?;
        Ok(AppliedChange { effective_at: change.effective_at, from: change.from, to: change.to })
    });
    Ok(PlanHistory::new(current, changes.collect::<Result<_, StoreError>>()?))
}

/// The change that waits, if there is one.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn pending(tx: &mut TenantTx) -> Result<Option<PendingChange>, StoreError> {
    let query = sqlx::query_as(
        "SELECT change_id, from_plan, to_plan, effective_at, cause FROM app.plan_changes
         WHERE tenant_id = $1 AND state = 'pending'",
    );
    let row: Option<ChangeRow> = tx.optional(query.bind(tx.tenant_id().as_uuid())).await?;
    row.map(PendingChange::try_from).transpose()
}

/// Applies an upgrade now: the tenant's row and the history. The caller holds the tenant's lock, has applied
/// what was due before `at` ([`apply_due`]) and taken back what waits ([`cancel_pending`]).
///
/// # Errors
/// `Refused` if it is no upgrade; else as [`StoreError`] says.
pub async fn apply_upgrade(
    tx: &mut TenantTx,
    change_id: Uuid,
    from: Plan,
    to: Plan,
    at: DateTime<Utc>,
    proration: Option<InvoiceId>,
) -> Result<(), StoreError> {
    if PlanChangeKind::of(from, to) != Some(PlanChangeKind::Upgrade) {
        return Err(StoreError::Refused { code: "plan_change_kind".to_owned() });
    }
    let query = sqlx::query(
        "INSERT INTO app.plan_changes (tenant_id, change_id, from_plan, to_plan, kind, state, requested_at, effective_at,
                                       applied_at, invoice_id)
         VALUES ($1, $2, $3, $4, 'upgrade', 'applied', $5, $5, $5, $6)",
    );
    let query = query
        .bind(tx.tenant_id().as_uuid())
        .bind(change_id)
        .bind(from.as_str())
        .bind(to.as_str())
        .bind(at)
        .bind(proration.map(InvoiceId::as_uuid));
    tx.execute(query).await?;
    set_plan(tx, to).await
}

/// Writes a downgrade down, to take effect when a period ends. The caller holds the tenant's lock and has
/// taken back what waits.
///
/// # Errors
/// `Conflict` on `plan_changes_one_pending` if one waits; `Refused` if it is no downgrade.
pub async fn schedule_downgrade(
    tx: &mut TenantTx,
    change: &PendingChange,
    requested_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    if PlanChangeKind::of(change.from, change.to) != Some(PlanChangeKind::Downgrade) {
        return Err(StoreError::Refused { code: "plan_change_kind".to_owned() });
    }
    let query = sqlx::query(
        "INSERT INTO app.plan_changes (tenant_id, change_id, from_plan, to_plan, kind, cause, state, requested_at,
                                       effective_at)
         VALUES ($1, $2, $3, $4, 'downgrade', $5, 'pending', $6, $7)",
    );
    let query = query
        .bind(tx.tenant_id().as_uuid())
        .bind(change.change_id)
        .bind(change.from.as_str())
        .bind(change.to.as_str())
        .bind(change.cause.as_str())
        .bind(requested_at)
        .bind(change.effective_at);
    tx.execute(query).await.map(drop)
}

/// Takes back what waits; `false` if nothing did. The caller holds the tenant's lock, and leaves a change for
/// [`ChangeCause::Unpaid`] alone unless it puts FREE in its place.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn cancel_pending(tx: &mut TenantTx, at: DateTime<Utc>) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE app.plan_changes SET state = 'cancelled', cancelled_at = $2
         WHERE tenant_id = $1 AND state = 'pending'",
    );
    Ok(tx.execute(query.bind(tx.tenant_id().as_uuid()).bind(at)).await? == 1)
}

/// Applies the waiting change if its time has come by `at`, dated at its own time; what it was. The caller
/// holds the tenant's lock and deletes the tenant's cached plan after the commit.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn apply_due(tx: &mut TenantTx, at: DateTime<Utc>) -> Result<Option<AppliedChange>, StoreError> {
    let query = sqlx::query_as(
        "UPDATE app.plan_changes SET state = 'applied', applied_at = effective_at
         WHERE tenant_id = $1 AND state = 'pending' AND effective_at <= $2
         RETURNING change_id, from_plan, to_plan, effective_at, cause",
    );
    let row: Option<ChangeRow> = tx.optional(query.bind(tx.tenant_id().as_uuid()).bind(at)).await?;
    let Some(change) = row.map(PendingChange::try_from).transpose()? else { return Ok(None) };
    set_plan(tx, change.to).await?;
    Ok(Some(AppliedChange { effective_at: change.effective_at, from: change.from, to: change.to }))
}

async fn set_plan(tx: &mut TenantTx, plan: Plan) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE app.tenants SET plan = $2 WHERE tenant_id = $1");
    tx.execute(query.bind(tx.tenant_id().as_uuid()).bind(plan.as_str())).await.map(drop)
}
