//! Usage events as the billing run reads them. They are written with the result they stand for, in
//! [`crate::jobs::complete`], and nowhere else.

use chrono::{DateTime, Utc};
use forecastle_domain::InvoiceId;

use crate::error::StoreError;
use crate::scope::TenantTx;

/// How many events stamped before `end` no closing has counted yet: the ended period's, and stragglers of
/// earlier periods that committed after their own closing.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn count_unbilled(tx: &mut TenantTx, end: DateTime<Utc>) -> Result<u64, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT count(*) FROM app.usage_events
         WHERE tenant_id = $1 AND occurred_at < $2 AND billed_period_index IS NULL AND invoice_id IS NULL",
    );
    let tenant = tx.tenant_id().as_uuid();
    let count: Option<i64> = tx.scalar(query.bind(tenant).bind(end)).await?;
    Ok(count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// Counts those events in the closing of the boundary `period_index`, for ever; how many there were. Count and
/// mark are one statement.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn bill(tx: &mut TenantTx, end: DateTime<Utc>, period_index: u32) -> Result<u64, StoreError> {
    let query = sqlx::query(
        "UPDATE app.usage_events SET billed_period_index = $3
         WHERE tenant_id = $1 AND occurred_at < $2 AND billed_period_index IS NULL AND invoice_id IS NULL",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(end).bind(i32::try_from(period_index).unwrap_or(i32::MAX));
    tx.execute(query).await
}

/// Puts what a closing counted on its invoice.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn put_on_invoice(tx: &mut TenantTx, period_index: u32, invoice: InvoiceId) -> Result<(), StoreError> {
    let query = sqlx::query(
        "UPDATE app.usage_events SET invoice_id = $3
         WHERE tenant_id = $1 AND billed_period_index = $2 AND invoice_id IS NULL",
    );
    let index = i32::try_from(period_index).unwrap_or(i32::MAX);
    tx.execute(query.bind(tx.tenant_id().as_uuid()).bind(index).bind(invoice.as_uuid())).await.map(drop)
}

/// Counts in a closing what stands on its invoice already, put there by an instance of before closings; how
/// many there are.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn adopt(tx: &mut TenantTx, period_index: u32, invoice: InvoiceId) -> Result<u64, StoreError> {
    let query =
        sqlx::query("UPDATE app.usage_events SET billed_period_index = $2 WHERE tenant_id = $1 AND invoice_id = $3");
    let index = i32::try_from(period_index).unwrap_or(i32::MAX);
    tx.execute(query.bind(tx.tenant_id().as_uuid()).bind(index).bind(invoice.as_uuid())).await
}
