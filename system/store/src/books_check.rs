//! Compares a tenant's invoices, payments, credit notes, closings and ledger with one another.
//!
//! What was never posted is posted, and counted; what contradicts is only counted, since the ledger is
//! never changed: somebody has to look. Both counts are 0 unless there was a bug.

use forecastle_domain::{Currency, InvoiceId, PaymentId};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::ledger;
use crate::scope::TenantTx;

/// What a check found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BooksCheck {
    /// Postings that were missing, and were made.
    pub posted: u64,
    /// Contradictions: see [`check`].
    pub mismatched: u64,
}

#[derive(FromRow)]
struct UnpostedInvoice {
    invoice_id: Uuid,
    currency: String,
    total_minor: i64,
    tax_minor: i64,
}

#[derive(FromRow)]
struct UnpostedPayment {
    payment_id: Uuid,
    currency: String,
    amount_minor: i64,
}

/// Posts what was not, then counts the contradictions: a posting of another amount or of nothing, an invoice
/// whose state and money differ, an account whose balance is not what the rows add up to, a number that
/// is missing, usage that closings did not count as often as there is. The caller holds the tenant's lock.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn check(tx: &mut TenantTx) -> Result<BooksCheck, StoreError> {
    let posted = post_missing(tx).await?;
    let query = sqlx::query_as(CONTRADICTIONS).bind(tx.tenant_id().as_uuid());
    let (mismatched,): (i64,) = tx.one(query).await?;
    Ok(BooksCheck { posted, mismatched: u64::try_from(mismatched).unwrap_or(u64::MAX) })
}

async fn post_missing(tx: &mut TenantTx) -> Result<u64, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let corrupt = |what| StoreError::Corrupt { what };
    let query = sqlx::query_as(
        "SELECT i.invoice_id, i.currency, i.total_minor, i.tax_minor FROM app.invoices i
         WHERE i.tenant_id = $1 AND i.state <> 'draft' AND NOT EXISTS (
             SELECT 1 FROM app.ledger_entries e
             WHERE e.tenant_id = $1 AND e.posting_kind = 'invoice_issued' AND e.posting_ref = i.invoice_id)",
    );
    let invoices: Vec<UnpostedInvoice> = tx.all(query.bind(tenant)).await?;
    for row in &invoices {
        let currency: Currency = row.currency.parse().map_err(|_| corrupt("invoices.currency"))?;
        let invoice = InvoiceId::from_uuid(row.invoice_id);
        ledger::post_invoice_issued(tx, invoice, currency, row.total_minor, row.tax_minor).await?;
    }
    let query = sqlx::query_as(
        "SELECT p.payment_id, p.currency, p.amount_minor FROM app.payments p
         WHERE p.tenant_id = $1 AND p.state = 'succeeded' AND NOT EXISTS (
             SELECT 1 FROM app.ledger_entries e
             WHERE e.tenant_id = $1 AND e.posting_kind = 'payment_received' AND e.posting_ref = p.payment_id)",
    );
    let payments: Vec<UnpostedPayment> = tx.all(query.bind(tenant)).await?;
    for row in &payments {
        let currency: Currency = row.currency.parse().map_err(|_| corrupt("payments.currency"))?;
        ledger::post_payment_received(tx, PaymentId::from_uuid(row.payment_id), currency, row.amount_minor).await?;
    }
    Ok((invoices.len() + payments.len()) as u64)
}

/// One number; each part of the sum is one kind of contradiction.
const CONTRADICTIONS: &str = "
WITH entry AS (SELECT * FROM app.ledger_entries WHERE tenant_id = $1),
posting AS (
    SELECT posting_kind, posting_ref, sum(debit_minor)::bigint AS debit, sum(credit_minor)::bigint AS credit,
           sum(debit_minor - credit_minor) FILTER (WHERE account = 'accounts_receivable')::bigint AS receivable
    FROM entry GROUP BY posting_kind, posting_ref),
invoice AS (SELECT * FROM app.invoices WHERE tenant_id = $1),
payment AS (SELECT * FROM app.payments WHERE tenant_id = $1 AND state = 'succeeded'),
note AS (SELECT * FROM app.credit_notes WHERE tenant_id = $1),
settled AS (
    SELECT i.invoice_id, i.state, i.total_minor, i.credited_minor, i.credit_applied_minor,
           coalesce((SELECT sum(p.amount_minor) FROM payment p WHERE p.invoice_id = i.invoice_id), 0) AS paid,
           coalesce((SELECT sum(n.to_receivable_minor) FROM note n WHERE n.invoice_id = i.invoice_id), 0) AS let_off
    FROM invoice i)
