//! What becomes of an invoice whose charge was declined, and of its tenant.
//!
//! Order: declined up to four times, past due with the last, written off when it is given up. Every function
//! expects the tenant's lock ([`crate::periods::lock_tenant`]).

use chrono::{DateTime, Utc};
use forecastle_domain::{
    AfterDecline, BillingTerms, ChargePurpose, Currency, DunningNotice, InvoiceId, Mail, Money, parse_zone,
};
use sqlx::FromRow;

use crate::error::StoreError;
use crate::scope::TenantTx;
use crate::{credit_notes, ledger, mail_outbox, plan_upgrades};

#[derive(FromRow)]
struct InvoiceRow {
    kind: String,
    state: String,
    number: Option<i64>,
    dunning_step: i32,
    issued_at: Option<DateTime<Utc>>,
    currency: String,
    due_minor: i64,
    time_zone: String,
}

impl InvoiceRow {
    fn due(&self) -> Result<Money, StoreError> {
        let currency: Currency =
            self.currency.parse().map_err(|_| StoreError::Corrupt { what: "invoices.currency" })?;
        Ok(Money::new(currency, self.due_minor))
    }
}

async fn invoice_row(tx: &mut TenantTx, invoice: InvoiceId) -> Result<InvoiceRow, StoreError> {
    let query = sqlx::query_as(
        "SELECT i.kind, i.state, i.number, i.dunning_step, i.issued_at, i.currency, t.time_zone,
                greatest(0, i.total_minor - i.credit_applied_minor - i.credited_minor) AS due_minor
         FROM app.invoices i JOIN app.tenants t USING (tenant_id)
         WHERE i.tenant_id = $1 AND i.invoice_id = $2",
    );
    tx.one(query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid())).await
}

/// A charge of an invoice was declined. Of the schedule, the next one is set, with a mail to the owners, or
/// the tenant is past due. A proration is not dunned: it is credited in full and void, since the plan it
/// asked for is not given.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn declined(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    purpose: ChargePurpose,
    terms: &BillingTerms,
) -> Result<(), StoreError> {
    let row = invoice_row(tx, invoice).await?;
    let (Some(issued_at), "issued") = (row.issued_at, row.state.as_str()) else { return Ok(()) };
    if row.kind == "proration" {
        let key = format!("declined {invoice}");
        credit_notes::credit_all(tx, invoice, "The charge was declined", &key).await?;
        return plan_upgrades::declined(tx, invoice).await;
    }
    let step = u32::try_from(row.dunning_step).map_err(|_| StoreError::Corrupt { what: "invoices.dunning_step" })?;
    if purpose.step() != Some(step) {
        return Ok(());
    }
    let after = terms.after_decline(issued_at, step);
    let (next_attempt_at, give_up_at) = match after {
        AfterDecline::TryAgain { at } => (Some(at), None),
        AfterDecline::PastDue { give_up_at, .. } => (None, Some(give_up_at)),
    };
    let query = sqlx::query(
        "UPDATE app.invoices SET dunning_step = dunning_step + 1, next_attempt_at = $3, give_up_at = $4
         WHERE tenant_id = $1 AND invoice_id = $2",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid()).bind(next_attempt_at).bind(give_up_at);
    tx.execute(query).await?;
    if let AfterDecline::PastDue { since, .. } = after {
        let query = sqlx::query(
            "UPDATE app.tenants SET billing_state = 'past_due', past_due_since = coalesce(past_due_since, $2)
             WHERE tenant_id = $1",
        );
        tx.execute(query.bind(tx.tenant_id().as_uuid()).bind(since)).await?;
    }
    let zone = parse_zone(&row.time_zone).map_err(|_| StoreError::Corrupt { what: "tenants.time_zone" })?;
    let mail = Mail::Dunning(DunningNotice {
        invoice_number: row.number.ok_or(StoreError::Corrupt { what: "invoices.number" })?,
        owed: row.due()?,
        failed_charges: step + 1,
        next_charge_on: next_attempt_at.map(|at| at.with_timezone(&zone).date_naive()),
    });
    mail_outbox::enqueue_to_owners(tx, &mail, &format!("dunning {invoice} {step}")).await.map(drop)
}

/// Gives an invoice up: it is uncollectible from `at` on, and what it owed a bad debt. `false` if it was not
/// waiting for money any more.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn write_off(tx: &mut TenantTx, invoice: InvoiceId, at: DateTime<Utc>) -> Result<bool, StoreError> {
    let due = invoice_row(tx, invoice).await?.due()?;
    let query = sqlx::query(
        "UPDATE app.invoices SET state = 'uncollectible', uncollectible_at = $3, next_attempt_at = NULL
         WHERE tenant_id = $1 AND invoice_id = $2 AND state = 'issued'",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid()).bind(at);
    if tx.execute(query).await? == 0 {
        return Ok(false);
    }
    ledger::post_written_off(tx, invoice, due.currency, due.amount_minor).await?;
    Ok(true)
}

/// Ends being past due where nothing overdue is left; whether it did. After a write-off it lasts until the
/// plan is FREE.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn clear_past_due(tx: &mut TenantTx) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE app.tenants t SET billing_state = 'current', past_due_since = NULL
         WHERE t.tenant_id = $1 AND t.billing_state = 'past_due'
           AND NOT EXISTS (SELECT 1 FROM app.invoices i
                           WHERE i.tenant_id = t.tenant_id AND i.state = 'issued' AND i.give_up_at IS NOT NULL)
           AND NOT EXISTS (SELECT 1 FROM app.plan_changes c
                           WHERE c.tenant_id = t.tenant_id AND c.state = 'pending' AND c.cause = 'unpaid')",
    );
    Ok(tx.execute(query.bind(tx.tenant_id().as_uuid())).await? == 1)
}
