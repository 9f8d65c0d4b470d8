//! Token buckets, counted over all instances.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use forecastle_store::limiter::{Allowance, Bucket};
use forecastle_store::{Cache, CacheOptions};
use forecastle_testbed::Redis;

fn instance(redis: &Redis) -> Cache {
    Cache::open(&CacheOptions { redis_url: redis.url(), timeout: Duration::from_secs(2) }).unwrap()
}

fn address(last: u8, per_second: u32, burst: u32) -> Allowance {
    Allowance { bucket: Bucket::Address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))), per_second, burst }
}

#[tokio::test]
async fn two_instances_share_a_bucket_which_admits_its_burst_and_then_its_rate() {
    let redis = Redis::start();
    let instances = [instance(&redis), instance(&redis)];
    let started = Instant::now();
    let mut admitted = 0;
    for n in 0..40 {
        let taken = instances[n % 2].take_token(address(1, 2, 5)).await.unwrap();
        admitted += u64::from(taken.admitted);
        if !taken.admitted {
            assert!(taken.wait > Duration::ZERO && taken.wait <= Duration::from_millis(500), "{:?}", taken.wait);
            assert_eq!(taken.remaining, 0);
        }
    }
    let refilled = started.elapsed().as_millis() as u64 * 2 / 1_000 + 1;
    assert!((5..=5 + refilled).contains(&admitted), "{admitted} in {:?}", started.elapsed());

    let other = instances[0].take_token(address(2, 2, 5)).await.unwrap();
    assert_eq!((other.admitted, other.remaining, other.wait), (true, 4, Duration::ZERO));
}

#[tokio::test]
async fn a_refusal_takes_no_token_so_waiting_as_told_is_enough() {
    let redis = Redis::start();
    let cache = instance(&redis);
    assert!(cache.take_token(address(1, 2, 1)).await.unwrap().admitted);
    let mut wait = Duration::ZERO;
    for _ in 0..20 {
        let refused = cache.take_token(address(1, 2, 1)).await.unwrap();
        if refused.admitted {
            // So slow a machine that the bucket has refilled meanwhile.
            return;
        }
        wait = refused.wait;
    }
    tokio::time::sleep(wait).await;
    assert!(cache.take_token(address(1, 2, 1)).await.unwrap().admitted);
}

#[tokio::test]
async fn garbage_under_a_buckets_key_is_a_full_bucket() {
    let redis = Redis::start();
    let cache = instance(&redis);
    assert!(cache.take_token(address(1, 1, 3)).await.unwrap().admitted);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("rl:a:*").query_async(&mut link).await.unwrap();
    assert_eq!(keys.len(), 1);
    for (command, garbage) in [("SET", "not a number"), ("SET", "nan"), ("SET", "-inf"), ("LPUSH", "1")] {
        let _: i64 = redis::cmd("DEL").arg(&keys[0]).query_async(&mut link).await.unwrap();
        let _: redis::Value = redis::cmd(command).arg(&keys[0]).arg(garbage).query_async(&mut link).await.unwrap();
        let taken = cache.take_token(address(1, 1, 3)).await.unwrap();
        assert_eq!((taken.admitted, taken.remaining), (true, 2), "{command} {garbage}");
    }
}
