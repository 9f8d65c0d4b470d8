//! Customers in bulk, by COPY, before a launch or a load test.
//!
//! COPY FROM is refused under row-level security, so this needs an administrator's address and lives
//! outside the tenant scope. Every customer gets the same password hash, the same scenario input and
//! finished forecasts of it (same input, same result, same hash), under ids of its own, with the books
//! that the billing run would have made of that past: it finds nothing to heal in them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::Serialize;
use sqlx::postgres::PgConnection;

use crate::error::StoreError;
use crate::pool::connect_once;
use crate::seed_rows::{Rows, Shared};

/// Bytes sent to the server at once.
const COPY_CHUNK_BYTES: usize = 1 << 20;
/// Customers in one transaction.
const CUSTOMERS_PER_BATCH: u32 = 500;

/// What every seeded customer looks like.
#[derive(Clone)]
pub struct SeedPlan {
    /// How many customers.
    pub customers: u32,
    /// Scenarios of each.
    pub scenarios_each: u32,
    /// Finished forecasts of each, spread over its past, of its first scenario; 0 where `scenarios_each` is 0.
    pub forecasts_each: u32,
    /// The oldest signed up this many months before `at`, the others in between; 0: all of them at `at`.
    pub months: u32,
    /// First part of each e-mail address: `<prefix>-<number>@seed.example`, lower case.
    pub email_prefix: String,
    /// PHC string of the one password all of them have.
    pub password_hash: String,
    /// Input of every scenario.
    pub input: serde_json::Value,
    /// What that input's forecast is.
    pub engine_version: String,
    /// Its result.
    pub result: serde_json::Value,
    /// Its hash.
    pub result_hash: String,
    /// The present: nothing is later, and the books are closed up to it.
    pub at: DateTime<Utc>,
    /// Of everything drawn: with the same plan the same rows.
    pub seed: u64,
    /// Connections that load side by side, at least 1.
    pub connections: u32,
}

/// What was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SeedSummary {
    /// Tenants, each with one owner.
    pub customers: u64,
    /// Scenarios.
    pub scenarios: u64,
    /// Forecasts, each with its job and usage event.
    pub forecasts: u64,
    /// Boundaries between billing periods that are closed.
    pub closings: u64,
    /// Invoices, each issued, paid and posted.
    pub invoices: u64,
}

impl SeedSummary {
    const fn add(&mut self, other: &Self) {
        self.customers += other.customers;
        self.scenarios += other.scenarios;
        self.forecasts += other.forecasts;
        self.closings += other.closings;
        self.invoices += other.invoices;
    }
}

/// Loads the customers: 60 % FREE, 30 % STARTER, 10 % PRO, by number; currencies, time zones and tax rates in
/// turn. FREE customers get no more forecasts than their plan includes.
///
/// # Errors
/// `Conflict` if the prefix or the seed was used before (that batch is not loaded, others may be);
/// `Refused` if the login does not bypass row-level security; `Corrupt` if an amount leaves its range.
pub async fn seed(admin_url: &str, plan: &SeedPlan) -> Result<SeedSummary, StoreError> {
    let shared = Shared::of(plan);
    let lanes = plan.connections.max(1);
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..lanes {
        let (admin_url, plan, shared) = (admin_url.to_owned(), plan.clone(), shared.clone());
        tasks.spawn(async move { load_lane(&admin_url, &plan, &shared, lane, lanes).await });
    }
    let mut summary = SeedSummary::default();
    while let Some(done) = tasks.join_next().await {
        summary.add(&done.map_err(|_| StoreError::Corrupt { what: "a seeding task ended early" })??);
    }
    Ok(summary)
}

/// Every `lanes`-th batch, over one connection.
async fn load_lane(
    admin_url: &str,
    plan: &SeedPlan,
    shared: &Shared,
    lane: u32,
    lanes: u32,
) -> Result<SeedSummary, StoreError> {
    let mut admin = connect_once(admin_url).await?;
    // Nothing is lost that could not be loaded again, so a batch need not wait for the disk.
    sqlx::query("SET synchronous_commit = off").execute(&mut admin).await?;
    let mut summary = SeedSummary::default();
    for batch in (0..plan.customers.div_ceil(CUSTOMERS_PER_BATCH)).filter(|batch| batch % lanes == lane) {
        let first = batch * CUSTOMERS_PER_BATCH;
        let numbers = first..plan.customers.min(first + CUSTOMERS_PER_BATCH);
        // Of its own, so that it does not matter who loads what first.
        let mut rng = StdRng::seed_from_u64(plan.seed ^ (u64::from(batch) << 32));
        let mut rows = Rows::default();
        for number in numbers {
            rows.add_customer(plan, shared, number, &mut rng)?;
        }
        sqlx::query("BEGIN").execute(&mut admin).await?;
        let loaded = rows.copy_all(&mut admin).await;
        let end = if loaded.is_ok() { "COMMIT" } else { "ROLLBACK" };
        sqlx::query(end).execute(&mut admin).await?;
        loaded?;
        summary.add(&rows.summary);
    }
    Ok(summary)
}

/// Sends rows in COPY's text format; none is no statement.
pub(crate) async fn copy(admin: &mut PgConnection, statement: &'static str, rows: &str) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut sink = admin.copy_in_raw(statement).await?;
    for chunk in rows.as_bytes().chunks(COPY_CHUNK_BYTES) {
        sink.send(chunk).await?;
    }
    sink.finish().await?;
    Ok(())
}

/// The past that a plan gives its oldest customer.
pub(crate) fn history(plan: &SeedPlan) -> Duration {
    Duration::from_secs(u64::from(plan.months) * 2_629_746)
}
