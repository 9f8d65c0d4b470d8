//! Books made by the released schema go on where they were.

use std::path::Path;
use std::time::Duration;

use forecastle_billing::{BillingRun, BillingTerms, Provider};
use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_store::{Db, DbOptions};
use forecastle_testbed::customers::{self, Customer};
use forecastle_testbed::{Postgres, provider};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

/// The migrations of the release that had subscriptions and one try for each payment.
const RELEASED: [&str; 4] = ["0001_schema.sql", "0002_tenancy.sql", "0003_across_tenants.sql", "0004_books.sql"];

/// Brings an empty database to the released schema.
async fn release(admin: &mut PgConnection) {
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/migrations");
    let folder = tempfile::tempdir().unwrap();
    for name in RELEASED {
        std::fs::copy(migrations.join(name), folder.path().join(name)).unwrap();
    }
    sqlx::migrate::Migrator::new(folder.path()).await.unwrap().run(admin).await.unwrap();
}

/// The first invoice as the released biller left it: USD, STARTER, 19 % tax.
async fn invoice(admin: &mut PgConnection, customer: &Customer, state: &str, payment: &str, charge: &str) {
    let Customer { tenant, .. } = customer;
    let (invoice, paid) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    let received = format!(
        "INSERT INTO app.ledger_entries VALUES
            ('{tenant}', gen_random_uuid(), 'payment_received', '{paid}', 'cash', 'USD', 3451, 0, now()),
            ('{tenant}', gen_random_uuid(), 'payment_received', '{paid}', 'accounts_receivable', 'USD', 0, 3451, now());"
    );
    let received = if payment == "succeeded" { received.as_str() } else { "" };
    let paid_at = if state == "paid" { "now()" } else { "NULL" };
    let statements = format!(
        "INSERT INTO app.invoices (tenant_id, invoice_id, period_index, kind, period_start, period_end, currency, state,
            number, tax_minor, total_minor, drafted_at, issue_due_at, issued_at, paid_at)
         VALUES ('{tenant}', '{invoice}', 0, 'subscription', '2026-01-01', '2026-02-01', 'USD', '{state}', 1, 551, 3451,
            '2026-01-01', '2026-01-01 01:00', '2026-01-01 01:00', {paid_at});
         INSERT INTO app.invoice_lines VALUES ('{tenant}', '{invoice}', 1, 'base', 'STARTER plan', 1, 2900, 2900, 551);
         INSERT INTO app.payments VALUES ('{tenant}', '{paid}', '{invoice}', 'invoice', 'inv-{tenant}-{invoice}-invoice',
            3451, 'USD', '{payment}', {charge}, now(), now());
         INSERT INTO app.ledger_entries VALUES
            ('{tenant}', gen_random_uuid(), 'invoice_issued', '{invoice}', 'accounts_receivable', 'USD', 3451, 0, now()),
            ('{tenant}', gen_random_uuid(), 'invoice_issued', '{invoice}', 'revenue', 'USD', 0, 2900, now()),
            ('{tenant}', gen_random_uuid(), 'invoice_issued', '{invoice}', 'tax_payable', 'USD', 0, 551, now());
         {received}
         UPDATE app.tenants SET next_invoice_number = 2 WHERE tenant_id = '{tenant}';"
    );
    admin.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.unwrap();
}

#[tokio::test]
async fn books_of_the_released_schema_go_on_after_the_migration() {
    let postgres = Postgres::start();
    // Roles belong to the server: another database's migration has made them.
    migrate(&postgres.admin_url(), &RolePasswords::default()).await.unwrap();
    let in_released = |url: String| format!("{}released", url.strip_suffix("forecastle").unwrap());
    let mut elsewhere = customers::connect(&postgres.admin_url()).await;
    elsewhere.execute("CREATE DATABASE released").await.unwrap();
    let admin_url = in_released(postgres.admin_url());
    let mut admin = customers::connect(&admin_url).await;
    release(&mut admin).await;
    let mut signed_up = Vec::new();
    for _ in 0..3 {
        signed_up.push(customers::sign_up(&mut admin, "STARTER", "USD", "2026-01-01 00:00+00").await);
    }
    invoice(&mut admin, &signed_up[0], "paid", "succeeded", "'ch_old'").await;
    invoice(&mut admin, &signed_up[1], "issued", "failed", "NULL").await;
    invoice(&mut admin, &signed_up[2], "issued", "unknown", "NULL").await;
    customers::use_forecasts(&mut admin, &signed_up[0], 102, "2026-01-20 00:00+00").await;

    migrate(&admin_url, &RolePasswords::default()).await.unwrap();
    let db = Db::open(DbOptions::new(in_released(postgres.url_of("forecastle_app")), "bill")).unwrap();
    let (url, book) = provider::start().await;
    let provider = Provider::new(&url, Duration::from_secs(1)).unwrap();
    let run = BillingRun {
        db,
        provider,
        terms: BillingTerms::default(),
        at_once: 2,
        cache: None,
        silence_max: Duration::from_secs(20),
    };
    let summary = run.to("2026-02-02T00:00:00Z".parse().unwrap()).await.unwrap();
    // February's three, the one that was unknown, and the second try of the one that was declined.
    assert_eq!((summary.issued, summary.charged, summary.failed), (3, 5, 0));
    assert_eq!((summary.healed, summary.mismatched, summary.is_complete()), (0, 0, true));
    let unpaid = "SELECT count(*) FROM app.invoices WHERE state <> 'paid'";
    assert_eq!(customers::count(&mut admin, unpaid).await, 0);
    let retried = "SELECT count(*) FROM app.payments WHERE purpose = 'dunning-1' AND state = 'succeeded'";
    assert_eq!(customers::count(&mut admin, retried).await, 1);
    let usage = "SELECT sum(amount_minor)::bigint FROM app.invoice_lines WHERE kind = 'usage'";
    assert_eq!((customers::count(&mut admin, usage).await, book.count()), (2 * 20, 5));
}
