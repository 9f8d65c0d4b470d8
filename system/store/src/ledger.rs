//! Double-entry postings. Rows are only ever added; each posting balances, which the database checks
//! when the transaction commits, and happens once, which a unique key sees to.

use forecastle_domain::{Currency, InvoiceId, PaymentId};
use uuid::Uuid;

use crate::credit_notes::CreditNote;
use crate::error::StoreError;
use crate::scope::TenantTx;

struct Entry {
    account: &'static str,
    debit_minor: i64,
    credit_minor: i64,
}

const fn debit(account: &'static str, minor: i64) -> Entry {
    Entry { account, debit_minor: minor, credit_minor: 0 }
}

const fn credit(account: &'static str, minor: i64) -> Entry {
    Entry { account, debit_minor: 0, credit_minor: minor }
}

/// An invoice was issued: the customer owes its total, of which the tax is not ours.
///
/// # Errors
/// `Conflict` if it was posted already; else as [`StoreError`] says.
pub async fn post_invoice_issued(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    currency: Currency,
    total_minor: i64,
    tax_minor: i64,
) -> Result<(), StoreError> {
    let entries = [
        debit("accounts_receivable", total_minor),
        credit("revenue", total_minor - tax_minor),
        credit("tax_payable", tax_minor),
    ];
    post(tx, "invoice_issued", invoice.as_uuid(), currency, &entries).await
}

/// Money came in for an invoice: it is ours, and no longer owed.
///
/// # Errors
/// `Conflict` if it was posted already; else as [`StoreError`] says.
pub async fn post_payment_received(
    tx: &mut TenantTx,
    payment: PaymentId,
    currency: Currency,
    amount_minor: i64,
) -> Result<(), StoreError> {
    let entries = [debit("cash", amount_minor), credit("accounts_receivable", amount_minor)];
    post(tx, "payment_received", payment.as_uuid(), currency, &entries).await
}

/// An invoice was corrected: less was earned, less tax is due, and what of it was not owed any more is owed
/// to the customer.
///
/// # Errors
/// `Conflict` if it was posted already; else as [`StoreError`] says.
pub async fn post_credit_note(
    tx: &mut TenantTx,
    credit_note: Uuid,
    currency: Currency,
    tax_minor: i64,
    note: &CreditNote,
) -> Result<(), StoreError> {
    let entries = [
        debit("revenue", note.total_minor - tax_minor),
        debit("tax_payable", tax_minor),
        credit("accounts_receivable", note.to_receivable_minor),
        credit("customer_credit", note.to_balance_minor),
    ];
    post(tx, "credit_note", credit_note, currency, &entries).await
}

/// The customer's credit paid for an invoice, or for a part of it.
///
/// # Errors
/// `Conflict` if it was posted already; else as [`StoreError`] says.
pub async fn post_credit_applied(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    currency: Currency,
    amount_minor: i64,
) -> Result<(), StoreError> {
    let entries = [debit("customer_credit", amount_minor), credit("accounts_receivable", amount_minor)];
    post(tx, "credit_applied", invoice.as_uuid(), currency, &entries).await
}

/// An invoice was given up: what it owed is lost.
///
/// # Errors
/// `Conflict` if it was posted already; else as [`StoreError`] says.
pub async fn post_written_off(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    currency: Currency,
    amount_minor: i64,
) -> Result<(), StoreError> {
    let entries = [debit("bad_debt", amount_minor), credit("accounts_receivable", amount_minor)];
    post(tx, "written_off", invoice.as_uuid(), currency, &entries).await
}

/// Money went back to the customer: first out of its credit, the rest onto an account of refunds.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn post_payment_refunded(
    tx: &mut TenantTx,
    currency: Currency,
    back_minor: i64,
    from_credit_minor: i64,
) -> Result<(), StoreError> {
    let entries = [
        debit("customer_credit", from_credit_minor),
        debit("refunds", back_minor - from_credit_minor),
        credit("cash", back_minor),
    ];
    // A payment may be given back in parts, each a posting of its own.
    post(tx, "payment_refunded", Uuid::now_v7(), currency, &entries).await
}

/// Money came in for a charge that counted as declined: nothing is owed for it, so it is the customer\'s credit.
///
/// # Errors
/// `Conflict` if it was posted already; else as [`StoreError`] says.
pub async fn post_unexpected_payment(
    tx: &mut TenantTx,
    payment: PaymentId,
    currency: Currency,
    amount_minor: i64,
) -> Result<(), StoreError> {
    let entries = [debit("cash", amount_minor), credit("customer_credit", amount_minor)];
    post(tx, "payment_unexpected", payment.as_uuid(), currency, &entries).await
}

/// Entries of nothing are left out; a negative amount stands on the other side.
async fn post(
    tx: &mut TenantTx,
    kind: &'static str,
    reference: Uuid,
    currency: Currency,
    entries: &[Entry],
) -> Result<(), StoreError> {
    let entries = entries.iter().map(|e| {
        let net = e.debit_minor - e.credit_minor;
        Entry { account: e.account, debit_minor: net.max(0), credit_minor: (-net).max(0) }
    });
    let written: Vec<Entry> = entries.filter(|e| e.debit_minor != e.credit_minor).collect();
    let query = sqlx::query(
        "INSERT INTO app.ledger_entries
             (tenant_id, entry_id, posting_kind, posting_ref, account, currency, debit_minor, credit_minor, posted_at)
         SELECT $1, entry.id, $2, $3, entry.account, $4, entry.debit_minor, entry.credit_minor, now()
         FROM unnest($5::uuid[], $6::text[], $7::bigint[], $8::bigint[])
              AS entry (id, account, debit_minor, credit_minor)",
    );
    let query = query
        .bind(tx.tenant_id().as_uuid())
        .bind(kind)
        .bind(reference)
        .bind(currency.as_str())
        .bind(written.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
        .bind(written.iter().map(|e| e.account.to_owned()).collect::<Vec<_>>())
        .bind(written.iter().map(|e| e.debit_minor).collect::<Vec<_>>())
        .bind(written.iter().map(|e| e.credit_minor).collect::<Vec<_>>());
    tx.execute(query).await.map(drop)
}
