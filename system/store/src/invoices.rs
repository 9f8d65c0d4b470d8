//! Invoices from draft to issue.
//!
//! Not for reading them to their owner: see [`crate::invoice_views`]. One invoice for each tenant,
//! period, kind and sequence is the database's own rule; numbers come from the tenant's row in the transaction
//! that issues, so they have no gaps.

use chrono::{DateTime, Utc};
use forecastle_domain::{InvoiceDraft, InvoiceId, InvoiceKind, InvoiceLine, InvoiceState, Period};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::scope::TenantTx;
use crate::{credit_notes, ledger};

/// An invoice that is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenInvoice {
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// Issued, else a draft.
    pub is_issued: bool,
    /// When it may be issued.
    pub issue_due_at: DateTime<Utc>,
    /// Declined charges of its schedule so far.
    pub dunning_step: u32,
    /// When the next charge of its schedule is due, if there is one.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When it is given up, after the last one.
    pub give_up_at: Option<DateTime<Utc>>,
}

#[derive(FromRow)]
struct OpenRow {
    invoice_id: Uuid,
    state: String,
    issue_due_at: DateTime<Utc>,
    issued_at: Option<DateTime<Utc>>,
    dunning_step: i32,
    next_attempt_at: Option<DateTime<Utc>>,
    give_up_at: Option<DateTime<Utc>>,
}

impl From<OpenRow> for OpenInvoice {
    fn from(row: OpenRow) -> Self {
        Self {
            invoice_id: row.invoice_id.into(),
            is_issued: row.state == "issued",
            issue_due_at: row.issue_due_at,
            dunning_step: u32::try_from(row.dunning_step).unwrap_or(0),
            next_attempt_at: match row.give_up_at {
                // At issue, where no other time is written.
                None => row.next_attempt_at.or(row.issued_at),
                Some(_) => None,
            },
            give_up_at: row.give_up_at,
        }
    }
}

/// Every issued invoice of the tenant that waits for money, the oldest first.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn issued(tx: &mut TenantTx) -> Result<Vec<OpenInvoice>, StoreError> {
    let query = sqlx::query_as(
        "SELECT invoice_id, state, issue_due_at, issued_at, dunning_step, next_attempt_at, give_up_at
         FROM app.invoices WHERE tenant_id = $1 AND state = 'issued' ORDER BY issue_due_at, number",
    );
    let rows: Vec<OpenRow> = tx.all(query.bind(tx.tenant_id().as_uuid())).await?;
    Ok(rows.into_iter().map(OpenInvoice::from).collect())
}

/// A period's subscription invoice, and whether it is a draft; `None` if it has none.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn of_period(
    tx: &mut TenantTx,
    period_index: u32,
) -> Result<Option<(OpenInvoice, InvoiceState)>, StoreError> {
    let query = sqlx::query_as(
        "SELECT invoice_id, state, issue_due_at, issued_at, dunning_step, next_attempt_at, give_up_at
         FROM app.invoices WHERE tenant_id = $1 AND kind = 'subscription' AND period_index = $2",
    );
    let index = i32::try_from(period_index).unwrap_or(i32::MAX);
    let row: Option<OpenRow> = tx.optional(query.bind(tx.tenant_id().as_uuid()).bind(index)).await?;
    row.map(|row| {
        let state = row.state.parse().map_err(|_| StoreError::Corrupt { what: "invoices.state" })?;
        Ok((row.into(), state))
    })
    .transpose()
}

/// The newest period that has a subscription invoice, be it a draft; `None` if no period has one.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn newest_drafted(tx: &mut TenantTx) -> Result<Option<u32>, StoreError> {
    let query =
        sqlx::query_scalar("SELECT max(period_index) FROM app.invoices WHERE tenant_id = $1 AND kind = 'subscription'");
    let newest: Option<Option<i32>> = tx.scalar(query.bind(tx.tenant_id().as_uuid())).await?;
    Ok(newest.flatten().and_then(|index| u32::try_from(index).ok()))
}

/// What a draft charges for the starting period, minor units; `None` where it has no base line.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn drafted_base_minor(tx: &mut TenantTx, invoice: InvoiceId) -> Result<Option<i64>, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT unit_price_minor FROM app.invoice_lines WHERE tenant_id = $1 AND invoice_id = $2 AND kind = 'base'",
    );
    tx.scalar(query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid())).await
}

/// Which of a period's invoices one is; unique with tenant and period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvoiceKey {
    /// Why it exists.
    pub kind: InvoiceKind,
    /// 0 for a subscription; 1, 2, 3 and so on for the prorations of a period's upgrades.
    pub sequence: u32,
}

impl InvoiceKey {
    /// The period's one subscription invoice.
    pub const SUBSCRIPTION: Self = Self { kind: InvoiceKind::Subscription, sequence: 0 };
}

