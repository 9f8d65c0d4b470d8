//! The plan in force: what it costs and where it stops.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use forecastle_store::plan_changes::PendingChange;
use forecastle_store::plan_upgrades::Upgrade;
use forecastle_store::{CacheKey, StoreError, identity, plan_changes, plan_upgrades};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// A plan in a tenant's currency. Prices and limits are those of the plan in force.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct PlanAnswer {
    /// The plan in force: the subscribed one, or FREE while payments are past due.
    #[schema(example = "STARTER")]
    plan: String,
    /// The plan that is billed.
    #[schema(example = "STARTER")]
    subscribed_plan: String,
    /// current, or past_due: unpaid after dunning, so FREE's limits hold until it is paid.
    #[schema(example = "current")]
    billing_state: String,
    /// A downgrade that waits for the period's end, or an upgrade that waits for its money; null if none does.
    pending_change: Option<Pending>,
    #[schema(example = "EUR")]
    currency: String,
    /// Price of a period, minor units.
    base_minor: i64,
    /// Forecasts a period includes.
    included_forecasts: u32,
    /// Price of each further one, minor units; null where they are refused.
    overage_minor: Option<i64>,
    /// Most scenarios; null is unlimited.
    scenario_limit: Option<u32>,
    /// Most users.
    user_limit: Option<u32>,
}

/// A change of plan that is still to come.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Pending {
    #[schema(example = "FREE")]
    plan: String,
    /// pending until the period's end, or awaiting_payment.
    #[schema(example = "pending")]
    state: String,
    /// The period's end; null while a payment is awaited.
    effective_at: Option<DateTime<Utc>>,
}

impl Pending {
    fn downgrade(change: &PendingChange) -> Self {
        let effective_at = Some(change.effective_at);
        Self { plan: change.to.to_string(), state: "pending".to_owned(), effective_at }
    }

    fn upgrade(upgrade: &Upgrade) -> Self {
        Self { plan: upgrade.to.to_string(), state: upgrade.state.as_str().to_owned(), effective_at: None }
    }
}

/// Read the plan.
#[utoipa::path(get, path = "/v1/plan", tag = "billing", responses((status = 200, body = PlanAnswer)))]
pub(crate) async fn read(State(state): State<AppState>, caller: Caller) -> Result<Reply, ApiError> {
    let key = CacheKey::plan(caller.tenant);
    let load = async {
        let mut tx = state.db.tenant(caller.tenant).begin().await?;
        let terms = identity::terms_in(&mut tx).await?;
        let (plan, currency) = (terms.plan, terms.currency);
        // One whose time has come is in force already.
        let downgrade = plan_changes::pending(&mut tx).await?.filter(|c| c.effective_at >= terms.period.end);
        let pending_change = match plan_upgrades::waiting(&mut tx).await? {
            Some(upgrade) => Some(Pending::upgrade(&upgrade)),
            None => downgrade.as_ref().map(Pending::downgrade),
        };
        Ok(PlanAnswer {
            plan: plan.to_string(),
            subscribed_plan: terms.subscribed_plan.to_string(),
            billing_state: terms.billing_state.to_string(),
            pending_change,
            currency: currency.to_string(),
            base_minor: plan.base_price_minor(currency),
            included_forecasts: plan.included_forecasts(),
            overage_minor: plan.overage_price_minor(currency),
            scenario_limit: plan.scenario_limit(),
            user_limit: Some(plan.user_limit()),
        })
    };
    let found: Result<PlanAnswer, StoreError> =
        state.cache.get_or_load(&key, state.config.entitlement_cache, load, |_| true).await;
    Ok(Reply::json(StatusCode::OK, &found?))
}
