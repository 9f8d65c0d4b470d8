//! One instance's link to Redis is cut, or nobody's is left, or an instance hears nothing: whatever was
//! deleted is given out by nobody once the deletion has returned.

use std::time::{Duration, Instant};

use forecastle_domain::{ScenarioId, TenantId};
use forecastle_store::{Cache, CacheKey, CacheOptions, Db, Deletion, Lookup};
use forecastle_testbed::{Redis, Relay, customers};

use crate::support::{Bed, bed, options, wait_until};

const TRUST: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(300);
/// Longest wait of a writer whose peers are well; they take milliseconds.
const PEER_PAYS_WITHIN: Duration = Duration::from_secs(1);

fn key() -> CacheKey {
    let id = uuid::Uuid::from_u128(1);
    CacheKey::scenario(TenantId::from_uuid(id), ScenarioId::from_uuid(id))
}

fn shared(port: u16, db: &Db) -> Cache {
    let options = CacheOptions { redis_url: format!("redis://127.0.0.1:{port}/"), timeout: Duration::from_millis(250) };
    Cache::open_shared(&options, db, TRUST).unwrap()
}

async fn load(cache: &Cache, value: u32) -> u32 {
    cache.get_or_load(&key(), TTL, async move { Ok::<_, ()>(value) }, |_| true).await.unwrap()
}

/// Has the instance keep a value, once it may.
async fn keep(cache: &Cache, value: u32) {
    wait_until("the value is kept", async || {
        load(cache, value).await;
        matches!(cache.get::<u32>(&key()).await, Lookup::Hit(kept) if kept == value)
    })
    .await;
}

async fn gives_out(cache: &Cache, value: u32) -> bool {
    matches!(cache.get::<u32>(&key()).await, Lookup::Hit(kept) if kept == value)
}

async fn owed(bed: &mut Bed) -> i64 {
    customers::count(&mut bed.admin, "SELECT count(*) FROM app.cache_debts").await
}

#[tokio::test]
async fn a_peer_deletes_what_a_writer_with_a_cut_link_cannot() {
    let mut bed = bed().await;
    let redis = Redis::start();
    let link = Relay::to(redis.port());
    let (writer, reader) = (shared(link.port(), &bed.db), shared(redis.port(), &bed.db));
    for silent in [false, true] {
        wait_until("the writer reaches redis", async || writer.ping().await.is_ok()).await;
        if silent {
            link.silence()
        } else {
            link.cut()
        }
        for round in 0..10 {
            keep(&reader, round).await;
            let started = Instant::now();
            writer.announce(&[key()]).await;
            assert!(!gives_out(&reader, round).await, "announced");
            assert_eq!(writer.delete(&[key()]).await, Deletion::Confirmed);
            assert!(started.elapsed() < 2 * PEER_PAYS_WITHIN, "silent {silent}: {:?}", started.elapsed());
            assert!(!gives_out(&reader, round).await, "round {round}, silent {silent}");
        }
        assert_eq!(owed(&mut bed).await, 0);
        link.mend();
    }
}

#[tokio::test]
async fn where_nobody_reaches_redis_nobody_waits_and_nobody_believes_it_when_it_is_back() {
    let mut bed = bed().await;
    let redis = Redis::start();
    let (one, two) = (Relay::to(redis.port()), Relay::to(redis.port()));
    let (writer, reader) = (shared(one.port(), &bed.db), shared(two.port(), &bed.db));
    keep(&reader, 1).await;
    keep(&writer, 1).await;
    one.cut();
    two.cut();
    let started = Instant::now();
    assert_eq!(writer.delete(&[key()]).await, Deletion::Recorded);
    assert!(started.elapsed() < 2 * TRUST, "{:?}", started.elapsed());
    wait_until("both have withdrawn", async || {
        customers::count(&mut bed.admin, "SELECT count(*) FROM app.cache_readers WHERE trusts_until > now()").await == 0
    })
    .await;
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(writer.delete(&[key()]).await, Deletion::Recorded);
        assert!(started.elapsed() < TRUST, "nobody is waited for: {:?}", started.elapsed());
    }
    assert_eq!(owed(&mut bed).await, 1, "one row for a key, however often");

    // Redis was only out of reach: the old value is still in it.
    two.mend();
    let end = Instant::now() + Duration::from_secs(10);
    while owed(&mut bed).await > 0 {
        assert!(!gives_out(&reader, 1).await);
        assert!(Instant::now() < end, "the debt is paid within 10 s");
    }
    assert!(!gives_out(&reader, 1).await);
    keep(&reader, 2).await;
    one.mend();
    wait_until("the writer reads again", async || gives_out(&writer, 2).await).await;
}

