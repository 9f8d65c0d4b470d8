//! Late readers, lost servers and confirmed deletions.

use std::time::Duration;

use forecastle_domain::TenantId;
use forecastle_store::{Cache, CacheKey, CacheOptions, Lookup};
use forecastle_testbed::Redis;

use crate::support::wait_until;

const TTL: Duration = Duration::from_secs(60);

fn open(redis: &Redis) -> Cache {
    Cache::open(&CacheOptions { redis_url: redis.url(), timeout: Duration::from_millis(250) }).unwrap()
}

fn key() -> CacheKey {
    CacheKey::dashboard(TenantId::from_uuid(uuid::Uuid::from_u128(1)))
}

async fn miss(cache: &Cache) -> forecastle_store::FillLease {
    match cache.get::<u32>(&key()).await {
        Lookup::Miss(Some(lease)) => lease,
        other => panic!("expected a miss with a lease, got {other:?}"),
    }
}

#[tokio::test]
async fn a_late_reader_cannot_put_an_old_value_back() {
    let redis = Redis::start();
    let (reader, writer) = (open(&redis), open(&redis));
    let old = miss(&reader).await;
    writer.delete_confirmed(&key()).await.unwrap();
    assert!(!reader.fill(old, &1_u32, TTL).await);
    let fresh = miss(&reader).await;
    assert!(reader.fill(fresh, &2_u32, TTL).await);
    assert!(matches!(writer.get::<u32>(&key()).await, Lookup::Hit(2)));
}

#[tokio::test]
async fn one_caller_loads_and_the_others_share() {
    let redis = Redis::start();
    let cache = open(&redis);
    let loads = std::sync::atomic::AtomicU32::new(0);
    let ask = async || {
        let load = async {
            loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<u32, ()>(7)
        };
        cache.get_or_load(&key(), TTL, load, |_| true).await
    };
    let answers = tokio::join!(ask(), ask(), ask(), ask());
    assert_eq!(answers, (Ok(7), Ok(7), Ok(7), Ok(7)));
    assert_eq!(loads.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_caller_does_not_wait_for_ever_behind_one_that_loads() {
    let redis = Redis::start();
    let cache = open(&redis);
    let (loading, when_loading) = tokio::sync::oneshot::channel();
    let endless = async {
        loading.send(()).unwrap();
        std::future::pending::<Result<u32, ()>>().await
    };
    let key = key();
    let stuck = cache.get_or_load(&key, TTL, endless, |_| true);
    let ask = async {
        when_loading.await.unwrap();
        cache.get_or_load(&key, TTL, async { Ok::<u32, ()>(7) }, |_| true).await
    };
    tokio::select! {
        answer = tokio::time::timeout(Duration::from_secs(10), ask) => assert_eq!(answer.unwrap(), Ok(7)),
        _ = stuck => panic!("a load that never ends has ended"),
    }
}

#[tokio::test]
async fn a_value_whose_deletion_is_owed_is_not_believed() {
    let redis = Redis::start();
    let cache = open(&redis);
    let lease = miss(&cache).await;
    assert!(cache.fill(lease, &1_u32, TTL).await);
    redis.pause();
    cache.delete(&[key()]).await;
    redis.resume();
    // Until the debt is paid the value may still be there; it is never given out again.
    for _ in 0..200 {
        assert!(!matches!(cache.get::<u32>(&key()).await, Lookup::Hit(1)));
        tokio::task::yield_now().await;
    }
    wait_until("the debt is paid", async || matches!(cache.get::<u32>(&key()).await, Lookup::Miss(Some(_)))).await;
}

#[tokio::test]
async fn without_redis_every_answer_is_a_miss_and_no_deletion_is_confirmed() {
    let redis = Redis::start();
    let cache = open(&redis);
    let lease = miss(&cache).await;
    assert!(cache.fill(lease, &1_u32, TTL).await);
    let port = redis.port();
    drop(redis);
    assert!(matches!(cache.get::<u32>(&key()).await, Lookup::Miss(None)));
    assert!(cache.delete_confirmed(&key()).await.is_err());
    assert_eq!(cache.get_or_load(&key(), TTL, async { Ok::<u32, ()>(9) }, |_| true).await, Ok(9));

    let back = Redis::start_on(port);
    wait_until("the cache works again", async || cache.ping().await.is_ok()).await;
    assert_eq!(cache.get_or_load(&key(), TTL, async { Ok::<u32, ()>(10) }, |_| true).await, Ok(10));
    drop(back);
}

#[tokio::test]
async fn a_deletion_that_redis_missed_is_made_up_for() {
    let redis = Redis::start();
    let (cache, other) = (open(&redis), open(&redis));
    let lease = miss(&cache).await;
    assert!(cache.fill(lease, &1_u32, TTL).await);
    // A stopped process accepts and never answers: the hardest kind of silence.
    redis.pause();
    cache.delete(&[key()]).await;
    redis.resume();
    wait_until("the owed deletion is paid", async || !matches!(other.get::<u32>(&key()).await, Lookup::Hit(_))).await;
}
