//! Changes of plan: an upgrade is in force once it is paid, a downgrade when the period ends.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use forecastle_billing::{
    ChangeError, ChangeRefusal, ChangeRequest, Provider, Requested, Withdrawn, open_charge, request_change,
    settle_charge, withdraw_change,
};
use forecastle_domain::Plan;
use forecastle_store::idempotency::IdempotentRequest;
use forecastle_store::payments::Payment;
use forecastle_store::plan_changes::PendingChange;
use forecastle_store::plan_upgrades::{self, ONE_WAITING, Upgrade, UpgradeRequest, UpgradeState};
use forecastle_store::{CacheKey, TenantTx};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::changing::changing;
use crate::detached::detached;
use crate::error::{ApiError, Problem};
use crate::extract::{Fields, JsonBody};
use crate::idempotent::{self, Attempt, Begun, IdempotencyKey};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;
use crate::texts::PlanName;

/// When to look again at what waits for the provider.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What an owner sends.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct PlanChangeWrite {
    plan: PlanName,
}

/// A change of plan.
#[derive(Serialize, ToSchema)]
pub(crate) struct PlanChange {
    id: Uuid,
    #[schema(example = "upgrade")]
    kind: &'static str,
    #[schema(example = "STARTER")]
    from: String,
    #[schema(example = "PRO")]
    to: String,
    /// Of an upgrade: awaiting_payment, applied or lapsed (paid too late, and credited). Of a downgrade: pending.
    #[schema(example = "applied")]
    state: &'static str,
    /// From when on the plan is in force; null while that is not known.
    effective_at: Option<DateTime<Utc>>,
    /// The proration; null where there was nothing to charge.
    invoice_id: Option<Uuid>,
}

impl From<&Upgrade> for PlanChange {
    fn from(upgrade: &Upgrade) -> Self {
        Self {
            id: upgrade.change_id,
            kind: "upgrade",
            from: upgrade.from.to_string(),
            to: upgrade.to.to_string(),
            state: upgrade.state.as_str(),
            effective_at: (upgrade.state == UpgradeState::Applied).then_some(upgrade.requested_at),
            invoice_id: upgrade.invoice.map(Into::into),
        }
    }
}

impl From<&PendingChange> for PlanChange {
    fn from(change: &PendingChange) -> Self {
        Self {
            id: change.change_id,
            kind: "downgrade",
            from: change.from.to_string(),
            to: change.to.to_string(),
            state: "pending",
            effective_at: Some(change.effective_at),
            invoice_id: None,
        }
    }
}

/// Change the plan: up at once, for the rest of the period's price; down when the period ends.
#[utoipa::path(post, path = "/v1/plan/changes", tag = "billing", request_body = PlanChangeWrite,
    params(("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = r"^[!-~]([ -~]*[!-~])?$", description = "1 to 255 printable characters; one effect for each key.")),
    responses(
        (status = 201, body = PlanChange, description = "In force, or scheduled for the period's end."),
        (status = 202, body = PlanChange, description = "The provider's answer is not known yet. Send it again, or read the plan."),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No Idempotency-Key, or the body is not JSON."),
        (status = 402, body = Problem, content_type = "application/problem+json", description = "No payment method, declined, or something is overdue."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is the plan already, another change is under way, or the key is in flight."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong, or the key was used for another request."),
    ))]
pub(crate) async fn request(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let key = IdempotencyKey::from_headers(&headers)?;
    let request = key.bind(&caller, "POST", "/v1/plan/changes", &body);
    let plan = accept(&body);
    // A client that hangs up leaves an upgrade that goes on by itself.
    detached(async move {
        let changed = [CacheKey::plan(caller.tenant), CacheKey::dashboard(caller.tenant)];
        changing(&state.cache, &changed, change_once(&state, &caller, request, plan)).await
    })
    .await
}

async fn change_once(
    state: &AppState,
    caller: &Caller,
    request: IdempotentRequest,
    plan: Result<Plan, ApiError>,
) -> Result<Response, ApiError> {
    let mut attempt = match idempotent::begin(state, caller, request.clone()).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Fresh(attempt) => attempt,
    };
    let plan = match plan {
        Ok(plan) => plan,
        Err(refusal) => return attempt.finish(Err(refusal)).await,
    };
    let by = UpgradeRequest { user: request.user_id, key: &request.key, kept: state.config.idempotency_ttl };
    // Made by an earlier request of this key that did not come to its answer.
    if let Some(upgrade) = plan_upgrades::of_request(&mut attempt.tx, by).await? {
        if upgrade.fingerprint != request.fingerprint {
            attempt.tx.rollback().await;
            return Err(idempotent::reused());
        }
        let payment = open_charge(&mut attempt.tx, &upgrade).await?;
        return match (upgrade.state, payment, &state.config.provider) {
            (UpgradeState::AwaitingPayment, Some(payment), Some(provider)) => {
                attempt.tx.rollback().await;
                charge(state, provider, caller, request, &upgrade, &payment).await
            }
            _ => answer(attempt, &upgrade).await,
        };
    }
    let wanted = ChangeRequest { to: plan, by, fingerprint: request.fingerprint };
    match (ask(&mut attempt.tx, &wanted).await, &state.config.provider) {
        (Err(refusal), _) => attempt.finish(Err(refusal)).await,
        (Ok(Requested::Refused(why)), _) => attempt.finish(Err(refusal_of(why))).await,
        (Ok(Requested::Scheduled(change)), _) => {
            attempt.finish(Ok(Reply::json(StatusCode::CREATED, &PlanChange::from(&change)))).await
        }
        (Ok(Requested::Applied(upgrade)), _) => answer(attempt, &upgrade).await,
        (Ok(Requested::Charge(..)), None) => {
            attempt.tx.rollback().await;
            Err(ApiError::payments_unavailable())
        }
        (Ok(Requested::Charge(upgrade, payment)), Some(provider)) => {
            attempt.tx.commit().await?;
            charge(state, provider, caller, request, &upgrade, &payment).await
        }
    }
}

