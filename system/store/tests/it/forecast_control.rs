//! Cancel and retry: who wins, and what it costs.

use std::time::Duration;

use forecastle_domain::{ForecastId, UsageEventId};
use forecastle_store::forecast_control::{self, Cancelled, Retried};
use forecastle_store::forecasts::{self, Requested};
use forecastle_store::jobs::{self, ClaimTerms, ClaimedJob, Failure, KIND_FORECAST, Outcome, Settled};
use forecastle_store::{CacheKey, Db, StoreError};
use forecastle_testbed::customers::{self, Customer, count};
use tokio::sync::oneshot::error::TryRecvError;
use uuid::Uuid;

use crate::support::bed;

const LONG: Duration = Duration::from_secs(60);

async fn claim(db: &Db, limit: u32) -> Vec<ClaimedJob> {
    let terms = ClaimTerms { lease: LONG, deadline: LONG };
    jobs::claim(db, "w/1", limit, terms, &[KIND_FORECAST]).await.unwrap().jobs
}

async fn complete(db: &Db, job: &ClaimedJob) -> Settled {
    let outcome = Outcome { engine_version: "1".to_owned(), result: "{}".into(), result_hash: "a".repeat(64) };
    jobs::complete(db, &job.claim, &outcome, UsageEventId::from_uuid(Uuid::now_v7())).await.unwrap()
}

async fn cancel(db: &Db, customer: &Customer, id: ForecastId) -> Cancelled {
    let mut tx = db.tenant(customer.tenant.into()).begin().await.unwrap();
    let cancelled = forecast_control::cancel(&mut tx, id).await.unwrap();
    tx.commit().await.unwrap();
    cancelled
}

fn new_id() -> ForecastId {
    ForecastId::from_uuid(Uuid::now_v7())
}

/// Quota counted equals forecasts that hold or used it, and exceeds no cap.
async fn quota_is_exact(admin: &mut sqlx::postgres::PgConnection, cap: i64) {
    let off = "SELECT coalesce((SELECT sum(taken) FROM app.quota_periods), 0)::bigint
        - (SELECT count(*) FROM app.forecasts WHERE quota_state IN ('held', 'consumed'))";
    assert_eq!(count(admin, off).await, 0);
    let most = "SELECT coalesce(max(taken), 0)::bigint FROM app.quota_periods";
    assert!(count(admin, most).await <= cap);
}

#[tokio::test]
async fn a_queued_and_a_running_forecast_are_cancelled_once_and_a_finished_one_never() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let theirs = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let input = customers::scenario_input();
    let queued = customers::queue_forecast(&mut bed.admin, &ours, &input).await.into();
    let Cancelled::Forecast(shown) = cancel(&bed.db, &ours, queued).await else { panic!("cancelled") };
    assert_eq!((shown.summary.state.as_str(), shown.summary.is_terminal()), ("cancelled", true));
    assert!(claim(&bed.db, 9).await.is_empty());
    assert!(matches!(cancel(&bed.db, &ours, queued).await, Cancelled::Ended));
    assert!(matches!(cancel(&bed.db, &theirs, queued).await, Cancelled::NotFound));
    quota_is_exact(&mut bed.admin, 5).await;

    let running = customers::queue_forecast(&mut bed.admin, &ours, &input).await.into();
    let job = claim(&bed.db, 9).await.remove(0);
    assert!(matches!(cancel(&bed.db, &ours, running).await, Cancelled::Forecast(_)));
    assert_eq!(jobs::heartbeat(&bed.db, &job.claim, LONG, Some(10)).await, Ok(Settled::LeaseLost));
    assert_eq!(complete(&bed.db, &job).await, Settled::LeaseLost);
    assert_eq!(jobs::fail(&bed.db, &job.claim, Failure::Permanent, "x", "x").await, Ok(Settled::LeaseLost));
    assert_eq!(jobs::hand_back(&bed.db, &job.claim).await, Ok(Settled::LeaseLost));
    let closed = "SELECT count(*) FROM app.job_attempts WHERE outcome = 'cancelled' AND ended_at IS NOT NULL";
    assert_eq!(count(&mut bed.admin, closed).await, 1);

    let done = customers::queue_forecast(&mut bed.admin, &ours, &input).await.into();
    let job = claim(&bed.db, 9).await.remove(0);
    assert_eq!(complete(&bed.db, &job).await, Settled::Done);
    assert!(matches!(cancel(&bed.db, &ours, done).await, Cancelled::Ended));
    quota_is_exact(&mut bed.admin, 5).await;
    assert_eq!(count(&mut bed.admin, "SELECT taken::bigint FROM app.quota_periods").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cancellation_and_a_success_exactly_one_wins() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let (mut cancelled, mut succeeded) = (0, 0);
    for round in 0..100_u64 {
        let id: ForecastId =
            customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await.into();
        let job = claim(&bed.db, 1).await.remove(0);
        let (a, b) = (bed.db.clone(), bed.db.clone());
        // The head start goes from one side to the other over the rounds.
        let (first, second) = (Duration::from_micros(round * 30), Duration::from_micros((100 - round) * 30));
        let cancelling = tokio::spawn(async move {
            tokio::time::sleep(first).await;
            matches!(cancel(&a, &ours, id).await, Cancelled::Forecast(_))
        });
        let completing = tokio::spawn(async move {
            tokio::time::sleep(second).await;
            complete(&b, &job).await == Settled::Done
        });
        match (cancelling.await.unwrap(), completing.await.unwrap()) {
            (true, false) => cancelled += 1,
            (false, true) => succeeded += 1,
            both => panic!("round {round}: {both:?}"),
        }
    }
    assert!(cancelled > 0 && succeeded > 0, "no race: {cancelled} cancelled, {succeeded} succeeded");
    let admin = &mut bed.admin;
    assert_eq!(count(admin, "SELECT count(*) FROM app.forecasts WHERE state = 'succeeded'").await, succeeded);
    assert_eq!(count(admin, "SELECT count(*) FROM app.usage_events").await, succeeded);
    assert_eq!(count(admin, "SELECT taken::bigint FROM app.quota_periods").await, succeeded);
    let disagree = "SELECT count(*) FROM app.forecasts f JOIN app.jobs j ON j.subject_id = f.forecast_id
                    WHERE f.state <> j.state";
    assert_eq!(count(admin, disagree).await, 0);
    assert_eq!(count(admin, "SELECT count(*) FROM app.job_attempts WHERE outcome IS NULL").await, 0);
}

