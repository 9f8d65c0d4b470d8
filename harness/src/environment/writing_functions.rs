//! Which functions of the system write although a SELECT calls them: by the database's own catalogue.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use nogo_faults::functions_that_write;
use sqlx::{Connection as _, PgConnection};

/// Names of those of the database that `admin_dsn` leads to, lower case, without schema.
///
/// # Errors
/// If the catalogue cannot be read.
pub async fn writing_functions(admin_dsn: &str) -> Result<BTreeSet<String>> {
    let mut admin = PgConnection::connect(admin_dsn).await.context("connect as the administrator")?;
    let bodies: Vec<(String, String)> = sqlx::query_as(
        "SELECT p.proname::text, p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_all(&mut admin)
    .await
    .context("read the system's functions")?;
    admin.close().await.context("leave the server")?;
    Ok(functions_that_write(&bodies).into_iter().collect())
}
