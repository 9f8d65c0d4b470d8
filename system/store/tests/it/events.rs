//! The line of events: complete, in order, and readable on from any place.

use std::time::Duration;

use forecastle_domain::ForecastId;
use forecastle_store::events::{self, EventPage, EventPlace, ForecastEvent};
use forecastle_store::jobs::{self, ClaimTerms, KIND_FORECAST, Settled};
use forecastle_store::{Db, forecast_control, forecasts};
use forecastle_testbed::customers::{self, Customer, count};
use uuid::Uuid;

use crate::support::{bed, wait_until};

const LONG: Duration = Duration::from_secs(60);

async fn end(db: &Db, customer: &Customer) -> EventPlace {
    let mut tx = db.tenant(customer.tenant.into()).begin().await.unwrap();
    events::end(&mut tx).await.unwrap()
}

async fn after(db: &Db, customer: &Customer, place: EventPlace, limit: u32) -> EventPage {
    let mut tx = db.tenant(customer.tenant.into()).begin().await.unwrap();
    events::after(&mut tx, place, limit).await.unwrap()
}

fn states(events: &[ForecastEvent]) -> Vec<(ForecastId, &str, Option<u8>)> {
    events.iter().map(|event| (event.forecast_id, event.state.as_str(), event.percent)).collect()
}

#[tokio::test]
async fn a_forecasts_life_is_told_in_order_to_its_own_tenant_alone() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let theirs = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let (begin, their_begin) = (end(&bed.db, &ours).await, end(&bed.db, &theirs).await);
    let id: ForecastId = customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await.into();
    let terms = ClaimTerms { lease: LONG, deadline: LONG };
    let claim = async || jobs::claim(&bed.db, "w", 1, terms, &[KIND_FORECAST]).await.unwrap().jobs.remove(0).claim;
    let first = claim().await;
    assert_eq!(jobs::heartbeat(&bed.db, &first, LONG, Some(40)).await, Ok(Settled::Done));
    assert_eq!(jobs::heartbeat(&bed.db, &first, LONG, None).await, Ok(Settled::Done));
    assert_eq!(jobs::hand_back(&bed.db, &first).await, Ok(Settled::Done));
    assert_eq!(jobs::heartbeat(&bed.db, &first, LONG, Some(60)).await, Ok(Settled::LeaseLost));
    claim().await;
    let mut tx = bed.db.tenant(ours.tenant.into()).begin().await.unwrap();
    forecast_control::cancel(&mut tx, id).await.unwrap();
    tx.commit().await.unwrap();

    let page = after(&bed.db, &ours, begin, 100).await;
    let told = [
        (id, "queued", None),
        (id, "running", Some(0)),
        (id, "running", Some(40)),
        (id, "queued", None),
        (id, "running", Some(0)),
        (id, "cancelled", None),
    ];
    assert_eq!(states(&page.events), told);
    assert!(!page.more);
    let rest = after(&bed.db, &ours, page.events[2].place, 2).await;
    assert_eq!((states(&rest.events), rest.more), (told[3..5].to_vec(), true));
    let rest = after(&bed.db, &ours, rest.events[1].place, 2).await;
    assert_eq!((states(&rest.events), rest.more), (told[5..].to_vec(), false));
    assert!(after(&bed.db, &theirs, their_begin, 100).await.events.is_empty());
}

#[tokio::test]
async fn what_commits_late_is_not_passed_over() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let begin = end(&bed.db, &ours).await;
    let scope = bed.db.tenant(ours.tenant.into());
    let ask = async |tx: &mut forecastle_store::TenantTx| {
        let id = ForecastId::from_uuid(Uuid::now_v7());
        forecasts::request(tx, id, ours.scenario.into(), ours.user.into()).await.unwrap();
        id
    };
    // Asked by the superuser first, so that neither of the two waits for the other's count of the quota.
    let early = customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await.into();
    let mut slow = scope.begin().await.unwrap();
    slow.execute(sqlx::query("SELECT pg_current_xact_id()")).await.unwrap();
    let mut quick = scope.begin().await.unwrap();
    let second = ask(&mut quick).await;
    quick.commit().await.unwrap();

    let page = after(&bed.db, &ours, begin, 100).await;
    assert_eq!(states(&page.events), [(early, "queued", None)], "the second waits for whoever may still come before");
    assert!(page.more);
    let place = page.events[0].place;
    let first = ask(&mut slow).await;
    slow.commit().await.unwrap();
    let page = after(&bed.db, &ours, place, 100).await;
    assert_eq!(states(&page.events), [(first, "queued", None), (second, "queued", None)]);
}

