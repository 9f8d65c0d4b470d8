//! Invoices: list and read; always from PostgreSQL.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use forecastle_domain::{InvoiceId, InvoiceLine};
use forecastle_store::invoice_views::{self, InvoiceView};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, Problem};
use crate::extract::{PageParams, PageRequest, PathId, encode_cursor};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// An invoice.
#[derive(Serialize, ToSchema)]
pub(crate) struct Invoice {
    id: Uuid,
    /// Without gaps per tenant; null while it is a draft.
    number: Option<i64>,
    #[schema(example = "subscription")]
    kind: String,
    /// draft, issued, paid, void or uncollectible.
    #[schema(example = "issued")]
    state: String,
    /// The period it starts; 0 is the period of the sign-up.
    period_index: i32,
    period_start: DateTime<Utc>,
    period_end: DateTime<Utc>,
    #[schema(example = "EUR")]
    currency: String,
    lines: Vec<Line>,
    /// Σ of the lines' taxes, minor units.
    tax_minor: i64,
    /// Σ of the lines' amounts and taxes, minor units.
    total_minor: i64,
    issued_at: Option<DateTime<Utc>>,
    paid_at: Option<DateTime<Utc>>,
}

/// One line of an invoice.
#[derive(Serialize, ToSchema)]
pub(crate) struct Line {
    /// base or usage.
    #[schema(example = "base")]
    kind: &'static str,
    description: String,
    quantity: i64,
    unit_price_minor: i64,
    amount_minor: i64,
    tax_minor: i64,
}

/// Some invoices, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct InvoicePage {
    items: Vec<Invoice>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

impl From<InvoiceView> for Invoice {
    fn from(InvoiceView { head, lines }: InvoiceView) -> Self {
        Self {
            id: head.id().as_uuid(),
            number: head.number,
            kind: head.kind,
            state: head.state,
            period_index: head.period_index,
            period_start: head.period_start,
            period_end: head.period_end,
            currency: head.currency,
            lines: lines.into_iter().map(Line::from).collect(),
            tax_minor: head.tax_minor,
            total_minor: head.total_minor,
            issued_at: head.issued_at,
            paid_at: head.paid_at,
        }
    }
}

impl From<InvoiceLine> for Line {
    fn from(line: InvoiceLine) -> Self {
        Self {
            kind: line.kind.as_str(),
            description: line.description,
            quantity: line.quantity,
            unit_price_minor: line.unit_price_minor,
            amount_minor: line.amount_minor,
            tax_minor: line.tax_minor,
        }
    }
}

/// List invoices, the newest first.
#[utoipa::path(get, path = "/v1/invoices", tag = "billing", params(PageParams), responses(
    (status = 200, body = InvoicePage),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "limit or cursor is wrong."),
))]
pub(crate) async fn list(State(state): State<AppState>, caller: Caller, page: PageRequest) -> Result<Reply, ApiError> {
    let list = state.reads.read(caller.tenant, |scope| {
        Box::pin(async move { invoice_views::list(&mut scope.begin().await?, page.after, page.limit).await })
    });
    let found = list.await?;
    let items = found.items.into_iter().map(Invoice::from).collect();
    let page = InvoicePage { items, next_cursor: found.next.as_ref().map(encode_cursor) };
    Ok(Reply::json(StatusCode::OK, &page))
}

/// Read an invoice.
#[utoipa::path(get, path = "/v1/invoices/{id}", tag = "billing",
    params(("id" = Uuid, Path, description = "The invoice.")),
    responses(
        (status = 200, body = Invoice),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, or not yours."),
    ))]
pub(crate) async fn read(State(state): State<AppState>, caller: Caller, PathId(id): PathId) -> Result<Reply, ApiError> {
    let id = InvoiceId::from_uuid(id);
    let read = state
        .reads
        .read(caller.tenant, |scope| Box::pin(async move { invoice_views::read(&mut scope.begin().await?, id).await }));
    let found = read.await?;
    Ok(Reply::json(StatusCode::OK, &Invoice::from(found.ok_or_else(ApiError::not_found)?)))
}
