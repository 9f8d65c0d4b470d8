//! Payments: list and read; always from PostgreSQL.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use forecastle_domain::PaymentId;
use forecastle_store::payment_views::{self, PaymentView};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, Problem};
use crate::extract::{PageParams, PageRequest, PathId, encode_cursor};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// One try to collect one invoice.
#[derive(Serialize, ToSchema)]
pub(crate) struct Payment {
    id: Uuid,
    invoice_id: Uuid,
    /// invoice at issue, dunning-1 to dunning-3 after a decline, pay-1 and so on where the customer asked.
    #[schema(example = "invoice")]
    purpose: String,
    /// Minor units.
    amount_minor: i64,
    /// How much of it was given back, minor units.
    refunded_minor: i64,
    #[schema(example = "EUR")]
    currency: String,
    /// intended, unknown (asked, and no clear answer came), succeeded or failed.
    #[schema(example = "succeeded")]
    state: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<PaymentView> for Payment {
    fn from(view: PaymentView) -> Self {
        Self {
            id: view.id().as_uuid(),
            invoice_id: view.invoice_id().as_uuid(),
            purpose: view.purpose,
            amount_minor: view.amount_minor,
            refunded_minor: view.refunded_minor,
            currency: view.currency,
            state: view.state,
            created_at: view.created_at,
            updated_at: view.updated_at,
        }
    }
}

/// Some payments, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct PaymentPage {
    items: Vec<Payment>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// List payments, the newest first.
#[utoipa::path(get, path = "/v1/payments", tag = "billing", params(PageParams), responses(
    (status = 200, body = PaymentPage),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "limit or cursor is wrong."),
))]
pub(crate) async fn list(State(state): State<AppState>, caller: Caller, page: PageRequest) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let found = payment_views::list(&mut tx, page.after, page.limit).await?;
    let items = found.items.into_iter().map(Payment::from).collect();
    let page = PaymentPage { items, next_cursor: found.next.as_ref().map(encode_cursor) };
    Ok(Reply::json(StatusCode::OK, &page))
}

/// Read a payment.
#[utoipa::path(get, path = "/v1/payments/{id}", tag = "billing",
    params(("id" = Uuid, Path, description = "The payment.")),
    responses(
        (status = 200, body = Payment),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, or not yours."),
    ))]
pub(crate) async fn read(State(state): State<AppState>, caller: Caller, PathId(id): PathId) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let found = payment_views::read(&mut tx, PaymentId::from_uuid(id)).await?;
    Ok(Reply::json(StatusCode::OK, &Payment::from(found.ok_or_else(ApiError::not_found)?)))
}
