//! Payments as their tenant reads them. Making them is billing's business.

use chrono::{DateTime, Utc};
use forecastle_domain::{InvoiceId, PaymentId};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::paging::{Page, PageKey};
use crate::scope::TenantTx;

/// A payment, words as stored. Neither its token nor the provider's ids.
#[derive(Debug, Clone, FromRow)]
pub struct PaymentView {
    payment_id: Uuid,
    invoice_id: Uuid,
    /// Which try it is: `invoice`, `dunning-1` to `dunning-3`, `pay-1` and so on.
    pub purpose: String,
    /// Minor units.
    pub amount_minor: i64,
    /// How much of it was given back, minor units.
    pub refunded_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// intended, unknown, succeeded or failed.
    pub state: String,
    /// When it was written down, before the provider was asked.
    pub created_at: DateTime<Utc>,
    /// When its state changed last.
    pub updated_at: DateTime<Utc>,
}

impl PaymentView {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> PaymentId {
        self.payment_id.into()
    }

    /// What it pays.
    #[must_use]
    pub fn invoice_id(&self) -> InvoiceId {
        self.invoice_id.into()
    }
}

/// A payment of this tenant; `None` if there is none of that id.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn read(tx: &mut TenantTx, id: PaymentId) -> Result<Option<PaymentView>, StoreError> {
    let query = sqlx::query_as(
        "SELECT payment_id, invoice_id, purpose, amount_minor, refunded_minor, currency, state, created_at, updated_at
         FROM app.payments WHERE tenant_id = $1 AND payment_id = $2",
    );
    tx.optional(query.bind(tx.tenant_id().as_uuid()).bind(id.as_uuid())).await
}

/// The tenant's payments, the newest first, from `after` on.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn list(tx: &mut TenantTx, after: PageKey, limit: u32) -> Result<Page<PaymentView>, StoreError> {
    let query = sqlx::query_as(
        "SELECT payment_id, invoice_id, purpose, amount_minor, refunded_minor, currency, state, created_at, updated_at
         FROM app.payments WHERE tenant_id = $1 AND (created_at, payment_id) < ($2, $3)
         ORDER BY created_at DESC, payment_id DESC LIMIT $4",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(after.at).bind(after.id).bind(i64::from(limit) + 1);
    let rows: Vec<PaymentView> = tx.all(query).await?;
    Ok(Page::of(rows, limit, |row| PageKey { at: row.created_at, id: row.payment_id }))
}
