//! Plans that change, periods with or without a charge, and usage that is counted once.

use forecastle_billing::RunSummary;
use forecastle_domain::Plan;
use forecastle_store::plan_changes::{self, ChangeCause, PendingChange};
use forecastle_store::{identity, periods};
use forecastle_testbed::customers::Customer;

use crate::bed::{Bed, bed};

const LINES: &str = "SELECT concat_ws(' ', i.period_index, l.kind, l.quantity, l.unit_price_minor)
    FROM app.invoices i JOIN app.invoice_lines l USING (tenant_id, invoice_id) ORDER BY i.period_index, l.line_no";
const CLOSINGS: &str = "SELECT concat_ws(' ', period_index, coalesce(ended_plan, '-'), started_plan, usage_events)
    FROM app.period_closings ORDER BY period_index";

async fn upgrade(bed: &mut Bed, customer: &Customer, from: Plan, to: Plan, at: &str) {
    bed.does("UPDATE app.tenants SET payment_token = 'tok' WHERE payment_token IS NULL").await;
    let mut tx = bed.tx(customer).await;
    periods::lock_tenant(&mut tx).await.unwrap();
    plan_changes::apply_upgrade(&mut tx, uuid::Uuid::now_v7(), from, to, at.parse().unwrap(), None).await.unwrap();
    tx.commit().await.unwrap();
}

async fn downgrade(bed: &Bed, customer: &Customer, from: Plan, to: Plan, effective_at: &str) {
    let mut tx = bed.tx(customer).await;
    periods::lock_tenant(&mut tx).await.unwrap();
    let effective_at = effective_at.parse().unwrap();
    let cause = ChangeCause::Customer;
    let change = PendingChange { change_id: uuid::Uuid::now_v7(), from, to, effective_at, cause };
    plan_changes::schedule_downgrade(&mut tx, &change, "2026-01-05T00:00:00Z".parse().unwrap()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn usage_of_free_months_is_never_billed_by_a_later_plan() {
    let mut bed = bed().await;
    let customer = bed.customer("FREE", "USD", "2025-10-01 00:00+00").await;
    for month in ["2025-10-10", "2025-11-10", "2025-12-10", "2026-01-02"] {
        bed.use_forecasts(&customer, 5, &format!("{month} 00:00+00")).await;
    }
    upgrade(&mut bed, &customer, Plan::Free, Plan::Starter, "2026-01-10T00:00:00Z").await;
    // Of January all 101 count, those on FREE too: the plan at the period's end decides, and includes 100.
    bed.use_forecasts(&customer, 96, "2026-01-20 00:00+00").await;
    bed.bill_to_each(&["2026-02-01T02:00:00Z"]).await;
    assert_eq!(bed.words(LINES).await, ["4 base 1 2900", "4 usage 1 20"]);
    let closings = ["0 - FREE 0", "1 FREE FREE 5", "2 FREE FREE 5", "3 FREE FREE 5", "4 STARTER STARTER 101"];
    assert_eq!(bed.words(CLOSINGS).await, closings);
    bed.assert_square().await;
}

#[tokio::test]
async fn a_downgrade_counts_exactly_from_the_periods_end() {
    let mut bed = bed().await;
    let customer = bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    bed.bill("2026-01-02T00:00:00Z").await;
    downgrade(&bed, &customer, Plan::Pro, Plan::Free, "2026-02-01T00:00:00Z").await;
    bed.use_forecasts(&customer, 1_002, "2026-01-31 23:59:59+00").await;
    bed.bill_to_each(&["2026-01-31T23:59:59Z"]).await;
    assert_eq!(bed.words("SELECT plan FROM app.tenants").await, ["PRO"]);
    bed.bill_to_each(&["2026-02-01T00:00:00Z"]).await;
    assert_eq!(bed.words("SELECT plan FROM app.tenants").await, ["FREE"]);
    // In the hour between: joins. After it: counted by the next closing, at that period's plan, which has no price.
    bed.use_forecasts(&customer, 1, "2026-01-31 23:59:59+00").await;
    bed.bill_to_each(&["2026-02-01T01:00:00Z"]).await;
    bed.use_forecasts(&customer, 7, "2026-01-31 23:59:59+00").await;
    bed.bill_to_each(&["2026-04-01T02:00:00Z"]).await;
    assert_eq!(bed.words(LINES).await, ["0 base 1 9900", "1 usage 3 10"]);
    assert_eq!(bed.words(CLOSINGS).await, ["0 - PRO 0", "1 PRO FREE 1003", "2 FREE FREE 7", "3 FREE FREE 0"]);
    bed.assert_square().await;
}

#[tokio::test]
async fn a_downgrade_whose_time_has_come_holds_before_the_run_that_applies_it() {
    let mut bed = bed().await;
    let customer = bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    downgrade(&bed, &customer, Plan::Pro, Plan::Starter, "2026-02-01T00:00:00Z").await;
    // That is long ago for the machine's clock, and no run has been.
    let terms = identity::terms(&bed.run.db.tenant(customer.tenant.into())).await.unwrap();
    assert_eq!((terms.plan, terms.subscribed_plan), (Plan::Starter, Plan::Starter));
}

#[tokio::test]
async fn the_plan_in_force_when_the_period_ended_prices_all_of_its_usage() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "EUR", "2026-01-01 00:00+00").await;
    bed.bill("2026-01-02T00:00:00Z").await;
    bed.use_forecasts(&customer, 300, "2026-01-05 00:00+00").await;
    upgrade(&mut bed, &customer, Plan::Starter, Plan::Pro, "2026-01-31T23:59:59Z").await;
    bed.use_forecasts(&customer, 702, "2026-01-31 23:59:59.5+00").await;
    bed.bill_to_each(&["2026-02-02T00:00:00Z"]).await;
    assert_eq!(bed.words(LINES).await, ["0 base 1 2700", "1 base 1 9200", "1 usage 2 9"]);
    bed.assert_square().await;
}