#[tokio::test]
async fn a_retry_is_a_forecast_of_its_own_from_the_input_of_then() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let theirs = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let mut input = customers::scenario_input();
    input["opening_cash"] = serde_json::json!("4711");
    let old: ForecastId = customers::queue_forecast(&mut bed.admin, &ours, &input).await.into();
    let retry = async |customer: &Customer, id: ForecastId| {
        let mut tx = bed.db.tenant(customer.tenant.into()).begin().await.unwrap();
        let retried = forecast_control::retry(&mut tx, new_id(), id, customer.user.into()).await.unwrap();
        tx.commit().await.unwrap();
        retried
    };
    assert!(matches!(retry(&ours, old).await, Retried::NotRetryable));
    assert!(matches!(cancel(&bed.db, &ours, old).await, Cancelled::Forecast(_)));
    assert!(matches!(retry(&theirs, old).await, Retried::NotFound));
    for taken in 1..=5 {
        let Retried::Requested(Requested::Forecast(new)) = retry(&ours, old).await else { panic!("retried") };
        let copied: serde_json::Value = serde_json::from_str(new.input.get()).unwrap();
        assert_eq!((&copied, new.summary.state.as_str()), (&input, "queued"));
        assert_ne!(new.summary.id(), old);
        assert_eq!(count(&mut bed.admin, "SELECT sum(taken)::bigint FROM app.quota_periods").await, taken);
    }
    assert!(matches!(retry(&ours, old).await, Retried::Requested(Requested::QuotaExceeded { cap: 5, .. })));
    quota_is_exact(&mut bed.admin, 5).await;
    let first = claim(&bed.db, 1).await.remove(0);
    assert_eq!(complete(&bed.db, &first).await, Settled::Done);
    assert!(matches!(retry(&ours, first.forecast_id).await, Retried::NotRetryable));
    let linked = "SELECT count(*) FROM app.forecasts WHERE retry_of IS NOT NULL";
    assert_eq!(count(&mut bed.admin, linked).await, 5);
    let unchanged = "SELECT count(*) FROM app.forecasts WHERE state = 'cancelled' AND retry_of IS NULL";
    assert_eq!(count(&mut bed.admin, unchanged).await, 1);
}

