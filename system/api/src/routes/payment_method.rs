//! The payment method: a token of the provider, written and never read back.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use forecastle_billing::{Provider, pay_declined};
use forecastle_domain::PaymentToken;
use forecastle_store::{CacheKey, payment_methods};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::changing::changing;
use crate::detached::detached;
use crate::error::{ApiError, FieldProblem, Problem};
use crate::extract::{Fields, JsonBody};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// What an owner sends.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct PaymentMethodWrite {
    /// The payment provider's token, 1 to 200 printable characters. Never a card number.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$", example = "tok_visa_4f9c")]
    payment_token: String,
}

/// The payment method in use.
#[derive(Serialize, ToSchema)]
pub(crate) struct PaymentMethod {
    /// The token's last four characters; null of a short one.
    #[schema(example = "4f9c")]
    hint: Option<String>,
    set_at: DateTime<Utc>,
}

impl From<payment_methods::PaymentMethod> for PaymentMethod {
    fn from(stored: payment_methods::PaymentMethod) -> Self {
        Self { hint: stored.hint, set_at: stored.set_at }
    }
}

/// Read what the payment method shows of itself.
#[utoipa::path(get, path = "/v1/payment-method", tag = "billing", responses(
    (status = 200, body = PaymentMethod),
    (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
))]
pub(crate) async fn read(State(state): State<AppState>, caller: Caller) -> Result<Reply, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let found = payment_methods::current(&mut tx).await?;
    Ok(Reply::json(StatusCode::OK, &PaymentMethod::from(found.ok_or_else(ApiError::not_found)?)))
}

/// Put another payment method in its place. What was declined before is tried with it at once.
#[utoipa::path(put, path = "/v1/payment-method", tag = "billing", request_body = PaymentMethodWrite, responses(
    (status = 200, body = PaymentMethod),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "It is no token, or it looks like a card number."),
))]
pub(crate) async fn replace(
    State(state): State<AppState>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let token = accept(&body)?;
    detached(async move {
        let mut tx = state.db.tenant(caller.tenant).begin().await?;
        payment_methods::replace(&mut tx, &token, caller.user).await?;
        let stored = payment_methods::current(&mut tx).await?;
        tx.commit().await?;
        if let Some(provider) = &state.config.provider {
            pay_overdue(&state, provider, &caller).await;
        }
        let stored = stored.ok_or_else(|| ApiError::internal("a payment method is gone that was just set"))?;
        Ok(Reply::json(StatusCode::OK, &PaymentMethod::from(stored)))
    })
    .await
}

/// What was declined before is tried with the new one. What does not succeed here is left to its dunning.
async fn pay_overdue(state: &AppState, provider: &Provider, caller: &Caller) {
    let changed = [CacheKey::plan(caller.tenant), CacheKey::dashboard(caller.tenant)];
    let config = &state.config;
    let work = async {
        Ok(pay_declined(&state.db, provider, caller.tenant, &config.billing_terms, &config.patience()).await?)
    };
    if let Err(error) = changing(&state.cache, &changed, work).await {
        tracing::warn!(code = error.code(), "pay what is overdue with a new payment method");
    }
}

fn accept(body: &[u8]) -> Result<PaymentToken, ApiError> {
    let mut fields = Fields::parse(body)?;
    let token = token_field(&mut fields, "payment_token");
    fields.finish()?;
    token.ok_or_else(|| ApiError::internal("a refused field was not noted"))
}

/// A required token; `None` if it was wrong and noted.
fn token_field(fields: &mut Fields, name: &'static str) -> Option<PaymentToken> {
    let text = fields.string(name)?;
    match PaymentToken::parse(&text) {
        Ok(token) => Some(token),
        Err(error) => {
            fields.problem(FieldProblem::new(format!("/{name}"), error.code(), error.to_string()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_number_is_refused_and_never_repeated() {
        let refused = accept(br#"{"payment_token": "4242 4242 4242 4242"}"#).unwrap_err().body();
        assert!(refused.contains("card_number") && refused.contains("/payment_token") && !refused.contains("4242"));
        assert_eq!(accept(br#"{"payment_token": "tok_1"}"#).unwrap().as_str(), "tok_1");
        assert!(accept(b"{}").unwrap_err().body().contains("required"));
    }
}
