//! Payment intents. The row exists before the provider is asked; its key comes from what is paid and
//! why, never from the attempt; every change of state names the states it may start from.
//!
//! Law, kept by an index: of an invoice's payments at most one is not failed. So what may still have
//! taken the money is settled under its own key before any other is tried.
//!
//! Every function that writes expects the tenant's lock ([`crate::periods::lock_tenant`]).

use std::fmt;

use forecastle_domain::{BillingTerms, ChargePurpose, Currency, InvoiceId, PaymentId, TenantId};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::scope::TenantTx;
use crate::{dunning, invoices, ledger, plan_upgrades};

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// Written down; the provider may or may not have been asked.
    Intended,
    /// Asked, and no clear answer came.
    Unknown,
    /// The money came in.
    Succeeded,
    /// The provider said no; final for its key.
    Failed,
}

/// One intent to collect one invoice.
#[derive(Clone, PartialEq, Eq)]
pub struct Payment {
    /// Its id.
    pub payment_id: PaymentId,
    /// What it pays.
    pub invoice_id: InvoiceId,
    /// Which try it is.
    pub purpose: ChargePurpose,
    /// Sent with every request about it, the same each time.
    pub idempotency_key: String,
    /// How much, minor units.
    pub amount_minor: i64,
    /// In what.
    pub currency: Currency,
    /// What is charged: the tenant's token when the intent was written; `None` where there was none.
    pub payment_token: Option<String>,
    /// Where it stands.
    pub state: PaymentState,
}

impl fmt::Debug for Payment {
    /// Without token and amount.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { payment_id, invoice_id, purpose, state, .. } = self;
        write!(f, "Payment({payment_id} {purpose} of {invoice_id}: {state:?})")
    }
}

#[derive(FromRow)]
struct PaymentRow {
    payment_id: Uuid,
    invoice_id: Uuid,
    purpose: String,
    idempotency_key: String,
    amount_minor: i64,
    currency: String,
    payment_token: Option<String>,
    state: String,
}

/// The key of a charge: the same for every attempt, process and year.
#[must_use]
pub fn idempotency_key(tenant: TenantId, invoice: InvoiceId, purpose: ChargePurpose) -> String {
    format!("inv-{tenant}-{invoice}-{purpose}")
}

/// Writes down the intent to collect what an issued invoice still owes, once for each purpose; the payment
/// of that purpose as it stands then.
///
/// # Errors
/// `NotFound` if the invoice owes nothing; `Conflict` on `payments_one_open_or_succeeded` if another
/// payment of it is open; else as [`StoreError`] says.
pub async fn intend(tx: &mut TenantTx, invoice: InvoiceId, purpose: ChargePurpose) -> Result<Payment, StoreError> {
    let tenant = tx.tenant_id();
    let query = sqlx::query(
        "INSERT INTO app.payments (tenant_id, payment_id, invoice_id, purpose, idempotency_key, amount_minor,
                                   currency, payment_token, state, created_at, updated_at)
         SELECT i.tenant_id, $3, i.invoice_id, $4, $5, i.total_minor - i.credit_applied_minor - i.credited_minor,
                i.currency, t.payment_token, 'intended', now(), now()
         FROM app.invoices i JOIN app.tenants t USING (tenant_id)
         WHERE i.tenant_id = $1 AND i.invoice_id = $2 AND i.state = 'issued'
           AND i.total_minor > i.credit_applied_minor + i.credited_minor
         ON CONFLICT (tenant_id, invoice_id, purpose) DO NOTHING",
    );
    let query = query
        .bind(tenant.as_uuid())
        .bind(invoice.as_uuid())
        .bind(Uuid::now_v7())
        .bind(purpose.to_string())
        .bind(idempotency_key(tenant, invoice, purpose));
    tx.execute(query).await?;
    let query = sqlx::query_as(
        "SELECT p.payment_id, p.invoice_id, p.purpose, p.idempotency_key, p.amount_minor, p.currency, p.state,
                coalesce(p.payment_token, t.payment_token) AS payment_token
         FROM app.payments p JOIN app.tenants t USING (tenant_id)
         WHERE p.tenant_id = $1 AND p.invoice_id = $2 AND p.purpose = $3",
    );
    let query = query.bind(tenant.as_uuid()).bind(invoice.as_uuid()).bind(purpose.to_string());
    let row: PaymentRow = tx.one(query).await?;
    row.try_into()
}

/// The purpose of the next try that the customer asks for.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn next_pay_purpose(tx: &mut TenantTx, invoice: InvoiceId) -> Result<ChargePurpose, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT count(*) FROM app.payments WHERE tenant_id = $1 AND invoice_id = $2 AND purpose LIKE 'pay-%'",
    );
    let count: Option<i64> = tx.scalar(query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid())).await?;
    Ok(ChargePurpose::Pay(count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0) + 1))
}

/// Every payment of the tenant that may still take money, the oldest first.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn open(tx: &mut TenantTx) -> Result<Vec<Payment>, StoreError> {
    let query = sqlx::query_as(
        "SELECT p.payment_id, p.invoice_id, p.purpose, p.idempotency_key, p.amount_minor, p.currency, p.state,
                coalesce(p.payment_token, t.payment_token) AS payment_token
         FROM app.payments p JOIN app.tenants t USING (tenant_id)
         WHERE p.tenant_id = $1 AND p.state IN ('intended', 'unknown') ORDER BY p.created_at, p.payment_id",
    );
    let rows: Vec<PaymentRow> = tx.all(query.bind(tx.tenant_id().as_uuid())).await?;
    rows.into_iter().map(Payment::try_from).collect()
}

