//! One set of books, however often, by however many, and wherever it stops.

use std::time::Duration;

use forecastle_billing::RunSummary;

use crate::bed::bed;

#[tokio::test]
async fn a_year_in_one_go_charges_base_in_advance_and_usage_in_arrears() {
    let mut bed = bed().await;
    let starter = bed.customer("STARTER", "EUR", "2026-01-31 10:00+00").await;
    bed.customer("FREE", "USD", "2026-01-31 10:00+00").await;
    bed.use_forecasts(&starter, 103, "2026-02-10 00:00+00").await;

    let summary = bed.bill("2026-03-31T00:30:00Z").await;
    // Periods start on 31 January, 28 February and 31 March; the last invoice is not due yet.
    assert_eq!(summary, RunSummary { drafted: 3, issued: 2, charged: 2, ..RunSummary::default() });
    let second = "SELECT total_minor FROM app.invoices WHERE period_index = 1";
    // 2700 + 19 % = 3213; 3 beyond 100 at 19 = 57 + 10.83 → 11.
    assert_eq!(bed.count(second).await, 3213 + 57 + 11);
    assert_eq!(bed.count("SELECT count(*) FROM app.usage_events WHERE invoice_id IS NULL").await, 0);
    bed.assert_square().await;

    let summary = bed.bill("2026-03-31T01:00:00Z").await;
    assert_eq!(summary, RunSummary { issued: 1, charged: 1, ..RunSummary::default() });
    let numbers = "SELECT count(*) FROM app.invoices WHERE number = period_index + 1";
    assert_eq!(bed.count(numbers).await, 3);
    bed.assert_square().await;
}

#[tokio::test]
async fn usage_that_commits_between_draft_and_issue_joins_the_draft() {
    let mut bed = bed().await;
    let pro = bed.customer("PRO", "JPY", "2026-01-01 00:00+00").await;
    bed.bill("2026-02-01T00:00:00Z").await;
    bed.use_forecasts(&pro, 1_001, "2026-01-31 23:59:59+00").await;
    bed.bill("2026-02-01T01:00:00Z").await;
    let second = "SELECT total_minor FROM app.invoices WHERE period_index = 1";
    // 14800 + 2812; 15 + 2.85 → 3.
    assert_eq!(bed.count(second).await, 14_800 + 2_812 + 15 + 3);
    // Too late for that invoice: on the next one.
    bed.use_forecasts(&pro, 1, "2026-01-31 23:59:59+00").await;
    bed.bill("2026-03-02T00:00:00Z").await;
    let third = "SELECT count(*) FROM app.usage_events u JOIN app.invoices i USING (tenant_id, invoice_id)
                 WHERE i.period_index = 2";
    assert_eq!(bed.count(third).await, 1);
    bed.assert_square().await;
}

#[tokio::test]
async fn billing_twice_leaves_the_same_books() {
    let mut bed = bed().await;
    for plan in ["STARTER", "PRO"] {
        bed.customer(plan, "KWD", "2026-01-01 00:00+00").await;
    }
    assert!(bed.bill("2026-06-01T12:00:00Z").await.is_complete());
    let first = bed.books().await;
    assert_eq!(bed.count("SELECT count(*) FROM app.invoices").await, 12);
    assert_eq!(bed.bill("2026-06-01T12:00:00Z").await, RunSummary::default());
    assert_eq!(bed.books().await, first);
    bed.assert_square().await;
}

#[tokio::test]
async fn two_billers_at_once_make_one_set_of_books() {
    let mut bed = bed().await;
    for index in 0..8 {
        let plan = ["STARTER", "PRO"][index % 2];
        let customer = bed.customer(plan, "USD", "2026-01-01 00:00+00").await;
        bed.use_forecasts(&customer, 120, "2026-01-20 00:00+00").await;
    }
    let (a, b) = tokio::join!(bed.bill("2026-04-02T00:00:00Z"), bed.bill("2026-04-02T00:00:00Z"));
    assert_eq!((a.drafted + b.drafted, a.issued + b.issued, a.charged + b.charged), (32, 32, 32));
    assert_eq!(a.unknown + b.unknown + a.failed + b.failed + a.incomplete + b.incomplete, 0);
    assert_eq!(bed.count("SELECT count(*) FROM app.invoices").await, 32);
    assert_eq!(bed.book.count(), 32);
    bed.assert_square().await;
}

