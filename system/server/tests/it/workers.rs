//! Worker processes that are frozen past their lease, killed, and asked to drain.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_testbed::customers::{self, Customer, count};
use forecastle_testbed::{Postgres, Redis};
use sqlx::postgres::PgConnection;

/// Longest wait for a condition.
const WAIT_MAX: Duration = Duration::from_secs(60);

const RUNNING: &str = "SELECT count(*) FROM app.jobs WHERE state = 'running' AND worker LIKE 'one/%'";
const SUCCEEDED: &str = "SELECT count(*) FROM app.jobs WHERE state = 'succeeded'";
const EXPIRED: &str = "SELECT count(*) FROM app.jobs WHERE state = 'running' AND lease_until < clock_timestamp()";

struct Bed {
    admin: PgConnection,
    ours: Customer,
    postgres: Postgres,
    redis: Redis,
}

async fn bed() -> Bed {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    migrate(&postgres.admin_url(), &RolePasswords::default()).await.unwrap();
    let mut admin = customers::connect(&postgres.admin_url()).await;
    let ours = customers::sign_up(&mut admin, "PRO", "USD", "2026-01-01").await;
    Bed { admin, ours, postgres, redis }
}

impl Bed {
    /// A second or more of work.
    async fn queue_long(&mut self) {
        let mut input = customers::scenario_input();
        input["horizon_months"] = serde_json::json!(120);
        input["uncertainty"] = serde_json::json!({
            "paths": 100_000, "price_sigma_monthly": "0.1", "adds_sigma_monthly": "0.1", "seed": "7",
        });
        customers::queue_forecast(&mut self.admin, &self.ours, &input).await;
    }

    async fn wait_for(&mut self, statement: &str, wanted: i64) {
        let end = Instant::now() + WAIT_MAX;
        loop {
            let found = count(&mut self.admin, statement).await;
            if found == wanted {
                return;
            }
            assert!(Instant::now() < end, "still {found}, not {wanted}, after {WAIT_MAX:?}: {statement}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What each attempt came to, in order.
    async fn attempts(&mut self) -> Vec<(i32, String, bool)> {
        sqlx::query_as("SELECT attempt, outcome, worker LIKE 'one/%' FROM app.job_attempts ORDER BY attempt")
            .fetch_all(&mut self.admin)
            .await
            .unwrap()
    }

    /// A worker process of this name that is ready.
    fn worker(&self, name: &str, drain_ms: u32) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_forecastle"))
            .args(["--log-level", "off", "work", "--instance", name, "--concurrency", "1"])
            .args(["--lease-ms", "1000", "--heartbeat-ms", "200", "--poll-ms", "100"])
            .args(["--database-url", &self.postgres.url_of("forecastle_app"), "--redis-url", &self.redis.url()])
            .args(["--drain-timeout-ms", &drain_ms.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a worker");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        assert!(line.contains("ready"), "{line}");
        Process(child)
    }
}

struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    /// Asks it to drain and waits for its end.
    fn drain(mut self) {
        self.signal("-TERM");
        let end = Instant::now() + WAIT_MAX;
        loop {
            if let Some(status) = self.0.try_wait().expect("its status") {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < end, "did not drain within {WAIT_MAX:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const WHOLE: &str = "SELECT (SELECT count(*) FROM app.usage_events) * 100
    + (SELECT count(*) FROM app.forecasts WHERE state = 'succeeded' AND quota_state = 'consumed') * 10
    + (SELECT sum(taken) FROM app.quota_periods)";

#[tokio::test]
async fn a_worker_stopped_past_its_lease_and_woken_again_writes_nothing() {
    let mut bed = bed().await;
    bed.queue_long().await;
    let frozen = bed.worker("one", 10_000);
    bed.wait_for(RUNNING, 1).await;
    frozen.signal("-STOP");
    let other = bed.worker("two", 10_000);
    bed.wait_for(SUCCEEDED, 1).await;
    let before: String = sqlx::query_scalar(
        "SELECT md5(string_agg(f::text || j::text || a::text, ',' ORDER BY a.attempt))
         FROM app.forecasts f JOIN app.jobs j ON j.subject_id = f.forecast_id JOIN app.job_attempts a USING (job_id)",
    )
    .fetch_one(&mut bed.admin)
    .await
    .unwrap();
    frozen.signal("-CONT");
    // It ends what it thinks is its job, or notices; either way it has come to rest when it has drained.
    frozen.drain();
    let after: String = sqlx::query_scalar(
        "SELECT md5(string_agg(f::text || j::text || a::text, ',' ORDER BY a.attempt))
         FROM app.forecasts f JOIN app.jobs j ON j.subject_id = f.forecast_id JOIN app.job_attempts a USING (job_id)",
    )
    .fetch_one(&mut bed.admin)
    .await
    .unwrap();
    assert_eq!(after, before);
    let outcomes = [(1, "lease_lost".to_owned(), true), (2, "succeeded".to_owned(), false)];
    assert_eq!(bed.attempts().await, outcomes);
    assert_eq!(count(&mut bed.admin, WHOLE).await, 111);
    other.drain();
}

#[tokio::test]
async fn a_worker_that_slept_past_its_lease_with_nobody_about_starts_the_job_again() {
    let mut bed = bed().await;
    bed.queue_long().await;
    let frozen = bed.worker("one", 10_000);
    bed.wait_for(RUNNING, 1).await;
    frozen.signal("-STOP");
    bed.wait_for(EXPIRED, 1).await;
    frozen.signal("-CONT");
    bed.wait_for(SUCCEEDED, 1).await;
    let outcomes = [(1, "lease_lost".to_owned(), true), (2, "succeeded".to_owned(), true)];
    assert_eq!(bed.attempts().await, outcomes);
    assert_eq!(count(&mut bed.admin, WHOLE).await, 111);
    frozen.drain();
}

#[tokio::test]
async fn the_job_of_a_killed_worker_is_done_once_by_another() {
    let mut bed = bed().await;
    bed.queue_long().await;
    let killed = bed.worker("one", 10_000);
    bed.wait_for(RUNNING, 1).await;
    killed.signal("-KILL");
    let other = bed.worker("two", 10_000);
    bed.wait_for(SUCCEEDED, 1).await;
    let outcomes = [(1, "lease_lost".to_owned(), true), (2, "succeeded".to_owned(), false)];
    assert_eq!(bed.attempts().await, outcomes);
    assert_eq!(count(&mut bed.admin, WHOLE).await, 111);
    other.drain();
    drop(killed);
}

#[tokio::test]
async fn a_drained_process_hands_its_job_over_within_the_same_attempt() {
    let mut bed = bed().await;
    bed.queue_long().await;
    let leaving = bed.worker("one", 0);
    bed.wait_for(RUNNING, 1).await;
    leaving.drain();
    assert_eq!(bed.attempts().await, [(1, "drained".to_owned(), true)]);
    let other = bed.worker("two", 10_000);
    bed.wait_for(SUCCEEDED, 1).await;
    assert_eq!(bed.attempts().await, [(1, "succeeded".to_owned(), false)]);
    assert_eq!(count(&mut bed.admin, WHOLE).await, 111);
    other.drain();
}
