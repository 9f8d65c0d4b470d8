//! A request in two trips: the usual is written whole, and whatever is not the usual writes nothing.

use std::time::Duration;

use forecastle_domain::ForecastId;
use forecastle_store::forecast_request::{self, Prospect};
use forecastle_store::idempotency::{self, Claim, IdempotentRequest, StoredAnswer};
use forecastle_store::{Db, StoreError, TenantScope, forecasts};
use forecastle_testbed::customers::{self, Customer, count};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Bed, bed, options};

const TTL: Duration = Duration::from_secs(60);

fn request(ours: &Customer, key: &str) -> IdempotentRequest {
    IdempotentRequest { user_id: ours.user.into(), key: key.to_owned(), fingerprint: [7; 32] }
}

fn answer() -> StoredAnswer {
    StoredAnswer { status: 202, response: "{}".to_owned() }
}

async fn look(db: &Db, ours: &Customer, key: &str) -> Option<Prospect> {
    let id = ForecastId::from_uuid(Uuid::now_v7());
    let scope = db.tenant(ours.tenant.into());
    forecast_request::look(&scope, &request(ours, key), id, ours.scenario.into()).await.unwrap()
}

async fn write(scope: &TenantScope, prospect: &Prospect, sent: &IdempotentRequest) -> Result<bool, StoreError> {
    forecast_request::write(scope, prospect, sent, &answer(), TTL).await
}

/// Quota counted, forecasts, jobs, keys.
async fn written(bed: &mut Bed) -> [i64; 4] {
    let mut all = [0; 4];
    let each = [
        "coalesce(sum(taken), 0)::bigint FROM app.quota_periods",
        "count(*) FROM app.forecasts",
        "count(*) FROM app.jobs",
        "count(*) FROM app.idempotency_keys",
    ];
    for (all, what) in all.iter_mut().zip(each) {
        *all = count(&mut bed.admin, &format!("SELECT {what}")).await;
    }
    all
}

#[tokio::test]
async fn the_usual_request_is_stored_as_it_was_answered_and_once() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "EUR", "2026-01-01").await;
    let scope = bed.db.tenant(ours.tenant.into());
    let (sent, prospect) = (request(&ours, "k"), look(&bed.db, &ours, "k").await.unwrap());
    assert!(write(&scope, &prospect, &sent).await.unwrap());
    assert_eq!(written(&mut bed).await, [1, 1, 1, 1]);
    let stored = forecasts::read(&scope, prospect.forecast.summary.id()).await.unwrap().unwrap();
    let told = |forecast: &forecasts::Forecast| serde_json::to_value(forecast).unwrap();
    assert_eq!(told(&stored), told(&prospect.forecast));
    let waiting = "SELECT count(*) FROM app.forecast_events WHERE state = 'queued'";
    assert_eq!(count(&mut bed.admin, waiting).await, 1);
    // As after a lost answer: the statement is sent again.
    assert!(!write(&scope, &prospect, &sent).await.unwrap());
    assert_eq!(written(&mut bed).await, [1, 1, 1, 1]);
    assert!(look(&bed.db, &ours, "k").await.is_none(), "the key is known");
    let mut tx = scope.begin().await.unwrap();
    assert_eq!(idempotency::claim(&mut tx, &sent).await.unwrap(), Claim::Replay(answer()));
}

#[tokio::test]
async fn what_changed_since_the_look_sends_the_request_the_long_way() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "EUR", "2026-01-01").await;
    let scope = bed.db.tenant(ours.tenant.into());
    for (change, back) in [
        ("UPDATE app.scenarios SET version = version + 1", "UPDATE app.scenarios SET version = version - 1"),
        ("UPDATE app.tenants SET plan = 'FREE'", "UPDATE app.tenants SET plan = 'PRO'"),
        (
            "UPDATE app.tenants SET billing_state = 'past_due', past_due_since = now()",
            "UPDATE app.tenants SET billing_state = 'current', past_due_since = NULL",
        ),
    ] {
        let prospect = look(&bed.db, &ours, change).await.unwrap();
        sqlx::query(change).execute(&mut bed.admin).await.unwrap();
        assert!(!write(&scope, &prospect, &request(&ours, change)).await.unwrap(), "{change}");
        assert_eq!(written(&mut bed).await, [0; 4], "{change}");
        sqlx::query(back).execute(&mut bed.admin).await.unwrap();
        assert!(look(&bed.db, &ours, change).await.is_some(), "{back}");
    }
    let mut prospect = look(&bed.db, &ours, "slow").await.unwrap();
    prospect.forecast.summary.requested_at -= Duration::from_millis(1_001);
    assert!(!write(&scope, &prospect, &request(&ours, "slow")).await.unwrap(), "a look holds for a second");
    assert_eq!(written(&mut bed).await, [0; 4]);
}

#[tokio::test]
async fn what_may_be_refused_or_replayed_is_not_looked_at_twice() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "EUR", "2026-01-01").await;
    let theirs = customers::sign_up(&mut bed.admin, "PRO", "EUR", "2026-01-01").await;
    assert!(look(&bed.db, &Customer { scenario: theirs.scenario, ..ours }, "k").await.is_none(), "not ours");
    assert!(look(&bed.db, &Customer { tenant: theirs.tenant, ..ours }, "k").await.is_none(), "nor theirs through us");
    let mut simulated: Value = customers::scenario_input();
    simulated["uncertainty"] =
        json!({ "paths": 10, "price_sigma_monthly": "0.1", "adds_sigma_monthly": "0.1", "seed": "1" });
    let edit =
        sqlx::query("UPDATE app.scenarios SET input = $1 WHERE tenant_id = $2").bind(simulated).bind(ours.tenant);
    edit.execute(&mut bed.admin).await.unwrap();
    assert!(look(&bed.db, &ours, "k").await.is_none(), "a switch decides on simulations");
}

