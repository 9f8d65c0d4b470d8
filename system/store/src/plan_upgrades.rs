//! Upgrades from their request to their end. One waits for its money at a time; what it becomes is decided
//! once, in the transaction that records what the provider said.
//!
//! Not for the history of plans: an upgrade that was paid becomes a row of [`crate::plan_changes`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use forecastle_domain::{AuditAction, InvoiceId, Plan, UserId};
use sqlx::FromRow;
use uuid::Uuid;

use crate::audit::{self, AuditEvent};
use crate::credit_notes::{self, Credited};
use crate::error::StoreError;
use crate::plan_changes::{self, ChangeCause};
use crate::scope::TenantTx;

/// The index that a second waiting upgrade of a tenant breaks.
pub const ONE_WAITING: &str = "plan_upgrades_one_waiting";

/// How an upgrade stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeState {
    /// Its invoice is issued; whether the money came is not known yet.
    AwaitingPayment,
    /// In force since it was asked for.
    Applied,
    /// The provider said no: its invoice is void, and nothing else changed.
    Declined,
    /// The money came after the period had been closed on the old plan: it is the customer's credit.
    Lapsed,
}

impl UpgradeState {
    /// The word it is stored and shown as.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingPayment => "awaiting_payment",
            Self::Applied => "applied",
            Self::Declined => "declined",
            Self::Lapsed => "lapsed",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::AwaitingPayment, Self::Applied, Self::Declined, Self::Lapsed].into_iter().find(|s| s.as_str() == word)
    }
}

/// An upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Its id, and that of the plan change it becomes.
    pub change_id: Uuid,
    /// The plan it was asked for on.
    pub from: Plan,
    /// The plan asked for.
    pub to: Plan,
    /// The period it was asked for in.
    pub period_index: u32,
    /// How it stands.
    pub state: UpgradeState,
    /// Who asked for it.
    pub requested_by: UserId,
    /// Digest of the request that made it.
    pub fingerprint: Vec<u8>,
    /// When it was asked for; the charge is counted from then.
    pub requested_at: DateTime<Utc>,
    /// Its invoice; `None` where nothing was to be charged.
    pub invoice: Option<InvoiceId>,
}

/// Who asked for an upgrade, and under which key.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeRequest<'a> {
    /// Who.
    pub user: UserId,
    /// The idempotency key.
    pub key: &'a str,
    /// How long an answer is kept under it; an upgrade that ended longer ago is none of this request's.
    pub kept: Duration,
}

impl UpgradeRequest<'_> {
    fn kept_ms(&self) -> i64 {
        i64::try_from(self.kept.as_millis()).unwrap_or(i64::MAX)
    }
}

#[derive(FromRow)]
struct Row {
    change_id: Uuid,
    from_plan: String,
    to_plan: String,
    period_index: i32,
    state: String,
    requested_by: Uuid,
    fingerprint: Vec<u8>,
    requested_at: DateTime<Utc>,
    invoice_id: Option<Uuid>,
}

impl TryFrom<Row> for Upgrade {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |what| StoreError::Corrupt { what };
        Ok(Self {
            change_id: row.change_id,
            from: row.from_plan.parse().map_err(|_| corrupt("plan_upgrades.from_plan"))?,
            to: row.to_plan.parse().map_err(|_| corrupt("plan_upgrades.to_plan"))?,
            period_index: u32::try_from(row.period_index).map_err(|_| corrupt("plan_upgrades.period_index"))?,
            state: UpgradeState::parse(&row.state).ok_or_else(|| corrupt("plan_upgrades.state"))?,
            requested_by: row.requested_by.into(),
            fingerprint: row.fingerprint,
            requested_at: row.requested_at,
            invoice: row.invoice_id.map(InvoiceId::from_uuid),
        })
    }
}