/// What money that the provider took is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// The payment's: it is recorded now.
    Paid,
    /// The customer's credit, recorded now: the payment counts as declined, and its invoice went on without it.
    Credited,
    /// Recorded before, as either.
    Known,
}

/// The provider charged: payment, invoice and ledger move together, and a tenant that owes nothing overdue
/// any more is past due no longer. Whoever hears of the charge (the run, a request, an event) records it so.
///
/// # Errors
/// `Corrupt` if the invoice was not waiting for money; else as [`StoreError`] says.
pub async fn record_success(
    tx: &mut TenantTx,
    payment: &Payment,
    provider_charge_id: &str,
) -> Result<Received, StoreError> {
    let query = sqlx::query(
        "UPDATE app.payments SET state = 'succeeded', provider_charge_id = $3, updated_at = now()
         WHERE tenant_id = $1 AND payment_id = $2 AND state IN ('intended', 'unknown')",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(payment.payment_id.as_uuid()).bind(provider_charge_id);
    if tx.execute(query).await? == 0 {
        return match state(tx, payment.payment_id).await? {
            PaymentState::Failed if credit_unexpected(tx, payment, provider_charge_id).await? => Ok(Received::Credited),
            PaymentState::Failed | PaymentState::Succeeded => Ok(Received::Known),
            PaymentState::Intended | PaymentState::Unknown => Err(StoreError::Corrupt { what: "payments.state" }),
        };
    }
    if !invoices::mark_paid(tx, payment.invoice_id).await? {
        return Err(StoreError::Corrupt { what: "invoices.state" });
    }
    ledger::post_payment_received(tx, payment.payment_id, payment.currency, payment.amount_minor).await?;
    dunning::clear_past_due(tx).await?;
    plan_upgrades::paid(tx, payment.invoice_id).await?;
    Ok(Received::Paid)
}

/// The provider took money for a key that counts as declined: it becomes the customer's credit, once;
/// `false` if it had. The charge is noted either way, for the refund that may follow.
async fn credit_unexpected(tx: &mut TenantTx, payment: &Payment, charge_id: &str) -> Result<bool, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let query = sqlx::query(
        "UPDATE app.payments SET unexpected_charge_id = $3, updated_at = now()
         WHERE tenant_id = $1 AND payment_id = $2 AND state = 'failed' AND unexpected_charge_id IS NULL",
    );
    tx.execute(query.bind(tenant).bind(payment.payment_id.as_uuid()).bind(charge_id)).await?;
    let query = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM app.ledger_entries
                        WHERE tenant_id = $1 AND posting_kind = 'payment_unexpected' AND posting_ref = $2)",
    );
    if tx.scalar(query.bind(tenant).bind(payment.payment_id.as_uuid())).await? == Some(true) {
        return Ok(false);
    }
    ledger::post_unexpected_payment(tx, payment.payment_id, payment.currency, payment.amount_minor).await?;
    let query =
        sqlx::query("UPDATE app.tenants SET credit_balance_minor = credit_balance_minor + $2 WHERE tenant_id = $1");
    tx.execute(query.bind(tenant).bind(payment.amount_minor)).await?;
    Ok(true)
}

/// No clear answer: the charge may have happened. Moves only a payment that is open.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn record_unknown(tx: &mut TenantTx, payment: PaymentId) -> Result<(), StoreError> {
    let query = sqlx::query(
        "UPDATE app.payments SET state = 'unknown', updated_at = now()
         WHERE tenant_id = $1 AND payment_id = $2 AND state IN ('intended', 'unknown')",
    );
    tx.execute(query.bind(tx.tenant_id().as_uuid()).bind(payment.as_uuid())).await.map(drop)
}

/// The provider said no, or there is nothing to charge: the key is spent, and the invoice's dunning moves
/// on. `false` if the payment was settled already; then nothing is written.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn record_decline(tx: &mut TenantTx, payment: &Payment, terms: &BillingTerms) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE app.payments SET state = 'failed', updated_at = now()
         WHERE tenant_id = $1 AND payment_id = $2 AND state IN ('intended', 'unknown')",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(payment.payment_id.as_uuid());
    if tx.execute(query).await? == 0 {
        return Ok(false);
    }
    dunning::declined(tx, payment.invoice_id, payment.purpose, terms).await?;
    Ok(true)
}

async fn state(tx: &mut TenantTx, payment: PaymentId) -> Result<PaymentState, StoreError> {
    let query = sqlx::query_scalar("SELECT state FROM app.payments WHERE tenant_id = $1 AND payment_id = $2");
    let word: Option<String> = tx.scalar(query.bind(tx.tenant_id().as_uuid()).bind(payment.as_uuid())).await?;
    parse_state(&word.ok_or(StoreError::NotFound)?)
}

pub(crate) fn parse_state(word: &str) -> Result<PaymentState, StoreError> {
    match word {
        "intended" => Ok(PaymentState::Intended),
        "unknown" => Ok(PaymentState::Unknown),
        "succeeded" => Ok(PaymentState::Succeeded),
        "failed" => Ok(PaymentState::Failed),
        _ => Err(StoreError::Corrupt { what: "payments.state" }),
    }
}

impl TryFrom<PaymentRow> for Payment {
    type Error = StoreError;

    fn try_from(row: PaymentRow) -> Result<Self, StoreError> {
        Ok(Self {
            payment_id: row.payment_id.into(),
            invoice_id: row.invoice_id.into(),
            purpose: row.purpose.parse().map_err(|_| StoreError::Corrupt { what: "payments.purpose" })?,
            idempotency_key: row.idempotency_key,
            amount_minor: row.amount_minor,
            currency: row.currency.parse().map_err(|_| StoreError::Corrupt { what: "payments.currency" })?,
            payment_token: row.payment_token,
            state: parse_state(&row.state)?,
        })
    }
}
