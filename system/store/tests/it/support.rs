//! A migrated database and the application's own access to it.

use std::time::Duration;

use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_store::{Db, DbOptions};
use forecastle_testbed::{Postgres, customers};
use sqlx::postgres::PgConnection;

pub(crate) struct Bed {
    pub(crate) db: Db,
    pub(crate) admin: PgConnection,
    pub(crate) postgres: Postgres,
}

pub(crate) async fn bed() -> Bed {
    let postgres = Postgres::start();
    migrate(&postgres.admin_url(), &RolePasswords::default()).await.expect("migrate");
    let db = Db::open(options(&postgres)).expect("open");
    let admin = customers::connect(&postgres.admin_url()).await;
    Bed { db, admin, postgres }
}

pub(crate) fn options(postgres: &Postgres) -> DbOptions {
    DbOptions {
        max_connections: 4,
        acquire_timeout: Duration::from_millis(500),
        statement_timeout: Duration::from_secs(2),
        ..DbOptions::new(postgres.url_of("forecastle_app"), "store-test")
    }
}

/// Polls until the condition holds, at most 5 s.
pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(5);
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "did not happen within 5 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