#[tokio::test]
async fn a_transaction_number_with_one_digit_more_comes_after() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let id = customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    for (xid, percent) in [(9_i32, 1_i16), (10, 2), (99, 3), (100, 4)] {
        let event = sqlx::query(
            "INSERT INTO app.forecast_events (tenant_id, xid, forecast_id, state, percent)
             VALUES ($1, $2::text::xid8, $3, 'running', $4)",
        );
        let event = event.bind(ours.tenant).bind(xid.to_string()).bind(id).bind(percent);
        event.execute(&mut bed.admin).await.unwrap();
    }
    let mut place = "1-0-0".parse().unwrap();
    let mut told = Vec::new();
    for _ in 0..4 {
        let page = after(&bed.db, &ours, place, 1).await;
        place = page.events[0].place;
        told.extend(page.events[0].percent);
    }
    assert_eq!(told, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_beside_many_writers_misses_nothing_and_sees_nothing_twice() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let id = customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    let begin = end(&bed.db, &ours).await;
    let writers: Vec<_> = (0..6_u64)
        .map(|writer| {
            let mut options = crate::support::options(&bed.postgres);
            options.max_connections = 1;
            let db = Db::open(options).unwrap();
            tokio::spawn(async move {
                for round in 0..40_u64 {
                    let mut tx = db.tenant(ours.tenant.into()).begin().await.unwrap();
                    let event = sqlx::query(
                        "INSERT INTO app.forecast_events (tenant_id, forecast_id, state) VALUES ($1, $2, 'running')",
                    );
                    tx.execute(event.bind(ours.tenant).bind(id)).await.unwrap();
                    tokio::time::sleep(Duration::from_micros((writer * 977 + round * 331) % 4_000)).await;
                    if (writer + round) % 7 == 0 {
                        tx.rollback().await;
                    } else {
                        tx.commit().await.unwrap();
                    }
                }
            })
        })
        .collect();
    // The writers' events alone are counted: a transaction of somebody else may hold the line's end back, and then the
    // forecast's own event comes after it.
    let (mut read, mut running) = (Vec::new(), 0);
    let mut place = begin;
    loop {
        let is_over = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let page = after(&bed.db, &ours, place, 16).await;
        if let Some(last) = page.events.last() {
            place = last.place;
        }
        running += page.events.iter().filter(|event| event.state == "running").count();
        read.extend(page.events.iter().map(|event| event.place));
        if is_over && !page.more && page.events.is_empty() {
            break;
        }
    }
    let written = "SELECT count(*) FROM app.forecast_events WHERE state = 'running'";
    assert_eq!(count(&mut bed.admin, written).await, i64::try_from(running).unwrap());
    let mut sorted = read.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted, read);
}

#[tokio::test]
async fn old_events_are_forgotten_and_whoever_comes_back_too_late_is_told() {
    let mut bed = bed().await;
    let ours = customers::sign_up(&mut bed.admin, "PRO", "USD", "2026-01-01").await;
    let begin = end(&bed.db, &ours).await;
    customers::queue_forecast(&mut bed.admin, &ours, &customers::scenario_input()).await;
    assert_eq!(events::prune(&bed.db, LONG, 100).await, Ok(0));
    let db = &bed.db;
    wait_until("it is old", async || events::prune(db, Duration::from_millis(30), 100).await == Ok(1)).await;
    assert!(after(&bed.db, &ours, begin, 100).await.events.is_empty());
    let mut tx = bed.db.tenant(ours.tenant.into()).begin().await.unwrap();
    assert_eq!(events::is_kept(&mut tx, begin, LONG).await, Ok(true));
    assert_eq!(events::is_kept(&mut tx, begin, Duration::from_millis(30)).await, Ok(false));
    // A place of a future that this server has not seen: another server's.
    let foreign: EventPlace = "9000000000000-1-99999999999999".parse().unwrap();
    assert_eq!(events::is_kept(&mut tx, foreign, LONG).await, Ok(false));
}
