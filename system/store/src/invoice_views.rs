//! Invoices as their tenant reads them. Making them is billing's business.

use chrono::{DateTime, Utc};
use forecastle_domain::{InvoiceId, InvoiceLine};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::paging::{Page, PageKey};
use crate::scope::TenantTx;

/// An invoice with its lines.
#[derive(Debug, Clone)]
pub struct InvoiceView {
    /// Head and sums.
    pub head: InvoiceHead,
    /// In their own order.
    pub lines: Vec<InvoiceLine>,
}

/// Head and sums of an invoice, words as stored.
#[derive(Debug, Clone, FromRow)]
pub struct InvoiceHead {
    invoice_id: Uuid,
    /// Without gaps per tenant; given at issue.
    pub number: Option<i64>,
    /// Why it exists.
    pub kind: String,
    /// Where it stands.
    pub state: String,
    /// The period it starts.
    pub period_index: i32,
    /// First instant of that period.
    pub period_start: DateTime<Utc>,
    /// First instant after it.
    pub period_end: DateTime<Utc>,
    /// ISO 4217 code.
    pub currency: String,
    /// Σ of the lines' taxes, minor units.
    pub tax_minor: i64,
    /// Σ of the lines' amounts and taxes, minor units.
    pub total_minor: i64,
    /// When it got its number.
    pub issued_at: Option<DateTime<Utc>>,
    /// When the money came.
    pub paid_at: Option<DateTime<Utc>>,
    drafted_at: DateTime<Utc>,
}

impl InvoiceHead {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> InvoiceId {
        self.invoice_id.into()
    }
}

#[derive(FromRow)]
struct LineRow {
    invoice_id: Uuid,
    kind: String,
    description: String,
    quantity: i64,
    unit_price_minor: i64,
    amount_minor: i64,
    tax_minor: i64,
}

impl LineRow {
    fn into_line(self) -> Result<InvoiceLine, StoreError> {
        Ok(InvoiceLine {
            kind: self.kind.parse().map_err(|_| StoreError::Corrupt { what: "invoice_lines.kind" })?,
            description: self.description,
            quantity: self.quantity,
            unit_price_minor: self.unit_price_minor,
            amount_minor: self.amount_minor,
            tax_minor: self.tax_minor,
        })
    }
}

/// An invoice of this tenant; `None` if there is none of that id.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn read(tx: &mut TenantTx, id: InvoiceId) -> Result<Option<InvoiceView>, StoreError> {
    let query = sqlx::query_as(
        "SELECT invoice_id, number, kind, state, period_index, period_start, period_end, currency, tax_minor,
                total_minor, issued_at, paid_at, drafted_at
         FROM app.invoices WHERE tenant_id = $1 AND invoice_id = $2",
    );
    let tenant = tx.tenant_id().as_uuid();
    let head: Option<InvoiceHead> = tx.optional(query.bind(tenant).bind(id.as_uuid())).await?;
    let Some(head) = head else { return Ok(None) };
    Ok(with_lines(tx, vec![head]).await?.pop())
}

/// The tenant's invoices, the newest first, from `after` on.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn list(tx: &mut TenantTx, after: PageKey, limit: u32) -> Result<Page<InvoiceView>, StoreError> {
    let query = sqlx::query_as(
        "SELECT invoice_id, number, kind, state, period_index, period_start, period_end, currency, tax_minor,
                total_minor, issued_at, paid_at, drafted_at
         FROM app.invoices WHERE tenant_id = $1 AND (drafted_at, invoice_id) < ($2, $3)
         ORDER BY drafted_at DESC, invoice_id DESC LIMIT $4",
    );
    let tenant = tx.tenant_id().as_uuid();
    let query = query.bind(tenant).bind(after.at).bind(after.id).bind(i64::from(limit) + 1);
    let heads: Vec<InvoiceHead> = tx.all(query).await?;
    let page = Page::of(heads, limit, |head| PageKey { at: head.drafted_at, id: head.invoice_id });
    Ok(Page { items: with_lines(tx, page.items).await?, next: page.next })
}

async fn with_lines(tx: &mut TenantTx, heads: Vec<InvoiceHead>) -> Result<Vec<InvoiceView>, StoreError> {
    let ids: Vec<Uuid> = heads.iter().map(|head| head.invoice_id).collect();
    let query = sqlx::query_as(
        "SELECT invoice_id, kind, description, quantity, unit_price_minor, amount_minor, tax_minor
         FROM app.invoice_lines WHERE tenant_id = $1 AND invoice_id = ANY ($2) ORDER BY invoice_id, line_no",
    );
    let tenant = tx.tenant_id().as_uuid();
    let rows: Vec<LineRow> = tx.all(query.bind(tenant).bind(&ids)).await?;
    let mut views: Vec<_> = heads.into_iter().map(|head| InvoiceView { head, lines: Vec::new() }).collect();
    for row in rows {
        if let Some(view) = views.iter_mut().find(|view| view.head.invoice_id == row.invoice_id) {
            view.lines.push(row.into_line()?);
        }
    }
    Ok(views)
}
