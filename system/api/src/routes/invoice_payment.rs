//! Paying an invoice now, and what the next one will be.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use forecastle_billing::{
    ChangeError, PayOutcome, PayStart, Provider, Upcoming, begin_pay, finish_pay, upcoming_invoice,
};
use forecastle_domain::InvoiceId;
use forecastle_store::idempotency::IdempotentRequest;
use forecastle_store::payments::Payment;
use forecastle_store::{CacheKey, TenantTx, invoice_views};
use serde::Serialize;
use utoipa::ToSchema;

use super::invoices::{Invoice, Line};
use super::plan_changes::{declined, no_payment_method};
use crate::changing::changing;
use crate::detached::detached;
use crate::error::{ApiError, Problem};
use crate::extract::PathId;
use crate::idempotent::{self, Begun, IdempotencyKey};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// The next subscription invoice, as it would be now.
#[derive(Serialize, ToSchema)]
pub(crate) struct UpcomingInvoice {
    /// The period it starts.
    period_index: u32,
    period_start: DateTime<Utc>,
    period_end: DateTime<Utc>,
    /// When it will be issued.
    issue_due_at: DateTime<Utc>,
    /// The plan that period starts with.
    #[schema(example = "STARTER")]
    plan: String,
    #[schema(example = "EUR")]
    currency: String,
    /// Forecasts that no invoice has counted yet.
    usage_events: u64,
    /// None where there is nothing to charge so far.
    lines: Vec<Line>,
    /// Σ of the lines' taxes, minor units.
    tax_minor: i64,
    /// Σ of the lines' amounts and taxes, minor units.
    total_minor: i64,
}

impl From<Upcoming> for UpcomingInvoice {
    fn from(upcoming: Upcoming) -> Self {
        let total_minor = upcoming.content.as_ref().map_or(0, |content| content.total.amount_minor);
        let lines = upcoming.content.map_or_else(Vec::new, |content| content.lines);
        Self {
            period_index: upcoming.period.index,
            period_start: upcoming.period.start,
            period_end: upcoming.period.end,
            issue_due_at: upcoming.issue_due_at,
            plan: upcoming.starting_plan.to_string(),
            currency: upcoming.currency.to_string(),
            usage_events: upcoming.usage_events,
            tax_minor: lines.iter().map(|line| line.tax_minor).sum(),
            lines: lines.into_iter().map(Line::from).collect(),
            total_minor,
        }
    }
}

/// Preview the next invoice from the usage so far.
#[utoipa::path(get, path = "/v1/invoices/upcoming", tag = "billing",
    responses((status = 200, body = UpcomingInvoice)))]
pub(crate) async fn upcoming(State(state): State<AppState>, caller: Caller) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin_snapshot().await?;
    match upcoming_invoice(&mut tx, &state.config.billing_terms).await {
        Ok(upcoming) => Ok(Reply::json(StatusCode::OK, &UpcomingInvoice::from(upcoming))),
        Err(ChangeError::Store(error)) => Err(error.into()),
        Err(ChangeError::Money(error)) => Err(ApiError::internal(format!("upcoming invoice: {error}"))),
    }
}

/// Pay an issued invoice now, with the payment method in use.
#[utoipa::path(post, path = "/v1/invoices/{id}/pay", tag = "billing",
    params(
        ("id" = Uuid, Path, description = "The invoice."),
        ("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = r"^[!-~]([ -~]*[!-~])?$", description = "1 to 255 printable characters; one effect for each key."),
    ),
    responses(
        (status = 200, body = Invoice, description = "Paid."),
        (status = 202, body = Invoice, description = "The provider's answer is not known yet. Send it again, or read the invoice."),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No Idempotency-Key."),
        (status = 402, body = Problem, content_type = "application/problem+json", description = "No payment method, or declined."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Absent, or not yours."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing is owed for it, or the key is in flight."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "The key was used for another request."),
    ))]
pub(crate) async fn pay(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key = IdempotencyKey::from_headers(&headers)?;
    let provider = state.config.provider.clone().ok_or_else(ApiError::payments_unavailable)?;
    let request = key.bind(&caller, "POST", &format!("/v1/invoices/{id}/pay"), b"");
    detached(async move {
        let changed = [CacheKey::plan(caller.tenant), CacheKey::dashboard(caller.tenant)];
        let work = pay_once(&state, &provider, &caller, request, InvoiceId::from_uuid(id));
        changing(&state.cache, &changed, work).await
    })
    .await
}

async fn pay_once(
    state: &AppState,
    provider: &Provider,
    caller: &Caller,
    request: IdempotentRequest,
    id: InvoiceId,
) -> Result<Response, ApiError> {
    let mut attempt = match idempotent::begin(state, caller, request.clone()).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Fresh(attempt) => attempt,
    };
    let payment: Box<Payment> = match begin_pay(&mut attempt.tx, id).await? {
        PayStart::Charge(payment) => payment,
        PayStart::Paid => {
            let reply = invoice_reply(&mut attempt.tx, id, StatusCode::OK).await;
            return attempt.finish(reply).await;
        }
        PayStart::NotFound => return attempt.finish(Err(ApiError::not_found())).await,
        PayStart::NotOpen => {
            let refusal = ApiError::new(StatusCode::CONFLICT, "invoice_not_open");
            return attempt.finish(Err(refusal.detail("Nothing is owed for this invoice."))).await;
        }
        PayStart::NoPaymentMethod => return attempt.finish(Err(no_payment_method())).await,
    };
    attempt.tx.commit().await?;
    let config = &state.config;
    let (terms, patience) = (&config.billing_terms, config.patience());
    let outcome = finish_pay(&state.db, provider, caller.tenant, &payment, terms, &patience).await?;
    let mut attempt = match idempotent::begin(state, caller, request).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Fresh(attempt) => attempt,
    };
    match outcome {
        PayOutcome::Paid => {
            let reply = invoice_reply(&mut attempt.tx, id, StatusCode::OK).await;
            attempt.finish(reply).await
        }
        PayOutcome::Declined => attempt.finish(Err(declined())).await,
        // Not kept: the next request of this key may find more.
        PayOutcome::Unknown => {
            let reply = invoice_reply(&mut attempt.tx, id, StatusCode::ACCEPTED).await?;
            attempt.tx.rollback().await;
            Ok(reply.into_response())
        }
    }
}

async fn invoice_reply(tx: &mut TenantTx, id: InvoiceId, status: StatusCode) -> Result<Reply, ApiError> {
    let view = invoice_views::read(tx, id).await?.ok_or_else(ApiError::not_found)?;
    Ok(Reply::json(status, &Invoice::from(view)))
}