#[tokio::test]
async fn every_event_is_counted_once_whatever_the_plan_and_the_hour() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "GBP", "2026-01-31 12:00+00").await;
    let mut used = 0;
    for (number, as_of) in [
        "2026-02-10T00:00:00Z",
        "2026-02-28T00:30:00Z",
        "2026-03-01T00:00:00Z",
        "2026-03-31T00:00:00Z",
        "2026-03-31T01:00:00Z",
        "2026-05-31T05:00:00Z",
    ]
    .into_iter()
    .enumerate()
    {
        if number == 2 {
            downgrade(&bed, &customer, Plan::Starter, Plan::Free, "2026-03-31T00:00:00Z").await;
        }
        // Stamped now, and stamped long ago.
        for stamp in [as_of, "2026-02-05T00:00:00Z"] {
            bed.use_forecasts(&customer, 9, stamp).await;
            used += 9;
        }
        let (a, b) = tokio::join!(bed.bill(as_of), bed.bill(as_of));
        assert!(a.is_complete() && b.is_complete());
    }
    bed.bill_to_each(&["2026-07-01T00:00:00Z"]).await;
    assert_eq!(bed.count("SELECT sum(usage_events)::bigint FROM app.period_closings").await, used);
    assert_eq!(bed.count("SELECT count(*) FROM app.usage_events WHERE billed_period_index IS NULL").await, 0);
    assert_eq!(bed.bill("2026-07-01T00:00:00Z").await, RunSummary::default());
    bed.assert_square().await;
}

#[tokio::test]
async fn periods_follow_the_tenants_own_midnight() {
    let mut bed = bed().await;
    bed.customer("STARTER", "USD", "2018-10-04 12:00+00").await;
    bed.does("UPDATE app.tenants SET time_zone = 'America/Sao_Paulo'").await;
    bed.bill_to_each(&["2018-12-05T00:00:00Z"]).await;
    let starts = bed.words("SELECT period_start::text FROM app.invoices ORDER BY 1").await;
    // Midnight of 4 November was skipped: that date began at 01:00.
    assert_eq!(starts, ["2018-10-04 03:00:00+00", "2018-11-04 03:00:00+00", "2018-12-04 02:00:00+00"]);
}
