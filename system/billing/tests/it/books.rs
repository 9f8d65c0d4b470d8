//! One set of books, however often, by however many, and wherever it stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forecastle_billing::{BillingRun, BillingTerms, Provider, RunSummary};
use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_store::{Db, DbOptions};
use forecastle_testbed::Postgres;
use forecastle_testbed::customers::{self, count};
use sqlx::postgres::PgConnection;

use crate::provider::{self, Book};

struct Bed {
    db: Db,
    admin: PgConnection,
    provider: Provider,
    book: Arc<Book>,
    _postgres: Postgres,
}

async fn bed() -> Bed {
    let postgres = Postgres::start();
    migrate(&postgres.admin_url(), &RolePasswords::default()).await.unwrap();
    let db = Db::open(DbOptions { max_connections: 12, ..DbOptions::new(postgres.url_of("forecastle_app"), "bill") })
        .unwrap();
    let admin = customers::connect(&postgres.admin_url()).await;
    let (url, book) = provider::start().await;
    let provider = Provider::new(&url, Duration::from_secs(2)).unwrap();
    Bed { db, admin, provider, book, _postgres: postgres }
}

impl Bed {
    async fn bill(&self, as_of: &str) -> RunSummary {
        let (db, provider) = (self.db.clone(), self.provider.clone());
        let run = BillingRun { db, provider, terms: BillingTerms::default(), at_once: 4, cache: None };
        run.to(as_of.parse().unwrap()).await.unwrap()
    }

    /// Everything the books say, but for ids made by the run and times of the machine.
    async fn books(&mut self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT concat_ws('|', i.tenant_id, i.period_index, i.state, i.number, i.tax_minor, i.total_minor,
                    i.issued_at, p.state, p.amount_minor,
                    (SELECT string_agg(concat_ws(',', l.kind, l.quantity, l.amount_minor, l.tax_minor), ';'
                                       ORDER BY l.line_no)
                     FROM app.invoice_lines l WHERE l.invoice_id = i.invoice_id),
                    (SELECT string_agg(concat_ws(',', e.account, e.debit_minor, e.credit_minor), ';' ORDER BY e.account)
                     FROM app.ledger_entries e WHERE e.posting_ref IN (i.invoice_id, p.payment_id)),
                    (SELECT count(*) FROM app.usage_events u WHERE u.invoice_id = i.invoice_id))
             FROM app.invoices i LEFT JOIN app.payments p USING (tenant_id, invoice_id) ORDER BY 1",
        )
        .fetch_all(&mut self.admin)
        .await
        .unwrap()
    }

    /// The ledger balances, the provider took what the books say, and nothing is owed.
    async fn assert_square(&mut self) {
        let receivable = "SELECT coalesce(sum(debit_minor - credit_minor), 0)::bigint FROM app.ledger_entries";
        assert_eq!(count(&mut self.admin, receivable).await, 0);
        let cash = "SELECT coalesce(sum(debit_minor), 0)::bigint FROM app.ledger_entries WHERE account = 'cash'";
        assert_eq!(count(&mut self.admin, cash).await, self.book.total_minor());
        let paid = "SELECT count(*) FROM app.invoices WHERE state = 'paid'";
        assert_eq!(count(&mut self.admin, paid).await, self.book.count());
    }
}

#[tokio::test]
async fn a_year_in_one_go_charges_base_in_advance_and_usage_in_arrears() {
    let mut bed = bed().await;
    let starter = customers::sign_up(&mut bed.admin, "STARTER", "EUR", "2026-01-31 10:00+00").await;
    customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-31 10:00+00").await;
    customers::use_forecasts(&mut bed.admin, &starter, 103, "2026-02-10 00:00+00").await;

    let summary = bed.bill("2026-03-31T00:30:00Z").await;
    // Periods start on 31 January, 28 February and 31 March; the last invoice is not due yet.
    assert_eq!(summary, RunSummary { drafted: 3, issued: 2, charged: 2, ..RunSummary::default() });
    let second = "SELECT total_minor FROM app.invoices WHERE period_index = 1";
    // 2700 + 19 % = 3213; 3 beyond 100 at 19 = 57 + 10.83 → 11.
    assert_eq!(count(&mut bed.admin, second).await, 3213 + 57 + 11);
    assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.usage_events WHERE invoice_id IS NULL").await, 0);
    bed.assert_square().await;

    let summary = bed.bill("2026-03-31T01:00:00Z").await;
    assert_eq!(summary, RunSummary { issued: 1, charged: 1, ..RunSummary::default() });
    let numbers = "SELECT count(*) FROM app.invoices WHERE number = period_index + 1";
    assert_eq!(count(&mut bed.admin, numbers).await, 3);
    bed.assert_square().await;
}

#[tokio::test]
async fn usage_that_commits_between_draft_and_issue_joins_the_draft() {
    let mut bed = bed().await;
    let pro = customers::sign_up(&mut bed.admin, "PRO", "JPY", "2026-01-01 00:00+00").await;
    bed.bill("2026-02-01T00:00:00Z").await;
    customers::use_forecasts(&mut bed.admin, &pro, 1_001, "2026-01-31 23:59:59+00").await;
    bed.bill("2026-02-01T01:00:00Z").await;
    let second = "SELECT total_minor FROM app.invoices WHERE period_index = 1";
    // 14800 + 2812; 15 + 2.85 → 3.
    assert_eq!(count(&mut bed.admin, second).await, 14_800 + 2_812 + 15 + 3);
    // Too late for that invoice: on the next one.
    customers::use_forecasts(&mut bed.admin, &pro, 1, "2026-01-31 23:59:59+00").await;
    bed.bill("2026-03-02T00:00:00Z").await;
    let third = "SELECT count(*) FROM app.usage_events u JOIN app.invoices i USING (tenant_id, invoice_id)
                 WHERE i.period_index = 2";
    assert_eq!(count(&mut bed.admin, third).await, 1);
    bed.assert_square().await;
}