async fn ask(tx: &mut TenantTx, wanted: &ChangeRequest<'_>) -> Result<Requested, ApiError> {
    match request_change(tx, wanted).await {
        Ok(requested) => Ok(requested),
        Err(ChangeError::Store(error)) if error.is_conflict_on(ONE_WAITING) => {
            Ok(Requested::Refused(ChangeRefusal::InProgress))
        }
        Err(ChangeError::Store(error)) => Err(error.into()),
        Err(ChangeError::Money(error)) => Err(ApiError::internal(format!("proration: {error}"))),
    }
}

/// Asks the provider, then says how the upgrade stands.
async fn charge(
    state: &AppState,
    provider: &Provider,
    caller: &Caller,
    request: IdempotentRequest,
    upgrade: &Upgrade,
    payment: &Payment,
) -> Result<Response, ApiError> {
    let config = &state.config;
    settle_charge(&state.db, provider, caller.tenant, payment, &config.billing_terms, &config.patience()).await?;
    let mut attempt = match idempotent::begin(state, caller, request).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Fresh(attempt) => attempt,
    };
    let upgrade = plan_upgrades::by_id(&mut attempt.tx, upgrade.change_id).await?;
    let upgrade = upgrade.ok_or_else(|| ApiError::internal("an upgrade is gone that was just asked for"))?;
    answer(attempt, &upgrade).await
}

async fn answer(attempt: Attempt, upgrade: &Upgrade) -> Result<Response, ApiError> {
    match upgrade.state {
        UpgradeState::Applied | UpgradeState::Lapsed => {
            attempt.finish(Ok(Reply::json(StatusCode::CREATED, &PlanChange::from(upgrade)))).await
        }
        // Neither is kept under the key: the next request of it may find more, or may try again.
        UpgradeState::AwaitingPayment => {
            attempt.tx.rollback().await;
            Ok(Reply::json(StatusCode::ACCEPTED, &PlanChange::from(upgrade)).into_response())
        }
        UpgradeState::Declined => {
            attempt.tx.rollback().await;
            Err(declined())
        }
    }
}

/// Withdraw the downgrade that waits for the period's end.
#[utoipa::path(delete, path = "/v1/plan/changes/pending", tag = "billing", responses(
    (status = 204, description = "Withdrawn."),
    (status = 404, body = Problem, content_type = "application/problem+json", description = "None waits."),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "An unpaid invoice ends the plan."),
))]
pub(crate) async fn withdraw(State(state): State<AppState>, caller: Caller) -> Result<Response, ApiError> {
    detached(async move {
        let changed = [CacheKey::plan(caller.tenant), CacheKey::dashboard(caller.tenant)];
        changing(&state.cache, &changed, withdraw_once(&state, &caller)).await
    })
    .await
}

async fn withdraw_once(state: &AppState, caller: &Caller) -> Result<Response, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    match withdraw_change(&mut tx, caller.user).await? {
        Withdrawn::Done => {
            tx.commit().await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Withdrawn::NothingPending => Err(ApiError::not_found()),
        Withdrawn::Ending => Err(refusal_of(ChangeRefusal::Ending)),
    }
}

pub(super) fn declined() -> ApiError {
    ApiError::new(StatusCode::PAYMENT_REQUIRED, "payment_declined")
        .detail("The payment method was declined. Nothing was charged, and nothing has changed.")
}

pub(super) fn no_payment_method() -> ApiError {
    ApiError::new(StatusCode::PAYMENT_REQUIRED, "payment_method_required")
        .detail("Set a payment method first: PUT /v1/payment-method.")
}

fn refusal_of(why: ChangeRefusal) -> ApiError {
    let conflict = |code, detail: &'static str| ApiError::new(StatusCode::CONFLICT, code).detail(detail);
    match why {
        ChangeRefusal::SamePlan => conflict("plan_unchanged", "This is your plan already."),
        ChangeRefusal::InProgress => {
            conflict("plan_change_in_progress", "Another upgrade waits for its payment.").retry_after(LOOK_AGAIN)
        }
        ChangeRefusal::PastDue => ApiError::new(StatusCode::PAYMENT_REQUIRED, "past_due")
            .detail("Pay what is overdue first: POST /v1/invoices/{id}/pay."),
        ChangeRefusal::NoPaymentMethod => no_payment_method(),
        ChangeRefusal::PeriodBilled => {
            conflict("period_billed", "This period is billed already. Change the plan in the next one.")
        }
        ChangeRefusal::Ending => conflict("plan_ending", "An unpaid invoice ends this plan when the period ends."),
    }
}

fn accept(body: &[u8]) -> Result<Plan, ApiError> {
    let mut fields = Fields::parse(body)?;
    let plan = fields.word("plan", "must be FREE, STARTER or PRO");
    fields.finish()?;
    plan.ok_or_else(|| ApiError::internal("a refused field was not noted"))
}
