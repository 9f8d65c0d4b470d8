//! A tenant's own switches, beside the defaults in the code: read by the tenant, set by an operator.

use forecastle_domain::{Entitlements, Flag, Plan, TenantId};
use sqlx::Connection as _;

use crate::cache::CacheKey;
use crate::cache_debts;
use crate::error::StoreError;
use crate::pool::connect_once;
use crate::scope::TenantTx;

/// What a plan and the tenant's switches allow together.
///
/// # Errors
/// As [`StoreError`] says: then nothing is allowed.
pub async fn entitlements(tx: &mut TenantTx, plan: Plan) -> Result<Entitlements, StoreError> {
    Ok(Entitlements::new(plan, switches(tx).await?))
}

/// The tenant's switches as stored, unknown words included.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn switches(tx: &mut TenantTx) -> Result<Vec<(String, bool)>, StoreError> {
    let query = sqlx::query_as("SELECT flag, enabled FROM app.tenant_flags WHERE tenant_id = $1 ORDER BY flag");
    let tenant = tx.tenant_id().as_uuid();
    tx.all(query.bind(tenant)).await
}

/// Sets a switch for one tenant, or takes it away (`None`: the default holds again). Cached values are
/// deleted with it, by whichever instance reaches Redis. For operators: needs the address of a role
/// that bypasses row-level security and may write.
///
/// # Errors
/// `NotFound` if there is no such tenant; else as [`StoreError`] says.
pub async fn set(admin_url: &str, tenant: TenantId, flag: Flag, enabled: Option<bool>) -> Result<(), StoreError> {
    let mut admin = connect_once(admin_url).await?;
    let mut tx = admin.begin().await?;
    let known: Option<bool> = sqlx::query_scalar("SELECT true FROM app.tenants WHERE tenant_id = $1 FOR KEY SHARE")
        .bind(tenant.as_uuid())
        .fetch_optional(&mut *tx)
        .await?;
    if known.is_none() {
        return Err(StoreError::NotFound);
    }
    let change = match enabled {
        Some(enabled) => sqlx::query(
            "INSERT INTO app.tenant_flags (tenant_id, flag, enabled, set_at) VALUES ($1, $2, $3, now())
             ON CONFLICT (tenant_id, flag) DO UPDATE SET enabled = excluded.enabled, set_at = excluded.set_at",
        )
        .bind(tenant.as_uuid())
        .bind(flag.as_str())
        .bind(enabled),
        None => sqlx::query("DELETE FROM app.tenant_flags WHERE tenant_id = $1 AND flag = $2")
            .bind(tenant.as_uuid())
            .bind(flag.as_str()),
    };
    change.execute(&mut *tx).await?;
    // In the transaction: whoever sees the switch sees what is owed to the cache.
    cache_debts::record_deletion(&mut tx, tenant, &CacheKey::flags(tenant)).await?;
    tx.commit().await?;
    Ok(())
}

/// A tenant's switches as stored, unknown words included. For operators.
///
/// # Errors
/// `NotFound` if there is no such tenant; else as [`StoreError`] says.
pub async fn list(admin_url: &str, tenant: TenantId) -> Result<Vec<(String, bool)>, StoreError> {
    let mut admin = connect_once(admin_url).await?;
    let known: Option<bool> = sqlx::query_scalar("SELECT true FROM app.tenants WHERE tenant_id = $1")
        .bind(tenant.as_uuid())
        .fetch_optional(&mut admin)
        .await?;
    if known.is_none() {
        return Err(StoreError::NotFound);
    }
    let rows = sqlx::query_as("SELECT flag, enabled FROM app.tenant_flags WHERE tenant_id = $1 ORDER BY flag")
        .bind(tenant.as_uuid())
        .fetch_all(&mut admin)
        .await?;
    Ok(rows)
}
