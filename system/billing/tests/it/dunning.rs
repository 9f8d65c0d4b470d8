//! Declined charges: tried again after 1, 3 and 7 days, then past due, then given up.

use std::sync::atomic::Ordering;

use chrono::TimeDelta;
use forecastle_billing::BillingTerms;
use forecastle_domain::{BillingState, Plan};
use forecastle_store::{Cache, CacheKey, CacheOptions, Lookup, identity, payments, periods};
use forecastle_testbed::Redis;

use crate::bed::bed;

const STANDING: &str = "SELECT concat_ws(' ', plan, billing_state) FROM app.tenants";
const INVOICES: &str =
    "SELECT concat_ws(' ', period_index, state, dunning_step, total_minor) FROM app.invoices ORDER BY period_index";

#[tokio::test]
async fn a_declined_charge_is_tried_three_times_then_past_due_then_given_up_and_free() {
    let mut bed = bed().await;
    let customer = bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    bed.book.declining.store(true, Ordering::SeqCst);
    let mut declined = Vec::new();
    for (as_of, failed) in [
        ("2026-01-01T01:00:00Z", 1),
        ("2026-01-02T00:59:59Z", 0),
        ("2026-01-02T01:00:00Z", 1),
        ("2026-01-04T01:00:00Z", 1),
        ("2026-01-08T00:59:59Z", 0),
    ] {
        let summary = bed.bill(as_of).await;
        assert_eq!((summary.failed, summary.is_complete()), (failed, true), "{as_of}");
        declined.push(bed.book.declined().len());
        assert_eq!(bed.words(STANDING).await, ["PRO current"], "{as_of}");
    }
    assert_eq!(declined, [1, 1, 2, 3, 3]);

    bed.bill("2026-01-08T01:00:00Z").await;
    assert_eq!(bed.words(STANDING).await, ["PRO past_due"]);
    let terms = identity::terms(&bed.run.db.tenant(customer.tenant.into())).await.unwrap();
    assert_eq!(
        (terms.plan, terms.subscribed_plan, terms.billing_state),
        (Plan::Free, Plan::Pro, BillingState::PastDue)
    );
    let since = "SELECT past_due_since::text FROM app.tenants";
    assert_eq!(bed.words(since).await, ["2026-01-08 01:00:00+00"]);

    bed.bill("2026-01-15T00:59:59Z").await;
    assert_eq!(bed.words(INVOICES).await, ["0 issued 4 11781"]);
    assert_eq!(bed.bill("2026-01-15T01:00:00Z").await.written_off, 1);
    assert_eq!(bed.words(INVOICES).await, ["0 uncollectible 4 11781"]);
    assert_eq!(bed.words(STANDING).await, ["PRO past_due"]);
    assert_eq!(
        bed.count("SELECT sum(debit_minor)::bigint FROM app.ledger_entries WHERE account = 'bad_debt'").await,
        11_781
    );

    bed.bill_to_each(&["2026-01-31T23:59:59Z"]).await;
    assert_eq!(bed.words(STANDING).await, ["PRO past_due"]);
    bed.bill_to_each(&["2026-02-01T00:00:00Z", "2026-03-15T00:00:00Z"]).await;
    assert_eq!(bed.words(STANDING).await, ["FREE current"]);
    assert_eq!(bed.words(INVOICES).await.len(), 1);
    let mails = "SELECT count(*) FROM app.mail_outbox WHERE template = 'dunning'";
    assert_eq!((bed.count(mails).await, bed.book.declined().len()), (4, 4));
    bed.assert_square().await;
}

#[tokio::test]
async fn one_run_over_many_weeks_dates_everything_as_a_run_each_day_would() {
    let mut by_day = bed().await;
    let mut at_once = bed().await;
    for bed in [&mut by_day, &mut at_once] {
        bed.book.declining.store(true, Ordering::SeqCst);
        bed.customer("STARTER", "JPY", "2026-01-31 10:00+00").await;
    }
    for day in 0..60 {
        let as_of = "2026-01-31T12:00:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap() + TimeDelta::days(day);
        assert!(by_day.bill(&as_of.to_rfc3339()).await.is_complete());
    }
    at_once.bill_to_each(&["2026-03-31T12:00:00Z"]).await;
    let books = at_once.books().await;
    assert!(books.iter().any(|line| line.starts_with("tenant|Org|FREE|current")), "{books:?}");
    assert_eq!(by_day.books().await, books);
    at_once.assert_square().await;
}

