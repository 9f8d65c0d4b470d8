//! Credit notes: list and read; always from PostgreSQL.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use forecastle_store::credit_note_views::{self, CreditNoteView};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, Problem};
use crate::extract::{PageParams, PageRequest, PathId, encode_cursor};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// A correction of an issued invoice.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreditNote {
    id: Uuid,
    /// The invoice it corrects.
    invoice_id: Uuid,
    /// Without gaps per tenant, counted apart from invoices.
    number: i64,
    reason: String,
    #[schema(example = "EUR")]
    currency: String,
    lines: Vec<CreditNoteLine>,
    /// Σ of the lines' taxes, minor units.
    tax_minor: i64,
    /// Σ of the lines' amounts and taxes, minor units.
    total_minor: i64,
    /// How much of it was still owed and is owed no more, minor units.
    to_receivable_minor: i64,
    /// How much of it was paid and is the customer's credit, minor units.
    to_balance_minor: i64,
    issued_at: DateTime<Utc>,
}

/// What is taken back of one line of the invoice; signed as that line is.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreditNoteLine {
    /// The invoice's line, from 1.
    invoice_line_no: i32,
    description: String,
    amount_minor: i64,
    tax_minor: i64,
}

/// Some credit notes, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreditNotePage {
    items: Vec<CreditNote>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

impl From<CreditNoteView> for CreditNote {
    fn from(CreditNoteView { head, lines }: CreditNoteView) -> Self {
        let lines = lines.into_iter().map(|line| CreditNoteLine {
            invoice_line_no: line.invoice_line_no,
            description: line.description,
            amount_minor: line.amount_minor,
            tax_minor: line.tax_minor,
        });
        Self {
            id: head.credit_note_id,
            invoice_id: head.invoice_id().as_uuid(),
            number: head.number,
            lines: lines.collect(),
            reason: head.reason,
            currency: head.currency,
            tax_minor: head.tax_minor,
            total_minor: head.total_minor,
            to_receivable_minor: head.to_receivable_minor,
            to_balance_minor: head.to_balance_minor,
            issued_at: head.issued_at,
        }
    }
}

/// List credit notes, the newest first.
#[utoipa::path(get, path = "/v1/credit-notes", tag = "billing", params(PageParams), responses(
    (status = 200, body = CreditNotePage),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "limit or cursor is wrong."),
))]
pub(crate) async fn list(State(state): State<AppState>, caller: Caller, page: PageRequest) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let found = credit_note_views::list(&mut tx, page.after, page.limit).await?;
    let items = found.items.into_iter().map(CreditNote::from).collect();
    let page = CreditNotePage { items, next_cursor: found.next.as_ref().map(encode_cursor) };
    Ok(Reply::json(StatusCode::OK, &page))
}

/// Read a credit note.
#[utoipa::path(get, path = "/v1/credit-notes/{id}", tag = "billing",
    params(("id" = Uuid, Path, description = "The credit note.")),
    responses(
        (status = 200, body = CreditNote),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, or not yours."),
    ))]
pub(crate) async fn read(State(state): State<AppState>, caller: Caller, PathId(id): PathId) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let found = credit_note_views::read(&mut tx, id).await?;
    Ok(Reply::json(StatusCode::OK, &CreditNote::from(found.ok_or_else(ApiError::not_found)?)))
}
