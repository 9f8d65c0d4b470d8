//! Order, leases and drains by the database's clock; completions in batches.

use std::time::Duration;

use forecastle_domain::UsageEventId;
use forecastle_store::Db;
use forecastle_store::jobs::{
    self, ClaimBatch, ClaimTerms, Completion, Failure, KIND_FORECAST, KIND_PROBE, Outcome, Settled,
};
use forecastle_testbed::customers::{self, count};

use crate::support::{bed, wait_until};

const LONG: Duration = Duration::from_secs(60);
const KINDS: [&str; 2] = [KIND_FORECAST, KIND_PROBE];

async fn claim(db: &Db, limit: u32, lease: Duration, deadline: Duration) -> ClaimBatch {
    jobs::claim(db, "w/1", limit, ClaimTerms { lease, deadline }, &KINDS).await.unwrap()
}

fn completion(claim: jobs::Claim) -> Completion {
    let outcome = Outcome { engine_version: "1".to_owned(), result: "{}".into(), result_hash: "a".repeat(64) };
    Completion { claim, outcome: Some((outcome, UsageEventId::from_uuid(uuid::Uuid::now_v7()))) }
}

#[tokio::test]
async fn a_drained_job_keeps_its_place_and_its_attempts_however_often_it_is_handed_back() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let mut last_fence = 0;
    let mut first_job = None;
    for _ in 0..5 {
        let job = claim(&bed.db, 1, LONG, LONG).await.jobs.remove(0);
        assert_eq!(job.claim.attempt, 1);
        assert!(job.claim.fence > last_fence);
        assert_eq!(*first_job.get_or_insert(job.claim.job_id), job.claim.job_id, "it keeps its place");
        last_fence = job.claim.fence;
        assert_eq!(jobs::hand_back(&bed.db, &job.claim).await, Ok(Settled::Done));
        assert_eq!(jobs::hand_back(&bed.db, &job.claim).await, Ok(Settled::LeaseLost));
    }
    let job = claim(&bed.db, 1, LONG, LONG).await.jobs.remove(0);
    let done = jobs::complete_all(&bed.db, &[&completion(job.claim)]).await;
    assert_eq!(done, Ok(vec![Settled::Done]));
    let rows = "SELECT count(*) FROM app.jobs j JOIN app.job_attempts a USING (tenant_id, job_id)
                WHERE j.attempts = 1 AND a.attempt = 1 AND a.outcome = 'succeeded' AND j.state = 'succeeded'
                  AND a.fence = j.fence AND NOT j.handed_back";
    assert_eq!(count(&mut bed.admin, rows).await, 1);
    assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.job_attempts").await, 1);
}

#[tokio::test]
async fn a_drain_on_the_last_attempt_is_no_dead_letter_and_a_lost_lease_is() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    for attempt in 1..=2 {
        assert_eq!(claim(&bed.db, 1, Duration::ZERO, LONG).await.jobs[0].claim.attempt, attempt);
    }
    let third = claim(&bed.db, 1, LONG, LONG).await.jobs.remove(0);
    assert_eq!(jobs::hand_back(&bed.db, &third.claim).await, Ok(Settled::Done));
    let again = claim(&bed.db, 1, Duration::ZERO, LONG).await.jobs.remove(0);
    assert_eq!(again.claim.attempt, 3);
    let after = claim(&bed.db, 1, LONG, LONG).await;
    assert!(after.jobs.is_empty());
    assert_eq!(after.ended[0].code, "attempts_exhausted");
    let lost = "SELECT count(*) FROM app.job_attempts WHERE outcome = 'lease_lost'";
    assert_eq!(count(&mut bed.admin, lost).await, 3);
}

#[tokio::test]
async fn a_lease_that_ran_out_writes_nothing_even_if_nobody_has_taken_the_job() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let job = claim(&bed.db, 1, Duration::from_millis(50), LONG).await.jobs.remove(0);
    let admin = &mut bed.admin;
    wait_until("the lease ran out", async || {
        count(admin, "SELECT count(*) FROM app.jobs WHERE lease_until < clock_timestamp()").await == 1
    })
    .await;
    let (db, claim) = (&bed.db, &job.claim);
    assert_eq!(jobs::heartbeat(db, claim, LONG, Some(50)).await, Ok(Settled::LeaseLost));
    let done = jobs::complete_all(db, &[&completion(*claim)]).await;
    assert_eq!(done, Ok(vec![Settled::LeaseLost]));
    assert_eq!(jobs::fail(db, claim, Failure::Permanent, "x", "x").await, Ok(Settled::LeaseLost));
    assert_eq!(jobs::retry(db, claim, LONG, "x").await, Ok(Settled::LeaseLost));
    assert_eq!(jobs::hand_back(db, claim).await, Ok(Settled::LeaseLost));
    let written = "SELECT (SELECT count(*) FROM app.usage_events)
        + (SELECT count(*) FROM app.forecasts WHERE state <> 'running')
        + (SELECT count(*) FROM app.forecast_events WHERE percent = 50)
        + (SELECT count(*) FROM app.job_attempts WHERE outcome IS NOT NULL)";
    assert_eq!(count(&mut bed.admin, written).await, 0);
}

