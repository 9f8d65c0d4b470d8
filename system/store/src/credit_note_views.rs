//! Credit notes as their tenant reads them. Making them is billing's business.

use chrono::{DateTime, Utc};
use forecastle_domain::InvoiceId;
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::paging::{Page, PageKey};
use crate::scope::TenantTx;

/// A credit note with its lines.
#[derive(Debug, Clone)]
pub struct CreditNoteView {
    /// Head and sums.
    pub head: CreditNoteHead,
    /// In their own order.
    pub lines: Vec<CreditNoteLine>,
}

/// Head and sums of a credit note.
#[derive(Debug, Clone, FromRow)]
pub struct CreditNoteHead {
    /// Its id.
    pub credit_note_id: Uuid,
    invoice_id: Uuid,
    /// Without gaps per tenant, counted apart from invoices.
    pub number: i64,
    /// Why it was given.
    pub reason: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Σ of the lines' taxes, minor units.
    pub tax_minor: i64,
    /// Σ of the lines' amounts and taxes, minor units.
    pub total_minor: i64,
    /// How much of it was still owed and is owed no more, minor units.
    pub to_receivable_minor: i64,
    /// How much of it was paid and is the customer's credit, minor units.
    pub to_balance_minor: i64,
    /// When it was given.
    pub issued_at: DateTime<Utc>,
}

impl CreditNoteHead {
    /// The invoice it corrects.
    #[must_use]
    pub fn invoice_id(&self) -> InvoiceId {
        self.invoice_id.into()
    }
}

/// What is taken back of one line of the invoice; signed as that line is.
#[derive(Debug, Clone, FromRow)]
pub struct CreditNoteLine {
    credit_note_id: Uuid,
    /// The invoice's line.
    pub invoice_line_no: i32,
    /// The line's own words.
    pub description: String,
    /// Minor units, before tax.
    pub amount_minor: i64,
    /// Minor units.
    pub tax_minor: i64,
}

/// A credit note of this tenant; `None` if there is none of that id.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn read(tx: &mut TenantTx, id: Uuid) -> Result<Option<CreditNoteView>, StoreError> {
    let query = sqlx::query_as(
        "SELECT credit_note_id, invoice_id, number, reason, currency, tax_minor, total_minor, to_receivable_minor,
                to_balance_minor, issued_at
         FROM app.credit_notes WHERE tenant_id = $1 AND credit_note_id = $2",
    );
    let head: Option<CreditNoteHead> = tx.optional(query.bind(tx.tenant_id().as_uuid()).bind(id)).await?;
    let Some(head) = head else { return Ok(None) };
    Ok(with_lines(tx, vec![head]).await?.pop())
}

/// The tenant's credit notes, the newest first, from `after` on.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn list(tx: &mut TenantTx, after: PageKey, limit: u32) -> Result<Page<CreditNoteView>, StoreError> {
    let query = sqlx::query_as(
        "SELECT credit_note_id, invoice_id, number, reason, currency, tax_minor, total_minor, to_receivable_minor,
                to_balance_minor, issued_at
         FROM app.credit_notes WHERE tenant_id = $1 AND (issued_at, credit_note_id) < ($2, $3)
         ORDER BY issued_at DESC, credit_note_id DESC LIMIT $4",
    );
    let query = query.bind(tx.tenant_id().as_uuid()).bind(after.at).bind(after.id).bind(i64::from(limit) + 1);
    let heads: Vec<CreditNoteHead> = tx.all(query).await?;
    let page = Page::of(heads, limit, |head| PageKey { at: head.issued_at, id: head.credit_note_id });
    Ok(Page { items: with_lines(tx, page.items).await?, next: page.next })
}

async fn with_lines(tx: &mut TenantTx, heads: Vec<CreditNoteHead>) -> Result<Vec<CreditNoteView>, StoreError> {
    let ids: Vec<Uuid> = heads.iter().map(|head| head.credit_note_id).collect();
    let query = sqlx::query_as(
        "SELECT l.credit_note_id, l.invoice_line_no, i.description, l.amount_minor, l.tax_minor
         FROM app.credit_note_lines l
         JOIN app.invoice_lines i
           ON i.tenant_id = l.tenant_id AND i.invoice_id = l.invoice_id AND i.line_no = l.invoice_line_no
         WHERE l.tenant_id = $1 AND l.credit_note_id = ANY ($2) ORDER BY l.credit_note_id, l.line_no",
    );
    let rows: Vec<CreditNoteLine> = tx.all(query.bind(tx.tenant_id().as_uuid()).bind(&ids)).await?;
    let mut views: Vec<_> = heads.into_iter().map(|head| CreditNoteView { head, lines: Vec::new() }).collect();
    for row in rows {
        if let Some(view) = views.iter_mut().find(|view| view.head.credit_note_id == row.credit_note_id) {
            view.lines.push(row);
        }
    }
    Ok(views)
}
