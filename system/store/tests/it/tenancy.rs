//! Row-level security on every table, the closed list of functions that look past it, and migrating twice.

use forecastle_domain::TenantId;
use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_store::{StoreError, login_role, periods};
use forecastle_testbed::customers;
use sqlx::AssertSqlSafe;

use crate::support::{Bed, bed};

const MAY_LOOK_ACROSS: &[&str] = &[
    "auth_mail_token",
    "auth_refresh_token",
    "auth_user_by_email",
    "billing_tenants",
    "cache_debts_oldest",
    "cache_debts_paid",
    "cache_debts_standing",
    "mail_claim",
    "ops_backlog",
    "queue_claim",
    "queue_prune",
    "tenants_count",
];

async fn tables(bed: &mut Bed) -> Vec<String> {
    sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'app' ORDER BY 1")
        .fetch_all(&mut bed.admin)
        .await
        .unwrap()
}

#[tokio::test]
async fn every_table_forces_row_level_security_and_leads_its_key_with_the_tenant() {
    let mut bed = bed().await;
    let tables = tables(&mut bed).await;
    assert!(tables.len() >= 17, "{tables:?}");
    for table in tables {
        let (enabled, forced, first_key, owner, policies): (bool, bool, String, String, i64) = sqlx::query_as(
            "SELECT c.relrowsecurity, c.relforcerowsecurity,
                    (SELECT a.attname::text FROM pg_index i JOIN pg_attribute a
                     ON a.attrelid = c.oid AND a.attnum = i.indkey[0] WHERE i.indrelid = c.oid AND i.indisprimary),
                    pg_get_userbyid(c.relowner)::text,
                    (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid
                       AND pg_get_expr(p.polqual, c.oid) LIKE '%app.tenant%'
                       AND pg_get_expr(p.polwithcheck, c.oid) LIKE '%app.tenant%')
             FROM pg_class c WHERE c.oid = ('app.' || $1)::regclass",
        )
        .bind(&table)
        .fetch_one(&mut bed.admin)
        .await
        .unwrap();
        assert!(enabled && forced, "{table} does not force row-level security");
        assert_eq!((first_key.as_str(), owner.as_str(), policies), ("tenant_id", "forecastle_owner", 1), "{table}");
    }
    let bypassing: Vec<String> = sqlx::query_scalar(
        "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'forecastle%' AND (rolbypassrls OR rolsuper) ORDER BY 1",
    )
    .fetch_all(&mut bed.admin)
    .await
    .unwrap();
    assert_eq!(bypassing, ["forecastle_definer", "forecastle_read"]);
}

#[tokio::test]
async fn only_the_listed_functions_look_across_tenants() {
    let mut bed = bed().await;
    let found: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT p.proname::text, pg_get_userbyid(p.proowner)::text,
                'search_path=app, pg_temp' = ANY (p.proconfig)
         FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
    )
    .fetch_all(&mut bed.admin)
    .await
    .unwrap();
    let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, MAY_LOOK_ACROSS);
    let document = include_str!("../../ACROSS_TENANTS.md");
    let mut named: Vec<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    named.sort_unstable();
    assert_eq!(named, names, "ACROSS_TENANTS.md names each of them and no other");
    assert!(found.iter().all(|(_, owner, path)| owner == "forecastle_definer" && *path), "{found:?}");
}

#[tokio::test]
async fn one_tenant_sees_and_writes_nothing_of_another_in_any_table() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let theirs = customers::sign_up(&mut bed.admin, "STARTER", "EUR", "2026-01-01").await;
    customers::queue_forecast(&mut bed.admin, &theirs, &customers::scenario_input()).await;

    for table in tables(&mut bed).await {
        let mut tx = bed.db.tenant(ours.tenant.into()).begin().await.unwrap();
        let foreign = format!("SELECT count(*) FROM app.{table} WHERE tenant_id <> '{}'", ours.tenant);
        assert_eq!(tx.scalar::<i64>(sqlx::query_scalar(AssertSqlSafe(foreign))).await.unwrap(), Some(0), "{table}");
    }
    // The positive control: the owner does see its own.
    let mut tx = bed.db.tenant(theirs.tenant.into()).begin().await.unwrap();
    let own: Option<i64> = tx.scalar(sqlx::query_scalar("SELECT count(*) FROM app.jobs")).await.unwrap();
    assert_eq!(own, Some(1));
    drop(tx);

    let mut tx = bed.db.tenant(ours.tenant.into()).begin().await.unwrap();
    let planted = sqlx::query("INSERT INTO app.quota_periods (tenant_id, period_index, taken) VALUES ($1, 7, 1)")
        .bind(theirs.tenant);
    assert_eq!(tx.execute(planted).await, Err(StoreError::Refused { code: "42501".to_owned() }));
}

#[tokio::test]
async fn the_tenant_does_not_outlive_its_transaction() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    bed.db.tenant(ours.tenant.into()).begin().await.unwrap().commit().await.unwrap();
    // A tenant that does not exist, on the same pooled connections, finds nothing.
    let mut tx = bed.db.tenant(TenantId::from_uuid(uuid::Uuid::nil())).begin().await.unwrap();
    assert_eq!(periods::lock_profile(&mut tx).await.err(), Some(StoreError::NotFound));
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let bed = bed().await;
    let again =
        migrate(&bed.postgres.admin_url(), &RolePasswords { app: Some("it's".to_owned()), read: None }).await.unwrap();
    assert_eq!(again.applied, 0);
}

#[tokio::test]
async fn a_role_that_may_do_too_much_is_cut_back() {
    let mut bed = bed().await;
    sqlx::query("ALTER ROLE forecastle_app BYPASSRLS CREATEROLE").execute(&mut bed.admin).await.unwrap();
    migrate(&bed.postgres.admin_url(), &RolePasswords::default()).await.unwrap();
    let may_too_much: bool = sqlx::query_scalar(
        "SELECT rolbypassrls OR rolcreaterole OR NOT rolcanlogin FROM pg_roles WHERE rolname = 'forecastle_app'",
    )
    .fetch_one(&mut bed.admin)
    .await
    .unwrap();
    assert!(!may_too_much);
}

#[tokio::test]
async fn a_login_that_no_policy_binds_is_refused_with_the_one_to_use() {
    let mut bed = bed().await;
    let refused = async |bed: &Bed, role: &str| login_role::check(&bed.postgres.url_of(role)).await;
    assert_eq!(refused(&bed, "forecastle_app").await, Ok(()));
    for role in ["postgres", "forecastle_read"] {
        let error = refused(&bed, role).await.unwrap_err();
        assert_eq!(error, StoreError::UnboundRole { why: "bypasses row-level security" }, "{role}");
        assert!(error.to_string().contains("forecastle_app"), "{error}");
    }
    sqlx::query("CREATE ROLE tenant_owner LOGIN IN ROLE forecastle_owner").execute(&mut bed.admin).await.unwrap();
    let owner = refused(&bed, "tenant_owner").await;
    assert_eq!(owner, Err(StoreError::UnboundRole { why: "owns the tables" }));
    sqlx::query("ALTER ROLE forecastle_app BYPASSRLS").execute(&mut bed.admin).await.unwrap();
    assert!(matches!(refused(&bed, "forecastle_app").await, Err(StoreError::UnboundRole { .. })));
}
