//! Customers in bulk, by COPY, before a launch or a load test.
//!
//! COPY FROM is refused under row-level security, so this needs an administrator's address and lives
//! outside the tenant scope. Every customer gets the same password hash, the same scenario input and
//! the same finished forecasts (same input, same result, same hash), under ids of its own.

use chrono::{DateTime, Utc};
use forecastle_domain::{BillingCalendar, Currency, Plan};
use serde::Serialize;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;
use crate::pool::connect_once;

/// Bytes sent to the server at once.
const COPY_CHUNK_BYTES: usize = 1 << 20;
/// Customers in one transaction.
const CUSTOMERS_PER_BATCH: u32 = 1_000;

/// What every seeded customer looks like.
#[derive(Clone)]
pub struct SeedPlan {
    /// How many customers.
    pub customers: u32,
    /// Scenarios of each.
    pub scenarios_each: u32,
    /// Finished forecasts of each, of its first scenario; 0 where `scenarios_each` is 0.
    pub forecasts_each: u32,
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
    /// Time of sign-up and of everything else.
    pub at: DateTime<Utc>,
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
}

/// Loads the customers: 60 % FREE, 30 % STARTER, 10 % PRO, by number; currencies in turn. FREE customers
/// get no more forecasts than their plan includes.
///
/// # Errors
/// `Conflict` if the prefix was used before (that batch is not loaded, earlier ones are); `Refused` if
/// the login does not bypass row-level security.
pub async fn seed(admin_url: &str, plan: &SeedPlan) -> Result<SeedSummary, StoreError> {
    let mut admin = connect_once(admin_url).await?;
    let mut summary = SeedSummary::default();
    let mut next = 0;
    while next < plan.customers {
        let end = plan.customers.min(next + CUSTOMERS_PER_BATCH);
        load_batch(&mut admin, plan, next..end, &mut summary).await?;
        next = end;
    }
    Ok(summary)
}

/// Rows of one batch in COPY's text format, one buffer for each table, parents first.
#[derive(Default)]
struct Rows {
    tenants: String,
    users: String,
    scenarios: String,
    forecasts: String,
    jobs: String,
    quotas: String,
    usage: String,
}

async fn load_batch(
    admin: &mut PgConnection,
    plan: &SeedPlan,
    numbers: std::ops::Range<u32>,
    summary: &mut SeedSummary,
) -> Result<(), StoreError> {
    let mut rows = Rows::default();
    for number in numbers {
        rows.add_customer(plan, number, summary);
    }
    sqlx::query("BEGIN").execute(&mut *admin).await?;
    let loaded = rows.copy_all(admin).await;
    let end = if loaded.is_ok() { "COMMIT" } else { "ROLLBACK" };
    sqlx::query(end).execute(&mut *admin).await?;
    loaded
}

impl Rows {
    fn add_customer(&mut self, plan: &SeedPlan, number: u32, summary: &mut SeedSummary) {
        let tier = match number % 10 {
            0..=5 => Plan::Free,
            6..=8 => Plan::Starter,
            _ => Plan::Pro,
        };
        let currency = Currency::ALL[number as usize % Currency::ALL.len()];
        let (tenant, user) = (Uuid::now_v7(), Uuid::now_v7());
        let at = plan.at.to_rfc3339();
        let anchor = BillingCalendar::from_sign_up(chrono_tz::UTC, plan.at).anchor_date;
        let token = if tier == Plan::Free { "\\N".to_owned() } else { format!("tok_seed_{number}") };
        line(
            &mut self.tenants,
            &[&tenant, &format_args!("Customer {number}"), &tier, &currency, &"UTC", &0, &anchor, &at, &token],
        );
        let email = format!("{}-{number}@seed.example", escape(&plan.email_prefix));
        let hash = escape(&plan.password_hash);
        line(&mut self.users, &[&tenant, &user, &email, &format_args!("Owner {number}"), &hash, &"owner", &at]);
        summary.customers += 1;

        let input = escape(&plan.input.to_string());
        let mut first_scenario = None;
        for index in 0..plan.scenarios_each.min(tier.scenario_limit().unwrap_or(u32::MAX)) {
            let scenario = Uuid::now_v7();
            first_scenario.get_or_insert(scenario);
            line(&mut self.scenarios, &[&tenant, &scenario, &format_args!("Scenario {index}"), &input, &1, &at, &at]);
            summary.scenarios += 1;
        }
        let Some(scenario) = first_scenario else { return };
        let forecasts = plan.forecasts_each.min(tier.forecast_cap().unwrap_or(u32::MAX));
        if forecasts > 0 {
            line(&mut self.quotas, &[&tenant, &0, &forecasts]);
        }
        let result = escape(&plan.result.to_string());
        for _ in 0..forecasts {
            let forecast = Uuid::now_v7();
            line(
                &mut self.forecasts,
                &[
                    &tenant,
                    &forecast,
                    &scenario,
                    &1,
                    &user,
                    &input,
                    &"succeeded",
                    &escape(&plan.engine_version),
                    &result,
                    &plan.result_hash,
                    &at,
                    &at,
                    &at,
                    &0,
                    &"consumed",
                ],
            );
            line(&mut self.jobs, &[&tenant, &forecast, &"forecast", &forecast, &"succeeded", &0, &at, &at, &at]);
            line(&mut self.usage, &[&tenant, &Uuid::now_v7(), &forecast, &at]);
            summary.forecasts += 1;
        }
    }

    async fn copy_all(&self, admin: &mut PgConnection) -> Result<(), StoreError> {
        copy(
            admin,
            "COPY app.tenants (tenant_id, organization, plan, currency, time_zone, tax_rate_ppm, anchor_date, \
             signed_up_at, payment_token) FROM STDIN",
            &self.tenants,
        )
        .await?;
        copy(
            admin,
            "COPY app.users (tenant_id, user_id, email, name, password_hash, role, created_at) FROM STDIN",
            &self.users,
        )
        .await?;
        copy(
            admin,
            "COPY app.scenarios (tenant_id, scenario_id, name, input, version, created_at, updated_at) FROM STDIN",
            &self.scenarios,
        )
        .await?;
        copy(
            admin,
            "COPY app.forecasts (tenant_id, forecast_id, scenario_id, scenario_version, requested_by, input, state, \
             engine_version, result, result_hash, requested_at, started_at, finished_at, quota_period, quota_state) \
             FROM STDIN",
            &self.forecasts,
        )
        .await?;
        copy(
            admin,
            "COPY app.jobs (tenant_id, job_id, kind, subject_id, state, attempts, ready_at, enqueued_at, finished_at) \
             FROM STDIN",
            &self.jobs,
        )
        .await?;
        copy(admin, "COPY app.quota_periods (tenant_id, period_index, taken) FROM STDIN", &self.quotas).await?;
        copy(
            admin,
            "COPY app.usage_events (tenant_id, usage_event_id, forecast_id, occurred_at) FROM STDIN",
            &self.usage,
        )
        .await
    }
}

async fn copy(admin: &mut PgConnection, statement: &'static str, rows: &str) -> Result<(), StoreError> {
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

fn line(buffer: &mut String, fields: &[&dyn std::fmt::Display]) {
    use std::fmt::Write as _;
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            buffer.push('\t');
        }
        let _ = write!(buffer, "{field}");
    }
    buffer.push('\n');
}

/// COPY's text format gives meaning to these four characters.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_break_out_of_their_row() {
        assert_eq!(escape("a\tb\nc\\d\r"), "a\\tb\\nc\\\\d\\r");
    }
}
