//! Usage events as the billing run reads them. They are written with the result they stand for, in
//! [`crate::jobs::complete`], and nowhere else.

use chrono::{DateTime, Utc};
use forecastle_domain::InvoiceId;

use crate::error::StoreError;
use crate::scope::TenantTx;

/// How many events before `end` are on no invoice yet: the ended period's, and stragglers of earlier
/// periods that committed after their own invoice was issued.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn count_uninvoiced(tx: &mut TenantTx, end: DateTime<Utc>) -> Result<u64, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT count(*) FROM app.usage_events
         WHERE tenant_id = $1 AND occurred_at < $2 AND invoice_id IS NULL",
    );
    let tenant = tx.tenant_id().as_uuid();
    let count: Option<i64> = tx.scalar(query.bind(tenant).bind(end)).await?;
    Ok(count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// Puts those events on the invoice; how many there were. Count and mark are one statement.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn put_on_invoice(tx: &mut TenantTx, end: DateTime<Utc>, invoice: InvoiceId) -> Result<u64, StoreError> {
    let query = sqlx::query(
        "UPDATE app.usage_events SET invoice_id = $3
         WHERE tenant_id = $1 AND occurred_at < $2 AND invoice_id IS NULL",
    );
    let tenant = tx.tenant_id().as_uuid();
    tx.execute(query.bind(tenant).bind(end).bind(invoice.as_uuid())).await
}
