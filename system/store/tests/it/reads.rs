//! Reads of one trip: under row-level security, and without a trace on the connection they used.

use forecastle_domain::{ForecastId, ScenarioId};
use forecastle_store::paging::PageKey;
use forecastle_store::{Db, DbOptions, dashboard, forecasts, identity, scenarios};
use forecastle_testbed::customers::{self, Customer};
use uuid::Uuid;

use crate::support::{Bed, bed, options};

async fn two_customers(bed: &mut Bed) -> (Customer, Customer) {
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let theirs = customers::sign_up(&mut bed.admin, "STARTER", "EUR", "2026-01-01").await;
    (ours, theirs)
}

#[tokio::test]
async fn a_read_finds_its_own_tenants_rows_and_nobody_elses() {
    let mut bed = bed().await;
    let (ours, theirs) = two_customers(&mut bed).await;
    let forecast = customers::queue_forecast(&mut bed.admin, &theirs, &customers::scenario_input()).await;
    let forecast = ForecastId::from_uuid(forecast);
    let (own, foreign) = (bed.db.tenant(theirs.tenant.into()), bed.db.tenant(ours.tenant.into()));

    let scenario = ScenarioId::from_uuid(theirs.scenario);
    assert_eq!(scenarios::read(&own, scenario).await.unwrap().map(|found| found.id()), Some(scenario));
    assert!(scenarios::read(&foreign, scenario).await.unwrap().is_none());
    let found = forecasts::read(&own, forecast).await.unwrap().expect("the owner finds it");
    assert_eq!((found.summary.id(), found.summary.attempts), (forecast, 0));
    assert!(forecasts::read(&foreign, forecast).await.unwrap().is_none());

    let page = scenarios::list(&own, PageKey::start(), 10).await.unwrap();
    assert_eq!(page.items.iter().map(scenarios::ScenarioSummary::id).collect::<Vec<_>>(), [scenario]);
    let terms = identity::terms(&own).await.unwrap();
    assert_eq!(terms.plan.as_str(), "STARTER");
    let overview = dashboard::overview(&own, &terms.period).await.unwrap();
    assert_eq!((overview.counts.scenarios, overview.counts.queued, overview.recent.len()), (1, 1, 1));
    assert_eq!(overview.recent[0].id(), forecast);
    let terms = identity::terms(&foreign).await.unwrap();
    let overview = dashboard::overview(&foreign, &terms.period).await.unwrap();
    assert_eq!((overview.counts.scenarios, overview.counts.queued, overview.recent.len()), (1, 0, 0));
}

#[tokio::test]
async fn a_reads_tenant_does_not_outlive_its_statement() {
    let mut bed = bed().await;
    let (ours, _) = two_customers(&mut bed).await;
    // The application's own role on one connection, so that what follows runs where the reads ran.
    let mut app = customers::connect(&bed.postgres.url_of("forecastle_app")).await;
    for _ in 0..8 {
        // Often enough for PostgreSQL to keep a plan.
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM app.read_scenario($1, $2)")
            .bind(ours.tenant)
            .bind(ours.scenario)
            .fetch_one(&mut app)
            .await
            .unwrap();
        let left: (Option<String>, i64) =
            sqlx::query_as("SELECT current_setting('app.tenant', true), (SELECT count(*) FROM app.scenarios)")
                .fetch_one(&mut app)
                .await
                .unwrap();
        assert_eq!((seen, left.0.unwrap_or_default(), left.1), (1, String::new(), 0));
    }
    // And through the store: a tenant that does not exist finds nothing of the one before.
    let db = Db::open(DbOptions { max_connections: 1, ..options(&bed.postgres) }).unwrap();
    let id = ScenarioId::from_uuid(ours.scenario);
    assert!(scenarios::read(&db.tenant(ours.tenant.into()), id).await.unwrap().is_some());
    assert!(scenarios::read(&db.tenant(Uuid::nil().into()), id).await.unwrap().is_none());
}

#[tokio::test]
async fn reading_functions_run_as_their_caller_and_take_the_tenant_first() {
    let mut bed = bed().await;
    let found: Vec<(String, bool, bool, bool)> = sqlx::query_as(
        "SELECT p.proname::text, NOT p.prosecdef AND pg_get_userbyid(p.proowner) = 'forecastle_owner',
                p.proargnames[1] = 'wanted_tenant' AND p.proargtypes[0] = 'uuid'::regtype,
                has_function_privilege('forecastle_read', p.oid, 'EXECUTE')
         FROM pg_proc p WHERE p.pronamespace = 'app'::regnamespace AND p.proname LIKE 'read\\_%' ORDER BY 1",
    )
    .fetch_all(&mut bed.admin)
    .await
    .unwrap();
    let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "read_dashboard",
            "read_forecast",
            "read_forecast_row",
            "read_period_usage",
            "read_scenario",
            "read_scenarios",
            "read_session",
            "read_tenant",
        ]
    );
    for (name, runs_as_caller, tenant_first, open_to_others) in found {
        assert!(runs_as_caller && tenant_first && !open_to_others, "{name}");
    }
}

#[tokio::test]
async fn a_read_replaces_connections_that_a_restart_broke() {
    let mut bed = bed().await;
    let (ours, _) = two_customers(&mut bed).await;
    let scope = bed.db.tenant(ours.tenant.into());
    let (a, b) = (scope.begin().await.unwrap(), scope.begin().await.unwrap());
    a.commit().await.unwrap();
    b.commit().await.unwrap();
    let ended = customers::count(
        &mut bed.admin,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'store-test'",
    )
    .await;
    assert_eq!(ended, 2);
    assert!(scenarios::read(&scope, ScenarioId::from_uuid(ours.scenario)).await.unwrap().is_some());
}

#[tokio::test]
async fn reads_that_are_cancelled_anywhere_keep_no_connection() {
    let mut bed = bed().await;
    let (ours, _) = two_customers(&mut bed).await;
    let scope = bed.db.tenant(ours.tenant.into());
    let id = ScenarioId::from_uuid(ours.scenario);
    for round in 0..200_u64 {
        let _ = tokio::time::timeout(std::time::Duration::from_micros(round * 5), scenarios::read(&scope, id)).await;
    }
    // All four connections can be had at once, so none is lost.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(scope.begin().await.unwrap());
    }
    drop(held);
    assert!(scenarios::read(&scope, id).await.unwrap().is_some());
}
