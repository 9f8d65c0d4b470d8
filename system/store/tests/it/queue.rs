//! Fences, leases, attempts and the one usage event.

use std::time::Duration;

use forecastle_domain::UsageEventId;
use forecastle_store::Db;
use forecastle_store::jobs::{self, ClaimBatch, ClaimTerms, ClaimedJob, Failure, KIND_FORECAST, Outcome, Settled};
use forecastle_testbed::customers;

use crate::support::bed;

const LONG: Duration = Duration::from_secs(60);

async fn claim(db: &Db, lease: Duration) -> ClaimBatch {
    let terms = ClaimTerms { lease, deadline: LONG };
    jobs::claim(db, "w/1", 10, terms, &[KIND_FORECAST]).await.unwrap()
}

async fn claim_one(db: &Db, lease: Duration) -> ClaimedJob {
    let mut batch = claim(db, lease).await;
    assert_eq!(batch.jobs.len(), 1);
    batch.jobs.remove(0)
}

fn outcome(mark: char) -> Outcome {
    Outcome {
        engine_version: "1".to_owned(),
        result: serde_json::json!({ "mark": mark.to_string() }).to_string().into(),
        result_hash: mark.to_string().repeat(64),
    }
}

fn event() -> UsageEventId {
    UsageEventId::from_uuid(uuid::Uuid::now_v7())
}

#[tokio::test]
async fn completing_twice_makes_one_usage_event() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let job = claim_one(&bed.db, LONG).await;
    assert_eq!((job.claim.attempt, job.input), (1, customers::scenario_input()));
    let done = jobs::complete(&bed.db, &job.claim, &outcome('a'), event()).await;
    assert_eq!(done, Ok(Settled::Done));
    let again = jobs::complete(&bed.db, &job.claim, &outcome('b'), event()).await;
    assert_eq!(again, Ok(Settled::LeaseLost));

    let admin = &mut bed.admin;
    assert_eq!(customers::count(admin, "SELECT count(*) FROM app.usage_events").await, 1);
    let whole = "SELECT count(*) FROM app.forecasts f JOIN app.jobs j ON j.subject_id = f.forecast_id
                 JOIN app.job_attempts a USING (job_id)
                 WHERE f.state = 'succeeded' AND f.quota_state = 'consumed' AND j.state = 'succeeded'
                   AND a.outcome = 'succeeded' AND f.result_hash = repeat('a', 64)";
    assert_eq!(customers::count(admin, whole).await, 1);
    assert_eq!(customers::count(admin, "SELECT taken::bigint FROM app.quota_periods").await, 1);
}

#[tokio::test]
async fn a_stale_fence_writes_nothing() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let stale = claim_one(&bed.db, Duration::ZERO).await;
    let fresh = claim_one(&bed.db, LONG).await;
    assert!(fresh.claim.fence > stale.claim.fence);
    assert_eq!(fresh.claim.attempt, 2);

    assert_eq!(jobs::heartbeat(&bed.db, &stale.claim, LONG, None).await, Ok(Settled::LeaseLost));
    assert_eq!(jobs::complete(&bed.db, &stale.claim, &outcome('a'), event()).await, Ok(Settled::LeaseLost));
    assert_eq!(jobs::fail(&bed.db, &stale.claim, Failure::Permanent, "x", "x").await, Ok(Settled::LeaseLost));
    assert_eq!(jobs::retry(&bed.db, &stale.claim, LONG, "x").await, Ok(Settled::LeaseLost));
    let written = "SELECT (SELECT count(*) FROM app.usage_events)
        + (SELECT count(*) FROM app.forecasts WHERE state <> 'running' OR result IS NOT NULL)
        + (SELECT count(*) FROM app.jobs WHERE state <> 'running' OR last_error_code IS NOT NULL)";
    assert_eq!(customers::count(&mut bed.admin, written).await, 0);

    assert_eq!(jobs::heartbeat(&bed.db, &fresh.claim, LONG, None).await, Ok(Settled::Done));
    assert_eq!(jobs::complete(&bed.db, &fresh.claim, &outcome('b'), event()).await, Ok(Settled::Done));
    let lost = "SELECT count(*) FROM app.job_attempts WHERE attempt = 1 AND outcome = 'lease_lost'";
    assert_eq!(customers::count(&mut bed.admin, lost).await, 1);
}

#[tokio::test]
async fn a_job_that_never_ends_is_dead_after_three_claims_and_gives_its_quota_back_once() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let mut last = None;
    for _ in 0..3 {
        last = Some(claim_one(&bed.db, Duration::ZERO).await.claim);
    }
    let fourth = claim(&bed.db, LONG).await;
    assert!(fourth.jobs.is_empty());
    assert_eq!(fourth.ended[0].code, "attempts_exhausted");
    assert_eq!(jobs::fail(&bed.db, &last.unwrap(), Failure::Exhausted, "x", "x").await, Ok(Settled::LeaseLost));
    let ended = "SELECT count(*) FROM app.forecasts f JOIN app.jobs j ON j.subject_id = f.forecast_id
        WHERE f.state = 'failed' AND f.error_code = 'attempts_exhausted' AND f.quota_state = 'released'
          AND j.state = 'dead' AND j.attempts = 3";
    assert_eq!(customers::count(&mut bed.admin, ended).await, 1);
    assert_eq!(customers::count(&mut bed.admin, "SELECT taken::bigint FROM app.quota_periods").await, 0);
    assert_eq!(customers::count(&mut bed.admin, "SELECT count(*) FROM app.usage_events").await, 0);
}

#[tokio::test]
async fn a_permanent_failure_releases_and_a_retry_keeps_the_quota() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let first = claim_one(&bed.db, LONG).await;
    assert_eq!(jobs::retry(&bed.db, &first.claim, Duration::ZERO, "panicked").await, Ok(Settled::Done));
    let held = "SELECT taken::bigint FROM app.quota_periods";
    assert_eq!(customers::count(&mut bed.admin, held).await, 1);
    let second = claim_one(&bed.db, LONG).await;
    assert_eq!(second.claim.attempt, 2);
    let failed = jobs::fail(&bed.db, &second.claim, Failure::Permanent, "amount_out_of_range", "m").await;
    assert_eq!(failed, Ok(Settled::Done));
    assert_eq!(customers::count(&mut bed.admin, held).await, 0);
}

#[tokio::test]
async fn jobs_are_claimed_in_the_order_of_their_commits_and_unknown_kinds_stay() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let mut queued = Vec::new();
    for _ in 0..5 {
        queued.push(customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await);
    }
    customers::count(
        &mut bed.admin,
        "WITH u AS (UPDATE app.jobs SET kind = 'report' WHERE seq = (SELECT min(seq) FROM app.jobs) RETURNING 1)
         SELECT count(*) FROM u",
    )
    .await;
    let claimed: Vec<_> = claim(&bed.db, LONG).await.jobs.iter().map(|job| job.claim.job_id).collect();
    assert_eq!(claimed, queued[1..]);
    let left = "SELECT count(*) FROM app.jobs WHERE kind = 'report' AND state = 'queued' AND attempts = 0";
    assert_eq!(customers::count(&mut bed.admin, left).await, 1);
}