#[tokio::test]
async fn a_run_that_is_dropped_anywhere_is_finished_by_the_next() {
    let mut bed = bed().await;
    for _ in 0..4 {
        bed.customer("STARTER", "GBP", "2026-01-01 00:00+00").await;
    }
    for stop_after_ms in [1, 3, 6, 10, 15, 25] {
        let run = bed.bill("2026-03-15T00:00:00Z");
        let _ = tokio::time::timeout(Duration::from_millis(stop_after_ms), run).await;
    }
    assert!(bed.bill("2026-03-15T00:00:00Z").await.is_complete());
    assert_eq!((bed.count("SELECT count(*) FROM app.invoices").await, bed.book.count()), (12, 12));
    bed.assert_square().await;
}

#[tokio::test]
async fn a_missing_period_is_healed_and_counted() {
    let mut bed = bed().await;
    bed.customer("PRO", "GBP", "2026-01-01 00:00+00").await;
    bed.bill("2026-03-01T02:00:00Z").await;
    // As if an earlier run had skipped it: gone with all that hangs on it.
    let gone = "WITH i AS (SELECT invoice_id FROM app.invoices WHERE period_index = 1),
        p AS (SELECT payment_id FROM app.payments JOIN i USING (invoice_id)),
        e AS (DELETE FROM app.ledger_entries WHERE posting_ref IN (SELECT * FROM i UNION SELECT * FROM p) RETURNING 1)
        SELECT count(*) FROM e";
    assert!(bed.count(gone).await > 0);
    for table in ["period_closings", "payments", "invoice_lines", "invoices"] {
        let statement = format!(
            "WITH d AS (DELETE FROM app.{table} WHERE invoice_id =
                 (SELECT invoice_id FROM app.invoices WHERE period_index = 1) RETURNING 1) SELECT count(*) FROM d"
        );
        assert!(bed.count(&statement).await > 0);
    }
    let summary = bed.bill("2026-03-01T02:00:00Z").await;
    assert_eq!((summary.drafted, summary.healed), (1, 1));
    // The number that went with it is missing for ever, and is said to be.
    assert_eq!((summary.mismatched, summary.is_complete()), (1, false));
    assert_eq!(bed.count("SELECT count(*) FROM app.invoices WHERE state = 'paid'").await, 3);
}

#[tokio::test]
async fn what_was_never_posted_is_posted_and_a_contradiction_is_told() {
    let mut bed = bed().await;
    bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    bed.bill("2026-01-02T00:00:00Z").await;
    bed.does("DELETE FROM app.ledger_entries").await;
    let summary = bed.bill("2026-01-02T00:00:00Z").await;
    assert_eq!(summary, RunSummary { healed: 2, ..RunSummary::default() });
    bed.assert_square().await;
    assert_eq!(bed.bill("2026-01-02T00:00:00Z").await, RunSummary::default());

    bed.does("UPDATE app.ledger_entries SET debit_minor = debit_minor + 1 WHERE account = 'cash'").await;
    let summary = bed.bill("2026-01-02T00:00:00Z").await;
    assert!(summary.mismatched > 0 && !summary.is_complete(), "{summary:?}");
}

#[tokio::test]
async fn every_currency_is_billed_in_its_own_minor_units() {
    let mut bed = bed().await;
    for currency in ["USD", "EUR", "GBP", "JPY", "KWD"] {
        let customer = bed.customer("STARTER", currency, "2026-01-01 00:00+00").await;
        bed.use_forecasts(&customer, 107, "2026-01-15 00:00+00").await;
    }
    bed.bill_to_each(&["2026-02-01T01:00:00Z"]).await;
    let totals = bed
        .words("SELECT concat_ws(' ', currency, total_minor) FROM app.invoices WHERE period_index = 1 ORDER BY 1")
        .await;
    // Base and 7 beyond, each with 19 % of its own, half away from zero.
    assert_eq!(totals, ["EUR 3371", "GBP 2989", "JPY 5367", "KWD 11099", "USD 3618"]);
    bed.assert_square().await;
}

#[tokio::test]
async fn books_of_before_closings_are_taken_over_without_a_change() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    bed.use_forecasts(&customer, 103, "2026-01-15 00:00+00").await;
    bed.bill("2026-02-02T00:00:00Z").await;
    let before = bed.books().await;
    // As an instance of before closings leaves them.
    bed.does("DELETE FROM app.period_closings; UPDATE app.usage_events SET billed_period_index = NULL").await;
    assert_eq!(bed.bill("2026-02-02T00:00:00Z").await, RunSummary::default());
    assert_eq!(bed.books().await, before);
}
