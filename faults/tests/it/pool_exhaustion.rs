//! Pool exhaustion on a real PostgreSQL.

use std::time::Duration;

use nogo_faults::{
    BlastRadius, Fault, InstallError, OpenFaults, PoolExhaustion, PoolExhaustionConfig, ProofError, Tolerance,
};
use sqlx::Executor;

use crate::{
    private_servers::{PrivatePostgres, free_address},
    wait::wait_until,
};

const HOLD: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: u32 = 20;
/// Less those that are kept for superusers.
const ORDINARY_LIMIT: i64 = 17;

fn tolerance() -> Tolerance {
    Tolerance { goodput_ratio_min: 0.0, outage_ms_max: 10_000, recover_ms_max: 5_000 }
}

async fn server_with_tables() -> PrivatePostgres {
    let server = PrivatePostgres::start(CONNECTIONS_MAX).await;
    let mut admin = server.connect("admin").await.expect("connect");
    admin
        .execute(
            "CREATE ROLE app LOGIN; CREATE ROLE filler LOGIN; CREATE ROLE bystander LOGIN; \
             CREATE TABLE jobs (id int); CREATE TABLE notes (id int); \
             GRANT ALL ON jobs, notes TO app, bystander",
        )
        .await
        .expect("create roles and tables");
    server
}

fn config(server: &PrivatePostgres) -> PoolExhaustionConfig {
    PoolExhaustionConfig {
        lock_statements: vec!["LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE".into()],
        evict_roles: vec!["app".into()],
        ..PoolExhaustionConfig::new("t1", server.dsn("filler"), server.dsn("admin"))
    }
}

fn radius(server: &PrivatePostgres) -> BlastRadius {
    let mut radius = BlastRadius::new(HOLD);
    radius.allow_address(server.address());
    radius
}

async fn no_connection_is_left(server: &PrivatePostgres) {
    wait_until("the fault's connections are gone", HOLD, || async {
        let mut admin = server.connect("admin").await.expect("connect admin");
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity \
              WHERE application_name LIKE 'nogo-fault-%' AND backend_type = 'client backend'",
        )
        .fetch_one(&mut admin)
        .await
        .expect("count connections");
        (left == 0).then_some(())
    })
    .await;
}

fn sqlstate(error: sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.code().unwrap_or_default().into_owned(),
        other => panic!("no answer from the server: {other}"),
    }
}

#[tokio::test]
async fn pool_exhaustion_bites_and_heals() {
    let server = server_with_tables().await;
    let mut app = server.connect("app").await.expect("connect app");
    let mut bystander = server.connect("bystander").await.expect("connect bystander");
    app.execute("SELECT count(*) FROM jobs").await.expect("works before");

    let mut fault = PoolExhaustion::new(config(&server), tolerance()).expect("config");
    let grant = radius(&server).grant(&fault, HOLD).expect("inside");
    let proof = fault.install(&grant).await.expect("install");
    assert_eq!(proof.kind, "connections_exhausted");
    assert_eq!(proof.detail["evicted"], 1, "{proof:?}");
    assert_eq!(proof.detail["before"]["held_by_fault"], 0);
    assert_eq!(proof.detail["during"]["ordinary_limit"], ORDINARY_LIMIT);
    assert!(proof.detail["during"]["held_by_fault"].as_i64() >= Some(10), "{proof:?}");
    assert!(proof.detail["during"]["locks_held_by_fault"].as_i64() >= Some(1), "{proof:?}");
    assert!(proof.detail["ordinary_connect"].as_str().expect("refusal").starts_with("53300"));

    app.execute("SELECT 1").await.expect_err("the idle connection was evicted");
    assert_eq!(sqlstate(server.connect("app").await.expect_err("no connection is left")), "53300");
    bystander.execute("SET statement_timeout = 200").await.expect("was not evicted");
    let stuck = bystander.execute("SELECT count(*) FROM jobs").await.expect_err("the table is locked");
    assert_eq!(sqlstate(stuck), "57014");
    bystander.execute("SELECT count(*) FROM notes").await.expect("other tables are outside the radius");
    let again = fault.control_proof().await.expect("still installed");
    assert!(again.detail["during"]["connections"].as_i64() >= Some(ORDINARY_LIMIT));

    let healed = fault.heal().await.expect("heal");
    assert_eq!(healed.detail["after"]["held_by_fault"], 0);
    let mut app = server.connect("app").await.expect("connects again");
    app.execute("SELECT count(*) FROM jobs").await.expect("works again");
    assert!(matches!(fault.control_proof().await, Err(ProofError::NoHarm(_))));
    fault.heal().await.expect("heal is idempotent");
    drop(fault);
    no_connection_is_left(&server).await;
}