SELECT (
    (SELECT count(*) FROM posting WHERE debit <> credit)
  + (SELECT count(*) FROM invoice i WHERE i.state <> 'draft' AND NOT EXISTS (
        SELECT 1 FROM posting p WHERE p.posting_kind = 'invoice_issued' AND p.posting_ref = i.invoice_id
          AND p.receivable = i.total_minor))
  + (SELECT count(*) FROM payment y WHERE NOT EXISTS (
        SELECT 1 FROM posting p WHERE p.posting_kind = 'payment_received' AND p.posting_ref = y.payment_id
          AND p.receivable = -y.amount_minor))
  + (SELECT count(*) FROM note n WHERE NOT EXISTS (
        SELECT 1 FROM posting p WHERE p.posting_kind = 'credit_note' AND p.posting_ref = n.credit_note_id
          AND coalesce(p.receivable, 0) = -n.to_receivable_minor))
  + (SELECT count(*) FROM invoice i WHERE i.credit_applied_minor > 0 AND NOT EXISTS (
        SELECT 1 FROM posting p WHERE p.posting_kind = 'credit_applied' AND p.posting_ref = i.invoice_id
          AND p.receivable = -i.credit_applied_minor))
  + (SELECT count(*) FROM invoice i WHERE i.state = 'uncollectible' AND NOT EXISTS (
        SELECT 1 FROM posting p WHERE p.posting_kind = 'written_off' AND p.posting_ref = i.invoice_id))
  + (SELECT count(*) FROM posting p WHERE p.posting_kind IN ('invoice_issued', 'credit_applied', 'written_off')
        AND NOT EXISTS (SELECT 1 FROM invoice i WHERE i.invoice_id = p.posting_ref AND i.state <> 'draft'))
  + (SELECT count(*) FROM posting p WHERE p.posting_kind = 'payment_received'
        AND NOT EXISTS (SELECT 1 FROM payment y WHERE y.payment_id = p.posting_ref))
  + (SELECT count(*) FROM posting p WHERE p.posting_kind = 'credit_note'
        AND NOT EXISTS (SELECT 1 FROM note n WHERE n.credit_note_id = p.posting_ref))
  + (SELECT count(*) FROM settled s WHERE
        (s.state = 'paid' AND s.paid + s.credit_applied_minor + s.let_off <> s.total_minor)
        OR (s.state <> 'paid' AND s.paid <> 0)
        OR (s.state = 'issued' AND s.credit_applied_minor + s.credited_minor >= s.total_minor)
        OR (s.credited_minor <> (SELECT coalesce(sum(n.total_minor), 0) FROM note n
                                 WHERE n.invoice_id = s.invoice_id)))
  + (SELECT count(*) FROM app.tenants t WHERE t.tenant_id = $1 AND (
        t.next_invoice_number - 1 <> (SELECT count(*) FROM invoice WHERE number IS NOT NULL)
        OR t.next_invoice_number - 1 <> (SELECT coalesce(max(number), 0) FROM invoice)
        OR t.next_credit_note_number - 1 <> (SELECT count(*) FROM note)
        OR t.credit_balance_minor <> (SELECT coalesce(sum(credit_minor - debit_minor), 0) FROM entry
                                      WHERE account = 'customer_credit')
        OR (SELECT coalesce(sum(debit_minor - credit_minor), 0) FROM entry WHERE account = 'accounts_receivable')
           <> (SELECT coalesce(sum(s.total_minor - s.credit_applied_minor - s.credited_minor), 0) FROM settled s
               WHERE s.state = 'issued')))
  + (SELECT count(*) FROM (
        SELECT (SELECT coalesce(sum(c.usage_events), 0) FROM app.period_closings c WHERE c.tenant_id = $1) AS counted,
               (SELECT count(*) FROM app.usage_events u
                WHERE u.tenant_id = $1 AND u.billed_period_index IS NOT NULL) AS marked) u
     WHERE u.counted <> u.marked)
)::bigint";