#[tokio::test]
async fn a_debt_outlives_the_instance_that_owed_it() {
    let mut bed = bed().await;
    let redis = Redis::start();
    let link = Relay::to(redis.port());
    let writer = shared(link.port(), &bed.db);
    keep(&writer, 1).await;
    link.cut();
    assert_eq!(writer.delete(&[key()]).await, Deletion::Recorded);
    drop((writer, link));
    let next = shared(redis.port(), &bed.db);
    let end = Instant::now() + Duration::from_secs(10);
    while owed(&mut bed).await > 0 {
        assert!(!gives_out(&next, 1).await);
        assert!(Instant::now() < end, "the debt is paid within 10 s");
    }
    assert!(!gives_out(&next, 1).await);
    keep(&next, 2).await;
}

#[tokio::test]
async fn a_writer_that_dies_after_its_announcement_leaves_a_blocked_key() {
    let bed = bed().await;
    let redis = Redis::start();
    let link = Relay::to(redis.port());
    let (writer, reader) = (shared(link.port(), &bed.db), shared(redis.port(), &bed.db));
    keep(&reader, 1).await;
    link.cut();
    writer.announce(&[key()]).await;
    drop(writer);
    for _ in 0..50 {
        assert_eq!(load(&reader, 2).await, 2, "from the truth, and not kept before the block is over");
    }
}

#[tokio::test]
async fn an_instance_that_hears_nothing_from_postgres_stops_giving_out_before_the_writer_goes_on() {
    let bed = bed().await;
    let redis = Redis::start();
    let (link, deaf) = (Relay::to(redis.port()), Relay::to(bed.postgres.port()));
    let mut behind_relay = options(&bed.postgres);
    behind_relay.database_url =
        behind_relay.database_url.replace(&format!(":{}", bed.postgres.port()), &format!(":{}", deaf.port()));
    let reader = shared(redis.port(), &Db::open(behind_relay).unwrap());
    let writer = shared(link.port(), &bed.db);
    for silent in [true, false] {
        keep(&reader, 1).await;
        keep(&writer, 1).await;
        link.cut();
        if silent {
            deaf.silence()
        } else {
            deaf.cut()
        }
        let started = Instant::now();
        assert_eq!(writer.delete(&[key()]).await, Deletion::Recorded);
        assert!(started.elapsed() < 2 * TRUST, "{:?}", started.elapsed());
        assert!(!gives_out(&reader, 1).await, "silent {silent}");
        link.mend();
        deaf.mend();
        wait_until("it is paid", async || !gives_out(&writer, 1).await && load(&reader, 2).await == 2).await;
        keep(&reader, 2).await;
        assert_eq!(writer.delete(&[key()]).await, Deletion::Confirmed);
    }
}

#[tokio::test]
async fn without_postgres_a_deletion_that_redis_missed_is_not_called_done() {
    let bed = bed().await;
    let redis = Redis::start();
    let link = Relay::to(redis.port());
    let writer = shared(link.port(), &bed.db);
    keep(&writer, 1).await;
    link.cut();
    drop(bed.postgres);
    assert_eq!(writer.delete(&[key()]).await, Deletion::Unrecorded);
    link.mend();
    assert!(!gives_out(&writer, 1).await);
}

#[tokio::test]
async fn a_full_pool_costs_no_instance_its_cache() {
    let bed = bed().await;
    let redis = Redis::start();
    let reader = shared(redis.port(), &bed.db);
    keep(&reader, 1).await;
    let scope = bed.db.tenant(TenantId::from_uuid(uuid::Uuid::nil()));
    let mut held = Vec::new();
    while let Ok(tx) = scope.begin().await {
        held.push(tx);
    }
    let end = Instant::now() + 3 * TRUST;
    while Instant::now() < end {
        assert!(gives_out(&reader, 1).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
