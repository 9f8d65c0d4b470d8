//! Payment intents. The row exists before the provider is asked; its key comes from what is paid,
//! never from the attempt; every change of state names the states it may start from.

use forecastle_domain::{Currency, InvoiceId, PaymentId, TenantId};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::scope::TenantTx;
use crate::{invoices, ledger};

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// Written down; the provider may or may not have been asked.
    Intended,
    /// Asked, and no clear answer came.
    Unknown,
    /// The money came in.
    Succeeded,
    /// The provider said no.
    Failed,
}

/// One intent to collect one invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Its id.
    pub payment_id: PaymentId,
    /// What it pays.
    pub invoice_id: InvoiceId,
    /// Sent with every request about it, the same each time.
    pub idempotency_key: String,
    /// How much, minor units.
    pub amount_minor: i64,
    /// In what.
    pub currency: Currency,
    /// Where it stands.
    pub state: PaymentState,
}

#[derive(FromRow)]
struct PaymentRow {
    payment_id: Uuid,
    invoice_id: Uuid,
    idempotency_key: String,
    amount_minor: i64,
    currency: String,
    state: String,
}

/// The key of an invoice's payment: the same for every attempt, process and year.
#[must_use]
pub fn idempotency_key(tenant: TenantId, invoice: InvoiceId) -> String {
    format!("inv-{tenant}-{invoice}-invoice")
}

/// Writes down, for every issued invoice that has none, the intent to collect it, and returns all of
/// the tenant's payments that have not succeeded, oldest invoice first.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn intend_all(tx: &mut TenantTx) -> Result<Vec<Payment>, StoreError> {
    let tenant = tx.tenant_id();
    let without = sqlx::query_as(
        "SELECT i.invoice_id FROM app.invoices i
         WHERE i.tenant_id = $1 AND i.state = 'issued'
           AND NOT EXISTS (SELECT 1 FROM app.payments p
                           WHERE p.tenant_id = i.tenant_id AND p.invoice_id = i.invoice_id AND p.purpose = 'invoice')
         ORDER BY i.period_index",
    );
    let without: Vec<(Uuid,)> = tx.all(without.bind(tenant.as_uuid())).await?;
    for (invoice,) in without {
        let query = sqlx::query(
            "INSERT INTO app.payments (tenant_id, payment_id, invoice_id, purpose, idempotency_key, amount_minor,
                                       currency, state, created_at, updated_at)
             SELECT i.tenant_id, $3, i.invoice_id, 'invoice', $4, i.total_minor, i.currency, 'intended', now(), now()
             FROM app.invoices i WHERE i.tenant_id = $1 AND i.invoice_id = $2
             ON CONFLICT (tenant_id, invoice_id, purpose) DO NOTHING",
        );
        let query = query
            .bind(tenant.as_uuid())
            .bind(invoice)
            .bind(Uuid::now_v7())
            .bind(idempotency_key(tenant, invoice.into()));
        tx.execute(query).await?;
    }
    let open = sqlx::query_as(
        "SELECT p.payment_id, p.invoice_id, p.idempotency_key, p.amount_minor, p.currency, p.state
         FROM app.payments p
         JOIN app.invoices i ON i.tenant_id = p.tenant_id AND i.invoice_id = p.invoice_id
         WHERE p.tenant_id = $1 AND p.state <> 'succeeded' AND i.state = 'issued'
         ORDER BY i.period_index",
    );
    let rows: Vec<PaymentRow> = tx.all(open.bind(tenant.as_uuid())).await?;
    rows.into_iter().map(Payment::try_from).collect()
}

/// The provider charged: payment, invoice and ledger move together. `false` if another run had recorded
/// it already; then nothing is written.
///
/// # Errors
/// `Corrupt` if the invoice was not waiting for money; else as [`StoreError`] says.
pub async fn record_success(
    tx: &mut TenantTx,
    payment: &Payment,
    provider_charge_id: &str,
) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE app.payments SET state = 'succeeded', provider_charge_id = $3, updated_at = now()
         WHERE tenant_id = $1 AND payment_id = $2 AND state <> 'succeeded'",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(payment.payment_id.as_uuid()).bind(provider_charge_id);
    if tx.execute(query).await? == 0 {
        return Ok(false);
    }
    if !invoices::mark_paid(tx, payment.invoice_id).await? {
        return Err(StoreError::Corrupt { what: "invoices.state" });
    }
    ledger::post_payment_received(tx, payment.payment_id, payment.currency, payment.amount_minor).await?;
    Ok(true)
}

/// No clear answer: the charge may have happened. Never moves a payment that succeeded.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn record_unknown(tx: &mut TenantTx, payment: PaymentId) -> Result<(), StoreError> {
    record(tx, payment, "unknown").await
}

/// The provider said no. Never moves a payment that succeeded.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn record_failure(tx: &mut TenantTx, payment: PaymentId) -> Result<(), StoreError> {
    record(tx, payment, "failed").await
}

async fn record(tx: &mut TenantTx, payment: PaymentId, state: &'static str) -> Result<(), StoreError> {
    let query = sqlx::query(
        "UPDATE app.payments SET state = $3, updated_at = now()
         WHERE tenant_id = $1 AND payment_id = $2 AND state <> 'succeeded'",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(payment.as_uuid()).bind(state);
    tx.execute(query).await.map(drop)
}

impl TryFrom<PaymentRow> for Payment {
    type Error = StoreError;

    fn try_from(row: PaymentRow) -> Result<Self, StoreError> {
        Ok(Self {
            payment_id: row.payment_id.into(),
            invoice_id: row.invoice_id.into(),
            idempotency_key: row.idempotency_key,
            amount_minor: row.amount_minor,
            currency: row.currency.parse().map_err(|_| StoreError::Corrupt { what: "payments.currency" })?,
            state: match row.state.as_str() {
                "intended" => PaymentState::Intended,
                "unknown" => PaymentState::Unknown,
                "succeeded" => PaymentState::Succeeded,
                "failed" => PaymentState::Failed,
                _ => {
                    return Err(StoreError::Corrupt { what: "payments.state" });
                }
            },
        })
    }
}