/// One of the customer's clients: asks, cancels and retries, ten times each.
async fn client(db: Db, ours: Customer) -> u32 {
    let mut admitted = 0;
    let mut last = None;
    for _ in 0..10 {
        let id = new_id();
        let mut tx = db.tenant(ours.tenant.into()).begin().await.unwrap();
        let asked = match last {
            None => forecasts::request(&mut tx, id, ours.scenario.into(), ours.user.into()).await.unwrap(),
            Some(old) => match forecast_control::retry(&mut tx, id, old, ours.user.into()).await.unwrap() {
                Retried::Requested(asked) => asked,
                other => panic!("{other:?}"),
            },
        };
        tx.commit().await.unwrap();
        if matches!(asked, Requested::Forecast(_)) {
            admitted += 1;
            // Cancelled by us, unless the worker failed it first: ended either way.
            let _ = cancel(&db, &ours, id).await;
            last = Some(id);
        }
    }
    admitted
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_is_exact_at_the_cap_while_clients_ask_cancel_and_retry_and_a_worker_fails() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let worker_db = Db::open(crate::support::options(&bed.postgres)).unwrap();
    let worker = tokio::spawn(async move {
        let mut failed = 0;
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            for job in claim(&worker_db, 4).await {
                match jobs::fail(&worker_db, &job.claim, Failure::Permanent, "x", "x").await {
                    Ok(Settled::Done) => failed += 1,
                    Ok(Settled::LeaseLost) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            tokio::task::yield_now().await;
        }
        failed
    });
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut options = crate::support::options(&bed.postgres);
            options.max_connections = 1;
            tokio::spawn(client(Db::open(options).unwrap(), ours))
        })
        .collect();
    while clients.iter().any(|client| !client.is_finished()) {
        quota_is_exact(&mut bed.admin, 5).await;
    }
    let mut admitted = 0;
    for client in clients {
        admitted += client.await.unwrap();
    }
    drop(stop);
    let failed: i64 = worker.await.unwrap();
    quota_is_exact(&mut bed.admin, 5).await;
    let made = "SELECT count(*) FROM app.forecasts";
    assert_eq!(count(&mut bed.admin, made).await, i64::from(admitted));
    let ended = "SELECT count(*) FROM app.forecasts WHERE state = 'failed'";
    assert_eq!(count(&mut bed.admin, ended).await, failed);
    assert!(admitted > 5, "{admitted}");
    assert_eq!(count(&mut bed.admin, "SELECT sum(taken)::bigint FROM app.quota_periods").await, 0);
}

#[tokio::test]
async fn a_cancellation_that_is_rolled_back_has_no_effect() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let id: ForecastId = customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await.into();
    let mut tx = bed.db.tenant(ours.tenant.into()).begin().await.unwrap();
    assert!(matches!(forecast_control::cancel(&mut tx, id).await, Ok(Cancelled::Forecast(_))));
    assert_eq!(claim(&bed.db, 1).await.len(), 0, "whoever cancels holds it");
    drop(tx);
    let job = loop {
        if let Some(job) = claim(&bed.db, 1).await.pop() {
            break job;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(complete(&bed.db, &job).await, Settled::Done);
    assert_eq!(bed.db.tenant(Uuid::nil().into()).begin().await.unwrap().commit().await, Ok::<(), StoreError>(()));
}

#[tokio::test]
async fn whoever_fails_a_forecast_owes_its_deletion_from_the_cache_from_then_on() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let input = customers::scenario_input();
    let owed = async |admin: &mut sqlx::postgres::PgConnection| {
        let keys = "SELECT key FROM app.cache_debts WHERE NOT blocks ORDER BY key";
        let keys: Vec<String> = sqlx::query_scalar(keys).fetch_all(&mut *admin).await.unwrap();
        sqlx::query("DELETE FROM app.cache_debts").execute(admin).await.unwrap();
        keys
    };
    let keys = |id: ForecastId| {
        let keys = [CacheKey::dashboard(ours.tenant.into()), CacheKey::forecast(ours.tenant.into(), id)];
        keys.map(|key| key.as_str().to_owned())
    };
    customers::queue_forecast(&mut bed.admin, &ours, &input).await;
    assert_eq!(complete(&bed.db, &claim(&bed.db, 1).await.remove(0)).await, Settled::Done);
    assert_eq!(owed(&mut bed.admin).await, [""; 0]);

    let failed: ForecastId = customers::queue_forecast(&mut bed.admin, &ours, &input).await.into();
    let job = claim(&bed.db, 1).await.remove(0);
    assert_eq!(jobs::fail(&bed.db, &job.claim, Failure::Permanent, "x", "x").await, Ok(Settled::Done));
    assert_eq!(owed(&mut bed.admin).await, keys(failed));

    let used_up: ForecastId = customers::queue_forecast(&mut bed.admin, &ours, &input).await.into();
    sqlx::query("UPDATE app.jobs SET attempts = 1000 WHERE state = 'queued'").execute(&mut bed.admin).await.unwrap();
    assert!(claim(&bed.db, 1).await.is_empty(), "ended by the claim, whose answer may be lost");
    assert_eq!(owed(&mut bed.admin).await, keys(used_up));
}