#[tokio::test]
async fn billing_twice_leaves_the_same_books() {
    let mut bed = bed().await;
    for plan in ["STARTER", "PRO"] {
        customers::sign_up(&mut bed.admin, plan, "KWD", "2026-01-01 00:00+00").await;
    }
    assert!(bed.bill("2026-06-01T12:00:00Z").await.is_complete());
    let first = bed.books().await;
    assert_eq!(first.len(), 12);
    assert_eq!(bed.bill("2026-06-01T12:00:00Z").await, RunSummary::default());
    assert_eq!(bed.books().await, first);
    bed.assert_square().await;
}

#[tokio::test]
async fn two_billers_at_once_make_one_set_of_books() {
    let mut bed = bed().await;
    for index in 0..8 {
        let plan = ["STARTER", "PRO"][index % 2];
        let customer = customers::sign_up(&mut bed.admin, plan, "USD", "2026-01-01 00:00+00").await;
        customers::use_forecasts(&mut bed.admin, &customer, 120, "2026-01-20 00:00+00").await;
    }
    let (a, b) = tokio::join!(bed.bill("2026-04-02T00:00:00Z"), bed.bill("2026-04-02T00:00:00Z"));
    assert_eq!((a.drafted + b.drafted, a.issued + b.issued, a.charged + b.charged), (32, 32, 32));
    assert_eq!(a.unknown + b.unknown + a.failed + b.failed + a.incomplete + b.incomplete, 0);
    assert_eq!(bed.books().await.len(), 32);
    assert_eq!(bed.book.count(), 32);
    bed.assert_square().await;
}

#[tokio::test]
async fn a_lost_answer_is_resolved_by_asking_and_charges_once() {
    let mut bed = bed().await;
    customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01 00:00+00").await;
    bed.book.answers_to_lose.store(1, Ordering::SeqCst);
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert_eq!(summary, RunSummary { drafted: 1, issued: 1, charged: 1, ..RunSummary::default() });
    assert_eq!((bed.book.count(), bed.book.posts.load(Ordering::SeqCst)), (1, 1));
    bed.assert_square().await;
}

#[tokio::test]
async fn an_answer_that_stays_lost_is_unknown_until_a_later_run_asks() {
    let mut bed = bed().await;
    customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01 00:00+00").await;
    bed.book.answers_to_lose.store(100, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(100, Ordering::SeqCst);
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert_eq!((summary.unknown, summary.is_complete()), (1, false));
    assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.payments WHERE state = 'unknown'").await, 1);

    bed.book.look_ups_to_lose.store(0, Ordering::SeqCst);
    let posts = bed.book.posts.load(Ordering::SeqCst);
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert_eq!(summary, RunSummary { charged: 1, ..RunSummary::default() });
    assert_eq!((bed.book.count(), bed.book.posts.load(Ordering::SeqCst)), (1, posts));
    bed.assert_square().await;
}

#[tokio::test]
async fn a_run_that_is_dropped_anywhere_is_finished_by_the_next() {
    let mut bed = bed().await;
    for _ in 0..4 {
        customers::sign_up(&mut bed.admin, "STARTER", "GBP", "2026-01-01 00:00+00").await;
    }
    for stop_after_ms in [1, 3, 6, 10, 15, 25] {
        let run = bed.bill("2026-03-15T00:00:00Z");
        let _ = tokio::time::timeout(Duration::from_millis(stop_after_ms), run).await;
    }
    assert!(bed.bill("2026-03-15T00:00:00Z").await.is_complete());
    assert_eq!((bed.books().await.len(), bed.book.count()), (12, 12));
    bed.assert_square().await;
}

#[tokio::test]
async fn a_missing_period_is_healed_and_counted() {
    let mut bed = bed().await;
    customers::sign_up(&mut bed.admin, "PRO", "GBP", "2026-01-01 00:00+00").await;
    bed.bill("2026-03-01T02:00:00Z").await;
    // As if an earlier run had skipped it: gone with all that hangs on it.
    let gone = "WITH i AS (SELECT invoice_id FROM app.invoices WHERE period_index = 1),
        p AS (SELECT payment_id FROM app.payments JOIN i USING (invoice_id)),
        e AS (DELETE FROM app.ledger_entries WHERE posting_ref IN (SELECT * FROM i UNION SELECT * FROM p) RETURNING 1)
        SELECT count(*) FROM e";
    assert!(count(&mut bed.admin, gone).await > 0);
    for table in ["period_closings", "payments", "invoice_lines", "invoices"] {
        let statement = format!(
            "WITH d AS (DELETE FROM app.{table} WHERE invoice_id =
                 (SELECT invoice_id FROM app.invoices WHERE period_index = 1) RETURNING 1) SELECT count(*) FROM d"
        );
        assert!(count(&mut bed.admin, &statement).await > 0);
    }
    let summary = bed.bill("2026-03-01T02:00:00Z").await;
    assert_eq!((summary.drafted, summary.healed), (1, 1));
    // The number that went with it is missing for ever, and is said to be.
    assert_eq!((summary.mismatched, summary.is_complete()), (1, false));
    assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.invoices WHERE state = 'paid'").await, 3);
}
