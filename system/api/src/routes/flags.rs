//! What is switched on for the caller's tenant. Setting a switch is the operator's, on the command line.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use forecastle_domain::{Entitlements, Flag};
use forecastle_store::{CacheKey, StoreError, flags, identity};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// Switches in force.
#[derive(Serialize, ToSchema)]
pub(crate) struct FlagsAnswer {
    /// Each flag by its name: whether the plan includes it and it is switched on.
    #[schema(example = json!({"overage": true, "uncertainty": true}))]
    flags: BTreeMap<&'static str, bool>,
}

/// Read what is switched on. Where that cannot be found out, nothing is said to be.
#[utoipa::path(get, path = "/v1/flags", tag = "billing", responses((status = 200, body = FlagsAnswer)))]
pub(crate) async fn read(State(state): State<AppState>, caller: Caller) -> Result<Reply, ApiError> {
    let key = CacheKey::flags(caller.tenant);
    let load = async {
        let mut tx = state.db.tenant(caller.tenant).begin().await?;
        flags::switches(&mut tx).await
    };
    let switches: Result<Vec<(String, bool)>, StoreError> =
        state.cache.get_or_load(&key, state.config.entitlement_cache, load, |_| true).await;
    let terms = identity::terms(&state.db.tenant(caller.tenant)).await?;
    let entitlements = Entitlements::new(terms.plan, switches?);
    let flags = Flag::ALL.iter().map(|flag| (flag.as_str(), entitlements.allow(*flag))).collect();
    Ok(Reply::json(StatusCode::OK, &FlagsAnswer { flags }))
}
