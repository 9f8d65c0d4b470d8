//! The provider's events about charges of ours. An event is written down before it has an effect, in the
//! same transaction, so it has one effect however often it is sent.

use chrono::{DateTime, Utc};
use forecastle_domain::InvoiceId;
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::ledger;
use crate::payments::{Payment, PaymentState, parse_state};
use crate::scope::TenantTx;

/// An event as it is written down.
#[derive(Debug, Clone, Copy)]
pub struct EventRecord<'a> {
    /// The provider's id of the event.
    pub event_id: &'a str,
    /// Its type.
    pub kind: &'static str,
    /// The key of the charge it is about.
    pub charge_key: &'a str,
    /// When the message was signed.
    pub sent_at: DateTime<Utc>,
}

/// The payment of one key, which nobody else changes until this transaction ends.
#[derive(Debug, Clone)]
pub struct ChargedPayment {
    /// The payment.
    pub payment: Payment,
    /// The provider's id of the charge that paid it, or that took money although it had been declined.
    pub charge_id: Option<String>,
    /// How much of that was given back, minor units.
    pub refunded_minor: i64,
}

#[derive(FromRow)]
struct Row {
    payment_id: Uuid,
    purpose: String,
    amount_minor: i64,
    currency: String,
    payment_token: Option<String>,
    state: String,
    charge_id: Option<String>,
    refunded_minor: i64,
}

/// The tenant's payment of this invoice and key, locked; `None` if there is none. The caller holds the
/// tenant's lock.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn lock_payment(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    key: &str,
) -> Result<Option<ChargedPayment>, StoreError> {
    let query = sqlx::query_as(
        "SELECT payment_id, purpose, amount_minor, currency, payment_token, state,
                coalesce(provider_charge_id, unexpected_charge_id) AS charge_id,
                CASE state WHEN 'failed' THEN unexpected_refunded_minor ELSE refunded_minor END AS refunded_minor
         FROM app.payments WHERE tenant_id = $1 AND invoice_id = $2 AND idempotency_key = $3 FOR UPDATE",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid()).bind(key);
    let row: Option<Row> = tx.optional(query).await?;
    let Some(row) = row else { return Ok(None) };
    let payment = Payment {
        payment_id: row.payment_id.into(),
        invoice_id: invoice,
        purpose: row.purpose.parse().map_err(|_| StoreError::Corrupt { what: "payments.purpose" })?,
        idempotency_key: key.to_owned(),
        amount_minor: row.amount_minor,
        currency: row.currency.parse().map_err(|_| StoreError::Corrupt { what: "payments.currency" })?,
        payment_token: row.payment_token,
        state: parse_state(&row.state)?,
    };
    Ok(Some(ChargedPayment { payment, charge_id: row.charge_id, refunded_minor: row.refunded_minor }))
}

/// Writes an event down; `false` if it was there already: then it has had its effect. One that is being
/// taken in elsewhere is waited for.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn note(tx: &mut TenantTx, event: &EventRecord<'_>) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "INSERT INTO app.webhook_events (tenant_id, event_id, kind, charge_key, sent_at, received_at, outcome)
         VALUES ($1, $2, $3, $4, $5, clock_timestamp(), 'noted')
         ON CONFLICT (tenant_id, event_id) DO NOTHING",
    );
    let query = query
        .bind(tx.tenant_id().as_uuid())
        .bind(event.event_id)
        .bind(event.kind)
        .bind(event.charge_key)
        .bind(event.sent_at);
    Ok(tx.execute(query).await? == 1)
}

/// Says what came of an event that this transaction wrote down.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn set_outcome(tx: &mut TenantTx, event_id: &str, outcome: &'static str) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE app.webhook_events SET outcome = $3 WHERE tenant_id = $1 AND event_id = $2");
    tx.execute(query.bind(tx.tenant_id().as_uuid()).bind(event_id).bind(outcome)).await.map(drop)
}

/// The provider has given back `refunded_minor` of a payment in all; `false` if that much was known. What
/// the customer had to its credit is used up first; the rest stands on an account of its own, to be
/// looked at. Of a failed payment: of what was taken all the same, which has been credited.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn record_refund(
    tx: &mut TenantTx,
    charged: &ChargedPayment,
    refunded_minor: i64,
) -> Result<bool, StoreError> {
    let back_minor = refunded_minor - charged.refunded_minor;
    if back_minor <= 0 {
        return Ok(false);
    }
    let tenant = tx.tenant_id().as_uuid();
    let query = match charged.payment.state {
        PaymentState::Succeeded => sqlx::query(
            "UPDATE app.payments SET refunded_minor = $3, updated_at = now()
             WHERE tenant_id = $1 AND payment_id = $2 AND state = 'succeeded' AND refunded_minor = $4",
        ),
        PaymentState::Failed => sqlx::query(
            "UPDATE app.payments SET unexpected_refunded_minor = $3, updated_at = now()
             WHERE tenant_id = $1 AND payment_id = $2 AND state = 'failed' AND unexpected_refunded_minor = $4",
        ),
        PaymentState::Intended | PaymentState::Unknown => return Ok(false),
    };
    let query = query.bind(tenant).bind(charged.payment.payment_id.as_uuid());
    if tx.execute(query.bind(refunded_minor).bind(charged.refunded_minor)).await? == 0 {
        return Ok(false);
    }
    let query = sqlx::query_scalar(
        "UPDATE app.tenants SET credit_balance_minor = credit_balance_minor - least(credit_balance_minor, $2)
         WHERE tenant_id = $1
         RETURNING least((SELECT t.credit_balance_minor FROM app.tenants t WHERE t.tenant_id = $1), $2)",
    );
    let from_credit: Option<i64> = tx.scalar(query.bind(tenant).bind(back_minor)).await?;
    let from_credit_minor = from_credit.ok_or(StoreError::NotFound)?;
    ledger::post_payment_refunded(tx, charged.payment.currency, back_minor, from_credit_minor).await?;
    Ok(true)
}
