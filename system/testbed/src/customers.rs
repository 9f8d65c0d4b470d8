//! Customers and their work, written straight into the tables by the superuser, so that a test of one
//! part does not lean on another.

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use uuid::Uuid;

/// A tenant with one owner and one scenario.
#[derive(Debug, Clone, Copy)]
pub struct Customer {
    /// The tenant.
    pub tenant: Uuid,
    /// Its owner.
    pub user: Uuid,
    /// Its scenario.
    pub scenario: Uuid,
}

/// A connection as the superuser.
///
/// # Panics
/// If the server refuses it.
pub async fn connect(admin_url: &str) -> PgConnection {
    PgConnection::connect(admin_url).await.expect("connect as the superuser")
}

/// The smallest input that has a forecast.
#[must_use]
pub fn scenario_input() -> Value {
    json!({
        "currency": "USD",
        "start_month": "2026-01",
        "horizon_months": 3,
        "opening_cash": "1000",
        "discount_rate_annual": "0.1",
        "tax_rate": "0.2",
        "revenue": [{
            "name": "Seats", "opening_units": "10", "adds_per_month": "2", "adds_growth_monthly": "0",
            "churn_monthly": "0.05", "price": "30", "price_growth_annual": "0", "collection_lag_months": 0
        }],
        "costs": [{ "kind": "fixed", "name": "Rent", "amount": "100", "growth_annual": "0" }]
    })
}

/// Signs a customer up at `at` (a timestamp PostgreSQL reads), in UTC, with 19 % tax.
///
/// # Panics
/// If the database refuses it.
pub async fn sign_up(admin: &mut PgConnection, plan: &str, currency: &str, at: &str) -> Customer {
    let customer = Customer { tenant: Uuid::now_v7(), user: Uuid::now_v7(), scenario: Uuid::now_v7() };
    let Customer { tenant, user, scenario } = customer;
    let token = if plan == "FREE" { "NULL".to_owned() } else { format!("'tok-{tenant}'") };
    let statements = format!(
        "INSERT INTO app.tenants (tenant_id, organization, plan, currency, time_zone, tax_rate_ppm, anchor_date,
                                  signed_up_at, payment_token)
         VALUES ('{tenant}', 'Org', '{plan}', '{currency}', 'UTC', 190000, '{at}'::timestamptz::date, '{at}', {token});
         INSERT INTO app.users (tenant_id, user_id, email, name, password_hash, role, created_at)
         VALUES ('{tenant}', '{user}', '{user}@test.example', 'Owner', 'none', 'owner', '{at}');
         INSERT INTO app.scenarios (tenant_id, scenario_id, name, input, version, created_at, updated_at)
         VALUES ('{tenant}', '{scenario}', 'Base', '{}', 1, '{at}', '{at}');",
        scenario_input()
    );
    admin.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.expect("sign a customer up");
    customer
}

/// Queues a forecast of the customer's scenario with this input: forecast, quota and job.
///
/// # Panics
/// If the database refuses it.
pub async fn queue_forecast(admin: &mut PgConnection, customer: &Customer, input: &Value) -> Uuid {
    let Customer { tenant, user, scenario } = customer;
    let forecast = Uuid::now_v7();
    let statements = format!(
        "INSERT INTO app.forecasts (tenant_id, forecast_id, scenario_id, scenario_version, requested_by, input, state,
                                    requested_at, quota_period, quota_state)
         VALUES ('{tenant}', '{forecast}', '{scenario}', 1, '{user}', '{input}', 'queued', now(), 0, 'held');
         INSERT INTO app.quota_periods AS q (tenant_id, period_index, taken) VALUES ('{tenant}', 0, 1)
         ON CONFLICT (tenant_id, period_index) DO UPDATE SET taken = q.taken + 1;
         INSERT INTO app.jobs (tenant_id, job_id, kind, subject_id, state, ready_at, enqueued_at)
         VALUES ('{tenant}', '{forecast}', 'forecast', '{forecast}', 'queued', now(), now());"
    );
    admin.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.expect("queue a forecast");
    forecast
}

/// Gives the customer `count` succeeded forecasts with their usage events, all stamped `at`.
///
/// # Panics
/// If the database refuses it.
pub async fn use_forecasts(admin: &mut PgConnection, customer: &Customer, count: u32, at: &str) {
    let Customer { tenant, user, scenario } = customer;
    let statements = format!(
        "WITH made AS (
             INSERT INTO app.forecasts (tenant_id, forecast_id, scenario_id, scenario_version, requested_by, input,
                 state, engine_version, result, result_hash, requested_at, finished_at, quota_period, quota_state)
             SELECT '{tenant}', gen_random_uuid(), '{scenario}', 1, '{user}', '{{}}', 'succeeded', '1', '{{}}',
                    repeat('0', 64), '{at}', '{at}', 0, 'consumed'
             FROM generate_series(1, {count}) RETURNING forecast_id)
         INSERT INTO app.usage_events (tenant_id, usage_event_id, forecast_id, occurred_at)
         SELECT '{tenant}', gen_random_uuid(), forecast_id, '{at}' FROM made"
    );
    admin.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.expect("use forecasts");
}

/// One number from the superuser's point of view.
///
/// # Panics
/// If the statement fails or gives no number.
pub async fn count(admin: &mut PgConnection, statement: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(admin).await.expect("count")
}