/// The key of the period's next proration. The caller holds the tenant's lock, so no other takes it.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn next_proration(tx: &mut TenantTx, period_index: u32) -> Result<InvoiceKey, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT coalesce(max(sequence), 0) + 1 FROM app.invoices
         WHERE tenant_id = $1 AND period_index = $2 AND kind = 'proration'",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(i32::try_from(period_index).unwrap_or(i32::MAX));
    let next: Option<i32> = tx.scalar(query).await?;
    let sequence = next.and_then(|next| u32::try_from(next).ok());
    Ok(InvoiceKey {
        kind: InvoiceKind::Proration,
        sequence: sequence.ok_or(StoreError::Corrupt { what: "invoices.sequence" })?,
    })
}

/// Stores a draft for a period, dated at `drafted_at`: the period's start for its subscription, the change
/// for a proration. The caller holds the tenant's lock.
///
/// # Errors
/// `Conflict` on `invoices_one_per_period` if the period has one of that key; else as [`StoreError`] says.
pub async fn insert_draft(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    key: InvoiceKey,
    period: &Period,
    draft: &InvoiceDraft,
    drafted_at: DateTime<Utc>,
    issue_due_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO app.invoices (tenant_id, invoice_id, period_index, kind, sequence, period_start, period_end,
                                   currency, state, tax_minor, total_minor, drafted_at, issue_due_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'draft', $9, $10, $11, $12)",
    );
    let query = query
        .bind(tx.tenant_id().as_uuid())
        .bind(invoice.as_uuid())
        .bind(i32::try_from(period.index).unwrap_or(i32::MAX))
        .bind(key.kind.as_str())
        .bind(i32::try_from(key.sequence).unwrap_or(i32::MAX))
        .bind(period.start)
        .bind(period.end)
        .bind(draft.total.currency.as_str())
        .bind(tax_minor(&draft.lines))
        .bind(draft.total.amount_minor)
        .bind(drafted_at)
        .bind(issue_due_at);
    tx.execute(query).await?;
    put_lines(tx, invoice, &draft.lines).await
}

/// What issuing gave an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    /// The tenant's next number.
    pub number: i64,
    /// What is owed after the customer's credit was used for it; 0: it is paid.
    pub due_minor: i64,
}

/// Issues a draft with its final lines: gives it the tenant's next number, dates it at `issued_at`, posts it,
/// and uses the customer's credit for it.
///
/// # Errors
/// `NotFound` if it is no draft any more (another run issued it); else as [`StoreError`] says.
pub async fn issue(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    draft: &InvoiceDraft,
    issued_at: DateTime<Utc>,
) -> Result<Issued, StoreError> {
    put_lines(tx, invoice, &draft.lines).await?;
    let query = sqlx::query_as(
        "WITH taken AS (
             UPDATE app.tenants SET next_invoice_number = next_invoice_number + 1
             WHERE tenant_id = $1 RETURNING next_invoice_number - 1 AS number)
         UPDATE app.invoices i
         SET state = 'issued', number = taken.number, issued_at = $3, tax_minor = $4, total_minor = $5,
             next_attempt_at = $3
         FROM taken
         WHERE i.tenant_id = $1 AND i.invoice_id = $2 AND i.state = 'draft'
         RETURNING i.number",
    );
    let (currency, total_minor) = (draft.total.currency, draft.total.amount_minor);
    let tax_minor = tax_minor(&draft.lines);
    let query =
        query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid()).bind(issued_at).bind(tax_minor).bind(total_minor);
    let (number,): (i64,) = tx.one(query).await?;
    ledger::post_invoice_issued(tx, invoice, currency, total_minor, tax_minor).await?;
    let due_minor = credit_notes::apply_balance(tx, invoice, currency, total_minor).await?;
    Ok(Issued { number, due_minor })
}

/// Marks an issued invoice as paid; `false` if it was not waiting for money.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn mark_paid(tx: &mut TenantTx, invoice: InvoiceId) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE app.invoices SET state = 'paid', paid_at = greatest(now(), issued_at), next_attempt_at = NULL
         WHERE tenant_id = $1 AND invoice_id = $2 AND state = 'issued'",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid());
    Ok(tx.execute(query).await? == 1)
}

/// Writes the lines, over the draft's where they exist: between draft and issue lines only grow.
async fn put_lines(tx: &mut TenantTx, invoice: InvoiceId, lines: &[InvoiceLine]) -> Result<(), StoreError> {
    for (line_no, line) in (1_i32..).zip(lines) {
        let query = sqlx::query(
            "INSERT INTO app.invoice_lines (tenant_id, invoice_id, line_no, kind, description, quantity,
                                            unit_price_minor, amount_minor, tax_minor)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (tenant_id, invoice_id, line_no) DO UPDATE
             SET quantity = excluded.quantity, amount_minor = excluded.amount_minor, tax_minor = excluded.tax_minor",
        );
        let query = query
            .bind(tx.tenant_id().as_uuid())
            .bind(invoice.as_uuid())
            .bind(line_no)
            .bind(line.kind.as_str())
            .bind(&line.description)
            .bind(line.quantity)
            .bind(line.unit_price_minor)
            .bind(line.amount_minor)
            .bind(line.tax_minor);
        tx.execute(query).await?;
    }
    Ok(())
}

fn tax_minor(lines: &[InvoiceLine]) -> i64 {
    lines.iter().map(|line| line.tax_minor).sum()
}
