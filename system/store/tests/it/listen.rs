//! The listening link: rung, broken, frozen, and always back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forecastle_store::listen::{Heard, Listening, listen};
use forecastle_store::{Db, jobs};
use forecastle_testbed::customers::{self, count};
use sqlx::postgres::PgConnection;

use crate::support::{bed, wait_until};

#[derive(Default)]
struct Counts {
    connected: AtomicUsize,
    rung: AtomicUsize,
}

fn listening(db: &Db, keep_alive: Duration) -> (Arc<Counts>, Listening) {
    let counts = Arc::new(Counts::default());
    let counting = Arc::clone(&counts);
    let listening = listen(db, jobs::CHANNEL, keep_alive, move |heard| match heard {
        Heard::Connected => drop(counting.connected.fetch_add(1, Ordering::Relaxed)),
        Heard::Rung(_) => drop(counting.rung.fetch_add(1, Ordering::Relaxed)),
    });
    (counts, listening)
}

async fn connected(counts: &Counts, wanted: usize) {
    wait_until("the link is made", async || counts.connected.load(Ordering::Relaxed) >= wanted).await;
}

async fn listener_pid(admin: &mut PgConnection) -> i64 {
    let found = "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    let mut pid = 0;
    wait_until("a backend listens", async || {
        pid = count(admin, found).await;
        pid > 0
    })
    .await;
    pid
}

async fn ring(db: &Db, customer: &customers::Customer, probes: u32) {
    let mut tx = db.tenant(customer.tenant.into()).begin().await.unwrap();
    jobs::enqueue_probes(&mut tx, probes).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_commit_with_jobs_rings_once_and_a_rollback_does_not() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let (counts, _listening) = listening(&bed.db, Duration::from_secs(5));
    connected(&counts, 1).await;
    let mut tx = bed.db.tenant(ours.tenant.into()).begin().await.unwrap();
    jobs::enqueue_probes(&mut tx, 3).await.unwrap();
    tx.rollback().await;
    ring(&bed.db, &ours, 100).await;
    wait_until("it rang", async || counts.rung.load(Ordering::Relaxed) > 0).await;
    assert_eq!(counts.rung.load(Ordering::Relaxed), 1);
    assert_eq!(jobs::count_open(&bed.db, ours.tenant.into(), jobs::KIND_PROBE).await, Ok(100));
}

#[tokio::test]
async fn a_link_that_was_cut_is_made_again_and_says_so() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let (counts, _listening) = listening(&bed.db, Duration::from_secs(5));
    connected(&counts, 1).await;
    let pid = listener_pid(&mut bed.admin).await;
    count(&mut bed.admin, &format!("SELECT pg_terminate_backend({pid})::int::bigint")).await;
    connected(&counts, 2).await;
    ring(&bed.db, &ours, 1).await;
    wait_until("it rang", async || counts.rung.load(Ordering::Relaxed) > 0).await;
}

#[tokio::test]
async fn a_link_that_fell_silent_is_found_out_and_replaced() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let (counts, _listening) = listening(&bed.db, Duration::from_millis(200));
    connected(&counts, 1).await;
    let pid = listener_pid(&mut bed.admin).await;
    // A stopped backend neither answers nor closes: half open, as seen from here.
    signal(pid, "-STOP");
    connected(&counts, 2).await;
    ring(&bed.db, &ours, 1).await;
    wait_until("it rang", async || counts.rung.load(Ordering::Relaxed) > 0).await;
    signal(pid, "-CONT");
}

#[tokio::test]
async fn a_quiet_link_that_answers_is_kept() {
    let bed = bed().await;
    let (counts, _listening) = listening(&bed.db, Duration::from_millis(30));
    connected(&counts, 1).await;
    let end = tokio::time::Instant::now() + Duration::from_millis(600);
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(counts.connected.load(Ordering::Relaxed), 1);
    }
}

fn signal(pid: i64, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()));
}
