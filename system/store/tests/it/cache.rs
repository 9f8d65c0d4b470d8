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

#[tokio::test(flavor = "multi_thread")]
async fn replies_to_cancelled_calls_reach_nobody_else() {
    let redis = Redis::start();
    let cache = open(&redis);
    let key = |n: u128| CacheKey::plan(TenantId::from_uuid(uuid::Uuid::from_u128(n)));
    for n in 0..50 {
        let Lookup::Miss(Some(lease)) = cache.get::<u128>(&key(n)).await else { panic!("empty") };
        assert!(cache.fill(lease, &n, TTL).await);
    }
    let callers = (0..8_u64).map(|caller| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let mut answered = 0_u32;
            for round in 0..600_u64 {
                let n = u128::from((round * 7 + caller) % 50);
                // Dropped anywhere between sending and reading, or let be.
                let patience = Duration::from_micros((round * 37 + caller * 11) % 700);
                match tokio::time::timeout(patience, cache.get::<u128>(&key(n))).await {
                    Ok(Lookup::Hit(found)) => {
                        assert_eq!(found, n, "somebody else's reply");
                        answered += 1;
                    }
                    Ok(Lookup::Miss(_)) | Err(_) => {}
                }
            }
            answered
        })
    });
    let mut answered = 0;
    for caller in callers.collect::<Vec<_>>() {
        answered += caller.await.unwrap();
    }
    assert!(answered > 100, "{answered} answers");
    assert!(matches!(cache.get::<u128>(&key(7)).await, Lookup::Hit(7)), "the link is none the worse");
}

#[tokio::test]
async fn a_link_that_swallows_everything_is_left_for_a_new_one() {
    let redis = Redis::start();
    let link = forecastle_testbed::Relay::to(redis.port());
    let url = format!("redis://127.0.0.1:{}/", link.port());
    let cache = Cache::open(&CacheOptions { redis_url: url, timeout: Duration::from_millis(100) }).unwrap();
    cache.ping().await.unwrap();
    link.silence();
    for _ in 0..4 {
        assert!(cache.ping().await.is_err());
    }
    // The old connection stays silent for ever; only a new one can answer.
    link.mend();
    wait_until("redis answers again", async || cache.ping().await.is_ok()).await;
    for _ in 0..20 {
        cache.ping().await.unwrap();
    }
}

#[tokio::test]
async fn garbage_under_one_key_costs_no_other_key_anything() {
    let redis = Redis::start();
    let cache = open(&redis);
    let lease = miss(&cache).await;
    assert!(cache.fill(lease, &1_u32, TTL).await);
    let odd = CacheKey::plan(TenantId::from_uuid(uuid::Uuid::from_u128(2)));
    for wrong in ["SET|V1{", "SET|V0 7", "SET|", "RPUSH|x", "SET|V1\"text\""] {
        let (command, value) = wrong.split_once('|').unwrap();
        redis.command(&["DEL", odd.as_str()]);
        redis.command(&[command, odd.as_str(), value]);
        for _ in 0..10 {
            assert!(!matches!(cache.get::<u32>(&odd).await, Lookup::Hit(_)), "{wrong}");
            assert!(matches!(cache.get::<u32>(&key()).await, Lookup::Hit(1)), "{wrong}");
        }
        assert_eq!(cache.get_or_load(&odd, TTL, async { Ok::<u32, ()>(3) }, |_| true).await, Ok(3));
        assert!(matches!(cache.get::<u32>(&odd).await, Lookup::Hit(3)), "mended: {wrong}");
        cache.delete(std::slice::from_ref(&odd)).await;
    }
}