#[tokio::test]
async fn after_its_deadline_a_job_may_only_fail_whoever_holds_it() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let job = claim(&bed.db, 1, Duration::from_millis(600), Duration::from_millis(100)).await.jobs.remove(0);
    assert!(job.time_left <= Duration::from_millis(100), "{:?}", job.time_left);
    let admin = &mut bed.admin;
    wait_until("the deadline passed", async || {
        count(admin, "SELECT count(*) FROM app.jobs WHERE deadline_at < clock_timestamp()").await == 1
    })
    .await;
    let done = jobs::complete_all(&bed.db, &[&completion(job.claim)]).await;
    assert_eq!(done, Ok(vec![Settled::LeaseLost]));
    let mut ended = Vec::new();
    let db = &bed.db;
    wait_until("a claim ends it", async || {
        ended.extend(claim(db, 1, LONG, LONG).await.ended);
        !ended.is_empty()
    })
    .await;
    assert_eq!(ended[0].code, "deadline_exceeded");
    assert_eq!(count(&mut bed.admin, "SELECT taken::bigint FROM app.quota_periods").await, 0);
}

#[tokio::test]
async fn a_batch_completes_whoever_holds_its_lease_and_leaves_out_who_does_not() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    for _ in 0..3 {
        customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    }
    let mut tx = bed.db.tenant(ours.tenant.into()).begin().await.unwrap();
    jobs::enqueue_probes(&mut tx, 2).await.unwrap();
    tx.commit().await.unwrap();
    let batch = claim(&bed.db, 5, LONG, LONG).await.jobs;
    let mut completions: Vec<Completion> = batch.iter().map(|job| completion(job.claim)).collect();
    completions[1].claim.fence -= 1;
    for probe in [3, 4] {
        assert_eq!((batch[probe].kind.as_str(), batch[probe].input.is_null()), (KIND_PROBE, true));
        completions[probe].outcome = None;
    }
    let answers = jobs::complete_all(&bed.db, &completions.iter().collect::<Vec<_>>()).await.unwrap();
    let (done, lost) = (Settled::Done, Settled::LeaseLost);
    assert_eq!(answers, [done, lost, done, done, done]);
    let again = jobs::complete_all(&bed.db, &completions.iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(again, [lost; 5]);
    assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.usage_events").await, 2);
    assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.jobs WHERE state = 'succeeded'").await, 4);
    let closed = "SELECT count(*) FROM app.job_attempts WHERE outcome = 'succeeded'";
    assert_eq!(count(&mut bed.admin, closed).await, 4);
    assert_eq!(jobs::count_open(&bed.db, ours.tenant.into(), KIND_PROBE).await, Ok(0));
}

#[tokio::test]
async fn jobs_of_several_tenants_end_in_one_transaction_each_under_its_own_tenant() {
    let mut bed = bed().await;
    let mut tenants = Vec::new();
    for _ in 0..3 {
        let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
        for _ in 0..2 {
            customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
        }
        tenants.push(ours.tenant);
    }
    let batch = claim(&bed.db, 6, LONG, LONG).await.jobs;
    let mut completions: Vec<Completion> = batch.iter().map(|job| completion(job.claim)).collect();
    // One under its neighbour's name, which must find nothing there.
    completions[0].claim.tenant_id = tenants[2].into();
    completions.rotate_left(3);
    let answers = jobs::complete_all(&bed.db, &completions.iter().collect::<Vec<_>>()).await.unwrap();
    let (done, lost) = (Settled::Done, Settled::LeaseLost);
    assert_eq!(answers, [done, done, done, lost, done, done]);
    let ended = "SELECT count(*) FROM app.usage_events u JOIN app.forecasts f USING (tenant_id, forecast_id)
                 JOIN app.jobs j ON j.tenant_id = f.tenant_id AND j.subject_id = f.forecast_id
                 JOIN app.job_attempts a ON a.tenant_id = j.tenant_id AND a.job_id = j.job_id
                 WHERE f.state = 'succeeded' AND j.state = 'succeeded' AND a.outcome = 'succeeded'";
    assert_eq!(count(&mut bed.admin, ended).await, 5);
    assert_eq!(count(&mut bed.admin, "SELECT count(DISTINCT xmin::text) FROM app.usage_events").await, 1);
    let told = "SELECT count(*) FROM app.forecast_events WHERE state = 'succeeded' AND percent = 100";
    assert_eq!(count(&mut bed.admin, told).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_side_by_side_take_each_job_once_and_in_order() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    for _ in 0..10 {
        let mut tx = bed.db.tenant(ours.tenant.into()).begin().await.unwrap();
        jobs::enqueue_probes(&mut tx, 30).await.unwrap();
        tx.commit().await.unwrap();
    }
    let claimers = (0..4).map(|_| {
        let db = bed.db.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let batch = claim(&db, 7, LONG, LONG).await.jobs;
                if batch.is_empty() {
                    return taken;
                }
                taken.extend(batch.into_iter().map(|job| job.claim.job_id));
            }
        })
    });
    let mut taken = Vec::new();
    for claimer in claimers.collect::<Vec<_>>() {
        taken.extend(claimer.await.unwrap());
    }
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 300);
    let out_of_turn = "SELECT count(*) FROM app.jobs older
        JOIN app.job_attempts a ON a.job_id = older.job_id
        JOIN app.jobs younger ON younger.ready_at > older.ready_at
        JOIN app.job_attempts b ON b.job_id = younger.job_id
        WHERE b.claimed_at < a.claimed_at";
    assert_eq!(count(&mut bed.admin, out_of_turn).await, 0);
}
