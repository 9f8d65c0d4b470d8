//! Brings a database to this build's schema: roles first, then the migrations. Idempotent.
//!
//! Needs an administrator's address: roles with BYPASSRLS can only be made by a superuser.

use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};

use crate::error::StoreError;
use crate::pool::connect_once;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Passwords to give to the two roles that log in; `None` leaves a role's password as it is.
#[derive(Clone, Default)]
pub struct RolePasswords {
    /// For `forecastle_app`, which the API, the workers and the biller use.
    pub app: Option<String>,
    /// For `forecastle_read`, which sees every tenant and changes nothing.
    pub read: Option<String>,
}

/// What a run of [`migrate`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MigrationSummary {
    /// Version of the newest migration, now applied.
    pub version: i64,
    /// How many were applied by this run.
    pub applied: usize,
}

/// Creates roles and schema where they are missing.
///
/// # Errors
/// `Unavailable` where the server is; `Refused` where the login may not create roles, or an applied
/// migration differs from this build's.
pub async fn migrate(admin_url: &str, passwords: &RolePasswords) -> Result<MigrationSummary, StoreError> {
    let mut admin = connect_once(admin_url).await?;
    make_roles(&mut admin, passwords).await?;
    let before = applied_count(&mut admin).await?;
    MIGRATOR.run(&mut admin).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => {
            tracing::error!(error = %error, "migration failed");
            StoreError::from(error)
        }
        _ => StoreError::Refused { code: "migration".to_owned() },
    })?;
    Ok(MigrationSummary {
        version: MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0),
        applied: applied_count(&mut admin).await? - before,
    })
}

async fn applied_count(admin: &mut PgConnection) -> Result<usize, StoreError> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *admin).await?;
    if !exists {
        return Ok(0);
    }
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success").fetch_one(&mut *admin).await?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Roles belong to the whole server, so another database's run may be making them at this moment; and one
/// that was there before may be able to do more than it should: then no policy would bind it.
async fn make_roles(admin: &mut PgConnection, passwords: &RolePasswords) -> Result<(), StoreError> {
    for (role, abilities) in [
        ("forecastle_owner", "NOLOGIN NOBYPASSRLS"),
        ("forecastle_definer", "NOLOGIN BYPASSRLS"),
        ("forecastle_app", "LOGIN NOBYPASSRLS"),
        ("forecastle_read", "LOGIN BYPASSRLS"),
    ] {
        let statement = format!(
            "DO $$ BEGIN \
               PERFORM pg_advisory_xact_lock(hashtextextended('forecastle.roles', 0)); \
               IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}') THEN \
                 CREATE ROLE {role} {abilities} NOSUPERUSER NOCREATEDB NOCREATEROLE; \
               ELSIF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}' \
                             AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls <> {bypasses})) THEN \
                 ALTER ROLE {role} {abilities} NOSUPERUSER NOCREATEDB NOCREATEROLE; \
               END IF; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; \
             END $$",
            bypasses = !abilities.contains("NOBYPASSRLS"),
        );
        admin.execute(AssertSqlSafe(statement)).await?;
    }
    for (role, password) in [("forecastle_app", &passwords.app), ("forecastle_read", &passwords.read)] {
        let Some(password) = password else { continue };
        // DDL takes no parameters; the server itself does the quoting.
        let statement: String = sqlx::query_scalar("SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)")
            .bind(role)
            .bind(password)
            .fetch_one(&mut *admin)
            .await?;
        admin.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
    }
    Ok(())
}
