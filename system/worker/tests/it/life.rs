//! From the queue to the result, and what happens when things go wrong on the way.

use std::time::Duration;

use forecastle_store::jobs::{self, ClaimTerms, KIND_FORECAST};
use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_store::{Cache, CacheKey, CacheOptions, Db, DbOptions, Lookup};
use forecastle_testbed::customers::{self, count};
use forecastle_testbed::{Postgres, Redis};
use forecastle_worker::{WorkerConfig, work};
use serde_json::json;
use sqlx::postgres::PgConnection;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) struct Bed {
    pub(crate) admin: PgConnection,
    pub(crate) config: WorkerConfig,
    postgres: Postgres,
    redis: Redis,
}

pub(crate) async fn bed() -> Bed {
    let postgres = Postgres::start();
    let redis = Redis::start();
    migrate(&postgres.admin_url(), &RolePasswords::default()).await.unwrap();
    let db = DbOptions::new(postgres.url_of("forecastle_app"), "worker");
    let cache = CacheOptions { redis_url: redis.url(), timeout: Duration::from_millis(250) };
    let mut config = WorkerConfig::new(db, cache, "w");
    config.concurrency = 2;
    config.lease = Duration::from_millis(1_000);
    config.heartbeat = Duration::from_millis(200);
    config.progress = Duration::from_millis(50);
    config.poll = Duration::from_millis(100);
    config.deadline = Duration::from_secs(60);
    config.backoff_base_ms = 20;
    config.backoff_cap_ms = 100;
    config.drain = Duration::from_secs(10);
    Bed { admin: customers::connect(&postgres.admin_url()).await, config, postgres, redis }
}

/// Starts a worker; sending or dropping the sender asks it to drain.
pub(crate) fn start(config: &WorkerConfig) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let config = config.clone();
    let task = tokio::spawn(async move {
        work(config, async {
            let _ = stopped.await;
        })
        .await
        .unwrap();
    });
    (stop, task)
}

/// Longest wait for a condition.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(crate) async fn wait_for(admin: &mut PgConnection, statement: &str, wanted: i64) {
    let end = tokio::time::Instant::now() + WAIT_MAX;
    loop {
        let found = count(admin, statement).await;
        if found == wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "still {found}, not {wanted}, after {WAIT_MAX:?}: {statement}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const SUCCEEDED: &str = "SELECT count(*) FROM app.forecasts f JOIN app.usage_events u USING (tenant_id, forecast_id)
    WHERE f.state = 'succeeded' AND f.quota_state = 'consumed'";

#[tokio::test(flavor = "multi_thread")]
async fn forecasts_come_out_as_the_mathematics_says_and_the_dashboard_is_forgotten() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let cache = Cache::open(&bed.config.cache).unwrap();
    let dashboard = CacheKey::dashboard(ours.tenant.into());
    let Lookup::Miss(Some(lease)) = cache.get::<u32>(&dashboard).await else { panic!("a miss") };
    assert!(cache.fill(lease, &1_u32, Duration::from_secs(60)).await);

    for _ in 0..20 {
        customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    }
    let (a, b) = (start(&bed.config), start(&bed.config));
    wait_for(&mut bed.admin, SUCCEEDED, 20).await;
    let expected = forecastle_forecast::run(&customers::scenario_input(), 1, &|| false).unwrap();
    let same = format!("SELECT count(*) FROM app.forecasts WHERE result_hash = '{}'", expected.result_hash);
    assert_eq!(count(&mut bed.admin, &same).await, 20);
    drop((a.0, b.0));
    let _ = tokio::join!(a.1, b.1);
    assert!(!matches!(cache.get::<u32>(&dashboard).await, Lookup::Hit(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amount_out_of_range_fails_for_good_and_gives_the_quota_back() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let mut input = customers::scenario_input();
    input["revenue"][0]["opening_units"] = json!("1000000000");
    input["revenue"][0]["price"] = json!("1000000000");
    customers::queue_forecast(&mut bed.admin, &ours, &input).await;
    let (stop, task) = start(&bed.config);
    let failed = "SELECT count(*) FROM app.forecasts WHERE state = 'failed' AND error_code = 'amount_out_of_range'";
    wait_for(&mut bed.admin, failed, 1).await;
    assert_eq!(count(&mut bed.admin, "SELECT taken::bigint FROM app.quota_periods").await, 0);
    assert_eq!(count(&mut bed.admin, "SELECT attempts::bigint FROM app.jobs").await, 1);
    drop(stop);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_worker_vanished_is_taken_over_and_counted_once() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let db = Db::open(bed.config.db.clone()).unwrap();
    let terms = ClaimTerms { lease: Duration::from_millis(300), deadline: Duration::from_secs(60) };
    let gone = jobs::claim(&db, "gone/0", 1, terms, &[KIND_FORECAST]).await.unwrap();
    assert_eq!(gone.jobs.len(), 1);
    let (stop, task) = start(&bed.config);
    wait_for(&mut bed.admin, SUCCEEDED, 1).await;
    let attempts =
        "SELECT count(*) FROM app.job_attempts WHERE (attempt, outcome) IN ((1, 'lease_lost'), (2, 'succeeded'))";
    assert_eq!(count(&mut bed.admin, attempts).await, 2);
    drop(stop);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_longer_than_its_lease_keeps_it_by_heartbeats() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let mut input = customers::scenario_input();
    input["horizon_months"] = json!(120);
    input["uncertainty"] =
        json!({ "paths": 100_000, "price_sigma_monthly": "0.1", "adds_sigma_monthly": "0.1", "seed": "7" });
    // One line takes a second where nothing else runs; ten outlast the lease on a machine several times as fast.
    input["revenue"] = json!(vec![input["revenue"][0].clone(); 10]);
    customers::queue_forecast(&mut bed.admin, &ours, &input).await;
    let (a, b) = (start(&bed.config), start(&bed.config));
    wait_for(&mut bed.admin, SUCCEEDED, 1).await;
    assert_eq!(count(&mut bed.admin, "SELECT max(attempt)::bigint FROM app.job_attempts").await, 1);
    let lasted = "SELECT (extract(epoch FROM max(ended_at - claimed_at)) * 1000)::bigint FROM app.job_attempts";
    assert!(count(&mut bed.admin, lasted).await > 1_000, "the computation did not outlast its lease");
    drop((a.0, b.0));
    let _ = tokio::join!(a.1, b.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_work_goes_on() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    drop(bed.redis);
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let (stop, task) = start(&bed.config);
    wait_for(&mut bed.admin, SUCCEEDED, 1).await;
    drop(stop);
    task.await.unwrap();
    drop(bed.postgres);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_runs_and_claims_no_more() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    for _ in 0..200 {
        customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    }
    let (stop, task) = start(&bed.config);
    let begun = "SELECT least(count(*), 1) FROM app.jobs WHERE state = 'succeeded'";
    wait_for(&mut bed.admin, begun, 1).await;
    drop(stop);
    task.await.unwrap();
    assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.jobs WHERE state = 'running'").await, 0);
    let ended = count(&mut bed.admin, "SELECT count(*) FROM app.jobs WHERE state = 'succeeded'").await;
    assert!((1..200).contains(&ended), "{ended}");
}
