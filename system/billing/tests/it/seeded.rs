//! The books that seeded customers come with: the billing run takes them as its own.

use forecastle_billing::RunSummary;
use forecastle_store::StoreError;
use forecastle_store::seed::{SeedPlan, SeedSummary, seed};
use forecastle_testbed::customers::{self, count};

use crate::bed::{Bed, bed};

const AT: &str = "2026-06-15T12:00:00Z";

fn plan() -> SeedPlan {
    SeedPlan {
        customers: 300,
        scenarios_each: 2,
        forecasts_each: 6,
        months: 5,
        email_prefix: "seeded".to_owned(),
        password_hash: "none".to_owned(),
        input: customers::scenario_input(),
        engine_version: "1".to_owned(),
        result: serde_json::json!({ "note": "a\ttab and a \\ backslash" }),
        result_hash: "0".repeat(64),
        at: AT.parse().unwrap(),
        seed: 7,
        connections: 2,
    }
}

async fn seeded() -> (Bed, SeedSummary) {
    let bed = bed().await;
    let summary = seed(&bed.admin_url(), &plan()).await.unwrap();
    (bed, summary)
}

#[tokio::test]
async fn the_billing_run_finds_nothing_to_heal_in_seeded_books_and_goes_on_from_them() {
    let (mut bed, summary) = seeded().await;
    assert_eq!((summary.customers, summary.forecasts), (300, 180 * 5 + 120 * 6));
    assert!(summary.invoices > 120 && summary.closings > summary.invoices, "{summary:?}");
    let spread = "SELECT count(DISTINCT period_index) FROM app.period_closings";
    assert!(count(&mut bed.admin, spread).await >= 5);
    let on_invoices = "SELECT count(*) FROM app.usage_events WHERE invoice_id IS NOT NULL";
    assert!(count(&mut bed.admin, on_invoices).await > 100);

    assert_eq!(bed.bill(AT).await, RunSummary::default(), "everything due is done");

    // A month later every paying customer has one period more, and the past is still whole.
    let later = bed.bill("2026-07-16T12:00:00Z").await;
    assert!(later.charged >= 120 && later.charged == later.issued, "{later:?}");
    assert_eq!((later.healed, later.mismatched, later.incomplete, later.failed), (0, 0, 0, 0));
}

#[tokio::test]
async fn seeded_customers_stay_within_their_plans_and_quotas_add_up() {
    let (mut bed, _) = seeded().await;
    let plans: Vec<(String, i64)> =
        sqlx::query_as("SELECT plan, count(*) FROM app.tenants GROUP BY plan ORDER BY plan")
            .fetch_all(&mut bed.admin)
            .await
            .unwrap();
    assert_eq!(plans, [("FREE".to_owned(), 180), ("PRO".to_owned(), 30), ("STARTER".to_owned(), 90)]);
    let strays = "SELECT count(*) FROM app.forecasts f
        LEFT JOIN app.usage_events u USING (tenant_id, forecast_id)
        LEFT JOIN app.jobs j ON j.tenant_id = f.tenant_id AND j.subject_id = f.forecast_id
        WHERE u.occurred_at IS DISTINCT FROM f.finished_at OR j.state IS DISTINCT FROM 'succeeded'
           OR f.requested_at < (SELECT signed_up_at FROM app.tenants t WHERE t.tenant_id = f.tenant_id)";
    assert_eq!(count(&mut bed.admin, strays).await, 0);
    let wrong_quotas = "SELECT count(*) FROM app.quota_periods q WHERE taken <>
        (SELECT count(*) FROM app.forecasts f WHERE f.tenant_id = q.tenant_id AND f.quota_period = q.period_index)";
    assert_eq!(count(&mut bed.admin, wrong_quotas).await, 0);
    let currencies = "SELECT count(DISTINCT currency) FROM app.tenants";
    assert_eq!(count(&mut bed.admin, currencies).await, 5);
}

#[tokio::test]
async fn the_same_seed_draws_the_same_ids_so_it_can_be_loaded_once() {
    let (mut bed, _) = seeded().await;
    let again = seed(&bed.admin_url(), &SeedPlan { email_prefix: "others".to_owned(), ..plan() }).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
    let other = SeedPlan { email_prefix: "others".to_owned(), seed: 8, customers: 20, ..plan() };
    assert_eq!(seed(&bed.admin_url(), &other).await.unwrap().customers, 20);
    assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.tenants").await, 320);
}