#[tokio::test]
async fn a_connection_given_back_is_taken_again() {
    let server = server_with_tables().await;
    let app = server.connect("app").await.expect("connect app");
    let held = PoolExhaustionConfig { evict_roles: vec![], lock_statements: vec![], ..config(&server) };
    let faults = OpenFaults::new();
    let fault = PoolExhaustion::new(held, tolerance()).expect("config");
    let (id, before) = faults.install(&radius(&server), HOLD, Box::new(fault)).await.expect("install");
    let held_before = before.detail["during"]["held_by_fault"].as_i64().expect("count");

    drop(app);
    let held_after = wait_until("the free connection is taken", HOLD, || async {
        let proof = faults.control_proof(id).await.ok()?;
        proof.detail["during"]["held_by_fault"].as_i64().filter(|&held| held > held_before)
    })
    .await;
    assert!(held_after <= ORDINARY_LIMIT);
    let report = faults.heal_all(HOLD).await;
    assert!(report.is_clean() && report.healed.contains_key(&id), "{report:?}");
    assert!(faults.open().is_empty());
    server.connect("app").await.expect("connects again");
}

#[tokio::test]
async fn a_lock_that_cannot_be_taken_fails_the_install_and_leaves_nothing() {
    let server = server_with_tables().await;
    let missing = PoolExhaustionConfig {
        lock_statements: vec!["LOCK TABLE jobs".into(), "LOCK TABLE no_such_table".into()],
        ..config(&server)
    };
    let faults = OpenFaults::new();
    let fault = PoolExhaustion::new(missing, tolerance()).expect("config");
    let error = faults.install(&radius(&server), HOLD, Box::new(fault)).await.expect_err("cannot land");
    assert!(matches!(error, InstallError::DidNotLand { .. }), "{error}");
    assert!(faults.open().is_empty());
    no_connection_is_left(&server).await;
    server.connect("app").await.expect("connect").execute("SELECT count(*) FROM jobs").await.expect("no lock is left");
}

#[tokio::test]
async fn refuses_a_server_outside_the_radius_before_any_harm() {
    // Nobody listens there: an attempt to connect would give another error.
    let dsn = |role: &str, address| format!("postgres://{role}@{address}/postgres");
    let address = free_address();
    let config = PoolExhaustionConfig::new("t1", dsn("filler", address), dsn("admin", address));
    let fault = PoolExhaustion::new(config, tolerance()).expect("config");
    let faults = OpenFaults::new();
    let error = faults.install(&BlastRadius::new(HOLD), HOLD, Box::new(fault)).await.expect_err("outside");
    assert!(matches!(error, InstallError::OutsideRadius(_)), "{error}");
    assert!(faults.open().is_empty());
}

#[test]
fn dsns_of_different_servers_are_refused() {
    let config = PoolExhaustionConfig::new("t1", "postgres://a@127.0.0.1:1/x", "postgres://a@127.0.0.1:2/x");
    assert!(matches!(
        PoolExhaustion::new(config, tolerance()).err(),
        Some(InstallError::Parameter { parameter: "admin_dsn", .. })
    ));
}