#[tokio::test]
async fn money_from_dunning_ends_it() {
    let mut bed = bed().await;
    bed.customer("STARTER", "EUR", "2026-01-01 00:00+00").await;
    bed.book.declines_left.store(3, Ordering::SeqCst);
    bed.bill_to_each(&["2026-03-02T00:00:00Z"]).await;
    let invoices = ["0 paid 3 3213", "1 paid 0 3213", "2 paid 0 3213"];
    assert_eq!(bed.words(INVOICES).await, invoices);
    assert_eq!(bed.words(STANDING).await, ["STARTER current"]);
    let purposes =
        bed.words("SELECT purpose || ' ' || state FROM app.payments WHERE amount_minor > 0 ORDER BY 1").await;
    assert_eq!(
        purposes,
        [
            "dunning-1 failed",
            "dunning-2 failed",
            "dunning-3 succeeded",
            "invoice failed",
            "invoice succeeded",
            "invoice succeeded"
        ]
    );
    bed.assert_square().await;
}

#[tokio::test]
async fn a_past_due_tenant_is_still_billed_its_base_and_is_past_due_no_longer_when_it_pays() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    // Long waits, so that a period ends in between.
    bed.run.terms = BillingTerms {
        retry_after: [TimeDelta::days(1), TimeDelta::days(3), TimeDelta::days(20)],
        give_up_after: TimeDelta::days(20),
        ..BillingTerms::default()
    };
    bed.book.declines_left.store(4, Ordering::SeqCst);
    bed.bill_to_each(&["2026-01-25T00:00:00Z"]).await;
    assert_eq!(bed.words(STANDING).await, ["STARTER past_due"]);
    bed.bill_to_each(&["2026-02-02T00:00:00Z"]).await;
    assert_eq!(bed.words(INVOICES).await, ["0 issued 4 3451", "1 paid 0 3451"]);
    assert_eq!(bed.words(STANDING).await, ["STARTER past_due"]);

    let mut tx = bed.tx(&customer).await;
    periods::lock_tenant(&mut tx).await.unwrap();
    let overdue = "SELECT invoice_id FROM app.invoices WHERE state = 'issued'";
    let invoice: uuid::Uuid = sqlx::query_scalar(overdue).fetch_one(&mut bed.admin).await.unwrap();
    let purpose = payments::next_pay_purpose(&mut tx, invoice.into()).await.unwrap();
    payments::intend(&mut tx, invoice.into(), purpose).await.unwrap();
    tx.commit().await.unwrap();
    bed.bill_to_each(&["2026-02-02T00:00:00Z"]).await;
    assert_eq!(bed.words(INVOICES).await, ["0 paid 4 3451", "1 paid 0 3451"]);
    assert_eq!(bed.words(STANDING).await, ["STARTER current"]);
    bed.assert_square().await;
}

#[tokio::test]
async fn a_cached_plan_is_deleted_when_its_limits_change() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    let redis = Redis::start();
    let options = CacheOptions { redis_url: redis.url(), timeout: std::time::Duration::from_secs(1) };
    let cache = Cache::open(&options).unwrap();
    bed.run.cache = Some(Cache::open(&options).unwrap());
    bed.book.declining.store(true, Ordering::SeqCst);
    bed.bill_to_each(&["2026-01-05T00:00:00Z"]).await;
    let key = CacheKey::plan(customer.tenant.into());
    let Lookup::Miss(Some(lease)) = cache.get::<u32>(&key).await else { panic!("the key is empty") };
    assert!(cache.fill(lease, &7_u32, std::time::Duration::from_secs(60)).await);
    bed.bill_to_each(&["2026-01-05T00:00:00Z"]).await;
    assert!(matches!(cache.get::<u32>(&key).await, Lookup::Hit(7)));
    bed.bill_to_each(&["2026-01-09T00:00:00Z"]).await;
    assert_eq!(bed.words(STANDING).await, ["STARTER past_due"]);
    assert!(matches!(cache.get::<u32>(&key).await, Lookup::Miss(_)));
}

#[tokio::test]
async fn two_billers_at_once_decline_once_for_each_step() {
    let mut bed = bed().await;
    for currency in ["USD", "EUR", "GBP", "JPY", "KWD"] {
        bed.customer("PRO", currency, "2026-01-01 00:00+00").await;
    }
    bed.book.declining.store(true, Ordering::SeqCst);
    let (a, b) = tokio::join!(bed.bill("2026-02-15T00:00:00Z"), bed.bill("2026-02-15T00:00:00Z"));
    assert_eq!((a.failed + b.failed, a.written_off + b.written_off), (20, 5));
    assert!(a.is_complete() && b.is_complete());
    assert_eq!(bed.count("SELECT count(*) FROM app.payments").await, 20);
    assert_eq!(bed.count("SELECT count(*) FROM app.mail_outbox").await, 20);
    assert_eq!(bed.count("SELECT count(*) FROM app.tenants WHERE plan = 'FREE'").await, 5);
    bed.assert_square().await;
}