/// Writes an upgrade down. The caller holds the tenant's lock, and the key, which an upgrade that ended before
/// answers are kept from gives up.
///
/// # Errors
/// `Conflict` on [`ONE_WAITING`] if another one waits; else as [`StoreError`] says.
pub async fn insert(tx: &mut TenantTx, upgrade: &Upgrade, by: UpgradeRequest<'_>) -> Result<(), StoreError> {
    // No key that is sent has a line's end in it.
    let query = sqlx::query(
        "UPDATE app.plan_upgrades SET idempotency_key = idempotency_key || E'\\n' || change_id
         WHERE tenant_id = $1 AND requested_by = $2 AND idempotency_key = $3 AND state <> 'declined'
           AND settled_at <= clock_timestamp() - $4 * interval '1 millisecond'",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(by.user.as_uuid()).bind(by.key).bind(by.kept_ms());
    tx.execute(query).await?;
    let query = sqlx::query(
        "INSERT INTO app.plan_upgrades (tenant_id, change_id, from_plan, to_plan, period_index, state, requested_by,
                                        idempotency_key, fingerprint, requested_at, settled_at, invoice_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CASE WHEN $6 <> 'awaiting_payment' THEN $10 END, $11)",
    );
    let query = query
        .bind(tx.tenant_id().as_uuid())
        .bind(upgrade.change_id)
        .bind(upgrade.from.as_str())
        .bind(upgrade.to.as_str())
        .bind(i32::try_from(upgrade.period_index).unwrap_or(i32::MAX))
        .bind(upgrade.state.as_str())
        .bind(by.user.as_uuid())
        .bind(by.key)
        .bind(&upgrade.fingerprint)
        .bind(upgrade.requested_at)
        .bind(upgrade.invoice.map(InvoiceId::as_uuid));
    tx.execute(query).await.map(drop)
}

/// The upgrade that was asked for under a key and was not declined: one that waits for its money, however long,
/// or that ended not so long ago that its answer would be forgotten.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn of_request(tx: &mut TenantTx, by: UpgradeRequest<'_>) -> Result<Option<Upgrade>, StoreError> {
    let query = sqlx::query_as(
        "SELECT change_id, from_plan, to_plan, period_index, state, requested_by, fingerprint, requested_at,
                invoice_id
         FROM app.plan_upgrades
         WHERE tenant_id = $1 AND requested_by = $2 AND idempotency_key = $3 AND state <> 'declined'
           AND (settled_at IS NULL OR settled_at > clock_timestamp() - $4 * interval '1 millisecond')",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(by.user.as_uuid()).bind(by.key).bind(by.kept_ms());
    read(tx.optional(query).await?)
}

/// An upgrade by its id.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn by_id(tx: &mut TenantTx, change: Uuid) -> Result<Option<Upgrade>, StoreError> {
    let query = sqlx::query_as(
        "SELECT change_id, from_plan, to_plan, period_index, state, requested_by, fingerprint, requested_at,
                invoice_id
         FROM app.plan_upgrades WHERE tenant_id = $1 AND change_id = $2",
    );
    read(tx.optional(query.bind(tx.tenant_id().as_uuid()).bind(change)).await?)
}

/// The upgrade that waits for its money, if there is one.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn waiting(tx: &mut TenantTx) -> Result<Option<Upgrade>, StoreError> {
    let query = sqlx::query_as(
        "SELECT change_id, from_plan, to_plan, period_index, state, requested_by, fingerprint, requested_at,
                invoice_id
         FROM app.plan_upgrades WHERE tenant_id = $1 AND state = 'awaiting_payment'",
    );
    read(tx.optional(query.bind(tx.tenant_id().as_uuid())).await?)
}

/// The upgrade that waits for this invoice's money. The caller holds the tenant's lock.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn waiting_for(tx: &mut TenantTx, invoice: InvoiceId) -> Result<Option<Upgrade>, StoreError> {
    Ok(waiting(tx).await?.filter(|upgrade| upgrade.invoice == Some(invoice)))
}