#[tokio::test]
async fn a_key_that_another_transaction_works_under_is_left_to_it() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "EUR", "2026-01-01").await;
    let scope = bed.db.tenant(ours.tenant.into());
    let (sent, prospect) = (request(&ours, "k"), look(&bed.db, &ours, "k").await.unwrap());
    let mut other = scope.begin().await.unwrap();
    assert_eq!(idempotency::claim(&mut other, &sent).await.unwrap(), Claim::Fresh);
    assert!(!write(&scope, &prospect, &sent).await.unwrap());
    assert_eq!(written(&mut bed).await, [0; 4]);
    other.rollback().await;
    assert!(write(&scope, &prospect, &sent).await.unwrap());
}

#[tokio::test]
async fn keys_whose_time_is_over_are_forgotten_by_one_request_in_eight() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "EUR", "2026-01-01").await;
    let theirs = customers::sign_up(&mut bed.admin, "PRO", "EUR", "2026-01-01").await;
    for (who, count) in [(ours, 40), (theirs, 1)] {
        let spent = "INSERT INTO app.idempotency_keys
                         (tenant_id, user_id, key, fingerprint, state, status, response, created_at, expires_at)
                     SELECT $1, $2, 'old ' || n, '', 'done', 202, '{}', now(), now() - n * interval '1 second'
                     FROM generate_series(1, $3) n";
        let spent = sqlx::query(spent).bind(who.tenant).bind(who.user).bind(count);
        spent.execute(&mut bed.admin).await.unwrap();
    }
    let scope = bed.db.tenant(ours.tenant.into());
    for (last_byte, left) in [(1, 42), (8, 11), (15, 12), (16, 5)] {
        let key = format!("new {last_byte}");
        let id = ForecastId::from_uuid(Uuid::from_u128(Uuid::now_v7().as_u128() & !0xff | last_byte));
        let sent = request(&ours, &key);
        let prospect = forecast_request::look(&scope, &sent, id, ours.scenario.into()).await.unwrap().unwrap();
        assert!(write(&scope, &prospect, &sent).await.unwrap());
        assert_eq!(count(&mut bed.admin, "SELECT count(*) FROM app.idempotency_keys").await, left, "{last_byte}");
    }
    let theirs = "SELECT count(*) FROM app.idempotency_keys WHERE key LIKE 'old %'";
    assert_eq!(count(&mut bed.admin, theirs).await, 1, "another tenant's stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_cap_exactly_as_many_are_admitted_as_have_room() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "FREE", "USD", "2026-01-01").await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..12 {
        // Two of each key at once; a pool for each, so that none waits for another's connection.
        let db = Db::open(options(&bed.postgres)).unwrap();
        let key = format!("k{}", number / 2);
        asking.spawn(async move {
            let Some(prospect) = look(&db, &ours, &key).await else { return false };
            write(&db.tenant(ours.tenant.into()), &prospect, &request(&ours, &key)).await.unwrap()
        });
    }
    let admitted = asking.join_all().await.into_iter().filter(|is_written| *is_written).count();
    assert_eq!(admitted, 5, "of six keys five have room under FREE's cap");
    assert_eq!(written(&mut bed).await, [5; 4]);
}

#[tokio::test]
async fn a_result_of_before_and_one_of_now_are_read_by_the_builds_of_both() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "EUR", "2026-01-01").await;
    let scope = bed.db.tenant(ours.tenant.into());
    for (column, other) in [("result", "result_json"), ("result_json", "result")] {
        let prospect = look(&bed.db, &ours, column).await.unwrap();
        assert!(write(&scope, &prospect, &request(&ours, column)).await.unwrap());
        let id = prospect.forecast.summary.id();
        let finish = format!(
            "UPDATE app.forecasts SET state = 'succeeded', finished_at = now(), quota_state = 'consumed',
                 result_hash = repeat('a', 64), {column} = '{{\"npv\": \"1.00\"}}' WHERE forecast_id = '{}'",
            id.as_uuid()
        );
        sqlx::query(sqlx::AssertSqlSafe(finish)).execute(&mut bed.admin).await.unwrap();
        let read = forecasts::read(&scope, id).await.unwrap().unwrap().result.unwrap();
        assert_eq!(serde_json::from_str::<Value>(read.get()).unwrap(), json!({ "npv": "1.00" }), "{column}");
        // As a build of before asks.
        let before: Value = sqlx::query_scalar("SELECT (forecast).result FROM app.read_forecast($1, $2)")
            .bind(ours.tenant)
            .bind(id.as_uuid())
            .fetch_one(&mut bed.admin)
            .await
            .unwrap();
        assert_eq!(before, json!({ "npv": "1.00" }), "{column}");
        let both = format!("UPDATE app.forecasts SET {other} = '{{}}' WHERE forecast_id = '{}'", id.as_uuid());
        assert!(sqlx::query(sqlx::AssertSqlSafe(both)).execute(&mut bed.admin).await.is_err(), "one result, not two");
    }
}
