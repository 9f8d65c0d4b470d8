//! Cancelled, drained, out-shouted, unheard: what a worker does when things are not plain.

use std::time::{Duration, Instant};

use forecastle_domain::ForecastId;
use forecastle_store::forecast_control::{self, Cancelled};
use forecastle_store::{Db, jobs};
use forecastle_testbed::customers::{self, Customer, count};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use crate::life::{bed, start, wait_for};

/// Longer work than the lease of a second, also alone on a fast machine.
fn long_input() -> Value {
    let mut input = customers::scenario_input();
    input["horizon_months"] = json!(120);
    input["revenue"] = json!(vec![input["revenue"][0].clone(); 4]);
    input["uncertainty"] =
        json!({ "paths": 100_000, "price_sigma_monthly": "0.1", "adds_sigma_monthly": "0.1", "seed": "7" });
    input
}

const RUNNING: &str = "SELECT count(*) FROM app.jobs WHERE state = 'running'";
const SUCCEEDED: &str = "SELECT count(*) FROM app.jobs WHERE state = 'succeeded'";

async fn queue(admin: &mut PgConnection, customer: &Customer, input: &Value) -> ForecastId {
    customers::queue_forecast(admin, customer, input).await.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_computation_stops_and_its_place_is_free() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    // As long as anything may be, so that the place is not free because it has ended.
    let mut input = long_input();
    input["revenue"] = json!(vec![input["revenue"][0].clone(); 20]);
    let id = queue(&mut bed.admin, &ours, &input).await;
    bed.config.concurrency = 1;
    let (stop, task) = start(&bed.config);
    wait_for(&mut bed.admin, RUNNING, 1).await;
    let db = Db::open(bed.config.db.clone()).unwrap();
    let mut tx = db.tenant(ours.tenant.into()).begin().await.unwrap();
    assert!(matches!(forecast_control::cancel(&mut tx, id).await, Ok(Cancelled::Forecast(_))));
    tx.commit().await.unwrap();
    queue(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let since = Instant::now();
    wait_for(&mut bed.admin, SUCCEEDED, 1).await;
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    let left = "SELECT (SELECT count(*) FROM app.usage_events) * 100
        + (SELECT count(*) FROM app.job_attempts WHERE outcome = 'cancelled') * 10
        + (SELECT taken FROM app.quota_periods)";
    assert_eq!(count(&mut bed.admin, left).await, 111);
    drop(stop);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_job_survives_any_number_of_hasty_drains() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    queue(&mut bed.admin, &ours, &long_input()).await;
    let mut hasty = bed.config.clone();
    hasty.drain = Duration::ZERO;
    for _ in 0..4 {
        let (stop, task) = start(&hasty);
        wait_for(&mut bed.admin, RUNNING, 1).await;
        drop(stop);
        task.await.unwrap();
        assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.jobs WHERE handed_back").await, 1);
    }
    let (stop, task) = start(&bed.config);
    wait_for(&mut bed.admin, SUCCEEDED, 1).await;
    assert_eq!(count(&mut bed.admin, "SELECT sum(attempts)::bigint FROM app.jobs").await, 1);
    assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.usage_events").await, 1);
    drop(stop);
    task.await.unwrap();
}

#[test]
fn computations_and_blocked_threads_keep_no_heartbeat_from_beating() {
    // One thread for whatever blocks, and it is taken: a heartbeat that needed it would be late.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    runtime.block_on(async {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let blocked = tokio::task::spawn_blocking(move || released.recv());
        let mut bed = bed().await;
        let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
        bed.config.concurrency = 3;
        for _ in 0..3 {
            queue(&mut bed.admin, &ours, &long_input()).await;
        }
        let (stop, task) = start(&bed.config);
        wait_for(&mut bed.admin, SUCCEEDED, 3).await;
        assert_eq!(count(&mut bed.admin, "SELECT max(attempt)::bigint FROM app.job_attempts").await, 1);
        let lasted = "SELECT (extract(epoch FROM min(ended_at - claimed_at)) * 1000)::bigint FROM app.job_attempts";
        assert!(count(&mut bed.admin, lasted).await > 1_000, "no computation outlasted its lease");
        drop(stop);
        task.await.unwrap();
        drop(release);
        assert!(blocked.await.unwrap().is_err());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_at_once_is_a_flag_and_fits_its_connections() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    bed.config.concurrency = 16;
    bed.config.lease = Duration::from_secs(5);
    bed.config.db.max_connections = 16 + 5;
    for _ in 0..40 {
        queue(&mut bed.admin, &ours, &long_input()).await;
    }
    let (stop, task) = start(&bed.config);
    wait_for(&mut bed.admin, RUNNING, 16).await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'worker'";
    assert!(count(&mut bed.admin, open).await <= 21);
    let workers = "SELECT count(DISTINCT worker) FROM app.jobs WHERE state = 'running'";
    assert_eq!(count(&mut bed.admin, workers).await, 1);
    let mut cancelling = Vec::new();
    let db = Db::open(bed.config.db.clone()).unwrap();
    let ids: Vec<uuid::Uuid> =
        sqlx::query_scalar("SELECT forecast_id FROM app.forecasts").fetch_all(&mut bed.admin).await.unwrap();
    for id in ids {
        let mut tx = db.tenant(ours.tenant.into()).begin().await.unwrap();
        cancelling.push(forecast_control::cancel(&mut tx, id.into()).await.unwrap());
        tx.commit().await.unwrap();
    }
    assert!(cancelling.iter().any(|cancelled| matches!(cancelled, Cancelled::Forecast(_))));
    drop(stop);
    task.await.unwrap();
    assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.jobs WHERE attempts > 1").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bell_wakes_an_idle_worker_long_before_it_would_look() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    bed.config.poll = Duration::from_secs(3_600);
    let (stop, task) = start(&bed.config);
    let listens = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    wait_for(&mut bed.admin, listens, 1).await;
    let db = Db::open(bed.config.db.clone()).unwrap();
    for round in 1..=3 {
        let mut tx = db.tenant(ours.tenant.into()).begin().await.unwrap();
        jobs::enqueue_probes(&mut tx, 5).await.unwrap();
        tx.commit().await.unwrap();
        wait_for(&mut bed.admin, SUCCEEDED, round * 5).await;
    }
    drop(stop);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_was_lost_is_made_up_for_by_looking() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let (stop, task) = start(&bed.config);
    let listens = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    wait_for(&mut bed.admin, listens, 1).await;
    // Written past the store: nobody rings.
    queue(&mut bed.admin, &ours, &customers::scenario_input()).await;
    wait_for(&mut bed.admin, SUCCEEDED, 1).await;
    drop(stop);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_silent_link_the_queue_is_swept() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    bed.config.poll = Duration::from_secs(3_600);
    bed.config.listen_keep_alive = Duration::from_millis(200);
    let (stop, task) = start(&bed.config);
    let listens = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    wait_for(&mut bed.admin, listens, 1).await;
    // The worker has looked once, on connecting; it would look again in an hour.
    let pid = count(&mut bed.admin, "SELECT pid::bigint FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").await;
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([name, &pid.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    };
    signal("-STOP");
    queue(&mut bed.admin, &ours, &customers::scenario_input()).await;
    wait_for(&mut bed.admin, SUCCEEDED, 1).await;
    signal("-CONT");
    drop(stop);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_in_rising_steps_and_leaves_the_result_alone() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    queue(&mut bed.admin, &ours, &long_input()).await;
    let (stop, task) = start(&bed.config);
    wait_for(&mut bed.admin, SUCCEEDED, 1).await;
    let told: Vec<(String, Option<i16>)> =
        sqlx::query_as("SELECT state, percent FROM app.forecast_events ORDER BY xid, seq")
            .fetch_all(&mut bed.admin)
            .await
            .unwrap();
    let (first, last) = (told.first().unwrap(), told.last().unwrap());
    assert_eq!((first.0.as_str(), last.0.as_str(), last.1), ("queued", "succeeded", Some(100)), "{told:?}");
    let steps: Vec<i16> = told[1..told.len() - 1].iter().filter_map(|(_, percent)| *percent).collect();
    assert!(steps.len() >= 3 && steps.windows(2).all(|pair| pair[0] < pair[1]), "{told:?}");
    let hash: String =
        sqlx::query_scalar("SELECT result_hash FROM app.forecasts").fetch_one(&mut bed.admin).await.unwrap();
    assert_eq!(hash, forecastle_forecast::run(&long_input(), 2, &|| false).unwrap().result_hash);
    drop(stop);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_run_through_the_real_loop_each_exactly_once() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    bed.config.concurrency = 32;
    bed.config.db.max_connections = 10;
    let db = Db::open(bed.config.db.clone()).unwrap();
    let mut tx = db.tenant(ours.tenant.into()).begin().await.unwrap();
    jobs::enqueue_probes(&mut tx, 2_000).await.unwrap();
    tx.commit().await.unwrap();
    let (a, b) = (start(&bed.config), start(&bed.config));
    wait_for(&mut bed.admin, SUCCEEDED, 2_000).await;
    assert_eq!(jobs::count_open(&db, ours.tenant.into(), jobs::KIND_PROBE).await, Ok(0));
    let once = "SELECT count(*) FROM app.job_attempts WHERE attempt = 1 AND outcome = 'succeeded'";
    assert_eq!(count(&mut bed.admin, once).await, 2_000);
    let nothing = "SELECT (SELECT count(*) FROM app.usage_events) + (SELECT count(*) FROM app.forecast_events)
        + (SELECT count(*) FROM app.quota_periods)";
    assert_eq!(count(&mut bed.admin, nothing).await, 0);
    drop((a.0, b.0));
    let _ = tokio::join!(a.1, b.1);
}
