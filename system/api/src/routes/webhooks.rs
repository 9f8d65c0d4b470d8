//! The payment provider's events. No session: its signature is what lets it in.

use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode};
use chrono::Utc;
use forecastle_billing::webhook_event::{self, Message};
use forecastle_billing::{SignedHeaders, take_in_event};
use forecastle_store::CacheKey;
use serde::Serialize;
use utoipa::ToSchema;

use crate::changing::changing;
use crate::detached::detached;
use crate::error::{ApiError, Problem};
use crate::extract::JsonBody;
use crate::reply::Reply;
use crate::state::AppState;

/// An event, as the provider sends it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents the body, which billing reads")]
pub(crate) struct ProviderEvent {
    /// charge.succeeded, charge.failed or charge.refunded; any other type is accepted and does nothing.
    #[schema(example = "charge.succeeded")]
    r#type: String,
    data: ProviderCharge,
}

/// What the event is about; of a type that is not a charge's it may be anything.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents the body, which billing reads")]
pub(crate) struct ProviderCharge {
    /// The provider's id of the charge.
    id: String,
    /// Minor units.
    amount_minor: i64,
    /// ISO 4217.
    #[schema(example = "EUR")]
    currency: String,
    /// The key it was asked for with.
    idempotency_key: String,
    /// The invoice it pays.
    reference: Option<String>,
    /// Sum of all that was given back, minor units.
    #[schema(value_type = i64, required = false)]
    refunded_minor: Option<i64>,
}

/// The same whatever came of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Received {
    received: bool,
}

/// Take in an event of the payment provider. It may come twice, late and out of order.
#[utoipa::path(post, path = "/v1/webhooks/payments", tag = "webhooks", request_body = ProviderEvent,
    params(
        ("webhook-id" = String, Header, description = "The event's id; the same each time it is sent."),
        ("webhook-timestamp" = String, Header, description = "When this message was signed, seconds since 1970; at most five minutes off."),
        ("webhook-signature" = String, Header, description = "v1, and the base64 of HMAC-SHA256 over id.timestamp.body; several with spaces between."),
    ),
    responses(
        (status = 200, body = Received),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Signed, but not an event."),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "Not signed by the provider, or not within five minutes."),
    ))]
pub(crate) async fn receive(State(state): State<AppState>, request: Request) -> Result<Reply, ApiError> {
    let secrets = state.config.webhook_secrets.clone().ok_or_else(ApiError::payments_unavailable)?;
    let headers = request.headers().clone();
    let signed = signed_headers(&headers).ok_or_else(forged)?;
    let JsonBody(body) = JsonBody::from_request(request, &()).await?;
    let sent_at = secrets.verify(&signed, &body, Utc::now(), state.config.webhook_tolerance()).map_err(|_| forged())?;
    let message = webhook_event::read(signed.id, sent_at, &body)
        .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "event_malformed").detail("The body is not an event."))?;
    if let Message::Charge(event) = message {
        detached(async move {
            let changed = [CacheKey::plan(event.tenant), CacheKey::dashboard(event.tenant)];
            let work = async { Ok(take_in_event(&state.db, &event, &state.config.billing_terms).await?) };
            let outcome = changing(&state.cache, &changed, work).await?;
            metrics::counter!("forecastle_webhook_events_total", "kind" => event.kind.as_str(),
                              "outcome" => outcome.as_str())
            .increment(1);
            Ok(())
        })
        .await?;
    }
    Ok(Reply::json(StatusCode::OK, &Received { received: true }))
}

fn forged() -> ApiError {
    metrics::counter!("forecastle_refused_total", "code" => "webhook_signature_invalid").increment(1);
    ApiError::new(StatusCode::UNAUTHORIZED, "webhook_signature_invalid")
        .detail("The message is not signed by the payment provider.")
}

/// The three headers, each exactly once.
fn signed_headers(headers: &HeaderMap) -> Option<SignedHeaders<'_>> {
    let one = |name| {
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        value.to_str().ok()
    };
    Some(SignedHeaders {
        id: one("webhook-id")?,
        timestamp: one("webhook-timestamp")?,
        signature: one("webhook-signature")?,
    })
}
