//! Exhaustion, cancellation, silence and failed transactions.

use std::time::Duration;

use forecastle_store::{Db, DbOptions, StoreError, UnavailableReason, identity};
use forecastle_testbed::customers;

use crate::support::{bed, options, wait_until};

/// Ends every connection of the pool.
const TERMINATE_ALL: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'store-test'";

#[tokio::test]
async fn an_exhausted_pool_says_so_and_recovers() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let scope = bed.db.tenant(ours.tenant.into());
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(scope.begin().await.unwrap());
    }
    assert_eq!(scope.begin().await.err(), Some(StoreError::Unavailable { reason: UnavailableReason::PoolExhausted }));
    drop(held);
    scope.begin().await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn a_cancelled_begin_leaves_no_open_transaction() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let scope = bed.db.tenant(ours.tenant.into());
    scope.begin().await.unwrap().commit().await.unwrap();
    for round in 0..50_u64 {
        let _ = tokio::time::timeout(Duration::from_micros(round * 20), scope.begin()).await;
    }
    // And a caller that goes away in the middle of a statement.
    let mut tx = scope.begin().await.unwrap();
    let slow = tx.execute(sqlx::query("SELECT pg_sleep(0.3)"));
    assert!(tokio::time::timeout(Duration::from_millis(30), slow).await.is_err());
    drop(tx);

    let admin = &mut bed.admin;
    wait_until("no transaction left open", async || {
        customers::count(
            admin,
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'store-test' AND xact_start IS NOT NULL",
        )
        .await
            == 0
    })
    .await;
    // The next borrower's write is really committed.
    let mut tx = scope.begin().await.unwrap();
    tx.execute(
        sqlx::query("INSERT INTO app.quota_periods (tenant_id, period_index, taken) VALUES ($1, 1, 1)")
            .bind(ours.tenant),
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(customers::count(&mut bed.admin, "SELECT count(*) FROM app.quota_periods").await, 1);
}

#[tokio::test]
async fn a_failed_transaction_does_not_pretend_to_commit() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let mut tx = bed.db.tenant(ours.tenant.into()).begin().await.unwrap();
    assert!(tx.execute(sqlx::query("SELECT 1 / 0")).await.is_err());
    assert!(tx.commit().await.is_err());
}

#[tokio::test]
async fn an_unbalanced_posting_is_refused_at_commit() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let mut tx = bed.db.tenant(ours.tenant.into()).begin().await.unwrap();
    tx.execute(
        sqlx::query(
            "INSERT INTO app.ledger_entries VALUES
             ($1, gen_random_uuid(), 'payment_received', gen_random_uuid(), 'cash', 'USD', 5, 0, now())",
        )
        .bind(ours.tenant),
    )
    .await
    .unwrap();
    assert_eq!(tx.commit().await, Err(StoreError::Refused { code: "ledger_posting_balances".to_owned() }));
}

#[tokio::test]
async fn a_long_statement_ends_by_its_limit_and_a_dead_server_is_told_as_unavailable() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let scope = bed.db.tenant(ours.tenant.into());
    let mut tx = scope.begin().await.unwrap();
    assert_eq!(tx.execute(sqlx::query("SELECT pg_sleep(30)")).await, Err(StoreError::Timeout));
    drop(tx);
    drop(bed.postgres);
    assert!(scope.begin().await.err().is_some_and(|error| error.is_unavailable()));
}

#[tokio::test]
async fn idle_connections_that_a_restart_broke_are_replaced_unnoticed() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let db = Db::open(options(&bed.postgres)).unwrap();
    let scope = db.tenant(ours.tenant.into());
    let (a, b) = (scope.begin().await.unwrap(), scope.begin().await.unwrap());
    a.commit().await.unwrap();
    b.commit().await.unwrap();
    customers::count(&mut bed.admin, TERMINATE_ALL).await;
    scope.begin().await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_within_the_limit_and_blocks_no_slot() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let scope = bed.db.tenant(ours.tenant.into());
    let mut silent = Vec::new();
    for _ in 0..4 {
        let mut tx = scope.begin().await.unwrap();
        let pid: i32 = tx.scalar(sqlx::query_scalar("SELECT pg_backend_pid()")).await.unwrap().unwrap();
        signal(pid, "-STOP");
        silent.push((tx, pid));
    }
    let pids: Vec<i32> = silent.iter().map(|(_, pid)| *pid).collect();
    let started = std::time::Instant::now();
    // One notices in a statement, one in its commit, two are just let go.
    let (mut asking, _) = silent.remove(0);
    assert_eq!(asking.execute(sqlx::query("SELECT 1")).await, Err(StoreError::Timeout));
    let (committing, _) = silent.remove(0);
    assert_eq!(committing.commit().await, Err(StoreError::CommitUnknown));
    drop(silent);
    let db = &bed.db;
    wait_until("the slots are free", async || db.stats().open == 0).await;
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    scope.begin().await.unwrap().commit().await.unwrap();
    for pid in pids {
        signal(pid, "-CONT");
    }
}

fn signal(pid: i32, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()));
}

#[tokio::test]
async fn connections_that_nobody_uses_are_checked_when_their_time_at_hand_is_over() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let db = Db::open(DbOptions { kept_at_hand_max: Duration::from_millis(200), ..options(&bed.postgres) }).unwrap();
    let scope = db.tenant(ours.tenant.into());
    // One is in use all the time: the last that came back would be the first that goes out.
    let mut busy = scope.begin().await.unwrap();
    let (a, b) = (scope.begin().await.unwrap(), scope.begin().await.unwrap());
    a.commit().await.unwrap();
    b.commit().await.unwrap();
    assert_eq!((db.stats().open, db.stats().idle), (3, 2));
    customers::count(&mut bed.admin, &format!("{TERMINATE_ALL} AND state = 'idle'")).await;
    wait_until("the two that broke are given up", async || {
        busy.execute(sqlx::query("SELECT 1")).await.unwrap();
        db.stats().open == 1
    })
    .await;
    busy.commit().await.unwrap();
}

#[tokio::test]
async fn questions_across_tenants_are_answered_however_many_connections_a_restart_broke() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let scope = bed.db.tenant(ours.tenant.into());
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(scope.begin().await.unwrap());
    }
    for tx in held {
        tx.commit().await.unwrap();
    }
    customers::count(&mut bed.admin, TERMINATE_ALL).await;
    assert_eq!(identity::tenants_count(&bed.db).await, Ok(1));
}
