//! What a tenant pays with: the provider's token in use, and those before it.

use chrono::{DateTime, Utc};
use forecastle_domain::{AuditAction, PaymentToken, UserId};
use sqlx::FromRow;
use uuid::Uuid;

use crate::audit::{self, AuditEvent};
use crate::error::StoreError;
use crate::scope::TenantTx;

/// The payment method in use, without what could be charged with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentMethod {
    /// The token's last characters; `None` of a short one.
    pub hint: Option<String>,
    /// When it was set.
    pub set_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct Row {
    token: Option<String>,
    set_at: DateTime<Utc>,
}

/// The payment method in use; `None` if the tenant never gave one.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn current(tx: &mut TenantTx) -> Result<Option<PaymentMethod>, StoreError> {
    let query = sqlx::query_as(
        "SELECT t.payment_token AS token,
                coalesce((SELECT max(m.set_at) FROM app.payment_methods m WHERE m.tenant_id = t.tenant_id),
                         t.signed_up_at) AS set_at
         FROM app.tenants t WHERE t.tenant_id = $1",
    );
    let row: Row = tx.one(query.bind(tx.tenant_id().as_uuid())).await?;
    Ok(row.token.map(|token| PaymentMethod { hint: PaymentToken::hint(&token), set_at: row.set_at }))
}

/// Puts a payment method in the place of the one in use.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn replace(tx: &mut TenantTx, token: &PaymentToken, by: UserId) -> Result<(), StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    // The tenant's row first, as everybody who writes the books does.
    let query = sqlx::query("UPDATE app.tenants SET payment_token = $2 WHERE tenant_id = $1");
    tx.execute(query.bind(tenant).bind(token.as_str())).await?;
    let query = sqlx::query(
        "INSERT INTO app.payment_methods (tenant_id, payment_method_id, token, set_by, set_at)
         VALUES ($1, $2, $3, $4, clock_timestamp())",
    );
    tx.execute(query.bind(tenant).bind(Uuid::now_v7()).bind(token.as_str()).bind(by.as_uuid())).await?;
    audit::record(tx, AuditEvent::of_tenant(AuditAction::PaymentMethodChanged).by(by)).await
}
