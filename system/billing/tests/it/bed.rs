//! A database, a provider, and runs between them.

use std::sync::Arc;
use std::time::Duration;

use forecastle_billing::{BillingRun, BillingTerms, Provider, RunSummary};
use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_store::{Db, DbOptions, TenantTx};
use forecastle_testbed::customers::{self, Customer};
use forecastle_testbed::provider::{self, Book};
use forecastle_testbed::{Postgres, books};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

/// Longest wait for an answer of the provider.
const PROVIDER_TIMEOUT: Duration = Duration::from_millis(400);

pub(crate) struct Bed {
    pub(crate) run: BillingRun,
    pub(crate) admin: PgConnection,
    pub(crate) book: Arc<Book>,
    postgres: Postgres,
}

pub(crate) async fn bed() -> Bed {
    let postgres = Postgres::start();
    migrate(&postgres.admin_url(), &RolePasswords::default()).await.unwrap();
    let db = Db::open(DbOptions { max_connections: 12, ..DbOptions::new(postgres.url_of("forecastle_app"), "bill") })
        .unwrap();
    let admin = customers::connect(&postgres.admin_url()).await;
    let (url, book) = provider::start().await;
    let provider = Provider::new(&url, PROVIDER_TIMEOUT).unwrap();
    let run = BillingRun {
        db,
        provider,
        terms: BillingTerms::default(),
        at_once: 4,
        cache: None,
        silence_max: Duration::from_secs(20),
    };
    Bed { run, admin, book, postgres }
}

impl Bed {
    pub(crate) fn admin_url(&self) -> String {
        self.postgres.admin_url()
    }

    pub(crate) async fn bill(&self, as_of: &str) -> RunSummary {
        self.run.to(as_of.parse().unwrap()).await.unwrap()
    }

    /// Bills to each of these times in turn, and to none with anything left to be done.
    pub(crate) async fn bill_to_each(&self, times: &[&str]) {
        for as_of in times {
            let summary = self.bill(as_of).await;
            assert!(summary.is_complete(), "{as_of}: {summary:?}");
        }
    }

    pub(crate) async fn customer(&mut self, plan: &str, currency: &str, at: &str) -> Customer {
        customers::sign_up(&mut self.admin, plan, currency, at).await
    }

    pub(crate) async fn use_forecasts(&mut self, customer: &Customer, count: u32, at: &str) {
        customers::use_forecasts(&mut self.admin, customer, count, at).await;
    }

    pub(crate) async fn count(&mut self, statement: &str) -> i64 {
        customers::count(&mut self.admin, statement).await
    }

    /// A list of words from one column.
    pub(crate) async fn words(&mut self, statement: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_all(&mut self.admin).await.unwrap()
    }

    /// Does something as the superuser.
    pub(crate) async fn does(&mut self, statements: &str) {
        self.admin.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await.unwrap();
    }

    /// Sets the database's clock, and nobody else's.
    pub(crate) async fn set_clock(&mut self, at: &str) {
        self.does(&format!(
            "DO $$ BEGIN
                 IF to_regproc('app.clock_timestamp') IS NULL THEN
                     ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO clock_timestamp_of_the_machine;
                 END IF;
             END $$;
             CREATE OR REPLACE FUNCTION app.clock_timestamp() RETURNS timestamptz LANGUAGE sql
                 AS $$ SELECT '{at}'::timestamptz $$;"
        ))
        .await;
    }

    /// A transaction of the customer's.
    pub(crate) async fn tx(&self, customer: &Customer) -> TenantTx {
        self.run.db.tenant(customer.tenant.into()).begin().await.unwrap()
    }

    pub(crate) async fn books(&mut self) -> Vec<String> {
        books::read(&mut self.admin).await
    }

    pub(crate) async fn assert_square(&mut self) {
        books::assert_square(&mut self.admin, &self.book).await;
    }
}
