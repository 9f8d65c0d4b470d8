//! What billing has to know of a tenant, and which tenants there are to bill.
//!
//! Not for the arithmetic of periods: that is the domain's calendar.

use chrono::{DateTime, NaiveDate, Utc};
use forecastle_domain::{BillingCalendar, Currency, Plan, TenantId, parse_zone};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::pool::Db;
use crate::scope::TenantTx;

/// A tenant as the billing run sees it.
#[derive(Clone)]
pub struct BillingProfile {
    /// Whose.
    pub tenant_id: TenantId,
    /// Plan in force.
    pub plan: Plan,
    /// What it is billed in.
    pub currency: Currency,
    /// Parts per million.
    pub tax_rate_ppm: i64,
    /// Where its periods begin.
    pub calendar: BillingCalendar,
}

#[derive(FromRow)]
struct ProfileRow {
    plan: String,
    currency: String,
    tax_rate_ppm: i64,
    time_zone: String,
    anchor_date: NaiveDate,
}

/// Reads the tenant's profile and makes every other billing transaction of this tenant wait. Ordinary
/// writes of the tenant go on.
///
/// # Errors
/// `NotFound` if there is no such tenant; `Timeout` if another run holds it too long.
pub async fn lock_profile(tx: &mut TenantTx) -> Result<BillingProfile, StoreError> {
    let query = sqlx::query_as(
        "SELECT plan, currency, tax_rate_ppm, time_zone, anchor_date
         FROM app.tenants WHERE tenant_id = $1 FOR NO KEY UPDATE",
    );
    let row = tx.one(query.bind(tx.tenant_id().as_uuid())).await?;
    profile_of(tx, row)
}

/// The same without making anybody wait, for whoever only shows it.
///
/// # Errors
/// `NotFound` if there is no such tenant.
pub async fn read_profile(tx: &mut TenantTx) -> Result<BillingProfile, StoreError> {
    let query = sqlx::query_as(
        "SELECT plan, currency, tax_rate_ppm, time_zone, anchor_date FROM app.tenants WHERE tenant_id = $1",
    );
    let row = tx.one(query.bind(tx.tenant_id().as_uuid())).await?;
    profile_of(tx, row)
}

fn profile_of(tx: &TenantTx, row: ProfileRow) -> Result<BillingProfile, StoreError> {
    Ok(BillingProfile {
        tenant_id: tx.tenant_id(),
        plan: row.plan.parse().map_err(|_| StoreError::Corrupt { what: "tenants.plan" })?,
        currency: row.currency.parse().map_err(|_| StoreError::Corrupt { what: "tenants.currency" })?,
        tax_rate_ppm: row.tax_rate_ppm,
        calendar: BillingCalendar::new(
            parse_zone(&row.time_zone).map_err(|_| StoreError::Corrupt { what: "tenants.time_zone" })?,
            row.anchor_date,
        ),
    })
}

/// Makes every other billing transaction of this tenant wait until this one ends.
///
/// # Errors
/// As [`lock_profile`].
pub async fn lock_tenant(tx: &mut TenantTx) -> Result<(), StoreError> {
    let query = sqlx::query_as("SELECT true FROM app.tenants WHERE tenant_id = $1 FOR NO KEY UPDATE");
    let _: (bool,) = tx.one(query.bind(tx.tenant_id().as_uuid())).await?;
    Ok(())
}

/// Every tenant that had signed up at `as_of`, by id.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn billing_tenants(db: &Db, as_of: DateTime<Utc>) -> Result<Vec<TenantId>, StoreError> {
    let query = || sqlx::query_as("SELECT tenant_id FROM app.billing_tenants($1)").bind(as_of);
    let rows: Vec<(Uuid,)> = db.read_all(query).await?;
    Ok(rows.into_iter().map(|(id,)| TenantId::from_uuid(id)).collect())
}
