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

/// An invoice's place in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvoiceStanding {
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// Index of the period that starts with it.
    pub period_index: u32,
    /// Where it stands.
    pub state: InvoiceState,
    /// When it may be issued.
    pub issue_due_at: DateTime<Utc>,
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

#[derive(FromRow)]
struct StandingRow {
    invoice_id: Uuid,
    period_index: i32,
    state: String,
    issue_due_at: DateTime<Utc>,
}

/// Every subscription invoice of the tenant, by period.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn standings(tx: &mut TenantTx) -> Result<Vec<InvoiceStanding>, StoreError> {
    let query = sqlx::query_as(
        "SELECT invoice_id, period_index, state, issue_due_at FROM app.invoices
         WHERE tenant_id = $1 AND kind = 'subscription' ORDER BY period_index",
    );
    let rows: Vec<StandingRow> = tx.all(query.bind(tx.tenant_id().as_uuid())).await?;
    rows.into_iter()
        .map(|row| {
            Ok(InvoiceStanding {
                invoice_id: row.invoice_id.into(),
                period_index: u32::try_from(row.period_index)
                    .map_err(|_| StoreError::Corrupt { what: "invoices.period_index" })?,
                state: row.state.parse().map_err(|_| StoreError::Corrupt { what: "invoices.state" })?,
                issue_due_at: row.issue_due_at,
            })
        })
        .collect()
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

/// Issues a draft with its final lines: gives it the tenant's next number and dates it at `issued_at`.
/// Returns the number.
///
/// # Errors
/// `NotFound` if it is no draft any more (another run issued it); else as [`StoreError`] says.
pub async fn issue(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    draft: &InvoiceDraft,
    issued_at: DateTime<Utc>,
) -> Result<i64, StoreError> {
    put_lines(tx, invoice, &draft.lines).await?;
    let query = sqlx::query_as(
        "WITH taken AS (
             UPDATE app.tenants SET next_invoice_number = next_invoice_number + 1
             WHERE tenant_id = $1 RETURNING next_invoice_number - 1 AS number)
         UPDATE app.invoices i
         SET state = 'issued', number = taken.number, issued_at = $3, tax_minor = $4, total_minor = $5
         FROM taken
         WHERE i.tenant_id = $1 AND i.invoice_id = $2 AND i.state = 'draft'
         RETURNING i.number",
    );
    let query = query
        .bind(tx.tenant_id().as_uuid())
        .bind(invoice.as_uuid())
        .bind(issued_at)
        .bind(tax_minor(&draft.lines))
        .bind(draft.total.amount_minor);
    let (number,): (i64,) = tx.one(query).await?;
    Ok(number)
}

/// Marks an issued invoice as paid; `false` if it was not waiting for money.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn mark_paid(tx: &mut TenantTx, invoice: InvoiceId) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE app.invoices SET state = 'paid', paid_at = greatest(now(), issued_at)
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