/// Ends a waiting upgrade; `false` if it had ended already.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn settle(tx: &mut TenantTx, change: Uuid, state: UpgradeState) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE app.plan_upgrades SET state = $3, settled_at = greatest(now(), requested_at)
         WHERE tenant_id = $1 AND change_id = $2 AND state = 'awaiting_payment'",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(change).bind(state.as_str());
    Ok(tx.execute(query).await? == 1)
}

/// The time by which changes are dated: that of this moment, so after every wait for the tenant's lock.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn clock(tx: &mut TenantTx) -> Result<DateTime<Utc>, StoreError> {
    let (now,): (DateTime<Utc>,) = tx.one(sqlx::query_as("SELECT clock_timestamp()")).await?;
    Ok(now)
}

/// Whether the books reach beyond a period: the next one has its draft, or is closed.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn is_billed_beyond(tx: &mut TenantTx, period_index: u32) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM app.period_closings WHERE tenant_id = $1 AND period_index > $2)
             OR EXISTS (SELECT 1 FROM app.invoices
                        WHERE tenant_id = $1 AND kind = 'subscription' AND period_index > $2)",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(i32::try_from(period_index).unwrap_or(i32::MAX));
    Ok(tx.scalar(query).await?.unwrap_or(true))
}

/// Puts an upgrade in force from the moment it was asked for, in the place of a downgrade that waited. The
/// caller holds the tenant's lock and has asked whether the period is still open.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn apply(tx: &mut TenantTx, upgrade: &Upgrade) -> Result<(), StoreError> {
    if plan_changes::pending(tx).await?.is_some_and(|pending| pending.cause == ChangeCause::Customer) {
        let now = clock(tx).await?;
        plan_changes::cancel_pending(tx, now).await?;
    }
    plan_changes::apply_upgrade(tx, upgrade.change_id, upgrade.from, upgrade.to, upgrade.requested_at, upgrade.invoice)
        .await?;
    let event = AuditEvent::of_tenant(AuditAction::PlanChanged).by(upgrade.requested_by);
    audit::record(tx, event.changed(upgrade.from.as_str(), upgrade.to.as_str())).await?;
    settle(tx, upgrade.change_id, UpgradeState::Applied).await.map(drop)
}

/// An invoice was paid: the upgrade that waited for it is in force. Where the plan it started from, or its
/// period, is over by now, it has lapsed: the money becomes the customer's credit. Either happens in the
/// transaction that records the money.
///
/// # Errors
/// As [`StoreError`] says.
pub(crate) async fn paid(tx: &mut TenantTx, invoice: InvoiceId) -> Result<(), StoreError> {
    let Some(upgrade) = waiting_for(tx, invoice).await? else { return Ok(()) };
    let query = sqlx::query_as("SELECT plan FROM app.tenants WHERE tenant_id = $1");
    let (plan,): (String,) = tx.one(query.bind(tx.tenant_id().as_uuid())).await?;
    if plan == upgrade.from.as_str() && !is_billed_beyond(tx, upgrade.period_index).await? {
        return apply(tx, &upgrade).await;
    }
    let key = format!("lapsed {invoice}");
    match credit_notes::credit_all(tx, invoice, "Paid after the period's end; the plan was not given", &key).await? {
        Credited::Note(_) => settle(tx, upgrade.change_id, UpgradeState::Lapsed).await.map(drop),
        _ => Err(StoreError::Corrupt { what: "invoices: a lapsed upgrade's cannot be credited" }),
    }
}

/// An invoice was declined and is void: nothing comes of the upgrade that waited for it.
///
/// # Errors
/// As [`StoreError`] says.
pub(crate) async fn declined(tx: &mut TenantTx, invoice: InvoiceId) -> Result<(), StoreError> {
    let Some(upgrade) = waiting_for(tx, invoice).await? else { return Ok(()) };
    settle(tx, upgrade.change_id, UpgradeState::Declined).await.map(drop)
}

fn read(row: Option<Row>) -> Result<Option<Upgrade>, StoreError> {
    row.map(Upgrade::try_from).transpose()
}
