//! The plan in force: what it costs and where it stops.

use axum::extract::State;
use axum::http::StatusCode;
use forecastle_store::{CacheKey, StoreError, identity};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// A plan in a tenant's currency.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct PlanAnswer {
    #[schema(example = "STARTER")]
    plan: String,
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

/// Read the plan.
#[utoipa::path(get, path = "/v1/plan", tag = "billing", responses((status = 200, body = PlanAnswer)))]
pub(crate) async fn read(State(state): State<AppState>, caller: Caller) -> Result<Reply, ApiError> {
    let key = CacheKey::plan(caller.tenant);
    let load = async {
        let terms = identity::terms(&state.db.tenant(caller.tenant)).await?;
        let (plan, currency) = (terms.plan, terms.currency);
        Ok(PlanAnswer {
            plan: plan.to_string(),
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
